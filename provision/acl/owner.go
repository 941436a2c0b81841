package acl

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerSocket is a name in the abstract namespace of unix sockets, which every
// network namespace has for itself. Whoever holds it owns the table. The kernel
// frees it when the process ends, however that happens; nft's own flag "owner"
// would take the table away with the process.
const ownerSocket = "@usher-acl"

// ErrOwned says that another process keeps this table.
var ErrOwned = errors.New("another process keeps the table " + tableTitle)

// own takes the ownership of the table in a network namespace; zero is that of
// the calling thread.
func own(netNS int) (net.Listener, error) {
	var owner net.Listener
	err := inNamespace(netNS, func() (err error) {
		owner, err = net.Listen("unix", ownerSocket)
		return err
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: %s", ErrOwned, holder(netNS))
	}
	if err != nil {
		return nil, fmt.Errorf("take the ownership: %w", err)
	}
	return owner, nil
}

// holder names the process that has the socket.
func holder(netNS int) string {
	var cred *unix.Ucred
	err := inNamespace(netNS, func() error {
		c, err := net.Dial("unix", ownerSocket)
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.(*net.UnixConn).SyscallConn()
		if err != nil {
			return err
		}
		var e error
		if err := raw.Control(func(fd uintptr) { cred, e = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
			return err
		}
		return e
	})
	if err != nil || cred.Pid == 0 {
		return "it cannot be named, as it is in another pid namespace or has just ended"
	}
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	return fmt.Sprintf("%q, process %d of user %d; end it first", trimNewline(name), cred.Pid, cred.Uid)
}

func trimNewline(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	return string(b)
}

// inNamespace runs f on a thread of the network namespace. Sockets stay in the
// namespace in which they were made.
func inNamespace(netNS int, f func() error) error {
	if netNS == 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace ends with
		// this goroutine instead of serving others.
		runtime.LockOSThread()
		if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}
