package config

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/option82"
)

func TestOption82ProfilesBeginWithReadyOnes(t *testing.T) {
	cfg, err := Parse("x.yaml", []byte(head+`
dhcp:
  relays: [192.0.2.7]
  check_relay_source: true
  trusted_interfaces: none
  option82_relays: all
  subnets: [{prefix: 198.51.100.0/24}]
  option82:
    profiles:
      - {name: stack, use: cisco-catalyst, unit_ports: 52}
      - {name: epon, use: bdcom-epon, port_name: "", unit_ports: 64, match: {giaddr: [192.0.2.7]}}
      - {name: raw, use: snr-ascii, layout: port}
      - {name: own, layout: text, templates: ["p{port}"], switch: name}
    default: [stack, ifname]
`), testEnv())
	require.NoError(t, err)
	o := cfg.DHCP.Option82
	want, _ := option82.Find("cisco-catalyst")
	want.Name, want.UnitPorts, want.PortIn, want.Switch = "stack", 52, option82.InCircuitID, option82.SwitchID
	assert.Equal(t, want, o.Profiles[0].Profile)
	epon := o.Profiles[1].Profile
	assert.Empty(t, epon.PortName, "taken away")
	assert.Equal(t, option82.SwitchRelay, epon.Switch)
	assert.Equal(t, 64, epon.UnitPorts)
	assert.Empty(t, o.Profiles[2].Templates, "the ready profile's went with its text")
	assert.Equal(t, option82.SwitchName, o.Profiles[3].Switch)
	defaults := o.Default
	require.Len(t, defaults, 2)
	assert.Equal(t, want, defaults[0])
	assert.Equal(t, "ifname", defaults[1].Name)
	reasons := []string{}
	for _, w := range cfg.Warnings {
		reasons = append(reasons, w.Reason)
	}
	assert.Equal(t, []string{"profile raw has no match and is not in default: it is used by nobody", "profile own has no match and is not in default: it is used by nobody"}, reasons)
}
