package acl_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// TestHelperOwner is no test: TestKernelSecondAgentIsRefused runs it as another process.
func TestHelperOwner(t *testing.T) {
	if os.Getenv("USHER_TEST_OWNER") == "" {
		t.Skip("runs as a process of another test only")
	}
	table, err := acl.Open(t.Context(), acl.Options{})
	fmt.Println("opened:", err)
	if err != nil {
		return
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the other end is closed
	_ = table.Close()
}

func (r *router) startOwner() (cmd *exec.Cmd, said string) {
	r.t.Helper()
	cmd = exec.Command("ip", "netns", "exec", r.host.Namespace, os.Args[0], "-test.run=^TestHelperOwner$", "-test.v")
	cmd.Env = append(os.Environ(), "USHER_TEST_OWNER=1")
	in, err := cmd.StdinPipe()
	require.NoError(r.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(r.t, err)
	require.NoError(r.t, cmd.Start())
	r.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if said, ok := strings.CutPrefix(lines.Text(), "opened: "); ok {
			return cmd, said
		}
	}
	require.FailNow(r.t, "the other process said nothing")
	return nil, ""
}

func TestKernelSecondAgentIsRefused(t *testing.T) {
	r := newRouter(t)
	first, said := r.startOwner()
	require.Equal(t, "<nil>", said)

	_, err := r.tryOpen(acl.Options{})
	require.ErrorIs(t, err, acl.ErrOwned)
	require.ErrorContains(t, err, fmt.Sprintf("process %d of user 0; end it first", first.Process.Pid))
	_, said = r.startOwner()
	require.Contains(t, said, "another process keeps the table inet usher")

	other, err := r.lab.Host("other")
	require.NoError(t, err)
	elsewhere := &router{t, r.lab, other}
	elsewhere.open()

	// Whatever the end of the first, the next one may come.
	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	mine := r.open()
	_, err = r.tryOpen(acl.Options{})
	require.ErrorIs(t, err, acl.ErrOwned, "within one process too")
	require.NoError(t, mine.Close())
	r.open()
}

// asUser runs f on a thread of the router's network namespace with another user's
// rights, that of no user of the machine's.
func (r *router) asUser(uid int, f func() error) error {
	r.t.Helper()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its rights
		if err := unix.Setns(r.namespace(), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			result <- errno
			return
		}
		result <- f()
	}()
	return <-result
}

// A user without rights can neither keep the agent from starting nor pose as one.
func TestKernelNobodyElseOwnsTheTable(t *testing.T) {
	r := newRouter(t)
	var squatter net.Listener
	require.NoError(t, r.asUser(65534, func() (err error) {
		squatter, err = net.Listen("unix", "@usher-acl")
		return err
	}))
	defer squatter.Close()
	require.ErrorIs(t, r.asUser(65534, func() error {
		table, err := acl.Open(t.Context(), acl.Options{})
		if err == nil {
			_ = table.Close()
		}
		return err
	}), unix.EPERM)

	first, said := r.startOwner()
	require.Equal(t, "<nil>", said)
	_, err := r.tryOpen(acl.Options{})
	require.ErrorIs(t, err, acl.ErrOwned, "still one in a namespace")
	require.ErrorContains(t, err, fmt.Sprintf("process %d of user 0; end it first", first.Process.Pid))
	require.NotContains(t, r.nft("list table inet usher"), "usher_lock")
	saved := filepath.Join(t.TempDir(), "saved.nft")
	require.NoError(t, os.WriteFile(saved, []byte(r.nft("list ruleset")), 0o600))
	r.nft("flush ruleset")
	_, err = r.tryOpen(acl.Options{})
	require.ErrorIs(t, err, acl.ErrOwned, "an operator who flushes the ruleset takes nothing from the agent")

	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	require.NotContains(t, r.nft("list ruleset"), "usher_lock", "the kernel takes it away")
	r.nft("-f", saved)               // what was saved while an agent ran can be loaded where none does
	r.nft("add table ip usher_lock") // from a listing that was saved while an agent ran
	mine := r.open()
	require.Contains(t, r.nft("list table ip usher_lock"), "flags owner")
	require.NoError(t, mine.Close())
}

// The name is of no use to a user without rights, whatever he does with his socket.
func TestKernelSocketNameOfOthersIsIgnored(t *testing.T) {
	r := newRouter(t)
	for name, squat := range map[string]func(fd int) error{
		"who does not listen": func(int) error { return nil },
		"who lets nobody in": func(fd int) error {
			if err := unix.Listen(fd, 0); err != nil {
				return err
			}
			for range 2 { // the second finds the queue full
				c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = unix.Close(c) })
				if err := unix.Connect(c, &unix.SockaddrUnix{Name: "@usher-acl"}); err != nil && !errors.Is(err, unix.EAGAIN) {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, r.asUser(65534, func() error {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				t.Cleanup(func() { _ = unix.Close(fd) })
				if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@usher-acl"}); err != nil {
					return err
				}
				return squat(fd)
			}))
			table, err := r.tryOpen(acl.Options{})
			require.NoError(t, err)
			_, err = r.tryOpen(acl.Options{})
			require.ErrorIs(t, err, acl.ErrOwned, "still one in a namespace")
			require.NoError(t, table.Close())
			require.NoError(t, acl.Remove(t.Context(), acl.Options{NetNS: r.namespace()}), "usher acl clear")
		})
	}
}

// What nft lists while an agent runs it reads again, as it does at a boot.
func TestKernelListingIsReadAgain(t *testing.T) {
	r := newRouter(t)
	r.open()
	file := filepath.Join(t.TempDir(), "ruleset.nft")
	require.NoError(t, os.WriteFile(file, []byte(r.nft("list", "ruleset")), 0o600))
	other, err := r.lab.Host("other")
	require.NoError(t, err)
	elsewhere := &router{t, r.lab, other}
	elsewhere.nft("-f", file)
	require.Contains(t, elsewhere.list(), "chain from_stopped")
	elsewhere.open()
}

// A version that knows the name alone keeps ours out, and ours it.
func TestKernelEarlierVersionsAreKeptOut(t *testing.T) {
	r := newRouter(t)
	var earlier net.Listener
	listen := func() error {
		return r.host.Do(func() (err error) {
			earlier, err = net.Listen("unix", "@usher-acl")
			return err
		})
	}
	require.NoError(t, listen())
	_, err := r.tryOpen(acl.Options{})
	require.ErrorIs(t, err, acl.ErrOwned)
	require.ErrorContains(t, err, fmt.Sprintf("process %d of user 0; end it first", os.Getpid()))
	require.NotContains(t, r.nft("list ruleset"), "usher_lock", "who is refused leaves nothing")
	require.NoError(t, earlier.Close())
	r.open()
	require.ErrorIs(t, listen(), unix.EADDRINUSE)
}

func TestKernelHandlesBesideAnAgent(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	apply(t, table, append(add(access.SetStopped, subscribers(0, 2)...), add(access.SetGuests, subscribers(5, 1)...)...))
	o := acl.Options{NetNS: r.namespace()}

	reader := acl.NewReader(o)
	defer reader.Close()
	text, err := reader.AsNFT(t.Context(), ruleset.Policy{})
	require.NoError(t, err)
	require.Equal(t, r.list(), text)
	sets, err := reader.Sets(t.Context(), subscribers(5, 1)[0])
	require.NoError(t, err)
	require.Equal(t, []access.Set{access.SetGuests}, sets)
	sets, err = reader.Sets(t.Context(), subscribers(9, 1)[0])
	require.NoError(t, err)
	require.Empty(t, sets)
	// A defect is told and left alone.
	r.nft("add chain inet usher more")
	before := r.list()
	view, err := reader.Read(t.Context(), ruleset.Policy{})
	require.NoError(t, err)
	require.Contains(t, view.Defect, "chains in the table")
	require.Equal(t, 2, view.ACL.Counts()[access.SetStopped])
	require.Equal(t, before, r.list())

	require.ErrorIs(t, acl.Remove(t.Context(), o), acl.ErrOwned)
	require.NoError(t, table.Close())
	require.NoError(t, acl.Remove(t.Context(), o))
	require.NotContains(t, r.nft("list ruleset"), "usher")
	require.NoError(t, acl.Remove(t.Context(), o), "again")
	_, err = reader.AsNFT(t.Context(), ruleset.Policy{})
	require.ErrorIs(t, err, acl.ErrNotAsWritten)
}
