package acl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// The table "netdev usher" follows from the policy and from the sets of MACs of the
// table inet, whose elements it has too. It goes and comes whole, but for elements,
// which change in one batch with those of the table inet. A kernel that cannot have
// it (before 5.16, or without its parts) has all else all the same.

// IPv6Trouble tells why IPv6 to blocked MACs passes; empty: it does not, or there is
// no interface where it should.
func (t *Table) IPv6Trouble() string {
	return t.lastKnown().trouble
}

// egressLocked brings the table netdev to the policy and to the sets of MACs, as they
// were read at a generation. What it writes carries base; zero: no generation. It gives the generation then.
func (t *Table) egressLocked(ctx context.Context, c access.ACL, gen, base uint32) (uint32, error) {
	devices := t.policy.Devices()
	t.gone = slices.DeleteFunc(t.gone, func(name string) bool { return !slices.Contains(devices, name) || t.isThereLocked(name) })
	p := t.egressPolicyLocked()
	exists, defect, err := t.egressDefectLocked(ctx, p, &c)
	if err != nil {
		_ = t.hangUpLocked()
		return gen, err
	}
	if t.look {
		if t.seen.defect == "" && defect != "" {
			t.seen.defect = "table netdev " + ruleset.TableName + ": " + defect
		}
		return gen, nil
	}
	wanted := p.Egress != ""
	if defect == "" {
		t.egressUp, t.egressErr = wanted, ""
		return gen, nil
	}
	was := t.egressUp
	t.egressUp = false
	send := func() error {
		return t.mutedLocked(len(c[access.SetStoppedMAC])+len(c[access.SetPausedMAC]), func() error {
			return t.flushLocked(base, func(w *nftables.Conn) error { return queueEgress(w, p, exists, c, time.Until(t.openUntil)) })
		})
	}
	if err = send(); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) { // an interface, or the table, has gone since
		t.gone = slices.DeleteFunc(t.policy.Devices(), t.isThereLocked)
		p = t.egressPolicyLocked()
		if have, e := t.egressTableLocked(ctx); e == nil {
			exists = have != nil
			err = send()
		}
	}
	switch {
	case err == nil:
		t.egressUp, t.egressErr = wanted, ""
		if was && t.adopted {
			t.repairs++
		}
		t.log.Info("table of the egress chains replaced", "table", "netdev "+ruleset.TableName, "reason", defect, "interfaces", p.Egress)
		gen, err = t.afterLocked(ctx, gen, base)
		if errors.Is(err, errGenerationMoved) {
			err = nil // the next look compares again
		}
		return gen, err
	case errors.Is(err, unix.ERESTART), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return gen, err
	}
	text := fmt.Sprintf("the kernel takes no egress chain (it needs 5.16 and nft_fib_netdev): %v", err)
	if text != t.egressErr {
		t.log.Warn("IPv6 to blocked MACs passes", "interfaces", p.Egress, "error", err)
	}
	t.egressErr = text
	return gen, nil
}

// egressPolicyLocked is the policy without the interfaces that were not there when the kernel refused the table for one of
// them, as it does before 6.16, and are not there now. Where none is left it stays as it is.
func (t *Table) egressPolicyLocked() ruleset.Policy {
	p := t.policy
	left := slices.DeleteFunc(p.Devices(), func(name string) bool { return slices.Contains(t.gone, name) && !t.isThereLocked(name) })
	if len(left) > 0 {
		p.Egress = strings.Join(left, " ")
	}
	return p
}

// isThereLocked reports whether the network namespace has an interface; what cannot be asked for is taken to be there.
func (t *Table) isThereLocked(name string) bool {
	if t.hasDevice != nil {
		return t.hasDevice(name)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil || t.dialLocked() != nil {
		return true
	}
	raw, err := t.read.SyscallConn()
	if err != nil {
		return true
	}
	if e := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, ifr) }); e != nil {
		return true
	}
	return !errors.Is(err, unix.ENODEV)
}

// egressDefectLocked compares the table netdev with that of a policy, and its elements
// with those of c unless that is nil.
func (t *Table) egressDefectLocked(ctx context.Context, p ruleset.Policy, c *access.ACL) (exists bool, defect string, err error) {
	have, err := t.egressTableLocked(ctx)
	wanted := p.Egress != ""
	switch {
	case err != nil:
		return false, "", err
	case have == nil && wanted:
		return false, "there is none", nil
	case have == nil:
		return false, "", nil
	case !wanted:
		return true, "it is not wanted", nil
	case have.Flags != 0:
		return true, fmt.Sprintf("table flags %#x", uint32(have.Flags)), nil
	}
	sets := []*nftables.Set{ruleset.EgressOpen()}
	for _, set := range ruleset.EgressSets() {
		sets = append(sets, ruleset.EgressSet(set))
	}
	for _, want := range sets {
		info, err := t.setInLocked(ctx, want.Table, want.Name)
		if errors.Is(err, unix.ENOENT) {
			return true, "no set " + want.Name, nil
		}
		if err != nil {
			return true, "", err
		}
		if d := info.defect(want); d != "" {
			return true, d, nil
		}
	}
	chains := ruleset.EgressChains(p)
	if want := uint32(len(sets) + len(chains)); have.Use != want {
		return true, fmt.Sprintf("%d objects in the table, want %d", have.Use, want), nil
	}
	defect, err = t.egressChainsLocked(ctx, chains, ruleset.EgressRules(p))
	if defect == "" && err == nil && c != nil {
		defect, err = t.egressElementsLocked(ctx, *c)
	}
	if defect == "" && err == nil && c != nil {
		defect, err = t.egressOpenLocked(ctx)
	}
	return true, defect, err
}

// egressOpenLocked compares the switch of the maintenance there with what is left of it: what
// somebody puts in by hand there alone opens IPv6 to the blocked, and nothing tells of it.
func (t *Table) egressOpenLocked(ctx context.Context) (defect string, err error) {
	const slack = 2 * time.Second // between the two readings
	left, endless := time.Duration(0), false
	_, err = t.elementsInLocked(ctx, ruleset.EgressTable(), ruleset.SetOpen, func(e element) error {
		endless = endless || len(e.key) != 2 || e.timeout == 0
		left = max(left, e.expires)
		return nil
	})
	if err == nil && (endless || left > max(time.Until(t.openUntil), 0)+slack) {
		defect = "somebody has put an element into its set of the maintenance"
	}
	return defect, err
}

// egressTableLocked returns the table's declaration; nil: there is none.
func (t *Table) egressTableLocked(ctx context.Context) (*nftables.Table, error) {
	if err := t.dialLocked(); err != nil {
		return nil, err
	}
	if err := t.deadlineLocked(ctx); err != nil {
		return nil, err
	}
	have, err := t.write.ListTableOfFamily(ruleset.TableName, nftables.TableFamilyNetdev)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read table netdev: %w", err)
	}
	return have, nil
}

// egressChainsLocked compares the chains, their interfaces and their rules.
func (t *Table) egressChainsLocked(ctx context.Context, chains []*nftables.Chain, rules []ruleset.Rule) (string, error) {
	all, err := t.write.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return "", fmt.Errorf("list chains: %w", err)
	}
	devices, err := t.devicesLocked(ctx)
	if err != nil {
		return "", err
	}
	for _, want := range chains {
		i := slices.IndexFunc(all, func(c *nftables.Chain) bool { return c.Table.Name == ruleset.TableName && c.Name == want.Name })
		switch {
		case i < 0:
			return "no chain " + want.Name, nil
		case !sameChain(all[i], want) || devices[want.Name] != want.Device:
			return fmt.Sprintf("chain %s has another type, hook, interface, priority or policy", want.Name), nil
		}
		if d, err := t.ruleDefectLocked(want, rules); d != "" || err != nil {
			return d, err
		}
	}
	return "", nil
}

// devicesLocked returns the interfaces of the chains, several between spaces.
func (t *Table) devicesLocked(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	err := t.askInLocked(ctx, ruleset.EgressTable(), unix.NFT_MSG_GETCHAIN, netlink.Dump, nil, func(m netlink.Message) error {
		table, name, devices, err := parseChain(m.Data)
		if table == ruleset.TableName {
			out[name] = strings.Join(devices, " ")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces of chains: %w", err)
	}
	return out, nil
}

// egressElementsLocked compares the elements with those of the table inet.
func (t *Table) egressElementsLocked(ctx context.Context, c access.ACL) (string, error) {
	for _, set := range ruleset.EgressSets() {
		r := reading{set: set}
		if _, err := t.elementsInLocked(ctx, ruleset.EgressTable(), set.String(), func(e element) error {
			r.add(e)
			return nil
		}); err != nil {
			return "", err
		}
		// A set that was reordered while it was read looks as one that differs: it is
		// written again, to no harm.
		if keys, _ := r.done(); r.strange > 0 || keys != c[set] {
			return fmt.Sprintf("set %s has other elements", set), nil
		}
	}
	return "", nil
}

// queueEgress encodes the table, in place of the one that exists.
func queueEgress(c *nftables.Conn, p ruleset.Policy, exists bool, have access.ACL, open time.Duration) error {
	if exists {
		c.DelTable(ruleset.EgressTable())
	}
	if p.Egress == "" {
		return nil
	}
	c.AddTable(ruleset.EgressTable())
	for _, set := range ruleset.EgressSets() {
		if err := c.AddSet(ruleset.EgressSet(set), nil); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
		if err := queueElements(c.SetAddElements, ruleset.EgressSet(set), set, have[set]); err != nil {
			return fmt.Errorf("set %s: %w", set, err)
		}
	}
	if err := c.AddSet(ruleset.EgressOpen(), nil); err != nil {
		return fmt.Errorf("set %s: %w", ruleset.SetOpen, err)
	}
	if open > 0 {
		if err := c.SetAddElements(ruleset.EgressOpen(), egressOpenElements(open)); err != nil {
			return fmt.Errorf("set %s: %w", ruleset.SetOpen, err)
		}
	}
	for _, ch := range ruleset.EgressChains(p) {
		c.AddChain(ch)
	}
	queueAll(c, ruleset.EgressTable(), ruleset.EgressRules(p))
	return nil
}

// egressOpenElements is the switch in its set there.
func egressOpenElements(d time.Duration) []nftables.SetElement {
	return []nftables.SetElement{{Key: []byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff}, Timeout: d}}
}

// clearEgressLocked removes the table netdev, if there is one.
func (t *Table) clearEgressLocked(ctx context.Context) error {
	have, err := t.egressTableLocked(ctx)
	t.egressUp = false
	if have == nil || err != nil {
		return err
	}
	return t.flushLocked(0, func(c *nftables.Conn) error {
		c.DelTable(ruleset.EgressTable())
		return nil
	})
}
