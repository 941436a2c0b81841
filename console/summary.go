package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision"
)

// summary answers "why did this subscriber get no address?" or "why is it cut
// off?" in a few sentences, from what was gathered.
func (x *explainer) summary() string {
	var s []string
	s = append(s, x.bindingSentence())
	for _, c := range x.x.Held {
		s = append(s, fmt.Sprintf("Customer %d is held by the fetch guard: it %s (usher guard show).", c.Subscriber, c.Text()))
	}
	s = append(s, x.sourceSentences()...)
	s = append(s, x.subnetSentences()...)
	s = append(s, x.poolSentences()...)
	for _, l := range x.x.Leases {
		if l.Overruled != nil && l.Live(x.now) {
			s = append(s, l.Overruled.Text)
		}
	}
	for _, r := range x.x.Foreign {
		s = append(s, fmt.Sprintf("The ERP is not told that %s of customer %d has the MAC %s: %s.", r.IP, r.Subscriber, r.MAC, r.Reason()))
	}
	s = append(s, x.packetSentences()...)
	s = append(s, x.accessSentences()...)
	if len(x.x.Problems) > 0 {
		s = append(s, fmt.Sprintf("The ERP's data has %s about it.", count(len(x.x.Problems), "problem")))
	}
	return strings.Join(s, " ")
}

func (x *explainer) bindingSentence() string {
	switch {
	case x.snap == nil:
		return "No bindings have been loaded yet, neither from the ERP nor from disk."
	case len(x.rows) == 0 && x.sub.kind == "customer" && len(x.x.Subscribers) == 0:
		return fmt.Sprintf("The ERP has no customer %d, or gives it neither state nor address.", x.sub.id)
	case len(x.rows) == 0 && x.sub.kind == "customer":
		return fmt.Sprintf("The ERP binds no address to customer %d.", x.sub.id)
	case len(x.rows) == 0 && x.sub.kind == "ip":
		return fmt.Sprintf("The ERP binds %s to nobody.", x.sub.ip)
	case len(x.rows) == 0:
		return fmt.Sprintf("The ERP binds no address to the MAC %s.", x.sub.mac)
	}
	b := x.x.Bindings[0]
	where := "no switch port"
	switch name := b.DeviceName; {
	case b.Device == 0:
	case name == "":
		where = fmt.Sprintf("port %s of device %d", portText(b), b.Device)
	default:
		where = fmt.Sprintf("port %s of %s", portText(b), name)
	}
	mac := "no MAC known yet"
	if !b.MAC.IsZero() {
		mac = "MAC " + b.MAC.String()
	}
	more := ""
	if n := len(x.rows) - 1; n > 0 {
		more = fmt.Sprintf(" (and %s more)", count(n, "address"))
	}
	return fmt.Sprintf("Customer %d (%s) is bound to %s on %s, %s%s.", b.Subscriber, x.snap.State(b.Subscriber), b.IP, where, mac, more)
}

func portText(b BindingView) string {
	switch {
	case b.PortName != "":
		return b.PortName
	case b.Port != 0:
		return fmt.Sprint(b.Port)
	default:
		return "unknown"
	}
}

// packetSentences derives the verdict from the newest packet or, if there was
// none, says since when nobody was heard and what the server would do.
func (x *explainer) packetSentences() []string {
	if x.d.DHCP == nil {
		return []string{"DHCP is switched off (dhcp.enabled)."}
	}
	if len(x.x.Events) > 0 {
		e := x.x.Events[0]
		s := []string{fmt.Sprintf("Its newest packet, %s ago, was a %s with the outcome %s: %s",
			brief(x.now.Sub(e.Time)), strings.ToUpper(e.Type), e.Outcome, e.Text)}
		if e.RuleText != "" {
			s = append(s, fmt.Sprintf("What decided is %s: %s", e.Rule, e.RuleText))
		}
		if !e.Rival.IsZero() {
			s = append(s, fmt.Sprintf("%s has the address, %s wants it.", e.Rival, e.MAC))
		}
		if e.Advice != "" {
			s = append(s, e.Advice)
		}
		if w := x.x.Would; w != nil && w.Outcome != e.Outcome && (!e.Answered || refusedByTrust(w.Outcome)) {
			s = append(s, fmt.Sprintf("A DISCOVER now would have the outcome %s: %s", w.Outcome, w.Text))
			if refusedByTrust(w.Outcome) {
				s = append(s, w.Advice)
			}
		} else if w != nil && !w.Until.IsZero() {
			s = append(s, fmt.Sprintf("%s may have it from %s on.", w.MAC, stamp(w.Until)))
		}
		return append(append(s, x.leftAlone()...), x.diskSentences()...)
	}
	none := "No packet from it was seen since " + stamp(x.d.Started)
	switch last := x.lastOfAnybody(); {
	case len(x.x.Leases) > 0:
		l := x.x.Leases[0]
		none += fmt.Sprintf("; the last acknowledgement of %s to %s was at %s.", l.IP, l.MAC, stamp(l.Renewed))
	case last.IsZero():
		none += "; the last packet of anybody: none either. Look whether packets reach this host at all."
	default:
		none += fmt.Sprintf("; the last packet of anybody came %s ago. Look at the cable, the VLAN and the relay on its way.", brief(x.now.Sub(last)))
	}
	s := []string{none}
	if w := x.x.Would; w != nil {
		s = append(s, fmt.Sprintf("A DISCOVER of %s now would have the outcome %s: %s", w.MAC, w.Outcome, w.Text))
		if w.Advice != "" {
			s = append(s, w.Advice)
		}
	}
	return append(s, x.diskSentences()...)
}

// leftAlone tells of renewals that came from elsewhere than where the lease was given, and changed nothing.
func (x *explainer) leftAlone() []string {
	n, newest := 0, EventView{}
	for _, e := range x.x.Events {
		if e.Outcome == outcome.MACElsewhere.String() && strings.HasPrefix(e.Rule, "extend_") {
			if n++; n == 1 {
				newest = e
			}
		}
	}
	if n == 0 {
		return nil
	}
	was := "was"
	if n > 1 {
		was = "were"
	}
	return []string{fmt.Sprintf("%s from elsewhere %s left alone, the newest %s ago from %s.", count(n, "renewal"), was, brief(x.now.Sub(newest.Time)), cameFrom(newest))}
}

// cameFrom says where a packet came from.
func cameFrom(e EventView) string {
	s := e.MAC.String()
	if e.Source.IsValid() {
		s += " at " + e.Source.String()
	}
	if e.Relay.IsValid() {
		s += " through relay " + e.Relay.String()
	}
	if e.Interface != "" {
		s += " on " + e.Interface
	}
	return s
}

// refusedByTrust reports whether an outcome is that of a packet refused for the way that it came.
func refusedByTrust(label string) bool {
	for _, st := range senders.States() {
		if o := st.Refused(); o != 0 && o.String() == label {
			return true
		}
	}
	return false
}

func (x *explainer) lastOfAnybody() time.Time {
	if x.d.Events == nil {
		return time.Time{}
	}
	for _, e := range x.d.Events.Find(dhcpd.EventFilter{Limit: 1}) {
		return e.Time
	}
	return time.Time{}
}

func (x *explainer) accessSentences() []string {
	var s []string
	told := map[provision.SubscriberID]bool{}
	for _, b := range x.x.Bindings {
		if b.ACL.Exempt != "" && !told[b.Subscriber] {
			told[b.Subscriber] = true
			s = append(s, fmt.Sprintf("Customer %d is exempt (%s): it is never blocked.", b.Subscriber, b.ACL.Exempt))
		}
		if b.ACL.Spared != "" {
			s = append(s, fmt.Sprintf("Attention: customer %d is %s, but %s is not blocked: it is %s. Correct it in the ERP.", b.Subscriber, stateWord(x.snap.State(b.Subscriber)), b.IP, b.ACL.Spared))
		}
		if b.ACL.Want != "open" && !told[b.Subscriber] {
			told[b.Subscriber] = true
			effect := "is dropped"
			if b.ACL.Want == "paused" {
				effect = "is refused"
			}
			if x.d.Enforcer.Status().DryRun { // not nil: else nothing is wanted
				effect = strings.Replace(effect, "is", "would be", 1) + ", were it not for acl.dry_run"
			}
			s = append(s, fmt.Sprintf("Customer %d is %s, so its forwarded IPv4 traffic %s.", b.Subscriber, b.ACL.Want, effect))
			s = append(s, x.ipv6Sentences(b.Subscriber)...)
			if x.d.Multicast != nil && x.d.Multicast() {
				s = append(s, "This router forwards multicast, which reaches it all the same unless nobody else is behind its interface and acl.source_guard.vlan has that.")
			}
		}
		if b.ACL.Have != "unknown" && b.ACL.Have != b.ACL.Want {
			s = append(s, fmt.Sprintf("Attention: in the kernel %s is %s, not %s; the next round repairs it.", b.IP, b.ACL.Have, b.ACL.Want))
		}
	}
	s = append(s, x.leaseAccess(told)...)
	s = append(s, x.outlived()...)
	s = append(s, x.subnetAccess(told)...)
	return append(s, x.portalObstacles()...)
}

// portalObstacles tells why somebody who is paused sees no page.
func (x *explainer) portalObstacles() []string {
	paused := func(id provision.SubscriberID) bool { return x.snap.State(id) == provision.StatePause }
	if x.d.Enforcer == nil || !slices.ContainsFunc(x.x.Bindings, func(b BindingView) bool { return paused(b.Subscriber) }) &&
		!slices.ContainsFunc(x.x.Leases, func(l LeaseView) bool { return paused(l.Subscriber) }) {
		return nil
	}
	var s []string
	for _, o := range x.d.Enforcer.Status().PortalObstacles {
		s = append(s, "Attention: the portal is hidden from the paused: "+o+".")
	}
	return s
}

// leaseAccess tells of customers who are blocked at an address of a pool.
func (x *explainer) leaseAccess(told map[provision.SubscriberID]bool) []string {
	var s []string
	for _, l := range x.x.Leases {
		st := x.snap.State(l.Subscriber)
		blocked := st == provision.StateStop || st == provision.StatePause
		if !blocked || l.Pool == "" || !l.Live(x.now) || told[l.Subscriber] || x.snap.ByIP(l.IP) != nil || x.d.Enforcer == nil {
			continue
		}
		if x.d.ACL != nil && x.d.ACL.Exempt != nil && x.d.ACL.Exempt(l.Subscriber, l.IP) != "" {
			continue
		}
		told[l.Subscriber] = true
		s = append(s, fmt.Sprintf("Customer %d is %s, and so %s.", l.Subscriber, setName(st == provision.StateStop, st == provision.StatePause), x.isBlocked("the address that it has of pool "+l.Pool, "")))
		s = append(s, x.ipv6Sentences(l.Subscriber)...)
	}
	return s
}

// outlived tells of live leases whose addresses the ERP gives their customers no more.
func (x *explainer) outlived() []string {
	if x.d.Enforcer == nil {
		return nil
	}
	var s []string
	for _, l := range x.x.Leases {
		t, ok := x.d.tenant(l.IP)
		if !ok || !l.Live(x.now) || t.Known && l.Pool != "" && x.snap.ByIP(l.IP) == nil {
			continue // told already, if it is blocked
		}
		who, until := fmt.Sprintf("the lease of %s is of customer %d", l.IP, t.Holder), stamp(l.Expires)
		if !t.Known {
			who += ", whom the ERP does not have any more"
		}
		switch {
		case t.Owner == t.Holder && x.snap.Owner(l.IP) == t.Holder: // as it was given
		case t.Owner != t.Holder && t.Admits:
			s = append(s, fmt.Sprintf("Attention: %s, and the ERP has the address for customer %d: %s keeps it until its next renewal is refused, by %s.", who, x.snap.Owner(l.IP), l.MAC, until))
		case t.Owner != t.Holder:
			s = append(s, fmt.Sprintf("Attention: %s, and the ERP has the address for customer %d: no source guard lets %s in with it.", who, x.snap.Owner(l.IP), l.MAC))
		case t.State.Blocks():
			s = append(s, fmt.Sprintf("Attention: %s, and no row gives him the address: it stays %s until the lease ends, at %s.", who, setName(t.State == provision.StateStop, t.State == provision.StatePause), until))
		default:
			s = append(s, fmt.Sprintf("Attention: %s, and no row gives him the address: he is not blocked and keeps it until his next renewal is refused, by %s.", who, until))
		}
	}
	for i := range s {
		if x.d.Enforcer.Status().DryRun {
			s[i] += " acl.dry_run leaves the kernel as it is."
		}
	}
	return s
}

// count returns "1 problem", "2 problems" or "2 addresses".
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	default:
		return fmt.Sprintf("%d %ss", n, noun)
	}
}

// stamp is a time for people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// brief is a duration for people: 3s, 12m, 5h 10m, 2d 4h.
func brief(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd %dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}
