package v4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

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
