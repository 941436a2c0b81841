package erp

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

const testURL = "https://erp.example.net/api.php"

// The order in which cards were read holds however many were read, a year and more of them, also over a restart.
func TestOrderOfReadsDoesNotEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m, err := OpenMemory(path, testURL)
	require.NoError(t, err)
	m.reads = math.MaxUint32 - 1
	for id := range int64(3) {
		m.card(&userside.Customer{ID: 1 + id}, nil)
	}
	m.tell(syncer.SourceStatus{Source: syncer.SourceFlags, Judgement: syncer.JudgedGood, GoodAt: now}, now)
	require.NoError(t, m.save(now))
	again, err := OpenMemory(path, testURL)
	require.NoError(t, err)
	again.card(&userside.Customer{ID: 4}, nil)
	for id := range int64(3) {
		require.Less(t, again.lastRead(1+id), again.lastRead(2+id), "customer %d was read before", 1+id)
	}
	require.NotZero(t, again.lastRead(2), "that would be never")
}

// What was known comes back, as it was; for another ERP nothing does.
func TestMemoryOverRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	m, err := OpenMemory(path, testURL)
	require.NoError(t, err, "no file is nothing known")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	require.NoError(t, m.save(now))
	require.NoFileExists(t, path, "nothing was asked yet")

	yes := userside.Bool{Set: true, Value: true}
	net := netip.MustParsePrefix("203.0.113.8/29")
	m.card(&userside.Customer{ID: 1, State: userside.Int{Set: true, Value: 2}, Disabled: yes, InBilling: yes}, []netip.Prefix{net})
	m.card(&userside.Customer{ID: 2, Potential: yes}, nil)
	m.setFormer([]int64{3, 4})
	m.remember(map[int64]int{1: 2, 2: noStateID}, nil, true)
	m.keep(map[int64]provision.State{2: provision.StateStop})
	list := []device{{devices[0], []port{{1, "ge-0/0/1"}, {2, "ge-0/0/2"}}}, {Device: devices[1]}}
	m.setDevices(list)
	m.tell(syncer.SourceStatus{Source: syncer.SourceFormer, Judgement: syncer.JudgedGood, GoodAt: now, Rows: 2}, now)
	require.NoError(t, m.save(now))

	again, err := OpenMemory(path, testURL)
	require.NoError(t, err)
	require.Equal(t, list, again.knownDevices())
	require.Equal(t, m.flags(1), again.flags(1))
	require.Equal(t, provision.Flags{Potential: provision.FlagYes, Former: provision.FlagNo}, again.flags(2))
	require.Equal(t, provision.FlagYes, again.flags(3).Former)
	require.Equal(t, []provision.Subnet{{Prefix: net, Subscriber: 1}}, again.subnets())
	require.Equal(t, m.lastRead(2), again.lastRead(2))
	n, known := again.number(1)
	require.Equal(t, 2, n)
	require.True(t, known)
	_, known = again.number(2)
	require.False(t, known)
	require.Equal(t, syncer.SourceStatus{Source: syncer.SourceFormer, Judgement: syncer.JudgedUnread, GoodAt: now, Rows: 2}, again.source(syncer.SourceFormer))
	numbers, zero, whole := again.prior()
	require.Equal(t, map[int64]int{1: 2, 2: noStateID}, numbers)
	require.True(t, zero)
	require.True(t, whole, "states can be polled")
	require.True(t, again.fromBefore())
	policy := provision.DefaultPolicy()
	require.Equal(t, provision.StateStop, again.state(&policy, 2, 2), "for a reason that nobody can read")
	again.card(&userside.Customer{ID: 5}, nil)
	require.Greater(t, again.lastRead(5), again.lastRead(2), "the order of reads goes on")

	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, m.save(now.Add(saveUnchanged-time.Second)))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after, "nothing changed, so nothing is written")

	foreign, err := OpenMemory(path, "https://erp2.example.net/api.php")
	require.NoError(t, err)
	require.Empty(t, foreign.knownDevices())
	require.Equal(t, provision.Flags{}, foreign.flags(1))
}

func TestMemoryOfBadFiles(t *testing.T) {
	head := func(version int, body string) string {
		return fmt.Sprintf("%s %d %08x\n%s", answersMagic, version, statedir.Sum([]byte(body)), body)
	}
	for name, tt := range map[string]struct{ content, says string }{
		"empty":         {"", "the first line is none of usher's"},
		"foreign":       {"usher snapshot 3\n", "the first line is none of usher's"},
		"cut off":       {strings.TrimSuffix(head(1, `{"former":[1]}`), "}"), "the file is damaged"},
		"a flipped bit": {strings.Replace(head(1, `{"former":[1]}`), "[1]", "[2]", 1), "the file is damaged"},
		"no JSON":       {head(1, `{"former":`), "unexpected end"},
		"newer, torn":   {head(7, `{"former":[1]}`) + "x", "the file is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "answers")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o600))
			m, err := OpenMemory(path, testURL)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "kept as answers.bad")
			require.FileExists(t, path+".bad")
			m.tell(syncer.SourceStatus{Source: syncer.SourceStates, Judgement: syncer.JudgedGood}, time.Now())
			require.NoError(t, m.save(time.Now()), "and a new one is written")
			_, err = OpenMemory(path, testURL)
			require.NoError(t, err)
		})
	}
	t.Run("newer", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "answers")
		require.NoError(t, os.WriteFile(path, []byte(head(7, `{"what":"ever"}`)), 0o600))
		_, err := OpenMemory(path, testURL)
		require.ErrorAs(t, err, new(*statedir.NewerError))
		require.FileExists(t, path)
	})
}

// Evidence is kept, also when the file is damaged again.
func TestTwoDamagedMemories(t *testing.T) {
	path := filepath.Join(t.TempDir(), "answers")
	for _, c := range []struct{ text, name string }{{"first", "answers.bad"}, {"second", "answers.bad.2"}} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o600))
		m, err := OpenMemory(path, testURL)
		require.ErrorContains(t, err, "; kept as "+c.name)
		m.tell(syncer.SourceStatus{Source: syncer.SourceStates, Judgement: syncer.JudgedGood}, time.Now())
		require.NoError(t, m.save(time.Now()))
	}
	for name, want := range map[string]string{".bad": "first", ".bad.2": "second"} {
		got, err := os.ReadFile(path + name)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

// A file of holes, as a crash may leave one, costs a start neither memory nor time.
func TestHugeDamagedMemory(t *testing.T) {
	for name, begin := range map[string]string{"no line": "", "a line": answersMagic + " 1 12345678\n"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "answers")
			require.NoError(t, os.WriteFile(path, []byte(begin), 0o600))
			require.NoError(t, os.Truncate(path, 1<<40))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := OpenMemory(path, testURL)
			runtime.ReadMemStats(&after)
			require.ErrorContains(t, err, "; kept as answers.bad")
			require.FileExists(t, path+".bad")
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
}

// What the file may grow to with a million customers is below the bound.
func TestRoomForAnswers(t *testing.T) {
	size := func(v any) int {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return len(b) + 1
	}
	c := storedCustomer{ID: math.MaxInt64, StateID: math.MinInt32, Read: math.MaxUint64, Flags: [3]int{2, 2, 2}, Kept: provision.StateStop}
	require.Equal(t, 108, size(c), "the comment of maxAnswers says so")
	for range 8 {
		c.Nets = append(c.Nets, netip.MustParsePrefix("255.255.255.248/29"))
	}
	require.Equal(t, 285, size(c))
	d := device{Device: provision.Device{
		ID: math.MaxInt64, Name: "a name of forty letters, with an address", Model: "a model of twenty-five letters",
		MAC: provision.MAC{2, 1}, IP: netip.MustParseAddr("255.255.255.255"),
	}}
	for n := range uint32(52) {
		d.Ports = append(d.Ports, port{n, "TenGigabitEthernet1/0/52 uplink"})
	}
	require.Less(t, size(d), 2800)
	require.Less(t, 1_000_000*(size(c)+2*size(c.ID))+1_000_000/24*2800, maxAnswers)
}

// Customers who left the list of former ones are opened when a look-up finds them, and not before.
func TestWhoIsFormerNoMore(t *testing.T) {
	policy := provision.DefaultPolicy()
	const list = "customer.get_customers_id?is_ex=1"
	cards := `200 {"result":"OK","data":{"1":{"id":1,"state_id":2,"login":"u1"},"2":{"id":2,"state_id":1,"login":"u2"},"3":{"id":3,"state_id":2,"login":"u3"}}}`
	lookup := func(n int) string {
		return fmt.Sprintf("customer.get_abon_id?data_typer=login&data_value=u%d&is_skip_old=1", n)
	}
	plain := func(n int) string { return fmt.Sprintf("customer.get_abon_id?data_typer=login&data_value=u%d", n) }
	one, three, nobody := `200 {"result":"OK","Id":1}`, `200 {"result":"OK","Id":3}`, `404 {"error":"no"}`
	start := with(good(), list2, ids(1, 3, 5, 6, 7, 8, 9), list0, ids(), list, ids(1, 3), "customer.get_data", cards,
		plain(1), one, lookup(1), nobody, plain(3), three, lookup(3), nobody)
	for name, tt := range map[string]struct {
		change    []string
		want      string // state of customer 1
		judgement syncer.SourceJudgement
	}{
		"still in the list":           {nil, "stop", syncer.JudgedGood},
		"made normal":                 {[]string{list, ids(3), lookup(1), `200 {"result":"OK","Id":1}`}, "active", syncer.JudgedGood},
		"the list is wrong":           {[]string{list, ids(3), lookup(1), `404 {"error":"no"}`}, "stop", syncer.JudgedHeld},
		"the list is empty":           {[]string{list, ids(), lookup(1), `404 {"error":"no"}`, lookup(3), `404 {"error":"no"}`}, "stop", syncer.JudgedHeld},
		"nobody is former any more":   {[]string{list, ids(), lookup(1), `200 {"result":"OK","Id":1}`, lookup(3), `200 {"result":"OK","Id":3}`}, "active", syncer.JudgedGood},
		"one of them is":              {[]string{list, ids(), lookup(1), `200 {"result":"OK","Id":1}`, lookup(3), `404 {"error":"no"}`}, "active", syncer.JudgedHeld},
		"look-ups are refused, a few": {[]string{list, ids(3), lookup(1), refused}, "active", syncer.JudgedGood},
		"look-ups are refused, empty": {[]string{list, ids(), lookup(1), refused, lookup(3), refused}, "stop", syncer.JudgedHeld},
		"the list is refused":         {[]string{list, refused}, "stop", syncer.JudgedFailed},
	} {
		t.Run(name, func(t *testing.T) {
			e, c := newFakeERP(t, with(start))
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
			in := fetch(t, f, nil)
			require.Equal(t, "stop", states(in)[1])
			for i := 0; i < len(tt.change); i += 2 {
				e.set(tt.change[i], tt.change[i+1])
			}
			prev, _ := provision.Build(in)
			require.Equal(t, tt.want, states(fetch(t, f, prev))[1])
			require.Equal(t, tt.judgement, statusOf(t, f, syncer.SourceFormer).Judgement)
		})
	}
}

// An ERP that never had a list of former customers, as one before 3.15.26, is no fault that goes away: it is said once, and no
// source is bad for it. Where there was a list once, or the ERP is down, or the key may not read it, the source failed.
func TestAnERPWithoutFormerCustomers(t *testing.T) {
	policy := provision.DefaultPolicy()
	const list = "customer.get_customers_id?is_ex=1"
	start := with(good(), list2, ids(1, 3, 5, 6, 7, 8, 9), list0, ids(), "customer.get_data", `200 {"result":"OK","data":{}}`)
	for name, tt := range map[string]struct {
		first, answer string
		want          syncer.SourceJudgement
		says          string
	}{
		"does not know the filter": {"", refused, syncer.JudgedPartial, "this ERP has none"},
		"answers without a list":   {"", `200 {"total":0}`, syncer.JudgedPartial, "this ERP has none"},
		"answers everybody":        {"", ids(1, 3, 5, 6, 7, 8, 9), syncer.JudgedPartial, "this ERP has none: more than half of the active customers"},
		"refuses it later":         {ids(77), refused, syncer.JudgedFailed, "Unknown Action"},
		"answers everybody later":  {ids(77), ids(1, 3, 5, 6, 7, 8, 9), syncer.JudgedHeld, "more than half of the active customers"},
		"the key may not":          {"", `403 {"error":"no"}`, syncer.JudgedFailed, "no"},
		"is down":                  {"", "500 x", syncer.JudgedFailed, "unavailable"},
		"has nobody who is former": {"", ids(), syncer.JudgedGood, ""},
		"answers OK and nothing":   {"", `200 {"result":"OK"}`, syncer.JudgedGood, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, c := newFakeERP(t, with(start))
			f, log := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy})
			prev := (*provision.Snapshot)(nil)
			if tt.first != "" {
				e.set(list, tt.first)
				prev, _ = provision.Build(fetch(t, f, nil))
			}
			e.set(list, tt.answer)
			for range 3 {
				prev, _ = provision.Build(fetch(t, f, prev))
				st := statusOf(t, f, syncer.SourceFormer)
				require.Equal(t, tt.want, st.Judgement, "%+v", st)
				require.Contains(t, st.Error, tt.says)
			}
			require.Equal(t, provision.StateActive, prev.State(1))
			said := 1
			if tt.want == syncer.JudgedGood {
				said = 0
			}
			require.Equal(t, said, strings.Count(log.String(), `condition="former customers cannot be listed"`))
		})
	}
}

// An ERP that finds former customers though it is asked to leave them out proves of nobody to be former no more: neither its
// look-ups nor the cards, which say nothing of it, confirm a list that came empty, or that lacks many.
func TestLookUpsThatFindEverybody(t *testing.T) {
	policy := provision.DefaultPolicy()
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 240})
	var former []provision.SubscriberID
	for _, x := range e.Customers() {
		if x.State == emulator.StateActive && !x.Disabled && !x.Potential && len(former) < 60 {
			require.NoError(t, e.SetFlags(x.ID, false, false, true))
			former = append(former, provision.SubscriberID(x.ID))
		}
	}
	for _, ignored := range []bool{true, false} {
		for _, fault := range []emulator.Fault{emulator.FaultEmpty, emulator.FaultHalf} {
			t.Run(fmt.Sprintf("ignored %t, %s", ignored, fault), func(t *testing.T) {
				require.NoError(t, e.SetQuirks(emulator.Quirks{SkipOldIgnored: ignored}))
				path := filepath.Join(t.TempDir(), "answers")
				m, err := OpenMemory(path, testURL)
				require.NoError(t, err)
				f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, Memory: m})
				prev, _ := provision.Build(fetch(t, f, nil))
				require.Equal(t, provision.StateStop, prev.State(former[0]))
				require.NoError(t, f.Save())
				m, err = OpenMemory(path, testURL) // a restart
				require.NoError(t, err)
				f, _ = newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, Memory: m})
				require.NoError(t, e.SetQuirks(emulator.Quirks{SkipOldIgnored: ignored, Faults: map[string]emulator.Fault{"customer.get_customers_id?is_ex=1": fault}}))
				next, _ := provision.Build(fetch(t, f, prev))
				require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceFormer).Judgement)
				got, err := f.FetchCustomers(ctx, former, prev)
				require.NoError(t, err)
				for _, id := range former {
					require.Equal(t, provision.StateStop, next.State(id))
					require.Equal(t, provision.StateStop, got.States[id])
				}
			})
		}
	}
	t.Run("cards confirm nothing of a list that is believed", func(t *testing.T) {
		require.NoError(t, e.SetQuirks(emulator.Quirks{}))
		path := filepath.Join(t.TempDir(), "answers")
		m, err := OpenMemory(path, testURL)
		require.NoError(t, err)
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, Memory: m})
		prev, _ := provision.Build(fetch(t, f, nil))
		require.NoError(t, e.SetFlags(int64(former[0]), false, false, false))
		next, _ := provision.Build(fetch(t, f, prev))
		require.Equal(t, provision.StateActive, next.State(former[0]))
		require.NoError(t, f.Save())
		m, err = OpenMemory(path, testURL) // a restart
		require.NoError(t, err)
		f, _ = newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, Memory: m})
		got, err := f.FetchCustomers(ctx, former[:2], prev) // of which the guard held that
		require.NoError(t, err)
		require.Equal(t, map[provision.SubscriberID]string{former[1]: "stop"}, words(got))
		fetch(t, f, next) // now it is in use
		got, err = f.FetchCustomers(ctx, former[:2], next)
		require.NoError(t, err)
		require.Equal(t, "active", words(got)[former[0]])
	})
}

// Lists of cards grow while they are answered quickly and end to where the server can.
func TestCardLists(t *testing.T) {
	var l cardLists
	sizes := func(n int, took time.Duration, most int) (out []int) {
		for range n {
			size := l.next(100)
			out = append(out, size)
			var err error
			if size > most {
				err = errTooManySplits
			}
			l.note(size, 100, took, err)
		}
		return out
	}
	require.Equal(t, []int{100, 200, 400, 800, 1000, 1000}, sizes(6, time.Millisecond, 1000))
	require.Equal(t, []int{1000, 500}, sizes(2, 5*time.Second, 1000), "slow")
	require.Equal(t, []int{250, 250}, sizes(2, 2*time.Second, 1000), "neither")
	l = cardLists{}
	require.Equal(t, []int{100, 200, 400, 100, 200, 200}, sizes(6, time.Millisecond, 300), "what failed is not tried again")
}

// A first start does not wait for all cards: the rest is read at once after it, and that they block their customers
// is no change that the guard would hold.
func TestRestOfTheCardsAfterAFirstStart(t *testing.T) {
	const customers = 60
	policy := provision.DefaultPolicy()
	rules := with(manyCustomers(customers), "customer.get_customers_id?is_ex=1", ids())
	disabledCards(rules, customers, 30)
	disabledCards(rules, customers, customers) // when lists have grown
	_, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, BatchSize: 30, MaxFlags: 30, Memory: zeroCompared()})
	s := syncer.New(syncer.Options{
		PollInterval: 10 * time.Millisecond, RefreshInterval: time.Hour, Guard: syncer.GuardLimits{MaxBlocked: 0.1, MinChanged: 5},
	}, f, nil, nil, provisiontest.Quiet())
	run(t, s)
	require.Eventually(t, func() bool { return s.Current().Counts().Stopped == customers }, 10*time.Second, time.Millisecond)
	require.Nil(t, s.GuardStatus().Held)
}

// disabledCards adds the cards of customers 1 to n, who are all disabled, as lists of some of them ask for them.
func disabledCards(rules map[string]string, n, some int) {
	for from := 1; from <= n; from += some {
		var list, cards []string
		for id := from; id < from+some && id <= n; id++ {
			list = append(list, fmt.Sprint(id))
			cards = append(cards, fmt.Sprintf(`"%d":{"id":%d,"state_id":2,"is_disable":1}`, id, id))
		}
		rules["customer.get_data?customer_id="+strings.Join(list, ",")] = `200 {"result":"OK","data":{` + strings.Join(cards, ",") + `}}`
	}
}

// Only the first cards of an installation that began with nothing block whom they will: after the file was lost, with a
// snapshot in use, the guard counts them.
func TestFirstCardsCountWhereASnapshotIsInUse(t *testing.T) {
	policy := provision.DefaultPolicy()
	rules := with(manyCustomers(60), "customer.get_customers_id?is_ex=1", ids())
	disabledCards(rules, 60, 30)
	disabledCards(rules, 60, 60) // when lists have grown
	_, c := newFakeERP(t, rules)
	options := func(m *Memory) Options {
		return Options{Bindings: ModeDirect, Policy: &policy, BatchSize: 30, MaxFlags: 30, Memory: m}
	}
	path := filepath.Join(t.TempDir(), "answers")
	open := func() *Memory {
		m, err := OpenMemory(path, testURL)
		require.NoError(t, err)
		m.setZeroCheck(zeroCheck{Answer: ZeroCondition, Compared: zeroSamples[0], Version: "3.19"})
		return m
	}
	f, _ := newFetcher(t, c, options(open()))
	prev, _ := provision.Build(fetch(t, f, nil))
	require.Equal(t, 30, prev.Counts().Stopped)
	require.NoError(t, f.Save())

	f, _ = newFetcher(t, c, options(open()))
	require.Len(t, fetch(t, f, prev).FirstRead, 30, "a first start goes on after a restart")

	f, _ = newFetcher(t, c, options(zeroCompared()))
	in := fetch(t, f, prev)
	require.Empty(t, in.FirstRead, "the file was lost")
	in = fetch(t, f, prev)
	require.Empty(t, in.FirstRead)
	next, _ := provision.Build(in)
	require.Equal(t, 60, next.Counts().Stopped, "it is the guard's to hold them")
}

// When each card was asked for once, a new installation is none any more, also where the ERP has no card of somebody.
func TestNewInstallationEnds(t *testing.T) {
	m := NewMemory()
	m.noteFresh(true, false)
	require.True(t, m.isFresh())
	m.noteFresh(false, false)
	require.True(t, m.isFresh())
	m.noteFresh(false, true)
	require.False(t, m.isFresh())
	m.noteFresh(true, true)
	require.False(t, m.isFresh(), "all cards were read by the first fetch")
}

// Where not all cards can be read at once, it is told how many were never read and how long a round takes.
func TestRoundOfCards(t *testing.T) {
	policy := provision.DefaultPolicy()
	rules := with(manyCustomers(10), "customer.get_customers_id?is_ex=1", ids())
	for i := range 10 {
		rules[fmt.Sprintf("customer.get_data?customer_id=%d", i+1)] = fmt.Sprintf(`200 {"result":"OK","data":{"id":%d,"state_id":2}}`, i+1)
	}
	_, c := newFakeERP(t, rules)
	f, _ := newFetcher(t, c, Options{Bindings: ModeDirect, Policy: &policy, BatchSize: 1, MaxFlags: 1})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.now = func() time.Time { return now }
	for i := range 3 {
		fetch(t, f, nil)
		st := statusOf(t, f, syncer.SourceFlags)
		require.Equal(t, syncer.JudgedPartial, st.Judgement)
		require.Equal(t, 9-i, st.Unread)
		require.Equal(t, 10, st.Rows)
		if i > 0 {
			require.InDelta(t, (100 * time.Minute).Seconds(), st.RoundSeconds, 1)
		}
		now = now.Add(10 * time.Minute)
	}
	for range 8 {
		fetch(t, f, nil)
		now = now.Add(10 * time.Minute)
	}
	st := statusOf(t, f, syncer.SourceFlags)
	require.Equal(t, syncer.JudgedGood, st.Judgement)
	require.Zero(t, st.Unread)
	require.Equal(t, (90 * time.Minute).Seconds(), st.RoundSeconds)
	require.Equal(t, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), st.GoodAt, "when the oldest of them was read")
}
