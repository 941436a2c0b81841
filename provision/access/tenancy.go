package access

import (
	"cmp"
	"net/netip"

	"github.com/usher-agent/usher/provision"
)

// A lease outlives the row that it was given for: the ERP drops rows of customers who are blocked, and customers altogether, or gives an
// address to somebody else. What the lease is worth then follows from the state of the customer whom it was given to.

// tenancy is what the ERP, as it is now, makes of an address with the lease that it has.
type tenancy struct {
	owner  provision.SubscriberID // whose state the address shares; zero: nobody's
	state  provision.State        // of the owner, if no line has the address
	known  bool                   // the ERP has the owner
	admits bool                   // the source guard lets the client of the lease in
}

// holder returns the customer whom the lease was given to; zero: nobody's customer.
func (g *Grant) holder() provision.SubscriberID { return cmp.Or(g.BoundTo, g.Subscriber) }

// tenancy judges an address that line has, if not nil, with what its lease gives. It does not allocate.
func (r *rules) tenancy(s *provision.Snapshot, line *provision.Line, ip netip.Addr, g *Grant) (t tenancy) {
	holder := g.holder()
	if line != nil {
		t.owner, t.known = line.Subscriber, true
		switch holder {
		case t.owner:
			t.admits = true
		case 0: // a guest had the address before it was bound: the row may mean him
			t.admits = line.MAC.IsZero() || line.MAC == g.MAC
		default: // it was bound to another one: he keeps it until his next renewal, if he is no blocked one
			t.admits = r.mayUse(s, holder)
		}
		return t
	}
	if holder == 0 {
		t.admits = true
		return t
	}
	if n, in := s.SubnetOf(ip); in && g.BoundTo != 0 && n.Subscriber != holder { // the subnet's owner has it
		t.admits = r.mayUse(s, holder)
		return t
	}
	t.owner, t.admits = holder, true
	if t.state, t.known = r.stateOf(s, holder); t.known {
		return t
	}
	if _, told := r.last[holder]; !told && r.guest(ip) && !inSubnet(s, ip) {
		t.state = provision.StateUnknown // a guest, then
	}
	return t
}

// attaches reports whether the lease tells where the owner of the address is.
func (t *tenancy) attaches(g *Grant) bool {
	holder := g.holder()
	return t.admits && t.owner != 0 && (holder == 0 || holder == t.owner)
}

// mayUse reports whether whoever has a lease of an address that the ERP gives to another may go on with it.
func (r *rules) mayUse(s *provision.Snapshot, holder provision.SubscriberID) bool {
	st, _ := r.stateOf(s, holder)
	return !st.Blocks() || r.free[holder]
}

// stateOf returns a customer's state. Of whom the ERP does not have any more it is the last one that it had, or stopped if nobody knows
// that; known is false then.
func (r *rules) stateOf(s *provision.Snapshot, id provision.SubscriberID) (state provision.State, known bool) {
	if sub, listed := s.Subscriber(id); listed {
		return sub.State, true
	}
	if s.BySubscriber(id).Len() > 0 || len(s.SubnetsOf(id)) > 0 {
		return provision.StateUnknown, true
	}
	if st, told := r.last[id]; told {
		return st, false
	}
	return provision.StateStop, false
}

// memory is what was known before a round of customers whom its snapshot may not have any more. The zero value knows nobody.
type memory struct {
	snap *provision.Snapshot
	last states // of those whom snap does not have either, and who have leases
}

// states are those that customers had when the ERP still had them.
type states map[provision.SubscriberID]provision.State

// recall takes the last state of a customer from the memory if a snapshot does not have him.
func (r *rules) recall(s *provision.Snapshot, id provision.SubscriberID) {
	if id == 0 || r.before.snap == nil {
		return
	}
	if _, known := r.stateOf(s, id); known {
		return
	}
	st, known := (&rules{}).stateOf(r.before.snap, id)
	if !known {
		if st, known = r.before.last[id]; !known {
			return
		}
	}
	if r.last == nil {
		r.last = states{}
	}
	r.last[id] = st
}

// LeaseStanding is what a lease is worth by what is shown.
type LeaseStanding struct {
	Holder provision.SubscriberID // whom it was given to
	Owner  provision.SubscriberID // whose state the address shares: Holder, whom the ERP gives it to now, or zero: nobody's
	State  provision.State        // of Holder; the last one that is known if the ERP does not have him any more, and else stopped
	Known  bool                   // the ERP has Holder
	Admits bool                   // the source guard lets the client in with the address, where there is one
}

// LeaseStanding judges the live lease of an address; false if it has none of a customer, if he is a guest now, if leases give nothing,
// and before the first round that succeeded.
func (e *Enforcer) LeaseStanding(ip netip.Addr) (LeaseStanding, bool) {
	p := e.shown.Load()
	if p == nil || p.rules.lease == nil || !ip.Is4() {
		return LeaseStanding{}, false
	}
	g, ok := p.rules.lease(ip)
	if !ok || g.holder() == 0 {
		return LeaseStanding{}, false
	}
	line := p.snap.ByIP(ip)
	t := p.rules.tenancy(p.snap, line, ip, &g)
	st := LeaseStanding{Holder: g.holder(), Owner: t.owner, Admits: t.admits}
	if st.State, st.Known = p.rules.stateOf(p.snap, st.Holder); line == nil && st.Owner == st.Holder {
		st.State = t.state
	}
	if !st.Known && !st.State.Blocks() && line == nil && p.rules.guest(ip) {
		return LeaseStanding{}, false // a guest now
	}
	return st, true
}
