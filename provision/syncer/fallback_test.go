package syncer

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fallenBack is a Fetcher that does without its preferred source.
type fallenBack struct {
	Fetcher
	is *Fallback
}

func (f fallenBack) Fallback() *Fallback { return f.is }

func TestStatusTellsOfTheFallback(t *testing.T) {
	began := time.Unix(1_800_000_000, 0)
	is := &Fallback{Reason: "forbidden", Since: began, Fetches: 3}
	s := New(Options{PollInterval: time.Minute, RefreshInterval: 10 * time.Minute}, fallenBack{is: is}, nil, nil, slog.New(slog.DiscardHandler))
	require.Equal(t, is, s.Status().Fallback, "no fetch yet, so no time")
	s.lastFull = began
	want := *is
	want.RetryAt = s.Status().NextFull.Add(20 * time.Minute)
	require.Equal(t, &want, s.Status().Fallback)
	require.Zero(t, is.RetryAt)

	s = New(Options{}, fallenBack{}, nil, nil, slog.New(slog.DiscardHandler))
	require.Nil(t, s.Status().Fallback)
}
