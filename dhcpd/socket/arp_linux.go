package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// maxSightings is how many replies wait to be taken.
const maxSightings = 1024

// ARP asks and hears ARP on all interfaces. Its filter lets replies through
// alone, of which a router gets few, and it costs forwarded packets nothing: they
// are no ARP.
type ARP struct {
	file  *os.File
	raw   syscall.RawConn
	found chan Sighting
	done  chan struct{}
}

// openARP opens the socket in the network namespace of the calling thread.
func openARP() (*ARP, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("dhcp: open ARP socket: run as root or with CAP_NET_RAW: %w", err)
	}
	// Operation 2, a reply; the packet begins with the ARP header.
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: arpLen},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dhcp: open ARP socket: %w", err), unix.Close(fd))
	}
	a := &ARP{file: os.NewFile(uintptr(fd), "arp"), found: make(chan Sighting, maxSightings), done: make(chan struct{})}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("dhcp: open ARP socket: %w", err), a.file.Close())
	}
	go a.listen()
	return a, nil
}

// Heard returns the channel of what is heard; it is closed with the sockets.
func (a *ARP) Heard() <-chan Sighting { return a.found }

// listen reads until the socket is closed. What nobody takes is dropped: the question is asked twice.
func (a *ARP) listen() {
	defer close(a.done)
	defer close(a.found)
	buf := make([]byte, 128)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		rerr := a.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN)
		})
		if rerr != nil {
			return // closed
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if err != nil || !ok { // ENETDOWN, when an interface goes
			continue
		}
		s, ok := parseARP(buf[:n])
		if !ok {
			continue
		}
		s.Ifindex = ll.Ifindex
		select {
		case a.found <- s:
		default:
		}
	}
}

// Ask asks on an interface who has target.
func (a *ARP) Ask(ifindex int, target netip.Addr) error {
	var err error
	cerr := a.raw.Control(func(fd uintptr) {
		var own provision.MAC
		if own, err = hardwareAddress(int(fd), ifindex); err != nil {
			return
		}
		to := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: ifindex, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		err = unix.Sendto(int(fd), appendProbe(nil, own, target), 0, &to)
	})
	return errors.Join(cerr, err)
}

func hardwareAddress(fd, ifindex int) (mac provision.MAC, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return mac, err
	}
	ifr.SetUint32(uint32(ifindex))
	if err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return mac, err
	}
	// struct sockaddr: two bytes of the family, then the address.
	var req struct {
		name [unix.IFNAMSIZ]byte
		addr unix.RawSockaddr
		_    [24]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], ifr.Name())
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return mac, errno
	}
	for i := range mac {
		mac[i] = byte(req.addr.Data[i])
	}
	return mac, nil
}

func (a *ARP) close() error {
	err := a.file.Close()
	<-a.done
	return err
}
