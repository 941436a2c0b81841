package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

func TestOneClientGetsOneAddressOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		for n := byte(200); n <= 203; n++ {
			if host(n) != a {
				r.ask(selectBy(stranger, host(n)))
				assert.Equal(t, outcome.NakWrongAddress, r.h.ev.Outcome)
			}
		}
		assert.Equal(t, 1, r.s.Pools()[0].Leased)
		r.ask(discoverBy(stranger))
		assert.Equal(t, a, r.last().yourIP, "and it is told which")
		// Nobody knows who sent a RELEASE past the relay: it keeps the address until the lease ends.
		release := wire.Query{Type: wire.Release, MAC: stranger, CIAddr: a}
		r.ask(release)
		require.Equal(t, outcome.PoolReleased, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.Equal(t, a, r.last().yourIP)
		// One that it gave back on its line does not bind it.
		on := discoverBy(stranger)
		release.GIAddr, release.Option82 = on.GIAddr, on.Option82
		r.ask(release)
		require.Equal(t, outcome.PoolReleased, r.h.ev.Outcome)
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
			require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
			if n == 0 {
				first = r.last().yourIP
			}
			time.Sleep(time.Millisecond)
		}
		r.ask(discoverBy(client(9)))
		require.Equal(t, outcome.PoolExhausted, r.h.ev.Outcome, "who was just offered one has time to ask for it")
		time.Sleep(offerLeast)
		r.ask(discoverBy(client(9)))
		require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
		assert.Equal(t, first, r.last().yourIP, "the oldest offer")
		r.ask(selectBy(client(0), first))
		assert.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome)
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
			require.Equal(t, outcome.PoolDeclined, r.h.ev.Outcome)
			slot, _ := r.s.PoolAddress(a)
			times = append(times, time.Until(slot.Until))
		}
		assert.Equal(t, []time.Duration{time.Hour, v4.OfferHold, v4.OfferHold, v4.OfferHold}, times)
		r.ask(discoverBy(stranger))
		require.Equal(t, outcome.PoolExhausted, r.h.ev.Outcome)
		time.Sleep(v4.OfferHold)
		r.ask(discoverBy(stranger))
		require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
		require.NoError(t, r.end())
	})
}

// A reload that changes a pool comes between a v4.Decision on the old one and the record of it.
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
		gen, now := r.s.generation.Load(), time.Now()
		q := selectBy(client(1), a)
		r.h.read(socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
		r.h.enter(now, gen)
		r.h.decide(now, gen)
		require.Equal(t, outcome.PoolAck, r.h.d.Outcome)
		o := testOptions()
		withGuests(&o)
		o.Pools[0].Last = host(204)
		require.NoError(t, r.s.Reload(o))
		r.h.apply(now, gen)
		synctest.Wait()

		if next == wire.Discover {
			other := discoverBy(client(2))
			other.Options = []wire.Option{requested(a)}
			r.ask(other)
			require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
			assert.NotEqual(t, a, r.h.ev.YourIP)
		} else {
			r.ask(selectBy(client(3), a))
			assert.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome)
		}
		slot, _ := r.s.PoolAddress(a)
		assert.Equal(t, client(1).Owner(), slot.Holder)
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
	withGuests(&o)
	gen, err := compile(o)
	require.NoError(t, err)
	gen.pools.takeOver(nil, tab, testNow)
	slot := gen.pools.Slot(0, host(201), testNow)
	assert.Equal(t, pool.StateLeased, slot.State)
	assert.Equal(t, testNow.Add(2*time.Minute+leaseSlack), slot.Until)
	later := testNow.Add(3 * time.Minute)
	d := v4.Decision{Pool: 1, Change: v4.ChangePool, YourIP: host(201), MAC: client(2), Rec: lease.Record{Expires: later.Add(time.Minute)}}
	assert.True(t, gen.pools.reserve(&d, tab, later, nil))
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
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: time.Second})
		o := testOptions()
		withGuests(&o)
		o.RapidCommit = true
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

// One port with many MACs gets as many addresses of a pool as it may have, also over a restart.
func TestPortGetsSoManyAddressesOfAPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		o := testOptions()
		withGuests(&o)
		o.MaxPortMACs = 2
		require.NoError(t, r.s.Reload(o))
		a := r.join(t, client(1))
		r.ask(discoverBy(client(2)))
		require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
		b := r.last().yourIP
		r.ask(discoverBy(client(3)))
		assert.Equal(t, outcome.PortMACLimit, r.h.ev.Outcome, "an offer counts")
		r.ask(selectBy(client(2), b))
		time.Sleep(time.Second)
		require.Equal(t, wire.Ack, r.last().kind)
		for n := byte(200); n <= 203; n++ {
			if host(n) != a && host(n) != b {
				r.ask(selectBy(client(3), host(n)))
				assert.Equal(t, outcome.PortMACLimit, r.h.ev.Outcome)
			}
		}
		other := discoverBy(client(4))
		other.Option82 = port(switch1, 41)
		r.ask(other)
		assert.Equal(t, outcome.PoolOffer, r.h.ev.Outcome, "another port")
		r.ask(wire.Query{Type: wire.Request, MAC: client(1), CIAddr: a})
		assert.Equal(t, outcome.PoolAck, r.h.ev.Outcome, "who is there stays")
		time.Sleep(time.Second)

		again, err := New(o, r.s.deps)
		require.NoError(t, err)
		e := again.Explain(Query{MAC: client(3), GIAddr: relayIP, Option82: port(switch1, 40)})
		assert.Equal(t, outcome.PortMACLimit, e.Outcome, "after a restart")

		q := discoverBy(client(1))
		q.Type, q.CIAddr = wire.Release, a
		r.ask(q)
		require.Equal(t, outcome.PoolReleased, r.h.ev.Outcome)
		r.ask(discoverBy(client(3)))
		assert.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
		require.NoError(t, r.end())
	})
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
			if time.Until(a.Until) > v4.OfferHold {
				long++
			}
			w.squat(a.IP, stranger) // who is gone: stranger would answer for itself
		}
		assert.Equal(t, 1, long, "a quarter of the pool")
		time.Sleep(v4.OfferHold)
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		assert.Equal(t, wire.Offer, r.last().kind)
		require.NoError(t, r.end())
	})
}
