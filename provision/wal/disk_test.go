package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDamagedFilesThatAreKeptAreBounded(t *testing.T) {
	d := dir(t.TempDir())
	for i := range maxAside {
		file := fmt.Sprintf("%08d", i)
		require.NoError(t, os.WriteFile(d.path(file), []byte(file), 0o600))
		kept, err := d.Aside(file)
		require.NoError(t, err)
		text, err := os.ReadFile(kept)
		require.NoError(t, err)
		require.Equal(t, file, string(text))
	}
	require.NoError(t, os.WriteFile(d.path("one more"), nil, 0o600))
	_, err := d.Aside("one more")
	require.ErrorIs(t, err, errManyAside)
	_, err = d.Aside("00000000")
	require.NoError(t, err, "it is there")
	require.NoError(t, os.Remove(d.path("00000000")))
	require.NoError(t, os.WriteFile(d.path("00000000"), []byte("another one"), 0o600))
	kept, err := d.Aside("00000000")
	require.NoError(t, err)
	text, err := os.ReadFile(kept)
	require.NoError(t, err)
	require.Equal(t, "00000000", string(text), "nothing there is ever overwritten")
	require.NoError(t, os.Remove(kept))
	_, err = d.Aside("one more")
	require.NoError(t, err, "there is room again")
}

// Where the file system knows no hard links.
func TestCopyOfADamagedFile(t *testing.T) {
	d := dir(t.TempDir())
	content := make([]byte, 2*blockSize+100)
	for i := range content {
		content[i] = byte(i * 7)
	}
	require.NoError(t, os.WriteFile(d.path("file"), content, 0o600))
	require.NoError(t, os.WriteFile(d.path("copy"+tmpSuffix), make([]byte, 4*blockSize), 0o600), "of a copy that was not finished")
	require.NoError(t, d.copy("file", d.path("copy")))
	copied, err := os.ReadFile(d.path("copy"))
	require.NoError(t, err)
	assert.Equal(t, content, copied)
	left, err := filepath.Glob(d.path("*" + tmpSuffix))
	require.NoError(t, err)
	assert.Empty(t, left)
	require.Error(t, d.copy("file", d.path("no/such/directory")))
}

// A snapshot that cannot be written is said by the status until one can.
func TestStatusSaysThatNoSnapshotCanBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk()
		l, err := Open(Options{Content: 1, Log: quiet(), disk: disk})
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		put(t, l, 1, key(1), "value")
		l.rotate(t)
		l.files.change(l.files.sealed()[0].name, func(f *fileInfo) { f.bad = true }) // a snapshot is due
		full := func(op string) error {
			if op == "rename" {
				return syscall.ENOSPC
			}
			return nil
		}
		disk.setFail(full)
		began := time.Now()
		l.files.wake()
		synctest.Wait()
		assert.Contains(t, l.Status().SnapshotError, syscall.ENOSPC.Error())
		assert.Equal(t, began, l.Status().SnapshotFails)
		time.Sleep(compactRetry)
		synctest.Wait()
		assert.Equal(t, began, l.Status().SnapshotFails, "it fails since then")
		disk.setFail(nil)
		time.Sleep(compactRetry)
		synctest.Wait()
		assert.Empty(t, l.Status().SnapshotError)
		assert.Equal(t, 1, l.Status().Snapshots)
	})
}
