package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/neighbour"
)

const (
	arpLen   = 28 // of a packet of ARP for Ethernet and IPv4 (RFC 826)
	askPause = 300 * time.Millisecond
)

// Ask implements neighbour.Kernel. The known MAC is asked by unicast, and the whole wire in
// between: who forges that MAC as the source of frames draws what a switch has for it to
// himself, and not what goes to everybody. Where the address is astray nothing is sent. Asking a MAC
// needs CAP_NET_RAW.
func (n *Neighbours) Ask(ctx context.Context, q neighbour.Question) (neighbour.Answer, error) {
	w, err := n.wayTo(q.Interface, q.IP)
	switch {
	case err != nil:
		return 0, fmt.Errorf("link: way to %s: %w", q.IP, err)
	case w.ifindex == 0:
		return neighbour.Astray, nil
	case q.Known.IsZero():
		return neighbour.Silent, nil
	}
	c, err := openAsker(n.netns, w.ifindex, q)
	if err != nil {
		return 0, fmt.Errorf("link: ask %s on %s by ARP: %w", q.IP, q.Interface, err)
	}
	defer c.close()
	answers, err := c.converse(ctx, w.source)
	switch {
	case err != nil:
		return 0, fmt.Errorf("link: ask %s on %s by ARP: %w", q.IP, q.Interface, err)
	case answers:
		return neighbour.Answers, nil
	}
	return neighbour.Silent, nil
}

// way is how packets to a neighbour leave.
type way struct {
	ifindex int        // of the interface; zero: by another one, through a router, or not at all
	source  netip.Addr // of such packets; 0.0.0.0: the host has none for them
}

// wayTo asks the kernel for the route to an address. It is a wire's own if packets leave by that
// interface and no router is between. Interfaces of a VRF have the routes of that.
func (n *Neighbours) wayTo(name string, ip netip.Addr) (way, error) {
	var gone netlink.LinkNotFoundError
	l, err := n.handle.LinkByName(name)
	if errors.As(err, &gone) {
		return way{}, nil
	}
	if err != nil {
		return way{}, err
	}
	var o netlink.RouteGetOptions
	if o.OifIndex, err = vrfOf(n.handle, l); err != nil {
		return way{}, err
	}
	routes, err := n.handle.RouteGetWithOptions(ip.AsSlice(), &o)
	switch {
	case noRoute(err):
		return way{}, nil
	case err != nil:
		return way{}, err
	case len(routes) != 1:
		return way{}, nil
	}
	r := &routes[0]
	if r.Type != unix.RTN_UNICAST || r.LinkIndex != l.Attrs().Index || len(r.Gw) > 0 || r.Via != nil {
		return way{}, nil
	}
	w := way{ifindex: r.LinkIndex, source: netip.IPv4Unspecified()}
	if src, ok := netip.AddrFromSlice(r.Src.To4()); ok {
		w.source = src
	}
	return w, nil
}

// asker is a packet socket on one wire that hears ARP of one sender alone.
type asker struct {
	file *os.File
	at   unix.SockaddrLinklayer // the wire, and the hardware address of this end
	q    neighbour.Question
}

func openAsker(netNS, ifindex int, q neighbour.Question) (*asker, error) {
	var fd int
	err := inNamespace(netNS, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket, which needs CAP_NET_RAW: %w", err)
	}
	c := &asker{q: q}
	filter := senderFilter(q.Known, q.IP)
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ARP), Ifindex: ifindex})
	}
	if err == nil {
		err = c.name(fd)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	c.file = os.NewFile(uintptr(fd), "arp")
	return c, nil
}

// name notes what the kernel calls this end of the wire.
func (c *asker) name(fd int) error {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	ll, ok := sa.(*unix.SockaddrLinklayer)
	if !ok || ll.Hatype != unix.ARPHRD_ETHER || ll.Halen != 6 {
		return errors.New("the interface is no Ethernet")
	}
	c.at = *ll
	return nil
}

func (c *asker) close() { _ = c.file.Close() }

// senderFilter lets ARP through whose sender has this hardware and protocol address, be it an
// answer or a question of its own.
func senderFilter(mac provision.MAC, ip netip.Addr) []unix.SockFilter {
	four := ip.As4()
	check := func(size uint16, at, want uint32, left uint8) []unix.SockFilter {
		return []unix.SockFilter{
			{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: want, Jf: left},
		}
	}
	f := check(unix.BPF_W, 8, binary.BigEndian.Uint32(mac[:4]), 5)
	f = append(f, check(unix.BPF_H, 12, uint32(binary.BigEndian.Uint16(mac[4:])), 3)...)
	f = append(f, check(unix.BPF_W, 14, binary.BigEndian.Uint32(four[:]), 1)...)
	return append(f,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: arpLen},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0})
}

// converse asks until ctx ends, or the known MAC is heard: then it returns true.
func (c *asker) converse(ctx context.Context, source netip.Addr) (bool, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	everybody := provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	buf := make([]byte, 64)
	for turn := 0; ; turn++ {
		to := c.q.Known
		if turn%2 == 1 {
			to = everybody
		}
		if err := c.file.SetReadDeadline(time.Now().Add(askPause)); err != nil {
			return false, err
		}
		if ctx.Err() != nil { // looked at after that deadline was set, lest it replace the end's
			return false, nil
		}
		if err := c.send(to, source); err != nil {
			return false, err
		}
		switch n, err := c.file.Read(buf); {
		case err == nil && n >= arpLen:
			return true, nil
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			return false, err
		}
	}
}

// send asks to, by its frame, who has the address.
func (c *asker) send(to provision.MAC, source netip.Addr) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	sa := unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ARP), Ifindex: c.at.Ifindex, Halen: 6}
	copy(sa.Addr[:], to[:])
	packet := request(provision.MAC(c.at.Addr[:6]), source, c.q.IP)
	cerr := raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), packet, 0, &sa) })
	return errors.Join(cerr, err)
}

// request is an ARP request (RFC 826).
func request(own provision.MAC, source, target netip.Addr) []byte {
	b := make([]byte, 0, arpLen)
	b = binary.BigEndian.AppendUint16(b, unix.ARPHRD_ETHER)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4, 0, 1) // lengths of the addresses; a request
	b = append(b, own[:]...)
	b = append(b, source.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, target.AsSlice()...)
}

// bigEndian16 is a number as the kernel wants it in struct sockaddr_ll.
func bigEndian16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// inNamespace runs f in a network namespace: that of an open file descriptor, or with zero
// that of this process.
func inNamespace(fd int, f func() error) error {
	if fd == 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread has left its namespace, and ends with this goroutine.
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(fd)); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}
