package acl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// Holds asks the kernel for one address, without reading the sets: whether it is
// stopped, and whether it is paused. A table or set that is not there holds
// nobody. It does not change what Changed tells.
func (t *Table) Holds(ctx context.Context, addr netip.Addr) (stopped, paused bool, err error) {
	if !addr.Unmap().Is4() {
		return false, false, fmt.Errorf("acl: %s is not IPv4", addr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if stopped, err = t.holdsLocked(ctx, provision.SetStopped, addr.Unmap()); err != nil {
		return false, false, err
	}
	paused, err = t.holdsLocked(ctx, provision.SetPaused, addr.Unmap())
	return stopped, paused, err
}

func (t *Table) holdsLocked(ctx context.Context, set provision.Set, addr netip.Addr) (bool, error) {
	elements, err := elementList(addr)
	if err != nil {
		return false, err
	}
	found := false
	err = t.askLocked(ctx, unix.NFT_MSG_GETSETELEM, 0, question{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: cString(tableName)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: cString(set.String())},
		{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: elements},
	}, func(netlink.Message) error {
		found = true
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up %s in set %s: %w", addr, set, err)
	}
	return found, nil
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
