package dhcpd

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// fakeLinks is a host whose interfaces a test says.
type fakeLinks struct {
	v atomic.Pointer[provision.Interfaces]
}

func (f *fakeLinks) View() *provision.Interfaces { return f.v.Load() }

func (f *fakeLinks) set(list ...provision.Interface) {
	f.v.Store(provision.NewInterfaces(list, f.v.Load()))
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// linkRig is a handler that knows its interfaces and sends nowhere.
func linkRig(t testing.TB, links Links, change func(*Options)) (*handler, *EventLog) {
	t.Helper()
	snap := world(t)
	opts := testOptions()
	change(&opts)
	events := NewEventLog(16)
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Observer: events, Links: links})
	require.NoError(t, err)
	// Nothing has an index that the links do not know, so no socket is asked.
	return newHandler(s, newCommitter(s, discard{}), discard{}, newInterfaces(nil, links)), events
}

func discoverOn(index int) socket.Datagram {
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), Option82: port(switch1, 1)}
	return socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(netip.IPv4Unspecified(), 68), Ifindex: index}
}

// Patterns are compared when an interface or the settings change; a renamed or
// a new interface is served or not by its name of now.
func TestInterfacesThatComeAndGo(t *testing.T) {
	most := Limit{Rate: 1e6, Burst: 1e6}
	plenty := Limits{Client: most, Port: most, Relay: most} // the limiter runs and lets all pass
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "eth1.100", Kind: "vlan", VLAN: 100, Parent: 2}, provision.Interface{Index: 2, Name: "eth1"})
	h, events := linkRig(t, links, func(o *Options) {
		o.Interfaces, o.Limits = []string{"eth1.*"}, plenty
	})
	outcome := func(index int) string {
		h.handle(testNow, discoverOn(index))
		e := events.Find(EventFilter{Limit: 1})[0]
		return e.Interface + " " + e.Outcome.String()
	}
	assert.Equal(t, "eth1.100 offer", outcome(3))
	assert.Equal(t, "eth1 interface_off", outcome(2))
	links.set(provision.Interface{Index: 3, Name: "other", Kind: "vlan"}, provision.Interface{Index: 2, Name: "eth1"})
	assert.Equal(t, "other interface_off", outcome(3))
	links.set(provision.Interface{Index: 9, Name: "eth1.100"}, provision.Interface{Index: 2, Name: "eth1"})
	assert.Equal(t, "eth1.100 offer", outcome(9), "made again, with another index")

	opts := testOptions()
	opts.Interfaces, opts.Limits = []string{"eth1"}, plenty
	require.NoError(t, h.s.Reload(opts))
	assert.Equal(t, "eth1 offer", outcome(2))
	assert.Equal(t, "eth1.100 interface_off", outcome(9))
	g := discoverOn(2)
	for range 20 { // the event log's slots have their memory then
		h.handle(testNow, g)
	}
	assert.Zero(t, testing.AllocsPerRun(200, func() { h.handle(testNow, g) }))

	st := h.s.Sockets()
	assert.Equal(t, 2, st.Interfaces)
	assert.Equal(t, 1, st.Served)
	assert.Equal(t, []string{"eth1"}, st.Names)
}

// Of several addresses of an interface the one in the client's subnet names the
// server; an interface without any borrows the gateway's.
func TestServerIdentifierOfInterfaces(t *testing.T) {
	for _, tc := range []struct {
		name   string
		addrs  []netip.Prefix
		change func(*Options)
		want   string
	}{
		{"its only address", prefixes("198.51.100.7/24"), func(*Options) {}, "198.51.100.7"},
		{"that in the subnet, not the first", prefixes("203.0.113.7/24", "192.0.2.9/24"), func(*Options) {}, "192.0.2.9"},
		{"unnumbered: the gateway", nil, func(*Options) {}, "192.0.2.1"},
		{"of the subnet", prefixes("192.0.2.9/24"), func(o *Options) { o.Subnets[0].ServerID, o.ServerID = host(77), host(78) }, "192.0.2.77"},
		{"of the server", prefixes("192.0.2.9/24"), func(o *Options) { o.ServerID = host(78) }, "192.0.2.78"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			links := &fakeLinks{}
			links.set(provision.Interface{Index: 3, Name: "eth0", Addrs: tc.addrs})
			h, events := linkRig(t, links, tc.change)
			h.handle(testNow, discoverOn(3))
			require.Equal(t, outcome.Offer, h.d.Outcome, "%+v", events.Find(EventFilter{}))
			require.Equal(t, tc.want, h.d.Reply.ServerID.String())
			q := wire.Query{Type: wire.Request, MAC: client(0x11), Option82: port(switch1, 1), Options: []wire.Option{chosen(h.d.Reply.ServerID), requested(host(11))}}
			h.handle(testNow, socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(netip.IPv4Unspecified(), 68), Ifindex: 3})
			require.Equal(t, outcome.Ack, h.d.Outcome, "a client that chooses it is ours")
			e := h.s.Explain(Query{MAC: client(0x11), Interface: "eth0"})
			require.Equal(t, tc.want, e.ServerID.String(), "and is told before")
		})
	}
}

// Only who has the address answers, from the moment that it comes.
func TestAnswerWhileHolding(t *testing.T) {
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "eth0", Addrs: prefixes("192.0.2.9/24")})
	h, _ := linkRig(t, links, func(o *Options) { o.AnswerWhileHolding = host(254) })
	h.handle(testNow, discoverOn(3))
	require.Equal(t, outcome.Standby, h.ev.Outcome)
	require.True(t, h.s.Sockets().Standby)
	require.Equal(t, outcome.Standby, h.s.Explain(Query{MAC: client(0x11)}).Outcome)
	links.set(provision.Interface{Index: 3, Name: "eth0", Addrs: prefixes("192.0.2.9/24", "192.0.2.254/32")})
	h.handle(testNow, discoverOn(3))
	require.Equal(t, outcome.Offer, h.ev.Outcome)
	require.False(t, h.s.Sockets().Standby)
}

func TestForeignServerIDs(t *testing.T) {
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "eth0", Addrs: prefixes("192.0.2.9/24")})
	h, _ := linkRig(t, links, func(o *Options) { o.ServerID, o.Subnets[0].ServerID = host(9), host(8) })
	require.Equal(t, []netip.Addr{host(8)}, h.s.Sockets().ForeignServerIDs)
}

// What an interface is called is read once, until it is renamed or the settings change.
func TestIngressIsReadOnce(t *testing.T) {
	opts := testOptions()
	opts.VLANInterfaces, opts.TrustedInterfaces = []string{"vlan{vlan}"}, []string{"core"}
	one, err := compile(opts)
	require.NoError(t, err)
	opts.TrustedInterfaces = nil
	two, err := compile(opts)
	require.NoError(t, err)
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "vlan7"}, provision.Interface{Index: 4, Name: "core"})
	c := newInterfaces(nil, links)
	assert.Equal(t, line.Ingress{Name: "vlan7", VLAN: 7, Untrusted: true, Customers: true}, c.get(3, testNow, one.settings).ingress)
	assert.Equal(t, line.Ingress{Name: "core"}, c.get(4, testNow, one.settings).ingress)
	assert.Zero(t, testing.AllocsPerRun(10, func() { c.get(3, testNow, one.settings); c.get(4, testNow, one.settings) }))
	links.set(provision.Interface{Index: 3, Name: "vlan8"})
	assert.Equal(t, line.Ingress{Name: "vlan8", VLAN: 8, Untrusted: true, Customers: true}, c.get(3, testNow, one.settings).ingress)
	assert.Equal(t, line.Ingress{Name: "vlan8", VLAN: 8, Customers: true}, c.get(3, testNow, two.settings).ingress)
}

// A packet may be quicker than the watch: an index that is new to it is looked
// up once, and without a watch everything is.
func TestIndexThatTheWatchDoesNotKnow(t *testing.T) {
	s, err := New(loopbackOptions(67, 68), Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	defer s.Close()
	links := &fakeLinks{}
	set := s.generation.Load().settings
	for _, l := range []Links{links, nil} {
		c := newInterfaces(s.socks.Load(), l)
		f := c.get(1, testNow, set)
		require.Equal(t, "lo", f.of.Name)
		require.True(t, f.served, "loopback mode")
		require.Equal(t, "127.0.0.1", f.of.Addr().String())
		require.Same(t, f, c.get(1, testNow.Add(interfaceTTL-1), set))
		gone := c.get(1<<30, testNow, set)
		require.Empty(t, gone.of.Name)
		require.NotSame(t, gone.of, c.get(1<<30, testNow.Add(interfaceTTL), set).of, "asked again")
	}
	require.True(t, newInterfaces(s.socks.Load(), nil).holds(ip("127.0.0.1"), testNow))
	require.False(t, newInterfaces(s.socks.Load(), nil).holds(host(1), testNow))
	links.set(provision.Interface{Index: 1, Name: "lo0", Loopback: true})
	c := newInterfaces(s.socks.Load(), links)
	require.Equal(t, "lo0", c.get(1, testNow, set).of.Name, "the watch's word counts")
}

// A million indexes that came and went leave no trace.
func TestInterfacesAreForgotten(t *testing.T) {
	links := &fakeLinks{}
	c := newInterfaces(nil, links)
	gen, err := compile(testOptions())
	require.NoError(t, err)
	for i := 1; i < 3*maxInterfaces; i += 1000 {
		list := make([]provision.Interface, 1000)
		for k := range list {
			list[k] = provision.Interface{Index: i + k, Name: fmt.Sprint("v", i+k)}
		}
		links.set(list...)
		for k := range list {
			c.get(i+k, testNow, gen.settings)
		}
	}
	require.LessOrEqual(t, len(c.known), maxInterfaces)
}

// The kernel counts what it had to throw away; nobody reads here.
func TestReceiveDropsAreCounted(t *testing.T) {
	s, err := New(loopbackOptions(67, 68), Deps{Snapshot: func() *provision.Snapshot { return nil }, Leases: lease.New()})
	require.NoError(t, err)
	require.NoError(t, s.Listen())
	defer s.Close()
	require.Zero(t, s.Sockets().ReceiveDrops)
	c := listenUDP(t, ip("127.0.0.9"), 0)
	full := make([]byte, 60_000)
	for n := 0; s.Sockets().ReceiveDrops == 0; n++ {
		require.Less(t, n, 5000, "8 MiB are never full")
		_, err := c.WriteToUDPAddrPort(full, s.LocalAddr())
		require.NoError(t, err)
	}
	seen := s.Sockets().ReceiveDrops
	require.NoError(t, s.Close())
	require.Equal(t, seen, s.Sockets().ReceiveDrops, "the sum stays")
}
