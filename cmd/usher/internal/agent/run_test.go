package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision/lease"
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
	a, err := New(cfg, Options{Path: path, DryRun: true, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	hanging, err := a.db.Begin(true) // the one writer that bbolt lets in
	require.NoError(t, err)
	defer func() { require.NoError(t, hanging.Rollback()) }()
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
