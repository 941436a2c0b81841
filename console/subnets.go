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
			at = ownAddress(x.snap, n, func(a netip.Addr) bool { return x.d.openAt(n.Subscriber, a) != "" })
		}
		line := provision.Line{Subscriber: n.Subscriber}
		if id := x.snap.Owner(at); id != 0 {
			line.Subscriber = id
		}
		x.x.Subnets = append(x.x.Subnets, SubnetView{n.Prefix, n.Subscriber, x.acl(row{&line, at})})
	}
}

// ownAddress returns an address of a subnet that is nobody else's, and as a rule one that may be blocked: its first one if there
// is none.
func ownAddress(s *provision.Snapshot, n provision.Subnet, open func(netip.Addr) bool) netip.Addr {
	own := n.Prefix.Addr()
	found := false
	for _, p := range s.SubnetPartsOf(n.Subscriber) {
		if !n.Prefix.Overlaps(p.Prefix) {
			continue
		}
		for a := p.Prefix.Addr(); p.Prefix.Contains(a); a = a.Next() {
			if !open(a) {
				return a
			}
			if !found {
				own, found = a, true
			}
		}
	}
	return own
}

// openAt says by which rule an address is in no block list, whatever state its customer has; empty: by none.
func (d *Deps) openAt(id provision.SubscriberID, a netip.Addr) string {
	if d.ACL == nil {
		return ""
	}
	if d.ACL.Exempt != nil {
		if by := d.ACL.Exempt(id, a); by != "" {
			return "exempt by " + by
		}
	}
	return d.ACL.Wishes.Spared(a).String()
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

// subnetAccess tells of blocked subnets. told has the customers of whom it was said already that they are.
func (x *explainer) subnetAccess(told map[provision.SubscriberID]bool) []string {
	var s []string
	for _, n := range x.x.Subnets {
		if x.d.Enforcer == nil || x.sub.kind == "ip" && x.snap.Owner(x.sub.ip) != n.Subscriber {
			continue
		}
		if n.ACL.Want == "open" {
			if why := x.d.openAt(n.Subscriber, x.sub.ip); why != "" && x.sub.kind == "ip" && len(x.rows) == 0 && x.snap.State(n.Subscriber).Blocks() {
				s = append(s, fmt.Sprintf("Customer %d is %s, but %s is not blocked: it is %s.", n.Subscriber, stateWord(x.snap.State(n.Subscriber)), x.sub.ip, why))
			}
			continue
		}
		who := fmt.Sprintf("Customer %d is %s, and so", n.Subscriber, n.ACL.Want)
		if told[n.Subscriber] {
			who = "So"
		}
		s = append(s, fmt.Sprintf("%s %s.", who, x.isBlocked(fmt.Sprintf("all of %s that is nobody else's", n.Subnet), ", in both directions")))
		s = append(s, x.leftOpen(n)...)
		if n.ACL.Have != "unknown" && n.ACL.Have != n.ACL.Want {
			s = append(s, fmt.Sprintf("Attention: in the kernel it is %s, not %s; the next round repairs it.", n.ACL.Have, n.ACL.Want))
		}
		if !told[n.Subscriber] {
			s = append(s, x.ipv6Sentences(n.Subscriber)...)
		}
		told[n.Subscriber] = true
	}
	return s
}

// isBlocked says of something that it is blocked, too, or would be but for a dry run.
func (x *explainer) isBlocked(what, how string) string {
	if x.d.Enforcer.Status().DryRun {
		return "would " + what + " be" + how + ", were it not for acl.dry_run"
	}
	return "is " + what + how
}

// maxOpen bounds the addresses of a blocked subnet that are named.
const maxOpen = 3

// leftOpen names the addresses of a blocked subnet that are not.
func (x *explainer) leftOpen(n SubnetView) []string {
	var s []string
	more := 0
	for a := n.Subnet.Addr(); n.Subnet.Contains(a); a = a.Next() {
		if x.snap.Owner(a) != n.Subscriber {
			continue
		}
		switch why := x.d.openAt(n.Subscriber, a); {
		case why == "":
		case len(s) == maxOpen:
			more++
		default:
			s = append(s, fmt.Sprintf("Of it %s is not blocked: it is %s.", a, why))
		}
	}
	if more > 0 {
		s = append(s, fmt.Sprintf("Nor are %d more of its addresses.", more))
	}
	return s
}

// maxCounted is up to how many addresses of a subnet the refusals are added up.
const maxCounted = 256

// aclSubnets tells what becomes of a customer's subnets.
func (d *Deps) aclSubnets(ctx context.Context, s *ACLSubject, want *access.ACL, snap *provision.Snapshot, id provision.SubscriberID) {
	for _, n := range snap.SubnetsOf(id) {
		at := ownAddress(snap, n, func(a netip.Addr) bool { return d.openAt(id, a) != "" })
		state := snap.State(id)
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
