package syncer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/provision"
)

// GuardLimits say how much of the subscribers one fetch may harm. The shares
// are of the subscribers that have an address, or a vacant line, in the snapshot in use; more than
// the share holds the fetch. All are keys of the configuration (package config).
type GuardLimits struct {
	// Subscribers that would lose their addresses.
	MaxRemoved float64 `json:"max_removed" cfg:"max_removed" read:"share" default:"10%" max:"100%"`

	// Subscribers who would keep an address but lose another or a subnet, or have one on another
	// port or device.
	MaxMoved float64 `json:"max_moved" cfg:"max_moved" read:"share" default:"10%" max:"100%"`

	// Subscribers that would newly be stopped or paused.
	MaxBlocked float64 `json:"max_blocked" cfg:"max_blocked" read:"share" default:"10%" max:"100%"`

	// So many changed subscribers, or fewer, are never held: in a small network one
	// house is a large share.
	MinChanged int `json:"min_changed" cfg:"min_changed" default:"20" min:"0" max:"1000000"`

	// Accept what was held when the ERP gave the same answer this many times in a
	// row. 0: never, an operator decides.
	AcceptAfter int `json:"accept_after" cfg:"accept_after" default:"0" min:"0" max:"10000"`
}

// Check reports values that would guard nothing, as key: reason.
func (g *GuardLimits) Check() error {
	if g.AcceptAfter == 1 {
		return errors.New("accept_after: 1 would accept every fetch and guard nothing; want 0 (never) or at least 2")
	}
	return nil
}

// GuardCount is one kind of harm that a fetch would do.
type GuardCount struct {
	Count    int                      `json:"count"` // subscribers
	Share    float64                  `json:"share"` // of Subscribers in the decision, 0..1
	Limit    float64                  `json:"limit"` // 0..1
	Over     bool                     `json:"over"`
	Examples []provision.SubscriberID `json:"examples,omitempty"` // the lowest ids, at most 10
}

// GuardDecision says whether a new snapshot may replace the old one, and why not.
type GuardDecision struct {
	Hold        bool       `json:"hold"`
	NoRows      bool       `json:"no_rows"`     // the answer has no binding at all: never accepted by repetition
	Subscribers int        `json:"subscribers"` // with an address or a vacant line, in the snapshot in use
	Removed     GuardCount `json:"removed"`
	Moved       GuardCount `json:"moved"`
	Blocked     GuardCount `json:"blocked"`
	Reason      string     `json:"reason,omitempty"` // for people; empty unless Hold
}

// Compare is the guard: it counts the subscribers that candidate would harm and
// holds it if one count is over its limit. Who gains an address or a port that
// nobody had told yet is not harmed; a new subscriber neither. A candidate
// without lines is held always, even if there is no old snapshot; the first one
// with lines, vacant or not, passes.
func Compare(old, candidate *provision.Snapshot, limits GuardLimits) GuardDecision {
	d := GuardDecision{
		Subscribers: old.Counts().Subscribers,
		Removed:     GuardCount{Limit: limits.MaxRemoved},
		Moved:       GuardCount{Limit: limits.MaxMoved},
		Blocked:     GuardCount{Limit: limits.MaxBlocked},
		NoRows:      candidate.Empty() || candidate.Len() == 0 && old.Len() > 0,
	}
	if candidate.KeepsVacant() && old != nil {
		d.Subscribers += old.WithoutAddress()
	}
	if old != nil && candidate != nil {
		d.count(old, candidate)
	}
	d.judge(limits.MinChanged)
	return d
}

// count looks at the subscribers of old with an address and then at those without one, if
// candidate keeps vacant lines.
func (d *GuardDecision) count(old, candidate *provision.Snapshot) {
	if old.SameLines(candidate) {
		d.countStates(old, candidate)
		return
	}
	d.walk(old, candidate, false)
	if candidate.KeepsVacant() {
		d.walk(old, candidate, true)
		for _, c := range []*GuardCount{&d.Removed, &d.Moved, &d.Blocked} {
			slices.Sort(c.Examples)
		}
	}
}

// walk goes through the subscribers of both snapshots side by side and counts those that have
// vacant lines alone in old, or those that have not. Who has addresses is told by them: a vacant
// line in place of the last one is a loss, but an address in place of a vacant line is none.
func (d *GuardDecision) walk(old, candidate *provision.Snapshot, vacant bool) {
	a, b := old.LinesBySubscriber(), candidate.LinesBySubscriber()
	for i, j := 0, 0; i < a.Len(); {
		id := a.At(i).Subscriber
		for j < b.Len() && b.At(j).Subscriber < id {
			j++
		}
		from, to := i, j
		i, j = endOf(a, i, id), endOf(b, j, id)
		if a.At(from).Vacant() != vacant {
			continue
		}
		switch {
		case to == j, !vacant && b.At(to).Vacant():
			d.Removed.add(id)
			continue
		case b.At(to).Vacant() == vacant && moved(a.Slice(from, i), b.Slice(to, j), candidate), lostSubnet(old.SubnetsOf(id), candidate):
			d.Moved.add(id)
		}
		if candidate.State(id).Blocks() && !old.State(id).Blocks() { // most are not blocked: one look-up
			d.Blocked.add(id)
		}
	}
}

// countStates is count for snapshots that differ in states only.
func (d *GuardDecision) countStates(old, candidate *provision.Snapshot) {
	j, subs := 0, old.Subscribers()
	for _, sub := range candidate.Subscribers() {
		for j < len(subs) && subs[j].ID < sub.ID {
			j++
		}
		was := provision.StateUnknown
		if j < len(subs) && subs[j].ID == sub.ID {
			was = subs[j].State
		}
		if !was.Blocks() && sub.State.Blocks() && old.BySubscriber(sub.ID).Len() > 0 {
			d.Blocked.add(sub.ID)
		}
	}
}

// endOf returns where the lines of a subscriber end that begin at i, if there are any.
func endOf(lines provision.Lines, i int, id provision.SubscriberID) int {
	for i < lines.Len() && lines.At(i).Subscriber == id {
		i++
	}
	return i
}

// moved reports whether an address of before is gone or on another port, or if there is
// none, whether one of the ports is gone. after are the lines of the same subscriber in candidate.
func moved(before, after provision.Lines, candidate *provision.Snapshot) bool {
	if before.At(0).Vacant() {
		return lostPort(before, after)
	}
	for i := range before.Len() {
		l := before.At(i)
		for ip := range l.Hosts4() {
			now := after.At(0) // most have one line
			if now.Addresses[0].Prefix.Addr() != ip {
				now = candidate.ByIP(ip)
			}
			if now == nil || now.Subscriber != l.Subscriber || l.HasPort() && !l.SamePort(now) {
				return true
			}
		}
	}
	return false
}

// lostSubnet reports whether one of a subscriber's subnets is not its own any more.
func lostSubnet(before []provision.Subnet, candidate *provision.Snapshot) bool {
	for _, n := range before {
		if !slices.Contains(candidate.SubnetsOf(n.Subscriber), n) {
			return true
		}
	}
	return false
}

// lostPort reports whether a port of before has no line any more.
func lostPort(before, after provision.Lines) bool {
	for i := range before.Len() {
		l, found := before.At(i), false
		for j := 0; j < after.Len() && !found; j++ {
			found = l.SamePort(after.At(j))
		}
		if l.HasPort() && !found {
			return true
		}
	}
	return false
}

func (c *GuardCount) add(id provision.SubscriberID) {
	c.Count++
	if len(c.Examples) < 10 {
		c.Examples = append(c.Examples, id)
	}
}

func (d *GuardDecision) judge(minChanged int) {
	var why []string
	if d.NoRows {
		why = append(why, "the answer has no binding at all")
	}
	for _, c := range []struct {
		verb string
		*GuardCount
	}{{"remove", &d.Removed}, {"move", &d.Moved}, {"block", &d.Blocked}} {
		if d.Subscribers > 0 {
			c.Share = float64(c.Count) / float64(d.Subscribers)
		}
		c.Over = c.Count > minChanged && c.Share > c.Limit
		if c.Over {
			why = append(why, fmt.Sprintf("would %s %d of %d subscribers (%s), limit %s",
				c.verb, c.Count, d.Subscribers, percent(c.Share), percent(c.Limit)))
		}
	}
	d.Hold = len(why) > 0
	d.Reason = strings.Join(why, "; ")
}

// percent gives 51% or, where that would hide the difference, 0.4%.
func percent(share float64) string {
	text := fmt.Sprintf("%.1f", share*100)
	return strings.TrimSuffix(text, ".0") + "%"
}

// clone gives a copy that shares nothing.
func (d GuardDecision) clone() GuardDecision {
	for _, c := range []*GuardCount{&d.Removed, &d.Moved, &d.Blocked} {
		c.Examples = slices.Clone(c.Examples)
	}
	return d
}
