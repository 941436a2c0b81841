// Package wayback finds relays whose packets the kernel drops before anybody hears them, because the
// way back to them is another than the one they come by (rp_filter).
package wayback

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Interval is how often the kernel is asked.
	Interval = time.Minute
	// MaxRelays is of how many: a question takes some 20 us.
	MaxRelays = 1000
)

// Relay is a relay by the address that it sends from.
type Relay struct {
	Source netip.Addr
	On     string // the interface where it was heard last; empty: not yet
}

// Heard is a relay whose packet came.
type Heard struct {
	Relay
	Names netip.Addr // its giaddr
	At    time.Time
}

// Relays joins listed addresses with the relays that were heard: each source where it was heard
// last, and of the listed ones those of which nothing came, neither from them nor with them as giaddr.
func Relays(listed []netip.Addr, heard []Heard) []Relay {
	slices.SortStableFunc(heard, func(a, b Heard) int { return b.At.Compare(a.At) })
	var out []Relay
	known := map[netip.Addr]bool{}
	for _, h := range heard {
		if !known[h.Source] {
			out = append(out, h.Relay)
		}
		known[h.Source] = true
	}
	for _, h := range heard {
		known[h.Names] = true
	}
	for _, a := range listed {
		if !known[a] {
			out = append(out, Relay{Source: a})
		}
		known[a] = true
	}
	return out
}

// Interface is one on which relays are served.
type Interface struct {
	Name     string
	Numbered bool // it has an IPv4 address
}

// Kernel is what is asked.
type Kernel interface {
	// Ways returns the interfaces by which packets to an address may leave, as seen from an
	// interface, whose VRF counts; empty: from none. No route is no error.
	Ways(to netip.Addr, from string) ([]string, error)
	// Filter returns the rp_filter that counts for an interface.
	Filter(iface string) (int, error)
}

// Finding is a relay that is not heard.
type Finding struct {
	Source netip.Addr `json:"source"`
	On     string     `json:"interface"`    // where its packets come in, or would
	By     []string   `json:"by,omitempty"` // where packets to it leave; empty: there is no route
	Filter int        `json:"rp_filter"`    // of the interface
	Text   string     `json:"text"`         // says it in a sentence
}

// drops reports whether the kernel drops what comes in on an interface from a source to which packets leave
// by others (__fib_validate_source): with 2 any route will do, but not on an interface without an address.
func drops(filter int, on Interface, by []string) bool {
	switch {
	case filter == 0 || slices.Contains(by, on.Name):
		return false
	case filter == 1 || !on.Numbered:
		return true
	}
	return len(by) == 0
}

// Find asks the kernel for each relay. One that was heard is judged where it was heard last. One that was not
// may come in by any interface that is served: it is a finding if its packets would pass on none.
func Find(k Kernel, relays []Relay, served []Interface) ([]Finding, error) {
	found := []Finding{}
	for _, r := range relays[:min(len(relays), MaxRelays)] {
		if !r.Source.Is4() {
			continue
		}
		by, err := k.Ways(r.Source, r.On)
		if err != nil {
			return nil, err
		}
		on := served
		if r.On != "" {
			on = slices.DeleteFunc(slices.Clone(served), func(f Interface) bool { return f.Name != r.On })
		}
		worst := Finding{}
		for _, f := range on {
			filter, err := k.Filter(f.Name)
			if err != nil {
				return nil, err
			}
			if !drops(filter, f, by) {
				worst = Finding{}
				break
			}
			if worst.On == "" {
				worst = Finding{Source: r.Source, On: f.Name, By: by, Filter: filter}
			}
		}
		if worst.On != "" {
			worst.Text = worst.text(r.On != "")
			found = append(found, worst)
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return a.Source.Compare(b.Source) })
	return found, nil
}

func (f *Finding) text(heard bool) string {
	way := "no route leads to it"
	if len(f.By) > 0 {
		way = "the route to it leads by " + strings.Join(f.By, ", ")
	}
	how := "sends by " + f.On + ", but"
	if !heard {
		how = "was not heard, and"
	}
	return fmt.Sprintf("the relay %s %s %s: on %s the kernel drops its packets (rp_filter %d). Mend the route, or set net.ipv4.conf.%s.rp_filter and that of all to 0",
		f.Source, how, way, f.On, f.Filter, f.On)
}

// Checker asks again and again.
type Checker struct {
	kernel Kernel
	relays func() []Relay
	served func() []Interface
	log    *slog.Logger

	mu    sync.Mutex
	found []Finding
}

// New makes a Checker of the relays and interfaces that the functions return.
func New(k Kernel, relays func() []Relay, served func() []Interface, log *slog.Logger) *Checker {
	return &Checker{kernel: k, relays: relays, served: served, log: log}
}

// Findings returns those of the last look.
func (c *Checker) Findings() []Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found
}

// Run looks at once and then every Interval, until ctx ends.
func (c *Checker) Run(ctx context.Context) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		c.look()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// look asks once, and logs what is new.
func (c *Checker) look() {
	found, err := Find(c.kernel, c.relays(), c.served())
	if err != nil { // an interface that went meanwhile
		c.log.Debug("ways back to relays cannot be looked up", "error", err)
		return
	}
	old := c.Findings()
	const most = 20
	for i, f := range found {
		switch {
		case slices.ContainsFunc(old, func(o Finding) bool { return o.Text == f.Text }):
		case i < most:
			c.log.Warn("the kernel drops the packets of a relay", "source", f.Source, "interface", f.On, "rp_filter", f.Filter, "text", f.Text)
		}
	}
	c.mu.Lock()
	c.found = found
	c.mu.Unlock()
}
