package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hopSets = 1024 // of hopWays destinations each
	hopWays = 4
	// maxAsked is how many destinations wait to be looked at; beyond it the next packet asks again.
	maxAsked = 32
	// askPause lies between two looks, which bounds what made-up destinations cost.
	askPause = 5 * time.Millisecond
	// hopTick is how often proved destinations are looked at again, at most maxChecked at a
	// time. The kernel gives a neighbour up only some 20 seconds after it was last heard.
	hopTick    = time.Second
	maxChecked = 256
	// hopUnused is after how many ticks without a packet a destination is forgotten.
	hopUnused = 600
)

// hops remembers the destinations whose next hop the kernel has resolved, so that a
// datagram leaves at once. That a packet came from an address proves nothing: anybody can write it.
// So the kernel is asked, by a goroutine of its own, since that may wait for others who change
// interfaces; the senders ask the memory. It has a fixed size, and what is used least gives way.
type hops struct {
	wake chan struct{} // one slot
	quit chan struct{}

	mu    sync.Mutex // guards what follows
	sets  [hopSets][hopWays]hop
	asked [maxAsked][4]byte
	n     int    // of asked
	tick  uint32 // of time
}

// hop is a destination that is proved; a zero one is none.
type hop struct {
	addr [4]byte
	used uint32 // tick of the last packet
}

// openHops begins to answer for the network namespace of the calling thread.
func openHops() (*hops, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("dhcp: open netlink socket: %w", err)
	}
	// The answer is there when the question was taken. The limit is for what should not be.
	limit := unix.NsecToTimeval(time.Second.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	h := &hops{wake: make(chan struct{}, 1), quit: make(chan struct{})}
	go h.run(&kernelHops{fd: fd, buf: make([]byte, 4096)})
	return h, nil
}

// close ends the goroutine, which may hang in the kernel and is not waited for.
func (h *hops) close() { close(h.quit) }

func setOf(addr [4]byte) uint32 {
	const spread = 2654435761 // 2³² by the golden ratio
	return binary.BigEndian.Uint32(addr[:]) * spread >> 22
}

// proved reports whether the next hop to addr was resolved lately. If not it is soon looked at.
func (h *hops) proved(addr [4]byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(addr)]
	for i := range set {
		if set[i].addr == addr {
			set[i].used = h.tick
			return true
		}
	}
	for _, a := range h.asked[:h.n] {
		if a == addr {
			return false
		}
	}
	if h.n == maxAsked {
		return false
	}
	h.asked[h.n] = addr
	h.n++
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return false
}

// resolver tells whether packets to a destination would leave at once.
type resolver interface {
	resolved(addr [4]byte) bool
	close()
}

func (h *hops) run(k resolver) {
	defer k.close()
	tick := time.NewTicker(hopTick)
	defer tick.Stop()
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	wake := h.wake // nil during a pause
	for place := 0; ; {
		select {
		case <-h.quit:
			return
		case <-tick.C:
			place = h.check(k, place)
		case <-wake:
			h.look(k)
			wake = nil
			pause.Reset(askPause)
		case <-pause.C:
			wake = h.wake
		}
	}
}

// look looks at what the senders asked for.
func (h *hops) look(k resolver) {
	h.mu.Lock()
	asked := h.asked
	n := h.n
	h.n = 0
	h.mu.Unlock()
	for _, a := range asked[:n] {
		if k.resolved(a) {
			h.prove(a)
		}
	}
}

// check looks at some of the proved destinations again, from a set on. It returns where to go on.
func (h *hops) check(k resolver, from int) int {
	var list [maxChecked][4]byte
	n := 0
	h.mu.Lock()
	h.tick++
	for range hopSets {
		if n+hopWays > len(list) {
			break
		}
		set := &h.sets[from]
		for i := range set {
			switch p := &set[i]; {
			case p.addr == [4]byte{}:
			case h.tick-p.used > hopUnused:
				*p = hop{}
			default:
				list[n] = p.addr
				n++
			}
		}
		from = (from + 1) % hopSets
	}
	h.mu.Unlock()
	for _, a := range list[:n] {
		if !k.resolved(a) {
			h.forget(a)
		}
	}
	return from
}

// prove adds a destination, in place of the one that was used longest ago.
func (h *hops) prove(addr [4]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(addr)]
	oldest := &set[0]
	for i := range set {
		switch p := &set[i]; {
		case p.addr == addr:
			return
		case p.addr == [4]byte{}:
			oldest = p
		case oldest.addr != [4]byte{} && h.tick-p.used > h.tick-oldest.used:
			oldest = p
		}
	}
	*oldest = hop{addr: addr, used: h.tick}
}

func (h *hops) forget(addr [4]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(addr)]
	for i := range set {
		if set[i].addr == addr {
			set[i] = hop{}
		}
	}
}

// kernelHops asks the kernel by netlink: for the route to an address, and then for the neighbour.
type kernelHops struct {
	fd  int
	seq uint32
	buf []byte
	req []byte
}

func (k *kernelHops) close() { _ = unix.Close(k.fd) }

// ready are the states of a neighbour in which a packet leaves at once.
const ready = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

func (k *kernelHops) resolved(addr [4]byte) bool {
	k.begin(unix.RTM_GETROUTE)
	// family, lengths of destination and source, TOS, table, protocol, scope, type, flags
	k.req = append(k.req, unix.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	k.attr(unix.RTA_DST, addr[:])
	msg, ok := k.exchange(unix.RTM_NEWROUTE, unix.SizeofRtMsg)
	if !ok {
		return false
	}
	kind := msg[7]
	family, next, ifindex := byte(unix.AF_INET), addr[:], []byte(nil)
	for typ, value := range attributes(msg[unix.SizeofRtMsg:]) {
		switch {
		case typ == unix.RTA_OIF && len(value) == 4:
			ifindex = value
		case typ == unix.RTA_GATEWAY:
			next = value
		case typ == unix.RTA_VIA && len(value) > 2: // an IPv6 router of IPv4 packets
			family, next = byte(binary.NativeEndian.Uint16(value)), value[2:]
		}
	}
	switch {
	case kind == unix.RTN_LOCAL:
		return true
	case kind != unix.RTN_UNICAST || ifindex == nil:
		return false
	}
	k.begin(unix.RTM_GETNEIGH)
	k.req = append(k.req, family, 0, 0, 0)
	k.req = append(k.req, ifindex...)
	k.req = append(k.req, 0, 0, 0, 0) // state, flags, type
	k.attr(unix.NDA_DST, next)
	msg, ok = k.exchange(unix.RTM_NEWNEIGH, unix.SizeofNdMsg)
	return ok && binary.NativeEndian.Uint16(msg[8:])&ready != 0
}

func (k *kernelHops) begin(typ uint16) {
	k.seq++
	k.req = append(k.req[:0], 0, 0, 0, 0)
	k.req = binary.NativeEndian.AppendUint16(k.req, typ)
	k.req = binary.NativeEndian.AppendUint16(k.req, unix.NLM_F_REQUEST)
	k.req = binary.NativeEndian.AppendUint32(k.req, k.seq)
	k.req = binary.NativeEndian.AppendUint32(k.req, 0)
}

func (k *kernelHops) attr(typ uint16, value []byte) {
	k.req = binary.NativeEndian.AppendUint16(k.req, uint16(unix.SizeofRtAttr+len(value)))
	k.req = binary.NativeEndian.AppendUint16(k.req, typ)
	k.req = append(k.req, value...)
	for len(k.req)%unix.NLMSG_ALIGNTO != 0 {
		k.req = append(k.req, 0)
	}
}

// exchange sends the request and returns what follows the header of the answer; false: there is none, as where nothing is known.
func (k *kernelHops) exchange(answer uint16, least int) ([]byte, bool) {
	binary.NativeEndian.PutUint32(k.req, uint32(len(k.req)))
	if unix.Sendto(k.fd, k.req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return nil, false
	}
	for {
		n, _, err := unix.Recvfrom(k.fd, k.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < unix.NLMSG_HDRLEN {
			return nil, false
		}
		length := int(binary.NativeEndian.Uint32(k.buf))
		if length > n || length < unix.NLMSG_HDRLEN {
			return nil, false
		}
		if binary.NativeEndian.Uint32(k.buf[8:]) != k.seq {
			continue // of a question that took too long
		}
		return k.buf[unix.NLMSG_HDRLEN:length], binary.NativeEndian.Uint16(k.buf[4:]) == answer && length >= unix.NLMSG_HDRLEN+least
	}
}

// attributes are those of a routing message.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(b))
			if length < unix.SizeofRtAttr || length > len(b) ||
				!yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:length]) {
				return
			}
			b = b[min((length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}
