package userside

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
		"a write is sent once, 429":            {answerWith(429, "x"), write, nil, ErrUnavailable, 1},
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
	o.ERPVersion = Version{Major: 3, Minor: 21, Stage: StageRelease}
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
	for name, header := range map[string]string{"seconds": "600", "date": time.Now().Add(600 * time.Second).UTC().Format(http.TimeFormat)} {
		c := newTestClient(t, newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "maintenance")
		}), func(o *Options) { o.Retries = 3 })
		_, err := c.CustomerBindings(ctx)
		require.Regexp(t, `^asks to be left alone for (10m0s|9m5\ds): maintenance$`, errorOf(t, err, ErrUnavailable).Text, "a wait that is not made in %s is told", name)
	}
	require.Zero(t, retryAfter("soon", time.Now()))
	require.Zero(t, retryAfter("-5", time.Now()))
	require.Zero(t, retryAfter(time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now()))
}

// A server that wants to be left alone for longer than a call waits is: no read is sent until then, of whatever lane, at most
// for a quarter of an hour. Changes are.
func TestLongRetryAfterHoldsForAllReads(t *testing.T) {
	for name, tt := range map[string]struct {
		asks string
		rest time.Duration
	}{"ten minutes": {"600", 10 * time.Minute}, "a day": {"86400", 15 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, reads, writes := time.Now(), 0, 0
				c := newTimeClient(t, Options{Retries: 3, BackoffBase: time.Millisecond}, func(r *http.Request) (*http.Response, error) {
					switch {
					case r.Method == http.MethodPost:
						writes++
					case time.Since(begin) < tt.rest:
						reads++
						return response(503, "maintenance", "Retry-After", tt.asks), nil
					}
					return response(200, `{"result":"OK","data":[]}`), nil
				})
				paused := 1
				poll := func(lane Lane) error {
					_, err := c.CustomerIDs(WithLane(ctx, lane), CustomerFilter{State: &paused})
					return err
				}
				for time.Since(begin) < tt.rest {
					for _, lane := range []Lane{LaneBulk, LaneQuick, LaneUrgent} {
						requireKind(t, poll(lane), ErrUnavailable)
					}
					got := c.Pending()
					require.Len(t, got, 1)
					require.True(t, got[0].Slow(time.Now()))
					require.True(t, got[0].AllReads)
					require.Equal(t, fmt.Sprintf("nothing is read for %s, as the server asked in answer to customer.get_customers_id (Retry-After): "+
						"unavailable: http status 503: asks to be left alone for %s: maintenance", tt.rest-time.Since(begin), time.Duration(atoi(t, tt.asks))*time.Second),
						got[0].Text(time.Now()))
					require.NoError(t, c.ChangeState(ctx, 1, 1))
					time.Sleep(time.Minute)
				}
				require.Equal(t, 1, reads)
				require.Equal(t, int(tt.rest/time.Minute), writes)
				require.Empty(t, c.Pending())
				require.NoError(t, poll(LaneQuick))
			})
		})
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
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
		e := errorOf(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Contains(t, e.Text, "no answer within 3s")
		require.Equal(t, 2, n)
		require.InDelta(t, 6, time.Since(begin).Seconds(), 0.1)
		require.Equal(t, []string{"customer.get_ip_port_device_commutation timeout", "customer.get_ip_port_device_commutation timeout"}, o.all())
	})
}

// slowBody returns its rows, then nothing more until the request is given up.
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
			require.Contains(t, errorOf(t, err, ErrUnavailable).Text, "down")
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
	bindings := func(c *Client) error { _, err := c.CustomerBindings(ctx); return err }
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
					go func() { errs <- bindings(c) }()
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
			require.Contains(t, errorOf(t, err, ErrUnavailable).Text, "waiting")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			close(release)
			require.NoError(t, <-first)
		})
	})
}
