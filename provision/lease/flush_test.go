package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// countingStore notes what is committed. What it does not have of a Store nobody asks for.
type countingStore struct {
	Store
	commits [][]Record
	forgot  []netip.Addr
	kept    []Record
	each    func(Record, error)
	failing atomic.Pointer[error]
	turn    func() // called before fill, as if another commit had been first
	filled  func() // called between fill and the disk
}

func (s *countingStore) Leases(each func(Record, error)) error {
	s.each = each
	for _, r := range s.kept {
		each(r, nil)
	}
	return nil
}

func (s *countingStore) Replaced(func()) {}
func (s *countingStore) Health() Health  { return Health{} }

func (s *countingStore) Commit(fill func(*Batch) error) error {
	if err := s.failing.Load(); err != nil {
		return *err
	}
	if s.turn != nil {
		s.turn()
	}
	var b Batch
	if err := fill(&b); err != nil {
		return err
	}
	if s.filled != nil {
		s.filled()
	}
	s.commits, s.forgot = append(s.commits, b.Leases), append(s.forgot, b.Forget...)
	for _, f := range b.after {
		f()
	}
	return nil
}

func (s *countingStore) addrs() (all []netip.Addr) {
	for _, c := range s.commits {
		for _, r := range c {
			all = append(all, r.IP)
		}
	}
	return all
}

// running is a table whose Run is on, in a bubble of synctest, with n leases of benchAddr that are on disk for an hour.
func running(t *testing.T, n uint32, f func(t *testing.T, tab *Table, store *countingStore)) {
	synctest.Test(t, func(t *testing.T) {
		store := &countingStore{}
		tab := openTable(t, store)
		for i := range n {
			r := testRecord(benchAddr(i))
			r.Renewed, r.Expires = time.Now(), time.Now().Add(time.Hour)
			tab.Store(r)
			require.NoError(t, tab.commit(r))
		}
		store.commits = nil
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tab.Run(ctx, time.Second, func(error) {}) }()
		time.Sleep(time.Millisecond) // fake time: changes come between the ticks
		f(t, tab, store)
		cancel()
		<-done
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestRenewalsAreWrittenTogether(t *testing.T) {
	running(t, 300, func(t *testing.T, tab *Table, store *countingStore) {
		for range 10 {
			for i := range uint32(300) {
				require.True(t, tab.Renew(benchAddr(i), mac1, time.Now(), time.Now().Add(time.Hour)))
			}
			pass(2 * time.Second)
		}
		pass(9 * time.Second)
		assert.Empty(t, store.commits, "a renewal writes nothing by itself")
		assert.Equal(t, 300, tab.Counts(time.Now()).Dirty)
		last, _ := tab.Get(benchAddr(7))
		pass(3 * time.Second)
		require.Len(t, store.commits, 1)
		require.Len(t, store.commits[0], 300)
		assert.Equal(t, last, store.commits[0][7])
		assert.Zero(t, tab.Counts(time.Now()).Dirty)
		pass(time.Minute)
		assert.Len(t, store.commits, 1)
	})
}

// What a kill must not take along is written within a second; the renewals beside it wait on.
func TestWhatIsUrgent(t *testing.T) {
	hour := func() time.Time { return time.Now().Add(time.Hour) }
	renew := func(tab *Table) bool { return tab.Renew(ip7, mac1, time.Now(), hour()) }
	for name, change := range map[string]func(tab *Table) bool{
		"RELEASE":       func(tab *Table) bool { return tab.SetState(ip7, mac1, StateReleased, time.Now()) },
		"DECLINE":       func(tab *Table) bool { return tab.SetState(ip7, mac1, StateDeclined, time.Now()) },
		"kept":          func(tab *Table) bool { return tab.Keep(ip7, mac1, StateReleased, time.Now()) },
		"End":           func(tab *Table) bool { return tab.End(ip7, mac1, time.Now()) },
		"Drop":          func(tab *Table) bool { return tab.Drop(ip7, mac1, time.Now()) },
		"failed commit": func(tab *Table) bool { tab.Dirty(ip7); return true },
		"renewed before": func(tab *Table) bool {
			return renew(tab) && tab.SetState(ip7, mac1, StateReleased, time.Now())
		},
		"renewed after": func(tab *Table) bool { return tab.Keep(ip7, mac1, StateReleased, time.Now()) && renew(tab) },
		"the outbox":    func(tab *Table) bool { tab.Sending(ip7, mac2); return true },
		"it would end soon": func(tab *Table) bool {
			r, _ := tab.Get(ip7)
			return tab.Renew(ip7, mac1, r.Expires.Add(-50*time.Second), hour())
		},
		"it is not on disk": func(tab *Table) bool {
			r := testRecord(ip7)
			r.MAC = mac2
			tab.Store(r)
			return tab.Renew(ip7, mac2, time.Now(), hour())
		},
	} {
		t.Run(name, func(t *testing.T) {
			running(t, 3, func(t *testing.T, tab *Table, store *countingStore) {
				r := testRecord(ip7)
				r.Pool, r.Renewed, r.Expires = "", time.Now(), hour()
				if name == "it is not on disk" {
					r.Expires = time.Now()
				}
				tab.Store(r)
				require.NoError(t, tab.commit(r))
				store.commits = nil
				require.True(t, tab.Renew(benchAddr(0), mac1, time.Now(), hour()))
				require.True(t, change(tab))
				want, _ := tab.Get(ip7)
				pass(time.Second)
				require.Equal(t, [][]Record{{want}}, store.commits)
				assert.Equal(t, 1, tab.Counts(time.Now()).Dirty)
				pass(31 * time.Second)
				require.Equal(t, []netip.Addr{ip7, benchAddr(0)}, store.addrs())
				assert.Zero(t, tab.Counts(time.Now()).Dirty)
			})
		})
	}
}

// A renewal that could not be written does not wait another half a minute.
func TestFailedRenewalIsTriedEachSecond(t *testing.T) {
	running(t, 3, func(t *testing.T, tab *Table, store *countingStore) {
		require.True(t, tab.Renew(benchAddr(0), mac1, time.Now(), time.Now().Add(time.Hour)))
		full := errors.New("the disk is full")
		store.failing.Store(&full)
		pass(35 * time.Second)
		assert.Equal(t, 1, tab.Counts(time.Now()).Dirty)
		store.failing.Store(nil)
		pass(time.Second)
		assert.Equal(t, []netip.Addr{benchAddr(0)}, store.addrs())
		assert.Zero(t, tab.Counts(time.Now()).Dirty)
	})
}

func TestCloseWritesRenewals(t *testing.T) {
	running(t, 3, func(t *testing.T, tab *Table, store *countingStore) {
		require.True(t, tab.Renew(benchAddr(0), mac1, time.Now(), time.Now().Add(time.Hour)))
		require.True(t, tab.Drop(benchAddr(1), mac1, time.Now()))
		require.NoError(t, tab.Close())
		assert.Equal(t, []netip.Addr{benchAddr(1), benchAddr(0)}, store.addrs())
		assert.Zero(t, tab.Counts(time.Now()).Dirty)
	})
}

// What changes while a commit is on its way is written by the next one.
func TestChangeBesideACommitIsWritten(t *testing.T) {
	for name, change := range map[string]func(*Table){
		"renewed":   func(tab *Table) { tab.Renew(ip7, mac1, testNow, testNow.Add(2*time.Hour)) },
		"released":  func(tab *Table) { tab.SetState(ip7, mac1, StateReleased, testNow) },
		"replaced":  func(tab *Table) { r := testRecord(ip7); r.MAC = mac2; tab.Store(r) },
		"forgotten": func(tab *Table) { tab.Prune(testNow.Add(2*Grace), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			store := &countingStore{}
			tab := openTable(t, store)
			tab.Store(testRecord(ip7))
			tab.Dirty(ip7)
			store.filled = func() {
				store.filled = nil
				change(tab)
			}
			require.NoError(t, tab.Flush())
			require.Equal(t, 1, tab.Counts(testNow).Dirty)
			require.NoError(t, tab.Flush())
			require.Zero(t, tab.Counts(testNow).Dirty)
			if want, ok := tab.Get(ip7); ok {
				assert.Equal(t, []Record{want}, store.commits[1])
			} else {
				assert.Equal(t, []netip.Addr{ip7}, store.forgot)
				assert.Zero(t, tab.pages)
			}
		})
	}
}

// What changes while a commit waits for its turn goes with it: whoever was first has written it, and nothing older comes after that.
func TestCommitWritesWhatIsThereAtItsTurn(t *testing.T) {
	store := &countingStore{}
	tab := openTable(t, store)
	tab.Store(testRecord(ip7))
	tab.Dirty(ip7)
	store.turn = func() {
		store.turn = nil
		newer := testRecord(ip7)
		newer.MAC = mac2
		tab.Store(newer)
		require.NoError(t, tab.commit(newer))
	}
	require.NoError(t, tab.Flush())
	now, _ := tab.Get(ip7)
	require.Equal(t, mac2, now.MAC)
	require.Equal(t, [][]Record{{now}, {now}}, store.commits)
	require.Zero(t, tab.Counts(testNow).Dirty)
}

// Of two commits the older one may be told last.
func TestOlderCommitToldLast(t *testing.T) {
	tab := openTable(t, &countingStore{})
	tab.Store(testRecord(ip7))
	tab.Dirty(ip7)
	_, older := tab.current(ipKey(ip7))
	require.True(t, tab.Drop(ip7, mac1, testNow.Add(time.Minute)))
	_, newer := tab.current(ipKey(ip7))
	tab.saved(newer)
	assert.Zero(t, tab.Counts(testNow).Dirty)
	tab.saved(older)
	assert.Equal(t, testNow.Add(time.Minute).Unix(), tab.at(ipKey(ip7)).ends)
	tab.Dirty(ip7)
	tab.saved(older)
	assert.Equal(t, 1, tab.Counts(testNow).Dirty)
}

// A commit of a Journal is one of what is due, too: it is not written a second time.
func TestWhatAJournalWroteIsNotDue(t *testing.T) {
	store := &countingStore{}
	tab := openTable(t, store)
	r := testRecord(ip7)
	tab.Store(r)
	require.NoError(t, tab.commit(r))
	require.True(t, tab.Renew(ip7, mac1, testNow, testNow.Add(2*time.Hour)))
	r, _ = tab.Get(ip7)
	require.NoError(t, tab.commit(r))
	assert.Zero(t, tab.Counts(testNow).Dirty)
	require.NoError(t, tab.Flush())
	assert.Len(t, store.commits, 2)
}

// Chunks are bounded, and all that is due gets written, whatever was queued when.
func TestFlushWritesInChunks(t *testing.T) {
	store := &countingStore{}
	tab := openTable(t, store)
	var want []netip.Addr
	for i := range uint32(10_000) {
		ip := benchAddr(i * 3)
		tab.Store(testRecord(ip))
		tab.Dirty(ip)
		want = append(want, ip)
	}
	require.NoError(t, tab.Flush())
	for _, c := range store.commits {
		assert.LessOrEqual(t, len(c), flushChunk)
	}
	assert.Equal(t, want, store.addrs())
	for range 3 {
		tab.Prune(testNow.Add(2*Grace), 4000)
		require.NoError(t, tab.Flush())
	}
	assert.ElementsMatch(t, want, store.forgot)
	assert.Zero(t, tab.pages)
}

// A disk that comes back tells of what it has. What came meanwhile is newer.
func TestLeasesThatComeLate(t *testing.T) {
	store := &countingStore{kept: []Record{testRecord(ip7)}}
	tab := openTable(t, store)
	f := tab.Follow()
	buf := make([]Change, 4)
	n, _ := f.take(buf)
	require.Equal(t, 1, n)
	here := testRecord(ip7.Next())
	here.MAC = mac2
	tab.Store(here)
	late := testRecord(ip7.Next().Next())
	done := make(chan struct{})
	go func() {
		defer close(done)
		store.each(testRecord(here.IP), nil)
		store.each(late, nil)
		store.each(Record{}, errors.New("one is damaged"))
	}()
	<-done
	got, _ := tab.Get(here.IP)
	assert.Equal(t, here, got)
	got, _ = tab.Get(late.IP)
	assert.Equal(t, late, got)
	assert.Len(t, tab.ByMAC(mac1), 2)
	skipped, why := tab.Skipped()
	assert.Equal(t, 1, skipped)
	assert.Equal(t, []string{"one is damaged"}, why)
	n, _ = f.take(buf)
	assert.Equal(t, []Change{{IP: here.IP, After: here}, {IP: late.IP, After: late}}, buf[:n])
	require.NoError(t, tab.Flush())
	assert.Empty(t, store.commits, "what comes from disk is there")
}

// A million records, with the load that a store costs left out.
func BenchmarkLoad1M(b *testing.B) {
	const n = 1_000_000
	records := make([]Record, n)
	for i := range records {
		r := testRecord(benchAddr(uint32(i)))
		r.MAC = [6]byte{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		r.Subscriber = 0
		if r.ClientID = nil; i%2 == 0 {
			r.ClientID = Hex{1, 2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		}
		records[i] = r
	}
	load := func(b *testing.B) {
		b.ReportAllocs()
		runtime.GC()
		var before, after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		for b.Loop() {
			tab, err := Open(&countingStore{kept: records})
			if err != nil || tab.Len() != n {
				b.Fatal(err, tab.Len())
			}
		}
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		cpu := func(u syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
		b.ReportMetric(float64(cpu(after)-cpu(before))/1e6/float64(b.N), "cpu-ms/op") // on a machine that others use, too
	}
	b.Run("guests, ascending", load)
	for i := range records {
		records[i].Subscriber = provision.SubscriberID(i + 1)
	}
	b.Run("subscribers, ascending", load)
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(n, func(i, j int) { records[i], records[j] = records[j], records[i] })
	b.Run("subscribers, at random", load)
}
