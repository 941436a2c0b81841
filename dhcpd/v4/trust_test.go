package v4

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Who passes for a relay: each row is one packet that names one, with the port of another customer in option 82.
func TestJudgeRelays(t *testing.T) {
	var (
		list     = func(p ...string) []string { return p }
		nobody   = list()
		network  = list("198.51.100.0/24")
		both     = list("198.51.100.0/24", "192.0.2.0/24") // the second one is the customers' network
		oneOf    = list("198.51.100.0/24", "192.0.2.21/32")
		listed   = relayIP
		other    = ip("198.51.100.9")
		far      = ip("203.0.113.7")
		customer = host(21)
		guest    = host(202)
		unbound  = host(99)
		none     = ip("0.0.0.0")
	)
	const (
		ok  = outcome.Offer
		sub = outcome.RelaySubscriber
		wr  = outcome.RelayInterface
		src = outcome.RelaySource
		unl = outcome.RelayUntrusted
		no  = outcome.RelayNoSource
	)
	for _, tc := range []struct {
		name     string
		relays   []string
		check    line.SourceCheck
		iface    string
		gi, from netip.Addr
		own      bool
		want     outcome.Outcome
		by       Voucher
	}{
		{"a relay", network, line.SourceListed, "core", listed, listed, false, ok, VoucherRelay},
		{"the other address of a relay", network, line.SourceListed, "core", listed, other, false, ok, VoucherRelay},
		{"a customer from his own address", network, line.SourceListed, "core", listed, customer, false, sub, VoucherNone},
		{"naming relays switches nothing off", network, line.SourceUnsaid, "core", listed, customer, false, sub, VoucherNone},
		{"nor does to believe any source", network, line.SourceAny, "core", listed, customer, false, sub, VoucherNone},
		{"a network of customers among the relays makes no customer one", both, line.SourceListed, "core", listed, customer, false, sub, VoucherNone},
		{"a customer names himself", both, line.SourceListed, "core", customer, customer, false, sub, VoucherNone},
		{"a customer names himself from a relay's address", both, line.SourceListed, "core", customer, listed, false, sub, VoucherNone},
		{"a guest", network, line.SourceListed, "core", listed, guest, false, sub, VoucherNone},
		{"from no address", network, line.SourceListed, "core", listed, none, false, no, VoucherNone},
		{"from an address of this host", network, line.SourceListed, "core", listed, listed, true, no, VoucherNone},
		{"from a customers' wire with a relay's address", network, line.SourceListed, "br-flats", listed, listed, false, wr, VoucherNone},
		{"from the interface of a VLAN", network, line.SourceListed, "vlan7", listed, listed, false, wr, VoucherNone},
		{"from an address that is not listed", network, line.SourceListed, "core", listed, far, false, src, VoucherNone},
		{"the same, an older file", network, line.SourceUnsaid, "core", listed, far, false, ok, VoucherSource},
		{"the same, and it is to be so", network, line.SourceAny, "core", listed, far, false, ok, VoucherSource},
		{"names a relay that is not listed", network, line.SourceAny, "core", far, listed, false, unl, VoucherNone},
		{"a switch in the customers' network, listed as one address", oneOf, line.SourceListed, "core", customer, customer, false, ok, VoucherRelay},
		{"the same on their wire", oneOf, line.SourceListed, "vlan7", customer, customer, false, ok, VoucherRelay},
		{"it names another relay on their wire", oneOf, line.SourceListed, "vlan7", listed, customer, false, wr, VoucherNone},
		{"its neighbour names it", oneOf, line.SourceListed, "core", customer, host(31), false, sub, VoucherNone},
		{"its neighbour names it and is bound to nobody", oneOf, line.SourceListed, "core", customer, unbound, false, src, VoucherNone},
		{"this host, listed as one address", list("198.51.100.1/32"), line.SourceListed, "lo", listed, listed, true, ok, VoucherRelay},

		{"no list: any relay", nobody, line.SourceListed, "core", listed, far, false, ok, VoucherAnyRelay},
		{"no list: a customer from his own address", nobody, line.SourceListed, "core", listed, customer, false, sub, VoucherNone},
		{"no list: a customer's address", nobody, line.SourceListed, "core", customer, listed, false, sub, VoucherNone},
		{"no list: a guest's address", nobody, line.SourceListed, "core", guest, listed, false, sub, VoucherNone},
		{"no list: from no address", nobody, line.SourceListed, "core", listed, none, false, no, VoucherNone},
		{"no list: from a customers' wire", nobody, line.SourceUnsaid, "br-flats", listed, listed, false, wr, VoucherNone},
		{"no list: a spoofed address of nobody passes", nobody, line.SourceListed, "core", listed, unbound, false, ok, VoucherAnyRelay},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked *Request
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: tc.gi, Option82: port(switch1, 1)}
			d := run(t, q, nil, withGuests, func(r *Request, o *Options) {
				o.Unknown = UnknownSilence
				o.Relays = nil
				for _, p := range tc.relays {
					o.Relays = append(o.Relays, netip.MustParsePrefix(p))
				}
				o.CheckRelaySource, o.SubscriberInterfaces, o.VLANInterfaces = tc.check, []string{"br-*"}, []string{"vlan{vlan}"}
				r.P.From, r.P.Ingress.Name, r.OwnFrom, asked = netip.AddrPortFrom(tc.from, 40000), tc.iface, tc.own, r
			})
			assert.Equal(t, tc.want, d.Outcome)
			assert.Equal(t, tc.by, asked.Trust.By)
			if tc.want != ok {
				assert.Zero(t, d.Change)
				assert.Zero(t, d.Reply.Type)
			}
		})
	}
}

// A relay that is listed as one address is no reason to believe it on a subscribers' wire that it is not on.
func TestJudgeRelayOfAnotherWire(t *testing.T) {
	nets := func(p ...string) (out []netip.Prefix) {
		for _, s := range p {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		iface string
		addrs []netip.Prefix // of the interface
		from  netip.Addr
		want  outcome.Outcome
	}{
		{"a switch in the interface's network", "br-flats", nets("192.0.2.1/24"), host(21), outcome.Offer},
		{"in its second one", "br-flats", nets("203.0.113.1/24", "192.0.2.1/24"), host(21), outcome.Offer},
		{"a relay that is elsewhere", "br-flats", nets("192.0.2.1/24"), relayIP, outcome.RelayInterface},
		{"the same on the interface of a VLAN", "vlan7", nets("192.0.2.1/24"), relayIP, outcome.RelayInterface},
		{"the same where no subscribers are", "core", nets("203.0.113.1/24"), relayIP, outcome.Offer},
		{"an interface that borrows its address tells nothing", "br-flats", nets("203.0.113.1/32"), relayIP, outcome.Offer},
		{"nor does one without any", "br-flats", nil, relayIP, outcome.Offer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: tc.from, Option82: port(switch1, 1)}
			d := run(t, q, nil, func(r *Request, o *Options) {
				o.Relays = nets("192.0.2.21/32", "198.51.100.1/32")
				o.CheckRelaySource, o.SubscriberInterfaces, o.VLANInterfaces = line.SourceListed, []string{"br-*"}, []string{"vlan{vlan}"}
				r.P.From, r.P.Ingress.Name = netip.AddrPortFrom(tc.from, 67), tc.iface
				r.On = &provision.Interface{Index: 3, Name: tc.iface, Addrs: tc.addrs}
			})
			assert.Equal(t, tc.want, d.Outcome)
		})
	}
}

// An access node that asks for leases need not be a relay; it is judged by its own list, and by what no relay can be.
func TestJudgeLeaseQuery(t *testing.T) {
	node := ip("203.0.113.9")
	for _, tc := range []struct {
		name     string
		gi, from netip.Addr
		iface    string
		from82   string
		want     outcome.Outcome
	}{
		{"in no list of relays", node, node, "core", "203.0.113.0/24", outcome.LeaseActive},
		{"from another address of the node", node, ip("203.0.113.10"), "core", "203.0.113.0/24", outcome.LeaseActive},
		{"not listed", ip("203.0.114.9"), ip("203.0.114.9"), "core", "203.0.113.0/24", outcome.LeaseQueryRefused},
		{"a customer names it", node, host(21), "core", "203.0.113.0/24", outcome.RelaySubscriber},
		{"from no address", node, ip("0.0.0.0"), "core", "203.0.113.0/24", outcome.RelayNoSource},
		{"from a customers' wire", node, node, "br-flats", "203.0.113.0/24", outcome.RelayInterface},
		{"from a customers' wire, listed as one address", node, node, "br-flats", "203.0.113.9/32", outcome.LeaseActive},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := wire.Query{Type: wire.LeaseQuery, GIAddr: tc.gi, CIAddr: host(11)}
			d := run(t, q, leases(bound(host(11), client(0x11), 1)), func(r *Request, o *Options) {
				o.Relays = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
				o.CheckRelaySource, o.SubscriberInterfaces = line.SourceListed, []string{"br-*"}
				o.LeaseQuery.From = []netip.Prefix{netip.MustParsePrefix(tc.from82)}
				r.P.From, r.P.Ingress.Name = netip.AddrPortFrom(tc.from, 67), tc.iface
			})
			assert.Equal(t, tc.want, d.Outcome)
		})
	}
}

// What a client writes into option 82 itself is echoed (RFC 3046 section 2.2), and nothing of it counts: not the port,
// not the network, not the server's name.
func TestUntrustedOption82(t *testing.T) {
	only := func(_ *Request, o *Options) { o.TrustedInterfaces = []string{"core"} }
	forged := append(port(switch1, 1), 5, 4, 203, 0, 113, 1, 11, 4, 203, 0, 113, 77)
	t.Run("discover", func(t *testing.T) {
		q := wire.Query{Type: wire.Discover, MAC: client(0x81), Option82: forged}
		d := run(t, q, nil, only)
		assert.Equal(t, "offer 192.0.2.81 by frame", told(d), "by its MAC, on the wire that it is on")
		assert.Equal(t, serverIP, d.Reply.ServerID)
		assert.Equal(t, outcome.Option82Untrusted, d.Match.Lost)
		var r line.Packet
		r.Read(q.Append(nil))
		var p wire.Packet
		require.NoError(t, p.Parse(d.AppendReply(nil, &r.Packet)))
		assert.Equal(t, forged, p.RelayInfo())
	})
	t.Run("the record does not have it", func(t *testing.T) {
		q := wire.Query{Type: wire.Request, MAC: client(0x81), Option82: forged, Options: []wire.Option{requested(host(81)), chosen(serverIP)}}
		d := run(t, q, nil, only)
		require.Equal(t, outcome.Ack, d.Outcome)
		assert.Empty(t, d.Rec.Option82)
	})
	t.Run("a renewal to which a switch adds it is answered as if it were not there", func(t *testing.T) {
		rec := bound(host(21), stranger, 2)
		rec.Device, rec.Port, rec.Option82, rec.GIAddr = 1, 2, port(switch1, 2), relayIP
		q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(21)}
		want := told(run(t, q, leases(rec), only))
		q.Option82 = port(switch2, 9)
		assert.Equal(t, want, told(run(t, q, leases(rec), only)))
		assert.Equal(t, outcome.Ack, run(t, q, leases(rec), only).Outcome)
	})
	t.Run("it ends no lease", func(t *testing.T) {
		rec := bound(host(21), stranger, 2)
		rec.Device, rec.Port, rec.Option82, rec.GIAddr = 1, 2, port(switch1, 2), relayIP
		q := wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(21), Option82: port(switch1, 2)}
		assert.Equal(t, "release_unknown", told(run(t, q, leases(rec), only, func(r *Request, _ *Options) { r.P.From = netip.AddrPortFrom(host(77), 68) })))
	})
}

// Whose word the option 82 of a relayed packet is: each row is one packet with the port of a customer.
func TestOption82OfRelays(t *testing.T) {
	var (
		list   = func(p ...string) []string { return p }
		relays = list("198.51.100.0/24", "203.0.113.0/24")
		other  = ip("198.51.100.9")
		far    = ip("10.9.9.9") // in no list
	)
	const (
		ok = outcome.Offer
		no = outcome.Option82Untrusted
	)
	for _, tc := range []struct {
		name      string
		relays    []string
		inserting []string
		gi, from  netip.Addr
		bare      bool
		want      outcome.Outcome
		info      RelayedInfo
	}{
		{"left out", relays, nil, relayIP, relayIP, false, ok, InfoUnsaid},
		{"an empty list", relays, list(), relayIP, relayIP, false, ok, InfoUnsaid},
		{"left out, no list of relays", nil, nil, relayIP, relayIP, false, ok, InfoUnsaid},
		{"none", relays, list("none"), relayIP, relayIP, false, no, InfoUntrusted},
		{"none, no list of relays", nil, list("none"), relayIP, relayIP, false, no, InfoUntrusted},
		{"all", relays, list("all"), relayIP, relayIP, false, ok, InfoListed},
		{"all, no list of relays", nil, list("all"), far, far, false, ok, InfoListed},
		{"the relay", relays, list("198.51.100.1"), relayIP, relayIP, false, ok, InfoListed},
		{"a network with it", relays, list("203.0.113.0/24", "198.51.100.0/28"), relayIP, relayIP, false, ok, InfoListed},
		{"all networks", relays, list("203.0.113.0/24", "198.51.0.0/16"), relayIP, other, false, ok, InfoListed},
		{"another relay", relays, list("198.51.100.2", "198.51.100.9", "203.0.113.0/24"), relayIP, relayIP, false, no, InfoUntrusted},
		{"its other address, listed too", relays, list("198.51.100.1", "198.51.100.9"), relayIP, other, false, ok, InfoListed},
		{"a client's giaddr, through a relay that inserts none", relays, list("198.51.100.1"), relayIP, other, false, outcome.RelaySource, InfoNone},
		{"the same without option 82", relays, list("198.51.100.1"), relayIP, other, true, outcome.RelaySource, InfoNone},
		{"a relay that inserts none, through one that does", relays, list("198.51.100.9"), relayIP, other, false, no, InfoUntrusted},
		{"from an address that nobody lists and nobody asks for", relays, list("198.51.100.1"), relayIP, far, false, ok, InfoListed},
		{"the relay, no list of relays", nil, list("198.51.100.1"), relayIP, far, false, ok, InfoListed},
		{"another one, no list of relays", nil, list("198.51.100.1"), other, other, false, no, InfoUntrusted},
		{"a relay that is refused", relays, list("10.0.0.0/8"), far, far, false, outcome.RelayUntrusted, InfoNone},
		{"no option 82", relays, list("none"), relayIP, relayIP, true, outcome.UnknownClient, InfoNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked *Request
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: tc.gi, Option82: port(switch1, 1)}
			if tc.bare {
				q.Option82 = nil
			}
			d := run(t, q, nil, func(r *Request, o *Options) {
				o.Relays = nil
				for _, p := range tc.relays {
					o.Relays = append(o.Relays, netip.MustParsePrefix(p))
				}
				o.Option82Relays, r.P.From, asked = tc.inserting, netip.AddrPortFrom(tc.from, 67), r
			})
			assert.Equal(t, tc.want, d.Outcome)
			assert.Equal(t, tc.info, asked.Trust.Info)
			assert.Equal(t, tc.info != InfoUntrusted && !tc.bare, asked.P.HasOption82())
			if tc.want == no {
				assert.Equal(t, no, d.Match.Lost)
				assert.Zero(t, d.Change)
			}
		})
	}
}

// What a client behind a relay that inserts none writes into option 82 is echoed (RFC 3046 section 2.2), and nothing of it counts: the packet is decided as if
// it were not there.
func TestUntrustedOption82OfARelay(t *testing.T) {
	none := func(_ *Request, o *Options) { o.Option82Relays = []string{line.NoRelay} }
	all := func(_ *Request, o *Options) { o.Option82Relays = []string{line.EveryRelay} }
	forged := append(port(switch1, 1), 5, 4, 203, 0, 113, 1, 6, 4, 'c', 'u', 's', 't', 11, 4, 203, 0, 113, 77)
	t.Run("it is echoed", func(t *testing.T) {
		q := wire.Query{Type: wire.Request, MAC: client(0x81), GIAddr: relayIP, Option82: forged, Options: []wire.Option{requested(host(81)), chosen(serverIP)}}
		d := run(t, q, nil, none)
		require.Equal(t, "ack 192.0.2.81 by relay to 198.51.100.1:67 fact", told(d), "by its MAC, to the relay")
		assert.Equal(t, serverIP, d.Reply.ServerID)
		assert.Empty(t, d.Rec.Option82, "the record does not have it")
		assert.Zero(t, d.Rec.Port)
		assert.Equal(t, outcome.Option82Untrusted, d.Match.Lost)
		var r line.Packet
		r.Read(q.Append(nil))
		var p wire.Packet
		require.NoError(t, p.Parse(d.AppendReply(nil, &r.Packet)))
		assert.Equal(t, forged, p.RelayInfo())
	})
	t.Run("it names no pool", func(t *testing.T) {
		q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: ip("203.0.113.9"), Option82: []byte{1, 1, 9, 5, 4, 192, 0, 2, 1}}
		assert.Equal(t, outcome.PoolOffer, run(t, q, nil, withGuests, all).Outcome)
		assert.NotEqual(t, outcome.PoolOffer, run(t, q, nil, withGuests, none).Outcome)
	})
	t.Run("it is as if it were not there", func(t *testing.T) {
		rec := bound(host(11), client(0x11), 1)
		rec.Device, rec.Port, rec.Option82, rec.GIAddr, rec.Interface = 1, 1, port(switch1, 1), relayIP, "eth0"
		tabs := map[string]func() *lease.Table{
			"no lease":         func() *lease.Table { return leases() },
			"the victim's":     func() *lease.Table { return leases(rec) },
			"another relay's":  func() *lease.Table { return leases(with(rec, func(r *lease.Record) { r.GIAddr = ip("203.0.113.9") })) },
			"the victim's end": func() *lease.Table { return leases(with(rec, func(r *lease.Record) { r.Expires = testNow })) },
		}
		for name, tab := range tabs {
			for _, mac := range []provision.MAC{client(0x11), client(0x81), stranger} {
				for _, kind := range []wire.MessageType{wire.Discover, wire.Request, wire.Release, wire.Decline, wire.Inform} {
					for _, opts := range [][]wire.Option{nil, {requested(host(11))}, {requested(host(11)), chosen(serverIP)}} {
						for _, has := range []netip.Addr{{}, host(11)} {
							q := wire.Query{Type: kind, MAC: mac, CIAddr: has, GIAddr: relayIP, Options: opts}
							want := run(t, q, tab(), none)
							for _, said := range [][]byte{port(switch1, 1), forged, {1, 6, 0}} {
								q.Option82 = said
								got := run(t, q, tab(), none)
								if got.Outcome == outcome.Option82Untrusted {
									got.Outcome = outcome.UnknownClient
								}
								require.Equal(t, told(want), told(got), "%s: %v of %v, %v, has %v", name, kind, mac, opts, has)
								require.Equal(t, want.Reply.ServerID, got.Reply.ServerID)
								require.Equal(t, want.Rec, got.Rec)
								require.Equal(t, want.Report, got.Report)
							}
						}
					}
				}
			}
		}
	})
}

func TestJudgingOption82OfRelaysDoesNotAllocate(t *testing.T) {
	snap := world(t)
	for _, list := range [][]string{nil, {line.NoRelay}, {line.EveryRelay}, {"198.51.100.1", "198.51.100.2", "203.0.113.0/28"}} {
		opts := testOptions()
		opts.Option82Relays = list
		cfg, err := Compile(opts)
		require.NoError(t, err)
		for _, gi := range []netip.Addr{relayIP, ip("203.0.113.99")} {
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: gi, Option82: port(switch1, 1)}
			b := q.Append(nil)
			r := &Request{Served: true}
			assert.Zero(t, testing.AllocsPerRun(100, func() {
				r.P.Read(b)
				r.P.From = netip.AddrPortFrom(gi, 67)
				Judge(r, snap, cfg)
			}), "%v", list)
		}
	}
}

// A relay that adds its own to a client's option 82 makes one of both, in either order: nobody can tell whose is whose.
func TestOption82WithASubOptionTwice(t *testing.T) {
	victim, own := port(switch1, 1), port(switch1, 2)
	for name, tc := range map[string]struct {
		payload []byte
		want    outcome.Outcome
	}{
		"the client's first":       {append(slices.Clone(victim), own...), outcome.Option82Double},
		"the client's last":        {append(slices.Clone(own), victim...), outcome.Option82Double},
		"another remote-id":        {append(slices.Clone(victim), append([]byte{2, 6}, switch2[:]...)...), outcome.Option82Double},
		"another link":             {append(slices.Clone(victim), 5, 4, 192, 0, 2, 1, 5, 4, 203, 0, 113, 1), outcome.Option82Double},
		"another server":           {append(slices.Clone(victim), 11, 4, 192, 0, 2, 1, 11, 4, 203, 0, 113, 1), outcome.Option82Double},
		"another subscriber-id":    {append(slices.Clone(victim), 6, 1, 'a', 6, 1, 'b'), outcome.Option82Double},
		"an empty one and another": {append([]byte{1, 0}, victim...), outcome.Option82Double},
		"the same twice":           {append(slices.Clone(victim), victim...), outcome.Offer},
		"what finds nobody, twice": {append(slices.Clone(victim), 9, 1, 1, 9, 1, 2, 10, 1, 0, 10, 1, 128), outcome.Offer},
		"a link and one of no use": {append(slices.Clone(victim), 5, 4, 192, 0, 2, 1, 5, 4, 0, 0, 0, 0, 5, 1, 7), outcome.Offer},
		"nothing twice":            {victim, outcome.Offer},
	} {
		t.Run(name, func(t *testing.T) {
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: tc.payload}
			assert.Equal(t, tc.want, run(t, q, nil).Outcome)
		})
	}
}

// A customer's subnet in the ERP, typed over relays or a pool, takes DHCP from nobody; what lies in a subnet that is used is no relay.
func TestOneSubnetInTheERPTakesNoDHCP(t *testing.T) {
	network, nobody := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, []netip.Prefix(nil)
	guests := provision.AddrRange{From: host(100), To: host(199)}
	for _, tc := range []struct {
		name   string
		subnet string
		relays []netip.Prefix
		from   netip.Addr
		want   outcome.Outcome
	}{
		{"over the management network", "198.51.100.0/20", network, ip("198.51.100.11"), 0},
		{"over part of it", "198.51.100.0/26", network, ip("198.51.100.11"), 0},
		{"over one switch of many customers", "198.51.100.8/30", network, ip("198.51.100.11"), 0},
		{"no list of relays", "198.51.100.0/26", nobody, ip("198.51.100.11"), 0},
		{"no list, and a relay that the ERP does not know beside those that it does", "198.51.100.0/26", nobody, relayIP, 0},
		{"a customer in his subnet", "203.0.113.8/29", network, ip("203.0.113.9"), outcome.RelaySubscriber},
		{"the same, no list of relays", "203.0.113.8/29", nobody, ip("203.0.113.9"), outcome.RelaySubscriber},
		{"a customer in his subnet in the relays' network", "198.51.100.64/29", network, ip("198.51.100.66"), outcome.RelaySubscriber},
		{"a stranger where the row is", "198.51.96.0/20", network, ip("198.51.99.1"), outcome.RelayUntrusted},
		{"a guest where the row is", "192.0.2.128/25", network, host(150), outcome.RelaySubscriber},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap, _ := provision.Build(provision.Input{
				Subscribers:     []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}},
				Devices:         []provision.Device{{ID: 1, MAC: switch1, IP: ip("198.51.100.11")}, {ID: 2, MAC: switch2, IP: ip("198.51.100.12")}},
				Lines:           []provision.Line{{Subscriber: 2, Device: 1, Port: 2, Addresses: provision.Hosts4(host(21))}},
				CustomerSubnets: []provision.Subnet{{Prefix: netip.MustParsePrefix(tc.subnet).Masked(), Subscriber: 1}},
				Relays:          tc.relays, Pools: []provision.AddrRange{guests},
			})
			opts := testOptions()
			withGuests(nil, &opts)
			opts.Pools[0].First, opts.Pools[0].Last = guests.From, guests.To
			opts.Relays, opts.CheckRelaySource = tc.relays, line.SourceListed
			cfg, err := Compile(opts)
			require.NoError(t, err)
			r := &Request{Ifindex: 3, Served: true, Local: serverIP}
			q := wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: tc.from, Option82: port(switch1, 2)}
			r.P.Read(q.Append(nil))
			r.P.From, r.P.Ingress = netip.AddrPortFrom(tc.from, 67), cfg.line.Ingress("core")
			Judge(r, snap, cfg)
			assert.Equal(t, tc.want, r.Trust.Refused)
		})
	}

	snap, problems := provision.Build(provision.Input{
		Source: provision.SourceDirect, FetchedAt: testNow, Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(host(21))}},
		Subscribers:     []provision.Subscriber{{ID: 1, State: provision.StateActive}},
		CustomerSubnets: []provision.Subnet{{Prefix: netip.MustParsePrefix("192.0.2.128/25"), Subscriber: 1}}, Pools: []provision.AddrRange{guests},
	})
	require.Len(t, problems, 1)
	opts := testOptions()
	withGuests(nil, &opts)
	opts.Pools[0].First, opts.Pools[0].Last = guests.From, guests.To
	cfg, err := Compile(opts)
	require.NoError(t, err)
	tab := leases(guest(host(150), stranger))
	r := &Request{Ifindex: 3, Served: true, Local: serverIP}
	q := wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(150)}
	r.P.Read(q.Append(nil))
	r.P.Ingress, r.Networks = cfg.line.Ingress("eth0"), cfg.NetworksOf(nil, false)
	require.Equal(t, outcome.PoolAck.String(), decideAt(testNow, r, snap, tab, fill(t, cfg, snap, tab), cfg).Outcome.String(), "a renewal goes on")
}
