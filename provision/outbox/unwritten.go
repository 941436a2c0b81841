package outbox

import (
	"context"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A disk that fails holds up no report. What could not be put on disk is sent from memory, what was dealt with
// meanwhile is not sent again, and both are written when the disk is back: until then
// a restart would forget the one and send the other once more. Each is one report per address.

const (
	// writeAgain is how often writing is tried while the disk fails.
	writeAgain = time.Second
	// writeChunk bounds one commit, so that none that a client waits for stands behind a long one.
	writeChunk = 2000
)

// late is what memory has and the disk has not yet.
type late struct {
	wake    chan struct{}                      // there is something; one slot
	waiting map[netip.Addr]struct{}            // reports that wait for the ERP and are not on disk
	settled map[netip.Addr]provision.MACReport // dealt with, and still on disk as far as known
}

func newLate() late {
	return late{wake: make(chan struct{}, 1), waiting: map[netip.Addr]struct{}{}, settled: map[netip.Addr]provision.MACReport{}}
}

func (l *late) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Keep takes a report of which a commit failed: it is sent as any other, and written when the disk is
// back. It implements lease.Queue. A report that is none is dropped: Add has said so.
func (o *Outbox) Keep(r provision.MACReport) {
	if r, err := r.Normal(); err == nil {
		o.take(r, false)
	}
}

// found takes a report that the store has, also later: what memory knows by then is newer.
func (o *Outbox) found(r provision.MACReport) {
	o.mu.Lock()
	now := time.Now()
	settled, ok := o.late.settled[r.IP]
	if ok = ok && !r.Outranks(settled, now); !ok {
		if old := o.entries[r.IP]; old == nil || r.Outranks(old.report, now) {
			if old != nil {
				o.queue.remove(old)
			}
			o.putLocked(&entry{report: r, due: now})
			delete(o.late.waiting, r.IP)
		}
	}
	depth := len(o.entries)
	o.mu.Unlock()
	o.obs.Depth(depth)
	o.kick()
}

// writeAll has every report written again: the disk has forgotten them.
func (o *Outbox) writeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ip := range o.entries {
		o.late.waiting[ip] = struct{}{}
	}
	o.late.kick()
}

// write brings to disk what is late, until ctx ends.
func (o *Outbox) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.late.wake:
		}
		for o.Flush() != nil { // the store says why, and since when
			select {
			case <-ctx.Done():
				return
			case <-time.After(writeAgain):
			}
		}
	}
}

// Flush brings to disk what could not be written when it came. After an error it is tried again.
func (o *Outbox) Flush() error {
	for {
		settled, waiting := o.lateNow()
		switch {
		case settled > 0:
			if err := o.flushSettled(); err != nil {
				return err
			}
		case waiting > 0:
			if err := o.flushWaiting(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (o *Outbox) lateNow() (settled, waiting int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.late.settled), len(o.late.waiting)
}

// flushSettled takes reports that were dealt with out of the store. Each is put there first: of a commit that failed
// the disk may have some, which is known by nobody.
func (o *Outbox) flushSettled() error {
	var some []provision.MACReport
	err := o.store.Commit(func(b *lease.Batch) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, r := range o.late.settled {
			if len(some) == writeChunk {
				break
			}
			some = append(some, r)
		}
		b.Reports, b.Done = append(b.Reports, some...), append(b.Done, some...)
		return nil
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range some {
		if o.late.settled[r.IP] == r {
			delete(o.late.settled, r.IP)
		}
		if o.entries[r.IP] != nil { // it may have been outranked by what is gone now, or have gone with it
			o.late.waiting[r.IP] = struct{}{}
		}
	}
	return nil
}

func (o *Outbox) flushWaiting() error {
	var some []*entry
	err := o.store.Commit(func(b *lease.Batch) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		for ip := range o.late.waiting {
			e := o.entries[ip]
			if e == nil {
				delete(o.late.waiting, ip)
				continue
			}
			if len(some) == writeChunk {
				break
			}
			some = append(some, e)
			b.Reports = append(b.Reports, e.report)
		}
		return nil
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range some {
		o.onDiskLocked(e)
	}
	return nil
}

// onDiskLocked notes that an entry is on disk, as far as nothing stands before it there.
func (o *Outbox) onDiskLocked(e *entry) {
	ip := e.report.IP
	if _, before := o.late.settled[ip]; !before && o.entries[ip] == e {
		delete(o.late.waiting, ip)
	}
}
