package wal

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// heldDisk is a memDisk on which the first call of a kind for a snapshot's file does not begin before it is let go.
type heldDisk struct {
	*memDisk
	op        string // the kind
	once      sync.Once
	held, let chan struct{} // closed when it is to begin, and when it may
}

func (d *heldDisk) hold(op, name string) {
	if op == d.op && strings.HasSuffix(name, snapshotSuffix+tmpSuffix) {
		d.once.Do(func() {
			close(d.held)
			<-d.let
		})
	}
}

func (d *heldDisk) Create(name string) (file, error) {
	d.hold("create", name)
	f, err := d.memDisk.Create(name)
	if err == nil && strings.HasSuffix(name, snapshotSuffix+tmpSuffix) {
		return &heldFile{f, d, name}, nil
	}
	return f, err
}

func (d *heldDisk) Rename(from, to string) error {
	d.hold("rename", from)
	return d.memDisk.Rename(from, to)
}

type heldFile struct {
	file
	disk *heldDisk
	name string
}

func (f *heldFile) WriteAt(b []byte, at int64) (int, error) {
	f.disk.hold("write", f.name)
	return f.file.WriteAt(b, at)
}

func (f *heldFile) Sync() error {
	f.disk.hold("sync", f.name)
	return f.file.Sync()
}

// No commit waits for a snapshot, however long the disk takes for any step of it; a change of the file that is written does not either, nor who asks how the
// log is. What was committed meanwhile is there afterwards.
func TestCommitsDoNotWaitForASnapshot(t *testing.T) {
	for _, op := range []string{"create", "write", "sync", "rename"} {
		t.Run(op, func(t *testing.T) {
			disk := &heldDisk{memDisk: newMemDisk(), op: op, held: make(chan struct{}), let: make(chan struct{})}
			l, err := Open(Options{Content: 1, Log: quiet(), disk: disk})
			require.NoError(t, err)
			put(t, l, 1, key(1), "before")
			put(t, l, 1, key(2), "before")
			l.rotate(t)
			made := make(chan error, 1)
			go func() { made <- l.compact(t.Context()) }()
			<-disk.held
			committed := make(chan struct{})
			go func() {
				defer close(committed)
				put(t, l, 1, key(1), "meanwhile")
				l.rotate(t)
				put(t, l, 1, key(3), "meanwhile")
				_, _ = l.Status(), l.Damages()
			}()
			select {
			case <-committed:
			case <-time.After(10 * time.Second):
				assert.Fail(t, "a commit waits for the snapshot")
			}
			assert.Empty(t, made, "the snapshot is held")
			close(disk.let)
			require.NoError(t, <-made)
			<-committed
			assert.Equal(t, 1, l.Status().Snapshots)
			require.NoError(t, l.Close())

			l, err = Open(Options{Content: 1, Log: quiet(), disk: disk.memDisk})
			require.NoError(t, err)
			got := load(t, l)
			delete(got, "9/00000000") // of rotate
			assert.Equal(t, map[string]string{"1/00000001": "meanwhile", "1/00000002": "before", "1/00000003": "meanwhile"}, got)
			assert.Equal(t, Damages{}, l.Damages())
			require.NoError(t, l.Close())
		})
	}
}
