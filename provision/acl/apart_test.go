package acl

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// Who goes from one set that blocks to another does so in one step, whatever he is
// blocked by; two who are blocked by what looks alike do not wait for each other.
func TestUnitsOfWhoIsBlocked(t *testing.T) {
	e := func(set access.Set, f access.Fields) access.ACL {
		x, err := set.Element(f)
		require.NoError(t, err)
		var a access.ACL
		a[set] = access.Keys(x.Key)
		return a
	}
	addr := access.Fields{Addr: netip.MustParseAddr("192.0.2.8")}
	net29 := access.Fields{Prefix: netip.MustParsePrefix("192.0.2.8/29")}
	net32 := access.Fields{Prefix: netip.MustParsePrefix("192.0.2.8/32")}
	mac, name := access.Fields{MAC: provision.MAC{2, 0, 0, 0, 0, 8}}, access.Fields{Interface: "eth0.7"}
	moves := []struct{ from, to access.ACL }{
		{e(access.SetStopped, addr), e(access.SetPaused, addr)},
		{e(access.SetStopped.Subnets(29), net29), e(access.SetPaused.Subnets(29), net29)},
		{e(access.SetStopped.Subnets(32), net32), e(access.SetPaused.Subnets(32), net32)},
		{e(access.SetStoppedMAC, mac), e(access.SetPausedMAC, mac)},
		{e(access.SetStoppedInterface, name), e(access.SetPausedInterface, name)},
		{access.ACL{}, e(access.SetIPv6Direct, name)}, // names where to look, and nobody who is blocked
		{access.ACL{}, e(access.SetAlonePaused, name)},
	}
	var all batch
	for _, m := range moves {
		for set := range access.Sets() {
			all.adds[set] += m.to[set]
			all.removes[set] += m.from[set]
		}
	}
	units := all.units()
	require.Len(t, units, len(moves))
	for _, u := range units {
		who := u[0].Element.String()
		for _, c := range u {
			require.Equal(t, who, c.Element.String())
		}
		if u[0].Set.Blocks() {
			require.Len(t, u, 2, who)
		}
	}
}

// A kernel that refuses nearly everything is asked a bounded number of times, and what
// was not tried is told too.
func TestApartIsBounded(t *testing.T) {
	const n = 2500
	k := &fakeKernel{}
	table := openFake(t, k)
	before := k.batches
	k.refuse = func(key uint32) unix.Errno {
		if key%3 != 0 {
			return unix.EINVAL
		}
		return 0
	}
	err := table.Apply(t.Context(), stop(n))
	require.ErrorIs(t, err, unix.EINVAL)
	require.LessOrEqual(t, k.batches-before, maxApart+1)
	var r *access.RefusedError
	require.ErrorAs(t, err, &r)
	in := len(k.table.sets["stopped"].keys)
	require.Positive(t, in)
	require.Equal(t, n, len(r.Changes)+in, "each holds or is named")
	require.ErrorIs(t, r.Changes[len(r.Changes)-1].Err, errUntried)
	requireStopped(t, k, table, in)

	// One among them all.
	k = &fakeKernel{refuse: func(key uint32) unix.Errno {
		if key == 0x64400007 {
			return unix.EINVAL
		}
		return 0
	}}
	table = openFake(t, k)
	before = k.batches
	err = table.Apply(t.Context(), stop(n))
	require.ErrorAs(t, err, &r)
	require.Len(t, r.Changes, 1)
	require.Equal(t, "100.64.0.7", r.Changes[0].Element.String())
	require.LessOrEqual(t, k.batches-before, 26)
	requireStopped(t, k, table, n-1)
}

// What was not tried, for too much was refused before it, is tried before that the next time.
func TestUntriedElementsAreTriedNext(t *testing.T) {
	const refused = 300
	k := &fakeKernel{refuse: func(key uint32) unix.Errno {
		if key < 0x64400000+refused {
			return unix.EINVAL
		}
		return 0
	}}
	table := openFake(t, k)
	require.ErrorIs(t, table.Apply(t.Context(), stop(refused+1)), unix.EINVAL)
	require.Empty(t, k.table.sets["stopped"].keys)
	for range 1 + 2*refused/maxApart { // to refuse one costs two batches
		if len(k.table.sets["stopped"].keys) == 0 {
			require.ErrorIs(t, table.Apply(t.Context(), stop(refused+1)), unix.EINVAL)
		}
	}
	requireStopped(t, k, table, 1)
}
