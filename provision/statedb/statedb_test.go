package statedb

import (
	"context"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Who works and says nothing goes in circles, who has the file and sleeps hangs; who waits, for a disk or a turn, does neither.
func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		works  float64 // of the time
		asleep bool
		begins time.Duration // when it has the file; 0: never
		says   time.Duration // how often it tells an entry after that; 0: never
		over   time.Duration // when it is found
		why    string
	}{
		{"in circles", 1, false, 0, 0, 3 * time.Second, "went in circles"},
		{"in circles when it has the file", 1, false, 500 * time.Millisecond, 0, 4 * time.Second, "went in circles"},
		{"in circles on a busy machine", 0.12, false, 0, 0, 9 * time.Second, "went in circles"},
		{"hangs", 0, true, 500 * time.Millisecond, 0, 4 * time.Second, "hung"},
		{"waits for the file", 0, true, 0, 0, mostTime, "deadline"},
		{"starts late", 0.01, false, 0, 0, mostTime, "deadline"},
		{"waits for the disk", 0, false, 500 * time.Millisecond, 0, mostTime, "deadline"},
		{"reads a large file", 1, false, 500 * time.Millisecond, 300 * time.Millisecond, mostTime, "deadline"},
		{"reads it from a slow disk", 0.15, false, 500 * time.Millisecond, 5 * time.Second, mostTime, "deadline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), mostTime)
				defer cancel()
				ctx, stop := context.WithCancelCause(ctx)
				defer synctest.Wait()
				defer stop(nil)
				began := time.Now()
				var said atomic.Int64
				tell := func() { said.Add(1) }
				if c.begins > 0 {
					defer time.AfterFunc(c.begins, tell).Stop()
				}
				if c.says > 0 {
					tick := time.NewTicker(c.says)
					defer tick.Stop()
					go func() {
						for {
							select {
							case <-tick.C:
								tell()
							case <-ctx.Done():
								return
							}
						}
					}()
				}
				watch(ctx, &said, func() (vitals, error) {
					return vitals{time.Duration(c.works * float64(time.Since(began))), c.asleep}, nil
				}, stop)
				require.ErrorContains(t, context.Cause(ctx), c.why)
				require.Equal(t, c.over, time.Since(began))
			})
		})
	}
}

func TestVitals(t *testing.T) {
	before, err := vitalsOf(os.Getpid())
	require.NoError(t, err)
	require.False(t, before.asleep, "it looks")
	for now := before; now.worked < before.worked+10*time.Millisecond; { // it goes on while this runs
		now, err = vitalsOf(os.Getpid())
		require.NoError(t, err)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		v, err := vitalsOf(cmd.Process.Pid)
		return err == nil && v.asleep
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait())
	_, err = vitalsOf(cmd.Process.Pid)
	require.Error(t, err, "it has ended")
}
