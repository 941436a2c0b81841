package acl

import (
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/google/nftables"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// batch is what changes ask for, sorted and without repeats.
type batch struct {
	adds, removes access.ACL
}

func newBatch(changes []access.Change) (batch, error) {
	var adds, removes [len(access.ACL{})][]byte
	for i, c := range changes {
		switch {
		case c.Set == 0 || int(c.Set) >= len(adds):
			return batch{}, fmt.Errorf("change %d: set %d does not exist", i, c.Set)
		case len(c.Key) != c.Set.Width():
			return batch{}, fmt.Errorf("change %d: %s: a key of %d bytes, want %d", i, c.Set, len(c.Key), c.Set.Width())
		case c.Op == provision.OpAdd:
			adds[c.Set] = append(adds[c.Set], c.Key...)
		case c.Op == provision.OpRemove:
			removes[c.Set] = append(removes[c.Set], c.Key...)
		default:
			return batch{}, fmt.Errorf("change %d: operation %d does not exist", i, c.Op)
		}
	}
	var b batch
	for set := range access.Sets() {
		b.adds[set], b.removes[set] = set.Sorted(access.Keys(adds[set])), set.Sorted(access.Keys(removes[set]))
		for e := range b.removes.Elements(set) {
			if b.adds.Has(e) {
				return batch{}, fmt.Errorf("%s %s: both added and removed", set, e)
			}
		}
	}
	return b, nil
}

// len is the number of changes.
func (b batch) len() int { return b.adds.Len() + b.removes.Len() }

// each returns the sets that the batch touches.
func (b batch) each() iter.Seq[access.Set] {
	return func(yield func(access.Set) bool) {
		for set := range access.Sets() {
			if len(b.adds[set])+len(b.removes[set]) > 0 && !yield(set) {
				return
			}
		}
	}
}

// missingFrom returns the part of the batch that does not hold yet.
func (b batch) missingFrom(have access.ACL) batch {
	return batch{b.adds.Minus(have), b.removes.Minus(b.removes.Minus(have))}
}

// queue encodes the batch: additions before removals, but where elements may
// overlap the other way round, for the kernel refuses an interval that overlaps
// one which is still there. Within the batch the order is nobody's to see.
func (b batch) queue(c *nftables.Conn) error {
	for set := range access.Sets() {
		if isInterval(set) {
			if err := queueElements(c.SetDeleteElements, ruleset.Set(set), set, b.removes[set]); err != nil {
				return err
			}
		}
		if err := queueElements(c.SetAddElements, ruleset.Set(set), set, b.adds[set]); err != nil {
			return err
		}
	}
	for set := range access.Sets() {
		if !isInterval(set) {
			if err := queueElements(c.SetDeleteElements, ruleset.Set(set), set, b.removes[set]); err != nil {
				return err
			}
		}
	}
	return nil
}

// queueEgress encodes what the table netdev has of the batch.
func (b batch) queueEgress(c *nftables.Conn) error {
	for _, set := range ruleset.EgressSets() {
		if err := queueElements(c.SetAddElements, ruleset.EgressSet(set), set, b.adds[set]); err != nil {
			return err
		}
		if err := queueElements(c.SetDeleteElements, ruleset.EgressSet(set), set, b.removes[set]); err != nil {
			return err
		}
	}
	return nil
}

// isInterval reports whether the kernel keeps a set's elements as intervals.
func isInterval(set access.Set) bool { return set.Of(access.PartPrefix) }

// queueElements puts elements into messages of a bounded size.
func queueElements(f func(*nftables.Set, []nftables.SetElement) error, declared *nftables.Set, set access.Set, keys access.Keys) error {
	if len(keys) == 0 {
		return nil
	}
	w := set.Width()
	elements := make([]nftables.SetElement, 0, min(2*len(keys)/w, 2*chunk))
	for len(keys) > 0 {
		part := []byte(keys[:min(len(keys), chunk*w)])
		keys, elements = keys[len(part):], elements[:0]
		for ; len(part) > 0; part = part[w:] {
			if !isInterval(set) {
				elements = append(elements, nftables.SetElement{Key: part[:w:w]})
				continue
			}
			first, end, open := interval(part)
			elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, first), IntervalOpen: open})
			if !open {
				elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, end), IntervalEnd: true})
			}
		}
		if err := f(declared, elements); err != nil {
			return err
		}
	}
	return nil
}

// interval returns the ends of a prefix as the kernel keeps them: its first
// address and the one behind its last. A prefix up to the last of all addresses
// has no such end.
func interval(key []byte) (first, end uint32, open bool) {
	first = binary.BigEndian.Uint32(key)
	last := uint64(first) + 1<<(32-uint(key[4]))
	return first, uint32(last), last>>32 != 0
}

// raw is the number of elements that the kernel counts for those of a set.
func raw(a access.ACL, set access.Set) int {
	n := len(a[set]) / set.Width()
	if !isInterval(set) {
		return n
	}
	for e := range a.Elements(set) {
		if _, _, open := interval([]byte(e.Key)); !open {
			n++
		}
	}
	return n
}

// countFits reports whether the kernel's count of a set is that of n elements. Of
// intervals it counts pairs of ends, as some versions do, or the ends. An
// unknown count fits.
func countFits(set access.Set, count, n int) bool {
	return count == countUnknown || count == n || isInterval(set) && count == n/2
}

// switches are what is left of the times for which they are on.
type switches struct{ open, portal time.Duration }

// queueSchema encodes the whole table with the given elements and switches. Where the table exists it is replaced: within the
// batch, so the old rules work until the new ones do.
func queueSchema(c *nftables.Conn, p ruleset.Policy, replace bool, have access.ACL, on switches) error {
	if replace {
		c.DelTable(ruleset.Table())
	}
	c.AddTable(ruleset.Table())
	p.Nets = have.NetSets()
	for _, s := range ruleset.Sets(p) {
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for set := range access.Sets() {
		if err := queueElements(c.SetAddElements, ruleset.Set(set), set, have[set]); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
	}
	for _, x := range []struct {
		set  *nftables.Set
		left time.Duration
	}{{ruleset.Open(), on.open}, {ruleset.PortalUp(), on.portal}} {
		if x.left <= 0 {
			continue
		}
		if err := c.SetAddElements(x.set, switchedOn(x.set, x.left)); err != nil {
			return fmt.Errorf("set %s: %w", x.set.Name, err)
		}
	}
	queueRules(c, p)
	return nil
}

// queueChains replaces the chains that are there and leaves the sets as they
// are, with all their counters. Within the batch, so the old rules work until
// the new ones do.
func queueChains(c *nftables.Conn, p ruleset.Policy, have []string) error {
	for _, name := range have {
		c.FlushChain(&nftables.Chain{Table: ruleset.Table(), Name: name}) // first all: rules lead to other chains
	}
	for _, name := range have {
		c.DelChain(&nftables.Chain{Table: ruleset.Table(), Name: name})
	}
	queueRules(c, p)
	return nil
}

func queueRules(c *nftables.Conn, p ruleset.Policy) {
	for _, ch := range ruleset.Chains(p) {
		c.AddChain(ch)
	}
	queueAll(c, ruleset.Table(), ruleset.Rules(p))
}

func queueAll(c *nftables.Conn, table *nftables.Table, rules []ruleset.Rule) {
	for _, r := range rules {
		c.AddRule(&nftables.Rule{
			Table:    table,
			Chain:    &nftables.Chain{Name: r.Chain},
			Exprs:    r.Exprs(),
			UserData: r.UserData(),
		})
	}
}
