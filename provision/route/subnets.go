package route

import (
	"slices"

	"github.com/usher-agent/usher/provision/lease"
)

// A subscriber's subnets lie behind his own router, so they are routed through the address that it has leased, and follow
// that lease as its host route does. Of a subscriber with several leases each gives the routes; the kernel takes the one that was there first.

// appendRoutes appends what a live lease is to have on an interface. have is what it has: while nobody knows the
// subscriber's subnets, their routes stay.
func (o *Options) appendRoutes(want []Route, rec *lease.Record, ifindex int, have []Route) []Route {
	r := o.route(rec.IP, ifindex)
	want = append(want, r)
	if !o.CustomerSubnets || o.SubnetsOf == nil {
		return want
	}
	list, known := o.SubnetsOf(*rec)
	if !known {
		for _, h := range have {
			if h.Via.IsValid() {
				want = append(want, h)
			}
		}
		return want
	}
	r.Via = rec.IP
	for _, n := range list {
		r.Addr, r.Bits = n.Prefix.Addr(), n.Prefix.Bits()
		want = append(want, r)
	}
	return want
}

// hasAll reports whether have is what a live lease is to have.
func (o *Options) hasAll(have []Route, rec *lease.Record, ifindex int) bool {
	if !o.CustomerSubnets {
		return len(have) == 1 && have[0] == o.route(rec.IP, ifindex)
	}
	var room [4]Route
	want := o.appendRoutes(room[:0], rec, ifindex, have)
	return len(have) == len(want) && !slices.ContainsFunc(want, func(r Route) bool { return !slices.Contains(have, r) })
}

// Recheck looks at all leases: the subnets of subscribers are others.
func (k *Keeper) Recheck() {
	k.mu.Lock()
	relevant := k.opts.CustomerSubnets
	k.reread = k.reread || relevant
	k.mu.Unlock()
	if relevant {
		notify(k.wake)
	}
}
