package v4

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// unlisted is an ERP whose rows name the address of one switch and the id of another; the list of switches was read or not.
func unlisted(t testing.TB, unread bool) *provision.Snapshot {
	t.Helper()
	snap, _ := provision.Build(provision.Input{
		Source: provision.SourceDirect, FetchedAt: testNow, DevicesUnread: unread, KeepVacant: true,
		Devices: []provision.Device{{ID: 1<<51 | 7, IP: ip("198.51.100.11")}, {ID: 2}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11), Device: 2, Port: 1},
			{Subscriber: 2, Addresses: provision.Hosts4(host(21)), Device: 1<<51 | 7, Port: 2},
			{Subscriber: 3, Addresses: provision.Hosts4(host(31)), MAC: client(0x31)},
			{Subscriber: 4, MAC: client(0x41), Device: 1<<51 | 7, Port: 3},
			{Subscriber: 5, MAC: client(0x51), Device: 2, Port: 5},
		},
	})
	require.Equal(t, unread, snap.DevicesUnread())
	return snap
}

// As long as the ERP's list of switches was never read, who is found by the MAC or by what rows tell is answered, and nobody
// whom option 82 leads nowhere is refused or taken for a guest.
func TestDevicesUnread(t *testing.T) {
	at := func(n byte, q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch2, n); return q }
	discover := func(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Discover, MAC: mac} }
	reboot := func(mac provision.MAC, n byte) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, Options: []wire.Option{requested(host(n))}}
	}
	selecting := func(mac provision.MAC, n byte) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, Options: []wire.Option{requested(host(n)), chosen(serverIP)}}
	}
	extend := func(mac provision.MAC, n byte) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, CIAddr: host(n)}
	}
	nak := func(_ *Request, o *Options) { o.Unknown = UnknownNak }
	flat := func(r *Request, o *Options) { o.Pools = []Pool{flats()}; withGuestsToo(r, o) }
	byName := func(_ *Request, o *Options) { // which would read port 1 of the packet as port 3
		o.Option82 = line.Option82{Profiles: []line.Option82Profile{{Profile: ready(t, "cisco-catalyst"), Match: line.Option82Match{DeviceName: "sw*"}}}}
	}
	byMAC := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchMAC}; o.Unknown = UnknownNak }
	relayed := func(q wire.Query) wire.Query { // its switch by the relay's address, which a row has
		q.GIAddr, q.Option82 = ip("198.51.100.11"), []byte{1, 6, 0, 4, 0, 100, 0, 2}
		return q
	}
	had := with(bound(host(11), client(0x99), 1), func(r *lease.Record) { r.GIAddr, r.Option82 = relayIP, port(switch2, 9) })
	pooled := with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr, r.Option82 = relayIP, port(switch2, 9) })
	for _, tc := range []struct {
		name   string
		q      wire.Query
		change func(*Request, *Options)
		unread string
		read   string // when the list was read and lacks the switch
	}{
		{"unknown port", at(9, discover(stranger)), nak, "devices_unread", "unknown_device"},
		{"unknown port, guests", at(9, discover(stranger)), withGuests, "devices_unread", "pool_offer 192.0.2.201 by relay to 198.51.100.1:67 hold"},
		{"takes an offer", at(9, selecting(stranger, 99)), nak, "devices_unread", "nak_unknown by relay to 198.51.100.1:67"},
		{"asks for its last address", at(9, reboot(stranger, 99)), nak, "devices_unread", "nak_unknown by relay to 198.51.100.1:67"},
		{"renews", at(9, extend(stranger, 99)), nak, "devices_unread", "nak_unknown by relay to 198.51.100.1:67"},
		{"renews what the ERP has for somebody else", at(9, extend(stranger, 31)), nak, "devices_unread", "nak_unknown by relay to 198.51.100.1:67"},
		{"renews as a guest", at(9, extend(stranger, 201)), withGuests, "devices_unread", "pool_ack 192.0.2.201 by relay to 198.51.100.1:67 pool"},
		{"renews its own lease", at(9, extend(stranger, 11)), nak, "ack", "ack"},
		{"found by MAC", at(9, discover(client(0x31))), nak, "offer 192.0.2.31 by relay to 198.51.100.1:67", "offer 192.0.2.31 by relay to 198.51.100.1:67"},
		{"found by MAC, and asks for another address", at(9, reboot(client(0x31), 99)), nak, "devices_unread", "nak_wrong_address 192.0.2.31 by relay to 198.51.100.1:67"},
		{"without option 82", discover(client(0x98)), nak, "unknown_client", "unknown_client"},
		{"by what a row tells of the switch", relayed(discover(stranger)), nak, "offer 192.0.2.21 by relay to 198.51.100.11:67", "offer 192.0.2.21 by relay to 198.51.100.11:67"},
		{"which is refused another address", relayed(reboot(stranger, 99)), nak, "nak_wrong_address 192.0.2.21 by relay to 198.51.100.11:67", "nak_wrong_address 192.0.2.21 by relay to 198.51.100.11:67"},
		{"by a profile for names of switches", relayed(discover(stranger)), byName, "devices_unread", "offer 192.0.2.21 by relay to 198.51.100.11:67"},
		{"option 82 finds nobody here", at(9, selecting(stranger, 99)), byMAC, "nak_unknown by relay to 198.51.100.1:67", "nak_unknown by relay to 198.51.100.1:67"},
		{"a row without an address on a switch without an id", at(9, discover(client(0x41))), flat, "devices_unread", "pool_offer"},
		{"a row without an address", at(9, discover(client(0x51))), flat, "pool_offer", "pool_offer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for unread, want := range map[bool]string{true: tc.unread, false: tc.read} {
				opts := testOptions()
				r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: line.Ingress{Name: "eth0"}}}
				tc.change(r, &opts)
				cfg, err := Compile(opts)
				require.NoError(t, err)
				r.P.Read(tc.q.Append(nil))
				tab, snap := leases(had, pooled), unlisted(t, unread)
				d := decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg)
				if want == "pool_offer" || want == "ack" { // of one pool or another
					assert.Equal(t, want, d.Outcome.String())
					continue
				}
				assert.Equal(t, want, told(d), "unread: %v", unread)
			}
		})
	}
}
