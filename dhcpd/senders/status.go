package senders

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Status is who brought clients' packets, and what is believed only because the configuration does not say otherwise.
type Status struct {
	Relays   []Sender  `json:"relays"`         // refused ones first, then those believed by default; of each kind who sent most first
	Switches []Sender  `json:"switches"`       // interfaces with option 82 that no relay forwarded; in the same order
	More     int       `json:"more,omitempty"` // senders that Trim left out
	Counts   []Count   `json:"counts"`         // of each state
	Warnings []Warning `json:"warnings"`

	Networks []Networks `json:"networks"` // in which clients were whose addresses are of others; those given first
}

// Sender is one relay, by its address and the one that it sends from, or one interface.
type Sender struct {
	State     State      `json:"state"` // what is thought of it now
	GIAddr    netip.Addr `json:"giaddr,omitzero"`
	Source    netip.Addr `json:"source,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Query     bool       `json:"leasequery,omitempty"` // an access node that asks for leases
	FirstSeen time.Time  `json:"first_seen"`
	LastSeen  time.Time  `json:"last_seen"`       // to a second
	Packets   uint64     `json:"packets"`         // in whatever state it was
	Paste     []string   `json:"paste,omitempty"` // line of the section dhcp that would believe it; only of refused ones, of the first 20, and where a line would
}

// Count is how much came from senders in one state.
type Count struct {
	State   State  `json:"state"`
	Senders int    `json:"senders"` // that are kept and in this state now
	Packets uint64 `json:"packets"` // that were in it when they came, since the start
	Missed  uint64 `json:"missed"`  // of these, packets of senders that are not kept: there were too many
}

// pasteSenders is how many senders of each list have a line to paste: one may have all relays in it.
const pasteSenders = 20

// Warning is something that is believed only because the configuration does not say otherwise.
type Warning struct {
	Kind  WarningKind `json:"kind"`
	Text  string      `json:"text"`
	Paste []string    `json:"paste"`        // lines of the section dhcp that end it
	Or    []string    `json:"or,omitempty"` // or these
}

// WarningKind names a warning.
type WarningKind string

// The kinds of warnings.
const (
	AnybodyRelays    WarningKind = "any_relay"       // dhcp.relays is empty
	SourcesUnchecked WarningKind = "unlisted_source" // dhcp.check_relay_source is left out, and an unlisted source was believed
	AnybodySwitches  WarningKind = "any_switch"      // dhcp.trusted_interfaces is left out, and option 82 is asked
)

// Judge judges a packet as the packet path would now.
type Judge func(r *v4.Request)

// Status returns what is known, with each sender's state by the configuration of now. It may be called from any goroutine.
func (g *Register) Status(cfg *v4.Config, judge Judge) Status {
	st := Status{Relays: []Sender{}, Switches: []Sender{}}
	counts := [stateEnd]Count{}
	type place struct {
		giaddr, source netip.Addr
		iface          string
		query, direct  bool
	}
	found := map[place]*Sender{}
	g.mu.Lock()
	for s := range stateEnd {
		c := &g.class[s]
		missed := c.missed.Load() + c.gone
		counts[s] = Count{State: s, Packets: missed, Missed: missed}
		for _, e := range c.entries {
			now := e.sender()
			counts[s].Packets += now.Packets
			k := place{now.GIAddr, now.Source, now.Interface, now.Query, s.Switch()}
			old := found[k]
			if old == nil {
				found[k] = &now
				continue
			}
			old.Packets += now.Packets
			if now.FirstSeen.Before(old.FirstSeen) {
				old.FirstSeen = now.FirstSeen
			}
			if now.LastSeen.After(old.LastSeen) {
				old.LastSeen, old.State = now.LastSeen, now.State
			}
		}
	}
	g.mu.Unlock()
	for _, s := range found {
		if !s.rejudge(cfg, judge) {
			continue // an access node that is listed by now
		}
		counts[s.State].Senders++
		if s.State.Switch() {
			st.Switches = append(st.Switches, *s)
		} else {
			st.Relays = append(st.Relays, *s)
		}
	}
	slices.SortFunc(st.Relays, compare)
	slices.SortFunc(st.Switches, compare)
	st.Counts, st.Networks = counts[:], g.networks(cfg)
	st.advise(cfg)
	return st
}

func (e *entry) sender() Sender {
	s := Sender{
		State: e.state, Interface: e.iface, Query: e.query, Packets: e.packets.Load(),
		FirstSeen: time.Unix(0, e.first), LastSeen: time.Unix(0, e.last.Load()),
	}
	if !e.state.Switch() {
		s.GIAddr, s.Source = netip.AddrFrom4(e.giaddr), netip.AddrFrom4(e.source)
	}
	return s
}

// rejudge sets the state that the sender's next packet would have; false: it would have none.
func (s *Sender) rejudge(cfg *v4.Config, judge Judge) bool {
	q := wire.Query{Type: wire.Discover, MAC: [6]byte{0x02}, GIAddr: s.GIAddr}
	if s.Query {
		q.Type = wire.LeaseQuery
	}
	if s.State.Switch() {
		q.Option82 = []byte{1, 1, 0}
	}
	r := v4.Request{Served: true}
	r.P.Read(q.Append(nil))
	r.P.From, r.P.Ingress = netip.AddrPortFrom(s.Source, 0), cfg.Line().Ingress(s.Interface)
	judge(&r)
	now, ok := stateOf(&r)
	s.State = now
	return ok
}

// rank is 0 for who is refused, 1 for who is believed by default, 2 for who is listed.
func (s *Sender) rank() int {
	switch {
	case s.State.Refused() != 0:
		return 0
	case s.State == Relay || s.State == TrustedInterface:
		return 2
	}
	return 1
}

// compare sorts refused senders before those believed by default and the listed, who sent most first.
func compare(a, b Sender) int {
	return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Packets, a.Packets), a.GIAddr.Compare(b.GIAddr),
		a.Source.Compare(b.Source), cmp.Compare(a.Interface, b.Interface))
}

// advise writes the lines to paste and the warnings.
func (st *Status) advise(cfg *v4.Config) {
	p := paste{cfg: cfg}
	var unlisted []netip.Addr
	for _, s := range st.Relays {
		switch s.State {
		case AnyRelay:
			p.relays = append(p.relays, s.GIAddr, s.Source)
		case UnlistedSource:
			unlisted = append(unlisted, s.Source)
		}
	}
	for _, s := range st.Switches {
		if s.State == AnySwitch {
			p.ifaces = append(p.ifaces, s.Interface)
		}
	}
	for _, list := range [][]Sender{st.Relays, st.Switches} {
		for i := range list[:min(len(list), pasteSenders)] {
			if s := &list[i]; s.State.Refused() != 0 {
				s.Paste = p.lines(s.State, s.GIAddr, s.Source, s.Interface)
			}
		}
	}
	st.Warnings = []Warning{}
	if !cfg.Line().ListsRelays() {
		st.warnOfAnyRelay(&p)
	}
	if n := len(unlisted); n > 0 && unsaid(cfg) {
		slices.SortFunc(unlisted, netip.Addr.Compare)
		st.Warnings = append(st.Warnings, Warning{
			Kind: SourcesUnchecked,
			Text: "dhcp.check_relay_source is left out, and " + count(len(slices.Compact(unlisted)), "address is", "addresses are") +
				" believed that relays send from and dhcp.relays does not list. Leave out what is not yours, and the others are refused:",
			Paste: append(p.relayLine(false, unlisted...), checkSource), Or: []string{"check_relay_source: false"},
		})
	}
	if cfg.ReadsOption82() && !cfg.Line().StatesTrust() {
		st.warnOfAnySwitch(&p)
	}
}

const checkSource = "check_relay_source: true"

func (st *Status) warnOfAnyRelay(p *paste) {
	w := Warning{
		Kind:  AnybodyRelays,
		Text:  "dhcp.relays is empty: whoever gets past the first rules of trust can pose as a relay, from an address that is bound to nobody or from a host on an uplink. No relay was seen yet.",
		Paste: []string{},
	}
	if len(p.relays) > 0 {
		w.Text = "dhcp.relays is empty: whoever gets past the first rules of trust can pose as a relay, from an address that is bound to nobody or from a host on an uplink. These were seen; leave out what is not yours:"
		w.Paste = append(p.relayLine(false), checkSource)
	}
	st.Warnings = append(st.Warnings, w)
}

func (st *Status) warnOfAnySwitch(p *paste) {
	w := Warning{
		Kind:  AnybodySwitches,
		Text:  "dhcp.trusted_interfaces is left out: option 82 without a relay is believed on every interface, though a client may have written it. None was seen yet.",
		Paste: []string{trustNone},
	}
	if len(p.ifaces) > 0 {
		w.Text = "dhcp.trusted_interfaces is left out: option 82 without a relay is believed on every interface, though a client may have written it. " +
			"It was believed on these; leave out those without a switch that drops what clients write, or trust none:"
		w.Paste, w.Or = []string{p.trustLine()}, []string{trustNone}
	}
	st.Warnings = append(st.Warnings, w)
}

// Trim leaves of each list the first n who are refused, believed by default and listed, and counts the others.
func (st *Status) Trim(n int) {
	for _, list := range []*[]Sender{&st.Relays, &st.Switches} {
		var of [3]int
		before := len(*list)
		*list = slices.DeleteFunc(*list, func(s Sender) bool {
			of[s.rank()]++
			return of[s.rank()] > n
		})
		st.More += before - len(*list)
	}
}

// count writes a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
