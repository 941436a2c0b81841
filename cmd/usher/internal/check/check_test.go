package check

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

var update = flag.Bool("update", false, "write the expected texts in testdata")

const keyPath = "/etc/usher/userside.key"

// write puts a configuration, with an API key that exists, into a directory of its own.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "userside.key")
	require.NoError(t, os.WriteFile(key, []byte("secret-key-value\n"), 0o600))
	require.Contains(t, text, keyPath)
	path = filepath.Join(dir, "usher.yaml")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(text, keyPath, key)), 0o600))
	return path
}

// usher runs the command line "usher check".
func usher(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root, c := cli.NewRoot("v0")
	cmd := Command(c)
	root.AddCommand(cmd)
	root.RunE = func(*cobra.Command, []string) error { return nil }
	return clitest.Run(t, root, "", append([]string{"check"}, args...)...)
}

const head = "userside: {url: https://erp.example.net/api.php, key_file: " + keyPath + "}\n"

// testHost is a router: eth0 to the relays, the rest to subscribers.
func testHost() []provision.Interface {
	host := []provision.Interface{
		{Name: "lo", Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/25")}},
		{Name: "eth1", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.129/25"), netip.MustParsePrefix("198.51.100.1/24")}},
	}
	for _, name := range []string{"eth2.7", "eth2.8", "eth2.9", "eth2.10", "eth2.11", "eth2.12"} {
		host = append(host, provision.Interface{Name: name})
	}
	return host
}

// Each file has the text of a check on testHost beside it: what goes to standard output, then what goes
// to standard error.
func TestText(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, in := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(in)
			require.NoError(t, err)
			path := write(t, string(text))
			r, cfg, err := examine(path, testHost())
			require.NoError(t, err)
			var out, errs bytes.Buffer
			require.NoError(t, r.print(&out, &errs, cfg))
			for line := range strings.Lines(out.String()) {
				if !strings.HasPrefix(line, path) {
					require.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 100, line)
				}
			}
			got := strings.ReplaceAll(out.String()+"---\n"+errs.String(), path, "usher.yaml")
			require.NotContains(t, got, "secret-key-value")
			golden := strings.TrimSuffix(in, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// A file that leaves open where option 82 is believed runs as before, and is no good one.
func TestUnansweredIsNotGood(t *testing.T) {
	path := write(t, head+"dhcp:\n  interfaces: [eth1]\n  relays: [192.0.2.7]\n  subnets: [{prefix: 198.51.100.0/24}]\n")
	cfg, err := config.Load(path)
	require.NoError(t, err, "usher run and a reload take it")
	require.NotEmpty(t, cfg.Warnings)

	code, out, stderr := usher(t, "--config", path)
	require.Equal(t, cli.ExitFailure, code)
	require.Contains(t, stderr, path+":2:1: dhcp.trusted_interfaces: missing, and dhcp.match has option82")
	require.Contains(t, stderr, "\n    trusted_interfaces: [eth1]\n    trusted_interfaces: none\n")
	require.Contains(t, stderr, path+": not good yet: usher run takes it as it stands\n")
	require.NotContains(t, out, "good")
	require.Contains(t, out, "What is believed from whom")

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, stderr, path+":2:1: dhcp.option82_relays: missing, and dhcp.match has option82")
	require.Contains(t, stderr, "\n    option82_relays: [192.0.2.7]\n    option82_relays: all\n    option82_relays: none\n")
	interfaces, relays := []string{"trusted_interfaces: [eth1]", "trusted_interfaces: none"}, []string{"option82_relays: [192.0.2.7]", "option82_relays: all", "option82_relays: none"}
	for _, one := range interfaces {
		for _, other := range relays {
			require.NoError(t, os.WriteFile(path, []byte(string(text)+"  "+one+"\n  "+other+"\n"), 0o600))
			code, out, stderr = usher(t, "--config", path)
			require.Equal(t, cli.ExitOK, code, stderr)
			require.Contains(t, out, path+": good: 1 subnets")
		}
	}
	for _, one := range append(interfaces, relays...) {
		require.NoError(t, os.WriteFile(path, []byte(string(text)+"  "+one+"\n"), 0o600))
		code, _, _ = usher(t, "--config", path)
		require.Equal(t, cli.ExitFailure, code, "both are asked for")
	}
}

// The kernel's other names of an interface are told by the name to write.
func TestKernelAlternativeName(t *testing.T) {
	labtest.Need(t)
	l, err := lab.New("alt", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	router, err := l.Host("r")
	require.NoError(t, err)
	cpe, err := l.Host("c")
	require.NoError(t, err)
	require.NoError(t, l.Wire(router, "eth1", cpe, "eth0"))
	require.NoError(t, router.IP("link", "property", "add", "dev", "eth1", "altname", "enp3s0"))

	path := write(t, head+"dhcp:\n  interfaces: [enp3s0]\n  relays: [192.0.2.7]\n  check_relay_source: true\n  option82_relays: all\n  trusted_interfaces: none\n  subnets: [{prefix: 198.51.100.0/24, dns: [192.0.2.53]}]\n")
	var host []provision.Interface
	require.NoError(t, router.Do(func() error { host = interfaces(); return nil }))
	r, _, err := examine(path, host)
	require.NoError(t, err)
	require.False(t, r.OK)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0].String(), ":3:16: dhcp.interfaces[0]: enp3s0 is another name (altname) of eth1, and interfaces are known here by their one name: write eth1")

	require.NoError(t, router.IP("link", "property", "del", "dev", "eth1", "altname", "enp3s0"))
	require.NoError(t, router.Do(func() error { host = interfaces(); return nil }))
	r, _, err = examine(path, host)
	require.NoError(t, err)
	require.True(t, r.OK)
	require.Contains(t, r.Warnings[0].Reason, `no interface of this host fits "enp3s0"`)
}

func TestJSON(t *testing.T) {
	type problem struct {
		Key        string   `json:"key"`
		Reason     string   `json:"reason"`
		Paste      []string `json:"paste"`
		Unanswered bool     `json:"unanswered"`
	}
	var got struct {
		OK       bool      `json:"ok"`
		Problems []problem `json:"problems"`
		Warnings []problem `json:"warnings"`
		Believed []map[string]any
	}
	path := write(t, head+"dhcp:\n  interfaces: [lo, no-such0]\n  relays: [192.0.2.7, 203.0.113.0/24]\n  subnets: [{prefix: 198.51.100.0/24, dns: [192.0.2.53]}]\n")
	code, out, stderr := usher(t, "--config", path, "--output", "json")
	require.Equal(t, cli.ExitFailure, code)
	require.Empty(t, stderr)
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.False(t, got.OK)
	require.Len(t, got.Problems, 2)
	assert.Equal(t, "dhcp.option82_relays", got.Problems[0].Key)
	assert.True(t, got.Problems[0].Unanswered)
	assert.Equal(t, []string{"option82_relays: [192.0.2.7, 203.0.113.0/24]", "option82_relays: all", "option82_relays: none"}, got.Problems[0].Paste)
	assert.Equal(t, "dhcp.trusted_interfaces", got.Problems[1].Key)
	assert.True(t, got.Problems[1].Unanswered)
	assert.Equal(t, []string{"trusted_interfaces: [lo, no-such0]", "trusted_interfaces: none"}, got.Problems[1].Paste)
	require.Len(t, got.Warnings, 2)
	assert.Equal(t, "dhcp.check_relay_source", got.Warnings[0].Key)
	assert.Equal(t, "dhcp.interfaces[1]", got.Warnings[1].Key)
	assert.Contains(t, got.Warnings[1].Reason, `no interface of this host fits "no-such0"`)
	var who []string
	for _, s := range got.Believed {
		who = append(who, s["who"].(string))
	}
	assert.Equal(t, []string{WhoRelay, WhoRelayNet, WhoOtherSource, WhoOtherRelay, WhoTrusted, WhoVLAN, WhoSubscribers, WhoMAC, WhoClientID, WhoARP, WhoQuery}, who)
	assert.Equal(t, map[string]any{
		"who": "relay", "key": "dhcp.relays", "which": []any{"192.0.2.7"}, "tells_line": "yes", "tells_wire": "yes", "takes_lease": "yes", "writes_erp": "yes",
		"note": "option 82 with a warning: the file does not say whose, and a client may have written it; with the address of a subscriber too; on an interface of subscribers only from its network",
	}, got.Believed[0])

	got.Believed, got.Problems = nil, nil
	path = write(t, strings.Replace(head, "https", "ftp", 1))
	code, out, _ = usher(t, "--config", path, "--output", "json")
	require.Equal(t, cli.ExitFailure, code)
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Empty(t, got.Believed, "nothing is known of a file with mistakes")
	assert.False(t, got.Problems[0].Unanswered)
}

// Every configuration that is shipped answers what check asks.
func TestShippedFilesAreGood(t *testing.T) {
	var files []string
	for _, pattern := range []string{"config/*.yaml", "systemd/*.yaml", "docs/*.yaml", "docs/*/*.yaml"} {
		found, err := filepath.Glob(filepath.Join("../../../..", pattern))
		require.NoError(t, err)
		files = append(files, found...)
	}
	require.Len(t, files, 2, "the example and the reference: %v", files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, key := range []string{"check_relay_source: true", "subscriber_interfaces:", "option82_relays: ", "trusted_interfaces: none"} {
				require.Contains(t, string(text), "  "+key)
			}
			code, out, stderr := usher(t, "--config", write(t, string(text)))
			require.Equal(t, cli.ExitOK, code, stderr)
			require.Contains(t, out, ": good: ")
		})
	}
}
