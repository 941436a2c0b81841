package wal

import (
	"math/rand/v2"
	"testing"
	"time"

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

// has returns what a disk has, and what of it could not be read.
func has(t *testing.T, disk *memDisk) (map[string]string, Damages) {
	t.Helper()
	l := openOn(t, disk)
	defer func() { require.NoError(t, l.Close()) }()
	return load(t, l), l.Damages()
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
