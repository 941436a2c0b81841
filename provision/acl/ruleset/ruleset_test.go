package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/access"
)

var (
	everything = Policy{SourceGuard: true, Alone: true, Portal: netip.MustParseAddrPort("192.0.2.254:8080")}
	ipv6       = Policy{IPv6: true, Egress: "down0"}
)

var update = flag.Bool("update", false, "write the files of testdata that follow from the rules")

// withNets has subnets of some lengths besides.
var withNets = func() Policy {
	p := everything
	for _, set := range []access.Set{access.SetStopped.Subnets(29), access.SetPaused.Subnets(24), access.SetPaused.Subnets(29), access.SetPaused.Subnets(32), access.SetBoundDirect.Subnets(29), access.SetBoundVLAN.Subnets(30)} {
		p.Nets = p.Nets.With(set)
	}
	return p
}()

// The text of the empty table is that of the files which operators read, and
// which nft loads in the tests of package acl.
func TestTextIsTheOneInTheFile(t *testing.T) {
	for file, policy := range map[string]Policy{"usher.nft": {}, "portal.nft": everything, "subnets.nft": withNets, "ipv6.nft": ipv6} {
		path := filepath.Join("..", "testdata", file)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		comment, want, _ := strings.Cut(string(b), "\n")
		got := strings.ReplaceAll(Listing{Policy: policy}.String(), "counter packets 0 bytes 0", "counter")
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(comment+"\n"+got), 0o644))
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-file +ours):\n%s", file, diff)
		}
	}
}

// Whatever rules name is declared, and each chain is led to or is where packets
// come in.
func TestRulesNameWhatThereIs(t *testing.T) {
	for _, policy := range []Policy{{}, {SourceGuard: true}, {Alone: true}, {Portal: netip.MustParseAddrPort("0.0.0.0:80")}, everything, ipv6, withNets, {Nets: withNets.Nets}, {IPv6: true, Alone: true, SourceGuard: true, Nets: withNets.Nets}} {
		sets, chains, reached := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for _, s := range Sets(policy) {
			require.False(t, sets[s.Name], "two sets are called %s", s.Name)
			sets[s.Name] = true
		}
		for _, c := range Chains(policy) {
			chains[c.Name], reached[c.Name] = true, c.Hooknum != nil
		}
		for _, r := range Rules(policy) {
			require.Contains(t, chains, r.Chain)
			for _, e := range r.Exprs() {
				switch e := e.(type) {
				case *expr.Lookup:
					require.Contains(t, sets, e.SetName, r.Chain)
				case *expr.Dynset:
					require.Contains(t, sets, e.SetName, r.Chain)
				case *expr.Verdict:
					if e.Kind == expr.VerdictGoto {
						require.Contains(t, chains, e.Chain, r.Chain)
						reached[e.Chain] = true
					}
				}
			}
		}
		for name, is := range reached {
			require.True(t, is, "no packet comes to chain %s", name)
		}
	}
}
