package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The end of a start, whatever the disk does with it: at once, and with the control socket gone.
func TestStartEndsAtOnce(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string){
		// Opening it waits for somebody who writes, as opening a file on a dead server does.
		"a disk that hangs": func(t *testing.T, dir string) {
			path := filepath.Join(dir, "snapshot")
			require.NoError(t, syscall.Mkfifo(path, 0o600))
			t.Cleanup(func() { // let it go
				f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
				if err == nil {
					require.NoError(t, f.Close())
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			spoil(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log logText
			done := runIn(ctx, t, dir, &log)
			socket := filepath.Join(dir, "usher.sock")
			require.Eventually(t, func() bool { _, err := os.Lstat(socket); return err == nil }, 5*time.Second, time.Millisecond)
			select {
			case err := <-done:
				require.Fail(t, "it is held up", "%v %s", err, log.String())
			case <-time.After(300 * time.Millisecond): // it is at the disk by then
			}
			require.NotContains(t, log.String(), "agent started")
			cancel()
			began := time.Now()
			select {
			case err := <-done:
				require.NoError(t, err, "a service manager that asked for it sees no failure")
				require.Contains(t, log.String(), "stopped before it had started")
				assert.Less(t, time.Since(began), 2*time.Second)
				t.Logf("it ended after %v: %v", time.Since(began).Round(time.Millisecond), err)
			case <-time.After(10 * time.Second):
				require.Fail(t, "it goes on")
			}
			_, err := os.Lstat(socket)
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

// A file of the log that is as long as anything, with a hole in it, holds no start.
func TestStartWithAHoleInTheLog(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "leases"), 0o750))
	path := filepath.Join(dir, "leases", fmt.Sprintf("%020d-%016x.log", 1, 0x5eed))
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{1}, 1<<16), 0o600))
	require.NoError(t, os.Truncate(path, 1<<40))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log logText
	done := runIn(ctx, t, dir, &log)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "agent started") }, 10*time.Second, time.Millisecond)
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		require.Fail(t, "it goes on")
	}
}

// runIn runs the agent with a state directory and nothing else that it could do, until ctx ends.
func runIn(ctx context.Context, t *testing.T, dir string, log *logText) <-chan error {
	t.Helper()
	path := filepath.Join(dir, "usher.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `
state_dir: %[1]s
userside: {url: "http://127.0.0.1:1/api.php", key: test-key, allow_inline_key: true}
dhcp: {enabled: false}
acl: {dry_run: true}
control: {socket: %[1]s/usher.sock}
console: {listen: off}
`, dir), 0o600))
	root := newRoot()
	root.SetOut(log)
	root.SetErr(log)
	root.SetArgs([]string{"run", "--config", path})
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	return done
}

// logText is a log that may be read meanwhile.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
