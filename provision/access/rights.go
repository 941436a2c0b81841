package access

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// rules are Inputs made ready to be asked about single addresses. What they say of
// each address is what Want says of all: a test compares the two.
type rules struct {
	exempt      []netip.Prefix // tidy
	spares      *spares
	reached     []netip.Prefix // by whoever is paused; tidy
	free        map[provision.SubscriberID]bool
	guests      []AddrRange // in order, apart, no more than MaxGuests addresses
	direct      bool        // some interface is guarded by MAC
	vlan        map[string]bool
	interfaceOf func(*provision.Line) string
	lease       func(netip.Addr) (Grant, bool)

	wires    bool            // IPv6 is looked at by MAC somewhere
	vlan6    map[string]bool // and by interface
	leasesOf func(provision.MAC) []Grant
	lost     map[provision.MAC][]*provision.Line // lines that lost an address to another customer's, which are in no index; of the newest want
	shared   SharedMACs                          // of the newest want
	unheard  map[netip.Addr]Unheard              // of the newest want, by the address of the lease
	ties     ties                                // of the newest want
	crowded  map[string]bool                     // of vlan6, with blocked ones and others behind; of the newest want

	before memory // until the newest want
	last   states // of customers with leases whom the snapshot of the newest want does not have
}

func newRules(in *Inputs) *rules {
	r := &rules{
		exempt: tidyPrefixes(in.ExemptAddrs), spares: newSpares(in), reached: tidyPrefixes(in.Garden), guests: tidyRanges(in.GuestRanges),
		free: make(map[provision.SubscriberID]bool, len(in.Exempt)), vlan: make(map[string]bool, len(in.GuardVLAN)),
		direct: len(in.GuardDirect) > 0, interfaceOf: in.InterfaceOf, lease: in.Lease,
		wires: len(in.IPv6Direct) > 0, vlan6: make(map[string]bool, len(in.IPv6VLAN)), leasesOf: in.LeasesOf,
	}
	for _, id := range in.Exempt {
		r.free[id] = true
	}
	for _, name := range in.GuardVLAN {
		if name != "" && len(name) < nameLen {
			r.vlan[name] = true
		}
	}
	for _, name := range in.IPv6VLAN {
		if name != "" && len(name) < nameLen {
			r.vlan6[name] = true
		}
	}
	return r
}

// tidyRanges returns the IPv4 ranges in order and without what two of them share,
// cut off behind MaxGuests addresses in the order given.
func tidyRanges(ranges []AddrRange) []AddrRange {
	var list []AddrRange
	room := uint64(MaxGuests)
	for _, r := range ranges {
		if !r.From.Is4() || !r.To.Is4() || r.To.Less(r.From) || room == 0 {
			continue
		}
		n := uint64(number(r.To)-number(r.From)) + 1
		if n > room {
			n, r.To = room, addrOf(number(r.From)+uint32(room-1))
		}
		room -= n
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b AddrRange) int { return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To)) })
	var out []AddrRange
	for _, r := range list {
		if n := len(out); n > 0 && !out[n-1].To.Less(r.From) {
			if out[n-1].To.Less(r.To) {
				out[n-1].To = r.To
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// guest reports whether an address is in a range of guests.
func (r *rules) guest(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(r.guests, a, func(g AddrRange, a netip.Addr) int { return g.From.Compare(a) })
	return found || i > 0 && !r.guests[i-1].To.Less(a)
}

// rights are the elements of an ACL that one address has. They are comparable.
type rights struct {
	block  Set // zero: none blocks it
	macs   int // in direct
	direct [2]provision.MAC
	vlan   [2]string // empty ones at the end
}

// bind adds a MAC: of a binding, and of a lease.
func (x *rights) bind(mac provision.MAC) {
	if x.macs > 0 && x.direct[0] == mac {
		return
	}
	x.direct[x.macs] = mac
	if x.macs++; x.macs == 2 && string(x.direct[1][:]) < string(x.direct[0][:]) {
		x.direct[0], x.direct[1] = x.direct[1], x.direct[0]
	}
}

// behind adds an interface: of a binding, and of a lease.
func (x *rights) behind(name string) {
	switch {
	case x.vlan[0] == "":
		x.vlan[0] = name
	case x.vlan[0] < name:
		x.vlan[1] = name
	case x.vlan[0] > name:
		x.vlan[0], x.vlan[1] = name, x.vlan[0]
	}
}

// of returns the rights of an address with what its lease gives, a zero Grant if
// nothing. It does not allocate.
func (r *rules) of(s *provision.Snapshot, ip netip.Addr, g *Grant) (x rights) {
	if !ip.Is4() {
		return x
	}
	line := s.ByIP(ip)
	t := r.tenancy(s, line, ip, g)
	if line != nil {
		t.state = s.State(t.owner)
	}
	exempt := inPrefixes(r.exempt, ip)
	switch {
	case exempt || r.free[t.owner]:
	case t.state == provision.StateStop:
		x.block = SetStopped
	case t.state == provision.StatePause:
		x.block = SetPaused
	}
	if x.block == 0 && line == nil && !t.known && !exempt && r.guest(ip) && !inSubnet(s, ip) {
		x.block = SetGuests
	}
	if x.block != 0 && r.spares.of(ip) != "" {
		x.block = 0
	}
	if r.direct {
		if line != nil && !line.MAC.IsZero() {
			x.bind(line.MAC)
		}
		if g.Direct && t.admits {
			x.bind(g.MAC)
		}
	}
	if len(r.vlan) > 0 {
		if line != nil && r.interfaceOf != nil {
			if name := r.interfaceOf(line); r.vlan[name] {
				x.behind(name)
			}
		}
		if !g.Direct && t.admits && r.vlan[g.Interface] {
			x.behind(g.Interface)
		}
	}
	return x
}

// now returns the rights of an address with the lease that it has now, and what
// that lease gives.
func (r *rules) now(s *provision.Snapshot, ip netip.Addr) (x rights, g Grant) {
	if r.lease != nil {
		g, _ = r.lease(ip)
	}
	return r.of(s, ip, &g), g
}

// rightsIn returns the rights that an address has by a sorted ACL, in which it has
// no more elements than bindings and leases give. It does not allocate.
func rightsIn(a *ACL, ip netip.Addr) (x rights) {
	key := ip.As4()
	x.block = a.hostStanding(ip)
	w := SetBoundDirect.Width()
	for k := SetBoundDirect.at(a[SetBoundDirect], key); len(k) >= w && x.macs < len(x.direct); k = k[w:] {
		var f Fields
		PartMAC.read(string(k[PartAddr.Width():w]), &f)
		x.bind(f.MAC)
	}
	w = SetBoundVLAN.Width()
	for k := SetBoundVLAN.at(a[SetBoundVLAN], key); len(k) >= w; k = k[w:] {
		var f Fields
		PartInterface.read(string(k[:w]), &f)
		x.behind(f.Interface)
	}
	return x
}

// elements are keys by set, in no order.
type elements [setEnd][]byte

// add adds the elements of an address.
func (e *elements) add(ip netip.Addr, x *rights) {
	if x.block != 0 {
		e[x.block], _ = x.block.appendKey(e[x.block], Fields{Addr: ip})
	}
	for _, mac := range x.direct[:x.macs] {
		e[SetBoundDirect], _ = SetBoundDirect.appendKey(e[SetBoundDirect], Fields{Addr: ip, MAC: mac})
	}
	for _, name := range x.vlan {
		if name != "" {
			e[SetBoundVLAN], _ = SetBoundVLAN.appendKey(e[SetBoundVLAN], Fields{Addr: ip, Interface: name})
		}
	}
}

// acl returns the elements as an ACL, sorted.
func (e *elements) acl() (a ACL) {
	for s := range Sets() {
		a[s] = s.Sorted(Keys(e[s]))
	}
	return a
}
