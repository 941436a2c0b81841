package lease

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

// holds tells whether the addresses that hang on a hash are those and no others.
func (x *index) holds(t *Table, hash uint32, want map[uint32]bool) bool {
	n := 0
	for key := x.first(hash); key != 0; key = t.at(key).links[ofMAC].next {
		if n++; !want[key] || n > len(want) { // an address that comes twice is a ring
			return false
		}
	}
	return n == len(want)
}

// An index finds what was put in and nothing else, with hashes that lie near each other and wrap around.
func TestIndexIsAMapOfSets(t *testing.T) {
	for seed := range uint64(long.Times(t, 6, 20)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tab, x, want := New(), newIndex(int(seed%3)*40), map[uint32]map[uint32]bool{}
		hash := func() uint32 {
			return []uint32{0, 1, 1 << 31, 1<<32 - 1}[rng.IntN(4)] + uint32(rng.IntN(12))<<uint(rng.IntN(30))
		}
		of := map[uint32]uint32{}
		for range 2000 {
			key := uint32(rng.IntN(150) + 1)
			if h, there := of[key]; there {
				x.remove(tab, ofMAC, h, tab.at(key))
				delete(of, key)
				if delete(want[h], key); len(want[h]) == 0 {
					delete(want, h)
				}
			} else {
				e := tab.at(key)
				if e == nil {
					e = &entry{}
					tab.insertLocked(key, e)
				}
				h := hash()
				of[key] = h
				if want[h] == nil {
					want[h] = map[uint32]bool{}
				}
				want[h][key] = true
				x.add(tab, ofMAC, h, key, e)
			}
			require.Equal(t, len(want), x.n)
			for h := range want {
				if !x.holds(tab, h, want[h]) {
					require.Fail(t, "other addresses hang on a hash", "hash %x", h)
				}
			}
			require.True(t, x.holds(tab, 77<<3+5<<20, nil))
		}
	}
}
