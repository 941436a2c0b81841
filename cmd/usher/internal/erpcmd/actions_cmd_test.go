package erpcmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// nowhere is an address that nobody answers on: what only shows a request must
// not mind.
const nowhere = "http://127.0.0.1:1/api.php"

// Every row of the table has a command with a flag per parameter, a method of
// the client, and an answer of the emulator.
func TestEveryActionHasCommandMethodAndEmulation(t *testing.T) {
	client := reflect.TypeFor[*userside.Client]()
	methods := map[string]string{}
	for _, a := range userside.Actions() {
		t.Run(a.Label(), func(t *testing.T) {
			for _, name := range []string{a.Name, dashes(a.Name)} {
				cmd, rest, err := newRoot().Find([]string{a.Category, name})
				require.NoError(t, err)
				require.Empty(t, rest)
				require.Equal(t, dashes(a.Name), cmd.Name())
				for _, p := range a.Params {
					flag := cmd.Flags().Lookup(dashes(p.Name))
					require.NotNil(t, flag, p.Name)
					require.Contains(t, flag.Usage, p.Help)
				}
			}
			_, ok := client.MethodByName(a.Method)
			require.True(t, ok, "no method %q", a.Method)
			require.Empty(t, methods[a.Method], "two actions have one method")
			methods[a.Method] = a.Label()

			answered := !a.Until.IsZero() // gone before the oldest server that is emulated
			for _, p := range emulator.Profiles() {
				if !p.Version().Has(a.Since, a.Until) {
					continue
				}
				w := newERPWorld(t, p)
				w.stdin = "from a pipe"
				_, _, errs := w.run(append([]string{a.Category, dashes(a.Name), "--yes"}[:2+btoi(a.Danger)], exampleFlags(a)...)...)
				require.NotContains(t, errs, "unknown action")
				require.Positive(t, w.erp.Calls()[a.Label()], errs)
				answered = true
			}
			require.True(t, answered)
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// dryRun returns what a command would send.
type dryRun struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Form    map[string]string `json:"form"`
	Version string            `json:"erp_version"`
}

func showRequest(t *testing.T, stdin string, line ...string) dryRun {
	t.Helper()
	code, out, errs := runWithInput(t, stdin, append(line, "--url", nowhere, "--dry-run", "--output", "json")...)
	require.Zero(t, code, "%v: %s", line, errs)
	var got dryRun
	require.NoError(t, json.Unmarshal([]byte(out), &got), out)
	return got
}

// The examples in the help texts are calls that pass every check.
func TestExamplesOfActionsWork(t *testing.T) {
	for _, a := range userside.Actions() {
		t.Run(a.Label(), func(t *testing.T) {
			for line := range strings.Lines(actionExample(a)) {
				words := strings.Fields(strings.TrimSuffix(strings.TrimSuffix(strings.TrimSpace(line), "--dry-run"), "--output json"))
				if !a.Until.IsZero() {
					words = append(words, "--erp-version", "3.12")
				}
				got := showRequest(t, "from a pipe", words[1:]...)
				require.Equal(t, map[bool]string{true: "POST", false: "GET"}[a.Write], got.Method)
				require.Contains(t, got.URL, "key=[redacted]")
			}
		})
	}
}

// So are the commands on the page of actions.
func TestCommandsOfThePageOfActionsWork(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "userside-actions.md"))
	require.NoError(t, err)
	found := regexp.MustCompile("(?m)^\\* Command: `usher ([^`]+)`").FindAllSubmatch(page, -1)
	require.Len(t, found, len(userside.Actions()))
	for _, m := range found {
		t.Run(string(m[1]), func(t *testing.T) {
			words := strings.Fields(string(m[1]))
			a, err := findAction(words[0], words[1])
			require.NoError(t, err)
			if !a.Until.IsZero() {
				words = append(words, "--erp-version", "3.12")
			}
			showRequest(t, "from a pipe", words...)
		})
	}
}

func TestDryRunShowsTheNamesOfTheVersion(t *testing.T) {
	for _, c := range []struct {
		name, version string
		line          []string
		wantURL       string
		wantForm      map[string]string
	}{
		{"newest", "", []string{"customer", "state-change", "--customer-id", "1001", "--state-id", "stop"},
			"action=state_change", map[string]string{"customer_id": "1001", "state_id": "0"}},
		{"before 3.17", "3.16.30", []string{"customer", "state-change", "--customer-id", "1001", "--state-id", "2"},
			"subcat=state_change", map[string]string{"usercode": "1001", "state_id": "2"}},
		{"before 3.16dev2", "3.16dev1", []string{"customer", "change-balance", "--customer-id", "1001", "--amount", "-1", "--comment", "x", "--employee-id", "4"},
			"subcat=change_balance", map[string]string{"customer_id": "1001", "amount": "-1", "comment": "x", "operator_id": "4"}},
		{"a secret", "3.19", []string{"customer", "pass-change", "--customer-id", "1001", "--pass-new", "open sesame"},
			"action=pass_change", map[string]string{"customer_id": "1001", "pass_new": redactedText}},
		{"former name at the generic command", "3.19", []string{"erp", "call", "customer", "to_ex", "usercode=1001"},
			"action=to_ex", map[string]string{"customer_id": "1001"}},
		{"danger is shown without a question", "3.19", []string{"customer", "delete", "--id", "1001"},
			"action=delete", map[string]string{"id": "1001"}},
		{"module", "3.19", []string{"module", "get-user-list", "--is-with-potential", "--customer-id=7"},
			"customer_id=7&is_with_potential=1&key=[redacted]&request=get_user_list", nil},
		{"device passwords stay hidden", "3.19", []string{"device", "get-data", "--object-type", "all"},
			"is_hide_access_data=1", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := c.line
			if c.version != "" {
				line = append(line, "--erp-version", c.version)
			}
			got := showRequest(t, "", line...)
			require.Contains(t, got.URL, c.wantURL)
			require.Equal(t, c.version, got.Version)
			for name, want := range c.wantForm {
				require.Equal(t, want, got.Form[name], name)
			}
			require.Len(t, got.Form, len(c.wantForm), "%v", got.Form)
		})
	}
	t.Run("for people", func(t *testing.T) {
		code, out, errs := runWithInput(t, "", "customer", "ip-add", "--customer-id", "1001", "--value", "192.0.2.17", "--url", nowhere, "--dry-run")
		require.Zero(t, code)
		require.Equal(t, "POST "+nowhere+"?action=ip_add&cat=customer&key=[redacted]\n  customer_id  1001\n  value        192.0.2.17\n", out)
		require.Contains(t, errs, "nothing was sent")
	})
	t.Run("a key that is given is not shown", func(t *testing.T) {
		code, out, _ := runWithInput(t, secretKey, "customer", "get-last-ip", "--url", nowhere, "--key-file", "-", "--dry-run")
		require.Zero(t, code)
		require.Contains(t, out, "[redacted]")
	})
}

func TestCompletionOfActions(t *testing.T) {
	for _, c := range []struct {
		name string
		line []string
		want []string
	}{
		{"actions", []string{"customer", ""}, []string{"get-data\t", "pause\t", "ip-add\t"}},
		{"flags", []string{"customer", "ip-add", "--"}, []string{"--customer-id\t", "--value\t", "--dry-run\t"}},
		{"words of an enumeration", []string{"customer", "get-abon-id", "--data-typer", ""}, []string{"login\n", "account\tsince 3.14.34"}},
		{"words beside an address", []string{"customer", "ip-delete", "--value", ""}, []string{"-1\n", "all\tsince 3.19beta1"}},
		{"states", []string{"customer", "state-change", "--state-id", ""}, []string{"0\tstop"}},
		{"categories", []string{"erp", "call", ""}, []string{"customer\n", "tariff\n"}},
		{"actions of a category", []string{"erp", "call", "device", ""}, []string{"find_mac\t"}},
		{"parameters", []string{"erp", "call", "customer", "ip_add", "value=192.0.2.1", ""}, []string{"customer_id=\t", "mac=\t"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, _ := runCLI(t, append([]string{"__complete"}, c.line...)...)
			require.Zero(t, code)
			for _, want := range c.want {
				require.Contains(t, out, want)
			}
		})
	}
	_, out, _ := runCLI(t, "__complete", "erp", "call", "customer", "ip_add", "value=192.0.2.1", "")
	require.NotContains(t, out, "value=")
}

func TestHelpOfCustomerNamesTheAgentFirst(t *testing.T) {
	_, out, _ := runCLI(t, "customer", "--help")
	agent, lookups, changes := strings.Index(out, "Through the running agent"), strings.Index(out, "Look-ups in the ERP"), strings.Index(out, "Changes in the ERP")
	require.Positive(t, agent)
	require.Less(t, agent, lookups)
	require.Less(t, lookups, changes)
	_, out, _ = runCLI(t, "customer", "state-change", "--help")
	require.Contains(t, out, "through the agent")
	require.Contains(t, out, "since version 3.12.8")
	require.Contains(t, out, "(required; usercode before 3.17)")
}

// Without a terminal a dangerous action wants --yes; on one it asks.
func TestDangerIsConfirmed(t *testing.T) {
	for _, c := range []struct {
		name, typed string
		deleted     bool
	}{{"yes", "yes\n", true}, {"no", "no\n", false}, {"nothing", "\n", false}, {"almost", "y\n", false}} {
		t.Run(c.name, func(t *testing.T) {
			w := newERPWorld(t, emulator.ProfileModern)
			before, _ := w.erp.Customer(1001)
			keyboard, screen := terminal(t)
			_, err := keyboard.WriteString(c.typed)
			require.NoError(t, err)
			root := newRoot()
			root.SetIn(screen)
			var said strings.Builder
			root.SetOut(&said)
			root.SetErr(&said)
			code := cli.Execute(t.Context(), root, append([]string{"customer", "delete", "--id", "1001"}, w.access...))
			require.Contains(t, said.String(), "delete a customer (id 1001)")
			require.Contains(t, said.String(), "cannot be undone")
			require.Contains(t, said.String(), "login "+before.Login, "the question does not say who it is")
			_, there := w.erp.Customer(1001)
			require.Equal(t, c.deleted, !there)
			require.Equal(t, c.deleted, code == cli.ExitOK, said.String())
		})
	}
}

// terminal returns both ends of a pseudo terminal.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo terminals: %v", err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	screen, err = os.OpenFile("/dev/pts/"+intText(int64(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	return keyboard, screen
}

func TestWideTablesAreCutAtTheTerminal(t *testing.T) {
	w := newERPWorld(t, emulator.ProfileModern)
	keyboard, screen := terminal(t)
	require.NoError(t, unix.IoctlSetWinsize(int(keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 50}))
	root := newRoot()
	root.SetOut(screen)
	root.SetErr(&strings.Builder{})
	require.Zero(t, cli.Execute(t.Context(), root, append([]string{"customer", "get-data", "--customer-id", "1001,1002"}, w.access...)))
	buf := make([]byte, 4096)
	n, err := keyboard.Read(buf)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	require.NotEmpty(t, lines)
	colour := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, line := range lines {
		require.LessOrEqual(t, len([]rune(strings.TrimSpace(colour.ReplaceAllString(line, "")))), 50, line)
	}
	require.Contains(t, string(buf[:n]), "…")
}

// Flags of actions and those of every call do not clash, and none is a shorthand
// of something else.
func TestNoActionHidesAFlag(t *testing.T) {
	root := newRoot()
	for _, a := range userside.Actions() {
		cmd, _, err := root.Find([]string{a.Category, dashes(a.Name)})
		require.NoError(t, err)
		for _, p := range a.Params {
			for _, other := range []string{"output", "config", "url", "key-file", "erp-version", "timeout", "raw", "dry-run", "yes", "help", "socket"} {
				require.NotEqual(t, other, dashes(p.Name), a.Label())
			}
		}
		require.Equal(t, a.Danger, cmd.Flags().Lookup("yes") != nil, a.Label())
	}
}
