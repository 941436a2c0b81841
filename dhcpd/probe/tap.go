package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Tap sees the DHCP messages on one interface, whoever they are for. From
// OpenTap on none is missed: they wait in the kernel until they are read. It
// needs CAP_NET_RAW.
type Tap struct {
	file  *os.File
	iface *net.Interface
	buf   []byte
}

// OpenTap watches what comes in and what goes out on the named interface.
func OpenTap(name string) (*Tap, error) { return openTap(name, unix.ETH_P_ALL) }

func openTap(name string, protocol uint16) (*Tap, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket (needs root or CAP_NET_RAW): %w", err)
	}
	// A larger buffer is only a comfort.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	// A reply to a chaddr that is not the card's own needs a card that takes all.
	err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(protocol), Ifindex: iface.Index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return &Tap{file: os.NewFile(uintptr(fd), "tap "+name), iface: iface, buf: make([]byte, 1<<16)}, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Receive returns the next DHCP message; os.ErrDeadlineExceeded if none comes before the deadline.
func (t *Tap) Receive(deadline time.Time) (Packet, error) {
	if err := t.file.SetReadDeadline(deadline); err != nil {
		return Packet{}, err
	}
	raw, err := t.file.SyscallConn()
	if err != nil {
		return Packet{}, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), t.buf, 0)
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil {
			return Packet{}, err
		}
		if rerr != nil {
			return Packet{}, fmt.Errorf("interface %s: %w", t.iface.Name, rerr)
		}
		p, err := parseFrame(bytes.Clone(t.buf[:n]))
		if err != nil || !p.dhcp() {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			p.Sent = ll.Pkttype == unix.PACKET_OUTGOING
		}
		p.Time = time.Now()
		return p, nil
	}
}

// send writes one frame.
func (t *Tap) send(frame []byte) error {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var werr error
	err = raw.Write(func(fd uintptr) bool {
		_, werr = unix.Write(int(fd), frame)
		return !errors.Is(werr, unix.EAGAIN)
	})
	return errors.Join(err, werr)
}

// Close ends the tap.
func (t *Tap) Close() error { return t.file.Close() }
