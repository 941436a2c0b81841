package wal

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkCommit is one record of 150 bytes, by so many who commit at the same time.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("at-once-%d", n), func(b *testing.B) {
			l := open(b, filepath.Join(b.TempDir(), "log"))
			value := make([]byte, 150)
			var next atomic.Int64
			b.SetParallelism(n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					k := key(int(next.Add(1)))
					if err := l.Commit(func(f *Frames) error {
						f.Put(Record{Kind: 1, Key: k, Value: value})
						return nil
					}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkLoad1M reads a million records, from the files of changes and from a snapshot.
func BenchmarkLoad1M(b *testing.B) {
	l := open(b, filepath.Join(b.TempDir(), "log"))
	value := make([]byte, 150)
	const records, chunk = 1_000_000, 5000
	for at := 0; at < records; at += chunk {
		require.NoError(b, l.Commit(func(f *Frames) error {
			for i := range chunk {
				f.Put(Record{Kind: 1, Key: key(at + i), Value: value})
			}
			return nil
		}))
	}
	read := func(b *testing.B) {
		for b.Loop() {
			n := 0
			require.NoError(b, l.Load(context.Background(), func(Record) error { n++; return nil }))
			require.GreaterOrEqual(b, n, records)
		}
	}
	b.Run("changes", read)
	require.NoError(b, l.Commit(func(*Frames) error { l.active.at = l.active.capacity; return nil }))
	put(b, l, 2, key(1), "")
	b.Run("compact", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, l.compact(context.Background()))
		}
	})
	b.Run("snapshot", read)
}
