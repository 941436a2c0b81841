// Package batch is a UDP socket that takes and sends datagrams many at a time
// (recvmmsg(2), sendmmsg(2)) and allocates nothing meanwhile: what a load
// generator and an echo should cost is as little as the kernel allows.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// Size is the most datagrams in one call of the kernel.
	Size = 64
	// Room is the most bytes of a datagram; what is longer is cut.
	Room = 1024

	socketBuffer = 8 << 20
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// messages is one direction.
type messages struct {
	hdrs  [Size]mmsghdr
	iovs  [Size]unix.Iovec
	names [Size]unix.RawSockaddrInet4
	bufs  [Size][Room]byte
}

func newMessages() *messages {
	m := &messages{}
	for i := range m.hdrs {
		m.hdrs[i].hdr.Iov = &m.iovs[i]
		m.hdrs[i].hdr.SetIovlen(1)
		m.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&m.names[i]))
		m.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet4
		m.iovs[i].Base = &m.bufs[i][0]
		m.iovs[i].SetLen(Room)
	}
	return m
}

// Conn is such a socket. It belongs to one goroutine, but for Wake.
type Conn struct {
	fd      int
	local   unix.SockaddrInet4
	in, out *messages
	queued  int
}

// Listen opens a socket at a local IPv4 address, in the network namespace of the calling thread.
func Listen(local netip.AddrPort) (*Conn, error) {
	if !local.Addr().Is4() {
		return nil, fmt.Errorf("batch: listen at %v: want an IPv4 address", local)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer) // a small buffer still works
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return nil, errors.Join(fmt.Errorf("batch: bind %v: %w", local, err), unix.Close(fd))
	}
	c := &Conn{fd: fd, in: newMessages(), out: newMessages()}
	sa, err := unix.Getsockname(fd)
	if at, ok := sa.(*unix.SockaddrInet4); ok {
		c.local = *at
		return c, nil
	}
	return nil, errors.Join(fmt.Errorf("batch: address of the socket: %w", err), unix.Close(fd))
}

// LocalAddr returns what the socket is bound to.
func (c *Conn) LocalAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(c.local.Addr), uint16(c.local.Port))
}

// Wake ends a Receive that waits, by an empty datagram from the socket to itself.
func (c *Conn) Wake() error { return unix.Sendto(c.fd, nil, 0, &c.local) }

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Receive takes what has come, Size at most, and returns how many that are. If
// nothing has, it waits: for ever if wait is negative, else at most so long, and
// returns 0 then.
func (c *Conn) Receive(wait time.Duration) (int, error) {
	for i := range c.in.hdrs {
		c.in.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet4
		c.in.iovs[i].SetLen(Room)
	}
	if wait < 0 {
		return c.recvmmsg(unix.MSG_WAITFORONE)
	}
	n, err := c.recvmmsg(unix.MSG_DONTWAIT)
	if n > 0 || err != nil || wait == 0 {
		return n, err
	}
	ts := unix.NsecToTimespec(int64(wait))
	poll := [1]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	if _, err := unix.Ppoll(poll[:], &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("batch: poll: %w", err)
	}
	return c.recvmmsg(unix.MSG_DONTWAIT)
}

func (c *Conn) recvmmsg(flags uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.in.hdrs[0])), Size, flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, fmt.Errorf("batch: receive: %w", errno)
		}
	}
}

// Packet returns the i-th datagram of those that Receive took. It may be written to, and is good until the next Receive.
func (c *Conn) Packet(i int) []byte {
	return c.in.bufs[i][:min(int(c.in.hdrs[i].n), Room)]
}

// Answer sends the first n datagrams of those that Receive took back to where they came from, as they now are.
func (c *Conn) Answer(n int) error {
	for i := range n {
		c.in.iovs[i].SetLen(len(c.Packet(i)))
	}
	return c.sendmmsg(c.in, n)
}

// Queue puts a datagram to an IPv4 address among those that leave with the next Flush, which is at once when there are Size.
func (c *Conn) Queue(b []byte, to netip.AddrPort) error {
	i := c.queued
	name := &c.out.names[i]
	name.Family, name.Addr = unix.AF_INET, to.Addr().As4()
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], to.Port())
	c.out.iovs[i].SetLen(copy(c.out.bufs[i][:], b))
	c.queued++
	if c.queued < Size {
		return nil
	}
	return c.Flush()
}

// Flush sends what is queued.
func (c *Conn) Flush() error {
	n := c.queued
	c.queued = 0
	return c.sendmmsg(c.out, n)
}

func (c *Conn) sendmmsg(m *messages, n int) error {
	for at := 0; at < n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&m.hdrs[at])), uintptr(n-at), 0, 0, 0)
		switch errno {
		case 0:
			at += int(sent)
		case unix.EINTR:
		default:
			return fmt.Errorf("batch: send: %w", errno)
		}
	}
	return nil
}
