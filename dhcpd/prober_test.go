package dhcpd

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// fakeWire is a wire with squatters on it; they answer after a millisecond.
type fakeWire struct {
	answers chan socket.Sighting

	mu        sync.Mutex // guards the fields below
	squatters map[netip.Addr]provision.MAC
	asked     []netip.Addr
}

// questions returns the addresses that were asked for.
func (f *fakeWire) questions() []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *fakeWire) squat(a netip.Addr, mac provision.MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.squatters[a] = mac
}

func (f *fakeWire) Heard() <-chan socket.Sighting { return f.answers }

func (f *fakeWire) Ask(ifindex int, target netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, target)
	if mac, ok := f.squatters[target]; ok {
		time.AfterFunc(time.Millisecond, func() { f.answers <- socket.Sighting{Ifindex: ifindex, IP: target, MAC: mac} })
	}
	return nil
}

// probeRig is a pool rig whose pool is probed.
func probeRig(t *testing.T, squatters map[netip.Addr]provision.MAC) (*rig, *fakeWire) {
	r, _ := poolRig(t, &journal{})
	o := testOptions()
	withGuests(&o)
	o.Pools[0].Probe = true
	require.NoError(t, r.s.Reload(o))
	w := &fakeWire{squatters: squatters, answers: make(chan socket.Sighting, 10)}
	r.h.prober = newProber(r.s, r.out, w)
	done := make(chan struct{})
	go func() { defer close(done); r.h.prober.run() }()
	end := r.end
	r.end = func() error {
		close(r.h.prober.queue)
		<-done
		return end()
	}
	return r, w
}

func directBy(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Discover, MAC: mac} }

func TestProbeBeforeOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := probeRig(t, nil)
		begin := time.Now()
		r.ask(directBy(stranger))
		r.ask(selectingOn(2, client(0x77), host(21))) // others do not wait
		synctest.Wait()
		require.Len(t, r.out.all(), 1)
		assert.Equal(t, host(21), r.last().yourIP)
		time.Sleep(time.Second)
		require.Len(t, r.out.all(), 2)
		a := r.last().yourIP
		assert.Equal(t, wire.Offer, r.last().kind)
		assert.Equal(t, probeWait, r.last().at.Sub(begin))
		assert.Equal(t, []netip.Addr{a, a}, w.questions(), "twice")
		r.ask(directBy(stranger))
		synctest.Wait()
		assert.Len(t, r.out.all(), 3, "asked for lately: at once")
		r.ask(discoverBy(client(1)))
		assert.Len(t, r.out.all(), 4, "behind a relay nobody can be asked")
		require.Len(t, w.questions(), 2)
		time.Sleep(probeFresh)
		r.ask(directBy(stranger))
		synctest.Wait()
		require.Len(t, w.questions(), 3, "asked again after a time")
		require.NoError(t, r.end())
		assert.Len(t, r.out.all(), 5, "what waits at the end leaves")
		assert.EqualValues(t, 2, r.s.Pools()[0].Probes)
		assert.Equal(t, 4, r.n.get()["discover pool_offer"])
	})
}

func TestConflictLeadsToAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := probeRig(t, map[netip.Addr]provision.MAC{host(203): client(0x66)}) // where the hash of stranger points
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		sent := r.out.all()
		require.Len(t, sent, 1)
		a := sent[0].yourIP
		require.NotEqual(t, host(203), a)
		assert.Equal(t, netip.AddrPortFrom(a, 68).String(), sent[0].to, "the frame is for the new address")
		assert.Equal(t, []netip.Addr{host(203), a, a}, w.questions())
		events := r.log.Find(EventFilter{})
		require.Len(t, events, 1)
		assert.Equal(t, a, events[0].YourIP)
		rec, ok := r.s.deps.Leases.Get(host(203))
		require.True(t, ok)
		assert.Equal(t, lease.StateQuarantined, rec.State)
		assert.Equal(t, client(0x66), rec.MAC, "who uses it is on record")
		assert.Equal(t, 1, r.dirty(), "and comes to disk")
		q := directBy(stranger)
		q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
		r.ask(q)
		time.Sleep(time.Second)
		assert.Equal(t, wire.Ack, r.last().kind)
		// The client that answers for its own address is no conflict.
		w.squat(a, stranger)
		time.Sleep(probeFresh)
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		assert.Equal(t, a, r.last().yourIP)
		st := r.s.Pools()[0]
		assert.EqualValues(t, 1, st.Conflicts)
		assert.Equal(t, 1, st.Quarantined)
		require.NoError(t, r.end())
	})
}

func TestConflictEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := probeRig(t, map[netip.Addr]provision.MAC{host(200): client(6), host(201): client(6), host(202): client(6), host(203): client(6)})
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		assert.Empty(t, r.out.all())
		assert.Len(t, w.questions(), probeTries)
		assert.Equal(t, map[string]int{"discover pool_conflict": 1}, r.n.get())
		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		r.ask(directBy(stranger))
		assert.Equal(t, map[string]int{"discover pool_conflict": 2, "discover pool_exhausted": 1}, r.n.get())
		require.NoError(t, r.end())
	})
}

// On a wire of the router's own nobody can tell who sent a DECLINE, so it only marks the lease. When its client asks
// anew the wire is asked: a client that found another host at its address gets an address that works, one in
// whose name somebody else declined keeps what it has.
func TestDeclinedAddressIsAskedForAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rival  bool // another host answers for the address
		itself bool // and so does the client
		bound  bool // the client renews while the wire is asked
		moves  bool
	}{
		{"somebody else has it", true, false, false, true},
		{"both answer", true, true, false, false},
		{"the client alone answers", false, true, false, false},
		{"nobody answers", false, false, false, false},
		{"somebody else has it, and the client renews", true, false, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := probeRig(t, map[netip.Addr]provision.MAC{})
				defer func() { require.NoError(t, r.end()) }()
				r.ask(directBy(stranger))
				time.Sleep(time.Second)
				a := r.last().yourIP
				q := directBy(stranger)
				q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
				r.ask(q)
				time.Sleep(time.Second)
				require.Equal(t, wire.Ack, r.last().kind)
				q.Type = wire.Decline
				r.ask(q)
				require.Equal(t, outcome.PoolDeclined, r.h.ev.Outcome)
				rec, _ := r.s.deps.Leases.Get(a)
				require.True(t, rec.Kept(time.Now()))

				asked := len(w.questions())
				if tc.rival {
					w.squat(a, client(0x66))
				}
				r.ask(directBy(stranger))
				synctest.Wait()
				require.Greater(t, len(w.questions()), asked, "although it was asked for lately")
				time.Sleep(10 * time.Millisecond) // the other one is quicker
				if tc.itself {
					w.answers <- socket.Sighting{Ifindex: 3, IP: a, MAC: stranger}
				}
				if tc.bound {
					r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a})
				}
				time.Sleep(time.Second)
				require.Equal(t, wire.Offer, r.last().kind)
				rec, _ = r.s.deps.Leases.Get(a)
				if tc.moves {
					assert.NotEqual(t, a, r.last().yourIP)
					assert.Equal(t, lease.StateQuarantined, rec.State)
					assert.Equal(t, client(0x66), rec.MAC)
					assert.EqualValues(t, 1, r.s.Pools()[0].Conflicts)
					return
				}
				assert.Equal(t, a, r.last().yourIP)
				assert.Equal(t, stranger, rec.MAC)
				assert.True(t, rec.Live(time.Now()))
				assert.Zero(t, r.s.Pools()[0].Conflicts)
			})
		})
	}
}

// A DISCOVER that was sent twice has two questions on the wire. The client takes the first offer, and then somebody answers the second
// question with a forged reply: that ends no lease, whoever has it.
func TestARPEndsNoLeaseThatBeganMeanwhile(t *testing.T) {
	for name, other := range map[string]bool{"the client's own": false, "of a customer for whom the ERP binds it by then": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := probeRig(t, nil)
				r.ask(directBy(stranger))
				time.Sleep(probeWait - 50*time.Millisecond)
				r.ask(directBy(stranger))
				time.Sleep(100 * time.Millisecond)
				require.Len(t, r.out.all(), 1, "the second one waits")
				a, holder := r.last().yourIP, stranger
				if other {
					holder = client(0x50)
					r.s.deps.Leases.Store(with(bound(a, holder, 50), func(rec *lease.Record) { rec.Expires = time.Now().Add(time.Hour) }))
				} else {
					q := directBy(stranger)
					q.Type, q.Options = wire.Request, []wire.Option{chosen(serverIP), requested(a)}
					r.ask(q)
					time.Sleep(10 * time.Millisecond)
					require.Equal(t, wire.Ack, r.last().kind)
				}
				w.answers <- socket.Sighting{Ifindex: 3, IP: a, MAC: client(0x66)}
				time.Sleep(time.Second)
				rec, _ := r.s.deps.Leases.Get(a)
				assert.Equal(t, holder, rec.MAC)
				assert.True(t, rec.Live(time.Now()))
				st := r.s.Pools()[0]
				assert.Zero(t, st.Conflicts)
				assert.Zero(t, st.Quarantined)
				assert.Equal(t, a, r.last().yourIP, "and the second offer is that of the first")
				require.NoError(t, r.end())
				assert.Equal(t, 2, r.n.get()["discover pool_offer"])
			})
		})
	}
}

// While the disk cannot be read, who answers for an address may have its lease there: what ARP says then is kept from the record, and the lease
// is the client's again when it comes.
func TestARPOutranksNoLeaseThatIsStillToBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		holder, squatter := client(0x66), client(0x67)
		r, _ := probeRig(t, map[netip.Addr]provision.MAC{host(203): holder, host(202): squatter})
		defer func() { require.NoError(t, r.end()) }()
		store := &lateStore{Store: lease.OpenMemory()}
		tab, err := lease.Open(store)
		require.NoError(t, err)
		failing := true
		r.s.deps.Leases, r.s.deps.Failing = tab, func() bool { return failing }
		o := r.options()
		o.Pools[0].Probe = true
		require.NoError(t, r.s.Reload(o))

		r.ask(directBy(stranger))
		time.Sleep(time.Second)
		require.EqualValues(t, 1, r.s.Pools()[0].Conflicts)
		require.NotEqual(t, host(203), r.last().yourIP)
		assert.Zero(t, tab.Len(), "nothing is on record that would be newer than the disk")
		slot, _ := r.s.PoolAddress(host(203))
		assert.Equal(t, "quarantined", slot.State, "though nobody is offered it")

		store.each(with(guest(host(203), holder), func(rec *lease.Record) {
			rec.Start, rec.Renewed, rec.Expires = time.Now(), time.Now(), time.Now().Add(time.Minute)
		}), nil)
		failing = false
		r.ask(wire.Query{Type: wire.Request, MAC: holder, CIAddr: host(203)})
		time.Sleep(time.Second)
		assert.Equal(t, outcome.PoolAck, r.log.Find(EventFilter{Limit: 1})[0].Outcome)
		rec, _ := tab.Get(host(203))
		assert.Equal(t, holder, rec.MAC)
		assert.True(t, rec.Live(time.Now()))

		q := directBy(client(0x77)) // from now on it is on record
		q.Options = []wire.Option{requested(host(202))}
		r.ask(q)
		time.Sleep(time.Second)
		rec, _ = tab.Get(host(202))
		assert.Equal(t, lease.StateQuarantined, rec.State)
		assert.Equal(t, squatter, rec.MAC)
	})
}
