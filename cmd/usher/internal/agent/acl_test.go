package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/lease"
)

func TestSourcesOfTheConfiguration(t *testing.T) {
	cfg := &config.Config{}
	cfg.ACL.Exempt = config.ACLExempt{Customers: []provision.SubscriberID{9}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/32")}}
	cfg.ACL.SourceGuard = config.ACLSourceGuard{Direct: []string{"eth1"}, VLAN: []string{"eth1.*", "eth2"}}
	cfg.DHCP.VLANInterfaces = []string{"eth1.{svlan}.{vlan}"}
	exist := []string{"eth1.7.100", "eth1.7.101", "eth1.8.101", "eth2"}
	in := access.NewSources(sourceOptions(cfg), lease.New(), nil, func() []string { return exist }).Inputs()
	assert.Equal(t, []provision.SubscriberID{9}, in.Exempt)
	assert.Equal(t, cfg.ACL.Exempt.Addresses, in.ExemptAddrs)
	assert.Equal(t, []string{"eth1"}, in.GuardDirect)
	assert.Equal(t, exist, in.GuardVLAN)
	at := map[uint16]string{}
	for vlan := range uint16(200) {
		if name := in.InterfaceOf(&provision.Line{VLAN: vlan}); name != "" {
			at[vlan] = name
		}
	}
	assert.Equal(t, map[uint16]string{100: "eth1.7.100"}, at, "101 is in two outer VLANs: nobody can tell")
}

// What a commit costs whose leases give their clients what they had.
func TestCommitOfTheSameRightsAllocatesNothing(t *testing.T) {
	leases := lease.New()
	now := time.Now()
	snap, _ := provision.Build(provision.Input{FetchedAt: now})
	leases.Store(lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", GIAddr: testIP.Next(), State: lease.StateBound, Expires: now.Add(time.Hour)})
	cfg := &config.Config{}
	cfg.ACL.SourceGuard.Direct = []string{"eth1"}
	s := access.NewSources(sourceOptions(cfg), leases, nil, func() []string { return nil })
	e := access.NewEnforcer(access.Options{Inputs: s.Inputs}, acl.NewDryRun(nil), nil, func() *provision.Snapshot { return snap }, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-done) }()
	require.NoError(t, e.Sync(ctx))
	follower, addrs := access.Follow(s, e), []netip.Addr{testIP}
	assert.Zero(t, testing.AllocsPerRun(100, func() { follower.Admit(addrs)() }))
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
			store, err := lease.OpenStore(t.TempDir(), slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer store.Close()
			leases, err := lease.Open(store)
			require.NoError(t, err)
			cfg := &config.Config{}
			cfg.ACL.SourceGuard.Direct = []string{"eth1"}
			kernel := slowKernel{acl.NewDryRun(nil), c.takes}
			s := access.NewSources(sourceOptions(cfg), leases, nil, func() []string { return []string{"eth1"} })
			var once sync.Once
			asked := make(chan struct{}) // the first round has its inputs
			inputs := func() access.Inputs {
				in := s.Inputs()
				once.Do(func() { close(asked) })
				return in
			}
			e := access.NewEnforcer(access.Options{Inputs: inputs}, kernel, nil, func() *provision.Snapshot { return snap }, nil, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-done) }()
			if c.admitted {
				require.NoError(t, e.Sync(ctx))
			} else { // the first round is still on
				<-asked
			}
			a := &Agent{follower: access.Follow(s, e)}

			rec := lease.Record{IP: testIP, MAC: testMAC, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)}
			leases.Store(rec)
			began := time.Now()
			require.NoError(t, admitting{lease.Journal{Table: leases}, a}.Commit([]lease.Commit{{Lease: rec}}))
			took := time.Since(began)
			have, err := kernel.Observe(t.Context())
			require.NoError(t, err)
			bound := have.Strings(access.SetBoundDirect)
			assert.Equal(t, c.admitted, len(bound) == 1, "%v after %v", bound, took)
			assert.Less(t, took, 2*time.Second)
		})
	}
}
