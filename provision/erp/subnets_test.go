package erp

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside/emulator"
)

// A subnet that the ERP gives to a customer is one by every way of reading it, and its first address is no client's.
func TestSubnetsByEveryWay(t *testing.T) {
	policy := provision.DefaultPolicy()
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for _, way := range []string{"A", "B", "C", "D", "E", "C composite", "composed"} {
			t.Run(string(profile)+" "+way, func(t *testing.T) {
				o, mode := emulator.Options{Profile: profile, Seed: 7, Customers: 40}, ModeDirect
				if way == "composed" {
					mode = ModeComposed
				} else {
					o.Shape, o.Quirks.CompositeRows = emulator.Shape(way[0]), way == "C composite"
				}
				e, c := openEmulator(t, o)
				own := e.Customers()[3]
				id := provision.SubscriberID(own.ID)
				f, err := New(c, Options{Bindings: mode, BatchSize: 50, Policy: &policy})
				require.NoError(t, err)
				read := func(prev *provision.Snapshot) *provision.Snapshot {
					in, err := f.Fetch(ctx, prev)
					require.NoError(t, err)
					s, _ := provision.Build(in)
					return s
				}
				before := read(nil)
				require.Empty(t, before.CustomerSubnets())
				net := netip.MustParsePrefix("203.0.113.8/29")
				require.NoError(t, c.AddSubnet(ctx, own.ID, net))

				answer, err := f.FetchCustomers(ctx, []provision.SubscriberID{id}, before)
				require.NoError(t, err)
				require.True(t, answer.Refresh, "a hint finds it")
				after := read(before)
				require.Equal(t, []provision.Subnet{{Prefix: net, Subscriber: id}}, after.CustomerSubnets())
				require.Nil(t, after.ByIP(net.Addr()), "the network address is no client's")
				require.Equal(t, before.Len(), after.Len())
				answer, err = f.FetchCustomers(ctx, []provision.SubscriberID{id}, after)
				require.NoError(t, err)
				require.False(t, answer.Refresh, "it is known by now")

				require.NoError(t, c.DeleteSubnet(ctx, own.ID, net.Addr()))
				require.Empty(t, read(after).CustomerSubnets())
			})
		}
	}
}

// Also those of customers who are stopped are read, and what a stored snapshot has stands until a card was read.
func TestSubnetsOfTheDirectSource(t *testing.T) {
	policy := provision.DefaultPolicy()
	third := `200 {"result":"OK","data":{"id":3,"state_id":0,"ip_mac":{"0":{"ip":"3405803784","ip_net":"203.0.113.8\/255.255.255.248"},"1":{"ip_net":"no subnet"}}}}`
	_, c := newFakeERP(t, with(good(), "customer.get_data?customer_id=3", third))
	f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
	stored, _ := provision.Build(provision.Input{CustomerSubnets: []provision.Subnet{
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Subscriber: 1}, {Prefix: netip.MustParsePrefix("198.51.100.0/25"), Subscriber: 3}, {Prefix: netip.MustParsePrefix("192.0.2.0/28"), Subscriber: 77},
	}})
	in := fetch(t, f, stored)
	s, _ := provision.Build(in)
	require.Equal(t, []provision.Subnet{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Subscriber: 1}, {Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 3}}, s.CustomerSubnets(),
		"of 1 what was stored, of 3 what the card has, of 77 nothing: it is gone")
	require.Equal(t, 1, kinds(in)[provision.ProblemBadSubnet])
}

// Customers who have a subnet and no address are read without a hint, and stay paused with it while the list of the paused lacks them.
func TestSubnetsWithoutAnAddress(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		t.Run(string(mode), func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Profile: emulator.ProfileModern, Seed: 7, Customers: 120, Shape: 'A'})
			policy := provision.DefaultPolicy()
			var own []emulator.Customer
			for _, x := range e.Customers() {
				if x.State == emulator.StateActive && !x.Disabled && !x.Potential && !x.Former && len(x.Addresses) == 1 && len(own) < 4 {
					own = append(own, x)
				}
			}
			net := netip.MustParsePrefix("203.0.113.0/29")
			for _, x := range own {
				require.NoError(t, e.RemoveIP(x.ID, x.Addresses[0].IP))
				require.NoError(t, c.AddSubnet(ctx, x.ID, net))
				require.NoError(t, e.SetState(x.ID, emulator.StatePause))
				net = netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, net.Addr().As4()[3] + 8}), 29)
			}
			f, err := New(c, Options{Bindings: mode, Policy: &policy})
			require.NoError(t, err)
			read := func(prev *provision.Snapshot) *provision.Snapshot {
				in, err := f.Fetch(ctx, prev)
				require.NoError(t, err)
				s, _ := provision.Build(in)
				return s
			}
			snap := read(read(nil))
			require.Len(t, snap.CustomerSubnets(), 4)
			for _, fault := range []emulator.Fault{emulator.FaultEmpty, emulator.FaultHalf} {
				require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{list1: fault}}))
				for range 2 {
					snap = read(snap)
					require.Len(t, snap.CustomerSubnets(), 4)
					for _, x := range own {
						require.Equal(t, provision.StatePause, snap.State(provision.SubscriberID(x.ID)))
					}
				}
			}
			require.NoError(t, e.SetQuirks(emulator.Quirks{}))
			require.NoError(t, e.DeleteCustomer(own[0].ID))
			require.Len(t, read(snap).CustomerSubnets(), 3, "who is gone is not kept")
		})
	}
}

// A subnet that goes from one customer to another is the new one's once his card was read: the other card is read with it.
func TestSubnetsThatMove(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Profile: emulator.ProfileModern, Seed: 7, Customers: 40, Shape: 'A'})
	from, to := e.Customers()[3], e.Customers()[9]
	require.Less(t, from.ID, to.ID, "of two who claim it the lower number wins")
	policy := provision.Policy{} // no flag counts, so no turn comes
	f, err := New(c, Options{Bindings: ModeDirect, BatchSize: 50, Policy: &policy})
	require.NoError(t, err)
	read := func(prev *provision.Snapshot) *provision.Snapshot {
		in, err := f.Fetch(ctx, prev)
		require.NoError(t, err)
		s, _ := provision.Build(in)
		return s
	}
	hint := func(id int64, prev *provision.Snapshot) {
		_, err := f.FetchCustomers(ctx, []provision.SubscriberID{provision.SubscriberID(id)}, prev)
		require.NoError(t, err)
	}
	for _, moved := range []string{"203.0.113.8/29", "203.0.113.0/28"} { // the same, and one that holds it
		old, next := netip.MustParsePrefix("203.0.113.8/29"), netip.MustParsePrefix(moved)
		require.NoError(t, c.AddSubnet(ctx, from.ID, old))
		hint(from.ID, nil)
		before := read(nil)
		require.Equal(t, []provision.Subnet{{Prefix: old, Subscriber: provision.SubscriberID(from.ID)}}, before.CustomerSubnets())
		require.NoError(t, c.DeleteSubnet(ctx, from.ID, old.Addr()))
		require.NoError(t, c.AddSubnet(ctx, to.ID, next))
		hint(to.ID, before)
		after := read(before)
		require.Equal(t, []provision.Subnet{{Prefix: next, Subscriber: provision.SubscriberID(to.ID)}}, after.CustomerSubnets())
		require.NoError(t, c.DeleteSubnet(ctx, to.ID, next.Addr()))
		hint(to.ID, after)
		require.Empty(t, read(after).CustomerSubnets())
	}
}

func TestDisputed(t *testing.T) {
	net := func(id provision.SubscriberID, s string) provision.Subnet {
		return provision.Subnet{Prefix: netip.MustParsePrefix(s), Subscriber: id}
	}
	require.Empty(t, disputed(nil))
	require.Empty(t, disputed([]provision.Subnet{net(1, "192.0.2.0/29"), net(2, "192.0.2.8/29"), net(1, "192.0.2.0/30"), net(3, "198.51.100.0/24")}))
	require.Equal(t, map[provision.SubscriberID]bool{1: true, 2: true, 4: true, 5: true}, disputed([]provision.Subnet{
		net(2, "192.0.2.4/32"), net(1, "192.0.2.0/28"), net(1, "192.0.2.0/29"), net(3, "192.0.2.16/28"), net(5, "198.51.100.0/24"), net(4, "198.51.100.0/24"),
	}))
}
