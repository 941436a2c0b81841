package pool

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Many at once, in the order of addresses, come to what they come to one by one in the order of time.
func TestRestoreAllIsRestoreInOrder(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var all []Known
		for i := range byte(60) {
			k := Known{IP: host(i + 1), Owner: owner(rng.IntN(40)), Place: uint64(rng.IntN(5)), Until: testNow.Add(time.Duration(rng.IntN(30)) * time.Hour)}
			switch rng.IntN(5) {
			case 0:
				continue
			case 1:
				k.State, k.Owner = StateQuarantined, owner(0)
			case 2:
				k.State, k.Until = StateFree, k.Until.Add(-40*time.Hour)
			default:
				k.State = StateLeased
			}
			all = append(all, k)
		}
		all = append(all, Known{IP: host(200), Owner: owner(99), State: StateLeased, Until: testNow}) // of another range
		one, many := testPool(t, 1, 62, host(1)), testPool(t, 1, 62, host(1))
		many.seed = one.seed
		if seed%5 == 0 { // whoever has them in another order
			rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		half := len(all) / 2
		many.RestoreAll(slices.Values(all[:half]), slices.Values(all[half:]))
		slices.SortFunc(all, func(a, b Known) int { return a.IP.Compare(b.IP) })
		slices.SortStableFunc(all, func(a, b Known) int { return a.Until.Compare(b.Until) })
		for _, k := range all {
			one.Restore(k.IP, k.Owner, k.State, k.Until)
			one.SetPlace(k.IP, k.Place)
		}
		require.Equal(t, one, many, "seed %d", seed)
		now := testNow.Add(10 * time.Hour)
		require.Equal(t, maps.Collect(one.All(now)), maps.Collect(many.All(now)))
	}
}

func TestTimesFarAwayAreSortedAsFarAsTheyCan(t *testing.T) {
	p := testPool(t, 1, 62)
	p.RestoreAll(slices.Values([]Known{
		{IP: host(1), Owner: owner(1), State: StateLeased, Until: time.UnixMilli(1<<62 - 1)},
		{IP: host(2), Owner: owner(2), State: StateLeased, Until: time.UnixMilli(-1 << 62)},
		{IP: host(3), Owner: owner(3), State: StateLeased, Until: testNow.Add(time.Hour)},
	}))
	require.Equal(t, 2, p.Counts(testNow).Leased, "one has run out")
}

func TestSortByBits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < 300; n++ {
		bits := 20 + rng.IntN(45)
		all := make([]uint64, n)
		for i := range all {
			all[i] = (rng.Uint64()>>(64-bits))&^(1<<20-1) | uint64(i)
		}
		want := slices.Sorted(slices.Values(all))
		sortByBits(all, 20, bits)
		require.Equal(t, want, all, "%d numbers of %d bits", n, bits)
	}
}
