package pool

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

// Whatever happens to addresses, a place has as many as a look at every one of them finds.
func TestPlacesAgainstCount(t *testing.T) {
	for seed := range uint64(long.Times(t, 8, 1000)) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		p, err := New(host(1), host(24))
		require.NoError(t, err)
		now := testNow
		at := map[netip.Addr]uint64{}
		for range 2000 {
			now = now.Add(time.Duration(rnd.IntN(3)) * time.Second)
			a, m := host(1+byte(rnd.IntN(24))), owner(rnd.IntN(30))
			place := uint64(rnd.IntN(12)) << 40 // 0 is none
			switch rnd.IntN(6) {
			case 0, 1:
				if p.Offer(a, m, now, now.Add(10*time.Second)) {
					p.SetPlace(a, place)
					at[a] = place
				}
			case 2:
				if p.Lease(a, m, now, now.Add(20*time.Second)) {
					p.SetPlace(a, place)
					at[a] = place
				}
			case 3:
				p.Release(a, m, now)
			case 4:
				p.Quarantine(a, now, now.Add(5*time.Second))
			case 5:
				if b, fit := p.PickOffered(now, now.Add(5*time.Second)); fit != 0 && p.Reoffer(b, m, now, now.Add(10*time.Second), now.Add(5*time.Second)) {
					p.SetPlace(b, place)
					at[b] = place
				}
			}
			p.Counts(now) // what ran out is free
			want := map[uint64]int{}
			for b, s := range p.All(now) {
				if (s.State == StateOffered || s.State == StateLeased) && at[b] != 0 {
					want[at[b]]++
					require.Equal(t, at[b], p.Place(b))
				}
			}
			for n := range uint64(12) {
				require.Equal(t, want[n<<40], p.At(n<<40), "place %d", n)
			}
		}
	}
}
