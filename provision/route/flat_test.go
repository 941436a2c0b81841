package route

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A commit waits for the kernel only where a route of its own leases changes.
func TestCommitWithoutAnotherRouteWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRouteWorld()
		w.start(t)
		w.ack(17, "c1", time.Hour)
		w.ack(18, "c7", time.Hour) // it is not there yet
		w.release(19)
		w.kernel.set(Link{Index: 3, Name: "c3"}, true) // it is down
		w.ack(20, "c3", time.Hour)
		w.ack(21, "x9", time.Hour) // not ours
		synctest.Wait()
		w.kernel.setDelay(time.Minute)
		w.keeper.Touch(w.leases.put(16, "c1", time.Now().Add(time.Hour)), time.Now()) // this round goes on for a minute
		synctest.Wait()
		for last, iface := range map[byte]string{17: "c1", 18: "c7", 20: "c3", 21: "x9", 22: "x9"} {
			begin := time.Now()
			w.keeper.Admit([]netip.Addr{w.leases.put(last, iface, begin.Add(2*time.Hour))}, begin)()
			require.Zero(t, time.Since(begin), "the address %d", last)
		}
		begin := time.Now()
		w.release(17)
		w.keeper.Admit([]netip.Addr{w.leases.put(17, "c1", begin.Add(2*time.Hour))}, begin)()
		require.Zero(t, time.Since(begin), "it is as it was")
		w.keeper.Admit([]netip.Addr{w.leases.put(17, "c2", begin.Add(2*time.Hour))}, begin)()
		require.Equal(t, admitLimit, time.Since(begin), "it moved")
		time.Sleep(3 * time.Minute)
		w.want(t, "16>1 17>2")
		time.Sleep(time.Hour) // what was renewed meanwhile
		w.want(t, "17>2")
	})
}

// What a round has taken away and the lease wants again is waited for, whenever that is.
func TestRouteThatIsBeingRemovedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRouteWorld()
		w.start(t)
		w.ack(17, "c1", time.Hour)
		w.kernel.setDelay(10 * time.Millisecond)
		w.keeper.Touch(w.leases.put(17, "c1", time.Time{}), time.Now())
		synctest.Wait() // the removal is on its way
		begin := time.Now()
		w.keeper.Admit([]netip.Addr{w.leases.put(17, "c1", begin.Add(time.Hour))}, begin)()
		require.Equal(t, 20*time.Millisecond, time.Since(begin))
		require.Equal(t, "17>1", w.kernel.String())
	})
}

// Every kind of change comes through the feed of the table.
func TestRoutesFollowTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := lease.New()
		w := newRouteWorld()
		k := New(w.opts, w.kernel, table, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- k.Run(ctx) }()
		feed := table.Touched() // before the first lease
		go func() { done <- k.Follow(ctx, feed) }()
		mac := provision.MAC{2, 0, 0, 0, 0, 1}
		put := func(last byte) netip.Addr {
			rec := record(route(last, 0).Addr, "c1", time.Now().Add(time.Hour))
			rec.MAC = mac
			table.Store(rec)
			return rec.IP
		}
		heard := func() { // they are gathered for a moment
			time.Sleep(5 * time.Millisecond)
			synctest.Wait()
		}
		for last := byte(1); last <= 4; last++ {
			put(last)
		}
		heard()
		w.want(t, "1>1 2>1 3>1 4>1")
		require.True(t, table.End(put(1), mac, time.Now()))
		heard()
		w.want(t, "2>1 3>1 4>1")
		require.True(t, table.Drop(put(2), mac, time.Now()))
		heard()
		w.want(t, "3>1 4>1")
		table.SetState(put(3), mac, lease.StateReleased, time.Now())
		heard()
		w.want(t, "4>1")
		require.True(t, table.Renew(put(4), mac, time.Now(), time.Now().Add(2*time.Hour)))
		time.Sleep(2*time.Hour - time.Second)
		w.want(t, "4>1")
		time.Sleep(time.Second)
		w.want(t, "")
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
}

// The settings of interfaces that stay are not read again and again because others go, and are
// looked at soon after all the same.
func TestSettingsAreReadOnceForAnInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300
		w := newRouteWorld()
		w.kernel.links = map[int]Link{}
		for i := 1; i <= n; i++ {
			w.kernel.links[i] = Link{Index: i, Name: fmt.Sprintf("c%d", i), Up: true}
		}
		var reads atomic.Int64
		var noProxy atomic.Bool
		w.opts.Settings = func(l Link) (LinkSettings, error) {
			reads.Add(1)
			s := LinkSettings{Interface: l.Name, Forwarding: true, ProxyARP: true}
			if noProxy.Load() {
				s.ProxyARP = false
			}
			return s, nil
		}
		w.start(t)
		require.EqualValues(t, n, reads.Load())
		time.Sleep(2 * time.Second)
		for i := 2; i <= n; i++ { // one by one, in less than a second
			w.kernel.set(Link{Index: i, Name: fmt.Sprintf("c%d", i), Gone: true}, true)
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, reads.Load(), int64(3*n), "links were removed")
		w.kernel.set(Link{Index: 1000, Name: "c1000", Up: true}, true)
		synctest.Wait()
		require.Empty(t, w.keeper.Status().Findings)
		noProxy.Store(true) // no event tells of it
		w.kernel.set(Link{Index: 1001, Name: "c1001", Up: true}, true)
		synctest.Wait()
		require.Equal(t, "c1001", w.keeper.Status().Findings[0].Interface, "what has come is looked at now")
		time.Sleep(2 * time.Second)
		require.Len(t, w.keeper.Status().Findings, 3, "and the others soon")
		w.kernel.set(Link{Index: 1001, Name: "c1001"}, true)
		synctest.Wait()
		require.Len(t, w.keeper.Status().Findings, 2)
	})
}

// benchKeeper has n live leases with their routes, on 1,000 interfaces.
func benchKeeper(tb testing.TB, n int) (*Keeper, *lease.Table) {
	tb.Helper()
	kernel, table := newFakeRoutes(), lease.New()
	for i := range 1000 {
		kernel.links[i+1] = Link{Index: i + 1, Name: fmt.Sprintf("c%d", i+1), Up: true}
	}
	at := time.Now()
	for i := range n {
		table.Store(benchRecord(i, 1+i%1000, at.Add(time.Hour)))
	}
	k := New(newRouteWorld().opts, kernel, table, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		require.NoError(tb, <-done)
	})
	require.Eventually(tb, func() bool { return k.Status().Installed == n }, 5*time.Minute, time.Millisecond)
	return k, table
}

func benchRecord(i, link int, expires time.Time) lease.Record {
	r := record(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprintf("c%d", link), expires)
	r.MAC = provision.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
	return r
}

func TestAdmitWithoutAnotherRouteAllocatesNothing(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	k, table := benchKeeper(t, 1000)
	addrs := make([]netip.Addr, 0, 100)
	for i := range 100 {
		addrs = append(addrs, benchRecord(i, 1, time.Time{}).IP)
	}
	now := time.Now()
	for i := range 100 {
		table.Store(benchRecord(i, 1+i%1000, now.Add(2*time.Hour)))
	}
	// What the keeper does by itself meanwhile is counted too: the least of some runs is the calls' own.
	least := func(f func()) (n float64) {
		n = testing.AllocsPerRun(100, f)
		for range 9 {
			n = min(n, testing.AllocsPerRun(100, f))
		}
		return n
	}
	require.Zero(t, least(func() { k.Admit(addrs, now)() }))
	require.Zero(t, least(func() { k.Touch(addrs[0], now) }))
}

// cpu is the processor time of this process so far: what is taken while others run on the machine too.
func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	require.NoError(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkAdmit(b *testing.B) {
	for _, n := range []int{1000, 40_000, 1_000_000} {
		for _, change := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/change=%v", n, change), func(b *testing.B) {
				k, table := benchKeeper(b, n)
				addr := make([]netip.Addr, 1)
				b.ReportAllocs()
				begin := cpu(b)
				for i := 0; b.Loop(); i++ {
					at, now := i%n, time.Now()
					link := 1 + at%1000
					if change && i/n%2 == 0 {
						link = 1 + (at+1)%1000
					}
					rec := benchRecord(at, link, now.Add(time.Hour+time.Second))
					table.Store(rec)
					addr[0] = rec.IP
					k.Admit(addr, now)()
				}
				b.ReportMetric(float64(cpu(b)-begin)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}
