package access

import (
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// seat is the lease of a subscriber's address from a pool.
type seat struct {
	id provision.SubscriberID
	ip string
}

func seats(list ...seat) iter.Seq[Grant] {
	return func(yield func(Grant) bool) {
		for _, s := range list {
			if !yield(Grant{IP: netip.MustParseAddr(s.ip), Subscriber: s.id}) {
				return
			}
		}
	}
}

// bound are the leases that give these bindings.
func bound(direct []DirectBinding, vlan []VLANBinding) iter.Seq[Grant] {
	var list []Grant
	for _, b := range direct {
		list = append(list, Grant{IP: b.IP, MAC: b.MAC, Direct: true})
	}
	for _, b := range vlan {
		list = append(list, Grant{IP: b.IP, Interface: b.Interface})
	}
	return slices.Values(list)
}

func TestWant(t *testing.T) {
	snap := provisiontest.Build(t, provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateActive}, {ID: 4, State: provision.StateStop}, {ID: 5, State: provision.StatePause}},
		Lines: []provision.Line{
			{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1")), MAC: provision.MAC{2, 0, 0, 0, 0, 1}},
			{Subscriber: 2, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.2")), VLAN: 7},
			{Subscriber: 3, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.3")), MAC: provision.MAC{2, 0, 0, 0, 0, 3}},
			{Subscriber: 4, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.4"))},
			{Subscriber: 4, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.14"))},
		},
	})
	base := ACL{SetStopped: keys("192.0.2.1", "192.0.2.4", "192.0.2.14"), SetPaused: keys("192.0.2.2")}
	tests := []struct {
		name string
		in   Inputs
		want func(*ACL)
	}{
		{name: "nothing more"},
		{name: "an exempt subscriber, with all addresses", in: Inputs{Exempt: []provision.SubscriberID{4, 99}},
			want: func(a *ACL) { a[SetStopped] = keys("192.0.2.1") }},
		{name: "an exempt prefix", in: Inputs{ExemptAddrs: prefixes("192.0.2.0/30")},
			want: func(a *ACL) {
				a[SetStopped], a[SetPaused] = keys("192.0.2.4", "192.0.2.14"), ""
				a[SetExempt] = Prefixes(prefixes("192.0.2.0/30")...)
			}},
		{name: "DHCP servers beyond", in: Inputs{DHCPServers: prefixes("203.0.113.67/32", "203.0.113.64/28")},
			want: func(a *ACL) { a[SetDHCPServers] = Prefixes(prefixes("203.0.113.64/28")...) }},
		{name: "guests are who has an address and no binding",
			in:   Inputs{GuestRanges: []AddrRange{{provisiontest.Addr("192.0.2.1"), provisiontest.Addr("192.0.2.6")}, {provisiontest.Addr("192.0.2.6"), provisiontest.Addr("192.0.2.6")}}},
			want: func(a *ACL) { a[SetGuests] = keys("192.0.2.5", "192.0.2.6") }},
		{name: "guests in the last addresses of all", in: Inputs{GuestRanges: []AddrRange{{provisiontest.Addr("255.255.255.254"), provisiontest.Addr("255.255.255.255")}}},
			want: func(a *ACL) { a[SetGuests] = keys("255.255.255.254", "255.255.255.255") }},
		{name: "a range the wrong way round", in: Inputs{GuestRanges: []AddrRange{{provisiontest.Addr("192.0.2.9"), provisiontest.Addr("192.0.2.5")}}}},
		{name: "leases share the state, bindings win",
			in: Inputs{
				Leases:      seats(seat{1, "192.0.2.50"}, seat{2, "192.0.2.51"}, seat{3, "192.0.2.52"}, seat{1, "192.0.2.3"}, seat{99, "192.0.2.53"}, seat{4, "2001:db8::1"}),
				GuestRanges: []AddrRange{{provisiontest.Addr("192.0.2.50"), provisiontest.Addr("192.0.2.53")}},
			},
			want: func(a *ACL) {
				a[SetStopped] = keys("192.0.2.1", "192.0.2.4", "192.0.2.14", "192.0.2.50")
				a[SetPaused] = keys("192.0.2.2", "192.0.2.51")
				a[SetGuests] = keys("192.0.2.53")
			}},
		{name: "the lease of an exempt subscriber", in: Inputs{Exempt: []provision.SubscriberID{1}, Leases: seats(seat{1, "192.0.2.50"})},
			want: func(a *ACL) { a[SetStopped] = keys("192.0.2.4", "192.0.2.14") }},
		{name: "prefixes are made tidy",
			in: Inputs{
				Garden:      append(prefixes("198.51.100.7/24", "198.51.100.0/25", "203.0.113.9/32", "203.0.113.9/32"), netip.Prefix{}),
				GuestGarden: prefixes("2001:db8::/32", "198.51.100.1/32"), Resolvers: prefixes("192.0.2.53/32", "0.0.0.0/0"),
			},
			want: func(a *ACL) {
				a[SetGarden], a[SetGuestGarden], a[SetResolvers] = Prefixes(prefixes("198.51.100.0/24", "203.0.113.9/32")...), Prefixes(prefixes("198.51.100.1/32")...), Prefixes(prefixes("0.0.0.0/0")...)
			}},
		{name: "source guard of direct interfaces", in: Inputs{GuardDirect: []string{"br1", "br0"},
			Leases: bound([]DirectBinding{{provisiontest.Addr("192.0.2.4"), provision.MAC{2, 0, 0, 0, 0, 4}}, {provisiontest.Addr("192.0.2.1"), provision.MAC{2, 0, 0, 0, 0, 1}}}, nil)},
			want: func(a *ACL) {
				a[SetGuardedDirect] = Interfaces("br0", "br1")
				a[SetBoundDirect] = DirectBindings([]DirectBinding{{provisiontest.Addr("192.0.2.1"), provision.MAC{2, 0, 0, 0, 0, 1}}, {provisiontest.Addr("192.0.2.3"), provision.MAC{2, 0, 0, 0, 0, 3}}, {provisiontest.Addr("192.0.2.4"), provision.MAC{2, 0, 0, 0, 0, 4}}}...)
			}},
		{name: "source guard of VLANs", in: Inputs{GuardVLAN: []string{"eth0.7"},
			Leases: bound(nil, []VLANBinding{{"eth0.8", provisiontest.Addr("192.0.2.4")}, {"eth0.7", provisiontest.Addr("192.0.2.60")}}),
			InterfaceOf: func(b *provision.Line) string {
				if b.VLAN == 7 {
					return "eth0.7"
				}
				return ""
			}},
			want: func(a *ACL) {
				a[SetGuardedVLAN] = Interfaces("eth0.7")
				a[SetBoundVLAN] = VLANBindings(VLANBinding{"eth0.7", provisiontest.Addr("192.0.2.2")}, VLANBinding{"eth0.7", provisiontest.Addr("192.0.2.60")})
			}},
		{name: "pairs without a guarded interface are nothing", in: Inputs{Leases: bound([]DirectBinding{{provisiontest.Addr("192.0.2.4"), provision.MAC{2}}}, []VLANBinding{{"eth0.7", provisiontest.Addr("192.0.2.60")}})}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := base
			if tt.want != nil {
				tt.want(&want)
			}
			if diff := cmp.Diff(want, Want(snap, tt.in), cmpAddr); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			assert.Empty(t, cmp.Diff(base, ACL{SetStopped: Addrs(provisiontest.Stopped(snap)...), SetPaused: Addrs(provisiontest.Paused(snap)...)}, cmpAddr), "the snapshot's own is not written to")
		})
	}
	assert.Zero(t, Want(nil, Inputs{}).Len())
}

// The kernel refuses intervals that overlap, and none may be lost.
func TestTidyPrefixes(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range long.Times(t, 500, 100_000) {
		var in []netip.Prefix
		for range rng.IntN(30) {
			in = append(in, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), byte(rng.IntN(4)), byte(rng.IntN(256))}), 8+rng.IntN(25)))
		}
		out := tidyPrefixes(in)
		for i, p := range out {
			require.Equal(t, p.Masked(), p)
			require.True(t, i == 0 || !out[i-1].Overlaps(p), "%v", out)
		}
		for range 50 {
			a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), byte(rng.IntN(4)), byte(rng.IntN(256))})
			require.Equal(t, slices.ContainsFunc(in, func(p netip.Prefix) bool { return p.Contains(a) }), inPrefixes(out, a), "%s in %v", a, in)
		}
	}
}
