package config

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/garden"
)

// ACL is the kernel side of states.
type ACL struct {
	// false: states are not turned into rules.
	Enabled bool `cfg:"enabled" default:"true" restart:"true"`

	access.Options `cfg:",inline"`

	// Paused subscribers.
	Pause ACLPause `cfg:"pause"`

	// Guests: devices that the ERP does not know.
	Guest ACLGuest `cfg:"guest"`

	// Name servers for the names in both gardens, such as 192.0.2.53 or
	// 127.0.0.1:5353. Empty: those of this host.
	Resolvers []netip.AddrPort `cfg:"resolvers" read:"name_server" unique:"true"`

	Garden garden.Options `cfg:",inline"`

	// Name servers that paused subscribers and guests may ask, IPv4 prefixes or
	// addresses, besides those that dhcp tells clients. If neither names one, they may
	// ask all; 0.0.0.0/0 says so expressly.
	DNS []netip.Prefix `cfg:"dns" read:"ipv4_network" unique:"true" most:"256"`

	// Never blocked, whatever the ERP says: customers by their number in the ERP, and
	// addresses or prefixes whoever has them. Exempt addresses pass the source guard too.
	Exempt ACLExempt `cfg:"exempt"`

	// Where customers are blocked, besides dhcp.subnets: IPv4 prefixes or addresses. An
	// address elsewhere that the ERP gives a blocked customer stays open, and is named
	// as a problem. Empty: customers are blocked wherever they are.
	Networks []netip.Prefix `cfg:"networks" read:"ipv4_network" unique:"true" most:"1000"`

	// DHCP servers beyond this router, addresses or prefixes: who is blocked, or unknown
	// to the source guard, may ask them as he may ask this router. Needed where
	// dhcp.enabled is false, or another host has the address that clients renew with.
	DHCPServers []netip.Prefix `cfg:"dhcp_servers" read:"ipv4_network" unique:"true" most:"256"`

	// From these interfaces only bound addresses come in (docs/acl.md): names or
	// patterns such as "eth1.*", followed as interfaces come and go. direct: subscribers
	// on the link itself, address and MAC together; vlan: one subscriber, or few, behind
	// each interface, address and interface together. Off by default.
	SourceGuard ACLSourceGuard `cfg:"source_guard"`

	// block: where this host forwards IPv6, that of stopped and paused subscribers and of guests is blocked as far
	// as their MAC or their interface tells whose it is (docs/acl.md): on dhcp.subscriber_interfaces, dhcp.vlan_interfaces
	// and those of source_guard. ignore: IPv6 passes, whoever it is of.
	IPv6 string `cfg:"ipv6" default:"block" oneof:"block ignore"`
}

// BlocksIPv6 reports whether IPv6 of the blocked is to be blocked where the host forwards it.
func (a *ACL) BlocksIPv6() bool { return a.IPv6 == "block" }

// ACLPause is what applies to paused subscribers.
type ACLPause struct {
	// What they may reach all the same, such as payment sites: IPv4 prefixes,
	// addresses, or names, which are looked up again and again (docs/portal.md).
	Garden garden.List `cfg:"garden" read:"garden"`
}

// ACLGuest is what applies to guests.
type ACLGuest struct {
	Garden garden.List `cfg:"garden" read:"garden"`
}

// ACLExempt is who is never blocked, whatever the ERP says. Both lists are for a
// few servers and offices; whoever exempts thousands wants another state in the ERP.
type ACLExempt struct {
	Customers []provision.SubscriberID `cfg:"customers" read:"customer" unique:"true" most:"10000"`
	Addresses []netip.Prefix           `cfg:"addresses" read:"ipv4_network" unique:"true" most:"10000"`
}

// ACLSourceGuard is on which interfaces only bound sources may come in: names or
// patterns of path.Match. Both empty: nowhere.
type ACLSourceGuard struct {
	Direct []string `cfg:"direct" read:"interface" unique:"true"` // by address and MAC
	VLAN   []string `cfg:"vlan" read:"interface" unique:"true"`   // by address and interface
}

// On tells whether any interface is to be guarded.
func (g ACLSourceGuard) On() bool { return len(g.Direct)+len(g.VLAN) > 0 }

// maxGuard bounds both lists of acl.source_guard.
const maxGuard = 256

func (g *ACLSourceGuard) together(m keys.Mapping) {
	if len(g.Direct) > maxGuard || len(g.VLAN) > maxGuard {
		m.Problem("more than %d names; want patterns such as eth1.*", maxGuard)
	}
	for _, name := range g.VLAN {
		if slices.Contains(g.Direct, name) {
			m.Get("vlan").Problem("%s is in direct too: an interface is guarded in one way", name)
		}
	}
}

func (x *ACLExempt) together(m keys.Mapping) {
	if slices.ContainsFunc(x.Addresses, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		m.Get("addresses").Warn("0.0.0.0/0 exempts everybody: nobody is blocked")
	}
}

// maxServers is how short a prefix of DHCP servers may be: one of more addresses names no servers.
const maxServers = 16

func (a *ACL) together(m keys.Mapping) {
	for _, p := range a.DHCPServers {
		if p.Bits() < maxServers {
			m.Get("dhcp_servers").Problem("%s is no list of servers: want prefixes of /%d and longer; whatever is in them, a blocked customer reaches by the ports of DHCP", p, maxServers)
		}
	}
}

// customer reads the number of one.
func customer(v keys.Value) (int64, bool) {
	s, ok := v.Raw("the number of a customer")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 {
		v.Problem("want the number of a customer in the ERP, from 1, got %q", keys.Excerpt(s))
		return 0, false
	}
	return id, true
}

// ResolverPrefixes returns the name servers that the paused and guests may ask:
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
