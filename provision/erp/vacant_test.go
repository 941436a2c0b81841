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
func TestVacant(t *testing.T) {
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
					in.KeepVacant = true
					s, _ := provision.Build(in)
					return s
				}
				s := read(nil)
				id := provision.SubscriberID(withMAC.ID)
				require.Equal(t, [2]int{0, 1}, linesOf(s, id))
				line := s.BySubscriber(id).At(0)
				require.Equal(t, provision.MAC(mac), line.MAC)
				require.Equal(t, provision.DeviceID(withMAC.Links[0].Device), line.Device)
				require.Equal(t, withMAC.Links[0].Port, line.Port)
				require.NotEmpty(t, line.PortName)
				require.Zero(t, linesOf(s, provision.SubscriberID(bound.ID))[1])
				want := 0
				if mode == ModeComposed {
					want = 1
				}
				require.Equal(t, want, linesOf(s, provision.SubscriberID(portOnly.ID))[1])

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
				require.Equal(t, [2]int{1, 0}, linesOf(s, id), "and so no vacant line on the port of the address")
			})
		}
	}
}

// linesOf counts the lines of a customer, with an address and vacant.
func linesOf(s *provision.Snapshot, id provision.SubscriberID) (n [2]int) {
	for l := range s.BySubscriber(id).All() {
		if l.Vacant() {
			n[1]++
		} else {
			n[0]++
		}
	}
	return n
}

// The vacant lines of a customer whom the ERP will not talk about this time are kept.
func TestComposedKeepsVacantOfUnanswered(t *testing.T) {
	rules := good()
	rules["customer.get_data?customer_id=1,2,3"] = `200 {"result":"OK","data":{"1":{"id":1,"state_id":2},"2":{"id":2,"state_id":1},"3":{"id":3,"state_id":0}}}`
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{Bindings: ModeComposed})
	in := fetch(t, f, nil)
	in.KeepVacant = true
	prev, _ := provision.Build(in)
	require.Equal(t, 3, prev.Counts().Seats)
	e.set("customer.get_data", `400 {"error":"no"}`)
	e.set("customer.get_data?customer_id=1,2,3", `400 {"error":"no"}`)
	in = fetch(t, f, prev)
	in.KeepVacant = true
	next, _ := provision.Build(in)
	require.Equal(t, vacantOf(prev), vacantOf(next))
}

func vacantOf(s *provision.Snapshot) (list []provision.Line) {
	for l := range s.LinesBySubscriber().All() {
		if l.Vacant() {
			list = append(list, *l)
		}
	}
	return list
}
