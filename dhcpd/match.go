package dhcpd

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/lease"
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
}

// location is the access port that option 82 names.
type location struct {
	rows   []provision.Binding // of the port; empty if failed
	device provision.DeviceID  // zero if not known
	port   uint32              // number as sent, or as the ERP has it for a name; zero if not known
	failed Outcome             // why there are no rows
}

// locate finds the access port by option 82. The switch is the one that the
// remote-id names; without a remote-id, or with one that is the client's own
// MAC (some relays put that there), the relay's address names it. A remote-id
// that names an unknown switch is never overruled by the relay address: the
// port number belongs to the switch, and on the relay it is another customer's.
func locate(r *request, mac provision.MAC, snap *provision.Snapshot) location {
	if r.p.RelayInfoCount() == 0 {
		return location{failed: OutcomeUnknownClient}
	}
	var dev *provision.Device
	switch remote := wire.DecodeRemote(r.relay.RemoteID); {
	case remote.Kind == wire.RemoteMAC && remote.MAC != mac:
		dev = snap.DeviceByMAC(remote.MAC)
	case remote.Kind == wire.RemoteIP:
		dev = snap.DeviceByIP(remote.IP)
	case remote.Kind == wire.RemoteNone || remote.Kind == wire.RemoteMAC:
		gi := r.p.GIAddr()
		if !gi.IsValid() {
			return location{failed: OutcomeOption82Unread} // it names no switch
		}
		dev = snap.DeviceByIP(gi)
	default:
		return location{failed: OutcomeOption82Unread}
	}
	if dev == nil {
		return location{failed: OutcomeUnknownDevice}
	}
	loc := location{device: dev.ID, failed: OutcomeUnknownPort}
	switch c := wire.DecodeCircuit(r.relay.CircuitID); c.Kind {
	case wire.CircuitPort:
		// Boxes that do not stack send unit 0 or 1. Port 5 of unit 2 must not be
		// taken for port 5 of unit 1: numbering across a stack needs a profile.
		if c.Unit > 1 {
			loc.failed = OutcomeOption82Unread
			return loc
		}
		loc.port = uint32(c.Port)
		loc.rows = snap.ByPort(dev.ID, loc.port)
	case wire.CircuitText:
		loc.rows = snap.ByPortName(dev.ID, c.Text)
		if len(loc.rows) > 0 {
			loc.port = loc.rows[0].Port
		}
	default:
		loc.failed = OutcomeOption82Unread
	}
	return loc
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
	res := match{loc: locate(m.r, m.mac, m.snap)}
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
