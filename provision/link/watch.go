package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// watchBuffer is the receive buffer of a subscription. The kernel drops the
// events that do not fit and the library then ends the subscription; a link
// event is about 2 KiB with its overhead, so this holds some thousand.
const watchBuffer = 8 << 20

// publishPause is the least time between two views of a busy host: a view of
// 2,000 interfaces costs up to 2 ms, and creating them gives thousands of events.
const publishPause = 20 * time.Millisecond

// Bounds of the wait before a broken subscription is made anew.
const (
	minRetry = 10 * time.Millisecond
	maxRetry = 10 * time.Second
)

// WatchOptions say where the interfaces are.
type WatchOptions struct {
	Log   *slog.Logger // nil: no log
	NetNS int          // as Options.NetNS

	buffer int // of each subscription; 0: watchBuffer
}

// WatchStatus is what a Watch has done so far.
type WatchStatus struct {
	Interfaces int    // now
	Changes    uint64 // of interfaces and their addresses: appeared, changed, gone
	Resyncs    uint64 // whole lists after lost events or a broken subscription
}

// Watch follows the interfaces of one network namespace and their IPv4
// addresses. It publishes an immutable view that may be read from anywhere.
type Watch struct {
	log    *slog.Logger
	ns     netns.NsHandle
	buffer int
	handle *netlink.Handle

	view    atomic.Pointer[provision.Interfaces]
	changes atomic.Uint64
	resyncs atomic.Uint64

	// What follows belongs to OpenWatch, then to Run.
	sub   *subscription // nil: broken
	state hostState
}

// OpenWatch subscribes to changes and reads what is there, so that View is
// whole when it returns. Run then keeps it so. It needs no right.
func OpenWatch(o WatchOptions) (*Watch, error) {
	w := &Watch{log: o.Log, ns: netns.None(), buffer: cmp.Or(o.buffer, watchBuffer)}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if o.NetNS != 0 {
		w.ns = netns.NsHandle(o.NetNS)
	}
	var err error
	if w.handle, err = netlink.NewHandleAt(w.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("link: watch: %w", err)
	}
	if err := w.resync(); err != nil {
		w.handle.Close()
		return nil, fmt.Errorf("link: watch: %w", err)
	}
	return w, nil
}

// Interfaces reads once what a Watch follows. It needs no right.
func Interfaces(o WatchOptions) (*provision.Interfaces, error) {
	w := &Watch{ns: netns.None()}
	if o.NetNS != 0 {
		w.ns = netns.NsHandle(o.NetNS)
	}
	var err error
	if w.handle, err = netlink.NewHandleAt(w.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	defer w.handle.Close()
	state, err := w.read()
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return provision.NewInterfaces(state.list(), nil), nil
}

// View returns the newest view, never nil.
func (w *Watch) View() *provision.Interfaces { return w.view.Load() }

// Status tells what was seen.
func (w *Watch) Status() WatchStatus {
	return WatchStatus{Interfaces: w.View().Len(), Changes: w.changes.Load(), Resyncs: w.resyncs.Load()}
}

// Close ends the subscription of a Watch that does not run (any more).
func (w *Watch) Close() error {
	if w.sub != nil {
		w.sub.end()
		w.sub = nil
	}
	w.handle.Close()
	return nil
}

// Run follows changes until ctx ends. A subscription that breaks is made anew
// and everything is read again; the last view stays meanwhile.
func (w *Watch) Run(ctx context.Context) error {
	retry := minRetry
	for ctx.Err() == nil {
		if w.sub == nil {
			if err := w.resync(); err != nil {
				w.log.Warn("interfaces cannot be read; the last known ones stay in use", "error", err, "retry_in", retry)
				select {
				case <-ctx.Done():
				case <-time.After(retry):
				}
				retry = min(2*retry, maxRetry)
				continue
			}
			w.resyncs.Add(1)
			retry = minRetry
		}
		err := w.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		w.log.Info("events of interfaces were lost; all are read again", "error", err)
		w.sub.end()
		w.sub = nil
	}
	return nil
}

// resync subscribes first and reads then: what changes in between is seen twice, not never.
// The subscription is a new one. After an overflow the kernel drops what comes to the old
// one until that has been read empty, and it has told so already.
func (w *Watch) resync() error {
	sub, err := subscribe(w.ns, w.buffer)
	if err != nil {
		return err
	}
	state, err := w.read()
	if err != nil {
		sub.end()
		return err
	}
	w.sub, w.state = sub, state
	w.publish()
	return nil
}

// read lists links and addresses. A list that the kernel says was disturbed is
// read again; the last try counts, for events tell the rest.
func (w *Watch) read() (hostState, error) {
	const tries = 5
	for try := 1; ; try++ {
		links, err := w.handle.LinkList()
		var addrs []netlink.Addr
		if err == nil {
			addrs, err = w.handle.AddrList(nil, unix.AF_INET)
		}
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < tries {
			continue
		}
		if err != nil {
			return hostState{}, fmt.Errorf("list interfaces: %w", err)
		}
		s := newHostState()
		for _, l := range links {
			s.link(l)
		}
		for _, a := range addrs {
			s.addr(a.LinkIndex, a.IPNet, a.Flags, true)
		}
		return s, nil
	}
}

// follow applies events until the subscription breaks or ctx ends. A view is
// published as soon as no event waits, but not more often than publishPause.
func (w *Watch) follow(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	dirty, ready := false, true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u, ok := <-w.sub.links:
			if !ok {
				return w.sub.broken()
			}
			dirty = w.state.linkUpdate(&u) || dirty
		case u, ok := <-w.sub.addrs:
			if !ok {
				return w.sub.broken()
			}
			dirty = w.state.addr(u.LinkIndex, &u.LinkAddress, u.Flags, u.NewAddr) || dirty
		case <-timer.C:
			ready = true
		}
		if dirty && ready {
			w.publish()
			dirty, ready = false, false
			timer.Reset(publishPause)
		}
	}
}

func (w *Watch) publish() {
	old := w.view.Load()
	next := provision.NewInterfaces(w.state.list(), old)
	if n := changed(old, next); n > 0 || old == nil {
		if old != nil {
			w.changes.Add(n)
		}
		w.view.Store(next)
	}
}

// changed counts the interfaces that are new, other than before, or gone.
func changed(old, next *provision.Interfaces) (n uint64) {
	for _, f := range next.All() {
		if old.ByIndex(f.Index) != f {
			n++
		}
	}
	for _, f := range old.All() {
		if next.ByIndex(f.Index) == nil {
			n++
		}
	}
	return n
}

// subscription is a pair of event streams. Either closes its channel when it breaks.
type subscription struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	done  chan struct{}
	stop  func()     // closes done
	errs  chan error // the first one
}

func subscribe(ns netns.NsHandle, buffer int) (*subscription, error) {
	s := &subscription{
		links: make(chan netlink.LinkUpdate), addrs: make(chan netlink.AddrUpdate),
		done: make(chan struct{}), errs: make(chan error, 1),
	}
	s.stop = sync.OnceFunc(func() { close(s.done) })
	failed := func(err error) {
		select {
		case s.errs <- err:
		default:
		}
	}
	// Beyond the system's limit only with CAP_NET_ADMIN; what the limit gives works too.
	var err error
	for _, force := range []bool{true, false} {
		err = netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{
			Namespace: &ns, ErrorCallback: failed, ReceiveBufferSize: buffer, ReceiveBufferForceSize: force,
		})
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	for _, force := range []bool{true, false} {
		err = netlink.AddrSubscribeWithOptions(s.addrs, s.done, netlink.AddrSubscribeOptions{
			Namespace: &ns, ErrorCallback: failed, ReceiveBufferSize: buffer, ReceiveBufferForceSize: force,
		})
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if err != nil {
		close(s.addrs) // nobody else does
		s.end()
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	return s, nil
}

// end closes the sockets and waits until the library's goroutines are gone:
// they may be about to hand over an event.
func (s *subscription) end() {
	s.stop()
	for range s.links {
	}
	for range s.addrs {
	}
}

// broken says why a stream ended.
func (s *subscription) broken() error {
	select {
	case err := <-s.errs:
		return err
	default:
		return errors.New("subscription ended")
	}
}

// hostState is what events add up to.
type hostState struct {
	links map[int]provision.Interface // without addresses
	addrs map[int][]address           // by index, also of links that are not there (yet): the two streams are not in step
}

// address is one of an interface. The kernel puts secondary ones, which are
// others of the same network, behind all primary ones.
type address struct {
	prefix    netip.Prefix
	secondary bool
}

func newHostState() hostState {
	return hostState{links: map[int]provision.Interface{}, addrs: map[int][]address{}}
}

// linkUpdate reports whether the event changed anything.
func (s *hostState) linkUpdate(u *netlink.LinkUpdate) bool {
	if u.Family == unix.AF_BRIDGE {
		return false // a port joined or left a bridge: the interface itself is neither new nor gone
	}
	index := int(u.Index)
	if u.Header.Type == unix.RTM_DELLINK {
		_, had := s.links[index]
		delete(s.links, index)
		return had
	}
	return s.link(u.Link)
}

func (s *hostState) link(l netlink.Link) bool {
	at := l.Attrs()
	f := provision.Interface{
		Index: at.Index, Name: at.Name, Kind: l.Type(), Parent: at.ParentIndex,
		Up: at.RawFlags&unix.IFF_UP != 0, Loopback: at.RawFlags&unix.IFF_LOOPBACK != 0,
		AltNames: at.AltNames,
	}
	if at.NetNsID >= 0 || f.Kind == "veth" {
		f.Parent = 0 // an index of another namespace, or the other end of the cable
	}
	if len(at.HardwareAddr) == len(f.MAC) {
		copy(f.MAC[:], at.HardwareAddr)
	}
	if v, ok := l.(*netlink.Vlan); ok && v.VlanId > 0 {
		f.VLAN = uint16(v.VlanId)
	}
	was, had := s.links[f.Index]
	s.links[f.Index] = f
	return !had || !sameLink(was, f)
}

func sameLink(a, b provision.Interface) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.Parent == b.Parent && a.Up == b.Up &&
		a.Loopback == b.Loopback && a.MAC == b.MAC && a.VLAN == b.VLAN && slices.Equal(a.AltNames, b.AltNames)
}

// addr reports whether the event changed anything. An address is dropped by its
// own event only: the kernel sends one for each when an interface goes.
func (s *hostState) addr(index int, n *net.IPNet, flags int, add bool) bool {
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if ip = ip.Unmap(); !ok || !ip.Is4() || bits != 32 {
		return false
	}
	a := address{netip.PrefixFrom(ip, ones), flags&unix.IFA_F_SECONDARY != 0}
	list := s.addrs[index]
	at := slices.IndexFunc(list, func(b address) bool { return b.prefix == a.prefix })
	switch {
	case !add && at < 0, add && at >= 0 && list[at] == a:
		return false
	case !add:
		list = slices.Delete(list, at, at+1)
	case at >= 0: // promoted when the primary one went
		list[at] = a
	default:
		list = append(list, a)
	}
	s.addrs[index] = list
	if len(list) == 0 {
		delete(s.addrs, index)
	}
	return true
}

// list returns the interfaces with their addresses.
func (s *hostState) list() []provision.Interface {
	out := make([]provision.Interface, 0, len(s.links))
	for index, f := range s.links {
		for _, secondary := range []bool{false, true} {
			for _, a := range s.addrs[index] {
				if a.secondary == secondary {
					f.Addrs = append(f.Addrs, a.prefix)
				}
			}
		}
		out = append(out, f)
	}
	return out
}
