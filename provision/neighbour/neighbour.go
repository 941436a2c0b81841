// Package neighbour learns MACs of subscribers who do not use DHCP from the
// kernel's ARP table.
package neighbour

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// State is what the kernel knows of a neighbour. Its zero value is invalid.
type State uint8

// The states.
const (
	Confirmed State = iota + 1 // it answered the router
	Claimed                    // somebody says so, or said so a while ago
	Gone                       // it answers no more
)

// Neighbour is one entry of the kernel's ARP table.
type Neighbour struct {
	IP        netip.Addr
	MAC       provision.MAC // may be zero where it is gone
	Interface string
	State     State
}

// Kernel is the kernel's ARP table, its routes and the wires behind it.
type Kernel interface {
	// Watch reports every entry that there is, and then every change, until ctx
	// ends. After a gap it begins anew.
	Watch(ctx context.Context, on func(Neighbour)) error
	// Ask asks on the wire whether known still has an address. It returns when it
	// knows, and at the end of ctx at the latest: with Silent then, not an error. An
	// error says that it could not ask.
	Ask(ctx context.Context, q Question) (Answer, error)
}

// Question is what is asked about an address before another MAC than the ERP's is believed.
type Question struct {
	Interface string // where the other MAC was seen
	IP        netip.Addr
	Known     provision.MAC // the ERP's; zero: it has none, and the wire is not asked
}

// Answer is what became of a Question. Its zero value is invalid.
type Answer uint8

// The answers.
const (
	Silent  Answer = iota + 1 // the known MAC was not heard, or there is none
	Answers                   // the known MAC has the address
	Astray                    // packets to the address do not leave by that interface, straight to a neighbour there
)

// Outcome is what became of one confirmed neighbour. A closed set: it
// is a metric label.
type Outcome string

// The outcomes.
const (
	Known        Outcome = "known"         // the ERP has this MAC
	Unbound      Outcome = "unbound"       // the ERP binds the address to nobody
	Leased       Outcome = "leased"        // a DHCP lease is not over, which is the better witness
	Refused      Outcome = "refused"       // the ERP has another MAC, and no change is wanted
	Elsewhere    Outcome = "elsewhere"     // on a wire where the address is not expected
	Foreign      Outcome = "foreign"       // this MAC is another subscriber's, or a guest's
	StillAnswers Outcome = "still_answers" // the ERP's MAC answers for the address, too
	Unasked      Outcome = "unasked"       // the ERP's MAC could not be asked
	Contradicted Outcome = "contradicted"  // another MAC came within the time
	Overruled    Outcome = "overruled"     // the ERP got another MAC for the address since this one was first seen there
	Shared       Outcome = "shared"        // the MAC answers for many addresses: a router's or a proxy's
	Repeated     Outcome = "repeated"      // the ERP was told a MAC of this address within the hour
	Reported     Outcome = "reported"      // handed to the outbox
	Failed       Outcome = "failed"        // the outbox could not take it
)

// Outcomes lists every outcome, for metrics and documentation.
func Outcomes() []Outcome {
	return []Outcome{Known, Unbound, Leased, Refused, Overruled, Elsewhere, Foreign, StillAnswers, Unasked,
		Contradicted, Shared, Repeated, Reported, Failed}
}

// Options direct a Watcher. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	Serves func(name string) bool // whether neighbours on an interface count

	// RefuseChange says that an address for which the ERP has a MAC keeps it, whatever is seen.
	RefuseChange bool
	// VLANOf reads the VLAN out of the name of an interface; nil: names tell nothing.
	VLANOf func(name string) (vlan uint16, ok bool)

	// Another MAC than the ERP's is reported when the kernel has confirmed it, and no
	// other, for so long, and the ERP's did not answer when it was asked meanwhile, which takes
	// three seconds at least. 0s to 1h.
	MinTime time.Duration `cfg:"min_time" default:"10s" min:"0s" max:"1h"`
}

// Leases is the lease table.
type Leases interface {
	Get(ip netip.Addr) (lease.Record, bool)
	ByMAC(mac provision.MAC) []lease.Record
}

// Deps is what a Watcher asks and tells.
type Deps struct {
	Snapshot func() *provision.Snapshot
	Leases   Leases
	Report   func(provision.MACReport) error
	Count    func(Outcome)
}

const (
	// maxAddressesOfMAC is for subscribers with a few addresses. A switch that
	// answers for everybody behind it (proxy ARP) has many.
	maxAddressesOfMAC = 4
	// reportAgain is when the ERP is told of an address once more, be it the same MAC,
	// which it does not show, or another one.
	reportAgain = time.Hour
	// firstRetry and maxRetry bound the wait after the watch has failed; it doubles with each.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 30 * time.Second
	// maxNeighbours bounds what is remembered; gc_thresh3 of a large router is below.
	maxNeighbours = 1 << 18
)

// place is an address on an interface. The kernel knows neighbours by both, and
// what is claimed on one wire says nothing about another.
type place struct {
	ip    netip.Addr
	iface string
}

// neighbourhood decides which neighbours are to be reported: the pure part. One
// goroutine owns it.
type neighbourhood struct {
	snapshot func() *provision.Snapshot
	leases   Leases
	count    func(Outcome)

	seen     map[place]provision.MAC // confirmed last
	holders  map[provision.MAC]int   // number of places in seen
	pending  map[place]*candidate
	next     time.Time // before it nothing of pending is due; zero: never
	asking   int       // questions on their way
	askingOn map[string]int

	reported map[netip.Addr]time.Time
	answered map[netip.Addr]answered
	swept    time.Time

	met     map[netip.Addr][]lease.Record // of bound addresses, the newest first: who was confirmed, and what the ERP had then
	adopted time.Time                     // as of when met knows what the ERP has
}

// candidate is a MAC that is not the ERP's and the only one since it came.
type candidate struct {
	mac     provision.MAC
	since   time.Time
	known   provision.MAC // the ERP's, of which the rest tells
	silent  int           // questions that it did not answer
	asking  bool          // one is on its way
	settled bool          // all have been asked
}

// answered is when the ERP's MAC answered for its address last.
type answered struct {
	mac provision.MAC
	at  time.Time
}

func newNeighbourhood(d Deps) *neighbourhood {
	return &neighbourhood{snapshot: d.Snapshot, leases: d.Leases, count: d.Count,
		seen: map[place]provision.MAC{}, holders: map[provision.MAC]int{}, pending: map[place]*candidate{}, askingOn: map[string]int{},
		reported: map[netip.Addr]time.Time{}, answered: map[netip.Addr]answered{}, met: map[netip.Addr][]lease.Record{}}
}

// take notes one entry of the kernel. What is not decided at once due decides on later.
func (h *neighbourhood) take(n Neighbour, now time.Time, o *Options) {
	if n.MAC.IsZero() || n.MAC[0]&1 != 0 { // a group address answers for nobody
		n.State = Gone
	}
	at := place{n.IP, n.Interface}
	p := h.pending[at]
	switch n.State {
	case Gone:
		h.note(at, provision.MAC{})
		delete(h.pending, at)
		return
	case Claimed: // proves nothing, but may disprove
		if p != nil && p.mac != n.MAC {
			delete(h.pending, at)
			h.count(Contradicted)
		}
		return
	}
	h.note(at, n.MAC)
	if p != nil && p.mac == n.MAC {
		return
	}
	delete(h.pending, at)
	h.meet(at.ip, n.MAC, now)
	outcome, _ := h.judge(at, n.MAC, now, o)
	if outcome != Reported {
		h.count(outcome)
		return
	}
	if p != nil {
		h.count(Contradicted)
	}
	h.pending[at] = &candidate{mac: n.MAC, since: now}
	h.soon(now)
}

// soon has due look at what is pending at t.
func (h *neighbourhood) soon(t time.Time) {
	if h.next.IsZero() || t.Before(h.next) {
		h.next = t
	}
}

// note remembers who was confirmed last at a place; a zero MAC: nobody.
func (h *neighbourhood) note(at place, mac provision.MAC) {
	old, had := h.seen[at]
	if had && old == mac || !had && len(h.seen) >= maxNeighbours {
		return
	}
	if had {
		if h.holders[old]--; h.holders[old] == 0 {
			delete(h.holders, old)
		}
		delete(h.seen, at)
	}
	if !mac.IsZero() {
		h.seen[at] = mac
		h.holders[mac]++
	}
}

// judge says what a confirmed neighbour is worth by what is known here: Reported for one that
// the ERP should be told if the wire agrees. The line is that of the address, nil if it has none.
func (h *neighbourhood) judge(at place, mac provision.MAC, now time.Time, o *Options) (Outcome, *provision.Line) {
	s := h.snapshot()
	b := s.ByIP(at.ip)
	if b == nil {
		return Unbound, nil
	}
	last, told := h.reported[at.ip]
	a, heard := h.answered[at.ip]
	switch {
	case b.MAC == mac:
		return Known, b
	case h.leased(at.ip, now):
		return Leased, b
	case o.RefuseChange && !b.MAC.IsZero():
		return Refused, b
	case h.overruled(s, at.ip, mac):
		return Overruled, b
	case o.otherVLAN(b, at.iface):
		return Elsewhere, b
	case h.foreign(s, b, mac, now):
		return Foreign, b
	case h.holders[mac] > maxAddressesOfMAC:
		return Shared, b
	case told && now.Sub(last) < reportAgain:
		return Repeated, b
	case heard && a.mac == b.MAC && now.Sub(a.at) < askAgain:
		return StillAnswers, b // it is not asked each time that somebody claims its address
	}
	return Reported, b
}

// otherVLAN reports whether an interface is named after another VLAN than the ERP has the line in.
func (o *Options) otherVLAN(b *provision.Line, iface string) bool {
	if b.VLAN == 0 || o.VLANOf == nil {
		return false
	}
	vlan, ok := o.VLANOf(iface)
	return ok && vlan != b.VLAN
}

// leased reports whether a DHCP lease of an address is not over. One that was given back
// may be kept until its expiry.
func (h *neighbourhood) leased(ip netip.Addr, now time.Time) bool {
	rec, ok := h.leases.Get(ip)
	return ok && (rec.Live(now) || rec.State == lease.StateReleased && now.Before(rec.Expires))
}

// foreign reports whether a MAC is known as that of another subscriber than b's: by the ERP, or by a live lease. A guest whose MAC the ERP does not
// have yet counts, too: he would be none any more.
func (h *neighbourhood) foreign(s *provision.Snapshot, b *provision.Line, mac provision.MAC, now time.Time) bool {
	known := false
	for l := range s.ByMAC(mac).All() {
		if l.Subscriber != b.Subscriber {
			return true
		}
		known = true
	}
	for _, rec := range h.leases.ByMAC(mac) {
		if rec.Live(now) && rec.Subscriber != b.Subscriber && (rec.Subscriber != 0 || !known) {
			return true
		}
	}
	return false
}

// Watcher reports the MACs of subscribers with static settings, as the
// kernel's ARP table confirms them. Run runs once.
type Watcher struct {
	kernel Kernel
	deps   Deps
	log    *slog.Logger
	wake   chan struct{} // one slot, coalescing

	mu      sync.Mutex // guards the rest
	opts    Options
	inbox   []Neighbour
	results []result
	cannot  bool // the last question could not be asked
}

// New makes a Watcher; all of deps are needed.
func New(opts Options, kernel Kernel, deps Deps, log *slog.Logger) *Watcher {
	return &Watcher{kernel: kernel, deps: deps, log: log, opts: opts, wake: make(chan struct{}, 1)}
}

// Reconfigure takes new options.
func (w *Watcher) Reconfigure(opts Options) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opts = opts
}

// Run watches until ctx ends; it gives nil then.
func (w *Watcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.watch(ctx) })
	h := newNeighbourhood(w.deps)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-timer.C:
		}
		now := time.Now()
		w.mu.Lock()
		inbox, results, opts := w.inbox, w.results, w.opts
		w.inbox, w.results = nil, nil
		w.mu.Unlock()
		h.adopt(now)
		for _, n := range inbox {
			h.take(n, now, &opts)
		}
		for _, r := range results {
			h.heard(r, now)
		}
		reports, questions := h.due(now, &opts)
		for _, r := range reports {
			w.report(h, r)
		}
		for _, a := range questions {
			wg.Go(func() { w.ask(ctx, a) })
		}
		timer.Reset(time.Hour)
		if !h.next.IsZero() {
			timer.Reset(max(0, time.Until(h.next)))
		}
	}
}

func (w *Watcher) report(h *neighbourhood, r provision.MACReport) {
	if err := w.deps.Report(r); err != nil {
		delete(h.reported, r.IP)
		w.deps.Count(Failed)
		w.log.Warn("seen MAC could not be kept for the ERP", "ip", r.IP, "mac", r.MAC, "error", err)
		return
	}
	w.deps.Count(Reported)
	w.log.Info("another MAC answers for a bound address, the ERP is told", "ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber,
		"interface", r.ARP.Interface, "silent", r.ARP.Silent, "asked", r.ARP.Asked)
}

// watch fills the inbox.
func (w *Watcher) watch(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		err := w.kernel.Watch(ctx, func(n Neighbour) {
			failures = 0
			w.mu.Lock()
			ok := w.opts.Serves(n.Interface)
			if ok {
				w.inbox = append(w.inbox, n)
			}
			w.mu.Unlock()
			if ok {
				w.poke()
			}
		})
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("neighbours cannot be watched, trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(min(firstRetry<<min(failures, 20), maxRetry)):
		}
	}
}

// poke wakes Run; many calls may become one.
func (w *Watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
