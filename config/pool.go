package config

import (
	"encoding/binary"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What becomes of clients that the ERP does not know.
const (
	UnknownSilence = "silence"
	UnknownNak     = "nak"
	UnknownGuest   = "guest"
)

// Whom a pool is for.
const (
	ForGuests      = "guests"      // clients that the ERP does not know
	ForSubscribers = "subscribers" // customers to whom the ERP gives a port, a MAC or a VLAN but no address
)

// Pool is a range of addresses that the server gives out by itself.
type Pool struct {
	Name      string
	Range     AddrRange
	For       string         // guests, subscribers
	Links     []netip.Prefix // wires that the pool serves, besides that of its subnet
	LeaseTime time.Duration
	Probe     bool    // ask by ARP before an offer
	WarnAt    float64 // share in use that is worth a warning, 0..1
	OptionSet         // besides what the subnet tells, or in its place
}

// AddrRange is the first and the last address of a range.
type AddrRange [2]netip.Addr

// First is the lowest address.
func (r AddrRange) First() netip.Addr { return r[0] }

// Last is the highest address.
func (r AddrRange) Last() netip.Addr { return r[1] }

// String gives 198.51.100.200-198.51.100.250.
func (r AddrRange) String() string { return r[0].String() + "-" + r[1].String() }

func (r AddrRange) size() int { return int(addrNumber(r[1])-addrNumber(r[0])) + 1 }

func (r AddrRange) overlaps(o AddrRange) bool { return !r[1].Less(o[0]) && !o[1].Less(r[0]) }

func addrNumber(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// GuestRanges gives the ranges whose addresses go to guests, unless the ERP
// binds one of them: those of the pools for guests.
func (c *Config) GuestRanges() []AddrRange {
	var out []AddrRange
	for _, p := range c.DHCP.Pools {
		if p.For == ForGuests {
			out = append(out, p.Range)
		}
	}
	return out
}

// SubscriberPools reports whether customers without an address get one from a pool.
func (c *Config) SubscriberPools() bool {
	return slices.ContainsFunc(c.DHCP.Pools, func(p Pool) bool { return p.For == ForSubscribers })
}

const (
	maxPoolSize       = 1 << 20
	defaultGuestLease = 2 * time.Minute
	defaultQuarantine = time.Hour
	maxQuarantine     = 30 * 24 * time.Hour
)

// pools reads the pools; the subnets are known by now.
func (d *decoder) pools(v, unknown value, c *DHCP) {
	var at []value
	v.list(func(e value) {
		m := e.mapping(optionSetKeys("name", "range", "for", "links", "lease_time", "probe", "warn_at")...)
		p, ok := d.pool(m, c)
		if !ok {
			return
		}
		for i, other := range c.Pools {
			if p.Range.overlaps(other.Range) {
				m.get("range").problem("%s overlaps the pool in line %d", p.Range, at[i].at.line)
			}
			if p.Name == other.Name {
				m.get("name").problem("%s is the name of the pool in line %d", p.Name, at[i].at.line)
			}
		}
		c.Pools = append(c.Pools, p)
		at = append(at, e)
	})
	guests := slices.ContainsFunc(c.Pools, func(p Pool) bool { return p.For == ForGuests })
	switch {
	case c.UnknownClients == UnknownGuest && !guests && len(d.problems) == 0:
		unknown.problem("guest needs a pool: want one in dhcp.pools that is for: guests")
	case c.UnknownClients != UnknownGuest && guests:
		v.warn("there are pools for guests, but dhcp.unknown_clients is not guest: nobody gets an address of them")
	}
}

var poolName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$`)

// pool reads one pool; ok is false when it has no usable name or range.
func (d *decoder) pool(m mapping, c *DHCP) (Pool, bool) {
	p := Pool{For: m.get("for").oneOf(ForGuests, ForGuests, ForSubscribers)}
	name, rng := m.get("name"), m.get("range")
	p.Name = name.text("")
	named := poolName.MatchString(p.Name)
	switch {
	case !name.present():
		name.problem("missing; want a short name such as guests")
	case !named:
		name.problem("%q is no name of a pool: 1 to 32 small letters, digits, - and _", excerpt(p.Name))
	}
	r, ok := rng.addrRange()
	if ok {
		p.Range = r
		ok = rng.inOneSubnet(r, c.Subnets)
	}
	m.get("links").list(func(e value) {
		if l, good := e.relay(); good {
			p.Links = append(p.Links, l)
		}
	})
	usual := defaultGuestLease
	if p.For == ForSubscribers {
		usual = defaultLease
	}
	p.LeaseTime = m.get("lease_time").duration(usual, minLease, maxLease).Truncate(time.Second)
	p.Probe = m.get("probe").boolean(true)
	p.WarnAt = 0.9
	if f, ok := m.get("warn_at").share("100%"); ok {
		p.WarnAt = f
	}
	p.OptionSet = d.optionSet(m)
	return p, ok && named
}

// inOneSubnet says what is wrong with a range that is not within one subnet, or has
// no address for a client.
func (v value) inOneSubnet(r AddrRange, subnets []Subnet) bool {
	for i := range subnets {
		n := &subnets[i]
		switch in := n.Prefix.Contains(r.First()); {
		case in != n.Prefix.Contains(r.Last()):
			v.problem("%s is only partly in %s", r, n.Prefix)
			return false
		case in && n.usable(r) == 0:
			v.problem("%s has no address for a client: only the network's, the broadcast's or the gateway's", r)
			return false
		case in:
			return true
		}
	}
	v.problem("%s is in none of dhcp.subnets", r)
	return false
}

// usable gives how many addresses of a range within n are neither the network's, nor
// the broadcast's, nor the gateway's.
func (n *Subnet) usable(r AddrRange) int {
	left := r.size()
	for _, a := range []netip.Addr{n.Prefix.Addr(), lastAddr(n.Prefix), n.Gateway} {
		if a.IsValid() && r.overlaps(AddrRange{a, a}) {
			left--
		}
	}
	return left
}

// addrRange reads first-last, or a prefix.
func (v value) addrRange() (AddrRange, bool) {
	if !v.present() {
		v.problem("missing; want a range such as 198.51.100.200-198.51.100.250, or a prefix")
		return AddrRange{}, false
	}
	s, ok := v.raw("a range of IPv4 addresses")
	if !ok {
		return AddrRange{}, false
	}
	var r AddrRange
	if strings.Contains(s, "/") {
		p, good := v.prefix()
		if !good {
			return r, false
		}
		r = AddrRange{p.Addr(), lastAddr(p)}
	} else {
		first, last, found := strings.Cut(s, "-")
		a, err := netip.ParseAddr(strings.TrimSpace(first))
		b, err2 := netip.ParseAddr(strings.TrimSpace(last))
		if !found || err != nil || err2 != nil || !a.Is4() || !b.Is4() {
			v.problem("want a range such as 198.51.100.200-198.51.100.250, or a prefix, got %q", excerpt(s))
			return r, false
		}
		r = AddrRange{a, b}
	}
	switch {
	case r.Last().Less(r.First()):
		v.problem("%s ends before it begins", r)
		return r, false
	case r.size() > maxPoolSize:
		v.problem("%s has more than %d addresses", r, maxPoolSize)
		return r, false
	}
	return r, true
}
