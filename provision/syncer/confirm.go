package syncer

import (
	"context"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Rows that the guard holds, confirmed by the subscriber's own card, which a hint led to. The states on it are applied by themselves.

// rowKinds are the changes of rows: of addresses, ports and subnets.
var rowKinds = []ChangeKind{ChangeRemoved, ChangeMoved, ChangeAdded}

// heldRowsLocked returns those of ids whose rows are held.
func (s *Syncer) heldRowsLocked(ids []provision.SubscriberID) []provision.SubscriberID {
	if s.held == nil || s.held.verdict.NoRows {
		return nil
	}
	var out []provision.SubscriberID
	for _, id := range ids {
		if s.held.rowKind(id) != "" {
			out = append(out, id)
		}
	}
	return out
}

// rowKind returns how the rows of a subscriber would change that are held; empty: none are.
func (h *heldFetch) rowKind(id provision.SubscriberID) ChangeKind {
	for _, k := range rowKinds {
		if h.verdict.held.has(k, id) {
			return k
		}
	}
	return ""
}

// confirmRows asks for the card of one subscriber whose rows are held: if it has other addresses than are in use, and those of the
// held fetch, that one passes. A port or a MAC alone waits for the operator. A card that cannot be read says neither, and is asked for
// again. It gives false if none waits.
func (s *Syncer) confirmRows(ctx context.Context, source CustomerFetcher) bool {
	id, before, some := s.hints.takeHeld(time.Now())
	if !some {
		return false
	}
	s.mu.Lock()
	h, cur, timeout := s.held, s.Current(), s.opts.FetchTimeout
	var held *provision.Snapshot
	if h != nil {
		held = h.snap
	}
	waits := len(s.heldRowsLocked([]provision.SubscriberID{id})) > 0
	s.mu.Unlock()
	differs := func(prev *provision.Snapshot) (yes, told bool) {
		fctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		answer, err := source.FetchCustomers(fctx, []provision.SubscriberID{id}, prev)
		if _, told = answer.States[id]; !told || err != nil {
			s.hints.failedHeld(id, before, err == nil, time.Now())
			return false, false
		}
		return answer.Refresh, true
	}
	if !waits {
		return true // nothing of it is held any more
	}
	if yes, told := differs(cur); !told || !yes {
		return true
	}
	if yes, told := differs(held); !told || yes {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.held {
	case h:
		s.releaseLocked(id)
	case nil:
	default: // another fetch came meanwhile
		s.hints.addHeld(s.heldRowsLocked([]provision.SubscriberID{id})...)
	}
	return true
}

// releaseLocked lets the rows of one subscriber pass, unless cards did so for more than the limit within the hour.
func (s *Syncer) releaseLocked(id provision.SubscriberID) {
	h, now := s.held, time.Now()
	k := h.rowKind(id)
	if k == "" {
		return
	}
	one := changes{k: {id}}
	if over, _ := s.cardsOverLocked(k, one, now); over {
		return
	}
	h.verdict.release(k, id)
	cur := s.Current()
	part := h.verdict.part(cur, s.overriddenLocked(h.snap, h.began))
	if !h.verdict.holds(k, id) { // else it would get an address of another who is held
		s.rejected.drop(k, id)
		s.passed.pass(&verdict{changes: one}, &s.opts.Guard, passing{card: true}, now)
		s.log.Info("a customer's card confirms what the guard held", "customer", id, "change", k)
	}
	s.putPartLocked(h.fetched, part)
	s.lessHeldLocked()
}
