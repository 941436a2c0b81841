package access

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestPlan(t *testing.T) {
	a, b := provisiontest.Addr("192.0.2.1"), provisiontest.Addr("192.0.2.2")
	tests := []struct {
		name       string
		want, have ACL
		changes    []Change
	}{
		{name: "both empty"},
		{name: "equal", want: ACL{SetStopped: keys("192.0.2.1")}, have: ACL{SetStopped: keys("192.0.2.1")}},
		{name: "equal in other order", want: ACL{SetPaused: keys("192.0.2.1", "192.0.2.2")}, have: ACL{SetPaused: keys("192.0.2.2", "192.0.2.1", "192.0.2.2")}},
		{name: "add and remove", want: ACL{SetStopped: keys("192.0.2.1")}, have: ACL{SetStopped: keys("192.0.2.2")},
			changes: []Change{{provision.OpAdd, addrIn(SetStopped, a)}, {provision.OpRemove, addrIn(SetStopped, b)}}},
		{name: "from stopped to paused, never in neither", want: ACL{SetPaused: keys("192.0.2.1")}, have: ACL{SetStopped: keys("192.0.2.1")},
			changes: []Change{{provision.OpAdd, addrIn(SetPaused, a)}, {provision.OpRemove, addrIn(SetStopped, a)}}},
		{name: "from paused to stopped, never in neither", want: ACL{SetStopped: keys("192.0.2.1")}, have: ACL{SetPaused: keys("192.0.2.1")},
			changes: []Change{{provision.OpAdd, addrIn(SetStopped, a)}, {provision.OpRemove, addrIn(SetPaused, a)}}},
		{name: "in both of the kernel", want: ACL{SetStopped: keys("192.0.2.1")}, have: ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.1")},
			changes: []Change{{provision.OpRemove, addrIn(SetPaused, a)}}},
		{name: "all away", have: ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2")},
			changes: []Change{{provision.OpRemove, addrIn(SetStopped, a)}, {provision.OpRemove, addrIn(SetPaused, b)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.changes, Plan(tt.want, tt.have), cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// randomACL has elements of every kind. disjoint: as a wanted one is, but for its order.
func randomACL(rng *rand.Rand, disjoint bool) ACL {
	var (
		addrs        [3][]netip.Addr
		nets         [4][]netip.Prefix
		direct, vlan []string
		boundDirect  []DirectBinding
		boundVLAN    []VLANBinding
	)
	some := func(n int, f func(i int)) {
		for i := range n {
			if rng.IntN(3) == 0 {
				f(i)
			}
		}
	}
	for i := range 40 {
		switch n := rng.IntN(5); n {
		case 0, 1, 2:
			addrs[n] = append(addrs[n], provisiontest.IP(i))
		case 3:
			if !disjoint {
				addrs[0] = append(addrs[0], provisiontest.IP(i))
				addrs[1] = append(addrs[1], provisiontest.IP(i))
			}
		}
	}
	some(40, func(i int) {
		n := rng.IntN(len(nets))
		nets[n] = append(nets[n], netip.PrefixFrom(provisiontest.IP(256*(i+1)), 24+rng.IntN(9)))
	})
	if disjoint {
		for i, list := range nets {
			nets[i] = tidyPrefixes(list)
		}
	}
	names := []string{"eth0", "eth0.1", "eth0.2", "br0"}
	some(len(names), func(i int) { direct = append(direct, names[i]) })
	some(len(names), func(i int) { vlan = append(vlan, names[i]) })
	some(20, func(i int) {
		if disjoint && len(direct) == 0 {
			return
		}
		boundDirect = append(boundDirect, DirectBinding{provisiontest.IP(i), provision.MAC{2, 0, 0, 0, 0, byte(rng.IntN(3))}})
	})
	some(20, func(i int) {
		name := names[rng.IntN(len(names))]
		if disjoint && !slices.Contains(vlan, name) {
			return
		}
		boundVLAN = append(boundVLAN, VLANBinding{name, provisiontest.IP(i)})
	})
	var alone [2][]string
	some(len(names), func(i int) { n := rng.IntN(2); alone[n] = append(alone[n], names[i]) })
	shuffle(rng, addrs[0])
	shuffle(rng, nets[0])
	shuffle(rng, boundVLAN)
	return ACL{
		SetStopped: Addrs(addrs[0]...), SetPaused: Addrs(addrs[1]...), SetGuests: Addrs(addrs[2]...),
		SetGarden: Prefixes(nets[0]...), SetGuestGarden: Prefixes(nets[1]...), SetResolvers: Prefixes(nets[2]...), SetExempt: Prefixes(nets[3]...),
		SetGuardedDirect: Interfaces(direct...), SetGuardedVLAN: Interfaces(vlan...),
		SetBoundDirect: DirectBindings(boundDirect...), SetBoundVLAN: VLANBindings(boundVLAN...),
		SetAloneStopped: Interfaces(alone[0]...), SetAlonePaused: Interfaces(alone[1]...),
		SetIPv6Direct: Interfaces(direct...), SetStoppedInterface: Interfaces(vlan...),
		SetStoppedMAC: macsOf(boundDirect, 0), SetPausedMAC: macsOf(boundDirect, 1),
	}
}

// netKey is the key of a subnet in a set of them.
func netKey(s Set, n byte) Keys {
	_, bits, _ := s.Subnet()
	key, err := s.appendKey(nil, Fields{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, n, 0}), bits).Masked(), MAC: provision.MAC{2, n}, Interface: "eth0.7"})
	if err != nil {
		panic(err)
	}
	return Keys(key)
}

// macsOf returns the MACs of every second binding as keys.
func macsOf(list []DirectBinding, first int) (k Keys) {
	for i := first; i < len(list); i += 2 {
		k += Keys(list[i].MAC[:])
	}
	return k
}

func shuffle[T any](rng *rand.Rand, list []T) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// kernelModel applies changes one by one to sets, as the kernel does.
type kernelModel map[Element]bool

// newKernelModel takes the way over a plan from nothing: that Plan tells of
// every element is shown by TestPlanTellsOfEveryElement.
func newKernelModel(a ACL) kernelModel {
	m := kernelModel{}
	for _, c := range Plan(a, ACL{}) {
		m[c.Element] = true
	}
	return m
}

func (m kernelModel) acl() ACL {
	var changes []Change
	for e := range m {
		changes = append(changes, Change{provision.OpAdd, e})
	}
	return ACL{}.Apply(changes)
}

func TestPlanTellsOfEveryElement(t *testing.T) {
	a := ACL{
		SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2"), SetGuests: keys("192.0.2.3"),
		SetGarden:        Prefixes(prefixes("198.51.100.0/24")...),
		SetGuestGarden:   Prefixes(prefixes("198.51.100.1/32")...),
		SetResolvers:     Prefixes(prefixes("0.0.0.0/0")...),
		SetGuardedDirect: Interfaces("br0"), SetGuardedVLAN: Interfaces("eth0.7"),
		SetBoundDirect: DirectBindings(DirectBinding{provisiontest.Addr("192.0.2.4"), provision.MAC{2, 0, 0, 0, 0, 4}}),
		SetBoundVLAN:   VLANBindings(VLANBinding{"eth0.7", provisiontest.Addr("192.0.2.5")}),
		SetExempt:      Prefixes(prefixes("203.0.113.0/25")...),
		SetDHCPServers: Prefixes(prefixes("192.0.2.67/32")...), SetAloneStopped: Interfaces("eth0.7"), SetAlonePaused: Interfaces("eth0.8"),
		SetIPv6Direct: Interfaces("br0"),
		SetStoppedMAC: Keys("\x02\x00\x00\x00\x00\x06"), SetPausedMAC: Keys("\x02\x00\x00\x00\x00\x07"),
		SetStoppedInterface: Interfaces("eth0.8"), SetPausedInterface: Interfaces("eth0.9"),
	}
	for s := firstNet; s < setEnd; s++ {
		a[s] = netKey(s, 7)
	}
	var got []string
	all := Plan(a, ACL{})
	for _, c := range all {
		if c.Set.Optional() {
			continue
		}
		got = append(got, c.Op.String()+" "+c.Set.String()+" "+c.Element.String())
	}
	require.Equal(t, []string{
		"add garden 198.51.100.0/24", "add guest_garden 198.51.100.1/32", "add resolvers 0.0.0.0/0",
		"add bound_direct 192.0.2.4 . 02:00:00:00:00:04", "add bound_vlan eth0.7 . 192.0.2.5", "add exempt 203.0.113.0/25", "add dhcp_servers 192.0.2.67/32",
		"add stopped 192.0.2.1", "add paused 192.0.2.2", "add guests 192.0.2.3",
		"add guarded_direct br0", "add guarded_vlan eth0.7", "add alone_stopped eth0.7", "add alone_paused eth0.8",
		"add ipv6_direct br0", "add stopped_mac 02:00:00:00:00:06", "add paused_mac 02:00:00:00:00:07", "add stopped_ifname eth0.8", "add paused_ifname eth0.9",
	}, got)
	require.Equal(t, len(all), a.Len())
	require.Len(t, all, len(got)+int(setEnd-firstNet))
	for s := range Sets() {
		require.Equal(t, 1, a.Counts()[s], s)
	}
	removals := Plan(ACL{}, a)
	require.Len(t, removals, len(all))
	require.Equal(t, SetStopped, removals[0].Set, "what lets through is removed last")
	require.Zero(t, a.Apply(removals).Len())
}

// From every state to every other: the walk ends where it should, a second plan
// is empty, each change does something, and whoever is blocked before and after
// is blocked after every single step.
func TestPlanConverges(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	have := ACL{}
	blockedBy := func(m kernelModel, key string) bool {
		return m[Element{SetStopped, key}] || m[Element{SetPaused, key}] || m[Element{SetGuests, key}]
	}
	for range long.Times(t, 400, 30_000) {
		if rng.IntN(5) == 0 {
			have = randomACL(rng, false) // somebody else wrote
		}
		want := randomACL(rng, true)
		changes := Plan(want, have)

		m, before, after := newKernelModel(have), newKernelModel(have), newKernelModel(want)
		removing := false
		for _, c := range changes {
			require.Equal(t, c.Op == provision.OpRemove, m[c.Element], "%v does nothing", c)
			require.False(t, removing && c.Op == provision.OpAdd, "addition after removal")
			removing = removing || c.Op == provision.OpRemove
			if m[c.Element] = true; removing {
				delete(m, c.Element)
			}
			if c.Set <= SetGuests && blockedBy(before, c.Key) && blockedBy(after, c.Key) {
				require.True(t, blockedBy(m, c.Key), "%s is open for a moment", c.Element)
			}
		}
		require.Empty(t, cmp.Diff(want.Sorted(), m.acl(), cmpAddr))
		require.Empty(t, cmp.Diff(want.Sorted(), have.Apply(changes), cmpAddr))
		require.Empty(t, Plan(want, have.Apply(changes)))
		require.Empty(t, Plan(want, want))
		for _, x := range addrsIn(newlyBlocked(want.Sorted(), have.Sorted())) {
			require.False(t, before[addrIn(SetStopped, x)])
			require.True(t, blockedBy(after, string(Addrs(x))))
		}
		for _, x := range addrsIn(freed(want.Sorted(), have.Sorted())) {
			require.True(t, blockedBy(before, string(Addrs(x))))
			require.False(t, blockedBy(after, string(Addrs(x))))
		}
		have = m.acl()
	}
}

func TestNewlyBlocked(t *testing.T) {
	got := newlyBlocked(
		ACL{SetStopped: keys("192.0.2.1", "192.0.2.3"), SetPaused: keys("192.0.2.2", "192.0.2.4")},
		ACL{SetStopped: keys("192.0.2.2", "192.0.2.3"), SetPaused: keys("192.0.2.9")})
	assert.Equal(t, provisiontest.Addrs("192.0.2.1", "192.0.2.4"), addrsIn(got))
	got = newlyBlocked(ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2"), SetGuests: keys("192.0.2.3", "192.0.2.4")},
		ACL{SetPaused: keys("192.0.2.1"), SetGuests: keys("192.0.2.2", "192.0.2.3")})
	assert.Equal(t, provisiontest.Addrs("192.0.2.1", "192.0.2.4"), addrsIn(got), "who was paused may have flows to the garden")
}

func TestChangeNames(t *testing.T) {
	assert.Equal(t, "add remove invalid", provision.OpAdd.String()+" "+provision.OpRemove.String()+" "+provision.Op(0).String())
	assert.Equal(t, "stopped paused invalid", SetStopped.String()+" "+SetPaused.String()+" "+Set(0).String())
}

func BenchmarkPlan100k(b *testing.B) {
	var all []netip.Addr
	for i := range 100_000 {
		all = append(all, provisiontest.IP(i))
	}
	have := ACL{SetStopped: Addrs(all...)}
	want := ACL{SetStopped: Addrs(slices.Concat(all[:50], all[60:])...), SetPaused: Addrs(all[50:60]...)}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(Plan(want, have)); n != 20 {
			b.Fatal(n)
		}
	}
}

// Everything that a round works out of 100,000 bindings, with leases, guests,
// exemptions and a source guard.
func BenchmarkWant100k(b *testing.B) {
	var in provision.Input
	inputs := Inputs{
		Exempt: []provision.SubscriberID{7, 70, 700}, ExemptAddrs: prefixes("203.0.113.0/24"), Garden: prefixes("198.51.100.0/24"),
		GuestRanges: []AddrRange{{provisiontest.Addr("172.16.0.0"), provisiontest.Addr("172.16.15.255")}}, GuardDirect: []string{"br0"},
	}
	for i := range 100_000 {
		id := provision.SubscriberID(i + 1)
		in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.IP(i)), MAC: provision.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}})
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: []provision.State{provision.StateActive, provision.StateStop, provision.StatePause}[i%3]})
	}
	snap, _ := provision.Build(in)
	b.ReportAllocs()
	for b.Loop() {
		if a := Want(snap, inputs); a.Counts()[SetGuests] != 4096 || a.Counts()[SetBoundDirect] != 100_000 {
			b.Fatal(a.Counts())
		}
	}
}
