package access

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// fakeKernel has two sets, as the real one, and counts how it is used.
type fakeKernel struct {
	mu       sync.Mutex
	sets     kernelModel
	foreign  bool // somebody else wrote
	err      error
	late     error // what Apply says after it has applied half
	refuse   map[Element]error
	observed int
	asked    int
	batches  [][]Change
	times    []time.Time // of calls to Apply and Observe
}

func newFakeKernel(a ACL) *fakeKernel { return &fakeKernel{sets: newKernelModel(a)} }

func (k *fakeKernel) Observe(context.Context) (ACL, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.observed++
	k.times = append(k.times, time.Now())
	if k.err != nil {
		return ACL{}, k.err
	}
	k.foreign = false
	a := k.sets.acl()
	stopped := addrsOf(a[SetStopped])
	slices.Reverse(stopped) // order does not matter
	a[SetStopped] = Addrs(stopped...)
	return a, nil
}

func (k *fakeKernel) Apply(_ context.Context, changes []Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.times = append(k.times, time.Now())
	if k.err != nil {
		return k.err
	}
	n := len(changes)
	if k.late != nil {
		n /= 2
	}
	k.batches = append(k.batches, changes)
	var refused []RefusedChange
	for _, c := range changes[:n] {
		if err := k.refuse[c.Element]; err != nil {
			refused = append(refused, RefusedChange{c, err})
			continue
		}
		if c.Op == provision.OpAdd {
			k.sets[c.Element] = true
		} else {
			delete(k.sets, c.Element)
		}
	}
	if refused != nil && k.late == nil {
		return &RefusedError{refused}
	}
	return k.late
}

func (k *fakeKernel) Changed(context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.foreign, k.err
}

func (k *fakeKernel) Generation() uint64 { return 42 }

func (k *fakeKernel) do(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *fakeKernel) acl() ACL {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sets.acl()
}

func (k *fakeKernel) used() (observed, batches int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.observed, len(k.batches)
}

// fakeFlows takes time for a pass.
type fakeFlows struct {
	mu     sync.Mutex
	takes  time.Duration
	err    error
	passes [][]netip.Addr
}

func (f *fakeFlows) Forget(ctx context.Context, of []netip.Prefix) (int, error) {
	addrs := addrsIn(of)
	f.mu.Lock()
	takes, err := f.takes, f.err
	f.passes = append(f.passes, addrs)
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(takes):
	}
	if err != nil {
		return 0, err
	}
	return 2 * len(addrs), nil
}

func (f *fakeFlows) set(takes time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes, f.err = takes, err
}

func (f *fakeFlows) take() [][]netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.passes
	f.passes = nil
	return out
}

// enforceLog is an Observer that adds up.
type enforceLog struct {
	mu                                    sync.Mutex
	batches, errors, extra, missing, runs int
	stopped, paused                       int
	withheld                              map[Spared]int
	refused                               int
}

func (l *enforceLog) Batch(_ int, _ time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches++
	if err != nil {
		l.errors++
	}
}
func (l *enforceLog) Drift(extra, missing, _ int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.extra += extra
	l.missing += missing
}
func (l *enforceLog) Elements(n SetCounts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped, l.paused = n[SetStopped], n[SetPaused]
}
func (l *enforceLog) Maintenance(bool) {}
func (l *enforceLog) Refused(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = n
}
func (l *enforceLog) Withheld(n map[Spared]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.withheld = n
}
func (l *enforceLog) Flows(int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs++
}

// wanted makes a snapshot whose ACL is as given.
func wanted(t *testing.T, a ACL) *provision.Snapshot {
	t.Helper()
	return snapshotOf(t, a, provision.SourceDirect)
}

func snapshotOf(t *testing.T, a ACL, source provision.Source) *provision.Snapshot {
	t.Helper()
	in := provision.Input{Source: source}
	add := func(addrs []netip.Addr, st provision.State) {
		for _, ip := range addrs {
			four := ip.As4()
			id := provision.SubscriberID(binary.BigEndian.Uint32(four[:]))
			in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(ip)})
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: st})
		}
	}
	add(addrsOf(a[SetStopped]), provision.StateStop)
	add(addrsOf(a[SetPaused]), provision.StatePause)
	return provisiontest.Build(t, in)
}

type enforcerTest struct {
	*Enforcer
	kernel *fakeKernel
	flows  *fakeFlows
	log    *enforceLog
	snap   *atomic.Pointer[provision.Snapshot]
	stop   func()
}

func startEnforcer(t *testing.T, opts Options, have ACL, snap *provision.Snapshot) *enforcerTest {
	t.Helper()
	e := &enforcerTest{kernel: newFakeKernel(have), flows: &fakeFlows{}, log: &enforceLog{}, snap: &atomic.Pointer[provision.Snapshot]{}}
	e.snap.Store(snap)
	e.Enforcer = NewEnforcer(opts, e.kernel, e.flows, e.snap.Load, e.log, provisiontest.Quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx); close(done) }()
	e.stop = func() {
		cancel()
		if err, running := <-done; running {
			assert.NoError(t, err)
		}
	}
	t.Cleanup(e.stop)
	synctest.Wait()
	return e
}

func (e *enforcerTest) want(t *testing.T, a ACL) {
	t.Helper()
	e.snap.Store(wanted(t, a))
	e.Kick()
	synctest.Wait()
}

func TestEnforcerWithoutSnapshotTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		have := ACL{SetStopped: keys("192.0.2.1")}
		e := startEnforcer(t, Options{VerifyInterval: time.Minute}, have, nil)
		e.Kick()
		require.ErrorIs(t, e.Sync(t.Context()), ErrNoSnapshot)
		pass(time.Hour)
		assert.Empty(t, e.kernel.times, "neither read nor written")
		assert.False(t, e.Status().Ready)
		assert.Empty(t, e.Status().LastError)

		e.want(t, ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2")})
		assert.Equal(t, [][]Change{{{provision.OpAdd, addrIn(SetPaused, provisiontest.Addr("192.0.2.2"))}}}, e.kernel.batches, "adopts what is there, repairs the difference")
		assert.Zero(t, e.log.extra+e.log.missing, "which is no drift")
		assert.True(t, e.Status().Ready)
	})
}

// stored makes a snapshot as a start reads it from disk.
func stored(t *testing.T, a ACL) *provision.Snapshot {
	t.Helper()
	return snapshotOf(t, a, provision.SourceStored)
}

func TestEnforcerWaitsForAFetchBeforeWhatWasStored(t *testing.T) {
	newer, older := ACL{SetStopped: keys("192.0.2.1")}, ACL{SetStopped: keys("192.0.2.2")}
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, newer, stored(t, older))
		done := make(chan error, 1)
		go func() { done <- e.Sync(t.Context()) }()
		pass(storedPatience / 2)
		assert.Empty(t, e.kernel.times, "the kernel may know better")
		e.want(t, newer)
		require.NoError(t, <-done)
		pass(time.Minute)
		assert.Empty(t, e.kernel.batches, "nobody is let in or shut out for a moment")
	})
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, newer, stored(t, older))
		pass(storedPatience)
		assert.Empty(t, cmp.Diff(older, e.kernel.acl(), cmpAddr), "with the ERP down, what was stored holds")
	})
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, newer, stored(t, older))
		e.NoFetchSoon()
		synctest.Wait()
		assert.Empty(t, cmp.Diff(older, e.kernel.acl(), cmpAddr), "at once if that is known")
	})
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, newer, stored(t, older))
		e.stop()
		assert.Empty(t, e.kernel.times, "the end does not wait")
	})
}

func TestEnforcerFollowsSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, wanted(t, ACL{SetStopped: keys("192.0.2.1")}))
		e.want(t, ACL{SetStopped: keys("192.0.2.1", "192.0.2.2"), SetPaused: keys("192.0.2.3")})
		pass(2 * time.Second)
		e.want(t, ACL{SetPaused: keys("192.0.2.1", "192.0.2.3")})
		assert.Empty(t, cmp.Diff(ACL{SetPaused: keys("192.0.2.1", "192.0.2.3")}, e.kernel.acl(), cmpAddr))
		observed, batches := e.kernel.used()
		assert.Equal(t, 1, observed, "read back once, then known")
		assert.Equal(t, 3, batches)
		assert.Equal(t, [][]netip.Addr{provisiontest.Addrs("192.0.2.1"), provisiontest.Addrs("192.0.2.2", "192.0.2.3")}, e.flows.take(),
			"who was blocked before has no flows")
		st := e.Status()
		assert.Equal(t, Status{Ready: true, WantPaused: 2, HavePaused: 2, Generation: 42, Want: SetCounts{SetPaused: 2}, Have: SetCounts{SetPaused: 2}, Rounds: 3, LastBatchAt: st.LastBatchAt,
			LastBatchChanges: 3, LastVerifiedAt: st.LastVerifiedAt, FlowsDeleted: 6}, st)
		assert.Equal(t, []int{0, 2, 3, 0}, []int{e.log.stopped, e.log.paused, e.log.batches, e.log.errors})

		e.kernel.do(func() { e.kernel.batches = nil })
		e.Kick()
		pass(time.Minute)
		_, batches = e.kernel.used()
		assert.Zero(t, batches, "the same again is silence")
	})
}

func TestEnforcerRepairsDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := ACL{SetStopped: keys("192.0.2.1", "192.0.2.2")}
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, wanted(t, want))
		pass(time.Minute)
		e.kernel.do(func() { // nft delete element, nft add element
			delete(e.kernel.sets, addrIn(SetStopped, provisiontest.Addr("192.0.2.1")))
			e.kernel.sets[addrIn(SetPaused, provisiontest.Addr("192.0.2.7"))] = true
			e.kernel.sets[addrIn(SetPaused, provisiontest.Addr("192.0.2.8"))] = true
			e.kernel.foreign = true
		})
		pass(checkInterval + time.Second)
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		assert.Equal(t, []int{2, 1}, []int{e.log.extra, e.log.missing})
		assert.EqualValues(t, 2, e.Status().DriftExtra)
		assert.EqualValues(t, 1, e.Status().DriftMissing)

		e.kernel.do(func() { delete(e.kernel.sets, addrIn(SetStopped, provisiontest.Addr("192.0.2.2"))) }) // and the generation says nothing
		pass(30 * time.Minute)
		assert.NotEmpty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		pass(31 * time.Minute)
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr), "the full read-back finds it")
	})
}

func TestEnforcerRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := ACL{SetStopped: keys("192.0.2.1", "192.0.2.2")}
		broken := errors.New("no buffer space available")
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, wanted(t, want))
		e.kernel.do(func() { e.kernel.err, e.kernel.times = broken, nil })
		pass(checkInterval)
		e.want(t, ACL{})
		require.ErrorIs(t, e.Sync(t.Context()), broken)
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		assert.ErrorContains(t, errors.New(e.Status().LastError), "no buffer space")
		e.kernel.do(func() { e.kernel.times = nil })
		pass(10 * time.Minute)
		assert.Less(t, len(e.kernel.times), 40, "bounded")
		assert.Greater(t, len(e.kernel.times), 15, "but never given up")
		e.kernel.do(func() { e.kernel.err = nil })
		pass(maxRetry)
		assert.Empty(t, cmp.Diff(ACL{}, e.kernel.acl(), cmpAddr))
		assert.Zero(t, e.Status().ConsecutiveFailures)
		assert.NotEmpty(t, e.Status().LastError, "the last one stays to be seen, with its time")
	})
}

// A batch that fails half-way leaves a kernel that nobody knows: it is read
// again, and the difference is not called drift.
func TestEnforcerPartialBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, wanted(t, ACL{}))
		e.kernel.do(func() { e.kernel.late = errors.New("chunk 2 of 2: no memory") })
		want := ACL{SetStopped: keys("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")}
		e.want(t, want)
		require.Len(t, addrsOf(e.kernel.acl()[SetStopped]), 2)
		e.kernel.do(func() { e.kernel.late = nil })
		pass(time.Second)
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		assert.Zero(t, e.log.extra+e.log.missing)
		assert.Equal(t, 1, e.log.errors)
		observed, _ := e.kernel.used()
		assert.Equal(t, 2, observed)
	})
}

func TestEnforcerFlowsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, ACL{}, wanted(t, ACL{}))
		e.flows.set(10*time.Second, nil) // a big table
		list := provisiontest.Addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
		for i := range list {
			e.want(t, ACL{SetStopped: Addrs(list[:i+1]...)})
			require.NoError(t, e.Sync(t.Context()), "no batch waits for a pass")
		}
		e.want(t, ACL{SetStopped: Addrs(list[:3]...)}) // the last is resumed before its pass
		require.Len(t, addrsOf(e.kernel.acl()[SetStopped]), 3)
		pass(time.Minute)
		assert.Equal(t, [][]netip.Addr{list[:1], list[1:3]}, e.flows.take(), "and its flows live on")
		assert.EqualValues(t, 6, e.Status().FlowsDeleted)

		e.flows.set(0, errors.New("interrupted"))
		e.want(t, ACL{SetStopped: Addrs(list...)})
		assert.Equal(t, "interrupted", e.Status().FlowsError)
		e.flows.set(0, nil)
		pass(2 * time.Second)
		passes := e.flows.take()
		assert.Equal(t, list[3:], passes[len(passes)-1], "tried again")
		assert.Empty(t, e.Status().FlowsError)
	})
}

// Changes that trickle in lead to no more passes than are allowed, whatever the
// table's size; the first after a quiet time waits for nothing.
func TestEnforcerFlowPassesHaveAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{FlowsInterval: 3 * time.Second}, ACL{}, wanted(t, ACL{}))
		var list []netip.Addr
		trickle := func(n int) {
			for range n {
				list = append(list, provisiontest.IP(len(list)))
				e.want(t, ACL{SetPaused: Addrs(list...)})
				pass(100 * time.Millisecond)
			}
		}
		trickle(1)
		assert.Len(t, e.flows.take(), 1, "at once")
		trickle(119) // twelve seconds
		pass(3 * time.Second)
		passes := e.flows.take()
		assert.Len(t, passes, 4)
		n := 0
		for _, p := range passes {
			n += len(p)
		}
		assert.Equal(t, 119, n, "each address once")

		pass(time.Minute)
		e.Reconfigure(Options{FlowsInterval: time.Second})
		trickle(1)
		assert.Len(t, e.flows.take(), 1)
		trickle(20)
		pass(time.Second)
		assert.InDelta(t, 2, len(e.flows.take()), 1)
	})
}

// eventKernel tells of foreign writes, and sometimes loses its voice.
type eventKernel struct {
	*fakeKernel
	events  chan error // nil: somebody wrote
	writers []string
	repairs uint64
}

func (k *eventKernel) Watch(ctx context.Context, wake func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-k.events:
			if err != nil {
				return err
			}
			wake()
		}
	}
}

func (k *eventKernel) Writers() []string { return k.writers }
func (k *eventKernel) Repairs() uint64   { return k.repairs }

func TestEnforcerHearsOfForeignWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &eventKernel{fakeKernel: newFakeKernel(ACL{}), events: make(chan error), writers: []string{"nft (123)"}}
		snap := wanted(t, ACL{SetStopped: keys("192.0.2.1")})
		e := NewEnforcer(Options{VerifyInterval: time.Hour}, k, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { assert.NoError(t, e.Run(ctx)) }()
		synctest.Wait()

		edit := func() {
			k.do(func() {
				k.foreign = true
				delete(k.sets, addrIn(SetStopped, provisiontest.Addr("192.0.2.1")))
			})
		}
		began := time.Now()
		edit()
		k.events <- nil
		synctest.Wait()
		assert.Zero(t, time.Since(began), "no wait for the next look")
		assert.Equal(t, provisiontest.Addrs("192.0.2.1"), addrsOf(k.acl()[SetStopped]))
		st := e.Status()
		assert.EqualValues(t, 1, st.DriftMissing)
		assert.Equal(t, []string{"missing in stopped: 192.0.2.1"}, st.LastDrift)
		assert.Equal(t, []string{"nft (123)"}, st.LastDriftBy)
		assert.Zero(t, st.TableRepairs)

		// Events were lost: whatever they told of is looked for at once.
		edit()
		k.do(func() { k.repairs = 3 })
		k.events <- errors.New("no buffer space")
		synctest.Wait()
		assert.Zero(t, time.Since(began))
		assert.Equal(t, provisiontest.Addrs("192.0.2.1"), addrsOf(k.acl()[SetStopped]))
		assert.EqualValues(t, 2, e.Status().DriftMissing)
		assert.EqualValues(t, 3, e.Status().TableRepairs)
		time.Sleep(firstRetry)
		synctest.Wait()
		edit()
		k.events <- nil // somebody listens again
		synctest.Wait()
		assert.Equal(t, provisiontest.Addrs("192.0.2.1"), addrsOf(k.acl()[SetStopped]))
	})
}

func TestEnforcerDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2", "192.0.2.3")}
		e := startEnforcer(t, Options{DryRun: true}, ACL{}, wanted(t, want))
		require.NoError(t, e.Sync(t.Context()))
		pass(time.Hour)
		assert.Empty(t, e.kernel.times)
		assert.Zero(t, e.kernel.asked)
		assert.Empty(t, e.flows.take())
		st := e.Status()
		assert.Equal(t, []int{1, 2, 3}, []int{st.WantStopped, st.WantPaused, st.Pending})
		assert.True(t, st.DryRun && st.Ready)

		e.Reconfigure(Options{})
		synctest.Wait()
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		e.Reconfigure(Options{DryRun: true})
		e.want(t, ACL{})
		assert.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr), "switched to dry run: the kernel stays as it is")
	})
}

func TestEnforcerDryRunNeedsNoKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snap := wanted(t, ACL{SetStopped: keys("192.0.2.1")})
		e := NewEnforcer(Options{DryRun: true}, nil, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		require.NoError(t, e.Sync(ctx))
		assert.Equal(t, 1, e.Status().WantStopped)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestEnforcerSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{}, ACL{}, wanted(t, ACL{}))
		e.snap.Store(wanted(t, ACL{SetStopped: keys("192.0.2.1")}))
		require.NoError(t, e.Sync(t.Context()))
		assert.Len(t, addrsOf(e.kernel.acl()[SetStopped]), 1, "the round began after the call")

		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { assert.NoError(t, e.Sync(t.Context())) })
		}
		wg.Wait()

		e.stop()
		assert.Empty(t, cmp.Diff(ACL{SetStopped: keys("192.0.2.1")}, e.kernel.acl(), cmpAddr), "the end leaves the kernel as it is")
		require.ErrorIs(t, e.Sync(t.Context()), errEnforcerEnded)

		idle := NewEnforcer(Options{}, newFakeKernel(ACL{}), nil, e.snap.Load, nil, provisiontest.Quiet())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, idle.Sync(ctx), context.DeadlineExceeded)
	})
}

// inputsOf returns the inputs that lead to the ACL, but for who is stopped or paused.
func inputsOf(a ACL) *Inputs {
	in := &Inputs{
		Garden: listOf(a, SetGarden, prefixOf), GuestGarden: listOf(a, SetGuestGarden, prefixOf), Resolvers: listOf(a, SetResolvers, prefixOf),
		GuardDirect: listOf(a, SetGuardedDirect, interfaceOf), GuardVLAN: listOf(a, SetGuardedVLAN, interfaceOf),
		Leases: bound(listOf(a, SetBoundDirect, func(f Fields) DirectBinding { return DirectBinding{f.Addr, f.MAC} }),
			listOf(a, SetBoundVLAN, func(f Fields) VLANBinding { return VLANBinding{f.Interface, f.Addr} })),
	}
	for _, g := range addrsOf(a[SetGuests]) {
		in.GuestRanges = append(in.GuestRanges, AddrRange{g, g})
	}
	return in
}

// From every state of the kernel, in any order of wishes, with foreign writes
// and failures in between, it ends where it should.
func TestEnforcerConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := provisiontest.Rand(11)
		var in atomic.Pointer[Inputs]
		in.Store(&Inputs{})
		opts := Options{VerifyInterval: 10 * time.Minute, Inputs: func() Inputs { return *in.Load() }}
		e := startEnforcer(t, opts, randomACL(rng, false), nil)
		for range long.Times(t, 300, 30_000) {
			want := randomACL(rng, true).Sorted()
			want[SetExempt] = "" // would take addresses out
			wiresOf(&want).put(&want)
			for _, set := range append(linkSets[:], SetIPv6Direct) {
				want[set] = "" // follow from states: see ipv6_test.go
			}
			in.Store(inputsOf(want))
			e.kernel.do(func() {
				e.kernel.late = nil
				switch rng.IntN(4) {
				case 0:
					e.kernel.sets, e.kernel.foreign = newKernelModel(randomACL(rng, false)), true
				case 1:
					e.kernel.late = errors.New("half")
				case 2:
					e.kernel.err = errors.New("nothing")
				}
			})
			e.want(t, want)
			e.kernel.do(func() { e.kernel.late, e.kernel.err = nil, nil })
			pass(maxRetry)
			require.Empty(t, cmp.Diff(want, e.kernel.acl(), cmpAddr))
		}
	})
}

type freshKernel struct {
	*fakeKernel
	fresh bool
}

func (k freshKernel) Fresh() bool { return k.fresh }

// After a boot the kernel blocks nobody, so that there is nothing to be kept until the ERP answers.
func TestEnforcerBlocksAtOnceWhereNothingWasKept(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			want := ACL{SetStopped: keys("192.0.2.1")}
			k, snap := newFakeKernel(ACL{}), stored(t, want)
			e := NewEnforcer(Options{}, freshKernel{k, fresh}, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-done) }()
			synctest.Wait()
			assert.Equal(t, fresh, k.acl().Len() > 0)
			pass(storedPatience)
			assert.Empty(t, cmp.Diff(want, k.acl(), cmpAddr))
		})
	}
}
