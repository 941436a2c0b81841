package provision

import (
	"net/netip"
	"slices"
)

// ACL is the kernel state that follows from the subscribers' states: addresses
// of stopped and of paused subscribers, each sorted. In a wanted ACL no address
// is in both; in an observed one it may be.
type ACL struct {
	Stopped []netip.Addr
	Paused  []netip.Addr
}

// Len gives the number of elements in both sets.
func (a ACL) Len() int { return len(a.Stopped) + len(a.Paused) }

// Op is what a Change does. Its zero value is invalid.
type Op uint8

// The operations.
const (
	OpAdd Op = iota + 1
	OpRemove
)

// String gives add or remove.
func (o Op) String() string {
	switch o {
	case OpAdd:
		return "add"
	case OpRemove:
		return "remove"
	default:
		return "invalid"
	}
}

// Set names one of the two address sets of an ACL. Its zero value is invalid.
type Set uint8

// The sets.
const (
	SetStopped Set = iota + 1
	SetPaused
)

// String gives stopped or paused.
func (s Set) String() string {
	switch s {
	case SetStopped:
		return "stopped"
	case SetPaused:
		return "paused"
	default:
		return "invalid"
	}
}

// Change is one step from an ACL to another.
type Change struct {
	Op   Op
	Set  Set
	Addr netip.Addr
}

// Plan gives the changes that turn have into want: none if they are equal. All
// additions stand before all removals, so that an address which goes from one
// set to the other is at no time in neither, whatever the batch is cut into.
// The inputs need not be sorted and are not changed.
func Plan(want, have ACL) []Change {
	ws, wp := sorted(want.Stopped), sorted(want.Paused)
	hs, hp := sorted(have.Stopped), sorted(have.Paused)
	var out []Change
	out = appendMissing(out, OpAdd, SetStopped, ws, hs)
	out = appendMissing(out, OpAdd, SetPaused, wp, hp)
	out = appendMissing(out, OpRemove, SetStopped, hs, ws)
	out = appendMissing(out, OpRemove, SetPaused, hp, wp)
	return out
}

// Apply gives the ACL after the changes; a itself is left as it is. Adding what
// is there and removing what is not there change nothing.
func (a ACL) Apply(changes []Change) ACL {
	return ACL{
		Stopped: applySet(sorted(a.Stopped), SetStopped, changes),
		Paused:  applySet(sorted(a.Paused), SetPaused, changes),
	}
}

func applySet(addrs []netip.Addr, set Set, changes []Change) []netip.Addr {
	in := make(map[netip.Addr]bool, len(changes))
	for _, c := range changes {
		if c.Set == set {
			in[c.Addr] = c.Op == OpAdd
		}
	}
	if len(in) == 0 {
		return addrs
	}
	out := make([]netip.Addr, 0, len(addrs)+len(in))
	for _, a := range addrs {
		if _, changed := in[a]; !changed {
			out = append(out, a)
		}
	}
	for a, present := range in {
		if present {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// appendMissing appends a change for every address of a that b lacks.
func appendMissing(out []Change, op Op, set Set, a, b []netip.Addr) []Change {
	j := 0
	for _, addr := range a {
		for j < len(b) && b[j].Less(addr) {
			j++
		}
		if j == len(b) || b[j] != addr {
			out = append(out, Change{op, set, addr})
		}
	}
	return out
}

// sorted gives addrs in order and without repeats, itself if it is so already.
func sorted(addrs []netip.Addr) []netip.Addr {
	for i := 1; i < len(addrs); i++ {
		if !addrs[i-1].Less(addrs[i]) {
			addrs = slices.Clone(addrs)
			slices.SortFunc(addrs, netip.Addr.Compare)
			return slices.Compact(addrs)
		}
	}
	return addrs
}

// newlyBlocked gives the addresses that want has in a set and have in none,
// sorted.
func newlyBlocked(want, have ACL) []netip.Addr {
	stopped, paused := sorted(have.Stopped), sorted(have.Paused)
	var out []netip.Addr
	for _, addrs := range [][]netip.Addr{want.Stopped, want.Paused} {
		for _, a := range addrs {
			if !contains(stopped, a) && !contains(paused, a) {
				out = append(out, a)
			}
		}
	}
	return sorted(out)
}

func contains(addrs []netip.Addr, a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(addrs, a, netip.Addr.Compare)
	return ok
}
