package access

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
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
	assert.ElementsMatch(t, []DirectBinding{{IP: ip(1), MAC: testMAC}, {IP: ip(7), MAC: testMAC}}, in.BoundDirect)
	assert.ElementsMatch(t, []VLANBinding{{Interface: "eth2.100", IP: ip(2)}, {Interface: "eth9", IP: ip(6)}}, in.BoundVLAN)
	assert.Equal(t, []SubscriberAddr{{Subscriber: 7, IP: ip(6)}}, in.Leases)

	for n := byte(1); n < 9; n++ {
		assert.False(t, s.changed(ip(n), now), "192.0.2.%d is as it was", n)
	}
	store(1, func(r *lease.Record) { r.MAC = otherMAC })
	store(2, func(r *lease.Record) { r.Interface = "eth1" })
	leases.SetState(ip(7), testMAC, lease.StateReleased, now)
	store(8, func(*lease.Record) {})
	for n, want := range map[byte]bool{1: true, 2: true, 3: false, 6: false, 7: true, 8: true} {
		assert.Equal(t, want, s.changed(ip(n), now), "192.0.2.%d", n)
	}
	f := Follow(s, nil)
	assert.Zero(t, testing.AllocsPerRun(100, func() { f.Touch(ip(3), now) }), "a renewal allocates nothing")
}

func TestLeasesAreNotReadWhereTheyDoNotMatter(t *testing.T) {
	s, leases := testSources(SourceOptions{})
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	in := s.Inputs()
	assert.Empty(t, in.BoundDirect)
	assert.Nil(t, s.used.Load())
	assert.False(t, s.changed(testIP, time.Now()))
	Follow(s, nil).Admit([]netip.Addr{testIP}, time.Now())()
}

// A lease that was released by nobody knows whom gives its client what it gave, until its end.
func TestKeptLeaseGivesWhatItGave(t *testing.T) {
	s, leases := testSources(SourceOptions{Pools: true, GuardDirect: provision.Patterns{"eth1"}})
	now := time.Now()
	leases.Store(lease.Record{
		IP: testIP, MAC: testMAC, Subscriber: 7, Pool: "flats", Interface: "eth1", State: lease.StateBound, Expires: now.Add(time.Hour),
	})
	before := s.Inputs()
	require.Equal(t, []DirectBinding{{IP: testIP, MAC: testMAC}}, before.BoundDirect)
	require.Equal(t, []SubscriberAddr{{Subscriber: 7, IP: testIP}}, before.Leases)
	require.True(t, leases.Keep(testIP, testMAC, lease.StateReleased, now))
	assert.False(t, s.changed(testIP, now))
	after := s.Inputs()
	assert.Equal(t, before.BoundDirect, after.BoundDirect)
	assert.Equal(t, before.Leases, after.Leases)
	assert.True(t, s.changed(testIP, now.Add(time.Hour)), "it ends as others do")

	require.True(t, leases.SetState(testIP, testMAC, lease.StateReleased, now))
	assert.True(t, s.changed(testIP, now), "the client's own RELEASE ends it")
	assert.Empty(t, s.Inputs().BoundDirect)
}

// A reload changes what is guarded, and whose leases matter.
func TestSourcesAreReconfigured(t *testing.T) {
	s, leases := testSources(SourceOptions{GuardDirect: provision.Patterns{"eth1"}})
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	assert.Len(t, s.Inputs().BoundDirect, 1)
	s.Reconfigure(SourceOptions{GuardVLAN: provision.Patterns{"eth2.*", "eth1"}, VLANOf: func(name string) (uint16, bool) {
		return 100, strings.HasSuffix(name, ".100")
	}})
	in := s.Inputs()
	assert.Empty(t, in.GuardDirect)
	assert.Equal(t, []string{"eth1", "eth2.100"}, in.GuardVLAN)
	assert.Equal(t, []VLANBinding{{Interface: "eth1", IP: testIP}}, in.BoundVLAN)
	assert.Equal(t, "eth2.100", in.InterfaceOf(&provision.Line{VLAN: 100}))
	s.Reconfigure(SourceOptions{Exempt: []provision.SubscriberID{3}})
	assert.Equal(t, Inputs{Exempt: []provision.SubscriberID{3}}, s.Inputs())
}
