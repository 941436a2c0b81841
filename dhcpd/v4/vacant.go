package v4

import (
	"bytes"
	"iter"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// This file finds the vacant line, of a customer without an address of the ERP, to which a
// client belongs, for the pools for subscribers. The ways of matching and whom they believe are
// those of bindings. A pool knows a line by its Owner, not by the client's MAC: one line
// has one address at a time, and the router behind it may change.

// vacancy is what one way of matching says of vacant lines.
type vacancy struct {
	line   *provision.Line
	taken  bool            // the client may have what another one has leased: a new router on the line
	failed outcome.Outcome // why there is none although the way leads to some; zero: it does not
	placed bool            // the client is where the lines are: no other way is tried
}

// vacant returns the vacant lines that agree with the way.
func (m *matcher) vacant(c *candidates) iter.Seq[*provision.Line] {
	return func(yield func(*provision.Line) bool) {
		for i := range c.lines.Len() {
			if l := c.lines.At(i); !l.Owner.IsZero() && m.agrees(c, Binding{Line: l}) && !yield(l) {
				return
			}
		}
	}
}

// chooseVacant returns the vacant line that one way leads to. Where the port or VLAN has
// bindings too, they win, unless the ERP has the client's MAC for the line and for none of them, or the client lives on the line.
func (m *matcher) chooseVacant(c *candidates) vacancy {
	v := vacancy{placed: c.kind&(MatchOption82|MatchVLAN) != 0}
	var first *provision.Line
	exact, several, n := false, false, 0
	for l := range m.vacant(c) {
		mine := m.hasMAC(l)
		if exact && !mine {
			continue
		}
		if mine && !exact { // the ERP has the client's MAC: no other line counts
			exact, first, several, n = true, nil, false, 0
		}
		if first == nil {
			first = l
		}
		several = several || l.Subscriber != first.Subscriber
		n++
	}
	switch {
	case first == nil, c.n > 0 && (!exact || m.boundHere(c, first)):
		return v
	case several:
		v.failed = outcome.SubscriberUnclear
		return v
	}
	best := classRefused
	for l := range m.vacant(c) {
		if exact && !m.hasMAC(l) {
			continue
		}
		if class := m.rateVacant(l, v.placed); class > best {
			v.line, best = l, class
		}
	}
	if v.line != nil && m.snap.DevicesUnread() && v.line.HasPort() && (v.line.Device.Made() || v.line.Port == 0) {
		v.line, v.failed = nil, outcome.DevicesUnread // pools will know it by another name when the list of switches comes
		return v
	}
	v.taken = v.placed && n == 1 || exact && best == classOwn || best == classForeign
	switch {
	case best == classRefused:
		v.line, v.failed = nil, outcome.MACRefused
	case best == classTaken && !v.taken:
		v.line, v.failed = nil, outcome.PortFull
	}
	return v
}

// hasMAC reports whether the ERP has the client's MAC for a line.
func (m *matcher) hasMAC(l *provision.Line) bool { return !l.MAC.IsZero() && !m.differs(l) }

// boundHere reports whether one of the bindings has the client's MAC, and is not another subscriber's at another line while the client has a live
// lease on the vacant line here.
func (m *matcher) boundHere(c *candidates, vacant *provision.Line) bool {
	for b := range c.bindings() {
		if m.agrees(c, b) && !m.differs(b.Line) && (c.placed || b.Subscriber == vacant.Subscriber || m.cfg.anywhere(b.Line) || !m.livesOn(vacant)) {
			return true
		}
	}
	return false
}

// livesOn reports whether the client has a live lease of a vacant line, given where it is as far as anybody can tell.
func (m *matcher) livesOn(l *provision.Line) bool {
	rec, live := m.ownerLease(l)
	return live && rec.MAC == m.mac && m.comesFrom(&rec) != placeOther
}

// rateVacant is rate for a vacant line.
func (m *matcher) rateVacant(l *provision.Line, placed bool) (class int) {
	rec, live := m.ownerLease(l)
	switch {
	case m.hasMAC(l) && live && rec.MAC != m.mac && !placed && m.keeps(l, &rec):
		return classTaken
	case m.hasMAC(l):
		return classOwn
	case m.cfg.macChange != MACAccept && !l.MAC.IsZero():
		return classRefused // the ERP cannot be told: there is no address to tell it by
	case live && rec.MAC == m.mac:
		return classLeased
	case live && placed && m.foreign(&rec, l):
		return classForeign
	case live:
		return classTaken
	case l.MAC.IsZero():
		return classFree
	}
	return classOther
}

// keeps reports whether the client that has a line's address leased keeps it against one that
// has the ERP's MAC and is not known to be on the line. A MAC is what a client writes: it takes
// nothing from who was found on the line, and nothing if only the client identifier has it. Where
// nobody was found by place, the ERP has another MAC than when the lease was given, and its word counts.
func (m *matcher) keeps(l *provision.Line, rec *lease.Record) bool {
	switch {
	case l.MAC != m.mac:
		return true
	case m.cfg.matches&MatchOption82 != 0 && len(rec.Option82) > 0 && !bytes.Equal(rec.Option82, m.r.P.Option82()),
		m.cfg.matches&MatchVLAN != 0 && !rec.GIAddr.IsValid() && m.cfg.line.Ingress(rec.Interface).VLAN != 0:
		return true
	}
	mac, ok := wire.ClientIDMAC(rec.ClientID)
	return ok && m.cfg.matches&MatchClientID != 0 && mac == l.MAC
}

// ownerLease returns the record of the address that a vacant line has or had last from a
// pool, and whether it is live.
func (m *matcher) ownerLease(l *provision.Line) (rec lease.Record, live bool) {
	for i := range m.cfg.pools {
		if m.cfg.pools[i].Kind != PoolSubscribers {
			continue
		}
		a, ok := m.pools.Owned(i, l.Owner)
		if !ok {
			continue
		}
		if r, known := m.leases.Get(a); known && r.Key == l.Owner && r.Subscriber == l.Subscriber {
			rec = r
			if m.leased(i, &rec) {
				return rec, true
			}
		}
	}
	return rec, false
}

// leased reports whether the lease of an address of pool i is live. Of a record from before the start, of a clock that was ahead, the pool knows how long the lease
// may last: by the clock it would for years.
func (m *matcher) leased(i int, rec *lease.Record) bool {
	return rec.Live(m.now) && (!rec.Renewed.After(m.now.Add(clockSlack)) || m.pools.Slot(i, rec.IP, m.now).State == pool.StateLeased)
}

// clockSlack is how far ahead a clock may have been and its records still count as those of the one that there is.
const clockSlack = 10 * time.Second

// holder is whom pools of the kind know the client by.
func (c *decider) holder(kind PoolKind) provision.Owner {
	if kind == PoolSubscribers {
		return c.d.Match.Vacant.Owner
	}
	return c.guest()
}

// refuseVacant says why the client may not have an address of a pool of the kind for
// its line; zero: it may, or is no subscriber. The address is free or the line's by what the pool says.
func (c *decider) refuseVacant(kind PoolKind, a netip.Addr) outcome.Outcome {
	if kind != PoolSubscribers {
		return 0
	}
	l, i := c.d.Match.Vacant, c.cfg.PoolOf(a)
	rec, known := c.lease(a, new(lease.Record))
	switch {
	case known && c.leased(i, rec) && (rec.Key != l.Owner || rec.Subscriber != l.Subscriber || rec.MAC != c.mac && !c.d.Match.taken):
		return outcome.NakOtherClient
	case known && c.damped(rec, c.cfg.pools[i].t1):
		return outcome.TakeoverDamped
	case c.cfg.maxMACs > 0 && c.vacantCrowded(l):
		return outcome.PortMACLimit
	}
	return 0
}

// vacantCrowded is crowded for a vacant line: other clients are live on its port by
// bindings and by leases of its other vacant lines.
func (c *decider) vacantCrowded(l *provision.Line) bool {
	if rec, live := c.ownerLease(l); live && rec.MAC == c.mac || l.Device == 0 {
		return false
	}
	var others crowd
	lines := c.onPort(l)
	for i := range lines.Len() {
		other := lines.At(i)
		for ip := range other.Hosts4() {
			if rec, ok := c.leases.Get(ip); ok && c.join(&others, &rec, other) {
				return true
			}
		}
		if other == l || other.Owner.IsZero() {
			continue
		}
		if rec, live := c.ownerLease(other); live && c.join(&others, &rec, other) {
			return true
		}
	}
	return false
}
