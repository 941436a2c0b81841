package route

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Leases is the lease table.
type Leases interface {
	// Get returns what is recorded for an address, live or not.
	Get(addr netip.Addr) (lease.Record, bool)
	// All returns every record, in no order.
	All() iter.Seq[lease.Record]
}

// destination is what a lease means for routes.
type destination struct {
	addr    netip.Addr
	iface   string    // where the client is on the link; empty: nowhere here, such as behind a relay, which routes to it
	expires time.Time // zero: in quarantine
}

func destinationOf(rec *lease.Record) destination {
	d := destination{addr: rec.IP}
	if !rec.GIAddr.IsValid() {
		d.iface = rec.Interface
	}
	if rec.State != lease.StateQuarantined { // released or declined ones have their end, or are kept until it
		d.expires = rec.Expires
	}
	return d
}

// Kernel is the kernel's routing table. Its methods may be called by several
// goroutines, but for Apply; Watch runs beside them all.
type Kernel interface {
	Links(ctx context.Context) ([]Link, error)
	// Routes returns the host routes that carry our protocol number, of all tables.
	Routes(ctx context.Context) ([]Route, error)
	// Apply makes the changes in their order and gives what became of each, nil
	// or one error per change: adding what is there and removing what is not
	// there is none, and ErrNoLink tells of an interface that cannot have
	// routes now. The second error leaves the state unknown.
	Apply(ctx context.Context, changes []Change) ([]error, error)
	// Watch reports what others change until ctx ends. The first event, and each
	// one after a gap, is a Event with Lost.
	Watch(ctx context.Context, on func(Event)) error
}

// ErrNoLink says that the interface of a route is down or gone.
var ErrNoLink = errors.New("interface is down or gone")

// Event is one of: a link that changed, a route of ours that somebody else
// added or removed, an interface that lost an IPv4 address, a gap in the events.
type Event struct {
	Link  *Link
	Route *Route
	Op    provision.Op // of Route
	// Unnumbered is the index of an interface of which an address was removed. With the last one the kernel
	// drops all routes by it, and tells of none; whether it was the last is not told either.
	Unnumbered int
	Lost       bool
}

// Observer sees what a Keeper does. Each of its methods is called by one
// goroutine, must not block and must not call back.
type Observer interface {
	Routes(r Report)
	// RouteSettings tells the number of interfaces with each finding.
	RouteSettings(findings map[Finding]int)
}

// Report tells one round.
type Report struct {
	Installed, Waiting     int // routes in the kernel; leases whose interface cannot have them now
	Added, Removed, Failed int
	Extra, Missing         int             // what somebody else had changed
	Delays                 []time.Duration // from the change of a lease to its route, of routes added
}

// Options direct a Keeper. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	Serves func(name string) bool // whether leases of an interface get routes
	// SubnetsOf returns the subnets of the subscriber who has a lease, and whether anybody knows them yet. Who knows
	// that they are others calls Recheck. nil: nobody has one.
	SubnetsOf func(lease.Record) (list []provision.Subnet, known bool)

	// The routing table: 254 is main.
	Table uint32 `cfg:"table" default:"254" min:"1" max:"4294967295"`

	// Of equal destinations the lowest metric counts. A route of yours with the same
	// metric stands before ours.
	Metric uint32 `cfg:"metric" default:"0" min:"0" max:"4294967295"`

	// Route customers' subnets (ip_subnet_add in the ERP) through the address that their customer has leased, while it has it.
	// Off by default: a route to a prefix that somebody types into the ERP takes the traffic of whoever else has it.
	CustomerSubnets bool `cfg:"customer_subnets" default:"false"`

	// How often the kernel is compared with what is wanted, besides after every
	// event. 1s to 1h.
	VerifyInterval time.Duration `cfg:"verify_interval" default:"1m" min:"1s" max:"1h"` // zero: one minute

	// Compute and report the difference, change nothing. Also with `usher run --dry-run`.
	DryRun bool `cfg:"dry_run" default:"false"`

	// KeepUnknown is how long after the first look a route stays for which there is
	// no lease record at all: the records may be lost, the client is not. The
	// longest lease time is right.
	KeepUnknown time.Duration
	// Settings reads an interface's settings; nil: they are not checked.
	Settings func(l Link) (LinkSettings, error)
}

// Status is the state of a Keeper for people and programs.
type Status struct {
	DryRun         bool      `json:"dry_run"`
	Want           int       `json:"want"`      // live leases on interfaces that are served
	Installed      int       `json:"installed"` // host routes of ours in the kernel
	Subnets        int       `json:"subnets"`   // routes of ours to customers' subnets
	Waiting        int       `json:"waiting"`   // wanted, but their interface is down or gone
	Adopted        int       `json:"adopted"`   // found at the start
	Unknown        int       `json:"unknown"`   // kept although no lease record tells of them
	Added          uint64    `json:"added"`     // since the start, as those below
	Removed        uint64    `json:"removed"`
	Failed         uint64    `json:"failed"`
	DriftExtra     uint64    `json:"drift_extra"`
	DriftMissing   uint64    `json:"drift_missing"`
	LastVerifiedAt time.Time `json:"last_verified_at,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
	LastErrorAt    time.Time `json:"last_error_at,omitzero"`

	Findings []InterfaceFinding `json:"findings"` // sorted by interface
}

// InterfaceFinding is a setting of one interface that should be looked at.
type InterfaceFinding struct {
	Interface string  `json:"interface"`
	Finding   Finding `json:"finding"`
	Text      string  `json:"text"`
}

const (
	// admitLimit bounds how long an acknowledgement waits for the route of its lease. Dhcpd sends it without a commit
	// after twice as long.
	admitLimit = 50 * time.Millisecond

	firstRetry = 100 * time.Millisecond
	maxRetry   = 30 * time.Second
)

// Keeper keeps one host route in the kernel for every live lease on the
// interfaces that it serves. It changes single routes as leases come and go; a
// comparison of everything happens at the start, after a gap in the kernel's
// events and once in a while. What it does for a lease or for an event costs the same
// however many there are. On exit the routes stay. All methods are safe for
// concurrent use; Run and Follow run once.
type Keeper struct {
	kernel Kernel
	leases Leases
	obs    Observer
	log    *slog.Logger
	wake   chan struct{} // one slot, coalescing

	mu     sync.Mutex // guards the inbox, the status and the picture
	opts   Options
	dirty  map[netip.Addr]time.Time // leases to look at; since when
	events []Event
	relist bool // the kernel is to be read back
	reread bool // the leases too, all of them: dirty says nothing more
	status Status
	admit  []chan<- struct{} // of Admit, for the end of the round that takes dirty
	ended  bool              // Run is over
	checks checks

	// The picture. The goroutine of Run alone changes it, and holds mu for that; it reads it without.
	links   map[int]Link
	index   map[string]int // of links, by name
	have    installed
	want    map[netip.Addr]string              // the interface of a live lease, as it was looked at last
	on      map[string]map[netip.Addr]struct{} // want by interface
	waiting map[netip.Addr]struct{}            // part of want without a usable link
	unknown map[netip.Addr]struct{}            // part of have without a record
	armed   map[netip.Addr]time.Time           // the earliest of a lease in ends
	known   bool                               // have and want are true

	// Owned by the goroutine of Run.
	until     time.Time // unknown ones stay so long
	ends      leaseEnds
	verifyDue time.Time
	retryAt   time.Time // zero: nothing failed
	failures  int
	failing   map[netip.Addr]struct{} // to be tried again at retryAt
}

// New makes a Keeper. obs may be nil.
func New(opts Options, kernel Kernel, leases Leases, obs Observer, log *slog.Logger) *Keeper {
	if obs == nil {
		obs = noObserver{}
	}
	return &Keeper{
		kernel: kernel, leases: leases, obs: obs, log: log, opts: opts.filled(), wake: make(chan struct{}, 1),
		dirty: map[netip.Addr]time.Time{}, failing: map[netip.Addr]struct{}{}, reread: true,
		have: newInstalled(nil), unknown: map[netip.Addr]struct{}{},
		checks: checks{wake: make(chan struct{}, 1), names: map[string]struct{}{}},
		status: Status{Findings: []InterfaceFinding{}},
	}
}

type noObserver struct{}

func (noObserver) Routes(Report)                 {}
func (noObserver) RouteSettings(map[Finding]int) {}

func (o Options) filled() Options {
	if o.VerifyInterval <= 0 {
		o.VerifyInterval = time.Minute
	}
	return o
}

// Follow has the Keeper look at each lease that changes, until ctx or the feed ends. Every kind of
// change is in the feed, also those that no packet tells of: a lease that an operator ends, or
// that ends with the NAK to its client.
func (k *Keeper) Follow(ctx context.Context, feed Feed) error {
	var buf [256]netip.Addr
	for {
		n, err := feed.Next(ctx, buf[:])
		if err != nil {
			return nil // of the context, or there are no more
		}
		now := time.Now()
		for i := range n {
			k.Touch(buf[i], now)
		}
	}
}

// Feed returns the addresses whose leases change, as lease.Touched does.
type Feed interface {
	Next(ctx context.Context, buf []netip.Addr) (int, error)
}

// Touch says that the lease of addr may have changed, at the time at. It does not block, and
// does nothing if the kernel has what is to be there.
func (k *Keeper) Touch(addr netip.Addr, at time.Time) {
	k.mu.Lock()
	marked := k.markLocked(addr, at)
	k.mu.Unlock()
	if marked {
		notify(k.wake)
	}
}

// Admit has the kernel have the routes of leases, which the table has already, while
// they are written to disk. The acknowledgements leave after the call of wait, so that the first packet
// to a client finds its way and nobody answers the client's ARP for it; at most admitLimit later if the kernel is slow. It is called
// for any leases. Where no route of theirs changes nothing is waited for, and nothing allocated.
func (k *Keeper) Admit(addrs []netip.Addr, at time.Time) (wait func()) {
	k.mu.Lock()
	if k.ended {
		k.mu.Unlock()
		return admittedAlready
	}
	waits := k.reread && len(addrs) > 0 // the round that reads all of them
	for _, a := range addrs {
		waits = k.markLocked(a, at) || waits
	}
	if !waits {
		k.mu.Unlock()
		return admittedAlready
	}
	if k.opts.DryRun {
		k.mu.Unlock()
		notify(k.wake)
		return admittedAlready
	}
	done := make(chan struct{})
	k.admit = append(k.admit, done)
	k.mu.Unlock()
	notify(k.wake)
	limit := time.NewTimer(admitLimit)
	return func() {
		select {
		case <-done:
			limit.Stop()
		case <-limit.C:
		}
	}
}

// admittedAlready waits for nothing.
func admittedAlready() {}

// markLocked has the next round look at an address, if there is something to be done about it.
func (k *Keeper) markLocked(a netip.Addr, at time.Time) bool {
	if k.reread || k.settledLocked(a, at) {
		return false
	}
	if _, ok := k.dirty[a]; !ok {
		k.dirty[a] = at
	}
	return true
}

// settledLocked reports whether the kernel has what the lease of an address wants, and a round would
// change nothing. What a round has decided on and not done yet is in want and not in have, or in have and not in want.
func (k *Keeper) settledLocked(a netip.Addr, now time.Time) bool {
	if !k.known {
		return false
	}
	rec, recorded := k.leases.Get(a)
	d := destinationOf(&rec)
	iface, wanted := k.want[a]
	have := k.have.of[a]
	if !recorded || !k.opts.wants(d, now) {
		_, kept := k.unknown[a]
		return !wanted && (len(have) == 0 || !recorded && kept)
	}
	if at, armed := k.armed[a]; !wanted || iface != d.iface || !armed || d.expires.Before(at) {
		return false
	}
	i, there := k.index[iface]
	if !there || !k.links[i].Up {
		_, waits := k.waiting[a]
		return waits && len(have) == 0
	}
	return k.opts.hasAll(have, &rec, i)
}

func (o *Options) route(a netip.Addr, ifindex int) Route {
	return Route{Addr: a, Ifindex: ifindex, Table: o.Table, Metric: o.Metric}
}

// admitted tells those who wait in Admit that the round which took their leases is over.
func admitted(list []chan<- struct{}) {
	for _, done := range list {
		close(done)
	}
}

// end lets nobody wait for a round that does not come.
func (k *Keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	admitted(k.admit)
	k.admit = nil
}

// Reconfigure takes new options.
func (k *Keeper) Reconfigure(opts Options) {
	k.mu.Lock()
	k.opts, k.reread = opts.filled(), true
	k.mu.Unlock()
	notify(k.wake)
}

// Status tells everything for "usher status" and the console.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.status
	st.DryRun = k.opts.DryRun
	return st
}

// Run keeps the routes until ctx ends; it gives nil then, and leaves the kernel as it is.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer k.end()
	wg.Go(func() { k.watch(ctx) })
	wg.Go(func() { (&checker{k: k, counts: map[Finding]int{}}).run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-timer.C:
		}
		now := time.Now()
		k.round(ctx, now)
		timer.Reset(max(0, time.Until(k.next())))
	}
}

// watch hands on what others change. Without events the comparisons of
// everything still find it.
func (k *Keeper) watch(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		err := k.kernel.Watch(ctx, func(ev Event) {
			failures = 0
			k.mu.Lock()
			if ev.Lost {
				k.relist = true
			} else {
				k.events = append(k.events, ev)
			}
			k.mu.Unlock()
			notify(k.wake)
		})
		if ctx.Err() != nil {
			return
		}
		k.log.Warn("links and routes cannot be watched, trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(min(firstRetry<<min(failures, 20), maxRetry)):
		}
	}
}

// next returns the time of the next round that nothing else asks for.
func (k *Keeper) next() time.Time {
	at := k.verifyDue
	if len(k.ends) > 0 && k.ends[0].at.Before(at) {
		at = k.ends[0].at
	}
	if len(k.unknown) > 0 && k.until.Before(at) {
		at = k.until
	}
	if !k.retryAt.IsZero() && k.retryAt.Before(at) {
		at = k.retryAt
	}
	return at
}

// round takes all that waits and brings the kernel in line with it.
func (k *Keeper) round(ctx context.Context, now time.Time) {
	retried := !k.retryAt.IsZero() && !now.Before(k.retryAt)
	k.mu.Lock()
	dirty, events, opts, admit := k.dirty, k.events, k.opts, k.admit
	k.dirty, k.events, k.admit = map[netip.Addr]time.Time{}, nil, nil
	defer func() { admitted(admit) }()
	if !k.known && !k.retryAt.IsZero() && !retried {
		k.mu.Unlock()
		return // what failed waits for its time; everything is read anew then
	}
	all := k.reread
	relist := all || k.relist || !now.Before(k.verifyDue)
	k.relist, k.reread = false, false
	k.mu.Unlock()

	var rep Report
	look := make(map[netip.Addr]struct{}, len(dirty))
	err := error(nil)
	if relist && !all && len(admit) > 0 { // who waits does not wait for the comparison
		for a := range dirty {
			look[a] = struct{}{}
		}
		err = k.settle(ctx, now, opts, &rep, look, dirty)
		admitted(admit)
		admit = nil
	}
	if relist && err == nil {
		err = k.compare(ctx, now, opts, all, &rep, look)
	}
	if err == nil {
		if retried {
			k.retryAt = time.Time{}
			maps.Copy(look, k.failing)
			clear(k.failing)
		}
		k.takeEvents(events, &rep, look)
		for a := range dirty {
			look[a] = struct{}{}
		}
		k.endOf(now, look)
		err = k.settle(ctx, now, opts, &rep, look, dirty)
	}
	if err == nil && (relist || len(events) > 0) {
		k.mu.Lock()
		k.checks.all, k.checks.now = true, k.checks.now || all
		k.mu.Unlock()
		notify(k.checks.wake)
	}
	k.finish(now, err, &rep)
}

// finish plans the next try and tells what happened.
func (k *Keeper) finish(now time.Time, err error, rep *Report) {
	if err != nil || len(k.failing) > 0 {
		if k.retryAt.IsZero() || !now.Before(k.retryAt) {
			k.failures++
			k.retryAt = now.Add(min(firstRetry<<min(k.failures-1, 20), maxRetry))
		}
	} else if k.retryAt.IsZero() {
		k.failures = 0
	}
	if err != nil {
		k.mu.Lock()
		k.known, k.reread = false, true
		k.mu.Unlock()
		k.verifyDue = k.retryAt
	}
	rep.Waiting, rep.Installed = len(k.waiting), k.have.n-k.have.nets
	k.obs.Routes(*rep)
	if rep.Extra+rep.Missing > 0 {
		k.log.Warn("somebody else changed our routes, repairing", "extra", rep.Extra, "missing", rep.Missing)
	}
	k.mu.Lock()
	s := &k.status
	s.Want, s.Installed, s.Subnets, s.Waiting, s.Unknown = len(k.want), rep.Installed, k.have.nets, rep.Waiting, len(k.unknown)
	s.Added += uint64(rep.Added)
	s.Removed += uint64(rep.Removed)
	s.Failed += uint64(rep.Failed)
	s.DriftExtra += uint64(rep.Extra)
	s.DriftMissing += uint64(rep.Missing)
	first := err != nil && s.LastError == ""
	if err != nil {
		s.LastError, s.LastErrorAt = err.Error(), now
	} else if len(k.failing) == 0 {
		s.LastError = ""
	}
	k.mu.Unlock()
	if first {
		k.log.Warn("routes cannot be kept, trying again", "error", err)
	}
}

// compare reads the kernel back and, with all, the leases; what may have to
// change then is to be looked at.
func (k *Keeper) compare(ctx context.Context, now time.Time, opts Options, all bool, rep *Report, look map[netip.Addr]struct{}) error {
	links, err := k.kernel.Links(ctx)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	routes, err := k.kernel.Routes(ctx)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	at, index := make(map[int]Link, len(links)), make(map[string]int, len(links))
	for _, l := range links {
		at[l.Index], index[l.Name] = l, l.Index
	}
	for _, c := range Plan(k.have.all(), routes) {
		look[c.Route.of()] = struct{}{}
		switch l, ok := at[c.Route.Ifindex]; {
		case !k.known || opts.DryRun:
		case c.Op == provision.OpRemove:
			rep.Extra++
		case ok && l.Up: // a link that was down took its routes along
			rep.Missing++
		}
	}
	have := newInstalled(routes)
	k.mu.Lock()
	k.links, k.index, k.have = at, index, have
	k.mu.Unlock()
	if all {
		k.readLeases(now, opts, look)
	}
	maps.Copy(look, k.waiting)
	for name, members := range k.on {
		if i, ok := k.index[name]; !ok || !k.links[i].Up || all {
			maps.Copy(look, members)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.until.IsZero() {
		k.until = now.Add(opts.KeepUnknown)
		k.log.Info("adopting our routes in the kernel", "routes", len(routes))
		k.status.Adopted = len(routes)
	}
	k.known, k.verifyDue = true, now.Add(opts.VerifyInterval)
	k.status.LastVerifiedAt = now
	return nil
}

// readLeases begins anew with the leases and asks to look at all.
func (k *Keeper) readLeases(now time.Time, opts Options, look map[netip.Addr]struct{}) {
	k.mu.Lock()
	k.want, k.on = map[netip.Addr]string{}, map[string]map[netip.Addr]struct{}{}
	k.waiting, k.unknown = map[netip.Addr]struct{}{}, map[netip.Addr]struct{}{}
	k.armed = map[netip.Addr]time.Time{}
	k.mu.Unlock()
	k.ends = k.ends[:0]
	for a := range k.have.of {
		look[a] = struct{}{}
	}
	for rec := range k.leases.All() {
		if opts.wants(destinationOf(&rec), now) {
			look[rec.IP] = struct{}{}
		}
	}
}

// wants tells whether a lease is to have a route at now.
func (o *Options) wants(d destination, now time.Time) bool {
	return d.iface != "" && now.Before(d.expires) && d.addr.Is4() && o.Serves(d.iface)
}

// takeEvents brings what others did into the picture.
func (k *Keeper) takeEvents(events []Event, rep *Report, look map[netip.Addr]struct{}) {
	if len(events) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	down := map[int]bool{} // links that were down in between: their routes are gone
	unnumbered := map[int]bool{}
	for _, ev := range events {
		switch {
		case ev.Unnumbered != 0:
			unnumbered[ev.Unnumbered] = true
		case ev.Link != nil:
			k.takeLinkLocked(*ev.Link, down, look)
		case ev.Route == nil:
		case ev.Op == provision.OpAdd && k.have.add(*ev.Route):
			look[ev.Route.of()] = struct{}{}
			rep.Extra++
		case ev.Op == provision.OpRemove && k.have.drop(*ev.Route):
			look[ev.Route.of()] = struct{}{}
			rep.Missing++
		}
	}
	for i := range down {
		maps.Copy(look, k.have.dropVia(i))
	}
	for i := range unnumbered {
		if len(k.have.via[i]) > 0 { // no address of any other interface is worth reading everything
			k.relist = true
			notify(k.wake)
		}
	}
}

func (k *Keeper) takeLinkLocked(l Link, down map[int]bool, look map[netip.Addr]struct{}) {
	old, had := k.links[l.Index]
	if had && !l.Gone && old == l {
		return // its address, its carrier, its statistics
	}
	if l.Gone || !l.Up {
		down[l.Index] = true
	}
	if had && k.index[old.Name] == l.Index {
		delete(k.index, old.Name)
	}
	if l.Gone {
		delete(k.links, l.Index)
	} else {
		k.links[l.Index], k.index[l.Name] = l, l.Index
	}
	for _, name := range []string{old.Name, l.Name} {
		k.checks.names[name] = struct{}{}
		for a := range k.on[name] {
			look[a] = struct{}{}
		}
	}
}

// endOf adds the leases that have come to their end, as far as known.
func (k *Keeper) endOf(now time.Time, look map[netip.Addr]struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.ends) > 0 && !now.Before(k.ends[0].at) {
		e := heap.Pop(&k.ends).(leaseEnd)
		look[e.addr] = struct{}{}
		if k.armed[e.addr].Equal(e.at) {
			delete(k.armed, e.addr)
		}
	}
	if len(k.unknown) > 0 && !now.Before(k.until) {
		maps.Copy(look, k.unknown)
	}
}

// settle looks at single leases and makes the kernel follow.
func (k *Keeper) settle(ctx context.Context, now time.Time, opts Options, rep *Report, look map[netip.Addr]struct{}, since map[netip.Addr]time.Time) error {
	var want, have []Route
	k.mu.Lock()
	n := 0
	for a := range look {
		if n++; n%lookStep == 0 { // nobody waits for the mutex until thousands are looked at
			k.mu.Unlock()
			k.mu.Lock()
		}
		var keep bool
		if want, keep = k.wantedLocked(a, now, opts, want); keep {
			continue
		}
		have = append(have, k.have.of[a]...)
	}
	k.mu.Unlock()
	changes := Plan(want, have)
	if len(changes) == 0 {
		return nil
	}
	results := make([]error, len(changes))
	if opts.DryRun {
		k.log.Info("routes not written, dry run", "changes", len(changes), "first", fmt.Sprintf("%s %s", changes[0].Op, changes[0].Route))
	} else {
		var err error
		if results, err = k.kernel.Apply(ctx, changes); err != nil {
			return fmt.Errorf("apply %d changes of routes: %w", len(changes), err)
		}
	}
	done := time.Now()
	var failed error
	k.mu.Lock()
	for i, c := range changes {
		err := error(nil)
		if results != nil {
			err = results[i]
		}
		switch {
		case errors.Is(err, ErrNoLink): // its event comes, or has come
			k.waiting[c.Route.of()] = struct{}{}
		case err != nil:
			rep.Failed++
			k.failing[c.Route.of()] = struct{}{}
			failed = fmt.Errorf("%s the route of %s: %w", c.Op, c.Route, err)
		case c.Op == provision.OpAdd:
			rep.Added++
			k.have.add(c.Route)
			if at := since[c.Route.of()]; !at.IsZero() {
				rep.Delays = append(rep.Delays, done.Sub(at))
			}
		default:
			rep.Removed++
			k.have.drop(c.Route)
		}
	}
	k.mu.Unlock()
	if failed != nil {
		k.mu.Lock()
		first := k.status.LastError == ""
		k.status.LastError, k.status.LastErrorAt = failed.Error(), done
		k.mu.Unlock()
		if first {
			k.log.Warn("some routes cannot be changed, trying again", "failed", rep.Failed, "error", failed)
		}
	}
	k.log.Debug("routes changed", "added", rep.Added, "removed", rep.Removed, "failed", rep.Failed)
	return nil
}

// lookStep is how many leases are looked at without letting go of the mutex, some 0.1 ms.
const lookStep = 256

// wantedLocked looks a lease up, remembers it and appends the routes that it is to have, if
// any; keep says to leave what is there as it is.
func (k *Keeper) wantedLocked(a netip.Addr, now time.Time, opts Options, want []Route) (_ []Route, keep bool) {
	rec, recorded := k.leases.Get(a)
	d := destinationOf(&rec)
	if old, had := k.want[a]; had && old != d.iface {
		k.leaveLocked(old, a)
	}
	delete(k.unknown, a)
	delete(k.waiting, a)
	if !recorded {
		delete(k.want, a)
		if len(k.have.of[a]) > 0 && now.Before(k.until) {
			k.unknown[a] = struct{}{}
			return want, true
		}
		return want, false
	}
	if !opts.wants(d, now) {
		delete(k.want, a)
		k.leaveLocked(d.iface, a)
		return want, false
	}
	if at, ok := k.armed[a]; !ok || d.expires.Before(at) {
		k.armed[a] = d.expires
		heap.Push(&k.ends, leaseEnd{d.expires, a})
	}
	k.want[a] = d.iface
	if k.on[d.iface] == nil {
		k.on[d.iface] = map[netip.Addr]struct{}{}
	}
	k.on[d.iface][a] = struct{}{}
	i, there := k.index[d.iface]
	if !there || !k.links[i].Up {
		k.waiting[a] = struct{}{}
		return want, false
	}
	return opts.appendRoutes(want, &rec, i, k.have.of[a]), false
}

// leaveLocked takes an address off an interface. Interfaces come and go, and so do their names.
func (k *Keeper) leaveLocked(iface string, a netip.Addr) {
	if on := k.on[iface]; on != nil {
		if delete(on, a); len(on) == 0 {
			delete(k.on, iface)
		}
	}
}

// leaseEnds is a heap of the times when leases end unless they are renewed: one
// of each live lease at least. A renewal does not move it; that is seen when it is due.
type leaseEnds []leaseEnd

type leaseEnd struct {
	at   time.Time
	addr netip.Addr
}

func (h leaseEnds) Len() int           { return len(h) }
func (h leaseEnds) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h leaseEnds) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *leaseEnds) Push(x any) { *h = append(*h, x.(leaseEnd)) }

// Pop implements heap.Interface.
func (h *leaseEnds) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// notify fills the one slot of a coalescing channel.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
