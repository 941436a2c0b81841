package provision

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

var cmpAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func TestBuildRows(t *testing.T) {
	const a, b = SubscriberID(1), SubscriberID(2)
	ip := addr("192.0.2.10")
	m1, m2 := mac("00:00:5e:00:53:01"), mac("00:00:5e:00:53:02")
	listed := []Subscriber{{a, StateActive}, {b, StateActive}}
	devices := []Device{{ID: 7, Name: "sw7"}, {ID: 8, Name: "sw8"}}
	tests := []struct {
		name     string
		rows     []Binding
		subs     []Subscriber
		want     []Binding
		problems []ProblemKind
	}{
		{name: "identical rows merge silently",
			rows: []Binding{{Subscriber: a, IP: ip, MAC: m1, Device: 7, Port: 3}, {Subscriber: a, IP: ip, MAC: m1, Device: 7, Port: 3}},
			want: []Binding{{Subscriber: a, IP: ip, MAC: m1, Device: 7, Port: 3}}},
		{name: "rows of one subscriber complete each other",
			rows: []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: a, IP: ip, Device: 7, Port: 3, VLAN: 5}},
			want: []Binding{{Subscriber: a, IP: ip, MAC: m1, Device: 7, Port: 3, VLAN: 5}}},
		{name: "one subscriber, one address, two ports: the first is kept",
			rows:     []Binding{{Subscriber: a, IP: ip, Device: 8, Port: 1}, {Subscriber: a, IP: ip, Device: 7, Port: 9}},
			want:     []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 9}},
			problems: []ProblemKind{ProblemDuplicateIP}},
		{name: "active beats stopped, whatever else the row lacks",
			rows:     []Binding{{Subscriber: a, IP: ip, MAC: m1, Device: 7, Port: 3}, {Subscriber: b, IP: ip}},
			subs:     []Subscriber{{a, StateStop}, {b, StateActive}},
			want:     []Binding{{Subscriber: b, IP: ip}},
			problems: []ProblemKind{ProblemDuplicateIP}},
		{name: "the row with a port beats the row with a MAC",
			rows:     []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: b, IP: ip, Device: 7, Port: 1}},
			want:     []Binding{{Subscriber: b, IP: ip, Device: 7, Port: 1}},
			problems: []ProblemKind{ProblemDuplicateIP}},
		{name: "the row with a MAC beats the lower id",
			rows:     []Binding{{Subscriber: a, IP: ip}, {Subscriber: b, IP: ip, MAC: m1}},
			want:     []Binding{{Subscriber: b, IP: ip, MAC: m1}},
			problems: []ProblemKind{ProblemDuplicateIP}},
		{name: "the lower id at last",
			rows:     []Binding{{Subscriber: b, IP: ip, MAC: m2}, {Subscriber: a, IP: ip, MAC: m1}},
			want:     []Binding{{Subscriber: a, IP: ip, MAC: m1}},
			problems: []ProblemKind{ProblemDuplicateIP}},
		{name: "MAC without address", rows: []Binding{{Subscriber: a, MAC: m1, Device: 7, Port: 1}}, problems: []ProblemKind{ProblemNoAddress}},
		{name: "neither address nor MAC", rows: []Binding{{Subscriber: a}}, problems: []ProblemKind{ProblemBadRow}},
		{name: "IPv6", rows: []Binding{{Subscriber: a, IP: addr("2001:db8::1")}}, problems: []ProblemKind{ProblemBadRow}},
		{name: "IPv4 in IPv6 is IPv4", rows: []Binding{{Subscriber: a, IP: addr("::ffff:192.0.2.10")}}, want: []Binding{{Subscriber: a, IP: ip}}},
		{name: "no customer", rows: []Binding{{IP: ip}}, problems: []ProblemKind{ProblemBadRow}},
		{name: "gateway", rows: []Binding{{Subscriber: a, IP: addr("192.0.2.1")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "network address", rows: []Binding{{Subscriber: a, IP: addr("192.0.2.0")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "broadcast address", rows: []Binding{{Subscriber: a, IP: addr("192.0.2.255")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "broadcast of the longest prefix counts", rows: []Binding{{Subscriber: a, IP: addr("203.0.113.7")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "point-to-point prefix has no broadcast (RFC 3021)", rows: []Binding{{Subscriber: a, IP: addr("203.0.113.65")}},
			want: []Binding{{Subscriber: a, IP: addr("203.0.113.65")}}},
		{name: "loopback", rows: []Binding{{Subscriber: a, IP: addr("127.0.0.1")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "multicast", rows: []Binding{{Subscriber: a, IP: addr("224.0.0.9")}}, problems: []ProblemKind{ProblemReservedAddress}},
		{name: "outside every subnet is kept", rows: []Binding{{Subscriber: a, IP: addr("198.51.100.9")}},
			want: []Binding{{Subscriber: a, IP: addr("198.51.100.9")}}, problems: []ProblemKind{ProblemOutsideSubnets}},
		{name: "unknown subscriber is kept", rows: []Binding{{Subscriber: 99, IP: ip}},
			want: []Binding{{Subscriber: 99, IP: ip}}, problems: []ProblemKind{ProblemUnknownSubscriber}},
		{name: "unknown switch, told once", rows: []Binding{{Subscriber: a, IP: ip, Device: 99, Port: 1}, {Subscriber: a, IP: addr("192.0.2.11"), Device: 99, Port: 1}},
			want:     []Binding{{Subscriber: a, IP: ip, Device: 99, Port: 1}, {Subscriber: a, IP: addr("192.0.2.11"), Device: 99, Port: 1}},
			problems: []ProblemKind{ProblemUnknownDevice}},
		{name: "one MAC, two subscribers", rows: []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: b, IP: addr("192.0.2.11"), MAC: m1}},
			want:     []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: b, IP: addr("192.0.2.11"), MAC: m1}},
			problems: []ProblemKind{ProblemDuplicateMAC}},
		{name: "one MAC, two addresses of one subscriber", rows: []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: a, IP: addr("192.0.2.11"), MAC: m1}},
			want: []Binding{{Subscriber: a, IP: ip, MAC: m1}, {Subscriber: a, IP: addr("192.0.2.11"), MAC: m1}}},
		{name: "one port, two subscribers", rows: []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 1}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7, Port: 1}},
			want:     []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 1}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7, Port: 1}},
			problems: []ProblemKind{ProblemPortConflict}},
		{name: "one port by name, two subscribers", rows: []Binding{{Subscriber: a, IP: ip, Device: 7, PortName: "e1"}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7, PortName: "e1"}},
			want:     []Binding{{Subscriber: a, IP: ip, Device: 7, PortName: "e1"}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7, PortName: "e1"}},
			problems: []ProblemKind{ProblemPortConflict}},
		{name: "rows without port do not conflict", rows: []Binding{{Subscriber: a, IP: ip, Device: 7}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7}},
			want: []Binding{{Subscriber: a, IP: ip, Device: 7}, {Subscriber: b, IP: addr("192.0.2.11"), Device: 7}}},
		{name: "a port without switch says nothing", rows: []Binding{{Subscriber: a, IP: ip, Port: 4, PortName: "e4"}}, want: []Binding{{Subscriber: a, IP: ip}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := Input{Bindings: tt.rows, Subscribers: tt.subs, Devices: devices, Reserved: addrs("192.0.2.1"),
				Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
					netip.MustParsePrefix("203.0.113.0/29"), netip.MustParsePrefix("203.0.113.64/31")}}
			if in.Subscribers == nil {
				in.Subscribers = listed
			}
			s, problems := Build(in)
			if diff := cmp.Diff(tt.want, s.Bindings(), cmpAddr); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			var kinds []ProblemKind
			for _, p := range problems {
				kinds = append(kinds, p.Kind)
				assert.NotEmpty(t, p.Detail)
			}
			assert.Equal(t, tt.problems, kinds)
		})
	}
}

func TestBuildLists(t *testing.T) {
	s, problems := Build(Input{
		Subscribers: []Subscriber{{5, StateStop}, {5, StateActive}, {6, StateUnknown}, {7, StateUnknown}, {0, StateStop}, {8, State(77)}},
		Problems:    []Problem{{Kind: ProblemUnknownState, Subscriber: 7, Detail: "state_id 9"}},
		Devices: []Device{
			{ID: 3, MAC: mac("00:00:5e:00:53:03"), IP: addr("198.51.100.3")},
			{ID: 4, MAC: mac("00:00:5e:00:53:03"), IP: addr("198.51.100.3")},
			{ID: 4, Name: "again"}, {ID: -1}},
		Bindings: []Binding{{Subscriber: 5, IP: addr("192.0.2.5"), Device: 4, Port: 1}},
	})
	assert.Equal(t, StateActive, s.State(5), "in two lists: the more permissive")
	assert.Equal(t, StateUnknown, s.State(8), "no number of ours")
	_, listed := s.Subscriber(0)
	assert.False(t, listed)
	assert.EqualValues(t, 4, s.DeviceByMAC(mac("00:00:5e:00:53:03")).ID, "the switch that bindings name wins")
	assert.EqualValues(t, 4, s.DeviceByIP(addr("::ffff:198.51.100.3")).ID)
	assert.Nil(t, s.DeviceByMAC(MAC{}))
	counts := map[string]int{}
	for _, p := range problems {
		counts[fmt.Sprintf("%s %d %d", p.Kind, p.Subscriber, p.Device)]++
	}
	assert.Equal(t, map[string]int{"bad_row 5 0": 1, "bad_row 0 0": 1, "bad_row 0 -1": 1, "unknown_state 6 0": 1,
		"unknown_state 7 0": 1, "unknown_state 8 0": 1, "duplicate_device 0 4": 3}, counts)
}

func TestDeviceByName(t *testing.T) {
	s, _ := Build(Input{Devices: []Device{{ID: 1, Name: "west"}, {ID: 2, Name: "east"}, {ID: 3, Name: "east"}, {ID: 4, Name: "east"}, {ID: 5}}})
	require.NotNil(t, s.DeviceByName([]byte("west")))
	assert.EqualValues(t, 1, s.DeviceByName([]byte("west")).ID)
	assert.Nil(t, s.DeviceByName([]byte("east")), "which one?")
	assert.Nil(t, s.DeviceByName([]byte("West")))
	assert.Nil(t, s.DeviceByName(nil))
	name := []byte("west")
	assert.Zero(t, testing.AllocsPerRun(10, func() { s.DeviceByName(name) }))
}

func TestNilSnapshot(t *testing.T) {
	var s *Snapshot
	assert.Nil(t, s.ByIP(addr("192.0.2.1")))
	assert.Empty(t, s.ByMAC(mac("00:00:5e:00:53:01")))
	assert.Empty(t, s.BySubscriber(1))
	assert.Empty(t, s.ByPort(1, 1))
	assert.Empty(t, s.ByPortName(1, []byte("x")))
	assert.Nil(t, s.Device(1))
	assert.Nil(t, s.DeviceByMAC(mac("00:00:5e:00:53:01")))
	assert.Nil(t, s.DeviceByIP(addr("192.0.2.1")))
	assert.Nil(t, s.DeviceByName([]byte("sw")))
	assert.Equal(t, StateUnknown, s.State(1))
	assert.Zero(t, s.Len()+s.Counts().Bindings+len(stopped(s))+len(paused(s))+len(s.Subscribers())+len(s.Devices()))
	assert.Zero(t, s.Fingerprint())
	assert.Empty(t, s.Source())
	assert.True(t, s.FetchedAt().IsZero())
	assert.Nil(t, s.WithStates(map[SubscriberID]State{1: StateStop}))
	empty := build(t, Input{})
	assert.Nil(t, empty.ByIP(addr("192.0.2.1")))
	assert.Nil(t, empty.ByIP(netip.Addr{}))
	assert.Nil(t, empty.ByIP(addr("2001:db8::1")))
	assert.NotPanics(t, func() { empty.WithStates(map[SubscriberID]State{1: StateStop}) })
}

// model answers look-ups by walking all rows.
func model(rows []Binding, match func(*Binding) bool) []Binding {
	var out []Binding
	for i := range rows {
		if match(&rows[i]) {
			out = append(out, rows[i])
		}
	}
	slices.SortFunc(out, func(a, b Binding) int { return a.IP.Compare(b.IP) })
	return out
}

func deref(rows []*Binding) []Binding {
	var out []Binding
	for _, r := range rows {
		out = append(out, *r)
	}
	return out
}

func TestLookupsAgreeWithModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range long.Times(t, 200, 10_000) {
		s, _ := Build(messyInput(rng, 20+round%100))
		rows := s.Bindings()
		check := func(what string, want, got []Binding) {
			t.Helper()
			if slices.Equal(want, got) { // cmp.Diff alone is slow
				return
			}
			if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
				t.Fatalf("round %d: %s (-want +got):\n%s", round, what, diff)
			}
		}
		for i := range 110 {
			var got []Binding
			if r := s.ByIP(testIP(i)); r != nil {
				got = []Binding{*r}
			}
			check("by IP", model(rows, func(b *Binding) bool { return b.IP == testIP(i) }), got)
		}
		for i := range 30 {
			m := MAC{0, 0, 0x5e, 0, 0x53, byte(i)}
			check("by MAC", model(rows, func(b *Binding) bool { return b.MAC == m }), deref(s.ByMAC(m)))
		}
		for d := range DeviceID(5) {
			for p := range uint32(5) {
				check("by port", model(rows, func(b *Binding) bool { return d != 0 && p != 0 && b.Device == d && b.Port == p }), s.ByPort(d, p))
				name := fmt.Sprintf("eth%d", p)
				check("by port name", model(rows, func(b *Binding) bool { return d != 0 && b.Device == d && b.PortName == name }), s.ByPortName(d, []byte(name)))
			}
		}
		for id := range SubscriberID(13) {
			check("by subscriber", model(rows, func(b *Binding) bool { return b.Subscriber == id }), deref(s.BySubscriber(id)))
		}
		stopped, paused := s.Blocked()
		for i := range rows {
			st := s.State(rows[i].Subscriber)
			require.Equal(t, st == StateStop, slices.Contains(stopped, rows[i].IP))
			require.Equal(t, st == StatePause, slices.Contains(paused, rows[i].IP))
		}
		require.LessOrEqual(t, len(stopped)+len(paused), len(rows))
	}
}

func TestBuildIgnoresOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range long.Times(t, 200, 20_000) {
		in := messyInput(rng, 5+round%200)
		s1, p1 := Build(in)
		s2, p2 := Build(shuffled(rng, in))
		require.Equal(t, s1.Fingerprint(), s2.Fingerprint())
		require.True(t, slices.Equal(s1.Bindings(), s2.Bindings()))
		require.True(t, slices.Equal(s1.t.contested, s2.t.contested))
		require.True(t, slices.Equal(p1, p2))
		require.Equal(t, s1.Counts(), s2.Counts())
	}
}

// An active customer's address is never blocked by somebody else's row, and a
// changed state gives the same rows as a fetch that has it.
func TestWithStatesEqualsBuild(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range long.Times(t, 300, 50_000) {
		in := messyInput(rng, 10+round%80)
		s, _ := Build(in)
		before := s.Fingerprint()
		states := map[SubscriberID]State{}
		for range 1 + rng.IntN(3) {
			states[SubscriberID(1+rng.IntN(11))] = State(1 + rng.IntN(3))
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
			changed.Subscribers = append(changed.Subscribers, Subscriber{id, st})
		}
		for id, st := range states {
			require.Equal(t, st, got.State(id))
		}
		require.Equal(t, before, s.Fingerprint(), "the original is untouched")
		for i := range in.Bindings {
			if b := in.Bindings[i]; got.ByIP(b.IP) != nil && got.State(b.Subscriber) == StateActive {
				require.False(t, slices.Contains(stopped(got), b.IP) || slices.Contains(paused(got), b.IP), "%v", b)
			}
		}
		// Where a row filled from another of the same subscriber competes, a fresh
		// Build may choose the port otherwise; who has the address is the same
		// as soon as one of them is active.
		want, _ := Build(changed)
		for _, r := range want.Bindings() {
			if want.State(r.Subscriber) == StateActive {
				require.Equal(t, StateActive, got.State(got.ByIP(r.IP).Subscriber))
			}
		}
	}
}

func TestWithStates(t *testing.T) {
	s := build(t, testInput(100))
	require.Equal(t, StateActive, s.State(1000))
	blocked := s.WithStates(map[SubscriberID]State{1000: StateStop, 5: StatePause})
	assert.Equal(t, StateActive, s.State(1000))
	assert.Equal(t, StateStop, blocked.State(1000))
	assert.Equal(t, StatePause, blocked.State(5), "one that no list had")
	assert.Contains(t, stopped(blocked), testIP(0))
	assert.NotContains(t, stopped(s), testIP(0))
	assert.NotEqual(t, s.Fingerprint(), blocked.Fingerprint())
	assert.Equal(t, s.Fingerprint(), s.WithStates(map[SubscriberID]State{1000: StateActive}).Fingerprint(), "nothing changed, nothing differs")
	assert.Same(t, s.t, blocked.t, "rows are shared")
	assert.Equal(t, s.Counts().Stopped+1, blocked.Counts().Stopped)
}

// The fingerprint is stored by nobody, but operators compare it over restarts
// and hosts: it must not change by itself.
func TestFingerprintIsStable(t *testing.T) {
	s := build(t, testInput(10))
	assert.Equal(t, "ae74bbdf4fdaa8a1", fmt.Sprintf("%016x", s.Fingerprint()))
	in := testInput(10)
	in.FetchedAt, in.Source = in.FetchedAt.Add(time.Hour), SourceComposed
	assert.Equal(t, s.Fingerprint(), build(t, in).Fingerprint(), "times and source are no content")
	in.Devices[0].Model = "DES-3200-28"
	assert.NotEqual(t, s.Fingerprint(), build(t, in).Fingerprint(), "a model may choose a profile")
	in.Devices[0].Model = ""
	in.Bindings[3].VLAN++
	assert.NotEqual(t, s.Fingerprint(), build(t, in).Fingerprint())
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s := build(t, testInput(1000))
	s.Blocked()
	s.Fingerprint()
	ip, m, name := testIP(5), MAC{2, 0, 0, 0, 0, 5}, []byte("ge-0/0/5")
	sw, swIP := s.Device(1).MAC, s.Device(1).IP
	found := 0
	allocs := testing.AllocsPerRun(100, func() {
		found = len(s.ByMAC(m)) + len(s.ByPort(1, 6)) + len(s.ByPortName(1, name)) + len(s.BySubscriber(1005)) + int(s.State(1005))
		if s.ByIP(ip) != nil && s.Device(1) != nil && s.DeviceByMAC(sw) != nil && s.DeviceByIP(swIP) != nil {
			found++
		}
		if _, ok := s.Subscriber(1005); ok {
			found++
		}
		found += s.Counts().Bindings + len(stopped(s)) + int(s.Fingerprint()&1)
	})
	assert.Zero(t, allocs)
	assert.Greater(t, found, 1000)
}

// A row costs 80 bytes itself; indexes, subscribers and switches must not make
// much more of it.
func TestSnapshotIsCompact(t *testing.T) {
	const n = 100_000
	in := testInput(n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, _ := Build(in)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perRow := float64(after.HeapAlloc-before.HeapAlloc) / n
	t.Logf("%.0f bytes per row", perRow)
	assert.Less(t, perRow, 240.0)
	assert.Equal(t, n, s.Len())
	runtime.KeepAlive(in)
	assert.Len(t, s.t.ports, cap(s.t.ports))
	assert.Len(t, s.t.portNames, cap(s.t.portNames))
}

func BenchmarkBuild100k(b *testing.B) {
	in := shuffled(rand.New(rand.NewPCG(1, 1)), testInput(100_000))
	in.Subnets = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	b.ReportAllocs()
	for b.Loop() {
		if s, _ := Build(in); s.Len() < 99_000 {
			b.Fatal(s.Len())
		}
	}
}

func BenchmarkFingerprint100k(b *testing.B) {
	s, _ := Build(testInput(100_000))
	for b.Loop() {
		s.hash()
	}
}

func BenchmarkWithStates100k(b *testing.B) {
	s, _ := Build(testInput(100_000))
	for b.Loop() {
		s.WithStates(map[SubscriberID]State{5000: StateStop}).Blocked()
	}
}

func BenchmarkLookups(b *testing.B) {
	s, _ := Build(testInput(100_000))
	name := []byte("ge-0/0/5")
	b.Run("ip", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByIP(testIP(i % 100_000))
		}
	})
	b.Run("port", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByPort(DeviceID(1+i%2000), 6)
		}
	})
	b.Run("port name", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.ByPortName(DeviceID(1+i%2000), name)
		}
	})
}
