package lease

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The clock is set while leases are live, by which memory is right about them. After a restart each still has what it had left, and what was over is over: who looks then has
// the clock as it is set. It runs in real time, for the fake one has no monotonic reading.
func TestClockThatIsSetMovesLeasesOnDisk(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for name, by := range map[string]time.Duration{"ahead by a day": day, "ahead by years": 20 * year, "back by a day": -day, "back by years": -10 * year, "ahead by a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			store := openStore(t, path)
			tab := openTable(t, store)
			var off atomic.Int64
			wall := func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
			tab.wall = wall
			now := time.Now()
			put := func(last int, began, end time.Duration, s State) {
				r := testRecord(oldIP(last))
				r.State, r.Start, r.Renewed, r.Expires = s, now.Add(began), now.Add(began), now.Add(end)
				tab.Store(r)
				require.NoError(t, tab.commit(r))
			}
			put(1, -10*time.Minute, 50*time.Minute, StateBound)
			put(2, -2*time.Hour, -time.Hour, StateBound)
			put(3, -10*time.Minute, 50*time.Minute, StateQuarantined)
			put(4, -10*time.Minute, 50*time.Minute, StateReleased) // kept
			r := testRecord(oldIP(5))                              // as read from disk: nobody knows by which clock
			r.Start, r.Renewed, r.Expires = now.UTC(), now.UTC(), now.Add(time.Hour).UTC()
			r.Start, r.Renewed, r.Expires = r.Start.Round(0), r.Renewed.Round(0), r.Expires.Round(0)
			tab.Store(r)
			require.NoError(t, tab.commit(r))

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			began := make(chan struct{})
			go func() {
				close(began)
				done <- tab.Run(ctx, 5*time.Millisecond, nil)
			}()
			<-began
			tab.Dirty(oldIP(1))
			require.Eventually(t, func() bool { return tab.Counts(now).Dirty == 0 }, 10*time.Second, time.Millisecond, "it runs")
			off.Store(int64(by))
			moved := func() bool {
				got, _ := tab.Get(oldIP(4))
				off := got.Expires.Round(0).Sub(now.Round(0).Add(50*time.Minute + by))
				return max(off, -off) < time.Second && tab.Counts(now).Dirty == 0
			}
			assert.Eventually(t, moved, 2*time.Second, time.Millisecond, "what memory has is on disk, by the clock as it is")
			require.NoError(t, store.Close()) // killed: nothing is written any more
			cancel()
			<-done

			again := openTable(t, openStore(t, path))
			near := func(want, got time.Duration, last int) {
				assert.InDelta(t, want, got, float64(20*time.Second), "%d", last)
			}
			for _, last := range []int{1, 3, 4} {
				got, _ := again.Get(oldIP(last))
				near(50*time.Minute, got.Expires.Sub(wall()), last)
				near(-10*time.Minute, got.Renewed.Sub(wall()), last)
				near(-10*time.Minute, got.Start.Sub(wall()), last)
			}
			got, _ := again.Get(oldIP(1))
			assert.True(t, got.Live(wall()))
			got, _ = again.Get(oldIP(4))
			assert.True(t, got.Kept(wall()))
			got, _ = again.Get(oldIP(2))
			assert.False(t, got.Live(wall()))
			near(-time.Hour, got.Expires.Sub(wall()), 2)
			got, _ = again.Get(oldIP(5))
			assert.Equal(t, r.Expires.UnixMilli(), got.Expires.UnixMilli())
		})
	}
}

// Records are looked at when the clock was set, twice, and never else: small steps count together.
func TestClockCountsAsSet(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	c := setting{start: at.UnixMilli()}
	ran := time.Duration(0)
	for n, step := range []struct {
		by  time.Duration
		due bool
	}{{0, false}, {3 * time.Second, false}, {0, false}, {3 * time.Second, true}, {0, true}, {0, false}, {-3 * time.Second, false}, {-time.Hour, true}, {time.Hour, true}, {0, true}, {0, false}} {
		ran += time.Second
		at = at.Add(time.Second + step.by)
		assert.Equal(t, step.due, c.due(at, ran), "look %d", n)
	}
}
