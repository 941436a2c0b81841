package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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

// books is an ERP of which the lists and the cards may disagree: the cards tell the truth, the lists that what spoil makes of it.
type books struct {
	mu    sync.Mutex
	truth provision.Input
	spoil func(*provision.Input) // nil: lists are right
	cards error                  // of reading cards
	later int                    // so many readings of cards go well before that
	whole error                  // of reading everything
	down  error                  // of reading anything
	hangs bool                   // reading cards, until it is given up
	keeps time.Duration          // how long that takes, and then no list of states came; 0: they come at once
	asked [][]provision.SubscriberID
	reads int // of everything
}

func newBooks(n int) *books {
	b := &books{truth: provisiontest.Input(n)}
	b.truth.FetchedAt = time.Time{}
	return b
}

func (b *books) change(f func(b *books)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

func (b *books) setSpoil(f func(*provision.Input)) { b.change(func(b *books) { b.spoil = f }) }

func (b *books) setStates(st provision.State, ids ...provision.SubscriberID) {
	b.change(func(b *books) { paint(&b.truth, st, ids...) })
}

// paint gives subscribers of an input a state.
func paint(in *provision.Input, st provision.State, ids ...provision.SubscriberID) {
	for i := range in.Subscribers {
		if slices.Contains(ids, in.Subscribers[i].ID) {
			in.Subscribers[i].State = st
		}
	}
}

// line returns the line of a subscriber, to be changed.
func (b *books) line(id provision.SubscriberID) *provision.Line {
	i := slices.IndexFunc(b.truth.Lines, func(l provision.Line) bool { return l.Subscriber == id })
	return &b.truth.Lines[i]
}

// in returns the first subscribers of the truth that are in a state.
func (b *books) in(st provision.State, n int) []provision.SubscriberID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []provision.SubscriberID
	for _, sub := range b.truth.Subscribers {
		if sub.State == st && len(out) < n {
			out = append(out, sub.ID)
		}
	}
	return out
}

func (b *books) say() provision.Input {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.truth
	in.Lines, in.Subscribers = slices.Clone(in.Lines), slices.Clone(in.Subscribers)
	if b.spoil != nil {
		b.spoil(&in)
	}
	return in
}

func (b *books) Fetch(_ context.Context, prev *provision.Snapshot) (provision.Input, error) {
	in := b.say()
	b.mu.Lock()
	b.reads++
	keeps, err := b.keeps, errors.Join(b.whole, b.down)
	b.mu.Unlock()
	if keeps > 0 {
		in.StatesKept = true
		for i := range in.Subscribers {
			in.Subscribers[i].State = prev.State(in.Subscribers[i].ID)
		}
		<-time.After(keeps)
	}
	return in, err
}

func (b *books) FetchStates(context.Context, *provision.Snapshot) (StatesAnswer, error) {
	answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
	for _, sub := range b.say().Subscribers {
		answer.States[sub.ID] = sub.State
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return answer, b.down
}

func (b *books) FetchCustomers(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (StatesAnswer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, ids)
	if b.hangs {
		b.mu.Unlock()
		<-ctx.Done()
		b.mu.Lock()
		return StatesAnswer{}, ctx.Err()
	}
	answer := StatesAnswer{States: map[provision.SubscriberID]provision.State{}}
	truth, _ := provision.Build(b.truth)
	for _, id := range ids {
		card := addressesOf(truth, id)
		answer.Refresh = answer.Refresh || !slices.Equal(card, addressesOf(prev, id))
	}
	for _, sub := range b.truth.Subscribers {
		if slices.Contains(ids, sub.ID) {
			answer.States[sub.ID] = sub.State
		}
	}
	if b.later--; b.later >= 0 {
		return answer, nil
	}
	return answer, b.cards
}

func addressesOf(s *provision.Snapshot, id provision.SubscriberID) []netip.Addr {
	var out []netip.Addr
	for l := range s.BySubscriber(id).All() {
		out = slices.AppendSeq(out, l.Hosts4())
	}
	return out
}

func (*books) Moved(context.Context, []provision.SubscriberID, *provision.Snapshot) (bool, error) {
	return false, nil
}

// startBooks runs a syncer that polls the lists each minute.
func startBooks(t *testing.T, b *books, limits GuardLimits, store SnapshotStore, obs Observer) (s *Syncer, stop func()) {
	t.Helper()
	s = New(Options{PollInterval: time.Minute, RefreshInterval: 5 * time.Minute, Guard: limits}, b, store, obs, provisiontest.Quiet())
	require.NoError(t, s.LoadStored())
	stop = runSyncer(t, s)
	pass(time.Second)
	return s, stop
}

// wholePoll makes a whole fetch now.
func wholePoll(s *Syncer) {
	s.Refresh()
	pass(time.Second)
}

// first are the subscribers of the first rows of a test input.
func first(n int) []provision.SubscriberID {
	var out []provision.SubscriberID
	for i := range n {
		out = append(out, provision.SubscriberID(1000+i))
	}
	return out
}

// Each kind of change is held by itself, and everything else of the same answer arrives.
func TestOtherChangesArriveWhileOneKindIsHeld(t *testing.T) {
	otherPort := func(l *provision.Line) { l.Port, l.PortName = l.Port+48, "" }
	for kind, tt := range map[ChangeKind]struct {
		spoil func(in *provision.Input)
		held  int
		text  string
	}{
		ChangeRemoved: {func(in *provision.Input) { in.Lines = in.Lines[50:] }, 50, "would lose its addresses"},
		ChangeMoved: {func(in *provision.Input) {
			for i := range 50 {
				otherPort(&in.Lines[i])
			}
		}, 50, "would get other addresses, or another port, VLAN or MAC"},
		// Of 50 two are paused, and would be stopped with the others; two are stopped already.
		ChangeBlocked: {func(in *provision.Input) { paint(in, provision.StateStop, first(50)...) }, 48, "would be stopped"},
		ChangeAdded: {func(in *provision.Input) {
			for i := range 50 {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(9000 + i), Addresses: provision.Hosts4(provisiontest.IP(9000 + i))})
				in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(9000 + i), State: provision.StateActive})
			}
		}, 50, "would get its first address"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				was := s.Current()
				b.setSpoil(tt.spoil)
				wholePoll(s)
				held := s.Status().Held
				require.NotNil(t, held)
				assert.Same(t, was, s.Current())
				assert.True(t, held.Decision.Of(kind).Over)

				b.change(func(b *books) {
					b.line(1170).MAC[1]++
					otherPort(b.line(1171))
					if kind != ChangeAdded {
						b.truth.Lines = append(b.truth.Lines, provision.Line{Subscriber: 1300, Addresses: provision.Hosts4(provisiontest.IP(1300))})
					}
				})
				b.setStates(provision.StatePause, 1172)
				b.setStates(provision.StateActive, 1166) // was stopped
				require.Equal(t, provision.StateStop, was.State(1166))
				if kind == ChangeBlocked {
					s.Hint(1172) // its card says so, too
					synctest.Wait()
				}
				wholePoll(s)
				now := s.Current()
				assert.Equal(t, b.line(1170).MAC, now.ByIP(provisiontest.IP(170)).MAC)
				assert.Equal(t, kind != ChangeMoved, now.ByIP(provisiontest.IP(171)).Port == b.line(1171).Port)
				assert.Equal(t, kind != ChangeAdded, now.ByIP(provisiontest.IP(1300)) != nil)
				assert.Equal(t, provision.StatePause, now.State(1172))
				assert.Equal(t, provision.StateActive, now.State(1166))
				for i := range 50 {
					id := provision.SubscriberID(1000 + i)
					assert.Equal(t, *was.ByIP(provisiontest.IP(i)), *now.ByIP(provisiontest.IP(i)))
					assert.Equal(t, was.State(id), now.State(id))
				}
				assert.Nil(t, now.ByIP(provisiontest.IP(9000)))

				g := s.GuardStatus()
				extra := 0
				if kind == ChangeMoved {
					extra = 1
				}
				require.Len(t, g.Changes, tt.held+extra)
				for _, c := range g.Changes {
					assert.Equal(t, kind, c.Change)
					assert.Equal(t, tt.text, c.Text())
					assert.Equal(t, []HeldChange{c}, s.HeldChanges(c.Subscriber))
				}
				assert.Empty(t, s.HeldChanges(1172))

				require.NoError(t, accept(s))
				truth, _ := provision.Build(b.say())
				assert.Equal(t, truth.Fingerprint(), s.Current().Fingerprint())
				assert.Nil(t, s.GuardStatus().Held)
			})
		})
	}
}

// Bogus customers do not get in, and the right answer after them is no loss.
func TestBogusCustomersAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(960)
		s, _ := startBooks(t, b, GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.25, MinChanged: 20}, nil, nil)
		was := s.Current()
		b.setSpoil(func(in *provision.Input) {
			for i := range 20_000 {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(50_000 + i), Addresses: provision.Hosts4(provisiontest.IP(50_000 + i))})
			}
		})
		wholePoll(s)
		assert.Equal(t, "would add 20000 of 960 subscribers (2083.3%), limit 25%", s.GuardStatus().Held.Decision.Reason)
		assert.EqualValues(t, 50_007, s.HeldOwner(provisiontest.IP(50_007)))
		assert.Same(t, was, s.Current())
		b.setSpoil(nil)
		b.setStates(provision.StatePause, 1000)
		wholePoll(s)
		assert.Nil(t, s.GuardStatus().Held)
		assert.Equal(t, provision.StatePause, s.Current().State(1000))
		assert.Equal(t, 960, s.Current().Len())
	})
}

// Nine percent a poll are as bad as ninety at once.
func TestAnHourAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(1000)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		paused := s.Current().Counts().Paused
		b.setStates(provision.StatePause, b.in(provision.StateActive, 90)...)
		pass(time.Minute)
		assert.Equal(t, paused+90, s.Current().Counts().Paused)
		b.setStates(provision.StatePause, b.in(provision.StateActive, 90)...)
		pass(time.Minute)
		assert.Equal(t, paused+90, s.Current().Counts().Paused)
		held := s.Status().Held
		require.NotNil(t, held)
		assert.Equal(t, "would block 180 of 1000 subscribers (18%), limit 10%, of which 90 passed within the last hour", held.Decision.Reason)
		assert.Len(t, s.GuardStatus().Changes, 90)

		operator := b.in(provision.StateActive, 40)
		b.setStates(provision.StatePause, operator...)
		for _, id := range operator {
			s.Override(id, provision.StatePause, time.Now())
		}
		pass(time.Minute)
		assert.Equal(t, 180, s.Status().Held.Decision.Blocked.Count, "an operator's own acts count for nothing")
		pass(time.Hour)
		assert.Nil(t, s.Status().Held, "an hour later")
		assert.Equal(t, paused+220, s.Current().Counts().Paused)
	})
}

// A list that is wrong each other minute neither adds up nor is held when it is right again.
func TestWhatIsTakenBackDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		was, bad := s.Current().Fingerprint(), b.in(provision.StateActive, 18)
		for range 10 {
			b.setSpoil(func(in *provision.Input) {
				paint(in, provision.StateStop, bad...)
				in.Lines = in.Lines[:182]
			})
			wholePoll(s)
			assert.Equal(t, 182, s.Current().Len())
			assert.Nil(t, s.Status().Held)
			b.setSpoil(nil)
			wholePoll(s)
			assert.Nil(t, s.Status().Held)
			assert.Equal(t, was, s.Current().Fingerprint())
		}
		b.setSpoil(func(in *provision.Input) { paint(in, provision.StateStop, bad...) })
		wholePoll(s)
		assert.Equal(t, 18, s.passed.count(ChangeBlocked, nil, false))
		b.setSpoil(func(in *provision.Input) { // right again for these, and wrong for many
			for i := range in.Subscribers {
				in.Subscribers[i].State = provision.StatePause
			}
			paint(in, provision.StateActive, bad...)
		})
		wholePoll(s)
		assert.Equal(t, 18, countOf(s.Current(), bad, provision.StateActive))
		b.setSpoil(func(in *provision.Input) {
			for i := range in.Subscribers {
				in.Subscribers[i].State = provision.StatePause
			}
		})
		wholePoll(s)
		assert.Equal(t, 18, countOf(s.Current(), bad, provision.StateActive), "an answer that is not believed takes nothing back")
	})
}

// A customer's own card is a second opinion: a hint about one of many who are held lets that one pass.
func TestCardLetsOnePassWhileManyAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		many := b.in(provision.StateActive, 80)
		b.setStates(provision.StatePause, many[0])
		b.setSpoil(func(in *provision.Input) { paint(in, provision.StatePause, many...) })
		pass(time.Minute)
		require.Len(t, s.GuardStatus().Changes, 80)
		s.Hint(many[0])
		s.Hint(many[1])
		synctest.Wait()
		assert.Equal(t, provision.StatePause, s.Current().State(many[0]))
		assert.Equal(t, provision.StateActive, s.Current().State(many[1]), "the card contradicts")
		assert.Empty(t, s.HeldChanges(many[0]), "not held any more, though no fetch came since")
		assert.Equal(t, []HeldChange{{Subscriber: many[1], Change: ChangeBlocked, State: provision.StatePause}}, s.HeldChanges(many[1]))
		pass(time.Minute)
		assert.Len(t, s.GuardStatus().Changes, 79)
	})
}

// A card confirms addresses as it does states: those of the lists pass for the one whose card has them, too.
func TestCardLetsAddressesPassWhileManyAreHeld(t *testing.T) {
	give := func(in *provision.Input, id provision.SubscriberID, ip int) {
		for i := range in.Lines {
			if in.Lines[i].Subscriber == id {
				in.Lines[i].Addresses = provision.Hosts4(provisiontest.IP(ip))
			}
		}
	}
	remove := func(in *provision.Input, id provision.SubscriberID) {
		in.Lines = slices.DeleteFunc(in.Lines, func(l provision.Line) bool { return l.Subscriber == id })
	}
	contract := func(in *provision.Input, id provision.SubscriberID) {
		in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.IP(int(id)))})
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StateActive})
	}
	for kind, tt := range map[ChangeKind]struct {
		id    provision.SubscriberID // whose card agrees with the lists
		other provision.SubscriberID // whose does not
		says  func(in *provision.Input, id provision.SubscriberID)
		first provision.SubscriberID // of 50 of whom the lists say so
		want  []netip.Addr
	}{
		ChangeMoved:   {1005, 1006, func(in *provision.Input, id provision.SubscriberID) { give(in, id, 600+int(id)) }, 1000, []netip.Addr{provisiontest.IP(1605)}},
		ChangeRemoved: {1005, 1006, remove, 1000, nil},
		ChangeAdded:   {9003, 9004, contract, 9000, []netip.Addr{provisiontest.IP(9003)}},
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				was := addressesOf(s.Current(), tt.other)
				b.change(func(b *books) { tt.says(&b.truth, tt.id) })
				b.setSpoil(func(in *provision.Input) {
					for i := range provision.SubscriberID(50) {
						if kind == ChangeMoved || tt.first+i != tt.id {
							tt.says(in, tt.first+i)
						}
					}
				})
				wholePoll(s)
				require.Len(t, s.GuardStatus().Changes, 50)
				pass(time.Second)
				s.Hint(tt.id)
				s.Hint(tt.other)
				synctest.Wait()
				assert.Equal(t, tt.want, addressesOf(s.Current(), tt.id))
				assert.Equal(t, was, addressesOf(s.Current(), tt.other), "the card contradicts")
				assert.Len(t, s.GuardStatus().Changes, 49)
				assert.Empty(t, s.HeldChanges(tt.id))
				assert.Equal(t, kind, s.HeldChanges(tt.other)[0].Change)
				_, word := s.Current().AcceptedRow(provisiontest.IP(1))
				assert.Equal(t, kind == ChangeAdded, word, "what is held is nobody's word")
				pass(time.Minute)
				assert.Len(t, s.GuardStatus().Changes, 49)
				assert.Equal(t, tt.want, addressesOf(s.Current(), tt.id))
			})
		})
	}
}

// A card that cannot be read when it is to confirm held rows says nothing: it is asked for again.
func TestCardOfHeldRowsIsAskedForAgain(t *testing.T) {
	move := func(in *provision.Input, id provision.SubscriberID) {
		for i := range in.Lines {
			if in.Lines[i].Subscriber == id {
				in.Lines[i].Addresses = provision.Hosts4(provisiontest.IP(600 + int(id)))
			}
		}
	}
	held := func(t *testing.T, reads int) (*books, *Syncer) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		b.change(func(b *books) { move(&b.truth, 1005) })
		b.setSpoil(func(in *provision.Input) {
			for i := range provision.SubscriberID(50) {
				if i != 5 {
					move(in, 1000+i)
				}
			}
		})
		wholePoll(s)
		require.Len(t, s.GuardStatus().Changes, 50)
		pass(time.Second)
		b.change(func(b *books) { b.cards, b.later, b.asked = errors.New("cards hang"), reads, nil })
		s.Hint(1005)
		synctest.Wait()
		require.Len(t, s.GuardStatus().Changes, 50)
		return b, s
	}
	for reads := range 3 { // of the hint itself, of what is in use, of what is held
		t.Run(fmt.Sprintf("after %d", reads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, s := held(t, reads)
				pass(10 * time.Minute)
				require.Len(t, s.GuardStatus().Changes, 50)
				b.change(func(b *books) { require.Less(t, len(b.asked), 25, "ever less often") })
				b.change(func(b *books) { b.cards = nil })
				pass(2 * time.Minute)
				require.Len(t, s.GuardStatus().Changes, 49)
				require.Empty(t, s.HeldChanges(1005))
			})
		})
	}
	t.Run("for as long as a hint is", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s := held(t, 1)
			pass(hintPatience + 5*time.Minute)
			b.change(func(b *books) { b.asked = nil })
			pass(time.Hour)
			b.change(func(b *books) { require.Empty(t, b.asked) })
			require.Len(t, s.GuardStatus().Changes, 50)
		})
	})
	t.Run("while it is held", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s := held(t, 1)
			_, err := s.Accept("")
			require.NoError(t, err)
			pass(time.Minute)
			b.change(func(b *books) { b.asked = nil })
			pass(10 * time.Minute)
			b.change(func(b *books) { require.Empty(t, b.asked) })
		})
	})
}

// blockedBooks has 60 more paused customers of 200.
func blockedBooks(t *testing.T, obs Observer) (*books, *Syncer, []provision.SubscriberID) {
	t.Helper()
	b := newBooks(200)
	paid := b.in(provision.StateActive, 60)
	b.setStates(provision.StatePause, paid...)
	s, _ := startBooks(t, b, tightGuard, nil, obs)
	require.Equal(t, provision.StatePause, s.Current().State(paid[0]))
	return b, s, paid
}

func countOf(s *provision.Snapshot, ids []provision.SubscriberID, st provision.State) int {
	n := 0
	for _, id := range ids {
		if s.State(id) == st {
			n++
		}
	}
	return n
}

func TestCardsConfirmManyOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, paid := blockedBooks(t, nil)
		b.setStates(provision.StateActive, paid...)
		pass(time.Minute)
		assert.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive), "nobody waits for an operator")
		assert.Nil(t, s.Status().Held)
		assert.Nil(t, s.Status().Unconfirmed)
		b.change(func(b *books) {
			require.Len(t, b.asked, 1)
			assert.Len(t, b.asked[0], openingSample)
		})
	})
}

func TestOpeningsWaitFiveMinutesForCards(t *testing.T) {
	for name, source := range map[string]func(b *books) Fetcher{
		"cards fail": func(b *books) Fetcher {
			b.cards = errors.New("gateway time-out")
			return b
		},
		"cards of nobody": func(b *books) Fetcher { return struct{ Fetcher }{b} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				paid := b.in(provision.StateActive, 60)
				b.setStates(provision.StatePause, paid...)
				log := &syncLog{}
				s := New(Options{PollInterval: time.Hour, Guard: tightGuard}, source(b), nil, log, provisiontest.Quiet())
				runSyncer(t, s)
				b.setStates(provision.StateActive, paid...)
				s.Refresh()
				pass(time.Second)
				held := s.Status().Held
				require.NotNil(t, held)
				opens := held.Openings.OpensAt
				assert.Equal(t, openingPatience, opens.Sub(held.Openings.Since))
				assert.NotEmpty(t, held.Openings.Error)
				pass(time.Until(opens) - time.Second)
				assert.Zero(t, countOf(s.Current(), paid, provision.StateActive))
				pass(time.Second)
				assert.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
				st := s.Status()
				assert.Nil(t, st.Held)
				require.NotNil(t, st.Unconfirmed)
				assert.WithinDuration(t, opens, st.Unconfirmed.At, 0)
				assert.Equal(t, 60, st.Unconfirmed.Count)
				assert.Equal(t, held.Openings.Error, st.Unconfirmed.Error)
				assert.Contains(t, log.take(), "opened 60 unconfirmed")
				pass(guardWindow + time.Minute)
				assert.Nil(t, s.Status().Unconfirmed)
			})
		})
	}
}

func TestCardsContradictOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, paid := blockedBooks(t, nil)
		b.setStates(provision.StateActive, paid[0])
		b.setSpoil(func(in *provision.Input) { // the list of paused customers came empty
			for i := range in.Subscribers {
				if in.Subscribers[i].State == provision.StatePause {
					in.Subscribers[i].State = provision.StateUnknown
				}
			}
		})
		pass(10 * time.Minute)
		assert.Zero(t, countOf(s.Current(), paid[1:], provision.StateActive)+countOf(s.Current(), paid, provision.StateUnknown))
		held := s.Status().Held
		require.NotNil(t, held)
		assert.NotEmpty(t, held.Openings.Contradicted)
		assert.Zero(t, held.Openings.OpensAt)
		assert.Equal(t, "would be let in", s.HeldChanges(paid[1])[0].Text())

		b.change(func(b *books) { b.cards = errors.New("down") })
		pass(10 * time.Minute)
		assert.Zero(t, countOf(s.Current(), paid, provision.StateUnknown), "cards said no before")
		b.change(func(b *books) { b.cards = nil })
		s.Hint(paid[0])
		pass(time.Minute)
		assert.Equal(t, provision.StateActive, s.Current().State(paid[0]), "its own card says so")
		b.setSpoil(nil)
		pass(time.Minute)
		assert.Nil(t, s.Status().Held)
		assert.Equal(t, 59, countOf(s.Current(), paid, provision.StatePause))
	})
}

// A list that says so often enough lets in nobody whose card says no.
func TestRepetitionOpensNobodyWhoseCardContradicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		paid := b.in(provision.StateActive, 60)
		b.setStates(provision.StatePause, paid...)
		limits := tightGuard
		limits.AcceptAfter = 3
		s, _ := startBooks(t, b, limits, nil, nil)
		b.setSpoil(func(in *provision.Input) {
			paint(in, provision.StateActive, paid...)
			in.Lines = in.Lines[:150]
		})
		pass(30 * time.Minute)
		assert.Equal(t, 60, countOf(s.Current(), paid, provision.StatePause))
		assert.Equal(t, 150, s.Current().Len(), "what else came often enough is accepted")
	})
}

// Whose own card said that its customer is blocked is opened by no sample of others, however many of those are right.
func TestNoSampleOpensWhoseCardContradicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, paid := blockedBooks(t, nil)
		wrong := paid[:18] // so many that the first sample hardly misses them, so few that they would pass by themselves
		b.setStates(provision.StateActive, paid[18:]...)
		b.setSpoil(func(in *provision.Input) { paint(in, provision.StateActive, wrong...) })
		pass(2 * time.Hour) // what passed is forgotten
		spoil := func(in *provision.Input) { paint(in, provision.StateActive, wrong...) }
		b.setSpoil(func(in *provision.Input) { spoil(in); in.Lines = nil })
		pass(10 * time.Minute)
		b.setSpoil(spoil)
		b.change(func(b *books) { b.keeps = time.Second })
		pass(10 * time.Minute)
		b.change(func(b *books) { b.keeps = 0 })
		pass(10 * time.Minute)
		assert.Equal(t, 18, countOf(s.Current(), wrong, provision.StatePause), "also when what passed is forgotten")
		assert.Equal(t, 42, countOf(s.Current(), paid[18:], provision.StateActive), "each by its own card, or by a sample before one contradicted")
		b.setSpoil(nil)
		b.setStates(provision.StateActive, wrong...)
		pass(5 * time.Minute)
		assert.Equal(t, 18, countOf(s.Current(), wrong, provision.StateActive))
	})
}

// Who is paused meanwhile is paused though bindings come empty, which the guard holds, or fail while something is held; also where
// every poll is a whole one.
func TestPausesArriveWhileBindingsDoNot(t *testing.T) {
	for name, spoil := range map[string]func(b *books){
		"empty":              func(b *books) { b.spoil = func(in *provision.Input) { in.Lines = nil } },
		"held, then failing": func(b *books) { b.spoil = func(in *provision.Input) { in.Lines = in.Lines[50:] } },
		"failing":            func(*books) {},
	} {
		for _, refresh := range []time.Duration{5 * time.Minute, time.Minute, 0} {
			t.Run(fmt.Sprintf("%s, refresh %s", name, refresh), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBooks(200)
					s := New(Options{PollInterval: time.Minute, RefreshInterval: refresh, Guard: tightGuard}, b, nil, nil, provisiontest.Quiet())
					runSyncer(t, s)
					pass(time.Second)
					b.change(spoil)
					wholePoll(s)
					require.Equal(t, name != "failing", s.Status().Held != nil)
					if name != "empty" {
						b.change(func(b *books) { b.whole = errors.New("403") })
					}
					pass(5 * time.Minute)
					one := b.in(provision.StateActive, 1)
					b.setStates(provision.StatePause, one...)
					pass(3 * time.Minute)
					assert.Equal(t, 1, countOf(s.Current(), one, provision.StatePause))
				})
			})
		}
	}
}

// Who paid meanwhile is let in though bindings come empty, which the guard holds, or fail while something is held: more than the limit
// of them as soon as cards say so, or after five minutes where those cannot be read.
func TestManyOpeningsWhileBindingsDoNotCome(t *testing.T) {
	for name, spoil := range map[string]func(in *provision.Input){
		"empty":              func(in *provision.Input) { in.Lines = nil },
		"held, then failing": func(in *provision.Input) { in.Lines = in.Lines[50:] },
	} {
		for _, cards := range []error{nil, errors.New("down")} {
			t.Run(fmt.Sprintf("%s, cards %v", name, cards), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, s, paid := blockedBooks(t, nil)
					b.setSpoil(spoil)
					wholePoll(s)
					require.NotNil(t, s.Status().Held)
					b.change(func(b *books) {
						if b.cards = cards; name != "empty" {
							b.whole = errors.New("403")
						}
					})
					pass(5 * time.Minute)
					b.setStates(provision.StateActive, paid...)
					pass(3 * time.Minute)
					if cards != nil {
						require.Zero(t, countOf(s.Current(), paid, provision.StateActive))
						require.Contains(t, textsOf(s.HeldChanges(paid[0])), "would be let in")
						require.NotEmpty(t, s.Status().Held.Openings.Error)
						pass(5 * time.Minute)
					}
					require.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
					require.NotNil(t, s.Status().Held, "the bindings are held all the same")
					require.Equal(t, 200, s.Current().Len())

					many := slices.DeleteFunc(b.in(provision.StateActive, 200), func(id provision.SubscriberID) bool { return slices.Contains(paid, id) })[:60]
					b.setStates(provision.StatePause, many...)
					pass(3 * time.Minute)
					require.Equal(t, 60, countOf(s.Current(), many, provision.StateActive))
					require.Contains(t, textsOf(s.HeldChanges(many[0])), "would be paused", "held, and said to be")
				})
			})
		}
	}
}

func textsOf(list []HeldChange) (out []string) {
	for _, c := range list {
		out = append(out, c.Text())
	}
	return out
}

// An answer that tells no states takes nothing back of what an earlier one told: who waits for cards goes on waiting, not from the
// beginning.
func TestOpeningsOutliveAnswersWithoutStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		paid := b.in(provision.StateActive, 60)
		b.setStates(provision.StatePause, paid...)
		limits := tightGuard
		limits.AcceptAfter = 3
		s := New(Options{PollInterval: time.Minute, Guard: limits}, b, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		pass(time.Second)
		b.setStates(provision.StateActive, paid...)
		b.change(func(b *books) { b.cards = errors.New("down") })
		wholePoll(s)
		since := s.Status().Held.Openings.Since
		b.change(func(b *books) { b.keeps = time.Second })
		pass(time.Until(since.Add(4*time.Minute + 50*time.Second)))
		require.Zero(t, countOf(s.Current(), paid, provision.StateActive), "repetition is of what is told")
		require.Equal(t, since, s.Status().Held.Openings.Since)
		require.Equal(t, 1, s.Status().Held.Seen)
		pass(12 * time.Second)
		require.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
		require.Nil(t, s.Status().Held)
		pass(3 * time.Minute)
		require.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
	})
}

// What an operator rejected is not opened by cards.
func TestRejectedOpeningsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s, paid := blockedBooks(t, nil)
		b.change(func(b *books) { b.cards = errors.New("down") })
		b.setStates(provision.StateActive, paid...)
		pass(time.Minute)
		require.NotNil(t, s.Status().Held)
		require.NoError(t, reject(s))
		pass(20 * time.Minute)
		assert.True(t, s.Status().Held.Rejected)
		assert.Equal(t, 60, countOf(s.Current(), paid, provision.StatePause))
	})
}

// What an operator rejected stays held when others are changed beside it, also over a restart, while those others pass.
func TestRejectedStaysHeldBesideOthers(t *testing.T) {
	for name, restart := range map[string]bool{"one run": false, "over restarts": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				many := b.in(provision.StateActive, 64)
				wrong, right := many[:60], many[60:]
				b.setStates(provision.StatePause, many...)
				store := NewStore(filepath.Join(dir, "snapshot"))
				s, stop := startBooks(t, b, tightGuard, store, nil)
				again := func() {
					if pass(2 * time.Second); restart {
						stop()
						s, stop = startBooks(t, b, tightGuard, store, nil)
					}
				}
				b.change(func(b *books) { b.cards = errors.New("down") })
				b.setSpoil(func(in *provision.Input) { paint(in, provision.StateActive, wrong...) })
				pass(time.Minute)
				require.NotNil(t, s.Status().Held)
				require.NoError(t, reject(s))
				assert.Len(t, s.GuardStatus().Rejected, 60, "named also while nothing is held")
				again()
				for i, id := range right { // one more pays now and then
					b.setStates(provision.StateActive, id)
					pass(7 * time.Minute)
					require.Equal(t, provision.StateActive, s.Current().State(id), "%d", i)
					require.Equal(t, 60, countOf(s.Current(), wrong, provision.StatePause), "%d", i)
					require.NotNil(t, s.Status().Held)
					require.True(t, s.Status().Held.Rejected)
					require.Nil(t, s.Status().Held.Openings, "no card speaks for them")
					require.Equal(t, "would open 60 subscribers, which an operator rejected", s.Status().Held.Decision.Reason)
					require.Equal(t, []HeldChange{{Subscriber: wrong[0], Change: ChangeOpened, State: provision.StateActive, Rejected: true}}, s.HeldChanges(wrong[0]))
					again()
				}

				b.change(func(b *books) { b.cards = nil })
				b.setStates(provision.StateActive, wrong[7])
				s.Hint(wrong[7])
				synctest.Wait()
				assert.Equal(t, provision.StateActive, s.Current().State(wrong[7]), "its own card says so")
				again()
				b.setSpoil(nil) // the ERP takes it back
				pass(6 * time.Minute)
				require.Nil(t, s.Status().Held)
				require.Empty(t, s.GuardStatus().Rejected)
				again()
				assert.Equal(t, 59, countOf(s.Current(), wrong, provision.StatePause))
				b.setStates(provision.StateActive, wrong...)
				pass(6 * time.Minute)
				assert.Equal(t, 60, countOf(s.Current(), wrong, provision.StateActive), "what is taken back and said anew is judged anew: cards confirm it")
			})
		})
	}
}

// Of every kind, what was rejected stays held when there is less of it than the limit, and comes into use when an operator accepts.
func TestRejectedOfEveryKindStaysHeld(t *testing.T) {
	for kind, spoil := range map[ChangeKind]func(in *provision.Input, n int){
		ChangeRemoved: func(in *provision.Input, n int) { in.Lines = in.Lines[n:] },
		ChangeMoved: func(in *provision.Input, n int) {
			for i := range n {
				in.Lines[i].Port, in.Lines[i].PortName = in.Lines[i].Port+48, ""
			}
		},
		ChangeBlocked: func(in *provision.Input, n int) {
			active := 0
			for i := range in.Subscribers {
				if st := &in.Subscribers[i].State; *st == provision.StateActive && active < n {
					*st = provision.StatePause
					active++
				}
			}
		},
		ChangeAdded: func(in *provision.Input, n int) {
			for i := range n {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(9000 + i), Addresses: provision.Hosts4(provisiontest.IP(9000 + i))})
			}
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := tightGuard
				limits.AcceptAfter = 2
				b := newBooks(200)
				s, _ := startBooks(t, b, limits, nil, nil)
				was := s.Current().Fingerprint()
				b.setSpoil(func(in *provision.Input) { spoil(in, 50) })
				wholePoll(s)
				require.NotNil(t, s.Status().Held)
				require.NoError(t, reject(s))
				b.setSpoil(func(in *provision.Input) { spoil(in, 5) })
				wholePoll(s)
				pass(30 * time.Minute)
				require.Equal(t, was, s.Current().Fingerprint())
				require.Len(t, s.GuardStatus().Rejected, 5, "the others were taken back")
				require.Len(t, s.GuardStatus().Changes, 5)

				b.setSpoil(func(in *provision.Input) { spoil(in, 60) })
				pass(30 * time.Minute)
				require.True(t, s.Status().Held.Rejected, "what came often enough is accepted, and nothing else")
				require.Len(t, s.GuardStatus().Changes, 5)
				require.NoError(t, accept(s))
				truth, _ := provision.Build(b.say())
				require.Equal(t, truth.Fingerprint(), s.Current().Fingerprint())
				require.Empty(t, s.GuardStatus().Rejected)
			})
		})
	}
}

// What is rejected may stay so for weeks: the ERP is not read as a whole each minute for that, and pauses arrive as they do else.
func TestWhatIsRejectedIsReadAsUsual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[50:] })
		wholePoll(s)
		count := func() (n int) {
			b.change(func(b *books) { n, b.reads = b.reads, 0 })
			return n
		}
		count()
		pass(10 * time.Minute)
		require.InDelta(t, 10, count(), 1, "a second opinion")
		require.NoError(t, reject(s))
		wholePoll(s)
		require.True(t, s.Status().Held.Rejected)
		count()
		one := b.in(provision.StateActive, 1)
		b.setStates(provision.StatePause, one...)
		pass(time.Minute + time.Second)
		require.Equal(t, 1, countOf(s.Current(), one, provision.StatePause))
		pass(20 * time.Minute)
		require.InDelta(t, 4, count(), 1)
		require.True(t, s.Status().Held.Rejected)
		require.Len(t, s.GuardStatus().Changes, 50)
	})
}

// Who looked before another operator rejected does not accept it unawares.
func TestTwoOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[50:] })
		wholePoll(s)
		looked := s.GuardStatus().Held.Fingerprint
		_, err := s.Reject(looked)
		require.NoError(t, err)
		_, err = s.Accept(looked)
		require.ErrorIs(t, err, ErrNothingHeld)
		wholePoll(s)
		_, err = s.Accept(looked)
		require.ErrorAs(t, err, new(*OtherHeldError))
		require.Equal(t, 200, s.Current().Len())
		_, err = s.Accept(s.GuardStatus().Held.Fingerprint)
		require.NoError(t, err)
		require.Equal(t, 150, s.Current().Len())
	})
}

// A rejected answer without rows is that until one with rows comes, and holds nobody alone.
func TestRejectedAnswerWithoutRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = nil })
		wholePoll(s)
		require.NoError(t, reject(s))
		wholePoll(s)
		require.True(t, s.Status().Held.Rejected)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[5:] })
		wholePoll(s)
		require.Nil(t, s.Status().Held)
		require.Equal(t, 195, s.Current().Len())
		b.setSpoil(func(in *provision.Input) { in.Lines = nil })
		wholePoll(s)
		require.False(t, s.Status().Held.Rejected)
	})
}

// What somebody's word let through is taken back only as any other change is made; what slipped through, and what was lost, comes back
// at once.
func TestTakingBackSomebodysWord(t *testing.T) {
	expected := tightGuard
	expected.Expected = []ExpectedChanges{{Hours: DayHours{0, 24 * time.Hour}, Changes: []ChangeKind{ChangeBlocked}, Share: 0.6}}
	for name, limits := range map[string]GuardLimits{"accepted": tightGuard, "expected": expected} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, limits, nil, nil)
				many := b.in(provision.StateActive, 60)
				b.setStates(provision.StatePause, many...)
				pass(time.Minute)
				if name == "accepted" {
					require.NoError(t, accept(s))
				}
				require.Equal(t, 60, countOf(s.Current(), many, provision.StatePause))
				pass(10 * time.Minute)
				b.setSpoil(func(in *provision.Input) { paint(in, provision.StateActive, many...) })
				pass(10 * time.Minute)
				require.Equal(t, 60, countOf(s.Current(), many, provision.StatePause), "a list is not enough")
				require.NotEmpty(t, s.Status().Held.Openings.Contradicted)
				b.setSpoil(nil)
				pass(6 * time.Minute)
				b.setStates(provision.StateActive, many...)
				pass(2 * time.Minute)
				require.Equal(t, 60, countOf(s.Current(), many, provision.StateActive), "cards say so, too")
				require.Nil(t, s.Status().Held)
			})
		})
	}
	t.Run("new customers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBooks(200)
			s, _ := startBooks(t, b, tightGuard, nil, nil)
			b.change(func(b *books) {
				for i := range 50 {
					b.truth.Lines = append(b.truth.Lines, provision.Line{Subscriber: provision.SubscriberID(9000 + i), Addresses: provision.Hosts4(provisiontest.IP(9000 + i))})
				}
			})
			wholePoll(s)
			require.NoError(t, accept(s))
			require.Equal(t, 250, s.Current().Len())
			b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[:200] })
			wholePoll(s)
			require.Equal(t, 250, s.Current().Len())
			require.NoError(t, accept(s))
			require.Equal(t, 200, s.Current().Len())
			b.setSpoil(nil)
			wholePoll(s)
			require.Equal(t, 250, s.Current().Len(), "to get back what was lost is no harm")
		})
	})
	t.Run("unconfirmed openings are nobody's word", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, s, paid := blockedBooks(t, nil)
			b.change(func(b *books) { b.cards = errors.New("down") })
			b.setStates(provision.StateActive, paid...)
			pass(7 * time.Minute)
			require.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
			b.setStates(provision.StatePause, paid...)
			pass(time.Minute)
			require.Equal(t, 60, countOf(s.Current(), paid, provision.StatePause), "the ERP has its lists again")
		})
	})
}

// Each customer waits the five minutes for the own opening, also where openings are held already.
func TestEachOpeningHasItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &syncLog{}
		b, s, paid := blockedBooks(t, seen)
		b.change(func(b *books) { b.cards = errors.New("down") })
		b.setStates(provision.StateActive, paid[:25]...)
		pass(time.Minute)
		began := s.Status().Held.Openings.Since
		pass(time.Until(began.Add(4*time.Minute + 30*time.Second)))
		b.setStates(provision.StateActive, paid[25:]...)
		wholePoll(s)
		later := time.Now().Add(-time.Second)
		require.Equal(t, began, s.Status().Held.Openings.Since)
		pass(time.Until(began.Add(openingPatience + time.Second)))
		require.Equal(t, 25, countOf(s.Current(), paid, provision.StateActive))
		require.Equal(t, 25, s.Status().Unconfirmed.Count)
		require.WithinDuration(t, later, s.Status().Held.Openings.Since, time.Second)
		require.WithinDuration(t, later.Add(openingPatience), s.Status().Held.Openings.OpensAt, time.Second)
		pass(time.Until(later.Add(openingPatience - 2*time.Second)))
		require.Equal(t, 25, countOf(s.Current(), paid, provision.StateActive))
		pass(4 * time.Second)
		require.Equal(t, 60, countOf(s.Current(), paid, provision.StateActive))
		require.Equal(t, 60, s.Status().Unconfirmed.Count, "within the hour")
		require.Contains(t, seen.take(), "opened 35 unconfirmed")
	})
}

// Whose card contradicts an opening is not forgotten by a restart, nor for having a subnet and no line.
func TestContradictingCardsAreKept(t *testing.T) {
	for name, alone := range map[string]bool{"with a line": false, "with a subnet alone": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				paid := b.in(provision.StateActive, 60)
				b.setStates(provision.StatePause, paid...)
				wrong := paid[:18]
				if alone {
					b.change(func(b *books) {
						b.truth.Lines = slices.DeleteFunc(b.truth.Lines, func(l provision.Line) bool { return slices.Contains(wrong, l.Subscriber) })
						for i, id := range wrong {
							b.truth.CustomerSubnets = append(b.truth.CustomerSubnets, provision.Subnet{Subscriber: id, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(8 * i)}), 29)})
						}
					})
				}
				store := NewStore(filepath.Join(dir, "snapshot"))
				s, stop := startBooks(t, b, tightGuard, store, nil)
				require.Len(t, s.Current().CustomerSubnets(), map[bool]int{true: 18}[alone])
				b.setStates(provision.StateActive, paid[18:]...)
				b.setSpoil(func(in *provision.Input) { paint(in, provision.StateActive, wrong...) })
				pass(20 * time.Minute)
				require.NotNil(t, s.Status().Held)
				pass(2 * time.Hour) // what passed is forgotten, and they are few enough to pass by themselves
				for range 3 {
					stop()
					s, stop = startBooks(t, b, tightGuard, store, nil)
					b.change(func(b *books) { b.cards = errors.New("down") })
					pass(10 * time.Minute)
					require.Equal(t, 18, countOf(s.Current(), wrong, provision.StatePause))
					b.change(func(b *books) { b.cards = nil })
				}
			})
		})
	}
}

// Customers who have a subnet and no line are counted: they are blocked in the kernel as others are.
func TestSubnetsAloneAreGuarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(100)
		var business []provision.SubscriberID
		b.change(func(b *books) {
			for i := range 30 {
				id := provision.SubscriberID(7000 + i)
				business = append(business, id)
				b.truth.Subscribers = append(b.truth.Subscribers, provision.Subscriber{ID: id, State: provision.StateActive})
				b.truth.CustomerSubnets = append(b.truth.CustomerSubnets, provision.Subnet{Subscriber: id, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(8 * i)}), 29)})
			}
		})
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		require.Len(t, s.Current().CustomerSubnets(), 30)
		b.setSpoil(func(in *provision.Input) { paint(in, provision.StatePause, business...) })
		pass(time.Minute) // states alone
		require.NotNil(t, s.Status().Held)
		require.Equal(t, "would block 30 of 130 subscribers (23.1%), limit 10%", s.Status().Held.Decision.Reason)
		require.Equal(t, 30, countOf(s.Current(), business, provision.StateActive))
		wholePoll(s)
		require.Equal(t, "would block 30 of 130 subscribers (23.1%), limit 10%", s.Status().Held.Decision.Reason)
		b.setSpoil(func(in *provision.Input) { in.CustomerSubnets = nil })
		wholePoll(s)
		require.Equal(t, "would move 30 of 130 subscribers (23.1%), limit 10%", s.Status().Held.Decision.Reason)
		require.Len(t, s.Current().CustomerSubnets(), 30)
		b.setSpoil(nil)
		wholePoll(s)
		require.Nil(t, s.Status().Held)
	})
}

// What an operator accepts stays, though a whole fetch that runs took over the states of before.
func TestAcceptOutlivesAFetchThatKeepsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		many := b.in(provision.StateActive, 60)
		b.setStates(provision.StatePause, many...)
		pass(time.Minute)
		require.NotNil(t, s.Status().Held)
		b.change(func(b *books) { b.keeps = 20 * time.Second })
		wholePoll(s)
		require.NoError(t, accept(s))
		require.Equal(t, 60, countOf(s.Current(), many, provision.StatePause))
		pass(30 * time.Second)
		assert.Equal(t, 60, countOf(s.Current(), many, provision.StatePause))
	})
}

// A decision is on what was looked at, in one step.
func TestAcceptOnlyWhatWasLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[50:] })
		wholePoll(s)
		looked := s.GuardStatus().Held.Fingerprint
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[150:] })
		wholePoll(s)
		now := s.GuardStatus().Held.Fingerprint
		require.NotEqual(t, looked, now)
		for _, decide := range []func(string) (*HeldStatus, error){s.Accept, s.Reject} {
			held, err := decide(looked)
			var other *OtherHeldError
			require.ErrorAs(t, err, &other)
			assert.Equal(t, now, other.Fingerprint)
			assert.Equal(t, now, held.Fingerprint)
			require.EqualError(t, err, "the guard holds another answer by now ("+now+"), look at it first")
		}
		assert.Equal(t, 200, s.Current().Len())
		held, err := s.Accept(now)
		require.NoError(t, err)
		assert.Equal(t, 150, held.Decision.Removed.Count)
		assert.Equal(t, 50, s.Current().Len())

		b.setSpoil(nil)
		wholePoll(s)
		assert.Equal(t, 200, s.Current().Len(), "what was accepted may be taken back")
	})
}

// The rest of an answer changes all the time; what is held is the same all the while.
func TestRepetitionIsOfWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := tightGuard
		limits.AcceptAfter = 5
		b := newBooks(200)
		s, _ := startBooks(t, b, limits, nil, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[50:] })
		wholePoll(s)
		for i := range 3 {
			id := provision.SubscriberID(1170 + i)
			b.setStates(provision.StatePause, id)
			pass(time.Minute)
			require.NotNil(t, s.GuardStatus().Held)
			assert.Equal(t, i+2, s.GuardStatus().Held.Seen)
			assert.Equal(t, provision.StatePause, s.Current().State(id))
			assert.Equal(t, 200, s.Current().Len())
		}
		pass(time.Minute)
		assert.Equal(t, 150, s.Current().Len())
	})
}

// After a restart what is in use is what was, and the same is held again.
func TestHeldAgainAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, b := &memoryStore{}, newBooks(200)
		s, stop := startBooks(t, b, tightGuard, store, nil)
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[50:] })
		b.change(func(b *books) { b.line(1170).MAC[5]++ })
		b.setStates(provision.StatePause, 1171)
		wholePoll(s)
		was, held := s.Current().Fingerprint(), s.GuardStatus().Held.Fingerprint
		stop()
		s, _ = startBooks(t, b, tightGuard, store, nil)
		assert.Equal(t, was, s.Current().Fingerprint())
		assert.Equal(t, 200, s.Current().Len())
		assert.Equal(t, provision.StatePause, s.Current().State(1171))
		assert.Equal(t, held, s.GuardStatus().Held.Fingerprint)
	})
}

func TestWhatWasBlockedIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer // written under the lock of the syncer, read when it is at rest
		b := newBooks(1000)
		s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, b, nil, nil, slog.New(slog.NewTextHandler(&text, nil)))
		stop := runSyncer(t, s)
		stopped := b.in(provision.StateStop, 3)
		b.setStates(provision.StatePause, b.in(provision.StateActive, 24)...)
		b.setStates(provision.StateActive, stopped[:2]...)
		b.setStates(provision.StatePause, stopped[2])
		pass(time.Minute)
		pass(time.Second)
		s.Override(stopped[0], provision.StateStop, time.Now())
		stop()
		assert.Contains(t, text.String(), `change="+31 paused, +31 stopped"`)
		assert.Contains(t, text.String(), `change="+25 paused, -3 stopped"`)
		assert.Contains(t, text.String(), `change="+1 stopped"`)
	})
}
