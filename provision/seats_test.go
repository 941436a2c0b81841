package provision

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
)

func TestBuildSeats(t *testing.T) {
	const a, b = SubscriberID(1), SubscriberID(2)
	ip, m1, m2 := addr("192.0.2.10"), mac("00:00:5e:00:53:01"), mac("00:00:5e:00:53:02")
	subs := []Subscriber{{a, StateActive}, {b, StateStop}}
	devices := []Device{{ID: 7, Name: "sw7"}, {ID: 8, Name: "sw8"}}
	onPort := Binding{Subscriber: a, Device: 7, Port: 3}
	for _, tt := range []struct {
		name     string
		rows     []Binding
		want     []Seat // without keys
		rest     int    // bindings
		problems []ProblemKind
	}{
		{name: "a port", rows: []Binding{onPort}, want: []Seat{{Subscriber: a, Device: 7, Port: 3}}},
		{name: "a port by name", rows: []Binding{{Subscriber: a, Device: 7, PortName: "e1"}}, want: []Seat{{Subscriber: a, Device: 7, PortName: "e1"}}},
		{name: "a MAC", rows: []Binding{{Subscriber: a, MAC: m1}}, want: []Seat{{Subscriber: a, MAC: m1}}},
		{name: "a VLAN", rows: []Binding{{Subscriber: a, VLAN: 101}}, want: []Seat{{Subscriber: a, VLAN: 101}}},
		{name: "nothing", rows: []Binding{{Subscriber: a}}, problems: []ProblemKind{ProblemBadRow}},
		{name: "a port without a switch is nothing", rows: []Binding{{Subscriber: a, Port: 4, PortName: "e4"}}, problems: []ProblemKind{ProblemBadRow}},
		{name: "no customer", rows: []Binding{{MAC: m1}}, problems: []ProblemKind{ProblemNoAddress}},
		{name: "two MACs on a port are two", rows: []Binding{{Subscriber: a, Device: 7, Port: 3, MAC: m2}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []Seat{{Subscriber: a, Device: 7, Port: 3, MAC: m2}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}}},
		{name: "the row without a MAC is a half of the one with", rows: []Binding{onPort, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []Seat{{Subscriber: a, Device: 7, Port: 3, MAC: m1}}, problems: []ProblemKind{ProblemNoAddress}},
		{name: "the row without the port is a half of the one with", rows: []Binding{{Subscriber: a, MAC: m1}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []Seat{{Subscriber: a, Device: 7, Port: 3, MAC: m1}}, problems: []ProblemKind{ProblemNoAddress}},
		{name: "twice the same", rows: []Binding{onPort, onPort}, want: []Seat{{Subscriber: a, Device: 7, Port: 3}}, problems: []ProblemKind{ProblemNoAddress}},
		{name: "no second address on a port", rows: []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 3}, {Subscriber: a, MAC: m1, Device: 7, Port: 3}},
			rest: 1, problems: []ProblemKind{ProblemNoAddress}},
		{name: "nor to who has one anywhere, without a port", rows: []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 3}, {Subscriber: a, MAC: m1}},
			rest: 1, problems: []ProblemKind{ProblemNoAddress}},
		{name: "nor to who has one nobody knows where", rows: []Binding{{Subscriber: a, IP: ip}, onPort}, rest: 1, problems: []ProblemKind{ProblemNoAddress}},
		{name: "but on another port", rows: []Binding{{Subscriber: a, IP: ip, Device: 7, Port: 4}, onPort}, rest: 1, want: []Seat{{Subscriber: a, Device: 7, Port: 3}}},
		{name: "an address that another keeps is one too", rows: []Binding{{Subscriber: a, IP: ip, Device: 8, Port: 1}, {Subscriber: b, IP: ip, MAC: m2}, {Subscriber: b, MAC: m1}},
			rest: 1, problems: []ProblemKind{ProblemDuplicateIP, ProblemNoAddress}},
		{name: "two customers on one port", rows: []Binding{onPort, {Subscriber: b, Device: 7, Port: 3}},
			want: []Seat{{Subscriber: a, Device: 7, Port: 3}, {Subscriber: b, Device: 7, Port: 3}}, problems: []ProblemKind{ProblemPortConflict}},
		{name: "and one of them has an address", rows: []Binding{{Subscriber: b, IP: ip, Device: 7, Port: 3}, onPort}, rest: 1,
			want: []Seat{{Subscriber: a, Device: 7, Port: 3}}, problems: []ProblemKind{ProblemPortConflict}},
		{name: "two customers with one MAC", rows: []Binding{{Subscriber: a, MAC: m1}, {Subscriber: b, MAC: m1}},
			want: []Seat{{Subscriber: a, MAC: m1}, {Subscriber: b, MAC: m1}}, problems: []ProblemKind{ProblemDuplicateMAC}},
		{name: "unknown customer and switch", rows: []Binding{{Subscriber: 9, Device: 99, Port: 1}},
			want: []Seat{{Subscriber: 9, Device: 99, Port: 1}}, problems: []ProblemKind{ProblemUnknownDevice, ProblemUnknownSubscriber}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := Input{Bindings: tt.rows, Subscribers: subs, Devices: devices, KeepSeats: true}
			s, problems := Build(in)
			var kinds []ProblemKind
			for _, p := range problems {
				kinds = append(kinds, p.Kind)
			}
			assert.Equal(t, tt.problems, kinds, "%v", problems)
			assert.Equal(t, tt.rest, s.Len())
			var seats []Seat
			keys := map[MAC]bool{}
			for _, x := range s.Seats() {
				require.EqualValues(t, 3, x.Key[0]&3, "no client has a key for its MAC")
				require.False(t, keys[x.Key], "each seat has a key of its own")
				keys[x.Key] = true
				require.NotNil(t, s.SeatByKey(x.Subscriber, x.Key))
				x.Key = MAC{}
				seats = append(seats, x)
			}
			assert.Equal(t, tt.want, seats)
			assert.Equal(t, len(tt.want), s.Counts().Seats)
			for _, x := range s.Bindings() {
				require.True(t, x.IP.Is4(), "a seat is no binding")
			}
			in.KeepSeats = false
			without, _ := Build(in)
			require.Empty(t, without.Seats(), "nobody asked for them")
		})
	}
}

func TestSeatKeys(t *testing.T) {
	key := func(rows ...Binding) MAC {
		s, _ := Build(Input{Bindings: rows, KeepSeats: true})
		return s.Seats()[0].Key
	}
	m1, m2 := mac("00:00:5e:00:53:01"), mac("00:00:5e:00:53:02")
	onPort := key(Binding{Subscriber: 1, Device: 7, Port: 3})
	assert.Equal(t, "8f:a6:69:60:88:67", onPort.String(), "stored leases have it: it must not change")
	assert.Equal(t, onPort, key(Binding{Subscriber: 1, Device: 7, Port: 3, PortName: "e3", MAC: m1, VLAN: 5}), "another router, and what the ERP tells besides")
	assert.NotEqual(t, onPort, key(Binding{Subscriber: 2, Device: 7, Port: 3}), "another customer")
	assert.NotEqual(t, onPort, key(Binding{Subscriber: 1, Device: 7, Port: 4}), "another port")
	assert.NotEqual(t, key(Binding{Subscriber: 1, MAC: m1}), key(Binding{Subscriber: 1, MAC: m2}))
	assert.NotEqual(t, key(Binding{Subscriber: 1, VLAN: 5}), key(Binding{Subscriber: 1, VLAN: 6}))
}

func TestSeatIndexes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range long.Times(t, 200, 20_000) {
		in := Input{KeepSeats: true}
		for range rng.IntN(40) {
			r := Binding{Subscriber: SubscriberID(1 + rng.IntN(12)), Device: DeviceID(rng.IntN(3)), Port: uint32(rng.IntN(5)), VLAN: uint16(rng.IntN(8))}
			if rng.IntN(3) == 0 {
				r.PortName = []string{"e1", "e2", "e3"}[rng.IntN(3)]
			}
			if rng.IntN(2) == 0 {
				r.MAC = MAC{2, 0, 0, 0, 0, byte(1 + rng.IntN(6))}
			}
			if rng.IntN(4) == 0 {
				r.IP = testIP(rng.IntN(20))
			}
			in.Bindings = append(in.Bindings, r)
		}
		s, _ := Build(in)
		rng.Shuffle(len(in.Bindings), func(i, j int) { in.Bindings[i], in.Bindings[j] = in.Bindings[j], in.Bindings[i] })
		again, _ := Build(in)
		require.Equal(t, s.Seats(), again.Seats(), "whatever the order")
		require.Equal(t, s.Fingerprint(), again.Fingerprint())
		withStates := s.WithStates(map[SubscriberID]State{1: StateStop, 5: StatePause})
		require.Equal(t, s.Seats(), withStates.Seats())

		where := func(keep func(*Seat) bool) []Seat {
			list := []Seat{}
			for _, x := range s.Seats() {
				if keep(&x) {
					list = append(list, x)
				}
			}
			return list
		}
		same := func(want []Seat, got []*Seat, of string) {
			list := []Seat{}
			for _, x := range got {
				list = append(list, *x)
			}
			slices.SortFunc(list, func(a, b Seat) int { return compareSeats(&a, &b) })
			require.Equal(t, want, list, of)
		}
		for d := range DeviceID(4) {
			for port := range uint32(6) {
				same(where(func(x *Seat) bool { return d != 0 && port != 0 && x.Device == d && x.Port == port }), s.SeatsByPort(d, port), "port")
			}
			for _, name := range []string{"", "e1", "e2", "e3", "e4"} {
				same(where(func(x *Seat) bool { return d != 0 && name != "" && x.Device == d && x.PortName == name }), s.SeatsByPortName(d, []byte(name)), "name")
			}
		}
		for m := range byte(8) {
			key := MAC{2, 0, 0, 0, 0, m}
			same(where(func(x *Seat) bool { return x.MAC == key }), s.SeatsByMAC(key), "mac")
		}
		for id := range SubscriberID(14) {
			require.Equal(t, where(func(x *Seat) bool { return x.Subscriber == id }), append([]Seat{}, s.SeatsOf(id)...))
		}
		for v := range uint16(9) {
			in := where(func(x *Seat) bool { return v != 0 && x.VLAN == v })
			seats, shared := s.SeatsByVLAN(v)
			rows, alike := s.ByVLAN(v)
			require.Equal(t, shared, alike)
			who := map[SubscriberID]bool{}
			for _, x := range in {
				who[x.Subscriber] = true
			}
			for _, b := range s.Bindings() {
				if v != 0 && b.VLAN == v {
					who[b.Subscriber] = true
				}
			}
			require.Equal(t, len(who) > 1, shared, "vlan %d: %v", v, who)
			if shared {
				require.Empty(t, rows)
				in = []Seat{}
			}
			same(in, seats, "vlan")
		}
	}
}

func TestSeatLookupsDoNotAllocate(t *testing.T) {
	s, _ := Build(Input{KeepSeats: true, Bindings: []Binding{
		{Subscriber: 1, Device: 7, Port: 3, PortName: "e3", MAC: MAC{2, 1}}, {Subscriber: 2, Device: 7, PortName: "e4"}, {Subscriber: 3, VLAN: 5}}})
	name, key := []byte("e4"), s.Seats()[0].Key
	require.Zero(t, testing.AllocsPerRun(100, func() {
		vlan, _ := s.SeatsByVLAN(5)
		if len(s.SeatsByPort(7, 3))+len(s.SeatsByPortName(7, name))+len(s.SeatsByMAC(MAC{2, 1}))+len(vlan) != 4 || s.SeatByKey(1, key) == nil {
			panic("not found")
		}
	}))
}
