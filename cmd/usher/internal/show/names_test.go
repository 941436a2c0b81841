package show

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/line"
)

// agentSaying is the control socket of an agent that gives one answer to all questions.
func agentSaying(t *testing.T, code int, answer any) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	body, err := json.Marshal(answer)
	require.NoError(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write(body)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return socket
}

// Whoever may name a device in the ERP, or send a packet, writes no lines of ours.
func TestNamesForgeNoLines(t *testing.T) {
	const evil = "sw\x1b[2J\nacl  198.51.100.1: wanted open, in the kernel open\u202e"
	const shown = `sw\x1b[2J\nacl  198.51.100.1: wanted open, in the kernel open\u202e`
	for name, tt := range map[string]struct {
		args   []string
		code   int
		answer any
	}{
		"explain":  {[]string{"explain", "1001"}, http.StatusOK, console.Explanation{Summary: evil, Bindings: []console.BindingView{{DeviceName: evil, PortName: evil}}}},
		"option82": {[]string{"option82", "0102"}, http.StatusOK, console.Option82View{Note: evil, SubOptions: []line.SubOption{{Text: evil}}}},
		"error":    {[]string{"explain", "1001"}, http.StatusBadRequest, map[string]string{"error": evil}},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, errs := runCLI(t, append(tt.args, "--socket", agentSaying(t, tt.code, tt.answer))...)
			out += errs
			require.Contains(t, out, shown)
			require.NotContains(t, out, "\x1b")
			require.NotContains(t, out, "\u202e")
			for l := range strings.Lines(out) {
				require.NotRegexp(t, "^acl +198", l)
			}
		})
	}
}
