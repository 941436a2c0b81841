package miniature

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/check"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/userside/emulator"
)

// What the demo and the end-to-end tests run on is what "usher check" calls good.
func TestConfigIsGood(t *testing.T) {
	erp, err := emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: Key}}, Customers: 300, Seed: 1})
	require.NoError(t, err)
	defer erp.Close()
	for name, o := range map[string]Options{
		"demo":        {Poll: time.Second},
		"with direct": {Poll: time.Second, Interfaces: []string{`"direct*"`, "lan"}, Subnets: "    - {prefix: 192.0.2.0/25, gateway: 192.0.2.1}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &World{Dir: t.TempDir(), ERP: erp}
			require.NoError(t, w.writeConfig(o))
			root, c := cli.NewRoot("v0")
			root.AddCommand(check.Command(c))
			code, out, stderr := clitest.Run(t, root, "", "check", "--config", filepath.Join(w.Dir, "usher.yaml"))
			require.Equal(t, cli.ExitOK, code, stderr)
			require.Contains(t, out, ": good: ")
			require.NotContains(t, stderr, "dhcp.relays")
			require.NotContains(t, stderr, "trusted_interfaces")
			require.NotContains(t, stderr, "check_relay_source")
			text, err := os.ReadFile(w.ConfigPath())
			require.NoError(t, err)
			require.Contains(t, string(text), "\n  subscriber_interfaces: [")
		})
	}
}
