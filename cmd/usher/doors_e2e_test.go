package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/userside/emulator"
)

// knock opens a connection on the router, sends a request and keeps it open; nil: it was not let in.
func (w *world) knock(t *testing.T, addr, request string) net.Conn {
	t.Helper()
	c, err := w.Router.Dial(addr, 5*time.Second)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, request)
	return c
}

// ask returns the status of the answer; 0: there was none.
func (w *world) ask(t *testing.T, addr, request string) int {
	t.Helper()
	c := w.knock(t, addr, request)
	if c == nil {
		return 0
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Whoever reaches the agent's listeners and has no secret cannot use up its descriptors,
// from however many addresses, those of customers too: it still reaches an ERP that keeps no
// connection, a pause reaches the kernel, and a new client gets a lease that is on disk.
func TestKernelDoorsLeaveDescriptors(t *testing.T) {
	t.Parallel()
	const hooks, look, page, limit, each = "10.0.0.1:9468", "10.0.0.1:9467", "10.0.0.1:8080", 1024, 7
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600))
	w := startWorld(t, miniature.Options{Homes: 2, ERPCloses: true, Extra: "hooks: {listen: " + hooks + ", secret_file: " + secret + "}\nportal: {listen: \"" + page + "\"}\n",
		Subnets: "    - {prefix: 198.18.4.0/23, gateway: 198.18.4.1, lease_time: 10m}\n"})
	config, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	outside := strings.Replace(string(config), miniature.ConsoleAddr, "0.0.0.0:9467", 1)
	require.NotEqual(t, string(config), outside)
	require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(outside), 0o600))
	swarm := w.addSwarm(t)
	out, err := swarm.Output(t.Context(), "cat", "/sys/class/net/eth0/address")
	require.NoError(t, err)
	mac, err := emulator.ParseMAC(strings.TrimSpace(out))
	require.NoError(t, err)
	for i := range swarmSize { // customers by right, each with a share of the portal: else they had one together
		_, err := w.ERP.AddCustomer(emulator.Customer{Login: fmt.Sprint("swarm", i), State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: netip.AddrFrom4([4]byte(swarmAddr(i).To4())), MAC: mac}}})
		require.NoError(t, err)
	}
	few := filepath.Join(w.Dir, "few-descriptors")
	require.NoError(t, os.WriteFile(few, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", limit, w.Program), 0o755))
	w.Program = few
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.Homes[0]
	require.NoError(t, w.Lease(t.Context(), h))
	require.True(t, reaches(h.Host))

	const noHint, scrape = "POST /hooks/customer HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n"
	began := time.Now()
	end := storm(t.Context(), t, swarm, each, map[string]string{
		hooks: fmt.Sprintf(noHint, "localhost"), look: "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		page: "GET / HTTP/1.1\r\n", // and never more
	})
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Agent.PID()))
	require.NoError(t, err)
	t.Logf("%d connections in %s: %d of %d descriptors open", 3*each*swarmSize, time.Since(began).Round(time.Millisecond), len(open), limit)
	require.Less(t, len(open), limit/2+128)
	began = time.Now()
	require.NoError(t, w.ERP.SetState(h.ID, emulator.StatePause))
	eventually(t, 20*time.Second, "the pause reaches the kernel", func() (bool, error) { return !reaches(h.Host), nil })
	t.Logf("the pause reached the kernel within %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	fresh := w.Homes[1]
	require.NoError(t, w.Lease(t.Context(), fresh))
	require.True(t, reaches(fresh.Host))
	_, err = miniature.LearnedMAC(t.Context(), w.ERP, fresh.ID, fresh.IP)
	require.NoError(t, err)
	t.Logf("a new client had a lease, and the ERP its MAC, within %s", time.Since(began).Round(time.Millisecond))
	st := w.status(t)
	end()
	require.Empty(t, st.State.Text, "the disk is written to")
	require.Zero(t, st.Sync.ConsecutiveFailures, st.Sync.LastError)
	ended := map[string]uint64{}
	for _, d := range st.Doors {
		ended[d.Name] = d.EndedIdle + d.EndedBusy
		if d.Name == "portal" {
			require.Greater(t, d.Inside, d.Total/2, "it is full, or nearly so")
		}
	}
	require.Greater(t, ended["console"]+ended["hooks"], uint64(800))
	require.Greater(t, ended["portal"], uint64(500))
	require.Equal(t, http.StatusMisdirectedRequest, w.ask(t, miniature.ConsoleAddr, fmt.Sprintf(scrape, "evil.example")), "a name that was made to lead here")
	require.Equal(t, http.StatusMisdirectedRequest, w.ask(t, hooks, fmt.Sprintf(noHint, "evil.example")))
	require.Equal(t, http.StatusOK, w.ask(t, miniature.ConsoleAddr, fmt.Sprintf(scrape, miniature.ConsoleAddr)))
	require.Equal(t, http.StatusUnauthorized, w.ask(t, hooks, fmt.Sprintf(noHint, hooks)))
	require.Regexp(t, `usher_door_ended_idle_total\{door="console"\} [0-9]{3}`, w.metrics(t))
	w.Agent.Kill()
	require.NoError(t, w.StartAgent(t.Context()))
	w.leaseState(t, fresh.IP, "bound")
}
