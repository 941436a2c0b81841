package acl_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

const groupIP = "239.1.2.3"

// routeMulticast has the router forward what a source sends to the group from wan0 to
// both subscribers, as a multicast routing daemon would.
func (w *world) routeMulticast(source string) {
	w.t.Helper()
	index := func(name string) int {
		out, err := w.host.Output(w.t.Context(), "cat", "/sys/class/net/"+name+"/ifindex")
		require.NoError(w.t, err)
		n, err := strconv.Atoi(strings.TrimSpace(out))
		require.NoError(w.t, err)
		return n
	}
	// Of linux/mroute.h.
	const (
		mrtInit, mrtAddVIF, mrtAddMFC = 200, 202, 204
		useIfindex, maxVIFs           = 8, 32
	)
	require.NoError(w.t, w.host.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtInit, 1); err != nil {
			return err
		}
		for i, name := range []string{"wan0", "down0", "down1"} {
			v := make([]byte, 16) // struct vifctl
			binary.NativeEndian.PutUint16(v, uint16(i))
			v[2], v[3] = useIfindex, 1
			binary.NativeEndian.PutUint32(v[8:], uint32(index(name)))
			if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, mrtAddVIF, string(v)); err != nil {
				return err
			}
		}
		m := make([]byte, 60) // struct mfcctl
		copy(m, netip.MustParseAddr(source).AsSlice())
		copy(m[4:], netip.MustParseAddr(groupIP).AsSlice())
		ttls := m[10 : 10+maxVIFs]
		ttls[1], ttls[2] = 1, 1
		return unix.SetsockoptString(fd, unix.IPPROTO_IP, mrtAddMFC, string(m))
	}))
}

// streamed sends some packets to the group and tells how many each host got.
func (w *world) streamed(n int, hosts ...*lab.Host) []int {
	w.t.Helper()
	group := &net.UDPAddr{IP: net.ParseIP(groupIP), Port: 5004}
	var listening []*net.UDPConn
	for _, h := range hosts {
		require.NoError(w.t, h.Do(func() error {
			ifi, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			c, err := net.ListenMulticastUDP("udp4", ifi, group)
			if err == nil {
				listening = append(listening, c)
			}
			return err
		}))
	}
	out, err := w.internet.ListenPacket(serverIP + ":5004")
	require.NoError(w.t, err)
	defer out.Close()
	raw, err := out.(*net.UDPConn).SyscallConn()
	require.NoError(w.t, err)
	require.NoError(w.t, raw.Control(func(fd uintptr) {
		require.NoError(w.t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 8))
	}))
	for range n {
		_, err := out.WriteTo(make([]byte, 100), group)
		require.NoError(w.t, err)
	}
	got := make([]int, len(hosts))
	for i, c := range listening {
		for buf := make([]byte, 200); got[i] < n; got[i]++ {
			require.NoError(w.t, c.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
			if _, _, err := c.ReadFrom(buf); err != nil {
				require.ErrorIs(w.t, err, os.ErrDeadlineExceeded)
				break
			}
		}
		require.NoError(w.t, c.Close())
	}
	return got
}

// Routed multicast does not reach a stopped subscriber who has an interface alone, and
// his neighbours lose nothing.
func TestKernelMulticastToABlockedSubscriber(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{SourceGuard: true, Alone: true})
	w.routeMulticast(serverIP)
	require.NoError(t, w.internet.IP("route", "add", "224.0.0.0/4", "dev", "eth0"))
	const n = 200
	put := func(set access.Set) {
		t.Helper()
		want := access.ACL{
			access.SetGuardedVLAN: access.Interfaces("down0", "down1"),
			access.SetBoundVLAN: access.VLANBindings(access.VLANBinding{Interface: "down0", IP: w.firstAddr},
				access.VLANBinding{Interface: "down1", IP: netip.MustParseAddr("100.64.1.1")}),
		}
		switch set {
		case access.SetStopped:
			want[access.SetAloneStopped] = access.Interfaces("down0")
		case access.SetPaused:
			want[access.SetAlonePaused] = access.Interfaces("down0")
		}
		if set != 0 {
			want[set] = access.Addrs(w.firstAddr)
		}
		setTo(t, w.table, want)
	}
	put(0)
	require.Equal(t, []int{n, n}, w.streamed(n, w.first, w.second))
	for _, set := range []access.Set{access.SetStopped, access.SetPaused} {
		put(set)
		require.Equal(t, []int{0, n}, w.streamed(n, w.first, w.second), "%s", set)
	}
	have := observe(t, w.table)
	want := have
	want[access.SetGarden] = access.Prefixes(prefixesOf(serverIP + "/32")...)
	apply(t, w.table, access.Plan(want, have))
	require.Equal(t, []int{n, n}, w.streamed(n, w.first, w.second), "of a garden")
}
