package userside

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every row of the failure table, API page section 2.2.
func TestFailureTable(t *testing.T) {
	getData := func(c *Client) error { _, err := c.Customer(ctx, 7); return err }
	lookup := func(c *Client) error { _, err := c.FindCustomers(ctx, LookupLogin, "u1", false); return err }
	setMAC := func(c *Client) error { return c.SetMACByIP(ctx, ip("100.64.0.10"), mac("00005e005301")) }
	bindings := func(c *Client) error { _, err := c.CustomerBindings(ctx); return err }
	page := "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
	tests := map[string]struct {
		status  int
		body    string
		do      func(*Client) error
		kind    error
		outcome Outcome
		text    string
	}{
		"documented rule (new): 400 and error":        {400, `{"error":"Undefined request"}`, setMAC, ErrRefused, OutcomeRefused, "Undefined request"},
		"documented rule (new): with marker":          {400, `{"result":"ERROR","error":"Bad ip"}`, setMAC, ErrRefused, OutcomeRefused, "Bad ip"},
		"documented rule (new): capital Error":        {422, `{"Error":"Bad ip"}`, setMAC, ErrRefused, OutcomeRefused, "Bad ip"},
		"documented rule (old): 200 and ErrorText":    {200, `{"Result":"ERROR","ErrorText":"No such ip"}`, setMAC, ErrRefused, OutcomeRefused, "No such ip"},
		"mixed: 200, OK and error":                    {200, `{"result":"OK","error":"No such ip"}`, setMAC, ErrRefused, OutcomeRefused, "No such ip"},
		"mixed: 200, result false":                    {200, `{"result":false}`, setMAC, ErrRefused, OutcomeRefused, ""},
		"mixed: 200, result false with Error":         {200, `{"result":false,"Error":"no"}`, setMAC, ErrRefused, OutcomeRefused, "no"},
		"mixed: error is an object":                   {200, `{"result":"OK","error":{"code":5,"text":"no &amp; no"}}`, setMAC, ErrRefused, OutcomeRefused, "5, no & no"},
		"unknown or forbidden key: 403":               {403, `{"error":"Access denied"}`, bindings, ErrPermission, OutcomePermission, "Access denied"},
		"unknown or forbidden key: 403 page":          {403, page, bindings, ErrPermission, OutcomePermission, "502 Bad Gateway"},
		"unknown or forbidden key: 401":               {401, ``, bindings, ErrPermission, OutcomePermission, ""},
		"not JSON: PHP warning before JSON":           {200, "<br />\n<b>Warning</b>: mysql_fetch() in /var/www/api.php\n{\"result\":\"OK\"}", bindings, ErrMalformed, OutcomeMalformed, "<b>Warning</b>: mysql_fetch()"},
		"not JSON: warning after JSON":                {200, `{"result":"OK"}` + "\nNotice: x", setMAC, ErrMalformed, OutcomeMalformed, "text after the document"},
		"not JSON: login page":                        {200, "<!DOCTYPE html><title>Login</title>", setMAC, ErrMalformed, OutcomeMalformed, "Login"},
		"not JSON: proxy page with 502":               {502, page, bindings, ErrUnavailable, OutcomeUnavailable, "502 Bad Gateway"},
		"not JSON: page with 404":                     {404, page, getData, ErrMalformed, OutcomeMalformed, "no JSON document"},
		"not JSON: empty answer":                      {200, "", setMAC, ErrMalformed, OutcomeMalformed, "empty answer"},
		"not JSON: white space":                       {200, " \n", setMAC, ErrMalformed, OutcomeMalformed, "truncated"},
		"not JSON: a number":                          {200, "5", setMAC, ErrMalformed, OutcomeMalformed, "no JSON document"},
		"not JSON: truncated":                         {200, `{"result":"OK","data":[{"customer_id":1,"ip":"100.`, bindings, ErrMalformed, OutcomeMalformed, "truncated after 50 bytes"},
		"unknown action: 400":                         {400, `{"error":"Unknown Action"}`, bindings, ErrRefused, OutcomeRefused, "Unknown Action"},
		"unknown action: 200 and only error":          {200, `{"error":"unknown_method"}`, bindings, ErrRefused, OutcomeRefused, "unknown_method"},
		"unknown action: 404 and error":               {404, `{"error":"unknown_method"}`, bindings, ErrRefused, OutcomeRefused, "unknown_method"},
		"missing parameter: 200, error in small":      {200, `{"result":"error","error":"Missing: customer_id"}`, setMAC, ErrRefused, OutcomeRefused, "Missing: customer_id"},
		"write by GET: 405":                           {405, `{"error":"POST only"}`, setMAC, ErrRefused, OutcomeRefused, "POST only"},
		"no such customer, get_data: OK without data": {200, `{"result":"OK"}`, getData, ErrNotFound, OutcomeOK, ""},
		"no such customer, get_data: data null":       {200, `{"result":"OK","data":null}`, getData, ErrNotFound, OutcomeOK, ""},
		"no such customer, get_data: ERROR at 200":    {200, `{"result":"ERROR","error":"not found"}`, getData, ErrNotFound, OutcomeNotFound, "not found"},
		"no such customer, get_data: 404":             {404, `{"error":"not found"}`, getData, ErrNotFound, OutcomeNotFound, "not found"},
		"no such customer, get_data: 400 is an error": {400, `{"error":"not found"}`, getData, ErrRefused, OutcomeRefused, "not found"},
		"get_data: ERROR with data is an error":       {200, `{"result":"ERROR","data":{"id":7},"error":"x"}`, getData, ErrRefused, OutcomeRefused, "x"},
		"no match, get_abon_id: ERROR without Id":     {200, `{"result":"ERROR"}`, lookup, ErrNotFound, OutcomeNotFound, "ERROR"},
		"no match, get_abon_id: old":                  {200, `{"Result":"ERROR","ErrorText":""}`, lookup, ErrNotFound, OutcomeNotFound, ""},
		"no match, other lookups: id 0":               {200, `{"result":"OK","id":0}`, lookup, ErrNotFound, OutcomeOK, ""},
		"no match: Id absent":                         {200, `{"result":"OK"}`, lookup, ErrNotFound, OutcomeOK, ""},
		"hook: result 0 and msg":                      {200, `{"result":"0","msg":"done &amp; dusted"}`, setMAC, ErrRefused, OutcomeRefused, "done & dusted"},
		"hook: result 1 and msg":                      {200, `{"result":"1","msg":"failed"}`, setMAC, ErrRefused, OutcomeRefused, "failed"},
		"hook: number 1 is not OK":                    {200, `{"result":1}`, setMAC, ErrRefused, OutcomeRefused, `result is "1"`},
		"no marker":                                   {200, `{}`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "no result"},
		"a bare list":                                 {200, `[]`, setMAC, ErrUnknownShape, OutcomeUnknownShape, "no result"},
		"server error":                                {500, `{"error":"memory"}`, bindings, ErrUnavailable, OutcomeUnavailable, "memory"},
		"too many requests":                           {429, `slow down`, bindings, ErrUnavailable, OutcomeUnavailable, "slow down"},
		"request time-out":                            {408, ``, bindings, ErrUnavailable, OutcomeUnavailable, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(tt.status, tt.body))
			o := &observed{}
			e := requireKind(t, tt.do(newTestClient(t, s, func(opts *Options) { opts.Observer = o })), tt.kind)
			require.Equal(t, tt.status, e.Status)
			require.Contains(t, e.Text, tt.text)
			require.Len(t, s.seen(), 1)
			require.Equal(t, []string{e.Action + " " + string(tt.outcome)}, o.all())
		})
	}
}

func TestFailureSeveralIDsSomeMissing(t *testing.T) {
	for name, doc := range map[string]string{
		"member error beside the found ones": `{"result":"OK","data":{"7":{"id":7,"state_id":2},"error":"8 not found"}}`,
		"error member is an object":          `{"result":"OK","data":{"7":{"id":7,"state_id":2},"error":{"text":"no"}}}`,
		"no member at all":                   `{"result":"OK","data":{"7":{"id":7,"state_id":2}}}`,
		"one left is not keyed":              `{"result":"OK","data":{"id":7,"state_id":"2"}}`,
		"list for a map":                     `{"result":"OK","data":[{"id":7,"state_id":2}]}`,
		"map by key, no id inside":           `{"result":"OK","data":{"7":{"state_id":2}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, doc).Customers(ctx, []int64{8, 7, 8})
			require.NoError(t, err)
			require.Len(t, got.Customers, 1)
			require.EqualValues(t, 7, got.Customers[0].ID)
			require.Equal(t, Int{2, true}, got.Customers[0].State)
			require.Equal(t, []int64{8}, got.Missing)
			require.Zero(t, got.Defects.Count)
		})
	}
}

func TestFailureEmptyListFilter(t *testing.T) {
	for _, doc := range []string{`{"result":"OK"}`, `{"result":"OK","data":[]}`, `{"result":"OK","data":null}`, `{"Result":"OK","list":""}`} {
		ids, err := clientOf(t, doc).CustomerIDs(ctx, CustomerFilter{State: new(2)})
		require.NoError(t, err, doc)
		require.Empty(t, ids, doc)
	}
}

// The success half of section 2.1 and the key looseness of section 8.
func TestLoosenessEnvelopeKeys(t *testing.T) {
	for name, doc := range map[string]string{
		"modern":                  `{"result":"OK","data":[101,102]}`,
		"legacy":                  `{"Result":"OK","Data":["101","102"],"ErrorText":""}`,
		"shouted":                 `{"RESULT":"ok","DATA":[101,102],"ERROR":null}`,
		"true":                    `{"result":true,"data":[101,102],"error":false}`,
		"list as text":            `{"Result":"OK","list":"101,102"}`,
		"first non-empty wins":    `{"Result":"","result":"OK","Data":[],"data":[101,102],"Error":"","error":""}`,
		"second payload ignored":  `{"result":"OK","data":[101,102],"Data":[103]}`,
		"keyed":                   `{"result":"OK","data":{"0":101,"2":102}}`,
		"objects":                 `{"result":"OK","data":[{"id":101},{"id":102}]}`,
		"id list":                 `{"result":"OK","Id":[101,102]}`,
		"unknown fields":          `{"result":"OK","took":0.5,"data":[101,102],"meta":null}`,
		"byte order mark":         "\uFEFF" + `{"result":"OK","data":[101,102]}`,
		"error zero":              `{"result":"OK","error":0,"data":[101,102]}`,
		"zeros and repeats":       `{"result":"OK","data":[0,101,"102"]}`,
		"white space around":      "\r\n {\"result\" : \"OK\" ,\t\"data\" : [ 101 , 102 ] } \n",
		"marker after everything": `{"data":[101,102],"error":"","result":"OK"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ids, err := clientOf(t, doc).CustomerIDs(ctx, CustomerFilter{State: new(2)})
			require.NoError(t, err)
			require.Equal(t, IDs{101, 102}, ids)
		})
	}
}

func TestLoosenessFirstMarkerWins(t *testing.T) {
	_, err := clientOf(t, `{"Result":"ERROR","result":"OK"}`).CustomerIDs(ctx, CustomerFilter{State: new(2)})
	requireKind(t, err, ErrRefused)
}

func TestLoosenessID(t *testing.T) {
	for doc, want := range map[string]IDs{
		`{"result":"OK","Id":1001}`: {1001}, `{"Result":"OK","Id":"1001"}`: {1001}, `{"result":"OK","id":[1001,"1002"]}`: {1001, 1002},
	} {
		got, err := clientOf(t, doc).FindCustomers(ctx, LookupPhone, "380000000000", true)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestLoosenessGzipWithoutHeader(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(manyRows(500))
	require.NoError(t, z.Close())
	t.Run("whole", func(t *testing.T) {
		got, err := clientOf(t, packed.String()).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 500)
	})
	t.Run("announced", func(t *testing.T) {
		s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		})
		got, err := newTestClient(t, s).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 500)
	})
	t.Run("announced but plain", func(t *testing.T) {
		s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(manyRows(5))
		})
		got, err := newTestClient(t, s).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Len(t, got.Rows, 5)
	})
	t.Run("truncated", func(t *testing.T) {
		_, err := clientOf(t, packed.String()[:packed.Len()/2]).CustomerBindings(ctx)
		requireKind(t, err, ErrMalformed)
	})
	t.Run("damaged", func(t *testing.T) {
		b := bytes.Clone(packed.Bytes())
		b[len(b)-6] ^= 0xff
		_, err := clientOf(t, string(b)).CustomerBindings(ctx)
		requireKind(t, err, ErrMalformed)
	})
	t.Run("bomb", func(t *testing.T) {
		var bomb bytes.Buffer
		z := gzip.NewWriter(&bomb)
		_, _ = z.Write([]byte(`{"result":"`))
		_, _ = z.Write(bytes.Repeat([]byte("x"), 1<<20))
		require.NoError(t, z.Close())
		_, err := clientOf(t, bomb.String(), func(o *Options) { o.MaxBody = 64 << 10 }).CustomerBindings(ctx)
		require.Contains(t, requireKind(t, err, ErrMalformed).Text, "larger than 65536 bytes")
	})
}

func TestBodyLimit(t *testing.T) {
	doc := `{"result":"OK","data":[1,2,3]}`
	limit := func(n int) func(*Options) { return func(o *Options) { o.MaxBody = int64(n) } }
	_, err := clientOf(t, doc, limit(len(doc))).CustomerIDs(ctx, CustomerFilter{State: new(1)})
	require.NoError(t, err)
	_, err = clientOf(t, doc, limit(len(doc)-1)).CustomerIDs(ctx, CustomerFilter{State: new(1)})
	require.Contains(t, requireKind(t, err, ErrMalformed).Text, fmt.Sprintf("larger than %d bytes", len(doc)-1))
}

func TestRequestShape(t *testing.T) {
	t.Run("read is GET", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
		_, err := newTestClient(t, s, func(o *Options) { o.SkipInternalAPI = true }).CustomerIDs(ctx, CustomerFilter{State: new(2), Name: "Test & B", NameLike: true, Limit: 5})
		require.NoError(t, err)
		c := s.seen()[0]
		require.Equal(t, "GET", c.method)
		require.Empty(t, c.form)
		require.Equal(t, url.Values{"key": {testKey}, "cat": {"customer"}, "action": {"get_customers_id"}, "state_id": {"2"},
			"name": {"Test & B"}, "is_like": {"1"}, "limit": {"5"}}, c.query)
		require.Equal(t, "usher", c.header.Get("User-Agent"))
	})
	t.Run("write is POST with a form", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
		c := newTestClient(t, s, func(o *Options) { o.SkipInternalAPI = true })
		require.NoError(t, c.SetMACByIP(ctx, ip("100.64.0.10"), mac("00005e005301")))
		require.NoError(t, c.ChangeState(ctx, 1001, 0))
		seen := s.seen()
		require.Equal(t, "POST", seen[0].method)
		require.Equal(t, url.Values{"key": {testKey}, "cat": {"customer"}, "action": {"set_mac_by_ip"}}, seen[0].query)
		require.Equal(t, url.Values{"ip": {"100.64.0.10"}, "mac": {"00:00:5e:00:53:01"}, "skip_internal_api": {"1"}}, seen[0].form)
		require.Equal(t, "application/x-www-form-urlencoded", seen[0].header.Get("Content-Type"))
		require.Equal(t, url.Values{"customer_id": {"1001"}, "state_id": {"0"}, "skip_internal_api": {"1"}}, seen[1].form)
	})
	t.Run("long read is POST", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
		c := newTestClient(t, s)
		ids := make([]int64, 400)
		for i := range ids {
			ids[i] = int64(10_000 + i)
		}
		got, err := c.Customers(ctx, ids)
		require.NoError(t, err)
		require.Equal(t, ids, got.Missing)
		_, err = c.Customers(ctx, ids[:3])
		require.NoError(t, err)
		seen := s.seen()
		require.Equal(t, "POST", seen[0].method)
		require.Equal(t, 399, strings.Count(seen[0].form.Get("customer_id"), ","))
		require.Equal(t, "get_data", seen[0].query.Get("action"))
		require.Equal(t, "GET", seen[1].method)
		require.Equal(t, "10000,10001,10002", seen[1].query.Get("customer_id"))
	})
	t.Run("subcat", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
		_, err := newTestClient(t, s, func(o *Options) { o.ActionParameter = "subcat" }).CustomerBindings(ctx)
		require.NoError(t, err)
		require.Equal(t, "get_ip_port_device_commutation", s.seen()[0].query.Get("subcat"))
		require.False(t, s.seen()[0].query.Has("action"))
	})
	t.Run("every action of the table is sent as it says", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK","Id":1,"data":{"erp_version":"3.19"}}`))
		c := newTestClient(t, s)
		for i, a := range Actions() {
			_, err := c.call(ctx, action(i), nil, sink{})
			require.NoError(t, err)
			got := s.seen()[i]
			require.Equal(t, a.Write, got.method == "POST")
			require.Equal(t, a.Label(), got.query.Get("cat")+"."+got.query.Get("action"))
		}
	})
}

func TestBadArgumentsAreNotSent(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
	c := newTestClient(t, s)
	for name, err := range map[string]error{
		"no condition":        func() error { _, err := c.CustomerIDs(ctx, CustomerFilter{}); return err }(),
		"only modifiers":      func() error { _, err := c.CustomerIDs(ctx, CustomerFilter{NameLike: true, Limit: 5}); return err }(),
		"customer 0":          func() error { _, err := c.Customer(ctx, 0); return err }(),
		"state of customer 0": c.ChangeState(ctx, 0, 1),
		"state 3":             c.ChangeState(ctx, 1, 3),
		"no address":          c.SetMACByIP(ctx, ip("0.0.0.0"), mac("00005e005301")),
		"IPv6":                c.SetMACByIP(ctx, ip("2001:db8::1"), mac("00005e005301")),
		"no MAC":              c.SetMACByIP(ctx, ip("100.64.0.10"), MAC{}),
		"lookup of nothing":   func() error { _, err := c.FindCustomers(ctx, LookupLogin, " ", false); return err }(),
		"unknown lookup":      func() error { _, err := c.FindCustomers(ctx, "shoe", "x", false); return err }(),
		"lookup of bad ip":    func() error { _, err := c.FindCustomers(ctx, LookupIP, "x", false); return err }(),
		"lookup of bad mac":   func() error { _, err := c.FindCustomers(ctx, LookupMAC, "x", false); return err }(),
		"chain of nobody":     func() error { _, err := c.CustomerChain(ctx, 0); return err }(),
	} {
		t.Run(name, func(t *testing.T) { requireKind(t, err, ErrArgument) })
	}
	require.Empty(t, s.seen())
}

func TestRetries(t *testing.T) {
	good := answerWith(200, `{"result":"OK","data":[{"customer_id":1,"ip":"100.64.0.1"}]}`)
	cut := func(w http.ResponseWriter, _ *http.Request) { // rows, then the connection breaks
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"result":"OK","data":[{"customer_id":9,"ip":"100.64.0.9"},`)
	}
	hangUp := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	read := func(c *Client) error {
		got, err := c.CustomerBindings(ctx)
		if err == nil && (len(got.Rows) != 1 || got.Rows[0].Customer != 1) {
			return fmt.Errorf("rows of a broken attempt came through: %+v", got.Rows)
		}
		return err
	}
	write := func(c *Client) error { return c.ChangeState(ctx, 1, 1) }
	tests := map[string]struct {
		first http.HandlerFunc
		do    func(*Client) error
		opts  func(*Options)
		kind  error // nil: succeeds
		calls int
	}{
		"5xx":                                  {answerWith(503, "x"), read, nil, nil, 2},
		"429":                                  {answerWith(429, "x"), read, nil, nil, 2},
		"connection closed":                    {hangUp, read, nil, nil, 2},
		"cut inside the rows":                  {cut, read, nil, nil, 2},
		"refusal is not retried":               {answerWith(400, `{"error":"x"}`), read, nil, ErrRefused, 1},
		"403 is not retried":                   {answerWith(403, `x`), read, nil, ErrPermission, 1},
		"malformed is not retried":             {answerWith(200, `x`), read, nil, ErrMalformed, 1},
		"truncated is not retried":             {answerWith(200, `{"result":`), read, nil, ErrMalformed, 1},
		"no retries configured":                {answerWith(503, "x"), read, func(o *Options) { o.Retries = 0 }, ErrUnavailable, 1},
		"a write is sent once, 5xx":            {answerWith(503, "x"), write, nil, ErrUnavailable, 1},
		"a write is sent once, connection":     {hangUp, write, nil, ErrUnavailable, 1},
		"an idempotent write if so configured": {answerWith(503, "x"), write, func(o *Options) { o.RetryIdempotentWrites = true }, nil, 2},
		"Retry-After beyond all bounds gives up": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(503)
		}, read, nil, ErrUnavailable, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, tt.first, good)
			c := newTestClient(t, s, func(o *Options) { o.Retries = 3 }, func(o *Options) {
				if tt.opts != nil {
					tt.opts(o)
				}
			})
			err := tt.do(c)
			if tt.kind == nil {
				require.NoError(t, err)
			} else {
				requireKind(t, err, tt.kind)
			}
			require.Len(t, s.seen(), tt.calls)
		})
	}
	t.Run("gives up after all retries", func(t *testing.T) {
		s := newTestServer(t, answerWith(500, "x"))
		requireKind(t, read(newTestClient(t, s, func(o *Options) { o.Retries = 4 })), ErrUnavailable)
		require.Len(t, s.seen(), 5)
	})
}

// roundTrip is a transport without a network, for tests of time.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func newTimeClient(t *testing.T, o Options, rt roundTrip) *Client {
	t.Helper()
	o.URL, o.Key, o.Transport = "http://192.0.2.1/api.php", testKey, rt
	c, err := New(o)
	require.NoError(t, err)
	return c
}

func TestBackoffDoublesWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		c := newTimeClient(t, Options{Retries: 5, BackoffBase: time.Second, BackoffMax: 5 * time.Second}, func(*http.Request) (*http.Response, error) {
			at = append(at, time.Now())
			return response(500, ""), nil
		})
		_, err := c.CustomerBindings(ctx)
		requireKind(t, err, ErrUnavailable)
		require.Len(t, at, 6)
		for i, top := range []time.Duration{1, 2, 4, 5, 5} {
			wait := at[i+1].Sub(at[i])
			assert.LessOrEqual(t, wait, top*time.Second, "wait %d", i)
			assert.GreaterOrEqual(t, wait, top*time.Second/2, "wait %d", i)
		}
	})
}

func TestBackoffIsBounded(t *testing.T) {
	c := newTimeClient(t, Options{BackoffBase: time.Hour, BackoffMax: 2 * time.Hour}, nil)
	for attempt := range 200 {
		d := c.backoff(attempt, 0)
		require.LessOrEqual(t, d, 2*time.Hour)
		require.GreaterOrEqual(t, d, 30*time.Minute)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, status := range map[string]int{"too many requests": 429, "unavailable": 503} {
		for form, header := range map[string]func() string{
			"seconds": func() string { return "40" },
			"date":    func() string { return time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat) },
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					begin, n := time.Now(), 0
					c := newTimeClient(t, Options{Retries: 1, BackoffBase: time.Millisecond}, func(*http.Request) (*http.Response, error) {
						if n++; n == 1 {
							return response(status, "", "Retry-After", header()), nil
						}
						return response(200, `{"result":"OK"}`), nil
					})
					_, err := c.CustomerBindings(ctx)
					require.NoError(t, err)
					require.InDelta(t, 40, time.Since(begin).Seconds(), 1)
				})
			})
		}
	}
	require.Zero(t, retryAfter("soon", time.Now()))
	require.Zero(t, retryAfter("-5", time.Now()))
	require.Zero(t, retryAfter(time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now()))
}

func TestTimeoutPerAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		o := &observed{}
		c := newTimeClient(t, Options{Retries: 1, Timeout: 3 * time.Second, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond, Observer: o},
			func(r *http.Request) (*http.Response, error) {
				n++
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
		begin := time.Now()
		_, err := c.CustomerBindings(ctx)
		e := requireKind(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Contains(t, e.Text, "no answer within 3s")
		require.Equal(t, 2, n)
		require.InDelta(t, 6, time.Since(begin).Seconds(), 0.1)
		require.Equal(t, []string{"customer.get_ip_port_device_commutation timeout", "customer.get_ip_port_device_commutation timeout"}, o.all())
	})
}

// slowBody gives its rows, then nothing more until the request is given up.
type slowBody struct {
	io.Reader
	ctx context.Context
}

func (b slowBody) Read(p []byte) (int, error) {
	if n, _ := b.Reader.Read(p); n > 0 {
		return n, nil
	}
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}
func (slowBody) Close() error { return nil }

func TestTimeoutCoversTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTimeClient(t, Options{Timeout: 3 * time.Second}, func(r *http.Request) (*http.Response, error) {
			resp := response(200, "")
			resp.Body = slowBody{strings.NewReader(`{"result":"OK","data":[{"customer_id":1,"ip":"100.64.0.1"},`), r.Context()}
			return resp, nil
		})
		_, err := c.CustomerBindings(ctx)
		requireKind(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestCallerEndsTheCall(t *testing.T) {
	t.Run("during the call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := &observed{}
			c := newTimeClient(t, Options{Retries: 5, Observer: o}, func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			_, err := c.CustomerBindings(ctx)
			requireKind(t, err, ErrUnavailable)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, []string{"customer.get_ip_port_device_commutation canceled"}, o.all())
		})
	})
	t.Run("during the wait for a retry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTimeClient(t, Options{Retries: 5, BackoffBase: time.Hour, BackoffMax: time.Hour}, func(*http.Request) (*http.Response, error) {
				return response(500, `{"error":"down"}`), nil
			})
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			begin := time.Now()
			_, err := c.CustomerBindings(ctx)
			require.Contains(t, requireKind(t, err, ErrUnavailable).Text, "down")
			require.Equal(t, time.Second, time.Since(begin))
		})
	})
	t.Run("no wait beyond the deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newTimeClient(t, Options{Retries: 5, BackoffBase: 20 * time.Second, BackoffMax: 20 * time.Second}, func(*http.Request) (*http.Response, error) {
				return response(500, "down"), nil
			})
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			begin := time.Now()
			_, err := c.CustomerBindings(ctx)
			requireKind(t, err, ErrUnavailable)
			require.Zero(t, time.Since(begin))
		})
	})
}

func TestGate(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		t.Run(fmt.Sprintf("limit %d", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now, most atomic.Int32
				c := newTimeClient(t, Options{MaxConcurrent: limit}, func(*http.Request) (*http.Response, error) {
					most.Store(max(most.Load(), now.Add(1)))
					time.Sleep(time.Second) // of the bubble's clock
					now.Add(-1)
					return response(200, `{"result":"OK"}`), nil
				})
				begin := time.Now()
				errs := make(chan error)
				for range 6 {
					go func() { errs <- c.ChangeState(ctx, 1, 1) }()
				}
				for range 6 {
					require.NoError(t, <-errs)
				}
				want := max(limit, 1)
				require.EqualValues(t, want, most.Load())
				require.Equal(t, time.Duration(6/want)*time.Second, time.Since(begin))
			})
		})
	}
	t.Run("a waiting call can be ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			c := newTimeClient(t, Options{}, func(*http.Request) (*http.Response, error) {
				<-release
				return response(200, `{"result":"OK"}`), nil
			})
			first := make(chan error)
			go func() { first <- c.ChangeState(context.Background(), 1, 1) }()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err := c.ChangeState(ctx, 2, 1)
			require.Contains(t, requireKind(t, err, ErrUnavailable).Text, "waiting")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			close(release)
			require.NoError(t, <-first)
		})
	})
}

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
				requireKind(t, err, err.(*Error).Kind)
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
	require.Contains(t, requireKind(t, err, ErrMalformed).Text, "redirected to "+other.URL)
	require.False(t, reached.Load())
}

func TestExcerptIsPrintableAndBounded(t *testing.T) {
	_, err := clientOf(t, "\x1b[31mRED\x00\x07\xff\u202e "+strings.Repeat("long ", 1000)).CustomerBindings(ctx)
	text := requireKind(t, err, ErrMalformed).Text
	require.Contains(t, text, ".[31mRED....")
	require.True(t, strings.HasSuffix(text, "..."))
	require.NotContains(t, text, "\x1b")
}

// Deep inside a document there are customers, so an error there shows none of it.
func TestExcerptShowsNoCustomers(t *testing.T) {
	_, err := clientOf(t, `{"result":"OK","data":[{"full_name":"Ivanov","phone":"380000000000"},{"full_name":?]}`).CustomerBindings(ctx)
	text := requireKind(t, err, ErrMalformed).Text
	require.Contains(t, text, "no value at byte 82")
	require.NotContains(t, text, "Ivanov")
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(answerWith(200, `{"result":"OK","data":{"erp_version":"3.19"}}`))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	s.StartTLS()
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	for name, tt := range map[string]struct {
		change func(*Options)
		ok     bool
	}{
		"unknown authority": {func(*Options) {}, false},
		"ca file":           {func(o *Options) { o.CAFile = file }, true},
		"insecure":          {func(o *Options) { o.InsecureSkipVerify = true }, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{URL: s.URL + "/api.php", Key: testKey}
			tt.change(&o)
			c, err := New(o)
			require.NoError(t, err)
			t.Cleanup(c.CloseIdle)
			info, err := c.SystemInfo(ctx)
			if tt.ok {
				require.NoError(t, err)
				require.Equal(t, "3.19", info.Version.Text())
				return
			}
			require.Contains(t, requireKind(t, err, ErrUnavailable).Text, "certificate")
		})
	}
}

func TestNewRefuses(t *testing.T) {
	const good = "https://erp.example/api.php"
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"no url":            {Options{Key: testKey}, "url: is empty"},
		"no key":            {Options{URL: good}, "key: is empty"},
		"key with newline":  {Options{URL: good, Key: testKey + "\n"}, "line break"},
		"long key":          {Options{URL: good, Key: Key(strings.Repeat(testKey, 30))}, "longer than"},
		"ftp":               {Options{URL: "ftp://erp.example/api.php", Key: testKey}, "http:// or https://"},
		"no host":           {Options{URL: "http:///api.php", Key: testKey}, "no host"},
		"no script":         {Options{URL: "https://erp.example/", Key: testKey}, "must end with /api.php"},
		"key in the url":    {Options{URL: good + "?key=" + url.QueryEscape(testKey), Key: testKey}, "without query"},
		"unparsable":        {Options{URL: "https://erp.example/%zz" + testKey, Key: testKey}, "cannot be parsed"},
		"credentials":       {Options{URL: "https://u:p@erp.example/api.php", Key: testKey}, "credentials"},
		"negative retries":  {Options{URL: good, Key: testKey, Retries: -1}, "retries: -1"},
		"negative gate":     {Options{URL: good, Key: testKey, MaxConcurrent: -1}, "-1 is negative"},
		"negative time-out": {Options{URL: good, Key: testKey, Timeout: -1}, "negative"},
		"action parameter":  {Options{URL: good, Key: testKey, ActionParameter: "subkat"}, `"subkat"`},
		"missing ca file":   {Options{URL: good, Key: testKey, CAFile: "/nonexistent.pem"}, "ca file"},
		"empty ca file":     {Options{URL: good, Key: testKey, CAFile: empty}, "holds no PEM certificate"},
		"transport and ca":  {Options{URL: good, Key: testKey, CAFile: empty, Transport: http.DefaultTransport}, "own transport"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tt.o)
			require.ErrorContains(t, err, tt.want)
			requireNoKey(t, err.Error())
		})
	}
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"result":"OK","data":{}}`, `{"Result":"ERROR","ErrorText":"x"}`, `{"result":"0","msg":"m"}`, "\xef\xbb\xbf{}", `[]`, `<html>`,
		`{"result":"OK","Id":[1]}`, `{"data":[{"id":1}],"error":{"a":["b"]}}`, "\x1f\x8b\x08"} {
		f.Add([]byte(s))
	}
	c := &Client{redactor: newRedactor(testKey), opts: Options{Location: time.UTC}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var customers Customers
		b := newBody(bytes.NewReader(doc), 1<<16)
		a, err := b.decode(sink{whole: func(v value) { c.readCustomers(&customers, v) }})
		if err != nil {
			requireNoKey(t, c.malformed(actions[0], 200, b, err).Error.Error())
			return
		}
		if fail := c.judge(actions[0], 200, a, sink{}); fail != nil && len(fail.Text) > maxText+3 {
			t.Fatal("unbounded text")
		}
		for _, got := range customers.Customers {
			if got.ID <= 0 {
				t.Fatalf("customer %d", got.ID)
			}
		}
	})
}
