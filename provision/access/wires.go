package access

import "strings"

// tally is how many addresses are let in by one interface of the vlan guard, by what
// blocks them.
type tally struct{ stopped, paused, others int }

// count counts an address that a set blocks; zero: none does.
func (t *tally) count(block Set, n int) {
	switch block {
	case SetStopped:
		t.stopped += n
	case SetPaused:
		t.paused += n
	default:
		t.others += n
	}
}

// alone returns the set of interfaces that one with this tally is in; zero: in none.
// Nobody is behind it whom multicast may reach.
func (t tally) alone() Set {
	switch {
	case t.others > 0 || t.stopped+t.paused == 0:
		return 0
	case t.paused > 0:
		return SetAlonePaused
	default:
		return SetAloneStopped
	}
}

// wires are the tallies of all interfaces that somebody is let in by.
type wires map[string]tally

// wiresOf returns them for a sorted ACL. It walks each set once.
func wiresOf(a *ACL) wires {
	w := wires{}
	width, lead := SetBoundVLAN.Width(), SetBoundVLAN.lead()
	blocked := [...]cursor{{SetStopped, a[SetStopped]}, {SetPaused, a[SetPaused]}, {SetGuests, a[SetGuests]}}
	for k := string(a[SetBoundVLAN]); len(k) >= width; k = k[width:] {
		var block Set
		for i := range blocked {
			if blocked[i].at(k[lead:lead+addrLen]) && block == 0 {
				block = blocked[i].set
			}
		}
		name := strings.TrimRight(k[:nameLen], "\x00")
		t := w[name]
		t.count(block, 1)
		w[name] = t
	}
	return w
}

// addrLen is the size of an address in a key.
const addrLen = 4

// cursor goes through the sorted addresses of a set.
type cursor struct {
	set  Set
	rest Keys
}

// at reports whether the set has an address, which is no lower than the one before.
func (c *cursor) at(addr string) bool {
	for len(c.rest) >= addrLen && string(c.rest[:addrLen]) < addr {
		c.rest = c.rest[addrLen:]
	}
	return len(c.rest) >= addrLen && string(c.rest[:addrLen]) == addr
}

// put writes the sets of interfaces into an ACL.
func (w wires) put(a *ACL) {
	var keys elements
	for name, t := range w {
		keys.wire(name, t.alone())
	}
	for _, s := range []Set{SetAloneStopped, SetAlonePaused} {
		a[s] = s.Sorted(Keys(keys[s]))
	}
}

// wire adds the element of an interface to a set; zero: to none.
func (e *elements) wire(name string, s Set) {
	if s != 0 {
		e[s], _ = s.appendKey(e[s], Fields{Interface: name})
	}
}

// move counts an address that had other rights before.
func (w wires) move(all wires, before, after *rights) {
	for _, x := range []struct {
		r *rights
		n int
	}{{before, -1}, {after, 1}} {
		for _, name := range x.r.vlan {
			if name == "" {
				continue
			}
			t, ok := w[name]
			if !ok {
				t = all[name]
			}
			t.count(x.r.block, x.n)
			w[name] = t
		}
	}
}
