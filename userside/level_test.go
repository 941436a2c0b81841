package userside

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A server of each level gets the names that it knows.
func TestParameterNamesByVersion(t *testing.T) {
	type want struct{ name, customer, history, employee string }
	for server, w := range map[string]want{
		"3.12.90":  {"subcat", "usercode", "", ""},
		"3.16dev1": {"subcat", "usercode", "", "operator_id"},
		"3.16.30":  {"subcat", "usercode", "customer_id", "employee_id"},
		"3.17.36":  {"action", "customer_id", "customer_id", "employee_id"},
		"3.19.5":   {"action", "customer_id", "customer_id", "employee_id"},
		"3.21.2":   {"action", "customer_id", "customer_id", "employee_id"},
	} {
		t.Run(server, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
			c := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, server) })
			require.NoError(t, c.ChangeState(ctx, 1001, 0))
			got := s.seen()[0]
			require.Equal(t, "state_change", got.query.Get(w.name))
			require.Equal(t, url.Values{w.customer: {"1001"}, "state_id": {"0"}}, got.form)
			require.Equal(t, "POST", got.method, "writes are posted to every version")

			_, err := c.MACHistory(ctx, 1001)
			if w.history == "" {
				requireKind(t, err, ErrUnsupported)
			} else {
				require.NoError(t, err)
				require.Equal(t, "1001", s.seen()[1].query.Get(w.history))
			}
			before := len(s.seen())
			err = c.ChangeBalance(ctx, BalanceChange{Customer: 1001, Amount: -5.5, Comment: "c", Employee: 3})
			if w.employee == "" {
				require.Equal(t, "employee_id", errorOf(t, err, ErrUnsupported).Param)
				require.Len(t, s.seen(), before, "nothing was sent")
			} else {
				require.NoError(t, err)
				require.Equal(t, "3", s.seen()[before].form.Get(w.employee))
				require.Equal(t, "1001", s.seen()[before].form.Get("customer_id"), "no former name is documented")
				require.Equal(t, "-5.5", s.seen()[before].form.Get("amount"))
			}
			// Other sections have said action for longer; modules say request.
			_, err = c.Tariffs(ctx)
			require.NoError(t, err)
			_, err = c.UserStates(ctx)
			require.NoError(t, err)
			last := s.seen()[len(s.seen())-2:]
			require.Equal(t, "get", last[0].query.Get("action"))
			require.Equal(t, "get_user_state_list", last[1].query.Get("request"))
		})
	}
}

func TestWhatAVersionLacksIsNotSent(t *testing.T) {
	for name, tt := range map[string]struct {
		server string
		call   func(c *Client) error
		text   string
	}{
		"action is newer": {"3.16.30", func(c *Client) error { _, err := c.CustomerGroups(ctx); return err }, "since 3.19beta1; the server is 3.16.30"},
		"action is gone":  {"3.19", func(c *Client) error { _, err := c.AvailableTariffs(ctx, 7); return err }, "removed in 3.13; the server is 3.19"},
		"parameter is newer": {"3.17.30", func(c *Client) error {
			return c.AddIP(ctx, IPAddition{Customer: 7, IP: ip("192.0.2.7"), MAC: mac("00005e005301")})
		}, "mac: since 3.17.36"},
		"word is newer": {"3.18.1", func(c *Client) error { return c.DeleteIP(ctx, 7, AllIPs()) }, "value=all: since 3.19beta1"},
		"condition is newer": {"3.14.57", func(c *Client) error {
			_, err := c.CustomerIDs(ctx, CustomerFilter{State: new(2)})
			return err
		}, "state_id: since 3.14.58"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
			err := tt.call(newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, tt.server) }))
			e := errorOf(t, err, ErrUnsupported)
			require.ErrorIs(t, err, ErrRefused, "it is a refusal for who only asks that")
			require.Contains(t, e.Text, tt.text)
			require.Empty(t, s.seen())
		})
	}
	t.Run("it was there", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"Result":"OK","data":[{"id":"4","name":"a"}]}`))
		got, err := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, "3.12.90") }).AvailableTariffs(ctx, 7)
		require.NoError(t, err)
		require.Equal(t, String("4"), got.Rows[0].ID)
		require.Equal(t, "7", s.seen()[0].query.Get("usercode"))
	})
	t.Run("what was obligatory once", func(t *testing.T) {
		s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
		old := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, "3.15.22") })
		require.ErrorIs(t, old.ChangePassword(ctx, PasswordChange{Customer: 7, New: "n"}), ErrMissing)
		_, err := old.Messages(ctx, MessageFilter{Employee: 3})
		require.ErrorIs(t, err, ErrMissing)
		require.NoError(t, newTestClient(t, s).ChangePassword(ctx, PasswordChange{Customer: 7, New: "n"}))
	})
}

// fakeERP answers by cat and the name under action, subcat or request.
type fakeERP struct {
	mu    sync.Mutex // guards seen
	seen  []string
	rules map[string]string // "system subcat" -> body; no rule: 400
}

func (f *fakeERP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name := ""
	for _, p := range []string{"action", "subcat", "request"} {
		if q.Has(p) {
			name = q.Get("cat") + " " + p
		}
	}
	f.mu.Lock()
	f.seen = append(f.seen, name)
	f.mu.Unlock()
	body, ok := f.rules[name]
	if !ok {
		body = `400 {"error":"unknown"}`
	}
	status := map[string]int{"200": 200, "400": 400, "403": 403, "503": 503}[body[:3]]
	answerWith(status, body[4:])(w, r)
}

func (f *fakeERP) client(t *testing.T, change ...func(*Options)) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return newTestClient(t, &testServer{Server: s}, append([]func(*Options){func(o *Options) { o.ERPVersion = Version{} }}, change...)...)
}

const emptyOK = `200 {"result":"OK","data":[]}`

func TestDetection(t *testing.T) {
	for name, tt := range map[string]struct {
		rules map[string]string
		want  Level
		calls string // of the detection
		then  string // by which a customer action is called
		kind  error
	}{
		"by action": {
			map[string]string{"system action": `200 {"result":"OK","data":{"erp_version":"3.19.5"}}`, "customer action": emptyOK},
			Level{Version: Version{3, 19, 5, StageRelease, 0}, Source: LevelSystem, Text: "3.19.5"}, "system action", "customer action", nil,
		},
		"old server that knows both": {
			map[string]string{"system action": `200 {"Result":"OK","data":{"erp_version":"3.16.30"}}`, "customer subcat": emptyOK},
			Level{Version: Version{3, 16, 30, StageRelease, 0}, Source: LevelSystem, Text: "3.16.30"}, "system action", "customer subcat", nil,
		},
		"old server that knows subcat": {
			map[string]string{"system subcat": `200 {"Result":"OK","data":{"erp_version":"3.12rc2"}}`, "customer subcat": emptyOK},
			Level{Version: Version{3, 12, 0, StageRC, 2}, Source: LevelSystem, Text: "3.12rc2"}, "system action, system subcat", "customer subcat", nil,
		},
		"old error with status 200": {
			map[string]string{"system action": `200 {"Result":"ERROR","ErrorText":"no"}`, "system subcat": `200 {"Result":"OK","erp_version":"3.14.60"}`, "customer subcat": emptyOK},
			Level{Version: Version{3, 14, 60, StageRelease, 0}, Source: LevelSystem, Text: "3.14.60"}, "system action, system subcat", "customer subcat", nil,
		},
		"by module": {
			map[string]string{"system action": `403 {"error":"section"}`, "module request": `200 {"date":"2026-02-03","erp":{"name":"UserSide","version":"3.18.15"}}`, "customer action": emptyOK},
			Level{Version: Version{3, 18, 15, StageRelease, 0}, Source: LevelModule, Text: "3.18.15"}, "system action, module request", "customer action", nil,
		},
		"version of something else": {
			map[string]string{"module request": `200 {"version":"1.6"}`, "customer action": emptyOK},
			Level{Source: LevelAssumed}, "system action, system subcat, module request", "customer action", ErrRefused,
		},
		"forbidden": {
			map[string]string{"system action": `403 {"error":"section"}`, "module request": `403 {"error":"section"}`, "customer action": emptyOK},
			Level{Source: LevelAssumed}, "system action, module request", "customer action", ErrPermission,
		},
		"unreadable version": {
			map[string]string{"system action": `200 {"result":"OK","data":{"erp_version":"newest"}}`, "customer action": emptyOK},
			Level{Source: LevelAssumed, Text: "newest"}, "system action, module request", "customer action", nil,
		},
		"not now": {
			map[string]string{"system action": `503 {"error":"busy"}`, "customer action": emptyOK},
			Level{Source: LevelAssumed}, "system action", "customer action", ErrUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeERP{rules: tt.rules}
			c := f.client(t)
			_, err := c.CustomerBindings(ctx)
			require.NoError(t, err, "the agent goes on")
			got := c.Level(ctx)
			if tt.kind == nil {
				require.NoError(t, got.Err)
			} else {
				require.ErrorIs(t, got.Err, tt.kind)
			}
			got.Err = nil
			require.Equal(t, tt.want, got)
			_, err = c.CustomerBindings(ctx)
			require.NoError(t, err)
			require.Equal(t, tt.calls+", "+tt.then+", "+tt.then, strings.Join(f.seen, ", "), "asked once")
		})
	}
}

func TestDetectionServesSystemInfo(t *testing.T) {
	f := &fakeERP{rules: map[string]string{"system subcat": `200 {"Result":"OK","data":{"erp_version":"3.16.1","os":"Linux"}}`}}
	c := f.client(t)
	for range 2 {
		info, err := c.SystemInfo(ctx)
		require.NoError(t, err)
		require.Equal(t, String("Linux"), info.OS)
	}
	require.Equal(t, "system action, system subcat, system subcat", strings.Join(f.seen, ", "))
}

func TestDetectionIsSharedAndRepeatedOnlyWithReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []string
		bindings, system := `{"result":"OK","data":[]}`, 503
		c := newTimeClient(t, Options{Timeout: time.Minute, MaxConcurrent: 3}, func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, r.URL.Query().Get("cat"))
			if r.URL.Query().Get("cat") == "system" {
				return response(system, `{"result":"OK","data":{"erp_version":"3.19.5"}}`), nil
			}
			return response(200, bindings), nil
		})
		c.opts.ERPVersion = Version{}
		var wg sync.WaitGroup
		call := func() {
			_, _ = c.CustomerBindings(ctx)
		}
		for range 3 {
			wg.Go(call)
		}
		wg.Wait()
		require.Len(t, seen, 4, "three calls, one question")
		require.ErrorIs(t, c.Level(ctx).Err, ErrUnavailable)
		require.Len(t, seen, 4)
		time.Sleep(detectAgain) //nolint:forbidigo // time of the bubble, which ends what is remembered of a server that was down
		system = 200
		require.Equal(t, "3.19.5", c.Level(ctx).Version.String())
		require.Len(t, seen, 5)
		bindings = `{"result":"ERROR"}`
		call()
		call()
		require.Len(t, seen, 7, "a fresh detection is trusted")
		time.Sleep(doubtAfter + time.Second) //nolint:forbidigo // time of the bubble
		call()
		require.Len(t, seen, 9, "the server may have been upgraded: asked again, at once")
		call()
		require.Len(t, seen, 10, "it was not: the call is not made again")
	})
}

// A change of which the answer says neither yes nor no is not made again under the names of another version; one that was refused is.
func TestUncertainChangeIsNotMadeAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		times  int
	}{
		"a hook answers":        {`{"result":"0","msg":"done"}`, 1},
		"nothing is known":      {`{"msg":"done"}`, 1},
		"the names are unknown": {`{"result":"ERROR","error":"no such parameter"}`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				version, changes := "3.16", 0
				c := newTimeClient(t, Options{Timeout: time.Minute}, func(r *http.Request) (*http.Response, error) {
					if r.URL.Query().Get("cat") == "system" {
						return response(200, `{"result":"OK","data":{"erp_version":"`+version+`"}}`), nil
					}
					changes++
					return response(200, tt.answer), nil
				})
				c.opts.ERPVersion = Version{}
				require.Equal(t, "3.16", c.Level(ctx).Version.String())
				version = "3.19"
				time.Sleep(2 * detectAgain) //nolint:forbidigo // time of the bubble
				err := c.ChangeState(ctx, 7, 1)
				require.Error(t, err)
				require.Equal(t, tt.times == 1, errors.Is(err, ErrUncertain))
				require.Equal(t, tt.times, changes)
				require.Equal(t, "3.19", c.Level(ctx).Version.String(), "the question was raised all the same")
			})
		})
	}
}

// A server that only hangs where it is asked for its version holds up no call for longer than a second, and none once it is known.
func TestHangingDetectionHoldsUpNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hangs := true
		c := newTimeClient(t, Options{Timeout: time.Minute}, func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			hang := hangs
			mu.Unlock()
			if r.URL.Query().Get("cat") != "system" {
				return response(200, `{"result":"OK"}`), nil
			}
			if hang {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return response(200, `{"result":"OK","data":{"erp_version":"3.19.5"}}`), nil
		})
		c.opts.ERPVersion = Version{}
		took := func() time.Duration {
			began := time.Now()
			require.NoError(t, c.ChangeState(ctx, 7, 1))
			return time.Since(began)
		}
		require.LessOrEqual(t, took(), levelPatience)
		require.LessOrEqual(t, took(), levelPatience, "it still hangs")
		require.ErrorIs(t, c.Level(ctx).Err, ErrUnavailable, "who wants to know waits")
		require.Zero(t, took())
		time.Sleep(detectAgain) //nolint:forbidigo // time of the bubble
		require.Zero(t, took(), "it is asked again, beside the call")
		synctest.Wait()
		mu.Lock()
		hangs = false
		mu.Unlock()
		time.Sleep(detectTimeout + detectAgain) //nolint:forbidigo // time of the bubble
		require.Zero(t, took())
		synctest.Wait()
		require.Equal(t, "3.19.5", c.Level(ctx).Version.String())
	})
}

// A server from before 3.17 that takes longer to tell its version than calls wait for it: what was sent under a guess, and does
// not fit, is sent again under the right name, and what could not be is not sent before.
func TestSlowDetectionCostsNoCall(t *testing.T) {
	for name, tt := range map[string]struct {
		call func(*Client) error
		sent string
	}{
		"a report":                   {func(c *Client) error { return c.SetMACByIP(ctx, ip("192.0.2.7"), mac("00005e005301")) }, "subcat"},
		"a change that adds":         {func(c *Client) error { return c.AddMark(ctx, 7, 1) }, "subcat"},
		"a change that may be twice": {func(c *Client) error { return c.ChangeState(ctx, 7, 1) }, "action subcat"},
		"a read":                     {func(c *Client) error { _, err := c.CustomerBindings(ctx); return err }, "action subcat"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				c := newTimeClient(t, Options{Timeout: time.Minute}, func(r *http.Request) (*http.Response, error) {
					q := r.URL.Query()
					system := q.Get("cat") == "system"
					if system {
						time.Sleep(700 * time.Millisecond) //nolint:forbidigo // time of the bubble
					}
					named := "subcat"
					if q.Has("action") {
						named = "action"
					}
					if !system {
						sent = append(sent, named)
					}
					switch {
					case named == "action":
						return response(200, `{"Result":"ERROR","ErrorText":"no subcat"}`), nil
					case system:
						return response(200, `{"Result":"OK","erp_version":"3.16.30"}`), nil
					}
					return response(200, `{"Result":"OK","data":[]}`), nil
				})
				c.opts.ERPVersion = Version{}
				began := time.Now()
				require.NoError(t, tt.call(c))
				require.Less(t, time.Since(began), 2*time.Second)
				require.Equal(t, tt.sent, strings.Join(sent, " "))
			})
		})
	}
}

func TestDetectionEndsWithItsCaller(t *testing.T) {
	f := &fakeERP{rules: map[string]string{"system action": `200 {"result":"OK","data":{"erp_version":"3.19.5"}}`}}
	c := f.client(t)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, c.Level(gone).Err, context.Canceled)
	require.Equal(t, LevelAssumed, c.knownLevel().Source)
	require.Equal(t, "3.19.5", c.Level(ctx).Version.String(), "the end of one caller is not remembered")
}

func TestActionParameterIsKept(t *testing.T) {
	f := &fakeERP{rules: map[string]string{"system subcat": `200 {"Result":"OK","data":{"erp_version":"3.19"}}`, "customer subcat": emptyOK}}
	c := f.client(t, func(o *Options) { o.ActionParameter = "subcat" })
	_, err := c.CustomerBindings(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"system subcat", "customer subcat"}, f.seen)
}
