package erpcmd

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// secretKey has characters that every encoding on its way changes.
const secretKey = `Top/S3cret+"Key"&=%41`

// erpWorld is an emulated ERP on loopback and the command line that talks to it.
type erpWorld struct {
	*testing.T
	erp    *emulator.Emulator
	access []string // the flags that lead to it
	stdin  string   // of the next commands
	url    string
}

func newERPWorld(t *testing.T, p emulator.Profile) *erpWorld {
	t.Helper()
	erp, err := emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: secretKey}}, Profile: p, Seed: 1, Customers: 30})
	require.NoError(t, err)
	w := worldOf(t, erp)
	t.Cleanup(func() { require.NoError(t, erp.Close()) }) // before the server, which waits for what the emulator delays
	w.erp = erp
	return w
}

// worldOf serves any handler as the ERP.
func worldOf(t *testing.T, h http.Handler) *erpWorld {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	w := &erpWorld{T: t, url: srv.URL + "/api.php"}
	w.access = []string{"--url", w.url, "--key-file", keyFile(t, secretKey)}
	return w
}

func keyFile(t *testing.T, key string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(key+"\n"), 0o600))
	return path
}

// run runs a command line with the way to the ERP. The key may be in no output.
func (w *erpWorld) run(args ...string) (code int, stdout, stderr string) {
	w.Helper()
	return runWithInput(w.T, w.stdin, append(args, w.access...)...)
}

func runWithInput(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	code, stdout, stderr = clitest.Run(t, newRoot(), stdin, args...)
	requireSecret(t, secretKey, stdout+stderr)
	return code, stdout, stderr
}

// requireSecret fails if a text holds a secret in any spelling.
func requireSecret(t *testing.T, secret, text string) {
	t.Helper()
	quoted := strconv.Quote(secret)
	for _, s := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret), quoted[1 : len(quoted)-1]} {
		require.NotContains(t, text, s, "a secret is printed")
	}
}

// must runs a command that has to succeed, and gives its output.
func (w *erpWorld) must(args ...string) string {
	w.Helper()
	code, out, errs := w.run(args...)
	require.Zero(w, code, "usher %s: %s", strings.Join(args, " "), errs)
	return out
}

// decoded runs a command with --output json and gives what it printed.
func (w *erpWorld) decoded(args ...string) any {
	w.Helper()
	dec := json.NewDecoder(strings.NewReader(w.must(append(args, "--output", "json")...)))
	dec.UseNumber()
	var v any
	require.NoError(w, dec.Decode(&v))
	return v
}

// card returns get-data of one customer.
func (w *erpWorld) card(id int64) map[string]any {
	w.Helper()
	m, ok := w.decoded("customer", "get-data", "--customer-id", fmt.Sprint(id)).(map[string]any)
	require.True(w, ok)
	return m
}

// at walks down an answer; a list may be an object with numbers as keys, for
// PHP knows no difference.
func (w *erpWorld) at(v any, path ...string) string {
	w.Helper()
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			require.NoError(w, err)
			require.Greater(w, len(x), i, "%v", x)
			v = x[i]
		default:
			require.Fail(w, "nothing to walk into", "%s in %v", p, v)
		}
	}
	return fmt.Sprint(v)
}

// text returns an answer as one text to search in.
func (w *erpWorld) text(v any) string {
	w.Helper()
	b, err := json.Marshal(v)
	require.NoError(w, err)
	return string(b)
}

// firstIP returns the address of a customer.
func (w *erpWorld) firstIP(id int64) netip.Addr {
	w.Helper()
	c, ok := w.erp.Customer(id)
	require.True(w, ok)
	require.NotEmpty(w, c.Addresses)
	return c.Addresses[0].IP
}

// holder returns the ids that the ERP finds for an address; "" when nobody has it.
func (w *erpWorld) holder(ip string) string {
	w.Helper()
	code, out, errs := w.run("customer", "get-abon-id", "--data-typer", "ip", "--data-value", ip)
	if code == cli.ExitFailure && strings.Contains(errs, "not found") {
		return ""
	}
	require.Zero(w, code, errs)
	return strings.TrimSpace(out)
}

// lists reports whether get-customers-id with these conditions has a customer.
func (w *erpWorld) lists(id int64, conditions ...string) bool {
	w.Helper()
	for line := range strings.Lines(w.must(append([]string{"customer", "get-customers-id"}, conditions...)...)) {
		if strings.TrimSpace(line) == fmt.Sprint(id) {
			return true
		}
	}
	return false
}

// has reports whether the emulated version has an action.
func (w *erpWorld) has(category, name string) bool {
	w.Helper()
	a, ok := userside.FindAction(category, name)
	require.True(w, ok)
	return w.erp.Profile().Version().Has(a.Since, a.Until)
}

func intText(n int64) string { return strconv.FormatInt(n, 10) }

func version319() userside.Version {
	return userside.Version{Major: 3, Minor: 19, Stage: userside.StageBeta, Number: 1}
}
