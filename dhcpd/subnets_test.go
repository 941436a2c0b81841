package dhcpd

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// No address of a customer's subnet is given from a pool, not even to who had it before.
func TestPoolsSkipCustomersSubnets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, snap := poolRig(t, &journal{})
		a := r.join(t, stranger)
		size := r.s.Pools()[0].Size
		net, err := a.Prefix(31)
		require.NoError(t, err)
		next, _ := provision.Build(provision.Input{
			Devices:         []provision.Device{{ID: 1, MAC: switch1}},
			Lines:           []provision.Line{{Subscriber: 50, Addresses: provision.Hosts4(host(50)), Device: 1, Port: 7}},
			CustomerSubnets: []provision.Subnet{{Prefix: net, Subscriber: 50}},
		})
		snap.Store(next)
		r.ask(wire.Query{Type: wire.Request, MAC: stranger, CIAddr: a, GIAddr: relayIP, Option82: port(switch1, 40)})
		assert.Equal(t, outcome.NakNotBound.String(), r.h.ev.Outcome.String(), "it was given before")
		for n := range byte(8) {
			q := discoverBy(client(n))
			q.Options = []wire.Option{requested([]netip.Addr{net.Addr(), net.Addr().Next()}[n%2])}
			r.ask(q)
			if r.h.ev.Outcome == outcome.PoolOffer {
				assert.False(t, net.Contains(r.h.ev.YourIP), "%s", r.h.ev.YourIP)
			}
		}
		slot, _ := r.s.PoolAddress(a)
		assert.True(t, slot.Bound)
		assert.Equal(t, size-2, r.s.Pools()[0].Size)
		require.NoError(t, r.end())
	})
}
