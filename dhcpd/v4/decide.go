package v4

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// decider holds the arguments of one decision.
type decider struct {
	matcher
	d     *Decision
	owner provision.Owner // of guest, once it was asked

	alwaysBroadcast bool // as the client's subnet or class wants it
}

// Decide answers one request. It is pure: time, packet, bindings, leases, pools and
// configuration in, a plan out, into d. Nothing in the result outlives the packet's bytes.
func Decide(d *Decision, now time.Time, r *Request, snap *provision.Snapshot, leases LeaseView, pools PoolView, cfg *Config) {
	*d = Decision{}
	c := decider{d: d, matcher: matcher{now: now, r: r, snap: snap, leases: leases, pools: pools, cfg: cfg}}
	if r.Served && !r.Standby && r.P.Err == nil && r.Trust.Refused == 0 && r.Limited == 0 && r.P.Op() == 1 && r.P.Type() == wire.LeaseQuery {
		c.leaseQuery() // no client: it need not have a MAC
		return
	}
	if o := c.admit(); o != 0 {
		c.d.Outcome = o
		return
	}
	if msg := c.ask(); msg != 0 {
		c.rule(msg)
	}
	c.d.MAC = c.mac
	c.d.Evidence.By, c.d.Evidence.Since = c.vouched(), c.e.since()
}

// admit makes sure that the packet is one to look at; otherwise it says why not.
func (c *decider) admit() outcome.Outcome {
	p := &c.r.P
	if !c.r.Served {
		return outcome.InterfaceOff
	}
	if c.r.Standby {
		return outcome.Standby
	}
	if c.r.P.Err != nil {
		return outcome.Malformed
	}
	if c.r.Trust.Refused != 0 {
		return c.r.Trust.Refused
	}
	if c.r.Limited != 0 {
		return c.r.Limited
	}
	if p.Op() != 1 {
		return outcome.NotRequest
	}
	mac, ok := p.MAC()
	if !ok || mac == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} {
		return outcome.BadHardware
	}
	c.mac, c.d.MAC = mac, mac
	switch {
	case p.RelayInfoCount() > 1, p.Relay.Twice:
		return outcome.Option82Double
	case c.r.P.RelayErr != nil:
		return outcome.Option82Malformed
	case c.snap.Empty():
		return outcome.NotReady
	}
	return 0
}

// end ends the packet without a reply.
func (c *decider) end(o outcome.Outcome) { c.d.Outcome = o }

// bound returns the binding of an address; none if the ERP gives it to nobody.
func (c *decider) bound(ip netip.Addr) Binding { return Binding{c.snap.ByIP(ip), ip} }

func (c *decider) find(hint netip.Addr) Binding {
	c.matcher.find(hint, &c.d.Match)
	if c.d.Match.failed == outcome.HolderLive {
		c.d.YourIP, c.d.Rival, c.d.Until = c.held.ip, c.held.mac, c.held.until
	}
	return c.d.Match.binding
}

// ask says what the client wants and puts the address at stake. It is zero for what was answered or is not to be.
func (c *decider) ask() message {
	p := &c.r.P
	switch p.Type() {
	case wire.Discover:
		c.stake(netip.Addr{})
		return msgDiscover
	case wire.Request:
		return c.request()
	case wire.Release:
		return c.givesUp(msgRelease, p.CIAddr())
	case wire.Decline:
		return c.givesUp(msgDecline, p.Requested())
	case wire.Inform:
		c.inform()
	default:
		c.end(outcome.UnexpectedType)
	}
	return 0
}

// request tells the four kinds of REQUEST apart (RFC 2131 section 4.3.2 and table 4).
func (c *decider) request() message {
	p := &c.r.P
	requested, ciaddr := p.Requested(), p.CIAddr()
	at := requested
	if !at.IsValid() {
		at = ciaddr
	}
	if p.ServerID().IsValid() && !c.chosen(at) {
		c.end(outcome.NotForUs)
		return 0
	}
	switch {
	case p.ServerID().IsValid() && requested.IsValid():
		c.stake(requested)
		return msgSelecting
	case ciaddr.IsValid() && !c.rebootsFromNowhere(): // some clients repeat the server id here
		c.stake(ciaddr)
		return c.extend()
	case requested.IsValid():
		c.stake(requested)
		return msgReboot
	}
	c.end(outcome.RequestIncomplete)
	return 0
}

// extend tells whether a renewal says which line it comes from: with option 82, or on the interface of a VLAN that the
// ERP knows. Without, it came past the relay, or no box inserts option 82 there.
func (c *decider) extend() message {
	switch {
	case c.r.P.HasOption82():
		return msgExtendAt
	case c.cfg.matches&MatchVLAN != 0 && c.r.P.VLAN() != 0:
		b := c.find(c.e.at)
		if c.d.Match.By&MatchVLAN != 0 {
			c.e.claim = c.claimOf(b)
			return msgExtendAt
		}
		c.d.Match.binding = Binding{}
	}
	return msgExtend
}

// chosen reports whether option 54 names this server: by an address of this host,
// by what it tells now, or by what a relay had it tell (RFC 5107) when it gave out
// address. Such a relay need not say so again when it passes a renewal on.
func (c *decider) chosen(address netip.Addr) bool {
	id := c.r.P.ServerID()
	if c.r.OwnID || id == c.r.Local || id == c.cfg.serverID || id == c.serverID(c.cfg.subnetOf(address)) {
		return true
	}
	rec, known := c.leases.Get(address)
	if !known || len(rec.Option82) == 0 {
		return false
	}
	told, err := wire.ParseRelayInfo(rec.Option82)
	return err == nil && told.Override == id
}

func (c *decider) sameClientID(rec *lease.Record) bool {
	id := c.r.P.ClientID()
	return len(id) == 0 || len(rec.ClientID) == 0 || bytes.Equal(id, rec.ClientID)
}

// samePlace reports whether a lease still is what its binding says: the same
// customer, or the same port after the contract on it changed hands.
func samePlace(rec *lease.Record, b Binding) bool {
	return rec.Subscriber == b.Subscriber || rec.Port != 0 && rec.Device == b.Device && rec.Port == b.Port
}

// isPlace is samePlace, also on a line that has no number of a port to compare: one by the port's name, or a VLAN.
func (m *matcher) isPlace(rec *lease.Record, b Binding) bool {
	return samePlace(rec, b) || m.wasThere(rec, b)
}

// givesUp puts the address of a RELEASE or DECLINE at stake.
func (c *decider) givesUp(msg message, at netip.Addr) message {
	p := &c.r.P
	named := p.CIAddr()
	if !named.IsValid() {
		named = p.Requested()
	}
	switch {
	case !named.IsValid():
		c.end(outcome.RequestIncomplete)
		return 0
	case p.ServerID().IsValid() && !c.chosen(named):
		c.end(outcome.NotForUs)
		return 0
	}
	c.stake(at)
	return msg
}

// release plans the end of a lease that its client gave back, or a mark of it.
func (c *decider) release(rec *lease.Record) {
	c.d.Rec.MAC = rec.MAC
	if i := c.cfg.PoolOf(rec.IP); i >= 0 && rec.Pool != "" {
		c.releasePool(i, rec)
		return
	}
	c.d.YourIP, c.d.Binding = rec.IP, c.bound(rec.IP)
	c.d.Change = ChangeRelease
	c.d.Pool = c.cfg.PoolOf(rec.IP) + 1 // which keeps what the ERP had bound until that is over
	c.end(outcome.Released)
}

// decline notes that a client found its address in use. The binding is the
// ERP's word, so the address is not taken out of service: the client gets the
// same one again, and people are told.
func (c *decider) decline(rec *lease.Record) {
	b := c.bound(rec.IP)
	if rec.Pool != "" {
		i := c.cfg.PoolOf(rec.IP)
		switch {
		case i < 0 || b.Line != nil || !c.hasFromPool(rec):
			c.d.Keep = false
			c.end(outcome.DeclineUnknown)
			return
		case !c.d.Keep:
			c.declinePool(i, rec)
			return
		}
		c.d.Pool = i + 1
	}
	c.d.Change, c.d.Rec.MAC = ChangeDecline, rec.MAC
	c.d.YourIP, c.d.Binding = rec.IP, b
	if c.d.Keep && rec.Pool != "" {
		c.end(outcome.PoolDeclined)
		return
	}
	c.end(outcome.Declined)
}

// vouched returns who vouches for the line that counted, or else for the relay that forwarded the packet.
func (c *decider) vouched() Voucher {
	if c.d.Match.By&(MatchOption82|MatchVLAN) == MatchVLAN {
		return VoucherVLAN
	}
	return c.r.Trust.By
}

// inform answers a client that has its address from elsewhere (RFC 2131 section
// 4.3.5): no lease times, yiaddr zero. The answer goes to that address, so one that is not served here is not answered.
func (c *decider) inform() {
	ciaddr := c.r.P.CIAddr()
	silent := !ciaddr.IsValid() && !c.r.P.GIAddr().IsValid()
	if silent { // some leave ciaddr out and send from the address
		if from := c.r.P.From.Addr(); from.IsValid() && !from.IsUnspecified() {
			ciaddr = from
		}
	}
	if !ciaddr.IsValid() {
		c.end(outcome.RequestIncomplete)
		return
	}
	b := c.bound(ciaddr)
	if b.Line == nil {
		c.informPool(ciaddr)
		return
	}
	n, ok := c.prepare(b)
	if !ok {
		return
	}
	c.d.Outcome = outcome.InformAck
	c.d.Reply.Type, c.d.Reply.CIAddr, c.d.Reply.Options = wire.Ack, ciaddr, c.options(n)
	c.route()
	if silent {
		c.d.Way, c.d.To, c.d.Reply.CIAddr = wire.WayUnicast, netip.AddrPortFrom(ciaddr, c.cfg.clientPort), netip.Addr{}
		c.keepToTheWire()
	}
}
