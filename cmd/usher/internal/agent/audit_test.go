package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
)

// audited reads the audit record of a daemon.
func (d *daemon) audited(t *testing.T) map[audit.Act][]audit.Record {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(d.path), "state", "audit.jsonl"))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	assert.NotContains(t, string(b), testKey)
	out := map[audit.Act][]audit.Record{}
	for line := range bytes.Lines(b) {
		var r audit.Record
		require.NoError(t, json.Unmarshal(line, &r), "%s", line)
		out[r.Act] = append(out[r.Act], r)
	}
	return out
}

// start runs a daemon until the test, or the returned function, ends it.
func (d *daemon) start(t *testing.T, reload <-chan struct{}) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, reload) }()
	t.Cleanup(cancel)
	eventually(t, "it is ready", func() bool {
		st, err := d.client.Status(ctx)
		return err == nil && st.Ready
	})
	return func() error {
		cancel()
		return <-ended
	}
}

// A MAC report says where its client was, a pause who asked for it, and what was
// done last is written when the agent ends.
func TestActsLeaveTheirRecord(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	reload := make(chan struct{})
	stop := d.start(t, reload)
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.Equal(t, customerIP, d.lease(t, mac))
	eventually(t, "the report is recorded", func() bool { return len(d.audited(t)[audit.SetMAC]) > 0 })
	r := d.audited(t)[audit.SetMAC][0]
	assert.Equal(t, audit.What{Customer: provision.SubscriberID(d.id), IP: customerIP, MAC: provision.MAC(mac), Attempts: 1}, r.What)
	assert.Equal(t, audit.Done, r.Result)
	assert.Equal(t, audit.ByAgent, r.Who.By)
	assert.Nil(t, r.Who.Process)
	require.NotNil(t, r.Who.Evidence)
	assert.EqualValues(t, 3, r.Who.Evidence.Port)
	assert.NotZero(t, r.Who.Evidence.Device)
	assert.Equal(t, "127.0.0.1", r.Who.Evidence.Relay.String())
	assert.NotEmpty(t, r.Who.Evidence.Option82)

	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.path, append(text, "nonsense: true\n"...), 0o600))
	reload <- struct{}{}
	reload <- struct{}{} // taken when the first is over
	_, err = d.client.SetState(t.Context(), provision.SubscriberID(d.id), provision.StatePause)
	require.NoError(t, err)
	require.NoError(t, stop())

	all := d.audited(t)
	require.Len(t, all[audit.ConfigReload], 2)
	assert.Equal(t, audit.Who{By: audit.BySignal}, all[audit.ConfigReload][0].Who)
	assert.Equal(t, audit.Refused, all[audit.ConfigReload][0].Result)
	require.Len(t, all[audit.CustomerState], 1)
	r = all[audit.CustomerState][0]
	me, err := user.LookupId(fmt.Sprint(os.Getuid()))
	require.NoError(t, err)
	assert.Equal(t, audit.Who{By: audit.BySocket, Process: &audit.Process{
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), User: me.Username}}, r.Who)
	assert.Equal(t, "pause", r.What.State)
	assert.Equal(t, audit.Done, r.Result)
	assert.True(t, r.KernelDryRun)
}

// A dry run refuses the act and records that.
func TestDryRunIsRecordedAsOne(t *testing.T) {
	d := newDaemon(t, Options{DryRun: true}, "")
	stop := d.start(t, nil)
	_, err := d.client.SetState(t.Context(), provision.SubscriberID(d.id), provision.StatePause)
	require.Error(t, err)
	require.NoError(t, stop())
	got := d.audited(t)[audit.CustomerState]
	require.Len(t, got, 1)
	assert.Equal(t, audit.Refused, got[0].Result)
	assert.True(t, got[0].DryRun)
}

// Without a place for records everything works, and is counted.
func TestUnwritableRecordUndoesNothing(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	require.NoError(t, os.Mkdir(filepath.Join(filepath.Dir(d.path), "state", "audit.jsonl"), 0o750))
	stop := d.start(t, nil)
	_, err := d.client.SetState(t.Context(), provision.SubscriberID(d.id), provision.StatePause)
	require.NoError(t, err)
	c, _ := d.erp.Customer(d.id)
	assert.EqualValues(t, "pause", fmt.Sprint(c.State))
	eventually(t, "it is counted", func() bool { return d.counter(t, "usher_audit_write_failures_total") > 0 })
	require.NoError(t, stop())
}

// counter reads one counter of a daemon.
func (d *daemon) counter(t *testing.T, name string) float64 {
	t.Helper()
	families, err := d.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
