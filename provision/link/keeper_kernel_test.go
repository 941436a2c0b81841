package link_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/route"
)

// With the last IPv4 address of an interface its routes go, and the kernel tells of none of them.
func TestKernelRoutesOutliveTheAddressesOfTheirInterface(t *testing.T) {
	l := newLab(t)
	h, c := cables(t, l, 2)
	for _, address := range []string{"203.0.113.1/32", "203.0.113.2/32"} {
		require.NoError(t, h.IP("addr", "add", address, "dev", "c0"))
	}
	leases := lease.New()
	want := []route.Route{hostRoute(1, c[0]), hostRoute(2, c[0]), hostRoute(3, c[1])}
	for i, rt := range want {
		leases.Store(lease.Record{IP: rt.Addr, MAC: provision.MAC{2, 0, 0, 0, 0, byte(i)}, State: lease.StateBound,
			Interface: []string{"c0", "c0", "c1"}[i], Renewed: time.Now(), Expires: time.Now().Add(time.Hour)})
	}
	r, seen := openRoutes(t, h), openRoutes(t, h)
	k := route.New(route.Options{Table: 254, VerifyInterval: time.Hour, Serves: func(string) bool { return true }}, r, leases, nil, provisiontest.Quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	have := func() []route.Route {
		routes, err := seen.Routes(t.Context())
		require.NoError(t, err)
		return slices.SortedFunc(slices.Values(routes), route.Route.Compare)
	}
	back := func(what string) {
		t.Helper()
		require.Eventually(t, func() bool { return slices.Equal(want, have()) }, 3*time.Second, 5*time.Millisecond, what)
	}
	back("at the start")
	verified := func() time.Time { return k.Status().LastVerifiedAt }
	require.Eventually(t, func() bool { return !verified().IsZero() }, 3*time.Second, 5*time.Millisecond)

	require.NoError(t, h.IP("addr", "del", "203.0.113.1/32", "dev", "c0"))
	back("one of two addresses goes")
	require.NoError(t, h.IP("addr", "del", "203.0.113.2/32", "dev", "c0"))
	back("the last one goes")
	require.EqualValues(t, 2, k.Status().DriftMissing)
	require.NoError(t, h.IP("addr", "add", "203.0.113.1/32", "dev", "c0"))
	require.NoError(t, h.IP("addr", "del", "203.0.113.1/32", "dev", "c0"))
	require.NoError(t, h.IP("addr", "add", "203.0.113.2/32", "dev", "c0"))
	back("it goes again, and another one comes")
	require.EqualValues(t, 4, k.Status().DriftMissing)

	// Of an interface by which no route of ours leads nothing is looked over, nor of one that goes, which takes its addresses along.
	before := verified()
	require.NoError(t, h.IP("addr", "add", "203.0.113.3/32", "dev", "lo"))
	require.NoError(t, h.IP("addr", "del", "203.0.113.3/32", "dev", "lo"))
	require.NoError(t, h.IP("link", "del", "c0"))
	want = want[2:]
	require.Eventually(t, func() bool { return k.Status().Waiting == 2 }, 3*time.Second, 5*time.Millisecond)
	back("an interface goes")
	require.Equal(t, before, verified())
	require.EqualValues(t, 4, k.Status().DriftMissing)
	cancel()
	require.NoError(t, <-done)
}
