package dhcpd

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// impostor is a customer that writes itself what only an honest peer may say.
type impostor struct {
	name string
	at   *lab.Host
	via  provision.MAC // of the machine that its frames go to; zero: everybody on its wire
	from netip.AddrPort
	to   netip.Addr

	giaddr netip.Addr
	opt82  string        // of the victim's line; empty: none is written
	mac    provision.MAC // with which it asks for the address; zero: one that nobody knows
	asks   bool          // it asks who has the address, as an access node does, and nothing else
	ends   bool          // it ends the lease, and nothing else

	relay netip.Addr // of a real relay that forwards it from there, with that as giaddr if it has none yet; not valid: nobody does
	sends netip.Addr // what the relay sends from; not valid: from relay

	// What becomes of each message; one stands for all, and then nobody answers. Of several
	// those that a stranger gets, who may be told no.
	want []outcome.Outcome
}

// victim is the customer whose lease an impostor is after.
type victim struct {
	ip     netip.Addr
	mac    provision.MAC
	server netip.Addr // the server identifier that it knows
}

// messages are what an impostor tries: to get the address, to renew it, and to end
// the victim's lease.
func (x *impostor) messages(t *testing.T, v victim) []*dhcpv4.DHCPv4 {
	t.Helper()
	type mods = []dhcpv4.Modifier
	wishes := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(v.ip.AsSlice()))
	server := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(v.server.AsSlice()))
	has := dhcpv4.WithClientIP(v.ip.AsSlice())
	victims := dhcpv4.WithHwAddr(net.HardwareAddr(v.mac[:]))
	mine := dhcpv4.WithHwAddr(net.HardwareAddr(stranger[:]))
	if !x.mac.IsZero() {
		mine = dhcpv4.WithHwAddr(net.HardwareAddr(x.mac[:]))
	}
	type kind struct {
		kind dhcpv4.MessageType
		mods mods
	}
	kinds := []kind{
		{dhcpv4.MessageTypeDiscover, mods{mine, wishes}},
		{dhcpv4.MessageTypeRequest, mods{mine, wishes, server}},
		{dhcpv4.MessageTypeRequest, mods{mine, has}},
		{dhcpv4.MessageTypeDecline, mods{victims, wishes, server}},
		{dhcpv4.MessageTypeRelease, mods{victims, has, server}},
	}
	if x.ends {
		kinds = kinds[3:]
	}
	if x.asks {
		kinds = []kind{{dhcpv4.MessageType(10), mods{has}}, {dhcpv4.MessageType(10), mods{victims}}}
	}
	if len(x.want) > 1 {
		kinds = kinds[:len(x.want)]
	}
	var out []*dhcpv4.DHCPv4
	for _, m := range kinds {
		p := packet(t, append(m.mods, dhcpv4.WithMessageType(m.kind))...)
		x.dress(p)
		out = append(out, p)
	}
	return out
}

// relayed returns the address that the relay sends from, and its giaddr.
func (x *impostor) relayed() (source, giaddr netip.Addr) {
	source, giaddr = x.relay, x.relay
	if x.sends.IsValid() {
		source = x.sends
	}
	if x.giaddr.IsValid() {
		giaddr = x.giaddr
	}
	return source, giaddr
}

// dress writes what the impostor pretends into a message.
func (x *impostor) dress(p *dhcpv4.DHCPv4) {
	if x.giaddr.IsValid() {
		p.GatewayIPAddr, p.HopCount = x.giaddr.AsSlice(), 1
	}
	if x.opt82 != "" {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte(x.opt82)))
	}
}

// send puts a message on the impostor's wire, as it likes.
func (x *impostor) send(t *testing.T, p *dhcpv4.DHCPv4) {
	t.Helper()
	require.NoError(t, x.at.Do(func() error {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		f, err := openPort("eth0")
		if err != nil {
			return err
		}
		defer f.Close()
		via := x.via
		if via.IsZero() {
			via = provision.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		}
		b := append(via[:], iface.HardwareAddr...)
		b = append(b, 0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0)
		b = append(append(b, x.from.Addr().AsSlice()...), x.to.AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, x.from.Port())
		b = append(b, 0, 67, 0, 0, 0, 0)
		_, err = f.Write(rebuilt(b, p.ToBytes()))
		return err
	}))
}

// macOf returns the MAC of a host's interface.
func (d *district) macOf(h *lab.Host, name string) provision.MAC {
	d.t.Helper()
	var mac provision.MAC
	require.NoError(d.t, h.Do(func() error {
		iface, err := net.InterfaceByName(name)
		if err == nil {
			mac = provision.MAC(iface.HardwareAddr)
		}
		return err
	}))
	return mac
}

// gets has a real client take an address and then fall silent, and returns what
// the impostor is after.
func (d *district) gets(h *lab.Host, a netip.Addr) victim {
	d.t.Helper()
	d.movesIn(h, a).Kill()
	d.eventually("all is quiet", func() bool { // what it sent twice may be on the way
		return d.box.Status(0).Depth == 0 && time.Since(d.all.last().Time) > 300*time.Millisecond
	})
	rec, known := d.leases.Get(a)
	require.True(d.t, known)
	v := victim{ip: a, mac: rec.MAC, server: coreIP}
	if rec.Interface == "cust0" {
		v.server = host(1)
	}
	return v
}

// withstands tries an impostor: nobody answers it, and it changes no lease and no row of the ERP.
// Operators see what it was refused for and where it came from.
func (d *district) withstands(x impostor, v victim) {
	d.t.Run(x.name, func(t *testing.T) {
		// Of what one address sends and is refused for one reason the log keeps some a second, and the one
		// before may have had this address.
		d.eventually("the log takes more", func() bool { return d.all.since(time.Now().Truncate(time.Second)) == 0 })
		var taps []tap
		for _, name := range d.names(t) {
			taps = append(taps, d.tap(t, name))
		}
		before, told := slices.Collect(d.leases.All()), d.erp.written()
		sent := x.messages(t, v)
		var got []outcome.Outcome
		for _, p := range sent {
			x.send(t, p)
			d.eventually(x.name+": a "+p.MessageType().String()+" is dealt with", func() bool { return d.all.of(p.TransactionID) != nil })
			e := d.all.of(p.TransactionID)
			got = append(got, e.Outcome)
			if x.relay.IsValid() {
				source, gi := x.relayed()
				require.Equal(t, []netip.Addr{source, gi}, []netip.Addr{e.Source.Addr(), e.GIAddr})
				require.Equal(t, x.opt82, string(e.Option82), "the relay leaves it alone")
				continue
			}
			require.Equal(t, x.from, e.Source)
		}
		want := x.want
		if len(want) == 1 {
			want = slices.Repeat(want, len(sent))
		}
		require.Equal(t, want, got)
		for _, tap := range taps {
			for _, p := range tap.sent(t) {
				mine := slices.ContainsFunc(sent, func(q *dhcpv4.DHCPv4) bool { return q.TransactionID == p.TransactionID })
				require.False(t, mine && (len(x.want) == 1 || p.MessageType() != dhcpv4.MessageTypeNak), "an impostor is answered: %s", p.Summary())
			}
		}
		require.Equal(t, before, slices.Collect(d.leases.All()))
		d.eventually("reports are delivered", func() bool { return d.box.Status(0).Depth == 0 })
		require.Equal(t, told, d.erp.written())
		seen := d.events.Find(EventFilter{Outcome: want[0]})
		require.True(t, slices.ContainsFunc(seen, func(e Event) bool {
			source, gi := x.relayed()
			return e.Source == x.from && e.GIAddr == x.giaddr || x.relay.IsValid() && e.Source.Addr() == source && e.GIAddr == gi
		}), "operators see it")
	})
}

// stopRelays ends every relay that runs.
func (d *district) stopRelays() {
	d.t.Helper()
	for _, p := range d.lab.Processes() {
		if p.Name == "dhcrelay" {
			p.Kill()
		}
	}
}

// names are the router's interfaces that packets leave on.
func (d *district) names(t *testing.T) (out []string) {
	t.Helper()
	require.NoError(t, d.router.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
				out = append(out, i.Name)
			}
		}
		return err
	}))
	return out
}

// hostileOptions list the networks of the relays, as a file from before there was
// subscriber_interfaces does, and say where subscribers are.
func hostileOptions() Options {
	opts := peersOptions()
	opts.CheckRelaySource = line.SourceUnsaid
	opts.Relays = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/29"), netip.MustParsePrefix("203.0.113.0/24")}
	opts.Option82Relays = []string{"198.51.100.0/29", "203.0.113.0/24"}
	return opts
}

// from is an address with a source port.
func from(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

var (
	nowhere   = netip.IPv4Unspecified()
	everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// A customer on the same wires who poses as one of the peers of TestKernelHonestPeers.
func TestKernelImpostors(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay", "dnsmasq", "nft")
	subscriber, noSource, inside := []outcome.Outcome{outcome.RelaySubscriber}, []outcome.Outcome{outcome.RelayNoSource}, []outcome.Outcome{outcome.RelayInterface}
	unlisted := []outcome.Outcome{outcome.RelaySource}

	t.Run("of a relay", func(t *testing.T) {
		t.Parallel()
		d, _ := relaysItself(t, "xrelay")
		d.serve(hostileOptions(), erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayOnPorts("uplink", coreIP)
		v := d.gets(d.home, homeIP)
		behind, beside := d.macOf(d.access, "port3"), d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "behind it, from its own address", at: d.neighbour, via: behind, from: from(neighbourIP, 68), to: coreIP, want: subscriber},
			{name: "behind it, from a relay's port", at: d.neighbour, via: behind, from: from(neighbourIP, 67), to: coreIP, want: subscriber},
			{name: "beside it, from its own address", at: d.tenant, via: beside, from: from(tenantIP, 4011), to: host(1), want: subscriber},
			{name: "beside it, from an address that nobody has", at: d.tenant, via: beside, from: from(host(77), 67), to: host(1), want: inside},
			{name: "beside it, from the relay's address", at: d.tenant, via: beside, from: from(uplinkIP, 67), to: coreIP, want: inside},
			{name: "beside it, from the relay's other address", at: d.tenant, via: beside, from: from(gatewayIP, 67), to: coreIP, want: inside},
			{name: "beside it, without an address", at: d.tenant, from: from(nowhere, 68), to: everybody, want: noSource},
		} {
			x.giaddr, x.opt82 = gatewayIP, circuit("port2")
			d.withstands(x, v)
		}
		d.withstands(impostor{
			name: "as a subscriber that is its own relay", at: d.tenant, via: beside, from: from(tenantIP, 67), to: host(1), giaddr: tenantIP, opt82: string(port(switch1, 2)), want: subscriber,
		}, v)
		d.movesIn(d.home, homeIP)
	})

	// That the relay's addresses are listed one by one is nothing to those who are on another wire, or send from an address that is not.
	t.Run("of a relay that is listed by itself", func(t *testing.T) {
		t.Parallel()
		d, opts := relaysItself(t, "xalone")
		node := d.node()
		d.ip(d.access, "route add 198.51.100.77/32 dev port3")
		opts.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(nodeIP, 32)}
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayOnPorts("uplink", coreIP)
		v := d.gets(d.home, homeIP)
		behind, beside, onUplink := d.macOf(d.access, "port3"), d.macOf(d.router, "cust0"), d.macOf(d.router, "node0")
		free := ip("198.51.100.77")
		for _, x := range []impostor{
			{name: "behind it, from an address that nobody has", at: d.neighbour, via: behind, from: from(free, 67), to: coreIP, giaddr: gatewayIP, want: unlisted},
			{name: "on an uplink", at: node, via: onUplink, from: from(nodeIP, 67), to: coreIP, giaddr: gatewayIP, want: unlisted},
			{name: "from its address", at: d.tenant, via: beside, from: from(uplinkIP, 67), to: coreIP, giaddr: gatewayIP, want: inside},
			{name: "from its other address", at: d.tenant, via: beside, from: from(gatewayIP, 67), to: coreIP, giaddr: gatewayIP, want: inside},
			{name: "of an access node", at: d.tenant, via: beside, from: from(nodeIP, 67), to: coreIP, giaddr: nodeIP, asks: true, want: inside},
		} {
			x.opt82 = circuit("port2")
			d.withstands(x, v)
		}
		// Where no relay is listed any more, the rest of the rules holds.
		opts.Relays = nil
		require.NoError(t, d.server.Reload(opts))
		for _, x := range []impostor{
			{name: "not listed: without an address", at: d.tenant, from: from(nowhere, 67), to: everybody, want: noSource},
			{name: "not listed: without an address, on an uplink", at: node, from: from(nowhere, 67), to: everybody, want: noSource},
			{name: "not listed: from its own address", at: d.neighbour, via: behind, from: from(neighbourIP, 67), to: coreIP, want: subscriber},
			{name: "not listed: from an address that nobody has", at: d.tenant, via: beside, from: from(host(77), 67), to: host(1), want: inside},
		} {
			x.giaddr, x.opt82 = gatewayIP, circuit("port2")
			d.withstands(x, v)
		}
		d.movesIn(d.home, homeIP)
	})

	t.Run("of dnsmasq", func(t *testing.T) {
		t.Parallel()
		d, _ := relaysItself(t, "xdnsmasq")
		d.bridgePorts()
		erp := erpOf(gatewayIP, homeIP, neighbourIP)
		erp.Lines[0].MAC = homeMAC
		d.serve(hostileOptions(), erp)
		d.dnsmasq()
		v := d.gets(d.home, homeIP)
		beside := d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "behind it", at: d.neighbour, via: d.macOf(d.access, "br0"), from: from(neighbourIP, 67), to: coreIP, want: subscriber},
			{name: "beside it, from the relay's address", at: d.tenant, via: beside, from: from(gatewayIP, 67), to: coreIP, want: inside},
			{name: "beside it, without an address", at: d.tenant, from: from(nowhere, 67), to: everybody, want: noSource},
		} {
			x.giaddr, x.mac = gatewayIP, homeMAC
			d.withstands(x, v)
		}
		// What it relays may be anybody's behind it, so it ends no lease on another wire.
		d.withstands(impostor{
			name: "behind it, to end a lease on another wire", at: d.neighbour, from: from(nowhere, 68), to: everybody, relay: gatewayIP, ends: true,
			want: []outcome.Outcome{outcome.DeclineUnknown, outcome.ReleaseUnknown},
		}, d.gets(d.tenant, tenantIP))
		d.movesIn(d.home, homeIP)
	})

	t.Run("of a chain of relays", func(t *testing.T) {
		t.Parallel()
		d := newChain(t, "xchain")
		d.serve(hostileOptions(), erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayChain()
		v := d.gets(d.home, homeIP)
		d.stopRelays() // the second one takes what passes by for the first one's, and sends it under its own name
		beside := d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "behind it", at: d.neighbour, via: d.macOf(d.access, "port3"), from: from(neighbourIP, 67), to: coreIP, want: subscriber},
			{name: "beside it, from the second relay's address", at: d.tenant, via: beside, from: from(uplinkIP, 67), to: coreIP, want: inside},
			{name: "beside it, without an address", at: d.tenant, from: from(nowhere, 67), to: everybody, want: noSource},
		} {
			x.giaddr, x.opt82 = gatewayIP, circuit("port2")
			d.withstands(x, v)
		}
		d.relayChain()
		d.movesIn(d.home, homeIP)
	})

	// With the second relay at work there is nothing to tell: what a customer sends past it comes from it. The
	// filter that docs/dhcp-matching.md asks for is on the first one, and lets renewals pass.
	t.Run("of the first relay, before the second", func(t *testing.T) {
		t.Parallel()
		d := newChain(t, "xfilter")
		opts := chainOptions()
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayChain()
		for _, rule := range []string{"add table ip customers", "add chain ip customers forward { type filter hook forward priority 0; }",
			"add rule ip customers forward oifname uplink udp dport 67 @th,256,32 != 0 counter drop"} {
			_, err := d.access.Output(t.Context(), "nft", rule)
			require.NoError(t, err)
		}
		v := d.gets(d.home, homeIP)
		x := impostor{at: d.neighbour, via: d.macOf(d.access, "port3"), from: from(neighbourIP, 67), to: coreIP, giaddr: gatewayIP, opt82: circuit("port2")}
		sent := x.messages(t, v)
		for _, p := range sent {
			x.send(t, p)
		}
		d.eventually("the filter has them", func() bool {
			out, err := d.access.Output(t.Context(), "nft", "list", "table", "ip", "customers")
			return err == nil && strings.Contains(out, fmt.Sprintf("counter packets %d ", len(sent)))
		})
		d.lives(d.home, homeIP)
		for _, p := range sent {
			require.Nil(t, d.all.of(p.TransactionID), "it gets no further")
		}
		d.settles(homeIP, homeMAC, 1)
	})

	t.Run("of a pair", func(t *testing.T) {
		t.Parallel()
		d := newPair(t, "xpair")
		d.ip(d.pair[0], "addr add 198.51.100.1/24 dev lan0", "addr add 203.0.113.11/24 dev core0") // it stays so here
		opts := hostileOptions()
		opts.Option82.Exact = pairOptions().Option82.Exact
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayPair()
		v := d.gets(d.home, homeIP)
		d.stopRelays() // each takes what has the other's address for a relay's, and sends it under its own name
		beside := d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "behind it, as the one", at: d.neighbour, via: d.macOf(d.pair[0], "lan0"), from: from(neighbourIP, 67), to: coreIP, giaddr: leftIP, want: subscriber},
			{name: "behind it, as the other", at: d.neighbour, via: d.macOf(d.pair[0], "lan0"), from: from(neighbourIP, 67), to: coreIP, giaddr: rightIP, want: subscriber},
			{name: "beside it, from the other's address", at: d.tenant, via: beside, from: from(rightIP, 67), to: coreIP, giaddr: rightIP, want: inside},
			{name: "beside it, without an address", at: d.tenant, from: from(nowhere, 67), to: everybody, giaddr: leftIP, want: noSource},
		} {
			x.opt82 = circuit("lan0")
			d.withstands(x, v)
		}
		d.relayPair()
		d.movesIn(d.home, homeIP)
	})

	// Nothing in IP tells a neighbour that takes the switch's own address from the switch.
	t.Run("of a switch in the customers' network", func(t *testing.T) {
		t.Parallel()
		d := newSwitched(t, "xinband")
		d.inBand()
		opts := hostileOptions()
		opts.Relays, opts.Option82Relays = []netip.Prefix{netip.PrefixFrom(switchIP, 32)}, []string{switchIP.String()}
		d.serve(opts, erpOf(switchIP, homeDirectIP, neighbourDirect))
		d.relayOnPorts("mgmt0", host(1))
		v := d.gets(d.home, homeDirectIP)
		router := d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "from its own address", at: d.neighbour, via: router, from: from(neighbourDirect, 67), to: host(1), want: subscriber},
			{name: "from an address that nobody has", at: d.neighbour, via: router, from: from(host(77), 67), to: host(1), want: inside},
			{name: "from an address far away", at: d.neighbour, via: router, from: from(uplinkIP, 67), to: host(1), want: inside},
			{name: "without an address", at: d.neighbour, via: router, from: from(nowhere, 68), to: everybody, want: noSource}, // the switch takes only broadcast frames for itself
		} {
			x.giaddr, x.opt82 = switchIP, circuit("port2")
			d.withstands(x, v)
		}
		d.movesIn(d.home, homeDirectIP)
	})

	t.Run("of an access node", func(t *testing.T) {
		t.Parallel()
		d, _ := relaysItself(t, "xnode")
		d.node()
		opts := hostileOptions()
		opts.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(nodeIP, 30).Masked()}
		d.serve(opts, erpOf(gatewayIP, homeIP, neighbourIP))
		d.relayOnPorts("uplink", coreIP)
		v := d.gets(d.home, homeIP)
		d.stopRelays() // it takes what has the node's address for a relay's, and sends it under its own name
		beside := d.macOf(d.router, "cust0")
		for _, x := range []impostor{
			{name: "behind a relay", at: d.neighbour, via: d.macOf(d.access, "port3"), from: from(neighbourIP, 67), to: coreIP, want: subscriber},
			{name: "from the node's address", at: d.tenant, via: beside, from: from(nodeIP, 67), to: coreIP, want: inside},
			{name: "without an address", at: d.tenant, from: from(nowhere, 67), to: everybody, want: noSource},
		} {
			x.giaddr, x.asks = nodeIP, true
			d.withstands(x, v)
		}
		d.relayOnPorts("uplink", coreIP)
		d.movesIn(d.home, homeIP)
	})

	// The switch forwards what it is given, and nobody said that it does better.
	t.Run("of a switch that snoops", func(t *testing.T) {
		t.Parallel()
		d := newSwitched(t, "xsnoop")
		(&accessSwitch{uplink: "uplink"}).run(t, d.access, "port2", "port3")
		erp := erpOf(netip.Addr{}, homeDirectIP, neighbourDirect)
		erp.Lines[0].MAC = homeMAC
		d.serve(hostileOptions(), erp)
		v := d.gets(d.home, homeDirectIP)
		router := d.macOf(d.router, "cust0")
		strange := []outcome.Outcome{outcome.Option82Untrusted, outcome.SaysLess, outcome.NakOtherClient}
		for _, x := range []impostor{
			{name: "without a relay's address", at: d.neighbour, from: from(nowhere, 68), to: everybody, want: strange},
			{name: "without a relay's address, from its own address", at: d.neighbour, via: router, from: from(neighbourDirect, 68), to: host(1), want: strange},
			{name: "with a relay's address", at: d.neighbour, via: router, from: from(neighbourDirect, 67), to: host(1), giaddr: gatewayIP, want: subscriber},
		} {
			x.opt82 = string(port(switch1, 2))
			d.withstands(x, v)
		}
		d.movesIn(d.home, homeDirectIP)
	})
}

// otherIP and those that follow are another switch that relays, and its customer.
var (
	otherIP, otherOut = ip("198.51.101.1"), ip("203.0.114.11")
	otherMAC          = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf7}

	victimIP, victimMAC = ip("198.51.101.51"), client(0x51)
)

// otherSwitch adds a switch that relays and inserts option 82, with a customer on its port.
func (d *district) otherSwitch(opts *Options, erp *provision.Input) (victimAt *lab.Host) {
	d.t.Helper()
	other := d.host("other")
	at := d.household("victim", victimMAC, other, "vport")
	d.wire(other, "uplink", d.router, "core1")
	d.ip(other, "addr add 198.51.101.1/24 dev vport", "addr add 203.0.114.11/24 dev uplink", "route add default via 203.0.114.5")
	d.ip(d.router, "addr add 203.0.114.5/24 dev core1", "route add 198.51.101.0/24 via 203.0.114.11")
	d.relay(other, "-a", "-id", "vport", "-iu", "uplink", coreIP.String())
	erp.Devices = append(erp.Devices, provision.Device{ID: 7, Name: "other", MAC: otherMAC, IP: otherIP})
	erp.Lines = append(erp.Lines, provision.Line{Subscriber: 5, Addresses: provision.Hosts4(victimIP), Device: 7, Port: 1, PortName: "vport"})
	opts.Relays = append(opts.Relays, netip.PrefixFrom(otherIP, 32), netip.PrefixFrom(otherOut, 32))
	opts.Option82Relays = []string{otherIP.String(), otherOut.String()}
	opts.Subnets = append(opts.Subnets, v4.Subnet{Prefix: netip.PrefixFrom(otherIP, 24).Masked(), Gateway: otherIP, LeaseTime: 10 * time.Minute})
	return at
}

// A customer behind a relay that inserts no option 82 writes that of a customer of another switch, which relays, too. The relay passes it on as it is.
func TestKernelClientsOfARelayThatInsertsNothing(t *testing.T) {
	labtest.Need(t, "dhclient", "dhcrelay", "dnsmasq")
	for _, tc := range []struct {
		name  string
		start func(d *district)
		sends netip.Addr // what it sends from
	}{
		{"dnsmasq", (*district).dnsmasq, gatewayIP},
		{"dhcrelay", func(d *district) { d.relay(d.access, "-id", "br0", "-iu", "uplink", coreIP.String()) }, uplinkIP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d, opts := relaysItself(t, "plain"+tc.name)
			d.bridgePorts() // without option 82 the relay knows its customers' wire by its own address alone
			erp := erpOf(gatewayIP, homeIP, neighbourIP)
			erp.Lines[0].MAC = homeMAC
			victimAt := d.otherSwitch(&opts, &erp)
			d.serve(opts, erp)
			v := d.gets(victimAt, victimIP)
			require.Len(t, d.erp.written(), 1, "its MAC was learnt by its port")
			tc.start(d)

			written := string(append([]byte{1, 5, 'v', 'p', 'o', 'r', 't', 2, 6}, otherMAC[:]...))
			x := impostor{at: d.neighbour, from: from(nowhere, 68), to: everybody, relay: gatewayIP, sends: tc.sends, opt82: written}
			x.name, x.want = "with its option 82", []outcome.Outcome{outcome.Option82Untrusted, outcome.NakNotBound, outcome.NakOtherClient}
			d.withstands(x, v)
			x.name, x.ends, x.want = "with its option 82 and its MAC, to end its lease", true, []outcome.Outcome{outcome.DeclineUnknown, outcome.ReleaseUnknown}
			d.withstands(x, v)
			x.name, x.ends, x.giaddr, x.want = "with its relay's address, too", false, otherIP, []outcome.Outcome{outcome.RelaySource}
			d.withstands(x, v)
			x.name, x.opt82 = "with its relay's address alone", ""
			d.withstands(x, v)

			rec, known := d.leases.Get(victimIP)
			require.True(t, known)
			require.Equal(t, victimMAC, rec.MAC)
			d.movesIn(victimAt, victimIP) // its own router, through its own relay

			// Who behaves is found by MAC, behind the same relay.
			d.movesIn(d.home, homeIP)
			d.sees("the home's packets", func(e Event) bool {
				return e.Outcome == outcome.Ack && e.GIAddr == gatewayIP && len(e.Option82) == 0 && e.YourIP == homeIP
			})
			st := d.server.Senders()
			i := slices.IndexFunc(st.Relays, func(s senders.Sender) bool { return s.GIAddr == gatewayIP })
			require.GreaterOrEqual(t, i, 0)
			require.Equal(t, v4.InfoUntrusted, st.Relays[i].Option82)
			require.Positive(t, st.Relays[i].With)
			require.Positive(t, st.Relays[i].Without)
			require.Positive(t, st.Mixed)
			for _, e := range d.erp.written() {
				require.NotEqual(t, stranger, e.MAC)
			}
		})
	}
}
