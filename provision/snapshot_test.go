package provision_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

var cmpAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, provision.Owner{}), cmpopts.EquateEmpty()}

func TestBuildRows(t *testing.T) {
	const a, b = provision.SubscriberID(1), provision.SubscriberID(2)
	ip := provisiontest.Addr("192.0.2.10")
	m1, m2 := provisiontest.MAC("00:00:5e:00:53:01"), provisiontest.MAC("00:00:5e:00:53:02")
	listed := []provision.Subscriber{{a, provision.StateActive}, {b, provision.StateActive}}
	devices := []provision.Device{{ID: 7, Name: "sw7"}, {ID: 8, Name: "sw8"}}
	tests := []struct {
		name     string
		rows     []provision.Line
		subs     []provision.Subscriber
		want     []provision.Line
		problems []provision.ProblemKind
	}{
		{name: "identical rows merge silently",
			rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1, Device: 7, Port: 3}, {Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1, Device: 7, Port: 3}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1, Device: 7, Port: 3}}},
		{name: "rows of one subscriber complete each other",
			rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 3, VLAN: 5}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1, Device: 7, Port: 3, VLAN: 5}}},
		{name: "one subscriber, one address, two ports: the first is kept",
			rows:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 8, Port: 1}, {Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 9}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 9}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateIP}},
		{name: "active beats stopped, whatever else the row lacks",
			rows:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1, Device: 7, Port: 3}, {Subscriber: b, Addresses: provision.Hosts4(ip)}},
			subs:     []provision.Subscriber{{a, provision.StateStop}, {b, provision.StateActive}},
			want:     []provision.Line{{Subscriber: b, Addresses: provision.Hosts4(ip)}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateIP}},
		{name: "the row with a port beats the row with a MAC",
			rows:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: b, Addresses: provision.Hosts4(ip), Device: 7, Port: 1}},
			want:     []provision.Line{{Subscriber: b, Addresses: provision.Hosts4(ip), Device: 7, Port: 1}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateIP}},
		{name: "the row with a MAC beats the lower id",
			rows:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip)}, {Subscriber: b, Addresses: provision.Hosts4(ip), MAC: m1}},
			want:     []provision.Line{{Subscriber: b, Addresses: provision.Hosts4(ip), MAC: m1}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateIP}},
		{name: "the lower id at last",
			rows:     []provision.Line{{Subscriber: b, Addresses: provision.Hosts4(ip), MAC: m2}, {Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateIP}},
		{name: "MAC without address", rows: []provision.Line{{Subscriber: a, MAC: m1, Device: 7, Port: 1}}, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "neither address nor MAC", rows: []provision.Line{{Subscriber: a}}, problems: []provision.ProblemKind{provision.ProblemBadRow}},
		{name: "IPv6", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("2001:db8::1"))}}, problems: []provision.ProblemKind{provision.ProblemBadRow}},
		{name: "IPv4 in IPv6 is IPv4", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("::ffff:192.0.2.10"))}}, want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip)}}},
		{name: "no customer", rows: []provision.Line{{Addresses: provision.Hosts4(ip)}}, problems: []provision.ProblemKind{provision.ProblemBadRow}},
		{name: "gateway", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "network address", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.0"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "broadcast address", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.255"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "broadcast of the longest prefix counts", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.7"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "point-to-point prefix has no broadcast (RFC 3021)", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.65"))}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("203.0.113.65"))}}},
		{name: "loopback", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("127.0.0.1"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "multicast", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("224.0.0.9"))}}, problems: []provision.ProblemKind{provision.ProblemReservedAddress}},
		{name: "outside every subnet is kept", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("198.51.100.9"))}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("198.51.100.9"))}}, problems: []provision.ProblemKind{provision.ProblemOutsideSubnets}},
		{name: "unknown subscriber is kept", rows: []provision.Line{{Subscriber: 99, Addresses: provision.Hosts4(ip)}},
			want: []provision.Line{{Subscriber: 99, Addresses: provision.Hosts4(ip)}}, problems: []provision.ProblemKind{provision.ProblemUnknownSubscriber}},
		{name: "unknown switch, told once", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 99, Port: 1}, {Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 99, Port: 1}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 99, Port: 1}, {Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 99, Port: 1}},
			problems: []provision.ProblemKind{provision.ProblemUnknownDevice}},
		{name: "one MAC, two subscribers", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), MAC: m1}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), MAC: m1}},
			problems: []provision.ProblemKind{provision.ProblemDuplicateMAC}},
		{name: "one MAC, two addresses of one subscriber", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), MAC: m1}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), MAC: m1}, {Subscriber: a, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), MAC: m1}}},
		{name: "one port, two subscribers", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 1}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7, Port: 1}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 1}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7, Port: 1}},
			problems: []provision.ProblemKind{provision.ProblemPortConflict}},
		{name: "one port by name, two subscribers", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, PortName: "e1"}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7, PortName: "e1"}},
			want:     []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, PortName: "e1"}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7, PortName: "e1"}},
			problems: []provision.ProblemKind{provision.ProblemPortConflict}},
		{name: "rows without port do not conflict", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7}},
			want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7}, {Subscriber: b, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.11")), Device: 7}}},
		{name: "a port without switch says nothing", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Port: 4, PortName: "e4"}}, want: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := provision.Input{Lines: tt.rows, Subscribers: tt.subs, Devices: devices, Reserved: provisiontest.Addrs("192.0.2.1"),
				Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
					netip.MustParsePrefix("203.0.113.0/29"), netip.MustParsePrefix("203.0.113.64/31")}}
			if in.Subscribers == nil {
				in.Subscribers = listed
			}
			s, problems := provision.Build(in)
			if diff := cmp.Diff(tt.want, provisiontest.Rows(s.Lines()), cmpAddr); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			var kinds []provision.ProblemKind
			for _, p := range problems {
				kinds = append(kinds, p.Kind)
				assert.NotEmpty(t, p.Detail)
			}
			assert.Equal(t, tt.problems, kinds)
		})
	}
}

func TestBuildLists(t *testing.T) {
	s, problems := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{5, provision.StateStop}, {5, provision.StateActive}, {6, provision.StateUnknown}, {7, provision.StateUnknown}, {0, provision.StateStop}, {8, provision.State(77)}},
		Problems:    []provision.Problem{{Kind: provision.ProblemUnknownState, Subscriber: 7, Detail: "state_id 9"}},
		Devices: []provision.Device{
			{ID: 3, MAC: provisiontest.MAC("00:00:5e:00:53:03"), IP: provisiontest.Addr("198.51.100.3")},
			{ID: 4, MAC: provisiontest.MAC("00:00:5e:00:53:03"), IP: provisiontest.Addr("198.51.100.3")},
			{ID: 4, Name: "again"}, {ID: -1}},
		Lines: []provision.Line{{Subscriber: 5, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.5")), Device: 4, Port: 1}},
	})
	assert.Equal(t, provision.StateActive, s.State(5), "in two lists: the more permissive")
	assert.Equal(t, provision.StateUnknown, s.State(8), "no number of ours")
	_, listed := s.Subscriber(0)
	assert.False(t, listed)
	assert.EqualValues(t, 4, s.DeviceByMAC(provisiontest.MAC("00:00:5e:00:53:03")).ID, "the switch that bindings name wins")
	assert.EqualValues(t, 4, s.DeviceByIP(provisiontest.Addr("::ffff:198.51.100.3")).ID)
	assert.Nil(t, s.DeviceByMAC(provision.MAC{}))
	counts := map[string]int{}
	for _, p := range problems {
		counts[fmt.Sprintf("%s %d %d", p.Kind, p.Subscriber, p.Device)]++
	}
	assert.Equal(t, map[string]int{"bad_row 5 0": 1, "bad_row 0 0": 1, "bad_row 0 -1": 1, "unknown_state 6 0": 1,
		"unknown_state 7 0": 1, "unknown_state 8 0": 1, "duplicate_device 0 4": 3}, counts)
}

func TestDeviceByName(t *testing.T) {
	s, _ := provision.Build(provision.Input{Devices: []provision.Device{{ID: 1, Name: "west"}, {ID: 2, Name: "east"}, {ID: 3, Name: "east"}, {ID: 4, Name: "east"}, {ID: 5}}})
	require.NotNil(t, s.DeviceByName([]byte("west")))
	assert.EqualValues(t, 1, s.DeviceByName([]byte("west")).ID)
	assert.Nil(t, s.DeviceByName([]byte("east")), "which one?")
	assert.Nil(t, s.DeviceByName([]byte("West")))
	assert.Nil(t, s.DeviceByName(nil))
	name := []byte("west")
	assert.Zero(t, testing.AllocsPerRun(10, func() { s.DeviceByName(name) }))
}

func TestNilSnapshot(t *testing.T) {
	var s *provision.Snapshot
	assert.Nil(t, s.ByIP(provisiontest.Addr("192.0.2.1")))
	assert.Zero(t, s.ByMAC(provisiontest.MAC("00:00:5e:00:53:01")).Len())
	assert.Zero(t, s.BySubscriber(1).Len())
	assert.Zero(t, s.ByPort(1, 1).Len())
	assert.Zero(t, s.ByPortName(1, []byte("x")).Len())
	assert.Nil(t, s.Device(1))
	assert.Nil(t, s.DeviceByMAC(provisiontest.MAC("00:00:5e:00:53:01")))
	assert.Nil(t, s.DeviceByIP(provisiontest.Addr("192.0.2.1")))
	assert.Nil(t, s.DeviceByName([]byte("sw")))
	assert.Equal(t, provision.StateUnknown, s.State(1))
	assert.Zero(t, s.Len()+s.Counts().Bindings+len(provisiontest.Stopped(s))+len(provisiontest.Paused(s))+len(s.Subscribers())+len(s.Devices()))
	assert.Zero(t, s.Fingerprint())
	assert.Empty(t, s.Source())
	assert.True(t, s.FetchedAt().IsZero())
	assert.Nil(t, s.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateStop}))
	empty := provisiontest.Build(t, provision.Input{})
	assert.Nil(t, empty.ByIP(provisiontest.Addr("192.0.2.1")))
	assert.Nil(t, empty.ByIP(netip.Addr{}))
	assert.Nil(t, empty.ByIP(provisiontest.Addr("2001:db8::1")))
	assert.NotPanics(t, func() { empty.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateStop}) })
}

// model answers look-ups by walking all rows.
func model(rows []provision.Line, match func(*provision.Line) bool) []provision.Line {
	var out []provision.Line
	for i := range rows {
		if match(&rows[i]) {
			out = append(out, rows[i])
		}
	}
	return out
}

func ipOf(row *provision.Line) netip.Addr {
	if row.Vacant() {
		return netip.Addr{}
	}
	return row.Addresses[0].Prefix.Addr()
}

func TestLookupsAgreeWithModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range long.Times(t, 200, 10_000) {
		s, _ := provision.Build(provisiontest.MessyInput(rng, 20+round%100))
		rows := provisiontest.Rows(s.Lines())
		check := func(what string, want, got []provision.Line) {
			t.Helper()
			if reflect.DeepEqual(want, got) { // cmp.Diff alone is slow
				return
			}
			if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
				t.Fatalf("round %d: %s (-want +got):\n%s", round, what, diff)
			}
		}
		for i := range 110 {
			var got []provision.Line
			if l := s.ByIP(provisiontest.IP(i)); l != nil {
				got = []provision.Line{*l}
				got[0].Addresses = provision.Hosts4(provisiontest.IP(i))
				require.Contains(t, slices.Collect(l.Hosts4()), provisiontest.IP(i))
			}
			check("by IP", model(rows, func(b *provision.Line) bool { return ipOf(b) == provisiontest.IP(i) }), got)
		}
		for i := range 30 {
			m := provision.MAC{0, 0, 0x5e, 0, 0x53, byte(i)}
			check("by MAC", model(rows, func(b *provision.Line) bool { return b.MAC == m }), provisiontest.Rows(s.ByMAC(m)))
		}
		for d := range provision.DeviceID(5) {
			for p := range uint32(5) {
				check("by port", model(rows, func(b *provision.Line) bool { return d != 0 && p != 0 && b.Device == d && b.Port == p }), provisiontest.Rows(s.ByPort(d, p)))
				name := fmt.Sprintf("eth%d", p)
				check("by port name", model(rows, func(b *provision.Line) bool { return d != 0 && b.Device == d && b.PortName == name }), provisiontest.Rows(s.ByPortName(d, []byte(name))))
			}
		}
		for id := range provision.SubscriberID(13) {
			check("by subscriber", model(rows, func(b *provision.Line) bool { return b.Subscriber == id }), provisiontest.Rows(s.BySubscriber(id)))
		}
		stopped, paused := s.Blocked()
		for i := range rows {
			st := s.State(rows[i].Subscriber)
			require.Equal(t, st == provision.StateStop, slices.Contains(stopped, ipOf(&rows[i])))
			require.Equal(t, st == provision.StatePause, slices.Contains(paused, ipOf(&rows[i])))
		}
		require.LessOrEqual(t, len(stopped)+len(paused), len(rows))
	}
}

func TestBuildIgnoresOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range long.Times(t, 200, 20_000) {
		in := provisiontest.MessyInput(rng, 5+round%200)
		s1, p1 := provision.Build(in)
		s2, p2 := provision.Build(provisiontest.Shuffled(rng, in))
		require.Equal(t, s1.Fingerprint(), s2.Fingerprint())
		require.True(t, reflect.DeepEqual(s1.Lines(), s2.Lines()))
		require.True(t, reflect.DeepEqual(s1.Contested(), s2.Contested()))
		require.True(t, slices.Equal(p1, p2))
		require.Equal(t, s1.Counts(), s2.Counts())
	}
}

// An active customer's address is never blocked by somebody else's row, and a
// changed state gives the same rows as a fetch that has it.
func TestWithStatesEqualsBuild(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range long.Times(t, 300, 50_000) {
		in := provisiontest.MessyInput(rng, 10+round%80)
		s, _ := provision.Build(in)
		before := s.Fingerprint()
		states := map[provision.SubscriberID]provision.State{}
		for range 1 + rng.IntN(3) {
			states[provision.SubscriberID(1+rng.IntN(11))] = provision.State(1 + rng.IntN(3))
		}
		got := s.WithStates(states)

		changed := in
		changed.Subscribers = nil
		for _, sub := range s.Subscribers() {
			if _, ok := states[sub.ID]; !ok {
				changed.Subscribers = append(changed.Subscribers, sub)
			}
		}
		for id, st := range states {
			changed.Subscribers = append(changed.Subscribers, provision.Subscriber{id, st})
		}
		for id, st := range states {
			require.Equal(t, st, got.State(id))
		}
		require.Equal(t, before, s.Fingerprint(), "the original is untouched")
		for i := range in.Lines {
			if b := in.Lines[i]; got.ByIP(ipOf(&b)) != nil && got.State(b.Subscriber) == provision.StateActive {
				require.False(t, slices.Contains(provisiontest.Stopped(got), ipOf(&b)) || slices.Contains(provisiontest.Paused(got), ipOf(&b)), "%v", b)
			}
		}
		// Where a row filled from another of the same subscriber competes, a fresh
		// Build may choose the port otherwise; who has the address is the same
		// as soon as one of them is active.
		want, _ := provision.Build(changed)
		for ip, l := range want.Hosts4() {
			if want.State(l.Subscriber) == provision.StateActive {
				require.Equal(t, provision.StateActive, got.State(got.ByIP(ip).Subscriber))
			}
		}
	}
}

func TestWithStates(t *testing.T) {
	s := provisiontest.Build(t, provisiontest.Input(100))
	require.Equal(t, provision.StateActive, s.State(1000))
	blocked := s.WithStates(map[provision.SubscriberID]provision.State{1000: provision.StateStop, 5: provision.StatePause})
	assert.Equal(t, provision.StateActive, s.State(1000))
	assert.Equal(t, provision.StateStop, blocked.State(1000))
	assert.Equal(t, provision.StatePause, blocked.State(5), "one that no list had")
	assert.Contains(t, provisiontest.Stopped(blocked), provisiontest.IP(0))
	assert.NotContains(t, provisiontest.Stopped(s), provisiontest.IP(0))
	assert.NotEqual(t, s.Fingerprint(), blocked.Fingerprint())
	assert.Equal(t, s.Fingerprint(), s.WithStates(map[provision.SubscriberID]provision.State{1000: provision.StateActive}).Fingerprint(), "nothing changed, nothing differs")
	assert.True(t, s.SameLines(blocked), "lines are shared")
	assert.Equal(t, s.Counts().Stopped+1, blocked.Counts().Stopped)
}

// The fingerprint is stored by nobody, but operators compare it over restarts
// and hosts: it must not change by itself.
func TestFingerprintIsStable(t *testing.T) {
	s := provisiontest.Build(t, provisiontest.Input(10))
	assert.Equal(t, "ae74bbdf4fdaa8a1", fmt.Sprintf("%016x", s.Fingerprint()))
	in := provisiontest.Input(10)
	in.FetchedAt, in.Source = in.FetchedAt.Add(time.Hour), provision.SourceComposed
	assert.Equal(t, s.Fingerprint(), provisiontest.Build(t, in).Fingerprint(), "times and source are no content")
	in.Devices[0].Model = "DES-3200-28"
	assert.NotEqual(t, s.Fingerprint(), provisiontest.Build(t, in).Fingerprint(), "a model may choose a profile")
	in.Devices[0].Model = ""
	in.Lines[3].VLAN++
	assert.NotEqual(t, s.Fingerprint(), provisiontest.Build(t, in).Fingerprint())
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s := provisiontest.Build(t, provisiontest.Input(1000))
	s.Blocked()
	s.Fingerprint()
	ip, m, name := provisiontest.IP(5), provision.MAC{2, 0, 0, 0, 0, 5}, []byte("ge-0/0/5")
	sw, swIP := s.Device(1).MAC, s.Device(1).IP
	found := 0
	allocs := testing.AllocsPerRun(100, func() {
		found = s.ByMAC(m).Len() + s.ByPort(1, 6).Len() + s.ByPortName(1, name).Len() + s.BySubscriber(1005).Len() + int(s.State(1005))
		if s.ByIP(ip) != nil && s.Device(1) != nil && s.DeviceByMAC(sw) != nil && s.DeviceByIP(swIP) != nil {
			found++
		}
		if _, ok := s.Subscriber(1005); ok {
			found++
		}
		found += s.Counts().Bindings + len(provisiontest.Stopped(s)) + int(s.Fingerprint()&1)
	})
	assert.Zero(t, allocs)
	assert.Greater(t, found, 1000)
}

// A line costs 80 bytes and its address 40; indexes, subscribers and switches must not
// make much more of it.
func TestSnapshotIsCompact(t *testing.T) {
	const n = 100_000
	in := provisiontest.Input(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, _ := provision.Build(in)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perRow := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes per row", perRow)
	assert.Less(t, perRow, 190.0)
	assert.Equal(t, n, s.Len())
	runtime.KeepAlive(in)
}

func BenchmarkBuild100k(b *testing.B) {
	in := provisiontest.Shuffled(rand.New(rand.NewPCG(1, 1)), provisiontest.Input(100_000))
	in.Subnets = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	b.ReportAllocs()
	for b.Loop() {
		if s, _ := provision.Build(in); s.Len() < 99_000 {
			b.Fatal(s.Len())
		}
	}
}

func BenchmarkFingerprint100k(b *testing.B) {
	s, _ := provision.Build(provisiontest.Input(100_000))
	for b.Loop() {
		s.Hash()
	}
}

func BenchmarkWithStates100k(b *testing.B) {
	s, _ := provision.Build(provisiontest.Input(100_000))
	for b.Loop() {
		s.WithStates(map[provision.SubscriberID]provision.State{5000: provision.StateStop}).Blocked()
	}
}

func BenchmarkLookups(b *testing.B) {
	s, _ := provision.Build(provisiontest.Input(100_000))
	name := []byte("ge-0/0/5")
	b.Run("ip", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByIP(provisiontest.IP(i % 100_000))
		}
	})
	b.Run("port", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByPort(provision.DeviceID(1+i%2000), 6)
		}
	})
	b.Run("port name", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByPortName(provision.DeviceID(1+i%2000), name)
		}
	})
}
