package agent

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/userside/emulator"
)

// erpMAC returns the MAC that the ERP has for an address; zero: none.
func (d *daemon) erpMAC(ip netip.Addr) emulator.MAC {
	for _, c := range d.erp.Customers() {
		for _, a := range c.Addresses {
			if a.IP == ip {
				return a.MAC
			}
		}
	}
	return emulator.MAC{}
}

// foreign waits until so many MACs were not reported, and returns the last of them.
func (d *daemon) foreign(t *testing.T, n int) outbox.Foreign {
	t.Helper()
	var x outbox.Foreign
	eventually(t, "the report is dropped", func() bool {
		st, err := d.client.Status(t.Context())
		if err != nil || len(st.Outbox.ForeignList) != n || st.Outbox.Depth > 0 {
			return false
		}
		x = st.Outbox.ForeignList[0]
		return true
	})
	return x
}

// With packets over sockets: who uses at a port of his own the MAC of a customer without a port gets the port's address, and the ERP is not told of the
// MAC, as long as it is that customer's.
func TestCustomersMACIsNotReported(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	theirs := netip.MustParseAddr("198.51.100.81")
	mac, former := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x81}, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x83}
	id, err := d.erp.AddCustomer(emulator.Customer{Login: "neighbour", FullName: "neighbour", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: theirs, MAC: emulator.MAC(mac)}}})
	require.NoError(t, err)
	stop := d.start(t, nil)
	setMAC := func(mac net.HardwareAddr) {
		require.NoError(t, d.erp.SetIPMAC(theirs, emulator.MAC(mac)))
		eventually(t, "it is fetched", func() bool {
			e, err := d.client.Explain(t.Context(), theirs.String())
			return err == nil && e.Bindings[0].MAC == provision.MAC(mac)
		})
	}

	got, err := d.leaseAt(t, mac, 9, patient)
	require.NoError(t, err)
	require.Equal(t, theirs, got)
	require.Equal(t, customerIP, d.lease(t, mac), "the port's address, whatever the MAC")
	x := d.foreign(t, 1)
	assert.Equal(t, fmt.Sprintf("the MAC is that of customer %d (198.51.100.81), who is found by it", id), x.Reason())
	assert.Equal(t, provision.SubscriberID(d.id), x.Subscriber)
	assert.Equal(t, emulator.MAC{}, d.erpMAC(customerIP))
	assert.Empty(t, d.audited(t)[audit.SetMAC])
	e, err := d.client.Explain(t.Context(), theirs.String())
	require.NoError(t, err)
	assert.Contains(t, e.Summary, fmt.Sprintf("The ERP is not told that 198.51.100.17 of customer %d has the MAC 00:00:5e:00:53:81", d.id))
	got, err = d.leaseAt(t, mac, 9, patient)
	require.NoError(t, err)
	assert.Equal(t, theirs, got)

	setMAC(former) // of a router that is not used any more
	require.Equal(t, customerIP, d.lease(t, former))
	d.foreign(t, 2)
	assert.Equal(t, emulator.MAC{}, d.erpMAC(customerIP))
	setMAC(mac)
	require.Equal(t, customerIP, d.lease(t, former))
	eventually(t, "the ERP has it", func() bool { return d.erpMAC(customerIP) == emulator.MAC(former) })
	require.NoError(t, stop())
}

// The same with the MAC of a guest.
func TestGuestsMACIsNotReported(t *testing.T) {
	d := newDaemonAt(t, Options{}, somePool, "", filepath.Join(t.TempDir(), "state"))
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x99}
	stop := d.start(t, nil)
	lodging, err := d.leaseAt(t, mac, 8, patient)
	require.NoError(t, err)
	require.NotEqual(t, customerIP, lodging)
	require.Equal(t, customerIP, d.lease(t, mac))
	x := d.foreign(t, 1)
	assert.Equal(t, "the MAC is that of a guest ("+lodging.String()+"), who is found by it", x.Reason())
	assert.Equal(t, emulator.MAC{}, d.erpMAC(customerIP))
	got, err := d.leaseAt(t, mac, 8, patient)
	require.NoError(t, err)
	assert.Equal(t, lodging, got)
	require.NoError(t, stop())
}
