// Package garden keeps the list of what paused subscribers and guests may still
// reach: prefixes as they are configured, and the IPv4 addresses behind names,
// which are looked up again and again.
//
// An answer of the DNS is not trusted: it never opens a subscriber, the router
// itself or a private network, and its size is bounded. What was good once stays
// while the DNS fails, and an address that left an answer stays for a while, so
// that a payment under way does not break.
package garden

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Bounds of what one name may bring. An answer over TCP could hold thousands.
const (
	maxPerAnswer = 64  // addresses taken of one answer
	maxPerName   = 256 // addresses kept of one name, whose answers may rotate
)

// List is one garden as configured.
type List struct {
	Prefixes []netip.Prefix // IPv4, masked
	Names    []string       // lower case, without the final dot
}

// Options direct a Resolver. Fields with a tag are keys of the configuration
// (package config).
type Options struct {
	Paused, Guests List
	Refuse         []netip.Prefix // networks that no name may open: those of subscribers

	// Bound returns what tells whether the ERP gives an address to a customer, which no answer may open; nil: that is
	// not known yet. It may be nil itself: then nobody has one.
	Bound func() func(netip.Addr) bool

	// How often names are looked up, a tenth more or less. 10s to 1h.
	Interval time.Duration `cfg:"resolve_interval" default:"1m" min:"10s" max:"1h"` // zero: a minute

	// How long an address stays in a garden after the answers stopped having it, so
	// that a payment under way does not break. 1m to 24h.
	Keep time.Duration `cfg:"resolve_keep" default:"1h" min:"1m" max:"24h"` // zero: an hour
}

func (o Options) filled() Options {
	if o.Interval <= 0 {
		o.Interval = time.Minute
	}
	if o.Keep <= 0 {
		o.Keep = time.Hour
	}
	return o
}

// names returns the names of both lists, sorted, each once.
func (o *Options) names() []string {
	all := slices.Concat(o.Paused.Names, o.Guests.Names)
	slices.Sort(all)
	return slices.Compact(all)
}

// Lookup returns the addresses of a name. It must heed the context.
type Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

// Result is what became of one look-up. A closed set: it is a metric label.
type Result string

// The results of a look-up.
const (
	ResultOK     Result = "ok"
	ResultEmpty  Result = "empty"  // an answer without an address that may be used; what was known stays
	ResultFailed Result = "failed" // no answer; what was known stays
)

// Results lists every Result.
func Results() []Result { return []Result{ResultOK, ResultEmpty, ResultFailed} }

// Refusal is why an address of an answer is not used. A closed set: it is a
// metric label.
type Refusal string

// The refusals.
const (
	RefusedSpecial    Refusal = "special"    // unspecified, loopback, link-local, multicast or reserved
	RefusedPrivate    Refusal = "private"    // RFC 1918 or RFC 6598: the DNS has no say in our own network
	RefusedSubscriber Refusal = "subscriber" // inside a network of subscribers, or a subscriber's by the ERP
	RefusedOwn        Refusal = "own"        // an address of this router
	RefusedExcess     Refusal = "excess"     // more than an answer may hold
)

// Refusals lists every Refusal.
func Refusals() []Refusal {
	return []Refusal{RefusedSpecial, RefusedPrivate, RefusedSubscriber, RefusedOwn, RefusedExcess}
}

// Observer is told what happens. Its methods must not block.
type Observer interface {
	GardenLookup(Result)
	GardenRefused(Refusal)
	// GardenSize tells the number of names, of those whose newest look-up gave
	// nothing to use, and of the addresses behind all names.
	GardenSize(names, failing, addresses int)
}

type noObserver struct{}

func (noObserver) GardenLookup(Result)    {}
func (noObserver) GardenRefused(Refusal)  {}
func (noObserver) GardenSize(_, _, _ int) {}

// refusal judges an address of an answer; empty: it may be used.
func refusal(a netip.Addr, refuse []netip.Prefix, own []netip.Addr) Refusal {
	b := a.As4()
	switch {
	case slices.ContainsFunc(refuse, func(p netip.Prefix) bool { return p.Contains(a) }):
		return RefusedSubscriber
	case slices.Contains(own, a):
		return RefusedOwn
	// 0.0.0.0/8 (RFC 1122) and 240.0.0.0/4 with the broadcast address (RFC 1112).
	case b[0] == 0, b[0] >= 240, a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return RefusedSpecial
	case a.IsPrivate(), b[0] == 100 && b[1]&0xc0 == 64:
		return RefusedPrivate
	}
	return ""
}

// judge returns the usable IPv4 addresses of an answer, sorted, each once, and
// why the others are not used.
func judge(answer []netip.Addr, refuse []netip.Prefix, own []netip.Addr) ([]netip.Addr, map[netip.Addr]Refusal) {
	var good []netip.Addr
	bad := map[netip.Addr]Refusal{}
	for _, a := range answer {
		a = a.Unmap()
		if !a.Is4() {
			continue
		}
		if why := refusal(a, refuse, own); why != "" {
			bad[a] = why
			continue
		}
		good = append(good, a)
	}
	slices.SortFunc(good, netip.Addr.Compare)
	good = slices.Compact(good)
	if len(good) > maxPerAnswer {
		for _, a := range good[maxPerAnswer:] {
			bad[a] = RefusedExcess
		}
		good = good[:maxPerAnswer:maxPerAnswer]
	}
	return good, bad
}

// entry is what is known of one name.
type entry struct {
	seen     map[netip.Addr]time.Time // address to when an answer last had it
	good     time.Time                // of the newest answer with a usable address; zero: none
	due      time.Time                // of the next look-up
	failures int                      // look-ups in a row that gave nothing to use
	err      string                   // of the newest look-up; empty: it was good
	refused  map[netip.Addr]Refusal   // of the newest answer
	early    bool                     // some came while nobody knew which addresses are subscribers'
}

// unbound takes the addresses out of good that are a subscriber's by the ERP, and says so in bad. What the name had before
// the ERP gave it to somebody stays: a row typed by mistake must not take a payment site away.
func (e *entry) unbound(bound func(netip.Addr) bool, good []netip.Addr, bad map[netip.Addr]Refusal) []netip.Addr {
	if bound == nil {
		e.early = true
		return good
	}
	if e.early {
		maps.DeleteFunc(e.seen, func(a netip.Addr, _ time.Time) bool { return bound(a) })
		e.early = false
	}
	return slices.DeleteFunc(good, func(a netip.Addr) bool {
		if _, had := e.seen[a]; had || !bound(a) {
			return false
		}
		bad[a] = RefusedSubscriber
		return true
	})
}

// answered takes the usable addresses of an answer, at least one.
func (e *entry) answered(good []netip.Addr, now time.Time) {
	if e.seen == nil {
		e.seen = make(map[netip.Addr]time.Time, len(good))
	}
	for _, a := range good {
		e.seen[a] = now
	}
	e.good, e.failures, e.err = now, 0, ""
	if len(e.seen) > maxPerName {
		for _, a := range e.byAge()[maxPerName:] {
			delete(e.seen, a)
		}
	}
}

// byAge returns the addresses, the one seen last first.
func (e *entry) byAge() []netip.Addr {
	out := make([]netip.Addr, 0, len(e.seen))
	for a := range e.seen {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b netip.Addr) int {
		return cmp.Or(e.seen[b].Compare(e.seen[a]), a.Compare(b))
	})
	return out
}

// expire drops what has not been in an answer for longer than keep. What the
// newest good answer had stays, however long ago that was: a DNS that is down
// takes nothing away.
func (e *entry) expire(now time.Time, keep time.Duration) {
	for a, at := range e.seen {
		if at.Before(e.good) && now.Sub(at) > keep {
			delete(e.seen, a)
		}
	}
}

// disjoint returns the prefixes sorted and without those that another one covers:
// an interval set of the kernel takes no overlaps.
func disjoint(ps []netip.Prefix) []netip.Prefix {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	out := ps[:0]
	for _, p := range ps {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return slices.Clip(out)
}

// prefixes returns one garden as it is now.
func prefixes(l List, names map[string]*entry) []netip.Prefix {
	all := slices.Clone(l.Prefixes)
	for _, name := range l.Names {
		e := names[name]
		if e == nil {
			continue
		}
		for a := range e.seen {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return disjoint(all)
}
