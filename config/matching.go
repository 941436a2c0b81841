package config

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/dhcpd/vlanname"
)

// ClientID gives the client with an identifier an address; Hex or Text is set.
type ClientID struct {
	Hex  []byte
	Text string
	IP   netip.Addr
}

// matchingKeys are the keys of section dhcp that matching reads.
func matchingKeys() []string {
	return []string{"trusted_interfaces", "check_relay_source", "client_ids", "vlan_interfaces", "client_key", "mac_change",
		"max_macs_per_port", "on_binding_change"}
}

// The words of dhcp.match, and how many things of it may be listed.
const (
	maxClientIDs = 10_000
	maxTemplates = 64
)

func matchWords() []string { return []string{"option82", "vlan", "client_id", "mac"} }

// matching reads what goes with the order of matching, which is read already.
func (d *decoder) matching(m mapping, c *DHCP) {
	c.TrustedInterfaces = m.get("trusted_interfaces").interfaces()
	check := m.get("check_relay_source")
	c.CheckRelaySource = check.boolean(false)
	if c.CheckRelaySource && len(c.Relays) == 0 {
		check.problem("true without dhcp.relays: list the relays, those that forward for other relays too")
	}
	lines := map[string]int{}
	ids := m.get("client_ids")
	ids.list(func(e value) { c.ClientIDs = append(c.ClientIDs, d.clientID(e.mapping("hex", "text", "ip"), lines)) })
	if len(c.ClientIDs) > maxClientIDs {
		ids.problem("%d of them; want at most %d", len(c.ClientIDs), maxClientIDs)
	}
	vlans := m.get("vlan_interfaces")
	vlans.list(func(e value) {
		name, ok := e.raw("the name of an interface with {vlan} in it")
		if !ok {
			return
		}
		if _, err := vlanname.Compile(name); err != nil {
			e.problem("%q: %s", excerpt(name), err)
			return
		}
		if slices.Contains(c.VLANInterfaces, name) {
			e.problem("%s is in the list twice", name)
			return
		}
		c.VLANInterfaces = append(c.VLANInterfaces, name)
	})
	if len(c.VLANInterfaces) > maxTemplates {
		vlans.problem("%d of them; want at most %d", len(c.VLANInterfaces), maxTemplates)
	}
	c.ClientKey = m.get("client_key").oneOf("mac", "mac", "client_id")
	c.MACChange = m.get("mac_change").oneOf("accept", "accept", "report", "refuse")
	c.MaxMACsPerPort = m.get("max_macs_per_port").integer(0, 0, 64)
	c.OnBindingChange = m.get("on_binding_change").oneOf("nak", "nak", "shorten")
	uses := func(word string) bool {
		return slices.ContainsFunc(c.Match, func(way string) bool { return slices.Contains(strings.Split(way, "+"), word) })
	}
	switch {
	case uses("vlan") && !vlans.present():
		m.get("match").problem("vlan needs dhcp.vlan_interfaces: it says which interfaces are those of a VLAN")
	case !uses("vlan") && len(c.VLANInterfaces) > 0:
		vlans.warn("not used: dhcp.match has no vlan")
	}
	if slices.Contains(c.Match, "vlan") && slices.ContainsFunc(c.VLANInterfaces, func(t string) bool { return strings.Contains(t, "{svlan}") }) {
		vlans.warn("{svlan} is not compared with anything, for the ERP has one VLAN: the inner ones must differ, or use vlan+mac")
	}
}

func (d *decoder) clientID(m mapping, lines map[string]int) ClientID {
	var c ClientID
	hexa, text, ip := m.get("hex"), m.get("text"), m.get("ip")
	at := hexa
	switch {
	case hexa.present() == text.present():
		m.problem("want hex or text, one of them")
		return c
	case text.present():
		at = text
		c.Text = text.text("")
	default:
		c.Hex = hexa.hexBytes()
	}
	if n := len(c.Text) + len(c.Hex); n == 0 || n > 254 {
		at.problem("%d bytes; want 1 to 254", n)
	} else {
		keys := []string{c.Text + string(c.Hex)}
		if c.Text != "" { // with and without its type
			keys = append(keys, "\x00"+c.Text)
		}
		for _, k := range keys {
			if line, twice := lines[k]; twice {
				at.problem("the same identifier as in line %d", line)
				break
			}
			lines[k] = at.at.line
		}
	}
	if !ip.present() {
		ip.problem("missing; want the address that the ERP binds to the client")
	} else {
		c.IP, _ = ip.ipv4()
	}
	return c
}

// matchOrder reads the ways to find a client: words, or several joined by + that must agree.
func (v value) matchOrder() []string {
	if !v.present() {
		return []string{"option82", "mac"}
	}
	var out []string
	seen := map[string]string{}
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
		slices.SortFunc(parts, func(a, b string) int { return slices.Index(matchWords(), a) - slices.Index(matchWords(), b) })
		way := strings.Join(parts, "+")
		if first, twice := seen[way]; twice {
			if first == s {
				e.problem("%s is in the list twice", s)
			} else {
				e.problem("%s says the same as %s", s, first)
			}
			return
		}
		seen[way] = s
		out = append(out, way)
	})
	if n, ok := v.seqLen(); ok && n == 0 {
		v.problem("an empty list would match nobody; leave it out for option82, mac")
	}
	return out
}
