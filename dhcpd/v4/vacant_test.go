package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// vacants has customers without an address, beside those of world.
func vacants(t testing.TB, more ...provision.Line) *provision.Snapshot {
	t.Helper()
	in := provision.Input{
		KeepVacant: true,
		Devices:    world(t).Devices(),
		Lines: append([]provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), Device: 1, Port: 1},
			{Subscriber: 20, Device: 1, Port: 20},                                               // a port
			{Subscriber: 21, Device: 1, Port: 21, MAC: client(0xa1)},                            // a port with two MACs
			{Subscriber: 21, Device: 1, Port: 21, MAC: client(0xa2)},                            //
			{Subscriber: 22, Device: 2, PortName: "ge-0/0/9"},                                   // a port by name
			{Subscriber: 23, MAC: client(0xa3)},                                                 // a MAC
			{Subscriber: 24, VLAN: 104},                                                         // a VLAN
			{Subscriber: 25, Device: 1, Port: 25, MAC: client(0xa5)},                            // two customers on a port
			{Subscriber: 26, Device: 1, Port: 25},                                               //
			{Subscriber: 27, Device: 1, Port: 27, MAC: client(0xa7)},                            // a port with a MAC
			{Subscriber: 28, Device: 1, Port: 1, MAC: client(0xa8)},                             // on the port of subscriber 1
			{Subscriber: 29, Addresses: provision.Hosts4(host(29)), Device: 1, Port: 29},        // an address here
			{Subscriber: 29, Device: 1, Port: 30, MAC: client(0xa9)},                            // and none there
			{Subscriber: 31, Addresses: provision.Hosts4(host(31)), MAC: client(0xb1), VLAN: 9}, // bound
		}, more...),
	}
	snap, _ := provision.Build(in)
	return snap
}

func flats() Pool {
	return Pool{
		Name: "flats", Kind: PoolSubscribers, Range: Range{First: host(210), Last: host(213)}, LeaseTime: 10 * time.Minute,
		Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
	}
}

// keyOf returns what pools know the only vacant line by, or of that with the MAC.
func keyOf(s *provision.Snapshot, id provision.SubscriberID, mac ...provision.MAC) provision.Owner {
	for l := range s.BySubscriber(id).All() {
		if l.Vacant() && (len(mac) == 0 || l.MAC == mac[0]) {
			return l.Owner
		}
	}
	panic("no such line")
}

func TestVacantDecisions(t *testing.T) {
	snap := vacants(t)
	at := func(typ wire.MessageType, mac provision.MAC, n byte, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: mac, GIAddr: relayIP, Option82: port(switch1, n), Options: more}
	}
	direct := func(typ wire.MessageType, mac provision.MAC, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: mac, Options: more}
	}
	renewing := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, CIAddr: a}
	}
	onPort := func(r lease.Record, n byte) lease.Record { r.Option82 = port(switch1, n); return r }
	took := func(a netip.Addr, mac provision.MAC, id provision.SubscriberID, of ...provision.MAC) lease.Record {
		r := bound(a, mac, id)
		r.Pool, r.Key, r.GIAddr = "flats", keyOf(snap, id, of...), relayIP
		l := snap.ByOwner(id, r.Key)
		r.Device, r.Port = l.Device, l.Port
		return r
	}
	over := func(r lease.Record) lease.Record { r.Expires = testNow.Add(-time.Hour); return r }
	const discover, ask = wire.Discover, wire.Request
	other := client(0x77)
	type change = func(*Request, *Options)
	vlan := func(n uint16) change {
		return func(r *Request, o *Options) { r.P.Ingress.VLAN, o.Match = n, []MatchKind{MatchVLAN, MatchMAC} }
	}
	limit := func(n int) change { return func(_ *Request, o *Options) { o.MaxPortMACs = n } }
	policy := func(m MACChange) change { return func(_ *Request, o *Options) { o.MACChange = m } }
	elsewhere := func(r *Request, o *Options) { r.Local = ip("203.0.113.1"); o.Pools[0].Links = nil }
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		want   string // outcome, address, subscriber, change
		sub    provision.SubscriberID
		change change
	}{
		{"a port", at(discover, stranger, 20), nil, "pool_offer hold", 20, nil},
		{"a port by name", wire.Query{Type: discover, MAC: stranger, GIAddr: relayIP, Option82: named("ge-0/0/9", switch2[:]...)}, nil, "pool_offer hold", 22, nil},
		{"a MAC", direct(discover, client(0xa3)), nil, "pool_offer hold", 23, nil},
		{"a MAC behind a port that nobody knows", at(discover, client(0xa3), 99), nil, "pool_offer hold", 23, nil},
		{"the port goes before the MAC", at(discover, client(0xa3), 20), nil, "pool_offer hold", 20, nil},
		{"a bound MAC on the port of a vacant line", at(discover, client(0xb1), 20), nil, "pool_offer hold", 20, nil},
		{"a VLAN", direct(discover, stranger), nil, "pool_offer hold", 24, vlan(104)},
		{"not a way that is off", direct(discover, client(0xa3)), nil, "unknown_client", 0, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82} }},
		{"port and MAC must agree", at(discover, stranger, 27), nil, "unknown_client", 0, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC} }},
		{"port and MAC agree", at(discover, client(0xa7), 27), nil, "pool_offer hold", 27, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC} }},
		{"the binding of a port wins", at(discover, stranger, 1), nil, "offer 192.0.2.11", 1, nil},
		{"unless the ERP has the MAC for the other one", at(discover, client(0xa8), 1), nil, "pool_offer hold", 28, nil},
		{"two customers on a port: by the MAC", at(discover, client(0xa5), 25), nil, "pool_offer hold", 25, nil},
		{"two customers on a port: nobody knows", at(discover, stranger, 25), nil, "subscriber_unclear", 0, nil},
		{"a second port of who has an address", at(discover, client(0xa9), 30), nil, "pool_offer hold", 29, nil},
		{"another wire", at(discover, stranger, 20), nil, "no_pool", 20, elsewhere},
		{"a bound customer gets its own", at(discover, client(0x11), 1, requested(host(210))), nil, "offer 192.0.2.11", 1, nil},

		{"the same address again", at(discover, stranger, 20), leases(over(took(host(212), stranger, 20))), "pool_offer 192.0.2.212 hold", 20, nil},
		{"also for the next router", at(discover, other, 20), leases(over(took(host(212), stranger, 20))), "pool_offer 192.0.2.212 hold", 20, nil},
		{"also while the last one's lease lives", at(discover, other, 20), leases(took(host(212), stranger, 20)), "pool_offer 192.0.2.212 hold", 20, nil},
		{"to who has the ERP's MAC, of one who was not found on the line", direct(discover, client(0xa7)), leases(took(host(212), stranger, 27)), "pool_offer 192.0.2.212 hold", 27, nil},
		{"not by the MAC alone", direct(discover, client(0xa7)), leases(onPort(took(host(212), stranger, 27), 27)), "port_full", 0, nil},
		{"nor as a guest", at(discover, client(0xa7), 99), leases(onPort(took(host(212), stranger, 27), 27)), "port_full", 0, withGuestsToo},
		{"by the MAC alone when the lease is over", direct(discover, client(0xa7)), leases(over(onPort(took(host(212), stranger, 27), 27))), "pool_offer 192.0.2.212 hold", 27, nil},
		{"by the MAC on the port", at(discover, client(0xa7), 27), leases(onPort(took(host(212), stranger, 27), 27)), "pool_offer 192.0.2.212 hold", 27, nil},
		{"two MACs, two addresses", at(discover, client(0xa2), 21), leases(took(host(212), client(0xa1), 21, client(0xa1))), "pool_offer hold", 21, nil},
		{"two MACs, and a third one in the place that is free", at(discover, other, 21), leases(took(host(212), client(0xa1), 21, client(0xa1))), "pool_offer hold", 21, nil},
		{"two MACs, and no place is free", at(discover, other, 21), leases(took(host(212), client(0xa1), 21, client(0xa1)), took(host(213), client(0xa2), 21, client(0xa2))), "port_full", 0, nil},
		{"two MACs, and who has them got both addresses elsewhere", at(discover, other, 21), leases(onPort(took(host(212), client(0xa1), 21, client(0xa1)), 99), onPort(took(host(213), client(0xa2), 21, client(0xa2)), 99)), "pool_offer hold", 21, nil},
		{"nor do those count", at(discover, client(0xa2), 21), leases(onPort(took(host(212), client(0xa1), 21, client(0xa1)), 99)), "pool_offer hold", 21, limit(1)},
		{"as many as may be", at(discover, client(0xa2), 21), leases(took(host(212), client(0xa1), 21, client(0xa1))), "port_mac_limit", 21, limit(1)},
		{"a new router makes room", at(discover, other, 20), leases(took(host(212), stranger, 20)), "pool_offer 192.0.2.212 hold", 20, limit(1)},
		{"exhausted", at(discover, stranger, 20), leases(took(host(210), client(0xa1), 21, client(0xa1)), took(host(211), client(0xa2), 21, client(0xa2)), took(host(212), client(0xa3), 23), took(host(213), client(0xa5), 25)), "pool_exhausted", 20, nil},
		{"another MAC, refuse", at(discover, stranger, 27), nil, "mac_refused", 0, policy(MACRefuse)},
		{"another MAC, report: nothing to report by", at(discover, stranger, 27), nil, "mac_refused", 0, policy(MACReport)},
		{"no MAC, refuse", at(discover, stranger, 20), nil, "pool_offer hold", 20, policy(MACRefuse)},
		{"its MAC, refuse", at(discover, client(0xa7), 27), nil, "pool_offer hold", 27, policy(MACRefuse)},

		{"selecting", at(ask, stranger, 20, chosen(serverIP), requested(host(211))), nil, "pool_ack 192.0.2.211 pool", 20, nil},
		{"selecting takes over", at(ask, other, 20, chosen(serverIP), requested(host(211))), leases(took(host(211), stranger, 20)), "pool_ack 192.0.2.211 pool", 20, nil},
		{"selecting another's", at(ask, stranger, 20, chosen(serverIP), requested(host(211))), leases(took(host(211), client(0xa3), 23)), "nak_other_client", 20, nil},
		{"selecting a second one", at(ask, stranger, 20, chosen(serverIP), requested(host(211))), leases(took(host(212), stranger, 20)), "nak_wrong_address 192.0.2.212", 20, nil},
		{"selecting what it had before", at(ask, stranger, 20, chosen(serverIP), requested(host(211))), leases(over(took(host(212), stranger, 20))), "pool_ack 192.0.2.211 pool", 20, nil},
		{"a clone of the MAC gets its own", at(discover, stranger, 20), leases(took(host(212), stranger, 27)), "pool_offer hold", 20, nil},
		{"and not the other one's", at(ask, stranger, 20, chosen(serverIP), requested(host(212))), leases(took(host(212), stranger, 27)), "nak_other_client", 20, nil},
		{"init-reboot", at(ask, stranger, 20, requested(host(211))), leases(took(host(211), stranger, 20)), "pool_ack 192.0.2.211 pool", 20, nil},
		{"init-reboot on another port", at(ask, stranger, 27, requested(host(211))), leases(took(host(211), stranger, 20)), "nak_other_client", 27, nil},

		{"renewing past the relay", renewing(stranger, host(211)), leases(took(host(211), stranger, 20)), "pool_ack 192.0.2.211 pool-renew", 20, elsewhere},
		{"rebinding", wire.Query{Type: ask, MAC: stranger, CIAddr: host(211), GIAddr: relayIP, Option82: port(switch1, 20)}, leases(took(host(211), stranger, 20)), "pool_ack 192.0.2.211 pool", 20, nil},
		{"rebinding on another port", wire.Query{Type: ask, MAC: stranger, CIAddr: host(211), GIAddr: relayIP, Option82: port(switch1, 27)}, leases(took(host(211), stranger, 20)), "nak_other_client", 27, nil},
		{"rebinding on the port of a binding", wire.Query{Type: ask, MAC: stranger, CIAddr: host(211), GIAddr: relayIP, Option82: port(switch1, 1)}, leases(took(host(211), stranger, 20)), "nak_wrong_address 192.0.2.11", 1, nil},
		{"renewing what a new router has", renewing(stranger, host(211)), leases(took(host(211), other, 20)), "nak_other_client", 0, nil},
		{"renewing when the customer is gone", renewing(stranger, host(211)), leases(with(took(host(211), stranger, 20), func(r *lease.Record) { r.Subscriber = 99 })), "nak_not_bound", 0, nil},
		{"renewing when subscribers are not served any more", renewing(stranger, host(211)), leases(took(host(211), stranger, 20)), "nak_other_client", 20, func(_ *Request, o *Options) { o.Pools[0].Kind, o.Unknown = PoolGuests, UnknownGuest }},
		{"a guest's renewal when the ERP knows the port by now", renewing(stranger, host(200)), leases(with(guest(host(200), stranger), func(r *lease.Record) { r.GIAddr, r.Device, r.Port = relayIP, 1, 20 })), "nak_not_bound", 0, withGuestsToo},
		{"a customer without an address is no guest", at(discover, stranger, 20), nil, "pool_offer hold", 20, withGuestsToo},
		{"but where no pool is for subscribers", at(discover, stranger, 20), nil, "pool_offer 192.0.2.203 hold", 0, func(r *Request, o *Options) { withGuestsToo(r, o); o.Pools = o.Pools[1:] }},
		{"nobody's port is a guest", at(discover, stranger, 99), nil, "pool_offer 192.0.2.203 hold", 0, withGuestsToo},
		{"two customers on a port: a guest", at(discover, stranger, 25), nil, "pool_offer 192.0.2.203 hold", 0, withGuestsToo},
		{"release", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(211), Options: []wire.Option{chosen(serverIP)}}, leases(with(took(host(211), stranger, 20), func(r *lease.Record) { r.GIAddr = netip.Addr{} })), "pool_released 192.0.2.211 release kept", 0, nil},
		{"decline", wire.Query{Type: wire.Decline, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 20), Options: []wire.Option{chosen(serverIP), requested(host(211))}}, leases(with(took(host(211), stranger, 20), func(r *lease.Record) { r.Option82 = port(switch1, 20) })), "pool_declined 192.0.2.211 quarantine", 20, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
			opts := testOptions()
			opts.Pools = []Pool{flats()}
			if tc.change != nil {
				tc.change(r, &opts)
			}
			r.P.Read(tc.q.Append(nil))
			cfg, err := Compile(opts)
			require.NoError(t, err)
			tab := tc.leases
			if tab == nil {
				tab = lease.New()
			}
			pools := fill(t, cfg, snap, tab)
			d := decideAt(testNow, r, snap, tab, pools, cfg)
			got := d
			got.Way, got.To, got.Reply.Type = 0, netip.AddrPort{}, 0
			if d.Outcome == outcome.PoolOffer && len(tc.want) == len("pool_offer hold") {
				got.YourIP = netip.Addr{} // any
			}
			assert.Equal(t, tc.want, told(got))
			var sub provision.SubscriberID
			switch {
			case d.Match.Vacant != nil:
				sub = d.Match.Vacant.Subscriber
			case d.Binding.Line != nil:
				sub = d.Binding.Subscriber
			case d.Rec.Pool != "":
				sub = d.Rec.Subscriber
			}
			if tc.sub != 0 || d.Pool > 0 && cfg.pools[d.Pool-1].Kind == PoolSubscribers && d.Change != ChangeRelease {
				assert.Equal(t, tc.sub, sub)
			}
			if d.Outcome == outcome.PoolAck {
				assert.Equal(t, tc.sub, d.Rec.Subscriber)
				assert.Equal(t, keyOf(snap, tc.sub), d.Rec.Key)
				assert.Equal(t, provision.DeviceID(1), d.Rec.Device)
				assert.EqualValues(t, 20, d.Rec.Port)
				assert.Equal(t, testNow.Add(10*time.Minute), d.Rec.Expires)
			}
			assert.False(t, d.Report, "there is no address that the ERP could be told of")
		})
	}
}

// A record from before the start, of a clock that was years ahead, takes nobody's place on a port: nobody is to wait for years.
func TestRecordOfAClockAheadIsNoCrowd(t *testing.T) {
	const year = 365 * 24 * time.Hour
	rec := bound(host(42), client(0x42), 5)
	rec.GIAddr, rec.Device, rec.Port, rec.Option82 = relayIP, 1, 4, port(switch1, 4)
	q := wire.Query{Type: wire.Discover, MAC: client(0x41), GIAddr: relayIP, Option82: port(switch1, 4)}
	limit := func(_ *Request, o *Options) { o.MaxPortMACs = 1 }
	d := decideWith(t, world(t), q, leases(rec), limit)
	assert.Equal(t, outcome.PortMACLimit, d.Outcome)
	rec.Start, rec.Renewed, rec.Expires = testNow.Add(10*year), testNow.Add(10*year), testNow.Add(10*year+time.Hour)
	d = decideWith(t, world(t), q, leases(rec), limit)
	assert.Equal(t, outcome.Offer, d.Outcome)
	assert.Equal(t, host(41), d.YourIP)
}

// A line without an address vouches for no address of another line, though it was the client's last one.
func TestVacantLineVouchesForNoOther(t *testing.T) {
	rec := expired(host(11), stranger, 1)
	rec.GIAddr, rec.Option82, rec.Interface = relayIP, port(switch1, 99), "eth0"
	q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 20)}
	d := decideWith(t, vacants(t), q, leases(rec), func(_ *Request, o *Options) { o.Pools = []Pool{flats()} })
	assert.Equal(t, "nak_not_bound by relay to 198.51.100.1:67", told(d))
	assert.Equal(t, "extend_line_away", d.Evidence.Rule.String())
	rec.Expires = testNow.Add(time.Minute)
	d = decideWith(t, vacants(t), q, leases(rec), func(_ *Request, o *Options) { o.Pools = []Pool{flats()} })
	assert.Equal(t, "mac_elsewhere 192.0.2.11", told(d), "while it is live the client is heard where it was given")
	rec.Device, rec.Port, rec.Option82 = 1, 1, port(switch1, 20) // the customer has moved to port 1 since
	d = decideWith(t, vacants(t), q, leases(rec), func(_ *Request, o *Options) { o.Pools = []Pool{flats()} })
	assert.Equal(t, "ack 192.0.2.11 by relay to 198.51.100.1:67 background", told(d), "and the ERP is not told")
}

func withGuestsToo(_ *Request, o *Options) {
	o.Unknown, o.Pools = UnknownGuest, append(o.Pools, guests())
}

func TestVacantDecisionsDoNotAllocate(t *testing.T) {
	snap := vacants(t)
	opts := testOptions()
	opts.Pools, opts.MaxPortMACs = []Pool{flats(), guests()}, 2
	cfg, err := Compile(opts)
	require.NoError(t, err)
	tab := lease.New()
	for _, x := range []struct {
		mac provision.MAC
		n   byte
	}{{stranger, 20}, {client(0xa1), 21}} {
		rec := bound(host(190+x.n), x.mac, provision.SubscriberID(x.n))
		rec.Pool, rec.Key, rec.GIAddr, rec.Option82 = "flats", keyOf(snap, rec.Subscriber), relayIP, port(switch1, x.n)
		rec.Device, rec.Port = 1, uint32(x.n)
		tab.Store(rec)
	}
	pools := fill(t, cfg, snap, tab)
	for name, q := range map[string]wire.Query{
		"pool_offer port":    {Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 20)},
		"pool_offer two":     {Type: wire.Discover, MAC: client(0xa2), GIAddr: relayIP, Option82: port(switch1, 21)},
		"pool_offer mac":     {Type: wire.Discover, MAC: client(0xa3)},
		"pool_ack renewal":   {Type: wire.Request, MAC: stranger, CIAddr: host(210)},
		"pool_ack new MAC":   {Type: wire.Request, MAC: client(0x78), GIAddr: relayIP, Option82: port(switch1, 20), Options: []wire.Option{chosen(serverIP), requested(host(210))}},
		"subscriber_unclear": {Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 25)},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
			raw := q.Append(nil)
			var d Decision
			allocs := testing.AllocsPerRun(100, func() {
				r.P.Read(raw)
				decideInto(&d, testNow, r, snap, tab, pools, cfg)
			})
			require.Contains(t, name, d.Outcome.String())
			require.Zero(t, allocs)
		})
	}
}
