package acl

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// observeLocked reads the sets until one reading is consistent, and repairs the
// table where that is needed.
func (t *Table) observeLocked(ctx context.Context) (access.ACL, error) {
	var last error
	for attempt := range attempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return access.ACL{}, errors.Join(err, last)
			}
		}
		c, gen, err := t.readLocked(ctx, attempt)
		if errors.Is(err, errGenerationMoved) && attempt == attempts-1 {
			// Somebody writes all the time, to other tables as it seems.
			// The sets as read have no sign of damage; the generation from
			// before the reading makes Changed ask for another soon.
			err = nil
		}
		if err == nil {
			base := gen
			if attempt > 0 {
				base = 0 // as in readLocked
			}
			gen, err = t.egressLocked(ctx, c, gen, base)
		}
		if err == nil {
			t.gen, t.adopted = gen, true
			return c, nil
		}
		if last = err; !mayPass(err) && !errors.Is(err, errInconsistent) && !errors.Is(err, errGenerationMoved) {
			break
		}
		t.log.Debug("sets to be read again", "attempt", attempt+1, "error", err)
	}
	return access.ACL{}, last
}

// pause waits a little longer at each attempt: what disturbs a reading is
// over in milliseconds.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(time.Millisecond << attempt)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

var (
	errInconsistent    = errors.New("the kernel reordered the set during the reading")
	errGenerationMoved = errors.New("the ruleset changed during the reading")
)

// readLocked is one reading, after a repair if the table needs one. With
// errGenerationMoved the contents are given all the same.
func (t *Table) readLocked(ctx context.Context, attempt int) (access.ACL, uint32, error) {
	var c access.ACL
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return c, 0, err
	}
	// A repair that carries the generation never comes through where somebody writes faster than we read. So what leaves
	// the elements alone goes without it from the second attempt on, and the whole table in the last one: what somebody
	// puts into our sets meanwhile goes with that, and is not wanted there anyway.
	base, baseOfAll := gen, gen
	if attempt > 0 {
		base = 0
	}
	if attempt == attempts-1 {
		baseOfAll = 0
	}
	found, err := t.inspectLocked(ctx)
	if err != nil {
		_ = t.hangUpLocked()
		return c, 0, err
	}
	kept, strange := 0, 0
	var counts access.SetCounts
	var open opened
	for set := range t.rulesLocked().Sets() {
		if !found.exists {
			break
		}
		info, err := t.setLocked(ctx, set.String())
		if found.defect != "" && errors.Is(err, unix.ENOENT) {
			continue
		}
		if found.defect != "" && err == nil && !info.readable(ruleset.Set(set)) {
			t.log.Warn("elements not kept, the set is of another type", "table", tableTitle, "set", set.String(), "elements", info.count)
			continue
		}
		if err != nil {
			return c, 0, err
		}
		keys, n, odd, err := t.dumpLocked(ctx, set, info.count)
		if err != nil {
			return c, 0, err
		}
		c[set], counts[set] = keys, n
		kept += len(keys) / set.Width()
		strange += odd
	}
	if found.exists {
		if open, err = t.openedLocked(ctx); err != nil {
			return c, 0, err
		}
	} else if !t.look {
		open.left = time.Until(t.openUntil) // who dropped the table did not mean to end it
	}
	if found.defect == "" && strange > 0 {
		found.defect = fmt.Sprintf("%d elements that no set of ours has", strange)
	}
	chainsOnly := found.soundSets && strange == 0
	if t.look {
		t.seen, t.counts = found, counts
		t.setOpenLocked(open.left)
		if after, err := t.generationLocked(ctx); err != nil || after != gen {
			return c, gen, cmp.Or(err, errGenerationMoved)
		}
		return c, gen, nil
	}
	if found.defect != "" {
		// The generation in the batch makes it fail if anybody wrote since the
		// elements were read.
		var err error
		sent := baseOfAll
		if chainsOnly {
			sent = base
			err = t.flushLocked(sent, func(w *nftables.Conn) error {
				if open.endless {
					if err := queueSwitch(w, ruleset.Open(), open.left); err != nil {
						return err
					}
				}
				return queueChains(w, t.rulesLocked(), found.chains)
			})
		} else {
			err = t.mutedLocked(kept, func() error {
				return t.flushLocked(sent, func(w *nftables.Conn) error {
					return queueSchema(w, t.policy, found.exists, c, switches{open.left, time.Until(t.portalUntil)})
				})
			})
			for set := range access.Sets() {
				counts[set] = raw(c, set)
			}
			t.nets = c.NetSets()
		}
		if err != nil {
			return c, 0, fmt.Errorf("build table: %w", err)
		}
		t.counts = counts
		t.setOpenLocked(open.left)
		if open.endless {
			t.warnEndless(open)
		}
		if t.adopted {
			t.repairs++
		}
		switch {
		case chainsOnly && !t.adopted:
			t.log.Info("rules replaced, the sets left as they are", "table", tableTitle, "reason", found.defect)
		case chainsOnly:
			t.log.Warn("rules replaced, the sets left as they are", "table", tableTitle, "reason", found.defect)
		case found.exists:
			t.log.Warn("table replaced, its elements kept", "table", tableTitle, "reason", found.defect, "elements", kept)
		default:
			t.fresh = t.fresh || !t.adopted
			t.log.Info("table made", "table", tableTitle, "schema", ruleset.Schema)
		}
		gen, err = t.afterLocked(ctx, gen, sent)
		return c, gen, err
	}
	if open.endless {
		if err := t.endLocked(base, open); err != nil {
			return c, 0, err
		}
		t.counts = counts
		t.setOpenLocked(open.left)
		gen, err = t.afterLocked(ctx, gen, base)
		return c, gen, err
	}
	if dropped, err := t.tidyNetsLocked(base, &c, found.chains); err != nil || dropped {
		t.counts = counts
		t.setOpenLocked(open.left)
		if err == nil {
			gen, err = t.afterLocked(ctx, gen, base)
		}
		return c, gen, err
	}
	after, err := t.generationLocked(ctx)
	if err != nil {
		return c, 0, err
	}
	t.counts = counts
	t.setOpenLocked(open.left)
	if after != gen {
		return c, gen, errGenerationMoved
	}
	return c, gen, nil
}

// afterLocked returns the generation after a commit of ours to what was read at gen. Of one that carried no generation
// (base zero) somebody else's may have come before it: then it is errGenerationMoved, and gen is left, so that Changed tells.
func (t *Table) afterLocked(ctx context.Context, gen, base uint32) (uint32, error) {
	next := nextGeneration(gen)
	if base != 0 {
		return next, nil
	}
	now, err := t.generationLocked(ctx)
	if err == nil && now != next {
		return gen, errGenerationMoved
	}
	return next, err
}

// dumpLocked reads the elements of a set, sorted. n is how many the kernel has
// for them. strange counts those that such a set should not have, such as the
// catch-all element.
func (t *Table) dumpLocked(ctx context.Context, set access.Set, count int) (keys access.Keys, n, strange int, err error) {
	r := reading{set: set}
	if count != countUnknown && !isInterval(set) {
		r.keys = make([]byte, 0, count*set.Width())
	}
	interrupted, err := t.elementsLocked(ctx, set.String(), func(e element) error {
		r.add(e)
		return nil
	})
	if err != nil {
		return "", 0, 0, err
	}
	keys, repeats := r.done()
	// The kernel does not count its catch-all element, and whatever else is
	// strange leads to a new table anyway.
	short := r.strange == 0 && !countFits(set, count, r.n-repeats)
	if interrupted || repeats > 0 || short {
		return "", 0, 0, fmt.Errorf("set %s: %w: %d elements, %d of them twice, want %d",
			set, errInconsistent, r.n, repeats, count)
	}
	return keys, r.n, r.strange, nil
}

// elementsLocked gives each element of a set to f, in the kernel's order. The
// element's key is valid during the call.
func (t *Table) elementsLocked(ctx context.Context, set string, f func(element) error) (interrupted bool, err error) {
	return t.elementsInLocked(ctx, ruleset.Table(), set, f)
}

func (t *Table) elementsInLocked(ctx context.Context, table *nftables.Table, set string, f func(element) error) (interrupted bool, err error) {
	err = t.askInLocked(ctx, table, unix.NFT_MSG_GETSETELEM, netlink.Dump, question{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: cString(table.Name)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: cString(set)},
	}, func(m netlink.Message) error {
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		return eachElement(m.Data, f)
	})
	if err != nil {
		return false, fmt.Errorf("read elements of set %s: %w", set, err)
	}
	return interrupted, nil
}

// generationLocked reads the number that every commit to the ruleset raises.
func (t *Table) generationLocked(ctx context.Context) (uint32, error) {
	var gen uint32
	err := t.askLocked(ctx, unix.NFT_MSG_GETGEN, 0, nil, func(m netlink.Message) error {
		return eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
			if typ == unix.NFTA_GEN_ID && len(v) == 4 {
				gen = binary.BigEndian.Uint32(v)
			}
			return nil
		})
	})
	if err == nil && gen == 0 {
		err = errors.New("no generation in the reply")
	}
	if err != nil {
		return 0, fmt.Errorf("read generation: %w", err)
	}
	return gen, nil
}

// setLocked reads the declaration of a set.
func (t *Table) setLocked(ctx context.Context, set string) (setInfo, error) {
	return t.setInLocked(ctx, ruleset.Table(), set)
}

func (t *Table) setInLocked(ctx context.Context, table *nftables.Table, set string) (setInfo, error) {
	info := setInfo{count: countUnknown}
	err := t.askInLocked(ctx, table, unix.NFT_MSG_GETSET, 0, question{
		{Type: unix.NFTA_SET_TABLE, Data: cString(table.Name)},
		{Type: unix.NFTA_SET_NAME, Data: cString(set)},
	}, func(m netlink.Message) (err error) {
		info, err = parseSet(m.Data)
		return err
	})
	if err != nil {
		return setInfo{}, fmt.Errorf("read set %s: %w", set, err)
	}
	return info, nil
}

type question []netlink.Attribute

// askLocked puts one question to the kernel and gives each message of the reply
// to f. It closes the sockets when it fails.
func (t *Table) askLocked(ctx context.Context, typ uint16, flags netlink.HeaderFlags, q question, f func(netlink.Message) error) error {
	return t.askInLocked(ctx, ruleset.Table(), typ, flags, q, f)
}

// askInLocked is askLocked for the family of a table.
func (t *Table) askInLocked(ctx context.Context, table *nftables.Table, typ uint16, flags netlink.HeaderFlags, q question, f func(netlink.Message) error) error {
	if err := t.dialLocked(); err != nil {
		return err
	}
	err := t.deadlineLocked(ctx)
	if err != nil {
		return err
	}
	attrs, err := netlink.MarshalAttributes(q)
	if err != nil {
		return err
	}
	req, err := t.read.Send(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err == nil {
		for m, e := range t.read.ReceiveIter() {
			if err = e; err != nil {
				break
			}
			if m.Header.Sequence != req.Header.Sequence {
				err = errors.New("reply to another question")
				break
			}
			if err = f(m); err != nil {
				break
			}
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		_ = t.hangUpLocked()
	}
	return err
}

// deadlineLocked bounds the wait for replies.
func (t *Table) deadlineLocked(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline := time.Now().Add(exchangeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return t.read.SetReadDeadline(deadline)
}

// cString is a string as attributes carry it, with its end mark.
func cString(s string) []byte { return append([]byte(s), 0) }
