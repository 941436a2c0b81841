package syncer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// ErrNothingHeld says that the guard holds no fetch.
var ErrNothingHeld = errors.New("the guard holds nothing")

// OtherHeldError says that what the guard holds is not what was decided on.
type OtherHeldError struct{ Fingerprint string }

// Error names what is held.
func (e *OtherHeldError) Error() string {
	return fmt.Sprintf("the guard holds another answer by now (%s), look at it first", e.Fingerprint)
}

// heldFetch is the newest fetch of which the guard holds something.
type heldFetch struct {
	fetched
	verdict     *verdict
	fingerprint uint64 // of what is held
	status      HeldStatus
}

// fetched is what a poll made of the ERP's answer, without overrides.
type fetched struct {
	kind     FetchKind
	snap     *provision.Snapshot
	problems []provision.Problem // of FetchFull
	began    time.Time           // when its states were read
	first    []provision.SubscriberID

	statesKept bool                                       // the ERP told none
	told       map[provision.SubscriberID]provision.State // of FetchStates
	kept       []provision.SubscriberID                   // of FetchFull: of whom the ERP told no state; sorted
}

// untold reports whether the ERP did not tell the state of a subscriber: the one of before stands.
func (f *fetched) untold(id provision.SubscriberID) bool {
	if f.kind == FetchFull {
		_, in := slices.BinarySearch(f.kept, id)
		return in
	}
	_, told := f.told[id]
	return !told
}

// judgeLocked lets the guard decide on a fetch. What it does not hold comes into use at once: a kind of change that is over
// its limit keeps back its own subscribers alone. It reports whether that is all of the fetch.
func (s *Syncer) judgeLocked(f fetched) (all bool) {
	now := time.Now()
	candidate := s.overriddenLocked(f.snap, f.began)
	v := s.verdictLocked(f, candidate, now)
	carried := s.carryLocked(&f, v)
	if len(carried) > 0 {
		f.snap, candidate = f.snap.WithStates(carried), candidate.WithStates(carried)
	}
	if !v.Hold {
		s.clearHeldLocked()
		s.passed.pass(v, &s.opts.Guard, passing{}, now)
		s.putLocked(f, candidate)
		return true
	}

	part := s.Current() // of a fetch without rows
	if !v.NoRows {
		if part == nil {
			part = s.known.before()
		}
		part = v.part(part, candidate)
		s.passed.pass(v, &s.opts.Guard, passing{}, now)
	}
	held := s.newHeldLocked(f, v, now)
	if len(carried) > 0 && held.status.Seen > 1 {
		held.status.Seen-- // of those it says nothing
	}
	if yes, all := s.acceptableLocked(v); len(yes) > 0 && s.oftenEnoughLocked(&held.status) {
		s.log.Warn("guard accepts the answer because it came often enough",
			"seen", held.status.Seen, "reason", v.Reason, "fingerprint", held.status.Fingerprint)
		if all {
			s.acceptLocked(held, candidate)
			return true
		}
		s.acceptSomeLocked(v, yes, candidate, now)
		part = v.part(s.Current(), candidate)
		held = s.newHeldLocked(f, v, now)
	}
	if held.status.Seen == 1 && !held.status.Rejected {
		s.tellHeldLocked(held)
	}
	s.held = held
	s.watchOpeningsLocked(now)
	s.obs.Held(s.heldStatusLocked())
	if !v.NoRows {
		s.putPartLocked(f, part)
	}
	return false
}

// verdictLocked judges what a fetch makes of the snapshot in use, and forgets what the ERP has taken back by it.
func (s *Syncer) verdictLocked(f fetched, candidate *provision.Snapshot, now time.Time) *verdict {
	s.passed.expire(now)
	cur := s.Current()
	v := judge(cur, candidate, f.first, &s.known, &s.opts.Guard, s.opts.OwnMAC, now)
	if !v.NoRows && s.takeBack(&f, cur, v.changes) { // else nothing is said of anybody
		notify(s.dirty)
		v = judge(cur, candidate, f.first, &s.known, &s.opts.Guard, s.opts.OwnMAC, now)
	}
	return v
}

// stateKinds are the changes of states.
var stateKinds = []ChangeKind{ChangeBlocked, ChangeOpened}

// carryLocked has what is held of states stay held where an answer tells nothing of it: v is the verdict on that. It returns what
// those customers would become.
func (s *Syncer) carryLocked(f *fetched, v *verdict) map[provision.SubscriberID]provision.State {
	if s.held == nil {
		return nil
	}
	h, cur := s.held.verdict, s.Current()
	states := make(map[provision.SubscriberID]provision.State)
	for _, k := range stateKinds {
		var ids, rejected []provision.SubscriberID
		for _, id := range h.held[k] {
			if !f.statesKept && !v.NoRows && !f.untold(id) || v.held.has(k, id) || !wants(k, id, cur, s.held.snap, nil) {
				continue
			}
			ids, states[id] = append(ids, id), s.held.snap.State(id)
			if s.rejected[k][id] {
				rejected = append(rejected, id)
			}
		}
		if len(ids) == 0 {
			continue
		}
		v.held[k], v.rejected[k] = union(v.held[k], ids), union(v.rejected[k], rejected)
		if c := v.Of(k); !c.Over && len(v.undecided(k)) > 0 {
			*c = *h.Of(k)
		}
		if k == ChangeOpened {
			v.closed = union(v.closed, h.closed)
		}
	}
	v.explain()
	return states
}

// union returns those of two sorted lists, sorted.
func union(a, b []provision.SubscriberID) []provision.SubscriberID {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// mergeLocked has what a poll of states found held stand beside what is held of rows: v is the verdict on it.
func (s *Syncer) mergeLocked(f fetched, v *verdict, now time.Time) {
	h := s.held
	states := s.carryLocked(&f, v)
	for id, st := range differing(h.snap, f.told) {
		states[id] = st
	}
	for _, k := range stateKinds {
		h.verdict.held[k], h.verdict.rejected[k], *h.verdict.Of(k) = v.held[k], v.rejected[k], *v.Of(k)
	}
	h.verdict.closed = v.closed
	if len(states) > 0 {
		h.snap = h.snap.WithStates(states)
	}
	if was := h.fingerprint; !s.tellChangedLocked() || h.fingerprint == was {
		return
	}
	if h.status.Seen = 1; !h.status.Rejected {
		s.tellHeldLocked(h)
	}
	s.watchOpeningsLocked(now)
}

// acceptableLocked returns what of a verdict may pass because it came often enough, and whether that is all that is held: not what an
// operator rejected, nor openings that cards contradict, on which each customer's own card decides.
func (s *Syncer) acceptableLocked(v *verdict) (yes changes, all bool) {
	yes, all = changes{}, true
	for _, k := range changeKinds {
		ids := v.undecided(k)
		if k == ChangeOpened && len(s.contradicted) > 0 {
			ids = nil
		}
		if len(ids) > 0 {
			yes[k] = ids
		}
		all = all && len(ids) == len(v.held[k])
	}
	return yes, all
}

// acceptSomeLocked lets pass a part of what is held.
func (s *Syncer) acceptSomeLocked(v *verdict, yes changes, candidate *provision.Snapshot, now time.Time) {
	for k, ids := range yes {
		v.held[k] = lessThose(slices.Clone(v.held[k]), ids)
		v.Of(k).Over = false
	}
	v.explain()
	s.passed.pass(&verdict{changes: yes}, &s.opts.Guard, passing{free: true, word: true}, now)
	s.keepBesideLocked(statesOf(yes, candidate))
}

// statesOf returns what those become who are blocked or opened.
func statesOf(of changes, candidate *provision.Snapshot) map[provision.SubscriberID]provision.State {
	states := make(map[provision.SubscriberID]provision.State)
	for _, id := range slices.Concat(of[ChangeBlocked], of[ChangeOpened]) {
		states[id] = candidate.State(id)
	}
	return states
}

// putPartLocked puts that part of a fetch into use which is not held.
func (s *Syncer) putPartLocked(f fetched, part *provision.Snapshot) {
	switch cur := s.Current(); {
	case part == cur:
		s.settleLocked(f.began)
	case part.FetchedAt().Equal(cur.FetchedAt()): // states alone
		s.settleLocked(f.began)
		s.installLocked(part, s.status.Problems)
	default:
		s.putLocked(f, part)
	}
}

// newHeldLocked describes what is held of a fetch.
func (s *Syncer) newHeldLocked(f fetched, v *verdict, now time.Time) *heldFetch {
	held := &heldFetch{fetched: f, verdict: v, fingerprint: v.fingerprint(f.snap), status: HeldStatus{
		FetchedAt: f.began, Since: now, Seen: 1, AcceptAfter: s.opts.Guard.AcceptAfter,
		Source: f.snap.Source(), Kind: f.kind, Counts: f.snap.Counts(), Decision: v.GuardDecision,
	}}
	held.status.Fingerprint = fmt.Sprintf("%016x", held.fingerprint)
	s.blameLocked(v, s.overriddenLocked(f.snap, f.began))
	held.status.Rejected = v.isRejected()
	if s.held != nil && s.held.fingerprint == held.fingerprint {
		held.status.Since, held.status.Seen = s.held.status.Since, s.held.status.Seen+1
	}
	return held
}

func (s *Syncer) tellHeldLocked(h *heldFetch) {
	level, what := slog.LevelWarn, "guard holds changes, the rest of the answer is in use; see usher guard show"
	switch d := &h.verdict.GuardDecision; {
	case d.NoRows:
		what = "guard holds a fetch, the last good snapshot stays in use; see usher guard show"
	case !d.Removed.Over && !d.Moved.Over && !d.Blocked.Over && !d.Added.Over:
		level, what = slog.LevelInfo, "guard asks for some cards before it lets more customers in than usual"
	}
	s.log.Log(context.Background(), level, what, "reason", h.verdict.Reason, "sources", h.sources(), "kind", h.kind, "fingerprint", h.status.Fingerprint, "rows", h.snap.Len())
}

// sources returns the sources of the ERP of which something is held.
func (h *heldFetch) sources() []SourceName {
	return slices.DeleteFunc(SourceNames(), func(name SourceName) bool { return !h.verdict.holdsOf(name) })
}

// part returns candidate with those whose changes are held as they are in cur; cur itself if that is all the difference. If
// only states pass, the rows stay those of cur, and are of an earlier fetch: what is held is nobody's word yet.
func (v *verdict) part(cur, candidate *provision.Snapshot) *provision.Snapshot {
	gone := slices.Concat(v.held[ChangeRemoved], v.held[ChangeAdded]) // as a whole
	next, beside := candidate.Keeping(cur, slices.Concat(gone, v.held[ChangeMoved]), slices.Concat(gone, v.held[ChangeBlocked], v.held[ChangeOpened]))
	v.beside = beside
	if next.Fingerprint() == cur.Fingerprint() {
		return cur
	}
	if states := cur.WithStatesOf(next); states.Fingerprint() == next.Fingerprint() {
		return states
	}
	return next
}

// fingerprint is a hash of what is held: whose changes, and to what. Changes that pass are not in it, so it stays the same
// while the ERP goes on to say the same of those.
func (v *verdict) fingerprint(candidate *provision.Snapshot) uint64 {
	h := fnv.New64a()
	var b []byte
	flush := func() {
		_, _ = h.Write(b) // never fails
		b = b[:0]
	}
	for _, c := range v.list(candidate) {
		b = append(b, c.Change...)
		if c.Rejected {
			b = append(b, '!') // who looked before it was rejected did not see this
		}
		b = binary.BigEndian.AppendUint64(b, uint64(c.Subscriber))
		b = append(b, byte(c.State))
		if c.Change == ChangeMoved || c.Change == ChangeAdded {
			for l := range candidate.BySubscriber(c.Subscriber).All() {
				b = binary.BigEndian.AppendUint64(b, uint64(l.Device))
				b = binary.BigEndian.AppendUint32(b, l.Port)
				b = append(b, l.PortName...)
				b = binary.BigEndian.AppendUint16(b, l.VLAN)
				b = append(b, l.MAC[:]...)
				for _, a := range l.Addresses {
					b = a.Prefix.AppendTo(b)
				}
			}
			for _, n := range candidate.SubnetsOf(c.Subscriber) {
				b = n.Prefix.AppendTo(b)
			}
		}
		flush()
	}
	return h.Sum64()
}

// putLocked puts what a fetch made, with overrides, into use.
func (s *Syncer) putLocked(f fetched, candidate *provision.Snapshot) {
	if f.kind == FetchFull {
		s.publishLocked(candidate, f.problems, f.began)
		return
	}
	s.settleLocked(f.began)
	s.installLocked(candidate, s.status.Problems) // rows and their problems are the same
}

// oftenEnoughLocked reports whether a held answer is accepted by repetition. It
// must also have lasted for about as many polls, so that a burst of Refresh calls
// does not pass for patience.
func (s *Syncer) oftenEnoughLocked(h *HeldStatus) bool {
	k := s.opts.Guard.AcceptAfter
	lasted := time.Since(h.Since) >= time.Duration(k-1)*s.opts.PollInterval/2
	return k > 0 && h.Seen >= k && lasted && !h.Decision.NoRows && !h.Rejected
}

// acceptLocked puts all of a fetch into use. What was held of it counts for nothing in the hour to come.
func (s *Syncer) acceptLocked(h *heldFetch, candidate *provision.Snapshot) {
	s.clearHeldLocked()
	s.passed.pass(&verdict{changes: h.verdict.held}, &s.opts.Guard, passing{free: true, word: true}, time.Now())
	s.keepBesideLocked(statesOf(h.verdict.held, candidate))
	s.putLocked(h.fetched, candidate)
}

// keepBesideLocked has states that come into use now outlive a whole fetch that runs: it may have taken over those of before.
func (s *Syncer) keepBesideLocked(states map[provision.SubscriberID]provision.State) {
	if s.whole != nil {
		s.keepLocked(states, time.Now())
	}
}

func (s *Syncer) clearHeldLocked() {
	s.openings = nil
	if s.held != nil {
		s.held = nil
		s.obs.Held(nil)
	}
}

// heldStatusLocked returns a copy of what is told of the held fetch, nil if there is none.
func (s *Syncer) heldStatusLocked() *HeldStatus {
	if s.held == nil {
		return nil
	}
	c := s.held.status
	c.Decision = c.Decision.clone()
	if s.openings != nil {
		c.Openings = s.openings.copy()
	}
	return &c
}

// heldLocked returns the held fetch, if its fingerprint is the one wanted; empty: any.
func (s *Syncer) heldLocked(fingerprint string) (*heldFetch, error) {
	switch h := s.held; {
	case h == nil:
		return nil, ErrNothingHeld
	case fingerprint != "" && fingerprint != h.status.Fingerprint:
		return nil, &OtherHeldError{h.status.Fingerprint}
	default:
		return h, nil
	}
}

// Accept publishes the newest fetch of which the guard holds something, even one without
// rows: the operator has seen what it does. With a fingerprint only what has that is accepted, else the error
// is an *OtherHeldError; ErrNothingHeld if nothing is held. It returns what was held, also with an error.
func (s *Syncer) Accept(fingerprint string) (*HeldStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.heldStatusLocked()
	h, err := s.heldLocked(fingerprint)
	if err != nil {
		return was, err
	}
	s.log.Warn("operator accepts the held fetch", "reason", h.status.Decision.Reason, "fingerprint", h.status.Fingerprint)
	for k, ids := range h.verdict.held {
		s.rejected.drop(k, ids...)
	}
	for _, id := range h.verdict.held[ChangeOpened] {
		delete(s.contradicted, id) // the operator has the last word
	}
	s.noRows = false
	notify(s.dirty)
	candidate := s.overriddenLocked(h.snap, h.began)
	if h.kind == FetchFull {
		candidate = candidate.Accept(time.Now()) // the operator has seen it now, and means it
	}
	s.acceptLocked(h, candidate)
	return was, nil
}

// Reject drops what is held and remembers each of these changes, over restarts too. They are held from then on, whatever
// the limits, while all other changes are judged by themselves: not logged, never accepted by repetition, and let in by no cards of
// others. What the ERP takes back is forgotten, each change by itself, and Accept still can put them into use; of an answer without
// rows it is remembered until one with rows comes. Fingerprint, result and errors are as with Accept.
func (s *Syncer) Reject(fingerprint string) (*HeldStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.heldStatusLocked()
	h, err := s.heldLocked(fingerprint)
	if err != nil {
		return was, err
	}
	s.log.Warn("operator rejects the held fetch", "reason", h.status.Decision.Reason, "fingerprint", h.status.Fingerprint)
	if s.noRows = h.verdict.NoRows; !s.noRows {
		for k, ids := range h.verdict.held {
			s.rejected.add(k, ids...)
		}
	}
	s.clearHeldLocked()
	notify(s.dirty)
	return was, nil
}
