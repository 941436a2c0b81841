package v4

import (
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file lets the ERP's operator have the last word. A MAC that somebody wrote into the ERP since a lease was given is
// newer than the lease (lease.Record.Overruled). Where MACs alone tell who a client is, the one with the new MAC gets
// the address, and the one with the lease is refused. Where somebody vouches for the line of the lease, a typing error must
// cut nobody off: its client is answered, and no longer reported, until the new MAC appears there.

// overruled reports whether the ERP has another MAC for the address of a record by its operator's word, newer than the lease.
func (m *matcher) overruled(rec *lease.Record, b Binding) bool {
	if b.Line == nil || b.MAC.IsZero() || b.MAC == rec.MAC { // as a rule
		return false
	}
	mac, yes := rec.Overruled(m.snap)
	return yes && mac == b.MAC
}

// yields reports whether the client of a live lease is to leave the address to the one that asks, which has the new MAC and was found by
// that alone: anybody can write it, so nothing is taken from who was found on the line, be it together with its MAC.
func (m *matcher) yields(rec *lease.Record, b Binding) bool {
	return m.overruled(rec, b) && !m.differs(b.Line) && !m.onLine(rec, b) && !m.wasThere(rec, b)
}

// Spares reports whether the client of a lease for which the ERP has another MAC by its operator's word is answered all the same,
// since somebody vouches for the line that it was given on.
func (c *Config) Spares(rec *lease.Record, snap *provision.Snapshot) bool {
	m := matcher{snap: snap, cfg: c}
	b := Binding{snap.ByIP(rec.IP), rec.IP}
	return b.Line != nil && c.macChange != MACRefuse && m.onLine(rec, b)
}

// outdated reports whether a report of the client's MAC would undo what the ERP's operator wrote since it got the address.
func (m *matcher) outdated(rec *lease.Record, b Binding) bool {
	return (rec.MAC == m.mac || m.same(rec)) && m.overruled(rec, b)
}

// onLine reports whether a lease was given on b's line, by what somebody vouched for and a way that asks no MAC.
func (m *matcher) onLine(rec *lease.Record, b Binding) bool {
	for _, kind := range m.cfg.match {
		switch {
		case kind&(MatchMAC|MatchClientID) != 0,
			kind&MatchOption82 != 0 && !isAmong(b.Line, m.located(rec).Lines),
			kind&MatchVLAN != 0 && !m.inVLAN(rec, b):
		default:
			return true
		}
	}
	return false
}

// wasThere reports whether a lease was given on b's line, by what somebody vouched for, whatever else the way asked.
func (m *matcher) wasThere(rec *lease.Record, b Binding) bool {
	return m.cfg.matches&MatchOption82 != 0 && isAmong(b.Line, m.located(rec).Lines) || m.cfg.matches&MatchVLAN != 0 && m.inVLAN(rec, b)
}

// wasPlaced reports whether a lease was given on b's line, as the ERP has that now, or on the port that it had for the address then.
func (m *matcher) wasPlaced(rec *lease.Record, b Binding) bool {
	if m.cfg.matches&MatchOption82 != 0 {
		loc := m.located(rec)
		if isAmong(b.Line, loc.Lines) || rec.Port != 0 && loc.Device == rec.Device && loc.Port == rec.Port {
			return true
		}
	}
	return m.cfg.matches&MatchVLAN != 0 && m.inVLAN(rec, b)
}

// located reads the option 82 that a lease was given by once more; zero: it was given without.
func (m *matcher) located(rec *lease.Record) line.Location {
	if len(rec.Option82) == 0 {
		return line.Location{}
	}
	var was *givenBy
	if m.r == nil {
		was = new(givenBy)
	} else {
		was = &m.r.was // guests renew each minute: nothing is allocated for that
	}
	was.raw = (&wire.Query{Type: wire.Request, MAC: rec.MAC, GIAddr: rec.GIAddr, Option82: rec.Option82}).Append(was.raw[:0])
	was.p.Read(was.raw)
	return m.cfg.line.Locate(&was.p, m.snap)
}

func (m *matcher) inVLAN(rec *lease.Record, b Binding) bool {
	vlan := m.cfg.line.Ingress(rec.Interface).VLAN
	return !rec.GIAddr.IsValid() && vlan == b.VLAN && m.oneCustomer(vlan)
}
