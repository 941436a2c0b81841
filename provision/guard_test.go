package provision

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCompare(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.10, MaxMoved: 0.10, MaxBlocked: 0.10, MinChanged: 2}
	full := testInput(1000)
	each := func(n int, f func(b *Binding)) func(*Input) {
		return func(in *Input) {
			for i := range n {
				f(&in.Bindings[i])
			}
		}
	}
	states := func(n int, st State) func(*Input) {
		return func(in *Input) {
			for i := range in.Subscribers {
				if in.Subscribers[i].State == StateActive && n > 0 {
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
		change                  func(in *Input)
		removed, moved, blocked int
		reason                  string
	}{
		{name: "nothing changed", change: func(*Input) {}},
		{name: "a tenth may go", change: func(in *Input) { in.Bindings = in.Bindings[100:] }, removed: 100},
		{name: "more than a tenth may not", change: func(in *Input) { in.Bindings = in.Bindings[101:] }, removed: 101,
			reason: "would remove 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "half of the rows gone", change: func(in *Input) { in.Bindings = in.Bindings[500:] }, removed: 500,
			reason: "would remove 500 of 1000 subscribers (50%), limit 10%"},
		{name: "zero rows", change: func(in *Input) { in.Bindings = nil }, removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "zero rows, whatever the limits", limits: GuardLimits{MaxRemoved: 1, MinChanged: 5000}, change: func(in *Input) { in.Bindings = nil }, removed: 1000,
			reason: "the answer has no binding at all"},
		{name: "only rows that Build leaves out", change: each(1000, func(b *Binding) { b.IP = addr("127.0.0.1") }), removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "first fetch", noOld: true, change: func(*Input) {}},
		{name: "first fetch without rows", noOld: true, change: func(in *Input) { in.Bindings = nil }, reason: "the answer has no binding at all"},
		{name: "other port", change: each(101, func(b *Binding) { b.Port += 48; b.PortName = "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "other address", change: each(101, func(b *Binding) { b.IP = testIP(5000 + int(b.Subscriber)) }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "port lost", change: each(101, func(b *Binding) { b.Device, b.Port, b.PortName = 0, 0, "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "other source, no port names", change: each(1000, func(b *Binding) { b.PortName = "" })},
		{name: "other MACs and VLANs are no harm", change: each(1000, func(b *Binding) { b.MAC[5]++; b.VLAN++ })},
		{name: "more addresses are no harm", change: func(in *Input) {
			for _, b := range in.Bindings {
				b.IP = testIP(5000 + int(b.Subscriber))
				in.Bindings = append(in.Bindings, b)
			}
		}},
		{name: "new subscribers are no harm, even stopped", change: func(in *Input) {
			for i := range 900 {
				in.Bindings = append(in.Bindings, Binding{Subscriber: SubscriberID(9000 + i), IP: testIP(5000 + i)})
				in.Subscribers = append(in.Subscribers, Subscriber{SubscriberID(9000 + i), StateStop})
			}
		}},
		{name: "stopped", change: states(101, StateStop), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "paused", change: states(101, StatePause), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "unknown state blocks nobody", change: states(900, StateUnknown)},
		{name: "few never hold", limits: GuardLimits{MinChanged: 3}, change: func(in *Input) { in.Bindings = in.Bindings[3:] }, removed: 3},
		{name: "one more than few", limits: GuardLimits{MinChanged: 3}, change: func(in *Input) { in.Bindings = in.Bindings[4:] }, removed: 4,
			reason: "would remove 4 of 1000 subscribers (0.4%), limit 0%"},
		{name: "everything at once", change: func(in *Input) {
			states(300, StateStop)(in)
			each(200, func(b *Binding) { b.Port += 48; b.PortName = "" })(in)
			in.Bindings = in.Bindings[:800]
		}, removed: 200, moved: 200, blocked: 300,
			reason: "would remove 200 of 1000 subscribers (20%), limit 10%; would move 200 of 1000 subscribers (20%), limit 10%; would block 300 of 1000 subscribers (30%), limit 10%"},
	}
	old := build(t, full)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := testInput(1000)
			tt.change(&in)
			candidate, _ := Build(in)
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
	old, _ := Build(testInput(100_000))
	in := testInput(100_000)
	in.Bindings = in.Bindings[:90_000]
	candidate, _ := Build(in)
	for b.Loop() {
		Compare(old, candidate, GuardLimits{})
	}
}
