package userside

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// ParseSubnet reads the subnet of a CustomerAddress: an IPv4 address with the length of its prefix or a mask,
// "203.0.113.8/29" or "203.0.113.8/255.255.255.248". Bits behind the length are cut off.
func ParseSubnet(text string) (netip.Prefix, error) {
	first, length, ok := strings.Cut(strings.TrimSpace(text), "/")
	ip, err := netip.ParseAddr(strings.TrimSpace(first))
	n, known := prefixBits(strings.TrimSpace(length))
	if !ok || err != nil || !ip.Is4() || !known {
		return netip.Prefix{}, fmt.Errorf("ip_net: %s is not an IPv4 subnet such as 203.0.113.8/29", quote([]byte(text)))
	}
	return ip.Prefix(n)
}

// prefixBits reads the length of a prefix, as a number or as a mask.
func prefixBits(s string) (n int, ok bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 0 && n <= 32
	}
	mask, err := netip.ParseAddr(s)
	if err != nil || !mask.Is4() {
		return 0, false
	}
	four := mask.As4()
	v := uint32(four[0])<<24 | uint32(four[1])<<16 | uint32(four[2])<<8 | uint32(four[3])
	n = bits.LeadingZeros32(^v)
	return n, v<<n == 0 || n == 32
}

// wholeSubnet puts the first address before an ip_net that is only a length or a mask.
func wholeSubnet(net String, first netip.Addr) String {
	text := strings.TrimSpace(string(net))
	if _, short := prefixBits(strings.TrimPrefix(text, "/")); short && first.IsValid() {
		return String(first.String() + "/" + strings.TrimPrefix(text, "/"))
	}
	return net
}
