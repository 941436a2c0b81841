package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// need skips without the tool, unless CI says that nothing may be skipped.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
		t.Fatalf("%s is not installed and USHER_REQUIRE_KERNEL=1", tool)
	}
	t.Skipf("needs %s", tool)
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// unitCopy returns the path of a copy of the unit with a stand-in program, for
// the tools insist that the program is there.
func unitCopy(t *testing.T, change func(string) string) string {
	t.Helper()
	data, err := os.ReadFile("usher.service")
	require.NoError(t, err)
	dir := t.TempDir()
	program := filepath.Join(dir, "usher")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	text := strings.Replace(string(data), "/usr/bin/usher", program, 1)
	require.NotEqual(t, string(data), text)
	path := filepath.Join(dir, "usher.service")
	require.NoError(t, os.WriteFile(path, []byte(change(text)), 0o644))
	return path
}

func same(s string) string { return s }

func TestVerify(t *testing.T) {
	need(t, "systemd-analyze")
	unit := unitCopy(t, same)
	out, err := run(t, "systemd-analyze", "verify", "--man=no", unit)
	require.NoError(t, err, out)
	for line := range strings.Lines(out) { // warnings do not fail the tool
		assert.NotContains(t, line, "usher.service", "systemd-analyze complains")
	}

	broken := unitCopy(t, func(s string) string { return strings.Replace(s, "WatchdogSec=30s", "WatchdogSecs=30s", 1) })
	out, _ = run(t, "systemd-analyze", "verify", "--man=no", broken)
	assert.Contains(t, out, "WatchdogSecs", "the check sees a wrong key")
}

// TestSecurity: systemd's exposure goes from 0 (tight) to 10. What is left here
// is that a DHCP server and packet filter needs the host's network.
func TestSecurity(t *testing.T) {
	need(t, "systemd-analyze")
	const threshold = "22" // tenths
	unit := unitCopy(t, same)
	out, err := run(t, "systemd-analyze", "security", "--offline=true", "--threshold="+threshold, "--no-pager", unit)
	require.NoError(t, err, "exposure above %s tenths:\n%s", threshold, out)

	open := unitCopy(t, func(s string) string { return strings.Replace(s, "ProtectSystem=strict\n", "", 1) })
	_, err = run(t, "systemd-analyze", "security", "--offline=true", "--threshold="+threshold, "--no-pager", open)
	assert.Error(t, err, "the threshold is too wide to see one missing line")
}

// values returns what a key is set to, in order; comments do not count.
func values(t *testing.T, key string) []string {
	t.Helper()
	data, err := os.ReadFile("usher.service")
	require.NoError(t, err)
	var out []string
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			out = append(out, v)
		}
	}
	return out
}

func TestPrivileges(t *testing.T) {
	caps := []string{"CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE"}
	assert.Equal(t, caps, values(t, "AmbientCapabilities"))
	assert.Equal(t, caps, values(t, "CapabilityBoundingSet"))
	assert.Equal(t, []string{"usher"}, values(t, "User"))
	families := strings.Fields(values(t, "RestrictAddressFamilies")[0])
	slices.Sort(families)
	assert.Equal(t, []string{"AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX"}, families)
}

// The DHCP socket is kept over a restart, and comes from the agent alone. FileDescriptorStorePreserve= is not said: "restart" is its
// default, and systemd before 254 does the same without knowing the word.
func TestDescriptorStore(t *testing.T) {
	assert.Equal(t, []string{"4"}, values(t, "FileDescriptorStoreMax"))
	assert.Equal(t, []string{"main"}, values(t, "NotifyAccess"))
	assert.Empty(t, values(t, "FileDescriptorStorePreserve"))
}

// TestSystemCalls: the filter lets through what the agent and Go's runtime call
// and what the groups that it takes out would forbid.
func TestSystemCalls(t *testing.T) {
	need(t, "systemd-analyze")
	group := func(name string) []string {
		out, err := run(t, "systemd-analyze", "syscall-filter", "--no-pager", name)
		require.NoError(t, err, out)
		var calls []string
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && line != name {
				calls = append(calls, line)
			}
		}
		return calls
	}
	var expand func(name string, into map[string]bool, on bool)
	expand = func(name string, into map[string]bool, on bool) {
		if !strings.HasPrefix(name, "@") {
			into[name] = on
			return
		}
		for _, c := range group(name) {
			expand(c, into, on)
		}
	}
	allowed := map[string]bool{}
	for _, list := range values(t, "SystemCallFilter") {
		list, off := strings.CutPrefix(list, "~")
		for _, name := range strings.Fields(list) {
			expand(name, allowed, !off)
		}
	}
	for _, call := range []string{
		// Go's runtime
		"clone", "futex", "mmap", "munmap", "madvise", "rt_sigaction", "sigaltstack", "epoll_pwait", "eventfd2",
		"prlimit64", "sched_getaffinity", "sched_yield", "tgkill", "getrandom", "nanosleep", "clock_gettime",
		// sockets, netlink and the control socket
		"socket", "bind", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "setsockopt", "accept4", "fchmodat", "fchownat", "unlinkat",
		// the database and the stored snapshot
		"fdatasync", "fsync", "flock", "pwrite64", "renameat", "ftruncate",
	} {
		assert.True(t, allowed[call], "%s is not allowed", call)
	}
	for _, call := range []string{"mount", "ptrace", "init_module", "reboot", "bpf", "setuid", "swapon", "clock_settime"} {
		assert.False(t, allowed[call], "%s is allowed", call)
	}
}

func TestSysusersAndTmpfiles(t *testing.T) {
	need(t, "systemd-sysusers")
	need(t, "systemd-tmpfiles")
	if os.Geteuid() != 0 {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("needs root and USHER_REQUIRE_KERNEL=1")
		}
		t.Skip("needs root to make files of other users")
	}
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	abs, err := filepath.Abs("usher.sysusers")
	require.NoError(t, err)
	out, err := run(t, "systemd-sysusers", "--root="+root, abs)
	require.NoError(t, err, out)
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	require.NoError(t, err)
	assert.Regexp(t, regexp.MustCompile(`(?m)^usher:x:\d+:\d+:usher agent:/var/lib/usher:/usr/sbin/nologin$`), string(passwd))

	abs, err = filepath.Abs("usher.tmpfiles")
	require.NoError(t, err)
	key := filepath.Join(root, "etc/usher/userside.key")
	require.NoError(t, os.MkdirAll(filepath.Dir(key), 0o700))
	secret, portal := filepath.Join(root, "etc/usher/hook.secret"), filepath.Join(root, "etc/usher/portal.key")
	for _, path := range []string{key, secret, portal} {
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
	}
	out, err = run(t, "systemd-tmpfiles", "--create", "--root="+root, abs)
	require.NoError(t, err, out)
	for path, want := range map[string]os.FileMode{key: 0o600, secret: 0o600, portal: 0o640, filepath.Dir(key): 0o755 | os.ModeDir} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode(), path)
	}
}
