package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/userside/emulator"
)

// kills returns how often to kill the agent; USHER_KILLS says another number.
func kills(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("USHER_KILLS")); err == nil && n > 0 {
		return n
	}
	return long.Times(t, 8, 100)
}

// appears returns a channel that is closed when there is a file of a pattern, at the latest when ctx ends.
func appears(ctx context.Context, pattern string) <-chan struct{} {
	there := make(chan struct{})
	go func() {
		defer close(there)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if found, _ := filepath.Glob(pattern); len(found) > 0 {
				return
			}
		}
	}()
	return there
}

// halfSnapshots are what the log has begun of a snapshot and not ended.
const halfSnapshots = "*.snap.tmp"

// Clients get leases, renew, give them back and change their boxes while the agent is killed again and again: in its work, while it writes a
// snapshot, and while it starts. No lease of a pool that a client knows of is lost, ends early or goes to two; nothing new of a bound address
// is lost, nor its report.
func TestKernelKillNineLosesNothing(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, crowdOptions(120))
	paused := w.ERP.Customers()[7]
	require.NoError(t, w.ERP.SetState(paused.ID, emulator.StatePause))
	c := newCrowd(t, w, 3000, 60, 1)
	require.Greater(t, len(c.customers()), 50)
	dir := filepath.Join(w.Dir, "state", "leases")
	rng := rand.New(rand.NewPCG(3, 4))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	rounds, atSnapshots, inSnapshots, inStarts, snapshots := kills(t), 0, 0, 0, map[string]bool{}
	due := false
	note := func() {
		names, err := filepath.Glob(filepath.Join(dir, "*.snap"))
		require.NoError(t, err)
		for _, n := range names {
			snapshots[n] = true
		}
	}
	for round := range rounds {
		// With so many files the next start begins with a snapshot.
		files, err := filepath.Glob(filepath.Join(dir, "*.log"))
		require.NoError(t, err)
		due = !due && len(files) >= 16
		starting := due || round%4 == 3
		if !starting {
			require.NoError(t, w.StartAgent(t.Context()))
			c.check(t, w)
			note()
		}
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		load.Go(func() { c.run(ctx) })
		if starting {
			p, err := w.Router.Start(w.Program, "run", "--config", w.ConfigPath())
			require.NoError(t, err)
			w.Agent = p
			inStarts++
		}
		patience := between(5*time.Millisecond, 1200*time.Millisecond)
		if due {
			patience = 10 * time.Second
		}
		watch, unwatch := context.WithTimeout(ctx, patience)
		<-appears(watch, filepath.Join(dir, halfSnapshots))
		if watch.Err() == nil { // any moment of it
			atSnapshots++
			pause, done := context.WithTimeout(ctx, between(0, 3*time.Millisecond))
			<-pause.Done()
			done()
		}
		unwatch()
		w.Agent.Kill()
		stop()
		load.Wait()
		if half, _ := filepath.Glob(filepath.Join(dir, halfSnapshots)); len(half) > 0 {
			inSnapshots++
		}
		note()
	}
	require.NoError(t, w.StartAgent(t.Context()))
	pools, bound := c.check(t, w)
	t.Logf("%d kills, %d of them while the agent started, %d when a snapshot had begun, of which %d left half of it; %d snapshots; %d ACKs; %d leases of pools and %d of bound addresses at the end, %d ACKs of these came late",
		rounds, inStarts, atSnapshots, inSnapshots, len(snapshots), c.acks, pools, bound, c.late)
	require.Greater(t, pools, 10)
	require.Greater(t, bound, 10)
	if rounds >= 100 {
		require.NotZero(t, atSnapshots)
	}
	// Each customer is known by its MAC again.
	for ip, f := range c.facts {
		if f.sure.IsZero() {
			continue
		}
		x, err := w.Client.Explain(t.Context(), f.sure.String())
		require.NoError(t, err)
		require.Equal(t, ip, x.Leases[0].IP)
	}
	require.Contains(t, w.nft(t, "list", "set", "inet", "usher", "paused"), paused.Addresses[0].IP.String())
	require.False(t, strings.Contains(w.Agent.Log(), "panic"))
}
