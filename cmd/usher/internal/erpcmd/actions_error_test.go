package erpcmd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside/emulator"
)

// What is wrong on the command line is told with the flag's name, and nothing is sent.
func TestBadFlagsOfActions(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	good := file("good", secretKey+"\r\n", 0o640)
	access := []string{"--url", nowhere, "--key-file", good}
	for _, c := range []struct {
		name string
		line []string
		code int
		want string
	}{
		{"no flag at all", append([]string{"customer", "ip-add"}, access...), cli.ExitUsage, "missing: --customer-id, --value"},
		{"id is a word", []string{"customer", "to-ex", "--customer-id", "bob"}, cli.ExitUsage, `"--customer-id" flag: want a whole number from 1`},
		{"id is zero", []string{"customer", "delete", "--id", "0"}, cli.ExitUsage, "want a whole number from 1"},
		{"ids", []string{"customer", "get-data", "--customer-id", "1,,2"}, cli.ExitUsage, "want ids from 1 with commas between"},
		{"no address", []string{"customer", "ip-add", "--value", "192.0.2"}, cli.ExitUsage, `"--value" flag: want a dotted IPv4 address`},
		{"IPv6", []string{"customer", "ip-add", "--value", "2001:db8::1"}, cli.ExitUsage, "want a dotted IPv4 address"},
		{"other word beside addresses", []string{"customer", "ip-delete", "--value", "every"}, cli.ExitUsage, "or one of -1, all"},
		{"no MAC", []string{"customer", "ip-add", "--mac", "00:00:5e"}, cli.ExitUsage, "such as 00:00:5e:00:53:01"},
		{"date", []string{"customer", "change-date-connect", "--value", "31.01.2026"}, cli.ExitUsage, "such as 2026-01-31"},
		{"date that does not exist", []string{"customer", "change-date-connect", "--value", "2026-02-30"}, cli.ExitUsage, "such as 2026-01-31"},
		{"time", []string{"customer", "msg", "--date-add-from", "yesterday"}, cli.ExitUsage, "2026-01-31 15:04:05"},
		{"money", []string{"customer", "change-balance", "--amount", "12,50"}, cli.ExitUsage, "such as 12.50 or -3"},
		{"enumeration", []string{"customer", "get-activity-counter", "--type", "wifi"}, cli.ExitUsage, "want net, internet, personal_area"},
		{"enumeration with digits", []string{"device", "get-device-id", "--data-typer", "additional_field_"}, cli.ExitUsage, "additional_field_N"},
		{"flag", []string{"customer", "add", "--is-potential=perhaps"}, cli.ExitUsage, "want 1 or 0"},
		{"prefix length", []string{"customer", "ip-subnet-add", "--subnet", "33"}, cli.ExitUsage, "0 to 32"},
		{"state", []string{"customer", "state-change", "--state-id", "sleep"}, cli.ExitUsage, "want a whole number from 0"},
		{"nothing of a group", append([]string{"customer", "get-customers-id", "--limit", "3"}, access...), cli.ExitUsage, "missing: at least one of --address-unit-id, "},
		{"half of a pair", append([]string{"customer", "get-data", "--account-number", "7"}, access...), cli.ExitUsage, "--account-number goes with --billing-id"},
		{"other half", append([]string{"customer", "get-data", "--customer-id", "7", "--billing-id", "1"}, access...), cli.ExitUsage, "--billing-id goes with --account-number"},
		{"argument", []string{"customer", "to-ex", "1001"}, cli.ExitUsage, "accepts 0 arg(s)"},
		{"former name", []string{"customer", "to-ex", "--usercode", "1001"}, cli.ExitUsage, "unknown flag: --usercode"},
		{"misspelt action", []string{"customer", "ip_ad"}, cli.ExitUsage, "did you mean"},
		{"no such action", []string{"customer", "xyzzy-frobnicate"}, cli.ExitUsage, "usher customer --help lists all"},
		{"two ways of printing", append([]string{"customer", "get-last-ip", "--raw", "-o", "json"}, access...), cli.ExitUsage, "--raw and --output json"},
		{"password twice", append([]string{"customer", "pass-change", "--customer-id", "1", "--pass-new", "a", "--pass-new-file", good}, access...), cli.ExitUsage, "--pass-new and --pass-new-file"},
		{"no password", append([]string{"customer", "pass-change", "--customer-id", "1"}, access...), cli.ExitUsage, "--pass-new or --pass-new-file"},
		{"no password file", append([]string{"customer", "pass-change", "--customer-id", "1", "--pass-new-file", dir + "/none"}, access...), cli.ExitFailure, "--pass-new-file: the file cannot be read: no such file"},
		{"danger without yes", append([]string{"customer", "merge", "--dst-id", "1", "--src-id", "2"}, access...), cli.ExitUsage, "say --yes"},

		{"no key file", []string{"customer", "get-last-ip", "--url", nowhere}, cli.ExitUsage, "want --key-file FILE"},
		{"key file without url", []string{"customer", "get-last-ip", "--key-file", good}, cli.ExitUsage, "--key-file goes with --url"},
		{"url and configuration", append([]string{"customer", "get-last-ip", "--config", "x.yaml"}, access...), cli.ExitUsage, "--config and --url"},
		{"no configuration", []string{"customer", "get-last-ip", "--config", dir + "/none.yaml"}, cli.ExitFailure, "--url URL --key-file FILE"},
		{"bad configuration", []string{"customer", "get-last-ip", "--config", file("bad.yaml", "userside: 5\n", 0o600)}, cli.ExitFailure, "userside"},
		{"key is in the place of its file", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", secretKey}, cli.ExitFailure, "--key-file: the file cannot be read: no such file"},
		{"key in the url", []string{"customer", "get-last-ip", "--url", nowhere + "?key=" + secretKey, "--key-file", good}, cli.ExitUsage, "the key has its own setting"},
		{"url leads elsewhere", []string{"customer", "get-last-ip", "--url", "http://127.0.0.1:1/", "--key-file", good}, cli.ExitUsage, "must end with /api.php"},
		{"everybody can read the key", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", file("open", secretKey, 0o644)}, cli.ExitFailure, "mode 0644"},
		{"empty key", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", file("empty", "\n", 0o600)}, cli.ExitFailure, "the file is empty"},
		{"several lines", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", file("lines", "a\nb\n", 0o600)}, cli.ExitFailure, "more than one line"},
		{"large file", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", file("large", strings.Repeat("k", maxSecretFile+1), 0o600)}, cli.ExitFailure, "larger than"},
		{"folder", []string{"customer", "get-last-ip", "--url", nowhere, "--key-file", dir}, cli.ExitFailure, "it is a folder"},
		{"version", append([]string{"customer", "get-last-ip", "--erp-version", "new"}, access...), cli.ExitUsage, "--erp-version: "},
		{"timeout", append([]string{"customer", "get-last-ip", "--timeout", "-1s"}, access...), cli.ExitUsage, "--timeout"},
		{"timeout of nothing", append([]string{"customer", "get-last-ip", "--timeout", "0s"}, access...), cli.ExitUsage, "--timeout"},

		{"generic: category", []string{"erp", "call", "customers", "get_data"}, cli.ExitUsage, `unknown category "customers": want customer,`},
		{"generic: action", []string{"erp", "call", "tariff", "set"}, cli.ExitUsage, `unknown action "set" of category tariff: want get`},
		{"generic: no action", []string{"erp", "call", "customer"}, cli.ExitUsage, "want a category and an action"},
		{"generic: no value", []string{"erp", "call", "customer", "to_ex", "1001"}, cli.ExitUsage, "want NAME=VALUE"},
		{"generic: unknown parameter", []string{"erp", "call", "customer", "to_ex", "user=1001"}, cli.ExitUsage, "want customer_id"},
		{"generic: bad value", []string{"erp", "call", "customer", "to_ex", "customer_id=x"}, cli.ExitUsage, "parameter customer_id"},
		{"generic: twice", []string{"erp", "call", "customer", "to_ex", "customer_id=1", "usercode=2"}, cli.ExitUsage, "given twice"},
		{"generic: missing", []string{"erp", "call", "customer", "ip_add", "customer_id=1"}, cli.ExitUsage, "missing: value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := runWithInput(t, "", c.line...)
			require.Equal(t, c.code, code, errs)
			require.Empty(t, out)
			require.Contains(t, errs, c.want)
		})
	}
}

// What can go wrong on the way ends in exit code 1, or 3 where nobody knows whether a change was made, and a word about what to do next.
func TestTroubleWithTheERP(t *testing.T) {
	const password = `pa"ss&wo<rd>/42`
	uncertain := cli.ErrUncertain.Error()
	page := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		}
	}
	// A server that repeats all it was told, in each place where it can.
	echo := func(format string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			fmt.Fprintf(w, format, r.URL.String()+" "+r.Form.Get("key")+" "+r.Form.Get("pass_new"))
		}
	}
	pass := []string{"customer", "pass-change", "--customer-id", "1001", "--pass-new", password, "--erp-version", "3.19"}
	read := []string{"customer", "get-data", "--customer-id", "1001", "--erp-version", "3.19"}
	for _, c := range []struct {
		name string
		h    http.Handler
		line []string
		want []string
	}{
		{"403 and JSON", page(403, `{"error":"wrong key"}`), read, []string{"permission denied", "wrong key", "section customer must be allowed"}},
		{"403 and a page", page(403, `<html>no</html>`), read, []string{"permission denied"}},
		{"a page", page(200, "<html><title>Login</title></html>"), read, []string{"malformed answer", "login page or a proxy"}},
		{"502 and a page", page(502, "<html>bad gateway</html>"), read, []string{"unavailable", "502", "its log says why"}},
		{"500 and JSON", page(500, `{"error":"database is gone"}`), read, []string{"unavailable", "database is gone", "its log says why"}},
		{"redirect", http.RedirectHandler("/login", http.StatusFound), read, []string{"malformed answer"}},
		{"cut off", page(200, `{"result":"OK","data":{"id":1001,`), read, []string{"malformed answer"}},
		{"nothing", page(200, ""), read, []string{"malformed answer"}},
		{"refused", page(200, `{"result":"ERROR","error":"not now"}`), pass, []string{"refused", "not now", "said no"}},
		{"hook's own words", page(200, `{"result":"0","msg":"mark is taken"}`), pass, []string{"mark is taken", uncertain, "look before doing it again"}},
		{"a page after a change", page(200, "<html><title>Login</title></html>"), pass, []string{"malformed answer", uncertain, "look before doing it again"}},
		{"504 and a page after a change", page(504, "<html>gateway time-out</html>"), pass, []string{"unavailable", uncertain, "may have done it all the same"}},
		{"no answer to a change", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), pass, []string{"unavailable", uncertain, "may have done it all the same"}},
		{"not found", page(200, `{"Result":"ERROR","ErrorText":"no such"}`), read, []string{"not found", "next: "}},
		{"echo as error", echo(`{"result":"ERROR","error":%q}`), pass, []string{"refused", redactedText}},
		{"echo as page", echo("<html>%s</html>"), pass, []string{"malformed answer", uncertain}},
		{"echo unescaped", echo(`{"result":"ERROR","error":"%s"}`), pass, []string{uncertain}},
		{"too new", page(200, `{}`), []string{"customer", "list-tarif-available", "--customer-id", "1"}, []string{"not supported by", "--erp-version"}},
		{"too old", page(200, `{}`), []string{"customer", "merge", "--dst-id", "1", "--src-id", "2", "--yes", "--erp-version", "3.12"}, []string{"not supported by"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := worldOf(t, c.h)
			for _, form := range [][]string{nil, {"--output", "json"}, {"--raw"}} {
				code, out, errs := w.run(append(append([]string{}, c.line...), form...)...)
				want := cli.ExitFailure
				if slices.Contains(c.want, uncertain) {
					want = cli.ExitUncertain
				}
				require.Equal(t, want, code, errs)
				require.Empty(t, out)
				for _, want := range append(c.want, "next: ") {
					require.Contains(t, errs, want)
				}
				requireSecret(t, password, errs)
			}
		})
	}

	t.Run("dead", func(t *testing.T) {
		srv := httptest.NewServer(page(200, ""))
		srv.Close()
		code, _, errs := runWithInput(t, "", "customer", "get-last-ip", "--url", srv.URL+"/api.php", "--key-file", keyFile(t, secretKey))
		require.Equal(t, cli.ExitFailure, code)
		require.Contains(t, errs, "connection refused")
		require.Contains(t, errs, "check the address of the ERP")
	})
	t.Run("slow", func(t *testing.T) {
		w := newERPWorld(t, emulator.ProfileModern)
		require.NoError(t, w.erp.SetQuirks(emulator.Quirks{Delay: 30 * time.Second}))
		begun := time.Now()
		code, _, errs := w.run("customer", "to-ex", "--customer-id", "1001", "--erp-version", "3.19", "--timeout", "50ms")
		require.Equal(t, cli.ExitUncertain, code)
		require.Contains(t, errs, "may have done it all the same")
		require.Less(t, time.Since(begun), 10*time.Second)
	})
	t.Run("wrong key", func(t *testing.T) {
		w := newERPWorld(t, emulator.ProfileModern)
		code, _, errs := runWithInput(t, "another", "customer", "get-last-ip", "--url", w.url, "--key-file", "-")
		require.Equal(t, cli.ExitFailure, code)
		require.Contains(t, errs, "permission denied")
	})
	t.Run("success that repeats the key", func(t *testing.T) {
		w := worldOf(t, echo(`{"result":"OK","data":{"id":1001,"note":%q}}`))
		for _, form := range []string{"--raw", "--output=json", "--output=table"} {
			require.Contains(t, w.must("customer", "get-data", "--customer-id", "1001", "--erp-version", "3.19", form), redactedText) // run looks for the key
		}
	})
}

// An answer that says OK and has not what was asked for is no success.
func TestAnswersWithoutAnID(t *testing.T) {
	for _, c := range []struct {
		name, body string
		line, want []string
	}{
		{"device 0", `{"result":"OK","id":0}`, []string{"device", "get-device-id", "--object-type", "switch", "--data-typer", "ip", "--data-value", "192.0.2.1"}, []string{"not found"}},
		{"customer 0 as text", `{"Result":"OK","Id":"0"}`, []string{"customer", "get-abon-id", "--data-typer", "login", "--data-value", "nobody"}, []string{"not found"}},
		{"created without an id", `{"result":"OK"}`, []string{"customer", "add", "--fio", "Test", "--is-potential"}, []string{"no id", "look before doing it again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := worldOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.body) }))
			for _, form := range []string{"--output=table", "--output=json"} {
				code, out, errs := w.run(append(c.line, "--erp-version", "3.19", form)...)
				require.Equal(t, cli.ExitFailure, code, errs)
				require.Empty(t, out)
				for _, want := range append(c.want, "next: ") {
					require.Contains(t, errs, want)
				}
			}
		})
	}
}

func TestSecretsAreHiddenInErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"whole", "no: open sesame, open sesame!", "no: [redacted], [redacted]!"},
		{"cut off", "no: open ses...", "no: [redacted]..."},
		{"beginning of another word", "no: op...", "no: op..."},
		{"not cut", "no: open ses", "no: open ses"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, hide(c.text, "open sesame")) })
	}
}
