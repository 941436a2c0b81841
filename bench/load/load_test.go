package load

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/batch"
	"github.com/usher-agent/usher/bench/echo"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// against returns a generator, and a socket whose packets serve answers until the test ends.
func against(t *testing.T, o Options, serve func(ctx context.Context, conn *batch.Conn) error) *Generator {
	t.Helper()
	server, err := batch.Listen(netip.AddrPortFrom(loopback, 0))
	require.NoError(t, err)
	client, err := batch.Listen(netip.AddrPortFrom(loopback, 0))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := serve(ctx, server); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		require.NoError(t, server.Close())
		require.NoError(t, client.Close())
	})
	o.Server, o.Relay = server.LocalAddr(), loopback
	return New(client, o)
}

// whimsical is an echo whose change may make something else of a packet; false drops it.
func whimsical(change func(p []byte) bool) func(context.Context, *batch.Conn) error {
	return func(ctx context.Context, conn *batch.Conn) error {
		defer context.AfterFunc(ctx, func() { _ = conn.Wake() })()
		for {
			n, err := conn.Receive(-1)
			if err != nil || ctx.Err() != nil {
				return err
			}
			for i := range n {
				if p := conn.Packet(i); change(p) {
					p[0] = 2
				} else {
					p[4], p[28] = 0xff, 0xff // fits nobody
					p[0] = 2
				}
			}
			if err := conn.Answer(n); err != nil {
				return err
			}
		}
	}
}

func clients(n int) []Client {
	all := make([]Client, n)
	for i := range all {
		all[i] = Client{MAC: [6]byte{2, 0, 0, 0, byte(i >> 8), byte(i + 1)}, Port: uint32(i)}
	}
	return all
}

func TestLeaseAndRenew(t *testing.T) {
	g := against(t, Options{InFlight: 10}, echo.Serve)
	all := clients(500)
	res, err := g.Lease(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, 500, res.Acked, "%v", &res)
	require.Len(t, res.Latency, 500)
	require.LessOrEqual(t, res.Percentile(50), res.Percentile(100))
	require.Zero(t, res.Lost+res.Naks+res.Strange)
	require.Equal(t, netip.MustParseAddr("2.0.1.1"), all[256].IP)
	res, err = g.Renew(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, 500, res.Acked, "%v", &res)
	_, err = g.Renew(t.Context(), clients(1))
	require.ErrorContains(t, err, "no address to renew")
}

func TestUnansweredIsRepeatedThenGivenUp(t *testing.T) {
	seen := map[[6]byte]int{}
	g := against(t, Options{Retry: 20 * time.Millisecond, Tries: 3}, whimsical(func(p []byte) bool {
		mac := [6]byte(p[28:34])
		seen[mac]++
		switch kind := wire.MessageType(p[242]); {
		case mac[5] == 2: // never
			return false
		case seen[mac] == 1:
			return false
		case kind == wire.Discover:
			p[242] = byte(wire.Offer)
		default:
			p[242] = byte(wire.Ack)
		}
		p[16] = 10
		return true
	}))
	all := clients(2)
	res, err := g.Lease(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, 1, res.Acked)
	require.Equal(t, 1, res.Lost)
	require.GreaterOrEqual(t, res.Retries, 3)
	require.True(t, all[0].IP.IsValid())
	require.False(t, all[1].IP.IsValid())
}

func TestNakBeginsAnew(t *testing.T) {
	naks := 0
	g := against(t, Options{Tries: 4}, whimsical(func(p []byte) bool {
		kind := wire.MessageType(p[242])
		switch {
		case kind == wire.Discover:
			p[242] = byte(wire.Offer)
		case p[33] == 2 || naks < 2:
			naks++
			p[242] = byte(wire.Nak)
		default:
			p[242] = byte(wire.Ack)
		}
		p[16] = 10
		return true
	}))
	all := clients(2)
	first, err := g.Lease(t.Context(), all[:1])
	require.NoError(t, err)
	require.Equal(t, 1, first.Acked)
	require.Equal(t, 2, first.Naks)
	second, err := g.Lease(t.Context(), all[1:])
	require.NoError(t, err)
	require.Equal(t, 1, second.Lost, "%v", &second)
	require.Equal(t, 4, second.Naks)
}

func TestDeadServerEndsWithTheContext(t *testing.T) {
	g := against(t, Options{}, whimsical(func([]byte) bool { return false }))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := g.Lease(ctx, clients(3))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestNoMoreThanTheRate(t *testing.T) {
	g := against(t, Options{Rate: 1000}, echo.Serve)
	res, err := g.Lease(t.Context(), clients(100))
	require.NoError(t, err)
	require.GreaterOrEqual(t, res.Took, 99*time.Millisecond)
}

// What a run allocates does not grow with the packets.
func TestPacketsAllocateNothing(t *testing.T) {
	g := against(t, Options{}, echo.Serve)
	all := clients(300)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { _, _ = g.Lease(t.Context(), all) }), 20.0)
}

func TestPacketsAreWhatAServerReads(t *testing.T) {
	relay := netip.MustParseAddr("198.51.100.1")
	b := newTemplate(relay).fill(&question{kind: wire.Request, xid: 7, mac: [6]byte{2, 1}, port: 42,
		requested: netip.MustParseAddr("198.51.100.9"), server: netip.MustParseAddr("192.0.2.1")})
	require.Len(t, b, least)
	var p wire.Packet
	require.NoError(t, p.Parse(b))
	mac, ok := p.MAC()
	require.True(t, ok)
	require.Equal(t, provision.MAC{2, 1}, provision.MAC(mac))
	require.Equal(t, wire.Request, p.Type())
	require.Equal(t, uint32(7), p.XID())
	require.Equal(t, relay, p.GIAddr())
	require.Equal(t, netip.MustParseAddr("198.51.100.9"), p.Requested())
	require.Equal(t, netip.MustParseAddr("192.0.2.1"), p.ServerID())
	require.Equal(t, Option82(42), p.RelayInfo())
	require.Equal(t, "ge0000042", PortName(42))
}

func TestDoubled(t *testing.T) {
	all := clients(3)
	_, found := Doubled(all)
	require.False(t, found, "none has an address")
	all[0].IP, all[2].IP = loopback, loopback
	ip, found := Doubled(all)
	require.True(t, found)
	require.Equal(t, loopback, ip)
}
