package acl

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Passed is what rules let past a block in one chain, since the rules were made.
type Passed struct {
	Chain string `json:"chain"` // who: from_paused, unbound and so on
	What  string `json:"what"`  // dns, garden, dhcp, exempt, maintenance
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
	rules := map[string][]ruleset.Rule{}
	for _, r := range ruleset.Rules(p) {
		rules[r.Chain] = append(rules[r.Chain], r)
	}
	for _, c := range ruleset.Chains(p) {
		have, err := t.write.GetRules(ruleset.Table(), c)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("acl: read rules of chain %s: %w", c.Name, err), t.hangUpLocked())
		}
		want := rules[c.Name]
		if len(have) != len(want) {
			return nil, fmt.Errorf("acl: read counters: %w: chain %s has %d rules, want %d", ErrNotAsWritten, c.Name, len(have), len(want))
		}
		for i, r := range want {
			way, ok := r.Passes()
			if !ok {
				continue
			}
			n := counted(have[i].Exprs)
			at[way].Packets += n.Packets
			at[way].Bytes += n.Bytes
		}
	}
	return out, nil
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
