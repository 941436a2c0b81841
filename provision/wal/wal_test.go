package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t testing.TB, path string) *Log {
	t.Helper()
	l, err := Open(Options{Dir: path, Content: 1, Log: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// load returns what a log has, by kind and key.
func load(t testing.TB, l *Log) map[string]string {
	t.Helper()
	got := map[string]string{}
	require.NoError(t, l.Load(t.Context(), func(r Record) error {
		key := fmt.Sprintf("%d/%x", r.Kind, r.Key)
		if _, twice := got[key]; twice { // NotContains compares it with every key
			require.Fail(t, "each key comes once", key)
		}
		got[key] = string(r.Value)
		return nil
	}))
	return got
}

func key(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

func put(t testing.TB, l *Log, kind uint8, k []byte, value string) {
	t.Helper()
	require.NoError(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: kind, Key: k, Value: []byte(value)})
		return nil
	}))
}

func TestNewestOfEachKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	put(t, l, 1, key(1), "a")
	put(t, l, 1, key(2), "b")
	put(t, l, 2, key(1), "of another kind")
	put(t, l, 1, key(1), "c")
	put(t, l, 3, []byte("a long key, of 21 byte"), "x")
	require.NoError(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: 1, Key: key(2), Delete: true})
		f.Put(Record{Kind: 1, Key: key(3), Value: nil})
		return nil
	}))
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Commit(func(*Frames) error { return nil }), ErrClosed)
	want := map[string]string{
		"1/00000001": "c", "2/00000001": "of another kind", "1/00000003": "",
		fmt.Sprintf("3/%x", "a long key, of 21 byte"): "x",
	}
	l = open(t, path)
	assert.Equal(t, want, load(t, l))
	assert.Equal(t, Damages{}, l.Damages())
	put(t, l, 1, key(2), "again")
	require.NoError(t, l.compact(context.Background()))
	require.NoError(t, l.Close())
	want["1/00000002"] = "again"
	assert.Equal(t, want, load(t, open(t, path)))
}

func TestOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	open(t, path)
	_, err := Open(Options{Dir: path, Log: quiet()})
	require.ErrorIs(t, err, ErrInUse)
}

func TestErrorOfFill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	require.ErrorIs(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: 1, Key: key(1), Value: []byte("x")})
		return os.ErrInvalid
	}), os.ErrInvalid)
	require.ErrorContains(t, l.Commit(func(f *Frames) error {
		f.Put(Record{Kind: 1, Value: []byte("x")})
		return nil
	}), "a key of 0")
	put(t, l, 1, key(2), "y")
	require.NoError(t, l.Close())
	assert.Equal(t, map[string]string{"1/00000002": "y"}, load(t, open(t, path)))
}

// Many writers, several files, snapshots beside them: nothing that was committed is lost, and the newest counts.
func TestConcurrentCommitsAndSnapshots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	const writers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				v := fmt.Sprintf("%d-%0200d", i, w)
				if err := l.Commit(func(f *Frames) error {
					f.Put(Record{Kind: 1, Key: key(w<<16 | i%100), Value: []byte(v)})
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		require.NoError(t, l.compact(context.Background()))
	}
	wg.Wait()
	require.NoError(t, l.compact(context.Background()))
	require.NoError(t, l.Close())
	got := load(t, open(t, path))
	require.Len(t, got, writers*100)
	for w := range writers {
		for i := range 100 {
			assert.Equal(t, fmt.Sprintf("%d-%0200d", each-100+i, w), got[fmt.Sprintf("1/%x", key(w<<16|i))])
		}
	}
}

// A file is taken away that is not written any more: a snapshot could never be made again, and the next start would miss what was there.
// The log says so as soon as it notices, and who has it open writes everything again.
func TestFileTakenAwayIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	put(t, l, 1, key(1), "a")
	l.rotate(t)
	first := l.files.list()[0].name
	require.NoError(t, os.Remove(filepath.Join(path, first.String())))
	require.ErrorIs(t, l.compact(t.Context()), os.ErrNotExist)
	require.Eventually(t, func() bool { return errors.Is(l.Health().Err, ErrGone) }, 5*time.Second, 10*time.Millisecond)
}

// What is not the log's own stays, whatever it is called.
func TestFilesOfOthersStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path)
	put(t, l, 1, key(1), "a")
	require.NoError(t, l.Close())
	ours := name{seq: 7, salt: 1 << 63, snapshot: true}.String() + tmpSuffix
	for _, n := range []string{"backup.tmp", ours} {
		require.NoError(t, os.WriteFile(filepath.Join(path, n), []byte("x"), 0o600))
	}
	open(t, path)
	assert.FileExists(t, filepath.Join(path, "backup.tmp"))
	assert.NoFileExists(t, filepath.Join(path, ours))
}
