package agent

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/userside/emulator"
)

// With packets over sockets: a client on its line, behind a relay of another network, is given its address, and the status has the
// line that ends the notice; one that is found by MAC alone is not answered, before the line is there.
func TestSharedNetworksCanBePasted(t *testing.T) {
	service := &told{}
	d := newDaemon(t, Options{Service: service}, "")
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.NoError(t, d.erp.SetIPMAC(customerIP, emulator.MAC(mac)))
	reload := make(chan struct{})
	stop := d.start(t, reload)
	const subnet = "    - {prefix: 198.51.100.0/24, gateway: 198.51.100.1}\n"
	const relays = "    - {prefix: 127.0.0.0/8}\n" // that the relay is in
	d.edit(t, reload, service, subnet, subnet+relays)
	var st *console.Status
	seen := func(ok func([]senders.Networks) bool) { // the answer leaves before it is counted
		eventually(t, "the networks are seen", func() bool {
			var err error
			st, err = d.client.Status(t.Context())
			return err == nil && ok(st.DHCP.Senders.Networks)
		})
	}
	_, err := d.leaseAt(t, mac, 9, once) // a port that the ERP does not have
	require.Error(t, err)
	seen(func(n []senders.Networks) bool { return len(n) == 1 && n[0].Refused == 1 && n[0].Given == 0 })
	both := st.DHCP.Senders.Networks[0].OtherNetwork
	assert.Equal(t, "the client is in 127.0.0.0/8, its address in 198.51.100.0/24", both.String())
	x, err := d.client.Explain(t.Context(), mac.String())
	require.NoError(t, err)
	assert.Equal(t, outcome.WrongNetwork.String(), x.Events[0].Outcome)
	assert.Equal(t, outcome.WrongNetwork.String(), x.Would.Outcome)
	assert.Equal(t, "discover_network", x.Would.Rule)
	assert.NotEmpty(t, x.Would.Advice)
	assert.Equal(t, both, x.Events[0].Networks)
	assert.Equal(t, both, x.Would.Networks)

	require.Equal(t, customerIP, d.lease(t, mac), "on its line")
	seen(func(n []senders.Networks) bool { return len(n) == 1 && n[0].Given == 1 })
	assert.Equal(t, 1.0, d.counter(t, "usher_dhcp_other_network_total"))
	x, err = d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	assert.Equal(t, outcome.Offer.String(), x.Would.Outcome)
	assert.Equal(t, both, x.Would.Networks)

	d.edit(t, reload, service, relays, relays+"  "+st.DHCP.Senders.Networks[0].Paste+"\n")
	seen(func(n []senders.Networks) bool { return len(n) == 0 })
	x, err = d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	assert.True(t, x.Would.Networks.IsZero())
	require.NoError(t, stop())
}

// Leases on an interface get host routes where the keeper of routes runs.
func TestHostRoutesAreToldToTheServer(t *testing.T) {
	cfg := &config.Config{Routes: config.Routes{Enabled: true, Interfaces: []string{"eth1.*"}}}
	a := &Agent{}
	assert.Nil(t, a.dhcpOptions(cfg).HostRoutes)
	a.routes = &route.Keeper{}
	o := a.dhcpOptions(cfg)
	assert.True(t, o.HostRoutes("eth1.7"))
	assert.False(t, o.HostRoutes("eth2.7"))
}
