package syncer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Openings above the limit: who has paid does not wait for an operator, and a list of blocked customers that came empty opens
// nobody. So a few of those to be opened are asked for by their cards.

const (
	// openingSample is how many cards decide, as long as none contradicts.
	openingSample = 20
	// openingEach is how many are asked for at once after one did, when each speaks for its own customer alone.
	openingEach = 200
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
	// contradicted says that a card said blocked: from then on no card speaks for another customer.
	contradicted bool
	blocked      map[provision.SubscriberID]bool      // whose own card said so, when it was read last
	asked        map[provision.SubscriberID]bool      // in this round of all
	since        map[provision.SubscriberID]time.Time // when each opening was first held: each has its own patience
}

func (c *openingCheck) copy() *OpeningStatus {
	st := c.status
	st.Contradicted = slices.Clone(st.Contradicted)
	return &st
}

// take notes what cards said.
func (c *openingCheck) take(ids []provision.SubscriberID, answer StatesAnswer, err error, now time.Time) {
	c.status.take(ids, answer, err, now)
	if err != nil {
		return
	}
	for _, id := range ids {
		switch state, told := answer.States[id]; {
		case !told:
		case state.Blocks():
			c.blocked[id], c.contradicted = true, true
		default:
			delete(c.blocked, id)
		}
	}
	c.tellContradicted()
}

func (c *openingCheck) tellContradicted() {
	if c.contradicted {
		c.status.Contradicted, c.status.OpensAt = slices.Sorted(maps.Keys(c.blocked)), time.Time{}
	}
}

// follow takes over whose openings are held now.
func (c *openingCheck) follow(waiting []provision.SubscriberID, now time.Time) {
	since := make(map[provision.SubscriberID]time.Time, len(waiting))
	first := now
	for _, id := range waiting {
		at, known := c.since[id]
		if !known {
			at = now
		}
		if since[id] = at; at.Before(first) {
			first = at
		}
	}
	c.since, c.status.Since = since, first
	if c.status.OpensAt = first.Add(openingPatience); c.contradicted {
		c.status.OpensAt = time.Time{}
	}
}

// ripe returns whose openings were held for as long as cards that cannot be read hold them, ascending.
func (c *openingCheck) ripe(now time.Time) (ids []provision.SubscriberID) {
	for id, at := range c.since {
		if !now.Before(at.Add(openingPatience)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// choose returns, at random, whose cards are asked for now, out of all who wait.
func (c *openingCheck) choose(all []provision.SubscriberID) (ids []provision.SubscriberID) {
	most := openingSample
	if c.contradicted {
		most = openingEach
		left := slices.DeleteFunc(slices.Clone(all), func(id provision.SubscriberID) bool { return c.asked[id] })
		if len(left) == 0 {
			clear(c.asked)
			left = all
		}
		all = left
	}
	for _, i := range rand.Perm(len(all))[:min(len(all), most)] {
		ids = append(ids, all[i])
		c.asked[all[i]] = true
	}
	return ids
}

// watchOpeningsLocked begins to ask for cards when openings are held, and ends it when none are.
func (s *Syncer) watchOpeningsLocked(now time.Time) {
	waiting := s.held.verdict.undecided(ChangeOpened)
	if len(waiting) == 0 {
		s.openings = nil
		return
	}
	if s.openings == nil {
		// Of those that waited for so long that no look at cards is left nobody looked at the list meanwhile.
		maps.DeleteFunc(s.known.since, func(_ provision.SubscriberID, at time.Time) bool { return now.Sub(at) >= openingPatience })
		s.openings = &openingCheck{due: now, contradicted: len(s.contradicted) > 0, blocked: s.contradicted, asked: make(map[provision.SubscriberID]bool), since: s.known.since}
		s.known.since = nil // a later one begins anew
		notify(s.hints.some)
		notify(s.dirty)
	}
	s.openings.follow(waiting, now)
	s.openings.tellContradicted()
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
	all = s.held.verdict.undecided(ChangeOpened)
	cur := s.Current()
	ids = s.openings.choose(slices.DeleteFunc(slices.Clone(all), func(id provision.SubscriberID) bool { return !cur.State(id).Blocks() }))
	timeout = min(s.opts.FetchTimeout, openingTimeout)
	if opens := s.openings.status.OpensAt; !opens.IsZero() { // not later than that, even if the ERP hangs
		timeout = min(timeout, max(opens.Sub(now), time.Millisecond))
	}
	return ids, all, timeout
}

// judgeOpeningsLocked deals with what the cards of ids said, which were chosen out of all. One that says blocked holds all the others
// until their own cards are read: lists and cards are of one ERP, so they agree. That one is asked for again, for it may just have been blocked.
func (s *Syncer) judgeOpeningsLocked(ids, all []provision.SubscriberID, answer StatesAnswer, err error) {
	c := s.openings
	if c == nil {
		return // decided meanwhile
	}
	now := time.Now()
	before := c.contradicted
	c.take(ids, answer, err, now)
	if err == nil {
		notify(s.dirty)            // whose cards contradict is kept over restarts
		s.applyHintsLocked(answer) // whose own card says so is opened, whatever the others say
	}
	st := &c.status
	switch {
	case c.contradicted:
		if !before {
			s.log.Warn("cards contradict the openings that the guard holds, nobody is opened but by the own card", "asked", len(ids), "contradicting", st.Contradicted)
		}
	case st.Error == "":
		s.log.Info("cards confirm the openings that the guard held", "asked", len(ids), "customers", len(all))
		s.openLocked(all)
		return
	case !st.OpensAt.IsZero() && !now.Before(st.OpensAt):
		ripe := c.ripe(now)
		s.log.Warn("openings that the guard held come into use unconfirmed, for cards cannot be read", "error", st.Error, "customers", len(ripe))
		before := 0
		if u := s.status.Unconfirmed; u != nil && now.Sub(u.At) <= guardWindow {
			before = u.Count
		}
		s.status.Unconfirmed = &UnconfirmedOpenings{At: now, Count: before + len(ripe), Error: st.Error}
		s.obs.OpenedUnconfirmed(len(ripe))
		s.passed.pass(&verdict{changes: changes{ChangeOpened: ripe}}, &s.opts.Guard, passing{free: true}, now)
		s.openLocked(ripe)
		if s.openings == nil {
			return
		}
		c.follow(s.held.verdict.undecided(ChangeOpened), now)
	}
	if opens := st.OpensAt; !opens.IsZero() && opens.Before(c.due) {
		c.due = opens
	}
	s.obs.Held(s.heldStatusLocked())
}

// take notes how many of the cards came.
func (st *OpeningStatus) take(ids []provision.SubscriberID, answer StatesAnswer, err error, now time.Time) {
	st.CheckedAt, st.Asked, st.Read, st.Error = now, len(ids), 0, ""
	if err != nil {
		st.Error = err.Error()
		return
	}
	for _, id := range ids {
		if _, told := answer.States[id]; told {
			st.Read++
		}
	}
	if st.Read*2 < st.Asked {
		st.Error = fmt.Sprintf("%d of %d cards came", st.Read, st.Asked)
	}
}

// openLocked lets in those of some whose opening is held, but for whom something newer is known about. It counts for nothing in
// the hour to come.
func (s *Syncer) openLocked(some []provision.SubscriberID) {
	h, cur := s.held, s.Current()
	opened, still := make(map[provision.SubscriberID]provision.State), []provision.SubscriberID(nil)
	for _, id := range h.verdict.held[ChangeOpened] {
		if _, in := slices.BinarySearch(some, id); !in || h.verdict.rejected.has(ChangeOpened, id) {
			still = append(still, id)
		} else if o, newer := s.overrides[id]; (!newer || !o.at.After(h.began)) && cur.State(id).Blocks() {
			opened[id] = h.snap.State(id)
		}
	}
	if len(opened) > 0 {
		s.keepBesideLocked(opened)
		s.installLocked(cur.WithStates(opened), s.status.Problems)
	}
	h.verdict.held[ChangeOpened] = still
	s.lessHeldLocked()
}
