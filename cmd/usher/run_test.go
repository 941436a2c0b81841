package main

import (
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
	store, err := lease.OpenStore(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer store.Close()

	var log logText
	done := runIn(t.Context(), t, dir, &log)
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
