package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside/emulator"
)

// What a contract's end is in the ERP, a state and then no row, and at last no customer, opens nothing: not on a guarded interface,
// not behind a relay, and not after a restart of the agent. Whoever is not blocked keeps his network until his lease is refused.
func TestKernelBlockOutlivesTheRow(t *testing.T) {
	t.Parallel()
	w, direct, per := guardedWorld(t)
	relayed := w.Homes[0]
	_, err := w.ERP.AddCustomer(emulator.Customer{Login: "stays", FullName: "stays", State: emulator.StateActive, // or the ERP would be one without rows
		Addresses: []emulator.Address{{IP: netip.MustParseAddr("192.0.2.90"), MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 0x90}}}})
	require.NoError(t, err)
	require.NoError(t, w.StartRelay(t.Context()))
	homes := []miniature.Home{direct, per, relayed}
	for _, h := range homes {
		require.NoError(t, w.Lease(t.Context(), h))
		require.True(t, ping(t, h.Host, h.IP.String(), miniature.InternetIP))
	}
	// sees waits until the agent has learned what the ERP has, and the kernel what follows from it.
	sees := func(h miniature.Home, text string) string {
		var out string
		eventually(t, 20*time.Second, h.IP.String()+": "+text, func() (bool, error) {
			out, _ = w.usherOn(t, "explain", h.IP.String())
			return strings.Contains(out, text), nil
		})
		verified, code := w.usherOn(t, "acl", "verify")
		require.Zero(t, code, verified)
		return out
	}
	passes := func(want bool, when string) {
		t.Helper()
		for _, h := range homes {
			require.Equal(t, want, ping(t, h.Host, h.IP.String(), miniature.InternetIP), "%s: %s", h.IP, when)
		}
	}
	require.NoError(t, w.ERP.RemoveIP(direct.ID, direct.IP))
	sees(direct, "binds 192.0.2.10 to nobody")
	passes(true, "an active one without a row")

	for h, st := range map[*miniature.Home]provision.State{&direct: provision.StatePause, &per: provision.StateStop, &relayed: provision.StatePause} {
		w.setState(t, *h, st)
	}
	passes(false, "blocked")
	for _, h := range homes[1:] {
		require.NoError(t, w.ERP.RemoveIP(h.ID, h.IP))
		sees(h, "binds "+h.IP.String()+" to nobody")
	}
	passes(false, "blocked, and the rows are gone")
	for _, h := range homes {
		require.NoError(t, w.ERP.DeleteCustomer(h.ID))
		out := sees(h, fmt.Sprintf("is of customer %d, whom the ERP does not have any more", h.ID))
		out = strings.Join(strings.Fields(out), " ")
		if h.ID == per.ID {
			require.Contains(t, out, "it stays stopped until the lease ends")
		} else {
			require.Contains(t, out, "it stays paused until the lease ends")
		}
	}
	passes(false, "blocked, and the customers are gone")

	w.Agent.Kill()
	<-w.Agent.Done()
	require.NoError(t, w.StartAgent(t.Context()))
	sees(direct, "whom the ERP does not have any more")
	passes(false, "after a restart")
}
