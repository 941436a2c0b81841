package userside

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testKey has every character that some spelling changes.
const testKey = `s3cr"t/K&y+7<é>`

// call is what a test server saw of one request.
type call struct {
	method string
	query  url.Values
	form   url.Values // body only
	header http.Header
}

// arg finds an argument wherever it travelled.
func (c call) arg(key string) string {
	if c.form.Has(key) {
		return c.form.Get(key)
	}
	return c.query.Get(key)
}

// testServer answers every call with the next handler; the last one repeats.
type testServer struct {
	*httptest.Server

	mu    sync.Mutex // guards calls
	calls []call
}

func newTestServer(t *testing.T, handlers ...http.HandlerFunc) *testServer {
	t.Helper()
	s := &testServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(body))
		assert.NoError(t, err)
		s.mu.Lock()
		n := len(s.calls)
		s.calls = append(s.calls, call{method: r.Method, query: r.URL.Query(), form: form, header: r.Header})
		s.mu.Unlock()
		handlers[min(n, len(handlers)-1)](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *testServer) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// answerWith returns a handler with a status and a body.
func answerWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// newTestClient returns a client of the server with short times.
func newTestClient(t *testing.T, s *testServer, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{
		URL: s.URL + "/api.php", Key: testKey, Timeout: 5 * time.Second,
		BackoffBase: time.Microsecond, BackoffMax: time.Millisecond, Location: time.UTC,
		ERPVersion: Version{Major: 3, Minor: 21, Stage: StageRelease},
	}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return c
}

// clientOf answers every call with this body and status 200.
func clientOf(t *testing.T, body string, change ...func(*Options)) *Client {
	t.Helper()
	return newTestClient(t, newTestServer(t, answerWith(200, body)), change...)
}

// observed remembers what an Observer was told.
type observed struct {
	mu    sync.Mutex
	calls []string
}

func (o *observed) Call(action string, took time.Duration, outcome Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if took < 0 {
		action = "negative time of " + action
	}
	o.calls = append(o.calls, fmt.Sprintf("%s %s", action, outcome))
}

func (o *observed) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls
}

// requireKind is errorOf for who wants no more.
func requireKind(t *testing.T, err, kind error) {
	t.Helper()
	_ = errorOf(t, err, kind)
}

// errorOf checks the kind of an error, and that nothing in it shows the key.
func errorOf(t *testing.T, err, kind error) *Error {
	t.Helper()
	require.ErrorIs(t, err, kind)
	var e *Error
	require.ErrorAs(t, err, &e)
	requireNoKey(t, fmt.Sprintf("%v %+v %#v %q", err, e, e, e.Text))
	require.LessOrEqual(t, len(e.Text), maxText+3)
	return e
}

func requireNoKey(t *testing.T, s string) {
	t.Helper()
	require.NotContains(t, strings.ToLower(s), "s3cr")
	require.NotContains(t, strings.ToLower(s), "y+7")
	require.NotContains(t, strings.ToLower(s), "y%2b7")
}

var ctx = context.Background()
