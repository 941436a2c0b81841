package route

import (
	"net/netip"
	"slices"
)

// installed are the routes that the kernel has, found by the leased address and by interface.
type installed struct {
	of   map[netip.Addr][]Route
	via  map[int]map[netip.Addr]struct{} // by the index of the interface
	n    int                             // of all
	nets int                             // of subnets
}

func newInstalled(routes []Route) installed {
	h := installed{of: make(map[netip.Addr][]Route, len(routes)), via: map[int]map[netip.Addr]struct{}{}}
	for _, r := range routes {
		h.add(r)
	}
	return h
}

// add reports whether the route is new.
func (h *installed) add(r Route) bool {
	if slices.Contains(h.of[r.of()], r) {
		return false
	}
	h.of[r.of()] = append(h.of[r.of()], r)
	on := h.via[r.Ifindex]
	if on == nil {
		on = map[netip.Addr]struct{}{}
		h.via[r.Ifindex] = on
	}
	on[r.of()] = struct{}{}
	h.n++
	if r.Via.IsValid() {
		h.nets++
	}
	return true
}

// drop reports whether the route was there.
func (h *installed) drop(r Route) bool {
	rs := h.of[r.of()]
	i := slices.Index(rs, r)
	if i < 0 {
		return false
	}
	if rs = slices.Delete(rs, i, i+1); len(rs) == 0 {
		delete(h.of, r.of())
	} else {
		h.of[r.of()] = rs
	}
	h.n--
	if r.Via.IsValid() {
		h.nets--
	}
	if slices.ContainsFunc(rs, func(o Route) bool { return o.Ifindex == r.Ifindex }) { // of another table or metric
		return true
	}
	on := h.via[r.Ifindex]
	if delete(on, r.of()); len(on) == 0 {
		delete(h.via, r.Ifindex)
	}
	return true
}

// dropVia forgets the routes by an interface, and returns the addresses that they led to.
func (h *installed) dropVia(ifindex int) map[netip.Addr]struct{} {
	on := h.via[ifindex]
	delete(h.via, ifindex)
	for a := range on {
		before := len(h.of[a])
		for _, r := range h.of[a] {
			if r.Ifindex == ifindex && r.Via.IsValid() {
				h.nets--
			}
		}
		left := slices.DeleteFunc(h.of[a], func(r Route) bool { return r.Ifindex == ifindex })
		h.n -= before - len(left)
		if len(left) == 0 {
			delete(h.of, a)
		} else {
			h.of[a] = left
		}
	}
	return on
}

// all returns every route, in no order.
func (h *installed) all() []Route {
	out := make([]Route, 0, h.n)
	for _, rs := range h.of {
		out = append(out, rs...)
	}
	return out
}
