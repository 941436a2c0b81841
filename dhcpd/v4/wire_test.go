package v4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A client that has its address, and is on the wire of its packet, is answered there; others by the routing table.
func TestDirectClientsAreAnsweredOnTheirWire(t *testing.T) {
	renew := wire.Query{Type: wire.Request, MAC: client(0x81), CIAddr: host(81)}
	inform := wire.Query{Type: wire.Inform, MAC: client(0x81), CIAddr: host(81)}
	silent := wire.Query{Type: wire.Inform, MAC: client(0x81)} // it sends from its address and does not name it
	away := bound(host(81), client(0x81), 8)                   // was on another interface
	away.Interface, away.Ifindex = "eth7", 7
	relayed := bound(host(81), client(0x81), 8)
	relayed.GIAddr = relayIP
	others := relayed
	others.MAC = stranger
	const frame, udp = "frame", "unicast"
	for _, tc := range []struct {
		name  string
		q     wire.Query
		rec   lease.Record
		addrs []string
		hosts bool // host routes
		want  string
	}{
		{"renewing in a network of the interface", renew, away, []string{"198.51.100.1/24", "192.0.2.254/24"}, false, frame},
		{"nothing is recorded", renew, lease.Record{}, []string{"192.0.2.254/24"}, false, frame},
		{"renewing past the relay, which is on this wire", renew, relayed, []string{"192.0.2.254/24"}, false, udp},
		{"another had it behind a relay", inform, others, []string{"192.0.2.254/24"}, false, frame},
		{"through a router", renew, away, []string{"198.51.100.1/24"}, false, udp},
		{"unnumbered, with host routes of ours", renew, away, nil, true, frame},
		{"unnumbered, an address of its own alone", renew, away, []string{"192.0.2.81/32", "192.0.2.254/32"}, false, udp},
		{"the same with host routes of ours", renew, away, []string{"192.0.2.254/32"}, true, frame},
		{"a wire of two", renew, away, []string{"192.0.2.80/31"}, false, frame},
		{"past the relay into an interface with host routes", renew, relayed, nil, true, udp},
		{"INFORM", inform, away, []string{"192.0.2.254/24"}, false, frame},
		{"INFORM from the address alone", silent, away, []string{"192.0.2.254/24"}, false, frame},
		{"INFORM through a router", inform, away, []string{"198.51.100.1/24"}, false, udp},
		{"INFORM from the address alone, past the relay", silent, relayed, []string{"192.0.2.254/24"}, false, udp},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := leases()
			if tc.rec.State != 0 {
				tab.Store(tc.rec)
			}
			d := run(t, tc.q, tab, func(r *Request, _ *Options) {
				r.On = &provision.Interface{Name: "eth0"}
				for _, a := range tc.addrs {
					r.On.Addrs = append(r.On.Addrs, netip.MustParsePrefix(a))
				}
				r.HostRoutes = tc.hosts
				r.P.Ingress = line.Ingress{Name: "eth0"}
				r.P.From = netip.AddrPortFrom(host(81), 68)
			})
			assert.Equal(t, wire.Ack, d.Reply.Type, told(d))
			assert.Equal(t, tc.want, d.Way.String(), told(d))
			assert.Equal(t, netip.AddrPortFrom(host(81), 68), d.To)
		})
	}
	d := run(t, wire.Query{Type: wire.Request, MAC: client(0x81), CIAddr: host(81), GIAddr: relayIP}, nil, func(r *Request, _ *Options) {
		r.On = &provision.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.254/24")}}
	})
	assert.Equal(t, "relay", d.Way.String(), "a relay is answered as a relay")
}

// A client that came from behind a relay to a wire of ours, and broadcasts for more time there, hears nobody who answers it by the route
// to the relay. It is answered where it is, and recorded there, or nobody gives it more time.
func TestBroadcastOfWhoLeftItsRelay(t *testing.T) {
	behind := func(r lease.Record) lease.Record {
		r.GIAddr, r.Option82, r.Ifindex, r.Interface = relayIP, port(switch1, 1), 7, "core0"
		return r
	}
	onPort, over := behind(bound(host(11), client(0x11), 1)), behind(expired(host(11), client(0x11), 1))
	onPort.Device, onPort.Port, over.Device, over.Port = 1, 1, 1, 1
	everywhere := behind(bound(host(81), client(0x81), 8))
	pooled := behind(guest(host(201), stranger))
	lined := func(q wire.Query) wire.Query { q.Option82 = []byte{9, 1, 7}; return q }
	extend := func(rec lease.Record) wire.Query { return wire.Query{Type: wire.Request, MAC: rec.MAC, CIAddr: rec.IP} }
	const beside, unnumbered = "198.51.100.254/24", ""
	for _, tc := range []struct {
		name  string
		q     wire.Query
		rec   lease.Record
		on    string
		local netip.Addr
		want  string
		place string // interface of the record
	}{
		{"on a port", extend(onPort), onPort, unnumbered, netip.Addr{}, "mac_elsewhere 192.0.2.11", ""},
		{"on a port, in a network of its address", extend(onPort), onPort, "192.0.2.254/24", netip.Addr{}, "mac_elsewhere 192.0.2.11", ""},
		{"on a port, with the option 82 of a line that nobody knows", lined(extend(onPort)), onPort, unnumbered, netip.Addr{}, "mac_elsewhere 192.0.2.11", ""},
		{"on a port, the lease is over", extend(over), over, unnumbered, netip.Addr{}, "ack 192.0.2.11 by frame to 192.0.2.11:68 fact", "eth0"},
		{"of a pool", extend(pooled), pooled, unnumbered, netip.Addr{}, "mac_elsewhere 192.0.2.201", ""},
		{"found by MAC everywhere", extend(everywhere), everywhere, unnumbered, netip.Addr{}, "ack 192.0.2.81 by frame to 192.0.2.81:68 fact", "eth0"},
		{"found by MAC everywhere, with an option 82", lined(extend(everywhere)), everywhere, unnumbered, netip.Addr{}, "ack 192.0.2.81 by frame to 192.0.2.81:68 fact", "eth0"},
		{"INFORM", wire.Query{Type: wire.Inform, MAC: client(0x81), CIAddr: host(81)}, everywhere, unnumbered, netip.Addr{}, "inform_ack 192.0.2.81 by frame to 192.0.2.81:68", ""},
		{"the relay is on this wire", extend(onPort), onPort, beside, netip.Addr{}, "ack 192.0.2.11 by frame to 192.0.2.11:68 renew", "core0"},
		{"to this server alone: past the relay", extend(onPort), onPort, unnumbered, serverIP, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew", "core0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, tc.q, leases(tc.rec), func(r *Request, o *Options) {
				withGuests(r, o)
				r.P.From, r.Local = netip.AddrPortFrom(tc.rec.IP, 68), tc.local
				r.On, r.HostRoutes = &provision.Interface{Name: "eth0"}, tc.on == unnumbered
				if tc.on != unnumbered {
					r.On.Addrs = []netip.Prefix{netip.MustParsePrefix(tc.on)}
				}
			})
			require.Equal(t, tc.want, told(d))
			require.Equal(t, tc.place, d.Rec.Interface)
			if tc.place != "" {
				assert.Equal(t, tc.place == "core0", d.Rec.GIAddr.IsValid(), "the relay")
				assert.True(t, tc.place == "core0" || len(d.Rec.Option82) == 0 || len(tc.q.Option82) > 0, "the line is that of the relay")
			}
		})
	}
}

// What the kernel has for a lease, a host route or an element of the source guard, has to be there before the ACK leaves, so the
// record is a new fact where that changes.
func TestMoveOfADirectClientIsAFact(t *testing.T) {
	renew := wire.Query{Type: wire.Request, MAC: client(0x81), CIAddr: host(81)}
	reboot := wire.Query{Type: wire.Request, MAC: client(0x81), Options: []wire.Option{requested(host(81))}}
	behind := reboot
	behind.GIAddr = ip("198.51.100.1")
	at := func(name string, change ...func(*lease.Record)) lease.Record {
		r := bound(host(81), client(0x81), 8)
		r.Interface, r.Ifindex = name, 3
		for _, f := range change {
			f(&r)
		}
		return r
	}
	relayed := func(relay string) func(*lease.Record) {
		return func(r *lease.Record) { r.GIAddr, r.Ifindex = ip(relay), 3 }
	}
	over := func(r *lease.Record) { r.Expires = testNow }
	for _, tc := range []struct {
		name string
		q    wire.Query
		rec  lease.Record
		want Change
	}{
		{"at the same interface", reboot, at("eth0"), ChangeRenew},
		{"another number of it, made anew", reboot, at("eth0", func(r *lease.Record) { r.Ifindex = 9 }), ChangeBackground},
		{"another interface", reboot, at("eth1"), ChangeFact},
		{"renewing at another interface", renew, at("eth1"), ChangeFact},
		{"its lease ran out, and its route with it", reboot, at("eth0", over), ChangeFact},
		{"from a relay to a wire of ours", reboot, at("eth0", relayed("198.51.100.1")), ChangeFact},
		{"from a wire of ours to a relay", behind, at("eth0"), ChangeFact},
		{"the same relay", behind, at("eth0", relayed("198.51.100.1")), ChangeRenew},
		{"the same relay, its lease ran out", behind, at("eth0", relayed("198.51.100.1"), over), ChangeRenew},
		{"another relay", behind, at("eth0", relayed("198.51.100.2")), ChangeBackground},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, tc.q, leases(tc.rec))
			require.Equal(t, wire.Ack, d.Reply.Type, told(d))
			assert.Equal(t, tc.want, d.Change, told(d))
		})
	}
}
