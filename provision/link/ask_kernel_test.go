package link_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/neighbour"
)

func openNeighbours(t testing.TB, h *lab.Host) *link.Neighbours {
	t.Helper()
	ns, err := os.Open(filepath.Join("/run/netns", h.Namespace))
	require.NoError(t, err)
	n, err := link.OpenNeighbours(int(ns.Fd()))
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, n.Close())
		_ = ns.Close()
	})
	return n
}

var (
	victimIP  = netip.MustParseAddr("192.0.2.10")
	victimMAC = provision.MAC{0, 0, 0x5e, 0, 0x53, 0x10}
	thiefMAC  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0x66}
)

// segment is a router whose interface c1 leads to a switch with a victim and a thief.
type segment struct {
	router, sw, victim, thief *lab.Host
	n                         *link.Neighbours
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	l := newLab(t)
	s := &segment{}
	for name, h := range map[string]**lab.Host{"router": &s.router, "switch": &s.sw, "victim": &s.victim, "thief": &s.thief} {
		var err error
		*h, err = l.Host(name)
		require.NoError(t, err)
		require.NoError(t, (*h).Sysctl("net.ipv6.conf.default.disable_ipv6", "1")) // nobody speaks unasked
	}
	require.NoError(t, s.sw.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, s.sw.IP("link", "set", "dev", "br0", "up"))
	for port, end := range map[string]struct {
		host *lab.Host
		name string
	}{"p1": {s.router, "c1"}, "p2": {s.victim, "eth0"}, "p3": {s.thief, "eth0"}} {
		require.NoError(t, l.Wire(s.sw, port, end.host, end.name))
		require.NoError(t, s.sw.IP("link", "set", "dev", port, "master", "br0"))
	}
	require.NoError(t, l.Wire(s.router, "c2", s.thief, "eth1"))
	require.NoError(t, s.router.IP("addr", "add", "192.0.2.1/24", "dev", "c1"))
	for h, mac := range map[*lab.Host]provision.MAC{s.victim: victimMAC, s.thief: thiefMAC} {
		require.NoError(t, h.IP("link", "set", "dev", "eth0", "address", mac.String()))
		require.NoError(t, h.IP("addr", "add", victimIP.String()+"/24", "dev", "eth0")) // the thief too
	}
	s.n = openNeighbours(t, s.router)
	return s
}

// ask asks for at most a second; took is how long it was.
func (s *segment) ask(t *testing.T, q neighbour.Question) (a neighbour.Answer, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	a, err := s.n.Ask(ctx, q)
	require.NoError(t, err)
	return a, time.Since(begin)
}

// sendARP sends a packet of ARP as mac, in a frame of that MAC.
func sendARP(h *lab.Host, iface string, op uint16, to, mac provision.MAC, ip, target netip.Addr) error {
	return sendARPFrom(h, iface, op, to, mac, mac, ip, target)
}

// sendARPFrom is sendARP in a frame from another MAC.
func sendARPFrom(h *lab.Host, iface string, op uint16, to, from, mac provision.MAC, ip, target netip.Addr) error {
	return sendFrame(h, iface, nil, op, to, from, mac, ip, target)
}

// sendFrame is sendARPFrom with a tag in the frame.
func sendFrame(h *lab.Host, iface string, tag []byte, op uint16, to, from, mac provision.MAC, ip, target netip.Addr) error {
	return h.Do(func() error {
		l, err := interfaceIndex(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b := append(append([]byte{}, to[:]...), from[:]...)
		b = append(append(b, tag...), 8, 6, 0, 1, 8, 0, 6, 4)
		b = binary.BigEndian.AppendUint16(b, op)
		b = append(append(b, mac[:]...), ip.AsSlice()...)
		b = append(append(b, to[:]...), target.AsSlice()...)
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: l})
	})
}

func interfaceIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	return int(r.Uint32()), err
}

func TestKernelAskFindsWhoeverStillAnswers(t *testing.T) {
	s := newSegment(t)
	known := neighbour.Question{Interface: "c1", IP: victimIP, Known: victimMAC}

	a, took := s.ask(t, known)
	require.Equal(t, neighbour.Answers, a, "though the thief answers too")
	require.Less(t, took, 900*time.Millisecond, "an answer ends the wait")

	a, _ = s.ask(t, neighbour.Question{Interface: "c1", IP: victimIP, Known: thiefMAC})
	require.Equal(t, neighbour.Answers, a)

	// A thief who sends as the victim draws the switch's entry to himself: what is for the victim's
	// MAC alone comes to him.
	broadcast := provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	require.NoError(t, sendARP(s.thief, "eth0", 1, broadcast, victimMAC, netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("192.0.2.98")))
	require.Eventually(t, func() bool {
		out, err := s.sw.Output(t.Context(), "bridge", "fdb", "show", "br", "br0")
		return err == nil && strings.Contains(out, victimMAC.String()+" dev p3")
	}, 5*time.Second, time.Millisecond)
	a, _ = s.ask(t, known)
	require.Equal(t, neighbour.Answers, a, "the question to everybody finds the victim all the same")

	require.NoError(t, s.victim.IP("link", "set", "dev", "eth0", "down"))
	a, took = s.ask(t, known)
	require.Equal(t, neighbour.Silent, a)
	require.GreaterOrEqual(t, took, time.Second, "silence is known at the end")
}

// Without an address of its own, as on unnumbered interfaces, the router asks as from 0.0.0.0.
func TestKernelAskWithoutAnAddress(t *testing.T) {
	s := newSegment(t)
	require.NoError(t, s.router.IP("addr", "flush", "dev", "c1"))
	known := neighbour.Question{Interface: "c1", IP: victimIP, Known: victimMAC}
	a, _ := s.ask(t, known)
	require.Equal(t, neighbour.Astray, a, "no route")
	require.NoError(t, s.router.IP("route", "add", victimIP.String()+"/32", "dev", "c1"))
	a, _ = s.ask(t, known)
	require.Equal(t, neighbour.Answers, a)
}

// Only where the router would send to the address it is looked for.
func TestKernelAskKnowsWhereAnAddressBelongs(t *testing.T) {
	s := newSegment(t)
	ask := func(iface, ip string) neighbour.Answer {
		a, _ := s.ask(t, neighbour.Question{Interface: iface, IP: netip.MustParseAddr(ip)})
		return a
	}
	require.Equal(t, neighbour.Silent, ask("c1", "192.0.2.10"), "nobody is asked, and the wire is right")
	require.Equal(t, neighbour.Astray, ask("c2", "192.0.2.10"), "another wire")
	require.Equal(t, neighbour.Astray, ask("c1", "203.0.113.1"), "no route")
	require.Equal(t, neighbour.Astray, ask("gone", "192.0.2.10"))
	require.Equal(t, neighbour.Astray, ask("c1", "192.0.2.1"), "the router's own address")
	require.Equal(t, neighbour.Astray, ask("c1", "192.0.2.255"), "a broadcast address")

	require.NoError(t, s.router.IP("route", "add", "198.51.100.0/24", "via", "192.0.2.10"))
	require.Equal(t, neighbour.Astray, ask("c1", "198.51.100.7"), "behind a router")
	require.NoError(t, s.router.IP("route", "add", "unreachable", "198.51.100.9/32"))
	require.Equal(t, neighbour.Astray, ask("c1", "198.51.100.9"))
	require.NoError(t, s.router.IP("route", "add", "192.0.2.77/32", "dev", "c2"))
	require.Equal(t, neighbour.Silent, ask("c2", "192.0.2.77"), "an unnumbered wire")
	require.Equal(t, neighbour.Astray, ask("c1", "192.0.2.77"), "though its subnet is here")
}

// An interface of a VRF has the routes of that.
func TestKernelAskInAVRF(t *testing.T) {
	s := newSegment(t)
	if err := s.router.IP("link", "add", "red", "type", "vrf", "table", "100"); err != nil {
		t.Skipf("this kernel has no VRF: %s", err)
	}
	require.NoError(t, s.router.IP("link", "set", "dev", "red", "up"))
	require.NoError(t, s.router.IP("link", "set", "dev", "c1", "master", "red"))
	a, _ := s.ask(t, neighbour.Question{Interface: "c1", IP: victimIP, Known: victimMAC})
	require.Equal(t, neighbour.Answers, a)
	a, _ = s.ask(t, neighbour.Question{Interface: "c2", IP: victimIP, Known: victimMAC})
	require.Equal(t, neighbour.Astray, a)
}

// Without the capability there is an error, and the way is known all the same.
func TestKernelAskNeedsCapNetRaw(t *testing.T) {
	s := newSegment(t)
	err := s.router.Do(func() error {
		n, err := link.OpenNeighbours(0)
		if err != nil {
			return err
		}
		defer n.Close()
		caps := [2]unix.CapUserData{}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capget(&header, &caps[0]); err != nil {
			return err
		}
		caps[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &caps[0]); err != nil { // of this thread, which ends with Do
			return err
		}
		a, err := n.Ask(t.Context(), neighbour.Question{Interface: "c1", IP: victimIP})
		assert.NoError(t, err)
		assert.Equal(t, neighbour.Silent, a)
		_, err = n.Ask(t.Context(), neighbour.Question{Interface: "c1", IP: victimIP, Known: victimMAC})
		return err
	})
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, "CAP_NET_RAW")
}
