package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TakeOver makes the sockets of a server out of f, the UDP socket that an earlier process was given by Open and that
// was kept since: what came meanwhile waits in it. Nothing may be read from f any more, which stays the
// caller's to close. It is an error if f is not what Open would make for listen.
func TakeOver(listen netip.AddrPort, f *os.File) (*Sockets, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("dhcp: kept socket: %w", err)
	}
	var unfit error
	if err := c.Control(func(fd uintptr) {
		if unfit = fits(int(fd), listen); unfit == nil {
			unfit = prepare(int(fd)) // sizes of buffers may be others in this version
		}
	}); err != nil {
		return nil, fmt.Errorf("dhcp: kept socket: %w", err)
	}
	if unfit != nil {
		return nil, fmt.Errorf("dhcp: kept socket: %w", unfit)
	}
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("dhcp: kept socket: %w", err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("dhcp: kept socket: no UDP socket"), pc.Close())
	}
	s, err := complete(conn, listen)
	if err != nil {
		return nil, err
	}
	if err := s.stamp(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// fits says why a socket is not what Open would make for listen.
func fits(fd int, listen netip.AddrPort) error {
	for _, o := range [...]struct {
		level, name, want int
		what              string
	}{
		{unix.SOL_SOCKET, unix.SO_DOMAIN, unix.AF_INET, "family"},
		{unix.SOL_SOCKET, unix.SO_TYPE, unix.SOCK_DGRAM, "type"},
		{unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_UDP, "protocol"},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 0, "SO_REUSEADDR"},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 0, "SO_REUSEPORT"},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"}, // what waits has no interface without it
	} {
		if got, err := unix.GetsockoptInt(fd, o.level, o.name); err != nil {
			return fmt.Errorf("%s: %w", o.what, err)
		} else if got != o.want {
			return fmt.Errorf("%s is %d, not %d", o.what, got, o.want)
		}
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("its address: %w", err)
	}
	at, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return errors.New("it has no IPv4 address")
	}
	bound := netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	if bound.Port() == 0 || bound.Addr() != listen.Addr().Unmap() || listen.Port() != 0 && bound.Port() != listen.Port() {
		return fmt.Errorf("it is bound to %v, not to %v", bound, listen)
	}
	if _, err := unix.Getpeername(fd); !errors.Is(err, unix.ENOTCONN) {
		return errors.New("it hears one peer alone")
	}
	return livesHere(fd)
}

// livesHere compares the network namespace, and the device or VRF, with those of a new socket of this thread.
func livesHere(fd int) error {
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fresh) }()
	for what, get := range map[string]func(int) (uint64, error){
		"network namespace": netnsCookie,
		"device": func(fd int) (uint64, error) {
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
			return uint64(n), err
		},
	} {
		want, err := get(fresh)
		if errors.Is(err, unix.ENOPROTOOPT) {
			continue // before Linux 5.14 and 5.0: nobody can tell
		}
		if got, err2 := get(fd); err != nil || err2 != nil {
			return fmt.Errorf("its %s: %w", what, errors.Join(err, err2))
		} else if got != want {
			return fmt.Errorf("it is of another %s", what)
		}
	}
	return nil
}

// netnsCookie is a number of the socket's network namespace.
func netnsCookie(fd int) (n uint64, err error) {
	size := uint32(unsafe.Sizeof(n))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE,
		uintptr(unsafe.Pointer(&n)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}

// Keep lets keep have the UDP socket, to hold it beyond the end of this process. Packets carry the time from then on
// at which they came: who takes the socket over answers none that is too old. The kernel notes the time
// of all packets of the host then, as it does for NTP, so that is not switched on for nothing.
func (s *Sockets) Keep(keep func(syscall.RawConn) error) error {
	if err := keep(s.raw); err != nil {
		return err
	}
	return s.stamp()
}

// stamp has packets carry the time at which they came.
func (s *Sockets) stamp() error {
	var err error
	cerr := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("dhcp: time of packets: %w", err)
	}
	return nil
}
