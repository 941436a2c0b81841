package access

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
)

func macN(n byte) provision.MAC { return provision.MAC{2, 0, 0, 0, 0, n} }

func macKeys(list ...byte) (k Keys) {
	for _, n := range list {
		mac := macN(n)
		k += Keys(mac[:])
	}
	return k
}

// linksOf is what an ACL says of MACs and interfaces.
func linksOf(a ACL) ACL {
	var out ACL
	for _, s := range linkSets {
		out[s] = a[s]
	}
	return out
}

// ipv6Snapshot has stopped ones (1), paused (2), active (3) and of no known state (9), each
// with a MAC and a VLAN of its number, and some who share.
func ipv6Snapshot() *provision.Snapshot {
	in := provision.Input{Subscribers: []provision.Subscriber{
		{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateActive}, {ID: 4, State: provision.StatePause},
	}}
	line := func(id provision.SubscriberID, last byte, mac byte, vlan uint16) {
		l := provision.Line{Subscriber: id, VLAN: vlan, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{192, 0, 2, last}))}
		if mac != 0 {
			l.MAC = macN(mac)
		}
		in.Lines = append(in.Lines, l)
	}
	line(1, 1, 1, 101)
	line(2, 2, 2, 102)
	line(3, 3, 3, 103)
	line(4, 4, 40, 104)
	line(3, 5, 40, 104) // shares MAC and interface with 4
	line(9, 9, 1+8, 109)
	line(1, 11, 12, 105)
	line(2, 12, 12, 105) // two blocked ones share both
	line(1, 13, 0, 0)
	snap, _ := provision.Build(in) // the MACs that are shared are problems
	return snap
}

func TestWantOfIPv6(t *testing.T) {
	snap := ipv6Snapshot()
	at := func(l *provision.Line) string {
		return map[uint16]string{101: "eth2.101", 102: "eth2.102", 103: "eth2.103", 104: "eth2.104", 105: "eth2.105"}[l.VLAN]
	}
	vlans := []string{"eth2.101", "eth2.102", "eth2.103", "eth2.104", "eth2.105", "eth2.106"}
	stopped, paused := macKeys(1), macKeys(2, 12)
	lease := func(last byte, mac byte, more func(*Grant)) Grant {
		g := Grant{IP: netip.AddrFrom4([4]byte{192, 0, 2, last}), MAC: macN(mac), Interface: "eth1", Wire: true}
		if more != nil {
			more(&g)
		}
		return g
	}
	behind := func(name string) func(*Grant) {
		return func(g *Grant) { g.Interface, g.Wire = name, false }
	}
	of := func(id provision.SubscriberID, name string) func(*Grant) {
		return func(g *Grant) { g.Subscriber, g.Interface, g.Wire = id, name, name == "eth1" }
	}
	unheard := func(g Grant) Grant {
		g.Wire, g.Unheard = false, true
		return g
	}
	tests := map[string]struct {
		in     Inputs
		leases []Grant
		want   ACL
		shared []SharedMAC
	}{
		"nothing is looked at": {leases: []Grant{lease(1, 77, nil)}},
		"MACs of the ERP": {in: Inputs{IPv6Direct: []string{"eth1"}}, want: ACL{SetStoppedMAC: stopped, SetPausedMAC: paused},
			shared: []SharedMAC{{macN(40), 4, 3}}},
		"MACs of leases, on a wire": {in: Inputs{IPv6Direct: []string{"eth1"}}, leases: []Grant{lease(13, 77, nil), lease(12, 78, behind("eth9")), lease(3, 79, nil)},
			want: ACL{SetStoppedMAC: macKeys(1, 77), SetPausedMAC: paused}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"who has a lease unblocked has his MAC": {in: Inputs{IPv6Direct: []string{"eth1"}}, leases: []Grant{lease(3, 1, nil)},
			want: ACL{SetPausedMAC: paused}, shared: []SharedMAC{{macN(1), 1, 3}, {macN(40), 4, 3}}},
		"an address that is nobody's unblocks nobody": {in: Inputs{IPv6Direct: []string{"eth1"}}, leases: []Grant{lease(99, 1, nil)},
			want: ACL{SetStoppedMAC: stopped, SetPausedMAC: paused}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"what a client wrote and nobody heard": {in: Inputs{IPv6Direct: []string{"eth1"}}, leases: []Grant{unheard(lease(13, 77, nil)), unheard(lease(3, 1, nil))},
			want: ACL{SetStoppedMAC: stopped, SetPausedMAC: paused}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"a guest": {in: Inputs{IPv6Direct: []string{"eth1"}, GuestRanges: []AddrRange{{provisiontest.Addr("192.0.2.100"), provisiontest.Addr("192.0.2.110")}}}, leases: []Grant{lease(100, 90, nil)},
			want: ACL{SetStoppedMAC: stopped, SetPausedMAC: macKeys(2, 12, 90)}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"a pool": {in: Inputs{IPv6Direct: []string{"eth1"}}, leases: []Grant{lease(120, 91, of(2, "eth1")), lease(121, 92, of(3, "eth1"))},
			want: ACL{SetStoppedMAC: stopped, SetPausedMAC: macKeys(2, 12, 91)}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"exempt ones": {in: Inputs{IPv6Direct: []string{"eth1"}, Exempt: []provision.SubscriberID{2}, ExemptAddrs: prefixes("192.0.2.1/32")},
			want: ACL{}, shared: []SharedMAC{{macN(12), 1, 2}, {macN(40), 4, 3}}},
		"an address that is not blocked though its customer is": {in: Inputs{IPv6Direct: []string{"eth1"}, Gateways: []netip.Addr{provisiontest.Addr("192.0.2.1")}},
			want: ACL{SetPausedMAC: paused}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"nor a lease of it": {in: Inputs{IPv6Direct: []string{"eth1"}, Gateways: []netip.Addr{provisiontest.Addr("192.0.2.13")}}, leases: []Grant{lease(13, 77, nil)},
			want: ACL{SetStoppedMAC: stopped, SetPausedMAC: paused}, shared: []SharedMAC{{macN(40), 4, 3}}},
		"nor behind an interface": {in: Inputs{IPv6VLAN: vlans, LineAt: at, Gateways: []netip.Addr{provisiontest.Addr("192.0.2.1")}},
			want: ACL{SetPausedInterface: Interfaces("eth2.102", "eth2.105")}},
		"interfaces": {in: Inputs{IPv6VLAN: vlans, LineAt: at},
			want: ACL{SetStoppedInterface: Interfaces("eth2.101"), SetPausedInterface: Interfaces("eth2.102", "eth2.105")}},
		"interfaces that only leases tell": {in: Inputs{IPv6VLAN: vlans}, leases: []Grant{lease(1, 77, behind("eth2.106")), lease(2, 2, behind("eth2.102")), lease(3, 3, behind("eth2.102"))},
			want: ACL{SetStoppedInterface: Interfaces("eth2.106")}},
		"both": {in: Inputs{IPv6Direct: []string{"eth1"}, IPv6VLAN: vlans, LineAt: at},
			want:   ACL{SetStoppedMAC: stopped, SetPausedMAC: paused, SetStoppedInterface: Interfaces("eth2.101"), SetPausedInterface: Interfaces("eth2.102", "eth2.105")},
			shared: []SharedMAC{{macN(40), 4, 3}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := tt.in
			in.Leases = func(yield func(Grant) bool) {
				for _, g := range tt.leases {
					if !yield(g) {
						return
					}
				}
			}
			in.LeasesOf = func(mac provision.MAC) (out []Grant) {
				for _, g := range tt.leases {
					if g.MAC == mac {
						out = append(out, g)
					}
				}
				return out
			}
			r := newRules(&in)
			got := r.want(snap, &in, nil).acl
			assert.Empty(t, cmp.Diff(tt.want, linksOf(got), cmpAddr))
			assert.Equal(t, Interfaces(in.IPv6Direct...), got[SetIPv6Direct])
			assert.Equal(t, tt.shared, r.shared.First)
			assert.Equal(t, len(tt.shared), r.shared.Count)
		})
	}
}

// A row that lost its address to another customer's tells a MAC and a VLAN as any other does: those of who is blocked, and of who is not.
func TestRowsThatLostTheirAddressCountForIPv6(t *testing.T) {
	line := func(id provision.SubscriberID, last, mac byte, vlan uint16) provision.Line {
		return provision.Line{Subscriber: id, MAC: macN(mac), VLAN: vlan, Addresses: provision.Hosts4(netip.AddrFrom4([4]byte{192, 0, 2, last}))}
	}
	snap, _ := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateActive}, {ID: 4, State: provision.StatePause}, {ID: 5, State: provision.StateStop}},
		Lines: []provision.Line{
			line(1, 5, 1, 101), line(2, 5, 2, 102), line(3, 5, 3, 103), line(5, 5, 50, 105), // one address
			line(4, 6, 3, 103), line(4, 7, 40, 104),
		},
	})
	require.Equal(t, provision.SubscriberID(1), snap.Owner(provisiontest.Addr("192.0.2.5")))
	require.Len(t, snap.Contested(), 3)
	vlans := []string{"eth2.101", "eth2.102", "eth2.103", "eth2.104", "eth2.105"}
	in := Inputs{IPv6Direct: []string{"eth1"}, IPv6VLAN: vlans, LineAt: func(l *provision.Line) string { return vlans[l.VLAN-101] }}
	r := newRules(&in)
	want := ACL{SetStoppedMAC: macKeys(50), SetPausedMAC: macKeys(2, 40), SetStoppedInterface: Interfaces("eth2.105"), SetPausedInterface: Interfaces("eth2.102", "eth2.104")}
	assert.Empty(t, cmp.Diff(want, linksOf(r.want(snap, &in, nil).acl), cmpAddr))
	assert.Equal(t, []SharedMAC{{macN(3), 4, 3}}, r.shared.First)
	in.Exempt = []provision.SubscriberID{2}
	want[SetPausedMAC], want[SetPausedInterface] = macKeys(40), Interfaces("eth2.104")
	assert.Empty(t, cmp.Diff(want, linksOf(Want(snap, in)), cmpAddr))

	// Between two rounds, and after a restart.
	synctest.Test(t, func(t *testing.T) {
		o := ipv6Sources()
		o.OnlyHeard = true
		f := startFollower(t, o, Options{}, snap)
		require.Equal(t, macKeys(2, 40), f.kernel.acl()[SetPausedMAC])
		f.leases.Store(direct(provisiontest.Addr("192.0.2.7"), macN(3))) // that of the active one, whose row lost
		f.follower.Admit([]netip.Addr{provisiontest.Addr("192.0.2.7")})()
		f.follower.Heard("eth1", provisiontest.Addr("192.0.2.7"), macN(3))
		pass(5 * time.Millisecond)
		assert.Equal(t, macKeys(2, 40), f.kernel.acl()[SetPausedMAC])

		left := f.kernel.acl()
		left[SetPausedMAC] = macKeys(2, 3, 40)
		k, again := newFakeKernel(left), NewSources(o, f.leases, nil, f.sources.interfaces)
		e := NewEnforcer(Options{Inputs: again.Inputs}, k, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
		require.NoError(t, e.round(t.Context(), e.opts))
		assert.Equal(t, macKeys(2, 40), k.acl()[SetPausedMAC], "its lease was not the one")
	})
}

func ipv6Sources() SourceOptions {
	return SourceOptions{ForwardsIPv6: func() bool { return true }, Direct: provision.Patterns{"eth1"}, GuardVLAN: provision.Patterns{"eth2.*"}}
}

// Where IPv6 is looked at follows from what is known of interfaces.
func TestWhereIPv6IsBlocked(t *testing.T) {
	exist := []string{"eth0", "eth1", "eth1.5", "eth2.100", "eth3.7", "eth3.8"}
	seven := func(name string) (uint16, bool) { return 7, name == "eth3.7" }
	any3 := func(name string) (uint16, bool) {
		vlan, ok := strings.CutPrefix(name, "eth3.")
		n, _ := strconv.Atoi(vlan)
		return uint16(n), ok
	}
	up := func(names ...string) func() ([]string, error) { return func() ([]string, error) { return names, nil } }
	tests := map[string]struct {
		o            SourceOptions
		direct, vlan []string
		uplinks      []string
	}{
		"off":                               {o: SourceOptions{Direct: provision.Patterns{"eth1"}, GuardVLAN: provision.Patterns{"eth2.*"}}},
		"not forwarded":                     {o: SourceOptions{ForwardsIPv6: func() bool { return false }, Direct: provision.Patterns{"eth1"}}},
		"nothing known":                     {o: SourceOptions{ForwardsIPv6: func() bool { return true }}},
		"of both kinds":                     {o: ipv6Sources(), direct: []string{"eth1"}, vlan: []string{"eth2.100"}},
		"by the names of VLANs":             {o: SourceOptions{ForwardsIPv6: func() bool { return true }, VLANOf: seven}, vlan: []string{"eth3.7"}},
		"a VLAN's interface that is listed": {o: SourceOptions{ForwardsIPv6: func() bool { return true }, VLANOf: seven, Direct: provision.Patterns{"eth3.*"}}, direct: []string{"eth3.8"}, vlan: []string{"eth3.7"}},
		"an uplink by its name":             {o: SourceOptions{ForwardsIPv6: func() bool { return true }, VLANOf: any3, Uplinks: up("eth0", "eth3.7")}, vlan: []string{"eth3.8"}, uplinks: []string{"eth3.7"}},
		"an uplink that the guard names":    {o: SourceOptions{ForwardsIPv6: func() bool { return true }, GuardVLAN: provision.Patterns{"eth3.*"}, Uplinks: up("eth3.7", "eth3.8")}, uplinks: []string{"eth3.7", "eth3.8"}},
		"an uplink that no name fits":       {o: SourceOptions{ForwardsIPv6: func() bool { return true }, VLANOf: seven, Uplinks: up("eth0")}, vlan: []string{"eth3.7"}},
		"but guarded by MAC":                {o: SourceOptions{ForwardsIPv6: func() bool { return true }, VLANOf: seven, GuardDirect: provision.Patterns{"eth3.*"}}, direct: []string{"eth3.7", "eth3.8"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := NewSources(tt.o, lease.New(), nil, func() []string { return exist }).Inputs()
			assert.Equal(t, tt.direct, in.IPv6Direct)
			assert.Equal(t, tt.vlan, in.IPv6VLAN)
			assert.Equal(t, tt.uplinks, in.IPv6Uplinks)
			assert.Equal(t, len(tt.direct)+len(tt.vlan) > 0, in.LeasesOf != nil)
		})
	}
}

// Leases that change between two rounds change MACs and interfaces, before their client is told.
func TestLeasesChangeMACsAndInterfaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFollower(t, ipv6Sources(), Options{}, ipv6Snapshot())
		admit := func(last, mac byte, name string) {
			t.Helper()
			rec := direct(netip.AddrFrom4([4]byte{192, 0, 2, last}), macN(mac))
			rec.Interface = name
			f.leases.Store(rec)
			began := time.Now()
			f.follower.Admit([]netip.Addr{rec.IP})()
			require.Zero(t, time.Since(began))
		}
		want := func(why string, a ACL) {
			t.Helper()
			time.Sleep(2 * followApart) // changes are gathered for a moment
			synctest.Wait()
			assert.Empty(t, cmp.Diff(a, linksOf(f.kernel.acl()), cmpAddr), why)
			whole, err := f.Want()
			require.NoError(t, err)
			assert.Empty(t, cmp.Diff(linksOf(whole), linksOf(f.kernel.acl()), cmpAddr), "%s: worked out anew", why)
			assert.Equal(t, f.kernel.acl().Counts(), f.Status().Have, why)
		}
		want("the ERP", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)})
		rounds := f.Status().Rounds
		admit(2, 2, "eth1")
		admit(3, 3, "eth1")
		want("nothing new", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)})
		admit(2, 50, "eth1")
		want("another device of the paused", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12, 50)})
		assert.Equal(t, SetPausedMAC, f.MACStanding(macN(50)))
		admit(3, 50, "eth1")
		want("an active one has it too", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)})
		assert.Zero(t, f.MACStanding(macN(50)))
		assert.Equal(t, rounds, f.Status().Rounds, "no round for any")

		admit(1, 60, "eth2.100")
		want("who is blocked comes to an interface", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12), SetStoppedInterface: Interfaces("eth2.100")})
		assert.Equal(t, SetStoppedInterface, f.InterfaceStanding("eth2.100"))
		rounds = f.Status().Rounds
		admit(3, 61, "eth2.100")
		want("who is not comes, too", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12, 50)})
		for range 3 {
			admit(1, 60, "eth2.100")
		}
		synctest.Wait()
		assert.Equal(t, rounds, f.Status().Rounds, "renewals behind a shared interface ask for no rounds")
		require.True(t, f.leases.Drop(netip.AddrFrom4([4]byte{192, 0, 2, 2}), macN(50), time.Now()))
		want("the device that the lease told of is gone", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)})
		assert.Equal(t, rounds, f.Status().Rounds)
		f.Kick()
		want("after a round", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)})
		rounds = f.Status().Rounds
		admit(1, 60, "eth2.100")
		synctest.Wait()
		assert.Equal(t, rounds, f.Status().Rounds)
		ip := netip.AddrFrom4([4]byte{192, 0, 2, 1})
		assert.Zero(t, testing.AllocsPerRun(100, func() { f.follower.Admit([]netip.Addr{ip})() }))
	})
}

// Of a customer whose VLAN in the ERP is the uplink's here nothing is blocked there, and it is once the default route is elsewhere.
func TestAnUplinkIsNotBlocked(t *testing.T) {
	snap, _ := provision.Build(provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StatePause}},
		Lines:       []provision.Line{{Subscriber: 1, VLAN: 10, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.1"))}},
	})
	uplinks, failed := []string{"bond0.10"}, error(nil)
	s := NewSources(SourceOptions{
		ForwardsIPv6: func() bool { return true }, Uplinks: func() ([]string, error) { return uplinks, failed },
		VLANOf: func(name string) (uint16, bool) { return 10, name == "bond0.10" },
	}, lease.New(), nil, func() []string { return []string{"bond0", "bond0.10"} })
	synctest.Test(t, func(t *testing.T) {
		in := s.Inputs()
		require.Empty(t, Want(snap, in)[SetPausedInterface])
		require.Equal(t, "bond0.10", in.LineAt(snap.ByIP(provisiontest.Addr("192.0.2.1"))))
		spared := func(why string) {
			t.Helper()
			now := s.Inputs()
			require.True(t, now.same(&in), why)
			require.Empty(t, Want(snap, now)[SetPausedInterface], why)
		}
		uplinks = nil
		spared("the routing daemon is started again")
		pass(59 * time.Second)
		spared("and takes a while")
		uplinks = []string{"bond0.10"}
		spared("it is back")
		uplinks, failed = nil, errors.New("too many open files")
		pass(time.Hour)
		spared("nothing is known, for long")
		failed = nil
		pass(59 * time.Second)
		spared("a minute counts from when it may have been there last")
		pass(2 * time.Second)
		later := s.Inputs()
		require.False(t, later.same(&in), "the next look sees it")
		require.Equal(t, []string{"bond0.10"}, Want(snap, later).Strings(SetPausedInterface))
	})
}

// What a client writes into DHCP counts once frames of that MAC spoke for its address, on its wire: a neighbour is not cut off
// by it, and a blocked one is not opened by who is not.
func TestOnlyHeardMACsOfLeasesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := ipv6Sources()
		o.OnlyHeard = true
		f := startFollower(t, o, Options{}, ipv6Snapshot())
		erp := ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12)}
		host := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
		admit := func(last, mac byte) {
			f.leases.Store(direct(host(last), macN(mac)))
			f.follower.Admit([]netip.Addr{host(last)})()
		}
		want := func(why string, a ACL, waiting ...byte) {
			t.Helper()
			pass(5 * time.Millisecond)
			assert.Empty(t, cmp.Diff(a, linksOf(f.kernel.acl()), cmpAddr), why)
			whole, err := f.Want()
			require.NoError(t, err)
			assert.Empty(t, cmp.Diff(linksOf(whole), linksOf(f.kernel.acl()), cmpAddr), "%s: worked out anew", why)
			left := func() (macs []byte) {
				for _, u := range f.Unheard() {
					if u.Blocked {
						macs = append(macs, u.MAC[5])
					}
				}
				return macs
			}
			assert.Equal(t, waiting, left(), why)
			f.Kick()
			pass(time.Second)
			assert.Empty(t, cmp.Diff(a, linksOf(f.kernel.acl()), cmpAddr), "%s: by a round", why)
			assert.Equal(t, waiting, left(), "%s: by a round", why)
		}
		admit(2, 50)
		want("the paused one writes a neighbour's MAC", erp, 50)
		renewed := func(last byte) time.Time {
			rec, _ := f.leases.Get(host(last))
			return rec.Renewed
		}
		assert.Equal(t, UnheardMACs{1, []Unheard{{host(2), macN(50), "eth1", 2, true, renewed(2)}}, ""}, f.Status().IPv6.Unheard)
		f.follower.Deaf(errors.New("operation not permitted"))
		assert.Equal(t, "operation not permitted", f.Status().IPv6.Unheard.Deaf)
		f.follower.Deaf(nil)
		assert.Empty(t, f.Status().IPv6.Unheard.Deaf)
		admit(2, 50)
		assert.Equal(t, renewed(2), f.Unheard()[0].Renewed, "he renews")
		f.follower.Heard("eth1", host(2), macN(51))
		f.follower.Heard("eth2.100", host(2), macN(50))
		f.follower.Heard("eth1", host(3), macN(50))
		want("others are heard, elsewhere, and of another address", erp, 50)
		f.follower.Heard("eth1", host(2), macN(50))
		want("it is his", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12, 50)})
		assert.Zero(t, f.Status().IPv6.Unheard.Count)

		admit(3, 2)
		want("an active one writes the MAC of the paused", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12, 50)})
		assert.Equal(t, []Unheard{{host(3), macN(2), "eth1", 3, false, renewed(3)}}, f.Unheard(), "he is asked")
		assert.Zero(t, f.Status().IPv6.Unheard.Count, "it is nobody's who is blocked")
		f.follower.Heard("eth1", host(3), macN(2))
		want("he has it", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(12, 50)})
		admit(2, 60)
		want("the paused one writes yet another", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(12)}, 60)
		f.follower.Heard("eth1", host(2), macN(60))
		want("and has it", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(12, 60)})
		require.True(t, f.leases.Drop(host(2), macN(60), time.Now()))
		want("and lets go", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(12)})
		admit(2, 60)
		want("what was heard ends with the lease", ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(12)}, 60)
	})
}

// Who is not blocked and has, unheard, a MAC that is blocked between two rounds is asked, without a round.
func TestWhoHasAMACThatIsBlockedNowIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := ipv6Sources()
		o.OnlyHeard = true
		f := startFollower(t, o, Options{}, ipv6Snapshot())
		paused, active := netip.AddrFrom4([4]byte{192, 0, 2, 2}), netip.AddrFrom4([4]byte{192, 0, 2, 3})
		for _, ip := range []netip.Addr{paused, active} {
			f.leases.Store(direct(ip, macN(50)))
			f.follower.Admit([]netip.Addr{ip})()
		}
		assert.True(t, f.LeftOut(macN(50)))
		assert.False(t, f.LeftOut(macN(2)))
		rounds := f.Status().Rounds
		f.follower.Heard("eth1", paused, macN(50))
		pass(5 * time.Millisecond)
		require.Equal(t, SetPausedMAC, f.MACStanding(macN(50)))
		require.Len(t, f.Unheard(), 1)
		assert.Equal(t, active, f.Unheard()[0].IP)
		assert.False(t, f.LeftOut(macN(50)), "nobody blocked has it unheard")
		assert.Equal(t, rounds, f.Status().Rounds)
	})
}

// After a restart a lease counts on whose MAC the kernel still blocks for nothing else: there is no moment in which it does not. All
// others are heard anew.
func TestARestartKeepsWhatWasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := ipv6Sources()
		o.OnlyHeard = true
		f := startFollower(t, o, Options{}, ipv6Snapshot())
		host := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
		admit := func(last, mac byte) {
			f.leases.Store(direct(host(last), macN(mac)))
			f.follower.Admit([]netip.Addr{host(last)})()
		}
		admit(2, 50) // paused, and heard
		admit(1, 60) // stopped, not heard
		f.follower.Heard("eth1", host(2), macN(50))
		pass(5 * time.Millisecond)
		left := f.kernel.acl()
		require.Equal(t, ACL{SetStoppedMAC: macKeys(1), SetPausedMAC: macKeys(2, 12, 50)}, linksOf(left))

		restart := func(snap *provision.Snapshot) (*fakeKernel, *Enforcer) {
			k, again := newFakeKernel(left), NewSources(o, f.leases, nil, f.sources.interfaces)
			e := NewEnforcer(Options{Inputs: again.Inputs}, k, nil, func() *provision.Snapshot { return snap }, nil, provisiontest.Quiet())
			require.NoError(t, e.round(t.Context(), e.opts))
			return k, e
		}
		k, e := restart(ipv6Snapshot())
		for _, batch := range k.batches {
			for _, c := range batch {
				assert.NotContains(t, linkSets, c.Set, "%v", c)
			}
		}
		assert.Equal(t, 1, k.observed)
		require.Len(t, e.Unheard(), 1)
		assert.Equal(t, macN(60), e.Unheard()[0].MAC)

		in := provision.Input{Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateStop}, {ID: 2, State: provision.StateActive}},
			Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(host(1))}, {Subscriber: 2, Addresses: provision.Hosts4(host(2))}}}
		k, _ = restart(provisiontest.Build(t, in))
		assert.Empty(t, k.acl()[SetPausedMAC], "he is active now")
		in.Subscribers[1].State = provision.StatePause
		k, _ = restart(provisiontest.Build(t, in))
		assert.Equal(t, macKeys(50), k.acl()[SetPausedMAC])
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: 3, State: provision.StateActive})
		in.Lines = append(in.Lines, provision.Line{Subscriber: 3, MAC: macN(50), Addresses: provision.Hosts4(host(3))})
		k, _ = restart(provisiontest.Build(t, in))
		assert.Empty(t, k.acl()[SetPausedMAC], "the ERP has the MAC of somebody else")
		admit(1, 50)
		in.Subscribers, in.Lines = in.Subscribers[:2], in.Lines[:2]
		k, _ = restart(provisiontest.Build(t, in))
		assert.Empty(t, k.acl()[SetPausedMAC], "another lease may have been the one")
	})
}
