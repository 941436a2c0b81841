package erpcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
	"github.com/usher-agent/usher/userside/record"
)

const erpTestKey = "erp-test-key-1"

// testERP serves an emulated ERP and gives the flags that reach it.
func testERP(t *testing.T, o emulator.Options) (*emulator.Emulator, []string) {
	t.Helper()
	if o.Keys == nil {
		o.Keys = []emulator.Key{{Key: erpTestKey}}
	}
	e, err := emulator.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, erpTestFlags(t, e)
}

func erpTestFlags(t *testing.T, h http.Handler) []string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte(erpTestKey+"\n"), 0o600))
	return []string{"--url", s.URL + "/api.php", "--key-file", key, "--timeout", "20s"}
}

func probeOf(t *testing.T, flags []string) (erp.ProbeReport, int) {
	t.Helper()
	code, out, stderr := runCLI(t, append([]string{"erp", "probe", "--output", "json"}, flags...)...)
	var r erp.ProbeReport
	require.NoError(t, json.Unmarshal([]byte(out), &r), stderr)
	require.NotContains(t, out+stderr, erpTestKey)
	require.Equal(t, r.Ready, code == cli.ExitOK)
	return r, code
}

// fetchSnapshot is what the agent would make of the ERP at these flags.
func fetchSnapshot(t *testing.T, url string, mode erp.Mode) (provision.Source, provision.Counts, map[provision.ProblemKind]int, error) {
	t.Helper()
	c, err := userside.New(userside.Options{URL: url, Key: erpTestKey, Timeout: 20 * time.Second, Location: time.UTC})
	require.NoError(t, err)
	defer c.CloseIdle()
	f, err := erp.New(c, erp.Options{Bindings: mode})
	require.NoError(t, err)
	in, err := f.Fetch(t.Context(), nil)
	if err != nil {
		return "", provision.Counts{}, nil, err
	}
	s, problems := provision.Build(in)
	kinds := map[provision.ProblemKind]int{}
	for _, p := range problems {
		kinds[p.Kind]++
	}
	return in.Source, s.Counts(), kinds, nil
}

// A recording behaves as the server did, for every generation, shape and defect.
func TestERPRecordAndReplay(t *testing.T) {
	type variant struct {
		name string
		o    emulator.Options
	}
	var all []variant
	for _, p := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for _, letter := range "ABCDEF" {
			shape, err := emulator.ParseShape(string(letter))
			require.NoError(t, err)
			all = append(all, variant{fmt.Sprintf("%s shape %c", p, letter), emulator.Options{Profile: p, Shape: shape}})
		}
	}
	shapeC, err := emulator.ParseShape("C")
	require.NoError(t, err)
	for name, q := range map[string]emulator.Quirks{
		"php": {NumericStrings: true, EmptyMapAsList: true, UpperCaseColumns: true, IDAsList: true}, "lists": {ListForMap: true, GzipNoHeader: true, BOM: true},
		"escaped": {HTMLEscaped: true, OmitOptional: true}, "state zero": {StateZeroIgnored: true}, "half gone": {HalfGone: true},
		"no bindings": {MissingActions: []string{"customer.get_ip_port_device_commutation"}}, "no devices": {MissingActions: []string{"device.get_data"}},
		"truncated": {Truncated: true}, "page": {HTMLPage: 200}, "proxy": {HTMLPage: 502}, "warning": {PHPWarning: true}, "forbidden": {Forbidden: true},
	} {
		all = append(all, variant{name, emulator.Options{Quirks: q}})
	}
	all = append(all, variant{"composite", emulator.Options{Shape: shapeC, Quirks: emulator.Quirks{CompositeRows: true}}})
	customers := long.Times(t, 30, 1000)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			v.o.Seed, v.o.Customers = 7, customers
			_, flags := testERP(t, v.o)
			dir := filepath.Join(t.TempDir(), "case")
			code, out, stderr := runCLI(t, append([]string{"erp", "record", "--out", dir, "--bindings", "both"}, flags...)...)
			broken := v.o.Quirks.HTMLPage == 502
			if broken {
				require.Equal(t, cli.ExitFailure, code)
				require.Contains(t, stderr, "exchanges only")
			} else {
				require.Zero(t, code, stderr)
				require.Contains(t, out, "cannot be turned back")
				require.Contains(t, out, "Look through the files")
			}
			require.NotContains(t, out+stderr, erpTestKey)
			set, err := record.Load(dir)
			require.NoError(t, err)
			replay := httptest.NewServer(set)
			defer replay.Close()
			for _, mode := range []erp.Mode{erp.ModeDirect, erp.ModeComposed, erp.ModeAuto} {
				source, counts, problems, err := fetchSnapshot(t, flags[1], mode)
				source2, counts2, problems2, err2 := fetchSnapshot(t, replay.URL+"/api.php", mode)
				require.Equal(t, err == nil, err2 == nil, "%s: %v and replayed %v", mode, err, err2)
				require.Equal(t, source, source2, mode)
				require.Equal(t, counts, counts2, mode)
				require.Equal(t, problems, problems2, mode)
			}
		})
	}
}

func TestERPRecordRefuses(t *testing.T) {
	_, flags := testERP(t, emulator.Options{Customers: 20})
	dir := t.TempDir()
	file := filepath.Join(dir, "mine")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	open := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(open, []byte(erpTestKey), 0o600))
	require.NoError(t, os.Chmod(open, 0o644))
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no directory", flags, cli.ExitUsage, "--out"},
		{"directory in use", append([]string{"--out", dir}, flags...), cli.ExitFailure, "is not empty"},
		{"customers", append([]string{"--out", "x", "--customers", "0"}, flags...), cli.ExitUsage, "1 to 10000"},
		{"bindings", append([]string{"--out", "x", "--bindings", "some"}, flags...), cli.ExitUsage, "auto, direct, composed or both"},
		{"url without key", append([]string{"--out", "x"}, flags[:2]...), cli.ExitUsage, "--key-file"},
		{"open key", []string{"--out", filepath.Join(dir, "x"), "--url", flags[1], "--key-file", open}, cli.ExitFailure, "everybody on this host can read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, append([]string{"erp", "record"}, c.args...)...)
			require.Equal(t, c.code, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
}

func TestERPRecordChangesNothing(t *testing.T) {
	e, flags := testERP(t, emulator.Options{Seed: 3, Customers: 60})
	changes := e.Changes(t.Context())
	code, _, stderr := runCLI(t, append([]string{"erp", "record", "--output", "json", "--out", filepath.Join(t.TempDir(), "x")}, flags...)...)
	require.Zero(t, code, stderr)
	probeOf(t, flags)
	select {
	case c := <-changes:
		t.Fatalf("changed: %+v", c)
	default:
	}
}

// A recording takes no larger answers than the agent does.
func TestERPRecordIsBoundedByTheConfiguration(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"result":"OK","data":[%s]}`, strings.Repeat("1,", 1<<20)+"1")
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "usher.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil,
		"userside: {url: %s/api.php, key: %s, allow_inline_key: true, max_answer_mib: 1}\ndhcp: {enabled: false}\n", srv.URL, erpTestKey), 0o600))
	code, _, stderr := runCLI(t, "erp", "record", "--config", file, "--out", filepath.Join(t.TempDir(), "case"))
	require.Equal(t, cli.ExitFailure, code)
	require.Contains(t, stderr, "is larger than 1048576 bytes (the limit is userside.max_answer_mib")
}

func TestEmulatorReplay(t *testing.T) {
	_, flags := testERP(t, emulator.Options{Seed: 7, Customers: 40})
	dir := filepath.Join(t.TempDir(), "case")
	code, _, stderr := runCLI(t, append([]string{"erp", "record", "--out", dir}, flags...)...)
	require.Zero(t, code, stderr)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	started := make(chan string, 1)
	root := newRoot()
	var errs bytes.Buffer
	root.SetErr(&errs)
	root.SetOut(writerFunc(func(p []byte) (int, error) { started <- string(p); return len(p), nil }))
	go func() {
		ended <- cli.Execute(ctx, root, []string{"emulator", "--replay", dir, "--listen", "127.0.0.1:0", "--output", "json"})
	}()
	var ready struct {
		URL     string
		Actions []string
	}
	select {
	case text := <-started:
		require.NoError(t, json.Unmarshal([]byte(text), &ready))
	case <-ended:
		t.Fatal(errs.String())
	}
	require.Contains(t, ready.Actions, "customer.get_ip_port_device_commutation")
	r, _ := probeOf(t, append([]string{"--url", ready.URL}, flags[2:]...))
	require.True(t, r.Ready, r.Reason)
	require.Equal(t, "A", r.Shape)
	cancel()
	require.Zero(t, <-ended)

	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no recording", []string{"--replay", t.TempDir()}, cli.ExitFailure, "index.jsonl"},
		{"beside generated data", []string{"--replay", dir, "--customers", "5"}, cli.ExitUsage, "--customers says nothing about a recording"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, append([]string{"emulator"}, c.args...)...)
			require.Equal(t, c.code, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestERPProbeShapesAndProfiles(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for _, letter := range "ABCDEF" {
			t.Run(fmt.Sprintf("%s %c", profile, letter), func(t *testing.T) {
				shape, err := emulator.ParseShape(string(letter))
				require.NoError(t, err)
				_, flags := testERP(t, emulator.Options{Profile: profile, Shape: shape, Seed: 5, Customers: 100})
				r, _ := probeOf(t, flags)
				require.Equal(t, string(letter), r.Shape)
				require.Empty(t, r.Fingerprint)
				want := userside.EnvelopeModern
				if profile == emulator.ProfileLegacy {
					want = userside.EnvelopeLegacy
				}
				require.Equal(t, want, r.Envelope)
				require.NotEmpty(t, r.Version)
				require.Equal(t, erp.ZeroCondition, r.StateZero)
				require.Equal(t, "works", r.Post)
				require.True(t, r.Ready, r.Reason)
				if letter == 'F' {
					require.Equal(t, provision.SourceComposed, r.Source)
					require.Contains(t, r.Reason, "can be composed")
					require.Contains(t, strings.Join(r.Warnings, "\n"), "answers no row")
					return
				}
				require.Equal(t, provision.SourceDirect, r.Source)
				require.Contains(t, r.Reason, "get_ip_port_device_commutation answers")
				require.Positive(t, r.Problems[provision.ProblemNoAddress], "%v", r.Problems)
				for _, c := range r.Calls {
					require.Positive(t, c.Calls)
					if c.For != "" { // the others came and went with versions
						require.Equal(t, erp.MayUse, c.May, "%+v", c)
					}
				}
			})
		}
	}
}

func TestERPProbeSaysWhy(t *testing.T) {
	unknown := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.FormValue("action") {
		case "get_ip_port_device_commutation":
			fmt.Fprint(w, `{"result":"OK","data":[{"strange":"Ivanov","odd":{"deep":1}}]}`)
		default:
			w.WriteHeader(400)
			fmt.Fprint(w, `{"result":"ERROR","error":"unknown action"}`)
		}
	})
	_, plain := testERP(t, emulator.Options{Seed: 5, Customers: 100})
	missing := emulator.Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	quirk := func(q emulator.Quirks) []string {
		_, flags := testERP(t, emulator.Options{Seed: 5, Customers: 100, Quirks: q})
		return flags
	}
	sections := func(names ...string) []string {
		_, flags := testERP(t, emulator.Options{Seed: 5, Customers: 100, Keys: []emulator.Key{{Key: erpTestKey, Sections: names}}})
		return flags
	}
	for _, c := range []struct {
		name   string
		flags  []string
		ready  bool
		reason string
		check  func(*testing.T, erp.ProbeReport)
	}{
		{"good", plain, true, "get_ip_port_device_commutation answers", nil},
		{"another key", sections("nothing"), false, "the key may not read", func(t *testing.T, r erp.ProbeReport) {
			require.Equal(t, erp.MayNotUse, may(r, "customer.get_data"))
		}},
		{"forbidden", quirk(emulator.Quirks{Forbidden: true}), false, "the key may not read", nil},
		{"customers only", sections("customer"), true, "get_ip_port_device_commutation answers", func(t *testing.T, r erp.ProbeReport) {
			require.Equal(t, erp.MayNotUse, may(r, "device.get_data"))
			require.Equal(t, erp.MayNotUse, may(r, "system.get_system_info"))
			require.Equal(t, erp.MayUse, may(r, "customer.get_data"))
			require.Contains(t, strings.Join(r.Warnings, "\n"), "switches cannot be listed")
		}},
		{"all that is needed", sections("customer", "commutation", "device", "module"), true, "answers", nil},
		{"without customers", sections("device", "commutation"), false, "the key may not read", nil},
		{"composed", quirk(missing), true, "can be composed", func(t *testing.T, r erp.ProbeReport) {
			require.Equal(t, erp.MayRefused, may(r, "customer.get_ip_port_device_commutation"))
			require.Contains(t, strings.Join(r.Warnings, "\n"), "ask for every customer")
		}},
		{"state zero", quirk(emulator.Quirks{StateZeroIgnored: true}), true, "answers", func(t *testing.T, r erp.ProbeReport) {
			require.Equal(t, erp.ZeroIgnored, r.StateZero)
			require.Contains(t, strings.Join(r.Warnings, "\n"), "nobody is blocked by it")
		}},
		{"no row", quirk(emulator.Quirks{EmptyBindings: true, MissingActions: []string{"commutation.get_data"}}), false, "no binding", nil},
		{"login page", quirk(emulator.Quirks{HTMLPage: 200}), false, "the ERP cannot be read", nil},
		{"proxy", quirk(emulator.Quirks{HTMLPage: 502}), false, "the ERP does not answer", nil},
		{"truncated", quirk(emulator.Quirks{Truncated: true}), false, "the ERP cannot be read", nil},
		{"nobody there", append([]string{"--url", dead.URL + "/api.php"}, plain[2:]...), false, "the ERP does not answer", nil},
		{"unknown shape", erpTestFlags(t, unknown), false, "the ERP cannot be read", func(t *testing.T, r erp.ProbeReport) {
			require.Equal(t, "unknown", r.Shape)
			require.Contains(t, r.Fingerprint, "data[].strange:string")
			require.NotContains(t, fmt.Sprint(r), "Ivanov")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := probeOf(t, c.flags)
			require.Equal(t, c.ready, r.Ready, r.Reason)
			require.Contains(t, r.Reason, c.reason)
			if c.check != nil {
				c.check(t, r)
			}
			code, out, stderr := runCLI(t, append([]string{"erp", "probe"}, c.flags...)...)
			require.Equal(t, c.ready, code == cli.ExitOK, stderr)
			require.Contains(t, out, fmt.Sprintf("the agent can run: %s, because ", map[bool]string{true: "yes", false: "no"}[c.ready]))
			require.NotContains(t, out+stderr, erpTestKey)
		})
	}
}

func may(r erp.ProbeReport, action string) erp.May {
	for _, c := range r.Calls {
		if c.Action == action {
			return c.May
		}
	}
	return ""
}
