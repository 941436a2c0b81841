package lease

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
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
