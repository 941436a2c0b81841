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
	LeftOut(mac provision.MAC) bool
	InterfaceStanding(name string) access.Set
	LooksAtInterface(name string) bool
	LineAt(l *provision.Line) string
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
	case len(st.Direct)+st.Interfaces+len(st.Uplinks) == 0:
		return []string{"Its IPv6 passes: no interface of subscribers is named (dhcp.subscriber_interfaces, dhcp.vlan_interfaces, acl.source_guard)."}
	}
	at := x.linksOf(id)
	shut, open := x.behind(st, at.behind)
	macs := at.seen
	if len(shut) == 0 {
		macs = append(macs, at.macs...)
	}
	blocked, passes := x.byMAC(st, macs)
	out := slices.Concat(shut, blocked, passes, open)
	if len(at.relays) > 0 {
		out = append(out, fmt.Sprintf("Behind the relay %s no MAC is seen if that is a router: then its IPv6 passes.", strings.Join(at.relays, " and ")))
	}
	if len(out) == 0 {
		return []string{"Its IPv6 passes: neither the ERP nor a lease tells a MAC or an interface of it."}
	}
	return out
}

// behind tells of the interfaces that a customer is behind: those that are blocked as a whole, and the others.
func (x *explainer) behind(st access.IPv6Status, names []string) (shut, open []string) {
	var blocked []string
	for _, name := range names {
		switch {
		case x.d.ACL.Links.InterfaceStanding(name) != 0:
			blocked = append(blocked, name)
		case slices.Contains(st.Uplinks, name):
			open = append(open, fmt.Sprintf("On %s its IPv6 passes: a default route leads there, so that interface is never blocked.", name))
		case !x.d.ACL.Links.LooksAtInterface(name):
			open = append(open, fmt.Sprintf("On %s its IPv6 passes: nothing names that interface as one of subscribers.", name))
		default:
			open = append(open, fmt.Sprintf("On %s its IPv6 passes: not all who are known to be behind it are blocked.", name))
		}
	}
	if len(blocked) > 0 {
		shut = []string{fmt.Sprintf("So is its IPv6, by the interface %s: nobody is known behind it who is not blocked.", strings.Join(blocked, " and "))}
	}
	return shut, open
}

// byMAC tells which MACs of a customer are blocked, and why others are not.
func (x *explainer) byMAC(st access.IPv6Status, macs []provision.MAC) (shut, open []string) {
	if len(st.Direct) == 0 { // no MAC is looked at
		return nil, nil
	}
	slices.SortFunc(macs, func(a, b provision.MAC) int { return slices.Compare(a[:], b[:]) })
	var blocked []string
	for _, mac := range slices.Compact(macs) {
		switch shared := sharedWith(st.Shared, mac); {
		case x.d.ACL.Links.MACStanding(mac) != 0:
			blocked = append(blocked, mac.String())
		case shared != nil:
			open = append(open, fmt.Sprintf("IPv6 of the MAC %s passes: customer %d, who is not blocked, has that MAC too.", mac, shared.Other))
		case x.d.ACL.Links.LeftOut(mac):
			open = append(open, fmt.Sprintf("IPv6 of the MAC %s passes: only the client's DHCP says that it is its own, and no ARP for the address has come from that MAC yet.", mac))
		default:
			open = append(open, fmt.Sprintf("IPv6 of the MAC %s passes: that MAC is not blocked.", mac))
		}
	}
	all := strings.Join(blocked, " and ")
	switch {
	case len(blocked) == 0:
	case st.Trouble != "":
		shut = []string{fmt.Sprintf("IPv6 from the MAC %s is blocked too, another MAC walks around that; IPv6 to it passes: %s.", all, st.Trouble)}
	default:
		shut = []string{fmt.Sprintf("IPv6 from and to the MAC %s is blocked too, on %s; another MAC walks around that.", all, strings.Join(st.Direct[:min(3, len(st.Direct))], ", "))}
	}
	return shut, open
}

// links are what is known of where a customer is.
type links struct {
	macs   []provision.MAC // of its lines in the ERP
	seen   []provision.MAC // of live leases, where IPv6 is looked at by MAC
	behind []string        // interfaces of its VLANs in the ERP, and of its other leases
	relays []string        // of its leases
}

func (x *explainer) linksOf(id provision.SubscriberID) (at links) {
	add := func(l *provision.Line) {
		if !l.MAC.IsZero() {
			at.macs = append(at.macs, l.MAC)
		}
		if name := x.d.ACL.Links.LineAt(l); name != "" {
			at.behind = append(at.behind, name)
		}
	}
	for l := range x.snap.BySubscriber(id).All() {
		add(l)
	}
	for lost := x.snap.Contested(); len(lost) > 0; lost = lost[1:] { // to another customer: it tells where this one is all the same
		if lost[0].Subscriber == id {
			add(&lost[0])
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
			at.relays = append(at.relays, l.GIAddr.String())
		case slices.Contains(direct, l.Interface):
			at.seen = append(at.seen, l.MAC)
		case l.Interface != "":
			at.behind = append(at.behind, l.Interface)
		}
	}
	slices.Sort(at.behind)
	slices.Sort(at.relays)
	at.behind, at.relays = slices.Compact(at.behind), slices.Compact(at.relays)
	return at
}

func sharedWith(s access.SharedMACs, mac provision.MAC) *access.SharedMAC {
	i := slices.IndexFunc(s.First, func(m access.SharedMAC) bool { return m.MAC == mac })
	if i < 0 {
		return nil
	}
	return &s.First[i]
}
