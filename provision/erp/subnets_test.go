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
