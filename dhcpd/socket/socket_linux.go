package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	receiveBuffer = 8 << 20 // the default holds 250 packets: 10 ms of a busy morning
	sendBuffer    = 1 << 20
	// A frame is charged to its socket as long as it waits in the queue of its interface. So
	// interfaces share several sockets, lest a slow one costs all others their replies.
	frameSockets = 16 // a power of two
	frameBuffer  = 256 << 10
)

// Sockets are those of one server.
type Sockets struct {
	conn *net.UDPConn
	raw  syscall.RawConn

	// None in loopback mode.
	frames [frameSockets]int // AF_PACKET, by the index of the interface; -1: none
	aside  [asideSockets]int // of UDP; -1: none
	hops   *hops             // where conn may send to
	routes *routes           // which routers lead there
	arp    *ARP
}

// Open binds. The sockets belong to the network namespace of the calling thread.
func Open(listen netip.AddrPort) (*Sockets, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = prepare(int(fd)) })
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
	return complete(pc.(*net.UDPConn), listen)
}

// prepare sets what the UDP socket needs before packets come.
func prepare(fd int) error {
	growBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	growBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// complete opens what a server needs besides its UDP socket, which it takes: on error it is closed.
func complete(conn *net.UDPConn, listen netip.AddrPort) (s *Sockets, err error) {
	s = &Sockets{conn: conn, aside: [asideSockets]int{-1, -1, -1}}
	for i := range s.frames {
		s.frames[i] = -1
	}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("dhcp: %w", err), s.conn.Close())
	}
	if listen.Addr().IsLoopback() {
		return s, nil
	}
	if err = s.openMore(s.LocalAddr().Port()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openMore opens what loopback mode does without.
func (s *Sockets) openMore(port uint16) (err error) {
	for i := range s.frames {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("dhcp: open packet socket: run as root or with CAP_NET_RAW: %w", err)
		}
		s.frames[i] = fd
		growBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, frameBuffer)
	}
	if s.aside, err = openAside(s.raw, port); err != nil {
		return err
	}
	if s.hops, err = openHops(); err != nil {
		return err
	}
	if s.routes, err = openRoutes(); err != nil {
		return err
	}
	s.arp, err = openARP()
	return err
}

func (s *Sockets) loopback() bool { return s.frames[0] < 0 }

// LocalAddr returns the address and port that the UDP socket is bound to.
func (s *Sockets) LocalAddr() netip.AddrPort {
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// ARP returns what asks wires and hears them; nil in loopback mode.
func (s *Sockets) ARP() *ARP { return s.arp }

// StopReading makes Readers return an error, now and from now on.
func (s *Sockets) StopReading() {
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // in the past
}

// Waiting reports whether a packet is in the receive queue.
func (s *Sockets) Waiting() (bool, error) {
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

// Dropped returns how many packets the kernel threw away on the socket: SK_MEMINFO_DROPS.
func (s *Sockets) Dropped() (n uint32, ok bool) {
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

// Close closes them, and ends what listens to ARP.
func (s *Sockets) Close() error {
	err := s.conn.Close()
	if s.arp != nil {
		err = errors.Join(err, s.arp.close())
		s.arp = nil
	}
	if s.hops != nil {
		s.hops.close()
		s.hops = nil
	}
	if s.routes != nil {
		s.routes.k.close()
		s.routes = nil
	}
	return errors.Join(err, closeAll(s.frames[:]), closeAll(s.aside[:]))
}
