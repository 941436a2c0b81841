package userside

import (
	"context"
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
					require.NoError(t, b.take(t.Context()))
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
			require.NoError(t, b.take(t.Context()))
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
		require.NoError(t, b.take(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.take(ctx), errBudget)
		assert.Zero(t, time.Since(began), "waiting would be in vain")
		gone, stop := context.WithCancel(t.Context())
		stop()
		require.ErrorIs(t, b.take(gone), context.Canceled)
		assert.Equal(t, 1, b.look(time.Now()).LastMinute, "who gave up asked nothing")
	})
}
