package erp

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside/emulator"
)

// zeroCompared is what is known of an ERP, of newFakeERP's version, whose list of
// state 0 was compared with cards before.
func zeroCompared() *Memory {
	m := NewMemory()
	m.setZeroCheck(zeroCheck{Answer: ZeroCondition, Compared: zeroSamples[0], Version: "3.19"})
	return m
}

// On servers for which state_id=0 is no condition, nobody is blocked by that list:
// neither customers of states that the policy does not know nor anybody else.
func TestZeroIsNoCondition(t *testing.T) {
	for name, quirks := range map[string]emulator.Quirks{"refused alone": {StateZeroIgnored: true}, "everybody": {StateZeroAll: true}} {
		for _, profile := range []emulator.Profile{emulator.ProfileLegacy, emulator.ProfileModern} {
			for _, mode := range []Mode{ModeDirect, ModeComposed} {
				t.Run(fmt.Sprintf("%s %s %s", name, profile, mode), func(t *testing.T) {
					e, c := openEmulator(t, emulator.Options{Profile: profile, Seed: 7, Customers: 150, Quirks: quirks})
					all := e.Customers()
					var active []int64
					for i, own := range all {
						if i < 20 {
							require.NoError(t, e.SetState(own.ID, 7))
						} else if own.State == emulator.StateActive {
							active = append(active, own.ID)
						}
					}
					f, err := New(c, Options{Bindings: mode})
					require.NoError(t, err)
					in, err := f.Fetch(ctx, nil)
					require.NoError(t, err)
					s, _ := provision.Build(in)
					for _, own := range e.Customers() {
						want := provision.PlainPolicy().States[int(own.State)]
						require.Equal(t, want, s.State(provision.SubscriberID(own.ID)), "customer %d in state %d", own.ID, own.State)
					}
					require.Equal(t, ZeroIgnored, f.memory.zeroChecked().Answer)

					require.NoError(t, e.SetState(active[0], emulator.StateStop))
					require.NoError(t, e.SetState(active[1], 7))
					got, err := f.FetchStates(ctx, s)
					require.NoError(t, err)
					require.Equal(t, provision.StateStop, got.States[provision.SubscriberID(active[0])])
					require.Equal(t, provision.StateUnknown, got.States[provision.SubscriberID(active[1])])
				})
			}
		}
	}
}

// Where no other list shows it, cards do: of an ERP that answers all who are neither
// active nor paused, in whatever state.
func TestZeroIsComparedWithCards(t *testing.T) {
	const first, others = "customer.get_data?customer_id=3,4,5", `200 {"result":"OK","data":{"3":{"id":3,"state_id":0},"4":{"id":4,"state_id":7},"5":{"id":5,"state_id":7}}}`
	rows := `200 {"result":"OK","data":[{"customer_id":1,"ip":"1681915905"},{"customer_id":3,"ip":"1681915907"},{"customer_id":4,"ip":"1681915908"},{"customer_id":5,"ip":"1681915909"}]}`
	e, c := newFakeERP(t, with(good(), "customer.get_ip_port_device_commutation", rows, list0, ids(3, 4, 5),
		first, others, "customer.get_data?customer_id=4,5,3", others))
	f, log := newFetcher(t, c, Options{Bindings: ModeDirect})
	want := map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop", 4: "unknown", 5: "unknown"}
	in := fetch(t, f, nil)
	require.Equal(t, want, states(in))
	require.Contains(t, log.String(), "state_id=0 is no condition")
	require.Equal(t, zeroCheck{Answer: ZeroIgnored, Compared: 3, Other: 2, Version: "3.19"}, f.memory.zeroChecked())
	compared := func() int {
		return len(slices.DeleteFunc(e.calls(), func(call string) bool { return call != first }))
	}
	require.Equal(t, 1, compared())

	s, _ := provision.Build(in)
	require.Equal(t, want, states(fetch(t, f, s)))
	require.Zero(t, compared(), "the cards of those in no list, and none to compare")

	z := f.memory.zeroChecked()
	z.Version = "3.18" // as it was when cards were compared
	f.memory.setZeroCheck(z)
	e.set(first, `200 {"result":"OK","data":{"3":{"id":3,"state_id":0},"4":{"id":4,"state_id":0},"5":{"id":5,"state_id":0}}}`)
	require.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop", 4: "stop", 5: "stop"}, states(fetch(t, f, s)), "asked again after an upgrade")
	require.Equal(t, zeroCheck{Answer: ZeroCondition, Compared: 3, Version: "3.19"}, f.memory.zeroChecked())
	require.Equal(t, 1, compared())
	fetch(t, f, s)
	require.Zero(t, compared(), "once for a version")
}

// What cards told about the list is not forgotten where they cannot be read: not over a restart, and not where the ERP has another version meanwhile.
func TestListOfZeroIsNotBelievedAgain(t *testing.T) {
	const first, second = "customer.get_data?customer_id=3,4,5", "customer.get_data?customer_id=4,5,3"
	const others, forbidden = `200 {"result":"OK","data":{"3":{"id":3,"state_id":0},"4":{"id":4,"state_id":7},"5":{"id":5,"state_id":7}}}`, `403 {"error":"section"}`
	rows := `200 {"result":"OK","data":[{"customer_id":1,"ip":"1681915905"},{"customer_id":3,"ip":"1681915907"},{"customer_id":4,"ip":"1681915908"},{"customer_id":5,"ip":"1681915909"}]}`
	for name, c := range map[string]struct {
		restart bool
		version string // that it had when cards were compared; empty: as now
	}{
		"restart":             {restart: true},
		"upgrade":             {version: "3.18"},
		"restart and upgrade": {restart: true, version: "3.18"},
	} {
		t.Run(name, func(t *testing.T) {
			e, client := newFakeERP(t, with(good(), "customer.get_ip_port_device_commutation", rows, list0, ids(3, 4, 5), first, others, second, others))
			path := filepath.Join(t.TempDir(), "answers")
			m, err := OpenMemory(path, testURL)
			require.NoError(t, err)
			f, _ := newFetcher(t, client, Options{Bindings: ModeDirect, Memory: m})
			in := fetch(t, f, nil)
			want := map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop", 4: "unknown", 5: "unknown"}
			require.Equal(t, want, states(in))
			s, _ := provision.Build(in)
			if c.version != "" {
				z := m.zeroChecked()
				z.Version = c.version
				m.setZeroCheck(z)
			}
			if c.restart {
				require.NoError(t, f.Save())
				m, err = OpenMemory(path, testURL)
				require.NoError(t, err)
				f, _ = newFetcher(t, client, Options{Bindings: ModeDirect, Memory: m})
			}
			e.set(first, forbidden)
			e.set(second, forbidden)
			for range 2 {
				in = fetch(t, f, s)
				require.Equal(t, want, states(in), "nobody is blocked by that list")
				require.Equal(t, ZeroIgnored, m.zeroChecked().Answer)
				s, _ = provision.Build(in)
			}
			got, err := f.FetchStates(ctx, s)
			require.NoError(t, err)
			require.NotContains(t, got.States, provision.SubscriberID(4))
			zero := `200 {"result":"OK","data":{"3":{"id":3,"state_id":0},"4":{"id":4,"state_id":0},"5":{"id":5,"state_id":0}}}`
			e.set(first, zero)
			e.set(second, zero)
			in = fetch(t, f, s)
			require.Equal(t, "stop", states(in)[4], "their cards say so")
		})
	}
}

// One card that differs may be of a customer who changed between two calls; cards
// that cannot be read prove nothing.
func TestZeroIsNotDoubtedTooSoon(t *testing.T) {
	for name, tt := range map[string]struct {
		cards string
		want  ZeroAnswer
		five  string
	}{
		"one has paid meanwhile": {`200 {"result":"OK","data":{"3":{"id":3,"state_id":0},"5":{"id":5,"state_id":2}}}`, ZeroCondition, "active"},
		"cards are refused":      {refused, ZeroUnknown, "stop"},
		"cards are forbidden":    {`403 {"error":"section"}`, ZeroUnknown, "stop"},
		"cards tell no state":    {`200 {"result":"OK","data":{"3":{"id":3},"5":{"id":5}}}`, ZeroUnknown, "stop"},
		"no card can be had":     {`500 x`, ZeroUnknown, "stop"},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := newFakeERP(t, with(good(), list0, ids(3, 5), "customer.get_data?customer_id=3,5", tt.cards))
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			require.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "stop", 5: tt.five}, states(fetch(t, f, nil)))
			require.Equal(t, tt.want, f.memory.zeroChecked().Answer)
		})
	}
}

// A list of paused customers that has everybody pauses nobody, at a first start, later and by a poll, whether cards can be read or
// not; who is paused stays so, by the card or by what is in use.
func TestListOfPausedHasEverybody(t *testing.T) {
	cards := `200 {"result":"OK","data":{"1":{"id":1,"state_id":2},"2":{"id":2,"state_id":1},"3":{"id":3,"state_id":2}}}`
	for name, answer := range map[string]string{"cards come": cards, "cards are forbidden": `403 {"error":"section"}`} {
		t.Run(name, func(t *testing.T) {
			rules := with(good(), list2, ids(1, 3, 4, 5), list0, ids(), "customer.get_data?customer_id=1,2,3", answer, "customer.get_data", answer,
				"customer.get_data?customer_id=2", strings.Replace(answer, cards, `200 {"result":"OK","data":{"id":2,"state_id":1}}`, 1))
			e, c := newFakeERP(t, with(rules, list1, ids(1, 2, 3, 4, 5)))
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			in := fetch(t, f, nil)
			require.Equal(t, "active", states(in)[1])
			require.Equal(t, "active", states(in)[3])
			require.Equal(t, map[bool]string{true: "pause", false: "unknown"}[name == "cards come"], states(in)[2])
			st := statusOf(t, f, syncer.SourceStates)
			require.Equal(t, syncer.JudgedHeld, st.Judgement)
			require.Contains(t, st.Error, "the list of customers in state pause")

			e.set(list1, ids(2))
			in = fetch(t, f, nil)
			require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceStates).Judgement)
			prev, _ := provision.Build(in)
			require.Equal(t, provision.StatePause, prev.State(2))
			e.set(list1, ids(1, 2, 3, 4, 5))
			_, err := f.FetchStates(ctx, prev)
			require.ErrorIs(t, err, syncer.ErrFetchFirst)
			require.Equal(t, map[provision.SubscriberID]string{1: "active", 2: "pause", 3: "active", 4: "active", 5: "active"}, states(fetch(t, f, prev)))
			require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceStates).Judgement)
		})
	}
}

// Of a customer in the lists of two states the card decides, else the stricter of the
// two, in whatever order they are read.
func TestCustomerInTwoStateLists(t *testing.T) {
	const card2 = "customer.get_data?customer_id=2"
	policy := provision.PlainPolicy()
	policy.States[5] = provision.StateActive
	const list5 = "customer.get_customers_id?state_id=5"
	for name, tt := range map[string]struct {
		lists []string
		card  string
		want  string
	}{
		"active and paused":                {[]string{list2, ids(1, 2), list1, ids(2)}, refused, "pause"},
		"active and paused, card active":   {[]string{list2, ids(1, 2), list1, ids(2)}, `200 {"result":"OK","data":{"id":2,"state_id":2}}`, "active"},
		"paused and stopped":               {[]string{list0, ids(2, 3)}, refused, "stop"},
		"paused and stopped, card paused":  {[]string{list0, ids(2, 3)}, `200 {"result":"OK","data":{"id":2,"state_id":1}}`, "pause"},
		"paused and active by a later one": {[]string{list5, ids(2)}, `403 {"error":"section"}`, "pause"},
	} {
		t.Run(name, func(t *testing.T) {
			start := append([]string{card2, tt.card, list5, ids()}, tt.lists...)
			e, f, s := primed(t, with(good(), start...), Options{Bindings: ModeDirect, Policy: &policy})
			assert.Equal(t, tt.want, s.State(2).String(), "whole fetch")
			e.set(list5, ids())
			e.set(list1, ids(2))
			got, err := f.FetchStates(ctx, s)
			require.NoError(t, err)
			assert.Equal(t, map[bool]string{true: "pause", false: tt.want}[len(tt.lists) == 4 || tt.lists[0] == list5], got.States[2].String(), "poll of states")
		})
	}
}

// A server that takes no state for a condition answers everybody three times. The list of active customers is then none either:
// of who is blocked the card decides, else what is in use stands. Where one list alone is wrong the others count.
func TestStatesAreNoCondition(t *testing.T) {
	everybody, forbidden := ids(1, 2, 3, 4, 5, 6), `403 {"error":"section"}`
	paid := `200 {"result":"OK","data":{"2":{"id":2,"state_id":2},"3":{"id":3,"state_id":0}}}`
	const held, good2 = syncer.JudgedHeld, syncer.JudgedGood
	for name, tt := range map[string]struct {
		lists  [3]string
		cards  string
		want2  string
		want3  string
		states syncer.SourceJudgement
		poll2  string
	}{
		"no cards":                             {[3]string{everybody, everybody, everybody}, forbidden, "pause", "stop", held, ""},
		"no cards, state 0 refused":            {[3]string{refused, everybody, everybody}, forbidden, "pause", "stop", held, ""},
		"one is new meanwhile":                 {[3]string{ids(1, 2, 3, 4, 5, 6, 7), ids(1, 2, 3, 4, 5, 6, 7), everybody}, forbidden, "pause", "stop", held, ""},
		"cards say who paid":                   {[3]string{everybody, everybody, everybody}, paid, "active", "stop", held, "active"},
		"only that of paused ones":             {[3]string{ids(3), everybody, ids(1, 2, 4, 5, 6)}, forbidden, "active", "stop", held, "active"},
		"only that of paused ones, none stops": {[3]string{ids(), everybody, everybody}, forbidden, "active", "active", held, "active"},
		"only that of stopped ones":            {[3]string{everybody, ids(), everybody}, forbidden, "active", "active", good2, "active"},
		"only that of active ones, no cards":   {[3]string{ids(3), ids(2), everybody}, forbidden, "pause", "stop", good2, "pause"},
	} {
		t.Run(name, func(t *testing.T) {
			e, f, prev := primed(t, with(good(), list2, ids(1, 4, 5, 6)), Options{Bindings: ModeDirect, Memory: zeroCompared()})
			require.Equal(t, subscribers[1:3], []provision.Subscriber{{ID: 2, State: prev.State(2)}, {ID: 3, State: prev.State(3)}})
			for n, list := range []string{list0, list1, list2} {
				e.set(list, tt.lists[n])
			}
			e.set("customer.get_data", tt.cards)
			snap := prev
			for range 2 {
				in := fetch(t, f, snap)
				require.Equal(t, tt.want2, states(in)[2])
				require.Equal(t, tt.want3, states(in)[3])
				require.Equal(t, "active", states(in)[1])
				require.Equal(t, tt.states, statusOf(t, f, syncer.SourceStates).Judgement)
				got, err := f.FetchStates(ctx, prev)
				require.NoError(t, err)
				require.Equal(t, tt.poll2, words(got)[2])
				snap, _ = provision.Build(in)
			}
			e.set(list0, ids(3))
			e.set(list1, ids(2))
			e.set(list2, ids(1, 4, 5, 6))
			in := fetch(t, f, snap)
			require.Equal(t, "pause", states(in)[2])
			require.Equal(t, "stop", states(in)[3])
			require.Equal(t, good2, statusOf(t, f, syncer.SourceStates).Judgement)
		})
	}
}
