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
	defer t.release()
	if err := t.switchLocked(ctx, ruleset.Open(), d); err != nil {
		return time.Time{}, fmt.Errorf("acl: open: %w", err)
	}
	t.setOpenLocked(d)
	t.log.Warn("maintenance: everybody passes", "until", t.openUntil.UTC(), "for", d)
	return t.openUntil, nil
}

// Shut ends a maintenance. It is no error if there is none.
func (t *Table) Shut(ctx context.Context) error {
	t.mu.Lock()
	defer t.release()
	if err := t.switchLocked(ctx, ruleset.Open(), 0); err != nil {
		return fmt.Errorf("acl: end maintenance: %w", err)
	}
	t.setOpenLocked(0)
	t.log.Info("maintenance ended", "table", tableTitle)
	return nil
}

// OpenUntil tells when the maintenance ends; zero: there is none. It asks nobody:
// what somebody else did to the switch is known from the next Observe on.
func (t *Table) OpenUntil() time.Time {
	until := t.lastKnown().openUntil
	if !time.Now().Before(until) {
		return time.Time{}
	}
	return until
}

// switchLocked replaces the element of a switch, or takes it away.
func (t *Table) switchLocked(ctx context.Context, set *nftables.Set, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.flushLocked(0, func(c *nftables.Conn) error { return t.queueSwitchLocked(c, set, d) })
	if err != nil {
		return err
	}
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

// switchedOn is what a set holds that is a switch. The maintenance is for both families, the portal knows IPv4.
func switchedOn(set *nftables.Set, d time.Duration) []nftables.SetElement {
	out := []nftables.SetElement{{Key: []byte{unix.NFPROTO_IPV4}, Timeout: d}}
	if set.Name == ruleset.SetOpen {
		out = append(out, nftables.SetElement{Key: []byte{unix.NFPROTO_IPV6}, Timeout: d})
	}
	return out
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
	left6 := time.Duration(0)
	_, err = t.elementsLocked(ctx, ruleset.SetOpen, func(e element) error {
		ends := len(e.key) == 1 && e.timeout > 0 && e.timeout <= MaxOpen
		o.endless = o.endless || !ends
		switch {
		case len(e.key) == 1 && e.key[0] != unix.NFPROTO_IPV4: // by itself it opens nothing of IPv4, and an endless one goes
			left6 = max(left6, e.expires)
		case ends:
			o.left = max(o.left, e.expires)
		default: // the catch-all element too
			o.left = MaxOpen
		}
		return nil
	})
	// A maintenance is of both families: IPv6 open for longer is none, and nobody would be told.
	const slack = time.Second // between the ends of two elements that were put in together
	o.endless = o.endless || left6 > o.left+slack
	return o, err
}

// endLocked returns what was put into the set of the switch without an end the longest
// time that there is. The generation is the one at which it was found; zero: whatever it is.
func (t *Table) endLocked(gen uint32, o opened) error {
	err := t.flushLocked(gen, func(c *nftables.Conn) error { return queueSwitch(c, ruleset.Open(), o.left) })
	if err != nil {
		return fmt.Errorf("end the maintenance: %w", err)
	}
	t.warnEndless(o)
	return nil
}

// warnEndless tells of a maintenance that was begun by hand without an end.
func (t *Table) warnEndless(o opened) {
	t.log.Warn("somebody has put into the set of the maintenance an element without an end in time, with one beyond the longest, or one for IPv6 alone; what is open now has an end. To end it: usher acl close",
		"table", tableTitle, "set", ruleset.SetOpen, "everybody_passes_for", o.left, "longest", MaxOpen, "by", t.lastWriters())
}

// queueSwitchLocked is queueSwitch, for the maintenance in both tables.
func (t *Table) queueSwitchLocked(c *nftables.Conn, set *nftables.Set, d time.Duration) error {
	if set.Name == ruleset.SetOpen && t.egressUp {
		c.FlushSet(ruleset.EgressOpen())
		if d > 0 {
			if err := c.SetAddElements(ruleset.EgressOpen(), egressOpenElements(d)); err != nil {
				return err
			}
		}
	}
	return queueSwitch(c, set, d)
}

// queueSwitch replaces what the set of a switch holds. It flushes the set, for an
// element that is there keeps its old time on older kernels.
func queueSwitch(c *nftables.Conn, set *nftables.Set, d time.Duration) error {
	c.FlushSet(set)
	if d == 0 {
		return nil
	}
	return c.SetAddElements(set, switchedOn(set, d))
}
