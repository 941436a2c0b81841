package main

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// boundTo waits until udhcpc is bound the n-th time and gives the address.
func boundTo(t *testing.T, p *lab.Process, n int) netip.Addr {
	t.Helper()
	var a netip.Addr
	eventually(t, 20*time.Second, "udhcpc is bound", func() (bool, error) {
		found := regexp.MustCompile(`(?m)^bound ip=(\S+) `).FindAllStringSubmatch(p.Log(), -1)
		if len(found) < n {
			return false, nil
		}
		a = netip.MustParseAddr(found[n-1][1])
		return true, nil
	})
	return a
}

func between(a netip.Addr, first, last string) bool {
	return !a.Less(netip.MustParseAddr(first)) && !netip.MustParseAddr(last).Less(a)
}

// A customer whom the ERP has not linked yet is a guest behind the relay. It
// keeps its address over kill -9 of the agent, and moves to its own within the
// guests' lease when the ERP learns it.
func TestKernelGuestBehindRelay(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 3, Extra: "acl: {enabled: false}\n", DHCP: `  unknown_clients: guest
  pools:
    - name: guests
      range: 198.51.100.200-198.51.100.201
      lease_time: 1m
      dns: [203.0.113.53]
`})
	guest, other, third := w.Homes[0], w.Homes[1], w.Homes[2]
	for _, h := range w.Homes {
		require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
	}
	_, err := w.ERP.AddCustomer(emulator.Customer{Login: "elsewhere", FullName: "elsewhere", State: emulator.StateActive, // without any binding nothing is served
		Addresses: []emulator.Address{{IP: netip.MustParseAddr("198.51.100.77"), MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xee}}}})
	require.NoError(t, err)
	require.NoError(t, w.StartAgent(t.Context()))

	p, err := w.DHCPClient(guest)
	require.NoError(t, err)
	a := boundTo(t, p, 1)
	require.True(t, between(a, "198.51.100.200", "198.51.100.201"), a)
	require.Contains(t, p.Log(), "router=198.51.100.1 dns=203.0.113.53 lease=60")

	x, err := w.Client.Explain(t.Context(), a.String())
	require.NoError(t, err)
	require.Contains(t, x.Summary, "It is within pool guests, for guests, and leased to ")
	pools, err := w.Client.Pools(t.Context(), "guests")
	require.NoError(t, err)
	require.Equal(t, 1, pools.Pools[0].Leased)
	require.Len(t, pools.Addresses, 1)

	t.Run("the lease survives kill -9", func(t *testing.T) {
		w.Agent.Kill()
		require.NoError(t, w.StartAgent(t.Context()))
		q, err := w.DHCPClient(other)
		require.NoError(t, err)
		b := boundTo(t, q, 1)
		require.NotEqual(t, a, b, "the first guest still has it")
		require.NoError(t, p.Signal(syscall.SIGUSR1))
		eventually(t, 10*time.Second, "the guest renews what it had", func() (bool, error) {
			return strings.Contains(p.Log(), "renew ip="+a.String()+" "), nil
		})
	})
	t.Run("a third one finds the pool exhausted", func(t *testing.T) {
		q, err := w.DHCPClient(third)
		require.NoError(t, err)
		defer q.Kill()
		eventually(t, 15*time.Second, "the pool is exhausted", func() (bool, error) {
			st, err := w.Client.Pools(t.Context(), "")
			return err == nil && st.Pools[0].Exhausted > 0 && st.Pools[0].Full, err
		})
		require.NotContains(t, q.Log(), "bound")
	})
	t.Run("the ERP learns the port and the guest moves", func(t *testing.T) {
		require.NoError(t, w.ERP.AddIP(guest.ID, guest.IP, emulator.MAC{}))
		eventually(t, 10*time.Second, "the agent has the binding", func() (bool, error) {
			x, err := w.Client.Explain(t.Context(), guest.IP.String())
			return err == nil && len(x.Bindings) == 1, err
		})
		// Not waiting for T1, half a minute: what the client then does, now.
		require.NoError(t, p.Signal(syscall.SIGUSR1))
		require.Equal(t, guest.IP, boundTo(t, p, 2))
		_, err := guest.Host.Output(t.Context(), "ping", "-c1", "-W2", miniature.InternetIP)
		require.NoError(t, err)
	})
}

// Guests on a wire of the router's own: clients that race, a stranger who squats on an
// address, and one that gives its address back. Anybody there can write its MAC, so the address is
// free when its lease is over, not before.
func TestKernelGuestsDirectlyAttached(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "dhclient")
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Extra: "acl: {enabled: false}\n", Interfaces: []string{"lan"},
		Subnets: "    - {prefix: 192.0.2.0/24, gateway: 192.0.2.1, lease_time: 10m}\n",
		DHCP: `  unknown_clients: guest
  pools: [{name: lan, range: 192.0.2.100-192.0.2.105, lease_time: 1m}]
`})
	bridge, err := w.Lab.Host("lan")
	require.NoError(t, err)
	require.NoError(t, bridge.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, bridge.IP("link", "set", "dev", "br0", "up"))
	require.NoError(t, w.Lab.Wire(bridge, "uplink", w.Router, "lan"))
	require.NoError(t, bridge.IP("link", "set", "dev", "uplink", "master", "br0"))
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.1/24", "dev", "lan"))
	attach := func(name string) miniature.Home {
		h, err := w.Lab.Host(name)
		require.NoError(t, err)
		require.NoError(t, w.Lab.Wire(h, "eth0", bridge, name))
		require.NoError(t, bridge.IP("link", "set", "dev", name, "master", "br0"))
		return miniature.Home{Host: h}
	}
	squatter := attach("squatter")
	for _, a := range []string{"192.0.2.100", "192.0.2.101", "192.0.2.102"} {
		require.NoError(t, squatter.Host.IP("addr", "add", a+"/24", "dev", "eth0"))
	}
	clients := []miniature.Home{attach("one"), attach("two"), attach("three")}
	require.NoError(t, w.StartAgent(t.Context()))

	procs := make([]*lab.Process, len(clients))
	var wg sync.WaitGroup
	for i, h := range clients { // at once
		wg.Go(func() {
			p, err := w.DHCPClient(h, "-R")
			if err == nil {
				procs[i] = p
			}
		})
	}
	wg.Wait()
	var got []netip.Addr
	for _, p := range procs {
		require.NotNil(t, p)
		a := boundTo(t, p, 1)
		require.True(t, between(a, "192.0.2.103", "192.0.2.105"), "%v is the squatter's", a)
		require.NotContains(t, got, a)
		got = append(got, a)
	}
	pools, err := w.Client.Pools(t.Context(), "lan")
	require.NoError(t, err)
	st := pools.Pools[0]
	require.Equal(t, 3, st.Leased)
	require.GreaterOrEqual(t, st.Probes, uint64(3))
	require.Equal(t, int(st.Conflicts), st.Quarantined)
	t.Logf("%d probes, %d conflicts", st.Probes, st.Conflicts)

	require.NoError(t, procs[0].Signal(syscall.SIGTERM)) // releases, before it renews: what is given back is kept for it till the lease ends
	w.leaseState(t, got[0], "released")
	ends := w.keptUntil(t, got[0])

	// With the rest of the pool taken or kept a further client meets the squatter's addresses only.
	late := attach("late")
	p, err := w.DHCPClient(late, "-A", "1")
	require.NoError(t, err)
	eventually(t, 20*time.Second, "all that is squatted on is in quarantine", func() (bool, error) {
		v, err := w.Client.Pools(t.Context(), "lan")
		return err == nil && v.Pools[0].Quarantined == 3, err
	})
	x, err := w.Client.Explain(t.Context(), "192.0.2.101")
	require.NoError(t, err)
	require.Contains(t, x.Summary, "in quarantine until")
	require.NotContains(t, p.Log(), "bound")

	eventually(t, time.Until(ends)+20*time.Second, "what was given back goes to who waits", func() (bool, error) {
		return strings.Contains(p.Log(), "\nbound ip="), nil
	})
	require.False(t, time.Now().Before(ends), "not before its lease is over")
	a := boundTo(t, p, 1)
	require.Equal(t, got[0], a, "what was given back goes to who waits")
	metrics, err := w.Router.Output(t.Context(), "curl", "-s", "http://"+miniature.ConsoleAddr+"/metrics")
	require.NoError(t, err)
	require.True(t, slices.Contains(strings.Split(metrics, "\n"), `usher_dhcp_pool_addresses{pool="lan",state="quarantined"} 3`), "%s", metrics)
}
