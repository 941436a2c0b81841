package lease

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/statedb"
)

// badFrom is a file that the disk does not give from some place on.
type badFrom struct {
	io.ReadCloser
	left int64
}

func (f *badFrom) Read(b []byte) (int, error) {
	if f.left == 0 {
		return 0, syscall.EIO
	}
	n, err := f.ReadCloser.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	return n, err
}

// A place of state.db that the disk does not give, where there was nothing but the mark, keeps no lease of the log away.
func TestBadPlaceInTheMarkOfOldState(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	rec := testRecord(oldIP(1))
	require.NoError(t, s.Commit(func(b *Batch) error {
		b.Leases = append(b.Leases, rec)
		return nil
	}))
	require.NoError(t, s.Close())
	path := filepath.Join(dir, oldName)
	require.Equal(t, string(successorFile()), read(t, path))
	was := openOld
	defer func() { openOld = was }()
	n := 0
	openOld = func(path string) (io.ReadCloser, error) {
		f, err := was(path)
		if n++; err != nil || n > 1 {
			return f, err
		}
		return &badFrom{f, 4096}, nil
	}
	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, 1, openTable(t, s).Len())
	require.False(t, s.Failing(), s.Health().Error)
	require.Equal(t, string(successorFile()), read(t, path))
	require.Equal(t, string(successorFile()), read(t, path+".damaged"))
}

// A bad place in what a version before the log wrote leaves the rest to those who get over it.
func TestBadPlaceInTheBeginningOfOldState(t *testing.T) {
	was := openOld
	defer func() { openOld = was }()
	openOld = func(path string) (io.ReadCloser, error) {
		f, err := was(path)
		if err != nil {
			return nil, err
		}
		return &badFrom{f, 4096}, nil
	}
	_, n, reports, _ := startOn(t, oldDatabase(t, 600), "bad")
	require.Equal(t, []int{600, 50}, []int{n, reports})
}

// A disk that gives nothing of state.db is not to be had: what is there is moved nowhere, and tried again.
func TestOldStateOfWhichNothingCanBeRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, oldName)
	require.NoError(t, os.Symlink("/proc/self/mem", path)) // where nothing is: EIO
	f, err := statedb.Open(path)
	require.NoError(t, err)
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, f.Close())
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	require.True(t, s.Failing())
	require.Contains(t, s.Health().Error, syscall.EIO.Error())
	kept, err := filepath.Glob(path + ".*")
	require.NoError(t, err)
	require.Empty(t, kept)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, oldDatabase(t, 20), 0o600))
	require.Eventually(t, func() bool { return !s.Failing() }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, 20, openTable(t, s).Len())
}
