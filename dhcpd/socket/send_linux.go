package socket

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Delivery is where a reply goes, and how.
type Delivery struct {
	Way     wire.Way
	To      netip.AddrPort // whom it is for; a broadcast is for 255.255.255.255
	MAC     provision.MAC  // of wire.WayFrame: whose the frame is
	Ifindex int            // that a frame leaves on
	From    netip.AddrPort // that a frame says it is from
	Source  netip.Addr     // that a datagram leaves from, the address that was asked; invalid: the kernel chooses
	Asker   netip.Addr     // who sent the request
}

// Sender sends replies, and never waits. It belongs to one goroutine.
type Sender struct {
	s     *Sockets
	oob   []byte
	frame []byte
	ll    unix.SockaddrLinklayer

	msg  unix.Msghdr
	iov  unix.Iovec
	name unix.RawSockaddrInet4
	call func(fd uintptr) // made once: a closure for each reply would be garbage
	err  error

	many *outbox // nil until there are many to send
}

// NewSender returns a sender with buffers of its own.
func (s *Sockets) NewSender() *Sender {
	x := &Sender{s: s, oob: newPktinfo(), frame: make([]byte, 0, 2048)}
	x.ll.Protocol = htons(unix.ETH_P_IP)
	x.ll.Halen = 6
	x.name.Family = unix.AF_INET
	x.msg.Name, x.msg.Namelen = (*byte)(unsafe.Pointer(&x.name)), unix.SizeofSockaddrInet4
	x.msg.Iov = &x.iov
	x.msg.SetIovlen(1)
	x.msg.Control = &x.oob[0]
	x.call = func(fd uintptr) { x.err = x.sendmsg(fd) }
	return x
}

// newPktinfo returns the control message that says where a datagram leaves from.
func newPktinfo() []byte {
	oob := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
	c := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	return oob
}

// setPktinfo makes it source; invalid: the kernel chooses.
func setPktinfo(oob []byte, source netip.Addr) {
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&oob[unix.CmsgLen(0)]))
	info.Spec_dst = [4]byte{}
	if source.Is4() {
		info.Spec_dst = source.As4()
	}
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Full reports whether a reply was dropped because what was sent before it waits in the
// kernel: for next hops that do not answer, or for an interface that is slow.
func Full(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) }

// Send delivers a reply once. What does not fit the kernel's buffers is dropped, with an error that is Full.
func (x *Sender) Send(d *Delivery, payload []byte) error {
	switch {
	case d.Way == wire.WayRelay:
		return x.udp(d.To, d.Source, payload, asideRelays)
	case d.Way == wire.WayUnicast:
		return x.udp(d.To, d.Source, payload, asideClients)
	case x.s.loopback(): // the asker hears us at its address
		return x.udp(netip.AddrPortFrom(d.Asker, d.To.Port()), d.Source, payload, asideClients)
	}
	mac := d.MAC
	if d.Way == wire.WayBroadcast {
		mac = provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	x.ll.Ifindex = d.Ifindex
	copy(x.ll.Addr[:], mac[:])
	x.frame = appendIPv4UDP(x.frame[:0], d.From, d.To, payload)
	return unix.Sendto(x.s.frames[d.Ifindex&(frameSockets-1)], x.frame, unix.MSG_DONTWAIT, &x.ll)
}

// udp sends from the address that the request came to, so that firewalls and
// relays on the way see the answer come from whom they asked. What goes to a next hop that is not
// proved to be there leaves by a socket aside.
func (x *Sender) udp(to netip.AddrPort, source netip.Addr, payload []byte, aside int) error {
	if len(payload) == 0 || !to.Addr().Is4() {
		return unix.EINVAL
	}
	setPktinfo(x.oob, source)
	x.name.Addr = to.Addr().As4()
	x.name.Port = htons(to.Port())
	x.iov.Base = &payload[0]
	x.iov.SetLen(len(payload))
	x.msg.SetControllen(len(x.oob)) // the kernel may write to it
	if x.s.hops == nil || x.s.hops.proved(target{addr: x.name.Addr}) {
		x.main()
	} else if x.err = x.sendmsg(uintptr(x.s.aside[aside])); Full(x.err) {
		x.past()
	}
	x.iov.Base = nil
	return x.err
}

func (x *Sender) main() {
	if err := x.s.raw.Control(x.call); err != nil {
		x.err = err // closed
	}
}

// past sends what found no room aside, if it goes to a router. Of clients past one there may be more than are remembered, and
// each is answered seldom: it is enough that the router is there.
func (x *Sender) past() {
	router, ok := x.s.routes.router(x.name.Addr)
	switch {
	case !ok:
	case x.s.hops.proved(router):
		x.main()
	default:
		x.err = x.sendmsg(uintptr(x.s.aside[asideRouters]))
	}
}

func (x *Sender) sendmsg(fd uintptr) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&x.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
