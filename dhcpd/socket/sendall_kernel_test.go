package socket

import (
	"fmt"
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

// Replies of every kind that are sent together: each comes to whom it is for, once and in order, from the address that was asked,
// and one that the kernel does not take says so and costs no other.
func TestKernelSendAllIsManySends(t *testing.T) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.3/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	a := openStation(t, ha)
	out := a.NewSender()
	relay, err := hb.ListenPacket("192.0.2.2:67")
	require.NoError(t, err)
	defer relay.Close()
	client, err := hb.ListenPacket("0.0.0.0:68")
	require.NoError(t, err)
	defer client.Close()
	read := func(c net.PacketConn) (string, netip.Addr) {
		buf := make([]byte, 2000)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, from, err := c.ReadFrom(buf)
		require.NoError(t, err)
		return string(buf[:n]), from.(*net.UDPAddr).AddrPort().Addr().Unmap()
	}
	first := Delivery{Way: wire.WayRelay, To: netip.AddrPortFrom(host(2), 67), Source: host(1)}
	require.NoError(t, out.Send(&first, []byte("first")))
	_, _ = read(relay)
	waitProved(t, a, host(2))

	frame := Delivery{Way: wire.WayFrame, To: netip.AddrPortFrom(host(2), 68), Ifindex: a.ifindex, From: netip.AddrPortFrom(host(1), 67)}
	require.NoError(t, hb.Do(func() error {
		f, err := net.InterfaceByName("eth0")
		if err == nil {
			frame.MAC = provision.MAC(f.HardwareAddr)
		}
		return err
	}))
	var all []*Reply
	for i := range 3*BatchSize + 5 {
		r := &Reply{To: first, Payload: fmt.Appendf(nil, "relay %d", i), Err: unix.EIO}
		switch {
		case i == 7: // the kernel does not send more than that in a datagram
			r.Payload = make([]byte, 70_000)
		case i == 8:
			r.Payload = nil
		case i%10 == 3:
			r.To.Source = host(3)
		case i%10 == 4:
			r.To, r.Payload = frame, fmt.Appendf(nil, "frame %d", i)
		}
		all = append(all, r)
	}
	for range 2 { // what was left of the round before does no harm
		out.SendAll(all)
		for i, r := range all {
			if refused := map[int]error{7: unix.EMSGSIZE, 8: unix.EINVAL}[i]; refused != nil {
				assert.ErrorIs(t, r.Err, refused)
				continue
			}
			require.NoError(t, r.Err, i)
			c, want := relay, host(1)
			switch i % 10 {
			case 4:
				c = client
			case 3:
				want = host(3)
			}
			text, from := read(c)
			require.Equal(t, string(r.Payload), text)
			require.Equal(t, want, from)
		}
	}
	out.SendAll(nil)
	require.NoError(t, a.Close())
	out.SendAll(all[:2])
	for _, r := range all[:2] {
		assert.Error(t, r.Err, "the socket is closed")
	}
}

func TestKernelSendAllAllocatesNothing(t *testing.T) {
	out, to := toLiveHost(t)
	all := make([]*Reply, 20)
	for i := range all {
		all[i] = &Reply{To: *to, Payload: make([]byte, 300)}
	}
	out.SendAll(all)
	assert.Zero(t, testing.AllocsPerRun(100, func() { out.SendAll(all) }))
}

// What a reply costs when twenty leave together.
func BenchmarkKernelSendAll(b *testing.B) {
	out, to := toLiveHost(b)
	all := make([]*Reply, 20)
	for i := range all {
		all[i] = &Reply{To: *to, Payload: make([]byte, 300)}
	}
	for b.Loop() {
		out.SendAll(all)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(all)), "ns/reply")
}
