package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Journal makes changed facts durable.
type Journal interface {
	// Commit stores all of recs, leases and reports, in one transaction. It is
	// called by one goroutine at a time and must not keep recs.
	Commit(recs []lease.Commit) error
}

// Deps is what the server needs from outside. Snapshot and Leases are
// required. Without a Journal leases are written in the background only and
// MACs are not reported.
type Deps struct {
	Snapshot func() *provision.Snapshot
	Leases   *lease.Table
	Journal  Journal
	Links    Links            // nil: interfaces are asked for by ioctl, and again every 5 s
	Failing  func() bool      // whether the Journal fails: pools lease nothing as long as it does. nil: it never does
	Observer Observer         // may be nil
	Log      *slog.Logger     // nil: discard
	Now      func() time.Time // nil: time.Now
}

// Server is the DHCP server. Use: New, Listen or TakeOver, Run once.
type Server struct {
	deps       Deps
	now        func() time.Time
	log        *slog.Logger
	observer   Observer
	senders    *senders.Register
	generation atomic.Pointer[generation]
	socks      atomic.Pointer[socket.Sockets]
	tookOver   time.Time     // when the socket of an earlier process became ours; zero: it is a new one
	reads      atomic.Uint64 // batches taken from the socket
	backlog    atomic.Bool   // the last one was full: more packets wait there
	stalled    atomic.Uint64 // reads+1 when Alive last found packets waiting; 0: none waited

	dropsMu   sync.Mutex // guards what follows
	dropsSeen uint32     // the kernel's count at the last look
	dropsSum  uint64
}

// New compiles opts and makes a server that does not listen yet.
func New(opts Options, deps Deps) (*Server, error) {
	if deps.Snapshot == nil || deps.Leases == nil {
		return nil, errors.New("dhcp: snapshot and lease table are required")
	}
	gen, err := compile(opts)
	if err != nil {
		return nil, fmt.Errorf("dhcp: %w", err)
	}
	s := &Server{deps: deps, now: deps.Now, log: deps.Log, observer: deps.Observer}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.observer == nil {
		s.observer = Observers{}
	}
	s.senders = senders.New(s.log)
	gen.pools.takeOver(nil, deps.Leases, s.now())
	s.generation.Store(gen)
	return s, nil
}

// Listen opens the sockets. Packets wait in the kernel until Run.
func (s *Server) Listen() error {
	if s.socks.Load() != nil {
		return errors.New("dhcp: listens already")
	}
	socks, err := socket.Open(s.generation.Load().listen)
	if err != nil {
		return err
	}
	s.socks.Store(socks)
	return nil
}

// LocalAddr is the address and port that the server listens on; invalid before Listen.
func (s *Server) LocalAddr() netip.AddrPort {
	socks := s.socks.Load()
	if socks == nil {
		return netip.AddrPort{}
	}
	return socks.LocalAddr()
}

// Close closes the sockets of a server that listens but will never Run.
func (s *Server) Close() error {
	if socks := s.socks.Swap(nil); socks != nil {
		return socks.Close()
	}
	return nil
}

// Reload makes new options take effect for the next packet, all at once. If
// opts has a mistake, or another listen address, nothing changes.
func (s *Server) Reload(opts Options) error {
	gen, err := compile(opts)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	old := s.generation.Load()
	if gen.listen != old.listen {
		return fmt.Errorf("dhcp: listen: cannot change from %v to %v while running; restart the agent", old.listen, gen.listen)
	}
	fresh := gen.pools.takeOver(old.pools, s.deps.Leases, s.now())
	s.generation.Store(gen)
	for _, a := range fresh { // leases that were given while the first look was on
		a.restore(s.deps.Leases, s.now())
	}
	return nil
}

// Run serves until ctx ends, then sends what is still to be acknowledged, closes
// the sockets and returns nil. A read error never ends it.
func (s *Server) Run(ctx context.Context) error {
	socks := s.socks.Load()
	if socks == nil {
		return errors.New("dhcp: run before listen")
	}
	c := newCommitter(s, socks.NewSender())
	done := make(chan error, 1)
	go func() { done <- c.run() }()

	stop := context.AfterFunc(ctx, socks.StopReading)
	h := newHandler(s, c, socks.NewSender(), newInterfaces(socks, s.deps.Links))
	if !s.tookOver.IsZero() {
		h.over.since = s.tookOver.UnixNano()
	}
	adopts := make(chan struct{}, 1)
	h.adopts = adopts
	var adopting sync.WaitGroup
	adopting.Go(func() { s.adoptSnapshots(adopts) })
	var probing sync.WaitGroup
	if arp := socks.ARP(); arp != nil {
		h.prober = newProber(s, socks.NewSender(), arp)
		probing.Go(h.prober.run)
	}
	s.receive(ctx, socks.NewReader(), h)
	stop()
	close(adopts)
	adopting.Wait()
	if h.prober != nil {
		close(h.prober.queue)
		probing.Wait()
	}
	close(c.queue)
	err := <-done
	s.socks.Store(nil)
	return errors.Join(err, socks.Close())
}

// adoptSnapshots has the pools exclude what the newest snapshot binds, each time that it is asked for,
// until the channel is closed.
func (s *Server) adoptSnapshots(asked <-chan struct{}) {
	for range asked {
		s.generation.Load().pools.adopt(s.deps.Snapshot, s.deps.Leases, s.now())
	}
}

// Alive says whether packets are taken from the socket. It is an error that some
// wait there and none was taken since the call before, at which some waited too.
// A watchdog calls it every few seconds, from one goroutine.
func (s *Server) Alive() error {
	socks := s.socks.Load()
	if socks == nil {
		return nil // not yet, or no more
	}
	waiting, err := socks.Waiting()
	if err != nil || !waiting {
		s.stalled.Store(0)
		return err
	}
	mark := s.reads.Load() + 1
	if s.stalled.Swap(mark) == mark {
		return errors.New("dhcp: packets wait and nobody takes them from the socket")
	}
	return nil
}

const (
	minBackOff = time.Millisecond
	maxBackOff = time.Second
)

// source is where packets come from, a batch at a time; socket.Reader is the real one.
type source interface {
	Read() (int, error)
	Packet(i int) socket.Datagram // of the batch
}

// receive handles packets until ctx ends.
func (s *Server) receive(ctx context.Context, r source, h *handler) {
	backOff := minBackOff
	for ctx.Err() == nil {
		n, err := r.Read()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
				continue
			}
			s.log.Warn("reading DHCP packets failed", "error", err, "retry_in", backOff)
			select {
			case <-ctx.Done():
			case <-time.After(backOff):
			}
			backOff = min(2*backOff, maxBackOff)
			continue
		}
		backOff = minBackOff
		s.reads.Add(1)
		if full := n == socket.BatchSize; full != s.backlog.Load() {
			s.backlog.Store(full)
		}
		now := s.now()
		for i := range n {
			h.take(now, r.Packet(i))
		}
		h.flush()
	}
}
