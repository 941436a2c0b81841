package access

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// flowCleaner deletes the live connections of newly blocked addresses. What
// comes while a pass runs, or before the next may, is done in that one, all at
// once, for a pass reads the whole connection table however few addresses it is
// for. The first after a quiet time begins at once.
type flowCleaner struct {
	flows Flows
	obs   Observer
	log   *slog.Logger
	wake  chan struct{} // one slot, coalescing

	mu      sync.Mutex          // guards everything below
	pause   time.Duration       // at least this from the end of a pass to the next
	pending map[netip.Addr]bool // whether its connections are told that they are over
	deleted uint64
	err     string
}

func newFlowCleaner(flows Flows, pause time.Duration, obs Observer, log *slog.Logger) *flowCleaner {
	return &flowCleaner{flows: flows, pause: pause, obs: obs, log: log,
		wake: make(chan struct{}, 1), pending: make(map[netip.Addr]bool)}
}

// every takes another pause.
func (c *flowCleaner) every(pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pause = pause
}

// add asks for a pass that includes the blocked addresses and no more the freed
// ones, whose flows may live. Whoever is stopped is not told: nothing passes to him.
func (c *flowCleaner) add(blocked, freed []netip.Addr, stopped func(netip.Addr) bool) {
	c.mu.Lock()
	for _, a := range freed {
		delete(c.pending, a)
	}
	for _, a := range blocked {
		c.pending[a] = !stopped(a)
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

// pass takes all that is pending; what fails is pending again.
func (c *flowCleaner) pass(ctx context.Context) (ok bool) {
	c.mu.Lock()
	taken := c.pending
	c.pending = make(map[netip.Addr]bool)
	c.mu.Unlock()
	addrs := make([]netip.Addr, 0, len(taken))
	var told []netip.Addr
	for a, tell := range taken {
		addrs = append(addrs, a)
		if tell {
			told = append(told, a)
		}
	}
	if len(addrs) == 0 {
		return true
	}
	n, err := c.forget(ctx, sorted(addrs), told)
	if ctx.Err() != nil && err != nil {
		return true // the end; the addresses are blocked all the same
	}
	c.obs.Flows(n, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleted += uint64(max(n, 0))
	if err == nil {
		c.err = ""
		return true
	}
	if c.err == "" {
		c.log.Warn("flows of blocked addresses could not be deleted, will try again", "error", err, "addresses", len(addrs))
	}
	c.err = err.Error()
	for a, tell := range taken {
		if _, again := c.pending[a]; !again {
			c.pending[a] = tell
		}
	}
	return false
}

func (c *flowCleaner) forget(ctx context.Context, addrs, told []netip.Addr) (int, error) {
	if t, ok := c.flows.(Teller); ok && len(told) > 0 {
		return t.ForgetAndTell(ctx, addrs, told)
	}
	return c.flows.Forget(ctx, addrs)
}

func (c *flowCleaner) totals() (deleted uint64, err string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleted, c.err
}
