package dhcpd

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/lease"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// request is a packet and what the socket knows about it. err is what parsing
// p gave, relayErr what parsing its option 82 gave.
type request struct {
	p        wire.Packet
	err      error
	relay    wire.RelayInfo
	relayErr error

	ifindex int
	iface   string
	served  bool           // the interface is one that we answer on
	local   netip.Addr     // address the packet came to, else the first one of the interface; may be invalid
	from    netip.AddrPort // sender
	ownID   bool           // option 54 is an address of this host

	decoded option82.Decoded // room for what a profile reads
}

// parse fills the views of r from b.
func (r *request) parse(b []byte) {
	r.relay, r.relayErr = wire.RelayInfo{}, nil
	if r.err = r.p.Parse(b); r.err == nil && r.p.RelayInfoCount() > 0 {
		r.relay, r.relayErr = wire.ParseRelayInfo(r.p.RelayInfo())
	}
}

// leaseView is what a decision may ask the lease table.
type leaseView interface {
	Get(ip netip.Addr) (lease.Record, bool)
	ByMAC(mac provision.MAC) []lease.Record
	ByClientID(id []byte) []lease.Record
}

// match is the binding that a client is to have, or why there is none.
type match struct {
	binding *provision.Binding // nil: failed says why
	by      MatchKind
	loc     location
	failed  Outcome
}

// matcher finds bindings for one request.
type matcher struct {
	now    time.Time
	r      *request
	mac    provision.MAC
	snap   *provision.Snapshot
	leases leaseView
	set    *settings
}

// find tries the configured ways in order. hint is the address that the client
// would like to have: it decides between rows that are equally good.
func (m *matcher) find(hint netip.Addr) match {
	res := match{loc: m.set.option82.locate(m.r, m.mac, m.snap)}
	res.failed = res.loc.failed
	link := m.link()
	for _, kind := range m.set.match {
		switch kind {
		case MatchOption82:
			if len(res.loc.rows) == 0 {
				continue
			}
			// The port wins: whoever is plugged in here gets the port's address, even
			// if the ERP has the MAC elsewhere, and a full port is not walked around.
			res.by = kind
			if res.binding = m.choose(res.loc.rows, hint, link); res.binding == nil {
				res.failed = OutcomePortFull
			}
			return res
		case MatchMAC:
			rows := m.snap.ByMAC(m.mac)
			if len(rows) == 0 {
				continue
			}
			if b := m.chooseByMAC(rows, hint, link); b != nil {
				res.by, res.binding = kind, b
				return res
			}
			res.failed = OutcomePortFull
		}
	}
	return res
}

// link is the subnet that the client's wire is in, as far as known: link
// selection of the relay, relay address, address of the interface.
func (m *matcher) link() netip.Prefix {
	at := m.r.relay.Link
	if !at.IsValid() {
		at = m.r.p.GIAddr()
	}
	if !at.IsValid() {
		at = m.r.local
	}
	if n := m.set.subnetOf(at); n != nil {
		return n.prefix
	}
	return netip.Prefix{}
}

// How well a row of a port suits a client; within a class the weights below decide.
const (
	classTaken  = iota // another client has it now: only if the port has no other row (a new router)
	classOther         // the ERP has another MAC, but nobody uses it
	classFree          // the ERP has no MAC: learn it
	classLeased        // the client has it leased now
	classOwn           // the ERP has the client's MAC
)

const (
	weightClass  = 16
	weightHint   = 8 // the client asks for it
	weightLease  = 4 // the client had or has it
	weightLink   = 2 // it fits the wire
	weightUnused = 1 // its last lease is known to be over
)

// choose takes the row of a port that suits the client best; nil if all of
// several rows are taken. Equal rows: the lowest address.
func (m *matcher) choose(rows []provision.Binding, hint netip.Addr, link netip.Prefix) *provision.Binding {
	var best *provision.Binding
	bestScore := -1
	for i := range rows {
		b := &rows[i]
		class, extra := m.rate(b)
		if class == classTaken && len(rows) > 1 {
			continue
		}
		score := class*weightClass + extra
		if b.IP == hint {
			score += weightHint
		}
		if link.IsValid() && link.Contains(b.IP) {
			score += weightLink
		}
		if score > bestScore {
			best, bestScore = b, score
		}
	}
	return best
}

func (m *matcher) rate(b *provision.Binding) (class, extra int) {
	rec, known := m.leases.Get(b.IP)
	mine := known && rec.MAC == m.mac
	live := known && rec.Live(m.now)
	switch {
	case mine:
		extra = weightLease
	case known && !live:
		extra = weightUnused
	}
	switch {
	case b.MAC == m.mac:
		return classOwn, extra
	case mine && live:
		return classLeased, extra
	case live:
		return classTaken, extra
	case b.MAC.IsZero():
		return classFree, extra
	}
	return classOther, extra
}

// chooseByMAC takes one of the rows that the ERP has with the client's MAC: not
// one that another client now has through its port.
func (m *matcher) chooseByMAC(rows []*provision.Binding, hint netip.Addr, link netip.Prefix) *provision.Binding {
	var best *provision.Binding
	bestScore := -1
	for _, b := range rows {
		score := 0
		if rec, known := m.leases.Get(b.IP); known {
			if rec.MAC == m.mac {
				score += weightLease
			} else if rec.Live(m.now) {
				continue
			}
		}
		if b.IP == hint {
			score += weightHint
		}
		if link.IsValid() && link.Contains(b.IP) {
			score += weightLink
		}
		if score > bestScore {
			best, bestScore = b, score
		}
	}
	return best
}
