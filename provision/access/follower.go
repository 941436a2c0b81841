package access

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

const (
	// admitLimit bounds how long an acknowledgement waits until the source guard
	// lets its client in. Dhcpd sends it without a commit after twice as long.
	admitLimit = 50 * time.Millisecond
	// followApart is how long changes that nobody waits for are gathered: until then most leases are acknowledged, and looked at by Admit.
	followApart = 20 * time.Millisecond
	// interfaceTick is how soon a new interface is guarded, if only a pattern names it.
	interfaceTick = 100 * time.Millisecond
)

// Follower has an Enforcer follow what changes between two snapshots: leases and
// interfaces. The methods are safe for concurrent use; Run runs once.
type Follower struct {
	sources  *Sources
	enforcer *Enforcer
	feed     *lease.Touched
}

// Follow makes a Follower, which begins to follow the leases of the sources. The
// Inputs of the enforcer are those of the sources.
func Follow(s *Sources, e *Enforcer) *Follower {
	feed := s.leases.Touched()
	feed.Gather = followApart
	return &Follower{sources: s, enforcer: e, feed: feed}
}

// noWait is for a commit that changes nothing in the kernel.
func noWait() {}

// Admit has the kernel let clients in while their leases, which the table has
// already, are written to disk. The acknowledgements leave after the call of
// wait, so that the first packet of a client meets its element; at most
// admitLimit later if the kernel is slow. Where no lease changes an element of
// its own address nobody waits, nothing is asked of the kernel and nothing allocated.
func (f *Follower) Admit(addrs []netip.Addr) (wait func()) {
	f.feed.Drop(addrs) // they are looked at now
	done := f.enforcer.follow(addrs, true)
	if done == nil {
		return noWait
	}
	limit := time.NewTimer(admitLimit)
	return func() {
		select {
		case <-done: // an error is the enforcer's to tell; it tries again
			limit.Stop()
		case <-limit.C:
		}
	}
}

// Run has changes of leases followed that nobody waits for, such as a RELEASE,
// until ctx ends or the table is closed.
func (f *Follower) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-f.enforcer.ready: // the first round reads all leases
	}
	addrs := make([]netip.Addr, 256)
	for {
		n, err := f.feed.Next(ctx, addrs)
		if errors.Is(err, lease.ErrEnded) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		f.enforcer.follow(addrs[:n], false)
	}
}

// Interfaces has the interfaces looked at soon after one has come or gone, until
// ctx ends. view is kept up to date by somebody else.
func (f *Follower) Interfaces(ctx context.Context, view func() *provision.Interfaces) error {
	tick := time.NewTicker(interfaceTick)
	defer tick.Stop()
	last := view()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A view is a new one only if something changed.
		if now := view(); now != last {
			last = now
			f.enforcer.recheck()
		}
	}
}
