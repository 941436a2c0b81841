package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// with50 is the ERP's data after it learnt of a customer on a line.
func with50(t testing.TB, l provision.Line, more ...provision.Device) *provision.Snapshot {
	t.Helper()
	l.Subscriber = 50
	in := provision.Input{KeepVacant: true, Devices: append(world(t).Devices(), more...), Lines: []provision.Line{l}}
	snap, _ := provision.Build(in)
	return snap
}

// A guest that renews past its relay leaves when the ERP knows its port by now, however option 82 names that.
func TestGuestPastTheRelayMovesWhenTheERPLearnsIt(t *testing.T) {
	switch3 := provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf3}
	a50 := provision.Hosts4(host(50))
	device3 := provision.Device{ID: 3, Name: "sw3", MAC: switch3}
	renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201)}
	withFlats := func(r *Request, o *Options) {
		withGuests(r, o)
		o.Pools = append(o.Pools, flats())
	}
	byMAC := func(r *Request, o *Options) {
		withGuests(r, o)
		o.Match = []MatchKind{MatchMAC}
	}
	for _, tc := range []struct {
		name   string
		device provision.DeviceID // that the record has
		port   uint32
		opt82  []byte
		snap   *provision.Snapshot
		change func(*Request, *Options)
		want   string
	}{
		{"a port by number", 2, 9, port(switch2, 9), with50(t, provision.Line{Addresses: a50, Device: 2, Port: 9}), withGuests, "nak_not_bound"},
		{"by name", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Addresses: a50, Device: 2, PortName: "ge-0/0/9"}), withGuests, "nak_not_bound"},
		{"by name, without an address", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Device: 2, PortName: "ge-0/0/9"}), withFlats, "nak_not_bound"},
		{"the same, and no pool has one", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Device: 2, PortName: "ge-0/0/9"}), withGuests, "pool_ack"},
		{"a switch that it did not have", 0, 0, port(switch3, 9), with50(t, provision.Line{Addresses: a50, Device: 3, Port: 9}, device3), withGuests, "nak_not_bound"},
		{"with the very address", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Addresses: provision.Hosts4(host(201)), Device: 2, PortName: "ge-0/0/9"}), withGuests, "ack"},
		{"another name", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Addresses: a50, Device: 2, PortName: "ge-0/0/8"}), withGuests, "pool_ack"},
		{"another number", 2, 9, port(switch2, 9), with50(t, provision.Line{Addresses: a50, Device: 2, Port: 8}), withGuests, "pool_ack"},
		{"the name on another switch", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Addresses: a50, Device: 1, PortName: "ge-0/0/9"}), withGuests, "pool_ack"},
		{"ports tell nothing", 2, 0, named("ge-0/0/9", switch2[:]...), with50(t, provision.Line{Addresses: a50, Device: 2, PortName: "ge-0/0/9"}), byMAC, "pool_ack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := leases(with(guest(host(201), stranger), func(r *lease.Record) {
				r.Device, r.Port, r.GIAddr, r.Option82, r.Ifindex, r.Interface = tc.device, tc.port, relayIP, tc.opt82, 3, "eth0"
			}))
			assert.Equal(t, tc.want, decideWith(t, tc.snap, renew, tab, tc.change).Outcome.String())
		})
	}
}

// A guest renews each minute, so what its option 82 says is read again without an allocation.
func TestGuestPastTheRelayAllocatesNothing(t *testing.T) {
	opts := testOptions()
	withGuests(nil, &opts)
	cfg, err := Compile(opts)
	require.NoError(t, err)
	snap := world(t)
	tab := leases(with(guest(host(201), stranger), func(r *lease.Record) {
		r.Device, r.GIAddr, r.Option82, r.Ifindex, r.Interface = 2, relayIP, named("ge-0/0/9", switch2[:]...), 3, "eth0"
	}))
	pools := fill(t, cfg, snap, tab)
	r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
	q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201)}
	raw := q.Append(nil)
	var d Decision
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		r.P.Read(raw)
		decideInto(&d, testNow, r, snap, tab, pools, cfg)
	}))
	require.Equal(t, "pool_ack", d.Outcome.String())
}

// Another customer moves in on a port, and the ERP gives that one the address: a port by its name is the same port as well as one by its number.
func TestPortByNameChangesHands(t *testing.T) {
	old, next := client(0x72), client(0x73)
	type place struct {
		line  provision.Line
		opt82 []byte
		port  uint32 // of records
	}
	numbered := place{provision.Line{Device: 2, Port: 5}, port(switch2, 5), 5}
	byName := place{provision.Line{Device: 2, PortName: "ge-0/0/5"}, named("ge-0/0/5", switch2[:]...), 0}
	none := func(*lease.Record) {}
	elsewhere := func(r *lease.Record) { r.Port, r.Option82 = 6, named("ge-0/0/6", switch2[:]...) }
	both := order(MatchOption82 | MatchMAC)
	for _, tc := range []struct {
		name    string
		q       wire.Query
		relayed bool
		mac     provision.MAC // that the ERP has
		rec     func(*lease.Record)
		change  func(*Options)
		want    string
	}{
		{"the new router", wire.Query{Type: wire.Discover, MAC: next}, true, provision.MAC{}, none, nil, "offer"},
		{"and with its MAC", wire.Query{Type: wire.Discover, MAC: next}, true, next, none, both, "offer"},
		{"selects", wire.Query{Type: wire.Request, MAC: next, Options: []wire.Option{requested(host(72)), chosen(serverIP)}}, true, provision.MAC{}, none, nil, "ack"},
		{"the lease is of another port", wire.Query{Type: wire.Discover, MAC: next}, true, provision.MAC{}, elsewhere, nil, "holder_live"},
		{"the old one took it a minute ago", wire.Query{Type: wire.Discover, MAC: next}, true, provision.MAC{}, func(r *lease.Record) {
			r.Prior, r.Start, r.Expires = client(0x79), testNow.Add(-time.Minute), testNow.Add(time.Hour)
		}, nil, "takeover_damped"},
		{"the old router stays", wire.Query{Type: wire.Request, MAC: old, CIAddr: host(72)}, true, provision.MAC{}, none, nil, "ack"},
		{"also past the relay", wire.Query{Type: wire.Request, MAC: old, CIAddr: host(72)}, false, provision.MAC{}, none, nil, "ack"},
		{"unless its MAC is asked, too", wire.Query{Type: wire.Request, MAC: old, CIAddr: host(72)}, false, next, none, both, "a NAK"},
		{"or boots, and its option 82 is not believed", wire.Query{Type: wire.Request, MAC: old, Options: []wire.Option{requested(host(72))}}, false, provision.MAC{}, none, nil, "ack"},
	} {
		for kind, at := range map[string]place{"number": numbered, "name": byName} {
			t.Run(tc.name+"/"+kind, func(t *testing.T) {
				l := at.line
				l.Subscriber, l.Addresses, l.MAC = 50, provision.Hosts4(host(72)), tc.mac
				snap, _ := provision.Build(provision.Input{
					Source: provision.SourceDirect, FetchedAt: testNow.Add(-time.Second), Devices: world(t).Devices(), Lines: []provision.Line{l},
				})
				rec := bound(host(72), old, 7)
				rec.Device, rec.Port, rec.Option82, rec.GIAddr, rec.Ifindex, rec.Interface = 2, at.port, at.opt82, relayIP, 3, "eth0"
				rec.ERP.Direct = lease.ERPMAC{MAC: old, At: rec.Start.UnixNano()}
				q := tc.q
				if tc.relayed {
					q.GIAddr, q.Option82 = relayIP, at.opt82
				}
				d := decideWith(t, snap, q, leases(with(rec, tc.rec)), func(r *Request, o *Options) {
					if !tc.relayed && q.CIAddr.IsValid() {
						r.P.From = netip.AddrPortFrom(q.CIAddr, 68)
					}
					if tc.change != nil {
						tc.change(o)
					}
				})
				if tc.want == "a NAK" { // that says more where the record has the number
					require.Equal(t, wire.Nak, d.Reply.Type)
					return
				}
				assert.Equal(t, tc.want, d.Outcome.String())
			})
		}
	}
}

// An address of a pool that the ERP has bound to somebody else since takes no share of its former client's port.
func TestBoundAddressIsNoShareOfAPort(t *testing.T) {
	for name, lines := range map[string][]provision.Line{
		"the ERP binds nothing": nil,
		"it binds the address":  {{Subscriber: 51, Addresses: provision.Hosts4(host(210)), MAC: client(0x51)}},
	} {
		t.Run(name, func(t *testing.T) {
			snap := vacants(t, lines...)
			rec := bound(host(210), stranger, 20)
			rec.Pool, rec.Key, rec.GIAddr, rec.Option82 = "flats", keyOf(snap, 20), relayIP, port(switch1, 20)
			rec.Device, rec.Port = 1, 20
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 20)}
			d := decideWith(t, snap, q, leases(rec), func(_ *Request, o *Options) { o.Pools, o.MaxPortMACs = []Pool{flats()}, 1 })
			assert.Equal(t, "pool_offer", d.Outcome.String())
			assert.Equal(t, lines == nil, d.YourIP == host(210))
		})
	}
}

// A VLAN that the next customer has is the same line as well.
func TestVLANChangesHands(t *testing.T) {
	for on, want := range map[string]string{"vlan200": "offer", "vlan201": "holder_live"} {
		rec := bound(host(21), client(0x72), 60)
		rec.Ifindex, rec.Interface = 3, on
		d := decideIn(t, "vlan200", wire.Query{Type: wire.Discover, MAC: stranger}, leases(rec), nil)
		assert.Equal(t, want, d.Outcome.String(), on)
	}
}
