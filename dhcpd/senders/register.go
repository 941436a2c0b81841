package senders

import (
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

const (
	// replaceEvery is how often a sender that there is no room for pushes out the one of its
	// state that sent least, so that one who makes up senders is soon met by those who send on.
	replaceEvery = 100 * time.Millisecond
	// What is told in the log of new senders of a state: so many at once, then one a minute.
	logBurst = 10
	logEvery = time.Minute
)

// key is a sender in one state: a relay's address with the address that it sends from, or the
// interface alone. Who poses as a relay chooses addresses, but not the state.
type key struct {
	giaddr, source [4]byte
	ifindex        int32
	state          State
	query          bool // it asks who has which address (DHCPLEASEQUERY)
}

// entry is what is known of a key. The goroutine of the packets writes, anybody reads.
type entry struct {
	key
	iface string // name of the interface when it was first seen
	first int64  // Unix nanoseconds
	infos [infoKinds]heard
}

// infoKinds is how many ways there are to think of a relay's option 82.
const infoKinds = int(v4.InfoUntrusted) + 1

// heard is what came of an entry whose option 82 was thought of in one way.
type heard struct {
	packets atomic.Uint64
	last    atomic.Int64 // Unix nanoseconds; meaningless without packets
}

// packets returns how many there were in all.
func (e *entry) packets() (n uint64) {
	for i := range e.infos {
		n += e.infos[i].packets.Load()
	}
	return n
}

// last returns when the last one came, in Unix nanoseconds.
func (e *entry) last() int64 {
	last := e.first
	for i := range e.infos {
		last = max(last, e.infos[i].last.Load())
	}
	return last
}

// class is the senders of one state.
type class struct {
	entries []*entry
	gone    [infoKinds]uint64        // packets of senders that were pushed out
	missed  [infoKinds]atomic.Uint64 // packets of senders that there was no room for

	// These belong to the goroutine of the packets.
	replaced int64 // when a sender was last pushed out
	logFull  int64 // when logBurst may be told again
	untold   int   // new senders that the log was not told of
}

// Register is the senders that were seen. Its memory is bounded: senders of one state never
// push out those of another.
type Register struct {
	log   *slog.Logger
	mu    sync.Mutex // guards entries and gone of the classes, and pairs
	class [stateEnd]class
	pairs map[v4.OtherNetwork]*pair

	// These belong to the goroutine of the packets.
	known  map[key]*entry
	recent [256]*entry // of those that meet in a place of it the last one that sent: cheaper to find
}

// place is that of k in recent.
func (k *key) place() uint8 {
	return k.giaddr[3] ^ k.giaddr[2]<<4 ^ k.source[3]<<1 ^ uint8(k.ifindex)<<2 ^ uint8(k.state)
}

// New makes an empty register that tells log of new senders.
func New(log *slog.Logger) *Register {
	return &Register{log: log, known: map[key]*entry{}, pairs: map[v4.OtherNetwork]*pair{}}
}

// Note remembers the sender of a packet that was judged with cfg. All calls are
// of one goroutine. It allocates nothing for a known sender, nor for one that there is no room for.
func (g *Register) Note(now time.Time, r *v4.Request, cfg *v4.Config) {
	s, ok := stateOf(r)
	if !ok {
		return
	}
	k := key{state: s, ifindex: int32(min(r.Ifindex, math.MaxInt32))}
	if !s.Switch() {
		k.query = r.P.Type() == wire.LeaseQuery
		k.giaddr = r.P.GIAddr().As4() // no state of a relay without one
		if from := r.P.From.Addr().Unmap(); from.Is4() {
			k.source = from.As4()
		}
	}
	at, info := now.UnixNano(), r.Trust.Info
	recent := &g.recent[k.place()]
	e := *recent
	if e == nil || e.key != k {
		if e = g.known[k]; e == nil {
			g.add(at, k, r, cfg)
			return
		}
		*recent = e
	}
	h := &e.infos[info]
	if h.packets.Add(1) == 1 {
		g.tellInfo(at, e, r, cfg)
	}
	if at-h.last.Load() >= int64(time.Second) {
		h.last.Store(at)
	}
}

// add makes room for a new sender, if it may.
func (g *Register) add(at int64, k key, r *v4.Request, cfg *v4.Config) {
	c := &g.class[k.state]
	full := len(c.entries) >= k.state.limit()
	if full && at-c.replaced < int64(replaceEvery) && at >= c.replaced {
		c.missed[r.Trust.Info].Add(1)
		return
	}
	e := &entry{key: k, iface: r.P.Ingress.Name, first: at}
	e.infos[r.Trust.Info].last.Store(at)
	e.infos[r.Trust.Info].packets.Store(1)
	told := slices.ContainsFunc(c.entries, func(x *entry) bool { return x.source == k.source && x.ifindex == k.ifindex && x.query == k.query })
	g.mu.Lock()
	if full {
		i := c.least()
		for info := range infoKinds {
			c.gone[info] += c.entries[i].infos[info].packets.Load()
		}
		delete(g.known, c.entries[i].key)
		g.recent[c.entries[i].place()] = nil
		c.entries[i], c.replaced = e, at
	} else {
		c.entries = append(c.entries, e)
	}
	g.mu.Unlock()
	g.known[k] = e
	if !told {
		g.tell(at, e, r, cfg)
	}
	g.tellInfo(at, e, r, cfg)
}

// least returns the place of the sender that sent the fewest packets, of several the one that was silent longest.
func (c *class) least() int {
	least := 0
	for i, e := range c.entries {
		n, m := e.packets(), c.entries[least].packets()
		if n < m || n == m && e.last() < c.entries[least].last() {
			least = i
		}
	}
	return least
}

// tell logs a sender that is new by state, source and interface.
func (g *Register) tell(at int64, e *entry, r *v4.Request, cfg *v4.Config) {
	if text, ok := news(e.state, cfg); ok {
		g.warn(at, e, r, text, e.state.String(), g.lines(e, cfg), e.state == AnySwitch)
	}
}

// tellInfo logs, once of each sender, that a relay's option 82 is left out of account, or believed because nothing is said.
func (g *Register) tellInfo(at int64, e *entry, r *v4.Request, cfg *v4.Config) {
	if !cfg.ReadsOption82() {
		return
	}
	p := paste{cfg: cfg, inserting: g.inserting(e)}
	switch r.Trust.Info {
	case v4.InfoUntrusted:
		g.warn(at, e, r, "option 82 is left out of account: dhcp.option82_relays does not list the relay", "option82_untrusted", []string{p.insertingLine()}, false)
	case v4.InfoUnsaid:
		g.warn(at, e, r, "option 82 is believed of a relay only because dhcp.option82_relays is left out", "option82_unsaid", []string{p.insertingLine(), insertingNone}, true)
	}
}

// inserting are the addresses of relays whose option 82 is believed because nothing is said, and those of e.
func (g *Register) inserting(e *entry) []netip.Addr {
	addrs := []netip.Addr{netip.AddrFrom4(e.giaddr), netip.AddrFrom4(e.source)}
	for s := range stateEnd {
		for _, x := range g.class[s].entries {
			if x.infos[v4.InfoUnsaid].packets.Load() > 0 {
				addrs = append(addrs, netip.AddrFrom4(x.giaddr), netip.AddrFrom4(x.source))
			}
		}
	}
	return addrs
}

// warn logs a sender with the lines to paste, all or one of them, unless there was too much to tell of its state.
func (g *Register) warn(at int64, e *entry, r *v4.Request, text, reason string, lines []string, one bool) {
	c := &g.class[e.state]
	switch {
	case c.logFull < at || c.logFull > at+logBurst*int64(logEvery): // or the clock was set back
		c.logFull = at
	case c.logFull+int64(logEvery) > at+logBurst*int64(logEvery):
		c.untold++
		return
	}
	c.logFull += int64(logEvery)
	attrs := []any{"reason", reason}
	if !e.state.Switch() {
		attrs = append(attrs, "giaddr", netip.AddrFrom4(e.giaddr), "source", netip.AddrPortFrom(netip.AddrFrom4(e.source), r.P.From.Port()))
	}
	attrs = append(attrs, "interface", e.iface)
	if e.query {
		attrs = append(attrs, "leasequery", true)
	}
	for i, line := range lines {
		word := "paste"
		if one && i > 0 {
			word = "or"
		}
		attrs = append(attrs, word, line)
	}
	if c.untold > 0 {
		attrs = append(attrs, "more", c.untold)
		c.untold = 0
	}
	g.log.Warn(text, attrs...)
}

// news says what is to be told of a new sender of a state; ok is false for nothing.
func news(s State, cfg *v4.Config) (text string, ok bool) {
	switch s {
	case Relay, AnyRelay, TrustedInterface:
		return "", false
	case UnlistedSource:
		return "a relay is believed though dhcp.relays does not list the address that it sends from, because dhcp.check_relay_source is left out", unsaid(cfg)
	case AnySwitch:
		return "option 82 is believed on an interface only because dhcp.trusted_interfaces is left out", cfg.ReadsOption82()
	case Option82Untrusted:
		return "option 82 is left out of account: dhcp.trusted_interfaces does not list the interface", cfg.ReadsOption82()
	case LeaseQueryRefused:
		return "an access node asks for leases and is refused", true
	}
	return "packets with a relay's address are refused", true
}

// lines returns what to write to believe a sender, for the log.
func (g *Register) lines(e *entry, cfg *v4.Config) []string {
	p := paste{cfg: cfg}
	for _, x := range g.class[AnyRelay].entries {
		p.relays = append(p.relays, netip.AddrFrom4(x.giaddr), netip.AddrFrom4(x.source))
	}
	for _, x := range g.class[AnySwitch].entries {
		p.ifaces = append(p.ifaces, x.iface)
	}
	return p.lines(e.state, netip.AddrFrom4(e.giaddr), netip.AddrFrom4(e.source), e.iface)
}
