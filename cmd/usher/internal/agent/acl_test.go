package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
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

// Whom no state blocks, besides gardens: the router, the ERP, gateways, name servers.
func TestSparedOfTheConfiguration(t *testing.T) {
	ip := netip.MustParseAddr
	cfg := &config.Config{}
	cfg.ERP.Client.URL = "https://192.0.2.80/api.php"
	cfg.DHCP.ServerID = ip("192.0.2.66")
	subnet := v4.Subnet{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Gateway: ip("198.51.100.1"), ServerID: ip("192.0.2.65")}
	subnet.DNS = []netip.Addr{ip("192.0.2.53")}
	cfg.DHCP.Subnets = []v4.Subnet{subnet}
	cfg.ACL.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	cfg.ACL.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:53")}
	cfg.ACL.DHCPServers = []netip.Prefix{netip.MustParsePrefix("192.0.2.67/32")}
	a := &Agent{}
	found := a.erpFoundAt(cfg)
	found(netip.MustParseAddr("192.0.2.81"))
	found(netip.MustParseAddr("198.51.100.7")) // where customers live
	in := access.NewSources(a.sourceOptions(cfg), lease.New(), nil, func() []string { return nil }).Inputs()
	assert.Subset(t, in.Own, []netip.Addr{ip("192.0.2.65"), ip("192.0.2.66"), ip("127.0.0.1")})
	assert.Equal(t, []netip.Addr{ip("192.0.2.80"), ip("192.0.2.81")}, in.ERP)
	assert.Equal(t, []netip.Addr{ip("198.51.100.1")}, in.Gateways)
	assert.Equal(t, []netip.Addr{ip("192.0.2.54")}, in.NameServers)
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, in.Homes)
	assert.Equal(t, cfg.ACL.Networks, in.Networks)
	assert.Equal(t, cfg.ACL.DHCPServers, in.DHCPServers)
	assert.Contains(t, in.Resolvers, netip.MustParsePrefix("192.0.2.53/32"))
	for i := range 100 {
		found(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	assert.Len(t, a.erpSeen.sorted(""), maxERP)
	assert.Equal(t, []netip.Addr{ip("198.51.100.8")}, (&erpAddresses{}).sorted("https://198.51.100.8/api.php"), "the URL itself may say so")
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
			store, err := lease.OpenStore(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
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

// countedTable is the kernel's table, with a count of what it was asked for.
type countedTable struct {
	*acl.Table
	calls atomic.Int64
}

func (k *countedTable) Observe(ctx context.Context) (access.ACL, error) {
	k.calls.Add(1)
	return k.Table.Observe(ctx)
}

func (k *countedTable) Apply(ctx context.Context, changes []access.Change) error {
	k.calls.Add(1)
	return k.Table.Apply(ctx, changes)
}

func (k *countedTable) Changed(ctx context.Context) (bool, error) {
	k.calls.Add(1)
	return k.Table.Changed(ctx)
}

// With nftables: when the commit of a lease returns, and so before the ACK leaves, its
// element stands in the kernel, by one commit there and without a round. One that changes
// nothing sends nothing to netlink.
func TestKernelCommitSendsItsOwnElement(t *testing.T) {
	labtest.Need(t, "nft")
	l, err := lab.New("admit", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	router, err := l.Host("router")
	require.NoError(t, err)
	ns, err := os.Open(filepath.Join("/run/netns", router.Namespace))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	cfg := &config.Config{}
	cfg.ACL.SourceGuard.Direct = []string{"eth1"}
	table, err := acl.Open(t.Context(), acl.Options{NetNS: int(ns.Fd()), Policy: ACLPolicy(cfg)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, table.Close()) })
	kernel := &countedTable{Table: table}

	store, err := lease.OpenStore(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	leases, err := lease.Open(store)
	require.NoError(t, err)
	snap, _ := provision.Build(provision.Input{FetchedAt: time.Now()})
	s := access.NewSources(sourceOptions(cfg), leases, nil, func() []string { return []string{"eth1"} })
	e := access.NewEnforcer(access.Options{Inputs: s.Inputs, VerifyInterval: time.Hour}, kernel, nil, func() *provision.Snapshot { return snap }, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	require.NoError(t, e.Sync(ctx))
	a := &Agent{follower: access.Follow(s, e)}
	journal := admitting{lease.Journal{Table: leases}, a}
	commit := func(mac provision.MAC) {
		t.Helper()
		rec := lease.Record{IP: testIP, MAC: mac, Interface: "eth1", State: lease.StateBound, Expires: time.Now().Add(time.Hour)}
		leases.Store(rec)
		require.NoError(t, journal.Commit([]lease.Commit{{Lease: rec}}))
	}
	// The enforcer looks by itself every five seconds, and makes a round when it hears of what was written before it listened: a count
	// that one of these fell into is taken again.
	counted := func(mac provision.MAC) (calls, commits, rounds uint64) {
		t.Helper()
		before, gen, round, began := kernel.calls.Load(), table.Generation(), e.Status().Rounds, time.Now()
		commit(mac)
		calls, commits, rounds = uint64(kernel.calls.Load()-before), table.Generation()-gen, e.Status().Rounds-round
		t.Logf("the commit took %s", time.Since(began))
		return calls, commits, rounds
	}
	var calls, commits, rounds uint64
	for i := range byte(3) {
		mac := testMAC
		mac[5] += i
		calls, commits, rounds = counted(mac)
		out, err := router.Output(t.Context(), "nft", "list", "set", "inet", "usher", "bound_direct")
		require.NoError(t, err)
		require.Contains(t, out, "192.0.2.17 . "+mac.String(), "when the commit returns")
		if i > 0 {
			before := testMAC
			before[5] += i - 1
			require.NotContains(t, out, before.String(), "in the same batch")
		}
		require.EqualValues(t, 1, commits)
		if calls == 1 && rounds == 0 {
			break
		}
	}
	require.EqualValues(t, 1, calls, "one batch and nothing else")
	require.Zero(t, rounds, "no round")

	rec, _ := leases.Get(testIP)
	for range 3 {
		if calls, commits, rounds = counted(rec.MAC); calls+rounds == 0 {
			break
		}
	}
	require.Zero(t, calls, "nothing is asked")
	require.Zero(t, rounds, "no round")
	require.Zero(t, commits)
}

// Forwarding is looked for at each interface: a thousand of them that go one by one do not have all looked at a thousand times.
func TestForwardingIsLookedAtOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, forwards := 0, false
		f := lately(time.Second, func() bool { asked++; return forwards })
		for range 1000 {
			require.False(t, f())
		}
		require.Equal(t, 1, asked)
		forwards = true
		time.Sleep(time.Second)
		require.True(t, f())
		require.Equal(t, 2, asked)
	})
}
