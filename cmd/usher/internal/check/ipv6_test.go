package check

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// On a host that forwards IPv6 it is said what becomes of that of the blocked.
func TestIPv6OfTheBlocked(t *testing.T) {
	const dhcp = "dhcp:\n  interfaces: [eth0, eth1, \"eth2.*\"]\n  relays: [192.0.2.7]\n  check_relay_source: true\n  option82_relays: all\n  trusted_interfaces: none\n  subnets: [{prefix: 198.51.100.0/24}]\n"
	const by = "On eth1 it is blocked by the MAC of the ERP or of the lease. Who takes another MAC, or routes behind one, walks around that."
	const behind = "Behind a relay that routes no MAC is seen: there it passes."
	tests := map[string]struct {
		text, release string
		warnings      []string
		says          []string
	}{
		"nothing named": {text: dhcp, release: "6.1.0", warnings: []string{"this host forwards IPv6, and no interface of subscribers is named: that of the paused and the stopped passes. " +
			"Name them in dhcp.subscriber_interfaces, dhcp.vlan_interfaces or acl.source_guard, or say ignore"}},
		"ignored":  {text: dhcp + "acl: {ipv6: ignore}\n", release: "6.1.0", warnings: []string{"ignore, and this host forwards IPv6: that of the paused and the stopped passes"}},
		"no lists": {text: dhcp + "acl: {enabled: false}\n", release: "6.1.0"},
		"a wire":   {text: dhcp + "  subscriber_interfaces: [eth1]\n", release: "6.1.0-21-amd64", says: []string{by, behind}},
		"of the source guard with VLANs": {text: dhcp + "acl: {source_guard: {direct: [eth1], vlan: [eth2.7]}}\n", release: "6.1.0",
			says: []string{by, "Of eth2.7 each is blocked where all customers behind it are.", behind}},
		"a VLAN's interface that the source guard looks at by MAC": {text: dhcp + "  vlan_interfaces: [\"eth2.{vlan}\"]\n  subscriber_interfaces: [\"eth2.*\"]\nacl: {source_guard: {direct: [eth2.7]}}\n", release: "6.1.0",
			warnings: []string{"a default route leads to eth2.8, so IPv6 is not blocked there, whoever is behind it: let no key name it as an interface of subscribers"},
			says: []string{"On eth2.7 it is blocked by the MAC of the ERP or of the lease. Who takes another MAC, or routes behind one, walks around that.",
				"Of eth2.10 eth2.11 eth2.12 eth2.9 each is blocked where all customers behind it are.", behind}},
		"an old kernel": {text: dhcp + "  subscriber_interfaces: [eth1]\n", release: "5.10.0-30-amd64",
			warnings: []string{"the kernel 5.10.0-30-amd64 has no egress chains (5.16 and later have): IPv6 that comes to the paused and the stopped on eth1 passes, what they send does not"},
			says:     []string{by, behind}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, cfg, err := examine(write(t, head+tt.text), testHost())
			require.NoError(t, err)
			require.NotNil(t, cfg, "%v", r.Problems)
			before := len(r.Warnings)
			r.addIPv6(cfg, testHost(), tt.release, []string{"eth0", "eth2.8"})
			var warnings []string
			for _, w := range r.Warnings[before:] {
				assert.Equal(t, "acl.ipv6", w.Key)
				warnings = append(warnings, w.Reason)
			}
			assert.Equal(t, tt.warnings, warnings)
			assert.Equal(t, tt.says, r.IPv6)
		})
	}
	for release, want := range map[string]bool{"5.15.0": false, "5.16.0": true, "4.19": false, "6.0.1": true, "": true, "what": true} {
		assert.Equal(t, want, hasEgress(release), release)
	}
}
