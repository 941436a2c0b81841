package dhcpd

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file is the way of one packet, from top to bottom.

// transport delivers replies; socket.Sender is the real one.
type transport interface {
	Send(d *socket.Delivery, payload []byte) error
	SendAll(replies []*socket.Reply) // each says then what became of it
}

// handler takes packets through decision, lease table and sending. It belongs
// to one goroutine and allocates nothing for a renewal.
type handler struct {
	s      *Server
	c      *committer
	out    transport
	links  *interfaces // nil in tests without sockets: every interface is served
	limit  *limiter
	prober *prober // nil: offers leave at once
	fights fights
	over   handover        // packets that waited for this process
	adopts chan<- struct{} // asks for the newest snapshot to be excluded from the pools; nil in tests: done at once

	// Of the packet at hand; the memory is used again for the next one.
	snap   *provision.Snapshot
	r      v4.Request
	late   bool // it waited too long for this process
	repeat bool // its like was shed, refused or unreadable within this second: it is counted, not remembered
	d      v4.Decision
	ev     Event
	reply  []byte
	to     socket.Delivery

	// Of the batch at hand: replies that leave together at its end.
	leaving []departure
	replies []*socket.Reply
}

// departure is a packet whose reply leaves at the end of the batch. Its memory is used again.
type departure struct {
	reply   socket.Reply
	ev      Event
	refused bool // by a NAK that ends the lease of ip to mac, once the client is told
	ip      netip.Addr
	mac     provision.MAC
}

func newHandler(s *Server, c *committer, out transport, links *interfaces) *handler {
	return &handler{s: s, c: c, out: out, links: links, limit: newLimiter(), reply: make([]byte, 0, wire.MaxReplyLen)}
}

// handle ends one packet in exactly one outcome.
func (h *handler) handle(now time.Time, g socket.Datagram) {
	h.take(now, g)
	h.flush()
}

// take is handle, but for the reply, which leaves with the next flush. Until then g has to stay as it is.
func (h *handler) take(now time.Time, g socket.Datagram) {
	gen := h.s.generation.Load()
	h.read(g)
	h.enter(now, gen)
	h.decide(now, gen)
	h.s.senders.Note(now, &h.r, gen.config)
	h.describe(now)
	if h.d.Outcome == outcome.TakeoverDamped {
		h.fights.log(h.s.log, &h.ev, h.d.Until)
	}
	h.answer(gen)
	if h.apply(now, gen) {
		return // the committer or the prober sends the reply and reports the outcome
	}
	if h.d.Reply.Type == 0 {
		h.s.ended(&h.ev, h.s.now())
		return
	}
	h.leave()
	if h.d.Change == v4.ChangeRefused { // it ends a lease once it has left, and before the next packet, which may begin it anew
		h.flush()
	}
}

// read takes the packet apart.
func (h *handler) read(g socket.Datagram) {
	h.r.P.Read(g.Data)
	if g.Cut {
		h.r.P.Err = wire.ErrLong
	}
	h.r.P.From, h.r.Ifindex, h.r.Local = g.From, g.Ifindex, g.To
	h.late = h.over.since != 0 && h.tooLate(g.Came)
}

// enter says what the interface that the packet came in on, the addresses of this
// host and the limits are to it. What is shed or not ours is looked at no further.
func (h *handler) enter(now time.Time, gen *generation) {
	r := &h.r
	h.snap = h.s.deps.Snapshot()
	r.On, r.P.Ingress = nil, line.Ingress{}
	r.Served, r.Standby, r.OwnID, r.OwnFrom, r.Limited, r.Trust = true, false, false, false, 0, v4.Trust{}
	r.HostRoutes, r.Networks = false, nil
	h.repeat = false
	if h.links != nil {
		f := h.links.get(r.Ifindex, now, gen.settings)
		r.On, r.P.Ingress, r.Served = f.of, f.ingress, f.served
		r.HostRoutes, r.Networks = f.routed, f.nets
		r.Standby = gen.holding.IsValid() && !h.links.holds(gen.holding, now)
	}
	switch {
	case !r.Served:
		h.repeat = h.limit.refuse(now, outcome.InterfaceOff, r)
		return
	case r.P.Err != nil:
		h.repeat = h.limit.refuse(now, outcome.Malformed, r)
		return
	case r.Standby:
		return
	case h.late:
		r.Limited, h.repeat = outcome.Stale, h.limit.refuse(now, outcome.Stale, r)
		return
	}
	r.OwnFrom = h.links != nil && r.P.GIAddr().IsValid() && h.links.holds(r.P.From.Addr().Unmap(), now)
	if v4.Judge(r, h.snap, gen.config); r.Trust.Refused != 0 {
		h.repeat = h.limit.refuse(now, r.Trust.Refused, r)
		return
	}
	if r.Limited, h.repeat = h.limit.check(now, r, gen.settings); r.Limited != 0 || h.links == nil {
		return
	}
	if id := r.P.ServerID(); id.IsValid() && id != r.Local {
		r.OwnID = h.links.holds(id, now)
	}
}

// adopt has the pools exclude what a new snapshot binds, beside the packets: in a large pool that takes
// milliseconds.
func (h *handler) adopt(now time.Time, gen *generation) {
	switch {
	case !gen.pools.renew(h.snap):
	case h.adopts == nil:
		gen.pools.adopt(h.s.deps.Snapshot, h.s.deps.Leases, now)
	default:
		select {
		case h.adopts <- struct{}{}:
		default: // it is asked for already
		}
	}
}

// maxDecisions bounds how often a packet is decided on when somebody else takes the
// pool's address between decision and reservation.
const maxDecisions = 3

// decide decides, and takes what was decided on from its pool.
func (h *handler) decide(now time.Time, gen *generation) {
	snap, leases := h.snap, h.s.deps.Leases
	h.adopt(now, gen)
	for range maxDecisions {
		v4.Decide(&h.d, now, &h.r, snap, leases, gen.pools, gen.config)
		if h.d.Durable() && (h.s.deps.Journal == nil || h.s.deps.Failing != nil && h.s.deps.Failing()) {
			break // nothing is promised that a restart would forget
		}
		if (h.d.Change == v4.ChangeHold || h.d.Change == v4.ChangePool) && h.links != nil && h.links.holds(h.d.YourIP, now) {
			gen.pools.avoid(h.d.Pool-1, h.d.YourIP, now)
			continue // an address of this host
		}
		if gen.pools.reserve(&h.d, leases, now, h.s.log) {
			return
		}
	}
	o := outcome.PoolExhausted
	if h.d.Durable() {
		o = outcome.PoolNotDurable
	}
	h.d.Evidence.Stray, h.d.Evidence.OtherNetwork = v4.StrayNone, v4.OtherNetwork{}
	h.d = v4.Decision{Outcome: o, Evidence: h.d.Evidence, MAC: h.d.MAC, Match: h.d.Match, YourIP: h.d.YourIP, Pool: h.d.Pool}
	gen.pools.reserve(&h.d, leases, now, h.s.log)
}

// maxShownID bounds the client identifier in an event: events are kept by the thousand.
const maxShownID = 255

// describe makes the event that tells of the packet.
func (h *handler) describe(now time.Time) {
	d, p := &h.d, &h.r.P
	h.ev = Event{
		Time: now, Outcome: d.Outcome, MAC: d.MAC, YourIP: d.YourIP,
		Ifindex: h.r.Ifindex, Interface: p.Ingress.Name,
		Device: d.Match.Loc.Device, Port: d.Match.Loc.Port, Repeat: h.repeat, Rival: d.Rival,
		Source: netip.AddrPortFrom(p.From.Addr().Unmap(), p.From.Port()), VouchedBy: h.r.Trust.By, MatchedBy: d.Match.By, Rule: d.Evidence.Rule,
		Since: d.Evidence.Since, Stray: d.Evidence.Stray, Networks: d.Evidence.OtherNetwork,
	}
	if p.Err != nil {
		h.ev.Detail = p.Err.Error()
	}
	if d.Evidence.By != v4.VoucherNone {
		h.ev.VouchedBy = d.Evidence.By
	}
	if d.Rec.Pool != "" {
		h.ev.Subscriber = d.Rec.Subscriber
	}
	if l := d.Match.Vacant; l != nil && d.Pool > 0 {
		h.ev.Subscriber = l.Subscriber
		if h.ev.Device == 0 {
			h.ev.Device, h.ev.Port = l.Device, l.Port
		}
	}
	if d.Binding.Line != nil {
		h.ev.Subscriber = d.Binding.Subscriber
		if h.ev.Device == 0 {
			h.ev.Device, h.ev.Port = d.Binding.Device, d.Binding.Port
		}
	}
	if !p.HasHeader() {
		return
	}
	h.ev.XID, h.ev.ClientIP, h.ev.GIAddr = p.XID(), p.CIAddr(), p.GIAddr()
	if mac, ok := p.MAC(); ok {
		h.ev.MAC = mac
	}
	if p.Err == nil {
		h.ev.Type, h.ev.RequestedIP, h.ev.Option82 = p.Type(), p.Requested(), p.RelayInfo()
		h.ev.Lost = d.Match.Lost
		if id := p.ClientID(); len(id) <= maxShownID {
			h.ev.ClientID = id
		}
	}
}

// answer builds the reply, if there is to be one, and says where it goes.
func (h *handler) answer(gen *generation) {
	d := &h.d
	h.reply = h.reply[:0]
	if d.Reply.Type == 0 {
		return
	}
	h.reply = d.AppendReply(h.reply, &h.r.P.Packet)
	h.to = socket.Delivery{
		Way: d.Way, To: d.To, MAC: d.MAC, Ifindex: h.r.Ifindex,
		From: netip.AddrPortFrom(d.Reply.ServerID, gen.listen.Port()), Source: h.r.Local, Asker: h.r.P.From.Addr(),
	}
	switch d.Way {
	case wire.WayBroadcast:
		h.to.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), gen.config.ClientPort())
	case wire.WayFrame:
		if !d.To.IsValid() {
			h.to.To = netip.AddrPortFrom(d.YourIP, gen.config.ClientPort())
		} else if h.r.Local.IsValid() { // the client has an address, and hears who it asked
			h.to.From = netip.AddrPortFrom(h.r.Local, gen.listen.Port())
		}
	}
}

// apply changes the lease table as decided. It reports whether the committer or the prober took over the reply.
func (h *handler) apply(now time.Time, gen *generation) bool {
	d, leases := &h.d, h.s.deps.Leases
	change := d.Change
	if (change == v4.ChangeRenew || change == v4.ChangeBackground) && h.c.unwritten.has(d.Rec.IP) {
		change = v4.ChangeFact // sent again before the first one's record was on disk
	}
	if change == v4.ChangeRenew && !leases.Renew(d.Rec.IP, d.Rec.MAC, now, d.Rec.Expires) {
		change = v4.ChangeFact // it was dropped since the decision, and begins anew
	}
	switch change {
	case v4.ChangeNone:
		if d.Report {
			h.c.enqueue(h.pendReport(now))
		}
	case v4.ChangeRelease:
		h.giveUp(lease.StateReleased, now)
	case v4.ChangeDecline:
		h.giveUp(lease.StateDeclined, now)
	case v4.ChangeQuarantine:
		h.own()
		leases.Store(d.Rec)
		leases.Dirty(d.Rec.IP)
		h.s.log.Warn("pool address declined, put in quarantine", "ip", d.Rec.IP, "pool", d.Rec.Pool, "mac", d.MAC, "until", d.Rec.Expires,
			"source", h.ev.Source, "interface", h.ev.Interface, "vouched_by", h.ev.VouchedBy.String(), "matched_by", h.ev.MatchedBy.String(), "rule", h.ev.Rule.String())
	case v4.ChangeHold:
		return h.probe(now, gen)
	case v4.ChangePool, v4.ChangePoolRenew:
		return h.applyPool(now, gen)
	case v4.ChangeRenew:
		if d.Report {
			h.c.enqueue(h.pend(now, gen, false))
		}
	case v4.ChangeBackground:
		h.own()
		leases.Store(d.Rec)
		leases.Dirty(d.Rec.IP)
		if d.Report {
			h.c.enqueue(h.pend(now, gen, false))
		}
	case v4.ChangeFact:
		h.own()
		leases.Store(d.Rec)
		if h.s.deps.Journal == nil {
			leases.Dirty(d.Rec.IP)
			return false
		}
		if h.c.enqueue(h.pend(now, gen, true)) {
			return true
		}
		// The queue is full: the binding is the lease, so the client is not made
		// to wait. The record goes to disk in the background; a report that is due is due again at
		// the next renewal.
		leases.Dirty(d.Rec.IP)
		h.ev.Outcome = outcome.AckBeforeCommit
	}
	return false
}

// giveUp notes a RELEASE or DECLINE. It ends the lease, unless the decision says to keep it.
func (h *handler) giveUp(s lease.State, now time.Time) {
	if d := &h.d; d.Keep {
		h.s.deps.Leases.Keep(d.YourIP, d.Rec.MAC, s, now)
	} else {
		h.s.deps.Leases.SetState(d.YourIP, d.Rec.MAC, s, now)
	}
}

// applyPool hands a lease of a pool to the committer. The memory may be ahead of
// the disk: then the address is kept longer than its client knows, never shorter.
func (h *handler) applyPool(now time.Time, gen *generation) bool {
	d, leases := &h.d, h.s.deps.Leases
	if d.Change == v4.ChangePool || !leases.Renew(d.Rec.IP, d.MAC, now, d.Rec.Expires) {
		h.own()
		leases.Store(d.Rec)
	}
	if h.c.enqueue(h.pend(now, gen, true)) {
		return true
	}
	leases.Dirty(d.Rec.IP)
	d.Reply.Type = 0
	h.ev.Outcome = outcome.PoolNotDurable
	return false
}

// own copies what of the record still belongs to the packet's buffer.
func (h *handler) own() {
	h.d.Rec.ClientID = bytes.Clone(h.d.Rec.ClientID)
	h.d.Rec.Option82 = bytes.Clone(h.d.Rec.Option82)
}

// pendReport makes a commit of a report alone: the client gets nothing yet.
func (h *handler) pendReport(now time.Time) *pending {
	if h.s.deps.Journal == nil {
		return nil
	}
	p := h.c.get()
	p.lease, p.hasReport, p.sent = lease.Record{}, true, true
	p.report = h.macReport(now)
	return p
}

// pend makes a commit out of the packet at hand; with wait its reply waits for it.
func (h *handler) pend(now time.Time, gen *generation, wait bool) *pending {
	if h.s.deps.Journal == nil {
		return nil
	}
	p := h.c.get()
	p.lease, p.hasReport = h.d.Rec, h.d.Report
	if !wait { // the slices may be the packet's
		p.lease.ClientID = bytes.Clone(p.lease.ClientID)
		p.lease.Option82 = bytes.Clone(p.lease.Option82)
	}
	if h.d.Report {
		p.report = h.macReport(now)
	}
	p.sent, p.durable = !wait, wait && h.d.Durable()
	if wait {
		p.deadline = time.Now().Add(gen.commitTimeout)
		if p.durable {
			p.deadline = now.Add(maxPoolWait)
		}
		p.reply.To, p.reply.Payload = h.to, append(p.reply.Payload[:0], h.reply...)
		p.ev.copyFrom(&h.ev)
	}
	return p
}

// macReport tells the ERP of the client's MAC, with the packet as the evidence.
func (h *handler) macReport(now time.Time) provision.MACReport {
	ev := &h.ev
	return provision.MACReport{
		IP: h.d.Rec.IP, MAC: h.d.MAC, Subscriber: h.d.Rec.Subscriber, At: now, Replaces: h.d.Rec.Replaced(h.snap),
		Packet: provision.Packet{
			Source: ev.Source, Interface: ev.Interface, Relay: ev.GIAddr, Option82: lease.Hex(h.r.P.Option82()).String(), Device: ev.Device, Port: ev.Port,
			VouchedBy: ev.VouchedBy.String(), MatchedBy: ev.MatchedBy.String(), Rule: ev.Rule.String(),
		},
	}
}

// leave has the reply at hand sent with the others of the batch.
func (h *handler) leave() {
	n := len(h.leaving)
	if n == cap(h.leaving) {
		h.leaving = append(h.leaving, departure{})
	}
	h.leaving = h.leaving[:n+1]
	d := &h.leaving[n] // its payload has memory that is used again
	d.reply.To, d.reply.Payload = h.to, append(d.reply.Payload[:0], h.reply...)
	d.ev.copyFrom(&h.ev) // an identifier in parts is joined in memory that the next packet of the batch uses
	d.refused, d.ip, d.mac = h.d.Change == v4.ChangeRefused, h.d.Rec.IP, h.d.Rec.MAC
}

// flush sends the replies of the batch and reports their outcomes.
func (h *handler) flush() {
	if len(h.leaving) == 0 {
		return
	}
	h.replies = h.replies[:0]
	for i := range h.leaving {
		h.replies = append(h.replies, &h.leaving[i].reply)
	}
	h.out.SendAll(h.replies)
	for i := range h.leaving {
		d := &h.leaving[i]
		switch {
		case d.reply.Err != nil:
			d.ev.unsent(d.reply.Err)
		case d.refused:
			h.s.deps.Leases.End(d.ip, d.mac, d.ev.Time)
		}
		h.s.ended(&d.ev, h.s.now())
	}
	h.leaving = h.leaving[:0]
}

// ended tells of a packet what became of it: its reply has left by now, or will not.
func (s *Server) ended(ev *Event, now time.Time) {
	ev.Latency = now.Sub(ev.Time)
	s.senders.NoteNetworks(ev.Time, ev.Networks, ev.Outcome, s.generation.Load().config)
	s.observer.Packet(ev)
}
