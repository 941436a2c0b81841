package provision

import "net/netip"

// Ends returns the first and the last address of an IPv4 prefix: its host bits are all zeros, and all ones.
func Ends(p netip.Prefix) (first, last netip.Addr) {
	first = p.Masked().Addr()
	return first, addrOf(ipKey(first) | ^uint32(0)>>p.Bits())
}

// NetworkAndBroadcast returns the two addresses of an IPv4 prefix that no host may have. Of /31 and /32
// there are none, and both are invalid: every address there is a host's (RFC 3021).
func NetworkAndBroadcast(p netip.Prefix) (network, broadcast netip.Addr) {
	if p.Bits() >= 31 {
		return netip.Addr{}, netip.Addr{}
	}
	return Ends(p)
}
