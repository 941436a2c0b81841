package syncer

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

const (
	// maxHints bounds the customers that wait to be read again; a poll of all
	// states stands in for more.
	maxHints = 10_000
	// hintBatch is how many of them are read at once.
	hintBatch = 100
	// moveBatch is how many are asked for their port at once: a call each, so
	// that fresh hints do not wait for long.
	moveBatch = 4
	// hintPatience is how long a customer whose card cannot be read is asked for again.
	hintPatience = time.Hour
	// hintRetry is the wait before that. It doubles with each failure, up to hintRest.
	hintRetry = time.Second
	hintRest  = time.Minute
	// maxSilent is how often a customer is asked for again of whom an answer tells nothing.
	maxSilent = 6
)

// hintQueue holds customers that hints named, in the order they came, each once.
type hintQueue struct {
	some chan struct{} // one slot, coalescing

	mu     sync.Mutex
	since  map[provision.SubscriberID]time.Time // oldest hint
	order  []provision.SubscriberID
	again  map[provision.SubscriberID]unread // whose cards could not be read; none of order
	reads  map[provision.SubscriberID]unread // whose cards are being read
	rest   time.Duration                     // the wait after the newest failure; 0: cards can be read
	after  time.Time                         // when that is over
	missed bool                              // hints came since for which no poll was made; they are in again
	lost   bool                              // the same, but there was no room for them: nothing else tells of them
	moves  []provision.SubscriberID          // read again, but for their port; each may stand here twice
	held   []provision.SubscriberID          // read again, and the guard holds their rows; each may stand here twice

	heldAgain map[provision.SubscriberID]unread // of those, whose cards could not be read when they were to confirm that
}

// unread is a hint of which nothing came.
type unread struct {
	since  time.Time // of the oldest hint
	silent int       // answers that told nothing of the customer
	due    time.Time // of the next try; zero: any time when cards can be read
}

func newHintQueue() *hintQueue {
	return &hintQueue{some: make(chan struct{}, 1), since: make(map[provision.SubscriberID]time.Time), again: make(map[provision.SubscriberID]unread),
		reads: make(map[provision.SubscriberID]unread), heldAgain: make(map[provision.SubscriberID]unread)}
}

// len returns how many customers wait to be read.
func (q *hintQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.order) + len(q.again)
}

// add returns false if there is no room.
func (q *hintQueue) add(id provision.SubscriberID, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, waits := q.since[id]; !waits {
		old, failed := q.again[id]
		if !failed && len(q.order)+len(q.again) >= maxHints {
			return false
		}
		if q.since[id] = now; failed { // it may work now, and if not, it is no new one
			q.since[id] = old.since
			delete(q.again, id)
		}
		q.order = append(q.order, id)
	}
	notify(q.some)
	return true
}

// waiting returns who waits to be read or is being read, and since when.
func (q *hintQueue) waiting() map[provision.SubscriberID]time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := maps.Clone(q.since)
	for id, u := range q.again {
		out[id] = u.since
	}
	for id, u := range q.reads { // older than what came since
		out[id] = u.since
	}
	return out
}

// restore has those be read who waited for it before a restart.
func (q *hintQueue) restore(since map[provision.SubscriberID]time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, at := range since {
		q.putBack(id, unread{since: at})
	}
	notify(q.some)
}

// hintRead are customers that are read for hints.
type hintRead struct {
	ids    []provision.SubscriberID
	oldest time.Time // hint
	since  map[provision.SubscriberID]unread
	fresh  bool // read for the first time
}

// take returns the next customers that were not read yet or, if fresh is not set, of those that could not be, if it is time to; no ids
// if none waits.
func (q *hintQueue) take(fresh bool, now time.Time) (r hintRead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.since, r.fresh = make(map[provision.SubscriberID]unread), fresh
	if fresh {
		n := min(len(q.order), hintBatch)
		r.ids = append(r.ids, q.order[:n]...)
		q.order = append(q.order[:0], q.order[n:]...)
		for _, id := range r.ids {
			r.since[id] = unread{since: q.since[id]}
			delete(q.since, id)
		}
	} else {
		q.takeAgain(&r, now)
	}
	for id, u := range r.since {
		q.reads[id] = u
		if r.oldest.IsZero() || u.since.Before(r.oldest) {
			r.oldest = u.since
		}
	}
	return r
}

func (q *hintQueue) takeAgain(r *hintRead, now time.Time) {
	maps.DeleteFunc(q.again, func(_ provision.SubscriberID, u unread) bool { return now.Sub(u.since) > hintPatience })
	if now.Before(q.after) {
		return
	}
	for id, u := range q.again {
		if !now.Before(u.due) {
			r.ids = append(r.ids, id)
		}
	}
	slices.SortFunc(r.ids, func(x, y provision.SubscriberID) int {
		return cmp.Or(q.again[x].since.Compare(q.again[y].since), cmp.Compare(x, y))
	})
	r.ids = r.ids[:min(len(r.ids), hintBatch)]
	for _, id := range r.ids {
		r.since[id] = q.again[id]
		delete(q.again, id)
	}
}

// failed puts customers back of whom nothing could be read. It reports whether a poll of states is to stand in for them: at the
// beginning of an outage, and then as often as they are asked for again, however many hints come meanwhile.
func (q *hintQueue) failed(r hintRead, now time.Time) (poll bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.reads) // one reading at a time
	for _, id := range r.ids {
		q.putBack(id, r.since[id])
	}
	q.missed = q.missed || r.fresh
	if !now.Before(q.after) {
		q.rest = min(max(2*q.rest, hintRetry), hintRest)
		q.after = now.Add(q.rest)
		poll, q.missed, q.lost = q.missed || q.lost, false, false
	}
	return poll
}

// overflow notes a hint for which there was no room. It reports whether a poll is to stand in for it at once: where cards cannot be read
// it is made when they are asked for again, whether they come then or not.
func (q *hintQueue) overflow(now time.Time) (poll bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !now.Before(q.after) {
		return true
	}
	q.lost = true
	return false
}

// answered notes that cards can be read, and puts those customers back who are known and of whom the answer tells nothing. It reports
// whether a poll is to stand in for others, whose cards nobody will ask for.
func (q *hintQueue) answered(r hintRead, told map[provision.SubscriberID]provision.State, cur *provision.Snapshot, now time.Time) (poll bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rest, q.after, q.missed = 0, time.Time{}, false
	poll, q.lost = q.lost, false
	clear(q.reads)
	for _, id := range r.ids {
		u := r.since[id]
		_, in := told[id]
		if _, known := cur.Subscriber(id); in || !known || u.silent >= maxSilent {
			continue
		}
		u.due = now.Add(hintRetry << u.silent)
		u.silent++
		q.putBack(id, u)
	}
	return poll
}

func (q *hintQueue) putBack(id provision.SubscriberID, u unread) {
	switch _, waits := q.since[id]; {
	case waits:
	case len(q.order)+len(q.again) < maxHints:
		q.again[id] = u
	default:
		q.lost = true
	}
}

// due returns when a customer is to be read again whose card could not be; zero: none is.
func (q *hintQueue) due() (at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range q.again {
		next := u.due
		if next.Before(q.after) {
			next = q.after
		}
		if next.IsZero() {
			next = u.since // now
		}
		if at.IsZero() || next.Before(at) {
			at = next
		}
	}
	for _, u := range q.heldAgain {
		if at.IsZero() || u.due.Before(at) {
			at = u.due
		}
	}
	return at
}

func (q *hintQueue) addMoves(ids []provision.SubscriberID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moves = append(q.moves, ids[:min(len(ids), maxHints-len(q.moves))]...)
}

func (q *hintQueue) takeMoves() []provision.SubscriberID {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.moves), moveBatch)
	ids := append([]provision.SubscriberID(nil), q.moves[:n]...)
	q.moves = append(q.moves[:0], q.moves[n:]...)
	return ids
}

func (q *hintQueue) addHeld(ids ...provision.SubscriberID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ids = ids[:min(len(ids), maxHints-len(q.held))]
	q.held = append(q.held, ids...)
	for _, id := range ids {
		delete(q.heldAgain, id)
	}
}

// takeHeld returns the next one whose card is to confirm held rows, or of those whose card could not be read one that it is time for.
func (q *hintQueue) takeHeld(now time.Time) (id provision.SubscriberID, before unread, some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.held) > 0 {
		id = q.held[0]
		q.held = append(q.held[:0], q.held[1:]...)
		return id, unread{since: now}, true
	}
	for x, u := range q.heldAgain {
		if !now.Before(u.due) && (!some || u.due.Before(before.due)) {
			id, before, some = x, u, true
		}
	}
	delete(q.heldAgain, id)
	return id, before, some
}

// failedHeld has one asked for again whose card told nothing, ever less often. One whose card cannot be read is for as long as a
// hint is; one of whom an answer tells nothing some times.
func (q *hintQueue) failedHeld(id provision.SubscriberID, u unread, answered bool, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(u.since) > hintPatience || answered && u.silent >= maxSilent || len(q.heldAgain) >= maxHints {
		return
	}
	u.due = now.Add(min(hintRetry<<min(u.silent, 6), hintRest))
	u.silent++
	q.heldAgain[id] = u
}

func (q *hintQueue) dropMoves() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moves = nil
}

// Hint says that a customer may have changed. Nothing is believed but the
// number: the customer is read again from the ERP, at once and beside any poll,
// and the state found is applied. Other addresses or another port ask for a
// whole fetch. Many hints for one customer become one read; more customers than
// a queue holds become a poll of all states. It never blocks.
func (s *Syncer) Hint(id provision.SubscriberID) {
	now := time.Now()
	_, able := s.source.(CustomerFetcher)
	queued := able && s.hints.add(id, now)
	s.mu.Lock()
	s.status.Hints.Received++
	s.status.Hints.LastAt = now
	switch {
	case queued:
	case able:
		s.status.Hints.Overflows++
	default:
		s.askFullLocked()
	}
	s.mu.Unlock()
	if able && !queued && s.hints.overflow(now) {
		notify(s.wake)
	}
}

// followHints reads customers again as hints name them, and the cards of openings that the guard holds, until ctx ends.
func (s *Syncer) followHints(ctx context.Context) {
	source, able := s.source.(CustomerFetcher)
	for {
		var due <-chan time.Time
		at := s.openingsDue()
		if again := s.hints.due(); able && !again.IsZero() && (at.IsZero() || again.Before(at)) {
			at = again
		}
		if !at.IsZero() {
			due = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hints.some:
		case <-due:
		}
		for ctx.Err() == nil && (able && s.reread(ctx, source, true) || s.checkOpenings(ctx) || able && (s.reread(ctx, source, false) || s.confirmRows(ctx, source) || s.lookForMoves(ctx, source))) {
			continue
		}
	}
}

// reread reads the next customers, fresh ones or those that could not be read, and applies their states; false if none waits.
func (s *Syncer) reread(ctx context.Context, source CustomerFetcher, fresh bool) bool {
	read := s.hints.take(fresh, time.Now())
	ids, oldest := read.ids, read.oldest
	if len(ids) == 0 {
		return false
	}
	s.mu.Lock()
	timeout := s.opts.FetchTimeout
	s.mu.Unlock()
	began := time.Now()
	fctx, cancel := context.WithTimeout(ctx, timeout)
	answer, err := source.FetchCustomers(fctx, ids, s.Current())
	cancel()
	if answer.FetchedAt.IsZero() || answer.FetchedAt.After(began) {
		answer.FetchedAt = began
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	report := FetchReport{Kind: FetchCustomers, Outcome: FetchPublished, Took: now.Sub(began), Waited: now.Sub(oldest), Err: err}
	switch {
	case err != nil && ctx.Err() != nil:
		return false
	case err != nil:
		// The next poll tells the same of states; it is asked for now, and tries again by itself. What stands on cards alone does not come by it.
		report.Outcome = FetchFailed
		s.status.Hints.LastError, s.status.Hints.LastErrorAt = err.Error(), now
		first := s.hints.failed(read, now)
		notify(s.dirty) // a restart is not to forget them
		if first {
			s.log.Warn("customers that hints named could not be read, a poll is made now, and they are asked for again", "customers", s.hints.len(), "error", err)
			notify(s.wake)
		}
	case !s.applyHintsLocked(answer):
		report.Outcome = FetchHeld
	default:
		report.Waited = time.Since(oldest)
		s.status.Hints.LastAppliedAt, s.status.Hints.LastSeconds = time.Now(), report.Waited.Seconds()
	}
	s.obs.Fetched(report)
	if err != nil {
		return true
	}
	if s.hints.answered(read, answer.States, s.Current(), now) {
		notify(s.wake)
	}
	if answer.Refresh {
		s.askFullLocked()
	}
	s.hints.addHeld(s.heldRowsLocked(ids)...)
	if !s.fullDue.IsZero() {
		s.hints.dropMoves() // a whole fetch is to come
	} else {
		s.hints.addMoves(ids)
	}
	return true
}

// applyHintsLocked applies states that cards told, like overrides: a
// poll that began before does not undo them. A card confirms what lists say, so it passes whatever else is held. But an import that
// goes wrong sends hints too: those that block count together for an hour, and what is over the limit is left to a whole fetch, where
// an operator can see and decide.
func (s *Syncer) applyHintsLocked(answer StatesAnswer) bool {
	now, cur := time.Now(), s.Current()
	next := s.withLocked(answer.States, answer.FetchedAt)
	if next == nil || guarded(cur, cur.KeepsVacant()) == 0 {
		s.putHintsLocked(answer, next)
		return true
	}
	s.passed.expire(now)
	v := &verdict{changes: compare(cur, next, s.opts.OwnMAC)}
	v.changes.sort()
	over, why := s.cardsOverLocked(ChangeBlocked, v.changes, now)
	if over {
		if s.held == nil && !s.wantFull {
			s.log.Warn("guard holds the states that hints led to, a whole fetch is made", "reason", why)
			s.wantFull = true
			notify(s.wake)
		}
		// Who is to be let in need not wait for what becomes of the others.
		maps.DeleteFunc(answer.States, func(_ provision.SubscriberID, st provision.State) bool { return st.Blocks() })
		next = s.withLocked(answer.States, answer.FetchedAt)
		v.changes = compare(cur, next, s.opts.OwnMAC)
		v.changes.sort()
	}
	s.passed.pass(v, &s.opts.Guard, passing{card: true}, now)
	s.putHintsLocked(answer, next)
	return !over
}

// cardsOverLocked reports whether more changes of a kind than the limit allows would pass within an hour because the subscribers' own
// cards say so, and why.
func (s *Syncer) cardsOverLocked(k ChangeKind, coming changes, now time.Time) (over bool, why string) {
	v, cur := &verdict{}, s.Current()
	v.Subscribers = guarded(cur, cur.KeepsVacant())
	c := v.Of(k)
	c.Limit, _, _ = s.opts.Guard.share(k, now)
	c.Hour = s.passed.count(k, coming, true)
	v.weigh(c, len(s.passed.without(k, coming[k])), s.opts.Guard.MinChanged)
	v.explain()
	return c.Over, v.Reason
}

func (s *Syncer) putHintsLocked(answer StatesAnswer, next *provision.Snapshot) {
	s.noteLocked(answer.States, answer.FetchedAt)
	if next != nil {
		s.installLocked(next, s.status.Problems)
	}
}

// lookForMoves asks whether customers that were read again have another port;
// false if none waits. An error is not told: the next whole fetch sees it.
func (s *Syncer) lookForMoves(ctx context.Context, source CustomerFetcher) bool {
	ids := s.hints.takeMoves()
	if len(ids) == 0 {
		return false
	}
	s.mu.Lock()
	timeout := s.opts.FetchTimeout
	s.mu.Unlock()
	fctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if moved, err := source.Moved(fctx, ids, s.Current()); err != nil || !moved {
		return true
	}
	s.hints.dropMoves()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.askFullLocked()
	return true
}
