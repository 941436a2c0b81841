package ruleset

import (
	"iter"

	"github.com/usher-agent/usher/provision/access"
)

// Customers' subnets have a set for each length in use, and each such set its rules, which look an address up with the
// bits behind the length cut off. Where nobody has one there is neither: a packet costs what it cost before.

// Sets returns the sets of an ACL that there are.
func (p Policy) Sets() iter.Seq[access.Set] {
	return func(yield func(access.Set) bool) {
		for set := range access.Sets() {
			if (!set.Optional() || p.Nets.Has(set)) && !yield(set) {
				return
			}
		}
	}
}

// nets returns the sets of subnets that there are for a set of addresses, the longest prefix first.
func (p Policy) nets(kind access.Set) (out []access.Set) {
	for bits := range access.Lengths() {
		if set := kind.Subnets(bits); p.Nets.Has(set) {
			out = append(out, set)
		}
	}
	return out
}

// blockedNets returns the rules that lead packets of blocked subnets to where those of blocked addresses go.
func (p Policy) blockedNets(kind access.Set, whose, out, back string) (rules []Rule) {
	for _, set := range p.nets(kind) {
		rules = append(rules,
			rule(chainForward, "from "+whose, from(set), goTo(out)),
			rule(chainForward, "to "+whose, to(set), goTo(back)))
	}
	return rules
}

// boundNets returns the rules that let sources from subnets in where their owner is. They are met by what has no
// element of its own address, and cost nobody else anything.
func (p Policy) boundNets() (rules []Rule) {
	for _, set := range p.nets(access.SetBoundDirect) {
		rules = append(rules, rule(chainUnbound, "", from(access.SetGuardedDirect), from(set), accept()))
	}
	for _, set := range p.nets(access.SetBoundVLAN) {
		rules = append(rules, rule(chainUnbound, "", from(set), accept()))
	}
	return rules
}
