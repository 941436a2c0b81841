package route

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// checkPause is the least time between two looks at the settings of all interfaces, of which
	// no event tells.
	checkPause = time.Second
	// checkShare bounds what these looks cost while interfaces come and go: one is followed by a hundred
	// times its own duration without another. A look reads some eight files of each interface.
	checkShare = 100
)

// checks are the interfaces whose settings are to be looked at. The mutex of the Keeper guards them.
type checks struct {
	wake  chan struct{}       // one slot, coalescing
	names map[string]struct{} // these now
	all   bool                // all of them, when it is time
	now   bool                // which it is
}

// checker looks at the settings of the interfaces that are served, beside the rounds: nobody
// who waits for a route waits for it. One goroutine owns it.
type checker struct {
	k      *Keeper
	found  []InterfaceFinding // by interface; never changed, but replaced
	counts map[Finding]int
	due    time.Time // before it all are not looked at
}

// run looks at what waits until ctx ends.
func (c *checker) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.k.checks.wake:
		case <-timer.C:
		}
		if wait := c.look(time.Now()); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// look checks what is to be checked at now. It returns how long to wait if more is to be done then.
func (c *checker) look(now time.Time) (wait time.Duration) {
	k := c.k
	k.mu.Lock()
	opts, todo := k.opts, map[string]Link{}
	all := k.checks.all && (k.checks.now || !now.Before(c.due))
	if all {
		k.checks.all, k.checks.now = false, false
		for name, i := range k.index {
			todo[name] = k.links[i]
		}
		for _, f := range c.found { // it may be gone
			if _, there := todo[f.Interface]; !there {
				todo[f.Interface] = Link{}
			}
		}
	} else {
		for name := range k.checks.names {
			todo[name] = k.links[k.index[name]] // none: the index 0 is nobody's
		}
		if k.checks.all {
			wait = c.due.Sub(now)
		}
	}
	clear(k.checks.names)
	k.mu.Unlock()
	if opts.Settings == nil {
		return 0
	}
	before := c.found
	for _, name := range slices.Sorted(maps.Keys(todo)) {
		c.set(name, opts.findings(todo[name]))
	}
	if all {
		c.due = now.Add(max(checkPause, checkShare*time.Since(now)))
	}
	if all || !slices.Equal(before, c.found) {
		c.publish()
	}
	return wait
}

// findings returns those of an interface: none of one that is down, gone or not served.
func (o *Options) findings(l Link) []Finding {
	if !l.Up || !o.Serves(l.Name) {
		return nil
	}
	s, err := o.Settings(l)
	if err != nil {
		return []Finding{FindingUnreadable}
	}
	return CheckLink(s)
}

// set replaces the findings of an interface and warns of new ones.
func (c *checker) set(name string, list []Finding) {
	first, _ := slices.BinarySearchFunc(c.found, name, func(f InterfaceFinding, name string) int { return strings.Compare(f.Interface, name) })
	last := first
	for last < len(c.found) && c.found[last].Interface == name {
		last++
	}
	old := c.found[first:last]
	if slices.EqualFunc(old, list, func(f InterfaceFinding, now Finding) bool { return f.Finding == now }) {
		return
	}
	for _, f := range old {
		if c.counts[f.Finding]--; c.counts[f.Finding] == 0 {
			delete(c.counts, f.Finding)
		}
	}
	next := make([]InterfaceFinding, 0, len(c.found)-len(old)+len(list))
	next = append(next, c.found[:first]...)
	for _, f := range list {
		c.counts[f]++
		next = append(next, InterfaceFinding{name, f, f.Explain()})
		if !slices.ContainsFunc(old, func(o InterfaceFinding) bool { return o.Finding == f }) {
			c.k.log.Warn("setting of an interface with routes", "interface", name, "finding", f, "text", f.Explain())
		}
	}
	c.found = append(next, c.found[last:]...)
}

func (c *checker) publish() {
	c.k.obs.RouteSettings(maps.Clone(c.counts))
	c.k.mu.Lock()
	c.k.status.Findings = c.found
	c.k.mu.Unlock()
}
