package access

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

const (
	// admitLimit bounds how long an acknowledgement waits until the source guard
	// lets its client in. Dhcpd sends it without a commit after twice as long.
	admitLimit = 50 * time.Millisecond
	// interfaceTick is how soon a new interface is guarded, if only a pattern names it.
	interfaceTick = 100 * time.Millisecond
)

// Follower has an Enforcer look again when its Sources have changed between two
// snapshots: leases and interfaces. The methods are safe for concurrent use.
type Follower struct {
	sources  *Sources
	enforcer *Enforcer
}

// Follow makes a Follower. The Inputs of the enforcer are those of the sources.
func Follow(s *Sources, e *Enforcer) *Follower { return &Follower{sources: s, enforcer: e} }

// Admit has the kernel let clients in while their leases, which the table has
// already, are written to disk. The acknowledgements leave after the call of
// wait, so that the first packet of a client meets its element; at most
// admitLimit later if the kernel is slow.
func (f *Follower) Admit(addrs []netip.Addr, now time.Time) (wait func()) {
	if !slices.ContainsFunc(addrs, func(ip netip.Addr) bool { return f.sources.changed(ip, now) }) {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), admitLimit)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.enforcer.Sync(ctx) // its error is the enforcer's to tell; the next round tries again
	}()
	return func() { <-done; cancel() }
}

// Touch says that the lease of addr may have changed, which nobody waits for:
// by a release, or by another interface of the same client.
func (f *Follower) Touch(addr netip.Addr, now time.Time) {
	if f.sources.changed(addr, now) {
		f.enforcer.Kick()
	}
}

// Interfaces asks for a round soon after an interface of a pattern has come or
// gone, until ctx ends. view is kept up to date by somebody else.
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
			if f.sources.opts.Load().guards() {
				f.enforcer.Kick()
			}
		}
	}
}
