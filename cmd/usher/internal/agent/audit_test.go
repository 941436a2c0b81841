package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
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
	stop = d.launch(t, reload)
	eventually(t, "it is ready", func() bool {
		st, err := d.client.Status(t.Context())
		return err == nil && st.Ready
	})
	return stop
}

// launch is start that does not wait.
func (d *daemon) launch(t *testing.T, reload <-chan struct{}) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, reload) }()
	t.Cleanup(cancel)
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
	assert.Equal(t, d.relay.LocalAddr().String(), r.Who.Evidence.Source.String())
	assert.Equal(t, "relay", r.Who.Evidence.VouchedBy)
	assert.Equal(t, "option82", r.Who.Evidence.MatchedBy)
	assert.Equal(t, "select_has", r.Who.Evidence.Rule)
	assert.WithinDuration(t, r.Who.Evidence.Renewed, r.Who.Evidence.Seen, 0)

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

// The evidence of a report is its packet, with the place of the lease of that client if there is one.
func TestEvidenceOfReports(t *testing.T) {
	mac, at := provision.MAC{2, 0, 0, 0, 0, 1}, time.Unix(1_800_000_000, 0).UTC()
	relay, source := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddrPort("192.0.2.9:67")
	report := provision.MACReport{IP: customerIP, MAC: mac, Subscriber: 1001, At: at}
	packet := provision.Packet{Source: source, Interface: "eth1", Relay: relay, Option82: "0102", Device: 7, Port: 3, VouchedBy: "relay", MatchedBy: "option82", Rule: "discover_has"}
	past := provision.Packet{Source: netip.AddrPortFrom(customerIP, 68), Interface: "eth0", VouchedBy: "none", Rule: "extend_kept"}
	given := lease.Record{IP: customerIP, MAC: mac, Device: 7, Port: 3, Interface: "eth1", GIAddr: relay, Option82: lease.Hex{1, 2}, State: lease.StateBound, Renewed: at, Expires: at.Add(time.Hour)}
	foreign := given
	foreign.MAC[5] = 9
	asked := audit.Evidence{Device: 7, Port: 3, Interface: "eth1", Relay: relay, Option82: "0102", Seen: at, Source: source, VouchedBy: "relay", MatchedBy: "option82", Rule: "discover_has"}
	leased := audit.Evidence{Device: 7, Port: 3, Interface: "eth1", Relay: relay, Option82: "0102", Renewed: at}
	renewed := leased
	renewed.Seen, renewed.Source, renewed.VouchedBy, renewed.Rule = at, past.Source, "none", "extend_kept"
	for _, tc := range []struct {
		name   string
		packet provision.Packet
		lease  lease.Record
		want   *audit.Evidence
	}{
		{"who waits for the ERP has no lease", packet, lease.Record{}, &asked},
		{"nor has another one's lease its place", packet, foreign, &asked},
		{"a renewal past the relay tells no line", past, given, &renewed},
		{"of an older usher", provision.Packet{}, given, &leased},
		{"of an older usher, without a lease", provision.Packet{}, lease.Record{}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &Agent{leases: lease.New()}
			if tc.lease.IP.IsValid() {
				a.leases.Store(tc.lease)
			}
			r := report
			r.Packet = tc.packet
			assert.Equal(t, tc.want, a.evidenceOf(&r))
		})
	}
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
