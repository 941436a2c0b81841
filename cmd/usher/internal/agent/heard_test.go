package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Each client that waits to be heard is asked in its turn, however many there are.
func TestAskedByTurns(t *testing.T) {
	var list []access.Unheard
	for i := range 2*askAtOnce + 10 {
		list = append(list, access.Unheard{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	var last netip.Addr
	asked := map[netip.Addr]int{}
	for range 3 {
		for _, u := range turn(list, &last) {
			asked[u.IP]++
		}
	}
	require.Len(t, asked, len(list))
	for ip, n := range asked {
		require.Equal(t, 1, n, ip)
	}
	require.Equal(t, list[:askAtOnce], turn(list, &last), "from the beginning")
	require.Equal(t, list[:3], turn(list[:3], &last), "those after the last one are gone")
	require.Empty(t, turn(nil, &last))
}

// Who was given an address just now may be trying it out, and is not asked.
func TestFreshLeasesAreNotAsked(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(n byte, age time.Duration) access.Unheard {
		return access.Unheard{IP: netip.AddrFrom4([4]byte{192, 0, 2, n}), Renewed: now.Add(-age)}
	}
	list := []access.Unheard{at(1, 0), at(2, askAfter-1), at(3, askAfter), at(4, time.Hour), at(5, -time.Hour)}
	require.Equal(t, []access.Unheard{at(3, askAfter), at(4, time.Hour), at(5, -time.Hour)}, settled(list, now))
	require.Empty(t, settled(nil, now))
}

// fakeListener hears one voice, and then nothing until it fails.
type fakeListener struct {
	mu     *sync.Mutex
	fails  chan error
	asked  []netip.Addr
	closed bool
}

func (f *fakeListener) Run(ctx context.Context, on func(string, netip.Addr, provision.MAC)) error {
	on("eth1", netip.MustParseAddr("192.0.2.1"), provision.MAC{2})
	select {
	case err := <-f.fails:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (f *fakeListener) Ask(_ string, ip netip.Addr, _ provision.MAC) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, ip)
	return errors.New("the interface is down")
}

func (f *fakeListener) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// What keeps ARP from being heard is told, and tried again until it is heard, also if it was so from the start; it ends nothing else.
func TestHearingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := errors.New("operation not permitted")
		var (
			mu     sync.Mutex // of all below and of opens
			opened []*fakeListener
			voices int
			deaf   error
		)
		waits := access.Unheard{IP: netip.MustParseAddr("192.0.2.9")}
		h := hearing{
			open: func() (listener, error) {
				mu.Lock()
				defer mu.Unlock()
				if opens != nil {
					return nil, opens
				}
				l := &fakeListener{mu: &mu, fails: make(chan error)}
				opened = append(opened, l)
				return l, nil
			},
			heard:   func(string, netip.Addr, provision.MAC) { mu.Lock(); defer mu.Unlock(); voices++ },
			unheard: func() []access.Unheard { return []access.Unheard{waits} },
			deaf:    func(err error) { mu.Lock(); defer mu.Unlock(); deaf = err },
			log:     provisiontest.Quiet(),
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.run(ctx) }()
		after := func(d time.Duration) { // what it does in a time
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
		}
		mu.Lock()
		defer mu.Unlock()
		after(0)
		require.ErrorIs(t, deaf, opens)
		opens = nil
		after(hearAgain + askPause + time.Second)
		require.NoError(t, deaf)
		require.Len(t, opened, 1)
		require.Equal(t, 1, voices)
		require.Equal(t, []netip.Addr{waits.IP}, opened[0].asked)

		for _, err := range []error{errors.New("no buffer space"), nil} {
			n := len(opened)
			opened[n-1].fails <- err
			after(0)
			require.Error(t, deaf)
			require.True(t, opened[n-1].closed)
			after(hearAgain)
			require.NoError(t, deaf)
			require.Len(t, opened, n+1)
		}
		require.Equal(t, 3, voices)
		cancel()
		after(0)
		<-done
		require.NoError(t, deaf, "an end that was asked for is no error")
		require.True(t, opened[2].closed)
	})
}
