package acl

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// table is what inspectLocked finds.
type table struct {
	exists bool
	defect string // empty: exactly what we want
	// soundSets says that the defect is in the chains alone, and chains names
	// all that are there.
	soundSets bool
	chains    []string
	nets      []access.Set // of subnets, in their order
}

// inspectLocked compares the table in the kernel with the wanted one. It reads
// declarations and rules, no elements.
func (t *Table) inspectLocked(ctx context.Context) (table, error) {
	if err := t.dialLocked(); err != nil {
		return table{}, err
	}
	if err := t.deadlineLocked(ctx); err != nil {
		return table{}, err
	}
	have, err := t.write.ListTableOfFamily(ruleset.TableName, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		t.nets = 0
		return table{defect: "there is none"}, nil
	}
	if err != nil {
		return table{}, fmt.Errorf("read table: %w", err)
	}
	found := table{exists: true}
	if t.nets, found.nets, err = t.netsLocked(ctx); err != nil {
		return table{}, err
	}
	return found, t.findDefectLocked(ctx, have, &found)
}

func (t *Table) findDefectLocked(ctx context.Context, have *nftables.Table, found *table) (err error) {
	sets := ruleset.Sets(t.rulesLocked())
	if have.Flags != 0 {
		found.defect = fmt.Sprintf("table flags %#x", uint32(have.Flags))
		return nil
	}
	for _, want := range sets {
		info, err := t.setLocked(ctx, want.Name)
		if errors.Is(err, unix.ENOENT) {
			found.defect = fmt.Sprintf("no set %s", want.Name)
			return nil
		}
		if err != nil {
			return err
		}
		if found.defect = info.defect(want); found.defect != "" {
			return nil
		}
	}
	all, err := t.write.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range all {
		if c.Table.Name == ruleset.TableName {
			found.chains = append(found.chains, c.Name)
		}
	}
	// The kernel counts what is in the table: a set or another object of
	// somebody else shows here.
	if want := uint32(len(sets) + len(found.chains)); have.Use != want {
		found.defect = fmt.Sprintf("%d objects in the table, want %d", have.Use, want)
		return nil
	}
	found.soundSets = true
	found.defect, err = t.chainDefectLocked(all, found.chains)
	return err
}

// chainDefectLocked compares the chains, of which all has the declarations of
// every table, and their rules.
func (t *Table) chainDefectLocked(all []*nftables.Chain, names []string) (string, error) {
	chains, rules := ruleset.Chains(t.policy), ruleset.Rules(t.rulesLocked())
	for _, want := range chains {
		i := slices.IndexFunc(all, func(c *nftables.Chain) bool { return c.Table.Name == ruleset.TableName && c.Name == want.Name })
		if i < 0 {
			return fmt.Sprintf("no chain %s", want.Name), nil
		}
		if !sameChain(all[i], want) {
			return fmt.Sprintf("chain %s has another type, hook, priority or policy", want.Name), nil
		}
		d, err := t.ruleDefectLocked(want, rules)
		if d != "" || err != nil {
			return d, err
		}
	}
	if len(names) != len(chains) {
		return fmt.Sprintf("%d chains in the table, want %d", len(names), len(chains)), nil
	}
	return "", nil
}

func sameChain(have, want *nftables.Chain) bool {
	return have.Type == want.Type && same(have.Hooknum, want.Hooknum) &&
		same(have.Priority, want.Priority) && same(have.Policy, want.Policy)
}

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (t *Table) ruleDefectLocked(chain *nftables.Chain, all []ruleset.Rule) (string, error) {
	var want []ruleset.Rule
	for _, r := range all {
		if r.Chain == chain.Name {
			want = append(want, r)
		}
	}
	have, err := t.write.GetRules(chain.Table, chain)
	if op := (*netlink.OpError)(nil); errors.As(err, &op) {
		return "", fmt.Errorf("read rules of chain %s: %w", chain.Name, err)
	}
	if err != nil {
		// Not the kernel's refusal: a rule that the library cannot read, so not ours.
		return fmt.Sprintf("chain %s has a strange rule: %v", chain.Name, err), nil
	}
	if len(have) != len(want) {
		return fmt.Sprintf("chain %s has %d rules, want %d", chain.Name, len(have), len(want)), nil
	}
	for i, r := range have {
		if !reflect.DeepEqual(resetCounters(r.Exprs), want[i].Exprs()) || string(r.UserData) != string(want[i].UserData()) {
			return fmt.Sprintf("chain %s: rule %d is another one", chain.Name, i+1), nil
		}
	}
	return "", nil
}

// resetCounters makes what a rule has counted no part of a comparison.
func resetCounters(exprs []expr.Any) []expr.Any {
	for _, e := range exprs {
		if c, ok := e.(*expr.Counter); ok {
			*c = expr.Counter{}
		}
	}
	return exprs
}

// defect says how a set differs from its declaration.
func (s setInfo) defect(want *nftables.Set) string {
	switch {
	case !s.fits(want) || s.timeout != want.Timeout:
		return fmt.Sprintf("set %s has another type or other flags", want.Name)
	case s.comment != want.Comment:
		return fmt.Sprintf("set %s is of another schema: comment %q", want.Name, strings.ToValidUTF8(s.comment, "?"))
	}
	return ""
}

// readable reports whether the elements of a set, of any schema, can be taken over.
func (s setInfo) readable(want *nftables.Set) bool {
	const others = unix.NFT_SET_ANONYMOUS | unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | unix.NFT_SET_OBJECT
	var flags uint32
	if want.Interval {
		flags = unix.NFT_SET_INTERVAL
	}
	return s.flags&others == flags && s.keyType == want.KeyType.GetNFTMagic() && s.keyLen == want.KeyType.Bytes
}

// fits reports whether a set is declared as wanted.
func (s setInfo) fits(want *nftables.Set) bool {
	var flags uint32
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{want.Interval, unix.NFT_SET_INTERVAL}, {want.HasTimeout, unix.NFT_SET_TIMEOUT}, {want.Dynamic, unix.NFT_SET_EVAL}} {
		if f.on {
			flags |= f.flag
		}
	}
	return s.flags == flags && s.keyType == want.KeyType.GetNFTMagic() && s.keyLen == want.KeyType.Bytes
}
