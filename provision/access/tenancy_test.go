package access

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// What a lease is worth to the sets and to the source guard once the ERP has its address otherwise than when it was given.
func TestLeasesThatOutliveTheirRows(t *testing.T) {
	const (
		stopped provision.SubscriberID = iota + 1
		paused
		active
		other // active
		free  // exempt, and stopped
		gone  = 99
	)
	states := []provision.Subscriber{
		{ID: stopped, State: provision.StateStop}, {ID: paused, State: provision.StatePause}, {ID: active, State: provision.StateActive},
		{ID: other, State: provision.StateActive}, {ID: free, State: provision.StateStop},
	}
	ranges := []AddrRange{{provisiontest.Addr("192.0.2.100"), provisiontest.Addr("192.0.2.120")}}
	guest := provisiontest.Addr("192.0.2.100")
	before := provisiontest.Build(t, provision.Input{Subscribers: append(slices.Clone(states), provision.Subscriber{ID: gone, State: provision.StatePause})})
	wasActive := provisiontest.Build(t, provision.Input{Subscribers: append(slices.Clone(states), provision.Subscriber{ID: gone, State: provision.StateActive})})

	tests := []struct {
		name   string
		at     netip.Addr
		row    provision.SubscriberID // zero: there is none any more
		mac    provision.MAC          // of the row
		bound  provision.SubscriberID // whom the lease was given to by a binding
		pool   provision.SubscriberID // and from a pool
		memory *provision.Snapshot
		block  Set
		let    bool // the lease's client is let in with the address
	}{
		{name: "as it was given", at: testIP, row: paused, mac: testMAC, bound: paused, block: SetPaused, let: true},
		{name: "the row is gone, stopped", at: testIP, bound: stopped, block: SetStopped, let: true},
		{name: "the row is gone, paused", at: testIP, bound: paused, block: SetPaused, let: true},
		{name: "the row is gone, active", at: testIP, bound: active, let: true},
		{name: "the row is gone, exempt", at: testIP, bound: free, let: true},
		{name: "another's now, was a stopped one's", at: testIP, row: other, mac: otherMAC, bound: stopped},
		{name: "another's now without a MAC, was a paused one's", at: testIP, row: other, bound: paused},
		{name: "another's now, was an active one's", at: testIP, row: other, mac: otherMAC, bound: active, let: true},
		{name: "another's now, was an exempt one's", at: testIP, row: other, mac: otherMAC, bound: free, let: true},
		{name: "another's now by the same MAC", at: testIP, row: other, mac: testMAC, bound: stopped, let: true},
		{name: "a stopped one's now, was an active one's", at: testIP, row: stopped, mac: otherMAC, bound: active, block: SetStopped, let: true},
		{name: "the owner's other device", at: testIP, row: active, mac: otherMAC, bound: active, let: true},
		{name: "of a pool, paused", at: testIP, pool: paused, block: SetPaused, let: true},
		{name: "the customer is gone, nobody knows how he was", at: testIP, bound: gone, block: SetStopped, let: true},
		{name: "the customer is gone, was paused", at: testIP, bound: gone, memory: before, block: SetPaused, let: true},
		{name: "the customer is gone, was active", at: testIP, bound: gone, memory: wasActive, let: true},
		{name: "the customer is gone, of a pool", at: testIP, pool: gone, block: SetStopped, let: true},
		{name: "the customer is gone, of a pool, was active", at: testIP, pool: gone, memory: wasActive, let: true},
		{name: "the customer is gone and the address is another's", at: testIP, row: other, mac: otherMAC, bound: gone},
		{name: "the customer is gone and the address is another's, was active", at: testIP, row: other, mac: otherMAC, bound: gone, memory: wasActive, let: true},
		{name: "a guest", at: guest, block: SetGuests, let: true},
		{name: "a guest outside the ranges", at: testIP, let: true},
		{name: "the customer is gone, from a range of guests", at: guest, pool: gone, block: SetGuests, let: true},
		{name: "the customer is gone, from a range of guests, was paused", at: guest, pool: gone, memory: before, block: SetPaused, let: true},
		{name: "a guest's address is somebody's now", at: testIP, row: other, mac: otherMAC},
		{name: "a guest's address is his own now", at: testIP, row: other, mac: testMAC, let: true},
		{name: "a guest's address is somebody's now, whose MAC nobody knows", at: testIP, row: other, let: true},
	}
	for _, tt := range tests {
		for _, where := range []string{"br0", "eth2.7"} {
			t.Run(tt.name+" on "+where, func(t *testing.T) {
				in := provision.Input{Subscribers: states}
				if tt.row != 0 {
					in.Lines = []provision.Line{{Subscriber: tt.row, MAC: tt.mac, Addresses: provision.Hosts4(tt.at)}}
				}
				snap := provisiontest.Build(t, in)
				g := Grant{IP: tt.at, MAC: testMAC, Subscriber: tt.pool, BoundTo: tt.bound, Interface: where, Direct: where == "br0"}
				inputs := Inputs{Exempt: []provision.SubscriberID{free}, GuestRanges: ranges, GuardDirect: []string{"br0"}, GuardVLAN: []string{"eth2.7"},
					Leases: slices.Values([]Grant{g}), Lease: func(ip netip.Addr) (Grant, bool) { return g, ip == g.IP }}
				r := newRules(&inputs)
				r.before.snap = tt.memory
				all := r.want(snap, &inputs, nil).acl
				require.Equal(t, tt.block, all.Standing(tt.at))
				let := slices.Contains(all.Strings(SetBoundDirect), tt.at.String()+" . "+testMAC.String())
				if where != "br0" {
					let = slices.Contains(all.Strings(SetBoundVLAN), "eth2.7 . "+tt.at.String())
				}
				if tt.mac == testMAC && where != "br0" {
					tt.let = tt.bound == tt.row || tt.bound == 0 // a row tells nothing of an interface
				}
				require.Equal(t, tt.let, let, "%v %v", all.Strings(SetBoundDirect), all.Strings(SetBoundVLAN))
				one, _ := r.now(snap, tt.at)
				require.Equal(t, one, rightsIn(&all, tt.at), "asked for alone")
			})
		}
	}
}

// An address that was blocked stays so when the ERP drops the row and then the customer, until its lease is over; whoever was not
// blocked stays open. What was stored tells it after a restart.
func TestWhoIsGoneStaysAsHeWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subs := []provision.Subscriber{{ID: 1, State: provision.StatePause}, {ID: 2, State: provision.StateActive}}
		addr := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
		rows := []provision.Line{
			{Subscriber: 1, MAC: provision.MAC{2, 1}, Addresses: provision.Hosts4(addr(1))}, {Subscriber: 2, MAC: provision.MAC{2, 2}, Addresses: provision.Hosts4(addr(2))},
		}
		full := provisiontest.Build(t, provision.Input{Subscribers: subs, Lines: rows})
		rowless := provisiontest.Build(t, provision.Input{Subscribers: subs})
		none := provisiontest.Build(t, provision.Input{})
		f := startFollower(t, SourceOptions{GuardDirect: provision.Patterns{"eth1"}}, Options{}, full)
		for id := provision.SubscriberID(1); id < 3; id++ {
			rec := direct(addr(byte(id)), provision.MAC{2, byte(id)})
			rec.Subscriber, rec.Expires = id, time.Now().Add(10*time.Minute)
			f.leases.Store(rec)
			f.follower.Admit([]netip.Addr{rec.IP})()
		}
		bound := []string{"192.0.2.1 . 02:01:00:00:00:00", "192.0.2.2 . 02:02:00:00:00:00"}
		for i, what := range []string{"the rows are gone", "the customers are gone", "they are still"} {
			f.snap.Store([]*provision.Snapshot{rowless, none, none}[i])
			require.NoError(t, f.Sync(t.Context()), what)
			assert.Equal(t, []string{"192.0.2.1"}, f.kernel.acl().Strings(SetPaused), what)
			assert.Empty(t, f.kernel.acl().Strings(SetStopped), what)
			assert.Equal(t, bound, f.kernel.acl().Strings(SetBoundDirect), what)
		}

		for id, st := range map[provision.SubscriberID]provision.State{1: provision.StatePause, 2: provision.StateActive} {
			got, ok := f.LeaseStanding(addr(byte(id)))
			assert.True(t, ok)
			assert.Equal(t, LeaseStanding{Holder: id, Owner: id, State: st, Admits: true}, got)
		}
		_, ok := f.LeaseStanding(addr(3))
		assert.False(t, ok)

		again := NewEnforcer(Options{Inputs: f.sources.Inputs}, f.kernel, nil, f.snap.Load, nil, provisiontest.Quiet())
		again.memory.snap = rowless // as stored
		require.NoError(t, again.round(t.Context(), again.opts))
		assert.Equal(t, []string{"192.0.2.1"}, f.kernel.acl().Strings(SetPaused), "after a restart")
		assert.Empty(t, f.kernel.acl().Strings(SetStopped), "after a restart")
		again = NewEnforcer(Options{Inputs: f.sources.Inputs}, f.kernel, nil, f.snap.Load, nil, provisiontest.Quiet())
		require.NoError(t, again.round(t.Context(), again.opts))
		assert.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, f.kernel.acl().Strings(SetStopped), "nothing is known of them")
		require.NoError(t, f.Sync(t.Context()))

		f.leases.End(addr(2), provision.MAC{2, 2}, time.Now()) // its renewal is refused
		pass(time.Second)
		assert.Equal(t, bound[:1], f.kernel.acl().Strings(SetBoundDirect))
		pass(10 * time.Minute)
		assert.Empty(t, f.kernel.acl().Strings(SetPaused), "its lease is over")
		assert.Empty(t, f.kernel.acl().Strings(SetBoundDirect))
	})
}
