// Package link reaches the kernel's routing and connection tables through
// netlink. For now it forgets the tracked connections of blocked subscribers;
// it implements access.Flows.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// exchangeTimeout bounds the wait for one reply of the kernel. It comes within
// the system call; the bound is for a kernel that fails to.
const exchangeTimeout = 30 * time.Second

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
	socket *nl.SocketHandle
	told   bool // that this kernel tracks no connections

	unfiltered bool // the kernel does not filter a reading

	telling match                 // of these addresses live connections are gathered
	reached func(netip.Addr) bool // but not those to such an address
	live    []connection          // that were found, at most maxTold
}

var (
	_ access.Flows  = (*Flows)(nil)
	_ access.Teller = (*Flows)(nil)
)

// OpenFlows returns access to the tracked connections. It needs CAP_NET_ADMIN.
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

// Forget deletes the connections that have an address of one of the IPv4 prefixes at either end,
// whatever address translation puts in its place, and gives their number. Of one or two
// addresses only their entries are read, of more or of subnets the whole table once, however
// many there are. Where no connections are tracked there is nothing to forget and
// no error.
//
// Forgetting is the clean-up after a block, not the block: a packet of the
// connection that still comes makes a new entry, if anything lets it through.
func (f *Flows) Forget(ctx context.Context, of []netip.Prefix) (int, error) {
	return f.ForgetAndTell(ctx, of, nil, nil)
}

// ForgetAndTell is Forget, and has both ends of the TCP connections of some of the addresses
// find out that they are over: they are made to speak, and the rules refuse that. An end behind
// a router of its own that looks at sequence numbers may hear of it only when it speaks by itself.
// A connection with an address that goes on being reached is not over, so its ends are not told: after a
// masquerade what they say comes to this host, which knows of no connection and would reset it.
func (f *Flows) ForgetAndTell(ctx context.Context, of, told []netip.Prefix, reached func(netip.Addr) bool) (int, error) {
	if len(of) == 0 {
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
	f.telling, f.reached, f.live = newMatch(told), reached, nil
	deleted, err := f.forgetLocked(ctx, newMatch(of))
	f.tell(f.live)
	f.live = nil
	if err != nil {
		_ = f.hangUpLocked() // late replies may wait in the socket
	}
	return f.outcomeLocked(deleted, len(of), err)
}

// forgetLocked deletes one by one what findLocked finds, by tuple and id: only
// those are kept, for a busy router tracks a million.
func (f *Flows) forgetLocked(ctx context.Context, m match) (deleted int, err error) {
	entries, err := f.findLocked(ctx, m)
	interrupted := errors.Is(err, netlink.ErrDumpInterrupted)
	if err != nil && !interrupted {
		return 0, err
	}
	for _, e := range entries {
		if ctxErr := ctx.Err(); ctxErr != nil {
			return deleted, ctxErr
		}
		_, delErr := f.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, e).Execute(unix.NETLINK_NETFILTER, 0)
		switch {
		case delErr == nil:
			deleted++
		case errors.Is(delErr, unix.ENOENT): // it ended by itself
		default:
			return deleted, fmt.Errorf("delete connection: %w", delErr)
		}
	}
	if interrupted {
		return deleted, err
	}
	return deleted, ctx.Err()
}

// request makes a message to the connection tracking subsystem about IPv4.
func (f *Flows) request(typ, flags int, attrs []byte) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(netlink.ConntrackTable<<8|typ, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: f.socket}
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddRawData(attrs)
	return req
}

// outcomeLocked makes of a pass what Forget gives.
func (f *Flows) outcomeLocked(deleted, of int, err error) (int, error) {
	switch {
	case err == nil:
		return deleted, nil
	case errors.Is(err, errNoTracking):
		if !f.told {
			f.told = true
			f.log.Info("this kernel tracks no connections, none to forget", "error", err)
		}
		return 0, nil
	default:
		return deleted, fmt.Errorf("link: forget flows of %d addresses: %w", of, err)
	}
}

// errNoTracking says that there is no connection table to ask for.
var errNoTracking = errors.New("no connection tracking")

// absent tells whether the kernel lacks connection tracking or the netlink
// access to it: nfnetlink gives EINVAL for a subsystem that it cannot load.
func absent(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT)
}

// dialLocked opens the socket unless it is open. It stays in the network
// namespace in which it was opened.
func (f *Flows) dialLocked() error {
	if f.socket != nil {
		return nil
	}
	ns := netns.None()
	if f.netns != 0 {
		ns = netns.NsHandle(f.netns)
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	timeout := unix.NsecToTimeval(exchangeTimeout.Nanoseconds())
	err = errors.Join(s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout))
	if err != nil {
		_ = s.Close()
		return fmt.Errorf("set up netlink socket: %w", err)
	}
	f.socket = &nl.SocketHandle{Socket: s}
	return nil
}

func (f *Flows) hangUpLocked() error {
	if f.socket == nil {
		return nil
	}
	err := f.socket.Close()
	f.socket = nil
	return err
}
