package syncer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/provision"
)

// GuardLimits say how much of the subscribers the ERP may change. The shares are of the subscribers that have an
// address, a vacant line or a subnet in the snapshot in use. More than the share in one answer, or in all that passed within an
// hour, and what is over is held. All are keys of the configuration (package config).
type GuardLimits struct {
	// Subscribers that would lose their addresses.
	MaxRemoved float64 `json:"max_removed" cfg:"max_removed" read:"share" default:"10%" max:"100%"`

	// Subscribers who would keep an address but lose another or a subnet, or have one without the port,
	// port name, VLAN or MAC by which they are found, or with another's.
	MaxMoved float64 `json:"max_moved" cfg:"max_moved" read:"share" default:"10%" max:"100%"`

	// Subscribers that would newly be stopped or paused, or stopped in place of paused.
	MaxBlocked float64 `json:"max_blocked" cfg:"max_blocked" read:"share" default:"10%" max:"100%"`

	// Stopped and paused subscribers that would be let in. More than that are let in as soon as the
	// cards of 20 of them, chosen at random, say the same; where cards cannot be read, after five minutes.
	MaxOpened float64 `json:"max_opened" cfg:"max_opened" read:"share" default:"10%" max:"100%"`

	// New subscribers, and those who would get their first address.
	MaxAdded float64 `json:"max_added" cfg:"max_added" read:"share" default:"25%" max:"1000%"`

	// So many changed subscribers of one kind, or fewer, are never held: in a small network one
	// house is a large share.
	MinChanged int `json:"min_changed" cfg:"min_changed" default:"20" min:"0" max:"1000000"`

	// Accept what was held when the ERP gave the same answer this many times in a
	// row. 0: never, an operator decides.
	AcceptAfter int `json:"accept_after" cfg:"accept_after" default:"0" min:"0" max:"10000"`

	// When more is expected, such as on the billing day: a greater share then stands in place of
	// the limits.
	Expected []ExpectedChanges `json:"expected,omitempty" cfg:"expected" most:"64"`
}

// Check reports values that would guard nothing, as key: reason.
func (g *GuardLimits) Check() error {
	if g.AcceptAfter == 1 {
		return errors.New("accept_after: 1 would accept every fetch and guard nothing; want 0 (never) or at least 2")
	}
	return nil
}

// share returns the limit of a kind at a time, until when what passes by it counts, and whether it is an expected one.
func (g *GuardLimits) share(k ChangeKind, now time.Time) (limit float64, until time.Time, expected bool) {
	limit = map[ChangeKind]float64{
		ChangeRemoved: g.MaxRemoved, ChangeMoved: g.MaxMoved, ChangeBlocked: g.MaxBlocked, ChangeOpened: g.MaxOpened, ChangeAdded: g.MaxAdded,
	}[k]
	until = now.Add(guardWindow)
	for i := range g.Expected {
		x := &g.Expected[i]
		end, in := x.at(now)
		if !in || !slices.Contains(x.Changes, k) || x.Share <= limit {
			continue
		}
		limit, expected = x.Share, true
		if end.Before(until) {
			until = end // what was expected does not use up the limit of the time after it
		}
	}
	return limit, until, expected
}

// GuardCount is one kind of change that a fetch would make.
type GuardCount struct {
	Count    int                      `json:"count"`              // subscribers, with those of Hour
	Share    float64                  `json:"share"`              // of Subscribers in the decision, 0..1
	Limit    float64                  `json:"limit"`              // 0..1
	Over     bool                     `json:"over"`               // those that have not passed yet are held
	Hour     int                      `json:"hour,omitempty"`     // that passed within the last hour
	Rejected int                      `json:"rejected,omitempty"` // beside Count: held because an operator rejected it
	Examples []provision.SubscriberID `json:"examples,omitempty"` // the lowest ids of the others, at most 10
}

// GuardDecision says what of a new snapshot may not replace the old one, and why.
type GuardDecision struct {
	Hold        bool       `json:"hold"`        // something of it is held
	NoRows      bool       `json:"no_rows"`     // the answer has no binding at all: all of it is held, and never accepted by repetition
	Subscribers int        `json:"subscribers"` // with an address, a vacant line or a subnet, in the snapshot in use
	Removed     GuardCount `json:"removed"`
	Moved       GuardCount `json:"moved"`
	Blocked     GuardCount `json:"blocked"`
	Reason      string     `json:"reason,omitempty"` // for people; empty unless Hold
	Opened      GuardCount `json:"opened"`
	Added       GuardCount `json:"added"`
}

// Of returns the count of a kind.
func (d *GuardDecision) Of(k ChangeKind) *GuardCount {
	return map[ChangeKind]*GuardCount{
		ChangeRemoved: &d.Removed, ChangeMoved: &d.Moved, ChangeBlocked: &d.Blocked, ChangeOpened: &d.Opened, ChangeAdded: &d.Added,
	}[k]
}

// verdict is a decision with those whom it is about.
type verdict struct {
	GuardDecision
	changes changes                  // all, sorted
	closed  []provision.SubscriberID // who would be let in, though their own cards said no; held in any case
	// rejected are those of held that an operator rejected, sorted. Of an answer without rows that is rejected there are none here.
	rejected changes
	allNo    bool    // an operator rejected this answer without rows
	held     changes // sorted; with those whose states go the way of a kind that is held, though they have no line
	// beside are further subscribers whose lines are held with those of another, for they would get an address of it.
	beside map[provision.SubscriberID]provision.SubscriberID
	// blame names the source that blocks those of held who are active by their state alone.
	blame map[provision.SubscriberID]SourceName
	// nets are those of held who lose a subnet, and nothing else, where that is the word of a source of its own; sorted.
	nets []provision.SubscriberID
}

// judge is the guard: it counts the subscribers that candidate would change, together with those whose changes passed within
// the last hour, and says which kinds are over their limits. Who gains a port, or an address beside another, is not changed. A
// candidate without lines is held always, even if there is no old snapshot; the first one with lines, vacant or not, passes, but for what an
// operator rejected before.
// So do those of first who are blocked: the ERP never told anything else of them. Whom the own card contradicts is not let in, and
// what an operator rejected is held, whatever the limits; it counts for nothing.
func judge(old, candidate *provision.Snapshot, first []provision.SubscriberID, known *known, limits *GuardLimits, own ownMAC, now time.Time) *verdict {
	v := &verdict{changes: compare(old, candidate, own), held: changes{}, rejected: changes{}}
	v.Subscribers = guarded(old, candidate.KeepsVacant())
	v.NoRows = candidate.Empty() || candidate.Len() == 0 && old.Len() > 0
	v.changes[ChangeBlocked] = lessThose(v.changes[ChangeBlocked], first)
	fresh := changes{}
	for k := range v.changes {
		fresh[k] = known.rejected.without(k, known.passed.without(k, v.changes[k]))
		v.Of(k).Examples = lowest(fresh[k])
	}
	v.changes.sort()
	fresh.sort()
	for _, k := range changeKinds {
		c := v.Of(k)
		c.Limit, _, _ = limits.share(k, now)
		c.Hour = known.passed.count(k, v.changes, false)
		if v.weigh(c, len(fresh[k]), limits.MinChanged); c.Over {
			v.held[k] = v.changes[k] // also those who would only be changed back: the answer is not believed in that
		}
	}
	for _, id := range v.changes[ChangeOpened] {
		if known.contradicted[id] {
			v.closed = append(v.closed, id)
		}
	}
	if old == nil {
		v.closed = known.closedAtFirst(candidate)
	}
	v.holdStates(old, candidate, first)
	if v.NoRows {
		v.held, v.allNo = maps.Clone(v.changes), known.noRows
	} else {
		v.holdRejected(old, candidate, known.rejected)
	}
	v.explain()
	return v
}

// guarded returns how many subscribers have something to lose: an address, a subnet or, if those are kept, a vacant line.
func guarded(s *provision.Snapshot, vacant bool) int {
	if s == nil {
		return 0
	}
	n := s.Counts().Subscribers + len(netsAlone(s))
	if vacant {
		n += s.WithoutAddress()
	}
	return n
}

// holdRejected holds what an operator rejected, of those too who have no line.
func (v *verdict) holdRejected(old, candidate *provision.Snapshot, rejected marks) {
	for _, k := range changeKinds {
		for _, id := range rejected.ids(k) {
			if wants(k, id, old, candidate, v.changes) {
				v.rejected.add(k, id)
			}
		}
		if len(v.rejected[k]) == 0 {
			continue
		}
		v.held[k] = union(v.held[k], v.rejected[k])
	}
}

// wants reports whether candidate would change a subscriber in a way, with a line or without. all are its changes of old. Without old, for
// the stored one is lost, that is whether candidate has the subscriber so.
func wants(k ChangeKind, id provision.SubscriberID, old, candidate *provision.Snapshot, all changes) bool {
	switch was, is := old.State(id), candidate.State(id); k {
	case ChangeBlocked:
		return blocksMore(was, is)
	case ChangeOpened:
		return (was.Blocks() || old == nil) && !is.Blocks()
	case ChangeAdded:
		if old == nil {
			return candidate.BySubscriber(id).Len() > 0
		}
	}
	return all.has(k, id)
}

// undecided returns those of held of a kind whom no operator rejected.
func (v *verdict) undecided(k ChangeKind) []provision.SubscriberID {
	return lessThose(slices.Clone(v.held[k]), v.rejected[k])
}

// isRejected reports whether an operator rejected all that is held.
func (v *verdict) isRejected() bool {
	if v.NoRows {
		return v.allNo
	}
	some := false
	for _, k := range changeKinds {
		if len(v.undecided(k)) > 0 {
			return false
		}
		some = some || len(v.rejected[k]) > 0
	}
	return some
}

// release takes a subscriber out of what is held of a kind.
func (v *verdict) release(k ChangeKind, id provision.SubscriberID) {
	for _, of := range []changes{v.held, v.rejected} {
		if of.has(k, id) {
			of[k] = slices.DeleteFunc(slices.Clone(of[k]), func(other provision.SubscriberID) bool { return other == id })
		}
	}
}

// weigh says whether the subscribers of one kind who have not passed yet are over the limit, together with those who have.
func (d *GuardDecision) weigh(c *GuardCount, fresh, minChanged int) {
	c.Count = fresh + c.Hour
	if d.Subscribers > 0 {
		c.Share = float64(c.Count) / float64(d.Subscribers)
	}
	c.Over = fresh > 0 && c.Count > minChanged && c.Share > c.Limit
}

// holdStates makes what is held of states whole: while newly blocked subscribers are held, nobody is blocked more than
// before, whether they have a line or only a subnet or a lease of a pool, and while opened ones are held nobody is opened.
func (v *verdict) holdStates(old, candidate *provision.Snapshot, first []provision.SubscriberID) {
	if len(v.closed) > 0 {
		v.held[ChangeOpened] = v.closed
	}
	if !v.Blocked.Over && !v.Opened.Over {
		return
	}
	var blocked, opened []provision.SubscriberID
	eachState(old, candidate, func(id provision.SubscriberID, was, is provision.State) {
		switch {
		case v.changes.has(ChangeRemoved, id), v.changes.has(ChangeAdded, id):
		case blocksMore(was, is):
			blocked = append(blocked, id)
		case was.Blocks() && !is.Blocks():
			opened = append(opened, id)
		}
	})
	if v.Blocked.Over {
		v.held[ChangeBlocked] = lessThose(blocked, first)
	}
	if v.Opened.Over {
		v.held[ChangeOpened] = opened
	}
}

// lessThose returns ids without some, which are sorted.
func lessThose(ids, less []provision.SubscriberID) []provision.SubscriberID {
	if len(less) == 0 {
		return ids
	}
	return slices.DeleteFunc(ids, func(id provision.SubscriberID) bool {
		_, found := slices.BinarySearch(less, id)
		return found
	})
}

// holds reports whether a change is held.
func (v *verdict) holds(k ChangeKind, id provision.SubscriberID) bool {
	if v.held.has(k, id) {
		return true
	}
	_, beside := v.beside[id]
	return beside && (k == ChangeMoved || k == ChangeAdded)
}

// explain says in words whether anything is held and why.
func (v *verdict) explain() {
	var why []string
	if v.NoRows {
		why = append(why, "the answer has no binding at all")
	}
	verbs := []string{"remove", "move", "block", "open", "add"}
	for i, verb := range verbs {
		c := v.Of(changeKinds[i])
		if c.Rejected = len(v.rejected[changeKinds[i]]); !c.Over {
			continue
		}
		hour := ""
		if c.Hour > 0 {
			hour = fmt.Sprintf(", of which %d passed within the last hour", c.Hour)
		}
		why = append(why, fmt.Sprintf("would %s %d of %d subscribers (%s), limit %s%s", verb, c.Count, v.Subscribers, percent(c.Share), percent(c.Limit), hour))
	}
	if n := len(v.closed); n > 0 && !v.Opened.Over {
		why = append(why, fmt.Sprintf("would let in %d subscribers whose own cards say no", n))
	}
	for i, verb := range verbs {
		if n := v.Of(changeKinds[i]).Rejected; n > 0 {
			why = append(why, fmt.Sprintf("would %s %d subscribers, which an operator rejected", verb, n))
		}
	}
	v.Hold = len(why) > 0
	v.Reason = strings.Join(why, "; ")
}

// lowest returns the first 10 of a list, sorted; nil if there is none.
func lowest(ids []provision.SubscriberID) []provision.SubscriberID {
	out := slices.Clone(ids[:min(len(ids), 10)])
	slices.Sort(out)
	return out
}

// percent returns 51% or, where that would hide the difference, 0.4%.
func percent(share float64) string {
	text := fmt.Sprintf("%.1f", share*100)
	return strings.TrimSuffix(text, ".0") + "%"
}

// clone returns a copy that shares nothing.
func (d GuardDecision) clone() GuardDecision {
	for _, k := range changeKinds {
		c := d.Of(k)
		c.Examples = slices.Clone(c.Examples)
	}
	return d
}
