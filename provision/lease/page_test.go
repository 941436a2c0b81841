package lease

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
)

// Pages, indexes and walks against a plain map, with addresses at the ends of pages, of larger blocks and of all.
func TestPagesAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	tab, model := New(), map[netip.Addr]Record{}
	var addrs []netip.Addr
	for _, key := range []uint32{1, 0xff, 0x100, 0xffff, 0x10000, 0xffffff, 0x1000000, 0x0a000000, 0x0a0001fe, 0x0a000200, 0xffffff00, 0xfffffffe, 0xffffffff} {
		addrs = append(addrs, addrOf(key))
	}
	for range 30 {
		addrs = append(addrs, addrOf(0x0a000000|rnd.Uint32N(300)), addrOf(1+rnd.Uint32N(1<<32-1)))
	}
	macs, ids := []provision.MAC{{2}, {4}, {6}, {}}, []Hex{nil, Hex("a"), Hex("b"), Hex("c")}
	steps := long.Times(t, 1500, 4000)
	for step := range steps {
		ip := addrs[rnd.IntN(len(addrs))]
		r := testRecord(ip)
		r.MAC, r.ClientID, r.Subscriber = macs[rnd.IntN(4)], ids[rnd.IntN(4)], provision.SubscriberID(rnd.IntN(4))
		r.Expires = testNow.Add(time.Duration(rnd.IntN(3)) * time.Hour)
		switch rnd.IntN(4) {
		case 0: // an address goes
			r.Renewed, r.Expires = testNow.Add(-2*Grace), testNow.Add(-2*Grace)
			tab.Store(r)
			require.Equal(t, 1, tab.Prune(testNow, 10))
			delete(model, ip)
		default:
			tab.Store(r)
			model[ip] = r
		}
		if step%50 == 0 || step > steps-30 {
			samePages(t, tab, model, macs, ids)
		}
	}
	require.Len(t, model, tab.Prune(testNow.Add(2*Grace), 1000))
	require.Empty(t, slices.Collect(tab.All()))
	require.Zero(t, tab.pages, "nothing is left of a page without records")
	require.Zero(t, tab.bySubscriber.n)
}

func samePages(t *testing.T, tab *Table, model map[netip.Addr]Record, macs []provision.MAC, ids []Hex) {
	t.Helper()
	find := func(match func(Record) bool) (found []Record) {
		for _, r := range model {
			if match(r) {
				found = append(found, r)
			}
		}
		slices.SortFunc(found, func(a, b Record) int { return a.IP.Compare(b.IP) })
		return found
	}
	require.Equal(t, len(model), tab.Len())
	require.Equal(t, find(func(Record) bool { return true }), slices.Collect(tab.All()), "in the order of addresses")
	live := find(func(r Record) bool { return r.Live(testNow) })
	require.Equal(t, Counts{Bound: len(live), Expired: len(model) - len(live)}, tab.Counts(testNow))
	for i := range 4 {
		require.Equal(t, find(func(r Record) bool { return r.MAC == macs[i] }), tab.ByMAC(macs[i]))
		require.Equal(t, find(func(r Record) bool { return r.Subscriber == provision.SubscriberID(i) }), tab.BySubscriber(provision.SubscriberID(i)))
		require.Equal(t, find(func(r Record) bool { return len(ids[i]) > 0 && bytes.Equal(r.ClientID, ids[i]) }), tab.ByClientID(ids[i]))
	}
	for _, in := range [][2]uint32{{0, 1<<32 - 1}, {0x0a000000, 0x0a0000fe}, {0x0a000080, 0x0a000180}, {0xfffffffe, 0xffffffff}, {5, 4}} {
		first, last := addrOf(in[0]), addrOf(in[1])
		want := find(func(r Record) bool { return r.IP.Compare(first) >= 0 && r.IP.Compare(last) <= 0 })
		slices.SortFunc(want, func(a, b Record) int { return cmp.Or(a.Expires.Compare(b.Expires), a.IP.Compare(b.IP)) })
		require.Equal(t, want, slices.Collect(tab.InRange(first, last)), "%v", in)
		slices.SortFunc(want, func(a, b Record) int { return a.IP.Compare(b.IP) })
		var each []Record
		tab.Each(first, last, func(r *Record) { each = append(each, *r) })
		require.Equal(t, want, each, "%v", in)
	}
}

func TestNoAddressIsNoRecord(t *testing.T) {
	tab := New()
	tab.Store(testRecord(netip.AddrFrom4([4]byte{})))
	tab.Store(testRecord(netip.MustParseAddr("2001:db8::1")))
	assert.Zero(t, tab.Len())
	_, ok := tab.Get(netip.Addr{})
	assert.False(t, ok)
}

// Who walks over all leases sees what changes ahead of him, for he has no copy of it.
func TestWalksCopyAPageAtATime(t *testing.T) {
	tab := New()
	for i := range uint32(1000) {
		tab.Store(testRecord(benchAddr(i)))
	}
	last, later := benchAddr(999), testNow.Add(5*time.Hour)
	seen := map[string]time.Time{}
	walk := func(name string, r Record) {
		if seen[name].IsZero() {
			require.True(t, tab.Renew(last, mac1, testNow, testNow.Add(2*time.Hour)))
			require.True(t, tab.Renew(last, mac1, testNow, later))
		}
		seen[name] = r.Expires
	}
	for r := range tab.All() {
		walk("all", r)
	}
	assert.Equal(t, later, seen["all"])
	require.True(t, tab.Renew(last, mac1, testNow, testNow.Add(time.Hour)))
	for r := range tab.InRange(benchAddr(0), last) {
		walk("range", r)
	}
	assert.Equal(t, later, seen["range"])
}

// allocated returns how many bytes f asks for.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A hundred thousand records are 32 MB: nobody has them twice.
func TestWalksTakeNoMemoryForAll(t *testing.T) {
	tab := benchTable(benchLeases)
	for name, f := range walks(tab) {
		t.Run(name, func(t *testing.T) {
			assert.Less(t, allocated(f), uint64(3<<20))
		})
	}
	assert.Less(t, allocated(func() { tab.Follow().Close() }), uint64(1<<20), "a beginning costs the room for changes only")
}

// walks are what looks at every record.
func walks(tab *Table) map[string]func() {
	return map[string]func(){
		"All": func() {
			for range tab.All() {
			}
		},
		"Counts": func() { tab.Counts(testNow) },
		"InRange": func() {
			for range tab.InRange(benchAddr(0), benchAddr(1<<24-1)) {
			}
		},
		"Each":         func() { tab.Each(benchAddr(0), benchAddr(1<<24-1), func(*Record) {}) },
		"Prune":        func() { tab.Prune(testNow, 1<<30) },
		"BySubscriber": func() { tab.BySubscriber(7) },
		"Follow": func() {
			f := tab.Follow()
			defer f.Close()
			buf := make([]Change, maxTaken)
			for n := 1; n > 0; {
				n, _ = f.take(buf)
			}
		},
	}
}

// longest returns how long a renewal waited at most while f ran, and how long f took. Renewals go on for a moment when f is soon over.
func longest(tab *Table, f func()) (wait, took time.Duration) {
	done, started := make(chan time.Duration, 1), make(chan struct{})
	go func() {
		close(started)
		at := time.Now()
		f()
		done <- time.Since(at)
	}()
	<-started
	mac := [6]byte{2}
	for {
		select {
		case took = <-done:
			return wait, took
		default:
			at := time.Now()
			tab.Renew(benchAddr(0), mac, testNow, testNow.Add(time.Hour))
			wait = max(wait, time.Since(at))
		}
	}
}

// Nobody who looks at every record makes a packet wait until he has. A loaded machine makes it wait for other reasons, too, so
// what counts is the share of the walk's time, in the best of several rounds: who holds the lock all the time does so in each.
func TestWalksHoldUpNoPacket(t *testing.T) {
	tab := benchTable(benchLeases)
	for name, f := range walks(tab) {
		t.Run(name, func(t *testing.T) {
			var rounds []string
			for range 20 {
				wait, took := longest(tab, f)
				if wait < max(took/4, time.Millisecond) {
					return
				}
				rounds = append(rounds, fmt.Sprintf("%v of %v", wait, took))
			}
			t.Error("a renewal waited ", rounds)
		})
	}
}

func BenchmarkRenewBeside(b *testing.B) {
	for _, n := range []uint32{100_000, 1_000_000} {
		tab := benchTable(n)
		for name, f := range walks(tab) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var waits []time.Duration
				for b.Loop() {
					wait, _ := longest(tab, f)
					waits = append(waits, wait)
				}
				slices.Sort(waits)
				b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "median-longest-us")
				b.ReportMetric(float64(waits[len(waits)-1].Microseconds()), "longest-us")
			})
		}
	}
}
