package provision

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// NeighbourState is what the kernel knows of a neighbour. Its zero value is invalid.
type NeighbourState uint8

// The states.
const (
	NeighbourConfirmed NeighbourState = iota + 1 // it answered the router
	NeighbourClaimed                             // somebody says so, or said so a while ago
	NeighbourGone                                // it answers no more
)

// Neighbour is one entry of the kernel's ARP table.
type Neighbour struct {
	IP        netip.Addr
	MAC       MAC // may be zero where it is gone
	Interface string
	State     NeighbourState
}

// NeighbourKernel is the kernel's ARP table.
type NeighbourKernel interface {
	// Watch reports every entry that there is, and then every change, until ctx
	// ends. After a gap it begins anew.
	Watch(ctx context.Context, on func(Neighbour)) error
}

// NeighbourOutcome is what became of one confirmed neighbour. A closed set: it
// is a metric label.
type NeighbourOutcome string

// The outcomes.
const (
	NeighbourKnown        NeighbourOutcome = "known"        // the ERP has this MAC
	NeighbourUnbound      NeighbourOutcome = "unbound"      // the ERP binds the address to nobody
	NeighbourLeased       NeighbourOutcome = "leased"       // a DHCP lease is live, which is the better witness
	NeighbourContradicted NeighbourOutcome = "contradicted" // another MAC came within the time
	NeighbourShared       NeighbourOutcome = "shared"       // the MAC answers for many addresses: a router's or a proxy's
	NeighbourRepeated     NeighbourOutcome = "repeated"     // reported already, the ERP has not taken it over yet
	NeighbourReported     NeighbourOutcome = "reported"     // handed to the outbox
	NeighbourFailed       NeighbourOutcome = "failed"       // the outbox could not take it
)

// NeighbourOutcomes lists every outcome, for metrics and documentation.
func NeighbourOutcomes() []NeighbourOutcome {
	return []NeighbourOutcome{NeighbourKnown, NeighbourUnbound, NeighbourLeased, NeighbourContradicted,
		NeighbourShared, NeighbourRepeated, NeighbourReported, NeighbourFailed}
}

// NeighbourOptions direct a NeighbourWatcher. Fields with a tag are keys of the configuration
// (package config).
type NeighbourOptions struct {
	Serves func(name string) bool // whether neighbours on an interface count

	// Another MAC than the ERP's is reported when the kernel has confirmed it, and no
	// other, for so long. 0s to 1h.
	MinTime time.Duration `cfg:"min_time" default:"10s" min:"0s" max:"1h"`
}

// NeighbourDeps is what a NeighbourWatcher asks and tells.
type NeighbourDeps struct {
	Snapshot func() *Snapshot
	Leased   func(ip netip.Addr, now time.Time) bool // a DHCP lease is live
	Report   func(MACReport) error
	Count    func(NeighbourOutcome)
}

const (
	// maxAddressesOfMAC is for subscribers with a few addresses. A switch that
	// answers for everybody behind it (proxy ARP) has many.
	maxAddressesOfMAC = 4
	// reportAgain is when a report that the ERP does not show is made once more.
	reportAgain = time.Hour
	// maxNeighbours bounds what is remembered; gc_thresh3 of a large router is below.
	maxNeighbours = 1 << 18
)

// neighbourhood decides which neighbours are to be reported: the pure part. One
// goroutine owns it.
type neighbourhood struct {
	snapshot func() *Snapshot
	leased   func(netip.Addr, time.Time) bool

	seen     map[netip.Addr]MAC // confirmed last
	holders  map[MAC]int        // number of addresses in seen
	pending  map[netip.Addr]candidate
	reported map[netip.Addr]candidate
}

// candidate is a MAC that is not the ERP's, and since when it is the only one.
type candidate struct {
	mac   MAC
	since time.Time
}

func newNeighbourhood(d NeighbourDeps) *neighbourhood {
	return &neighbourhood{snapshot: d.Snapshot, leased: d.Leased, seen: map[netip.Addr]MAC{}, holders: map[MAC]int{},
		pending: map[netip.Addr]candidate{}, reported: map[netip.Addr]candidate{}}
}

// take notes one entry of the kernel. The outcome is empty while nothing is
// decided: due decides on what is left of pending then.
func (h *neighbourhood) take(n Neighbour, now time.Time) NeighbourOutcome {
	if n.MAC.IsZero() || n.MAC[0]&1 != 0 { // a group address answers for nobody
		n.State = NeighbourGone
	}
	p, waits := h.pending[n.IP]
	switch n.State {
	case NeighbourGone:
		h.note(n.IP, MAC{})
		delete(h.pending, n.IP)
		return ""
	case NeighbourClaimed: // proves nothing, but may disprove
		if waits && p.mac != n.MAC {
			delete(h.pending, n.IP)
			return NeighbourContradicted
		}
		return ""
	}
	h.note(n.IP, n.MAC)
	if waits && p.mac == n.MAC {
		return ""
	}
	delete(h.pending, n.IP)
	if o := h.judge(n.IP, n.MAC, now); o != NeighbourReported {
		return o
	}
	h.pending[n.IP] = candidate{n.MAC, now}
	if waits {
		return NeighbourContradicted
	}
	return ""
}

// note remembers who was confirmed last for an address; a zero MAC: nobody.
func (h *neighbourhood) note(ip netip.Addr, mac MAC) {
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

// judge says what a confirmed neighbour is worth: NeighbourReported for one that
// the ERP should be told.
func (h *neighbourhood) judge(ip netip.Addr, mac MAC, now time.Time) NeighbourOutcome {
	s := h.snapshot()
	b := s.ByIP(ip)
	switch r, ok := h.reported[ip]; {
	case b == nil:
		return NeighbourUnbound
	case b.MAC == mac:
		delete(h.reported, ip)
		return NeighbourKnown
	case h.leased(ip, now):
		return NeighbourLeased
	case h.holders[mac] > maxAddressesOfMAC:
		return NeighbourShared
	case ok && r.mac == mac && now.Sub(r.since) < reportAgain:
		return NeighbourRepeated
	}
	return NeighbourReported
}

// due gives the reports whose time has come and, in count, what became of the
// others; next is when to ask again, zero for never.
func (h *neighbourhood) due(now time.Time, minTime time.Duration, count func(NeighbourOutcome)) (reports []MACReport, next time.Time) {
	for ip, p := range h.pending {
		at := p.since.Add(minTime)
		if now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		delete(h.pending, ip)
		if o := h.judge(ip, p.mac, now); o != NeighbourReported {
			count(o)
			continue
		}
		h.reported[ip] = candidate{p.mac, now}
		reports = append(reports, MACReport{IP: ip, MAC: p.mac, Subscriber: h.snapshot().ByIP(ip).Subscriber, At: now})
	}
	return reports, next
}

// NeighbourWatcher reports the MACs of subscribers with static settings, as the
// kernel's ARP table confirms them. Run runs once.
type NeighbourWatcher struct {
	kernel NeighbourKernel
	deps   NeighbourDeps
	log    *slog.Logger
	wake   chan struct{} // one slot, coalescing

	mu    sync.Mutex // guards the rest
	opts  NeighbourOptions
	inbox []Neighbour
}

// NewNeighbourWatcher makes a NeighbourWatcher; all of deps are needed.
func NewNeighbourWatcher(opts NeighbourOptions, kernel NeighbourKernel, deps NeighbourDeps, log *slog.Logger) *NeighbourWatcher {
	return &NeighbourWatcher{kernel: kernel, deps: deps, log: log, opts: opts, wake: make(chan struct{}, 1)}
}

// Reconfigure takes new options.
func (w *NeighbourWatcher) Reconfigure(opts NeighbourOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opts = opts
}

// Run watches until ctx ends; it gives nil then.
func (w *NeighbourWatcher) Run(ctx context.Context) error {
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

func (w *NeighbourWatcher) report(h *neighbourhood, r MACReport) {
	if err := w.deps.Report(r); err != nil {
		delete(h.reported, r.IP)
		w.deps.Count(NeighbourFailed)
		w.log.Warn("seen MAC could not be kept for the ERP", "ip", r.IP, "mac", r.MAC, "error", err)
		return
	}
	w.deps.Count(NeighbourReported)
	w.log.Info("another MAC answers for a bound address, the ERP is told", "ip", r.IP, "mac", r.MAC, "subscriber", r.Subscriber)
}

// watch fills the inbox.
func (w *NeighbourWatcher) watch(ctx context.Context) {
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
				notify(w.wake)
			}
		})
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("neighbours cannot be watched, trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(min(firstRouteRetry<<min(failures, 20), maxRouteRetry)):
		}
	}
}
