package link

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// Wires tells which MAC an address is at, in one network namespace: of those that are
// linked directly and that the kernel has in its ARP table. It asks for single
// addresses, changes nothing and needs no right.
type Wires struct {
	rtnl
	handle *netlink.Handle
}

// OpenWires makes one; netNS is as in Options.
func OpenWires(netNS int) (*Wires, error) {
	w := &Wires{rtnl: rtnl{netns: netNS}}
	var err error
	if w.handle, err = netlink.NewHandleAt(w.namespace(), unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("link: wires: %w", err)
	}
	if err := w.handle.SetSocketTimeout(exchangeTimeout); err != nil {
		w.handle.Close()
		return nil, fmt.Errorf("link: wires: %w", err)
	}
	return w, nil
}

// Close lets the sockets go.
func (w *Wires) Close() error {
	w.handle.Close()
	return w.rtnl.Close()
}

// Wire returns the interface and the MAC of a neighbour. It is false for an address behind
// a router or of this host, and where nothing is known.
func (w *Wires) Wire(addr netip.Addr) (ifindex int, mac provision.MAC, ok bool) {
	routes, err := w.handle.RouteGet(addr.AsSlice())
	if err != nil || len(routes) != 1 || !addr.Is4() {
		return 0, mac, false
	}
	r := &routes[0]
	if r.Type != unix.RTN_UNICAST || len(r.Gw) > 0 || r.Via != nil {
		return 0, mac, false
	}
	mac, err = w.neighbour(r.LinkIndex, addr)
	return r.LinkIndex, mac, err == nil && !mac.IsZero()
}

// neighbour asks the ARP table of an interface for one address.
func (w *Wires) neighbour(ifindex int, addr netip.Addr) (mac provision.MAC, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.dialLocked(); err != nil {
		return mac, err
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: w.socket}
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = unix.AF_INET
	copy(body[4:], appendAttr32(nil, 0, uint32(ifindex))[4:])
	req.AddRawData(appendAttr(body, unix.NDA_DST, addr.AsSlice()))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	switch {
	case errors.Is(err, unix.ENOENT):
		return mac, err
	case err != nil:
		return mac, errors.Join(err, w.hangUpLocked()) // a late answer may wait in the socket
	}
	for _, msg := range answers {
		if len(msg) < unix.SizeofNdMsg {
			continue
		}
		for b := msg[unix.SizeofNdMsg:]; ; {
			typ, value, _, rest, more := nextAttr(b)
			if !more {
				break
			}
			if typ == unix.NDA_LLADDR && len(value) == len(mac) {
				mac = provision.MAC(value)
			}
			b = rest
		}
	}
	return mac, nil
}
