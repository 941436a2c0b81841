package lease

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

var (
	old, fresh, other = provision.MAC{2, 0, 0, 0, 0, 1}, provision.MAC{2, 0, 0, 0, 0, 2}, provision.MAC{2, 0, 0, 0, 0, 3}

	knownAt = testNow.Add(time.Minute) // when the ERP's MAC of the lease was learned
)

// fetched is a whole fetch that began at a time and has one row, of customer 42 at port 5 of device 9 if change does not say otherwise.
func fetched(began time.Time, mac provision.MAC, change ...func(*provision.Input)) *provision.Snapshot {
	in := provision.Input{
		Source: provision.SourceDirect, FetchedAt: began, Subscribers: []provision.Subscriber{{ID: 42, State: provision.StateActive}},
		Lines: []provision.Line{{Subscriber: 42, Device: 9, Port: 5, MAC: mac, Addresses: provision.Hosts4(ip7)}},
	}
	for _, c := range change {
		c(&in)
	}
	s, _ := provision.Build(in)
	return s
}

// had is the lease of old, for which the ERP had old when it was asked at knownAt.
func had(change ...func(*Record)) Record {
	r := testRecord(ip7)
	r.MAC, r.Pool = old, ""
	r.ERP.Direct = ERPMAC{old, knownAt.UnixNano()}
	for _, c := range change {
		c(&r)
	}
	return r
}

// What is the operator's word against a lease, and all that is none.
func TestOperatorsWord(t *testing.T) {
	after := knownAt.Add(time.Second)
	as := func(c func(*Record)) Record { return had(c) }
	for _, tc := range []struct {
		name string
		rec  Record
		snap *provision.Snapshot
		want bool
	}{
		{"a third MAC", had(), fetched(after, fresh), true},
		{"the lease may be over", as(func(r *Record) { r.Expires = r.Start }), fetched(after, fresh), true},
		{"the client's MAC", had(), fetched(after, old), false},
		{"an empty one", had(), fetched(after, provision.MAC{}), false},
		{"the one that the ERP had when the client got the address", as(func(r *Record) { r.ERP.Direct.MAC = other }), fetched(after, other), false},
		{"another than that one", as(func(r *Record) { r.ERP.Direct.MAC = other }), fetched(after, fresh), true},
		{"the ERP had none", as(func(r *Record) { r.ERP.Direct.MAC = provision.MAC{} }), fetched(after, fresh), true},
		{"what our outbox sent since", as(func(r *Record) { r.ERP.Sent[2] = fresh }), fetched(after, fresh), false},
		{"a fetch that began before", had(), fetched(knownAt.Add(-time.Second), fresh), false},
		{"one that began in the same instant", had(), fetched(knownAt, fresh), false},
		{"that one was held and is accepted after", had(), fetched(knownAt.Add(-time.Second), fresh).Accept(after), true},
		{"another source", had(), fetched(after, fresh, func(in *provision.Input) { in.Source = provision.SourceComposed }), false},
		{"another source that has always had it", as(func(r *Record) { r.ERP.Composed = ERPMAC{fresh, knownAt.UnixNano()} }),
			fetched(after, fresh, func(in *provision.Input) { in.Source = provision.SourceComposed }), false},
		{"another source that has changed", as(func(r *Record) { r.ERP.Composed = ERPMAC{other, knownAt.UnixNano()} }),
			fetched(after, fresh, func(in *provision.Input) { in.Source = provision.SourceComposed }), true},
		{"a stored snapshot", had(), stored(after, fresh), false},
		{"a row of an earlier fetch", had(), fetched(after, fresh, func(in *provision.Input) { in.Earlier = []provision.SubscriberID{7, 42, 1} }), false},
		{"another port alone", had(), fetched(after, old, func(in *provision.Input) { in.Lines[0].Port = 6 }), false},
		{"another owner alone", had(), fetched(after, old, func(in *provision.Input) { in.Lines[0].Subscriber = 43 }), false},
		{"port and MAC", had(), fetched(after, fresh, func(in *provision.Input) { in.Lines[0].Port = 6 }), true},
		{"the port's next customer", had(), fetched(after, fresh, func(in *provision.Input) { in.Lines[0].Subscriber = 43 }), true},
		{"another owner elsewhere", had(), fetched(after, fresh, func(in *provision.Input) { in.Lines[0].Subscriber, in.Lines[0].Port = 43, 6 }), false},
		{"nobody has the address", had(), fetched(after, fresh, func(in *provision.Input) { in.Lines[0].Addresses = provision.Hosts4(ip7.Next()) }), false},
		{"nothing is known of before", as(func(r *Record) { r.ERP = ERPMACs{} }), fetched(after, fresh), false},
		{"a pool's", as(func(r *Record) { r.Pool = "guests" }), fetched(after, fresh), false},
		{"no snapshot", had(), nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mac, yes := tc.rec.Overruled(tc.snap)
			assert.Equal(t, tc.want, yes)
			assert.Equal(t, tc.want, mac == fresh)
		})
	}
}

func stored(at time.Time, mac provision.MAC) *provision.Snapshot {
	x := provision.Stored{FetchedAt: at, Origin: provision.SourceDirect}
	x.Add(&provision.Line{Subscriber: 42, Device: 9, Port: 5, MAC: mac}, provision.Hosts4(ip7)[0])
	return x.Snapshot()
}

// A state that was read for a hint may decide between two that claim one address. What it makes of the rows is no word.
func TestAHintIsNoWord(t *testing.T) {
	s := fetched(knownAt.Add(time.Second), fresh, func(in *provision.Input) {
		in.Lines = append(in.Lines, provision.Line{Subscriber: 43, Device: 9, Port: 5, MAC: other, Addresses: provision.Hosts4(ip7)})
		in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: 43, State: provision.StatePause})
	})
	rec := had()
	mac, yes := rec.Overruled(s)
	require.True(t, yes)
	require.Equal(t, fresh, mac)
	hinted := s.WithStates(map[provision.SubscriberID]provision.State{42: provision.StatePause, 43: provision.StateActive})
	require.Equal(t, other, hinted.ByIP(ip7).MAC)
	_, yes = rec.Overruled(hinted)
	require.False(t, yes)
	_, yes = rec.Overruled(s.WithStates(map[provision.SubscriberID]provision.State{42: provision.StateStop, 43: provision.StatePause}))
	require.True(t, yes, "the rows are those of the fetch")
}

func TestTableLearnsOfTheERP(t *testing.T) {
	at := func(n int) time.Time { return knownAt.Add(time.Duration(n) * time.Second) }
	get := func(tab *Table) Record { r, _ := tab.Get(ip7); return r }
	overruled := func(tab *Table, s *provision.Snapshot) bool {
		r := get(tab)
		_, yes := r.Overruled(s)
		return yes
	}
	t.Run("the client's own MAC", func(t *testing.T) {
		tab := New()
		tab.Store(had(func(r *Record) { r.ERP.Direct.MAC = other }))
		learned, n := tab.Adopt(fetched(at(1), old), at(2))
		require.Equal(t, []int{1, 0}, []int{learned, n})
		require.Equal(t, ERPMAC{old, at(1).UnixNano()}, get(tab).ERP.Direct)
		require.True(t, overruled(tab, fetched(at(3), other)), "what it had before is newer now")
		learned, n = tab.Adopt(fetched(at(3), other), at(4))
		require.Equal(t, []int{0, 1}, []int{learned, n})
		require.Equal(t, old, get(tab).ERP.Direct.MAC, "another MAC is not learned: it is a word")
		learned, _ = tab.Adopt(fetched(at(4), old), at(5))
		require.Zero(t, learned, "nothing is written for what is known")
	})
	t.Run("not by an earlier fetch than is known", func(t *testing.T) {
		tab := New()
		tab.Store(had(func(r *Record) { r.ERP.Direct.MAC = other }))
		learned, _ := tab.Adopt(fetched(at(-1), old), at(1))
		require.Zero(t, learned)
	})
	t.Run("each way of reading by itself", func(t *testing.T) {
		tab := New()
		tab.Store(had())
		composed := func(in *provision.Input) { in.Source = provision.SourceComposed }
		tab.Adopt(fetched(at(1), other, composed), at(2))
		require.Equal(t, ERPMACs{Direct: ERPMAC{old, knownAt.UnixNano()}, Composed: ERPMAC{other, at(1).UnixNano()}}, get(tab).ERP)
		require.False(t, overruled(tab, fetched(at(3), other, composed)))
		require.True(t, overruled(tab, fetched(at(3), fresh, composed)))
		require.True(t, overruled(tab, fetched(at(3), other)))
	})
	t.Run("what is stored, of a pool, or of somebody else", func(t *testing.T) {
		tab := New()
		for i, r := range []Record{had(func(r *Record) { r.Pool = "guests" }), had(func(r *Record) { r.Subscriber, r.Port = 1, 0 })} {
			r.ERP = ERPMACs{}
			tab.Store(r)
			learned, _ := tab.Adopt(fetched(at(1), old), at(2))
			require.Zero(t, learned, i)
		}
		tab.Store(had(func(r *Record) { r.ERP = ERPMACs{} }))
		learned, _ := tab.Adopt(stored(at(1), old), at(2))
		require.Zero(t, learned)
	})
	t.Run("a clock that was ahead", func(t *testing.T) {
		tab := New()
		tab.Store(had(func(r *Record) { r.ERP.Direct.At = at(1_000_000).UnixNano() }))
		tab.Adopt(fetched(at(1), fresh), at(2))
		require.Equal(t, ERPMAC{old, at(1).UnixNano()}, get(tab).ERP.Direct)
		require.True(t, overruled(tab, fetched(at(3), fresh)))
	})
	t.Run("what the ERP takes from us", func(t *testing.T) {
		tab := New()
		tab.Store(had())
		tab.Sending(ip7, old)
		require.Zero(t, get(tab).ERP.Sent, "the client's own is no news")
		tab.Sending(ip7, fresh)
		require.False(t, overruled(tab, fetched(at(1), fresh)), "it may have arrived, whatever became of the call")
		tab.Sending(ip7, fresh)
		tab.Taken(ip7, fresh, provision.SourceDirect, at(2))
		require.Equal(t, ERPMACs{Direct: ERPMAC{fresh, at(2).UnixNano()}, Sent: [maxSent]provision.MAC{fresh}}, get(tab).ERP)
		require.False(t, overruled(tab, fetched(at(1), other)), "the fetch had begun before")
		require.True(t, overruled(tab, fetched(at(3), other)))
		for i := range byte(6) {
			tab.Sending(ip7, provision.MAC{4, i + 1})
		}
		require.Equal(t, [maxSent]provision.MAC{{4, 6}, {4, 5}, {4, 4}, {4, 3}}, get(tab).ERP.Sent)
		tab.Sending(ip7.Next(), fresh) // no lease
		require.Equal(t, 1, tab.Len())
	})
	t.Run("a packet that is decided meanwhile loses nothing", func(t *testing.T) {
		tab := New()
		planned := had()
		tab.Store(had())
		tab.Taken(ip7, fresh, provision.SourceDirect, at(2))
		tab.Store(planned)
		require.Equal(t, fresh, get(tab).ERP.Direct.MAC)
		planned.MAC, planned.ERP = other, ERPMACs{}
		tab.Store(planned)
		require.Zero(t, get(tab).ERP, "another client has its own")
	})
}

// A new client's record has what the ERP has by then, also where that is a report of ours that the snapshot does not have yet.
func TestGranted(t *testing.T) {
	now := knownAt.Add(time.Minute)
	s := fetched(knownAt.Add(time.Second), old)
	line := s.ByIP(ip7)
	before := had()
	require.Equal(t, ERPMACs{Direct: ERPMAC{old, now.UnixNano()}}, Granted(s, line, &before, now))
	before.ERP.Direct = ERPMAC{fresh, knownAt.Add(2 * time.Second).UnixNano()}
	require.Equal(t, ERPMACs{Direct: ERPMAC{fresh, now.UnixNano()}, Sent: [maxSent]provision.MAC{before.MAC}}, Granted(s, line, &before, now))
	require.Equal(t, ERPMACs{Direct: ERPMAC{old, now.UnixNano()}}, Granted(s, line, &Record{}, now))
	// The ERP was told of the client before, and the agent killed before it had noted that.
	killed := had()
	killed.MAC = fresh
	next := Record{IP: ip7, MAC: other, State: StateBound, ERP: Granted(s, line, &killed, now)}
	require.True(t, next.Ours(fresh), "it is nobody else's word")
	require.False(t, next.Ours(other))
	require.Equal(t, ERPMACs{Direct: ERPMAC{old, now.UnixNano()}}, Granted(stored(knownAt, old), line, &Record{}, now), "a stored snapshot is what the ERP had, too")
	require.Zero(t, Granted(fetched(knownAt, old, func(in *provision.Input) { in.Source = "" }), line, &Record{}, now))
	rec := Record{ERP: ERPMACs{Direct: ERPMAC{fresh, 1}}}
	require.Equal(t, provision.Replaced{MAC: fresh, Known: true}, rec.Replaced(s))
	require.Zero(t, (&Record{}).Replaced(s))
}

func TestERPMACsInJSON(t *testing.T) {
	rec := had(func(r *Record) { r.ERP.Sent[0] = fresh })
	text, err := json.Marshal(rec)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"erp_mac":{"direct":{"mac":"02:00:00:00:00:01","at":"`)
	var back Record
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, rec.ERP, back.ERP)
	text, err = json.Marshal(testRecord(ip7))
	require.NoError(t, err)
	assert.NotContains(t, string(text), "erp_mac")
}

func TestDamagedERPMACs(t *testing.T) {
	e := ERPMACs{Direct: ERPMAC{old, 7}, Sent: [maxSent]provision.MAC{fresh}}
	good := e.appendTo(nil)
	for n := 1; n < len(good); n++ {
		if n != 1+6+8 {
			require.Error(t, new(ERPMACs).unmarshal(good[:n]), n)
		}
	}
	require.Error(t, new(ERPMACs).unmarshal(append([]byte{'x'}, good[1:]...)))
	many := []byte{}
	for range maxSent + 1 {
		many = append(append(many, erpSent), old[:]...)
	}
	require.Error(t, new(ERPMACs).unmarshal(many))
}

// What a report replaces outlives a restart, and belongs to that report alone.
func TestReportsKeepWhatTheyReplace(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/state.db"
	plain := provision.MACReport{IP: ip7, MAC: mac1, At: time.Unix(1_800_000_000, 5)}
	known := plain
	known.IP, known.Replaces = ip7.Next(), provision.Replaced{MAC: old, Known: true}
	none := plain
	none.IP, none.Replaces = known.IP.Next(), provision.Replaced{Known: true}
	kept := func() (out []provision.MACReport) {
		s := openStore(t, path)
		defer s.Close()
		require.NoError(t, s.Reports(func(r provision.MACReport, err error) {
			require.NoError(t, err)
			out = append(out, r)
		}))
		slices.SortFunc(out, func(a, b provision.MACReport) int { return a.IP.Compare(b.IP) })
		return out
	}
	commit := func(b Batch) {
		s := openStore(t, path)
		defer s.Close()
		require.NoError(t, s.Commit(func(to *Batch) error { to.Reports, to.Done = b.Reports, b.Done; return nil }))
	}
	commit(Batch{Reports: []provision.MACReport{plain}})
	commit(Batch{Reports: []provision.MACReport{known, none}})
	require.Equal(t, []provision.MACReport{plain, known, none}, kept())
	later := known
	later.At, later.Replaces = later.At.Add(time.Second), provision.Replaced{}
	commit(Batch{Reports: []provision.MACReport{later}})
	require.Equal(t, []provision.MACReport{plain, later, none}, kept(), "what is left there has another time")
	commit(Batch{Done: []provision.MACReport{plain, later, none}})
	require.Empty(t, kept())
}

// A walk over a hundred thousand leases holds the table for moments only: packets go on meanwhile.
func TestAdoptHoldsUpNoPacket(t *testing.T) {
	const n = 100_000
	tab := New()
	in := provision.Input{Source: provision.SourceDirect, FetchedAt: knownAt}
	for i := range n {
		a := netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
		tab.Store(Record{IP: a, MAC: old, Subscriber: provision.SubscriberID(i + 1), State: StateBound, Start: testNow, Expires: testNow.Add(time.Hour)})
		in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(i + 1), MAC: fresh, Addresses: provision.Hosts4(a)})
	}
	s, _ := provision.Build(in)
	began, done := time.Now(), make(chan string)
	go func() {
		learned, _ := tab.Adopt(s, knownAt)
		done <- fmt.Sprint(learned)
	}()
	var longest time.Duration
	for i := 0; ; i++ {
		select {
		case learned := <-done:
			require.Equal(t, fmt.Sprint(n), learned)
			t.Logf("%d records learned in %v, a renewal waited %v at most, of %d", n, time.Since(began), longest, i)
			began = time.Now()
			learn, _ := tab.Adopt(s, knownAt)
			require.Zero(t, learn)
			t.Logf("nothing new in %v", time.Since(began))
			return
		default:
			at := time.Now()
			tab.Renew(netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), old, testNow, testNow.Add(time.Hour))
			longest = max(longest, time.Since(at))
		}
	}
}
