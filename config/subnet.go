package config

import (
	"net/netip"
	"regexp"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Bounds of lease times. Under a minute renewals outrun the relays; a year is
// long enough, and far from 0xffffffff, which means "for ever" on the wire.
const (
	minLease     = time.Minute
	maxLease     = 365 * 24 * time.Hour
	defaultLease = time.Hour
)

func (v value) seqLen() (int, bool) {
	n, ok := v.node.(*ast.SequenceNode)
	if !ok {
		return 0, false
	}
	return len(n.Values), true
}

func (d *decoder) subnets(v value, c *DHCP) {
	if n, isList := v.seqLen(); c.Enabled && (!v.present() || isList && n == 0) {
		v.problem("missing; want at least one subnet to serve, or dhcp.enabled: false")
	}
	var prefixes []value
	v.list(func(e value) {
		m := e.mapping(optionSetKeys("prefix", "gateway", "server_id", "lease_time", "renew_time", "rebind_time", "always_broadcast")...)
		s, ok := d.subnet(m)
		if !ok {
			return
		}
		prefix := m.get("prefix")
		for i, other := range c.Subnets {
			if s.Prefix.Overlaps(other.Prefix) {
				prefix.problem("%s overlaps %s in line %d", s.Prefix, other.Prefix, prefixes[i].at.line)
			}
		}
		c.Subnets = append(c.Subnets, s)
		prefixes = append(prefixes, prefix)
	})
}

// subnet reads one subnet; ok is false when it has no usable prefix.
func (d *decoder) subnet(m mapping) (Subnet, bool) {
	var s Subnet
	prefix := m.get("prefix")
	ok := false
	if !prefix.present() {
		prefix.problem("missing; want an IPv4 prefix such as 192.0.2.0/24")
	} else if s.Prefix, ok = prefix.prefix(); ok && (s.Prefix.Bits() < 8 || s.Prefix.Bits() > 30) {
		prefix.problem("/%d; want a prefix from /8 to /30", s.Prefix.Bits())
		ok = false
	}
	if gw := m.get("gateway"); gw.present() {
		if a, good := gw.ipv4(); good {
			s.Gateway = a
			if ok {
				gw.inside(a, s.Prefix)
			}
		}
	}
	if id := m.get("server_id"); id.present() {
		s.ServerID, _ = id.ipv4()
	}
	d.times(m, &s)
	s.AlwaysBroadcast = m.get("always_broadcast").boolean(false)
	s.OptionSet = d.optionSet(m)
	return s, ok
}

// inside says what is wrong with a as a host's address of p.
func (v value) inside(a netip.Addr, p netip.Prefix) {
	switch {
	case !p.Contains(a):
		v.problem("%s is outside %s", a, p)
	case a == p.Addr():
		v.problem("%s is the network address of %s", a, p)
	case a == lastAddr(p):
		v.problem("%s is the broadcast address of %s", a, p)
	}
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// times reads the lease times and insists on T1 < T2 < lease (RFC 2131
// section 4.4.5), whichever of them are defaults.
func (d *decoder) times(m mapping, s *Subnet) {
	lease, renew, rebind := m.get("lease_time"), m.get("renew_time"), m.get("rebind_time")
	before := len(d.problems)
	s.LeaseTime = lease.duration(defaultLease, minLease, maxLease).Truncate(time.Second)
	s.RenewTime = renew.duration((s.LeaseTime / 2).Truncate(time.Second), time.Second, maxLease).Truncate(time.Second)
	s.RebindTime = rebind.duration((s.LeaseTime * 7 / 8).Truncate(time.Second), time.Second, maxLease).Truncate(time.Second)
	if len(d.problems) > before {
		return
	}
	switch {
	case s.RebindTime >= s.LeaseTime:
		rebind.problem("%s is not before the end of the lease (lease_time %s)", brief(s.RebindTime), brief(s.LeaseTime))
	case s.RenewTime >= s.RebindTime && renew.present():
		renew.problem("%s is not before rebind_time (%s)", brief(s.RenewTime), brief(s.RebindTime))
	case s.RenewTime >= s.RebindTime:
		rebind.problem("%s is not after renew_time (%s)", brief(s.RebindTime), brief(s.RenewTime))
	}
}

var domainName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)

func (v value) domain() string {
	s := v.text("")
	if s != "" && (len(s) > 253 || !domainName.MatchString(s)) {
		v.problem("%q is no domain name", excerpt(s))
		return ""
	}
	return s
}
