package tools

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/userside/emulator"
)

func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root, c := cli.NewRoot("test")
	root.AddCommand(Commands(c)...)
	return clitest.Run(t, root, "", args...)
}

func TestProbeSaysWhatIsWrong(t *testing.T) {
	relay := []string{"--relay-from", "127.0.0.1", "--server", "127.0.0.1"}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no message", nil, "accepts 1 arg(s)"},
		{"unknown message", []string{"offer"}, `message "offer": no such kind`},
		{"nowhere", []string{"dora"}, "want --interface, or --relay-from with --server"},
		{"both", []string{"dora", "-i", "eth0", "--relay-from", "127.0.0.1"}, "want one of them"},
		{"no server", []string{"dora", "--relay-from", "127.0.0.1"}, "--relay-from needs --server"},
		{"unicast from nowhere", []string{"renewing", "-i", "lo", "--server", "127.0.0.1"}, "needs --ciaddr"},
		{"field missing", append([]string{"selecting"}, relay...), "selecting needs a requested address"},
		{"bad address", append([]string{"dora", "--giaddr", "x"}, relay...), "--giaddr: "},
		{"bad MAC", append([]string{"dora", "--mac", "x"}, relay...), "--mac: "},
		{"bad option 82", append([]string{"dora", "--option82", "0"}, relay...), "--option82: "},
		{"bad circuit-id", append([]string{"dora", "--circuit-id", "0x0"}, relay...), "--circuit-id: "},
		{"bad option", append([]string{"dora", "--option", "82"}, relay...), "want CODE=HEX"},
		{"bad parameter", append([]string{"dora", "--parameters", "0"}, relay...), "--parameters: 0"},
		{"bad expectation", append([]string{"dora", "--expect", "joy"}, relay...), "want offer, ack, nak, active, unassigned, unknown or silence"},
		{"leasequery about nothing", append([]string{"leasequery"}, relay...), "leasequery needs an address, a MAC or a client identifier"},
		{"leasequery by no relay", []string{"leasequery", "-i", "lo", "--ip", "192.0.2.7"}, "leasequery needs a giaddr"},
		{"count of nothing", append([]string{"dora", "--count", "0"}, relay...), "--count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, append([]string{"probe"}, c.args...)...)
			require.Equal(t, cli.ExitUsage, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
	code, _, stderr := runCLI(t, "probe", "dora", "--interface", "no-such-if")
	require.Equal(t, cli.ExitFailure, code)
	require.Contains(t, stderr, "interface no-such-if")
}

func TestParseKeys(t *testing.T) {
	got, err := parseKeys([]string{"a", "b@192.0.2.1", "c/customer,device", "d@192.0.2.2/module"})
	require.NoError(t, err)
	require.Equal(t, []emulator.Key{
		{Key: "a"}, {Key: "b", IP: "192.0.2.1"}, {Key: "c", Sections: []string{"customer", "device"}},
		{Key: "d", IP: "192.0.2.2", Sections: []string{"module"}},
	}, got)
}
