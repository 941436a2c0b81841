package agent

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/consoletest"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside/emulator"
)

const (
	testHookSecret = "0123456789abcdef0123456789abcdef"
	testKey        = "test-key" // of the emulated ERP
)

// TestKernelHint measures the way of a change from the hint's POST through the
// ERP's API to the sets of a real kernel, on loopback.
func TestKernelHint(t *testing.T) {
	labtest.Need(t, "nft")
	l, err := lab.New("hint", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	router, err := l.Host("router")
	require.NoError(t, err)
	ns, err := os.Open(filepath.Join("/run/netns", router.Namespace))
	require.NoError(t, err)
	t.Cleanup(func() { _ = ns.Close() })
	table, err := acl.Open(t.Context(), acl.Options{NetNS: int(ns.Fd())})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, table.Close()) })

	customers := 5000
	if n, err := strconv.Atoi(os.Getenv("USHER_TEST_CUSTOMERS")); err == nil {
		customers = n
	}
	e, err := emulator.Open(emulator.Options{Seed: 5, Customers: customers, Keys: []emulator.Key{{Key: testKey}}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	erpServer := httptest.NewServer(e)
	t.Cleanup(erpServer.Close)

	quiet := slog.New(slog.DiscardHandler)
	metrics := console.NewMetrics(prometheus.NewRegistry())
	a := &Agent{log: quiet, metrics: metrics, erp: &liveERP{}}
	cfg, err := config.Parse("usher.yaml", fmt.Appendf(nil, "userside: {url: %s/api.php, key: %s, allow_inline_key: true, poll_interval: 1h}\ndhcp: {enabled: false}\n",
		erpServer.URL, testKey), config.Env{})
	require.NoError(t, err)
	fetcher, err := a.newFetcher(cfg)
	require.NoError(t, err)
	a.erp.p.Store(fetcher)
	a.syncer = syncer.New(a.syncOptions(cfg), a.erp, nil, metrics, quiet)
	a.enforcer = access.NewEnforcer(enforceOptions(cfg.ACL, access.NewSources(sourceOptions(cfg), a.leases, nil, a.interfaceNames).Inputs), table, nil, a.syncer.Current, metrics, quiet)
	hooks := httptest.NewServer(console.NewHooks(config.Hooks{Secret: testHookSecret, Window: time.Minute}, a.syncer.Hint, metrics.Hint, quiet))
	t.Cleanup(hooks.Close)

	ctx := t.Context()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	wg.Go(func() { assert.NoError(t, a.syncer.Run(ctx)) })
	wg.Go(func() { assert.NoError(t, a.enforcer.Run(ctx)) })
	wg.Go(func() { assert.NoError(t, a.kickOnUpdate(ctx)) })
	require.Eventually(t, func() bool { return a.syncer.Current() != nil && a.enforcer.Status().Ready },
		time.Minute, 5*time.Millisecond, "the first snapshot in the kernel")

	var chosen emulator.Customer
	for _, c := range e.Customers() {
		if a.syncer.Current().State(provision.SubscriberID(c.ID)) == provision.StateActive && len(c.Addresses) == 1 {
			chosen = c
			break
		}
	}
	require.NotZero(t, chosen.ID)
	ip := chosen.Addresses[0].IP
	held := func() [2]bool {
		stopped, paused, err := table.Holds(ctx, ip)
		require.NoError(t, err)
		return [2]bool{stopped, paused}
	}
	require.Equal(t, [2]bool{}, held())
	// What the steps take one after the other, on a machine that is busy with other things.
	steps := func(state provision.State) time.Duration {
		began := time.Now()
		snap, id := a.syncer.Current(), provision.SubscriberID(chosen.ID)
		answer, err := fetcher.FetchCustomers(ctx, []provision.SubscriberID{id}, snap)
		require.NoError(t, err)
		require.Contains(t, answer.States, id)
		snap.WithStates(map[provision.SubscriberID]provision.State{id: state})
		held()
		return time.Since(began)
	}
	var times, floor []time.Duration
	for i := range 30 {
		state, want := emulator.StateStop, [2]bool{true, false}
		switch i % 3 {
		case 1:
			state, want = emulator.StatePause, [2]bool{false, true}
		case 2:
			state, want = emulator.StateActive, [2]bool{}
		}
		floor = append(floor, steps(provision.State(i%3)))
		require.NoError(t, e.SetState(chosen.ID, state))
		began := time.Now()
		consoletest.SendHint(t, http.DefaultClient, hooks.URL, testHookSecret, chosen.ID, i)
		for held() != want {
			require.Less(t, time.Since(began), 10*time.Second, "state %s does not arrive", state)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	slices.Sort(floor)
	t.Logf("POST to kernel with %d customers: median %s, 90th percentile %s, longest %s; its steps alone: median %s", customers, times[15], times[26], times[29], floor[15])
	assert.Less(t, times[15], max(50*time.Millisecond, 15*floor[15]), "median")
	st := a.syncer.Status().Hints
	assert.EqualValues(t, 30, st.Received)
	assert.Empty(t, st.LastError)

	// What the request says of the state is not believed.
	consoletest.SendHint(t, http.DefaultClient, hooks.URL, testHookSecret, chosen.ID, 1000)
	require.Eventually(t, func() bool { return a.syncer.Status().Hints.Pending == 0 }, 10*time.Second, 5*time.Millisecond, "the hint is read")
	assert.Equal(t, [2]bool{}, held())
}

// TestMemoryIsOfOneERP: a reload keeps what the ERP said, another ERP begins anew.
func TestMemoryIsOfOneERP(t *testing.T) {
	l := &liveERP{}
	memoryFor := func(url string) *erp.Memory {
		m, err := l.memoryFor(url)
		require.NoError(t, err)
		return m
	}
	first := memoryFor("https://erp.example.net/api.php")
	assert.Same(t, first, memoryFor("https://erp.example.net/api.php"))
	assert.NotSame(t, first, memoryFor("https://erp2.example.net/api.php"))
}
