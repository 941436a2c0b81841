package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/vlanname"
)

// dhcpTogether looks at what several keys of dhcp say.
func (d *decoder) dhcpTogether(m mapping, c *DHCP) {
	if check := m.get("check_relay_source"); c.CheckRelaySource && len(c.Relays) == 0 {
		check.problem("true without dhcp.relays: list the relays, those that forward for other relays too")
	}
	clientIDsTogether(m, c)
	matchTogether(m, c)
	classesTogether(m, c)
	subnetsTogether(m, c)
	d.poolsTogether(m, c)
}

// ipv4Listen reads an IPv4 address with a port.
func (v value) ipv4Listen(like string) (netip.AddrPort, bool) {
	ap, ok := v.listen(like)
	if ok && !ap.Addr().Is4() {
		v.problem("%s is not an IPv4 address", ap.Addr())
		return netip.AddrPort{}, false
	}
	return ap, ok
}

// matchTogether compares the ways of matching with what they need.
func matchTogether(m mapping, c *DHCP) {
	var used v4.MatchKind
	for _, way := range c.Match {
		used |= way
	}
	vlans := m.get("vlan_interfaces")
	switch vlan := used&v4.MatchVLAN != 0; {
	case vlan && !vlans.present():
		m.get("match").problem("vlan needs dhcp.vlan_interfaces: it says which interfaces are those of a VLAN")
	case !vlan && len(c.VLANInterfaces) > 0:
		vlans.warn("not used: dhcp.match has no vlan")
	}
	if slices.Contains(c.Match, v4.MatchVLAN) && slices.ContainsFunc(c.VLANInterfaces, func(t string) bool { return strings.Contains(t, "{svlan}") }) {
		vlans.warn("{svlan} is not compared with anything, for the ERP has one VLAN: the inner ones must differ, or use vlan+mac")
	}
}

func clientIDTogether(m mapping, c *v4.ClientID) {
	hexa, text := m.get("hex"), m.get("text")
	if hexa.present() == text.present() {
		m.problem("want hex or text, one of them")
		return
	}
	if !m.wrong("hex", "text") {
		m.report(c.Check())
	}
}

// clientIDsTogether finds identifiers that are given twice.
func clientIDsTogether(m mapping, c *DHCP) {
	lines := map[string]int{}
	for i, e := range m.elements("client_ids") {
		at := e.get("hex")
		if e.get("text").present() {
			at = e.get("text")
		}
		if e.get("hex").present() == e.get("text").present() {
			continue
		}
		for _, id := range c.ClientIDs[i].Values() {
			line, twice := lines[id]
			switch {
			case id == "":
			case twice:
				at.problem("the same identifier as in line %d", line)
			default:
				lines[id] = at.at.line
				continue
			}
			break
		}
	}
}

// vlanInterface reads the template of a name.
func (v value) vlanInterface() (string, bool) {
	name, ok := v.raw("the name of an interface with {vlan} in it")
	if !ok {
		return "", false
	}
	if _, err := vlanname.Compile(name); err != nil {
		v.problem("%q: %s", excerpt(name), err)
		return "", false
	}
	return name, true
}

// matchWords are the ways to find a client.
func matchWords() []string {
	return []string{v4.MatchOption82.String(), v4.MatchVLAN.String(), v4.MatchClientID.String(), v4.MatchMAC.String()}
}

// matchOrder reads the ways to find a client: words, or several joined by + that must agree.
func (*decoder) matchOrder(v value, k key, into reflect.Value) bool {
	out := []v4.MatchKind{}
	seen := map[v4.MatchKind]string{}
	v.list(func(e value) {
		s, ok := e.raw("one of " + strings.Join(matchWords(), ", "))
		if !ok {
			return
		}
		parts := strings.Split(s, "+")
		for i, word := range parts {
			if !slices.Contains(matchWords(), word) {
				e.problem("%q is not one of %s%s", excerpt(word), strings.Join(matchWords(), ", "), didYouMean(word, matchWords()))
				return
			}
			if slices.Contains(parts[:i], word) {
				e.problem("%s stands twice in %s", word, s)
				return
			}
		}
		way, err := v4.ParseMatchKind(s)
		first, twice := seen[way]
		switch {
		case err != nil:
			e.problem("%s", err)
		case twice && first == s:
			e.problem("%s is in the list twice", s)
		case twice:
			e.problem("%s says the same as %s", s, first)
		default:
			seen[way] = s
			out = append(out, way)
		}
	})
	n, ok := v.seqLen()
	if ok && n == 0 {
		v.emptyList(k)
	}
	if ok {
		into.Set(reflect.ValueOf(out))
	}
	return ok
}
