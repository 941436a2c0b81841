package dhcpd

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// way is how a reply travels (RFC 2131 section 4.1).
type way uint8

const (
	wayNone      way = iota
	wayRelay         // UDP to the relay
	wayUnicast       // UDP to the address that the client has
	wayBroadcast     // link-layer broadcast to 255.255.255.255 on the interface of the request
	wayFrame         // link-layer unicast to chaddr and yiaddr, which the client has not configured yet
)

// String gives none, relay, unicast, broadcast or frame.
func (w way) String() string {
	return [...]string{"none", "relay", "unicast", "broadcast", "frame"}[w]
}

// change is what becomes of the lease record.
type change uint8

const (
	changeNone       change = iota
	changeRenew             // the same client in the same place: only the expiry moves
	changeBackground        // the same client, but details such as the relay differ
	changeFact              // a new client or place: on disk before the ACK
	changeRelease
	changeDecline
	changeHold       // a pool's address is kept for whom it was offered
	changePool       // a lease of a pool's address: on disk before the ACK, or there is none
	changePoolRenew  // the same client in the same place: only the expiry moves, but that is on disk too
	changeQuarantine // a pool's address is in use by somebody else
)

// decision is what to do about one request.
type decision struct {
	outcome Outcome
	mac     provision.MAC
	match   match
	binding *provision.Binding // that yourIP belongs to; nil: none
	port    uint64             // of a pool's client, as portKey has it
	pool    int                // place of the pool that yourIP is of, from 1; 0: none
	holder  provision.MAC      // whom that pool keeps it for
	yourIP  netip.Addr         // given, or for a NAK: what the client would get

	reply wire.Reply       // Type 0: no answer
	lease *wire.LeaseReply // what is sent instead of reply: the answer to a leasequery
	way   way
	to    netip.AddrPort // of wayRelay and wayUnicast

	change change
	rec    lease.Record // of changes that store one; its slices are the packet's. Of changeRelease and changeDecline the MAC
	swap   bool         // of an OFFER: its ACK would be reported
	report bool         // the ERP does not have this MAC for the address; without a change: of rec's IP and subscriber alone
}

// decider holds the arguments of one decision.
type decider struct {
	matcher
	d               decision
	alwaysBroadcast bool // as the client's subnet or class wants it
}

// decide answers one request. It is pure: time, packet, bindings, leases, pools and
// settings in, a plan out. Nothing in the result outlives the packet's bytes.
func decide(now time.Time, r *request, snap *provision.Snapshot, leases leaseView, pools poolView, set *settings) decision {
	c := decider{matcher: matcher{now: now, r: r, snap: snap, leases: leases, pools: pools, set: set}}
	if r.served && !r.standby && r.p.Err == nil && r.limited == 0 && r.p.Op() == 1 && r.p.Type() == wire.LeaseQuery {
		c.leaseQuery() // no client: it need not have a MAC
		return c.d
	}
	if o := c.admit(); o != 0 {
		c.d.outcome = o
		return c.d
	}
	switch r.p.Type() {
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
		c.end(OutcomeUnexpectedType)
	}
	c.d.mac = c.mac
	return c.d
}

// admit makes sure that the packet is one to look at; otherwise it says why not.
func (c *decider) admit() Outcome {
	p := &c.r.p
	if !c.r.served {
		return OutcomeInterfaceOff
	}
	if c.r.standby {
		return OutcomeStandby
	}
	if c.r.p.Err != nil {
		return OutcomeMalformed
	}
	if c.r.limited != 0 {
		return c.r.limited
	}
	if p.Op() != 1 {
		return OutcomeNotRequest
	}
	mac, ok := p.MAC()
	if !ok || mac == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} {
		return OutcomeBadHardware
	}
	c.mac, c.d.mac = mac, mac
	switch {
	case p.RelayInfoCount() > 1:
		return OutcomeOption82Double
	case c.r.p.RelayErr != nil:
		return OutcomeOption82Malformed
	case p.GIAddr().IsValid() && (!c.set.line.Trusts(p.GIAddr()) || c.posesAsRelay()):
		return OutcomeRelayUntrusted
	case p.GIAddr().IsValid() && !c.set.line.TrustsSource(p):
		return OutcomeRelaySource
	case p.RelayInfoCount() > 0 && !p.GIAddr().IsValid() && c.r.p.Ingress.Untrusted:
		return OutcomeOption82Untrusted
	case c.snap.Empty():
		return OutcomeNotReady
	}
	return 0
}

// posesAsRelay reports whether a packet with a relay's address is a client's own: where
// the relays are not listed any address may be one, but not a customer's or a
// guest's. Else whoever can reach us could write another's port into it.
func (c *decider) posesAsRelay() bool {
	if c.set.line.ListsRelays() {
		return false
	}
	gi, from := c.r.p.GIAddr(), c.r.p.From.Addr().Unmap()
	return c.snap.ByIP(gi) != nil || c.snap.ByIP(from) != nil || c.set.poolOf(gi) >= 0 || c.set.poolOf(from) >= 0
}

// end ends the packet without a reply.
func (c *decider) end(o Outcome) { c.d.outcome = o }

func (c *decider) find(hint netip.Addr) *provision.Binding {
	c.d.match = c.matcher.find(hint)
	return c.d.match.binding
}

func (c *decider) discover() {
	b := c.find(c.r.p.Requested())
	if b == nil {
		c.discoverPool()
		return
	}
	if c.set.rapidCommit && c.r.p.RapidCommit() {
		c.grant(wire.Ack, b)
		c.d.reply.RapidCommit = c.d.reply.Type == wire.Ack
		return
	}
	c.grant(wire.Offer, b)
}

// request tells the four kinds of REQUEST apart (RFC 2131 section 4.3.2 and table 4).
func (c *decider) request() {
	p := &c.r.p
	requested, ciaddr := p.Requested(), p.CIAddr()
	at := requested
	if !at.IsValid() {
		at = ciaddr
	}
	if p.ServerID().IsValid() && !c.chosen(at) {
		c.end(OutcomeNotForUs)
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
		c.end(OutcomeRequestIncomplete)
	}
}

// chosen reports whether option 54 names this server: by an address of this host,
// by what it tells now, or by what a relay had it tell (RFC 5107) when it gave out
// address. Such a relay need not say so again when it passes a renewal on.
func (c *decider) chosen(address netip.Addr) bool {
	id := c.r.p.ServerID()
	if c.r.ownID || id == c.r.local || id == c.set.serverID || id == c.serverID(c.set.subnetOf(address)) {
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
	case b == nil:
		c.selectPool(requested)
	case b.IP != requested:
		c.nak(OutcomeNakWrongAddress, b)
	default:
		c.grant(wire.Ack, b)
	}
}

func (c *decider) initReboot(requested netip.Addr) {
	b := c.find(requested)
	switch {
	case b == nil && c.d.match.failed == OutcomePortFull:
		c.end(OutcomePortFull)
	case b == nil:
		c.rebootPool(requested)
	case b.IP == requested:
		c.grant(wire.Ack, b)
	case !c.set.authoritative:
		c.d.binding = b
		c.end(OutcomeNotAuthoritative)
	default:
		c.nak(OutcomeNakWrongAddress, b)
	}
}

// extend answers RENEWING and REBINDING. With option 82 the port says what the
// client is to have, and so does the interface of a VLAN. Without, the packet came past
// the relay (or no box inserts option 82 there), and the lease record says whose
// the address is.
func (c *decider) extend(ciaddr netip.Addr) {
	if c.r.p.RelayInfoCount() > 0 || c.set.matches&MatchVLAN != 0 && c.r.p.VLAN() != 0 {
		b := c.find(ciaddr)
		placed := c.r.p.RelayInfoCount() > 0 || c.d.match.by&MatchVLAN != 0
		switch {
		case !placed:
		case b == nil && c.d.match.failed == OutcomePortFull,
			b != nil && b.IP == ciaddr && c.leasedToAnother(ciaddr):
			c.nak(OutcomeNakOtherClient, nil)
			return
		case b != nil && b.IP == ciaddr:
			c.grant(wire.Ack, b)
			return
		case b != nil:
			c.move(OutcomeNakWrongAddress, b)
			return
		}
	}
	if rec, ok := c.pooled(ciaddr); ok {
		c.extendPool(&rec)
		return
	}
	b := c.snap.ByIP(ciaddr)
	rec, known := c.leases.Get(ciaddr)
	switch {
	case c.leasedToAnother(ciaddr):
		c.nak(OutcomeNakOtherClient, nil)
	case known && c.same(&rec) && rec.State == lease.StateBound && c.sameClientID(&rec):
		if b == nil || !samePlace(&rec, b) {
			c.move(OutcomeNakNotBound, nil)
			return
		}
		c.grant(wire.Ack, b)
	case b != nil && b.MAC == c.mac:
		c.grant(wire.Ack, b)
	default:
		if c.set.matches&MatchClientID != 0 {
			if b := c.find(ciaddr); b != nil && b.IP == ciaddr {
				c.grant(wire.Ack, b)
				return
			}
		}
		c.refuseUnknown(OutcomeRenewUnknown)
	}
}

// move takes a client's address away, at once or after a moment; b is what it
// is to have, nil if nothing.
func (c *decider) move(o Outcome, b *provision.Binding) {
	if !c.shorten(c.r.p.CIAddr()) {
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
	id := c.r.p.ClientID()
	return len(id) == 0 || len(rec.ClientID) == 0 || bytes.Equal(id, rec.ClientID)
}

// samePlace reports whether a lease still is what its binding says: the same
// customer, or the same port after the contract on it changed hands.
func samePlace(rec *lease.Record, b *provision.Binding) bool {
	return rec.Subscriber == b.Subscriber || rec.Port != 0 && rec.Device == b.Device && rec.Port == b.Port
}

func (c *decider) release() {
	if o := c.foreign(); o != 0 {
		c.end(o)
		return
	}
	ciaddr := c.r.p.CIAddr()
	rec, known := c.leases.Get(ciaddr)
	if !known || !c.same(&rec) || !c.sits(&rec) {
		c.end(OutcomeReleaseUnknown)
		return
	}
	c.d.rec.MAC = rec.MAC
	if i := c.set.poolOf(rec.IP); i >= 0 && rec.Pool != "" {
		c.releasePool(i, &rec)
		return
	}
	c.d.yourIP, c.d.binding = ciaddr, c.snap.ByIP(ciaddr)
	c.d.change = changeRelease
	c.end(OutcomeReleased)
}

// decline notes that a client found its address in use. The binding is the
// ERP's word, so the address is not taken out of service: the client gets the
// same one again, and people are told.
func (c *decider) decline() {
	if o := c.foreign(); o != 0 {
		c.end(o)
		return
	}
	ip := c.r.p.Requested()
	b := c.snap.ByIP(ip)
	rec, known := c.leases.Get(ip)
	i := c.set.poolOf(ip)
	switch {
	case known && !c.sits(&rec):
		c.end(OutcomeDeclineUnknown)
		return
	case known && i >= 0 && b == nil && c.hasFromPool(&rec):
		c.declinePool(i, &rec)
		return
	case known && c.same(&rec) && rec.Pool == "":
		c.d.change, c.d.rec.MAC = changeDecline, rec.MAC
	case b != nil && b.MAC == c.mac:
	default:
		c.end(OutcomeDeclineUnknown)
		return
	}
	c.d.yourIP, c.d.binding = ip, b
	c.end(OutcomeDeclined)
}

// sits reports whether a RELEASE or DECLINE can come from where the lease is. They
// have no answer that a liar would miss, and anybody can write another's MAC into one.
func (c *decider) sits(rec *lease.Record) bool {
	p := &c.r.p
	switch {
	case p.RelayInfoCount() > 0 && len(rec.Option82) > 0:
		if bytes.Equal(p.RelayInfo(), rec.Option82) {
			return true
		}
		was, err := wire.ParseRelayInfo(rec.Option82) // other sub-options may change
		return err == nil && bytes.Equal(was.CircuitID, c.r.p.Relay.CircuitID) && bytes.Equal(was.RemoteID, c.r.p.Relay.RemoteID)
	case p.GIAddr().IsValid():
		return true
	case rec.GIAddr.IsValid(): // past the relay, so from the address itself
		return c.r.p.From.Addr().Unmap() == rec.IP
	}
	return rec.Interface == "" || c.r.p.Ingress.Name == "" || rec.Interface == c.r.p.Ingress.Name
}

// foreign says why a RELEASE or DECLINE is none for this server; zero: it is one.
func (c *decider) foreign() Outcome {
	p := &c.r.p
	at := p.CIAddr()
	if !at.IsValid() {
		at = p.Requested()
	}
	switch {
	case !at.IsValid():
		return OutcomeRequestIncomplete
	case p.ServerID().IsValid() && !c.chosen(at):
		return OutcomeNotForUs
	}
	return 0
}

// inform answers a client that has its address from elsewhere (RFC 2131 section
// 4.3.5): no lease times, yiaddr zero.
func (c *decider) inform() {
	ciaddr := c.r.p.CIAddr()
	silent := !ciaddr.IsValid() && !c.r.p.GIAddr().IsValid()
	if silent { // some leave ciaddr out and send from the address
		if from := c.r.p.From.Addr(); from.IsValid() && !from.IsUnspecified() {
			ciaddr = from
		}
	}
	if !ciaddr.IsValid() {
		c.end(OutcomeRequestIncomplete)
		return
	}
	b := c.snap.ByIP(ciaddr)
	if b == nil {
		c.informPool(ciaddr)
		return
	}
	n, ok := c.prepare(b)
	if !ok {
		return
	}
	c.d.outcome = OutcomeInformAck
	c.d.reply.Type, c.d.reply.CIAddr, c.d.reply.Options = wire.Ack, ciaddr, c.options(n)
	c.route()
	if silent {
		c.d.way, c.d.to, c.d.reply.CIAddr = wayUnicast, netip.AddrPortFrom(ciaddr, c.set.clientPort), netip.Addr{}
	}
}

// prepare fills what every reply about a binding has.
func (c *decider) prepare(b *provision.Binding) (*subnet, bool) {
	c.d.binding, c.d.yourIP = b, b.IP
	n := c.set.subnetOf(b.IP)
	if n == nil {
		c.end(OutcomeNoSubnet)
		return nil, false
	}
	id := c.serverID(n)
	if !id.IsValid() {
		c.end(OutcomeNoServerID)
		return nil, false
	}
	c.d.reply.ServerID = id
	return n, true
}

// options gives what the client is told in n.
func (c *decider) options(n *subnet) *wire.OptionSet {
	class := c.set.classOf(&c.r.p.Packet, c.mac)
	c.alwaysBroadcast = n.alwaysBroadcast || class > 0 && c.set.classes[class-1].alwaysBroadcast
	return n.options[class]
}

// grant plans an OFFER or an ACK of b's address.
func (c *decider) grant(t wire.MessageType, b *provision.Binding) {
	if o := c.permit(b); o != 0 {
		c.d.binding, c.d.yourIP = b, b.IP
		if o == OutcomeMACReported {
			c.d.report, c.d.rec = true, lease.Record{IP: b.IP, Subscriber: b.Subscriber}
		}
		c.end(o)
		return
	}
	n, ok := c.prepare(b)
	if !ok {
		return
	}
	r := &c.d.reply
	r.Type, r.YIAddr, r.Options = t, b.IP, c.options(n)
	r.LeaseTime, r.RenewTime, r.RebindTime = n.seconds, n.t1, n.t2
	c.route()
	if t == wire.Offer {
		c.d.outcome, c.d.swap = OutcomeOffer, c.differs(b)
		return
	}
	c.d.outcome = OutcomeAck
	r.CIAddr = c.r.p.CIAddr()
	c.d.report = c.differs(b)
	c.record(b, n)
}

// record plans the lease record of an ACK.
func (c *decider) record(b *provision.Binding, n *subnet) {
	p := &c.r.p
	rec := lease.Record{
		IP:         b.IP,
		MAC:        c.mac,
		ClientID:   p.ClientID(),
		Subscriber: b.Subscriber,
		Device:     b.Device,
		Port:       b.Port,
		Option82:   p.RelayInfo(),
		GIAddr:     p.GIAddr(),
		Ifindex:    c.r.ifindex,
		Interface:  c.r.p.Ingress.Name,
		State:      lease.StateBound,
		Start:      c.now,
		Renewed:    c.now,
		Expires:    c.now.Add(n.lease),
	}
	c.d.change = changeFact
	if old, known := c.leases.Get(b.IP); known && c.same(&old) {
		if old.MAC == rec.MAC {
			rec.Start = old.Start
		}
		if p.RelayInfoCount() == 0 { // past the relay: where the client sits is known from before
			rec.Option82, rec.GIAddr = old.Option82, old.GIAddr
			rec.Ifindex, rec.Interface = old.Ifindex, old.Interface
			// A client that has no address yet and came without a relay, or that has
			// never come through one, is where its packet came in.
			if !p.GIAddr().IsValid() && (!p.CIAddr().IsValid() || old.Interface != "" && !old.GIAddr.IsValid() && len(old.Option82) == 0) {
				rec.GIAddr, rec.Ifindex, rec.Interface = netip.Addr{}, c.r.ifindex, c.r.p.Ingress.Name
			}
		}
		if len(rec.ClientID) == 0 {
			rec.ClientID = old.ClientID
		}
		sameFact := old.MAC == rec.MAC && old.State == lease.StateBound && old.Subscriber == rec.Subscriber &&
			old.Device == rec.Device && old.Port == rec.Port
		sameDetails := old.GIAddr == rec.GIAddr && old.Interface == rec.Interface &&
			old.Ifindex == rec.Ifindex && bytes.Equal(old.Option82, rec.Option82) &&
			bytes.Equal(old.ClientID, rec.ClientID)
		switch {
		case sameFact && sameDetails:
			c.d.change = changeRenew
		case sameFact:
			c.d.change = changeBackground
		}
	}
	c.d.rec = rec
}

// nak plans a refusal; b is what the client would get, nil if nothing.
func (c *decider) nak(o Outcome, b *provision.Binding) {
	at := c.r.p.CIAddr()
	if !at.IsValid() {
		at = c.r.p.Requested()
	}
	n := c.set.subnetOf(at)
	if b != nil {
		c.d.binding, c.d.yourIP = b, b.IP
	}
	id := c.serverID(n)
	if !id.IsValid() && b != nil {
		id = c.serverID(c.set.subnetOf(b.IP))
	}
	if !id.IsValid() {
		c.end(OutcomeNoServerID)
		return
	}
	c.d.outcome = o
	c.d.reply = wire.Reply{Type: wire.Nak, ServerID: id, Message: nakMessage(o)}
	c.route()
}

// nakMessage is option 56, which some clients log.
func nakMessage(o Outcome) string {
	switch o {
	case OutcomeNakWrongAddress:
		return "another address is bound to you"
	case OutcomeNakOtherClient:
		return "address is leased to another client"
	case OutcomeNakUnknown:
		return "client is not known here"
	}
	return "address is not bound to you"
}

// serverID gives the server identifier of a reply: what the relay wants (RFC
// 5107), what is configured for n or at all, the address that the packet came to,
// one of the interface, best in n, the gateway of n.
func (c *decider) serverID(n *subnet) netip.Addr {
	switch {
	case c.r.p.Relay.Override.IsValid():
		return c.r.p.Relay.Override
	case n != nil && n.serverID.IsValid():
		return n.serverID
	case c.set.serverID.IsValid():
		return c.set.serverID
	case c.r.local.IsValid():
		return c.r.local
	}
	if c.r.on != nil {
		if n != nil {
			if a := c.r.on.AddrIn(n.prefix); a.IsValid() {
				return a
			}
		}
		if a := c.r.on.Addr(); a.IsValid() {
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
	p := &c.r.p
	nak := c.d.reply.Type == wire.Nak
	switch gi := p.GIAddr(); {
	case gi.IsValid():
		port := c.set.relayPort
		if c.r.p.Relay.SourcePort && c.r.p.From.Port() != 0 { // RFC 8357
			port = c.r.p.From.Port()
		}
		c.d.way, c.d.to = wayRelay, netip.AddrPortFrom(gi, port)
		// The relay is to broadcast it: the client has no address to take it at.
		c.d.reply.Broadcast = nak || c.alwaysBroadcast && !p.CIAddr().IsValid()
	case nak:
		c.d.way = wayBroadcast
	case p.CIAddr().IsValid():
		c.d.way, c.d.to = wayUnicast, netip.AddrPortFrom(p.CIAddr(), c.set.clientPort)
	case p.Broadcast() || c.alwaysBroadcast || p.HType() != 1:
		c.d.way = wayBroadcast
	default:
		c.d.way = wayFrame
	}
}
