package lease

import "github.com/usher-agent/usher/provision/huge"

// index has for each value of a record, such as its MAC, the first address; the others hang on its record. A value is known by a hash of it:
// whoever looks compares what he finds. So no value costs memory of its own but eight bytes, and a start with a million leases finds and
// changes each with one look. It is a table with open addressing, at most half full.
type index struct {
	slots []uint64 // the hash and the first address; 0: empty, for no record has the address 0
	n     int
	shift uint8 // from a hash to its place
}

// leastIndex is the size of an index that has something.
const leastIndex = 16

// newIndex makes one with room for n values.
func newIndex(n int) (x index) {
	if n > 0 {
		x.resize(2 * n)
	}
	return x
}

func pack(hash, key uint32) uint64 { return uint64(hash)<<32 | uint64(key) }

// place returns where a hash is, or where it belongs. There is a place that is empty.
func (x *index) place(hash uint32) int {
	mask := len(x.slots) - 1
	at := int(hash >> x.shift)
	for x.slots[at] != 0 && uint32(x.slots[at]>>32) != hash {
		at = (at + 1) & mask
	}
	return at
}

// first returns the first address of a hash; 0: there is none.
func (x *index) first(hash uint32) uint32 {
	if x.n == 0 {
		return 0
	}
	return uint32(x.slots[x.place(hash)])
}

// touch brings the place of a hash into the cache of the processor. The look-ups of many records then wait for memory together, and not
// one after the other. What it returns says nothing, but has the compiler make the look-up.
func (x *index) touch(hash uint32) uint64 {
	if x.n == 0 {
		return 0
	}
	return x.slots[hash>>x.shift]
}

// resize makes room for size places.
func (x *index) resize(size int) {
	old, bits := x.slots, uint8(4)
	for 1<<bits < max(size, leastIndex) {
		bits++
	}
	x.slots, x.shift = huge.Make[uint64](1<<bits), 32-bits
	for _, s := range old {
		if s != 0 {
			x.slots[x.place(uint32(s>>32))] = s
		}
	}
}

func (x *index) add(t *Table, which int, hash, key uint32, e *entry) {
	if 2*x.n >= len(x.slots) {
		x.resize(2 * len(x.slots))
	}
	at := x.place(hash)
	first := uint32(x.slots[at])
	if first != 0 {
		t.at(first).links[which].prev = key
	} else {
		x.n++
	}
	e.links[which] = link{next: first}
	x.slots[at] = pack(hash, key)
}

func (x *index) remove(t *Table, which int, hash uint32, e *entry) {
	l := e.links[which]
	e.links[which] = link{}
	if l.next != 0 {
		t.at(l.next).links[which].prev = l.prev
	}
	switch {
	case l.prev != 0:
		t.at(l.prev).links[which].next = l.next
	case l.next != 0:
		x.slots[x.place(hash)] = pack(hash, l.next)
	default:
		x.empty(x.place(hash))
	}
}

// empty makes a place empty and moves those behind it up (Knuth 6.4, algorithm R).
func (x *index) empty(at int) {
	x.n--
	mask := len(x.slots) - 1
	for next := at; ; {
		x.slots[at] = 0
		for {
			next = (next + 1) & mask
			if x.slots[next] == 0 {
				return
			}
			home := int(uint32(x.slots[next]>>32) >> x.shift)
			if (next-home)&mask >= (next-at)&mask { // its home lies before the gap, in the circle
				break
			}
		}
		x.slots[at] = x.slots[next]
		at = next
	}
}
