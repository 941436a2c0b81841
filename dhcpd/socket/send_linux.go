package socket

import (
	"encoding/binary"
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

// Sender sends replies. It belongs to one goroutine.
type Sender struct {
	s     *Sockets
	oob   []byte
	frame []byte
	ll    unix.SockaddrLinklayer
}

// NewSender returns a sender with buffers of its own.
func (s *Sockets) NewSender() *Sender {
	x := &Sender{s: s, oob: make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo)), frame: make([]byte, 0, 2048)}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&x.oob[0]))
	c.Level, c.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
	c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
	x.ll.Protocol = htons(unix.ETH_P_IP)
	x.ll.Halen = 6
	return x
}

func htons(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Send delivers a reply once.
func (x *Sender) Send(d *Delivery, payload []byte) error {
	switch {
	case d.Way == wire.WayRelay || d.Way == wire.WayUnicast:
		return x.udp(d.To, d.Source, payload)
	case x.s.frames < 0: // loopback mode: the asker hears us at its address
		return x.udp(netip.AddrPortFrom(d.Asker, d.To.Port()), d.Source, payload)
	}
	mac := d.MAC
	if d.Way == wire.WayBroadcast {
		mac = provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	x.ll.Ifindex = d.Ifindex
	copy(x.ll.Addr[:], mac[:])
	x.frame = appendIPv4UDP(x.frame[:0], d.From, d.To, payload)
	return unix.Sendto(x.s.frames, x.frame, 0, &x.ll)
}

// udp sends from the address that the request came to, so that firewalls and
// relays on the way see the answer come from whom they asked.
func (x *Sender) udp(to netip.AddrPort, source netip.Addr, payload []byte) error {
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&x.oob[unix.CmsgLen(0)]))
	info.Spec_dst = [4]byte{}
	if source.Is4() {
		info.Spec_dst = source.As4()
	}
	_, _, err := x.s.conn.WriteMsgUDPAddrPort(payload, x.oob, to)
	return err
}
