package provision_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func subnet(id provision.SubscriberID, s string) provision.Subnet {
	return provision.Subnet{Prefix: netip.MustParsePrefix(s), Subscriber: id}
}

func host(id provision.SubscriberID, s string) provision.Line {
	return provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.Addr(s))}
}

func TestSubnetsOfCustomers(t *testing.T) {
	snap, problems := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StatePause}, {ID: 2, State: provision.StateActive}, {ID: 3, State: provision.StateStop}},
		Lines:       []provision.Line{host(1, "192.0.2.1"), host(2, "203.0.113.10"), host(1, "203.0.113.11"), host(3, "192.0.2.3")},
		CustomerSubnets: []provision.Subnet{
			subnet(1, "203.0.113.8/29"), subnet(2, "203.0.113.12/31"), subnet(1, "203.0.113.9/29"), // the same again, with bits behind it
			subnet(1, "198.51.100.0/24"), subnet(2, "198.51.100.0/24"),
			subnet(3, "10.0.0.0/8"), subnet(3, "0.0.0.0/0"), subnet(3, "224.0.0.0/24"), subnet(3, "2001:db8::/64"), subnet(0, "192.0.2.16/28"), subnet(3, "192.0.2.192/26"), {Subscriber: 3},
		},
		Reserved: []netip.Addr{provisiontest.Addr("192.0.2.254")},
		Pools:    []provision.AddrRange{{From: provisiontest.Addr("198.51.100.250"), To: provisiontest.Addr("198.51.101.9")}},
	})
	require.Equal(t, []provision.Subnet{subnet(2, "198.51.100.0/24"), subnet(1, "203.0.113.8/29"), subnet(2, "203.0.113.12/31")}, snap.CustomerSubnets(), "an active customer is not blocked by another's row")
	require.Equal(t, []provision.Subnet{subnet(1, "203.0.113.8/29")}, snap.SubnetsOf(1))
	require.Equal(t, []provision.Subnet{subnet(1, "203.0.113.8/31"), subnet(1, "203.0.113.11/32"), subnet(1, "203.0.113.14/31")}, snap.SubnetPartsOf(1),
		"what is bound to another, and a longer subnet of another, is not in it")
	for ip, want := range map[string]provision.SubscriberID{"203.0.113.8": 1, "203.0.113.10": 2, "203.0.113.11": 1, "203.0.113.13": 2, "203.0.113.15": 1, "203.0.113.16": 0, "198.51.100.7": 2, "192.0.2.200": 0, "10.1.1.1": 0} {
		require.Equal(t, want, snap.Owner(provisiontest.Addr(ip)), ip)
		require.Equal(t, want != 0, snap.Taken(provisiontest.Addr(ip)), ip)
	}
	var text []string
	for _, p := range problems {
		text = append(text, string(p.Kind)+" "+p.Detail)
	}
	all := strings.Join(text, "\n")
	for _, want := range []string{
		"bad_subnet customer's subnet 10.0.0.0/8 is larger than a /20", "bad_subnet customer's subnet 0.0.0.0/0 is larger", "224.0.0.0/24 has no unicast",
		"bad_subnet customer's subnet is not an IPv4 prefix", "192.0.2.16/28 names no customer", "192.0.2.192/26 holds the gateway 192.0.2.254",
		"subnet_conflict subnet 198.51.100.0/24: customer 2 has it too", "subnet_conflict subnet 203.0.113.12/31: lies in 203.0.113.8/29 of customer 1",
		"subnet_conflict subnet 203.0.113.8/29: 203.0.113.10 in it is bound to customer 2", "overlaps the pool 198.51.100.250-198.51.101.9",
	} {
		require.Contains(t, all, want)
	}

	stopped := snap.WithStates(map[provision.SubscriberID]provision.State{2: provision.StateStop, 1: provision.StateActive})
	require.Equal(t, provision.SubscriberID(1), stopped.Owner(provisiontest.Addr("198.51.100.7")), "it goes to the one who is active now")
	require.Equal(t, snap.Owner(provisiontest.Addr("198.51.100.7")), snap.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateStop}).Owner(provisiontest.Addr("198.51.100.7")))
	require.Equal(t, []netip.Addr{provisiontest.Addr("203.0.113.8"), provisiontest.Addr("203.0.113.9")},
		slices.Collect(snap.TakenIn(provisiontest.Addr("203.0.113.1"), provisiontest.Addr("203.0.113.9"))))
	var none *provision.Snapshot
	require.Empty(t, none.CustomerSubnets())
	require.Zero(t, none.Owner(provisiontest.Addr("192.0.2.1")))
	require.Empty(t, slices.Collect(none.TakenIn(provisiontest.Addr("192.0.2.1"), provisiontest.Addr("192.0.2.9"))))
}

// Whatever overlaps: the parts of all customers are apart, and hold exactly what Owner says; a longer prefix and a
// host address win.
func TestSubnetsRandomly(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range long.Times(t, 150, 20_000) {
		in := provision.Input{}
		for id := range provision.SubscriberID(6) {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id + 1, State: provision.State(1 + rng.IntN(3))})
		}
		ip := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(rng.IntN(256))}) }
		for range rng.IntN(12) {
			in.Lines = append(in.Lines, host(provision.SubscriberID(1+rng.IntN(6)), ip().String()))
			in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: netip.PrefixFrom(ip(), 24+rng.IntN(9)), Subscriber: provision.SubscriberID(1 + rng.IntN(6))})
		}
		snap, _ := provision.Build(in)
		taken := map[netip.Addr]bool{}
		for a := range snap.TakenIn(provisiontest.Addr("198.51.100.0"), provisiontest.Addr("198.51.100.255")) {
			require.False(t, taken[a], "%s twice", a)
			taken[a] = true
		}
		for n := range 256 {
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(n)})
			var want provision.SubscriberID
			longest := -1
			for _, s := range snap.CustomerSubnets() {
				if s.Prefix.Contains(a) && s.Prefix.Bits() > longest {
					longest, want = s.Prefix.Bits(), s.Subscriber
				}
			}
			if l := snap.ByIP(a); l != nil {
				want = l.Subscriber
			}
			require.Equal(t, want, snap.Owner(a))
			require.Equal(t, want != 0, snap.Taken(a))
			require.Equal(t, want != 0, taken[a], "%s", a)
			for _, p := range snap.SubnetParts() {
				if p.Prefix.Contains(a) {
					require.Equal(t, want, p.Subscriber, "%s in %v of %v", a, p, in.CustomerSubnets)
				}
			}
			if s, in := snap.SubnetOf(a); in && s.Subscriber == want {
				require.True(t, slices.ContainsFunc(snap.SubnetPartsOf(want), func(p provision.Subnet) bool { return p.Prefix.Contains(a) }))
			}
		}
	}
}

// One row must take neither DHCP nor the pool from others, so a subnet that holds what serves them is not used.
func TestSubnetsOverWhatServesOthers(t *testing.T) {
	addr, prefix := provisiontest.Addr, netip.MustParsePrefix
	on := func(id provision.SubscriberID, d provision.DeviceID) provision.Line {
		return provision.Line{Subscriber: id, Device: d, Port: uint32(id), Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}))}
	}
	in := provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}, {ID: 3, State: provision.StateActive}},
		Devices: []provision.Device{
			{ID: 10, IP: addr("10.0.0.5")}, {ID: 11, IP: addr("10.0.0.21")}, {ID: 12, IP: addr("10.0.0.37")}, {ID: 13, IP: addr("10.0.0.38")},
			{ID: 14, IP: addr("10.0.0.53")}, {ID: 15, IP: addr("10.0.0.54")}, {ID: 16, IP: addr("10.0.0.69")}, {ID: 17, IP: addr("10.0.1.5")},
			{ID: 18, IP: addr("10.0.0.85")}, {ID: 19, IP: addr("10.0.0.85")}, {ID: 20},
		},
		Lines:  []provision.Line{on(2, 10), on(1, 11), on(2, 11), on(1, 14), on(1, 15), on(3, 20)},
		Pools:  []provision.AddrRange{{From: addr("198.51.100.2"), To: addr("198.51.100.200")}, {From: addr("198.51.100.240"), To: addr("198.51.100.247")}},
		Relays: []netip.Prefix{prefix("10.0.1.0/24"), prefix("10.0.2.7/32")},
	}
	for s, want := range map[string]string{
		"10.0.0.0/28":       "holds 10.0.0.5, the switch 10 of other customers",
		"10.0.0.16/28":      "holds 10.0.0.21, the switch 11 of other customers",
		"10.0.0.32/28":      "holds 10.0.0.38, the switch 13, and 10.0.0.37, the switch 12",
		"10.0.0.48/28":      "", // both are his own
		"10.0.0.64/28":      "", // nobody's, alone
		"10.0.0.80/28":      "", // one address
		"10.0.1.0/28":       "holds 10.0.1.5, the switch 17 in dhcp.relays",
		"10.0.1.16/28":      "", // among relays, and none is known there
		"10.0.0.0/23":       "holds the network 10.0.1.0/24 of dhcp.relays",
		"10.0.2.0/29":       "holds the relay 10.0.2.7 of dhcp.relays",
		"198.51.100.16/28":  "",
		"198.51.100.32/27":  "takes 32 of the 199 addresses of the pool 198.51.100.2-198.51.100.200",
		"198.51.100.0/24":   "takes 199 of the 199",
		"198.51.100.240/30": "",
		"198.51.100.240/29": "takes 8 of the 8",
		"198.51.100.208/28": "",
		"2001:db8::/64":     "is not an IPv4 prefix",
	} {
		row := in
		row.CustomerSubnets = []provision.Subnet{subnet(1, s)}
		snap, problems := provision.Build(row)
		var bad []string
		for _, p := range problems {
			if p.Kind == provision.ProblemBadSubnet {
				bad = append(bad, p.Detail)
			}
		}
		conflict := slices.ContainsFunc(problems, func(p provision.Problem) bool {
			return strings.Contains(p.Detail, "a relay in it is believed only if it is listed there as one address")
		})
		require.Equal(t, s == "10.0.1.16/28", conflict, s)
		if want == "" {
			require.Empty(t, bad, s)
			require.Equal(t, row.CustomerSubnets, snap.CustomerSubnets())
			continue
		}
		require.Len(t, bad, 1, s)
		require.Contains(t, bad[0], want, s)
		require.Contains(t, bad[0], "neither blocked nor let in", s)
		require.Empty(t, snap.CustomerSubnets(), s)
	}
}

// Of a network that a customer has for himself the gateway is nobody's, and all else his.
func TestSubnetWithTheGateway(t *testing.T) {
	addr, prefix := provisiontest.Addr, netip.MustParsePrefix
	in := provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StatePause}, {ID: 2, State: provision.StateActive}},
		Lines:       []provision.Line{host(1, "203.0.113.10"), host(2, "203.0.113.20"), host(2, "192.0.2.200")},
		Subnets:     []netip.Prefix{prefix("203.0.113.8/29"), prefix("203.0.113.16/28"), prefix("192.0.2.0/24"), prefix("198.51.100.0/24"), prefix("198.51.100.128/25")},
		Reserved:    []netip.Addr{addr("203.0.113.9"), addr("203.0.113.17"), addr("192.0.2.1"), addr("198.51.100.1"), addr("::ffff:198.51.100.129")},
		Pools:       []provision.AddrRange{{From: addr("192.0.2.100"), To: addr("192.0.2.199")}},
		Devices:     []provision.Device{{ID: 7, IP: addr("203.0.113.9")}},
		Relays:      []netip.Prefix{prefix("203.0.113.9/32"), prefix("192.0.2.0/24")},
	}
	build := func(s string) (*provision.Snapshot, string) {
		row := in
		row.CustomerSubnets = []provision.Subnet{subnet(1, s)}
		snap, problems := provision.Build(row)
		for _, p := range problems {
			if p.Kind == provision.ProblemBadSubnet {
				return snap, p.Detail
			}
			require.NotEqual(t, provision.ProblemSubnetConflict, p.Kind, "%s: %s", s, p.Detail)
		}
		return snap, ""
	}
	snap, bad := build("203.0.113.8/29")
	require.Empty(t, bad)
	require.Equal(t, []provision.Subnet{subnet(1, "203.0.113.8/32"), subnet(1, "203.0.113.10/31"), subnet(1, "203.0.113.12/30")}, snap.SubnetPartsOf(1))
	require.True(t, snap.OnLink(subnet(1, "203.0.113.8/29")))
	for ip, want := range map[string]provision.SubscriberID{"203.0.113.8": 1, "203.0.113.9": 0, "203.0.113.10": 1, "203.0.113.15": 1} {
		require.Equal(t, want, snap.Owner(addr(ip)), ip)
		require.Equal(t, want != 0, snap.Taken(addr(ip)), ip)
	}
	require.NotContains(t, slices.Collect(snap.TakenIn(addr("203.0.113.8"), addr("203.0.113.15"))), addr("203.0.113.9"))
	require.Zero(t, snap.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateStop}).Owner(addr("203.0.113.9")))

	var stored provision.Stored
	stored.Subscribers = snap.Subscribers()
	for _, n := range snap.SubnetClaims() {
		stored.AddSubnet(n)
	}
	again := stored.Snapshot()
	require.False(t, again.SameSubnets(snap))
	cut := again.WithGateways(in.Reserved)
	require.Zero(t, cut.Owner(addr("203.0.113.9")))
	require.True(t, cut.SameSubnets(snap))
	require.NotEqual(t, again.Fingerprint(), cut.Fingerprint())
	require.Same(t, cut, cut.WithGateways(in.Reserved))
	require.Nil(t, (*provision.Snapshot)(nil).WithGateways(in.Reserved))

	snap, bad = build("192.0.2.0/29")
	require.Empty(t, bad, "the part with the gateway")
	require.Zero(t, snap.Owner(addr("192.0.2.1")))
	require.Equal(t, provision.SubscriberID(1), snap.Owner(addr("192.0.2.2")))
	snap, bad = build("192.0.2.8/29")
	require.Empty(t, bad)
	require.False(t, snap.OnLink(subnet(1, "192.0.2.8/29")), "without the gateway it may be behind a router")

	for s, want := range map[string]string{
		"203.0.113.16/28": "holds the gateway 203.0.113.17, and 203.0.113.20 in it is bound to customer 2",
		"203.0.113.0/28":  "holds the gateway 203.0.113.9, and lies in no network of dhcp.subnets",
		"192.0.2.0/25":    "takes 28 of the 100 addresses of the pool 192.0.2.100-192.0.2.199",
		"192.0.2.0/24":    "holds the gateway 192.0.2.1, and 192.0.2.200 in it is bound to customer 2",
		"198.51.100.0/24": "holds the gateway 198.51.100.1, and 198.51.100.129",
	} {
		snap, bad = build(s)
		require.Contains(t, bad, want, s)
		require.Empty(t, snap.CustomerSubnets())
	}
}

// A row over a network of others is cut into so many parts that the source guard, which has each of them for each client of the row's
// customer, would be more than a kernel reads back in time. It is not used; the customer's other rows are, and it is when he has few clients.
func TestSubnetCutByTooManyOthers(t *testing.T) {
	build := func(clients int, net string) (*provision.Snapshot, []provision.Problem) {
		in := provision.Input{Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}}}
		for i := range clients {
			in.Lines = append(in.Lines, provision.Line{Subscriber: 1, MAC: provision.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}))})
		}
		for i := range 2000 {
			in.Lines = append(in.Lines, provision.Line{Subscriber: 2, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{100, 64, 16 + byte((2*i+1)>>8), byte(2*i + 1)}))})
		}
		in.CustomerSubnets = []provision.Subnet{{Prefix: netip.MustParsePrefix(net), Subscriber: 1}, {Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 1}}
		snap, problems := provision.Build(in)
		return snap, slices.DeleteFunc(problems, func(p provision.Problem) bool { return p.Kind != provision.ProblemBadSubnet })
	}
	snap, problems := build(500, "100.64.16.0/20")
	require.Equal(t, []provision.Subnet{{Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 1}}, snap.SubnetPartsOf(1))
	require.Zero(t, snap.Owner(provisiontest.Addr("100.64.16.2")))
	require.Len(t, problems, 1)
	require.Equal(t, provision.SubscriberID(1), problems[0].Subscriber)
	require.Equal(t, netip.MustParsePrefix("100.64.16.0/20"), problems[0].Prefix)
	require.Equal(t, "customer's subnet 100.64.16.0/20 is cut into 2002 parts by what others have in it, which for the 500 clients of this customer is more than the source guard takes; "+
		"it is neither blocked nor let in, correct it in the ERP", problems[0].Detail)
	require.Len(t, snap.SubnetClaims(), 2, "what is stored tells it again")
	require.Equal(t, snap.CustomerSubnets(), snap.WithGateways([]netip.Addr{provisiontest.Addr("203.0.113.9")}).CustomerSubnets(), "nor is it used later")

	for _, few := range []struct {
		clients int
		net     string
	}{{30, "100.64.16.0/20"}, {500, "198.51.96.0/20"}, {500, "100.64.16.0/24"}} {
		snap, problems = build(few.clients, few.net)
		require.Empty(t, problems, "%v", few)
		require.Len(t, snap.CustomerSubnets(), 2, "%v", few)
	}
}
