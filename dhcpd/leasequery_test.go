package dhcpd

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/probe"
)

// An access node that lost its tables asks the running server.
func TestLeaseQueryOverUDP(t *testing.T) {
	relay := listenUDP(t, loopRelay, 0)
	opts := loopbackOptions(portOf(relay), 68)
	opts.LeaseQuery.From = []netip.Prefix{netip.PrefixFrom(loopRelay, 32)}
	s := startSite(t, filepath.Join(t.TempDir(), "state.db"), opts)
	node := probe.Client{Port: probe.NewUDP(relay, s.addr), Timeout: 5 * time.Second}
	ask := func(q probe.Query) probe.Step {
		q.Kind, q.GIAddr = probe.LeaseQuery, loopRelay
		step, err := node.Ask(t.Context(), q)
		require.NoError(t, err)
		return step
	}
	assert.Equal(t, probe.Unassigned, ask(probe.Query{ClientIP: subscriberIP}).Answer)
	assert.Equal(t, probe.Unknown, ask(probe.Query{MAC: stranger[:]}).Answer)
	got, err := node.Lease(t.Context(), probe.Query{MAC: stranger[:], GIAddr: loopRelay, RelayInfo: [][]byte{port(switch1, 2)}})
	require.NoError(t, err)
	require.Equal(t, subscriberIP, got)
	for _, q := range []probe.Query{{ClientIP: subscriberIP}, {MAC: stranger[:]}} {
		step := ask(q)
		assert.Equal(t, probe.Active, step.Answer)
		assert.Equal(t, subscriberIP, step.Address())
		assert.Equal(t, stranger.String(), step.Reply.ClientHWAddr.String())
		assert.Equal(t, port(switch1, 2), step.Reply.Options.Get(dhcpv4.OptionRelayAgentInformation), "where the customer is")
	}
}
