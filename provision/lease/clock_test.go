package lease

import (
	"path/filepath"
	"testing"
	"time"

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
