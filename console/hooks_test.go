package console

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/provision"
)

const hookSecret = "0123456789abcdef0123456789abcdef"

// exampleSignature is made by: printf %s '1700000000.{"customer_id":1001}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
const exampleSignature = "57b691c527eca8432355693e8b1472c0a86899fba9ddc6c210d62a807fab5362"

// hookBench is a Hooks with a clock and a list of what it let pass.
type hookBench struct {
	*Hooks
	log bytes.Buffer

	mu       sync.Mutex
	at       time.Time
	hints    []provision.SubscriberID
	outcomes []HookOutcome
}

func newHookBench(o config.Hooks) *hookBench {
	if o.Secret == "" {
		o.Secret = hookSecret
	}
	if o.Window == 0 {
		o.Window = time.Minute
	}
	b := &hookBench{at: testStart}
	b.Hooks = NewHooks(o, func(id provision.SubscriberID) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hints = append(b.hints, id)
	}, func(o HookOutcome) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.outcomes = append(b.outcomes, o)
	}, slog.New(slog.NewTextHandler(&b.log, nil)))
	b.now = func() time.Time {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.at
	}
	return b
}

// signed is a request as the documentation says to make it.
func signed(at time.Time, secret, contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, HookPath, strings.NewReader(body))
	stamp := strconv.FormatInt(at.Unix(), 10)
	sum := signatureOf([]byte(secret), stamp, []byte(body))
	r.Header.Set(HookTimestampHeader, stamp)
	r.Header.Set(HookSignatureHeader, "sha256="+hex.EncodeToString(sum[:]))
	r.Header.Set("Content-Type", contentType)
	return r
}

func (b *hookBench) do(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	b.ServeHTTP(rec, r)
	return rec
}

// The signature of the example in docs/erp-hooks.md, computed by another program.
func TestHookSignature(t *testing.T) {
	sum := signatureOf([]byte(hookSecret), "1700000000", []byte(`{"customer_id":1001}`))
	assert.Equal(t, exampleSignature, hex.EncodeToString(sum[:]))
	text, err := os.ReadFile("../docs/erp-hooks.md")
	require.NoError(t, err)
	assert.Contains(t, string(text), "sha256="+exampleSignature)
	assert.Contains(t, string(text), hookSecret)
}

func TestHookRequests(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	good := func(body string) *http.Request { return signed(testStart, hookSecret, "application/json", body) }
	change := func(body string, f func(*http.Request)) *http.Request {
		r := good(body)
		f(r)
		return r
	}
	tests := map[string]struct {
		request *http.Request
		want    HookOutcome
		id      provision.SubscriberID
		status  int
	}{
		"json":                     {good(`{"customer_id":1001}`), HookAccepted, 1001, 202},
		"json with a nonce":        {good(`{"customer_id": 1001, "nonce": "a1"}`), HookAccepted, 1001, 202},
		"json with text":           {good(`{"customer_id":"1001"}`), HookAccepted, 1001, 202},
		"json without its type":    {signed(testStart, hookSecret, "", `{"customer_id":1001}`), HookAccepted, 1001, 202},
		"form":                     {signed(testStart, hookSecret, form, "customer_id=1001&nonce=x"), HookAccepted, 1001, 202},
		"form with a charset":      {signed(testStart, hookSecret, form+"; charset=UTF-8", "customer_id=1001"), HookAccepted, 1001, 202},
		"upper-case signature":     {change(`{"customer_id":1001}`, func(r *http.Request) { upperSignature(r) }), HookAccepted, 1001, 202},
		"oldest time":              {signed(testStart.Add(-time.Minute), hookSecret, "", `{"customer_id":1001}`), HookAccepted, 1001, 202},
		"newest time":              {signed(testStart.Add(time.Minute), hookSecret, "", `{"customer_id":1001}`), HookAccepted, 1001, 202},
		"state is not believed":    {good(`{"customer_id":1001,"state_id":2}`), HookAccepted, 1001, 202},
		"too old":                  {signed(testStart.Add(-61*time.Second), hookSecret, "", `{"customer_id":1001}`), HookStale, 0, 401},
		"from the future":          {signed(testStart.Add(61*time.Second), hookSecret, "", `{"customer_id":1001}`), HookStale, 0, 401},
		"other secret":             {signed(testStart, "another-secret-0123456789", "", `{"customer_id":1001}`), HookBadSignature, 0, 401},
		"no signature":             {change(`{"customer_id":1001}`, func(r *http.Request) { r.Header.Del(HookSignatureHeader) }), HookBadSignature, 0, 401},
		"no timestamp":             {change(`{"customer_id":1001}`, func(r *http.Request) { r.Header.Del(HookTimestampHeader) }), HookBadSignature, 0, 401},
		"timestamp changed":        {change(`{"customer_id":1001}`, func(r *http.Request) { r.Header.Set(HookTimestampHeader, "1700000001") }), HookBadSignature, 0, 401},
		"body changed":             {change(`{"customer_id":1001}`, func(r *http.Request) { r.Body = http.NoBody }), HookBadSignature, 0, 401},
		"signature without prefix": {change(`{"customer_id":1001}`, func(r *http.Request) { cutPrefix(r) }), HookBadSignature, 0, 401},
		"half a signature":         {change(`{"customer_id":1001}`, func(r *http.Request) { halfSignature(r) }), HookBadSignature, 0, 401},
		"signature of an empty":    {change("", func(r *http.Request) { r.Header.Set(HookSignatureHeader, "sha256=") }), HookBadSignature, 0, 401},
		"timestamp with fractions": {signedStamp("1772366400.5", `{"customer_id":1001}`), HookMalformed, 0, 400},
		"timestamp far away":       {signedStamp("99999999999999999", `{"customer_id":1001}`), HookMalformed, 0, 400},
		"negative timestamp":       {signedStamp("-5", `{"customer_id":1001}`), HookMalformed, 0, 400},
		"zero":                     {good(`{"customer_id":0}`), HookMalformed, 0, 400},
		"negative":                 {good(`{"customer_id":-7}`), HookMalformed, 0, 400},
		"fraction":                 {good(`{"customer_id":1.5}`), HookMalformed, 0, 400},
		"too large a number":       {good(`{"customer_id":99999999999999999999}`), HookMalformed, 0, 400},
		"null":                     {good(`{"customer_id":null}`), HookMalformed, 0, 400},
		"list":                     {good(`{"customer_id":[1001]}`), HookMalformed, 0, 400},
		"no customer":              {good(`{}`), HookMalformed, 0, 400},
		"no JSON":                  {good(`customer_id=1001`), HookMalformed, 0, 400},
		"empty":                    {good(""), HookMalformed, 0, 400},
		"form without customer":    {signed(testStart, hookSecret, form, "customer=1001"), HookMalformed, 0, 400},
		"form with two customers":  {signed(testStart, hookSecret, form, "customer_id=1&customer_id=2"), HookMalformed, 0, 400},
		"large body":               {good(`{"customer_id":1001,"x":"` + strings.Repeat("x", hookBodyLimit) + `"}`), HookMalformed, 0, 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newHookBench(config.Hooks{})
			rec := b.do(tt.request)
			assert.Equal(t, tt.status, rec.Code)
			assert.Equal(t, []HookOutcome{tt.want}, b.outcomes)
			if tt.want == HookAccepted {
				assert.Equal(t, []provision.SubscriberID{tt.id}, b.hints)
				assert.JSONEq(t, `{"accepted":true}`, rec.Body.String())
			} else {
				assert.Empty(t, b.hints)
				assert.JSONEq(t, `{"error":"`+string(tt.want)+`"}`, rec.Body.String())
			}
			assert.NotContains(t, rec.Body.String()+b.log.String()+fmt.Sprint(rec.Header()), hookSecret)
		})
	}
}

func upperSignature(r *http.Request) {
	text := strings.TrimPrefix(r.Header.Get(HookSignatureHeader), "sha256=")
	r.Header.Set(HookSignatureHeader, "sha256="+strings.ToUpper(text))
}

func cutPrefix(r *http.Request) {
	r.Header.Set(HookSignatureHeader, strings.TrimPrefix(r.Header.Get(HookSignatureHeader), "sha256="))
}

func halfSignature(r *http.Request) {
	s := r.Header.Get(HookSignatureHeader)
	r.Header.Set(HookSignatureHeader, s[:len(s)-32])
}

func signedStamp(stamp, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, HookPath, strings.NewReader(body))
	sum := signatureOf([]byte(hookSecret), stamp, []byte(body))
	r.Header.Set(HookTimestampHeader, stamp)
	r.Header.Set(HookSignatureHeader, "sha256="+hex.EncodeToString(sum[:]))
	return r
}

func TestHookOtherPathsAndMethods(t *testing.T) {
	b := newHookBench(config.Hooks{})
	assert.Equal(t, 405, b.do(httptest.NewRequest(http.MethodGet, HookPath, nil)).Code)
	assert.Equal(t, 404, b.do(httptest.NewRequest(http.MethodPost, "/", nil)).Code)
	assert.Equal(t, 404, b.do(httptest.NewRequest(http.MethodGet, "/metrics", nil)).Code)
	assert.Empty(t, b.outcomes)
}

func TestHookWithoutSecretAcceptsNobody(t *testing.T) {
	b := newHookBench(config.Hooks{})
	b.Reconfigure(config.Hooks{Window: time.Minute})
	assert.Equal(t, 401, b.do(signed(testStart, "", "", `{"customer_id":1001}`)).Code)
	assert.Empty(t, b.hints)
}

func TestHookReplay(t *testing.T) {
	b := newHookBench(config.Hooks{})
	again := func() int { return b.do(signed(testStart, hookSecret, "", `{"customer_id":1001}`)).Code }
	assert.Equal(t, 202, again())
	assert.Equal(t, 409, again())
	upper := signed(testStart, hookSecret, "", `{"customer_id":1001}`)
	upperSignature(upper)
	assert.Equal(t, 409, b.do(upper).Code, "another spelling is the same signature")
	assert.Equal(t, 202, b.do(signed(testStart, hookSecret, "", `{"customer_id":1001,"nonce":1}`)).Code)

	b.at = testStart.Add(time.Minute)
	assert.Equal(t, 409, again(), "as long as its time is good, it is known")
	b.at = testStart.Add(time.Minute + time.Second)
	assert.Equal(t, 401, again())
	b.at = testStart.Add(5 * time.Minute)
	assert.Equal(t, 202, b.do(signed(b.at, hookSecret, "", `{"customer_id":1}`)).Code)
	assert.Len(t, b.replay.seen, 1, "old signatures are forgotten")
}

func TestHookLimit(t *testing.T) {
	b := newHookBench(config.Hooks{})
	send := func(i int) int {
		return b.do(signed(b.at, hookSecret, "", fmt.Sprintf(`{"customer_id":%d}`, i+1))).Code
	}
	for i := range hookBurst {
		require.Equal(t, 202, send(i))
	}
	assert.Equal(t, 429, send(hookBurst))
	assert.Equal(t, 401, b.do(signed(b.at, "another-secret-0123456789", "", `{"customer_id":1}`)).Code, "who has no secret uses nothing up")
	b.at = b.at.Add(time.Second)
	for i := range hookRate {
		require.Equal(t, 202, send(hookBurst+i), "what was limited may come again")
	}
	assert.Equal(t, 429, send(hookBurst+hookRate))
	assert.Len(t, b.replay.seen, hookBurst+hookRate)
}

func TestHookAllow(t *testing.T) {
	b := newHookBench(config.Hooks{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/64")}})
	for remote, want := range map[string]int{
		"192.0.2.7:1234": 202, "192.0.2.8:1234": 403, "[::ffff:192.0.2.7]:1": 202, "[2001:db8::5]:1": 202,
		"[2001:db8:1::5]:1": 403, "@": 403,
	} {
		r := signed(testStart, hookSecret, "", `{"customer_id":1,"nonce":"`+remote+`"}`)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "192.0.2.7")
		assert.Equal(t, want, b.do(r).Code, remote)
	}
	b.Reconfigure(config.Hooks{Secret: "another-secret-0123456789", Window: time.Minute})
	assert.Equal(t, 401, b.do(signed(testStart, hookSecret, "", `{"customer_id":2}`)).Code)
	assert.Equal(t, 202, b.do(signed(testStart, "another-secret-0123456789", "", `{"customer_id":2}`)).Code)
}

func TestHookLogsLittle(t *testing.T) {
	b := newHookBench(config.Hooks{})
	for range 100 {
		b.do(httptest.NewRequest(http.MethodPost, HookPath, nil))
	}
	assert.Equal(t, 1, strings.Count(b.log.String(), "\n"))
	b.at = b.at.Add(hookLogEvery)
	b.do(httptest.NewRequest(http.MethodPost, HookPath, nil))
	assert.Equal(t, 2, strings.Count(b.log.String(), "\n"))
	assert.Len(t, b.outcomes, 101, "all are counted")
}

func FuzzHook(f *testing.F) {
	f.Add("application/json", `{"customer_id":1001}`, "1772366400", true)
	f.Add("application/x-www-form-urlencoded", "customer_id=1001", "1772366400", true)
	f.Add("multipart/form-data; boundary=x", "--x", "1772366400", false)
	f.Add("", "", "", true)
	f.Fuzz(func(t *testing.T, contentType, body, stamp string, sign bool) {
		b := newHookBench(config.Hooks{})
		r := httptest.NewRequest(http.MethodPost, HookPath, strings.NewReader(body))
		r.Header["Content-Type"] = []string{contentType}
		r.Header[HookTimestampHeader] = []string{stamp}
		if sign {
			sum := signatureOf([]byte(hookSecret), stamp, []byte(body))
			r.Header[HookSignatureHeader] = []string{"sha256=" + hex.EncodeToString(sum[:])}
		}
		rec := b.do(r)
		require.Len(t, b.outcomes, 1)
		require.Equal(t, b.outcomes[0].status(), rec.Code)
		require.Equal(t, b.outcomes[0] == HookAccepted, len(b.hints) == 1)
		if !sign {
			require.Empty(t, b.hints)
		}
		for _, id := range b.hints {
			require.Positive(t, id)
		}
	})
}

// php runs a script with the real interpreter. Where it is missing the test is
// skipped, unless everything must run.
func php(t *testing.T, arguments ...string) string {
	t.Helper()
	program, err := exec.LookPath("php")
	if err != nil {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("php is missing: install php-cli")
		}
		t.Skip("needs php (php-cli)")
	}
	out, err := exec.CommandContext(t.Context(), program, arguments...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// installed copies a handler of the documentation with the settings of the test
// in place of those that an operator edits.
func installed(t *testing.T, dir, url string) {
	t.Helper()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte(hookSecret+"\n"), 0o600))
	replace := strings.NewReplacer("http://192.0.2.10:9468/hooks/customer", url, "/etc/usher-hook.secret", secret, "/etc/usher_hint.php", filepath.Join(dir, "usher_hint.php"))
	for _, name := range []string{"usher_hint.php", "custom_api.php", "handlers.php"} {
		text, err := os.ReadFile("../docs/erp-hooks/" + name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(replace.Replace(string(text))), 0o600))
	}
}

// TestPHPHandlers runs the handlers of docs/erp-hooks against the endpoint, by
// either generation of hooks, with curl and without.
func TestPHPHandlers(t *testing.T) {
	transports := map[string][]string{"streams": {"-d", "disable_functions=curl_init"}}
	if strings.Contains(php(t, "-m"), "curl\n") {
		transports["curl"] = nil
	} else {
		t.Log("php has no curl extension (php-curl): only its streams are tried")
	}
	scripts := map[string]struct {
		code string
		want []provision.SubscriberID
	}{
		"custom api, named argument": {`require 'custom_api.php'; echo json_encode(api_function('task_state_change', ['taskId' => 5, 'customerId' => '1001', 'stateId' => 2]));`, []provision.SubscriberID{1001}},
		"custom api, plain argument": {`require 'custom_api.php'; echo json_encode(api_function('user_mark_add', 1002, 7));`, []provision.SubscriberID{1002}},
		"custom api, other event":    {`require 'custom_api.php'; echo json_encode(api_function('inventory_transfer', 1003, ['inventoryId' => 9]));`, nil},
		"events v2": {`
			class CustomEvent { const CUSTOMER_STATUS_CHANGE_BEFORE = 'customer.status.change.before'; }
			class Event { function get($name) { return ['customer_id' => '1004', 'new_status_id' => 0][$name] ?? null; } }
			$handlers = [];
			function internal_event($name, $handler) { global $handlers; $handlers[$name] = $handler; }
			require 'handlers.php';
			echo json_encode($handlers['customer.status.change.before'](new Event()));`, []provision.SubscriberID{1004}},
		"many changes of one request": {`require 'custom_api.php';
			foreach ([1005, 1006, 1005, 1005] as $id) { api_function('x', ['customer_id' => $id]); }
			echo 'true';`, []provision.SubscriberID{1005, 1006}},
		"sent at the end": {`require 'custom_api.php'; api_function('x', ['customer_id' => 1007]); file_put_contents('changed', '1'); echo 'true';`, []provision.SubscriberID{1007}},
	}
	for transport, flags := range transports {
		for name, script := range scripts {
			t.Run(transport+", "+name, func(t *testing.T) {
				b := newHookBench(config.Hooks{})
				b.now = time.Now
				dir := t.TempDir()
				inOrder := true
				inner := b.hint
				b.hint = func(id provision.SubscriberID) {
					if id == 1007 {
						_, err := os.Stat(filepath.Join(dir, "changed"))
						inOrder = err == nil
					}
					inner(id)
				}
				server := httptest.NewServer(b)
				defer server.Close()
				installed(t, dir, server.URL+HookPath)
				out := php(t, append(append([]string{"-d", "display_errors=1", "-d", "error_reporting=-1"}, flags...), "-r", "chdir("+strconv.Quote(dir)+"); "+script.code)...)
				assert.Equal(t, "true", out, "the ERP's action goes on and nothing is printed")
				assert.ElementsMatch(t, script.want, b.hints)
				assert.True(t, inOrder, "the hint comes after the change")
			})
		}
	}
}

// TestPHPHandlerNeverHarms: whatever the agent does, the ERP's request ends
// soon, without an error.
func TestPHPHandlerNeverHarms(t *testing.T) {
	slow := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-slow:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(slow)
	tests := map[string]struct{ url, remove string }{
		"agent hangs":       {url: server.URL},
		"nobody listens":    {url: "http://127.0.0.1:1/hooks/customer"},
		"no such host":      {url: "http://no-such-host.invalid/hooks/customer"},
		"no URL":            {url: "nonsense"},
		"secret is missing": {url: server.URL, remove: "secret"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			installed(t, dir, tt.url)
			if tt.remove != "" {
				require.NoError(t, os.Remove(filepath.Join(dir, tt.remove)))
			}
			out := php(t, "-d", "display_errors=1", "-d", "error_reporting=-1", "-r", "chdir("+strconv.Quote(dir)+`);
				require 'custom_api.php'; $GLOBALS['began'] = microtime(true);
				for ($i = 1; $i <= 50; $i++) { api_function('x', ['customer_id' => $i]); }
				register_shutdown_function(function () { echo microtime(true) - $GLOBALS['began'] < 0.6 ? 'soon' : 'late'; });`)
			assert.Equal(t, "soon", out)
		})
	}
}

func TestPHPSyntax(t *testing.T) {
	for _, name := range []string{"usher_hint.php", "custom_api.php", "handlers.php"} {
		assert.Contains(t, php(t, "-l", "../docs/erp-hooks/"+name), "No syntax errors")
	}
}

// Who is not in hooks.allow gets no answer, and is counted all the same.
func TestHookAllowAtTheDoor(t *testing.T) {
	seen := make(chan HookOutcome, 1)
	h := NewHooks(config.Hooks{Secret: "0123456789abcdef", Window: time.Minute, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}, func(provision.SubscriberID) {},
		func(o HookOutcome) { seen <- o }, quiet())
	d := door.New(door.Options{Allow: h.Allows, Refused: h.Refused})
	ctx, cancel := context.WithCancel(t.Context())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- ServeHTTP(ctx, netip.MustParseAddrPort("127.0.0.1:0"), h, d, quiet(), func(a net.Addr) { bound <- a })
	}()
	t.Cleanup(func() { cancel(); <-done })
	resp, err := http.Post("http://"+(<-bound).String()+HookPath, "application/json", strings.NewReader(`{"customer_id": 1}`))
	if err == nil {
		_ = resp.Body.Close()
	}
	require.Error(t, err)
	require.Equal(t, HookForbidden, <-seen)
	h.Reconfigure(config.Hooks{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	require.True(t, h.Allows(netip.MustParseAddr("127.0.0.1")))
	require.False(t, h.Allows(netip.Addr{}))
}

// A hint for a name that nobody has put into hooks.hosts is told of: the ERP may not read
// the answer.
func TestHookOfAnotherNameIsTold(t *testing.T) {
	b := newHookBench(config.Hooks{})
	for range 3 {
		b.Refused(door.OtherName, netip.MustParseAddr("192.0.2.7"), "router1.example.net")
	}
	b.Refused(door.Full, netip.MustParseAddr("192.0.2.7"), "")
	require.Equal(t, []HookOutcome{HookOtherName, HookOtherName, HookOtherName}, b.outcomes)
	require.Equal(t, 1, strings.Count(b.log.String(), "\n"))
	require.Contains(t, b.log.String(), `outcome=other_name remote=192.0.2.7 error="it asks for \"router1.example.net\", which is not in hooks.hosts"`)
}

// Whoever sends hints without their end keeps nobody else's out, not those from the same
// address either, once they have taken a second.
func TestHalfHintsMakeRoom(t *testing.T) {
	b := newHookBench(config.Hooks{})
	began := make(chan struct{}, 8)
	d := door.New(door.Options{Total: 8, PerAddress: 4, Timeouts: door.Timeouts{Read: time.Minute}})
	ctx, cancel := context.WithCancel(t.Context())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- ServeHTTP(ctx, netip.MustParseAddrPort("127.0.0.1:0"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			b.ServeHTTP(w, r)
		}), d, quiet(), func(a net.Addr) { bound <- a })
	}()
	t.Cleanup(func() { cancel(); <-done })
	addr := (<-bound).String()
	dial := func(from string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}).Dial("tcp", addr)
	}
	for i := range 4 { // all that one address may have
		c, err := dial(fmt.Sprintf("127.0.0.%d", 1+i%2))
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n", HookPath)
		require.NoError(t, err)
		<-began
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dial("127.0.0.3") }}}
	code := 0
	require.Eventually(t, func() bool {
		r := signed(testStart, hookSecret, "", `{"customer_id":1001}`)
		req, err := http.NewRequest(http.MethodPost, "http://"+addr+HookPath, r.Body)
		require.NoError(t, err)
		req.Header = r.Header
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		code = resp.StatusCode
		return resp.Body.Close() == nil
	}, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, http.StatusAccepted, code)
	require.EqualValues(t, 1, d.Status().EndedBusy)
}
