package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// fakeERP answers with a function and remembers when it was asked.
type fakeERP struct {
	mu     sync.Mutex
	answer func(ctx context.Context) (provision.Input, error)
	calls  []time.Time
	prevs  []*provision.Snapshot
	now    int // fetches that run
}

func (f *fakeERP) Fetch(ctx context.Context, prev *provision.Snapshot) (provision.Input, error) {
	f.mu.Lock()
	f.calls = append(f.calls, time.Now())
	f.prevs = append(f.prevs, prev)
	f.now++
	if f.now > 1 {
		panic("two fetches at a time")
	}
	answer := f.answer
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	return answer(ctx)
}

func (f *fakeERP) set(answer func(ctx context.Context) (provision.Input, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fakeERP) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// says makes the ERP answer with an input, at whatever time it is asked.
func says(in provision.Input) func(context.Context) (provision.Input, error) {
	in.FetchedAt = time.Time{}
	return func(context.Context) (provision.Input, error) { return in, nil }
}

func fails(err error) func(context.Context) (provision.Input, error) {
	return func(context.Context) (provision.Input, error) { return provision.Input{}, err }
}

func slow(d time.Duration, answer func(context.Context) (provision.Input, error)) func(context.Context) (provision.Input, error) {
	return func(ctx context.Context) (provision.Input, error) {
		select {
		case <-ctx.Done():
			return provision.Input{}, ctx.Err()
		case <-time.After(d):
			return answer(ctx)
		}
	}
}

// memoryStore is a SnapshotStore without a disk.
type memoryStore struct {
	mu    sync.Mutex
	snap  *provision.Snapshot
	err   error
	saves int
}

func (m *memoryStore) Load() (*provision.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snap == nil && m.err == nil {
		return nil, fs.ErrNotExist
	}
	return m.snap, m.err
}

func (m *memoryStore) Save(s *provision.Snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.err == nil {
		m.snap = s
	}
	return m.err
}

func (m *memoryStore) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memoryStore) get() (*provision.Snapshot, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snap, m.saves
}

// syncLog is a Observer that writes down what it sees.
type syncLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *syncLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *syncLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.lines
	l.lines = nil
	return out
}

func (l *syncLog) Fetched(r FetchReport) {
	if r.Kind == FetchFull {
		l.add("fetched %s %v", r.Outcome, r.Err)
	} else {
		l.add("fetched %s %s %v", r.Kind, r.Outcome, r.Err)
	}
}
func (l *syncLog) Published(s *provision.Snapshot, p map[provision.ProblemKind]int) {
	l.add("published %s %d rows %d kinds", s.Source(), s.Len(), len(p))
}
func (l *syncLog) Held(h *HeldStatus) {
	if h == nil {
		l.add("held nothing")
		return
	}
	l.add("held seen %d rejected %t", h.Seen, h.Rejected)
}
func (l *syncLog) OpenedUnconfirmed(n int) { l.add("opened %d unconfirmed", n) }

func (l *syncLog) Stored(_ time.Duration, err error) { l.add("stored %v", err) }

// startSyncer runs a Syncer until the test of the bubble ends.
func startSyncer(t *testing.T, opts Options, erp *fakeERP, store SnapshotStore, obs Observer) *Syncer {
	t.Helper()
	s := New(opts, erp, store, obs, provisiontest.Quiet())
	runSyncer(t, s)
	return s
}

func runSyncer(t *testing.T, s *Syncer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		err, running := <-done
		if running {
			assert.NoError(t, err)
		}
	}
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

// pass lets the fake clock run and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var tightGuard = GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.1, MinChanged: 2}

// accept and reject decide on whatever is held.
func accept(s *Syncer) error {
	_, err := s.Accept("")
	return err
}

func reject(s *Syncer) error {
	_, err := s.Reject("")
	return err
}

// without returns the test input less its first rows.
func without(n int) provision.Input {
	in := provisiontest.Input(100)
	in.Lines = in.Lines[n:]
	return in
}

func TestSyncerPollsWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(10))}
		startSyncer(t, Options{PollInterval: time.Minute, PollJitter: 0.2}, erp, nil, nil)
		pass(100 * time.Minute)
		var waits []time.Duration
		different := map[time.Duration]bool{}
		for i := 1; i < len(erp.calls); i++ {
			d := erp.calls[i].Sub(erp.calls[i-1])
			waits = append(waits, d)
			different[d] = true
			assert.GreaterOrEqual(t, d, 48*time.Second)
			assert.LessOrEqual(t, d, 72*time.Second)
		}
		assert.Greater(t, len(waits), 80)
		assert.Greater(t, len(different), 50)
		assert.Nil(t, erp.prevs[0])
		assert.NotNil(t, erp.prevs[1], "the fetcher gets the snapshot in use as a hint")
	})
}

func TestSyncerKeepsLastGoodSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: fails(errors.New("connection refused"))}
		log := &syncLog{}
		s := startSyncer(t, Options{PollInterval: 10 * time.Second}, erp, nil, log)
		assert.Nil(t, s.Current())
		pass(time.Minute)
		var waits []string
		for i := 1; i < len(erp.calls); i++ {
			waits = append(waits, erp.calls[i].Sub(erp.calls[i-1]).String())
		}
		assert.Equal(t, []string{"1s", "2s", "4s", "8s", "10s", "10s", "10s", "10s"}, waits, "sooner after a failure, never later than the interval")
		st := s.Status()
		assert.Equal(t, 9, st.ConsecutiveFailures)
		assert.Equal(t, "connection refused", st.LastError)
		assert.Empty(t, st.Source)

		erp.set(says(provisiontest.Input(10)))
		pass(10 * time.Second)
		good := s.Current()
		require.Equal(t, 10, good.Len())
		assert.Zero(t, s.Status().ConsecutiveFailures)

		erp.set(fails(errors.New("html page")))
		pass(time.Hour)
		assert.Same(t, good, s.Current())
		st = s.Status()
		assert.Equal(t, "html page", st.LastError)
		assert.InDelta(t, 3600, st.AgeSeconds, 11)
		assert.Equal(t, provision.SourceDirect, st.Source)
		assert.False(t, st.NextPoll.IsZero())
		lines := log.take()
		assert.Equal(t, "fetched failed connection refused", lines[0])
		assert.Contains(t, lines, "published direct 10 rows 0 kinds")
	})
}

func TestSyncerFetchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: slow(time.Hour, says(provisiontest.Input(10)))}
		s := startSyncer(t, Options{PollInterval: time.Minute, FetchTimeout: 20 * time.Second}, erp, nil, nil)
		assert.True(t, s.Status().Fetching)
		pass(20*time.Second + time.Millisecond)
		assert.Equal(t, 1, s.Status().ConsecutiveFailures)
		assert.Equal(t, context.DeadlineExceeded.Error(), s.Status().LastError)
	})
}

func TestSyncerRefreshCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: slow(3*time.Second, says(provisiontest.Input(10)))}
		s := startSyncer(t, Options{PollInterval: time.Hour}, erp, nil, nil)
		require.Equal(t, 1, erp.count())
		for range 50 {
			s.Refresh()
		}
		pass(time.Second)
		require.Equal(t, 1, erp.count(), "one fetch at a time")
		pass(30 * time.Second)
		require.Equal(t, 2, erp.count(), "all the calls during a fetch became one")
		began := time.Now()
		s.Refresh()
		synctest.Wait()
		require.Equal(t, 3, erp.count())
		assert.Equal(t, began, erp.calls[2], "an idle syncer polls at once")
		erp.set(says(provisiontest.Input(10)))
		pass(10 * time.Second)
		n := erp.count()
		for range 1000 { // a flood over one second
			s.Refresh()
			pass(time.Millisecond)
		}
		assert.LessOrEqual(t, erp.count()-n, 6)
		assert.GreaterOrEqual(t, erp.count()-n, 4)
	})
}

func TestSyncerGuardAcceptAndReject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		log := &syncLog{}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, log)
		full := s.Current()
		require.Equal(t, 100, full.Len())
		require.ErrorIs(t, accept(s), ErrNothingHeld)
		require.ErrorIs(t, reject(s), ErrNothingHeld)
		log.take()

		erp.set(says(without(50)))
		pass(3 * time.Minute)
		assert.Same(t, full, s.Current())
		g := s.GuardStatus()
		require.NotNil(t, g.Held)
		assert.Equal(t, 3, g.Held.Seen)
		assert.Equal(t, tightGuard, g.Limits)
		assert.Equal(t, "would remove 50 of 100 subscribers (50%), limit 10%", g.Held.Decision.Reason)
		assert.Equal(t, g.Held, s.Status().Held)
		assert.Equal(t, []string{"held seen 1 rejected false", "fetched held <nil>", "held seen 2 rejected false", "fetched held <nil>",
			"held seen 3 rejected false", "fetched held <nil>"}, log.take())

		require.NoError(t, reject(s))
		assert.Nil(t, s.GuardStatus().Held)
		assert.Same(t, full, s.Current())
		pass(time.Minute)
		require.NotNil(t, s.GuardStatus().Held, "still visible")
		assert.True(t, s.GuardStatus().Held.Rejected)

		erp.set(says(without(40))) // ten are taken back, the others are not
		pass(time.Minute)
		assert.True(t, s.GuardStatus().Held.Rejected)
		assert.Equal(t, 1, s.GuardStatus().Held.Seen)
		assert.Len(t, s.GuardStatus().Changes, 40)
		erp.set(says(without(52))) // twelve more: offered anew
		pass(time.Minute)
		assert.False(t, s.GuardStatus().Held.Rejected)
		assert.Equal(t, 1, s.GuardStatus().Held.Seen)
		assert.Equal(t, "would remove 12 of 100 subscribers (12%), limit 10%; would remove 40 subscribers, which an operator rejected", s.GuardStatus().Held.Decision.Reason)
		erp.set(says(without(40)))
		pass(time.Minute)
		require.NoError(t, accept(s))
		assert.Equal(t, 60, s.Current().Len())
		assert.Nil(t, s.Status().Held)
		assert.Empty(t, s.GuardStatus().Rejected)

		erp.set(says(without(80)))
		pass(time.Minute)
		require.NotNil(t, s.GuardStatus().Held)
		erp.set(says(without(39))) // harmless again
		pass(time.Minute)
		assert.Nil(t, s.GuardStatus().Held)
		assert.Equal(t, 61, s.Current().Len())
	})
}

func TestSyncerAcceptAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := tightGuard
		guard.AcceptAfter = 3
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: guard}, erp, nil, nil)

		erp.set(says(without(50)))
		pass(2 * time.Minute)
		require.Equal(t, 100, s.Current().Len())
		erp.set(says(without(51))) // another answer: counted from one again
		pass(2 * time.Minute)
		require.Equal(t, 100, s.Current().Len())
		require.Equal(t, 2, s.GuardStatus().Held.Seen)
		erp.set(fails(errors.New("down"))) // says nothing, changes nothing
		pass(time.Minute)
		erp.set(says(without(51)))
		pass(time.Minute)
		require.Equal(t, 49, s.Current().Len(), "third time")
		require.Nil(t, s.GuardStatus().Held)

		erp.set(says(without(100)))
		pass(time.Hour)
		require.Equal(t, 49, s.Current().Len(), "no rows are never accepted by repetition")
		require.Greater(t, s.GuardStatus().Held.Seen, 50)
		require.True(t, s.GuardStatus().Held.Decision.NoRows)

		erp.set(says(without(80)))
		pass(time.Minute)
		require.NoError(t, reject(s))
		pass(time.Hour)
		require.Equal(t, 49, s.Current().Len(), "what an operator rejected neither")
		require.NoError(t, accept(s), "but the operator may change the mind")
		require.Equal(t, 20, s.Current().Len())
	})
}

func TestSyncerFirstFetchWithoutRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provision.Input{Source: provision.SourceDirect})}
		s := startSyncer(t, Options{PollInterval: time.Minute}, erp, nil, nil)
		assert.Nil(t, s.Current())
		assert.True(t, s.GuardStatus().Held.Decision.NoRows)
		erp.set(says(provisiontest.Input(3)))
		pass(time.Minute)
		assert.Equal(t, 3, s.Current().Len(), "the first fetch with rows passes")
	})
}

func TestSyncerOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(10))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil)
		updates := s.Updates()
		const id = provision.SubscriberID(1000)
		require.Equal(t, provision.StateActive, s.Current().State(id))

		pass(time.Second)
		erp.set(slow(10*time.Second, says(provisiontest.Input(10)))) // will still say active
		s.Refresh()
		pass(5 * time.Second)
		s.Override(id, provision.StatePause, time.Now())
		assert.Equal(t, provision.StatePause, s.Current().State(id), "at once")
		assert.Contains(t, provisiontest.Paused(s.Current()), provisiontest.IP(0))
		assert.Len(t, updates, 1)
		assert.Equal(t, 1, s.Status().Overrides)
		pass(6 * time.Second)
		require.Equal(t, 2, erp.count())
		assert.Equal(t, provision.StatePause, s.Current().State(id), "a fetch that began before does not undo it")
		assert.Equal(t, 1, s.Status().Overrides)

		pass(70 * time.Second)
		require.Equal(t, 3, erp.count())
		assert.Equal(t, provision.StateActive, s.Current().State(id), "one that began later knows better")
		assert.Zero(t, s.Status().Overrides)

		s.Override(id, provision.StateStop, s.Current().FetchedAt().Add(-time.Second))
		assert.Equal(t, provision.StateActive, s.Current().State(id), "older than what is in use")
		now := time.Now()
		s.Override(id, provision.StateStop, now)
		s.Override(id, provision.StatePause, now.Add(-time.Millisecond))
		assert.Equal(t, provision.StateStop, s.Current().State(id), "the newest wins")
	})
}

// While the guard holds what the ERP says, an operator can still act on one.
func TestSyncerOverrideWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil)
		erp.set(says(without(50)))
		pass(time.Minute)
		require.NotNil(t, s.GuardStatus().Held)
		pass(time.Second)
		s.Override(1099, provision.StateStop, time.Now())
		require.NoError(t, accept(s))
		assert.Equal(t, 50, s.Current().Len())
		assert.Equal(t, provision.StateStop, s.Current().State(1099), "the held fetch is older than the override")
	})
}

// Who has paid is let in although the guard holds what the ERP says of others, and who is stopped apart from that is stopped;
// nobody is removed by it.
func TestSyncerLetsInWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil)
		const stopped, active = 1067, 1070
		require.Equal(t, provision.StateStop, s.Current().State(stopped))
		half := without(50)
		half.Subscribers = slices.Clone(half.Subscribers)
		for i := range half.Subscribers {
			switch half.Subscribers[i].ID {
			case stopped:
				half.Subscribers[i].State = provision.StateActive
			case active:
				half.Subscribers[i].State = provision.StateStop
			}
		}
		erp.set(says(half))
		pass(time.Minute)
		require.NotNil(t, s.GuardStatus().Held)
		assert.Equal(t, 100, s.Current().Len())
		assert.Equal(t, provision.StateActive, s.Current().State(stopped))
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		pass(3 * time.Minute)
		assert.Equal(t, provision.StateActive, s.Current().State(stopped))

		pass(time.Second)
		s.Override(stopped, provision.StatePause, time.Now())
		pass(time.Second)
		assert.Equal(t, provision.StatePause, s.Current().State(stopped), "an operator's word is newer than the answer")
		empty := without(100)
		empty.Subscribers = nil
		erp.set(says(empty))
		pass(time.Minute)
		assert.Equal(t, 100, s.Current().Len())
	})
}

func TestSyncerOverrideBeforeFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: slow(10*time.Second, says(provisiontest.Input(10)))}
		s := startSyncer(t, Options{}, erp, nil, nil)
		pass(time.Second)
		s.Override(1000, provision.StateStop, time.Now())
		assert.Nil(t, s.Current())
		pass(10 * time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(1000))
	})
}

func TestSyncerStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memoryStore{}
		erp := &fakeERP{answer: says(provisiontest.Input(10))}
		log := &syncLog{}
		s := New(Options{PollInterval: time.Minute}, erp, store, log, provisiontest.Quiet())
		require.NoError(t, s.LoadStored(), "no stored snapshot is no error")
		stop := runSyncer(t, s)
		snap, saves := store.get()
		require.Equal(t, 10, snap.Len(), "stored as soon as it is published")
		require.Equal(t, 1, saves)

		pass(9 * time.Minute)
		_, saves = store.get()
		require.Equal(t, 1, saves, "the same content is not written with every poll")
		pass(2 * time.Minute)
		_, saves = store.get()
		require.Equal(t, 2, saves, "but its time is kept up to date")

		for i := range 20 { // many overrides in one second
			s.Override(provision.SubscriberID(1000+i), provision.StateStop, time.Now())
			pass(10 * time.Millisecond)
		}
		pass(2 * time.Second)
		snap, saves = store.get()
		require.LessOrEqual(t, saves, 4)
		require.Equal(t, s.Current().Fingerprint(), snap.Fingerprint())

		store.set(errors.New("no space left on device"))
		s.Override(1000, provision.StatePause, time.Now())
		synctest.Wait()
		require.Equal(t, "no space left on device", s.Status().StoreError)
		require.Equal(t, provision.StatePause, s.Current().State(1000), "the agent goes on")
		require.Contains(t, log.take(), "stored no space left on device")
		store.set(nil)
		pass(11 * time.Second)
		require.Empty(t, s.Status().StoreError, "tried again")
		snap, _ = store.get()
		require.Equal(t, provision.StatePause, snap.State(1000))

		s.Override(1000, provision.StateStop, time.Now())
		stop()
		snap, _ = store.get()
		require.Equal(t, provision.StateStop, snap.State(1000), "a stop writes what is not written yet")
	})
}

func TestSyncerStartsFromStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	in := provisiontest.Input(100)
	require.NoError(t, NewStore(path).Save(provisiontest.Build(t, in)))
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: fails(errors.New("down"))}
		log := &syncLog{}
		s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, erp, NewStore(path), log, provisiontest.Quiet())
		require.NoError(t, s.LoadStored())
		require.Equal(t, 100, s.Current().Len())
		assert.Equal(t, provision.SourceStored, s.Current().Source())
		assert.True(t, in.FetchedAt.Equal(s.Current().FetchedAt()), "its age is that of the fetch")
		assert.Equal(t, []string{"published stored 100 rows 0 kinds"}, log.take())
		runSyncer(t, s)
		pass(time.Hour)
		assert.Equal(t, provision.SourceStored, s.Status().Source)
		assert.NotContains(t, log.take(), "stored <nil>", "what was just read is not written again")

		erp.set(says(without(50)))
		pass(time.Minute)
		assert.NotNil(t, s.GuardStatus().Held, "the guard compares with the stored one")
		erp.set(says(without(1)))
		pass(time.Minute)
		assert.Equal(t, provision.SourceDirect, s.Status().Source)
	})
	stored, err := NewStore(path).Load()
	require.NoError(t, err)
	require.Equal(t, 99, stored.Len())
}

func TestSyncerDamagedStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	require.NoError(t, os.WriteFile(path, []byte("rubbish\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(path), "guard"), []byte("rubbish\n"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{}, &fakeERP{answer: says(provisiontest.Input(10))}, NewStore(path), nil, provisiontest.Quiet())
		require.ErrorContains(t, s.LoadStored(), "line 1: not a stored snapshot of usher")
		assert.Contains(t, s.Status().StoreError, "line 1")
		unread := s.Status().Unread
		require.Len(t, unread, 2)
		assert.Contains(t, unread[0], "; kept as guard.bad")
		assert.Contains(t, unread[1], "; kept as snapshot.bad")
		runSyncer(t, s)
		pass(2 * time.Second)
		assert.Equal(t, 10, s.Current().Len())
		assert.Empty(t, s.Status().StoreError)
		assert.Equal(t, unread, s.Status().Unread, "that is told as long as the agent runs")

		require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "guard.bad")))
		require.NoError(t, os.Mkdir(filepath.Join(filepath.Dir(path), "guard"), 0o700))
		s.mu.Lock()
		s.rejected.add(ChangeOpened, 5)
		s.mu.Unlock()
		k := keeper{known: s.storedKnown}
		s.save(&k)
		assert.Contains(t, s.Status().GuardStoreError, "store what the guard knows: ")
		require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "guard")))
		s.save(&k)
		assert.Empty(t, s.Status().GuardStoreError)
	})
	_, err := NewStore(path).Load()
	require.NoError(t, err, "replaced by a good one")
}

func TestSyncerReconfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Hour, Guard: tightGuard}, erp, nil, nil)
		erp.set(says(without(50)))
		s.Refresh()
		pass(time.Second)
		require.NotNil(t, s.GuardStatus().Held)
		s.Reconfigure(Options{PollInterval: 10 * time.Second, Guard: GuardLimits{MaxRemoved: 1}, Reserved: provisiontest.Addrs("100.64.0.99")})
		pass(time.Second)
		assert.Equal(t, 49, s.Current().Len(), "new limits and reserved addresses")
		assert.Equal(t, map[provision.ProblemKind]int{provision.ProblemReservedAddress: 1}, s.Status().Problems)
		n := erp.count()
		pass(time.Minute)
		assert.Equal(t, 6, erp.count()-n, "new interval")
	})
}

func TestSyncerUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(10))}
		s := New(Options{PollInterval: time.Second}, erp, nil, nil, provisiontest.Quiet())
		a, b := s.Updates(), s.Updates()
		runSyncer(t, s)
		pass(10 * time.Second)
		assert.Len(t, a, 1, "many publications, one value")
		assert.Len(t, b, 1, "each consumer has its own")
		<-a
		pass(time.Second)
		assert.Len(t, a, 1)
	})
}

func TestSyncerListsProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provisiontest.Input(10)
		for i := range 1500 {
			in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(1 + i), MAC: provision.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}})
		}
		s := startSyncer(t, Options{}, &fakeERP{answer: says(in)}, nil, nil)
		st := s.Status()
		assert.Equal(t, map[provision.ProblemKind]int{provision.ProblemNoAddress: 1500}, st.Problems)
		assert.Len(t, st.ProblemsList, 1000)
		st.Problems[provision.ProblemBadRow] = 1
		assert.Len(t, s.Status().Problems, 1, "a copy")

		text, err := json.Marshal(st)
		require.NoError(t, err)
		var back map[string]any
		require.NoError(t, json.Unmarshal(text, &back))
		for _, key := range []string{"source", "fetched_at", "age_seconds", "published_at", "fingerprint", "counts", "problems", "problems_list",
			"consecutive_failures", "next_poll", "overrides", "last_fetch_seconds"} {
			assert.Contains(t, back, key)
		}
		assert.NotContains(t, back, "held")
		assert.NotContains(t, back, "last_error_at")
	})
}

// A flood of one kind of problem does not hide another kind.
func TestSyncerListsEveryKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provisiontest.Input(10)
		for i := range 1500 {
			in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(1 + i)})
		}
		in.Lines[3].Device = 999
		s := startSyncer(t, Options{}, &fakeERP{answer: says(in)}, nil, nil)
		st := s.Status()
		assert.Equal(t, map[provision.ProblemKind]int{provision.ProblemBadRow: 1500, provision.ProblemUnknownDevice: 1}, st.Problems)
		require.Len(t, st.ProblemsList, 501)
		assert.Equal(t, provision.ProblemUnknownDevice, st.ProblemsList[500].Kind)
	})
}

// A script that asks for a poll again and again is not the patience that
// AcceptAfter means.
func TestSyncerRefreshDoesNotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := tightGuard
		guard.AcceptAfter = 5
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: guard}, erp, nil, nil)
		erp.set(says(without(50)))
		for range 100 {
			s.Refresh()
			pass(time.Second)
		}
		require.Greater(t, s.GuardStatus().Held.Seen, 50)
		require.Equal(t, 100, s.Current().Len())
		pass(2 * time.Minute)
		require.Equal(t, 50, s.Current().Len())
	})
}

// Everything at once, for the race detector.
func TestSyncerConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: slow(10*time.Millisecond, says(provisiontest.Input(50)))}
		s := startSyncer(t, Options{PollInterval: 20 * time.Millisecond, Guard: tightGuard}, erp, &memoryStore{}, &syncLog{})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 50 {
					switch (i + j) % 6 {
					case 0:
						s.Override(provision.SubscriberID(1000+j), provision.State(1+j%3), time.Now())
					case 1:
						s.Refresh()
					case 2:
						_, _ = accept(s), reject(s)
					case 3:
						s.Status()
					case 4:
						s.Current().Blocked()
						s.Current().Fingerprint()
					default:
						s.Reconfigure(Options{PollInterval: 20 * time.Millisecond, Guard: tightGuard})
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		assert.Equal(t, 50, s.Current().Len())
	})
}

// The clock was ahead when the snapshot was stored, and the ERP gives no other.
func TestSyncerChangesSnapshotOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provisiontest.Input(10)
		in.FetchedAt = time.Now().Add(24 * time.Hour)
		snap, _ := provision.Build(in)
		erp := &fakeERP{answer: fails(errors.New("no rows for you"))}
		s := New(Options{PollInterval: time.Minute}, erp, &memoryStore{snap: snap}, nil, provisiontest.Quiet())
		require.NoError(t, s.LoadStored())
		runSyncer(t, s)
		pass(time.Second)
		require.Equal(t, provision.StateActive, s.Current().State(1005))
		s.Override(1005, provision.StateStop, time.Now())
		assert.Equal(t, provision.StateStop, s.Current().State(1005), "what the ERP confirmed holds at once")
	})
}
