package dhcpd

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// sink is a transport that remembers what was sent, and when.
type sink struct {
	mu   sync.Mutex // guards the fields below
	sent []sentReply
	err  error
}

type sentReply struct {
	at     time.Time
	to     string
	kind   wire.MessageType
	yourIP netip.Addr
}

// sendEach is SendAll of a transport that has no way to send many at once.
func sendEach(t transport, replies []*socket.Reply) {
	for _, r := range replies {
		r.Err = t.Send(&r.To, r.Payload)
	}
}

func (s *sink) SendAll(replies []*socket.Reply) { sendEach(s, replies) }

func (s *sink) Send(d *socket.Delivery, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	var p wire.Packet
	if err := p.Parse(payload); err != nil {
		return err
	}
	s.sent = append(s.sent, sentReply{time.Now(), d.To.String(), p.Type(), p.YIAddr()})
	return nil
}

// refuse makes every Send fail with err, nil: none.
func (s *sink) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) all() []sentReply {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

// journal is a Journal whose speed and success a test sets.
type journal struct {
	delay time.Duration

	mu     sync.Mutex // guards the fields below
	err    error
	groups [][]lease.Commit
}

func (j *journal) Commit(recs []lease.Commit) error {
	time.Sleep(j.delay)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	j.groups = append(j.groups, slices.Clone(recs))
	return nil
}

func (j *journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
}

func (j *journal) sizes() []int {
	j.mu.Lock()
	defer j.mu.Unlock()
	var n []int
	for _, g := range j.groups {
		n = append(n, len(g))
	}
	return n
}

// counter is an Observer that counts outcomes.
type counter struct {
	mu       sync.Mutex // guards the fields below
	outcomes map[string]int
	commits  int
	failed   int
}

func (c *counter) Packet(e *Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcomes == nil {
		c.outcomes = map[string]int{}
	}
	c.outcomes[e.Type.String()+" "+e.Outcome.String()]++
}

func (c *counter) Commit(n int, _ time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits += n
	if err != nil {
		c.failed += n
	}
}

func (c *counter) get() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := map[string]int{}
	for k, v := range c.outcomes {
		m[k] = v
	}
	return m
}

// rig is a handler and a committer over fakes.
type rig struct {
	s   *Server
	h   *handler
	c   *committer
	out *sink
	j   *journal
	n   *counter
	log *EventLog
	end func() error // waits for the committer
}

// newTable is a lease table with a store, so that it knows what is to be written.
func newTable(t testing.TB) *lease.Table {
	t.Helper()
	store := lease.OpenMemory()
	t.Cleanup(func() { _ = store.Close() })
	tab, err := lease.Open(store)
	require.NoError(t, err)
	return tab
}

func newRig(t testing.TB, j *journal) *rig {
	t.Helper()
	snap := world(t)
	r := &rig{out: &sink{}, j: j, n: &counter{}, log: NewEventLog(100)}
	tab := newTable(t)
	deps := Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: tab, Observer: Observers{r.n, r.log}, Log: slog.New(slog.DiscardHandler)}
	if j != nil {
		deps.Journal = j
	}
	var err error
	r.s, err = New(testOptions(), deps)
	require.NoError(t, err)
	r.c = newCommitter(r.s, r.out)
	r.h = newHandler(r.s, r.c, r.out, nil)
	done := make(chan error, 1)
	go func() { done <- r.c.run() }()
	r.end = func() error {
		close(r.c.queue)
		return <-done
	}
	return r
}

// ask hands over a packet whose memory is used for something else afterwards, as the socket's is.
func (r *rig) ask(q wire.Query) {
	data := q.Append(nil)
	from := netip.AddrPortFrom(relayIP, 67)
	if !q.GIAddr.IsValid() && q.CIAddr.IsValid() {
		from = netip.AddrPortFrom(q.CIAddr, 68)
	}
	r.h.handle(time.Now(), socket.Datagram{Data: data, From: from, Ifindex: 3, To: serverIP})
	for i := range data {
		data[i] = 0xee
	}
}

func (r *rig) dirty() int { return r.s.deps.Leases.Counts(time.Now()).Dirty }

// seen returns option 82 of every event, newest first.
func (r *rig) seen() (all []lease.Hex) {
	for _, e := range r.log.Find(EventFilter{}) {
		all = append(all, e.Option82)
	}
	return all
}

func selectingOn(p byte, mac provision.MAC, a netip.Addr) wire.Query {
	return wire.Query{
		Type: wire.Request, MAC: mac, GIAddr: relayIP, Option82: port(switch1, p),
		Options: []wire.Option{chosen(serverIP), requested(a)},
	}
}

func TestCommitBeforeAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 20 * time.Millisecond})
		begin := time.Now()
		r.ask(selectingOn(2, stranger, host(21)))
		synctest.Wait()
		assert.Empty(t, r.out.all(), "no ACK before the record is on disk")
		// Two more come while the disk is busy: one group.
		r.ask(selectingOn(1, client(0x11), host(11)))
		r.ask(selectingOn(3, client(0x31), host(31)))
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		sent := r.out.all()
		require.Len(t, sent, 3)
		for i, want := range []netip.Addr{host(21), host(11), host(31)} {
			assert.Equal(t, want, sent[i].yourIP)
			rec, _ := r.s.deps.Leases.Get(want)
			assert.Equal(t, lease.Hex(port(switch1, byte(rec.Port))), rec.Option82)
			require.Equal(t, wire.Ack, sent[i].kind)
		}
		assert.Equal(t, []lease.Hex{port(switch1, 3), port(switch1, 1), port(switch1, 2)}, r.seen())
		assert.Zero(t, r.dirty(), "the journal wrote them")
		assert.Equal(t, 20*time.Millisecond, sent[0].at.Sub(begin))
		assert.Equal(t, 40*time.Millisecond, sent[2].at.Sub(begin))
		assert.Equal(t, []int{1, 2}, r.j.sizes())
		first := r.j.groups[0][0]
		assert.Equal(t, host(21), first.Lease.IP)
		assert.Equal(t, stranger, first.Lease.MAC)
		require.NotNil(t, first.Report)
		assert.Equal(t, provision.MACReport{IP: host(21), MAC: stranger, Subscriber: 2, At: begin, Packet: packetOf(2, "select_has")}, *first.Report)
		assert.Nil(t, r.j.groups[1][0].Report, "the ERP knows this one")
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack": 3}, r.n.get())
		assert.Equal(t, 3, r.n.commits)
	})
}

// While packets queue in the kernel groups begin at intervals, so that one sync serves many; without a queue at once.
func TestBacklogSharesASync(t *testing.T) {
	for _, backlog := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, &journal{delay: time.Millisecond})
			r.ask(selectingOn(2, stranger, host(21)))
			time.Sleep(2 * time.Millisecond)
			r.s.backlog.Store(backlog)
			begin := time.Now()
			r.ask(selectingOn(1, client(0x11), host(11)))
			time.Sleep(2 * time.Millisecond)
			r.ask(selectingOn(3, client(0x31), host(31)))
			time.Sleep(10 * time.Millisecond)
			sent := r.out.all()
			require.Len(t, sent, 3)
			sizes, first, last := []int{1, 1, 1}, time.Millisecond, 3*time.Millisecond
			if backlog {
				sizes, first, last = []int{1, 2}, 4*time.Millisecond, 4*time.Millisecond // 5 ms after the group before
			}
			assert.Equal(t, sizes, r.j.sizes())
			assert.Equal(t, first, sent[1].at.Sub(begin))
			assert.Equal(t, last, sent[2].at.Sub(begin))
			require.NoError(t, r.end())
		})
	}
}

// A stop waits for no interval.
func TestBacklogHoldsNoStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		r.ask(selectingOn(2, stranger, host(21)))
		synctest.Wait()
		r.s.backlog.Store(true)
		begin := time.Now()
		r.ask(selectingOn(1, client(0x11), host(11)))
		require.NoError(t, r.end())
		assert.Len(t, r.out.all(), 2)
		assert.LessOrEqual(t, time.Since(begin), groupApart)
	})
}

// A client that sends its REQUEST again while the first one's record is on its way to the disk is not acknowledged before.
func TestRepeatedRequestWaitsForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 50 * time.Millisecond})
		begin := time.Now()
		r.ask(selectingOn(2, stranger, host(21)))
		time.Sleep(10 * time.Millisecond)
		r.ask(selectingOn(2, stranger, host(21)))
		synctest.Wait()
		assert.Empty(t, r.out.all(), "the record is not on disk")
		time.Sleep(time.Second)
		sent := r.out.all()
		require.Len(t, sent, 2)
		assert.Equal(t, 50*time.Millisecond, sent[0].at.Sub(begin))
		r.ask(selectingOn(2, stranger, host(21)))
		assert.Len(t, r.out.all(), 3, "now it is")
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack": 3}, r.n.get())
		assert.False(t, r.c.unwritten.has(host(21)))
		assert.Empty(t, r.c.unwritten.of)
	})
}

func TestRenewalWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 50 * time.Millisecond})
		r.ask(selectingOn(1, client(0x11), host(11)))
		time.Sleep(time.Second)
		begin := time.Now()
		r.ask(selectingOn(1, client(0x11), host(11)))
		sent := r.out.all()
		require.Len(t, sent, 2, "sent at once")
		assert.Equal(t, begin, sent[1].at)
		require.NoError(t, r.end())
		assert.Equal(t, []int{1}, r.j.sizes(), "a pure renewal is not the journal's business")
		rec, _ := r.s.deps.Leases.Get(host(11))
		assert.Equal(t, begin.Add(time.Hour), rec.Expires)
	})
}

// A report that is still due at a renewal is stored again, but nobody waits for it.
func TestReportStaysDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 50 * time.Millisecond})
		r.ask(selectingOn(2, stranger, host(21)))
		time.Sleep(time.Second)
		r.ask(selectingOn(2, stranger, host(21)))
		assert.Len(t, r.out.all(), 2)
		require.NoError(t, r.end())
		require.Equal(t, []int{1, 1}, r.j.sizes())
		assert.Equal(t, stranger, r.j.groups[1][0].Report.MAC)
		assert.Equal(t, map[string]int{"request ack": 2}, r.n.get(), "one outcome for each packet")
	})
}

func TestSlowDiskDoesNotHoldBoundAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: 300 * time.Millisecond})
		begin := time.Now()
		r.ask(selectingOn(2, stranger, host(21)))
		time.Sleep(30 * time.Millisecond)
		r.ask(selectingOn(1, client(0x11), host(11)))
		time.Sleep(time.Second)
		sent := r.out.all()
		require.Len(t, sent, 2, "each ACK once")
		assert.Equal(t, 100*time.Millisecond, sent[0].at.Sub(begin))
		assert.Equal(t, 130*time.Millisecond, sent[1].at.Sub(begin))
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack_before_commit": 2}, r.n.get())
		assert.Equal(t, []int{1, 1}, r.j.sizes(), "both are on disk in the end")
	})
}

func TestFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		r.j.fail(errors.New("disk full"))
		r.ask(selectingOn(2, stranger, host(21)))
		synctest.Wait()
		assert.Len(t, r.out.all(), 1, "acknowledged all the same")
		assert.Equal(t, map[string]int{"request ack_before_commit": 1}, r.n.get())
		assert.Equal(t, 1, r.n.failed)
		assert.Equal(t, 1, r.dirty(), "the background writes it when the disk works again")
		r.j.fail(nil)
		r.ask(selectingOn(1, client(0x11), host(11)))
		synctest.Wait()
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack": 1, "request ack_before_commit": 1}, r.n.get())
	})
}

func TestHangingDiskDoesNotKeepTheAgentFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: time.Minute})
		r.ask(selectingOn(2, stranger, host(21)))
		synctest.Wait()
		begin := time.Now()
		assert.ErrorContains(t, r.end(), "lease journal hangs: 1 records may not be on disk")
		assert.InDelta(t, stopGrace, time.Since(begin), float64(drainEvery), "it is seen within that time that no more comes")
		assert.Len(t, r.out.all(), 1)
		time.Sleep(time.Minute) // the call that hangs comes back, and its goroutine ends
	})
}

func TestFullQueueDoesNotHoldBoundAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{})
		require.NoError(t, r.end()) // nobody takes from the queue any more
		r.c = &committer{s: r.s, out: r.out, queue: make(chan *pending), pool: sync.Pool{New: func() any { return new(pending) }}}
		r.h = newHandler(r.s, r.c, r.out, nil)
		r.ask(selectingOn(2, stranger, host(21)))
		assert.Len(t, r.out.all(), 1)
		assert.Equal(t, map[string]int{"request ack_before_commit": 1}, r.n.get())
		assert.Equal(t, 1, r.dirty())
	})
}

func TestEveryPacketHasOneOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &journal{delay: time.Millisecond})
		send := func(b []byte) {
			r.h.handle(time.Now(), socket.Datagram{Data: b, From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP})
		}
		query := selectingOn(2, stranger, host(21))
		good, other := query.Append, selectingOn(1, client(0x11), host(11))
		send(nil)
		send([]byte("garbage"))
		send(good(nil)[:250])
		send(make([]byte, 4096))
		r.h.handle(time.Now(), socket.Datagram{Data: good(nil), Cut: true, To: serverIP})
		send(append(good(nil)[:240], 53, 1, 1, 82, 2, 1, 0, 82, 2, 1, 0, 255))
		send(append(good(nil)[:240], 53, 1, 1, 82, 2, 1, 9, 255))
		send(good(nil))
		time.Sleep(time.Second)
		r.out.mu.Lock()
		r.out.err = errors.New("no buffer space")
		r.out.mu.Unlock()
		send(good(nil))
		send(other.Append(nil))
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{
			"none malformed": 5, "discover option82_double": 1, "discover option82_malformed": 1,
			"request ack": 1, "request send_failed": 2,
		}, r.n.get())
	})
}

func TestReleaseAndDeclineReachTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.ask(selectingOn(2, stranger, host(21)))
		require.Len(t, r.out.all(), 1, "without a journal nothing is waited for")
		assert.Equal(t, 1, r.dirty())
		r.ask(wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(21)})
		rec, _ := r.s.deps.Leases.Get(host(21))
		assert.Equal(t, lease.StateReleased, rec.State)
		r.ask(selectingOn(2, stranger, host(21)))
		r.ask(wire.Query{Type: wire.Decline, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2), Options: []wire.Option{requested(host(21))}})
		rec, _ = r.s.deps.Leases.Get(host(21))
		assert.Equal(t, lease.StateDeclined, rec.State)
		require.NoError(t, r.end())
		assert.Equal(t, map[string]int{"request ack": 2, "release released": 1, "decline declined": 1}, r.n.get())
	})
}

// A client renews past the relay after a restart: the record, read back, answers.
func TestLeaseRecordKeepsWhereTheClientSits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.ask(selectingOn(2, stranger, host(21)))
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)})
		require.NoError(t, r.end())
		sent := r.out.all()
		require.Len(t, sent, 2)
		assert.Equal(t, "192.0.2.21:68", sent[1].to)
		rec, _ := r.s.deps.Leases.Get(host(21))
		assert.Equal(t, lease.Hex(port(switch1, 2)), rec.Option82)
		assert.Equal(t, relayIP, rec.GIAddr)
		assert.EqualValues(t, 2, rec.Port)
	})
}

type discard struct{}

func (discard) Send(*socket.Delivery, []byte) error { return nil }
func (discard) SendAll([]*socket.Reply)             {}

func renewalRig(t testing.TB) (*handler, socket.Datagram) {
	t.Helper()
	snap := world(t)
	s, err := New(testOptions(), Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Observer: Observers{NewEventLog(16)}})
	require.NoError(t, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{{Code: 55, Value: []byte{1, 3, 6, 15, 42}}, {Code: 61, Value: []byte{1, 2, 3}}}}
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	for range 20 { // the event log's slots have their memory then
		h.handle(time.Now(), g)
	}
	require.Equal(t, outcome.Ack, h.ev.Outcome)
	require.Equal(t, v4.ChangeRenew, h.d.Change)
	return h, g
}

func TestRenewalDoesNotAllocate(t *testing.T) {
	h, g := renewalRig(t)
	assert.Zero(t, testing.AllocsPerRun(200, func() { h.handle(testNow, g) }))
}

// Nor does it with classes to look through and an answer that overflows into file and sname.
func TestRenewalInClassDoesNotAllocate(t *testing.T) {
	snap := world(t)
	opts := testOptions()
	opts.Classes = []options.Class{
		{Name: "user", Match: options.ClassMatch{UserClass: "x*y"}},
		{Name: "mac", Match: options.ClassMatch{MACPrefix: [][]byte{{2}}}},
		{Name: "big", Match: options.ClassMatch{VendorClass: "stb*", Options: []options.OptionMatch{{Code: 12, Text: "*box*"}}}, OptionSet: options.OptionSet{
			Options: []options.Option{{Code: 224, Value: make([]byte, 200)}, {Code: 225, Value: make([]byte, 100)}, {Code: 226, Value: make([]byte, 40)}},
			Vendor:  []options.VendorOptions{{Enterprise: 9, Options: []options.Option{{Code: 1, Value: []byte("x")}}}},
		}},
	}
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(), Observer: Observers{NewEventLog(16)}})
	require.NoError(t, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{
		{Code: 12, Value: []byte("a box here")}, {Code: 55, Value: []byte{1, 3, 125, 224, 225, 226}}, {Code: 60, Value: []byte("stb")},
		{Code: 60, Value: []byte("-4k")}, {Code: 61, Value: make([]byte, 100)}, {Code: 77, Value: []byte("\x02ab\x02cd")}, {Code: 124, Value: []byte{0, 0, 0, 9, 0}},
	}}
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	for range 20 {
		h.handle(time.Now(), g)
	}
	var p wire.Packet
	require.NoError(t, p.Parse(h.reply))
	overload, there := p.Option(wire.OptOverload)
	require.True(t, there)
	require.Equal(t, []byte{1}, overload)
	assert.Zero(t, testing.AllocsPerRun(200, func() { h.handle(testNow, g) }))
}

// Parse, decide, update the lease, build the reply, observe: everything but the sockets.
func BenchmarkRenewal(b *testing.B) {
	h, g := renewalRig(b)
	b.ReportAllocs()
	for b.Loop() {
		h.handle(testNow, g)
	}
}

func TestEventLog(t *testing.T) {
	l := NewEventLog(4)
	at := testNow
	for i := range byte(6) {
		opt := []byte{i}
		l.Packet(&Event{Time: at.Add(time.Duration(i) * time.Second), XID: uint32(i), MAC: client(i % 2), YourIP: host(i), Subscriber: provision.SubscriberID(i), Option82: opt, Outcome: outcome.Ack, Device: 1, Port: uint32(i)})
		opt[0] = 0xee // the packet's memory is used again
	}
	xids := func(f EventFilter) string {
		var b strings.Builder
		for _, e := range l.Find(f) {
			b.WriteByte('0' + byte(e.XID))
			assert.Equal(t, lease.Hex{byte(e.XID)}, e.Option82)
		}
		return b.String()
	}
	assert.Equal(t, "5432", xids(EventFilter{}), "newest first, oldest overwritten")
	assert.Equal(t, "53", xids(EventFilter{MAC: client(1)}))
	assert.Equal(t, "5", xids(EventFilter{MAC: client(1), Limit: 1}))
	assert.Equal(t, "4", xids(EventFilter{IP: host(4)}))
	assert.Equal(t, "3", xids(EventFilter{Subscriber: 3}))
	assert.Equal(t, "2", xids(EventFilter{Device: 1, Port: 2}))
	assert.Equal(t, "5432", xids(EventFilter{Device: 1}))
	assert.Equal(t, "54", xids(EventFilter{Since: at.Add(4 * time.Second)}))
	assert.Equal(t, "3", xids(EventFilter{Option82: []byte{3}}))
	assert.Equal(t, "", xids(EventFilter{Outcome: outcome.Offer}))
	assert.Equal(t, "", xids(EventFilter{Type: wire.Request}))
	assert.EqualValues(t, 6, l.Seen())
}

// When the next reply has to leave is known without a look at the pools' leases that wait for a slow disk: each
// packet that comes asks for it.
func TestPoolLeasesInLineCostOthersNothing(t *testing.T) {
	r, _ := poolRig(t, nil)
	defer func() { require.NoError(t, r.end()) }()
	c := newCommitter(r.s, discard{})
	took := func() time.Duration {
		best := time.Hour
		for range 20 {
			begin := time.Now()
			for range 100 {
				c.nextDeadline()
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	alone := took()
	for range maxWaiting {
		c.queue <- &pending{durable: true}
		c.drain()
	}
	require.Len(t, c.waiting, maxWaiting)
	require.Less(t, took(), 20*alone+20*time.Microsecond)
}
