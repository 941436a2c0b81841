package syncer

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Where no list of switches was ever read, the ports are those of switches made of rows: that they get their true ones with the
// first list is no move. From then on it is.
func TestPortsOfTheFirstListAreNoMove(t *testing.T) {
	limits := GuardLimits{MaxMoved: 0.1, MinChanged: 2, MaxRemoved: 0.1}
	first, next := provisiontest.Input(1000), provisiontest.Input(1000)
	for _, in := range []*provision.Input{&first, &next} {
		in.KeepVacant = true
		for id := range provision.SubscriberID(200) {
			in.Lines = append(in.Lines, provision.Line{Subscriber: 5000 + id, MAC: provision.MAC{2, 9, 0, 0, 0, byte(id)}, Device: 3, Port: 1000 + uint32(id)})
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: 5000 + id, State: provision.StateActive})
		}
	}
	for i := range first.Lines {
		if l := &first.Lines[i]; l.Device != 0 {
			l.Device |= 1 << 51
		}
	}
	build := func(in provision.Input) *provision.Snapshot { s, _ := provision.Build(in); return s }
	candidate := build(next)
	require.True(t, Compare(build(first), candidate, limits).Moved.Over)
	first.DevicesUnread = true
	old := build(first)
	d := Compare(old, candidate, limits)
	require.False(t, d.Hold, d.Reason)
	require.Zero(t, d.Moved.Count)
	next.Lines = next.Lines[300:]
	require.True(t, Compare(old, build(next), limits).Removed.Over, "other changes are judged")
}

// From one answer without a list of switches to the next, ports that are gone or shifted are moves. A list that still lacks a switch brings
// the true ports of the others.
func TestPortsWithoutAListAreGuarded(t *testing.T) {
	limits := GuardLimits{MaxMoved: 0.1, MinChanged: 2, MaxRemoved: 0.1}
	input := func(change func(i int, l *provision.Line)) *provision.Snapshot {
		in := provisiontest.Input(1000)
		in.DevicesUnread, in.KeepVacant = true, true
		for id := range provision.SubscriberID(200) {
			in.Lines = append(in.Lines, provision.Line{Subscriber: 5000 + id, MAC: provision.MAC{2, 9, 0, 0, 0, byte(id)}, Device: 3, Port: 1000 + uint32(id)})
		}
		for i := range in.Lines {
			if l := &in.Lines[i]; l.Device != 0 {
				l.Device |= 1 << 51
				change(i, l)
			}
		}
		s, _ := provision.Build(in)
		return s
	}
	old := input(func(int, *provision.Line) {})
	for name, tt := range map[string]struct {
		change func(i int, l *provision.Line)
		moved  int
	}{
		"same":    {func(int, *provision.Line) {}, 0},
		"shifted": {func(_ int, l *provision.Line) { l.Port++ }, 1200},
		"gone":    {func(_ int, l *provision.Line) { l.Device, l.Port, l.PortName = 0, 0, "" }, 1200},
		"the true ones, but for a switch that the list lacks": {func(_ int, l *provision.Line) {
			if l.Device != 1<<51|3 {
				l.Device, l.Port = l.Device&^(1<<51), l.Port+7
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := Compare(old, input(tt.change), limits)
			require.Equal(t, tt.moved, d.Moved.Count)
		})
	}
}

// Who is held with the first list is on a made switch for longer: that the true port comes later is no move, either.
func TestHoldWithTheFirstList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		made := func(in *provision.Input) {
			in.DevicesUnread = true
			for i := range in.Lines {
				in.Lines[i].Device |= 1 << 51
				in.Lines[i].Port += 7
			}
		}
		b.setSpoil(made)
		s, stop := startBooks(t, b, tightGuard, nil, nil)
		require.True(t, s.Current().DevicesUnread())
		b.setSpoil(func(in *provision.Input) { in.Lines = in.Lines[60:] })
		wholePoll(s)
		held := s.Status().Held
		require.NotNil(t, held)
		require.Equal(t, []int{60, 0}, []int{held.Decision.Removed.Count, held.Decision.Moved.Count})
		require.True(t, s.Current().DevicesUnread())
		require.Equal(t, 60, countOnMade(s.Current()))
		b.setSpoil(nil)
		wholePoll(s)
		require.Nil(t, s.Status().Held)
		require.Equal(t, b.truthNow().Fingerprint(), s.Current().Fingerprint())
		require.False(t, s.Current().DevicesUnread())
		stop()
	})
}

func countOnMade(s *provision.Snapshot) (n int) {
	for l := range s.Lines().All() {
		if l.Device.Made() {
			n++
		}
	}
	return n
}

// That the list of switches was never read is known after a restart, too, and to no older usher.
func TestStoreKeepsThatDevicesWereNeverRead(t *testing.T) {
	in := provisiontest.Input(10)
	in.Source = provision.SourceDirect
	read := provisiontest.Build(t, in)
	in.DevicesUnread = true
	want := provisiontest.Build(t, in)
	require.NotEqual(t, read.Fingerprint(), want.Fingerprint(), "else the store would keep the first")
	for range 2 { // a stored one is stored again
		var file bytes.Buffer
		require.NoError(t, encode(&file, want))
		require.Contains(t, file.String(), "\tdirect,devices-unread\n")
		got, err := decode(&file)
		require.NoError(t, err)
		require.True(t, got.DevicesUnread())
		require.Equal(t, provision.SourceDirect, got.Origin())
		requireSameSnapshot(t, want, got)
		want = got.WithStates(map[provision.SubscriberID]provision.State{1: provision.StatePause})
	}
	var file bytes.Buffer
	require.NoError(t, encode(&file, read))
	require.NotContains(t, file.String(), "unread")
}
