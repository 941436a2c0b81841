// Package link reaches the kernel's routing and connection tables through
// netlink. For now it forgets the tracked connections of blocked subscribers;
// it implements provision.Flows.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

const (
	// receiveBuffer is for the dump: ample for one piece of it.
	receiveBuffer = 4 << 20

	// exchangeTimeout bounds one question to the kernel. It answers within
	// the system call; the bound is for a kernel that does not.
	exchangeTimeout = 30 * time.Second
)

// Options say where the connections are.
type Options struct {
	Log *slog.Logger // nil: no log

	// NetNS is an open file descriptor of a network namespace, for tests. Zero
	// means the namespace of the calling thread at the time of Open.
	NetNS int
}

// Flows is the connection tracking table of one network namespace. It may be
// used from several goroutines; they take turns.
type Flows struct {
	log   *slog.Logger
	netns int

	mu     sync.Mutex // guards what follows
	handle *netlink.Handle
	told   bool // that this kernel tracks no connections
}

var _ provision.Flows = (*Flows)(nil)

// OpenFlows gives access to the tracked connections. It needs CAP_NET_ADMIN.
func OpenFlows(o Options) (*Flows, error) {
	f := &Flows{log: o.Log, netns: o.NetNS}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.dialLocked(); err != nil {
		return nil, fmt.Errorf("link: open flows: %w", err)
	}
	return f, nil
}

// Close lets the socket go.
func (f *Flows) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hangUpLocked()
}

// Forget deletes the connections that have one of the addresses at either end,
// before or after address translation, and gives their number. It reads the
// table once, however many addresses there are: about 4 ms for each 1,000
// connections. Where no connections are tracked there is nothing to forget and
// no error.
//
// Forgetting is the clean-up after a block, not the block: a packet of the
// connection that still comes makes a new entry, if anything lets it through.
func (f *Flows) Forget(ctx context.Context, addrs []netip.Addr) (int, error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("link: forget flows: %w", err)
	}
	if err := f.dialLocked(); err != nil {
		return 0, fmt.Errorf("link: forget flows: %w", err)
	}
	deleted, err := f.handle.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, newMatch(ctx, addrs))
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = f.hangUpLocked() // late replies may wait in the socket
	}
	return f.outcomeLocked(int(deleted), len(addrs), err)
}

// outcomeLocked makes of a pass what Forget gives.
func (f *Flows) outcomeLocked(deleted, addrs int, err error) (int, error) {
	switch {
	case err == nil:
		return deleted, nil
	case absent(err):
		if !f.told {
			f.told = true
			f.log.Info("this kernel tracks no connections, none to forget", "error", err)
		}
		return 0, nil
	default:
		return deleted, fmt.Errorf("link: forget flows of %d addresses: %w", addrs, err)
	}
}

// absent tells whether the kernel lacks connection tracking or the netlink
// access to it: nfnetlink gives EINVAL for a subsystem that it cannot load.
func absent(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// match picks the flows with one of the addresses. After the end of the context
// it picks no more.
type match struct {
	ctx   context.Context
	addrs map[netip.Addr]struct{}
}

var _ netlink.CustomConntrackFilter = match{}

func newMatch(ctx context.Context, addrs []netip.Addr) match {
	m := match{ctx, make(map[netip.Addr]struct{}, len(addrs))}
	for _, a := range addrs {
		m.addrs[a.Unmap()] = struct{}{}
	}
	return m
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m match) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return (m.has(flow.Forward.SrcIP) || m.has(flow.Forward.DstIP) ||
		m.has(flow.Reverse.SrcIP) || m.has(flow.Reverse.DstIP)) && m.ctx.Err() == nil
}

func (m match) has(ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return false
	}
	_, ok = m.addrs[addr.Unmap()]
	return ok
}

// dialLocked opens the socket unless it is open. It stays in the network
// namespace in which it was opened.
func (f *Flows) dialLocked() error {
	if f.handle != nil {
		return nil
	}
	ns := netns.None()
	if f.netns != 0 {
		ns = netns.NsHandle(f.netns)
	}
	h, err := netlink.NewHandleWithOptions(netlink.HandleOptions{
		NetNS:            &ns,
		RetryInterrupted: true,
	}, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if err := h.SetSocketReceiveBufferSize(receiveBuffer, true); err != nil {
		err = h.SetSocketReceiveBufferSize(receiveBuffer, false)
		if err != nil {
			_ = h.Close()
			return fmt.Errorf("set receive buffer: %w", err)
		}
	}
	if err := h.SetSocketTimeout(exchangeTimeout); err != nil {
		_ = h.Close()
		return fmt.Errorf("set time-out: %w", err)
	}
	f.handle = h
	return nil
}

func (f *Flows) hangUpLocked() error {
	if f.handle == nil {
		return nil
	}
	err := f.handle.Close()
	f.handle = nil
	return err
}
