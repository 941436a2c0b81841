package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/route"
)

const (
	// eventBuffer is for bursts: a parent interface that goes down takes
	// thousands of others along. The kernel's default holds some 200 events.
	eventBuffer = 8 << 20
	// dumpTries is how often a list that changed while it was read is read again.
	dumpTries = 5

	skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h, which the unix package lacks
)

// rtnl is a socket to the routing part of the kernel in one network namespace.
type rtnl struct {
	netns int

	mu     sync.Mutex // guards what follows
	socket *nl.SocketHandle
	port   uint32 // of socket: events with it are the echo of our own changes
}

// Close lets the socket go; what was made with it stays.
func (r *rtnl) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hangUpLocked()
}

func (r *rtnl) namespace() netns.NsHandle {
	if r.netns != 0 {
		return netns.NsHandle(r.netns)
	}
	return netns.None()
}

func (r *rtnl) dialLocked() error {
	if r.socket != nil {
		return nil
	}
	s, err := nl.GetNetlinkSocketAt(r.namespace(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	// Without strict checking (before Linux 4.20) the kernel lists everything, a
	// whole BGP table may be; what it gives is looked through here in either case.
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	timeout := unix.NsecToTimeval(exchangeTimeout.Nanoseconds())
	// A whole batch may fail, with a message for each of its parts.
	err = errors.Join(s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout), s.SetReceiveBufferSize(1<<20, false))
	port, portErr := s.GetPid()
	if err = errors.Join(err, portErr); err != nil {
		_ = s.Close()
		return fmt.Errorf("set up netlink socket: %w", err)
	}
	r.socket, r.port = &nl.SocketHandle{Socket: s}, port
	return nil
}

func (r *rtnl) hangUpLocked() error {
	if r.socket == nil {
		return nil
	}
	err := r.socket.Close()
	r.socket = nil
	return err
}

// list reads a table of the kernel and gives each message to take.
func (r *rtnl) list(ctx context.Context, ask, answer int, body []byte, begin func(), take func(msg []byte)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.dialLocked(); err != nil {
			return err
		}
		begin()
		req := nl.NewNetlinkRequest(ask, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.socket}
		req.AddRawData(body)
		err := req.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(msg []byte) bool {
			take(msg)
			return true
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			_ = r.hangUpLocked() // late replies may wait in the socket
			return err
		}
	}
}

// Links implements route.Kernel.
func (r *rtnl) Links(ctx context.Context) (links []route.Link, err error) {
	body := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+8)
	body = appendAttr32(body, unix.IFLA_EXT_MASK, skipStats)
	err = r.list(ctx, unix.RTM_GETLINK, unix.RTM_NEWLINK, body,
		func() { links = links[:0] },
		func(msg []byte) {
			if l, ok := parseLink(msg); ok {
				links = append(links, l)
			}
		})
	if err != nil {
		return nil, fmt.Errorf("link: list links: %w", err)
	}
	return links, nil
}

// parseLink reads a struct ifinfomsg with its name. What a bridge tells of its
// ports comes as the same message with another family and is no link.
func parseLink(msg []byte) (l route.Link, ok bool) {
	if len(msg) < unix.SizeofIfInfomsg || msg[0] != unix.AF_UNSPEC {
		return l, false
	}
	l.Index = int(int32(binary.NativeEndian.Uint32(msg[4:])))
	l.Up = binary.NativeEndian.Uint32(msg[8:])&unix.IFF_UP != 0
	for b := msg[unix.SizeofIfInfomsg:]; ; {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			return l, l.Name != "" && l.Index > 0
		}
		if typ == unix.IFLA_IFNAME {
			name, _, _ := bytes.Cut(value, []byte{0}) // the library's way panics where there is no end
			l.Name = string(name)
		}
		b = rest
	}
}

func appendAttr32(b []byte, typ uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.NativeEndian.AppendUint32(b, v)
}

func (r *rtnl) ownPort() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.port
}

// watch hands on the messages of some multicast groups until ctx ends. lost is
// called at the beginning and after each gap: then everything has to be looked at.
// A burst that overflows the buffer costs such a look, not the watch.
func (r *rtnl) watch(ctx context.Context, lost func() error, on func(typ uint16, by uint32, data []byte), groups ...uint) error {
	s, err := nl.SubscribeAt(r.namespace(), netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("link: watch: %w", err)
	}
	if s.SetReceiveBufferSize(eventBuffer, true) != nil {
		_ = s.SetReceiveBufferSize(eventBuffer, false) // as much as rmem_max gives
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer func() {
		if stop() {
			_ = s.Close()
		}
	}()
	if err := lost(); err != nil {
		return err
	}
	gap := false
	for {
		// The kernel drops everything from the overflow on until the buffer has been
		// read empty, and tells of it once: only then is a look worth it.
		if gap && drained(s) {
			gap = false
			if err := lost(); err != nil {
				return err
			}
		}
		msgs, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			gap = true
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("link: watch: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range msgs {
			on(m.Header.Type, m.Header.Pid, m.Data)
		}
	}
}

// drained tells whether no message waits in a socket. An overflow meanwhile is told
// here and not again: the caller knows of one already.
func drained(s *nl.NetlinkSocket) bool {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(s.GetFd(), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return errors.Is(err, unix.EAGAIN)
		}
	}
}
