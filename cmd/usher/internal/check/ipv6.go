package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/provision"
)

// keys that name interfaces of subscribers, for the source guard.
const (
	keyGuardDirect = "acl.source_guard.direct"
	keyGuardVLAN   = "acl.source_guard.vlan"
)

// addIPv6 says what becomes of IPv6 of the blocked on a host that forwards it. release is
// that of its kernel, such as 5.10.0; uplinks are where its default routes lead.
func (r *Report) addIPv6(cfg *config.Config, host []provision.Interface, release string, uplinks []string) {
	if cfg == nil || !cfg.ACL.Enabled {
		return
	}
	warn := func(format string, args ...any) {
		r.Warnings = append(r.Warnings, keys.Problem{File: r.File, Line: 1, Column: 1, Key: "acl.ipv6", Reason: fmt.Sprintf(format, args...)})
	}
	if !cfg.ACL.BlocksIPv6() {
		warn("ignore, and this host forwards IPv6: that of the paused and the stopped passes")
		return
	}
	direct, vlan, up := ipv6At(cfg, host, uplinks)
	if len(up) > 0 {
		warn("a default route leads to %s, so IPv6 is not blocked there, whoever is behind it: let no key name it as an interface of subscribers", some(up))
	}
	switch {
	case len(direct)+len(vlan)+len(up) == 0:
		warn("this host forwards IPv6, and no interface of subscribers is named: that of the paused and the stopped passes. "+
			"Name them in %s, dhcp.vlan_interfaces or acl.source_guard, or say ignore", keySubscribers)
		return
	case len(direct) > 0 && !hasEgress(release):
		warn("the kernel %s has no egress chains (5.16 and later have): IPv6 that comes to the paused and the stopped on %s passes, what they send does not", release, some(direct))
	}
	if len(direct) > 0 {
		r.IPv6 = append(r.IPv6, fmt.Sprintf("On %s it is blocked by the MAC of the ERP or of the lease. Who takes another MAC, or routes behind one, walks around that.", some(direct)))
	}
	if len(vlan) > 0 {
		r.IPv6 = append(r.IPv6, fmt.Sprintf("Of %s each is blocked where all customers behind it are.", some(vlan)))
	}
	r.IPv6 = append(r.IPv6, "Behind a relay that routes no MAC is seen: there it passes.")
}

// ipv6At returns where IPv6 is blocked by MAC, where by the interface, and which interfaces would be among the latter but
// for a default route. What the source guard looks at by MAC is by MAC, and a VLAN's interface by itself though it is listed.
func ipv6At(cfg *config.Config, host []provision.Interface, uplinks []string) (direct, vlan, up []string) {
	without := func(names, others []string) []string {
		return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(others, name) })
	}
	tidy := func(names []string) []string {
		slices.Sort(names)
		return slices.Compact(names)
	}
	direct = fits(cfg, host, keyGuardDirect)
	vlan = without(tidy(slices.Concat(fits(cfg, host, keyVLANs), fits(cfg, host, keyGuardVLAN))), direct)
	direct = tidy(append(slices.Clone(direct), without(fits(cfg, host, keySubscribers), vlan)...))
	for _, name := range vlan {
		if slices.Contains(uplinks, name) {
			up = append(up, name)
		}
	}
	return direct, without(vlan, up), up
}

// hasEgress reports whether a kernel has egress chains; what cannot be read may.
func hasEgress(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(strings.TrimSpace(release), "%d.%d", &major, &minor); n < 2 {
		return true
	}
	return major > 5 || major == 5 && minor >= 16
}
