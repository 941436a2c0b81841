package dhcpd

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
)

func TestCompileReportsEveryMistake(t *testing.T) {
	n := netip.MustParsePrefix("192.0.2.0/24")
	_, err := compile(Options{Listen: netip.MustParseAddrPort("[2001:db8::1]:67"), Interfaces: []string{"eth["}, Options: v4.Options{
		Options:  line.Options{Relays: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
		ServerID: ip("2001:db8::1"),
		Match:    []v4.MatchKind{99},
		Subnets: []v4.Subnet{
			{Prefix: n, LeaseTime: time.Hour},
			{Prefix: n, LeaseTime: time.Hour},
			{Prefix: netip.MustParsePrefix("192.0.3.0/24"), LeaseTime: time.Second},
			{Prefix: netip.MustParsePrefix("192.0.4.0/24"), LeaseTime: time.Hour, RenewTime: 2 * time.Hour},
			{Prefix: netip.MustParsePrefix("192.0.5.0/24"), LeaseTime: time.Hour, OptionSet: options.OptionSet{DNS: []netip.Addr{ip("2001:db8::2")}}},
			{Prefix: netip.MustParsePrefix("192.0.6.0/24"), LeaseTime: time.Hour, OptionSet: options.OptionSet{Options: []options.Option{{Code: 82}}}},
		},
	}})
	for _, want := range []string{
		`listen [2001:db8::1]:67: want an IPv4 address and port`, `interface "eth[": syntax error in pattern`,
		`relay 2001:db8::/32: want an IPv4 prefix`, `server id 2001:db8::1: want an IPv4 address`, `match 99: no such kind`,
		`subnet 192.0.2.0/24: given twice`, `subnet 192.0.3.0/24: lease time 1s: want at least 1m0s`,
		`subnet 192.0.4.0/24: times: want 1s <= renew 2h0m0s <= rebind 52m30s <= lease 1h0m0s`,
		`subnet 192.0.5.0/24: dns 2001:db8::2: want an IPv4 address`,
		`subnet 192.0.6.0/24: option 82: this option is filled by the server itself`,
	} {
		assert.ErrorContains(t, err, want)
	}
}

// T1 is told in whole seconds, and a client that is told none renews without end.
func TestRenewTimeIsASecondAtLeast(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	for _, t1 := range []time.Duration{1, time.Millisecond, time.Second - 1} {
		opts.Subnets[0].RenewTime = t1
		_, err := compile(opts)
		assert.ErrorContains(t, err, "times: want 1s <= renew "+t1.String())
	}
	opts.Subnets[0].RenewTime = time.Second
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), opts)
	offer := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), relayed(port(switch1, 2))))
	assert.Equal(t, time.Second, offer.IPAddressRenewalTime(0))
	require.NoError(t, s.stop())
}

func TestServes(t *testing.T) {
	for _, tc := range []struct {
		listen     string
		interfaces []string
		name       string
		loopback   bool
		want       bool
	}{
		{"0.0.0.0:67", nil, "eth0", false, true},
		{"0.0.0.0:67", nil, "lo", true, false},
		{"0.0.0.0:67", []string{"lo"}, "lo", true, true},
		{"0.0.0.0:67", []string{"vlan*", "eth1"}, "vlan100", false, true},
		{"0.0.0.0:67", []string{"vlan*", "eth1"}, "eth1", false, true},
		{"0.0.0.0:67", []string{"vlan*", "eth1"}, "eth10", false, false},
		{"0.0.0.0:67", []string{"vlan*"}, "", false, false},
		{"127.0.0.1:6767", nil, "lo", true, true},
		{"127.0.0.1:6767", []string{"eth1"}, "lo", true, true},
	} {
		gen, err := compile(Options{Listen: netip.MustParseAddrPort(tc.listen), Interfaces: tc.interfaces})
		require.NoError(t, err)
		assert.Equal(t, tc.want, gen.serves(tc.name, tc.loopback), "%+v", tc)
	}
}
