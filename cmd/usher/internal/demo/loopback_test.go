package demo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/check"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
)

// What the demo runs on is what "usher check" calls good.
func TestLoopbackConfigIsGood(t *testing.T) {
	dir := t.TempDir()
	key, path := filepath.Join(dir, "key"), filepath.Join(dir, "usher.yaml")
	require.NoError(t, os.WriteFile(key, []byte("demo\n"), 0o600))
	require.NoError(t, os.WriteFile(path, []byte(loopbackConfig(dir, "127.0.0.1:8480", key, 1067, 1068, filepath.Join(dir, "usher.sock"))), 0o600))
	root, c := cli.NewRoot("v0")
	root.AddCommand(check.Command(c))
	code, out, stderr := clitest.Run(t, root, "", "check", "--config", path)
	require.Equal(t, cli.ExitOK, code, stderr)
	require.Contains(t, out, ": good: 1 subnets")
	require.Empty(t, stderr, "nothing is left to say")
}
