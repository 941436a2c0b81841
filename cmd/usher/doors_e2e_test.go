package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/userside/emulator"
)

// keep opens a connection on the router, asks once, keeps it open, and returns the status; 0: there was no answer.
func (w *world) keep(t *testing.T, addr, request string) int {
	t.Helper()
	c, err := w.Router.Dial(addr, 5*time.Second)
	if err != nil {
		return 0
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Whoever reaches the agent's listeners and has no secret cannot use up its descriptors: it
// still reaches an ERP that keeps no connection, and a pause reaches the kernel.
func TestKernelDoorsLeaveDescriptors(t *testing.T) {
	t.Parallel()
	const hooks, limit = "127.0.0.1:9468", 1024
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600))
	w := startWorld(t, miniature.Options{Homes: 1, ERPCloses: true, Extra: "hooks: {listen: " + hooks + ", secret_file: " + secret + "}\n"})
	few := filepath.Join(w.Dir, "few-descriptors")
	require.NoError(t, os.WriteFile(few, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", limit, w.Program), 0o755))
	w.Program = few
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.Homes[0]
	require.NoError(t, w.Lease(t.Context(), h))
	require.True(t, reaches(h.Host))

	const noHint, look = "POST /hooks/customer HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n"
	for range 1100 {
		w.keep(t, hooks, fmt.Sprintf(noHint, "localhost"))
		w.keep(t, miniature.ConsoleAddr, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Agent.PID()))
	require.NoError(t, err)
	t.Logf("%d of %d descriptors open", len(open), limit)
	began := time.Now()
	require.NoError(t, w.ERP.SetState(h.ID, emulator.StatePause))
	eventually(t, 20*time.Second, "the pause reaches the kernel", func() (bool, error) { return !reaches(h.Host), nil })
	t.Logf("the pause reached the kernel within %s", time.Since(began).Round(time.Millisecond))
	st := w.status(t)
	require.Zero(t, st.Sync.ConsecutiveFailures, st.Sync.LastError)
	ended := uint64(0)
	for _, d := range st.Doors {
		ended += d.EndedIdle
	}
	require.Greater(t, ended, uint64(800))
	require.Equal(t, http.StatusMisdirectedRequest, w.keep(t, miniature.ConsoleAddr, fmt.Sprintf(look, "evil.example")), "a name that was made to lead here")
	require.Equal(t, http.StatusMisdirectedRequest, w.keep(t, hooks, fmt.Sprintf(noHint, "evil.example")))
	require.Equal(t, http.StatusOK, w.keep(t, miniature.ConsoleAddr, fmt.Sprintf(look, miniature.ConsoleAddr)))
	require.Equal(t, http.StatusUnauthorized, w.keep(t, hooks, fmt.Sprintf(noHint, hooks)))
	require.Regexp(t, `usher_door_ended_idle_total\{door="console"\} [0-9]{3}`, w.metrics(t))
}
