package v4

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// The networks of these tests: A and B, each with its relay and its gateway, and a management network in none of them.
var (
	inA, inB = ip("198.51.100.30"), ip("203.0.113.30")
	gwA, gwB = ip("198.51.100.1"), ip("203.0.113.1")
	mover    = provision.MAC{2, 0, 0, 0, 0, 0x30} // has an address in each
	settled  = provision.MAC{2, 0, 0, 0, 0, 0x31} // in A alone
)

func netOptions() Options {
	return Options{
		Authoritative: true,
		Subnets: []Subnet{
			{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: gwA, LeaseTime: time.Hour},
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Gateway: gwB, LeaseTime: time.Hour},
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: host(1), LeaseTime: time.Hour},
		},
	}
}

func netWorld(t testing.TB) *provision.Snapshot {
	t.Helper()
	in := provision.Input{
		Devices: []provision.Device{{ID: 1, Name: "sw1", MAC: switch1, IP: ip("10.0.0.11")}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(inA), MAC: mover},
			{Subscriber: 1, Addresses: provision.Hosts4(inB), MAC: mover},
			{Subscriber: 2, Addresses: provision.Hosts4(ip("198.51.100.31")), MAC: settled},
			{Subscriber: 3, Addresses: provision.Hosts4(ip("198.51.100.41")), Device: 1, Port: 4},
			{Subscriber: 4, Addresses: provision.Hosts4(ip("198.51.100.51"), ip("203.0.113.51")), Device: 1, Port: 5},
			{Subscriber: 5, Addresses: provision.Hosts4(ip("198.51.100.61")), MAC: client(0x61)},
			{Subscriber: 5, Addresses: provision.Hosts4(ip("203.0.113.61")), MAC: client(0x61)},
			{Subscriber: 5, Addresses: provision.Hosts4(host(61)), MAC: client(0x61)},
		},
	}
	snap, _ := provision.Build(in)
	require.Equal(t, 9, snap.Len())
	return snap
}

// golden makes a packet of the first 44 bytes of its header and its options, both in hexadecimal.
func golden(t testing.TB, header, opts string) []byte {
	t.Helper()
	b, err := hex.DecodeString(header + strings.Repeat("00", 64+128) + "63825363" + opts)
	require.NoError(t, err)
	require.Len(t, b[:44], len(header)/2)
	return append(b, make([]byte, max(0, 300-len(b)))...)
}

// decideNet decides about the bytes of a packet.
func decideNet(t testing.TB, raw []byte, tab *lease.Table, change ...func(*Request, *Options)) (*Request, Decision) {
	t.Helper()
	r := &Request{Ifindex: 3, Served: true, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
	opts := netOptions()
	for _, f := range change {
		f(r, &opts)
	}
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r.P.Read(raw)
	require.NoError(t, r.P.Err)
	r.P.Ingress = cfg.line.Ingress(r.P.Ingress.Name)
	r.Networks = cfg.NetworksOf(r.On, r.HostRoutes)
	if r.On == nil { // else it was a broadcast
		r.Local = serverIP
	}
	if tab == nil {
		tab = lease.New()
	}
	return r, decideAt(testNow, r, netWorld(t), tab, nil, cfg)
}

// A client with an address in each of two networks, behind the relay of the second one, byte by byte.
func TestGoldenNetworks(t *testing.T) {
	const (
		relayed = "010106001758c71e00000000000000000000000000000000cb00710102000000003000000000000000000000"
		rebinds = "010106001758c71e00000000c633641e0000000000000000cb00710102000000003000000000000000000000" // ciaddr 198.51.100.30
		renews  = "010106001758c71e00000000c633641e00000000000000000000000002000000003000000000000000000000" // past the relay
		wishes  = "3204c633641e"                                                                             // option 50: 198.51.100.30
		asks    = "370201033204c633641eff"
	)
	inOther := leases(with(bound(inA, mover, 1), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = gwA, 3, "eth0" }))
	wrongly := leases(with(bound(inA, mover, 1), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = gwB, 3, "eth0" }))
	from := func(a netip.Addr) func(*Request, *Options) {
		return func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(a, 68) }
	}
	const toB = " by relay to 203.0.113.1:67"
	for _, tc := range []struct {
		name, header, opts string
		tab                *lease.Table
		change             func(*Request, *Options)
		want               string
		gateway            netip.Addr // told; invalid: none
	}{
		{"DISCOVER that wishes the other network's", relayed, "350101" + asks, nil, nil, "offer 203.0.113.30" + toB, gwB},
		{"plain DISCOVER after a lease there", relayed, "350101370201" + "03ff", inOther, nil, "offer 203.0.113.30" + toB, gwB},
		{"plain DISCOVER after a lease of it here", relayed, "350101370201" + "03ff", wrongly, nil, "offer 203.0.113.30" + toB, gwB},
		{"DISCOVER that wishes it, after a lease there", relayed, "350101" + asks, inOther, nil, "offer 203.0.113.30" + toB, gwB},
		{"SELECTING of it", relayed, "350103" + "3604c00002fe" + asks, nil, nil, "nak_wrong_address 203.0.113.30" + toB, netip.Addr{}},
		{"SELECTING of the one here", relayed, "350103" + "3604c00002fe" + "370201033204cb00711eff", inOther, nil, "ack 203.0.113.30" + toB + " fact", gwB},
		{"INIT-REBOOT for it", relayed, "350103" + asks, nil, nil, "nak_wrong_address 203.0.113.30" + toB, netip.Addr{}},
		{"INIT-REBOOT for it, with a lease there", relayed, "350103" + asks, inOther, nil, "nak_wrong_address 203.0.113.30" + toB, netip.Addr{}},
		{"INIT-REBOOT for it, not authoritative", relayed, "350103" + asks, nil, func(_ *Request, o *Options) { o.Authoritative = false }, "not_authoritative", netip.Addr{}},
		{"REBINDING through the relay", rebinds, "35010337020103ff", inOther, nil, "nak_wrong_address 203.0.113.30" + toB, netip.Addr{}},
		{"REBINDING of what was given here", rebinds, "35010337020103ff", wrongly, nil, "nak_wrong_address 203.0.113.30" + toB, netip.Addr{}},
		{"RENEWING past the relay tells no network", renews, "35010337020103ff", inOther, func(r *Request, o *Options) {
			from(inA)(r, o)
			r.On, r.Local = &provision.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.254/24")}}, ip("203.0.113.254")
		}, "ack 198.51.100.30 by unicast to 198.51.100.30:68 renew", gwA},
		{"RENEWING on the wire of the interface", renews, "35010337020103ff", nil, func(r *Request, o *Options) {
			from(netip.IPv4Unspecified())(r, o)
			r.On, r.Local = &provision.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("203.0.113.254/24")}}, ip("203.0.113.254")
		}, "nak_wrong_address 203.0.113.30 by broadcast", netip.Addr{}},
		{"the other way round, where the relay is the other's", strings.Replace(relayed, "cb007101", "c6336401", 1), "350101" + "3204cb00711eff", nil, nil, "offer 198.51.100.30 by relay to 198.51.100.1:67", gwA},
		{"the wish decides where both share a wire", relayed, "350101" + asks, nil, func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Name: "street", Prefixes: prefixes("198.51.100.0/24", "203.0.113.0/24")}}
		}, "offer 198.51.100.30" + toB, gwA},
		{"the relay's own decides there without one", relayed, "35010137020103ff", nil, func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Name: "street", Prefixes: prefixes("198.51.100.0/24", "203.0.113.0/24")}}
		}, "offer 203.0.113.30" + toB, gwB},
		{"INIT-REBOOT where both share a wire", relayed, "350103" + wishes + "ff", nil, func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("198.51.100.0/24", "203.0.113.0/24")}}
		}, "ack 198.51.100.30" + toB + " fact", gwA},
		{"a relay of a management network tells none", strings.Replace(relayed, "cb007101", "0a000001", 1), "350101" + asks, nil, nil, "offer 198.51.100.30 by relay to 10.0.0.1:67", gwA},
		{"link selection before giaddr", relayed, "350101" + wishes + "5206" + "0504c6336405" + "ff", nil, nil, "offer 198.51.100.30" + toB, gwA},
		{"link selection that is in no served network", relayed, "350101" + wishes + "5206" + "05040a000005" + "ff", nil, nil, "offer 198.51.100.30" + toB, gwA},
	} {
		t.Run(tc.name, func(t *testing.T) {
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			r, d := decideNet(t, golden(t, tc.header, tc.opts), tc.tab, change)
			assert.Equal(t, tc.want, told(d))
			assert.Zero(t, d.Evidence.OtherNetwork)
			if d.Reply.Type == 0 {
				return
			}
			lib, err := dhcpv4.FromBytes(d.AppendReply(nil, &r.P.Packet))
			require.NoError(t, err)
			assert.Equal(t, "1758c71e", hex.EncodeToString(lib.TransactionID[:]))
			if !tc.gateway.IsValid() {
				assert.Equal(t, dhcpv4.MessageTypeNak, lib.MessageType())
				return
			}
			require.Len(t, lib.Router(), 1)
			assert.Equal(t, tc.gateway.String(), lib.Router()[0].String())
		})
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// By MAC alone nothing is given in a network where it is of no use; on a line that somebody vouches for it is, and told.
func TestOtherNetwork(t *testing.T) {
	const (
		plain = "350101ff"
		head  = "010106001758c71e00000000000000000000000000000000cb007101"
	)
	of := func(mac provision.MAC) string { return head + hex.EncodeToString(mac[:]) + "00000000000000000000" }
	lined := func(n byte) string {
		o := port(switch1, n)
		return "52" + hex.EncodeToString(append([]byte{byte(len(o))}, o...)) + "ff"
	}
	here := bound(ip("203.0.113.51"), client(0x52), 4)
	both := OtherNetwork{Client: netip.MustParsePrefix("203.0.113.0/24"), Address: netip.MustParsePrefix("198.51.100.0/24")}
	const toB = " by relay to 203.0.113.1:67"
	for _, tc := range []struct {
		name, header, opts string
		tab                *lease.Table
		change             func(*Request, *Options)
		want               string
		other              OtherNetwork
	}{
		{"by MAC", of(settled), plain, nil, nil, "wrong_network", both},
		{"by MAC, whatever it wishes", of(settled), "3501013204c633641fff", nil, nil, "wrong_network", both},
		{"an offer of it", of(settled), "3501033604c00002fe3204c633641fff", nil, nil, "nak_wrong_network" + toB, both},
		{"after a restart", of(settled), "3501033204c633641fff", nil, nil, "nak_wrong_network" + toB, both},
		{"after a restart, not authoritative", of(settled), "3501033204c633641fff", nil, func(_ *Request, o *Options) { o.Authoritative = false }, "not_authoritative", both},
		{"where the networks share a wire", of(settled), plain, nil, func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("203.0.113.0/24", "192.0.2.0/24")}, {Prefixes: prefixes("198.51.100.0/24")}}
		}, "wrong_network", both},
		{"on its line", of(stranger), "350101" + lined(4), nil, nil, "offer 198.51.100.41" + toB, both},
		{"on its line, where the networks share a wire", of(stranger), "350101" + lined(4), nil, func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("203.0.113.0/24", "198.51.100.0/24")}}
		}, "offer 198.51.100.41" + toB, OtherNetwork{}},
		{"on a line with one in each", of(stranger), "350101" + "3204c6336433" + lined(5), nil, nil, "offer 203.0.113.51" + toB, OtherNetwork{}},
		{"on that line, and its old router has the one here", of(stranger), "350101" + lined(5), leases(here), nil, "offer 203.0.113.51" + toB, OtherNetwork{}},
		{"there, a REQUEST of it", of(stranger), "3501033604c00002fe3204cb007133" + lined(5), leases(here), nil, "ack 203.0.113.51" + toB + " fact report", OtherNetwork{}},
		{"there, an old router that has just come", of(stranger), "350101" + lined(5),
			leases(with(here, func(r *lease.Record) { r.Prior, r.Start = client(0x53), testNow.Add(-time.Minute) })), nil, "takeover_damped 203.0.113.51", OtherNetwork{}},
		{"there, a client that has the other one", of(stranger), "350101" + lined(5), leases(here, bound(ip("198.51.100.51"), stranger, 4)), nil, "port_full", OtherNetwork{}},
		{"there, both of one network, and somebody has one", of(stranger), "350101" + lined(5), leases(here), func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("203.0.113.0/24", "198.51.100.0/24")}}
		}, "offer 198.51.100.51" + toB, OtherNetwork{}},
		{"there, and somebody has both", of(stranger), "350101" + lined(5), leases(here, bound(ip("198.51.100.51"), client(0x54), 4)), func(_ *Request, o *Options) {
			o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("203.0.113.0/24", "198.51.100.0/24")}}
		}, "port_full", OtherNetwork{}},
		{"by MAC, and somebody has the one here", of(mover), "350101" + lined(99), leases(bound(inB, stranger, 1)), nil, "port_full", OtherNetwork{}},
		{"after a restart, and somebody has the one here", of(mover), "3501033204c633641eff", leases(bound(inB, stranger, 1)), nil, "port_full", OtherNetwork{}},
		{"held here on a line that this packet does not tell", of(settled), plain,
			leases(with(bound(ip("198.51.100.31"), settled, 2), func(r *lease.Record) { r.GIAddr, r.Interface, r.Option82 = gwB, "eth0", port(switch1, 9) })),
			nil, "offer 198.51.100.31" + toB, both},
		{"an unread line", of(settled), "3501015203090107ff", nil, nil, "wrong_network", both},
		{"an address that is in no served network", of(settled), plain, nil, func(_ *Request, o *Options) { o.Subnets = o.Subnets[1:] }, "no_subnet 198.51.100.31", OtherNetwork{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			_, d := decideNet(t, golden(t, tc.header, tc.opts), tc.tab, change)
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, tc.other, d.Evidence.OtherNetwork)
			if d.Outcome == outcome.WrongNetwork {
				assert.Equal(t, "discover_network", d.Evidence.Rule.String())
			}
		})
	}
}

// An interface tells the networks that it has an address of, all of them; unnumbered, or with host routes, it tells none.
func TestNetworksOfInterfaces(t *testing.T) {
	const (
		head  = "010106001758c71e00000000000000000000000000000000000000000000" // no relay
		plain = "350101ff"
	)
	three := client(0x61) // has an address in each of the three networks
	of := func(mac provision.MAC) string { return head[:56] + hex.EncodeToString(mac[:]) + "00000000000000000000" }
	wish := func(a string) string { four := ip(a).As4(); return "3501013204" + hex.EncodeToString(four[:]) + "ff" }
	shared := func(_ *Request, o *Options) {
		o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("192.0.2.0/24", "203.0.113.0/24")}}
	}
	for _, tc := range []struct {
		name   string
		addrs  []string
		opts   string
		change func(*Request, *Options)
		want   string
	}{
		{"one network", []string{"203.0.113.1/24"}, wish("198.51.100.61"), nil, "offer 203.0.113.61 by frame"},
		{"two networks, and the wish", []string{"203.0.113.1/24", "198.51.100.1/24"}, wish("198.51.100.61"), nil, "offer 198.51.100.61 by frame"},
		{"two networks, and a wish for neither", []string{"203.0.113.1/24", "198.51.100.1/24"}, wish("192.0.2.61"), nil, "offer 203.0.113.61 by frame"},
		{"one that shares its wire", []string{"203.0.113.1/24"}, wish("192.0.2.61"), shared, "offer 192.0.2.61 by frame"},
		{"one that shares its wire, and a third", []string{"203.0.113.1/24"}, wish("198.51.100.61"), shared, "offer 203.0.113.61 by frame"},
		{"unnumbered: a /32", []string{"203.0.113.1/32"}, wish("198.51.100.61"), nil, "offer 198.51.100.61 by frame"},
		{"a /32 beside a network", []string{"203.0.113.1/24", "192.0.2.1/32"}, wish("198.51.100.61"), nil, "offer 198.51.100.61 by frame"},
		{"a /32 within the network, as of VRRP", []string{"203.0.113.2/24", "203.0.113.1/32"}, wish("198.51.100.61"), nil, "offer 203.0.113.61 by frame"},
		{"a /32 of no served network", []string{"203.0.113.2/24", "10.0.0.1/32"}, wish("198.51.100.61"), nil, "offer 203.0.113.61 by frame"},
		{"host routes", []string{"203.0.113.1/24"}, wish("198.51.100.61"), func(r *Request, _ *Options) { r.HostRoutes = true }, "offer 198.51.100.61 by frame"},
		{"no address", nil, wish("198.51.100.61"), nil, "offer 198.51.100.61 by frame"},
		{"an address of no served network", []string{"10.0.0.1/24"}, wish("198.51.100.61"), nil, "offer 198.51.100.61 by frame"},
		{"a wider network than the served one", []string{"203.0.113.1/20"}, wish("198.51.100.61"), nil, "offer 203.0.113.61 by frame"},
		{"a narrower one", []string{"203.0.113.1/28"}, wish("198.51.100.61"), nil, "offer 203.0.113.61 by frame"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			_, d := decideNet(t, golden(t, of(three), tc.opts), nil, change, func(r *Request, _ *Options) {
				r.On = &provision.Interface{Name: "eth0", Addrs: prefixes(tc.addrs...)}
			})
			assert.Equal(t, tc.want, told(d))
		})
	}
	t.Run("none of its networks", func(t *testing.T) {
		_, d := decideNet(t, golden(t, of(settled), plain), nil, func(r *Request, _ *Options) {
			r.On = &provision.Interface{Name: "eth0", Addrs: prefixes("203.0.113.1/24")}
		})
		assert.Equal(t, "wrong_network", told(d))
		assert.Equal(t, OtherNetwork{Client: netip.MustParsePrefix("203.0.113.0/24"), Address: netip.MustParsePrefix("198.51.100.0/24")}, d.Evidence.OtherNetwork)
	})
}

func TestSharedNetworksRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		shared []SharedNetwork
		want   string
	}{
		"not served":  {[]SharedNetwork{{Name: "street", Prefixes: prefixes("198.51.100.0/24", "10.0.0.0/8")}}, "shared network street: 10.0.0.0/8 is none of the subnets"},
		"part of one": {[]SharedNetwork{{Prefixes: prefixes("198.51.100.0/25")}}, "shared network [198.51.100.0/25]: 198.51.100.0/25 is none of the subnets"},
		"twice":       {[]SharedNetwork{{Name: "street", Prefixes: prefixes("198.51.100.0/24", "198.51.100.0/24")}}, "198.51.100.0/24 is given twice"},
		"in two":      {[]SharedNetwork{{Name: "a", Prefixes: prefixes("198.51.100.0/24")}, {Name: "b", Prefixes: prefixes("198.51.100.0/24")}}, "shared network b: 198.51.100.0/24 is in a already"},
		"empty":       {[]SharedNetwork{{Name: "a"}}, "shared network a: no prefixes"},
	} {
		o := netOptions()
		o.SharedNetworks = tc.shared
		_, err := Compile(o)
		assert.ErrorContains(t, err, tc.want, name)
	}
}

// Who is in which network costs no allocation.
func TestNetworksAllocateNothing(t *testing.T) {
	cfg, err := Compile(netOptions())
	require.NoError(t, err)
	snap, tab := netWorld(t), leases(with(bound(inB, mover, 1), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = gwB, 3, "eth0" }))
	r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: cfg.line.Ingress("eth0")}}
	r.P.Read(golden(t, "010106001758c71e00000000cb00711e0000000000000000cb00710102000000003000000000000000000000", "35010337020103ff"))
	var d Decision
	assert.Zero(t, testing.AllocsPerRun(100, func() { decideInto(&d, testNow, r, snap, tab, nil, cfg) }))
	assert.Equal(t, "ack 203.0.113.30 by relay to 203.0.113.1:67 renew", told(d))
	r.P.Read(golden(t, "010106001758c71e00000000000000000000000000000000000000000200000000300000000000000000"+"0000", "350101ff"))
	r.On = &provision.Interface{Name: "eth0", Addrs: prefixes("203.0.113.1/24")}
	r.Networks = cfg.NetworksOf(r.On, false)
	assert.Zero(t, testing.AllocsPerRun(100, func() { decideInto(&d, testNow, r, snap, tab, nil, cfg) }))
	assert.Equal(t, "offer 203.0.113.30 by frame", told(d))
}

// An address of another network of the guest's own wire is no wrong one: silence, not a NAK, if nothing is known of it.
func TestGuestsRebootOnAWireOfTwoNetworks(t *testing.T) {
	ask := func(a string) wire.Query {
		return wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{requested(ip(a))}}
	}
	on := func(addrs ...string) func(*Request, *Options) {
		return func(r *Request, _ *Options) {
			r.On, r.Local = &provision.Interface{Name: "eth0", Addrs: prefixes(addrs...)}, netip.Addr{}
		}
	}
	shared := func(_ *Request, o *Options) {
		o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("192.0.2.0/24", "203.0.113.0/24")}}
	}
	one, two := on("192.0.2.254/24"), on("192.0.2.254/24", "203.0.113.254/24")
	assert.Equal(t, "nak_not_bound by broadcast", told(run(t, ask("203.0.113.77"), nil, withGuests, one)))
	assert.Equal(t, "init_reboot_unknown", told(run(t, ask("203.0.113.77"), nil, withGuests, two)))
	assert.Equal(t, "init_reboot_unknown", told(run(t, ask("203.0.113.77"), nil, withGuests, one, shared)))
	assert.Equal(t, "nak_not_bound by broadcast", told(run(t, ask("10.0.0.77"), nil, withGuests, two)))
	assert.Equal(t, outcome.PoolOffer, run(t, wire.Query{Type: wire.Discover, MAC: stranger}, nil, withGuests, two).Outcome, "pools go by their own network")
}

// Relays with addresses of two networks on one wire are one place, and a row without a MAC learns it there.
func TestSharedNetworksAreOneWire(t *testing.T) {
	shared := func(_ *Request, o *Options) {
		o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("192.0.2.0/24", "203.0.113.0/24")}}
	}
	rec := with(bound(host(11), client(0x11), 1), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = host(1), 3, "eth0" })
	q := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: ip("203.0.113.1")}
	assert.Equal(t, "mac_elsewhere 192.0.2.11", told(run(t, q, leases(rec))), "another relay")
	assert.Equal(t, "ack 192.0.2.11 by relay to 203.0.113.1:67 fact", told(run(t, q, leases(rec), shared)), "the same wire")
	learns := wire.Query{Type: wire.Request, MAC: stranger, GIAddr: ip("203.0.113.1"), Options: []wire.Option{clientID([]byte("cpe")...), requested(host(21))}}
	byID := func(_ *Request, o *Options) {
		o.Match, o.ClientIDs = []MatchKind{MatchClientID}, []ClientID{{Text: "cpe", IP: host(21)}}
	}
	assert.Equal(t, "nak_wrong_network by relay to 203.0.113.1:67", told(run(t, learns, nil, byID)))
	assert.Equal(t, "ack 192.0.2.21 by relay to 203.0.113.1:67 fact report", told(run(t, learns, nil, byID, shared)))
}

// A subnet within another one is a range of it with settings of its own, if both have one gateway: the relay may be in either.
func TestNestedSubnetsAreOneNetwork(t *testing.T) {
	snap, _ := provision.Build(provision.Input{Lines: []provision.Line{
		{Subscriber: 1, Addresses: provision.Hosts4(ip("10.0.0.20")), MAC: mover},
		{Subscriber: 2, Addresses: provision.Hosts4(ip("10.0.0.200")), MAC: settled},
	}})
	subnets := func(inner, outer netip.Addr) func(*Request, *Options) {
		return func(_ *Request, o *Options) {
			o.Relays = nil
			o.Subnets = []Subnet{
				{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: outer, LeaseTime: time.Hour},
				{Prefix: netip.MustParsePrefix("10.0.0.128/25"), Gateway: inner, LeaseTime: 2 * time.Hour},
				{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: ip("10.0.1.1"), LeaseTime: time.Hour},
			}
		}
	}
	one, two := subnets(ip("10.0.0.1"), ip("10.0.0.1")), subnets(ip("10.0.0.129"), ip("10.0.0.1"))
	ask := func(relay string, mac provision.MAC, change func(*Request, *Options)) string {
		return told(decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: mac, GIAddr: ip(relay)}, lease.New(), change))
	}
	for _, relay := range []string{"10.0.0.1", "10.0.0.130"} {
		assert.Equal(t, "offer 10.0.0.20 by relay to "+relay+":67", ask(relay, mover, one))
		assert.Equal(t, "offer 10.0.0.200 by relay to "+relay+":67", ask(relay, settled, one))
	}
	assert.Equal(t, "wrong_network", ask("10.0.1.1", mover, one))
	assert.Equal(t, "wrong_network", ask("10.0.0.1", settled, two), "another gateway is another network")
	assert.Equal(t, "wrong_network", ask("10.0.0.130", mover, two))
	cfg, err := Compile(func() Options {
		o := testOptions()
		one(nil, &o)
		o.SharedNetworks = []SharedNetwork{{Prefixes: prefixes("10.0.0.128/25", "10.0.1.0/24")}}
		return o
	}())
	require.NoError(t, err)
	assert.True(t, cfg.oneWire(ip("10.0.0.20"), ip("10.0.1.20")), "what is joined to one is joined to both")
}
