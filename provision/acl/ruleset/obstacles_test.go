package ruleset

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
)

// asked is other tables of which each chain has the same rules, and counts the sets that were read.
type asked struct {
	rules []*nftables.Rule
	sets  int
}

func (a *asked) Rules(*nftables.Table, string) []*nftables.Rule { return a.rules }

func (a *asked) Elements(*nftables.Table, string) ([]nftables.SetElement, bool) {
	a.sets++
	return nil, false
}

// Lists of blocked sources have hundreds of thousands of elements, and a source decides nothing here.
func TestObstaclesReadNoSetThatDecidesNothing(t *testing.T) {
	chain := &nftables.Chain{Name: "in", Table: &nftables.Table{Name: "fw", Family: nftables.TableFamilyINet},
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter}
	lookUp := func(base expr.PayloadBase, offset, length uint32) *asked {
		return &asked{rules: []*nftables.Rule{{Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length},
			&expr.Lookup{SourceRegister: 1, SetName: "list"},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}}}}
	}
	policy := Policy{Portal: netip.MustParseAddrPort("192.0.2.254:8080")}
	source := lookUp(expr.PayloadBaseNetworkHeader, 12, 4)
	require.Empty(t, Obstacles(policy, []*nftables.Chain{chain}, source))
	require.Zero(t, source.sets)
	port := lookUp(expr.PayloadBaseTransportHeader, 2, 2)
	require.Empty(t, Obstacles(policy, []*nftables.Chain{chain}, port), "it could not be read")
	require.Equal(t, 1, port.sets)
}
