package lease

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// Change is one change of the record of an address.
type Change struct {
	IP            netip.Addr
	Before, After Record // one whose IP is invalid: there was, or is, no record
	// Merged says that others may lie between Before and After: the follower was
	// behind, or has just begun to follow.
	Merged bool
}

// Follower is told of every change of a table, in the order of each address.
//
// It begins behind: its first changes lead, for each address, from no record to
// the one there is. Before is always what the last change of the address had as
// After, so whoever applies the changes to nothing has what the table has. A
// follower that keeps up is told of each change by itself. One that does not is
// told, for each address that has changed, of one merged change to what there is
// when it asks: it never holds up the table, nothing is left out without a word,
// and what waits for it is bounded by the number of addresses.
//
// The feed follows the memory of the table, what Get returns: a new lease is told
// while it is written to disk, so that whoever lets its client in may do so before
// the ACK. That a lease runs out is no change, since nobody changes it then:
// who minds looks at Expires.
type Follower struct {
	table *Table
	wake  wake

	// Guarded by the mutex of the table. While late is not empty, every change goes there.
	queue   []Change // a ring: what waits, change by change
	first   int      // the oldest of queue
	waiting int      // in queue
	late    map[uint32]*Record
	order   []uint32 // keys of late, the oldest first
	ended   bool
	walking bool   // the addresses from next on are still to be told
	next    uint32 // of what changes there nothing waits: it is told what there is when its turn comes
}

// queueRoom is how many changes may wait for a follower before it is behind. It
// covers some hundredths of a second of a full load of renewals, or seconds of
// an ordinary one, in half a megabyte.
const queueRoom = 1024

// wake wakes who waits for changes: something is there, or the end has come. It has one slot.
type wake chan struct{}

func newWake() wake { return make(wake, 1) }

func (w wake) kick() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// next waits until take gives something, or none is wanted, and returns how many it gave; ErrEnded after the last one, and the context's error when
// that ends first.
func (w wake) next(ctx context.Context, none bool, take func() (n int, ended bool)) (int, error) {
	for {
		n, ended := take()
		switch {
		case n > 0 || none:
			return n, nil
		case ended:
			return 0, ErrEnded
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-w:
		}
	}
}

// maxTaken bounds how many changes are taken under one lock of the table.
const maxTaken = 256

// ErrEnded is the end of the changes: the table or the follower was closed.
var ErrEnded = errors.New("lease table: no more changes")

// Follow begins to follow the table. What there is comes first, in the order of addresses; it is looked at as it is taken,
// so a beginning costs nothing.
func (t *Table) Follow() *Follower {
	f := &Follower{table: t, wake: newWake(), queue: make([]Change, queueRoom)}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.walking, f.ended = t.n > 0, t.closed
	if !f.ended {
		t.followers = append(t.followers, f)
	}
	return f
}

// tellLocked tells all followers that the record of key is not what it was before; nil: none.
func (t *Table) tellLocked(key uint32, before, after *Record) {
	for _, f := range t.followers {
		f.addLocked(key, before, after)
	}
	if len(t.touched) == 0 || before != nil && after != nil && before.goesOn(after) {
		return
	}
	for _, f := range t.touched {
		f.addLocked(key)
	}
}

func (f *Follower) addLocked(key uint32, before, after *Record) {
	if f.walking && key >= f.next {
		return // so it is when its turn comes
	}
	if _, waits := f.late[key]; waits {
		return // it is told what there is when it asks
	}
	if len(f.late) == 0 && f.waiting < len(f.queue) {
		f.queue[(f.first+f.waiting)%len(f.queue)].set(key, before, after, false)
		f.waiting++
	} else {
		if f.late == nil {
			f.late = map[uint32]*Record{}
		}
		f.late[key] = clone(before)
		f.order = append(f.order, key)
	}
	f.wake.kick()
}

// set spells no record as a zero one.
func (c *Change) set(key uint32, before, after *Record, merged bool) {
	c.IP, c.Merged = addrOf(key), merged
	c.Before, c.After = Record{}, Record{}
	if before != nil {
		c.Before = *before
	}
	if after != nil {
		c.After = *after
	}
}

func clone(r *Record) *Record {
	if r == nil {
		return nil
	}
	c := *r
	return &c
}

// Next waits for changes and puts as many as fit into buf; it returns how many.
// After the last one it returns ErrEnded, and the context's error when that ends
// first. It is called by one goroutine.
func (f *Follower) Next(ctx context.Context, buf []Change) (int, error) {
	return f.wake.next(ctx, len(buf) == 0, func() (int, bool) { return f.take(buf[:min(len(buf), maxTaken)]) })
}

func (f *Follower) take(buf []Change) (n int, ended bool) {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	n = f.walkLocked(buf)
	for ; n < len(buf) && f.waiting > 0; n++ {
		c := &f.queue[f.first]
		buf[n], *c = *c, Change{}
		f.first = (f.first + 1) % len(f.queue)
		f.waiting--
	}
	done := 0
	for ; n < len(buf) && done < len(f.order); done++ {
		key := f.order[done]
		before := f.late[key]
		var after *Record
		if e := f.table.at(key); e != nil {
			after = &e.Record
		}
		delete(f.late, key)
		if before != nil || after != nil { // came and went unseen
			buf[n].set(key, before, after, true)
			n++
		}
	}
	if f.order = f.order[done:]; len(f.order) == 0 {
		f.late, f.order = nil, nil // they may have been large
	}
	return n, f.ended && !f.walking && f.waiting == 0 && len(f.order) == 0
}

// walkLocked tells of the addresses from next on that have a record. They come before any change, or a follower that is slow would
// never be told of the last ones.
func (f *Follower) walkLocked(buf []Change) (n int) {
	for f.walking && n < len(buf) {
		p := f.table.pages.next(f.next >> 8)
		if p == nil {
			f.walking = false
			break
		}
		if p.no > f.next>>8 {
			f.next = p.no << 8
		}
		for _, e := range p.from(byte(f.next)) {
			if n == len(buf) {
				return n
			}
			key := ipKey(e.IP)
			buf[n].set(key, nil, &e.Record, true)
			n++
			f.next = key + 1
			f.walking = f.next != 0 // that was the last address of all
		}
		if f.next>>8 == p.no {
			f.next = (p.no + 1) << 8
			f.walking = f.next != 0
		}
	}
	return n
}

// Close ends the follower; what waits is dropped.
func (f *Follower) Close() {
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers = slices.DeleteFunc(t.followers, func(other *Follower) bool { return other == f })
	f.waiting, f.late, f.order, f.ended, f.walking = 0, nil, nil, true, false
	f.wake.kick()
}

// endFeedLocked ends all followers, after what waits for them.
func (t *Table) endFeedLocked() {
	for _, f := range t.followers {
		f.ended = true
		f.wake.kick()
	}
	for _, f := range t.touched {
		f.ended = true
		f.wake.kick()
	}
	t.followers, t.touched = nil, nil
}
