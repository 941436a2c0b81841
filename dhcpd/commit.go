package dhcpd

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

const (
	queueLen   = 4096 // commits between the packet goroutine and the committer
	maxWaiting = 8192 // commits that wait for the journal; beyond it the queue fills, then ACKs do not wait
	maxGroup   = 4096 // commits in one transaction
	// drainEvery is how long a commit may be in the queue unseen while another group is on its way to disk; its deadline is later.
	drainEvery = 5 * time.Millisecond
	// groupApart lies between the beginnings of two groups while packets queue in the kernel: nobody waits longer for that, since
	// whoever comes later is answered later, and one sync serves many.
	groupApart = 5 * time.Millisecond
	// maxPoolWait is how late an ACK for a pool's address may leave: some clients
	// count the lease from the ACK, and must not count beyond leaseSlack.
	maxPoolWait = 3 * time.Second
	// stopGrace bounds how long Run waits for a disk that hangs.
	stopGrace = time.Second
)

// pending is a commit, with the reply that waits for it unless sent is set.
type pending struct {
	lease     lease.Record
	report    provision.MACReport
	hasReport bool

	sent     bool
	fact     bool      // counted by unwritten
	durable  bool      // the reply leaves only after the commit
	timed    bool      // its reply waits in timed, or in held if it is durable
	deadline time.Time // the reply leaves then, committed or not; of a durable one it never does from then on
	reply    socket.Reply
	ev       Event // its slices are its own
}

// committer makes changed facts durable before their ACK: one group commit at
// a time, everything that came meanwhile goes into the next. Its run method
// owns the replies; a second goroutine is in the journal, so that a slow disk
// holds no reply longer than the commit time-out. A lease of a pool is different: its
// ACK waits for the disk, or there is none.
type committer struct {
	s     *Server
	out   transport
	queue chan *pending
	pool  sync.Pool

	waiting, inFlight []*pending     // of run
	records           []lease.Commit // of the group in flight, which the journal has
	began             time.Time      // the last group
	leaving           []*pending     // whose replies leave together
	replies           []*socket.Reply
	timed             timed // of these, whose replies leave at a deadline: thousands of pools' leases may wait besides
	held              timed // the pools' leases: which leave by a deadline, or not at all
	failing           bool  // the last commit failed: the change is logged, not each
	unwritten         unwritten
}

// timed are replies with a deadline, the first one first: as they came, for all are given the same time but
// around a reload.
type timed struct {
	list []*pending
	gone int // of list, from its beginning
}

func (l *timed) add(p *pending) {
	p.timed = true
	l.list = append(l.list, p)
}

// first returns the one whose deadline is next; nil: there is none.
func (l *timed) first() *pending {
	if l.gone == len(l.list) {
		return nil
	}
	return l.list[l.gone]
}

// drop takes the first one off.
func (l *timed) drop() {
	l.list[l.gone].timed = false
	l.list[l.gone] = nil
	if l.gone++; l.gone == len(l.list) {
		l.list, l.gone = l.list[:0], 0
	} else if l.gone >= maxWaiting { // it never gets empty
		l.list, l.gone = append(l.list[:0], l.list[l.gone:]...), 0
	}
}

// unwritten is which addresses have a first ACK that waits for its commit: the client sends its REQUEST again
// meanwhile, and that one must not be answered before the first one's record is on disk either.
type unwritten struct {
	n  atomic.Int64 // of addresses, so that a renewal costs no lock as long as there is none
	mu sync.Mutex
	of map[netip.Addr]int
}

func (u *unwritten) add(ip netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[netip.Addr]int{}
	}
	u.of[ip]++
	u.n.Store(int64(len(u.of)))
}

func (u *unwritten) remove(ip netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[ip]--; u.of[ip] <= 0 {
		delete(u.of, ip)
	}
	u.n.Store(int64(len(u.of)))
}

func (u *unwritten) has(ip netip.Addr) bool {
	if u.n.Load() == 0 {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.of[ip] > 0
}

func newCommitter(s *Server, out transport) *committer {
	return &committer{
		s: s, out: out, queue: make(chan *pending, queueLen),
		pool: sync.Pool{New: func() any { return new(pending) }},
	}
}

func (c *committer) get() *pending { return c.pool.Get().(*pending) }

// enqueue hands p over; false if p is nil or the queue is full.
func (c *committer) enqueue(p *pending) bool {
	if p == nil {
		return false
	}
	if p.fact = !p.sent && !p.durable; p.fact {
		c.unwritten.add(p.lease.IP) // before run can remove it
	}
	select {
	case c.queue <- p:
		return true
	default:
		if p.fact {
			c.unwritten.remove(p.lease.IP)
		}
		c.pool.Put(p)
		return false
	}
}

type commitResult struct {
	d   time.Duration
	err error
}

// run works until the queue is closed and empty. The error tells of records
// that a hanging journal did not take.
func (c *committer) run() error {
	groups := make(chan []lease.Commit, 1)
	results := make(chan commitResult, 1)
	var journal sync.WaitGroup
	journal.Go(func() {
		for g := range groups {
			begin := time.Now()
			err := c.s.deps.Journal.Commit(g)
			results <- commitResult{time.Since(begin), err}
		}
	})
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	queue, closing := c.queue, (<-chan time.Time)(nil)
	drain := func() {
		if queue == nil || c.drain() {
			return
		}
		queue = nil
		closing = time.After(stopGrace)
	}
	hold := time.Duration(0) // how long what waits is not begun yet
	for queue != nil || len(c.waiting) > 0 || len(c.inFlight) > 0 {
		in := queue
		wait, ok := c.nextDeadline()
		// Nothing begins before the journal is done, or the time has come, so nobody is woken for each packet.
		if pause := cmp.Or(hold, drainEvery); queue != nil && (len(c.inFlight) > 0 || hold > 0) {
			if !ok || wait > pause {
				wait = pause
			}
			in, ok = nil, true
		}
		if ok {
			timer.Reset(wait)
		}
		select {
		case p, ok := <-in:
			if ok {
				c.take(p)
			}
			drain()
		case res := <-results:
			c.finish(res)
			drain()
		case <-timer.C:
			drain()
			c.sendLate()
		case <-closing:
			close(groups)
			return c.abandon()
		}
		hold = 0
		if len(c.inFlight) == 0 && len(c.waiting) > 0 {
			if hold = c.hold(time.Now()); hold <= 0 || queue == nil {
				hold, c.began = 0, time.Now()
				groups <- c.group()
			}
		}
	}
	close(groups)
	journal.Wait()
	return nil
}

// hold returns how long the next group is not to begin yet: what queues in the kernel is to go with it.
func (c *committer) hold(now time.Time) time.Duration {
	if !c.s.backlog.Load() {
		return 0
	}
	return max(0, c.began.Add(groupApart).Sub(now))
}

// take puts a commit in line.
func (c *committer) take(p *pending) {
	c.waiting = append(c.waiting, p)
	if !p.sent {
		c.lineOf(p).add(p)
	}
}

// lineOf is where p waits for its deadline.
func (c *committer) lineOf(p *pending) *timed {
	if p.durable {
		return &c.held
	}
	return &c.timed
}

// drain takes what else is in the queue, for one group commit. It reports whether more can come.
func (c *committer) drain() (open bool) {
	for len(c.waiting) < maxWaiting {
		select {
		case p, ok := <-c.queue:
			if !ok {
				return false
			}
			c.take(p)
		default:
			return true
		}
	}
	return true
}

// group moves waiting commits into flight.
func (c *committer) group() []lease.Commit {
	n := min(len(c.waiting), maxGroup)
	c.inFlight = append(c.inFlight, c.waiting[:n]...)
	c.waiting = append(c.waiting[:0], c.waiting[n:]...)
	c.records = c.records[:0]
	for _, p := range c.inFlight {
		r := lease.Commit{Lease: p.lease}
		if p.hasReport {
			report := p.report // a copy: p is used again when the journal may still hold it
			r.Report = &report
		}
		c.records = append(c.records, r)
	}
	return c.records
}

// finish sends the replies that waited for the commit that ended.
func (c *committer) finish(res commitResult) {
	c.s.observer.Commit(len(c.inFlight), res.d, res.err)
	clear(c.records) // it may have been a large group: what it points to is free
	if failing := res.err != nil; failing != c.failing {
		c.failing = failing
		if failing {
			c.s.log.Warn("lease journal failed, bound addresses are acknowledged all the same", "error", res.err)
		} else {
			c.s.log.Info("lease journal works again")
		}
	}
	now := c.s.now()
	for _, p := range c.inFlight {
		if p.timed { // what came first is written first
			c.lineOf(p).drop()
		}
		if res.err != nil {
			if p.lease.IP.IsValid() {
				c.s.deps.Leases.Dirty(p.lease.IP)
			}
			p.ev.Outcome = outcome.AckBeforeCommit // refuse says otherwise for pools
		}
		if p.fact {
			c.unwritten.remove(p.lease.IP)
		}
		switch {
		case p.sent:
		case p.durable && (res.err != nil || now.Sub(p.ev.Time) > maxPoolWait):
			c.refuse(p)
		default:
			c.leave(p)
		}
	}
	c.send()
	for i, p := range c.inFlight {
		c.pool.Put(p)
		c.inFlight[i] = nil
	}
	c.inFlight = c.inFlight[:0]
}

// sendLate sends the replies whose time is over; their commits stay in line.
func (c *committer) sendLate() {
	now := time.Now()
	for p := c.timed.first(); p != nil && !now.Before(p.deadline); p = c.timed.first() {
		c.timed.drop()
		p.ev.Outcome = outcome.AckBeforeCommit
		c.leave(p)
	}
	c.send()
	for p := c.held.first(); p != nil && !now.Before(p.deadline); p = c.held.first() {
		c.held.drop()
		c.refuse(p) // it is known now, however long the disk takes
	}
}

// nextDeadline returns how long nothing has to be done for time's sake; false: for ever.
func (c *committer) nextDeadline() (time.Duration, bool) {
	p, held := c.timed.first(), c.held.first()
	if p == nil || held != nil && held.deadline.Before(p.deadline) {
		p = held
	}
	if p == nil {
		return 0, false
	}
	return max(0, time.Until(p.deadline)), true
}

// leave has the reply of p sent with the next send.
func (c *committer) leave(p *pending) {
	p.sent = true
	c.leaving, c.replies = append(c.leaving, p), append(c.replies, &p.reply)
}

// send sends the replies that leave, and reports their outcomes.
func (c *committer) send() {
	if len(c.leaving) == 0 {
		return
	}
	c.out.SendAll(c.replies)
	now := c.s.now()
	for i, p := range c.leaving {
		if p.reply.Err != nil {
			p.ev.unsent(p.reply.Err)
		}
		c.s.ended(&p.ev, now)
		c.leaving[i], c.replies[i] = nil, nil
	}
	c.leaving, c.replies = c.leaving[:0], c.replies[:0]
}

// refuse ends a packet whose lease of a pool is not on disk: no answer.
func (c *committer) refuse(p *pending) {
	p.sent = true
	p.ev.Outcome = outcome.PoolNotDurable
	c.s.ended(&p.ev, c.s.now())
}

// abandon gives up on a journal that hangs: the process is to stop in time.
// Its goroutine ends with the call that hangs.
func (c *committer) abandon() error {
	n := len(c.inFlight) + len(c.waiting)
	for _, list := range [...][]*pending{c.inFlight, c.waiting} {
		for _, p := range list {
			switch {
			case p.sent:
			case p.durable:
				c.refuse(p)
			default:
				p.ev.Outcome = outcome.AckBeforeCommit
				c.leave(p)
			}
		}
	}
	c.send()
	return fmt.Errorf("dhcp: the lease journal hangs: %d records may not be on disk", n)
}

// unsent notes that the reply did not leave.
func (e *Event) unsent(err error) {
	e.Outcome, e.Detail = outcome.SendFailed, errorClass(err)
	if socket.Full(err) {
		e.Outcome = outcome.SendFull
	}
}

// errorClass is the name of a send error's kind: constant texts only, for events.
func errorClass(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "send failed"
}
