package socket

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// Interface asks for one interface by ioctl: that costs the same with two
// interfaces and with two thousand, which a netlink dump does not.
func (s *Sockets) Interface(index int) *provision.Interface {
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

// AddressOf returns the first address of a named interface; invalid if it has none.
func (s *Sockets) AddressOf(name string) (a netip.Addr) {
	_ = s.raw.Control(func(fd uintptr) { a = interfaceAddress(int(fd), name) })
	return a
}

// ifreqSize is sizeof(struct ifreq) on 64-bit and 32-bit systems.
const ifreqSize = unix.IFNAMSIZ + 16 + 8*(^uintptr(0)>>63)

// Addresses returns all IPv4 addresses of the socket's network namespace (SIOCGIFCONF).
func (s *Sockets) Addresses() map[netip.Addr]struct{} {
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
