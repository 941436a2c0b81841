package v4

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// The table, row by row: what is asked, what the record has, and what comes of it by which row.
func TestRules(t *testing.T) {
	const over = -time.Hour
	at := func(n byte, q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, n); return q }
	discover := func(mac provision.MAC) wire.Query { return wire.Query{Type: wire.Discover, MAC: mac} }
	selecting := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, Options: []wire.Option{chosen(serverIP), requested(a)}}
	}
	reboot := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, Options: []wire.Option{requested(a)}}
	}
	extend := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: mac, CIAddr: a}
	}
	release := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Release, MAC: mac, CIAddr: a}
	}
	decline := func(mac provision.MAC, a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Decline, MAC: mac, Options: []wire.Option{requested(a)}}
	}
	on := func(n byte, r lease.Record) lease.Record {
		r.GIAddr, r.Device, r.Port, r.Option82 = relayIP, 1, uint32(n), port(switch1, n)
		return r
	}
	inVLAN101 := func(r lease.Record, n byte) lease.Record { r = on(n, r); r.Option82[5] = 101; return r } // the same port
	onRelay := func(q wire.Query) wire.Query { q.GIAddr = relayIP; return q }
	unserved := func(_ *Request, o *Options) { o.Subnets = o.Subnets[1:] }
	onWire1 := func(r lease.Record) lease.Record { r.Interface = "eth0"; return r }
	away := func(r lease.Record, by time.Duration) lease.Record { r.Expires = testNow.Add(by); return r }
	macFirst := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchOption82 | MatchMAC, MatchMAC} }
	lax := func(_ *Request, o *Options) { o.Authoritative = false }
	laxToKnown := func(_ *Request, o *Options) { o.Authoritative, o.Unknown = false, UnknownNak }
	withFlats := func(r *Request, o *Options) {
		r.P.From, o.Pools = netip.AddrPortFrom(netip.IPv4Unspecified(), 68), []Pool{flats()}
	}
	from := func(a netip.Addr) func(*Request, *Options) {
		return func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(a, 68) }
	}
	overruled := func(r lease.Record) lease.Record { // the ERP had its MAC when the client got the address
		r.ERP.Direct = lease.ERPMAC{MAC: r.MAC, At: r.Start.UnixNano()}
		return r
	}
	besideRelay := func(r *Request, _ *Options) {
		r.P.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
		r.On = &provision.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(relayIP.Next(), 24)}}
	}
	onOtherWire := func(r *Request, o *Options) { // as besideRelay, but on an interface of routes.interfaces and of another network
		withGuests(r, o)
		r.P.From, r.HostRoutes = netip.AddrPortFrom(netip.IPv4Unspecified(), 68), true
		r.On = &provision.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(host(1), 24)}}
	}
	known, stranger := client(0x11), stranger
	at99 := func(n uint32, r lease.Record) lease.Record { r = on(99, r); r.Port = n; return r } // given by MAC at a port that the ERP lacks; n: the row's
	away41, away42 := at99(4, bound(host(41), client(0x41), 4)), at99(4, bound(host(42), client(0x42), 5))
	oneMAC := func(_ *Request, o *Options) { o.MaxPortMACs = 1 }
	byID := func(_ *Request, o *Options) {
		o.Match, o.ClientIDs = []MatchKind{MatchOption82, MatchClientID}, []ClientID{{Text: "cpe", IP: host(11)}}
	}
	inVLAN9 := func(r *Request, o *Options) {
		byID(r, o)
		o.Match, o.VLANInterfaces, r.P.Ingress.Name = []MatchKind{MatchVLAN, MatchClientID}, []string{"vlan{vlan}"}, "vlan9"
	}
	asCPE := func(q wire.Query) wire.Query {
		q.Options = append(q.Options, wire.Option{Code: wire.OptClientID, Value: []byte("cpe")})
		return q
	}
	full := leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5))
	const toRelay, onWire = " by relay to 198.51.100.1:67", " by broadcast"
	const toThere = " by relay to 203.0.113.1:67"
	there := func(q wire.Query) wire.Query { q.GIAddr = ip("203.0.113.1"); return q }
	atThere := func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = ip("203.0.113.1"), 3, "eth0" }
	lined := func(q wire.Query) wire.Query { q.Option82 = []byte{9, 1, 7}; return q }
	covered := map[string]bool{}
	for _, tc := range []struct {
		rule   string
		name   string
		q      wire.Query
		tab    *lease.Table
		change func(*Request, *Options)
		want   string
	}{
		{"discover_has", "by line", at(2, discover(stranger)), nil, nil, "offer 192.0.2.21" + toRelay},
		{"discover_has", "by MAC", discover(client(0x81)), nil, nil, "offer 192.0.2.81 by frame"},
		{"discover_has", "the line is more than the MAC", at(2, discover(known)), nil, nil, "offer 192.0.2.21" + toRelay},
		{"discover_has", "the line is more than another's live record", at(2, discover(stranger)), leases(on(2, bound(host(21), known, 2))), nil, "offer 192.0.2.21" + toRelay},
		{"discover_has", "the line is more than what its MACs got elsewhere", at(4, discover(stranger)), leases(away41, away42), nil, "offer 192.0.2.41" + toRelay},
		{"discover_has", "rather an address that nobody has", at(4, discover(stranger)), leases(away41), nil, "offer 192.0.2.42" + toRelay},
		{"discover_has", "nor does that count for max_macs_per_port", at(3, discover(client(0x31))), leases(at99(3, bound(host(32), client(0x32), 3))), oneMAC, "offer 192.0.2.31" + toRelay},
		{"discover_has", "what was given on the line does", at(3, discover(client(0x31))), leases(on(3, bound(host(32), client(0x32), 3))), oneMAC, "port_mac_limit 192.0.2.31"},
		{"discover_kept", "the switch inserts no option 82 any more", onRelay(discover(stranger)), leases(on(1, bound(host(11), stranger, 1))), nil, "offer 192.0.2.11" + toRelay},
		{"discover_less", "heard twice, on the wire without the relay's option 82", discover(stranger), leases(on(1, bound(host(11), stranger, 1))), besideRelay, "says_less 192.0.2.11"},
		{"discover_less", "also where leases have host routes", discover(stranger), leases(on(1, bound(host(11), stranger, 1))), func(r *Request, o *Options) { besideRelay(r, o); r.HostRoutes = true }, "says_less 192.0.2.11"},
		{"discover_none", "host routes bring no relay onto the wire: it is a guest there", discover(stranger), leases(on(1, bound(host(11), stranger, 1))), onOtherWire, "pool_offer 192.0.2.203 by frame hold"},
		{"discover_none", "on another wire somebody else may have the MAC", discover(stranger), leases(on(1, bound(host(11), stranger, 1))), from(netip.IPv4Unspecified()), "unknown_client"},
		{"discover_none", "the lease is of a line that has the address no more", onRelay(discover(stranger)), leases(on(9, bound(host(11), stranger, 77))), nil, "unknown_client"},
		{"discover_none", "another customer is live on the line's address", at(2, discover(stranger)), leases(on(9, bound(host(21), known, 9))), nil, "holder_live 192.0.2.21"},
		{"discover_has", "that lease is over", at(2, discover(stranger)), leases(on(9, away(bound(host(21), known, 9), over))), nil, "offer 192.0.2.21" + toRelay},
		{"discover_network", "behind a relay of another network", there(discover(known)), nil, nil, "wrong_network"},
		{"discover_none", "a MAC is less than another's live record", discover(client(0x11)), leases(on(1, bound(host(11), stranger, 1))), nil, "port_full"},
		{"discover_none", "a full line", at(4, discover(stranger)), full, nil, "port_full"},
		{"discover_none", "a full line, told in another way", at(4, discover(stranger)), leases(inVLAN101(away41, 4), inVLAN101(away42, 4)), nil, "port_full"},
		{"discover_none", "a full line, by leases of the port where its customers were before", at(4, discover(stranger)), leases(on(9, away41), on(9, away42)), nil, "port_full"},
		{"discover_none", "nobody", discover(stranger), nil, nil, "unknown_client"},
		{"discover_none", "the MAC is of another port, and this one is known", at(2, discover(known)), nil, macFirst, "mac_elsewhere"},
		{"discover_none", "the MAC's lease is live on another line", at(99, discover(known)), leases(on(1, bound(host(11), known, 1))), nil, "mac_elsewhere"},
		{"discover_has", "its lease is over: a foreign line is no proof of a wrong one", at(99, discover(known)), leases(on(1, away(bound(host(11), known, 1), over))), nil, "offer 192.0.2.11" + toRelay},
		{"discover_has", "a MAC without a port is found everywhere", at(99, discover(client(0x81))), leases(on(1, bound(host(81), client(0x81), 8))), nil, "offer 192.0.2.81" + toRelay},

		{"select_has", "", at(2, selecting(stranger, host(21))), nil, nil, "ack 192.0.2.21" + toRelay + " fact report"},
		{"select_has", "on the line a new router takes over", at(1, selecting(stranger, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "ack 192.0.2.11" + toRelay + " fact report"},
		{"select_has", "of what its MACs got elsewhere", at(4, selecting(stranger, host(42))), leases(away41, away42), nil, "ack 192.0.2.42" + toRelay + " fact report"},
		{"select_has", "by an identifier at a line that the ERP lacks, once more: the ERP is not told", at(99, asCPE(selecting(stranger, host(11)))), leases(at99(1, bound(host(11), stranger, 1))), byID, "ack 192.0.2.11" + toRelay + " background"},
		{"select_other", "", at(2, selecting(stranger, host(11))), nil, nil, "nak_wrong_address 192.0.2.21" + toRelay},
		{"select_other", "its own lease of that ends", at(2, selecting(stranger, host(11))), leases(on(2, bound(host(11), stranger, 77))), nil, "nak_wrong_address 192.0.2.21" + toRelay + " ends"},
		{"select_none", "", onRelay(selecting(stranger, host(11))), nil, nil, "nak_not_bound" + toRelay},
		{"select_none", "another customer is live on the line's address", at(2, selecting(stranger, host(21))), leases(on(9, bound(host(21), known, 9))), nil, "nak_other_client 192.0.2.21" + toRelay},
		{"select_kept", "the switch inserts no option 82 any more", onRelay(selecting(stranger, host(11))), leases(on(1, bound(host(11), stranger, 1))), nil, "ack 192.0.2.11" + toRelay + " background report"},
		{"select_less", "heard twice, first on the wire without the relay's option 82", selecting(stranger, host(11)), nil, from(netip.IPv4Unspecified()), "says_less 192.0.2.11"},
		{"select_less", "heard twice, then on the wire without the relay's option 82", selecting(stranger, host(11)), leases(on(1, bound(host(11), stranger, 1))), from(netip.IPv4Unspecified()), "says_less 192.0.2.11"},
		{"select_network", "", there(selecting(known, host(11))), nil, nil, "nak_wrong_network" + toThere},
		{"select_other", "of the other network, and the client has one here", there(selecting(client(0x81), host(81))), nil, nil, "nak_wrong_address 203.0.113.81" + toThere},
		{"select_less", "heard twice, and the ERP has its MAC already, but the router before still has the lease", selecting(known, host(11)), leases(on(1, bound(host(11), stranger, 1))), from(netip.IPv4Unspecified()), "says_less 192.0.2.11"},
		{"select_less", "heard twice, and the address is one that a pool gives to lines", selecting(stranger, host(210)), nil, withFlats, "says_less 192.0.2.210"},
		{"select_elsewhere", "the MAC's lease is live on another line", at(99, selecting(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "mac_elsewhere"},
		{"select_elsewhere", "heard twice, on the wire without the relay's option 82", selecting(known, host(11)), leases(on(1, bound(host(11), known, 1))), from(netip.IPv4Unspecified()), "mac_elsewhere"},

		{"reboot_has", "", at(1, reboot(known, host(11))), nil, nil, "ack 192.0.2.11" + toRelay + " fact"},
		{"reboot_other", "", at(2, reboot(known, host(11))), nil, nil, "nak_wrong_address 192.0.2.21" + toRelay},
		{"reboot_other", "not authoritative", at(2, reboot(known, host(11))), nil, lax, "not_authoritative"},
		{"reboot_gone", "two customers have swapped, the other one is still live", at(2, reboot(stranger, host(11))), leases(on(2, bound(host(11), stranger, 2)), on(1, bound(host(21), known, 1))), nil, "nak_not_bound 192.0.2.21" + toRelay + " ends"},
		{"reboot_gone", "the ERP gave it to another customer, and has none for the client", reboot(stranger, host(81)), leases(onWire1(bound(host(81), stranger, 77))), nil, "nak_not_bound" + onWire + " ends"},
		{"reboot_gone", "not authoritative", reboot(stranger, host(81)), leases(onWire1(bound(host(81), stranger, 77))), lax, "not_authoritative"},
		{"reboot_gone", "not authoritative, but unknown clients are refused", reboot(stranger, host(81)), leases(onWire1(bound(host(81), stranger, 77))), laxToKnown, "nak_unknown" + onWire + " ends"},
		{"reboot_none", "the same of a lease that is over: however long somebody renewed it for", reboot(stranger, host(81)), leases(onWire1(away(bound(host(81), stranger, 77), over))), laxToKnown, "nak_unknown" + onWire},
		{"reboot_full", "", at(4, reboot(stranger, host(41))), full, nil, "port_full"},
		{"reboot_full", "the MAC's lease is live on another line", at(99, reboot(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "mac_elsewhere"},
		{"reboot_kept", "the switch inserts no option 82 any more", onRelay(reboot(stranger, host(11))), leases(on(1, bound(host(11), stranger, 1))), nil, "ack 192.0.2.11" + toRelay + " background report"},
		{"reboot_less", "heard twice, on the wire without the relay's option 82", reboot(stranger, host(11)), nil, from(netip.IPv4Unspecified()), "says_less 192.0.2.11"},
		{"reboot_less", "heard twice, where unknown clients are refused", reboot(stranger, host(11)), leases(on(1, bound(host(11), stranger, 1))), func(r *Request, o *Options) {
			r.P.From, o.Unknown = netip.AddrPortFrom(netip.IPv4Unspecified(), 68), UnknownNak
		}, "says_less 192.0.2.11"},
		{"reboot_less", "heard twice, its last lease is over, and unknown clients are refused", reboot(stranger, host(210)), leases(on(1, away(with(bound(host(210), stranger, 1), func(r *lease.Record) { r.Pool = "flats" }), over))), func(r *Request, o *Options) {
			withFlats(r, o)
			o.Unknown = UnknownNak
		}, "says_less 192.0.2.210"},
		{"reboot_none", "", onRelay(reboot(stranger, host(11))), nil, nil, "init_reboot_unknown"},
		{"reboot_has", "of no subnet any more", at(1, reboot(known, host(11))), leases(on(1, bound(host(11), known, 1))), unserved, "nak_no_subnet 192.0.2.11" + toRelay + " ends"},
		{"reboot_network", "", there(reboot(known, host(11))), nil, nil, "nak_wrong_network" + toThere},
		{"reboot_network", "not authoritative", there(reboot(known, host(11))), nil, lax, "not_authoritative"},
		{"reboot_other", "of the other network, and the client has one here", there(reboot(client(0x81), host(81))), nil, nil, "nak_wrong_address 203.0.113.81" + toThere},
		{"reboot_overruled", "", reboot(stranger, host(81)), leases(onWire1(overruled(bound(host(81), stranger, 8)))), nil, "nak_overruled" + onWire + " ends"},
		{"reboot_overruled", "not authoritative", reboot(stranger, host(81)), leases(onWire1(overruled(bound(host(81), stranger, 8)))), lax, "not_authoritative"},
		{"reboot_none", "from elsewhere it is anybody's", reboot(stranger, host(81)), leases(with(overruled(bound(host(81), stranger, 8)), func(r *lease.Record) { r.Interface = "eth7" })), nil, "init_reboot_unknown"},

		{"extend_line_taken", "", at(1, extend(known, host(11))), leases(on(1, bound(host(11), stranger, 1))), nil, "nak_other_client" + toRelay},
		{"extend_line_has", "of no subnet any more", at(1, extend(known, host(11))), leases(on(1, bound(host(11), known, 1))), unserved, "nak_no_subnet 192.0.2.11" + toRelay + " ends"},
		{"extend_line_has", "", at(1, extend(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "ack 192.0.2.11" + toRelay + " background"},
		{"extend_line_has", "by an identifier at a line that the ERP lacks: the ERP is not told", at(99, asCPE(extend(stranger, host(11)))), leases(at99(1, bound(host(11), stranger, 1))), byID, "ack 192.0.2.11" + toRelay + " background"},
		{"extend_line_has", "by an identifier at its own line: the ERP is told", at(1, asCPE(extend(stranger, host(11)))), leases(on(1, bound(host(11), stranger, 1))), byID, "ack 192.0.2.11" + toRelay + " background report"},
		{"extend_line_other", "", at(2, extend(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "nak_wrong_address 192.0.2.21" + toRelay},
		{"extend_line_full", "", at(4, extend(stranger, host(41))), full, nil, "nak_other_client" + toRelay},
		{"extend_line_away", "another's MAC on a port that the ERP knows", at(2, extend(known, host(11))), leases(on(1, bound(host(11), known, 1))), macFirst, "nak_not_bound" + toRelay},
		{"extend_elsewhere", "the MAC of who is on a line", extend(stranger, host(11)), leases(on(1, bound(host(11), stranger, 1))), from(host(77)), "mac_elsewhere 192.0.2.11"},
		{"extend_elsewhere", "the MAC of who is on another wire", extend(stranger, host(11)), leases(with(bound(host(11), stranger, 1), func(r *lease.Record) { r.Interface = "eth7" })), from(host(11)), "mac_elsewhere 192.0.2.11"},
		{"extend_elsewhere", "an unknown line behind a relay of another network", there(lined(extend(known, host(11)))), leases(onWire1(bound(host(11), known, 1))), nil, "mac_elsewhere 192.0.2.11"},
		{"extend_pool_elsewhere", "", extend(stranger, host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Ifindex, r.Interface = 7, "eth7" })), withGuests, "mac_elsewhere 192.0.2.201"},
		{"extend_pool", "", extend(stranger, host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })), withGuests, "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew"},
		{"extend_pool", "the ERP gives it for good, past the relay", extend(stranger, host(11)), leases(on(1, with(bound(host(11), stranger, 1), func(r *lease.Record) { r.Pool = "flats" }))), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact report"},
		{"extend_pool", "the ERP gives it to another for good, past the relay", extend(stranger, host(11)), leases(on(9, with(bound(host(11), stranger, 9), func(r *lease.Record) { r.Pool = "flats" }))), nil, "nak_not_bound" + onWire},
		{"extend_taken", "", extend(known, host(11)), leases(on(1, bound(host(11), stranger, 1))), nil, "nak_other_client" + onWire},
		{"extend_network_other", "", there(extend(client(0x81), host(81))), leases(with(bound(host(81), client(0x81), 8), atThere)), nil, "nak_wrong_address 203.0.113.81" + toThere},
		{"extend_network", "", there(extend(known, host(11))), leases(with(bound(host(11), known, 1), atThere)), nil, "nak_wrong_network" + toThere},
		{"extend_network", "its line cannot be read", there(lined(extend(known, host(11)))), nil, nil, "nak_wrong_network" + toThere},
		{"extend_kept", "given there on a line, which this renewal does not tell", there(extend(known, host(11))),
			leases(with(on(1, bound(host(11), known, 1)), atThere)), nil, "ack 192.0.2.11" + toThere + " renew"},
		{"extend_elsewhere", "also where the ERP has another MAC since", extend(stranger, host(81)), leases(with(overruled(bound(host(81), stranger, 8)), func(r *lease.Record) { r.Interface = "eth7" })), from(host(81)), "mac_elsewhere 192.0.2.81"},
		{"extend_overruled", "", extend(stranger, host(81)), leases(onWire1(overruled(bound(host(81), stranger, 8)))), nil, "nak_overruled" + onWire + " ends"},
		{"extend_overruled", "a line that the ERP does not know vouches for nothing", at(99, extend(stranger, host(81))), leases(on(99, overruled(bound(host(81), stranger, 8)))), nil, "nak_overruled" + toRelay + " ends"},
		{"extend_kept", "past the relay, of a vouched line: a typing error cuts nobody off", extend(stranger, host(11)), leases(on(1, overruled(bound(host(11), stranger, 1)))), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew"},
		{"extend_line_has", "on the line: a typing error cuts nobody off", at(1, extend(stranger, host(11))), leases(on(1, overruled(bound(host(11), stranger, 1)))), nil, "ack 192.0.2.11" + toRelay + " background"},
		{"discover_has", "the ERP's new MAC is more than a live record of before", discover(client(0x81)), leases(onWire1(overruled(bound(host(81), stranger, 8))), bound(ip("203.0.113.81"), client(0x44), 8)), nil, "offer 192.0.2.81 by frame"},
		{"discover_none", "but not more than that of a vouched line", discover(known), leases(on(1, overruled(bound(host(11), stranger, 1)))), nil, "port_full"},
		{"select_has", "the ERP's new MAC", selecting(client(0x81), host(81)), leases(onWire1(overruled(bound(host(81), stranger, 8)))), nil, "ack 192.0.2.81 by frame fact"},
		{"extend_taken", "a renewal takes nothing over", extend(client(0x81), host(81)), leases(onWire1(overruled(bound(host(81), stranger, 8)))), nil, "nak_other_client" + onWire},
		{"extend_kept", "past the relay", extend(stranger, host(11)), leases(on(1, bound(host(11), stranger, 1))), nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew report"},
		{"extend_kept", "on a line that the ERP does not know: the record stays where it was", at(99, extend(stranger, host(11))), leases(on(1, bound(host(11), stranger, 1))), nil, "ack 192.0.2.11" + toRelay + " renew report"},
		{"extend_kept", "by an identifier in a VLAN that the ERP lacks: the ERP is not told", asCPE(extend(stranger, host(11))), leases(with(bound(host(11), stranger, 1), func(r *lease.Record) { r.Device, r.Port, r.Ifindex, r.Interface = 1, 1, 3, "vlan9" })), inVLAN9, "ack 192.0.2.11 by unicast to 192.0.2.11:68 background"},
		{"extend_gone", "", extend(stranger, host(11)), leases(on(9, bound(host(11), stranger, 77))), nil, "nak_not_bound" + onWire},
		{"extend_gone", "on our own wire the client hears it: its lease ends", extend(stranger, host(11)), leases(onWire1(bound(host(11), stranger, 77))), nil, "nak_not_bound" + onWire + " ends"},
		{"extend_has", "", extend(known, host(11)), nil, nil, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact"},
		{"extend_none", "", extend(stranger, host(11)), nil, nil, "renew_unknown"},

		{"release_same", "", at(1, release(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "released 192.0.2.11 release"},
		{"release_unsure", "past the relay", release(known, host(11)), leases(on(1, bound(host(11), known, 1))), from(host(11)), "released 192.0.2.11 release kept"},
		{"release_other", "another line", at(2, release(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "release_unknown"},
		{"release_other", "another client", at(1, release(stranger, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "release_unknown"},
		{"release_other", "through a relay, for a lease on our own wire", wire.Query{Type: wire.Release, MAC: known, CIAddr: host(11), GIAddr: relayIP}, leases(onWire1(bound(host(11), known, 1))), nil, "release_unknown"},
		{"decline_same", "", at(1, decline(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "declined 192.0.2.11 decline"},
		{"decline_unsure", "on a shared wire", decline(known, host(11)), leases(bound(host(11), known, 1)), nil, "declined 192.0.2.11 decline kept"},
		{"decline_has", "no lease", decline(known, host(11)), nil, nil, "declined 192.0.2.11"},
		{"decline_other", "", decline(stranger, host(11)), nil, nil, "decline_unknown"},
		{"decline_other", "another line", at(2, decline(known, host(11))), leases(on(1, bound(host(11), known, 1))), nil, "decline_unknown"},
	} {
		t.Run(tc.rule+"/"+tc.name, func(t *testing.T) {
			change := tc.change
			if change == nil {
				change = func(*Request, *Options) {}
			}
			d := run(t, tc.q, tc.tab, change)
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, tc.rule, d.Evidence.Rule.String())
			covered[tc.rule] = true
		})
	}
	for i := range rules {
		assert.True(t, covered[rules[i].name], "%s: no packet is decided by it", rules[i].name)
	}
}

// A client that comes through another relay, neither of which tells a line, is found there from then on.
func TestRecordFollowsItsClientToAnotherRelay(t *testing.T) {
	there := ip("198.51.100.2") // in no served network either: it says nothing of the client's
	rec := with(bound(host(81), client(0x81), 8), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = relayIP, 3, "eth0" })
	q := wire.Query{Type: wire.Request, MAC: client(0x81), GIAddr: there, Options: []wire.Option{chosen(serverIP), requested(host(81))}}
	d := run(t, q, leases(rec))
	require.Equal(t, "ack 192.0.2.81 by relay to 198.51.100.2:67 background", told(d))
	assert.Equal(t, there, d.Rec.GIAddr)
	rebind := wire.Query{Type: wire.Request, MAC: client(0x81), GIAddr: there, CIAddr: host(81)}
	assert.Equal(t, "ack 192.0.2.81 by relay to 198.51.100.2:67 renew", told(run(t, rebind, leases(d.Rec))))
	d = run(t, rebind, leases(rec))
	assert.Equal(t, "ack 192.0.2.81 by relay to 198.51.100.2:67 background", told(d), "a row without a port is found by MAC everywhere")
	assert.Equal(t, there, d.Rec.GIAddr, "and it is where it was found last")
	ported := with(bound(host(11), client(0x11), 1), func(r *lease.Record) { r.GIAddr, r.Ifindex, r.Interface = relayIP, 3, "eth0" })
	rebind.MAC, rebind.CIAddr = client(0x11), host(11)
	assert.Equal(t, "mac_elsewhere 192.0.2.11", told(run(t, rebind, leases(ported))), "of one with a port a renewal through another relay is anybody's")
}

// The words of the page for what a row asks. What it says of a lease may be more than the row asks where that follows from the rest.
var (
	pageMessages = map[string]message{
		"DISCOVER": msgDiscover, "DISCOVER without a line": msgDiscover, "REQUEST of an offer": msgSelecting, "REQUEST of an offer, without a line": msgSelecting,
		"REQUEST after a restart": msgReboot, "REQUEST after a restart, without a line": msgReboot, "renewal that tells a line": msgExtendAt, "renewal without a line": msgExtend,
		"renewal without a line, from another network": msgExtend, "any renewal": msgExtendAt | msgExtend, "any renewal, from another network": msgExtendAt | msgExtend,
		"RELEASE": msgRelease, "DECLINE": msgDecline,
	}
	pageRecords = map[string]standing{
		"": 0, "the client's, live, through a relay on this wire": 0, "none, or another's": recNone | recOther, "another client's, live": recOther,
		"the client's, live, and the ERP has it there": recKept, "the client's, and the ERP has it there": recKept,
		"the client's, live, and the ERP has it elsewhere or for nobody": recGone, "the client's, and the ERP has it elsewhere or for nobody": recGone,
		"the client's, and the operator gave it to another MAC since, no vouched line": recOverruled, "the client's, live, or over and of another network": recKept | recGone | recOverruled, "the client's, live": recKept | recGone | recOverruled,
		"the client's, of a pool, live": recPool, "the client's, of a pool": recPool, "the client's": recOwn,
	}
	pageClaims = map[string]claim{
		"": 0, "anything else": 0, "line or MAC has one": hasIt, "line or MAC has it": hasIt, "line or MAC has another": hasOne, "line or MAC is full": isFull,
		"MAC has it": macHas, "MAC has another there": macOther, "nobody": untold, "nobody, and the address is found by a line": untold, "line or MAC is full, or nobody": isFull | nobody,
		"line or MAC is full, or the MAC is of another line": isFull | macAway | macLive, "the MAC, or a last lease that is over, is of another line, and the ERP knows this one": macAway,
		"the MAC is of a line whose lease is live elsewhere": macLive, "the MAC is of addresses of other networks only": macNetwork,
	}
	pagePlaces = map[string]place{
		"": 0, "anything else": 0, "the same, vouched for": placeSame, "the same, or may be": placeSame | placeUnsure, "may be the same": placeUnsure, "elsewhere": placeOther,
	}
	pageActions = map[string][]action{ // by how the words begin
		"OFFER": {giveIt}, "ACK": {giveIt}, "NAK": {nakWrong, nakOther, nakNotBound, nakOverruled, nakNetwork}, "an address of a pool": {usePool}, "of a pool": {usePool},
		"what the pool says": {usePool}, "silence": {stay, leaveIt, unknown}, "the lease ends": {endLease}, "marked": {markLease}, "counted": {noteIt}, "nothing": {ignoreIt},
	}
)

// The page for people has the same rows in the same order, and they ask and do the same.
func TestRulesAreThoseOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/dhcp-matching.md")
	require.NoError(t, err)
	text := regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`).ReplaceAllString(string(page), "$1") // links
	rows := regexp.MustCompile("(?m)^\\| `((?:discover|select|reboot|extend|release|decline)_[a-z_]+)` \\|(.*)\\|$").FindAllStringSubmatch(text, -1)
	require.Len(t, rows, len(rules))
	for i, m := range rows {
		r, cells := rules[i], strings.Split(m[2], "|")
		require.Equal(t, r.name, m[1])
		require.Len(t, cells, 5, r.name)
		for j := range cells {
			cells[j] = strings.TrimSpace(cells[j])
		}
		if r.on == msgExtend {
			r.claim &^= lineHas | lineOther | lineFull // it tells no line
		}
		on, known := pageMessages[cells[0]]
		assert.True(t, known && on == r.on, "%s: message %q", r.name, cells[0])
		record, known := pageRecords[cells[1]]
		assert.True(t, known && record == r.record, "%s: record %q", r.name, cells[1])
		claim, known := pageClaims[cells[2]]
		assert.True(t, known && claim == r.claim, "%s: evidence %q", r.name, cells[2])
		place, known := pagePlaces[cells[3]]
		assert.True(t, known && place == r.place, "%s: place %q", r.name, cells[3])
		done := false
		for words, do := range pageActions {
			done = done || strings.HasPrefix(cells[4], words) && slices.Contains(do, r.do)
		}
		assert.True(t, done, "%s: what happens: %q", r.name, cells[4])
	}
}

// A lease that is over and is renewed by its MAC from elsewhere begins there: at the port where it was before nobody is known to be.
func TestLeaseThatIsOverBeginsWhereItsClientIs(t *testing.T) {
	rec := with(expired(host(11), client(0x11), 1), func(r *lease.Record) {
		r.GIAddr, r.Device, r.Port, r.Option82, r.Interface = relayIP, 1, 1, port(switch1, 1), "eth9"
	})
	renewal := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(11)}
	from := func(a netip.Addr) func(*Request, *Options) {
		return func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(a, 68) }
	}
	d := run(t, renewal, leases(rec), from(host(77)))
	require.Equal(t, "ack 192.0.2.11 by unicast to 192.0.2.11:68 fact", told(d))
	assert.Equal(t, []any{"eth0", 0, false}, []any{d.Rec.Interface, len(d.Rec.Option82), d.Rec.GIAddr.IsValid()})
	d = run(t, renewal, leases(rec), from(host(11)))
	assert.Equal(t, []any{"eth9", relayIP}, []any{d.Rec.Interface, d.Rec.GIAddr}, "past its relay it is where it was")
}

// Who takes over on a line what another one got elsewhere is not in a fight with it, and may have to give it up to a new router at once.
func TestWhatWasGotElsewhereIsNoFight(t *testing.T) {
	given := func(n byte) *lease.Table {
		return leases(with(bound(host(11), client(0x11), 1), func(r *lease.Record) {
			r.GIAddr, r.Device, r.Port, r.Option82 = relayIP, 1, 1, port(switch1, n)
		}))
	}
	q := wire.Query{Type: wire.Request, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{requested(host(11)), chosen(serverIP)}}
	assert.Equal(t, client(0x11), run(t, q, given(1)).Rec.Prior)
	d := run(t, q, given(99))
	require.Equal(t, "ack 192.0.2.11 by relay to 198.51.100.1:67 fact report", told(d))
	assert.Zero(t, d.Rec.Prior)
}

// What a refused client had stands in its record of the address that it asked for, whatever some clients leave in ciaddr.
func TestRefusedRecordIsThatOfTheAddressAskedFor(t *testing.T) {
	taken := with(bound(host(11), was, 1), func(r *lease.Record) {
		r.GIAddr, r.Interface, r.Option82, r.Subscriber, r.Device, r.Port = relayIP, "eth0", port(switch1, 2), 2, 1, 2
	})
	q := wire.Query{Type: wire.Request, MAC: was, CIAddr: host(99), GIAddr: relayIP, Option82: port(switch1, 2), Options: []wire.Option{requested(host(11)), chosen(serverIP)}}
	d := run(t, q, leases(taken))
	assert.Equal(t, "nak_wrong_address 192.0.2.21 by relay to 198.51.100.1:67 ends", told(d))
	assert.Equal(t, host(11), d.Rec.IP)
	d = run(t, q, leases(with(taken, func(r *lease.Record) { r.MAC = stranger }), bound(host(99), client(0x98), 1)))
	assert.Equal(t, "nak_wrong_address 192.0.2.21 by relay to 198.51.100.1:67", told(d))
}

// A lease that a clock ahead by years has given keeps its address from nobody whom the ERP gives it to since; after a small step
// back of the clock it still counts.
func TestHolderFromAClockThatWasAhead(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2)}
	ahead := func(d time.Duration) *lease.Table {
		return leases(with(bound(host(21), client(0x98), 77), func(r *lease.Record) {
			r.Start, r.Renewed, r.Expires = testNow.Add(d), testNow.Add(d), testNow.Add(d+time.Hour)
		}))
	}
	assert.Equal(t, "holder_live 192.0.2.21", told(run(t, q, ahead(-time.Minute))))
	assert.Equal(t, "holder_live 192.0.2.21", told(run(t, q, ahead(time.Minute))))
	assert.Equal(t, "offer 192.0.2.21 by relay to 198.51.100.1:67", told(run(t, q, ahead(4*365*24*time.Hour))))
}
