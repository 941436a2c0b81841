package lease

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/wal"
)

// The directory is taken away before anything was committed since the start: that is noticed, everything is written again,
// and a commit works soon after, though nobody made the directory anew.
func TestGoneBeforeTheFirstCommit(t *testing.T) {
	dir := t.TempDir()
	commit := func(s Store, last byte) error {
		return s.Commit(func(b *Batch) error {
			b.Leases = append(b.Leases, Record{IP: netip.AddrFrom4([4]byte{192, 0, 2, last}), MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, last}, State: StateBound})
			return nil
		})
	}
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, commit(s, 1))
	require.NoError(t, s.Close())
	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	tab, err := Open(s)
	require.NoError(t, err)
	require.Equal(t, 1, tab.Len())
	// It may be about to make a file there.
	require.Eventually(t, func() bool { return os.RemoveAll(filepath.Join(dir, "leases")) == nil }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return commit(s, 2) == nil }, 8*time.Second, 50*time.Millisecond)
	assert.Eventually(t, func() bool { return tab.Counts(time.Now()).Dirty > 0 }, 5*time.Second, 50*time.Millisecond, "what the directory had is to be written again")
}

// What could not be read is counted once, also when the directory was taken away and put back, or an empty one takes its place.
func TestUnreadIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "leases")
	s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	l := s.(*logStore).wal.Load()
	require.NoError(t, l.Commit(func(f *wal.Frames) error {
		f.Put(wal.Record{Kind: kindLease, Key: []byte{192, 0, 2, 1}, Value: []byte{encodingVersion}})
		f.Put(wal.Record{Kind: kindReport, Key: []byte{192, 0, 2, 2}, Value: []byte{wholeVersion}})
		return nil
	}))
	require.NoError(t, l.Commit(func(f *wal.Frames) error {
		f.Put(wal.Record{Kind: kindReport, Key: []byte{192, 0, 2, 3}, Value: []byte("a sentence that is damaged")})
		return nil
	}))
	require.NoError(t, s.Close())
	files, err := filepath.Glob(filepath.Join(log, "*.log"))
	require.NoError(t, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name, bytes.ReplaceAll(b, []byte("sentence"), []byte("sentinel")), 0o600))
	}

	s, err = OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	_, err = Open(s)
	require.NoError(t, err)
	require.NoError(t, s.Reports(func(provision.MACReport, error) {}))
	first := s.Health()
	require.Equal(t, 3, first.Unread, "%q", first.What)
	commits := func() bool { return s.Commit(func(*Batch) error { return nil }) == nil && !s.Health().Failing() }
	for _, back := range []bool{true, false} {
		away := filepath.Join(dir, fmt.Sprint("away", back))
		was := s.(*logStore).wal.Load()
		require.NoError(t, os.Rename(log, away))
		require.Eventually(t, func() bool { return s.Health().Failing() || s.(*logStore).wal.Load() != was }, 10*time.Second, time.Millisecond, "it is noticed, and perhaps mended already")
		if back {
			_ = os.RemoveAll(log) // where it was made anew already
			require.NoError(t, os.Rename(away, log))
		}
		require.Eventually(t, commits, 10*time.Second, 10*time.Millisecond)
		assert.Equal(t, first.Unread, s.Health().Unread, "put back %v: %q", back, s.Health().What)
	}
}

// A directory of the log that is gone at a start is told: the file in place of state.db says that there was one.
func TestLogThatIsGoneAtAStartIsTold(t *testing.T) {
	dir := t.TempDir()
	for life, gone := range []bool{false, false, true} {
		if gone {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, logName)))
		}
		s, err := OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.NoError(t, s.Commit(func(b *Batch) error {
			b.Leases = append(b.Leases, Record{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(life)}), MAC: provision.MAC{2}, State: StateBound})
			return nil
		}))
		h := s.Health()
		if !gone {
			require.Zero(t, h.Unread, "life %d", life)
		} else {
			require.Equal(t, 1, h.Unread)
			require.Contains(t, h.What[0], "all leases and MAC reports of before are lost")
		}
		require.NoError(t, s.Close())
	}
}
