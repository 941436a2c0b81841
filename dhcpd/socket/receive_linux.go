package socket

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BatchSize is how many packets a Reader takes at once, at most.
const BatchSize = 64

const (
	maxPacket = 4096 // a longer datagram is cut, and so told to be malformed

	// Room for the interface and the time, and some to spare.
	oobSpace = 96
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// Reader receives batches. It belongs to one goroutine.
type Reader struct {
	raw   syscall.RawConn
	msgs  [BatchSize]mmsghdr
	iovs  [BatchSize]unix.Iovec
	names [BatchSize]unix.RawSockaddrInet4
	oobs  [BatchSize][oobSpace]byte
	bufs  [BatchSize][maxPacket]byte

	call func(fd uintptr) bool // made once: a closure for each batch would be garbage
	n    int
	err  error
}

// NewReader returns a reader of the UDP socket.
func (s *Sockets) NewReader() *Reader {
	r := &Reader{raw: s.raw}
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.oobs[i][0]
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(maxPacket)
	}
	r.call = func(fd uintptr) bool {
		for {
			n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), BatchSize,
				unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				r.n, r.err = int(n), nil
				return true
			case unix.EAGAIN:
				return false // the runtime's poller waits
			case unix.EINTR:
			default:
				r.n, r.err = 0, errno
				return true
			}
		}
	}
	return r
}

// Read waits for packets and takes a batch of them. It returns how many it took.
func (r *Reader) Read() (int, error) {
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet4
		h.SetControllen(oobSpace)
	}
	if err := r.raw.Read(r.call); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// Datagram is one received packet.
type Datagram struct {
	Data    []byte // valid until the next batch is read
	Cut     bool   // longer than maxPacket
	From    netip.AddrPort
	Ifindex int
	To      netip.Addr // destination if it is an address of this host; invalid for broadcast
	Came    int64      // when the kernel took it in, in nanoseconds of Unix time; 0: not told, see Sockets.Keep
}

// Packet returns one packet of the batch, counted from 0.
func (r *Reader) Packet(i int) Datagram {
	m := &r.msgs[i]
	sa := &r.names[i]
	port := *(*[2]byte)(unsafe.Pointer(&sa.Port))
	d := Datagram{
		Data: r.bufs[i][:min(int(m.n), maxPacket)],
		Cut:  m.hdr.Flags&unix.MSG_TRUNC != 0,
		From: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), binary.BigEndian.Uint16(port[:])),
	}
	for at, end := 0, min(int(m.hdr.Controllen), oobSpace); at+unix.CmsgLen(0) <= end; {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&r.oobs[i][at]))
		size := int(c.Len) - unix.CmsgLen(0)
		if size < 0 || at+int(c.Len) > end {
			break // the kernel writes none like that
		}
		data := unsafe.Pointer(&r.oobs[i][at+unix.CmsgLen(0)])
		switch {
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && size >= unix.SizeofInet4Pktinfo:
			info := (*unix.Inet4Pktinfo)(data)
			d.Ifindex = int(info.Ifindex)
			if info.Addr == info.Spec_dst {
				d.To = netip.AddrFrom4(info.Addr)
			}
		case c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_TIMESTAMPNS && size >= int(unsafe.Sizeof(unix.Timespec{})):
			d.Came = (*unix.Timespec)(data).Nano()
		}
		at += unix.CmsgSpace(size)
	}
	return d
}
