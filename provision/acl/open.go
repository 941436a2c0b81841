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

// switchLocked replaces the element of the switch, or takes it away. It flushes
// the set, for an element that is there keeps its old time on older kernels.
func (t *Table) switchLocked(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.flushLocked(0, func(c *nftables.Conn) error {
		c.FlushSet(ruleset.Open())
		if t.egressUp {
			c.FlushSet(ruleset.EgressOpen())
		}
		if d == 0 {
			return nil
		}
		if t.egressUp {
			if err := c.SetAddElements(ruleset.EgressOpen(), egressOpenElements(d)); err != nil {
				return err
			}
		}
		return c.SetAddElements(ruleset.Open(), openElements(d))
	})
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

// openElements is the switch in its set, for both families.
func openElements(d time.Duration) []nftables.SetElement {
	return []nftables.SetElement{{Key: []byte{unix.NFPROTO_IPV4}, Timeout: d}, {Key: []byte{unix.NFPROTO_IPV6}, Timeout: d}}
}

// openLeftLocked asks the kernel for what is left of a maintenance. A set that
// is not there, or no such set, holds none.
func (t *Table) openLeftLocked(ctx context.Context) (time.Duration, error) {
	info, err := t.setLocked(ctx, ruleset.SetOpen)
	if errors.Is(err, unix.ENOENT) || err == nil && !info.readable(ruleset.Open()) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var left time.Duration
	_, err = t.elementsLocked(ctx, ruleset.SetOpen, func(e element) error {
		if len(e.key) == 1 && e.key[0] == unix.NFPROTO_IPV4 {
			left = max(left, e.expires)
			if e.timeout == 0 {
				left = MaxOpen // put there by hand without an end: it gets one
			}
		}
		return nil
	})
	return left, err
}
