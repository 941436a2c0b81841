package wal

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failing returns a fail that has the nth of some operations fail, from 0 on, and only that; then is called first, if it is given.
func failing(op string, nth int, then func()) func(string) error {
	return func(x string) error {
		if x != op {
			return nil
		}
		if nth--; nth != -1 {
			return nil
		}
		if then != nil {
			then()
		}
		return errDisk
	}
}

// spareMade waits for the file to come, so that what is synced next is a commit.
func spareMade(t *testing.T, l *Log) {
	t.Helper()
	require.Eventually(t, func() bool { return len(l.spare) == 1 }, 10*time.Second, time.Millisecond)
}

// tryAll is putAll, which fails.
func tryAll(t *testing.T, l *Log, value string, keys ...int) {
	t.Helper()
	require.ErrorIs(t, l.Commit(func(f *Frames) error {
		for _, k := range keys {
			f.Put(Record{Kind: 1, Key: key(k), Value: []byte(value)})
		}
		return nil
	}), errDisk)
}

// has returns what a disk has, and what of it could not be read.
func has(t *testing.T, disk *memDisk) (map[string]string, Damages) {
	t.Helper()
	l := openOn(t, disk)
	defer func() { require.NoError(t, l.Close()) }()
	return load(t, l), l.Damages()
}

// A process is killed between a write and its sync: what the next one reads counts as kept from then on, so it is on disk by then, or a snapshot
// has it if the disk does not take it where it is.
func TestWhatAKillLeftIsOnDiskOnceItWasRead(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("its sync fails %v", fails), func(t *testing.T) {
			disk := newMemDisk()
			l := openOn(t, disk)
			putAll(t, l, "before", 1, 2)
			spareMade(t, l)
			var killed *memDisk
			disk.setFail(failing("sync", 0, func() { killed = disk.kill() }))
			tryAll(t, l, "on its way", 2, 3)
			require.NoError(t, l.Close())

			if fails {
				n, files := 0, len(killed.names)
				killed.setFail(func(op string) error { // nothing else is synced before they are read
					if op != "sync" {
						return nil
					}
					if n++; n > files {
						return nil
					}
					return errDisk
				})
			}
			l = openOn(t, killed)
			got := load(t, l)
			require.Equal(t, map[string]string{"1/00000001": "before", "1/00000002": "on its way", "1/00000003": "on its way"}, got)
			if fails {
				require.Eventually(t, func() bool { return l.Status().Snapshots == 1 }, 10*time.Second, time.Millisecond)
			}
			after := killed.crash(nil)
			require.NoError(t, l.Close())
			again, _ := has(t, after)
			require.Equal(t, got, again)
		})
	}
}

// What the kernel still shows of a commit whose sync has failed is on no disk: no start takes it for kept, or a loss of power would take it away
// again. Nor is a part of a commit shown of which the disk took no more.
func TestFailedCommitShowsNothing(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		t.Run(op, func(t *testing.T) {
			disk := newMemDisk()
			l := openOn(t, disk)
			putAll(t, l, "before", 1, 2)
			spareMade(t, l)
			disk.setFail(failing(op, 0, nil))
			tryAll(t, l, "lost", 2, 3, 4, 5, 6)
			disk.mu.Lock()
			killed := disk.kill()
			disk.mu.Unlock()
			require.NoError(t, l.Close())
			l = openOn(t, killed)
			got := load(t, l)
			require.Zero(t, l.Damages())
			after := killed.crash(nil)
			require.NoError(t, l.Close())
			again, _ := has(t, after)
			require.Equal(t, got, again)
			require.Equal(t, map[string]string{"1/00000001": "before", "1/00000002": "before"}, got)
		})
	}
}

// A place that the disk does not write any more holds the commits up for no longer than one of them: they go on in another file.
func TestBadPlaceToWriteIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk()
		l := openOn(t, disk)
		defer func() { require.NoError(t, l.Close()) }()
		putAll(t, l, "before", 1, 2)
		synctest.Wait()
		l.active.file.(*memFile).bad = errDisk
		tryAll(t, l, "lost", 2, 3)
		require.ErrorIs(t, l.Health().Err, errDisk)
		time.Sleep(retryWait) // fake time
		putAll(t, l, "after", 3)
		require.NoError(t, l.Health().Err)
		got, _ := has(t, disk.crash(nil))
		require.Equal(t, map[string]string{"1/00000001": "before", "1/00000002": "before", "1/00000003": "after"}, got)
	})
}

// A snapshot takes the place of files when all of it is on disk, with its name. Whatever of that fails, they stay.
func TestSnapshotThatFailedReplacesNothing(t *testing.T) {
	for _, c := range []struct {
		op  string
		nth int
	}{{"none", 0}, {"create", 0}, {"write", 0}, {"write", 1}, {"sync", 0}, {"sync", 1}, {"rename", 0}, {"syncdir", 0}} {
		t.Run(fmt.Sprintf("%s %d", c.op, c.nth), func(t *testing.T) {
			disk := newMemDisk()
			l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 2 * syncEvery})
			require.NoError(t, err)
			l.stop() // the snapshot is made here
			putAll(t, l, strings.Repeat("v", syncEvery*6/10), 1, 2)
			putAll(t, l, "small", 2, 3)
			putAll(t, l, strings.Repeat("w", syncEvery*6/10), 4)
			l.rotate(t)
			spareMade(t, l)
			want := load(t, l)
			disk.setFail(failing(c.op, c.nth, nil))
			if err := l.compact(t.Context()); c.op == "none" {
				require.NoError(t, err)
				require.Equal(t, 1, l.Status().Snapshots)
			} else {
				require.ErrorIs(t, err, errDisk)
				require.Zero(t, l.Status().Snapshots)
			}
			check := func(seeds uint64) {
				got, d := has(t, disk.crash(nil))
				assert.Equal(t, want, got)
				assert.Zero(t, d)
				for seed := range seeds {
					got, d = has(t, disk.crash(rand.New(rand.NewPCG(seed, 1))))
					require.Equal(t, want, got)
					require.Zero(t, d)
				}
			}
			check(4)
			disk.setFail(nil)
			require.NoError(t, l.compact(t.Context()))
			check(0)
			require.NoError(t, l.Close())
		})
	}
}

// A process is killed before the name of its snapshot is on disk: the next one does not remove the files that went into it before that either.
func TestNameOfASnapshotIsOnDiskBeforeFilesGo(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	l.stop() // the snapshot is made here
	putAll(t, l, "kept", 1, 2)
	old := l.active.name
	l.rotate(t)
	putAll(t, l, "newer", 2, 3)
	spareMade(t, l)
	want := load(t, l)
	var killed *memDisk
	disk.setFail(failing("syncdir", 0, func() { killed = disk.kill() }))
	require.ErrorIs(t, l.compact(t.Context()), errDisk)
	require.NoError(t, l.Close())
	for _, fails := range []bool{true, false} {
		if fails {
			killed.setFail(failing("syncdir", 0, nil))
		}
		l = openOn(t, killed)
		require.Equal(t, want, load(t, l))
		for seed := range uint64(20) {
			got, d := has(t, killed.crash(rand.New(rand.NewPCG(seed, 1))))
			require.Equal(t, want, got)
			require.Zero(t, d)
		}
		require.NoError(t, l.Close())
	}
	require.NotContains(t, killed.names, old.String())
}

// A file has its name when all of it is on disk: a loss of power then leaves none that looks as if it had been cut, as long as nobody writes.
func TestFilesAreWholeBeforeTheyHaveTheirName(t *testing.T) {
	for _, fails := range []string{"", "sync", "rename", "syncdir"} {
		t.Run(fails, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newMemDisk()
				l := openOn(t, disk)
				defer func() { require.NoError(t, l.Close()) }()
				if fails != "" {
					disk.setFail(failing(fails, 0, nil))
					tryAll(t, l, "lost", 1)
					time.Sleep(retryWait) // fake time
				}
				putAll(t, l, "kept", 2, 3)
				synctest.Wait()
				require.Len(t, l.spare, 1)
				for seed := range uint64(9) {
					rng := rand.New(rand.NewPCG(seed, 1))
					if seed == 0 {
						rng = nil
					}
					got, d := has(t, disk.crash(rng))
					require.Equal(t, map[string]string{"1/00000002": "kept", "1/00000003": "kept"}, got)
					require.Zero(t, d)
				}
			})
		})
	}
}

// Whoever fills commits is told whether they are on disk, before anybody else is.
func TestCommittedIsToldOfErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk()
		var told []error
		l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 4096, Committed: func(err error) { told = append(told, err) }})
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		for _, fails := range []string{"create", "write", "sync"} {
			putAll(t, l, "x", 1)
			if fails == "create" {
				putAll(t, l, strings.Repeat("x", 3000), 1) // the next one needs another file
			}
			synctest.Wait()
			told = nil
			disk.setFail(func(op string) error {
				if op == fails {
					return errDisk
				}
				return nil
			})
			if fails == "create" {
				tryAll(t, l, strings.Repeat("y", 5000), 1)
			} else {
				tryAll(t, l, "y", 1)
			}
			require.Len(t, told, 1)
			require.ErrorIs(t, told[0], errDisk, fails)
			disk.setFail(nil)
			time.Sleep(retryWait) // fake time
		}
	})
}

// A snapshot that is not whole takes the place of nothing: a process that was killed before it removed the files that went into it has left them.
func TestSnapshotThatIsNotWholeTakesNoPlace(t *testing.T) {
	const one = frameLen + 8
	for name, damage := range map[string]func([]byte) []byte{
		"whole":                  nil,
		"empty":                  func([]byte) []byte { return nil },
		"cut in its header":      func(b []byte) []byte { return b[:headerLen-1] },
		"cut behind it":          func(b []byte) []byte { return b[:headerLen] },
		"cut behind a record":    func(b []byte) []byte { return b[:len(b)-one] },
		"cut in its last one":    func(b []byte) []byte { return b[:len(b)-1] },
		"damaged in that":        func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"cut by several":         func(b []byte) []byte { return b[:len(b)-3*one] },
		"zeros in its last ones": func(b []byte) []byte { clear(b[len(b)-3*one:]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			disk := newMemDisk()
			l := openOn(t, disk)
			l.stop() // the snapshot is made here
			for i := range 12 {
				put(t, l, 1, key(i), fmt.Sprintf("%04d", i))
				if i%4 == 3 {
					l.rotate(t)
				}
			}
			require.NoError(t, l.Commit(func(f *Frames) error {
				f.Put(Record{Kind: 1, Key: key(2), Delete: true})
				return nil
			}))
			l.rotate(t)
			put(t, l, 1, key(3), "newer")
			want := load(t, l)
			before := maps.Clone(disk.names)
			old := l.files.sealed()
			require.NoError(t, l.compact(t.Context()))
			require.NoError(t, l.Close())
			require.Len(t, l.files.list(), 2)
			snapshot := l.files.list()[0].name.String()
			maps.Copy(disk.names, before)
			f := disk.names[snapshot]
			if damage != nil {
				f.data = damage(bytes.Clone(f.data))
			}
			got, d := has(t, disk)
			require.Equal(t, want, got)
			kept := true
			for _, o := range old {
				_, there := disk.names[o.name.String()]
				require.False(t, there && damage == nil)
				kept = kept && there
			}
			if damage != nil && !kept { // by then there was a snapshot of its own
				again, _ := has(t, disk)
				require.Equal(t, want, again)
			}
			if damage == nil {
				require.Zero(t, d)
			} else {
				require.Positive(t, d.Count+d.Tails)
				require.Contains(t, slices.Collect(maps.Keys(disk.aside)), snapshot)
			}
		})
	}
}

// A copy of a file, under another number, by whoever looked for something: it takes no place.
func TestCopyOfAFileReplacesNothing(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	putAll(t, l, "older", 1, 2)
	n := l.active.name
	older := bytes.Clone(disk.names[n.String()].data)
	putAll(t, l, "newer", 2, 3)
	l.rotate(t)
	want := load(t, l)
	last := l.active.name.seq
	require.NoError(t, l.Close())
	c := name{seq: last + 1, salt: n.salt}
	disk.names[c.String()] = &memFile{disk: disk, data: older}
	got, _ := has(t, disk)
	want["1/00000002"] = got["1/00000002"] // its record has the greater number now
	require.Equal(t, want, got)
	require.Contains(t, disk.names, n.String())
	require.NotEqual(t, older, disk.names[n.String()].data)
}

// notYetWritable is a disk on which nothing can be written at first, and so nobody takes it.
type notYetWritable struct {
	*memDisk
	not atomic.Bool
}

func (d *notYetWritable) Lock() (func() error, error) {
	if d.not.Load() {
		return nil, errNoLock
	}
	return d.memDisk.Lock()
}

// A disk that could not be written at the start has one owner, too, before anything is written: another process may have been quicker.
func TestDiskThatIsWritableLaterHasOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &notYetWritable{memDisk: newMemDisk()}
		disk.not.Store(true)
		l, err := Open(Options{Content: 1, Log: quiet(), disk: disk, capacity: 4096})
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		try := func() error {
			time.Sleep(retryWait) // fake time
			return l.Commit(func(f *Frames) error {
				f.Put(Record{Kind: 1, Key: key(1)})
				return nil
			})
		}
		require.ErrorIs(t, try(), errNoLock)
		unlock, err := disk.memDisk.Lock()
		require.NoError(t, err)
		disk.not.Store(false)
		require.ErrorIs(t, try(), ErrInUse)
		require.Empty(t, disk.names)
		require.NoError(t, unlock())
		require.NoError(t, try())
		_, err = disk.Lock()
		require.ErrorIs(t, err, ErrInUse)
	})
}

// A disk that has no room for a file of the size that would be due has it for a smaller one, and commits go on; where it has none they fail until
// there is some, and nobody has to come for the log to notice. No file is ever longer than it was made.
func TestDiskThatIsNearlyFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk()
		l, err := Open(Options{Content: 1, Log: quiet(), disk: disk})
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		l.stop()                       // no snapshot makes room
		disk.limit = 6 * firstCapacity // those of 1 and of 2 MiB and not that of 4, but smaller ones
		fill := func(n int) error {
			return l.Commit(func(f *Frames) error {
				f.Put(Record{Kind: 1, Key: key(n), Value: make([]byte, maxValue)})
				return nil
			})
		}
		for n := range 3 {
			synctest.Wait()
			require.NoError(t, fill(n), n)
		}
		require.ErrorIs(t, fill(9), errDisk)
		require.ErrorIs(t, l.Health().Err, errDisk)
		disk.mu.Lock()
		for _, f := range disk.names {
			h, err := readHeader(f.data)
			require.NoError(t, err)
			require.Len(t, f.data, int(h.capacity))
		}
		disk.limit = 0
		disk.mu.Unlock()
		time.Sleep(2 * tick) // fake time
		require.NoError(t, l.Health().Err)
		require.NoError(t, fill(3))
	})
}
