package wal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// asideHangs is a disk that hangs while it puts a file aside.
type asideHangs struct {
	*memDisk
	begun, goOn chan struct{}
}

func (d asideHangs) Aside(name string) (string, error) {
	close(d.begun)
	<-d.goOn
	return d.memDisk.Aside(name)
}

// Who asks what is damaged does not wait for a disk that hangs while the file is put aside.
func TestDamagesDoNotWaitForTheDisk(t *testing.T) {
	disk := newMemDisk()
	l := openOn(t, disk)
	put(t, l, 1, key(1), "x")
	n := l.active.name
	require.NoError(t, l.Close())
	disk.names[n.String()].data[headerLen+frameLen] ^= 1
	hangs := asideHangs{disk, make(chan struct{}), make(chan struct{})}
	l, err := Open(Options{Content: 1, Log: quiet(), disk: hangs, capacity: 4096})
	require.NoError(t, err)
	loaded := make(chan error, 1)
	go func() { loaded <- l.Load(t.Context(), func(Record) error { return nil }) }()
	<-hangs.begun
	require.Equal(t, 1, l.Damages().Count+l.Damages().Tails)
	close(hangs.goOn)
	require.NoError(t, <-loaded)
	require.Len(t, l.Damages().Aside, 1)
	require.NoError(t, l.Close())
}

// All that is kept aside has a bound.
func TestAsideIsBoundedInBytes(t *testing.T) {
	path := t.TempDir()
	d := dir(path)
	for i, want := range []bool{true, true, false} {
		name := string(rune('a' + i))
		require.NoError(t, os.WriteFile(filepath.Join(path, name), nil, 0o600))
		require.NoError(t, os.Truncate(filepath.Join(path, name), maxAsideBytes/2))
		_, err := d.Aside(name)
		if want {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, errManyAside)
		}
	}
}
