package lease

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Grace is how long a record stays after it expired, was released or declined:
// it still says who used an address before.
const Grace = 30 * 24 * time.Hour

// Table holds the leases in memory, in front of a Store. The packet path reads
// and changes the memory only. New facts are written by a Journal before their
// ACK leaves, everything else by Run in the background. Its methods may be
// called from several goroutines, and none but those that say so locks it for longer than the records of a /24 take.
type Table struct {
	store Store // nil: memory only

	flushing sync.Mutex // held by the one flush at a time

	mu           sync.RWMutex // guards the fields below, for as long as one page takes
	pages        pages
	n            int    // records
	changes      uint64 // of records so far
	byMAC        index
	byID         index // of records that have a client identifier
	bySubscriber index
	seed         maphash.Seed

	queues [kinds]queue // of pages with something that is due
	due    int          // addresses whose record was changed since it was last written
	ticks  uint32       // of Run

	followers []*Follower
	touched   []*Touched
	closed    bool
	skipped   []string
	bad       int
	overruled []uint32 // of the last Adopt: live, and the ERP has another MAC by its operator's word
	opened    bool     // what the store tells now comes late

	wall func() time.Time // of tests, in place of time.Now for Run

	late atomic.Uint64 // records that the store told of later
}

const maxSkippedKept = 20

// New makes a table that lives in memory only.
func New() *Table {
	return &Table{seed: maphash.MakeSeed()}
}

// bytesOfRecord is what a record takes in a log, more or less.
const bytesOfRecord = 300

// mostExpected bounds what room is made beforehand: the length of a file is no proof of what is in it.
const mostExpected = 1 << 20

// Open makes a table from what store keeps. A record that cannot be read is left
// out and told by Skipped: it costs its client nothing but a packet more. One that store tells of later, when its disk
// is back, is left out if there is one of its address by then: that is newer.
func Open(store Store) (*Table, error) {
	t := New()
	t.store = store
	var ahead <-chan []entry
	if n := int(min(store.Health().Log.Bytes/bytesOfRecord, mostExpected)); n > 0 { // roughly, so that they need not grow time and again
		t.byMAC, t.byID = newIndex(n), newIndex(n)
		if n >= 4*mostAtOnce {
			var stop func()
			ahead, stop = makeAhead()
			defer stop() // what store tells later waits for nobody, also after an error
		}
	}
	to := &sink{room: entryRoom(ahead), take: t.load}
	var err error
	if s, ok := store.(sinkStore); ok {
		err = s.leasesInto(to)
	} else {
		err = store.Leases(to.each())
	}
	store.Replaced(t.dirtyAll)
	if err != nil {
		return nil, fmt.Errorf("lease table: read: %w", err)
	}
	t.mu.Lock()
	t.opened = true
	t.mu.Unlock()
	return t, nil
}

// Late returns how many records the store told of after Open: whoever has looked at all of them before looks again when it changes.
// It takes no lock.
func (t *Table) Late() uint64 { return t.late.Load() }

// load takes records that the store has, and why it cannot tell others; also later: what memory has by then is newer. It keeps them where they are.
func (t *Table) load(all []entry, bad []error) {
	var found [readChunk]hashes
	t.mu.Lock()
	defer t.mu.Unlock()
	touched := uint64(0)
	for i := range all {
		h := t.hashesOf(&all[i].Record)
		touched += t.byMAC.touch(h.mac) + t.byID.touch(h.id)
		found[i] = h
	}
	runtime.KeepAlive(touched)
	for i := range all {
		t.loadLocked(&all[i], found[i])
	}
	for _, err := range bad {
		t.skipLocked(err)
	}
}

func (t *Table) loadLocked(e *entry, h hashes) {
	key := ipKey(e.IP)
	if key == 0 || t.at(key) != nil {
		return
	}
	if t.opened {
		t.late.Add(1)
	}
	t.changes++
	t.insertLocked(key, e)
	e.version, e.saved, e.ends = t.changes, t.changes, e.Expires.Unix()
	t.indexLocked(key, e, h)
	t.tellLocked(key, nil, &e.Record)
}

// dirtyAll has everything written again: what was on disk is not there any more.
func (t *Table) dirtyAll() {
	t.walk(0, math.MaxUint32, t.mu.Lock, t.mu.Unlock, func(p *page) bool {
		for _, e := range p.records {
			e.saved, e.ends = 0, 0
			t.markLocked(ipKey(e.IP), urgent)
		}
		return true
	})
}

func (t *Table) skipLocked(err error) {
	t.bad++
	if len(t.skipped) < maxSkippedKept {
		t.skipped = append(t.skipped, err.Error())
	}
}

// Skipped tells how many stored records could not be read, and the reasons of the first ones.
func (t *Table) Skipped() (n int, examples []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bad, t.skipped[:len(t.skipped):len(t.skipped)]
}

// Get returns the record of an address, live or not; a zero one and false if there is none.
func (t *Table) Get(ip netip.Addr) (Record, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.at(ipKey(ip))
	if e == nil {
		return Record{}, false
	}
	return e.Record, true
}

// Store puts rec in memory in place of what its address had. The table keeps
// rec's slices. To get it on disk the caller uses a Journal or Dirty next. A record
// without an IPv4 address is ignored.
func (t *Table) Store(rec Record) {
	key := ipKey(rec.IP)
	if key == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.at(key); old != nil && old.MAC == rec.MAC && old.Start.Equal(rec.Start) {
		rec.ERP = old.ERP // it may have been learned while the packet was decided on
	}
	t.putLocked(&rec)
}

// putLocked puts rec in place of what its address had.
func (t *Table) putLocked(rec *Record) *entry {
	key := ipKey(rec.IP)
	e := t.at(key)
	t.changes++
	if e == nil {
		e = &entry{Record: *rec, version: t.changes}
		t.insertLocked(key, e)
		t.indexLocked(key, e, t.hashesOf(rec))
		t.tellLocked(key, nil, rec)
		return e
	}
	t.tellLocked(key, &e.Record, rec)
	e.version = t.changes
	if e.MAC == rec.MAC && e.Subscriber == rec.Subscriber && bytes.Equal(e.ClientID, rec.ClientID) {
		e.Record = *rec
		return e
	}
	t.unindexLocked(e)
	e.Record = *rec
	t.indexLocked(key, e, t.hashesOf(rec))
	return e
}

// Renew moves the expiry of a bound lease, or of one that is kept, which is bound again
// then. Writing it is left to the background, which takes its time unless what is on disk would end soon. It reports whether
// ip is leased to mac.
func (t *Table) Renew(ip netip.Addr, mac provision.MAC, now, expires time.Time) bool {
	return t.update(ip, mac, func(r *entry) mark {
		if r.State != StateBound && !r.Live(now) {
			return unchanged
		}
		as := lazily
		if r.State != StateBound || r.ends < now.Add(diskLeast).Unix() {
			as = urgently
		}
		r.State, r.Renewed, r.Expires = StateBound, now, expires
		return as
	})
}

// Keep marks the live lease of ip as s, StateReleased or StateDeclined, and leaves the
// address to its client until the lease expires: a message said that the client gives it up,
// and nobody could tell whether the client had sent it. Writing is left to the background. It
// reports whether ip is leased to mac and live.
func (t *Table) Keep(ip netip.Addr, mac provision.MAC, s State, now time.Time) bool {
	return t.update(ip, mac, func(r *entry) mark {
		if !r.Live(now) {
			return unchanged
		}
		r.State, r.Renewed = s, now
		return urgently
	})
}

// SetState marks the lease of ip as s, which ends it unless it is StateBound, and leaves
// writing it to the background. It reports whether ip is leased to mac.
func (t *Table) SetState(ip netip.Addr, mac provision.MAC, s State, now time.Time) bool {
	return t.update(ip, mac, func(r *entry) mark {
		r.State, r.Renewed = s, now
		if s != StateBound && r.Expires.After(now) {
			r.Expires = now
		}
		return urgently
	})
}

// End ends the live lease of ip, as if it expired at now, and leaves writing it to the background: its client was told
// that the address is not its own any more. It reports whether ip is leased to mac and live.
func (t *Table) End(ip netip.Addr, mac provision.MAC, now time.Time) bool {
	return t.update(ip, mac, func(r *entry) mark {
		if !r.Live(now) {
			return unchanged
		}
		r.Expires = now
		return urgently
	})
}

// Drop ends the live lease of ip at once, as a RELEASE of its client does, for whoever may say so in the client's place. It
// reports whether ip is leased to mac and live. Write gets that on disk.
func (t *Table) Drop(ip netip.Addr, mac provision.MAC, now time.Time) bool {
	return t.update(ip, mac, func(r *entry) mark {
		if !r.Live(now) {
			return unchanged
		}
		r.State, r.Renewed, r.Expires = StateReleased, now, now
		return urgently
	})
}

// mark says whether a change was made, and how it is to be written.
type mark uint8

const (
	unchanged mark = iota
	lazily
	urgently
)

func (t *Table) update(ip netip.Addr, mac provision.MAC, change func(*entry) mark) bool {
	key := ipKey(ip)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.at(key)
	if e == nil || e.MAC != mac {
		return false
	}
	var as mark
	if len(t.followers)+len(t.touched) > 0 {
		as = t.changeAndTellLocked(key, e, change)
	} else {
		as = change(e)
	}
	if as == unchanged {
		return false
	}
	t.changes++
	e.version = t.changes
	if as == urgently {
		t.markLocked(key, urgent)
	} else {
		t.markLocked(key, lazy)
	}
	return true
}

// changeAndTellLocked keeps what r was, which only followers ask for.
func (t *Table) changeAndTellLocked(key uint32, e *entry, change func(*entry) mark) mark {
	before := e.Record
	as := change(e)
	if as != unchanged {
		t.tellLocked(key, &before, &e.Record)
	}
	return as
}

func keyBytes(key uint32) []byte {
	return []byte{byte(key >> 24), byte(key >> 16), byte(key >> 8), byte(key)}
}

const pruneLimit = 10000

// Prune forgets up to limit records that ended more than Grace before now, and
// leaves deleting them from disk to the background. It returns how many. Whoever calls it believes the clock.
func (t *Table) Prune(now time.Time, limit int) int { return t.prune(now, math.MaxInt64, limit) }

// prune is Prune by a clock that has been steady for some time. Of what it was before nobody knows, so a record stays for as long as its client
// may take to renew it: a lease that is live is live by the clock as it is then.
func (t *Table) prune(now time.Time, steady time.Duration, limit int) (n int) {
	if steady < pruneCalm {
		return 0
	}
	t.walk(0, math.MaxUint32, t.mu.Lock, t.mu.Unlock, func(p *page) bool {
		for i := len(p.records) - 1; i >= 0 && n < limit; i-- {
			if e := p.records[i]; now.Sub(e.Expires) > Grace && now.Sub(e.Renewed) > Grace && e.Expires.Sub(e.Renewed) <= steady {
				t.forgetLocked(p, e)
				n++
			}
		}
		return n < limit
	})
	return n
}

func (t *Table) forgetLocked(p *page, e *entry) {
	key := ipKey(e.IP)
	t.markLocked(key, lazy) // one that comes back is forgotten again; and its page stays until it is written
	t.unindexLocked(e)
	t.removeLocked(p, byte(key))
	t.tellLocked(key, &e.Record, nil)
}

// Close writes what is left and ends the feed: who follows is told the rest.
// The Store stays open. Closing again writes what has changed since.
func (t *Table) Close() error {
	err := t.Flush()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.endFeedLocked()
	return err
}

// All returns every record in the order of addresses. The table is locked for readers only while the records of a /24 are
// copied: what changes meanwhile is seen if its turn is still to come.
func (t *Table) All() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		var buf []Record
		for no := uint32(0); no < pageCount; {
			buf, no = t.copyPage(buf[:0], no)
			for i := range buf {
				if !yield(buf[i]) {
					return
				}
			}
		}
	}
}

// copyPage appends the records of the first page from number no on, and tells where to go on.
func (t *Table) copyPage(buf []Record, no uint32) ([]Record, uint32) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.pages.next(no)
	if p == nil {
		return buf, pageCount
	}
	buf = slices.Grow(buf, len(p.records))
	for _, e := range p.records {
		buf = append(buf, e.Record)
	}
	return buf, p.no + 1
}

// ByMAC returns the records of a MAC, sorted by address.
func (t *Table) ByMAC(mac provision.MAC) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.chainLocked(ofMAC, t.byMAC.first(t.hash(mac[:])), func(r *Record) bool { return r.MAC == mac })
}

// ByClientID returns the records of a client identifier (option 61), sorted by address.
func (t *Table) ByClientID(id []byte) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.chainLocked(ofID, t.byID.first(t.hash(id)), func(r *Record) bool { return bytes.Equal(r.ClientID, id) })
}

// InRange returns the records of the addresses from first to last, those that end
// first at the beginning, by what they were when it began; each as it is when its turn comes, without those that are gone. It
// locks the table for a /24 at a time.
func (t *Table) InRange(first, last netip.Addr) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		lo, hi := ipKey(first), ipKey(last)
		if hi < lo {
			return
		}
		order := make([]end, 0, min(uint64(t.Len()), uint64(hi-lo)+1))
		t.Each(first, last, func(r *Record) { order = append(order, end{r.Expires.UnixNano(), ipKey(r.IP)}) })
		sortEnds(order)
		for _, o := range order {
			if r, ok := t.Get(addrOf(o.key)); ok && !yield(r) {
				return
			}
		}
	}
}

// Each calls each with the records of the addresses from first to last, in their order, each as it is when its turn comes. The table is locked
// for readers while the records of a /24 are shown: each must be quick, not call the table, and neither keep nor change what it is shown.
func (t *Table) Each(first, last netip.Addr, each func(*Record)) {
	lo, hi := ipKey(first), ipKey(last)
	if hi < lo {
		return
	}
	t.read(lo, hi, func(p *page) {
		i := byte(0)
		if p.no == lo>>8 {
			i = byte(lo)
		}
		for _, e := range p.from(i) {
			if ipKey(e.IP) <= hi {
				each(&e.Record)
			}
		}
	})
}

// end is when the lease of an address ends.
type end struct {
	at  int64 // nanoseconds since 1970
	key uint32
}

// sortEnds sorts by time, to the millisecond, and by address. Of numbers it takes a tenth of the time, which is
// half a second of a start with a million leases.
func sortEnds(order []end) {
	if len(order) == 0 {
		return
	}
	first, last := order[0].at, order[0].at
	for _, e := range order {
		first, last = min(first, e.at), max(last, e.at)
	}
	const ms = int64(time.Millisecond)
	if (last-first)/ms > math.MaxUint32 || last < first {
		slices.SortFunc(order, func(a, b end) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
		return
	}
	packed := make([]uint64, len(order))
	for i, e := range order {
		packed[i] = uint64((e.at-first)/ms)<<32 | uint64(e.key)
	}
	slices.Sort(packed)
	for i, p := range packed {
		order[i] = end{first + int64(p>>32)*ms, uint32(p)}
	}
}

// Len returns the number of records.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.n
}

// Counts is the number of records by what they are. Each is counted once.
type Counts struct {
	Bound    int `json:"bound"`
	Kept     int `json:"kept"` // released or declined by nobody knows whom, and still the client's
	Expired  int `json:"expired"`
	Released int `json:"released"`
	Declined int `json:"declined"`
	// Quarantined are addresses of pools that somebody else was found to use.
	Quarantined int `json:"quarantined"`
	Dirty       int `json:"dirty"` // changed and not yet on disk
}

// Counts tells how many records there are by what they are at now. It counts a /24 at a time, so that a record that comes
// or goes meanwhile may be counted or not.
func (t *Table) Counts(now time.Time) (c Counts) {
	t.mu.RLock()
	c.Dirty = t.due
	t.mu.RUnlock()
	t.read(0, math.MaxUint32, func(p *page) {
		for _, e := range p.records {
			c.add(&e.Record, now)
		}
	})
	return c
}

func (c *Counts) add(r *Record, now time.Time) {
	switch {
	case r.Kept(now):
		c.Kept++
	case r.State == StateReleased:
		c.Released++
	case r.State == StateDeclined:
		c.Declined++
	case r.State == StateQuarantined && now.Before(r.Expires):
		c.Quarantined++
	case r.Live(now):
		c.Bound++
	default:
		c.Expired++
	}
}
