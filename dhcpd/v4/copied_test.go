package v4

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file has neighbours who use a client's MAC at a port of their own, where they are given the port's address and the MAC comes into the ERP: it
// costs the client nothing that it has.

var copied = client(0x81) // the client's MAC

// afterReport is the ERP's data when it has the MAC at the neighbour's port 1 of switch1, and more.
func afterReport(more ...provision.Line) *provision.Snapshot {
	snap, _ := provision.Build(provision.Input{
		Source: provision.SourceDirect, FetchedAt: testNow.Add(-time.Second), KeepVacant: true,
		Devices: []provision.Device{{ID: 1, Name: "sw1", Model: "Cisco Catalyst 2960-24TT", MAC: switch1, IP: ip("198.51.100.11")}},
		Lines:   append([]provision.Line{{Subscriber: 66, Addresses: provision.Hosts4(host(11)), MAC: copied, Device: 1, Port: 1}}, more...),
	})
	return snap
}

// neighbours are the records of the neighbour's address.
var neighbours = map[string]func() []lease.Record{
	"live": func() []lease.Record { return []lease.Record{atPort(bound(host(11), copied, 66), 1)} },
	"over": func() []lease.Record { return []lease.Record{atPort(expired(host(11), copied, 66), 1)} },
	"with his own MAC again": func() []lease.Record {
		return []lease.Record{with(atPort(bound(host(11), stranger, 66), 1), broughtIn)}
	},
	"with his own MAC again, and over": func() []lease.Record {
		return []lease.Record{with(atPort(expired(host(11), stranger, 66), 1), broughtIn)}
	},
}

// atPort is a lease that was given at a port of switch1.
func atPort(r lease.Record, n byte) lease.Record {
	r.Device, r.Port, r.GIAddr, r.Option82, r.Ifindex, r.Interface = 1, uint32(n), relayIP, port(switch1, n), 3, "eth0"
	return r
}

// broughtIn makes a record say that the MAC was in the ERP when its client got the address.
func broughtIn(r *lease.Record) {
	r.ERP.Direct = lease.ERPMAC{MAC: copied, At: r.Start.UnixNano()}
	r.ERP.Sent[0] = copied
}

// A customer without a port, whom the ERP has by the MAC alone.
func TestCopiedMACOfACustomer(t *testing.T) {
	snap := afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied})
	byPort := afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied, Device: 1, Port: 8})
	unread := []byte{1, 2, 0, 5, 2, 2, 9, 9}
	direct := func(r lease.Record) lease.Record { r.Ifindex, r.Interface = 3, "eth0"; return r }
	silent := func(r lease.Record) lease.Record { r.GIAddr = relayIP; return direct(r) }
	strange := func(r lease.Record) lease.Record { r.GIAddr, r.Option82 = relayIP, port(switch1, 40); return direct(r) }
	broken := func(r lease.Record) lease.Record { r.GIAddr, r.Option82 = relayIP, unread; return direct(r) }
	places := map[string]struct {
		snap *provision.Snapshot
		q    wire.Query
		at   func(lease.Record) lease.Record
		way  string
	}{
		"on a wire":                      {snap, wire.Query{}, direct, " by frame"},
		"behind a relay":                 {snap, wire.Query{GIAddr: relayIP}, silent, " by relay to 198.51.100.1:67"},
		"at a port that the ERP lacks":   {snap, wire.Query{GIAddr: relayIP, Option82: port(switch1, 40)}, strange, " by relay to 198.51.100.1:67"},
		"at a port that nobody can read": {byPort, wire.Query{GIAddr: relayIP, Option82: unread}, broken, " by relay to 198.51.100.1:67"},
	}
	for where, p := range places {
		for how, him := range neighbours {
			for _, rec := range []lease.Record{p.at(bound(host(81), copied, 8)), p.at(expired(host(81), copied, 8))} {
				t.Run(where+"/"+how+"/"+rec.Standing(testNow), func(t *testing.T) {
					tab := leases(append(him(), rec)...)
					from := func(r *Request, _ *Options) {
						r.P.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
						if p.q.GIAddr.IsValid() {
							r.P.From = netip.AddrPortFrom(relayIP, 67)
						}
					}
					q := p.q
					q.Type, q.MAC = wire.Discover, copied
					assert.Equal(t, "offer 192.0.2.81"+p.way, told(decideWith(t, p.snap, q, tab, from)))
					q.Options = []wire.Option{requested(host(81))}
					assert.Equal(t, "offer 192.0.2.81"+p.way, told(decideWith(t, p.snap, q, tab, from)))
					q.Type = wire.Request
					d := decideWith(t, p.snap, q, tab, from)
					assert.Equal(t, "ack", d.Outcome.String())
					assert.False(t, d.Report)
				})
			}
		}
	}
}

// The address that the client asks for still counts before its live lease, and that before one which it had.
func TestCopiedMACAndWhatIsAskedFor(t *testing.T) {
	snap := afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81), host(82)), MAC: copied}, provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(80)), MAC: copied})
	here := func(r lease.Record) lease.Record { r.Ifindex, r.Interface = 3, "eth0"; return r }
	tab := leases(here(expired(host(80), copied, 8)), here(bound(host(81), copied, 8)))
	q := wire.Query{Type: wire.Discover, MAC: copied}
	assert.Equal(t, "offer 192.0.2.81 by frame", told(decideWith(t, snap, q, tab)))
	q.Options = []wire.Option{requested(host(82))}
	assert.Equal(t, "offer 192.0.2.82 by frame", told(decideWith(t, snap, q, tab)))
	tab = leases(here(expired(host(82), copied, 8)), with(here(expired(host(81), copied, 8)), func(r *lease.Record) { r.Interface = "eth7" }))
	q.Options = nil
	assert.Equal(t, "offer 192.0.2.82 by frame", told(decideWith(t, snap, q, tab)), "had here, before had elsewhere")
}

// A guest, and a customer without an address whom the ERP has by the MAC alone, keep what they have of a pool while their lease lives.
func TestCopiedMACOfAPoolsClient(t *testing.T) {
	vacant := afterReport(provision.Line{Subscriber: 23, MAC: copied})
	both := func(_ *Request, o *Options) {
		o.Unknown, o.Pools = UnknownGuest, []Pool{flats(), guests()}
	}
	for _, x := range []struct {
		name string
		snap *provision.Snapshot
		rec  lease.Record
	}{
		{"a guest", afterReport(), guest(host(201), copied)},
		{"a customer without an address", vacant, with(guest(host(211), copied), func(r *lease.Record) {
			r.Pool, r.Subscriber, r.Key = "flats", 23, keyOf(vacant, 23)
		})},
	} {
		for how, him := range neighbours {
			for _, at82 := range []bool{false, true} {
				name := x.name + "/" + how
				rec := with(x.rec, func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })
				place, way, uni := wire.Query{}, " by frame", " by unicast to "+rec.IP.String()+":68"
				if at82 {
					name += "/at a port that the ERP lacks"
					rec = with(rec, func(r *lease.Record) {
						r.Device, r.Port, r.GIAddr, r.Option82 = 1, 40, relayIP, port(switch1, 40)
					})
					place, way = wire.Query{GIAddr: relayIP, Option82: port(switch1, 40)}, " by relay to 198.51.100.1:67"
				}
				t.Run(name, func(t *testing.T) {
					tab := leases(append(him(), rec)...)
					ask := func(q wire.Query, o ...wire.Option) string {
						q.MAC, q.Options = copied, o
						src := netip.IPv4Unspecified()
						switch {
						case q.GIAddr.IsValid():
							src = relayIP
						case q.CIAddr.IsValid():
							src = q.CIAddr
						}
						d := decideWith(t, x.snap, q, tab, both, func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(src, 68) })
						assert.Equal(t, rec.Holder(), d.Holder)
						return told(d)
					}
					q := place
					q.Type = wire.Discover
					assert.Equal(t, "pool_offer "+rec.IP.String()+way+" hold", ask(q))
					q.Type = wire.Request
					assert.Equal(t, "pool_ack "+rec.IP.String()+way+" pool-renew", ask(q, requested(rec.IP)), "after a restart")
					assert.Equal(t, "pool_ack "+rec.IP.String()+way+" pool-renew", ask(q, requested(rec.IP), chosen(serverIP)), "taking the offer")
					q.CIAddr = rec.IP
					if !at82 {
						way = uni
					}
					assert.Equal(t, "pool_ack "+rec.IP.String()+way+" pool-renew", ask(q), "rebinding")
					q.GIAddr, q.Option82 = netip.Addr{}, nil
					assert.Equal(t, "pool_ack "+rec.IP.String()+uni+" pool-renew", ask(q), "renewing past the relay")
				})
			}
		}
	}
}

// Who has a lease of a pool and is written into the ERP moves to its own address: by its MAC alone, and at a port where nobody used the MAC.
func TestGuestMovesByTheOperatorsWord(t *testing.T) {
	rec := with(guest(host(201), copied), func(r *lease.Record) { r.Device, r.Port, r.GIAddr, r.Option82 = 1, 40, relayIP, port(switch1, 40) })
	for name, x := range map[string]struct {
		snap *provision.Snapshot
		him  []lease.Record
		want netip.Addr
	}{
		"by MAC, beside the neighbour's port": {afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied}), neighbours["over"](), host(81)},
		"by MAC, and the neighbour is there":  {afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied}), neighbours["live"](), host(81)},
		"a port that nobody was at":           {afterReport(), nil, host(11)},
		"a port where another client was":     {afterReport(), []lease.Record{atPort(expired(host(11), stranger, 66), 1)}, host(11)},
	} {
		t.Run(name, func(t *testing.T) {
			tab := leases(append(x.him, rec)...)
			at := wire.Query{MAC: copied, GIAddr: relayIP, Option82: port(switch1, 40)}
			q := at
			q.Type = wire.Discover
			assert.Equal(t, "offer "+x.want.String()+" by relay to 198.51.100.1:67", told(decideWith(t, x.snap, q, tab, withGuests)))
			q.Type, q.CIAddr = wire.Request, host(201)
			assert.Equal(t, "nak_wrong_address "+x.want.String()+" by relay to 198.51.100.1:67", told(decideWith(t, x.snap, q, tab, withGuests)))
		})
	}
}

// A live lease of a pool says nothing elsewhere, nor where guests are not served any more; without one the MAC is known elsewhere.
func TestGuestsLeaseCountsWhereItWasGiven(t *testing.T) {
	rec := with(guest(host(201), copied), func(r *lease.Record) { r.Device, r.Port, r.GIAddr, r.Option82 = 1, 40, relayIP, port(switch1, 40) })
	at := func(n byte) wire.Query {
		return wire.Query{Type: wire.Discover, MAC: copied, GIAddr: relayIP, Option82: port(switch1, n)}
	}
	him := neighbours["live"]()[0]
	assert.Equal(t, "mac_elsewhere", told(decideWith(t, afterReport(), at(41), leases(him, rec), withGuests)))
	assert.Equal(t, "mac_elsewhere", told(decideWith(t, afterReport(), at(40), leases(him), withGuests)))
	assert.Equal(t, "mac_elsewhere", told(decideWith(t, afterReport(), at(40), leases(him, rec), withGuests, func(_ *Request, o *Options) { o.Unknown = UnknownSilence })))
	assert.Equal(t, "offer 192.0.2.11 by relay to 198.51.100.1:67", told(decideWith(t, afterReport(), at(1), leases(him, rec), withGuests)), "installed at its own port")
}

// A guest of a wire that a relay shares is not taken for the copy of what a neighbour behind that relay sends.
func TestGuestIsNoCopyOfTheRelaysClient(t *testing.T) {
	snap := afterReport()
	onWire := func(r *Request, o *Options) {
		withGuests(r, o)
		r.On = &provision.Interface{Index: 3, Name: "eth0", Addrs: prefixes("192.0.2.254/24", "198.51.100.254/24")}
		r.Local, r.P.From = netip.Addr{}, netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
	}
	mac := client(0x82) // the ERP does not have it
	him := with(atPort(bound(host(11), mac, 66), 1), func(r *lease.Record) { r.Interface = "up0" })
	rec := with(guest(host(201), mac), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })
	q := wire.Query{Type: wire.Discover, MAC: mac}
	assert.Equal(t, "pool_offer 192.0.2.201 by frame hold", told(decideWith(t, snap, q, leases(him, rec), onWire)))
	assert.Equal(t, "says_less 192.0.2.11", told(decideWith(t, snap, q, leases(him), onWire)), "it is heard there, as far as anybody knows")
}

// With client_key: client_id an identifier is its client's past the relay, too, whatever MAC comes with it. That is no evidence of the MAC: the record
// keeps the one that was heard on the line, so however often the other renews the ERP is not told of it. On the line it is.
func TestIdentifierPastTheRelayBringsNoMAC(t *testing.T) {
	snap := afterReport()
	id := wire.Option{Code: wire.OptClientID, Value: []byte("\x00cpe")}
	keyed := func(src netip.Addr) func(r *Request, o *Options) {
		return func(r *Request, o *Options) {
			o.ClientKey, r.P.From = ClientKeyID, netip.AddrPortFrom(src, 68)
		}
	}
	rec := with(atPort(bound(host(11), copied, 66), 1), func(r *lease.Record) { r.ClientID = id.Value })
	snooped := with(rec, func(r *lease.Record) { r.GIAddr = netip.Addr{} })
	for name, rec := range map[string]lease.Record{"past the relay": rec, "where the switch adds nothing": snooped} {
		t.Run(name, func(t *testing.T) {
			q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(11), Options: []wire.Option{id}}
			tab := leases(rec)
			for range 2 {
				d := decideWith(t, snap, q, tab, keyed(host(11)))
				assert.Equal(t, "ack 192.0.2.11 by unicast to 192.0.2.11:68 renew", told(d))
				assert.Equal(t, copied, d.Rec.MAC)
				assert.Equal(t, rec.Start, d.Rec.Start)
				tab.Store(d.Rec)
			}
			q.GIAddr, q.Option82 = rec.GIAddr, port(switch1, 1)
			d := decideWith(t, snap, q, tab, keyed(relayIP))
			assert.Equal(t, "ack", d.Outcome.String())
			assert.True(t, d.Report)
			assert.Equal(t, stranger, d.Rec.MAC)
		})
	}
}

// A live lease of a port goes on from a line that the ERP lacks, for that is no proof of another line, and its place stays. Who is at the port takes the
// only address of it all the same; of several it is kept from others, until an operator drops the lease.
func TestLiveLeaseGoesOnFromAStrangeLine(t *testing.T) {
	at := func(n byte, q wire.Query) wire.Query { q.GIAddr, q.Option82 = relayIP, port(switch1, n); return q }
	one, two := afterReport(), afterReport(provision.Line{Subscriber: 66, Addresses: provision.Hosts4(host(12)), MAC: client(0x12), Device: 1, Port: 1})
	live, over := atPort(bound(host(11), copied, 66), 1), atPort(expired(host(11), copied, 66), 1)
	renew := at(40, wire.Query{Type: wire.Request, MAC: copied, CIAddr: host(11)})
	d := decideWith(t, one, renew, leases(live))
	assert.Equal(t, "ack 192.0.2.11 by relay to 198.51.100.1:67 renew", told(d))
	assert.Equal(t, lease.Hex(port(switch1, 1)), d.Rec.Option82)
	d = decideWith(t, one, renew, leases(over))
	assert.Equal(t, "ack 192.0.2.11 by relay to 198.51.100.1:67 background", told(d))
	assert.Equal(t, lease.Hex(port(switch1, 40)), d.Rec.Option82, "what is over begins where its client is")

	router := at(1, wire.Query{Type: wire.Discover, MAC: stranger})
	full := atPort(bound(host(12), client(0x12), 66), 1)
	assert.Equal(t, "offer 192.0.2.11 by relay to 198.51.100.1:67", told(decideWith(t, one, router, leases(live))))
	assert.Equal(t, "port_full", told(decideWith(t, two, router, leases(live, full))))
	assert.Equal(t, "offer 192.0.2.11 by relay to 198.51.100.1:67", told(decideWith(t, two, router, leases(over, full))))
}

// Found by its MAC alone a card's second identifier is refused while the lease of the first one lives, for a neighbour may have copied the MAC; with
// client_key: mac both are one client.
func TestSecondIdentifierByMACAlone(t *testing.T) {
	snap, _ := provision.Build(provision.Input{Lines: []provision.Line{{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied}}})
	rec := with(bound(host(81), copied, 8), func(r *lease.Record) {
		r.ClientID, r.Ifindex, r.Interface = []byte("\x00pxe"), 3, "eth0"
	})
	system := wire.Option{Code: wire.OptClientID, Value: []byte("\x00system")}
	byMAC := func(_ *Request, o *Options) { o.Match = []MatchKind{MatchMAC} }
	keyed := func(r *Request, o *Options) { byMAC(r, o); o.ClientKey = ClientKeyID }
	q := wire.Query{Type: wire.Discover, MAC: copied, Options: []wire.Option{system}}
	assert.Equal(t, "port_full", told(decideWith(t, snap, q, leases(rec), keyed)))
	assert.Equal(t, "offer 192.0.2.81 by frame", told(decideWith(t, snap, q, leases(rec), byMAC)))
	rec.Expires = testNow
	assert.Equal(t, "offer 192.0.2.81 by frame", told(decideWith(t, snap, q, leases(rec), keyed)))
}

// A customer of a VLAN of several, who is found by VLAN and MAC, where the neighbour is of that VLAN, too.
func TestCopiedMACInASharedVLAN(t *testing.T) {
	snap, _ := provision.Build(provision.Input{Devices: afterReport().Devices(), Lines: []provision.Line{
		{Subscriber: 66, Addresses: provision.Hosts4(host(11)), MAC: copied, Device: 1, Port: 1, VLAN: 7},
		{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied, VLAN: 7},
	}})
	for how, him := range neighbours {
		for _, mine := range []func(netip.Addr, provision.MAC, provision.SubscriberID) lease.Record{bound, expired} {
			rec := with(mine(host(81), copied, 8), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "vlan7" })
			t.Run(how+"/"+rec.Standing(testNow), func(t *testing.T) {
				d := decideWith(t, snap, wire.Query{Type: wire.Discover, MAC: copied}, leases(append(him(), rec)...), func(r *Request, o *Options) {
					o.Match, o.VLANInterfaces = []MatchKind{MatchOption82, MatchVLAN + MatchMAC}, []string{"vlan{vlan}"}
					r.P.Ingress.Name, r.P.From = "vlan7", netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
				})
				assert.Equal(t, "offer 192.0.2.81 by frame", told(d))
			})
		}
	}
}

// The same with the client's identifier, with the MAC in it, written by the neighbour beside either MAC.
func TestCopiedIdentifierOfACustomer(t *testing.T) {
	snap := afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied})
	id := clientID(append([]byte{1}, copied[:]...)...)
	relayed := func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(relayIP, 67) }
	for _, key := range []ClientKey{ClientKeyMAC, ClientKeyID} {
		change := func(r *Request, o *Options) {
			o.Match, o.ClientKey = []MatchKind{MatchOption82, MatchClientID, MatchMAC}, key
			r.P.From = netip.AddrPortFrom(netip.IPv4Unspecified(), 68)
		}
		for how, him := range neighbours {
			for _, mine := range []func(netip.Addr, provision.MAC, provision.SubscriberID) lease.Record{bound, expired} {
				rec := with(mine(host(81), copied, 8), func(r *lease.Record) { r.ClientID, r.Ifindex, r.Interface = id.Value, 3, "eth0" })
				t.Run(key.Words()[key]+"/"+how+"/"+rec.Standing(testNow), func(t *testing.T) {
					list := him()
					list[0].ClientID = id.Value
					tab := leases(append(list, rec)...)
					q := wire.Query{Type: wire.Discover, MAC: copied, Options: []wire.Option{id}}
					assert.Equal(t, "offer 192.0.2.81 by frame", told(decideWith(t, snap, q, tab, change)))
					q.Type, q.CIAddr = wire.Request, host(81)
					assert.Equal(t, "ack", decideWith(t, snap, q, tab, change).Outcome.String())
					at := wire.Query{Type: wire.Discover, MAC: list[0].MAC, GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{id}}
					assert.Equal(t, host(11), decideWith(t, snap, at, tab, change, relayed).YourIP, "the neighbour has the port's")
				})
			}
		}
	}
}

// Which of two rows with one MAC counts costs no allocation, nor does a renewal past the relay where pools are served.
func TestCopiedMACAllocatesNothing(t *testing.T) {
	snap := afterReport(provision.Line{Subscriber: 8, Addresses: provision.Hosts4(host(81)), MAC: copied})
	o := testOptions()
	withGuests(nil, &o)
	o.Match = []MatchKind{MatchOption82, MatchClientID, MatchMAC}
	cfg, err := Compile(o)
	require.NoError(t, err)
	here := with(bound(host(81), copied, 8), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })
	for name, tc := range map[string]struct {
		tab  *lease.Table
		q    wire.Query
		src  netip.Addr
		want string
	}{
		"the neighbour is there": {leases(append(neighbours["live"](), here)...), wire.Query{Type: wire.Discover, MAC: copied}, netip.IPv4Unspecified(), "offer 192.0.2.81 by frame"},
		"the neighbour is gone":  {leases(append(neighbours["over"](), here)...), wire.Query{Type: wire.Discover, MAC: copied}, netip.IPv4Unspecified(), "offer 192.0.2.81 by frame"},
		"a renewal of the port's": {leases(neighbours["live"]()...), wire.Query{Type: wire.Request, MAC: copied, CIAddr: host(11), Options: []wire.Option{clientID(append([]byte{1}, copied[:]...)...)}},
			host(11), "ack 192.0.2.11 by unicast to 192.0.2.11:68 background"},
	} {
		t.Run(name, func(t *testing.T) {
			pools := fill(t, cfg, snap, tc.tab)
			raw := tc.q.Append(nil)
			r := &Request{Ifindex: 3, Served: true, Local: serverIP, P: line.Packet{From: netip.AddrPortFrom(tc.src, 68), Ingress: cfg.line.Ingress("eth0")}}
			var d Decision
			assert.Zero(t, testing.AllocsPerRun(100, func() {
				r.P.Read(raw)
				decideInto(&d, testNow, r, snap, tc.tab, pools, cfg)
			}))
			assert.Equal(t, tc.want, told(d))
		})
	}
}
