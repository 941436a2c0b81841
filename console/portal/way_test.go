package portal

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// way is a Way that remembers until when it is open.
type way struct {
	until chan time.Time // holds one
	err   error
}

func newWay() *way {
	w := &way{until: make(chan time.Time, 1)}
	w.until <- time.Time{}
	return w
}

func (w *way) PortalUp(_ context.Context, d time.Duration) error {
	<-w.until
	w.until <- time.Now().Add(d)
	return w.err
}

func (w *way) PortalDown(context.Context) error {
	<-w.until
	w.until <- time.Time{}
	return nil
}

func (w *way) open() bool {
	t := <-w.until
	w.until <- t
	return time.Now().Before(t)
}

// pipe is a listener without sockets.
type pipe struct{ closed chan struct{} }

func (p pipe) Accept() (net.Conn, error) { <-p.closed; return nil, net.ErrClosed }
func (p pipe) Addr() net.Addr            { return &net.TCPAddr{} }
func (p pipe) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// The kernel leads HTTP here as long as somebody serves, and no moment longer.
func TestTheWayIsOpenWhileThePortalServes(t *testing.T) {
	for name, fails := range map[string]bool{"an ordinary stop": false, "the listener fails": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := newServer(t, testOptions())
				w, l := newWay(), pipe{make(chan struct{})}
				s.Led(w)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- s.serve(ctx, l, false) }()
				for range 100 {
					synctest.Wait()
					require.True(t, w.open())
					time.Sleep(time.Second)
				}
				if fails {
					require.NoError(t, l.Close())
					require.Error(t, <-done)
				} else {
					cancel()
					require.NoError(t, <-done)
				}
				require.False(t, w.open())
			})
		})
	}
}

// Neither what fails in the kernel nor HTTPS keeps the page from being served.
func TestTheWayMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, testOptions())
		w := newWay()
		w.err = errors.New("the table is gone")
		s.Led(w)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- s.serve(ctx, pipe{make(chan struct{})}, false) }()
		go func() { done <- s.serve(ctx, pipe{make(chan struct{})}, true) }()
		time.Sleep(time.Minute)
		require.Empty(t, done)
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, <-done)
	})
}

// Who has taken the port is not led to, though an agent before was killed a moment ago.
func TestTheWayIsShutWhereThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	s, _ := newServer(t, testOptions())
	w := newWay()
	require.NoError(t, w.PortalUp(t.Context(), time.Hour))
	s.Led(w)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.listen(ctx, netip.MustParseAddrPort(taken.Addr().String()), false) }()
	require.Eventually(t, func() bool { return !w.open() }, 5*time.Second, time.Millisecond)
	cancel()
	<-done
}
