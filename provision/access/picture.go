package access

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/usher-agent/usher/provision"
)

// picture is what the kernel was brought to by the newest round that succeeded, or
// with a dry run would have been, with the changes of single addresses since, and
// what it follows from. Such a change leaves the arrays of all elements alone, for
// they may be long: it lies over them, until the next round makes another picture.
type picture struct {
	snap  *provision.Snapshot
	in    Inputs
	rules *rules
	base  ACL     // sorted
	wires wires   // as they are now; the Enforcer's alone
	nets  netWant // mu guards pooled

	mu      sync.RWMutex                          // guards everything below, for those who read while the Enforcer writes
	changed map[uint32]rights                     // of an address, in place of what base has for it
	moved   map[provision.SubscriberID]attachment // of owners of subnets, in place of that in nets
	links   map[string]Set                        // of a MAC or an interface, in place of what base has for it; zero: none
	ties    ties
	counts  SetCounts
}

// of returns the rights that an IPv4 address has. It does not allocate.
func (p *picture) of(ip netip.Addr) rights {
	p.mu.RLock()
	x, ok := p.changed[number(ip)]
	p.mu.RUnlock()
	if ok {
		return x
	}
	return rightsIn(&p.base, ip)
}

// standing returns the set that blocks an address; zero if none does.
func (p *picture) standing(ip netip.Addr) Set {
	if !ip.Is4() {
		return 0
	}
	p.mu.RLock()
	x, ok := p.changed[number(ip)]
	p.mu.RUnlock()
	if !ok {
		return p.base.Standing(ip)
	}
	if x.block != 0 {
		return x.block
	}
	return p.base.netStanding(ip)
}

// news are what a step has found to be others.
type news struct {
	changed map[netip.Addr]rights
	wires   wires
	moved   map[provision.SubscriberID]attachment // owners of subnets
	links   []relinked
}

// set takes other rights of addresses, tallies, places of owners of subnets, MACs and interfaces, and returns the number of elements then.
func (p *picture) set(n *news, want, have ACL) SetCounts {
	maps.Copy(p.wires, n.wires)
	added, removed := want.Counts(), have.Counts()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(map[uint32]rights, len(n.changed))
	}
	for ip, x := range n.changed {
		p.changed[number(ip)] = x
	}
	if p.moved == nil && len(n.moved) > 0 {
		p.moved = map[provision.SubscriberID]attachment{}
	}
	maps.Copy(p.moved, n.moved)
	if p.links == nil && len(n.links) > 0 {
		p.links = make(map[string]Set, len(n.links))
	}
	for _, l := range n.links {
		p.links[l.key] = l.now
	}
	for s := range Sets() {
		p.counts[s] += added[s] - removed[s]
	}
	return p.counts
}

// whole returns the ACL with the changes in it.
func (p *picture) whole() ACL {
	if len(p.changed)+len(p.moved)+len(p.links) == 0 { // only who writes calls this
		return p.base
	}
	var gone, come elements
	for n, x := range p.changed {
		ip := addrOf(n)
		old := rightsIn(&p.base, ip)
		gone.add(ip, &old)
		come.add(ip, &x)
	}
	for id, x := range p.moved {
		old := p.nets.of(id)
		gone.addOwner(p.nets.parts, id, &old)
		come.addOwner(p.nets.parts, id, &x)
	}
	for key, set := range p.links {
		gone.addLink(p.baseLink(key), key)
		come.addLink(set, key)
	}
	a, less, more := p.base, gone.acl(), come.acl()
	for s := range Sets() {
		if less[s] != more[s] {
			a[s] = s.Sorted(s.minus(a[s], less[s]) + more[s])
		}
	}
	p.wires.put(&a)
	return a
}

// same reports whether other Inputs lead to the same ACL, but for what leases give.
func (in *Inputs) same(o *Inputs) bool {
	return slices.Equal(in.Exempt, o.Exempt) && slices.Equal(in.ExemptAddrs, o.ExemptAddrs) && slices.Equal(in.GuestRanges, o.GuestRanges) &&
		slices.Equal(in.Garden, o.Garden) && slices.Equal(in.GuestGarden, o.GuestGarden) && slices.Equal(in.Resolvers, o.Resolvers) && slices.Equal(in.DHCPServers, o.DHCPServers) &&
		slices.Equal(in.GuardDirect, o.GuardDirect) && slices.Equal(in.GuardVLAN, o.GuardVLAN) && in.sparesSame(o) &&
		in.IPv6 == o.IPv6 && slices.Equal(in.IPv6Direct, o.IPv6Direct) && slices.Equal(in.IPv6VLAN, o.IPv6VLAN) && slices.Equal(in.IPv6Uplinks, o.IPv6Uplinks)
}
