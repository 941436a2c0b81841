package socket

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// toLiveHost returns a sender and a reply to a host that is there.
func toLiveHost(t testing.TB) (*Sender, *Delivery) {
	l := newLab(t)
	ha, hb := addHost(t, l, "a"), addHost(t, l, "b")
	require.NoError(t, l.Wire(ha, "eth0", hb, "eth0"))
	require.NoError(t, ha.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, hb.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))
	a := openStation(t, ha)
	live, err := hb.ListenPacket("192.0.2.2:67")
	require.NoError(t, err)
	t.Cleanup(func() { _ = live.Close() })
	out := a.NewSender()
	to := &Delivery{Way: wire.WayRelay, To: netip.AddrPortFrom(host(2), 67), Source: host(1)}
	require.NoError(t, out.Send(to, []byte("x")))
	_, _, err = live.ReadFrom(make([]byte, 10))
	require.NoError(t, err)
	waitProved(t, a, host(2))
	return out, to
}

// What a reply to a relay costs, the kernel's part included.
func BenchmarkKernelSend(b *testing.B) {
	out, to := toLiveHost(b)
	payload := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		if err := out.Send(to, payload); err != nil {
			b.Fatal(err)
		}
	}
}

func TestKernelSendAllocatesNothing(t *testing.T) {
	out, to := toLiveHost(t)
	payload := make([]byte, 300)
	assert.Zero(t, testing.AllocsPerRun(500, func() { _ = out.Send(to, payload) }))
	to.To = netip.AddrPortFrom(dead(1), 67)
	assert.Zero(t, testing.AllocsPerRun(500, func() { _ = out.Send(to, payload) }))
}
