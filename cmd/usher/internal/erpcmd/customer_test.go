package erpcmd

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
)

// What became of a change of state is told in words, in JSON and by the exit code.
func TestStateChangeSaysWhatIsKnown(t *testing.T) {
	const detail = "userside: customer.state_change: unavailable: no answer within 30s"
	for _, c := range []struct {
		outcome console.StateOutcome
		code    int
		want    string
	}{
		{console.StateTaken, cli.ExitOK, "customer 1001: pause, was active (ERP 1000 ms, kernel 0 ms)\n"},
		{console.StateFound, cli.ExitOK, "customer 1001: pause, was active (ERP 1000 ms, kernel 0 ms)\nnote: the ERP has the state, though its answer did not say so: " + detail + "\n"},
		{console.StateUncertain, cli.ExitUncertain, "customer 1001: it is not known whether the ERP took pause, was active (1 s)\nwhy: " + detail +
			"; since then the customer's card has not shown it\nnext: do not repeat it before you have looked in the ERP; the agent follows what the ERP shows: usher explain 1001\n"},
	} {
		t.Run(string(c.outcome), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			require.NoError(t, err)
			agent := httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				ch := console.StateChange{Subscriber: 1001, Before: provision.StateActive, State: provision.StatePause, Outcome: c.outcome, ERPSeconds: 1}
				if c.outcome != console.StateTaken {
					ch.Detail = detail
				}
				_ = json.NewEncoder(w).Encode(ch) // the command says what is wrong
			})}}
			agent.Start()
			t.Cleanup(agent.Close)
			code, out, errs := runCLI(t, "customer", "pause", "1001", "--socket", socket)
			require.Equal(t, c.code, code)
			require.Equal(t, c.want, out)
			require.Empty(t, errs)
			code, out, _ = runCLI(t, "customer", "pause", "1001", "--socket", socket, "--output", "json")
			require.Equal(t, c.code, code)
			require.Contains(t, out, `"outcome": "`+string(c.outcome)+`"`)
		})
	}
}

// The ERP's hooks run for changes unless the configuration says otherwise.
func TestSkipInternalAPIIsConfigured(t *testing.T) {
	for line, want := range map[string]bool{"": false, ", skip_internal_api: true": true} {
		path := filepath.Join(t.TempDir(), "usher.yaml")
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "state_dir: %s\nuserside: {url: %q, key_file: %s%s}\ndhcp: {enabled: false}\nacl: {enabled: false}\n",
			t.TempDir(), nowhere, keyFile(t, secretKey), line), 0o600))
		code, out, errs := runCLI(t, "customer", "state-change", "--customer-id", "1001", "--state-id", "1", "--dry-run", "--config", path, "--output", "json")
		require.Zero(t, code, errs)
		require.Equal(t, want, strings.Contains(out, `"skip_internal_api": "1"`), out)
	}
}
