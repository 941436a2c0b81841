package probe

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Packet is one DHCP message on the wire.
type Packet struct {
	Time       time.Time
	Sent       bool             // by us, or for a Tap: by this host
	From, To   netip.AddrPort   // of the UDP datagram
	FromMAC    net.HardwareAddr // of the frame; nil if it is not known
	ToMAC      net.HardwareAddr
	Payload    []byte // the DHCP message
	xid        uint32
	chaddr     [6]byte
	fromServer bool
}

// classify notes what answers are told by.
func (p *Packet) classify() {
	if len(p.Payload) < headerLen {
		return
	}
	p.fromServer = p.Payload[0] == 2
	p.xid = binary.BigEndian.Uint32(p.Payload[4:])
	copy(p.chaddr[:], p.Payload[28:])
}

const (
	etherLen  = 14
	ipLen     = 20
	udpLen    = 8
	protoUDP  = 17
	etherIPv4 = 0x0800
)

var (
	errNotUDP    = errors.New("not a whole IPv4 UDP datagram")
	broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// parseFrame reads an Ethernet frame with an IPv4 UDP datagram. Checksums are
// not looked at: between virtual interfaces they are often not filled in.
func parseFrame(b []byte) (Packet, error) {
	if len(b) < etherLen+ipLen+udpLen || binary.BigEndian.Uint16(b[12:]) != etherIPv4 {
		return Packet{}, errNotUDP
	}
	p := Packet{ToMAC: net.HardwareAddr(b[:6]), FromMAC: net.HardwareAddr(b[6:12])}
	ip := b[etherLen:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more fragments, or not the first
	if ip[0]>>4 != 4 || head < ipLen || total > len(ip) || total < head+udpLen || ip[9] != protoUDP || fragment != 0 {
		return Packet{}, errNotUDP
	}
	udp := ip[head:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpLen || length > len(udp) {
		return Packet{}, errNotUDP
	}
	p.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp))
	p.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:]))
	p.Payload = udp[udpLen:length]
	p.classify()
	return p, nil
}

// dhcp reports whether the packet is between DHCP ports.
func (p *Packet) dhcp() bool {
	return isPort(p.From.Port()) || isPort(p.To.Port())
}

func isPort(n uint16) bool { return n == 67 || n == 68 }

// appendIP appends the packet as an IPv4 datagram with both checksums.
func (p *Packet) appendIP(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, ipLen+udpLen)...)
	dst = append(dst, p.Payload...)
	ip := dst[at:]
	ip[0], ip[8], ip[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	putAddr(ip[12:], p.From.Addr())
	putAddr(ip[16:], p.To.Addr())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ipLen]))
	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp, p.From.Port())
	binary.BigEndian.PutUint16(udp[2:], p.To.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	pseudo := uint32(protoUDP) + uint32(len(udp))
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	if sum := checksum(pseudo, udp); sum != 0 {
		binary.BigEndian.PutUint16(udp[6:], sum)
	} else {
		binary.BigEndian.PutUint16(udp[6:], 0xffff)
	}
	return dst
}

// checksum is that of RFC 1071.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// frame returns the packet as an Ethernet frame.
func (p *Packet) frame() []byte {
	b := make([]byte, 0, etherLen+ipLen+udpLen+len(p.Payload))
	b = append(append(b, p.ToMAC...), p.FromMAC...)
	return p.appendIP(append(b, etherIPv4>>8, etherIPv4&0xff))
}
