package lease

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// BenchmarkStart1M is a start with a million leases of guests, as the log has them after a while and right after they came.
func BenchmarkStart1M(b *testing.B) {
	for _, compacted := range []bool{true, false} {
		name := "changes"
		if compacted {
			name = "snapshot"
		}
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			store, err := OpenStore(b.Context(), dir, slog.New(slog.DiscardHandler))
			require.NoError(b, err)
			now := time.Now().Truncate(time.Second)
			const n, chunk = 1_000_000, 10_000
			for at := 0; at < n; at += chunk {
				require.NoError(b, store.Commit(func(batch *Batch) error {
					for i := at; i < at+chunk; i++ {
						m := provision.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
						batch.Leases = append(batch.Leases, Record{
							IP: addrOf(100<<24 | 64<<16 + uint32(i)), MAC: m, ClientID: append(Hex{1}, m[:]...), Option82: Hex{1, 4, 0, 0, 7, 7, 2, 6, 1, 2, 3, 4, 5, 6},
							GIAddr: addrOf(10 << 24), Ifindex: 3, Interface: "access", Pool: "guests", State: StateBound, Start: now, Renewed: now, Expires: now.Add(time.Hour),
						})
					}
					return nil
				}))
			}
			if compacted {
				require.Eventually(b, func() bool { return store.Health().Log.Snapshot > n*100 }, time.Minute, 10*time.Millisecond)
			}
			require.NoError(b, store.Close())
			before := processorTime(b)
			for b.Loop() {
				store, err := OpenStore(b.Context(), dir, slog.New(slog.DiscardHandler))
				require.NoError(b, err)
				tab, err := Open(store)
				require.NoError(b, err)
				require.Equal(b, n, tab.Len())
				require.NoError(b, store.Close())
			}
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op") // on a machine that others use, too
		})
	}
}

// processorTime is what this process has used of processors.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	require.NoError(b, unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts))
	return time.Duration(ts.Nano())
}
