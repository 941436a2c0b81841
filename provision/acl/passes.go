package acl

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Passed is what rules let past a block in one chain, since the rules were made.
type Passed struct {
	Chain string `json:"chain"` // who: from_paused, unbound and so on
	What  string `json:"what"`  // dns, garden, dhcp, exempt, maintenance, router
	access.Counter
}

// Ways returns everything that Passed may tell of, with nothing counted.
func Ways() []Passed {
	var out []Passed
	for _, w := range ruleset.Ways() {
		out = append(out, Passed{Chain: w.Chain, What: w.What})
	}
	return out
}

// Passed reads what the rules of a policy have let past a block. It reads rules alone,
// no elements. Where there is no table nothing is blocked and nothing passed.
func (r *Reader) Passed(ctx context.Context, p ruleset.Policy) ([]Passed, error) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := errors.Join(t.dialLocked(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("acl: read counters: %w", err)
	}
	if err := t.deadlineLocked(ctx); err != nil {
		return nil, fmt.Errorf("acl: read counters: %w", err)
	}
	nets, _, err := t.netsLocked(ctx)
	if err != nil {
		return nil, fmt.Errorf("acl: read counters: %w", err)
	}
	p.Nets = nets
	out := Ways()
	at := map[ruleset.Way]*access.Counter{}
	for i := range out {
		at[ruleset.Way{Chain: out[i].Chain, What: out[i].What}] = &out[i].Counter
	}
	if err := t.passedLocked(ruleset.Chains(p), ruleset.Rules(p), at); err != nil {
		return nil, err
	}
	// A kernel without egress chains has no such table: then nothing of IPv6 to MACs is blocked.
	egress, err := t.egressTableLocked(ctx)
	if err != nil {
		return nil, fmt.Errorf("acl: read counters: %w", err)
	}
	if egress == nil || p.Egress == "" {
		return out, nil
	}
	return out, t.passedLocked(ruleset.EgressChains(p), ruleset.EgressRules(p), at)
}

// passedLocked adds what the rules of some chains have let past a block. rules may be those of other chains too.
func (t *Table) passedLocked(chains []*nftables.Chain, all []ruleset.Rule, at map[ruleset.Way]*access.Counter) error {
	rules := map[string][]ruleset.Rule{}
	passing := map[string]bool{}
	for _, r := range all {
		_, passes := r.Passes()
		rules[r.Chain], passing[r.Chain] = append(rules[r.Chain], r), passing[r.Chain] || passes
	}
	for _, c := range chains {
		if !passing[c.Name] {
			continue
		}
		have, err := t.write.GetRules(c.Table, c)
		if err != nil {
			return errors.Join(fmt.Errorf("acl: read rules of chain %s: %w", c.Name, err), t.hangUpLocked())
		}
		want := rules[c.Name]
		if len(have) != len(want) {
			return fmt.Errorf("acl: read counters: %w: chain %s has %d rules, want %d", ErrNotAsWritten, c.Name, len(have), len(want))
		}
		for i, r := range want {
			if way, ok := r.Passes(); ok {
				n := counted(have[i].Exprs)
				at[way].Packets += n.Packets
				at[way].Bytes += n.Bytes
			}
		}
	}
	return nil
}

// counted returns what a rule has counted.
func counted(exprs []expr.Any) (n access.Counter) {
	for _, e := range exprs {
		if c, ok := e.(*expr.Counter); ok {
			n = access.Counter{Packets: c.Packets, Bytes: c.Bytes}
		}
	}
	return n
}
