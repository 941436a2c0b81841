package acl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// MaxOpen bounds a maintenance: whoever forgets it has it for a day.
const MaxOpen = 24 * time.Hour

// OpenFor lets everybody through for a time, at most a day, and gives the end:
// the states, the garden and the source guard do nothing meanwhile. The kernel
// ends it by itself. A second call replaces the first.
func (t *Table) OpenFor(ctx context.Context, d time.Duration) (until time.Time, err error) {
	if d < time.Second || d > MaxOpen {
		return time.Time{}, fmt.Errorf("acl: open for %s: want 1s to %s", d, MaxOpen)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.switchLocked(ctx, d); err != nil {
		return time.Time{}, fmt.Errorf("acl: open: %w", err)
	}
	t.log.Warn("maintenance: everybody passes", "until", t.openUntil.UTC(), "for", d)
	return t.openUntil, nil
}

// Shut ends a maintenance. It is no error if there is none.
func (t *Table) Shut(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.switchLocked(ctx, 0); err != nil {
		return fmt.Errorf("acl: end maintenance: %w", err)
	}
	t.log.Info("maintenance ended", "table", tableTitle)
	return nil
}

// OpenUntil tells when the maintenance ends; zero: there is none. It asks nobody:
// what somebody else did to the switch is known from the next Observe on.
func (t *Table) OpenUntil() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !time.Now().Before(t.openUntil) {
		return time.Time{}
	}
	return t.openUntil
}

// switchLocked replaces the element of the switch, or takes it away.
func (t *Table) switchLocked(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.flushLocked(0, func(c *nftables.Conn) error { return queueOpen(c, d) })
	if err != nil {
		return err
	}
	t.setOpenLocked(d)
	gen, err := t.generationLocked(ctx)
	if err == nil && t.gen != 0 && gen == nextGeneration(t.gen) {
		t.gen = gen
	}
	return err
}

// setOpenLocked remembers what is left of a maintenance.
func (t *Table) setOpenLocked(left time.Duration) {
	t.openUntil = time.Time{}
	if left > 0 {
		t.openUntil = time.Now().Add(left)
	}
}

// openElements is the switch in its set: IPv4 passes, which is all that we look at.
func openElements(d time.Duration) []nftables.SetElement {
	return []nftables.SetElement{{Key: []byte{unix.NFPROTO_IPV4}, Timeout: d}}
}

// opened is what the set of the switch holds.
type opened struct {
	left time.Duration // of the maintenance; zero: there is none
	// endless says that somebody has put in by hand what does not end in time, or
	// is none of ours: it is replaced.
	endless bool
}

// openedLocked asks the kernel for what the set of the switch holds. A set that is not
// there, or no such set, holds nothing.
func (t *Table) openedLocked(ctx context.Context) (o opened, err error) {
	info, err := t.setLocked(ctx, ruleset.SetOpen)
	if errors.Is(err, unix.ENOENT) || err == nil && !info.readable(ruleset.Open()) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	_, err = t.elementsLocked(ctx, ruleset.SetOpen, func(e element) error {
		ends := len(e.key) == 1 && e.timeout > 0 && e.timeout <= MaxOpen
		o.endless = o.endless || !ends
		switch {
		case len(e.key) == 1 && e.key[0] != unix.NFPROTO_IPV4: // no rule of ours looks at it
		case ends:
			o.left = max(o.left, e.expires)
		default: // the catch-all element too
			o.left = MaxOpen
		}
		return nil
	})
	return o, err
}

// endLocked gives what was put into the set of the switch without an end the longest
// time that there is. The generation is the one at which it was found.
func (t *Table) endLocked(gen uint32, o opened) error {
	err := t.flushLocked(gen, func(c *nftables.Conn) error { return queueOpen(c, o.left) })
	if err != nil {
		return fmt.Errorf("end the maintenance: %w", err)
	}
	t.warnEndless(o)
	return nil
}

// warnEndless tells of a maintenance that was begun by hand without an end.
func (t *Table) warnEndless(o opened) {
	t.log.Warn("somebody has put an element without an end in time, or with one beyond the longest, into the set of the maintenance; it has one now. To end it: usher acl close",
		"table", tableTitle, "set", ruleset.SetOpen, "everybody_passes_for", o.left, "longest", MaxOpen, "by", t.lastWriters())
}

// queueOpen replaces what the set of the switch holds. It flushes the set, for an
// element that is there keeps its old time on older kernels.
func queueOpen(c *nftables.Conn, d time.Duration) error {
	c.FlushSet(ruleset.Open())
	if d == 0 {
		return nil
	}
	return c.SetAddElements(ruleset.Open(), openElements(d))
}
