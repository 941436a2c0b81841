package userside

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// parse returns the value of a JSON text; the tree lives as long as the value.
func parse(t testing.TB, doc string) value {
	t.Helper()
	tr := &tree{}
	v, err := tr.read(newScanner(strings.NewReader(doc)))
	require.NoError(t, err, doc)
	return v
}

func tryParse(doc []byte) (value, bool) {
	tr := &tree{}
	v, err := tr.read(newScanner(strings.NewReader(string(doc))))
	return v, err == nil
}

func TestLoosenessInt(t *testing.T) {
	for doc, want := range map[string]Int{
		`"0"`: {0, true}, `0`: {0, true}, `7`: {7, true}, `" 7 "`: {7, true}, `true`: {1, true}, `false`: {0, true}, `""`: {}, `null`: {}, `[]`: {}, `{}`: {},
		`"0.00"`: {0, true}, `"12.0"`: {12, true}, `-5`: {-5, true}, `1e3`: {1000, true}, `"+5"`: {5, true},
	} {
		t.Run(doc, func(t *testing.T) {
			got, err := parse(t, doc).int()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	for doc, want := range map[string]string{
		`"x"`: `"x" is not a whole number`, `1.5`: `"1.5" is not`, `[1]`: "array where a whole number", `{"a":1}`: "object where",
		`"` + strings.Repeat("9", 100) + `"`: `"... is not`, `1e99`: "is not", `"0x10"`: "is not", `"NaN"`: "is not", `"Inf"`: "is not",
	} {
		t.Run(doc, func(t *testing.T) {
			_, err := parse(t, doc).int()
			require.ErrorContains(t, err, want)
		})
	}
}

func TestLoosenessFloat(t *testing.T) {
	for doc, want := range map[string]Float{
		`"12.50"`: {12.5, true}, `12.5`: {12.5, true}, `"12,50"`: {12.5, true}, `"-3"`: {-3, true}, `""`: {}, `null`: {}, `0`: {0, true}, `[]`: {},
	} {
		t.Run(doc, func(t *testing.T) {
			got, err := parse(t, doc).float()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	for _, doc := range []string{`"a"`, `"NaN"`, `"Inf"`, `"1,2,3"`, `[1]`} {
		_, err := parse(t, doc).float()
		require.Error(t, err, doc)
	}
}

func TestLoosenessBool(t *testing.T) {
	for doc, want := range map[string]Bool{
		`true`: {true, true}, `false`: {false, true}, `1`: {true, true}, `0`: {false, true}, `"1"`: {true, true}, `"0"`: {false, true}, `""`: {}, `null`: {},
		`"yes"`: {true, true}, `"Off"`: {false, true}, `"0.00"`: {false, true},
	} {
		t.Run(doc, func(t *testing.T) {
			got, err := parse(t, doc).bool()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	_, err := parse(t, `"perhaps"`).bool()
	require.ErrorContains(t, err, "flag")
}

func TestLoosenessString(t *testing.T) {
	got, err := parse(t, `"Test &quot;A&quot; &amp; B&#039;s&#047;x<br>next"`).string()
	require.NoError(t, err)
	require.Equal(t, "Test \"A\" & B's/x\nnext", got.Text())
	require.Equal(t, `Test &quot;A&quot; &amp; B&#039;s&#047;x<br>next`, string(got), "the raw text is kept")
	for doc, want := range map[string]String{`5`: "5", `null`: "", `false`: "", `[]`: "", "\"a\xff\"": "a\uFFFD"} {
		got, err := parse(t, doc).string()
		require.NoError(t, err, doc)
		require.Equal(t, want, got, doc)
	}
	_, err = parse(t, `["a"]`).string()
	require.Error(t, err)
}

func TestLoosenessTime(t *testing.T) {
	kyiv := time.FixedZone("server", 2*3600)
	for s, want := range map[string]time.Time{
		"2024-02-01 10:00:05": time.Date(2024, 2, 1, 10, 0, 5, 0, kyiv), "2024-02-01": time.Date(2024, 2, 1, 0, 0, 0, 0, kyiv),
		"01.02.2024": time.Date(2024, 2, 1, 0, 0, 0, 0, kyiv), "2024-02-01T10:00:05": time.Date(2024, 2, 1, 10, 0, 5, 0, kyiv),
		"01.02.2024 10:00:05": time.Date(2024, 2, 1, 10, 0, 5, 0, kyiv),
		"":                    {}, "-": {}, "0000-00-00": {}, "0000-00-00 00:00:00": {}, "1970-01-01": {}, "1970-01-01 03:00:00": {}, "0": {},
	} {
		t.Run(s, func(t *testing.T) {
			got, err := ParseTime(s, kyiv)
			require.NoError(t, err)
			require.True(t, want.Equal(got), "%s", got)
		})
	}
	for _, doc := range []string{`null`, `false`, `[]`} {
		got, err := parse(t, doc).time(kyiv)
		require.NoError(t, err)
		require.True(t, got.IsZero())
	}
	for _, doc := range []string{`"yesterday"`, `"2024-13-01"`, `"31.02.2024"`, `["2024-01-01"]`} {
		_, err := parse(t, doc).time(kyiv)
		require.Error(t, err, doc)
	}
}

func TestLoosenessIP(t *testing.T) {
	for doc, want := range map[string]string{
		`"167772170"`: "10.0.0.10", `167772170`: "10.0.0.10", `"10.0.0.10"`: "10.0.0.10", `"-1062731510"`: "192.168.1.10", `-1062731510`: "192.168.1.10",
		`4294967295`: "255.255.255.255", `-2147483648`: "128.0.0.0", `1.67772170e8`: "10.0.0.10", `" 10.0.0.10 "`: "10.0.0.10",
		`0`: "", `"0"`: "", `""`: "", `null`: "", `false`: "", `[]`: "", `"0.0.0.0"`: "", `"-"`: "",
	} {
		t.Run(doc, func(t *testing.T) {
			got, err := parse(t, doc).ip()
			require.NoError(t, err)
			if want == "" {
				require.False(t, got.IsValid())
				return
			}
			require.Equal(t, want, got.String())
		})
	}
	for doc, want := range map[string]string{
		`4294967296`: "32-bit", `"-2147483649"`: "32-bit", `"10.0.0.256"`: "IPv4", `"10.0.0"`: "IPv4", `"2001:db8::1"`: "IPv4", `"10.0.0.010"`: "IPv4",
		`"10.0.0.5/32"`: "IPv4", `true`: "IPv4", `["10.0.0.1"]`: "array", `1.5`: "IPv4",
	} {
		t.Run(doc, func(t *testing.T) {
			_, err := parse(t, doc).ip()
			require.ErrorContains(t, err, want)
		})
	}
}

func TestLoosenessMAC(t *testing.T) {
	const want = "00:00:5e:00:53:0a"
	for _, doc := range []string{`"00:00:5E:00:53:0A"`, `"00-00-5e-00-53-0a"`, `"0000.5e00.530a"`, `"00005e00530A"`, `"00 00 5e 00 53 0a"`} {
		got, err := parse(t, doc).mac()
		require.NoError(t, err, doc)
		require.Equal(t, want, got.String(), doc)
	}
	for _, doc := range []string{`""`, `null`, `false`, `"000000000000"`, `"ff:ff:ff:ff:ff:ff"`, `"-"`, `0`} {
		got, err := parse(t, doc).mac()
		require.NoError(t, err, doc)
		require.Equal(t, MAC{}, got, doc)
	}
	got, err := parse(t, `5005301`).mac() // PHP made a number of it
	require.NoError(t, err)
	require.Equal(t, "00:00:05:00:53:01", got.String())
	for _, doc := range []string{`"00005e"`, `"00005e00530g"`, `"00005e00530a0b"`, `true`, `["00005e00530a"]`} {
		_, err := parse(t, doc).mac()
		require.Error(t, err, doc)
	}
}

func TestLoosenessIDs(t *testing.T) {
	for doc, want := range map[string]IDs{
		`1001`: {1001}, `"1001"`: {1001}, `[1001,"1002"]`: {1001, 1002}, `"1001,1002, 1003"`: {1001, 1002, 1003}, `{"0":1,"3":2}`: {1, 2},
		`[{"id":5},{"customer_id":"6"}]`: {5, 6}, `0`: nil, `"0"`: nil, `null`: nil, `""`: nil, `false`: nil, `[]`: nil, `[0]`: nil,
	} {
		t.Run(doc, func(t *testing.T) {
			got, err := parse(t, doc).ids()
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	got, err := parse(t, `[1,"x",3]`).ids()
	require.ErrorContains(t, err, "not an id")
	require.Equal(t, IDs{1, 3}, got, "the good ones are kept")
	_, err = parse(t, `[-5]`).ids()
	require.Error(t, err)
}

func TestLoosenessMap(t *testing.T) {
	read := func(v value) int64 { n, _ := v.int(); return n.Value }
	for doc, want := range map[string]Map[int64]{
		`{"10":1,"9":2,"x":3}`: {{"9", 2}, {"10", 1}, {"x", 3}}, `[5,6]`: {{"0", 5}, {"1", 6}},
		`[]`: nil, `{}`: nil, `null`: nil, `""`: nil, `false`: nil,
	} {
		t.Run(doc, func(t *testing.T) { require.Equal(t, want, mapOf(parse(t, doc), read)) })
	}
	m := Map[int64]{{"9", 2}}
	n, ok := m.Get("9")
	require.True(t, ok)
	require.EqualValues(t, 2, n)
	_, ok = m.Get("8")
	require.False(t, ok)
}

func addScalarSeeds(f *testing.F) {
	for _, s := range []string{`0`, `"0"`, `true`, `""`, `null`, `"0.00"`, `-1`, `1e5`, `"12,5"`, `[]`, `{}`, `[1,"2"]`, `"10.0.0.1"`, `4294967296`,
		`"00:00:5e:00:53:01"`, `"2024-02-01 10:00:00"`, `"01.02.2024"`, `{"0":{"id":1}}`, `"a&amp;b<br>"`, `"\ud800"`} {
		f.Add([]byte(s))
	}
}

func FuzzInt(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			n, err := v.int()
			if (err != nil || !n.Set) && n.Value != 0 {
				t.Fatalf("%q: %+v, %v", doc, n, err)
			}
		}
	})
}

func FuzzFloat(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if n, _ := v.float(); math.IsNaN(n.Value) || math.IsInf(n.Value, 0) {
				t.Fatalf("%q: %v", doc, n)
			}
		}
	})
}

func FuzzBool(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if b, err := v.bool(); (err != nil || !b.Set) && b.Value {
				t.Fatalf("%q: %v", doc, b)
			}
		}
	})
}

func FuzzString(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if s, _ := v.string(); strings.ToValidUTF8(s.Text(), "") != s.Text() {
				t.Fatalf("%q: %q", doc, s)
			}
		}
	})
}

func FuzzTime(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if at, err := v.time(time.UTC); err != nil && !at.IsZero() {
				t.Fatalf("%q: %v", doc, at)
			}
		}
	})
}

func FuzzIP(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, ok := tryParse(doc)
		if !ok {
			return
		}
		a, err := v.ip()
		if err != nil || a == (netip.Addr{}) {
			return
		}
		if !a.Is4() || a.IsUnspecified() {
			t.Fatalf("%q: %v", doc, a)
		}
		if again, err := ParseIP(a.String()); err != nil || again != a {
			t.Fatalf("%q: %v became %v, %v", doc, a, again, err)
		}
		b := a.As4()
		signed := int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
		if again, err := ParseIP(fmt.Sprint(signed)); err != nil || again != a {
			t.Fatalf("%q: %v as %d became %v, %v", doc, a, signed, again, err)
		}
	})
}

func FuzzMAC(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if m, err := v.mac(); err == nil {
				if again, err := ParseMAC(m.String()); err != nil || again != m {
					t.Fatalf("%q: %v became %v, %v", doc, m, again, err)
				}
			}
		}
	})
}

func FuzzIDs(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			ids, _ := v.ids()
			for _, id := range ids {
				if id <= 0 {
					t.Fatalf("%q: %v", doc, ids)
				}
			}
		}
	})
}

func FuzzMap(f *testing.F) {
	addScalarSeeds(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		if v, ok := tryParse(doc); ok {
			if m := mapOf(v, value.kind); v.composite() && len(m) != v.len() || !v.composite() && len(m) != 0 {
				t.Fatalf("%q: %v", doc, m)
			}
		}
	})
}

func FuzzParseDotted(f *testing.F) {
	for _, s := range []string{"192.0.2.7", "0.0.0.0", "255.255.255.255", "256.1.1.1", "01.1.1.1", "1.1.1.00", "1..1.1", "1.1.1.", ".1.1.1", "1.1.1.1.1", "1.1.1", "-1.1.1.1", " 1.1.1.1", "::1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		got, ok := parseDotted([]byte(s))
		require.Equal(t, err == nil && want.Is4(), ok)
		if ok {
			require.Equal(t, want, got)
		}
	})
}
