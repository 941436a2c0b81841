package userside

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// No way out for the key: network errors, echoes of the server in any spelling, redirects, logs, fmt.
func TestKeyNeverShows(t *testing.T) {
	spellings := map[string]string{
		"raw": testKey, "query": url.QueryEscape(testKey), "path": url.PathEscape(testKey), "html": html.EscapeString(testKey),
		"lower case escapes": strings.NewReplacer("%2F", "%2f", "%2B", "%2b", "%3C", "%3c", "%C3", "%c3", "%A9", "%a9", "%3E", "%3e").Replace(url.QueryEscape(testKey)),
		"escaped twice":      url.QueryEscape(url.QueryEscape(testKey)),
		"escaped in full":    `%733cr%22t%2FK%26%79%2B7%3c%c3%A9%3e`,
		"entities":           `s3cr&#34;t&#x2f;K&amp;y+7&lt;&#233;&gt;`,
		"json":               `s3cr\"t\/K&y+7<é>`, "json with unicode": `s3cr\"t/K\u0026y+7\u003cé\u003e`,
		"in a url": "http://erp.example/api.php?cat=customer&key=" + url.QueryEscape(testKey) + "&action=x",
	}
	for name, key := range spellings {
		for where, h := range map[string]http.HandlerFunc{
			"page":         answerWith(200, "<b>Warning</b> no such key "+key+" in line 5"),
			"error status": answerWith(400, "denied: "+key),
			"server error": answerWith(502, strings.Repeat("x", 250)+key),
			"long page":    answerWith(403, strings.Repeat("y", excerptWindow-3)+key+strings.Repeat("z", 5000)),
			"at the edge":  answerWith(403, strings.Repeat(" ", excerptWindow-5)+key+strings.Repeat(" ", 5000)),
			"error text": func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `{"result":"ERROR","error":%q}`, "bad key "+key)
			},
			"marker": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"result":%q}`, key) },
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				var log bytes.Buffer
				s := newTestServer(t, h)
				c := newTestClient(t, s, func(o *Options) {
					o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
					o.Retries = 1
				})
				_, err := c.CustomerBindings(ctx)
				require.Error(t, err)
				var e *Error
				require.ErrorAs(t, err, &e)
				requireKind(t, err, e.Kind)
				requireNoKey(t, log.String())
			})
		}
	}
}

func TestKeyNotInNetworkErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := l.Addr().String()
	require.NoError(t, l.Close())
	for name, o := range map[string]Options{
		"connection refused": {URL: "http://" + refused + "/api.php"},
		"transport error": {URL: "http://192.0.2.1/api.php", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, &url.Error{Op: "Get", URL: r.URL.String(), Err: errors.New("dial " + r.URL.String())}
		})},
		"wrapped twice": {URL: "http://192.0.2.1/api.php", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("proxy: %w", &url.Error{Op: "Get", URL: r.URL.String(), Err: &url.Error{Op: "Get", URL: r.URL.String(), Err: io.ErrUnexpectedEOF}})
		})},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			o.Key, o.Retries, o.BackoffBase, o.BackoffMax = testKey, 1, 1, 1
			o.Logger = slog.New(slog.NewJSONHandler(&log, nil))
			c, err := New(o)
			require.NoError(t, err)
			requireKind(t, c.ChangeState(ctx, 1, 1), ErrUnavailable)
			_, err = c.CustomerBindings(ctx)
			requireKind(t, err, ErrUnavailable)
			require.Contains(t, log.String(), "retrying")
			requireNoKey(t, log.String())
			var u *url.Error
			require.False(t, errors.As(err, &u), "an error with the URL is reachable")
		})
	}
}

func TestKeyPrintsRedacted(t *testing.T) {
	o := Options{URL: "http://192.0.2.1/api.php", Key: testKey}
	c, err := New(o)
	require.NoError(t, err)
	holder := struct {
		K Key
		O Options
		C *Client
	}{testKey, o, c}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", o.Key, "client", c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X"} {
		requireNoKey(t, fmt.Sprintf(verb, o.Key))
		requireNoKey(t, fmt.Sprintf(verb, holder))
		requireNoKey(t, fmt.Sprintf(verb, c))
		require.NotContains(t, strings.ToLower(fmt.Sprintf(verb, o.Key)), fmt.Sprintf("%x", "s3cr"))
	}
	requireNoKey(t, log.String())
	require.Contains(t, log.String(), redacted)
	require.Equal(t, redacted, o.Key.String())
}

// A redirect is not followed: the next host would learn the URL.
func TestRedirectIsNotFollowed(t *testing.T) {
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	t.Cleanup(other.Close)
	s := newTestServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/login?next="+r.URL.String(), http.StatusFound)
	})
	_, err := newTestClient(t, s).CustomerBindings(ctx)
	require.Contains(t, errorOf(t, err, ErrMalformed).Text, "redirected to "+other.URL)
	require.False(t, reached.Load())
}

func TestExcerptIsPrintableAndBounded(t *testing.T) {
	_, err := clientOf(t, "\x1b[31mRED\x00\x07\xff\u202e "+strings.Repeat("long ", 1000)).CustomerBindings(ctx)
	text := errorOf(t, err, ErrMalformed).Text
	require.Contains(t, text, ".[31mRED....")
	require.True(t, strings.HasSuffix(text, "..."))
	require.NotContains(t, text, "\x1b")
}

// Deep inside a document there are customers, so an error there shows none of it.
func TestExcerptShowsNoCustomers(t *testing.T) {
	_, err := clientOf(t, `{"result":"OK","data":[{"full_name":"Ivanov","phone":"380000000000"},{"full_name":?]}`).CustomerBindings(ctx)
	text := errorOf(t, err, ErrMalformed).Text
	require.Contains(t, text, "no value at byte 82")
	require.NotContains(t, text, "Ivanov")
}

// Of a long text only the beginning is looked at, and no part of a key that is cut there is shown.
func TestLongTextsHoldNoPartOfTheKey(t *testing.T) {
	r := newRedactor(testKey)
	for n := range len(testKey) + 1 {
		for _, before := range []string{" ", "\n\t", "\u200b"} { // what folds to little
			s := r.text(strings.Repeat(before, excerptWindow)[:excerptWindow-n] + testKey + strings.Repeat("x", 1<<17))
			requireNoKey(t, s)
			require.NotContains(t, s, testKey[:4])
		}
	}
	s := r.text(testKey + strings.Repeat(" text", 1<<18))
	require.True(t, strings.HasPrefix(s, redacted+" text text"), s)
	require.Len(t, s, maxText+3)
}
