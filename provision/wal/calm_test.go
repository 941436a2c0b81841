package wal

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// written returns a disk with n changes of that size of which no snapshot was made, in files of that capacity, so many at a time.
func written(t *testing.T, n, size, at int, capacity int64) *memDisk {
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: capacity})
	require.NoError(t, err)
	l.stop()
	value := bytes.Repeat([]byte{7}, size-100)
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
		n, size  int
		capacity int64
		damage   bool
		wait     time.Duration // at least, and by far not twice as long
	}{
		{name: "large", n: 12, size: 1 << 20, wait: startTime},
		{name: "small", n: 5, size: 1 << 20},
		{name: "too many files", n: 40, size: 1 << 16, capacity: 1 << 16},
		{name: "damaged", n: 12, size: 1 << 20, damage: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at := 3 // few syncs: this disk copies the whole file at each
				if c.capacity > 0 {
					at = 1
				}
				disk := written(t, c.n, c.size, at, c.capacity)
				if c.damage {
					for _, f := range disk.names {
						f.data[len(f.data)/2] ^= 1
						break
					}
				}
				began := time.Now()
				l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, large: 11 << 20})
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
