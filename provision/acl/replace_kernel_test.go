package acl_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// A table that is replaced without being read has what is wanted and nothing else, with its rules, and a maintenance goes on.
func TestKernelReplace(t *testing.T) {
	r := newRouter(t)
	table := r.openWith(acl.Options{Policy: ruleset.Policy{SourceGuard: true}})
	mac := provision.MAC{2, 1}
	net := access.SetBoundDirect.Subnets(29)
	e, err := net.Element(access.Fields{Prefix: netip.MustParsePrefix("203.0.113.8/29"), MAC: mac})
	require.NoError(t, err)
	junk := access.ACL{access.SetStopped: access.Addrs(netip.MustParseAddr("192.0.2.1"))}
	junk[net] = access.Keys(e.Key)
	require.NoError(t, table.Apply(t.Context(), access.Plan(junk, access.ACL{})))
	_, err = table.OpenFor(t.Context(), time.Hour)
	require.NoError(t, err)
	want := access.ACL{
		access.SetPaused: access.Addrs(netip.MustParseAddr("192.0.2.2")), access.SetGuardedDirect: access.Interfaces("br0"),
		access.SetBoundDirect: access.DirectBindings(access.DirectBinding{IP: netip.MustParseAddr("192.0.2.2"), MAC: mac}),
	}.Sorted()
	require.NoError(t, table.Replace(t.Context(), want))
	changed, err := table.Changed(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, map[string]bool{"192.0.2.2": true}, r.elements("paused"))
	require.Empty(t, r.elements("stopped"))
	require.Greater(t, time.Until(table.OpenUntil()), 50*time.Minute)

	next := want
	next[access.SetPaused] = ""
	require.NoError(t, table.Apply(t.Context(), access.Plan(next, want)), "a small batch follows")
	have, err := table.Observe(t.Context())
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(next, have.Sorted()))
	require.Greater(t, time.Until(table.OpenUntil()), 50*time.Minute)
	repairs := table.Repairs()
	_, err = table.Observe(t.Context())
	require.NoError(t, err)
	require.Equal(t, repairs, table.Repairs(), "it is as it should be")

	require.NoError(t, table.Clear(t.Context()))
	require.NoError(t, table.Replace(t.Context(), want), "of no table, too")
	require.Equal(t, map[string]bool{"192.0.2.2": true}, r.elements("paused"))
}

// Whoever opens a table of ours that is there finds blocks to be kept; of one that is not there is nothing.
func TestKernelFresh(t *testing.T) {
	r := newRouter(t)
	for _, fresh := range []bool{true, false} {
		table := r.openWith(acl.Options{})
		require.Equal(t, fresh, table.Fresh())
		r.nft("flush", "ruleset") // somebody else drops it: what it had was known
		_, err := table.Observe(t.Context())
		require.NoError(t, err)
		require.Equal(t, fresh, table.Fresh())
		require.NoError(t, table.Close())
	}
}
