package pool

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func owner(n int) provision.Owner { return provision.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)}.Owner() }

func host(n byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, n}) }

func testPool(t testing.TB, first, last byte, reserved ...netip.Addr) *Pool {
	t.Helper()
	p, err := New(host(first), host(last), reserved...)
	require.NoError(t, err)
	return p
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, first, last, reserved, want string
	}{
		{"upside down", "198.51.100.9", "198.51.100.8", "", "the lower first"},
		{"IPv6", "2001:db8::1", "2001:db8::2", "", "two IPv4 addresses"},
		{"too large", "10.0.0.0", "10.16.0.0", "", "more than 1048576 addresses"},
		{"nothing left", "198.51.100.1", "198.51.100.1", "198.51.100.1", "no address is left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var reserved []netip.Addr
			if tc.reserved != "" {
				reserved = append(reserved, netip.MustParseAddr(tc.reserved))
			}
			_, err := New(netip.MustParseAddr(tc.first), netip.MustParseAddr(tc.last), reserved...)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func TestClientKeepsItsAddress(t *testing.T) {
	p := testPool(t, 10, 19)
	a, ok := pick(p, owner(1), netip.Addr{}, testNow)
	require.True(t, ok)
	again := testPool(t, 10, 19)
	b, _ := pick(again, owner(1), netip.Addr{}, testNow)
	assert.Equal(t, a, b, "the hash decides, whatever was before")

	want := host(17)
	a, _ = pick(p, owner(1), want, testNow)
	assert.Equal(t, want, a, "a wish is heard")
	require.True(t, p.Offer(a, owner(1), testNow, testNow.Add(time.Minute)))
	require.True(t, p.Lease(a, owner(1), testNow, testNow.Add(time.Hour)))
	other, _ := pick(p, owner(2), want, testNow)
	assert.NotEqual(t, want, other, "it is another's")
	assert.False(t, p.Offer(want, owner(2), testNow, testNow.Add(time.Minute)))
	assert.False(t, p.Lease(want, owner(2), testNow, testNow.Add(time.Minute)))
	assert.False(t, p.Release(want, owner(2), testNow))

	later := testNow.Add(2 * time.Hour)
	a, _ = pick(p, owner(1), host(12), later)
	assert.Equal(t, want, a, "the earlier address comes before a wish")
	require.True(t, p.Lease(want, owner(2), later, later.Add(time.Hour)), "it is free by now")
	a, _ = pick(p, owner(1), netip.Addr{}, later)
	assert.NotEqual(t, want, a)
}

// Which address a new client gets is the same in every version: who lost everything gives
// clients what they had.
func TestNewClientsArePinned(t *testing.T) {
	p := testPool(t, 1, 254)
	var got []byte
	for i := range 8 {
		a, _ := pick(p, owner(i*77), netip.Addr{}, testNow)
		got = append(got, a.As4()[3])
	}
	assert.Equal(t, []byte{212, 63, 18, 51, 95, 246, 7, 183}, got)
}

func TestOfferedAddressIsHeld(t *testing.T) {
	p := testPool(t, 10, 11)
	a, _ := pick(p, owner(1), netip.Addr{}, testNow)
	require.True(t, p.Offer(a, owner(1), testNow, testNow.Add(time.Minute)))
	b, _ := pick(p, owner(2), a, testNow)
	require.NotEqual(t, a, b)
	require.True(t, p.Offer(b, owner(2), testNow, testNow.Add(time.Minute)))
	_, ok := pick(p, owner(3), netip.Addr{}, testNow)
	assert.False(t, ok, "both are held")
	_, ok = pick(p, owner(3), netip.Addr{}, testNow.Add(time.Minute))
	assert.True(t, ok, "nobody asked for them")
	// A client that is offered another address gives the first one up.
	require.True(t, p.Offer(a, owner(1), testNow, testNow.Add(time.Minute)))
	require.False(t, p.Release(b, owner(2), testNow), "it is over")
	require.True(t, p.Offer(b, owner(1), testNow, testNow.Add(time.Minute)))
	assert.Equal(t, StateFree, p.Get(a, testNow).State)
}

func TestReservedQuarantinedAndBoundAreNotGiven(t *testing.T) {
	p := testPool(t, 0, 5, host(0), host(1), host(1), host(200))
	require.True(t, p.Quarantine(host(2), testNow, testNow.Add(time.Hour)))
	assert.False(t, p.Quarantine(host(1), testNow, testNow.Add(time.Hour)), "reserved")
	assert.False(t, p.Quarantine(host(9), testNow, testNow.Add(time.Hour)), "outside")
	require.True(t, p.Lease(host(4), owner(4), testNow, testNow.Add(time.Hour)))
	var unbound []netip.Addr
	gone := func(a netip.Addr) { unbound = append(unbound, a) }
	p.SetBound(slices.Values([]netip.Addr{host(1), host(3), host(4), host(77)}), gone)
	assert.Empty(t, unbound)
	assert.Equal(t, Counts{Size: 2, Free: 1, Quarantined: 1, Bound: 2}, p.Counts(testNow))
	assert.InDelta(t, 0.5, p.Counts(testNow).Used(), 1e-9)
	assert.False(t, p.May(host(4), owner(4), testNow), "the ERP gave the leased address to a subscriber")
	for n := range byte(5) {
		a, ok := pick(p, owner(9), host(n), testNow)
		require.True(t, ok)
		assert.Equal(t, host(5), a, "the only one")
	}
	assert.Equal(t, Slot{State: StateLeased, Bound: true, Owner: owner(4), Until: testNow.Add(time.Hour)}, p.Get(host(4), testNow))
	p.SetBound(slices.Values([]netip.Addr{host(3)}), gone)
	assert.Equal(t, []netip.Addr{host(4)}, unbound)
	assert.True(t, p.May(host(4), owner(4), testNow))
	p.SetBound(slices.Values([]netip.Addr(nil)), nil)
	assert.Equal(t, Counts{Size: 4, Free: 4}, p.Counts(testNow.Add(time.Hour)), "what was quarantined comes back")
	var left []netip.Addr
	for a := range p.All(testNow) {
		left = append(left, a)
	}
	assert.Equal(t, []netip.Addr{host(4)}, left, "who had it is remembered")
}

func TestRestore(t *testing.T) {
	p := testPool(t, 0, 9)
	require.True(t, p.Restore(host(1), owner(1), StateFree, time.Time{}))
	require.True(t, p.Restore(host(2), owner(2), StateLeased, testNow.Add(3*time.Hour)))
	require.True(t, p.Restore(host(3), owner(3), StateLeased, testNow.Add(time.Hour)))
	require.True(t, p.Restore(host(4), owner(4), StateLeased, testNow.Add(2*time.Hour)))
	require.True(t, p.Restore(host(5), owner(5), StateQuarantined, testNow.Add(time.Hour)))
	assert.False(t, p.Restore(host(6), owner(6), StateReserved, testNow))
	assert.False(t, p.Restore(host(66), owner(6), StateLeased, testNow))
	for n := 1; n <= 4; n++ {
		a, ok := pick(p, owner(n), netip.Addr{}, testNow)
		require.True(t, ok)
		assert.Equal(t, host(byte(n)), a)
	}
	for h, want := range map[int]int{0: 3, 1: 2, 2: 1, 3: 0} {
		q := testPool(t, 0, 9)
		for n, until := range []int{3, 1, 2} {
			require.True(t, q.Restore(host(byte(n)), owner(n+1), StateLeased, testNow.Add(time.Duration(until)*time.Hour)))
		}
		assert.Equal(t, want, q.Counts(testNow.Add(time.Duration(h)*time.Hour)).Leased, "after %d h", h)
	}
}

// A thousand leases that end at once are not all cleared by the next packet,
// but they are in nobody's way.
func TestManyExpiriesAtOnce(t *testing.T) {
	p, err := New(netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.15.255"))
	require.NoError(t, err)
	for i := range 4096 {
		a, ok := pick(p, owner(i+1), netip.Addr{}, testNow)
		require.True(t, ok, i)
		require.True(t, p.Lease(a, owner(i+1), testNow, testNow.Add(time.Minute)))
	}
	_, ok := pick(p, owner(5000), netip.Addr{}, testNow)
	require.False(t, ok)
	later := testNow.Add(time.Minute)
	a, ok := pick(p, owner(5000), netip.Addr{}, later)
	require.True(t, ok)
	require.True(t, p.Lease(a, owner(5000), later, later.Add(time.Minute)))
	assert.Equal(t, Counts{Size: 4096, Free: 4095, Leased: 1}, p.Counts(later))
}

// model is the same as a Pool, in the simplest words.
type model struct {
	slots map[netip.Addr]*Slot
	last  map[provision.Owner]netip.Addr
}

func (m *model) settle(now time.Time) {
	for _, s := range m.slots {
		if s.State != StateFree && s.State != StateReserved && !s.Until.After(now) {
			s.State, s.Until = StateFree, time.Time{}
		}
	}
}

func (m *model) may(a netip.Addr, k provision.Owner) bool {
	s, ok := m.slots[a]
	return ok && !s.Bound && (s.State == StateFree || (s.State == StateOffered || s.State == StateLeased) && s.Owner == k)
}

func (m *model) give(a netip.Addr, k provision.Owner, st State, until time.Time) {
	if old, ok := m.last[k]; ok && old != a && m.slots[old].State == StateOffered && m.slots[old].Owner == k {
		m.slots[old].State, m.slots[old].Until = StateFree, time.Time{}
	}
	if s := m.slots[a]; m.last[s.Owner] == a {
		delete(m.last, s.Owner)
	}
	if old, ok := m.last[k]; ok && old != a && m.slots[old].State == StateFree {
		m.slots[old].Owner = provision.Owner{}
	}
	if !k.IsZero() {
		m.last[k] = a
	}
	s := m.slots[a]
	s.State, s.Owner, s.Until = st, k, until
}

// walk does what data says to a Pool and a model and compares them after every step.
func walk(t testing.TB, data []byte) {
	t.Helper()
	const n = 12
	p := testPool(t, 0, n-1, host(0))
	m := &model{slots: map[netip.Addr]*Slot{}, last: map[provision.Owner]netip.Addr{}}
	for i := range byte(n) {
		m.slots[host(i)] = &Slot{State: StateFree}
	}
	m.slots[host(0)].State = StateReserved
	now := testNow
	const hold, lease, quarantine = 10 * time.Second, time.Minute, 3 * time.Minute
	for len(data) >= 3 {
		op, who, x := data[0]%9, owner(1+int(data[1]%16)), data[2]
		data = data[3:]
		a := host(x % (n + 1)) // the last one is outside
		m.settle(now)
		switch op {
		case 0, 1:
			got, fit := p.Pick(who, a, now)
			ok := fit != 0
			free := 0
			for b := range m.slots {
				// After a restart a client may have two addresses: it gets the other one if it wants that.
				if m.may(b, who) && (m.slots[b].State == StateFree || m.last[who] == b || b == a) {
					free++
				}
			}
			require.Equal(t, free > 0, ok, "pick")
			if !ok {
				continue
			}
			require.True(t, m.may(got, who), "picked %v", got)
			switch had, ok := m.last[who]; {
			case ok && m.may(had, who):
				require.Equal(t, had, got, "what it has or had")
				require.Equal(t, FitOwn, fit)
			case m.may(a, who):
				require.Equal(t, a, got, "what it wants")
				require.Equal(t, FitWanted, fit)
			default:
				require.Equal(t, FitNew, fit)
			}
			if op == 1 {
				a = got
				require.True(t, p.Offer(a, who, now, now.Add(hold)))
				if m.slots[a].State != StateLeased {
					m.give(a, who, StateOffered, now.Add(hold))
				}
			}
		case 2:
			ok := p.Lease(a, who, now, now.Add(lease))
			require.Equal(t, m.may(a, who), ok, "lease")
			if ok {
				m.give(a, who, StateLeased, now.Add(lease))
			}
		case 3:
			want := m.may(a, who) && m.slots[a].State != StateFree
			require.Equal(t, want, p.Release(a, who, now), "release")
			if want {
				m.slots[a].State, m.slots[a].Until = StateFree, time.Time{}
			}
		case 4:
			s, ok := m.slots[a]
			ok = ok && s.State != StateReserved
			require.Equal(t, ok, p.Quarantine(a, now, now.Add(quarantine)))
			if ok {
				m.give(a, provision.Owner{}, StateQuarantined, now.Add(quarantine))
			}
		case 5:
			now = now.Add(time.Duration(x) * time.Second)
		case 6:
			var bound []netip.Addr
			for i := range byte(8) {
				if x>>i&1 != 0 {
					bound = append(bound, host(i+2))
				}
			}
			p.SetBound(slices.Values(bound), nil)
			for b, s := range m.slots {
				s.Bound = s.State != StateReserved && slices.Contains(bound, b)
			}
		case 7:
			until := now.Add(time.Duration(x) * time.Second)
			s, ok := m.slots[a]
			ok = ok && s.State != StateReserved
			require.Equal(t, ok, p.Restore(a, who, StateLeased, until))
			if ok {
				m.give(a, who, StateLeased, until)
			}
		case 8:
			s, ok := m.slots[a]
			ok = ok && s.State != StateReserved
			require.Equal(t, ok, p.Restore(a, who, StateFree, time.Time{}))
			if ok {
				m.give(a, who, StateFree, time.Time{})
			}
		}
		m.settle(now)
		want := Counts{}
		for b, s := range m.slots {
			require.Equal(t, *s, p.Get(b, now), "%v after op %d", b, op)
			switch {
			case s.Bound:
				want.Bound++
				continue
			case s.State == StateReserved:
				continue
			case s.State == StateFree:
				want.Free++
			case s.State == StateOffered:
				want.Offered++
			case s.State == StateLeased:
				want.Leased++
			case s.State == StateQuarantined:
				want.Quarantined++
			}
			want.Size++
		}
		require.Equal(t, want, p.Counts(now))
	}
}

func TestPoolAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range long.Times(t, 30, 8000) {
		data := make([]byte, 3*400)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		walk(t, data)
	}
}

func FuzzPool(f *testing.F) {
	f.Add([]byte{1, 1, 3, 2, 1, 3, 5, 0, 200, 0, 1, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 3000 {
			return
		}
		walk(t, data)
	})
}

// full is a /16 that clients have come and gone in.
func full(t testing.TB, clients int) (*Pool, time.Time) {
	p, err := New(netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.255.255"))
	require.NoError(t, err)
	now := testNow
	for i := range clients {
		now = now.Add(time.Millisecond)
		serve(t, p, i, now)
	}
	return p, now
}

func pick(p *Pool, k provision.Owner, want netip.Addr, now time.Time) (netip.Addr, bool) {
	a, fit := p.Pick(k, want, now)
	return a, fit != 0
}

// serve is DISCOVER and REQUEST of a client.
func serve(t testing.TB, p *Pool, i int, now time.Time) {
	k := provision.MAC{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}.Owner()
	a, ok := pick(p, k, netip.Addr{}, now)
	if !ok || !p.Offer(a, k, now, now.Add(time.Minute)) || !p.Lease(a, k, now, now.Add(30*time.Second)) {
		t.Fatal("no address")
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	p, now := full(t, 100_000)
	i := 0
	assert.Zero(t, testing.AllocsPerRun(10_000, func() {
		now = now.Add(time.Millisecond)
		serve(t, p, 7919*i, now) // known and new clients
		i++
	}))
}

// New clients come to a /16 as old ones go; 30,000 leases live at any time.
func BenchmarkAllocate(b *testing.B) {
	for _, size := range []int{1 << 8, 1 << 16, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p, err := New(netip.MustParseAddr("10.0.0.0"), netip.AddrFrom4([4]byte{10, byte((size - 1) >> 16), byte((size - 1) >> 8), byte(size - 1)}))
			require.NoError(b, err)
			now, i := testNow, 0
			step := time.Minute / time.Duration(size)
			for range 2 * size {
				now = now.Add(step)
				serve(b, p, i, now)
				i++
			}
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(step)
				serve(b, p, i, now)
				i++
			}
		})
	}
}

// A clock that is set back must not keep addresses until it is where it was.
func TestClockSetBack(t *testing.T) {
	first, last := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.4")
	p, err := New(first, last)
	require.NoError(t, err)
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	lease := func(n byte, at time.Time) netip.Addr {
		a, fit := p.Pick(provision.MAC{2, n}.Owner(), netip.Addr{}, at)
		require.NotZero(t, fit)
		require.True(t, p.Lease(a, provision.MAC{2, n}.Owner(), at, at.Add(2*time.Minute)))
		return a
	}
	a := lease(1, now)
	now = now.Add(time.Minute)
	lease(2, now)
	now = now.Add(-24 * time.Hour)
	lease(3, now)
	lease(4, now)
	assert.Equal(t, 4, p.Counts(now).Leased)
	assert.Equal(t, now.Add(time.Minute), p.Get(a, now).Until, "as much is left as was")
	assert.Equal(t, 3, p.Counts(now.Add(61*time.Second)).Leased)
	assert.Equal(t, 0, p.Counts(now.Add(121*time.Second)).Leased)
	// A moment back is only another order of looks at the clock.
	now = now.Add(time.Hour)
	p.Counts(now)
	a = lease(1, now.Add(-time.Second))
	assert.Equal(t, now.Add(119*time.Second), p.Get(a, now).Until)
}

// What is restored again as it is, which a reload does with all leases of a pool, is not put into its
// place anew: that would be a look at all others for each.
func TestRestoringAgainLooksAtNoOthers(t *testing.T) {
	const n = 20_000
	p, err := New(netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.255.255"))
	require.NoError(t, err)
	all := func() time.Duration {
		begin := time.Now()
		for i := range uint32(n) {
			require.True(t, p.Restore(p.addr(i), provision.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}.Owner(), StateLeased, testNow.Add(time.Duration(i)*time.Second)))
		}
		return time.Since(begin)
	}
	first := all()
	again := all()
	require.Less(t, again, 10*first+10*time.Millisecond)
	require.Equal(t, n-1, p.Counts(testNow).Leased, "one ends now")
	require.Equal(t, n-10, p.Counts(testNow.Add(9*time.Second)).Leased, "they end as before")
}

// An owner that is more than a MAC is looked for only where there is one; whatever happens, the pool knows how many there are.
func TestOwnersThatAreMoreThanAMACAreCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	p := testPool(t, 1, 40)
	line := func(n int) provision.Owner { return provision.MAC{2, 0, 0, 0, 0, byte(n)}.OwnerOn(77) }
	now := testNow
	for range 20_000 {
		now = now.Add(time.Duration(rng.IntN(60)) * time.Second)
		who := owner(1 + rng.IntN(30))
		if rng.IntN(2) == 0 {
			who = line(1 + rng.IntN(30))
		}
		at := host(byte(1 + rng.IntN(40)))
		if own, ok := p.Of(who); ok && rng.IntN(2) == 0 {
			at = own
		}
		switch until := now.Add(10 * time.Minute); rng.IntN(6) {
		case 0:
			p.Offer(at, who, now, until)
		case 1:
			p.Release(at, who, now)
		case 2:
			p.Quarantine(at, now, until)
		case 3:
			p.Restore(at, who, []State{StateFree, StateLeased, StateOffered}[rng.IntN(3)], until)
		default:
			p.Lease(at, who, now, until)
		}
		n := 0
		for _, i := range p.index {
			if i != 0 && keyed(p.slots[i-1].owner) {
				n++
			}
		}
		require.Equal(t, n, p.keyed)
	}
}
