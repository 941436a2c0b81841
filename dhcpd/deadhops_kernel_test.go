package dhcpd

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// deadHops is how many addresses are made up: the kernel's table of neighbours has room for them, and so their packets wait there.
const deadHops = 400

// deadAddress returns one of them, in the network of the router's eth0 (10.64.0.0/16) or eth1 (10.65.0.0/16).
func deadAddress(second byte, i int) netip.Addr {
	a := [4]byte{10, second}
	binary.BigEndian.PutUint16(a[2:], uint16(1000+i%deadHops))
	return netip.AddrFrom4(a)
}

// honest asks through its relay, one question after the other, until stop is closed. It returns how long the answers
// took and how many questions had none.
func honest(t *testing.T, c *net.UDPConn, server netip.AddrPort, stop <-chan struct{}) (took []time.Duration, lost int) {
	t.Helper()
	buf := make([]byte, 2048)
	for xid := uint32(1); ; xid++ {
		select {
		case <-stop:
			return took, lost
		case <-time.After(time.Millisecond):
		}
		q := wire.Query{Type: wire.Discover, MAC: provision.MAC{2, 0, 0, 1, byte(xid >> 8), byte(xid)}, XID: xid, GIAddr: netip.MustParseAddr("10.64.0.2"), Option82: port(switch1, 2)}
		begin := time.Now()
		_, err := c.WriteToUDPAddrPort(q.Append(nil), server)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(begin.Add(time.Second)))
		for {
			n, _, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				lost++
				break
			}
			if n > 8 && binary.BigEndian.Uint32(buf[4:]) == xid {
				took = append(took, time.Since(begin))
				break
			}
		}
	}
}

func share(took []time.Duration, of float64) time.Duration {
	slices.Sort(took)
	return took[int(float64(len(took)-1)*of)]
}

// deadEnds makes a router with a server that answers relays on eth0 (10.64.0.0/16), clients past a relay there (10.66.0.0/16) and clients on
// eth1 (10.65.0.0/16), where deadHops customers are off. An honest relay is at 10.64.0.2, who floods at 10.64.0.3, and the relay of the
// clients at 10.64.0.4.
func deadEnds(t *testing.T, more ...provision.Line) (*cable, *site) {
	t.Helper()
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "10.64.0.1/16", "dev", "eth0")
	for _, a := range []string{"10.64.0.2/16", "10.64.0.3/16", "10.64.0.4/16"} {
		c.ip("-n", c.cpe, "addr", "add", a, "dev", "eth0")
	}
	c.ip("-n", c.router, "route", "add", "10.66.0.0/16", "via", "10.64.0.4")
	c.ip("-n", c.cpe, "route", "add", "local", "10.66.0.0/16", "dev", "lo")
	c.wire("eth1")
	c.ip("-n", c.router, "addr", "add", "10.65.0.1/16", "dev", "eth1")
	opts := kernelOptions()
	opts.Relays = prefixes("10.64.0.0/16")
	for _, p := range []string{"10.65.0.0/16", "10.66.0.0/16"} {
		n := opts.Subnets[0]
		n.Prefix = netip.MustParsePrefix(p)
		n.Gateway = n.Prefix.Addr().Next()
		opts.Subnets = append(opts.Subnets, n)
	}
	erp := siteInput()
	for i := range deadHops {
		erp.Lines = append(erp.Lines, provision.Line{Subscriber: provision.SubscriberID(1000 + i), Addresses: provision.Hosts4(deadAddress(65, i)), MAC: provision.MAC{2, 0, 0, 3, byte(i >> 8), byte(i)}})
	}
	erp.Lines = append(erp.Lines, more...)
	s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))
	s.addr = netip.MustParseAddrPort("10.64.0.1:67")
	return c, s
}

// listen opens a socket on the other side of the cable.
func (c *cable) listen(addr string) (conn *net.UDPConn) {
	c.t.Helper()
	require.NoError(c.t, in(c.cpe, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	}))
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// informs is a question in the name of a customer who is off: the answer is for the address that it names.
func informs(i int) *wire.Query {
	return &wire.Query{Type: wire.Inform, MAC: provision.MAC{2, 0, 0, 3, byte(i % deadHops >> 8), byte(i % deadHops)}, CIAddr: deadAddress(65, i)}
}

// paced calls send with 0, 1 and so on, twenty times every five milliseconds, until that returns false.
func paced(send func(i int) bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if i%20 == 0 {
			<-tick.C
		}
		if !send(i) {
			return
		}
	}
}

// Thousands of questions have the server answer to addresses that nobody has: as relays of the wire that an honest relay
// is on, and as clients on another interface. The honest relay's answers come as they came before.
func TestKernelDeadNextHops(t *testing.T) {
	needKernel(t, "ip")
	const n = 8000
	for name, question := range map[string]func(i int) *wire.Query{
		"relays": func(i int) *wire.Query {
			return &wire.Query{Type: wire.Discover, MAC: provision.MAC{2, 0, 0, 2, byte(i >> 8), byte(i)}, GIAddr: deadAddress(64, i), Option82: port(switch1, 2)}
		},
		"clients": informs,
	} {
		t.Run(name, func(t *testing.T) {
			c, s := deadEnds(t)
			relay, flood := c.listen("10.64.0.2:67"), c.listen("10.64.0.3:67")
			s.exchange(relay, packet(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithGatewayIP(net.IPv4(10, 64, 0, 2)),
				dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2))))

			during := func(send func(i int)) ([]time.Duration, int) {
				stop := make(chan struct{})
				go func() {
					defer close(stop)
					paced(func(i int) bool {
						if i < n {
							send(i)
						}
						return i < n
					})
				}()
				return honest(t, relay, s.addr, stop)
			}
			alone, lost := during(func(int) {})
			require.Zero(t, lost)
			flooded, lost := during(func(i int) {
				for i%20 == 0 && s.waits() { // on a busy machine it takes longer, and is not another question
					<-time.After(time.Millisecond)
				}
				if _, err := flood.WriteToUDPAddrPort(question(i).Append(nil), s.addr); err != nil {
					t.Errorf("flood: %v", err)
				}
			})
			tell := func(what string, d []time.Duration) string {
				return fmt.Sprintf("%s: %d answers, half within %v, 99%% within %v, slowest %v", what, len(d), share(d, 0.5), share(d, 0.99), share(d, 1))
			}
			t.Log(tell("alone", alone))
			t.Log(tell("flooded", flooded), "lost", lost)
			// The machine may be busy with other things; the very slowest is compared loosely.
			assert.Zero(t, lost)
			most := 10 * time.Millisecond
			if raced { // each packet of the flood costs some ten times as much then
				most *= 10
			}
			assert.Less(t, share(flooded, 0.99), share(alone, 0.99)+most)
			assert.Less(t, share(flooded, 1), share(alone, 1)+500*time.Millisecond)
			assert.Greater(t, len(flooded), 300, "the relay was answered all the time")
			require.NoError(t, s.stop())
			counts := map[string]int{}
			for _, e := range s.events.Find(EventFilter{}) {
				counts[e.Outcome.String()]++
			}
			t.Log(counts)
		})
	}
}

// Meanwhile clients past a relay that was not seen before renew for the first time, each of them once: all are answered.
func TestKernelFirstRenewalsAmongDeadNextHops(t *testing.T) {
	needKernel(t, "ip")
	const clients = 100
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 66, 1, byte(i)}) }
	mac := func(i int) provision.MAC { return provision.MAC{2, 0, 0, 4, 0, byte(i)} }
	var lines []provision.Line
	for i := range clients {
		lines = append(lines, provision.Line{Subscriber: provision.SubscriberID(3000 + i), Addresses: provision.Hosts4(address(i)), MAC: mac(i)})
	}
	c, s := deadEnds(t, lines...)
	flood := c.listen("10.64.0.3:67")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		paced(func(i int) bool {
			for i%20 == 0 && s.waits() { // a busy machine has the kernel drop what comes, before anybody sees it
				select {
				case <-stop:
					return false
				case <-time.After(time.Millisecond):
				}
			}
			_, err := flood.WriteToUDPAddrPort(informs(i).Append(nil), s.addr)
			select {
			case <-stop:
				return false
			default:
				return err == nil
			}
		})
	}()
	full := func(since time.Time) bool {
		return len(s.events.Find(EventFilter{Outcome: outcome.SendFull, Since: since, Limit: 1})) > 0
	}
	require.Eventually(t, func() bool { return full(time.Time{}) }, 10*time.Second, time.Millisecond, "there is no room for answers to who is off")
	began := time.Now()
	for i := range clients {
		conn := c.listen(netip.AddrPortFrom(address(i), 68).String())
		renewal := wire.Query{Type: wire.Request, MAC: mac(i), XID: uint32(i), CIAddr: address(i)}
		_, err := conn.WriteToUDPAddrPort(renewal.Append(nil), s.addr)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
		buf := make([]byte, 2048)
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, "client %d: %+v", i, s.events.Find(EventFilter{MAC: mac(i)}))
		var p wire.Packet
		require.NoError(t, p.Parse(buf[:n]))
		require.Equal(t, wire.Ack, p.Type())
		require.NoError(t, conn.Close())
	}
	require.True(t, full(began), "nor was there while they renewed")
	close(stop)
	<-done
	require.NoError(t, s.stop())
}
