package main

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/userside/emulator"
)

// An operator ends the only lease of a pool: a kill -9 right after it does not bring it back, who waited has the address, and the
// client of before is refused when it renews.
func TestKernelDroppedLeaseStaysDropped(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 2, Extra: "acl: {enabled: false}\n", DHCP: `  unknown_clients: guest
  pools:
    - {name: guests, range: 198.51.100.200-198.51.100.200, lease_time: 10m}
`})
	first, second := w.Homes[0], w.Homes[1]
	for _, h := range w.Homes {
		require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
	}
	_, err := w.ERP.AddCustomer(emulator.Customer{Login: "elsewhere", FullName: "elsewhere", State: emulator.StateActive, // without any binding nothing is served
		Addresses: []emulator.Address{{IP: netip.MustParseAddr("198.51.100.77"), MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xee}}}})
	require.NoError(t, err)
	require.NoError(t, w.StartAgent(t.Context()))
	a := netip.MustParseAddr("198.51.100.200")
	p, err := w.DHCPClient(first)
	require.NoError(t, err)
	require.Equal(t, a, boundTo(t, p, 1))

	out, code := w.usherOn(t, "leases", "drop", a.String())
	require.Equal(t, 2, code, out)
	require.Contains(t, out, "say --yes")
	out, code = w.usherOn(t, "leases", "drop", a.String(), "--yes")
	w.Agent.Kill()
	require.Zero(t, code, out)
	require.Contains(t, out, "ended: the lease of "+a.String())
	require.NoError(t, w.StartAgent(t.Context()))
	w.leaseState(t, a, "released")
	out, code = w.usherOn(t, "leases", "drop", a.String(), "--yes")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "is over already")

	q, err := w.DHCPClient(second)
	require.NoError(t, err)
	require.Equal(t, a, boundTo(t, q, 1))
	require.NoError(t, p.Signal(syscall.SIGUSR1)) // it renews, as it does at T1
	eventually(t, 20*time.Second, "the client of before is told", func() (bool, error) {
		return strings.Contains(p.Log(), "\nnak"), nil
	})
}

// The route of a lease goes with it, and comes back when its client has renewed: the ERP still has it there.
func TestKernelDroppedLeaseHasNoRoute(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 1, unnumberedConfig)
	require.NoError(t, u.StartAgent(t.Context()))
	h := u.subs[0]
	p := u.bound(t, h)
	u.waitRoute(t, h, "cust1")
	out, code := u.usherOn(t, "leases", "drop", h.IP.String(), "--yes")
	require.Zero(t, code, out)
	require.Contains(t, out, fmt.Sprintf("that of %s", h.MAC))
	u.waitRoute(t, h, "")
	require.NoError(t, p.Signal(syscall.SIGUSR1))
	u.waitRoute(t, h, "cust1")
	u.pings(t, h.Host, miniature.InternetIP)
}

// What the kernel has of a lease alone goes with it: the guest's element of the source guard.
func TestKernelDroppedLeaseLeavesTheSourceGuard(t *testing.T) {
	t.Parallel()
	w, direct, _ := guardedWorld(t)
	const nobodys = "00:00:5e:00:53:66"
	require.NoError(t, direct.Host.IP("link", "set", "dev", "eth0", "address", nobodys))
	p, err := w.DHCPClient(direct)
	require.NoError(t, err)
	a := boundTo(t, p, 1)
	require.True(t, between(a, "192.0.2.100", "192.0.2.120"), a)
	sets := func(there bool) {
		t.Helper()
		eventually(t, 10*time.Second, fmt.Sprintf("the kernel lets %s in: %t", nobodys, there), func() (bool, error) {
			return strings.Contains(w.nft(t, "list", "table", "inet", "usher"), nobodys) == there, nil
		})
	}
	sets(true)
	out, code := w.usherOn(t, "leases", "drop", a.String(), "--yes")
	require.Zero(t, code, out)
	sets(false)
	require.NoError(t, p.Signal(syscall.SIGUSR1)) // nobody else wants it: it may have it again
	sets(true)
}
