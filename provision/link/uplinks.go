package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// farAway are addresses to which a router has no route but the default one, as a rule: what is reserved or for
// documentation. Several, for some of them may be routed to nowhere. A whole table may have a million
// routes, so it is asked and not read.
var farAway = []struct {
	to   netip.Addr
	bits int // up to this length a prefix is a default route; 2000::/3 is all of IPv6 that is given out
}{
	{netip.MustParseAddr("240.0.0.1"), 0}, {netip.MustParseAddr("198.18.0.1"), 0}, {netip.MustParseAddr("192.0.2.1"), 0}, {netip.MustParseAddr("203.0.113.1"), 0},
	{netip.MustParseAddr("4000::1"), 0}, {netip.MustParseAddr("2000::1"), 3}, {netip.MustParseAddr("3fff::1"), 3},
}

// Uplinks returns the interfaces that the default routes in use lead to, of IPv4 and IPv6, in the main table, sorted: all next hops of
// each. A family that the kernel does not have has none; the error says that nothing could be asked. netNS is as in Options.
func Uplinks(netNS int) ([]string, error) {
	ns := netns.None()
	if netNS != 0 {
		ns = netns.NsHandle(netNS)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("link: uplinks: %w", err)
	}
	defer h.Close()
	var names []string
	for _, far := range farAway {
		routes, err := h.RouteGetWithOptions(far.to.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil {
			continue
		}
		for i := range routes {
			r := &routes[i]
			if r.Type != unix.RTN_UNICAST || bitsOf(r) > far.bits {
				continue
			}
			for _, index := range hopsOf(r) {
				if l, err := h.LinkByIndex(index); err == nil { // else it went meanwhile
					names = append(names, l.Attrs().Name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func bitsOf(r *netlink.Route) int {
	if r.Dst == nil {
		return 0
	}
	bits, _ := r.Dst.Mask.Size()
	return bits
}
