package v4

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// What dhcrelay sends is the name of its interface: behind another relay it is another line.
func TestCircuitAloneIsOfItsRelay(t *testing.T) {
	far, near := ip("203.0.113.9"), ip("198.51.100.1")
	rec := with(bound(host(11), client(0x11), 1), func(r *lease.Record) {
		r.GIAddr, r.Option82, r.Interface = near, named("eth1"), "eth0"
	})
	via := func(gi netip.Addr, q wire.Query) wire.Query {
		q.MAC, q.GIAddr, q.Option82 = client(0x11), gi, named("eth1")
		return q
	}
	release := wire.Query{Type: wire.Release, CIAddr: host(11)}
	assert.Equal(t, "release_unknown", told(run(t, via(far, release), leases(rec))))
	assert.Equal(t, "released 192.0.2.11 release", told(run(t, via(near, release), leases(rec))))
	assert.Equal(t, outcome.MACElsewhere, run(t, via(far, wire.Query{Type: wire.Discover}), leases(rec)).Outcome)
	selecting := wire.Query{Type: wire.Request, Options: []wire.Option{requested(host(11)), chosen(serverIP)}}
	assert.Equal(t, "mac_elsewhere", told(run(t, via(far, selecting), leases(rec))))

	// On two interfaces with switches of their own it is two lines, too.
	direct := with(guest(host(201), stranger), func(r *lease.Record) { r.Option82, r.Interface = named("7"), "eth0" })
	trusted := func(name string) func(*Request, *Options) {
		return func(r *Request, o *Options) { o.TrustedInterfaces, r.P.Ingress.Name = []string{"eth*"}, name }
	}
	back := wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201), Option82: named("7")}
	assert.Equal(t, "release_unknown", told(run(t, back, leases(direct), withGuests, trusted("eth9"))))
	assert.Equal(t, "pool_released 192.0.2.201 release", told(run(t, back, leases(direct), withGuests, trusted("eth0"))))
	assert.NotEqual(t, portKey(&wire.RelayInfo{CircuitID: []byte("7")}, netip.Addr{}, "eth0", stranger), portKey(&wire.RelayInfo{CircuitID: []byte("7")}, netip.Addr{}, "eth9", stranger))
}

// A line may be named by its subscriber-id alone; link selection and the like name none.
func TestLinesNamedOtherwise(t *testing.T) {
	sub := func(s string) []byte { return append([]byte{6, byte(len(s))}, s...) }
	link := []byte{5, 4, 192, 0, 2, 1}
	for name, tc := range map[string]struct {
		was, is []byte
		gi      netip.Addr
		want    string
	}{
		"another subscriber":        {sub("alice"), sub("mallory"), relayIP, "release_unknown"},
		"the same":                  {sub("alice"), sub("alice"), relayIP, "released 192.0.2.11 release"},
		"no line, the same relay":   {link, link, relayIP, "released 192.0.2.11 release kept"},
		"no line, and other relays": {link, append(link[:6:6], 11, 4, 192, 0, 2, 1), ip("203.0.113.9"), "release_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			rec := with(bound(host(11), client(0x11), 1), func(r *lease.Record) { r.GIAddr, r.Option82, r.Interface = relayIP, tc.was, "eth0" })
			q := wire.Query{Type: wire.Release, MAC: client(0x11), CIAddr: host(11), GIAddr: tc.gi, Option82: tc.is}
			assert.Equal(t, tc.want, told(run(t, q, leases(rec))))
		})
	}
}

// A VLAN of several customers is a shared wire: nobody vouches for who of them it is, and the ERP knows it all the same.
func TestVLANOfSeveralCustomers(t *testing.T) {
	snap, _ := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}, {ID: 3, State: provision.StateActive}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), VLAN: 7},
			{Subscriber: 2, Addresses: provision.Hosts4(host(12)), MAC: client(0x12), VLAN: 7},
			{Subscriber: 3, Addresses: provision.Hosts4(host(13)), MAC: client(0x13), VLAN: 8},
		},
	})
	o := testOptions()
	o.Match, o.VLANInterfaces = []MatchKind{MatchVLAN | MatchMAC, MatchMAC}, []string{"vlan{vlan}"}
	cfg, err := Compile(o)
	require.NoError(t, err)
	decide := func(iface string, q wire.Query, recs ...lease.Record) Decision {
		tab := leases(recs...)
		r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: cfg.line.Ingress(iface)}}
		r.P.Read(q.Append(nil))
		return decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg)
	}
	rec := with(bound(host(11), client(0x11), 1), func(r *lease.Record) { r.Interface = "vlan7" })
	alone := with(bound(host(13), client(0x13), 3), func(r *lease.Record) { r.Interface = "vlan8" })
	assert.Equal(t, "released 192.0.2.11 release kept", told(decide("vlan7", wire.Query{Type: wire.Release, MAC: client(0x11), CIAddr: host(11)}, rec)))
	assert.Equal(t, "declined 192.0.2.11 decline kept", told(decide("vlan7", wire.Query{Type: wire.Decline, MAC: client(0x11), Options: []wire.Option{requested(host(11))}}, rec)))
	assert.Equal(t, "released 192.0.2.13 release", told(decide("vlan8", wire.Query{Type: wire.Release, MAC: client(0x13), CIAddr: host(13)}, alone)))
	assert.Equal(t, "mac_elsewhere", told(decide("vlan7", wire.Query{Type: wire.Discover, MAC: client(0x13)})))
}

// A pool may be a whole network: its gateway, which no client gets, may be the relay.
func TestGatewayOfAPoolIsARelay(t *testing.T) {
	for _, relays := range [][]netip.Prefix{nil, {netip.MustParsePrefix("192.0.2.0/24")}} {
		q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: host(1), Option82: port(switch1, 40)}
		d := run(t, q, nil, withGuests, func(r *Request, o *Options) {
			o.Pools[0].First, o.Pools[0].Last = host(0), host(255)
			o.Relays, r.P.From = relays, netip.AddrPortFrom(host(1), 67)
		})
		assert.Equal(t, outcome.PoolOffer, d.Outcome)
	}
}

// Two relays, each with an option 82 of its own, forward the same REQUEST of a guest: the second copy is no reason to refuse it.
func TestGuestHeardThroughTwoRelays(t *testing.T) {
	via := func(q wire.Query, n byte) wire.Query {
		q.MAC, q.GIAddr, q.Option82 = stranger, netip.AddrFrom4([4]byte{198, 51, 100, n}), named("vlan7", 2, 0, 0, 0, 0, n)
		return q
	}
	selecting := wire.Query{Type: wire.Request, Options: []wire.Option{requested(host(201)), chosen(serverIP)}}
	first := run(t, via(selecting, 1), nil, withGuests)
	require.Equal(t, outcome.PoolAck, first.Outcome)
	for _, q := range []wire.Query{selecting, {Type: wire.Request, CIAddr: host(201)}, {Type: wire.Request, Options: []wire.Option{requested(host(201))}}} {
		d := run(t, via(q, 2), leases(first.Rec), withGuests)
		assert.Equal(t, "mac_elsewhere", told(d))
	}
}

// Some relays write the client's own MAC where the switch's belongs. That names no line: behind another such relay the same bytes are
// another port, and a new router on the port does not make it one.
func TestClientsMACAsRemoteIDNamesNoLine(t *testing.T) {
	near, far := ip("198.51.100.11"), ip("198.51.100.12")
	for name, remote := range map[string]func(provision.MAC) []byte{
		"bare":    func(mac provision.MAC) []byte { return mac[:] },
		"wrapped": func(mac provision.MAC) []byte { return append([]byte{0, 6}, mac[:]...) },
		"text":    func(mac provision.MAC) []byte { return []byte(mac.String()) },
	} {
		t.Run(name, func(t *testing.T) {
			own := func(mac provision.MAC) []byte { return named("ge-0/0/9", remote(mac)...) }
			rec := with(bound(host(11), client(0x11), 1), func(r *lease.Record) { r.GIAddr, r.Option82, r.Interface = near, own(client(0x11)), "eth0" })
			release := wire.Query{Type: wire.Release, MAC: client(0x11), CIAddr: host(11), GIAddr: far, Option82: own(client(0x11))}
			assert.Equal(t, "release_unknown", told(run(t, release, leases(rec))))
			release.GIAddr = near
			assert.Equal(t, "released 192.0.2.11 release", told(run(t, release, leases(rec))))

			held := with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr, r.Option82, r.Interface = near, own(stranger), "eth0" })
			discover := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: far, Option82: own(stranger)}
			assert.NotEqual(t, host(201), run(t, discover, leases(held), withGuests).YourIP, "it is another guest with that MAC")
			discover.GIAddr = near
			assert.Equal(t, host(201), run(t, discover, leases(held), withGuests).YourIP)

			info := func(mac provision.MAC) *wire.RelayInfo {
				r, err := wire.ParseRelayInfo(own(mac))
				require.NoError(t, err)
				return &r
			}
			at := func(gi netip.Addr, mac provision.MAC) uint64 { return portKey(info(mac), gi, "eth0", mac) }
			assert.Equal(t, at(near, stranger), at(near, client(0x42)), "one port, whatever MAC its client writes")
			assert.NotEqual(t, at(near, stranger), at(far, stranger), "two relays have two ports")
			assert.Equal(t, at(near, stranger), PortOfLease(&held))
		})
	}
}
