package acl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/acl/ruleset"
)

const (
	// eventBuffer holds the kernel's messages until they are read. A table of
	// 100,000 elements that somebody fills makes some 10 MB of them.
	eventBuffer = 16 << 20
	// muteFrom is the number of elements from which on a batch of ours is not
	// told to ourselves: the kernel then makes no message of each element, which
	// takes it longer than the change.
	muteFrom = chunk
	// maxPorts bounds the numbers of sockets that are remembered.
	maxPorts = 64
	// maxWriters bounds the names kept until somebody asks.
	maxWriters = 8
)

// Watch calls wake after each commit to the ruleset that touched our table and
// was made by another process. It subscribes to the kernel's events and returns
// an error when some of them were lost, nil when ctx ends.
func (t *Table) Watch(ctx context.Context, wake func()) error {
	conn, err := t.listen()
	if err != nil {
		return fmt.Errorf("acl: listen for events: %w", err)
	}
	defer conn.Close()
	t.hear(conn, wake)
	defer t.hear(nil, nil)
	// The deadline in the past makes a Receive that waits give up.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	wake() // for what happened before we listened
	var tr transaction
	for {
		messages, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("acl: events: %w", err)
		}
		for _, m := range messages {
			if t.heard(&tr, m) {
				wake()
			}
		}
	}
}

// hear says who listens now; nil: nobody.
func (t *Table) hear(conn *netlink.Conn, wake func()) {
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	t.events, t.wake = conn, wake
}

// mutedLocked runs f, which commits n elements, without listening to it if it is
// big. Whoever wrote meanwhile is found by the generation.
func (t *Table) mutedLocked(n int, f func() error) error {
	t.eventsMu.Lock()
	conn, wake := t.events, t.wake
	t.eventsMu.Unlock()
	if n < muteFrom || conn == nil || conn.LeaveGroup(unix.NFNLGRP_NFTABLES) != nil {
		return f()
	}
	err := f()
	// Somebody may have written meanwhile whom nobody heard: the generation tells.
	if conn.JoinGroup(unix.NFNLGRP_NFTABLES) != nil {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // Watch ends, and begins anew
	}
	if err == nil { // else whoever tries again looks at everything, and chooses when
		wake()
	}
	return err
}

// transaction is what was told of a commit so far: the kernel tells each
// change and then the new generation with its author.
type transaction struct {
	ours bool // it touched our table
}

// heard takes one event; it tells whether somebody else has changed our table.
func (t *Table) heard(tr *transaction, m netlink.Message) bool {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	if uint16(m.Header.Type)&0xff != unix.NFT_MSG_NEWGEN {
		tr.ours = tr.ours || touches(m.Data)
		return false
	}
	touched := tr.ours
	tr.ours = false
	if !touched || t.isSelf(m) {
		return false
	}
	w, _ := parseWriter(m.Data) // a name that cannot be read is not known
	t.note(w)
	return true
}

// touches tells whether a change is one of our table. In the messages of all
// kinds of objects the table's name is the first attribute.
func touches(msg []byte) bool {
	if len(msg) < 4 || msg[0] != unix.NFPROTO_INET && msg[0] != unix.NFPROTO_NETDEV {
		return false
	}
	const attrTable = unix.NFTA_TABLE_NAME
	found := false
	_ = eachAttr(payload(msg), func(typ uint16, v []byte) error {
		found = found || typ == attrTable && strings.TrimRight(string(v), "\x00") == ruleset.TableName
		return nil
	})
	return found
}

// writer is the author of a generation.
type writer struct {
	pid  uint32
	name string
}

func (w writer) String() string {
	if w == (writer{}) {
		return "unknown"
	}
	return fmt.Sprintf("%s (%d)", w.name, w.pid)
}

// The attributes of NFT_MSG_NEWGEN (enum nft_gen_attributes).
const (
	attrGenPID  = 2
	attrGenName = 3
)

func parseWriter(msg []byte) (writer, error) {
	var w writer
	err := eachAttr(payload(msg), func(typ uint16, v []byte) error {
		switch {
		case typ == attrGenPID && len(v) == 4:
			w.pid = binary.BigEndian.Uint32(v)
		case typ == attrGenName:
			w.name = strings.ToValidUTF8(strings.TrimRight(string(v), "\x00"), "?")
		}
		return nil
	})
	return w, err
}

// isSelf tells whether the event is of a commit of ours: it carries the number
// of the socket that sent it. (The process id in it is that of a thread.)
func (t *Table) isSelf(m netlink.Message) bool {
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	return t.ports[m.Header.PID]
}

// ownPort remembers a socket for batches by its number.
func (t *Table) ownPort(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var name unix.Sockaddr
	var e error
	if err := raw.Control(func(fd uintptr) { name, e = unix.Getsockname(int(fd)) }); err != nil {
		return err
	}
	sa, ok := name.(*unix.SockaddrNetlink)
	if e != nil || !ok {
		return fmt.Errorf("number of the netlink socket: %w", e)
	}
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	if t.ports == nil || len(t.ports) >= maxPorts {
		t.ports = map[uint32]bool{} // whose last commit is heard long since
	}
	t.ports[sa.Pid] = true
	return nil
}

// note remembers who wrote.
func (t *Table) note(w writer) {
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	s := w.String()
	for _, have := range t.writers {
		if have == s {
			return
		}
	}
	if len(t.writers) < maxWriters {
		t.writers = append(t.writers, s)
	}
}

// Writers names the processes that wrote to the table since the last call, us
// excepted, as far as Watch heard of them.
func (t *Table) Writers() []string {
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	w := t.writers
	t.writers = nil
	return w
}

// lastWriters is Writers, and leaves the names for the next call of it.
func (t *Table) lastWriters() []string {
	t.eventsMu.Lock()
	defer t.eventsMu.Unlock()
	return slices.Clone(t.writers)
}

// listenKernel subscribes to the events of nftables.
func listenKernel(netNS int) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netNS})
	if err != nil {
		return nil, err
	}
	err = c.SetReadBuffer(eventBuffer)
	if err == nil {
		err = c.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
