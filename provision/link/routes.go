package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/route"
)

const (
	// routeBatch bounds the messages of one send: 500 are about 30 KB of the
	// 208 KiB that a socket may send by default. Only the last one is acknowledged, the
	// others speak up when they fail.
	routeBatch = 500
	rtaNHID    = 30 // RTA_NH_ID of linux/rtnetlink.h, which the unix package lacks
)

// RouteOptions say which routes are ours and where.
type RouteOptions struct {
	Protocol uint8 // our number, see rt_protos of iproute2; routes of others are never touched

	// NetNS is an open file descriptor of a network namespace, for tests. Zero
	// means the namespace of the calling thread at the time of Open.
	NetNS int
}

// Routes are the routes with our protocol number in one network
// namespace: of hosts straight to an interface, and of subnets through such a host. It implements route.Kernel.
type Routes struct {
	rtnl
	protocol uint8
	buf      []byte // guarded by mu
}

var _ route.Kernel = (*Routes)(nil)

// OpenRoutes returns access to the routes. Changing them needs CAP_NET_ADMIN.
func OpenRoutes(o RouteOptions) (*Routes, error) {
	if o.Protocol == 0 {
		return nil, errors.New("link: open routes: protocol 0 would be everybody's")
	}
	r := &Routes{protocol: o.Protocol, rtnl: rtnl{netns: o.NetNS}}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dialLocked(); err != nil {
		return nil, fmt.Errorf("link: open routes: %w", err)
	}
	return r, nil
}

// Routes implements route.Kernel.
func (r *Routes) Routes(ctx context.Context) (routes []route.Route, err error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0], body[5], body[7] = unix.AF_INET, r.protocol, unix.RTN_UNICAST
	err = r.list(ctx, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, body,
		func() { routes = routes[:0] },
		func(msg []byte) {
			if rt, ok := r.parseRoute(msg); ok {
				routes = append(routes, rt)
			}
		})
	if err != nil {
		return nil, fmt.Errorf("link: list routes: %w", err)
	}
	return routes, nil
}

// Apply implements route.Kernel. Routes are appended, never replaced:
// a replacement would hit the first route of the same destination and metric,
// whoever made it. Removals name the protocol, which the kernel compares.
func (r *Routes) Apply(ctx context.Context, changes []route.Change) ([]error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	results := make([]error, len(changes))
	for at := 0; at < len(changes); at += routeBatch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		end := min(at+routeBatch, len(changes))
		if err := r.sendLocked(changes[at:end], results[at:end]); err != nil {
			_ = r.hangUpLocked()
			return nil, fmt.Errorf("link: change routes: %w", err)
		}
	}
	return results, nil
}

// sendLocked makes one send of the changes and reads what failed, up to the
// acknowledgement of the last.
func (r *Routes) sendLocked(changes []route.Change, results []error) error {
	if err := r.dialLocked(); err != nil {
		return err
	}
	first := r.socket.Seq + 1
	r.buf = r.buf[:0]
	for i, c := range changes {
		flags := uint16(unix.NLM_F_REQUEST)
		if i == len(changes)-1 {
			flags |= unix.NLM_F_ACK
		}
		r.buf = r.appendChange(r.buf, c, flags, first+uint32(i))
	}
	last := first + uint32(len(changes)) - 1
	r.socket.Seq = last
	if err := unix.Sendto(r.socket.Socket.GetFd(), r.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		msgs, from, err := r.socket.Socket.Receive()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range msgs {
			i := m.Header.Seq - first
			if m.Header.Type != unix.NLMSG_ERROR || m.Header.Pid != r.port || int(i) >= len(changes) || len(m.Data) < 4 {
				continue
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			results[i] = routeError(changes[i].Op, errno)
			if m.Header.Seq == last {
				return nil
			}
		}
	}
}

// routeError makes of the kernel's answer what Apply gives.
func routeError(op provision.Op, errno unix.Errno) error {
	switch {
	case errno == 0,
		op == provision.OpAdd && errno == unix.EEXIST,
		op == provision.OpRemove && (errno == unix.ESRCH || errno == unix.ENODEV):
		return nil
	case errno == unix.ENETDOWN || errno == unix.ENODEV:
		return fmt.Errorf("%w: %w", route.ErrNoLink, errno)
	}
	return errno
}

// appendChange appends a message of linux/rtnetlink.h.
func (r *Routes) appendChange(b []byte, c route.Change, flags uint16, seq uint32) []byte {
	typ, scope := uint16(unix.RTM_DELROUTE), byte(unix.RT_SCOPE_NOWHERE)
	if c.Op == provision.OpAdd {
		typ, scope = unix.RTM_NEWROUTE, unix.RT_SCOPE_LINK
		flags |= unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	begin := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	// family, lengths of destination and source, TOS, table (in an attribute), protocol, scope, type, flags
	bits := byte(32)
	if c.Route.Via.IsValid() {
		bits = byte(c.Route.Bits)
		if c.Op == provision.OpAdd {
			scope = unix.RT_SCOPE_UNIVERSE
		}
	}
	b = append(b, unix.AF_INET, bits, 0, 0, unix.RT_TABLE_UNSPEC, r.protocol, scope, unix.RTN_UNICAST)
	rtmFlags := uint32(0)
	if c.Route.Via.IsValid() && c.Op == provision.OpAdd {
		rtmFlags = unix.RTNH_F_ONLINK // the host route may come with the same message
	}
	b = binary.NativeEndian.AppendUint32(b, rtmFlags)
	addr := c.Route.Addr.As4()
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, unix.RTA_DST)
	b = append(b, addr[:]...)
	if c.Route.Via.IsValid() {
		via := c.Route.Via.As4()
		b = appendAttr(b, unix.RTA_GATEWAY, via[:])
	}
	b = appendAttr32(b, unix.RTA_OIF, uint32(c.Route.Ifindex))
	b = appendAttr32(b, unix.RTA_TABLE, c.Route.Table)
	if c.Route.Metric != 0 {
		b = appendAttr32(b, unix.RTA_PRIORITY, c.Route.Metric)
	}
	binary.NativeEndian.PutUint32(b[begin:], uint32(len(b)-begin))
	return b
}

// parseRoute reads a struct rtmsg with its attributes; ok is false for what is
// not a route of ours: of a host straight to an interface, or of a subnet through one router on it.
func (r *Routes) parseRoute(msg []byte) (rt route.Route, ok bool) {
	if len(msg) < unix.SizeofRtMsg || msg[0] != unix.AF_INET || msg[1] > 32 ||
		msg[5] != r.protocol || msg[7] != unix.RTN_UNICAST {
		return rt, false
	}
	if binary.NativeEndian.Uint32(msg[8:])&unix.RTM_F_CLONED != 0 {
		return rt, false
	}
	rt.Table = uint32(msg[4])
	for b := msg[unix.SizeofRtMsg:]; ; {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			if rt.Via.IsValid() {
				rt.Bits = int(msg[1])
			} else if msg[1] != 32 {
				return rt, false
			}
			return rt, rt.Addr.IsValid() && rt.Ifindex > 0
		}
		switch {
		case typ == unix.RTA_VIA || typ == unix.RTA_MULTIPATH || typ == rtaNHID:
			return rt, false
		case len(value) != 4:
		case typ == unix.RTA_GATEWAY:
			rt.Via = netip.AddrFrom4([4]byte(value))
		case typ == unix.RTA_DST:
			rt.Addr = netip.AddrFrom4([4]byte(value))
		case typ == unix.RTA_OIF:
			rt.Ifindex = int(binary.NativeEndian.Uint32(value))
		case typ == unix.RTA_TABLE:
			rt.Table = binary.NativeEndian.Uint32(value)
		case typ == unix.RTA_PRIORITY:
			rt.Metric = binary.NativeEndian.Uint32(value)
		}
		b = rest
	}
}

// Watch implements route.Kernel.
func (r *Routes) Watch(ctx context.Context, on func(route.Event)) error {
	return r.watch(ctx, func() error {
		on(route.Event{Lost: true})
		return nil
	}, func(typ uint16, by uint32, data []byte) {
		if ev, ok := r.event(typ, by, data); ok {
			on(ev)
		}
	}, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
}

// event reads one message of a subscription.
func (r *Routes) event(typ uint16, by uint32, data []byte) (ev route.Event, ok bool) {
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		l, ok := parseLink(data)
		l.Gone = typ == unix.RTM_DELLINK
		return route.Event{Link: &l}, ok
	case unix.RTM_DELADDR:
		if len(data) < unix.SizeofIfAddrmsg || data[0] != unix.AF_INET {
			return ev, false
		}
		ev.Unnumbered = int(binary.NativeEndian.Uint32(data[4:]))
		return ev, ev.Unnumbered > 0
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		rt, ok := r.parseRoute(data)
		if !ok || by == r.ownPort() {
			return ev, false
		}
		op := provision.OpAdd
		if typ == unix.RTM_DELROUTE {
			op = provision.OpRemove
		}
		return route.Event{Route: &rt, Op: op}, true
	}
	return ev, false
}

// readConf reads a setting of an interface.
func readConf(iface, key string) (int, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", iface, key))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Settings reads the settings of an interface from /proc, and whether it has an
// IPv4 address. It changes nothing.
func (r *Routes) Settings(l route.Link) (route.LinkSettings, error) {
	s := route.LinkSettings{Interface: l.Name}
	var errs []error
	read := func(iface, key string) int {
		n, err := readConf(iface, key)
		if err != nil {
			errs = append(errs, err)
		}
		return n
	}
	either := func(key string) int { return max(read("all", key), read(l.Name, key)) }
	s.Forwarding = read(l.Name, "forwarding") != 0
	s.ProxyARP = either("proxy_arp") != 0
	s.RPFilter, s.ARPIgnore = either("rp_filter"), either("arp_ignore")
	if err := errors.Join(errs...); err != nil {
		return s, fmt.Errorf("link: settings of %s: %w", l.Name, err)
	}
	if s.ARPIgnore == 0 && s.RPFilter == 0 {
		return s, nil // it makes no difference
	}
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(body[4:], uint32(l.Index))
	err := r.list(context.Background(), unix.RTM_GETADDR, unix.RTM_NEWADDR, body, func() { s.Numbered = false }, func(msg []byte) {
		if len(msg) >= unix.SizeofIfAddrmsg && binary.NativeEndian.Uint32(msg[4:]) == uint32(l.Index) {
			s.Numbered = true
		}
	})
	if err != nil {
		return s, fmt.Errorf("link: addresses of %s: %w", l.Name, err)
	}
	return s, nil
}
