package socket

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// counted counts the datagrams that come to a socket, until it is asked.
func counted(t *testing.T, c net.PacketConn) func() int {
	t.Helper()
	got := make(chan int, 1)
	go func() {
		n, buf := 0, make([]byte, 100)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				got <- n
				return
			}
			n++
		}
	}()
	return func() int {
		// What was sent on a veth is in the socket of the other end at once.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		return <-got
	}
}

// dead returns one of 400 addresses that are on the wire and that nobody has: the kernel's table of neighbours has room for them,
// and so their packets wait there.
func dead(i int) netip.Addr {
	a := [4]byte{10, 64}
	binary.BigEndian.PutUint16(a[2:], uint16(1000+i%400))
	return netip.AddrFrom4(a)
}

// Replies to thousands of next hops that nobody has: who is there gets every reply of its own, and no call
// waits. They may be for relays or for clients.
func TestKernelDeadNextHopsCostNobodyElse(t *testing.T) {
	for name, way := range map[string]wire.Way{"relays": wire.WayRelay, "clients": wire.WayUnicast} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
			require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
			require.NoError(t, ha.IP("addr", "add", "10.64.0.1/16", "dev", "eth0"))
			require.NoError(t, hb.IP("addr", "add", "10.64.0.2/16", "dev", "eth0"))
			require.NoError(t, ha.IP("route", "add", "10.66.0.0/16", "via", "10.64.0.2"))
			a := openStation(t, ha)
			live, err := hb.ListenPacket("10.64.0.2:67")
			require.NoError(t, err)
			defer live.Close()
			out := a.NewSender()
			to := Delivery{Way: wire.WayRelay, To: netip.MustParseAddrPort("10.64.0.2:67"), Source: netip.MustParseAddr("10.64.0.1")}
			// The live host asks first, as relays do: so its neighbour is known to the kernel.
			_, err = live.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.64.0.1:67")))
			require.NoError(t, err)
			a.take(t, a.NewReader())
			require.NoError(t, out.Send(&to, []byte("first")))
			require.NoError(t, live.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, _, err = live.ReadFrom(make([]byte, 10))
			require.NoError(t, err)
			require.NoError(t, live.SetReadDeadline(time.Time{}))
			waitProved(t, a, to.To.Addr())

			raw, err := live.(*net.UDPConn).SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) { // it is not the receiver's room that is looked at
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
			}))
			require.NoError(t, err)
			got := counted(t, live)
			payload := make([]byte, 300)
			sent, lost, dropped := 0, 0, 0
			var slowest time.Duration
			send := func(d *Delivery) error {
				begin := time.Now()
				err := out.Send(d, payload)
				slowest = max(slowest, time.Since(begin))
				return err
			}
			begin := time.Now()
			for i := range 8000 {
				if err := send(&Delivery{Way: way, To: netip.AddrPortFrom(dead(i), 67), Source: to.Source}); err != nil {
					require.True(t, Full(err), "%v", err)
					dropped++
				}
				if i%3 == 0 {
					sent++
					if send(&to) != nil {
						lost++
					}
				}
				if i%10 == 0 { // each is sent to for the first time
					past := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)}), 68)
					require.NoError(t, send(&Delivery{Way: wire.WayUnicast, To: past, Source: to.Source}), "to who is past a router that is there")
				}
				require.Less(t, time.Since(begin), 20*time.Second, "sending waits")
			}
			assert.Zero(t, lost)
			assert.Equal(t, sent, got(), "of the one who is there none is lost")
			assert.Positive(t, dropped, "what does not fit is dropped and said so")
			assert.Less(t, slowest, 500*time.Millisecond)
			t.Logf("%d to dead hops in %v, %d dropped, slowest call %v", 8000, time.Since(begin), dropped, slowest)
		})
	}
}

// waitProved waits until the sockets know that a next hop is there.
func waitProved(t testing.TB, s *station, a netip.Addr) {
	t.Helper()
	require.Eventually(t, func() bool { return s.hops.proved(target{addr: a.As4()}) }, 10*time.Second, time.Millisecond)
}

// Frames on an interface that is slow wait in its queue, those on one that is down are refused: on
// other interfaces frames go on leaving, and no call waits.
func TestKernelSlowInterfaceCostsNoOther(t *testing.T) {
	l := newLab(t, "tc")
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	for _, name := range []string{"slow", "fine", "off"} {
		require.NoError(t, l.Wire(ha, name, hb, name))
	}
	require.NoError(t, ha.IP("link", "set", "off", "down"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "fine"))
	_, err := ha.Output(t.Context(), "tc", "qdisc", "add", "dev", "slow", "root", "tbf", "rate", "8kbit", "burst", "2kb", "limit", "100mb")
	require.NoError(t, err)
	index, mac := map[string]int{}, provision.MAC{}
	var a *Sockets
	require.NoError(t, ha.Do(func() (err error) {
		all, err := net.Interfaces()
		for _, f := range all {
			index[f.Name] = f.Index
		}
		require.NoError(t, err)
		a, err = Open(netip.MustParseAddrPort("0.0.0.0:67"))
		return err
	}))
	defer a.Close()
	require.NoError(t, hb.Do(func() error {
		f, err := net.InterfaceByName("fine")
		mac = provision.MAC(f.HardwareAddr)
		return err
	}))
	live, err := hb.ListenPacket("192.0.2.2:68")
	require.NoError(t, err)
	defer live.Close()
	out := a.NewSender()
	to := Delivery{Way: wire.WayFrame, To: netip.AddrPortFrom(host(2), 68), From: netip.AddrPortFrom(host(1), 67), MAC: mac}
	var slowest time.Duration
	send := func(name string) error {
		to.Ifindex = index[name]
		begin := time.Now()
		err := out.Send(&to, make([]byte, 300))
		slowest = max(slowest, time.Since(begin))
		return err
	}
	full := 0
	for range 5000 {
		if err := send("slow"); err != nil {
			require.True(t, Full(err), "%v", err)
			full++
		}
	}
	require.Positive(t, full, "the queue takes more than the socket has room for")
	require.ErrorIs(t, send("off"), unix.ENETDOWN)
	for i := range 100 {
		require.NoError(t, send("fine"), "%d", i)
		require.NoError(t, live.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, _, err := live.ReadFrom(make([]byte, 400))
		require.NoError(t, err)
	}
	assert.Less(t, slowest, 500*time.Millisecond)
}

// The sockets aside hear nothing, and nobody else gets the port.
func TestKernelSocketsAsideKeepThePort(t *testing.T) {
	l := newLab(t)
	ha := addHost(t, l, "a")
	hb := addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	require.NoError(t, hb.IP("route", "add", "default", "dev", "eth0"))
	a := openStation(t, ha)
	for _, addr := range [][4]byte{{}, {192, 0, 2, 1}, dummyAddress} {
		err := ha.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			require.NoError(t, err)
			defer unix.Close(fd)
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
			require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
			return unix.Bind(fd, &unix.SockaddrInet4{Port: 67, Addr: addr})
		})
		assert.ErrorIs(t, err, unix.EADDRINUSE, "%v", addr)
	}
	from, err := hb.ListenPacket("192.0.2.2:68")
	require.NoError(t, err)
	defer from.Close()
	raw, err := from.(*net.UDPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }))
	require.NoError(t, err)
	in := a.NewReader()
	for _, to := range []string{"192.0.2.1:67", "192.0.2.255:67", "255.255.255.255:67", "192.0.2.1:67"} {
		_, err := from.WriteTo([]byte(to), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		require.NoError(t, err)
		assert.Equal(t, to, string(a.take(t, in).Data))
	}
	for _, fd := range a.aside {
		_, _, err := unix.Recvfrom(fd, make([]byte, 10), unix.MSG_DONTWAIT)
		assert.ErrorIs(t, err, unix.EAGAIN)
	}
}

// Two servers on two addresses of one host, as dhcp.listen allows.
func TestKernelTwoAddressesOfOneHost(t *testing.T) {
	l := newLab(t)
	h, peer := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(h, "eth0", peer, "eth0"))
	for _, a := range []string{"192.0.2.1/24", "192.0.2.3/24"} {
		require.NoError(t, h.IP("addr", "add", a, "dev", "eth0"))
	}
	for _, a := range []string{"192.0.2.1:67", "192.0.2.3:67"} {
		require.NoError(t, h.Do(func() error {
			s, err := Open(netip.MustParseAddrPort(a))
			if err == nil {
				t.Cleanup(func() { assert.NoError(t, s.Close()) })
			}
			return err
		}), a)
	}
}

// Who chooses the next hop: whether it is there is known through a router, for ourselves, and not for what nobody has.
func TestKernelProvedNextHops(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	require.NoError(t, ha.IP("route", "add", "203.0.113.0/24", "via", "192.0.2.2"))
	require.NoError(t, ha.IP("route", "add", "198.51.100.0/24", "via", "192.0.2.9"))
	require.NoError(t, ha.IP("route", "add", "blackhole", "198.18.0.0/15"))
	a := openStation(t, ha)
	out := a.NewSender()
	for _, to := range []string{"192.0.2.2", "192.0.2.9"} { // has the kernel ask who they are
		require.NoError(t, out.Send(&Delivery{Way: wire.WayRelay, To: netip.AddrPortFrom(netip.MustParseAddr(to), 67)}, []byte("x")))
	}
	for _, to := range []string{"192.0.2.2", "192.0.2.1", "203.0.113.77", "203.0.113.78"} {
		waitProved(t, a, netip.MustParseAddr(to))
	}
	var k *kernelHops
	require.NoError(t, ha.Do(func() (err error) {
		k, err = openKernelHops(0)
		return err
	}))
	defer k.close()
	for to, want := range map[string]bool{
		"192.0.2.2": true, "203.0.113.1": true, "127.0.0.1": true,
		"192.0.2.9": false, "192.0.2.10": false, "198.51.100.1": false, "198.18.0.1": false, "100.64.0.1": false, "255.255.255.255": false,
	} {
		assert.Equal(t, want, k.resolved(target{addr: netip.MustParseAddr(to).As4()}), to)
	}
	on := uint32(a.ifindex)
	for to, want := range map[string]string{"203.0.113.1": "192.0.2.2", "198.51.100.1": "192.0.2.9", "192.0.2.2": "", "192.0.2.1": "", "198.18.0.1": "", "100.64.0.1": ""} {
		router, ok := a.routes.router(netip.MustParseAddr(to).As4())
		require.Equal(t, want != "", ok, to)
		if ok {
			assert.Equal(t, target{addr: netip.MustParseAddr(want).As4(), ifindex: on}, router, to)
			assert.Equal(t, want == "192.0.2.2", k.resolved(router), to)
		}
	}
	assert.False(t, k.resolved(target{addr: host(2).As4(), ifindex: on + 1}), "it is on another interface")
	// It is found out when the kernel forgets who is there.
	require.NoError(t, ha.IP("neigh", "flush", "dev", "eth0"))
	require.NoError(t, hb.IP("link", "set", "eth0", "down"))
	require.Eventually(t, func() bool { return !a.hops.proved(target{addr: host(2).As4()}) }, 10*time.Second, 10*time.Millisecond)
}
