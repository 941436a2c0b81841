package route

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
)

func route(last byte, ifindex int) Route {
	return Route{Addr: netip.AddrFrom4([4]byte{198, 51, 100, last}), Ifindex: ifindex, Table: 254}
}

func TestPlanRoutes(t *testing.T) {
	other := route(1, 7)
	other.Table = 100
	tests := []struct {
		name       string
		want, have []Route
		out        []Change
	}{
		{"nothing", nil, nil, nil},
		{"equal in another order", []Route{route(1, 7), route(2, 7)}, []Route{route(2, 7), route(1, 7), route(1, 7)}, nil},
		{"a lease began", []Route{route(1, 7)}, nil, []Change{{provision.OpAdd, route(1, 7)}}},
		{"a lease ended", nil, []Route{route(1, 7)}, []Change{{provision.OpRemove, route(1, 7)}}},
		{"a port move adds first", []Route{route(1, 8)}, []Route{route(1, 7)}, []Change{{provision.OpAdd, route(1, 8)}, {provision.OpRemove, route(1, 7)}}},
		{"killed in the middle of a move", []Route{route(1, 8)}, []Route{route(1, 7), route(1, 8)}, []Change{{provision.OpRemove, route(1, 7)}}},
		{"another table", []Route{other}, []Route{route(1, 7)}, []Change{{provision.OpAdd, other}, {provision.OpRemove, route(1, 7)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.out, Plan(tt.want, tt.have)) })
	}
}

// From any state to any other: the changes lead there, planning again gives
// nothing, and an address with a route before and after has one at every step.
func TestPlanRoutesWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func() []Route {
		var out []Route
		for range rnd.IntN(12) {
			out = append(out, route(byte(rnd.IntN(6)), 1+rnd.IntN(3)))
		}
		return out
	}
	have := random()
	for range long.Times(t, 3000, 1_000_000) {
		want := random()
		state := map[Route]bool{}
		routed := func() map[netip.Addr]bool {
			m := map[netip.Addr]bool{}
			for r := range state {
				m[r.Addr] = true
			}
			return m
		}
		for _, r := range have {
			state[r] = true
		}
		before := routed()
		for _, c := range Plan(want, have) {
			require.Equal(t, c.Op == provision.OpRemove, state[c.Route], "%v", c)
			if c.Op == provision.OpAdd {
				state[c.Route] = true
			} else {
				delete(state, c.Route)
			}
			now := routed()
			for _, r := range want {
				require.True(t, !before[r.Addr] || now[r.Addr], "%s without a route", r.Addr)
			}
		}
		have = have[:0:0]
		for r := range state {
			have = append(have, r)
		}
		require.ElementsMatch(t, sortedRoutes(want), have)
		require.Empty(t, Plan(want, have))
	}
}

func TestCheckLink(t *testing.T) {
	good := LinkSettings{Forwarding: true, ProxyARP: true}
	tests := []struct {
		name   string
		change func(*LinkSettings)
		want   []Finding
	}{
		{"as it should be", func(*LinkSettings) {}, nil},
		{"strict reverse path filter", func(s *LinkSettings) { s.RPFilter = 1 }, []Finding{FindingRPFilter}},
		{"strict reverse path filter, with an address", func(s *LinkSettings) { s.RPFilter, s.Numbered = 1, true }, []Finding{FindingRPFilter}},
		{"loose reverse path filter", func(s *LinkSettings) { s.RPFilter = 2 }, []Finding{FindingRPFilter}},
		{"loose reverse path filter, with an address", func(s *LinkSettings) { s.RPFilter, s.Numbered = 2, true }, nil},
		{"not a router", func(s *LinkSettings) { s.Forwarding = false }, []Finding{FindingNotForwarding}},
		{"no proxy ARP", func(s *LinkSettings) { s.ProxyARP = false }, []Finding{FindingNoProxyARP}},
		{"gateway on another interface is not answered for", func(s *LinkSettings) { s.ARPIgnore = 1 }, []Finding{FindingARPIgnore}},
		{"gateway on the interface itself", func(s *LinkSettings) { s.ARPIgnore, s.Numbered = 1, true }, nil},
		{"only senders of the same subnet", func(s *LinkSettings) { s.ARPIgnore, s.Numbered = 2, true }, []Finding{FindingARPIgnore}},
		{"everything wrong", func(s *LinkSettings) { *s = LinkSettings{ARPIgnore: 8} }, []Finding{FindingNotForwarding, FindingNoProxyARP, FindingARPIgnore}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			tt.change(&s)
			require.Equal(t, tt.want, CheckLink(s))
		})
	}
	for _, f := range Findings() {
		require.NotEqual(t, "not a finding", f.Explain())
	}
}
