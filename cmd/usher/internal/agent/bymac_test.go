package agent

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/userside/emulator"
)

// With packets over sockets: an address is given by MAC at a port that the ERP does not have, which is counted; while its lease is
// live on its own line it is given nowhere else, which is counted, too; and explain says why.
func TestByMACIsCounted(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.NoError(t, d.erp.SetIPMAC(customerIP, emulator.MAC(mac)))
	stop := d.start(t, nil)

	got, err := d.leaseAt(t, mac, 9, patient)
	require.NoError(t, err)
	require.Equal(t, customerIP, got)
	var st *console.Status
	counted := func(ok func(console.ByMACStatus) bool) { // the answer leaves before it is counted
		eventually(t, "it is counted", func() bool {
			st, err = d.client.Status(t.Context())
			return err == nil && ok(st.DHCP.ByMAC)
		})
	}
	counted(func(m console.ByMACStatus) bool { return len(m.Given) == 1 && m.Given[0].Clients > 0 })
	n := st.DHCP.ByMAC.Given[0]
	assert.Equal(t, "unknown_port", n.Line)
	assert.Equal(t, uint64(1), n.Acks)
	assert.Equal(t, 1, n.Clients)
	assert.Contains(t, n.Advice, "usher option82 suggest")
	assert.Zero(t, st.DHCP.ByMAC.Elsewhere)
	x, err := d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	assert.Equal(t, "unknown_port", x.Events[0].Stray)
	assert.Equal(t, "select_has", x.Events[0].Rule)
	assert.Equal(t, d.relay.LocalAddr().String(), x.Events[0].Source.String())
	assert.Equal(t, "unknown_port", x.Would.Stray)
	assert.Equal(t, "discover_has", x.Would.Rule)
	assert.NotEmpty(t, x.Would.RuleText)
	require.Len(t, x.Leases, 1)
	assert.Contains(t, x.Leases[0].Place, "relay 127.0.0.1, interface lo, circuit-id vlan 100 unit 0 port 9")
	assert.True(t, x.Leases[0].Start.Equal(x.Would.Since))

	require.Equal(t, customerIP, d.lease(t, mac), "on its own line")
	_, err = d.leaseAt(t, mac, 9, once)
	require.Error(t, err)
	counted(func(m console.ByMACStatus) bool { return m.Elsewhere > 0 })
	x, err = d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	assert.Contains(t, x.Leases[0].Place, "port 3")
	assert.Equal(t, outcome.MACElsewhere.String(), x.Would.Outcome)
	assert.Equal(t, uint64(1), st.DHCP.ByMAC.Elsewhere)
	assert.NotEmpty(t, st.DHCP.ByMAC.Advice)
	assert.Equal(t, uint64(1), st.DHCP.ByMAC.Given[0].Acks)
	require.NoError(t, stop())
}
