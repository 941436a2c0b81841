package acl

import (
	"errors"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The nftables library asks with pselect whether its socket has an answer. That takes descriptors below
// FD_SETSIZE, and the library ends the program at a higher one (socket.go, isReadReady). A busy agent has more
// descriptors than that: connections to its portal alone can be twice as many. So some low numbers are kept
// for its sockets, which are opened anew after each failed exchange.

const (
	fdSetSize = 1024
	keptLow   = 8
)

// errHighNumber says that all low numbers are in use.
var errHighNumber = errors.New("no descriptor below 1024 is free for a netlink socket")

// lowNumbers are descriptors kept for sockets of the nftables library.
type lowNumbers struct {
	mu   sync.Mutex
	kept []int
}

// low are those of the process, as its descriptors are.
var low lowNumbers

// dial opens a connection whose socket has a low number, in place of a kept one if there is no other.
func (l *lowNumbers) dial(options ...nftables.ConnOption) (*nftables.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	defer l.fill() // with what others let go meanwhile
	for {
		conn, err := nftables.New(append(options, nftables.AsLasting())...)
		if !errors.Is(err, errHighNumber) || len(l.kept) == 0 {
			return conn, err
		}
		// Somebody else may be quicker to take it, so there are several.
		last := len(l.kept) - 1
		_ = unix.Close(l.kept[last])
		l.kept = l.kept[:last]
	}
}

// refill takes back what a closed socket had.
func (l *lowNumbers) refill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) > 0 { // a socket of the kernel was opened once
		l.fill()
	}
}

// fill keeps as many as are missing, if that many are free.
func (l *lowNumbers) fill() {
	for len(l.kept) < keptLow {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		if fd >= fdSetSize {
			_ = unix.Close(fd)
			return
		}
		l.kept = append(l.kept, fd)
	}
}

// lowNumber closes a socket that the library cannot ask, with errHighNumber.
func lowNumber(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	high := false
	if err := raw.Control(func(fd uintptr) { high = fd >= fdSetSize }); err != nil {
		return err
	}
	if high {
		return errors.Join(errHighNumber, c.Close())
	}
	return nil
}
