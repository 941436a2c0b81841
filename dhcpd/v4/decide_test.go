package v4

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/outcome"
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
		Source: provision.SourceDirect, FetchedAt: testNow.Add(-10 * time.Second),
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
	return Options{
		Authoritative: true,
		Options:       line.Options{Relays: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24")}, Option82Relays: []string{line.EveryRelay}},
		Subnets: []Subnet{
			{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"), Gateway: host(1), LeaseTime: time.Hour,
				OptionSet: options.OptionSet{DNS: []netip.Addr{host(3)}, Domain: "example.net"},
			},
			{Prefix: netip.MustParsePrefix("203.0.113.0/24"), LeaseTime: 2 * time.Hour},
		},
	}
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

func expired(a netip.Addr, mac provision.MAC, sub provision.SubscriberID) lease.Record {
	r := bound(a, mac, sub)
	r.Expires = testNow
	return r
}

func addrOption(code uint8, a netip.Addr) wire.Option {
	return wire.Option{Code: code, Value: a.AsSlice()}
}

func requested(a netip.Addr) wire.Option { return addrOption(wire.OptRequestedIP, a) }
func chosen(a netip.Addr) wire.Option    { return addrOption(wire.OptServerID, a) }

// run decides about a request that came to serverIP on a served interface.
func run(t testing.TB, q wire.Query, tab *lease.Table, change ...func(*Request, *Options)) Decision {
	t.Helper()
	r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
	opts := testOptions()
	for _, f := range change {
		f(r, &opts)
	}
	r.P.Read(q.Append(nil))
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r.P.Ingress = cfg.line.Ingress(r.P.Ingress.Name)
	r.Networks = cfg.NetworksOf(r.On, r.HostRoutes)
	if tab == nil {
		tab = lease.New()
	}
	snap := world(t)
	pools := fill(t, cfg, snap, tab)
	return decideAt(testNow, r, snap, tab, pools, cfg)
}

// decideAt judges and decides, as the way of a packet has it.
func decideAt(now time.Time, r *Request, snap *provision.Snapshot, leases LeaseView, pools PoolView, cfg *Config) (d Decision) {
	decideInto(&d, now, r, snap, leases, pools, cfg)
	return d
}

func decideInto(d *Decision, now time.Time, r *Request, snap *provision.Snapshot, leases LeaseView, pools PoolView, cfg *Config) {
	Judge(r, snap, cfg)
	Decide(d, now, r, snap, leases, pools, cfg)
}

// told says a Decision in one line.
func told(d Decision) string {
	var b strings.Builder
	b.WriteString(d.Outcome.String())
	if d.YourIP.IsValid() {
		fmt.Fprintf(&b, " %s", d.YourIP)
	}
	if d.Reply.Type != 0 {
		fmt.Fprintf(&b, " by %s", d.Way)
		if d.To.IsValid() {
			fmt.Fprintf(&b, " to %s", d.To)
		}
	}
	if names := [...]string{"", " renew", " background", " fact", " release", " decline", " hold", " pool", " pool-renew", " quarantine", " ends"}; d.Change != ChangeNone {
		b.WriteString(names[d.Change])
	}
	if d.Keep {
		b.WriteString(" kept")
	}
	if d.Report {
		b.WriteString(" report")
	}
	return b.String()
}

func TestDiscover(t *testing.T) {
	relayed := func(mac provision.MAC, opt82 []byte, more ...wire.Option) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: mac, GIAddr: relayIP, Option82: opt82, Options: more}
	}
	const toRelay = " by relay to 198.51.100.1:67"
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		want   string
	}{
		{"port and MAC known", relayed(client(0x11), port(switch1, 1)), nil, "offer 192.0.2.11" + toRelay},
		{"new router on a port with one row", relayed(stranger, port(switch1, 1)), nil, "offer 192.0.2.11" + toRelay},
		{"new router while the old one's lease lives", relayed(stranger, port(switch1, 1)), leases(bound(host(11), client(0x11), 1)), "offer 192.0.2.11" + toRelay},
		{"row without MAC is learnt", relayed(stranger, port(switch1, 2)), nil, "offer 192.0.2.21" + toRelay},
		{"several rows: the client's own", relayed(client(0x31), port(switch1, 3)), nil, "offer 192.0.2.31" + toRelay},
		{"several rows: one without MAC", relayed(stranger, port(switch1, 3)), nil, "offer 192.0.2.32" + toRelay},
		{"several rows: the one asked for", relayed(stranger, port(switch1, 3), requested(host(33))), nil, "offer 192.0.2.33" + toRelay},
		{"several rows: asking for another's does not help", relayed(stranger, port(switch1, 3), requested(host(31))), nil, "offer 192.0.2.32" + toRelay},
		{"several rows: not one that is leased to another", relayed(stranger, port(switch1, 3)), leases(bound(host(32), client(0x77), 3)), "offer 192.0.2.33" + toRelay},
		{"several rows: the one leased before", relayed(stranger, port(switch1, 3)), leases(bound(host(33), stranger, 3)), "offer 192.0.2.33" + toRelay},
		{"several rows: the one leased long ago", relayed(stranger, port(switch1, 3)), leases(expired(host(33), stranger, 3)), "offer 192.0.2.33" + toRelay},
		{"several rows: a lease that is over gives no right to another's row", relayed(stranger, port(switch1, 3)), leases(expired(host(31), stranger, 3)), "offer 192.0.2.32" + toRelay},
		{"all MACs differ: one never used", relayed(stranger, port(switch1, 4)), leases(bound(host(41), client(0x41), 4)), "offer 192.0.2.42" + toRelay},
		{"all MACs differ: one whose lease is over, before one never used", relayed(stranger, port(switch1, 4)), leases(expired(host(42), client(0x42), 5)), "offer 192.0.2.42" + toRelay},
		{"all MACs differ: released", relayed(stranger, port(switch1, 4)), leases(bound(host(41), client(0x41), 4), func() lease.Record {
			r := bound(host(42), client(0x42), 5)
			r.State, r.Expires = lease.StateReleased, testNow
			return r
		}()), "offer 192.0.2.42" + toRelay},
		{"all in use", relayed(stranger, port(switch1, 4)), leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), "port_full"},
		{"all in use: released by nobody knows whom", relayed(stranger, port(switch1, 4)), leases(bound(host(41), client(0x41), 4), kept(host(42), client(0x42), 5)), "port_full"},
		{"a full port is not walked around by MAC", relayed(client(0x11), port(switch1, 4)), leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), "port_full"},
		{"the port wins over the MAC's own port", relayed(client(0x11), port(switch1, 2)), nil, "offer 192.0.2.21" + toRelay},
		{"text circuit-id is an interface name", relayed(client(0x71), named("ge-0/0/5", switch2[:]...)), nil, "offer 192.0.2.71" + toRelay},
		{"remote-id MAC as text", relayed(stranger, named("ge-0/0/5", []byte("0:0:5E:0:53:F2")...)), nil, "offer 192.0.2.71" + toRelay},
		{"remote-id address as text", relayed(stranger, named("ge-0/0/5", []byte("198.51.100.12")...)), nil, "offer 192.0.2.71" + toRelay},
		{"switch named by giaddr", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("198.51.100.12"), Option82: named("ge-0/0/5")}, nil, "offer 192.0.2.71 by relay to 198.51.100.12:67"},
		{"remote-id is the client: giaddr names the switch", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("198.51.100.12"), Option82: named("ge-0/0/5", stranger[:]...)}, nil, "offer 192.0.2.71 by relay to 198.51.100.12:67"},
		{"remote-id of an unknown switch is not overruled by giaddr", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("198.51.100.11"), Option82: port(client(0xee), 1)}, nil, "unknown_device"},
		{"remote-id of a text that names nobody", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("198.51.100.11"), Option82: append([]byte{1, 6, 0, 4, 0, 1, 0, 1}, 2, 3, 'a', 'g', 'g')}, nil, "option82_unread"},
		{"second stack unit is not taken for the first", relayed(stranger, append([]byte{1, 6, 0, 4, 0, 100, 2, 1, 2, 6}, switch1[:]...)), nil, "option82_unread"},
		{"unreadable circuit-id", relayed(stranger, append([]byte{1, 2, 0, 5, 2, 6}, switch1[:]...)), nil, "option82_unread"},
		{"no switch named at all", wire.Query{Type: wire.Discover, MAC: stranger, Option82: []byte{1, 6, 0, 4, 0, 100, 0, 1}}, nil, "option82_unread"},
		{"giaddr names no switch", relayed(stranger, []byte{1, 6, 0, 4, 0, 100, 0, 1}), nil, "unknown_device"},
		{"port without bindings", relayed(stranger, port(switch1, 9)), nil, "unknown_port"},
		{"port without bindings, MAC known", relayed(client(0x81), port(switch1, 9)), nil, "offer 192.0.2.81" + toRelay},
		{"unknown switch, MAC known", relayed(client(0x11), port(client(0xee), 9)), nil, "offer 192.0.2.11" + toRelay},
		{"MAC only", relayed(client(0x11), nil), nil, "offer 192.0.2.11" + toRelay},
		{"MAC only, but the address is used on its port by another now", relayed(client(0x11), nil), leases(bound(host(11), stranger, 1)), "port_full"},
		{"MAC with several addresses: the one that fits the relay", wire.Query{Type: wire.Discover, MAC: client(0x81), GIAddr: ip("203.0.113.1")}, nil, "offer 203.0.113.81 by relay to 203.0.113.1:67"},
		{"MAC with several addresses: link selection before giaddr", relayed(client(0x81), []byte{5, 4, 203, 0, 113, 1}), nil, "offer 203.0.113.81" + toRelay},
		{"MAC with several addresses: the one asked for", wire.Query{Type: wire.Discover, MAC: client(0x81), Options: []wire.Option{requested(ip("203.0.113.81"))}}, nil, "offer 203.0.113.81 by frame"},
		{"nobody knows it", relayed(stranger, nil), nil, "unknown_client"},
		{"address outside every subnet", relayed(client(0x61), port(switch1, 6)), nil, "no_subnet 100.64.9.9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, told(run(t, tc.q, tc.leases)))
		})
	}
}

func TestRequest(t *testing.T) {
	const toRelay = " by relay to 198.51.100.1:67"
	selecting := func(mac provision.MAC, opt82 []byte, server, want netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, GIAddr: relayIP, Option82: opt82, Options: []wire.Option{chosen(server), requested(want)}}
	}
	reboot := func(mac provision.MAC, opt82 []byte, want netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, GIAddr: relayIP, Option82: opt82, Options: []wire.Option{requested(want)}}
	}
	renew := func(mac provision.MAC, has netip.Addr, more ...wire.Option) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, CIAddr: has, Options: more}
	}
	rebind := func(mac provision.MAC, opt82 []byte, has netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, CIAddr: has, GIAddr: relayIP, Option82: opt82}
	}
	here := func(r lease.Record, p uint32) lease.Record { // given there through the relay
		r.Device, r.Port, r.GIAddr, r.Option82 = 1, p, relayIP, port(switch1, byte(p))
		return r
	}
	direct := func(r lease.Record, p uint32) lease.Record { // the ERP has a port, the packet had none
		r = here(r, p)
		r.GIAddr, r.Option82 = netip.Addr{}, nil
		return r
	}
	withID := func(r lease.Record, id string) lease.Record {
		r.ClientID = lease.Hex(id)
		return r
	}
	own := func(r *Request, _ *Options) { r.OwnID = true }
	lax := func(_ *Request, o *Options) { o.Authoritative = false }
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		change func(*Request, *Options)
		want   string
	}{
		{"selecting", selecting(client(0x11), port(switch1, 1), serverIP, host(11)), nil, nil, "ack 192.0.2.11" + toRelay + " fact"},
		{"selecting, MAC learnt", selecting(stranger, port(switch1, 2), serverIP, host(21)), nil, nil, "ack 192.0.2.21" + toRelay + " fact report"},
		{"selecting, router swapped", selecting(stranger, port(switch1, 1), serverIP, host(11)), leases(bound(host(11), client(0x11), 1)), nil, "ack 192.0.2.11" + toRelay + " fact report"},
		{"selecting, other server", selecting(client(0x11), port(switch1, 1), host(253), host(11)), nil, nil, "not_for_us"},
		{"selecting, another address of this host", selecting(client(0x11), port(switch1, 1), host(253), host(11)), nil, own, "ack 192.0.2.11" + toRelay + " fact"},
		{"selecting, wrong address", selecting(client(0x11), port(switch1, 1), serverIP, host(21)), nil, nil, "nak_wrong_address 192.0.2.11" + toRelay},
		{"selecting, binding gone since the OFFER", selecting(stranger, nil, serverIP, host(11)), nil, nil, "nak_not_bound" + toRelay},
		{"selecting, another client was faster", selecting(stranger, port(switch1, 3), serverIP, host(32)), leases(bound(host(32), client(0x77), 3)), nil, "nak_wrong_address 192.0.2.33" + toRelay},
		{"init-reboot", reboot(client(0x11), port(switch1, 1), host(11)), nil, nil, "ack 192.0.2.11" + toRelay + " fact"},
		{"init-reboot of a live lease", reboot(client(0x11), port(switch1, 1), host(11)), leases(here(bound(host(11), client(0x11), 1), 1)), nil, "ack 192.0.2.11" + toRelay + " background"},
		{"init-reboot, wrong address", reboot(client(0x11), port(switch1, 1), host(99)), nil, nil, "nak_wrong_address 192.0.2.11" + toRelay},
		{"init-reboot, wrong address, not authoritative", reboot(client(0x11), port(switch1, 1), host(99)), nil, lax, "not_authoritative"},
		{"init-reboot, unknown client", reboot(stranger, nil, host(99)), nil, nil, "init_reboot_unknown"},
		{"init-reboot, full port", reboot(stranger, port(switch1, 4), host(41)), leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), nil, "port_full"},
		{"renewing by lease record, same port", renew(stranger, host(11)), leases(here(bound(host(11), stranger, 1), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew report"},
		{"renewing by lease record, given where no line is told", renew(stranger, host(11)), leases(direct(bound(host(11), stranger, 1), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"renewing, the ERP knows the MAC", renew(client(0x11), host(11)), leases(here(bound(host(11), client(0x11), 1), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"renewing an expired lease that is still bound", renew(client(0x11), host(11)), leases(here(expired(host(11), client(0x11), 1), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"renewing after the contract on the port changed hands", renew(stranger, host(11)), leases(here(bound(host(11), stranger, 77), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact report"},
		{"renewing after the customer moved port", renew(stranger, host(11)), leases(here(bound(host(11), stranger, 1), 9)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact report"},
		{"renewing, address now another customer's elsewhere", renew(stranger, host(11)), leases(here(bound(host(11), stranger, 77), 9)), nil, "nak_not_bound by broadcast"},
		{"renewing, address now another customer's, neither has a port", renew(stranger, host(81)), leases(bound(host(81), stranger, 77)), nil, "nak_not_bound by broadcast ends"},
		{"renewing, binding gone", renew(stranger, host(99)), leases(bound(host(99), stranger, 1)), nil, "nak_not_bound by broadcast ends"},
		{"renewing another's lease", renew(stranger, host(11)), leases(bound(host(11), client(0x11), 1)), nil, "nak_other_client by broadcast"},
		{"renewing without a record, MAC in the ERP", renew(client(0x11), host(11)), nil, nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact"},
		{"renewing without a record, MAC not in the ERP", renew(stranger, host(11)), nil, nil, "renew_unknown"},
		{"renewing another's expired lease", renew(stranger, host(11)), leases(expired(host(11), client(0x11), 1)), nil, "renew_unknown"},
		{"renewing a released lease", renew(stranger, host(21)), func() *lease.Table {
			tab := leases(bound(host(21), stranger, 2))
			tab.SetState(host(21), stranger, lease.StateReleased, testNow)
			return tab
		}(), nil, "renew_unknown"},
		{"renewing with another client id", renew(stranger, host(21), wire.Option{Code: wire.OptClientID, Value: []byte("b")}), leases(withID(bound(host(21), stranger, 2), "a")), nil, "renew_unknown"},
		{"renewing with the same client id", renew(stranger, host(21), wire.Option{Code: wire.OptClientID, Value: []byte("a")}), leases(withID(here(bound(host(21), stranger, 2), 2), "a")), nil, "ack 192.0.2.21 by unicast to 192.0.2.21:68 renew report"},
		{"renewing with our server id, as some clients do", renew(client(0x11), host(11), chosen(serverIP)), leases(here(bound(host(11), client(0x11), 1), 1)), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"renewing with another's server id", renew(client(0x11), host(11), chosen(host(250))), nil, nil, "not_for_us"},
		{"renewing through a snooping switch", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21), Option82: port(switch1, 2)}, nil, nil, "ack 192.0.2.21 by unicast to 192.0.2.21:68 fact report"},
		{"rebinding", rebind(stranger, port(switch1, 2), host(21)), leases(here(bound(host(21), stranger, 2), 2)), nil, "ack 192.0.2.21" + toRelay + " background report"},
		{"rebinding on another port", rebind(client(0x11), port(switch1, 2), host(11)), leases(here(bound(host(11), client(0x11), 1), 1)), nil, "nak_wrong_address 192.0.2.21" + toRelay},
		{"rebinding after a new router took the address over", rebind(stranger, port(switch1, 2), host(21)), leases(here(bound(host(21), client(0x77), 2), 2)), nil, "nak_other_client" + toRelay},
		{"rebinding keeps the second of several rows", rebind(stranger, port(switch1, 3), host(33)), nil, nil, "ack 192.0.2.33" + toRelay + " fact report"},
		{"rebinding on a port that is full", rebind(stranger, port(switch1, 4), host(41)), leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), nil, "nak_other_client" + toRelay},
		{"rebinding on a port nobody knows, by record", rebind(stranger, port(switch1, 9), host(21)), leases(here(bound(host(21), stranger, 2), 2)), nil, "ack 192.0.2.21" + toRelay + " renew report"}, // the record stays where it was
		{"no address anywhere", wire.Query{Type: wire.Request, MAC: client(0x11)}, nil, nil, "request_incomplete"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.change == nil {
				tc.change = func(*Request, *Options) {}
			}
			assert.Equal(t, tc.want, told(run(t, tc.q, tc.leases, tc.change)))
		})
	}
}

func TestRecordOfAck(t *testing.T) {
	old := bound(host(21), stranger, 2)
	old.Device, old.Port, old.ClientID, old.GIAddr = 1, 2, lease.Hex("id"), ip("198.51.100.9")
	q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21), GIAddr: relayIP, Option82: port(switch1, 2)}
	d := run(t, q, leases(old))
	assert.Equal(t, lease.Record{
		IP: host(21), MAC: stranger, ClientID: lease.Hex("id"), Subscriber: 2, Device: 1, Port: 2,
		Option82: port(switch1, 2), GIAddr: relayIP, Ifindex: 3, Interface: "eth0",
		State: lease.StateBound, Start: old.Start, Renewed: testNow, Expires: testNow.Add(time.Hour),
	}, d.Rec, "the same client came by another relay")
	d = run(t, q, leases(bound(host(21), client(0x77), 2)), func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82} })
	assert.Equal(t, outcome.NakOtherClient, d.Outcome)
	q.CIAddr, q.Options = netip.Addr{}, []wire.Option{requested(host(21))}
	d = run(t, q, leases(bound(host(21), client(0x77), 2)))
	assert.Equal(t, testNow, d.Rec.Start, "a new client starts anew")
}

func TestReleaseDeclineInform(t *testing.T) {
	mine := leases(bound(host(21), stranger, 2))
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		want   string
	}{
		{"release", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(21), Options: []wire.Option{chosen(serverIP)}}, mine, "released 192.0.2.21 release kept"},
		{"release for another server", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(21), Options: []wire.Option{chosen(host(2))}}, mine, "not_for_us"},
		{"release of another's lease", wire.Query{Type: wire.Release, MAC: client(1), CIAddr: host(21)}, mine, "release_unknown"},
		{"release of nothing", wire.Query{Type: wire.Release, MAC: stranger}, mine, "request_incomplete"},
		{"decline", wire.Query{Type: wire.Decline, MAC: stranger, Options: []wire.Option{requested(host(21)), chosen(serverIP)}}, mine, "declined 192.0.2.21 decline kept"},
		{"decline by the MAC of the ERP", wire.Query{Type: wire.Decline, MAC: client(0x11), Options: []wire.Option{requested(host(11))}}, nil, "declined 192.0.2.11"},
		{"decline of another's address", wire.Query{Type: wire.Decline, MAC: stranger, Options: []wire.Option{requested(host(11))}}, nil, "decline_unknown"},
		{"inform", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(11)}, nil, "inform_ack 192.0.2.11 by unicast to 192.0.2.11:68"},
		{"inform through a relay", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(11), GIAddr: relayIP}, nil, "inform_ack 192.0.2.11 by relay to 198.51.100.1:67"},
		{"inform of an unbound address", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(99)}, nil, "inform_unknown"},
		{"inform without address", wire.Query{Type: wire.Inform, MAC: stranger}, nil, "request_incomplete"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, told(run(t, tc.q, tc.leases)))
		})
	}
	t.Run("a declined address is offered again", func(t *testing.T) {
		tab := leases(bound(host(21), stranger, 2))
		tab.SetState(host(21), stranger, lease.StateDeclined, testNow)
		q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2)}
		assert.Equal(t, "offer 192.0.2.21 by relay to 198.51.100.1:67", told(run(t, q, tab)))
	})
	t.Run("inform tells settings but no lease", func(t *testing.T) {
		d := run(t, wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(11)}, nil)
		assert.Zero(t, d.Reply.LeaseTime)
		assert.False(t, d.Reply.YIAddr.IsValid())
		assert.Equal(t, ChangeNone, d.Change)
	})
}

func TestRefusedBeforeMatching(t *testing.T) {
	good := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)}
	for _, tc := range []struct {
		name string
		raw  func(b []byte) []byte
		r    func(*Request)
		want outcome.Outcome
	}{
		{"reply of a server", func(b []byte) []byte { b[0] = 2; return b }, nil, outcome.NotRequest},
		{"garbage", func([]byte) []byte { return []byte("some text that is no packet") }, nil, outcome.Malformed},
		{"truncated", func(b []byte) []byte { return b[:len(b)-10] }, nil, outcome.Malformed},
		{"no hardware address", func(b []byte) []byte { b[2] = 0; return b }, nil, outcome.BadHardware},
		{"broadcast hardware address", func(b []byte) []byte { copy(b[28:], "\xff\xff\xff\xff\xff\xff"); return b }, nil, outcome.BadHardware},
		{"infiniband", func(b []byte) []byte { b[1], b[2] = 32, 16; return b }, nil, outcome.BadHardware},
		{"OFFER", func(b []byte) []byte { b[242] = 2; return b }, nil, outcome.UnexpectedType},
		{"ACK", func(b []byte) []byte { b[242] = 5; return b }, nil, outcome.UnexpectedType},
		{"lease query", func(b []byte) []byte { b[242] = 10; return b }, nil, outcome.LeaseQueryRefused},
		{"relay that is not ours", func(b []byte) []byte { copy(b[24:], []byte{192, 0, 2, 66}); return b }, nil, outcome.RelayUntrusted},
		{"interface that is off", nil, func(r *Request) { r.Served = false }, outcome.InterfaceOff},
		{"forged option 82 before the switch's", func(b []byte) []byte {
			forged := append([]byte{82, 8, 1, 6}, "SPOOF!"...)
			return append(append(b[:243:243], forged...), b[243:]...)
		}, nil, outcome.Option82Double},
		{"no local address and no gateway to name the server", func(b []byte) []byte {
			q := wire.Query{Type: wire.Discover, MAC: client(0x81), GIAddr: ip("203.0.113.1")}
			return q.Append(nil)
		}, func(r *Request) { r.Local = netip.Addr{} }, outcome.NoServerID},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &Request{Served: true, Local: serverIP}
			if tc.r != nil {
				tc.r(r)
			}
			raw := good.Append(nil)
			if tc.raw != nil {
				raw = tc.raw(raw)
			}
			r.P.Read(raw)
			cfg, err := Compile(testOptions())
			require.NoError(t, err)
			d := decideAt(testNow, r, world(t), lease.New(), nil, cfg)
			assert.Equal(t, tc.want, d.Outcome)
			assert.Zero(t, d.Reply.Type, "nothing is answered")
			assert.Equal(t, ChangeNone, d.Change)
		})
	}
	for _, bad := range []string{"01060004006900", "01", "0106000400690005ff", "736f6d652d74657874"} {
		t.Run("option 82 "+bad, func(t *testing.T) {
			q := good
			q.Option82, _ = hex.DecodeString(bad)
			assert.Equal(t, outcome.Option82Malformed, run(t, q, nil).Outcome)
		})
	}
	t.Run("nothing loaded yet", func(t *testing.T) {
		cfg, err := Compile(testOptions())
		require.NoError(t, err)
		r := &Request{Served: true}
		r.P.Read(good.Append(nil))
		assert.Equal(t, outcome.NotReady, decideAt(testNow, r, nil, lease.New(), nil, cfg).Outcome)
	})
}

// RFC 2131 section 4.1: how replies travel.
func TestRoute(t *testing.T) {
	for _, tc := range []struct {
		name string
		q    wire.Query
		flag bool
		want string
	}{
		{"no relay, no address: frame to chaddr", wire.Query{Type: wire.Discover, MAC: client(0x11)}, false, "offer 192.0.2.11 by frame"},
		{"no relay, no address, broadcast flag", wire.Query{Type: wire.Discover, MAC: client(0x11)}, true, "offer 192.0.2.11 by broadcast"},
		{"ACK to a client without address: frame", wire.Query{Type: wire.Request, MAC: client(0x11), Options: []wire.Option{requested(host(11))}}, false, "ack 192.0.2.11 by frame fact"},
		{"broadcast flag does not matter with ciaddr", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)}, true, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact"},
		{"NAK without relay: broadcast", wire.Query{Type: wire.Request, MAC: client(0x11), Options: []wire.Option{requested(host(12))}}, false, "nak_wrong_address 192.0.2.11 by broadcast"},
		{"relay before ciaddr", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), GIAddr: relayIP}, false, "ack 192.0.2.11 by relay to 198.51.100.1:67 fact"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := tc.q.Append(nil)
			if tc.flag {
				raw[10] = 0x80
			}
			r := &Request{Served: true, Local: serverIP, Ifindex: 3, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
			r.P.Read(raw)
			cfg, err := Compile(testOptions())
			require.NoError(t, err)
			assert.Equal(t, tc.want, told(decideAt(testNow, r, world(t), lease.New(), nil, cfg)))
		})
	}
	t.Run("a relayed NAK carries the broadcast flag", func(t *testing.T) {
		d := run(t, wire.Query{Type: wire.Request, MAC: client(0x11), GIAddr: relayIP, Options: []wire.Option{requested(host(12))}}, nil)
		assert.True(t, d.Reply.Broadcast)
	})
	t.Run("a relay that asks for it gets replies at its source port", func(t *testing.T) {
		q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: append(port(switch1, 1), 19, 0)}
		d := run(t, q, nil, func(r *Request, _ *Options) { r.P.From = netip.MustParseAddrPort("198.51.100.1:5067") })
		assert.Equal(t, "offer 192.0.2.11 by relay to 198.51.100.1:5067", told(d))
	})
}

func TestServerIdentifier(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP}
	for _, tc := range []struct {
		name   string
		opt82  []byte
		change func(*Request, *Options)
		want   netip.Addr
	}{
		{"the address it came to", nil, func(*Request, *Options) {}, serverIP},
		{"configured", nil, func(_ *Request, o *Options) { o.ServerID = host(250) }, host(250)},
		{"what the relay says (RFC 5107)", []byte{11, 4, 198, 51, 100, 1}, func(_ *Request, o *Options) { o.ServerID = host(250) }, relayIP},
		{"the gateway, on an interface without address", nil, func(r *Request, _ *Options) { r.Local = netip.Addr{} }, host(1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q.Option82 = tc.opt82
			d := run(t, q, nil, tc.change)
			assert.Equal(t, outcome.Offer, d.Outcome)
			assert.Equal(t, tc.want, d.Reply.ServerID)
			// And a client that chooses it is ours.
			sel := q
			sel.Type, sel.Options = wire.Request, []wire.Option{chosen(tc.want), requested(host(11))}
			assert.Equal(t, outcome.Ack, run(t, sel, nil, tc.change).Outcome)
		})
	}
}

func TestMatchOrder(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 2)}
	for _, tc := range []struct {
		match []MatchKind
		want  string
	}{
		{nil, "192.0.2.21"},
		{[]MatchKind{MatchOption82}, "192.0.2.21"},
		{[]MatchKind{MatchMAC, MatchOption82}, "192.0.2.21"}, // the MAC is another port's, and the ERP knows this one
		{[]MatchKind{MatchMAC}, "192.0.2.11"},
	} {
		d := run(t, q, nil, func(_ *Request, o *Options) { o.Match = tc.match })
		assert.Equal(t, tc.want, d.YourIP.String(), "%v", tc.match)
	}
	q.Option82 = nil
	d := run(t, q, nil, func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82} })
	assert.Equal(t, outcome.UnknownClient, d.Outcome, "by MAC only if configured")
}

// Option 82 comes back byte for byte as the last option of every reply, NAK and INIT-REBOOT included.
func TestOption82IsEchoedLast(t *testing.T) {
	opt82 := port(switch1, 1)
	for _, q := range []wire.Query{
		{Type: wire.Discover},
		{Type: wire.Request, Options: []wire.Option{requested(host(11))}},
		{Type: wire.Request, Options: []wire.Option{requested(host(12))}},
		{Type: wire.Request, CIAddr: host(11)},
		{Type: wire.Inform, CIAddr: host(11)},
	} {
		q.MAC, q.Option82, q.GIAddr = client(0x11), opt82, relayIP
		r := &Request{Served: true, Local: serverIP}
		r.P.Read(q.Append(nil))
		cfg, err := Compile(testOptions())
		require.NoError(t, err)
		d := decideAt(testNow, r, world(t), lease.New(), nil, cfg)
		reply := d.Reply.Append(nil, &r.P.Packet)
		tail := append([]byte{82, byte(len(opt82))}, append(opt82, 255)...)
		at := strings.Index(string(reply), string(tail))
		require.Positive(t, at, "%s", d.Outcome)
		assert.Equal(t, strings.Repeat("\x00", len(reply)-at-len(tail)), string(reply[at+len(tail):]))
		lib, err := dhcpv4.FromBytes(reply)
		require.NoError(t, err)
		assert.Equal(t, opt82, lib.Options.Get(dhcpv4.OptionRelayAgentInformation))
	}
}

func TestCompileReportsEveryMistake(t *testing.T) {
	n := netip.MustParsePrefix("192.0.2.0/24")
	_, err := Compile(Options{
		Options:  line.Options{Relays: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
		ServerID: ip("2001:db8::1"),
		Match:    []MatchKind{99},
		Subnets: []Subnet{
			{Prefix: n, LeaseTime: time.Hour},
			{Prefix: n, LeaseTime: time.Hour},
			{Prefix: netip.MustParsePrefix("192.0.3.0/24"), LeaseTime: time.Second},
			{Prefix: netip.MustParsePrefix("192.0.4.0/24"), LeaseTime: time.Hour, RenewTime: 2 * time.Hour},
			{Prefix: netip.MustParsePrefix("192.0.5.0/24"), LeaseTime: time.Hour, OptionSet: options.OptionSet{DNS: []netip.Addr{ip("2001:db8::2")}}},
			{Prefix: netip.MustParsePrefix("192.0.6.0/24"), LeaseTime: time.Hour, OptionSet: options.OptionSet{Options: []options.Option{{Code: 82}}}},
		},
	})
	for _, want := range []string{
		`relay 2001:db8::/32: want an IPv4 prefix`, `server id 2001:db8::1: want an IPv4 address`, `match 99: no such kind`,
		`subnet 192.0.2.0/24: given twice`, `subnet 192.0.3.0/24: lease time 1s: want at least 1m0s`,
		`subnet 192.0.4.0/24: times: want 1s <= renew 2h0m0s <= rebind 52m30s <= lease 1h0m0s`,
		`subnet 192.0.5.0/24: dns 2001:db8::2: want an IPv4 address`,
		`subnet 192.0.6.0/24: option 82: this option is filled by the server itself`,
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestSubnetOptions(t *testing.T) {
	opts := testOptions()
	opts.Subnets[0].Options = []options.Option{{Code: 6, Value: []byte{192, 0, 2, 9}}, {Code: 43, Value: []byte("v")}}
	opts.Subnets = append(opts.Subnets, Subnet{Prefix: netip.MustParsePrefix("192.0.2.16/28"), LeaseTime: time.Hour})
	cfg, err := Compile(opts)
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.16/28", cfg.subnetOf(host(21)).prefix.String(), "the smallest subnet wins")
	n := cfg.subnetOf(host(11))
	assert.EqualValues(t, []uint32{3600, 1800, 3150}, []uint32{n.seconds, n.t1, n.t2})
	q := wire.Query{Type: wire.Discover, MAC: client(0x11)}
	var p wire.Packet
	require.NoError(t, p.Parse(q.Append(nil)))
	lib, err := dhcpv4.FromBytes((&wire.Reply{Type: wire.Offer, Options: n.options[0]}).Append(nil, &p))
	require.NoError(t, err)
	assert.Equal(t, []byte{192, 0, 2, 9}, lib.Options.Get(dhcpv4.OptionDomainNameServer), "extra options replace")
	assert.Equal(t, []byte("v"), lib.Options.Get(dhcpv4.OptionVendorSpecificInformation))
	assert.Equal(t, "255.255.255.0", dhcpv4.GetIP(dhcpv4.OptionSubnetMask, lib.Options).String())
	assert.Equal(t, "192.0.2.1", lib.Router()[0].String())
}

func TestOutcomes(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range outcome.All() {
		assert.NotEmpty(t, o.String())
		assert.False(t, seen[o.String()], "%s twice", o)
		seen[o.String()] = true
		assert.True(t, strings.HasSuffix(o.Explain(), "."), "%s is explained in a sentence", o)
		back, err := outcome.Parse(o.String())
		require.NoError(t, err)
		assert.Equal(t, o, back)
	}
	assert.Equal(t, "invalid", outcome.Outcome(0).String())
	_, err := outcome.Parse("invalid")
	assert.Error(t, err)
}

// Whatever the packet, Decide returns one outcome and a reply only with a way.
func listed(cfg *Config, relay netip.Addr) bool {
	is, _ := cfg.line.Lists(relay)
	return is
}

func FuzzDecide(f *testing.F) {
	snap := world(f)
	cfg, err := Compile(testOptions())
	require.NoError(f, err)
	profiled := testOptions()
	for _, e := range option82.Catalogue() { // some matched, all by default
		profiled.Option82.Default = append(profiled.Option82.Default, e.Profile)
		profiled.Option82.Profiles = append(profiled.Option82.Profiles, line.Option82Profile{Profile: e.Profile, Match: line.Option82Match{RemoteID: "*" + e.Name[:1] + "*", DeviceName: "sw?"}})
		for _, v := range e.Vectors {
			q := wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: unhex(f, v.Payload)}
			f.Add(q.Append(nil))
		}
	}
	byProfile, err := Compile(profiled)
	require.NoError(f, err)
	extended := testOptions()
	extended.RapidCommit, extended.LeaseQuery.From = true, extended.Relays
	extended.Common = options.OptionSet{Search: []string{"example.net"}, Routes: []options.Route{{To: netip.MustParsePrefix("10.0.0.0/8"), Via: host(2)}}, IPv6OnlyWait: time.Hour}
	extended.Classes = []options.Class{
		{Name: "vendor", Match: options.ClassMatch{VendorClass: "stb*"}, OptionSet: options.OptionSet{BootFile: "stb.img", VendorSpecific: []options.Option{{Code: 1, Value: make([]byte, 200)}}}},
		{Name: "old", Match: options.ClassMatch{UserClass: "old"}, AlwaysBroadcast: true},
	}
	full, err := Compile(extended)
	require.NoError(f, err)
	for _, q := range []wire.Query{
		{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)},
		{Type: wire.Request, MAC: client(0x11), Options: []wire.Option{requested(host(11)), chosen(serverIP)}},
		{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)},
		{Type: wire.Release, MAC: client(0x11), CIAddr: host(11)},
		{Type: wire.Inform, MAC: client(0x11), CIAddr: host(11)},
		{Type: wire.LeaseQuery, MAC: client(0x11), GIAddr: relayIP},
		{Type: wire.Discover, MAC: client(0x11), Options: []wire.Option{{Code: wire.OptRapidCommit}, {Code: wire.OptVendorClass, Value: []byte("stb1")}, {Code: wire.OptUserClass, Value: []byte("\x03old")}}},
	} {
		f.Add(q.Append(nil))
	}
	tab := leases(bound(host(11), client(0x11), 1), bound(host(41), client(0x41), 4), guest(host(35), stranger), guest(host(33), client(0x98)))
	pooled := testOptions()
	withGuests(nil, &pooled)
	pooled.Pools[0].First, pooled.Pools[0].Last = host(30), host(37) // 31 to 33 are bound
	guested, err := Compile(pooled)
	require.NoError(f, err)
	pools := fill(f, guested, snap, tab) // the others have none
	for _, q := range []wire.Query{
		{Type: wire.Discover, MAC: stranger, Options: []wire.Option{requested(host(31))}},
		{Type: wire.Request, MAC: stranger, CIAddr: host(35)},
		{Type: wire.Request, MAC: client(0x98), CIAddr: host(33)},
		{Type: wire.Request, MAC: client(0x97), Options: []wire.Option{requested(host(35)), chosen(serverIP)}},
		{Type: wire.Decline, MAC: stranger, Options: []wire.Option{requested(host(35))}},
	} {
		f.Add(q.Append(nil))
	}
	for _, q := range []wire.Query{ // with the address that the client had, or another's
		{Type: wire.Discover, MAC: client(0x11), CIAddr: host(11)},
		{Type: wire.Request, MAC: client(0x11), CIAddr: host(41), Options: []wire.Option{requested(host(11)), chosen(serverIP)}},
		{Type: wire.Request, MAC: client(0x11), CIAddr: host(11), Options: []wire.Option{requested(host(11)), chosen(serverIP)}},
		{Type: wire.Request, MAC: client(0x11), CIAddr: host(41), Options: []wire.Option{requested(host(11))}},
		{Type: wire.Inform, MAC: client(0x11)},
	} {
		for n := range 3 { // from each source
			f.Add(append(q.Append(nil), make([]byte, n)...))
		}
	}
	sources := [...]netip.AddrPort{{}, netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.AddrPortFrom(host(11), 68)}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, cfg := range []*Config{cfg, byProfile, full, guested} {
			r := &Request{Served: true, Local: serverIP, P: line.Packet{From: sources[len(raw)%len(sources)], Ingress: line.Ingress{Name: "eth0"}}}
			r.P.Read(raw)
			d := decideAt(testNow, r, snap, tab, pools, cfg)
			require.NotEqual(t, "invalid", d.Outcome.String())
			if d.Outcome == outcome.PoolOffer || d.Outcome == outcome.PoolAck {
				require.Nil(t, snap.ByIP(d.YourIP), "never an address of the ERP to a client of a pool")
				require.False(t, d.YourIP == host(35) && d.MAC != stranger, "never one that another has")
			}
			require.Equal(t, d.Outcome.Answered(), d.Reply.Type != 0, d.Outcome.String())
			require.Equal(t, d.Outcome.Answered(), d.Way != wire.WayNone)
			checkWay(t, &d, r)
			if r.P.Err == nil && r.P.GIAddr().IsValid() && !listed(cfg, r.P.GIAddr()) {
				require.False(t, d.Outcome.Answered(), "never an answer to an untrusted relay")
			}
			if d.Reply.Type != 0 {
				var p wire.Packet
				require.NoError(t, p.Parse(d.AppendReply(nil, &r.P.Packet)))
				if d.Lease == nil {
					require.Equal(t, r.P.RelayInfo(), p.RelayInfo())
				}
				if d.Reply.Type == wire.Nak { // RFC 2131 table 3
					require.False(t, p.YIAddr().IsValid() || p.CIAddr().IsValid() || p.SIAddr().IsValid())
					for code := 1; code < 255; code++ {
						if _, there := p.Option(byte(code)); there {
							require.Contains(t, []int{wire.OptMessageType, wire.OptServerID, wire.OptMessage, wire.OptClientID, wire.OptRelayAgentInfo}, code)
						}
					}
				}
			}
		}
	})
}
