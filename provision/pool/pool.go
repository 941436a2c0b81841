// Package pool allocates addresses of a range to clients. It holds no lease
// records and knows no clock, disk or packet: the caller tells what it granted,
// until when, and what the ERP binds. A client that comes back gets its earlier
// address while nobody else has it, and a new one begins to look where the hash of
// its owner points, so that the answer is the same after a loss of everything.
package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"math/bits"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/huge"
)

// MaxSize is the most addresses that one pool may have, a /12.
const MaxSize = 1 << 20

// State is what an address of a pool is. Its zero value is invalid.
type State uint8

// The states of an address. That the ERP binds it is told apart from them.
const (
	StateFree        State = iota + 1
	StateOffered           // held for a client that was offered it
	StateLeased            // acknowledged to a client
	StateQuarantined       // somebody uses it whom we did not give it to
	StateReserved          // never given: gateway, network, broadcast
)

// String returns free, offered, leased, quarantined, reserved or invalid.
func (s State) String() string {
	switch s {
	case StateFree:
		return "free"
	case StateOffered:
		return "offered"
	case StateLeased:
		return "leased"
	case StateQuarantined:
		return "quarantined"
	case StateReserved:
		return "reserved"
	}
	return "invalid"
}

// Slot is what is known of one address.
type Slot struct {
	State State
	Bound bool            // the ERP binds it: it goes to no client of the pool
	Owner provision.Owner // who has it, or had it last; zero: nobody yet
	Until time.Time       // of offered, leased and quarantined
}

// Counts are the sizes of a pool. Bound addresses are in none of the others.
type Counts struct {
	Size        int `json:"size"` // without reserved and bound addresses
	Free        int `json:"free"`
	Offered     int `json:"offered"`
	Leased      int `json:"leased"`
	Quarantined int `json:"quarantined"`
	Bound       int `json:"bound"`
}

// Used is the share of the pool that no new client can have, 0 to 1; 1 for a pool without addresses.
func (c Counts) Used() float64 {
	if c.Size == 0 {
		return 1
	}
	return 1 - float64(c.Free)/float64(c.Size)
}

// Lists that a slot may be in. Those that run out are in the order in which they do: what
// is granted for one constant time goes to the end of a list, what was
// granted for another (before a restart or a change of the configuration)
// is put in its place among those like it.
const (
	listNone = iota
	listFree // longest unused first
	listOffered
	listLeased
	listLeasedOld
	listQuarantined
	listQuarantinedOld
	lists
)

const none = ^uint32(0)

type slot struct {
	until      int64  // milliseconds since 1970
	place      uint64 // where the client is; 0: not known
	prev, next uint32
	owner      provision.Owner
	state      State
	coming     State // of RestoreAll
	list       uint8
	bound      bool
}

type list struct{ head, tail uint32 }

// Pool allocates the addresses of one range. It is not safe for concurrent use.
// Nothing but New, SetBound and BoundSet allocates memory, and every other method takes the same time
// whatever the size, but for Restore with times out of order.
type Pool struct {
	first, last uint32
	slots       []slot
	lists       [lists]list
	counts      [StateReserved + 1]int // of unbound slots
	bound       int                    // bound and not reserved
	index       []uint32               // owner to slot+1, open addressing
	keyed       int                    // entries of index whose owner is more than a MAC
	newest      int64                  // time of the latest call, milliseconds since 1970
	places      []placeCount
	shift       uint8
	seed        maphash.Seed
}

// New makes a pool of the addresses from first to last without the reserved ones.
func New(first, last netip.Addr, reserved ...netip.Addr) (*Pool, error) {
	if !first.Is4() || !last.Is4() || last.Less(first) {
		return nil, fmt.Errorf("range %v-%v: want two IPv4 addresses, the lower first", first, last)
	}
	p := &Pool{first: number(first), last: number(last), seed: maphash.MakeSeed()}
	if p.last-p.first >= MaxSize {
		return nil, fmt.Errorf("range %v-%v: more than %d addresses", first, last, MaxSize)
	}
	n := int(p.last-p.first) + 1
	p.slots = huge.Make[slot](n)
	size := uint(bits.Len(uint(2*n - 1)))
	p.index, p.places, p.shift = huge.Make[uint32](1<<size), huge.Make[placeCount](1<<size), uint8(64-size)
	for l := range p.lists {
		p.lists[l] = list{none, none}
	}
	for _, a := range reserved {
		if i, ok := p.at(a); ok && p.slots[i].state == 0 {
			p.slots[i].state = StateReserved
			p.counts[StateReserved]++
		}
	}
	for i := range p.slots {
		if p.slots[i].state == 0 {
			p.slots[i].state = StateFree
			p.push(listFree, uint32(i))
		}
		p.slots[i].prev, p.slots[i].next = p.links(uint32(i))
	}
	p.counts[StateFree] = n - p.counts[StateReserved]
	if p.counts[StateFree] == 0 {
		return nil, errors.New("no address is left besides reserved ones")
	}
	return p, nil
}

// links returns the links of a slot, none for one that is in no list.
func (p *Pool) links(i uint32) (prev, next uint32) {
	if p.slots[i].list == listNone {
		return none, none
	}
	return p.slots[i].prev, p.slots[i].next
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func (p *Pool) addr(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.first+i)
	return netip.AddrFrom4(b)
}

// at returns the place of an address.
func (p *Pool) at(a netip.Addr) (uint32, bool) {
	if !a.Is4() {
		return 0, false
	}
	n := number(a)
	if n < p.first || n > p.last {
		return 0, false
	}
	return n - p.first, true
}

// Contains reports whether a is within the range, reserved or not.
func (p *Pool) Contains(a netip.Addr) bool {
	_, ok := p.at(a)
	return ok
}

// First is the lowest address of the range.
func (p *Pool) First() netip.Addr { return p.addr(0) }

// Last is the highest address of the range.
func (p *Pool) Last() netip.Addr { return p.addr(p.last - p.first) }

// Get tells what a is at now; the zero Slot for an address outside.
func (p *Pool) Get(a netip.Addr, now time.Time) Slot {
	i, ok := p.at(a)
	if !ok {
		return Slot{}
	}
	p.settle(i, p.clock(now))
	s := &p.slots[i]
	out := Slot{State: s.state, Bound: s.bound, Owner: s.owner}
	if s.state >= StateOffered && s.state <= StateQuarantined {
		out.Until = time.UnixMilli(s.until).UTC()
	}
	return out
}

// Fit is how well an address suits a client; the greater the better. Zero: there is none.
type Fit uint8

// The fits, in the order of RFC 2131 section 4.3.1.
const (
	FitOffered Fit = iota + 1 // another client was offered it and did not ask for it yet
	FitNew                    // it is free
	FitWanted                 // and the client asks for it
	FitOwn                    // the client has it or had it
)

// probes is how far from its hash a new client looks for an address that nobody had yet.
const probes = 8

// Pick chooses an address for who and changes nothing: the one it has or had,
// the one it wants, one that nobody had yet near its hash, the longest unused
// one. The Fit is zero if none is free.
func (p *Pool) Pick(who provision.Owner, want netip.Addr, now time.Time) (netip.Addr, Fit) {
	ms := p.clock(now)
	p.expire(ms, expireStep)
	if i, known := p.find(who); known && p.may(i, who, ms) {
		return p.addr(i), FitOwn
	}
	if i, inside := p.at(want); inside && p.may(i, who, ms) {
		return p.addr(i), FitWanted
	}
	n := uint32(len(p.slots))
	start := fnv(who) % n
	for j := range uint32(min(probes, len(p.slots))) {
		i := (start + j) % n
		if p.slots[i].owner.IsZero() && p.may(i, who, ms) {
			return p.addr(i), FitNew
		}
	}
	if i := p.lists[listFree].head; i != none {
		return p.addr(i), FitNew
	}
	return netip.Addr{}, 0
}

// Of returns the address that who has or had last.
func (p *Pool) Of(who provision.Owner) (netip.Addr, bool) {
	i, known := p.find(who)
	if !known {
		return netip.Addr{}, false
	}
	return p.addr(i), true
}

// May reports whether who may have a at now: it is free, or held for or leased to who.
func (p *Pool) May(a netip.Addr, who provision.Owner, now time.Time) bool {
	i, ok := p.at(a)
	return ok && p.may(i, who, p.clock(now))
}

// PickOffered chooses the address whose offer is the oldest, if that runs out before then,
// and changes nothing; Reoffer takes it. The Fit is zero if there is none.
func (p *Pool) PickOffered(now, before time.Time) (netip.Addr, Fit) {
	p.clock(now)
	if i := p.lists[listOffered].head; i != none && !p.slots[i].bound && p.slots[i].until < before.UnixMilli() {
		return p.addr(i), FitOffered
	}
	return netip.Addr{}, 0
}

// Reoffer is Offer, also of an address that another client was offered, if that offer
// runs out before then. Whoever made up clients to have all of the pool offered
// loses to the clients that come later.
func (p *Pool) Reoffer(a netip.Addr, who provision.Owner, now, until, before time.Time) bool {
	i, ok := p.at(a)
	if !ok {
		return false
	}
	if s := &p.slots[i]; s.list == listOffered && s.owner != who && s.until < before.UnixMilli() {
		p.free(i)
	}
	return p.Offer(a, who, now, until)
}

func (p *Pool) may(i uint32, who provision.Owner, ms int64) bool {
	p.settle(i, ms)
	s := &p.slots[i]
	switch {
	case s.bound:
		return false
	case s.state == StateFree:
		return true
	}
	return (s.state == StateOffered || s.state == StateLeased) && s.owner == who
}

// Offer holds a for who until then, as all offers for the same time from now.
// A lease that who has on it stays one. It reports whether who may have it.
func (p *Pool) Offer(a netip.Addr, who provision.Owner, now, until time.Time) bool {
	i, ok := p.at(a)
	if !ok || !p.may(i, who, p.clock(now)) {
		return false
	}
	if p.slots[i].state != StateLeased {
		p.give(i, who, StateOffered, listOffered, until.UnixMilli())
	}
	return true
}

// Lease gives a to who until then, as all leases for the same time from now.
// It reports whether who may have it.
func (p *Pool) Lease(a netip.Addr, who provision.Owner, now, until time.Time) bool {
	i, ok := p.at(a)
	if !ok || !p.may(i, who, p.clock(now)) {
		return false
	}
	p.give(i, who, StateLeased, listLeased, until.UnixMilli())
	return true
}

// Release makes a free if who has it; the same gets it back on a return in time.
func (p *Pool) Release(a netip.Addr, who provision.Owner, now time.Time) bool {
	i, ok := p.at(a)
	if !ok || !p.may(i, who, p.clock(now)) || p.slots[i].state == StateFree {
		return false
	}
	p.free(i)
	return true
}

// Quarantine keeps a from everybody until then, as all others for the same time from now.
// It reports whether a can be an address of a client at all.
func (p *Pool) Quarantine(a netip.Addr, now, until time.Time) bool {
	i, ok := p.at(a)
	if !ok || p.slots[i].state == StateReserved {
		return false
	}
	p.settle(i, p.clock(now))
	p.give(i, provision.Owner{}, StateQuarantined, listQuarantined, until.UnixMilli())
	return true
}

// Restore sets what is known of a from before: StateFree (who had it), StateOffered,
// StateLeased or StateQuarantined, for whatever time. It is quick when called in the order of
// until. It reports whether a can be an address of a client at all.
func (p *Pool) Restore(a netip.Addr, who provision.Owner, s State, until time.Time) bool {
	i, ok := p.at(a)
	return ok && p.restore(i, who, s, until.UnixMilli())
}

func (p *Pool) restore(i uint32, who provision.Owner, s State, until int64) bool {
	if p.slots[i].state == StateReserved {
		return false
	}
	if at := &p.slots[i]; s != StateFree && at.state == s && at.owner == who && at.until == until {
		if old, known := p.find(who); who.IsZero() || known && old == i {
			return true // as it is; to look for its place again would take a look at all that end later
		}
	}
	switch s {
	case StateFree:
		p.give(i, who, StateOffered, listOffered, 0)
		p.free(i)
	case StateQuarantined:
		p.give(i, provision.Owner{}, s, listQuarantinedOld, until)
	case StateOffered, StateLeased:
		p.give(i, who, s, listLeasedOld, until)
	default:
		return false
	}
	return true
}

// SetBound tells which addresses the ERP binds now, ascending; those outside the range are
// skipped. unbound is called for each that it bound before and does not now; it may call Restore.
func (p *Pool) SetBound(addrs iter.Seq[netip.Addr], unbound func(netip.Addr)) {
	p.SetBoundPart(p.BoundSet(addrs), 0, len(p.slots), unbound)
}

// BoundSet is what SetBoundPart takes: one value for each address of the range. It only looks at the
// range, and may be called beside any other method.
func (p *Pool) BoundSet(addrs iter.Seq[netip.Addr]) []bool {
	set := make([]bool, p.last-p.first+1)
	for a := range addrs {
		if i, ok := p.at(a); ok {
			set[i] = true
		}
	}
	return set
}

// SetBoundPart is SetBound for n addresses, beginning with the one at place from, so that a large pool
// can be told in parts. It returns the place of the next part; n addresses are done in the same time whatever the size.
func (p *Pool) SetBoundPart(set []bool, from, n int, unbound func(netip.Addr)) (next int) {
	next = min(from+n, len(p.slots))
	for i := from; i < next; i++ {
		if p.slots[i].bound != set[i] && p.bind(uint32(i), set[i]) && !set[i] && unbound != nil {
			unbound(p.addr(uint32(i)))
		}
	}
	return next
}

// Bind is SetBound for one address. It reports whether that changes anything.
func (p *Pool) Bind(a netip.Addr, bound bool) bool {
	i, ok := p.at(a)
	return ok && p.bind(i, bound)
}

func (p *Pool) bind(i uint32, bound bool) bool {
	s := &p.slots[i]
	switch {
	case s.bound == bound, s.state == StateReserved:
		return false
	case bound:
		s.bound = true
		p.bound++
		p.counts[s.state]--
		if s.state == StateFree {
			p.unlink(i)
		}
		p.leave(i) // it is no client's of the pool, so it takes none of what a place may hold
	default:
		s.bound = false
		p.bound--
		p.counts[s.state]++
		if s.state == StateFree {
			p.push(listFree, i)
		}
	}
	return true
}

// Counts tells the sizes at now.
func (p *Pool) Counts(now time.Time) Counts {
	p.expire(p.clock(now), len(p.slots))
	return Counts{
		Size: len(p.slots) - p.counts[StateReserved] - p.bound, Bound: p.bound, Free: p.counts[StateFree],
		Offered: p.counts[StateOffered], Leased: p.counts[StateLeased], Quarantined: p.counts[StateQuarantined],
	}
}

// Used is the share of the pool that no new client can have, with leases that
// have just run out still counted: it costs nothing.
func (p *Pool) Used() float64 {
	return Counts{Size: len(p.slots) - p.counts[StateReserved] - p.bound, Free: p.counts[StateFree]}.Used()
}

// All returns what every address that somebody has or had is at now, ascending.
func (p *Pool) All(now time.Time) iter.Seq2[netip.Addr, Slot] {
	return func(yield func(netip.Addr, Slot) bool) {
		for i := range p.slots {
			s := &p.slots[i]
			if s.state == StateReserved || s.state == StateFree && s.owner.IsZero() {
				continue
			}
			if a := p.addr(uint32(i)); !yield(a, p.Get(a, now)) {
				return
			}
		}
	}
}

// give puts a slot into a list that runs out. The address that who was offered before is free again.
func (p *Pool) give(i uint32, who provision.Owner, st State, l uint8, until int64) {
	if !who.IsZero() {
		if old, known := p.find(who); known && old != i && p.slots[old].state == StateOffered {
			p.free(old)
		}
	}
	p.setOwner(i, who)
	s := &p.slots[i]
	p.leave(i)
	p.unlink(i)
	p.count(s, -1)
	s.state, s.until = st, until
	p.count(s, 1)
	if l == listLeasedOld || l == listQuarantinedOld {
		p.insert(l, i)
	} else {
		p.push(l, i)
	}
}

// free makes a slot free and remembers who had it.
func (p *Pool) free(i uint32) {
	s := &p.slots[i]
	p.leave(i)
	p.unlink(i)
	p.count(s, -1)
	s.state, s.until = StateFree, 0
	p.count(s, 1)
	if !s.bound {
		p.push(listFree, i)
	}
}

func (p *Pool) count(s *slot, by int) {
	if !s.bound {
		p.counts[s.state] += by
	}
}

// setBack is how far time must go back to be a clock that was set back; less is
// callers that looked at theirs in another order than they called.
const setBack = 5000

// clock returns now in milliseconds. When the clock was set back, what is held is held
// as much longer as it had been: the lists stay in order, and nothing is kept until the clock
// is where it was.
func (p *Pool) clock(now time.Time) int64 {
	ms := now.UnixMilli()
	if back := p.newest - ms; back > setBack {
		for i := range p.slots {
			if s := &p.slots[i]; s.list > listFree {
				s.until -= back
			}
		}
		p.newest = ms
	}
	p.newest = max(p.newest, ms)
	return ms
}

// expireStep bounds what one call does for others: when a thousand leases end
// at once no packet waits for all of them.
const expireStep = 64

// expire frees up to limit slots whose time is over.
func (p *Pool) expire(ms int64, limit int) {
	for l := listOffered; l < lists; l++ {
		for i := p.lists[l].head; i != none && p.slots[i].until <= ms && limit > 0; i = p.lists[l].head {
			p.free(i)
			limit--
		}
	}
}

// settle frees one slot if its time is over.
func (p *Pool) settle(i uint32, ms int64) {
	if s := &p.slots[i]; s.list > listFree && s.until <= ms {
		p.free(i)
	}
}

func (p *Pool) push(l uint8, i uint32) {
	t := p.lists[l].tail
	p.link(l, i, t, none)
}

// insert puts a slot where its time belongs, looking from the end.
func (p *Pool) insert(l uint8, i uint32) {
	after, before := p.lists[l].tail, none
	for after != none && p.slots[after].until > p.slots[i].until {
		after, before = p.slots[after].prev, after
	}
	p.link(l, i, after, before)
}

func (p *Pool) link(l uint8, i, prev, next uint32) {
	s := &p.slots[i]
	s.list, s.prev, s.next = l, prev, next
	if prev == none {
		p.lists[l].head = i
	} else {
		p.slots[prev].next = i
	}
	if next == none {
		p.lists[l].tail = i
	} else {
		p.slots[next].prev = i
	}
}

func (p *Pool) unlink(i uint32) {
	s := &p.slots[i]
	if s.list == listNone {
		return
	}
	l := &p.lists[s.list]
	if s.prev == none {
		l.head = s.next
	} else {
		p.slots[s.prev].next = s.next
	}
	if s.next == none {
		l.tail = s.prev
	} else {
		p.slots[s.next].prev = s.prev
	}
	s.list, s.prev, s.next = listNone, none, none
}
