package erp

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// hangs starts a Syncer whose whole fetches wait for an answer that does not come. Polls of states come at the interval.
func hangs(t *testing.T, action string, poll time.Duration) (*emulator.Emulator, *Fetcher, *syncer.Syncer, []provision.SubscriberID) {
	t.Helper()
	e, c := openEmulator(t, emulator.Options{Customers: 40, Seed: 7})
	policy := provision.PlainPolicy()
	f, err := New(c, Options{Policy: &policy})
	require.NoError(t, err)
	s := syncer.New(syncer.Options{PollInterval: poll, RefreshInterval: 2 * poll, Guard: syncer.GuardLimits{MinChanged: 100}}, f, nil, nil, provisiontest.Quiet())
	run(t, s)
	require.Eventually(t, func() bool { return s.Current() != nil && !s.Status().Fetching }, 10*time.Second, time.Millisecond)

	require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{action: emulator.FaultHang}}))
	s.Refresh()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(f.Pending(), func(p userside.Pending) bool { return p.Action == action && !p.SentAt.IsZero() })
	}, 10*time.Second, time.Millisecond, "a whole fetch hangs")
	active := someActive(s.Current())
	require.Greater(t, len(active), 3)
	return e, f, s, active
}

// someActive returns the customers who are active and have an address.
func someActive(snap *provision.Snapshot) []provision.SubscriberID {
	var active []provision.SubscriberID
	for _, sub := range snap.Subscribers() {
		if sub.State == provision.StateActive && snap.BySubscriber(sub.ID).Len() > 0 {
			active = append(active, sub.ID)
		}
	}
	return active
}

// run runs a Syncer until the test ends.
func run(t *testing.T, s *syncer.Syncer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, s.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// An answer that does not come holds up neither a pause by poll, by hint and by command, nor what lets the customer in again.
func TestHungAnswerHoldsUpNothingElse(t *testing.T) {
	const soon = 5 * time.Second // of the half minute that it is waited for
	for _, action := range []string{"customer.get_ip_port_device_commutation", "device.get_data"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			e, f, s, active := hangs(t, action, 100*time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			arrives := func(id provision.SubscriberID, want provision.State, by string) {
				t.Helper()
				require.Eventually(t, func() bool { return s.Current().State(id) == want }, soon, time.Millisecond, by)
			}
			require.NoError(t, e.SetState(int64(active[0]), emulator.StatePause))
			arrives(active[0], provision.StatePause, "poll")
			require.NoError(t, e.SetState(int64(active[0]), emulator.StateActive))
			arrives(active[0], provision.StateActive, "poll, which reads the card of who left the list")

			require.NoError(t, f.ChangeState(ctx, active[1], provision.StatePause))
			require.NoError(t, f.SetMAC(ctx, s.Current().BySubscriber(active[1]).At(0).Addresses[0].Prefix.Addr(), provision.MAC{2, 0, 0, 0, 0, 1}))
			require.True(t, slices.ContainsFunc(f.Pending(), func(p userside.Pending) bool { return p.Action == action && p.Attempt == 1 }),
				"it still hangs")
		})
	}
}

func TestHungAnswerDoesNotHoldUpHints(t *testing.T) {
	t.Parallel()
	const soon = 5 * time.Second
	e, f, s, active := hangs(t, "customer.get_ip_port_device_commutation", time.Hour)
	require.NoError(t, e.SetState(int64(active[2]), emulator.StatePause))
	s.Hint(active[2])
	require.Eventually(t, func() bool { return s.Current().State(active[2]) == provision.StatePause }, soon, time.Millisecond)
	require.NotEmpty(t, f.Pending())
	require.Equal(t, "customer.get_ip_port_device_commutation", f.Pending()[0].Action)
}

// With the figures of a real server: a bulk call hangs until the proxy answers 504 after a minute, polls come every second. A pause
// by poll arrives with the next one, by hint and by command at once, also where two bulk calls may hang at the same time.
func TestPauseWhileBulkWaitsForTheGateway(t *testing.T) {
	for _, o := range []userside.Options{{}, {MaxConcurrent: 2}, {Timeout: 2 * time.Minute}, {Timeout: 2 * time.Minute, MaxConcurrent: 2}} {
		for _, action := range []string{"customer.get_ip_port_device_commutation", "device.get_data", "customer.get_data"} {
			t.Run(fmt.Sprintf("%s at %d within %s", action, o.MaxConcurrent, o.Timeout), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { pauseWhileBulkWaits(t, o, action) })
			})
		}
	}
}

func pauseWhileBulkWaits(t *testing.T, o userside.Options, action string) {
	t.Helper()
	const poll = time.Second
	e, err := emulator.Open(emulator.Options{Seed: 7, Customers: 20, Keys: []emulator.Key{{Key: emulatorKey}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	o.URL, o.Key, o.Transport, o.Location = "http://192.0.2.1/api.php", emulatorKey, inProcess{e}, time.UTC
	c, err := userside.New(o)
	require.NoError(t, err)
	policy := provision.DefaultPolicy()
	f, err := New(c, Options{Policy: &policy})
	require.NoError(t, err)
	s := syncer.New(syncer.Options{PollInterval: poll, RefreshInterval: 10 * time.Second, Guard: syncer.GuardLimits{MinChanged: 100}}, f, nil, nil, provisiontest.Quiet())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { assert.NoError(t, s.Run(ctx)) })
	time.Sleep(5 * time.Second)
	require.NotNil(t, s.Current())

	require.NoError(t, e.SetQuirks(emulator.Quirks{Faults: map[string]emulator.Fault{action: emulator.FaultGateway}}))
	s.Refresh()
	time.Sleep(6 * time.Second) // from 5 s on status names it
	hung := func() bool {
		return slices.ContainsFunc(f.Pending(), func(p userside.Pending) bool {
			return p.Action == action && p.Lane == "bulk" && p.Slow(time.Now())
		})
	}
	require.True(t, hung(), "%+v", f.Pending())
	ids := someActive(s.Current())
	arrival := func(id provision.SubscriberID) time.Duration {
		began := time.Now()
		for s.Current().State(id) != provision.StatePause && time.Since(began) < 10*time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		return time.Since(began)
	}

	require.NoError(t, e.SetState(int64(ids[0]), emulator.StatePause))
	require.LessOrEqual(t, arrival(ids[0]), poll*5/4, "by poll")
	require.NoError(t, f.ChangeState(ctx, ids[1], provision.StatePause))
	time.Sleep(time.Millisecond) // in simulated time the ERP takes none
	s.Override(ids[1], provision.StatePause, time.Now())
	require.Zero(t, arrival(ids[1]), "by command")
	if action != "customer.get_data" { // which a hint asks itself
		require.NoError(t, e.SetState(int64(ids[2]), emulator.StatePause))
		s.Hint(ids[2])
		require.LessOrEqual(t, arrival(ids[2]), 300*time.Millisecond, "by hint")
	}
	require.True(t, hung(), "it still hangs")

	time.Sleep(3 * time.Minute)
	require.NoError(t, e.SetQuirks(emulator.Quirks{}))
	time.Sleep(2 * time.Minute)
	for _, id := range ids[:2] {
		require.Equal(t, provision.StatePause, s.Current().State(id), "what came of the bulk call takes nothing back")
	}
	require.False(t, hung())
}

// After a restart in which the first whole fetch hangs, states are polled by what was stored: a pause and a payment arrive, and
// who is blocked for what a card said, or for a reason that nobody can read, stays so.
func TestStatesArePolledAfterARestartThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.Open(emulator.Options{Seed: 7, Customers: 144, Keys: []emulator.Key{{Key: emulatorKey}}})
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close()) }()
		c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: emulatorKey, Transport: inProcess{e}, Location: time.UTC})
		require.NoError(t, err)
		w := newTableWorld(t, 144, c, e, ModeDirect)
		ids := someActive(w.truth)
		var paid provision.SubscriberID
		for _, x := range e.Customers() {
			id := provision.SubscriberID(x.ID)
			if x.State == emulator.StatePause && w.truth.State(id) == provision.StatePause && w.truth.BySubscriber(id).Len() > 0 {
				paid = id
			}
		}
		require.NotZero(t, paid)
		m := w.open(t)
		dark := ids[2] // blocked before, and nothing that is known says why
		m.keep(map[int64]provision.State{int64(dark): provision.StateStop})
		m.tell(m.source(syncer.SourceStates), time.Now())
		require.NoError(t, m.save(time.Now()))
		before := w.truth.WithStates(map[provision.SubscriberID]provision.State{dark: provision.StateStop})

		store := syncer.NewStore(filepath.Join(t.TempDir(), "snapshot"))
		require.NoError(t, store.Save(before))

		w.breakSource(t, syncer.SourceBindings, emulator.FaultGateway)
		f, _ := w.agent(t, w.open(t))
		s := syncer.New(syncer.Options{PollInterval: time.Second, RefreshInterval: 10 * time.Second, Guard: syncer.GuardLimits{MinChanged: 10}}, f, store, nil, provisiontest.Quiet())
		require.NoError(t, s.LoadStored())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { assert.NoError(t, s.Run(ctx)) })
		time.Sleep(3500 * time.Millisecond)
		require.Empty(t, harm(before, s.Current()))
		require.Equal(t, provision.SourceStored, s.Current().Source())
		require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceStates).Judgement)

		require.NoError(t, e.SetState(int64(ids[0]), emulator.StatePause))
		require.NoError(t, e.SetState(int64(paid), emulator.StateActive))
		time.Sleep(1100 * time.Millisecond)
		want := before.WithStates(map[provision.SubscriberID]provision.State{ids[0]: provision.StatePause, paid: provision.StateActive})
		require.Empty(t, harm(want, s.Current()))
		require.NotEmpty(t, f.Pending(), "the whole fetch still hangs")
		time.Sleep(5 * time.Minute)
		require.Empty(t, harm(want, s.Current()))
	})
}
