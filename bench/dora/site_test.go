package dora

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

func TestPrefillAddsLeases(t *testing.T) {
	s := &Site{o: Options{Dir: t.TempDir()}}
	stored := func() map[netip.Addr]lease.Record {
		store, err := lease.OpenStore(t.Context(), s.StateDir(), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		all := map[netip.Addr]lease.Record{}
		require.NoError(t, store.Leases(func(r lease.Record, err error) {
			require.NoError(t, err)
			all[r.IP] = r
		}))
		require.NoError(t, store.Close())
		return all
	}
	for _, n := range []int{500, 500, 800} {
		require.NoError(t, s.Prefill(n, slog.New(slog.DiscardHandler)))
		require.Len(t, stored(), n)
	}
	macs, perPool := map[provision.MAC]bool{}, map[string]int{}
	for ip, r := range stored() {
		require.True(t, r.Live(time.Now()))
		require.Equal(t, r.Pool == poolNames[0], halves[0].Contains(ip), "%v is of %s", ip, r.Pool)
		macs[r.MAC] = true
		perPool[r.Pool]++
	}
	require.Len(t, macs, 800)
	require.InDelta(t, 400, perPool[poolNames[0]], 40, "they are spread over both pools")
	require.ErrorContains(t, s.Prefill(guestMask, nil), "want 1048575 at most")
}

func TestAddressesOfClientsDiffer(t *testing.T) {
	s := &Site{o: Options{Bound: 10}}
	seen := map[provision.MAC]bool{}
	for _, c := range append(append(Guests(0, 300), Guests(300, 300)...), s.Customers()...) {
		require.False(t, seen[c.MAC])
		seen[c.MAC] = true
	}
	require.Equal(t, netip.MustParseAddr("10.32.1.4"), at(guestNet, 260))
}
