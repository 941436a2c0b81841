package syncer

import (
	"context"
	"errors"
	"github.com/usher-agent/usher/provision"
	"maps"
	"math/rand/v2"
	"time"
)

// The loop of polls. A poll is a whole fetch or one of the states alone. Polls of
// states go on while a whole fetch takes its time.

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

// plan chooses the time of the next poll. While a whole fetch runs that is one of states.
func (s *Syncer) plan(began time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.opts.PollInterval
	wait += time.Duration(float64(wait) * s.opts.PollJitter * (2*rand.Float64() - 1))
	next := began.Add(wait)
	failures := s.status.StateFailures
	if s.whole == nil {
		failures = max(failures, s.status.ConsecutiveFailures)
		if !s.fullDue.IsZero() && s.fullDue.Before(next) {
			next = s.fullDue
		}
	}
	if rest := s.pollEnded.Add(wait / 10); next.Before(rest) {
		next = rest // a fetch as long as the interval leaves the ERP some air
	}
	if failures > 0 {
		retry := s.pollEnded.Add(firstRetry << min(failures-1, 20))
		if retry.Before(next) {
			next = retry
		}
	}
	s.status.NextPoll = next
	return next
}

// kindLocked chooses what the poll that begins now reads. While the guard holds
// something that no operator rejected, every poll is a whole one: a second opinion on all of it.
// Beside a whole fetch that runs only states can be read.
func (s *Syncer) kindLocked(now time.Time) FetchKind {
	_, able := s.source.(StateFetcher)
	switch {
	case !able || s.Current() == nil:
		return FetchFull
	case s.whole != nil: // also the first one after a restart
		return FetchStates
	case s.wantFull:
		return FetchFull
	case s.status.ConsecutiveFailures > 0 || s.held != nil && s.held.verdict.NoRows:
		// States may be readable where something else is not, or tells nothing: take turns.
		if s.status.LastKind == FetchFull {
			return FetchStates
		}
		return FetchFull
	case s.held != nil && !s.held.status.Rejected, s.opts.RefreshInterval <= s.opts.PollInterval:
		return FetchFull
	case now.Before(s.nextFullLocked()):
		return FetchStates
	}
	return FetchFull
}

// nextFullLocked returns the time from which a poll is a whole fetch. The poll
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

// wholeFetch is the whole fetch that runs.
type wholeFetch struct {
	began    time.Time
	statesAt time.Time     // when states were read beside it last; zero: they were not
	done     chan struct{} // closed when its result is dealt with
}

// poll makes one fetch and deals with its result. A whole one goes on beside
// what follows: an answer that does not come must not keep states from being
// read. Where states cannot be read by themselves, nothing follows before its end.
func (s *Syncer) poll(ctx context.Context) {
	select { // a refresh asked for up to now is this very poll
	case <-s.wake:
	default:
	}
	states, able := s.source.(StateFetcher)
	s.mu.Lock()
	opts := s.opts
	kind, beside := s.kindLocked(time.Now()), s.whole != nil
	s.status.Fetching, s.status.NextPoll = true, time.Time{}
	s.mu.Unlock()

	read := kind == FetchStates && s.pollStates(ctx, states, opts)
	s.mu.Lock()
	s.status.Fetching = false
	var whole *wholeFetch
	switch {
	case read:
		s.endedLocked(FetchStates)
	case !beside:
		whole = s.beginWholeLocked(ctx, opts)
	case kind == FetchStates && !s.lastFull.IsZero():
		s.askFullLocked() // the one that runs began before there was a reason for it
	}
	s.mu.Unlock()
	if whole != nil && !able {
		<-whole.done
	}
}

// endedLocked notes that a poll ended.
func (s *Syncer) endedLocked(kind FetchKind) {
	s.status.LastKind, s.pollEnded = kind, time.Now()
}

// beginWholeLocked starts a whole fetch.
func (s *Syncer) beginWholeLocked(ctx context.Context, opts Options) *wholeFetch {
	s.wantFull, s.fullDue = false, time.Time{}
	s.whole = &wholeFetch{began: time.Now(), done: make(chan struct{})}
	whole := s.whole
	s.tasks.Go(func() {
		defer close(whole.done)
		s.pollFull(ctx, opts, whole)
	})
	return whole
}

// endWholeLocked makes way for the next poll.
func (s *Syncer) endWholeLocked() {
	s.whole = nil
	s.endedLocked(FetchFull)
	if s.wantFull {
		notify(s.wake)
	} else {
		notify(s.replan)
	}
}

// pollFull reads everything.
func (s *Syncer) pollFull(ctx context.Context, opts Options, whole *wholeFetch) {
	began := whole.began
	fctx, cancel := context.WithTimeout(ctx, opts.FetchTimeout)
	in, err := s.source.Fetch(fctx, s.Current())
	cancel()
	took := time.Since(began)
	var f fetched
	if err == nil {
		in.Subnets, in.Reserved, in.Pools, in.Relays, in.KeepVacant = opts.Subnets, opts.Reserved, opts.Pools, opts.Relays, opts.KeepVacant
		if in.FetchedAt.IsZero() || in.FetchedAt.After(began) {
			in.FetchedAt = began // what changed after this may be missing
		}
		f = fetched{kind: FetchFull, began: in.FetchedAt, first: in.FirstRead, statesKept: in.StatesKept, kept: in.StatesOfBefore}
		f.snap, f.problems = provision.Build(in)
		f.snap.Fingerprint() // before the lock is taken: it takes a while
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWholeLocked()
	s.status.LastFetchSeconds = took.Seconds()
	if err != nil {
		if ctx.Err() == nil {
			s.failedLocked(FetchFull, err, took)
		}
		return
	}
	statesAt := whole.statesAt // what changed until then is among the overrides
	if in.StatesKept {
		statesAt = s.statesAt // nothing newer is known of them
		if statesAt.Before(f.began) {
			f.began = statesAt
		}
		s.status.ConsecutiveFailures = 0
	} else {
		s.answeredLocked(FetchFull)
	}
	s.lastFull = began
	published := s.judgeLocked(f)
	if statesAt.After(s.statesAt) {
		s.statesAt = statesAt
	}
	s.obs.Fetched(FetchReport{Kind: FetchFull, Outcome: outcomeOf(published), Took: took, StatesKept: in.StatesKept})
}

// pollStates reads the states alone; it gives false if a whole fetch must be
// made instead. No whole fetch begins meanwhile, so one that runs beside it, or
// ends meanwhile, is older than what is read here.
func (s *Syncer) pollStates(ctx context.Context, source StateFetcher, opts Options) bool {
	began := time.Now()
	fctx, cancel := context.WithTimeout(ctx, opts.FetchTimeout)
	answer, err := s.fetchStates(fctx, source, began)
	cancel()
	took := time.Since(began)
	if errors.Is(err, ErrFetchFirst) {
		return false
	}
	published := err == nil && s.takeStates(answer, began)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastFetchSeconds = took.Seconds()
	if err != nil {
		if ctx.Err() == nil {
			s.failedLocked(FetchStates, err, took)
		}
		return true
	}
	s.obs.Fetched(FetchReport{Kind: FetchStates, Outcome: outcomeOf(published), Took: took})
	return true
}

// fetchStates reads the states alone. What lists tell comes into use before cards are waited for.
func (s *Syncer) fetchStates(ctx context.Context, source StateFetcher, began time.Time) (StatesAnswer, error) {
	early, able := source.(EarlyStates)
	if !able {
		return source.FetchStates(ctx, s.Current())
	}
	return early.FetchStatesEarly(ctx, s.Current(), func(a StatesAnswer) { s.takeStates(a, began) })
}

// takeStates puts what a poll of states that began then made into use, as far as the guard lets it pass; it reports whether that
// is all of it.
func (s *Syncer) takeStates(answer StatesAnswer, began time.Time) (all bool) {
	if answer.FetchedAt.IsZero() || answer.FetchedAt.After(began) {
		answer.FetchedAt = began
	}
	cur := s.Current()
	changed := differing(cur, answer.States)
	next := derive(cur, changed)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.answeredLocked(FetchStates)
	if answer.Refresh {
		s.askFullLocked()
	}
	if s.Current() != cur { // an override, a whole fetch that ended, or the operator accepted one meanwhile
		cur = s.Current()
		changed = differing(cur, answer.States)
		next = derive(cur, changed)
	}
	all = true
	f := fetched{kind: FetchStates, snap: next, began: answer.FetchedAt, first: answer.FirstRead, told: answer.States}
	switch {
	case s.held != nil:
		all = s.passBesideLocked(f)
	case s.overriddenLocked(next, answer.FetchedAt) == cur:
		if s.takeBack(&f, cur, nil) {
			notify(s.dirty)
		}
		s.settleLocked(answer.FetchedAt) // nothing changed: nobody needs to be told
	default:
		all = s.judgeLocked(f)
	}
	if s.whole != nil {
		maps.DeleteFunc(changed, func(id provision.SubscriberID, st provision.State) bool { return s.Current().State(id) != st }) // held
		s.keepLocked(changed, answer.FetchedAt)
		s.whole.statesAt = answer.FetchedAt
	}
	return all
}

// passBesideLocked puts that part of what a poll of states made into use which the guard lets pass, while it holds something of
// a whole fetch: on the rows only another whole one decides, and what is held of states by then is what this one found. It
// reports whether it passed as a whole.
func (s *Syncer) passBesideLocked(f fetched) (all bool) {
	now, cur := time.Now(), s.Current()
	candidate := s.overriddenLocked(f.snap, f.began)
	v := s.verdictLocked(f, candidate, now)
	if !v.NoRows {
		part := v.part(cur, candidate)
		s.passed.pass(v, &s.opts.Guard, passing{}, now)
		all = !v.Hold
		s.mergeLocked(f, v, now)
		s.putPartLocked(f, part)
	}
	return all
}

// differing returns the states that are others in cur.
func differing(cur *provision.Snapshot, states map[provision.SubscriberID]provision.State) map[provision.SubscriberID]provision.State {
	changed := make(map[provision.SubscriberID]provision.State)
	for id, st := range states {
		if sub, known := cur.Subscriber(id); !known || sub.State != st {
			changed[id] = st
		}
	}
	return changed
}

// derive returns cur with the states that differ, cur itself if none does.
func derive(cur *provision.Snapshot, changed map[provision.SubscriberID]provision.State) *provision.Snapshot {
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

func (s *Syncer) answeredLocked(kind FetchKind) {
	failures := s.status.StateFailures
	s.status.StateFailures = 0
	if kind == FetchFull {
		failures += s.status.ConsecutiveFailures
		s.status.ConsecutiveFailures = 0
	}
	if failures > 0 {
		s.log.Info("the ERP answers again", "kind", kind, "failures", failures)
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
