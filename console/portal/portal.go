// Package portal is the page that paused subscribers and guests see in place of
// the site they asked for by plain HTTP, and the captive portal API of RFC 8908.
//
// It is reachable for every subscriber, so it is a package of its own beside the
// console: it knows who asks by the source address and nothing else, serves this
// page and no other, and has no way to metrics, status or control. Whoever forges
// an address gets no answer; whoever sees the page sees what is his own.
package portal

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/provision"
)

// APIPath is where the captive portal API is, on the HTTPS listener.
const APIPath = "/captive-portal/api"

// StateHeader tells the state of the one who asks. The page looks at it every
// second to notice that access is back; an answer of the real site lacks it.
const StateHeader = "Portal-State"

// State is what the portal knows of the one who asks. A closed set: it is a
// metric label.
type State string

// The states.
const (
	StatePaused  State = "paused"
	StateStopped State = "stopped"
	StateGuest   State = "guest"
	StateActive  State = "active"  // nothing is blocked
	StateUnknown State = "unknown" // no subscriber has the address
)

// States lists every State.
func States() []State {
	return []State{StatePaused, StateStopped, StateGuest, StateActive, StateUnknown}
}

// Codes lists every status that the portal answers with.
func Codes() []int {
	return []int{http.StatusOK, http.StatusFound, http.StatusMethodNotAllowed, http.StatusServiceUnavailable, http.StatusNetworkAuthenticationRequired}
}

// Visitor is the one who asks.
type Visitor struct {
	State      State
	Subscriber provision.SubscriberID // zero: none
}

// Refusal is why a connection is closed before anything is read from it, or before
// a request on it is answered. A closed set: it is a metric label.
type Refusal string

// The refusals.
const (
	RefusedSource Refusal = "source" // too many connections of one address, or of one share, at once
	RefusedRate   Refusal = "rate"   // the same in a short time, or too many requests of one share
	RefusedTotal  Refusal = "total"  // too many connections at once, or requests in a short time
)

// Refusals lists every Refusal.
func Refusals() []Refusal { return []Refusal{RefusedSource, RefusedRate, RefusedTotal} }

// Observer is told what happens. Its methods must not block.
type Observer interface {
	PortalRequest(s State, code int)
	PortalRefused(Refusal)
	// PortalCertificate tells when the certificate in use expires.
	PortalCertificate(expires time.Time)
}

type noObserver struct{}

func (noObserver) PortalRequest(State, int)    {}
func (noObserver) PortalRefused(Refusal)       {}
func (noObserver) PortalCertificate(time.Time) {}

// Options direct a Server. All fields are keys of the configuration (package
// config).
type Options struct {
	// Where it listens for redirected HTTP: an address with a port above 1024 that
	// customers reach, such as 198.51.100.1:8080, or off.
	Listen netip.AddrPort `cfg:"listen" read:"portal_listen" default:"off" restart:"true"` // invalid: off

	// Lead plain HTTP to addresses of a garden here, too: for gardens that share an
	// address with what devices look for a portal by. HTTPS to them passes as ever.
	BeforeGarden bool `cfg:"before_garden" default:"false"`

	// The same page by HTTPS and the captive portal API (RFC 8908).
	HTTPS HTTPS `cfg:"https"`

	// A template of your own, tried at every load. Empty: the shipped page.
	Template string `cfg:"template" read:"template"` // its text, not its path

	// Languages of the page, by the browser's wish; the first for everybody else. Texts
	// are shipped in these, others are for a template of your own.
	Languages []string `cfg:"languages" read:"language" unique:"true" default:"[en, uk, ru]" empty:"an empty list; want at least one language, or"` // empty: English

	// What the page says: your name, where to pay ({customer} stands for the customer's
	// id in the ERP) and how to reach you. Whatever is empty is left out.
	Provider string `cfg:"provider" read:"short" max:"80" default:""`
	PayURL   string `cfg:"pay_url" read:"pay_url" default:""`
	Contact  string `cfg:"contact" read:"short" max:"400" default:""`
}

// HTTPS is the listener of the API.
type HTTPS struct {
	// An address with a port, or off.
	Listen netip.AddrPort `cfg:"listen" read:"portal_listen" default:"off" restart:"true"` // invalid: off

	// How customers reach it, without a path (example): the name in the certificate.
	URL string `cfg:"url" read:"portal_url" example:"https://portal.example.net:8443"`

	// Certificate with its intermediates and its key, PEM (example). New files are
	// noticed within ten seconds; everybody else must not be able to read the key.
	CertFile string `cfg:"cert_file" read:"certificate" example:"/etc/usher/portal.crt"`
	KeyFile  string `cfg:"key_file" read:"certificate" example:"/etc/usher/portal.key"`
}

// Server answers. All methods are safe for concurrent use.
type Server struct {
	who     func(netip.Addr) Visitor
	obs     Observer
	log     *slog.Logger
	now     func() time.Time
	sources *sources
	way     Way // nil: nothing leads here
	door    *door.Door
	live    atomic.Pointer[live]
}

// live is what one configuration is made into.
type live struct {
	opts Options
	page *page
	host string       // of HTTPS.URL, with its port unless that is 443
	cert *certificate // nil without HTTPS
}

// New makes a Server. who must not block; obs may be nil.
func New(o Options, who func(netip.Addr) Visitor, obs Observer, log *slog.Logger) (*Server, error) {
	if obs == nil {
		obs = noObserver{}
	}
	s := &Server{
		who: who, obs: obs, log: log, now: time.Now, door: door.New(door.Options{}),
		sources: newSources(time.Now, func(a netip.Addr) Share { return Share{Addr: a} }),
	}
	use, err := s.Prepare(o)
	if err != nil {
		return nil, err
	}
	use()
	return s, nil
}

// Shared has the bounds kept by whose share of the portal a source uses, instead of by
// its address alone. whose must not block. It is called before Run.
func (s *Server) Shared(whose func(netip.Addr) Share) { s.sources.whose = whose }

// Prepare makes ready what a new configuration needs: template, texts and
// certificate. Nothing changes before use is called, which cannot fail. The
// addresses to listen on are those of New.
func (s *Server) Prepare(o Options) (use func(), err error) {
	p, err := newPage(o)
	if err != nil {
		return nil, fmt.Errorf("portal: template: %w", err)
	}
	l := &live{opts: o, page: p}
	if o.HTTPS.Listen.IsValid() {
		u, err := url.Parse(o.HTTPS.URL)
		if err != nil {
			return nil, fmt.Errorf("portal: %w", err)
		}
		l.host = strings.TrimSuffix(strings.ToLower(u.Host), ":443")
		l.cert = &certificate{certFile: o.HTTPS.CertFile, keyFile: o.HTTPS.KeyFile, log: s.log, obs: s.obs, now: s.now}
		if err := l.cert.load(); err != nil {
			return nil, fmt.Errorf("portal: certificate: %w", err)
		}
	}
	return func() { s.live.Store(l) }, nil
}

// certificateFor implements tls.Config.GetCertificate.
func (s *Server) certificateFor(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.live.Load().cert.get(), nil
}

// request is one request as far as the portal cares.
type request struct {
	r       *http.Request
	visitor Visitor
	addr    netip.Addr
	tls     bool
	direct  bool   // for a page of ours by its own address, not for another site
	url     string // of the page
}

// handler returns the handler of one listener.
func (s *Server) handler(overTLS bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := s.live.Load()
		q := request{r: r, tls: overTLS, addr: addrOf(r)}
		q.visitor = s.who(q.addr)
		q.url, q.direct = l.place(r, overTLS)
		if !q.direct && q.visitor.State == StateActive {
			// Nothing leads him here, or only for an instant more. It may be the page of somebody who has his own
			// name lead here (DNS rebinding), and is to read no number.
			q.visitor.Subscriber = 0
		}
		code := s.answer(w, l, q)
		s.obs.PortalRequest(q.visitor.State, code)
		s.log.DebugContext(r.Context(), "portal request", "source", q.addr, "state", string(q.visitor.State), "code", code, "method", r.Method)
	})
}

// bounded answers no more requests than may be; on a connection that brings more it ends.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why := s.sources.mayAsk(addrOf(r), wantsPage(r)); why != "" {
			s.obs.PortalRefused(why)
			panic(http.ErrAbortHandler) // closes the connection without an answer, and logs nothing
		}
		next.ServeHTTP(w, r)
	})
}

// addrOf returns who asks.
func addrOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// wantsPage reports whether somebody looks: a browser that asks for a page, not for a part of one.
func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// place returns the page's own address, and whether it is what was asked for.
func (l *live) place(r *http.Request, overTLS bool) (page string, direct bool) {
	local := ""
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			local = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
		}
	}
	page = "http://" + local + "/"
	if l.host != "" {
		page = strings.TrimSuffix(l.opts.HTTPS.URL, "/") + "/"
	}
	return page, overTLS || local != "" && strings.TrimSuffix(r.Host, ":80") == strings.TrimSuffix(local, ":80")
}

// answer writes the whole answer and gives its status.
func (s *Server) answer(w http.ResponseWriter, l *live, q request) int {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set(StateHeader, string(q.visitor.State))
	if !q.direct {
		// A connection that was redirected stays so until it ends, also after
		// the subscriber has paid: the next request must open another one.
		h.Set("Connection", "close")
	}
	switch {
	case q.tls && q.r.URL.Path == APIPath:
		return api(w, q)
	case !q.direct && q.visitor.State != StateActive && isProbe(q.r):
		h.Set("Location", q.url)
		w.WriteHeader(http.StatusFound)
		return http.StatusFound
	}
	code := http.StatusOK
	switch {
	case q.direct:
	case q.visitor.State == StateActive:
		// The kernel redirects an instant longer than the state lasts.
		h.Set("Retry-After", "1")
		code = http.StatusServiceUnavailable
	default:
		code = http.StatusNetworkAuthenticationRequired // RFC 6585 section 6
	}
	s.write(w, l, q, code)
	return code
}

// captive reports whether something is blocked: nothing is for an address that
// no subscriber and no guest has.
func (v Visitor) captive() bool {
	return v.State == StatePaused || v.State == StateStopped || v.State == StateGuest
}

// write writes the page. Who asks more often than people do gets a short one.
func (s *Server) write(w http.ResponseWriter, l *live, q request, code int) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language")
	h.Set("X-Frame-Options", "DENY")
	lang := l.page.language(q.r.Header.Get("Accept-Language"))
	h.Set("Content-Language", lang)
	h.Set("Content-Security-Policy", l.page.policy)
	if q.r.Method == http.MethodHead {
		w.WriteHeader(code)
		return
	}
	body := []byte(nil)
	if s.sources.mayRender(q.addr, wantsPage(q.r)) {
		full, err := l.page.render(lang, q)
		if err != nil { // a template of the operator may fail with some data only
			s.log.DebugContext(q.r.Context(), "portal page cannot be rendered", "error", err)
		} else {
			body = full
		}
	}
	if body == nil {
		body = shortPage(q.url)
		h.Set("Connection", "close") // who asks so often asks as often as connections may come
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // the reader may have gone
}

// api answers by RFC 8908 section 5.
func api(w http.ResponseWriter, q request) int {
	if q.r.Method != http.MethodGet && q.r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return http.StatusMethodNotAllowed
	}
	body, _ := json.Marshal(struct { // two plain members: it cannot fail
		Captive bool   `json:"captive"`
		Portal  string `json:"user-portal-url,omitempty"`
	}{q.visitor.captive(), q.url})
	h := w.Header()
	h.Set("Cache-Control", "private, no-store")
	h.Set("Content-Type", "application/captive+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
	return http.StatusOK
}
