package erpcmd

import (
	"testing"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/cmd/usher/internal/tools"
)

// newRoot is the command line of this package, and of the emulator for recordings.
func newRoot() *cobra.Command {
	root, c := cli.NewRoot("test")
	root.AddCommand(Commands(c)...)
	root.AddCommand(tools.Commands(c)...)
	return root
}

func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, newRoot(), "", args...)
}
