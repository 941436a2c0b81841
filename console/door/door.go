// Package door lets connections in to the program's own listeners: console, hints
// and portal. What somebody outside may use is bounded before a byte of his is read:
// connections in total and of one address, for how long, and from where. All doors
// together leave descriptors over for what the program is there for (Shares).
//
// A full door makes room by closing the connection that has been idle for longest:
// whoever holds many open and asks nothing must not keep out the one who asks. Where none
// is idle it closes the one that has been busy for longest of the source that has most:
// whoever asks slowly must not keep out the one who has fewer. Where nobody has more than
// the newcomer it closes the one that has been busy for longest, after a second (stalled).
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

// Refusal is why a connection is closed before anything is read from it, or a request
// is not answered. A closed set: it is a metric label.
type Refusal string

// The refusals.
const (
	NotAllowed Refusal = "not_allowed" // its address is in no list
	PerAddress Refusal = "per_address" // too many of one address, and none of them idle or stalled
	Full       Refusal = "full"        // too many in total, and none that makes room
	OtherName  Refusal = "other_name"  // a request for a name that is not in Hosts
)

// Refusals lists every Refusal.
func Refusals() []Refusal { return []Refusal{NotAllowed, PerAddress, Full, OtherName} }

// stalled is how long a connection may be busy before it makes room for one whose source has
// no more: a request that arrives, and its answer, take milliseconds; half a one never ends.
const stalled = time.Second

// shutdownGrace is how long answers may take when the end has come: the agent stops within 2 s.
const shutdownGrace = time.Second

// Options of a Door. Zero values mean no bound.
type Options struct {
	Name       string
	Total      int                   // connections at once
	PerAddress int                   // of one address; of IPv6, of one /64; of loopback, of all
	Networks   bool                  // who has most is asked of whole networks first: a host on a wire types addresses
	Users      bool                  // of loopback each local user counts by himself
	Allow      func(netip.Addr) bool // nil: everybody
	Hosts      func() Hosts          // names that requests may be for; nil: any
	// Refused is told each refusal; name is what a request was for, with OtherName. It
	// must not block; may be nil.
	Refused func(why Refusal, a netip.Addr, name string)
	Timeouts

	now       func() time.Time      // nil: time.Now
	localUser func(net.Conn) uint64 // nil: localUser
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

	mu        sync.Mutex // guards the rest
	inside    int
	sources   map[who]*source
	networks  map[netip.Addr]*network
	idle      *list.List // of *conn, the longest idle first
	busy      *list.List // of *conn, the longest busy first
	refused   map[Refusal]uint64
	endedIdle uint64
	endedBusy uint64
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
	if o.now == nil {
		o.now = time.Now
	}
	if o.localUser == nil {
		o.localUser = localUser
	}
	return &Door{opts: o, sources: map[who]*source{}, networks: map[netip.Addr]*network{}, idle: list.New(), busy: list.New(), refused: map[Refusal]uint64{}}
}

// Status is what a door has seen.
type Status struct {
	Name      string             `json:"name"`
	Inside    int                `json:"connections"`
	Total     int                `json:"limit,omitempty"`
	Refused   map[Refusal]uint64 `json:"refused,omitempty"`
	EndedIdle uint64             `json:"ended_idle,omitempty"` // idle ones closed to make room
	EndedBusy uint64             `json:"ended_busy,omitempty"` // busy ones closed to make room
}

// Status tells how it is now.
func (d *Door) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := Status{Name: d.opts.Name, Inside: d.inside, Total: d.opts.Total, EndedIdle: d.endedIdle, EndedBusy: d.endedBusy}
	for why, n := range d.refused {
		if st.Refused == nil {
			st.Refused = map[Refusal]uint64{}
		}
		st.Refused[why] = n
	}
	return st
}

// network is where sources are, and how many connections they have.
type network struct {
	key netip.Addr
	n   int
}

// source is who has connections, and how many.
type source struct {
	key who
	n   int
	net *network
}

// conn is a connection that was let in.
type conn struct {
	net.Conn
	door *Door
	from *source
	in   *list.List    // door.idle or door.busy; nil: it has left
	at   *list.Element // in in
	busy time.Time     // since when, in door.busy
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
	if c.in == nil {
		return
	}
	c.in.Remove(c.at)
	c.in = nil
	d.inside--
	if c.from.n--; c.from.n == 0 {
		delete(d.sources, c.from.key)
	}
	if c.from.net.n--; c.from.net.n == 0 {
		delete(d.networks, c.from.net.key)
	}
}

// sourceLocked returns the source that has a key, which is kept once it has a connection.
func (d *Door) sourceLocked(key who) *source {
	if s := d.sources[key]; s != nil {
		return s
	}
	of := networkOf(key.Addr)
	n := d.networks[of]
	if n == nil {
		n = &network{key: of}
	}
	return &source{key: key, net: n}
}

// moveLocked puts a connection that has not left at the end of a list, unless it is there.
func (d *Door) moveLocked(c *conn, to *list.List) {
	if c.in == nil || c.in == to {
		return
	}
	c.in.Remove(c.at)
	c.in, c.at = to, to.PushBack(c)
	if to == d.busy {
		c.busy = d.opts.now()
	}
}

// enter decides on a connection. What it gives in the second place has made room and is to be closed.
func (d *Door) enter(raw net.Conn) (*conn, *conn, Refusal) {
	a := addrOf(raw)
	allowed := d.opts.Allow == nil || d.opts.Allow(a)
	key := who{Addr: sourceOf(a)}
	if d.opts.Users && allowed && a.IsLoopback() {
		key.user = d.opts.localUser(raw)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !allowed {
		return nil, nil, d.refuseLocked(NotAllowed)
	}
	from := d.sourceLocked(key)
	var old *conn
	switch {
	case d.opts.PerAddress > 0 && from.n >= d.opts.PerAddress:
		own := func(c *conn) bool { return c.from == from }
		if old = first(d.idle, own); old == nil {
			old = d.stalledLocked(own)
		}
		if old == nil {
			return nil, nil, d.refuseLocked(PerAddress)
		}
	case d.opts.Total > 0 && d.inside >= d.opts.Total:
		if old = d.roomLocked(from); old == nil {
			return nil, nil, d.refuseLocked(Full)
		}
	}
	if old != nil {
		if old.in == d.idle {
			d.endedIdle++
		} else {
			d.endedBusy++
		}
		d.leaveLocked(old)
	}
	c := &conn{Conn: raw, door: d, from: from, in: d.idle} // it has asked for nothing yet
	c.at = d.idle.PushBack(c)
	d.inside++
	from.n++
	from.net.n++
	d.sources[from.key], d.networks[from.net.key] = from, from.net
	return c, old, ""
}

// roomLocked returns the connection that a full door ends for one more of a source: the
// longest idle one, but of no source that has fewer; else the longest busy one of who has
// most, where that is more than the newcomer will have; else the longest busy one that is
// stalled, again of no source that has fewer. Nil: there is none.
func (d *Door) roomLocked(from *source) *conn {
	notFewer := func(c *conn) bool { return c.from.n >= from.n }
	if c := first(d.idle, notFewer); c != nil {
		return c
	}
	var most *conn
	for e := d.busy.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); most == nil || d.comparedLocked(c.from, most.from) > 0 {
			most = c
		}
	}
	switch {
	case most == nil:
		return nil
	case d.opts.Networks && most.from.net != from.net && most.from.net.n > from.net.n+1, most.from.n > from.n+1:
		return most
	}
	return d.stalledLocked(notFewer)
}

// comparedLocked tells which of two sources has more: first by their networks, where those count.
func (d *Door) comparedLocked(a, b *source) int {
	if d.opts.Networks && a.net != b.net && a.net.n != b.net.n {
		return a.net.n - b.net.n
	}
	return a.n - b.n
}

// stalledLocked returns the longest busy connection of which a condition holds, if it is
// stalled. One of a local socket never is: who may use that may do everything, and a change
// in the ERP takes its time.
func (d *Door) stalledLocked(holds func(*conn) bool) *conn {
	c := first(d.busy, holds)
	if c == nil || !c.from.key.IsValid() || d.opts.now().Sub(c.busy) < stalled {
		return nil
	}
	return c
}

// first returns the first connection of a list of which a condition holds, or nil.
func first(l *list.List, holds func(*conn) bool) *conn {
	for e := l.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); holds(c) {
			return c
		}
	}
	return nil
}

func (d *Door) refuseLocked(why Refusal) Refusal {
	d.refused[why]++
	return why
}

func (d *Door) tell(why Refusal, a netip.Addr, name string) {
	if d.opts.Refused != nil {
		d.opts.Refused(why, a, name)
	}
}

// addrOf returns the address of the one at the other end; none of a local socket.
func addrOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// sourceOf returns what connections of an address are counted by: the address, of IPv6 its
// /64, of which one host may have all addresses, and of loopback, of which each local user
// has 16 million, 127.0.0.1, to which Options.Users adds the user.
func sourceOf(a netip.Addr) netip.Addr {
	switch {
	case a.IsLoopback():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.Is6():
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// networkOf returns the network of a source, by what one host or site may have of addresses:
// a /24, and of IPv6 a /48. Loopback is one by itself.
func networkOf(source netip.Addr) netip.Addr {
	switch {
	case source.Is6():
		return netip.PrefixFrom(source, 48).Masked().Addr()
	case source.Is4():
		return netip.PrefixFrom(source, 24).Masked().Addr()
	}
	return source
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
		l.door.tell(why, addrOf(raw), "")
	}
}

// abort closes with a reset: nothing of it lingers here.
func abort(c net.Conn) {
	if tcp := find[*net.TCPConn](c); tcp != nil {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// State is http.Server.ConnState of the servers at this door: it tells who is idle.
func (d *Door) State(nc net.Conn, state http.ConnState) {
	c := find[*conn](nc)
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateActive:
		d.moveLocked(c, d.busy)
	case http.StateIdle:
		d.moveLocked(c, d.idle)
	}
}

// find returns the connection of a kind in what a server or a listener has wrapped around
// it; the zero T if there is none.
func find[T net.Conn](c net.Conn) (found T) {
	for range 4 {
		switch x := c.(type) {
		case T:
			return x
		case *tls.Conn:
			c = x.NetConn()
		case interface{ Unwrap() net.Conn }:
			c = x.Unwrap()
		default:
			return found
		}
	}
	return found
}

// Unwrap returns the connection as it was accepted.
func (c *conn) Unwrap() net.Conn { return c.Conn }

// Serve serves s on l until ctx ends, and then gives nil. It sets the bounds in s.
func (d *Door) Serve(ctx context.Context, l net.Listener, s *http.Server) error {
	o := d.opts
	s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = o.Header, o.Read, o.Write, o.Idle
	s.ConnState = d.State
	if o.Hosts != nil {
		s.Handler = d.onlyFor(o.Hosts, s.Handler)
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
