package v4

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// What clients of a random network are told as its mask, which addresses a range has, and which of them they may have.
func TestRandomNetworks(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 4))
	for range 2_000 {
		at := netip.AddrFrom4([4]byte{100, byte(rng.IntN(256)), byte(rng.IntN(256)), byte(rng.IntN(256))})
		p := netip.PrefixFrom(at, 20+rng.IntN(13)).Masked()
		all := []netip.Addr{} // one by one
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			all = append(all, a)
		}
		require.Equal(t, Range{all[0], all[len(all)-1]}, RangeOf(p), "%s", p)
		require.Equal(t, len(all), RangeOf(p).Size(), "%s", p)

		n := Subnet{Prefix: p, LeaseTime: time.Hour}
		if rng.IntN(3) > 0 {
			n.Gateway = all[rng.IntN(len(all))]
		}
		hosts := slices.Clone(all)
		if len(all) > 2 {
			hosts = hosts[1 : len(hosts)-1]
		}
		hosts = slices.DeleteFunc(hosts, func(a netip.Addr) bool { return a == n.Gateway })
		first := rng.IntN(len(all))
		r := Range{all[first], all[first+rng.IntN(len(all)-first)]}
		within := slices.DeleteFunc(slices.Clone(hosts), func(a netip.Addr) bool { return a.Less(r.First) || r.Last.Less(a) })
		require.Equal(t, len(within), n.usable(r), "%s to %s of %s, gateway %s", r.First, r.Last, p, n.Gateway)
		require.Equal(t, len(hosts), len(all)-len(Reserved(p, n.Gateway)), "%s, gateway %s", p, n.Gateway)

		cfg, err := Compile(Options{Subnets: []Subnet{n}})
		require.NoError(t, err)
		var q wire.Packet
		ask := wire.Query{Type: wire.Request, MAC: client(1)}
		require.NoError(t, q.Parse(ask.Append(nil)))
		lib, err := dhcpv4.FromBytes((&wire.Reply{Type: wire.Ack, Options: cfg.subnets[0].options[0]}).Append(nil, &q))
		require.NoError(t, err)
		require.Equal(t, net.CIDRMask(p.Bits(), 32), lib.SubnetMask(), "%s", p)
	}
}
