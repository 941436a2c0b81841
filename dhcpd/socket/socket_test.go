package socket

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
)

var stranger = client(0x99)

func client(n byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, n} }

func host(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// newLab makes a lab for a test that needs tools, and skips it where there can be none.
func newLab(t testing.TB, tools ...string) *lab.Lab {
	t.Helper()
	if missing := lab.Missing(tools...); len(missing) > 0 {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatalf("needs %s", strings.Join(missing, ", "))
		}
		t.Skipf("needs %s", strings.Join(missing, ", "))
	}
	l, err := lab.New("sock", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func addHost(t testing.TB, l *lab.Lab, name string) *lab.Host {
	t.Helper()
	h, err := l.Host(name)
	require.NoError(t, err)
	return h
}

// station is a host with open sockets, and what its interface eth0 is.
type station struct {
	*Sockets
	ifindex int
	mac     provision.MAC
}

func openStation(t testing.TB, h *lab.Host) *station {
	t.Helper()
	s := &station{}
	require.NoError(t, h.Do(func() (err error) {
		f, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		s.ifindex, s.mac = f.Index, provision.MAC(f.HardwareAddr)
		s.Sockets, err = Open(netip.MustParseAddrPort("0.0.0.0:67"))
		return err
	}))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// take waits for one packet.
func (s *station) take(t testing.TB, r *Reader) Datagram {
	t.Helper()
	require.Eventually(t, func() bool {
		waiting, err := s.Waiting()
		require.NoError(t, err)
		return waiting
	}, 10*time.Second, time.Millisecond)
	n, err := r.Read()
	require.NoError(t, err)
	require.Equal(t, 1, n)
	return r.Packet(0)
}

// What one host sends another one receives, in each way, and knows how it came.
func TestKernelDeliveries(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.3/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	a, b := openStation(t, ha), openStation(t, hb)
	out, in := a.NewSender(), b.NewReader()
	everybody := netip.MustParseAddrPort("255.255.255.255:67")
	for name, tc := range map[string]struct {
		to   Delivery
		from netip.Addr
		dst  netip.Addr
	}{
		"relay":                    {Delivery{Way: wire.WayRelay, To: netip.AddrPortFrom(host(2), 67)}, host(1), host(2)},
		"unicast, as it was asked": {Delivery{Way: wire.WayUnicast, To: netip.AddrPortFrom(host(2), 67), Source: host(3)}, host(3), host(2)},
		"broadcast":                {Delivery{Way: wire.WayBroadcast, To: everybody, Ifindex: a.ifindex, From: netip.AddrPortFrom(host(1), 67)}, host(1), netip.Addr{}},
		"frame":                    {Delivery{Way: wire.WayFrame, To: netip.AddrPortFrom(host(2), 67), MAC: b.mac, Ifindex: a.ifindex, From: netip.AddrPortFrom(host(1), 67)}, host(1), host(2)},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, out.Send(&tc.to, []byte(name)))
			assert.Equal(t, Datagram{Data: []byte(name), From: netip.AddrPortFrom(tc.from, 67), Ifindex: b.ifindex, To: tc.dst}, b.take(t, in))
		})
	}
	require.NoError(t, out.Send(&Delivery{Way: wire.WayUnicast, To: netip.AddrPortFrom(host(2), 67)}, make([]byte, maxPacket+1)))
	g := b.take(t, in)
	assert.True(t, g.Cut)
	assert.Len(t, g.Data, maxPacket)

	drops, ok := b.Dropped()
	assert.True(t, ok)
	assert.Zero(t, drops)
	b.StopReading()
	_, err := in.Read()
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// The kernel's own answers to ARP are heard, with the interface that they came in on.
func TestKernelARP(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	a, b := openStation(t, ha), openStation(t, hb)
	require.NoError(t, a.ARP().Ask(a.ifindex, host(9)), "nobody has it")
	require.Equal(t, Sighting{Ifindex: a.ifindex, IP: host(2), MAC: b.mac}, ask(t, a, host(2)))
	arp := a.ARP()
	require.NoError(t, a.Close())
	_, ok := <-arp.Heard()
	assert.False(t, ok, "closed with the sockets")
}

func TestKernelAddressesOfThisHost(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	a := openStation(t, ha)
	assert.Equal(t, netip.MustParseAddrPort("0.0.0.0:67"), a.LocalAddr())
	assert.Equal(t, map[netip.Addr]struct{}{host(1): {}, netip.MustParseAddr("127.0.0.1"): {}}, a.Addresses())
	assert.Equal(t, host(1), a.AddressOf("eth0"))
	assert.False(t, a.AddressOf("eth7").IsValid())
	assert.Equal(t, &provision.Interface{Index: a.ifindex, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(host(1), 32)}}, a.Interface(a.ifindex))
	assert.Equal(t, &provision.Interface{Index: 999}, a.Interface(999), "one that is not there has no name")
}

// On a loopback address there is no right to frames, and who asked hears the reply at its address.
func TestLoopbackNeedsNoFrames(t *testing.T) {
	s, err := Open(netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	defer s.Close()
	require.Nil(t, s.ARP())
	asker, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.7:0")))
	require.NoError(t, err)
	defer asker.Close()
	at := asker.LocalAddr().(*net.UDPAddr).AddrPort()
	require.NoError(t, s.NewSender().Send(&Delivery{Way: wire.WayFrame, To: netip.AddrPortFrom(host(2), at.Port()), MAC: stranger, Asker: at.Addr()}, []byte("x")))
	require.NoError(t, asker.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, from, err := asker.ReadFromUDPAddrPort(make([]byte, 10))
	require.NoError(t, err)
	assert.Equal(t, s.LocalAddr(), from)
}

// ask asks who has an address until it is heard: the kernel of the other host may not
// answer yet while its interface comes up.
func ask(t *testing.T, at *station, a netip.Addr) Sighting {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(10 * time.Second)
	for {
		require.NoError(t, at.ARP().Ask(at.ifindex, a))
		select {
		case s := <-at.ARP().Heard():
			return s
		case <-again.C:
		case <-deadline:
			require.Fail(t, "no answer is heard")
		}
	}
}
