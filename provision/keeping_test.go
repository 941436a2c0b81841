package provision_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Half of the rows are gone and held: these stay, everything else is as the new fetch says, and only that is its word.
func TestKeeping(t *testing.T) {
	old := provisiontest.Build(t, provisiontest.Input(100))
	in := provisiontest.Input(100)
	in.Lines = in.Lines[50:]
	in.Lines[0].Port += 48 // 1050 moved
	in.Lines[0].PortName = ""
	in.Lines[1].MAC[5]++ // 1051 has another router
	in.Devices = in.Devices[1:]
	in.Subscribers[60].State = provision.StatePause
	in.Subscribers = in.Subscribers[1:] // 1000 is deleted
	in.FetchedAt = in.FetchedAt.Add(1)
	candidate, _ := provision.Build(in)
	gone := ids(1000, 50)
	next, beside := candidate.Keeping(old, gone, gone)
	assert.Empty(t, beside)
	require.Equal(t, 100, next.Len())
	assert.Equal(t, candidate.FetchedAt(), next.FetchedAt())
	assert.Equal(t, provision.StatePause, next.State(1060))
	assert.Equal(t, provision.StateActive, next.State(1000))
	assert.Equal(t, uint32(51), next.ByIP(provisiontest.IP(50)).Port)
	assert.Equal(t, in.Lines[1].MAC, next.ByIP(provisiontest.IP(51)).MAC)
	assert.Equal(t, old.ByIP(provisiontest.IP(7)), next.ByIP(provisiontest.IP(7)))
	assert.NotNil(t, next.Device(1), "the switch of those who stay")
	_, word := next.AcceptedRow(provisiontest.IP(7))
	assert.False(t, word, "a row that is kept is no word of this fetch")
	row, word := next.AcceptedRow(provisiontest.IP(51))
	assert.True(t, word)
	assert.Equal(t, in.FetchedAt, row.At)

	again, _ := candidate.Keeping(next, gone, gone)
	assert.Equal(t, next.Fingerprint(), again.Fingerprint(), "the same answer changes nothing more")
}

// Who is kept on a switch that was made of rows is not yet on one of the list: as long as that is so, the list counts as unread.
func TestKeepingOfMadeSwitches(t *testing.T) {
	first := provisiontest.Input(100)
	first.DevicesUnread = true
	for i := range first.Lines[:60] {
		first.Lines[i].Device |= 1 << 51
	}
	old, _ := provision.Build(first)
	candidate := provisiontest.Build(t, provisiontest.Input(100))
	next, _ := candidate.Keeping(old, ids(1000, 50), nil)
	assert.True(t, next.DevicesUnread())
	assert.Equal(t, candidate.Origin(), next.Origin())
	assert.Equal(t, candidate.AcceptedAt(), next.AcceptedAt())
	next, _ = candidate.Keeping(old, ids(1070, 10), nil)
	assert.False(t, next.DevicesUnread(), "these have the true switch")
	next, _ = candidate.Keeping(old, nil, ids(1000, 50))
	assert.False(t, next.DevicesUnread(), "of these only the states are kept")
}

func ids(first provision.SubscriberID, n int) []provision.SubscriberID {
	var out []provision.SubscriberID
	for i := range n {
		out = append(out, first+provision.SubscriberID(i))
	}
	return out
}

// Who gets an address that somebody keeps has to wait with that one, and so on; so it is with subnets.
func TestKeepingGivesNoAddressTwice(t *testing.T) {
	line := func(id provision.SubscriberID, ip int) provision.Line {
		return provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.IP(ip)), Device: 1, Port: uint32(id)}
	}
	subs := []provision.Subscriber{{ID: 1, State: provision.StateStop}}
	for id := provision.SubscriberID(2); id <= 9; id++ {
		subs = append(subs, provision.Subscriber{ID: id, State: provision.StateActive})
	}
	old, _ := provision.Build(provision.Input{Source: provision.SourceDirect, Subscribers: subs,
		Lines: []provision.Line{line(1, 1), line(2, 2), line(3, 3), line(4, 4), line(6, 6), line(7, 7)}})
	candidate, _ := provision.Build(provision.Input{Source: provision.SourceDirect, Subscribers: subs,
		Lines: []provision.Line{line(2, 1), line(3, 2), line(5, 3), line(4, 14), line(6, 6), line(7, 7), line(8, 1)}})
	require.Equal(t, 1, candidate.Counts().Contested, "2 and 8 claim the address of 1")
	next, beside := candidate.Keeping(old, []provision.SubscriberID{1}, nil)
	assert.Equal(t, map[provision.SubscriberID]provision.SubscriberID{2: 1, 8: 1, 3: 2, 5: 3}, beside)
	for id, ip := range map[provision.SubscriberID]int{1: 1, 2: 2, 3: 3, 4: 14, 6: 6, 7: 7} {
		assert.Equal(t, id, next.Owner(provisiontest.IP(ip)))
		assert.Equal(t, 1, next.BySubscriber(id).Len())
	}
	assert.Equal(t, 6, next.Len())
	assert.Zero(t, next.BySubscriber(5).Len()+next.BySubscriber(8).Len())

	lines := []provision.Line{line(1, 1), line(4, 4), line(6, 6)}
	old, _ = provision.Build(provision.Input{Source: provision.SourceDirect, Subscribers: subs, Lines: lines,
		CustomerSubnets: []provision.Subnet{subnet(1, "198.51.100.0/24"), subnet(4, "203.0.113.0/29")}})
	candidate, _ = provision.Build(provision.Input{Source: provision.SourceDirect, Subscribers: subs, Lines: lines[1:],
		CustomerSubnets: []provision.Subnet{subnet(4, "198.51.100.0/24"), subnet(6, "203.0.113.0/29"), subnet(6, "192.0.2.0/28")}})
	next, beside = candidate.Keeping(old, []provision.SubscriberID{1}, nil)
	assert.Equal(t, map[provision.SubscriberID]provision.SubscriberID{4: 1, 6: 4}, beside)
	assert.Equal(t, []provision.Subnet{subnet(1, "198.51.100.0/24"), subnet(4, "203.0.113.0/29")}, next.CustomerSubnets())
}

// claims reports whether a subscriber has an address, or lost it to another one.
func claims(s *provision.Snapshot, id provision.SubscriberID, ip netip.Addr) bool {
	return s.Owner(ip) == id || slices.ContainsFunc(s.Contested(), func(l provision.Line) bool {
		return l.Subscriber == id && slices.Contains(l.Addresses, provision.Hosts4(ip)[0])
	})
}

// Whoever is kept of messy fetches: nobody is the new one, everybody the old one, and anybody leaves a sound snapshot.
func TestKeepingOfMessyFetches(t *testing.T) {
	rng := provisiontest.Rand(14)
	for round := range 400 {
		before := provisiontest.MessyInput(rng, rng.IntN(60))
		after := provisiontest.MessyInput(rng, rng.IntN(60))
		after.Devices = before.Devices
		before.KeepVacant, after.KeepVacant = round%2 == 0, round%2 == 0
		old, _ := provision.Build(before)
		candidate, _ := provision.Build(after)
		all := ids(0, 12)

		nobody, _ := candidate.Keeping(old, nil, nil)
		require.Equal(t, candidate.Fingerprint(), nobody.Fingerprint())
		everybody, beside := candidate.Keeping(old, all, all)
		require.Empty(t, beside)
		require.Equal(t, old.Fingerprint(), everybody.Fingerprint())
		states, _ := candidate.Keeping(old, nil, all)
		require.Equal(t, old.Subscribers(), states.Subscribers())
		require.Equal(t, states.Fingerprint(), candidate.WithStatesOf(old).Fingerprint())

		some := slices.Clone(all[:rng.IntN(12)])
		next, beside := candidate.Keeping(old, some, nil)
		kept := slices.Clone(some)
		for id, because := range beside {
			require.NotEqual(t, id, because)
			kept = append(kept, id)
		}
		for ip, l := range next.Hosts4() {
			from := candidate
			if slices.Contains(kept, l.Subscriber) {
				from = old
			}
			require.True(t, claims(from, l.Subscriber, ip), "round %d: %s of %d", round, ip, l.Subscriber)
		}
		for _, id := range kept { // nobody took what they keep
			for l := range old.BySubscriber(id).All() {
				for ip := range l.Hosts4() {
					require.Contains(t, kept, next.Owner(ip), "round %d: %s of %d", round, ip, id)
				}
			}
		}
	}
}
