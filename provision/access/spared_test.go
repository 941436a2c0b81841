package access

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// hosts is a snapshot in which customer i has the i-th address, from 1 on, in the
// states in turn.
func hosts(t *testing.T, states []provision.State, ips ...string) *provision.Snapshot {
	t.Helper()
	var in provision.Input
	for i, a := range ips {
		id := provision.SubscriberID(i + 1)
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: states[i%len(states)]})
		in.Lines = append(in.Lines, provision.Line{Subscriber: id, Addresses: provision.Hosts4(provisiontest.Addr(a))})
	}
	return provisiontest.Build(t, in)
}

// One row of the ERP for what everybody needs takes it from nobody.
func TestWhatOthersNeedIsNotBlocked(t *testing.T) {
	addrs := provisiontest.Addrs
	tests := []struct {
		name string
		ip   string
		in   Inputs
		why  Spared
	}{
		{"an address of the router", "198.51.100.1", Inputs{Own: addrs("192.0.2.1", "198.51.100.1")}, SparedOwn},
		{"the ERP", "203.0.113.7", Inputs{ERP: addrs("203.0.113.7")}, SparedERP},
		{"a gateway", "198.51.100.1", Inputs{Gateways: addrs("198.51.100.1")}, SparedGateway},
		{"a name server", "192.0.2.53", Inputs{Resolvers: prefixes("192.0.2.53/32")}, SparedResolver},
		{"a name server in customers' network", "198.51.100.53", Inputs{Resolvers: prefixes("198.51.100.53/32"), Homes: prefixes("198.51.100.0/24")}, SparedResolver},
		{"a name server of the router", "192.0.2.53", Inputs{NameServers: addrs("192.0.2.53")}, SparedResolver},
		{"a network of name servers", "192.0.2.53", Inputs{Resolvers: prefixes("192.0.2.48/28")}, SparedResolver},
		{"a garden", "203.0.113.9", Inputs{Garden: prefixes("203.0.113.0/24")}, SparedGarden},
		{"a garden of guests", "203.0.113.9", Inputs{GuestGarden: prefixes("203.0.113.9/32")}, SparedGarden},
		{"a DHCP server", "203.0.113.67", Inputs{DHCPServers: prefixes("203.0.113.67/32")}, SparedDHCPServer},
		{"elsewhere than customers are", "203.0.113.7", Inputs{Networks: prefixes("192.0.2.0/24"), Homes: prefixes("198.51.100.0/24")}, SparedNetwork},

		{"a customer of a served network", "198.51.100.9", Inputs{Networks: prefixes("192.0.2.0/24"), Homes: prefixes("198.51.100.0/24")}, ""},
		{"a static customer of a named network", "192.0.2.9", Inputs{Networks: prefixes("192.0.2.0/24"), Homes: prefixes("198.51.100.0/24")}, ""},
		{"a static customer outside of all", "203.0.113.7", Inputs{Homes: prefixes("198.51.100.0/24")}, ""},
		{"name servers are everybody", "203.0.113.7", Inputs{Resolvers: prefixes("0.0.0.0/0")}, ""},
		{"a garden with customers in it", "198.51.100.9", Inputs{Garden: prefixes("198.51.0.0/16"), Homes: prefixes("198.51.100.0/24")}, ""},
		{"a garden with named customers in it", "198.51.100.9", Inputs{Garden: prefixes("198.51.0.0/16"), Networks: prefixes("198.51.100.0/24")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, state := range []provision.State{provision.StateStop, provision.StatePause} {
				s := hosts(t, []provision.State{state}, "192.0.2.200", tt.ip)
				if tt.why == SparedNetwork || len(tt.in.Networks) > 0 {
					tt.in.Networks = append(tt.in.Networks, prefixes("192.0.2.200/32")...)
				}
				set := map[provision.State]Set{provision.StateStop: SetStopped, provision.StatePause: SetPaused}[state]
				r := newRules(&tt.in)
				all := r.want(s, &tt.in, nil)
				got, held := all.acl, all.held
				want := keys("192.0.2.200")
				if tt.why == "" {
					want = set.Sorted(want + keys(tt.ip))
					assert.Empty(t, held.list)
				} else {
					assert.Equal(t, []Withheld{{provisiontest.Addr(tt.ip), 2, set.String(), tt.why}}, held.list)
					assert.Equal(t, map[Spared]int{tt.why: 1}, held.counts)
				}
				assert.Equal(t, want, got[set])
				assert.Equal(t, got.Standing(provisiontest.Addr(tt.ip)), r.of(s, provisiontest.Addr(tt.ip), &Grant{}).block, "one address by itself")
			}
		})
	}
}

// A customer's subnet with such an address in it is blocked but for that.
func TestWhatOthersNeedIsNotBlockedInASubnet(t *testing.T) {
	build := func(prefix string) *provision.Snapshot {
		return provisiontest.Build(t, provision.Input{
			Subscribers:     []provision.Subscriber{{ID: 1, State: provision.StatePause}},
			Lines:           []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(provisiontest.Addr("192.0.2.200"))}},
			CustomerSubnets: []provision.Subnet{{Prefix: netip.MustParsePrefix(prefix), Subscriber: 1}},
		})
	}
	tests := []struct {
		name, prefix string
		in           Inputs
		blocked      string
		held         []Withheld
	}{
		{"nothing", "203.0.113.8/30", Inputs{Own: provisiontest.Addrs("203.0.113.7", "203.0.113.12")}, "203.0.113.8/30", nil},
		{"an address of the router", "203.0.113.8/30", Inputs{Own: provisiontest.Addrs("203.0.113.9")}, "203.0.113.8/32 203.0.113.10/31",
			[]Withheld{{provisiontest.Addr("203.0.113.9"), 1, "paused", SparedOwn}}},
		{"two", "203.0.113.8/30", Inputs{Own: provisiontest.Addrs("203.0.113.11"), Resolvers: prefixes("203.0.113.8/32")}, "203.0.113.9/32 203.0.113.10/32",
			[]Withheld{{provisiontest.Addr("203.0.113.8"), 1, "paused", SparedResolver}, {provisiontest.Addr("203.0.113.11"), 1, "paused", SparedOwn}}},
		{"a network of name servers", "203.0.113.0/28", Inputs{Resolvers: prefixes("203.0.113.8/29")}, "203.0.113.0/29",
			[]Withheld{{provisiontest.Addr("203.0.113.8"), 1, "paused", SparedResolver}}},
		{"a garden that holds all", "203.0.113.8/29", Inputs{Garden: prefixes("203.0.113.0/24")}, "",
			[]Withheld{{provisiontest.Addr("203.0.113.8"), 1, "paused", SparedGarden}}},
		{"a garden with customers in it", "203.0.113.8/29", Inputs{Garden: prefixes("203.0.113.0/24"), Homes: prefixes("203.0.113.0/25")}, "203.0.113.8/29", nil},
		{"elsewhere than customers are", "203.0.113.8/29", Inputs{Networks: prefixes("192.0.2.0/24")}, "",
			[]Withheld{{provisiontest.Addr("203.0.113.8"), 1, "paused", SparedNetwork}}},
		{"where customers are", "203.0.113.8/29", Inputs{Networks: prefixes("192.0.2.0/24", "203.0.113.8/29")}, "203.0.113.8/29", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all := newRules(&tt.in).want(build(tt.prefix), &tt.in, nil)
			var got []string
			for _, text := range netStrings(all.acl) {
				_, prefix, _ := strings.Cut(text, " ")
				got = append(got, prefix)
			}
			slices.SortFunc(got, func(a, b string) int { return comparePrefixes(netip.MustParsePrefix(a), netip.MustParsePrefix(b)) })
			assert.Equal(t, tt.blocked, strings.Join(got, " "))
			assert.Equal(t, tt.held, all.held.list)
		})
	}
}

// Pools, of guests and of customers, give nobody's address to a block list either.
func TestLeasesOfWhatIsSpared(t *testing.T) {
	s := hosts(t, []provision.State{provision.StateStop}, "192.0.2.200")
	in := Inputs{Own: provisiontest.Addrs("198.51.100.1"), Leases: seats(seat{1, "198.51.100.1"}, seat{1, "198.51.100.2"}),
		GuestRanges: []AddrRange{{provisiontest.Addr("198.51.100.1"), provisiontest.Addr("198.51.100.3")}}}
	got := Want(s, in)
	assert.Equal(t, keys("192.0.2.200", "198.51.100.2"), got[SetStopped])
	assert.Equal(t, keys("198.51.100.3"), got[SetGuests])
}

// Withheld addresses are told of, and an address that this host gets is let go.
func TestEnforcerTellsOfWhatIsWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own atomic.Pointer[[]netip.Addr]
		own.Store(&[]netip.Addr{})
		inputs := func() Inputs { return Inputs{Own: *own.Load(), Resolvers: prefixes("192.0.2.53/32")} }
		e := startEnforcer(t, Options{Inputs: inputs}, ACL{}, hosts(t, []provision.State{provision.StateStop}, "192.0.2.53", "192.0.2.7"))
		synctest.Wait()
		require.Equal(t, keys("192.0.2.7"), e.kernel.acl()[SetStopped])
		st := e.Status()
		require.Equal(t, map[Spared]int{SparedResolver: 1}, st.Withheld)
		require.Equal(t, "192.0.2.53 of customer 1 (stopped) is not blocked: it is a name server", st.WithheldList[0].Text())
		require.Equal(t, SparedResolver, e.Spared(provisiontest.Addr("192.0.2.53")))
		require.Empty(t, e.Spared(provisiontest.Addr("192.0.2.7")))

		own.Store(&[]netip.Addr{provisiontest.Addr("192.0.2.7")})
		pass(2 * checkInterval)
		require.Empty(t, e.kernel.acl()[SetStopped])
		e.log.mu.Lock()
		defer e.log.mu.Unlock()
		require.Equal(t, map[Spared]int{SparedResolver: 1, SparedOwn: 1}, e.log.withheld)
	})
}
