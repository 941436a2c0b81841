package lease

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// This file writes in the background what no client waits for. What says that a lease is over, or must not be
// forgotten for another reason, is urgent and written with the next flush; a plain renewal, which only moves a time that the
// next one moves again, is lazy: several of one client, and those of many, become one write.

// The kinds of what is due: changed since it was last written.
const (
	urgent = iota
	lazy
	kinds
)

const (
	// lazyDelay is how long a renewal waits in memory at least: long enough that a commit takes many of them and a client
	// that asks again and again costs one, short beside leases, so that what a kill takes along is mended soon.
	lazyDelay = 30 * time.Second
	// diskLeast is how long what is on disk still has to last for a renewal to wait: twice lazyDelay, so that after a kill
	// a lease has another lazyDelay left, in which its client may be back.
	diskLeast = 2 * lazyDelay
	// flushChunk bounds one background commit, so that a commit that a client
	// waits for never stands behind a long one.
	flushChunk = 2000
	// savedChunk bounds how many records are noted as written under one lock.
	savedChunk = 256
)

// queue are the pages with something due, the oldest first.
type queue struct {
	first, last *page
	n           int
}

// Dirty asks the background to write the record of ip with the next flush.
func (t *Table) Dirty(ip netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markLocked(ipKey(ip), urgent)
}

func (t *Table) markLocked(key uint32, kind int) {
	if t.store == nil || key == 0 {
		return
	}
	p, i := t.pages.make(key>>8), byte(key)
	switch {
	case p.due[urgent].has(i):
		kind = urgent
	case !p.due[lazy].has(i):
		t.due++
	}
	p.due[kind].add(i)
	t.queueLocked(p, kind) // again, if a flush has just taken it
}

func (t *Table) queueLocked(p *page, kind int) {
	if p.queued[kind] {
		return
	}
	p.queued[kind] = true
	if kind == lazy {
		p.since = t.ticks
	}
	q := &t.queues[kind]
	if q.last == nil {
		q.first = p
	} else {
		q.last.behind[kind] = p
	}
	q.last = p
	q.n++
}

func (t *Table) unqueueLocked(kind int) *page {
	q := &t.queues[kind]
	p := q.first
	if q.first = p.behind[kind]; q.first == nil {
		q.last = nil
	}
	q.n--
	p.behind[kind], p.queued[kind] = nil, false
	return p
}

// Flush writes everything that is due, renewals too. After an error what could
// not be written stays due, and is urgent from then on.
func (t *Table) Flush() error {
	t.mu.Lock()
	now := t.ticks
	t.mu.Unlock()
	if err := t.flush(urgent, now); err != nil {
		return err
	}
	return t.flush(lazy, now)
}

// flush writes what is due of a kind at the time of the call, of what is lazy that of pages that were queued up to a tick.
func (t *Table) flush(kind int, upTo uint32) error {
	if t.store == nil {
		return nil
	}
	t.flushing.Lock() // so that what another flush has taken is on disk when this one returns
	defer t.flushing.Unlock()
	t.mu.Lock()
	left := t.queues[kind].n
	t.mu.Unlock()
	for left > 0 {
		keys := t.takeDue(kind, upTo, &left)
		if len(keys) == 0 {
			break
		}
		if err := t.write(keys); err != nil {
			t.again(keys)
			return fmt.Errorf("lease table: write %d records: %w", len(keys), err)
		}
	}
	return nil
}

// takeDue takes pages out of a queue, as many as fit into a chunk and left at most, and returns the addresses that are due in order.
// They stay due until they are written.
func (t *Table) takeDue(kind int, upTo uint32, left *int) []uint32 {
	var keys []uint32
	for *left > 0 && len(keys)+256 <= flushChunk {
		t.mu.Lock()
		if p := t.queues[kind].first; p == nil || kind == lazy && int32(p.since-upTo) > 0 {
			*left = 0
		} else {
			*left--
			keys = t.unqueueLocked(kind).appendDue(keys, kind)
			t.pages.tidy(p)
		}
		t.mu.Unlock()
	}
	slices.Sort(keys)
	return keys
}

func (p *page) appendDue(keys []uint32, kind int) []uint32 {
	for i := range 256 {
		if p.due[kind].has(byte(i)) {
			keys = append(keys, p.no<<8|uint32(i))
		}
	}
	return keys
}

// again has keys tried again with the next flush.
func (t *Table) again(keys []uint32) {
	for chunk := range slices.Chunk(keys, savedChunk) {
		t.mu.Lock()
		for _, k := range chunk {
			t.markLocked(k, urgent)
		}
		t.mu.Unlock()
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

// written is what a commit wrote of an address.
type written struct {
	key     uint32
	version uint64 // 0: that there is no record
	ends    int64
}

// current returns the record of an address and what there will be to note when it is written.
func (t *Table) current(key uint32) (Record, written) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.at(key)
	if e == nil {
		return Record{}, written{key: key}
	}
	return e.Record, written{key, e.version, e.Expires.Unix()}
}

// write stores what the memory has for keys when the batch has its turn: a
// commit that came before is never overwritten by something older.
func (t *Table) write(keys []uint32) error {
	return t.store.Commit(func(b *Batch) error {
		done := make([]written, 0, len(keys))
		for _, k := range keys {
			r, w := t.current(k)
			if w.version != 0 {
				b.Leases = append(b.Leases, r)
			} else {
				b.Forget = append(b.Forget, addrOf(k))
			}
			done = append(done, w)
		}
		b.OnCommit(func() { t.saved(done...) })
		return nil
	})
}

// add puts rec into a batch; the memory is Store's business. If the memory has
// the lease renewed, released or declined meanwhile, that newer record is written, also
// when it was within the same tick of the clock: what it returns is to be noted when it is on disk, unless it is zero.
func (t *Table) add(b *Batch, rec *Record) (written, error) {
	key := ipKey(rec.IP)
	if key == 0 {
		return written{}, fmt.Errorf("lease table: put %v: not an IPv4 address", rec.IP)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.at(key); e != nil && !e.Renewed.Before(rec.Renewed) {
		b.Leases = append(b.Leases, e.Record)
		return written{key, e.version, e.Expires.Unix()}, nil
	}
	b.Leases = append(b.Leases, *rec)
	return written{}, nil
}

// saved notes what is on disk now. What was changed meanwhile is still due.
func (t *Table) saved(done ...written) {
	for chunk := range slices.Chunk(done, savedChunk) {
		t.mu.Lock()
		for _, w := range chunk {
			t.savedLocked(w)
		}
		t.mu.Unlock()
	}
}

func (t *Table) savedLocked(w written) {
	p := t.pages.get(w.key >> 8)
	if p == nil {
		return
	}
	i := byte(w.key)
	e := p.at(i)
	if e != nil && w.version > e.saved { // of two batches the older one may be told last
		e.saved, e.ends = w.version, w.ends
	}
	var kind int
	switch {
	case p.due[urgent].has(i):
		kind = urgent
	case p.due[lazy].has(i):
		kind = lazy
	default:
		return
	}
	if e != nil && e.version != w.version || e == nil && w.version != 0 {
		t.queueLocked(p, kind)
		return
	}
	p.due[urgent].remove(i)
	p.due[lazy].remove(i)
	t.due--
	t.pages.tidy(p)
}

// Run flushes what is urgent every interval, and a renewal half a minute after it came, forgets old
// records every hour, unless the clock was set lately, has what is on disk follow a clock that is set, and flushes everything a last time when ctx ends. Errors go to onError, if given; what failed is tried
// again with the next interval. It returns the error of the last flush.
func (t *Table) Run(ctx context.Context, interval time.Duration, onError func(error)) error {
	flush := time.NewTicker(interval)
	defer flush.Stop()
	prune := time.NewTicker(time.Hour)
	defer prune.Stop()
	began, clock := time.Now(), steadiness{}
	wall := func(now time.Time) time.Time { return now }
	if t.wall != nil {
		wall = func(time.Time) time.Time { return t.wall() }
	}
	clock.since(wall(began), 0)
	set := setting{start: wall(began).UnixMilli()}
	follow := func() {
		now := time.Now()
		if wall := wall(now); set.due(wall, now.Sub(began)) {
			t.followClock(wall, now)
		}
	}
	wait := uint32(min(lazyDelay/interval, math.MaxInt32)) // in ticks
	for {
		select {
		case <-ctx.Done():
			follow()
			return t.Flush()
		case <-prune.C:
			now := wall(time.Now())
			t.prune(now, clock.since(now, time.Since(began)), pruneLimit)
		case <-flush.C:
			follow()
			if err := t.tick(wait); err != nil && onError != nil {
				onError(err)
			}
		}
	}
}

// tick writes what is urgent, and what is lazy and has waited for a number of ticks.
func (t *Table) tick(wait uint32) error {
	t.mu.Lock()
	t.ticks++
	now := t.ticks
	t.mu.Unlock()
	if err := t.flush(urgent, now); err != nil {
		return err
	}
	return t.flush(lazy, now-wait)
}

const (
	// pruneCalm is how long the clock must have been steady at least before records are forgotten by it. A host without a clock of its own
	// may be years off, either way, until it has asked the network.
	pruneCalm = 6 * time.Hour
	// steadyWithin is how far the clock may be set and still be the one that it was: little beside Grace.
	steadyWithin = time.Hour
)

// steadiness tells how long a clock has gone on without being set: as the monotonic one does, which nobody sets.
type steadiness struct {
	known bool
	start int64         // the Unix time at which ran was 0, by the clock as it is set now
	from  time.Duration // ran when it was seen to be so first
}

// since takes what the clock shows after ran of the monotonic one, and returns for how long of that it has been steady.
func (c *steadiness) since(wall time.Time, ran time.Duration) time.Duration {
	start := wall.Unix() - int64(ran/time.Second)
	if off := start - c.start; !c.known || max(off, -off) > int64(steadyWithin/time.Second) {
		*c = steadiness{known: true, start: start, from: ran}
	}
	return ran - c.from
}
