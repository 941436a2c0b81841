package access

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
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
	// InterfaceOf tells the guarded interface that a line is behind;
	// empty: not known. It may be nil.
	InterfaceOf func(*provision.Line) string
}

// DirectBinding is an address with the only MAC that may use it.
type DirectBinding struct {
	IP  netip.Addr
	MAC provision.MAC
}

// VLANBinding is an address with the only interface that it may come from.
type VLANBinding struct {
	Interface string
	IP        netip.Addr
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

// Want returns the ACL that a snapshot and the inputs ask for. Where they disagree
// about an address, being exempt wins over being stopped, that over paused, and
// that over guest. What is not IPv4 is left out.
func Want(s *provision.Snapshot, in Inputs) ACL {
	stopped, paused := s.Blocked()
	stopped, paused = withLeases(s, in.Leases, stopped, paused)
	exempt := tidyPrefixes(in.ExemptAddrs)
	if len(exempt)+len(in.Exempt) > 0 {
		free := exemption(s, in, exempt)
		stopped, paused = dropAddrs(stopped, free), dropAddrs(paused, free)
	}
	paused = dropAddrs(paused, func(a netip.Addr) bool { return contains(stopped, a) })
	return ACL{
		SetStopped:       Addrs(stopped...),
		SetPaused:        Addrs(paused...),
		SetGuests:        Addrs(guests(s, in, exempt, stopped, paused)...),
		SetGarden:        Prefixes(tidyPrefixes(in.Garden)...),
		SetGuestGarden:   Prefixes(tidyPrefixes(in.GuestGarden)...),
		SetResolvers:     Prefixes(tidyPrefixes(in.Resolvers)...),
		SetGuardedDirect: Interfaces(in.GuardDirect...),
		SetGuardedVLAN:   Interfaces(in.GuardVLAN...),
		SetBoundDirect:   boundDirect(s, in),
		SetBoundVLAN:     boundVLAN(s, in),
		SetExempt:        Prefixes(exempt...),
	}.Sorted()
}

// withLeases adds the addresses from pools to those of the bindings.
func withLeases(s *provision.Snapshot, leases []SubscriberAddr, stopped, paused []netip.Addr) ([]netip.Addr, []netip.Addr) {
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

// exemption reports whether an address is exempt.
func exemption(s *provision.Snapshot, in Inputs, prefixes []netip.Prefix) func(netip.Addr) bool {
	addrs := map[netip.Addr]bool{}
	ids := map[provision.SubscriberID]bool{}
	for _, id := range in.Exempt {
		ids[id] = true
		for l := range s.BySubscriber(id).All() {
			for ip := range l.Hosts4() {
				addrs[ip] = true
			}
		}
	}
	for _, l := range in.Leases {
		if ids[l.Subscriber] && s.ByIP(l.IP.Unmap()) == nil {
			addrs[l.IP.Unmap()] = true
		}
	}
	return func(a netip.Addr) bool { return addrs[a] || inPrefixes(prefixes, a) }
}

// guests returns the addresses of the ranges that no subscriber has, in order.
func guests(s *provision.Snapshot, in Inputs, exempt []netip.Prefix, stopped, paused []netip.Addr) []netip.Addr {
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
			if s.ByIP(a) == nil && !leased[a] && !contains(stopped, a) && !contains(paused, a) && !inPrefixes(exempt, a) {
				out = append(out, a)
			}
		}
	}
	return sorted(out)
}

// boundDirect returns what may come in by the interfaces guarded by MAC.
func boundDirect(s *provision.Snapshot, in Inputs) Keys {
	if len(in.GuardDirect) == 0 {
		return ""
	}
	keys := slices.Grow([]byte(DirectBindings(in.BoundDirect...)), s.Len()*SetBoundDirect.Width())
	for ip, l := range s.Hosts4() {
		if !l.MAC.IsZero() {
			keys, _ = SetBoundDirect.appendKey(keys, Fields{Addr: ip, MAC: l.MAC}) // all are IPv4
		}
	}
	return Keys(keys)
}

// boundVLAN returns what may come in by the interfaces guarded by address.
func boundVLAN(s *provision.Snapshot, in Inputs) Keys {
	guarded := map[string]bool{}
	for _, name := range in.GuardVLAN {
		guarded[name] = true
	}
	var out []VLANBinding
	for _, b := range in.BoundVLAN {
		if guarded[b.Interface] {
			out = append(out, b)
		}
	}
	for l := range s.Lines().All() {
		if len(guarded) == 0 || in.InterfaceOf == nil {
			break
		}
		if name := in.InterfaceOf(l); guarded[name] {
			for ip := range l.Hosts4() {
				out = append(out, VLANBinding{name, ip})
			}
		}
	}
	return VLANBindings(out...)
}

// dropAddrs returns the addresses for which drop is false: addrs itself if that is all.
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

// tidyPrefixes returns the IPv4 prefixes in order, masked, without those that lie
// in another: the kernel refuses intervals that overlap.
func tidyPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() && p.Addr().Is4() {
			list = append(list, p.Masked())
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	var out []netip.Prefix
	for _, p := range list {
		// In this order whatever holds p stands right before it.
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// inPrefixes reports whether one of the tidy prefixes holds the address.
func inPrefixes(prefixes []netip.Prefix, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(prefixes, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && prefixes[i-1].Contains(a)
}

// sorted returns addrs in order and without repeats, itself if it is so already.
func sorted(addrs []netip.Addr) []netip.Addr {
	for i := 1; i < len(addrs); i++ {
		if addrs[i-1].Compare(addrs[i]) >= 0 {
			addrs = slices.Clone(addrs)
			slices.SortFunc(addrs, netip.Addr.Compare)
			return slices.Compact(addrs)
		}
	}
	return addrs
}

func contains(addrs []netip.Addr, a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(addrs, a, netip.Addr.Compare)
	return ok
}
