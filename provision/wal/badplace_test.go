package wal

import (
	"fmt"
	"maps"
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
	for i := range int64(32) {
		again := newMemDisk()
		again.names, again.broken = maps.Clone(disk.names), only(i, i)
		l := openOn(t, again)
		got := load(t, l)
		assert.GreaterOrEqual(t, len(got), len(want)-2*(blockSize/(frameLen+4+200)+2), "block %d", i)
		for k, v := range got {
			assert.Equal(t, want[k], v)
		}
		assert.Contains(t, fmt.Sprint(l.Damages().Some), "does not give", "block %d", i)
		require.NoError(t, l.Close())
	}
}

// only are the blocks that cannot be read.
func only(first, last int64) func(int64) error {
	return func(at int64) error {
		if i := at / blockSize; i >= first && i <= last {
			return syscall.EIO
		}
		return nil
	}
}

// A disk that gives nothing, or hardly anything, is no damage: it is an error, and what is there is lost for nobody.
func TestDiskThatGivesNothingIsAnError(t *testing.T) {
	disk, want := bigLog(t)
	for first := range int64(2) {
		disk.broken = only(first, 1<<20)
		l := openOn(t, disk)
		require.ErrorIs(t, l.Load(t.Context(), func(Record) error { return nil }), syscall.EIO)
		require.ErrorIs(t, l.compact(t.Context()), syscall.EIO)
		assert.Zero(t, l.Damages().Count)
		require.NoError(t, l.Close())
	}
	disk.broken = nil
	l := openOn(t, disk)
	assert.Equal(t, want, load(t, l))
}

// A place far behind in a file has nothing of what was read before it.
func TestBadPlaceInALongFile(t *testing.T) {
	const frame, keys, n = 2048, 100, 3 * window / 2048
	was := wholeFile
	wholeFile = 4 * window
	defer func() { wholeFile = was }()
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: wholeFile})
	require.NoError(t, err)
	value := func(i int) string { return strings.Repeat(fmt.Sprintf("%04d", i), (frame-frameLen-4)/4) }
	require.NoError(t, l.Commit(func(f *Frames) error { // one sync: this disk copies the whole file at each
		for i := range n {
			f.Put(Record{Kind: 1, Key: key(i % keys), Value: []byte(value(i))})
		}
		return nil
	}))
	require.NoError(t, l.Close())
	for _, block := range []int64{window / blockSize, 2*window/blockSize + 3, 3*window/blockSize - 2} {
		want := map[string]string{}
		for i := range n {
			if from := int64(headerLen + i*frame); from+frame <= block*blockSize || from >= (block+1)*blockSize {
				want[fmt.Sprintf("1/%x", key(i%keys))] = value(i)
			}
		}
		again := newMemDisk()
		again.names, again.broken = maps.Clone(disk.names), only(block, block)
		l := openOn(t, again)
		assert.Equal(t, want, load(t, l), "block %d", block)
		require.NoError(t, l.Close())
	}
}
