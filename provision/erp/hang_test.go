package erp

import (
	"context"
	"slices"
	"sync"
	"testing"
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
	var active []provision.SubscriberID
	for _, sub := range s.Current().Subscribers() {
		if sub.State == provision.StateActive && s.Current().BySubscriber(sub.ID).Len() > 0 {
			active = append(active, sub.ID)
		}
	}
	require.Greater(t, len(active), 3)
	return e, f, s, active
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
