// Package route keeps a host route in the kernel for every live lease: a Keeper
// reads the leases, compares and changes single routes.
package route

import (
	"cmp"
	"fmt"
	"github.com/usher-agent/usher/provision"
	"net/netip"
	"slices"
)

// Route is a route of ours in the kernel: packets for Addr leave on the interface with the index Ifindex, where the
// subscriber is on the link. With Via it is one for a whole subnet, of Bits, that lies behind the subscriber's own router.
type Route struct {
	Addr    netip.Addr `json:"addr"`
	Bits    int        `json:"bits,omitempty"` // zero: of a host
	Via     netip.Addr `json:"via,omitzero"`   // the leased address of the subscriber's router
	Ifindex int        `json:"ifindex"`
	Table   uint32     `json:"table"`
	Metric  uint32     `json:"metric,omitempty"`
}

// of returns the leased address because of which the route is there.
func (r Route) of() netip.Addr {
	if r.Via.IsValid() {
		return r.Via
	}
	return r.Addr
}

// String returns the destination, with the router of a subnet.
func (r Route) String() string {
	if r.Via.IsValid() {
		return fmt.Sprintf("%s via %s", netip.PrefixFrom(r.Addr, r.Bits), r.Via)
	}
	return r.Addr.String()
}

// Compare orders routes by address, table, metric and interface.
func (r Route) Compare(o Route) int {
	return cmp.Or(r.Addr.Compare(o.Addr), cmp.Compare(r.Bits, o.Bits), r.Via.Compare(o.Via), cmp.Compare(r.Table, o.Table), cmp.Compare(r.Metric, o.Metric), cmp.Compare(r.Ifindex, o.Ifindex))
}

// Change is one step from one set of routes to another.
type Change struct {
	Op    provision.Op
	Route Route
}

// Plan returns the changes that turn have into want: none if they are equal.
// All additions stand before all removals, so that an address which moves from
// one interface to another is at no time without a route, whatever the batch is
// cut into. The inputs need not be sorted, may have repeats, and are not changed.
func Plan(want, have []Route) []Change {
	want, have = sortedRoutes(want), sortedRoutes(have)
	var out []Change
	out = appendMissingRoutes(out, provision.OpAdd, want, have)
	return appendMissingRoutes(out, provision.OpRemove, have, want)
}

// appendMissingRoutes appends a change for every route of a that b lacks.
func appendMissingRoutes(out []Change, op provision.Op, a, b []Route) []Change {
	j := 0
	for _, r := range a {
		for j < len(b) && b[j].Compare(r) < 0 {
			j++
		}
		if j == len(b) || b[j] != r {
			out = append(out, Change{op, r})
		}
	}
	return out
}

// sortedRoutes returns routes in order and without repeats, itself if it is so already.
func sortedRoutes(routes []Route) []Route {
	for i := 1; i < len(routes); i++ {
		if routes[i-1].Compare(routes[i]) >= 0 {
			routes = slices.Clone(routes)
			slices.SortFunc(routes, Route.Compare)
			return slices.Compact(routes)
		}
	}
	return routes
}

// Link is a network interface as the kernel has it now. Its index changes when
// it is made anew, its name may change too.
type Link struct {
	Index int
	Name  string
	Up    bool // administratively; routes need that and nothing more
	Gone  bool // in events: it is no more
}

// LinkSettings are the kernel's settings of an unnumbered interface that decide
// whether subscribers behind it reach the router and one another.
type LinkSettings struct {
	Interface  string
	Forwarding bool // net.ipv4.conf.IFACE.forwarding
	ProxyARP   bool // proxy_arp, of the interface or of all
	RPFilter   int  // rp_filter, the greater of the interface's and that of all
	ARPIgnore  int  // arp_ignore, the greater of the two
	Numbered   bool // the interface has an IPv4 address of its own
}

// Finding is a setting of an interface that does not go with routes to
// single subscribers. A closed set: it is a metric label.
type Finding string

// The findings.
const (
	FindingNotForwarding Finding = "not_forwarding" // forwarding is 0
	FindingNoProxyARP    Finding = "no_proxy_arp"   // proxy_arp is 0
	FindingARPIgnore     Finding = "arp_ignore"     // the gateway's address is not answered for
	FindingRPFilter      Finding = "rp_filter"      // who moved here is not heard
	FindingUnreadable    Finding = "unreadable"     // the settings cannot be read
)

// Findings lists every finding, for metrics and documentation.
func Findings() []Finding {
	return []Finding{FindingNotForwarding, FindingNoProxyARP, FindingARPIgnore, FindingRPFilter, FindingUnreadable}
}

// Explain says in a sentence what the finding means and what helps.
func (f Finding) Explain() string {
	switch f {
	case FindingNotForwarding:
		return "packets of subscribers are not forwarded: set net.ipv4.conf.IFACE.forwarding (or net.ipv4.ip_forward) to 1"
	case FindingNoProxyARP:
		return "subscribers cannot reach others of their own subnet: set net.ipv4.conf.IFACE.proxy_arp to 1, unless that is meant"
	case FindingARPIgnore:
		return "ARP for the gateway's address, which another interface has, is not answered: set net.ipv4.conf.IFACE.arp_ignore and that of all to 0"
	case FindingRPFilter:
		return "renewals of a subscriber who moved here are dropped by the kernel, for the route still leads elsewhere: set net.ipv4.conf.IFACE.rp_filter and that of all to 0 " +
			"(the greater counts; where the interface has an address 2 will do), and let acl.source_guard stop forged sources"
	case FindingUnreadable:
		return "the settings below /proc/sys/net/ipv4/conf cannot be read"
	}
	return "not a finding"
}

// CheckLink says what of an interface's settings does not go with routes to
// single subscribers; nothing is changed by it.
func CheckLink(s LinkSettings) []Finding {
	var out []Finding
	if !s.Forwarding {
		out = append(out, FindingNotForwarding)
	}
	if !s.ProxyARP {
		out = append(out, FindingNoProxyARP)
	}
	// 1: only addresses of the interface itself are answered for; 2: and only to
	// senders of the same subnet; 3 and 8: fewer still (ip-sysctl.rst).
	if s.ARPIgnore > 1 || s.ARPIgnore == 1 && !s.Numbered {
		out = append(out, FindingARPIgnore)
	}
	// A subscriber who moved renews from here while the route leads to where it was. Strict (1)
	// wants the route to lead here. Loose (2) takes any route, but not on an interface
	// without an address, where the kernel is as strict (__fib_validate_source).
	if s.RPFilter == 1 || s.RPFilter != 0 && !s.Numbered {
		out = append(out, FindingRPFilter)
	}
	return out
}
