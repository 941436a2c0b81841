package wal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

// Whenever the power goes, whatever the disk did with what was not synced: what was
// committed is there, and of each key nothing that is older. So it is with what a start has read after a kill. A disk that fails in between
// loses nothing that was committed either.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(long.Times(t, 40, 2000)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := newMemDisk()
		committed, tried := map[int]int{}, map[int]int{} // by key: which value is on disk, and the newest that may be
		for life := range 6 {
			disk.rng = rand.New(rand.NewPCG(seed, uint64(life)))
			l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 2048})
			require.NoError(t, err)
			what := fmt.Sprintf("seed %d, life %d", seed, life)
			check(t, l, committed, tried, what)
			var killed *memDisk
			isKilled := func() bool {
				disk.mu.Lock()
				defer disk.mu.Unlock()
				return killed != nil
			}
			for range rng.IntN(60) {
				disk.mu.Lock()
				disk.fail = nil
				if rng.IntN(50) == 0 { // the process is killed
					op := []string{"write", "sync", "rename", "syncdir", "remove"}[rng.IntN(5)]
					disk.fail = failing(op, 0, func() { killed = disk.kill() })
				} else if rng.IntN(10) == 0 {
					at := []string{"write", "sync", "create", "rename", "syncdir", "remove"}[rng.IntN(6)]
					disk.fail = func(op string) error {
						if op == at {
							return errDisk
						}
						return nil
					}
				}
				disk.mu.Unlock()
				if rng.IntN(8) == 0 {
					_ = l.compact(context.Background())
				}
				changes := map[int]int{}
				for range 1 + rng.IntN(4) {
					k := rng.IntN(12)
					changes[k] = tried[k] + 1
					tried[k]++
				}
				if isKilled() {
					break
				}
				err := l.Commit(func(f *Frames) error {
					for k, v := range changes {
						r := Record{Kind: 1, Key: key(k), Value: fmt.Appendf(nil, "%d %0*d", v, rng.IntN(300), 0)}
						if v%7 == 0 {
							r = Record{Kind: 1, Key: key(k), Delete: true}
						}
						f.Put(r)
					}
					return nil
				})
				if isKilled() {
					break // nobody was told
				}
				if err == nil {
					for k, v := range changes {
						committed[k] = v
					}
				}
			}
			if isKilled() {
				_ = l.Close()
				disk = killed
				continue
			}
			if rng.IntN(3) == 0 {
				disk.mu.Lock()
				disk.fail = nil
				disk.mu.Unlock()
				require.NoError(t, l.Close())
				continue
			}
			next := disk.crash(rng)
			_ = l.Close() // the process that was killed
			disk = next
		}
	}
}

// check compares what a log has with what was committed, or tried after it.
func check(t *testing.T, l *Log, committed, tried map[int]int, what string) {
	t.Helper()
	got := map[int]int{}
	require.NoError(t, l.Load(t.Context(), func(r Record) error {
		var v int
		_, err := fmt.Sscanf(string(r.Value), "%d ", &v)
		require.NoError(t, err)
		got[int(r.Key[3])] = v
		return nil
	}), what)
	for k := range tried {
		v, there := got[k]
		if !there { // it was deleted by one of the changes that may count, or never came to be
			require.True(t, committed[k] == 0 || deleted(committed[k], tried[k]), "%s: key %d is lost: %d was committed", what, k, committed[k])
			continue
		}
		require.GreaterOrEqual(t, v, committed[k], "%s: key %d has an older value", what, k)
		require.LessOrEqual(t, v, tried[k], what)
		committed[k] = v // from now on
	}
	for k := range tried {
		if _, there := got[k]; !there {
			for v := tried[k]; v >= committed[k] && v > 0; v-- {
				if v%7 == 0 {
					committed[k] = v
					break
				}
			}
		}
	}
}

func deleted(from, to int) bool {
	for v := from; v <= to; v++ {
		if v%7 == 0 {
			return true
		}
	}
	return false
}
