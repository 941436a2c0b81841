package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/vlanname"
)

// dhcpTogether looks at what several keys of dhcp say.
func (l *loader) dhcpTogether(m keys.Mapping, c *DHCP) {
	clientIDsTogether(m, c)
	matchTogether(m, c)
	l.trustTogether(m, c)
	classesTogether(m, c)
	subnetsTogether(m, c)
	sharedTogether(m, c)
	l.poolsTogether(m, c)
}

// ipv4Listen reads an IPv4 address with a port.
func ipv4Listen(v keys.Value, like string) (netip.AddrPort, bool) {
	ap, ok := v.Listen(like)
	if ok && !ap.Addr().Is4() {
		v.Problem("%s is not an IPv4 address", ap.Addr())
		return netip.AddrPort{}, false
	}
	return ap, ok
}

// matchTogether compares the ways of matching with what they need.
func matchTogether(m keys.Mapping, c *DHCP) {
	var used v4.MatchKind
	for _, way := range c.Match {
		used |= way
	}
	vlans := m.Get("vlan_interfaces")
	switch vlan := used&v4.MatchVLAN != 0; {
	case vlan && !vlans.Present():
		m.Get("match").Problem("vlan needs dhcp.vlan_interfaces: it says which interfaces are those of a VLAN")
	case !vlan && len(c.VLANInterfaces) > 0:
		vlans.Warn("not used: dhcp.match has no vlan")
	}
	if slices.Contains(c.Match, v4.MatchVLAN) && slices.ContainsFunc(c.VLANInterfaces, func(t string) bool { return strings.Contains(t, "{svlan}") }) {
		vlans.Warn("{svlan} is not compared with anything, for the ERP has one VLAN: the inner ones must differ, or use vlan+mac")
	}
}

func clientIDTogether(m keys.Mapping, c *v4.ClientID) {
	hexa, text := m.Get("hex"), m.Get("text")
	if hexa.Present() == text.Present() {
		m.Problem("want hex or text, one of them")
		return
	}
	at := hexa
	if text.Present() {
		at = text
	}
	if err := c.Check(); err != nil && !m.Wrong("hex", "text") {
		at.Problem("%s", err)
	}
}

// clientIDsTogether finds identifiers that are given twice.
func clientIDsTogether(m keys.Mapping, c *DHCP) {
	lines := map[string]int{}
	for i, e := range m.Elements("client_ids") {
		at := e.Get("hex")
		if e.Get("text").Present() {
			at = e.Get("text")
		}
		if e.Get("hex").Present() == e.Get("text").Present() {
			continue
		}
		for _, id := range c.ClientIDs[i].Values() {
			line, twice := lines[id]
			switch {
			case id == "":
			case twice:
				at.Problem("the same identifier as in line %d", line)
			default:
				lines[id] = at.Line()
				continue
			}
			break
		}
	}
}

// sourceCheck reads true or false, which are both something else than nothing.
func sourceCheck(v keys.Value) (line.SourceCheck, bool) {
	on, ok := v.Truth()
	if on {
		return line.SourceListed, ok
	}
	return line.SourceAny, ok
}

// vlanInterface reads the template of a name.
func (l *loader) vlanInterface(v keys.Value) (string, bool) {
	name, ok := v.Raw("the name of an interface with {vlan} in it")
	if !ok {
		return "", false
	}
	if _, err := vlanname.Compile(name); err != nil {
		v.Problem("%q: %s", keys.Excerpt(name), err)
		return "", false
	}
	l.namesInterface(v, name, true)
	return name, true
}

// matchWords are the ways to find a client.
func matchWords() []string {
	return []string{v4.MatchOption82.String(), v4.MatchVLAN.String(), v4.MatchClientID.String(), v4.MatchMAC.String()}
}

// matchOrder reads the ways to find a client: words, or several joined by + that must agree.
func matchOrder(v keys.Value, k keys.Key, into reflect.Value) bool {
	out := []v4.MatchKind{}
	seen := map[v4.MatchKind]string{}
	v.List(func(e keys.Value) {
		s, ok := e.Raw("one of " + strings.Join(matchWords(), ", "))
		if !ok {
			return
		}
		parts := strings.Split(s, "+")
		for i, word := range parts {
			if !slices.Contains(matchWords(), word) {
				e.Problem("%q is not one of %s%s", keys.Excerpt(word), strings.Join(matchWords(), ", "), keys.DidYouMean(word, matchWords()))
				return
			}
			if slices.Contains(parts[:i], word) {
				e.Problem("%s stands twice in %s", word, s)
				return
			}
		}
		way, err := v4.ParseMatchKind(s)
		first, twice := seen[way]
		switch {
		case err != nil:
			e.Problem("%s", err)
		case twice && first == s:
			e.Problem("%s is in the list twice", s)
		case twice:
			e.Problem("%s says the same as %s", s, first)
		default:
			seen[way] = s
			out = append(out, way)
		}
	})
	n, ok := v.Len()
	if ok && n == 0 {
		v.EmptyList(k)
	}
	if ok {
		into.Set(reflect.ValueOf(out))
	}
	return ok
}
