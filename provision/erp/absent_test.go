package erp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// Customers whom the ERP has rows of, and neither in a list of states nor a card, keep what is known of them: a customer table that
// is only half there opens nobody.
func TestRowsWithoutCustomers(t *testing.T) {
	const cards, n = "customer.get_data", 60
	of := func(list []int, card string) string {
		var out []string
		for _, id := range list {
			out = append(out, fmt.Sprintf(`"%d":`+card, id, id))
		}
		return strings.Join(out, ",")
	}
	asked := func(list []int) string {
		return cards + "?customer_id=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
	}
	answer := func(cards ...string) string { return `200 {"result":"OK","data":{` + strings.Join(cards, ",") + `}}` }
	active, paused := `{"id":%d,"state_id":2,"is_disable":0}`, `{"id":%d,"state_id":1,"is_disable":0}`
	const disabled = `"30":{"id":30,"state_id":2,"is_disable":1,"ip_mac":{"9":{"ip_net":"203.0.113.8/29"}}}`
	well := with(manyCustomers(n), list2, ids(upTo(1, 50)...), list1, ids(upTo(51, 60)...), list0, ids(), "customer.get_customers_id?is_ex=1", ids(), cards, answer(),
		asked(upTo(1, n)), answer(of(upTo(1, 29), active), disabled, of(upTo(31, 50), active), of(upTo(51, n), paused)))
	policy := provision.DefaultPolicy()
	start := func(t *testing.T) (*fakeERP, *Fetcher, *provision.Snapshot) {
		e, f, prev := primed(t, with(well), Options{Bindings: ModeDirect, Policy: &policy, Memory: zeroCompared()})
		require.Equal(t, provision.StateStop, prev.State(30))
		require.Equal(t, provision.StatePause, prev.State(51))
		require.Len(t, f.memory.subnets(), 1)
		return e, f, prev
	}
	t.Run("most", func(t *testing.T) {
		e, f, prev := start(t)
		e.set(list2, ids(upTo(1, 20)...))
		e.set(list1, ids())
		e.set(asked(upTo(1, 20)), answer(of(upTo(1, 20), active)))
		snap := prev
		for range 2 {
			snap, _ = provision.Build(fetch(t, f, snap))
			require.Empty(t, harm(prev, snap))
			require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceStates).Judgement)
		}
		e.set(list2, ids(upTo(1, 50)...))
		e.set(list1, ids(upTo(51, n)...))
		snap, _ = provision.Build(fetch(t, f, snap))
		require.Empty(t, harm(prev, snap), "what cards told is not forgotten")
		require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceStates).Judgement)
	})
	t.Run("a few", func(t *testing.T) {
		e, f, prev := start(t)
		e.set(list2, ids(append(upTo(1, 29), upTo(32, 50)...)...))
		e.set(list1, ids(upTo(52, n)...))
		snap := prev
		for range 2 {
			in := fetch(t, f, snap)
			snap, _ = provision.Build(in)
			require.Equal(t, "stop", states(in)[30])
			require.Equal(t, "pause", states(in)[51])
			require.NotContains(t, states(in), provision.SubscriberID(31), "who is not blocked is gone")
			require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceStates).Judgement)
		}
	})
}
