package config

import (
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// sharedTogether compares the shared networks with the subnets and with one another.
func sharedTogether(m keys.Mapping, c *DHCP) {
	lines := map[netip.Prefix]int{}
	of := map[netip.Prefix]int{}
	names := map[string]int{}
	for i, e := range m.Elements("shared_networks") {
		if i >= len(c.SharedNetworks) {
			return // one of them could not be read
		}
		s := &c.SharedNetworks[i]
		if first, twice := names[s.Name]; twice && s.Name != "" {
			e.Get("name").Problem("%s is the name of the shared network in line %d", s.Name, first)
		} else {
			names[s.Name] = e.Get("name").Line()
		}
		list := e.Get("prefixes")
		if n, ok := list.Len(); ok && n == 0 {
			list.Problem("an empty list joins nothing; want prefixes of dhcp.subnets")
		}
		if n, ok := list.Len(); !ok || n != len(s.Prefixes) {
			continue
		}
		j := 0
		list.List(func(at keys.Value) {
			p := s.Prefixes[j]
			j++
			first, twice := lines[p]
			switch {
			case twice && of[p] == i:
				at.Problem("%s is in the list twice", p)
			case twice:
				at.Problem("%s is in the shared network of line %d already: a network is on one wire", p, first)
			case !slices.ContainsFunc(c.Subnets, func(n v4.Subnet) bool { return n.Prefix == p }):
				at.Problem("%s is none of dhcp.subnets%s", p, nearSubnet(p, c.Subnets))
			}
			if !twice {
				lines[p], of[p] = at.Line(), i
			}
		})
	}
}

// nearSubnet names the subnet that a prefix may stand for.
func nearSubnet(p netip.Prefix, all []v4.Subnet) string {
	for _, n := range all {
		if n.Prefix.IsValid() && n.Prefix.Overlaps(p) {
			return ", did you mean " + n.Prefix.String() + "?"
		}
	}
	return ""
}
