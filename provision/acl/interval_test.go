package acl

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/access"
)

// The kernel keeps a prefix as its first address and the one behind its last.
func TestIntervalsOfRandomPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 5))
	for range 20_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, rng.Uint32()))), rng.IntN(33)).Masked()
		four := p.Addr().As4()
		key := append(four[:], byte(p.Bits()))
		first, behind, open := interval(key)
		r := reading{ends: []end{{first, true}}}
		at := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, behind)))
		if open {
			require.True(t, p.Contains(netip.MustParseAddr("255.255.255.255")), "%s", p)
		} else {
			require.True(t, p.Contains(at.Prev()) && !p.Contains(at), "%s ends before %s", p, at)
			r.ends = append(r.ends, end{behind, false})
		}
		keys, repeats := r.prefixes()
		require.Equal(t, access.Keys(key), keys, "%s", p)
		require.Zero(t, repeats+r.strange)
	}
}
