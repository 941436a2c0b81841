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
	maxConns     = 2048  // at once, where the process may open enough files; else see boundsOf
	maxPerSource = 64    // at once, of one address
	maxInCrowd   = 8     // the same, once half of all is in use: a few that hold all they can leave room for others
	maxSources   = 16384 // addresses that are remembered, and shares; of vouched ones twice as many
	forgetAfter  = time.Minute
	recheckShare = 5 * time.Second

	// The same for one share: a host has as many addresses as it types.
	maxUnknown  = 128 // at once, of all sources of which nothing is known
	maxPromised = 4   // at once, of a vouched share whatever else is in use: the browser's

	connRate, connBurst = 200, 400 // connections a second of one address, and of one share
	pageRate, pageBurst = 5, 20    // whole pages a second of one address, for browsers and for others

	// Requests a second of all. One share may have as many as connections, for whoever keeps
	// his connection asks by the thousand on it. Three quarters of all are for sources of which
	// nobody knows that they have their address by right; of a vouched share as many as it may
	// have whole pages are always answered.
	askRate, askBurst = 1000, 2000
)

// bounds are how many connections there may be at once.
type bounds struct {
	total      int
	unpromised int // of all but the promised ones
	perSource  int // of one address, and of one share
	unknown    int // of the zero Share
}

// boundsOf returns the bounds of a portal that may have so many connections: those above
// are for maxConns, and less than that leaves room for promised ones, too.
func boundsOf(total int) bounds {
	return bounds{
		total: total, unpromised: total - total/4,
		perSource: max(maxPromised, min(maxPerSource, total/8)), unknown: max(1, min(maxUnknown, total/4)),
	}
}

// source is one address, or one share, and what it has used.
type source struct {
	conns    int
	last     time.Time
	accepts  *rate.Limiter
	browsers *rate.Limiter // requests that want text/html: somebody looks
	others   *rate.Limiter

	share *source // of an address
	key   Share   // of an address: that of its share

	asks *asks // of a share
}

// asks are the requests of a share.
type asks struct {
	all      *rate.Limiter
	promised [2]*rate.Limiter // whatever the others ask; of browsers by themselves
}

func newAsks() *asks {
	return &asks{
		all:      rate.NewLimiter(connRate, connBurst),
		promised: [2]*rate.Limiter{rate.NewLimiter(pageRate, pageBurst), rate.NewLimiter(pageRate, pageBurst)},
	}
}

// sources counts what each address and each share uses, within a bounded memory.
type sources struct {
	now    func() time.Time
	whose  func(netip.Addr) Share
	bounds bounds

	mu     sync.Mutex // guards the rest
	conns  int
	known  map[netip.Addr]*source
	shares map[Share]*source
	swept  time.Time
	crowd  *source // all that do not fit into known

	asks, unvouched *rate.Limiter // requests of all, and of all whose share is not vouched
}

func newSources(now func() time.Time, whose func(netip.Addr) Share) *sources {
	s := &sources{now: now, whose: whose, bounds: boundsOf(maxConns), known: map[netip.Addr]*source{}, shares: map[Share]*source{}, crowd: newSource(),
		asks: rate.NewLimiter(askRate, askBurst), unvouched: rate.NewLimiter(askRate-askRate/4, askBurst-askBurst/4)}
	s.crowd.share, _ = s.shareLocked(Share{}, time.Time{})
	return s
}

func newSource() *source {
	return &source{
		accepts: rate.NewLimiter(connRate, connBurst), browsers: rate.NewLimiter(pageRate, pageBurst), others: rate.NewLimiter(pageRate, pageBurst),
	}
}

// shareLocked returns the record of a share, with its key. Where there is no room for
// it, it is that of the zero Share.
func (s *sources) shareLocked(key Share, now time.Time) (*source, Share) {
	sh, ok := s.shares[key]
	if !ok && key != (Share{}) {
		s.sweepLocked(now)
		if !roomFor(key, len(s.shares)) {
			key = Share{}
			sh, ok = s.shares[key], true
		}
	}
	if !ok {
		sh = newSource()
		sh.asks = newAsks()
		if key == (Share{}) {
			// They are many who ask for the page once, or one who asks for it as many.
			sh.browsers, sh.others = rate.NewLimiter(10*pageRate, 10*pageBurst), rate.NewLimiter(10*pageRate, 10*pageBurst)
		}
		s.shares[key] = sh
	}
	sh.last = now
	return sh, key
}

// roomFor reports whether one more record may be kept beside n others.
func roomFor(key Share, n int) bool { return n < maxSources || key.Vouched && n < 2*maxSources }

// at returns the record of an address. Whose share it uses is asked again when it has no
// connections: a lease may have ended, or another host come.
func (s *sources) at(a netip.Addr, now time.Time) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, ok := s.known[a]
	if ok && (src.conns > 0 || now.Sub(src.last) < recheckShare) {
		src.last, src.share.last = now, now
		return src
	}
	key := s.whose(a)
	if !ok {
		s.sweepLocked(now)
		if !roomFor(key, len(s.known)) {
			return s.crowd
		}
		src = newSource()
		s.known[a] = src
	}
	src.last = now
	src.share, src.key = s.shareLocked(key, now)
	return src
}

// sweepLocked forgets who is gone, when room is needed. A share is used whenever one of
// its addresses is, so one that is forgotten is nobody's: at asks anew for the others.
func (s *sources) sweepLocked(now time.Time) {
	if max(len(s.known), len(s.shares)) < maxSources || now.Sub(s.swept) < time.Second { // not with each of a flood
		return
	}
	s.swept = now
	for k, src := range s.known {
		if src.conns == 0 && now.Sub(src.last) > forgetAfter {
			delete(s.known, k)
		}
	}
	for k, sh := range s.shares {
		if sh != s.crowd.share && sh.conns == 0 && now.Sub(sh.last) > forgetAfter {
			delete(s.shares, k)
		}
	}
}

// admit takes a connection in, or says why not. What it gives for an admitted
// one is to be released.
func (s *sources) admit(a netip.Addr) (*source, Refusal) {
	now := s.now()
	src := s.at(a, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := src.share
	ofShare := s.bounds.perSource
	if src.key == (Share{}) {
		ofShare = s.bounds.unknown
	}
	promised := src.key.Vouched && sh.conns < maxPromised
	crowded := s.conns >= s.bounds.total/2
	switch {
	case s.conns >= s.bounds.total, !promised && s.conns >= s.bounds.unpromised:
		return nil, RefusedTotal
	case src != s.crowd && (src.conns >= s.bounds.perSource || src.conns >= maxInCrowd && crowded):
		return nil, RefusedSource
	case sh.conns >= ofShare, sh.conns >= maxInCrowd && crowded && src.key != (Share{}) && src != s.crowd:
		return nil, RefusedSource
	case !src.accepts.AllowN(now, 1), src != s.crowd && !promised && !sh.accepts.AllowN(now, 1):
		return nil, RefusedRate
	}
	s.conns++
	src.conns++
	sh.conns++
	return src, ""
}

func (s *sources) release(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	src.conns--
	src.share.conns--
}

// mayRender reports whether an address may have a whole page now.
func (s *sources) mayRender(a netip.Addr, browser bool) bool {
	now := s.now()
	src := s.at(a, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if browser {
		return src.browsers.AllowN(now, 1) && (src.key != (Share{}) || src.share.browsers.AllowN(now, 1))
	}
	return src.others.AllowN(now, 1) && (src.key != (Share{}) || src.share.others.AllowN(now, 1))
}

// mayAsk reports whether a request of an address is answered, or why not: a connection that
// was admitted may bring any number of them.
func (s *sources) mayAsk(a netip.Addr, browser bool) Refusal {
	now := s.now()
	src := s.at(a, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, promised := src.share.asks, 0
	if browser {
		promised = 1
	}
	switch {
	case src.key.Vouched && mine.promised[promised].AllowN(now, 1):
		return ""
	case !mine.all.AllowN(now, 1):
		return RefusedRate
	case !src.key.Vouched && !s.unvouched.AllowN(now, 1), !s.asks.AllowN(now, 1):
		return RefusedTotal
	}
	return ""
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

// Unwrap returns the connection as it was accepted.
func (c *counted) Unwrap() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
