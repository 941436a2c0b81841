package v4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
)

func TestRapidCommit(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), Options: []wire.Option{{Code: wire.OptRapidCommit}}}
	on := func(_ *Request, o *Options) { o.RapidCommit = true }
	d := run(t, q, nil, on)
	assert.Equal(t, "ack 192.0.2.11 by frame fact", told(d), "on disk before it leaves, as any ACK")
	assert.True(t, d.Reply.RapidCommit)
	assert.EqualValues(t, 3600, d.Reply.LeaseTime)

	assert.Equal(t, "offer 192.0.2.11 by frame", told(run(t, q, nil)), "off by default")
	q.Options = nil
	d = run(t, q, nil, on)
	assert.Equal(t, "offer 192.0.2.11 by frame", told(d), "only to clients that ask")
	assert.False(t, d.Reply.RapidCommit)
	q.Options, q.MAC = []wire.Option{{Code: wire.OptRapidCommit}}, client(0x99)
	d = run(t, q, nil, on)
	assert.Equal(t, outcome.UnknownClient, d.Outcome)
	assert.False(t, d.Reply.RapidCommit)
}

// Clients that miss unicast replies before they have an address, and do not say so.
func TestAlwaysBroadcast(t *testing.T) {
	subnet := func(_ *Request, o *Options) { o.Subnets[0].AlwaysBroadcast = true }
	class := func(_ *Request, o *Options) {
		o.Classes = []options.Class{{Name: "old", Match: options.ClassMatch{VendorClass: "old*"}, AlwaysBroadcast: true}}
	}
	old := []wire.Option{{Code: wire.OptVendorClass, Value: []byte("old-cpe")}}
	for name, tc := range map[string]struct {
		q      wire.Query
		change func(*Request, *Options)
		want   string
		flag   bool
	}{
		"subnet":          {wire.Query{Type: wire.Discover, MAC: client(0x11)}, subnet, "offer 192.0.2.11 by broadcast", false},
		"class":           {wire.Query{Type: wire.Discover, MAC: client(0x11), Options: old}, class, "offer 192.0.2.11 by broadcast", false},
		"another class":   {wire.Query{Type: wire.Discover, MAC: client(0x11)}, class, "offer 192.0.2.11 by frame", false},
		"through a relay": {wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP}, subnet, "offer 192.0.2.11 by relay to 198.51.100.1:67", true},
		"renewing":        {wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)}, subnet, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := run(t, tc.q, nil, tc.change)
			assert.Equal(t, tc.want, told(d))
			require.Equal(t, tc.flag, d.Reply.Broadcast)
		})
	}
}

// RFC 5107: renewals come through the relay that had itself named as the server.
func TestServerOverride(t *testing.T) {
	via := netip.MustParseAddr("198.51.100.77")
	with := append(port(switch1, 1), 11, 4, 198, 51, 100, 77)
	tab := leases(bound(host(11), client(0x11), 1))
	rec, _ := tab.Get(host(11))
	rec.Option82 = with
	tab.Store(rec)
	renew := wire.Query{Type: wire.Request, MAC: client(0x11), GIAddr: relayIP, CIAddr: host(11), Option82: with}

	d := run(t, renew, tab)
	assert.Equal(t, outcome.Ack, d.Outcome)
	assert.Equal(t, "relay to 198.51.100.1:67", d.Way.String()+" to "+d.To.String())
	assert.Equal(t, via, d.Reply.ServerID, "so that the next renewal comes this way too")

	renew.Options = []wire.Option{chosen(via)}
	assert.Equal(t, outcome.Ack, run(t, renew, tab).Outcome, "with the server identifier that it was told")
	renew.Option82 = port(switch1, 1)
	assert.Equal(t, outcome.Ack, run(t, renew, tab).Outcome, "though the relay does not say so again")
	assert.Equal(t, outcome.NotForUs, run(t, renew, nil).Outcome, "but nobody was told so")
	renew.Options = []wire.Option{chosen(netip.MustParseAddr("198.51.100.78"))}
	assert.Equal(t, outcome.NotForUs, run(t, renew, tab).Outcome)

	release := wire.Query{Type: wire.Release, MAC: client(0x11), CIAddr: host(11), Options: []wire.Option{chosen(via)}}
	assert.Equal(t, outcome.Released, run(t, release, tab).Outcome)

	// A relay that began to override after the client had its lease.
	renew.Option82, renew.Options = with, []wire.Option{chosen(host(250))}
	configured := func(_ *Request, o *Options) { o.ServerID = host(250) }
	assert.Equal(t, outcome.Ack, run(t, renew, tab, configured).Outcome)
}

// RFC 2131 section 4.1, RFC 1542: what TestRoute leaves out.
func TestRouteOfOddPackets(t *testing.T) {
	l2 := wire.Query{Type: wire.Discover, MAC: client(0x11), Option82: port(switch1, 1)}
	assert.Equal(t, "offer 192.0.2.11 by frame", told(run(t, l2, nil)), "a switch that snoops puts in option 82 and no giaddr")
	nak := wire.Query{Type: wire.Request, MAC: client(0x11), Option82: port(switch1, 1), Options: []wire.Option{requested(host(12))}}
	d := run(t, nak, nil)
	assert.Equal(t, "nak_wrong_address 192.0.2.11 by broadcast", told(d))
	var p wire.Packet
	require.NoError(t, p.Parse(nak.Append(nil)))
	back := d.Reply.Append(nil, &p)
	require.NoError(t, p.Parse(back))
	assert.Equal(t, port(switch1, 1), p.RelayInfo(), "a NAK has option 82 too")
	assert.False(t, p.YIAddr().IsValid())

	for name, tc := range map[string]struct {
		q      wire.Query
		mangle func([]byte)
		want   string
	}{
		"flag of a switch's packet": {l2, func(b []byte) { b[10] = 0x80 }, "offer 192.0.2.11 by broadcast"},
		"other flags mean nothing":  {l2, func(b []byte) { b[10], b[11] = 0x7f, 0xff }, "offer 192.0.2.11 by frame"},
		"IEEE 802 hardware":         {l2, func(b []byte) { b[1] = 6 }, "offer 192.0.2.11 by broadcast"},
		"hops mean nothing":         {l2, func(b []byte) { b[3] = 17 }, "offer 192.0.2.11 by frame"},
		"INFORM without ciaddr from its address": {
			wire.Query{Type: wire.Inform, MAC: client(0x11)}, func([]byte) {}, "inform_ack 192.0.2.11 by unicast to 192.0.2.11:68",
		},
		"INFORM without ciaddr through a relay": {wire.Query{Type: wire.Inform, MAC: client(0x11), GIAddr: relayIP}, func([]byte) {}, "request_incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := tc.q.Append(nil)
			tc.mangle(raw)
			r := &Request{Served: true, Local: serverIP, P: line.Packet{From: netip.AddrPortFrom(host(11), 68)}}
			if tc.q.GIAddr.IsValid() {
				r.P.From = netip.AddrPortFrom(tc.q.GIAddr, 67)
			}
			r.P.Read(raw)
			cfg, err := Compile(testOptions())
			require.NoError(t, err)
			assert.Equal(t, tc.want, told(decideAt(testNow, r, world(t), leases(), nil, cfg)))
		})
	}
}
