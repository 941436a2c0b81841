package dhcpd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
)

// watchIn follows the interfaces of a namespace.
func watchIn(t *testing.T, ns string) *link.Watch {
	t.Helper()
	f, err := os.Open("/run/netns/" + ns)
	require.NoError(t, err)
	w, err := link.OpenWatch(link.WatchOptions{NetNS: int(f.Fd())})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.NoError(t, w.Close())
		_ = f.Close()
	})
	return w
}

// customer is a host on a wire of its own to the router, with a socket that
// hears broadcasts and what is sent to its address of later.
type customer struct {
	ns   string
	conn *net.UDPConn
}

// wire makes a customer in a namespace behind the router's interface name.
func (c *cable) wire(name string) *customer {
	c.t.Helper()
	k := &customer{ns: c.router + "-" + name}
	c.ip("netns", "add", k.ns)
	c.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", k.ns).Run() })
	c.plug(name, k)
	return k
}

// plug joins the customer to the router's interface name, and opens its socket anew.
func (c *cable) plug(name string, k *customer) {
	c.t.Helper()
	c.ip("-n", c.router, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", k.ns)
	c.ip("-n", c.router, "link", "set", name, "up")
	c.ip("-n", k.ns, "link", "set", "eth0", "address", stranger.String(), "up")
	c.ip("-n", k.ns, "addr", "add", "192.0.2.21/24", "dev", "eth0") // so that frames to it are not refused
	c.ip("-n", k.ns, "route", "add", "default", "dev", "eth0")      // the way of 255.255.255.255
	if k.conn == nil {
		require.NoError(c.t, in(k.ns, func() (err error) {
			lc := net.ListenConfig{}
			pc, err := lc.ListenPacket(c.t.Context(), "udp4", "0.0.0.0:68")
			if err == nil {
				k.conn = pc.(*net.UDPConn)
			}
			return err
		}))
		c.t.Cleanup(func() { _ = k.conn.Close() })
	}
}

// discover sends one DISCOVER and gives the OFFER; nil if none comes within the time.
func (k *customer) discover(t *testing.T, within time.Duration) *dhcpv4.DHCPv4 {
	t.Helper()
	p := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2)))
	_, err := k.conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
	if err != nil {
		return nil // the wire is away
	}
	require.NoError(t, k.conn.SetReadDeadline(time.Now().Add(within)))
	buf := make([]byte, 2048)
	for {
		n, _, err := k.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return nil
		}
		if r, err := dhcpv4.FromBytes(buf[:n]); err == nil && r.TransactionID == p.TransactionID {
			return r
		}
	}
}

// served asks until an OFFER comes.
func (k *customer) served(t *testing.T, s *site, what string) {
	t.Helper()
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); {
		if k.discover(t, 300*time.Millisecond) != nil {
			return
		}
	}
	require.Fail(t, "no OFFER", "%s: %+v", what, s.events.Find(EventFilter{Limit: 5}))
}

func startSiteIn(t *testing.T, c *cable, links Links, opts Options) *site {
	t.Helper()
	return startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, siteInput(), links, func(s *Server) error { return in(c.router, s.Listen) })
}

// An interface that is made after the start is served if its name fits; it may
// be renamed, flap, and be made again with another index.
func TestKernelInterfacesComeAndGo(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	w := watchIn(t, c.router)
	opts := kernelOptions()
	opts.Interfaces = []string{"cust*"}
	s := startSiteIn(t, c, w, opts)

	k := c.wire("cust1")
	k.served(t, s, "made after the start")
	first := s.events.Find(EventFilter{Outcome: OutcomeOffer, Limit: 1})[0]
	require.Equal(t, "cust1", first.Interface)

	c.ip("-n", c.router, "link", "set", "cust1", "down")
	c.ip("-n", c.router, "link", "set", "cust1", "name", "spare")
	c.ip("-n", c.router, "link", "set", "spare", "up")
	require.Eventually(t, func() bool {
		k.discover(t, 100*time.Millisecond)
		return s.events.Find(EventFilter{Limit: 1})[0].Interface == "spare"
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, OutcomeInterfaceOff, s.events.Find(EventFilter{Limit: 1})[0].Outcome)

	c.ip("-n", c.router, "link", "del", "spare")
	c.plug("cust1", k)
	k.served(t, s, "made again")
	again := s.events.Find(EventFilter{Outcome: OutcomeOffer, Limit: 1})[0]
	require.Equal(t, "cust1", again.Interface)
	require.NotEqual(t, first.Ifindex, again.Ifindex)

	for range 20 { // under traffic
		c.ip("-n", c.router, "link", "set", "cust1", "down")
		k.discover(t, time.Millisecond)
		c.ip("-n", c.router, "link", "set", "cust1", "up")
		k.discover(t, time.Millisecond)
	}
	k.served(t, s, "after it flapped")
	require.Positive(t, w.Status().Changes)
	require.Equal(t, []string{"cust1"}, s.server.Sockets().Names)
	require.NoError(t, s.stop())
}

// Two interfaces lead to networks with the same addresses and even the same MAC:
// the answer leaves on the one that was asked on, and no other.
func TestKernelAnswersStayOnTheirInterface(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	a, b := c.wire("cust1"), c.wire("cust2")
	s := startSiteIn(t, c, watchIn(t, c.router), kernelOptions())
	for range 5 {
		for _, pair := range [][2]*customer{{a, b}, {b, a}} {
			require.NotNil(t, pair[0].discover(t, 5*time.Second))
			require.NoError(t, pair[1].conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
			_, _, err := pair[1].conn.ReadFromUDPAddrPort(make([]byte, 2048))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the neighbour hears nothing")
		}
	}
	require.NoError(t, s.stop())
}

// Two routers on one segment: the one with the address answers, and after the
// address moved the other one does.
func TestKernelAnswerWhileHolding(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	w := watchIn(t, c.router)
	opts := kernelOptions()
	opts.AnswerWhileHolding = host(254)
	s := startSiteIn(t, c, w, opts)
	k := c.wire("cust1")
	require.Eventually(t, func() bool {
		k.discover(t, 50*time.Millisecond)
		return len(s.events.Find(EventFilter{Outcome: OutcomeStandby})) > 0
	}, 10*time.Second, time.Millisecond)
	c.ip("-n", c.router, "addr", "add", "192.0.2.254/32", "dev", "cust1")
	k.served(t, s, "the address came")
	require.Equal(t, "192.0.2.254", k.discover(t, 5*time.Second).ServerIdentifier().String())
	c.ip("-n", c.router, "addr", "del", "192.0.2.254/32", "dev", "cust1")
	require.Eventually(t, func() bool { return !w.View().Holds(host(254)) }, 5*time.Second, time.Millisecond)
	require.Nil(t, k.discover(t, 50*time.Millisecond))
	require.True(t, s.server.Sockets().Standby)
	require.NoError(t, s.stop())
}

var _ Links = (*link.Watch)(nil)

// Two relays reach the server at two of its addresses: each sees the one that it
// sends to as the server identifier, so that renewals take its own path.
func TestKernelServerIdentifierPerRelayPath(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	type path struct {
		name, server, relay string
		conn                *net.UDPConn
	}
	paths := []*path{{name: "up1", server: "198.51.100.5", relay: "198.51.100.6"}, {name: "up2", server: "203.0.113.5", relay: "203.0.113.6"}}
	for _, p := range paths {
		ns := c.router + "-" + p.name
		c.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		c.ip("-n", c.router, "link", "add", p.name, "type", "veth", "peer", "name", "eth0", "netns", ns)
		c.ip("-n", c.router, "link", "set", p.name, "up")
		c.ip("-n", ns, "link", "set", "eth0", "up")
		c.ip("-n", c.router, "addr", "add", p.server+"/30", "dev", p.name)
		c.ip("-n", ns, "addr", "add", p.relay+"/30", "dev", "eth0")
		require.NoError(t, in(ns, func() (err error) {
			p.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(p.relay), Port: 67})
			return err
		}))
		t.Cleanup(func() { _ = p.conn.Close() })
	}
	opts := kernelOptions()
	opts.Relays = nil
	s := startSiteIn(t, c, watchIn(t, c.router), opts)
	for _, p := range paths {
		s.addr = netip.AddrPortFrom(ip(p.server), 67)
		offer := s.exchange(p.conn, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.ParseIP(p.relay)),
			dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2))))
		require.Equal(t, p.server, offer.ServerIdentifier().String())
	}
	require.NoError(t, s.stop())
}

// Hundreds of interfaces with a client each, made while the server runs, none
// with an address: every client is answered on its own one.
func TestKernelManyInterfaces(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	w := watchIn(t, c.router)
	opts := kernelOptions()
	opts.Interfaces = []string{"c[0-9]*"}
	s := startSiteIn(t, c, w, opts)
	const n = 220
	var script strings.Builder
	for i := range n {
		fmt.Fprintf(&script, "link add c%d type veth peer name e%d netns %s\nlink set c%d up\n", i, i, c.cpe, i)
	}
	path := filepath.Join(t.TempDir(), "router")
	require.NoError(t, os.WriteFile(path, []byte(script.String()), 0o600))
	c.ip("-n", c.router, "-batch", path)
	script.Reset()
	for i := range n {
		fmt.Fprintf(&script, "link set e%d up\n", i)
	}
	require.NoError(t, os.WriteFile(path, []byte(script.String()), 0o600))
	c.ip("-n", c.cpe, "-batch", path)
	require.Eventually(t, func() bool { return s.server.Sockets().Served == n }, 20*time.Second, 5*time.Millisecond)

	for i := range n {
		name := fmt.Sprintf("e%d", i)
		var conn *net.UDPConn
		require.NoError(t, in(c.cpe, func() error {
			lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
				return errors.Join(raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }), err)
			}}
			pc, err := lc.ListenPacket(t.Context(), "udp4", "0.0.0.0:68")
			if err == nil {
				conn = pc.(*net.UDPConn)
			}
			return err
		}))
		p := packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true),
			dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}), dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2)))
		_, err := conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
		require.NoError(t, err, name)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		buf := make([]byte, 2048)
		k, _, err := conn.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, "%s: %+v", name, s.events.Find(EventFilter{Limit: 3}))
		reply, err := dhcpv4.FromBytes(buf[:k])
		require.NoError(t, err)
		require.Equal(t, p.TransactionID, reply.TransactionID, "its own answer and no other's")
		require.NoError(t, conn.Close())
	}
	require.Len(t, s.server.Sockets().Names, statusInterfaces)
	require.NoError(t, s.stop())
	for i := range n {
		events := s.events.Find(EventFilter{MAC: provision.MAC{2, 0, 0, 0, 1, byte(i)}})
		require.Len(t, events, 1)
		require.Equal(t, fmt.Sprintf("c%d", i), events[0].Interface)
	}
}
