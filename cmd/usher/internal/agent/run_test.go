package agent

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/statedir"
)

// idleConfig writes the configuration of an agent without ERP, DHCP and kernel.
func idleConfig(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "usher.yaml")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("test-key\n"), 0o600))
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `
state_dir: %[1]s
userside: {url: "http://127.0.0.1:1/api.php", key_file: %[1]s/key}
dhcp: {enabled: false}
acl: {dry_run: true}
control: {socket: %[1]s/usher.sock}
console: {listen: off}
`, dir), 0o600))
	return path
}

// A disk that hangs must not keep the agent from ending within its two seconds.
func TestStopWhileTheDiskHangs(t *testing.T) {
	path := idleConfig(t, t.TempDir())
	cfg, err := config.Load(path)
	require.NoError(t, err)
	a, err := New(t.Context(), cfg, Options{Path: path, DryRun: true, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	holds, end := make(chan struct{}), make(chan struct{})
	hanging := make(chan error, 1)
	go func() { // who writes lets nobody else write
		hanging <- a.store.Commit(func(*lease.Batch) error { close(holds); <-end; return io.ErrClosedPipe })
	}()
	<-holds
	defer func() { close(end); require.ErrorIs(t, <-hanging, io.ErrClosedPipe) }()
	a.leases.Store(lease.Record{IP: testIP, MAC: testMAC, State: lease.StateBound})
	a.leases.Dirty(testIP) // something is left to write

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, nil) }()
	cancel()
	select {
	case err := <-done:
		require.Error(t, err)
	case <-time.After(StopLimit + 3*time.Second):
		t.Fatal("the agent waits for the disk")
	}
}

// State of a newer usher ends the start: nothing is served, and no file or kernel
// is touched.
func TestNewerStateEndsTheStart(t *testing.T) {
	snapshot := "usher snapshot 99\nf\t2026-11-01T12:00:00Z\tdirect\n"
	snapshot += fmt.Sprintf("e\t0\t%08x\n", crc32.Checksum([]byte(snapshot), crc32.MakeTable(crc32.Castagnoli)))
	for name, write := range map[string]func(path string) error{
		"snapshot": func(path string) error { return os.WriteFile(path, []byte(snapshot), 0o600) },
		"answers": func(path string) error {
			return os.WriteFile(path, fmt.Appendf(nil, "usher erp answers 99 %08x\n{}", crc32.Checksum([]byte("{}"), crc32.MakeTable(crc32.Castagnoli))), 0o600)
		},
		"guard": func(path string) error {
			return os.WriteFile(path, fmt.Appendf(nil, "usher guard 99 %08x\n{}", crc32.Checksum([]byte("{}"), crc32.MakeTable(crc32.Castagnoli))), 0o600)
		},
		"garden.json": func(path string) error { return os.WriteFile(path, []byte(`{"version": 99}`), 0o600) },
		"state.db": func(path string) error {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucket([]byte("format"))
				if err != nil {
					return err
				}
				return b.Put([]byte("state"), fmt.Appendf(nil, "99 %08x", crc32.Checksum([]byte("99"), crc32.MakeTable(crc32.Castagnoli))))
			}), db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, path := idleConfig(t, dir), filepath.Join(dir, name)
			require.NoError(t, write(path))
			before, err := os.ReadFile(path)
			require.NoError(t, err)
			cfg, err := config.Load(file)
			require.NoError(t, err)
			_, err = New(t.Context(), cfg, Options{Path: file, Log: slog.New(slog.DiscardHandler)})
			require.ErrorAs(t, err, new(*statedir.NewerError))
			require.ErrorContains(t, err, path+" has ")
			require.ErrorContains(t, err, "a newer usher wrote it")
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, before, after)
			require.NoFileExists(t, path+".bad")
		})
	}
}
