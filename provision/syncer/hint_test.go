package syncer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestHintIsReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &syncLog{}
		erp, s := startStates(t, everyMinute(), log)
		pass(10 * time.Second)
		log.take()
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StateStop, 1006: provision.StatePause})
		s.Hint(active)
		synctest.Wait() // no time passes
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		assert.Equal(t, provision.StateActive, s.Current().State(1006), "nobody hinted at it")
		assert.Equal(t, [][]provision.SubscriberID{{active}}, erp.takeAsked())
		assert.Equal(t, []string{"published direct 100 rows 0 kinds", "fetched customers published <nil>"}, log.take())
		st := s.Status().Hints
		assert.EqualValues(t, 1, st.Received)
		assert.Zero(t, st.Pending)
		assert.Equal(t, time.Now(), st.LastAppliedAt)
		full, states := erp.counts()
		assert.Equal(t, []int{1, 0}, []int{full, states})
		assert.Equal(t, []provision.SubscriberID{active}, erp.followed, "its port is looked at, too")
	})
}

func TestHintsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		release := make(chan struct{})
		erp.mu.Lock()
		erp.customers = func(ctx context.Context, _ []provision.SubscriberID) (StatesAnswer, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return StatesAnswer{}, nil
		}
		erp.mu.Unlock()
		s.Hint(1000)
		synctest.Wait()
		for range 5 {
			for i := range 150 {
				s.Hint(provision.SubscriberID(1001 + i))
			}
		}
		synctest.Wait()
		assert.Equal(t, 150, s.Status().Hints.Pending)
		close(release)
		synctest.Wait()
		asked := erp.takeAsked()
		require.Len(t, asked, 3)
		assert.Len(t, asked[0], 1)
		assert.Len(t, asked[1], hintBatch)
		assert.Len(t, asked[2], 50)
		assert.Equal(t, provision.SubscriberID(1001), asked[1][0], "in the order they came")
		assert.EqualValues(t, 751, s.Status().Hints.Received)
	})
}

func TestTooManyHintsBecomeAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(10 * time.Second)
		release := make(chan struct{})
		erp.mu.Lock()
		erp.customers = func(ctx context.Context, ids []provision.SubscriberID) (StatesAnswer, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
			for _, id := range ids {
				answer.States[id] = s.Current().State(id)
			}
			return answer, nil
		}
		erp.states = func(context.Context) (StatesAnswer, error) { // hints come while it is asked
			<-time.After(100 * time.Millisecond)
			return StatesAnswer{}, nil
		}
		erp.mu.Unlock()
		s.Hint(1)
		synctest.Wait()
		for i := range maxHints + 5 {
			s.Hint(provision.SubscriberID(10 + i))
		}
		pass(time.Second)
		assert.Equal(t, maxHints, s.Status().Hints.Pending)
		assert.EqualValues(t, 5, s.Status().Hints.Overflows)
		_, states := erp.counts()
		// One poll stands in for all that came before it; one that had begun with
		// the first of them is followed by one for the others.
		assert.Positive(t, states)
		assert.LessOrEqual(t, states, 2)
		close(release)
		pass(time.Second)
		assert.Zero(t, s.Status().Hints.Pending)
	})
}

func TestHintDuringAWholeFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		erp.set(slow(30*time.Second, says(provisiontest.Input(100)))) // says "active", as read when it began
		s.Refresh()
		pass(time.Second)
		require.True(t, s.Status().Fetching)
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StateStop})
		s.Hint(active)
		synctest.Wait()
		assert.Equal(t, provision.StateStop, s.Current().State(active), "it does not wait for the fetch")
		pass(time.Minute)
		assert.Equal(t, provision.StateStop, s.Current().State(active), "a fetch that began before does not undo it")
	})
}

func TestHintOfOtherAddressesAsksForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(90 * time.Second)
		erp.mu.Lock()
		erp.customers = func(context.Context, []provision.SubscriberID) (StatesAnswer, error) {
			return StatesAnswer{Refresh: true}, nil
		}
		erp.mu.Unlock()
		s.Hint(active)
		pass(time.Second)
		full, _ := erp.counts()
		assert.Equal(t, 2, full, "at once, for the last one is longer ago than an interval")
		for range 20 { // an import changes many
			s.Hint(active)
			pass(time.Second)
		}
		full, _ = erp.counts()
		assert.Equal(t, 2, full, "but not one for each hint")
		pass(time.Minute)
		full, _ = erp.counts()
		assert.Equal(t, 3, full)
	})
}

func TestHintOfAnotherPort(t *testing.T) {
	tests := map[string]struct {
		moved bool
		err   error
		want  int
	}{
		"moved": {true, nil, 2}, "same": {false, nil, 1}, "not told": {false, errors.New("time-out"), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				erp, s := startStates(t, everyMinute(), nil)
				pass(90 * time.Second)
				erp.mu.Lock()
				erp.moved = func([]provision.SubscriberID) (bool, error) { return tt.moved, tt.err }
				erp.mu.Unlock()
				s.Hint(active)
				pass(time.Second)
				full, _ := erp.counts()
				assert.Equal(t, tt.want, full)
			})
		})
	}
}

func TestHintThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &syncLog{}
		erp, s := startStates(t, everyMinute(), log)
		pass(10 * time.Second)
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StateStop})
		erp.mu.Lock()
		erp.customers = func(context.Context, []provision.SubscriberID) (StatesAnswer, error) {
			return StatesAnswer{}, errors.New("refused")
		}
		erp.mu.Unlock()
		log.take()
		s.Hint(active)
		pass(time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(active), "a poll of states is made instead")
		assert.Equal(t, "refused", s.Status().Hints.LastError)
		assert.Contains(t, log.take(), "fetched customers failed refused")
	})
}

// A hint whose card cannot be read is asked for again, with a growing wait, until it can: what only the card tells, as a flag, comes by
// nothing else so soon.
func TestHintIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(10 * time.Second)
		fail := errors.New("http status 503")
		erp.mu.Lock()
		var tries []time.Duration
		began := time.Now()
		erp.customers = func(_ context.Context, ids []provision.SubscriberID) (StatesAnswer, error) {
			erp.mu.Lock()
			defer erp.mu.Unlock()
			tries = append(tries, time.Since(began))
			answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
			for _, id := range ids {
				answer.States[id] = provision.StateStop
			}
			return answer, fail
		}
		erp.mu.Unlock()
		s.Hint(active)
		pass(4*time.Minute + 2*time.Second)
		erp.mu.Lock()
		assert.Equal(t, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 63 * time.Second, 123 * time.Second, 183 * time.Second}, tries)
		fail = nil
		erp.mu.Unlock()
		assert.Equal(t, 1, s.Status().Hints.Pending)
		assert.Equal(t, provision.StateActive, s.Current().State(active))
		s.Hint(1006) // cards can be read again: nobody waits any more
		pass(time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		assert.Zero(t, s.Status().Hints.Pending)
		pass(10 * time.Minute)
		erp.mu.Lock()
		assert.Len(t, tries, 11, "and then no more")
		fail = errors.New("forbidden")
		erp.mu.Unlock()
		s.Hint(active)
		pass(30 * time.Minute)
		assert.Equal(t, 1, s.Status().Hints.Pending)
		pass(time.Hour)
		assert.Zero(t, s.Status().Hints.Pending, "not for ever")
	})
}

// However many hints come while cards cannot be read, the polls that stand in for them are few: one at once, and then ever fewer.
func TestStormOfHintsWhileCardsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(10 * time.Second)
		erp.mu.Lock()
		erp.customers = func(context.Context, []provision.SubscriberID) (StatesAnswer, error) {
			return StatesAnswer{}, errors.New("http status 503")
		}
		erp.mu.Unlock()
		_, before := erp.counts()
		var polls []int
		for i := range 240 {
			s.Hint(provision.SubscriberID(1001 + i))
			pass(500 * time.Millisecond)
			if _, n := erp.counts(); i == 0 || i == 119 || i == 239 {
				polls = append(polls, n-before)
			}
		}
		assert.Equal(t, 1, polls[0], "at once")
		assert.LessOrEqual(t, polls[1], 8, "in a minute")
		assert.GreaterOrEqual(t, polls[1], 4)
		assert.LessOrEqual(t, polls[2]-polls[1], 3, "in the next one")
		assert.Equal(t, 240, s.Status().Hints.Pending)
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StatePause})
		pass(time.Minute)
		assert.Equal(t, provision.StatePause, s.Current().State(active))
	})
}

// A hint for which there is no room while cards cannot be read becomes a poll when they are tried again, also where they come then.
func TestHintWithoutRoomWhileCardsFail(t *testing.T) {
	for name, answers := range map[string]bool{"cards come then": true, "cards fail still": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := everyMinute()
				o.PollInterval, o.RefreshInterval = 24*time.Hour, 48*time.Hour
				erp, s := startStates(t, o, nil)
				pass(10 * time.Second)
				erp.mu.Lock()
				erp.customers = func(context.Context, []provision.SubscriberID) (StatesAnswer, error) {
					return StatesAnswer{}, errors.New("http status 503")
				}
				erp.mu.Unlock()
				for i := range maxHints {
					s.Hint(provision.SubscriberID(10_000 + i))
				}
				pass(10*time.Minute + 5*time.Second) // no hint of these is without its poll
				require.Equal(t, maxHints, s.Status().Hints.Pending)
				_, before := erp.counts()
				erp.mu.Lock()
				erp.states = func(context.Context) (StatesAnswer, error) {
					return StatesAnswer{States: map[provision.SubscriberID]provision.State{active: provision.StatePause}}, nil
				}
				erp.mu.Unlock()
				s.Hint(active)
				require.EqualValues(t, 1, s.Status().Hints.Overflows)
				pass(time.Second)
				_, now := erp.counts()
				require.Equal(t, before, now, "not each hint at once")
				if answers {
					erp.mu.Lock()
					erp.customers = nil // nobody of these is known
					erp.mu.Unlock()
				}
				pass(time.Minute)
				_, now = erp.counts()
				require.Equal(t, before+1, now)
				require.Equal(t, provision.StatePause, s.Current().State(active))
			})
		})
	}
}

// A known customer whom the answer leaves out is asked for again, a few times; one of whom nobody knows is not.
func TestHintThatTheAnswerLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(10 * time.Second)
		erp.tell(map[provision.SubscriberID]provision.State{})
		s.Hint(active)
		s.Hint(77_777_777)
		pass(500 * time.Millisecond)
		assert.Equal(t, 1, s.Status().Hints.Pending)
		erp.mu.Lock()
		erp.customers = func(_ context.Context, ids []provision.SubscriberID) (StatesAnswer, error) {
			answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
			for _, id := range ids {
				answer.States[id] = provision.StateStop
			}
			return answer, nil
		}
		erp.mu.Unlock()
		pass(time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(active))
		erp.tell(map[provision.SubscriberID]provision.State{})
		erp.takeAsked()
		s.Hint(1006)
		pass(10 * time.Minute)
		assert.Len(t, erp.takeAsked(), 1+maxSilent)
		assert.Zero(t, s.Status().Hints.Pending)
	})
}

// While no card can be read a flood of hints is one call at a time, and all of them are read when it is over.
func TestManyHintsThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(10 * time.Second)
		states := map[provision.SubscriberID]provision.State{}
		for i := range 500 {
			states[provision.SubscriberID(10_000+i)] = provision.StateStop
		}
		erp.tell(states)
		erp.failStates(ErrFetchFirst)
		erp.mu.Lock()
		right := erp.customers
		erp.customers = func(context.Context, []provision.SubscriberID) (StatesAnswer, error) {
			return StatesAnswer{}, errors.New("http status 503")
		}
		erp.mu.Unlock()
		for id := range states {
			s.Hint(id)
		}
		pass(10 * time.Minute)
		assert.Less(t, len(erp.takeAsked()), 25)
		assert.Equal(t, 500, s.Status().Hints.Pending)
		erp.mu.Lock()
		erp.customers = right
		erp.mu.Unlock()
		pass(time.Minute)
		assert.Zero(t, s.Status().Hints.Pending)
		read := map[provision.SubscriberID]bool{}
		for _, ids := range erp.takeAsked() {
			for _, id := range ids {
				read[id] = true
			}
		}
		assert.Len(t, read, 500)
	})
}

func TestGuardCountsHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &syncLog{}
		erp, s := startStates(t, everyMinute(), log)
		pass(10 * time.Second)
		stopped := map[provision.SubscriberID]provision.State{}
		in := provisiontest.Input(100)
		for i := range 40 {
			stopped[provision.SubscriberID(1000+i)] = provision.StateStop
			in.Subscribers[i].State = provision.StateStop
		}
		erp.tell(stopped)
		erp.set(says(in))
		before := s.Current()
		erp.mu.Lock()
		inner := erp.customers
		release := make(chan struct{})
		erp.customers = func(ctx context.Context, ids []provision.SubscriberID) (StatesAnswer, error) {
			<-release
			return inner(ctx, ids)
		}
		erp.mu.Unlock()
		s.Hint(5)
		synctest.Wait()
		for i := range 40 {
			s.Hint(provision.SubscriberID(1000 + i))
		}
		log.take()
		close(release)
		pass(time.Second)
		assert.Same(t, before, s.Current())
		held := s.Status().Held
		require.NotNil(t, held, "a whole fetch shows it to the operator")
		assert.Equal(t, FetchFull, held.Kind)
		assert.Contains(t, log.take(), "fetched customers held <nil>")
	})
}

// A mass change that comes hint by hint is as bad as one that a poll sees.
func TestGuardAddsHintsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := provisiontest.Input(1000)
		erp := &statesERP{fakeERP: fakeERP{answer: says(in)}}
		s := New(Options{PollInterval: time.Minute, RefreshInterval: 10 * time.Minute, Guard: tightGuard}, erp, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		pass(10 * time.Second)
		before := s.Current().Counts()
		require.Equal(t, provision.StateStop, s.Current().State(1001))

		wrong := map[provision.SubscriberID]provision.State{1001: provision.StateActive}
		bad := provisiontest.Input(1000)
		for i := range bad.Subscribers {
			switch sub := &bad.Subscribers[i]; {
			case sub.ID == 1001:
				sub.State = provision.StateActive
			case i < 400 && sub.State == provision.StateActive:
				sub.State, wrong[sub.ID] = provision.StateStop, provision.StateStop
			}
		}
		erp.set(says(bad))
		erp.tell(wrong)
		for id := range provision.SubscriberID(400) {
			if id != 1 {
				s.Hint(1000 + id)
				synctest.Wait() // each is read by itself
			}
		}
		pass(10 * time.Minute)
		now := s.Current().Counts()
		assert.LessOrEqual(t, now.Stopped-before.Stopped, 100, "10% of 1000")
		held := s.Status().Held
		require.NotNil(t, held, "a whole fetch shows it to the operator")
		assert.Equal(t, len(wrong)-1, held.Decision.Blocked.Count, "those that hints blocked are among them")

		s.Hint(1001)
		synctest.Wait()
		assert.Equal(t, provision.StateActive, s.Current().State(1001), "who paid need not wait")
		require.NoError(t, accept(s))
		assert.Equal(t, provision.StateStop, s.Current().State(1399))
	})
}

func TestHintBeforeTheFirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &statesERP{fakeERP: fakeERP{answer: slow(10*time.Second, says(provisiontest.Input(100)))}}
		erp.tell(map[provision.SubscriberID]provision.State{active: provision.StateStop})
		s := New(everyMinute(), erp, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		pass(time.Second)
		s.Hint(active)
		pass(20 * time.Second)
		assert.Equal(t, provision.StateStop, s.Current().State(active))
	})
}

func TestHintWithoutTheAbility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(100))}
		s := startSyncer(t, Options{PollInterval: time.Minute}, erp, nil, nil)
		pass(30 * time.Second)
		s.Hint(active)
		pass(31 * time.Second)
		assert.Equal(t, 2, erp.count(), "the next fetch tells")
	})
}

// TestOverrideIsReadAgain: what the command line set may mean something else by
// the policy, or for a customer whose flags block.
func TestOverrideIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp, s := startStates(t, everyMinute(), nil)
		pass(time.Second)
		erp.tell(map[provision.SubscriberID]provision.State{1001: provision.StateStop}) // resumed, but disabled
		require.Equal(t, provision.StateStop, s.Current().State(1001))
		s.Override(1001, provision.StateActive, time.Now())
		pass(time.Millisecond)
		assert.Equal(t, [][]provision.SubscriberID{{1001}}, erp.takeAsked())
	})
}
