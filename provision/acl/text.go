package acl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// ErrNotAsWritten says that the table in the kernel is not the one that this
// package makes.
var ErrNotAsWritten = errors.New("the table is not as it was written")

// AsNFT reads the table and returns it as "nft list table inet usher" (of version
// 1.0.6) prints it, with what the rules have counted. A table that is not as it
// should be is ErrNotAsWritten; the next Observe puts it right.
func (t *Table) AsNFT(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last error
	for attempt := range attempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return "", fmt.Errorf("acl: list: %w", errors.Join(err, last))
			}
		}
		l, err := t.listingLocked(ctx)
		if err == nil {
			return l.String(), nil
		}
		if last = err; !mayPass(err) && !errors.Is(err, errInconsistent) && !errors.Is(err, errGenerationMoved) {
			break
		}
	}
	return "", fmt.Errorf("acl: list: %w", last)
}

// listingLocked reads the table once.
func (t *Table) listingLocked(ctx context.Context) (ruleset.Listing, error) {
	l := ruleset.Listing{Counts: map[string][]access.Counter{}}
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return l, err
	}
	found, err := t.inspectLocked(ctx)
	if err != nil {
		return l, errors.Join(err, t.hangUpLocked())
	}
	if found.defect != "" {
		return l, fmt.Errorf("%w: %s", ErrNotAsWritten, found.defect)
	}
	l.Policy, l.Nets = t.rulesLocked(), found.nets
	for set := range l.Policy.Sets() {
		info, err := t.setLocked(ctx, set.String())
		if err != nil {
			return l, err
		}
		keys, _, strange, err := t.dumpLocked(ctx, set, info.count)
		if err != nil {
			return l, err
		}
		if strange > 0 {
			return l, fmt.Errorf("%w: set %s has %d elements that no set of ours has", ErrNotAsWritten, set, strange)
		}
		l.Have[set] = keys
	}
	for _, s := range []struct {
		name string
		into *[]ruleset.Dynamic
	}{{ruleset.SetOpen, &l.Open}, {ruleset.SetPortalUp, &l.Portal}, {ruleset.SetRefused, &l.Refused}} {
		if err := t.dynamicLocked(ctx, ruleset.Table(), s.name, s.into); err != nil {
			return l, err
		}
	}
	chains := ruleset.Chains(t.policy)
	have, err := t.egressTableLocked(ctx)
	switch {
	case err != nil:
		return l, err
	case have == nil:
		l.Policy.Egress = "" // the kernel does not take it, or it is to come
	case t.policy.Egress != "":
		if err := t.dynamicLocked(ctx, ruleset.EgressTable(), ruleset.SetOpen, &l.EgressOpen); err != nil {
			return l, err
		}
		l.Policy.Egress = t.egressPolicyLocked().Egress
		chains = append(chains, ruleset.EgressChains(l.Policy)...)
	}
	for _, c := range chains {
		rules, err := t.write.GetRules(c.Table, c)
		if err != nil {
			return l, errors.Join(fmt.Errorf("read rules of chain %s: %w", c.Name, err), t.hangUpLocked())
		}
		for _, r := range rules {
			l.Counts[c.Name] = append(l.Counts[c.Name], counted(r.Exprs))
		}
	}
	after, err := t.generationLocked(ctx)
	if err == nil && after != gen {
		err = errGenerationMoved
	}
	return l, err
}

// dynamicLocked reads a set whose elements come and go in the kernel, sorted.
func (t *Table) dynamicLocked(ctx context.Context, table *nftables.Table, set string, into *[]ruleset.Dynamic) error {
	if _, err := t.elementsInLocked(ctx, table, set, func(e element) error {
		*into = append(*into, ruleset.Dynamic{Key: slices.Clone(e.key), Timeout: e.timeout, Expires: e.expires, Counter: e.counter})
		return nil
	}); err != nil {
		return err
	}
	// The rules may add to the set while it is read, so some may come twice.
	slices.SortFunc(*into, func(a, b ruleset.Dynamic) int { return bytes.Compare(a.Key, b.Key) })
	*into = slices.CompactFunc(*into, func(a, b ruleset.Dynamic) bool { return bytes.Equal(a.Key, b.Key) })
	return nil
}
