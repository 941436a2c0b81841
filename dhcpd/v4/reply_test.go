package v4

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// captured makes a packet of the first 44 bytes of its header and of its options, as they were on the wire.
func captured(t testing.TB, header, options string) []byte {
	t.Helper()
	h, err := hex.DecodeString(header)
	require.NoError(t, err)
	require.Len(t, h, 44)
	o, err := hex.DecodeString(options)
	require.NoError(t, err)
	return append(append(append(h, make([]byte, 64+128)...), 99, 130, 83, 99), o...) // sname, file, cookie
}

// heard decides on a packet of the client 02:00:00:00:00:17, which had 198.51.100.17 and to which the ERP, or a pool, gives it. The packet came in on eth0,
// which has the server's address in that network, as a broadcast if it is from nowhere. Another customer has 198.51.100.18 on the same wire.
func heard(t *testing.T, header, options string, from netip.Addr, always, pooled bool) (Decision, *Request) {
	t.Helper()
	mac, has, server := provision.MAC{2, 0, 0, 0, 0, 0x17}, ip("198.51.100.17"), ip("198.51.100.1")
	other, otherMAC := has.Next(), provision.MAC{2, 0, 0, 0, 0, 0x18}
	opts := testOptions()
	opts.RapidCommit, opts.Relays = true, []netip.Prefix{netip.MustParsePrefix("10.200.0.1/32")}
	opts.Subnets = []Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: server, LeaseTime: time.Hour, AlwaysBroadcast: always}}
	in := provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}},
		Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(has), MAC: mac},
			{Subscriber: 2, Addresses: provision.Hosts4(other), MAC: otherMAC}},
	}
	rec := expired(has, mac, 1)
	if pooled {
		g := guests()
		g.Range, g.Links = Range{First: has, Last: ip("198.51.100.20")}, []netip.Prefix{netip.MustParsePrefix("10.200.0.0/24")}
		opts.Unknown, opts.Pools = UnknownGuest, []Pool{g}
		in.Lines[0].Addresses, in.Lines[0].MAC = provision.Hosts4(ip("198.51.100.40")), client(1)
		rec = guest(has, mac)
	}
	snap, problems := provision.Build(in)
	require.Empty(t, problems)
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r := &Request{Served: true, Ifindex: 3, P: line.Packet{From: netip.AddrPortFrom(from, 68), Ingress: line.Ingress{Name: "eth0"}}}
	r.On = &provision.Interface{Index: 3, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(server, 24)}}
	if !from.IsUnspecified() {
		r.Local = server
	}
	r.P.Read(captured(t, header, options))
	tab := leases(rec, bound(other, otherMAC, 2))
	return decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg), r
}

// travel returns what is answered and how the answer travels.
func travel(d *Decision) string {
	s := d.Reply.Type.Label() + " by " + d.Way.String()
	if d.To.IsValid() {
		s += " to " + d.To.String()
	}
	if d.Reply.Broadcast && d.Way == wire.WayRelay {
		s += ", broadcast there"
	}
	return strings.ToLower(s)
}

// checkWay makes sure that an answer goes where its packet came from: to its relay, or onto its wire. To an address it is sent only where the client has it, as
// an ACK of a renewal or of an INFORM; there that is the packet's own ciaddr or, of an INFORM without one, its source.
func checkWay(t testing.TB, d *Decision, r *Request) {
	t.Helper()
	p := &r.P
	switch {
	case d.Way == wire.WayNone:
		require.False(t, d.To.IsValid(), d.Outcome.String())
		return
	case p.GIAddr().IsValid():
		require.Equal(t, wire.WayRelay, d.Way, d.Outcome.String())
		require.Equal(t, p.GIAddr(), d.To.Addr(), d.Outcome.String())
		return
	}
	require.NotEqual(t, wire.WayRelay, d.Way, d.Outcome.String())
	if !d.To.IsValid() {
		require.NotEqual(t, wire.WayUnicast, d.Way, d.Outcome.String())
		require.True(t, d.Way == wire.WayBroadcast || d.Reply.Type != wire.Nak, "a NAK to one alone")
		return
	}
	require.NotEqual(t, wire.WayBroadcast, d.Way, d.Outcome.String())
	require.Equal(t, wire.Ack, d.Reply.Type, d.Outcome.String())
	require.False(t, p.From.Addr().IsUnspecified(), "who is nowhere has no address")
	at := p.CIAddr()
	switch p.Type() {
	case wire.Request:
		require.False(t, p.ServerID().IsValid() && p.Requested().IsValid(), "who takes an offer has no address")
	case wire.Inform:
		if !at.IsValid() {
			at = p.From.Addr()
		}
	default:
		require.Fail(t, "an answer to an address", "%s: %s", p.Type(), d.Outcome)
	}
	require.Equal(t, at, d.To.Addr(), d.Outcome.String())
	require.EqualValues(t, 68, d.To.Port(), d.Outcome.String())
}

// A desktop client that was off for longer than its lease puts the address that it had into ciaddr of whatever it sends, and sends
// from 0.0.0.0: it has no address yet and answers no ARP, and takes frames. Only a client that sends from the address has it.
func TestRepliesAreHeard(t *testing.T) {
	const (
		header  = "010106001758c71eba200000c633641100000000000000000000000002000000001700000000000000000000"
		flagged = "010106001758c71eba208000c633641100000000000000000000000002000000001700000000000000000000"
		ieee802 = "010606001758c71eba200000c633641100000000000000000000000002000000001700000000000000000000"
		relayed = "010106001758c71eba200000c633641100000000000000000ac8000102000000001700000000000000000000"

		discover   = "3501013d07010200000000173204c6336411ff"
		rapid      = "3501013d07010200000000173204c63364115000ff"
		selecting  = "3501033d07010200000000173204c63364113604c6336401ff"
		initReboot = "3501033d07010200000000173204c6336411ff"
		renewing   = "3501033d0701020000000017ff"
		repeating  = "3501033d07010200000000173604c6336401ff" // a renewal that names us, as some clients send it
		inform     = "3501083d0701020000000017ff"
		mistaken   = "3501033d07010200000000173204c6336463ff"
		wrong      = "3501033d07010200000000173204c63364633604c6336401ff" // takes an address that is not its own
	)
	has, none := ip("198.51.100.17"), netip.IPv4Unspecified()
	const atAddress = "frame to 198.51.100.17:68" // a datagram on their own wire, whatever the routing table says
	for _, tc := range []struct {
		name            string
		header, options string
		from            netip.Addr
		always          bool // always_broadcast
		want            string
		echo            bool // ciaddr of the reply is the client's
	}{
		{"DISCOVER", header, discover, none, false, "offer by frame", false},
		{"DISCOVER, broadcast flag", flagged, discover, none, false, "offer by broadcast", false},
		{"DISCOVER, not Ethernet", ieee802, discover, none, false, "offer by broadcast", false},
		{"DISCOVER, always_broadcast", header, discover, none, true, "offer by broadcast", false},
		{"DISCOVER from the old address", header, discover, has, false, "offer by frame", false},
		{"DISCOVER, relayed", relayed, discover, ip("10.200.0.1"), false, "offer by relay to 10.200.0.1:67", false},
		{"DISCOVER, relayed, always_broadcast", relayed, discover, ip("10.200.0.1"), true, "offer by relay to 10.200.0.1:67, broadcast there", false},
		{"DISCOVER, rapid commit", header, rapid, none, false, "ack by frame", false},
		{"SELECTING", header, selecting, none, false, "ack by frame", false},
		{"SELECTING, broadcast flag", flagged, selecting, none, false, "ack by broadcast", false},
		{"SELECTING, always_broadcast", header, selecting, none, true, "ack by broadcast", false},
		{"SELECTING, relayed, always_broadcast", relayed, selecting, ip("10.200.0.1"), true, "ack by relay to 10.200.0.1:67, broadcast there", false},
		{"SELECTING, wrong address", header, wrong, none, false, "nak by broadcast", false},
		{"INIT-REBOOT", header, initReboot, none, false, "ack by frame", false},
		{"INIT-REBOOT, broadcast flag", flagged, initReboot, none, false, "ack by broadcast", false},
		{"INIT-REBOOT, wrong address", header, mistaken, none, false, "nak by broadcast", false},
		{"RENEWING, with the address as a wish, too", header, initReboot, has, false, "ack by " + atAddress, true},
		{"RENEWING", header, renewing, has, false, "ack by " + atAddress, true},
		{"RENEWING, broadcast flag", flagged, renewing, has, false, "ack by " + atAddress, true},
		{"RENEWING, always_broadcast", header, renewing, has, true, "ack by " + atAddress, true},
		{"RENEWING, with our identifier", header, repeating, has, false, "ack by " + atAddress, true},
		{"RENEWING, relayed, always_broadcast", relayed, renewing, ip("10.200.0.1"), true, "ack by relay to 10.200.0.1:67", true},
		{"REBINDING from no address", header, renewing, none, false, "ack by frame", true},
		{"REBINDING from no address, with our identifier", header, repeating, none, false, "ack by frame", true},
		{"INFORM", header, inform, has, false, "ack by " + atAddress, true},
		{"INFORM from another address of the client", header, inform, ip("198.51.100.18"), false, "ack by " + atAddress, true},
		{"INFORM from no address", header, inform, none, false, "ack by frame", true},
		{"INFORM, relayed", relayed, inform, ip("10.200.0.1"), false, "ack by relay to 10.200.0.1:67, broadcast there", true}, // yiaddr is zero
		{"INFORM from no address, broadcast flag", flagged, inform, none, false, "ack by broadcast", true},
	} {
		for _, pooled := range []bool{false, true} {
			name := tc.name + ", bound"
			if pooled && tc.options == mistaken {
				continue // without a record of that address it is not answered
			}
			if pooled {
				name = tc.name + ", of a pool"
			}
			t.Run(name, func(t *testing.T) {
				d, r := heard(t, tc.header, tc.options, tc.from, tc.always, pooled)
				got := travel(&d)
				assert.Equal(t, tc.want, got, d.Outcome.String())
				var p wire.Packet
				require.NoError(t, p.Parse(d.AppendReply(nil, &r.P.Packet)))
				want := netip.Addr{}
				if tc.echo {
					want = has
				}
				assert.Equal(t, want, p.CIAddr(), "ciaddr")
				if d.Way == wire.WayFrame {
					assert.Equal(t, has, d.YourIP, "whom the frame is for")
				}
			})
		}
	}
}

// Nor does ciaddr say where an answer goes if it is another client's, or of a network that is not served here, whatever the wire and the source of the packet are: only a renewal, which is
// answered by an ACK for its own address, is sent there.
func TestStrangeAddressIsNoWay(t *testing.T) {
	const (
		discover  = "3501013d07010200000000173204c6336411ff"
		rapid     = "3501013d07010200000000173204c63364115000ff"
		selecting = "3501033d07010200000000173204c63364113604c6336401ff"
		wrong     = "3501033d07010200000000173204c63364633604c6336401ff"
		reboot    = "3501033d07010200000000173204c6336411ff"
		renewing  = "3501033d0701020000000017ff"
		relay     = "10.200.0.1"
		atRelay   = "relay to 10.200.0.1:67"
		there     = ", broadcast there"
	)
	direct := [...]string{"frame", "broadcast", "frame"}
	for name, c := range map[string]struct{ ciaddr, from string }{
		"its own":             {"c6336411", "198.51.100.17"},
		"another client's":    {"c6336412", "198.51.100.18"},
		"of the server":       {"c6336401", "198.51.100.1"},
		"of nobody here":      {"c6336463", "198.51.100.99"},
		"of no network here":  {"cb007109", "203.0.113.9"},
		"of the relay's wire": {"0ac80009", "10.200.0.9"},
	} {
		for i, way := range []struct{ flags, giaddr, from string }{
			{"0000", "00000000", "0.0.0.0"}, {"8000", "00000000", "0.0.0.0"}, {"0000", "00000000", c.from}, {"0000", "0ac80001", relay}, {"8000", "0ac80001", relay},
		} {
			relayed := way.giaddr != "00000000"
			by, nak := atRelay, atRelay+there
			if !relayed {
				by, nak = direct[i], "broadcast"
			}
			// A REQUEST with ciaddr that is not from nowhere renews that address, whatever else it names.
			renews, naks := !(!relayed && way.from == "0.0.0.0"), "nak by "+nak
			rebooted := "ack by " + by
			switch {
			case renews && name != "its own":
				rebooted = naks
			case renews && !relayed:
				rebooted = "ack by frame to 198.51.100.17:68"
			}
			renewed := naks
			if name == "its own" {
				renewed = rebooted
			}
			for _, msg := range []struct{ name, options, want string }{
				{"DISCOVER", discover, "offer by " + by},
				{"DISCOVER, rapid commit", rapid, "ack by " + by},
				{"SELECTING", selecting, "ack by " + by},
				{"SELECTING, wrong address", wrong, naks},
				{"INIT-REBOOT", reboot, rebooted},
				{"RENEWING", renewing, renewed},
			} {
				for _, pooled := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %s, flags %s, giaddr %s, from %s, pool %t", msg.name, name, way.flags, way.giaddr, way.from, pooled), func(t *testing.T) {
						d, r := heard(t, "010106001758c71eba20"+way.flags+c.ciaddr+"0000000000000000"+way.giaddr+"02000000001700000000000000000000", msg.options, ip(way.from), false, pooled)
						if msg.want == naks && (msg.options == reboot || msg.options == renewing || pooled) && !d.Outcome.Answered() {
							return // whose address nobody knows is not refused
						}
						assert.Equal(t, msg.want, travel(&d), d.Outcome.String())
						checkWay(t, &d, r)
					})
				}
			}
		}
	}
}

// What follows from ciaddr does so only for a client that has the address: who takes an offer is where its packet came in,
// whatever address it had elsewhere.
func TestOldAddressIsNoPlace(t *testing.T) {
	old := func(rec lease.Record) lease.Record { // given through a relay
		rec.GIAddr, rec.Ifindex, rec.Interface = relayIP, 7, "uplink"
		rec.Expires = testNow.Add(-time.Hour)
		return rec
	}
	for name, tc := range map[string]struct {
		q   wire.Query
		rec lease.Record
	}{
		"bound":  {wire.Query{Type: wire.Request, MAC: client(0x81), CIAddr: host(81), Options: []wire.Option{chosen(serverIP), requested(host(81))}}, bound(host(81), client(0x81), 8)},
		"a pool": {wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), Options: []wire.Option{chosen(serverIP), requested(host(201))}}, guest(host(201), stranger)},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, tc.q, leases(old(tc.rec)), withGuests)
			require.Equal(t, wire.Ack, d.Reply.Type, d.Outcome.String())
			assert.False(t, d.Rec.GIAddr.IsValid())
			assert.Equal(t, "eth0", d.Rec.Interface)
			renewal := tc.q
			renewal.Options = nil
			d = run(t, renewal, leases(old(tc.rec)), withGuests)
			require.Equal(t, wire.Ack, d.Reply.Type, d.Outcome.String())
			assert.Equal(t, relayIP, d.Rec.GIAddr, "a renewal past the relay says nothing of it")
		})
	}
}
