package acl_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// With the agent gone the kernel sends nobody's HTTP to a port that any program may take.
func TestKernelRedirectionLivesWithThePortal(t *testing.T) {
	t.Parallel()
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

// nftText loads rules as an operator writes them.
func (w *world) nftText(rules string) {
	w.t.Helper()
	file := filepath.Join(w.t.(*testing.T).TempDir(), "rules.nft")
	require.NoError(w.t, os.WriteFile(file, []byte(strings.ReplaceAll(rules, "; }", ";\n}\n")), 0o600))
	w.nft("-f", file)
}

// What of other tables makes the page vanish is found, and what does not is none.
func TestKernelObstaclesOfThePortal(t *testing.T) {
	t.Parallel()
	const opens = `ct state established,related accept
		iif lo accept
		`
	for name, tt := range map[string]struct {
		rules string
		page  bool // it comes all the same
		want  []string
	}{
		"nothing": {"", true, nil},
		"not tracked": {`table ip raw { chain pre { type filter hook prerouting priority raw; ip saddr 100.64.0.0/16 notrack; } }`, false,
			[]string{"table ip raw, chain pre: by rule 1 of pre connections are not tracked (notrack), and what is not tracked never comes to the portal, if it matches"}},
		"DNS is not tracked": {`table ip raw { chain pre { type filter hook prerouting priority raw; udp dport 53 notrack; tcp dport 53 notrack; iif lo notrack; } }`, true, nil},
		"translated before us": {`table ip other { chain pre { type nat hook prerouting priority -110; tcp dport { 80, 3128 } redirect to :9; } }`, false,
			[]string{"table ip other, chain pre: by rule 1 of pre the packet is translated before we see it, and only the first translation counts"}},
		"translated after us": {`table ip other { chain pre { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :9; } }`, true, nil},
		"closed by policy": {`table inet fw { chain in { type filter hook input priority filter; policy drop; ` + opens + `tcp dport { 22, 67-68, 443 } accept; } }`, false,
			[]string{"table inet fw, chain in: by its policy it drops what comes to the portal's port 8080; let tcp 8080 in from subscribers"}},
		"closed in a chain of its own": {`table inet fw { chain ports { tcp dport vmap { 22 : accept, 8080 : drop } ; } chain in { type filter hook input priority filter; ` + opens + `meta l4proto tcp jump ports; } }`, false,
			[]string{"table inet fw, chain in: by rule 1 of ports it drops what comes to the portal's port 8080; let tcp 8080 in from subscribers"}},
		"refused": {`table inet fw { chain in { type filter hook input priority filter; tcp dport 1024-65535 reject; } }`, false,
			[]string{"table inet fw, chain in: by rule 1 of in it drops what comes to the portal's port 8080; let tcp 8080 in from subscribers"}},
		"open":                       {`table inet fw { chain in { type filter hook input priority filter; policy drop; ` + opens + `tcp dport { 22, 8000-8999 } accept; } }`, true, nil},
		"open for who was led":       {`table inet fw { chain in { type filter hook input priority filter; policy drop; ` + opens + `ct status dnat accept; } }`, true, nil},
		"open for some sources":      {`table inet fw { chain in { type filter hook input priority filter; policy drop; ` + opens + `ip saddr 100.64.0.0/10 tcp dport 8080 accept; } }`, true, nil},
		"open in a chain of its own": {`table inet fw { chain ports { tcp dport vmap { 22 : accept, 8080 : accept } ; } chain in { type filter hook input priority filter; policy drop; ` + opens + `jump ports; } }`, true, nil},
		"states by a map": {`table inet fw { chain in { type filter hook input priority filter; policy drop; ct state vmap { established : accept, related : accept, invalid : drop } ; iif lo accept; tcp dport 22 accept; } }`, false,
			[]string{"table inet fw, chain in: by its policy it drops what comes to the portal's port 8080; let tcp 8080 in from subscribers"}},
		"dropped before": {`table inet fw { chain pre { type filter hook prerouting priority mangle; tcp dport 80 drop; } }`, false,
			[]string{"table inet fw, chain pre: by rule 1 of pre it drops HTTP of subscribers before it comes to the portal"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
			w.put("paused")
			if tt.rules != "" {
				w.nftText(tt.rules)
			}
			got := w.try(w.first, "http", serverIP, 300*time.Millisecond)
			require.Equal(t, tt.page, got == "portal for 100.64.0.1", got)
			observe(t, w.table)
			require.Equal(t, tt.want, w.table.Obstacles())
		})
	}
}

// What cannot be decided by reading the rules is told by what they do.
func TestKernelWhatMissesThePortalIsTold(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
	w.put("paused")
	observe(t, w.table)
	require.Empty(t, w.table.Obstacles())
	w.nftText(`table ip x { chain pre { type filter hook prerouting priority raw; meta mark set 1; notrack; } }`)
	require.Equal(t, "refused", w.try(w.first, "http", serverIP, patience))
	w.nft("delete", "table", "ip", "x")
	observe(t, w.table)
	require.Len(t, w.table.Obstacles(), 1)
	require.Contains(t, w.table.Obstacles()[0], "should have come to the portal was forwarded")

	// What was counted before a start may be of last week.
	policy := ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)}
	require.NoError(t, w.table.Close())
	again := w.openWith(acl.Options{Policy: policy})
	observe(t, again)
	require.Empty(t, again.Obstacles())
}

// A set of more elements than are looked at decides nothing, and the next question has its sockets.
func TestKernelLongForeignSetIsNoObstacle(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
	ports := make([]string, 5000)
	for i := range ports {
		ports[i] = strconv.Itoa(2*i + 1)
	}
	w.nftText(`table inet fw { set many { type inet_service; elements = { ` + strings.Join(ports, ", ") + ` }; }
		chain in { type filter hook input priority filter; policy drop; tcp dport @many accept; } }`)
	observe(t, w.table)
	require.Empty(t, w.table.Obstacles())
	require.False(t, changed(t, w.table))
}
