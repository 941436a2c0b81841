package pool

import (
	"hash/maphash"

	"github.com/usher-agent/usher/provision"
)

// The index finds the slot that an owner has or had last. A map of Go would
// allocate while clients come and go; this table never has more entries than there
// are slots, which is half of it at most. The seed keeps clients that choose their
// MACs from making it slow.

func (p *Pool) home(who provision.Owner) uint32 {
	var room [16]byte
	return uint32(maphash.Bytes(p.seed, who.AppendTo(room[:0])) >> p.shift)
}

// place returns where who is in the index, or where it belongs.
func (p *Pool) place(who provision.Owner) (at uint32, found bool) {
	mask := uint32(len(p.index) - 1)
	for at = p.home(who); p.index[at] != 0; at = (at + 1) & mask {
		if p.slots[p.index[at]-1].owner == who {
			return at, true
		}
	}
	return at, false
}

func (p *Pool) find(who provision.Owner) (uint32, bool) {
	if p.keyed == 0 && keyed(who) {
		return 0, false // most pools have none, and each look is into memory that nobody looked at lately
	}
	at, found := p.place(who)
	if !found {
		return 0, false
	}
	return p.index[at] - 1, true
}

// keyed reports whether an owner is more than a MAC.
func keyed(who provision.Owner) bool {
	var room [16]byte
	return len(who.AppendTo(room[:0])) > len(provision.MAC{})
}

// setOwner says whose slot i is from now on; the slot that who had before is nobody's
// in the index, and keeps the name only while it is not free.
func (p *Pool) setOwner(i uint32, who provision.Owner) {
	s := &p.slots[i]
	if s.owner == who {
		if at, found := p.place(who); found && p.index[at] == i+1 {
			return
		}
	}
	if !s.owner.IsZero() {
		if at, found := p.place(s.owner); found && p.index[at] == i+1 {
			p.remove(at)
		}
	}
	s.owner = who
	if who.IsZero() {
		return
	}
	at, found := p.place(who)
	if found {
		if old := &p.slots[p.index[at]-1]; old != s && old.state == StateFree {
			// Nobody's any more: the entry is taken over below.
			p.remove(at)
			old.owner = provision.Owner{}
			at, found = p.place(who)
		}
	}
	if !found && keyed(who) {
		p.keyed++
	}
	p.index[at] = i + 1
}

// remove empties a place and moves those behind it up (Knuth 6.4, algorithm R).
func (p *Pool) remove(at uint32) {
	if keyed(p.slots[p.index[at]-1].owner) {
		p.keyed--
	}
	mask := uint32(len(p.index) - 1)
	for next := at; ; {
		p.index[at] = 0
		for {
			next = (next + 1) & mask
			if p.index[next] == 0 {
				return
			}
			home := p.home(p.slots[p.index[next]-1].owner)
			// Leave it if its home lies behind the gap, in the circle.
			if (next-home)&mask >= (next-at)&mask {
				break
			}
		}
		p.index[at] = p.index[next]
		at = next
	}
}

// fnv is FNV-1a of the bytes. It must stay as it is: it decides which address a new client gets.
func fnv(who provision.Owner) uint32 {
	var room [16]byte
	h := uint32(2166136261)
	for _, b := range who.AppendTo(room[:0]) {
		h = (h ^ uint32(b)) * 16777619
	}
	return h
}
