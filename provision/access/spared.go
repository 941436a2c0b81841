package access

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// Spared is why an address is in no set that blocks, whoever has it by the ERP:
// others need it, or this agent has nothing to say there. A closed set: it is a
// metric label.
type Spared string

// The reasons.
const (
	SparedOwn        Spared = "own"         // of this router
	SparedERP        Spared = "erp"         // of the ERP
	SparedResolver   Spared = "resolver"    // a name server of customers or of this router
	SparedGarden     Spared = "garden"      // what paused customers or guests may reach
	SparedGateway    Spared = "gateway"     // of a network of customers
	SparedDHCPServer Spared = "dhcp_server" // beyond this router
	SparedNetwork    Spared = "network"     // outside the networks in which customers are blocked
)

// AllSpared lists every Spared.
func AllSpared() []Spared {
	return []Spared{SparedOwn, SparedERP, SparedResolver, SparedGarden, SparedGateway, SparedDHCPServer, SparedNetwork}
}

// String says it in words, after "it is".
func (s Spared) String() string {
	switch s {
	case SparedOwn:
		return "an address of this router"
	case SparedERP:
		return "the ERP's address"
	case SparedResolver:
		return "a name server"
	case SparedGarden:
		return "in a garden"
	case SparedGateway:
		return "the gateway of a network"
	case SparedDHCPServer:
		return "a DHCP server"
	case SparedNetwork:
		return "outside acl.networks and dhcp.subnets"
	default:
		return string(s)
	}
}

// Withheld is an address that is not blocked though its subscriber is.
type Withheld struct {
	IP         netip.Addr             `json:"ip"`
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
	Set        string                 `json:"set"` // in which it would be
	Why        Spared                 `json:"why"`
}

// maxWithheld bounds the list of them.
const maxWithheld = 20

// withheld counts them, and lists the first.
type withheld struct {
	counts map[Spared]int
	list   []Withheld
}

func (w *withheld) add(x Withheld) {
	if w.counts == nil {
		w.counts = map[Spared]int{}
	}
	w.counts[x.Why]++
	if len(w.list) < maxWithheld {
		w.list = append(w.list, x)
	}
}

// serversFrom is how long a prefix must be to name servers, which are spared. A
// shorter one, such as 0.0.0.0/0 for the name servers, says where something may go
// and nothing of who is there.
const serversFrom = 16

// spares are the addresses that are in no set that blocks.
type spares struct {
	single   map[netip.Addr]Spared
	inOrder  []netip.Prefix // of single
	networks []nets         // of servers, longer than one address
	homes    []netip.Prefix // of customers: a network of servers spares nobody there
	only     bool           // customers are blocked in homes alone
}

type nets struct {
	why      Spared
	prefixes []netip.Prefix // tidy
}

func newSpares(in *Inputs) *spares {
	s := &spares{single: map[netip.Addr]Spared{}, homes: tidyPrefixes(slices.Concat(in.Homes, in.Networks)), only: len(in.Networks) > 0}
	for _, x := range []struct {
		why   Spared
		addrs []netip.Addr
	}{{SparedOwn, in.Own}, {SparedGateway, in.Gateways}, {SparedERP, in.ERP}, {SparedResolver, in.NameServers}} {
		for _, a := range x.addrs {
			s.add(a.Unmap(), x.why)
		}
	}
	for _, x := range []nets{{SparedDHCPServer, in.DHCPServers}, {SparedResolver, in.Resolvers}, {SparedGarden, in.Garden}, {SparedGarden, in.GuestGarden}} {
		var wide []netip.Prefix
		for _, p := range x.prefixes {
			switch {
			case p.IsSingleIP():
				s.add(p.Addr(), x.why)
			case p.Bits() >= serversFrom:
				wide = append(wide, p)
			}
		}
		if wide != nil {
			s.networks = append(s.networks, nets{x.why, tidyPrefixes(wide)})
		}
	}
	for a := range s.single {
		s.inOrder = append(s.inOrder, netip.PrefixFrom(a, 32))
	}
	slices.SortFunc(s.inOrder, comparePrefixes)
	return s
}

// holes returns what of a prefix is spared, tidy; the prefix itself if all of it is.
func (s *spares) holes(p netip.Prefix) (out []netip.Prefix) {
	i, _ := slices.BinarySearchFunc(s.inOrder, p, comparePrefixes)
	for ; i < len(s.inOrder) && p.Overlaps(s.inOrder[i]); i++ {
		out = append(out, s.inOrder[i])
	}
	at, _ := slices.BinarySearchFunc(s.homes, p, comparePrefixes)
	if at < len(s.homes) && s.homes[at] == p || at > 0 && s.homes[at-1].Overlaps(p) {
		return out // within a network of customers
	}
	if s.only {
		return []netip.Prefix{p}
	}
	for _, n := range s.networks {
		for _, x := range n.prefixes {
			if x.Overlaps(p) {
				out = append(out, x)
			}
		}
	}
	return tidyPrefixes(out)
}

// add spares an address; the first reason stands.
func (s *spares) add(a netip.Addr, why Spared) {
	if _, known := s.single[a]; !known && a.Is4() {
		s.single[a] = why
	}
}

// of tells why an address is spared; empty: it is not.
func (s *spares) of(a netip.Addr) Spared {
	if why, ok := s.single[a]; ok {
		return why
	}
	if inPrefixes(s.homes, a) {
		return ""
	}
	for _, n := range s.networks {
		if inPrefixes(n.prefixes, a) {
			return n.why
		}
	}
	if s.only {
		return SparedNetwork
	}
	return ""
}

// sparesSame reports whether other Inputs spare the same addresses.
func (in *Inputs) sparesSame(o *Inputs) bool {
	return slices.Equal(in.Own, o.Own) && slices.Equal(in.ERP, o.ERP) && slices.Equal(in.Gateways, o.Gateways) &&
		slices.Equal(in.NameServers, o.NameServers) && slices.Equal(in.Homes, o.Homes) && slices.Equal(in.Networks, o.Networks)
}

// Spared tells why an address is in no set that blocks, whoever has it; empty: it is
// not spared, or nothing is known yet.
func (e *Enforcer) Spared(a netip.Addr) Spared {
	p := e.shown.Load()
	if p == nil {
		return ""
	}
	return p.rules.spares.of(a.Unmap())
}

// tellWithheld tells of addresses that are not blocked though their subscribers are.
// They are a mistake in the ERP, or of the configuration.
func (e *Enforcer) tellWithheld(w withheld) {
	e.obs.Withheld(w.counts)
	e.mu.Lock()
	same := slices.Equal(e.status.WithheldList, w.list)
	e.status.Withheld, e.status.WithheldList = w.counts, w.list
	e.mu.Unlock()
	if same || len(w.list) == 0 {
		return
	}
	var first []string
	for _, x := range w.list[:min(len(w.list), 5)] {
		first = append(first, x.Text())
	}
	n := 0
	for _, x := range w.counts {
		n += x
	}
	e.log.Warn("addresses are not blocked, for others need them or the configuration says so; correct them in the ERP", "addresses", n, "first", first)
}

// Text says it in a sentence.
func (x Withheld) Text() string {
	who := fmt.Sprintf("customer %d", x.Subscriber)
	if x.Subscriber == 0 {
		who = "a customer by a lease"
	}
	return fmt.Sprintf("%s of %s (%s) is not blocked: it is %s", x.IP, who, x.Set, x.Why)
}
