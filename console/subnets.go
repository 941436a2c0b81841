package console

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// SubnetView is a customer's subnet.
type SubnetView struct {
	Subnet     netip.Prefix           `json:"subnet"`
	Subscriber provision.SubscriberID `json:"subscriber"`
	ACL        ACLView                `json:"acl"` // of the address that was asked for, or of one of its own
}

// subnets finds the subnets that a query is about.
func (x *explainer) subnets() {
	list := x.snap.SubnetsOf(x.sub.id)
	if x.sub.kind == "ip" {
		if n, in := x.snap.SubnetOf(x.sub.ip); in {
			list = []provision.Subnet{n}
		}
	}
	for _, n := range list {
		at := x.sub.ip
		if x.sub.kind != "ip" {
			at = ownAddress(x.snap, n)
		}
		line := provision.Line{Subscriber: n.Subscriber}
		if id := x.snap.Owner(at); id != 0 {
			line.Subscriber = id
		}
		x.x.Subnets = append(x.x.Subnets, SubnetView{n.Prefix, n.Subscriber, x.acl(row{&line, at})})
	}
}

// ownAddress returns an address of a subnet that is nobody else's: its first one if all are.
func ownAddress(s *provision.Snapshot, n provision.Subnet) netip.Addr {
	for _, p := range s.SubnetPartsOf(n.Subscriber) {
		if n.Prefix.Overlaps(p.Prefix) {
			return p.Prefix.Addr()
		}
	}
	return n.Prefix.Addr()
}

// subnetSentences tell whose subnet an address lies in, or which ones a customer has.
func (x *explainer) subnetSentences() []string {
	var s []string
	for _, n := range x.x.Subnets {
		switch {
		case x.sub.kind != "ip" && x.snap.OnLink(provision.Subnet{Prefix: n.Subnet, Subscriber: n.Subscriber}):
			s = append(s, fmt.Sprintf("The subnet %s is its own but for the gateway, which the configuration has; DHCP gives none of its addresses but those that the ERP binds by themselves.", n.Subnet))
		case x.sub.kind != "ip":
			s = append(s, fmt.Sprintf("The subnet %s is its own; DHCP gives none of its addresses but those that the ERP binds by themselves.", n.Subnet))
		case x.snap.Owner(x.sub.ip) != n.Subscriber:
			s = append(s, fmt.Sprintf("It lies in the subnet %s of customer %d, but what is bound by itself is not that one's.", n.Subnet, n.Subscriber))
		case len(x.rows) == 0:
			s = append(s, fmt.Sprintf("It lies in the subnet %s of customer %d (%s), so DHCP gives it to nobody.", n.Subnet, n.Subscriber, x.snap.State(n.Subscriber)))
		}
	}
	return s
}

// subnetAccess tells of blocked subnets.
func (x *explainer) subnetAccess(told map[provision.SubscriberID]bool) []string {
	var s []string
	for _, n := range x.x.Subnets {
		if n.ACL.Want == "open" || told[n.Subscriber] || x.sub.kind == "ip" && x.snap.Owner(x.sub.ip) != n.Subscriber {
			continue
		}
		told[n.Subscriber] = true
		s = append(s, fmt.Sprintf("Customer %d is %s, and so is all of %s that is nobody else's, in both directions.", n.Subscriber, n.ACL.Want, n.Subnet))
		if n.ACL.Have != "unknown" && n.ACL.Have != n.ACL.Want {
			s = append(s, fmt.Sprintf("Attention: in the kernel it is %s, not %s; the next round repairs it.", n.ACL.Have, n.ACL.Want))
		}
	}
	return s
}

// maxCounted is up to how many addresses of a subnet the refusals are added up.
const maxCounted = 256

// aclSubnets tells what becomes of a customer's subnets.
func (d *Deps) aclSubnets(ctx context.Context, s *ACLSubject, want *access.ACL, snap *provision.Snapshot, id provision.SubscriberID) {
	for _, n := range snap.SubnetsOf(id) {
		at, state := ownAddress(snap, n), snap.State(id)
		a := ACLAddress{IP: at, Subnet: n.Prefix, Subscriber: id, State: &state, Want: wantOf(*want, at), Have: []string{}, Exempt: d.ACL.Exempt(id, at)}
		a.Why = whyBlocked(&a)
		d.inKernel(ctx, &a)
		var all []netip.Addr
		for ip := n.Prefix.Addr(); n.Prefix.Contains(ip) && len(all) < maxCounted; ip = ip.Next() {
			if snap.Owner(ip) == id {
				all = append(all, ip)
			}
		}
		if len(all) == 0 {
			all = append(all, at)
		}
		counters, err := d.ACL.Kernel.Counters(ctx, all)
		for _, c := range counters {
			a.Blocked.Packets += c.Packets
			a.Blocked.Bytes += c.Bytes
		}
		if err != nil && a.Error == "" {
			a.Error = err.Error()
		}
		s.Addresses = append(s.Addresses, a)
	}
}

// inKernel asks in which sets an address is.
func (d *Deps) inKernel(ctx context.Context, a *ACLAddress) {
	sets, err := d.ACL.Kernel.Sets(ctx, a.IP)
	if err != nil {
		a.Error = err.Error()
		return
	}
	for _, set := range sets {
		if kind, _, net := set.Subnet(); net {
			set = kind
		}
		a.Have = append(a.Have, set.String())
	}
}
