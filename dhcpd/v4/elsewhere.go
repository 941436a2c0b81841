package v4

import (
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// remoteness is why a line is not where the client is; zero: it may be.
type remoteness uint8

const (
	awayLive  remoteness = iota + 1 // its lease is live elsewhere
	awayKnown                       // the client is at another port or VLAN that the ERP knows
)

// elsewhere says whether a line that was found by the client's MAC or identifier alone is not where the client is.
// They are what a client writes, so a line with a port, or a VLAN, is not given by them at another port, or VLAN, that the
// ERP knows, nor anywhere else while its lease is live. Where option 82 cannot be read, or the ERP does not
// have the port, nothing is known against the client.
func (m *matcher) elsewhere(l *provision.Line) remoteness {
	loc := &m.loc
	byVLAN := m.cfg.matches&MatchVLAN != 0 && l.VLAN != 0
	switch {
	case m.cfg.anywhere(l):
		return 0
	case loc.Lines.Len() > 0 && m.cfg.matches&MatchOption82 != 0 && !isAmong(l, loc.Lines): // a line with a VLAN alone is not at that port either
		return awayKnown
	case byVLAN && loc.VLAN != 0 && loc.VLAN != l.VLAN:
		if lines, shared := m.snap.ByVLAN(loc.VLAN); shared || lines.Len() > 0 {
			return awayKnown
		}
	}
	for ip := range l.Hosts4() {
		rec, ok := m.lease(ip, new(lease.Record))
		if ok && (m.leftBehind(rec) || m.takenAway(rec, Binding{l, ip})) {
			return awayLive
		}
	}
	if l.Vacant() {
		if rec, live := m.ownerLease(l); live && m.leftBehind(&rec) {
			return awayLive
		}
	}
	return 0
}

// anywhere reports whether a line has neither a port nor a VLAN that counts: it is found by MAC everywhere.
func (c *Config) anywhere(l *provision.Line) bool {
	return !(c.matches&MatchOption82 != 0 && hasPort(l)) && !(c.matches&MatchVLAN != 0 && l.VLAN != 0)
}

// leftBehind reports whether a lease is the client's, live, and was given elsewhere than where the packet comes from.
func (m *matcher) leftBehind(rec *lease.Record) bool {
	return rec.Live(m.now) && m.same(rec) && m.comesFrom(rec) == placeOther
}

// takenAway reports whether the client has a live lease of a pool here, and the record of b's address says that it is not to move to that line, though
// the ERP has its MAC there: another client has the address there now, or who used that very MAC there brought it into the ERP.
func (m *matcher) takenAway(rec *lease.Record, b Binding) bool {
	switch live := rec.Live(m.now); {
	case live && m.same(rec) && (!m.tellsLess(rec) || rec.IP == m.e.at), !m.lodged(): // the first is its own
		return false
	case live:
		return m.same(rec) || !m.yields(rec, b)
	case rec.MAC == m.mac:
		return m.wasThere(rec, b)
	}
	return rec.Ours(m.mac)
}

// lodging is whether the client has a live lease of a pool where it is; zero: it was not asked.
type lodging uint8

const (
	lodgedNot lodging = iota + 1
	lodgedHere
)

// lodged reports whether the client has a live lease of a pool that was given where it is, as far as anybody can tell. That is more than
// what its MAC alone leads to at another line: there a neighbour may use it.
func (m *matcher) lodged() bool {
	if m.lodge != 0 {
		return m.lodge == lodgedHere
	}
	m.lodge = lodgedNot
	if len(m.cfg.pools) > 0 && (m.e.seen && m.lodges(&m.e.rec) || m.lodgesByLine() || m.lodgesAsGuest()) {
		m.lodge = lodgedHere
	}
	return m.lodge == lodgedHere
}

// lodgesByLine is lodged for a customer without an address whom the ERP has by the MAC.
func (m *matcher) lodgesByLine() bool {
	lines := m.snap.ByMAC(m.mac)
	for i := range lines.Len() {
		if l := lines.At(i); !l.Owner.IsZero() {
			if rec, live := m.ownerLease(l); live && m.lodges(&rec) {
				return true
			}
		}
	}
	return false
}

// lodgesAsGuest is lodged for a guest, by each of the names that pools for guests may know it by.
func (m *matcher) lodgesAsGuest() bool {
	less := m.r.P.Relay
	less.RelaySubscriberID = nil
	names := [...]provision.Owner{m.mac.Owner(), m.mac.OwnerOn(lineKey(&m.r.P, &m.r.P.Relay)), m.mac.OwnerOn(lineKey(&m.r.P, &less))}
	for i := range m.cfg.pools {
		if m.cfg.pools[i].Kind != PoolGuests {
			continue
		}
		for _, who := range names {
			if a, ok := m.pools.Owned(i, who); ok {
				if rec, known := m.leases.Get(a); known && m.lodges(&rec) {
					return true
				}
			}
		}
	}
	return false
}

// lodges reports whether a lease is one that lodged looks for.
func (m *matcher) lodges(rec *lease.Record) bool {
	i := m.cfg.PoolOf(rec.IP)
	if i < 0 || rec.Pool == "" || rec.MAC != m.mac || !rec.Live(m.now) || m.snap.ByIP(rec.IP) != nil || m.comesFrom(rec) == placeOther {
		return false
	}
	if m.cfg.pools[i].Kind == PoolGuests {
		return rec.Subscriber == 0 && m.cfg.unknown == UnknownGuest
	}
	return m.snap.ByOwner(rec.Subscriber, rec.Key) != nil
}

// tellsLess reports whether the packet has no option 82 though a lease was given by one: who sends it may be another one of that wire.
func (m *matcher) tellsLess(rec *lease.Record) bool {
	return len(rec.Option82) > 0 && !m.r.P.HasOption82()
}

// foreign reports whether another client's lease of an address of l was given to it away from that line, by a MAC or an identifier
// that it wrote itself. That is less than the line: nobody who is found there is kept out by it.
func (m *matcher) foreign(rec *lease.Record, l *provision.Line) bool {
	return m.comesFrom(rec) == placeOther && !m.wasPlaced(rec, Binding{Line: l})
}

// hasPort reports whether the ERP has a port for a line, by its number or name.
func hasPort(l *provision.Line) bool { return l.Device != 0 && (l.Port != 0 || l.PortName != "") }

func isAmong(l *provision.Line, lines provision.Lines) bool {
	for i := range lines.Len() {
		if lines.At(i) == l {
			return true
		}
	}
	return false
}

// mayReport reports whether the ERP may be told of the client's MAC for b. What a MAC alone leads to is no
// reason to change the ERP: somebody vouches for b's line, now or when the lease was given, or the ERP has no
// MAC for the address and expects it on the wire that the client is on.
func (c *decider) mayReport(b Binding) bool {
	if m := &c.d.Match; m.By&(MatchOption82|MatchVLAN) != 0 && m.binding.Line == b.Line {
		return true
	}
	if vlan := c.r.P.VLAN(); b.MAC.IsZero() && !c.r.P.HasOption82() && (vlan == 0 || vlan == b.VLAN) { // no line says otherwise
		if !c.r.P.GIAddr().IsValid() && c.r.On != nil { // whatever address of ours it was sent to
			if n := c.cfg.subnetOf(b.IP); n != nil && c.cfg.subnetOf(c.r.On.Addr()) != nil {
				return c.cfg.hasAddress(c.r.On, n.wire)
			}
		} else if at := c.wire(); c.cfg.subnetOf(at) != nil {
			return c.cfg.oneWire(at, b.IP)
		}
	}
	rec, known := c.lease(b.IP, new(lease.Record))
	return known && rec.MAC == c.mac && rec.Live(c.now) && c.wasPlaced(rec, b)
}
