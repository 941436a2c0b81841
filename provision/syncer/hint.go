package syncer

import (
	"context"
	"maps"
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
)

// hintQueue holds customers that hints named, in the order they came, each once.
type hintQueue struct {
	some chan struct{} // one slot, coalescing

	mu    sync.Mutex
	since map[provision.SubscriberID]time.Time // oldest hint
	order []provision.SubscriberID
	moves []provision.SubscriberID // read again, but for their port; each may stand here twice
	held  []provision.SubscriberID // read again, and the guard holds their rows; each may stand here twice
}

func newHintQueue() *hintQueue {
	return &hintQueue{some: make(chan struct{}, 1), since: make(map[provision.SubscriberID]time.Time)}
}

func (q *hintQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.order)
}

// add gives false if there is no room.
func (q *hintQueue) add(id provision.SubscriberID, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, waits := q.since[id]; !waits {
		if len(q.order) >= maxHints {
			return false
		}
		q.since[id] = now
		q.order = append(q.order, id)
	}
	notify(q.some)
	return true
}

// take gives the next customers and the time of their oldest hint.
func (q *hintQueue) take() (ids []provision.SubscriberID, oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.order), hintBatch)
	ids = append(ids, q.order[:n]...)
	q.order = append(q.order[:0], q.order[n:]...)
	for _, id := range ids {
		if at := q.since[id]; oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
		delete(q.since, id)
	}
	return ids, oldest
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
	q.held = append(q.held, ids[:min(len(ids), maxHints-len(q.held))]...)
}

func (q *hintQueue) takeHeld() (id provision.SubscriberID, some bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.held) == 0 {
		return 0, false
	}
	id = q.held[0]
	q.held = append(q.held[:0], q.held[1:]...)
	return id, true
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
	if able && !queued {
		notify(s.wake)
	}
}

// followHints reads customers again as hints name them, and the cards of openings that the guard holds, until ctx ends.
func (s *Syncer) followHints(ctx context.Context) {
	source, able := s.source.(CustomerFetcher)
	for {
		var due <-chan time.Time
		if at := s.openingsDue(); !at.IsZero() {
			due = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.hints.some:
		case <-due:
		}
		for ctx.Err() == nil && (able && s.reread(ctx, source) || s.checkOpenings(ctx) || able && (s.confirmRows(ctx, source) || s.lookForMoves(ctx, source))) {
			continue
		}
	}
}

// reread reads the next customers and applies their states; false if none waits.
func (s *Syncer) reread(ctx context.Context, source CustomerFetcher) bool {
	ids, oldest := s.hints.take()
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
		// The next poll tells the same; it is asked for now, and tries again by itself.
		report.Outcome = FetchFailed
		s.status.Hints.LastError, s.status.Hints.LastErrorAt = err.Error(), now
		s.log.Warn("customers that a hint named could not be read, a poll is made instead", "customers", len(ids), "error", err)
		notify(s.wake)
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
	if next == nil || cur.Len() == 0 {
		s.putHintsLocked(answer, next)
		return true
	}
	s.passed.expire(now)
	v := &verdict{changes: compare(cur, next)}
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
		v.changes = compare(cur, next)
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
	v.Subscribers = cur.Counts().Subscribers
	if cur.KeepsVacant() {
		v.Subscribers += cur.WithoutAddress()
	}
	c := v.Of(k)
	c.Limit, _ = s.opts.Guard.share(k, now)
	c.Hour = s.passed.count(k, coming, true)
	v.weigh(c, len(s.passed.without(k.undoes(), coming[k])), s.opts.Guard.MinChanged)
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
