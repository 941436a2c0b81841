package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/wal"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func ip(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

func mac(i int) provision.MAC { return provision.MAC{0, 0, 0x5e, 0, 0x53, byte(i)} }

func report(i, m int, at time.Time) provision.MACReport {
	return provision.MACReport{IP: ip(i), MAC: mac(m), Subscriber: provision.SubscriberID(1000 + i), At: at}
}

func openStore(t testing.TB, dir string) lease.Store {
	t.Helper()
	store, err := lease.OpenStore(t.Context(), dir, quiet())
	require.NoError(t, err)
	require.False(t, store.Failing())
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

func openMemory(t testing.TB) lease.Store {
	t.Helper()
	store := lease.OpenMemory()
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// kept reads a store as a restart would.
func kept(t testing.TB, store lease.Store) (all []provision.MACReport, bad int) {
	t.Helper()
	require.NoError(t, store.Reports(func(r provision.MACReport, err error) {
		if err != nil {
			bad++
			return
		}
		all = append(all, r)
	}))
	return all, bad
}

// fakeERP answers with a function and remembers the calls.
type fakeERP struct {
	mu     sync.Mutex
	answer func(ip netip.Addr, mac provision.MAC) error
	takes  time.Duration
	calls  []string
}

func (f *fakeERP) SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error {
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprintf("%s %s", ip, mac))
	answer, takes := f.answer, f.takes
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(takes):
	}
	if answer == nil {
		return nil
	}
	return answer(ip, mac)
}

func (f *fakeERP) set(takes time.Duration, answer func(netip.Addr, provision.MAC) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes, f.answer = takes, answer
}

func (f *fakeERP) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}

func down(netip.Addr, provision.MAC) error { return errors.New("connection refused") }

func refuse(netip.Addr, provision.MAC) error {
	return fmt.Errorf("set_mac_by_ip: no such address: %w", provision.ErrRefused)
}

// tally is an Observer that adds up.
type tally struct {
	mu      sync.Mutex
	results map[Result]int
	depth   int
}

func (c *tally) Delivered(r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.results == nil {
		c.results = map[Result]int{}
	}
	c.results[r]++
}

func (c *tally) Depth(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.depth = n
}

type outboxTest struct {
	*Outbox
	erp  *fakeERP
	seen *tally
	stop func()
}

var fast = Options{Enabled: true, Rate: 1000, Burst: 1000}

// start opens an outbox within a bubble and delivers until the end of the test.
func start(t *testing.T, opts Options) *outboxTest {
	t.Helper()
	o := &outboxTest{erp: &fakeERP{}, seen: &tally{}}
	var err error
	o.Outbox, err = Open(openStore(t, t.TempDir()), opts, o.erp, o.seen, quiet())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- o.Run(ctx); close(done) }()
	o.stop = func() {
		cancel()
		if err, running := <-done; running {
			assert.NoError(t, err)
		}
	}
	t.Cleanup(o.stop)
	return o
}

// kept reads the store as a restart would.
func (o *outboxTest) kept(t *testing.T) []provision.MACReport {
	t.Helper()
	all, bad := kept(t, o.store)
	require.Zero(t, bad)
	return all
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		require.NoError(t, o.Put(report(2, 2, time.Now())))
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:01", "100.64.0.2 00:00:5e:00:53:02"}, o.erp.take())
		assert.Empty(t, o.kept(t))
		assert.Equal(t, map[Result]int{ResultSent: 2}, o.seen.results)
		assert.Zero(t, o.seen.depth)
		st := o.Status(10)
		assert.EqualValues(t, 2, st.Sent)
		assert.Zero(t, st.Depth)
	})
}

func TestNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := fast
		opts.Enabled = false
		o := start(t, opts)
		now := time.Now()
		require.NoError(t, o.Put(report(1, 1, now)))
		require.NoError(t, o.Put(report(1, 2, now.Add(time.Second))))
		require.NoError(t, o.Put(report(1, 3, now.Add(-time.Second))))
		v6 := report(1, 4, now.Add(-time.Second))
		v6.IP = netip.AddrFrom16(v6.IP.As16())
		require.NoError(t, o.Put(v6), "the same address in its other form")
		require.Len(t, o.kept(t), 1)
		assert.Equal(t, mac(2), o.kept(t)[0].MAC)
		assert.Equal(t, 1, o.Status(0).Depth)
		pass(time.Hour)
		assert.Empty(t, o.erp.take(), "switched off: kept, not sent")
		assert.False(t, o.Status(0).Enabled)
		o.Reconfigure(1, 1, true)
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take())

		// A report from a clock that ran ahead does not win for ever.
		o.Reconfigure(1, 1, false)
		require.NoError(t, o.Put(report(2, 1, time.Now().Add(24*time.Hour))))
		require.NoError(t, o.Put(report(2, 2, time.Now())))
		assert.Equal(t, mac(2), o.kept(t)[0].MAC)
		assert.Equal(t, mac(2), o.Status(1).Entries[0].MAC)
	})
}

func TestBadReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		require.Error(t, o.Put(provision.MACReport{MAC: mac(1), At: time.Now()}))
		require.Error(t, o.Put(provision.MACReport{IP: ip(1), At: time.Now()}))
		assert.Empty(t, o.kept(t))
		assert.Zero(t, o.Status(0).Depth)
	})
}

func TestAbandonedBatchSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		broken := errors.New("lease could not be stored")
		err := o.store.Commit(func(b *lease.Batch) error {
			if err := o.Add(b, report(1, 1, time.Now())); err != nil {
				return err
			}
			return broken
		})
		require.ErrorIs(t, err, broken)
		pass(time.Minute)
		assert.Empty(t, o.erp.take())
		assert.Zero(t, o.Status(0).Depth)
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, Options{Enabled: true, Rate: 2, Burst: 3})
		for i := range 23 {
			require.NoError(t, o.Put(report(i, i, time.Now())))
		}
		pass(10*time.Second + time.Millisecond)
		assert.Len(t, o.erp.take(), 23, "three at once, then two a second")
		for i := range 100 {
			require.NoError(t, o.Put(report(i, i+1, time.Now())))
		}
		pass(10 * time.Second)
		assert.LessOrEqual(t, len(o.erp.take()), 24)
		o.Reconfigure(100, 1, true)
		pass(2 * time.Second)
		assert.Zero(t, o.Status(0).Depth)
	})
}

func TestRefusalDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		o.erp.set(0, refuse)
		for i := range 105 {
			require.NoError(t, o.Put(report(i, i, time.Now())))
		}
		pass(time.Minute)
		assert.Len(t, o.erp.take(), 105, "each is tried once")
		assert.Empty(t, o.kept(t))
		st := o.Status(10)
		assert.EqualValues(t, 105, st.Refused)
		assert.Zero(t, st.Depth)
		require.Len(t, st.RefusedList, maxRefusals)
		assert.Equal(t, ip(104), st.RefusedList[0].IP, "newest first")
		assert.Equal(t, "set_mac_by_ip: no such address: refused by the ERP", st.RefusedList[0].Reason)
		assert.Equal(t, map[Result]int{ResultRefused: 105}, o.seen.results)
	})
}

func TestFailureIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		pass(24 * time.Hour)
		n := len(o.erp.take())
		assert.Greater(t, n, 24, "never given up")
		assert.Less(t, n, 50, "ever more seldom, once an hour at last")
		st := o.Status(10)
		require.Len(t, st.Entries, 1)
		assert.Equal(t, "connection refused", st.Entries[0].LastError)
		assert.Equal(t, n, st.Entries[0].Attempts)
		assert.Equal(t, "connection refused", st.LastError)
		assert.Len(t, o.kept(t), 1)
		o.erp.set(0, nil)
		pass(90 * time.Minute)
		assert.Empty(t, o.kept(t))
	})
}

func TestOutageIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		o.erp.set(0, down)
		for i := range 500 {
			require.NoError(t, o.Put(report(i, i, time.Now())))
		}
		pass(time.Hour)
		assert.Less(t, len(o.erp.take()), 90, "about one call a minute, whatever the number of reports")
		assert.False(t, o.Status(0).PausedUntil.IsZero())
		o.erp.set(0, nil)
		pass(75 * time.Second)
		assert.Greater(t, len(o.erp.take()), 400, "all that never failed go as soon as the ERP is back")
		pass(time.Hour)
		assert.Empty(t, o.kept(t))
		assert.True(t, o.Status(0).PausedUntil.IsZero())
	})
}

// Whoever wants to know hears of the first failure of a report and of its end.
func TestTellsOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string // by Run alone
		opts := fast
		opts.Told = func(r provision.MACReport, attempts int, err error) {
			told = append(told, fmt.Sprintf("%d: %d, %v", r.Subscriber, attempts, err))
		}
		o := start(t, opts)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		pass(30 * time.Second)
		failures := len(o.erp.take())
		assert.Greater(t, failures, 1)
		o.erp.set(0, nil)
		pass(time.Hour)
		o.erp.set(0, refuse)
		require.NoError(t, o.Put(report(2, 1, time.Now())))
		synctest.Wait()
		assert.Equal(t, []string{"1001: 1, connection refused", fmt.Sprintf("1001: %d, <nil>", failures+1),
			"1002: 1, set_mac_by_ip: no such address: refused by the ERP"}, told)
	})
}

// One report that always fails does not stop the others.
func TestPoisonousReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		o.erp.set(0, func(a netip.Addr, _ provision.MAC) error {
			if a == ip(3) {
				return errors.New("500 internal server error")
			}
			return nil
		})
		for i := range 50 {
			require.NoError(t, o.Put(report(i, i, time.Now())))
		}
		pass(10 * time.Second)
		assert.Equal(t, 1, o.Status(0).Depth)
		assert.EqualValues(t, 49, o.Status(0).Sent)
	})
}

// What waits for its turn under the rate may be replaced or switched off.
func TestReplacedBeforeItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, Options{Enabled: true, Rate: 0.1, Burst: 1})
		require.NoError(t, o.Put(report(9, 9, time.Now())))
		pass(time.Second)
		o.erp.take()
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		pass(time.Second)
		require.NoError(t, o.Put(report(1, 2, time.Now())))
		pass(time.Minute)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take())

		require.NoError(t, o.Put(report(1, 3, time.Now())))
		require.NoError(t, o.Put(report(2, 3, time.Now())))
		pass(time.Second)
		o.erp.take()
		o.Reconfigure(0.1, 1, false)
		pass(time.Minute)
		assert.Empty(t, o.erp.take())
		assert.Len(t, o.kept(t), 1)
	})
}

// After an outage the next failure is a first one again.
func TestOutageIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, fast)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		pass(6 * time.Hour)
		o.erp.set(0, nil)
		pass(2 * time.Hour)
		require.Empty(t, o.kept(t))
		require.NoError(t, o.Put(report(2, 2, time.Now())))
		pass(time.Second)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(3, 3, time.Now())))
		pass(time.Millisecond)
		assert.Less(t, time.Until(o.Status(0).PausedUntil), 2*time.Second)
	})
}

func TestHungCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := fast
		opts.SendTimeout = 5 * time.Second
		o := start(t, opts)
		o.erp.set(time.Hour, nil)
		require.NoError(t, o.Put(report(1, 1, time.Now())))
		pass(6 * time.Second)
		assert.Equal(t, context.DeadlineExceeded.Error(), o.Status(0).LastError)
		pass(10 * time.Second) // the next call hangs now
		o.stop()
		assert.Len(t, o.kept(t), 1, "the end is no reason to forget a report")
		assert.LessOrEqual(t, o.Status(0).Failed, uint64(2))
	})
}

func TestReplacedInFlight(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(netip.Addr, provision.MAC) error
		second provision.MACReport
		sent   []string
	}{
		{"while the old one is taken", nil, report(1, 2, time.Time{}), []string{"100.64.0.1 00:00:5e:00:53:01", "100.64.0.1 00:00:5e:00:53:02"}},
		{"while the old one is refused", refuse, report(1, 2, time.Time{}), []string{"100.64.0.1 00:00:5e:00:53:01", "100.64.0.1 00:00:5e:00:53:02"}},
		{"while the old one fails", down, report(1, 2, time.Time{}), []string{"100.64.0.1 00:00:5e:00:53:01", "100.64.0.1 00:00:5e:00:53:02"}},
		{"by the same MAC, seen later", nil, report(1, 1, time.Time{}), []string{"100.64.0.1 00:00:5e:00:53:01", "100.64.0.1 00:00:5e:00:53:01"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := start(t, fast)
				o.erp.set(10*time.Second, tt.answer)
				require.NoError(t, o.Put(report(1, 1, time.Now())))
				pass(5 * time.Second)
				tt.second.At = time.Now()
				require.NoError(t, o.Put(tt.second))
				pass(4 * time.Second)
				o.erp.set(10*time.Second, nil)
				pass(2 * time.Second) // the first call is over, the second is not
				require.Equal(t, 1, o.Status(0).Depth)
				require.Len(t, o.kept(t), 1, "a kill now must not lose the new one")
				assert.True(t, o.kept(t)[0].At.Equal(tt.second.At))
				pass(time.Minute)
				assert.Equal(t, tt.sent, o.erp.take())
				assert.Empty(t, o.kept(t))
			})
		})
	}
}

func TestSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := fast
		opts.Settled = func(r provision.MACReport) bool { return r.IP == ip(2) && r.MAC == mac(2) }
		o := start(t, opts)
		require.NoError(t, o.Put(report(1, 2, time.Now())))
		require.NoError(t, o.Put(report(2, 2, time.Now())))
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:02"}, o.erp.take())
		assert.Empty(t, o.kept(t))
		assert.Equal(t, map[Result]int{ResultSent: 1, ResultSettled: 1}, o.seen.results)
	})
}

func TestSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases")
	store, err := lease.OpenStore(t.Context(), dir, quiet())
	require.NoError(t, err)
	o, err := Open(store, Options{}, &fakeERP{}, nil, quiet())
	require.NoError(t, err)
	base := time.Now().Add(-time.Hour)
	for i := range 20 {
		require.NoError(t, o.Put(report(i, i, base.Add(time.Duration(20-i)*time.Second))))
	}
	require.NoError(t, store.Close())
	log, err := wal.Open(wal.Options{Dir: path, Content: 3, Log: quiet()})
	require.NoError(t, err)
	require.NoError(t, log.Commit(func(f *wal.Frames) error {
		f.Put(wal.Record{Kind: 'r', Key: []byte{100, 64, 9, 9}, Value: []byte{1, 1, 2}})
		f.Put(wal.Record{Kind: 'r', Key: []byte("rubbish"), Value: []byte{1}})
		f.Put(wal.Record{Kind: 'r', Key: []byte{100, 64, 9, 8}, Value: []byte{77}})
		return nil
	}))
	require.NoError(t, log.Close())

	// The file as a killed process leaves it: copied while it is open.
	openStore(t, dir)
	copied := t.TempDir()
	copyLeases(t, copied, dir)

	var text bytes.Buffer
	store2 := openStore(t, copied)
	erp, seen := &fakeERP{}, &tally{}
	o2, err := Open(store2, fast, erp, seen, slog.New(slog.NewTextHandler(&text, nil)))
	require.NoError(t, err)
	st := o2.Status(5)
	assert.Equal(t, 20, st.Depth)
	assert.Equal(t, 20, seen.depth)
	assert.Equal(t, 3, st.BadRecords)
	assert.Equal(t, 3, bytes.Count(text.Bytes(), []byte("cannot be read, skipped")))
	require.Len(t, st.Entries, 5)
	assert.Equal(t, ip(19), st.Entries[0].IP, "the oldest first")
	assert.True(t, st.OldestAt.Equal(base.Add(time.Second)))
	require.NoError(t, o2.Put(provision.MACReport{IP: netip.AddrFrom4([4]byte{100, 64, 9, 9}), MAC: mac(1), At: time.Now()}), "replaces the bad one")

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- o2.Run(ctx) }()
	require.Eventually(t, func() bool { return o2.Status(0).Depth == 0 }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	assert.Len(t, erp.take(), 21)
}

// Killed at any moment while reports come and are delivered: what was put and
// not delivered is there, and nothing is there twice.
func TestCopiesAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	var mu sync.Mutex
	delivered := map[string]bool{}
	erp := &fakeERP{answer: func(a netip.Addr, m provision.MAC) error {
		mu.Lock()
		defer mu.Unlock()
		delivered[fmt.Sprint(a, m)] = true
		return nil
	}}
	o, err := Open(store, Options{Enabled: true, Rate: 1e6, Burst: 1000}, erp, nil, quiet())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	rng := rand.New(rand.NewPCG(1, 2))
	latest := map[netip.Addr]provision.MAC{}
	at := time.Now()
	for round := range long.Times(t, 60, 6000) {
		r := report(rng.IntN(8), rng.IntN(255)+1, at)
		at = at.Add(time.Millisecond)
		require.NoError(t, o.Put(r))
		latest[r.IP] = r.MAC
		if round%6 != 0 {
			continue
		}
		copied := t.TempDir()
		abandoned := errors.New("nothing is to be written")
		require.ErrorIs(t, store.Commit(func(*lease.Batch) error { // whose turn it is: nobody else writes
			copyLeases(t, copied, dir)
			return abandoned
		}), abandoned)
		o2, err := Open(openStore(t, copied), Options{}, &fakeERP{}, nil, quiet())
		require.NoError(t, err)
		waiting := map[netip.Addr]provision.MAC{}
		for _, e := range o2.Status(100).Entries {
			waiting[e.IP] = e.MAC
		}
		mu.Lock()
		for a, m := range latest {
			if w, ok := waiting[a]; ok {
				require.Equal(t, m, w)
			} else {
				require.True(t, delivered[fmt.Sprint(a, m)], "%s %s is lost", a, m)
			}
		}
		mu.Unlock()
	}
	require.Eventually(t, func() bool { return o.Status(0).Depth == 0 }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

// Writers, a delivery and look-ups at once, for the race detector; at the end
// store and memory are both empty.
func TestConcurrently(t *testing.T) {
	store := openMemory(t)
	rng := rand.New(rand.NewPCG(3, 4))
	var mu sync.Mutex
	erp := &fakeERP{answer: func(netip.Addr, provision.MAC) error {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(10) == 0 {
			return provision.ErrRefused
		}
		return nil
	}}
	o, err := Open(store, Options{Enabled: true, Rate: 1e6, Burst: 1000}, erp, &tally{}, quiet())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				assert.NoError(t, o.Put(report(i%20, (i+w)%5+1, time.Now())))
				o.Status(3)
				o.Reconfigure(1e6, 1000, i%3 != 0 || i > 190)
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return o.Status(0).Depth == 0 }, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	left, bad := kept(t, store)
	assert.Empty(t, left)
	assert.Zero(t, bad)
}

func BenchmarkPut(b *testing.B) {
	o, err := Open(openMemory(b), Options{}, &fakeERP{}, nil, quiet())
	require.NoError(b, err)
	for i := 0; b.Loop(); i++ {
		if err := o.Put(report(i%60000, i, time.Now())); err != nil {
			b.Fatal(err)
		}
	}
}
