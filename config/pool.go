package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

func rangeText(r v4.Range) string { return r.First.String() + "-" + r.Last.String() }

// GuestRanges are those whose addresses go to guests, unless the ERP binds one of
// them: those of the pools for guests.
func (c *Config) GuestRanges() []access.AddrRange {
	var out []access.AddrRange
	for _, p := range c.DHCP.Pools {
		if p.Kind == v4.PoolGuests {
			out = append(out, access.AddrRange{From: p.First, To: p.Last})
		}
	}
	return out
}

// PoolRanges are those of all pools.
func (c *Config) PoolRanges() []provision.AddrRange {
	var out []provision.AddrRange
	for _, p := range c.DHCP.Pools {
		out = append(out, provision.AddrRange{From: p.First, To: p.Last})
	}
	return out
}

// SubscriberPools reports whether customers without an address get one from a pool.
func (c *Config) SubscriberPools() bool {
	return slices.ContainsFunc(c.DHCP.Pools, func(p v4.Pool) bool { return p.Kind == v4.PoolSubscribers })
}

const (
	maxPoolSize           = 1 << 20
	defaultGuestLease     = 2 * time.Minute
	defaultSubscriberPool = time.Hour
)

// poolsTogether compares the pools with one another and with what becomes of unknown clients.
func (l *loader) poolsTogether(m keys.Mapping, c *DHCP) {
	all := m.Elements("pools")
	usable := func(p v4.Pool) bool { return p.Name != "" && p.First.IsValid() }
	for i, p := range c.Pools {
		for j, other := range c.Pools[:i] {
			if !usable(p) || !usable(other) {
				continue
			}
			if p.Overlaps(other.Range) {
				all[i].Get("range").Problem("%s overlaps the pool in line %d", rangeText(p.Range), all[j].Line())
			}
			if p.Name == other.Name {
				all[i].Get("name").Problem("%s is the name of the pool in line %d", p.Name, all[j].Line())
			}
		}
	}
	addresses := 0
	for _, p := range c.Pools {
		if p.Kind == v4.PoolGuests && usable(p) {
			addresses += p.Size()
		}
	}
	if addresses > access.MaxGuests {
		m.Get("pools").Warn("the pools for guests have %d addresses together; a guest in one behind the first %d is not held back by the ACL", addresses, access.MaxGuests)
	}
	guests := slices.ContainsFunc(c.Pools, func(p v4.Pool) bool { return p.Kind == v4.PoolGuests && usable(p) })
	switch {
	case c.Unknown == v4.UnknownGuest && !guests && m.Found() == 0:
		m.Get("unknown_clients").Problem("guest needs a pool: want one in dhcp.pools that is for: guests")
	case c.Unknown != v4.UnknownGuest && guests:
		m.Get("pools").Warn("there are pools for guests, but dhcp.unknown_clients is not guest: nobody gets an address of them")
	}
}

var poolNames = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$`)

// poolName reads the name of a pool, which is a label of metrics.
func poolName(v keys.Value) (string, bool) {
	name, ok := v.Text()
	if !ok || !poolNames.MatchString(name) {
		v.Problem("%q is no name of a pool: 1 to 32 small letters, digits, - and _", keys.Excerpt(name))
		return "", false
	}
	return name, true
}

// poolTogether looks at one pool; the subnets are known by now. A range that is not
// within one of them is none.
func (l *loader) poolTogether(m keys.Mapping, p *v4.Pool) {
	if p.LeaseTime == 0 {
		p.LeaseTime = defaultGuestLease
		if p.Kind == v4.PoolSubscribers {
			p.LeaseTime = defaultSubscriberPool
		}
	}
	if !p.First.IsValid() {
		return
	}
	if err := p.Check(l.cfg.DHCP.Subnets); err != nil {
		m.Report(err)
		p.Range = v4.Range{}
	}
}

// addrRange reads first-last, or a prefix.
func addrRange(v keys.Value) (v4.Range, bool) {
	s, ok := v.Raw("a range of IPv4 addresses")
	if !ok {
		return v4.Range{}, false
	}
	var r v4.Range
	if strings.Contains(s, "/") {
		p, good := v.Prefix()
		if !good {
			return r, false
		}
		r = v4.RangeOf(p)
	} else {
		first, last, found := strings.Cut(s, "-")
		a, err := netip.ParseAddr(strings.TrimSpace(first))
		b, err2 := netip.ParseAddr(strings.TrimSpace(last))
		if !found || err != nil || err2 != nil || !a.Is4() || !b.Is4() {
			v.Problem("want a range such as 198.51.100.200-198.51.100.250, or a prefix, got %q", keys.Excerpt(s))
			return r, false
		}
		r = v4.Range{First: a, Last: b}
	}
	switch {
	case r.Last.Less(r.First):
		v.Problem("%s ends before it begins", rangeText(r))
		return r, false
	case r.Size() > maxPoolSize:
		v.Problem("%s has more than %d addresses", rangeText(r), maxPoolSize)
		return r, false
	}
	return r, true
}
