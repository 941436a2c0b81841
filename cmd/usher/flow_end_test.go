package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console/consoletest"
	"github.com/usher-agent/usher/userside/emulator"
)

// ticks is a live flow of UDP: a customer sends a number every millisecond, the
// internet notes which ones came.
type ticks struct {
	sent []atomic.Int64 // when, by number; nanoseconds
	came []atomic.Bool
	next atomic.Int64
}

const maxTicks = 120_000

func startTicks(t *testing.T, w *world, h miniature.Home) *ticks {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(miniature.InternetIP + ":7008"))
	in, err := w.Internet.ListenPacket(to.String())
	require.NoError(t, err)
	out, err := h.Host.ListenPacket(h.IP.String() + ":0")
	require.NoError(t, err)
	f := &ticks{sent: make([]atomic.Int64, maxTicks), came: make([]atomic.Bool, maxTicks)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 16)
		for {
			n, _, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			if i := binary.BigEndian.Uint64(b); n == 8 && i < maxTicks {
				f.came[i].Store(true)
			}
		}
	})
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range int64(maxTicks) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			f.sent[i].Store(time.Now().UnixNano())
			f.next.Store(i + 1)
			_, _ = out.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(i)), to) // a refusal is what is waited for
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = in.Close()
		_ = out.Close()
		wg.Wait()
	})
	return f
}

// passing waits until the newest packets come through, or do not.
func (f *ticks) passing(t *testing.T, want bool) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("the flow passes: %t", want), func() (bool, error) {
		n := f.next.Load()
		if n < 30 {
			return false, nil
		}
		for i := n - 25; i < n-15; i++ { // the newest may be on the way
			if f.came[i].Load() != want {
				return false, nil
			}
		}
		return true, nil
	})
}

// firstLost returns how long after began the first packet was sent that did not come.
func (f *ticks) firstLost(t *testing.T, began time.Time) time.Duration {
	t.Helper()
	for i := range f.next.Load() {
		if at := f.sent[i].Load(); at >= began.UnixNano() && !f.came[i].Load() {
			return time.Duration(at - began.UnixNano())
		}
	}
	require.Fail(t, "nothing was lost")
	return 0
}

const testHookSecret = "0123456789abcdef0123456789abcdef"

// hookClient returns a client that reaches the hooks of the agent, which are on the router's loopback.
func (w *world) hookClient(t *testing.T) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return w.Router.Dial("127.0.0.1:9468", 2*time.Second)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// From the change of a state in the ERP, told by a hint, and by polling, to the first
// packet of a live flow that does not pass any more.
func TestKernelChangeEndsLiveFlow(t *testing.T) {
	const poll = time.Second
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(testHookSecret), 0o600))
	w := startWorld(t, miniature.Options{Homes: 1, Customers: 2000, Poll: poll, Refresh: 10 * time.Minute,
		Extra: "hooks: {listen: 127.0.0.1:9468, secret_file: " + secret + "}\n"})
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), w.Homes[0]))
	h := w.Homes[0]
	client := w.hookClient(t)
	flow := startTicks(t, w, h)
	nonce := 0
	measure := func(rounds int, hint bool) []time.Duration {
		var times []time.Duration
		for i := range rounds {
			flow.passing(t, true)
			began := time.Now()
			require.NoError(t, w.ERP.SetState(h.ID, []emulator.State{emulator.StatePause, emulator.StateStop}[i%2]))
			if hint {
				nonce++
				consoletest.SendHint(t, client, "http://127.0.0.1:9468", testHookSecret, h.ID, nonce)
			}
			flow.passing(t, false)
			times = append(times, flow.firstLost(t, began))
			require.NoError(t, w.ERP.SetState(h.ID, emulator.StateActive))
			nonce++
			consoletest.SendHint(t, client, "http://127.0.0.1:9468", testHookSecret, h.ID, nonce)
		}
		slices.Sort(times)
		return times
	}
	byHint := measure(20, true)
	t.Logf("change to first lost packet by hint: median %s, longest %s", byHint[10], byHint[19])
	require.Less(t, byHint[10], 50*time.Millisecond)
	byPoll := measure(7, false)
	t.Logf("change to first lost packet by polling every %s: median %s, longest %s", poll, byPoll[3], byPoll[6])
	require.Less(t, byPoll[3], poll+poll/10+100*time.Millisecond, "the interval, its jitter and 100 ms")
}
