package outbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// badDisk is a store whose disk fails when told to.
type badDisk struct {
	lease.Store
	fails atomic.Bool
	some  atomic.Bool // what fails is on disk nevertheless

	mu      sync.Mutex
	commits int // that failed
	later   []func(provision.MACReport, error)
	lost    []func()
}

var errDisk = errors.New("no space left on device")

func (d *badDisk) Commit(fill func(*lease.Batch) error) error {
	if !d.fails.Load() {
		return d.Store.Commit(fill)
	}
	d.mu.Lock()
	d.commits++
	d.mu.Unlock()
	if d.some.Load() {
		_ = d.Store.Commit(func(b *lease.Batch) error {
			var mine lease.Batch
			err := fill(&mine)
			b.Leases, b.Forget, b.Reports, b.Done = mine.Leases, mine.Forget, mine.Reports, mine.Done
			return err
		})
	}
	return errDisk
}

func (d *badDisk) Reports(each func(provision.MACReport, error)) error {
	d.mu.Lock()
	d.later = append(d.later, each)
	d.mu.Unlock()
	if d.fails.Load() {
		return nil
	}
	return d.Store.Reports(each)
}

func (d *badDisk) Replaced(f func()) { d.lost = append(d.lost, f) }

// cameBack tells of what the disk has, as a store does when it can be read.
func (d *badDisk) cameBack(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	later := d.later
	d.mu.Unlock()
	for _, each := range later {
		require.NoError(t, d.Store.Reports(each))
	}
	d.fails.Store(false)
}

func newBadDisk(t testing.TB) *badDisk { return &badDisk{Store: openMemory(t)} }

// on opens an outbox on a store within a bubble and delivers until the end of the test, or stop.
func on(t *testing.T, store lease.Store, opts Options) *outboxTest {
	t.Helper()
	o := &outboxTest{erp: &fakeERP{}, seen: &tally{}}
	var err error
	o.Outbox, err = Open(store, opts, o.erp, o.seen, quiet())
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

// facts are n new facts of leases, each with its report, committed as the DHCP server does, within d.
func facts(t *testing.T, j lease.Journal, n int, d time.Duration) (failed int) {
	t.Helper()
	for i := range n {
		now := time.Now()
		r := report(i, i+1, now)
		rec := lease.Record{IP: r.IP, MAC: r.MAC, State: lease.StateBound, Start: now, Renewed: now, Expires: now.Add(time.Hour)}
		j.Table.Store(rec)
		if err := j.Commit([]lease.Commit{{Lease: rec, Report: &r}}); err != nil {
			failed++
			j.Table.Dirty(r.IP)
		}
		time.Sleep(d / time.Duration(n))
	}
	return failed
}

// asMany is what the ERP hears of facts: each once.
func asMany(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s %s", ip(i), mac(i+1)))
	}
	return all
}

// 43 of 48 were lost until the next renewal: a report whose commit fails is sent all the same, once, and when the
// disk is back nothing of it is left for the next start.
func TestFailedCommitsAreSentOnce(t *testing.T) {
	for name, some := range map[string]bool{"nothing is on disk": false, "some of it is on disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newBadDisk(t)
				d.some.Store(some)
				tab, err := lease.Open(d)
				require.NoError(t, err)
				o := on(t, d, fast)
				d.fails.Store(true)
				require.Equal(t, 48, facts(t, lease.Journal{Table: tab, Reports: o}, 48, 7*time.Second))
				pass(time.Second)
				assert.ElementsMatch(t, asMany(48), o.erp.take())
				pass(20 * time.Minute)
				assert.Empty(t, o.erp.take(), "not again and again while the disk fails")
				st := o.Status(100)
				assert.Zero(t, st.Depth)
				assert.Equal(t, 48, st.Unwritten)
				assert.Zero(t, st.Failed)
				assert.EqualValues(t, 48, st.Sent)
				d.fails.Store(false)
				pass(2 * time.Second)
				assert.Zero(t, o.Status(0).Unwritten)
				o.stop()
				next := on(t, d, fast)
				pass(time.Hour)
				assert.Empty(t, next.erp.take(), "nor after a restart")
			})
		})
	}
}

// With the ERP down as well they wait in memory, are written as soon as the disk is back, and survive a kill from then on.
func TestFailedCommitsAreWrittenLater(t *testing.T) {
	for name, some := range map[string]bool{"nothing is on disk": false, "some of it is on disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newBadDisk(t)
				d.some.Store(some)
				tab, err := lease.Open(d)
				require.NoError(t, err)
				o := on(t, d, fast)
				o.erp.set(0, down)
				d.fails.Store(true)
				require.Equal(t, 48, facts(t, lease.Journal{Table: tab, Reports: o}, 48, 7*time.Second))
				require.Equal(t, 48, o.Status(0).Depth)
				require.Equal(t, 48, o.Status(0).Unwritten)
				d.fails.Store(false)
				pass(2 * time.Second)
				assert.Zero(t, o.Status(0).Unwritten)
				o.stop()
				next := on(t, d, fast)
				pass(time.Second)
				assert.ElementsMatch(t, asMany(48), next.erp.take())
				assert.Empty(t, next.kept(t))
			})
		})
	}
}

// What was on disk before and is dealt with while the disk fails leaves it later.
func TestDealtWithWhileTheDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		o := on(t, d, fast)
		o.erp.set(0, down)
		for i := range 10 {
			require.NoError(t, o.Put(report(i, i+1, time.Now())))
		}
		pass(time.Second)
		d.fails.Store(true)
		o.erp.take()
		o.erp.set(0, func(a netip.Addr, m provision.MAC) error {
			if a == ip(3) {
				return provision.ErrRefused
			}
			return nil
		})
		pass(10 * time.Minute)
		assert.ElementsMatch(t, asMany(10), o.erp.take())
		pass(5 * time.Hour)
		assert.Empty(t, o.erp.take())
		before, _ := kept(t, d.Store)
		assert.Len(t, before, 10)
		st := o.Status(0)
		assert.Equal(t, 10, st.Unwritten)
		assert.EqualValues(t, 9, st.Sent)
		assert.EqualValues(t, 1, st.Refused)
		assert.Zero(t, st.PausedUntil, "the disk's failure is not the ERP's")
		d.fails.Store(false)
		pass(2 * time.Second)
		assert.Zero(t, o.Status(0).Unwritten)
		assert.Empty(t, o.kept(t))
	})
}

// noted is a store that keeps what its commits were to write.
type noted struct {
	lease.Store
	reports, done []provision.MACReport
}

func (n *noted) Commit(fill func(*lease.Batch) error) error {
	return n.Store.Commit(func(b *lease.Batch) error {
		err := fill(b)
		n.reports, n.done = slices.Clone(b.Reports), slices.Clone(b.Done)
		return err
	})
}

// A report whose commit failed may be on disk nevertheless, and the store does not know of it: it is written once more when it is dealt with, or
// nothing would be taken out, and a restart would send it again.
func TestDealtWithAfterAFailedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		n := &noted{Store: d}
		o, err := Open(n, Options{}, &fakeERP{}, nil, quiet())
		require.NoError(t, err)
		one, other := report(1, 1, time.Now()), report(2, 2, time.Now())
		d.fails.Store(true)
		require.NoError(t, o.Put(one))
		d.fails.Store(false)
		require.NoError(t, o.Put(other))
		o.drop(o.entries[one.IP])
		assert.Equal(t, []provision.MACReport{one}, n.reports)
		assert.Equal(t, []provision.MACReport{one}, n.done)
		o.drop(o.entries[other.IP])
		assert.Empty(t, n.reports, "the store knows of it")
		assert.Equal(t, []provision.MACReport{other}, n.done)
		assert.Zero(t, o.Status(0).Unwritten)
	})
}

// What is told later, when the disk can be read, is sent, unless memory is newer or it was dealt with meanwhile.
func TestFoundLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		begin := time.Now()
		require.NoError(t, d.Store.Commit(func(b *lease.Batch) error {
			for i := range 4 {
				b.Reports = append(b.Reports, report(i, 100+i, begin))
			}
			return nil
		}))
		d.fails.Store(true)
		pass(time.Minute)
		o := on(t, d, fast)
		assert.Zero(t, o.Status(0).Depth)
		require.NoError(t, o.Put(report(1, 1, time.Now())), "kept in memory, and sent")
		pass(time.Second)
		assert.Equal(t, []string{"100.64.0.1 00:00:5e:00:53:01"}, o.erp.take())
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(2, 2, time.Now())))
		require.NoError(t, o.Put(report(3, 3, begin.Add(-time.Hour))), "older than what the disk turns out to have")
		pass(time.Second)
		o.erp.take()
		d.cameBack(t)
		pass(2 * time.Second)
		assert.Equal(t, 3, o.Status(0).Depth)
		assert.Zero(t, o.Status(0).Unwritten)
		o.stop()
		next := on(t, d, fast)
		pass(time.Second)
		assert.ElementsMatch(t, []string{"100.64.0.0 00:00:5e:00:53:64", "100.64.0.2 00:00:5e:00:53:02", "100.64.0.3 00:00:5e:00:53:67"}, next.erp.take())
		d.cameBack(t) // of the same process: known already
		pass(time.Minute)
		assert.Empty(t, next.erp.take())
	})
}

// A disk that was taken away has forgotten everything.
func TestWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		opts := fast
		opts.Enabled = false
		o := on(t, d, opts)
		for i := range 10 {
			require.NoError(t, o.Put(report(i, i+1, time.Now())))
		}
		d.Store = openMemory(t)
		require.Empty(t, o.kept(t))
		for _, f := range d.lost {
			f()
		}
		pass(time.Second)
		assert.Len(t, o.kept(t), 10)
		assert.Zero(t, o.Status(0).Unwritten)
	})
}

// Whatever comes for an address while the disk fails, memory has the newest, and so has the disk afterwards.
func TestLateIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		o := on(t, d, fast)
		d.fails.Store(true)
		for i := range 3000 {
			if i == 2000 {
				o.erp.set(0, down)
			}
			require.NoError(t, o.Put(report(i%8, i%200+1, time.Now())))
			pass(100 * time.Millisecond)
		}
		st := o.Status(100)
		assert.Equal(t, 8, st.Depth)
		assert.LessOrEqual(t, st.Unwritten, 16)
		d.fails.Store(false)
		pass(2 * time.Second)
		assert.Zero(t, o.Status(0).Unwritten)
		var want, have []provision.MACReport
		for _, e := range st.Entries {
			want = append(want, e.MACReport)
		}
		have = o.kept(t)
		assert.ElementsMatch(t, want, have)
		require.Error(t, o.Put(provision.MACReport{IP: ip(1), At: time.Now()}), "what is none is not kept")
	})
}

// An older report that came after a newer one was dealt with does not go when the newer one is taken out.
func TestOlderAfterNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newBadDisk(t)
		o := on(t, d, fast)
		o.erp.set(0, down)
		begin := time.Now()
		require.NoError(t, o.Put(report(1, 1, begin)))
		pass(time.Second)
		d.fails.Store(true)
		o.erp.set(0, nil)
		pass(10 * time.Minute)
		require.Zero(t, o.Status(0).Depth)
		o.erp.set(0, down)
		require.NoError(t, o.Put(report(1, 2, begin.Add(-time.Minute))))
		require.Equal(t, 2, o.Status(0).Unwritten)
		d.fails.Store(false)
		pass(2 * time.Second)
		kept := o.kept(t)
		require.Len(t, kept, 1)
		assert.Equal(t, mac(2), kept[0].MAC)
		assert.Zero(t, o.Status(0).Unwritten)
	})
}

// Writers, a delivery and a disk that comes and goes at once; at the end store and memory are both empty, and of
// each address the ERP heard the last MAC.
func TestLateConcurrently(t *testing.T) {
	d := newBadDisk(t)
	var mu sync.Mutex
	heard := map[netip.Addr]provision.MAC{}
	erp := &fakeERP{answer: func(a netip.Addr, m provision.MAC) error {
		mu.Lock()
		defer mu.Unlock()
		heard[a] = m
		return nil
	}}
	o, err := Open(d, Options{Enabled: true, Rate: 1e6, Burst: 1000}, erp, &tally{}, quiet())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	var wg sync.WaitGroup
	begin := time.Now()
	for w := range 4 {
		wg.Go(func() {
			for i := range 400 { // each has addresses of its own, so that the last one is known
				assert.NoError(t, o.Put(report(w*8+i%8, i%250+1, begin.Add(time.Duration(i)*time.Microsecond))))
				if w == 0 {
					d.fails.Store(rand.IntN(2) == 0)
					d.some.Store(rand.IntN(2) == 0)
				}
				_ = o.Flush()
			}
		})
	}
	wg.Wait()
	d.fails.Store(false)
	require.Eventually(t, func() bool {
		st := o.Status(0)
		return st.Depth == 0 && st.Unwritten == 0
	}, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	left, _ := kept(t, d)
	assert.Empty(t, left)
	for w := range 4 {
		for i := 392; i < 400; i++ {
			assert.Equal(t, mac(i%250+1), heard[ip(w*8+i%8)])
		}
	}
}

// The real log on a disk that is full for some seconds, at the start and later.
func TestKernelFullDiskLosesNoReport(t *testing.T) {
	labtest.Need(t)
	for when, during := range map[string]time.Duration{"at the start": 7 * time.Second, "later": time.Second} {
		t.Run(when, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"))
			t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }) // a file that is just made may still be open
			filler := filepath.Join(dir, "filler")
			if when == "at the start" {
				fill(t, filler)
			}
			store, err := lease.OpenStore(t.Context(), dir, quiet())
			require.NoError(t, err)
			tab, err := lease.Open(store)
			require.NoError(t, err)
			erp := &fakeERP{}
			o, err := Open(store, Options{Enabled: true, Rate: 1e6, Burst: 1000}, erp, nil, quiet())
			require.NoError(t, err)
			stop := running(t, o)
			if when == "later" {
				require.NoError(t, o.Put(report(200, 200, time.Now())))
				fill(t, filler)
				for i := 0; !store.Failing(); i++ { // what has room already is used up
					require.Less(t, i, 10000)
					_ = store.Commit(func(b *lease.Batch) error {
						for k := range 1000 {
							b.Leases = append(b.Leases, lease.Record{IP: netip.AddrFrom4([4]byte{10, byte(k >> 8), byte(k), 1}), MAC: mac(1), State: lease.StateBound})
						}
						return nil
					})
				}
			}
			require.True(t, store.Failing())
			erp.take()
			failed := facts(t, lease.Journal{Table: tab, Reports: o}, 48, during)
			require.Equal(t, 48, failed)
			require.Eventually(t, func() bool { return o.Status(0).Depth == 0 }, 10*time.Second, time.Millisecond)
			assert.ElementsMatch(t, asMany(48), erp.take(), "each once")
			erp.set(0, down) // and one that the ERP does not hear of
			require.NoError(t, o.Put(report(100, 100, time.Now())))
			require.NoError(t, os.Remove(filler))
			back := time.Now()
			require.Eventually(t, func() bool { return o.Status(0).Unwritten == 0 }, 10*time.Second, time.Millisecond)
			t.Logf("written %v after there was room", time.Since(back).Round(time.Millisecond))

			// The files as a killed process leaves them.
			killed := t.TempDir()
			copyLeases(t, killed, dir)
			stop()
			require.NoError(t, store.Close())
			next, err := Open(openStore(t, killed), Options{}, erp, nil, quiet())
			require.NoError(t, err)
			st := next.Status(100)
			require.Len(t, st.Entries, 1, "none twice, none lost")
			assert.Equal(t, ip(100), st.Entries[0].IP)
		})
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func running(t *testing.T, o *Outbox) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

// copyLeases copies the files of leases as they are now. The next file of a log is made beforehand, under a name of its own until
// it is ready: where one is gone by the time that it is to be read, all is copied anew.
func copyLeases(t *testing.T, to, from string) {
	t.Helper()
	to = filepath.Join(to, "leases")
	for range 100 {
		err := os.CopyFS(to, os.DirFS(filepath.Join(from, "leases")))
		if err == nil {
			return
		}
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, os.RemoveAll(to))
	}
	t.Fatal("the files do not come to rest")
}
