package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/cli/clitest"
	"github.com/usher-agent/usher/provision/statedb"
)

// runCLI runs the command line in this process.
func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, newRoot(), "", args...)
}

// built is where the real program is put by the first test that asks for it.
var built string

// build makes the real program once, for tests that run it as a process of its own.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "usher")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as "make build", which has compiled most of it
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

func TestMain(m *testing.M) {
	statedb.Child() // this program reads old state files for itself
	var err error
	if built, err = os.MkdirTemp("", "usher-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// program returns the path of the real program.
func program(t *testing.T) string {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	return path
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" || cmd.Parent() != nil && cmd.Parent().Name() == "completion" {
			return
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			require.NotEmpty(t, cmd.Short)
			require.NotEmpty(t, cmd.Example)
			code, out, _ := runCLI(t, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
			require.Zero(t, code)
			require.Contains(t, out, "Examples:")
			require.Contains(t, out, "--output")
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func TestExitCodesAndErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.sock")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // in standard error
	}{
		{"unknown command", []string{"fly"}, cli.ExitUsage, `unknown command "fly"`},
		{"unknown flag", []string{"status", "--fast"}, cli.ExitUsage, "unknown flag: --fast"},
		{"unknown output", []string{"version", "--output", "xml"}, cli.ExitUsage, "want table or json"},
		{"too many arguments", []string{"version", "now"}, cli.ExitUsage, "accepts 0 arg(s)"},
		{"explain without a subject", []string{"explain"}, cli.ExitUsage, "usher explain IP|MAC|CUSTOMER"},
		{"customer id is a word", []string{"customer", "pause", "bob"}, cli.ExitUsage, `customer id "bob"`},
		{"no agent", []string{"status", "--socket", missing}, cli.ExitFailure, "no agent answers on " + missing},
		{"bad shape", []string{"emulator", "--shape", "Z"}, cli.ExitUsage, "A to F"},
		{"bad profile", []string{"emulator", "--profile", "v9"}, cli.ExitUsage, "legacy, modern or v321"},
		{"bad key address", []string{"emulator", "--key", "k@here"}, cli.ExitUsage, "--key number 1: want an address"},
		{"key without sections", []string{"emulator", "--key", "k", "--key", "j/"}, cli.ExitUsage, "--key number 2: want KEY"},
		{"bad address", []string{"emulator", "--listen", "here"}, cli.ExitUsage, "--listen"},
		{"no configuration", []string{"run", "--config", missing}, cli.ExitFailure, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, c.args...)
			require.Equal(t, c.code, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestVersionAsJSON(t *testing.T) {
	code, out, _ := runCLI(t, "version", "--output", "json")
	require.Zero(t, code)
	var v map[string]string
	require.NoError(t, json.Unmarshal([]byte(out), &v))
	require.Contains(t, v["go"], "go1.")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, _ := runCLI(t, "completion", shell)
		require.Zero(t, code)
		require.Contains(t, out, "usher")
	}
	_, out, _ := runCLI(t, "__complete", "emulator", "--profile", "")
	require.Contains(t, out, "v321")
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(key, []byte("secret-key-value\n"), 0o600))
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := write("good.yaml", "userside:\n  url: https://erp.example.net/api.php\n  key_file: "+key+`
dhcp:
  trusted_interfaces: none
  option82_relays: none
  subnets:
    - {prefix: 192.0.2.0/24, gateway: 192.0.2.1}
`)
	code, out, stderr := runCLI(t, "check", "--config", good)
	require.Zero(t, code, stderr)
	require.Contains(t, out, "good")
	require.NotContains(t, out, "secret-key-value")

	warned := write("warned.yaml", "userside:\n  url: https://erp.example.net/api.php\n  insecure_skip_verify: true\n  key_file: "+key+"\ndhcp: {enabled: false}\n")
	code, _, stderr = runCLI(t, "check", "--config", warned)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "warning: "+warned+":3:25: userside.insecure_skip_verify: ")
	code, out, _ = runCLI(t, "check", "--config", warned, "--output", "json")
	require.Zero(t, code)
	require.Contains(t, out, `"key": "userside.insecure_skip_verify"`)

	bad := write("bad.yaml", `userside:
  url: ftp://erp.example.net/api.php
  key_fle: /nowhere
dhcp:
  subnets:
    - {prefix: 192.0.2.0/24, gateway: 198.51.100.1}
`)
	code, _, stderr = runCLI(t, "check", "--config", bad)
	require.Equal(t, cli.ExitFailure, code)
	for _, want := range []string{bad + ":2:8: userside.url: ", bad + ":3:3: userside.key_fle: ", bad + ":6:", "dhcp.subnets[0].gateway"} {
		require.Contains(t, stderr, want)
	}
	code, out, _ = runCLI(t, "check", "--config", bad, "--output", "json")
	require.Equal(t, cli.ExitFailure, code)
	var got struct {
		OK       bool
		Problems []struct {
			Line int    `json:"line"`
			Key  string `json:"key"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.False(t, got.OK)
	require.GreaterOrEqual(t, len(got.Problems), 3)
}
