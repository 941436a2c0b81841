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
	hopSets = 1024 // of hopWays targets each
	hopWays = 4
	// maxAsked is how many targets wait to be looked at; beyond it the next packet asks again.
	maxAsked = 32
	// askPause lies between two looks, which bounds what made-up targets cost.
	askPause = 5 * time.Millisecond
	// hopTick is how often proved targets are looked at again, at most maxChecked at a
	// time. The kernel gives a neighbour up only some 20 seconds after it was last heard.
	hopTick    = time.Second
	maxChecked = 256
	// hopUnused is after how many ticks without a packet a target is forgotten.
	hopUnused = 600
)

// target is what a datagram is sent to: a destination, whose next hop is the routing table's business, or the router that a
// destination is behind.
type target struct {
	addr    [4]byte
	ifindex uint32 // of the interface that the router is on; 0: a destination
}

// hops remembers the targets whose next hop the kernel has resolved, so that a
// datagram leaves at once. That a packet came from an address proves nothing: anybody can write it.
// So the kernel is asked, by a goroutine of its own, since that may wait for others who change
// interfaces; the senders ask the memory. It has a fixed size, and what is used least gives way.
type hops struct {
	wake chan struct{} // one slot
	quit chan struct{}

	mu    sync.Mutex // guards what follows
	sets  [hopSets][hopWays]hop
	asked [maxAsked]target
	n     int    // of asked
	tick  uint32 // of time
}

// hop is a target that is proved; a zero one is none.
type hop struct {
	target
	used uint32 // tick of the last packet
}

// openHops begins to answer for the network namespace of the calling thread.
func openHops() (*hops, error) {
	k, err := openKernelHops(0)
	if err != nil {
		return nil, err
	}
	// The answer is there when the question was taken. The limit is for what should not be.
	limit := unix.NsecToTimeval(time.Second.Nanoseconds())
	_ = unix.SetsockoptTimeval(k.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	h := &hops{wake: make(chan struct{}, 1), quit: make(chan struct{})}
	go h.run(k)
	return h, nil
}

// close ends the goroutine, which may hang in the kernel and is not waited for.
func (h *hops) close() { close(h.quit) }

func setOf(t target) uint32 {
	const spread = 2654435761 // 2³² by the golden ratio
	return (binary.BigEndian.Uint32(t.addr[:]) ^ t.ifindex) * spread >> 22
}

// proved reports whether the next hop to t was resolved lately. If not it is soon looked at.
func (h *hops) proved(t target) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(t)]
	for i := range set {
		if set[i].target == t {
			set[i].used = h.tick
			return true
		}
	}
	for _, a := range h.asked[:h.n] {
		if a == t {
			return false
		}
	}
	if h.n == maxAsked {
		return false
	}
	h.asked[h.n] = t
	h.n++
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return false
}

// resolver tells whether packets to a target would leave at once.
type resolver interface {
	resolved(t target) bool
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

// check looks at some of the proved targets again, from a set on. It returns where to go on.
func (h *hops) check(k resolver, from int) int {
	var list [maxChecked]target
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
			case p.target == target{}:
			case h.tick-p.used > hopUnused:
				*p = hop{}
			default:
				list[n] = p.target
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

// prove adds a target, in place of the one that was used longest ago.
func (h *hops) prove(t target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(t)]
	oldest := &set[0]
	for i := range set {
		switch p := &set[i]; {
		case p.target == t:
			return
		case p.target == target{}:
			oldest = p
		case oldest.target != target{} && h.tick-p.used > h.tick-oldest.used:
			oldest = p
		}
	}
	*oldest = hop{target: t, used: h.tick}
}

func (h *hops) forget(t target) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := &h.sets[setOf(t)]
	for i := range set {
		if set[i].target == t {
			set[i] = hop{}
		}
	}
}

// routes finds the routers that destinations are behind, for the senders. Unlike a question about a neighbour, one about a route
// waits for nobody: the kernel takes no lock for it that is held by others who change interfaces.
type routes struct {
	mu sync.Mutex // guards what k has
	k  *kernelHops
}

// openRoutes opens it in the network namespace of the calling thread.
func openRoutes() (*routes, error) {
	k, err := openKernelHops(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &routes{k: k}, nil
}

// router returns the router that addr is behind; false: none, or one that is reached by IPv6.
func (r *routes) router(addr [4]byte) (target, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.k.route(addr)
	if !ok || !n.router || n.family != unix.AF_INET {
		return target{}, false
	}
	return target{addr: [4]byte(n.addr[:4]), ifindex: n.ifindex}, true
}

// kernelHops asks the kernel by netlink: for the route to an address, and then for the neighbour.
type kernelHops struct {
	fd  int
	seq uint32
	buf []byte
	req []byte
}

// openKernelHops opens its socket, with flags besides those that it always has.
func openKernelHops(flags int) (*kernelHops, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("dhcp: open netlink socket: %w", err)
	}
	return &kernelHops{fd: fd, buf: make([]byte, 4096)}, nil
}

func (k *kernelHops) close() { _ = unix.Close(k.fd) }

// ready are the states of a neighbour in which a packet leaves at once.
const ready = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

// nextHop is whom a packet is handed to.
type nextHop struct {
	local   bool // it is for this host
	router  bool // not the destination itself
	family  byte // of addr: AF_INET, or AF_INET6 of a router
	addr    [16]byte
	ifindex uint32
}

func (k *kernelHops) resolved(t target) bool {
	n, ok := nextHop{family: unix.AF_INET, ifindex: t.ifindex}, true
	copy(n.addr[:], t.addr[:])
	if t.ifindex == 0 {
		n, ok = k.route(t.addr)
	}
	return ok && (n.local || k.neighbour(&n))
}

// route returns the next hop to an address; false: there is none.
func (k *kernelHops) route(addr [4]byte) (n nextHop, ok bool) {
	k.begin(unix.RTM_GETROUTE)
	// family, lengths of destination and source, TOS, table, protocol, scope, type, flags
	k.req = append(k.req, unix.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	k.attr(unix.RTA_DST, addr[:])
	msg, ok := k.exchange(unix.RTM_NEWROUTE, unix.SizeofRtMsg)
	if !ok {
		return nextHop{}, false
	}
	n.family = unix.AF_INET
	copy(n.addr[:], addr[:])
	for typ, value := range attributes(msg[unix.SizeofRtMsg:]) {
		switch {
		case typ == unix.RTA_OIF && len(value) == 4:
			n.ifindex = binary.NativeEndian.Uint32(value)
		case typ == unix.RTA_GATEWAY:
			n.router = true
			copy(n.addr[:], value)
		case typ == unix.RTA_VIA && len(value) > 2: // an IPv6 router of IPv4 packets
			n.router, n.family = true, byte(binary.NativeEndian.Uint16(value))
			copy(n.addr[:], value[2:])
		}
	}
	kind := msg[7]
	n.local = kind == unix.RTN_LOCAL
	return n, n.local || kind == unix.RTN_UNICAST && n.ifindex != 0
}

// neighbour reports whether the kernel has resolved a next hop.
func (k *kernelHops) neighbour(n *nextHop) bool {
	k.begin(unix.RTM_GETNEIGH)
	k.req = append(k.req, n.family, 0, 0, 0)
	k.req = binary.NativeEndian.AppendUint32(k.req, n.ifindex)
	k.req = append(k.req, 0, 0, 0, 0) // state, flags, type
	size := 4
	if n.family == unix.AF_INET6 {
		size = 16
	}
	k.attr(unix.NDA_DST, n.addr[:size])
	msg, ok := k.exchange(unix.RTM_NEWNEIGH, unix.SizeofNdMsg)
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
	if _, err := unix.Write(k.fd, k.req); err != nil { // to the kernel, as the socket is connected to nobody
		return nil, false
	}
	for {
		n, err := unix.Read(k.fd, k.buf)
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
