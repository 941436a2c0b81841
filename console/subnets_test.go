package console

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// Of any address of a customer's subnet explain and acl show tell whose it is and what becomes of it.
func TestSubnetsAreShown(t *testing.T) {
	w, f, c := newACLWorld(t)
	net := netip.MustParsePrefix("203.0.113.8/29")
	in := provision.Input{
		Subscribers:     []provision.Subscriber{{ID: 1002, State: provision.StatePause}, {ID: 7, State: provision.StateActive}},
		Lines:           []provision.Line{{Subscriber: 1002, Addresses: provision.Hosts4(ip("198.51.100.12"))}, {Subscriber: 7, Addresses: provision.Hosts4(ip("203.0.113.10"))}},
		CustomerSubnets: []provision.Subnet{{Prefix: net, Subscriber: 1002}},
	}
	var problems []provision.Problem
	w.syncer.snapshot, problems = provision.Build(in)
	w.syncer.status.ProblemsList = problems
	f.want = access.Want(w.syncer.snapshot, access.Inputs{})
	f.view.ACL = f.want
	w.kernel[ip("203.0.113.14")] = "paused"

	x, err := w.explain(t.Context(), "203.0.113.14")
	require.NoError(t, err)
	require.Equal(t, []SubnetView{{net, 1002, ACLView{Want: "paused", Have: "paused"}}}, x.Subnets)
	assert.Contains(t, x.Summary, "It lies in the subnet 203.0.113.8/29 of customer 1002 (pause), so DHCP gives it to nobody.")
	assert.Contains(t, x.Summary, "Customer 1002 is paused, and so is all of 203.0.113.8/29 that is nobody else's, in both directions.")
	assert.Len(t, x.Problems, 1)
	x, err = w.explain(t.Context(), "203.0.113.10")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "Customer 7 (active) is bound to 203.0.113.10")
	assert.Contains(t, x.Summary, "It lies in the subnet 203.0.113.8/29 of customer 1002, but what is bound by itself is not that one's.")
	assert.NotContains(t, x.Summary, "in both directions")
	x, err = w.explain(t.Context(), "1002")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "The subnet 203.0.113.8/29 is its own")
	assert.Contains(t, x.Summary, "So is all of 203.0.113.8/29 that is nobody else's, in both directions.", "beside the address that is bound")
	f.spared = map[netip.Addr]access.Spared{ip("203.0.113.8"): access.SparedOwn, ip("203.0.113.9"): access.SparedResolver}
	x, err = w.explain(t.Context(), "1002")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "So is all of 203.0.113.8/29 that is nobody else's, in both directions. Of it 203.0.113.8 is not blocked: it is an address of this router. "+
		"Of it 203.0.113.9 is not blocked: it is a name server.", "that its first address is not says nothing of the others")
	x, err = w.explain(t.Context(), "203.0.113.9")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "Customer 1002 is paused, but 203.0.113.9 is not blocked: it is a name server.")
	f.spared = nil
	w.enforcer.status.DryRun = true
	x, err = w.explain(t.Context(), "203.0.113.14")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "Customer 1002 is paused, and so would all of 203.0.113.8/29 that is nobody else's be, in both directions, were it not for acl.dry_run.")
	w.enforcer.status.DryRun = false
	x, err = w.explain(t.Context(), "203.0.113.16")
	require.NoError(t, err)
	assert.Empty(t, x.Subnets)

	s, err := c.ACLOf(t.Context(), "1002")
	require.NoError(t, err)
	last := s.Addresses[len(s.Addresses)-1]
	assert.Equal(t, net, last.Subnet)
	assert.Equal(t, []string{"paused", "customer 1002 is paused, whose subnet 203.0.113.8/29 it is"}, []string{last.Want, last.Why})
	assert.Equal(t, []string{"paused"}, last.Have)
	assert.Equal(t, uint64(5), last.Blocked.Packets)
	s, err = c.ACLOf(t.Context(), "203.0.113.15")
	require.NoError(t, err)
	assert.Equal(t, []string{"paused", "customer 1002 is paused, whose subnet 203.0.113.8/29 it is"}, []string{s.Addresses[0].Want, s.Addresses[0].Why})
	all, err := c.ACL(t.Context())
	require.NoError(t, err)
	names := map[string]int{}
	for _, set := range all.Sets {
		names[set.Name] = set.Have
	}
	assert.Equal(t, 1, names["paused_30"])
	assert.NotContains(t, names, "stopped_30", "sets that are not there are not listed")
}

// A subnet that is not used still belongs to each question about an address in it: it says why the address is nobody's.
func TestExplainNamesTheRowOfARefusedSubnet(t *testing.T) {
	w := newWorld(t)
	net := netip.MustParsePrefix("203.0.113.8/29")
	_, problems := provision.Build(provision.Input{
		CustomerSubnets: []provision.Subnet{{Prefix: net, Subscriber: 1002}},
		Reserved:        []netip.Addr{ip("203.0.113.9")},
	})
	require.Len(t, problems, 1)
	w.syncer.status.ProblemsList = problems
	for _, a := range []string{"203.0.113.8", "203.0.113.12"} {
		x, err := w.explain(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, problems, x.Problems, a)
	}
	x, err := w.explain(t.Context(), "203.0.113.16")
	require.NoError(t, err)
	require.Empty(t, x.Problems)
}
