package syncer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// SourceName is one of the things that the ERP is asked for, each by itself. A closed set: it is a metric label.
type SourceName string

// The sources.
const (
	SourceBindings SourceName = "bindings" // who has which address and MAC, on which port
	SourceStates   SourceName = "states"   // who is active, paused, stopped
	SourceFlags    SourceName = "flags"    // who is disabled, potential, not in the billing: on the customers' cards
	SourceDevices  SourceName = "devices"  // switches with their MACs, addresses and ports
	SourceSubnets  SourceName = "subnets"  // customers' subnets: on their cards
	SourceFormer   SourceName = "former"   // former customers
)

// SourceNames returns all sources.
func SourceNames() []SourceName {
	return []SourceName{SourceBindings, SourceStates, SourceFlags, SourceDevices, SourceSubnets, SourceFormer}
}

// SourceJudgement says what is thought of a source. A closed set: it is a metric label.
type SourceJudgement string

// The judgements.
const (
	JudgedGood    SourceJudgement = "good"    // the newest answer is in use
	JudgedPartial SourceJudgement = "partial" // of a part an earlier answer is in use, or none yet
	JudgedFailed  SourceJudgement = "failed"  // it cannot be read; the last good answer is in use
	JudgedHeld    SourceJudgement = "held"    // what was read is not believed; the last good answer is in use
	JudgedUnread  SourceJudgement = "unread"  // it was not asked for since the start
)

// SourceJudgements returns all judgements.
func SourceJudgements() []SourceJudgement {
	return []SourceJudgement{JudgedGood, JudgedPartial, JudgedFailed, JudgedHeld, JudgedUnread}
}

// SourceStatus is how one source of the ERP stands.
type SourceStatus struct {
	Source     SourceName      `json:"source"`
	Judgement  SourceJudgement `json:"judgement"`
	GoodAt     time.Time       `json:"good_at,omitzero"` // the last good answer; of cards: the oldest of them. Zero: there is none
	AgeSeconds float64         `json:"age_seconds"`      // of the last good answer
	Since      time.Time       `json:"since,omitzero"`   // when the judgement began
	Rows       int             `json:"rows"`             // in the last answer that could be read; of cards: customers who have one
	Unread     int             `json:"unread,omitempty"` // customers whose card was never read
	// RoundSeconds is how long it takes to read every card once; 0: all are read in each whole fetch, or it is not known yet.
	RoundSeconds float64 `json:"round_seconds,omitempty"`
	Error        string  `json:"error,omitempty"` // why it is not good
	// Fingerprint is of what is held of a source that can be accepted.
	Fingerprint string `json:"fingerprint,omitempty"`
	Guard       bool   `json:"guard,omitempty"` // it is held by the limits of the fetch guard, or because an operator rejected it
}

// Bad reports whether an earlier answer stands in for what the ERP says now.
func (s SourceStatus) Bad() bool { return s.Judgement == JudgedFailed || s.Judgement == JudgedHeld }

// Text says in a sentence, without the name of the source, how it stands.
func (s SourceStatus) Text() string {
	if !s.Bad() {
		text := string(s.Judgement)
		if s.Error != "" {
			text += ": " + s.Error
		}
		return text
	}
	used := "none was ever good"
	if !s.GoodAt.IsZero() {
		used = "what was read at " + s.GoodAt.Local().Format(time.DateTime) + " is in use"
	}
	return fmt.Sprintf("%s since %s, %s: %s", s.Judgement, s.Since.Local().Format(time.DateTime), used, s.Error)
}

// SourceTeller is a Fetcher that reads several things of the ERP, each by itself, and tells how each of them stands. It
// is called by any goroutine.
type SourceTeller interface {
	Sources() []SourceStatus
}

// SourceAccepter is a SourceTeller that can be told to believe what it holds.
type SourceAccepter interface {
	// AcceptSource has what is held of a source come into use with the next whole fetch. With a fingerprint only what has that
	// is accepted, else the error is an *OtherHeldError.
	AcceptSource(name SourceName, fingerprint string) error
}

// BlockTeller is a SourceTeller that knows by which of its sources a subscriber is blocked. It is called by any goroutine.
type BlockTeller interface {
	// BlockedBy returns the source that gives a subscriber a state, as far as it is known: SourceStates, SourceFlags or SourceFormer.
	BlockedBy(id provision.SubscriberID, st provision.State) SourceName
}

// ErrSourceNotHeld says that a source is not held, so there is nothing to accept.
var ErrSourceNotHeld = errors.New("it is not held")

// AcceptSource has what is held of one source of the ERP, other than by the guard, come into use with a whole fetch, which it
// asks for. It returns how the source stood. What was held counts: what the ERP says else by then is judged anew. With a fingerprint
// only what has that is accepted, as by Accept.
func (s *Syncer) AcceptSource(name SourceName, fingerprint string) (SourceStatus, error) {
	st, err := s.heldSource(name)
	if err != nil {
		return st, fmt.Errorf("%s of the ERP: %w", name, err)
	}
	accepter, able := s.source.(SourceAccepter)
	if !able {
		return st, fmt.Errorf("%s of the ERP: %w", name, ErrSourceNotHeld)
	}
	if err := accepter.AcceptSource(name, fingerprint); err != nil {
		return st, fmt.Errorf("%s of the ERP: %w", name, err)
	}
	s.log.Warn("operator accepts what is held of a source of the ERP", "source", name, "reason", st.Error, "fingerprint", st.Fingerprint)
	s.Refresh()
	return st, nil
}

// heldSource returns how a source stands that is held, and not by the guard.
func (s *Syncer) heldSource(name SourceName) (SourceStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.sourcesLocked() {
		switch {
		case st.Source != name:
		case s.holdsLocked(name):
			return st, errors.New("the guard holds it: usher guard accept, without a source")
		case st.Judgement == JudgedHeld:
			return st, nil
		default:
			return st, ErrSourceNotHeld
		}
	}
	return SourceStatus{Source: name}, fmt.Errorf("%w: no such source is read", ErrSourceNotHeld)
}

// Sources returns how each source of the ERP stands; none where the Fetcher does not tell.
func (s *Syncer) Sources() []SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sourcesLocked()
}

func (s *Syncer) sourcesLocked() []SourceStatus {
	teller, ok := s.source.(SourceTeller)
	if !ok {
		return nil
	}
	list := teller.Sources()
	for i := range list {
		st := &list[i]
		if s.holdsLocked(st.Source) {
			st.Judgement, st.Since = JudgedHeld, s.held.status.Since
			if st.GoodAt = s.Current().FetchedAt(); st.GoodAt.After(st.Since) {
				st.GoodAt = st.Since // what is not held came into use since
			}
			st.Guard = true
			st.Error = "the guard holds it: " + s.held.status.Decision.Reason
		}
		if !st.GoodAt.IsZero() {
			st.AgeSeconds = max(time.Since(st.GoodAt).Seconds(), 0)
		}
	}
	return list
}

// holdsLocked reports whether the guard holds what a source said.
func (s *Syncer) holdsLocked(name SourceName) bool {
	return s.held != nil && s.held.verdict.holdsOf(name)
}

// blameLocked finds out by which sources those are blocked whom the guard holds, and who of them loses nothing but a subnet.
func (s *Syncer) blameLocked(v *verdict, candidate *provision.Snapshot) {
	v.nets = nil
	if teller, ok := s.source.(SourceTeller); ok && slices.ContainsFunc(teller.Sources(), func(st SourceStatus) bool { return st.Source == SourceSubnets }) {
		v.nets = lostSubnetAlone(s.Current(), candidate, s.opts.OwnMAC, v.held[ChangeMoved])
	}
	teller, able := s.source.(BlockTeller)
	if !able {
		return
	}
	v.blame = make(map[provision.SubscriberID]SourceName)
	for _, id := range v.held[ChangeBlocked] {
		if name := teller.BlockedBy(id, candidate.State(id)); name != SourceStates {
			v.blame[id] = name
		}
	}
}

// holdsOf reports whether something that a source said is held.
func (v *verdict) holdsOf(name SourceName) bool {
	switch name {
	case SourceBindings:
		return v.NoRows || len(v.held[ChangeRemoved])+len(v.held[ChangeMoved])+len(v.held[ChangeAdded]) > len(v.nets)
	case SourceSubnets:
		return len(v.nets) > 0
	case SourceStates, SourceFlags, SourceFormer:
		if name == SourceStates && len(v.held[ChangeOpened]) > 0 {
			return true // what blocked them before is not known any more
		}
		return slices.ContainsFunc(v.held[ChangeBlocked], func(id provision.SubscriberID) bool { return v.blamed(id) == name })
	default:
		return false
	}
}

// blamed returns the source that blocks one who is held.
func (v *verdict) blamed(id provision.SubscriberID) SourceName {
	if name, other := v.blame[id]; other {
		return name
	}
	return SourceStates
}
