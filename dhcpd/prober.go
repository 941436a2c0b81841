package dhcpd

import (
	"net/netip"
	"sync"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// Before a pool's address is offered on a wire of our own, the wire is asked
// whether somebody uses it (RFC 2131 section 2.2, by the probe of RFC 5227). The
// packet goroutine never waits for that: it hands the finished OFFER to the prober.

const (
	// probeWait is how long an answer may take. RFC 5227 has clients wait for seconds
	// before they use an address; the client will do so itself, and a host on the same
	// wire answers within a millisecond.
	probeWait = 300 * time.Millisecond
	// probeAgain is when the question is asked once more, should it have been lost.
	probeAgain = 100 * time.Millisecond
	// probeTries is how many addresses are tried for one DISCOVER.
	probeTries = 3
	// probeFresh is how long an address that nobody answered for is not asked again.
	probeFresh = 10 * time.Minute

	probeQueue = 1024
	maxProbing = 4096 // offers that wait; beyond it they leave unasked
)

// arpWire asks wires who has an address, and hears their answers; socket.ARP is the real one.
type arpWire interface {
	Ask(ifindex int, target netip.Addr) error
	Heard() <-chan socket.Sighting
}

// probeJob is an OFFER that waits for the wire.
type probeJob struct {
	gen    *generation
	pool   int // place in gen.pools
	tries  int
	asked  int       // questions sent for the address at hand
	next   time.Time // when something is to be done
	end    time.Time // the address is free if nobody has answered by then
	mac    provision.MAC
	holder provision.Owner // whom the pool keeps the address for

	// The address is the client's own, which it, or somebody in its name, has declined. So who else answers
	// counts only if the client itself does not until the end.
	declined bool
	rival    socket.Sighting // who else answered; zero: nobody

	reply []byte
	to    socket.Delivery
	ev    Event
}

// prober owns the OFFERs that wait. Its run method is one goroutine.
type prober struct {
	s     *Server
	out   transport
	wire  arpWire
	queue chan *probeJob
	jobs  sync.Pool

	waiting []*probeJob
}

func newProber(s *Server, out transport, wire arpWire) *prober {
	return &prober{s: s, out: out, wire: wire, queue: make(chan *probeJob, probeQueue),
		jobs: sync.Pool{New: func() any { return new(probeJob) }}}
}

// probe hands the OFFER at hand to the prober; false: it may leave at once.
func (h *handler) probe(now time.Time, gen *generation) bool {
	d := &h.d
	p := &gen.pools.all[d.Pool-1]
	if h.prober == nil || !p.Probe || h.r.P.GIAddr().IsValid() || h.r.Ifindex == 0 {
		return false
	}
	again := declined(h.s.deps.Leases, d.YourIP, now)
	if !again && !p.alloc.unsure(d.YourIP, d.Holder, now) {
		return false
	}
	j := h.prober.jobs.Get().(*probeJob)
	j.gen, j.pool, j.tries, j.asked, j.mac, j.holder = gen, d.Pool-1, 0, 0, d.MAC, d.Holder
	j.declined, j.rival = again, socket.Sighting{}
	j.reply = append(j.reply[:0], h.reply...)
	j.to = h.to
	j.ev.copyFrom(&h.ev)
	select {
	case h.prober.queue <- j:
		return true
	default:
		h.prober.jobs.Put(j)
		return false
	}
}

// run works until the queue is closed. Offers that wait then leave at once.
func (b *prober) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	heard := b.wire.Heard()
	for {
		if wait, ok := b.nextWait(); ok {
			timer.Reset(wait)
		}
		select {
		case j, ok := <-b.queue:
			if !ok {
				for _, j := range b.waiting {
					b.offer(j)
				}
				return
			}
			if len(b.waiting) >= maxProbing {
				b.offer(j)
				continue
			}
			b.begin(j)
			b.waiting = append(b.waiting, j)
		case s, ok := <-heard:
			if !ok {
				heard = nil
				continue
			}
			b.saw(s)
		case <-timer.C:
		}
		b.due()
	}
}

func (b *prober) nextWait() (time.Duration, bool) {
	if len(b.waiting) == 0 {
		return 0, false
	}
	next := b.waiting[0].next
	for _, j := range b.waiting[1:] {
		if j.next.Before(next) {
			next = j.next
		}
	}
	return max(0, time.Until(next)), true
}

// begin sets a job up for the address that it has.
func (b *prober) begin(j *probeJob) {
	now := time.Now()
	j.asked, j.next, j.end = 0, now, now.Add(probeWait)
	j.gen.pools.all[j.pool].alloc.countProbe()
}

// due does what is to be done by now.
func (b *prober) due() {
	now := time.Now()
	keep := b.waiting[:0]
	for _, j := range b.waiting {
		switch {
		case now.Before(j.next):
		case !now.Before(j.end) && j.rival.IP.IsValid() && declined(b.s.deps.Leases, j.rival.IP, b.s.now()):
			if !b.another(j, j.rival) {
				continue
			}
		case !now.Before(j.end):
			if !j.rival.IP.IsValid() {
				j.gen.pools.all[j.pool].alloc.verify(j.ev.YourIP, b.s.now())
			}
			b.offer(j)
			continue
		default:
			// A question that cannot be sent is as good as one that nobody answers.
			_ = b.wire.Ask(j.to.Ifindex, j.ev.YourIP)
			j.asked++
			j.next = j.end
			if j.asked == 1 {
				j.next = now.Add(probeAgain)
			}
		}
		keep = append(keep, j)
	}
	clear(b.waiting[len(keep):])
	b.waiting = keep
}

// saw looks whether an address that is asked for is in use.
func (b *prober) saw(s socket.Sighting) {
	keep := b.waiting[:0]
	for _, j := range b.waiting {
		waits := true
		switch {
		case j.ev.YourIP != s.IP || j.to.Ifindex != s.Ifindex:
		case j.mac == s.MAC && j.declined: // it uses the address, so it has not declined it
			b.offer(j)
			waits = false
		case j.mac == s.MAC:
		case j.declined:
			j.rival = s
		default:
			waits = b.another(j, s)
		}
		if waits {
			keep = append(keep, j)
		}
	}
	clear(b.waiting[len(keep):])
	b.waiting = keep
}

// another puts the address into quarantine and begins with another one; false: the packet is done. There may be none, or the
// address was leased since it was to be offered: what ARP alone says ends no lease.
func (b *prober) another(j *probeJob, s socket.Sighting) bool {
	p := &j.gen.pools.all[j.pool]
	now := b.s.now()
	hold := j.gen.config.Quarantine(j.gen.pools.Quarantined(j.pool, now)) // short if somebody answers for everything
	rec := lease.Record{
		IP: s.IP, MAC: s.MAC, Pool: p.Name, Ifindex: s.Ifindex, Interface: j.ev.Interface, State: lease.StateQuarantined,
		Start: now, Renewed: now, Expires: now.Add(hold),
	}
	// As long as the disk cannot be used, a lease of who answers may be still to be read from it, and a record would be newer. It is asked
	// before the table is: a lease that comes between the two is seen.
	unread := !j.declined && b.s.deps.Failing != nil && b.s.deps.Failing()
	port, ok := p.alloc.quarantine(s.IP, b.s.deps.Leases, j.declined, now, rec.Expires)
	if !ok {
		b.offer(j)
		return false
	}
	if !unread {
		b.s.deps.Leases.Store(rec)
		b.s.deps.Leases.Dirty(rec.IP)
	}
	b.s.log.Warn("pool address is in use by somebody else, put in quarantine", "ip", s.IP, "pool", p.Name, "used_by", s.MAC, "interface", j.ev.Interface, "until", rec.Expires,
		"offered_to", j.ev.MAC, "source", j.ev.Source, "vouched_by", j.ev.VouchedBy.String(), "matched_by", j.ev.MatchedBy.String(), "rule", j.ev.Rule.String())
	j.declined, j.rival = false, socket.Sighting{}
	j.tries++
	var a netip.Addr
	if ok = j.tries < probeTries; ok {
		a, ok = p.alloc.replace(j.holder, port, now)
	}
	if !ok {
		j.ev.Outcome = outcome.PoolConflict
		b.end(j)
		return false
	}
	// yiaddr of the finished reply; nothing else of it depends on the address.
	four := a.As4()
	copy(j.reply[16:20], four[:])
	if j.ev.YourIP = a; j.to.Way == wire.WayFrame {
		j.to.To = netip.AddrPortFrom(a, j.to.To.Port())
	}
	b.begin(j)
	return true
}

// offer sends a job's OFFER and is done with it.
func (b *prober) offer(j *probeJob) {
	if err := b.out.Send(&j.to, j.reply); err != nil {
		j.ev.unsent(err)
	}
	b.end(j)
}

func (b *prober) end(j *probeJob) {
	b.s.ended(&j.ev, b.s.now())
	j.gen = nil
	b.jobs.Put(j)
}

// declined reports whether an address is kept for a client of which nobody can tell whether it declined it.
func declined(leases *lease.Table, ip netip.Addr, now time.Time) bool {
	rec, known := leases.Get(ip)
	return known && rec.State == lease.StateDeclined && rec.Kept(now)
}

// unsure reports whether the wire is to be asked before a is offered to who: it has no
// lease on it, and nobody was asked lately.
func (a *allocator) unsure(ip netip.Addr, who provision.Owner, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.p.Get(ip, now); s.State == pool.StateLeased && s.Owner == who {
		return false
	}
	i, ok := a.place(ip)
	if !ok {
		return true
	}
	age := now.UnixMilli() - a.asked[i]
	return age < 0 || age >= probeFresh.Milliseconds() // negative: the clock was set back
}

// verify notes that nobody answered for an address.
func (a *allocator) verify(ip netip.Addr, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i, ok := a.place(ip); ok {
		a.asked[i] = now.UnixMilli()
	}
}

func (a *allocator) place(ip netip.Addr) (int, bool) {
	if a.asked == nil || !a.p.Contains(ip) {
		return 0, false
	}
	return int(addrNumber(ip) - addrNumber(a.key.first)), true
}

func (a *allocator) countProbe() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Probes++
}

// quarantine keeps the address of an offer from everybody until a time, and returns where its client is. false: it was leased
// since, and nobody declined it.
func (a *allocator) quarantine(ip netip.Addr, leases *lease.Table, declined bool, now, until time.Time) (port uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec, known := leases.Get(ip) // the lease may also be of one for whom the ERP binds the address by now
	if !declined && (a.p.Get(ip, now).State == pool.StateLeased || known && rec.Live(now)) {
		return 0, false
	}
	a.Conflicts++
	port = a.p.Place(ip)
	a.p.Restore(ip, provision.Owner{}, pool.StateQuarantined, until)
	return port, true
}

// replace holds another address for who, a client at a port; false: there is none.
func (a *allocator) replace(who provision.Owner, port uint64, now time.Time) (netip.Addr, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next, fit := a.p.Pick(who, netip.Addr{}, now)
	if fit == 0 || !a.p.Offer(next, who, now, now.Add(v4.OfferHold)) {
		return netip.Addr{}, false
	}
	a.p.SetPlace(next, port)
	return next, true
}
