package userside

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func version(t *testing.T, s string) Version {
	t.Helper()
	v, err := ParseVersion(s)
	require.NoError(t, err)
	return v
}

func TestVersionsInOrder(t *testing.T) {
	order := []string{"3.12dev1", "3.12beta", "3.12beta1", "3.12beta35", "3.12rc2", "3.12", "3.12.8", "3.12.83", "3.13", "3.13.25",
		"3.16dev2", "3.16dev3", "3.16dev8", "3.16", "3.16.23", "3.17", "3.17.36", "3.18beta1", "3.18.10", "3.19beta1", "3.19", "3.21", "4.0", "10.0"}
	for i, a := range order {
		v := version(t, a)
		require.Equal(t, a, v.String())
		require.False(t, v.IsZero())
		require.True(t, (Version{}).Before(v), a)
		for j, b := range order {
			require.Equal(t, cmp.Compare(i, j), v.Compare(version(t, b)), "%s and %s", a, b)
		}
	}
	require.Equal(t, version(t, "3.17"), version(t, "3.17.0"))
	require.Equal(t, version(t, "3.17.36"), version(t, "03.017.36"))
}

func TestParseVersionRefuses(t *testing.T) {
	for _, s := range []string{"", "3", "3.", ".3", "3.1.2.3", "3.12gamma1", "3.12beta-1", "3.12 beta1", "v3.12", "3.12Beta1", "3.-1", "3.+1",
		"3.65536", "3.12beta65536", "3.12\n", "3.1²", "3..12", "3.12beta1x", strings.Repeat("3", 40)} {
		_, err := ParseVersion(s)
		require.Error(t, err, s)
		require.Less(t, len(err.Error()), 160)
	}
}

func TestVersionHas(t *testing.T) {
	for _, tt := range []struct {
		server, since, until string
		want                 bool
	}{
		{"3.19", "3.17.36", "", true},
		{"3.17.35", "3.17.36", "", false},
		{"3.17.36", "3.17.36", "", true},
		{"3.17", "3.17.36", "", true}, // some patch of 3.17, it does not say which
		{"3.17beta1", "3.17.36", "", false},
		{"3.16", "3.17.36", "", false},
		{"3.12", "", "3.13", true},
		{"3.13", "", "3.13", false},
		{"3.13.5", "", "3.13", false},
		{"", "3.19", "", true}, // unknown: the newest
		{"", "", "3.13", false},
	} {
		bound := func(s string) Version {
			if s == "" {
				return Version{}
			}
			return version(t, s)
		}
		require.Equal(t, tt.want, bound(tt.server).Has(bound(tt.since), bound(tt.until)), "%+v", tt)
	}
}

func TestVersionAsText(t *testing.T) {
	type doc struct{ V Version }
	for _, s := range []string{`{"V":"3.16dev3"}`, `{"V":""}`} {
		var d doc
		require.NoError(t, json.Unmarshal([]byte(s), &d))
		text, err := json.Marshal(d)
		require.NoError(t, err)
		require.Equal(t, s, string(text))
	}
	require.ErrorContains(t, json.Unmarshal([]byte(`{"V":"x"}`), &doc{}), `version "x"`)
	require.Equal(t, "unknown", Stage(0).String())
	require.Equal(t, "release", StageRelease.String())
}

func TestFindVersion(t *testing.T) {
	for text, want := range map[string]string{
		"3.19.5": "3.19.5", "3.19": "3.19", "v3.21": "3.21", "UserSide 3.18.15": "3.18.15", "3.19 beta 1": "3.19beta1", "3.16dev3": "3.16dev3",
		"3.12RC2": "3.12rc2", "3.19-beta.2": "3.19beta2", "3.19.5.1204": "3.19.5", "3.21 (build 7)": "3.21", "": "", "newest": "", "7": "",
		"99999.1": "", "3.18 release": "3.18", "3.18.": "3.18",
	} {
		require.Equal(t, want, findVersion(text).String(), "%q", text)
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"3.12", "3.12beta35", "3.16dev3", "3.12rc2", "3.17.36", "3.19beta1", "3.21", "3.0.0", "", "x", "3.12beta00", "65535.65535.65535rc65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		findVersion(s)
		v, err := ParseVersion(s)
		if err != nil {
			require.Equal(t, Version{}, v)
			return
		}
		again, err := ParseVersion(v.String())
		require.NoError(t, err)
		require.Equal(t, v, again)
		require.Zero(t, v.Compare(again))
		list := []Version{{}, v}
		slices.SortFunc(list, Version.Compare)
		require.Equal(t, []Version{{}, v}, list)
	})
}
