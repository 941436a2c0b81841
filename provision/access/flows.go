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
	flows   Flows
	reached func(netip.Addr) bool // by whoever is paused
	obs     Observer
	log     *slog.Logger
	wake    chan struct{} // one slot, coalescing

	mu      sync.Mutex          // guards everything below
	pause   time.Duration       // at least this from the end of a pass to the next
	pending map[netip.Addr]bool // whether its connections are told that they are over
	taken   map[netip.Addr]bool // the same of the pass that is on
	deleted uint64
	err     string
}

func newFlowCleaner(flows Flows, pause time.Duration, reached func(netip.Addr) bool, obs Observer, log *slog.Logger) *flowCleaner {
	return &flowCleaner{flows: flows, pause: pause, reached: reached, obs: obs, log: log,
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
		delete(c.taken, a) // it is not to be done again
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

// pass takes all that is pending; what fails is pending again. So is whoever was
// told: what told him, and his answer, made entries of their own.
func (c *flowCleaner) pass(ctx context.Context) (ok bool) {
	c.mu.Lock()
	c.pending, c.taken = make(map[netip.Addr]bool), c.pending
	addrs := make([]netip.Addr, 0, len(c.taken))
	var told []netip.Addr
	for a, tell := range c.taken {
		addrs = append(addrs, a)
		if tell {
			told = append(told, a)
		}
	}
	c.mu.Unlock()
	if len(addrs) == 0 {
		return true
	}
	n, tells, err := c.forget(ctx, sorted(addrs), told)
	if ctx.Err() != nil && err != nil {
		return true // the end; the addresses are blocked all the same
	}
	c.obs.Flows(n, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleted += uint64(max(n, 0))
	for a, tell := range c.taken {
		if _, again := c.pending[a]; !again && (err != nil || tell && tells) {
			c.pending[a] = err != nil && tell
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
		c.log.Warn("flows of blocked addresses could not be deleted, will try again", "error", err, "addresses", len(addrs))
	}
	c.err = err.Error()
	return false
}

// forget tells too, where that can be done and there is anybody to tell.
func (c *flowCleaner) forget(ctx context.Context, addrs, told []netip.Addr) (n int, tells bool, err error) {
	if t, ok := c.flows.(Teller); ok && len(told) > 0 {
		n, err = t.ForgetAndTell(ctx, addrs, told, c.reached)
		return n, n > 0, err
	}
	n, err = c.flows.Forget(ctx, addrs)
	return n, false, err
}

func (c *flowCleaner) totals() (deleted uint64, err string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleted, c.err
}
