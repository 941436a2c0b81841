package acl_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// With the agent gone the kernel sends nobody's HTTP to a port that any program may take.
func TestKernelRedirectionLivesWithThePortal(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
	require.NoError(t, w.table.PortalDown(t.Context()))
	w.put("paused")
	http := func() string { return w.try(w.first, "http", serverIP, patience) }
	require.Equal(t, "refused", http(), "nobody answers yet")

	const life = 2 * time.Second
	began := time.Now()
	require.NoError(t, w.table.PortalUp(t.Context(), life))
	require.False(t, changed(t, w.table), "our own switch is no change")
	require.Equal(t, "portal for 100.64.0.1", http())
	require.Equal(t, "page of "+gardenIP+" for 100.64.0.1", w.try(w.first, "http", gardenIP, patience))
	for range 3 { // as long as it is renewed
		for renewed := time.Now(); time.Since(renewed) < life/2; {
			require.Equal(t, "portal for 100.64.0.1", http())
		}
		require.NoError(t, w.table.PortalUp(t.Context(), life))
	}
	// A repair keeps it, and what is left of its time.
	w.nft("delete", "table", "inet", "usher")
	require.True(t, changed(t, w.table))
	w.put("paused")
	require.Equal(t, "portal for 100.64.0.1", http())
	require.Greater(t, time.Since(began), life, "it was renewed")

	// The agent is killed: nothing of it renews.
	require.Eventually(t, func() bool { return http() == "refused" }, life+2*time.Second, 50*time.Millisecond)
	require.Zero(t, w.table.Repairs()-1, "its end is no repair: that was the table")
	require.NoError(t, w.table.PortalUp(t.Context(), time.Minute))
	require.Equal(t, "portal for 100.64.0.1", http())
	require.NoError(t, w.table.PortalDown(t.Context()))
	require.Equal(t, "refused", http(), "an ordinary stop ends it at once")
}

// Where a garden shares an address with what devices look for the portal by, HTTP to
// it may lead to the portal.
func TestKernelPortalBeforeGarden(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort), PortalBeforeGarden: true})
	for state, garden := range map[string]string{"paused": gardenIP, "guest": guestGardenIP} {
		w.put(state)
		require.Equal(t, "portal for 100.64.0.1", w.try(w.first, "http", garden, patience))
		require.Equal(t, "ok", w.try(w.first, "tcp 443", garden, patience))
	}
}
