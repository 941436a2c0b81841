package v4

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// One of each reply, to bound clients and to those of pools, field by field as table 3
// of RFC 2131 wants it, for a request that fills every field that it may.
func TestRepliesByTable3(t *testing.T) {
	const any, no, must = 0, 1, 2
	id := wire.Option{Code: wire.OptClientID, Value: []byte("\x00one")}
	list := wire.Option{Code: wire.OptParameterList, Value: []byte{1, 3, 6, 15, 50, 52, 54, 55, 57, 60, 61}}
	more := []wire.Option{id, list, {Code: wire.OptMaxMessageSize, Value: []byte{5, 0xdc}}, {Code: wire.OptVendorClass, Value: []byte("box")}}
	for _, tc := range []struct {
		name         string
		q            wire.Query
		renews       bool
		want         dhcpv4.MessageType
		ciaddr, yi   bool
		lease, texts int
	}{
		{"OFFER", wire.Query{Type: wire.Discover}, false, dhcpv4.MessageTypeOffer, false, true, must, no},
		{"ACK of a selection", wire.Query{Type: wire.Request, Options: []wire.Option{chosen(serverIP)}}, false, dhcpv4.MessageTypeAck, false, true, must, no},
		{"ACK of a renewal", wire.Query{Type: wire.Request}, true, dhcpv4.MessageTypeAck, true, true, must, no},
		{"NAK", wire.Query{Type: wire.Request, Options: []wire.Option{chosen(serverIP)}}, false, dhcpv4.MessageTypeNak, false, false, no, must},
		{"ACK of INFORM", wire.Query{Type: wire.Inform}, true, dhcpv4.MessageTypeAck, true, false, no, no},
	} {
		for _, pooled := range []bool{false, true} {
			name, mac, at, opt82 := tc.name+", bound", client(0x11), host(11), port(switch1, 1)
			tab := leases(bound(at, mac, 1))
			if pooled {
				name, mac, at, opt82 = tc.name+", of a pool", stranger, host(201), port(switch1, 40)
				tab = leases(guest(at, mac))
			}
			t.Run(name, func(t *testing.T) {
				q := tc.q
				q.MAC, q.GIAddr, q.Option82, q.XID = mac, relayIP, opt82, 0x12345678
				q.Options = append(append([]wire.Option(nil), tc.q.Options...), more...)
				switch {
				case tc.renews:
					q.CIAddr = at
				case tc.want == dhcpv4.MessageTypeNak:
					q.Options = append(q.Options, requested(host(99)))
				default:
					q.Options = append(q.Options, requested(at))
				}
				raw := q.Append(nil)
				raw[3], raw[9], raw[11] = 3, 7, 1 // hops, secs, and a flag that nobody has defined
				r := &Request{Served: true, Local: serverIP, Ifindex: 3, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
				r.P.Read(raw)
				opts := testOptions()
				withGuests(nil, &opts)
				cfg, err := Compile(opts)
				require.NoError(t, err)
				snap := world(t)
				d := decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg)
				out := d.AppendReply(nil, &r.P.Packet)
				lib, err := dhcpv4.FromBytes(out)
				require.NoError(t, err)

				assert.Equal(t, tc.want, lib.MessageType())
				assert.Equal(t, dhcpv4.OpcodeBootReply, lib.OpCode)
				assert.Equal(t, []byte{1, 6, 0}, out[1:4], "htype, hlen, hops")
				assert.Equal(t, raw[4:8], out[4:8], "xid")
				assert.Equal(t, []byte{0, 0}, out[8:10], "secs")
				assert.EqualValues(t, 1, out[11], "flags")
				assert.Equal(t, tc.want == dhcpv4.MessageTypeNak || tc.q.Type == wire.Inform, lib.IsBroadcast(), "a relay is to broadcast a NAK, and what has no yiaddr")
				assert.Equal(t, raw[24:44], out[24:44], "giaddr, chaddr")
				addr := func(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
				zero := netip.IPv4Unspecified()
				want := map[bool]netip.Addr{true: at, false: zero}
				assert.Equal(t, want[tc.ciaddr], addr(out[12:16]), "ciaddr")
				assert.Equal(t, want[tc.yi], addr(out[16:20]), "yiaddr")
				assert.Equal(t, zero, addr(out[20:24]), "siaddr")
				assert.Equal(t, make([]byte, 192), out[44:236], "sname, file")

				rules := map[uint8]int{50: no, 51: tc.lease, 52: no, 53: must, 54: must, 55: no, 56: tc.texts, 57: no, 58: tc.lease, 59: tc.lease, 60: no, 61: must, 82: must}
				if tc.want == dhcpv4.MessageTypeNak {
					rules[1], rules[3], rules[6], rules[15] = no, no, no, no
				} else {
					rules[1], rules[3], rules[6], rules[15] = must, must, must, any
				}
				for code, rule := range rules {
					if rule != any {
						assert.Equal(t, rule == must, lib.Options.Has(dhcpv4.GenericOptionCode(code)), "option %d", code)
					}
				}
				assert.Equal(t, serverIP.String(), lib.ServerIdentifier().String())
			})
		}
	}
}

// Link selection says on which wire a client is, and stands above the relay's address (RFC 3527).
func TestLinkSelectionChoosesThePool(t *testing.T) {
	links := func(a string) []byte {
		four := ip(a).As4()
		return append(append(port(switch1, 40), wire.SubLinkSelection, 4), four[:]...)
	}
	far := func(_ *Request, o *Options) { o.Relays, o.Pools[0].Links = nil, nil }
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("203.0.113.9")}
	for _, tc := range []struct {
		name, giaddr, link string
		want               outcome.Outcome
	}{
		{"the relay is elsewhere", "203.0.113.9", "", outcome.NoPool},
		{"the relay is elsewhere, the link is ours", "203.0.113.9", "192.0.2.1", outcome.PoolOffer},
		{"the relay is on our wire", "192.0.2.9", "", outcome.PoolOffer},
		{"the relay is on our wire, the link is not", "192.0.2.9", "203.0.113.1", outcome.NoPool},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q.GIAddr, q.Option82 = ip(tc.giaddr), port(switch1, 40)
			if tc.link != "" {
				q.Option82 = links(tc.link)
			}
			d := run(t, q, nil, withGuests, far)
			assert.Equal(t, tc.want, d.Outcome)
			if tc.want == outcome.PoolOffer {
				assert.Equal(t, tc.giaddr, d.To.Addr().String(), "the answer goes to the relay all the same")
			}
		})
	}
}
