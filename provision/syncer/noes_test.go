package syncer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Whatever the ERP says, half says and does not say, and whenever the agent is restarted: what an operator rejected, or the own card
// contradicts, does not come into use before the ERP takes it back, the own card says the same or an operator accepts. When the ERP
// is well again all of it is in use, and nothing is held or remembered.
func TestNoesAreKept(t *testing.T) {
	for seed := range uint64(long.Times(t, 4, 100)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				rng := provisiontest.Rand(seed)
				b := newBooks(200)
				b.setStates(provision.StatePause, b.in(provision.StateActive, 60)...)
				lists := map[provision.SubscriberID]provision.State{} // that are wrong
				b.setSpoil(func(in *provision.Input) {
					for i := range in.Subscribers {
						if st, wrong := lists[in.Subscribers[i].ID]; wrong {
							in.Subscribers[i].State = st
						}
					}
				})
				rows := b.truth.Lines
				store := NewStore(filepath.Join(dir, "snapshot"))
				limits := tightGuard
				limits.AcceptAfter = rng.IntN(2) * 4
				s, stop := startBooks(t, b, limits, store, nil)
				some := func() provision.SubscriberID { return provision.SubscriberID(1000 + rng.IntN(200)) }
				says := func(id provision.SubscriberID) provision.State { return b.stateOf(id, lists) }
				var log []string
				for range 120 {
					accepted := false
					no, yes := s.noes()
					what := ""
					switch op := rng.IntN(14); op {
					case 0, 1, 2:
						st := []provision.State{provision.StateActive, provision.StatePause, provision.StateStop}[rng.IntN(3)]
						n := rng.IntN(80)
						b.change(func(*books) {
							for range n {
								lists[some()] = st
							}
						})
						what = fmt.Sprintf("lists say %s of %d", st, n)
					case 3:
						b.change(func(*books) {
							for id := range lists {
								if rng.IntN(3) > 0 {
									delete(lists, id)
								}
							}
						})
						what = "lists are better"
					case 4:
						id := some()
						b.setStates(provision.StateActive, id)
						what = fmt.Sprintf("%d pays", id)
					case 5, 6:
						if h := s.Status().Held; h != nil {
							require.NoError(t, reject(s))
							no, yes = s.noes()
						}
						what = "reject"
					case 7:
						if rng.IntN(3) == 0 && s.Status().Held != nil {
							require.NoError(t, accept(s))
							accepted = true
						}
						what = "accept"
					case 8:
						b.change(func(b *books) { b.cards = []error{nil, errors.New("down")}[rng.IntN(2)] })
						what = "cards"
					case 9:
						b.change(func(b *books) { b.whole = []error{nil, nil, errors.New("down")}[rng.IntN(3)] })
						what = "whole"
					case 10:
						b.change(func(b *books) { b.truth.Lines = [][]provision.Line{rows, rows, nil}[rng.IntN(3)] })
						what = "rows"
					case 11:
						b.change(func(b *books) { b.keeps = []time.Duration{0, 0, time.Second}[rng.IntN(3)] })
						what = "states are kept"
					case 12:
						s.Hint(some())
						what = "hint"
					case 13:
						pass(2 * time.Second)
						no, yes = s.noes()
						stop()
						s, stop = startBooks(t, b, limits, store, nil)
						what = "restart"
					}
					log = append(log, what)
					pass(time.Duration(1+rng.IntN(600)) * time.Second)
					now, nowYes := s.noes()
					for n, was := range no {
						st, card := s.Current().State(n.id), b.stateOf(n.id, nil)
						_, still := now[n]
						switch {
						case accepted, st == was, st == card, still && n.kind == ChangeOpened && st.Blocks():
						case !still && !wantsState(n.kind, was, says(n.id)): // taken back
						default:
							t.Fatalf("%v: customer %d is %s, was rejected to be %s at %s; lists say %s, the card %s", log, n.id, st, n.kind, was, says(n.id), card)
						}
						if !still && !accepted && st == was && wantsState(n.kind, was, says(n.id)) && b.wellNow() {
							t.Fatalf("%v: customer %d is no more rejected to be %s, and lists say %s", log, n.id, n.kind, says(n.id))
						}
					}
					for id, was := range yes {
						_, still := nowYes[id]
						if st := s.Current().State(id); was && !accepted && still && !st.Blocks() && b.stateOf(id, nil).Blocks() {
							t.Fatalf("%v: customer %d is %s, and its card says no", log, id, st)
						}
					}
				}
				b.change(func(b *books) {
					clear(lists)
					b.cards, b.whole, b.keeps, b.truth.Lines = nil, nil, 0, rows
				})
				pass(10 * time.Minute)
				for range 2 { // many are blocked again, or let in who were rejected: that is for an operator, each in turn
					if held := s.Status().Held; held != nil && (held.Rejected || held.Decision.Blocked.Over) {
						require.NoError(t, accept(s))
					}
					pass(10 * time.Minute)
				}
				pass(2 * time.Hour)
				require.Nil(t, s.Status().Held, "%v", log)
				require.Equal(t, b.truthNow().Fingerprint(), s.Current().Fingerprint(), "%v", log)
				no, yes := s.noes()
				require.Empty(t, no)
				require.Empty(t, yes)
			})
		})
	}
}

type noOf struct {
	kind ChangeKind
	id   provision.SubscriberID
}

// noes returns whom an operator keeps in which state, and whose cards contradict an opening.
func (s *Syncer) noes() (no map[noOf]provision.State, yes map[provision.SubscriberID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	no, yes = make(map[noOf]provision.State), make(map[provision.SubscriberID]bool)
	for _, k := range stateKinds {
		for _, id := range s.rejected.ids(k) {
			no[noOf{k, id}] = s.Current().State(id)
		}
	}
	for id := range s.contradicted {
		yes[id] = s.Current().State(id).Blocks()
	}
	return no, yes
}

// wantsState reports whether lists would make a change of a kind.
func wantsState(k ChangeKind, was, is provision.State) bool {
	if k == ChangeOpened {
		return was.Blocks() && !is.Blocks()
	}
	return is != was && (is == provision.StateStop || is.Blocks() && !was.Blocks())
}

// wellNow reports whether the ERP tells everything.
func (b *books) wellNow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole == nil && b.keeps == 0 && len(b.truth.Lines) > 0
}

// stateOf returns the state of a subscriber in the lists, or on the card.
func (b *books) stateOf(id provision.SubscriberID, lists map[provision.SubscriberID]provision.State) provision.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if st, wrong := lists[id]; wrong {
		return st
	}
	i := slices.IndexFunc(b.truth.Subscribers, func(s provision.Subscriber) bool { return s.ID == id })
	return b.truth.Subscribers[i].State
}
