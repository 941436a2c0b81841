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

// Kernel is the kernel's ARP table.
type Kernel interface {
	// Watch reports every entry that there is, and then every change, until ctx
	// ends. After a gap it begins anew.
	Watch(ctx context.Context, on func(Neighbour)) error
}

// Outcome is what became of one confirmed neighbour. A closed set: it
// is a metric label.
type Outcome string

// The outcomes.
const (
	Known        Outcome = "known"        // the ERP has this MAC
	Unbound      Outcome = "unbound"      // the ERP binds the address to nobody
	Leased       Outcome = "leased"       // a DHCP lease is live, which is the better witness
	Contradicted Outcome = "contradicted" // another MAC came within the time
	Shared       Outcome = "shared"       // the MAC answers for many addresses: a router's or a proxy's
	Repeated     Outcome = "repeated"     // reported already, the ERP has not taken it over yet
	Reported     Outcome = "reported"     // handed to the outbox
	Failed       Outcome = "failed"       // the outbox could not take it
)

// Outcomes lists every outcome, for metrics and documentation.
func Outcomes() []Outcome {
	return []Outcome{Known, Unbound, Leased, Contradicted,
		Shared, Repeated, Reported, Failed}
}

// Options direct a Watcher. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	Serves func(name string) bool // whether neighbours on an interface count

	// Another MAC than the ERP's is reported when the kernel has confirmed it, and no
	// other, for so long. 0s to 1h.
	MinTime time.Duration `cfg:"min_time" default:"10s" min:"0s" max:"1h"`
}

// Leases is the lease table.
type Leases interface {
	Get(ip netip.Addr) (lease.Record, bool)
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
	// reportAgain is when a report that the ERP does not show is made once more.
	reportAgain = time.Hour
	// firstRetry and maxRetry bound the wait after the watch has failed; it doubles with each.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 30 * time.Second
	// maxNeighbours bounds what is remembered; gc_thresh3 of a large router is below.
	maxNeighbours = 1 << 18
)

// neighbourhood decides which neighbours are to be reported: the pure part. One
// goroutine owns it.
type neighbourhood struct {
	snapshot func() *provision.Snapshot
	leases   Leases

	seen     map[netip.Addr]provision.MAC // confirmed last
	holders  map[provision.MAC]int        // number of addresses in seen
	pending  map[netip.Addr]candidate
	reported map[netip.Addr]candidate
}

// candidate is a MAC that is not the ERP's, and since when it is the only one.
type candidate struct {
	mac   provision.MAC
	since time.Time
}

func newNeighbourhood(d Deps) *neighbourhood {
	return &neighbourhood{snapshot: d.Snapshot, leases: d.Leases, seen: map[netip.Addr]provision.MAC{}, holders: map[provision.MAC]int{},
		pending: map[netip.Addr]candidate{}, reported: map[netip.Addr]candidate{}}
}

// take notes one entry of the kernel. The outcome is empty while nothing is
// decided: due decides on what is left of pending then.
func (h *neighbourhood) take(n Neighbour, now time.Time) Outcome {
	if n.MAC.IsZero() || n.MAC[0]&1 != 0 { // a group address answers for nobody
		n.State = Gone
	}
	p, waits := h.pending[n.IP]
	switch n.State {
	case Gone:
		h.note(n.IP, provision.MAC{})
		delete(h.pending, n.IP)
		return ""
	case Claimed: // proves nothing, but may disprove
		if waits && p.mac != n.MAC {
			delete(h.pending, n.IP)
			return Contradicted
		}
		return ""
	}
	h.note(n.IP, n.MAC)
	if waits && p.mac == n.MAC {
		return ""
	}
	delete(h.pending, n.IP)
	if o := h.judge(n.IP, n.MAC, now); o != Reported {
		return o
	}
	h.pending[n.IP] = candidate{n.MAC, now}
	if waits {
		return Contradicted
	}
	return ""
}

// note remembers who was confirmed last for an address; a zero MAC: nobody.
func (h *neighbourhood) note(ip netip.Addr, mac provision.MAC) {
	old, had := h.seen[ip]
	if had && old == mac || !had && len(h.seen) >= maxNeighbours {
		return
	}
	if had {
		if h.holders[old]--; h.holders[old] == 0 {
			delete(h.holders, old)
		}
		delete(h.seen, ip)
	}
	if !mac.IsZero() {
		h.seen[ip] = mac
		h.holders[mac]++
	}
}

// judge says what a confirmed neighbour is worth: Reported for one that
// the ERP should be told.
func (h *neighbourhood) judge(ip netip.Addr, mac provision.MAC, now time.Time) Outcome {
	s := h.snapshot()
	b := s.ByIP(ip)
	switch r, ok := h.reported[ip]; {
	case b == nil:
		return Unbound
	case b.MAC == mac:
		delete(h.reported, ip)
		return Known
	case h.leased(ip, now):
		return Leased
	case h.holders[mac] > maxAddressesOfMAC:
		return Shared
	case ok && r.mac == mac && now.Sub(r.since) < reportAgain:
		return Repeated
	}
	return Reported
}

// leased reports whether a DHCP lease of an address is live.
func (h *neighbourhood) leased(ip netip.Addr, now time.Time) bool {
	rec, ok := h.leases.Get(ip)
	return ok && rec.Live(now)
}

// due gives the reports whose time has come and, in count, what became of the
// others; next is when to ask again, zero for never.
func (h *neighbourhood) due(now time.Time, minTime time.Duration, count func(Outcome)) (reports []provision.MACReport, next time.Time) {
	for ip, p := range h.pending {
		at := p.since.Add(minTime)
		if now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		delete(h.pending, ip)
		if o := h.judge(ip, p.mac, now); o != Reported {
			count(o)
			continue
		}
		h.reported[ip] = candidate{p.mac, now}
		reports = append(reports, provision.MACReport{IP: ip, MAC: p.mac, Subscriber: h.snapshot().ByIP(ip).Subscriber, At: now})
	}
	return reports, next
}

// Watcher reports the MACs of subscribers with static settings, as the
// kernel's ARP table confirms them. Run runs once.
type Watcher struct {
	kernel Kernel
	deps   Deps
	log    *slog.Logger
	wake   chan struct{} // one slot, coalescing

	mu    sync.Mutex // guards the rest
	opts  Options
	inbox []Neighbour
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
		inbox, opts := w.inbox, w.opts
		w.inbox = nil
		w.mu.Unlock()
		for _, n := range inbox {
			if o := h.take(n, now); o != "" {
				w.deps.Count(o)
			}
		}
		reports, next := h.due(now, opts.MinTime, w.deps.Count)
		for _, r := range reports {
			w.report(h, r)
		}
		timer.Reset(time.Hour)
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
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
	w.log.Info("another MAC answers for a bound address, the ERP is told", "ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber)
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
