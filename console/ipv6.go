package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// IPv6Links is the part of access.Enforcer that knows by what IPv6 is blocked.
type IPv6Links interface {
	MACStanding(mac provision.MAC) access.Set
	InterfaceStanding(name string) access.Set
}

// ipv6Sentences tell what becomes of IPv6 of a blocked customer: the address of no
// packet tells whose it is.
func (x *explainer) ipv6Sentences(id provision.SubscriberID) []string {
	if x.d.ACL == nil || x.d.ACL.Links == nil {
		return nil
	}
	es := x.d.Enforcer.Status()
	st := es.IPv6
	switch {
	case es.DryRun || st.Mode == access.IPv6NotForwarded:
		return nil
	case st.Mode == access.IPv6Ignored:
		return []string{"IPv6 is not looked at (acl.ipv6): what this host forwards of it passes."}
	case len(st.Direct)+st.Interfaces == 0:
		return []string{"Its IPv6 passes: no interface of subscribers is named (dhcp.subscriber_interfaces, dhcp.vlan_interfaces, acl.source_guard)."}
	}
	macs, behind, relays := x.linksOf(id)
	var out []string
	for _, name := range behind {
		if x.d.ACL.Links.InterfaceStanding(name) != 0 {
			return []string{fmt.Sprintf("So is its IPv6, by the interface %s, behind which nobody else is.", name)}
		}
	}
	var blocked []string
	for _, mac := range macs {
		switch shared := sharedWith(st.Shared, mac); {
		case x.d.ACL.Links.MACStanding(mac) != 0:
			blocked = append(blocked, mac.String())
		case shared != nil:
			out = append(out, fmt.Sprintf("IPv6 of the MAC %s passes: customer %d, who is not blocked, has that MAC too.", mac, shared.Other))
		default:
			out = append(out, fmt.Sprintf("IPv6 of the MAC %s passes: that MAC is not blocked.", mac))
		}
	}
	if len(st.Direct) > 0 && len(blocked) > 0 {
		text := fmt.Sprintf("IPv6 from and to the MAC %s is blocked too, on %s; another MAC walks around that.", strings.Join(blocked, " and "), strings.Join(st.Direct[:min(3, len(st.Direct))], ", "))
		if st.Trouble != "" {
			text = fmt.Sprintf("IPv6 from the MAC %s is blocked too, another MAC walks around that; IPv6 to it passes: %s.", strings.Join(blocked, " and "), st.Trouble)
		}
		out = append([]string{text}, out...)
	}
	if len(relays) > 0 {
		out = append(out, fmt.Sprintf("Behind the relay %s no MAC is seen if that is a router: then its IPv6 passes.", strings.Join(relays, " and ")))
	}
	switch {
	case len(out) > 0:
	case len(behind) > 0:
		out = []string{fmt.Sprintf("Its IPv6 passes: others who are not blocked are behind %s.", strings.Join(behind, " and "))}
	default:
		out = []string{"Its IPv6 passes: neither the ERP nor a lease tells a MAC or an interface of it."}
	}
	return out
}

// linksOf returns what is known of where a customer is: MACs, the interfaces of live
// leases where IPv6 is not looked at by MAC, and the relays of others.
func (x *explainer) linksOf(id provision.SubscriberID) (macs []provision.MAC, behind, relays []string) {
	for l := range x.snap.BySubscriber(id).All() {
		if !l.MAC.IsZero() {
			macs = append(macs, l.MAC)
		}
	}
	direct := x.d.Enforcer.Status().IPv6.Direct
	for i := range x.x.Leases {
		l := &x.x.Leases[i]
		owner := l.Subscriber
		if b := x.snap.ByIP(l.IP); b != nil {
			owner = b.Subscriber
		}
		switch {
		case owner != id || !l.Live(x.now):
		case l.GIAddr.IsValid():
			relays = append(relays, l.GIAddr.String())
		case slices.Contains(direct, l.Interface):
			macs = append(macs, l.MAC)
		case l.Interface != "":
			behind = append(behind, l.Interface)
		}
	}
	slices.SortFunc(macs, func(a, b provision.MAC) int { return slices.Compare(a[:], b[:]) })
	slices.Sort(behind)
	slices.Sort(relays)
	return slices.Compact(macs), slices.Compact(behind), slices.Compact(relays)
}

func sharedWith(s access.SharedMACs, mac provision.MAC) *access.SharedMAC {
	i := slices.IndexFunc(s.First, func(m access.SharedMAC) bool { return m.MAC == mac })
	if i < 0 {
		return nil
	}
	return &s.First[i]
}
