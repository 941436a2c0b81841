package main

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/provision/link/lab/machine"
)

// booted is a world whose agent is the service of a Debian under systemd.
type booted struct {
	*world
	machine *machine.Machine
}

func bootWorld(t *testing.T, o miniature.Options) *booted {
	t.Helper()
	labtest.Need(t, machine.Tools()...)
	b := &booted{world: worldWithoutRelay(t, o)}
	root := t.TempDir()
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, machine.Unpack(t.Context(), root, "nftables", "conntrack"))
	config, err := os.ReadFile(b.ConfigPath())
	require.NoError(t, err)
	text := strings.NewReplacer(filepath.Join(b.Dir, "state"), "/var/lib/usher", filepath.Join(b.Dir, "userside.key"), "/etc/usher/userside.key",
		b.Socket(), "/run/usher/usher.sock").Replace(string(config))
	require.NotContains(t, text, b.Dir)
	for to, from := range map[string]string{
		"/usr/bin/usher":                        b.Program,
		"/usr/lib/systemd/system/usher.service": "../../systemd/usher.service",
		"/usr/lib/sysusers.d/usher.conf":        "../../systemd/usher.sysusers",
		"/usr/lib/tmpfiles.d/usher.conf":        "../../systemd/usher.tmpfiles",
		"/etc/usher/userside.key":               filepath.Join(b.Dir, "userside.key"),
	} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		b.install(t, root, to, data)
	}
	b.install(t, root, "/etc/usher/usher.yaml", []byte(text))
	b.machine, err = machine.Boot(t.Context(), b.Router, root)
	require.NoError(t, err)
	t.Cleanup(b.machine.Close)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := b.machine.Output(context.Background(), "journalctl", "--unit=usher", "--no-pager", "--lines=50", "--output=cat")
			t.Log(out)
		}
	})
	b.Client.Socket = b.machine.Path("/run/usher/usher.sock")
	return b
}

func (b *booted) install(t *testing.T, root, to string, data []byte) {
	t.Helper()
	path := filepath.Join(root, to)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	mode := os.FileMode(0o644)
	if strings.HasPrefix(to, "/usr/bin/") {
		mode = 0o755
	}
	require.NoError(t, os.WriteFile(path, data, mode))
}

// run runs a program in the machine.
func (b *booted) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := b.machine.Output(t.Context(), name, args...)
	require.NoError(t, err)
	return out
}

// show returns a property of the unit.
func (b *booted) show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(b.run(t, "systemctl", "show", "--value", "--property="+property, "usher.service"))
}

// ready waits until another agent than that of a process is ready, and returns its process.
func (b *booted) ready(t *testing.T, before string) (pid string) {
	t.Helper()
	eventually(t, time.Minute, "the agent is ready", func() (bool, error) {
		pid = b.show(t, "MainPID")
		st, err := b.Client.Status(t.Context())
		return err == nil && st.Ready && pid != before && pid != "0", nil
	})
	return pid
}

// Under systemd a restart and a kill -9 under load lose no packet; a stop gives the port back.
func TestRestartUnderSystemd(t *testing.T) {
	if os.Getenv("USHER_LONG") != "1" {
		t.Skip("only in make test-long: it boots a Debian")
	}
	b := bootWorld(t, miniature.Options{Homes: 1, Customers: 120})
	b.run(t, "systemctl", "start", "usher")
	pid := b.ready(t, "0")
	assert.Equal(t, "1", b.show(t, "NFileDescriptorStore"))
	l := startLoad(t, b.world, 5*time.Millisecond)
	for range 3 {
		l.more(t, 100)
		b.run(t, "systemctl", "restart", "usher")
		pid = b.ready(t, pid)
		l.more(t, 100)
		l.between(t, func() { b.run(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", "usher") })
		pid = b.ready(t, pid)
		assert.Equal(t, "1", b.show(t, "NFileDescriptorStore"))
	}
	l.more(t, 100)
	missing := l.unanswered(t, 5*time.Second)
	longest := time.Duration(0)
	for n := range l.sent {
		wait, _ := l.answered(n)
		longest = max(longest, wait)
	}
	t.Logf("%d packets, %d without an answer; the longest wait was %s", len(l.sent), len(missing), longest)
	assert.Empty(t, missing, "these got no answer")

	// A kill at any moment takes along what the agent has read and not answered, and nothing else.
	b.run(t, "systemctl", "reset-failed", "usher") // ten starts in ten minutes are the limit
	l = startLoad(t, b.world, 4*time.Millisecond)
	for range 3 {
		l.more(t, 200)
		b.run(t, "systemctl", "kill", "--kill-who=main", "--signal=KILL", "usher")
		pid = b.ready(t, pid)
	}
	l.more(t, 200)
	missing = l.unanswered(t, 5*time.Second)
	t.Logf("%d packets and three kills at any moment: %d without an answer", len(l.sent), len(missing))
	assert.LessOrEqual(t, len(missing), 3*64)

	// A new address of dhcp.listen is taken at a restart: the old socket does not keep the port.
	config, err := os.ReadFile(b.machine.Path("/etc/usher/usher.yaml"))
	require.NoError(t, err)
	other := strings.Replace(string(config), "dhcp:\n", "dhcp:\n  listen: 10.0.0.1:67\n", 1)
	require.NoError(t, os.WriteFile(b.machine.Path("/etc/usher/usher.yaml"), []byte(other), 0o644))
	b.run(t, "systemctl", "restart", "usher")
	b.ready(t, pid)
	assert.Equal(t, "10.0.0.1:67", b.status(t).DHCP.Listen.String())
	assert.Equal(t, "1", b.show(t, "NFileDescriptorStore"))
	b.run(t, "systemctl", "stop", "usher")
	assert.Equal(t, "0", b.show(t, "NFileDescriptorStore"))
	assert.Empty(t, b.run(t, "ss", "--udp", "--listening", "--numeric", "--no-header", "sport = :67"), "the port is free")
}

// The unit lets the agent start the child that reads state.db of a version before the log, and move what it has.
func TestOldStateIsMovedUnderSystemd(t *testing.T) {
	if os.Getenv("USHER_LONG") != "1" {
		t.Skip("only in make test-long: it boots a Debian")
	}
	b := bootWorld(t, miniature.Options{Homes: 1})
	packed, err := os.Open("../../provision/lease/testdata/unmarked.db.gz")
	require.NoError(t, err)
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	require.NoError(t, err)
	old, err := io.ReadAll(z)
	require.NoError(t, err)
	state := b.machine.Path("/var/lib/usher")
	require.NoError(t, os.MkdirAll(state, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(state, "state.db"), old, 0o600))
	b.run(t, "chown", "-R", "usher:usher", "/var/lib/usher")
	b.run(t, "systemctl", "start", "usher")
	b.ready(t, "0")
	st, err := b.Client.Status(t.Context())
	require.NoError(t, err)
	assert.False(t, st.State.Failing(), st.State.Error)
	assert.Zero(t, st.State.Unread, st.State.What)
	leases := st.DHCP.Leases.Bound + st.DHCP.Leases.Expired + st.DHCP.Leases.Released + st.DHCP.Leases.Declined + st.DHCP.Leases.Kept
	assert.Positive(t, leases+int(st.Outbox.Sent+st.Outbox.Refused)+st.Outbox.Depth)
	kept, err := os.ReadFile(filepath.Join(state, "state.db.format1"))
	require.NoError(t, err)
	assert.Equal(t, old, kept, "it is put aside as it was")
	t.Logf("%d leases moved", leases)
}
