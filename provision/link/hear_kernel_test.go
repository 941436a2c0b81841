package link_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
)

// Who speaks for an address is heard by frames of the MAC that the packet has, and only so.
func TestKernelHearing(t *testing.T) {
	s := newSegment(t)
	ns, err := os.Open(filepath.Join("/run/netns", s.router.Namespace))
	require.NoError(t, err)
	defer ns.Close()
	h, err := link.OpenHearing(int(ns.Fd()))
	require.NoError(t, err)
	type voice struct {
		name string
		ip   netip.Addr
		mac  provision.MAC
	}
	heard, done := make(chan voice, 64), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- h.Run(ctx, func(name string, ip netip.Addr, mac provision.MAC) { heard <- voice{name, ip, mac} })
	}()
	defer func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, h.Close())
	}()
	next := func() (v voice) {
		t.Helper()
		select {
		case v = <-heard:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is heard")
		}
		return v
	}
	everybody, router := provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, netip.MustParseAddr("192.0.2.1")
	other, tagged := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")

	require.NoError(t, sendARPFrom(s.thief, "eth0", 1, everybody, thiefMAC, victimMAC, victimIP, router))                   // as the victim, in frames of its own
	require.NoError(t, sendARP(s.thief, "eth0", 1, everybody, thiefMAC, netip.IPv4Unspecified(), other))                    // a probe speaks for nothing
	require.NoError(t, sendFrame(s.thief, "eth0", []byte{0x81, 0, 0, 7}, 1, everybody, thiefMAC, thiefMAC, tagged, router)) // in a VLAN that the router has not got
	require.NoError(t, s.router.IP("link", "set", "dev", "c1", "promisc", "on"))
	require.NoError(t, sendARP(s.thief, "eth0", 1, provision.MAC{0, 0, 0x5e, 0, 0x53, 0x77}, thiefMAC, tagged, router)) // for another host
	require.NoError(t, sendARP(s.thief, "eth0", 1, everybody, thiefMAC, other, router))
	require.Equal(t, voice{"c1", other, thiefMAC}, next(), "the first that counts")
	require.NoError(t, sendARP(s.thief, "eth0", 2, everybody, thiefMAC, other, other))
	require.Equal(t, voice{"c1", other, thiefMAC}, next(), "an answer, too")

	require.NoError(t, h.Ask("c1", victimIP, victimMAC))
	require.Equal(t, voice{"c1", victimIP, victimMAC}, next(), "who is asked answers")
	require.NoError(t, h.Ask("c1", other, victimMAC)) // it has not got that address
	require.NoError(t, h.Ask("c1", victimIP, provision.MAC{0, 0, 0x5e, 0, 0x53, 0x77}))
	require.NoError(t, h.Ask("c1", victimIP, thiefMAC))
	require.Equal(t, voice{"c1", victimIP, thiefMAC}, next())
	require.Error(t, h.Ask("gone", victimIP, victimMAC))
	entries, err := s.victim.Output(t.Context(), "ip", "neigh", "show")
	require.NoError(t, err)
	assert.NotContains(t, entries, "0.0.0.0")
	assert.Contains(t, entries, "192.0.2.1 ", "the question is no probe: it comes from the router's address")

	// A flood is heard in part, and ends no hearing.
	for range 500 {
		require.NoError(t, sendARP(s.thief, "eth0", 1, everybody, thiefMAC, netip.IPv4Unspecified(), other))
	}
	require.Eventually(t, func() bool {
		require.NoError(t, h.Ask("c1", victimIP, victimMAC))
		select {
		case v := <-heard:
			return v == voice{"c1", victimIP, victimMAC}
		default:
			return false
		}
	}, 10*time.Second, 50*time.Millisecond)
}
