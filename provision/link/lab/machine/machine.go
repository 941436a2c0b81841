// Package machine boots Debian under systemd inside a host of a lab, for tests of what only a service manager does: units,
// restarts, packages. It needs root, mmdebstrap, systemd-nspawn and, for the first root, Debian's mirror.
package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/provision/link/lab"
)

const (
	suite = "bookworm" // Debian 12
	// keepRoot is how long a root is used again before it is made anew.
	keepRoot = 7 * 24 * time.Hour
	// bootLimit bounds the boot on a busy machine; alone it takes two seconds.
	bootLimit = 2 * time.Minute
)

// Tools are the commands that it needs.
func Tools() []string { return []string{"mmdebstrap", "systemd-nspawn", "nsenter", "tar"} }

// Unpack puts a Debian with systemd and further packages into dir, which must be empty. The first time it is loaded from
// the mirror, which takes about a minute; a copy is kept in the user's cache directory.
func Unpack(ctx context.Context, dir string, packages ...string) error {
	archive, err := image(ctx, append([]string{"systemd-sysv", "dbus", "iproute2"}, packages...))
	if err != nil {
		return err
	}
	return run(ctx, "tar", "--extract", "--numeric-owner", "--file", archive, "--directory", dir)
}

// image returns the path of the root as an archive, and makes it if there is none or an old one.
func image(ctx context.Context, packages []string) (path string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "usher-tests")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	list := strings.Join(packages, ",")
	sum := sha256.Sum256([]byte(list))
	path = filepath.Join(cache, fmt.Sprintf("%s-%x.tar", suite, sum[:6]))
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < keepRoot {
		return path, nil
	}
	work, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	made := filepath.Join(work, "root.tar")
	if err := run(ctx, "mmdebstrap", "--quiet", "--variant=apt", "--include="+list, suite, made); err != nil {
		return "", err
	}
	return path, os.Rename(made, path) // who makes one at the same time makes the same
}

// Machine is a Debian that runs.
type Machine struct {
	Root   string // its files, as this process sees them
	leader int    // its first process
	nspawn *lab.Process
}

// Boot starts the Debian of root in the network of a host of the lab, and waits until all its units are started. Its files
// may be changed before and meanwhile.
func Boot(ctx context.Context, h *lab.Host, root string) (*Machine, error) {
	// The mount namespace of this process: that of "ip netns exec" has a /sys without control groups.
	p, err := h.StartEnv([]string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"}, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", os.Getpid()),
		"systemd-nspawn", "--quiet", "--directory="+root,
		"--register=no", "--keep-unit", "--capability=CAP_NET_ADMIN", "--network-namespace-path=/run/netns/"+h.Namespace, "--resolv-conf=off", "--timezone=off", "--boot", "--console=pipe")
	if err != nil {
		return nil, err
	}
	m := &Machine{Root: root, nspawn: p}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if err := m.wait(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("boot %s: %w: %s", root, err, tail(p.Log()))
	}
	return m, nil
}

// wait waits for the first process and for the end of the boot.
func (m *Machine) wait(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-m.nspawn.Done():
			return errors.New("systemd-nspawn ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if m.leader == 0 {
			m.leader = child(m.nspawn.PID())
			continue
		}
		// Until systemd has its bus there is nobody to ask. "degraded" is a boot too: the test sees which unit failed.
		state, _ := m.Output(ctx, "systemctl", "is-system-running", "--wait")
		if state = strings.TrimSpace(state); state == "running" || state == "degraded" {
			return nil
		}
	}
}

// child returns the process whose parent is pid and that has become an init; 0: not yet.
func child(pid int) int {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		return 0
	}
	for _, f := range strings.Fields(string(list)) {
		n, err := strconv.Atoi(f)
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n)); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
			return n
		}
	}
	return 0
}

// Output runs a program in the machine and gives what it printed, both streams.
func (m *Machine) Output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--all", "--", name}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out)))
	}
	return string(out), err
}

// Path is where this process finds a file of the machine, also one on a file system of its own such as /run.
func (m *Machine) Path(file string) string {
	return filepath.Join("/proc", strconv.Itoa(m.leader), "root", file)
}

// Close ends the machine with all its processes, as a power cut does.
func (m *Machine) Close() {
	if m.leader != 0 {
		_ = syscall.Kill(m.leader, syscall.SIGKILL) // the first process: all others end with it
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = m.nspawn.Wait(ctx)
	}
	m.nspawn.Kill()
}

func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(out.String()))
	}
	return nil
}

// tail is the end of what a program printed, on one line.
func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
