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
		{name: "equal", want: ACL{Stopped: provisiontest.Addrs("192.0.2.1")}, have: ACL{Stopped: provisiontest.Addrs("192.0.2.1")}},
		{name: "equal in other order", want: ACL{Paused: provisiontest.Addrs("192.0.2.1", "192.0.2.2")}, have: ACL{Paused: provisiontest.Addrs("192.0.2.2", "192.0.2.1", "192.0.2.2")}},
		{name: "add and remove", want: ACL{Stopped: provisiontest.Addrs("192.0.2.1")}, have: ACL{Stopped: provisiontest.Addrs("192.0.2.2")},
			changes: []Change{{provision.OpAdd, SetStopped, Element{Addr: a}}, {provision.OpRemove, SetStopped, Element{Addr: b}}}},
		{name: "from stopped to paused, never in neither", want: ACL{Paused: provisiontest.Addrs("192.0.2.1")}, have: ACL{Stopped: provisiontest.Addrs("192.0.2.1")},
			changes: []Change{{provision.OpAdd, SetPaused, Element{Addr: a}}, {provision.OpRemove, SetStopped, Element{Addr: a}}}},
		{name: "from paused to stopped, never in neither", want: ACL{Stopped: provisiontest.Addrs("192.0.2.1")}, have: ACL{Paused: provisiontest.Addrs("192.0.2.1")},
			changes: []Change{{provision.OpAdd, SetStopped, Element{Addr: a}}, {provision.OpRemove, SetPaused, Element{Addr: a}}}},
		{name: "in both of the kernel", want: ACL{Stopped: provisiontest.Addrs("192.0.2.1")}, have: ACL{Stopped: provisiontest.Addrs("192.0.2.1"), Paused: provisiontest.Addrs("192.0.2.1")},
			changes: []Change{{provision.OpRemove, SetPaused, Element{Addr: a}}}},
		{name: "all away", have: ACL{Stopped: provisiontest.Addrs("192.0.2.1"), Paused: provisiontest.Addrs("192.0.2.2")},
			changes: []Change{{provision.OpRemove, SetStopped, Element{Addr: a}}, {provision.OpRemove, SetPaused, Element{Addr: b}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.changes, Plan(tt.want, tt.have), cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// randomACL has elements of every kind. disjoint: as a wanted one is.
func randomACL(rng *rand.Rand, disjoint bool) ACL {
	var acl ACL
	some := func(n int, f func(i int)) {
		for i := range n {
			if rng.IntN(3) == 0 {
				f(i)
			}
		}
	}
	for i := range 40 {
		switch rng.IntN(5) {
		case 0:
			acl.Stopped = append(acl.Stopped, provisiontest.IP(i))
		case 1:
			acl.Paused = append(acl.Paused, provisiontest.IP(i))
		case 2:
			acl.Guests = append(acl.Guests, provisiontest.IP(i))
		case 3:
			if !disjoint {
				acl.Stopped = append(acl.Stopped, provisiontest.IP(i))
				acl.Paused = append(acl.Paused, provisiontest.IP(i))
			}
		}
	}
	prefixes := []*[]netip.Prefix{&acl.Garden, &acl.GuestGarden, &acl.Resolvers, &acl.Guard.Exempt}
	some(40, func(i int) {
		list := prefixes[rng.IntN(len(prefixes))]
		*list = append(*list, netip.PrefixFrom(provisiontest.IP(256*i), 24+rng.IntN(9)))
	})
	for _, list := range prefixes {
		if disjoint {
			*list = tidyPrefixes(*list)
		}
	}
	names := []string{"eth0", "eth0.1", "eth0.2", "br0"}
	some(len(names), func(i int) { acl.Guard.Direct = append(acl.Guard.Direct, names[i]) })
	some(len(names), func(i int) { acl.Guard.VLAN = append(acl.Guard.VLAN, names[i]) })
	some(20, func(i int) {
		if disjoint && len(acl.Guard.Direct) == 0 {
			return
		}
		acl.Guard.BoundDirect = append(acl.Guard.BoundDirect, DirectBinding{provisiontest.IP(i), provision.MAC{2, 0, 0, 0, 0, byte(rng.IntN(3))}})
	})
	some(20, func(i int) {
		name := names[rng.IntN(len(names))]
		if disjoint && !slices.Contains(acl.Guard.VLAN, name) {
			return
		}
		acl.Guard.BoundVLAN = append(acl.Guard.BoundVLAN, VLANBinding{name, provisiontest.IP(i)})
	})
	shuffle(rng, acl.Stopped)
	shuffle(rng, acl.Garden)
	shuffle(rng, acl.Guard.BoundVLAN)
	return acl
}

func shuffle[T any](rng *rand.Rand, list []T) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// kernelModel applies changes one by one to sets, as the kernel does.
type kernelModel map[Set]map[Element]bool

// newKernelModel takes the way over a plan from nothing: that Plan tells of
// every element is shown by TestPlanTellsOfEveryElement.
func newKernelModel(a ACL) kernelModel {
	m := kernelModel{}
	for s := range Sets() {
		m[s] = map[Element]bool{}
	}
	for _, c := range Plan(a, ACL{}) {
		m[c.Set][c.Element] = true
	}
	return m
}

func (m kernelModel) acl() ACL {
	var changes []Change
	for set, elements := range m {
		for e := range elements {
			changes = append(changes, Change{provision.OpAdd, set, e})
		}
	}
	return ACL{}.Apply(changes)
}

func TestPlanTellsOfEveryElement(t *testing.T) {
	a := ACL{
		Stopped: provisiontest.Addrs("192.0.2.1"), Paused: provisiontest.Addrs("192.0.2.2"), Guests: provisiontest.Addrs("192.0.2.3"),
		Garden:      []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		GuestGarden: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")},
		Resolvers:   []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		Guard: SourceGuard{
			Direct: []string{"br0"}, VLAN: []string{"eth0.7"},
			BoundDirect: []DirectBinding{{provisiontest.Addr("192.0.2.4"), provision.MAC{2, 0, 0, 0, 0, 4}}},
			BoundVLAN:   []VLANBinding{{"eth0.7", provisiontest.Addr("192.0.2.5")}},
			Exempt:      []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25")},
		},
	}
	var got []string
	for _, c := range Plan(a, ACL{}) {
		got = append(got, c.Op.String()+" "+c.Set.String()+" "+c.Element.String())
	}
	require.Equal(t, []string{
		"add garden 198.51.100.0/24", "add guest_garden 198.51.100.1/32", "add resolvers 0.0.0.0/0",
		"add bound_direct 192.0.2.4 . 02:00:00:00:00:04", "add bound_vlan eth0.7 . 192.0.2.5", "add exempt 203.0.113.0/25",
		"add stopped 192.0.2.1", "add paused 192.0.2.2", "add guests 192.0.2.3",
		"add guarded_direct br0", "add guarded_vlan eth0.7",
	}, got)
	require.Equal(t, len(got), a.Len())
	for s := range Sets() {
		require.Equal(t, 1, a.Counts()[s], s)
	}
	removals := Plan(ACL{}, a)
	require.Len(t, removals, len(got))
	require.Equal(t, SetStopped, removals[0].Set, "what lets through is removed last")
	require.Zero(t, a.Apply(removals).Len())
}

// From every state to every other: the walk ends where it should, a second plan
// is empty, each change does something, and whoever is blocked before and after
// is blocked after every single step.
func TestPlanConverges(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	have := ACL{}
	blockedBy := func(m kernelModel, e Element) bool { return m[SetStopped][e] || m[SetPaused][e] || m[SetGuests][e] }
	for range long.Times(t, 400, 30_000) {
		if rng.IntN(5) == 0 {
			have = randomACL(rng, false) // somebody else wrote
		}
		want := randomACL(rng, true)
		beforeWant, beforeHave := cloneACL(want), cloneACL(have)
		changes := Plan(want, have)
		require.Equal(t, beforeWant, cloneACL(want), "inputs are not touched")
		require.Equal(t, beforeHave, cloneACL(have))

		m, before, after := newKernelModel(have), newKernelModel(have), newKernelModel(want)
		removing := false
		for _, c := range changes {
			require.Equal(t, c.Op == provision.OpRemove, m[c.Set][c.Element], "%v does nothing", c)
			require.False(t, removing && c.Op == provision.OpAdd, "addition after removal")
			removing = removing || c.Op == provision.OpRemove
			m[c.Set][c.Element] = c.Op == provision.OpAdd
			if !m[c.Set][c.Element] {
				delete(m[c.Set], c.Element)
			}
			if c.Set <= SetGuests && blockedBy(before, c.Element) && blockedBy(after, c.Element) {
				require.True(t, blockedBy(m, c.Element), "%s is open for a moment", c.Element)
			}
		}
		require.Empty(t, cmp.Diff(want.Sorted(), m.acl(), cmpAddr))
		require.Empty(t, cmp.Diff(want.Sorted(), have.Apply(changes), cmpAddr))
		require.Empty(t, Plan(want, have.Apply(changes)))
		require.Empty(t, Plan(want, want))
		for _, x := range newlyBlocked(want, have) {
			require.False(t, slices.Contains(have.Stopped, x))
			require.True(t, blockedBy(after, Element{Addr: x}))
		}
		for _, x := range freed(want, have) {
			require.True(t, blockedBy(before, Element{Addr: x}))
			require.False(t, blockedBy(after, Element{Addr: x}))
		}
		have = m.acl()
	}
}

// cloneACL copies the lists that a plan might sort.
func cloneACL(a ACL) ACL {
	a.Stopped, a.Paused, a.Guests = slices.Clone(a.Stopped), slices.Clone(a.Paused), slices.Clone(a.Guests)
	a.Garden, a.GuestGarden, a.Resolvers = slices.Clone(a.Garden), slices.Clone(a.GuestGarden), slices.Clone(a.Resolvers)
	a.Guard.BoundDirect, a.Guard.BoundVLAN = slices.Clone(a.Guard.BoundDirect), slices.Clone(a.Guard.BoundVLAN)
	a.Guard.Direct, a.Guard.VLAN, a.Guard.Exempt = slices.Clone(a.Guard.Direct), slices.Clone(a.Guard.VLAN), slices.Clone(a.Guard.Exempt)
	return a
}

func TestNewlyBlocked(t *testing.T) {
	got := newlyBlocked(
		ACL{Stopped: provisiontest.Addrs("192.0.2.1", "192.0.2.3"), Paused: provisiontest.Addrs("192.0.2.2", "192.0.2.4")},
		ACL{Stopped: provisiontest.Addrs("192.0.2.2", "192.0.2.3"), Paused: provisiontest.Addrs("192.0.2.9")})
	assert.Equal(t, provisiontest.Addrs("192.0.2.1", "192.0.2.4"), got)
	got = newlyBlocked(ACL{Stopped: provisiontest.Addrs("192.0.2.1"), Paused: provisiontest.Addrs("192.0.2.2"), Guests: provisiontest.Addrs("192.0.2.3", "192.0.2.4")},
		ACL{Paused: provisiontest.Addrs("192.0.2.1"), Guests: provisiontest.Addrs("192.0.2.2", "192.0.2.3")})
	assert.Equal(t, provisiontest.Addrs("192.0.2.1", "192.0.2.4"), got, "who was paused may have flows to the garden")
}

func TestChangeNames(t *testing.T) {
	assert.Equal(t, "add remove invalid", provision.OpAdd.String()+" "+provision.OpRemove.String()+" "+provision.Op(0).String())
	assert.Equal(t, "stopped paused invalid", SetStopped.String()+" "+SetPaused.String()+" "+Set(0).String())
}

func BenchmarkPlan100k(b *testing.B) {
	var have ACL
	for i := range 100_000 {
		have.Stopped = append(have.Stopped, provisiontest.IP(i))
	}
	want := ACL{Stopped: slices.Concat(have.Stopped[:50], have.Stopped[60:]), Paused: have.Stopped[50:60]}
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
		in.Bindings = append(in.Bindings, provision.Binding{Subscriber: id, IP: provisiontest.IP(i), MAC: provision.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}})
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: []provision.State{provision.StateActive, provision.StateStop, provision.StatePause}[i%3]})
	}
	snap, _ := provision.Build(in)
	b.ReportAllocs()
	for b.Loop() {
		if a := Want(snap, inputs); len(a.Guests) != 4096 || len(a.Guard.BoundDirect) != 100_000 {
			b.Fatal(a.Counts())
		}
	}
}
