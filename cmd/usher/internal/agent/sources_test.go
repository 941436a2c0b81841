package agent

import (
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside/emulator"
)

// While switches and cards are refused, at run time and after a restart, clients are found by their ports as before, who is
// disabled stays out, and the sources are named.
func TestRefusedSourcesOverARestart(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.NoError(t, d.erp.SetFlags(d.id, true, false, false))
	stop := d.start(t, nil)
	var st *console.Status
	when := func(what string, ok func() bool) {
		eventually(t, what, func() bool {
			var err error
			st, err = d.client.Status(t.Context())
			return err == nil && ok()
		})
	}
	asBefore := func() {
		require.Equal(t, customerIP, d.lease(t, mac))
		x, err := d.client.Explain(t.Context(), customerIP.String())
		require.NoError(t, err)
		assert.Contains(t, x.Events[0].MatchedBy, "option82")
		assert.Equal(t, provision.StateStop, x.Subscribers[0].State)
	}
	when("all is read", func() bool { return st.Sync.Counts.Stopped == 1 && len(st.Sync.Sources) == 6 && len(st.Degraded) == 0 })
	asBefore()

	require.NoError(t, d.erp.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{"device.get_data": emulator.FaultForbidden, "customer.get_data": emulator.FaultForbidden}}))
	degraded := func() bool { return len(st.Degraded) == 3 }
	when("flags, devices and subnets are named", degraded)
	asBefore()
	require.NoError(t, stop())

	cfg, err := config.Load(d.path)
	require.NoError(t, err)
	d.Agent, err = New(t.Context(), cfg, Options{Path: d.path, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Stop() })
	stop = d.start(t, nil)
	when("they are named again", func() bool { return degraded() && st.Sync.Source == provision.SourceDirect })
	assert.Equal(t, 1, st.Sync.Counts.Stopped)
	assert.True(t, st.Ready)
	asBefore()
	x, err := d.client.Explain(t.Context(), customerIP.String())
	require.NoError(t, err)
	assert.Contains(t, x.Summary, "the ERP's list of switches may be old (devices): failed since")

	require.NoError(t, d.erp.SetQuirks(emulator.Quirks{}))
	when("all is well", func() bool { return len(st.Degraded) == 0 })
	require.NoError(t, stop())
}
