package syncer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Openings above the limit: who has paid does not wait for an operator, and a list of blocked customers that came empty opens
// nobody. So a few of those to be opened are asked for by their cards.

const (
	// openingSample is how many cards decide.
	openingSample = 20
	// openingGap is the time from one look at cards to the next.
	openingGap = 30 * time.Second
	// openingTimeout bounds one look.
	openingTimeout = 30 * time.Second
	// openingPatience is how long cards that cannot be read hold an opening.
	openingPatience = 5 * time.Minute
)

// errNoCards says that the source cannot read single customers.
var errNoCards = errors.New("this source tells no single customers")

// openingCheck is what the cards of held openings said so far.
type openingCheck struct {
	due    time.Time // of the next look
	status OpeningStatus
}

func (c *openingCheck) copy() *OpeningStatus {
	st := c.status
	st.Contradicted = slices.Clone(st.Contradicted)
	return &st
}

// watchOpeningsLocked begins to ask for cards when openings are held, and ends it when none are.
func (s *Syncer) watchOpeningsLocked(now time.Time) {
	h := s.held
	if len(h.verdict.held[ChangeOpened]) == 0 || h.verdict.NoRows || h.status.Rejected {
		s.openings = nil
		return
	}
	if s.openings == nil {
		s.openings = &openingCheck{due: now, status: OpeningStatus{Since: now, OpensAt: now.Add(openingPatience)}}
		notify(s.hints.some)
	}
}

// openingsDue returns when cards are to be asked for; zero: not at all.
func (s *Syncer) openingsDue() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.openings == nil {
		return time.Time{}
	}
	return s.openings.due
}

// checkOpenings asks for some cards of held openings if it is time to; false if it is not.
func (s *Syncer) checkOpenings(ctx context.Context) bool {
	ids, all, timeout := s.sampleOpenings()
	if len(ids) == 0 {
		return false
	}
	began := time.Now()
	answer, err := StatesAnswer{}, errNoCards
	if source, able := s.source.(CustomerFetcher); able {
		fctx, cancel := context.WithTimeout(ctx, timeout)
		answer, err = source.FetchCustomers(fctx, ids, s.Current())
		cancel()
	}
	if ctx.Err() != nil {
		return false
	}
	if answer.FetchedAt.IsZero() || answer.FetchedAt.After(began) {
		answer.FetchedAt = began
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judgeOpeningsLocked(ids, all, answer, err)
	return true
}

// sampleOpenings chooses at random whose cards are asked for now, out of all whose opening is held; none if it is not time yet.
func (s *Syncer) sampleOpenings() (ids, all []provision.SubscriberID, timeout time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.openings == nil || now.Before(s.openings.due) {
		return nil, nil, 0
	}
	s.openings.due = now.Add(openingGap)
	all = s.held.verdict.held[ChangeOpened]
	for _, i := range rand.Perm(len(all))[:min(len(all), openingSample)] {
		ids = append(ids, all[i])
	}
	timeout = min(s.opts.FetchTimeout, openingTimeout)
	if opens := s.openings.status.OpensAt; !opens.IsZero() { // not later than that, even if the ERP hangs
		timeout = min(timeout, max(opens.Sub(now), time.Millisecond))
	}
	return ids, all, timeout
}

// judgeOpeningsLocked deals with what the cards of ids said, which were chosen out of all. One that says blocked holds all the others:
// lists and cards are of one ERP, so they agree. Cards are asked for again, for that customer may just have been blocked.
func (s *Syncer) judgeOpeningsLocked(ids, all []provision.SubscriberID, answer StatesAnswer, err error) {
	c := s.openings
	if c == nil {
		return // decided meanwhile
	}
	now := time.Now()
	against := c.status.take(ids, answer, err, now)
	if err == nil {
		s.applyHintsLocked(answer) // whose own card says so is opened, whatever the others say
	}
	st := &c.status
	switch {
	case len(against) > 0:
		if len(st.Contradicted) == 0 {
			s.log.Warn("cards contradict the openings that the guard holds, nobody is opened by them", "asked", len(ids), "contradicting", against)
		}
		st.Contradicted, st.OpensAt = against, time.Time{}
	case st.Error == "":
		s.log.Info("cards confirm the openings that the guard held", "asked", len(ids), "customers", len(all))
		s.openLocked(all)
		return
	case !st.OpensAt.IsZero() && !now.Before(st.OpensAt):
		all = s.held.verdict.held[ChangeOpened]
		s.log.Warn("the openings that the guard held come into use unconfirmed, for cards cannot be read", "error", st.Error, "customers", len(all))
		s.status.Unconfirmed = &UnconfirmedOpenings{At: now, Count: len(all), Error: st.Error}
		s.obs.OpenedUnconfirmed(len(all))
		s.passed.pass(&verdict{changes: changes{ChangeOpened: all}}, &s.opts.Guard, passing{free: true}, now)
		s.openLocked(all)
		return
	}
	if opens := st.OpensAt; !opens.IsZero() && opens.Before(c.due) {
		c.due = opens
	}
	s.obs.Held(s.heldStatusLocked())
}

// take notes which of the cards came, and returns those that say blocked, sorted.
func (st *OpeningStatus) take(ids []provision.SubscriberID, answer StatesAnswer, err error, now time.Time) (against []provision.SubscriberID) {
	st.CheckedAt, st.Asked, st.Read, st.Error = now, len(ids), 0, ""
	if err != nil {
		st.Error = err.Error()
		return nil
	}
	for _, id := range ids {
		if state, told := answer.States[id]; told {
			if st.Read++; state.Blocks() {
				against = append(against, id)
			}
		}
	}
	if st.Read*2 < st.Asked {
		st.Error = fmt.Sprintf("%d of %d cards came", st.Read, st.Asked)
	}
	slices.Sort(against)
	return against
}

// openLocked lets in those of some whose opening is held, but for whom something newer is known about. It counts for nothing in
// the hour to come.
func (s *Syncer) openLocked(some []provision.SubscriberID) {
	h, cur := s.held, s.Current()
	opened, still := make(map[provision.SubscriberID]provision.State), []provision.SubscriberID(nil)
	for _, id := range h.verdict.held[ChangeOpened] {
		if _, in := slices.BinarySearch(some, id); !in {
			still = append(still, id)
		} else if o, newer := s.overrides[id]; (!newer || !o.at.After(h.began)) && cur.State(id).Blocks() {
			opened[id] = h.snap.State(id)
		}
	}
	if len(opened) > 0 {
		s.installLocked(cur.WithStates(opened), s.status.Problems)
	}
	h.verdict.held[ChangeOpened] = still
	s.lessHeldLocked()
}
