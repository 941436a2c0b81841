package portal

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bounds. A subscriber's computer tries again by the thousand while it has
// no internet; that must neither use the router up nor keep its owner's browser
// from the page.
const (
	maxConns     = 2048  // at once
	maxPerSource = 64    // at once, of one address
	maxInCrowd   = 8     // the same, once half of maxConns is in use: a few that hold all they can leave room for others
	maxSources   = 16384 // addresses that are remembered
	forgetAfter  = time.Minute

	connRate, connBurst = 200, 400 // connections a second of one address
	pageRate, pageBurst = 5, 20    // whole pages a second of one address, for browsers and for others
)

// source is one address and what it has used.
type source struct {
	conns    int
	last     time.Time
	accepts  *rate.Limiter
	browsers *rate.Limiter // requests that want text/html: somebody looks
	others   *rate.Limiter
}

// sources counts what each address uses, within a bounded memory.
type sources struct {
	now func() time.Time

	mu    sync.Mutex // guards the rest
	conns int
	known map[netip.Addr]*source
	swept time.Time
	crowd *source // all that do not fit into known
}

func newSources(now func() time.Time) *sources {
	return &sources{now: now, known: map[netip.Addr]*source{}, crowd: newSource()}
}

func newSource() *source {
	return &source{
		accepts: rate.NewLimiter(connRate, connBurst), browsers: rate.NewLimiter(pageRate, pageBurst), others: rate.NewLimiter(pageRate, pageBurst),
	}
}

// atLocked gives the record of an address.
func (s *sources) atLocked(a netip.Addr, now time.Time) *source {
	if src, ok := s.known[a]; ok {
		src.last = now
		return src
	}
	if len(s.known) >= maxSources && now.Sub(s.swept) >= time.Second { // not with each of a flood
		s.swept = now
		for k, src := range s.known {
			if src.conns == 0 && now.Sub(src.last) > forgetAfter {
				delete(s.known, k)
			}
		}
	}
	if len(s.known) >= maxSources {
		return s.crowd
	}
	src := newSource()
	src.last = now
	s.known[a] = src
	return src
}

// admit takes a connection in, or says why not. What it gives for an admitted
// one is to be released.
func (s *sources) admit(a netip.Addr) (*source, Refusal) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.atLocked(a, now)
	switch {
	case s.conns >= maxConns:
		return nil, RefusedTotal
	case src != s.crowd && (src.conns >= maxPerSource || src.conns >= maxInCrowd && s.conns >= maxConns/2):
		return nil, RefusedSource
	case !src.accepts.AllowN(now, 1):
		return nil, RefusedRate
	}
	s.conns++
	src.conns++
	return src, ""
}

func (s *sources) release(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	src.conns--
}

// mayRender reports whether an address may have a whole page now.
func (s *sources) mayRender(a netip.Addr, browser bool) bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.atLocked(a, now)
	if browser {
		return src.browsers.AllowN(now, 1)
	}
	return src.others.AllowN(now, 1)
}

// limited is a listener that closes at once what is too much.
type limited struct {
	net.Listener
	sources *sources
	obs     Observer
}

// Accept implements net.Listener.
func (l limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var a netip.Addr
		if ap, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
			a = ap.Addr().Unmap().WithZone("")
		}
		src, why := l.sources.admit(a)
		if why == "" {
			return &counted{Conn: conn, release: sync.OnceFunc(func() { l.sources.release(src) })}, nil
		}
		l.obs.PortalRefused(why)
		if tc, ok := conn.(*net.TCPConn); ok {
			_ = tc.SetLinger(0) // a reset: nothing of it lingers here
		}
		_ = conn.Close()
	}
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
