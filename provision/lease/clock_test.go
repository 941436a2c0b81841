package lease

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// The clock is set between two clients of an address: which record and which report is the newer one goes by the order in which they were
// committed, over restarts as well. A kept report whose time is less than a minute ahead is the exception, for two are made at a time.
func TestClockSetBetweenTwoClients(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	for name, before := range map[string]time.Duration{
		"back by years": 3 * 365 * 24 * time.Hour, "back by a day": 24 * time.Hour, "back by two minutes": 2 * time.Minute, "ahead by a second": -time.Second, "ahead by years": -3 * 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first, second := testRecord(ip7), testRecord(ip7)
			first.MAC, second.MAC = mac1, mac2
			for r, at := range map[*Record]time.Time{&first: now.Add(before), &second: now} {
				r.Start, r.Renewed, r.Expires = at, at, at.Add(time.Hour)
			}
			for _, r := range []Record{first, second} {
				store := openStore(t, filepath.Join(dir, "x"))
				tab := openTable(t, store)
				for range 2 { // each renews
					tab.Store(r)
					require.NoError(t, store.Commit(func(b *Batch) error {
						b.Reports = append(b.Reports, provision.MACReport{IP: ip7, MAC: r.MAC, Subscriber: 1, At: r.Renewed})
						_, err := tab.add(b, &r)
						return err
					}))
				}
				require.NoError(t, store.Close())

				store = openStore(t, filepath.Join(dir, "x"))
				got, ok := openTable(t, store).Get(ip7)
				require.True(t, ok)
				require.Equal(t, r.MAC, got.MAC)
				require.True(t, got.Expires.Equal(r.Expires))
				require.True(t, got.Live(r.Renewed))
				var reports []provision.MACReport
				require.NoError(t, store.Reports(func(x provision.MACReport, err error) {
					require.NoError(t, err)
					reports = append(reports, x)
				}))
				require.Len(t, reports, 1)
				require.Equal(t, r.MAC, reports[0].MAC)
				require.NoError(t, store.Close())
			}
		})
	}
}

// Records are forgotten by a clock that has been steady since for as long as their leases are: neither one that is years ahead for some hours nor
// one that is set right by years costs a lease that is live.
func TestClockThatIsSetForgetsNothingLive(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		at0       time.Duration // how far the clock is off at the start
		off       time.Duration // and from until on, for as long as it takes
		from, til time.Duration
	}{
		"right":                       {},
		"ahead for hours":             {off: 10 * year, from: 30 * time.Minute, til: 5 * time.Hour},
		"ahead for most of a lease":   {off: 10 * year, from: 30 * time.Minute, til: 20 * time.Hour},
		"ahead at the start":          {at0: 10 * year, til: 5 * time.Hour},
		"from 1970 to what it is":     {at0: -30 * year, til: 2 * time.Minute},
		"from what it is to the past": {off: -30 * year, from: 30 * time.Minute, til: 5 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var off atomic.Int64
				off.Store(int64(c.at0))
				tab := New()
				tab.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
				put := func(last byte, renewed time.Time, lease time.Duration) {
					r := testRecord(ip7)
					r.IP, r.Start, r.Renewed, r.Expires = oldIP(int(last)), renewed.Round(0), renewed.Round(0), renewed.Round(0).Add(lease) // as read from disk
					tab.Store(r)
				}
				put(1, began.Add(-time.Hour), day)     // live, and its client is off
				put(2, began.Add(-2*Grace), day)       // over for long
				put(3, began.Add(-2*Grace), 4*day)     // the same, of a long lease
				put(4, began.Add(-2*Grace), time.Hour) // the same, of a short one
				there := func(last int) bool { _, ok := tab.Get(oldIP(last)); return ok }
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- tab.Run(ctx, time.Minute, nil) }()
				defer func() { cancel(); <-done }()
				pass(c.from + time.Second)
				off.Add(int64(c.off))
				pass(c.til)
				assert.True(t, there(1))
				off.Store(0) // right
				pass(time.Hour)
				assert.True(t, there(1))
				assert.True(t, there(2))
				require.True(t, there(3))
				pass(pruneCalm + time.Hour)
				assert.False(t, there(4))
				assert.True(t, there(2))
				pass(day)
				assert.False(t, there(2))
				assert.True(t, there(3))
				pass(4 * day)
				assert.False(t, there(3))
				assert.True(t, there(1), "a day over is not long")
			})
		})
	}
}

// A host that starts in 1970: what its clients were told before is kept, and theirs when they renew.
func TestClockThatIsSetAheadRightly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = 50 * 365 * 24 * time.Hour
		var off atomic.Int64
		tab := New()
		wall := func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
		tab.wall = wall
		for last := range 2 {
			r := testRecord(oldIP(last))
			r.Start, r.Renewed, r.Expires = wall(), wall(), wall().Add(24*time.Hour)
			tab.Store(r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tab.Run(ctx, time.Minute, nil) }()
		defer func() { cancel(); <-done }()
		pass(2 * time.Minute)
		off.Store(int64(ahead))
		for hours := range 23 {
			pass(time.Hour)
			require.Equal(t, 2, tab.Len(), "after %d hours", hours+1)
		}
		require.True(t, tab.Renew(oldIP(0), mac1, wall(), wall().Add(24*time.Hour)))
		pass(3 * time.Hour)
		_, there := tab.Get(oldIP(0))
		assert.True(t, there)
		_, there = tab.Get(oldIP(1))
		assert.False(t, there, "its client had all the time of its lease")
	})
}
