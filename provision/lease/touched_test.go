package lease

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// It is not told that a lease goes on, and is of everything else: what ends it, shortens it, moves it, or begins it anew.
func TestTouched(t *testing.T) {
	tab := New()
	rec := testRecord(ip7)
	tab.Store(rec)
	facts := tab.Touched()
	told := func() int {
		n, _ := facts.take(make([]netip.Addr, 4))
		return n
	}
	require.Zero(t, told(), "it begins with what changes from now on")
	end := rec.Expires
	for _, c := range []struct {
		what string
		do   func()
		fact int
	}{
		{"renewed", func() { tab.Renew(ip7, mac1, testNow.Add(time.Minute), end.Add(time.Minute)) }, 0},
		{"renewed through its relay, with other options", func() {
			r := rec
			r.Option82, r.Renewed, r.Expires = Hex{1, 1, 'y'}, testNow.Add(2*time.Minute), end.Add(2*time.Minute)
			tab.Store(r)
		}, 0},
		{"shortened", func() { tab.Renew(ip7, mac1, testNow.Add(3*time.Minute), end) }, 1},
		{"on another interface", func() {
			r := rec
			r.Interface = "eth9"
			tab.Store(r)
		}, 1},
		{"ended", func() { tab.End(ip7, mac1, testNow.Add(4*time.Minute)) }, 1},
		{"renewed after its end", func() { tab.Renew(ip7, mac1, testNow.Add(5*time.Minute), end) }, 1},
		{"kept", func() { tab.Keep(ip7, mac1, StateReleased, testNow.Add(6*time.Minute)) }, 1},
		{"renewed after it was kept", func() { tab.Renew(ip7, mac1, testNow.Add(7*time.Minute), end) }, 1},
		{"another client", func() {
			r := rec
			r.MAC = mac2
			tab.Store(r)
		}, 1},
		{"forgotten", func() { tab.Prune(end.Add(2*Grace), 10) }, 1},
	} {
		c.do()
		assert.Equal(t, c.fact, told(), c.what)
	}
}

// However often an address changes before it is asked, it is told once; the end comes after the last one.
func TestTouchedMergesAndEnds(t *testing.T) {
	tab := New()
	f := tab.Touched()
	for i := range 3000 {
		for range 3 {
			rec := testRecord(addrOf(uint32(i + 1)))
			rec.MAC = provision.MAC{2, byte(i)}
			tab.Store(rec)
			tab.End(rec.IP, rec.MAC, testNow)
		}
	}
	require.NoError(t, tab.Close())
	var all []netip.Addr
	buf := make([]netip.Addr, 64)
	for {
		n, err := f.Next(t.Context(), buf)
		if errors.Is(err, ErrEnded) {
			break
		}
		require.NoError(t, err)
		all = append(all, buf[:n]...)
	}
	require.Len(t, all, 3000)
	require.True(t, slices.IsSortedFunc(all, netip.Addr.Compare), "in the order of the first change")
	_, err := tab.Touched().Next(t.Context(), buf)
	require.ErrorIs(t, err, ErrEnded)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = New().Touched().Next(ctx, buf)
	require.ErrorIs(t, err, context.Canceled)
}

// What somebody looks at by himself is not told, unless it changes again after that; and what was dropped does not pile up.
func TestTouchedDrops(t *testing.T) {
	tab := New()
	f := tab.Touched()
	buf := make([]netip.Addr, 64)
	told := func() []netip.Addr {
		n, _ := f.take(buf)
		return slices.Clone(buf[:n])
	}
	change := func(keys ...uint32) {
		for _, k := range keys {
			rec := testRecord(addrOf(k))
			tab.Store(rec)
			tab.End(rec.IP, rec.MAC, testNow)
		}
	}
	change(1, 2, 3)
	f.Drop([]netip.Addr{addrOf(1), addrOf(3), addrOf(9)})
	require.Equal(t, []netip.Addr{addrOf(2)}, told())
	require.Empty(t, told())
	change(1, 2, 3)
	f.Drop([]netip.Addr{addrOf(1)})
	change(1)
	require.Equal(t, []netip.Addr{addrOf(2), addrOf(3), addrOf(1)}, told())
	change(7) // which stays, as while nobody asks
	for range 1000 {
		change(5, 6)
		f.Drop([]netip.Addr{addrOf(5), addrOf(6)})
	}
	require.Less(t, len(f.order), 10)
	require.Equal(t, []netip.Addr{addrOf(7)}, told())
}
