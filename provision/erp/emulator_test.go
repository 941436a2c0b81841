package erp

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

const emulatorKey = "emulated-key-1"

// openEmulator starts an emulated ERP and gives a client of it.
func openEmulator(t testing.TB, o emulator.Options) (*emulator.Emulator, *userside.Client) {
	t.Helper()
	o.Keys = []emulator.Key{{Key: emulatorKey}}
	e, err := emulator.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	c, err := userside.New(userside.Options{URL: s.URL + "/api.php", Key: emulatorKey, Timeout: 30 * time.Second, Location: time.UTC})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return e, c
}

// truth is what a Snapshot of the emulator's data must hold by address.
func truth(e *emulator.Emulator) map[netip.Addr]provision.Line {
	names := map[int64]map[uint32]string{}
	for _, d := range e.Devices() {
		names[d.ID] = map[uint32]string{}
		for _, i := range d.Ports {
			names[d.ID][i.Number] = i.Name
		}
	}
	out := map[netip.Addr]provision.Line{}
	for _, c := range e.Customers() {
		for _, a := range c.Addresses {
			if !a.IP.IsValid() {
				continue
			}
			b := provision.Line{Subscriber: provision.SubscriberID(c.ID), Addresses: provision.Hosts4(a.IP), MAC: provision.MAC(a.MAC)}
			if len(c.Links) > 0 {
				l := c.Links[0]
				b.Device, b.Port, b.PortName = provision.DeviceID(l.Device), l.Port, names[l.Device][l.Port]
			}
			out[a.IP] = b
		}
	}
	return out
}

func snapshotRows(s *provision.Snapshot) map[netip.Addr]provision.Line {
	out := map[netip.Addr]provision.Line{}
	for ip, l := range s.Hosts4() {
		row := *l
		row.VLAN = 0 // only the direct source tells it
		row.Addresses = provision.Hosts4(ip)
		out[ip] = row
	}
	return out
}

// Every generation, shape and harmless quirk of the emulator gives the same snapshot.
func TestEmulatorAllWaysAgree(t *testing.T) {
	quirks := map[string]emulator.Quirks{
		"plain":          {},
		"php":            {NumericStrings: true, EmptyMapAsList: true, UpperCaseColumns: true, IDAsList: true},
		"lists":          {ListForMap: true, GzipNoHeader: true, BOM: true},
		"escaped":        {HTMLEscaped: true, OmitOptional: true},
		"composite rows": {CompositeRows: true},
		"objects":        {ObjectForList: true},
	}
	customers := long.Times(t, 40, 150)
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for quirk, q := range quirks {
			for _, way := range []string{"A", "B", "C", "D", "E", "composed"} {
				t.Run(fmt.Sprintf("%s %s %s", profile, quirk, way), func(t *testing.T) {
					o := emulator.Options{Profile: profile, Quirks: q, Seed: 7, Customers: customers}
					mode := ModeDirect
					if way == "composed" {
						mode = ModeComposed
					} else {
						o.Shape = emulator.Shape(way[0])
					}
					e, c := openEmulator(t, o)
					f, err := New(c, Options{Bindings: mode, BatchSize: 50})
					require.NoError(t, err)
					in, err := f.Fetch(ctx, nil)
					require.NoError(t, err)
					for _, p := range in.Problems {
						require.NotEqual(t, provision.ProblemBadRow, p.Kind, "%+v", p)
					}
					snap, _ := provision.Build(in)
					want, got := truth(e), snapshotRows(snap)
					if !reflect.DeepEqual(want, got) { // most of the time it is, and cmp takes long with the race detector
						diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, provision.Owner{}), cmpopts.EquateEmpty())
						require.Empty(t, diff, "bindings (-want +got)")
					}
					for _, d := range e.Devices() {
						if dev := snap.Device(provision.DeviceID(d.ID)); dev != nil {
							require.Equal(t, d.Model, dev.Model)
						}
					}
					for _, customer := range e.Customers() {
						if snap.BySubscriber(provision.SubscriberID(customer.ID)).Len() == 0 {
							continue
						}
						require.Equal(t, provision.PlainPolicy().States[int(customer.State)], snap.State(provision.SubscriberID(customer.ID)), "customer %d", customer.ID)
					}
				})
			}
		}
	}
}

func TestEmulatorFallsBack(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 100})
	f, err := New(c, Options{})
	require.NoError(t, err)
	source := func() provision.Source {
		in, err := f.Fetch(ctx, nil)
		require.NoError(t, err)
		return in.Source
	}
	require.Equal(t, provision.SourceDirect, source())
	require.NoError(t, e.SetQuirks(emulator.Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}))
	require.Equal(t, provision.SourceComposed, source())
	for _, q := range []emulator.Quirks{{Truncated: true}, {HTMLPage: 200}, {HTMLPage: 502}, {Forbidden: true}, {PHPWarning: true}} {
		require.NoError(t, e.SetQuirks(q))
		_, err := f.Fetch(ctx, nil)
		require.Error(t, err, "%+v", q)
		require.NotContains(t, err.Error(), emulatorKey)
	}
}

// An ERP whose direct answer is empty is composed, and asked for it again with each fetch.
func TestEmulatorWithEmptyBindings(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 100, Quirks: emulator.Quirks{EmptyBindings: true}})
	f, err := New(c, Options{})
	require.NoError(t, err)
	in, err := f.Fetch(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, provision.SourceComposed, in.Source)
	snap, _ := provision.Build(in)
	require.Len(t, snapshotRows(snap), len(truth(e)))
	told := f.Fallback()
	require.NotNil(t, told)
	require.Equal(t, errNoRows.Error(), told.Reason)
	require.Equal(t, 1, told.Fetches)

	require.NoError(t, e.SetQuirks(emulator.Quirks{EmptyBindings: true, MissingActions: []string{"commutation.get_data"}}))
	in, err = f.Fetch(ctx, snap)
	require.NoError(t, err)
	require.Empty(t, in.Lines, "an ERP without a row by either way: the guard holds that")
	require.Equal(t, provision.SourceDirect, in.Source)

	require.NoError(t, e.SetQuirks(emulator.Quirks{}))
	in, err = f.Fetch(ctx, snap)
	require.NoError(t, err)
	require.Equal(t, provision.SourceDirect, in.Source)
	require.Nil(t, f.Fallback())
}

// A network by port is found by the same as before when its bindings are composed for a while.
func TestEmulatorFallbackMovesNobody(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 400})
	f, err := New(c, Options{})
	require.NoError(t, err)
	in, err := f.Fetch(ctx, nil)
	require.NoError(t, err)
	direct, _ := provision.Build(in)
	require.Equal(t, provision.SourceDirect, direct.Source())
	require.NoError(t, e.SetQuirks(emulator.Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}))
	in, err = f.Fetch(ctx, direct)
	require.NoError(t, err)
	composed, _ := provision.Build(in)
	require.Equal(t, provision.SourceComposed, composed.Source())
	require.Equal(t, direct.Len(), composed.Len())
	for ip, was := range direct.Hosts4() {
		is := composed.ByIP(ip)
		require.True(t, is.KeepsPort(was), "%+v, was %+v", is, was)
		require.Equal(t, was.MAC, is.MAC)
		require.Equal(t, was.VLAN, is.VLAN)
	}
}

func TestEmulatorReports(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		t.Run(profile.String(), func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 7, Customers: 20})
			f, err := New(c, Options{})
			require.NoError(t, err)
			customer := e.Customers()[0]
			ip := customer.Addresses[0].IP
			require.NoError(t, f.SetMAC(ctx, ip, mac2))
			require.NoError(t, f.ChangeState(ctx, provision.SubscriberID(customer.ID), provision.StatePause))
			got, _ := e.Customer(customer.ID)
			require.Equal(t, emulator.StatePause, got.State)
			require.Equal(t, mac2, provision.MAC(got.Addresses[0].MAC))
			require.ErrorIs(t, f.SetMAC(ctx, netip.MustParseAddr("198.51.100.1"), mac2), provision.ErrRefused)
			require.ErrorIs(t, f.ChangeState(ctx, 999_999, provision.StatePause), provision.ErrRefused)
			info, err := f.System(ctx)
			require.NoError(t, err)
			require.NotEmpty(t, info.Version)
			require.NoError(t, e.SetQuirks(emulator.Quirks{Forbidden: true}))
			require.NotErrorIs(t, f.SetMAC(ctx, ip, mac1), provision.ErrRefused)
		})
	}
}

// What the ERP did without saying so is no refusal, and can be looked up.
func TestEmulatorDoesAndDoesNotSaySo(t *testing.T) {
	for name, q := range map[string]emulator.Quirks{"the answer is lost": {LostAnswers: true}, "a hook answers": {HookAnswer: true}, "the answer is cut": {Truncated: true}} {
		t.Run(name, func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 20})
			f, err := New(c, Options{})
			require.NoError(t, err)
			own := e.Customers()[0]
			id, ip := provision.SubscriberID(own.ID), own.Addresses[0].IP
			require.NoError(t, e.SetQuirks(q))
			for _, err := range []error{f.SetMAC(ctx, ip, mac2), f.ChangeState(ctx, id, provision.StatePause)} {
				require.ErrorIs(t, err, provision.ErrUncertain)
				require.NotErrorIs(t, err, provision.ErrRefused)
			}
			require.Equal(t, 1, e.Calls()["customer.set_mac_by_ip"])
			require.Equal(t, 1, e.Calls()["customer.state_change"])
			require.NoError(t, e.SetQuirks(emulator.Quirks{}))
			has, err := f.HasState(ctx, id, provision.StatePause)
			require.NoError(t, err)
			require.True(t, has)
			has, err = f.HasState(ctx, id, provision.StateActive)
			require.NoError(t, err)
			require.False(t, has)
			mac, err := f.MACOf(ctx, ip, id)
			require.NoError(t, err)
			require.Equal(t, mac2, mac)
		})
	}
}

// BenchmarkFetch reads 100,000 customers over HTTP; the emulator's share is in it.
func BenchmarkFetch(b *testing.B) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		b.Run(string(mode), func(b *testing.B) {
			_, c := openEmulator(b, emulator.Options{Seed: 7, Customers: 100_000})
			f, err := New(c, Options{Bindings: mode})
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				in, err := f.Fetch(ctx, nil)
				require.NoError(b, err)
				require.Greater(b, len(in.Lines), 90_000)
			}
		})
	}
}
