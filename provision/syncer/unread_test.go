package syncer

import (
	"bytes"
	"testing"

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
