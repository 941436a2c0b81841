package userside

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		n := 0
		for _, a := range Actions() {
			if !a.Until.IsZero() {
				continue
			}
			_, err := c.call(ctx, action(a.Label()), sampleArgs(a), sink{})
			require.NoError(t, err)
			got := s.seen()[n]
			n++
			require.Equal(t, a.Write, got.method == "POST")
			name := "action"
			if a.Category == "module" {
				name = "request"
			}
			require.Equal(t, a.Label(), got.query.Get("cat")+"."+got.query.Get(name))
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
			require.Contains(t, errorOf(t, err, ErrUnavailable).Text, "certificate")
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
