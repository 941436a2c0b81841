package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// This file is the descriptor store of systemd (FileDescriptorStoreMax= of the unit, sd_pid_notify_with_fds(3)). What is in
// it is the unit's alone: nobody else can get at it but root.

// dropLimit bounds how long is waited for a service manager to close what it kept.
const dropLimit = 2 * time.Second

// Kept implements agent.Service.
func (serviceManager) Kept() []*os.File { return activation.Files(true) }

// Keep implements agent.Service. FDPOLL=0: else systemd drops a socket that has an error.
func (serviceManager) Keep(name string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) { err = notifyWith("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, int(fd)) })
	return errors.Join(cerr, err)
}

// Drop implements agent.Service. The barrier is a pipe of which the manager closes the other end when it has done what
// it was told before.
func (serviceManager) Drop(name string) error {
	if err := notifyWith("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	c, err := w.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) { err = notifyWith("BARRIER=1", int(fd)) })
		err = errors.Join(cerr, err)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(dropLimit))
	if _, err = r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the service manager has not answered within %s", dropLimit)
	}
	return nil
}

// notifyWith tells the service manager something, with descriptors.
func notifyWith(state string, fds ...int) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return errors.ErrUnsupported
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return errors.Join(unix.Sendmsg(s, []byte(state), rights, &unix.SockaddrUnix{Name: name}, 0), unix.Close(s))
}
