package lease

import (
	"math"
	"time"
)

// This file has the disk follow a clock that is set. What this process gave goes on by the monotonic clock, which nobody sets, so memory stays
// right about what is left of a lease. The disk has the time by the clock as it was: after it was set forward, the next start would take live leases for over and
// give their addresses to others; after it was set back, keep those of who is gone for years.

const (
	// setFrom is how far the clock must be set for that: less than a pool waits for the client of a lease that ran out.
	setFrom = 5 * time.Second
	// offFrom is how far a time must be off to be written anew.
	offFrom = time.Second
)

// setting notices that the clock was set.
type setting struct {
	start  int64 // milliseconds since 1970 by the clock when the monotonic one was at 0
	passes int
}

// due reports whether the times of records are to be looked at, now that the clock shows wall after ran of the monotonic one. They are twice: a packet
// may have looked at the clock before it was set, and store its record after the first time.
func (c *setting) due(wall time.Time, ran time.Duration) bool {
	start := wall.UnixMilli() - ran.Milliseconds()
	if off := start - c.start; max(off, -off) >= setFrom.Milliseconds() {
		c.start, c.passes = start, 2
	}
	if c.passes == 0 {
		return false
	}
	c.passes--
	return true
}

// followClock has the times of records say by the clock, which shows wall, what they are by the monotonic one, and leaves writing that to the
// background. Of what was read from disk nobody knows by which clock it was.
func (t *Table) followClock(wall, now time.Time) {
	t.walk(0, math.MaxUint32, t.mu.Lock, t.mu.Unlock, func(p *page) bool {
		for _, e := range p.records {
			before, moved := e.Record, false
			for _, at := range [...]*time.Time{&e.Start, &e.Renewed, &e.Expires} {
				moved = moveTo(at, wall, now) || moved
			}
			if !moved {
				continue
			}
			key := ipKey(e.IP)
			t.changes++
			e.version = t.changes
			t.markLocked(key, urgent)
			t.tellLocked(key, &before, &e.Record)
		}
		return true
	})
}

// moveTo is followClock for one time. It reports whether that was off.
func moveTo(at *time.Time, wall, now time.Time) bool {
	if *at == at.Round(0) { //nolint:staticcheck // it has no monotonic reading, which Equal would not tell
		return false
	}
	moved := wall.Add(at.Sub(now))
	if off := moved.Round(0).Sub(at.Round(0)); max(off, -off) < offFrom {
		return false
	}
	*at = moved
	return true
}
