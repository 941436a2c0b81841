package dhcpd

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

var (
	testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

	relayIP  = ip("198.51.100.1")
	serverIP = ip("192.0.2.254")
	switch1  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf1}
	switch2  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf2}
	stranger = client(0x99)
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// host returns 192.0.2.n.
func host(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func client(n byte) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, n} }

// world is the ERP's data of these tests: two switches, customers on ports and without.
func world(t testing.TB) *provision.Snapshot {
	t.Helper()
	in := provision.Input{
		Devices: []provision.Device{
			{ID: 1, Name: "sw1", Model: "Cisco Catalyst 2960-24TT", MAC: switch1, IP: ip("198.51.100.11")},
			{ID: 2, Name: "sw2", MAC: switch2, IP: ip("198.51.100.12")},
		},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), Device: 1, Port: 1},
			{Subscriber: 2, Addresses: provision.Hosts4(host(21)), Device: 1, Port: 2},
			{Subscriber: 3, Addresses: provision.Hosts4(host(31)), MAC: client(0x31), Device: 1, Port: 3},
			{Subscriber: 3, Addresses: provision.Hosts4(host(32)), Device: 1, Port: 3},
			{Subscriber: 3, Addresses: provision.Hosts4(host(33)), Device: 1, Port: 3},
			{Subscriber: 4, Addresses: provision.Hosts4(host(41)), MAC: client(0x41), Device: 1, Port: 4},
			{Subscriber: 5, Addresses: provision.Hosts4(host(42)), MAC: client(0x42), Device: 1, Port: 4},
			{Subscriber: 6, Addresses: provision.Hosts4(ip("100.64.9.9")), MAC: client(0x61), Device: 1, Port: 6},
			{Subscriber: 7, Addresses: provision.Hosts4(host(71)), MAC: client(0x71), Device: 2, PortName: "ge-0/0/5"},
			{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: client(0x81)},
			{Subscriber: 8, Addresses: provision.Hosts4(ip("203.0.113.81")), MAC: client(0x81)},
		},
	}
	for id := provision.SubscriberID(1); id <= 8; id++ {
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StateActive})
	}
	snap, problems := provision.Build(in)
	for _, p := range problems {
		require.Equal(t, provision.ProblemPortConflict, p.Kind, "%+v", p)
	}
	require.Equal(t, len(in.Lines), snap.Len())
	return snap
}

func testOptions() Options {
	return Options{Listen: netip.MustParseAddrPort("0.0.0.0:67"), Options: v4.Options{
		Authoritative: true,
		Options:       line.Options{Relays: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24")}, Option82Relays: []string{line.EveryRelay}},
		Subnets: []v4.Subnet{
			{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: host(1), LeaseTime: time.Hour,
				OptionSet: options.OptionSet{DNS: []netip.Addr{host(3)}, Domain: "example.net"},
			},
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), LeaseTime: 2 * time.Hour},
		},
	}}
}

// port returns option 82 of a port as switch sw inserts it: family A with the MAC of the switch.
func port(sw provision.MAC, n byte) []byte {
	return append([]byte{1, 6, 0, 4, 0, 100, 0, n, 2, 8, 0, 6}, sw[:]...)
}

// named returns option 82 with a text circuit-id, and a remote-id if there is one.
func named(name string, remote ...byte) []byte {
	b := append([]byte{1, byte(len(name))}, name...)
	if len(remote) > 0 {
		b = append(append(b, 2, byte(len(remote))), remote...)
	}
	return b
}

// leases makes a table of bound leases.
func leases(recs ...lease.Record) *lease.Table {
	t := lease.New()
	for _, r := range recs {
		t.Store(r)
	}
	return t
}

func bound(a netip.Addr, mac provision.MAC, sub provision.SubscriberID) lease.Record {
	return lease.Record{
		IP: a, MAC: mac, Subscriber: sub, State: lease.StateBound,
		Start: testNow.Add(-time.Hour), Renewed: testNow.Add(-time.Minute), Expires: testNow.Add(time.Minute),
	}
}

func addrOption(code uint8, a netip.Addr) wire.Option {
	return wire.Option{Code: code, Value: a.AsSlice()}
}

func requested(a netip.Addr) wire.Option { return addrOption(wire.OptRequestedIP, a) }
func chosen(a netip.Addr) wire.Option    { return addrOption(wire.OptServerID, a) }

// vlanWorld has customers by VLAN, on two ports and by MAC alone.
func vlanWorld(t testing.TB) *provision.Snapshot {
	t.Helper()
	snap, _ := provision.Build(provision.Input{
		Devices: []provision.Device{{ID: 1, Name: "sw1", MAC: switch1, IP: ip("198.51.100.11")}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), Device: 1, Port: 1, VLAN: 101},
			{Subscriber: 1, Addresses: provision.Hosts4(host(12)), Device: 1, Port: 1, VLAN: 102},
			{Subscriber: 2, Addresses: provision.Hosts4(host(21)), VLAN: 200},
			{Subscriber: 3, Addresses: provision.Hosts4(host(31)), MAC: client(0x31), VLAN: 300},
			{Subscriber: 4, Addresses: provision.Hosts4(host(41)), MAC: client(0x41), VLAN: 300},
			{Subscriber: 5, Addresses: provision.Hosts4(host(51)), MAC: client(0x51), Device: 1, Port: 2},
			{Subscriber: 5, Addresses: provision.Hosts4(host(52)), Device: 1, Port: 2},
			{Subscriber: 5, Addresses: provision.Hosts4(host(53)), Device: 1, Port: 2},
		},
	})
	require.Equal(t, 8, snap.Len())
	return snap
}

func clientID(b ...byte) wire.Option { return wire.Option{Code: wire.OptClientID, Value: b} }

// ready returns a ready profile.
func ready(t testing.TB, name string) option82.Profile {
	t.Helper()
	p, ok := option82.Find(name)
	require.True(t, ok, name)
	return p
}

// vacants has customers without an address, beside those of world.
func vacants(t testing.TB, more ...provision.Line) *provision.Snapshot {
	t.Helper()
	in := provision.Input{
		KeepVacant: true,
		Devices:    world(t).Devices(),
		Lines: append([]provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), Device: 1, Port: 1},
			{Subscriber: 20, Device: 1, Port: 20},                                               // a port
			{Subscriber: 21, Device: 1, Port: 21, MAC: client(0xa1)},                            // a port with two MACs
			{Subscriber: 21, Device: 1, Port: 21, MAC: client(0xa2)},                            //
			{Subscriber: 22, Device: 2, PortName: "ge-0/0/9"},                                   // a port by name
			{Subscriber: 23, MAC: client(0xa3)},                                                 // a MAC
			{Subscriber: 24, VLAN: 104},                                                         // a VLAN
			{Subscriber: 25, Device: 1, Port: 25, MAC: client(0xa5)},                            // two customers on a port
			{Subscriber: 26, Device: 1, Port: 25},                                               //
			{Subscriber: 27, Device: 1, Port: 27, MAC: client(0xa7)},                            // a port with a MAC
			{Subscriber: 28, Device: 1, Port: 1, MAC: client(0xa8)},                             // on the port of subscriber 1
			{Subscriber: 29, Addresses: provision.Hosts4(host(29)), Device: 1, Port: 29},        // an address here
			{Subscriber: 29, Device: 1, Port: 30, MAC: client(0xa9)},                            // and none there
			{Subscriber: 31, Addresses: provision.Hosts4(host(31)), MAC: client(0xb1), VLAN: 9}, // bound
		}, more...),
	}
	snap, _ := provision.Build(in)
	return snap
}

func flats() v4.Pool {
	return v4.Pool{
		Name: "flats", Kind: v4.PoolSubscribers, Range: v4.Range{First: host(210), Last: host(213)}, LeaseTime: 10 * time.Minute,
		Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
	}
}

// guests are four addresses for unknown clients, on the wire of 192.0.2.0/24
// and behind the relays of 198.51.100.0/24.
func guests() v4.Pool {
	return v4.Pool{
		Name: "guests", Kind: v4.PoolGuests, Range: v4.Range{First: host(200), Last: host(203)}, LeaseTime: 2 * time.Minute,
		Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, WarnAt: 0.75,
		OptionSet: options.OptionSet{DNS: []netip.Addr{host(5)}, CaptivePortal: "https://portal.example.net/api"},
	}
}

func withGuests(o *Options) {
	o.Unknown, o.Pools = v4.UnknownGuest, []v4.Pool{guests()}
}

// guest is a lease of the pool, a minute from its end.
func guest(a netip.Addr, mac provision.MAC) lease.Record {
	r := bound(a, mac, 0)
	r.Pool = "guests"
	return r
}

func with(r lease.Record, change func(*lease.Record)) lease.Record {
	change(&r)
	return r
}
