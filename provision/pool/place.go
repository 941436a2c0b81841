package pool

import "net/netip"

// How many addresses a place, such as a port of a switch, holds: offered or leased. Like
// the index it is a table with open addressing, which never has more entries than there are
// slots, half of it at most, and allocates nothing.

type placeCount struct {
	place uint64 // 0: empty
	n     uint32
}

// SetPlace says where the client is that a is offered or leased to, until that changes; 0: not known.
func (p *Pool) SetPlace(a netip.Addr, place uint64) {
	if i, ok := p.at(a); ok {
		p.setPlace(i, place)
	}
}

func (p *Pool) setPlace(i uint32, place uint64) {
	if p.slots[i].place == place || p.slots[i].bound || p.slots[i].state != StateOffered && p.slots[i].state != StateLeased {
		return
	}
	p.leave(i)
	if p.slots[i].place = place; place != 0 {
		e := &p.places[p.placeAt(place)]
		e.place = place
		e.n++
	}
}

// Place returns what SetPlace said.
func (p *Pool) Place(a netip.Addr) uint64 {
	if i, ok := p.at(a); ok {
		return p.slots[i].place
	}
	return 0
}

// At tells how many addresses are offered or leased at a place.
func (p *Pool) At(place uint64) int {
	if place == 0 {
		return 0
	}
	return int(p.places[p.placeAt(place)].n)
}

// leave takes a slot from its place.
func (p *Pool) leave(i uint32) {
	place := p.slots[i].place
	if place == 0 {
		return
	}
	p.slots[i].place = 0
	at := p.placeAt(place)
	if p.places[at].n--; p.places[at].n == 0 {
		p.removePlace(at)
	}
}

func (p *Pool) placeHome(place uint64) uint32 {
	return uint32(place * 0x9e3779b97f4a7c15 >> p.shift) // Fibonacci hashing (Knuth 6.4)
}

// placeAt returns where a place is in the table, or where it belongs.
func (p *Pool) placeAt(place uint64) uint32 {
	mask := uint32(len(p.places) - 1)
	at := p.placeHome(place)
	for p.places[at].place != 0 && p.places[at].place != place {
		at = (at + 1) & mask
	}
	return at
}

// removePlace empties an entry and moves those behind it up, as remove does in the index.
func (p *Pool) removePlace(at uint32) {
	mask := uint32(len(p.places) - 1)
	for next := at; ; {
		p.places[at] = placeCount{}
		for {
			next = (next + 1) & mask
			if p.places[next].place == 0 {
				return
			}
			home := p.placeHome(p.places[next].place)
			if (next-home)&mask >= (next-at)&mask {
				break
			}
		}
		p.places[at] = p.places[next]
		at = next
	}
}
