package show

import (
	"fmt"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision/access"
)

// ipv6Rows tell what becomes of IPv6 of the blocked.
func ipv6Rows(p cli.Paint, st access.IPv6Status) [][]string {
	const listed = 3
	switch {
	case st.Mode == access.IPv6NotForwarded:
		return nil
	case st.Mode != access.IPv6Blocked:
		return [][]string{{"", "IPv6 is not looked at (acl.ipv6)"}}
	case len(st.Direct)+st.Interfaces+len(st.Uplinks) == 0:
		return [][]string{{"", p.Red("IPv6 of the blocked passes: no interface of subscribers is named (dhcp.subscriber_interfaces, acl.source_guard)")}}
	}
	text := "IPv6 of the blocked: "
	if len(st.Direct) > 0 {
		text += "by MAC on " + listOf(st.Direct)
	}
	if st.Interfaces > 0 {
		if len(st.Direct) > 0 {
			text += ", "
		}
		text += fmt.Sprintf("by interface on %d", st.Interfaces)
	}
	rows := [][]string{{"", text}}
	if len(st.Uplinks) > 0 {
		for _, part := range wrap(fmt.Sprintf("IPv6 on %s is not blocked by the interface: a default route leads there", listOf(st.Uplinks)), textWidth) {
			rows = append(rows, []string{"", part})
		}
	}
	if st.Trouble != "" {
		for _, part := range wrap("IPv6 to their MACs passes: "+st.Trouble, textWidth) {
			rows = append(rows, []string{"", p.Red(part)})
		}
	}
	for _, m := range st.Shared.First[:min(listed, len(st.Shared.First))] {
		rows = append(rows, []string{"", p.Red(fmt.Sprintf("IPv6 of %s passes: customer %d is blocked, customer %d has the MAC too and is not", m.MAC, m.Blocked, m.Other))})
	}
	if more := st.Shared.Count - listed; more > 0 {
		rows = append(rows, []string{"", fmt.Sprintf("and %d more MACs", more)})
	}
	if n := st.Unheard.Count; n > 0 {
		u := st.Unheard.First[0]
		text := fmt.Sprintf("MACs of leases of the blocked whose IPv6 passes, for no ARP came from them yet: %d (first: %s, %s on %s)", n, u.MAC, u.IP, u.Interface)
		for _, part := range wrap(text, textWidth) {
			rows = append(rows, []string{"", part})
		}
	}
	if why := st.Unheard.Deaf; why != "" && len(st.Direct) > 0 {
		for _, part := range wrap("ARP cannot be heard, so MACs that only leases tell are not blocked from now on: "+why, textWidth) {
			rows = append(rows, []string{"", p.Red(part)})
		}
	}
	return rows
}
