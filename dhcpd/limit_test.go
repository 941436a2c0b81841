package dhcpd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// asks is a request as the limiter sees it.
func asks(mac provision.MAC, mods ...func(*wire.Query, *v4.Request)) *v4.Request {
	q := wire.Query{Type: wire.Discover, MAC: mac}
	r := &v4.Request{Ifindex: 3}
	for _, mod := range mods {
		mod(&q, r)
	}
	r.P.Read(q.Append(nil))
	return r
}

func via(relay netip.Addr, opt82 []byte) func(*wire.Query, *v4.Request) {
	return func(q *wire.Query, _ *v4.Request) { q.GIAddr, q.Option82 = relay, opt82 }
}

func onIndex(index int) func(*wire.Query, *v4.Request) {
	return func(_ *wire.Query, r *v4.Request) { r.Ifindex = index }
}

func mustLimits(t testing.TB, l Limits) *limits {
	t.Helper()
	opts := testOptions()
	opts.Limits = l
	set, err := compile(opts)
	require.NoError(t, err)
	return &set.limits
}

func TestLimits(t *testing.T) {
	port1, port2 := port(switch1, 1), port(switch1, 2)
	few := func(rate float64, burst int) Limit { return Limit{Rate: rate, Burst: burst} }
	client1, client2 := client(1), client(2)
	past := func(q *wire.Query, r *v4.Request) { q.CIAddr, r.Local = host(11), serverIP }
	type step struct {
		after time.Duration // since the step before
		n     int           // packets of it
		r     *v4.Request
		want  int // let through
		over  outcome.Outcome
	}
	for _, tc := range []struct {
		name   string
		limits Limits
		steps  []step
	}{
		{"no limit", Limits{}, []step{{0, 100_000, asks(client1), 100_000, 0}}},
		{"a client, its burst and its rate", Limits{Client: few(5, 20)}, []step{
			{0, 100, asks(client1), 20, outcome.LimitedClient},
			{0, 100, asks(client2), 20, outcome.LimitedClient},
			{time.Second, 100, asks(client1), 5, outcome.LimitedClient},
			{100 * time.Millisecond, 1, asks(client1), 0, outcome.LimitedClient},
			{100 * time.Millisecond, 1, asks(client1), 1, 0},
			{time.Minute, 100, asks(client1), 20, outcome.LimitedClient},
		}},
		{"a clock set back", Limits{Client: few(5, 20)}, []step{
			{0, 20, asks(client1), 20, 0},
			{-time.Hour, 100, asks(client1), 20, outcome.LimitedClient},
		}},
		{"a port with ever new MACs", Limits{Client: few(5, 20), Port: few(10, 3)}, []step{
			{0, 1, asks(client(1), via(relayIP, port1)), 1, 0},
			{0, 1, asks(client(2), via(relayIP, port1)), 1, 0},
			{0, 1, asks(client(3), via(relayIP, port1)), 1, 0},
			{0, 1, asks(client(4), via(relayIP, port1)), 0, outcome.LimitedPort},
			{0, 3, asks(client(4), via(relayIP, port2)), 3, 0},
			{0, 3, asks(client(4), via(host(9), port1)), 3, 0}, // the same value behind another relay
		}},
		{"what a client has too much its port does not pay", Limits{Client: few(1, 2), Port: few(1, 5), Relay: few(1, 6)}, []step{
			{0, 1000, asks(client1, via(relayIP, port1)), 2, outcome.LimitedClient},
			{0, 2, asks(client2, via(relayIP, port1)), 2, 0},
		}},
		{"what a port has too much the client does not pay", Limits{Client: few(1, 4), Port: few(1, 2)}, []step{
			{0, 1000, asks(client1, via(relayIP, port1)), 2, outcome.LimitedPort},
			{0, 2, asks(client1, via(relayIP, port2)), 2, 0},
			{0, 1, asks(client1, via(relayIP, port(switch1, 3))), 0, outcome.LimitedClient},
		}},
		{"a relay", Limits{Relay: few(1, 3)}, []step{
			{0, 10, asks(client1, via(relayIP, port1)), 3, outcome.LimitedRelay},
			{0, 10, asks(client1, via(host(9), port1)), 3, outcome.LimitedRelay},
		}},
		{"an interface whose clients are heard directly is a port", Limits{Port: few(1, 3)}, []step{
			{0, 10, asks(client1), 3, outcome.LimitedPort},
			{0, 10, asks(client1, onIndex(4)), 3, outcome.LimitedPort},
			{0, 3, asks(client1, via(netip.Addr{}, port1)), 3, 0}, // a switch below that inserts option 82
		}},
		{"renewals past the relay are of no port", Limits{Port: few(1, 1), Relay: few(1, 50)}, []step{
			{0, 100, asks(client1, past), 50, outcome.LimitedRelay},
		}},
		{"a relay without option 82 has no ports", Limits{Port: few(1, 1)}, []step{
			{0, 100, asks(client1, via(relayIP, nil)), 100, 0},
		}},
		{"leasequeries are of no client and no port", Limits{Client: few(1, 1), Port: few(1, 1), Relay: few(1, 50)}, []step{
			{0, 100, asks(provision.MAC{}, via(relayIP, nil), func(q *wire.Query, _ *v4.Request) { q.Type = wire.LeaseQuery }), 50, outcome.LimitedRelay},
		}},
		{"releases and declines count as well", Limits{Client: few(5, 2)}, []step{
			{0, 5, asks(client1, func(q *wire.Query, _ *v4.Request) { q.Type = wire.Release }), 2, outcome.LimitedClient},
			{0, 5, asks(client1, func(q *wire.Query, _ *v4.Request) { q.Type = wire.Decline }), 0, outcome.LimitedClient},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, set, now := newLimiter(), mustLimits(t, tc.limits), testNow
			for i, s := range tc.steps {
				now = now.Add(s.after)
				passed, over := 0, outcome.Outcome(0)
				for range s.n {
					if o, _ := l.check(now, s.r, set); o == 0 {
						passed++
					} else {
						over = o
					}
				}
				assert.Equal(t, s.want, passed, "step %d", i)
				assert.Equal(t, s.over, over, "step %d", i)
			}
		})
	}
}

func TestLimitsThatAreWrong(t *testing.T) {
	for _, l := range []Limit{{Rate: -1, Burst: 1}, {Rate: math.NaN(), Burst: 1}, {Rate: math.Inf(1), Burst: 1}, {Rate: 1e-9, Burst: 1}, {Rate: 5}, {Rate: 5, Burst: 1 << 30}} {
		opts := testOptions()
		opts.Limits.Port = l
		_, err := compile(opts)
		assert.ErrorContains(t, err, "limit of a port", "%+v", l)
	}
}

// Whoever makes up MACs cannot use up what others have: a client below its rate
// is served whatever else comes, also when the table is far too small for all.
func TestMadeUpClientsHarmNobody(t *testing.T) {
	l, set := newLimiter(), mustLimits(t, Limits{Client: Limit{Rate: 1, Burst: 5}})
	rnd := rand.New(rand.NewPCG(1, 2))
	honest := asks(client(7))
	now := testNow
	for range long.Times(t, 20, 1000) {
		for range 20_000 {
			now = now.Add(60 * time.Microsecond)
			v := rnd.Uint64()
			l.check(now, asks(provision.MAC{2, byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24), byte(v >> 32)}), set)
		}
		o, _ := l.check(now, honest, set)
		require.Zero(t, o)
	}
}

// Never more than the burst and what the time since gave, whenever packets come.
func TestLimitAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range long.Times(t, 50, 10_000) {
		rate, burst := 1+rnd.Float64()*100, 1+rnd.IntN(50)
		l, set, now := newLimiter(), mustLimits(t, Limits{Client: Limit{Rate: rate, Burst: burst}}), testNow
		r, tokens, passed := asks(client(1)), float64(burst), 0
		for range 2000 {
			d := time.Duration(rnd.ExpFloat64() / rate / 2 * float64(time.Second))
			now = now.Add(d)
			tokens = min(float64(burst), tokens+d.Seconds()*rate)
			o, _ := l.check(now, r, set)
			if near := tokens - 1; math.Abs(near) > 1e-3 { // rounding decides at the edge
				require.Equal(t, near > 0, o == 0, "rate %v burst %d: %v tokens", rate, burst, tokens)
			}
			if o == 0 {
				tokens--
				passed++
			}
		}
		require.LessOrEqual(t, float64(passed), float64(burst)+now.Sub(testNow).Seconds()*rate+1)
	}
}

// A flood is told once a second for each sender and counted whole.
func TestShedPacketsAreToldOnce(t *testing.T) {
	opts := testOptions()
	opts.Limits.Client = Limit{Rate: 1, Burst: 2}
	snap := world(t)
	events, counts := NewEventLog(0), &countOutcomes{}
	now := testNow
	s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New(),
		Observer: Observers{events, counts}, Now: func() time.Time { return now }})
	require.NoError(t, err)
	h := newHandler(s, newCommitter(s, discard{}), discard{}, nil)
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)}
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	for range 3 {
		for range 1000 {
			h.handle(now, g)
		}
		now = now.Add(time.Second)
	}
	shed := events.Find(EventFilter{Outcome: outcome.LimitedClient})
	require.Len(t, shed, 3)
	assert.Equal(t, client(0x11), shed[0].MAC)
	assert.Equal(t, relayIP, shed[0].GIAddr)
	assert.Len(t, events.Find(EventFilter{Outcome: outcome.Offer}), 4)
	assert.Equal(t, 3000-4, counts.n[outcome.LimitedClient])

	h.handle(now, g)
	assert.Zero(t, testing.AllocsPerRun(200, func() { h.handle(now, g) }), "shedding allocates nothing")
	assert.Equal(t, outcome.LimitedClient, h.ev.Outcome)
}

// Junk does not fill the event log either.
func TestNoiseIsToldSomeTimesASecond(t *testing.T) {
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "eth0"}, provision.Interface{Index: 4, Name: "other"})
	h, events := linkRig(t, links, func(o *Options) { o.Interfaces = []string{"eth0"} })
	before := events.Seen()
	for range 1000 {
		h.handle(testNow, socket.Datagram{Data: []byte("junk"), Ifindex: 3})
		h.handle(testNow, discoverOn(4))
	}
	assert.EqualValues(t, noiseTold, events.Seen()-before)
	h.handle(testNow.Add(time.Second), socket.Datagram{Data: []byte("junk"), Ifindex: 3})
	assert.EqualValues(t, noiseTold+1, events.Seen()-before)
	h.handle(testNow.Add(time.Second), discoverOn(3))
	assert.Equal(t, outcome.Offer, events.Find(EventFilter{Limit: 1})[0].Outcome)
}

type countOutcomes struct{ n [256]int }

func (c *countOutcomes) Packet(e *Event)                  { c.n[e.Outcome]++ }
func (c *countOutcomes) Commit(int, time.Duration, error) {}

// What the limiter costs a packet that it lets through, and one that it sheds.
func BenchmarkLimits(b *testing.B) {
	set := mustLimits(b, Limits{Client: Limit{Rate: 1000, Burst: 1000}, Port: Limit{Rate: 200, Burst: 2000}, Relay: Limit{Rate: 5000, Burst: 20_000}})
	rs := make([]*v4.Request, 200)
	for i := range rs {
		rs[i] = asks(provision.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, via(relayIP, port(provision.MAC{2, 1, 0, 0, 0, byte(i / 48)}, byte(i%48))))
	}
	for _, pause := range []time.Duration{time.Second / 5000, 0} {
		b.Run(fmt.Sprintf("pause=%v", pause), func(b *testing.B) {
			l, now, n, passed := newLimiter(), testNow, 0, 0
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(pause)
				if o, _ := l.check(now, rs[n%len(rs)], set); o == 0 {
					passed++
				}
				n++
			}
			b.ReportMetric(float64(passed)/float64(n), "passed/op")
		})
	}
}
