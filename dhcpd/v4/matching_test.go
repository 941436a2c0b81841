package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

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

// decideIn decides about q as in run, with the data of vlanWorld and on the
// interface of a name.
func decideIn(t testing.TB, iface string, q wire.Query, tab *lease.Table, change func(*Options)) Decision {
	t.Helper()
	opts := testOptions()
	opts.VLANInterfaces = []string{"vlan{vlan}", "eth1.{svlan}.{vlan}"}
	opts.Match = []MatchKind{MatchOption82, MatchVLAN, MatchClientID, MatchMAC}
	if change != nil {
		change(&opts)
	}
	cfg, err := Compile(opts)
	require.NoError(t, err)
	r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{Ingress: cfg.line.Ingress(iface)}}
	r.P.Read(q.Append(nil))
	if tab == nil {
		tab = lease.New()
	}
	return decideAt(testNow, r, vlanWorld(t), tab, nil, cfg)
}

func order(kinds ...MatchKind) func(*Options) { return func(o *Options) { o.Match = kinds } }

func clientID(b ...byte) wire.Option { return wire.Option{Code: wire.OptClientID, Value: b} }

func TestMatchByVLAN(t *testing.T) {
	vlanOnly, both := order(MatchVLAN), order(MatchVLAN|MatchMAC)
	relayOnly := func(o *Options) { vlanOnly(o); o.Relays = []netip.Prefix{netip.PrefixFrom(relayIP, 32)} }
	for _, tc := range []struct {
		name   string
		iface  string
		q      wire.Query
		change func(*Options)
		want   string
		by     string
	}{
		{"the customer of the VLAN", "vlan200", wire.Query{Type: wire.Discover, MAC: stranger}, nil, "offer 192.0.2.21 by frame", "vlan"},
		{"QinQ", "eth1.7.200", wire.Query{Type: wire.Discover, MAC: stranger}, nil, "offer 192.0.2.21 by frame", "vlan"},
		{"another interface", "eth0", wire.Query{Type: wire.Discover, MAC: stranger}, nil, "unknown_client", ""},
		{"a VLAN of nobody", "vlan400", wire.Query{Type: wire.Discover, MAC: stranger}, nil, "unknown_vlan", ""},
		{"a VLAN of nobody, but the MAC is known", "vlan400", wire.Query{Type: wire.Discover, MAC: client(0x51)}, nil, "offer 192.0.2.51 by frame", "mac"},
		{"a VLAN of two", "vlan300", wire.Query{Type: wire.Discover, MAC: stranger}, nil, "vlan_shared", ""},
		{"a VLAN of two, and the MAC", "vlan300", wire.Query{Type: wire.Discover, MAC: client(0x41)}, both, "offer 192.0.2.41 by frame", "vlan+mac"},
		{"the MAC is in another VLAN", "vlan200", wire.Query{Type: wire.Discover, MAC: client(0x41)}, both, "match_disagrees", ""},
		{"relayed: the interface is not the client's", "vlan200", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP}, relayOnly, "unknown_client", ""},
		{"relayed from there by somebody else", "vlan200", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP}, vlanOnly, "relay_interface", ""},
		{"option 82 first", "vlan200", wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 2)}, nil, "offer 192.0.2.52 by frame", "option82"},
		{"vlan first", "vlan200", wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 2)}, order(MatchVLAN, MatchOption82), "offer 192.0.2.21 by frame", "vlan"},
		{"port and VLAN: one of the port's addresses", "vlan102", wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 1)}, order(MatchOption82 | MatchVLAN), "offer 192.0.2.12 by frame", "option82+vlan"},
		{"port and MAC", "eth0", wire.Query{Type: wire.Discover, MAC: client(0x11), Option82: port(switch1, 1)}, order(MatchOption82 | MatchMAC), "offer 192.0.2.11 by frame", "option82+mac"},
		{"port without the MAC", "eth0", wire.Query{Type: wire.Discover, MAC: client(0x51), Option82: port(switch1, 1)}, order(MatchOption82 | MatchMAC), "match_disagrees", ""},
		{"an unknown port stays the reason", "eth0", wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 9)}, nil, "unknown_port", ""},
		{"renewal past no relay: the VLAN says", "vlan200", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)}, nil, "ack 192.0.2.21 by unicast to 192.0.2.21:68 fact report", "vlan"},
		{"renewal of what the VLAN does not have", "vlan200", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(22)}, nil, "nak_wrong_address 192.0.2.21 by broadcast", "vlan"},
		{"renewal in a VLAN of two: by MAC", "vlan300", wire.Query{Type: wire.Request, MAC: client(0x41), CIAddr: host(41)}, nil, "ack 192.0.2.41 by unicast to 192.0.2.41:68 fact", "mac"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := decideIn(t, tc.iface, tc.q, nil, tc.change)
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, tc.by, d.Match.By.String())
		})
	}
}

func TestMatchByClientID(t *testing.T) {
	duidLL := append([]byte{255, 0, 0, 0, 1, 0, 3, 0, 1}, stranger[:]...)
	withTable := func(o *Options) {
		o.ClientIDs = []ClientID{
			{Text: "gateway-7", IP: host(21)}, {Hex: []byte{255, 1}, IP: host(99)}, {Hex: duidLL, IP: host(53)},
		}
	}
	mac51 := client(0x51)
	type1 := append([]byte{1}, mac51[:]...)
	for _, tc := range []struct {
		name   string
		id     []byte
		q      wire.Query
		change func(*Options)
		want   string
		by     string
	}{
		{"text, bare", []byte("gateway-7"), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "offer 192.0.2.21 by frame", "client_id"},
		{"text after its type", []byte("\x00gateway-7"), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "offer 192.0.2.21 by frame", "client_id"},
		{"text of a C string", []byte("gateway-7\x00"), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "offer 192.0.2.21 by frame", "client_id"},
		{"text of a C string after its type", []byte("\x00gateway-7\x00"), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "offer 192.0.2.21 by frame", "client_id"},
		{"bytes are compared to the last", append(duidLL[:len(duidLL):len(duidLL)], 0), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "unknown_client", ""},
		{"who lists the very bytes has the word", []byte("gateway-7\x00"), wire.Query{Type: wire.Discover, MAC: stranger}, func(o *Options) {
			withTable(o)
			o.ClientIDs = append(o.ClientIDs, ClientID{Hex: []byte("gateway-7\x00"), IP: host(53)})
		}, "offer 192.0.2.53 by frame", "client_id"},
		{"text and more", []byte("gateway-77"), wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "unknown_client", ""},
		{"an address that is nobody's", []byte{255, 1}, wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "unknown_client", ""},
		{"bytes", duidLL, wire.Query{Type: wire.Discover, MAC: stranger}, withTable, "offer 192.0.2.53 by frame", "client_id"},
		{"MAC of type 1", type1, wire.Query{Type: wire.Discover, MAC: stranger}, nil, "offer 192.0.2.51 by frame", "client_id"},
		{"MAC of a DUID-LL", append([]byte{255, 0, 0, 0, 1, 0, 3, 0, 1}, mac51[:]...), wire.Query{Type: wire.Discover, MAC: stranger}, nil, "offer 192.0.2.51 by frame", "client_id"},
		{"MAC of a DUID-LLT", append([]byte{255, 0, 0, 0, 1, 0, 1, 0, 1, 1, 2, 3, 4}, mac51[:]...), wire.Query{Type: wire.Discover, MAC: stranger}, nil, "offer 192.0.2.51 by frame", "client_id"},
		{"not in the order", type1, wire.Query{Type: wire.Discover, MAC: stranger}, order(MatchOption82, MatchMAC), "unknown_client", ""},
		{"both MACs must agree", type1, wire.Query{Type: wire.Discover, MAC: stranger}, order(MatchClientID | MatchMAC), "unknown_client", ""},
		{"both MACs agree", type1, wire.Query{Type: wire.Discover, MAC: mac51}, order(MatchClientID | MatchMAC), "offer 192.0.2.51 by frame", "client_id+mac"},
		{"the port's address with that identifier", duidLL, wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 2)}, func(o *Options) {
			withTable(o)
			o.Match = []MatchKind{MatchOption82 | MatchClientID}
		}, "offer 192.0.2.53 by frame", "option82+client_id"},
		{"another port than the identifier's address", duidLL, wire.Query{Type: wire.Discover, MAC: stranger, Option82: port(switch1, 1)}, func(o *Options) {
			withTable(o)
			o.Match = []MatchKind{MatchOption82 | MatchClientID}
		}, "match_disagrees", ""},
		{"the ERP's MAC is the identifier's: nothing to report", type1, wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{requested(host(51))}}, nil, "ack 192.0.2.51 by frame fact", "client_id"},
		{"an address without a MAC learns chaddr", []byte("gateway-7"), wire.Query{Type: wire.Request, MAC: stranger, Options: []wire.Option{requested(host(21))}}, withTable, "ack 192.0.2.21 by frame fact report", "client_id"},
		{"renewal without a lease record", []byte("gateway-7"), wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)}, withTable, "ack 192.0.2.21 by unicast to 192.0.2.21:68 fact report", "client_id"},
		{"renewal of an address that is not the identifier's", []byte("gateway-7"), wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(11)}, withTable, "renew_unknown", "client_id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.q.Options = append(tc.q.Options, clientID(tc.id...))
			d := decideIn(t, "eth0", tc.q, nil, tc.change)
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, tc.by, d.Match.By.String())
		})
	}
	t.Run("not from a live lease of another", func(t *testing.T) {
		q := wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{clientID(type1...)}}
		assert.Equal(t, "port_full", told(decideIn(t, "eth0", q, leases(bound(host(51), client(0x77), 5)), nil)))
	})
}

func TestTrust(t *testing.T) {
	only := func(o *Options) { o.TrustedInterfaces = []string{"eth1.*", "core"} }
	direct := wire.Query{Type: wire.Discover, MAC: client(0x11), Option82: port(switch1, 1)}
	relayed := direct
	relayed.GIAddr = relayIP
	bare := wire.Query{Type: wire.Discover, MAC: client(0x11)}
	known := wire.Query{Type: wire.Discover, MAC: client(0x51), Option82: port(switch1, 1)}
	broken := wire.Query{Type: wire.Discover, MAC: client(0x51), Option82: []byte{1, 9, 0}}
	direct.MAC = stranger
	none := func(o *Options) { o.TrustedInterfaces = []string{line.NoInterface} }
	for _, tc := range []struct {
		name   string
		iface  string
		q      wire.Query
		change func(*Options)
		want   outcome.Outcome
	}{
		{"no list: everywhere", "eth9", direct, nil, outcome.Offer},
		{"by name", "core", direct, only, outcome.Offer},
		{"by pattern", "eth1.7", direct, only, outcome.Offer},
		{"elsewhere", "eth9", direct, only, outcome.Option82Untrusted},
		{"an interface that is gone", "", direct, only, outcome.Option82Untrusted},
		{"nowhere", "core", direct, none, outcome.Option82Untrusted},
		{"elsewhere, and the ERP has the MAC", "eth9", known, only, outcome.Offer},
		{"it is not read where it is not believed", "eth9", broken, only, outcome.Offer},
		{"through a relay the relay is trusted", "eth9", relayed, only, outcome.Offer},
		{"without option 82 there is nothing to believe", "eth9", bare, only, outcome.Offer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := decideIn(t, tc.iface, tc.q, nil, tc.change)
			assert.Equal(t, tc.want, d.Outcome)
			assert.Equal(t, tc.want == outcome.Offer, d.Reply.Type != 0)
		})
	}
	for _, tc := range []struct {
		name  string
		from  string
		check line.SourceCheck
		want  outcome.Outcome
		by    Voucher
	}{
		{"nothing is said", "192.0.2.66", line.SourceUnsaid, outcome.Offer, VoucherSource},
		{"not checked", "192.0.2.66", line.SourceAny, outcome.Offer, VoucherSource},
		{"the relay itself", "198.51.100.1", line.SourceListed, outcome.Offer, VoucherRelay},
		{"another listed relay that forwards", "198.51.100.9", line.SourceListed, outcome.Offer, VoucherRelay},
		{"somebody else", "192.0.2.66", line.SourceListed, outcome.RelaySource, VoucherNone},
		{"as IPv6 sockets give it", "::ffff:198.51.100.1", line.SourceListed, outcome.Offer, VoucherRelay},
	} {
		t.Run("source: "+tc.name, func(t *testing.T) {
			var asked *Request
			d := run(t, relayed, nil, func(r *Request, o *Options) {
				r.P.From = netip.AddrPortFrom(ip(tc.from), 67)
				o.CheckRelaySource, asked = tc.check, r
			})
			assert.Equal(t, tc.want, d.Outcome)
			assert.Equal(t, tc.by, asked.Trust.By)
		})
	}
}

func TestMACChange(t *testing.T) {
	onPort := func(r lease.Record) lease.Record { r.GIAddr, r.Option82 = relayIP, port(switch1, 1); return r }
	discover := func(n byte) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, n)}
	}
	renew := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(11)}
	for _, tc := range []struct {
		name string
		how  MACChange
		q    wire.Query
		tab  *lease.Table
		want string
	}{
		{"accept", MACAccept, discover(1), nil, "offer 192.0.2.11 by relay to 198.51.100.1:67"},
		{"report", MACReport, discover(1), nil, "mac_reported 192.0.2.11 report"},
		{"refuse", MACRefuse, discover(1), nil, "mac_refused 192.0.2.11"},
		{"an address without a MAC learns it", MACRefuse, discover(2), nil, "offer 192.0.2.21 by relay to 198.51.100.1:67"},
		{"a free address of the port is better than a refusal", MACRefuse, discover(3), nil, "offer 192.0.2.32 by relay to 198.51.100.1:67"},
		{"even if the client had the other one", MACRefuse, discover(3), leases(bound(host(31), stranger, 3)), "offer 192.0.2.32 by relay to 198.51.100.1:67"},
		{"the ERP's own MAC", MACRefuse, wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1)}, nil, "offer 192.0.2.11 by relay to 198.51.100.1:67"},
		{"a renewal is not answered either", MACRefuse, renew, leases(bound(host(11), stranger, 1)), "mac_refused 192.0.2.11"},
		{"a renewal is reported", MACReport, renew, leases(onPort(bound(host(11), stranger, 1))), "mac_reported 192.0.2.11 report"},
		{"unless nobody vouched for its line", MACReport, renew, leases(bound(host(11), stranger, 1)), "mac_refused 192.0.2.11"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, tc.q, tc.tab, func(_ *Request, o *Options) { o.MACChange = tc.how })
			assert.Equal(t, tc.want, told(d))
			assert.Equal(t, d.Outcome.Answered(), d.Reply.Type != 0)
			if d.Outcome == outcome.MACReported {
				assert.Equal(t, lease.Record{IP: host(11), Subscriber: 1, ERP: d.Rec.ERP}, d.Rec)
			}
		})
	}
}

func TestMACsPerPort(t *testing.T) {
	q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 3)} // .31 is 0x31's, .32 and .33 are free
	two := leases(bound(host(31), client(0x31), 3), bound(host(32), client(0x77), 3))
	for _, tc := range []struct {
		name  string
		q     wire.Query
		limit int
		tab   *lease.Table
		want  string
	}{
		{"no limit", q, 0, two, "offer 192.0.2.33 by relay to 198.51.100.1:67"},
		{"below it", q, 3, two, "offer 192.0.2.33 by relay to 198.51.100.1:67"},
		{"at it", q, 2, two, "port_mac_limit 192.0.2.33"},
		{"one MAC with two addresses counts once", q, 2, leases(bound(host(31), client(0x31), 3), bound(host(32), client(0x31), 3)), "offer 192.0.2.33 by relay to 198.51.100.1:67"},
		{"a lease that is over does not count", q, 2, leases(bound(host(31), client(0x31), 3), expired(host(32), client(0x77), 3)), "offer 192.0.2.32 by relay to 198.51.100.1:67"},
		{"who is there already stays", wire.Query{Type: wire.Request, MAC: client(0x77), CIAddr: host(32)}, 1, two, "ack 192.0.2.32 by unicast to 192.0.2.32:68 fact report"},
		{"who is there already may ask for the same", wire.Query{Type: wire.Discover, MAC: client(0x77), GIAddr: relayIP, Option82: port(switch1, 3)}, 1, two, "offer 192.0.2.32 by relay to 198.51.100.1:67"},
		{"a new router takes the only address over", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 1)}, 1, leases(bound(host(11), client(0x11), 1)), "offer 192.0.2.11 by relay to 198.51.100.1:67"},
		{"a port known by name", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: named("ge-0/0/5", switch2[:]...)}, 1, nil, "offer 192.0.2.71 by relay to 198.51.100.1:67"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, tc.q, tc.tab, func(_ *Request, o *Options) { o.MaxPortMACs = tc.limit })
			assert.Equal(t, tc.want, told(d))
		})
	}
}

func TestClientKey(t *testing.T) {
	byID := func(_ *Request, o *Options) { o.ClientKey = ClientKeyID }
	laptop := bound(host(21), client(0x77), 2)
	laptop.ClientID = []byte("laptop")
	id := func(s string, o ...wire.Option) []wire.Option { return append(o, clientID([]byte(s)...)) }
	for _, tc := range []struct {
		name       string
		q          wire.Query
		byMAC, key string
	}{
		{"the same identifier behind another card renews", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21), Options: id("laptop")},
			"nak_other_client by broadcast", "ack 192.0.2.21 by unicast to 192.0.2.21:68 fact report"},
		{"the same card with another identifier does not", wire.Query{Type: wire.Request, MAC: client(0x77), CIAddr: host(21), Options: id("other")},
			"renew_unknown", "nak_other_client by broadcast"},
		{"the same card without one does not", wire.Query{Type: wire.Request, MAC: client(0x77), CIAddr: host(21)},
			"ack 192.0.2.21 by unicast to 192.0.2.21:68 fact report", "nak_other_client by broadcast"},
		{"release", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(21), Options: id("laptop")},
			"release_unknown", "released 192.0.2.21 release kept"},
		{"decline", wire.Query{Type: wire.Decline, MAC: stranger, Options: id("laptop", requested(host(21)))},
			"decline_unknown", "declined 192.0.2.21 decline kept"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.byMAC, told(run(t, tc.q, leases(laptop))))
			d := run(t, tc.q, leases(laptop), byID)
			assert.Equal(t, tc.key, told(d))
			if d.Change == ChangeRelease || d.Change == ChangeDecline {
				assert.Equal(t, client(0x77), d.Rec.MAC, "the lease is found by the MAC that it has")
			}
		})
	}
}

// A client whose address the ERP took away: NAK at once, or a minute more and then NAK.
func TestBindingChange(t *testing.T) {
	shorten := func(_ *Request, o *Options) { o.BindingChange = BindingShorten }
	old := bound(host(99), client(0x11), 1) // customer 1 has .11 now
	old.Expires = testNow.Add(time.Hour)
	renew := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(99)}
	rebind := renew
	rebind.GIAddr, rebind.Option82 = relayIP, port(switch1, 1)
	short := old
	short.Renewed, short.Expires = testNow.Add(-30*time.Second), testNow.Add(30*time.Second)
	gone := expired(host(99), client(0x11), 1)
	taken := bound(host(21), client(0x11), 1) // bound to customer 2 by now
	taken.Expires = testNow.Add(time.Hour)
	for _, tc := range []struct {
		name           string
		q              wire.Query
		tab            *lease.Table
		nak, shortened string
	}{
		{"renewing past the relay", renew, leases(old), "nak_not_bound by broadcast ends", "ack_shortened 192.0.2.99 by unicast to 192.0.2.99:68 renew"},
		{"with option 82", rebind, leases(old), "nak_wrong_address 192.0.2.11 by relay to 198.51.100.1:67 ends", "ack_shortened 192.0.2.99 by relay to 198.51.100.1:67 renew"},
		{"a second time", rebind, leases(short), "nak_wrong_address 192.0.2.11 by relay to 198.51.100.1:67 ends", "nak_wrong_address 192.0.2.11 by relay to 198.51.100.1:67 ends"},
		{"a lease that is over", renew, leases(gone), "nak_not_bound by broadcast", "nak_not_bound by broadcast"},
		{"somebody else has it", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(21)}, leases(taken), "nak_not_bound by broadcast ends", "nak_not_bound by broadcast ends"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.nak, told(run(t, tc.q, tc.tab)))
			d := run(t, tc.q, tc.tab, shorten)
			assert.Equal(t, tc.shortened, told(d))
			if d.Outcome == outcome.AckShortened {
				assert.EqualValues(t, []uint32{60, 30, 52}, []uint32{d.Reply.LeaseTime, d.Reply.RenewTime, d.Reply.RebindTime})
				assert.Equal(t, testNow.Add(time.Minute), d.Rec.Expires)
				assert.Equal(t, host(99), d.Reply.YIAddr)
			}
		})
	}
}

// Past the relay nobody knows whether the client hears that its time is short: the lease stays as long as it was until the client is refused
// through its relay, or over.
func TestShortenedPastTheRelay(t *testing.T) {
	shorten := func(_ *Request, o *Options) { o.BindingChange = BindingShorten }
	old := with(bound(host(21), client(0x11), 1), func(r *lease.Record) { // bound to customer 2 by now
		r.GIAddr, r.Option82, r.Device, r.Port, r.Expires = relayIP, port(switch1, 1), 1, 1, testNow.Add(50*time.Minute)
	})
	renewed := func(before time.Duration) *lease.Table {
		return leases(with(old, func(r *lease.Record) { r.Renewed = testNow.Add(-before) }))
	}
	renew := wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(21)}
	rebind := renew
	rebind.GIAddr, rebind.Option82 = relayIP, port(switch1, 1)
	const refused, short = "nak_wrong_address 192.0.2.11 by relay to 198.51.100.1:67 ends", "ack_shortened 192.0.2.21 by unicast to 192.0.2.21:68 renew"
	for _, tc := range []struct {
		name string
		q    wire.Query
		tab  *lease.Table
		want string
	}{
		{"the first time", renew, renewed(30 * time.Minute), short},
		{"at T1 of that", renew, renewed(30 * time.Second), "nak_not_bound by broadcast"},
		{"a plain renewal was a moment ago", renew, leases(with(old, func(r *lease.Record) {
			r.Start, r.Renewed, r.Expires = testNow.Add(-time.Hour), testNow.Add(-2*time.Second), testNow.Add(time.Hour-2*time.Second)
		})), short},
		{"at T2 of that", rebind, renewed(52 * time.Second), refused},
		{"it did not hear that", renew, renewed(2 * time.Minute), short},
		{"what it has is its first ACK", renew, leases(with(old, func(r *lease.Record) { r.Start, r.Renewed = testNow, testNow })), short},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := run(t, tc.q, tc.tab, shorten)
			assert.Equal(t, tc.want, told(d))
			if tc.want == short {
				assert.EqualValues(t, []uint32{60, 30, 52}, []uint32{d.Reply.LeaseTime, d.Reply.RenewTime, d.Reply.RebindTime})
				assert.Equal(t, testNow, d.Rec.Renewed)
				was, _ := tc.tab.Get(host(21))
				assert.Equal(t, was.Expires, d.Rec.Expires)
			}
		})
	}
	soon := with(old, func(r *lease.Record) { r.Renewed, r.Expires = testNow.Add(-time.Hour), testNow.Add(10*time.Second) })
	d := run(t, renew, leases(soon), shorten)
	assert.Equal(t, short, told(d))
	assert.Equal(t, testNow.Add(time.Minute), d.Rec.Expires, "not before what it is told now")
}

// What the ERP moves from one customer to another with the same device is that device's still, where its MAC alone tells who it is.
func TestOneDeviceOfTwoCustomers(t *testing.T) {
	rec := bound(host(81), fresh, 77)
	renew := wire.Query{Type: wire.Request, MAC: fresh, CIAddr: host(81)}
	byMAC := func(in *provision.Input) { in.Lines = in.Lines[1:2] }
	for _, tc := range []struct {
		name string
		rec  lease.Record
		snap func(*provision.Input)
		want string
	}{
		{"by MAC alone", rec, byMAC, "ack 192.0.2.81 by unicast to 192.0.2.81:68 fact"},
		{"its lease was over", with(rec, func(r *lease.Record) { r.Expires = testNow }), byMAC, "ack 192.0.2.81 by unicast to 192.0.2.81:68 fact"},
		{"it has another MAC", rec, func(in *provision.Input) { byMAC(in); in.Lines[0].MAC = stranger }, "nak_not_bound by broadcast ends"},
		{"it has it for a port", rec, func(in *provision.Input) { byMAC(in); in.Lines[0].Device, in.Lines[0].Port = 1, 9 }, "nak_not_bound by broadcast ends"},
		{"the lease was given at a port", with(rec, func(r *lease.Record) { r.GIAddr, r.Option82 = relayIP, port(switch1, 1) }), byMAC, "nak_not_bound by broadcast"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, tc.want, told(decideWith(t, changed(t, tc.snap), renew, leases(tc.rec))))
		})
	}
}

func TestMatchKindWords(t *testing.T) {
	for k := MatchKind(1); k < matchEnd; k++ {
		back, err := ParseMatchKind(k.String())
		require.NoError(t, err)
		assert.Equal(t, k, back)
	}
	k, err := ParseMatchKind("mac+option82")
	require.NoError(t, err)
	assert.Equal(t, "option82+mac", k.String())
	for _, bad := range []string{"", "port", "mac+mac", "mac+", "+"} {
		_, err := ParseMatchKind(bad)
		assert.Error(t, err, bad)
	}
	assert.Empty(t, MatchKind(0).String())
}

func TestCompileMatchingRefuses(t *testing.T) {
	opts := testOptions()
	opts.TrustedInterfaces, opts.VLANInterfaces = []string{"eth["}, []string{"eth1"}
	opts.ClientIDs = []ClientID{{}, {Text: "a", IP: host(1)}, {Hex: []byte("\x00a"), IP: host(2)}}
	opts.ClientKey, opts.MaxPortMACs = 9, 65
	_, err := Compile(opts)
	for _, want := range []string{`trusted interface "eth["`, `vlan interface "eth1": no {vlan} in it`, "client id  for invalid IP: want an IPv4 address and an identifier: 0 bytes; want 1 to 254",
		"client id 0061: given twice", "client key 9", "macs per port 65: want 0 to 64"} {
		assert.ErrorContains(t, err, want)
	}
}

// The ways of matching cost no allocation, for clients that are found and for those that are not.
func TestMatchingDoesNotAllocate(t *testing.T) {
	snap := vlanWorld(t)
	opts := testOptions()
	opts.Match = []MatchKind{MatchOption82 | MatchMAC, MatchVLAN | MatchMAC, MatchVLAN, MatchClientID, MatchMAC}
	opts.VLANInterfaces = []string{"vlan{vlan}"}
	opts.ClientIDs = []ClientID{{Text: "gateway-7", IP: host(31)}}
	opts.MaxPortMACs, opts.CheckRelaySource = 2, line.SourceListed
	cfg, err := Compile(opts)
	require.NoError(t, err)
	tab := leases(bound(host(21), stranger, 2), bound(host(52), client(0x77), 5))
	mac51 := client(0x51)
	for _, tc := range []struct {
		name string
		vlan uint16
		q    wire.Query
		want outcome.Outcome
	}{
		{"vlan", 200, wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)}, outcome.Ack},
		{"shared vlan", 300, wire.Query{Type: wire.Discover, MAC: stranger}, outcome.VLANShared},
		{"client_id of the table", 0, wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{clientID([]byte("gateway-7")...)}}, outcome.Offer},
		{"client_id with a MAC", 0, wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{clientID(append([]byte{1}, mac51[:]...)...)}}, outcome.Offer},
		{"port and MAC", 0, wire.Query{Type: wire.Discover, MAC: mac51, GIAddr: relayIP, Option82: port(switch1, 2)}, outcome.Offer},
		{"port without the MAC", 0, wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 2)}, outcome.MatchDisagrees},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := tc.q.Append(nil)
			r := &Request{Served: true, Local: serverIP, P: line.Packet{From: netip.AddrPortFrom(relayIP, 67), Ingress: line.Ingress{VLAN: tc.vlan}}}
			var d Decision
			assert.Zero(t, testing.AllocsPerRun(100, func() {
				r.P.Read(raw)
				decideInto(&d, testNow, r, snap, tab, nil, cfg)
			}))
			assert.Equal(t, tc.want, d.Outcome)
		})
	}
}

// Two customers without ports have devices with one MAC, on two interfaces with host routes: each gets an address of its own. Where all
// addresses are of one customer, his device takes its own along.
func TestOneMACOfTwoCustomers(t *testing.T) {
	o := testOptions()
	o.Match = []MatchKind{MatchOption82, MatchMAC}
	cfg, err := Compile(o)
	require.NoError(t, err)
	for second, want := range map[provision.SubscriberID]netip.Addr{1: host(11), 2: host(12)} {
		snap, _ := provision.Build(provision.Input{Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(host(11)), MAC: client(0x11)},
			{Subscriber: second, Addresses: provision.Hosts4(host(12)), MAC: client(0x11)},
		}})
		decide := func(iface string, q wire.Query, recs ...lease.Record) Decision {
			r := &Request{Ifindex: 3, Served: true, HostRoutes: true, Local: serverIP, P: line.Packet{Ingress: cfg.line.Ingress(iface)}}
			q.MAC = client(0x11)
			r.P.Read(q.Append(nil))
			return decideAt(testNow, r, snap, leases(recs...), nil, cfg)
		}
		discover := wire.Query{Type: wire.Discover}
		asks := func(a netip.Addr) wire.Query {
			return wire.Query{Type: wire.Request, Options: []wire.Option{requested(a), chosen(serverIP)}}
		}
		one := decide("eth1.101", asks(host(11)))
		require.Equal(t, outcome.Ack, one.Outcome)
		assert.Equal(t, want, decide("eth1.102", discover, one.Rec).YourIP)
		wish := discover
		wish.Options = []wire.Option{requested(host(11))}
		assert.Equal(t, want, decide("eth1.102", wish, one.Rec).YourIP, "whatever it asks for")
		assert.Equal(t, host(11), decide("eth1.101", discover, one.Rec).YourIP, "the first one keeps its own")
		two := decide("eth1.102", asks(want), one.Rec)
		require.Equal(t, outcome.Ack, two.Outcome)
		assert.Equal(t, want, decide("eth1.102", discover, one.Rec, two.Rec).YourIP)
		if second == 2 {
			assert.Equal(t, host(11), decide("eth1.101", discover, one.Rec, two.Rec).YourIP, "and goes on with it")
			assert.Equal(t, outcome.NakWrongAddress, decide("eth1.102", asks(host(11)), one.Rec).Outcome)
		}
	}
}
