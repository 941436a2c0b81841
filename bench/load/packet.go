package load

import (
	"encoding/binary"
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// least is how long BOOTP messages are at least (RFC 1542 section 2.1).
const least = 300

// portDigits is how many digits the number in a port's name has.
const portDigits = 7

// PortName returns the name of a client's port, which is its circuit-id: "ge" and
// seven digits of n, so that all packets are of one length.
func PortName(n uint32) string { return string(appendPort([]byte("ge"), n)) }

func appendPort(dst []byte, n uint32) []byte {
	var d [portDigits]byte
	for i := portDigits - 1; i >= 0; i-- {
		d[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, d[:]...)
}

// Option82 returns the payload of option 82 of a client at port n.
func Option82(n uint32) []byte {
	return append([]byte{1, 2 + portDigits}, PortName(n)...)
}

// question is what differs from packet to packet.
type question struct {
	kind      wire.MessageType
	xid       uint32
	mac       [6]byte
	port      uint32
	ciaddr    netip.Addr // invalid: none, as the next two
	requested netip.Addr
	server    netip.Addr
}

// template is a buffer for packets of one relay, as a home router asks.
type template struct {
	giaddr [4]byte
	b      []byte
}

func newTemplate(relay netip.Addr) *template {
	return &template{giaddr: relay.As4(), b: make([]byte, 0, 2*least)}
}

// fill writes the packet of q, which is good until the next one.
func (t *template) fill(q *question) []byte {
	var h [236]byte
	h[0], h[1], h[2], h[3] = 1, 1, 6, 1 // BOOTREQUEST, Ethernet, one relay
	binary.BigEndian.PutUint32(h[4:], q.xid)
	if q.ciaddr.Is4() {
		a := q.ciaddr.As4()
		copy(h[12:], a[:])
	}
	copy(h[24:], t.giaddr[:])
	copy(h[28:], q.mac[:])
	b := append(t.b[:0], h[:]...)
	b = append(b, 99, 130, 83, 99)
	b = append(b, wire.OptMessageType, 1, byte(q.kind)) // first: package echo looks there
	b = append(b, wire.OptClientID, 7, 1)
	b = append(b, q.mac[:]...)
	b = appendAddr(b, wire.OptRequestedIP, q.requested)
	b = appendAddr(b, wire.OptServerID, q.server)
	b = append(b, wire.OptParameterList, 5, wire.OptSubnetMask, wire.OptRouter, wire.OptDNS, wire.OptLeaseTime, wire.OptRenewalTime)
	b = append(b, wire.OptRelayAgentInfo, 4+portDigits, 1, 2+portDigits, 'g', 'e')
	b = appendPort(b, q.port)
	b = append(b, wire.OptEnd)
	for len(b) < least {
		b = append(b, wire.OptPad)
	}
	t.b = b
	return b
}

func appendAddr(b []byte, option byte, ip netip.Addr) []byte {
	if !ip.Is4() {
		return b
	}
	a := ip.As4()
	return append(append(b, option, 4), a[:]...)
}
