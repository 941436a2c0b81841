package erp

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside/emulator"
)

// Both sources tell customers without an address: the direct one those with a
// MAC, the composed one also those with nothing but a port. What they lose and gain is followed.
func TestSeats(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for _, mode := range []Mode{ModeDirect, ModeComposed} {
			t.Run(fmt.Sprintf("%s %s", profile, mode), func(t *testing.T) {
				e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 7, Customers: 60})
				all := e.Customers()
				all = slices.DeleteFunc(all, func(c emulator.Customer) bool { return len(c.Links) == 0 || len(c.Addresses) != 1 })
				portOnly, withMAC, bound := all[0], all[1], all[2]
				for _, x := range []emulator.Customer{portOnly, withMAC} {
					require.NoError(t, e.RemoveIP(x.ID, x.Addresses[0].IP))
				}
				mac := emulator.MAC{0, 0, 0x5e, 0, 0x53, 9}
				require.NoError(t, e.AddMAC(withMAC.ID, mac))

				policy := provision.DefaultPolicy()
				f, err := New(c, Options{Bindings: mode, Policy: &policy})
				require.NoError(t, err)
				read := func(prev *provision.Snapshot) *provision.Snapshot {
					in, err := f.Fetch(ctx, prev)
					require.NoError(t, err)
					in.KeepSeats = true
					s, _ := provision.Build(in)
					return s
				}
				s := read(nil)
				id := provision.SubscriberID(withMAC.ID)
				require.Empty(t, s.BySubscriber(id))
				seats := s.SeatsOf(id)
				require.Len(t, seats, 1)
				require.Equal(t, provision.MAC(mac), seats[0].MAC)
				require.Equal(t, provision.DeviceID(withMAC.Links[0].Device), seats[0].Device)
				require.Equal(t, withMAC.Links[0].Port, seats[0].Port)
				require.NotEmpty(t, seats[0].PortName)
				require.Empty(t, s.SeatsOf(provision.SubscriberID(bound.ID)))
				want := 0
				if mode == ModeComposed {
					want = 1
				}
				require.Len(t, s.SeatsOf(provision.SubscriberID(portOnly.ID)), want)

				hint := func() (syncer.StatesAnswer, bool) {
					got, err := f.FetchCustomers(ctx, []provision.SubscriberID{id}, s)
					require.NoError(t, err)
					moved, err := f.Moved(ctx, []provision.SubscriberID{id}, s)
					require.NoError(t, err)
					return got, moved
				}
				got, moved := hint()
				require.False(t, got.Refresh)
				require.False(t, moved)

				require.NoError(t, e.AddMAC(withMAC.ID, emulator.MAC{0, 0, 0x5e, 0, 0x53, 10}))
				got, _ = hint()
				require.True(t, got.Refresh, "another MAC")
				s = read(s)
				require.NoError(t, e.AddIP(withMAC.ID, withMAC.Addresses[0].IP, mac))
				got, _ = hint()
				require.True(t, got.Refresh, "an address at last")
				s = read(s)
				require.Empty(t, s.SeatsOf(id), "and so no seat on the port of the address")
				require.Len(t, s.BySubscriber(id), 1)
			})
		}
	}
}

// The seats of a customer whom the ERP will not talk about this time are kept.
func TestComposedKeepsSeatsOfUnanswered(t *testing.T) {
	rules := good()
	rules["customer.get_data?customer_id=1,2,3"] = `200 {"result":"OK","data":{"1":{"id":1,"state_id":2},"2":{"id":2,"state_id":1},"3":{"id":3,"state_id":0}}}`
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{Bindings: ModeComposed})
	in := fetch(t, f, nil)
	in.KeepSeats = true
	prev, _ := provision.Build(in)
	require.Len(t, prev.Seats(), 3)
	e.set("customer.get_data", `400 {"error":"no"}`)
	e.set("customer.get_data?customer_id=1,2,3", `400 {"error":"no"}`)
	in = fetch(t, f, prev)
	in.KeepSeats = true
	next, _ := provision.Build(in)
	require.Equal(t, prev.Seats(), next.Seats())
}
