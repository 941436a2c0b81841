package wal

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// written returns a disk with n MiB of changes of which no snapshot was made, in files of that capacity, so many at a time.
func written(t *testing.T, n, at int, capacity int64) *memDisk {
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: capacity})
	require.NoError(t, err)
	l.stop()
	value := bytes.Repeat([]byte{7}, 1<<20-100)
	for i := 0; i < n; i += at {
		require.NoError(t, l.Commit(func(f *Frames) error {
			for k := i; k < min(i+at, n); k++ {
				f.Put(Record{Kind: 1, Key: key(k), Value: value})
			}
			return nil
		}))
	}
	require.NoError(t, l.Close())
	return disk
}

func TestSnapshotOfALargeLogWaitsForTheStart(t *testing.T) {
	for _, c := range []struct {
		name     string
		mib      int
		capacity int64
		damage   bool
		wait     time.Duration // at least, and by far not twice as long
	}{
		{name: "large", mib: 15, wait: startTime},
		{name: "small", mib: 5},
		{name: "too many files", mib: 40, capacity: 1 << 20},
		{name: "damaged", mib: 15, damage: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := 3 // few syncs: this disk copies the whole file at each
				if c.capacity > 0 {
					at = 1
				}
				disk := written(t, c.mib, at, c.capacity)
				if c.damage {
					for _, f := range disk.names {
						f.data[len(f.data)/2] ^= 1
						break
					}
				}
				began := time.Now()
				l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, large: 14 << 20})
				require.NoError(t, err)
				defer func() { require.NoError(t, l.Close()) }()
				load(t, l)
				synctest.Wait()
				for l.Status().Snapshots == 0 && time.Since(began) < time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				require.Equal(t, 1, l.Status().Snapshots)
				require.GreaterOrEqual(t, time.Since(began), c.wait)
				require.Less(t, time.Since(began), c.wait+time.Second)
			})
		})
	}
}
