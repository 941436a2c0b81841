package provision_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// slowEnds sets the host bits one by one.
func slowEnds(p netip.Prefix) (first, last netip.Addr) {
	lo, hi := p.Addr().As4(), p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		mask, i := byte(0x80)>>(bit%8), bit/8
		lo[i], hi[i] = lo[i]&^mask, hi[i]|mask
	}
	return netip.AddrFrom4(lo), netip.AddrFrom4(hi)
}

// randomPrefix draws a prefix with addresses of hosts in it, such as a configuration may have, of any length.
func randomPrefix(rng *rand.Rand, shortest int) netip.Prefix {
	a := netip.AddrFrom4([4]byte{byte(1 + rng.IntN(126)), byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
	return netip.PrefixFrom(a, shortest+rng.IntN(33-shortest))
}

func TestEndsOfPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 1))
	check := func(p netip.Prefix) {
		wantFirst, wantLast := slowEnds(p)
		first, last := provision.Ends(p)
		require.Equal(t, []netip.Addr{wantFirst, wantLast}, []netip.Addr{first, last}, "%s", p)
		require.True(t, p.Contains(first) && p.Contains(last), "%s", p)
		require.False(t, p.Contains(first.Prev()) || p.Contains(last.Next()), "%s", p)
		network, broadcast := provision.NetworkAndBroadcast(p)
		if p.Bits() >= 31 {
			require.False(t, network.IsValid() || broadcast.IsValid(), "%s", p)
			return
		}
		require.Equal(t, []netip.Addr{first, last}, []netip.Addr{network, broadcast}, "%s", p)
	}
	for range 20_000 {
		check(randomPrefix(rng, 0))
	}
	for bits := range 33 { // at both ends of all addresses
		check(netip.PrefixFrom(netip.MustParseAddr("0.0.0.0"), bits))
		check(netip.PrefixFrom(netip.MustParseAddr("255.255.255.255"), bits))
	}
}

// Of the subnets that lie at every second place of their length, too, nobody is given the last address.
func TestBroadcastAddressOfEverySecondSubnet(t *testing.T) {
	for _, tc := range []struct{ subnet, broadcast string }{
		{"203.0.113.0/24", "203.0.113.255"},
		{"198.51.100.0/24", "198.51.100.255"},
		{"192.0.2.16/28", "192.0.2.31"},
		{"192.0.2.32/28", "192.0.2.47"},
		{"192.0.2.252/30", "192.0.2.255"},
		{"100.65.0.0/16", "100.65.255.255"},
	} {
		snap, problems := buildIn(tc.subnet, tc.broadcast)
		assert.Nil(t, snap.ByIP(provisiontest.Addr(tc.broadcast)), "%s", tc.subnet)
		if assert.Len(t, problems, 1, "%s", tc.subnet) {
			assert.Equal(t, provision.ProblemReservedAddress, problems[0].Kind)
			assert.Equal(t, "broadcast address of "+tc.subnet, problems[0].Detail)
		}
	}
}

// buildIn builds with one row, of an address, where a subnet is served.
func buildIn(subnet, address string) (*provision.Snapshot, []provision.Problem) {
	return provision.Build(provision.Input{
		Subnets:     []netip.Prefix{netip.MustParsePrefix(subnet)},
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}},
		Lines:       []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr(address)), MAC: provision.MAC{2, 0, 0, 0, 0, 1}}},
	})
}

// In subnets of any length all addresses are hosts' but the first and the last, and of /31 and /32 all are.
func TestReservedAddressesOfRandomSubnets(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 2))
	bound := func(p netip.Prefix, a netip.Addr) bool {
		snap, _ := buildIn(p.Masked().String(), a.String())
		return snap.ByIP(a) != nil
	}
	for range 3_000 {
		p := randomPrefix(rng, 8)
		if b := p.Addr().As4(); b[0] >= 126 { // the next ones are loopback's
			continue
		}
		first, last := slowEnds(p)
		hosts := p.Bits() >= 31
		require.Equal(t, hosts, bound(p, first), "%s of %s", first, p)
		require.Equal(t, hosts, bound(p, last), "%s of %s", last, p)
		if p.Bits() < 31 {
			require.True(t, bound(p, first.Next()), "%s of %s", first.Next(), p)
			require.True(t, bound(p, last.Prev()), "%s of %s", last.Prev(), p)
		}
	}
}

// The longest of the subnets that hold an address says what is reserved, wherever they lie.
func TestLongestOfRandomSubnetsCounts(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 3))
	for range 2_000 {
		var subnets []netip.Prefix
		wide := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(rng.IntN(256)), byte(rng.IntN(256))}), 16+rng.IntN(14)).Masked()
		_, end := slowEnds(wide)
		for range 1 + rng.IntN(4) { // some within each other
			at := netip.AddrFrom4([4]byte{100, 64, byte(rng.IntN(256)), byte(rng.IntN(256))})
			subnets = append(subnets, netip.PrefixFrom(at, 16+rng.IntN(17)).Masked())
		}
		subnets = append(subnets, wide)
		a := [...]netip.Addr{wide.Addr(), end, end.Prev(), subnets[0].Addr()}[rng.IntN(4)]
		longest := wide
		for _, p := range subnets {
			if p.Contains(a) && (p.Bits() > longest.Bits() || !longest.Contains(a)) {
				longest = p
			}
		}
		first, last := slowEnds(longest)
		reserved := longest.Bits() < 31 && (a == first || a == last)
		snap, problems := provision.Build(provision.Input{Subnets: subnets, Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(a)}}})
		require.Equal(t, reserved, snap.ByIP(a) == nil, "%s in %s: %v", a, subnets, problems)
	}
}
