package dhcpd

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
)

// erpOfFight has the MAC of one address and is fetched every few minutes.
type erpOfFight struct {
	t    *testing.T
	snap *atomic.Pointer[provision.Snapshot]

	mu     sync.Mutex // guards the fields below
	mac    provision.MAC
	writes []time.Time
}

const fetchEvery = 5 * time.Minute

// SetMAC implements outbox.Sender.
func (e *erpOfFight) SetMAC(_ context.Context, at netip.Addr, mac provision.MAC) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	assert.Equal(e.t, host(21), at)
	e.mac = mac
	e.writes = append(e.writes, time.Now())
	return nil
}

func (e *erpOfFight) fetch() {
	e.mu.Lock()
	defer e.mu.Unlock()
	snap, _ := provision.Build(provision.Input{
		FetchedAt: time.Now(), Devices: world(e.t).Devices(),
		Lines: []provision.Line{{Subscriber: 2, Addresses: provision.Hosts4(host(21)), MAC: e.mac, Device: 1, Port: 2}},
	})
	e.snap.Store(snap)
}

// device is a client of RFC 2131 on port 2 that always wants an address.
type device struct {
	mac   provision.MAC
	bound bool
	due   time.Time // of its next packet; zero: it is off
	wait  time.Duration
}

// fight is a port with one address and the devices on it.
type fight struct {
	*rig
	erp     *erpOfFight
	box     *outbox.Outbox
	devices []*device
	text    *bytes.Buffer // of the log

	naks, takeovers int
	holder          provision.MAC
	changes         []time.Time // when another device got the address
}

// newFight makes a port whose address the ERP has with a MAC; zero: with none.
func newFight(t *testing.T, known provision.MAC, change ...func(*Options)) *fight {
	t.Helper()
	r, snap := poolRig(t, nil)
	require.NoError(t, r.end())
	f := &fight{rig: r, erp: &erpOfFight{t: t, snap: snap, mac: known}, text: &bytes.Buffer{}}
	f.erp.fetch()
	store := lease.OpenMemory()
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	tab, err := lease.Open(store)
	require.NoError(t, err)
	f.box, err = outbox.Open(store, f.outboxOptions(tab), f.erp, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	o := testOptions()
	for _, c := range change {
		c(&o)
	}
	r.s, err = New(o, Deps{
		Snapshot: snap.Load, Leases: tab, Journal: lease.Journal{Table: tab, Reports: f.box}, Observer: Observers{r.n, r.log},
		Log: slog.New(slog.NewTextHandler(f.text, nil)),
	})
	require.NoError(t, err)
	r.c = newCommitter(r.s, r.out)
	r.h = newHandler(r.s, r.c, r.out, nil)
	ctx, stop := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { assert.NoError(t, r.c.run()) })
	tasks.Go(func() { assert.NoError(t, f.box.Run(ctx)) })
	t.Cleanup(func() {
		stop()
		close(r.c.queue)
		tasks.Wait()
	})
	return f
}

func (f *fight) outboxOptions(tab *lease.Table) outbox.Options {
	return outbox.Options{
		Enabled: true, Rate: 5, Burst: 10, Settled: outbox.Settled(f.erp.snap.Load, tab),
		Changes: outbox.Changes(f.erp.snap.Load), Overtaken: outbox.Overtaken(tab),
	}
}

// add plugs a device in.
func (f *fight) add(n byte) *device {
	d := &device{mac: client(n), due: time.Now()}
	f.devices = append(f.devices, d)
	return d
}

// run goes on for a time, with a fetch from the ERP every few minutes.
func (f *fight) run(d time.Duration) {
	end := time.Now().Add(d)
	for fetch := time.Now().Add(fetchEvery); ; {
		var next *device
		for _, dev := range f.devices {
			if !dev.due.IsZero() && (next == nil || dev.due.Before(next.due)) {
				next = dev
			}
		}
		switch {
		case next != nil && next.due.Before(fetch) && next.due.Before(end):
			time.Sleep(time.Until(next.due))
			f.step(next)
		case fetch.Before(end):
			time.Sleep(time.Until(fetch))
			f.erp.fetch()
			fetch = fetch.Add(fetchEvery)
		default:
			time.Sleep(time.Until(end))
			synctest.Wait()
			return
		}
	}
}

// exchange sends a packet and returns the answer; its kind is zero if there is none.
func (f *fight) exchange(q wire.Query) sentReply {
	before := len(f.out.all())
	q.Option82 = port(switch1, 2)
	q.GIAddr = relayIP
	f.ask(q)
	synctest.Wait()
	if all := f.out.all(); len(all) > before {
		return all[before]
	}
	return sentReply{}
}

// step is the next thing that a device does.
func (f *fight) step(d *device) {
	if d.bound {
		switch f.exchange(wire.Query{Type: wire.Request, MAC: d.mac, CIAddr: host(21)}).kind {
		case wire.Ack:
			d.due = d.due.Add(30 * time.Minute)
			return
		case wire.Nak:
			f.naks++
		}
		d.bound, d.wait = false, 0
	}
	if f.exchange(wire.Query{Type: wire.Discover, MAC: d.mac}).kind != wire.Offer {
		d.wait = min(max(4*time.Second, 2*d.wait), 64*time.Second)
		d.due = d.due.Add(d.wait)
		return
	}
	got := f.exchange(wire.Query{Type: wire.Request, MAC: d.mac, Options: []wire.Option{chosen(serverIP), requested(host(21))}})
	if got.kind != wire.Ack {
		d.due = d.due.Add(10 * time.Second)
		return
	}
	if f.holder != d.mac {
		if !f.holder.IsZero() {
			f.takeovers++
		}
		f.holder = d.mac
		f.changes = append(f.changes, time.Now())
	}
	d.bound, d.due = true, d.due.Add(30*time.Minute)
}

func (f *fight) writes() []time.Time {
	f.erp.mu.Lock()
	defer f.erp.mu.Unlock()
	return append([]time.Time(nil), f.erp.writes...)
}

// checkPace fails the test if take-overs or writes to the ERP come quicker than they may. The
// first take-over is a swap of routers.
func (f *fight) checkPace(t *testing.T) {
	t.Helper()
	for i := 2; i < len(f.changes); i++ {
		require.GreaterOrEqual(t, f.changes[i].Sub(f.changes[i-1]), 30*time.Minute, "one take-over per renewal time")
	}
	writes := f.writes()
	for i := 1; i < len(writes); i++ {
		require.GreaterOrEqual(t, writes[i].Sub(writes[i-1]), time.Hour, "one write an hour")
	}
}

// Two devices on a port with one address, for a day: without a bound there are 96 take-overs
// and as many writes to the ERP, with one half and a long of that.
func TestTwoDevicesFightForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFight(t, client(0xa1))
		f.add(0xa1)
		f.run(time.Minute)
		f.add(0xb2)
		f.run(24 * time.Hour)
		t.Logf("%d NAKs, %d take-overs, %d writes to the ERP", f.naks, f.takeovers, len(f.writes()))
		f.checkPace(t)
		assert.InDelta(t, 48, f.takeovers, 1, "each has its turn")
		assert.LessOrEqual(t, f.naks, 48)
		assert.InDelta(t, 20, len(f.writes()), 4, "and the ERP hears of it")
		assert.Positive(t, f.n.get()["discover takeover_damped"])
		assert.LessOrEqual(t, strings.Count(f.text.String(), "two devices fight"), f.takeovers, "a line for each take-over that waits, not for each packet")
		assert.Positive(t, f.box.Status(0).Damped)
	})
}

// Where the ERP is told first, and answers come when it has the MAC, it is told no more often, and each
// has its turn.
func TestFightWhereTheERPIsToldFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFight(t, client(0xa1), func(o *Options) { o.MACChange = v4.MACReport })
		f.add(0xa1)
		f.run(time.Minute)
		f.add(0xb2)
		f.run(24 * time.Hour)
		t.Logf("%d NAKs, %d take-overs, %d writes to the ERP", f.naks, f.takeovers, len(f.writes()))
		f.checkPace(t)
		assert.InDelta(t, 22, len(f.writes()), 2)
		assert.InDelta(t, len(f.writes()), f.takeovers, 1, "each write gives the address to whom it names")
	})
}

func TestThreeDevicesFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFight(t, client(0xa1))
		for _, n := range []byte{0xa1, 0xb2, 0xc3} {
			f.add(n)
			f.run(time.Minute)
		}
		f.run(12 * time.Hour)
		f.checkPace(t)
		assert.InDelta(t, 24, f.takeovers, 1)
	})
}

// A new router in place of the old one is served at once, and the ERP hears of it at once, also where
// it has learnt the old one's MAC within the hour.
func TestSwapOfRoutersIsNotDamped(t *testing.T) {
	for _, known := range []provision.MAC{{}, client(0xa1)} {
		synctest.Test(t, func(t *testing.T) {
			f := newFight(t, known)
			old := f.add(0xa1)
			f.run(10 * time.Minute)
			old.due = time.Time{} // unplugged
			swapped := time.Now()
			f.add(0xb2)
			f.run(2 * time.Second)
			assert.Equal(t, client(0xb2), f.holder)
			require.Len(t, f.changes, 2)
			assert.Equal(t, swapped, f.changes[1])
			writes := f.writes()
			require.NotEmpty(t, writes)
			assert.Less(t, writes[len(writes)-1].Sub(swapped), time.Second)
			f.erp.mu.Lock()
			assert.Equal(t, client(0xb2), f.erp.mac)
			f.erp.mu.Unlock()
			f.run(24 * time.Hour)
			assert.Len(t, f.writes(), len(writes), "and that is all")
			assert.Zero(t, f.n.get()["discover takeover_damped"])
			assert.Empty(t, f.text.String())
		})
	}
}

// The wait ends with the lease of who has the address, and with its RELEASE.
func TestWaitEndsWithTheLease(t *testing.T) {
	long := func(o *Options) {
		o.Subnets[0].LeaseTime, o.Subnets[0].RenewTime, o.Subnets[0].RebindTime = time.Hour, 59*time.Minute, 59*time.Minute
	}
	for name, tc := range map[string]struct {
		end  func(*fight)
		wait time.Duration
	}{
		"time is over": {func(*fight) {}, 59 * time.Minute},
		"released": {func(f *fight) {
			f.exchange(wire.Query{Type: wire.Release, MAC: client(0xb2), CIAddr: host(21)})
		}, 0},
		"released by nobody knows whom": {func(f *fight) {
			f.s.deps.Leases.Keep(host(21), client(0xb2), lease.StateReleased, time.Now())
		}, 0},
		"ended": {func(f *fight) {
			rec, _ := f.s.deps.Leases.Get(host(21))
			rec.Expires = time.Now()
			f.s.deps.Leases.Store(rec)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFight(t, client(0xa1), long)
				f.add(0xa1).due = time.Now()
				f.step(f.devices[0])
				f.step(f.add(0xb2))
				require.Equal(t, client(0xb2), f.holder)
				ask := wire.Query{Type: wire.Discover, MAC: client(0xa1)}
				require.Zero(t, f.exchange(ask).kind)
				require.Equal(t, outcome.TakeoverDamped, f.h.ev.Outcome)
				tc.end(f)
				if tc.wait > 0 {
					time.Sleep(tc.wait - time.Second)
					require.Zero(t, f.exchange(ask).kind)
					time.Sleep(time.Second)
				}
				require.Equal(t, wire.Offer, f.exchange(ask).kind)
			})
		})
	}
}

// Event, log and explanation name both, and until when the one waits.
func TestFightNamesBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFight(t, client(0xa1))
		a, b := f.add(0xa1), f.add(0xb2)
		f.step(a)
		time.Sleep(time.Minute)
		f.step(b)
		until := time.Now().Add(30 * time.Minute)
		time.Sleep(time.Minute)
		renew := f.exchange(wire.Query{Type: wire.Request, MAC: a.mac, CIAddr: host(21)})
		require.Equal(t, wire.Nak, renew.kind)
		e := f.log.Find(EventFilter{Limit: 1})[0]
		assert.Equal(t, []any{outcome.NakOtherClient, a.mac, b.mac}, []any{e.Outcome, e.MAC, e.Rival})
		for range 3 {
			require.Zero(t, f.exchange(wire.Query{Type: wire.Discover, MAC: a.mac}).kind)
		}
		e = f.log.Find(EventFilter{Limit: 1})[0]
		assert.Equal(t, []any{outcome.TakeoverDamped, a.mac, b.mac, host(21), provision.SubscriberID(2)}, []any{e.Outcome, e.MAC, e.Rival, e.YourIP, e.Subscriber})
		require.Equal(t, 1, strings.Count(f.text.String(), "\n"))
		for _, part := range []string{"level=WARN", "ip=192.0.2.21", "subscriber=2", "has_it=" + b.mac.String(), "wants_it=" + a.mac.String(),
			"source=" + relayIP.String() + ":67", "vouched_by=relay", "matched_by=option82", "rule=discover_has"} {
			assert.Contains(t, f.text.String(), part)
		}
		x := f.s.Explain(Query{MAC: a.mac, GIAddr: relayIP, Option82: port(switch1, 2)})
		assert.Equal(t, []any{outcome.TakeoverDamped, b.mac, host(21)}, []any{x.Outcome, x.Rival, x.YourIP})
		assert.Equal(t, until.UnixMilli(), x.Until.UnixMilli())
		require.NotNil(t, x.Lease)
		assert.Equal(t, a.mac, x.Lease.Prior, "whom the address was taken from")

		reboot := f.exchange(wire.Query{Type: wire.Request, MAC: a.mac, Options: []wire.Option{requested(host(21))}})
		assert.Equal(t, wire.Nak, reboot.kind, "who remembers the address is not to use it")
		x = f.s.Explain(Query{MAC: b.mac, GIAddr: relayIP, Option82: port(switch1, 2)})
		assert.Equal(t, outcome.Offer, x.Outcome, "who has it keeps it")
		assert.Zero(t, x.Rival)
	})
}

// The log tells of so many fights at a time and no more, and of new ones when old ones are over.
func TestFightsThatAreRememberedAreBounded(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	var f fights
	at := func(i int) *Event {
		return &Event{Time: testNow, YourIP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
	}
	for range 2 {
		for i := range 2 * maxFights {
			f.log(log, at(i), testNow.Add(time.Minute))
		}
	}
	assert.Len(t, f, maxFights)
	assert.Equal(t, maxFights, strings.Count(text.String(), "\n"))
	later := at(5000)
	later.Time = testNow.Add(time.Minute)
	f.log(log, later, testNow.Add(time.Hour))
	assert.Len(t, f, 1)
}

// So it is with the address that a pool has for a line: the router that took it keeps it for a time.
func TestFightOverAPoolsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		defer func() { require.NoError(t, r.end()) }()
		snap.Store(vacants(t))
		o := testOptions()
		o.Pools = []v4.Pool{flats()}
		require.NoError(t, r.s.Reload(o))
		at := func(q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, 20); return q }
		ask := func(mac byte) outcome.Outcome {
			r.ask(at(wire.Query{Type: wire.Discover, MAC: client(mac)}))
			return r.h.ev.Outcome
		}
		take := func(mac byte) outcome.Outcome {
			r.ask(at(wire.Query{Type: wire.Request, MAC: client(mac), Options: []wire.Option{chosen(serverIP), requested(host(210))}}))
			synctest.Wait()
			return r.h.ev.Outcome
		}
		require.Equal(t, outcome.PoolOffer, ask(0x77))
		require.Equal(t, outcome.PoolAck, take(0x77))
		time.Sleep(time.Minute)
		require.Equal(t, outcome.PoolOffer, ask(0x78), "a new router takes over at once")
		require.Equal(t, outcome.PoolAck, take(0x78))
		rec, _ := r.s.deps.Leases.Get(host(210))
		require.Equal(t, client(0x77), rec.Prior)
		assert.Equal(t, outcome.TakeoverDamped, ask(0x77))
		assert.Equal(t, []any{client(0x78), host(210), provision.SubscriberID(20)}, []any{r.h.ev.Rival, r.h.ev.YourIP, r.h.ev.Subscriber})
		assert.Equal(t, outcome.NakOtherClient, take(0x77))
		time.Sleep(4 * time.Minute)
		require.Equal(t, outcome.PoolAck, take(0x78), "a renewal")
		rec, _ = r.s.deps.Leases.Get(host(210))
		require.Equal(t, client(0x77), rec.Prior, "changes nothing")
		assert.Equal(t, outcome.TakeoverDamped, ask(0x77))
		time.Sleep(time.Minute)
		require.Equal(t, outcome.PoolOffer, ask(0x77), "half of its ten minutes are over")
		require.Equal(t, outcome.PoolAck, take(0x77))
	})
}
