package dhcpd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/huge"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

const (
	// offerLeast is how long an offer stands in any case: a client that means to take it
	// asks within this time. When a pool has nothing else, older offers go to others.
	offerLeast = 2 * time.Second
	// leaseSlack is how long the address of a lease that ran out waits for a
	// client whose clock is behind or who counts from the ACK.
	leaseSlack = 10 * time.Second
)

// pools are those of one generation, in the order of the configuration: it does not
// change, the allocators do. It answers what decisions ask (v4.PoolView), and does what they plan.
type pools struct {
	all    []servedPool
	leases *lease.Table // set before they are published
}

// servedPool is a pool as it is configured, and its state.
type servedPool struct {
	v4.Pool
	alloc *allocator
}

// newPools makes the pools of a configuration, none of them used yet.
func newPools(cfg *v4.Config) (*pools, error) {
	p := &pools{}
	var errs []error
	for i, configured := range cfg.Pools() {
		prefix, gateway := cfg.PoolNetwork(i)
		a, err := newAllocator(configured, prefix, gateway, cfg.Quarantine(0))
		if err != nil {
			errs = append(errs, fmt.Errorf("pool %q: %w", configured.Name, err))
		}
		p.all = append(p.all, servedPool{configured, a})
	}
	return p, errors.Join(errs...)
}

// Owned implements v4.PoolView.
func (p *pools) Owned(i int, who provision.Owner) (netip.Addr, bool) {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.Of(who)
}

// Pick implements v4.PoolView.
func (p *pools) Pick(i int, who provision.Owner, want netip.Addr, now time.Time) (netip.Addr, pool.Fit) {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	if own, ok := a.p.Of(who); ok {
		a.compareLocked(own, p.leases, now)
	}
	a.compareLocked(want, p.leases, now)
	for range maxCompared {
		at, fit := a.p.Pick(who, want, now)
		if fit == 0 {
			at, fit = a.p.PickOffered(now, now.Add(v4.OfferHold-offerLeast))
		}
		if fit == 0 || !a.compareLocked(at, p.leases, now) {
			return at, fit
		}
	}
	return netip.Addr{}, 0
}

// maxCompared bounds how many addresses one choice finds to be bound by a snapshot that is not excluded
// yet. Each of them is excluded with that, so that the next choice begins behind them.
const maxCompared = 1024

// Held implements v4.PoolView.
func (p *pools) Held(i int, port uint64) int {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.At(port)
}

// Quarantined implements v4.PoolView.
func (p *pools) Quarantined(i int, now time.Time) float64 {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.p.Counts(now)
	return float64(c.Quarantined) / float64(max(c.Size, 1))
}

// Slot implements v4.PoolView.
func (p *pools) Slot(i int, at netip.Addr, now time.Time) pool.Slot {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.Get(at, now)
}

// allocator is the state of one pool. It outlives a reload that leaves the pool as it is.
type allocator struct {
	key    allocatorKey
	mu     sync.Mutex // guards the fields below
	p      *pool.Pool
	warned bool
	asked  []int64 // when the wire was last asked for each address in vain, in milliseconds; nil: never asked
	PoolCounters

	// The newest snapshot, and the one whose addresses are excluded as a whole. While they differ
	// an address is compared with the newest before anything is decided about it.
	newest, adopted atomic.Pointer[adoption]
	adopting        sync.Mutex    // held by who excludes or restores, before mu
	restored        atomic.Uint64 // lease.Table.Late when all leases were looked at last
}

// adoption is a snapshot that may be nil; no adoption at all is another thing.
type adoption struct{ snap *provision.Snapshot }

// allocatorKey says which pools may share an allocator.
type allocatorKey struct {
	name        string
	first, last netip.Addr
	prefix      netip.Prefix
	gateway     netip.Addr
	lease       time.Duration
	quarantine  time.Duration
	probe       bool
}

// PoolCounters are events of a pool since the start.
type PoolCounters struct {
	Exhausted uint64 `json:"exhausted"` // clients that found no free address
	Probes    uint64 `json:"probes"`    // addresses asked for by ARP before an offer
	Conflicts uint64 `json:"conflicts"` // of these, used by somebody else
	Declines  uint64 `json:"declines"`  // addresses that a client found in use
}

// newAllocator makes an unused allocator for a pool in a network; gateway may be invalid.
func newAllocator(p v4.Pool, prefix netip.Prefix, gateway netip.Addr, quarantine time.Duration) (*allocator, error) {
	alloc, err := pool.New(p.First, p.Last, v4.Reserved(prefix, gateway)...)
	if err != nil {
		return nil, err
	}
	a := &allocator{p: alloc, key: allocatorKey{
		name: p.Name, first: p.First, last: p.Last, prefix: prefix, gateway: gateway, lease: p.LeaseTime,
		quarantine: quarantine, probe: p.Probe,
	}}
	if p.Probe {
		a.asked = huge.Make[int64](p.Size())
	}
	return a, nil
}

func addrNumber(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func numberAddr(n uint64) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n))))
}

// takeOver keeps the allocators of old, which may be nil, for the pools that are as
// they were, and fills the others from the lease table. It returns those that are new.
// It is called before p is published.
func (p *pools) takeOver(old *pools, leases *lease.Table, now time.Time) []*allocator {
	var fresh []*allocator
	var all sync.WaitGroup
	defer all.Wait()
	p.leases = leases
	for i := range p.all {
		served := &p.all[i]
		if kept := old.allocator(served.alloc.key); kept != nil {
			served.alloc = kept
			continue
		}
		served.alloc.restored.Store(leases.Late())
		all.Go(func() { served.alloc.fill(leases, now) })
		fresh = append(fresh, served.alloc)
	}
	return fresh
}

// allocator returns the one with a key; nil: there is none.
func (p *pools) allocator(key allocatorKey) *allocator {
	if p == nil {
		return nil
	}
	for i := range p.all {
		if a := p.all[i].alloc; a.key == key {
			return a
		}
	}
	return nil
}

// fill takes what the lease table has into an allocator that nobody uses yet.
func (a *allocator) fill(leases *lease.Table, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := func(first, last netip.Addr) iter.Seq[pool.Known] {
		return func(yield func(pool.Known) bool) {
			leases.Each(first, last, func(rec *lease.Record) {
				if k, ok := knownOf(rec, now); ok {
					yield(k)
				}
			})
		}
	}
	const parts = 8 // leases may crowd anywhere in the range
	var all []iter.Seq[pool.Known]
	first, last := uint64(addrNumber(a.key.first)), uint64(addrNumber(a.key.last))
	for step := (last-first)/parts + 1; first <= last; first += step {
		all = append(all, known(numberAddr(first), numberAddr(min(first+step-1, last))))
	}
	a.p.RestoreAll(all...)
}

// restore takes what holds in the lease table, while packets use the allocator.
func (a *allocator) restore(leases *lease.Table, now time.Time) {
	for rec := range leases.InRange(a.key.first, a.key.last) {
		if rec.Live(now) || rec.State == lease.StateQuarantined && now.Before(rec.Expires) {
			a.mu.Lock() // for one at a time
			if rec, ok := leases.Get(rec.IP); ok {
				a.restoreLocked(&rec, now)
			}
			a.mu.Unlock()
		}
	}
}

func (a *allocator) restoreLocked(rec *lease.Record, now time.Time) {
	if k, ok := knownOf(rec, now); ok {
		a.p.Restore(k.IP, k.Owner, k.State, k.Until)
		a.p.SetPlace(k.IP, k.Place)
	}
}

// knownOf returns what a pool is to know of a record. Any live lease counts, whoever gave
// the address: its client still uses it; and so does a quarantine. ok is false for what is nothing to it.
func knownOf(rec *lease.Record, now time.Time) (k pool.Known, ok bool) {
	// What is left counts, not when it ends: since the lease was given the clock may have been set.
	left := rec.Expires.Sub(now)
	if rec.Renewed.After(now) {
		left = min(left, rec.Expires.Sub(rec.Renewed))
	}
	switch {
	case rec.Live(now):
		return pool.Known{IP: rec.IP, Owner: rec.Holder(), State: pool.StateLeased, Until: now.Add(left + leaseSlack), Place: v4.PortOfLease(rec)}, true
	case rec.State == lease.StateQuarantined && now.Before(rec.Expires):
		return pool.Known{IP: rec.IP, State: pool.StateQuarantined, Until: now.Add(left)}, true
	case rec.Pool != "" && rec.State != lease.StateQuarantined:
		return pool.Known{IP: rec.IP, Owner: rec.Holder(), State: pool.StateFree, Until: rec.Expires}, true
	}
	return pool.Known{}, false
}

// avoid takes an address of the pool at place i out of use without a word about it.
func (p *pools) avoid(i int, ip netip.Addr, now time.Time) {
	a := p.all[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	a.p.Quarantine(ip, now, now.Add(a.key.quarantine))
}

// renew tells the pools of the newest snapshot, which costs no more than to compare pointers. It
// reports whether its addresses are still to be excluded, or leases to be taken that came from the disk later, by adopt.
func (p *pools) renew(snap *provision.Snapshot) (due bool) {
	var next *adoption
	for i := range p.all {
		a := p.all[i].alloc
		newest, adopted := a.newest.Load(), a.adopted.Load()
		if newest == nil || newest.snap != snap {
			if next == nil {
				next = &adoption{snap}
			}
			newest = next
			a.newest.Store(newest)
		}
		due = due || adopted == nil || adopted.snap != snap || a.restored.Load() != p.leases.Late()
	}
	return due
}

// adopt excludes what the newest snapshot binds, in all pools, takes leases that came later, and returns when that is done.
func (p *pools) adopt(snapshot func() *provision.Snapshot, leases *lease.Table, now time.Time) {
	for i := range p.all {
		a := p.all[i].alloc
		a.mu.Lock() // so that no packet has a newer one between the question and the answer
		if snap, newest := snapshot(), a.newest.Load(); newest == nil || newest.snap != snap {
			a.newest.Store(&adoption{snap})
		}
		a.mu.Unlock()
		a.adopt(leases, now)
	}
}

// adoptStep is how many addresses are compared without letting go of the allocator, which packets
// wait for: some microseconds.
const adoptStep = 1024

// adopt takes the leases that the table has later than the allocator, and excludes what the newest snapshot binds. Packets go on
// meanwhile.
func (a *allocator) adopt(leases *lease.Table, now time.Time) {
	a.adopting.Lock()
	defer a.adopting.Unlock()
	if late := leases.Late(); late != a.restored.Load() {
		a.restore(leases, now)
		a.restored.Store(late)
	}
	newest := a.newest.Load()
	if adopted := a.adopted.Load(); adopted != nil && adopted.snap == newest.snap {
		return
	}
	set := a.p.BoundSet(newest.snap.TakenIn(a.key.first, a.key.last))
	for at := 0; at < len(set); {
		a.mu.Lock()
		at = a.p.SetBoundPart(set, at, adoptStep, func(ip netip.Addr) { a.unboundLocked(ip, leases, now) })
		a.mu.Unlock()
	}
	a.adopted.Store(newest)
}

// unboundLocked takes an address back that the ERP does not bind any more.
func (a *allocator) unboundLocked(ip netip.Addr, leases *lease.Table, now time.Time) {
	// The customer who had it may use it until the lease ends.
	if rec, ok := leases.Get(ip); ok && rec.Live(now) {
		a.restoreLocked(&rec, now)
	} else if slot := a.p.Get(ip, now); slot.State == pool.StateLeased { // by whom it was given before the ERP bound it
		a.p.Restore(ip, slot.Owner, pool.StateFree, time.Time{})
	}
}

// compareLocked has the allocator know whether the newest snapshot binds an address, if it may not
// know that yet. It reports whether it learnt anything.
func (a *allocator) compareLocked(ip netip.Addr, leases *lease.Table, now time.Time) bool {
	newest, adopted := a.newest.Load(), a.adopted.Load()
	if newest == nil || !ip.IsValid() || adopted != nil && adopted.snap == newest.snap {
		return false
	}
	bound := newest.snap.Taken(ip)
	if !a.p.Bind(ip, bound) {
		return false
	}
	if !bound {
		a.unboundLocked(ip, leases, now)
	}
	return true
}

// aheadLocked reports whether the lease table knows more of d's address than the allocator does,
// and tells it. The table has the last word, for it is what clients were told: the clock
// was set forward, which makes the allocator forget too early, or a reload came between
// a decision on the old allocator and the record of it. A record from before the start that
// seems to come from the future says nothing any more.
func (a *allocator) aheadLocked(leases *lease.Table, d *v4.Decision, now time.Time) bool {
	rec, known := leases.Get(d.YourIP)
	if !known || rec.Renewed.After(now.Add(leaseSlack)) {
		return false
	}
	other := rec.Live(now) && rec.Holder() != d.Holder
	if !other && !(rec.State == lease.StateQuarantined && now.Before(rec.Expires)) {
		return false
	}
	a.restoreLocked(&rec, now)
	return true
}

// reserve does to the pool what d plans. It reports whether that was possible:
// between the decision and now somebody else may have taken the address.
func (p *pools) reserve(d *v4.Decision, leases *lease.Table, now time.Time, log *slog.Logger) bool {
	if d.Pool == 0 {
		return true
	}
	served := &p.all[d.Pool-1]
	a := served.alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	a.compareLocked(d.YourIP, leases, now)
	ok := true
	switch {
	case d.Outcome == outcome.PoolExhausted:
		a.Exhausted++
	case d.Change == v4.ChangeHold:
		ok = a.holdLocked(d, leases, now)
	case d.Durable():
		ok = a.leaseLocked(d, leases, now)
	case d.Keep:
		// The address stays leased: the allocator gives it to nobody else before the lease ends.
	case d.Change == v4.ChangeRelease:
		a.p.Release(d.YourIP, d.Rec.Holder(), now)
	case d.Change == v4.ChangeRefused:
		if s := a.p.Get(d.Rec.IP, now); s.State == pool.StateLeased && s.Owner == d.Rec.Holder() {
			a.p.Restore(d.Rec.IP, s.Owner, pool.StateFree, time.Time{}) // also of one that the ERP binds by now
		}
	case d.Change == v4.ChangeQuarantine:
		a.Declines++
		a.p.Restore(d.YourIP, provision.Owner{}, pool.StateQuarantined, d.Rec.Expires)
	}
	served.watchLocked(log)
	return ok
}

// holdLocked keeps the address of an OFFER for whom it was offered, if nobody else has it.
func (a *allocator) holdLocked(d *v4.Decision, leases *lease.Table, now time.Time) bool {
	if a.aheadLocked(leases, d, now) || !a.p.Reoffer(d.YourIP, d.Holder, now, now.Add(v4.OfferHold), now.Add(v4.OfferHold-offerLeast)) {
		return false
	}
	a.p.SetPlace(d.YourIP, d.Port)
	return true
}

// leaseLocked keeps the address of an ACK for whom it is leased to, if nobody else has it.
func (a *allocator) leaseLocked(d *v4.Decision, leases *lease.Table, now time.Time) bool {
	if a.aheadLocked(leases, d, now) || !a.p.Lease(d.YourIP, d.Holder, now, d.Rec.Expires.Add(leaseSlack)) {
		return false
	}
	a.p.SetPlace(d.YourIP, d.Port)
	return true
}

// Drop ends the live lease that mac has of an address, for an operator, and frees the address if it is one of a pool: the
// client is not told, and is answered like anybody when it asks again. It reports whether mac had one.
func (s *Server) Drop(ip netip.Addr, mac provision.MAC) bool {
	now := s.now()
	rec, _ := s.deps.Leases.Get(ip)
	if !s.deps.Leases.Drop(ip, mac, now) {
		return false
	}
	gen := s.generation.Load()
	if i := gen.config.PoolOf(ip); i >= 0 {
		p := &gen.pools.all[i]
		p.alloc.mu.Lock()
		defer p.alloc.mu.Unlock()
		p.alloc.p.Release(ip, rec.Holder(), now)
		p.watchLocked(s.log)
	}
	return true
}

// watchLocked says once that a pool gets full, and once that it is not any more.
func (p *servedPool) watchLocked(log *slog.Logger) {
	if p.WarnAt <= 0 {
		return
	}
	used := p.alloc.p.Used()
	switch {
	case !p.alloc.warned && used >= p.WarnAt:
		p.alloc.warned = true
		log.Warn("pool gets full", "pool", p.Name, "used", percent(used), "warn_at", percent(p.WarnAt))
	case p.alloc.warned && used < p.WarnAt-0.05:
		p.alloc.warned = false
		log.Info("pool has room again", "pool", p.Name, "used", percent(used))
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

// PoolStatus is the state of one pool.
type PoolStatus struct {
	Name   string     `json:"name"`
	For    string     `json:"for"` // guests, subscribers
	First  netip.Addr `json:"first"`
	Last   netip.Addr `json:"last"`
	Used   float64    `json:"used"`    // share that no new client can have, 0 to 1
	WarnAt float64    `json:"warn_at"` // 0: never
	Full   bool       `json:"full"`    // used is beyond warn_at
	pool.Counts
	PoolCounters
}

// Pools tells the state of every pool, in the order of the configuration.
func (s *Server) Pools() []PoolStatus {
	pools, now := s.generation.Load().pools, s.now()
	all := make([]PoolStatus, 0, len(pools.all))
	pools.adopt(s.deps.Snapshot, s.deps.Leases, now)
	for i := range pools.all {
		p := &pools.all[i]
		p.alloc.mu.Lock()
		counts := p.alloc.p.Counts(now)
		p.watchLocked(s.log)
		st := PoolStatus{
			Name: p.Name, For: p.Kind.String(), First: p.First, Last: p.Last, WarnAt: p.WarnAt, Full: p.alloc.warned,
			Counts: counts, PoolCounters: p.alloc.PoolCounters,
		}
		p.alloc.mu.Unlock()
		st.Used = st.Counts.Used()
		all = append(all, st)
	}
	return all
}

// PoolAddress is what one address is to the pool that has it in its range.
type PoolAddress struct {
	Pool  string     `json:"pool"`
	For   string     `json:"for"`
	IP    netip.Addr `json:"ip"`
	State string     `json:"state"` // free, offered, leased, quarantined, reserved
	Bound bool       `json:"bound"` // the ERP binds it: no client of the pool gets it
	// Holder is the client that has or had it, by its MAC.
	Holder provision.Owner `json:"mac,omitzero"`
	// Subscriber is whose client has or had it, in a pool for subscribers.
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	Until      time.Time              `json:"until,omitzero"`
}

// PoolAddress tells what an address is; false if it is in no pool.
func (s *Server) PoolAddress(ip netip.Addr) (PoolAddress, bool) {
	gen, now := s.generation.Load(), s.now()
	i := gen.config.PoolOf(ip)
	if i < 0 {
		return PoolAddress{}, false
	}
	gen.pools.adopt(s.deps.Snapshot, s.deps.Leases, now)
	return s.viewSlot(&gen.pools.all[i], ip, gen.pools.Slot(i, ip, now)), true
}

// PoolAddresses lists what is not free in a pool, and what was somebody's before, ascending;
// of all pools if name is empty.
func (s *Server) PoolAddresses(name string) []PoolAddress {
	pools, now := s.generation.Load().pools, s.now()
	pools.adopt(s.deps.Snapshot, s.deps.Leases, now)
	list := []PoolAddress{}
	for i := range pools.all {
		p := &pools.all[i]
		if name != "" && p.Name != name {
			continue
		}
		p.alloc.mu.Lock()
		for ip, slot := range p.alloc.p.All(now) {
			list = append(list, s.viewSlot(p, ip, slot))
		}
		p.alloc.mu.Unlock()
	}
	return list
}

func (s *Server) viewSlot(p *servedPool, ip netip.Addr, slot pool.Slot) PoolAddress {
	v := PoolAddress{Pool: p.Name, For: p.Kind.String(), IP: ip, State: slot.State.String(), Bound: slot.Bound, Holder: slot.Owner, Until: slot.Until}
	if p.Kind == v4.PoolSubscribers { // the pool knows the line, the record the client
		v.Holder = provision.Owner{}
		if rec, ok := s.deps.Leases.Get(ip); ok && rec.Holder() == slot.Owner {
			v.Holder, v.Subscriber = rec.MAC.Owner(), rec.Subscriber
		}
	}
	return v
}
