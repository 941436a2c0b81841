package route

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A customer's subnet is routed through his leased address, where and as long as he has it; nobody else's.
func TestSubnetsFollowTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRouteWorld()
		w.opts.CustomerSubnets = true
		var (
			known bool
			list  []provision.Subnet
		)
		net := netip.MustParsePrefix("203.0.113.8/29")
		w.opts.SubnetsOf = func(rec lease.Record) ([]provision.Subnet, bool) {
			if rec.IP == route(17, 0).Addr {
				return list, known
			}
			return nil, known
		}
		router := func(ifindex int) Route {
			return Route{Addr: net.Addr(), Bits: 29, Via: route(17, 0).Addr, Ifindex: ifindex, Table: 254}
		}
		w.kernel.routes[route(17, 1)], w.kernel.routes[router(1)] = true, true
		w.leases.put(17, "c1", time.Now().Add(time.Hour))
		w.start(t)
		w.want(t, "17>1 8>1")
		require.Equal(t, 1, w.keeper.Status().Subnets)
		require.Equal(t, 1, w.keeper.Status().Installed, "hosts are counted by themselves")

		known = true // the first fetch has none
		w.keeper.Recheck()
		w.want(t, "17>1")
		list = []provision.Subnet{{Prefix: net, Subscriber: 1}}
		w.keeper.Recheck()
		w.want(t, "17>1 8>1")
		require.True(t, w.kernel.routes[router(1)])
		applied := w.kernel.applied
		w.ack(17, "c1", time.Hour)
		w.ack(18, "c2", time.Hour)
		w.want(t, "17>1 18>2 8>1")
		require.Equal(t, applied+1, w.kernel.applied, "a renewal changes nothing")

		w.ack(17, "c2", time.Hour)
		require.True(t, w.kernel.routes[router(2)], "it moves with the lease")
		require.False(t, w.kernel.routes[router(1)])
		w.kernel.other(provision.OpRemove, router(2), true)
		w.want(t, "17>2 18>2 8>2")
		rows, err := w.keeper.Rows(t.Context(), time.Now())
		require.NoError(t, err)
		require.Len(t, rows, 3)
		require.Equal(t, Row{Addr: net.Addr(), Bits: 29, Via: route(17, 0).Addr, Interface: "c2", Table: 254, State: Installed, Expires: rows[2].Expires}, rows[2])
		w.kernel.set(Link{Index: 2, Name: "c2"}, true)
		w.want(t, "")
		w.kernel.set(Link{Index: 2, Name: "c2", Up: true}, true)
		w.want(t, "17>2 18>2 8>2")
		w.release(17)
		w.want(t, "18>2")

		w.ack(17, "c1", time.Minute)
		w.want(t, "17>1 18>2 8>1")
		time.Sleep(time.Minute)
		w.want(t, "18>2")
		w.ack(17, "c1", time.Minute)
		w.opts.CustomerSubnets = false
		w.keeper.Reconfigure(w.opts)
		w.want(t, "17>1 18>2")
	})
}
