package erp

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// primed returns a Fetcher after one whole fetch, and the snapshot of it.
func primed(t *testing.T, rules map[string]string, o Options) (*fakeERP, *Fetcher, *provision.Snapshot) {
	t.Helper()
	e, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, o)
	s, _ := provision.Build(fetch(t, f, nil))
	e.calls()
	return e, f, s
}

func words(a syncer.StatesAnswer) map[provision.SubscriberID]string {
	out := map[provision.SubscriberID]string{}
	for id, st := range a.States {
		out[id] = st.String()
	}
	return out
}

func with(rules map[string]string, more ...string) map[string]string {
	out := maps.Clone(rules)
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

const (
	list0 = "customer.get_customers_id?state_id=0"
	list1 = "customer.get_customers_id?state_id=1"
	list2 = "customer.get_customers_id?state_id=2"
)

func ids(list ...int) string {
	return "200 {\"result\":\"OK\",\"data\":" + strings.ReplaceAll(fmt.Sprint(list), " ", ",") + "}"
}

func TestFetchStatesNeedsAFetch(t *testing.T) {
	_, c := newFakeERP(t, good())
	f, _ := newFetcher(t, c, Options{})
	_, err := f.FetchStates(ctx, nil)
	require.ErrorIs(t, err, syncer.ErrFetchFirst)
	fetch(t, f, nil)
	_, err = f.FetchStates(ctx, nil)
	require.NoError(t, err)

	next, _ := newFetcher(t, c, Options{Memory: f.memory}) // a reload
	_, err = next.FetchStates(ctx, nil)
	require.NoError(t, err)
}

func TestFetchStates(t *testing.T) {
	// Customer 3 is not blocked for good: seven more keep half of all active.
	rules := with(good(), list2, ids(1, 4, 5, 6, 7))
	policy := provision.PlainPolicy()
	policy.States[5] = provision.StatePause
	policy.States[6] = provision.StateActive
	tests := map[string]struct {
		before, after []string // rules
		policy        *provision.Policy
		want          map[provision.SubscriberID]string
		stands        map[provision.SubscriberID]string // in use after it
		calls         []string
		refresh       bool
		wantErr       string
	}{
		"nothing changed": {
			want:  map[provision.SubscriberID]string{2: "pause", 3: "stop"},
			calls: []string{list1, list0},
		},
		"one paused, one stopped": {
			after: []string{list1, ids(2, 4), list0, ids(3, 5)},
			want:  map[provision.SubscriberID]string{2: "pause", 3: "stop", 4: "pause", 5: "stop"},
			calls: []string{list1, list0},
		},
		"one resumed": {
			after: []string{list1, ids(), "customer.get_data?customer_id=2", `200 {"result":"OK","data":{"id":2,"state_id":2}}`},
			want:  map[provision.SubscriberID]string{2: "active", 3: "stop"},
			calls: []string{list1, list0, "customer.get_data?customer_id=2"},
		},
		"one has a state of its own": {
			after: []string{list1, ids(), "customer.get_data?customer_id=2", `200 {"result":"OK","data":{"id":2,"state_id":7}}`},
			want:  map[provision.SubscriberID]string{2: "unknown", 3: "stop"},
			calls: []string{list1, list0, "customer.get_data?customer_id=2"},
		},
		"one was deleted": {
			after:   []string{list1, ids(), "customer.get_data?customer_id=2", `404 {"error":"no such customer"}`},
			want:    map[provision.SubscriberID]string{3: "stop"},
			stands:  map[provision.SubscriberID]string{2: "pause", 3: "stop"},
			calls:   []string{list1, list0, "customer.get_data?customer_id=2"},
			refresh: true,
		},
		"cards are not allowed": {
			after:   []string{list1, ids(), "customer.get_data", `403 {"error":"forbidden"}`},
			want:    map[provision.SubscriberID]string{3: "stop"},
			stands:  map[provision.SubscriberID]string{2: "pause", 3: "stop"},
			calls:   []string{list1, list0, "customer.get_data?customer_id=2"},
			refresh: true,
		},
		"the list of stopped is empty for a moment": {
			after: []string{list0, ids(), "customer.get_data?customer_id=3", `200 {"result":"OK","data":{"id":3,"state_id":0}}`},
			want:  map[provision.SubscriberID]string{2: "pause", 3: "stop"},
			calls: []string{list1, list0, "customer.get_data?customer_id=3"},
		},
		"state 0 answers everybody all at once": {
			after:   []string{list0, ids(1, 2, 3, 4, 5, 6, 7)},
			wantErr: syncer.ErrFetchFirst.Error(),
		},
		"state 0 is no condition": {
			before: []string{list0, ids(1, 2, 3, 4, 5, 6, 7)},
			want:   map[provision.SubscriberID]string{1: "active", 2: "pause", 4: "active", 5: "active", 6: "active", 7: "active"},
			calls:  []string{list2, list1},
		},
		"state 0 is no condition, one stopped": {
			before: []string{list0, ids(1, 2, 3, 4, 5, 6, 7)},
			after:  []string{list2, ids(1, 4, 5, 6), "customer.get_data?customer_id=7", `200 {"result":"OK","data":{"id":7,"state_id":0}}`},
			want:   map[provision.SubscriberID]string{1: "active", 2: "pause", 4: "active", 5: "active", 6: "active", 7: "stop"},
			calls:  []string{list2, list1, "customer.get_data?customer_id=7"},
		},
		"nobody was stopped before": {
			before: []string{list0, ids()},
			want:   map[provision.SubscriberID]string{1: "active", 2: "pause", 4: "active", 5: "active", 6: "active", 7: "active"},
			calls:  []string{list2, list1, "customer.get_data?customer_id=3"},
		},
		"further blocking states are read, others are not": {
			policy: &policy,
			before: []string{"customer.get_customers_id?state_id=5", ids(4), "customer.get_customers_id?state_id=6", ids(5)},
			after:  []string{"customer.get_customers_id?state_id=5", ids(4, 6)},
			want:   map[provision.SubscriberID]string{2: "pause", 3: "stop", 4: "pause", 6: "pause"},
			calls:  []string{list1, "customer.get_customers_id?state_id=5", list0},
		},
		"a list cannot be read": {
			after:   []string{list1, `502 bad gateway`},
			wantErr: "read customers in state pause",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			start := with(with(rules, "customer.get_data?customer_id=3", `200 {"result":"OK","data":{"id":3,"state_id":0}}`), tt.before...)
			e, f, prev := primed(t, start, Options{Bindings: ModeDirect, Policy: tt.policy})
			for i := 0; i < len(tt.after); i += 2 {
				e.set(tt.after[i], tt.after[i+1])
			}
			got, err := f.FetchStates(ctx, prev)
			if tt.wantErr != "" {
				require.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			if name == "nobody was stopped before" {
				tt.calls = tt.calls[:2]
			}
			assert.Equal(t, tt.calls, e.calls())
			assert.Equal(t, tt.want, words(got))
			for id, st := range tt.stands {
				assert.Equal(t, st, prev.WithStates(got.States).State(id).String())
			}
			assert.Equal(t, tt.refresh, got.Refresh)
			assert.False(t, got.FetchedAt.IsZero())
		})
	}
}

// The guard holds a whole fetch in which customer 2 is active again, the operator
// rejects it: the polls of states after it must not leave customer 2 blocked.
func TestFetchStatesTellsWhomAnUnusedFetchFreed(t *testing.T) {
	e, f, prev := primed(t, with(good(), list2, ids(1, 4, 5, 6, 7)), Options{Bindings: ModeDirect})
	require.Equal(t, provision.StatePause, prev.State(2))
	e.set(list1, ids())
	e.set(list2, ids(1, 2, 4, 5, 6, 7))
	fetch(t, f, prev) // what it gives is not used
	got, err := f.FetchStates(ctx, prev)
	require.NoError(t, err)
	assert.Equal(t, map[provision.SubscriberID]string{2: "active", 3: "stop"}, words(got))

	e.set(list1, ids(2))
	got, err = f.FetchStates(ctx, prev)
	require.NoError(t, err)
	assert.Equal(t, map[provision.SubscriberID]string{2: "pause", 3: "stop"}, words(got), "paused anew")
}

// Who is in no list any more and whose card tells nothing is not told of: the state in use stands, also where the number of before
// says otherwise, for an operator resumed the customer meanwhile, or the file of before a crash is older than the snapshot.
func TestWhoCannotBeReadIsNotToldOf(t *testing.T) {
	policy := provision.DefaultPolicy()
	const card2 = "customer.get_data?customer_id=2"
	for name, tt := range map[string]struct {
		card string
		want string // empty: not told
	}{
		"forbidden":                {`403 {"error":"no"}`, ""},
		"unavailable":              {"502 bad gateway", ""},
		"not to be had":            {`400 {"error":"no"}`, ""},
		"no such customer":         {`404 {"error":"no"}`, ""},
		"no state on it":           {`200 {"result":"OK","data":{"id":2}}`, ""},
		"no state on it, disabled": {`200 {"result":"OK","data":{"id":2,"is_disable":1}}`, "stop"},
		"paused":                   {`200 {"result":"OK","data":{"id":2,"state_id":1}}`, "pause"},
	} {
		t.Run(name, func(t *testing.T) {
			e, f, prev := primed(t, with(good(), list2, ids(1, 4, 5, 6, 7)), Options{Bindings: ModeDirect, Policy: &policy})
			e.set(list1, ids())
			e.set(card2, tt.card)
			got, err := f.FetchStates(ctx, prev.WithStates(map[provision.SubscriberID]provision.State{2: provision.StateActive}))
			require.NoError(t, err)
			require.Equal(t, tt.want, words(got)[2])
			require.Contains(t, got.States, provision.SubscriberID(3))
		})
	}
	t.Run("nor let in", func(t *testing.T) {
		e, f, prev := primed(t, with(good(), list2, ids(1, 4, 5, 6, 7), list0, ids()), Options{Bindings: ModeDirect})
		e.set(list1, ids())
		e.set(list2, ids(1, 2, 4, 5, 6, 7))
		fetch(t, f, prev) // what it gives is not used
		e.set(list2, ids(1, 4, 5, 6, 7))
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.NotContains(t, got.States, provision.SubscriberID(2), "in no list any more, and the card is refused")
	})
}

const card1 = "customer.get_data?customer_id=1"

func card(member string) string {
	return `200 {"result":"OK","data":{"id":1,"state_id":2,"ip_mac":{"1681915905":{"ip":"1681915905","mac":"00005e005301"}}` + member + `}}`
}

func TestFetchCustomers(t *testing.T) {
	policy := provision.DefaultPolicy()
	tests := map[string]struct {
		answer  string
		want    map[provision.SubscriberID]string
		refresh bool
		wantErr bool
	}{
		"same":               {card(""), map[provision.SubscriberID]string{1: "active"}, false, false},
		"paused":             {strings.Replace(card(""), `"state_id":2`, `"state_id":"1"`, 1), map[provision.SubscriberID]string{1: "pause"}, false, false},
		"disabled":           {card(`,"is_disable":1`), map[provision.SubscriberID]string{1: "stop"}, false, false},
		"potential":          {card(`,"is_potential":"1"`), map[provision.SubscriberID]string{1: "stop"}, false, false},
		"not in billing":     {card(`,"is_in_billing":0`), map[provision.SubscriberID]string{1: "active"}, false, false},
		"other MAC":          {strings.Replace(card(""), "00005e005301", "00005e0053ff", 1), map[provision.SubscriberID]string{1: "active"}, true, false},
		"other address":      {strings.ReplaceAll(card(""), "1681915905", "1681915999"), map[provision.SubscriberID]string{1: "active"}, true, false},
		"one more address":   {strings.Replace(card(""), `"ip_mac":{`, `"ip_mac":{"1681915950":{"ip":"1681915950"},`, 1), map[provision.SubscriberID]string{1: "active"}, true, false},
		"a subnet besides":   {strings.Replace(card(""), `"ip_mac":{`, `"ip_mac":{"1":{"ip_net":"100.64.9.0/24"},`, 1), map[provision.SubscriberID]string{1: "active"}, true, false},
		"no address":         {`200 {"result":"OK","data":{"id":1,"state_id":2}}`, map[provision.SubscriberID]string{1: "active"}, true, false},
		"deleted":            {`404 {"error":"no"}`, map[provision.SubscriberID]string{}, true, false},
		"not to be had":      {`400 {"error":"no"}`, map[provision.SubscriberID]string{}, false, false},
		"forbidden":          {`403 {"error":"no"}`, nil, false, true},
		"not JSON":           {`200 <html>`, nil, false, true},
		"state of its own":   {strings.Replace(card(""), `"state_id":2`, `"state_id":9`, 1), map[provision.SubscriberID]string{1: "unknown"}, false, false},
		"no state on it":     {strings.Replace(card(""), `"state_id":2,`, ``, 1), map[provision.SubscriberID]string{}, false, false},
		"disabled, no state": {strings.Replace(card(`,"is_disable":1`), `"state_id":2,`, ``, 1), map[provision.SubscriberID]string{1: "stop"}, false, false},
		"flags by the text":  {card(`,"is_disable":"0","is_potential":""`), map[provision.SubscriberID]string{1: "active"}, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, f, prev := primed(t, good(), Options{Bindings: ModeDirect, Policy: &policy})
			e.set(card1, tt.answer)
			got, err := f.FetchCustomers(ctx, []provision.SubscriberID{1}, prev)
			if tt.wantErr {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, words(got))
			assert.Equal(t, tt.refresh, got.Refresh)
		})
	}
	t.Run("a stranger", func(t *testing.T) {
		e, f, prev := primed(t, good(), Options{Bindings: ModeDirect})
		e.set("customer.get_data?customer_id=999", `404 {"error":"no"}`)
		got, err := f.FetchCustomers(ctx, []provision.SubscriberID{999, -3, 0}, prev)
		require.NoError(t, err)
		assert.Empty(t, got.States)
		assert.False(t, got.Refresh, "nobody we knew")
		assert.Equal(t, []string{"customer.get_data?customer_id=999"}, e.calls())
	})
}

// An ERP that answers everybody, or somebody else, in place of the customer whom a hint named tells nothing of others.
func TestCardsOfOthersAreNotBelieved(t *testing.T) {
	e, f, prev := primed(t, good(), Options{Bindings: ModeDirect})
	e.set(card1, `200 {"result":"OK","data":{"1":{"id":1,"state_id":1},"2":{"id":2,"state_id":2},"3":{"id":3,"state_id":2}}}`)
	got, err := f.FetchCustomers(ctx, []provision.SubscriberID{1}, prev)
	require.NoError(t, err)
	require.Equal(t, map[provision.SubscriberID]string{1: "pause"}, words(got))
	n, _ := f.memory.number(3)
	require.Zero(t, n, "nor is it remembered")

	e.set(card1, `200 {"result":"OK","data":{"id":3,"state_id":2}}`)
	got, err = f.FetchCustomers(ctx, []provision.SubscriberID{1}, prev)
	require.ErrorIs(t, err, userside.ErrUnknownShape)
	require.Empty(t, got.States)
	has, err := f.HasState(ctx, 1, provision.StateActive)
	require.ErrorIs(t, err, userside.ErrUnknownShape)
	require.False(t, has)
}

// A card without a state_id confirms neither list that the guard holds, though Memory has the numbers of both.
func TestCardWithoutStateTellsNothing(t *testing.T) {
	const cards = `200 {"result":"OK","data":{"1":{"id":1},"2":{"id":2},"3":{"id":3}}}`
	for name, lists := range map[string][3]string{"all active": {ids(1, 2, 3), ids(), ids()}, "all stopped": {ids(), ids(), ids(1, 2, 3)}} {
		t.Run(name, func(t *testing.T) {
			e, f, prev := primed(t, with(good(), "customer.get_data", cards, "customer.get_data?customer_id=1,2,3", cards), Options{Bindings: ModeDirect, Memory: zeroCompared()})
			e.set(list2, lists[0])
			e.set(list1, lists[1])
			e.set(list0, lists[2])
			in := fetch(t, f, prev)
			require.NotEqual(t, "pause", states(in)[2])
			got, err := f.FetchCustomers(ctx, []provision.SubscriberID{1, 2, 3}, prev)
			require.NoError(t, err)
			require.Empty(t, words(got))
			e.set(card1, `200 {"result":"OK","data":{"id":1}}`)
			_, err = f.HasState(ctx, 1, provision.StateActive)
			require.ErrorContains(t, err, "tells no state")
		})
	}
	t.Run("who is in no list keeps the state in use", func(t *testing.T) {
		for _, mode := range []Mode{ModeDirect, ModeComposed} {
			e, f, prev := primed(t, good(), Options{Bindings: mode, Memory: zeroCompared()})
			e.set(list1, ids())
			e.set("customer.get_data", `200 {"result":"OK","data":{"id":2}}`)
			e.set("customer.get_data?customer_id=1,2,3", `200 {"result":"OK","data":{"1":{"id":1,"state_id":2},"2":{"id":2},"3":{"id":3,"state_id":0}}}`)
			got, err := f.FetchStates(ctx, prev)
			require.NoError(t, err)
			require.Equal(t, provision.StatePause, prev.WithStates(got.States).State(2), mode)
			require.True(t, got.Refresh, "a whole fetch may tell")
			require.Equal(t, "pause", states(fetch(t, f, prev))[2], mode)
		}
	})
}

// A poll of states settles who is in two lists while a whole fetch begins (with the race detector).
func TestWholeFetchBesidePolls(t *testing.T) {
	e, f, prev := primed(t, good(), Options{Bindings: ModeDirect, Memory: zeroCompared()})
	e.set(list0, ids(2, 3))
	e.set("customer.get_data?customer_id=2", `200 {"result":"OK","data":{"id":2,"state_id":1}}`)
	var polls sync.WaitGroup
	defer polls.Wait()
	polls.Go(func() {
		for range 20 {
			got, err := f.FetchStates(ctx, prev)
			assert.NoError(t, err)
			assert.Equal(t, provision.StatePause, got.States[2])
		}
	})
	for range 20 {
		_, err := f.Fetch(ctx, prev)
		require.NoError(t, err)
	}
}

// Cards that cannot be read, or hang, hold up nothing that lists told.
func TestCardsHoldUpNoList(t *testing.T) {
	t.Run("one in two lists, and cards fail", func(t *testing.T) {
		e, f, prev := primed(t, good(), Options{Bindings: ModeDirect, Memory: zeroCompared()})
		e.set(list0, ids(2, 3))
		e.set(list1, ids(1, 2))
		e.set("customer.get_data", "500 x")
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.Equal(t, map[provision.SubscriberID]string{1: "pause", 2: "stop", 3: "stop"}, words(got))
		require.True(t, got.Refresh)
	})
	t.Run("cards hang", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, err := emulator.Open(emulator.Options{Seed: 7, Customers: 60, Keys: []emulator.Key{{Key: emulatorKey}}})
			require.NoError(t, err)
			defer func() { require.NoError(t, e.Close()) }()
			c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: emulatorKey, Transport: inProcess{e}, Location: time.UTC})
			require.NoError(t, err)
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			var some []int64
			for _, x := range e.Customers() {
				if x.State == emulator.StateActive {
					some = append(some, x.ID)
				}
			}
			require.NoError(t, e.SetState(some[0], emulator.StatePause))
			prev, _ := provision.Build(fetch(t, f, nil))
			paid, pays := provision.SubscriberID(some[0]), provision.SubscriberID(some[1])
			require.NoError(t, e.SetState(some[0], emulator.StateActive))
			require.NoError(t, e.SetState(some[1], emulator.StatePause))
			require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{"customer.get_data": emulator.FaultHang}}))
			for _, most := range []time.Duration{cardTime, quickList} { // what hung before is not waited for as long
				began, told := time.Now(), time.Duration(-1)
				got, err := f.FetchStatesEarly(t.Context(), prev, func(a syncer.StatesAnswer) {
					told = time.Since(began)
					assert.Equal(t, provision.StatePause, a.States[pays])
					assert.NotContains(t, a.States, paid)
				})
				require.NoError(t, err)
				require.Zero(t, told, "before cards are asked for")
				require.LessOrEqual(t, time.Since(began), most)
				require.Equal(t, provision.StatePause, got.States[pays])
				require.Equal(t, provision.StatePause, prev.WithStates(got.States).State(paid))
				require.True(t, got.Refresh)
			}
			require.NoError(t, e.SetQuirks(emulator.Quirks{}))
			got, err := f.FetchStates(t.Context(), prev)
			require.NoError(t, err)
			require.Equal(t, provision.StateActive, got.States[paid])
		})
	})
}

// What a whole fetch does not mend is no reason for one after each poll of states.
func TestWholeFetchesAreNotAskedForInVain(t *testing.T) {
	t.Run("a state that the ERP does not have", func(t *testing.T) {
		policy := provision.PlainPolicy()
		policy.States[7] = provision.StateStop
		rules := with(tenSwitches(), "customer.get_customers_id?state_id=7", tenSwitches()[list2])
		e, f, prev := primed(t, rules, Options{Bindings: ModeDirect, Policy: &policy})
		_, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.NotContains(t, strings.Join(e.calls(), " "), "state_id=7")
		e.set(list1, ids(5))
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.Equal(t, "pause", words(got)[5])
		require.Equal(t, "active", words(got)[6])

		next, _ := newFetcher(t, f.client, Options{Bindings: ModeDirect, Policy: &policy})
		e.set("customer.get_customers_id?state_id=7", ids())
		prev, _ = provision.Build(fetch(t, next, nil))
		e.set("customer.get_customers_id?state_id=7", tenSwitches()[list2])
		_, err = next.FetchStates(ctx, prev)
		require.ErrorIs(t, err, syncer.ErrFetchFirst, "of a list that was believed a whole fetch judges")
	})
	for _, most := range []int{0, 2} { // customers that one poll asks for; zero: all
		t.Run(fmt.Sprintf("in no list, and the card tells no state, at most %d", most), func(t *testing.T) {
			rules := with(manyCustomers(100), list1, ids(5, 6, 7))
			e, f, prev := primed(t, rules, Options{Bindings: ModeDirect, MaxAsk: most})
			e.set(list1, ids())
			e.set("customer.get_customers_id?state_id=2", ids(append([]int{1, 2, 3, 4}, upTo(8, 100)...)...))
			e.set("customer.get_data", `200 {"result":"OK","data":{"5":{"id":5},"6":{"id":6},"7":{"id":7}}}`)
			first := func() {
				t.Helper()
				for range 2 { // until the whole fetch was made
					got, err := f.FetchStates(ctx, prev)
					if most > 0 {
						require.ErrorIs(t, err, syncer.ErrFetchFirst)
					} else {
						require.NoError(t, err)
						require.True(t, got.Refresh)
					}
				}
				prev, _ = provision.Build(fetch(t, f, prev))
			}
			first()
			for range 5 {
				e.calls()
				got, err := f.FetchStates(ctx, prev)
				require.NoError(t, err)
				require.False(t, got.Refresh)
				require.Contains(t, strings.Join(e.calls(), " "), "customer.get_data?customer_id=", "the card may tell again")
				for id := range provision.SubscriberID(3) {
					require.Equal(t, provision.StatePause, prev.WithStates(got.States).State(5+id))
				}
				prev = prev.WithStates(got.States)
			}
			e.set("customer.get_data", `200 {"result":"OK","data":{"5":{"id":5,"state_id":2},"6":{"id":6,"state_id":2},"7":{"id":7,"state_id":2}}}`)
			for range 2 {
				got, err := f.FetchStates(ctx, prev)
				require.NoError(t, err)
				prev = prev.WithStates(got.States)
			}
			require.Equal(t, provision.StateActive, prev.State(5))
			require.Equal(t, provision.StateActive, prev.State(7))
		})
	}
	t.Run("switches that the key may not read", func(t *testing.T) {
		e, f, prev := primed(t, with(tenSwitches(), deviceList, `403 {"error":"section"}`), Options{Bindings: ModeDirect})
		require.True(t, prev.DevicesUnread())
		var after []int // polls of states after each whole fetch
		for polls := 1; len(after) < 5; polls++ {
			got, err := f.FetchStates(ctx, prev)
			require.NoError(t, err)
			if got.Refresh {
				prev, _ = provision.Build(fetch(t, f, prev))
				after, polls = append(after, polls), 0
			}
			require.Less(t, polls, 100)
		}
		require.Equal(t, []int{1, 2, 4, 8, 16}, after)
		e.set(deviceList, switches(10, nil))
		prev, _ = provision.Build(fetch(t, f, prev))
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.False(t, got.Refresh)
	})
}

func upTo(from, to int) (out []int) {
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}

// Servers of each generation that answer everybody, or cards without a state, tell of nobody whom a hint did not name, and confirm
// no list.
func TestWrongCardsOfEachGeneration(t *testing.T) {
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for name, quirks := range map[string]emulator.Quirks{"everybody": {CardsOfAll: true}, "everybody in a list": {CardsOfAll: true, ListForMap: true}, "no state": {CardsWithoutState: true}} {
			t.Run(fmt.Sprintf("%s %s", profile, name), func(t *testing.T) {
				e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 7, Customers: 60})
				f, err := New(c, Options{Bindings: ModeDirect})
				require.NoError(t, err)
				in, err := f.Fetch(ctx, nil)
				require.NoError(t, err)
				prev, _ := provision.Build(in)
				var named provision.SubscriberID
				for _, x := range e.Customers() {
					if id := provision.SubscriberID(x.ID); prev.State(id) == provision.StateActive {
						require.NoError(t, e.SetState(x.ID, emulator.StatePause))
						named = id
					}
				}
				require.NoError(t, e.SetQuirks(quirks))
				got, err := f.FetchCustomers(ctx, []provision.SubscriberID{named}, prev)
				require.NoError(t, err)
				want := map[provision.SubscriberID]string{named: "pause"}
				if quirks.CardsWithoutState {
					want = map[provision.SubscriberID]string{}
				}
				require.Equal(t, want, words(got))
			})
		}
	}
}

// TestHintedFlagsAreKept: what a hint read of a customer's flags goes on to
// count in later polls and whole fetches.
func TestHintedFlagsAreKept(t *testing.T) {
	policy := provision.DefaultPolicy()
	e, f, prev := primed(t, good(), Options{Bindings: ModeDirect, Policy: &policy})
	require.Equal(t, provision.StateActive, prev.State(1))
	e.set(card1, card(`,"is_disable":1`))
	_, err := f.FetchCustomers(ctx, []provision.SubscriberID{1}, prev)
	require.NoError(t, err)
	e.set(card1, refused)
	e.set("customer.get_data", refused)
	e.set(list1, ids(1, 2))
	got, err := f.FetchStates(ctx, prev)
	require.NoError(t, err)
	assert.Equal(t, provision.StateStop, got.States[1], "paused and disabled: stop")
	e.set(list1, ids(2))
	assert.Equal(t, "stop", states(fetch(t, f, prev))[1], "active and disabled")

	e.set("customer.get_data?customer_id=2,1", `200 {"result":"OK","data":{"1":{"id":1,"state_id":2,"is_disable":0},"2":{"id":2,"state_id":1}}}`)
	assert.Equal(t, "active", states(fetch(t, f, prev))[1], "read again")
}

func TestFlagsOfTheDirectSource(t *testing.T) {
	policy := provision.DefaultPolicy()
	disabled := `200 {"result":"OK","data":{"1":{"id":1,"state_id":2,"is_disable":1},"2":{"id":2,"state_id":1}}}`
	t.Run("no flag is heeded: no card is read", func(t *testing.T) {
		_, c := newFakeERP(t, good())
		e, c2 := newFakeERP(t, good())
		_ = c
		f, _ := newFetcher(t, c2, Options{Bindings: ModeDirect, Memory: zeroCompared()})
		fetch(t, f, nil)
		for _, call := range e.calls() {
			assert.NotContains(t, call, "get_data?customer_id")
			assert.NotContains(t, call, "is_ex")
		}
	})
	t.Run("read with the first fetch, the stopped left out", func(t *testing.T) {
		e, c := newFakeERP(t, with(good(), "customer.get_data?customer_id=1,2", disabled))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
		assert.Equal(t, map[provision.SubscriberID]string{1: "stop", 2: "pause", 3: "stop"}, states(fetch(t, f, nil)))
		assert.Contains(t, e.calls(), "customer.get_data?customer_id=1,2")
	})
	t.Run("cards refused: nobody is blocked for it, bindings come", func(t *testing.T) {
		_, c := newFakeERP(t, good())
		f, log := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
		in := fetch(t, f, nil)
		assert.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop"}, states(in))
		assert.Len(t, in.Lines, 4)
		assert.Contains(t, log.String(), "former customers cannot be listed")
	})
	t.Run("by turns within the bound", func(t *testing.T) {
		e, c := newFakeERP(t, with(good(), card1, `200 {"result":"OK","data":{"id":1,"state_id":2}}`, "customer.get_data?customer_id=2", `200 {"result":"OK","data":{"id":2,"state_id":1}}`))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, MaxFlags: 1, Memory: zeroCompared()})
		var asked []string
		for range 4 {
			fetch(t, f, nil)
			for _, call := range e.calls() {
				if strings.HasPrefix(call, "customer.get_data") {
					asked = append(asked, call)
				}
			}
		}
		assert.Equal(t, []string{card1, "customer.get_data?customer_id=2", card1, "customer.get_data?customer_id=2"}, asked)
	})
	t.Run("after a restart the blocked come first", func(t *testing.T) {
		e, c := newFakeERP(t, with(good(), "customer.get_data?customer_id=2", `200 {"result":"OK","data":{"id":2,"state_id":1,"is_disable":1}}`))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, MaxFlags: 1})
		stored, _ := provision.Build(provision.Input{Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StateStop}}})
		assert.Equal(t, "stop", states(fetch(t, f, stored))[2])
		assert.Contains(t, e.calls(), "customer.get_data?customer_id=2")
	})
	t.Run("former customers", func(t *testing.T) {
		_, c := newFakeERP(t, with(good(), list2, ids(1, 4, 5), "customer.get_customers_id?is_ex=1", ids(1, 77)))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
		assert.Equal(t, "stop", states(fetch(t, f, nil))[1])
	})
	t.Run("a list of former customers with everybody in it is not believed", func(t *testing.T) {
		_, c := newFakeERP(t, with(good(), list2, ids(1, 4, 5), "customer.get_customers_id?is_ex=1", ids(1, 2, 3, 4, 5)))
		f, log := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
		assert.Equal(t, "active", states(fetch(t, f, nil))[1])
		assert.Contains(t, log.String(), "more than half of the active customers")
	})
}

func TestMoved(t *testing.T) {
	chain := "commutation.get_data?is_finish_data=1&object_id=1"
	link := func(device, port int) string {
		return fmt.Sprintf(`200 {"result":"OK","data":{"0":{"object_type":"switch","object_id":%d,"interface":%d}}}`, device, port)
	}
	tests := map[string]struct {
		answer string
		want   bool
	}{
		"same":         {link(10, 1), false},
		"other port":   {link(10, 2), true},
		"other switch": {link(11, 1), true},
		"unplugged":    {`200 {"result":"OK","data":[]}`, true},
		"behind fibre": {`200 {"result":"OK","data":{"0":{"object_type":"fiber","object_id":7},"finish":{"object_type":"switch","object_id":10,"interface":1}}}`, false},
		"forbidden":    {`403 {"error":"no"}`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, f, prev := primed(t, good(), Options{Bindings: ModeDirect})
			e.set(chain, tt.answer)
			for i, want := range []bool{tt.want, false} {
				moved, err := f.Moved(ctx, []provision.SubscriberID{1, 999}, prev)
				require.NoError(t, err)
				assert.Equal(t, want, moved, "turn %d: a difference is told once", i)
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		e, f, prev := primed(t, good(), Options{Bindings: ModeDirect})
		e.set(chain, "502 x")
		_, err := f.Moved(ctx, []provision.SubscriberID{1}, prev)
		require.Error(t, err)
	})
}

// TestComposedEqualsDirect: the two sources give snapshots of one content, on
// data with every oddity that the emulator makes: in every shape of the direct
// answer, under the default policy, with former, potential, disabled customers
// and those behind a cross-connect. Two differences are of the data: only the
// direct source tells the VLAN, and an answer keyed by address (shape B) cannot
// tell that two customers have the same one, so there the data has none.
func TestComposedEqualsDirect(t *testing.T) {
	policy := provision.DefaultPolicy()
	many := long.Times(t, 1050, 5000) // the first oddities come after a thousand
	fetch := func(t *testing.T, c *userside.Client, mode Mode) *provision.Snapshot {
		t.Helper()
		f, err := New(c, Options{Bindings: mode, BatchSize: 200, Policy: &policy})
		require.NoError(t, err)
		in, err := f.Fetch(ctx, nil)
		require.NoError(t, err)
		if mode == ModeDirect { // a first fetch does not wait for all cards
			first, _ := provision.Build(in)
			in, err = f.Fetch(ctx, first)
			require.NoError(t, err)
		}
		require.Equal(t, provision.Source(mode), in.Source)
		for i := range in.Lines {
			in.Lines[i].VLAN = 0
		}
		s, _ := provision.Build(in)
		return s
	}
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		for _, data := range []struct {
			customers int
			shapes    string
		}{
			{many, "ACDE"},
			{300, "B"}, // it has one row an address: its customers end before the first oddity
		} {
			e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 3, Customers: data.customers})
			composed := fetch(t, c, ModeComposed) // has nothing of the direct answer, whatever the shape of that
			for _, shape := range data.shapes {
				t.Run(fmt.Sprintf("%s %c", profile, shape), func(t *testing.T) {
					require.NoError(t, e.SetShape(emulator.Shape(shape)))
					direct := fetch(t, c, ModeDirect)
					assert.Equal(t, direct.Counts(), composed.Counts())
					assert.True(t, reflect.DeepEqual(direct.Lines(), composed.Lines()), "bindings")
					assert.True(t, slices.Equal(direct.Devices(), composed.Devices()), "devices")
					assert.True(t, slices.Equal(direct.Subscribers(), composed.Subscribers()), "subscribers")
					assert.Equal(t, direct.Fingerprint(), composed.Fingerprint())
					assert.Equal(t, shape != 'B', direct.Counts().Contested > 0, "the data has oddities")
				})
			}
		}
	}
}

// TestEmulatorFollows: polls of states and reads of customers see what changes
// in the emulated ERP, in every generation.
func TestEmulatorFollows(t *testing.T) {
	policy := provision.DefaultPolicy()
	for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern, emulator.ProfileV321} {
		t.Run(profile.String(), func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 7, Customers: 300})
			f, err := New(c, Options{Policy: &policy})
			require.NoError(t, err)
			in, err := f.Fetch(ctx, nil)
			require.NoError(t, err)
			snap, _ := provision.Build(in)
			var some []emulator.Customer
			for _, customer := range e.Customers() {
				if customer.State == emulator.StateActive && snap.State(provision.SubscriberID(customer.ID)) == provision.StateActive && len(customer.Addresses) == 1 {
					some = append(some, customer)
				}
			}
			id := func(i int) provision.SubscriberID { return provision.SubscriberID(some[i].ID) }
			require.NoError(t, e.SetState(some[0].ID, emulator.StateStop))
			require.NoError(t, e.SetState(some[1].ID, emulator.StatePause))
			answer, err := f.FetchStates(ctx, snap)
			require.NoError(t, err)
			assert.Equal(t, provision.StateStop, answer.States[id(0)])
			assert.Equal(t, provision.StatePause, answer.States[id(1)])
			require.NoError(t, e.SetState(some[0].ID, emulator.StateActive))
			answer, err = f.FetchStates(ctx, snap)
			require.NoError(t, err)
			assert.Equal(t, provision.StateActive, answer.States[id(0)])
			assert.Equal(t, provision.StatePause, answer.States[id(1)])
			for customer, st := range answer.States {
				if customer != id(1) {
					assert.Equal(t, snap.State(customer), st, "customer %d", customer)
				}
			}

			answer, err = f.FetchCustomers(ctx, []provision.SubscriberID{id(1), id(2)}, snap)
			require.NoError(t, err)
			assert.Equal(t, map[provision.SubscriberID]string{id(1): "pause", id(2): "active"}, words(answer))
			assert.False(t, answer.Refresh)
			moved, err := f.Moved(ctx, []provision.SubscriberID{id(1), id(2)}, snap)
			require.NoError(t, err)
			assert.False(t, moved)
			require.NoError(t, e.SetIPMAC(some[2].Addresses[0].IP, emulator.MAC{2, 0, 0, 0, 0, 9}))
			answer, err = f.FetchCustomers(ctx, []provision.SubscriberID{id(2)}, snap)
			require.NoError(t, err)
			assert.True(t, answer.Refresh)
		})
	}
}

var _ interface {
	syncer.Fetcher
	syncer.StateFetcher
	syncer.CustomerFetcher
} = (*Fetcher)(nil)

// TestCardFlags: a flag that the card leaves out is not read, whatever was read before.
func TestCardFlags(t *testing.T) {
	m := NewMemory()
	set := func(v bool) userside.Bool { return userside.Bool{Set: true, Value: v} }
	state := userside.Int{Set: true, Value: 2}
	_, flags := m.card(&userside.Customer{ID: 1, State: state, Potential: set(true), Disabled: set(false), InBilling: set(false)}, nil)
	assert.Equal(t, provision.Flags{Disabled: provision.FlagNo, Potential: provision.FlagYes, NotInBilling: provision.FlagYes}, flags)
	m.setFormer([]int64{1})
	n, flags := m.card(&userside.Customer{ID: 1, InBilling: set(true)}, nil)
	assert.Equal(t, provision.Flags{NotInBilling: provision.FlagNo, Former: provision.FlagYes}, flags)
	assert.Equal(t, 2, n, "a card without a state leaves the one that was known")
}
