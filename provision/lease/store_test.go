package lease

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenStore(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Run("a damaged file is put aside", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.db")
		require.NoError(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
		store, err := OpenStore(dir, log)
		require.NoError(t, err)
		require.NotNil(t, store)
		require.NoError(t, store.Close())
		require.FileExists(t, path+".bad")
	})
	for name, damage := range map[string]func([]byte) []byte{
		"rubbish behind the first pages": func(b []byte) []byte {
			for i := 4 * 4096; i < len(b); i++ { // the two meta pages stay good
				b[i] = 0xff
			}
			return b
		},
		"rubbish in one page": func(b []byte) []byte { copy(b[20*4096:], make([]byte, 4096)); return b },
		"cut short":           func(b []byte) []byte { return b[:len(b)/2] },
		"cut to nothing":      func(b []byte) []byte { return b[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			store, err := OpenStore(dir, log)
			require.NoError(t, err)
			tab, err := Open(store)
			require.NoError(t, err)
			var recs []Commit
			for i := range 2000 {
				ip := netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
				recs = append(recs, Commit{Lease: Record{IP: ip, MAC: mac1, State: StateBound, Expires: time.Now()}})
			}
			require.NoError(t, Journal{Table: tab}.Commit(recs))
			require.NoError(t, store.Close())
			path := filepath.Join(dir, "state.db")
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(b), 0o600))
			store, err = OpenStore(dir, log)
			require.NoError(t, err)
			require.NotNil(t, store)
			require.NoError(t, store.Close())
		})
	}
	t.Run("no place to write is no reason to stop", func(t *testing.T) {
		store, err := OpenStore(filepath.Join(t.TempDir(), "missing"), log)
		require.NoError(t, err)
		tab, err := Open(store)
		require.NoError(t, err)
		require.True(t, store.Volatile())
		require.NoError(t, tab.commit(Record{IP: ip7, MAC: mac1, State: StateBound, Expires: time.Now()}))
		require.NoError(t, store.Close())
	})
	t.Run("another agent has it", func(t *testing.T) {
		dir := t.TempDir()
		store, err := OpenStore(dir, log)
		require.NoError(t, err)
		defer store.Close()
		_, err = OpenStore(dir, log)
		require.ErrorIs(t, err, ErrInUse)
	})
}
