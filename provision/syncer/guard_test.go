package syncer

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestCompare(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.10, MaxMoved: 0.10, MaxBlocked: 0.10, MinChanged: 2}
	full := provisiontest.Input(1000)
	each := func(n int, f func(b *provision.Binding)) func(*provision.Input) {
		return func(in *provision.Input) {
			for i := range n {
				f(&in.Bindings[i])
			}
		}
	}
	states := func(n int, st provision.State) func(*provision.Input) {
		return func(in *provision.Input) {
			for i := range in.Subscribers {
				if in.Subscribers[i].State == provision.StateActive && n > 0 {
					in.Subscribers[i].State = st
					n--
				}
			}
		}
	}
	tests := []struct {
		name                    string
		limits                  GuardLimits
		noOld                   bool
		change                  func(in *provision.Input)
		removed, moved, blocked int
		reason                  string
	}{
		{name: "nothing changed", change: func(*provision.Input) {}},
		{name: "a tenth may go", change: func(in *provision.Input) { in.Bindings = in.Bindings[100:] }, removed: 100},
		{name: "more than a tenth may not", change: func(in *provision.Input) { in.Bindings = in.Bindings[101:] }, removed: 101,
			reason: "would remove 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "half of the rows gone", change: func(in *provision.Input) { in.Bindings = in.Bindings[500:] }, removed: 500,
			reason: "would remove 500 of 1000 subscribers (50%), limit 10%"},
		{name: "zero rows", change: func(in *provision.Input) { in.Bindings = nil }, removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "zero rows, whatever the limits", limits: GuardLimits{MaxRemoved: 1, MinChanged: 5000}, change: func(in *provision.Input) { in.Bindings = nil }, removed: 1000,
			reason: "the answer has no binding at all"},
		{name: "only rows that Build leaves out", change: each(1000, func(b *provision.Binding) { b.IP = provisiontest.Addr("127.0.0.1") }), removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "first fetch", noOld: true, change: func(*provision.Input) {}},
		{name: "first fetch without rows", noOld: true, change: func(in *provision.Input) { in.Bindings = nil }, reason: "the answer has no binding at all"},
		{name: "other port", change: each(101, func(b *provision.Binding) { b.Port += 48; b.PortName = "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "other address", change: each(101, func(b *provision.Binding) { b.IP = provisiontest.IP(5000 + int(b.Subscriber)) }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "port lost", change: each(101, func(b *provision.Binding) { b.Device, b.Port, b.PortName = 0, 0, "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "other source, no port names", change: each(1000, func(b *provision.Binding) { b.PortName = "" })},
		{name: "other MACs and VLANs are no harm", change: each(1000, func(b *provision.Binding) { b.MAC[5]++; b.VLAN++ })},
		{name: "more addresses are no harm", change: func(in *provision.Input) {
			for _, b := range in.Bindings {
				b.IP = provisiontest.IP(5000 + int(b.Subscriber))
				in.Bindings = append(in.Bindings, b)
			}
		}},
		{name: "new subscribers are no harm, even stopped", change: func(in *provision.Input) {
			for i := range 900 {
				in.Bindings = append(in.Bindings, provision.Binding{Subscriber: provision.SubscriberID(9000 + i), IP: provisiontest.IP(5000 + i)})
				in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(9000 + i), State: provision.StateStop})
			}
		}},
		{name: "stopped", change: states(101, provision.StateStop), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "paused", change: states(101, provision.StatePause), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "unknown state blocks nobody", change: states(900, provision.StateUnknown)},
		{name: "few never hold", limits: GuardLimits{MinChanged: 3}, change: func(in *provision.Input) { in.Bindings = in.Bindings[3:] }, removed: 3},
		{name: "one more than few", limits: GuardLimits{MinChanged: 3}, change: func(in *provision.Input) { in.Bindings = in.Bindings[4:] }, removed: 4,
			reason: "would remove 4 of 1000 subscribers (0.4%), limit 0%"},
		{name: "everything at once", change: func(in *provision.Input) {
			states(300, provision.StateStop)(in)
			each(200, func(b *provision.Binding) { b.Port += 48; b.PortName = "" })(in)
			in.Bindings = in.Bindings[:800]
		}, removed: 200, moved: 200, blocked: 300,
			reason: "would remove 200 of 1000 subscribers (20%), limit 10%; would move 200 of 1000 subscribers (20%), limit 10%; would block 300 of 1000 subscribers (30%), limit 10%"},
	}
	old := provisiontest.Build(t, full)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := provisiontest.Input(1000)
			tt.change(&in)
			candidate, _ := provision.Build(in)
			l := limits
			if tt.limits != (GuardLimits{}) {
				l = tt.limits
				l.MaxMoved, l.MaxBlocked = 1, 1
			}
			was := old
			if tt.noOld {
				was = nil
			}
			d := Compare(was, candidate, l)
			assert.Equal(t, tt.reason, d.Reason)
			assert.Equal(t, tt.reason != "", d.Hold)
			assert.Equal(t, []int{tt.removed, tt.moved, tt.blocked}, []int{d.Removed.Count, d.Moved.Count, d.Blocked.Count})
			assert.Equal(t, candidate.Len() == 0, d.NoRows)
			for _, c := range []GuardCount{d.Removed, d.Moved, d.Blocked} {
				assert.Len(t, c.Examples, min(c.Count, 10))
			}
		})
	}
	require.Empty(t, Compare(old, old, GuardLimits{}).Reason, "the same snapshot harms nobody")
	require.True(t, Compare(nil, nil, limits).NoRows)
}

func BenchmarkCompare100k(b *testing.B) {
	old, _ := provision.Build(provisiontest.Input(100_000))
	in := provisiontest.Input(100_000)
	in.Bindings = in.Bindings[:90_000]
	candidate, _ := provision.Build(in)
	for b.Loop() {
		Compare(old, candidate, GuardLimits{})
	}
}

// Who has a seat alone is guarded as who has an address is.
func TestCompareSeats(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.10, MaxMoved: 0.10, MaxBlocked: 0.10}
	base := func() provision.Input {
		in := provisiontest.Input(100)
		in.KeepSeats = true
		for i := range 50 {
			in.Bindings[i].IP, in.Bindings[i].VLAN = provisiontest.Addr("0.0.0.0").Prev(), 0 // none
		}
		return in
	}
	old, _ := provision.Build(base())
	require.Equal(t, 50, old.Counts().Seats)
	for _, tt := range []struct {
		name                    string
		change                  func(in *provision.Input)
		removed, moved, blocked int
	}{
		{name: "nothing changed", change: func(*provision.Input) {}},
		{name: "seats gone", change: func(in *provision.Input) { in.Bindings = in.Bindings[20:] }, removed: 20},
		{name: "all rows without an address gone", change: func(in *provision.Input) { in.Bindings = in.Bindings[50:] }, removed: 50},
		{name: "addresses lost, seats instead", change: func(in *provision.Input) {
			for i := range 100 {
				in.Bindings[i].IP = provisiontest.Addr("0.0.0.0").Prev()
			}
		}, removed: 50},
		{name: "addresses gained", change: func(in *provision.Input) {
			for i := range 50 {
				in.Bindings[i].IP = provisiontest.IP(i)
			}
		}},
		{name: "other ports", change: func(in *provision.Input) {
			for i := range 15 {
				in.Bindings[i].Port, in.Bindings[i].PortName = in.Bindings[i].Port+48, ""
			}
		}, moved: 15},
		{name: "other MACs are no harm", change: func(in *provision.Input) {
			for i := range 50 {
				in.Bindings[i].MAC[5]++
			}
		}},
		{name: "stopped", change: func(in *provision.Input) {
			for i := range 50 {
				if in.Subscribers[i].State == provision.StateActive {
					in.Subscribers[i].State = provision.StateStop
				}
			}
		}, blocked: 46},
		{name: "pools for subscribers are configured no more", change: func(in *provision.Input) { in.KeepSeats = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			tt.change(&in)
			candidate, _ := provision.Build(in)
			d := Compare(old, candidate, limits)
			assert.Equal(t, []int{tt.removed, tt.moved, tt.blocked}, []int{d.Removed.Count, d.Moved.Count, d.Blocked.Count})
			assert.Equal(t, tt.removed+tt.moved+tt.blocked > 0, d.Hold, d.Reason)
			if in.KeepSeats {
				assert.Equal(t, 100, d.Subscribers)
			}
		})
	}
	stopped := Compare(old, old.WithStates(map[provision.SubscriberID]provision.State{1000: provision.StateStop}), limits)
	assert.Equal(t, 1, stopped.Blocked.Count)

	seats := base()
	seats.Bindings = seats.Bindings[:50]
	only, _ := provision.Build(seats)
	require.False(t, only.Empty())
	assert.False(t, Compare(nil, only, limits).Hold, "a first fetch with seats alone")
	d := Compare(old, only, limits)
	assert.True(t, d.NoRows, "all addresses gone is never accepted by repetition")
}
