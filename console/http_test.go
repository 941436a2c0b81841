package console

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"
	"golang.org/x/net/html"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
)

func get(t *testing.T, w *world, path string) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	NewHTTP(w.Deps, w.reg, quiet()).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	return rec
}

func TestReadiness(t *testing.T) {
	tests := map[string]struct {
		arrange func(w *world)
		want    []string
	}{
		"ready":       {func(*world) {}, []string{}},
		"no snapshot": {func(w *world) { w.syncer.snapshot = nil }, []string{"no snapshot yet: the ERP has not answered and none is stored"}},
		"no snapshot, an answer that cannot be used": {func(w *world) { w.syncer.snapshot, w.syncer.status.LastError = nil, "read bindings: permission denied" },
			[]string{"no snapshot yet: none is stored, and the ERP could not be read: read bindings: permission denied"}},
		"no snapshot, an answer that is held": {func(w *world) {
			w.syncer.snapshot, w.syncer.guard.Held = nil, &syncer.HeldStatus{Decision: syncer.GuardDecision{Reason: "no binding in it"}}
		}, []string{"no snapshot yet: the guard holds what the ERP answers (no binding in it), and none is stored"}},
		"not bound": {func(w *world) { w.dhcp.addr = netip.AddrPort{} }, []string{"the DHCP socket is not bound"}},
		"no ACL":    {func(w *world) { w.enforcer.status.Ready = false }, []string{"the ACL has not been applied to the kernel yet"}},
		"parts off": {func(w *world) { w.DHCP, w.Enforcer = nil, nil }, []string{}},
		"nothing yet": {func(w *world) { w.syncer.snapshot, w.dhcp.addr, w.enforcer.status.Ready = nil, netip.AddrPort{}, false }, []string{
			"no snapshot yet: the ERP has not answered and none is stored", "the DHCP socket is not bound", "the ACL has not been applied to the kernel yet",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.arrange(w)
			rec := get(t, w, "/readyz")
			var r Readiness
			require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &r))
			assert.Equal(t, tt.want, r.Reasons)
			assert.Equal(t, len(tt.want) == 0, r.Ready)
			want := http.StatusOK
			if len(tt.want) > 0 {
				want = http.StatusServiceUnavailable
			}
			assert.Equal(t, want, rec.Code)
			assert.Equal(t, http.StatusOK, get(t, w, "/healthz").Code, "alive, whether ready or not")
		})
	}
}

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	assert.Contains(t, get(t, w, "/metrics").Body.String(), "\nusher_dhcp_packets_total{")
	var st Status
	require.NoError(t, json.Unmarshal(get(t, w, "/api/status").Body.Bytes(), &st))
	assert.Equal(t, 5, st.Sync.Counts.Bindings)
	assert.Equal(t, http.StatusNotFound, get(t, w, "/v1/guard").Code, "nothing that changes is reachable here")

	h := NewHTTP(w.Deps, w.reg, quiet())
	for _, path := range []string{"/", "/metrics", "/api/status", "/v1/guard/accept", "/v1/customer/1001/state"} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("POST", path, strings.NewReader(`{"state":"stop"}`)))
		assert.Contains(t, []int{http.StatusMethodNotAllowed, http.StatusNotFound}, rec.Code, path)
	}
	assert.Empty(t, w.erp.calls)
	assert.Empty(t, w.syncer.decided)
}

// busyWorld has something in every part of the page.
func busyWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.packet(dhcpd.Event{
		Time: w.now.Add(-time.Second), Outcome: outcome.UnknownPort, MAC: mac(t, "00:00:5e:00:53:99"), Device: 7, Port: 24,
		GIAddr: ip("192.0.2.70"), Detail: "<script>alert(1)</script>",
	})
	w.packet(dhcpd.Event{Time: w.now, Outcome: outcome.Offer, MAC: mac(t, "00:00:5e:00:53:11"), YourIP: ip("198.51.100.11"), Subscriber: 1001})
	w.syncer.guard.Held = &syncer.HeldStatus{Since: w.now.Add(-time.Hour), Seen: 3, Decision: syncer.GuardDecision{
		Reason: "half of the subscribers would lose their addresses", Removed: syncer.GuardCount{Count: 52000, Share: .52, Limit: .1}, Opened: syncer.GuardCount{Rejected: 7},
	}}
	w.syncer.status.Problems = map[provision.ProblemKind]int{provision.ProblemDuplicateIP: 1234, provision.ProblemBadRow: 1, provision.ProblemNoAddress: 0}
	w.syncer.status.ProblemsList = []provision.Problem{
		{Kind: provision.ProblemBadRow, Subscriber: 77, Detail: `ip "<b>x</b>"`},
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.61"), Detail: "one"},
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.62"), Detail: "two"},
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.63"), Detail: "three"},
		{Kind: provision.ProblemDuplicateIP, IP: ip("198.51.100.64"), Detail: "four"},
	}
	w.syncer.status.LastError = "userside: customer.get_data: permission denied"
	w.syncer.status.LastErrorAt = w.now.Add(-5 * time.Second)
	w.syncer.status.ConsecutiveFailures = 2
	w.enforcer.status.LastError = "no buffer space"
	w.enforcer.status.Pending = 4
	w.Leases = fakeLeases{{IP: ip("198.51.100.11")}}
	w.Outbox = fakeOutbox{Depth: 3, OldestAt: w.now.Add(-time.Minute), Refused: 1, RefusedList: []outbox.Refusal{
		{MACReport: provision.MACReport{IP: ip("198.51.100.13"), MAC: mac(t, "00:00:5e:00:53:13")}, RefusedAt: w.now, Reason: "address of nobody"},
	}}
	w.Config = func() ConfigStatus { return ConfigStatus{LastError: "usher.yaml:3:5: acl.enabled: want true or false"} }
	return w
}

func TestPage(t *testing.T) {
	w := busyWorld(t)
	rec := get(t, w, "/")
	require.Equal(t, http.StatusOK, rec.Code)
	if path := os.Getenv("USHER_TEST_PAGE"); path != "" { // to look at it
		require.NoError(t, os.WriteFile(path, rec.Body.Bytes(), 0o644))
	}
	text := visible(t, rec.Body.String())
	for _, want := range []string{
		"ready", "source direct", "age 1m 0s", "active 2 paused, stopped 1, 1 switches 1",
		"The guard holds an answer of the ERP", "half of the subscribers would lose their addresses", "52,000 subscribers (52.0%, limit 10.0%)",
		"seen 3 times", "and 7 that an operator rejected", "usher guard accept",
		"The ERP could not be read", "permission denied", "5s ago; 2 times in a row",
		"The newest configuration was not taken", "acl.enabled: want true or false",
		"duplicate_ip 1,234 198.51.100.61 one 198.51.100.62 two 198.51.100.63 three", "customer 77",
		"unknown_port", outcome.UnknownPort.Explain(), "Link the subscriber with this port", "00:00:5e:00:53:99", "relay 192.0.2.70", "sw-west-1 port 24",
		"wanted 1 stopped, 1 paused", "4 changes", "no buffer space", "1 bound",
		"3 waiting", "address of nobody",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "four", "only the first ones")
	assert.NotContains(t, text, "no_address", "kinds that did not occur")
	assert.Less(t, strings.Index(text, "duplicate_ip 1,234"), strings.Index(text, "bad_row 1"), "the most first")
}

// TestPageIsSafe: what came over the wire or from the ERP is text, and the page
// loads nothing.
func TestPageIsSafe(t *testing.T) {
	rec := get(t, busyWorld(t), "/")
	body := rec.Body.String()
	assert.NotContains(t, body, "<script")
	assert.NotContains(t, body, "<b>x</b>")
	assert.Contains(t, body, "&lt;script&gt;")
	assert.NotRegexp(t, regexp.MustCompile(`(?i)(src|href)="?(https?:)?//|url\(|@import| style=| on[a-z]+=`), body)
	policy := rec.Header().Get("Content-Security-Policy")
	assert.Regexp(t, regexp.MustCompile(`^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$`), policy)
	assert.Contains(t, body, "<style>"+pageStyle+"</style>", "the hash of the policy is of this very text")
	assert.Equal(t, "nosniff", rec.Header().Get("X-Content-Type-Options"))
	assert.Equal(t, "no-store", rec.Header().Get("Cache-Control"))
}

func TestPageAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.syncer.snapshot = nil
	w.syncer.status = syncer.Status{}
	w.dhcp.addr = netip.AddrPort{}
	rec := get(t, w, "/")
	require.Equal(t, http.StatusOK, rec.Code)
	text := visible(t, rec.Body.String())
	assert.Contains(t, text, "not ready")
	assert.Contains(t, text, "the DHCP socket is not bound")
	assert.Contains(t, text, "None since the start")

	bare := &world{Deps: Deps{Syncer: w.syncer}, reg: prometheus.NewRegistry()}
	assert.Equal(t, http.StatusOK, get(t, bare, "/").Code, "with every part off")
}

// visible is the page's text with single blanks; it fails for broken HTML.
func visible(t *testing.T, page string) string {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	void := map[string]bool{"meta": true, "br": true}
	var open, words []string
	for {
		switch z.Next() {
		case html.ErrorToken:
			require.Empty(t, open, "elements left open")
			return strings.Join(words, " ")
		case html.StartTagToken:
			if name, _ := z.TagName(); !void[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			require.NotEmpty(t, open, "</%s>", name)
			require.Equal(t, open[len(open)-1], string(name), "after %s", words[max(len(words)-5, 0):])
			open = open[:len(open)-1]
		case html.TextToken:
			if len(open) > 0 && open[len(open)-1] != "style" {
				words = append(words, strings.Fields(html.UnescapeString(string(z.Text())))...)
			}
		}
	}
}

func TestServeHTTP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	w := newWorld(t)
	go func() {
		done <- ServeHTTP(ctx, netip.MustParseAddrPort("127.0.0.1:0"), NewHTTP(w.Deps, w.reg, quiet()), door.New(door.Options{}), quiet(), func(a net.Addr) { bound <- a })
	}()
	addr := <-bound
	resp, err := http.Get("http://" + addr.String() + "/healthz")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	cancel()
	require.NoError(t, <-done)
}

// TestServeHTTPBusy: a busy address is waited for, it ends nothing.
func TestServeHTTPBusy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	addr := netip.MustParseAddrPort(l.Addr().String())
	synctest.Test(t, func(t *testing.T) {
		var failures atomic.Int32
		log := slog.New(countingHandler{&failures})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- ServeHTTP(ctx, addr, http.NotFoundHandler(), door.New(door.Options{}), log, func(net.Addr) { t.Error("bound") })
		}()
		time.Sleep(10 * time.Minute) // of the bubble's clock
		synctest.Wait()
		assert.InDelta(t, 15, failures.Load(), 3, "1 s, 2 s, 4 s ... then once a minute")
		cancel()
		require.NoError(t, <-done)
	})
}

// slowLeases are counted until the test lets them.
type slowLeases struct {
	fakeLeases
	counting *atomic.Int32
	more     chan struct{}
}

func (l slowLeases) Counts(time.Time) lease.Counts {
	l.counting.Add(1)
	<-l.more
	return lease.Counts{}
}

// What is dear to make is made for a few at a time, whoever asks for it how often.
func TestDearAnswersAreMadeInTurn(t *testing.T) {
	for _, path := range []string{"/", "/api/status"} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				leases := slowLeases{counting: new(atomic.Int32), more: make(chan struct{})}
				w.Leases = leases
				h := NewHTTP(w.Deps, w.reg, quiet())
				codes := make(chan int, 16)
				for range cap(codes) {
					go func() {
						rec := httptest.NewRecorder()
						h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
						codes <- rec.Code
					}()
				}
				synctest.Wait()
				require.EqualValues(t, atOnce, leases.counting.Load())
				close(leases.more)
				for range cap(codes) {
					require.Equal(t, http.StatusOK, <-codes)
				}
			})
		})
	}
}

type countingHandler struct{ n *atomic.Int32 }

func (countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h countingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.n.Add(1)
	}
	return nil
}
func (h countingHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h countingHandler) WithGroup(string) slog.Handler      { return h }

func TestFormats(t *testing.T) {
	for in, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		assert.Equal(t, want, number(in))
	}
	for in, want := range map[time.Duration]string{
		-time.Second: "0s", 3 * time.Second: "3s", 90 * time.Second: "1m 30s", 5*time.Hour + 10*time.Minute: "5h 10m", 52 * time.Hour: "2d 4h",
	} {
		assert.Equal(t, want, brief(in))
	}
	for in, want := range map[float64]string{0: "0s", 0.000015: "15µs", 0.0123: "12ms", 2.34: "2.3s", 90: "1m 30s"} {
		assert.Equal(t, want, seconds(in))
	}
	now := testStart
	assert.Equal(t, "never", ago(time.Time{}, now))
	assert.Equal(t, "in 5s", ago(now.Add(5*time.Second), now))
	assert.Equal(t, "5s ago", ago(now.Add(-5*time.Second), now))
	assert.Equal(t, "2 addresses", count(2, "address"))
	assert.Equal(t, errQuery.Error(), errors.Unwrap(func() error { _, err := parseSubject("x"); return err }()).Error())
}
