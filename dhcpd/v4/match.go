package v4

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Match is the binding that a client is to have, or why there is none.
type Match struct {
	binding *provision.Binding // nil: failed says why
	By      MatchKind
	Loc     line.Location
	failed  Outcome
	Lost    Outcome         // why option 82 led to no port, if it was to; zero: it did
	Seat    *provision.Seat // of a client without a binding: the customer whom a pool may give an address
	taken   bool            // what another client has leased for the seat is the client's: a new router
}

// matcher finds bindings for one request.
type matcher struct {
	now    time.Time
	r      *Request
	mac    provision.MAC
	snap   *provision.Snapshot
	leases LeaseView
	pools  PoolView
	cfg    *Config
}

// find tries the configured ways in order. hint is the address that the client
// would like to have: it decides between rows that are equally good.
func (m *matcher) find(hint netip.Addr) Match {
	res := Match{Loc: m.cfg.line.Locate(&m.r.P, m.snap), failed: OutcomeUnknownClient} // unless one of the ways says better
	if m.r.P.RelayInfoCount() > 0 && len(res.Loc.Rows)+len(res.Loc.Seats) == 0 {
		res.failed = unlocated(res.Loc.Result)
		if m.cfg.matches&MatchOption82 != 0 {
			res.Lost = res.failed
		}
	}
	link := m.link()
	for _, kind := range m.cfg.match {
		c, failed := m.candidates(kind, &res.Loc)
		switch f := m.seatBy(&c, &res.Loc); {
		case f.seat != nil:
			res.By, res.Seat, res.taken, res.failed = kind, f.seat, f.taken, OutcomeNoPool
			return res
		case f.failed != 0 && f.placed:
			res.By, res.failed = kind, f.failed
			return res
		case f.failed != 0:
			failed = f.failed
		}
		if c.n == 0 {
			if res.failed == OutcomeUnknownClient && failed != 0 {
				res.failed = failed
			}
			continue
		}
		if b := m.choose(&c, hint, link); b != nil {
			res.By, res.binding = kind, b
			return res
		}
		res.failed = OutcomePortFull
		if c.placed {
			// The port wins: whoever is plugged in here gets the port's address, even
			// if the ERP has the MAC elsewhere, and a full port is not walked around.
			res.By = kind
			return res
		}
	}
	return res
}

// unlocated is why option 82 led to nobody.
func unlocated(r line.Result) Outcome {
	switch r {
	case line.Unread:
		return OutcomeOption82Unread
	case line.UnknownDevice:
		return OutcomeUnknownDevice
	}
	return OutcomeUnknownPort
}

// candidates are the rows that one way of matching gives.
type candidates struct {
	port []provision.Binding  // of a port, or
	rows []*provision.Binding // by VLAN or MAC, or
	one  *provision.Binding   // named by hand
	kind MatchKind            // what a row must agree with
	vlan uint16               // of MatchVLAN
	id   namedClient          // of MatchClientID
	n    int                  // how many rows do
	// placed: the client is where the rows belong, or is named by hand. Another
	// client that has the only row then gave it up: a new router.
	placed bool
}

func (c *candidates) size() int {
	if c.one != nil {
		return 1
	}
	return len(c.port) + len(c.rows)
}

func (c *candidates) at(i int) *provision.Binding {
	switch {
	case c.one != nil:
		return c.one
	case len(c.port) > 0:
		return &c.port[i]
	}
	return c.rows[i]
}

// candidates returns the rows of one way; n is zero if there are none, and failed
// may say why.
func (m *matcher) candidates(kind MatchKind, loc *line.Location) (c candidates, failed Outcome) {
	c.kind = kind
	if kind&MatchVLAN != 0 {
		if loc.VLAN == 0 {
			return c, 0
		}
		c.vlan, c.placed = loc.VLAN, true
	}
	if kind&MatchClientID != 0 {
		if c.id = m.clientID(); !c.id.known {
			return c, 0
		}
	}
	switch {
	case kind&MatchOption82 != 0:
		c.port, c.placed = loc.Rows, true
	case kind&MatchMAC != 0:
		c.rows = m.snap.ByMAC(m.mac)
	case kind&MatchClientID != 0 && c.id.ip.IsValid():
		c.one, c.placed = m.snap.ByIP(c.id.ip), true
	case kind&MatchClientID != 0:
		c.rows = m.snap.ByMAC(c.id.mac)
	default:
		var shared bool
		if c.rows, shared = m.snap.ByVLAN(c.vlan); shared {
			return c, OutcomeVLANShared
		}
		if len(c.rows) == 0 {
			return c, OutcomeUnknownVLAN
		}
	}
	for i := range c.size() {
		if m.agrees(&c, c.at(i)) {
			c.n++
		}
	}
	if c.n == 0 && c.size() > 0 {
		failed = OutcomeMatchDisagrees
	}
	return c, failed
}

// agrees reports whether a row is what every part of the way asks for. Rows of
// MatchOption82 are the port's anyway.
func (m *matcher) agrees(c *candidates, b *provision.Binding) bool {
	switch {
	case c.kind&MatchMAC != 0 && b.MAC != m.mac,
		c.kind&MatchVLAN != 0 && b.VLAN != c.vlan:
		return false
	case c.kind&MatchClientID == 0:
		return true
	case c.id.ip.IsValid():
		return b.IP == c.id.ip
	}
	return b.MAC == c.id.mac
}

// namedClient is what a client identifier names.
type namedClient struct {
	known bool
	ip    netip.Addr    // of dhcp.client_ids; invalid: by mac
	mac   provision.MAC // within the identifier
}

func (m *matcher) clientID() namedClient {
	id := m.r.P.ClientID()
	if ip, ok := m.cfg.clientIDs[string(id)]; ok && len(id) > 0 {
		return namedClient{known: true, ip: ip}
	}
	mac, ok := m.idMAC()
	return namedClient{known: ok, mac: mac}
}

// idMAC returns the MAC within the client identifier, if clients are found by it.
func (m *matcher) idMAC() (provision.MAC, bool) {
	if m.cfg.matches&MatchClientID == 0 {
		return provision.MAC{}, false
	}
	mac, ok := wire.ClientIDMAC(m.r.P.ClientID())
	return mac, ok
}

// link is the subnet that the client's wire is in, as far as known: link
// selection of the relay, relay address, address of the interface.
func (m *matcher) link() netip.Prefix {
	at := m.r.P.Relay.Link
	if !at.IsValid() {
		at = m.r.P.GIAddr()
	}
	if !at.IsValid() {
		at = m.r.Local
	}
	if !at.IsValid() && m.r.On != nil {
		at = m.r.On.Addr()
	}
	if n := m.cfg.subnetOf(at); n != nil {
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

// choose takes the row that suits the client best; nil if all of several rows
// are taken. Equal rows: the lowest address.
func (m *matcher) choose(c *candidates, hint netip.Addr, link netip.Prefix) *provision.Binding {
	var best *provision.Binding
	bestScore := -1
	for i := range c.size() {
		b := c.at(i)
		if !m.agrees(c, b) {
			continue
		}
		score, ok := m.score(c, b)
		if !ok {
			continue
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

// score says how well a row suits, without what it has in common with others.
// ok is false for one that another client has.
func (m *matcher) score(c *candidates, b *provision.Binding) (score int, ok bool) {
	if c.placed {
		class, extra := m.rate(b)
		return class*weightClass + extra, class != classTaken || c.n == 1
	}
	rec, known := m.leases.Get(b.IP)
	switch {
	case known && m.same(&rec):
		return weightLease, true
	case known && rec.Live(m.now): // another client now has it through its port
		return 0, false
	}
	return 0, true
}

func (m *matcher) rate(b *provision.Binding) (class, extra int) {
	rec, known := m.leases.Get(b.IP)
	mine := known && m.same(&rec)
	live := known && rec.Live(m.now)
	switch {
	case mine:
		extra = weightLease
	case known && !live:
		extra = weightUnused
	}
	switch {
	case !m.differs(b):
		return classOwn, extra
	case m.cfg.macChange != MACAccept && !b.MAC.IsZero() && (mine || !live):
		return classOther, extra // it would be refused: any other row is better
	case mine && live:
		return classLeased, extra
	case live:
		return classTaken, extra
	case b.MAC.IsZero():
		return classFree, extra
	}
	return classOther, extra
}
