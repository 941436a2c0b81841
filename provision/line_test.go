package provision_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func net4(s string) provision.Address {
	return provision.Address{Kind: provision.Routed4, Prefix: netip.MustParsePrefix(s)}
}

func addressTexts(l *provision.Line) string {
	var list []string
	for _, a := range l.Addresses {
		list = append(list, a.Kind.String()+" "+a.Prefix.String())
	}
	return strings.Join(list, ", ")
}

func TestLineHasSeveralAddresses(t *testing.T) {
	ip := provisiontest.Addr
	m1 := provision.MAC{2, 1}
	s, problems := provision.Build(provision.Input{Subscribers: []provision.Subscriber{{ID: 1}, {ID: 2}}, Devices: []provision.Device{{ID: 7}}, Lines: []provision.Line{
		{Subscriber: 1, Device: 7, Port: 3, Addresses: provision.Hosts4(ip("192.0.2.9"), ip("192.0.2.3"))},
		{Subscriber: 1, Device: 7, Port: 3, Addresses: provision.Hosts4(ip("192.0.2.5"))},
		{Subscriber: 1, Device: 7, Port: 3, MAC: m1, Addresses: provision.Hosts4(ip("192.0.2.4"))},
		{Subscriber: 1, Device: 7, Port: 4, Addresses: []provision.Address{net4("198.51.100.9/29")}},
		{Subscriber: 1, Device: 7, Port: 3, Addresses: []provision.Address{net4("198.51.100.19/30"), {Kind: provision.Routed4, Prefix: netip.MustParsePrefix("::ffff:203.0.113.7/120")}}},
	}})
	for _, p := range problems {
		require.Equal(t, provision.ProblemUnknownState, p.Kind, "%v", p)
	}
	var got []string
	for l := range s.BySubscriber(1).All() {
		got = append(got, addressTexts(l))
	}
	require.Equal(t, []string{
		"host4 192.0.2.3/32, host4 192.0.2.5/32, host4 192.0.2.9/32, routed4 198.51.100.16/30, routed4 203.0.113.0/24",
		"host4 192.0.2.4/32",
		"routed4 198.51.100.8/29",
	}, got, "by lowest address, then without one; subnets behind hosts and masked")
	require.Equal(t, 4, s.Len())
	require.Equal(t, 2, s.ByPort(7, 3).Len())
	require.Same(t, s.ByIP(ip("192.0.2.9")), s.ByIP(ip("192.0.2.3")))
	require.Nil(t, s.ByIP(ip("198.51.100.17")), "an address of a subnet is no host's")
	alone := s.ByPort(7, 4).At(0)
	require.True(t, alone.Vacant())
	require.True(t, alone.Owner.IsZero(), "nobody keeps vacant lines")
}

// What subnets there are is chosen, counted and stored as host addresses are.
func TestSubnetsAreKept(t *testing.T) {
	in := provision.Input{
		KeepVacant:  true,
		Subnets:     []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StateActive}, {ID: 3, State: provision.StateActive}},
		Devices:     []provision.Device{{ID: 7}},
		Lines: []provision.Line{
			{Subscriber: 1, Device: 7, Port: 1, Addresses: []provision.Address{net4("198.51.100.0/29"), net4("203.0.113.0/24")}},
			{Subscriber: 2, Device: 7, Port: 2, MAC: provision.MAC{2, 2}, Addresses: append(provision.Hosts4(provisiontest.Addr("192.0.2.2")), net4("198.51.100.0/29"))},
			{Subscriber: 2, Device: 7, Port: 2, Addresses: []provision.Address{net4("198.51.100.64/28")}}, // on a port with an address
			{Subscriber: 2, Device: 7, Port: 2, MAC: provision.MAC{2, 2}, Addresses: []provision.Address{net4("198.51.100.80/28")}},
			{Subscriber: 3, Device: 7, Port: 3, Addresses: []provision.Address{net4("198.51.100.32/29")}},
			{Subscriber: 3, Device: 7, Port: 3}, // the same line
			{Subscriber: 3, Addresses: []provision.Address{net4("224.0.0.0/24"), {Kind: provision.Routed4, Prefix: netip.MustParsePrefix("2001:db8::/56")}, {Prefix: netip.MustParsePrefix("192.0.2.7/32")}}},
		},
	}
	s, problems := provision.Build(in)
	var kinds []provision.ProblemKind
	for _, p := range problems {
		kinds = append(kinds, p.Kind)
	}
	require.Equal(t, []provision.ProblemKind{"bad_row", "bad_row", "duplicate_ip", "reserved_address"}, kinds, "%v", problems)
	lines := func(s *provision.Snapshot) (list []string) {
		for l := range s.Lines().All() {
			list = append(list, strings.Join([]string{l.Owner.String(), addressTexts(l)}, " "))
		}
		return list
	}
	want := []string{
		"ab:94:03:69:0e:93 routed4 203.0.113.0/24",
		" host4 192.0.2.2/32, routed4 198.51.100.0/29, routed4 198.51.100.80/28",
		" routed4 198.51.100.64/28",
		"6f:74:d1:7b:8f:af routed4 198.51.100.32/29",
	}
	require.Equal(t, want, lines(s))
	require.Equal(t, []int{1, 2, 1}, []int{s.Counts().Bindings, s.Counts().Seats, s.Counts().Contested})
	require.Equal(t, "routed4 198.51.100.0/29", addressTexts(&s.Contested()[0]), "the stopped one lost it")

	slices.Reverse(in.Lines)
	again, _ := provision.Build(in)
	require.Equal(t, want, lines(again), "whatever the order")
	in.Lines = slices.DeleteFunc(in.Lines, func(l provision.Line) bool { return l.Subscriber == 3 && len(l.Addresses) > 0 })
	less, _ := provision.Build(in)
	require.NotEqual(t, s.Fingerprint(), less.Fingerprint())

	swapped := s.WithStates(map[provision.SubscriberID]provision.State{1: provision.StateActive, 2: provision.StateStop})
	require.Contains(t, lines(swapped)[0], "198.51.100.0/29", "who is active has it now")
	require.Len(t, swapped.Contested(), 1)
}

func TestOwner(t *testing.T) {
	m := provisiontest.MAC("00:00:5e:00:53:01")
	o := m.Owner()
	assert.Equal(t, m.String(), o.String())
	assert.Equal(t, m[:], o.AppendTo(nil))
	assert.True(t, provision.MAC{}.Owner().IsZero())
	assert.NotEqual(t, o, provision.MAC{2}.Owner())

	var long, short provision.Owner
	require.NoError(t, long.UnmarshalBinary([]byte("01234567890")))
	require.NoError(t, short.UnmarshalBinary([]byte("0123456789")))
	assert.NotEqual(t, long, short)
	assert.ErrorContains(t, long.UnmarshalBinary([]byte("012345678901")), "owner of 12 bytes, want at most 11")
	for _, o := range []provision.Owner{o, short, {}} {
		text, err := json.Marshal(o)
		require.NoError(t, err)
		var again provision.Owner
		require.NoError(t, json.Unmarshal(text, &again))
		assert.Equal(t, o, again, "%s", text)
	}
	assert.Error(t, short.UnmarshalText([]byte("no")))
	var binary provision.Owner
	require.NoError(t, binary.UnmarshalBinary(o.AppendTo(nil)))
	assert.Equal(t, o, binary)
}
