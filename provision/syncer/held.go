package syncer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// HeldChange is one change that the guard holds.
type HeldChange struct {
	Subscriber provision.SubscriberID `json:"subscriber"`
	Change     ChangeKind             `json:"change"`
	State      provision.State        `json:"state,omitzero"` // of one who is blocked or opened: what it would be
	// Source is set of one who would be blocked by another source than SourceStates, flags or former, and of one who would lose a
	// subnet, and nothing else, by the cards: subnets.
	Source SourceName `json:"source,omitempty"`
	// Because is set where the change is held for the sake of another subscriber, who would lose an address or a subnet
	// to this one.
	Because provision.SubscriberID `json:"because,omitempty"`
	// Rejected is set where an operator said no to it, and the ERP did not take it back since.
	Rejected bool `json:"rejected,omitempty"`
}

// Text says in words what would happen.
func (c HeldChange) Text() string {
	text := map[ChangeKind]string{
		ChangeRemoved: "would lose its addresses", ChangeMoved: "would get other addresses, or another port, VLAN or MAC",
		ChangeOpened: "would be let in", ChangeAdded: "would get its first address",
	}[c.Change]
	if c.Change == ChangeBlocked {
		text = map[provision.State]string{provision.StatePause: "would be paused", provision.StateStop: "would be stopped"}[c.State]
		if text == "" {
			text = "would be blocked"
		}
	}
	switch c.Source {
	case SourceFlags:
		text += " by the flags on its card"
	case SourceFormer:
		text += " by the list of former customers"
	case SourceSubnets:
		text = "would lose a subnet"
	}
	if c.Because != 0 {
		text += fmt.Sprintf(", with one of customer %d", c.Because)
	}
	return text
}

// list returns what is held, by kind and subscriber. candidate says to what.
func (v *verdict) list(candidate *provision.Snapshot) []HeldChange {
	var out []HeldChange
	for _, k := range changeKinds {
		for _, id := range v.held[k] {
			out = append(out, v.change(k, id, candidate))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.beside)) {
		out = append(out, v.besideChange(id))
	}
	return out
}

// of returns what is held of one subscriber.
func (v *verdict) of(id provision.SubscriberID, candidate *provision.Snapshot) []HeldChange {
	var out []HeldChange
	for _, k := range changeKinds {
		if v.held.has(k, id) {
			out = append(out, v.change(k, id, candidate))
		}
	}
	if _, beside := v.beside[id]; beside {
		out = append(out, v.besideChange(id))
	}
	return out
}

func (v *verdict) change(k ChangeKind, id provision.SubscriberID, candidate *provision.Snapshot) HeldChange {
	c := HeldChange{Subscriber: id, Change: k, Rejected: v.allNo || v.rejected.has(k, id)}
	if k == ChangeBlocked || k == ChangeOpened {
		c.State = candidate.State(id)
	}
	if name := v.blamed(id); k == ChangeBlocked && name != SourceStates {
		c.Source = name
	}
	if _, alone := slices.BinarySearch(v.nets, id); alone && k == ChangeMoved {
		c.Source = SourceSubnets
	}
	return c
}

func (v *verdict) besideChange(id provision.SubscriberID) HeldChange {
	c := HeldChange{Subscriber: id, Change: ChangeMoved, Because: v.beside[id]}
	if v.changes.has(ChangeAdded, id) {
		c.Change = ChangeAdded
	}
	return c
}

// lessHeldLocked tells what is held after some of it came into use.
func (s *Syncer) lessHeldLocked() {
	h := s.held
	for _, k := range changeKinds {
		c := h.verdict.Of(k)
		c.Over = c.Over && len(h.verdict.undecided(k)) > 0
	}
	if len(h.verdict.held[ChangeOpened]) == 0 {
		h.verdict.closed = nil
	}
	s.tellChangedLocked()
}

// tellChangedLocked tells what is held after its verdict changed; false if nothing is any more.
func (s *Syncer) tellChangedLocked() (some bool) {
	h := s.held
	h.verdict.explain()
	if !h.verdict.Hold {
		s.clearHeldLocked()
		return false
	}
	if len(h.verdict.undecided(ChangeOpened)) == 0 {
		s.openings = nil
	}
	s.blameLocked(h.verdict, h.snap)
	h.fingerprint = h.verdict.fingerprint(h.snap)
	h.status.Fingerprint, h.status.Decision, h.status.Rejected = fmt.Sprintf("%016x", h.fingerprint), h.verdict.GuardDecision, h.verdict.isRejected()
	s.obs.Held(s.heldStatusLocked())
	return true
}

// GuardStatus tells what the guard holds, subscriber by subscriber.
func (s *Syncer) GuardStatus() GuardStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := GuardStatus{Limits: s.opts.Guard, Held: s.heldStatusLocked()}
	for _, k := range changeKinds {
		for _, id := range s.rejected.ids(k) {
			g.Rejected = append(g.Rejected, HeldChange{Subscriber: id, Change: k, Rejected: true})
		}
	}
	if s.held != nil {
		g.Changes = s.stillHeldLocked(s.held.verdict.list(s.held.snap))
	}
	return g
}

// HeldChanges returns what the guard holds of one subscriber.
func (s *Syncer) HeldChanges(id provision.SubscriberID) []HeldChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		return nil
	}
	return s.stillHeldLocked(s.held.verdict.of(id, s.held.snap))
}

// HeldOwner returns who would have an address if what the guard holds came into use; zero: nobody, or nothing is held.
func (s *Syncer) HeldOwner(ip netip.Addr) provision.SubscriberID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		return 0
	}
	return s.held.snap.Owner(ip)
}

// stillHeldLocked leaves out the states that came into use since, by a hint or an operator.
func (s *Syncer) stillHeldLocked(list []HeldChange) []HeldChange {
	cur := s.Current()
	return slices.DeleteFunc(list, func(c HeldChange) bool {
		switch c.Change {
		case ChangeBlocked, ChangeOpened:
			return cur.State(c.Subscriber) == c.State
		}
		return false
	})
}
