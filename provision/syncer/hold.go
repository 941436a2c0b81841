package syncer

import (
	"fmt"
	"github.com/usher-agent/usher/provision"
	"time"
)

// heldFetch is the newest fetch that the guard holds.
type heldFetch struct {
	fetched
	status HeldStatus
}

// fetched is what a poll made of the ERP's answer, without overrides.
type fetched struct {
	kind     FetchKind
	snap     *provision.Snapshot
	problems []provision.Problem // of FetchFull
	began    time.Time           // when its states were read
}

// judgeLocked lets the guard decide on a fetch and publishes or holds it.
func (s *Syncer) judgeLocked(f fetched) (published bool) {
	candidate := s.overriddenLocked(f.snap, f.began)
	// Not with what is in use: many hints would add up to what the guard is there
	// to hold, some customers at a time.
	decision := Compare(s.approved, candidate, s.opts.Guard)
	if !decision.Hold {
		s.clearHeldLocked()
		if f.kind == FetchFull { // the states alone do not tell whether the rest is another one now
			s.rejected = 0
		}
		s.putLocked(f, candidate)
		return true
	}

	fingerprint := f.snap.Fingerprint()
	same := s.held != nil && s.held.snap.Fingerprint() == fingerprint
	held := &heldFetch{fetched: f, status: HeldStatus{
		Fingerprint: fmt.Sprintf("%016x", fingerprint), FetchedAt: f.began, Since: time.Now(), Seen: 1,
		AcceptAfter: s.opts.Guard.AcceptAfter, Rejected: s.rejected == fingerprint && s.rejected != 0,
		Source: f.snap.Source(), Kind: f.kind, Counts: f.snap.Counts(), Decision: decision,
	}}
	if same {
		held.status.Since, held.status.Seen = s.held.status.Since, s.held.status.Seen+1
	}
	if !held.status.Rejected && f.kind == FetchFull {
		s.rejected = 0 // the ERP says something else now
	}
	if s.oftenEnoughLocked(&held.status) {
		s.log.Warn("guard accepts the answer because it came often enough",
			"seen", held.status.Seen, "reason", decision.Reason, "fingerprint", held.status.Fingerprint)
		s.clearHeldLocked()
		s.putLocked(f, candidate)
		return true
	}
	s.held = held
	s.obs.Held(held.copy())
	if !same && !held.status.Rejected {
		s.log.Warn("guard holds a fetch, the last good snapshot stays in use; see usher guard show",
			"reason", decision.Reason, "kind", f.kind, "fingerprint", held.status.Fingerprint, "rows", f.snap.Len())
	}
	if !decision.NoRows {
		s.letInLocked(candidate, f.began)
	}
	return false
}

// letInLocked opens whom a held fetch found active. The guard is there against
// harm, and who has paid need not wait for what becomes of the others.
func (s *Syncer) letInLocked(candidate *provision.Snapshot, began time.Time) {
	open := make(map[provision.SubscriberID]provision.State)
	for _, sub := range s.Current().Subscribers() {
		if sub.State.Blocks() && candidate.State(sub.ID) == provision.StateActive {
			open[sub.ID] = provision.StateActive
		}
	}
	if len(open) > 0 {
		s.putHintsLocked(StatesAnswer{States: open, FetchedAt: began}, s.withLocked(open, began))
	}
}

// putLocked puts what a fetch made, with overrides, into use.
func (s *Syncer) putLocked(f fetched, candidate *provision.Snapshot) {
	s.approved = candidate
	if f.kind == FetchFull {
		s.publishLocked(candidate, f.problems)
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

func (h *heldFetch) copy() *HeldStatus {
	if h == nil {
		return nil
	}
	c := h.status
	c.Decision = c.Decision.clone()
	return &c
}

func (s *Syncer) clearHeldLocked() {
	if s.held != nil {
		s.held = nil
		s.obs.Held(nil)
	}
}

// Accept publishes the newest fetch that the guard holds, even one without
// rows: the operator has seen what it does. ErrNothingHeld if there is none.
func (s *Syncer) Accept() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held
	if h == nil {
		return ErrNothingHeld
	}
	s.log.Warn("operator accepts the held fetch", "reason", h.status.Decision.Reason, "fingerprint", h.status.Fingerprint)
	s.clearHeldLocked()
	s.rejected = 0
	candidate := s.overriddenLocked(h.snap, h.began)
	if h.kind == FetchFull {
		candidate = candidate.Accept(time.Now()) // the operator has seen it now, and means it
	}
	s.putLocked(h.fetched, candidate)
	return nil
}

// Reject drops the held fetch and remembers its content. While the ERP goes on
// to say the same, each fetch is held and counted as before, but marked as
// rejected, not logged, and never accepted by repetition; Accept still can. As
// soon as the ERP says anything else, the mark is forgotten. ErrNothingHeld if
// no fetch is held.
func (s *Syncer) Reject() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held
	if h == nil {
		return ErrNothingHeld
	}
	s.log.Warn("operator rejects the held fetch", "reason", h.status.Decision.Reason, "fingerprint", h.status.Fingerprint)
	s.rejected = h.snap.Fingerprint()
	s.clearHeldLocked()
	return nil
}

// GuardStatus tells what the guard holds.
func (s *Syncer) GuardStatus() GuardStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return GuardStatus{Limits: s.opts.Guard, Held: s.held.copy()}
}
