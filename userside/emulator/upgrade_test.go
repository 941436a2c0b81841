package emulator_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// direct is a transport that asks a server without a network.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.RemoteAddr = "192.0.2.9:1"
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// The ERP is upgraded while a client runs. The first call whose names do not fit any more finds that out, and
// succeeds. Before, it failed, and those after it for up to an hour.
func TestUpgradeAtRunTime(t *testing.T) {
	upgrades := map[string]struct{ from, to emulator.Profile }{
		"upgrade":   {emulator.Profile316, emulator.ProfileV321},
		"downgrade": {emulator.ProfileV321, emulator.Profile316},
	}
	calls := map[string]func(*testing.T, *userside.Client, int64) error{
		"pause": func(t *testing.T, c *userside.Client, id int64) error { return c.ChangeState(t.Context(), id, 1) },
		"card": func(t *testing.T, c *userside.Client, id int64) error {
			_, err := c.Customer(t.Context(), id)
			return err
		},
		"states": func(t *testing.T, c *userside.Client, _ int64) error {
			_, err := c.CustomerIDs(t.Context(), userside.CustomerFilter{State: new(2)})
			return err
		},
		"by name": func(t *testing.T, c *userside.Client, _ int64) error {
			_, err := c.Call(t.Context(), "customer", "get_ip_port_device_commutation", nil)
			return err
		},
	}
	for which, tt := range upgrades {
		for name, call := range calls {
			t.Run(which+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e, err := emulator.Open(emulator.Options{Profile: tt.from, Customers: 10, Keys: []emulator.Key{{Key: "k"}}})
					require.NoError(t, err)
					c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: "k", Transport: direct{e}})
					require.NoError(t, err)
					id := e.Customers()[0].ID
					require.NoError(t, call(t, c, id))
					require.Equal(t, tt.from.Version(), c.Level(t.Context()).Version)
					time.Sleep(2 * time.Minute) // a version found a moment ago is believed
					require.NoError(t, e.SetProfile(tt.to))
					require.NoError(t, call(t, c, id))
					require.NoError(t, call(t, c, id))
					require.NoError(t, e.Close())
				})
			})
		}
	}
}

// What a server refuses for another reason is not asked for twice, and does not make it tell its version each time.
func TestRefusalsAskForTheVersionSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.Open(emulator.Options{Customers: 10, Keys: []emulator.Key{{Key: "k"}},
			Quirks: emulator.Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}})
		require.NoError(t, err)
		c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: "k", Transport: direct{e}})
		require.NoError(t, err)
		for range 60 { // for an hour
			_, err := c.CustomerBindings(t.Context())
			require.ErrorIs(t, err, userside.ErrRefused)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 60, e.Calls()["customer.get_ip_port_device_commutation"])
		require.LessOrEqual(t, e.Calls()["system.get_system_info"], 8)
		require.NoError(t, e.Close())
	})
}

// A change that is not the same when it is made twice is not made again, whatever the server's version turns out to be.
func TestUpgradeDoesNotRepeatPayments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.Open(emulator.Options{Profile: emulator.Profile316, Customers: 10, Keys: []emulator.Key{{Key: "k"}}})
		require.NoError(t, err)
		c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: "k", Transport: direct{e}})
		require.NoError(t, err)
		change := userside.BalanceChange{Customer: e.Customers()[0].ID, Amount: 5, Comment: "pay"}
		require.NoError(t, c.ChangeBalance(t.Context(), change))
		time.Sleep(2 * time.Minute)
		require.NoError(t, e.SetProfile(emulator.ProfileV321))
		require.NoError(t, e.SetQuirks(emulator.Quirks{HookAnswer: true})) // done, and the answer is no OK
		_ = c.ChangeBalance(t.Context(), change)                           // what is said of it is another matter
		require.Equal(t, 2, e.Calls()["customer.change_balance"])
		require.NoError(t, e.Close())
	})
}
