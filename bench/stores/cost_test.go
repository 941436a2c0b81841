package stores

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shuffled is the i-th of n numbers in an order that is not theirs.
func shuffled(i, n int) uint32 { return uint32(i * 611_953 % n) } // a prime

// BenchmarkCommit is a group of records on disk, of 16,384 keys out of a million.
func BenchmarkCommit(b *testing.B) {
	for _, c := range candidates() {
		for _, n := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				s, err := c.open(b.TempDir(), func(record) {})
				require.NoError(b, err)
				pool := make([]record, 1<<14)
				for i := range pool {
					pool[i] = newRecord(kindLease, shuffled(i, 1_000_000), 0)
				}
				batch, at := make([]record, n), 0
				for b.Loop() {
					for i := range batch {
						batch[i] = pool[at%len(pool)]
						at++
					}
					if err := s.Commit(batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(at)/b.Elapsed().Seconds(), "records/s")
				require.NoError(b, s.Close())
			})
		}
	}
}

// TestMillion fills a store, opens it, and writes everything once more while it looks at the space and the longest commit.
func TestMillion(t *testing.T) {
	n := number(t, "USHER_RECORDS", 1_000_000)
	forAll(t, func(t *testing.T, c candidate) {
		dir := t.TempDir()
		const mib = 1 << 20
		fill := func(s store, version uint32) (took, longest time.Duration, most int64) {
			batch := make([]record, 0, 1024)
			for i := 0; i < n; {
				batch = batch[:0]
				for ; i < n && len(batch) < cap(batch); i++ {
					batch = append(batch, newRecord(kindLease, shuffled(i, n), version))
				}
				start := time.Now()
				require.NoError(t, s.Commit(batch))
				took += time.Since(start)
				longest = max(longest, time.Since(start))
				if i%(64<<10) == 0 {
					most = max(most, size(t, dir))
				}
			}
			return took, longest, most
		}
		open := func() (s store, took time.Duration) {
			runtime.GC()
			read, start := 0, time.Now()
			s, err := c.open(dir, func(r record) {
				if r.whole() {
					read++
				}
			})
			require.NoError(t, err)
			require.GreaterOrEqual(t, read, n)
			return s, time.Since(start)
		}
		s, err := c.open(dir, func(record) {})
		require.NoError(t, err)
		took, longest, _ := fill(s, 0)
		require.NoError(t, s.Close())
		first := size(t, dir)
		s, opened := open()
		again, longestAgain, most := fill(s, 1)
		require.NoError(t, s.Close())
		second := size(t, dir)
		s, openedAgain := open()
		require.NoError(t, s.Close())
		t.Logf("%-9s fill %.1f s (longest commit %d ms), %d MiB, open and read %.2f s; once more %.1f s (longest %d ms), most %d MiB, closed %d MiB, open and read %.2f s",
			c.name, took.Seconds(), longest.Milliseconds(), first/mib, opened.Seconds(),
			again.Seconds(), longestAgain.Milliseconds(), most/mib, second/mib, openedAgain.Seconds())
	})
}
