package wal

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bigLog is a log whose files have several blocks, on a disk of its own.
func bigLog(t testing.TB) (*memDisk, map[string]string) {
	t.Helper()
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 1 << 17})
	require.NoError(t, err)
	for i := range 400 {
		put(t, l, 1, key(i), strings.Repeat(fmt.Sprint(i%10), 200))
		if i == 200 {
			l.rotate(t)
			require.NoError(t, l.compact(t.Context()))
		}
	}
	want := load(t, l)
	require.NoError(t, l.Close())
	return disk, want
}

// A place that the disk does not give any more costs the records in it.
func TestBadPlacesCostWhatIsThere(t *testing.T) {
	disk, want := bigLog(t)
	for name, f := range disk.names {
		blocks := int64(len(f.data)+block-1) / block
		for i := range blocks {
			f.bad = map[int64]bool{i: true}
			again := newMemDisk()
			again.names[name] = f
			for other, o := range disk.names {
				again.names[other] = o
			}
			l := openOn(t, again)
			got := load(t, l)
			assert.GreaterOrEqual(t, len(got), len(want)-block/(frameLen+4+200)-2, "%s, block %d", name, i)
			for k, v := range got {
				assert.Equal(t, want[k], v)
			}
			d := l.Damages()
			require.NotEmpty(t, d.Some, "%s, block %d", name, i)
			if i > 0 {
				assert.Contains(t, fmt.Sprint(d.Some), "does not give")
			}
			require.NoError(t, l.Close())
		}
		f.bad = nil
	}
}

// A disk that gives nothing, or hardly anything, is no damage: it is an error, and what is there is lost for nobody.
func TestDiskThatGivesNothingIsAnError(t *testing.T) {
	disk, want := bigLog(t)
	for _, least := range []int64{0, 1} {
		for _, f := range disk.names {
			f.bad = map[int64]bool{}
			for i := least; i*block < int64(len(f.data)); i++ {
				f.bad[i] = true
			}
		}
		l := openOn(t, disk)
		require.ErrorIs(t, l.Load(t.Context(), func(Record) error { return nil }), syscall.EIO)
		require.ErrorIs(t, l.compact(t.Context()), syscall.EIO)
		require.NoError(t, l.Close())
	}
	for _, f := range disk.names {
		f.bad = nil
	}
	l := openOn(t, disk)
	assert.Equal(t, want, load(t, l))
}
