package dhcpd

import (
	"encoding/hex"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// mover has an address in each of two networks, which have a gateway each.
var mover = provision.MAC{2, 0, 0, 0, 0, 0x30}

func twoNetworks() (Options, provision.Input) {
	opts := kernelOptions()
	opts.Relays = prefixes("203.0.113.1/32")
	opts.Subnets = []v4.Subnet{
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: ip("198.51.100.1"), LeaseTime: time.Hour},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Gateway: ip("203.0.113.1"), LeaseTime: time.Hour},
	}
	return opts, provision.Input{
		Devices: []provision.Device{{ID: 1, MAC: switch1, IP: ip("192.0.2.7")}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(ip("198.51.100.30")), MAC: mover},
			{Subscriber: 1, Addresses: provision.Hosts4(ip("203.0.113.30")), MAC: mover},
			{Subscriber: 2, Addresses: provision.Hosts4(ip("198.51.100.31")), MAC: client(0x31)},
			{Subscriber: 3, Addresses: provision.Hosts4(ip("198.51.100.41")), Device: 1, Port: 4},
		},
	}
}

// A real client that wishes an address of another network than its interface's gets the one here, with the gateway here.
func TestKernelNetworks(t *testing.T) {
	needKernel(t, "ip", "udhcpc")
	for _, tc := range []struct {
		name   string
		addrs  []string // of the router's interface
		change func(*Options)
		want   string
	}{
		{"one network", []string{"203.0.113.1/24"}, nil, "203.0.113.30/24 via 203.0.113.1"},
		{"two networks", []string{"203.0.113.1/24", "198.51.100.1/24"}, nil, "198.51.100.30/24 via 198.51.100.1"},
		{"one that shares its wire", []string{"203.0.113.1/24"}, func(o *Options) {
			o.SharedNetworks = []v4.SharedNetwork{{Prefixes: prefixes("198.51.100.0/24", "203.0.113.0/24")}}
		}, "198.51.100.30/24 via 198.51.100.1"},
		{"unnumbered", []string{"203.0.113.1/32"}, nil, "198.51.100.30/24 via 198.51.100.1"},
		{"host routes", []string{"203.0.113.1/24"}, func(o *Options) {
			o.HostRoutes = func(name string) bool { return name == "eth0" }
		}, "198.51.100.30/24 via 198.51.100.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCable(t)
			c.ip("-n", c.cpe, "link", "set", "eth0", "address", mover.String())
			for _, a := range tc.addrs {
				c.ip("-n", c.router, "addr", "add", a, "dev", "eth0")
			}
			opts, erp := twoNetworks()
			if tc.change != nil {
				tc.change(&opts)
			}
			s := startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, watchIn(t, c.router), func(s *Server) error { return in(c.router, s.Listen) })
			told := c.udhcpc(s, "-r", "198.51.100.30")
			assert.Contains(t, told, "bound "+tc.want)
			e := s.server.Explain(Query{MAC: mover, Interface: "eth0"})
			assert.Equal(t, outcome.Offer, e.Outcome)
			require.NoError(t, s.stop())
		})
	}
}

// A client that comes to another wire with its lease is told so at once, and one that has no address there is not answered.
func TestKernelMovedToAnotherNetwork(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	k := c.wire("eth1")
	c.ip("-n", k.ns, "addr", "flush", "dev", "eth0")
	c.ip("-n", k.ns, "addr", "add", "198.51.100.30/24", "dev", "eth0") // that of the other wire
	c.ip("-n", k.ns, "route", "add", "default", "dev", "eth0")
	c.ip("-n", c.router, "addr", "add", "203.0.113.1/24", "dev", "eth1")
	opts, erp := twoNetworks()
	s := startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, watchIn(t, c.router), func(s *Server) error { return in(c.router, s.Listen) })
	from := func(mac provision.MAC, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		p := packet(t, mods...)
		p.ClientHWAddr = net.HardwareAddr(mac[:])
		return p
	}
	const patience = 5 * time.Second
	reboot := from(mover, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(198, 51, 100, 30))))
	nak := k.ask(t, patience, reboot)
	require.NotNil(t, nak, "%+v", s.events.Find(EventFilter{}))
	assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())
	rebinding := from(mover, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IPv4(198, 51, 100, 30)))
	nak = k.ask(t, patience, rebinding)
	require.NotNil(t, nak, "broadcast from the old address: %+v", s.events.Find(EventFilter{}))
	assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())

	reboot = from(client(0x31), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(198, 51, 100, 31))))
	nak = k.ask(t, patience, reboot)
	require.NotNil(t, nak, "%+v", s.events.Find(EventFilter{}))
	assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())
	d := from(client(0x31), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true))
	_, err := k.conn.WriteToUDPAddrPort(d.ToBytes(), netip.MustParseAddrPort("255.255.255.255:67"))
	require.NoError(t, err)
	both := v4.OtherNetwork{Client: netip.MustParsePrefix("203.0.113.0/24"), Address: netip.MustParsePrefix("198.51.100.0/24")}
	require.Eventually(t, func() bool { return len(s.events.Find(EventFilter{Outcome: outcome.WrongNetwork})) == 1 }, patience, time.Millisecond, "%+v", s.events.Find(EventFilter{}))
	e := s.events.Find(EventFilter{MAC: client(0x31)})
	require.Len(t, e, 2)
	assert.Equal(t, []outcome.Outcome{outcome.WrongNetwork, outcome.NakWrongNetwork}, []outcome.Outcome{e[0].Outcome, e[1].Outcome})
	assert.Equal(t, []v4.OtherNetwork{both, both}, []v4.OtherNetwork{e[0].Networks, e[1].Networks})
	x := s.server.Explain(Query{MAC: client(0x31), Interface: "eth1"})
	assert.Equal(t, outcome.WrongNetwork, x.Outcome)
	assert.Equal(t, both, x.Networks)
	assert.Equal(t, "offer", s.server.Explain(Query{MAC: client(0x31)}).Outcome.String(), "of a packet from nobody knows where")
	st := s.server.Senders()
	require.Len(t, st.Networks, 1)
	assert.Equal(t, both, st.Networks[0].OtherNetwork)
	assert.Equal(t, [2]uint64{0, 2}, [2]uint64{st.Networks[0].Given, st.Networks[0].Refused})
	require.NoError(t, s.stop())
}

// The very packets of a client behind the relay of one network that has an address of another one, from the relay's
// socket to the server's: all kinds of messages.
func TestKernelNetworksBehindARelay(t *testing.T) {
	needKernel(t, "ip")
	c := newCable(t)
	c.ip("-n", c.router, "addr", "add", "192.0.2.5/24", "dev", "eth0")
	c.ip("-n", c.router, "route", "add", "203.0.113.0/24", "via", "192.0.2.7")
	c.ip("-n", c.router, "route", "add", "198.51.100.0/24", "via", "192.0.2.7")
	c.ip("-n", c.cpe, "addr", "add", "192.0.2.7/24", "dev", "eth0")
	c.ip("-n", c.cpe, "addr", "add", "203.0.113.1/32", "dev", "lo")
	c.ip("-n", c.cpe, "addr", "add", "198.51.100.30/32", "dev", "lo")
	opts, erp := twoNetworks()
	opts.Relays = append(opts.Relays, prefixes("192.0.2.7/32")...)
	s := startSiteLinks(t, filepath.Join(t.TempDir(), "state.db"), opts, erp, watchIn(t, c.router), func(s *Server) error { return in(c.router, s.Listen) })
	s.addr = netip.MustParseAddrPort("192.0.2.5:67")
	relay, cpe := c.listen("203.0.113.1:67"), c.listen("198.51.100.30:68")
	const (
		relayed = "010106001758c71e00000000000000000000000000000000cb00710102000000003000000000000000000000"
		renews  = "010106001758c71e00000000c633641e00000000000000000000000002000000003000000000000000000000"
		rebinds = "010106001758c71e00000000c633641e0000000000000000cb00710102000000003000000000000000000000"
		line4   = "52120106000400640004" + "02080006" + "00005e0053f1"
	)
	ask := func(conn *net.UDPConn, header, options string) string {
		b, err := hex.DecodeString(header + strings.Repeat("00", 192) + "63825363" + options)
		require.NoError(t, err)
		_, err = conn.WriteToUDPAddrPort(append(b, make([]byte, max(0, 300-len(b)))...), s.addr)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		buf := make([]byte, 2048)
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		require.NoError(t, err, "%+v", s.events.Find(EventFilter{}))
		p, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(t, err)
		told := p.MessageType().String()
		if p.MessageType() != dhcpv4.MessageTypeNak {
			told += " " + p.YourIPAddr.String()
			for _, r := range p.Router() {
				told += " via " + r.String()
			}
		}
		return told
	}
	const here, there = "203.0.113.30 via 203.0.113.1", "198.51.100.30 via 198.51.100.1"
	assert.Equal(t, "OFFER "+here, ask(relay, relayed, "350101370201033204c633641eff"), "a DISCOVER that wishes it")
	assert.Equal(t, "NAK", ask(relay, relayed, "350103"+"3604c0000205"+"370201033204c633641eff"), "SELECTING")
	assert.Equal(t, "NAK", ask(relay, relayed, "350103370201033204c633641eff"), "INIT-REBOOT")

	// It had a lease there, by another relay. Its renewal past the relay tells no network.
	s.server.deps.Leases.Store(with(bound(ip("198.51.100.30"), mover, 1), func(r *lease.Record) {
		r.GIAddr, r.Interface, r.Expires = ip("198.51.100.1"), "eth0", time.Now().Add(time.Hour)
	}))
	assert.Equal(t, "ACK "+there, ask(cpe, renews, "35010337020103ff"), "RENEWING past the relay")
	assert.Equal(t, "NAK", ask(relay, rebinds, "35010337020103ff"), "REBINDING through this one")
	assert.Equal(t, "NAK", ask(relay, relayed, "350103370201033204c633641eff"), "INIT-REBOOT with a lease there")
	assert.Equal(t, "OFFER "+here, ask(relay, relayed, "35010137020103ff"), "a plain DISCOVER after that lease")
	assert.Equal(t, "ACK "+here, ask(relay, relayed, "350103"+"3604c0000205"+"370201033204cb00711eff"), "SELECTING of the one here")

	// On its line a client is given what it has, and the operator is told what to write.
	stranger := strings.Replace(relayed, "020000000030", "020000000099", 1)
	assert.Equal(t, "OFFER 198.51.100.41 via 198.51.100.1", ask(relay, stranger, "35010137020103"+line4+"ff"))
	assert.Equal(t, "ACK 198.51.100.41 via 198.51.100.1", ask(relay, stranger, "350103"+"3604c0000205"+"3204c6336429"+"37020103"+line4+"ff"))
	require.Eventually(t, func() bool { return len(s.server.Senders().Networks) == 1 }, 5*time.Second, time.Millisecond, "it is counted when it has left")
	st := s.server.Senders()
	assert.Equal(t, [2]uint64{1, 0}, [2]uint64{st.Networks[0].Given, st.Networks[0].Refused})
	assert.Equal(t, "shared_networks: [{prefixes: [203.0.113.0/24, 198.51.100.0/24]}]", st.Networks[0].Paste)

	// A relay that is known by an address of the management network, where no client is, tells no network and restricts nothing.
	manager, managed := c.listen("192.0.2.7:67"), strings.NewReplacer("cb007101", "c0000207")
	assert.Equal(t, "OFFER "+there, ask(manager, managed.Replace(relayed), "350101370201033204c633641eff"), "a DISCOVER that wishes the one")
	assert.Equal(t, "OFFER "+here, ask(manager, managed.Replace(relayed), "350101370201033204cb00711eff"), "or the other")
	assert.Equal(t, "ACK "+there, ask(manager, managed.Replace(relayed), "350103370201033204c633641eff"), "INIT-REBOOT")
	assert.Equal(t, "ACK "+there, ask(manager, managed.Replace(rebinds), "35010337020103ff"), "REBINDING")
	assert.Equal(t, "OFFER 198.51.100.41 via 198.51.100.1", ask(manager, managed.Replace(stranger), "35010137020103"+line4+"ff"), "on a line")
	st = s.server.Senders()
	require.Len(t, st.Networks, 1)
	assert.Equal(t, [2]uint64{1, 0}, [2]uint64{st.Networks[0].Given, st.Networks[0].Refused}, "and there is nothing to tell")

	opts.SharedNetworks = []v4.SharedNetwork{{Prefixes: prefixes("203.0.113.0/24", "198.51.100.0/24")}}
	require.NoError(t, s.server.Reload(opts))
	assert.Equal(t, "OFFER "+there, ask(relay, relayed, "350101370201033204c633641eff"), "the wish decides where they share a wire")
	assert.Empty(t, s.server.Senders().Networks, "and nothing is shown any more")
	require.NoError(t, s.stop())
}
