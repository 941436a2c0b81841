package portal

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// counts is an Observer.
type counts struct {
	mu       sync.Mutex
	requests map[string]int
	refused  map[Refusal]int
	expires  time.Time
}

func newCounts() *counts { return &counts{requests: map[string]int{}, refused: map[Refusal]int{}} }

func (c *counts) PortalRequest(s State, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[fmt.Sprintf("%s %d", s, code)]++
}
func (c *counts) PortalRefused(r Refusal)        { c.mu.Lock(); defer c.mu.Unlock(); c.refused[r]++ }
func (c *counts) PortalCertificate(at time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.expires = at }

func (c *counts) refusals(r Refusal) int { c.mu.Lock(); defer c.mu.Unlock(); return c.refused[r] }

// who knows five addresses.
func who(a netip.Addr) Visitor {
	switch a.String() {
	case "198.51.100.1":
		return Visitor{StatePaused, 1001}
	case "198.51.100.2":
		return Visitor{StateStopped, 1002}
	case "198.51.100.3":
		return Visitor{State: StateGuest}
	case "198.51.100.4":
		return Visitor{StateActive, 1004}
	default:
		return Visitor{State: StateUnknown}
	}
}

func testOptions() Options {
	return Options{
		Languages: Languages(), Provider: "Example & Sons", Contact: "+1 202 555 0143\nMon-Fri 9-18",
		PayURL: "https://pay.example.net/?account={customer}&from=portal",
	}
}

func newServer(t *testing.T, o Options) (*Server, *counts) {
	t.Helper()
	c := newCounts()
	s, err := New(o, who, c, quiet())
	require.NoError(t, err)
	return s, c
}

// ask makes one request as the connection of a listener at 192.0.2.2:8080 would.
func ask(s *Server, overTLS bool, r *http.Request, from string) *httptest.ResponseRecorder {
	r.RemoteAddr = from + ":40000"
	local, _ := net.ResolveTCPAddr("tcp", "192.0.2.2:8080")
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	w := httptest.NewRecorder()
	s.handler(overTLS).ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	const paused, stopped, guest, active, unknown = "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "203.0.113.99"
	for name, tt := range map[string]struct {
		from, method, url string
		header            http.Header
		code              int
		state             State
		want              []string // in the body
		not               []string
		location          string
	}{
		"paused": {from: paused, url: "http://any.example.org/", code: 511, state: StatePaused,
			want: []string{"Internet access is paused", ">1001<", "198.51.100.1", "Pay now", `href="https://pay.example.net/?account=1001&amp;from=portal"`, "Example &amp; Sons", "202 555 0143"}},
		"stopped":                              {from: stopped, url: "http://any.example.org/", code: 511, state: StateStopped, want: []string{"is switched off", ">1002<"}, not: []string{"Pay now"}},
		"guest":                                {from: guest, url: "http://any.example.org/", code: 511, state: StateGuest, want: []string{"not registered", "198.51.100.3"}, not: []string{"Customer number", "Pay now"}},
		"nobody's address":                     {from: unknown, url: "http://any.example.org/", code: 511, state: StateUnknown, want: []string{"No contract is known"}, not: []string{"Customer number", "Pay now"}},
		"active, by the way":                   {from: active, url: "http://any.example.org/", code: 503, state: StateActive, want: []string{"You are online"}, not: []string{"Pay now", "1004"}},
		"active, a name that leads here":       {from: active, url: "http://evil.example:8080/", code: 503, state: StateActive, not: []string{"1004"}},
		"active, our own":                      {from: active, url: "http://192.0.2.2:8080/", code: 200, state: StateActive, want: []string{"You are online", "1004"}},
		"paused, our own":                      {from: paused, url: "http://192.0.2.2:8080/", code: 200, state: StatePaused, want: []string{"is paused"}},
		"our address, port of the redirection": {from: paused, url: "http://192.0.2.2/", code: 511, state: StatePaused},
		"post":                                 {from: paused, method: "POST", url: "http://any.example.org/login", code: 511, state: StatePaused, want: []string{"is paused"}},
		"delete":                               {from: paused, method: "DELETE", url: "http://any.example.org/x", code: 511, state: StatePaused},
		"invented method":                      {from: paused, method: "BREW", url: "http://any.example.org/pot", code: 511, state: StatePaused},
		"head":                                 {from: paused, method: "HEAD", url: "http://any.example.org/", code: 511, state: StatePaused, not: []string{"<"}},
		"deep path and query":                  {from: paused, url: "http://any.example.org/a/../b//c?x=1&y=%00", code: 511, state: StatePaused},
		"Ukrainian":                            {from: paused, url: "http://any.example.org/", header: http.Header{"Accept-Language": {"uk-UA,uk;q=0.9,en;q=0.8"}}, code: 511, state: StatePaused, want: []string{`lang="uk"`, "призупинено"}},
		"Russian":                              {from: guest, url: "http://any.example.org/", header: http.Header{"Accept-Language": {"ru"}}, code: 511, state: StateGuest, want: []string{`lang="ru"`, "не зарегистрировано"}},
		"language we lack":                     {from: paused, url: "http://any.example.org/", header: http.Header{"Accept-Language": {"fi"}}, code: 511, state: StatePaused, want: []string{`lang="en"`}},
		"Android":                              {from: paused, url: "http://connectivitycheck.gstatic.com/generate_204", code: 302, state: StatePaused, location: "http://192.0.2.2:8080/"},
		"Apple":                                {from: guest, url: "http://captive.apple.com/hotspot-detect.html", code: 302, state: StateGuest, location: "http://192.0.2.2:8080/"},
		"Windows":                              {from: paused, url: "http://www.msftconnecttest.com/connecttest.txt", code: 302, state: StatePaused, location: "http://192.0.2.2:8080/"},
		"Firefox":                              {from: paused, url: "http://detectportal.firefox.com/canonical.html", code: 302, state: StatePaused, location: "http://192.0.2.2:8080/"},
		"probe while active":                   {from: active, url: "http://connectivitycheck.gstatic.com/generate_204", code: 503, state: StateActive},
		"probe by post":                        {from: paused, method: "POST", url: "http://connectivitycheck.gstatic.com/generate_204", code: 511, state: StatePaused},
		"API by plain HTTP":                    {from: paused, url: "http://any.example.org" + APIPath, code: 511, state: StatePaused, want: []string{"is paused"}},
		"markup in the host":                   {from: paused, url: "http://any.example.org/<script>alert(1)</script>", code: 511, state: StatePaused, not: []string{"alert(1)"}},
		"forwarded for others":                 {from: unknown, url: "http://any.example.org/", header: http.Header{"X-Forwarded-For": {paused}, "Forwarded": {"for=" + paused}}, code: 511, state: StateUnknown, not: []string{"1001"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t, testOptions())
			r := httptest.NewRequest(cmpOr(tt.method, "GET"), tt.url, nil)
			for k, v := range tt.header {
				r.Header[k] = v
			}
			w := ask(s, false, r, tt.from)
			require.Equal(t, tt.code, w.Code)
			require.Equal(t, string(tt.state), w.Header().Get(StateHeader))
			require.Equal(t, map[string]int{fmt.Sprintf("%s %d", tt.state, tt.code): 1}, c.requests)
			require.Equal(t, tt.location, w.Header().Get("Location"))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
			if strings.Contains(tt.url, "192.0.2.2:8080") {
				require.Empty(t, w.Header().Get("Connection"))
			} else {
				require.Equal(t, "close", w.Header().Get("Connection"), "the next request has to find the way to the real site")
			}
			for _, text := range tt.want {
				require.Contains(t, w.Body.String(), text)
			}
			for _, text := range tt.not {
				require.NotContains(t, w.Body.String(), text)
			}
			require.NotContains(t, w.Body.String(), "any.example.org", "nothing of what was asked for is repeated")
		})
	}
}

func cmpOr(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func TestHostileHosts(t *testing.T) {
	s, _ := newServer(t, testOptions())
	for _, host := range []string{"", "x", `"><script>alert(1)</script>`, "192.0.2.2:8080.evil.example", "a\x00b", strings.Repeat("h", 4000), "[::1]:8080", "192.0.2.2:08080"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := ask(s, false, r, "198.51.100.1")
		require.Equal(t, 511, w.Code, "%q", host)
		require.NotContains(t, w.Body.String(), "alert(1)")
	}
}

// The page holds everything that it needs, and its policy allows nothing else.
func TestThePageIsWhole(t *testing.T) {
	s, _ := newServer(t, testOptions())
	w := ask(s, false, httptest.NewRequest("GET", "http://any.example.org/", nil), "198.51.100.1")
	body, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	require.Contains(t, body, "<style>"+pageStyle+"</style>")
	require.Contains(t, body, "<script>"+pageScript+"</script>")
	require.Contains(t, policy, "default-src 'none'")
	require.Contains(t, policy, hashOf(pageStyle))
	require.Contains(t, policy, hashOf(pageScript))
	require.NotContains(t, policy, "unsafe")
	for _, foreign := range []string{"src=", "@import", "url(", "<link"} {
		require.NotContains(t, body, foreign)
	}
	require.Less(t, len(body), 8<<10, "it fits into the first flight of TCP segments")
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, "Accept-Language", w.Header().Get("Vary"))
	require.Equal(t, "en", w.Header().Get("Content-Language"))
}

func TestAPI(t *testing.T) {
	o := testOptions()
	s, _ := newServer(t, o)
	s.live.Load().host, s.live.Load().opts.HTTPS.URL = "portal.example.net:8443", "https://portal.example.net:8443"
	for from, captive := range map[string]bool{"198.51.100.1": true, "198.51.100.2": true, "198.51.100.3": true, "198.51.100.4": false, "203.0.113.99": false} {
		w := ask(s, true, httptest.NewRequest("GET", "https://portal.example.net:8443"+APIPath, nil), from)
		require.Equal(t, 200, w.Code)
		require.Equal(t, "application/captive+json", w.Header().Get("Content-Type"))
		require.Equal(t, "private, no-store", w.Header().Get("Cache-Control"), "RFC 8908 section 4")
		var got map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		require.Equal(t, map[string]any{"captive": captive, "user-portal-url": "https://portal.example.net:8443/"}, got, from)
	}
	w := ask(s, true, httptest.NewRequest("HEAD", "https://portal.example.net"+APIPath, nil), "198.51.100.1")
	require.Equal(t, 200, w.Code)
	require.Empty(t, w.Body.String())
	w = ask(s, true, httptest.NewRequest("POST", "https://portal.example.net"+APIPath, nil), "198.51.100.1")
	require.Equal(t, 405, w.Code)
	require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	w = ask(s, true, httptest.NewRequest("GET", "https://portal.example.net/", nil), "198.51.100.1")
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), "is paused")
	w = ask(s, false, httptest.NewRequest("GET", "http://connectivitycheck.gstatic.com/generate_204", nil), "198.51.100.1")
	require.Equal(t, "https://portal.example.net:8443/", w.Header().Get("Location"), "with HTTPS the page is there")
}

func TestTemplates(t *testing.T) {
	for name, tt := range map[string]struct{ text, wantErr string }{
		"plain":          {"<p>{{.State}} {{.Language}} {{.Customer}} {{.Address}} {{.Text.Title}}", ""},
		"every field":    {`{{.Provider}} {{.PayURL}} {{.Contact}} {{.Portal}} {{.Style}} {{.Script}} {{.Text.Lead}}{{.Text.Pay}}{{.Text.Back}}{{.Text.Customer}}{{.Text.Address}}{{.Text.Contact}}{{.Text.Secure}}`, ""},
		"empty":          {" \n", "the template is empty"},
		"open action":    {"<p>\n{{.State", "line 2: unclosed action"},
		"unknown field":  {"<p>\n<b>{{.Balance}}</b>", `line 2:5: executing "template" at <.Balance>: can't evaluate field Balance`},
		"open attribute": {`<a href="{{.PayURL}}`, "ends in a non-text context"},
		"unknown func":   {"{{shout .State}}", `line 1: function "shout" not defined`},
		"far too large":  {`{{range 40}}{{range 40}}{{range 40}}{{range 40}}wallpaper{{end}}{{end}}{{end}}{{end}}`, "larger than 1048576 bytes"},
		"fails for some": {`{{if eq .State "guest"}}{{index .Address 99}}{{end}}`, "index out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckTemplate(tt.text, []string{"en", "de"})
			if tt.wantErr == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.wantErr)
			o := testOptions()
			o.Template = tt.text
			if strings.TrimSpace(tt.text) != "" {
				_, err = New(o, who, nil, quiet())
				require.ErrorContains(t, err, tt.wantErr)
			}
		})
	}
}

// A page of one's own: it may have its own style, in its own language, and what
// it shows is escaped for the place where it stands.
func TestAPageOfOnesOwn(t *testing.T) {
	o := testOptions()
	o.Languages = []string{"de", "en"}
	o.Provider = `<img src=x onerror=alert(1)>`
	o.PayURL = "https://pay.example.net/?a=\"><script>"
	o.Template = `<title>{{if eq .Language "de"}}Pausiert{{else}}{{.Text.Title}}{{end}}</title><style>b{color:red}</style><b>{{.Provider}}</b><a href="{{.PayURL}}">x</a>{{.Script}}`
	s, _ := newServer(t, o)
	w := ask(s, false, httptest.NewRequest("GET", "http://any.example.org/", nil), "198.51.100.1")
	require.Contains(t, w.Body.String(), "<title>Pausiert</title>")
	require.NotContains(t, w.Body.String(), "<img")
	require.NotContains(t, w.Body.String(), `"><script>`)
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "style-src 'unsafe-inline'")
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "script-src "+hashOf(pageScript))

	bad := o
	bad.Template = "{{.No}}"
	_, err := s.Prepare(bad)
	require.Error(t, err)
	w = ask(s, false, httptest.NewRequest("GET", "http://any.example.org/", nil), "198.51.100.1")
	require.Contains(t, w.Body.String(), "Pausiert", "a broken template leaves the old page")
}

func TestChooseLanguage(t *testing.T) {
	for header, want := range map[string]string{
		"":                                 "en",
		"uk":                               "uk",
		"UK-ua":                            "uk",
		"fr, ru;q=0.5":                     "ru",
		"ru;q=0.5, uk;q=0.9":               "uk",
		"ru;q=0.9, uk;q=0.9":               "ru",
		"uk;q=0":                           "en",
		"uk;q=2":                           "en",
		"uk;q=NaN":                         "en",
		"uk; q = 0.3":                      "uk",
		"*":                                "en",
		"fr;q=0.9,*;q=0.5,uk;q=0.4":        "en",
		",,,;;;uk":                         "en",
		"ukr":                              "en",
		strings.Repeat("fr,", 20) + "uk":   "en",
		"uk\x00":                           "en",
		"de-DE,de;q=0.9,uk;q=0.8,en;q=0.7": "uk",
	} {
		assert.Equal(t, want, chooseLanguage(header, []string{"en", "uk", "ru"}), "%q", header)
	}
	assert.Equal(t, "uk", chooseLanguage("fr", []string{"uk", "en"}), "the first offered")
}

func TestTextsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, lang := range Languages() {
		for _, st := range States() {
			x := textsFor(lang, st)
			for field, text := range map[string]string{"title": x.Title, "lead": x.Lead, "pay": x.Pay, "customer": x.Customer, "address": x.Address, "contact": x.Contact} {
				require.NotEmpty(t, text, "%s %s %s", lang, st, field)
			}
			require.Equal(t, st == StateActive, x.Back == "", "there is nothing to wait for")
			require.False(t, seen[x.Title+x.Lead], "%s %s has the text of another", lang, st)
			seen[x.Title+x.Lead] = true
		}
	}
	require.Equal(t, textsFor("en", StatePaused), textsFor("de", StatePaused))
}

// A program that asks wildly gets short answers with the right status, and the
// browser of the same subscriber still gets its page.
func TestAWildProgramDoesNotStarveTheBrowser(t *testing.T) {
	s, _ := newServer(t, testOptions())
	whole := 0
	for range 5000 {
		w := ask(s, false, httptest.NewRequest("GET", "http://telemetry.example.org/x", nil), "198.51.100.1")
		require.Equal(t, 511, w.Code)
		if w.Body.Len() > 1000 {
			whole++
		} else {
			require.Contains(t, w.Body.String(), "http://192.0.2.2:8080/")
		}
	}
	require.LessOrEqual(t, whole, pageBurst+10*pageRate)
	r := httptest.NewRequest("GET", "http://any.example.org/", nil)
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	require.Contains(t, ask(s, false, r, "198.51.100.1").Body.String(), "is paused")
	require.Contains(t, ask(s, false, httptest.NewRequest("GET", "http://any.example.org/", nil), "198.51.100.2").Body.String(), "is switched off", "others are not concerned")
}

// byAddr is a network in which everybody has one address, by right.
func byAddr(a netip.Addr) Share { return Share{Addr: a, Vouched: true} }

func TestSourcesAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	vouched := false
	s := newSources(func() time.Time { return now }, func(a netip.Addr) Share { return Share{Addr: a, Vouched: vouched} })
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxSources + 1000 {
		if src, why := s.admit(addr(i)); why == "" {
			s.release(src)
		}
	}
	require.Len(t, s.known, maxSources)
	require.Zero(t, s.conns)
	vouched = true
	src, why := s.admit(addr(8_000_000))
	require.Empty(t, why)
	require.Equal(t, addr(8_000_000), src.key.Addr, "for whom somebody vouches there is room")
	s.release(src)
	now = now.Add(2 * forgetAfter)
	src, why = s.admit(addr(9_000_000))
	require.Empty(t, why)
	require.Len(t, s.known, 1, "who is gone is forgotten when room is needed")
	s.release(src)

	var held []*source
	for i := range maxPerSource {
		src, why := s.admit(addr(1))
		require.Empty(t, why, i)
		held = append(held, src)
	}
	_, why = s.admit(addr(1))
	require.Equal(t, RefusedSource, why)
	_, why = s.admit(addr(2))
	require.Empty(t, why)
	for _, src := range held {
		s.release(src)
	}
	for why == "" {
		if src, why = s.admit(addr(1)); why == "" {
			s.release(src)
		}
	}
	require.Equal(t, RefusedRate, why)

	for i := 0; ; i++ {
		if _, why = s.admit(addr(100 + i%1000)); why != "" {
			break
		}
	}
	require.Equal(t, RefusedTotal, why)
	require.Equal(t, maxConns, s.conns)
}

// A few that hold all the connections they can leave room for everybody else.
func TestAFewCannotTakeAll(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := newSources(func() time.Time { return now }, byAddr)
	for attacker := range byte(64) {
		for range 2 * maxPerSource {
			_, _ = s.admit(netip.AddrFrom4([4]byte{198, 51, 100, attacker}))
		}
	}
	require.Less(t, s.conns, maxConns, "64 of them")
	src, why := s.admit(netip.MustParseAddr("203.0.113.1"))
	require.Empty(t, why)
	require.NotNil(t, src)
}

// listenOn serves on a loopback port until the test ends and gives its address.
func listenOn(t *testing.T, s *Server, overTLS bool) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, l, overTLS) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return l.Addr().String()
}

// serveOn serves a handler on a loopback port until the test ends.
func serveOn(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestConnectionsAreBounded(t *testing.T) {
	s, c := newServer(t, testOptions())
	addr := listenOn(t, s, false)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxPerSource {
		conn, err := net.Dial("tcp4", addr)
		require.NoError(t, err)
		conns = append(conns, conn)
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\n") // and never more
		require.NoError(t, err)
	}
	if extra, err := net.Dial("tcp4", addr); err == nil { // else the reset was faster
		defer extra.Close()
		_ = extra.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = extra.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is closed at once")
	}
	require.Eventually(t, func() bool { return c.refusals(RefusedSource) == 1 }, 5*time.Second, 5*time.Millisecond)

	conns[0].Close()
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + addr + "/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	}, 5*time.Second, 20*time.Millisecond, "one that ends makes room")
}

// Whom the door refuses is reset, too: nothing of him lingers here.
func TestTheDoorResets(t *testing.T) {
	s, _ := newServer(t, testOptions())
	s.Through(door.New(door.Options{Total: 10, Allow: func(netip.Addr) bool { return false }}))
	conn, err := net.Dial("tcp4", listenOn(t, s, false)) // the reset may come before this returns
	if err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

func TestRawRequests(t *testing.T) {
	s, _ := newServer(t, testOptions())
	addr := listenOn(t, s, false)
	for name, tt := range map[string]struct{ send, want string }{
		"HTTP/1.0 without a host": {"GET /x HTTP/1.0\r\n\r\n", "511 "},
		"huge header":             {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 20<<10) + "\r\n\r\n", "431 "},
		"proxy form":              {"GET http://any.example.org/x HTTP/1.1\r\nHost: any.example.org\r\n\r\n", "511 "},
		"connect":                 {"CONNECT any.example.org:443 HTTP/1.1\r\nHost: any.example.org:443\r\n\r\n", "511 "},
		"options":                 {"OPTIONS * HTTP/1.1\r\nHost: any.example.org\r\n\r\n", "511 "},
		"body that never comes":   {"POST / HTTP/1.1\r\nHost: any.example.org\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", "511 "},
		"TLS to the plain port":   {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400 "},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp4", addr)
			require.NoError(t, err)
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = io.WriteString(conn, tt.send)
			require.NoError(t, err)
			got := make([]byte, 13)
			_, err = io.ReadFull(conn, got)
			require.NoError(t, err)
			require.Contains(t, string(got), tt.want)
		})
	}
}

// pair writes a new certificate for 127.0.0.1 and its key.
func pair(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "portal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Duration(serial) * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func TestCertificateIsRenewedWithoutAReload(t *testing.T) {
	dir := t.TempDir()
	first := pair(t, dir, 100)
	o := testOptions()
	o.HTTPS = HTTPS{Listen: netip.MustParseAddrPort("127.0.0.1:8443"), URL: "https://127.0.0.1:8443", CertFile: filepath.Join(dir, "crt"), KeyFile: filepath.Join(dir, "key")}
	c := newCounts()
	s, err := New(o, who, c, quiet())
	require.NoError(t, err)
	require.Equal(t, first.NotAfter.Unix(), c.expires.Unix())
	now := time.Now()
	s.live.Load().cert.now = func() time.Time { return now }
	addr := listenOn(t, s, true)
	serial := func(roots ...*x509.Certificate) int64 {
		pool := x509.NewCertPool()
		for _, r := range roots {
			pool.AddCert(r)
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + addr + APIPath)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 100, serial(first))

	second := pair(t, dir, 200)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "crt"), now.Add(time.Hour), now.Add(time.Hour)))
	require.EqualValues(t, 100, serial(first), "not looked at yet")
	now = now.Add(certCheck)
	require.EqualValues(t, 200, serial(second))
	require.Equal(t, second.NotAfter.Unix(), c.expires.Unix())

	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte("half a ke"), 0o600))
	now = now.Add(certCheck)
	require.EqualValues(t, 200, serial(second), "what cannot be used changes nothing")
	require.NoError(t, os.Remove(filepath.Join(dir, "crt")))
	now = now.Add(certCheck)
	require.EqualValues(t, 200, serial(second))
	_, err = s.Prepare(o)
	require.ErrorContains(t, err, "portal: certificate: ")
}

// An address that the host does not have is no obstacle: it may come.
func TestListenOnAnAddressToCome(t *testing.T) {
	l, err := listenAt(t.Context(), netip.MustParseAddrPort("192.0.2.77:0"))
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// 0.0.0.0 is every IPv4 address of the host, and none of IPv6.
func TestListenOnIPv4Alone(t *testing.T) {
	l, err := listenAt(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"))
	require.NoError(t, err)
	defer l.Close()
	_, err = net.Dial("tcp6", fmt.Sprintf("[::1]:%d", l.Addr().(*net.TCPAddr).Port))
	require.Error(t, err)
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port))
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// A busy address keeps Run trying and harms nobody.
func TestRunTriesAgain(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	addr := netip.MustParseAddrPort(l.Addr().String())
	o := testOptions()
	o.Listen = addr
	s, _ := newServer(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	_, err = net.DialTimeout("tcp4", addr.String(), time.Second)
	require.NoError(t, err, "the other one has it")
	require.NoError(t, l.Close())
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + addr.String() + "/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.Header.Get(StateHeader) == "unknown"
	}, 10*time.Second, 50*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

// FuzzRequest: whatever a request holds, the answer has a documented status and
// repeats nothing of it.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/", "any.example.org", "uk-UA,uk;q=0.9", "text/html", false)
	f.Add("HEAD", "/generate_204", "192.0.2.2:8080", "*;q=", "", true)
	f.Add("POST", APIPath, "[::", ";;;,q=", "*/*", true)
	s, err := New(testOptions(), who, nil, quiet())
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, method, path, host, languages, accept string, overTLS bool) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL.Path, r.Host = method, path, host
		r.Header.Set("Accept-Language", languages)
		r.Header.Set("Accept", accept)
		w := ask(s, overTLS, r, "198.51.100.1")
		require.Contains(t, Codes(), w.Code)
		require.Contains(t, Languages(), cmpOr(w.Header().Get("Content-Language"), "en"))
		if len(host) > 40 {
			require.NotContains(t, w.Body.String(), host)
		}
	})
}

func BenchmarkPage(b *testing.B) {
	s, err := New(testOptions(), who, nil, quiet())
	require.NoError(b, err)
	q := request{visitor: Visitor{StatePaused, 1001}, addr: netip.MustParseAddr("198.51.100.1"), url: "http://192.0.2.2:8080/"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.live.Load().page.render("uk", q); err != nil {
			b.Fatal(err)
		}
	}
}
