package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
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
	from := func(a netip.Addr) func(*request, *Options) {
		return func(r *request, _ *Options) { r.p.From = netip.AddrPortFrom(a, 68) }
	}
	heardOn := func(name string) func(*request, *Options) {
		return func(r *request, _ *Options) { r.p.Ingress.Name = name }
	}
	flagged := append(port(switch1, 40), wire.SubFlags, 1, 0x80)
	for _, tc := range []struct {
		name   string
		rec    func(lease.Record) lease.Record
		gi     netip.Addr
		opt82  []byte
		change func(*request, *Options)
		ok     bool
	}{
		{"from its port", relayed, relayIP, port(switch1, 40), nil, true},
		{"from its port, the relay's flags differ", relayed, relayIP, flagged, nil, true},
		{"from its port through the other router", relayed, ip("198.51.100.9"), port(switch1, 40), nil, true},
		{"from another port", relayed, relayIP, port(switch1, 41), nil, false},
		{"from the same port of another switch", relayed, relayIP, port(provision.MAC{2, 9, 9, 9, 9, 9}, 40), nil, false},
		{"past the relay from the address itself", relayed, netip.Addr{}, nil, from(host(201)), true},
		{"past the relay from another address", relayed, netip.Addr{}, nil, from(host(202)), false},
		{"past the relay from nowhere", relayed, netip.Addr{}, nil, nil, false},
		{"on its wire", direct, netip.Addr{}, nil, nil, true},
		{"on another wire", direct, netip.Addr{}, nil, heardOn("eth1"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pooled := range []bool{true, false} {
				rec := tc.rec(guest(host(201), stranger))
				changes := []func(*request, *Options){withGuests}
				want := map[wire.MessageType]Outcome{wire.Release: OutcomePoolReleased, wire.Decline: OutcomePoolDeclined}
				if !pooled {
					rec.Pool = ""
					changes = nil
					want = map[wire.MessageType]Outcome{wire.Release: OutcomeReleased, wire.Decline: OutcomeDeclined}
				}
				if !tc.ok {
					want = map[wire.MessageType]Outcome{wire.Release: OutcomeReleaseUnknown, wire.Decline: OutcomeDeclineUnknown}
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
					assert.Equal(t, outcome, d.outcome, "%v", typ)
					if !tc.ok {
						assert.Equal(t, changeNone, d.change)
					}
				}
			}
		})
	}
}

// A packet to the address of one wire may come in on another: whoever can reach the
// router at all could empty the pool of guests.
func TestPoolIsForItsOwnWire(t *testing.T) {
	uplink := func(r *request, _ *Options) {
		r.on = &provision.Interface{Index: 3, Name: "uplink0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.2/24")}}
	}
	both := func(r *request, _ *Options) {
		uplink(r, nil)
		r.on.Addrs = append(r.on.Addrs, netip.MustParsePrefix("192.0.2.1/24"))
	}
	discover := wire.Query{Type: wire.Discover, MAC: stranger}
	selecting := wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{chosen(serverIP), requested(host(201))}}
	assert.Equal(t, OutcomeNoPool, run(t, discover, nil, withGuests, uplink).outcome)
	assert.Equal(t, OutcomeNakNotBound, run(t, selecting, nil, withGuests, uplink).outcome)
	unnumbered := func(r *request, o *Options) { uplink(r, o); r.on.Addrs = nil }
	assert.Equal(t, OutcomeNoPool, run(t, discover, nil, withGuests, unnumbered).outcome, "nobody can say which wire that is")
	assert.Equal(t, OutcomePoolOffer, run(t, discover, nil, withGuests, both).outcome)
	assert.Equal(t, OutcomePoolAck, run(t, selecting, nil, withGuests, both).outcome)
}

func TestOneClientGetsOneAddressOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		for n := byte(200); n <= 203; n++ {
			if host(n) != a {
				r.ask(selectBy(stranger, host(n)))
				assert.Equal(t, OutcomeNakWrongAddress, r.h.ev.Outcome)
			}
		}
		assert.Equal(t, 1, r.s.Pools()[0].Leased)
		r.ask(discoverBy(stranger))
		assert.Equal(t, a, r.last().yourIP, "and it is told which")
		// One that it gave back does not bind it.
		r.ask(wire.Query{Type: wire.Release, MAC: stranger, CIAddr: a})
		require.Equal(t, OutcomePoolReleased, r.h.ev.Outcome)
		other := host(200)
		if other == a {
			other = host(201)
		}
		r.ask(selectBy(stranger, other))
		time.Sleep(time.Second)
		assert.Equal(t, other, r.last().yourIP)
		require.NoError(t, r.end())
	})
}

// Made-up MACs that only ask for offers do not keep those out that come later.
func TestOldOffersGoToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		kept := r.join(t, stranger)
		var first netip.Addr
		for n := range byte(3) {
			r.ask(discoverBy(client(n)))
			require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
			if n == 0 {
				first = r.last().yourIP
			}
			time.Sleep(time.Millisecond)
		}
		r.ask(discoverBy(client(9)))
		require.Equal(t, OutcomePoolExhausted, r.h.ev.Outcome, "who was just offered one has time to ask for it")
		time.Sleep(offerLeast)
		r.ask(discoverBy(client(9)))
		require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
		assert.Equal(t, first, r.last().yourIP, "the oldest offer")
		r.ask(selectBy(client(0), first))
		assert.Equal(t, OutcomeNakOtherClient, r.h.ev.Outcome)
		r.ask(selectBy(client(9), first))
		time.Sleep(time.Second)
		assert.Equal(t, first, r.last().yourIP)
		slot, _ := r.s.PoolAddress(kept)
		assert.Equal(t, "leased", slot.State, "a lease is nobody else's")
		require.NoError(t, r.end())
	})
}

func TestDeclinesDoNotEmptyAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		var times []time.Duration
		for n := range byte(4) {
			a := r.join(t, client(n))
			r.ask(wire.Query{Type: wire.Decline, MAC: client(n), GIAddr: relayIP, Option82: port(switch1, 40), Options: []wire.Option{requested(a)}})
			require.Equal(t, OutcomePoolDeclined, r.h.ev.Outcome)
			slot, _ := r.s.PoolAddress(a)
			times = append(times, time.Until(slot.Until))
		}
		assert.Equal(t, []time.Duration{time.Hour, offerHold, offerHold, offerHold}, times)
		r.ask(discoverBy(stranger))
		require.Equal(t, OutcomePoolExhausted, r.h.ev.Outcome)
		time.Sleep(offerHold)
		r.ask(discoverBy(stranger))
		require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
		require.NoError(t, r.end())
	})
}

// A reload that changes a pool comes between a decision on the old one and the record of it.
func TestReloadBetweenDecisionAndRecord(t *testing.T) {
	for _, next := range []wire.MessageType{wire.Discover, wire.Request} {
		reloadBetween(t, next)
	}
}

func reloadBetween(t *testing.T, next wire.MessageType) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		r.ask(discoverBy(client(1)))
		a := r.last().yourIP
		set, now := r.s.settings.Load(), time.Now()
		q := selectBy(client(1), a)
		r.h.read(now, datagram{data: q.Append(nil), from: netip.AddrPortFrom(relayIP, 67), ifindex: 3, to: serverIP}, set)
		r.h.decide(now, set)
		require.Equal(t, OutcomePoolAck, r.h.d.outcome)
		o := testOptions()
		withGuests(nil, &o)
		o.Pools[0].Last = host(204)
		require.NoError(t, r.s.Reload(o))
		r.h.apply(now, set)
		synctest.Wait()

		if next == wire.Discover {
			other := discoverBy(client(2))
			other.Options = []wire.Option{requested(a)}
			r.ask(other)
			require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
			assert.NotEqual(t, a, r.h.ev.YourIP)
		} else {
			r.ask(selectBy(client(3), a))
			assert.Equal(t, OutcomeNakOtherClient, r.h.ev.Outcome)
		}
		slot, _ := r.s.PoolAddress(a)
		assert.Equal(t, client(1), slot.MAC)
		require.NoError(t, r.end())
	})
}

// What the table has from before the start may come from a clock that was ahead.
func TestLeaseOfTheFutureIsKeptForItsOwnTime(t *testing.T) {
	const ahead = 48 * time.Hour
	rec := with(guest(host(201), client(1)), func(r *lease.Record) {
		r.Renewed, r.Expires = testNow.Add(ahead), testNow.Add(ahead+2*time.Minute)
	})
	tab := leases(rec)
	o := testOptions()
	withGuests(nil, &o)
	set, err := compile(o)
	require.NoError(t, err)
	set.takeOver(nil, tab, testNow)
	slot := set.slot(0, host(201), testNow)
	assert.Equal(t, pool.StateLeased, slot.State)
	assert.Equal(t, testNow.Add(2*time.Minute+leaseSlack), slot.Until)
	later := testNow.Add(3 * time.Minute)
	d := decision{pool: 1, change: changePool, yourIP: host(201), mac: client(2), rec: lease.Record{Expires: later.Add(time.Minute)}}
	assert.True(t, set.reserve(&d, tab, later, nil))
}

// hostLinks are the interfaces of a host.
type hostLinks struct{ view *provision.Interfaces }

func (l hostLinks) View() *provision.Interfaces { return l.view }

// Within a pool's range may be an address of the router; whoever names it must not get it.
func TestOwnAddressInAPoolIsNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		r.h.links = newInterfaces(nil, hostLinks{provision.NewInterfaces([]provision.Interface{
			{Index: 3, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.202/24")}},
		}, nil)})
		r.ask(selectBy(stranger, host(202)))
		time.Sleep(time.Second)
		assert.Empty(t, r.s.deps.Leases.Len())
		assert.Equal(t, wire.Nak, r.last().kind)
		slot, _ := r.s.PoolAddress(host(202))
		assert.Equal(t, "quarantined", slot.State)
		require.NoError(t, r.end())
	})
}

func TestRapidCommitOfPools(t *testing.T) {
	rapid := func(_ *request, o *Options) { withGuests(nil, o); o.RapidCommit = true }
	probing := func(_ *request, o *Options) { o.Pools[0].Probe = true }
	q := discoverBy(stranger)
	q.Options = []wire.Option{{Code: wire.OptRapidCommit}}
	d := run(t, q, nil, rapid)
	assert.Equal(t, "pool_ack 192.0.2.203 by relay to 198.51.100.1:67 pool", told(d))
	assert.True(t, d.reply.RapidCommit)
	assert.Equal(t, OutcomePoolOffer, run(t, q, nil, withGuests).outcome, "not configured")
	assert.Equal(t, OutcomePoolOffer, run(t, discoverBy(stranger), nil, rapid).outcome, "not asked for")
	assert.Equal(t, OutcomePoolAck, run(t, q, nil, rapid, probing).outcome, "behind a relay no wire can be asked")
	q.GIAddr, q.Option82 = netip.Addr{}, nil
	assert.Equal(t, OutcomePoolOffer, run(t, q, nil, rapid, probing).outcome, "the wire is asked first")

	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: time.Second})
		o := testOptions()
		rapid(nil, &o)
		require.NoError(t, r.s.Reload(o))
		q := discoverBy(stranger)
		q.Options = []wire.Option{{Code: wire.OptRapidCommit}}
		r.ask(q)
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, r.out.all(), "not before the lease is on disk")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, r.out.all(), 1)
		assert.Equal(t, wire.Ack, r.last().kind)
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"discover pool_ack": 1}, r.n.get())
	})
}

// Limits and standby hold for queries of access nodes too.
func TestLeaseQueryIsBoundLikeOthers(t *testing.T) {
	may := func(_ *request, o *Options) { o.LeaseQuery = []netip.Prefix{netip.PrefixFrom(relayIP, 32)} }
	q := wire.Query{Type: wire.LeaseQuery, CIAddr: host(11), GIAddr: relayIP}
	for want, change := range map[Outcome]func(*request, *Options){
		OutcomeLeaseUnassigned: func(*request, *Options) {},
		OutcomeStandby:         func(r *request, _ *Options) { r.standby = true },
		OutcomeInterfaceOff:    func(r *request, _ *Options) { r.served = false },
		OutcomeLimitedRelay:    func(r *request, _ *Options) { r.limited = OutcomeLimitedRelay },
	} {
		assert.Equal(t, want, run(t, q, nil, may, change).outcome)
	}
}

// What is told of a lease of a pool is the pool's.
func TestLeaseQueryOfAPool(t *testing.T) {
	rec := with(guest(host(201), stranger), func(r *lease.Record) {
		r.GIAddr, r.Option82 = relayIP, port(switch1, 40)
		r.Renewed, r.Expires = testNow.Add(-30*time.Second), testNow.Add(90*time.Second)
	})
	may := func(_ *request, o *Options) { o.LeaseQuery = []netip.Prefix{netip.PrefixFrom(relayIP, 32)} }
	q := wire.Query{Type: wire.LeaseQuery, CIAddr: host(201), GIAddr: relayIP}
	d := run(t, q, leases(rec), withGuests, may)
	require.Equal(t, OutcomeLeaseActive, d.outcome)
	assert.Equal(t, []uint32{90, 30, 75, 30}, []uint32{d.lease.LeaseTime, d.lease.RenewTime, d.lease.RebindTime, d.lease.LastTransaction})
	assert.Equal(t, port(switch1, 40), d.lease.RelayInfo)
	q = wire.Query{Type: wire.LeaseQuery, MAC: stranger, GIAddr: relayIP}
	assert.Equal(t, host(201), run(t, q, leases(rec), withGuests, may).yourIP)
	released := with(rec, func(r *lease.Record) { r.State = lease.StateReleased })
	q.CIAddr = host(201)
	assert.Equal(t, OutcomeLeaseUnassigned, run(t, q, leases(released), withGuests, may).outcome)
}

// One port with many MACs gets as many addresses of a pool as it may have, also over a restart.
func TestPortGetsSoManyAddressesOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		o := testOptions()
		withGuests(nil, &o)
		o.MaxPortMACs = 2
		require.NoError(t, r.s.Reload(o))
		a := r.join(t, client(1))
		r.ask(discoverBy(client(2)))
		require.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
		b := r.last().yourIP
		r.ask(discoverBy(client(3)))
		assert.Equal(t, OutcomePortMACLimit, r.h.ev.Outcome, "an offer counts")
		r.ask(selectBy(client(2), b))
		time.Sleep(time.Second)
		require.Equal(t, wire.Ack, r.last().kind)
		for n := byte(200); n <= 203; n++ {
			if host(n) != a && host(n) != b {
				r.ask(selectBy(client(3), host(n)))
				assert.Equal(t, OutcomePortMACLimit, r.h.ev.Outcome)
			}
		}
		other := discoverBy(client(4))
		other.Option82 = port(switch1, 41)
		r.ask(other)
		assert.Equal(t, OutcomePoolOffer, r.h.ev.Outcome, "another port")
		r.ask(wire.Query{Type: wire.Request, MAC: client(1), CIAddr: a})
		assert.Equal(t, OutcomePoolAck, r.h.ev.Outcome, "who is there stays")
		time.Sleep(time.Second)

		again, err := New(o, r.s.deps)
		require.NoError(t, err)
		e := again.Explain(Query{MAC: client(3), GIAddr: relayIP, Option82: port(switch1, 40)})
		assert.Equal(t, OutcomePortMACLimit, e.Outcome, "after a restart")

		q := discoverBy(client(1))
		q.Type, q.CIAddr = wire.Release, a
		r.ask(q)
		require.Equal(t, OutcomePoolReleased, r.h.ev.Outcome)
		r.ask(discoverBy(client(3)))
		assert.Equal(t, OutcomePoolOffer, r.h.ev.Outcome)
		require.NoError(t, r.end())
	})
}

// Where relays are not listed, a customer or guest must not pass for one: it would
// write another's port into option 82.
func TestClientsArePosingAsRelays(t *testing.T) {
	anyRelay := func(r *request, o *Options) { withGuests(r, o); o.Relays = nil }
	from := func(a netip.Addr) func(*request, *Options) {
		return func(r *request, _ *Options) { r.p.From = netip.AddrPortFrom(a, 67) }
	}
	listed := func(r *request, o *Options) { o.Relays = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }
	for _, tc := range []struct {
		name     string
		gi, from netip.Addr
		change   func(*request, *Options)
		want     Outcome
	}{
		{"a relay", relayIP, relayIP, nil, OutcomeOffer},
		{"a relay that sends from another address", relayIP, ip("203.0.113.7"), nil, OutcomeOffer},
		{"sent by a customer", relayIP, host(21), nil, OutcomeRelayUntrusted},
		{"sent by a guest", relayIP, host(202), nil, OutcomeRelayUntrusted},
		{"a customer's address", host(21), relayIP, nil, OutcomeRelayUntrusted},
		{"a guest's address", host(202), relayIP, nil, OutcomeRelayUntrusted},
		{"a customer who is listed as a relay", host(21), host(21), listed, OutcomeOffer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changes := []func(*request, *Options){anyRelay, from(tc.from)}
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: tc.gi, Option82: port(switch1, 1)}
			assert.Equal(t, tc.want, run(t, q, nil, changes...).outcome)
		})
	}
}

// A host that answers ARP for every address does not take the pool out of service for an hour.
func TestAnswersToARPDoNotEmptyAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := map[netip.Addr]provision.MAC{}
		for n := byte(200); n <= 203; n++ {
			all[host(n)] = client(6)
		}
		r, w := probeRig(t, all)
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		require.Equal(t, map[string]int{"discover pool_conflict": 2}, r.n.get())
		long := 0
		for _, a := range r.s.PoolAddresses("") {
			require.Equal(t, "quarantined", a.State)
			if time.Until(a.Until) > offerHold {
				long++
			}
			w.squat(a.IP, stranger) // who is gone: stranger would answer for itself
		}
		assert.Equal(t, 1, long, "a quarter of the pool")
		time.Sleep(offerHold)
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		assert.Equal(t, wire.Offer, r.last().kind)
		require.NoError(t, r.end())
	})
}
