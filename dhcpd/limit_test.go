package dhcpd

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// asks is a request as the socket gives it; judged says who vouches for it.
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

// judged is r as the handler gives it to the limiter, on an interface by name.
func judged(t testing.TB, set *settings, r *v4.Request, iface string) *v4.Request {
	t.Helper()
	r.P.Ingress = set.config.Line().Ingress(iface)
	v4.Judge(r, world(t), set.config)
	require.Zero(t, r.Trust.Refused, "it does not get as far as the limits")
	return r
}

func mustLimits(t testing.TB, l Limits, mods ...func(*Options)) *settings {
	t.Helper()
	opts := testOptions()
	opts.Limits = l
	for _, mod := range mods {
		mod(&opts)
	}
	set, err := compile(opts)
	require.NoError(t, err)
	return set.settings
}

func TestLimits(t *testing.T) {
	port1, port2 := port(switch1, 1), port(switch1, 2)
	few := func(rate float64, burst int) Limit { return Limit{Rate: rate, Burst: burst} }
	client1, client2 := client(1), client(2)
	relay2 := ip("198.51.100.2")
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
			{0, 3, asks(client(4), via(relay2, port1)), 3, 0}, // the same value behind another relay
		}},
		{"what a client has too much its port does not pay", Limits{Client: few(1, 2), Port: few(1, 5), Relay: few(1, 6)}, []step{
			{0, 1000, asks(client1, via(relayIP, port1)), 2, outcome.LimitedClient},
			{0, 2, asks(client2, via(relayIP, port1)), 2, 0},
		}},
		{"what a port has too much the client does not pay", Limits{Client: few(1, 4), Port: few(100, 2)}, []step{
			{0, 1000, asks(client1, via(relayIP, port1)), 2, outcome.LimitedPort},
			{20 * time.Millisecond, 1000, asks(client1, via(relayIP, port1)), 2, outcome.LimitedClient},
			{20 * time.Millisecond, 1000, asks(client1, via(relayIP, port1)), 0, outcome.LimitedClient},
			{0, 1000, asks(client1, via(relayIP, port2)), 2, outcome.LimitedPort}, // the same MAC elsewhere
		}},
		{"a relay", Limits{Relay: few(1, 3)}, []step{
			{0, 10, asks(client1, via(relayIP, port1)), 3, outcome.LimitedRelay},
			{0, 10, asks(client1, via(relay2, port1)), 3, outcome.LimitedRelay},
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
		{"nor has one whose option 82 is not believed", Limits{Port: few(1, 1), Relay: few(1, 50)}, []step{
			{0, 60, asks(client1, via(ip("203.0.113.99"), port1)), 50, outcome.LimitedRelay},
			{0, 1, asks(client2, via(relayIP, port1)), 1, 0}, // the victim, behind its own
		}},
		{"leasequeries are of no client and no port", Limits{Client: few(1, 1), Port: few(1, 1), Relay: few(1, 50)}, []step{
			{0, 100, asks(provision.MAC{}, via(nodeIP, nil), func(q *wire.Query, _ *v4.Request) { q.Type = wire.LeaseQuery }), 50, outcome.LimitedRelay},
		}},
		{"releases and declines count as well", Limits{Client: few(5, 2)}, []step{
			{0, 5, asks(client1, func(q *wire.Query, _ *v4.Request) { q.Type = wire.Release }), 2, outcome.LimitedClient},
			{0, 5, asks(client1, func(q *wire.Query, _ *v4.Request) { q.Type = wire.Decline }), 0, outcome.LimitedClient},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, now := newLimiter(), testNow
			set := mustLimits(t, tc.limits, func(o *Options) {
				o.LeaseQuery.From, o.Option82Relays = []netip.Prefix{netip.PrefixFrom(nodeIP, 32)}, []string{"198.51.100.0/24"}
			})
			for i, s := range tc.steps {
				judged(t, set, s.r, "eth0")
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

// sharing says which buckets of a the packet b takes from, and which a has alone.
func sharing(l *limiter, set *settings, a, b *v4.Request) string {
	one, other := l.keys(a, set.config), l.keys(b, set.config)
	var words []string
	for i, name := range [limitKinds]string{"client", "port", "relay"} {
		switch one[i] {
		case 0:
			words = append(words, "no "+name)
		case other[i]:
			words = append(words, name)
		}
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// Row by row: what of its share a packet may lose to another one.
func TestWhoseShare(t *testing.T) {
	const (
		nothing = "nothing"
		refused = "refused: it does not get as far as the limits"
		all     = "client, port, relay"
	)
	type way struct {
		index int // of the interface
		name  string
		from  string
		gi    netip.Addr
		opt82 []byte
		mac   byte
		mod   func(*wire.Query, *v4.Request)
	}
	var (
		relay2   = ip("198.51.100.2")
		far      = "192.0.2.250" // bound to nobody, not listed
		none     netip.Addr
		port1    = port(switch1, 1)
		port2    = port(switch1, 2)
		plus     = func(b []byte, more ...byte) []byte { return append(slices.Clone(b), more...) }
		twice    = func(q *wire.Query, _ *v4.Request) { q.Options = append(q.Options, wire.Option{Code: 82, Value: port2}) }
		unicast  = func(q *wire.Query, r *v4.Request) { q.CIAddr, r.Local = host(11), serverIP }
		query    = func(q *wire.Query, _ *v4.Request) { q.Type = wire.LeaseQuery }
		relayed  = way{3, "up0", "198.51.100.1", relayIP, port1, 1, nil}
		bare     = way{3, "up0", "198.51.100.1", relayIP, nil, 1, nil}
		switched = way{4, "snoop0", "0.0.0.0", none, port1, 1, nil}
		direct   = way{5, "flat0", "0.0.0.0", none, nil, 1, nil}
		renews   = way{3, "up0", "192.0.2.11", none, nil, 1, unicast}
		vlan     = way{6, "vlan7", "0.0.0.0", none, nil, 1, nil}
		asksNode = way{3, "up0", "203.0.113.9", ip("203.0.113.9"), nil, 1, query}
	)
	but := func(w way, change func(*way)) way {
		change(&w)
		return w
	}
	trusting := func(o *Options) { o.TrustedInterfaces = []string{"snoop*"} }
	open := func(o *Options) { o.Relays = nil }
	anywhere := func(*Options) {}
	for _, tc := range []struct {
		name string
		opts func(*Options)
		a, b way
		want string // of a's share that b takes from
	}{
		{"the same client", trusting, relayed, relayed, all},
		{"another MAC on the port", trusting, relayed, but(relayed, func(w *way) { w.mac = 2 }), "port, relay"},
		{"its MAC on another port", trusting, relayed, but(relayed, func(w *way) { w.opt82 = port2 }), "relay"},
		{"its MAC without a port", trusting, relayed, bare, "relay"},
		{"its MAC and port behind another relay", trusting, relayed, but(relayed, func(w *way) { w.gi, w.from = relay2, "198.51.100.2" }), nothing},
		{"its MAC, port and giaddr, by a client of another relay", trusting, relayed, but(relayed, func(w *way) { w.from = "198.51.100.2" }), nothing},
		{"its MAC and port, another network of the relay", trusting, relayed, but(relayed, func(w *way) { w.gi = relay2 }), "relay"},
		{"from a source that is not listed", trusting, relayed, but(relayed, func(w *way) { w.from = far }), nothing},
		{"from another interface with the relay's address", trusting, relayed, but(relayed, func(w *way) { w.index, w.name = 9, "up1" }), nothing},
		{"its option 82 on a trusted interface", trusting, relayed, switched, nothing},
		{"its option 82 on the interface of the relay, without one", anywhere, relayed, but(switched, func(w *way) { w.index, w.name = 3, "up0" }), nothing},
		{"a renewal past the relay", trusting, relayed, renews, nothing},
		{"a leasequery that names the relay", trusting, relayed, but(relayed, func(w *way) { w.mod = query }), refused},
		{"two option 82, the first one its own", trusting, relayed, but(relayed, func(w *way) { w.mod = twice }), "relay"},
		{"the client's own MAC as remote-id: another MAC on the port", trusting, but(relayed, func(w *way) { w.opt82 = port(client(1), 1) }), but(relayed, func(w *way) { w.opt82, w.mac = port(client(2), 1), 2 }), "port, relay"},
		{"the client's own MAC as remote-id: on another port", trusting, but(relayed, func(w *way) { w.opt82 = port(client(1), 1) }), but(relayed, func(w *way) { w.opt82 = port(client(1), 2) }), "relay"},
		{"flags", trusting, relayed, but(relayed, func(w *way) { w.opt82 = plus(port1, 10, 1, 0x80) }), all},
		{"authentication, another in each", trusting, but(relayed, func(w *way) { w.opt82 = plus(port1, 8, 4, 1, 2, 3, 4) }), but(relayed, func(w *way) { w.opt82 = plus(port1, 8, 4, 1, 2, 3, 5) }), all},
		{"a subscriber-id", trusting, relayed, but(relayed, func(w *way) { w.opt82 = plus(port1, 6, 1, 'x') }), "relay"},
		{"circuit-id and remote-id divided otherwise", trusting, but(relayed, func(w *way) { w.opt82 = []byte{1, 2, 'a', 'b', 2, 1, 'c'} }), but(relayed, func(w *way) { w.opt82 = []byte{1, 1, 'a', 2, 2, 'b', 'c'} }), "relay"},
		{"ports that only other sub-options name", trusting, but(relayed, func(w *way) { w.opt82 = []byte{9, 1, 1} }), but(relayed, func(w *way) { w.opt82 = []byte{9, 1, 2} }), "relay"},
		{"option 82 that is broken is one line", trusting, but(relayed, func(w *way) { w.opt82 = []byte{1, 6, 0} }), but(relayed, func(w *way) { w.opt82 = []byte{1, 7} }), all},

		{"no option 82: its MAC behind the relay", trusting, bare, bare, "client, no port, relay"},
		{"no option 82: behind another relay", trusting, bare, but(bare, func(w *way) { w.gi, w.from = relay2, "198.51.100.2" }), "no port"},
		{"no option 82: from a source that is not listed", trusting, bare, but(bare, func(w *way) { w.from = far }), "no port"},

		{"no list: its MAC on another port", open, relayed, but(relayed, func(w *way) { w.opt82 = port2 }), "relay"},
		{"no list: all of it from another source", open, relayed, but(relayed, func(w *way) { w.from = far }), "relay"},
		{"no list: on another interface", open, relayed, but(relayed, func(w *way) { w.index, w.name = 9, "up1" }), nothing},
		{"no list: another relay shares the interface", open, relayed, but(relayed, func(w *way) { w.gi, w.from = relay2, "198.51.100.2" }), "relay"},
		{"no list, no option 82: from another source", open, bare, but(bare, func(w *way) { w.from = far }), "no port, relay"},
		{"an unlisted source: what is direct shares the interface", anywhere, but(relayed, func(w *way) { w.from = far }), renews, "relay"},

		{"a trusted interface: its MAC on another port", trusting, switched, but(switched, func(w *way) { w.opt82 = port2 }), "relay"},
		{"a trusted interface: its source does not matter", trusting, switched, but(switched, func(w *way) { w.from, w.mod = "192.0.2.11", unicast }), all},
		{"a trusted interface: its MAC and port on another", trusting, switched, but(switched, func(w *way) { w.index, w.name = 7, "snoop1" }), nothing},
		{"not trusted: option 82 does not count", trusting, direct, but(direct, func(w *way) { w.opt82 = port2 }), all},
		{"trusted_interfaces left out: its MAC on another port", anywhere, switched, but(switched, func(w *way) { w.opt82 = port2 }), "relay"},
		{"trusted_interfaces left out: on another interface", anywhere, switched, but(switched, func(w *way) { w.index, w.name = 7, "flat9" }), nothing},

		{"a VLAN: its MAC", trusting, vlan, vlan, all},
		{"a VLAN: its address does not matter", trusting, vlan, but(vlan, func(w *way) { w.from, w.mod = "192.0.2.11", unicast }), all},
		{"a VLAN: another MAC", trusting, vlan, but(vlan, func(w *way) { w.mac = 2 }), "port, relay"},
		{"a VLAN: its MAC in another", trusting, vlan, but(vlan, func(w *way) { w.index, w.name = 8, "vlan8" }), nothing},
		{"a VLAN: option 82 that the customer writes makes no other port", anywhere, vlan, but(vlan, func(w *way) { w.opt82 = port2 }), all},

		{"a wire without lines: its MAC", trusting, direct, direct, all},
		{"a wire without lines: another MAC", trusting, direct, but(direct, func(w *way) { w.mac = 2 }), "port, relay"},
		{"a wire without lines: its MAC from another address", trusting, direct, but(direct, func(w *way) { w.from = far }), "port, relay"},
		{"a wire without lines: another wire", trusting, direct, but(direct, func(w *way) { w.index, w.name = 7, "flat1" }), nothing},
		{"a renewal: its MAC from another address", trusting, renews, but(renews, func(w *way) { w.from = far }), "no port, relay"},
		{"a renewal: its own", trusting, renews, renews, "client, no port, relay"},

		{"a node: its own queries", trusting, asksNode, asksNode, "no client, no port, relay"},
		{"a node: another one names it", trusting, asksNode, but(asksNode, func(w *way) { w.from = far }), "no client, no port"},
		{"a node: one that is not listed", trusting, asksNode, but(asksNode, func(w *way) { w.gi, w.from = ip("198.51.100.77"), "198.51.100.77" }), refused},
		{"a node: it relays too", trusting, asksNode, but(asksNode, func(w *way) { w.mod = nil }), "no client, no port"},
		{"a node: none is named", trusting, asksNode, but(direct, func(w *way) { w.mod = query }), refused},
		{"two that name a node from elsewhere", trusting, but(asksNode, func(w *way) { w.from = far }), but(asksNode, func(w *way) { w.from = "192.0.2.251" }), "no client, no port, relay"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := mustLimits(t, defaultLimits(), func(o *Options) { o.LeaseQuery.From = []netip.Prefix{netip.MustParsePrefix("203.0.113.8/30")} },
				func(o *Options) { o.VLANInterfaces = []string{"vlan{vlan}"} }, tc.opts)
			read := func(w way) *v4.Request {
				mod := w.mod
				if mod == nil {
					mod = func(*wire.Query, *v4.Request) {}
				}
				r := asks(client(w.mac), via(w.gi, w.opt82), onIndex(w.index), mod)
				r.P.From = netip.AddrPortFrom(ip(w.from), 67)
				r.P.Ingress = set.config.Line().Ingress(w.name)
				v4.Judge(r, world(t), set.config)
				return r
			}
			a, b := read(tc.a), read(tc.b)
			require.Zero(t, a.Trust.Refused)
			if tc.want == refused {
				require.Equal(t, outcome.LeaseQueryRefused, b.Trust.Refused)
				return
			}
			require.Zero(t, b.Trust.Refused)
			assert.Equal(t, tc.want, sharing(newLimiter(), set, a, b))
		})
	}
}

// Whatever a stranger writes meets no bucket of a client behind a listed relay, on a trusted interface or in
// a VLAN, unless it comes by the very same way: then it is behind another port.
func TestStrangersMeetNoBucketOfAnother(t *testing.T) {
	set := mustLimits(t, defaultLimits(), func(o *Options) {
		o.LeaseQuery.From = []netip.Prefix{netip.MustParsePrefix("203.0.113.8/30")}
		o.VLANInterfaces, o.TrustedInterfaces = []string{"vlan{vlan}"}, []string{"snoop*"}
	})
	rnd, snap, l := rand.New(rand.NewPCG(5, 6)), world(t), newLimiter()
	one := func(of ...string) string { return of[rnd.IntN(len(of))] }
	names := map[int]string{3: "up0", 4: "snoop0", 5: "flat0", 6: "vlan7"}
	send := func(index int, mac provision.MAC, from, gi string, opt82 []byte, unicast bool, kind wire.MessageType) *v4.Request {
		r := asks(mac, onIndex(index), func(q *wire.Query, r *v4.Request) {
			if q.Type, q.Option82 = kind, opt82; gi != "" {
				q.GIAddr = ip(gi)
			}
			if unicast {
				r.Local = serverIP
			}
		})
		r.P.From = netip.AddrPortFrom(ip(from), 68)
		r.P.Ingress = set.config.Line().Ingress(names[index])
		v4.Judge(r, snap, set.config)
		return r
	}
	victims := map[int]*v4.Request{
		3: send(3, client(0x11), "198.51.100.1", "198.51.100.1", port(switch1, 1), true, wire.Discover),
		4: send(4, client(0x11), "0.0.0.0", "", port(switch1, 1), false, wire.Discover),
		6: send(6, client(0x11), "0.0.0.0", "", nil, false, wire.Discover),
	}
	met, judgedOnly := 0, 0
	for range long.Times(t, 3000, 100_000) {
		index := []int{3, 4, 5, 6}[rnd.IntN(4)]
		from := one("0.0.0.0", "198.51.100.2", "192.0.2.250", "10.9.9.9", "203.0.113.9", "198.51.100.1")
		gi := one("", "198.51.100.1", "198.51.100.2", "203.0.113.9")
		opt82 := [][]byte{nil, port(switch1, 1), append(port(switch1, 1), 10, 1, 0), port(switch1, 2), {1, 9}}[rnd.IntN(5)]
		kind := []wire.MessageType{wire.Discover, wire.Request, wire.LeaseQuery, wire.Release}[rnd.IntN(4)]
		r := send(index, client(0x11), from, gi, opt82, rnd.IntN(2) == 0, kind)
		if r.Trust.Refused != 0 {
			judgedOnly++
			continue // it does not get here
		}
		for on, v := range victims {
			got := sharing(l, set, v, r)
			switch { // its own way, by which only its relay, its switch or itself sends
			case on != index:
			case r.Trust.By == v4.VoucherRelay && from == "198.51.100.1", r.Trust.By == v4.VoucherSwitch && r.P.HasOption82(), index == 6:
				continue
			case index == 4: // other customers' wire too: what is not vouched for there has the interface's share
				require.Contains(t, []string{"relay", "nothing"}, got)
				met++
				continue
			}
			require.Equal(t, "nothing", got, "victim on %s: %s from %s, giaddr %q, option 82 %x on %s", names[on], kind, from, gi, opt82, names[index])
			met++
		}
	}
	require.Greater(t, met, 1000)
	require.Positive(t, judgedOnly)
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
	for range long.Times(t, 8, 1000) {
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

// refusals are datagrams of every kind that is refused before it is looked at, on a rig of refusalRig.
func refusals() map[outcome.Outcome]socket.Datagram {
	relayed := func(gi netip.Addr) []byte {
		q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: gi, Option82: port(switch1, 1)}
		return q.Append(nil)
	}
	from := func(a string) netip.AddrPort { return netip.AddrPortFrom(ip(a), 67) }
	query := wire.Query{Type: wire.LeaseQuery, GIAddr: relayIP, CIAddr: host(11)}
	return map[outcome.Outcome]socket.Datagram{
		outcome.Malformed:       {Data: relayed(relayIP)[:200], From: from("198.51.100.1"), Ifindex: 3},
		outcome.InterfaceOff:    {Data: relayed(relayIP), From: from("198.51.100.1"), Ifindex: 5},
		outcome.RelayUntrusted:  {Data: relayed(ip("10.9.9.9")), From: from("198.51.100.1"), Ifindex: 3},
		outcome.RelaySource:     {Data: relayed(relayIP), From: from("10.9.9.9"), Ifindex: 3},
		outcome.RelayNoSource:   {Data: relayed(relayIP), From: from("0.0.0.0"), Ifindex: 3},
		outcome.RelaySubscriber: {Data: relayed(relayIP), From: from("192.0.2.31"), Ifindex: 3},
		outcome.RelayInterface:  {Data: relayed(relayIP), From: from("198.51.100.1"), Ifindex: 4},

		outcome.LeaseQueryRefused: {Data: query.Append(nil), From: from("198.51.100.1"), Ifindex: 3},
	}
}

func refusalRig(t testing.TB, mods ...func(*Options)) (*handler, *EventLog) {
	t.Helper()
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "up0"}, provision.Interface{Index: 4, Name: "flat0"}, provision.Interface{Index: 5, Name: "other"},
		provision.Interface{Index: 6, Name: "up1"})
	h, _ := linkRig(t, links, func(o *Options) {
		o.Interfaces, o.SubscriberInterfaces, o.CheckRelaySource = []string{"up*", "flat*"}, []string{"flat*"}, line.SourceListed
		for _, mod := range mods {
			mod(o)
		}
	})
	events := NewEventLog(0)
	h.s.observer = events
	return h, events
}

// What is refused costs nobody's share: not that of the relay that it names, of the port, of the client, or of the interface.
func TestRefusedPacketsCostNobody(t *testing.T) {
	small := Limits{Client: Limit{Rate: 1, Burst: 3}, Port: Limit{Rate: 1, Burst: 6}, Relay: Limit{Rate: 1, Burst: 9}}
	honest := func(mac, n byte) socket.Datagram {
		q := wire.Query{Type: wire.Discover, MAC: client(mac), GIAddr: relayIP, Option82: port(switch1, n)}
		return socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3}
	}
	direct := func(mac provision.MAC, index int) socket.Datagram {
		q := wire.Query{Type: wire.Discover, MAC: mac}
		return socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(netip.IPv4Unspecified(), 68), Ifindex: index}
	}
	// Each limit is reached by these, to the packet: those of the relay and of the interfaces.
	share := func(h *handler) (got []outcome.Outcome) {
		for _, g := range []socket.Datagram{honest(0x11, 1), honest(0x12, 1), honest(0x13, 1), honest(0x31, 3), honest(0x41, 4),
			direct(client(0x81), 3), direct(client(0x11), 3), direct(client(0x31), 3), direct(client(0x81), 4), direct(client(0x11), 4), direct(client(0x31), 4)} {
			for range 4 {
				h.handle(testNow, g)
				got = append(got, h.ev.Outcome)
			}
		}
		return got
	}
	bounded := func(o *Options) { o.Limits = small }
	untouched, _ := refusalRig(t, bounded)
	whole := share(untouched)
	for _, o := range []outcome.Outcome{outcome.Offer, outcome.LimitedClient, outcome.LimitedPort, outcome.LimitedRelay} {
		require.Contains(t, whole, o)
	}
	kinds := refusals()
	kinds[outcome.Standby] = honest(0x11, 1)
	for kind, g := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			var active Options
			h, _ := refusalRig(t, bounded, func(o *Options) {
				active = *o
				if kind == outcome.Standby {
					o.AnswerWhileHolding = host(254)
				}
			})
			refused := 0
			g.Data = slices.Clone(g.Data)
			for n := range 38_000 {
				binary.BigEndian.PutUint16(g.Data[32:], uint16(n/2)) // chaddr: one client's limit does not hold it back
				if h.handle(testNow, g); h.ev.Outcome == kind {
					refused++
				}
			}
			require.Equal(t, 38_000, refused)
			require.NoError(t, h.s.Reload(active)) // as the address comes
			assert.Equal(t, whole, share(h))
		})
	}
}

// One sender's refusals hide nobody else's, and are told some times a second with their source.
func TestRefusalsAreToldBySender(t *testing.T) {
	h, events := refusalRig(t)
	told := func() map[string]int {
		out := map[string]int{}
		for _, e := range events.Find(EventFilter{}) {
			out[e.Outcome.String()+" "+e.Source.Addr().String()]++
		}
		return out
	}
	flood := refusals()[outcome.RelaySubscriber]
	for range 38_000 {
		h.handle(testNow, flood)
	}
	want := map[string]int{}
	for kind, g := range refusals() {
		h.handle(testNow, g)
		want[kind.String()+" "+g.From.Addr().String()] = 1
	}
	want["relay_subscriber 192.0.2.31"] = refusedToldOf
	other := flood
	other.From = netip.AddrPortFrom(host(11), 4011)
	h.handle(testNow, other)
	want["relay_subscriber 192.0.2.11"] = 1
	assert.Equal(t, want, told())
	h.handle(testNow.Add(time.Second), flood)
	want["relay_subscriber 192.0.2.31"]++
	assert.Equal(t, want, told())
}

// Made-up senders do not fill the event log; another reason, another interface and the next second have room.
func TestMadeUpRefusalsAreBounded(t *testing.T) {
	h, events := refusalRig(t)
	flood := func(now time.Time, index int) (told int) {
		before := events.Seen()
		for n := range 1000 {
			g := refusals()[outcome.RelaySource]
			g.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 67)
			g.Ifindex = index
			h.handle(now, g)
		}
		return int(events.Seen() - before)
	}
	assert.Equal(t, refusedToldOn, flood(testNow, 3))
	assert.Equal(t, refusedTold-refusedToldOn, flood(testNow, 6), "on another interface")
	assert.Zero(t, flood(testNow, 3))
	h.handle(testNow, refusals()[outcome.RelayUntrusted])
	assert.Equal(t, outcome.RelayUntrusted, events.Find(EventFilter{Limit: 1})[0].Outcome)
	assert.Equal(t, refusedToldOn, flood(testNow.Add(time.Second), 3))

	before := events.Seen()
	for n := range 1000 { // clients without an address are told apart by their MAC
		q := wire.Query{Type: wire.Discover, MAC: provision.MAC{2, 0, 0, 0, byte(n % 2), 1}}
		h.handle(testNow, socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(netip.IPv4Unspecified(), 68), Ifindex: 5})
		h.handle(testNow, socket.Datagram{Data: []byte("junk"), Ifindex: 3})
		h.handle(testNow, socket.Datagram{Ifindex: 3})
	}
	assert.EqualValues(t, 2*refusedToldOf+refusedToldOf, events.Seen()-before)

	for kind, g := range refusals() {
		h.handle(testNow, g)
		assert.Zero(t, testing.AllocsPerRun(100, func() { h.handle(testNow, g) }), "%s", kind)
	}
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
		rs[i].P.From = netip.AddrPortFrom(relayIP, 67)
		judged(b, set, rs[i], "eth0")
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
