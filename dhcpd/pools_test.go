package dhcpd

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// poolRig is a rig whose handler serves guests; the snapshot can be exchanged.
func poolRig(t testing.TB, j *journal) (*rig, *atomic.Pointer[provision.Snapshot]) {
	t.Helper()
	var snap atomic.Pointer[provision.Snapshot]
	snap.Store(world(t))
	r := &rig{out: &sink{}, j: j, n: &counter{}, log: NewEventLog(1000)}
	tab := newTable(t)
	o := testOptions()
	withGuests(&o)
	deps := Deps{Snapshot: snap.Load, Leases: tab, Observer: Observers{r.n, r.log}, Log: slog.New(slog.DiscardHandler)}
	if j != nil {
		deps.Journal = j
	}
	var err error
	r.s, err = New(o, deps)
	require.NoError(t, err)
	r.c = newCommitter(r.s, r.out)
	r.h = newHandler(r.s, r.c, r.out, nil)
	done := make(chan error, 1)
	go func() { done <- r.c.run() }()
	r.end = func() error {
		close(r.c.queue)
		return <-done
	}
	return r, &snap
}

func discoverBy(mac provision.MAC) wire.Query {
	return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 40)}
}

func selectBy(mac provision.MAC, a netip.Addr) wire.Query {
	q := discoverBy(mac)
	q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
	return q
}

// last returns the newest reply.
func (r *rig) last() sentReply {
	all := r.out.all()
	return all[len(all)-1]
}

// join is DISCOVER and REQUEST; it gives the address.
func (r *rig) join(t testing.TB, mac provision.MAC) netip.Addr {
	t.Helper()
	r.ask(discoverBy(mac))
	require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
	a := r.last().yourIP
	r.ask(selectBy(mac, a))
	synctest.Wait()
	time.Sleep(time.Second)
	require.Equal(t, wire.Ack, r.last().kind)
	require.Equal(t, a, r.last().yourIP)
	return a
}

func TestPoolLeaseIsOnDiskBeforeTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: 500 * time.Millisecond})
		r.ask(discoverBy(stranger))
		a := r.last().yourIP
		begin := time.Now()
		r.ask(selectBy(stranger, a))
		time.Sleep(499 * time.Millisecond)
		synctest.Wait()
		require.Len(t, r.out.all(), 1, "no ACK before the record is on disk, however slow the disk is")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, r.out.all(), 2)
		assert.Equal(t, "guests", r.j.groups[0][0].Lease.Pool)
		assert.Equal(t, begin.Add(2*time.Minute), r.j.groups[0][0].Lease.Expires)
		assert.Nil(t, r.j.groups[0][0].Report, "a guest's MAC is nothing for the ERP")
		// A renewal moves the expiry, so it waits as well.
		time.Sleep(time.Minute)
		renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a}
		r.ask(renew)
		synctest.Wait()
		require.Len(t, r.out.all(), 2)
		time.Sleep(time.Second)
		require.Len(t, r.out.all(), 3)
		assert.Equal(t, []int{1, 1}, r.j.sizes())
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"discover pool_offer": 1, "request pool_ack": 2}, r.n.get())
	})
}

func TestFailingDiskGivesNoPoolLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		r.j.fail(errors.New("disk full"))
		r.ask(discoverBy(stranger))
		a := r.last().yourIP
		r.ask(selectBy(stranger, a))
		r.ask(selectingOn(2, client(0x77), host(21)))
		time.Sleep(time.Second)
		require.Len(t, r.out.all(), 2, "the offer, and the ACK of a bound address")
		assert.Equal(t, host(21), r.last().yourIP)
		r.j.fail(nil)
		r.ask(selectBy(stranger, a)) // the client asks again
		time.Sleep(time.Second)
		assert.Equal(t, a, r.last().yourIP)
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"discover pool_offer": 1, "request pool_not_durable": 1, "request ack_before_commit": 1, "request pool_ack": 1}, r.n.get())
	})
}

func TestPoolAckComesInTimeOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: 3*time.Second + time.Millisecond}) // what docs/lease-log.md promises
		r.ask(discoverBy(stranger))
		r.ask(selectBy(stranger, r.last().yourIP))
		r.ask(selectingOn(2, client(0x77), host(21))) // behind it in the same queue
		time.Sleep(time.Minute)
		sent := r.out.all()
		require.Len(t, sent, 2)
		assert.Equal(t, host(21), sent[1].yourIP, "bound addresses do not wait for pools")
		assert.Equal(t, 100*time.Millisecond, sent[1].at.Sub(sent[0].at))
		require.NoError(t, r.end())
		assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
	})
}

func TestHangingDiskGivesNoPoolLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: time.Minute})
		r.ask(discoverBy(stranger))
		r.ask(selectBy(stranger, r.last().yourIP))
		synctest.Wait()
		require.ErrorContains(t, r.end(), "lease journal hangs")
		assert.Len(t, r.out.all(), 1)
		assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
		time.Sleep(time.Minute)
	})
}

// What became of a client of a pool is known when its ACK would be late, not when a disk that hangs answers again.
func TestHangingDiskLeavesNoPacketWithoutOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{delay: time.Minute})
		r.ask(discoverBy(stranger))
		a := r.last().yourIP
		r.ask(selectBy(stranger, a))
		r.ask(selectingOn(2, client(0x77), host(21)))
		time.Sleep(time.Second)
		r.ask(selectBy(stranger, a)) // in line behind it
		time.Sleep(maxPoolWait - time.Second - time.Millisecond)
		assert.Zero(t, r.n.get()["request pool_not_durable"])
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
		time.Sleep(time.Second)
		synctest.Wait()
		want := map[string]int{"discover pool_offer": 1, "request pool_not_durable": 2, "request ack_before_commit": 1}
		assert.Equal(t, want, r.n.get())
		time.Sleep(3 * time.Minute) // the disk answers
		require.NoError(t, r.end())
		assert.Equal(t, want, r.n.get(), "each once")
		assert.Len(t, r.out.all(), 2)
	})
}

func TestNoJournalNoPoolLease(t *testing.T) {
	for _, failing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			if !failing {
				j = nil
			}
			r, _ := poolRig(t, j)
			r.s.deps.Failing = func() bool { return failing }
			r.ask(discoverBy(stranger))
			r.ask(selectBy(stranger, r.last().yourIP))
			time.Sleep(time.Second)
			assert.Len(t, r.out.all(), 1)
			require.NoError(t, r.end())
			assert.Equal(t, 1, r.n.get()["request pool_not_durable"])
		})
	}
}

func TestTwoClientsAreNeverOfferedOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		seen := map[netip.Addr]bool{}
		for n := range byte(4) {
			r.ask(discoverBy(client(n)))
			require.False(t, seen[r.last().yourIP])
			seen[r.last().yourIP] = true
		}
		r.ask(discoverBy(client(5)))
		assert.Equal(t, outcome.PoolExhausted, r.h.ev.Outcome)
		r.ask(discoverBy(client(2))) // asks again: the same
		require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
		st := r.s.Pools()[0]
		assert.Equal(t, pool.Counts{Size: 4, Offered: 4}, st.Counts)
		assert.EqualValues(t, 1, st.Exhausted)
		assert.True(t, st.Full)
		time.Sleep(v4.OfferHold)
		r.ask(discoverBy(client(5)))
		assert.Equal(t, outcome.PoolOffer, r.h.ev.Outcome, "those who did not ask lost their claim")
		assert.False(t, r.s.Pools()[0].Full)
		require.NoError(t, r.end())
	})
}

// The ERP learns the port of a guest: at the next renewal the client is sent to its own address.
func TestGuestMovesWhenTheERPLearnsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		a := r.join(t, stranger)
		in := provision.Input{
			Devices:     []provision.Device{{ID: 1, MAC: switch1}},
			Lines:       []provision.Line{{Subscriber: 50, Addresses: provision.Hosts4(host(50)), Device: 1, Port: 40}},
			Subscribers: []provision.Subscriber{{ID: 50, State: provision.StateActive}},
		}
		next, _ := provision.Build(in)
		snap.Store(next)
		q := discoverBy(stranger)
		q.Type, q.CIAddr = wire.Request, a
		r.ask(q)
		assert.Equal(t, outcome.NakWrongAddress, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.Equal(t, host(50), r.last().yourIP)
		// The other way round: a subscriber that vanishes from the ERP is a guest.
		r.ask(selectBy(stranger, host(50)))
		time.Sleep(time.Second)
		snap.Store(world(t))
		q.CIAddr = host(50)
		r.ask(q)
		assert.Equal(t, outcome.NakNotBound, r.h.ev.Outcome)
		r.ask(discoverBy(stranger))
		assert.Equal(t, a, r.last().yourIP, "what it had as a guest before")
		require.NoError(t, r.end())
	})
}

// An address that the ERP binds while a guest has it: the guest loses it at the
// next renewal that it hears the answer of, only then the customer gets it, and when
// the ERP takes the binding back nobody gets the address while the customer's lease lives.
func TestAddressBoundWhileLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		a := r.join(t, stranger)
		in := provision.Input{
			Devices:     []provision.Device{{ID: 1, MAC: switch1}},
			Lines:       []provision.Line{{Subscriber: 50, Addresses: provision.Hosts4(a), Device: 1, Port: 7}},
			Subscribers: []provision.Subscriber{{ID: 50, State: provision.StateActive}},
		}
		next, _ := provision.Build(in)
		snap.Store(next)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		assert.Equal(t, outcome.NakNotBound, r.h.ev.Outcome)
		customer := selectingOn(7, client(0x70), a)
		r.ask(wire.Query{Type: wire.Discover, MAC: client(0x70), GIAddr: relayIP, Option82: port(switch1, 7)})
		assert.Equal(t, outcome.HolderLive, r.h.ev.Outcome, "the guest did not hear that, past its relay")
		assert.Equal(t, stranger, r.h.ev.Rival)
		r.ask(customer)
		assert.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a, GIAddr: relayIP, Option82: port(switch1, 40)})
		assert.Equal(t, outcome.NakNotBound, r.h.ev.Outcome, "it rebinds through it")
		slot, _ := r.s.PoolAddress(a)
		assert.NotEqual(t, "leased", slot.State)
		r.ask(discoverBy(stranger))
		assert.NotEqual(t, a, r.last().yourIP)
		r.ask(customer)
		time.Sleep(time.Second)
		require.Equal(t, a, r.last().yourIP)
		require.Equal(t, wire.Ack, r.last().kind)

		snap.Store(world(t))
		for n := range byte(8) {
			q := discoverBy(client(n))
			q.Options = []wire.Option{requested(a)}
			r.ask(q)
			assert.NotEqual(t, a, r.h.ev.YourIP, "the customer may still use it")
		}
		require.NoError(t, r.end())
	})
}

func TestDeclinedPoolAddressIsKeptAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		r.ask(wire.Query{Type: wire.Decline, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: []wire.Option{requested(a), chosen(serverIP)}})
		require.Equal(t, outcome.PoolDeclined, r.h.ev.Outcome)
		b := r.join(t, stranger)
		require.NotEqual(t, a, b)
		slot, ok := r.s.PoolAddress(a)
		require.True(t, ok)
		assert.Equal(t, "quarantined", slot.State)
		assert.EqualValues(t, 1, r.s.Pools()[0].Declines)

		// A new server over the same table knows it too.
		require.NoError(t, r.s.deps.Leases.Flush())
		o := testOptions()
		withGuests(&o)
		again, err := New(o, r.s.deps)
		require.NoError(t, err)
		slot, _ = again.PoolAddress(a)
		assert.Equal(t, "quarantined", slot.State)
		slot, _ = again.PoolAddress(b)
		assert.Equal(t, "leased", slot.State)
		assert.Equal(t, stranger.Owner(), slot.Holder)
		time.Sleep(time.Hour)
		slot, _ = r.s.PoolAddress(a)
		assert.Equal(t, "free", slot.State)
		require.NoError(t, r.end())
	})
}

func TestReloadKeepsPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		a := r.join(t, stranger)
		r.ask(discoverBy(client(1)))
		offered := r.last().yourIP
		o := testOptions()
		withGuests(&o)
		require.NoError(t, r.s.Reload(o))
		slot, _ := r.s.PoolAddress(offered)
		assert.Equal(t, "offered", slot.State, "an unchanged pool keeps everything")
		o.Pools[0].Last = host(210)
		require.NoError(t, r.s.Reload(o))
		slot, _ = r.s.PoolAddress(a)
		assert.Equal(t, "leased", slot.State, "a changed one keeps its leases")
		assert.Equal(t, 11, r.s.Pools()[0].Size)
		o.Pools = nil
		o.Unknown = v4.UnknownSilence
		require.NoError(t, r.s.Reload(o))
		_, ok := r.s.PoolAddress(a)
		assert.False(t, ok)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		assert.Equal(t, outcome.NakNotBound, r.h.ev.Outcome, "the client begins anew")
		require.NoError(t, r.end())
	})
}

func TestPoolWarnsOncePerCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := poolRig(t, &journal{})
		var log bytes.Buffer
		r.s.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		for n := range byte(4) {
			r.ask(discoverBy(client(n)))
		}
		time.Sleep(v4.OfferHold)
		r.s.Pools()
		r.ask(discoverBy(client(1)))
		require.NoError(t, r.end())
		assert.Equal(t, "level=WARN msg=\"pool gets full\" pool=guests used=75% warn_at=75%\n"+
			"level=INFO msg=\"pool has room again\" pool=guests used=0%\n", log.String())
	})
}

func TestExplainTellsThePool(t *testing.T) {
	r, _ := poolRig(t, nil)
	e := r.s.Explain(Query{MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40)})
	assert.Equal(t, outcome.PoolOffer, e.Outcome)
	assert.Equal(t, "guests", e.Pool)
	assert.Equal(t, pool.Counts{Size: 4, Free: 4}, r.s.Pools()[0].Counts, "explaining reserves nothing")
	assert.Empty(t, r.s.PoolAddresses(""))
	require.NoError(t, r.end())
}

// Random clients, time, bindings and disk failures. At no time two live clients
// have one address of the pool, nor one a new lease of an address of the ERP. In each other
// world what a snapshot binds is excluded from the pool some packets after it came, or never.
func TestPoolInvariants(t *testing.T) {
	for seed := range uint64(long.Times(t, 20, 3000)) {
		synctest.Test(t, func(t *testing.T) { poolWalk(t, rand.New(rand.NewPCG(seed, 7)), seed%2 == 1) })
	}
}

func poolWalk(t *testing.T, rnd *rand.Rand, late bool) {
	r, snap := poolRig(t, &journal{})
	if late {
		adoptLater(r.h)
	}
	type holder struct {
		mac   provision.MAC
		until time.Time
	}
	holds := map[netip.Addr]holder{} // as the clients see it
	offered := map[provision.MAC]netip.Addr{}
	boundNow := map[netip.Addr]bool{}
	seen := 0
	for range 400 {
		mac := client(byte(rnd.IntN(9)))
		var mine, asked netip.Addr
		for a, h := range holds {
			if h.mac == mac && time.Now().Before(h.until) {
				mine = a
			}
		}
		switch rnd.IntN(10) {
		case 0, 1:
			r.ask(discoverBy(mac))
		case 2, 3, 4:
			var ok bool
			if asked, ok = offered[mac]; !ok {
				asked = host(200 + byte(rnd.IntN(4)))
			}
			r.ask(selectBy(mac, asked))
		case 5:
			if mine.IsValid() {
				r.ask(wire.Query{Type: wire.Request, MAC: mac, CIAddr: mine})
			}
		case 6:
			time.Sleep(time.Duration(rnd.IntN(40)) * time.Second)
		case 7:
			if mine.IsValid() {
				typ := []wire.MessageType{wire.Release, wire.Decline}[rnd.IntN(2)]
				q := wire.Query{Type: typ, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 40)}
				if typ == wire.Release {
					q.CIAddr = mine
				} else {
					q.Options = []wire.Option{requested(mine)}
				}
				r.ask(q)
				delete(holds, mine)
			}
		case 8:
			if rnd.IntN(3) == 0 {
				r.j.fail(errors.New("disk"))
			} else {
				r.j.fail(nil)
			}
		case 9:
			in := provision.Input{Devices: []provision.Device{{ID: 1, MAC: switch1}}, Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(host(11)), Device: 1, Port: 1}}}
			clear(boundNow)
			for n := range byte(4) {
				if rnd.IntN(3) == 0 {
					in.Lines = append(in.Lines, provision.Line{Subscriber: 60, Addresses: provision.Hosts4(host(200 + n)), Device: 1, Port: 9})
					boundNow[host(200+n)] = true
				}
			}
			next, _ := provision.Build(in)
			snap.Store(next)
		}
		synctest.Wait()
		all := r.out.all()
		for _, s := range all[seen:] {
			switch s.kind {
			case wire.Offer:
				require.False(t, boundNow[s.yourIP], "offered an address of the ERP")
				h, taken := holds[s.yourIP]
				require.False(t, taken && h.mac != mac && time.Now().Before(h.until), "offered another's address")
				offered[mac] = s.yourIP
			case wire.Ack:
				require.False(t, boundNow[s.yourIP], "leased an address of the ERP")
				h, taken := holds[s.yourIP]
				require.False(t, taken && h.mac != mac && time.Now().Before(h.until), "two clients on %v", s.yourIP)
				holds[s.yourIP] = holder{mac, time.Now().Add(2 * time.Minute)}
				last := r.j.groups[len(r.j.groups)-1]
				require.Equal(t, s.yourIP, last[len(last)-1].Lease.IP, "not on disk")
			case wire.Nak:
				if holds[asked].mac == mac { // it hears that, through its relay
					delete(holds, asked)
				}
			}
		}
		seen = len(all)
		if late && rnd.IntN(30) == 0 {
			r.s.generation.Load().pools.adopt(snap.Load, r.s.deps.Leases, time.Now())
		}
	}
	require.Equal(t, len(boundNow), r.s.Pools()[0].Bound)
	require.NoError(t, r.end())
}

// adoptLater has a handler leave what a snapshot binds to somebody else, who does not come.
func adoptLater(h *handler) { h.adopts = make(chan struct{}, 1) }

// bigPoolRig has a pool of a /12 for guests, as many of its addresses are leased as asked for, and gives
// snapshots of which each binds as many of its addresses.
func bigPoolRig(t testing.TB, leased, bound int) (h *handler, c *committer, next func(i int) *provision.Snapshot, use func(*provision.Snapshot)) {
	t.Helper()
	var snap atomic.Pointer[provision.Snapshot]
	o := testOptions()
	p := guests()
	p.Range, p.Links = v4.RangeOf(netip.MustParsePrefix("10.16.0.0/12")), []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	o.Unknown, o.Pools = v4.UnknownGuest, []v4.Pool{p}
	o.Subnets = append(o.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Gateway: ip("10.0.0.1"), LeaseTime: time.Hour})
	table := lease.New()
	for i := range leased {
		mac := provision.MAC{2, 9, 0, byte(i >> 16), byte(i >> 8), byte(i)}
		rec := guest(netip.AddrFrom4([4]byte{10, 16 + byte(i>>16), byte(i >> 8), byte(i)}), mac)
		rec.Expires = testNow.Add(time.Hour)
		table.Store(rec)
	}
	next = func(n int) *provision.Snapshot {
		in := provision.Input{Devices: []provision.Device{{ID: 1, MAC: switch1}}, Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}}}
		for i := range bound {
			in.Lines = append(in.Lines, provision.Line{Subscriber: 1, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{10, 31, byte(i >> 8), byte(i)})), Device: 1, Port: 1})
		}
		in.Lines = append(in.Lines, provision.Line{Subscriber: 1, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{10, 30, byte(n >> 8), byte(n)})), Device: 1, Port: 1})
		s, _ := provision.Build(in)
		return s
	}
	snap.Store(next(0))
	s, err := New(o, Deps{Snapshot: snap.Load, Leases: table, Journal: &journal{}, Observer: Observers{NewEventLog(16)}, Now: func() time.Time { return testNow }})
	require.NoError(t, err)
	c = newCommitter(s, discard{})
	h = newHandler(s, c, discard{}, nil)
	return h, c, next, snap.Store
}

// The first packet after a snapshot does what each does, whatever the size of the pool.
func TestFirstPacketAfterASnapshotCostsWhatTheNextDoes(t *testing.T) {
	h, _, next, use := bigPoolRig(t, 0, 1000)
	adoptLater(h)
	q := discoverBy(stranger)
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	var begin, end runtime.MemStats
	for i := range 5 {
		use(next(i))
		runtime.ReadMemStats(&begin)
		h.handle(testNow, g)
		runtime.ReadMemStats(&end)
		require.Equal(t, outcome.PoolOffer, h.ev.Outcome)
		require.Less(t, end.TotalAlloc-begin.TotalAlloc, uint64(64<<10), "it made a list of all addresses")
	}
}

// BenchmarkFirstPacketAfterASnapshot is a DISCOVER of a guest with a pool of a /12.
func BenchmarkFirstPacketAfterASnapshot(b *testing.B) {
	q := discoverBy(stranger)
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	for _, which := range []string{"first", "next"} {
		b.Run(which, func(b *testing.B) {
			h, _, next, use := bigPoolRig(b, 0, 1000)
			adoptLater(h)
			two := [2]*provision.Snapshot{next(1), next(2)}
			h.handle(testNow, g)
			for i := 0; b.Loop(); i++ {
				if which == "first" {
					use(two[i%2])
				}
				h.handle(testNow, g)
			}
		})
	}
}

// BenchmarkNewPoolLease is DISCOVER and REQUEST of a new guest, all but sockets and disk, beside other leases of its pool.
func BenchmarkNewPoolLease(b *testing.B) {
	for _, n := range []int{1000, 40_000, 900_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h, c, _, _ := bigPoolRig(b, n, 0)
			data := make([]byte, 0, 1024)
			g := socket.Datagram{From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q := discoverBy(provision.MAC{2, 8, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
				now := testNow.Add(time.Duration(i) * time.Millisecond)
				g.Data = q.Append(data)
				h.handle(now, g)
				a := h.ev.YourIP
				q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
				g.Data = q.Append(data)
				h.handle(now, g)
				if h.d.Change != v4.ChangePool {
					b.Fatal(h.ev.Outcome, h.d.Change)
				}
				c.throwAway()
			}
		})
	}
}

// guestRig is a handler that has a guest renewing; what it hands to the committer is thrown away.
func guestRig(t testing.TB) (*handler, *committer, socket.Datagram) {
	t.Helper()
	snap := world(t)
	o := testOptions()
	withGuests(&o)
	s, err := New(o, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Journal: &journal{}, Observer: Observers{NewEventLog(16)}})
	require.NoError(t, err)
	c := newCommitter(s, discard{})
	h := newHandler(s, c, discard{}, nil)
	q := discoverBy(stranger)
	q.Type, q.CIAddr = wire.Request, host(201)
	q.Options = []wire.Option{{Code: 55, Value: []byte{1, 3, 6, 15, 42}}, {Code: 61, Value: []byte{1, 2, 3}}}
	s.deps.Leases.Store(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(time.Hour) }))
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	return h, c, g
}

func (c *committer) throwAway() {
	for len(c.queue) > 0 {
		c.pool.Put(<-c.queue)
	}
}

func TestPoolSteadyStateDoesNotAllocate(t *testing.T) {
	h, c, renew := guestRig(t)
	discover := discoverBy(stranger)
	d := socket.Datagram{Data: discover.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	now := testNow
	both := func() {
		now = now.Add(time.Second)
		h.handle(now, renew)
		c.throwAway()
		h.handle(now, d)
	}
	for range 20 {
		both()
	}
	require.Equal(t, outcome.PoolOffer, h.ev.Outcome)
	if !raced {
		require.Zero(t, testing.AllocsPerRun(500, both))
	}
	h.handle(now, renew)
	require.Equal(t, v4.ChangePoolRenew, h.d.Change)
}

func BenchmarkPoolRenewal(b *testing.B) {
	h, c, renew := guestRig(b)
	now := testNow
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		h.handle(now, renew)
		c.throwAway()
	}
}

// A customer without an address keeps one over a router swap and a restart, loses it
// to the ERP's binding, and the pool says whose it is.
func TestVacantLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		first := vacants(t)
		snap.Store(first)
		o := testOptions()
		o.Pools = []v4.Pool{flats()}
		require.NoError(t, r.s.Reload(o))
		on := func(mac provision.MAC, more ...wire.Option) wire.Query {
			q := wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: port(switch1, 20), Options: more}
			if len(more) > 0 {
				q.Type = wire.Request
			}
			return q
		}
		join := func(mac provision.MAC) netip.Addr {
			r.ask(on(mac))
			require.Equal(t, outcome.PoolOffer, r.h.ev.Outcome)
			require.EqualValues(t, 20, r.h.ev.Subscriber)
			a := r.last().yourIP
			r.ask(on(mac, chosen(serverIP), requested(a)))
			synctest.Wait()
			require.Equal(t, wire.Ack, r.last().kind)
			return a
		}
		a := join(stranger)
		rec, _ := r.s.deps.Leases.Get(a)
		require.EqualValues(t, 20, rec.Subscriber)
		require.Equal(t, []string{"leased", stranger.String()}, []string{must(r.s.PoolAddress(a)).State, must(r.s.PoolAddress(a)).Holder.String()})
		require.EqualValues(t, 20, must(r.s.PoolAddress(a)).Subscriber)

		next := client(0x78)
		require.Equal(t, a, join(next), "a new router on the port")
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
		require.Equal(t, outcome.NakOtherClient, r.h.ev.Outcome, "the old one is told to go")
		require.Equal(t, 1, r.s.Pools()[0].Leased)
		require.Equal(t, "subscribers", r.s.Pools()[0].For)

		// A restart: a fresh server on the same table.
		again, err := New(o, r.s.deps)
		require.NoError(t, err)
		r.h.s = again
		r.ask(on(client(0x79)))
		require.Equal(t, outcome.TakeoverDamped, r.h.ev.Outcome, "the third one within the renewal time of the second waits for its end")
		time.Sleep(5 * time.Minute)
		r.ask(on(client(0x79)))
		require.Equal(t, a, r.last().yourIP, "the address is the line's, whatever router is there")

		e := again.Explain(Query{MAC: stranger, Option82: port(switch1, 20), GIAddr: relayIP})
		require.Equal(t, []any{outcome.PoolOffer, "flats", provision.SubscriberID(20), a}, []any{e.Outcome, e.Pool, e.Subscriber, e.YourIP})

		// The ERP binds an address to the customer.
		snap.Store(vacants(t, provision.Line{Subscriber: 20, Addresses: provision.Hosts4(host(120)), Device: 1, Port: 20}))
		r.ask(wire.Query{Type: wire.Request, MAC: next, CIAddr: a})
		require.Equal(t, outcome.NakNotBound, r.h.ev.Outcome)
		r.ask(on(next))
		require.Equal(t, host(120), r.last().yourIP)
		for _, g := range r.j.groups {
			for _, c := range g {
				require.Nil(t, c.Report)
			}
		}
		require.NoError(t, r.end())
	})
}

func must(a PoolAddress, ok bool) PoolAddress {
	if !ok {
		panic("in no pool")
	}
	return a
}

// lateStore is a store whose disk can be read only later.
type lateStore struct {
	lease.Store
	each func(lease.Record, error)
}

func (s *lateStore) Leases(each func(lease.Record, error)) error {
	s.each = each
	return nil
}

// Leases that the table has later than the pool, for the disk could not be read at the start, count from the next packet on.
func TestLeasesThatComeLaterAreNotOffered(t *testing.T) {
	store := &lateStore{Store: lease.OpenMemory()}
	tab, err := lease.Open(store)
	require.NoError(t, err)
	o := testOptions()
	p := guests()
	p.Range = v4.Range{First: host(20), Last: host(219)}
	o.Unknown, o.Pools = v4.UnknownGuest, []v4.Pool{p}
	snap := world(t)
	s, err := New(o, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: tab, Journal: &journal{}, Now: func() time.Time { return testNow }})
	require.NoError(t, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	ask := func() netip.Addr {
		q := discoverBy(stranger)
		h.handle(testNow, socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
		require.Equal(t, outcome.PoolOffer, h.ev.Outcome)
		return h.ev.YourIP
	}
	ask()
	for i := range 199 {
		rec := guest(host(byte(20+i)), provision.MAC{2, 9, 0, 0, 0, byte(i)})
		rec.Start, rec.Renewed, rec.Expires = testNow, testNow, testNow.Add(time.Duration(300-i)*time.Minute)
		if i%7 == 0 {
			rec.State = lease.StateQuarantined
		}
		store.each(rec, nil)
	}
	assert.Equal(t, host(219), ask())
	assert.Zero(t, s.Pools()[0].Free)
}

// Who looks at the pools does not bring back the snapshot of before to a packet that has a newer one: an address that the ERP binds
// by now would be offered.
func TestLookingAtPoolsBringsNoOldSnapshotBack(t *testing.T) {
	var snap atomic.Pointer[provision.Snapshot]
	snap.Store(world(t))
	tab := newTable(t)
	o := testOptions()
	withGuests(&o)
	look := snap.Load
	s, err := New(o, Deps{Snapshot: func() *provision.Snapshot { return look() }, Leases: tab, Journal: &journal{}, Now: func() time.Time { return testNow }})
	require.NoError(t, err)
	s.Pools()
	p := s.generation.Load().pools
	in := provision.Input{Devices: []provision.Device{{ID: 1, MAC: switch1}}, Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}},
		Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(guests().First), Device: 1, Port: 1}}}
	newer, _ := provision.Build(in)
	look = func() *provision.Snapshot {
		before := snap.Load()
		if mu := &p.all[0].alloc.mu; mu.TryLock() { // a packet may come now
			mu.Unlock()
			snap.Store(newer)
			p.renew(newer)
		}
		return before
	}
	s.Pools()
	look = snap.Load
	if snap.Load() == newer {
		at, _ := p.Pick(0, stranger.Owner(), guests().First, testNow)
		assert.NotEqual(t, guests().First, at)
	}
}

// A record from before the start, of a clock that was years ahead, keeps its address for as long as its lease may last, and not for years: it would be the first that each
// other line is to get, and be refused it.
func TestRecordOfAClockAheadKeepsAnAddressForItsLease(t *testing.T) {
	const year = 365 * 24 * time.Hour
	on := func(mac provision.MAC, n byte) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: port(switch1, n)}
	}
	for name, c := range map[string]struct {
		q             wire.Query
		before, after outcome.Outcome
		line          provision.SubscriberID // whose the record is
	}{
		"another line":                {on(client(0x77), 20), outcome.PoolExhausted, outcome.PoolOffer, 27},
		"the ERP's MAC, not by place": {wire.Query{Type: wire.Discover, MAC: client(0xa7)}, outcome.PortFull, outcome.PoolOffer, 27},
		"a new router on the line":    {on(client(0x77), 27), outcome.PoolOffer, outcome.PoolOffer, 27},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, snap := poolRig(t, &journal{})
				defer func() { require.NoError(t, r.end()) }()
				snap.Store(vacants(t))
				var l *provision.Line
				for x := range snap.Load().BySubscriber(c.line).All() {
					l = x
				}
				at := time.Now().Add(10 * year)
				rec := lease.Record{
					IP: host(210), MAC: stranger, Subscriber: c.line, Device: l.Device, Port: l.Port, Option82: port(switch1, byte(l.Port)), GIAddr: relayIP, Pool: "flats", Key: l.Owner,
					State: lease.StateBound, Start: at, Renewed: at, Expires: at.Add(10 * time.Minute),
				}
				r.s.deps.Leases.Store(rec)
				o := testOptions()
				p := flats()
				p.Range.Last = p.Range.First // nothing else is free
				o.Pools = []v4.Pool{p}
				require.NoError(t, r.s.Reload(o))
				r.ask(c.q)
				assert.Equal(t, c.before.String(), r.h.ev.Outcome.String(), "its client may be there")
				time.Sleep(11 * time.Minute)
				r.ask(c.q)
				assert.Equal(t, c.after.String(), r.h.ev.Outcome.String())
				assert.Equal(t, host(210), r.h.ev.YourIP)
			})
		})
	}
}
