package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/wayback"
)

// Ways looks up routes in one network namespace. It implements wayback.Kernel and needs no right.
type Ways struct{ handle *netlink.Handle }

var _ wayback.Kernel = (*Ways)(nil)

// OpenWays makes one; netNS is as in Options.
func OpenWays(netNS int) (*Ways, error) {
	ns := netns.None()
	if netNS != 0 {
		ns = netns.NsHandle(netNS)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("link: ways: %w", err)
	}
	return &Ways{h}, nil
}

// Close lets the socket go.
func (w *Ways) Close() error {
	w.handle.Close()
	return nil
}

// Ways implements wayback.Kernel. Of a route with several next hops the kernel lets pass what comes
// in on any of them, so the route is asked for, not the choice.
func (w *Ways) Ways(to netip.Addr, from string) ([]string, error) {
	o := netlink.RouteGetOptions{FIBMatch: true}
	if from != "" {
		l, err := w.handle.LinkByName(from)
		if err == nil {
			o.OifIndex, err = vrfOf(w.handle, l)
		}
		if err != nil {
			return nil, fmt.Errorf("link: way to %s: %w", to, err)
		}
	}
	routes, err := w.handle.RouteGetWithOptions(to.AsSlice(), &o)
	switch {
	case noRoute(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("link: way to %s: %w", to, err)
	}
	var names []string
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		for _, index := range hopsOf(&r) {
			l, err := w.handle.LinkByIndex(index)
			if err != nil {
				return nil, fmt.Errorf("link: way to %s: %w", to, err)
			}
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// hopsOf returns the indexes of the interfaces of a route's next hops.
func hopsOf(r *netlink.Route) []int {
	hops := []int{r.LinkIndex}
	for _, h := range r.MultiPath {
		hops = append(hops, h.LinkIndex)
	}
	return slices.DeleteFunc(hops, func(index int) bool { return index == 0 })
}

// Filter implements wayback.Kernel.
func (w *Ways) Filter(iface string) (int, error) {
	all, err := readConf("all", "rp_filter")
	own, err2 := readConf(iface, "rp_filter")
	if err := errors.Join(err, err2); err != nil {
		return 0, fmt.Errorf("link: rp_filter of %s: %w", iface, err)
	}
	return max(all, own), nil
}

// noRoute reports whether the kernel answered that there is none, or one that is unreachable, prohibit or blackhole.
func noRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}

// vrfOf returns the index of the VRF of an interface; zero: none.
func vrfOf(h *netlink.Handle, l netlink.Link) (int, error) {
	at := l.Attrs().MasterIndex
	if at == 0 {
		return 0, nil
	}
	master, err := h.LinkByIndex(at)
	if err != nil || master.Type() != "vrf" {
		return 0, err
	}
	return at, nil
}
