package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// mirror applies the changes that a follower is told of.
type mirror struct {
	*Follower
	buf     []Change
	records map[netip.Addr]Record
	told    []Change
	merged  int
}

func follow(tab *Table, buf int) *mirror {
	return &mirror{Follower: tab.Follow(), buf: make([]Change, buf), records: map[netip.Addr]Record{}}
}

// apply fails where a change does not begin with what the last one left.
func (m *mirror) apply(changes []Change) error {
	for _, c := range changes {
		if have := m.records[c.IP]; !sameRecord(have, c.Before) {
			return fmt.Errorf("%s: told of a change from %+v, the last one left %+v", c.IP, c.Before, have)
		}
		if c.After.IP.IsValid() {
			m.records[c.IP] = c.After
		} else {
			delete(m.records, c.IP)
		}
		if c.Merged {
			m.merged++
		}
		m.told = append(m.told, c)
	}
	return nil
}

// catchUp takes what waits.
func (m *mirror) catchUp(t testing.TB) {
	t.Helper()
	for {
		n, _ := m.take(m.buf)
		if n == 0 {
			return
		}
		require.NoError(t, m.apply(m.buf[:n]))
	}
}

func (m *mirror) sameAs(t testing.TB, tab *Table) {
	t.Helper()
	have := map[netip.Addr]Record{}
	for r := range tab.All() {
		have[r.IP] = r
	}
	require.Equal(t, have, m.records)
}

func sameRecord(a, b Record) bool {
	return a.IP == b.IP && a.MAC == b.MAC && a.State == b.State && a.Interface == b.Interface &&
		a.Start.Equal(b.Start) && a.Renewed.Equal(b.Renewed) && a.Expires.Equal(b.Expires)
}

func TestFollowerIsToldEachChange(t *testing.T) {
	tab := New()
	rec := testRecord(ip7)
	tab.Store(rec)
	m := follow(tab, 8)
	m.catchUp(t)
	assert.Equal(t, []Change{{IP: ip7, After: rec, Merged: true}}, m.told, "what there was when it began")
	m.told = nil

	renewed := rec
	renewed.Renewed, renewed.Expires = testNow.Add(time.Minute), testNow.Add(2*time.Hour)
	moved := renewed
	moved.Interface = "eth1"
	released := moved
	released.State, released.Renewed, released.Expires = StateReleased, testNow.Add(2*time.Minute), testNow.Add(2*time.Minute)
	other := testRecord(ip7)
	other.MAC = mac2
	require.True(t, tab.Renew(ip7, mac1, renewed.Renewed, renewed.Expires))
	assert.False(t, tab.Renew(ip7, mac2, testNow, testNow), "no change, nothing is told")
	tab.Store(moved)
	require.True(t, tab.SetState(ip7, mac1, StateReleased, released.Renewed))
	assert.False(t, tab.Renew(ip7, mac1, testNow, testNow), "no change, nothing is told")
	tab.Dirty(ip7)
	tab.Store(other)
	require.Equal(t, 1, tab.Prune(testNow.Add(2*Grace), 1))
	m.catchUp(t)
	assert.Equal(t, []Change{
		{IP: ip7, Before: rec, After: renewed},
		{IP: ip7, Before: renewed, After: moved},
		{IP: ip7, Before: moved, After: released},
		{IP: ip7, Before: released, After: other},
		{IP: ip7, Before: other},
	}, m.told)
}

// What was read from disk is what a follower begins with.
func TestFollowerBeginsWithWhatWasRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	for i, ip := 0, ip7; i < 10; i, ip = i+1, ip.Next() {
		require.NoError(t, tab.commit(testRecord(ip)))
	}
	require.NoError(t, store.Close())
	tab = openTable(t, openStore(t, path))
	m := follow(tab, 3)
	m.catchUp(t)
	assert.Len(t, m.told, 10)
	m.sameAs(t, tab)
}

// A follower that does not ask holds up nobody, needs no more room than one
// entry for each address, and loses no address.
func TestSlowFollowerIsToldMergedChanges(t *testing.T) {
	tab := New()
	m := follow(tab, 100)
	const addresses = 300
	at := testNow
	for round := range 20 {
		for i := range uint32(addresses) {
			at = at.Add(time.Second)
			r := testRecord(benchAddr(i))
			r.Renewed, r.Expires = at, at.Add(time.Hour)
			if round%5 == 4 && i%2 == 0 {
				r.State = StateReleased
			}
			tab.Store(r)
		}
	}
	assert.Equal(t, queueRoom, m.waiting)
	assert.Len(t, m.order, addresses)
	tab.Prune(at.Add(2*Grace), addresses/3)
	assert.Len(t, m.order, addresses)
	m.catchUp(t)
	assert.Len(t, m.told, queueRoom+addresses)
	assert.Equal(t, addresses, m.merged)
	m.sameAs(t, tab)

	m.told, m.merged = nil, 0
	tab.Store(testRecord(ip7))
	tab.SetState(ip7, mac1, StateDeclined, at)
	m.catchUp(t)
	assert.Len(t, m.told, 2, "it keeps up again")
	assert.Zero(t, m.merged)

	// An address that came and went while it was behind is none of its business.
	for i := range uint32(queueRoom) {
		tab.Store(testRecord(benchAddr(i % addresses)))
	}
	gone := testRecord(netip.MustParseAddr("198.51.100.77"))
	gone.Renewed, gone.Expires = testNow.Add(-2*Grace), testNow.Add(-2*Grace)
	tab.Store(gone)
	tab.Prune(testNow, 1)
	m.told = nil
	m.catchUp(t)
	assert.Len(t, m.told, queueRoom)
	m.sameAs(t, tab)
}

// What a follower that is behind has missed comes to it however fast others change.
func TestSlowFollowerIsToldOfEveryAddress(t *testing.T) {
	tab := New()
	m := follow(tab, 1)
	for i := range uint32(queueRoom) {
		tab.Store(testRecord(benchAddr(i)))
	}
	tab.Store(testRecord(ip7))
	for i := 0; i < 4*queueRoom; i++ {
		tab.Store(testRecord(benchAddr(uint32(i % queueRoom))))
		n, _ := m.take(m.buf)
		require.NoError(t, m.apply(m.buf[:n]))
		if _, told := m.records[ip7]; told {
			return
		}
	}
	t.Error("the address that waits is never told")
}

// What there was when it began comes to it however fast others change, in the order of addresses, and what changed before its turn
// as one change.
func TestFollowerWalksOverWhatThereIs(t *testing.T) {
	tab := New()
	ends := []netip.Addr{netip.MustParseAddr("0.0.0.1"), netip.MustParseAddr("255.255.255.254"), netip.MustParseAddr("255.255.255.255")}
	const addresses = 700
	for i := range uint32(addresses) {
		tab.Store(testRecord(benchAddr(i)))
	}
	for _, ip := range ends {
		tab.Store(testRecord(ip))
	}
	gone := testRecord(benchAddr(900))
	gone.Renewed, gone.Expires = testNow.Add(-2*Grace), testNow.Add(-2*Grace)
	tab.Store(gone)
	m := follow(tab, 1)
	require.Equal(t, 1, tab.Prune(testNow, 1), "it goes unseen")
	var walked []netip.Addr
	now := testNow
	for i := 0; len(walked) < addresses+len(ends); i++ {
		require.Less(t, i, addresses+len(ends), "it starves")
		now = now.Add(time.Second)
		for k := range uint32(5) { // what was told, what is to come, and new ones
			require.True(t, tab.Renew(benchAddr((uint32(i)+k*100)%addresses), mac1, now, now.Add(time.Hour)))
		}
		tab.Store(testRecord(netip.AddrFrom4([4]byte{5, 0, byte(i >> 8), byte(i)})))
		n, _ := m.take(m.buf)
		require.NoError(t, m.apply(m.buf[:n]))
		if c := m.buf[0]; c.IP.As4()[0] != 5 {
			require.True(t, c.Merged)
			require.False(t, c.Before.IP.IsValid())
			walked = append(walked, c.IP)
		} else {
			i--
		}
	}
	require.True(t, slices.IsSortedFunc(walked, netip.Addr.Compare))
	require.NotContains(t, m.records, gone.IP)
	m.catchUp(t)
	m.sameAs(t, tab)
	m.told, m.merged = nil, 0
	require.True(t, tab.Renew(ends[2], mac1, now, now.Add(2*time.Hour)))
	m.catchUp(t)
	require.Len(t, m.told, 1, "it keeps up")
	require.Zero(t, m.merged)
}

func TestFollowersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := New()
		tab.Store(testRecord(ip7))
		one, two, three := tab.Follow(), tab.Follow(), tab.Follow()
		buf := make([]Change, 4)
		ctx, cancel := context.WithCancel(t.Context())
		next := func(f *Follower) string {
			n, err := f.Next(ctx, buf)
			return fmt.Sprint(n, " ", err)
		}
		for _, f := range []*Follower{one, two, three} {
			assert.Equal(t, "1 <nil>", next(f))
		}
		n, err := one.Next(ctx, nil)
		assert.Zero(t, n)
		assert.NoError(t, err, "no room, no wait")

		// Whoever waits is woken by a change and by an end.
		answers := make(chan string)
		wait := func(f *Follower) {
			go func() { answers <- next(f) }()
			synctest.Wait()
		}
		wait(one)
		tab.SetState(ip7, mac1, StateReleased, testNow)
		assert.Equal(t, "1 <nil>", <-answers)
		wait(one)
		one.Close()
		assert.Equal(t, "0 "+ErrEnded.Error(), <-answers)
		one.Close() // again does no harm
		tab.Store(testRecord(ip7))
		assert.Equal(t, "0 "+ErrEnded.Error(), next(one), "it is told nothing more")

		wait(two) // takes both
		assert.Equal(t, "2 <nil>", <-answers)
		wait(two)
		require.NoError(t, tab.Close())
		assert.Equal(t, "0 "+ErrEnded.Error(), <-answers)
		assert.Equal(t, "2 <nil>", next(three), "what waited is told")
		assert.Equal(t, "0 "+ErrEnded.Error(), next(three))
		late := tab.Follow()
		assert.Equal(t, "1 <nil>", next(late))
		assert.Equal(t, "0 "+ErrEnded.Error(), next(late))
		require.NoError(t, tab.Close())

		open := New()
		f := open.Follow()
		go func() { answers <- next(f) }()
		synctest.Wait()
		cancel()
		assert.Equal(t, "0 "+context.Canceled.Error(), <-answers)
	})
}

// step makes one random change, of one of the addresses of an owner. It returns
// the record before and after it, as a model without a feed knows them.
func step(rnd *rand.Rand, tab *Table, model map[netip.Addr]Record, ip netip.Addr, now time.Time) (before, after Record, changed bool) {
	before = model[ip]
	after = before
	mac := [...]provision.MAC{mac1, mac2}[rnd.IntN(2)]
	known := before.IP.IsValid() && before.MAC == mac
	switch rnd.IntN(9) {
	case 0, 1:
		after = testRecord(ip)
		after.MAC, after.Renewed, after.Expires = mac, now, now.Add(time.Hour)
		after.Interface = [...]string{"eth0", "eth1"}[rnd.IntN(2)]
		tab.Store(after)
		changed = true
	case 2, 3, 4, 5:
		changed = known && (before.State == StateBound || before.Kept(now))
		if changed {
			after.State, after.Renewed, after.Expires = StateBound, now, now.Add(2*time.Hour)
		}
		if tab.Renew(ip, mac, now, now.Add(2*time.Hour)) != changed {
			panic("the model differs")
		}
	case 6:
		if changed = known; changed {
			after.State, after.Renewed = StateReleased, now
			if after.Expires.After(now) {
				after.Expires = now
			}
		}
		if tab.SetState(ip, mac, StateReleased, now) != changed {
			panic("the model differs")
		}
	case 7:
		tab.Dirty(ip)
	case 8:
		if changed = known && before.Live(now); changed {
			after.State, after.Renewed = StateDeclined, now
		}
		if tab.Keep(ip, mac, StateDeclined, now) != changed {
			panic("the model differs")
		}
	}
	if changed {
		model[ip] = after
	}
	return before, after, changed
}

// Random changes and restarts of followers: one that asks after each change is
// told exactly these; all have what the table has when they have caught up.
func TestFeedAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	tab := New()
	model := map[netip.Addr]Record{}
	now := testNow
	quick := follow(tab, 1)
	others := []*mirror{follow(tab, 7)}
	joined := map[*mirror]int{others[0]: 0}
	var history []Change
	for i := range 15000 {
		now = now.Add(time.Second)
		ip := benchAddr(rnd.Uint32N(60))
		before, after, changed := step(rnd, tab, model, ip, now)
		if changed {
			history = append(history, Change{IP: ip, Before: before, After: after})
		}
		if i%2000 == 1999 { // an address goes
			later := now.Add(2 * Grace)
			require.Equal(t, 1, tab.Prune(later, 1))
			for ip, r := range model {
				if _, ok := tab.Get(ip); !ok {
					history = append(history, Change{IP: ip, Before: r})
					delete(model, ip)
				}
			}
		}
		quick.catchUp(t)
		switch r := rnd.IntN(1000); {
		case r == 0 && len(others) < 6:
			m := follow(tab, 1+rnd.IntN(300))
			joined[m] = len(history)
			others = append(others, m)
		case r == 1 && len(others) > 1:
			m := others[rnd.IntN(len(others))]
			m.catchUp(t)
			m.sameAs(t, tab)
		case r < 8 && len(others) > 0: // some now and then, some hardly ever
			m := others[rnd.IntN(len(others))]
			n, _ := m.take(m.buf)
			require.NoError(t, m.apply(m.buf[:n]))
		}
	}
	require.Equal(t, history, quick.told)
	require.Zero(t, quick.merged)
	quick.sameAs(t, tab)
	require.Greater(t, len(others), 3)
	for _, m := range others {
		m.catchUp(t)
		m.sameAs(t, tab)
		want := len(history) - joined[m]
		require.Less(t, len(m.told), want+100, "nothing is told twice")
		require.Positive(t, m.merged)
	}
	require.Equal(t, model, quick.records)
}

// Writers of their own addresses, followers that come, are slow and go: for the race detector.
func TestFeedConcurrently(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "state.db"))
	tab := openTable(t, store)
	var writers, readers sync.WaitGroup
	histories := make([]map[netip.Addr][]Change, 4)
	for w := range histories {
		histories[w] = map[netip.Addr][]Change{}
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			model := map[netip.Addr]Record{}
			now := testNow
			for range 5000 {
				now = now.Add(time.Second)
				ip := benchAddr(uint32(w)<<16 + rnd.Uint32N(40))
				before, after, changed := step(rnd, tab, model, ip, now)
				if changed {
					histories[w][ip] = append(histories[w][ip], Change{IP: ip, Before: before, After: after})
				}
			}
		})
	}
	mirrors := make([]*mirror, 5)
	for i := range mirrors {
		readers.Go(func() {
			m := follow(tab, 1<<(2*i))
			mirrors[i] = m
			for {
				n, err := m.Next(t.Context(), m.buf)
				if err != nil {
					assert.ErrorIs(t, err, ErrEnded)
					return
				}
				if err := m.apply(m.buf[:n]); err != nil {
					t.Error(err)
					return
				}
			}
		})
		readers.Go(func() { // comes and goes
			for range 50 {
				f := tab.Follow()
				_, err := f.Next(t.Context(), make([]Change, 3))
				f.Close()
				if err != nil && !assert.ErrorIs(t, err, ErrEnded) {
					return
				}
			}
		})
	}
	readers.Go(func() {
		for range 20 {
			assert.NoError(t, tab.Flush())
		}
	})
	writers.Wait()
	require.NoError(t, tab.Close())
	readers.Wait()
	for _, m := range mirrors {
		m.sameAs(t, tab)
		// Of each address it was told a part of what happened, in order, and
		// everything from its last merged change on.
		told := map[netip.Addr][]Change{}
		for _, c := range m.told {
			if c.Merged {
				told[c.IP] = []Change{}
				continue
			}
			told[c.IP] = append(told[c.IP], c)
		}
		for ip, list := range told {
			all := histories[ip.As4()[1]][ip]
			require.Equal(t, all[len(all)-len(list):], list, "%s", ip)
		}
	}
}

// A renewal costs the packet path nothing on the heap, whoever follows.
func TestRenewalAllocatesNothing(t *testing.T) {
	for _, followers := range []string{"none", "one that keeps up", "one that never asks"} {
		t.Run(followers, func(t *testing.T) {
			tab := benchTable(100)
			m := &mirror{}
			buf := make([]Change, 16)
			if followers != "none" {
				m = follow(tab, 128)
				m.catchUp(t)
			}
			now := testNow
			renew := func() {
				now = now.Add(time.Second)
				if !tab.Renew(benchAddr(0), [6]byte{2}, now, now.Add(time.Hour)) {
					t.Fatal("not renewed")
				}
				if followers == "one that keeps up" {
					if n, _ := m.take(buf); n != 1 {
						t.Fatalf("told of %d changes", n)
					}
				}
			}
			assert.Zero(t, testing.AllocsPerRun(2*queueRoom, renew))
		})
	}
}
