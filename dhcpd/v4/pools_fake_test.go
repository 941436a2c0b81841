package v4

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/pool"
)

// testPools are pools as they stand at testNow: filled once, for one goroutine.
type testPools struct{ all []*pool.Pool }

// fill makes the pools of cfg with what the lease table and the ERP say of their addresses.
func fill(t testing.TB, cfg *Config, snap *provision.Snapshot, tab *lease.Table) *testPools {
	t.Helper()
	made := &testPools{}
	for i, p := range cfg.Pools() {
		prefix, gateway := cfg.PoolNetwork(i)
		first := prefix.Addr().As4()
		last := binary.BigEndian.Uint32(first[:]) | ^uint32(0)>>prefix.Bits()
		reserved := []netip.Addr{prefix.Addr(), netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, last)))}
		if gateway.IsValid() {
			reserved = append(reserved, gateway)
		}
		one, err := pool.New(p.First, p.Last, reserved...)
		require.NoError(t, err)
		restore := func(rec *lease.Record) {
			switch {
			case rec.Live(testNow):
				one.Restore(rec.IP, rec.Holder(), pool.StateLeased, rec.Expires)
				one.SetPlace(rec.IP, PortOfLease(rec))
			case rec.State == lease.StateQuarantined && testNow.Before(rec.Expires):
				one.Restore(rec.IP, provision.Owner{}, pool.StateQuarantined, rec.Expires)
			case rec.Pool != "" && rec.State != lease.StateQuarantined:
				one.Restore(rec.IP, rec.Holder(), pool.StateFree, time.Time{})
			}
		}
		for rec := range tab.InRange(p.First, p.Last) {
			restore(&rec)
		}
		one.SetBound(snap.BoundIn(p.First, p.Last), func(a netip.Addr) {
			if rec, ok := tab.Get(a); ok && rec.Live(testNow) {
				restore(&rec)
			}
		})
		made.all = append(made.all, one)
	}
	return made
}

func (p *testPools) Pick(i int, who provision.Owner, want netip.Addr, now time.Time) (netip.Addr, pool.Fit) {
	return p.all[i].Pick(who, want, now)
}

func (p *testPools) Slot(i int, a netip.Addr, now time.Time) pool.Slot { return p.all[i].Get(a, now) }

func (p *testPools) Held(i int, port uint64) int { return p.all[i].At(port) }

func (p *testPools) Quarantined(i int, now time.Time) float64 {
	c := p.all[i].Counts(now)
	return float64(c.Quarantined) / float64(max(c.Size, 1))
}

func (p *testPools) Owned(i int, who provision.Owner) (netip.Addr, bool) { return p.all[i].Of(who) }
