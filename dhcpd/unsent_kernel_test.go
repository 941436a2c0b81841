package dhcpd

import (
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// No route leads to the relay, so the kernel sends none of the replies to it: nothing counts as given. When there is one, its
// client is answered.
func TestKernelRepliesThatDoNotLeave(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "192.0.2.7/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "203.0.113.1/32", "dev", "lo")
	opts := kernelOptions()
	opts.Relays = prefixes("203.0.113.1/32", "192.0.2.7/32")
	opts.Subnets = append(opts.Subnets, v4.Subnet{Prefix: netip.MustParsePrefix("203.0.113.0/24"), LeaseTime: time.Hour})
	s := c.serve(opts, filepath.Join(t.TempDir(), "state.db"))
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	relay, uplink := c.listen("203.0.113.1:67"), c.listen("192.0.2.7:67")
	message := func(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		return packet(t, append(mods, dhcpv4.WithMessageType(kind), dhcpv4.WithGatewayIP(net.IPv4(203, 0, 113, 1)), dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, port(switch1, 2)))...)
	}
	wishes := func(last byte) []dhcpv4.Modifier {
		return []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 5))), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 0, 2, last)))}
	}
	all := []*dhcpv4.DHCPv4{message(dhcpv4.MessageTypeDiscover), message(dhcpv4.MessageTypeRequest, wishes(21)...), message(dhcpv4.MessageTypeRequest, wishes(99)...)}
	send := func(p *dhcpv4.DHCPv4) {
		_, err := uplink.WriteToUDPAddrPort(p.ToBytes(), s.addr)
		require.NoError(t, err)
	}
	for i, p := range all {
		send(p)
		require.Eventually(t, func() bool { return len(s.events.Find(EventFilter{Outcome: outcome.SendFailed})) > i }, 5*time.Second, time.Millisecond, "%+v", s.events.Find(EventFilter{}))
		assert.Equal(t, "network is unreachable", s.events.Find(EventFilter{Limit: 1})[0].Detail)
	}
	require.Len(t, s.events.Find(EventFilter{}), len(all), "and nothing else is counted")
	assert.Empty(t, s.server.Senders().Networks, "no address of another network was given")

	c.ip("-n", c.router, "route", "add", "203.0.113.0/24", "via", "192.0.2.7")
	buf := make([]byte, 2048)
	for i, want := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak} {
		send(all[i])
		require.NoError(t, relay.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, _, err := relay.ReadFromUDPAddrPort(buf)
		require.NoError(t, err)
		reply, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		assert.Equal(t, want, reply.MessageType())
	}
	require.NoError(t, s.stop())
	nets := s.server.Senders().Networks
	require.Len(t, nets, 1)
	assert.EqualValues(t, 1, nets[0].Given)
}

// A client that sends its REQUEST again before the first one's record is on disk has both answered when that is there. When
// it comes by another relay without option 82, its record follows it there.
func TestKernelRepeatedRequestAndAnotherRelay(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "192.0.2.7/24", "dev", "eth0")
	c.ip("-n", c.router, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", c.cpe)
	for ns, a := range map[string]string{c.router: "198.51.100.1/30", c.cpe: "198.51.100.2/30"} {
		c.ip("-n", ns, "addr", "add", a, "dev", "eth1")
		c.ip("-n", ns, "link", "set", "eth1", "up")
	}
	opts := kernelOptions()
	opts.Relays = prefixes("192.0.2.7/32", "198.51.100.2/32")
	path := filepath.Join(t.TempDir(), "state.db")
	s := c.serveInput(opts, provision.Input{Lines: []provision.Line{{Subscriber: 2, Addresses: provision.Hosts4(subscriberIP), MAC: stranger}}}, path)
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	relay, other := c.listen("192.0.2.7:67"), c.listen("198.51.100.2:67")
	by := func(kind dhcpv4.MessageType, relay net.IP, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		return packet(t, append(mods, dhcpv4.WithMessageType(kind), dhcpv4.WithGatewayIP(relay))...)
	}
	request := by(dhcpv4.MessageTypeRequest, net.IPv4(192, 0, 2, 7), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 5))),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP(subscriberIP.AsSlice()))))
	s.journal.busy.Lock()
	written := sync.OnceFunc(s.journal.busy.Unlock)
	defer written()
	for range 2 {
		_, err := relay.WriteToUDPAddrPort(request.ToBytes(), s.addr)
		require.NoError(t, err)
	}
	offer := s.exchange(relay, by(dhcpv4.MessageTypeDiscover, net.IPv4(192, 0, 2, 7))) // what comes back first
	require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType(), "neither REQUEST is acknowledged yet")
	written()
	buf := make([]byte, 2048)
	for range 2 {
		require.NoError(t, relay.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, _, err := relay.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, "%+v", s.events.Find(EventFilter{}))
		ack, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
		assert.Equal(t, request.TransactionID, ack.TransactionID)
	}
	rec, _ := s.journal.Table.Get(subscriberIP)
	assert.Equal(t, "192.0.2.7 eth0", rec.GIAddr.String()+" "+rec.Interface)

	s.addr = netip.MustParseAddrPort("198.51.100.1:67")
	ack := s.exchange(other, by(dhcpv4.MessageTypeRequest, net.IPv4(198, 51, 100, 2), dhcpv4.WithClientIP(net.IP(subscriberIP.AsSlice()))))
	require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	require.NoError(t, s.stop())
	j := openJournal(t, path)
	rec, _ = j.Table.Get(subscriberIP)
	assert.Equal(t, "198.51.100.2 eth1", rec.GIAddr.String()+" "+rec.Interface, "also on disk")
	require.NoError(t, j.store.Close())
}

// The broadcast address of a subnet at an odd place is nobody's: not that of whom the ERP has it for, nor of a pool whose range has
// it, however it is asked for.
func TestKernelBroadcastAddressOfASecondSubnet(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	k := c.wire("eth1")
	c.ip("-n", c.router, "addr", "add", "203.0.113.1/24", "dev", "eth1")
	last := ip("203.0.113.255")
	opts := kernelOptions()
	opts.Subnets = nil
	erp := provision.Input{Lines: []provision.Line{
		{Subscriber: 1, Addresses: provision.Hosts4(last), MAC: mover}, {Subscriber: 2, Addresses: provision.Hosts4(ip("203.0.113.20")), MAC: client(0x20)},
	}}
	for _, p := range prefixes("203.0.112.0/24", "203.0.113.0/24") {
		opts.Subnets = append(opts.Subnets, v4.Subnet{Prefix: p, Gateway: p.Addr().Next(), LeaseTime: time.Hour})
		erp.Subnets = append(erp.Subnets, p)
	}
	opts.Unknown = v4.UnknownGuest
	opts.Pools = []v4.Pool{{Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: ip("203.0.113.253"), Last: last}, LeaseTime: time.Minute}}
	s := c.serveInput(opts, erp, filepath.Join(t.TempDir(), "state.db"))
	wish := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP(last.AsSlice())))
	for _, mac := range []provision.MAC{mover, stranger} {
		message := func(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
			return packet(t, append(mods, dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(net.HardwareAddr(mac[:])), dhcpv4.WithBroadcast(true))...)
		}
		ask := func(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
			reply := k.ask(t, 5*time.Second, message(kind, mods...))
			require.NotNil(t, reply, "%+v", s.events.Find(EventFilter{MAC: mac}))
			return reply
		}
		offer := ask(dhcpv4.MessageTypeDiscover, wish)
		require.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
		assert.NotEqual(t, last.String(), offer.YourIPAddr.String())
		chosen := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
		assert.Equal(t, dhcpv4.MessageTypeNak, ask(dhcpv4.MessageTypeRequest, wish, chosen).MessageType(), "SELECTING")
		ack := ask(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)), chosen)
		require.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
		require.Nil(t, k.ask(t, 50*time.Millisecond, message(dhcpv4.MessageTypeRequest, wish)), "INIT-REBOOT: nobody has it, and nothing is known of it")
		require.Eventually(t, func() bool { return len(s.events.Find(EventFilter{MAC: mac, Outcome: outcome.InitRebootUnknown})) > 0 }, 5*time.Second, time.Millisecond)
	}
	require.NoError(t, s.stop())
	_, known := s.journal.Table.Get(last)
	assert.False(t, known)
}
