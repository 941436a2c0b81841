// Package door lets connections in to the program's own listeners: console, hints
// and portal. What somebody outside may use is bounded before a byte of his is read:
// connections in total and of one address, for how long, and from where. All doors
// together leave descriptors over for what the program is there for (Shares).
//
// A full door makes room by closing the connection that has been idle for longest:
// whoever holds many open and asks nothing must not keep out the one who asks.
package door

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Refusal is why a connection is closed before anything is read from it. A closed
// set: it is a metric label.
type Refusal string

// The refusals.
const (
	NotAllowed Refusal = "not_allowed" // its address is in no list
	PerAddress Refusal = "per_address" // too many of one address, and none of them idle
	Full       Refusal = "full"        // too many in total, and none of them idle
)

// Refusals lists every Refusal.
func Refusals() []Refusal { return []Refusal{NotAllowed, PerAddress, Full} }

// shutdownGrace is how long answers may take when the end has come: the agent stops within 2 s.
const shutdownGrace = time.Second

// Options of a Door. Zero values mean no bound.
type Options struct {
	Name       string
	Total      int                             // connections at once
	PerAddress int                             // of one address
	Allow      func(netip.Addr) bool           // nil: everybody
	Hosts      func() Hosts                    // names that requests may be for; nil: any
	Refused    func(why Refusal, a netip.Addr) // must not block; may be nil
	Timeouts
}

// Timeouts bound a connection in time. Zero ones are those of Default.
type Timeouts struct {
	Header, Read, Write, Idle time.Duration
}

// Default is how long one may take who is not slow on purpose.
var Default = Timeouts{Header: 5 * time.Second, Read: 10 * time.Second, Write: 20 * time.Second, Idle: time.Minute}

// Door counts those who are inside. It may have several listeners.
type Door struct {
	opts Options

	mu      sync.Mutex // guards the rest
	inside  int
	byAddr  map[netip.Addr]int
	idle    *list.List // of *conn, the longest idle first
	refused map[Refusal]uint64
	ended   uint64
}

// New makes a Door.
func New(o Options) *Door {
	for _, t := range []struct{ have, want *time.Duration }{
		{&o.Header, &Default.Header}, {&o.Read, &Default.Read}, {&o.Write, &Default.Write}, {&o.Idle, &Default.Idle},
	} {
		if *t.have == 0 {
			*t.have = *t.want
		}
	}
	return &Door{opts: o, byAddr: map[netip.Addr]int{}, idle: list.New(), refused: map[Refusal]uint64{}}
}

// Status is what a door has seen.
type Status struct {
	Name      string             `json:"name"`
	Inside    int                `json:"connections"`
	Total     int                `json:"limit,omitempty"`
	Refused   map[Refusal]uint64 `json:"refused,omitempty"`
	EndedIdle uint64             `json:"ended_idle,omitempty"` // idle ones closed to make room
}

// Status tells how it is now.
func (d *Door) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := Status{Name: d.opts.Name, Inside: d.inside, Total: d.opts.Total, EndedIdle: d.ended}
	for why, n := range d.refused {
		if st.Refused == nil {
			st.Refused = map[Refusal]uint64{}
		}
		st.Refused[why] = n
	}
	return st
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	door *Door
	addr netip.Addr
	at   *list.Element // in door.idle; nil: it is busy
	gone bool
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.door.leave(c)
	return c.Conn.Close()
}

func (d *Door) leave(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaveLocked(c)
}

func (d *Door) leaveLocked(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	d.busyLocked(c)
	d.inside--
	if d.byAddr[c.addr]--; d.byAddr[c.addr] == 0 {
		delete(d.byAddr, c.addr)
	}
}

func (d *Door) busyLocked(c *conn) {
	if c.at != nil {
		d.idle.Remove(c.at)
		c.at = nil
	}
}

// enter decides on a connection. What it gives in the second place has made room and is to be closed.
func (d *Door) enter(raw net.Conn) (*conn, *conn, Refusal) {
	a := addrOf(raw)
	allowed := d.opts.Allow == nil || d.opts.Allow(a)
	d.mu.Lock()
	defer d.mu.Unlock()
	var old *conn
	switch {
	case !allowed:
		return nil, nil, d.refuseLocked(NotAllowed)
	case d.opts.PerAddress > 0 && d.byAddr[a] >= d.opts.PerAddress:
		if old = d.oldestLocked(func(c *conn) bool { return c.addr == a }); old == nil {
			return nil, nil, d.refuseLocked(PerAddress)
		}
	case d.opts.Total > 0 && d.inside >= d.opts.Total:
		if old = d.oldestLocked(func(*conn) bool { return true }); old == nil {
			return nil, nil, d.refuseLocked(Full)
		}
	}
	if old != nil {
		d.leaveLocked(old)
		d.ended++
	}
	c := &conn{Conn: raw, door: d, addr: a}
	d.inside++
	d.byAddr[a]++
	c.at = d.idle.PushBack(c) // it has asked for nothing yet
	return c, old, ""
}

func (d *Door) oldestLocked(of func(*conn) bool) *conn {
	for e := d.idle.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); of(c) {
			return c
		}
	}
	return nil
}

func (d *Door) refuseLocked(why Refusal) Refusal {
	d.refused[why]++
	return why
}

// addrOf returns the address of the one at the other end; none of a local socket.
func addrOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Listener returns l as the door lets in what comes there. Its server must tell State.
func (d *Door) Listener(l net.Listener) net.Listener { return listener{l, d} }

type listener struct {
	net.Listener
	door *Door
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, old, why := l.door.enter(raw)
		if old != nil {
			_ = old.Conn.Close()
		}
		if why == "" {
			return c, nil
		}
		abort(raw)
		if f := l.door.opts.Refused; f != nil {
			f(why, addrOf(raw))
		}
	}
}

// abort closes with a reset: nothing of it lingers here.
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// State is http.Server.ConnState of the servers at this door: it tells who is idle.
func (d *Door) State(nc net.Conn, state http.ConnState) {
	c := inner(nc)
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateActive:
		d.busyLocked(c)
	case http.StateIdle:
		if c.at == nil && !c.gone {
			c.at = d.idle.PushBack(c)
		}
	}
}

// inner finds the connection of ours in what a server or a listener has wrapped around it.
func inner(c net.Conn) *conn {
	for range 4 {
		switch x := c.(type) {
		case *conn:
			return x
		case *tls.Conn:
			c = x.NetConn()
		case interface{ Unwrap() net.Conn }:
			c = x.Unwrap()
		default:
			return nil
		}
	}
	return nil
}

// Unwrap returns the connection as it was accepted.
func (c *conn) Unwrap() net.Conn { return c.Conn }

// Serve serves s on l until ctx ends, and then gives nil. It sets the bounds in s.
func (d *Door) Serve(ctx context.Context, l net.Listener, s *http.Server) error {
	o := d.opts
	s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = o.Header, o.Read, o.Write, o.Idle
	s.ConnState = d.State
	if o.Hosts != nil {
		s.Handler = onlyFor(o.Hosts, s.Handler)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(d.Listener(l)) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		_ = s.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
