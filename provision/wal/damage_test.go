package wal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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

// rotate begins another file.
func (l *Log) rotate(t testing.TB) {
	t.Helper()
	l.writing.Lock()
	require.NoError(t, l.begin(0))
	l.writing.Unlock()
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
	newest := slices.Max(slices.Collect(maps.Keys(files))) == file
	if endsEarlier := kind == "zeroed" && used(bad) < used(files[file]) && newest; other > 0 && !endsEarlier {
		require.NotZero(t, d.Count+d.Tails, "%s: %d keys are lost without a word", what, other)
		require.NotEmpty(t, d.Some)
	}
	switch least := int64(frameLen + len(key(0)) + len("value 0 ")); kind {
	case "flipped":
		require.LessOrEqual(t, other, 1, "%s: a record costs itself alone", what)
	case "ones":
		require.LessOrEqual(t, int64(other), 64/least+2, "%s: they cost those that they are in", what)
	case "zeroed":
		require.LessOrEqual(t, int64(other), 512/least+2, "%s: they cost those that they are in", what)
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
	for _, seq := range []uint64{1 << 61, 1<<62 - 1, 1 << 62, 1<<64 - 1} {
		path := t.TempDir()
		l := open(t, path)
		put(t, l, 1, key(1), "x")
		require.NoError(t, l.Close())
		require.NoError(t, os.WriteFile(filepath.Join(path, name{seq: seq, salt: 1 << 60}.String()), make([]byte, 4096), 0o600))
		for want := range 2 {
			l = open(t, path)
			require.Len(t, load(t, l), 1+want)
			if seq < maxSeq && want == 0 { // then there may be a snapshot of all that could be read
				require.Positive(t, l.Damages().Count)
			}
			put(t, l, 1, key(2), "y")
			require.NoError(t, l.Close())
		}
	}
}

// A file that is as long as the disk is large, and has nothing in it, costs neither memory for what could be in it nor the time to read it.
func TestLengthIsNoProof(t *testing.T) {
	for what, grow := range map[string]func(t *testing.T, path string) string{
		"empty": func(t *testing.T, path string) string {
			file := filepath.Join(path, name{seq: 1 << 20, salt: 1 << 60}.String())
			require.NoError(t, os.WriteFile(file, nil, 0o600))
			return file
		},
		"of changes": func(t *testing.T, path string) string { return theFile(t, path, logSuffix) },
		"snapshot": func(t *testing.T, path string) string {
			l := open(t, path)
			require.NoError(t, l.compact(t.Context()))
			require.NoError(t, l.Close())
			return theFile(t, path, snapshotSuffix)
		},
	} {
		t.Run(what, func(t *testing.T) {
			path := t.TempDir()
			l := open(t, path)
			put(t, l, 1, key(1), "x")
			require.NoError(t, l.Close())
			require.NoError(t, os.Truncate(grow(t, path), 1<<40))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			l = open(t, path)
			require.Equal(t, map[string]string{"1/00000001": "x"}, load(t, l))
			require.Less(t, time.Since(begin), 10*time.Second)
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30))
			require.NoError(t, l.Close())
		})
	}
}

// Who no longer wants to read a log does not wait for its end.
func TestLoadEndsWithItsContext(t *testing.T) {
	path := t.TempDir()
	l := open(t, path)
	put(t, l, 1, key(1), "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, l.Load(ctx, func(Record) error { return nil }), context.Canceled)
	require.Zero(t, l.Damages())
	require.NoError(t, l.Close())
	// Nor for that of what is damaged.
	require.NoError(t, os.WriteFile(theFile(t, path, logSuffix), bytes.Repeat([]byte{7}, 1<<20), 0o600))
	l = open(t, path)
	require.ErrorIs(t, l.Load(ctx, func(Record) error { return nil }), context.Canceled)
	require.NoError(t, l.Close())
}

// theFile returns the one file of a log with such a name.
func theFile(t *testing.T, path, suffix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(path, "*"+suffix))
	require.NoError(t, err)
	require.Len(t, found, 1)
	return found[0]
}

// A file in which everything looks like the beginning of a large record costs no checksum of each.
func TestMarkersWithoutRecords(t *testing.T) {
	path := t.TempDir()
	n := name{seq: 1, salt: 0x1122334455667788}
	s := sealOf(n.salt)
	const size = 4 << 20
	content := appendHeader(nil, n, 1, size, 0, testTime)
	content = s.append(content, Record{Kind: 1, Key: key(1), Value: []byte("x")}, 0)
	one := append(s.marker[:], 1, 2, 3, 4, 0, 0x0f, 0xff, 0xff, 1, 0, 0, 0)
	for len(content) < size {
		content = append(content, one...)
	}
	require.NoError(t, os.WriteFile(filepath.Join(path, n.String()), content[:size], 0o600))
	l := open(t, path)
	begin := time.Now()
	require.Equal(t, map[string]string{"1/00000001": "x"}, load(t, l))
	require.Less(t, time.Since(begin), 10*time.Second)
	require.Equal(t, 1, l.Damages().Count)
	require.NoError(t, l.Close())
}

// What is wrong in the last commit costs what it covers. That nothing comes after it makes it no commit that a kill has cut.
func TestDamageAtTheEndCostsWhatItCovers(t *testing.T) {
	values := make([]int, 1000)
	for i := range values {
		values[i] = i
	}
	rubbish := func(b []byte) {
		for i := range b {
			b[i] ^= 0x5a
		}
	}
	for _, sealed := range []bool{false, true} {
		for _, c := range []struct {
			what   string
			length int64
			damage func([]byte)
			most   int // records, by 173 bytes each
		}{{"rubbish", 60, rubbish, 1}, {"zeros", 60, zero, 1}, {"a sector of zeros", 512, zero, 4}, {"more zeros", 5000, zero, 30}} {
			t.Run(fmt.Sprintf("%s, sealed %v", c.what, sealed), func(t *testing.T) {
				disk := newMemDisk()
				l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 1 << 20})
				require.NoError(t, err)
				putAll(t, l, strings.Repeat("v", 153), values...)
				if l.active.at%pageSize == 0 || (l.active.at-c.length)%pageSize == 0 {
					put(t, l, 1, key(1), "another place")
				}
				n, at := l.active.name, l.active.at
				if sealed {
					l.rotate(t)
				}
				require.NoError(t, l.Close())
				c.damage(disk.names[n.String()].data[at-c.length : at])
				l = openOn(t, disk)
				got := load(t, l)
				delete(got, "9/00000000")
				require.GreaterOrEqual(t, len(got), 1000-c.most)
				require.Less(t, len(got), 1000+1)
				require.Equal(t, 1, l.Damages().Count+l.Damages().Tails, "%+v", l.Damages().Some)
				require.NotEmpty(t, disk.aside)
				require.NoError(t, l.Close())
			})
		}
	}
}

func zero(b []byte) { clear(b) }

// Zeros over the last commits of a file are no room that was never used: the file after it says where it ended, and while the agent runs, memory.
func TestZerosAtTheEndOfAFileAreTold(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("while it runs %v", running), func(t *testing.T) {
			disk := newMemDisk()
			l := openOn(t, disk)
			l.stop()
			put(t, l, 1, key(1), "one")
			at := l.active.at
			put(t, l, 1, key(2), "two")
			put(t, l, 1, key(3), "three")
			n, end := l.active.name, l.active.at
			l.rotate(t)
			disk.mu.Lock()
			clear(disk.names[n.String()].data[at:end])
			disk.mu.Unlock()
			if running {
				require.NoError(t, l.compact(t.Context()))
			} else {
				require.NoError(t, l.Close())
				l = openOn(t, disk)
				require.Equal(t, map[string]string{"1/00000001": "one", "9/00000000": "first of a file"}, load(t, l))
			}
			d := l.Damages()
			require.Equal(t, 1, d.Count, "%+v", d.Some)
			require.Equal(t, Damage{File: n.String(), From: at, To: end, What: "there are zeros in place of its last records"}, d.Some[0])
			require.NoError(t, l.Close())
		})
	}
}

// A file that is passed, since a commit has no room in it, has no end that the one after it would know.
func TestFileThatWasPassedIsNotDamaged(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	put(t, l, 1, key(1), strings.Repeat("x", 1000))
	spareMade(t, l)
	put(t, l, 1, key(2), strings.Repeat("y", 5000))
	want := load(t, l)
	require.Len(t, l.files.list(), 3)
	require.NoError(t, l.Close())
	got, d := has(t, disk)
	require.Equal(t, want, got)
	require.Zero(t, d)
}

// The number of a file goes into each checksum whole: a frame of another one does not hold, though it begins as those of this one do.
func TestChecksumIsOfTheFile(t *testing.T) {
	ours, other := sealOf(0x1122334455667788), sealOf(0x1122334455667789)
	require.Equal(t, ours.marker, other.marker)
	frame := other.append(nil, Record{Kind: 1, Key: key(1), Value: []byte("x")}, 0)
	require.Equal(t, len(frame), ours.length(frame))
	require.False(t, ours.holds(frame))
	ours.reseal(frame)
	require.True(t, ours.holds(frame))
}

// A name is damaged like anything else: the header knows it, too.
func TestDamagedNames(t *testing.T) {
	for what, wrong := range map[string]func(name) name{
		"number": func(n name) name { n.seq |= 1 << 40; return n },
		"salt":   func(n name) name { n.salt ^= 0x10; return n },
	} {
		t.Run(what, func(t *testing.T) {
			disk := newMemDisk()
			for life := range 3 {
				l := openOn(t, disk)
				putAll(t, l, fmt.Sprintf("life %d", life), 1, 2, 3)
				require.NoError(t, l.Close())
			}
			first := slices.Min(slices.Collect(maps.Keys(disk.names)))
			n, _ := parseName(first)
			require.NoError(t, disk.Rename(first, wrong(n).String()))
			l := openOn(t, disk)
			require.Equal(t, map[string]string{"1/00000001": "life 2", "1/00000002": "life 2", "1/00000003": "life 2"}, load(t, l))
			require.Equal(t, 1, l.Damages().Count, "%+v", l.Damages().Some)
			require.Contains(t, disk.names, first)
			require.NoError(t, l.Close())
		})
	}
}

// So is one that is none of ours any more, with a bit of it wrong, whichever of a file: the newest one too, and a snapshot.
func TestNamesThatAreNoneAnyMore(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	l.stop() // the snapshot is made here
	putAll(t, l, "old", 1, 2, 3)
	l.rotate(t)
	require.NoError(t, l.compact(t.Context()))
	putAll(t, l, "older", 2, 3)
	l.rotate(t)
	putAll(t, l, "newest", 3)
	want := load(t, l)
	require.NoError(t, l.Close())
	require.Len(t, disk.names, 3)
	tried := 0
	for right := range maps.Clone(disk.names) {
		for i := range 8 * len(right) {
			b := []byte(right)
			b[i/8] ^= 1 << (i % 8)
			wrong := string(b)
			if _, ours := parseName(wrong); ours || strings.ContainsAny(wrong, "/\x00") {
				continue
			}
			tried++
			bad := disk.kill()
			require.NoError(t, bad.Rename(right, wrong))
			require.NoError(t, bad.SyncDir())
			l := openOn(t, bad)
			l.stop() // the names stay as they are
			require.Equal(t, want, load(t, l), wrong)
			require.Equal(t, 1, l.Damages().Count, "%+v", l.Damages().Some)
			require.Equal(t, right, l.Damages().Some[0].File)
			require.Contains(t, l.Damages().Some[0].What, fmt.Sprintf("%q", wrong))
			require.Contains(t, bad.names, right)
			require.NotContains(t, bad.names, wrong)
			got, d := has(t, bad.crash(nil))
			require.Equal(t, want, got)
			require.Zero(t, d)
			require.NoError(t, l.Close())
		}
	}
	require.Greater(t, tried, 300)
}

// A file whose name cannot be set right is lost for nobody: it is tried again.
func TestNameThatCannotBeSetRight(t *testing.T) {
	for _, op := range []string{"rename", "syncdir"} {
		disk := newMemDisk()
		l := openOn(t, disk)
		put(t, l, 1, key(1), "x")
		right := l.active.name.String()
		require.NoError(t, l.Close())
		require.NoError(t, disk.Rename(right, right[:len(right)-1]+"f"))
		require.NoError(t, disk.SyncDir())
		disk.setFail(failing(op, 0, nil))
		_, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 4096})
		require.ErrorIs(t, err, errDisk)
		for _, disk := range []*memDisk{disk.crash(nil), disk} { // with the one name and with the other
			got, _ := has(t, disk)
			require.Equal(t, map[string]string{"1/00000001": "x"}, got)
		}
	}
}

// What merely has a header of ours, as a copy that somebody made, is left where it is and takes no place: also where it has a name like a damaged
// one, as long as the file itself, or a snapshot that it is part of, is there.
func TestCopiesStayAndTakeNoPlace(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	l.stop() // the snapshot is made here
	put(t, l, 1, key(1), "old")
	replaced := l.active.name.String()
	disk.mu.Lock() // the spare is made beside
	f := disk.names[replaced]
	disk.mu.Unlock()
	l.rotate(t)
	put(t, l, 1, key(1), "new")
	require.NoError(t, l.compact(t.Context()))
	kept := l.active.name.String()
	want := load(t, l)
	require.NoError(t, l.Close())
	copies := []string{replaced[:len(replaced)-1] + "G", kept[:len(kept)-1] + "G", kept + ".bak", "copy of " + kept, "README"}
	for i, n := range copies {
		disk.names[n] = f
		if i > 0 {
			disk.names[n] = disk.names[kept]
		}
	}
	got, d := has(t, disk)
	require.Equal(t, want, got)
	require.Zero(t, d)
	delete(disk.names, kept)
	delete(disk.names, copies[1]) // it is the one that would be taken for it
	l = openOn(t, disk)
	require.NoError(t, l.Close())
	require.NotContains(t, disk.names, kept)
	for i, n := range copies {
		if i != 1 {
			require.Contains(t, disk.names, n)
		}
	}
}

// Files that are missing, but for the newest, are known by the numbers of the others.
func TestMissingFilesAreTold(t *testing.T) {
	disk := newMemDisk()
	for life := range 4 { // where one ends says nothing of any but the one after it
		l := openOn(t, disk)
		put(t, l, 1, key(1), strings.Repeat("x", []int{10, 1000, 100, 3000}[life]))
		l.rotate(t)
		require.NoError(t, l.Close())
	}
	names := slices.Sorted(maps.Keys(disk.names))
	for i, want := range map[int]string{0: "the snapshot of all files before it is missing", 1: "it is missing", 2: "it is missing"} {
		without := newMemDisk()
		maps.Copy(without.names, disk.names)
		delete(without.names, names[i])
		l := openOn(t, without)
		load(t, l)
		require.Equal(t, 1, l.Damages().Count)
		require.Equal(t, want, l.Damages().Some[0].What)
		require.NoError(t, l.Close())
	}
}

// What could not be put aside is tried again before a snapshot takes its place, and told meanwhile.
func TestEvidenceIsKeptAtTheSecondTry(t *testing.T) {
	path := t.TempDir()
	l := open(t, path)
	put(t, l, 1, key(1), "x")
	put(t, l, 1, key(2), "y")
	require.NoError(t, l.Close())
	file := theFile(t, path, logSuffix)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	b[headerLen+frameLen] ^= 1
	require.NoError(t, os.WriteFile(file, b, 0o600))
	inTheWay := filepath.Join(path, asideName)
	require.NoError(t, os.WriteFile(inTheWay, nil, 0o600))
	l = open(t, path)
	require.Len(t, load(t, l), 1)
	require.Len(t, l.Damages().Loose, 1)
	require.Contains(t, l.Damages().Loose[0], filepath.Base(file))
	require.Empty(t, l.Damages().Aside)
	require.NoError(t, os.Remove(inTheWay))
	require.NoError(t, l.compact(t.Context()))
	require.Empty(t, l.Damages().Loose)
	kept, err := os.ReadFile(filepath.Join(inTheWay, filepath.Base(file)))
	require.NoError(t, err)
	require.Equal(t, b, kept)
	require.NoError(t, l.Close())
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
	l.stop() // a snapshot would be made without what cannot be read now
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
