package main

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/vlanname"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/lease"
)

func TestGuardedNames(t *testing.T) {
	exist := []string{"lo", "eth0", "eth1.100", "eth1.101"}
	assert.Equal(t, []string{"eth1.100", "eth1.101"}, guardedNames([]string{"eth1.*", "eth1.100"}, exist))
	assert.Equal(t, []string{"eth7"}, guardedNames([]string{"eth7", "ppp*"}, exist), "a plain name before it exists, a pattern not")
	assert.Empty(t, guardedNames(nil, exist))
}

func TestVLANInterfaces(t *testing.T) {
	template, err := vlanname.Compile("eth1.{svlan}.{vlan}")
	require.NoError(t, err)
	got := vlanInterfaces([]vlanname.Template{template}, []string{"eth1.7.100", "eth1.7.101", "eth1.8.101", "eth2"})
	assert.Equal(t, map[uint16]string{100: "eth1.7.100"}, got, "101 is in two outer VLANs: nobody can tell")
}

func testSources(t *testing.T) (*aclSources, *lease.Table) {
	t.Helper()
	store, err := lease.OpenStore(t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	leases, err := lease.Open(store)
	require.NoError(t, err)
	s := newACLSources(leases)
	s.names = func() []string { return []string{"eth1", "eth2.100"} }
	return s, leases
}

func TestInputsOfLeases(t *testing.T) {
	s, leases := testSources(t)
	now := time.Now()
	ip := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	store := func(n byte, change func(*lease.Record)) {
		rec := lease.Record{IP: ip(n), MAC: testMAC, Subscriber: 7, Interface: "eth1", State: lease.StateBound, Expires: now.Add(time.Hour)}
		change(&rec)
		leases.Store(rec)
	}
	store(1, func(*lease.Record) {})
	store(2, func(r *lease.Record) { r.Interface = "eth2.100" })
	store(3, func(r *lease.Record) { r.GIAddr = ip(254) })            // behind a relay
	store(4, func(r *lease.Record) { r.Expires = now })               // over
	store(5, func(r *lease.Record) { r.State = lease.StateReleased }) // given back
	store(6, func(r *lease.Record) { r.Pool, r.Interface = "more", "eth9" })
	store(7, func(r *lease.Record) { r.Pool, r.Subscriber = "guests", 0 })

	cfg := &config.Config{}
	cfg.ACL.Exempt = config.ACLExempt{Customers: []provision.SubscriberID{9}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/32")}}
	cfg.ACL.SourceGuard = config.ACLSourceGuard{Direct: []string{"eth1"}, VLAN: []string{"eth2.*"}}
	in := s.use(cfg)()
	assert.Equal(t, []provision.SubscriberID{9}, in.Exempt)
	assert.Equal(t, cfg.ACL.Exempt.Addresses, in.ExemptAddrs)
	assert.Equal(t, []string{"eth1"}, in.GuardDirect)
	assert.Equal(t, []string{"eth2.100"}, in.GuardVLAN)
	assert.ElementsMatch(t, []access.DirectBinding{{IP: ip(1), MAC: testMAC}, {IP: ip(7), MAC: testMAC}}, in.BoundDirect)
	assert.ElementsMatch(t, []access.VLANBinding{{Interface: "eth2.100", IP: ip(2)}, {Interface: "eth9", IP: ip(6)}}, in.BoundVLAN)
	assert.Equal(t, []access.SubscriberAddr{{Subscriber: 7, IP: ip(6)}}, in.Leases)

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
	event := dhcpd.Event{YourIP: ip(3), Time: now}
	assert.Zero(t, testing.AllocsPerRun(100, func() { s.Packet(&event) }), "a renewal allocates nothing")
}

func TestLeasesAreNotReadWhereTheyDoNotMatter(t *testing.T) {
	s, leases := testSources(t)
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)})
	in := s.use(&config.Config{})()
	assert.Empty(t, in.BoundDirect)
	assert.Nil(t, s.used.Load())
	assert.False(t, s.changed(testIP, time.Now()))
	s.admit([]lease.Commit{{Lease: lease.Record{IP: testIP}}}, time.Now())()
}

// slowKernel remembers what was applied, and takes its time for it.
type slowKernel struct {
	*acl.DryRun
	takes time.Duration
}

func (k slowKernel) Apply(ctx context.Context, changes []access.Change) error {
	select {
	case <-time.After(k.takes):
		return k.DryRun.Apply(ctx, changes)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The journal returns, and so the acknowledgement leaves, when the kernel lets
// the client in; a kernel that hangs holds it no longer than the limit.
func TestAcknowledgementWaitsForTheGuard(t *testing.T) {
	snap, _ := provision.Build(provision.Input{FetchedAt: time.Now()})
	for _, c := range []struct {
		name     string
		takes    time.Duration
		admitted bool
	}{{"kernel works", 5 * time.Millisecond, true}, {"kernel hangs", 5 * time.Second, false}} {
		t.Run(c.name, func(t *testing.T) {
			s, leases := testSources(t)
			cfg := &config.Config{}
			cfg.ACL.SourceGuard.Direct = []string{"eth1"}
			kernel := slowKernel{acl.NewDryRun(nil), c.takes}
			e := access.NewEnforcer(access.Options{Inputs: s.use(cfg)}, kernel, nil, func() *provision.Snapshot { return snap }, nil, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-done) }()
			if c.admitted {
				require.NoError(t, e.Sync(ctx))
			} else { // the first round is still on
				require.Eventually(t, func() bool { return s.used.Load() != nil }, 5*time.Second, time.Millisecond)
			}
			s.enforcer.Store(e)

			rec := lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)}
			leases.Store(rec)
			began := time.Now()
			require.NoError(t, admitting{lease.Journal{Table: leases}, s}.Commit([]lease.Commit{{Lease: rec}}))
			took := time.Since(began)
			have, err := kernel.Observe(t.Context())
			require.NoError(t, err)
			bound := have.Strings(access.SetBoundDirect)
			assert.Equal(t, c.admitted, len(bound) == 1, "%v after %v", bound, took)
			assert.Less(t, took, 2*time.Second)
		})
	}
}
