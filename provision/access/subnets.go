package access

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// What customers' subnets have in the sets: the parts that are theirs are blocked with their owner, and let in by the source guard wherever
// one of the owner's own addresses is. The former follows from the snapshot and the Inputs, the latter from leases too, so
// it changes between rounds with the rights of an address.

// attachment is where the source guard lets a customer's addresses in, sorted.
type attachment struct {
	macs   []provision.MAC
	behind []string // interfaces
}

func (x *attachment) addMAC(m provision.MAC) {
	if i, found := slices.BinarySearchFunc(x.macs, m, compareMACs); !found {
		x.macs = slices.Insert(x.macs, i, m)
	}
}

func compareMACs(a, b provision.MAC) int { return slices.Compare(a[:], b[:]) }

func (x *attachment) addInterface(name string) {
	if i, found := slices.BinarySearch(x.behind, name); !found {
		x.behind = slices.Insert(x.behind, i, name)
	}
}

func (x *attachment) same(o *attachment) bool {
	return slices.Equal(x.macs, o.macs) && slices.Equal(x.behind, o.behind)
}

// netWant is what a round works out of the subnets.
type netWant struct {
	parts    []provision.Subnet                    // by owner, as far as they are nobody else's
	attached []ownerAttachment                     // of each owner of a part, by owner
	pooled   map[netip.Addr]provision.SubscriberID // what owners have by leases alone
}

type ownerAttachment struct {
	id provision.SubscriberID
	attachment
}

// of returns where an owner is let in.
func (w *netWant) of(id provision.SubscriberID) attachment {
	i, found := slices.BinarySearchFunc(w.attached, id, func(o ownerAttachment, id provision.SubscriberID) int { return cmp.Compare(o.id, id) })
	if !found {
		return attachment{}
	}
	return w.attached[i].attachment
}

// guarded reports whether sources are looked at anywhere.
func (r *rules) guarded() bool { return r.direct || len(r.vlan) > 0 }

// ofNets works the subnets out, with what the leases told: taken are addresses that others have from pools.
func (r *rules) ofNets(s *provision.Snapshot, l *leased) netWant {
	w := netWant{parts: s.SubnetParts(), pooled: l.pooled}
	if len(w.parts) == 0 {
		return w
	}
	if holes := append(slices.Clone(r.exempt), l.holes...); len(holes) > 0 {
		w.parts = cut(w.parts, tidyPrefixes(holes))
	}
	if !r.guarded() {
		return w
	}
	w.attached = make([]ownerAttachment, 0, len(w.parts))
	for i, p := range w.parts {
		if i > 0 && w.parts[i-1].Subscriber == p.Subscriber {
			continue
		}
		x := l.attached[p.Subscriber]
		r.attachLines(s, p.Subscriber, &x)
		w.attached = append(w.attached, ownerAttachment{p.Subscriber, x})
	}
	return w
}

// cut returns parts without tidy holes. As a rule none is in any.
func cut(parts []provision.Subnet, holes []netip.Prefix) []provision.Subnet {
	var out []provision.Subnet
	for _, p := range parts {
		i, _ := slices.BinarySearchFunc(holes, p.Prefix.Addr(), func(h netip.Prefix, a netip.Addr) int { return h.Addr().Compare(a) })
		if i > 0 && holes[i-1].Overlaps(p.Prefix) {
			i--
		}
		to := i
		for to < len(holes) && holes[to].Overlaps(p.Prefix) {
			to++
		}
		for _, left := range provision.Without(p.Prefix, holes[i:to]) {
			out = append(out, provision.Subnet{Prefix: left, Subscriber: p.Subscriber})
		}
	}
	return out
}

// attachLines adds where the bindings of a customer let it in.
func (r *rules) attachLines(s *provision.Snapshot, id provision.SubscriberID, x *attachment) {
	for l := range s.BySubscriber(id).All() {
		if l.Vacant() {
			continue
		}
		if r.direct && !l.MAC.IsZero() {
			x.addMAC(l.MAC)
		}
		if len(r.vlan) > 0 && r.interfaceOf != nil {
			if name := r.interfaceOf(l); r.vlan[name] {
				x.addInterface(name)
			}
		}
	}
}

// attachLease adds where a lease lets a customer in.
func (r *rules) attachLease(g *Grant, x *attachment) {
	switch {
	case g.Direct && r.direct:
		x.addMAC(g.MAC)
	case !g.Direct && r.vlan[g.Interface]:
		x.addInterface(g.Interface)
	}
}

// attachment works out where one owner is let in now. pooled may have addresses of others, too.
func (r *rules) attachment(s *provision.Snapshot, id provision.SubscriberID, pooled map[netip.Addr]provision.SubscriberID) (x attachment) {
	r.attachLines(s, id, &x)
	if r.lease == nil {
		return x
	}
	for l := range s.BySubscriber(id).All() {
		for ip := range l.Hosts4() {
			if g, ok := r.lease(ip); ok {
				if t := r.tenancy(s, l, ip, &g); t.attaches(&g) {
					r.attachLease(&g, &x)
				}
			}
		}
	}
	for ip, owner := range pooled {
		if owner != id {
			continue
		}
		if g, ok := r.lease(ip); ok && r.tenancy(s, s.ByIP(ip), ip, &g).owner == id {
			r.attachLease(&g, &x)
		}
	}
	return x
}

// gatherNets takes what a lease has to do with subnets.
func (r *rules) gatherNets(s *provision.Snapshot, line *provision.Line, t *tenancy, g *Grant, l *leased) {
	ip, owner := g.IP.Unmap(), t.owner
	if owner == 0 {
		return
	}
	if line == nil {
		if n, in := s.SubnetOf(ip); in && n.Subscriber != owner {
			l.holes = append(l.holes, netip.PrefixFrom(ip, 32)) // it had the address before the subnet was given
		}
	}
	if !r.guarded() || !t.attaches(g) || len(s.SubnetsOf(owner)) == 0 {
		return
	}
	if l.attached == nil {
		l.attached, l.pooled = map[provision.SubscriberID]attachment{}, map[netip.Addr]provision.SubscriberID{}
	}
	x := l.attached[owner]
	r.attachLease(g, &x)
	l.attached[owner] = x
	if line == nil {
		l.pooled[ip] = owner
	}
}

// unspared returns what of a blocked part others do not need, and notes the rest.
func (r *rules) unspared(p provision.Subnet, kind Set, held *withheld) []netip.Prefix {
	holes := r.spares.holes(p.Prefix)
	for _, h := range holes {
		at := h.Addr()
		if h.Bits() < p.Prefix.Bits() {
			at = p.Prefix.Addr()
		}
		why := r.spares.of(at)
		if why == "" {
			why = SparedNetwork
		}
		held.add(Withheld{IP: at, Subscriber: p.Subscriber, Set: kind.String(), Why: why})
	}
	return provision.Without(p.Prefix, holes)
}

// addNets adds the elements of the subnets to an ACL.
func (r *rules) addNets(s *provision.Snapshot, w *netWant, a *ACL, held *withheld) {
	if len(w.parts) == 0 {
		return
	}
	var e elements
	subs, i, at := s.Subscribers(), 0, 0 // all are by subscriber
	for _, p := range w.parts {
		for i < len(subs) && subs[i].ID < p.Subscriber {
			i++
		}
		if i < len(subs) && subs[i].ID == p.Subscriber && subs[i].State.Blocks() && !r.free[p.Subscriber] {
			kind := SetPaused
			if subs[i].State == provision.StateStop {
				kind = SetStopped
			}
			for _, part := range r.unspared(p, kind, held) {
				set := kind.Subnets(part.Bits())
				e[set], _ = set.appendKey(e[set], Fields{Prefix: part})
			}
		}
		for at < len(w.attached) && w.attached[at].id < p.Subscriber {
			at++
		}
		if at < len(w.attached) {
			e.addBound(p.Prefix, &w.attached[at].attachment)
		}
	}
	for set := firstNet; set < setEnd; set++ {
		a[set] = Keys(e[set])
	}
}

// addBound adds the elements by which a subnet is let in.
func (e *elements) addBound(p netip.Prefix, x *attachment) {
	direct, vlan := SetBoundDirect.Subnets(p.Bits()), SetBoundVLAN.Subnets(p.Bits())
	for _, m := range x.macs {
		e[direct], _ = direct.appendKey(e[direct], Fields{Prefix: p, MAC: m})
	}
	for _, name := range x.behind {
		e[vlan], _ = vlan.appendKey(e[vlan], Fields{Prefix: p, Interface: name})
	}
}

// addOwner adds those of all subnets of an owner.
func (e *elements) addOwner(parts []provision.Subnet, id provision.SubscriberID, x *attachment) {
	i, _ := slices.BinarySearchFunc(parts, id, func(p provision.Subnet, id provision.SubscriberID) int { return cmp.Compare(p.Subscriber, id) })
	for ; i < len(parts) && parts[i].Subscriber == id; i++ {
		e.addBound(parts[i].Prefix, x)
	}
}

// attachedNow returns where an owner of subnets is let in by what is shown.
func (p *picture) attachedNow(id provision.SubscriberID) attachment {
	if x, ok := p.moved[id]; ok {
		return x
	}
	return p.nets.of(id)
}

// poolOwner returns the owner of subnets who has an address by a lease alone; zero: none has.
func (p *picture) poolOwner(ip netip.Addr, g *Grant) provision.SubscriberID {
	if len(p.nets.parts) == 0 || !p.rules.guarded() || g.holder() == 0 || p.snap.ByIP(ip) != nil {
		return 0
	}
	owner := p.rules.tenancy(p.snap, nil, ip, g).owner
	if len(p.snap.SubnetsOf(owner)) == 0 {
		return 0
	}
	return owner
}

// samePoolOwner reports whether that is the one who is shown.
func (p *picture) samePoolOwner(ip netip.Addr, g *Grant) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.nets.pooled[ip] == p.poolOwner(ip, g)
}

// ownersOf notes the owners of subnets whose address one is or was: they may be let in elsewhere now.
func (p *picture) ownersOf(ip netip.Addr, g *Grant, into map[provision.SubscriberID]struct{}) {
	if len(p.nets.parts) == 0 || !p.rules.guarded() {
		return
	}
	if l := p.snap.ByIP(ip); l != nil {
		into[l.Subscriber] = struct{}{}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, now := p.nets.pooled[ip], p.poolOwner(ip, g)
	for _, id := range []provision.SubscriberID{old, now} {
		if id != 0 {
			into[id] = struct{}{}
		}
	}
	if now == 0 {
		delete(p.nets.pooled, ip)
		return
	}
	if p.nets.pooled == nil {
		p.nets.pooled = map[netip.Addr]provision.SubscriberID{}
	}
	p.nets.pooled[ip] = now
}

// moveOwners works out where owners are let in now, and adds what differs.
func (p *picture) moveOwners(owners map[provision.SubscriberID]struct{}, wants, has *elements) map[provision.SubscriberID]attachment {
	var moved map[provision.SubscriberID]attachment
	for id := range owners {
		if len(p.snap.SubnetsOf(id)) == 0 {
			continue
		}
		now, old := p.rules.attachment(p.snap, id, p.nets.pooled), p.attachedNow(id)
		if now.same(&old) {
			continue
		}
		if moved == nil {
			moved = map[provision.SubscriberID]attachment{}
		}
		moved[id] = now
		wants.addOwner(p.nets.parts, id, &now)
		has.addOwner(p.nets.parts, id, &old)
	}
	return moved
}
