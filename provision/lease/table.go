package lease

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Grace is how long a record stays after it expired, was released or declined:
// it still says who used an address before.
const Grace = 30 * 24 * time.Hour

// Table holds the leases in memory, in front of a Store. The packet path reads
// and changes the memory only. New facts are written by a Journal before their
// ACK leaves, everything else by Flush in the background. Its methods may be
// called from several goroutines.
type Table struct {
	store   Store // nil: memory only
	skipped []string
	bad     int

	mu      sync.RWMutex // guards the fields below
	records map[uint32]*Record
	dirty   map[uint32]struct{} // changed since they were last written
	byMAC   map[provision.MAC][]uint32
	byID    map[string][]uint32 // by client identifier, of records that have one

	followers []*Follower
	closed    bool
	overruled []uint32 // of the last Adopt: live, and the ERP has another MAC by its operator's word
}

const maxSkippedKept = 20

// New makes a table that lives in memory only.
func New() *Table {
	return &Table{
		records: map[uint32]*Record{}, dirty: map[uint32]struct{}{},
		byMAC: map[provision.MAC][]uint32{}, byID: map[string][]uint32{},
	}
}

// Open makes a table from what store keeps. A record that cannot be read is left
// out and told by Skipped: it costs its client nothing but a packet more.
func Open(store Store) (*Table, error) {
	t := New()
	t.store = store
	names := map[string]string{} // a few hundred interfaces serve all records
	err := store.Leases(func(r Record, err error) {
		if err != nil {
			t.skip(err)
			return
		}
		for _, name := range [...]*string{&r.Interface, &r.Pool} {
			if shared, ok := names[*name]; ok {
				*name = shared
			} else {
				names[*name] = *name
			}
		}
		t.found(&r)
	})
	store.Replaced(t.dirtyAll)
	if err != nil {
		return nil, fmt.Errorf("lease table: read: %w", err)
	}
	return t, nil
}

// found takes a record that the store has, also later: what memory has by then is newer.
func (t *Table) found(r *Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.records[ipKey(r.IP)]; !ok {
		t.putLocked(r)
	}
}

// dirtyAll has everything written again.
func (t *Table) dirtyAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.records {
		t.markLocked(k)
	}
}

func (t *Table) skip(err error) {
	t.bad++
	if len(t.skipped) < maxSkippedKept {
		t.skipped = append(t.skipped, err.Error())
	}
}

// Skipped tells how many stored records Open could not read, and the reasons of the first ones.
func (t *Table) Skipped() (n int, examples []string) { return t.bad, t.skipped }

// Get gives the record of an address, live or not; a zero one and false if there is none.
func (t *Table) Get(ip netip.Addr) (Record, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, ok := t.records[ipKey(ip)]
	if !ok {
		return Record{}, false
	}
	return *r, true
}

// Store puts rec in memory in place of what its address had. The table keeps
// rec's slices. To get it on disk the caller uses a Journal or Dirty next. A record
// without an IPv4 address is ignored.
func (t *Table) Store(rec Record) {
	if !rec.IP.Is4() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.records[ipKey(rec.IP)]; old != nil && old.MAC == rec.MAC && old.Start.Equal(rec.Start) {
		rec.ERP = old.ERP // it may have been learned while the packet was decided on
	}
	t.putLocked(&rec)
}

// putLocked puts rec in place of what its address had.
func (t *Table) putLocked(rec *Record) {
	key := ipKey(rec.IP)
	old := t.records[key]
	t.records[key] = rec
	t.tellLocked(key, old)
	if old != nil && old.MAC == rec.MAC && bytes.Equal(old.ClientID, rec.ClientID) {
		return
	}
	if old != nil {
		t.unindexLocked(key, old)
	}
	t.byMAC[rec.MAC] = append(t.byMAC[rec.MAC], key)
	if len(rec.ClientID) > 0 {
		t.byID[string(rec.ClientID)] = append(t.byID[string(rec.ClientID)], key)
	}
}

// unindexLocked forgets by what a record is found.
func (t *Table) unindexLocked(key uint32, rec *Record) {
	remove(t.byMAC, rec.MAC, key)
	if len(rec.ClientID) > 0 {
		remove(t.byID, string(rec.ClientID), key)
	}
}

func remove[K comparable](index map[K][]uint32, k K, key uint32) {
	rest := slices.DeleteFunc(index[k], func(x uint32) bool { return x == key })
	if len(rest) == 0 {
		delete(index, k)
		return
	}
	index[k] = rest
}

// Renew moves the expiry of a bound lease, or of one that is kept, which is bound again
// then, and leaves writing it to the background. It reports whether ip is leased to mac.
func (t *Table) Renew(ip netip.Addr, mac provision.MAC, now, expires time.Time) bool {
	return t.update(ip, mac, func(r *Record) bool {
		if r.State != StateBound && !r.Live(now) {
			return false
		}
		r.State, r.Renewed, r.Expires = StateBound, now, expires
		return true
	})
}

// Keep marks the live lease of ip as s, StateReleased or StateDeclined, and leaves the
// address to its client until the lease expires: a message said that the client gives it up,
// and nobody could tell whether the client had sent it. Writing is left to the background. It
// reports whether ip is leased to mac and live.
func (t *Table) Keep(ip netip.Addr, mac provision.MAC, s State, now time.Time) bool {
	return t.update(ip, mac, func(r *Record) bool {
		if !r.Live(now) {
			return false
		}
		r.State, r.Renewed = s, now
		return true
	})
}

// SetState marks the lease of ip as s, which ends it unless it is StateBound, and leaves
// writing it to the background. It reports whether ip is leased to mac.
func (t *Table) SetState(ip netip.Addr, mac provision.MAC, s State, now time.Time) bool {
	return t.update(ip, mac, func(r *Record) bool {
		r.State, r.Renewed = s, now
		if s != StateBound && r.Expires.After(now) {
			r.Expires = now
		}
		return true
	})
}

// End ends the live lease of ip, as if it expired at now, and leaves writing it to the background: its client was told
// that the address is not its own any more. It reports whether ip is leased to mac and live.
func (t *Table) End(ip netip.Addr, mac provision.MAC, now time.Time) bool {
	return t.update(ip, mac, func(r *Record) bool {
		if !r.Live(now) {
			return false
		}
		r.Expires = now
		return true
	})
}

// Drop ends the live lease of ip at once, as a RELEASE of its client does, for whoever may say so in the client's place. It
// reports whether ip is leased to mac and live. Write gets that on disk.
func (t *Table) Drop(ip netip.Addr, mac provision.MAC, now time.Time) bool {
	return t.update(ip, mac, func(r *Record) bool {
		if !r.Live(now) {
			return false
		}
		r.State, r.Renewed, r.Expires = StateReleased, now, now
		return true
	})
}

func (t *Table) update(ip netip.Addr, mac provision.MAC, change func(*Record) bool) bool {
	key := ipKey(ip)
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[key]
	if !ok || r.MAC != mac {
		return false
	}
	if len(t.followers) > 0 {
		ok = t.changeAndTellLocked(key, r, change)
	} else {
		ok = change(r)
	}
	if ok {
		t.markLocked(key)
	}
	return ok
}

// changeAndTellLocked keeps what r was, which only followers ask for.
func (t *Table) changeAndTellLocked(key uint32, r *Record, change func(*Record) bool) bool {
	before := *r
	if !change(r) {
		return false
	}
	t.tellLocked(key, &before)
	return true
}

// Dirty asks the background to write the record of ip.
func (t *Table) Dirty(ip netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markLocked(ipKey(ip))
}

func (t *Table) markLocked(key uint32) {
	if t.store != nil {
		t.dirty[key] = struct{}{}
	}
}

// add puts rec into a batch; the memory is Store's business. If the memory has
// the lease renewed, released or declined meanwhile, that newer record is written, also
// when it was within the same tick of the clock.
func (t *Table) add(b *Batch, rec Record) error {
	if ipKey(rec.IP) == 0 {
		return fmt.Errorf("lease table: put %v: not an IPv4 address", rec.IP)
	}
	if r, ok := t.Get(rec.IP); ok && !r.Renewed.Before(rec.Renewed) {
		rec = r
	}
	b.Leases = append(b.Leases, rec)
	return nil
}

func keyBytes(key uint32) []byte {
	return []byte{byte(key >> 24), byte(key >> 16), byte(key >> 8), byte(key)}
}

// flushChunk bounds one background commit, so that a commit that a client
// waits for never stands behind a long one.
const flushChunk = 2000

// Flush writes everything that is dirty. After an error what could not be
// written stays dirty.
func (t *Table) Flush() error {
	if t.store == nil {
		return nil
	}
	for {
		keys := t.takeDirty(flushChunk)
		if len(keys) == 0 {
			return nil
		}
		if err := t.write(keys); err != nil {
			t.mu.Lock()
			for _, k := range keys {
				t.dirty[k] = struct{}{}
			}
			t.mu.Unlock()
			return fmt.Errorf("lease table: write %d records: %w", len(keys), err)
		}
	}
}

// Write writes the record of ip and returns when it is on disk. After an error the background tries again.
func (t *Table) Write(ip netip.Addr) error {
	if t.store == nil {
		return nil
	}
	if err := t.write([]uint32{ipKey(ip)}); err != nil {
		t.Dirty(ip)
		return fmt.Errorf("lease table: write %s: %w", ip, err)
	}
	return nil
}

// takeDirty removes up to n keys from the dirty set, in key order as a Store likes them.
func (t *Table) takeDirty(n int) []uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := make([]uint32, 0, min(n, len(t.dirty)))
	for k := range t.dirty {
		if len(keys) == n {
			break
		}
		keys = append(keys, k)
		delete(t.dirty, k)
	}
	slices.Sort(keys)
	return keys
}

// write stores what the memory has for keys when the batch has its turn: a
// commit that came before is never overwritten by something older.
func (t *Table) write(keys []uint32) error {
	return t.store.Commit(func(b *Batch) error {
		for _, k := range keys {
			ip := addrOf(k)
			if r, ok := t.Get(ip); ok {
				b.Leases = append(b.Leases, r)
			} else {
				b.Forget = append(b.Forget, ip)
			}
		}
		return nil
	})
}

// Run flushes every interval, forgets old records every hour, and flushes a
// last time when ctx ends. Errors go to onError, if given; what failed is tried
// again. It returns the error of the last flush.
func (t *Table) Run(ctx context.Context, interval time.Duration, onError func(error)) error {
	flush := time.NewTicker(interval)
	defer flush.Stop()
	prune := time.NewTicker(time.Hour)
	defer prune.Stop()
	for {
		select {
		case <-ctx.Done():
			return t.Flush()
		case now := <-prune.C:
			t.Prune(now, pruneLimit)
		case <-flush.C:
		}
		if err := t.Flush(); err != nil && onError != nil {
			onError(err)
		}
	}
}

const pruneLimit = 10000

// Prune forgets up to limit records that ended more than Grace before now, and
// leaves deleting them from disk to the background. It returns how many.
func (t *Table) Prune(now time.Time, limit int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for k, r := range t.records {
		if n == limit {
			break
		}
		if now.Sub(r.Expires) > Grace && now.Sub(r.Renewed) > Grace {
			delete(t.records, k)
			t.unindexLocked(k, r)
			t.tellLocked(k, r)
			t.markLocked(k)
			n++
		}
	}
	return n
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

// All gives a copy of every record, in no order. The table is locked for
// readers only while it is copied.
func (t *Table) All() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, r := range t.collect(func(*Record) bool { return true }) {
			if !yield(r) {
				return
			}
		}
	}
}

// BySubscriber gives the records of a subscriber, sorted by address. It looks at every record.
func (t *Table) BySubscriber(id provision.SubscriberID) []Record {
	return t.sorted(func(r *Record) bool { return r.Subscriber == id })
}

// ByMAC gives the records of a MAC, sorted by address.
func (t *Table) ByMAC(mac provision.MAC) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.ofLocked(t.byMAC[mac])
}

// ByClientID gives the records of a client identifier (option 61), sorted by address.
func (t *Table) ByClientID(id []byte) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.ofLocked(t.byID[string(id)])
}

func (t *Table) ofLocked(keys []uint32) []Record {
	var found []Record
	for _, k := range keys {
		found = append(found, *t.records[k])
	}
	slices.SortFunc(found, func(a, b Record) int { return a.IP.Compare(b.IP) })
	return found
}

// InRange gives the records of the addresses from first to last, those that end
// first at the beginning. It looks at every record.
func (t *Table) InRange(first, last netip.Addr) []Record {
	lo, hi := ipKey(first), ipKey(last)
	found := t.collect(func(r *Record) bool { k := ipKey(r.IP); return k >= lo && k <= hi })
	slices.SortFunc(found, func(a, b Record) int { return cmp.Or(a.Expires.Compare(b.Expires), a.IP.Compare(b.IP)) })
	return found
}

func (t *Table) sorted(match func(*Record) bool) []Record {
	found := t.collect(match)
	slices.SortFunc(found, func(a, b Record) int { return a.IP.Compare(b.IP) })
	return found
}

func (t *Table) collect(match func(*Record) bool) []Record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []Record
	for _, r := range t.records {
		if match(r) {
			found = append(found, *r)
		}
	}
	return found
}

// Len gives the number of records.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.records)
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

// Counts tells how many records there are by what they are at now.
func (t *Table) Counts(now time.Time) Counts {
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := Counts{Dirty: len(t.dirty)}
	for _, r := range t.records {
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
	return c
}
