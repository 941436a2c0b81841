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
	d               Decision
	alwaysBroadcast bool // as the client's subnet or class wants it
}

// Decide answers one request. It is pure: time, packet, bindings, leases, pools and
// configuration in, a plan out. Nothing in the result outlives the packet's bytes.
func Decide(now time.Time, r *Request, snap *provision.Snapshot, leases LeaseView, pools PoolView, cfg *Config) Decision {
	c := decider{matcher: matcher{now: now, r: r, snap: snap, leases: leases, pools: pools, cfg: cfg}}
	if r.Served && !r.Standby && r.P.Err == nil && r.Trust.Refused == 0 && r.Limited == 0 && r.P.Op() == 1 && r.P.Type() == wire.LeaseQuery {
		c.leaseQuery() // no client: it need not have a MAC
		return c.d
	}
	if o := c.admit(); o != 0 {
		c.d.Outcome = o
		return c.d
	}
	switch r.P.Type() {
	case wire.Discover:
		c.discover()
	case wire.Request:
		c.request()
	case wire.Release:
		c.release()
	case wire.Decline:
		c.decline()
	case wire.Inform:
		c.inform()
	default:
		c.end(outcome.UnexpectedType)
	}
	c.d.MAC = c.mac
	return c.d
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
	case p.RelayInfoCount() > 1:
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
	c.d.Match = c.matcher.find(hint)
	return c.d.Match.binding
}

func (c *decider) discover() {
	b := c.find(c.r.P.Requested())
	if b.Line == nil {
		c.discoverPool()
		return
	}
	if c.cfg.rapidCommit && c.r.P.RapidCommit() {
		c.grant(wire.Ack, b)
		c.d.Reply.RapidCommit = c.d.Reply.Type == wire.Ack
		return
	}
	c.grant(wire.Offer, b)
}

// request tells the four kinds of REQUEST apart (RFC 2131 section 4.3.2 and table 4).
func (c *decider) request() {
	p := &c.r.P
	requested, ciaddr := p.Requested(), p.CIAddr()
	at := requested
	if !at.IsValid() {
		at = ciaddr
	}
	if p.ServerID().IsValid() && !c.chosen(at) {
		c.end(outcome.NotForUs)
		return
	}
	switch {
	case p.ServerID().IsValid() && requested.IsValid():
		c.selecting(requested)
	case ciaddr.IsValid(): // some clients repeat the server id here
		c.extend(ciaddr)
	case requested.IsValid():
		c.initReboot(requested)
	default:
		c.end(outcome.RequestIncomplete)
	}
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

func (c *decider) selecting(requested netip.Addr) {
	b := c.find(requested)
	switch {
	case b.Line == nil:
		c.selectPool(requested)
	case b.IP != requested:
		c.nak(outcome.NakWrongAddress, b)
	default:
		c.grant(wire.Ack, b)
	}
}

func (c *decider) initReboot(requested netip.Addr) {
	b := c.find(requested)
	switch {
	case b.Line == nil && c.d.Match.failed == outcome.PortFull:
		c.end(outcome.PortFull)
	case b.Line == nil:
		c.rebootPool(requested)
	case b.IP == requested:
		c.grant(wire.Ack, b)
	case !c.cfg.authoritative:
		c.d.Binding = b
		c.end(outcome.NotAuthoritative)
	default:
		c.nak(outcome.NakWrongAddress, b)
	}
}

// extend answers RENEWING and REBINDING. With option 82 the port says what the
// client is to have, and so does the interface of a VLAN. Without, the packet came past
// the relay (or no box inserts option 82 there), and the lease record says whose
// the address is.
func (c *decider) extend(ciaddr netip.Addr) {
	if c.r.P.HasOption82() || c.cfg.matches&MatchVLAN != 0 && c.r.P.VLAN() != 0 {
		b := c.find(ciaddr)
		placed := c.r.P.HasOption82() || c.d.Match.By&MatchVLAN != 0
		switch {
		case !placed:
		case b.Line == nil && c.d.Match.failed == outcome.PortFull,
			b.Line != nil && b.IP == ciaddr && c.leasedToAnother(ciaddr):
			c.nak(outcome.NakOtherClient, Binding{})
			return
		case b.Line != nil && b.IP == ciaddr:
			c.grant(wire.Ack, b)
			return
		case b.Line != nil:
			c.move(outcome.NakWrongAddress, b)
			return
		}
	}
	if rec, ok := c.pooled(ciaddr); ok {
		c.extendPool(&rec)
		return
	}
	b := c.bound(ciaddr)
	rec, known := c.leases.Get(ciaddr)
	switch {
	case c.leasedToAnother(ciaddr):
		c.nak(outcome.NakOtherClient, Binding{})
	case known && c.same(&rec) && renewable(&rec, c.now) && c.sameClientID(&rec):
		if b.Line == nil || !samePlace(&rec, b) {
			c.move(outcome.NakNotBound, Binding{})
			return
		}
		c.grant(wire.Ack, b)
	case b.Line != nil && b.MAC == c.mac:
		c.grant(wire.Ack, b)
	default:
		if c.cfg.matches&MatchClientID != 0 {
			if b := c.find(ciaddr); b.Line != nil && b.IP == ciaddr {
				c.grant(wire.Ack, b)
				return
			}
		}
		c.refuseUnknown(outcome.RenewUnknown)
	}
}

// move takes a client's address away, at once or after a moment; b is what it
// is to have, none if nothing.
func (c *decider) move(o outcome.Outcome, b Binding) {
	if !c.shorten(c.r.P.CIAddr()) {
		c.nak(o, b)
	}
}

// leasedToAnother reports whether another client took the address over: whoever
// had it before must not extend it, but may ask anew.
func (c *decider) leasedToAnother(a netip.Addr) bool {
	rec, known := c.leases.Get(a)
	return known && !c.same(&rec) && rec.Live(c.now)
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

func (c *decider) release() {
	if o := c.foreign(); o != 0 {
		c.end(o)
		return
	}
	ciaddr := c.r.P.CIAddr()
	rec, known := c.leases.Get(ciaddr)
	if !known || !c.same(&rec) || !c.sits(&rec) {
		c.end(outcome.ReleaseUnknown)
		return
	}
	c.d.Rec.MAC = rec.MAC
	if i := c.cfg.PoolOf(rec.IP); i >= 0 && rec.Pool != "" {
		c.releasePool(i, &rec)
		return
	}
	c.d.YourIP, c.d.Binding = ciaddr, c.bound(ciaddr)
	c.d.Change = ChangeRelease
	c.end(outcome.Released)
}

// decline notes that a client found its address in use. The binding is the
// ERP's word, so the address is not taken out of service: the client gets the
// same one again, and people are told.
func (c *decider) decline() {
	if o := c.foreign(); o != 0 {
		c.end(o)
		return
	}
	ip := c.r.P.Requested()
	b := c.bound(ip)
	rec, known := c.leases.Get(ip)
	i := c.cfg.PoolOf(ip)
	switch {
	case known && !c.sits(&rec):
		c.end(outcome.DeclineUnknown)
		return
	case known && i >= 0 && b.Line == nil && c.hasFromPool(&rec):
		c.declinePool(i, &rec)
		return
	case known && c.same(&rec) && rec.Pool == "":
		c.d.Change, c.d.Rec.MAC = ChangeDecline, rec.MAC
	case b.Line != nil && b.MAC == c.mac:
	default:
		c.end(outcome.DeclineUnknown)
		return
	}
	c.d.YourIP, c.d.Binding = ip, b
	c.end(outcome.Declined)
}

// sits reports whether a RELEASE or DECLINE can come from where the lease is. They
// have no answer that a liar would miss, and anybody can write another's MAC into one.
func (c *decider) sits(rec *lease.Record) bool {
	p := &c.r.P
	switch {
	case p.HasOption82() && len(rec.Option82) > 0:
		if bytes.Equal(p.Option82(), rec.Option82) {
			return true
		}
		was, err := wire.ParseRelayInfo(rec.Option82) // other sub-options may change
		return err == nil && bytes.Equal(was.CircuitID, c.r.P.Relay.CircuitID) && bytes.Equal(was.RemoteID, c.r.P.Relay.RemoteID)
	case p.GIAddr().IsValid():
		return true
	case rec.GIAddr.IsValid(): // past the relay, so from the address itself
		return c.r.P.From.Addr().Unmap() == rec.IP
	}
	return rec.Interface == "" || c.r.P.Ingress.Name == "" || rec.Interface == c.r.P.Ingress.Name
}

// foreign says why a RELEASE or DECLINE is none for this server; zero: it is one.
func (c *decider) foreign() outcome.Outcome {
	p := &c.r.P
	at := p.CIAddr()
	if !at.IsValid() {
		at = p.Requested()
	}
	switch {
	case !at.IsValid():
		return outcome.RequestIncomplete
	case p.ServerID().IsValid() && !c.chosen(at):
		return outcome.NotForUs
	}
	return 0
}

// inform answers a client that has its address from elsewhere (RFC 2131 section
// 4.3.5): no lease times, yiaddr zero.
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
	}
}
