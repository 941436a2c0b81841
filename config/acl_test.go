package config

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
)

func TestResolverPrefixes(t *testing.T) {
	c := &Config{}
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, c.ResolverPrefixes(), "nobody names one: all")
	dns := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	c.ACL.DNS = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	c.DHCP.Common.DNS = dns("198.51.100.1")
	c.DHCP.Classes = []options.Class{{OptionSet: options.OptionSet{DNS: dns("198.51.100.2")}}}
	c.DHCP.Subnets = []v4.Subnet{{OptionSet: options.OptionSet{DNS: dns("198.51.100.3")}}}
	c.DHCP.Pools = []v4.Pool{{OptionSet: options.OptionSet{DNS: dns("198.51.100.4")}}}
	assert.Equal(t, []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32"),
		netip.MustParsePrefix("198.51.100.3/32"), netip.MustParsePrefix("198.51.100.4/32"),
	}, c.ResolverPrefixes())
}
