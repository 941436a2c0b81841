package v4

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// guests are four addresses for unknown clients, on the wire of 192.0.2.0/24
// and behind the relays of 198.51.100.0/24.
func guests() Pool {
	return Pool{
		Name: "guests", Kind: PoolGuests, Range: Range{First: host(200), Last: host(203)}, LeaseTime: 2 * time.Minute,
		Links: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, WarnAt: 0.75,
		OptionSet: options.OptionSet{DNS: []netip.Addr{host(5)}, CaptivePortal: "https://portal.example.net/api"},
	}
}

func withGuests(_ *Request, o *Options) {
	o.Unknown, o.Pools = UnknownGuest, []Pool{guests()}
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

func TestPoolDecisions(t *testing.T) {
	const toRelay = " by relay to 198.51.100.1:67"
	relayed := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: more}
	}
	direct := func(typ wire.MessageType, more ...wire.Option) wire.Query {
		return wire.Query{Type: typ, MAC: stranger, Options: more}
	}
	renewing := func(a netip.Addr) wire.Query {
		return wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a}
	}
	full := leases(guest(host(200), client(1)), guest(host(201), client(2)), guest(host(202), client(3)), guest(host(203), client(4)))
	known := relayed(wire.Request, chosen(serverIP), requested(host(200)))
	known.Option82, known.MAC = port(switch1, 1), client(0x11)
	silent := func(_ *Request, o *Options) { o.Unknown = UnknownSilence }
	nak := func(_ *Request, o *Options) { o.Unknown = UnknownNak }
	elsewhere := func(r *Request, _ *Options) { r.Local = ip("203.0.113.1") }
	for _, tc := range []struct {
		name   string
		q      wire.Query
		leases *lease.Table
		want   string
		change func(*Request, *Options)
	}{
		// 203 is where the hash of stranger points.
		{"unknown port", relayed(wire.Discover), nil, "pool_offer 192.0.2.203" + toRelay + " hold", nil},
		{"unknown client, directly attached", direct(wire.Discover), nil, "pool_offer 192.0.2.203 by frame hold", nil},
		{"the wish is heard", direct(wire.Discover, requested(host(202))), nil, "pool_offer 192.0.2.202 by frame hold", nil},
		{"the earlier address comes first", direct(wire.Discover, requested(host(202))), leases(guest(host(201), stranger)), "pool_offer 192.0.2.201 by frame hold", nil},
		{"also when it ran out", direct(wire.Discover), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(-time.Hour) })), "pool_offer 192.0.2.201 by frame hold", nil},
		{"not one that another has", direct(wire.Discover, requested(host(202))), leases(guest(host(202), client(1))), "pool_offer 192.0.2.203 by frame hold", nil},
		{"not one in quarantine", direct(wire.Discover, requested(host(202))), leases(with(guest(host(202), stranger), func(r *lease.Record) { r.State = lease.StateQuarantined })), "pool_offer 192.0.2.203 by frame hold", nil},
		{"not one of a customer whose binding is gone but whose lease lives", direct(wire.Discover, requested(host(202))), leases(bound(host(202), client(1), 9)), "pool_offer 192.0.2.203 by frame hold", nil},
		{"exhausted", direct(wire.Discover), full, "pool_exhausted", nil},
		{"another wire", direct(wire.Discover), nil, "no_pool", elsewhere},
		{"silence", direct(wire.Discover), nil, "unknown_client", silent},
		{"nak keeps silent to DISCOVER", direct(wire.Discover), nil, "unknown_client", nak},
		{"a full port is no guest", wire.Query{Type: wire.Discover, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 4)}, leases(bound(host(41), client(0x41), 4), bound(host(42), client(0x42), 5)), "port_full", nil},
		{"a customer gets his own", wire.Query{Type: wire.Discover, MAC: client(0x11), GIAddr: relayIP, Option82: port(switch1, 1), Options: []wire.Option{requested(host(200))}}, nil, "offer 192.0.2.11" + toRelay, nil},

		{"selecting", direct(wire.Request, chosen(serverIP), requested(host(201))), nil, "pool_ack 192.0.2.201 by frame pool", nil},
		{"selecting what another has", direct(wire.Request, chosen(serverIP), requested(host(201))), leases(guest(host(201), client(1))), "nak_other_client by broadcast", nil},
		{"selecting outside", direct(wire.Request, chosen(serverIP), requested(host(199))), nil, "nak_not_bound by broadcast", nil},
		{"selecting on another wire", direct(wire.Request, chosen(ip("203.0.113.1")), requested(host(201))), nil, "nak_not_bound by broadcast", elsewhere},
		{"selecting by a customer", known, nil, "nak_wrong_address 192.0.2.11" + toRelay, nil},
		{"selecting, other server", direct(wire.Request, chosen(host(9)), requested(host(201))), nil, "not_for_us", nil},
		{"selecting, nak", direct(wire.Request, chosen(serverIP), requested(host(201))), nil, "nak_unknown by broadcast", nak},

		{"init-reboot", direct(wire.Request, requested(host(201))), leases(guest(host(201), stranger)), "pool_ack 192.0.2.201 by frame pool", nil},
		{"init-reboot after the end", direct(wire.Request, requested(host(201))), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(-time.Hour) })), "pool_ack 192.0.2.201 by frame pool", nil},
		{"init-reboot, no record", direct(wire.Request, requested(host(201))), nil, "init_reboot_unknown", nil},
		{"init-reboot, wrong network", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "nak_not_bound by broadcast", nil},
		{"init-reboot, wrong network, not authoritative", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "init_reboot_unknown", func(_ *Request, o *Options) { o.Authoritative = false }},
		{"init-reboot, wrong network, silence", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "init_reboot_unknown", silent},
		{"init-reboot, nak", direct(wire.Request, requested(ip("10.1.2.3"))), nil, "nak_unknown by broadcast", nak},

		{"renewing", renewing(host(201)), leases(guest(host(201), stranger)), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool", nil},
		{"renewing from the same place", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Ifindex, r.Interface = 3, "eth0" })), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", nil},
		{"renewing past the relay", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr = relayIP })), "pool_ack 192.0.2.201 by unicast to 192.0.2.201:68 pool-renew", elsewhere},
		{"renewing on another wire", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", elsewhere},
		{"renewing another's", renewing(host(201)), leases(guest(host(201), client(1))), "nak_other_client by broadcast", nil},
		{"renewing without a record", renewing(host(201)), nil, "renew_unknown", nil},
		{"renewing one in quarantine", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.State = lease.StateQuarantined })), "nak_other_client by broadcast", nil},
		{"renewing when guests are not served any more", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", silent},
		{"renewing when the pool is gone", renewing(host(201)), leases(guest(host(201), stranger)), "nak_not_bound by broadcast", func(_ *Request, o *Options) { o.Pools[0].First = host(202) }},
		{"renewing, by now the ERP knows the MAC", wire.Query{Type: wire.Request, MAC: client(0x11), CIAddr: host(201)}, leases(guest(host(201), client(0x11))), "nak_wrong_address 192.0.2.11 by broadcast", nil},
		{"rebinding, by now the ERP knows the port", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 2)}, leases(guest(host(201), stranger)), "nak_wrong_address 192.0.2.21" + toRelay, nil},
		{"rebinding, by now the ERP knows the port, shorten", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 2)}, leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow.Add(time.Hour) })), "nak_wrong_address 192.0.2.21" + toRelay, func(_ *Request, o *Options) { o.BindingChange = BindingShorten }},
		{"renewing past the relay, by now the ERP knows the port", renewing(host(201)), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr, r.Device, r.Port = relayIP, 1, 2 })), "nak_not_bound by broadcast", nil},
		{"rebinding through the relay, nak", wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(201), GIAddr: relayIP, Option82: port(switch1, 40)}, nil, "nak_unknown" + toRelay, nak},
		{"renewing past the relay, nak", renewing(host(201)), nil, "renew_unknown", nak},

		{"release", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), stranger)), "pool_released 192.0.2.201 release kept", nil},
		{"release of another's", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), client(1))), "release_unknown", nil},
		{"decline", wire.Query{Type: wire.Decline, MAC: stranger, GIAddr: relayIP, Option82: port(switch1, 40), Options: []wire.Option{requested(host(201))}}, leases(with(guest(host(201), stranger), func(r *lease.Record) { r.GIAddr, r.Option82 = relayIP, port(switch1, 40) })), "pool_declined 192.0.2.201 quarantine", nil},
		{"decline on a shared wire", direct(wire.Decline, requested(host(201))), leases(guest(host(201), stranger)), "pool_declined 192.0.2.201 decline kept", nil},
		{"decline of another's", direct(wire.Decline, requested(host(201))), leases(guest(host(201), client(1))), "decline_unknown", nil},
		{"release of one in quarantine", wire.Query{Type: wire.Release, MAC: stranger, CIAddr: host(201)}, leases(with(guest(host(201), stranger), func(r *lease.Record) { r.State = lease.StateQuarantined })), "release_unknown", nil},
		{"decline after the end", direct(wire.Decline, requested(host(201))), leases(with(guest(host(201), stranger), func(r *lease.Record) { r.Expires = testNow })), "decline_unknown", nil},
		{"decline of nothing", direct(wire.Decline, requested(host(201))), nil, "decline_unknown", nil},
		{"inform", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(201)}, leases(guest(host(201), stranger)), "inform_ack 192.0.2.201 by unicast to 192.0.2.201:68", nil},
		{"inform by hand", wire.Query{Type: wire.Inform, MAC: stranger, CIAddr: host(201)}, nil, "inform_unknown", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			changes := []func(*Request, *Options){withGuests}
			if tc.change != nil {
				changes = append(changes, tc.change)
			}
			assert.Equal(t, tc.want, told(run(t, tc.q, tc.leases, changes...)))
		})
	}
}

func TestPoolAddressesOfTheERPAreNotGiven(t *testing.T) {
	ofERP := func(_ *Request, o *Options) {
		withGuests(nil, o)
		o.Pools[0].First, o.Pools[0].Last = host(30), host(34) // 31, 32 and 33 are bound in world
	}
	for n := byte(30); n <= 34; n++ {
		d := run(t, wire.Query{Type: wire.Discover, MAC: stranger, Options: []wire.Option{requested(host(n))}}, nil, ofERP)
		require.Contains(t, []netip.Addr{host(30), host(34)}, d.YourIP)
		d = run(t, wire.Query{Type: wire.Request, MAC: stranger, CIAddr: host(n)}, leases(guest(host(n), stranger)), ofERP)
		if n == 30 || n == 34 {
			require.Equal(t, outcome.PoolAck, d.Outcome)
		} else {
			require.Equal(t, outcome.NakNotBound, d.Outcome, "bound while it was leased")
		}
	}
}

func TestPoolOptions(t *testing.T) {
	d := run(t, wire.Query{Type: wire.Discover, MAC: stranger}, nil, withGuests)
	q := wire.Query{Type: wire.Discover, MAC: stranger}
	var p wire.Packet
	require.NoError(t, p.Parse(q.Append(nil)))
	lib, err := dhcpv4.FromBytes(d.Reply.Append(nil, &p))
	require.NoError(t, err)
	assert.Equal(t, "[192.0.2.5]", fmt.Sprint(lib.DNS()), "the pool's")
	assert.Equal(t, "[192.0.2.1]", fmt.Sprint(lib.Router()), "the subnet's")
	assert.Equal(t, "example.net", lib.DomainName(), "the subnet's")
	assert.Equal(t, "https://portal.example.net/api", string(lib.Options.Get(dhcpv4.GenericOptionCode(114))))
	assert.Equal(t, 2*time.Minute, lib.IPAddressLeaseTime(0))
	assert.Equal(t, time.Minute, lib.IPAddressRenewalTime(0))
	assert.Equal(t, 105*time.Second, lib.IPAddressRebindingTime(0))
}

func TestCompilePoolsReportsMistakes(t *testing.T) {
	o := testOptions()
	g := guests()
	other := g
	other.Name, other.First, other.Last = "other", host(203), host(210)
	nowhere := g
	nowhere.Name, nowhere.First, nowhere.Last = "nowhere", ip("10.0.0.1"), ip("10.0.0.9")
	short := g
	short.Name, short.LeaseTime, short.First, short.Last = "short", time.Second, host(220), host(221)
	o.Pools = []Pool{g, other, nowhere, short, {Name: "kind"}}
	o.Unknown, o.Quarantine = 9, -1
	_, err := Compile(o)
	for _, want := range []string{`pool "other": has the name of pool "guests" or overlaps it`, `pool "nowhere": range: 10.0.0.1-10.0.0.9 is in none of dhcp.subnets`,
		`pool "short": lease time 1s`, `pool "kind": want a name, and the kind guests`, "unknown clients 9", "quarantine -1ns"} {
		assert.ErrorContains(t, err, want)
	}
}
