package access

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"

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

	Garden      []netip.Prefix
	GuestGarden []netip.Prefix
	Resolvers   []netip.Prefix
	DHCPServers []netip.Prefix // beyond this router, that everybody may ask

	// What nobody's state blocks, whoever has it by the ERP, besides gardens,
	// resolvers and DHCP servers.
	Own         []netip.Addr // of this router
	ERP         []netip.Addr
	Gateways    []netip.Addr
	NameServers []netip.Addr   // that this router asks
	Homes       []netip.Prefix // networks of customers, who are blocked there
	Networks    []netip.Prefix // where else customers are blocked; empty: everywhere

	// GuardDirect and GuardVLAN are the interfaces that are guarded. What may
	// come in there are the bindings with a MAC (of all direct interfaces), and
	// what leases give.
	GuardDirect []string
	GuardVLAN   []string
	// InterfaceOf tells the guarded interface that a line is behind;
	// empty: not known. It may be nil.
	InterfaceOf func(*provision.Line) string

	// IPv6 says whether it is looked at at all. IPv6Direct and IPv6VLAN are the interfaces where IPv6 of the blocked is blocked
	// too: by MAC, and by the interface where all behind it are blocked. Both empty:
	// nowhere. IPv6Uplinks are left out of IPv6VLAN, for default routes lead there. LineAt tells the interface of either
	// that a line is behind, empty if it is not known; it may be nil.
	IPv6        IPv6Mode
	IPv6Direct  []string
	IPv6VLAN    []string
	IPv6Uplinks []string
	LineAt      func(*provision.Line) string

	// Leases returns what live leases give their clients, as they are when it is
	// walked, in any order; Lease that of one address, false if nothing. Both may
	// be nil: there are none, or none changes between two rounds.
	Leases iter.Seq[Grant]
	Lease  func(netip.Addr) (Grant, bool)
	// LeasesOf returns those of a MAC; nil: there are none.
	LeasesOf func(provision.MAC) []Grant

	heard *heard // nil: MACs of leases count as they were written
}

// Grant is what the live lease of an address gives its client.
type Grant struct {
	IP netip.Addr
	// Subscriber has the address without a binding, from a pool, and it shares the
	// subscriber's state; zero: nobody's. An address that is bound stays its binding's.
	Subscriber provision.SubscriberID
	// BoundTo had the address by a binding when the lease began; zero: it is of a pool.
	BoundTo provision.SubscriberID
	// Interface is where the client is, if sources are looked at anywhere; empty:
	// behind a relay. With Direct it is guarded by address and MAC.
	Interface string
	Direct    bool
	// Wire says that it is one of IPv6Direct, and that the client was heard there; with Unheard
	// it is one, and the MAC is the client's word alone.
	Wire, Unheard bool
	MAC           provision.MAC
	Renewed       time.Time // newest ACK
	Until         time.Time // the lease ends then, unless it is renewed; zero: never
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

// MaxGuests bounds the addresses of all ranges of guests together: a /14. What is
// behind the first ones is in no set.
const MaxGuests = 1 << 18

// Want returns the ACL that a snapshot and the inputs ask for. Where they disagree
// about an address, being exempt wins over being stopped, that over paused, and
// that over guest. What is not IPv4 is left out. Whoever has a lease and is not in the snapshot counts as stopped.
func Want(s *provision.Snapshot, in Inputs) ACL {
	return newRules(&in).want(s, &in, nil).acl
}

// wish is what a snapshot and the inputs ask for.
type wish struct {
	acl   ACL
	wires wires
	nets  netWant  // what the elements of subnets follow from
	held  withheld // who is not blocked though its state says so
}

// want is Want. It tells each, if given, of the leases whose end may change the ACL.
func (r *rules) want(s *provision.Snapshot, in *Inputs, each func(*Grant)) (out wish) {
	r.unheard = nil
	r.findLost(s)
	leased := r.gather(s, in, each)
	r.before = memory{} // what matters of it is in last; an old snapshot is large
	stopped, paused := s.Blocked()
	if free := r.exemption(s); free != nil {
		stopped, paused = dropAddrs(stopped, free), dropAddrs(paused, free)
	}
	if len(leased.stopped) > 0 {
		stopped = sorted(slices.Concat(stopped, leased.stopped))
	}
	if len(leased.paused) > 0 {
		paused = sorted(slices.Concat(paused, leased.paused))
	}
	stopped = dropAddrs(stopped, r.sparing(s, SetStopped, &out.held))
	paused = dropAddrs(paused, func(a netip.Addr) bool { return contains(stopped, a) })
	paused = dropAddrs(paused, r.sparing(s, SetPaused, &out.held))
	out.acl = ACL{
		SetStopped:       Addrs(stopped...),
		SetPaused:        Addrs(paused...),
		SetGuests:        Addrs(r.guestsAmong(s, leased.known, stopped, paused)...),
		SetGarden:        Prefixes(tidyPrefixes(in.Garden)...),
		SetGuestGarden:   Prefixes(tidyPrefixes(in.GuestGarden)...),
		SetResolvers:     Prefixes(tidyPrefixes(in.Resolvers)...),
		SetGuardedDirect: Interfaces(in.GuardDirect...),
		SetGuardedVLAN:   Interfaces(in.GuardVLAN...),
		SetBoundDirect:   r.boundDirect(s, leased.direct),
		SetBoundVLAN:     r.boundVLAN(s, leased.vlan),
		SetExempt:        Prefixes(r.exempt...),
		SetDHCPServers:   Prefixes(tidyPrefixes(in.DHCPServers)...),
	}
	out.nets = r.ofNets(s, &leased)
	r.addNets(s, &out.nets, &out.acl, &out.held)
	r.addIPv6(s, in, &leased, &out.acl)
	out.acl = out.acl.Sorted()
	out.wires = wiresOf(&out.acl)
	out.wires.put(&out.acl)
	return out
}

// sparing returns what tells whether an address is spared, and notes those that are.
func (r *rules) sparing(s *provision.Snapshot, set Set, w *withheld) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		why := r.spares.of(a)
		if why == "" {
			return false
		}
		x := Withheld{IP: a, Set: set.String(), Why: why}
		if l := s.ByIP(a); l != nil {
			x.Subscriber = l.Subscriber
		}
		w.add(x)
		return true
	}
}

// leased is what all leases give together.
type leased struct {
	stopped, paused []netip.Addr // without the exempt
	known           []netip.Addr // of ranges of guests, with subscribers; sorted
	direct, vlan    []byte       // keys

	// Of customers' subnets: addresses in them that others have, and where their owners are.
	holes    []netip.Prefix
	attached map[provision.SubscriberID]attachment
	pooled   map[netip.Addr]provision.SubscriberID

	macs   []provision.MAC       // of the blocked, where IPv6 is looked at by MAC
	behind map[string]*occupants // of the interfaces of IPv6VLAN
}

// gather walks the leases once and keeps of them what comes into a set.
func (r *rules) gather(s *provision.Snapshot, in *Inputs, each func(*Grant)) (l leased) {
	if in.Leases == nil {
		return l
	}
	nets := len(s.CustomerSubnets()) > 0
	for g := range in.Leases {
		ip := g.IP.Unmap()
		if !ip.Is4() {
			continue
		}
		matters := false
		line := s.ByIP(ip)
		if line == nil || line.Subscriber != g.holder() {
			r.recall(s, g.holder())
		}
		t := r.tenancy(s, line, ip, &g)
		if nets {
			r.gatherNets(s, line, &t, &g, &l)
		}
		if line == nil && t.owner != 0 {
			if t.known && r.guest(ip) {
				l.known, matters = append(l.known, ip), true
			}
			if t.state.Blocks() && !r.free[t.owner] && !inPrefixes(r.exempt, ip) {
				list := &l.paused
				if t.state == provision.StateStop {
					list = &l.stopped
				}
				*list, matters = append(*list, ip), true
			}
		}
		switch { // a name that no interface can have gives no key
		case !t.admits:
		case g.Direct && r.direct:
			l.direct, _ = SetBoundDirect.appendKey(l.direct, Fields{Addr: ip, MAC: g.MAC})
			matters = true
		case !g.Direct && r.vlan[g.Interface]:
			l.vlan, _ = SetBoundVLAN.appendKey(l.vlan, Fields{Addr: ip, Interface: g.Interface})
			matters = true
		}
		if r.ipv6() {
			r.seen(s, ip, &g, &l)
		}
		if matters && each != nil {
			each(&g)
		}
	}
	l.known = sorted(l.known)
	return l
}

// exemption reports whether an address that is bound is exempt; nil: none is.
func (r *rules) exemption(s *provision.Snapshot) func(netip.Addr) bool {
	if len(r.exempt)+len(r.free) == 0 {
		return nil
	}
	addrs := map[netip.Addr]bool{}
	for id := range r.free {
		for l := range s.BySubscriber(id).All() {
			for ip := range l.Hosts4() {
				addrs[ip] = true
			}
		}
	}
	return func(a netip.Addr) bool { return addrs[a] || inPrefixes(r.exempt, a) }
}

// guestsAmong returns the addresses of the ranges that no subscriber has, in order.
func (r *rules) guestsAmong(s *provision.Snapshot, leased, stopped, paused []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, g := range r.guests {
		for a := g.From; a.IsValid() && a.Compare(g.To) <= 0; a = a.Next() {
			if s.ByIP(a) == nil && !inSubnet(s, a) && !contains(leased, a) && !contains(stopped, a) && !contains(paused, a) && !inPrefixes(r.exempt, a) && r.spares.of(a) == "" {
				out = append(out, a)
			}
		}
	}
	return out
}

// boundDirect returns what may come in by the interfaces guarded by MAC: the
// bindings, besides the keys of leases.
func (r *rules) boundDirect(s *provision.Snapshot, keys []byte) Keys {
	if !r.direct {
		return ""
	}
	keys = slices.Grow(keys, s.Len()*SetBoundDirect.Width())
	for ip, l := range s.Hosts4() {
		if !l.MAC.IsZero() {
			keys, _ = SetBoundDirect.appendKey(keys, Fields{Addr: ip, MAC: l.MAC}) // all are IPv4
		}
	}
	return Keys(keys)
}

// boundVLAN is boundDirect for the interfaces guarded by address.
func (r *rules) boundVLAN(s *provision.Snapshot, keys []byte) Keys {
	for l := range s.Lines().All() {
		if len(r.vlan) == 0 || r.interfaceOf == nil {
			break
		}
		if name := r.interfaceOf(l); r.vlan[name] {
			for ip := range l.Hosts4() {
				keys, _ = SetBoundVLAN.appendKey(keys, Fields{Addr: ip, Interface: name})
			}
		}
	}
	return Keys(keys)
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

// comparePrefixes orders by address, of those with the same one the shorter first.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
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
