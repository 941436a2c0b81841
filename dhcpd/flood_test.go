package dhcpd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// flood sends DISCOVERs of ever new MACs from one port until stop is called: so
// many each millisecond, or with 0 as fast as it can. It counts them in sent.
// With a number it waits for a server that is 50 ms behind: what a machine is too
// busy for is dropped by the kernel, whoever it is from.
func flood(t testing.TB, s *site, each uint32) (sent *atomic.Uint64, stop func()) {
	t.Helper()
	conn := listenUDP(t, loopRelay, 0)
	q := wire.Query{Type: wire.Discover, MAC: provision.MAC{2}, GIAddr: loopRelay, Option82: port(switch1, 66)}
	p := q.Append(nil)
	ctx, cancel := context.WithCancel(t.Context())
	sent = &atomic.Uint64{}
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		behind := 0 // milliseconds
		for n := uint32(0); ctx.Err() == nil; n++ {
			p[30], p[31], p[32], p[33] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n) // chaddr
			for again := each > 0 && n%each == 0; again; again = behind > 50 && ctx.Err() == nil {
				<-tick.C
				if behind++; !s.waits() {
					behind = 0
				}
			}
			if _, err := conn.WriteToUDPAddrPort(p, s.addr); err == nil {
				sent.Add(1)
			}
		}
	})
	return sent, func() {
		cancel()
		wg.Wait()
	}
}

// waits reports whether a packet waits for the server.
func (s *site) waits() bool {
	socks := s.server.socks.Load()
	if socks == nil {
		return false
	}
	some, err := socks.Waiting()
	return some && err == nil
}

// latencies asks n times, one after another, from another port behind another
// relay, and gives how long each answer took, sorted, and how many did not come
// within a second.
func latencies(t testing.TB, s *site, n int) (took []time.Duration, lost int) {
	t.Helper()
	relay := ip("127.0.0.3")
	conn := listenUDP(t, relay, s.relayPort)
	buf := make([]byte, 2048)
	for i := range n {
		q := wire.Query{Type: wire.Discover, XID: uint32(i + 1), MAC: provision.MAC{2, 0, 0, 0, 9, byte(i)}, GIAddr: relay, Option82: port(switch1, 2)}
		began := time.Now()
		_, err := conn.WriteToUDPAddrPort(q.Append(nil), s.addr)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(began.Add(time.Second)))
		for {
			k, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				lost++
				break
			}
			var p wire.Packet
			if p.Parse(buf[:k]) == nil && p.XID() == q.XID { // else a late one
				took = append(took, time.Since(began))
				break
			}
		}
	}
	slices.Sort(took)
	_ = conn.Close()
	return took, lost
}

// floodSite is a server whose relays answer at a port of their own.
func floodSite(t testing.TB, limits Limits, mods ...func(*Options)) *site {
	t.Helper()
	free := listenUDP(t, ip("127.0.0.3"), 0)
	opts := loopbackOptions(portOf(free), 68)
	require.NoError(t, free.Close())
	opts.Relays = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/29")}
	opts.Limits = limits
	for _, mod := range mods {
		mod(&opts)
	}
	return startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, siteInput(), nil, (*Server).Listen)
}

func defaultLimits() Limits {
	return Limits{Client: Limit{Rate: 5, Burst: 20}, Port: Limit{Rate: 200, Burst: 2000}, Relay: Limit{Rate: 5000, Burst: 20_000}}
}

// A port that sends a hundred times of what it may is shed and counted; the clients
// behind others are answered.
func TestFloodFromOnePortHarmsNoOther(t *testing.T) {
	s := floodSite(t, defaultLimits())
	sent, stop := flood(t, s, 20)
	require.Eventually(t, func() bool { return sent.Load() > 5000 }, 30*time.Second, time.Millisecond, "more than the burst of a port")
	took, lost := latencies(t, s, 200)
	stop()
	require.LessOrEqual(t, lost, 2, "of 200, while %d were sent", sent.Load())
	t.Logf("%d flooded, median %v, 99th percentile %v, lost %d", sent.Load(), took[len(took)/2], took[len(took)*99/100], lost)
	require.NoError(t, s.stop())
	shed := s.events.Find(EventFilter{Outcome: outcome.LimitedPort})
	require.NotEmpty(t, shed)
	require.LessOrEqual(t, len(shed), 64*4, "they do not fill the event log")
}

// asking is a client that asks from a relay's address by one packet.
type asking struct {
	from, gi netip.Addr
	opt82    []byte
}

// answeredBeside has v ask seven times; before each, the stranger asks thirty times with the same MAC. It
// gives how many answers came to v. The socket keeps the order of packets.
func answeredBeside(t *testing.T, s *site, v, stranger asking) (answered int) {
	t.Helper()
	conn, other := listenUDP(t, v.from, s.relayPort), listenUDP(t, stranger.from, 0)
	defer conn.Close()
	defer other.Close()
	buf := make([]byte, 2048)
	ask := func(c *net.UDPConn, a asking, xid uint32) {
		q := wire.Query{Type: wire.Discover, XID: xid, MAC: client(0x99), GIAddr: a.gi, Option82: a.opt82}
		_, err := c.WriteToUDPAddrPort(q.Append(nil), s.addr)
		require.NoError(t, err)
	}
	for n := range uint32(7) {
		for range 30 {
			ask(other, stranger, 100)
		}
		ask(conn, v, n+1)
		for deadline := time.Now().Add(300 * time.Millisecond); ; {
			require.NoError(t, conn.SetReadDeadline(deadline))
			k, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			var p wire.Packet
			if p.Parse(buf[:k]) == nil && p.XID() == n+1 {
				answered++
				break
			}
		}
	}
	return answered
}

// Who sends thirty times as much with the MAC of another client, from another port, behind another relay or as
// none, leaves that client its answers.
func TestStrangerWithTheMACOfAnother(t *testing.T) {
	relay1, relay2, outsider := loopRelay, ip("127.0.0.3"), ip("127.0.0.99")
	own := asking{relay1, relay1, port(switch1, 2)}
	for _, tc := range []struct {
		name     string
		stranger asking
		open     bool // no relay is listed
		shed     outcome.Outcome
	}{
		{"another port", asking{relay1, relay1, port(switch1, 66)}, false, outcome.LimitedClient},
		{"another relay", asking{relay2, relay2, port(switch1, 2)}, false, outcome.LimitedClient},
		{"another relay that names this one", asking{relay2, relay1, port(switch1, 2)}, false, outcome.LimitedClient},
		{"the same port and relay, from an address that is not listed", asking{outsider, relay1, port(switch1, 2)}, false, outcome.LimitedClient},
		{"a relay that is not listed", asking{outsider, outsider, port(switch1, 2)}, false, outcome.RelayUntrusted},
		{"the same port and relay, no list", asking{outsider, relay1, port(switch1, 2)}, true, outcome.LimitedClient},
		{"no relay", asking{outsider, netip.Addr{}, port(switch1, 2)}, false, outcome.LimitedClient},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := floodSite(t, defaultLimits(), func(o *Options) {
				if tc.open {
					o.Relays = nil
				}
			})
			require.Equal(t, 7, answeredBeside(t, s, own, tc.stranger))
			require.NoError(t, s.stop())
			require.NotEmpty(t, s.events.Find(EventFilter{Outcome: tc.shed}), "the stranger is shed")
		})
	}
}

// A flood that names the listed relay and one of its ports, from an address that is not
// listed, uses up the share of its interface; the relay's own clients have theirs.
func TestFloodThatNamesARelay(t *testing.T) {
	l := Limits{Client: Limit{Rate: 0.1, Burst: 20}, Port: Limit{Rate: 0.1, Burst: 30}, Relay: Limit{Rate: 0.1, Burst: 40}}
	s := floodSite(t, l, func(*Options) {})
	conn, other := listenUDP(t, loopRelay, s.relayPort), listenUDP(t, ip("127.0.0.99"), 0)
	send := func(c *net.UDPConn, xid uint32, n int, p byte) {
		q := wire.Query{Type: wire.Discover, XID: xid, MAC: provision.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)}, GIAddr: loopRelay, Option82: port(switch1, p)}
		_, err := c.WriteToUDPAddrPort(q.Append(nil), s.addr)
		require.NoError(t, err)
	}
	for n := range 35 { // its port's share is used up then, and the interface's by another
		send(other, 1, n, 2)
	}
	for n := range 35 {
		send(other, 1, n, 3)
	}
	buf := make([]byte, 2048)
	for n := range 25 {
		xid := uint32(1000 + n)
		send(conn, xid, n, 2)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		for { // answers to the flood come here too
			k, _, err := conn.ReadFromUDPAddrPort(buf)
			require.NoError(t, err, "%d: %+v", n, s.events.Find(EventFilter{Limit: 3}))
			var p wire.Packet
			if p.Parse(buf[:k]) == nil && p.XID() == xid {
				break
			}
		}
	}
	require.NoError(t, s.stop())
	require.NotEmpty(t, s.events.Find(EventFilter{Outcome: outcome.LimitedPort}))
	require.NotEmpty(t, s.events.Find(EventFilter{Outcome: outcome.LimitedRelay}))
}

// BenchmarkFlood tells how long answers take behind a quiet port while another
// one floods, with limits and without, against an idle server of the same run.
func BenchmarkFlood(b *testing.B) {
	for _, tc := range []struct {
		name   string
		limits Limits
	}{{"limits", defaultLimits()}, {"no-limits", Limits{}}} {
		b.Run(tc.name, func(b *testing.B) {
			var idle, busy []time.Duration
			var total uint64
			var drops uint64
			lost, rounds := 0, 0
			flooded := time.Duration(0)
			for b.Loop() {
				s := floodSite(b, tc.limits) // whose limits are whole: those who are timed ask far quicker than clients do
				i, _ := latencies(b, s, 250)
				sent, stop := flood(b, s, 0)
				at := time.Now()
				l, n := latencies(b, s, 250)
				flooded += time.Since(at)
				stop()
				total += sent.Load()
				drops += s.server.Sockets().ReceiveDrops
				require.NoError(b, s.stop())
				idle, busy, lost, rounds = append(idle, i...), append(busy, l...), lost+n, rounds+1
			}
			slices.Sort(idle)
			slices.Sort(busy)
			for _, p := range []int{50, 99} {
				i, l := idle[len(idle)*p/100], busy[len(busy)*p/100]
				b.ReportMetric(float64(i.Microseconds()), fmt.Sprintf("p%d-idle-µs", p))
				b.ReportMetric(float64(l.Microseconds()), fmt.Sprintf("p%d-flood-µs", p))
				b.ReportMetric(float64(l)/float64(i), fmt.Sprintf("p%d-ratio", p))
			}
			b.ReportMetric(float64(lost)/float64(rounds*250), "lost/op")
			b.ReportMetric(float64(total)/flooded.Seconds()/1000, "kflood/s")
			b.ReportMetric(float64(drops)/float64(max(total, 1)), "dropped-by-kernel/flooded")
		})
	}
}

// What a packet costs that is shed, all but the sockets.
func BenchmarkShed(b *testing.B) {
	links := &fakeLinks{}
	links.set(provision.Interface{Index: 3, Name: "eth0"})
	h, _ := linkRig(b, links, func(o *Options) { o.Limits = defaultLimits() })
	q := wire.Query{Type: wire.Discover, MAC: provision.MAC{2}, GIAddr: relayIP, Option82: port(switch1, 66)}
	g := socket.Datagram{Data: q.Append(nil), From: netip.AddrPortFrom(relayIP, 67), Ifindex: 3, To: serverIP}
	n := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		g.Data[30], g.Data[31], g.Data[32], g.Data[33] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		h.handle(testNow, g)
	}
}
