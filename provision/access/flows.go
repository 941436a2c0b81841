package access

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

// flowCleaner deletes the live connections of newly blocked addresses. What
// comes while a pass runs, or before the next may, is done in that one, all at
// once, for a pass reads the whole connection table however few addresses it is
// for. The first after a quiet time begins at once.
type flowCleaner struct {
	flows   Flows
	reached func(netip.Addr) bool // by whoever is paused
	obs     Observer
	log     *slog.Logger
	wake    chan struct{} // one slot, coalescing

	mu      sync.Mutex            // guards everything below
	pause   time.Duration         // at least this from the end of a pass to the next
	pending map[netip.Prefix]bool // whether its connections are told that they are over; no two overlap
	taken   map[netip.Prefix]bool // the same of the pass that is on
	deleted uint64
	err     string
}

func newFlowCleaner(flows Flows, pause time.Duration, reached func(netip.Addr) bool, obs Observer, log *slog.Logger) *flowCleaner {
	return &flowCleaner{flows: flows, pause: pause, reached: reached, obs: obs, log: log,
		wake: make(chan struct{}, 1), pending: make(map[netip.Prefix]bool)}
}

// every takes another pause.
func (c *flowCleaner) every(pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pause = pause
}

// add asks for a pass that includes the blocked addresses and no more the freed
// ones, whose flows may live. Whoever is stopped is not told: nothing passes to him.
func (c *flowCleaner) add(blocked, freed []netip.Prefix, stopped func(netip.Addr) bool) {
	c.mu.Lock()
	take(c.pending, freed)
	take(c.taken, freed)     // they are not to be done again
	take(c.pending, blocked) // what is cut otherwise than before
	for _, p := range blocked {
		c.pending[p] = !stopped(p.Addr()) // a subnet's piece is so as a whole
	}
	c.mu.Unlock()
	if len(blocked) > 0 {
		notify(c.wake)
	}
}

func (c *flowCleaner) run(ctx context.Context) {
	failures := 0
	for {
		var retry <-chan time.Time
		if failures > 0 {
			retry = time.After(min(firstRetry<<min(failures-1, 20), maxRetry))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-retry:
		}
		if c.pass(ctx) {
			failures = 0
		} else {
			failures++
		}
		c.mu.Lock()
		pause := time.NewTimer(c.pause)
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// pass takes all that is pending; what fails is pending again. So is whoever was
// told: what told him, and his answer, made entries of their own.
func (c *flowCleaner) pass(ctx context.Context) (ok bool) {
	c.mu.Lock()
	c.pending, c.taken = make(map[netip.Prefix]bool), c.pending
	of := slices.SortedFunc(maps.Keys(c.taken), netip.Prefix.Compare)
	var told []netip.Prefix
	addrs := 0
	for p, tell := range c.taken {
		addrs += 1 << (32 - p.Bits())
		if tell {
			told = append(told, p)
		}
	}
	c.mu.Unlock()
	if len(of) == 0 {
		return true
	}
	n, tells, err := c.forget(ctx, of, told)
	if ctx.Err() != nil && err != nil {
		return true // the end; the addresses are blocked all the same
	}
	c.obs.Flows(n, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleted += uint64(max(n, 0))
	take(c.taken, slices.Collect(maps.Keys(c.pending)))
	for p, tell := range c.taken {
		if err != nil || tell && tells {
			c.pending[p] = err != nil && tell
		}
	}
	c.taken = nil
	if err == nil {
		c.err = ""
		if len(c.pending) > 0 {
			notify(c.wake)
		}
		return true
	}
	if c.err == "" {
		c.log.Warn("flows of blocked addresses could not be deleted, will try again", "error", err, "addresses", addrs)
	}
	c.err = err.Error()
	return false
}

// forget tells too, where that can be done and there is anybody to tell.
func (c *flowCleaner) forget(ctx context.Context, of, told []netip.Prefix) (n int, tells bool, err error) {
	if t, ok := c.flows.(Teller); ok && len(told) > 0 {
		n, err = t.ForgetAndTell(ctx, of, told, c.reached)
		return n, n > 0, err
	}
	n, err = c.flows.Forget(ctx, of)
	return n, false, err
}

// take takes what lies in some prefixes out of m, of which no two overlap. What is left of a
// wider one stays, in pieces.
func take(m map[netip.Prefix]bool, out []netip.Prefix) {
	if len(m) == 0 || len(out) == 0 {
		return
	}
	for _, p := range out {
		for bits := p.Bits() - 1; bits >= provision.MinSubnetBits; bits-- {
			wide := around(p, bits)
			tell, ok := m[wide]
			if !ok {
				continue
			}
			delete(m, wide)
			for b := bits + 1; b <= p.Bits(); b++ { // the other half, at each length
				other := addrOf(number(p.Addr())&Mask(b) ^ 1<<(32-b))
				m[netip.PrefixFrom(other, b)] = tell
			}
			break
		}
	}
	gone := make(map[netip.Prefix]struct{}, len(out))
	for _, p := range out {
		gone[p] = struct{}{}
	}
	for p := range m {
		for bits := p.Bits(); bits >= provision.MinSubnetBits; bits-- {
			if _, ok := gone[around(p, bits)]; ok {
				delete(m, p)
				break
			}
		}
	}
}

// around returns the prefix of a length that a longer one lies in.
func around(p netip.Prefix, bits int) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), bits).Masked()
}

func (c *flowCleaner) totals() (deleted uint64, err string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleted, c.err
}
