package show

import (
	"testing"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
)

func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root, c := cli.NewRoot("test")
	root.AddCommand(Commands(c)...)
	return clitest.Run(t, root, "", args...)
}
