package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config/ifname"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// RelayPlace is an element of dhcp.relays in the file.
type RelayPlace struct {
	At     keys.Problem // its place; without a reason
	Prefix netip.Prefix
}

// trustTogether says where the word of somebody counts who may be anybody. A file from before there
// were these keys goes on working: these are warnings, one of which asks for an answer.
func (l *loader) trustTogether(m keys.Mapping, c *DHCP) {
	if !c.Enabled {
		return
	}
	l.relaysTogether(m, c)
	l.insertingTogether(m, c)
	if slices.Equal(c.TrustedInterfaces, []string{line.NoInterface}) {
		l.cfg.Interfaces = append(l.cfg.Interfaces, ifname.Name{At: m.Get("trusted_interfaces").Says(""), Pattern: line.NoInterface, None: true})
	}
	if len(c.TrustedInterfaces) > 0 || !c.Matches(v4.MatchOption82) {
		return
	}
	at := m.Get("trusted_interfaces")
	state := "missing"
	if at.Present() {
		state = "an empty list says nothing"
	}
	p := at.Says("%s, and dhcp.match has option82: a client that writes option 82 itself is believed on every interface. "+
		"Name the interfaces behind switches that insert it without being relays and drop what clients send, or none", state)
	p.Paste = []string{"trusted_interfaces: " + flowList(c.likelyTrusted()), "trusted_interfaces: " + line.NoInterface}
	p.Unanswered = true
	at.Tell(p)
}

// insertingTogether asks whose option 82 is the relay's word where one can come through a relay, and looks for relays that are listed for it in
// vain.
func (l *loader) insertingTogether(m keys.Mapping, c *DHCP) {
	at := m.Get("option82_relays")
	if len(c.Option82Relays) > 0 {
		inserting(at, c)
		return
	}
	if !c.Matches(v4.MatchOption82) || c.RelaysShutOut() {
		return
	}
	state := "missing"
	if at.Present() {
		state = "an empty list says nothing"
	}
	p := at.Says("%s, and dhcp.match has option82: a relay that inserts none passes on what its client wrote, and that is believed as the relay's word. "+
		"Name the relays that insert or replace option 82, or drop what clients write; or say all, or none", state)
	if words := prefixes(c.Relays); len(words) > 0 {
		p.Paste = append(p.Paste, "option82_relays: "+flowList(words))
	}
	p.Paste = append(p.Paste, "option82_relays: "+line.EveryRelay, "option82_relays: "+line.NoRelay)
	p.Unanswered = true
	at.Tell(p)
}

// inserting warns of elements of dhcp.option82_relays that no relay of dhcp.relays is in.
func inserting(at keys.Value, c *DHCP) {
	if n, ok := at.Len(); !ok || n != len(c.Option82Relays) || len(c.Relays) == 0 {
		return
	}
	i := 0
	at.List(func(e keys.Value) {
		p, err := line.ParseRelay(c.Option82Relays[i])
		i++
		if err == nil && !slices.ContainsFunc(c.Relays, p.Overlaps) {
			e.Warn("dhcp.relays has none of it, so nothing comes through it")
		}
	})
}

// prefixes writes them as they may stand in a list, those of one address as that.
func prefixes(all []netip.Prefix) []string {
	out := make([]string, len(all))
	for i, p := range all {
		if out[i] = p.String(); p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	return out
}

// relay reads an element of dhcp.option82_relays.
func relay(v keys.Value) (string, bool) {
	s, ok := v.Raw("an IPv4 prefix or address")
	if !ok || s == line.NoRelay || s == line.EveryRelay {
		return s, ok
	}
	p, ok := v.Network()
	if !ok {
		return "", false
	}
	return prefixes([]netip.Prefix{p})[0], true
}

// Matches reports whether a way of dhcp.match has a word, by itself or joined with others.
func (c *DHCP) Matches(word v4.MatchKind) bool {
	return slices.ContainsFunc(c.Match, func(way v4.MatchKind) bool { return way&word != 0 })
}

// likelyTrusted are interfaces for a line to paste: those that are served.
func (c *DHCP) likelyTrusted() []string {
	if len(c.Interfaces) > 0 {
		return c.Interfaces
	}
	return []string{"eth1"}
}

// flowList is a list of YAML on one line.
func flowList(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if out[i] = w; strings.ContainsAny(w, `*?[]{}\,#&!|>'"%@`+"`") || w == line.NoInterface {
			out[i] = "'" + strings.ReplaceAll(w, "'", "''") + "'"
		}
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// RelaysShutOut reports whether no packet can come from a relay, though none is listed: all interfaces
// that are served are those of subscribers.
func (c *DHCP) RelaysShutOut() bool {
	return len(c.Relays) == 0 && len(c.Interfaces) > 0 && !slices.ContainsFunc(c.Interfaces, func(served string) bool {
		return !slices.Contains(c.SubscriberInterfaces, served)
	})
}

func (l *loader) relaysTogether(m keys.Mapping, c *DHCP) {
	relays := m.Get("relays")
	switch {
	case len(c.Relays) > 0 && c.CheckRelaySource == line.SourceUnsaid:
		at := m.Get("check_relay_source")
		p := at.Says("missing: a packet that names a listed relay is believed from any address that is no subscriber's, with a warning. " +
			"List the addresses that relays send from, too, and say true; or say false")
		p.Paste = []string{"check_relay_source: true"}
		at.Tell(p)
	case len(c.Relays) == 0 && !c.RelaysShutOut():
		relays.Warn("none listed: whoever reaches port 67 can pose as a relay, from a spoofed address that is nobody's or from a host on an uplink. " +
			"List them, or, where there are none, name all of dhcp.interfaces in dhcp.subscriber_interfaces")
	}
	if n, ok := relays.Len(); !ok || n != len(c.Relays) {
		return
	}
	i := 0
	relays.List(func(at keys.Value) {
		p := c.Relays[i]
		i++
		l.cfg.RelayPlaces = append(l.cfg.RelayPlaces, RelayPlace{At: at.Says(""), Prefix: p})
		n := slices.IndexFunc(c.Subnets, func(s v4.Subnet) bool { return s.Prefix.IsValid() && s.Prefix.Overlaps(p) })
		switch {
		case n < 0:
		case p.IsSingleIP() && c.Subnets[n].Gateway == p.Addr(): // it routes them: they are behind it, not beside
		case p.IsSingleIP():
			at.Warn("%s", NeighbourOfRelay(p.Addr(), fmt.Sprintf("lies in %s, which dhcp.subnets has for subscribers", c.Subnets[n].Prefix)))
		default:
			at.Warn("it covers subscribers of %s, who are no relays: what the ERP binds or a pool has is refused all the same. List the relays there as single addresses", c.Subnets[n].Prefix)
		}
	})
}

// NeighbourOfRelay is what to know of a relay, listed as one address, whose wire it shares with subscribers.
func NeighbourOfRelay(relay netip.Addr, why string) string {
	return fmt.Sprintf("%s %s: nothing in IP tells a neighbour that takes this address from the relay. "+
		"Give the relay an address elsewhere, or have the switches filter the source addresses of subscribers", relay, why)
}
