package v4

import (
	"bytes"
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// This file decides about clients for whom the ERP binds no address: what becomes
// of unknown ones, and who gets an address of a pool.

// unknown reports whether the ERP says nothing about the client. Other reasons
// for not finding a binding, such as a full port, are answers of the ERP.
func (m *Match) unknown() bool {
	switch m.failed {
	case outcome.UnknownClient, outcome.Option82Untrusted, outcome.Option82Unread, outcome.UnknownDevice, outcome.UnknownPort, outcome.UnknownVLAN,
		outcome.SubscriberUnclear: // nobody can say which customer it is
		return m.binding.Line == nil
	}
	return false
}

// unplaced reports whether the client may be one that the ERP knows, for all that can be said before its list of switches was read:
// it is refused nothing then, and no guest.
func (c *decider) unplaced() bool {
	return c.cfg.matches&MatchOption82 != 0 && c.loc.Result == line.DevicesUnread || c.d.Match.failed == outcome.DevicesUnread
}

// poolKind returns the kind of pools that the client may have an address of; 0: none.
func (c *decider) poolKind() PoolKind {
	switch m := &c.d.Match; {
	case m.Vacant != nil && c.servedKind(PoolSubscribers):
		return PoolSubscribers
	case (m.Vacant != nil || m.unknown()) && c.cfg.unknown == UnknownGuest:
		return PoolGuests
	}
	return 0
}

// wire returns the address that tells which wire the client is on, as far as known: link
// selection of the relay, relay address, address of the interface.
func (c *decider) wire() netip.Addr {
	switch {
	case c.r.P.Relay.Link.IsValid():
		return c.r.P.Relay.Link
	case c.r.P.GIAddr().IsValid():
		return c.r.P.GIAddr()
	}
	if !c.r.Local.IsValid() && c.r.On != nil {
		return c.r.On.Addr()
	}
	return c.r.Local
}

// near reports whether a pool serves the client's wire. An interface may have
// several addresses, such as one of the customers' network and one of the guests'.
// What it does not have says nothing of the wire: a packet that was sent to one of our
// other addresses came from anywhere.
func (c *decider) near(p *dynamicPool) bool {
	if c.r.P.Relay.Link.IsValid() || c.r.P.GIAddr().IsValid() || c.r.On == nil {
		return p.serves(c.wire())
	}
	for _, a := range c.r.On.Addrs {
		if p.serves(a.Addr()) {
			return true
		}
	}
	return false
}

// discoverPool answers a DISCOVER of a client without a binding.
func (c *decider) discoverPool() {
	kind := c.poolKind()
	if kind == 0 {
		c.end(c.d.Match.failed)
		return
	}
	var best netip.Addr
	var bestFit pool.Fit
	bestPool, served := 0, -1
	want := c.r.P.Requested()
	for i := range c.cfg.pools {
		p := &c.cfg.pools[i]
		if p.Kind != kind || !c.near(p) {
			continue
		}
		served = i
		if a, fit := c.pools.Pick(i, c.holder(kind), want, c.now); fit > bestFit && !c.snap.Taken(a) {
			best, bestFit, bestPool = a, fit, i
		}
	}
	switch {
	case served < 0:
		c.end(outcome.NoPool)
		return
	case bestFit == 0:
		c.d.Pool = served + 1
		c.end(outcome.PoolExhausted)
		return
	case c.fullPort(kind, bestPool, best):
		c.end(outcome.PortMACLimit)
		return
	}
	refused := c.refuseVacant(kind, best)
	switch {
	case refused == outcome.NakOtherClient: // a DISCOVER has no NAK
		c.end(outcome.PortFull)
	case refused == outcome.TakeoverDamped:
		c.d.Pool, c.d.YourIP = bestPool+1, best
		c.end(refused)
	case refused != 0:
		c.end(refused)
	case c.cfg.rapidCommit && c.r.P.RapidCommit() && bestFit > pool.FitOffered && !c.asksWire(bestPool):
		c.grantPool(wire.Ack, kind, bestPool, best)
		c.d.Reply.RapidCommit = c.d.Reply.Type == wire.Ack
	default:
		c.grantPool(wire.Offer, kind, bestPool, best)
	}
}

// asksWire reports whether the wire is asked before an address of pool i is given. An
// OFFER can wait for that, and a client that asks for rapid commit takes one too (RFC 4039).
func (c *decider) asksWire(i int) bool {
	return c.cfg.pools[i].Probe && !c.r.P.GIAddr().IsValid()
}

// selectPool answers SELECTING of a client without a binding.
func (c *decider) selectPool(a netip.Addr) {
	i, open := c.openPool(a)
	switch {
	case open:
		c.requestPool(i, a)
	case c.cfg.unknown == UnknownNak && c.d.Match.unknown():
		c.nak(outcome.NakUnknown, Binding{})
	case c.d.Match.failed == outcome.HolderLive:
		c.nak(outcome.NakOtherClient, Binding{})
	default:
		c.nak(outcome.NakNotBound, Binding{})
	}
}

// openPool returns the pool that a is of, and reports whether the client may have one of its addresses.
func (c *decider) openPool(a netip.Addr) (i int, open bool) {
	i = c.cfg.PoolOf(a)
	return i, i >= 0 && c.cfg.pools[i].Kind == c.poolKind() && c.near(&c.cfg.pools[i])
}

// requestPool answers a REQUEST for an address of a pool that is open to the client.
func (c *decider) requestPool(i int, a netip.Addr) {
	kind := c.cfg.pools[i].Kind
	if rec, known := c.lease(a, new(lease.Record)); known && kind == PoolGuests && c.guestElsewhere(rec) {
		c.end(outcome.MACElsewhere) // it may be the other copy of what two relays forward: a NAK would reach the client, too
		return
	}
	if own := c.leasedPool(kind); own.IsValid() && own != a {
		c.d.YourIP = own
		c.nak(outcome.NakWrongAddress, Binding{})
		return
	}
	c.takePool(kind, i, a)
}

// leasedPool returns the address that the client has leased of a pool it may have one of. It
// gets no second one: else one client that names address after address would empty the pool.
func (c *decider) leasedPool(kind PoolKind) netip.Addr {
	for i := range c.cfg.pools {
		p := &c.cfg.pools[i]
		if p.Kind != kind || !c.near(p) {
			continue
		}
		who := c.holder(kind)
		a, ok := c.pools.Owned(i, who)
		if !ok || c.snap.Taken(a) {
			continue
		}
		if s := c.pools.Slot(i, a, c.now); s.State == pool.StateLeased && s.Owner == who && !s.Bound {
			return a
		}
	}
	return netip.Addr{}
}

// takePool acknowledges a if nobody else has it, else refuses it.
func (c *decider) takePool(kind PoolKind, i int, a netip.Addr) {
	switch {
	case c.snap.Taken(a):
		c.nak(outcome.NakNotBound, Binding{})
		return
	case !usable(c.pools.Slot(i, a, c.now), c.holder(kind)):
		c.nak(outcome.NakOtherClient, Binding{})
		return
	case c.fullPort(kind, i, a):
		c.end(outcome.PortMACLimit)
		return
	}
	switch o := c.refuseVacant(kind, a); o {
	case 0:
		c.grantPool(wire.Ack, kind, i, a)
	case outcome.NakOtherClient, outcome.TakeoverDamped:
		c.nak(outcome.NakOtherClient, Binding{})
	default:
		c.end(o)
	}
}

// rebootPool answers INIT-REBOOT of a client without a binding. A client of whom
// there is no record gets silence (RFC 2131 section 4.3.2), but not when its address is
// of another network than its wire, or unknown clients are to be told.
func (c *decider) rebootPool(a netip.Addr) {
	n := c.cfg.subnetOf(c.wire())
	known := c.pooled(a)
	i, open := c.openPool(a)
	switch {
	case known && open:
		c.requestPool(i, a)
	case c.cfg.unknown == UnknownNak && c.d.Match.unknown():
		c.nak(outcome.NakUnknown, Binding{})
	case c.poolKind() != 0 && c.cfg.authoritative && n != nil && c.servedKind(c.poolKind()) && !c.cfg.oneWire(c.wire(), a) && !(c.restricted() && c.within(a)) && i < 0:
		c.nak(outcome.NakNotBound, Binding{})
	default:
		c.end(outcome.InitRebootUnknown)
	}
}

// servedKind reports whether a pool of the kind serves the client's wire.
func (c *decider) servedKind(kind PoolKind) bool {
	for i := range c.cfg.pools {
		if p := &c.cfg.pools[i]; p.Kind == kind && c.near(p) {
			return true
		}
	}
	return false
}

// extendPool answers RENEWING and REBINDING of whom the lease record says that
// the address is one of a pool. A client that the ERP binds an address by now is
// refused, so that it asks anew and moves there.
func (c *decider) extendPool(rec *lease.Record) {
	a := rec.IP
	if !c.r.P.HasOption82() { // else find was asked already
		c.find(a)
		if l := c.snap.ByOwner(rec.Subscriber, rec.Key); l != nil && c.d.Match.By&MatchVLAN == 0 {
			c.d.Match = Match{Vacant: l, Loc: c.d.Match.Loc} // the packet does not tell where it is from, the record does
		}
	}
	i := c.cfg.PoolOf(a)
	kind := c.poolKind()
	past := c.past(rec)
	if c.d.Match.Vacant != nil && past && i >= 0 && (c.cfg.pools[i].Kind == PoolSubscribers || c.cfg.servesVacant(rec.GIAddr)) {
		kind = PoolSubscribers
	}
	b := c.d.Match.binding
	if at := c.bound(a); b.Line == nil && at.Line != nil && c.isPlace(rec, at) && rec.Live(c.now) && c.comesFrom(rec) != placeOther {
		b = at // the ERP gives it now what it has of the pool
	}
	switch {
	case b.Line != nil && b.IP == a:
		c.grant(wire.Ack, b)
	case b.Line != nil:
		c.nak(outcome.NakWrongAddress, b)
	case i >= 0 && kind == PoolGuests && c.cfg.pools[i].Kind == kind && c.guestElsewhere(rec):
		c.end(outcome.MACElsewhere)
	case i < 0, c.cfg.pools[i].Kind != kind,
		kind == PoolGuests && (c.learnt(rec, past) || !c.ownGuest(rec)),
		!past && !c.near(&c.cfg.pools[i]): // a renewal past the relay does not tell the wire
		c.nak(outcome.NakNotBound, Binding{})
	default:
		c.takePool(kind, i, a)
	}
}

// past reports whether a renewal came past the relay that the lease was given through. What is broadcast on another wire did not.
func (c *decider) past(rec *lease.Record) bool {
	return !c.r.P.Relay.Link.IsValid() && !c.r.P.GIAddr().IsValid() && rec.GIAddr.IsValid() && !c.leftRelay(rec)
}

// learnt reports whether the ERP knows the port of a guest by now. Past the relay the
// record alone knows the port.
func (c *decider) learnt(rec *lease.Record, past bool) bool {
	lines := c.snap.ByPort(rec.Device, rec.Port)
	if len(rec.Option82) > 0 {
		lines = provision.Lines{}
		if c.cfg.matches&MatchOption82 != 0 {
			lines = c.located(rec).Lines // by the switches and names of ports that the ERP has now
		}
	}
	return lines.Len() > 0 && (!lines.At(0).Vacant() || past && c.cfg.servesVacant(rec.GIAddr))
}

// servesVacant reports whether a pool for subscribers serves the wire of at.
func (c *Config) servesVacant(at netip.Addr) bool {
	for i := range c.pools {
		if p := &c.pools[i]; p.Kind == PoolSubscribers && p.serves(at) {
			return true
		}
	}
	return false
}

// pooled reports whether this client has or had an address from a pool.
func (c *decider) pooled(a netip.Addr) bool {
	rec, known := c.lease(a, new(lease.Record))
	return known && rec.Pool != "" && rec.MAC == c.mac
}

// refuseUnknown ends a REQUEST of which nothing is known.
func (c *decider) refuseUnknown(o outcome.Outcome) {
	p := &c.r.P
	// Past a relay nobody can say that the client is unknown: its port is.
	told := p.GIAddr().IsValid() || p.HasOption82()
	switch {
	case c.unplaced():
		o = outcome.DevicesUnread
	case c.cfg.unknown == UnknownNak && told && c.d.Match.unknown():
		c.nak(outcome.NakUnknown, Binding{})
		return
	}
	c.end(o)
}

// grantPool plans an OFFER or an ACK of an address of pool i.
func (c *decider) grantPool(t wire.MessageType, kind PoolKind, i int, a netip.Addr) {
	p := &c.cfg.pools[i]
	id := c.serverID(&p.subnet)
	if !id.IsValid() {
		c.end(outcome.NoServerID)
		return
	}
	c.d.Pool, c.d.YourIP, c.d.Holder = i+1, a, c.holder(kind)
	if kind == PoolSubscribers {
		old, _ := c.lease(a, new(lease.Record))
		c.d.Evidence.Stray = c.strays(c.d.Match.Vacant, old)
	}
	c.d.Reply = wire.Reply{
		Type: t, ServerID: id, YIAddr: a, Options: c.options(&p.subnet),
		LeaseTime: p.seconds, RenewTime: p.t1, RebindTime: p.t2,
	}
	c.route()
	if t == wire.Offer {
		c.d.Outcome, c.d.Change = outcome.PoolOffer, ChangeHold
		c.d.Port = portKey(&c.r.P.Relay, c.r.P.GIAddr(), c.r.P.Ingress.Name, c.mac)
		return
	}
	c.d.Outcome = outcome.PoolAck
	c.d.Reply.CIAddr = c.has()
	c.recordPool(p, a)
}

// recordPool plans the lease record of an ACK.
func (c *decider) recordPool(p *dynamicPool, a netip.Addr) {
	q := &c.r.P
	rec := &c.d.Rec
	*rec = lease.Record{
		IP: a, MAC: c.mac, ClientID: q.ClientID(), Pool: p.Name,
		Device: c.d.Match.Loc.Device, Port: c.d.Match.Loc.Port,
		Option82: q.Option82(), GIAddr: q.GIAddr(), Ifindex: c.r.Ifindex, Interface: c.r.P.Ingress.Name,
		State: lease.StateBound, Start: c.now, Renewed: c.now, Expires: c.now.Add(p.lease),
	}
	if l := c.d.Match.Vacant; p.Kind == PoolSubscribers {
		rec.Subscriber, rec.Key = l.Subscriber, l.Owner
		if l.Device != 0 {
			rec.Device, rec.Port = l.Device, l.Port
		}
	}
	if p.Kind == PoolGuests && c.guest() != c.mac.Owner() {
		rec.Key = c.guest()
	}
	c.d.Change = ChangePool
	old, known := c.lease(a, new(lease.Record))
	if known {
		rec.Prior = c.prior(old, c.d.Match.Vacant)
	}
	if known && old.MAC == rec.MAC && old.Pool == p.Name {
		rec.Start, rec.Expires = old.Start, c.notBefore(old, rec.Expires)
		if !q.HasOption82() && !q.GIAddr().IsValid() && old.GIAddr.IsValid() && c.has().IsValid() && !c.leftRelay(old) { // past the relay
			rec.Option82, rec.GIAddr = old.Option82, old.GIAddr
			if rec.Key.IsZero() || rec.Device == 0 {
				rec.Device, rec.Port = old.Device, old.Port
			}
			rec.Ifindex, rec.Interface = old.Ifindex, old.Interface
		} else if !q.HasOption82() && c.comesFrom(old) != placeOther {
			rec.Option82 = old.Option82 // it is the same wire, which told more before
		}
		if len(rec.ClientID) == 0 {
			rec.ClientID = old.ClientID
		}
		if renewable(old, c.now) && old.Subscriber == rec.Subscriber && old.Key == rec.Key &&
			old.Device == rec.Device && old.Port == rec.Port && old.GIAddr == rec.GIAddr && old.Ifindex == rec.Ifindex &&
			old.Interface == rec.Interface && bytes.Equal(old.Option82, rec.Option82) && bytes.Equal(old.ClientID, rec.ClientID) {
			rec.Option82, rec.ClientID = old.Option82, old.ClientID // the table's own: nothing is copied
			c.d.Change = ChangePoolRenew
		}
	}
	c.d.Port = PortOfLease(rec)
}

// releasePool plans the release of an address of pool i.
func (c *decider) releasePool(i int, rec *lease.Record) {
	c.d.Pool, c.d.YourIP, c.d.Change, c.d.Rec.Key = i+1, rec.IP, ChangeRelease, rec.Key
	c.end(outcome.PoolReleased)
}

// fullPort reports whether the client's port holds as many addresses of pools as it may and a
// would be one more (RFC 3046 section 4.0 wants such a bound). Without
// option 82 nobody knows the port.
func (c *decider) fullPort(kind PoolKind, i int, a netip.Addr) bool {
	port := portKey(&c.r.P.Relay, c.r.P.GIAddr(), c.r.P.Ingress.Name, c.mac)
	if c.cfg.maxMACs == 0 || port == 0 {
		return false
	}
	if s := c.pools.Slot(i, a, c.now); s.Owner == c.holder(kind) && (s.State == pool.StateOffered || s.State == pool.StateLeased) {
		return false // it has it already
	}
	n := 0
	for j := range c.cfg.pools {
		n += c.pools.Held(j, port)
	}
	return n >= c.cfg.maxMACs
}

// portKey is a number for the port that option 82 names, whatever its profile: a hash (FNV-1a) of the very bytes of the
// sub-options that name lines, as comparesLine has it. 0: it names none.
func portKey(r *wire.RelayInfo, gi netip.Addr, iface string, client provision.MAC) uint64 {
	remote := remoteID(r, client)
	if len(r.CircuitID)+len(remote)+len(r.RelaySubscriberID) == 0 {
		return 0
	}
	var h hash
	h.add(byte(len(r.CircuitID)))
	h.add(r.CircuitID...)
	if len(remote) > 0 {
		h.add(remote...)
	} else if gi.IsValid() { // without a remote-id the others mean something to their relay only
		four := gi.As4()
		h.add(four[:]...)
	} else { // or to their switch
		for i := range len(iface) {
			h.add(iface[i])
		}
	}
	if n := len(r.RelaySubscriberID); n > 0 { // a key without it is as it ever was: records of guests have them
		h.add(0, byte(n))
		h.add(r.RelaySubscriberID...)
	}
	return h.sum()
}

// hash is FNV-1a of 64 bits, which costs no allocation. The zero value has nothing in it yet.
type hash struct {
	h     uint64
	begun bool
}

func (x *hash) add(b ...byte) {
	if !x.begun {
		x.h, x.begun = 14695981039346656037, true
	}
	for _, c := range b {
		x.h = (x.h ^ uint64(c)) * 1099511628211
	}
}

// sum returns the hash, never zero.
func (x *hash) sum() uint64 { return max(x.h, 1) }

// PortOfLease is portKey for a lease.
func PortOfLease(rec *lease.Record) uint64 {
	r, err := wire.ParseRelayInfo(rec.Option82)
	if err != nil || len(rec.Option82) == 0 {
		return 0
	}
	return portKey(&r, rec.GIAddr, rec.Interface, rec.MAC)
}

// hasFromPool reports whether the client has the address of rec from a pool now.
func (c *decider) hasFromPool(rec *lease.Record) bool {
	return rec.Pool != "" && rec.MAC == c.mac && rec.Live(c.now)
}

// declinePool takes an address of pool i out of service for a time. Only a client
// that has it now can do that: else anybody could empty the pool.
func (c *decider) declinePool(i int, rec *lease.Record) {
	c.d.Pool, c.d.YourIP, c.d.Change = i+1, rec.IP, ChangeQuarantine
	c.d.Rec = *rec
	hold := c.cfg.Quarantine(c.pools.Quarantined(i, c.now))
	c.d.Rec.State, c.d.Rec.Renewed, c.d.Rec.Expires = lease.StateQuarantined, c.now, c.now.Add(hold)
	c.end(outcome.PoolDeclined)
}

// informPool tells a client of a pool its settings.
func (c *decider) informPool(ciaddr netip.Addr) {
	rec, known := c.leases.Get(ciaddr)
	i := c.cfg.PoolOf(ciaddr)
	if !known || i < 0 || !c.hasFromPool(&rec) {
		c.end(outcome.InformUnknown)
		return
	}
	p := &c.cfg.pools[i]
	id := c.serverID(&p.subnet)
	if !id.IsValid() {
		c.end(outcome.NoServerID)
		return
	}
	c.d.YourIP, c.d.Outcome = ciaddr, outcome.InformAck
	c.d.Reply = wire.Reply{Type: wire.Ack, ServerID: id, CIAddr: ciaddr, Options: c.options(&p.subnet)}
	c.route()
}
