package socket

import (
	"net/netip"

	"github.com/usher-agent/usher/provision"
)

// Sighting is an ARP reply: on an interface somebody says that an address is theirs.
type Sighting struct {
	Ifindex int
	IP      netip.Addr
	MAC     provision.MAC
}

// parseARP reads an ARP reply for IPv4 on Ethernet (RFC 826).
func parseARP(b []byte) (s Sighting, ok bool) {
	if len(b) < arpLen || [8]byte(b) != [8]byte{0, 1, 8, 0, 6, 4, 0, 2} {
		return s, false
	}
	s.MAC = provision.MAC(b[8:14])
	s.IP = netip.AddrFrom4([4]byte(b[14:18]))
	return s, !s.MAC.IsZero() && !s.IP.IsUnspecified()
}

const arpLen = 28

// appendProbe appends the ARP request that asks for target: the sender's address is
// zero, so that nobody learns anything from it (RFC 5227 section 2.1.1).
func appendProbe(dst []byte, own provision.MAC, target netip.Addr) []byte {
	dst = append(dst, 0, 1, 8, 0, 6, 4, 0, 1)
	dst = append(dst, own[:]...)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	to := target.As4()
	return append(dst, to[:]...)
}
