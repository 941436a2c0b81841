package config

import (
	"net/netip"
	"regexp"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/usher-agent/usher/dhcpd/v4"
)

func (v value) seqLen() (int, bool) {
	n, ok := v.node.(*ast.SequenceNode)
	if !ok {
		return 0, false
	}
	return len(n.Values), true
}

// subnetsTogether insists on one subnet at least, and that none overlaps another.
// Those whose prefix is wrong have none here.
func subnetsTogether(m mapping, c *DHCP) {
	v := m.get("subnets")
	if n, isList := v.seqLen(); c.Enabled && (!v.present() || isList && n == 0) {
		v.problem("missing; want at least one subnet to serve, or dhcp.enabled: false")
	}
	all := m.elements("subnets")
	for i, s := range c.Subnets {
		for j, other := range c.Subnets[:i] {
			if s.Prefix.IsValid() && other.Prefix.IsValid() && s.Prefix.Overlaps(other.Prefix) {
				all[i].get("prefix").problem("%s overlaps %s in line %d", s.Prefix, other.Prefix, all[j].get("prefix").at.line)
			}
		}
	}
}

func subnetTogether(m mapping, s *v4.Subnet) {
	if bits := s.Prefix.Bits(); s.Prefix.IsValid() && (bits < 8 || bits > 30) {
		m.get("prefix").problem("/%d; want a prefix from /8 to /30", bits)
		s.Prefix = netip.Prefix{}
	}
	if s.Prefix.IsValid() && s.Gateway.IsValid() {
		m.get("gateway").inside(s.Gateway, s.Prefix)
	}
	timesTogether(m, s)
}

// inside says what is wrong with a as a host's address of p.
func (v value) inside(a netip.Addr, p netip.Prefix) {
	switch {
	case !p.Contains(a):
		v.problem("%s is outside %s", a, p)
	case a == p.Addr():
		v.problem("%s is the network address of %s", a, p)
	case a == v4.RangeOf(p).Last:
		v.problem("%s is the broadcast address of %s", a, p)
	}
}

// timesTogether insists on T1 < T2 < lease (RFC 2131 section 4.4.5), whichever of
// them are defaults.
func timesTogether(m mapping, s *v4.Subnet) {
	if s.RenewTime == 0 {
		s.RenewTime = (s.LeaseTime / 2).Truncate(time.Second)
	}
	if s.RebindTime == 0 {
		s.RebindTime = (s.LeaseTime * 7 / 8).Truncate(time.Second)
	}
	if m.wrong("lease_time", "renew_time", "rebind_time") {
		return
	}
	renew, rebind := m.get("renew_time"), m.get("rebind_time")
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

func (v value) domain() (string, bool) {
	s, ok := v.text()
	if s != "" && (len(s) > 253 || !domainName.MatchString(s)) {
		v.problem("%q is no domain name", excerpt(s))
		return "", false
	}
	return s, ok
}
