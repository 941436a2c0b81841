package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/lease"
)

// A reload that comes while the agent starts must not end it. The start is held
// up by a state file that somebody else has open, behind the control socket.
func TestReloadDuringStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "usher.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `
state_dir: %[1]s
userside: {url: "http://127.0.0.1:1/api.php", key: test-key, allow_inline_key: true}
dhcp: {enabled: false}
acl: {dry_run: true}
control: {socket: %[1]s/usher.sock}
console: {listen: off}
`, dir), 0o600))
	store, err := lease.OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer store.Close()

	root := newRoot()
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	root.SetArgs([]string{"run", "--config", path})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(t.Context()) }()
	require.Eventually(t, func() bool {
		_, err := os.Lstat(filepath.Join(dir, "usher.sock"))
		return err == nil
	}, 5*time.Second, time.Millisecond)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP)) // unheeded, it ends this test
	select {
	case err := <-done:
		require.ErrorIs(t, err, lease.ErrInUse, "it lived until the state could not be had")
	case <-time.After(10 * time.Second):
		t.Fatal("the agent neither started nor failed")
	}
}
