package wal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

// storedLog is a log of a snapshot and some files of changes, with what it says.
func storedLog(t testing.TB) (files map[string][]byte, want map[string]string) {
	t.Helper()
	disk := newMemDisk()
	l := openOn(t, disk)
	for i := range 60 {
		value := fmt.Sprintf("value %d %s", i, strings.Repeat("x", i))
		if i%7 == 0 {
			putAll(t, l, value, i%40, 40+i%3, 43)
		} else {
			put(t, l, 1, key(i%40), value)
		}
		switch i {
		case 30:
			l.rotate(t)
			require.NoError(t, l.compact(context.Background()))
		case 45:
			l.rotate(t)
		}
	}
	require.NoError(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: 1, Key: key(3), Delete: true})
		return nil
	}))
	putAll(t, l, "the last ones", 5, 44, 45)
	want = load(t, l)
	require.Len(t, want, 46)
	require.NoError(t, l.Close())
	files = map[string][]byte{}
	for name, f := range disk.names {
		files[name] = f.data
	}
	return files, want
}

// putAll commits a value under several keys at once.
func putAll(t testing.TB, l *Log, value string, keys ...int) {
	t.Helper()
	require.NoError(t, l.Commit(func(f *Frames) error {
		for _, k := range keys {
			f.Put(Record{Kind: 1, Key: key(k), Value: []byte(value)})
		}
		return nil
	}))
}

// rotate has the next commit begin another file.
func (l *Log) rotate(t testing.TB) {
	t.Helper()
	require.NoError(t, l.Commit(func(*Frames) error { l.active.at = l.active.capacity; return nil }))
	put(t, l, 9, key(0), "first of a file")
}

// used is how long a file is without the zeros at its end, and a little more.
func used(b []byte) int {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return min(n+2*frameLen, len(b))
}

// Whatever is wrong with a byte, the log opens, has all other records as they were, and says what it lost; what it lost is kept aside.
func TestDamageAtEveryByte(t *testing.T) {
	files, want := storedLog(t)
	require.Len(t, files, 3)
	step := 97 / long.Times(t, 1, 97) // every byte, or one of 97
	for file, content := range files {
		for at := 0; at < used(content); at += step {
			for name, damage := range map[string]func([]byte) []byte{
				"flipped": func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b },
				"cut":     func(b []byte) []byte { return b[:at] },
				"zeroed":  func(b []byte) []byte { clear(b[at:min(at+512, len(b))]); return b },
				"ones": func(b []byte) []byte {
					for i := at; i < min(at+64, len(b)); i++ {
						b[i] = 0xff
					}
					return b
				},
			} {
				bad := damage(slices.Clone(content))
				tryDamaged(t, fmt.Sprintf("%s of %s at %d", name, file, at), files, file, bad, want, name)
			}
		}
	}
}

// tryDamaged opens a log in which one file has other content.
func tryDamaged(t *testing.T, what string, files map[string][]byte, file string, bad []byte, want map[string]string, kind string) {
	t.Helper()
	disk := newMemDisk()
	for name, b := range files {
		if name == file {
			b = bad
		}
		disk.names[name] = &memFile{disk: disk, data: slices.Clone(b)}
	}
	l := openOn(t, disk)
	got := load(t, l)
	other := 0 // keys that do not have what they should
	for k, v := range want {
		if got[k] != v {
			other++
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			other++ // what was deleted
		}
	}
	d := l.Damages()
	// Zeros over the last records of all are not told from room that was not used yet.
	if endsEarlier := kind == "zeroed" && used(bad) < used(files[file]); other > 0 && !endsEarlier {
		require.NotZero(t, d.Count+d.Tails, "%s: %d keys are lost without a word", what, other)
		require.NotEmpty(t, d.Some)
	}
	if kind == "flipped" {
		require.LessOrEqual(t, other, 1, "%s: a record costs itself alone", what)
	}
	if d.Count+d.Tails > 0 {
		require.Equal(t, map[string][]byte{file: bad}, disk.aside, what)
	}
	// It is written on, and brought together without what is damaged.
	put(t, l, 5, key(1), "new")
	require.NoError(t, l.compact(context.Background()), what)
	require.NoError(t, l.Close())
	l = openOn(t, disk)
	got["5/00000001"] = "new"
	require.Equal(t, got, load(t, l), what)
	require.Zero(t, l.Damages().Count, "%s: it is told once", what)
	require.NoError(t, l.Close())
}

func openOn(t testing.TB, disk *memDisk) *Log {
	t.Helper()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 4096})
	require.NoError(t, err)
	return l
}

// A file with a number that is far off, as of another log, costs no time for each number between, and leaves numbers
// for the files to come.
func TestNumbersThatAreFarOff(t *testing.T) {
	for _, seq := range []uint64{1 << 61, 1<<64 - 1} {
		path := t.TempDir()
		l := open(t, path)
		put(t, l, 1, key(1), "x")
		require.NoError(t, l.Close())
		require.NoError(t, os.WriteFile(filepath.Join(path, name{seq: seq, salt: 1 << 60}.String()), make([]byte, 4096), 0o600))
		for want := range 2 {
			l = open(t, path)
			require.Len(t, load(t, l), 1+want)
			if seq <= maxSeq && want == 0 { // then there may be a snapshot of all that could be read
				require.Positive(t, l.Damages().Count)
			}
			put(t, l, 1, key(2), "y")
			require.NoError(t, l.Close())
		}
	}
}

// A file that is as long as the disk is large, and empty, costs no memory for what could be in it.
func TestLengthIsNoProof(t *testing.T) {
	path := t.TempDir()
	l := open(t, path)
	put(t, l, 1, key(1), "x")
	require.NoError(t, l.Close())
	require.NoError(t, os.WriteFile(filepath.Join(path, name{seq: 1 << 20, salt: 1 << 60}.String()), nil, 0o600))
	require.NoError(t, os.Truncate(filepath.Join(path, name{seq: 1 << 20, salt: 1 << 60}.String()), 1<<40))
	l = open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cancel() // it would take as long as to read the file
	require.ErrorIs(t, l.Load(ctx, func(Record) error { return nil }), context.Canceled)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30))
}

// Blocks that the disk does not give cost what is in them. A file of which it gives nothing, or that cannot be opened, is an error, and
// neither counts as damage nor is replaced by a snapshot without what it has.
func TestDiskThatDoesNotRead(t *testing.T) {
	disk := newMemDisk()
	l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 1 << 18})
	require.NoError(t, err)
	for i := range 1000 {
		put(t, l, 1, key(i), strings.Repeat("x", 100))
	}
	require.NoError(t, l.Close())
	disk.broken = func(at int64) error {
		if b := at / blockSize; b == 3 || b == 7 {
			return errDisk
		}
		return nil
	}
	l = openOn(t, disk)
	n := len(load(t, l))
	require.Less(t, n, 1000)
	require.Greater(t, n, 1000-2*(blockSize/120+2))
	require.GreaterOrEqual(t, l.Damages().Count, 2)
	require.Contains(t, l.Damages().Some[0].What, "the disk does not give it: the disk is full")
	require.NoError(t, l.Close())

	disk.broken = func(int64) error { return errDisk }
	l = openOn(t, disk)
	require.ErrorIs(t, l.Load(t.Context(), func(Record) error { return nil }), errDisk)
	require.Zero(t, l.Damages().Count)
	require.Error(t, l.compact(t.Context()))
	require.NoError(t, l.Close())

	disk.broken = nil
	disk.fail = func(op string) error {
		if op == "open" {
			return errDisk
		}
		return nil
	}
	l = openOn(t, disk)
	require.ErrorIs(t, l.Load(t.Context(), func(Record) error { return nil }), errDisk)
	require.Zero(t, l.Damages().Count)
	require.Error(t, l.compact(t.Context()))
	require.NoError(t, l.Close())
	disk.fail = nil
	l = openOn(t, disk)
	require.Len(t, load(t, l), 1000)
	require.NoError(t, l.Close())
}
