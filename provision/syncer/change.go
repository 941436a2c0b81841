package syncer

import (
	"math"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// ChangeKind is a way in which an answer of the ERP changes a subscriber. The guard judges each by itself. A closed set: it
// is a metric label and a word of the configuration.
type ChangeKind string

// The kinds of changes.
const (
	ChangeRemoved ChangeKind = "removed" // loses all addresses
	ChangeMoved   ChangeKind = "moved"   // loses an address or a subnet, or what its client is found by: port, VLAN or MAC
	ChangeBlocked ChangeKind = "blocked" // is newly stopped or paused, or stopped in place of paused
	ChangeOpened  ChangeKind = "opened"  // is stopped and paused no more
	ChangeAdded   ChangeKind = "added"   // is new, or has its first address
)

// Words implements the closed set.
func (ChangeKind) Words() []string { return []string{"removed", "moved", "blocked", "opened", "added"} }

// ChangeKinds returns all of them.
func ChangeKinds() []ChangeKind { return slices.Clone(changeKinds) }

// changeKinds are all of them, in the order in which a decision tells them.
var changeKinds = []ChangeKind{ChangeRemoved, ChangeMoved, ChangeBlocked, ChangeOpened, ChangeAdded}

// undoes returns the kind that takes a change of this one back; empty: none does.
func (k ChangeKind) undoes() ChangeKind {
	switch k {
	case ChangeRemoved:
		return ChangeAdded
	case ChangeAdded:
		return ChangeRemoved
	case ChangeBlocked:
		return ChangeOpened
	case ChangeOpened:
		return ChangeBlocked
	}
	return ""
}

// changes are the subscribers that a candidate would change, by kind. Somebody may be both moved and blocked or opened; who
// is removed or added is nothing else.
type changes map[ChangeKind][]provision.SubscriberID

// ownMAC reports whether a MAC is at an address by what this agent saw itself, or told the ERP. nil: nothing is known of that, and every MAC
// that nobody else has passes for one. Of the zero Addr: at any address.
type ownMAC func(ip netip.Addr, mac provision.MAC) bool

func (c changes) add(k ChangeKind, id provision.SubscriberID) { c[k] = append(c[k], id) }

// sort puts each list in order, as has wants it.
func (c changes) sort() {
	for _, ids := range c {
		slices.Sort(ids)
	}
}

// has reports whether a subscriber is in a sorted list.
func (c changes) has(k ChangeKind, id provision.SubscriberID) bool {
	_, found := slices.BinarySearch(c[k], id)
	return found
}

// compare returns what candidate changes of old, at the subscribers with an address, then at those without
// one, if candidate keeps vacant lines, and at those who have a subnet alone. Against no snapshot nothing is a change.
func compare(old, candidate *provision.Snapshot, own ownMAC) changes {
	c := changes{}
	switch {
	case old == nil || candidate == nil || old == candidate:
	case old.SameLines(candidate):
		c.compareStates(old, candidate)
	default:
		x := comparison{old, candidate, own}
		c.walk(&x, false)
		if candidate.KeepsVacant() {
			c.walk(&x, true)
		}
		c.walkNets(old, candidate)
	}
	return c
}

// netsAlone returns the subscribers who have a subnet and no line, ascending.
func netsAlone(s *provision.Snapshot) []provision.SubscriberID {
	var ids []provision.SubscriberID
	for _, n := range s.CustomerSubnets() {
		if s.BySubscriber(n.Subscriber).Len() == 0 {
			ids = append(ids, n.Subscriber)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// walkNets looks at the subscribers who have a subnet alone in old. One who has a line in candidate is new, as anybody else is.
func (c changes) walkNets(old, candidate *provision.Snapshot) {
	for _, id := range netsAlone(old) {
		if candidate.BySubscriber(id).Len() > 0 {
			continue
		}
		if lostSubnet(old.SubnetsOf(id), candidate) {
			c.add(ChangeMoved, id)
		}
		c.addState(id, old.State(id), candidate.State(id))
	}
}

// walk goes through the subscribers of both snapshots side by side and looks at those that have
// vacant lines alone in old, or at those that have not, and with these at the new ones. Who has addresses is told by them: a vacant
// line in place of the last one is a loss, but an address in place of a vacant line is no change.
func (c changes) walk(x *comparison, vacant bool) {
	old, candidate := x.old, x.candidate
	a, b := old.LinesBySubscriber(), candidate.LinesBySubscriber()
	was, is := stateCursor{of: old.Subscribers()}, stateCursor{of: candidate.Subscribers()}
	bothKeep := old.KeepsVacant() && candidate.KeepsVacant()
	j := 0
	skip := func(until provision.SubscriberID) { // those that old has not
		for j < b.Len() && b.At(j).Subscriber < until {
			id := b.At(j).Subscriber
			if !vacant && (!b.At(j).Vacant() || bothKeep) {
				c.add(ChangeAdded, id)
			}
			j = endOf(b, j, id)
		}
	}
	for i := 0; i < a.Len(); {
		id := a.At(i).Subscriber
		skip(id)
		from, to := i, j
		i, j = endOf(a, i, id), endOf(b, j, id)
		if a.At(from).Vacant() != vacant {
			continue
		}
		switch {
		case to == j, !vacant && b.At(to).Vacant():
			c.add(ChangeRemoved, id)
			continue
		case b.At(to).Vacant() == vacant && x.moved(a.Slice(from, i), b.Slice(to, j)), lostSubnet(old.SubnetsOf(id), candidate):
			c.add(ChangeMoved, id)
		}
		c.addState(id, was.state(id), is.state(id))
	}
	skip(math.MaxInt64)
}

// compareStates is compare for snapshots that differ in states only.
func (c changes) compareStates(old, candidate *provision.Snapshot) {
	eachState(old, candidate, func(id provision.SubscriberID, was, is provision.State) {
		if was != is && (old.BySubscriber(id).Len() > 0 || len(old.SubnetsOf(id)) > 0) {
			c.addState(id, was, is)
		}
	})
}

// eachState calls do with every subscriber that one of two snapshots lists, and its states there, by id.
func eachState(old, candidate *provision.Snapshot, do func(id provision.SubscriberID, was, is provision.State)) {
	a, b := old.Subscribers(), candidate.Subscribers()
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].ID < b[0].ID:
			do(a[0].ID, a[0].State, provision.StateUnknown)
			a = a[1:]
		case len(a) == 0 || b[0].ID < a[0].ID:
			do(b[0].ID, provision.StateUnknown, b[0].State)
			b = b[1:]
		default:
			do(a[0].ID, a[0].State, b[0].State)
			a, b = a[1:], b[1:]
		}
	}
}

// addState notes a change of the state. Who is stopped loses the garden and the portal, which the paused have, and with them the way to pay: so
// that is one, and the other way is none.
func (c changes) addState(id provision.SubscriberID, was, is provision.State) {
	switch {
	case blocksMore(was, is):
		c.add(ChangeBlocked, id)
	case was.Blocks() && !is.Blocks():
		c.add(ChangeOpened, id)
	}
}

// blocksMore reports whether a subscriber is newly blocked, or stopped in place of paused.
func blocksMore(was, is provision.State) bool {
	return is.Blocks() && !was.Blocks() || is == provision.StateStop && was != is
}

// stateCursor finds the states of ascending subscribers in a sorted list.
type stateCursor struct {
	of []provision.Subscriber
	i  int
}

// state returns that of a subscriber whose id is not below the one before.
func (s *stateCursor) state(id provision.SubscriberID) provision.State {
	for s.i < len(s.of) && s.of[s.i].ID < id {
		s.i++
	}
	if s.i < len(s.of) && s.of[s.i].ID == id {
		return s.of[s.i].State
	}
	return provision.StateUnknown
}

// endOf returns where the lines of a subscriber end that begin at i, if there are any.
func endOf(lines provision.Lines, i int, id provision.SubscriberID) int {
	for i < lines.Len() && lines.At(i).Subscriber == id {
		i++
	}
	return i
}

// lostSubnetAlone returns those of ids, who are sorted and moved, of whom candidate takes a subnet, and no line.
func lostSubnetAlone(old, candidate *provision.Snapshot, own ownMAC, ids []provision.SubscriberID) []provision.SubscriberID {
	x := comparison{old, candidate, own}
	var alone []provision.SubscriberID
	for _, id := range ids {
		was, is := old.BySubscriber(id), candidate.BySubscriber(id)
		if lostSubnet(old.SubnetsOf(id), candidate) && (was.Len() == 0 || is.Len() > 0 && was.At(0).Vacant() == is.At(0).Vacant() && !x.moved(was, is)) {
			alone = append(alone, id)
		}
	}
	return alone
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
