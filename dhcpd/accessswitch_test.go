package dhcpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/link/lab"
)

// accessSwitch is what stands between customers and a router: it learns where
// MACs are and forwards frames between the interfaces of a host, as a switch in hardware
// does. On top of that it may snoop DHCP: then it drops option 82 that customers
// write, inserts its own without a relay address (RFC 3046 section 2.1.1), and takes it off
// answers again.
type accessSwitch struct {
	uplink string
	// snoop returns the option 82 of a customer's port; nil: none is inserted.
	snoop func(port string) []byte
	// trapBroadcast: what customers send to all DHCP servers is not forwarded, since a relay
	// on this host takes care of it.
	trapBroadcast bool

	ports map[string]*os.File

	mu    sync.Mutex // guards what follows
	where map[[6]byte]string
}

// run starts forwarding between the uplink and the ports of a host, which lasts until the test ends.
func (s *accessSwitch) run(t *testing.T, h *lab.Host, ports ...string) {
	t.Helper()
	s.where, s.ports = map[[6]byte]string{}, map[string]*os.File{}
	for _, name := range append([]string{s.uplink}, ports...) {
		require.NoError(t, h.Do(func() (err error) { s.ports[name], err = openPort(name); return err }))
	}
	var wg sync.WaitGroup
	for name := range s.ports {
		wg.Go(func() {
			if err := s.forward(name); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("switch port %s: %v", name, err)
			}
		})
	}
	t.Cleanup(func() {
		for _, f := range s.ports {
			_ = f.Close()
		}
		wg.Wait()
	})
}

// openPort opens an interface for all of its frames.
func openPort(name string) (*os.File, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(iface.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}))
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// forward takes what comes in on one port to where it belongs, until the port is closed.
func (s *accessSwitch) forward(in string) error {
	buf := make([]byte, 1<<16)
	for {
		n, err := s.ports[in].Read(buf)
		if err != nil {
			return err
		}
		if n < 14 {
			continue
		}
		frame := s.treat(in, bytes.Clone(buf[:n]))
		if frame == nil {
			continue
		}
		for _, out := range s.towards(in, frame) {
			if _, err := s.ports[out].Write(frame); err != nil && !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
	}
}

// towards learns where the sender is, and returns the ports that a frame is to leave on.
func (s *accessSwitch) towards(in string, frame []byte) []string {
	to, from := [6]byte(frame[:6]), [6]byte(frame[6:12])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.where[from] = in
	if out, known := s.where[to]; known && to[0]&1 == 0 {
		if out == in {
			return nil
		}
		return []string{out}
	}
	all := slices.Collect(maps.Keys(s.ports))
	return slices.DeleteFunc(all, func(name string) bool { return name == in })
}

// treat does to a frame what the switch does to DHCP; nil: it goes no further.
func (s *accessSwitch) treat(in string, frame []byte) []byte {
	const eth = 14
	if binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || len(frame) < eth+20 || frame[eth]>>4 != 4 || frame[eth+9] != unix.IPPROTO_UDP {
		return frame
	}
	ip := frame[eth:]
	total := int(binary.BigEndian.Uint16(ip[2:]))
	head := int(ip[0]&15) * 4
	if total > len(ip) || head+8 > total || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		return frame
	}
	udp := ip[head:total]
	message := udp[8:]
	switch port := binary.BigEndian.Uint16(udp[2:]); {
	case port == 67 && in != s.uplink && len(message) > 240:
		if s.trapBroadcast && frame[0]&1 == 1 {
			return nil
		}
		if s.snoop != nil {
			message = withOption82(message, s.snoop(in))
		}
	case port == 68 && in == s.uplink && s.snoop != nil && len(message) > 240:
		message = withOption82(message, nil)
	}
	return rebuilt(frame[:eth+head+8], message)
}

// rebuilt returns an IPv4 UDP frame with another message. Checksums are made anew
// in any case: on a veth they are often still to be filled in by hardware.
func rebuilt(headers, message []byte) []byte {
	f := append(bytes.Clone(headers), message...)
	ip := f[14:]
	head := int(ip[0]&15) * 4
	udp := ip[head:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(0, ip[:head]))
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	sum := internetChecksum(uint32(unix.IPPROTO_UDP)+uint32(len(udp)), ip[12:20], udp)
	if sum == 0 {
		sum = 0xffff // RFC 768: zero means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return f
}

// internetChecksum is that of RFC 1071; all parts but the last have an even length.
func internetChecksum(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// withOption82 returns a DHCP message with this option 82 as its last option in
// place of those that it has; nil: without any.
func withOption82(message, payload []byte) []byte {
	out := bytes.Clone(message[:240])
	for i := 240; i < len(message) && message[i] != 255; {
		n := 1
		if message[i] != 0 {
			if i+1 >= len(message) || i+2+int(message[i+1]) > len(message) {
				break
			}
			n = 2 + int(message[i+1])
		}
		if message[i] != 82 {
			out = append(out, message[i:i+n]...)
		}
		i += n
	}
	if len(payload) > 0 {
		out = append(append(out, 82, byte(len(payload))), payload...)
	}
	out = append(out, 255)
	for len(out) < 300 { // RFC 1542 section 2.1
		out = append(out, 0)
	}
	return out
}
