package acl_test

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

// macOf returns the MAC of a host's only wire.
func macOf(t *testing.T, h *lab.Host) provision.MAC {
	t.Helper()
	out, err := h.Output(t.Context(), "cat", "/sys/class/net/eth0/address")
	require.NoError(t, err)
	m, err := provision.ParseMAC(strings.TrimSpace(out))
	require.NoError(t, err)
	return m
}

// guarded is a world in which the first subscriber is behind an interface guarded by
// MAC, stopped, and has a free address of its network besides its own.
func guarded(t *testing.T, more access.ACL) *world {
	t.Helper()
	w := newWorld(t, "", ruleset.Policy{SourceGuard: true})
	want := access.ACL{
		access.SetStopped:       access.Addrs(w.firstAddr),
		access.SetGuardedDirect: access.Interfaces("down0"),
		access.SetBoundDirect:   access.DirectBindings(access.DirectBinding{IP: w.firstAddr, MAC: macOf(t, w.first)}),
	}
	for s := range access.Sets() {
		want[s] += more[s]
	}
	setTo(t, w.table, want)
	require.NoError(t, w.first.IP("addr", "add", freeIP+"/24", "dev", "eth0"))
	return w
}

// freeIP is an address that nobody has.
const freeIP = "100.64.0.77"

// datagrams sends some of 1,200 bytes and tells how many came back within a time.
func datagrams(t *testing.T, h *lab.Host, from, to string, n int) int {
	t.Helper()
	var c net.PacketConn
	again(t, unix.EADDRINUSE, func() (err error) {
		c, err = h.ListenPacket(from)
		return err
	})
	defer c.Close()
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	for range n {
		_, err := c.WriteTo(make([]byte, 1200), addr)
		require.NoError(t, err)
	}
	require.NoError(t, c.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	got := 0
	for buf := make([]byte, 1500); got < n; got++ {
		if _, _, err := c.ReadFrom(buf); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	return got
}

// Ports of DHCP are no way out: not from a free address that a stopped subscriber has
// typed, and not from its own.
func TestKernelDHCPIsNoTunnel(t *testing.T) {
	t.Parallel()
	w := guarded(t, access.ACL{})
	for _, port := range []string{"67", "68"} {
		w.echo(w.internet, net.JoinHostPort(serverIP, port))
	}
	const n = 300
	for _, tt := range []struct{ from, to string }{
		{freeIP + ":68", serverIP + ":67"}, {freeIP + ":67", serverIP + ":67"}, {freeIP + ":68", serverIP + ":68"},
		{"100.64.0.1:68", serverIP + ":67"},
	} {
		require.Zero(t, datagrams(t, w.first, tt.from, tt.to, n), "%s to %s", tt.from, tt.to)
	}
}

// What DHCP needs passes: renewals with this router, at any of its addresses, and
// broadcasts; packets of a relay; and the servers beyond that are named.
func TestKernelDHCPPassesTheGuard(t *testing.T) {
	t.Parallel()
	const server = gardenIP // one beyond
	w := guarded(t, access.ACL{access.SetDHCPServers: access.Prefixes(prefixesOf(server + "/32")...)})
	for _, port := range []string{"67", "68"} {
		w.echo(w.internet, net.JoinHostPort(server, port))
		w.echo(w.internet, net.JoinHostPort(serverIP, port))
	}
	// A broadcast reaches this router and goes no further.
	pc, err := w.host.ListenPacket("0.0.0.0:67")
	require.NoError(t, err)
	for _, to := range []string{"255.255.255.255", "100.64.0.255"} {
		require.Zero(t, datagrams(t, w.first, freeIP+":68", to+":67", 1))
		require.NoError(t, pc.SetReadDeadline(time.Now().Add(time.Second)))
		_, from, err := pc.ReadFrom(make([]byte, 1))
		require.NoError(t, err, "to %s", to)
		require.Equal(t, freeIP+":68", from.String())
	}
	require.NoError(t, pc.Close())

	w.echo(w.host, routerIP+":67")
	w.echo(w.host, "192.0.2.254:67") // of another interface
	for _, from := range []string{freeIP + ":68", freeIP + ":67"} {
		for _, to := range []string{routerIP, "192.0.2.254", server} {
			require.Equal(t, 3, datagrams(t, w.first, from, to+":67", 3), "%s to %s", from, to)
		}
		require.Zero(t, datagrams(t, w.first, from, serverIP+":67", 3))
	}
	// The lease of a blocked subscriber goes on, with whichever server it is.
	for _, set := range []access.Set{access.SetStopped, access.SetPaused, access.SetGuests} {
		have := observe(t, w.table)
		want := have
		want[access.SetStopped], want[access.SetPaused], want[access.SetGuests] = "", "", ""
		want[set] = access.Addrs(w.firstAddr)
		apply(t, w.table, access.Plan(want, have))
		require.Equal(t, 3, datagrams(t, w.first, "100.64.0.1:68", server+":67", 3), "%s", set)
		require.Zero(t, datagrams(t, w.first, "100.64.0.1:68", serverIP+":67", 3), "%s", set)
		require.Zero(t, datagrams(t, w.first, "100.64.0.1:68", server+":68", 3), "%s", set)
	}
}

// Whatever passes a block is counted, by who and by what.
func TestKernelWhatPassesABlockIsCounted(t *testing.T) {
	policy := ruleset.Policy{SourceGuard: true}
	w := guarded(t, access.ACL{
		access.SetGarden: access.Prefixes(prefixesOf(gardenIP + "/32")...), access.SetResolvers: access.Prefixes(prefixesOf(resolverIP + "/32")...),
		access.SetDHCPServers: access.Prefixes(prefixesOf(strangerIP + "/32")...), access.SetExempt: access.Prefixes(prefixesOf(freeIP + "/32")...),
	})
	w.echo(w.internet, strangerIP+":67")
	have := observe(t, w.table)
	want := have
	want[access.SetStopped], want[access.SetPaused] = "", access.Addrs(w.firstAddr)
	net := access.SetPaused.Subnets(29) // somebody else's, which brings rules of its own
	want[net] = access.Keys(element(t, net, "203.0.113.136/29").Key)
	apply(t, w.table, access.Plan(want, have))
	require.Equal(t, 3, datagrams(t, w.first, "100.64.0.1:5000", gardenIP+":4000", 3))
	require.Equal(t, 2, datagrams(t, w.first, "100.64.0.1:5000", resolverIP+":53", 2))
	require.Equal(t, 4, datagrams(t, w.first, "100.64.0.1:68", strangerIP+":67", 4))
	require.Equal(t, 5, datagrams(t, w.first, freeIP+":5000", gardenIP+":4000", 5))

	r := acl.NewReader(acl.Options{NetNS: w.namespace()})
	defer r.Close()
	got, err := r.Passed(t.Context(), policy)
	require.NoError(t, err)
	n := func(packets uint64) access.Counter { return ofSize(packets, 1200) }
	require.Equal(t, map[string]access.Counter{
		"from_paused garden": n(3), "to_paused garden": n(3), "from_paused dns": n(2), "to_paused dns": n(2),
		"from_paused dhcp": n(4), "to_paused dhcp": n(4), "unbound exempt": n(5),
	}, byWay(got))
	require.Len(t, got, len(acl.Ways()))

	w.nft("flush table inet usher")
	_, err = r.Passed(t.Context(), policy)
	require.ErrorIs(t, err, acl.ErrNotAsWritten)
}

// byWay returns what has passed, by chain and kind.
func byWay(list []acl.Passed) map[string]access.Counter {
	passed := map[string]access.Counter{}
	for _, p := range list {
		if p.Packets > 0 {
			passed[p.Chain+" "+p.What] = p.Counter
		}
	}
	return passed
}

// ofSize is the count of datagrams with so many bytes each.
func ofSize(packets, bytes uint64) access.Counter {
	return access.Counter{Packets: packets, Bytes: packets * (bytes + 28)}
}

// The ways past a block that are not of a paused subscriber's own packets count exactly what went them.
func TestKernelEachWayPastABlockIsCounted(t *testing.T) {
	t.Parallel()
	const dhcpServer, streams = strangerIP, 200
	policy := ruleset.Policy{SourceGuard: true, Alone: true}
	w := newWorld(t, "", policy)
	// A maintenance counts all that comes in: not to be neighbour discovery, which comes when it likes.
	require.NoError(t, w.host.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"))
	require.NoError(t, w.first.IP("addr", "add", freeIP+"/24", "dev", "eth0"))
	w.routeMulticast(serverIP)
	require.NoError(t, w.internet.IP("route", "add", "224.0.0.0/4", "dev", "eth0"))
	w.echo(w.internet, dhcpServer+":67")
	w.echo(w.host, routerIP+":67")
	self := access.Addrs(w.firstAddr)
	put := func(set access.Set) {
		t.Helper()
		want := access.ACL{
			access.SetResolvers: access.Prefixes(prefixesOf(resolverIP + "/32")...), access.SetGuestGarden: access.Prefixes(prefixesOf(guestGardenIP + "/32")...),
			access.SetDHCPServers:   access.Prefixes(prefixesOf(dhcpServer + "/32")...),
			access.SetGuardedDirect: access.Interfaces("down0"),
			access.SetBoundDirect:   access.DirectBindings(access.DirectBinding{IP: w.firstAddr, MAC: macOf(t, w.first)}),
		}
		if set != 0 {
			want[set] = self
		}
		setTo(t, w.table, want)
	}
	sent := func(from, to string, n int) {
		t.Helper()
		require.Equal(t, n, datagrams(t, w.first, from, to, n), "%s to %s", from, to)
	}
	r := acl.NewReader(acl.Options{NetNS: w.namespace()})
	defer r.Close()
	want := map[string]access.Counter{}
	check := func(what string, more map[string]access.Counter) {
		t.Helper()
		for way, n := range more {
			want[way] = n
		}
		got, err := r.Passed(t.Context(), policy)
		require.NoError(t, err)
		require.Equal(t, want, byWay(got), what)
	}

	put(access.SetStopped)
	require.Zero(t, datagrams(t, w.first, "100.64.0.1:5000", resolverIP+":53", 2))
	sent("100.64.0.1:68", dhcpServer+":67", 4)
	check("stopped", map[string]access.Counter{"from_stopped dhcp": ofSize(4, 1200), "to_stopped dhcp": ofSize(4, 1200)})

	put(access.SetGuests)
	require.Zero(t, datagrams(t, w.first, "100.64.0.1:5000", gardenIP+":4000", 2), "the garden of others")
	sent("100.64.0.1:5000", guestGardenIP+":4000", 3)
	sent("100.64.0.1:5000", resolverIP+":53", 2)
	sent("100.64.0.1:68", dhcpServer+":67", 5)
	check("a guest", map[string]access.Counter{
		"from_guests garden": ofSize(3, 1200), "to_guests garden": ofSize(3, 1200), "from_guests dns": ofSize(2, 1200), "to_guests dns": ofSize(2, 1200),
		"from_guests dhcp": ofSize(5, 1200), "to_guests dhcp": ofSize(5, 1200),
	})

	put(0)
	require.Zero(t, datagrams(t, w.first, freeIP+":5000", gardenIP+":4000", 2))
	sent(freeIP+":68", routerIP+":67", 3)
	sent(freeIP+":67", routerIP+":67", 2)
	require.Zero(t, datagrams(t, w.first, freeIP+":68", "255.255.255.255:67", 1), "nobody answers a broadcast")
	sent(freeIP+":68", dhcpServer+":67", 4)
	sent(freeIP+":67", dhcpServer+":67", 6)
	check("DHCP of an unbound source", map[string]access.Counter{"unbound dhcp": ofSize(3+2+1+4+6, 1200)})

	put(access.SetStopped)
	_, err := w.table.OpenFor(t.Context(), time.Minute)
	require.NoError(t, err)
	sent(freeIP+":5000", gardenIP+":4000", 7)
	sent("100.64.0.1:5000", gardenIP+":4000", 2)
	sent(freeIP+":68", routerIP+":67", 1) // is not forwarded
	require.NoError(t, w.table.Shut(t.Context()))
	check("a maintenance", map[string]access.Counter{"source maintenance": ofSize(2*(7+2)+1, 1200), "forward maintenance": ofSize(2*(7+2), 1200)})

	setTo(t, w.table, access.ACL{
		access.SetPaused: self, access.SetAlonePaused: access.Interfaces("down0"), access.SetGarden: access.Prefixes(prefixesOf(serverIP + "/32")...),
		access.SetGuardedVLAN: access.Interfaces("down0", "down1"),
		access.SetBoundVLAN: access.VLANBindings(access.VLANBinding{Interface: "down0", IP: w.firstAddr},
			access.VLANBinding{Interface: "down1", IP: netip.MustParseAddr("100.64.1.1")}),
	})
	require.Equal(t, []int{streams, streams}, w.streamed(streams, w.first, w.second))
	check("multicast of a garden", map[string]access.Counter{"multicast garden": ofSize(streams, 100)})
}
