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
	byPort := m.cfg.matches&MatchOption82 != 0 && hasPort(l)
	byVLAN := m.cfg.matches&MatchVLAN != 0 && l.VLAN != 0
	switch {
	case !byPort && !byVLAN:
		return 0 // it is found by MAC everywhere
	case loc.Lines.Len() > 0 && m.cfg.matches&MatchOption82 != 0 && !isAmong(l, loc.Lines): // a line with a VLAN alone is not at that port either
		return awayKnown
	case byVLAN && loc.VLAN != 0 && loc.VLAN != l.VLAN:
		if lines, shared := m.snap.ByVLAN(loc.VLAN); shared || lines.Len() > 0 {
			return awayKnown
		}
	}
	for ip := range l.Hosts4() {
		if rec, ok := m.lease(ip); ok && m.leftBehind(&rec) {
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

// leftBehind reports whether a lease is the client's, live, and was given elsewhere than where the packet comes from.
func (m *matcher) leftBehind(rec *lease.Record) bool {
	return rec.Live(m.now) && m.same(rec) && m.comesFrom(rec) == placeOther
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
	rec, known := c.lease(b.IP)
	return known && rec.MAC == c.mac && rec.Live(c.now) && c.wasPlaced(&rec, b)
}
