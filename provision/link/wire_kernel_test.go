package link_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link"
)

func TestKernelWires(t *testing.T) {
	s := newSegment(t)
	ns, err := os.Open(filepath.Join("/run/netns", s.router.Namespace))
	require.NoError(t, err)
	defer ns.Close()
	w, err := link.OpenWires(int(ns.Fd()))
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()

	require.NoError(t, s.thief.IP("addr", "del", victimIP.String()+"/24", "dev", "eth0"))
	_, _, ok := w.Wire(victimIP)
	require.False(t, ok, "nobody has asked for it yet")
	_, err = s.router.Output(t.Context(), "ping", "-n", "-c", "1", "-W", "2", victimIP.String())
	require.NoError(t, err)
	index, mac, ok := w.Wire(victimIP)
	require.True(t, ok)
	require.Equal(t, victimMAC, mac)
	require.Positive(t, index)

	require.NoError(t, s.router.IP("route", "add", "198.51.100.0/24", "via", victimIP.String()))
	for name, addr := range map[string]string{
		"behind a router": "198.51.100.1", "silent": "192.0.2.99", "of the router": "192.0.2.1", "without a way": "203.0.113.1", "not IPv4": "2001:db8::1",
	} {
		_, _, ok := w.Wire(netip.MustParseAddr(addr))
		require.False(t, ok, name)
	}
}
