package socket

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

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
