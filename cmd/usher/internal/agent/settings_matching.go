package agent

import (
	"fmt"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
)

func matchingOptions(c config.DHCP, o *dhcpd.Options) error {
	for _, m := range c.Match {
		kind, err := dhcpd.ParseMatchKind(m)
		if err != nil {
			return fmt.Errorf("dhcp.match: %w", err)
		}
		o.Match = append(o.Match, kind)
	}
	o.TrustedInterfaces, o.CheckRelaySource = c.TrustedInterfaces, c.CheckRelaySource
	o.VLANInterfaces, o.MaxPortMACs = c.VLANInterfaces, c.MaxMACsPerPort
	for _, id := range c.ClientIDs {
		x := dhcpd.ClientID{Value: id.Hex, IP: id.IP}
		if id.Text != "" {
			x.Value, x.Text = []byte(id.Text), true
		}
		o.ClientIDs = append(o.ClientIDs, x)
	}
	if c.ClientKey == "client_id" {
		o.ClientKey = dhcpd.ClientKeyID
	}
	switch c.MACChange {
	case "report":
		o.MACChange = dhcpd.MACReport
	case "refuse":
		o.MACChange = dhcpd.MACRefuse
	}
	if c.OnBindingChange == "shorten" {
		o.BindingChange = dhcpd.BindingShorten
	}
	return nil
}
