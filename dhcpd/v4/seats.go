package v4

import (
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file finds the customer without an address of the ERP (a seat) to whom a
// client belongs, for the pools for subscribers. The ways of matching and whom they believe are
// those of bindings. A pool knows a seat by its key, not by the client's MAC: one seat
// has one address at a time, and the router behind it may change.

// seatFound is what one way of matching says of seats.
type seatFound struct {
	seat   *provision.Seat
	taken  bool    // the client may have what another one has leased: a new router
	failed Outcome // why there is none although the way leads to some; zero: it does not
	placed bool    // the client is where the seats are: no other way is tried
}

// seatBy returns the seat that one way leads to; c is what it led to of bindings.
// Where the port or VLAN has bindings too, they win, unless the ERP has the client's MAC
// for the seat and for none of them.
func (m *matcher) seatBy(c *candidates, loc *line.Location) seatFound {
	f := seatFound{placed: c.kind&(MatchOption82|MatchVLAN) != 0}
	var list []*provision.Seat
	switch {
	case c.kind&MatchVLAN != 0 && c.vlan == 0, c.kind&MatchClientID != 0 && (!c.id.known || c.id.ip.IsValid()):
		return f
	case c.kind&MatchOption82 != 0:
		list = loc.Seats
	case c.kind&MatchMAC != 0:
		list = m.snap.SeatsByMAC(m.mac)
	case c.kind&MatchClientID != 0:
		list = m.snap.SeatsByMAC(c.id.mac)
	default:
		list, _ = m.snap.SeatsByVLAN(c.vlan)
	}
	var first *provision.Seat // that agrees
	exact, several, n := false, false, 0
	for _, s := range list {
		if !m.seatAgrees(c, s) {
			continue
		}
		mine := m.hasMAC(s)
		if exact && !mine {
			continue
		}
		if mine && !exact { // the ERP has the client's MAC: no other seat counts
			exact, first, several, n = true, nil, false, 0
		}
		if first == nil {
			first = s
		}
		several = several || s.Subscriber != first.Subscriber
		n++
	}
	switch {
	case first == nil, c.n > 0 && (!exact || m.boundHere(c)):
		return f
	case several:
		f.failed = OutcomeSubscriberUnclear
		return f
	}
	best := seatRefused
	for _, s := range list {
		if !m.seatAgrees(c, s) || exact && !m.hasMAC(s) {
			continue
		}
		if r := m.rateSeat(s); r > best {
			f.seat, best = s, r
		}
	}
	f.taken = f.placed && n == 1 || exact
	switch {
	case best == seatRefused:
		f.seat, f.failed = nil, OutcomeMACRefused
	case best == seatTaken && !f.taken:
		f.seat, f.failed = nil, OutcomePortFull
	}
	return f
}

// seatAgrees reports whether a seat is what every part of the way asks for.
func (m *matcher) seatAgrees(c *candidates, s *provision.Seat) bool {
	return (c.kind&MatchMAC == 0 || s.MAC == m.mac) && (c.kind&MatchVLAN == 0 || s.VLAN == c.vlan) &&
		(c.kind&MatchClientID == 0 || s.MAC == c.id.mac)
}

// hasMAC reports whether the ERP has the client's MAC for the seat.
func (m *matcher) hasMAC(s *provision.Seat) bool {
	if s.MAC.IsZero() {
		return false
	}
	mac, ok := m.idMAC()
	return s.MAC == m.mac || ok && s.MAC == mac
}

// boundHere reports whether one of the bindings has the client's MAC.
func (m *matcher) boundHere(c *candidates) bool {
	for i := range c.size() {
		if b := c.at(i); m.agrees(c, b) && !m.differs(b) {
			return true
		}
	}
	return false
}

// How well a seat suits a client, by the rules of a port's bindings (see rate).
const (
	seatRefused = iota // the ERP has another MAC, which dhcp.mac_change does not let pass
	seatTaken          // another client has its address now
	seatOther          // the ERP has another MAC, but nobody uses it
	seatFree           // the ERP has no MAC
	seatLeased         // the client has its address leased now
	seatOwn            // the ERP has the client's MAC
)

func (m *matcher) rateSeat(s *provision.Seat) int {
	rec, live := m.seatLease(s)
	switch {
	case m.hasMAC(s):
		return seatOwn
	case m.cfg.macChange != MACAccept && !s.MAC.IsZero():
		return seatRefused // the ERP cannot be told: there is no address to tell it by
	case live && rec.MAC == m.mac:
		return seatLeased
	case live:
		return seatTaken
	case s.MAC.IsZero():
		return seatFree
	}
	return seatOther
}

// seatLease returns the record of the address that a seat has or had last from a
// pool, and whether it is live.
func (m *matcher) seatLease(s *provision.Seat) (rec lease.Record, live bool) {
	for i := range m.cfg.pools {
		if m.cfg.pools[i].Kind != PoolSubscribers {
			continue
		}
		a, ok := m.pools.Owned(i, s.Key)
		if !ok {
			continue
		}
		if r, known := m.leases.Get(a); known && r.Key == s.Key && r.Subscriber == s.Subscriber {
			rec = r
			if r.Live(m.now) {
				return rec, true
			}
		}
	}
	return rec, false
}

// holder is whom pools of the kind know the client by.
func (c *decider) holder(kind PoolKind) provision.MAC {
	if kind == PoolSubscribers {
		return c.d.Match.Seat.Key
	}
	return c.mac
}

// refuseSeat says why the client may not have an address of a pool of the kind for
// its seat; zero: it may, or is no subscriber. The address is free or the seat's by what the pool says.
func (c *decider) refuseSeat(kind PoolKind, a netip.Addr) Outcome {
	if kind != PoolSubscribers {
		return 0
	}
	s := c.d.Match.Seat
	rec, known := c.leases.Get(a)
	switch {
	case known && rec.Live(c.now) && (rec.Key != s.Key || rec.Subscriber != s.Subscriber || rec.MAC != c.mac && !c.d.Match.taken):
		return OutcomeNakOtherClient
	case c.cfg.maxMACs > 0 && c.seatCrowded(s):
		return OutcomePortMACLimit
	}
	return 0
}

// seatCrowded is crowded for a seat: other clients are live on its port by
// bindings and by leases of its other seats.
func (c *decider) seatCrowded(s *provision.Seat) bool {
	if rec, live := c.seatLease(s); live && rec.MAC == c.mac || s.Device == 0 {
		return false
	}
	rows, seats := c.d.Match.Loc.Rows, c.d.Match.Loc.Seats
	if s.Port != 0 {
		rows, seats = c.snap.ByPort(s.Device, s.Port), c.snap.SeatsByPort(s.Device, s.Port)
	}
	var seen [maxPortMACs]provision.MAC
	n := 0
	more := func(rec *lease.Record) bool {
		if rec.MAC == c.mac || !rec.Live(c.now) || holds(seen[:n], rec.MAC) {
			return false
		}
		seen[n] = rec.MAC
		n++
		return n >= c.cfg.maxMACs
	}
	for i := range rows {
		if rec, ok := c.leases.Get(rows[i].IP); ok && more(&rec) {
			return true
		}
	}
	for _, other := range seats {
		if rec, live := c.seatLease(other); live && other != s && more(&rec) {
			return true
		}
	}
	return false
}
