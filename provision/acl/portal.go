package acl

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// PortalUp has HTTP of paused subscribers and guests led to the portal for a time
// from now on, if the policy has one. Whoever answers there calls it again before
// that is over; the kernel ends it by itself.
func (t *Table) PortalUp(ctx context.Context, d time.Duration) error {
	t.mu.Lock()
	defer t.release()
	if err := t.switchLocked(ctx, ruleset.PortalUp(), d); err != nil {
		return fmt.Errorf("acl: lead HTTP to the portal: %w", err)
	}
	t.portalUntil = time.Now().Add(d)
	return nil
}

// PortalDown ends it: HTTP is refused like everything else.
func (t *Table) PortalDown(ctx context.Context) error {
	t.mu.Lock()
	defer t.release()
	t.portalUntil = time.Time{}
	if err := t.switchLocked(ctx, ruleset.PortalUp(), 0); err != nil {
		return fmt.Errorf("acl: end leading HTTP to the portal: %w", err)
	}
	return nil
}
