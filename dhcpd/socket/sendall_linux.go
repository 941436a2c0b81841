package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// Reply is one of many that are sent together.
type Reply struct {
	To      Delivery
	Payload []byte
	Err     error // of the last SendAll: nil if it left
}

// outbox is what sendmmsg(2) takes: datagrams by the UDP socket.
type outbox struct {
	n     int
	of    [BatchSize]*Reply
	msgs  [BatchSize]mmsghdr
	iovs  [BatchSize]unix.Iovec
	names [BatchSize]unix.RawSockaddrInet4
	oobs  [BatchSize][]byte

	call func(fd uintptr) // made once: a closure for each batch would be garbage
}

func newOutbox() *outbox {
	o := &outbox{}
	for i := range o.msgs {
		o.oobs[i] = newPktinfo()
		h := &o.msgs[i].hdr
		o.names[i].Family = unix.AF_INET
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&o.names[i])), unix.SizeofSockaddrInet4
		h.Iov, h.Control = &o.iovs[i], &o.oobs[i][0]
		h.SetIovlen(1)
	}
	o.call = o.sendmmsg
	return o
}

// SendAll delivers each reply once, as Send does, and says in it what became of it. Datagrams that leave by the same socket
// go to the kernel by one call: each of its own costs a turn through it, and wakes the one who reads them.
func (x *Sender) SendAll(replies []*Reply) {
	if x.many == nil && len(replies) > 1 {
		x.many = newOutbox()
	}
	for _, r := range replies {
		switch {
		case len(replies) == 1 || !x.together(r):
			r.Err = x.Send(&r.To, r.Payload)
		default:
			if x.many.add(r); x.many.n == BatchSize {
				x.flush()
			}
		}
	}
	x.flush()
}

// together reports whether a reply leaves by the UDP socket for a next hop that is there.
func (x *Sender) together(r *Reply) bool {
	if r.To.Way != wire.WayRelay && r.To.Way != wire.WayUnicast || len(r.Payload) == 0 || !r.To.To.Addr().Is4() {
		return false
	}
	return x.s.hops == nil || x.s.hops.proved(target{addr: r.To.To.Addr().As4()})
}

func (o *outbox) add(r *Reply) {
	i := o.n
	setPktinfo(o.oobs[i], r.To.Source)
	o.names[i].Addr, o.names[i].Port = r.To.To.Addr().As4(), htons(r.To.To.Port())
	o.iovs[i].Base = &r.Payload[0]
	o.iovs[i].SetLen(len(r.Payload))
	o.msgs[i].hdr.SetControllen(len(o.oobs[i])) // the kernel may write to it
	o.of[i] = r
	o.n++
}

func (x *Sender) flush() {
	o := x.many
	if o == nil || o.n == 0 {
		return
	}
	if err := x.s.raw.Control(o.call); err != nil { // closed
		for _, r := range o.of[:o.n] {
			r.Err = err
		}
	}
	for i := range o.n {
		o.of[i], o.iovs[i].Base = nil, nil
	}
	o.n = 0
}

// sendmmsg sends what there is. The kernel stops at the first datagram that it does not take, and says why when that one is
// the first of a call.
func (o *outbox) sendmmsg(fd uintptr) {
	for at := 0; at < o.n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&o.msgs[at])), uintptr(o.n-at),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			for _, r := range o.of[at : at+int(sent)] {
				r.Err = nil
			}
			at += int(sent)
		case unix.EINTR:
		default:
			o.of[at].Err = errno
			at++
		}
	}
}
