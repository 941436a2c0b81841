package access

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func TestDescriptors(t *testing.T) {
	names := map[string]bool{}
	for s := range Sets() {
		require.NotEmpty(t, s.String())
		require.NotEmpty(t, s.About())
		require.NotEmpty(t, s.Key())
		require.False(t, names[s.String()], "two sets are called %s", s)
		names[s.String()] = true
		require.True(t, s.descriptor().effect != blocks || s.Of(PartAddr), "%s blocks, so it holds addresses", s)
	}
	require.Len(t, names, int(setEnd)-1)
	require.Equal(t, "invalid", setEnd.String())
	require.Zero(t, setEnd.Width())
}

func TestElement(t *testing.T) {
	mac := provision.MAC{2, 0, 0, 0, 0, 7}
	tests := []struct {
		name   string
		set    Set
		fields Fields
		key    string // as the kernel has it
		text   string
		err    string
	}{
		{name: "address", set: SetStopped, fields: Fields{Addr: provisiontest.Addr("100.64.0.1")}, key: "\x64\x40\x00\x01", text: "100.64.0.1"},
		{name: "mapped form is the same address", set: SetPaused, fields: Fields{Addr: provisiontest.Addr("::ffff:100.64.0.1")}, key: "\x64\x40\x00\x01", text: "100.64.0.1"},
		{name: "IPv6", set: SetStopped, fields: Fields{Addr: provisiontest.Addr("2001:db8::1")}, err: "2001:db8::1: not an IPv4 address"},
		{name: "no address", set: SetStopped, err: "invalid IP: not an IPv4 address"},
		{name: "prefix", set: SetGarden, fields: Fields{Prefix: netip.MustParsePrefix("192.0.2.128/25")}, key: "\xc0\x00\x02\x80\x19", text: "192.0.2.128/25"},
		{name: "prefix with bits behind it", set: SetGarden, fields: Fields{Prefix: netip.MustParsePrefix("192.0.2.1/25")}, err: "192.0.2.1/25: not an IPv4 prefix"},
		{name: "IPv6 prefix", set: SetExempt, fields: Fields{Prefix: netip.MustParsePrefix("2001:db8::/32")}, err: "2001:db8::/32: not an IPv4 prefix"},
		{name: "interface", set: SetGuardedVLAN, fields: Fields{Interface: "fifteenletters0"}, key: "fifteenletters0\x00", text: "fifteenletters0"},
		{name: "too long a name", set: SetGuardedDirect, fields: Fields{Interface: "a name too long for an interface"},
			err: `interface "a name too long for an interface": want a name of 1 to 15 bytes`},
		{name: "no name", set: SetGuardedDirect, err: `interface "": want a name of 1 to 15 bytes`},
		{name: "address and MAC", set: SetBoundDirect, fields: Fields{Addr: provisiontest.Addr("192.0.2.4"), MAC: mac},
			key: "\xc0\x00\x02\x04\x02\x00\x00\x00\x00\x07\x00\x00", text: "192.0.2.4 . 02:00:00:00:00:07"},
		{name: "interface and address", set: SetBoundVLAN, fields: Fields{Addr: provisiontest.Addr("192.0.2.4"), Interface: "eth0.7"},
			key: "eth0.7\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x04", text: "eth0.7 . 192.0.2.4"},
		{name: "a MAC alone", set: SetPausedMAC, fields: Fields{MAC: mac}, key: "\x02\x00\x00\x00\x00\x07", text: "02:00:00:00:00:07"},
		{name: "interface without an address", set: SetBoundVLAN, fields: Fields{Interface: "eth0.7"}, err: "invalid IP: not an IPv4 address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := tt.set.Element(tt.fields)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				require.Empty(t, e.Key)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, Element{tt.set, tt.key}, e)
			assert.Len(t, e.Key, tt.set.Width())
			assert.Equal(t, tt.text, e.String())
			again, err := tt.set.Element(e.Fields())
			require.NoError(t, err)
			assert.Equal(t, e, again)
		})
	}
}

func TestWhatIsNoElementIsLeftOut(t *testing.T) {
	assert.Equal(t, keys("192.0.2.1", "192.0.2.2"), Addrs(provisiontest.Addr("192.0.2.1"), netip.Addr{}, provisiontest.Addr("2001:db8::1"), provisiontest.Addr("192.0.2.2")))
	assert.Equal(t, VLANBindings(VLANBinding{"eth0", provisiontest.Addr("192.0.2.1")}),
		VLANBindings(VLANBinding{"eth0", provisiontest.Addr("2001:db8::1")}, VLANBinding{"eth0", provisiontest.Addr("192.0.2.1")}))
}

// What is done to keys, against the same done to what they stand for, one by one.
func TestKeysAgreeWithAModel(t *testing.T) {
	rng := provisiontest.Rand(21)
	// An element in a form that is compared as the order is meant: by its address,
	// then by all else.
	type model map[string]Element
	of := func(a ACL, s Set) model {
		m := model{}
		for e := range a.Elements(s) {
			f := e.Fields()
			four, n := f.Addr, 0
			if f.Prefix.IsValid() {
				four, n = f.Prefix.Addr(), f.Prefix.Bits()
			}
			m[fmt.Sprintf("%-12x%02d%s%s", four.AsSlice(), n, f.MAC, f.Interface)] = e
		}
		return m
	}
	list := func(m model) []Element {
		var out []Element
		for _, order := range slices.SortedFunc(maps.Keys(m), cmp.Compare[string]) {
			out = append(out, m[order])
		}
		return out
	}
	for range long.Times(t, 300, 2000) {
		a, b := randomACL(rng, false), randomACL(rng, false)
		for s := range Sets() {
			if rng.IntN(4) == 0 {
				a[s] += b[s]
			}
		}
		sortedA, minus := a.Sorted(), a.Sorted().Minus(b.Sorted())
		for s := range Sets() {
			have, other := of(a, s), of(b, s)
			require.Equal(t, list(have), slices.Collect(sortedA.Elements(s)), s)
			require.Equal(t, len(have), sortedA.Counts()[s])
			require.Equal(t, s.Sorted(a[s]), s.Sorted(s.Sorted(a[s])))
			for order, e := range other {
				_, in := have[order]
				require.Equal(t, in, sortedA.Has(e), e)
				delete(have, order)
			}
			require.Equal(t, list(have), slices.Collect(minus.Elements(s)), s)
		}
	}
}

// Long lists that are almost equal, as those of a plan are.
func TestMinusOfLongLists(t *testing.T) {
	rng := provisiontest.Rand(22)
	var all []netip.Addr
	for i := range 3000 {
		all = append(all, provisiontest.IP(i))
	}
	for range 300 {
		var left, right []netip.Addr
		var want []netip.Addr
		rare := 2 + rng.IntN(2000)
		for _, a := range all[:rng.IntN(len(all))] {
			inLeft, inRight := rng.IntN(rare) > 0, rng.IntN(rare) > 0
			if inLeft {
				left = append(left, a)
			}
			if inRight {
				right = append(right, a)
			}
			if inLeft && !inRight {
				want = append(want, a)
			}
		}
		require.Equal(t, want, addrsOf(SetStopped.minus(Addrs(left...), Addrs(right...))))
	}
}
