package v4

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// prepare fills what every reply about a binding has.
func (c *decider) prepare(b Binding) (*subnet, bool) {
	c.d.Binding, c.d.YourIP = b, b.IP
	n := c.cfg.subnetOf(b.IP)
	if n == nil {
		c.unserved(b)
		return nil, false
	}
	id := c.serverID(n)
	if !id.IsValid() {
		c.end(outcome.NoServerID)
		return nil, false
	}
	c.d.Reply.ServerID = id
	return n, true
}

// unserved ends a packet whose client is to have an address that no subnet of the configuration has. One that asks for that
// very address is refused, so that it looks for another server, as silence would let it keep the address until its lease is over.
func (c *decider) unserved(b Binding) {
	switch p := &c.r.P; {
	case p.Type() != wire.Request:
		c.end(outcome.NoSubnet)
	case c.e.msg == msgReboot && !c.cfg.authoritative:
		c.end(outcome.NotAuthoritative)
	default:
		c.nak(outcome.NakNoSubnet, b)
	}
}

// options returns what the client is told in n.
func (c *decider) options(n *subnet) *wire.OptionSet {
	class := c.cfg.classes.Of(&c.r.P.Packet, c.mac)
	c.alwaysBroadcast = n.alwaysBroadcast || c.cfg.classes.AlwaysBroadcast(class)
	return n.options[class]
}

// grant plans an OFFER or an ACK of b's address.
func (c *decider) grant(t wire.MessageType, b Binding) {
	old, _ := c.lease(b.IP, new(lease.Record)) // zero: nothing is recorded
	if o := c.permit(b, old); o != 0 {
		if o == outcome.TakeoverDamped && c.r.P.Type() == wire.Request {
			c.nak(outcome.NakOtherClient, Binding{}) // it is not to use what another has
			return
		}
		c.d.Binding, c.d.YourIP = b, b.IP
		if o == outcome.MACReported {
			c.d.Report, c.d.Rec = true, lease.Record{IP: b.IP, Subscriber: b.Subscriber, ERP: c.erpMACs(b, old)}
		}
		c.end(o)
		return
	}
	n, ok := c.prepare(b)
	if !ok {
		return
	}
	c.d.Evidence.Stray, c.d.Evidence.OtherNetwork = c.strays(b.Line, old), c.apart(b.IP)
	r := &c.d.Reply
	r.Type, r.YIAddr, r.Options = t, b.IP, c.options(n)
	r.LeaseTime, r.RenewTime, r.RebindTime = n.seconds, n.t1, n.t2
	c.route()
	if t == wire.Offer {
		c.d.Outcome, c.d.Swap = outcome.Offer, c.reports(b, old)
		return
	}
	c.d.Outcome = outcome.Ack
	r.CIAddr = c.has()
	c.d.Report = c.reports(b, old)
	c.record(b, n, old)
}

// reports reports whether the ERP is to be told of the client's MAC when it has b; old is what is recorded of the address.
func (c *decider) reports(b Binding, old *lease.Record) bool {
	return c.differs(b.Line) && c.mayReport(b) && !c.outdated(old, b)
}

// record plans the lease record of an ACK, in place of what the address had before; zero: nothing.
func (c *decider) record(b Binding, n *subnet, old *lease.Record) {
	p := &c.r.P
	rec := &c.d.Rec
	*rec = lease.Record{
		IP:         b.IP,
		MAC:        c.mac,
		ClientID:   p.ClientID(),
		Subscriber: b.Subscriber,
		Device:     b.Device,
		Port:       b.Port,
		Option82:   p.Option82(),
		GIAddr:     p.GIAddr(),
		Ifindex:    c.r.Ifindex,
		Interface:  c.r.P.Ingress.Name,
		State:      lease.StateBound,
		Start:      c.now,
		Renewed:    c.now,
		Expires:    c.now.Add(n.lease),
	}
	c.d.Change = ChangeFact
	known := old.State != 0
	rec.ERP = c.erpMACs(b, old)
	if known {
		rec.Prior = c.prior(old, b.Line)
	}
	if known && c.same(old) {
		stays := c.staysPut(old, b)
		if stays && !p.HasOption82() {
			rec.MAC = old.MAC // an identifier is its client's past the relay, too, but who was heard on the line is known from before
		}
		if old.MAC == rec.MAC {
			rec.Start, rec.Expires = old.Start, c.notBefore(old, rec.Expires)
		}
		if stays { // where the client sits is known from before
			rec.Option82, rec.GIAddr = old.Option82, old.GIAddr
			rec.Ifindex, rec.Interface = old.Ifindex, old.Interface
			if p.HasOption82() {
				rec.ClientID = old.ClientID // nor does it learn what somebody there calls himself
			}
		} else if !p.HasOption82() && c.comesFrom(old) != placeOther {
			rec.Option82 = old.Option82 // it is the same wire, which told more before
		}
		if len(rec.ClientID) == 0 {
			rec.ClientID = old.ClientID
		}
		sameFact := old.MAC == rec.MAC && old.Pool == "" && renewable(old, c.now) && old.Subscriber == rec.Subscriber &&
			old.Device == rec.Device && old.Port == rec.Port && !c.reroutes(old, rec)
		sameDetails := old.GIAddr == rec.GIAddr && old.Interface == rec.Interface &&
			old.Ifindex == rec.Ifindex && bytes.Equal(old.Option82, rec.Option82) &&
			bytes.Equal(old.ClientID, rec.ClientID)
		switch {
		case sameFact && sameDetails:
			c.d.Change = ChangeRenew
		case sameFact:
			c.d.Change = ChangeBackground
		}
	}
}

// reroutes reports whether the kernel may have to send the address another way than before: it leads to an interface only
// while the lease is live. Such an ACK waits for the commit, and so for those who follow leases.
func (c *decider) reroutes(old, rec *lease.Record) bool {
	direct := !rec.GIAddr.IsValid()
	return direct == old.GIAddr.IsValid() || direct && (old.Interface != rec.Interface || !old.Live(c.now))
}

// erpMACs returns what the client's record keeps of the ERP: that of the record that it has, also where its lease was over, else what
// the ERP has now that it gets the address.
func (c *decider) erpMACs(b Binding, old *lease.Record) lease.ERPMACs {
	if old.State != 0 && old.Pool == "" && (old.MAC == c.mac || c.same(old)) {
		return old.ERP
	}
	return lease.Granted(c.snap, b.Line, old, c.now)
}

// notBefore returns when the lease of a record ends for us that its client is given until then: not before what it was told last, because
// lease times may have been made shorter since, and nobody knows whether it hears that. A record from a clock that was ahead says nothing.
func (c *decider) notBefore(old *lease.Record, until time.Time) time.Time {
	if old.Live(c.now) && !old.Renewed.After(c.now) && old.Expires.After(until) {
		return old.Expires
	}
	return until
}

// staysPut reports whether the place of a lease stays as it is when its client gets more time for it. A packet that
// tells no line came past the relay, or says less than one before. One from a line where the client was
// not found shows only that somebody there has its MAC.
func (c *decider) staysPut(old *lease.Record, b Binding) bool {
	p := &c.r.P
	switch {
	case c.has().IsValid() && c.leftRelay(old) && (!p.HasOption82() || c.foundEverywhere(b)):
		return false // it is not there, and may have the address where it is
	case p.HasOption82():
		byLine := c.d.Match.By&(MatchOption82|MatchVLAN) != 0
		return !byLine && (c.has().IsValid() || hasPort(b.Line)) && old.Live(c.now) && c.comesFrom(old) == placeOther
	case !c.has().IsValid():
		return false // it has no address yet, so it is on the wire that its packet came in on
	case p.GIAddr().IsValid():
		return c.comesFrom(old) == placeOther && !c.foundEverywhere(b)
	}
	direct := old.Interface != "" && !old.GIAddr.IsValid() && len(old.Option82) == 0 // it never came through a relay
	switch from := c.comesFrom(old); {
	case old.Live(c.now):
		return !direct || hasPort(b.Line) && from == placeOther
	default:
		return !direct && from != placeOther // what is over begins where its client is
	}
}

// nak plans a refusal; b is what the client would get, none if nothing.
func (c *decider) nak(o outcome.Outcome, b Binding) {
	if c.unplaced() {
		c.end(outcome.DevicesUnread)
		return
	}
	at := c.e.at
	n := c.cfg.subnetOf(at)
	if b.Line != nil {
		c.d.Binding, c.d.YourIP = b, b.IP
	}
	id := c.serverID(n)
	if !id.IsValid() && b.Line != nil {
		id = c.serverID(c.cfg.subnetOf(b.IP))
	}
	if !id.IsValid() {
		c.end(outcome.NoServerID)
		return
	}
	if rec, known := c.lease(at, new(lease.Record)); known && rec.Live(c.now) {
		switch {
		case !c.same(rec):
			if o == outcome.NakOtherClient {
				c.d.Rival = rec.MAC
			}
		case c.told(rec):
			c.d.Change, c.d.Rec = ChangeRefused, lease.Record{IP: at, MAC: rec.MAC, Key: rec.Key, Pool: rec.Pool, Subscriber: rec.Subscriber}
			c.d.Pool = c.cfg.PoolOf(at) + 1 // also of a lease of the ERP: the pool keeps what the ERP had bound until that is over
		}
	}
	c.d.Outcome = o
	c.d.Reply = wire.Reply{Type: wire.Nak, ServerID: id, Message: nakMessage(o)}
	c.route()
}

// told reports whether the client of a live lease hears that it is refused, and the ERP took the address from it: then the lease is over, for nobody is to wait for what nobody uses. From elsewhere somebody else may have
// written its MAC, and a NAK to a renewal that came past the relay is broadcast on our own wire, where the client is not.
func (c *decider) told(rec *lease.Record) bool {
	return rec.MAC == c.mac && c.refuted(rec) && c.comesFrom(rec) != placeOther && !c.past(rec)
}

// refuted reports whether the ERP has the address of a lease for somebody else than its client, for another MAC, or for nobody, or no subnet has it.
func (c *decider) refuted(rec *lease.Record) bool {
	b := c.bound(rec.IP)
	switch {
	case c.cfg.subnetOf(rec.IP) == nil:
		return true
	case rec.Pool != "":
		return b.Line != nil
	}
	return !c.stillHas(rec, b) || c.differs(b.Line) && c.overruled(rec, b) && !c.onLine(rec, b)
}

// nakMessage is option 56, which some clients log.
func nakMessage(o outcome.Outcome) string {
	switch o {
	case outcome.NakWrongAddress:
		return "another address is bound to you"
	case outcome.NakOtherClient:
		return "address is leased to another client"
	case outcome.NakUnknown:
		return "client is not known here"
	case outcome.NakNoSubnet:
		return "address is of no network here"
	case outcome.NakWrongNetwork:
		return "your addresses are of other networks"
	}
	return "address is not bound to you"
}

// serverID returns the server identifier of a reply: what the relay wants (RFC
// 5107), what is configured for n or at all, the address that the packet came to,
// one of the interface, best in n, the gateway of n.
func (c *decider) serverID(n *subnet) netip.Addr {
	switch {
	case c.r.P.Relay.Override.IsValid():
		return c.r.P.Relay.Override
	case n != nil && n.serverID.IsValid():
		return n.serverID
	case c.cfg.serverID.IsValid():
		return c.cfg.serverID
	case c.r.Local.IsValid():
		return c.r.Local
	}
	if c.r.On != nil {
		if n != nil {
			if a := c.r.On.AddrIn(n.prefix); a.IsValid() {
				return a
			}
		}
		if a := c.r.On.Addr(); a.IsValid() {
			return a
		}
	}
	if n != nil {
		return n.gateway
	}
	return netip.Addr{}
}

// route chooses how the reply travels (RFC 2131 section 4.1).
func (c *decider) route() {
	p := &c.r.P
	nak := c.d.Reply.Type == wire.Nak
	switch gi := p.GIAddr(); {
	case gi.IsValid():
		port := c.cfg.relayPort
		if c.r.P.Relay.SourcePort && c.r.P.From.Port() != 0 { // RFC 8357
			port = c.r.P.From.Port()
		}
		c.d.Way, c.d.To = wire.WayRelay, netip.AddrPortFrom(gi, port)
		// The relay is to broadcast it: the client has no address to take it at, or the reply has none in yiaddr, by which
		// relays send.
		c.d.Reply.Broadcast = nak || p.Type() == wire.Inform || c.alwaysBroadcast && !c.has().IsValid()
	case nak:
		c.d.Way = wire.WayBroadcast
	case c.has().IsValid() && !c.fromNowhere():
		c.d.Way, c.d.To = wire.WayUnicast, netip.AddrPortFrom(c.has(), c.cfg.clientPort)
	case p.Broadcast() || c.alwaysBroadcast || p.HType() != 1:
		c.d.Way = wire.WayBroadcast
	default:
		c.d.Way = wire.WayFrame
	}
	c.keepToTheWire()
}

// keepToTheWire has a datagram to a client that is on the wire of its packet leave there as a frame, to who asked. By the
// routing table it could leave elsewhere: where the client was before, or into another network with the same addresses. A broadcast
// was sent on that wire, whatever the record says; of a datagram to this server the interface and the record tell.
func (c *decider) keepToTheWire() {
	p, a := &c.r.P, c.d.To.Addr()
	if c.d.Way != wire.WayUnicast || p.GIAddr().IsValid() || p.HType() != 1 {
		return
	}
	rec, known := c.lease(a, new(lease.Record))
	past := known && rec.GIAddr.IsValid() && c.same(rec) // it renews past its relay
	if c.wasBroadcast() || c.r.reaches(a) && !past {
		c.d.Way = wire.WayFrame
	}
}

// has returns the address that the client has and uses, as its kind of message says. Some clients put the one that
// they had into ciaddr of a DISCOVER or of a REQUEST for an address that they do not have: nobody answers ARP for that.
func (c *decider) has() netip.Addr {
	p := &c.r.P
	a := p.CIAddr()
	if a.IsValid() && (p.Type() == wire.Inform || p.Type() == wire.Request && has(p, a) && !c.rebootsFromNowhere()) {
		return a
	}
	return netip.Addr{}
}

// fromNowhere reports whether the packet comes from 0.0.0.0, so from a wire of ours and a client that takes no datagram to its address
// yet, or says so. A frame finds it.
func (c *decider) fromNowhere() bool {
	return c.r.P.From.Addr().Unmap() == netip.IPv4Unspecified()
}

// rebootsFromNowhere reports whether a REQUEST that takes no offer names the address that it wants, which a renewal does not, and
// comes from nowhere: then the client does not have it, whatever it writes into ciaddr.
func (c *decider) rebootsFromNowhere() bool {
	return c.r.P.Requested().IsValid() && c.fromNowhere()
}
