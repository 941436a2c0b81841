package syncer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Compare judges one answer by itself.
func Compare(old, candidate *provision.Snapshot, limits GuardLimits) GuardDecision {
	return judge(old, candidate, nil, &known{}, &limits, nil, time.Now()).GuardDecision
}

// Who turns out to be blocked by what was never read before is blocked whatever the limits; others beside them are held.
func TestFirstReadIsNoChange(t *testing.T) {
	old := provisiontest.Build(t, provisiontest.Input(1000))
	limits := GuardLimits{MaxBlocked: 0.10}
	in := provisiontest.Input(1000)
	var first []provision.SubscriberID
	blocked := 0
	for i := range in.Subscribers {
		if in.Subscribers[i].State != provision.StateActive || blocked == 500 {
			continue
		}
		blocked++
		in.Subscribers[i].State = provision.StateStop
		if blocked <= 300 {
			first = append(first, in.Subscribers[i].ID)
		}
	}
	candidate := provisiontest.Build(t, in)
	v := judge(old, candidate, first, &known{}, &limits, nil, time.Now())
	require.True(t, v.Blocked.Over)
	require.Equal(t, 200, v.Blocked.Count)
	require.Equal(t, 300, v.part(old, candidate).Counts().Stopped-old.Counts().Stopped)
	require.False(t, judge(old, candidate, append(first, v.held[ChangeBlocked]...), &known{}, &limits, nil, time.Now()).Hold)
}

func TestCompare(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.10, MaxMoved: 0.10, MaxBlocked: 0.10, MaxOpened: 0.10, MaxAdded: 0.90, MinChanged: 2}
	full := provisiontest.Input(1000)
	each := func(n int, f func(b *provision.Line)) func(*provision.Input) {
		return func(in *provision.Input) {
			for i := range n {
				f(&in.Lines[i])
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
		{name: "a tenth may go", change: func(in *provision.Input) { in.Lines = in.Lines[100:] }, removed: 100},
		{name: "more than a tenth may not", change: func(in *provision.Input) { in.Lines = in.Lines[101:] }, removed: 101,
			reason: "would remove 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "half of the rows gone", change: func(in *provision.Input) { in.Lines = in.Lines[500:] }, removed: 500,
			reason: "would remove 500 of 1000 subscribers (50%), limit 10%"},
		{name: "zero rows", change: func(in *provision.Input) { in.Lines = nil }, removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "zero rows, whatever the limits", limits: GuardLimits{MaxRemoved: 1, MinChanged: 5000}, change: func(in *provision.Input) { in.Lines = nil }, removed: 1000,
			reason: "the answer has no binding at all"},
		{name: "only rows that Build leaves out", change: each(1000, func(b *provision.Line) { b.Addresses = provision.Hosts4(provisiontest.Addr("127.0.0.1")) }), removed: 1000,
			reason: "the answer has no binding at all; would remove 1000 of 1000 subscribers (100%), limit 10%"},
		{name: "first fetch", noOld: true, change: func(*provision.Input) {}},
		{name: "first fetch without rows", noOld: true, change: func(in *provision.Input) { in.Lines = nil }, reason: "the answer has no binding at all"},
		{name: "other port", change: each(101, func(b *provision.Line) { b.Port += 48; b.PortName = "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "other address", change: each(101, func(b *provision.Line) { b.Addresses = provision.Hosts4(provisiontest.IP(5000 + int(b.Subscriber))) }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "port lost", change: each(101, func(b *provision.Line) { b.Device, b.Port, b.PortName = 0, 0, "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "no port names", change: each(101, func(b *provision.Line) { b.PortName = "" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "no port numbers", change: each(101, func(b *provision.Line) { b.Port = 0 }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "names of ports shifted", change: each(101, func(b *provision.Line) { b.PortName += "0" }), moved: 101,
			reason: "would move 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "MACs of nobody else and other VLANs that several share are no harm", change: each(1000, func(b *provision.Line) {
			if b.VLAN++; !b.MAC.IsZero() {
				b.MAC[1]++
			}
		})},
		{name: "MACs of others", change: each(1000, func(b *provision.Line) {
			if !b.MAC.IsZero() {
				b.MAC[5]++
			}
		}), moved: 500,
			reason: "would move 500 of 1000 subscribers (50%), limit 10%"},
		{name: "first MACs, which others have", change: func(in *provision.Input) {
			for i := range in.Lines {
				if in.Lines[i].MAC.IsZero() {
					in.Lines[i].MAC = in.Lines[i+1].MAC
				}
			}
		}, moved: 250, reason: "would move 250 of 1000 subscribers (25%), limit 10%"},
		{name: "more addresses are no harm", change: func(in *provision.Input) {
			for _, b := range in.Lines {
				b.Addresses = provision.Hosts4(provisiontest.IP(5000 + int(b.Subscriber)))
				in.Lines = append(in.Lines, b)
			}
		}},
		{name: "new subscribers are no harm, even stopped", change: func(in *provision.Input) {
			for i := range 900 {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(9000 + i), Addresses: provision.Hosts4(provisiontest.IP(5000 + i))})
				in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: provision.SubscriberID(9000 + i), State: provision.StateStop})
			}
		}},
		{name: "stopped", change: states(101, provision.StateStop), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "paused", change: states(101, provision.StatePause), blocked: 101, reason: "would block 101 of 1000 subscribers (10.1%), limit 10%"},
		{name: "unknown state blocks nobody", change: states(900, provision.StateUnknown)},
		{name: "few never hold", limits: GuardLimits{MinChanged: 3}, change: func(in *provision.Input) { in.Lines = in.Lines[3:] }, removed: 3},
		{name: "one more than few", limits: GuardLimits{MinChanged: 3}, change: func(in *provision.Input) { in.Lines = in.Lines[4:] }, removed: 4,
			reason: "would remove 4 of 1000 subscribers (0.4%), limit 0%"},
		{name: "everything at once", change: func(in *provision.Input) {
			states(300, provision.StateStop)(in)
			each(200, func(b *provision.Line) { b.Port += 48; b.PortName = "" })(in)
			in.Lines = in.Lines[:800]
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
			if tt.limits.MinChanged > 0 {
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

func TestCompareOpenedAndAdded(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.1, MinChanged: 2}
	base := func() provision.Input {
		in := provisiontest.Input(100)
		for i := range 30 {
			in.Subscribers[i].State = provision.StatePause
		}
		return in
	}
	old, _ := provision.Build(base())
	states := func(n int, st provision.State) func(in *provision.Input) {
		return func(in *provision.Input) {
			for i := range n {
				in.Subscribers[i].State = st
			}
		}
	}
	for _, tt := range []struct {
		name          string
		change        func(in *provision.Input)
		opened, added int
		reason        string
	}{
		{"a tenth may be opened", states(10, provision.StateActive), 10, 0, ""},
		{"more may not", states(11, provision.StateActive), 11, 0, "would open 11 of 100 subscribers (11%), limit 10%"},
		{"an unknown state opens", states(11, provision.StateUnknown), 11, 0, "would open 11 of 100 subscribers (11%), limit 10%"},
		{"in no list any more", func(in *provision.Input) { in.Subscribers = in.Subscribers[11:] }, 11, 0, "would open 11 of 100 subscribers (11%), limit 10%"},
		{"new customers", func(in *provision.Input) {
			for i := range 11 {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(900 + 200*i), Addresses: provision.Hosts4(provisiontest.IP(900 + i))})
			}
		}, 0, 11, "would add 11 of 100 subscribers (11%), limit 10%"},
		{"further addresses", func(in *provision.Input) {
			for i := range 50 {
				in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(1000 + i), Addresses: provision.Hosts4(provisiontest.IP(900 + i))})
			}
		}, 0, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			tt.change(&in)
			candidate, _ := provision.Build(in)
			d := Compare(old, candidate, limits)
			assert.Equal(t, tt.reason, d.Reason)
			assert.Equal(t, []int{tt.opened, tt.added}, []int{d.Opened.Count, d.Added.Count})
			assert.Zero(t, d.Removed.Count+d.Moved.Count+d.Blocked.Count)
			sameLines := old.WithStatesOf(candidate)
			if tt.added == 0 && candidate.Len() == 100 {
				assert.Equal(t, d, Compare(old, sameLines, limits), "the short way leads to the same")
			}
		})
	}
}

// Who is stopped in place of paused loses the way to pay; the other way nobody loses anything.
func TestStoppedInPlaceOfPaused(t *testing.T) {
	limits := GuardLimits{MaxBlocked: 0.1, MaxOpened: 0.1, MinChanged: 2}
	all := func(st provision.State) *provision.Snapshot {
		in := provisiontest.Input(100)
		for i := range in.Subscribers {
			in.Subscribers[i].State = st
		}
		return provisiontest.Build(t, in)
	}
	paused, stopped := all(provision.StatePause), all(provision.StateStop)
	for _, candidate := range []*provision.Snapshot{stopped, paused.WithStatesOf(stopped)} {
		d := Compare(paused, candidate, limits)
		assert.Equal(t, 100, d.Blocked.Count)
		assert.Equal(t, "would block 100 of 100 subscribers (100%), limit 10%", d.Reason)
	}
	assert.Equal(t, "would block 50 of 100 subscribers (50%), limit 10%", Compare(paused, paused.WithStatesOf(halfStopped(t)), limits).Reason)
	assert.Empty(t, Compare(stopped, paused, limits).Reason)
	assert.Zero(t, Compare(stopped, paused, limits).Opened.Count)
}

// halfStopped are a hundred customers, of whom half are paused and the others stopped.
func halfStopped(t *testing.T) *provision.Snapshot {
	in := provisiontest.Input(100)
	for i := range in.Subscribers {
		in.Subscribers[i].State = []provision.State{provision.StatePause, provision.StateStop}[i%2]
	}
	return provisiontest.Build(t, in)
}

func BenchmarkCompare100k(b *testing.B) {
	old, _ := provision.Build(provisiontest.Input(100_000))
	in := provisiontest.Input(100_000)
	in.Lines = in.Lines[:90_000]
	candidate, _ := provision.Build(in)
	for b.Loop() {
		Compare(old, candidate, GuardLimits{})
	}
}

// A tenth is held, and the rest of the answer put together with it.
func BenchmarkHeld100k(b *testing.B) {
	old, _ := provision.Build(provisiontest.Input(100_000))
	in := provisiontest.Input(100_000)
	in.Lines = in.Lines[:90_000]
	in.Lines[0].MAC[5]++
	candidate, _ := provision.Build(in)
	old.Fingerprint()
	for b.Loop() {
		judge(old, candidate, nil, &known{}, &GuardLimits{}, nil, time.Time{}).part(old, candidate)
	}
}

// Who has a vacant line alone is guarded as who has an address is.
func TestCompareVacant(t *testing.T) {
	limits := GuardLimits{MaxRemoved: 0.10, MaxMoved: 0.10, MaxBlocked: 0.10}
	base := func() provision.Input {
		in := provisiontest.Input(100)
		in.KeepVacant = true
		for i := range 50 {
			in.Lines[i].Addresses, in.Lines[i].VLAN = nil, 0
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
		{name: "vacant lines gone", change: func(in *provision.Input) { in.Lines = in.Lines[20:] }, removed: 20},
		{name: "all rows without an address gone", change: func(in *provision.Input) { in.Lines = in.Lines[50:] }, removed: 50},
		{name: "addresses lost, vacant lines instead", change: func(in *provision.Input) {
			for i := range 100 {
				in.Lines[i].Addresses = nil
			}
		}, removed: 50},
		{name: "addresses gained", change: func(in *provision.Input) {
			for i := range 50 {
				in.Lines[i].Addresses = provision.Hosts4(provisiontest.IP(i))
			}
		}},
		{name: "other ports", change: func(in *provision.Input) {
			for i := range 15 {
				in.Lines[i].Port, in.Lines[i].PortName = in.Lines[i].Port+48, ""
			}
		}, moved: 15},
		{name: "other MACs are no harm", change: func(in *provision.Input) {
			for i := range 50 {
				in.Lines[i].MAC[5]++
			}
		}},
		{name: "stopped", change: func(in *provision.Input) {
			for i := range 50 {
				if in.Subscribers[i].State == provision.StateActive {
					in.Subscribers[i].State = provision.StateStop
				}
			}
		}, blocked: 46},
		{name: "pools for subscribers are configured no more", change: func(in *provision.Input) { in.KeepVacant = false }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			tt.change(&in)
			candidate, _ := provision.Build(in)
			d := Compare(old, candidate, limits)
			assert.Equal(t, []int{tt.removed, tt.moved, tt.blocked}, []int{d.Removed.Count, d.Moved.Count, d.Blocked.Count})
			assert.Equal(t, tt.removed+tt.moved+tt.blocked > 0, d.Hold, d.Reason)
			if in.KeepVacant {
				assert.Equal(t, 100, d.Subscribers)
			}
		})
	}
	stopped := Compare(old, old.WithStates(map[provision.SubscriberID]provision.State{1000: provision.StateStop}), limits)
	assert.Equal(t, 1, stopped.Blocked.Count)

	vacant := base()
	vacant.Lines = vacant.Lines[:50]
	only, _ := provision.Build(vacant)
	require.False(t, only.Empty())
	assert.False(t, Compare(nil, only, limits).Hold, "a first fetch with vacant lines alone")
	d := Compare(old, only, limits)
	assert.True(t, d.NoRows, "all addresses gone is never accepted by repetition")
}
