package agent

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
)

// A lease that an operator ends is over for every part, recorded with who asked, and the client may have the address again.
func TestLeaseIsDropped(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	stop := d.start(t, nil)
	mac := provision.MAC{0, 0, 0x5e, 0, 0x53, 0x17}
	require.Equal(t, customerIP, d.lease(t, net.HardwareAddr(mac[:])))
	_, err := d.client.DropLease(t.Context(), customerIP.Next(), provision.MAC{})
	require.ErrorContains(t, err, "there is no lease of 198.51.100.18")

	got, err := d.client.DropLease(t.Context(), customerIP, mac)
	require.NoError(t, err)
	assert.Equal(t, mac, got.Lease.MAC)
	assert.Contains(t, got.Lease.Place, "relay 127.0.0.1")
	// What is on disk, as a start after a kill would read it.
	var stored []lease.Record
	require.NoError(t, d.store.Leases(func(r lease.Record, err error) {
		require.NoError(t, err)
		stored = append(stored, r)
	}))
	require.Len(t, stored, 1)
	assert.False(t, stored[0].Live(time.Now()))
	assert.Equal(t, lease.StateReleased, stored[0].State)
	x, err := d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	require.Len(t, x.Leases, 1)
	assert.Equal(t, lease.StateReleased, x.Leases[0].State)
	_, err = d.client.DropLease(t.Context(), customerIP, provision.MAC{})
	var se *console.StatusError
	require.ErrorAs(t, err, &se)
	assert.Contains(t, se.Text, "is over already")

	require.Equal(t, customerIP, d.lease(t, net.HardwareAddr(mac[:])), "the ERP still has it there")
	require.NoError(t, stop())
	acts := d.audited(t)[audit.LeaseDrop]
	require.Len(t, acts, 3, filepath.Dir(d.path))
	assert.Equal(t, audit.Refused, acts[0].Result)
	assert.Equal(t, audit.Done, acts[1].Result)
	assert.Equal(t, customerIP, acts[1].What.IP)
	assert.Equal(t, mac, acts[1].What.MAC)
	assert.EqualValues(t, d.id, acts[1].What.Customer)
	assert.Contains(t, acts[1].What.Before, "bound until ")
	assert.Equal(t, audit.BySocket, acts[1].Who.By)
	require.NotNil(t, acts[1].Who.Process)
	assert.Equal(t, audit.Refused, acts[2].Result)
}
