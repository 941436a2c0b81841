package userside

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBudget(t *testing.T) {
	tests := map[string]struct {
		perMinute, requests int
		want                time.Duration // of all of them
	}{
		"no limit":                  {0, 10_000, 0},
		"a tenth goes at once":      {600, 60, 0},
		"then ten a second":         {600, 160, 10 * time.Second},
		"one a minute":              {1, 3, 2 * time.Minute},
		"never more than the limit": {60, 126, 2 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBudget(tt.perMinute)
				began := time.Now()
				for range tt.requests {
					require.NoError(t, b.take(t.Context(), LaneBulk))
				}
				assert.InDelta(t, tt.want.Seconds(), time.Since(began).Seconds(), 0.001)
				got := b.look(time.Now())
				assert.Equal(t, tt.perMinute, got.PerMinute)
				assert.InDelta(t, tt.want.Seconds(), got.Waited.Seconds(), 0.001)
				time.Sleep(time.Minute)
				assert.Zero(t, b.look(time.Now()).LastMinute)
			})
		})
	}
}

func TestBudgetCountsTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(0)
		for range 90 { // one a second
			require.NoError(t, b.take(t.Context(), LaneBulk))
			time.Sleep(time.Second)
		}
		assert.InDelta(t, 60, b.look(time.Now()).LastMinute, 1)
		time.Sleep(30 * time.Second)
		assert.InDelta(t, 30, b.look(time.Now()).LastMinute, 1)
		time.Sleep(time.Hour)
		assert.Zero(t, b.look(time.Now()).LastMinute)
	})
}

func TestBudgetEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1)
		require.NoError(t, b.take(t.Context(), LaneBulk))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.take(ctx, LaneBulk), errBudget)
		assert.Zero(t, time.Since(began), "waiting would be in vain")
		gone, stop := context.WithCancel(t.Context())
		stop()
		require.ErrorIs(t, b.take(gone, LaneBulk), context.Canceled)
		assert.Equal(t, 1, b.look(time.Now()).LastMinute, "who gave up asked nothing")
	})
}

// queued begins requests one after the other, and gives their names as they go.
func queued(t *testing.T, b *budget, names ...string) func() []string {
	t.Helper()
	lanes := map[string]Lane{"bulk": LaneBulk, "quick": LaneQuick, "urgent": LaneUrgent, "command": LaneCommand}
	var mu sync.Mutex
	var went []string
	for _, name := range names {
		lane, _, _ := strings.Cut(name, " ")
		go func() {
			err := b.take(t.Context(), lanes[lane])
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				went = append(went, name)
			}
		}()
		synctest.Wait()
	}
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return went
	}
}

func TestBudgetLetsCommandsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60) // one a second, six at once
		for range 6 {
			require.NoError(t, b.take(t.Context(), LaneBulk))
		}
		went := queued(t, b, "bulk 1", "bulk 2", "bulk 3", "quick", "urgent", "command")
		require.Empty(t, went())
		time.Sleep(1100 * time.Millisecond)
		require.Equal(t, []string{"command"}, went())
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{"command", "urgent", "bulk 1", "quick", "bulk 2", "bulk 3"}, went(), "each third is the one that waited for longest")
		require.Equal(t, 12, b.look(time.Now()).LastMinute)
		require.InDelta(t, 1+2+3+4+5+6, b.look(time.Now()).Waited.Seconds(), 0.001)
	})
}

func TestBudgetKnowsWhoIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(60)
		for range 6 {
			require.NoError(t, b.take(t.Context(), LaneBulk))
		}
		went := queued(t, b, "bulk 1", "bulk 2", "bulk 3")
		within := func(d time.Duration, lane Lane) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			return b.take(ctx, lane)
		}
		began := time.Now()
		require.ErrorIs(t, within(3*time.Second, LaneBulk), errBudget, "three are ahead")
		require.Zero(t, time.Since(began))
		require.NoError(t, within(1500*time.Millisecond, LaneCommand))
		require.Equal(t, time.Second, time.Since(began).Round(time.Millisecond))

		gone, stop := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- b.take(gone, LaneCommand) }()
		synctest.Wait()
		stop()
		require.ErrorIs(t, <-left, context.Canceled)
		time.Sleep(3100 * time.Millisecond)
		require.Equal(t, []string{"bulk 1", "bulk 2", "bulk 3"}, went(), "who gave up keeps nobody")
		require.Empty(t, b.queue)
		require.NoError(t, b.take(t.Context(), LaneBulk))
	})
}
