package wal

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A directory that cannot be synced, or in which nothing can be renamed, is not filled with files by those who try again: it has what it had.
func TestTriesLeaveNoFiles(t *testing.T) {
	for _, fails := range []string{"syncdir", "rename"} {
		t.Run(fails, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newMemDisk()
				l, err := Open(Options{Content: 1, Log: quiet(), disk: disk})
				require.NoError(t, err)
				defer func() { require.NoError(t, l.Close()) }()
				l.stop() // no snapshot takes a file away
				putAll(t, l, "before", 1, 2)
				synctest.Wait()
				l.rotate(t) // the spare is larger than the first one: a smaller one is tried as well
				putAll(t, l, "before", 2)
				synctest.Wait()
				had, err := disk.List()
				require.NoError(t, err)
				l.writing.Lock() // the next commit needs a file, and there is none beforehand
				l.drop()
				l.seq = l.takeSpare().name.seq
				l.writing.Unlock()
				disk.setFail(func(op string) error {
					if op == fails {
						return errDisk
					}
					return nil
				})
				for range 50 {
					tryAll(t, l, "lost", 1)
					time.Sleep(retryWait) // fake time
				}
				synctest.Wait() // the log tries by itself at this moment
				have, err := disk.List()
				require.NoError(t, err)
				require.Equal(t, had, have)
				disk.setFail(nil)
				time.Sleep(retryWait) // fake time
				putAll(t, l, "after", 3)
				got, d := has(t, disk.crash(nil))
				require.Equal(t, map[string]string{"1/00000001": "before", "1/00000002": "before", "1/00000003": "after", "9/00000000": "first of a file"}, got)
				require.Zero(t, d)
			})
		})
	}
}

// A file made beforehand that is not on disk with its name leaves none with its number: of two, where the commits of one end would count for the
// other. Nor does it where power is lost, or the process killed, at any step from there on.
func TestSpareThatFailedLeavesNoFile(t *testing.T) {
	for salts := range 8 {
		synctest.Test(t, func(t *testing.T) {
			disk := newMemDisk()
			l := openOn(t, disk)
			l.stop()                 // no snapshot takes a file away
			var at, early []*memDisk // what a kill at each step leaves: after the first commits, and in them
			failed, committed := false, false
			n := 0
			disk.setFail(func(op string) error {
				switch {
				case failed && committed:
					at = append(at, disk.kill())
				case failed:
					early = append(early, disk.kill())
				}
				if op == "syncdir" {
					if n++; n == 2 { // of the spare, behind that of the first file
						failed = true
						return errDisk
					}
				}
				return nil
			})
			putAll(t, l, "one", 1, 2)
			synctest.Wait()
			require.True(t, failed)
			committed = true
			l.rotate(t)
			putAll(t, l, "two", 2, 3)
			synctest.Wait()
			l.rotate(t)
			putAll(t, l, "three", 4)
			synctest.Wait()
			require.NotEmpty(t, at)
			disk.setFail(nil)
			require.NoError(t, l.Close())
			got, d := has(t, disk)
			require.Equal(t, "one two two three", fmt.Sprint(got["1/00000001"], " ", got["1/00000002"], " ", got["1/00000003"], " ", got["1/00000004"]))
			require.Zero(t, d, "%d", salts)
			for i, killed := range early {
				_, d := has(t, killed)
				require.Zero(t, d.Count, "step %d", i)
			}
			for i, killed := range at {
				for seed := range uint64(3) {
					got, d := has(t, killed.crash(rand.New(rand.NewPCG(seed, uint64(i)))))
					require.Equal(t, "one", got["1/00000001"])
					require.Zero(t, d.Count, "step %d", i)
				}
				got, d := has(t, killed)
				require.Equal(t, "one", got["1/00000001"])
				require.Zero(t, d.Count, "step %d", i)
			}
		})
	}
}
