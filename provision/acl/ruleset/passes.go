package ruleset

import "slices"

// What rules let past a block, a closed list.
const (
	PassMaintenance = "maintenance" // everything, while the switch is on
	PassDHCP        = "dhcp"
	PassDNS         = "dns"
	PassGarden      = "garden"
	PassExempt      = "exempt" // sources that are exempt, at the source guard
	PassRouter      = "router" // IPv6 to a MAC, as the router itself sends it
)

// Way is where something passes a block: in a chain, which says who is blocked, and
// what it is. All rules of it count together.
type Way struct {
	Chain string
	What  string
}

// Passes returns what the rule lets past a block; false: nothing.
func (r Rule) Passes() (Way, bool) { return Way{r.Chain, r.passes}, r.passes != "" }

// Ways returns every way that a policy may have, in the order of the rules.
func Ways() []Way {
	var out []Way
	known := map[Way]bool{}
	for _, r := range slices.Concat(Rules(Policy{SourceGuard: true, Alone: true}), EgressRules(Policy{})) {
		if w, ok := r.Passes(); ok && !known[w] {
			known[w] = true
			out = append(out, w)
		}
	}
	return out
}
