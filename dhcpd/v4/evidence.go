package v4

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file turns a packet, its way, the bindings and the lease records into evidence. What follows from it
// stands in one table, in rules.go.
//
// The ranking is: a line that somebody vouches for, before the ERP's MAC, before the client's own live record, before
// another's live record. What the client wishes decides only among addresses that are its own.

// message is what a client wants, as RFC 2131 section 4.3 tells it apart. Values are joined to sets.
type message uint16

const (
	msgDiscover  message = 1 << iota
	msgSelecting         // a REQUEST that takes an offer
	msgReboot            // a REQUEST for the address that it had before
	msgExtendAt          // a REQUEST for more time (RENEWING, REBINDING) that tells the line
	msgExtend            // one that does not: it came past the relay, or no box inserts option 82 there
	msgRelease
	msgDecline
)

// claim is what the best evidence of the packet leads to, as regards the address that is at stake: the one
// that the client asks for, or has. Values are joined to sets.
type claim uint16

const (
	lineHas    claim = 1 << iota // the line that the client is on has the address for it
	lineOther                    // it has another address for it
	lineFull                     // it has addresses, and other clients have them
	lineVacant                   // it is that of a subscriber without an address
	macHas                       // the ERP has the client's MAC for the address, or dhcp.client_ids its identifier
	macOther                     // for another address
	macFull                      // for addresses that other clients have
	macVacant                    // for a subscriber without an address
	macAway                      // for another port or VLAN, and the ERP knows the one that the client is at
	macLive                      // for a port or VLAN whose lease is live elsewhere
	nobody                       // nothing leads to anybody
	untold                       // nor does it, but the packet tells no line, and there is one that the address may be of
	macNetwork                   // for addresses of networks that the client is not in
)

// standing is what the lease record says of the address that is at stake. Values are joined to sets.
type standing uint16

const (
	recNone      standing = 1 << iota // nothing that counts: there is none, or it is over and another's
	recOther                          // another client has it now
	recKept                           // this client has or had it, and the ERP still has it there
	recGone                           // this client has or had it, and the ERP has it for somebody else by now, or for nobody
	recOverruled                      // this client has or had it, but the ERP's operator gave it another MAC since, and the lease is of no vouched line
	recPool                           // this client has or had it of a pool
	recOwn                            // of RELEASE and DECLINE: this client has or had it
)

// place is what the packet says of where the lease was given. Values are joined to sets.
type place uint16

const (
	placeSame   place = 1 << iota // it comes from there, and somebody vouches for that
	placeUnsure                   // it may come from there: others can send the like
	placeOther                    // it comes from elsewhere
)

// Evidence is what decided about a packet.
type Evidence struct {
	By   Voucher // who vouches for the line, where that counted
	Rule Rule    // the row of the table; zero: it was not asked

	Stray Stray // of an address that is given: that it was found by MAC on a line that does not say so

	// OtherNetwork is of an address that is given though it is of another network than its client, because the client is on
	// its line; and of one that is not given for that reason.
	OtherNetwork OtherNetwork

	// Since is when the client of the record that counted got the address; zero: none did.
	Since time.Time
}

// evidence is what was found out about one packet so far. Each part is found out when a row asks for it.
type evidence struct {
	msg  message    // what the client wants
	at   netip.Addr // what is at stake
	rec  lease.Record
	seen bool // rec is there

	claim    claim
	standing standing
	place    place
}

// stake begins the evidence about an address.
func (c *decider) stake(at netip.Addr) {
	c.e = evidence{at: at}
	c.e.rec, c.e.seen = c.leases.Get(at)
}

// since returns when the client of the record got the address; zero without a record.
func (e *evidence) since() time.Time {
	if !e.seen {
		return time.Time{}
	}
	return e.rec.Start
}

// claims says what the best evidence leads to.
func (c *decider) claims(msg message) claim {
	if c.e.claim != 0 {
		return c.e.claim
	}
	switch msg {
	case msgDiscover:
		if c.e.claim = c.claimOf(c.find(c.r.P.Requested())); c.e.claim == nobody {
			c.e.claim = c.stakeOwn()
		}
	case msgExtend, msgDecline:
		c.e.claim = c.claimsPast(msg)
	default:
		c.e.claim = c.claimOf(c.find(c.e.at))
	}
	if msg == msgExtendAt && c.e.claim == nobody {
		c.e.claim = c.claimsPast(msg)
	}
	if msg == msgExtendAt && c.e.claim&(lineVacant|nobody) != 0 && c.d.Match.placed && !c.e.rec.Live(c.now) {
		if b := c.bound(c.e.at); b.Line != nil && c.elsewhere(b.Line) == awayKnown { // its last lease leads to another line
			c.e.claim = macAway
		}
	}
	return c.e.claim
}

// claimOf says what a match means for the address that is at stake; without one, as of a DISCOVER, any will do.
func (c *decider) claimOf(b Binding) claim {
	m := &c.d.Match
	var by claim
	switch {
	case b.Line != nil && (b.IP == c.e.at || !c.e.at.IsValid()):
		by = macHas
	case b.Line != nil:
		by = macOther
	case m.Vacant != nil:
		by = macVacant
	case (m.failed == outcome.PortFull || m.failed == outcome.HolderLive) && (m.placed || c.e.msg != msgSelecting || !c.saysLess()):
		by = macFull
	case m.failed == outcome.MACElsewhere && m.away:
		return macAway
	case m.failed == outcome.MACElsewhere:
		return macLive
	case c.saysLess():
		return untold
	case m.failed == outcome.WrongNetwork:
		return macNetwork
	default:
		return nobody
	}
	if m.placed {
		return by >> 4 // the same by a line
	}
	return by
}

// saysLess reports whether the packet tells no line although the address at stake is found by one: the client has it leased there,
// or the ERP has it for a port, or a VLAN, of the wire that the packet came in on. The same message may come once more
// with option 82: where a relay and this server share a wire both hear it.
func (c *decider) saysLess() bool {
	p := &c.r.P
	if !c.e.at.IsValid() || p.HasOption82() || p.VLAN() != 0 && c.cfg.matches&MatchVLAN != 0 {
		return false
	}
	b := c.bound(c.e.at)
	switch own := c.e.seen && c.same(&c.e.rec); {
	case own && c.e.rec.Live(c.now) && c.tellsLine(&c.e.rec):
		return c.comesFrom(&c.e.rec) == placeOther || c.e.rec.Pool == "" && b.Line != nil && c.isPlace(&c.e.rec, b)
	case own && c.e.msg == msgReboot && c.tellsLine(&c.e.rec) && c.comesFrom(&c.e.rec) == placeOther: // its last lease, which is over
		return true
	}
	if p.GIAddr().IsValid() || !c.byLine(b) {
		return false
	}
	return b.Line == nil || !c.restricted() || c.within(c.e.at)
}

// byLine reports whether the client of the address at stake is found by a port or a VLAN, as far as known: that of its binding, or,
// where the ERP binds it to nobody, a line to which a pool for subscribers gives it.
func (c *decider) byLine(b Binding) bool {
	if b.Line != nil {
		return c.cfg.matches&MatchOption82 != 0 && hasPort(b.Line) || c.cfg.matches&MatchVLAN != 0 && b.VLAN != 0
	}
	i := c.cfg.PoolOf(c.e.at)
	return i >= 0 && c.cfg.pools[i].Kind == PoolSubscribers && c.cfg.matches&(MatchOption82|MatchVLAN) != 0 && c.near(&c.cfg.pools[i])
}

// tellsLine reports whether a lease was given on a line that its packet told.
func (m *matcher) tellsLine(rec *lease.Record) bool {
	return len(rec.Option82) > 0 || !rec.GIAddr.IsValid() && m.cfg.line.Ingress(rec.Interface).VLAN != 0
}

// stakeOwn puts the address at stake that the client of a DISCOVER has leased, if its packet tells no line and so leads to nobody, and
// the lease may have been given where it comes from, or by a relay in a network of that very wire. Elsewhere another one may have the MAC.
func (c *decider) stakeOwn() claim {
	p := &c.r.P
	if p.HasOption82() || c.cfg.matches&(MatchOption82|MatchVLAN) == 0 || p.VLAN() != 0 && c.cfg.matches&MatchVLAN != 0 || c.lodged() {
		return nobody
	}
	for _, rec := range c.leases.ByMAC(c.mac) {
		if rec.Pool == "" && rec.Live(c.now) && c.same(&rec) && c.tellsLine(&rec) &&
			(c.comesFrom(&rec) != placeOther || !p.GIAddr().IsValid() && rec.GIAddr.IsValid() && c.r.inNetwork(rec.GIAddr)) {
			c.e.at, c.e.rec, c.e.seen = rec.IP, rec, true
			return untold
		}
	}
	return nobody
}

// claimsPast says what a renewal leads to whose line tells nothing: the ERP's MAC of that very address counts, whatever
// dhcp.match says, and the client identifier.
func (c *decider) claimsPast(msg message) claim {
	if msg != msgDecline {
		if m := c.claimsApart(); m != 0 {
			return m
		}
	}
	if b := c.bound(c.e.at); b.Line != nil && b.MAC == c.mac {
		c.d.Match.binding, c.d.Match.By = b, MatchMAC
		return macHas
	}
	if c.cfg.matches&MatchClientID != 0 && !c.r.P.HasOption82() {
		if m := c.claimOf(c.find(c.e.at)); m&hasIt != 0 {
			return m
		}
	}
	return nobody
}

// stands says what the lease record says.
func (c *decider) stands(msg message) standing {
	if c.e.standing == 0 {
		c.e.standing = c.standsNow(msg)
	}
	return c.e.standing
}

func (c *decider) standsNow(msg message) standing {
	rec := &c.e.rec
	// What is over is no reason to take a packet for more than it says; a renewal says that it has the address.
	over := msg&(msgDiscover|msgSelecting|msgReboot) != 0 && !rec.Live(c.now)
	switch {
	case !c.e.seen:
		return recNone
	case msg&(msgRelease|msgDecline) != 0 && c.same(rec) && rec.State != lease.StateQuarantined:
		return recOwn
	case rec.Pool != "" && rec.MAC == c.mac && over:
		return recNone
	case rec.Pool != "" && rec.MAC == c.mac:
		return recPool
	case !c.same(rec) && rec.Live(c.now):
		return recOther
	case !c.same(rec) || !renewable(rec, c.now):
		return recNone
	case !c.sameClientID(rec) && c.comes(msg) != placeOther: // elsewhere it is no other client's either
		return recNone
	}
	switch b := c.bound(c.e.at); {
	case b.Line != nil && samePlace(rec, b) && c.differs(b.Line) && c.overruled(rec, b) && !c.onLine(rec, b):
		return recOverruled
	case over:
		return recNone
	case !c.stillHas(rec, b):
		return recGone
	}
	return recKept
}

// stillHas reports whether the ERP has the address of a lease where its client got it, or for its MAC where that alone tells who it is:
// a device that two customers have may get more time for what passed from one of them to the other, for it would be given that anew.
func (c *decider) stillHas(rec *lease.Record, b Binding) bool {
	return b.Line != nil && (samePlace(rec, b) || c.wasThere(rec, b) && (b.MAC.IsZero() || !c.differs(b.Line) || c.onLine(rec, b)) ||
		!c.tellsLine(rec) && c.foundEverywhere(b))
}

// comes says whether the packet comes from where the lease was given. Anybody can write another's MAC into
// a packet; what is not theirs is where it comes from.
func (c *decider) comes(msg message) place {
	if c.e.place != 0 {
		return c.e.place
	}
	c.e.place = c.comesFrom(&c.e.rec)
	switch rec := &c.e.rec; {
	case c.e.place != placeOther || msg&(msgExtend|msgExtendAt) == 0:
	case !rec.Live(c.now) && c.apart(rec.IP).IsZero():
		c.e.place = placeUnsure // it is nobody's place any more, but of no use in another network
	case c.foundEverywhere(c.bound(rec.IP)):
		c.e.place = placeUnsure // a DISCOVER from there would be given it, too
	case msg == msgExtendAt && rec.MAC == c.mac && c.loc.Lines.Len() == 0 && c.apart(rec.IP).IsZero() && !c.leftRelay(rec):
		c.e.place = placeUnsure // a line that the ERP does not know is no proof of another one, another network or wire is
	}
	return c.e.place
}

func (m *matcher) comesFrom(rec *lease.Record) place {
	p := &m.r.P
	from := p.From.Addr().Unmap() // none: of Explain
	fromItself := (!from.IsValid() || from == rec.IP && has(p, rec.IP)) && !p.HasOption82() && (p.Ingress.VLAN == 0 || p.Ingress.Name == rec.Interface)
	onWire := rec.Interface == "" || p.Ingress.Name == "" || rec.Interface == p.Ingress.Name
	may := func(so bool) place {
		if so {
			return placeUnsure
		}
		return placeOther
	}
	switch vlan := m.cfg.line.Ingress(rec.Interface).VLAN; {
	case rec.Interface == "" && !rec.GIAddr.IsValid() && len(rec.Option82) == 0:
		return placeUnsure // nobody knows where it was given
	case len(rec.Option82) > 0 && p.HasOption82():
		return m.comparesLine(rec, onWire)
	case p.GIAddr().IsValid(): // without option 82, or the record has none: others are behind that relay
		return may(rec.GIAddr == p.GIAddr() || rec.GIAddr.IsValid() && m.cfg.oneWire(rec.GIAddr, p.GIAddr()))
	case rec.GIAddr.IsValid(): // past the relay, so from the address itself, as far as that says anything
		return may(fromItself && !m.leftRelay(rec))
	case len(rec.Option82) == 0 && vlan != 0 && p.Ingress.VLAN == vlan:
		if !m.oneCustomer(vlan) || p.Ingress.Name != rec.Interface { // eth1.7 and eth2.7 are two wires
			return placeUnsure
		}
		return placeSame
	}
	return may(onWire)
}

// has reports whether who sends a message says that it has an address: only then it sends from it (RFC 2131 section 4.3.2).
func has(p *line.Packet, a netip.Addr) bool {
	switch p.Type() {
	case wire.Request:
		return p.CIAddr() == a && !(p.ServerID().IsValid() && p.Requested().IsValid())
	case wire.Release:
		return p.CIAddr() == a
	}
	return p.Type() == wire.Decline
}

// comparesLine says whether the option 82 of the packet names the line of a record's. Sub-options that name no
// line may differ. A circuit-id without a remote-id, or with one that is the client's own MAC, means something to its relay, or switch, only.
func (m *matcher) comparesLine(rec *lease.Record, onWire bool) place {
	p := &m.r.P
	old := p.Relay
	if !bytes.Equal(p.Option82(), rec.Option82) {
		var err error
		if old, err = wire.ParseRelayInfo(rec.Option82); err != nil || !bytes.Equal(old.CircuitID, p.Relay.CircuitID) ||
			!bytes.Equal(remoteID(&old, rec.MAC), remoteID(&p.Relay, m.mac)) || !bytes.Equal(old.RelaySubscriberID, p.Relay.RelaySubscriberID) {
			return placeOther
		}
	}
	remote := remoteID(&old, rec.MAC)
	nameless := len(old.CircuitID)+len(remote)+len(old.RelaySubscriberID) == 0
	there := rec.GIAddr == p.GIAddr() && (p.GIAddr().IsValid() || onWire)
	switch {
	case !nameless && (len(remote) > 0 || there):
		return placeSame
	case there, rec.GIAddr.IsValid() && p.GIAddr().IsValid() && m.cfg.oneWire(rec.GIAddr, p.GIAddr()):
		return placeUnsure
	}
	return placeOther
}

// remoteID returns the remote-id, if it names a switch: some relays write the client's own MAC there, which is its word alone.
func remoteID(r *wire.RelayInfo, client provision.MAC) []byte {
	if r.RemoteIsClient(client) {
		return nil
	}
	return r.RemoteID
}

// oneCustomer reports whether a VLAN is that of one customer, as dhcp.vlan_interfaces says of all of them. One for which the
// ERP has several is a shared wire.
func (m *matcher) oneCustomer(vlan uint16) bool {
	_, shared := m.snap.ByVLAN(vlan)
	return vlan != 0 && !shared
}

// foundEverywhere reports whether the ERP has the client's MAC for a line without a port or VLAN.
func (m *matcher) foundEverywhere(b Binding) bool {
	return b.Line != nil && b.MAC == m.mac && m.cfg.matches&MatchMAC != 0 && m.cfg.anywhere(b.Line)
}
