package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// MinSubnetBits is the shortest prefix of a customer's subnet, a /20 of 4,096 addresses:
// a 0 or an 8 typed by mistake must not block a network.
const MinSubnetBits = 20

// maxOfPool bounds how many addresses of a pool a customer's subnet may take: as many as a /28 has. One row must not
// take the addresses of many clients from them.
const maxOfPool = 16

// subnetRows judges the rows of customers' subnets of a fetch. Whatever a subnet holds counts as its customer's: what
// comes from there is believed as no relay's, no pool gives it, and a pause blocks it. So one that holds
// what serves others is a mistake, and is not used.
type subnetRows struct {
	in       *Input
	hosts    *tables
	devices  []Device             // with an IPv4 address, by it
	attached map[DeviceID]tenants // nil: not worked out
}

// tenants are whom the rows put on a switch.
type tenants struct {
	first   SubscriberID
	several bool
}

// readSubnets returns the customers' subnets of a fetch that can be used, and says of the others why they cannot.
func readSubnets(in *Input, t *tables, p *problems) []Subnet {
	if len(in.CustomerSubnets) == 0 {
		return nil
	}
	rows := newSubnetRows(in, t)
	out := make([]Subnet, 0, len(in.CustomerSubnets))
	for _, s := range in.CustomerSubnets {
		a := Address{Routed4, s.Prefix}.tidy()
		if why := rows.defect(a.Prefix, s.Subscriber); why != "" {
			p.add(Problem{Kind: ProblemBadSubnet, Subscriber: s.Subscriber, IP: a.Prefix.Addr(), Prefix: a.Prefix, Detail: "customer's subnet " + why})
			continue
		}
		out = append(out, Subnet{a.Prefix, s.Subscriber})
	}
	return out
}

func newSubnetRows(in *Input, t *tables) *subnetRows {
	r := &subnetRows{in: in, hosts: t}
	for _, d := range t.devices {
		if d.IP.Is4() {
			r.devices = append(r.devices, d)
		}
	}
	slices.SortStableFunc(r.devices, func(a, b Device) int { return a.IP.Compare(b.IP) })
	return r
}

// defect says why a subnet is not one of a customer; empty if it is.
func (r *subnetRows) defect(p netip.Prefix, id SubscriberID) string {
	const mend = "; it is neither blocked nor let in, correct it in the ERP"
	switch ip := p.Addr(); {
	case !p.IsValid() || !ip.Is4():
		return "is not an IPv4 prefix" + mend
	case id <= 0:
		return p.String() + " names no customer"
	case p.Bits() < MinSubnetBits:
		return fmt.Sprintf("%s is larger than a /%d%s", p, MinSubnetBits, mend)
	default:
		if b := ip.As4(); b[0] == 0 || b[0] == 127 || b[0] >= 224 {
			return p.String() + " has no unicast addresses of hosts" + mend
		}
	}
	why := cmp.Or(r.gateway(p, id), r.pool(p), r.relay(p), r.equipment(p, id))
	if why == "" {
		return ""
	}
	return fmt.Sprintf("%s %s%s", p, why, mend)
}

// gateway says which gateway a subnet holds that others have too; empty: none. The gateway of a network that a customer has for
// himself, whole or a part of it, is no part of his subnet.
func (r *subnetRows) gateway(p netip.Prefix, id SubscriberID) string {
	in := gatewaysIn(r.in.Reserved, []Subnet{{Prefix: p}})
	if len(in) == 0 {
		return ""
	}
	what := fmt.Sprintf("holds the gateway %s", in[0])
	switch {
	case len(in) > 1:
		return fmt.Sprintf("%s, and %s", what, in[1])
	case !within(p, r.in.Subnets):
		return what + ", and lies in no network of dhcp.subnets"
	}
	for ip, l := range r.hosts.hostsIn(p) {
		if l.Subscriber != id {
			return fmt.Sprintf("%s, and %s in it is bound to customer %d", what, ip, l.Subscriber)
		}
	}
	return ""
}

// within reports whether one of some prefixes holds all of p.
func within(p netip.Prefix, some []netip.Prefix) bool {
	return slices.ContainsFunc(some, func(s netip.Prefix) bool { return s.Bits() <= p.Bits() && s.Contains(p.Addr()) })
}

// cut reports whether an address is the gateway that is no part of a subnet.
func (r *subnetRows) cut(a netip.Addr) bool { return slices.Contains(r.in.Reserved, a) }

// pool says of which pool a subnet takes more than its customer's share; empty: of none.
func (r *subnetRows) pool(p netip.Prefix) string {
	first, last := Ends(p)
	for _, pool := range r.in.Pools {
		if !pool.From.Is4() || !pool.To.Is4() || pool.To.Less(first) || last.Less(pool.From) {
			continue
		}
		from, to := ipKey(pool.From), ipKey(pool.To)
		takes, size := int(min(to, ipKey(last))-max(from, ipKey(first)))+1, int(to-from)+1
		if takes > maxOfPool || 2*takes > size {
			return fmt.Sprintf("takes %d of the %d addresses of the pool %s-%s, more than one customer's", takes, size, pool.From, pool.To)
		}
	}
	return ""
}

// relay says which element of dhcp.relays lies in a subnet; empty: none.
func (r *subnetRows) relay(p netip.Prefix) string {
	for _, l := range r.in.Relays {
		switch {
		case p.Bits() > l.Bits() || !p.Contains(l.Addr()), slices.ContainsFunc(r.in.Reserved, l.Contains):
		case l.IsSingleIP():
			return fmt.Sprintf("holds the relay %s of dhcp.relays", l.Addr())
		default:
			return fmt.Sprintf("holds the network %s of dhcp.relays", l)
		}
	}
	return ""
}

// equipment says which switches in a subnet serve others; empty: none do. One of them that stands at its customer's,
// with nobody else on it, may lie in his subnet.
func (r *subnetRows) equipment(p netip.Prefix, id SubscriberID) string {
	i, _ := slices.BinarySearchFunc(r.devices, p.Addr(), func(d Device, a netip.Addr) int { return d.IP.Compare(a) })
	var before *Device
	for ; i < len(r.devices) && p.Contains(r.devices[i].IP); i++ {
		d := &r.devices[i]
		if r.cut(d.IP) {
			continue
		}
		what := fmt.Sprintf("holds %s, the switch %d", d.IP, d.ID)
		switch on := r.on(d.ID); {
		case on.several || on.first != 0 && on.first != id:
			return what + " of other customers"
		case on.first == id:
		case r.listed(d.IP):
			return what + " in dhcp.relays"
		case before != nil && before.IP != d.IP:
			return fmt.Sprintf("%s, and %s, the switch %d", what, before.IP, before.ID)
		default:
			before = d
		}
	}
	return ""
}

func (r *subnetRows) listed(a netip.Addr) bool {
	return slices.ContainsFunc(r.in.Relays, func(p netip.Prefix) bool { return p.Contains(a) })
}

// on returns who is on a switch.
func (r *subnetRows) on(d DeviceID) tenants {
	if r.attached == nil {
		r.attached = map[DeviceID]tenants{}
		for i := range r.in.Lines {
			l := &r.in.Lines[i]
			if l.Device <= 0 || l.Subscriber <= 0 {
				continue
			}
			on := r.attached[l.Device]
			switch on.first {
			case 0:
				r.attached[l.Device] = tenants{first: l.Subscriber}
			case l.Subscriber:
			default:
				r.attached[l.Device] = tenants{on.first, true}
			}
		}
	}
	return r.attached[d]
}
