package provision_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestBuildVacant(t *testing.T) {
	const a, b = provision.SubscriberID(1), provision.SubscriberID(2)
	ip, m1, m2 := provisiontest.Addr("192.0.2.10"), provisiontest.MAC("00:00:5e:00:53:01"), provisiontest.MAC("00:00:5e:00:53:02")
	subs := []provision.Subscriber{{a, provision.StateActive}, {b, provision.StateStop}}
	devices := []provision.Device{{ID: 7, Name: "sw7"}, {ID: 8, Name: "sw8"}}
	onPort := provision.Line{Subscriber: a, Device: 7, Port: 3}
	for _, tt := range []struct {
		name     string
		rows     []provision.Line
		want     []provision.Line // without owners
		rest     int              // bindings
		problems []provision.ProblemKind
	}{
		{name: "a port", rows: []provision.Line{onPort}, want: []provision.Line{{Subscriber: a, Device: 7, Port: 3}}},
		{name: "a port by name", rows: []provision.Line{{Subscriber: a, Device: 7, PortName: "e1"}}, want: []provision.Line{{Subscriber: a, Device: 7, PortName: "e1"}}},
		{name: "a MAC", rows: []provision.Line{{Subscriber: a, MAC: m1}}, want: []provision.Line{{Subscriber: a, MAC: m1}}},
		{name: "a VLAN", rows: []provision.Line{{Subscriber: a, VLAN: 101}}, want: []provision.Line{{Subscriber: a, VLAN: 101}}},
		{name: "nothing", rows: []provision.Line{{Subscriber: a}}, problems: []provision.ProblemKind{provision.ProblemBadRow}},
		{name: "a port without a switch is nothing", rows: []provision.Line{{Subscriber: a, Port: 4, PortName: "e4"}}, problems: []provision.ProblemKind{provision.ProblemBadRow}},
		{name: "no customer", rows: []provision.Line{{MAC: m1}}, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "two MACs on a port are two", rows: []provision.Line{{Subscriber: a, Device: 7, Port: 3, MAC: m2}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []provision.Line{{Subscriber: a, Device: 7, Port: 3, MAC: m2}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}}},
		{name: "the row without a MAC is a half of the one with", rows: []provision.Line{onPort, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []provision.Line{{Subscriber: a, Device: 7, Port: 3, MAC: m1}}, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "the row without the port is a half of the one with", rows: []provision.Line{{Subscriber: a, MAC: m1}, {Subscriber: a, Device: 7, Port: 3, MAC: m1}},
			want: []provision.Line{{Subscriber: a, Device: 7, Port: 3, MAC: m1}}, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "twice the same", rows: []provision.Line{onPort, onPort}, want: []provision.Line{{Subscriber: a, Device: 7, Port: 3}}, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "no second address on a port", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 3}, {Subscriber: a, MAC: m1, Device: 7, Port: 3}},
			rest: 1, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "nor to who has one anywhere, without a port", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 3}, {Subscriber: a, MAC: m1}},
			rest: 1, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "nor to who has one nobody knows where", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip)}, onPort}, rest: 1, problems: []provision.ProblemKind{provision.ProblemNoAddress}},
		{name: "but on another port", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 7, Port: 4}, onPort}, rest: 1, want: []provision.Line{{Subscriber: a, Device: 7, Port: 3}}},
		{name: "an address that another keeps is one too", rows: []provision.Line{{Subscriber: a, Addresses: provision.Hosts4(ip), Device: 8, Port: 1}, {Subscriber: b, Addresses: provision.Hosts4(ip), MAC: m2}, {Subscriber: b, MAC: m1}},
			rest: 1, problems: []provision.ProblemKind{provision.ProblemDuplicateIP, provision.ProblemNoAddress}},
		{name: "two customers on one port", rows: []provision.Line{onPort, {Subscriber: b, Device: 7, Port: 3}},
			want: []provision.Line{{Subscriber: a, Device: 7, Port: 3}, {Subscriber: b, Device: 7, Port: 3}}, problems: []provision.ProblemKind{provision.ProblemPortConflict}},
		{name: "and one of them has an address", rows: []provision.Line{{Subscriber: b, Addresses: provision.Hosts4(ip), Device: 7, Port: 3}, onPort}, rest: 1,
			want: []provision.Line{{Subscriber: a, Device: 7, Port: 3}}, problems: []provision.ProblemKind{provision.ProblemPortConflict}},
		{name: "two customers with one MAC", rows: []provision.Line{{Subscriber: a, MAC: m1}, {Subscriber: b, MAC: m1}},
			want: []provision.Line{{Subscriber: a, MAC: m1}, {Subscriber: b, MAC: m1}}, problems: []provision.ProblemKind{provision.ProblemDuplicateMAC}},
		{name: "unknown customer and switch", rows: []provision.Line{{Subscriber: 9, Device: 99, Port: 1}},
			want: []provision.Line{{Subscriber: 9, Device: 99, Port: 1}}, problems: []provision.ProblemKind{provision.ProblemUnknownDevice, provision.ProblemUnknownSubscriber}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := provision.Input{Lines: tt.rows, Subscribers: subs, Devices: devices, KeepVacant: true}
			s, problems := provision.Build(in)
			var kinds []provision.ProblemKind
			for _, p := range problems {
				kinds = append(kinds, p.Kind)
			}
			assert.Equal(t, tt.problems, kinds, "%v", problems)
			assert.Equal(t, tt.rest, s.Len())
			var vacant []provision.Line
			owners := map[provision.Owner]bool{}
			for _, x := range vacantOf(s.LinesBySubscriber()) {
				require.EqualValues(t, 3, x.Owner.AppendTo(nil)[0]&3, "no client has such a MAC")
				require.False(t, owners[x.Owner], "each line has an owner of its own")
				owners[x.Owner] = true
				require.NotNil(t, s.ByOwner(x.Subscriber, x.Owner))
				require.Empty(t, x.Addresses)
				x.Owner = provision.Owner{}
				vacant = append(vacant, x)
			}
			assert.Equal(t, tt.want, vacant)
			assert.Equal(t, len(tt.want), s.Counts().Seats)
			for ip, l := range s.Hosts4() {
				require.True(t, ip.Is4(), "a vacant line has none")
				require.True(t, l.Owner.IsZero())
			}
			in.KeepVacant = false
			without, _ := provision.Build(in)
			require.Empty(t, vacantOf(without.LinesBySubscriber()), "nobody asked for them")
		})
	}
}

func TestVacantOwners(t *testing.T) {
	key := func(rows ...provision.Line) provision.Owner {
		s, _ := provision.Build(provision.Input{Lines: rows, KeepVacant: true})
		return s.Lines().At(0).Owner
	}
	m1, m2 := provisiontest.MAC("00:00:5e:00:53:01"), provisiontest.MAC("00:00:5e:00:53:02")
	onPort := key(provision.Line{Subscriber: 1, Device: 7, Port: 3})
	assert.Equal(t, "8f:a6:69:60:88:67", onPort.String(), "stored leases have it: it must not change")
	assert.Equal(t, onPort, key(provision.Line{Subscriber: 1, Device: 7, Port: 3, PortName: "e3", MAC: m1, VLAN: 5}), "another router, and what the ERP tells besides")
	assert.NotEqual(t, onPort, key(provision.Line{Subscriber: 2, Device: 7, Port: 3}), "another customer")
	assert.NotEqual(t, onPort, key(provision.Line{Subscriber: 1, Device: 7, Port: 4}), "another port")
	assert.NotEqual(t, key(provision.Line{Subscriber: 1, MAC: m1}), key(provision.Line{Subscriber: 1, MAC: m2}))
	assert.NotEqual(t, key(provision.Line{Subscriber: 1, VLAN: 5}), key(provision.Line{Subscriber: 1, VLAN: 6}))
}

func TestVacantIndexes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range long.Times(t, 200, 20_000) {
		in := provision.Input{KeepVacant: true}
		for range rng.IntN(40) {
			r := provision.Line{Subscriber: provision.SubscriberID(1 + rng.IntN(12)), Device: provision.DeviceID(rng.IntN(3)), Port: uint32(rng.IntN(5)), VLAN: uint16(rng.IntN(8))}
			if rng.IntN(3) == 0 {
				r.PortName = []string{"e1", "e2", "e3"}[rng.IntN(3)]
			}
			if rng.IntN(2) == 0 {
				r.MAC = provision.MAC{2, 0, 0, 0, 0, byte(1 + rng.IntN(6))}
			}
			if rng.IntN(4) == 0 {
				r.Addresses = provision.Hosts4(provisiontest.IP(rng.IntN(20)))
			}
			in.Lines = append(in.Lines, r)
		}
		s, _ := provision.Build(in)
		rng.Shuffle(len(in.Lines), func(i, j int) { in.Lines[i], in.Lines[j] = in.Lines[j], in.Lines[i] })
		again, _ := provision.Build(in)
		require.Equal(t, vacantOf(s.LinesBySubscriber()), vacantOf(again.LinesBySubscriber()), "whatever the order")
		require.Equal(t, s.Fingerprint(), again.Fingerprint())
		withStates := s.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateStop, 5: provision.StatePause})
		require.Equal(t, vacantOf(s.LinesBySubscriber()), vacantOf(withStates.LinesBySubscriber()))

		where := func(keep func(*provision.Line) bool) []provision.Line {
			var list []provision.Line
			for _, x := range vacantOf(s.LinesBySubscriber()) {
				if keep(&x) {
					list = append(list, x)
				}
			}
			return list
		}
		same := func(want []provision.Line, got provision.Lines, of string) { // in the same order
			require.Equal(t, want, vacantOf(got), of)
		}
		for d := range provision.DeviceID(4) {
			for port := range uint32(6) {
				same(where(func(x *provision.Line) bool { return d != 0 && port != 0 && x.Device == d && x.Port == port }), s.ByPort(d, port), "port")
			}
			for _, name := range []string{"", "e1", "e2", "e3", "e4"} {
				same(where(func(x *provision.Line) bool { return d != 0 && name != "" && x.Device == d && x.PortName == name }), s.ByPortName(d, []byte(name)), "name")
			}
		}
		for m := range byte(8) {
			key := provision.MAC{2, 0, 0, 0, 0, m}
			same(where(func(x *provision.Line) bool { return x.MAC == key }), s.ByMAC(key), "mac")
		}
		for id := range provision.SubscriberID(14) {
			same(where(func(x *provision.Line) bool { return x.Subscriber == id }), s.BySubscriber(id), "subscriber")
		}
		for v := range uint16(9) {
			in := where(func(x *provision.Line) bool { return v != 0 && x.VLAN == v })
			lines, shared := s.ByVLAN(v)
			who := map[provision.SubscriberID]bool{}
			for l := range s.Lines().All() {
				if v != 0 && l.VLAN == v {
					who[l.Subscriber] = true
				}
			}
			require.Equal(t, len(who) > 1, shared, "vlan %d: %v", v, who)
			if shared {
				require.Zero(t, lines.Len())
				in = nil
			}
			same(in, lines, "vlan")
		}
	}
}

func TestVacantLookupsDoNotAllocate(t *testing.T) {
	s, _ := provision.Build(provision.Input{KeepVacant: true, Lines: []provision.Line{
		{Subscriber: 1, Device: 7, Port: 3, PortName: "e3", MAC: provision.MAC{2, 1}}, {Subscriber: 2, Device: 7, PortName: "e4"}, {Subscriber: 3, VLAN: 5}}})
	name, owner := []byte("e4"), s.ByPort(7, 3).At(0).Owner
	require.Zero(t, testing.AllocsPerRun(100, func() {
		vlan, _ := s.ByVLAN(5)
		if s.ByPort(7, 3).Len()+s.ByPortName(7, name).Len()+s.ByMAC(provision.MAC{2, 1}).Len()+vlan.Len() != 4 || s.ByOwner(1, owner) == nil {
			panic("not found")
		}
	}))
}

// vacantOf returns the vacant lines of a look-up, in its order.
func vacantOf(lines provision.Lines) (list []provision.Line) {
	for l := range lines.All() {
		if l.Vacant() {
			list = append(list, *l)
		}
	}
	return list
}
