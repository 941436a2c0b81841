package v4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file knows which networks a client may be in, as its wire tells them. An address of another network is of
// no use there: it has another gateway.

// SharedNetwork are served networks that share one wire: a client there may have an address of each.
type SharedNetwork struct {
	// What messages call it. Empty: its prefixes.
	Name string `cfg:"name" example:"street-7"`

	// Prefixes of dhcp.subnets, each in one shared network at most.
	Prefixes []netip.Prefix `cfg:"prefixes" read:"ipv4_network" required:"prefixes of dhcp.subnets such as [192.0.2.0/24, 198.51.100.0/24]" example:"[198.51.100.0/24]"`
}

// String returns the name, else the prefixes.
func (s SharedNetwork) String() string {
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprint(s.Prefixes)
}

// compileShared gives each subnet the number of its wire.
func (cfg *Config) compileShared(shared []SharedNetwork) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i := range cfg.subnets {
		cfg.subnets[i].wire = i + 1
	}
	joined := map[netip.Prefix]int{}
	for i, s := range shared {
		if len(s.Prefixes) == 0 {
			fail("shared network %v: no prefixes", s)
		}
		wire := 0
		for _, p := range s.Prefixes {
			n := slices.IndexFunc(cfg.subnets, func(n subnet) bool { return n.prefix == p })
			other, twice := joined[p]
			switch {
			case n < 0:
				fail("shared network %v: %v is none of the subnets", s, p)
				continue
			case twice && other == i:
				fail("shared network %v: %v is given twice", s, p)
				continue
			case twice:
				fail("shared network %v: %v is in %v already", s, p, shared[other])
				continue
			case wire == 0:
				wire = cfg.subnets[n].wire
			}
			joined[p], cfg.subnets[n].wire = i, wire
		}
	}
	cfg.shared = slices.Clone(shared)
	cfg.joinNested()
	return errors.Join(errs...)
}

// joinNested has subnets with one gateway, of which one is within the other, share a wire: they are ranges of one network with
// settings of their own.
func (cfg *Config) joinNested() {
	for i := range cfg.subnets { // longest prefix first
		for j := i + 1; j < len(cfg.subnets); j++ {
			in, out := &cfg.subnets[i], &cfg.subnets[j]
			if in.gateway != out.gateway || !out.prefix.Contains(in.prefix.Addr()) || in.wire == out.wire {
				continue
			}
			from := in.wire
			for k := range cfg.subnets {
				if n := &cfg.subnets[k]; n.wire == from {
					n.wire = out.wire
				}
			}
		}
	}
}

// SharedNetworks returns what shares a wire, as it is configured.
func (c *Config) SharedNetworks() []SharedNetwork { return slices.Clone(c.shared) }

// oneWire reports whether two addresses are of served networks on one wire.
func (c *Config) oneWire(a, b netip.Addr) bool {
	n, o := c.subnetOf(a), c.subnetOf(b)
	return n != nil && o != nil && n.wire == o.wire
}

// Networks are the wires, by number, whose networks clients on an interface may be in; nil: nobody knows.
type Networks []int

// NetworksOf returns the networks of an interface: all served ones that it has an address of, and what shares
// their wire. An unnumbered interface, which has an address of a served network as /32, and one on which leases get host
// routes tell none: clients of any network may be there.
func (c *Config) NetworksOf(on *provision.Interface, hostRoutes bool) Networks {
	if on == nil || hostRoutes {
		return nil
	}
	var out Networks
	for _, a := range on.Addrs {
		if a.IsSingleIP() {
			second := slices.ContainsFunc(on.Addrs, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Contains(a.Addr()) }) // as keepalived adds it
			if !second && c.subnetOf(a.Addr()) != nil {
				return nil
			}
			continue
		}
		for i := range c.subnets {
			if n := &c.subnets[i]; n.prefix.Overlaps(a.Masked()) && !slices.Contains(out, n.wire) {
				out = append(out, n.wire)
			}
		}
	}
	return out
}

// OtherNetwork says that an address is of another network than its client is in. The zero value says nothing.
type OtherNetwork struct {
	Client  netip.Prefix `json:"client"`  // one that the client is in: that of its relay or interface
	Address netip.Prefix `json:"address"` // the address's own
}

// IsZero reports whether it says nothing.
func (o OtherNetwork) IsZero() bool { return o == OtherNetwork{} }

// String says it in words.
func (o OtherNetwork) String() string {
	return "the client is in " + o.Client.String() + ", its address in " + o.Address.String()
}

// reach is where the client of a packet can use an address.
type reach struct {
	asked bool
	wire  int      // of the relay
	wires Networks // of the interface
}

// restricted reports whether the networks of the client are known: by link selection of its relay, else by the relay's
// address, else by the interface. A relay's address that is in no served network tells none, as that of a management network.
func (m *matcher) restricted() bool {
	if r := &m.reach; !r.asked {
		r.asked = true
		at := m.relayAt()
		switch n := m.cfg.subnetOf(at); {
		case n != nil:
			r.wire = n.wire
		case !at.IsValid() && m.fromWire():
			r.wires = m.r.Networks
		}
	}
	return m.reach.wire != 0 || len(m.reach.wires) > 0
}

// fromWire reports whether a packet that no relay forwarded was sent on the wire of its interface. A renewal past a relay
// comes in there from elsewhere: it is for this server alone, and from an address that is not of the interface's networks.
func (m *matcher) fromWire() bool {
	from := m.r.P.From.Addr().Unmap() // none: of Explain
	return !from.IsValid() || from.IsUnspecified() || !m.r.Local.IsValid() || !offNetwork(m.r.On, from)
}

// wasBroadcast reports whether a packet was broadcast on the wire of its interface, so that its sender is there. No relay and no renewal past
// one does that: both are for this server alone.
func (m *matcher) wasBroadcast() bool {
	p := &m.r.P
	return p.From.Addr().IsValid() && !p.GIAddr().IsValid() && !m.r.Local.IsValid()
}

// leftRelay reports whether a lease was given through a relay, and who asks now is on a wire of ours where that relay is not.
func (m *matcher) leftRelay(rec *lease.Record) bool {
	return rec.GIAddr.IsValid() && m.wasBroadcast() && !m.r.inNetwork(rec.GIAddr)
}

// within reports whether an address is of a network that the client is in.
func (m *matcher) within(a netip.Addr) bool {
	n := m.cfg.subnetOf(a)
	return n != nil && (n.wire == m.reach.wire || slices.Contains(m.reach.wires, n.wire))
}

// apart says that an address is of another network than the client's, if that is known.
func (m *matcher) apart(a netip.Addr) OtherNetwork {
	n := m.cfg.subnetOf(a)
	if n == nil || !m.restricted() || m.within(a) {
		return OtherNetwork{}
	}
	return OtherNetwork{Client: m.network(), Address: n.prefix}
}

// network returns one of the client's networks, if they are known: that of the relay, else of the interface.
func (m *matcher) network() netip.Prefix {
	if n := m.cfg.subnetOf(m.relayAt()); n != nil {
		return n.prefix
	}
	for i := range m.cfg.subnets {
		if n := &m.cfg.subnets[i]; n.wire == m.reach.wires[0] {
			return n.prefix
		}
	}
	return netip.Prefix{}
}

// relayAt returns the address that the relay names its client's wire by; invalid: there is no relay.
func (m *matcher) relayAt() netip.Addr {
	if at := m.r.P.Relay.Link; at.IsValid() {
		return at
	}
	return m.r.P.GIAddr()
}

// heldHere reports whether the client has an address leased that was given here on a line: a packet that does not tell
// the line, as the same client may send, does not make it an address of another network.
func (m *matcher) heldHere(a netip.Addr) bool {
	rec, known := m.lease(a, new(lease.Record))
	return known && rec.Live(m.now) && m.same(rec) && len(rec.Option82) > 0 && m.comesFrom(rec) != placeOther
}

// counts says how an address that agrees with the way stands to the client's networks.
func (m *matcher) counts(c *candidates, a netip.Addr) {
	switch {
	case !m.restricted():
	case m.within(a):
		c.inside++
	case m.cfg.subnetOf(a) == nil: // it cannot be given anywhere
	case !c.placed && m.heldHere(a):
		c.held++
	case !c.apart.IsValid():
		c.apart = a
	}
}

// barred reports whether an address is not for the client while another one is in its networks.
func (m *matcher) barred(c *candidates, a netip.Addr) bool {
	switch {
	case c.inside > 0:
		return !m.within(a)
	case c.held > 0:
		return !m.heldHere(a)
	}
	return false
}

// claimsApart says what a renewal leads to that comes from another network than its address is of; zero: it does not, or
// nothing leads elsewhere.
func (c *decider) claimsApart() claim {
	if c.apart(c.e.at).IsZero() || c.heldHere(c.e.at) {
		return 0
	}
	before := c.d.Match
	b := c.find(c.e.at)
	if m := c.claimOf(b); m == macNetwork || m&hasOne != 0 && c.within(b.IP) {
		return m
	}
	c.d.Match = before
	if b := c.bound(c.e.at); b.Line != nil && b.MAC == c.mac { // whatever dhcp.match says
		c.d.Match.failed, c.d.Match.apart = outcome.WrongNetwork, c.apart(c.e.at)
		return macNetwork
	}
	return 0
}

// hasAddress reports whether an interface has an address of the networks on a wire, as a /32 too.
func (c *Config) hasAddress(on *provision.Interface, wire int) bool {
	for _, a := range on.Addrs {
		if n := c.subnetOf(a.Addr()); n != nil && n.wire == wire {
			return true
		}
	}
	return false
}

// ServesApart reports whether both networks are served, and do not share a wire.
func (c *Config) ServesApart(n OtherNetwork) bool {
	a := slices.IndexFunc(c.subnets, func(s subnet) bool { return s.prefix == n.Client })
	b := slices.IndexFunc(c.subnets, func(s subnet) bool { return s.prefix == n.Address })
	return a >= 0 && b >= 0 && c.subnets[a].wire != c.subnets[b].wire
}
