package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside/emulator"
)

// A customer to whom the ERP gives a port but no address gets one of the pool behind the
// relay, is blocked and let through by its state, keeps the address over a new router,
// and moves when the ERP binds one. The kernel is the judge.
func TestKernelSubscriberWithoutAddress(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 2, DHCP: `  pools:
    - name: flats
      for: subscribers
      range: 198.51.100.200-198.51.100.201
      lease_time: 1m
`})
	h, bound := w.Homes[0], w.Homes[1]
	require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
	require.NoError(t, w.ERP.AddMAC(h.ID, emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xd1})) // not the MAC of the router: the port decides
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), bound))

	p, err := w.DHCPClient(h)
	require.NoError(t, err)
	a := boundTo(t, p, 1)
	require.True(t, between(a, "198.51.100.200", "198.51.100.201"), a)
	require.NoError(t, w.Access.IP("route", "replace", a.String()+"/32", "dev", h.Port))
	require.True(t, reaches(h.Host))

	pools, err := w.Client.Pools(t.Context(), "flats")
	require.NoError(t, err)
	require.Equal(t, "subscribers", pools.Pools[0].For)
	require.Len(t, pools.Addresses, 1)
	require.EqualValues(t, h.ID, pools.Addresses[0].Subscriber)
	x, err := w.Client.Explain(t.Context(), a.String())
	require.NoError(t, err)
	require.Contains(t, x.Summary, "It is within pool flats, for subscribers, and leased to ")
	require.Contains(t, w.metrics(t), "\nusher_snapshot_seats 1\n")

	inSet := func(set string) bool {
		return strings.Contains(w.nft(t, "list", "set", "inet", "usher", set), a.String())
	}
	t.Run("paused in the ERP and resumed", func(t *testing.T) {
		require.False(t, inSet("paused"))
		require.NoError(t, w.ERP.SetState(h.ID, emulator.StatePause))
		eventually(t, 10*time.Second, "the kernel blocks the address of the pool", func() (bool, error) { return inSet("paused"), nil })
		require.False(t, reaches(h.Host))
		require.True(t, reaches(bound.Host))
		out, code := w.usherOn(t, "acl", "show", a.String())
		require.Zero(t, code, out)
		require.Contains(t, out, "wanted paused, in the kernel paused")
		x, err := w.Client.Explain(t.Context(), a.String())
		require.NoError(t, err)
		require.Contains(t, x.Summary, "and so is the address that it has of pool flats.")
		require.NoError(t, w.ERP.SetState(h.ID, emulator.StateActive))
		eventually(t, 10*time.Second, "the kernel lets it through", func() (bool, error) { return !inSet("paused"), nil })
		require.True(t, reaches(h.Host))
	})
	t.Run("a new router while the old one's lease lives", func(t *testing.T) {
		require.NoError(t, p.Signal(syscall.SIGKILL)) // gone without a word
		w.setState(t, h, provision.StateStop)
		require.True(t, inSet("stopped"), "the lease lives")
		next := w.setMAC(t, 0, 0xd9) // another router on the port
		q, err := w.DHCPClient(next)
		require.NoError(t, err)
		require.Equal(t, a, boundTo(t, q, 1), "the address is the customer's, whatever router is there")
		require.True(t, inSet("stopped"))
		require.NoError(t, w.Access.IP("route", "replace", a.String()+"/32", "dev", h.Port))
		require.False(t, reaches(h.Host))
		w.setState(t, h, provision.StateActive)
		require.False(t, inSet("stopped"))
		require.True(t, reaches(h.Host))

		w.Agent.Kill()
		require.NoError(t, w.StartAgent(t.Context()))
		require.NoError(t, q.Signal(syscall.SIGUSR1))
		eventually(t, 10*time.Second, "it renews after kill -9", func() (bool, error) { return strings.Contains(q.Log(), "renew ip="+a.String()+" "), nil })

		require.NoError(t, w.ERP.AddIP(h.ID, h.IP, emulator.MAC{}))
		eventually(t, 10*time.Second, "the agent has the binding", func() (bool, error) {
			x, err := w.Client.Explain(t.Context(), h.IP.String())
			return err == nil && len(x.Bindings) == 1, err
		})
		require.NoError(t, q.Signal(syscall.SIGUSR1))
		require.Equal(t, h.IP, boundTo(t, q, 2))
	})
	for _, r := range w.ERP.Customers() {
		for _, addr := range r.Addresses {
			require.NotEqual(t, a, addr.IP, "the ERP was told nothing about an address of the pool")
		}
	}
}
