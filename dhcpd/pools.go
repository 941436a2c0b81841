package dhcpd

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// Unknown is what becomes of a client that the ERP does not know.
type Unknown uint8

// What becomes of unknown clients.
const (
	UnknownSilence Unknown = iota // no answer, as RFC 2131 asks for
	UnknownNak                    // a NAK if it insists on an address, else no answer
	UnknownGuest                  // an address of a pool for guests
)

// PoolKind is whom a pool serves. Its zero value is invalid.
type PoolKind uint8

// The kinds of pools. Where no pool for subscribers serves the wire, a customer
// of the ERP without an address is a guest like one whom it does not know.
const (
	PoolGuests      PoolKind = iota + 1 // clients that the ERP does not know
	PoolSubscribers                     // customers to whom the ERP gives a port, a MAC or a VLAN but no address
)

// String gives guests, subscribers or invalid.
func (k PoolKind) String() string {
	switch k {
	case PoolGuests:
		return "guests"
	case PoolSubscribers:
		return "subscribers"
	}
	return "invalid"
}

// Pool is a range that the server gives addresses of by itself. It lies in one of
// the Subnets, whose settings its clients are told unless the pool has its own.
type Pool struct {
	Name        string
	Kind        PoolKind
	First, Last netip.Addr
	Links       []netip.Prefix // wires it serves besides that of its subnet
	LeaseTime   time.Duration  // at least a minute
	Probe       bool           // ask the wire by ARP before an offer
	WarnAt      float64        // share in use that is worth a warning; 0: none
	OptionSet                  // besides what the subnet tells, or in its place
}

const (
	defaultQuarantine = time.Hour
	// offerHold is how long an offered address is kept for its client: until it
	// has surely asked for it or taken the offer of somebody else.
	offerHold = time.Minute
	// offerLeast is how long an offer stands in any case: a client that means to take it
	// asks within this time. When a pool has nothing else, older offers go to others.
	offerLeast = 2 * time.Second
	// leaseSlack is how long the address of a lease that ran out waits for a
	// client whose clock is behind or who counts from the ACK.
	leaseSlack = 10 * time.Second
)

// dynamicPool is one pool ready for the packet path.
type dynamicPool struct {
	Pool
	subnet // what its clients are told; prefix is the wire's
	alloc  *allocator
}

// serves reports whether the pool is for the wire of at, the address of its relay or interface.
func (p *dynamicPool) serves(at netip.Addr) bool {
	if !at.IsValid() {
		return false
	}
	if p.prefix.Contains(at) {
		return true
	}
	for _, l := range p.Links {
		if l.Contains(at) {
			return true
		}
	}
	return false
}

// compilePools checks o.Pools; the subnets of s are ready.
func (s *settings) compilePools(o Options) error {
	s.unknown = o.Unknown
	s.quarantine = cmp.Or(o.Quarantine, defaultQuarantine)
	var errs []error
	if o.Unknown > UnknownGuest {
		errs = append(errs, fmt.Errorf("unknown clients %d: no such kind", o.Unknown))
	}
	if s.quarantine < 0 {
		errs = append(errs, fmt.Errorf("quarantine %v: negative", s.quarantine))
	}
	for _, p := range o.Pools {
		c, err := compilePool(&o, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("pool %q: %w", p.Name, err))
			continue
		}
		for i := range s.pools {
			if other := &s.pools[i]; other.Name == p.Name || !p.Last.Less(other.First) && !other.Last.Less(p.First) {
				errs = append(errs, fmt.Errorf("pool %q: has the name of pool %q or overlaps it", p.Name, other.Name))
			}
		}
		s.pools = append(s.pools, c)
	}
	return errors.Join(errs...)
}

func compilePool(o *Options, p Pool) (dynamicPool, error) {
	if p.Name == "" || p.Kind != PoolGuests && p.Kind != PoolSubscribers {
		return dynamicPool{}, errors.New("want a name, and the kind guests or subscribers")
	}
	i := slices.IndexFunc(o.Subnets, func(n Subnet) bool { return n.Prefix.Contains(p.First) && n.Prefix.Contains(p.Last) })
	if i < 0 {
		return dynamicPool{}, fmt.Errorf("%v-%v is not within one subnet", p.First, p.Last)
	}
	n := o.Subnets[i]
	n.LeaseTime, n.RenewTime, n.RebindTime = p.LeaseTime, 0, 0
	sub, err := compileSubnet(o, n)
	if err != nil {
		return dynamicPool{}, err
	}
	sub.options, err = compileOptionSets(n.Prefix, n.Gateway, o.Classes, o.Common, n.OptionSet, p.OptionSet)
	if err != nil {
		return dynamicPool{}, err
	}
	a, err := newAllocator(p, n)
	if err != nil {
		return dynamicPool{}, err
	}
	return dynamicPool{Pool: p, subnet: sub, alloc: a}, nil
}

// poolOf gives the place of the pool whose range has a; -1 if there is none.
func (s *settings) poolOf(a netip.Addr) int {
	for i := range s.pools {
		if p := &s.pools[i]; a.IsValid() && !a.Less(p.First) && !p.Last.Less(a) {
			return i
		}
	}
	return -1
}

// poolView is what a decision may ask the allocators; it changes nothing.
type poolView interface {
	// pick chooses an address of the pool at place i for mac; 0: there is none.
	pick(i int, mac provision.MAC, want netip.Addr, now time.Time) (netip.Addr, pool.Fit)
	// slot tells what an address of the pool at place i is.
	slot(i int, a netip.Addr, now time.Time) pool.Slot
	// held is how many addresses of the pool at place i are offered or leased at a port.
	held(i int, port uint64) int
	// quarantined is the share of the pool at place i that is in quarantine.
	quarantined(i int, now time.Time) float64
	// owned gives the address of the pool at place i that mac has or had last.
	owned(i int, mac provision.MAC) (netip.Addr, bool)
}

// owned implements poolView.
func (s *settings) owned(i int, mac provision.MAC) (netip.Addr, bool) {
	a := s.pools[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.Of(mac)
}

// pick implements poolView.
func (s *settings) pick(i int, mac provision.MAC, want netip.Addr, now time.Time) (netip.Addr, pool.Fit) {
	a := s.pools[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	at, fit := a.p.Pick(mac, want, now)
	if fit == 0 {
		return a.p.PickOffered(now, now.Add(offerHold-offerLeast))
	}
	return at, fit
}

// held implements poolView.
func (s *settings) held(i int, port uint64) int {
	a := s.pools[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.At(port)
}

// quarantined implements poolView.
func (s *settings) quarantined(i int, now time.Time) float64 {
	a := s.pools[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.p.Counts(now)
	return float64(c.Quarantined) / float64(max(c.Size, 1))
}

// slot implements poolView.
func (s *settings) slot(i int, at netip.Addr, now time.Time) pool.Slot {
	a := s.pools[i].alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.p.Get(at, now)
}

// usable reports whether mac may have the address of the slot.
func usable(s pool.Slot, mac provision.MAC) bool {
	switch s.State {
	case pool.StateFree:
		return !s.Bound
	case pool.StateOffered, pool.StateLeased:
		return !s.Bound && s.MAC == mac
	}
	return false
}

// allocator is the state of one pool. It outlives a reload that leaves the pool as it is.
type allocator struct {
	key     allocatorKey
	mu      sync.Mutex // guards the fields below
	p       *pool.Pool
	snap    *provision.Snapshot // whose addresses are excluded
	adopted bool                // snap is meant, though it may be nil
	warned  bool
	asked   []int64 // when the wire was last asked for each address in vain, in milliseconds; nil: never asked
	PoolCounters
}

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

func newAllocator(p Pool, n Subnet) (*allocator, error) {
	prefix := n.Prefix.Masked()
	reserved := []netip.Addr{prefix.Addr(), lastAddress(prefix)}
	if n.Gateway.IsValid() {
		reserved = append(reserved, n.Gateway)
	}
	alloc, err := pool.New(p.First, p.Last, reserved...)
	if err != nil {
		return nil, err
	}
	a := &allocator{p: alloc, key: allocatorKey{
		name: p.Name, first: p.First, last: p.Last, prefix: prefix, gateway: n.Gateway, lease: p.LeaseTime, probe: p.Probe,
	}}
	if p.Probe {
		a.asked = make([]int64, addrNumber(p.Last)-addrNumber(p.First)+1)
	}
	return a, nil
}

func addrNumber(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// takeOver keeps the allocators of old for the pools that are as they were, and
// fills the others from the lease table. It gives those that are new.
func (s *settings) takeOver(old *settings, leases *lease.Table, now time.Time) []*allocator {
	var fresh []*allocator
	for i := range s.pools {
		p := &s.pools[i]
		p.alloc.key.quarantine = s.quarantine
		if old != nil {
			if j := slices.IndexFunc(old.pools, func(o dynamicPool) bool { return o.alloc.key == p.alloc.key }); j >= 0 {
				p.alloc = old.pools[j].alloc
				continue
			}
		}
		p.alloc.restore(leases, now, true)
		fresh = append(fresh, p.alloc)
	}
	return fresh
}

// restore takes what the lease table has. Any live lease counts, whoever gave
// the address: its client still uses it. What is over is taken only if the allocator is unused.
func (a *allocator) restore(leases *lease.Table, now time.Time, unused bool) {
	recs := leases.InRange(a.key.first, a.key.last)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range recs {
		if unused || recs[i].Live(now) {
			a.restoreLocked(&recs[i], now)
		}
	}
}

func (a *allocator) restoreLocked(rec *lease.Record, now time.Time) {
	// What is left counts, not when it ends: since the lease was given the clock may have been set.
	left := rec.Expires.Sub(now)
	if rec.Renewed.After(now) {
		left = min(left, rec.Expires.Sub(rec.Renewed))
	}
	switch {
	case rec.Live(now):
		a.p.Restore(rec.IP, rec.Holder(), pool.StateLeased, now.Add(left+leaseSlack))
		a.p.SetPlace(rec.IP, portOfLease(rec))
	case rec.State == lease.StateQuarantined && now.Before(rec.Expires):
		a.p.Restore(rec.IP, rec.MAC, pool.StateQuarantined, now.Add(left))
	case rec.Pool != "" && rec.State != lease.StateQuarantined:
		a.p.Restore(rec.IP, rec.Holder(), pool.StateFree, time.Time{})
	}
}

// avoid takes an address out of use without a word about it.
func (a *allocator) avoid(ip netip.Addr, now time.Time, quarantine time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.p.Quarantine(ip, now, now.Add(quarantine))
}

// adopt excludes what snap binds. It is called for every packet that pools may
// be asked for, and does something once per snapshot.
func (s *settings) adopt(snap *provision.Snapshot, leases *lease.Table, now time.Time) {
	for i := range s.pools {
		s.pools[i].alloc.adopt(snap, leases, now)
	}
}

func (a *allocator) adopt(snap *provision.Snapshot, leases *lease.Table, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.adopted && a.snap == snap {
		return
	}
	a.snap, a.adopted = snap, true
	a.p.SetBound(snap.BoundIn(a.key.first, a.key.last), func(ip netip.Addr) {
		// The customer who had it may use it until the lease ends.
		if rec, ok := leases.Get(ip); ok && rec.Live(now) {
			a.restoreLocked(&rec, now)
		}
	})
}

// aheadLocked reports whether the lease table knows more of d's address than the allocator does,
// and tells it. The table has the last word, for it is what clients were told: the clock
// was set forward, which makes the allocator forget too early, or a reload came between
// a decision on the old allocator and the record of it. A record from before the start that
// seems to come from the future says nothing any more.
func (a *allocator) aheadLocked(leases *lease.Table, d *decision, now time.Time) bool {
	rec, known := leases.Get(d.yourIP)
	if !known || rec.Renewed.After(now.Add(leaseSlack)) {
		return false
	}
	other := rec.Live(now) && rec.Holder() != d.holder
	if !other && !(rec.State == lease.StateQuarantined && now.Before(rec.Expires)) {
		return false
	}
	a.restoreLocked(&rec, now)
	return true
}

// reserve does to the pool what d plans. It reports whether that was possible:
// between the decision and now somebody else may have taken the address.
func (s *settings) reserve(d *decision, leases *lease.Table, now time.Time, log *slog.Logger) bool {
	if d.pool == 0 {
		return true
	}
	p := &s.pools[d.pool-1]
	a := p.alloc
	a.mu.Lock()
	defer a.mu.Unlock()
	ok := true
	switch {
	case d.outcome == OutcomePoolExhausted:
		a.Exhausted++
	case d.change == changeHold:
		if ok = !a.aheadLocked(leases, d, now) && a.p.Reoffer(d.yourIP, d.holder, now, now.Add(offerHold), now.Add(offerHold-offerLeast)); ok {
			a.p.SetPlace(d.yourIP, d.port)
		}
	case d.change == changePool, d.change == changePoolRenew:
		if ok = !a.aheadLocked(leases, d, now) && a.p.Lease(d.yourIP, d.holder, now, d.rec.Expires.Add(leaseSlack)); ok {
			a.p.SetPlace(d.yourIP, d.port)
		}
	case d.change == changeRelease:
		a.p.Release(d.yourIP, d.rec.Holder(), now)
	case d.change == changeQuarantine:
		a.Declines++
		a.p.Restore(d.yourIP, d.mac, pool.StateQuarantined, d.rec.Expires)
	}
	p.watchLocked(log)
	return ok
}

// watchLocked says once that a pool gets full, and once that it is not any more.
func (p *dynamicPool) watchLocked(log *slog.Logger) {
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
	set, now := s.settings.Load(), s.now()
	all := make([]PoolStatus, 0, len(set.pools))
	set.adopt(s.deps.Snapshot(), s.deps.Leases, now)
	for i := range set.pools {
		p := &set.pools[i]
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
	Pool  string        `json:"pool"`
	For   string        `json:"for"`
	IP    netip.Addr    `json:"ip"`
	State string        `json:"state"` // free, offered, leased, quarantined, reserved
	Bound bool          `json:"bound"` // the ERP binds it: no client of the pool gets it
	MAC   provision.MAC `json:"mac,omitzero"`
	// Subscriber is whose client has or had it, in a pool for subscribers.
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	Until      time.Time              `json:"until,omitzero"`
}

// PoolAddress tells what an address is; false if it is in no pool.
func (s *Server) PoolAddress(ip netip.Addr) (PoolAddress, bool) {
	set, now := s.settings.Load(), s.now()
	i := set.poolOf(ip)
	if i < 0 {
		return PoolAddress{}, false
	}
	set.adopt(s.deps.Snapshot(), s.deps.Leases, now)
	return s.viewSlot(&set.pools[i], ip, set.slot(i, ip, now)), true
}

// PoolAddresses lists what is not free in a pool, and what was somebody's before, ascending;
// of all pools if name is empty.
func (s *Server) PoolAddresses(name string) []PoolAddress {
	set, now := s.settings.Load(), s.now()
	set.adopt(s.deps.Snapshot(), s.deps.Leases, now)
	list := []PoolAddress{}
	for i := range set.pools {
		p := &set.pools[i]
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

func (s *Server) viewSlot(p *dynamicPool, ip netip.Addr, slot pool.Slot) PoolAddress {
	v := PoolAddress{Pool: p.Name, For: p.Kind.String(), IP: ip, State: slot.State.String(), Bound: slot.Bound, MAC: slot.MAC, Until: slot.Until}
	if p.Kind == PoolSubscribers { // the pool knows the seat, the record the client
		v.MAC = provision.MAC{}
		if rec, ok := s.deps.Leases.Get(ip); ok && rec.Holder() == slot.MAC {
			v.MAC, v.Subscriber = rec.MAC, rec.Subscriber
		}
	}
	return v
}
