package agent

import (
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
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

// The first start while the list of switches cannot be read: who is found by the MAC is served, who is found by a port alone is
// neither refused nor a guest, and the source is named. When the list comes the port is served.
func TestFirstStartWithoutSwitches(t *testing.T) {
	for _, fault := range []emulator.Fault{emulator.FaultForbidden, emulator.FaultError} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			d := newDaemonAt(t, Options{}, "  unknown_clients: nak\n", "", filepath.Join(t.TempDir(), "state"))
			known, unknown := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x18}, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
			byMAC := netip.MustParseAddr("198.51.100.18")
			_, err := d.erp.AddCustomer(emulator.Customer{Login: "mac", FullName: "mac", State: emulator.StateActive,
				Addresses: []emulator.Address{{IP: byMAC, MAC: emulator.MAC(known)}}})
			require.NoError(t, err)
			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{"device.get_data": fault}}))
			stop := d.start(t, nil)
			got, err := d.leaseAt(t, known, 9, patient)
			require.NoError(t, err)
			require.Equal(t, byMAC, got)
			_, err = d.leaseAt(t, unknown, 3, once)
			require.Error(t, err)

			st, err := d.client.Status(t.Context())
			require.NoError(t, err)
			require.True(t, st.Ready)
			require.Len(t, st.Degraded, 1)
			require.Contains(t, st.Degraded[0], "devices of the ERP: failed since")
			x, err := d.client.Explain(t.Context(), unknown.String())
			require.NoError(t, err)
			require.Equal(t, outcome.DevicesUnread.String(), x.Events[0].Outcome)
			require.Contains(t, x.Summary, "(devices): failed since")
			require.Contains(t, x.Summary, "none was ever good")

			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{}))
			eventually(t, "the list is read", func() bool {
				st, err = d.client.Status(t.Context())
				return err == nil && len(st.Degraded) == 0
			})
			eventually(t, "and in use", func() bool { // a moment later: a DISCOVER in between would get silence
				x, err = d.client.Explain(t.Context(), unknown.String())
				return err == nil && x.Would != nil && x.Would.YourIP == customerIP
			})
			require.Equal(t, customerIP, d.lease(t, unknown))
			require.NoError(t, stop())
		})
	}
}

// buffer is a log that is written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Each source of the ERP that fails alone, at run time and after a restart, changes nothing for the customer, and is named, as at the first start, by
// status, log, metric and explain. Status exits 1 for it (show.TestStatusExitsByTheSources).
func TestEachSourceIsNamed(t *testing.T) {
	const list = "customer.get_customers_id?"
	for _, c := range []struct {
		calls []string
		named []syncer.SourceName
	}{
		{[]string{"customer.get_ip_port_device_commutation"}, []syncer.SourceName{syncer.SourceBindings}},
		{[]string{list + "state_id=0", list + "state_id=1", list + "state_id=2"}, []syncer.SourceName{syncer.SourceStates}},
		{[]string{"customer.get_data"}, []syncer.SourceName{syncer.SourceFlags, syncer.SourceSubnets}},
		{[]string{"device.get_data"}, []syncer.SourceName{syncer.SourceDevices}},
		{[]string{list + "is_ex=1"}, []syncer.SourceName{syncer.SourceFormer}},
	} {
		t.Run(string(c.named[0]), func(t *testing.T) {
			t.Parallel()
			var log buffer
			options := Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
			d := newDaemon(t, options, "")
			cfg, err := config.Load(d.path)
			require.NoError(t, err)
			client, err := userside.New(userside.Options{URL: cfg.ERP.Client.URL, Key: testKey})
			require.NoError(t, err)
			require.NoError(t, client.AddSubnet(t.Context(), d.id, netip.MustParsePrefix("203.0.113.8/29")))
			stop := d.start(t, nil)
			var st *console.Status
			when := func(what string, ok func() bool) {
				t.Helper()
				eventually(t, what, func() bool {
					var err error
					st, err = d.client.Status(t.Context())
					return err == nil && ok()
				})
			}
			when("all is read", func() bool { return len(st.Sync.Sources) == 6 && len(st.Degraded) == 0 && st.Sync.Counts.Active == 1 })
			good := st.Sync.Fingerprint
			when("it is stored", func() bool { return !st.Sync.StoredAt.IsZero() })

			faults := map[string]emulator.Fault{}
			for _, call := range c.calls {
				faults[call] = emulator.FaultForbidden
				if c.named[0] == syncer.SourceBindings {
					faults[call] = emulator.FaultError // else they are composed
				}
			}
			named := func(when string) {
				t.Helper()
				assert.True(t, st.Ready, when)
				assert.Equal(t, good, st.Sync.Fingerprint, when)
				x, err := d.client.Explain(t.Context(), fmt.Sprint(d.id))
				require.NoError(t, err)
				metrics := httptest.NewRecorder()
				promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
				for i, name := range c.named {
					assert.Contains(t, st.Degraded[i], string(name)+" of the ERP: failed since", when)
					assert.Contains(t, log.String(), "source="+string(name), when)
					assert.Contains(t, metrics.Body.String(), fmt.Sprintf("usher_erp_source_judgement{judgement=\"failed\",source=%q} 1", name), when)
					assert.Contains(t, x.Summary, fmt.Sprintf("may be old (%s): failed since", name), when)
				}
			}
			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{Faults: faults}))
			degraded := func() bool { return len(st.Degraded) == len(c.named) }
			when("it is named", degraded)
			named("at run time")
			require.NoError(t, stop())

			options.Path = d.path
			d.Agent, err = New(t.Context(), cfg, options)
			require.NoError(t, err)
			t.Cleanup(func() { _ = d.Stop() })
			stop = d.start(t, nil)
			when("it is named again", degraded)
			named("after a restart")
			require.NoError(t, stop())

			// At the first start, with nothing stored. Without bindings or states there is nothing to be ready with.
			d = newDaemon(t, options, "")
			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{Faults: faults}))
			stop = d.launch(t, nil)
			when("it is named at the first start", degraded)
			serves := c.named[0] != syncer.SourceBindings && c.named[0] != syncer.SourceStates
			when("it serves, or not", func() bool { return st.Ready == serves })
			for i, name := range c.named {
				assert.Contains(t, st.Degraded[i], string(name)+" of the ERP: failed since")
				assert.Contains(t, st.Degraded[i], "none was ever good")
			}
			if serves {
				x, err := d.client.Explain(t.Context(), fmt.Sprint(d.id))
				require.NoError(t, err)
				assert.Contains(t, x.Summary, fmt.Sprintf("may be old (%s): failed since", c.named[0]))
			}
			require.NoError(t, stop())
		})
	}
}

// A source that is read and not believed is named as one that fails is: by status, log, metric and explain of whom it is about.
func TestHeldSourcesAreNamed(t *testing.T) {
	const switches, ports = 4, 20
	for name, c := range map[string]struct {
		faults map[string]emulator.Fault
		source syncer.SourceName
		says   string
	}{
		"no switch":        {map[string]emulator.Fault{"device.get_data": emulator.FaultEmpty}, syncer.SourceDevices, "the ERP's list of switches may be old (devices): held since"},
		"half of the rows": {map[string]emulator.Fault{"customer.get_ip_port_device_commutation": emulator.FaultHalf}, syncer.SourceBindings, "what the ERP binds may be old (bindings): held since"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log buffer
			d := newDaemon(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, "")
			ids := map[string]int64{}
			for i := range switches {
				sw := emulator.Device{Name: fmt.Sprintf("access%d", i), MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x10 + i)}, IP: netip.AddrFrom4([4]byte{10, 0, 1, byte(1 + i)})}
				for n := range uint32(ports) {
					sw.Ports = append(sw.Ports, emulator.Port{Number: n + 1, Index: n + 1, Name: fmt.Sprintf("ge%d", n+1)})
				}
				device, err := d.erp.AddDevice(sw)
				require.NoError(t, err)
				for n := range uint32(ports) {
					ip := netip.AddrFrom4([4]byte{198, 51, 100, byte(20 + i*ports + int(n))})
					id, err := d.erp.AddCustomer(emulator.Customer{Login: ip.String(), FullName: "somebody", State: emulator.StateActive,
						Addresses: []emulator.Address{{IP: ip}}, Links: []emulator.Link{{Device: device, Port: n + 1}}})
					require.NoError(t, err)
					ids[ip.String()] = id
				}
			}
			stop := d.start(t, nil)
			var st *console.Status
			when := func(what string, ok func() bool) {
				t.Helper()
				eventually(t, what, func() bool {
					var err error
					st, err = d.client.Status(t.Context())
					return err == nil && ok()
				})
			}
			when("all is read", func() bool { return len(st.Degraded) == 0 && st.Sync.Counts.Active == 1+switches*ports })
			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{Faults: c.faults}))
			when("it is named", func() bool { return len(st.Degraded) > 0 })
			assert.Contains(t, st.Degraded[0], string(c.source)+" of the ERP: held since")
			assert.Len(t, st.Degraded, 1)
			assert.Equal(t, 1+switches*ports, st.Sync.Counts.Active, "nobody is gone")
			metrics := httptest.NewRecorder()
			promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}).ServeHTTP(metrics, httptest.NewRequest("GET", "/metrics", nil))
			assert.Contains(t, metrics.Body.String(), fmt.Sprintf("usher_erp_source_judgement{judgement=\"held\",source=%q} 1", c.source))
			assert.Contains(t, log.String(), string(c.source))
			named := 0
			for ip := range ids {
				x, err := d.client.Explain(t.Context(), ip)
				require.NoError(t, err)
				if strings.Contains(x.Summary, c.says) {
					named++
				}
			}
			assert.GreaterOrEqual(t, named, switches*ports/2, "explain of those whom it is about")
			require.NoError(t, d.erp.SetQuirks(emulator.Quirks{}))
			when("all is well", func() bool { return len(st.Degraded) == 0 })
			require.NoError(t, stop())
		})
	}
}

// A client whose MAC the ERP does not have yet renews ten times before the next whole fetch: the ERP, which calls its hooks for each write, is told once.
func TestTenACKsAreOneWrite(t *testing.T) {
	d := newDaemon(t, Options{}, "")
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.path, []byte(strings.Replace(string(text), "refresh_interval: 1s", "refresh_interval: 1h", 1)), 0o600))
	require.NoError(t, d.Stop())
	cfg, err := config.Load(d.path)
	require.NoError(t, err)
	d.Agent, err = New(t.Context(), cfg, Options{Path: d.path, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Stop() })
	stop := d.start(t, nil)
	for range 10 {
		require.Equal(t, customerIP, d.lease(t, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}))
	}
	var st *console.Status
	eventually(t, "nothing waits", func() bool {
		st, err = d.client.Status(t.Context())
		return err == nil && st.Outbox.Sent > 0 && st.Outbox.Depth == 0
	})
	require.EqualValues(t, 1, st.Outbox.Sent)
	require.Equal(t, 1, d.erp.Calls()["customer.set_mac_by_ip"])
	require.NoError(t, stop())
}

// Limits of the fetch guard that are zero are no defaults to what judges the sources.
func TestLimitsOfSources(t *testing.T) {
	var c config.Config
	o := FetchOptions(&c, nil, nil)
	require.Zero(t, *o.MaxMoved)
	require.Zero(t, *o.MinChanged)
	c.Guard.MaxMoved, c.Guard.MinChanged = 0.25, 7
	o = FetchOptions(&c, nil, nil)
	require.InDelta(t, 0.25, *o.MaxMoved, 0)
	require.Equal(t, 7, *o.MinChanged)
}
