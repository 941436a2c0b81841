package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
)

// usherOn runs usher on the router, with the world's socket and configuration,
// and returns what it printed and its exit code.
func (w *world) usherOn(t *testing.T, args ...string) (string, int) {
	t.Helper()
	all := append([]string{}, args...)
	if len(args) < 2 || args[1] != "clear" {
		all = append(all, "--socket", w.Socket())
	}
	if args[0] == "acl" && (args[1] == "show" || args[1] == "verify" || args[1] == "clear") {
		all = append(all, "--config", w.ConfigPath())
	}
	var out []byte
	var err error
	require.NoError(t, w.Router.Do(func() error {
		out, err = exec.CommandContext(t.Context(), w.Program, all...).CombinedOutput()
		return nil
	}))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	require.NoError(t, err)
	return string(out), 0
}

// reaches tells whether a host gets an answer from the internet.
func reaches(h *lab.Host) bool {
	conn, err := h.Dial(miniature.EchoAddr, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// setState changes a state in the ERP and returns when the kernel has followed.
func (w *world) setState(t *testing.T, h miniature.Home, st provision.State) {
	t.Helper()
	_, err := w.Client.SetState(t.Context(), provision.SubscriberID(h.ID), st)
	require.NoError(t, err)
}

func TestKernelACLCommand(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 2, Extra: "acl: {exempt: {customers: [1002]}}\n"})
	paused, exempt := w.Homes[0], w.Homes[1]
	require.EqualValues(t, 1002, exempt.ID)
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), paused))
	require.NoError(t, w.Lease(t.Context(), exempt))
	w.setState(t, paused, provision.StatePause)
	w.setState(t, exempt, provision.StateStop)
	require.False(t, reaches(paused.Host))
	require.True(t, reaches(exempt.Host), "the exempt are never blocked")

	t.Run("show", func(t *testing.T) {
		out, code := w.usherOn(t, "acl", "show")
		require.Zero(t, code, out)
		require.Regexp(t, `set paused +want 1, have 1`, out)
		require.Regexp(t, `set stopped +want 0, have 0`, out)
		out, code = w.usherOn(t, "acl", "show", fmt.Sprint(paused.ID))
		require.Zero(t, code, out)
		require.Contains(t, out, "wanted paused, in the kernel paused")
		require.Contains(t, out, "why: customer 1001 is paused")
		require.NotContains(t, out, "refused: 0 packets")
		out, code = w.usherOn(t, "acl", "show", exempt.IP.String())
		require.Zero(t, code, out)
		require.Contains(t, out, "wanted open, in the kernel open")
		require.Contains(t, out, "why: exempt by acl.exempt.customers; customer 1002 is stopped")
		out, code = w.usherOn(t, "acl", "show", "4711")
		require.Equal(t, 1, code)
		require.Contains(t, out, "the ERP has no customer 4711")
		out, code = w.usherOn(t, "acl", "show", "00:00:5e:00:53:01")
		require.Equal(t, 1, code)
		require.Contains(t, out, "block lists know no MACs")
		x, err := w.Client.Explain(t.Context(), "1002")
		require.NoError(t, err)
		require.Contains(t, x.Summary, "Customer 1002 is exempt (acl.exempt.customers)")
	})
	t.Run("show as nft", func(t *testing.T) {
		out, code := w.usherOn(t, "acl", "show", "--as-nft")
		require.Zero(t, code, out)
		require.Equal(t, withoutTimes(w.nft(t, "list", "table", "inet", "usher")), withoutTimes(out))
	})
	t.Run("diff and verify", func(t *testing.T) {
		out, code := w.usherOn(t, "acl", "diff")
		require.Zero(t, code, out)
		require.Equal(t, "the kernel is as wanted\n", out)
		out, code = w.usherOn(t, "acl", "verify")
		require.Zero(t, code, out)
		require.Contains(t, out, "equal: ")
	})
	t.Run("open closes by itself", func(t *testing.T) {
		out, code := w.usherOn(t, "acl", "open", "--for", "100h")
		require.Equal(t, 2, code)
		require.Contains(t, out, "want 1s to 24h")
		out, code = w.usherOn(t, "acl", "open", "--for", "3s", "--reason", "a test")
		require.Zero(t, code, out)
		require.Contains(t, out, "EVERYBODY PASSES until")
		require.True(t, reaches(paused.Host))
		out, _ = w.usherOn(t, "acl", "show")
		require.Contains(t, out, "a test; end it with usher acl close")
		require.NotNil(t, w.status(t).Open)
		require.Contains(t, w.page(t), "Everybody passes")
		require.Regexp(t, `usher_acl_open_seconds [12]\.`, w.metrics(t))
		eventually(t, 5*time.Second, "the kernel ends it", func() (bool, error) { return !reaches(paused.Host), nil })
	})
	t.Run("open outlives the agent and close ends it", func(t *testing.T) {
		_, code := w.usherOn(t, "acl", "open", "--for", "1h")
		require.Zero(t, code)
		w.Agent.Kill()
		require.True(t, reaches(paused.Host))
		out, code := w.usherOn(t, "acl", "open", "--for", "1h")
		require.Equal(t, 1, code)
		require.Contains(t, out, "usher acl clear takes every block away")
		require.NoError(t, w.StartAgent(t.Context()))
		require.InDelta(t, 3600, w.status(t).Open.LeftSeconds, 60)
		require.True(t, reaches(paused.Host))
		out, code = w.usherOn(t, "acl", "close")
		require.Zero(t, code)
		require.Contains(t, out, "in force again")
		require.False(t, reaches(paused.Host))
		require.Nil(t, w.status(t).Open)
	})
	t.Run("open ends with a dead agent", func(t *testing.T) {
		_, code := w.usherOn(t, "acl", "open", "--for", "2s")
		require.Zero(t, code)
		w.Agent.Kill()
		require.True(t, reaches(paused.Host))
		eventually(t, 4*time.Second, "the kernel ends it", func() (bool, error) { return !reaches(paused.Host), nil })
	})
	t.Run("without an agent", func(t *testing.T) {
		out, code := w.usherOn(t, "acl", "show")
		require.Zero(t, code, out)
		require.Regexp(t, `set paused +want -, have 1`, out)
		out, code = w.usherOn(t, "acl", "show", paused.IP.String())
		require.Zero(t, code, out)
		require.Contains(t, out, "in the kernel paused")
		out, code = w.usherOn(t, "acl", "show", "1")
		require.Equal(t, 1, code)
		require.Contains(t, out, "without an agent only addresses can be asked for")
		out, code = w.usherOn(t, "acl", "show", "--as-nft")
		require.Zero(t, code, out)
		require.Equal(t, withoutTimes(w.nft(t, "list", "table", "inet", "usher")), withoutTimes(out))
		out, code = w.usherOn(t, "acl", "verify")
		require.Zero(t, code, out)
	})
	t.Run("clear", func(t *testing.T) {
		require.NoError(t, w.StartAgent(t.Context()))
		out, code := w.usherOn(t, "acl", "clear")
		require.Equal(t, 2, code)
		require.Contains(t, out, "say --yes")
		out, code = w.usherOn(t, "acl", "clear", "--yes")
		require.Equal(t, 1, code)
		require.Contains(t, out, "another process keeps the table")
		require.Contains(t, out, "usher acl open --for 30m")
		require.False(t, reaches(paused.Host))
		w.Agent.Kill()
		out, code = w.usherOn(t, "acl", "clear", "--yes")
		require.Zero(t, code, out)
		require.NotContains(t, w.nft(t, "list", "tables"), "usher")
		require.True(t, reaches(paused.Host))
		out, code = w.usherOn(t, "acl", "verify")
		require.Equal(t, 1, code)
		require.Contains(t, out, "there is none")
		out, code = w.usherOn(t, "acl", "show")
		require.Zero(t, code)
		require.Contains(t, out, "nobody is blocked")
		record, err := os.ReadFile(filepath.Join(w.Dir, "state", "audit.jsonl"))
		require.NoError(t, err)
		require.Regexp(t, `"act":"acl.clear","who":{"by":"command","uid":0,.*"result":"refused","error":".*another process keeps the table`, string(record))
		require.Regexp(t, `"act":"acl.clear","who":{"by":"command","uid":0,.*"result":"done"}`, string(record))
		require.Regexp(t, `"act":"acl.open","who":{"by":"socket","uid":0,.*"seconds":3,"reason":"a test".*"result":"done"}`, string(record))
		require.NoError(t, w.StartAgent(t.Context()))
		require.False(t, reaches(paused.Host))
	})
}

// get reads a page of the console on the router.
func (w *world) get(t *testing.T, path string) string {
	t.Helper()
	out, err := w.Router.Output(t.Context(), "curl", "-sS", "http://"+miniature.ConsoleAddr+path)
	require.NoError(t, err)
	return out
}

func (w *world) page(t *testing.T) string    { return w.get(t, "/") }
func (w *world) metrics(t *testing.T) string { return w.get(t, "/metrics") }

// withoutTimes drops counters and what is left of time-outs.
func withoutTimes(s string) string {
	f := strings.Fields(withoutCounters(s))
	for i := range f {
		if f[i] == "expires" {
			f[i+1] = "t"
		}
	}
	return strings.Join(f, " ")
}

// Killed right after a pause, before the snapshot was stored: the next start reads
// an older one, and opens nobody for the moment until the ERP has answered.
func TestKernelRestartWithAnOlderSnapshotOpensNobody(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 1})
	require.NoError(t, w.StartAgent(t.Context()))
	snapshot := filepath.Join(w.Dir, "state", "snapshot")
	var older []byte
	eventually(t, 5*time.Second, "the snapshot is stored", func() (bool, error) {
		var err error
		older, err = os.ReadFile(snapshot)
		return err == nil, nil
	})
	home := w.Homes[0]
	_, err := w.Client.SetState(t.Context(), provision.SubscriberID(home.ID), provision.StatePause)
	require.NoError(t, err)
	require.Contains(t, w.nft(t, "list", "set", "inet", "usher", "paused"), home.IP.String())
	<-w.agentGone()
	require.NoError(t, os.WriteFile(snapshot, older, 0o640))

	monitor, err := w.Router.Start("nft", "monitor")
	require.NoError(t, err)
	probe := func(op string) { w.nft(t, op, "table", "inet", "probe") }
	eventually(t, 5*time.Second, "nft monitor listens", func() (bool, error) {
		probe("add")
		probe("delete")
		return strings.Contains(monitor.Log(), "table inet probe"), nil
	})
	before := strings.Count(monitor.Log(), "add table inet probe")
	require.NoError(t, w.StartAgent(t.Context()))
	require.Contains(t, w.nft(t, "list", "set", "inet", "usher", "paused"), home.IP.String())
	probe("add")
	eventually(t, 5*time.Second, "nft monitor has told everything", func() (bool, error) {
		return strings.Count(monitor.Log(), "add table inet probe") > before, nil
	})
	require.NotContains(t, monitor.Log(), home.IP.String(), "neither taken out nor put in again")
}

// After a boot the kernel blocks nobody. What was stored holds at once then, and not after the two seconds that an ERP has which says nothing at all.
func TestKernelBlocksOfTheStoredSnapshotHoldAfterABoot(t *testing.T) {
	w := worldWithoutRelay(t, miniature.Options{Homes: 1})
	require.NoError(t, w.StartAgent(t.Context()))
	home := w.Homes[0]
	w.setState(t, home, provision.StatePause)
	eventually(t, 10*time.Second, "the pause is stored", func() (bool, error) {
		b, err := os.ReadFile(filepath.Join(w.Dir, "state", "snapshot"))
		return strings.Contains(string(b), fmt.Sprintf("\ns\t%d\tpause\n", home.ID)), err
	})
	<-w.agentGone()
	w.nft(t, "flush", "ruleset")
	w.nft(t, `table inet silence {
		chain in {
			type filter hook input priority 0; policy accept;
			tcp dport 8480 counter drop
		}
	}`)
	var err error
	w.Agent, err = w.Router.StartFiles(nil, w.AgentEnv, w.Program, "run", "--config", w.ConfigPath())
	require.NoError(t, err)
	eventually(t, 20*time.Second, "the agent runs", func() (bool, error) { return strings.Contains(w.Agent.Log(), "agent started"), nil })
	eventually(t, 1500*time.Millisecond, "the block of the stored snapshot", func() (bool, error) {
		out, err := w.Router.Output(t.Context(), "nft", "list", "set", "inet", "usher", "paused")
		return err == nil && strings.Contains(out, home.IP.String()), nil
	})
	eventually(t, 5*time.Second, "the ERP was asked and is silent", func() (bool, error) {
		return !strings.Contains(w.nft(t, "list", "table", "inet", "silence"), "packets 0 "), nil
	})
	require.Equal(t, provision.SourceStored, w.status(t).Sync.Source)
}
