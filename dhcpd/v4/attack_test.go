package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file has what ill-meaning clients try, and accidents between packets.

// Anybody can write another's MAC into a RELEASE or DECLINE; what is not theirs is where it comes from.
func TestReleaseAndDeclineFromElsewhere(t *testing.T) {
	relayed := func(r lease.Record) lease.Record {
		r.GIAddr, r.Option82, r.Interface = relayIP, port(switch1, 40), "uplink0"
		return r
	}
	direct := func(r lease.Record) lease.Record {
		r.Interface = "eth0"
		return r
	}
	atPair := func(r lease.Record) lease.Record {
		r.GIAddr, r.Interface = ip("203.0.113.2"), "uplink0"
		return r
	}
	inVLAN := func(r lease.Record) lease.Record {
		r.Interface = "vlan7"
		return r
	}
	from := func(a netip.Addr) func(*Request, *Options) {
		return func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(a, 68) }
	}
	heardOn := func(name string) func(*Request, *Options) {
		return func(r *Request, _ *Options) { r.P.Ingress.Name = name }
	}
	flagged := append(port(switch1, 40), wire.SubFlags, 1, 0x80)
	for _, tc := range []struct {
		name   string
		rec    func(lease.Record) lease.Record
		gi     netip.Addr
		opt82  []byte
		change func(*Request, *Options)
		ok     bool
		kept   bool // it may be somebody else
	}{
		{"from its port", relayed, relayIP, port(switch1, 40), nil, true, false},
		{"from its port, the relay's flags differ", relayed, relayIP, flagged, nil, true, false},
		{"from its port through the other router", relayed, ip("198.51.100.9"), port(switch1, 40), nil, true, false},
		{"from another port", relayed, relayIP, port(switch1, 41), nil, false, false},
		{"from the same port of another switch", relayed, relayIP, port(provision.MAC{2, 9, 9, 9, 9, 9}, 40), nil, false, false},
		{"past the relay from the address itself", relayed, netip.Addr{}, nil, from(host(201)), true, true},
		{"past the relay from another address", relayed, netip.Addr{}, nil, from(host(202)), false, false},
		{"past the relay from nowhere", relayed, netip.Addr{}, nil, from(netip.IPv4Unspecified()), false, false},
		{"on its wire", direct, netip.Addr{}, nil, nil, true, true},
		{"on another wire", direct, netip.Addr{}, nil, heardOn("eth1"), false, false},
		{"through a relay, for a lease on our own wire", direct, relayIP, nil, nil, false, false},
		{"through its relay without option 82", relayed, relayIP, nil, nil, true, true},
		{"through another relay without option 82", relayed, ip("198.51.100.9"), nil, nil, false, false},
		{"through the other one of a pair on the clients' wire", atPair, ip("203.0.113.3"), nil, nil, true, true},
		{"through a relay of another wire", atPair, ip("198.51.100.9"), nil, nil, false, false},
		{"on the interface of its VLAN", inVLAN, netip.Addr{}, nil, heardOn("vlan7"), true, false},
		{"on another interface whose VLAN has the same number", inVLAN, netip.Addr{}, nil, heardOn("vlan07"), true, true},
		{"on that of another VLAN", inVLAN, netip.Addr{}, nil, heardOn("vlan8"), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pooled := range []bool{true, false} {
				rec := tc.rec(guest(host(201), stranger))
				vlans := func(_ *Request, o *Options) { o.VLANInterfaces = []string{"vlan{vlan}"} }
				changes := []func(*Request, *Options){withGuests, vlans}
				want := map[wire.MessageType]outcome.Outcome{wire.Release: outcome.PoolReleased, wire.Decline: outcome.PoolDeclined}
				if !pooled {
					rec.Pool = ""
					changes = changes[1:]
					want = map[wire.MessageType]outcome.Outcome{wire.Release: outcome.Released, wire.Decline: outcome.Declined}
				}
				if !tc.ok {
					want = map[wire.MessageType]outcome.Outcome{wire.Release: outcome.ReleaseUnknown, wire.Decline: outcome.DeclineUnknown}
				}
				if tc.change != nil {
					changes = append(changes, tc.change)
				}
				for typ, outcome := range want {
					q := wire.Query{Type: typ, MAC: stranger, GIAddr: tc.gi, Option82: tc.opt82}
					if typ == wire.Release {
						q.CIAddr = host(201)
					} else {
						q.Options = []wire.Option{requested(host(201))}
					}
					d := run(t, q, leases(rec), changes...)
					assert.Equal(t, outcome, d.Outcome, "%v", typ)
					assert.Equal(t, tc.kept, d.Keep, "%v", typ)
					if !tc.ok {
						assert.Equal(t, ChangeNone, d.Change)
					}
				}
			}
		})
	}
}

// A packet to the address of one wire may come in on another: whoever can reach the
// router at all could empty the pool of guests.
func TestPoolIsForItsOwnWire(t *testing.T) {
	uplink := func(r *Request, _ *Options) {
		r.On = &provision.Interface{Index: 3, Name: "uplink0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24")}}
	}
	both := func(r *Request, _ *Options) {
		uplink(r, nil)
		r.On.Addrs = append(r.On.Addrs, netip.MustParsePrefix("192.0.2.1/24"))
	}
	discover := wire.Query{Type: wire.Discover, MAC: stranger}
	selecting := wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{chosen(serverIP), requested(host(201))}}
	assert.Equal(t, outcome.NoPool, run(t, discover, nil, withGuests, uplink).Outcome)
	assert.Equal(t, outcome.NakNotBound, run(t, selecting, nil, withGuests, uplink).Outcome)
	unnumbered := func(r *Request, o *Options) { uplink(r, o); r.On.Addrs = nil }
	assert.Equal(t, outcome.NoPool, run(t, discover, nil, withGuests, unnumbered).Outcome, "nobody can say which wire that is")
	assert.Equal(t, outcome.PoolOffer, run(t, discover, nil, withGuests, both).Outcome)
	assert.Equal(t, outcome.PoolAck, run(t, selecting, nil, withGuests, both).Outcome)
}

func discoverBy(mac provision.MAC) wire.Query {
	return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 40)}
}

func TestRapidCommitOfPools(t *testing.T) {
	rapid := func(_ *Request, o *Options) { withGuests(nil, o); o.RapidCommit = true }
	probing := func(_ *Request, o *Options) { o.Pools[0].Probe = true }
	q := discoverBy(stranger)
	q.Options = []wire.Option{{Code: wire.OptRapidCommit}}
	d := run(t, q, nil, rapid)
	assert.Equal(t, "pool_ack 192.0.2.203 by relay to 198.51.100.1:67 pool", told(d))
	assert.True(t, d.Reply.RapidCommit)
	assert.Equal(t, outcome.PoolOffer, run(t, q, nil, withGuests).Outcome, "not configured")
	assert.Equal(t, outcome.PoolOffer, run(t, discoverBy(stranger), nil, rapid).Outcome, "not asked for")
	assert.Equal(t, outcome.PoolAck, run(t, q, nil, rapid, probing).Outcome, "behind a relay no wire can be asked")
	q.GIAddr, q.Option82 = netip.Addr{}, nil
	assert.Equal(t, outcome.PoolOffer, run(t, q, nil, rapid, probing).Outcome, "the wire is asked first")
}

// Limits and standby hold for queries of access nodes too.
func TestLeaseQueryIsBoundLikeOthers(t *testing.T) {
	may := func(_ *Request, o *Options) { o.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(relayIP, 32)} }
	q := wire.Query{Type: wire.LeaseQuery, CIAddr: host(11), GIAddr: relayIP}
	for want, change := range map[outcome.Outcome]func(*Request, *Options){
		outcome.LeaseUnassigned: func(*Request, *Options) {},
		outcome.Standby:         func(r *Request, _ *Options) { r.Standby = true },
		outcome.InterfaceOff:    func(r *Request, _ *Options) { r.Served = false },
		outcome.LimitedRelay:    func(r *Request, _ *Options) { r.Limited = outcome.LimitedRelay },
	} {
		assert.Equal(t, want, run(t, q, nil, may, change).Outcome)
	}
}

// What is told of a lease of a pool is the pool's.
func TestLeaseQueryOfAPool(t *testing.T) {
	rec := with(guest(host(201), stranger), func(r *lease.Record) {
		r.GIAddr, r.Option82 = relayIP, port(switch1, 40)
		r.Renewed, r.Expires = testNow.Add(-30*time.Second), testNow.Add(90*time.Second)
	})
	may := func(_ *Request, o *Options) { o.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(relayIP, 32)} }
	q := wire.Query{Type: wire.LeaseQuery, CIAddr: host(201), GIAddr: relayIP}
	d := run(t, q, leases(rec), withGuests, may)
	require.Equal(t, outcome.LeaseActive, d.Outcome)
	assert.Equal(t, []uint32{90, 30, 75, 30}, []uint32{d.Lease.LeaseTime, d.Lease.RenewTime, d.Lease.RebindTime, d.Lease.LastTransaction})
	assert.Equal(t, port(switch1, 40), d.Lease.RelayInfo)
	q = wire.Query{Type: wire.LeaseQuery, MAC: stranger, GIAddr: relayIP}
	assert.Equal(t, host(201), run(t, q, leases(rec), withGuests, may).YourIP)
	kept := with(rec, func(r *lease.Record) { r.State = lease.StateReleased })
	assert.Equal(t, outcome.LeaseActive, run(t, wire.Query{Type: wire.LeaseQuery, CIAddr: host(201), GIAddr: relayIP}, leases(kept), withGuests, may).Outcome, "kept for its client")
	released := with(kept, func(r *lease.Record) { r.Expires = testNow })
	q.CIAddr = host(201)
	assert.Equal(t, outcome.LeaseUnassigned, run(t, q, leases(released), withGuests, may).Outcome)
}
