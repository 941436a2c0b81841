package senders

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Status is who brought clients' packets, and what is believed only because the configuration does not say otherwise.
type Status struct {
	Relays   []Sender  `json:"relays"`          // refused ones first, then those believed by default; of each kind who sent most first
	Switches []Sender  `json:"switches"`        // interfaces with option 82 that no relay forwarded; in the same order
	More     int       `json:"more,omitempty"`  // senders that Trim left out
	Counts   []Count   `json:"counts"`          // of each state
	Option82 []Info    `json:"option82"`        // what came through believed relays, by what was thought of its option 82
	Mixed    int       `json:"mixed,omitempty"` // believed relays of whose packets some had option 82 and others had none
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

	// Of a relay that was believed.
	Option82   v4.RelayedInfo `json:"option82,omitzero"`              // what is thought now of the option 82 that it brought; zero: it brought none
	With       uint64         `json:"with_option82,omitempty"`        // packets, whatever was thought of it
	Without    uint64         `json:"without_option82,omitempty"`     // packets
	LastBare   time.Time      `json:"last_without_option82,omitzero"` // to a second; of a relay that sent both
	PasteTrust []string       `json:"paste_option82,omitempty"`       // line of the section dhcp that would believe its option 82; only where that is left out of account, of the first 20
}

// Info is how much came through believed relays of which one was thought of the option 82.
type Info struct {
	Option82 v4.RelayedInfo `json:"option82"`
	Packets  uint64         `json:"packets"` // since the start
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
	AnybodyInserts   WarningKind = "option82_unsaid" // dhcp.option82_relays is left out, and option 82 is asked
	MixedOption82    WarningKind = "option82_mixed"  // of a believed relay's packets some have option 82 and others do not, and it is asked
)

// Judge judges a packet as the packet path would now.
type Judge func(r *v4.Request)

// Status returns what is known, with each sender's state by the configuration of now. It may be called from any goroutine.
func (g *Register) Status(cfg *v4.Config, judge Judge) Status {
	st := Status{Relays: []Sender{}, Switches: []Sender{}}
	counts, of82 := [stateEnd]Count{}, [infoKinds]Info{}
	type place struct {
		giaddr, source netip.Addr
		iface          string
		query, direct  bool
	}
	found := map[place]*Sender{}
	g.mu.Lock()
	for s := range stateEnd {
		c := &g.class[s]
		missed := uint64(0)
		for i := range infoKinds {
			n := c.missed[i].Load() + c.gone[i]
			missed += n
			of82[i].count(s, n)
		}
		counts[s] = Count{State: s, Packets: missed, Missed: missed}
		for _, e := range c.entries {
			now := e.sender()
			counts[s].Packets += now.Packets
			for i := range infoKinds {
				of82[i].count(s, e.infos[i].packets.Load())
			}
			k := place{now.GIAddr, now.Source, now.Interface, now.Query, s.Switch()}
			old := found[k]
			if old == nil {
				found[k] = &now
				continue
			}
			old.Packets += now.Packets
			old.With += now.With
			old.Without += now.Without
			if now.LastBare.After(old.LastBare) {
				old.LastBare = now.LastBare
			}
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
	for i := range of82 {
		of82[i].Option82 = v4.RelayedInfo(i)
	}
	st.Counts, st.Option82, st.Networks = counts[:], of82[:], g.networks(cfg)
	st.advise(cfg)
	return st
}

// count adds packets of senders in a state, if those are believed relays.
func (i *Info) count(s State, packets uint64) {
	if s.believedRelay() {
		i.Packets += packets
	}
}

func (e *entry) sender() Sender {
	s := Sender{
		State: e.state, Interface: e.iface, Query: e.query, Packets: e.packets(),
		FirstSeen: time.Unix(0, e.first), LastSeen: time.Unix(0, e.last()),
	}
	if !e.state.Switch() {
		s.GIAddr, s.Source = netip.AddrFrom4(e.giaddr), netip.AddrFrom4(e.source)
	}
	if e.state.believedRelay() {
		bare := &e.infos[v4.InfoNone]
		s.Without = bare.packets.Load()
		s.With = s.Packets - min(s.Without, s.Packets)
		if s.Without > 0 {
			s.LastBare = time.Unix(0, bare.last.Load())
		}
	}
	return s
}

// rejudge sets the state that the sender's next packet would have; false: it would have none.
func (s *Sender) rejudge(cfg *v4.Config, judge Judge) bool {
	q := wire.Query{Type: wire.Discover, MAC: [6]byte{0x02}, GIAddr: s.GIAddr}
	if s.Query {
		q.Type = wire.LeaseQuery
	}
	if s.State.Switch() || s.With > 0 {
		q.Option82 = []byte{1, 1, 0}
	}
	r := v4.Request{Served: true}
	r.P.Read(q.Append(nil))
	r.P.From, r.P.Ingress = netip.AddrPortFrom(s.Source, 0), cfg.Line().Ingress(s.Interface)
	judge(&r)
	now, ok := stateOf(&r)
	s.State, s.Option82 = now, r.Trust.Info
	if !now.believedRelay() || s.With == 0 {
		s.LastBare = time.Time{}
	}
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
	var unlisted, inserting []netip.Addr
	for _, s := range st.Relays {
		switch s.State {
		case AnyRelay:
			p.relays = append(p.relays, s.GIAddr, s.Source)
		case UnlistedSource:
			unlisted = append(unlisted, s.Source)
			if s.Option82 == v4.InfoListed {
				inserting = append(inserting, s.Source)
			}
		}
		if s.Option82 == v4.InfoUnsaid {
			p.inserting = append(p.inserting, s.GIAddr, s.Source)
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
			} else if s.Option82 == v4.InfoUntrusted && cfg.ReadsOption82() {
				s.PasteTrust = []string{p.insertingLine(s.GIAddr, s.Source)}
			}
		}
	}
	st.Warnings = []Warning{}
	if !cfg.Line().ListsRelays() {
		st.warnOfAnyRelay(&p)
	}
	if n := len(unlisted); n > 0 && unsaid(cfg) {
		slices.SortFunc(unlisted, netip.Addr.Compare)
		w := Warning{
			Kind: SourcesUnchecked,
			Text: "dhcp.check_relay_source is left out, and " + count(len(slices.Compact(unlisted)), "address is", "addresses are") +
				" believed that relays send from and dhcp.relays does not list. Leave out what is not yours, and the others are refused:",
			Paste: append(p.relayLine(false, unlisted...), checkSource), Or: []string{"check_relay_source: false"},
		}
		if len(inserting) > 0 && len(cfg.Line().Option82Relays()) > 0 { // once relays has them, they are measured
			w.Paste = append(w.Paste, p.insertingLine(inserting...))
		}
		st.Warnings = append(st.Warnings, w)
	}
	if cfg.ReadsOption82() && !cfg.Line().StatesTrust() {
		st.warnOfAnySwitch(&p)
	}
	if cfg.ReadsOption82() && !cfg.Line().StatesOption82Relays() && (cfg.Line().ListsRelays() || len(p.inserting) > 0) {
		st.warnOfAnyInserts(&p)
	}
	st.warnOfMixed(cfg)
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

func (st *Status) warnOfAnyInserts(p *paste) {
	w := Warning{
		Kind: AnybodyInserts,
		Text: "dhcp.option82_relays is left out: option 82 that comes through a relay is believed as its word, though a relay that inserts none passes on what its client wrote. " +
			"None was seen yet.",
		Paste: []string{insertingNone},
	}
	if len(p.inserting) > 0 {
		w.Text = "dhcp.option82_relays is left out: option 82 that comes through a relay is believed as its word, though a relay that inserts none passes on what its client wrote. " +
			"It was believed of these; leave out those that neither insert it nor drop what clients write, or believe none:"
		w.Paste, w.Or = []string{p.insertingLine()}, []string{insertingNone}
	}
	st.Warnings = append(st.Warnings, w)
}

// maxMixed is how many relays a warning names.
const maxMixed = 10

// warnOfMixed names the relays of whose packets some have option 82. Nothing is decided by that: whoever is behind a relay that
// inserts none could take it away from all of its neighbours.
func (st *Status) warnOfMixed(cfg *v4.Config) {
	var named []string
	st.Mixed = 0
	for i := 0; i < len(st.Relays); i++ {
		s := &st.Relays[i]
		if !s.State.believedRelay() || s.With == 0 || s.Without == 0 {
			continue
		}
		if st.Mixed++; st.Mixed <= maxMixed {
			named = append(named, fmt.Sprintf("%s (%d with, %d without)", s.GIAddr, s.With, s.Without))
		}
	}
	if st.Mixed == 0 || !cfg.ReadsOption82() {
		return
	}
	if st.Mixed > maxMixed {
		named = append(named, fmt.Sprintf("and %d more", st.Mixed-maxMixed))
	}
	st.Warnings = append(st.Warnings, Warning{
		Kind: MixedOption82,
		Text: "Some packets of relays have option 82 and others have none: " + strings.Join(named, ", ") + ". Such a relay inserts none and passes on what clients write, " +
			"or it leaves it out where a packet gets too long, or it began or stopped to insert it, or only some of the switches below it insert it: look at its configuration, and at dhcp.option82_relays.",
		Paste: []string{},
	})
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
