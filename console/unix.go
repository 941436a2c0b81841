package console

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout is how long a listener on an existing socket may take to accept.
const probeTimeout = time.Second

// ListenUnix listens on a unix socket of mode 0660 that belongs to group, or to
// the process's own group if that is empty. A missing directory is made with
// mode 0755. A socket that an earlier agent left behind is replaced; one on
// which somebody answers is left alone, and the error names its process.
func ListenUnix(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fmt.Errorf("control socket: group %s: %w", group, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Connecting needs the right to write, which no usual umask gives to others
	// between the two calls.
	if err := share(path, gid); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

func share(path string, gid int) error {
	if gid >= 0 {
		if err := os.Chown(path, -1, gid); err != nil {
			return fmt.Errorf("%w (is the agent's user a member of control.group?)", err)
		}
	}
	return os.Chmod(path, 0o660)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket; it was left alone", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		pid := peerPID(conn)
		_ = conn.Close()
		return fmt.Errorf("another agent answers on %s (process %s)", path, pid)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	default:
		return fmt.Errorf("somebody may still use %s: %w", path, err)
	}
}

// peerPID names the process that listens at the other end.
func peerPID(conn net.Conn) string {
	if cred := peerOf(conn); cred != nil && cred.Pid > 0 {
		return strconv.Itoa(int(cred.Pid))
	}
	return "unknown"
}

// peerOf returns the process at the other end, as it was when it connected or
// began to listen; nil: not known.
func peerOf(conn net.Conn) *unix.Ucred {
	if in, ok := conn.(interface{ Unwrap() net.Conn }); ok { // let in by a door
		conn = in.Unwrap()
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	_ = raw.Control(func(fd uintptr) {
		if got, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			cred = got
		}
	})
	return cred
}
