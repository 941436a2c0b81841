package access

import (
	"encoding/json"
	"net/netip"

	"github.com/usher-agent/usher/provision"
)

// SetCounts holds a number for each set, indexed by the set; index 0 is unused.
type SetCounts [setEnd]int

// total returns the number in all sets.
func (c SetCounts) total() int {
	n := 0
	for _, x := range c {
		n += x
	}
	return n
}

// MarshalJSON returns an object with the sets' names.
func (c SetCounts) MarshalJSON() ([]byte, error) {
	m := make(map[string]int, len(c))
	for s := range Sets() {
		if !s.Optional() || c[s] != 0 {
			m[s.String()] = c[s]
		}
	}
	return json.Marshal(m)
}

// UnmarshalJSON is the reverse. Names of a later version's sets are passed over.
func (c *SetCounts) UnmarshalJSON(b []byte) error {
	var m map[string]int
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for s := range Sets() {
		c[s] = m[s.String()]
	}
	return nil
}

// Change is one step from an ACL to another.
type Change struct {
	Op provision.Op
	Element
}

// Plan returns the changes that turn have into want: none if they are equal. All
// additions stand before all removals, so that an address which goes from one
// set to the other is at no time in neither, whatever the batch is cut into.
// For the same reason what lets through is added first and removed last. The
// inputs need not be sorted.
func Plan(want, have ACL) []Change {
	want, have = want.Sorted(), have.Sorted()
	adds, removes := want.Minus(have), have.Minus(want)
	n := adds.Len() + removes.Len()
	if n == 0 {
		return nil
	}
	out := make([]Change, 0, n)
	for _, step := range []struct {
		op    provision.Op
		acl   *ACL
		opens bool
	}{
		{provision.OpAdd, &adds, true}, {provision.OpAdd, &adds, false},
		{provision.OpRemove, &removes, false}, {provision.OpRemove, &removes, true},
	} {
		for s := range Sets() {
			if (s.descriptor().effect == opens) != step.opens {
				continue
			}
			for e := range step.acl.Elements(s) {
				out = append(out, Change{step.op, e})
			}
		}
	}
	return out
}

// Apply returns the ACL after the changes, sorted. Adding what is there and
// removing what is not there change nothing.
func (a ACL) Apply(changes []Change) ACL {
	last := make(map[Element]provision.Op, len(changes))
	for _, c := range changes {
		last[c.Element] = c.Op
	}
	var touched, added [setEnd][]byte
	for e, op := range last {
		touched[e.Set] = append(touched[e.Set], e.Key...)
		if op == provision.OpAdd {
			added[e.Set] = append(added[e.Set], e.Key...)
		}
	}
	a = a.Sorted()
	for s := range Sets() {
		a[s] = s.Sorted(s.minus(a[s], s.Sorted(Keys(touched[s]))) + Keys(added[s]))
	}
	return a
}

// blocked returns the addresses that are in a set that blocks, sorted.
func (a ACL) blocked() Keys {
	var k Keys
	for s := range Sets() {
		if s.descriptor().effect == blocks {
			k += a[s]
		}
	}
	return SetStopped.Sorted(k)
}

// newlyBlocked returns the addresses and subnets that may do less by want than by have,
// sorted: those newly stopped, and those newly in another set that were in none.
// Who is paused instead of stopped had no flows to lose. Both ACLs are sorted.
func newlyBlocked(want, have ACL) []netip.Prefix {
	stopped := SetStopped.minus(want[SetStopped], have[SetStopped])
	others := SetStopped.minus(want.blocked(), want[SetStopped])
	return withNets(SetStopped.Sorted(stopped+SetStopped.minus(others, have.blocked())), newlyBlockedNets(&want, &have))
}

// freed returns the addresses and subnets that are in a set by have and in none by want,
// sorted. Both ACLs are sorted.
func freed(want, have ACL) []netip.Prefix {
	return withNets(SetStopped.minus(have.blocked(), want.blocked()), freedNets(&want, &have))
}

// stops reports whether an address is stopped, by itself or with its subnet. The ACL is sorted.
func (a *ACL) stops(addr netip.Addr) bool { return a.Standing(addr) == SetStopped }
