package config

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// Interfaces with subscribers on them that nobody guards are named, with the line to
// paste; others are not.
func TestUnguarded(t *testing.T) {
	host := []provision.Interface{
		{Name: "lo", Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}},
		{Name: "wan0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		{Name: "lan0", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}},
		{Name: "static0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
		{Name: "wire0"}, {Name: "eth3.7"}, {Name: "ppp0"},
	}
	const dhcp = `dhcp:
  relays: [192.0.2.7]
  check_relay_source: true
  subscriber_interfaces: [wire0]
  trusted_interfaces: none
  option82_relays: all
  match: [vlan, mac]
  vlan_interfaces: ["eth3.{vlan}"]
  subnets: [{prefix: 198.51.100.0/24, dns: [192.0.2.53]}]
`
	tests := []struct {
		name, text string
		want       []string
		paste      string
	}{
		{"none guarded", dhcp, []string{"lan0", "wire0", "eth3.7"}, `source_guard: {direct: [lan0, wire0], vlan: ["eth3.*"]}`},
		{"some guarded", dhcp + "acl: {source_guard: {direct: [lan0], vlan: [\"eth3.*\"]}}\n", []string{"wire0"}, `source_guard: {direct: [lan0, wire0], vlan: ["eth3.*"]}`},
		{"all guarded", dhcp + "acl: {source_guard: {direct: [lan0, wire0], vlan: [\"eth3.*\"]}}\n", nil, ""},
		{"routes to unnumbered ones", dhcp + "acl: {source_guard: {direct: [lan0, wire0], vlan: [\"eth3.*\"]}}\nroutes: {enabled: true, interfaces: [\"ppp*\"]}\n",
			[]string{"ppp0"}, `source_guard: {direct: [lan0, wire0], vlan: ["eth3.*", "ppp*"]}`},
		{"a named network of customers", dhcp + "acl: {networks: [203.0.113.0/24], source_guard: {direct: [lan0, wire0], vlan: [\"eth3.*\"]}}\n",
			[]string{"static0"}, `source_guard: {direct: [lan0, static0, wire0], vlan: ["eth3.*"]}`},
		{"nothing is blocked", dhcp + "acl: {enabled: false}\n", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Parse("usher.yaml", []byte(head+tt.text), testEnv())
			require.NoError(t, err)
			assert.Equal(t, tt.want, cfg.Unguarded(host))
			warnings := cfg.GuardWarnings("usher.yaml", host)
			if tt.want == nil {
				assert.Empty(t, warnings)
				return
			}
			require.Len(t, warnings, 1)
			assert.Equal(t, "acl.source_guard", warnings[0].Key)
			assert.Equal(t, []string{tt.paste}, warnings[0].Paste)
		})
	}
	cfg, err := Parse("usher.yaml", []byte(head+dhcp+"acl: {source_guard: {direct: [lan0, wire0, ppp0, tun1], vlan: [\"eth3.*\"]}}\n"), testEnv())
	require.NoError(t, err)
	pointToPoint := append(slices.Clone(host[:6]), provision.Interface{Name: "ppp0", Kind: "ppp"}, provision.Interface{Name: "tun1", Kind: "tun", MAC: provision.MAC{2, 1}})
	assert.Equal(t, []string{"ppp0"}, cfg.Unguarded(pointToPoint), "it has no MACs; a tap has")
	warnings := cfg.GuardWarnings("usher.yaml", pointToPoint)
	require.Len(t, warnings, 1)
	assert.Equal(t, "acl.source_guard.direct has ppp0, which is no Ethernet: there is no MAC to look at, so everything passes. Name it in acl.source_guard.vlan instead", warnings[0].Reason)
	assert.Equal(t, []string{`source_guard: {direct: [lan0, tun1, wire0], vlan: ["eth3.*", ppp0]}`}, warnings[0].Paste)

	cfg, err = Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\n"), testEnv())
	require.NoError(t, err)
	require.Len(t, cfg.ResolverWarnings("usher.yaml"), 1, "name servers are everybody")
	cfg, err = Parse("usher.yaml", []byte(head+"dhcp: {enabled: false}\nacl: {dns: [0.0.0.0/0]}\n"), testEnv())
	require.NoError(t, err)
	assert.Empty(t, cfg.ResolverWarnings("usher.yaml"), "the file says so")
}

// The example guards the interface that its subscribers are on.
func TestExampleIsGuarded(t *testing.T) {
	cfg, err := parseFile(t, "usher.example.yaml")
	require.NoError(t, err)
	assert.Empty(t, cfg.GuardWarnings("usher.example.yaml", []provision.Interface{
		{Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		{Name: "eth2", Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}},
	}))
}
