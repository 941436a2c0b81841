package dhcpd

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// transport delivers replies; sender is the real one.
type transport interface {
	send(d *delivery, payload []byte) error
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
	r      request
	d      decision
	reply  []byte
	to     delivery
	ev     Event
}

func newHandler(s *Server, c *committer, out transport, links *interfaces) *handler {
	return &handler{s: s, c: c, out: out, links: links, limit: newLimiter(), reply: make([]byte, 0, wire.MaxReplyLen)}
}

// handle ends one packet in exactly one outcome.
func (h *handler) handle(now time.Time, g datagram) {
	set := h.s.settings.Load()
	h.read(now, g, set)
	h.decide(now, set)
	h.fillEvent(now)

	d := &h.d
	h.reply = h.reply[:0]
	if d.reply.Type != 0 {
		h.reply = d.appendReply(h.reply, &h.r.p.Packet)
		h.to = delivery{
			way: d.way, to: d.to, from: g.from, ifindex: g.ifindex, source: g.to,
			id: d.reply.ServerID, yourIP: d.yourIP, mac: d.mac,
			server: set.listen.Port(), client: set.clientPort,
		}
	}
	if h.apply(now, set) {
		return // the committer or the prober sends the reply and reports the outcome
	}
	if d.reply.Type != 0 {
		if err := h.out.send(&h.to, h.reply); err != nil {
			h.ev.Outcome, h.ev.Detail = OutcomeSendFailed, errorClass(err)
		}
	}
	h.ev.Latency = h.s.now().Sub(now)
	h.s.observer.Packet(&h.ev)
}

// maxDecisions bounds how often a packet is decided on when somebody else takes the
// pool's address between decision and reservation.
const maxDecisions = 3

// decide decides, and takes what was decided on from its pool.
func (h *handler) decide(now time.Time, set *settings) {
	snap := h.s.deps.Snapshot()
	set.adopt(snap, h.s.deps.Leases, now)
	for range maxDecisions {
		h.d = decide(now, &h.r, snap, h.s.deps.Leases, set, set)
		if h.d.durable() && (h.s.deps.Journal == nil || h.s.deps.Volatile) {
			break // nothing is promised that a restart would forget
		}
		if (h.d.change == changeHold || h.d.change == changePool) && h.links != nil && h.links.holds(h.d.yourIP, now) {
			set.pools[h.d.pool-1].alloc.avoid(h.d.yourIP, now, set.quarantine)
			continue // an address of this host
		}
		if set.reserve(&h.d, h.s.deps.Leases, now, h.s.log) {
			return
		}
	}
	o := OutcomePoolExhausted
	if h.d.durable() {
		o = OutcomePoolNotDurable
	}
	h.d = decision{outcome: o, mac: h.d.mac, match: h.d.match, yourIP: h.d.yourIP, pool: h.d.pool}
	set.reserve(&h.d, h.s.deps.Leases, now, h.s.log)
}

// durable reports whether the answer must not leave before its lease is on disk.
func (d *decision) durable() bool { return d.change == changePool || d.change == changePoolRenew }

func (h *handler) read(now time.Time, g datagram, set *settings) {
	r := &h.r
	r.p.Read(g.data)
	if g.cut {
		r.p.Err = wire.ErrLong
	}
	r.p.From, r.p.Ingress = g.from, line.Ingress{}
	r.ifindex, r.local = g.ifindex, g.to
	r.on, r.served, r.standby, r.ownID = nil, true, false, false
	r.limited, r.repeat = 0, false
	if h.links != nil {
		f := h.links.get(g.ifindex, now, set)
		r.on, r.p.Ingress, r.served = f.of, f.ingress, f.served
		r.standby = set.holding.IsValid() && !h.links.holds(set.holding, now)
	}
	if r.p.Err != nil || !r.served {
		r.repeat = h.limit.noise(now)
		return
	}
	if r.standby {
		return
	}
	if r.limited, r.repeat = h.limit.check(now, r, &set.limits); r.limited != 0 || h.links == nil {
		return
	}
	if id := r.p.ServerID(); id.IsValid() && id != r.local {
		r.ownID = h.links.holds(id, now)
	}
}

// apply changes the lease table as decided. It reports whether the committer or the prober took over the reply.
func (h *handler) apply(now time.Time, set *settings) bool {
	d, leases := &h.d, h.s.deps.Leases
	switch d.change {
	case changeNone:
		if d.report {
			h.c.enqueue(h.pendReport(now))
		}
	case changeRelease:
		leases.SetState(d.yourIP, d.rec.MAC, lease.StateReleased, now)
	case changeDecline:
		leases.SetState(d.yourIP, d.rec.MAC, lease.StateDeclined, now)
	case changeQuarantine:
		h.own()
		leases.Store(d.rec)
		leases.Dirty(d.rec.IP)
		h.s.log.Warn("pool address declined, put in quarantine", "ip", d.rec.IP, "pool", d.rec.Pool, "mac", d.mac, "until", d.rec.Expires)
	case changeHold:
		return h.probe(now, set)
	case changePool, changePoolRenew:
		return h.applyPool(now, set)
	case changeRenew:
		leases.Renew(d.rec.IP, d.mac, now, d.rec.Expires)
		if d.report {
			h.c.enqueue(h.pend(now, set, false))
		}
	case changeBackground:
		h.own()
		leases.Store(d.rec)
		leases.Dirty(d.rec.IP)
		if d.report {
			h.c.enqueue(h.pend(now, set, false))
		}
	case changeFact:
		h.own()
		leases.Store(d.rec)
		if h.s.deps.Journal == nil {
			leases.Dirty(d.rec.IP)
			return false
		}
		if h.c.enqueue(h.pend(now, set, true)) {
			return true
		}
		// The queue is full: the binding is the lease, so the client is not made
		// to wait. The record goes to disk in the background; a report that is due is due again at
		// the next renewal.
		leases.Dirty(d.rec.IP)
		h.ev.Outcome = OutcomeAckBeforeCommit
	}
	return false
}

// applyPool hands a lease of a pool to the committer. The memory may be ahead of
// the disk: then the address is kept longer than its client knows, never shorter.
func (h *handler) applyPool(now time.Time, set *settings) bool {
	d, leases := &h.d, h.s.deps.Leases
	if d.change == changePool || !leases.Renew(d.rec.IP, d.mac, now, d.rec.Expires) {
		h.own()
		leases.Store(d.rec)
	}
	if h.c.enqueue(h.pend(now, set, true)) {
		return true
	}
	leases.Dirty(d.rec.IP)
	d.reply.Type = 0
	h.ev.Outcome = OutcomePoolNotDurable
	return false
}

// own copies what of the record still belongs to the packet's buffer.
func (h *handler) own() {
	h.d.rec.ClientID = bytes.Clone(h.d.rec.ClientID)
	h.d.rec.Option82 = bytes.Clone(h.d.rec.Option82)
}

// pendReport makes a commit of a report alone: the client gets nothing yet.
func (h *handler) pendReport(now time.Time) *pending {
	if h.s.deps.Journal == nil {
		return nil
	}
	p := h.c.get()
	p.lease, p.hasReport, p.sent = lease.Record{}, true, true
	p.report = provision.MACReport{IP: h.d.rec.IP, MAC: h.d.mac, Subscriber: h.d.rec.Subscriber, At: now}
	return p
}

// pend makes a commit out of the packet at hand; with wait its reply waits for it.
func (h *handler) pend(now time.Time, set *settings, wait bool) *pending {
	if h.s.deps.Journal == nil {
		return nil
	}
	p := h.c.get()
	p.lease, p.hasReport = h.d.rec, h.d.report
	if !wait { // the slices may be the packet's
		p.lease.ClientID = bytes.Clone(p.lease.ClientID)
		p.lease.Option82 = bytes.Clone(p.lease.Option82)
	}
	if h.d.report {
		p.report = provision.MACReport{IP: h.d.rec.IP, MAC: h.d.mac, Subscriber: h.d.rec.Subscriber, At: now}
	}
	p.sent, p.durable = !wait, wait && h.d.durable()
	if wait {
		p.deadline = time.Now().Add(set.commitTimeout)
		p.reply = append(p.reply[:0], h.reply...)
		p.to = h.to
		opt82, id := append(p.ev.Option82[:0], h.ev.Option82...), append(p.ev.ClientID[:0], h.ev.ClientID...)
		p.ev = h.ev
		p.ev.Option82, p.ev.ClientID = opt82, id
	}
	return p
}

// maxShownID bounds the client identifier in an event: events are kept by the thousand.
const maxShownID = 255

func (h *handler) fillEvent(now time.Time) {
	d, p := &h.d, &h.r.p
	h.ev = Event{
		Time: now, Outcome: d.outcome, MAC: d.mac, YourIP: d.yourIP,
		Ifindex: h.r.ifindex, Interface: h.r.p.Ingress.Name,
		Device: d.match.loc.Device, Port: d.match.loc.Port, Repeat: h.r.repeat,
	}
	if h.r.p.Err != nil {
		h.ev.Detail = h.r.p.Err.Error()
	}
	if d.rec.Pool != "" {
		h.ev.Subscriber = d.rec.Subscriber
	}
	if s := d.match.seat; s != nil && d.pool > 0 {
		h.ev.Subscriber = s.Subscriber
		if h.ev.Device == 0 {
			h.ev.Device, h.ev.Port = s.Device, s.Port
		}
	}
	if d.binding != nil {
		h.ev.Subscriber = d.binding.Subscriber
		if h.ev.Device == 0 {
			h.ev.Device, h.ev.Port = d.binding.Device, d.binding.Port
		}
	}
	if !p.HasHeader() {
		return
	}
	h.ev.XID, h.ev.ClientIP, h.ev.GIAddr = p.XID(), p.CIAddr(), p.GIAddr()
	if mac, ok := p.MAC(); ok {
		h.ev.MAC = mac
	}
	if h.r.p.Err == nil {
		h.ev.Type, h.ev.RequestedIP, h.ev.Option82 = p.Type(), p.Requested(), p.RelayInfo()
		h.ev.Lost = d.match.lost
		if id := p.ClientID(); len(id) <= maxShownID {
			h.ev.ClientID = id
		}
	}
}

// target says where a delivery goes, for tests.
func (d *delivery) target() netip.AddrPort {
	switch d.way {
	case wayRelay, wayUnicast:
		return d.to
	case wayBroadcast:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), d.client)
	}
	return netip.AddrPortFrom(d.yourIP, d.client)
}
