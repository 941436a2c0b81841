package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// This file is the only one with raw system calls. One UDP socket receives for
// all interfaces and tells which one by IP_PKTINFO; one AF_PACKET socket sends
// to clients that have no address yet. It receives nothing (protocol 0), so it
// costs the forwarded packets of the router nothing.

const (
	batchSize     = 64
	maxPacket     = 4096    // a longer datagram is cut, and so told to be malformed
	receiveBuffer = 8 << 20 // the default holds 250 packets: 10 ms of a busy morning
	sendBuffer    = 1 << 20
	oobSpace      = 64
)

type sockets struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	frames int        // AF_PACKET socket; -1 in loopback mode
	arp    *arpSocket // nil in loopback mode
}

// openSockets binds. The sockets belong to the network namespace of the calling thread.
func openSockets(listen netip.AddrPort) (*sockets, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			growBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
			growBuffer(int(fd), unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
		})
		return errors.Join(cerr, err)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp4", listen.String())
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		// Nobody shares the port with us, whatever the other one allows: without
		// SO_REUSEADDR on both sides the kernel refuses the second one.
		who := describeRivals(findRivals(os.DirFS("/proc"), listen.Port()), listen.Port())
		return nil, fmt.Errorf("dhcp: udp port %d of %v is in use by %s; stop it, or set dhcp.listen to another address or port: %w", listen.Port(), listen.Addr(), who, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("dhcp: no permission for udp port %d: run as root or with CAP_NET_BIND_SERVICE: %w", listen.Port(), err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("dhcp: no interface has the address %v of dhcp.listen: %w", listen.Addr(), err)
	case err != nil:
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	s := &sockets{conn: pc.(*net.UDPConn), frames: -1}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("dhcp: %w", err), s.conn.Close())
	}
	if listen.Addr().IsLoopback() {
		return s, nil
	}
	s.frames, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		s.frames = -1
		return nil, errors.Join(fmt.Errorf("dhcp: open packet socket: run as root or with CAP_NET_RAW: %w", err), s.conn.Close())
	}
	growBuffer(s.frames, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	if s.arp, err = openARP(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// waiting reports whether a packet is in the receive queue.
func (s *sockets) waiting() (bool, error) {
	var n int
	var err error
	if cerr := s.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); cerr != nil {
		return false, nil // closed meanwhile
	}
	if err != nil {
		return false, fmt.Errorf("dhcp: receive queue: %w", err)
	}
	return n > 0, nil
}

// dropped gives how many packets the kernel threw away on the socket: SK_MEMINFO_DROPS.
func (s *sockets) dropped() (n uint32, ok bool) {
	const drops = 8 // place in SO_MEMINFO, linux/sock_diag.h
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	cerr := s.raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		ok = errno == 0 && size == uint32(unsafe.Sizeof(info))
	})
	return info[drops], ok && cerr == nil
}

// growBuffer asks for a buffer beyond the system's limit, and for what the limit gives without the right to.
func growBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size) // a small buffer still works
	}
}

func (s *sockets) close() error {
	err := s.conn.Close()
	if s.arp != nil {
		err = errors.Join(err, s.arp.close())
		s.arp = nil
	}
	if s.frames >= 0 {
		err = errors.Join(err, unix.Close(s.frames))
		s.frames = -1
	}
	return err
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// reader receives batches. It belongs to one goroutine.
type reader struct {
	raw   syscall.RawConn
	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet4
	oobs  [batchSize][oobSpace]byte
	bufs  [batchSize][maxPacket]byte

	call func(fd uintptr) bool // made once: a closure for each batch would be garbage
	n    int
	err  error
}

func newReader(s *sockets) *reader {
	r := &reader{raw: s.raw}
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.oobs[i][0]
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(maxPacket)
	}
	r.call = func(fd uintptr) bool {
		for {
			n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), batchSize,
				unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				r.n, r.err = int(n), nil
				return true
			case unix.EAGAIN:
				return false // the runtime's poller waits
			case unix.EINTR:
			default:
				r.n, r.err = 0, errno
				return true
			}
		}
	}
	return r
}

// read waits for packets and takes up to batchSize of them.
func (r *reader) read() (int, error) {
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet4
		h.SetControllen(oobSpace)
	}
	if err := r.raw.Read(r.call); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// datagram is one received packet.
type datagram struct {
	data    []byte
	cut     bool // longer than maxPacket
	from    netip.AddrPort
	ifindex int
	to      netip.Addr // destination if it is an address of this host; invalid for broadcast
}

func (r *reader) packet(i int) datagram {
	m := &r.msgs[i]
	sa := &r.names[i]
	port := *(*[2]byte)(unsafe.Pointer(&sa.Port))
	d := datagram{
		data: r.bufs[i][:min(int(m.n), maxPacket)],
		cut:  m.hdr.Flags&unix.MSG_TRUNC != 0,
		from: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), binary.BigEndian.Uint16(port[:])),
	}
	if int(m.hdr.Controllen) < unix.CmsgLen(unix.SizeofInet4Pktinfo) {
		return d
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&r.oobs[i][0]))
	if c.Level != unix.IPPROTO_IP || c.Type != unix.IP_PKTINFO {
		return d
	}
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&r.oobs[i][unix.CmsgLen(0)]))
	d.ifindex = int(info.Ifindex)
	if info.Addr == info.Spec_dst {
		d.to = netip.AddrFrom4(info.Addr)
	}
	return d
}

// lookup asks for one interface by ioctl: that costs the same with two
// interfaces and with two thousand, which a netlink dump does not.
func (s *sockets) lookup(index int) *provision.Interface {
	f := &provision.Interface{Index: index}
	_ = s.raw.Control(func(fd uintptr) {
		ifr, err := unix.NewIfreq("")
		if err != nil {
			return
		}
		ifr.SetUint32(uint32(index))
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, ifr) != nil {
			return
		}
		f.Name = ifr.Name()
		if ifr, err = unix.NewIfreq(f.Name); err != nil {
			return
		}
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFFLAGS, ifr) == nil {
			f.Loopback, f.Up = ifr.Uint16()&unix.IFF_LOOPBACK != 0, ifr.Uint16()&unix.IFF_UP != 0
		}
		if a := interfaceAddress(int(fd), f.Name); a.IsValid() {
			f.Addrs = []netip.Prefix{netip.PrefixFrom(a, 32)} // which network it is in is not asked
		}
	})
	return f
}

func interfaceAddress(fd int, name string) netip.Addr {
	ifr, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFADDR, ifr) != nil {
		return netip.Addr{}
	}
	ip, err := ifr.Inet4Addr()
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// addressOf gives the first address of a named interface; invalid if it has none.
func (s *sockets) addressOf(name string) (a netip.Addr) {
	_ = s.raw.Control(func(fd uintptr) { a = interfaceAddress(int(fd), name) })
	return a
}

// ifreqSize is sizeof(struct ifreq) on 64-bit and 32-bit systems.
const ifreqSize = unix.IFNAMSIZ + 16 + 8*(^uintptr(0)>>63)

// addresses gives all IPv4 addresses of the socket's network namespace (SIOCGIFCONF).
func (s *sockets) addresses() map[netip.Addr]struct{} {
	all := map[netip.Addr]struct{}{}
	type ifconf struct {
		n   int32
		buf *byte
	}
	for size := 64 * int(ifreqSize); size <= 1<<24; size *= 4 {
		buf := make([]byte, size)
		conf := ifconf{n: int32(size), buf: &buf[0]}
		var errno unix.Errno
		cerr := s.raw.Control(func(fd uintptr) {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SIOCGIFCONF, uintptr(unsafe.Pointer(&conf)))
		})
		if cerr != nil || errno != 0 {
			return all
		}
		if int(conf.n) > size-int(ifreqSize) {
			continue // perhaps not all fitted
		}
		for at := 0; at+int(ifreqSize) <= int(conf.n); at += int(ifreqSize) {
			sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&buf[at+unix.IFNAMSIZ]))
			if sa.Family == unix.AF_INET {
				all[netip.AddrFrom4(sa.Addr)] = struct{}{}
			}
		}
		return all
	}
	return all
}

// delivery is where a reply goes, and how.
type delivery struct {
	way     wire.Way
	to      netip.AddrPort // whom it is for; a broadcast is for 255.255.255.255
	mac     provision.MAC  // of wire.WayFrame: whose the frame is
	ifindex int            // that a frame leaves on
	from    netip.AddrPort // that a frame says it is from
	source  netip.Addr     // that a datagram leaves from, the address that was asked; invalid: the kernel chooses
	asker   netip.Addr     // who sent the request
}

// sender sends replies. It belongs to one goroutine.
type sender struct {
	s     *sockets
	oob   []byte
	frame []byte
	ll    unix.SockaddrLinklayer
}

func newSender(s *sockets) *sender {
	x := &sender{s: s, oob: make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo)), frame: make([]byte, 0, 2048)}
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

// send delivers a reply once.
func (x *sender) send(d *delivery, payload []byte) error {
	switch {
	case d.way == wire.WayRelay || d.way == wire.WayUnicast:
		return x.udp(d.to, d.source, payload)
	case x.s.frames < 0: // loopback mode: the asker hears us at its address
		return x.udp(netip.AddrPortFrom(d.asker, d.to.Port()), d.source, payload)
	}
	mac := d.mac
	if d.way == wire.WayBroadcast {
		mac = provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	x.ll.Ifindex = d.ifindex
	copy(x.ll.Addr[:], mac[:])
	x.frame = appendIPv4UDP(x.frame[:0], d.from, d.to, payload)
	return unix.Sendto(x.s.frames, x.frame, 0, &x.ll)
}

// udp sends from the address that the request came to, so that firewalls and
// relays on the way see the answer come from whom they asked.
func (x *sender) udp(to netip.AddrPort, source netip.Addr, payload []byte) error {
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&x.oob[unix.CmsgLen(0)]))
	info.Spec_dst = [4]byte{}
	if source.Is4() {
		info.Spec_dst = source.As4()
	}
	_, _, err := x.s.conn.WriteMsgUDPAddrPort(payload, x.oob, to)
	return err
}

// appendIPv4UDP appends an IPv4 packet with a UDP datagram, both checksums made.
func appendIPv4UDP(dst []byte, from, to netip.AddrPort, payload []byte) []byte {
	const ipLen, udpLen = 20, 8
	var h [ipLen + udpLen]byte
	h[0] = 0x45
	h[1] = 0x10 // low delay, as DHCP servers do
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	h[6] = 0x40 // do not fragment
	h[8] = 64   // TTL
	h[9] = unix.IPPROTO_UDP
	if from.Addr().Is4() {
		a := from.Addr().As4()
		copy(h[12:], a[:])
	}
	if to.Addr().Is4() {
		a := to.Addr().As4()
		copy(h[16:], a[:])
	}
	binary.BigEndian.PutUint16(h[10:], ^fold(sum16(0, h[:ipLen])))
	udp := h[ipLen:]
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(payload)))
	sum := sum16(uint32(unix.IPPROTO_UDP)+uint32(udpLen+len(payload)), h[12:20]) // pseudo header
	check := ^fold(sum16(sum16(sum, udp), payload))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(append(dst, h[:]...), payload...)
}

// sum16 adds b as big-endian 16-bit words (RFC 1071). No reply is long enough to overflow 32 bits.
func sum16(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
