package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/neighbour"
)

// Neighbours is the ARP table of one network namespace, with the routes and wires that
// it is about. It implements neighbour.Kernel and changes nothing.
type Neighbours struct {
	rtnl
	handle *netlink.Handle // for single questions; its methods may be called from several goroutines
}

var _ neighbour.Kernel = (*Neighbours)(nil)

// OpenNeighbours returns access to the table of a network namespace: that of an
// open file descriptor, for tests, or with zero that of the calling thread.
func OpenNeighbours(netNS int) (*Neighbours, error) {
	n := &Neighbours{rtnl: rtnl{netns: netNS}}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dialLocked(); err != nil {
		return nil, fmt.Errorf("link: open neighbours: %w", err)
	}
	var err error
	if n.handle, err = netlink.NewHandleAt(n.namespace(), unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("link: open neighbours: %w", err), n.hangUpLocked())
	}
	if err := n.handle.SetSocketTimeout(exchangeTimeout); err != nil {
		n.handle.Close()
		return nil, errors.Join(fmt.Errorf("link: open neighbours: %w", err), n.hangUpLocked())
	}
	return n, nil
}

// Close lets the sockets go.
func (n *Neighbours) Close() error {
	n.handle.Close()
	return n.rtnl.Close()
}

// Watch implements neighbour.Kernel.
func (n *Neighbours) Watch(ctx context.Context, on func(neighbour.Neighbour)) error {
	names := map[int]string{}
	take := func(data []byte, gone bool) {
		if nb, ifindex, ok := parseNeighbour(data); ok {
			if nb.Interface = names[ifindex]; nb.Interface == "" {
				return
			}
			if gone {
				nb.State = neighbour.Gone
			}
			on(nb)
		}
	}
	return n.watch(ctx, func() error {
		links, err := n.Links(ctx)
		if err != nil {
			return err
		}
		clear(names)
		for _, l := range links {
			names[l.Index] = l.Name
		}
		body := make([]byte, unix.SizeofNdMsg)
		body[0] = unix.AF_INET
		return n.list(ctx, unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, body, func() {}, func(msg []byte) { take(msg, false) })
	}, func(typ uint16, _ uint32, data []byte) {
		switch typ {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if l, ok := parseLink(data); ok && typ == unix.RTM_NEWLINK {
				names[l.Index] = l.Name
			} else if ok {
				delete(names, l.Index)
			}
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			take(data, typ == unix.RTM_DELNEIGH)
		}
	}, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH)
}

// parseNeighbour reads a struct ndmsg with its attributes.
func parseNeighbour(msg []byte) (nb neighbour.Neighbour, ifindex int, ok bool) {
	const proxy = unix.NTF_PROXY
	if len(msg) < unix.SizeofNdMsg || msg[0] != unix.AF_INET || msg[10]&proxy != 0 {
		return nb, 0, false
	}
	ifindex = int(int32(binary.NativeEndian.Uint32(msg[4:])))
	nb.State = neighbourState(binary.NativeEndian.Uint16(msg[8:]))
	for b := msg[unix.SizeofNdMsg:]; ; {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			return nb, ifindex, nb.IP.IsValid() && nb.State != 0
		}
		switch {
		case typ == unix.NDA_DST && len(value) == 4:
			nb.IP = netip.AddrFrom4([4]byte(value))
		case typ == unix.NDA_LLADDR && len(value) == 6:
			nb.MAC = provision.MAC(value)
		}
		b = rest
	}
}

// neighbourState says what a state of the kernel proves. Only REACHABLE is a
// confirmation: somebody answered the router itself, or a connection goes on. STALE
// also comes of a broadcast that nobody asked for, DELAY and PROBE are its way to
// an answer, and PERMANENT is an administrator's word. Zero: nothing at all.
func neighbourState(s uint16) neighbour.State {
	switch {
	case s&unix.NUD_REACHABLE != 0:
		return neighbour.Confirmed
	case s&(unix.NUD_STALE|unix.NUD_DELAY|unix.NUD_PROBE) != 0:
		return neighbour.Claimed
	case s&unix.NUD_FAILED != 0:
		return neighbour.Gone
	}
	return 0
}
