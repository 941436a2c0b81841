package dhcpd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
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
func (k *customer) discover(t *testing.T, within time.Duration, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	return k.ask(t, within, packet(t, append(mods, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2)))...))
}

// ask sends p and gives the answer to it; nil if none comes within the time.
func (k *customer) ask(t *testing.T, within time.Duration, p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
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

// served asks until an OFFER comes, and returns the event of that OFFER, which is
// logged after it was sent.
func (k *customer) served(t *testing.T, s *site, what string) Event {
	t.Helper()
	for limit := time.Now().Add(15 * time.Second); time.Now().Before(limit); {
		if r := k.discover(t, 300*time.Millisecond); r != nil {
			return s.offered(r.TransactionID, what)
		}
	}
	require.Fail(t, "no OFFER", "%s: %+v", what, s.events.Find(EventFilter{Limit: 5}))
	return Event{}
}

// offered waits for the event of an OFFER.
func (s *site) offered(id dhcpv4.TransactionID, what string) Event {
	s.t.Helper()
	var of Event
	require.Eventually(s.t, func() bool {
		offers := s.events.Find(EventFilter{Outcome: outcome.Offer})
		i := slices.IndexFunc(offers, func(e Event) bool { return e.XID == binary.BigEndian.Uint32(id[:]) })
		if i >= 0 {
			of = offers[i]
		}
		return i >= 0
	}, 15*time.Second, time.Millisecond, "%s: no event of the OFFER", what)
	return of
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
	first := k.served(t, s, "made after the start")
	require.Equal(t, "cust1", first.Interface)

	c.ip("-n", c.router, "link", "set", "cust1", "down")
	c.ip("-n", c.router, "link", "set", "cust1", "name", "spare")
	c.ip("-n", c.router, "link", "set", "spare", "up")
	require.Eventually(t, func() bool {
		k.discover(t, 100*time.Millisecond)
		return s.events.Find(EventFilter{Limit: 1})[0].Interface == "spare"
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, outcome.InterfaceOff, s.events.Find(EventFilter{Limit: 1})[0].Outcome)

	c.ip("-n", c.router, "link", "del", "spare")
	c.plug("cust1", k)
	again := k.served(t, s, "made again")
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

// A neighbour on another interface, or on another port of the same trusted one, asks thirty times
// as often with the client's MAC, up to the limit of a client, of a port, of an interface: the client is
// answered each time.
func TestKernelStrangerUsesUpNobodysShare(t *testing.T) {
	needKernel(t, "ip")
	discover := func(opt82 []byte) *dhcpv4.DHCPv4 {
		mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true)}
		if opt82 != nil {
			mods = append(mods, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, opt82))
		}
		return packet(t, mods...)
	}
	for _, tc := range []struct {
		name           string
		trusted        []string
		same           bool   // the interface
		mine, stranger []byte // option 82
		limits         Limits
		shed           outcome.Outcome
	}{
		{"another wire without lines", []string{line.NoInterface}, false, nil, nil, defaultLimits(), outcome.LimitedClient},
		{"another wire, with the port of the client made up", nil, false, port(switch1, 2), port(switch1, 2), defaultLimits(), outcome.LimitedClient},
		{"another port of a trusted interface", []string{"cust1"}, true, port(switch1, 2), port(switch1, 66), defaultLimits(), outcome.LimitedClient},
		{"a flood on another wire", []string{line.NoInterface}, false, nil, nil, Limits{Relay: Limit{Rate: 0.1, Burst: 10}}, outcome.LimitedRelay},
		{"a flood from another port of a trusted interface", []string{"cust1"}, true, port(switch1, 2), port(switch1, 66), Limits{Port: Limit{Rate: 0.1, Burst: 10}}, outcome.LimitedPort},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCable(t)
			k := c.wire("cust1")
			other := k
			if !tc.same {
				other = c.wire("cust2")
			}
			opts := kernelOptions()
			opts.Interfaces, opts.TrustedInterfaces, opts.Limits = []string{"cust*"}, tc.trusted, tc.limits
			erp := siteInput()
			erp.Lines = append(erp.Lines, provision.Line{Subscriber: 9, Addresses: provision.Hosts4(host(91)), MAC: stranger})
			s := startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, watchIn(t, c.router), func(s *Server) error { return in(c.router, s.Listen) })
			answered := 0
			for range 7 {
				for range 30 {
					_, err := other.conn.WriteToUDPAddrPort(discover(tc.stranger).ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
					require.NoError(t, err)
				}
				if k.ask(t, 300*time.Millisecond, discover(tc.mine)) != nil {
					answered++
				}
			}
			require.Equal(t, 7, answered)
			require.NoError(t, s.stop())
			require.NotEmpty(t, s.events.Find(EventFilter{Outcome: tc.shed}), "the stranger is shed")
		})
	}
}

// Thousands of packets a second that are refused, on the wire of a relay and in its name or in that of clients there, cost neither the relay's
// share of the limits nor that of the interface: the relay and a client on the wire are answered each time.
func TestKernelRefusedPacketsCostNobody(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "10.64.0.1/24", "dev", "eth0")
	for _, a := range []string{"10.64.0.2/24", "10.64.0.3/24", "10.64.0.9/24"} {
		c.ip("-n", c.cpe, "addr", "add", a, "dev", "eth0")
	}
	listed, other, customer := ip("10.64.0.2"), ip("10.64.0.3"), ip("10.64.0.9")
	opts := kernelOptions()
	opts.Relays, opts.CheckRelaySource = prefixes("10.64.0.2/32"), line.SourceListed
	opts.Limits = Limits{Relay: Limit{Rate: 50, Burst: 200}}
	n := opts.Subnets[0]
	n.Prefix, n.Gateway = netip.MustParsePrefix("10.64.0.0/24"), ip("10.64.0.1")
	opts.Subnets = append(opts.Subnets, n)
	erp := siteInput()
	erp.Lines = append(erp.Lines, provision.Line{Subscriber: 9, Addresses: provision.Hosts4(customer), MAC: stranger})
	s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))
	s.addr = netip.MustParseAddrPort("10.64.0.1:67")
	relay, client := c.listen("10.64.0.2:67"), c.listen("10.64.0.9:68")
	from := map[netip.Addr]*net.UDPConn{other: c.listen("10.64.0.3:67"), customer: c.listen("10.64.0.9:67")}
	for _, flood := range []struct {
		kind   wire.MessageType
		giaddr netip.Addr
		source netip.Addr
		want   outcome.Outcome
	}{
		{wire.Discover, listed, other, outcome.RelaySource},
		{wire.Discover, other, other, outcome.RelayUntrusted},
		{wire.Discover, listed, customer, outcome.RelaySubscriber},
		{wire.LeaseQuery, other, other, outcome.LeaseQueryRefused},
	} {
		t.Run(flood.want.String(), func(t *testing.T) {
			var sent atomic.Int64
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				paced(func(i int) bool {
					q := wire.Query{Type: flood.kind, MAC: provision.MAC{2, 0, 0, 5, byte(i >> 8), byte(i)}, GIAddr: flood.giaddr, Option82: port(switch1, 2)}
					_, err := from[flood.source].WriteToUDPAddrPort(q.Append(nil), s.addr)
					sent.Add(1)
					select {
					case <-stop:
						return false
					default:
						return err == nil
					}
				})
			}()
			asked := 0
			for sent.Load() < 1000 {
				offer := s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.IP(listed.AsSlice())),
					dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2))))
				require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
				ack := s.exchange(client, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(net.IP(customer.AsSlice()))))
				require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
				asked++
				<-time.After(20 * time.Millisecond) // their own share is small
			}
			close(stop)
			<-done
			require.Greater(t, asked, 3)
			require.NotEmpty(t, s.events.Find(EventFilter{Outcome: flood.want}))
		})
	}
	require.NoError(t, s.stop())
}

// The server answers from the moment that the address comes, and no more when it is gone.
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
		return len(s.events.Find(EventFilter{Outcome: outcome.Standby})) > 0
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
		buf := make([]byte, 2048)
		k := 0
		for try := 0; k == 0; try++ { // a busy machine loses a packet now and then
			require.Less(t, try, 10, "%s: %+v", name, s.events.Find(EventFilter{Limit: 3}))
			_, err := conn.WriteToUDPAddrPort(p.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
			require.NoError(t, err, name)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
			k, _, _ = conn.ReadFromUDPAddrPort(buf)
		}
		reply, err := dhcpv4.FromBytes(buf[:k])
		require.NoError(t, err)
		require.Equal(t, p.TransactionID, reply.TransactionID, "its own answer and no other's")
		require.NoError(t, conn.Close())
	}
	require.Len(t, s.server.Sockets().Names, statusInterfaces)
	require.NoError(t, s.stop())
	for i := range n {
		events := s.events.Find(EventFilter{MAC: provision.MAC{2, 0, 0, 0, 1, byte(i)}})
		require.NotEmpty(t, events)
		require.Equal(t, fmt.Sprintf("c%d", i), events[0].Interface)
	}
}

// Two routers on one segment hear every packet. The one with the shared address
// answers; when it moves, as keepalived moves it, the other one does.
func TestKernelSharedAddressMovesBetweenRouters(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	second := &cable{t: t, router: c.router + "2", cpe: c.cpe}
	c.ip("netns", "add", second.router)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", second.router).Run() })
	c.ip("-n", second.router, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", c.cpe)
	c.ip("-n", second.router, "link", "set", "eth0", "up")
	c.ip("-n", c.cpe, "link", "add", "br0", "type", "bridge")
	for _, port := range []string{"eth0", "eth1"} {
		c.ip("-n", c.cpe, "link", "set", port, "master", "br0", "up")
	}
	c.ip("-n", c.cpe, "link", "set", "br0", "address", client(0x77).String(), "up")
	c.ip("-n", c.cpe, "addr", "add", "192.0.2.21/24", "dev", "br0")
	c.ip("-n", c.cpe, "route", "add", "default", "dev", "br0")
	k := &customer{ns: c.cpe}
	require.NoError(t, in(c.cpe, func() (err error) {
		k.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 68})
		return err
	}))
	t.Cleanup(func() { _ = k.conn.Close() })

	opts := kernelOptions()
	opts.AnswerWhileHolding = host(254)
	routers := []*cable{c, second}
	var sites []*site
	var watches []*link.Watch
	for _, r := range routers {
		w := watchIn(t, r.router)
		watches = append(watches, w)
		sites = append(sites, startSiteIn(t, r, w, opts))
	}
	hold := func(i int, verb string) {
		c.ip("-n", routers[i].router, "addr", verb, "192.0.2.254/32", "dev", "eth0")
		require.Eventually(t, func() bool { return watches[i].View().Holds(host(254)) == (verb == "add") }, 5*time.Second, time.Millisecond)
	}
	answered := func(i int) int { return len(sites[i].events.Find(EventFilter{Outcome: outcome.Offer})) }
	// The broadcast flag: the MAC in the packet is not the bridge's.
	ask := func() bool { return k.discover(t, 300*time.Millisecond, dhcpv4.WithBroadcast(true)) != nil }
	require.False(t, ask(), "nobody has the address")
	for _, i := range []int{0, 1, 0} {
		hold(i, "add")
		mine, other := answered(i), answered(1-i)
		require.Eventually(t, ask, 15*time.Second, time.Millisecond)
		require.Eventually(t, func() bool { return answered(i) > mine }, 5*time.Second, time.Millisecond)
		require.Equal(t, other, answered(1-i), "one of them only")
		hold(i, "del")
	}
	for _, s := range sites {
		require.NotEmpty(t, s.events.Find(EventFilter{Outcome: outcome.Standby}))
		require.NoError(t, s.stop())
	}
}
