package dhcpd

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// What waited for this process is answered while it is young. RELEASE and DECLINE want no answer and stay good. The first
// packet that came later ends it: the clock may be set as it likes then.
func TestWaitedPackets(t *testing.T) {
	h, events := refusalRig(t)
	var log bytes.Buffer
	h.s.log = slog.New(slog.NewTextHandler(&log, nil))
	now := time.Now()
	h.over.since = now.UnixNano()
	came := func(ago time.Duration) int64 { return now.Add(-ago).UnixNano() }
	packet := func(m wire.MessageType, at int64) outcome.Outcome {
		q := wire.Query{Type: m, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)}
		if m == wire.Release || m == wire.Decline {
			q.CIAddr = host(11)
		}
		g := discoverOn(3)
		g.Data, g.From, g.Came = q.Append(nil), netip.AddrPortFrom(relayIP, 67), at
		h.handle(testNow, g)
		return h.ev.Outcome
	}
	assert.Equal(t, outcome.Stale, packet(wire.Discover, came(time.Hour)))
	assert.Equal(t, outcome.Stale, packet(wire.Discover, came(4001*time.Millisecond)))
	assert.Equal(t, outcome.Offer, packet(wire.Discover, came(3*time.Second)))
	assert.NotEqual(t, outcome.Stale, packet(wire.Release, came(time.Hour)))
	assert.NotEqual(t, outcome.Stale, packet(wire.Decline, came(time.Hour)))
	off := discoverOn(5)
	off.Came = came(time.Hour)
	h.handle(testNow, off)
	assert.Equal(t, outcome.InterfaceOff, h.ev.Outcome, "it would not have been answered anyway")
	assert.Len(t, events.Find(EventFilter{Outcome: outcome.Stale}), 2)
	for range 100 {
		packet(wire.Discover, came(time.Hour))
	}
	assert.Len(t, events.Find(EventFilter{Outcome: outcome.Stale}), refusedToldOf, "they do not push out what explain needs")

	assert.Equal(t, outcome.Offer, packet(wire.Discover, now.Add(time.Millisecond).UnixNano()))
	assert.Contains(t, log.String(), "packets=106 too_late=103")
	assert.Equal(t, outcome.Offer, packet(wire.Discover, came(time.Hour)), "the clock was set back")
	assert.Equal(t, outcome.Offer, packet(wire.Discover, 0))
}

// One server lets its socket be kept and is gone; another one answers what came meanwhile, in order.
func TestServerTakesOver(t *testing.T) {
	opts := testOptions()
	opts.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	snap := world(t)
	server := func() *Server {
		s, err := New(opts, Deps{Snapshot: func() *provision.Snapshot { return snap }, Leases: lease.New()})
		require.NoError(t, err)
		return s
	}
	first := server()
	require.ErrorContains(t, first.Keep(nil), "before listen")
	require.NoError(t, first.Listen())
	var kept *os.File
	require.NoError(t, first.Keep(func(c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
			require.NoError(t, err)
			kept = os.NewFile(uintptr(copied), "dhcp")
		})
	}))
	defer kept.Close()
	at := first.LocalAddr()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Run(ctx) }()
	stop()
	require.NoError(t, <-done)

	relay, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer relay.Close()
	opts.RelayPort = uint16(relay.LocalAddr().(*net.UDPAddr).Port)
	opts.Relays = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: netip.MustParseAddr("127.0.0.1"), Option82: port(switch1, 1)}
	ask := func(xid uint32) {
		b := q.Append(nil)
		binary.BigEndian.PutUint32(b[4:], xid)
		_, err := relay.WriteToUDPAddrPort(b, at)
		require.NoError(t, err, "nobody listens, and it is not refused")
	}
	for xid := range uint32(10) {
		ask(xid)
	}
	second := server()
	require.NoError(t, second.TakeOver(kept))
	require.ErrorContains(t, second.TakeOver(kept), "listens already")
	require.Equal(t, at, second.LocalAddr())
	ctx, stop = context.WithCancel(t.Context())
	go func() { done <- second.Run(ctx) }()
	defer func() { stop(); require.NoError(t, <-done) }()
	ask(10)
	buf := make([]byte, 2048)
	for xid := range uint32(11) {
		require.NoError(t, relay.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := relay.Read(buf)
		require.NoError(t, err)
		require.Greater(t, n, 240)
		require.Equal(t, xid, binary.BigEndian.Uint32(buf[4:]))
	}
}
