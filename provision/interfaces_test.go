package provision_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func TestInterfaces(t *testing.T) {
	var none *provision.Interfaces
	require.Nil(t, none.ByIndex(1))
	require.Nil(t, none.ByName("lo"))
	require.Zero(t, none.Len())
	require.False(t, none.Holds(netip.MustParseAddr("192.0.2.1")))

	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	first := provision.NewInterfaces([]provision.Interface{
		{Index: 9, Name: "eth1", Addrs: prefixes("192.0.2.1/24", "198.51.100.1/24")},
		{Index: 2, Name: "eth0"},
	}, nil)
	require.Equal(t, 2, first.Len())
	require.Equal(t, "eth0", first.All()[0].Name, "by index")
	eth1 := first.ByName("eth1")
	require.Same(t, eth1, first.ByIndex(9))
	require.Equal(t, "192.0.2.1", eth1.Addr().String())
	require.Equal(t, "198.51.100.1", eth1.AddrIn(netip.MustParsePrefix("198.51.100.0/24")).String())
	require.False(t, eth1.AddrIn(netip.MustParsePrefix("203.0.113.0/24")).IsValid())
	require.False(t, first.ByIndex(2).Addr().IsValid())
	require.True(t, first.Holds(netip.MustParseAddr("198.51.100.1")))

	second := provision.NewInterfaces([]provision.Interface{
		{Index: 9, Name: "eth1", Addrs: prefixes("192.0.2.1/24", "198.51.100.1/24")},
		{Index: 2, Name: "wan0"},
	}, first)
	require.Same(t, eth1, second.ByIndex(9), "unchanged: the same pointer")
	require.NotSame(t, first.ByIndex(2), second.ByIndex(2))
	require.Equal(t, "eth0", first.ByIndex(2).Name, "a view never changes")
	third := provision.NewInterfaces([]provision.Interface{{Index: 9, Name: "eth1", Addrs: prefixes("192.0.2.1/24")}}, second)
	require.NotSame(t, eth1, third.ByIndex(9))
	require.False(t, third.Holds(netip.MustParseAddr("198.51.100.1")))
}
