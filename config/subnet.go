package config

import (
	"net/netip"
	"regexp"
	"time"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// subnetsTogether insists on one subnet at least, and that none overlaps another.
// Those whose prefix is wrong have none here.
func subnetsTogether(m keys.Mapping, c *DHCP) {
	v := m.Get("subnets")
	if n, isList := v.Len(); c.Enabled && (!v.Present() || isList && n == 0) {
		v.Problem("missing; want at least one subnet to serve, or dhcp.enabled: false")
	}
	all := m.Elements("subnets")
	for i, s := range c.Subnets {
		for j, other := range c.Subnets[:i] {
			if s.Prefix.IsValid() && other.Prefix.IsValid() && s.Prefix.Overlaps(other.Prefix) {
				all[i].Get("prefix").Problem("%s overlaps %s in line %d", s.Prefix, other.Prefix, all[j].Get("prefix").Line())
			}
		}
	}
}

func subnetTogether(m keys.Mapping, s *v4.Subnet) {
	if bits := s.Prefix.Bits(); s.Prefix.IsValid() && bits < 8 {
		m.Get("prefix").Problem("/%d; want a prefix of /8 or longer", bits)
		s.Prefix = netip.Prefix{}
	}
	if s.Prefix.IsValid() && s.Gateway.IsValid() {
		inside(m.Get("gateway"), s.Gateway, s.Prefix)
	}
	timesTogether(m, s)
}

// inside says what is wrong with a as the gateway of p. The one address of a /32 is a client's,
// so its gateway is elsewhere.
func inside(v keys.Value, a netip.Addr, p netip.Prefix) {
	switch network, broadcast := provision.NetworkAndBroadcast(p); {
	case p.Bits() == 32 && p.Contains(a):
		v.Problem("%s is the only address of %s; want a gateway outside of it", a, p)
	case p.Bits() == 32:
	case !p.Contains(a):
		v.Problem("%s is outside %s", a, p)
	case a == network:
		v.Problem("%s is the network address of %s", a, p)
	case a == broadcast:
		v.Problem("%s is the broadcast address of %s", a, p)
	}
}

// timesTogether insists on T1 < T2 < lease (RFC 2131 section 4.4.5), whichever of
// them are defaults.
func timesTogether(m keys.Mapping, s *v4.Subnet) {
	if s.RenewTime == 0 {
		s.RenewTime = (s.LeaseTime / 2).Truncate(time.Second)
	}
	if s.RebindTime == 0 {
		s.RebindTime = (s.LeaseTime * 7 / 8).Truncate(time.Second)
	}
	if m.Wrong("lease_time", "renew_time", "rebind_time") {
		return
	}
	renew, rebind := m.Get("renew_time"), m.Get("rebind_time")
	switch {
	case s.RebindTime >= s.LeaseTime:
		rebind.Problem("%s is not before the end of the lease (lease_time %s)", keys.Brief(s.RebindTime), keys.Brief(s.LeaseTime))
	case s.RenewTime >= s.RebindTime && renew.Present():
		renew.Problem("%s is not before rebind_time (%s)", keys.Brief(s.RenewTime), keys.Brief(s.RebindTime))
	case s.RenewTime >= s.RebindTime:
		rebind.Problem("%s is not after renew_time (%s)", keys.Brief(s.RebindTime), keys.Brief(s.RenewTime))
	}
}

var domainName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?$`)

func domain(v keys.Value) (string, bool) {
	s, ok := v.Text()
	if s != "" && (len(s) > 253 || !domainName.MatchString(s)) {
		v.Problem("%q is no domain name", keys.Excerpt(s))
		return "", false
	}
	return s, ok
}
