package erp

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// inProcess is a connection to an ERP without a network, so that time can be simulated.
type inProcess struct{ erp http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := r.Clone(r.Context())
		in.RemoteAddr = "192.0.2.9:1024"
		p.erp.ServeHTTP(rec, in)
	}()
	<-done // the emulator gives up with the client
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

// tableWorld is an ERP with customers of every kind, and what an agent knows of it.
type tableWorld struct {
	erp    *emulator.Emulator
	client *userside.Client
	policy provision.Policy
	mode   Mode
	file   string // what was known when it was well
	truth  *provision.Snapshot
}

// newTableWorld makes an emulated ERP of n customers one with customers of every kind, and reads everything.
func newTableWorld(t *testing.T, n int, c *userside.Client, e *emulator.Emulator, mode Mode) *tableWorld {
	t.Helper()
	w := &tableWorld{erp: e, client: c, policy: provision.DefaultPolicy(), mode: mode, file: filepath.Join(t.TempDir(), "answers")}
	some := slices.DeleteFunc(e.Customers(), func(x emulator.Customer) bool {
		return x.State != emulator.StateActive || x.Disabled || x.Potential || x.Former || len(x.Addresses) != 1 || len(x.Links) == 0
	})
	require.Greater(t, len(some), n/3)
	for i, set := range []func(id int64) error{
		func(id int64) error { return e.SetFlags(id, true, false, false) },
		func(id int64) error { return e.SetFlags(id, false, true, false) },
		func(id int64) error { return e.SetFlags(id, false, false, true) },
		func(id int64) error { return e.SetFlags(id, false, false, true) },
		func(id int64) error { return e.SetFlags(id, false, false, true) },
		func(id int64) error { return e.SetState(id, emulator.StatePause) },
		func(id int64) error { return e.SetState(id, emulator.StateStop) },
		func(id int64) error {
			return w.client.AddSubnet(t.Context(), id, netip.MustParsePrefix("203.0.113.8/29"))
		},
	} {
		require.NoError(t, set(some[7*i].ID))
	}
	f, _ := w.agent(t, w.open(t))
	for round, was := 0, uint64(0); round == 0 || statusOf(t, f, syncer.SourceSubnets).Unread > 0 || w.truth.Fingerprint() != was; round++ { // until every card was read
		require.Less(t, round, 100)
		was = w.truth.Fingerprint()
		in, err := f.Fetch(t.Context(), w.truth)
		require.NoError(t, err)
		w.truth, _ = provision.Build(in)
	}
	require.NoError(t, f.Save())
	require.FileExists(t, w.file)
	return w
}

func (w *tableWorld) open(t *testing.T) *Memory {
	t.Helper()
	m, err := OpenMemory(w.file, "https://erp.example.net/api.php")
	require.NoError(t, err)
	return m
}

// agent returns a Fetcher with what is known, and its log.
func (w *tableWorld) agent(t *testing.T, m *Memory) (*Fetcher, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	f, err := New(w.client, Options{Bindings: w.mode, BatchSize: 200, Policy: &w.policy, Memory: m, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	return f, &log
}

// harm says whom a snapshot treats otherwise than another one: who is silenced, blocked or opened.
func harm(want, got *provision.Snapshot) []string {
	return harmBut(want, got, func(provision.SubscriberID) bool { return false })
}

// harmBut is harm, but for addresses that are missing of some subscribers.
func harmBut(want, got *provision.Snapshot, mayMiss func(provision.SubscriberID) bool) []string {
	var out []string
	for ip, l := range want.Hosts4() {
		now := got.ByIP(ip)
		switch {
		case now == nil && mayMiss(l.Subscriber):
		case now == nil || now.Subscriber != l.Subscriber || now.MAC != l.MAC || now.Device != l.Device || now.Port != l.Port || now.PortName != l.PortName:
			out = append(out, fmt.Sprintf("%s of customer %d: has %+v, wants %+v", ip, l.Subscriber, now, l))
		case l.Device == 0:
		case got.Device(l.Device) == nil || *got.Device(l.Device) != *want.Device(l.Device):
			out = append(out, fmt.Sprintf("%s of customer %d: its switch is %+v, was %+v", ip, l.Subscriber, got.Device(l.Device), want.Device(l.Device)))
		}
	}
	for _, s := range want.Subscribers() {
		if st := got.State(s.ID); st != s.State {
			out = append(out, fmt.Sprintf("customer %d is %s, was %s", s.ID, st, s.State))
		}
	}
	if !slices.Equal(want.CustomerSubnets(), got.CustomerSubnets()) {
		out = append(out, fmt.Sprintf("subnets are %v, were %v", got.CustomerSubnets(), want.CustomerSubnets()))
	}
	return out[:min(len(out), 5)]
}

// blockedWrongly says whom a snapshot blocks who is not blocked in truth.
func blockedWrongly(truth, got *provision.Snapshot) []string {
	var out []string
	for _, s := range got.Subscribers() {
		if s.State.Blocks() && !truth.State(s.ID).Blocks() {
			out = append(out, fmt.Sprintf("customer %d is %s, and %s in truth", s.ID, s.State, truth.State(s.ID)))
		}
	}
	return out
}

func statusOf(t *testing.T, f *Fetcher, name syncer.SourceName) syncer.SourceStatus {
	t.Helper()
	for _, st := range f.Sources() {
		if st.Source == name {
			return st
		}
	}
	t.Fatalf("no source %s", name)
	return syncer.SourceStatus{}
}

// sourceCalls are the calls by which each source is read. Subnets are read with the flags; a composed fetch has of the bindings
// the ports from the cabling, and all else from the cards.
func sourceCalls(mode Mode) map[syncer.SourceName][]string {
	const list = "customer.get_customers_id?"
	calls := map[syncer.SourceName][]string{
		syncer.SourceBindings: {"customer.get_ip_port_device_commutation"},
		syncer.SourceStates:   {list + "state_id=0", list + "state_id=1", list + "state_id=2"},
		syncer.SourceFlags:    {"customer.get_data"},
		syncer.SourceDevices:  {"device.get_data"},
		syncer.SourceFormer:   {list + "is_ex=1"},
	}
	if mode == ModeComposed {
		calls[syncer.SourceBindings] = []string{"commutation.get_data"}
	}
	return calls
}

// few are those of whom an answer may lack an address: of half a list the guard holds whoever would lose all, but so few have
// several that it believes what it says of them.
func (w *tableWorld) few(name syncer.SourceName, fault emulator.Fault) func(provision.SubscriberID) bool {
	return func(id provision.SubscriberID) bool {
		n := 0
		for l := range w.truth.BySubscriber(id).All() {
			n += len(l.Addresses)
		}
		return name == syncer.SourceBindings && w.mode != ModeComposed && fault == emulator.FaultHalf && n > 1
	}
}

// fromCards reports whether a source stands on the customers' cards, as flags do.
func (w *tableWorld) fromCards(name syncer.SourceName) bool {
	return name == syncer.SourceSubnets || name == syncer.SourceBindings && w.mode == ModeComposed
}

// fallsBack reports whether bindings are composed where the direct answer is broken like that: they are good then.
func (w *tableWorld) fallsBack(name syncer.SourceName, fault emulator.Fault) bool {
	return w.mode == ModeAuto && name == syncer.SourceBindings && (fault == emulator.FaultForbidden || fault == emulator.FaultEmpty || fault == emulator.FaultGarbage)
}

// breakSource has the ERP answer one source with a fault.
func (w *tableWorld) breakSource(t *testing.T, name syncer.SourceName, fault emulator.Fault) {
	t.Helper()
	q := emulator.Quirks{Faults: map[string]emulator.Fault{}}
	for _, call := range sourceCalls(w.mode)[name] {
		q.Faults[call] = fault
	}
	require.NoError(t, w.erp.SetQuirks(q))
}

// storedSnapshot is what was in use before a restart.
type storedSnapshot struct{ *provision.Snapshot }

func (s storedSnapshot) Load() (*provision.Snapshot, error) {
	if s.Snapshot == nil {
		return nil, fs.ErrNotExist
	}
	return s.Snapshot, nil
}

func (storedSnapshot) Save(*provision.Snapshot) error { return nil }

// wholeFetches is told of whole fetches that ended, and of nothing else.
type wholeFetches chan struct{}

func (w wholeFetches) Fetched(r syncer.FetchReport) {
	if r.Kind == syncer.FetchFull {
		select {
		case w <- struct{}{}:
		default: // one was enough
		}
	}
}
func (wholeFetches) Published(*provision.Snapshot, map[provision.ProblemKind]int) {}
func (wholeFetches) Held(*syncer.HeldStatus)                                      {}
func (wholeFetches) OpenedUnconfirmed(int)                                        {}
func (wholeFetches) Stored(time.Duration, error)                                  {}

// read has an agent with the guard's usual limits make one whole fetch after a start with prev in use, and polls of states beside
// it. It returns what is in use then, and how the sources stand.
func read(t *testing.T, f *Fetcher, prev *provision.Snapshot) (*provision.Snapshot, []syncer.SourceStatus) {
	t.Helper()
	done := make(wholeFetches, 1)
	limits := syncer.GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.25, MinChanged: 20}
	s := syncer.New(syncer.Options{PollInterval: time.Hour, RefreshInterval: time.Hour, Guard: limits}, f, storedSnapshot{prev}, done, provisiontest.Quiet())
	require.NoError(t, s.LoadStored())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	<-done
	use, sources := s.Current(), s.Sources()
	cancel()
	require.NoError(t, <-ended)
	return use, sources
}

// try reads everything while one source is broken, from what was known before or from nothing, and looks for harm.
func (w *tableWorld) try(t *testing.T, name syncer.SourceName, fault emulator.Fault, m *Memory, prev *provision.Snapshot) (*Fetcher, *provision.Snapshot) {
	t.Helper()
	w.breakSource(t, name, fault)
	f, log := w.agent(t, m)
	use, sources := read(t, f, prev)
	judged := func(name syncer.SourceName) syncer.SourceStatus {
		i := slices.IndexFunc(sources, func(st syncer.SourceStatus) bool { return st.Source == name })
		return sources[i]
	}
	st := judged(name)
	if w.fallsBack(name, fault) {
		require.Equal(t, provision.SourceComposed, use.Source())
		require.False(t, st.Bad(), "%+v", st)
		require.Empty(t, blockedWrongly(w.truth, use))
		if prev != nil {
			require.Empty(t, harm(w.truth, use))
		}
		return f, use
	}
	if prev == nil {
		require.Empty(t, blockedWrongly(w.truth, use))
		told := st.Judgement != syncer.JudgedGood
		unknown := (name == syncer.SourceFormer || name == syncer.SourceBindings) && (fault == emulator.FaultHalf || fault == emulator.FaultEmpty || fault == emulator.FaultGarbage) // nothing tells that it is not all
		require.True(t, told || unknown, "%+v", st)
		return f, use
	}
	require.Empty(t, harmBut(w.truth, use, w.few(name, fault)))
	require.True(t, st.Bad(), "%+v", st)
	require.NotEmpty(t, st.Error)
	require.False(t, st.GoodAt.IsZero(), "when it was good is known")
	if !strings.Contains(st.Error, "the guard holds it") {
		require.Contains(t, log.String(), conditions(name))
		require.Contains(t, log.String(), "source="+string(name))
	}
	for _, other := range sources {
		alone := other.Source == name || name == syncer.SourceFlags && w.fromCards(other.Source)
		require.True(t, alone || !other.Bad(), "%s is not to blame: %+v", other.Source, other)
	}
	if answer, err := f.FetchStates(t.Context(), use); err == nil {
		for id, state := range answer.States {
			require.Equal(t, w.truth.State(id), state, "a poll of states: customer %d", id)
		}
	}
	return f, use
}

// phase is when a source fails.
type phase string

const (
	atFirstStart phase = "at the first start"
	atRunTime    phase = "at run time"
	afterRestart phase = "after a restart"
)

// cell is one cell of the failure table: one source with one fault in one phase.
func (w *tableWorld) cell(t *testing.T, when phase, name syncer.SourceName, fault emulator.Fault) {
	t.Helper()
	switch when {
	case atFirstStart:
		f, use := w.try(t, name, fault, NewMemory(), nil)
		if name == syncer.SourceBindings && !w.fallsBack(name, fault) || name == syncer.SourceFlags && w.fromCards(syncer.SourceBindings) {
			return // there are no addresses but these: of half of them nobody can tell, and the rest is judged as new customers
		}
		w.serves(t, name, use)
		w.recovers(t, f, use)
	case afterRestart:
		f, use := w.try(t, name, fault, w.open(t), w.truth)
		w.recovers(t, f, use)
	case atRunTime:
		require.NoError(t, w.erp.SetQuirks(emulator.Quirks{}))
		m := w.open(t)
		well, _ := w.agent(t, m)
		_, err := well.Fetch(t.Context(), w.truth)
		require.NoError(t, err)
		f, use := w.try(t, name, fault, m, w.truth)
		use, _ = read(t, f, use) // it goes on
		require.Empty(t, harmBut(w.truth, use, w.few(name, fault)))
		w.recovers(t, f, use)
	}
}

// serves says what a first start with a broken source must have in use: without states nothing, of which the fetch says
// that it failed, or what cards tell; without another source everybody's address, and whom the states block, blocked.
func (w *tableWorld) serves(t *testing.T, name syncer.SourceName, use *provision.Snapshot) {
	t.Helper()
	if name == syncer.SourceStates && use == nil {
		return
	}
	require.NotNil(t, use)
	for ip, l := range w.truth.Hosts4() {
		now := use.ByIP(ip)
		if now == nil && name == syncer.SourceStates && w.mode == ModeComposed && !l.HasPort() {
			continue // neither a list nor the cabling names the customer
		}
		require.NotNil(t, now, "%s", ip)
		require.Equal(t, l.Subscriber, now.Subscriber, "%s", ip)
		require.Equal(t, l.MAC, now.MAC, "%s", ip)
		require.True(t, name == syncer.SourceDevices || l.Device == now.Device && l.Port == now.Port, "%s", ip)
	}
	for _, x := range w.erp.Customers() {
		id := provision.SubscriberID(x.ID)
		known := use.BySubscriber(id).Len() > 0 || len(use.SubnetsOf(id)) > 0
		require.True(t, !known || x.State == emulator.StateActive || use.State(id).Blocks(), "customer %d is opened", x.ID)
	}
}

// recovers has the source answer again: all is as it was, and every source is good.
func (w *tableWorld) recovers(t *testing.T, f *Fetcher, use *provision.Snapshot) {
	t.Helper()
	require.NoError(t, w.erp.SetQuirks(emulator.Quirks{}))
	var sources []syncer.SourceStatus
	for range 3 { // of a first start: the cards that there was no time for
		if use, sources = read(t, f, use); !slices.ContainsFunc(sources, func(st syncer.SourceStatus) bool { return st.Judgement != syncer.JudgedGood }) {
			break
		}
	}
	require.Empty(t, harm(w.truth, use))
	for _, st := range sources {
		require.Equal(t, syncer.JudgedGood, st.Judgement, "%+v", st)
	}
}

func phases() []phase { return []phase{atFirstStart, atRunTime, afterRestart} }

// Whatever is wrong with one source of the ERP, and whenever, nobody is silenced, blocked or opened, and the source is named.
func TestEachSourceFailsAlone(t *testing.T) {
	n := long.Times(t, 144, 960)
	for _, mode := range []Mode{ModeDirect, ModeAuto, ModeComposed} {
		e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: n})
		w := newTableWorld(t, n, c, e, mode)
		for name := range sourceCalls(mode) {
			for _, fault := range []emulator.Fault{emulator.FaultForbidden, emulator.FaultError, emulator.FaultEmpty, emulator.FaultHalf, emulator.FaultGarbage} {
				for _, when := range phases() {
					t.Run(fmt.Sprintf("%s %s %s %s", mode, name, fault, when), func(t *testing.T) { w.cell(t, when, name, fault) })
				}
			}
		}
	}
}

// Where many are blocked at once the guard holds that, and the source that says so is named: the states, the flags on cards, or
// the list of former customers.
func TestTheSourceThatBlocksManyIsNamed(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 240})
		w := newTableWorld(t, 240, c, e, mode)
		var some []int64
		for _, x := range e.Customers() {
			if id := provision.SubscriberID(x.ID); len(some) < 60 && w.truth.State(id) == provision.StateActive && w.truth.BySubscriber(id).Len() > 0 {
				some = append(some, x.ID)
			}
		}
		for name, set := range map[syncer.SourceName]func(id int64, wrong bool) error{
			syncer.SourceStates: func(id int64, wrong bool) error {
				if wrong {
					return e.SetState(id, emulator.StatePause)
				}
				return e.SetState(id, emulator.StateActive)
			},
			syncer.SourceFlags:  func(id int64, wrong bool) error { return e.SetFlags(id, wrong, false, false) },
			syncer.SourceFormer: func(id int64, wrong bool) error { return e.SetFlags(id, false, false, wrong) },
		} {
			t.Run(fmt.Sprintf("%s %s", mode, name), func(t *testing.T) {
				m := w.open(t)
				f, _ := w.agent(t, m)
				for _, id := range some {
					require.NoError(t, set(id, true))
				}
				use, sources := read(t, f, w.truth)
				require.Empty(t, harm(w.truth, use))
				for _, st := range sources {
					require.Equal(t, st.Source == name, st.Bad(), "%+v", st)
					require.Equal(t, st.Source == name, st.Guard)
					require.Equal(t, st.Source == name, strings.Contains(st.Error, "would block 60 of"), st.Error)
				}
				for _, id := range some {
					require.NoError(t, set(id, false))
				}
				use, sources = read(t, f, use)
				require.Empty(t, harm(w.truth, use))
				for _, st := range sources {
					require.False(t, st.Bad(), "%+v", st)
				}
			})
		}
	}
}

// A list of former customers that the guard holds is confirmed by nothing that does not tell who is former: neither the own card nor a poll
// of states blocks more for it than is in use, and the card of who paid opens.
func TestAHeldListOfFormerCustomersIsConfirmedByNothing(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		t.Run(string(mode), func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 240})
			w := newTableWorld(t, 240, c, e, mode)
			var some []provision.SubscriberID
			for _, x := range e.Customers() {
				if id := provision.SubscriberID(x.ID); len(some) < 60 && w.truth.State(id) == provision.StateActive && w.truth.BySubscriber(id).Len() > 0 {
					some = append(some, id)
				}
			}
			owes, paid, owesNow, disabled, plain := some[0], some[1], some[2], some[3], some[4:]
			for _, id := range some[:2] {
				require.NoError(t, e.SetState(int64(id), emulator.StatePause))
			}
			f, _ := w.agent(t, w.open(t))
			prev, _ := read(t, f, w.truth)
			require.Equal(t, provision.StatePause, prev.State(owes))
			for _, id := range some {
				require.NoError(t, e.SetFlags(int64(id), id == disabled, false, true))
			}
			use, sources := read(t, f, prev)
			require.Empty(t, harm(prev, use))
			require.True(t, slices.ContainsFunc(sources, func(st syncer.SourceStatus) bool { return st.Source == syncer.SourceFormer && st.Guard }))

			require.NoError(t, e.SetState(int64(owesNow), emulator.StatePause))
			polled, err := f.FetchStates(ctx, use)
			require.NoError(t, err)
			require.Equal(t, provision.StatePause, polled.States[owesNow], "that is no word of that list")
			for _, id := range some {
				if st, told := polled.States[id]; told && id != owesNow {
					require.Equal(t, use.State(id), st, "customer %d", id)
				}
			}
			require.NotContains(t, polled.States, owes, "that he would be no more than paused is not told, or it would take back what an operator rejected")

			require.NoError(t, e.SetState(int64(paid), emulator.StateActive))
			cards, err := f.FetchCustomers(ctx, some, use)
			require.NoError(t, err)
			require.True(t, cards.Refresh)
			require.Equal(t, provision.StatePause, cards.States[owes])
			require.Equal(t, provision.StatePause, cards.States[owesNow])
			require.Equal(t, provision.StateStop, cards.States[disabled])
			require.Equal(t, "active", words(cards)[paid])
			for _, id := range plain {
				require.NotContains(t, cards.States, id, "nobody was asked who is former")
			}
		})
	}
}

// once has an agent make one whole fetch after a start with what a store has, decide on it, and end.
func once(t *testing.T, f *Fetcher, store syncer.SnapshotStore, decide func(s *syncer.Syncer)) {
	t.Helper()
	done := make(wholeFetches, 1)
	limits := syncer.GuardLimits{MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.25, MinChanged: 20}
	s := syncer.New(syncer.Options{PollInterval: time.Hour, RefreshInterval: time.Hour, Guard: limits}, f, store, done, provisiontest.Quiet())
	require.NoError(t, s.LoadStored())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	<-done
	decide(s)
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, f.Save())
}

// What an operator rejected stays held after restarts, whichever way the ERP is read and while its states cannot be, and others pass.
func TestRejectedStaysOverRestarts(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		t.Run(string(mode), func(t *testing.T) {
			e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 240})
			w := newTableWorld(t, 240, c, e, mode)
			store := syncer.NewStore(filepath.Join(t.TempDir(), "snapshot"))
			require.NoError(t, store.Save(w.truth))
			var some []int64
			for _, x := range e.Customers() {
				if id := provision.SubscriberID(x.ID); len(some) < 62 && w.truth.State(id) == provision.StateActive && w.truth.BySubscriber(id).Len() > 0 {
					some = append(some, x.ID)
				}
			}
			wrong, right := some[:60], some[60:]
			paused := func(s *syncer.Syncer, ids []int64) (n int) {
				for _, id := range ids {
					if s.Current().State(provision.SubscriberID(id)) == provision.StatePause {
						n++
					}
				}
				return n
			}
			run := func(decide func(s *syncer.Syncer)) {
				f, _ := w.agent(t, w.open(t))
				once(t, f, store, decide)
			}
			for _, id := range wrong {
				require.NoError(t, e.SetState(id, emulator.StatePause))
			}
			run(func(s *syncer.Syncer) {
				_, err := s.Reject("")
				require.NoError(t, err)
			})
			for i, id := range right {
				require.NoError(t, e.SetState(id, emulator.StatePause))
				run(func(s *syncer.Syncer) {
					require.Zero(t, paused(s, wrong))
					require.Equal(t, i+1, paused(s, right))
					require.True(t, s.Status().Held.Rejected)
				})
			}
			w.breakSource(t, syncer.SourceStates, emulator.FaultForbidden)
			run(func(s *syncer.Syncer) {
				require.Zero(t, paused(s, wrong))
				require.Len(t, s.GuardStatus().Rejected, 60, "nobody took it back")
			})
			require.NoError(t, e.SetQuirks(emulator.Quirks{}))
			run(func(s *syncer.Syncer) {
				require.Zero(t, paused(s, wrong))
				require.Len(t, s.GuardStatus().Rejected, 60)
			})
			for _, id := range wrong {
				require.NoError(t, e.SetState(id, emulator.StateActive))
			}
			run(func(s *syncer.Syncer) {
				require.Nil(t, s.Status().Held)
				require.Empty(t, s.GuardStatus().Rejected)
			})
			for _, id := range wrong[:5] {
				require.NoError(t, e.SetState(id, emulator.StatePause))
			}
			run(func(s *syncer.Syncer) { require.Equal(t, 5, paused(s, wrong), "what is said anew is judged anew") })
		})
	}
}

// One list of states that lacks customers silences, blocks and opens nobody, also of those who have no cabling.
func TestOneListOfStatesIsWrong(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		n := long.Times(t, 240, 960)
		e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: n})
		w := newTableWorld(t, n, c, e, mode)
		for state := range 3 {
			for _, fault := range []emulator.Fault{emulator.FaultEmpty, emulator.FaultHalf} {
				t.Run(fmt.Sprintf("%s %d %s", mode, state, fault), func(t *testing.T) {
					list := fmt.Sprintf("customer.get_customers_id?state_id=%d", state)
					require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{list: fault}}))
					m := w.open(t)
					f, _ := w.agent(t, m)
					use, _ := read(t, f, w.truth)
					require.Empty(t, harm(w.truth, use))
					require.Len(t, m.subnets(), 1, "what cards told is not forgotten")
				})
			}
		}
	}
}

// A source that hangs costs its share of the fetch and no more, and nobody is silenced, blocked or opened by it either.
func TestEachSourceHangsAlone(t *testing.T) {
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		for name := range sourceCalls(mode) {
			t.Run(fmt.Sprintf("%s %s", mode, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e, err := emulator.Open(emulator.Options{Seed: 7, Customers: 144, Keys: []emulator.Key{{Key: emulatorKey}}})
					require.NoError(t, err)
					defer func() { require.NoError(t, e.Close()) }()
					c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: emulatorKey, Transport: inProcess{e}, Location: time.UTC})
					require.NoError(t, err)
					w := newTableWorld(t, 144, c, e, mode)
					for _, when := range phases() {
						began := time.Now()
						w.cell(t, when, name, emulator.FaultHang)
						require.Less(t, time.Since(began), 20*time.Minute, when)
					}
				})
			})
		}
	}
}

// At the size of a large provider, where the figures are what they are for.
func TestEachSourceFailsAloneLarge(t *testing.T) {
	n := long.Times(t, 0, 100_000)
	if n == 0 {
		t.Skip("with USHER_LONG=1")
	}
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: n})
	w := newTableWorld(t, n, c, e, ModeDirect)
	for name := range sourceCalls(w.mode) {
		for _, fault := range []emulator.Fault{emulator.FaultForbidden, emulator.FaultEmpty, emulator.FaultHalf} {
			t.Run(fmt.Sprintf("%s %s", name, fault), func(t *testing.T) { w.try(t, name, fault, w.open(t), w.truth) })
		}
	}
}

// Who has paid is let in at once though no card can be read; who is disabled, potential or former stays out.
func TestPaidWhileCardsAreRefused(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 120})
	w := newTableWorld(t, 120, c, e, ModeDirect)
	var paid int64
	for _, x := range e.Customers() {
		if id := provision.SubscriberID(x.ID); x.State == emulator.StatePause && w.truth.State(id) == provision.StatePause && w.truth.BySubscriber(id).Len() > 0 {
			paid = x.ID
		}
	}
	require.NotZero(t, paid)
	require.NoError(t, e.SetState(paid, emulator.StateActive))
	w.breakSource(t, syncer.SourceFlags, emulator.FaultForbidden)
	for name, m := range map[string]*Memory{"with what cards told before": w.open(t), "without": NewMemory()} {
		t.Run(name, func(t *testing.T) {
			f, _ := w.agent(t, m)
			in, err := f.Fetch(t.Context(), w.truth)
			require.NoError(t, err)
			next, _ := provision.Build(in)
			want := w.truth
			if name != "without" { // else nothing tells why the customer was blocked: an earlier version kept nothing
				want = w.truth.WithStates(map[provision.SubscriberID]provision.State{provision.SubscriberID(paid): provision.StateActive})
			}
			require.Empty(t, harm(want, next))
		})
	}
	require.NoError(t, e.SetQuirks(emulator.Quirks{}))
	f, _ := w.agent(t, NewMemory())
	in, err := f.Fetch(t.Context(), w.truth)
	require.NoError(t, err)
	next, _ := provision.Build(in)
	require.Equal(t, provision.StateActive, next.State(provision.SubscriberID(paid)), "cards can be read: nothing is kept")
}

// A list of switches that is held comes into use when an operator accepts that, also over a restart: of each switch that it lacks
// the ERP must say once more by itself that there is none. A broken list that is accepted loses nobody a switch that the ERP has.
func TestAcceptHeldDevices(t *testing.T) {
	e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 300})
	w := newTableWorld(t, 300, c, e, ModeDirect)
	fetchOf := func(f *Fetcher, prev *provision.Snapshot) *provision.Snapshot {
		in, err := f.Fetch(t.Context(), prev)
		require.NoError(t, err)
		next, _ := provision.Build(in)
		return next
	}
	named := func(s *provision.Snapshot) bool { // rows tell the addresses of switches, and the list their names
		return slices.ContainsFunc(s.Devices(), func(d provision.Device) bool { return d.Name != "" })
	}
	t.Run("that is broken", func(t *testing.T) {
		require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{"device.get_data?object_id=": emulator.FaultEmpty}}))
		f, _ := w.agent(t, w.open(t))
		snap := fetchOf(f, w.truth)
		require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceDevices).Judgement)
		require.NoError(t, f.AcceptSource(syncer.SourceDevices, ""))
		for range 3 {
			snap = fetchOf(f, snap)
			require.Empty(t, harm(w.truth, snap))
		}
	})
	t.Run("that the ERP has really lost", func(t *testing.T) {
		w.breakSource(t, syncer.SourceDevices, emulator.FaultEmpty)
		m := w.open(t)
		f, _ := w.agent(t, m)
		snap := fetchOf(f, w.truth)
		require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceDevices).Judgement)
		require.Empty(t, harm(w.truth, snap))
		snap = fetchOf(f, snap)
		require.Empty(t, harm(w.truth, snap), "nobody accepted it")

		require.ErrorContains(t, f.AcceptSource(syncer.SourceFormer, ""), "only devices can be accepted")
		seen := statusOf(t, f, syncer.SourceDevices).Fingerprint
		require.NotEmpty(t, seen)
		w.breakSource(t, syncer.SourceDevices, emulator.FaultHalf) // something else is held by then
		fetchOf(f, snap)
		other := statusOf(t, f, syncer.SourceDevices).Fingerprint
		require.NotEqual(t, seen, other)
		err := f.AcceptSource(syncer.SourceDevices, seen)
		require.Equal(t, &syncer.OtherHeldError{Fingerprint: other}, err)
		require.Empty(t, m.acceptedOnes())
		w.breakSource(t, syncer.SourceDevices, emulator.FaultEmpty)
		fetchOf(f, snap)
		require.Equal(t, seen, statusOf(t, f, syncer.SourceDevices).Fingerprint, "the same is the same")
		require.NoError(t, f.AcceptSource(syncer.SourceDevices, seen))
		require.NoError(t, m.save(time.Now()))
		f, _ = w.agent(t, w.open(t)) // a restart
		for round := 0; round < 5 && named(snap); round++ {
			snap = fetchOf(f, snap)
			require.NotEqual(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceDevices).Judgement)
		}
		require.False(t, named(snap))
		snap = fetchOf(f, snap)
		require.False(t, named(snap))
		require.False(t, statusOf(t, f, syncer.SourceDevices).Bad())
		for _, s := range w.truth.Subscribers() {
			require.Equal(t, s.State, snap.State(s.ID))
		}

		require.NoError(t, e.SetQuirks(emulator.Quirks{}))
		snap = fetchOf(f, snap)
		require.Empty(t, harm(w.truth, snap), "they are there again")
		w.breakSource(t, syncer.SourceDevices, emulator.FaultEmpty)
		fetchOf(f, snap)
		require.Equal(t, syncer.JudgedHeld, statusOf(t, f, syncer.SourceDevices).Judgement, "what was accepted was for that time")
	})
}
