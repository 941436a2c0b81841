package provision

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// Kernel is where an ACL is enforced. All methods are called by one goroutine.
// A Kernel that has a method Generation() uint64 gets it shown in the status.
type Kernel interface {
	// Observe reads back what the kernel has. Order does not matter.
	Observe(ctx context.Context) (ACL, error)
	// Apply commits the changes, additions first. After an error the kernel's
	// state is taken as unknown and observed anew.
	Apply(ctx context.Context, changes []Change) error
	// Changed says cheaply whether anybody else may have written since our
	// last Observe or Apply.
	Changed(ctx context.Context) (bool, error)
}

// Flows is the table of live connections.
type Flows interface {
	// Forget deletes the connections from and to the addresses in one pass and
	// gives the number deleted. addrs are sorted.
	Forget(ctx context.Context, addrs []netip.Addr) (int, error)
}

// EnforceOptions direct an Enforcer.
type EnforceOptions struct {
	VerifyInterval time.Duration // between two full read-backs; zero: five minutes
	DryRun         bool          // compute and remember, touch nothing
}

// ErrNoSnapshot says that nothing is known yet that could be enforced.
var ErrNoSnapshot = errors.New("no snapshot yet")

// Enforcer keeps the kernel equal to the ACL of the snapshot in use.
type Enforcer struct{}

// NewEnforcer makes an Enforcer. flows and obs may be nil; kernel may be nil
// with DryRun.
func NewEnforcer(opts EnforceOptions, kernel Kernel, flows Flows, snapshot func() *Snapshot, obs EnforceObserver, log *slog.Logger) *Enforcer {
	return &Enforcer{}
}

// Run enforces until ctx ends; it gives nil then, and leaves the kernel as it is.
func (e *Enforcer) Run(ctx context.Context) error { return nil }

// Kick asks for a round now; many calls may become one.
func (e *Enforcer) Kick() {}

// Sync waits for a whole round that began after the call and gives its error:
// ErrNoSnapshot while there is no snapshot. It needs Run running.
func (e *Enforcer) Sync(ctx context.Context) error { return nil }

// Status tells everything for "usher status" and the console.
func (e *Enforcer) Status() EnforceStatus { return EnforceStatus{} }

// Reconfigure takes new options.
func (e *Enforcer) Reconfigure(opts EnforceOptions) {}
