package senders

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// unsaid reports whether unlisted sources are believed because nobody said otherwise.
func unsaid(cfg *v4.Config) bool { return cfg.Line().SourceCheck() == line.SourceUnsaid }

// paste makes lines for the section dhcp, each with all that the configuration has of its key.
type paste struct {
	cfg    *v4.Config
	relays []netip.Addr // believed because none is listed: they are to stay so
	ifaces []string     // where option 82 is believed because nothing is said

	inserting []netip.Addr // of relays whose option 82 is believed because nothing is said
}

// lines returns what believes a sender in one state; several of AnySwitch are alternatives. None: nothing would.
func (p *paste) lines(s State, giaddr, source netip.Addr, iface string) []string {
	switch s {
	case UnlistedSource, RelayUntrusted, RelaySource:
		cfg := p.cfg.Line()
		var out []string
		if listed, _ := cfg.Lists(source); !listed || s != RelaySource {
			out = p.relayLine(false, giaddr, source)
		}
		if s != RelayUntrusted && len(cfg.Option82Relays()) > 0 && cfg.Option82Relay(giaddr) { // its source is measured, once relays has it
			out = append(out, p.insertingLine(source))
		}
		return out
	case RelayNoSource, RelaySubscriber, RelayInterface:
		if source.IsUnspecified() {
			return nil // no list believes that
		}
		return p.relayLine(true, giaddr, source)
	case LeaseQueryRefused:
		return []string{"leasequery: {from: [" + addresses(p.cfg.LeaseQueryFrom(), false, giaddr) + "]}"}
	case AnySwitch:
		return []string{p.trustLine(iface), trustNone}
	case Option82Untrusted:
		return []string{p.trustLine(iface)}
	}
	return nil
}

// relayLine has the relays that are believed, and more; alone: as one address, whatever prefix has them.
func (p *paste) relayLine(alone bool, more ...netip.Addr) []string {
	if listed := p.cfg.Line().Relays(); len(listed) > 0 {
		return []string{"relays: [" + addresses(listed, alone, more...) + "]"}
	}
	return []string{"relays: [" + addresses(nil, alone, append(slices.Clone(p.relays), more...)...) + "]"}
}

const insertingNone = "option82_relays: none"

// insertingLine has the relays whose option 82 is believed, and more.
func (p *paste) insertingLine(more ...netip.Addr) string {
	return "option82_relays: [" + addresses(p.cfg.Line().Option82Relays(), false, append(slices.Clone(p.inserting), more...)...) + "]"
}

const trustNone = "trusted_interfaces: none"

// trustLine has the interfaces that are believed, and more.
func (p *paste) trustLine(more ...string) string {
	have := p.cfg.Line().TrustedInterfaces()
	more = append(append([]string{}, p.ifaces...), more...)
	slices.Sort(more)
	var names []string
	for _, n := range append(have, slices.Compact(more)...) {
		if n != "" {
			names = append(names, quoted(n))
		}
	}
	return "trusted_interfaces: [" + strings.Join(names, ", ") + "]"
}

// plain is what YAML takes for a text without quotes, and is no number, no word for yes or no and no pattern.
var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*[0-9]$`)

// quoted writes the name of an interface for YAML.
func quoted(name string) string {
	switch {
	case name == line.NoInterface:
		return `"non[e]"` // a pattern that only this name fits: the word means nowhere
	case plain.MatchString(name):
		return name
	}
	return strconv.Quote(name)
}

// addresses writes what is listed and, sorted, of more what is not; alone: what is not listed as one address.
func addresses(listed []netip.Prefix, alone bool, more ...netip.Addr) string {
	var out []string
	for _, l := range listed {
		if l.IsSingleIP() {
			out = append(out, l.Addr().String())
		} else {
			out = append(out, l.String())
		}
	}
	slices.SortFunc(more, netip.Addr.Compare)
	for _, a := range slices.Compact(more) {
		has := func(l netip.Prefix) bool { return l.Contains(a) && (!alone || l.IsSingleIP()) }
		if a.IsValid() && !a.IsUnspecified() && !slices.ContainsFunc(listed, has) {
			out = append(out, a.String())
		}
	}
	return strings.Join(out, ", ")
}

// Fold breaks a line of paste between the members of its list, so that none is longer than width
// where that can be done; what follows the first is indented.
func Fold(s string, width int) []string {
	var out []string
	for len(s) > width {
		i := strings.LastIndex(s[:width], ", ")
		if i < 0 {
			break
		}
		out = append(out, s[:i+1])
		s = "  " + s[i+2:]
	}
	return append(out, s)
}
