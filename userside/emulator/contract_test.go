package emulator_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// These tests let the client of the project talk to the emulator over
// loopback. The two were written apart from the API page, so where they agree
// both have read it alike.

const key = "contract-key"

func connect(t *testing.T, o emulator.Options) (*emulator.Emulator, *userside.Client) {
	t.Helper()
	o.Keys = []emulator.Key{{Key: key}}
	e, err := emulator.Open(o)
	require.NoError(t, err)
	srv := httptest.NewServer(e)
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, e.Close())
	})
	c, err := userside.New(userside.Options{URL: srv.URL + "/api.php", Key: key, Timeout: 20 * time.Second, Location: time.UTC})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return e, c
}

// fact is a row as both sides know it.
type fact struct {
	customer int64
	ip       netip.Addr
	mac      string
	device   int64
	port     uint32
}

// facts returns what the bindings must say, by the model.
func facts(e *emulator.Emulator) map[fact]int {
	out := map[fact]int{}
	for _, c := range e.Customers() {
		for _, a := range c.Addresses {
			if a.Net.IsValid() {
				continue
			}
			f := fact{customer: c.ID, ip: a.IP, mac: a.MAC.String()}
			if len(c.Links) > 0 {
				f.device, f.port = c.Links[0].Device, c.Links[0].Port
			}
			out[f]++
		}
	}
	return out
}

func TestClientReadsBindings(t *testing.T) {
	quirks := map[string]emulator.Quirks{
		"none":              {},
		"numeric_strings":   {NumericStrings: true},
		"empty_map_as_list": {EmptyMapAsList: true},
		"list_for_map":      {ListForMap: true},
		"omit_optional":     {OmitOptional: true},
		"html_escaped":      {HTMLEscaped: true},
		"gzip_no_header":    {GzipNoHeader: true},
		"bom":               {BOM: true},
		"composite_rows":    {CompositeRows: true},
	}
	for shape := emulator.ShapeA; shape <= emulator.ShapeE; shape++ {
		for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
			for name, q := range quirks {
				t.Run(fmt.Sprintf("%v %v %s", shape, profile, name), func(t *testing.T) {
					e, c := connect(t, emulator.Options{Shape: shape, Profile: profile, Quirks: q, Customers: 120, Seed: 11})
					got, err := c.CustomerBindings(t.Context())
					require.NoError(t, err)
					require.Empty(t, got.Defects.First)
					seen := map[fact]int{}
					for _, r := range got.Rows {
						seen[fact{r.Customer, r.IP, r.MAC.String(), r.Device, r.Port}]++
					}
					want := facts(e)
					if shape == emulator.ShapeB {
						// One entry without address is left of all, under the key 0.
						for f := range want {
							if !f.ip.IsValid() && seen[f] == 0 {
								delete(want, f)
							}
						}
					}
					require.Equal(t, want, seen)
				})
			}
		}
	}
}

func TestClientSeesDefects(t *testing.T) {
	tests := map[string]struct {
		quirks emulator.Quirks
		shape  emulator.Shape
		want   error
	}{
		"truncated":       {emulator.Quirks{Truncated: true}, emulator.ShapeA, userside.ErrMalformed},
		"login page":      {emulator.Quirks{HTMLPage: 200}, emulator.ShapeA, userside.ErrMalformed},
		"proxy's page":    {emulator.Quirks{HTMLPage: 502}, emulator.ShapeA, userside.ErrUnavailable},
		"forbidden":       {emulator.Quirks{Forbidden: true}, emulator.ShapeA, userside.ErrPermission},
		"PHP warning":     {emulator.Quirks{PHPWarning: true}, emulator.ShapeA, userside.ErrMalformed},
		"missing action":  {emulator.Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}, emulator.ShapeA, userside.ErrRefused},
		"no rows":         {emulator.Quirks{EmptyBindings: true}, emulator.ShapeA, nil},
		"no rows, keyed":  {emulator.Quirks{EmptyBindings: true}, emulator.ShapeC, nil},
		"shape F":         {emulator.Quirks{}, emulator.ShapeF, nil},
		"shape F no data": {emulator.Quirks{OmitOptional: true}, emulator.ShapeF, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, c := connect(t, emulator.Options{Quirks: tt.quirks, Shape: tt.shape, Customers: 50})
			got, err := c.CustomerBindings(t.Context())
			if tt.want == nil {
				require.NoError(t, err)
				require.Empty(t, got.Rows)
				return
			}
			require.Error(t, err)
			assert.True(t, errors.Is(err, tt.want), "got %v, want %v", err, tt.want)
			assert.NotContains(t, err.Error(), key)
		})
	}
}

func TestClientReadsTheRest(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for name, q := range map[string]emulator.Quirks{
			"plain": {},
			"awkward": {NumericStrings: true, EmptyMapAsList: true, ListForMap: true, OmitOptional: true, HTMLEscaped: true,
				GzipNoHeader: true, UpperCaseColumns: true, IDAsList: true, BOM: true},
		} {
			t.Run(profile.String()+" "+name, func(t *testing.T) {
				e, c := connect(t, emulator.Options{Profile: profile, Quirks: q, Customers: 120, Seed: 4})
				model := e.Customers()

				ids := []int64{}
				for _, m := range model[100:] {
					ids = append(ids, m.ID)
				}
				got, err := c.Customers(t.Context(), append(ids, 999_999))
				require.NoError(t, err)
				require.Empty(t, got.Defects.First)
				require.Len(t, got.Customers, len(ids))
				require.Equal(t, []int64{999_999}, got.Missing)
				byID := map[int64]userside.Customer{}
				for _, g := range got.Customers {
					byID[g.ID] = g
				}
				for _, m := range model[100:] {
					g := byID[m.ID]
					assert.Equal(t, int64(m.State), g.State.Value)
					assert.Equal(t, m.Disabled, g.Disabled.Value)
					assert.Equal(t, m.Potential, g.Potential.Value)
					assert.Equal(t, !m.NotInBilling, g.InBilling.Value)
					assert.Equal(t, m.FullName, g.FullName.Text(), "customer %d", m.ID)
					assert.InDelta(t, float64(m.BalanceCents)/100, g.Balance.Value, 0.001)
					require.Len(t, g.Addresses, len(m.Addresses))
				}
				one, err := c.Customer(t.Context(), ids[0])
				require.NoError(t, err)
				assert.Equal(t, ids[0], one.ID)
				_, err = c.Customer(t.Context(), 999_999)
				require.ErrorIs(t, err, userside.ErrNotFound)

				stopped := 0
				found, err := c.CustomerIDs(t.Context(), userside.CustomerFilter{State: &stopped})
				require.NoError(t, err)
				want := userside.IDs{}
				for _, m := range model {
					if m.State == emulator.StateStop {
						want = append(want, m.ID)
					}
				}
				require.Equal(t, want, found)
				login, err := c.FindCustomers(t.Context(), userside.LookupLogin, model[3].Login, false)
				require.NoError(t, err)
				require.Equal(t, userside.IDs{model[3].ID}, login)

				links, err := c.CustomerCommutation(t.Context())
				require.NoError(t, err)
				require.Empty(t, links.Defects.First)
				linked := map[int64]userside.Link{}
				for _, l := range links.Customers {
					require.Len(t, l.Links, 1)
					linked[l.Customer] = l.Links[0]
				}
				for _, m := range model {
					if len(m.Links) == 0 {
						require.NotContains(t, linked, m.ID)
						continue
					}
					l := m.Links[0]
					if l.Cross != 0 {
						require.Equal(t, "cross", linked[m.ID].ObjectType)
						chain, err := c.CustomerChain(t.Context(), m.ID)
						require.NoError(t, err)
						require.Equal(t, []any{"switch", l.Device, l.Port}, []any{chain.Finish.ObjectType, chain.Finish.ObjectID, chain.Finish.Port})
						continue
					}
					require.Equal(t, []any{"switch", l.Device, l.Port}, []any{linked[m.ID].ObjectType, linked[m.ID].ObjectID, linked[m.ID].Port})
				}

				devices, err := c.Devices(t.Context(), userside.DeviceFilter{})
				require.NoError(t, err)
				require.Empty(t, devices.Defects.First)
				require.Len(t, devices.Devices, len(e.Devices()))
				for i, m := range e.Devices() {
					g := devices.Devices[i]
					require.Equal(t, []any{m.ID, m.IP, m.MAC.String(), m.Ports[4].Name}, []any{g.ID, g.IP, g.MAC.String(), g.Ifaces[4].Name})
				}

				info, err := c.SystemInfo(t.Context())
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(string(info.Version), "3."))
				require.WithinDuration(t, time.Now(), info.Time, time.Minute)
			})
		}
	}
}

func TestClientWrites(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		t.Run(profile.String(), func(t *testing.T) {
			e, c := connect(t, emulator.Options{Profile: profile, Customers: 10})
			m := e.Customers()[0]
			mac := userside.MAC{0, 0, 0x5e, 0, 0x53, 0x42}
			require.NoError(t, c.SetMACByIP(t.Context(), m.Addresses[0].IP, mac))
			require.NoError(t, c.ChangeState(t.Context(), m.ID, 1))
			got, ok := e.Customer(m.ID)
			require.True(t, ok)
			require.Equal(t, emulator.MAC(mac), got.Addresses[0].MAC)
			require.Equal(t, emulator.StatePause, got.State)

			err := c.SetMACByIP(t.Context(), netip.MustParseAddr("192.0.2.1"), mac)
			require.ErrorIs(t, err, userside.ErrRefused)
			require.Error(t, c.ChangeState(t.Context(), 999_999, 1))

			// A hook's answer is not OK for a client, and no refusal either: the change was made.
			require.NoError(t, e.SetQuirks(emulator.Quirks{HookAnswer: true}))
			require.ErrorIs(t, c.ChangeState(t.Context(), m.ID, 0), userside.ErrUncertain)
			got, _ = e.Customer(m.ID)
			require.Equal(t, emulator.StateStop, got.State)
		})
	}
}
