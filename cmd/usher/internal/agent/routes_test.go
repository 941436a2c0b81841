package agent

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// A subnet on the wire of a gateway gets no route; those behind the customer's router do.
func TestRoutedSubnets(t *testing.T) {
	wire, routed := netip.MustParsePrefix("203.0.113.8/29"), netip.MustParsePrefix("198.51.100.0/28")
	snap, problems := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateActive}},
		Subnets:     []netip.Prefix{wire}, Reserved: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
		CustomerSubnets: []provision.Subnet{{Prefix: wire, Subscriber: 1}, {Prefix: routed, Subscriber: 1}, {Prefix: netip.MustParsePrefix("198.51.100.16/28"), Subscriber: 2}},
	})
	require.Empty(t, problems)
	require.Equal(t, []provision.Subnet{{Prefix: routed, Subscriber: 1}}, behind(snap, snap.SubnetsOf(1)))
	require.Len(t, snap.SubnetsOf(1), 2)
	require.Len(t, behind(snap, snap.SubnetsOf(2)), 1)
	require.Empty(t, behind(nil, nil))
}
