package dhcpd

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A village is a town whose customers have whole clients of RFC 2131: with timers, retransmissions, and ears that are where they
// are. They ask, renew past the relay, rebind through it, come back after a power cut, lose packets and swap routers, while
// the ERP changes under them (worlds_honest_erp_test.go). What must hold all the time is in worlds_honest_check_test.go.
type village struct {
	*town
	store   lease.Store // the disk: it outlives a server
	leases  *lease.Table
	links   *fakeLinks
	h       *handler
	flushed time.Time
	folk    []*resident
	plans   []plan
	sent    []reply   // by the server, on their way
	written time.Time // when what waits for the disk is there; zero: nothing waits
	disk    func() time.Duration
	loss    int // of so many packets one is lost; 0: none
	down    bool
	order   order // of the copies of what the server hears twice
	spots   byte  // the last port that was newly used
	owners  provision.SubscriberID
	routers byte // the last new MAC
	series  byte
	gone    *v4.Subnet // taken out by a reload
	spare   []v4.Pool  // with it
	story   []chapter
	fails   []harm
}

// order is which copy of a message comes first that the server hears through a relay and itself.
type order uint8

const (
	eitherFirst order = iota
	wireFirst
	relayFirst
)

// plan is what is to happen at a time.
type plan struct {
	at time.Time
	do func()
}

// reply is a packet of the server.
type reply struct {
	socket.Delivery
	*dhcpv4.DHCPv4
}

// chapter is what happened to a resident; to everybody if who is nil.
type chapter struct {
	at   time.Time
	who  *resident
	text func() string
}

// phase is a state of RFC 2131 figure 5; off is a client without power.
type phase uint8

const (
	off phase = iota
	initial
	selecting
	requesting
	rebooting
	bound4 // BOUND
	renewing
	rebinding
)

func (p phase) String() string {
	return [...]string{"OFF", "INIT", "SELECTING", "REQUESTING", "INIT-REBOOT", "BOUND", "RENEWING", "REBINDING"}[p]
}

// resident is a citizen with a client that follows RFC 2131.
type resident struct {
	*citizen
	phase    phase
	xid      uint32
	wake     time.Time // when it acts next
	tries    int
	began    time.Time // when the first REQUEST of this exchange was sent: it counts the lease from there
	t1, t2   time.Time
	rapid    bool
	hints    bool // its DISCOVER asks for the address that it had
	stubborn bool // after a restart that nobody answers it uses its lease on, as RFC 2131 section 3.2 lets it

	// For the checks.
	due     rights
	since   time.Time              // the ERP has what it has for it since then
	wait    time.Duration          // so long the leases of others of it were to last then
	want    time.Time              // it has no address since then
	full    time.Time              // its pool was full then
	lost    int                    // packets since
	of      provision.SubscriberID // whose its address was by the ERP when it got it
	streak  int                    // packets lost one after the other
	got     place                  // where it was given what it has
	gap     time.Duration          // the longest time without an address, since a test set it to zero
	deaf    bool                   // what it was told of the end of its lease got lost
	longest time.Duration
}

// uses reports whether a client has its address configured.
func (c *resident) uses(now time.Time) bool {
	return c.phase >= bound4 && c.addr.IsValid() && now.Before(c.until)
}

// newVillage is a village where much is left to chance; with change one where all is said: a plain town with clients that ask for what they had.
func newVillage(t testing.TB, seed uint64, change func(*Options)) *village {
	t.Helper()
	v := &village{town: &town{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 4)), now: time.Date(2126, 5, 1, 12, 0, 0, 0, time.UTC), seen: map[string]int{},
	}, spots: 20, owners: 200, routers: 0xc0}
	v.disk = func() time.Duration { return 0 }
	v.opts = v.options()
	v.opts.Limits = Limits{}
	if v.opts.MaxPortMACs > 0 {
		v.opts.MaxPortMACs = 4
	}
	v.plain = change != nil
	v.store = shelf{}
	if change != nil {
		v.opts = plainOptions()
		change(&v.opts)
		v.store = lease.OpenMemory()
		t.Cleanup(func() { _ = v.store.Close() })
	}
	v.settle()
	for i, p := range v.people {
		if bytes.Equal(p.id, []byte("the same for all")) { // no client that is known by its identifier has another's
			p.id = append([]byte("id"), p.mac[:]...)
		}
		c := &resident{citizen: p, phase: off, since: v.now, want: v.now, wake: v.now.Add(time.Duration(i) * time.Second)}
		if !v.plain {
			c.rapid, c.hints, c.stubborn = v.one(5), v.one(2), v.one(2)
			c.wake = v.now.Add(v.within(5 * time.Minute))
		}
		v.folk = append(v.folk, c)
	}
	v.links = townLinks()
	v.publish()
	v.start()
	v.reckon(nil)
	return v
}

func (v *village) within(d time.Duration) time.Duration { return time.Duration(v.rng.Int64N(int64(d))) }

// publish is a fetch of the ERP's data.
func (v *village) publish() {
	v.in.FetchedAt, v.in.Source, v.in.KeepVacant = v.now, provision.SourceDirect, v.opts.keepsVacant()
	v.town.publish()
	if v.leases != nil {
		v.leases.Adopt(v.snap, v.now)
	}
}

// start begins with what is on the disk.
func (v *village) start() {
	var err error
	v.leases, err = lease.Open(v.store)
	require.NoError(v.t, err)
	s, err := New(v.opts, Deps{
		Snapshot: func() *provision.Snapshot { return v.snap }, Leases: v.leases, Journal: lease.Journal{Table: v.leases, Reports: mailbox{v}},
		Observer: Observers{}, Links: v.links, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return v.now },
	})
	require.NoError(v.t, err)
	v.h = newHandler(s, newCommitter(s, v), v, newInterfaces(nil, v.links))
	v.written = time.Time{}
}

// shelf is a disk that costs no time.
type shelf map[netip.Addr]lease.Record

// Commit implements lease.Store.
func (s shelf) Commit(fill func(*lease.Batch) error) error {
	var b lease.Batch
	if err := fill(&b); err != nil {
		return err
	}
	for _, r := range b.Leases {
		r.Prior = provision.MAC{}
		r.Start, r.Renewed, r.Expires = r.Start.Truncate(time.Millisecond), r.Renewed.Truncate(time.Millisecond), r.Expires.Truncate(time.Millisecond)
		s[r.IP] = r
	}
	for _, a := range b.Forget {
		delete(s, a)
	}
	return nil
}

// Leases implements lease.Store.
func (s shelf) Leases(each func(lease.Record, error)) error {
	for _, a := range slices.SortedFunc(maps.Keys(s), netip.Addr.Compare) {
		each(s[a], nil)
	}
	return nil
}

func (shelf) Reports(func(provision.MACReport, error)) error { return nil }
func (shelf) Replaced(func())                                {}
func (shelf) Failing() bool                                  { return false }
func (shelf) Health() lease.Health                           { return lease.Health{} }
func (shelf) Close() error                                   { return nil }

// mailbox takes reports to the ERP.
type mailbox struct{ v *village }

// Keep implements lease.Queue.
func (mailbox) Keep(provision.MACReport) {}

// Add has a report reach the ERP after a while, if that has nothing newer then.
func (m mailbox) Add(_ *lease.Batch, r provision.MACReport) error {
	v := m.v
	l := v.rowOf(r.IP)
	if l == nil {
		return nil
	}
	replaces := l.MAC
	v.plan(time.Second+v.within(time.Minute), func() {
		if l := v.rowOf(r.IP); l != nil && l.MAC == replaces && l.MAC != r.MAC {
			v.leases.Sending(r.IP, r.MAC)
			l.MAC = r.MAC
			v.leases.Taken(r.IP, r.MAC, provision.SourceDirect, v.now)
			v.tell(nil, "the ERP learns that %v is %v", r.IP, r.MAC)
			v.seen["the ERP learns a MAC"]++
			v.changed()
		}
	})
	return nil
}

// rowOf returns the row of the ERP that has an address; nil: none.
func (v *village) rowOf(a netip.Addr) *provision.Line {
	for i := range v.in.Lines {
		if slices.Contains(v.in.Lines[i].Addresses, provision.Hosts4(a)[0]) {
			return &v.in.Lines[i]
		}
	}
	return nil
}

func (v *village) plan(in time.Duration, do func()) {
	v.plans = append(v.plans, plan{v.now.Add(in), do})
}

// Send implements transport.
func (v *village) SendAll(replies []*socket.Reply) { sendEach(v, replies) }

func (v *village) Send(d *socket.Delivery, payload []byte) error {
	p, err := dhcpv4.FromBytes(bytes.Clone(payload))
	require.NoError(v.t, err)
	v.sent = append(v.sent, reply{*d, p})
	return nil
}

// write is the disk that has what waited for it.
func (v *village) write() {
	c := v.h.c
	v.written = time.Time{}
	for c.drain(); len(c.waiting) > 0; {
		err := v.h.s.deps.Journal.Commit(c.group())
		c.finish(commitResult{err: err})
	}
	v.deliver()
}

// run lets time pass.
func (v *village) run(d time.Duration) {
	for end := v.now.Add(d); len(v.fails) == 0; {
		next, do := end, func() {}
		at := func(t time.Time, f func()) {
			if t.Before(next) {
				next, do = t, f
			}
		}
		for i := range v.plans {
			at(v.plans[i].at, func() {
				f := v.plans[i].do
				v.plans = slices.Delete(v.plans, i, i+1)
				f()
			})
		}
		if !v.written.IsZero() {
			at(v.written, v.write)
		}
		for _, c := range v.folk {
			at(c.wake, func() { v.act(c) })
		}
		if !next.Before(end) {
			v.pass(end)
			v.check()
			return
		}
		v.pass(next)
		v.step++
		do()
		v.check()
	}
}

// pass sets the clock. The lease table is written to disk each second, as the agent does it.
func (v *village) pass(t time.Time) {
	if t.Sub(v.flushed) >= time.Second {
		require.NoError(v.t, v.leases.Flush())
		v.flushed = t
	}
	if t.After(v.now) {
		v.now = t
	}
}

// twice reports whether the server hears a client itself, beside the relay.
func (c *resident) twice() bool { return c.at.gi.IsValid() && c.at.index == ifEth }

// hears reports whether a packet of the server reaches a client where it is.
func (c *resident) hears(r *reply, now time.Time) bool {
	onWire := c.at.index == r.Ifindex && (!c.at.gi.IsValid() || c.twice())
	switch r.Way {
	case wire.WayRelay:
		return c.at.gi.IsValid() && r.To.Addr() == c.at.gi
	case wire.WayUnicast:
		return c.uses(now) && c.addr == r.To.Addr()
	case wire.WayFrame:
		return onWire && r.MAC == c.mac
	}
	return onWire
}

// deliver takes the packets of the server to whoever hears them.
func (v *village) deliver() {
	for len(v.sent) > 0 {
		r := v.sent[0]
		v.sent = v.sent[1:]
		heard := false
		for _, c := range v.folk {
			if c.phase == off || !bytes.Equal(r.ClientHWAddr, c.mac[:]) {
				continue
			}
			switch {
			case !c.hears(&r, v.now):
				v.tell(c, "  not heard here: %s", &r)
			case v.loses(c):
				v.tell(c, "  LOST: %s", &r)
				heard = true
				ends := r.MessageType() == dhcpv4.MessageTypeNak || r.MessageType() == dhcpv4.MessageTypeAck && v.now.Add(r.IPAddressLeaseTime(0)).Before(c.until)
				if c.uses(v.now) && ends {
					c.deaf = true
					v.seen["a NAK, or an ACK for a shorter time, is lost"]++
				}
			default:
				v.tell(c, "  %s", &r)
				heard = true
				v.takes(c, &r)
			}
		}
		if !heard {
			v.seen["a reply that nobody hears"]++
		}
	}
}

func (r *reply) String() string {
	return fmt.Sprintf("%s %v for %v by %v to %v", r.MessageType(), r.YourIPAddr, r.IPAddressLeaseTime(0), r.Way, r.To)
}

// loses reports whether a packet from or to a client is lost.
func (v *village) loses(c *resident) bool {
	if v.down || v.loss > 0 && c.streak < 2 && v.one(v.loss) {
		c.streak++
		c.lost++
		v.seen["a packet is lost"]++
		return true
	}
	c.streak = 0
	return false
}

// transmit sends a packet of a client: where the server hears it as well as its relay, both copies, in any order.
func (v *village) transmit(c *resident, q wire.Query, alone bool) {
	q.XID = c.xid
	copies := []socket.Datagram{c.datagram(q, alone)}
	switch {
	case c.twice() && alone:
		copies[0].Ifindex = c.at.index
	case c.twice():
		there := c.at
		c.at = place{index: there.index}
		copies = []socket.Datagram{c.datagram(q, false), copies[0]}
		c.at = there
		if v.order == relayFirst || v.order == eitherFirst && v.one(2) {
			slices.Reverse(copies)
		}
	}
	v.hear(c, copies, q.Type == wire.Release)
}

// hear takes the copies of one packet of a client through the server.
func (v *village) hear(c *resident, copies []socket.Datagram, leaving bool) {
	must := v.mustAck(c) && !leaving
	kinds := map[wire.MessageType]bool{}
	heard := 0
	for _, g := range copies {
		if v.loses(c) {
			v.tell(c, "%s LOST: %s", c.phase, shown(g))
			continue
		}
		heard++
		g.Data = bytes.Clone(g.Data)
		v.tell(c, "%s %s", c.phase, shown(g))
		v.h.handle(v.now, g)
		d := &v.h.d
		kinds[d.Reply.Type] = true
		o, a, rule := d.Outcome, d.YourIP, d.Evidence.Rule
		v.seen[o.String()]++
		v.tell(c, "  %s %v, row %s", o, a, rule)
		v.answered(c)
		if len(v.h.c.queue) > 0 && v.written.IsZero() {
			if wait := v.disk(); wait > 0 {
				v.written = v.now.Add(wait)
			} else {
				v.write()
			}
		}
		v.deliver()
	}
	if kinds[wire.Ack] && kinds[wire.Nak] && !v.takenForGuest() {
		v.fail("ACK and NAK", c, nil, "one message is acknowledged and refused")
	}
	if must && heard == len(copies) && !kinds[wire.Ack] {
		v.fail("refused", c, nil, "is not given more time for %v, which the ERP has for it", c.addr)
	}
}

const (
	minRetry = 4 * time.Second
	maxRetry = 64 * time.Second
	minRenew = 10 * time.Second
)

// backOff is how long a client waits for an answer (RFC 2131 section 4.1).
func (c *resident) backOff() time.Duration { return min(minRetry<<min(c.tries, 8), maxRetry) }

// act is what a client does when its timer runs out.
func (v *village) act(c *resident) {
	switch c.phase {
	case off:
		v.powerOn(c)
	case initial:
		c.phase, c.xid, c.tries = selecting, v.rng.Uint32(), 0
		v.discover(c)
	case selecting:
		c.tries++
		v.discover(c)
	case requesting, rebooting:
		c.tries++
		switch {
		case c.tries < 4:
			v.request(c)
		case c.phase == rebooting && c.stubborn && v.now.Before(c.until):
			c.phase, c.wake = bound4, v.now
			v.tell(c, "goes on with what it had, %v", c.addr)
		default:
			v.begin(c, 0)
		}
	case bound4:
		c.phase = renewing
		v.extend(c)
	case renewing, rebinding:
		v.extend(c)
	}
}

// powerOn starts a client.
func (v *village) powerOn(c *resident) {
	c.want, c.lost = v.now, 0
	if !c.addr.IsValid() || !v.plain && v.one(4) {
		v.begin(c, 0)
		return
	}
	c.phase, c.xid, c.tries, c.began = rebooting, v.rng.Uint32(), 0, v.now
	v.request(c)
}

// begin lets a client ask anew.
func (v *village) begin(c *resident, in time.Duration) {
	c.phase, c.wake, c.offered = initial, v.now.Add(in), netip.Addr{}
}

// leave is a client that has no address from now on.
func (v *village) leave(c *resident, why string) {
	if c.phase >= bound4 {
		c.want, c.lost = v.now, 0
	}
	v.tell(c, "leaves %v: %s", c.addr, why)
	c.until, c.deaf = time.Time{}, false
}

func (v *village) discover(c *resident) {
	c.wake = v.now.Add(c.backOff())
	c.began = v.now // of rapid commit
	q := wire.Query{Type: wire.Discover}
	if c.hints && c.addr.IsValid() {
		q.Options = append(q.Options, requested(c.addr))
	}
	if c.rapid {
		q.Options = append(q.Options, wire.Option{Code: 80})
	}
	v.transmit(c, q, false)
}

// request sends the REQUEST for an offer, or after a restart.
func (v *village) request(c *resident) {
	c.wake = v.now.Add(c.backOff())
	q := wire.Query{Type: wire.Request, Options: []wire.Option{requested(c.addr)}}
	if c.phase == requesting {
		q.Options = []wire.Option{requested(c.offered), chosen(c.by)}
	}
	v.transmit(c, q, false)
}

// extend asks for more time: the server itself until T2, then everybody.
func (v *village) extend(c *resident) {
	switch {
	case !v.now.Before(c.until):
		v.leave(c, "its lease is over")
		v.seen["a lease ends at its client"]++
		v.begin(c, 0)
		return
	case c.phase == renewing && !v.now.Before(c.t2):
		c.phase = rebinding
	}
	end := c.until
	if c.phase == renewing {
		end = c.t2
	}
	c.wake = v.now.Add(max(end.Sub(v.now)/2, minRenew))
	if c.wake.After(end) {
		c.wake = end
	}
	c.xid, c.began = v.rng.Uint32(), v.now // each is an exchange of its own: what is late counts for nothing
	v.transmit(c, wire.Query{Type: wire.Request, CIAddr: c.addr}, c.phase == renewing)
}

// takes is what a client makes of a packet that it hears.
func (v *village) takes(c *resident, r *reply) {
	got, ok := netip.AddrFromSlice(r.YourIPAddr.To4())
	if r.TransactionID != dhcpv4.TransactionID([4]byte{byte(c.xid >> 24), byte(c.xid >> 16), byte(c.xid >> 8), byte(c.xid)}) || !ok {
		return
	}
	switch kind := r.MessageType(); {
	case kind == dhcpv4.MessageTypeOffer && c.phase == selecting:
		id, _ := netip.AddrFromSlice(r.ServerIdentifier().To4())
		c.phase, c.offered, c.by, c.tries, c.began = requesting, got, id, 0, v.now
		c.wake = v.now.Add(time.Millisecond)
		c.tries = -1 // the first one is due
	case kind == dhcpv4.MessageTypeAck && c.phase == selecting && c.rapid && r.Options.Has(dhcpv4.GenericOptionCode(80)),
		kind == dhcpv4.MessageTypeAck && c.phase >= requesting && c.phase != bound4:
		v.binds(c, r, got)
	case kind == dhcpv4.MessageTypeNak && c.phase >= requesting && c.phase != bound4:
		v.seen["a NAK is heard in "+c.phase.String()]++
		v.leave(c, "refused in "+c.phase.String())
		c.addr = netip.Addr{}
		v.begin(c, time.Second+v.within(9*time.Second))
	}
}

// binds gives a client what an ACK has.
func (v *village) binds(c *resident, r *reply, got netip.Addr) {
	if c.phase >= renewing && got != c.addr {
		v.fail("another address", c, nil, "asked for more time for %v and is given %v", c.addr, got)
	}
	life := r.IPAddressLeaseTime(0)
	t1, t2 := r.IPAddressRenewalTime(life/2), r.IPAddressRebindingTime(life*7/8)
	if life < time.Minute || t1 < time.Second || t2 < t1 || t2 > life {
		v.fail("times", c, nil, "is told T1 %v, T2 %v of %v", t1, t2, life)
	}
	if c.phase < bound4 {
		v.settled(c)
	}
	if c.phase != renewing { // which is past the relay
		c.got = c.at
	}
	c.phase, c.addr, c.offered, c.xid, c.deaf, c.of = bound4, got, netip.Addr{}, 0, false, 0
	if l := v.rowOf(got); l != nil {
		c.of = l.Subscriber
	}
	c.until, c.t1, c.t2 = c.began.Add(life), c.began.Add(t1), c.began.Add(t2)
	c.wake = c.t1.Add(v.within(2 * time.Second))
	if !c.wake.After(v.now) {
		c.wake = v.now.Add(time.Second)
	}
}

// powerOff cuts a client's power for a while.
func (v *village) powerOff(c *resident, d time.Duration) {
	if c.phase >= bound4 && !v.plain && v.one(4) {
		v.transmit(c, wire.Query{Type: wire.Release, CIAddr: c.addr, Options: []wire.Option{chosen(serverIP)}}, true)
		c.until = time.Time{}
		v.seen["a RELEASE"]++
	}
	v.tell(c, "is off for %v", d)
	c.phase, c.wake, c.offered = off, v.now.Add(d), netip.Addr{}
}

// tell notes what happens to a resident, or to all, for a failure.
func (v *village) tell(c *resident, format string, args ...any) {
	for i, a := range args { // what changes until it is read
		switch x := a.(type) {
		case *reply:
			args[i] = x.String()
		case phase:
			args[i] = x.String()
		}
	}
	v.story = append(v.story, chapter{v.now, c, func() string { return fmt.Sprintf(format, args...) }})
	if len(v.story) > 4000 {
		v.story = slices.Delete(v.story, 0, 2000)
	}
}

// fail notes what must not be. The village ends there.
func (v *village) fail(kind string, c, other *resident, format string, args ...any) {
	if len(v.fails) > 0 {
		return
	}
	o := &v.opts
	var b strings.Builder
	fmt.Fprintf(&b, "village %d, %s: %s (%v) at %v: ", v.seed, kind, c.name, c.mac, c.at)
	fmt.Fprintf(&b, format+"\n", args...)
	fmt.Fprintf(&b, "match %v, client_key %d, mac_change %d, macs %d, unknown %d, trusted %v, pools %d, authoritative %v, binding_change %d, lease %v, lost 1 of %d\n",
		o.Match, o.ClientKey, o.MACChange, o.MaxPortMACs, o.Unknown, o.TrustedInterfaces, len(o.Pools), o.Authoritative, o.BindingChange, leaseTimes(o), v.loss)
	fmt.Fprintf(&b, "the ERP has %+v for it since %v, and others had that for %v then; it is %s, without an address since %v, lost %d\n",
		c.due, clock(c.since), c.wait, c.phase, clock(c.want), c.lost)
	if l := v.line(c.citizen); l != nil {
		fmt.Fprintf(&b, "its row: %+v\n", *l)
	}
	var told []string
	for _, x := range v.story {
		if x.who == nil || x.who == c || x.who == other {
			name := "---"
			if x.who != nil {
				name = x.who.name
			}
			told = append(told, fmt.Sprintf("%s %s: %s\n", clock(x.at), name, x.text()))
		}
	}
	b.WriteString(strings.Join(told[max(0, len(told)-44):], ""))
	v.fails = append(v.fails, harm{kind, b.String()})
}

func clock(t time.Time) string { return t.Format("02 15:04:05.000") }

func leaseTimes(o *Options) (all []time.Duration) {
	for _, n := range o.Subnets {
		all = append(all, n.LeaseTime)
	}
	return all
}
