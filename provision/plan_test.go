package provision

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlan(t *testing.T) {
	a, b := addr("192.0.2.1"), addr("192.0.2.2")
	tests := []struct {
		name       string
		want, have ACL
		changes    []Change
	}{
		{name: "both empty"},
		{name: "equal", want: ACL{Stopped: addrs("192.0.2.1")}, have: ACL{Stopped: addrs("192.0.2.1")}},
		{name: "equal in other order", want: ACL{Paused: addrs("192.0.2.1", "192.0.2.2")}, have: ACL{Paused: addrs("192.0.2.2", "192.0.2.1", "192.0.2.2")}},
		{name: "add and remove", want: ACL{Stopped: addrs("192.0.2.1")}, have: ACL{Stopped: addrs("192.0.2.2")},
			changes: []Change{{OpAdd, SetStopped, a}, {OpRemove, SetStopped, b}}},
		{name: "from stopped to paused, never in neither", want: ACL{Paused: addrs("192.0.2.1")}, have: ACL{Stopped: addrs("192.0.2.1")},
			changes: []Change{{OpAdd, SetPaused, a}, {OpRemove, SetStopped, a}}},
		{name: "from paused to stopped, never in neither", want: ACL{Stopped: addrs("192.0.2.1")}, have: ACL{Paused: addrs("192.0.2.1")},
			changes: []Change{{OpAdd, SetStopped, a}, {OpRemove, SetPaused, a}}},
		{name: "in both of the kernel", want: ACL{Stopped: addrs("192.0.2.1")}, have: ACL{Stopped: addrs("192.0.2.1"), Paused: addrs("192.0.2.1")},
			changes: []Change{{OpRemove, SetPaused, a}}},
		{name: "all away", have: ACL{Stopped: addrs("192.0.2.1"), Paused: addrs("192.0.2.2")},
			changes: []Change{{OpRemove, SetStopped, a}, {OpRemove, SetPaused, b}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.changes, Plan(tt.want, tt.have), cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func randomACL(rng *rand.Rand, disjoint bool) ACL {
	var acl ACL
	for i := range 40 {
		switch rng.IntN(4) {
		case 0:
			acl.Stopped = append(acl.Stopped, testIP(i))
		case 1:
			acl.Paused = append(acl.Paused, testIP(i))
		case 2:
			if !disjoint {
				acl.Stopped = append(acl.Stopped, testIP(i))
				acl.Paused = append(acl.Paused, testIP(i))
			}
		}
	}
	rng.Shuffle(len(acl.Stopped), func(i, j int) { acl.Stopped[i], acl.Stopped[j] = acl.Stopped[j], acl.Stopped[i] })
	return acl
}

func sortedACL(a ACL) ACL { return ACL{Stopped: sorted(a.Stopped), Paused: sorted(a.Paused)} }

// kernelModel applies changes one by one to two sets, as the kernel does.
type kernelModel map[Set]map[netip.Addr]bool

func newKernelModel(a ACL) kernelModel {
	m := kernelModel{SetStopped: {}, SetPaused: {}}
	for _, x := range a.Stopped {
		m[SetStopped][x] = true
	}
	for _, x := range a.Paused {
		m[SetPaused][x] = true
	}
	return m
}

func (m kernelModel) acl() ACL {
	var a ACL
	for x := range m[SetStopped] {
		a.Stopped = append(a.Stopped, x)
	}
	for x := range m[SetPaused] {
		a.Paused = append(a.Paused, x)
	}
	slices.SortFunc(a.Stopped, netip.Addr.Compare)
	slices.SortFunc(a.Paused, netip.Addr.Compare)
	return a
}

// From every state to every other: the walk ends where it should, a second plan
// is empty, each change does something, and whoever is blocked before and after
// is blocked after every single step.
func TestPlanConverges(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	have := ACL{}
	for range 3000 {
		if rng.IntN(5) == 0 {
			have = randomACL(rng, false) // somebody else wrote
		}
		want := randomACL(rng, true)
		beforeWant, beforeHave := cloneACL(want), cloneACL(have)
		changes := Plan(want, have)
		require.Equal(t, beforeWant, cloneACL(want), "inputs are not touched")
		require.Equal(t, beforeHave, cloneACL(have))

		m := newKernelModel(have)
		removing := false
		for _, c := range changes {
			require.Equal(t, c.Op == OpRemove, m[c.Set][c.Addr], "%v does nothing", c)
			require.False(t, removing && c.Op == OpAdd, "addition after removal")
			removing = removing || c.Op == OpRemove
			m[c.Set][c.Addr] = c.Op == OpAdd
			if !m[c.Set][c.Addr] {
				delete(m[c.Set], c.Addr)
			}
			blockedBefore := slices.Contains(have.Stopped, c.Addr) || slices.Contains(have.Paused, c.Addr)
			blockedAfter := slices.Contains(want.Stopped, c.Addr) || slices.Contains(want.Paused, c.Addr)
			if blockedBefore && blockedAfter {
				require.True(t, m[SetStopped][c.Addr] || m[SetPaused][c.Addr], "%s is open for a moment", c.Addr)
			}
		}
		require.Empty(t, cmp.Diff(sortedACL(want), m.acl(), cmpAddr))
		require.Empty(t, cmp.Diff(sortedACL(want), have.Apply(changes), cmpAddr))
		require.Empty(t, Plan(want, have.Apply(changes)))
		require.Empty(t, Plan(want, want))
		for _, x := range newlyBlocked(want, have) {
			require.False(t, slices.Contains(have.Stopped, x) || slices.Contains(have.Paused, x))
			require.True(t, slices.Contains(want.Stopped, x) || slices.Contains(want.Paused, x))
		}
		have = m.acl()
	}
}

func cloneACL(a ACL) ACL {
	return ACL{Stopped: append([]netip.Addr{}, a.Stopped...), Paused: append([]netip.Addr{}, a.Paused...)}
}

func TestNewlyBlocked(t *testing.T) {
	got := newlyBlocked(
		ACL{Stopped: addrs("192.0.2.1", "192.0.2.3"), Paused: addrs("192.0.2.2", "192.0.2.4")},
		ACL{Stopped: addrs("192.0.2.2", "192.0.2.3"), Paused: addrs("192.0.2.9")})
	assert.Equal(t, addrs("192.0.2.1", "192.0.2.4"), got)
}

func TestChangeNames(t *testing.T) {
	assert.Equal(t, "add remove invalid", OpAdd.String()+" "+OpRemove.String()+" "+Op(0).String())
	assert.Equal(t, "stopped paused invalid", SetStopped.String()+" "+SetPaused.String()+" "+Set(0).String())
}

func BenchmarkPlan100k(b *testing.B) {
	var have ACL
	for i := range 100_000 {
		have.Stopped = append(have.Stopped, testIP(i))
	}
	want := ACL{Stopped: slices.Concat(have.Stopped[:50], have.Stopped[60:]), Paused: have.Stopped[50:60]}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(Plan(want, have)); n != 20 {
			b.Fatal(n)
		}
	}
}
