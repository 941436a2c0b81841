package acl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// The sets of customers' subnets come with their first element and go when a reading finds them empty. Which of them the
// table has is read with its declarations.

// rulesLocked returns the policy with the sets of subnets that the table has.
func (t *Table) rulesLocked() ruleset.Policy {
	p := t.policy
	p.Nets = t.nets
	return p
}

// growing encodes a batch. If it fills a set of subnets that there is not yet, the set and its rules come with it: the
// chains are replaced, and within the batch, so that the old rules work until the new ones do.
func (t *Table) growing(b batch, nets access.NetSets) func(*nftables.Conn) error {
	queue := t.queueLocked(b)
	if nets == t.nets {
		return queue
	}
	p := t.rulesLocked()
	p.Nets = nets
	return func(c *nftables.Conn) error {
		for set := range access.Sets() {
			if nets.Has(set) && !t.nets.Has(set) {
				if err := c.AddSet(ruleset.Set(set), nil); err != nil {
					return fmt.Errorf("set %s: %w", set, err)
				}
			}
		}
		if err := queue(c); err != nil {
			return err
		}
		return queueChains(c, p, chainNames(p))
	}
}

func chainNames(p ruleset.Policy) (names []string) {
	for _, c := range ruleset.Chains(p) {
		names = append(names, c.Name)
	}
	return names
}

// tidyNetsLocked drops the sets of subnets in which a sound table has no element, and their rules. It reports whether there were any.
func (t *Table) tidyNetsLocked(gen uint32, have *access.ACL, chains []string) (dropped bool, err error) {
	left := have.NetSets()
	if left == t.nets {
		return false, nil
	}
	p := t.rulesLocked()
	p.Nets = left
	err = t.flushLocked(gen, func(c *nftables.Conn) error {
		if err := queueChains(c, p, chains); err != nil {
			return err
		}
		for set := range access.Sets() {
			if t.nets.Has(set) && !left.Has(set) {
				c.DelSet(ruleset.Set(set))
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("drop empty sets of subnets: %w", err)
	}
	t.nets = left
	return true, nil
}

// netsLocked reads which sets of subnets the table has, in the order in which they were made.
func (t *Table) netsLocked(ctx context.Context) (nets access.NetSets, order []access.Set, err error) {
	known := map[string]access.Set{}
	for set := range access.Sets() {
		if set.Optional() {
			known[set.String()] = set
		}
	}
	err = t.askLocked(ctx, unix.NFT_MSG_GETSET, netlink.Dump, question{
		{Type: unix.NFTA_SET_TABLE, Data: cString(ruleset.TableName)},
	}, func(m netlink.Message) error {
		return eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
			if typ == unix.NFTA_SET_NAME {
				if set, ours := known[strings.TrimRight(string(v), "\x00")]; ours {
					nets, order = nets.With(set), append(order, set)
				}
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return 0, nil, fmt.Errorf("list sets: %w", err)
	}
	return nets, order, nil
}

// netHoldsLocked asks whether a set of subnets has the one that an address lies in.
func (t *Table) netHoldsLocked(ctx context.Context, set access.Set, addr netip.Addr) (bool, error) {
	_, bits, _ := set.Subnet()
	four := addr.As4()
	binary.BigEndian.PutUint32(four[:], binary.BigEndian.Uint32(four[:])&access.Mask(bits))
	return t.holdsLocked(ctx, set, netip.AddrFrom4(four))
}

// anyHoldsLocked asks whether an address is in a set or, with its subnet, in one of the sets of subnets that belong to it.
func (t *Table) anyHoldsLocked(ctx context.Context, kind access.Set, addr netip.Addr) (bool, error) {
	found, err := t.holdsLocked(ctx, kind, addr)
	for bits := 32; err == nil && !found && bits >= provision.MinSubnetBits; bits-- {
		if set := kind.Subnets(bits); t.nets.Has(set) {
			found, err = t.netHoldsLocked(ctx, set, addr)
		}
	}
	return found, err
}
