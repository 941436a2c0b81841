package acl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Holds asks the kernel for one address, without reading the sets: whether it is
// stopped, and whether it is paused, by itself or with its subnet. A table or set that is not there holds
// nobody. It does not change what Changed tells.
func (t *Table) Holds(ctx context.Context, addr netip.Addr) (stopped, paused bool, err error) {
	if !addr.Unmap().Is4() {
		return false, false, fmt.Errorf("acl: %s is not IPv4", addr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if stopped, err = t.anyHoldsLocked(ctx, access.SetStopped, addr.Unmap()); err != nil {
		return false, false, err
	}
	paused, err = t.anyHoldsLocked(ctx, access.SetPaused, addr.Unmap())
	return stopped, paused, err
}

func (t *Table) holdsLocked(ctx context.Context, set access.Set, addr netip.Addr) (bool, error) {
	_, found, err := t.lookUpLocked(ctx, set.String(), addr)
	return found, err
}

// Counters tells what was refused from and to each of the addresses since its
// counting began: with the first refused packet after a day without any, or
// after the whole table was replaced. What passed to a garden or resolver is not in it.
func (t *Table) Counters(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]access.Counter, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[netip.Addr]access.Counter, len(addrs))
	for _, a := range addrs {
		if !a.Unmap().Is4() {
			return nil, fmt.Errorf("acl: %s is not IPv4", a)
		}
		e, found, err := t.lookUpLocked(ctx, ruleset.SetRefused, a.Unmap())
		if err != nil {
			return nil, fmt.Errorf("acl: %w", err)
		}
		if found {
			out[a] = e.counter
		}
	}
	return out, nil
}

// lookUpLocked asks for one address of a set, without reading the set.
func (t *Table) lookUpLocked(ctx context.Context, set string, addr netip.Addr) (e element, found bool, err error) {
	elements, err := elementList(addr)
	if err != nil {
		return element{}, false, err
	}
	err = t.askLocked(ctx, unix.NFT_MSG_GETSETELEM, 0, question{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: cString(ruleset.TableName)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: cString(set)},
		{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: elements},
	}, func(m netlink.Message) error {
		return eachElement(m.Data, func(x element) error {
			e, found = x, true
			return nil
		})
	})
	if errors.Is(err, unix.ENOENT) {
		return element{}, false, nil
	}
	if err != nil {
		return element{}, false, fmt.Errorf("look up %s in set %s: %w", addr, set, err)
	}
	return e, found, nil
}

// elementList is the list of one element as a request has it.
func elementList(addr netip.Addr) ([]byte, error) {
	key := addr.As4()
	e := netlink.NewAttributeEncoder()
	e.Nested(unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) error {
		e.Nested(unix.NFTA_SET_ELEM_KEY, func(e *netlink.AttributeEncoder) error {
			e.Bytes(unix.NFTA_DATA_VALUE, key[:])
			return nil
		})
		return nil
	})
	return e.Encode()
}
