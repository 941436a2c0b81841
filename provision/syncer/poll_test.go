package syncer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// statesERP is a fakeERP that tells states and customers by themselves too.
type statesERP struct {
	fakeERP

	mu        sync.Mutex
	states    func(ctx context.Context) (StatesAnswer, error)
	customers func(ctx context.Context, ids []provision.SubscriberID) (StatesAnswer, error)
	moved     func(ids []provision.SubscriberID) (bool, error)
	polls     []time.Time
	asked     [][]provision.SubscriberID
	followed  []provision.SubscriberID
}

func (f *statesERP) FetchStates(ctx context.Context, _ *provision.Snapshot) (StatesAnswer, error) {
	f.mu.Lock()
	f.polls = append(f.polls, time.Now())
	answer := f.states
	f.mu.Unlock()
	if answer == nil {
		return StatesAnswer{}, nil
	}
	return answer(ctx)
}

func (f *statesERP) FetchCustomers(ctx context.Context, ids []provision.SubscriberID, _ *provision.Snapshot) (StatesAnswer, error) {
	f.mu.Lock()
	f.asked = append(f.asked, ids)
	answer := f.customers
	f.mu.Unlock()
	if answer == nil {
		return StatesAnswer{}, nil
	}
	return answer(ctx, ids)
}

func (f *statesERP) Moved(_ context.Context, ids []provision.SubscriberID, _ *provision.Snapshot) (bool, error) {
	f.mu.Lock()
	f.followed = append(f.followed, ids...)
	answer := f.moved
	f.mu.Unlock()
	if answer == nil {
		return false, nil
	}
	return answer(ids)
}

// tell makes the next reads of states, and of customers, answer this.
func (f *statesERP) tell(states map[provision.SubscriberID]provision.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states = func(context.Context) (StatesAnswer, error) { return StatesAnswer{States: states}, nil }
	f.customers = func(_ context.Context, ids []provision.SubscriberID) (StatesAnswer, error) {
		answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
		for _, id := range ids {
			if st, ok := states[id]; ok {
				answer.States[id] = st
			}
		}
		return answer, nil
	}
}

func (f *statesERP) failStates(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states = func(context.Context) (StatesAnswer, error) { return StatesAnswer{}, err }
}

func (f *statesERP) takeAsked() [][]provision.SubscriberID {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.asked
	f.asked = nil
	return out
}

func (f *statesERP) counts() (full, states int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fakeERP.count(), len(f.polls)
}

// earlyERP is a statesERP that tells what lists say before it reads cards for a while.
type earlyERP struct {
	statesERP
	early StatesAnswer
}

func (f *earlyERP) FetchStatesEarly(ctx context.Context, prev *provision.Snapshot, early func(StatesAnswer)) (StatesAnswer, error) {
	f.mu.Lock()
	told := f.early
	f.mu.Unlock()
	early(told)
	select {
	case <-time.After(8 * time.Second):
	case <-ctx.Done():
	}
	return f.FetchStates(ctx, prev)
}

// What lists say comes into use before cards are read, also while something is held, and what is held is not counted twice.
func TestListsDoNotWaitForCards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &earlyERP{statesERP: statesERP{fakeERP: fakeERP{answer: says(provisiontest.Input(100))}}}
		s := New(everyMinute(), erp, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		pass(30 * time.Second)
		states := map[provision.SubscriberID]provision.State{active: provision.StatePause}
		erp.mu.Lock()
		erp.early = StatesAnswer{States: states}
		erp.mu.Unlock()
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause, 1006: provision.StatePause})
		pass(31 * time.Second)
		require.Equal(t, provision.StatePause, s.Current().State(active))
		require.NotEqual(t, provision.StatePause, s.Current().State(1006))
		pass(8 * time.Second)
		require.Equal(t, provision.StatePause, s.Current().State(1006))
	})
}

// everyMinute polls states each minute and everything each ten.
func everyMinute() Options {
	return Options{PollInterval: time.Minute, RefreshInterval: 10 * time.Minute, Guard: tightGuard}
}

func startStates(t *testing.T, opts Options, obs Observer) (*statesERP, *Syncer) {
	t.Helper()
	erp := &statesERP{fakeERP: fakeERP{answer: says(provisiontest.Input(100))}}
	s := New(opts, erp, nil, obs, provisiontest.Quiet())
	runSyncer(t, s)
	return erp, s
}

// active is a subscriber of testInput whose state is active.
const active = provision.SubscriberID(1005)

func TestStatesBetweenWholeFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &syncLog{}
		erp, s := startStates(t, everyMinute(), log)
		first := s.Current()
		require.Equal(t, provision.StateActive, first.State(active))
		pass(30 * time.Second)
		log.take()

		pass(4 * time.Minute)
		full, states := erp.counts()
		assert.Equal(t, 1, full)
		assert.Equal(t, 4, states)
		assert.Same(t, first, s.Current(), "nothing changed: nobody is told")
		assert.Equal(t, []string{"fetched states published <nil>", "fetched states published <nil>", "fetched states published <nil>", "fetched states published <nil>"}, log.take())
		st := s.Status()
		assert.Equal(t, FetchStates, st.LastKind)
		assert.InDelta(t, 30, st.StatesAgeSeconds, 1)
		assert.InDelta(t, 270, st.AgeSeconds, 1)
		assert.InDelta(t, 300, time.Until(st.NextFull).Seconds(), 1)

		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause, 1006: provision.StateActive, 999_999: provision.StateStop})
		pass(time.Minute)
		assert.Equal(t, provision.StatePause, s.Current().State(active))
		assert.Equal(t, provision.StateStop, s.Current().State(999_999), "a customer without an address may be new")
		assert.Contains(t, provisiontest.Paused(s.Current()), provisiontest.IP(5))
		assert.Equal(t, first.FetchedAt(), s.Current().FetchedAt(), "bindings are as old as before")
		assert.Equal(t, []string{"fetched states published <nil>"}, log.take()[1:])

		pass(20 * time.Minute)
		full, states = erp.counts()
		assert.Equal(t, 3, full)
		assert.Equal(t, 23, states)
	})
}

func TestEveryPollIsWholeWithoutRefreshInterval(t *testing.T) {
	for name, refresh := range map[string]time.Duration{"not set": 0, "as short": time.Minute, "shorter": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := everyMinute()
				opts.RefreshInterval = refresh
				erp, _ := startStates(t, opts, nil)
				pass(10*time.Minute + time.Second)
				full, states := erp.counts()
				assert.Equal(t, 11, full)
				assert.Zero(t, states)
			})
		})
	}
}

func TestRefreshAndReloadAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(90 * time.Second)
		s.Refresh()
		pass(time.Second)
		full, states := erp.counts()
		assert.Equal(t, 2, full)
		assert.Equal(t, 1, states)
		s.Reconfigure(everyMinute())
		pass(time.Second)
		full, _ = erp.counts()
		assert.Equal(t, 3, full)
	})
}

func TestStatesMayAskForAWholeFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.failStates(ErrFetchFirst)
		pass(61 * time.Second)
		full, states := erp.counts()
		assert.Equal(t, 2, full, "in the same poll")
		assert.Equal(t, 1, states)
		assert.Zero(t, s.Status().StateFailures)
		assert.Equal(t, FetchFull, s.Status().LastKind)

		erp.mu.Lock()
		erp.states = func(context.Context) (StatesAnswer, error) { return StatesAnswer{Refresh: true}, nil }
		erp.mu.Unlock()
		pass(70 * time.Second)
		full, states = erp.counts()
		assert.Equal(t, 3, full, "soon after a poll of states saw what it cannot tell")
		assert.Equal(t, 2, states)
		erp.tell(nil)
		pass(5 * time.Minute)
		full, _ = erp.counts()
		assert.Equal(t, 3, full)
	})
}

func TestGuardHoldsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		before := s.Current()
		stopped := map[provision.SubscriberID]provision.State{}
		in := provisiontest.Input(100)
		for i := range 40 {
			stopped[provision.SubscriberID(1000+i)] = provision.StateStop
			in.Subscribers[i].State = provision.StateStop
		}
		erp.tell(stopped)
		pass(61 * time.Second)
		held := s.Status().Held
		require.NotNil(t, held)
		assert.Equal(t, FetchStates, held.Kind)
		assert.Same(t, before, s.Current())
		assert.True(t, held.Decision.Blocked.Over)

		erp.set(says(in))
		pass(time.Minute)
		full, states := erp.counts()
		assert.Equal(t, []int{2, 1}, []int{full, states}, "while something is held, all of it is read")
		assert.Equal(t, FetchFull, s.Status().Held.Kind)
		assert.Equal(t, 2, s.Status().Held.Seen, "it says the same")
		require.NoError(t, accept(s))
		assert.Equal(t, provision.StateStop, s.Current().State(1020))
	})
}

func TestAcceptedStatesAreApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		paused := map[provision.SubscriberID]provision.State{}
		for i := range 40 {
			paused[provision.SubscriberID(1000+i)] = provision.StatePause
		}
		erp.tell(paused)
		pass(61 * time.Second)
		require.NotNil(t, s.Status().Held)
		problems := s.Status().Problems
		paid := maps.Clone(paused) // what a look at his card tells from now on
		paid[1000] = provision.StateActive
		erp.tell(paid)
		s.Override(1000, provision.StateActive, time.Now())
		require.NoError(t, accept(s))
		assert.Equal(t, provision.StatePause, s.Current().State(1020))
		assert.Equal(t, provision.StateActive, s.Current().State(1000), "the override is newer")
		assert.Equal(t, problems, s.Status().Problems)
		assert.Nil(t, s.Status().Held)
	})
}

func TestStatesGoOnWhereWholeFetchesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.set(fails(errors.New("bindings are broken")))
		pass(10 * time.Minute)
		require.Positive(t, s.Status().ConsecutiveFailures)
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StateStop})
		pass(3 * time.Minute)
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		assert.Equal(t, "bindings are broken", s.Status().LastError)
		assert.Zero(t, s.Status().StateFailures)
		full, states := erp.counts()
		erp.set(says(provisiontest.Input(100)))
		pass(3 * time.Minute)
		assert.Zero(t, s.Status().ConsecutiveFailures)
		assert.Less(t, full, 30)
		assert.Less(t, states, 40)
	})
}

func TestFailedStatesAreTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.failStates(errors.New("gateway time-out"))
		pass(62500 * time.Millisecond)
		_, states := erp.counts()
		assert.Equal(t, 2, states)
		assert.Equal(t, 2, s.Status().StateFailures)
		assert.Equal(t, "gateway time-out", s.Status().LastError)
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause})
		pass(3 * time.Second)
		assert.Equal(t, provision.StatePause, s.Current().State(active))
		assert.Zero(t, s.Status().StateFailures)
	})
}

func TestOverrideSurvivesOlderStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.mu.Lock()
		erp.states = func(ctx context.Context) (StatesAnswer, error) {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
			return StatesAnswer{States: map[provision.SubscriberID]provision.State{active: provision.StateActive}}, nil
		}
		erp.mu.Unlock()
		pass(62 * time.Second) // it reads, and has read "active" already
		s.Override(active, provision.StateStop, time.Now())
		pass(5 * time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		assert.Equal(t, 1, s.Status().Overrides)
		pass(time.Minute)
		assert.Equal(t, provision.StateActive, s.Current().State(active), "a poll that began later says so")
		assert.Zero(t, s.Status().Overrides)
	})
}

// TestWithStatesTakesManyNewSubscribers: an answer may be full of customers that
// nobody knew; that must not take a second each thousand.
func TestWithStatesTakesManyNewSubscribers(t *testing.T) {
	s := provisiontest.Build(t, provisiontest.Input(1000))
	states := map[provision.SubscriberID]provision.State{1500: provision.StateStop}
	for i := range 200_000 {
		states[provision.SubscriberID(5_000_000-i)] = provision.StatePause
	}
	began := time.Now()
	next := s.WithStates(states)
	assert.Less(t, time.Since(began), 5*time.Second)
	assert.Len(t, next.Subscribers(), 201_000)
	assert.Equal(t, provision.StatePause, next.State(4_900_000))
	assert.Equal(t, provision.StateStop, next.State(1500))
	assert.Equal(t, 200_000, next.Counts().Paused-s.Counts().Paused)
}

// TestStatesAloneAreJudgedLikeAll: where only states differ, guard and counts
// take a short way; it must lead to the same place.
func TestStatesAloneAreJudgedLikeAll(t *testing.T) {
	rng := provisiontest.Rand(11)
	limits := GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MinChanged: 1}
	blocked, short := 0, 0
	for range 400 {
		in := provisiontest.MessyInput(rng, 60)
		old, _ := provision.Build(in)
		states := map[provision.SubscriberID]provision.State{}
		for range rng.IntN(8) {
			states[provision.SubscriberID(1+rng.IntN(14))] = provision.State(rng.IntN(4))
		}
		next := old.WithStates(states)
		if !next.SameLines(old) {
			continue // a disputed address went to somebody else: the long way
		}
		short++
		same := withStates(in, old, states)
		whole, _ := provision.Build(same)
		require.Equal(t, whole.Fingerprint(), next.Fingerprint())
		require.Equal(t, whole.Counts(), next.Counts())
		want, got := Compare(old, whole, limits), Compare(old, next, limits)
		require.Equal(t, want, got)
		blocked += got.Blocked.Count
	}
	assert.Positive(t, blocked)
	assert.Greater(t, short, 20)
}

// withStates returns the input that Build would have needed for old with states.
func withStates(in provision.Input, old *provision.Snapshot, states map[provision.SubscriberID]provision.State) provision.Input {
	in.Subscribers = nil
	for _, sub := range old.Subscribers() {
		if st, ok := states[sub.ID]; ok {
			sub.State = st
		}
		in.Subscribers = append(in.Subscribers, sub)
	}
	for id, st := range states {
		if _, known := old.Subscriber(id); !known {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: st})
		}
	}
	return in
}

// A rejected answer stays rejected while whole fetches repeat it, whatever the
// polls of states between them say.
func TestSyncerStatesDoNotForgetRejection(t *testing.T) {
	for name, stop := range map[string]int{"states pass the guard": 1, "states are held too": 30} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				erp := &statesERP{fakeERP: fakeERP{answer: says(provisiontest.Input(100))}}
				limits := tightGuard
				limits.AcceptAfter = 2
				s := New(Options{PollInterval: time.Minute, RefreshInterval: 5 * time.Minute, Guard: limits}, erp, nil, nil, provisiontest.Quiet())
				runSyncer(t, s)
				require.Equal(t, 100, s.Current().Len())

				bad := without(50)
				states := map[provision.SubscriberID]provision.State{}
				for i := range bad.Subscribers {
					if sub := &bad.Subscribers[i]; len(states) < stop && s.Current().State(sub.ID) == provision.StateActive {
						sub.State = provision.StateStop
						states[sub.ID] = provision.StateStop
					}
				}
				require.Len(t, states, stop)
				erp.set(says(bad))
				s.Refresh()
				pass(time.Second)
				require.NotNil(t, s.GuardStatus().Held)
				require.NoError(t, reject(s))
				erp.tell(states)
				pass(time.Hour)
				require.NotEmpty(t, erp.polls)
				require.NotNil(t, s.GuardStatus().Held)
				assert.True(t, s.GuardStatus().Held.Rejected)
				assert.Equal(t, 100, s.Current().Len(), "what an operator rejected is not accepted by repetition")
			})
		})
	}
}

// fast polls states each second and everything each ten.
func fast() Options {
	return Options{PollInterval: time.Second, RefreshInterval: 10 * time.Second, Guard: tightGuard}
}

// hang makes whole fetches answer after d, with what the ERP said at their beginning, and gives whether one of them has begun.
func (f *statesERP) hang(d time.Duration, answer func(context.Context) (provision.Input, error)) (begun func() bool) {
	before := f.fakeERP.count()
	f.set(slow(d, answer))
	return func() bool { return f.fakeERP.count() > before }
}

// passUntil lets the clock run in small steps until something is so.
func passUntil(t *testing.T, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		pass(100 * time.Millisecond)
	}
	require.Fail(t, "never")
}

func TestStatesGoOnBesideAWholeFetch(t *testing.T) {
	for name, answer := range map[string]func(context.Context) (provision.Input, error){
		"that answers what was":  says(provisiontest.Input(100)),
		"that fails in the end":  fails(errors.New("http status 504")),
		"that is an empty table": says(provision.Input{}), // which the guard holds
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				erp, s := startStates(t, fast(), nil)
				passUntil(t, erp.hang(time.Minute, answer))
				began := time.Now()
				erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause})
				pass(1100 * time.Millisecond)
				assert.Equal(t, provision.StatePause, s.Current().State(active), "within a poll")
				assert.True(t, s.Status().Fetching)
				assert.Less(t, s.Status().StatesAgeSeconds, 1.1)
				pass(20 * time.Second)
				_, states := erp.counts()
				assert.InDelta(t, 30, states, 2, "one a second")

				last := s.Status().StatesAt
				for time.Since(began) < 63*time.Second {
					pass(200 * time.Millisecond)
					assert.Equal(t, provision.StatePause, s.Current().State(active), "the whole fetch began before: it does not undo it")
					assert.False(t, s.Status().StatesAt.Before(last), "what was read is not older than it was")
					last = s.Status().StatesAt
				}
				erp.set(says(provisiontest.Input(100)))
				pass(5 * time.Second)
				if s.Status().Held == nil {
					assert.Zero(t, s.Status().Overrides, "what two reads said is no override")
				}
			})
		})
	}
}

// What an operator and a hint did while a whole fetch runs outlasts it, also where a poll of states has confirmed it since.
func TestOverridesOutlastTheWholeFetchBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, fast(), nil)
		passUntil(t, erp.hang(time.Minute, says(provisiontest.Input(100))))
		const byHint, resumed = provision.SubscriberID(1006), provision.SubscriberID(1007)
		now := map[provision.SubscriberID]provision.State{active: provision.StateStop, byHint: provision.StatePause, resumed: provision.StatePause}
		pass(2500 * time.Millisecond)
		s.Override(active, provision.StateStop, time.Now())
		erp.tell(now)
		s.Hint(byHint)
		pass(5 * time.Second)
		now = map[provision.SubscriberID]provision.State{active: provision.StateStop, byHint: provision.StatePause, resumed: provision.StateActive}
		erp.tell(now)
		pass(5 * time.Second)
		erp.tell(nil) // nothing that would mend what the whole fetch does
		for range 600 {
			pass(100 * time.Millisecond)
			for id, want := range now {
				require.Equal(t, want, s.Current().State(id))
			}
		}
		full, _ := erp.counts()
		require.Equal(t, 3, full)
		pass(time.Minute)
		assert.Equal(t, provision.StateActive, s.Current().State(active), "the next one began later: what it says counts")
	})
}

func TestRefreshBesideAWholeFetchMakesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := fast()
		opts.RefreshInterval = time.Hour
		erp, s := startStates(t, opts, nil)
		pass(2 * time.Second)
		erp.set(slow(30*time.Second, says(provisiontest.Input(100))))
		s.Refresh()
		pass(5 * time.Second)
		full, _ := erp.counts()
		require.Equal(t, 2, full)
		s.Refresh()
		erp.set(says(provisiontest.Input(100)))
		pass(20 * time.Second)
		full, _ = erp.counts()
		require.Equal(t, 2, full, "not two at a time")
		pass(10 * time.Second)
		full, _ = erp.counts()
		require.Equal(t, 3, full)
		pass(time.Minute)
		full, _ = erp.counts()
		require.Equal(t, 3, full)
	})
}

// A whole fetch that the guard holds is not forgotten because of states that were being read when it ended, and they are not because of it.
func TestStatesReadWhileAFetchIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{PollInterval: 10 * time.Second, RefreshInterval: 20 * time.Second, Guard: tightGuard}
		erp, s := startStates(t, opts, nil)
		passUntil(t, erp.hang(12*time.Second, says(without(50))))
		erp.mu.Lock()
		erp.states = func(ctx context.Context) (StatesAnswer, error) {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
			return StatesAnswer{States: map[provision.SubscriberID]provision.State{active: provision.StatePause}}, nil
		}
		erp.mu.Unlock()
		passUntil(t, func() bool { return s.Status().Held != nil })
		require.Equal(t, provision.StateActive, s.Current().State(active))
		for range 300 { // the next whole fetches take 12 s each, too
			pass(100 * time.Millisecond)
			require.NotNil(t, s.Status().Held)
		}
		assert.Equal(t, provision.StatePause, s.Current().State(active))
		assert.Equal(t, 100, s.Current().Len())
		_, err := s.Accept("")
		require.NoError(t, err)
		assert.Equal(t, 50, s.Current().Len())
	})
}

// While a whole fetch hangs that follows failed ones, states are polled at their pace, not at that of retries.
func TestFailuresDoNotHurryStatesBesideAWholeFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.set(fails(errors.New("http status 504")))
		passUntil(t, func() bool { pass(time.Minute); return s.Status().ConsecutiveFailures > 0 })
		passUntil(t, erp.hang(4*time.Minute, fails(errors.New("http status 504"))))
		_, before := erp.counts()
		pass(3 * time.Minute)
		_, after := erp.counts()
		assert.InDelta(t, 3, after-before, 1)
	})
}

// After a restart with a stored snapshot the first whole fetch may take its time: states are polled beside it, where the Fetcher
// can read them by what it has stored itself, and in turns with it where it fails.
func TestStatesBesideTheFirstFetchAfterARestart(t *testing.T) {
	stored, _ := provision.Build(provisiontest.Input(100))
	start := func(t *testing.T, answer func(context.Context) (provision.Input, error)) (*statesERP, *Syncer) {
		erp := &statesERP{fakeERP: fakeERP{answer: answer}}
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause})
		s := New(fast(), erp, &memoryStore{snap: stored}, nil, provisiontest.Quiet())
		require.NoError(t, s.LoadStored())
		runSyncer(t, s)
		return erp, s
	}
	t.Run("that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			erp, s := start(t, slow(time.Minute, says(provisiontest.Input(100))))
			pass(1100 * time.Millisecond)
			assert.Equal(t, provision.StatePause, s.Current().State(active), "within a poll")
			pass(70 * time.Second)
			assert.Equal(t, provision.StatePause, s.Current().State(active), "the first whole fetch began before")
			full, _ := erp.counts()
			assert.Less(t, full, 4)
		})
	})
	t.Run("that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, s := start(t, fails(errors.New("http status 504")))
			pass(3 * time.Second)
			assert.Equal(t, provision.StatePause, s.Current().State(active))
		})
	})
	t.Run("that must come first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			erp, s := start(t, slow(5*time.Second, says(provisiontest.Input(100))))
			erp.failStates(ErrFetchFirst)
			pass(4500 * time.Millisecond)
			erp.tell(nil)
			pass(4 * time.Second)
			full, _ := erp.counts()
			assert.Equal(t, 1, full, "no other one is asked for by that")
			assert.Zero(t, s.Status().StateFailures)
		})
	})
}
