package acl_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// cmpACL compares and shows elements as text.
var cmpACL = cmp.Transformer("elements", func(a access.ACL) (out []string) {
	for set := range access.Sets() {
		for e := range a.Elements(set) {
			out = append(out, set.String()+" "+e.String())
		}
	}
	return out
})

// randomWish is an ACL with some elements of every kind, as the enforcer may want it.
func randomWish(rng *rand.Rand) access.ACL {
	ip := func() netip.Addr {
		return netip.AddrFrom4([4]byte{byte(1 + rng.IntN(254)), byte(rng.IntN(256)), byte(rng.IntN(3)), byte(rng.IntN(256))})
	}
	var in access.Inputs
	prefixes := func(list *[]netip.Prefix) {
		for range rng.IntN(12) {
			*list = append(*list, netip.PrefixFrom(ip(), []int{1, 3, 8, 16, 24, 30, 31, 32, 32}[rng.IntN(9)]))
		}
		if rng.IntN(4) == 0 { // neighbours, and the end of all addresses
			*list = append(*list, netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16"),
				netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("0.0.0.0/32"))
		}
	}
	prefixes(&in.Garden)
	prefixes(&in.GuestGarden)
	prefixes(&in.ExemptAddrs)
	if in.Resolvers = nil; rng.IntN(3) > 0 {
		in.Resolvers = append(in.Resolvers, netip.MustParsePrefix("0.0.0.0/0"))
	}
	names := []string{"eth0.1", "eth0.2", "eth0.12", "a", "b", "az", "za", "fifteenletters0"}
	for range rng.IntN(6) {
		in.GuardDirect = append(in.GuardDirect, names[rng.IntN(len(names))])
		in.GuardVLAN = append(in.GuardVLAN, names[rng.IntN(len(names))])
	}
	var grants []access.Grant
	for range rng.IntN(30) {
		grants = append(grants, access.Grant{IP: ip(), Direct: true, MAC: provision.MAC{2, byte(rng.IntN(3)), 0, 0, 0, byte(rng.IntN(4))}},
			access.Grant{IP: ip(), Interface: names[rng.IntN(len(names))]})
	}
	in.Leases = slices.Values(grants)
	want := access.Want(nil, in)
	for _, set := range []access.Set{access.SetStopped, access.SetPaused, access.SetGuests} {
		for range rng.IntN(9) {
			want[set] += access.Addrs(ip())
		}
	}
	for _, kind := range []access.Set{access.SetStopped, access.SetPaused, access.SetBoundDirect, access.SetBoundVLAN} {
		for range rng.IntN(4) { // their sets come and go with them
			bits := 20 + rng.IntN(13)
			set := kind.Subnets(bits)
			e, err := set.Element(access.Fields{Prefix: netip.PrefixFrom(ip(), bits).Masked(), MAC: provision.MAC{2, byte(rng.IntN(3))}, Interface: names[rng.IntN(len(names))]})
			if err != nil {
				panic(err)
			}
			want[set] += access.Keys(e.Key)
		}
	}
	for range rng.IntN(9) {
		want[access.SetStoppedMAC] += access.Keys(key(rng.Uint64())[:6])
		want[access.SetPausedMAC] += access.Keys(key(rng.Uint64() & 3)[:6])
	}
	for range rng.IntN(4) {
		want[access.SetIPv6Direct] += access.Interfaces(names[rng.IntN(len(names))])
		want[access.SetPausedInterface] += access.Interfaces(names[rng.IntN(len(names))])
	}
	return want.Sorted()
}

// left is what is left of the time of an element, which runs on between two readings.
var left = regexp.MustCompile(`expires (\d+[dhms]+)+`)

// requireText requires the agent's text of its tables to be nft's. The counters of a
// table with traffic are those of one moment only if nothing came between two
// listings of nft with the text between them: until then all three are read again.
func (r *router) requireText(table *acl.Table) (text string) {
	r.t.Helper()
	timeless := func(s string) string { return left.ReplaceAllString(s, "expires X") }
	deadline := time.Now().Add(patience)
	for before := timeless(r.ours()); ; {
		var err error
		text, err = table.AsNFT(r.t.Context())
		require.NoError(r.t, err)
		after := timeless(r.ours())
		diff := cmp.Diff(after, timeless(text))
		if diff == "" {
			return text
		}
		if before == after || time.Now().After(deadline) {
			r.t.Fatalf("(-nft +ours):\n%s", diff)
		}
		before = after
	}
}

func key(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// From any state to any other, elements of all kinds, in the kernel: the kernel
// agrees, and the text is nft's to the byte.
func TestKernelRandomWalkAndText(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	policies := []ruleset.Policy{{}, {SourceGuard: true}, {Portal: netip.MustParseAddrPort("0.0.0.0:8080")},
		{Portal: netip.MustParseAddrPort("192.0.2.1:80"), SourceGuard: true}, {IPv6: true}, {IPv6: true, Egress: "down0"}, {IPv6: true, Egress: "down0 down1"},
		{Portal: netip.MustParseAddrPort("192.0.2.1:80"), PortalBeforeGarden: true, SourceGuard: true, Alone: true, IPv6: true, Egress: "down0"}}
	r := newRouter(t)
	r.wire("down0", "a")
	r.wire("down1", "b")
	table := r.open()
	var have access.ACL
	for i := range long.Times(t, 20, 4000) {
		if rng.IntN(8) == 0 {
			table.Reconfigure(policies[rng.IntN(len(policies))])
			require.Empty(t, cmp.Diff(have, observe(t, table).Sorted(), cmpACL), "a new policy keeps the elements")
		}
		want := randomWish(rng)
		apply(t, table, access.Plan(want, observe(t, table)))
		have = observe(t, table).Sorted()
		require.Empty(t, cmp.Diff(want, have, cmpACL), "step %d", i)
		require.False(t, changed(t, table))
		r.requireText(table)
	}
	require.Zero(t, table.Repairs())
}

func TestKernelTextOfCountersAndTimes(t *testing.T) {
	r := newRouter(t)
	r.wire("down0", "client")
	table := r.openWith(acl.Options{Policy: ruleset.Policy{SourceGuard: true, IPv6: true, Egress: "down0"}})
	_, err := table.OpenFor(t.Context(), 25*time.Hour-time.Hour)
	require.NoError(t, err)
	for i := range 5 {
		r.nft(fmt.Sprintf("add element inet usher refused { 100.64.0.%d counter packets %d bytes %d }", 10-i, i, 84*i))
	}
	text := r.requireText(table)
	require.Len(t, left.FindAllString(text, -1), 8)
	require.Contains(t, text, "100.64.0.6 counter packets 4 bytes 336 expires ")

	r.nft("add chain inet usher more")
	_, err = table.AsNFT(t.Context())
	require.ErrorIs(t, err, acl.ErrNotAsWritten)
}

// What a dry run shows can be loaded, and is then what the agent would have made.
func TestKernelTextOfAWishCanBeLoaded(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	want := randomWish(rng)
	policy := ruleset.Policy{Portal: netip.MustParseAddrPort("0.0.0.0:8080"), SourceGuard: true, IPv6: true, Egress: "down0"}
	text := ruleset.Listing{Policy: policy, Have: want}.String()
	r := newRouter(t)
	r.wire("down0", "client")
	r.nft(text)
	if diff := cmp.Diff(r.ours(), text); diff != "" {
		t.Fatalf("(-nft +ours):\n%s", diff)
	}
	before := r.ours("-a")
	table := r.openWith(acl.Options{Policy: policy})
	require.Empty(t, cmp.Diff(want, observe(t, table).Sorted(), cmpACL))
	requireSameButCounted(t, before, r.ours("-a"), "adopted, not replaced")
}
