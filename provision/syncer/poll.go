package syncer

import (
	"context"
	"errors"
	"github.com/usher-agent/usher/provision"
	"math/rand/v2"
	"time"
)

// The loop of polls. A poll is a whole fetch or one of the states alone.

// rest waits for the next poll; it gives false when ctx has ended.
func (s *Syncer) rest(ctx context.Context, began time.Time) bool {
	for {
		timer := time.NewTimer(time.Until(s.plan(began)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-s.replan:
			timer.Stop()
			continue
		case <-s.wake:
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Until(began.Add(refreshGap))):
			return true
		}
	}
}

// plan chooses the time of the next poll.
func (s *Syncer) plan(began time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.opts.PollInterval
	wait += time.Duration(float64(wait) * s.opts.PollJitter * (2*rand.Float64() - 1))
	next := began.Add(wait)
	if !s.fullDue.IsZero() && s.fullDue.Before(next) {
		next = s.fullDue
	}
	if rest := s.pollEnded.Add(wait / 10); next.Before(rest) {
		next = rest // a fetch as long as the interval leaves the ERP some air
	}
	if n := max(s.status.ConsecutiveFailures, s.status.StateFailures); n > 0 {
		retry := s.pollEnded.Add(firstRetry << min(n-1, 20))
		if retry.Before(next) {
			next = retry
		}
	}
	s.status.NextPoll = next
	return next
}

// kindLocked chooses what the poll that begins now reads. While the guard holds
// something, every poll is a whole one: a second opinion on all of it.
func (s *Syncer) kindLocked(now time.Time) FetchKind {
	_, able := s.source.(StateFetcher)
	switch {
	case !able || s.opts.RefreshInterval <= s.opts.PollInterval || s.lastFull.IsZero() || s.wantFull || s.held != nil:
		return FetchFull
	case s.status.ConsecutiveFailures > 0:
		// States may be readable where something else is not: take turns.
		if s.status.LastKind == FetchFull {
			return FetchStates
		}
		return FetchFull
	case now.Before(s.nextFullLocked()):
		return FetchStates
	}
	return FetchFull
}

// nextFullLocked gives the time from which a poll is a whole fetch. The poll
// nearest to the end of the interval is taken.
func (s *Syncer) nextFullLocked() time.Time {
	if s.lastFull.IsZero() {
		return time.Time{}
	}
	next := s.lastFull.Add(max(s.opts.RefreshInterval-s.opts.PollInterval/2, 0))
	if !s.fullDue.IsZero() && s.fullDue.Before(next) {
		next = s.fullDue
	}
	return next
}

// poll makes one fetch and deals with its result.
func (s *Syncer) poll(ctx context.Context) {
	select { // a refresh asked for up to now is this very poll
	case <-s.wake:
	default:
	}
	s.mu.Lock()
	opts := s.opts
	kind := s.kindLocked(time.Now())
	s.status.Fetching, s.status.NextPoll = true, time.Time{}
	s.mu.Unlock()

	if kind == FetchStates && !s.pollStates(ctx, opts) {
		kind = FetchFull
	}
	if kind == FetchFull {
		s.pollFull(ctx, opts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Fetching, s.status.LastKind = false, kind
	s.pollEnded = time.Now()
}

// pollFull reads everything.
func (s *Syncer) pollFull(ctx context.Context, opts Options) {
	s.mu.Lock()
	s.wantFull, s.fullDue = false, time.Time{}
	s.mu.Unlock()
	began := time.Now()
	fctx, cancel := context.WithTimeout(ctx, opts.FetchTimeout)
	in, err := s.source.Fetch(fctx, s.Current())
	cancel()
	took := time.Since(began)
	var f fetched
	if err == nil {
		in.Subnets, in.Reserved, in.Pools, in.KeepVacant = opts.Subnets, opts.Reserved, opts.Pools, opts.KeepVacant
		if in.FetchedAt.IsZero() || in.FetchedAt.After(began) {
			in.FetchedAt = began // what changed after this may be missing
		}
		f = fetched{kind: FetchFull, began: in.FetchedAt}
		f.snap, f.problems = provision.Build(in)
		f.snap.Fingerprint() // before the lock is taken: it takes a while
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastFetchSeconds = took.Seconds()
	if err != nil {
		if ctx.Err() == nil {
			s.failedLocked(FetchFull, err, took)
		}
		return
	}
	if in.StatesKept {
		f.began = s.statesAt // nothing newer is known of them
	} else {
		s.answeredLocked()
		s.status.StateFailures = 0
	}
	s.status.ConsecutiveFailures = 0
	s.lastFull = began
	s.obs.Fetched(FetchReport{Kind: FetchFull, Outcome: outcomeOf(s.judgeLocked(f)), Took: took, StatesKept: in.StatesKept})
}

// pollStates reads the states alone; it gives false if a whole fetch must be
// made instead.
func (s *Syncer) pollStates(ctx context.Context, opts Options) bool {
	began := time.Now()
	cur := s.Current()
	fctx, cancel := context.WithTimeout(ctx, opts.FetchTimeout)
	answer, err := s.source.(StateFetcher).FetchStates(fctx, cur)
	cancel()
	took := time.Since(began)
	if errors.Is(err, ErrFetchFirst) {
		return false
	}
	if answer.FetchedAt.IsZero() || answer.FetchedAt.After(began) {
		answer.FetchedAt = began
	}
	var next *provision.Snapshot
	if err == nil {
		next = derive(cur, answer.States)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastFetchSeconds = took.Seconds()
	if err != nil {
		if ctx.Err() == nil {
			s.failedLocked(FetchStates, err, took)
		}
		return true
	}
	s.answeredLocked()
	s.status.StateFailures = 0
	if answer.Refresh {
		s.askFullLocked()
	}
	if s.Current() != cur { // an override, or the operator accepted a fetch meanwhile
		cur = s.Current()
		next = derive(cur, answer.States)
	}
	published := true
	if s.overriddenLocked(next, answer.FetchedAt) == cur {
		s.settleLocked(answer.FetchedAt) // nothing changed: nobody needs to be told
	} else {
		published = s.judgeLocked(fetched{kind: FetchStates, snap: next, began: answer.FetchedAt})
	}
	s.obs.Fetched(FetchReport{Kind: FetchStates, Outcome: outcomeOf(published), Took: took})
	return true
}

// derive gives cur with the states that differ, cur itself if none does.
func derive(cur *provision.Snapshot, states map[provision.SubscriberID]provision.State) *provision.Snapshot {
	changed := make(map[provision.SubscriberID]provision.State)
	for id, st := range states {
		if sub, known := cur.Subscriber(id); !known || sub.State != st {
			changed[id] = st
		}
	}
	if len(changed) == 0 {
		return cur
	}
	return cur.WithStates(changed)
}

// askFullLocked asks for a whole fetch soon, but not sooner than a poll interval
// after the last one began: hints must not become a flood of whole fetches.
func (s *Syncer) askFullLocked() {
	if !s.fullDue.IsZero() {
		return
	}
	s.fullDue = time.Now()
	if soonest := s.lastFull.Add(s.opts.PollInterval); s.fullDue.Before(soonest) {
		s.fullDue = soonest
	}
	notify(s.replan)
}

func outcomeOf(published bool) FetchOutcome {
	if published {
		return FetchPublished
	}
	return FetchHeld
}

func (s *Syncer) answeredLocked() {
	if n := s.status.ConsecutiveFailures + s.status.StateFailures; n > 0 {
		s.log.Info("the ERP answers again", "failures", n)
	}
}

func (s *Syncer) failedLocked(kind FetchKind, err error, took time.Duration) {
	failures := &s.status.ConsecutiveFailures
	if kind == FetchStates {
		failures = &s.status.StateFailures
	}
	*failures++
	s.status.LastError, s.status.LastErrorAt = err.Error(), time.Now()
	s.obs.Fetched(FetchReport{Kind: kind, Outcome: FetchFailed, Took: took, Err: err})
	s.log.Warn("fetch from the ERP failed, the last good snapshot stays in use",
		"kind", kind, "error", err, "failures", *failures, "snapshot_rows", s.Current().Len())
}
