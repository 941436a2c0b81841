package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/neighbour"
)

const (
	// hearBatch packets of ARP are heard within hearPace at most: whoever floods a wire costs
	// a few percent of a processor, and the others are heard when they speak next.
	hearBatch = 64
	hearPace  = 32 * time.Millisecond

	skfPacketType = 0xfffff000 + 4 // SKF_AD_OFF + SKF_AD_PKTTYPE of linux/filter.h
)

// Hearing hears on all interfaces of one network namespace who speaks ARP for which address. It
// costs forwarded packets nothing: they are no ARP. It needs CAP_NET_RAW.
type Hearing struct {
	netns int
	file  *os.File
}

// OpenHearing opens it in a network namespace: that of an open file descriptor, for tests, or with
// zero that of the calling thread.
func OpenHearing(netNS int) (*Hearing, error) {
	var fd int
	err := inNamespace(netNS, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("link: hear ARP, which needs CAP_NET_RAW: %w", err)
	}
	filter := []unix.SockFilter{ // of Ethernet and IPv4, and for this host
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfPacketType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OTHERHOST, Jt: 5},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ARPHRD_ETHER<<16 | unix.ETH_P_IP, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6<<8 | 4, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: arpLen},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ARP)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("link: hear ARP: %w", err), unix.Close(fd))
	}
	return &Hearing{netns: netNS, file: os.NewFile(uintptr(fd), "arp")}, nil
}

// Close lets the socket go.
func (h *Hearing) Close() error { return h.file.Close() }

// Run tells, until ctx ends, on which interface who spoke for an address: the MAC is both in the
// packet and the source of its frame. What a host writes into a packet costs it nothing; of a
// frame with a neighbour's MAC the switches learn that the neighbour is where it came from.
func (h *Hearing) Run(ctx context.Context, on func(name string, ip netip.Addr, mac provision.MAC)) error {
	stop := context.AfterFunc(ctx, func() { _ = h.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64)
	for {
		began := time.Now()
		for range hearBatch {
			var n int
			var from unix.Sockaddr
			var name string
			if rerr := raw.Read(func(fd uintptr) bool {
				n, from, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
				if ll, ok := from.(*unix.SockaddrLinklayer); ok && err == nil {
					name = nameOf(int(fd), ll.Ifindex)
				}
				return !errors.Is(err, unix.EAGAIN)
			}); rerr != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("link: hear ARP: %w", rerr)
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && name != "" { // ENETDOWN, when an interface goes
				if ip, mac, ok := spoken(buf[:n], ll); ok {
					on(name, ip, mac)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(hearPace - time.Since(began)):
		}
	}
}

// spoken returns who speaks in a packet of ARP, and for which address. What is for another host does not
// count: frames of a VLAN that this one has no interface of come as such, from a wire that is not this one's.
func spoken(b []byte, from *unix.SockaddrLinklayer) (ip netip.Addr, mac provision.MAC, ok bool) {
	if len(b) < arpLen || from.Halen != 6 || from.Pkttype == unix.PACKET_OTHERHOST {
		return ip, mac, false
	}
	ip, mac = netip.AddrFrom4([4]byte(b[14:])), provision.MAC(b[8:14])
	return ip, mac, mac == provision.MAC(from.Addr[:6]) && !ip.IsUnspecified()
}

// nameOf returns the name of an interface; empty: it is gone.
func nameOf(fd, ifindex int) string {
	r, err := unix.NewIfreq("")
	if err != nil {
		return ""
	}
	r.SetUint32(uint32(ifindex))
	if unix.IoctlIfreq(fd, unix.SIOCGIFNAME, r) != nil {
		return ""
	}
	return r.Name()
}

// Ask asks a MAC on an interface, and nobody else, whether it has an address; Run hears the
// answer. The sender's address is what this host would send from. Without one the question is a
// probe, and a client that is trying the address out takes that for a conflict (RFC 5227 2.1.1).
func (h *Hearing) Ask(name string, ip netip.Addr, mac provision.MAC) error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	var ifindex int
	cerr := raw.Control(func(fd uintptr) { ifindex, err = indexOf(int(fd), name) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("link: ask on %s by ARP: %w", name, err)
	}
	c, err := openAsker(h.netns, ifindex, neighbour.Question{Interface: name, IP: ip, Known: mac})
	if err != nil {
		return fmt.Errorf("link: ask on %s by ARP: %w", name, err)
	}
	defer c.close()
	return c.send(mac, h.source(name, ip))
}

// source returns the address that packets by an interface to another address come from, where the
// interface has none of its own that of another one; 0.0.0.0: the host has none.
func (h *Hearing) source(name string, to netip.Addr) netip.Addr {
	none := netip.IPv4Unspecified()
	var fd int
	err := inNamespace(h.netns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return none
	}
	defer unix.Close(fd)
	if err = unix.BindToDevice(fd, name); err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: to.As4()}) // sends nothing
	}
	if err != nil {
		return none
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		if four, ok := sa.(*unix.SockaddrInet4); ok {
			return netip.AddrFrom4(four.Addr)
		}
	}
	return none
}

func indexOf(fd int, name string) (int, error) {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	return int(r.Uint32()), err
}
