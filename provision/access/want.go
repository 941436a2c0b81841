package access

import (
	"github.com/usher-agent/usher/provision"
	"net/netip"
	"slices"
)

// Inputs are what an ACL follows from besides a snapshot. The zero value adds
// nothing. Lists may be in any order and are not written to.
type Inputs struct {
	// Exempt are subscribers that are never blocked, whatever their state, and
	// ExemptAddrs addresses that are never blocked, whoever has them. The latter
	// pass the source guard too.
	Exempt      []provision.SubscriberID
	ExemptAddrs []netip.Prefix

	// GuestRanges are addresses given to those who are nobody's customers. What
	// a subscriber has is taken out of them.
	GuestRanges []AddrRange
	// Leases are addresses that subscribers have without a binding, from a pool.
	// They share their subscriber's state. An address that is bound stays its
	// binding's.
	Leases []SubscriberAddr

	Garden      []netip.Prefix
	GuestGarden []netip.Prefix
	Resolvers   []netip.Prefix

	// GuardDirect and GuardVLAN are the interfaces that are guarded. What may
	// come in there are the bindings with a MAC (of all direct interfaces), and
	// what is given here besides: live leases, as a rule.
	GuardDirect []string
	GuardVLAN   []string
	BoundDirect []DirectBinding
	BoundVLAN   []VLANBinding
	// InterfaceOf tells the guarded interface behind which a binding lives;
	// empty: not known. It may be nil.
	InterfaceOf func(*provision.Binding) string
}

// AddrRange is a range of IPv4 addresses with both its ends.
type AddrRange struct {
	From, To netip.Addr
}

// SubscriberAddr is an address with the subscriber who has it.
type SubscriberAddr struct {
	Subscriber provision.SubscriberID
	IP         netip.Addr
}

// maxGuests bounds the addresses that ranges of guests become: a /14.
const maxGuests = 1 << 18

// Want gives the ACL that a snapshot and the inputs ask for. Where they disagree
// about an address, being exempt wins over being stopped, that over paused, and
// that over guest. The lists may be shared with the snapshot: they must not be
// written to.
func Want(s *provision.Snapshot, in Inputs) ACL {
	var w ACL
	w.Stopped, w.Paused = s.Blocked()
	w.Stopped, w.Paused = withLeases(s, in.Leases, w)
	exempt := tidyPrefixes(in.ExemptAddrs)
	if len(exempt)+len(in.Exempt) > 0 {
		free := exemption(s, in, exempt)
		w.Stopped, w.Paused = dropAddrs(w.Stopped, free), dropAddrs(w.Paused, free)
	}
	w.Paused = dropAddrs(w.Paused, func(a netip.Addr) bool { return contains(w.Stopped, a) })
	w.Guests = guests(s, in, exempt, w)
	w.Garden, w.GuestGarden, w.Resolvers = tidyPrefixes(in.Garden), tidyPrefixes(in.GuestGarden), tidyPrefixes(in.Resolvers)
	w.Guard = sourceGuard(s, in)
	w.Guard.Exempt = exempt
	return w.Sorted()
}

// withLeases adds the addresses from pools to those of the bindings.
func withLeases(s *provision.Snapshot, leases []SubscriberAddr, w ACL) (stopped, paused []netip.Addr) {
	stopped, paused = w.Stopped, w.Paused
	var more [2][]netip.Addr
	for _, l := range leases {
		ip := l.IP.Unmap()
		if !ip.Is4() || s.ByIP(ip) != nil {
			continue
		}
		switch s.State(l.Subscriber) {
		case provision.StateStop:
			more[0] = append(more[0], ip)
		case provision.StatePause:
			more[1] = append(more[1], ip)
		}
	}
	if len(more[0]) > 0 {
		stopped = sorted(slices.Concat(stopped, more[0]))
	}
	if len(more[1]) > 0 {
		paused = sorted(slices.Concat(paused, more[1]))
	}
	return stopped, paused
}

// exemption tells whether an address is exempt.
func exemption(s *provision.Snapshot, in Inputs, prefixes []netip.Prefix) func(netip.Addr) bool {
	addrs := map[netip.Addr]bool{}
	ids := map[provision.SubscriberID]bool{}
	for _, id := range in.Exempt {
		ids[id] = true
		for _, b := range s.BySubscriber(id) {
			addrs[b.IP] = true
		}
	}
	for _, l := range in.Leases {
		if ids[l.Subscriber] && s.ByIP(l.IP.Unmap()) == nil {
			addrs[l.IP.Unmap()] = true
		}
	}
	return func(a netip.Addr) bool { return addrs[a] || inPrefixes(prefixes, a) }
}

// guests gives the addresses of the ranges that no subscriber has, in order.
func guests(s *provision.Snapshot, in Inputs, exempt []netip.Prefix, w ACL) []netip.Addr {
	if len(in.GuestRanges) == 0 {
		return nil
	}
	leased := make(map[netip.Addr]bool, len(in.Leases))
	for _, l := range in.Leases {
		if _, known := s.Subscriber(l.Subscriber); known {
			leased[l.IP.Unmap()] = true
		}
	}
	var out []netip.Addr
	for _, r := range in.GuestRanges {
		if !r.From.Is4() || !r.To.Is4() {
			continue
		}
		for a := r.From; a.IsValid() && a.Compare(r.To) <= 0 && len(out) < maxGuests; a = a.Next() {
			if s.ByIP(a) == nil && !leased[a] && !contains(w.Stopped, a) && !contains(w.Paused, a) && !inPrefixes(exempt, a) {
				out = append(out, a)
			}
		}
	}
	return sorted(out)
}

// sourceGuard gives what may come in by the guarded interfaces.
func sourceGuard(s *provision.Snapshot, in Inputs) SourceGuard {
	g := SourceGuard{Direct: in.GuardDirect, VLAN: in.GuardVLAN}
	if len(g.Direct) > 0 {
		g.BoundDirect = slices.Clone(in.BoundDirect)
		for i := range s.Bindings() {
			if b := &s.Bindings()[i]; b.MAC != (provision.MAC{}) {
				g.BoundDirect = append(g.BoundDirect, DirectBinding{b.IP, b.MAC})
			}
		}
	}
	if len(g.VLAN) > 0 {
		guarded := map[string]bool{}
		for _, name := range g.VLAN {
			guarded[name] = true
		}
		for _, b := range in.BoundVLAN {
			if guarded[b.Interface] {
				g.BoundVLAN = append(g.BoundVLAN, b)
			}
		}
		for i := range s.Bindings() {
			if in.InterfaceOf == nil {
				break
			}
			b := &s.Bindings()[i]
			if name := in.InterfaceOf(b); guarded[name] {
				g.BoundVLAN = append(g.BoundVLAN, VLANBinding{name, b.IP})
			}
		}
	}
	return g
}

// dropAddrs gives the addresses for which drop is false: addrs itself if that is all.
func dropAddrs(addrs []netip.Addr, drop func(netip.Addr) bool) []netip.Addr {
	i := slices.IndexFunc(addrs, drop)
	if i < 0 {
		return addrs
	}
	out := slices.Clone(addrs[:i])
	for _, a := range addrs[i+1:] {
		if !drop(a) {
			out = append(out, a)
		}
	}
	return out
}

// tidyPrefixes gives the IPv4 prefixes in order, masked, without those that lie
// in another: the kernel refuses intervals that overlap.
func tidyPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is4() {
			list = append(list, p.Masked())
		}
	}
	slices.SortFunc(list, comparePrefixes)
	var out []netip.Prefix
	for _, p := range list {
		// In this order whatever holds p stands right before it.
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// inPrefixes tells whether one of the tidy prefixes holds the address.
func inPrefixes(prefixes []netip.Prefix, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(prefixes, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && prefixes[i-1].Contains(a)
}
