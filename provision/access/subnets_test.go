package access

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func netOf(id provision.SubscriberID, s string) provision.Subnet {
	return provision.Subnet{Prefix: netip.MustParsePrefix(s), Subscriber: id}
}

// netStrings returns all elements of the sets of subnets as text.
func netStrings(a ACL) (out []string) {
	for s := firstNet; s < setEnd; s++ {
		for e := range a.Elements(s) {
			out = append(out, s.String()+" "+e.String())
		}
	}
	return out
}

func TestWantOfSubnets(t *testing.T) {
	snap, _ := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateActive}},
		Lines: []provision.Line{
			{Subscriber: 1, MAC: provision.MAC{2, 1}, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1"))},
			{Subscriber: 2, VLAN: 7, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.2"))},
			{Subscriber: 3, MAC: provision.MAC{2, 3}, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.10"))},
		},
		CustomerSubnets: []provision.Subnet{netOf(1, "203.0.113.8/29"), netOf(2, "198.51.100.0/24"), netOf(3, "198.51.100.64/26")},
	})
	in := Inputs{GuardDirect: []string{"br0"}, GuardVLAN: []string{"eth0.7"}, InterfaceOf: func(l *provision.Line) string {
		if l.VLAN == 7 {
			return "eth0.7"
		}
		return ""
	}, GuestRanges: []AddrRange{{provisiontest.Addr("203.0.113.14"), provisiontest.Addr("203.0.113.17")}}}
	a := Want(snap, in)
	require.Equal(t, []string{
		"stopped_32 203.0.113.11/32", "stopped_31 203.0.113.8/31", "stopped_30 203.0.113.12/30", "paused_26 198.51.100.0/26", "paused_25 198.51.100.128/25",
		"bound_direct_32 203.0.113.11/32 . 02:01:00:00:00:00", "bound_direct_31 203.0.113.8/31 . 02:01:00:00:00:00", "bound_direct_30 203.0.113.12/30 . 02:01:00:00:00:00",
		"bound_direct_26 198.51.100.64/26 . 02:03:00:00:00:00", "bound_vlan_26 eth0.7 . 198.51.100.0/26", "bound_vlan_25 eth0.7 . 198.51.100.128/25",
	}, netStrings(a), "the active customer's address and subnet are in nothing of the others'")
	require.Equal(t, []string{"203.0.113.16", "203.0.113.17"}, a.Strings(SetGuests), "what lies in a subnet is no guest's")
	for ip, want := range map[string]Set{"203.0.113.8": SetStopped, "203.0.113.15": SetStopped, "203.0.113.10": 0, "203.0.113.16": SetGuests, "198.51.100.1": SetPaused, "198.51.100.70": 0, "198.51.100.200": SetPaused} {
		require.Equal(t, want, a.Standing(provisiontest.Addr(ip)), ip)
	}

	in.Exempt, in.ExemptAddrs = []provision.SubscriberID{2}, prefixes("203.0.113.8/30")
	in.Leases = seats(seat{3, "203.0.113.13"}) // it was given before the subnet was
	require.Equal(t, []string{"stopped_32 203.0.113.12/32", "stopped_31 203.0.113.14/31"}, slices.DeleteFunc(netStrings(Want(snap, in)), func(s string) bool { return s[0] == 'b' }))
	require.Empty(t, netStrings(Want(nil, in)))

	before := Want(snap.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateActive}), Inputs{})
	after := Want(snap, Inputs{})
	require.Equal(t, append(provisiontest.Addrs("192.0.2.1", "203.0.113.8", "203.0.113.9"), provisiontest.Addrs("203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14", "203.0.113.15")...), addrsIn(newlyBlocked(after, before)), "their flows end too")
	require.Equal(t, newlyBlocked(after, before), freed(before, after))
	require.Empty(t, newlyBlocked(before, after))
}

// The sets agree with what Owner says of each address, and no address is in two that block.
func TestSubnetsBlockWhatIsTheirOwners(t *testing.T) {
	rng := provisiontest.Rand(31)
	for range long.Times(t, 100, 10_000) {
		var in provision.Input
		for id := provision.SubscriberID(1); id < 6; id++ {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.State(1 + rng.IntN(3))})
		}
		ip := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(rng.IntN(128))}) }
		for range rng.IntN(9) {
			in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(1 + rng.IntN(6)), Addresses: provision.Hosts4(ip())})
			in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: netip.PrefixFrom(ip(), 25+rng.IntN(8)), Subscriber: provision.SubscriberID(1 + rng.IntN(6))})
		}
		snap, _ := provision.Build(in)
		o := Inputs{ExemptAddrs: []netip.Prefix{netip.PrefixFrom(ip(), 28)}}
		a := Want(snap, o)
		for n := range 128 {
			addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(n)})
			var want Set
			switch st := snap.State(snap.Owner(addr)); {
			case o.ExemptAddrs[0].Masked().Contains(addr):
			case st == provision.StateStop:
				want = SetStopped
			case st == provision.StatePause:
				want = SetPaused
			}
			require.Equal(t, want, a.Standing(addr), "%s", addr)
		}
	}
}

// The source guard lets a subnet in where its owner's lease is, from its acknowledgement on and until it ends; of a
// customer with an address from a pool as well.
func TestSubnetsFollowTheLeasesOfTheirOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snap, _ := provision.Build(provision.Input{
			Subscribers:     []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}},
			Lines:           []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(testIP)}},
			CustomerSubnets: []provision.Subnet{netOf(1, "203.0.113.8/29"), netOf(2, "203.0.113.16/28")},
		})
		f := startFollower(t, SourceOptions{Pools: true, GuardDirect: provision.Patterns{"eth1"}, GuardVLAN: provision.Patterns{"eth2.*"}}, Options{}, snap)
		rounds := f.Status().Rounds
		require.Empty(t, netStrings(f.kernel.acl()))
		admit := func(rec lease.Record) {
			f.leases.Store(rec)
			f.follower.Admit([]netip.Addr{rec.IP})()
		}
		admit(direct(testIP, testMAC))
		require.Equal(t, []string{"bound_direct_29 203.0.113.8/29 . " + testMAC.String()}, netStrings(f.kernel.acl()))
		admit(direct(testIP, otherMAC))
		require.Equal(t, []string{"bound_direct_29 203.0.113.8/29 . " + otherMAC.String()}, netStrings(f.kernel.acl()))
		pooled := direct(provisiontest.Addr("198.51.100.7"), testMAC)
		pooled.Pool, pooled.Subscriber, pooled.Interface, pooled.Expires = "flats", 2, "eth2.100", time.Now().Add(time.Minute)
		admit(pooled)
		require.Equal(t, []string{"bound_direct_29 203.0.113.8/29 . " + otherMAC.String(), "bound_vlan_28 eth2.100 . 203.0.113.16/28"}, netStrings(f.kernel.acl()))
		pass(2 * time.Minute)
		require.Equal(t, []string{"bound_direct_29 203.0.113.8/29 . " + otherMAC.String()}, netStrings(f.kernel.acl()), "it ran out")
		require.Equal(t, rounds, f.Status().Rounds, "no round for a lease")
		require.Equal(t, f.kernel.acl(), Want(snap, f.sources.Inputs()))
	})
}

// A network that a customer has for himself is blocked and let in without its gateway, and nobody is told of that one.
func TestWantOfASubnetWithItsGateway(t *testing.T) {
	gateway := provisiontest.Addr("203.0.113.9")
	snap, problems := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StatePause}},
		Lines:       []provision.Line{{Subscriber: 1, MAC: provision.MAC{2, 1}, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.10"))}},
		Subnets:     prefixes("203.0.113.8/29"), Reserved: []netip.Addr{gateway},
		CustomerSubnets: []provision.Subnet{netOf(1, "203.0.113.8/29")},
	})
	require.Empty(t, problems)
	in := Inputs{GuardDirect: []string{"br0"}, Gateways: []netip.Addr{gateway}, Homes: prefixes("203.0.113.8/29")}
	w := newRules(&in).want(snap, &in, nil)
	require.Equal(t, []string{
		"paused_32 203.0.113.8/32", "paused_31 203.0.113.10/31", "paused_30 203.0.113.12/30",
		"bound_direct_32 203.0.113.8/32 . 02:01:00:00:00:00", "bound_direct_31 203.0.113.10/31 . 02:01:00:00:00:00", "bound_direct_30 203.0.113.12/30 . 02:01:00:00:00:00",
	}, netStrings(w.acl))
	require.Zero(t, w.acl.Standing(gateway))
	require.Empty(t, w.held.list)
	require.Empty(t, slices.DeleteFunc(netStrings(Want(snap.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateActive}), in)), func(s string) bool { return s[0] == 'b' }))
}

type tellingFlows struct{ forgotten, told []netip.Addr }

func (f *tellingFlows) Forget(_ context.Context, of []netip.Prefix) (int, error) {
	f.forgotten = append(f.forgotten, addrsIn(of)...)
	return 0, nil
}

func (f *tellingFlows) ForgetAndTell(_ context.Context, of, told []netip.Prefix, _ func(netip.Addr) bool) (int, error) {
	f.forgotten, f.told = append(f.forgotten, addrsIn(of)...), append(f.told, sorted(addrsIn(told))...)
	return 0, nil
}

// Connections of a subnet end as those of an address do: both ends are told where it is paused, nobody where it is stopped.
func TestEndsOfSubnetsAreTold(t *testing.T) {
	snap, _ := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StatePause}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1"))}, {Subscriber: 2, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.9"))},
		},
		CustomerSubnets: []provision.Subnet{netOf(1, "203.0.113.8/30"), netOf(2, "198.51.100.0/31")},
	})
	want := Want(snap, Inputs{})
	flows := &tellingFlows{}
	c := newFlowCleaner(flows, 0, func(netip.Addr) bool { return false }, noObserver{}, provisiontest.Quiet())
	c.add(newlyBlocked(want, ACL{}), nil, want.stops)
	require.True(t, c.pass(t.Context()))
	require.Equal(t, provisiontest.Addrs("192.0.2.1", "198.51.100.0", "198.51.100.1", "203.0.113.8", "203.0.113.9", "203.0.113.10", "203.0.113.11"), flows.forgotten)
	require.Equal(t, provisiontest.Addrs("198.51.100.0", "198.51.100.1", "203.0.113.9"), flows.told)
}

// However many subnets are blocked at once, what is remembered of them is one thing of each,
// not each of their addresses.
func TestSubnetsAreForgottenWhole(t *testing.T) {
	in := provision.Input{Subscribers: []provision.Subscriber{{ID: 1, State: provision.StatePause}},
		Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1"))}}}
	for i := range 256 {
		in.CustomerSubnets = append(in.CustomerSubnets, provision.Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 16), byte(i % 16 * 16), 0}), 20), Subscriber: 1})
	}
	snap, _ := provision.Build(in)
	want := Want(snap, Inputs{})
	c := newFlowCleaner(nil, 0, nil, noObserver{}, nil)
	c.add(newlyBlocked(want, ACL{}), nil, want.stops)
	require.Len(t, c.pending, 257)
	c.add(nil, freed(ACL{}, want), want.stops)
	require.Empty(t, c.pending)
}

// What is freed of a subnet keeps its connections, and the rest of it loses them.
func TestTakeOfASubnet(t *testing.T) {
	for name, tt := range map[string]struct{ of, out, want []string }{
		"itself":             {[]string{"203.0.113.8/29", "192.0.2.1/32"}, []string{"203.0.113.8/29"}, []string{"192.0.2.1/32"}},
		"a piece":            {[]string{"203.0.113.8/29"}, []string{"203.0.113.10/31"}, []string{"203.0.113.8/31", "203.0.113.12/30"}},
		"an address":         {[]string{"203.0.113.8/30", "203.0.113.12/32"}, []string{"203.0.113.11/32"}, []string{"203.0.113.8/31", "203.0.113.10/32", "203.0.113.12/32"}},
		"two of its pieces":  {[]string{"203.0.113.8/29"}, []string{"203.0.113.8/32", "203.0.113.12/30"}, []string{"203.0.113.9/32", "203.0.113.10/31"}},
		"what is around":     {[]string{"203.0.113.8/30", "203.0.113.12/32", "203.0.113.16/32"}, []string{"203.0.113.8/29"}, []string{"203.0.113.16/32"}},
		"something else":     {[]string{"203.0.113.8/29"}, []string{"203.0.113.16/29", "203.0.113.7/32"}, []string{"203.0.113.8/29"}},
		"of the widest ones": {[]string{"10.0.0.0/20"}, []string{"10.0.8.0/21"}, []string{"10.0.0.0/21"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := map[netip.Prefix]bool{}
			for _, p := range prefixes(tt.of...) {
				m[p] = true
			}
			take(m, prefixes(tt.out...))
			require.Equal(t, prefixes(tt.want...), slices.SortedFunc(maps.Keys(m), netip.Prefix.Compare))
			for p, tell := range m {
				require.True(t, tell, p)
			}
		})
	}
}
