package v4

import (
	"iter"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Binding is an address that the ERP gives, with the line that it is on. The zero value is none.
type Binding struct {
	*provision.Line
	IP netip.Addr
}

// Match is whose the client is: the binding that it is to have, or the vacant line that a pool
// may give an address, or why there is none.
type Match struct {
	binding Binding // none: failed says why
	By      MatchKind
	Loc     line.Location
	failed  outcome.Outcome
	Lost    outcome.Outcome // why option 82 led to no port, if it was to; zero: it did
	Vacant  *provision.Line // of a client without a binding; nil: it is on none
	placed  bool            // it was found by a line that somebody vouches for
	away    bool            // of outcome.MACElsewhere: the ERP knows the port or VLAN that the client is at
	taken   bool            // what another client has leased for the vacant line is the client's: a new router on it
	apart   OtherNetwork    // of outcome.WrongNetwork
}

// matcher finds lines for one request.
type matcher struct {
	now    time.Time
	r      *Request
	mac    provision.MAC
	snap   *provision.Snapshot
	leases LeaseView
	pools  PoolView
	cfg    *Config
	loc    line.Location // where the client is, once find was asked
	e      evidence      // about the address that is at stake
	held   holder        // of an address that the client would have
	reach  reach         // the client's networks, once restricted was asked
	lodge  lodging       // once lodged was asked
}

// find tries the configured ways in order. hint is the address that the client
// would like to have: it decides between addresses that are equally good.
func (m *matcher) find(hint netip.Addr, res *Match) {
	m.loc = m.cfg.line.Locate(&m.r.P, m.snap)
	*res = Match{}
	res.Loc, res.failed = m.loc, outcome.UnknownClient // unless one of the ways says better
	if m.r.P.RelayInfoCount() > 0 && res.Loc.Lines.Len() == 0 {
		res.failed = unlocated(res.Loc.Result)
		if res.failed == outcome.DevicesUnread && m.cfg.matches&MatchOption82 == 0 {
			res.failed = outcome.UnknownDevice // nobody is found by it anyway
		}
		if !m.r.P.HasOption82() {
			res.failed = outcome.Option82Untrusted
		}
		if m.cfg.matches&MatchOption82 != 0 {
			res.Lost = res.failed
		}
	}
	link := m.link()
	for _, kind := range m.cfg.match {
		c, failed := m.candidates(kind)
		v := m.chooseVacant(&c)
		switch {
		case v.line != nil:
			res.By, res.Vacant, res.taken, res.placed, res.failed = kind, v.line, v.taken, v.placed, outcome.NoPool
			return
		case v.failed != 0 && v.placed:
			res.By, res.placed, res.failed = kind, true, v.failed
			return
		case v.failed == outcome.PortFull || v.failed == outcome.DevicesUnread: // the ERP knows the client, whatever its port says: no guest
			res.failed = v.failed
		case v.failed != 0:
			failed = v.failed
		}
		if c.n == 0 {
			if c.away != 0 && m.lodged() {
				continue // what the MAC leads to is not to be had here, and takes from the client nothing that it has
			}
			if c.away != 0 {
				failed, res.away = outcome.MACElsewhere, res.away || c.away == awayKnown
			}
			if failed == outcome.MACElsewhere || res.failed == outcome.UnknownClient && failed != 0 {
				res.failed = failed
			}
			continue
		}
		if c.apart.IsValid() && c.inside+c.held == 0 && !c.placed {
			if m.lodged() {
				continue
			}
			res.failed, res.apart = outcome.WrongNetwork, m.apart(c.apart)
			continue
		}
		if b := m.choose(&c, hint, link); b.Line != nil {
			res.By, res.binding, res.placed = kind, b, c.placed
			return
		}
		if !c.placed && m.lodged() {
			continue
		}
		res.failed = outcome.PortFull
		if !m.held.until.IsZero() {
			res.failed = outcome.HolderLive
		}
		if c.placed {
			// The port wins: whoever is plugged in here gets the port's address, even
			// if the ERP has the MAC elsewhere, and a full port is not walked around.
			res.By, res.placed = kind, true
			return
		}
	}
}

// unlocated is why option 82 led to nobody.
func unlocated(r line.Result) outcome.Outcome {
	switch r {
	case line.Unread:
		return outcome.Option82Unread
	case line.DevicesUnread:
		return outcome.DevicesUnread
	case line.UnknownDevice:
		return outcome.UnknownDevice
	}
	return outcome.UnknownPort
}

// candidates are the lines that one way of matching leads to.
type candidates struct {
	lines provision.Lines
	one   *provision.Line // in place of lines: has the address that is named by hand
	kind  MatchKind       // what a line must agree with
	vlan  uint16          // of MatchVLAN
	id    namedClient     // of MatchClientID
	away  remoteness      // the most that a line was left out for
	n     int             // how many bindings do

	inside, held int        // of these in the client's networks, if they are known; else held by it here
	apart        netip.Addr // the first one of another network

	// placed: the client is where the lines belong, and not only says so. Another
	// client that has the only binding then gave it up: a new router.
	placed bool
}

// bindings returns every address of the lines that the way leads to.
func (c *candidates) bindings() iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		if c.one != nil {
			yield(Binding{c.one, c.id.ip})
			return
		}
		for i := range c.lines.Len() {
			l := c.lines.At(i)
			for ip := range l.Hosts4() {
				if !yield(Binding{l, ip}) {
					return
				}
			}
		}
	}
}

// candidates returns the lines of one way; n is zero if none of them has an address
// for the client, and failed may say why.
func (m *matcher) candidates(kind MatchKind) (c candidates, failed outcome.Outcome) {
	c.kind = kind
	if kind&MatchVLAN != 0 {
		if m.loc.VLAN == 0 {
			return c, 0
		}
		c.vlan, c.placed = m.loc.VLAN, true
	}
	if kind&MatchClientID != 0 {
		if c.id = m.clientID(); !c.id.known {
			return c, 0
		}
	}
	switch {
	case kind&MatchOption82 != 0:
		c.lines, c.placed = m.loc.Lines, true
	case kind&MatchMAC != 0:
		c.lines = m.snap.ByMAC(m.mac)
	case kind&MatchClientID != 0 && c.id.ip.IsValid():
		c.one = m.snap.ByIP(c.id.ip)
	case kind&MatchClientID != 0:
		c.lines = m.snap.ByMAC(c.id.mac)
	default:
		var shared bool
		if c.lines, shared = m.snap.ByVLAN(c.vlan); shared {
			return c, outcome.VLANShared
		}
		failed = outcome.UnknownVLAN
	}
	for b := range c.bindings() {
		failed = outcome.MatchDisagrees
		if m.agrees(&c, b) {
			c.n++
			m.counts(&c, b.IP)
		}
	}
	if c.n > 0 {
		failed = 0
	}
	return c, failed
}

// agrees reports whether a line, with its address or vacant, is what every part of the way
// asks for. Lines of MatchOption82 are the port's anyway.
func (m *matcher) agrees(c *candidates, b Binding) bool {
	switch {
	case c.kind&MatchMAC != 0 && b.MAC != m.mac,
		c.kind&MatchVLAN != 0 && b.VLAN != c.vlan,
		c.kind&MatchClientID != 0 && c.id.ip.IsValid() && b.IP != c.id.ip,
		c.kind&MatchClientID != 0 && !c.id.ip.IsValid() && b.MAC != c.id.mac:
		return false
	case c.placed:
		return true
	}
	far := m.elsewhere(b.Line)
	c.away = max(c.away, far)
	return far == 0
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
	at := m.relayAt()
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

// How well a line suits a client, with one of its addresses or vacant; among addresses of one
// class the preferences below decide.
const (
	classRefused = iota // the ERP has another MAC, which dhcp.mac_change does not let pass: only of vacant lines
	classTaken          // another client has the address now: only if there is no other (a new router)
	classForeign        // another client has it now, and got it away from the line
	classOther          // the ERP has another MAC, but nobody uses it
	classFree           // the ERP has no MAC: learn it
	classLeased         // the client has the address leased now
	classOwn            // the ERP has the client's MAC
)

// preference is how well an address suits. What stands lower in the list outweighs all above it together, so
// this is an order and not a sum.
type preference int

const (
	prefUnused preference = 1 << iota // its last lease is known to be over
	prefLink                          // it fits the wire
	prefHad                           // the client had or has it
	prefHere                          // and had or has it here
	prefLive                          // and has it here now
	prefAsked                         // the client asks for it
	prefClass                         // times the class, of lines that the client is on; else once for what is not live elsewhere
)

// choose takes the binding that suits the client best, of equal ones that with the lowest
// address; none if all of several are taken. While one is of a network that the client is in, others do not count.
func (m *matcher) choose(c *candidates, hint netip.Addr, link netip.Prefix) Binding {
	var best Binding
	bestFit := preference(-1)
	for b := range c.bindings() {
		if !m.agrees(c, b) || m.barred(c, b.IP) {
			continue
		}
		fit, ok := m.prefer(c, b)
		if !ok {
			continue
		}
		if b.IP == hint {
			fit += prefAsked
		}
		if link.IsValid() && link.Contains(b.IP) {
			fit += prefLink
		}
		if fit > bestFit || fit == bestFit && b.IP.Less(best.IP) {
			best, bestFit = b, fit
		}
	}
	return best
}

// lease returns the record of an address, zero if there is none; the one that is at stake was looked up before, another is
// put into buf. Records are large, and a copy of each for each question was a tenth of a decision.
func (m *matcher) lease(ip netip.Addr, buf *lease.Record) (rec *lease.Record, known bool) {
	if ip == m.e.at {
		return &m.e.rec, m.e.seen
	}
	*buf, known = m.leases.Get(ip)
	return buf, known
}

// prefer says how well a binding suits, without what it has in common with others.
// ok is false for one that another client has.
func (m *matcher) prefer(c *candidates, b Binding) (fit preference, ok bool) {
	rec, known := m.lease(b.IP, new(lease.Record))
	if known && m.heldByOther(b, rec) {
		m.held = holder{b.IP, rec.MAC, rec.Expires}
		return 0, false
	}
	if c.placed {
		class, extra := m.rate(b, rec, known)
		if c.n > 1 && extra == prefHad { // in a VLAN of several customers a MAC may be several's, too
			extra += m.where(rec)
		}
		return preference(class)*prefClass + extra, class != classTaken || m.isOnly(c)
	}
	live := known && rec.Live(m.now)
	if known && m.same(rec) {
		return m.preferHad(c, b, rec, live)
	}
	if live && !m.yields(rec, b) { // another client now has it through its port
		return 0, false
	}
	return prefClass, true
}

// preferHad is prefer for an address that the client had last, or has, and that its MAC or identifier alone leads to. One MAC may lead to
// several customers, be it by a neighbour's report: where the client is counts before whom it was taken for elsewhere.
func (m *matcher) preferHad(c *candidates, b Binding, rec *lease.Record, live bool) (fit preference, ok bool) {
	where := m.where(rec)
	if where != 0 {
		return prefClass + prefHad + where, true
	}
	switch from := m.comesFrom(rec); {
	case from == placeOther && live && rec.MAC != m.mac: // an identifier goes for its client only where that is
		return 0, false
	case (from == placeOther && live || !m.cfg.anywhere(b.Line)) && m.ofSeveral(c, b): // maybe another customer's device with the same MAC
		return 0, true
	}
	return prefClass + prefHad, true
}

// where says how well an address suits that the client had last, or has, by where that was.
func (m *matcher) where(rec *lease.Record) preference {
	switch {
	case m.tellsLess(rec) || m.comesFrom(rec) == placeOther:
		return 0
	case rec.Live(m.now):
		return prefHere + prefLive
	}
	return prefHere
}

// ofSeveral reports whether the way leads to another subscriber than b's as well.
func (m *matcher) ofSeveral(c *candidates, b Binding) bool {
	for other := range c.bindings() {
		if other.Subscriber != b.Subscriber && m.agrees(c, other) && !m.barred(c, other.IP) {
			return true
		}
	}
	return false
}

// isOnly reports whether the way has only one address for the client, which a new router takes over. What is barred for it is no other
// one, unless the client has that leased: then it is no new router, but one that two relays hear.
func (m *matcher) isOnly(c *candidates) bool {
	switch {
	case c.n == 1:
		return true
	case c.inside != 1:
		return false
	}
	for b := range c.bindings() {
		if !m.agrees(c, b) || !m.barred(c, b.IP) {
			continue
		}
		if rec, known := m.lease(b.IP, new(lease.Record)); known && rec.Live(m.now) && m.same(rec) {
			return false
		}
	}
	return true
}

// holder is who is still live on an address, and until when; the zero value is nobody.
type holder struct {
	ip    netip.Addr
	mac   provision.MAC
	until time.Time
}

// heldByOther reports whether another subscriber, or a guest, is live on an address that the ERP gives the client now. It
// is not given before that one was told to leave it, or its lease is over (RFC 2131 section 1.6). A new router of the same
// subscriber, or on the same line, is told nothing: it takes the address over. A record from a clock that was ahead by more
// than the lease says nothing: nobody is to wait for years.
func (m *matcher) heldByOther(b Binding, rec *lease.Record) bool {
	return rec.Live(m.now) && !m.fromAhead(rec) && !m.same(rec) && (rec.Pool != "" && rec.Subscriber == 0 || !m.isPlace(rec, b))
}

// fromAhead reports whether a record is of a clock that was ahead by more than the lease.
func (m *matcher) fromAhead(rec *lease.Record) bool {
	return rec.Renewed.Sub(m.now) > rec.Expires.Sub(rec.Renewed)
}

// rate says how well an address of a line that the client is on suits; rec is what is recorded of it, if it is known.
func (m *matcher) rate(b Binding, rec *lease.Record, known bool) (class int, extra preference) {
	mine := known && m.same(rec)
	live := known && rec.Live(m.now)
	switch {
	case mine:
		extra = prefHad
	case known && !live:
		extra = prefUnused
	}
	switch {
	case !m.differs(b.Line):
		return classOwn, extra
	case m.cfg.macChange != MACAccept && !b.MAC.IsZero() && (mine || !live) && !(m.cfg.macChange == MACReport && mine && m.outdated(rec, b)):
		return classOther, extra // it would be refused: any other is better
	case mine && live:
		return classLeased, extra
	case live && m.foreign(rec, b.Line):
		return classForeign, extra
	case live:
		return classTaken, extra
	case b.MAC.IsZero():
		return classFree, extra
	}
	return classOther, extra
}
