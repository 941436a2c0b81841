package access

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// countedLeases counts how often all leases are walked.
type countedLeases struct {
	*lease.Table
	walks atomic.Int64
}

func (c *countedLeases) All() iter.Seq[lease.Record] {
	c.walks.Add(1)
	return c.Table.All()
}

// followTest is an enforcer that follows a table of leases.
type followTest struct {
	*enforcerTest
	sources  *Sources
	leases   *countedLeases
	follower *Follower
	exist    atomic.Pointer[[]string] // interfaces
}

func startFollower(t *testing.T, o SourceOptions, opts Options, snap *provision.Snapshot) *followTest {
	t.Helper()
	f := &followTest{leases: &countedLeases{Table: lease.New()}}
	f.exist.Store(&[]string{"eth1", "eth2.100", "eth2.101"})
	f.sources = NewSources(o, f.leases, nil, func() []string { return *f.exist.Load() })
	if opts.VerifyInterval == 0 {
		opts.VerifyInterval = time.Hour
	}
	opts.Inputs = f.sources.Inputs
	f.enforcerTest = startEnforcer(t, opts, ACL{}, snap)
	f.follower = Follow(f.sources, f.Enforcer)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.follower.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	synctest.Wait()
	return f
}

// direct is a lease of a client on eth1 for an hour.
func direct(ip netip.Addr, mac provision.MAC) lease.Record {
	return lease.Record{IP: ip, MAC: mac, Interface: "eth1", State: lease.StateBound, Renewed: time.Now(), Expires: time.Now().Add(time.Hour)}
}

// want is what is asked for now, with what is remembered of customers whom the snapshot does not have.
func (f *followTest) want(t *testing.T) ACL {
	t.Helper()
	want, err := f.Want()
	require.NoError(t, err)
	return want
}

// uses is what was asked of the kernel, and how often all leases were walked.
func (f *followTest) uses() [4]int {
	observed, batches := f.kernel.used()
	f.kernel.mu.Lock()
	defer f.kernel.mu.Unlock()
	return [4]int{observed, batches, f.kernel.asked, int(f.leases.walks.Load())}
}

func TestCommitWaitsForItsOwnElementsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provision.Input{Subscribers: []provision.Subscriber{{ID: 7, State: provision.StateActive}, {ID: 8, State: provision.StateStop}}}
		f := startFollower(t, SourceOptions{
			Pools: true, GuardDirect: provision.Patterns{"eth1"},
			GuestRanges: []AddrRange{{provisiontest.Addr("198.51.100.1"), provisiontest.Addr("198.51.100.200")}},
		}, Options{}, provisiontest.Build(t, in))
		ip := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, n}) }
		admit := func(rec lease.Record) {
			t.Helper()
			rec.State, rec.Expires = lease.StateBound, time.Now().Add(time.Hour)
			f.leases.Store(rec)
			f.follower.Admit([]netip.Addr{rec.IP})()
		}
		before, rounds := f.uses(), f.Status().Rounds
		admit(lease.Record{IP: ip(1), MAC: testMAC, Pool: "guests", GIAddr: ip(254)})                 // is a guest anyway
		admit(lease.Record{IP: ip(220), MAC: testMAC, Subscriber: 7, Pool: "flats", GIAddr: ip(254)}) // active
		admit(lease.Record{IP: ip(221), MAC: testMAC, Subscriber: 7, GIAddr: ip(254)})                // a binding, behind a relay
		admit(lease.Record{IP: ip(222), MAC: testMAC, Subscriber: 7, Interface: "eth9"})              // not guarded
		synctest.Wait()
		assert.Equal(t, before, f.uses(), "nothing is asked of the kernel, no lease is walked")
		assert.Equal(t, rounds, f.Status().Rounds)

		began := time.Now()
		admit(lease.Record{IP: ip(2), MAC: otherMAC, Subscriber: 8, Pool: "flats", Interface: "eth1"})
		assert.Zero(t, time.Since(began))
		bound, err := SetBoundDirect.Element(Fields{Addr: ip(2), MAC: otherMAC})
		require.NoError(t, err)
		f.kernel.mu.Lock()
		assert.Equal(t, [][]Change{{{provision.OpAdd, bound}, {provision.OpAdd, addrIn(SetStopped, ip(2))}, {provision.OpRemove, addrIn(SetGuests, ip(2))}}},
			f.kernel.batches[1:], "one batch of its own elements")
		f.kernel.mu.Unlock()
		after := f.uses()
		assert.Equal(t, [4]int{before[0], before[1] + 1, before[2], before[3]}, after, "no round")
		pass(time.Second) // after the pass for the guests at the start
		assert.Equal(t, []netip.Addr{ip(2)}, slices.Concat(f.flows.take()...)[200:], "a guest's flows end with the stop")
		set, known := f.Standing(ip(2))
		assert.True(t, known)
		assert.Equal(t, SetStopped, set)
		assert.Zero(t, testing.AllocsPerRun(100, func() { f.Standing(ip(2)) }))
		st := f.Status()
		assert.Equal(t, f.kernel.acl().Counts(), st.Have)
		assert.Equal(t, st.Have, st.Want)
		assert.Equal(t, []int{1, 3}, []int{st.HaveStopped, st.LastBatchChanges})
		assert.Equal(t, 1, f.log.stopped, "the metrics know it, too")

		for n := byte(1); n < 3; n++ {
			assert.Zero(t, testing.AllocsPerRun(100, func() { f.follower.Admit([]netip.Addr{ip(n)})() }), "the same again: 198.51.100.%d", n)
		}
		assert.Equal(t, after, f.uses())
	})
}

// With the ACL off or in a dry run nobody waits, and what would be wanted is known all the same.
func TestDryRunIsFollowedByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provision.Input{Subscribers: []provision.Subscriber{{ID: 8, State: provision.StateStop}}}
		f := startFollower(t, SourceOptions{Pools: true}, Options{DryRun: true}, provisiontest.Build(t, in))
		walks, rounds := f.leases.walks.Load(), f.Status().Rounds
		rec := direct(testIP, testMAC)
		rec.Pool, rec.Subscriber = "flats", 8
		f.leases.Store(rec)
		assert.Nil(t, f.follow([]netip.Addr{testIP}, true))
		synctest.Wait()
		set, _ := f.Standing(testIP)
		assert.Equal(t, SetStopped, set)
		assert.Equal(t, 1, f.Status().Pending)
		assert.Equal(t, []int64{walks, int64(rounds)}, []int64{f.leases.walks.Load(), int64(f.Status().Rounds)})
		assert.Empty(t, f.kernel.times)
	})
}

// gate is a kernel that takes its time for a batch.
type gate struct {
	*fakeKernel
	open chan struct{} // a value for each batch; nil: no wait
}

func (g *gate) Apply(ctx context.Context, changes []Change) error {
	if g.open != nil {
		select {
		case <-g.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return g.fakeKernel.Apply(ctx, changes)
}

// startGated is an enforcer of a source guard behind a gate, which is open, after its first round.
func startGated(t *testing.T) (*gate, *Enforcer, *Follower, *lease.Table) {
	t.Helper()
	leases := lease.New()
	s := NewSources(SourceOptions{GuardDirect: provision.Patterns{"eth1"}}, leases, nil, func() []string { return nil })
	k := &gate{fakeKernel: newFakeKernel(ACL{})}
	snap := provisiontest.Build(t, provision.Input{})
	e := NewEnforcer(Options{Inputs: s.Inputs, VerifyInterval: time.Hour}, k, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	require.NoError(t, e.Sync(ctx))
	return k, e, Follow(s, e), leases
}

// What a step has read may be over when it is done: a lease that is again as it was shown before is
// looked at after the step that shows something else.
func TestLeaseThatChangesBackWhileABatchIsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, e, f, leases := startGated(t)
		store := func(mac provision.MAC) { leases.Store(direct(testIP, mac)) }
		store(testMAC)
		f.Admit([]netip.Addr{testIP})()
		for _, start := range []func(){
			func() { f.Admit([]netip.Addr{testIP}) }, // a batch of its own, which takes the element away for a moment
			func() { e.Kick() },                      // a round
		} {
			k.open = make(chan struct{})
			store(otherMAC)
			start()
			synctest.Wait()
			store(testMAC)
			began := time.Now()
			f.Admit([]netip.Addr{provisiontest.IP(7)})()
			assert.Zero(t, time.Since(began), "whom it leaves alone does not wait")
			admitted := make(chan struct{})
			go func() {
				f.Admit([]netip.Addr{testIP})()
				close(admitted)
			}()
			synctest.Wait()
			select {
			case <-admitted:
				t.Error("the batch that is on takes the element away")
			default:
			}
			k.open <- struct{}{}
			synctest.Wait()
			close(k.open)
			<-admitted
			assert.Equal(t, []string{testIP.String() + " . " + testMAC.String()}, k.acl().Strings(SetBoundDirect), "it stands when the ACK leaves")
			synctest.Wait()
			assert.Equal(t, []string{testIP.String() + " . " + testMAC.String()}, k.acl().Strings(SetBoundDirect))
		}
	})
}

// Commits that come while a batch is on its way share the next one; a kernel that
// hangs holds each no longer than the limit.
func TestCommitsShareABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, e, f, leases := startGated(t)
		k.open = make(chan struct{})
		_, before := k.used()
		var waiting sync.WaitGroup
		var passed atomic.Int64
		admit := func(i int) {
			ip := provisiontest.IP(i)
			leases.Store(direct(ip, testMAC))
			waiting.Go(func() { f.Admit([]netip.Addr{ip})(); passed.Add(1) })
			synctest.Wait()
		}
		began := time.Now()
		for i := range 6 {
			admit(i)
		}
		assert.Zero(t, passed.Load())
		k.open <- struct{}{}
		synctest.Wait()
		assert.EqualValues(t, 1, passed.Load(), "the first has its element")
		k.open <- struct{}{}
		waiting.Wait()
		assert.Zero(t, time.Since(began))
		_, after := k.used()
		assert.Equal(t, before+2, after, "five share a batch")
		assert.Equal(t, 6, k.acl().Counts()[SetBoundDirect])

		admit(6)
		waiting.Wait()
		assert.Equal(t, admitLimit, time.Since(began))
		e.end()
		leases.Store(direct(provisiontest.IP(7), testMAC))
		f.Admit([]netip.Addr{provisiontest.IP(7)})() // who comes after the end waits for nobody
		assert.Equal(t, admitLimit, time.Since(began))
	})
}

// What nobody waits for is heard from the table: also what no packet tells of.
func TestEveryChangeOfALeaseIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFollower(t, SourceOptions{GuardDirect: provision.Patterns{"eth1"}}, Options{}, wanted(t, ACL{}))
		walks := f.leases.walks.Load()
		bound := func() int {
			time.Sleep(25 * time.Millisecond) // they are gathered for a moment
			synctest.Wait()
			return f.kernel.acl().Counts()[SetBoundDirect]
		}
		ends := map[string]func() bool{
			"drop":    func() bool { return f.leases.Drop(testIP, testMAC, time.Now()) },
			"end":     func() bool { return f.leases.End(testIP, testMAC, time.Now()) },
			"release": func() bool { return f.leases.SetState(testIP, testMAC, lease.StateReleased, time.Now()) },
			"prune":   func() bool { return f.leases.Prune(time.Now().Add(lease.Grace+2*time.Hour), 1) == 1 },
		}
		for name, end := range ends {
			f.leases.Store(direct(testIP, testMAC))
			assert.Equal(t, 1, bound(), name)
			assert.True(t, end(), name)
			assert.Zero(t, bound(), name)
		}
		assert.Equal(t, walks, f.leases.walks.Load(), "no round for any")
	})
}

// A lease that runs out leaves the sets at once, and one that is renewed stays.
func TestLeaseThatRunsOutLeavesTheSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := lease.New()
		began := time.Now()
		for i := range 600 { // in three networks, ten running out each second
			rec := direct(provisiontest.IP(i), testMAC)
			rec.Renewed, rec.Expires = began, began.Add(time.Minute+time.Duration(i/10)*time.Second)
			leases.Store(rec)
		}
		s := NewSources(SourceOptions{GuardDirect: provision.Patterns{"eth1"}}, leases, nil, func() []string { return nil })
		e := startEnforcer(t, Options{VerifyInterval: time.Hour, Inputs: s.Inputs}, ACL{}, wanted(t, ACL{}))
		require.Equal(t, 600, e.kernel.acl().Counts()[SetBoundDirect])
		for i := 1; i < 600; i += 2 {
			require.True(t, leases.Renew(provisiontest.IP(i), testMAC, time.Now(), began.Add(time.Hour)))
		}
		pass(time.Minute)
		for second := range 60 {
			pass(200 * time.Millisecond)
			assert.Equal(t, 600-5*(second+1), e.kernel.acl().Counts()[SetBoundDirect], "after %d seconds", second)
			pass(800 * time.Millisecond)
		}
		pass(time.Hour)
		assert.Zero(t, e.kernel.acl().Counts()[SetBoundDirect])
	})
}

// A lease that is told of between two rounds ends as those that the round has read.
func TestEndOfALeaseBetweenRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFollower(t, SourceOptions{GuardDirect: provision.Patterns{"eth1"}}, Options{}, wanted(t, ACL{}))
		rounds := f.Status().Rounds
		at := time.Now().Add(7 * time.Minute)
		rec := direct(testIP, testMAC)
		f.leases.Store(rec)
		synctest.Wait()
		rec.Expires = at // the same again for a shorter time: no element changes
		f.leases.Store(rec)
		synctest.Wait()
		pass(time.Until(at) - time.Millisecond)
		require.Equal(t, 1, f.kernel.acl().Counts()[SetBoundDirect])
		pass(endsApart + time.Millisecond)
		require.Zero(t, f.kernel.acl().Counts()[SetBoundDirect])
		require.Equal(t, rounds, f.Status().Rounds)
	})
}

// Nobody tells of interfaces where DHCP is off.
func TestInputsAreLookedAtUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFollower(t, SourceOptions{GuardVLAN: provision.Patterns{"eth2.*"}}, Options{}, wanted(t, ACL{}))
		rounds := f.Status().Rounds
		pass(time.Minute)
		require.Equal(t, rounds, f.Status().Rounds, "nothing to do")
		f.exist.Store(&[]string{"eth1", "eth2.100", "eth2.101", "eth2.102"})
		pass(checkInterval)
		require.Equal(t, 3, f.kernel.acl().Counts()[SetGuardedVLAN])
	})
}

// world makes random leases, snapshots and options for few addresses.
type world struct {
	*rand.Rand
	*followTest
}

func (w *world) ip() netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, byte(2 + w.IntN(2)), byte(w.IntN(16))})
}

func (w *world) mac() provision.MAC { return provision.MAC{2, 0, 0, 0, 0, byte(1 + w.IntN(3))} }

func (w *world) snapshot() *provision.Snapshot {
	var in provision.Input
	for id := provision.SubscriberID(1); id < 7; id++ {
		if w.IntN(6) > 0 {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: []provision.State{provision.StateActive, provision.StateStop, provision.StatePause}[w.IntN(3)]})
		}
	}
	for range w.IntN(14) {
		l := provision.Line{Subscriber: provision.SubscriberID(1 + w.IntN(7)), Addresses: provision.Hosts4(w.ip()), VLAN: uint16(99 + w.IntN(4))}
		if w.IntN(3) > 0 {
			l.MAC = w.mac()
		}
		in.Lines = append(in.Lines, l)
	}
	for range w.IntN(6) { // apart from what pools give: whom they were given to before counts from the next round on
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(w.IntN(256))}), 26+w.IntN(7)).Masked()
		in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: p, Subscriber: provision.SubscriberID(1 + w.IntN(7))})
	}
	snap, _ := provision.Build(in) // subscribers that dispute an address are part of the test
	return snap
}

func (w *world) options() SourceOptions {
	o := SourceOptions{Pools: w.IntN(4) > 0, VLANOf: func(name string) (uint16, bool) {
		var vlan uint16
		_, err := fmt.Sscanf(name, "eth2.%d", &vlan)
		return vlan, err == nil
	}}
	if w.IntN(3) > 0 {
		o.GuardDirect = provision.Patterns{"eth1"}
	}
	if w.IntN(3) > 0 {
		o.GuardVLAN = provision.Patterns{"eth2.*"}
	}
	if w.IntN(2) == 0 { // by MAC; behind an interface what ends is seen by the next round
		o.ForwardsIPv6, o.Direct = func() bool { return true }, provision.Patterns{"eth1", "eth9"}
		o.GuardVLAN, o.VLANOf = nil, nil
	}
	if w.IntN(2) == 0 {
		o.Exempt = []provision.SubscriberID{provision.SubscriberID(1 + w.IntN(7)), 99}
	}
	if w.IntN(2) == 0 { // by MAC; behind an interface what ends is seen by the next round
		o.ForwardsIPv6, o.Direct = func() bool { return true }, provision.Patterns{"eth1", "eth9"}
		o.GuardVLAN, o.VLANOf = nil, nil
	}
	if w.IntN(2) == 0 {
		o.ExemptAddrs = []netip.Prefix{netip.PrefixFrom(w.ip(), 30+w.IntN(3)).Masked()}
	}
	for range w.IntN(3) {
		a, b := w.ip(), w.ip()
		o.GuestRanges = append(o.GuestRanges, AddrRange{a, b}) // some the wrong way round
	}
	return o
}

// change makes a change of a lease and gives its address.
func (w *world) change() netip.Addr {
	ip, now := w.ip(), time.Now()
	rec, ok := w.leases.Get(ip)
	if !ok || w.IntN(3) == 0 {
		rec = lease.Record{
			IP: ip, MAC: w.mac(), Subscriber: provision.SubscriberID(w.IntN(8)), Pool: []string{"", "flats"}[w.IntN(2)],
			Interface: []string{"", "eth1", "eth2.100", "eth2.101", "eth9"}[w.IntN(5)], State: lease.State(1 + w.IntN(4)), Start: now, Renewed: now,
			Expires: now.Add(time.Duration(1+w.IntN(40)) * time.Second),
		}
		if w.IntN(4) == 0 {
			rec.GIAddr = provisiontest.Addr("192.0.2.254")
		}
		w.leases.Store(rec)
		return ip
	}
	switch w.IntN(6) {
	case 0, 1:
		w.leases.Renew(ip, rec.MAC, now, now.Add(time.Duration(1+w.IntN(40))*time.Second))
	case 2:
		w.leases.Keep(ip, rec.MAC, lease.StateDeclined, now)
	case 3:
		w.leases.SetState(ip, rec.MAC, lease.StateReleased, now)
	case 4:
		w.leases.Drop(ip, rec.MAC, now)
	default:
		w.leases.End(ip, rec.MAC, now)
	}
	return ip
}

// Whatever leases, snapshots, options, foreign writes, failures of the kernel and the
// clock do, the kernel is what all of it worked out anew asks for; and it is so for
// an address when the wait for it is over. Leases alone lead to no round.
func TestFollowingEqualsWorkingOutAnew(t *testing.T) {
	for seed := range long.Times(t, 6, 300) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{Rand: provisiontest.Rand(uint64(seed))}
			w.followTest = startFollower(t, w.options(), Options{VerifyInterval: 10 * time.Minute}, w.snapshot())
			rounds, verified := w.Status().Rounds, w.Status().LastVerifiedAt
			for step := range 200 {
				whole, before := true, verified
				switch n := w.IntN(30); {
				case n < 2:
					w.snap.Store(w.snapshot())
					w.Kick()
				case n < 4:
					w.sources.Reconfigure(w.options())
					w.Kick()
				case n == 4:
					w.kernel.do(func() { w.kernel.sets, w.kernel.foreign = newKernelModel(randomACL(w.Rand, false)), true })
					w.Kick()
				case n == 5:
					w.kernel.do(func() { w.kernel.late = errors.New("half") })
					w.change()
					synctest.Wait()
					w.kernel.do(func() { w.kernel.late = nil })
				default:
					whole = false
					for range w.IntN(4) {
						ip := w.change()
						if w.IntN(2) == 0 {
							w.follower.Admit([]netip.Addr{ip})()
							want, have := w.want(t), w.kernel.acl()
							require.Equal(t, rightsIn(&want, ip), rightsIn(&have, ip), "seed %d step %d: %s after the wait", seed, step, ip)
						}
					}
				}
				if w.IntN(3) == 0 {
					pass(time.Duration(w.IntN(15)) * time.Second)
				}
				pass(200 * time.Millisecond) // what failed is tried again, and what ran out goes
				want := w.want(t)
				for _, have := range []ACL{w.kernel.acl(), w.shown.Load().whole()} {
					if want != have { // most of the time it is, and cmp takes long with the race detector
						require.Empty(t, cmp.Diff(want, have, cmpAddr), "seed %d step %d", seed, step)
					}
				}
				st := w.Status()
				require.Equal(t, []SetCounts{want.Counts(), want.Counts()}, []SetCounts{st.Want, st.Have})
				for range 8 {
					ip := w.ip()
					set, known := w.Standing(ip)
					require.True(t, known)
					require.Equal(t, want.Standing(ip), set, "%s", ip)
				}
				verified = w.Status().LastVerifiedAt
				if whole || !verified.Equal(before) {
					require.NoError(t, w.Sync(t.Context()))
					rounds = w.Status().Rounds
				}
				require.Equal(t, rounds, w.Status().Rounds, "seed %d step %d: a round for a lease", seed, step)
				pass(800 * time.Millisecond)
			}
			assert.Positive(t, w.log.batches)
		})
	}
}

// The same with all at once.
func TestFollowingWhileRoundsAreOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := SourceOptions{Pools: true, GuardDirect: provision.Patterns{"eth1"}, GuardVLAN: provision.Patterns{"eth2.*"},
			GuestRanges: []AddrRange{{provisiontest.Addr("192.0.2.4"), provisiontest.Addr("192.0.3.6")}}}
		f := startFollower(t, o, Options{}, (&world{Rand: provisiontest.Rand(1)}).snapshot())
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				w := &world{Rand: provisiontest.Rand(uint64(100 + g)), followTest: f}
				for range long.Times(t, 300, 30_000) {
					ip := w.change()
					f.follower.Admit([]netip.Addr{ip, w.ip()})()
					f.Standing(ip)
				}
			})
		}
		wg.Go(func() {
			w := &world{Rand: provisiontest.Rand(99)}
			for range long.Times(t, 100, 10_000) {
				if f.snap.Store(w.snapshot()); w.IntN(2) == 0 {
					f.Kick()
				}
				f.Status()
				time.Sleep(time.Millisecond)
			}
			f.Kick()
		})
		wg.Wait()
		pass(200 * time.Millisecond)
		want := f.want(t)
		require.Empty(t, cmp.Diff(want, f.kernel.acl(), cmpAddr))
		require.Empty(t, cmp.Diff(want, f.shown.Load().whole(), cmpAddr))
	})
}

// swallow is a kernel that takes everything and keeps nothing.
type swallow struct{ changes int }

func (*swallow) Observe(context.Context) (ACL, error) { return ACL{}, nil }
func (k *swallow) Apply(_ context.Context, changes []Change) error {
	k.changes += len(changes)
	return nil
}
func (*swallow) Changed(context.Context) (bool, error) { return false, nil }

// What a commit waits for, without a disk but with a new client of the address in the table: a guest whose address is a guest's anyway, an
// active subscriber with an address from a pool, and a client whose element of the source guard
// changes.
func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1_000, 40_000, 1_000_000} {
		for _, kind := range []string{"guest", "active", "element"} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { benchmarkAdmit(b, kind, n) })
		}
	}
}

// cpu is the time on processors that this process took; others on the machine do not add to it.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkAdmit(b *testing.B, kind string, n int) {
	leases := lease.New()
	o := SourceOptions{Pools: true}
	var in provision.Input
	record := func(i int) lease.Record {
		rec := lease.Record{IP: provisiontest.IP(i), MAC: provision.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}, Pool: "pool", Interface: "eth1",
			State: lease.StateBound, Expires: time.Now().Add(time.Hour)}
		if kind == "active" {
			rec.Subscriber = provision.SubscriberID(i + 1)
		}
		return rec
	}
	switch kind {
	case "guest":
		o.GuestRanges = []AddrRange{{provisiontest.IP(0), provisiontest.IP(n)}}
	case "element":
		o.GuardDirect = provision.Patterns{"eth1"}
	}
	for i := range n {
		leases.Store(record(i))
		if kind == "active" {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(i + 1), State: provision.StateActive})
		}
	}
	snap, _ := provision.Build(in)
	s := NewSources(o, leases, nil, func() []string { return nil })
	k := &swallow{}
	e := NewEnforcer(Options{Inputs: s.Inputs, VerifyInterval: time.Hour}, k, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := e.Sync(ctx); err != nil {
		b.Fatal(err)
	}
	f := Follow(s, e)
	addrs := make([]netip.Addr, 1)
	changes := k.changes
	b.ReportAllocs()
	count, began := 0, cpu()
	for b.Loop() {
		i := count * 7919 % n
		addrs[0] = provisiontest.IP(i)
		rec, _ := leases.Get(addrs[0])
		rec.MAC[1] ^= byte(1 + count/n) // another client
		leases.Store(rec)
		f.Admit(addrs)()
		count++
	}
	b.ReportMetric(float64(cpu()-began)/float64(count), "cpu-ns/op")
	if err := e.Sync(ctx); err != nil { // who waited in vain on a busy machine has shared a batch
		b.Fatal(err)
	}
	if want := map[bool]int{true: 2 * count}[kind == "element"]; k.changes-changes != want {
		b.Fatalf("%d changes by %d commits, want %d", k.changes-changes, count, want)
	}
}
