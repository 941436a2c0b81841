package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
)

// The whole agent answers only while its host has the address that keepalived
// would move, serves an interface that comes later, and says both.
func TestKernelAgentFollowsInterfacesAndTheSharedAddress(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "acl: {enabled: false}\n"})
	text, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	config := strings.Replace(string(text), "dhcp:\n", "dhcp:\n  answer_while_holding: 192.0.2.254\n  server_id: 192.0.2.77\n", 1)
	config = strings.Replace(config, "interfaces: [access", "interfaces: [access, \"late*\"", 1)
	require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(config), 0o600))
	require.NoError(t, w.StartAgent(t.Context()))
	require.Contains(t, w.Agent.Log(), "server identifiers that are no address of this host")
	require.Contains(t, w.Agent.Log(), `"key":"dhcp.interfaces[1]","warning":"no interface of this host fits \"late*\"`)
	out, err := w.Router.Output(t.Context(), w.Program, "status", "--socket", w.Socket())
	require.NoError(t, err)
	require.Regexp(t, `interfaces +\S*usher.yaml:\d+:\d+: dhcp.interfaces\[1\]: no interface of this host fits "late\*"`, out)
	out, err = w.Router.Output(t.Context(), w.Program, "check", "--config", w.ConfigPath())
	require.NoError(t, err, "a warning")
	require.Contains(t, out, ": good: ")
	sockets := w.status(t).DHCP.Sockets
	require.True(t, sockets.Standby)
	require.Equal(t, []string{"access"}, sockets.Names)
	require.Len(t, sockets.ForeignServerIDs, 1)

	p, err := w.DHCPClient(w.Homes[0])
	require.NoError(t, err)
	eventually(t, 10*time.Second, "a packet is left to the other router", func() (bool, error) {
		for _, o := range w.status(t).DHCP.Outcomes {
			if o.Outcome == "standby" {
				return true, nil
			}
		}
		return false, nil
	})
	require.NotContains(t, p.Log(), "bound")
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.254/32", "dev", "lo"))
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.77/32", "dev", "lo"))
	eventually(t, 15*time.Second, "the client has its address", func() (bool, error) {
		return strings.Contains(p.Log(), "bound ") && strings.Contains(p.Log(), "serverid=192.0.2.77"), nil
	})

	require.NoError(t, w.Router.IP("link", "add", "late0", "type", "veth", "peer", "name", "late-end"))
	eventually(t, 5*time.Second, "the new interfaces are served", func() (bool, error) {
		s := w.status(t).DHCP.Sockets
		return s.Served == 3 && !s.Standby && len(s.ForeignServerIDs) == 0, nil
	})
	out, err = w.Router.Output(t.Context(), w.Program, "status", "--socket", w.Socket())
	require.NoError(t, err)
	require.NotContains(t, out, "no interface of this host fits", "they have come")
	require.Contains(t, out, "interfaces served: access, late-end, late0")
}

// An interface that goes costs the agent about what one costs that comes, however many stay: the kernel
// tells of each by itself, some milliseconds apart, where those that come are told of together.
func TestKernelRemovingAnInterfaceCostsWhatAddingDoes(t *testing.T) {
	n := long.Times(t, 300, 1500)
	u := startUnnumbered(t, 1, "acl: {enabled: false}\nroutes: {enabled: true, interfaces: [\"cust*\"]}\nneighbours: {enabled: true, interfaces: [\"cust*\"]}\n")
	require.NoError(t, u.StartAgent(t.Context()))
	pid := u.Agent.PID()
	interfaces := func() int { return u.status(t).DHCP.Sockets.Interfaces }
	before := interfaces()
	batch := func(lines []string, then int) time.Duration {
		file := filepath.Join(u.Dir, "batch")
		require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		begin := cpuOf(t, pid)
		require.NoError(t, u.Router.IP("-batch", file))
		eventually(t, time.Minute, "the agent knows of all", func() (bool, error) { return interfaces() == then, nil })
		return cpuOf(t, pid) - begin
	}
	var add, del []string
	for i := range n {
		add = append(add, fmt.Sprintf("link add link cust1 name custm%d type macvlan", i), fmt.Sprintf("link set custm%d up", i))
		del = append(del, fmt.Sprintf("link del custm%d", i))
	}
	added := batch(add, before+n)
	removed := batch(del, before)
	t.Logf("%d interfaces: %v each to add, %v each to remove", n, added/time.Duration(n), removed/time.Duration(n))
	require.Less(t, removed, 5*added+2*time.Duration(n)*time.Millisecond)
}

// cpuOf is the processor time that a process has taken.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	user, err := strconv.Atoi(fields[11])
	require.NoError(t, err)
	system, err := strconv.Atoi(fields[12])
	require.NoError(t, err)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}
