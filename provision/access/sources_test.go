package access

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
)

var (
	testIP   = netip.MustParseAddr("192.0.2.17")
	testMAC  = provision.MAC{0, 0, 0x5e, 0, 0x53, 1}
	otherMAC = provision.MAC{0, 0, 0x5e, 0, 0x53, 2}
)

func TestVLANInterfaces(t *testing.T) {
	inner := map[string]uint16{"eth1.7.100": 100, "eth1.7.101": 101, "eth1.8.101": 101}
	vlanOf := func(name string) (uint16, bool) { vlan, ok := inner[name]; return vlan, ok }
	got := vlanInterfaces(vlanOf, []string{"eth1.7.100", "eth1.7.101", "eth1.8.101", "eth2"})
	assert.Equal(t, map[uint16]string{100: "eth1.7.100"}, got, "101 is in two outer VLANs: nobody can tell")
	assert.Empty(t, vlanInterfaces(nil, []string{"eth1.7.100"}))
}

func testSources(opts SourceOptions) (*Sources, *lease.Table) {
	leases := lease.New()
	return NewSources(opts, leases, nil, func() []string { return []string{"eth1", "eth2.100"} }), leases
}

func TestInputsOfLeases(t *testing.T) {
	opts := SourceOptions{
		Exempt: []provision.SubscriberID{9}, ExemptAddrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/32")},
		GuardDirect: provision.Patterns{"eth1"}, GuardVLAN: provision.Patterns{"eth2.*"},
	}
	s, leases := testSources(opts)
	now := time.Now()
	ip := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	store := func(n byte, change func(*lease.Record)) {
		rec := lease.Record{IP: ip(n), MAC: testMAC, Subscriber: 7, Interface: "eth1", State: lease.StateBound, Expires: now.Add(time.Hour)}
		change(&rec)
		leases.Store(rec)
	}
	store(1, func(*lease.Record) {})
	store(2, func(r *lease.Record) { r.Interface = "eth2.100" })
	store(3, func(r *lease.Record) { r.GIAddr = ip(254) })                            // behind a relay
	store(4, func(r *lease.Record) { r.Expires = now })                               // over
	store(5, func(r *lease.Record) { r.State, r.Expires = lease.StateReleased, now }) // given back
	store(6, func(r *lease.Record) { r.Pool, r.Interface = "more", "eth9" })
	store(7, func(r *lease.Record) { r.Pool, r.Subscriber = "guests", 0 })

	in := s.Inputs()
	assert.Equal(t, opts.Exempt, in.Exempt)
	assert.Equal(t, opts.ExemptAddrs, in.ExemptAddrs)
	assert.Equal(t, []string{"eth1"}, in.GuardDirect)
	assert.Equal(t, []string{"eth2.100"}, in.GuardVLAN)
	assert.ElementsMatch(t, []DirectBinding{{IP: ip(1), MAC: testMAC}, {IP: ip(7), MAC: testMAC}}, directOf(in))
	assert.ElementsMatch(t, []VLANBinding{{Interface: "eth2.100", IP: ip(2)}, {Interface: "eth9", IP: ip(6)}}, vlanOf(in))
	assert.Equal(t, []netip.Addr{ip(6)}, seatsOf(in, 7))

	e := shownOf(t, s)
	for n := byte(1); n < 9; n++ {
		assert.True(t, e.settled(ip(n)), "192.0.2.%d is as it was", n)
	}
	store(1, func(r *lease.Record) { r.MAC = otherMAC })
	store(2, func(r *lease.Record) { r.Interface = "eth1" })
	leases.SetState(ip(7), testMAC, lease.StateReleased, now)
	store(8, func(*lease.Record) {})
	for n, want := range map[byte]bool{1: true, 2: true, 3: false, 6: false, 7: true, 8: true} {
		assert.Equal(t, want, !e.settled(ip(n)), "192.0.2.%d", n)
	}
}

// directOf, vlanOf and seatsOf are what leases give, by kind.
func directOf(in Inputs) (out []DirectBinding) {
	for g := range in.Leases {
		if g.Direct {
			out = append(out, DirectBinding{IP: g.IP, MAC: g.MAC})
		}
	}
	return out
}

func vlanOf(in Inputs) (out []VLANBinding) {
	for g := range in.Leases {
		if !g.Direct && g.Interface != "" {
			out = append(out, VLANBinding{Interface: g.Interface, IP: g.IP})
		}
	}
	return out
}

func seatsOf(in Inputs, id provision.SubscriberID) (out []netip.Addr) {
	for g := range in.Leases {
		if g.Subscriber == id {
			out = append(out, g.IP)
		}
	}
	return out
}

// shownOf is an enforcer after its first round, which does not go on.
func shownOf(t testing.TB, s *Sources) *Enforcer {
	t.Helper()
	snap := provisiontest.Build(t, provision.Input{Subscribers: []provision.Subscriber{{ID: 7, State: provision.StateActive}}})
	e := NewEnforcer(Options{Inputs: s.Inputs}, newFakeKernel(ACL{}), nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
	require.NoError(t, e.round(t.Context(), e.opts))
	return e
}

// settled reports whether the rights of an address are those shown.
func (e *Enforcer) settled(ip netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settledLocked(e.shown.Load(), ip)
}

func TestLeasesAreNotReadWhereTheyDoNotMatter(t *testing.T) {
	s, leases := testSources(SourceOptions{})
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	in := s.Inputs()
	assert.Nil(t, in.Leases)
	assert.Nil(t, in.Lease)
	e := shownOf(t, s)
	assert.True(t, e.settled(testIP))
	assert.Nil(t, e.follow([]netip.Addr{testIP}, true))
	Follow(s, e).Admit([]netip.Addr{testIP})()
}

// A lease that was released by nobody knows whom gives its client what it gave, until its end.
func TestKeptLeaseGivesWhatItGave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, leases := testSources(SourceOptions{Pools: true, GuardDirect: provision.Patterns{"eth1"}})
		now := time.Now()
		leases.Store(lease.Record{
			IP: testIP, MAC: testMAC, Subscriber: 7, Pool: "flats", Interface: "eth1", State: lease.StateBound, Expires: now.Add(time.Hour),
		})
		before := s.Inputs()
		e := shownOf(t, s)
		require.Equal(t, []DirectBinding{{IP: testIP, MAC: testMAC}}, directOf(before))
		require.Equal(t, []netip.Addr{testIP}, seatsOf(before, 7))
		require.True(t, leases.Keep(testIP, testMAC, lease.StateReleased, now))
		assert.True(t, e.settled(testIP))
		after := s.Inputs()
		assert.Equal(t, directOf(before), directOf(after))
		assert.Equal(t, seatsOf(before, 7), seatsOf(after, 7))
		pass(time.Hour)
		assert.False(t, e.settled(testIP), "it ends as others do")

		leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: now.Add(2 * time.Hour)})
		assert.True(t, e.settled(testIP))
		require.True(t, leases.SetState(testIP, testMAC, lease.StateReleased, time.Now()))
		assert.False(t, e.settled(testIP), "the client's own RELEASE ends it")
		assert.Empty(t, directOf(s.Inputs()))
	})
}

// A reload changes what is guarded, and whose leases matter.
func TestSourcesAreReconfigured(t *testing.T) {
	s, leases := testSources(SourceOptions{GuardDirect: provision.Patterns{"eth1"}})
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	assert.Len(t, directOf(s.Inputs()), 1)
	s.Reconfigure(SourceOptions{GuardVLAN: provision.Patterns{"eth2.*", "eth1"}, VLANOf: func(name string) (uint16, bool) {
		return 100, strings.HasSuffix(name, ".100")
	}})
	in := s.Inputs()
	assert.Empty(t, in.GuardDirect)
	assert.Equal(t, []string{"eth1", "eth2.100"}, in.GuardVLAN)
	assert.Equal(t, []VLANBinding{{Interface: "eth1", IP: testIP}}, vlanOf(in))
	assert.Equal(t, "eth2.100", in.InterfaceOf(&provision.Line{VLAN: 100}))
	s.Reconfigure(SourceOptions{Exempt: []provision.SubscriberID{3}})
	assert.Equal(t, Inputs{Exempt: []provision.SubscriberID{3}}, s.Inputs())
}
