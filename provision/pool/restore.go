package pool

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Known is what is known of an address from before.
type Known struct {
	IP    netip.Addr
	Owner provision.Owner
	State State
	Until time.Time // of StateFree: since when, for the longest unused one goes to a new client first
	Place uint64    // where the client is, as SetPlace has it
}

// RestoreAll is Restore and SetPlace of many addresses, each of which comes once, in whatever order, for a pool that is new.
func (p *Pool) RestoreAll(all iter.Seq[Known]) {
	var order []uint64
	for k := range all {
		if i, ok := p.at(k.IP); ok {
			// What waits stands in the slot: a list of a million would take as long as the rest.
			s := &p.slots[i]
			s.until, s.place, s.owner, s.coming = k.Until.UnixMilli(), k.Place, k.Owner, k.State
			order = append(order, uint64(i))
		}
	}
	p.sortByUntil(order)
	for _, i := range order {
		s := &p.slots[i]
		until, place, owner, state := s.until, s.place, s.owner, s.coming
		s.until, s.place, s.owner, s.coming = 0, 0, provision.Owner{}, 0
		if p.restore(uint32(i), owner, state, until) {
			p.setPlace(uint32(i), place)
		}
	}
}

// sortByUntil sorts slots by their time, and by address. It sorts numbers, which takes a tenth of the time that slots would take.
func (p *Pool) sortByUntil(order []uint64) {
	const slotBits = 20 // of MaxSize
	if len(order) == 0 {
		return
	}
	least := p.slots[order[0]].until
	for _, i := range order {
		least = min(least, p.slots[i].until)
	}
	for n, i := range order {
		after := uint64(p.slots[i].until) - uint64(least)
		order[n] = min(after, 1<<(64-slotBits)-1)<<slotBits | i
	}
	slices.Sort(order)
	for n := range order {
		order[n] &= 1<<slotBits - 1
	}
}
