package acl

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/usher-agent/usher/provision/access"
)

// DryRun is a Kernel that only remembers and says what it would do. An agent
// that may not write to the kernel runs with it; nobody is blocked.
type DryRun struct {
	log *slog.Logger

	mu  sync.Mutex // guards acl
	acl access.ACL
}

var _ access.Kernel = (*DryRun)(nil)

// NewDryRun returns an empty DryRun. A nil log is none.
func NewDryRun(log *slog.Logger) *DryRun {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &DryRun{log: log}
}

// Observe returns what the applied changes add up to.
func (d *DryRun) Observe(context.Context) (access.ACL, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.acl, nil
}

// Changed is always false: nobody else writes to a DryRun.
func (d *DryRun) Changed(context.Context) (bool, error) { return false, nil }

// Apply remembers the changes. It refuses what Table.Apply refuses.
func (d *DryRun) Apply(_ context.Context, changes []access.Change) error {
	b, err := newBatch(changes)
	if err != nil {
		return fmt.Errorf("acl: dry run: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acl = d.acl.Apply(changes)
	n := d.acl.Counts()
	d.log.Info("block lists not written, dry run", "changes", b.len(),
		"stopped", n[access.SetStopped], "paused", n[access.SetPaused], "elements", d.acl.Len())
	return nil
}
