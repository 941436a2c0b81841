package config

import (
	"net/netip"
	"slices"
	"strconv"
)

// ACLExempt is who is never blocked, whatever the ERP says.
type ACLExempt struct {
	Customers []int64
	Addresses []netip.Prefix // masked
}

// ACLSourceGuard is on which interfaces only bound sources may come in: names or
// patterns of path.Match. Both empty: nowhere.
type ACLSourceGuard struct {
	Direct []string // by address and MAC
	VLAN   []string // by address and interface
}

// On tells whether any interface is to be guarded.
func (g ACLSourceGuard) On() bool { return len(g.Direct)+len(g.VLAN) > 0 }

const (
	// maxExempt bounds both lists of acl.exempt. They are for a few servers and
	// offices; whoever exempts thousands wants another state in the ERP.
	maxExempt = 10_000
	maxGuard  = 256
	maxDNS    = 256
)

// aclLists reads what is never blocked and where sources are guarded.
func (d *decoder) aclLists(m mapping, a *ACL) {
	a.DNS = m.get("dns").ipv4Prefixes(maxDNS)
	exempt := m.get("exempt").mapping("customers", "addresses")
	customers := exempt.get("customers")
	customers.list(func(e value) {
		s, ok := e.raw("the number of a customer")
		if !ok {
			return
		}
		id, err := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil || id <= 0:
			e.problem("want the number of a customer in the ERP, from 1, got %q", excerpt(s))
		case slices.Contains(a.Exempt.Customers, id):
			e.problem("%d is in the list twice", id)
		default:
			a.Exempt.Customers = append(a.Exempt.Customers, id)
		}
	})
	if n := len(a.Exempt.Customers); n > maxExempt {
		customers.problem("%d of them; want at most %d", n, maxExempt)
	}
	addresses := exempt.get("addresses")
	a.Exempt.Addresses = addresses.ipv4Prefixes(maxExempt)
	if slices.ContainsFunc(a.Exempt.Addresses, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		addresses.warn("0.0.0.0/0 exempts everybody: nobody is blocked")
	}
	guard := m.get("source_guard").mapping("direct", "vlan")
	direct, vlan := guard.get("direct"), guard.get("vlan")
	a.SourceGuard = ACLSourceGuard{Direct: direct.interfaces(), VLAN: vlan.interfaces()}
	if len(a.SourceGuard.Direct) > maxGuard || len(a.SourceGuard.VLAN) > maxGuard {
		m.get("source_guard").problem("more than %d names; want patterns such as eth1.*", maxGuard)
	}
	for _, name := range a.SourceGuard.VLAN {
		if slices.Contains(a.SourceGuard.Direct, name) {
			vlan.problem("%s is in direct too: an interface is guarded in one way", name)
		}
	}
}

// ipv4Prefixes reads a list of prefixes or addresses.
func (v value) ipv4Prefixes(most int) []netip.Prefix {
	var out []netip.Prefix
	v.list(func(e value) {
		p, ok := e.relay()
		switch {
		case !ok:
		case slices.Contains(out, p):
			e.problem("%s is in the list twice", p)
		default:
			out = append(out, p)
		}
	})
	if len(out) > most {
		v.problem("%d of them; want at most %d", len(out), most)
	}
	return out
}

// ResolverPrefixes gives the name servers that the paused and guests may ask:
// those of acl.dns and those that DHCP tells clients. Where neither names one it
// is every address, for without DNS no browser ever asks for a page.
func (c *Config) ResolverPrefixes() []netip.Prefix {
	out := slices.Clone(c.ACL.DNS)
	add := func(list []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	add(c.DHCP.Common.DNS)
	for _, k := range c.DHCP.Classes {
		add(k.DNS)
	}
	for _, s := range c.DHCP.Subnets {
		add(s.DNS)
	}
	for _, p := range c.DHCP.Pools {
		add(p.DNS)
	}
	if len(out) == 0 {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	}
	return out
}
