package agent

import (
	"fmt"

	"github.com/usher-agent/usher/config"
	v4 "github.com/usher-agent/usher/dhcpd/v4"
)

func matchingOptions(c config.DHCP, o *v4.Options) error {
	for _, m := range c.Match {
		kind, err := v4.ParseMatchKind(m)
		if err != nil {
			return fmt.Errorf("dhcp.match: %w", err)
		}
		o.Match = append(o.Match, kind)
	}
	o.MaxPortMACs = c.MaxMACsPerPort
	for _, id := range c.ClientIDs {
		x := v4.ClientID{Value: id.Hex, IP: id.IP}
		if id.Text != "" {
			x.Value, x.Text = []byte(id.Text), true
		}
		o.ClientIDs = append(o.ClientIDs, x)
	}
	if c.ClientKey == "client_id" {
		o.ClientKey = v4.ClientKeyID
	}
	switch c.MACChange {
	case "report":
		o.MACChange = v4.MACReport
	case "refuse":
		o.MACChange = v4.MACRefuse
	}
	if c.OnBindingChange == "shorten" {
		o.BindingChange = v4.BindingShorten
	}
	return nil
}
