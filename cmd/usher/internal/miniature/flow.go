package miniature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision/link/lab"
)

// EchoServer answers every byte on every connection until the world closes.
func (w *World) EchoServer() error {
	ln, err := w.Internet.Listen(EchoAddr)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards conns
	conns := map[net.Conn]struct{}{}
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = struct{}{}
			mu.Unlock()
			all.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
				mu.Lock()
				delete(conns, conn)
				mu.Unlock()
			})
		}
	})
	w.OnClose(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return nil
}

// Flow is a live TCP connection that carries one byte there and back every few
// milliseconds, so that its end can be timed.
type Flow struct {
	conn net.Conn
	done chan struct{}

	mu    sync.Mutex // guards the rest
	beats int
	last  time.Time // when the newest echo came
	ended time.Time // when the connection broke or went silent
	err   error
}

const (
	flowBeat    = 5 * time.Millisecond
	flowSilence = 500 * time.Millisecond // without an echo this long the flow counts as dead
)

// StartFlow opens a connection from a host to the internet and keeps it busy.
func StartFlow(h *lab.Host) (*Flow, error) {
	conn, err := h.Dial(EchoAddr, 2*time.Second)
	if err != nil {
		return nil, err
	}
	f := &Flow{conn: conn, done: make(chan struct{})}
	go f.run()
	return f, nil
}

func (f *Flow) run() {
	defer close(f.done)
	buf := make([]byte, 1)
	tick := time.NewTicker(flowBeat)
	defer tick.Stop()
	for {
		_, err := f.conn.Write(buf)
		if err == nil {
			_ = f.conn.SetReadDeadline(time.Now().Add(flowSilence))
			_, err = io.ReadFull(f.conn, buf)
		}
		now := time.Now()
		f.mu.Lock()
		if err != nil {
			f.ended, f.err = now, err
			if IsTimeout(err) {
				f.ended = f.last // it went silent then
			}
			f.mu.Unlock()
			return
		}
		f.beats, f.last = f.beats+1, now
		f.mu.Unlock()
		<-tick.C
	}
}

// IsTimeout reports whether an error of a connection is that nothing came in time.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Alive reports whether the flow still carries bytes, and how many round trips it made.
func (f *Flow) Alive() (bool, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err == nil, f.beats
}

// Newest returns when the newest echo came.
func (f *Flow) Newest() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// WaitEnd waits for the flow to break and says when it did and how: the last
// byte came through no later than that.
func (f *Flow) WaitEnd(ctx context.Context, limit time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-f.done:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.ended, nil
	case <-ctx.Done():
		return time.Time{}, errors.New("the connection is still alive after " + limit.String())
	}
}

// Close ends the flow.
func (f *Flow) Close() {
	_ = f.conn.Close()
	<-f.done
}

// Failure says why the flow ended; nil while it lives.
func (f *Flow) Failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Beating waits until a flow has carried some more bytes.
func Beating(ctx context.Context, f *Flow) error {
	_, start := f.Alive()
	return Until(ctx, 3*time.Second, "bytes flow", func() (bool, error) {
		alive, n := f.Alive()
		if !alive {
			return false, fmt.Errorf("the connection broke: %w", f.Failure())
		}
		return n >= start+5, nil
	})
}
