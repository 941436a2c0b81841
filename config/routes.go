package config

import (
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/neighbour"
	"github.com/usher-agent/usher/provision/route"
)

// Routes are the /32 routes of leases on unnumbered interfaces.
type Routes struct {
	Enabled bool `cfg:"enabled" default:"false" restart:"true"`

	// Interfaces by name or pattern such as "eth1.*" (quoted). Required when enabled;
	// leases on others, and those behind a relay, get no route.
	Interfaces []string `cfg:"interfaces" read:"interface" unique:"true"`

	route.Options `cfg:",inline"`

	// Marks the routes as ours ("ip route show proto 207"): those of other numbers are
	// never touched, so it must be nobody else's on this host. Not changed by a reload.
	Protocol uint8 `cfg:"protocol" after:"table" default:"207" min:"5" max:"255" restart:"true"`
}

// Neighbours is the watch for MACs of subscribers without DHCP.
type Neighbours struct {
	Enabled bool `cfg:"enabled" default:"false" restart:"true"`

	// Interfaces by name or pattern such as "eth1.*" (quoted). Required when enabled.
	Interfaces []string `cfg:"interfaces" read:"interface" unique:"true"`

	neighbour.Options `cfg:",inline"`
}

// RefusesMACChange reports whether an address keeps the MAC that the ERP has for it, however
// another one is seen.
func (c *Config) RefusesMACChange() bool { return c.DHCP.MACChange == v4.MACRefuse }

// protocolOwner names the programs of iproute2's rt_protos and of others that
// mark their routes: two with one number would remove each other's.
func protocolOwner(n int) string {
	switch n {
	case 8:
		return "gated"
	case 9:
		return "router advertisements"
	case 10:
		return "mrt"
	case 11:
		return "zebra"
	case 12:
		return "bird"
	case 13:
		return "DECnet"
	case 14:
		return "xorp"
	case 15:
		return "netsukuku"
	case 16:
		return "DHCP clients"
	case 17:
		return "mrouted"
	case 18:
		return "keepalived"
	case 42:
		return "babel"
	case 80:
		return "calico"
	case 84:
		return "ovn"
	case 99:
		return "openr"
	case 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198:
		return "FRRouting"
	}
	return ""
}

func (r *Routes) together(m keys.Mapping) {
	someInterfaces(m, r.Enabled)
	if r.Table == 255 {
		m.Get("table").Problem("255 is the kernel's own table local; want 254 (main) or one of yours")
	}
	if owner := protocolOwner(int(r.Protocol)); owner != "" {
		m.Get("protocol").Problem("%d is the number of %s, whose routes would be taken for ours; want one that no other program uses", r.Protocol, owner)
	}
}

// someInterfaces insists on one at least, if needed.
func someInterfaces(m keys.Mapping, needed bool) {
	v := m.Get("interfaces")
	if n, ok := v.Len(); needed && (!ok && !v.Present() || ok && n == 0) {
		v.Problem("missing; want the interfaces with subscribers, such as [\"eth1.*\"]")
	}
}
