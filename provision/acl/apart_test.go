package acl

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

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
