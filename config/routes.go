package config

import "time"

// Routes are the /32 routes of leases on unnumbered interfaces.
type Routes struct {
	Enabled        bool
	Interfaces     []string // names or path.Match patterns; at least one when enabled
	Table          uint32   // 254 is main
	Protocol       uint8    // marks the routes as ours
	Metric         uint32
	VerifyInterval time.Duration // how often the kernel is compared with what is wanted
	DryRun         bool          // compute and report, touch nothing
}

// Neighbours is the watch for MACs of subscribers without DHCP.
type Neighbours struct {
	Enabled    bool
	Interfaces []string      // names or path.Match patterns; at least one when enabled
	MinTime    time.Duration // another MAC is believed after it was confirmed for so long
}

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

func (d *decoder) routes(v value, r *Routes) {
	m := v.mapping("enabled", "interfaces", "table", "protocol", "metric", "verify_interval", "dry_run")
	r.Enabled = m.get("enabled").boolean(false)
	r.Interfaces = m.get("interfaces").someInterfaces(r.Enabled)
	table := m.get("table")
	r.Table = uint32(table.integer(254, 1, 1<<32-1))
	if r.Table == 255 {
		table.problem("255 is the kernel's own table local; want 254 (main) or one of yours")
	}
	protocol := m.get("protocol")
	n := protocol.integer(207, 5, 255)
	r.Protocol = uint8(n)
	if owner := protocolOwner(n); owner != "" {
		protocol.problem("%d is the number of %s, whose routes would be taken for ours; want one that no other program uses", n, owner)
	}
	r.Metric = uint32(m.get("metric").integer(0, 0, 1<<32-1))
	r.VerifyInterval = m.get("verify_interval").duration(time.Minute, time.Second, time.Hour)
	r.DryRun = m.get("dry_run").boolean(false)
}

func (d *decoder) neighbours(v value, n *Neighbours) {
	m := v.mapping("enabled", "interfaces", "min_time")
	n.Enabled = m.get("enabled").boolean(false)
	n.Interfaces = m.get("interfaces").someInterfaces(n.Enabled)
	n.MinTime = m.get("min_time").duration(10*time.Second, 0, time.Hour)
}

// someInterfaces reads interfaces of which there must be one if needed.
func (v value) someInterfaces(needed bool) []string {
	out := v.interfaces()
	if n, ok := v.seqLen(); needed && (!ok && !v.present() || ok && n == 0) {
		v.problem("missing; want the interfaces with subscribers, such as [\"eth1.*\"]")
	}
	return out
}
