package emulator

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const testKey = "test-key"

// testNow is the clock of the tests.
var testNow = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// open makes an emulator for a test; Keys and Now are filled in.
func open(t testing.TB, o Options) *Emulator {
	t.Helper()
	if o.Keys == nil {
		o.Keys = []Key{{Key: testKey}}
	}
	if o.Now == nil {
		o.Now = func() time.Time { return testNow }
	}
	e, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// reply is what came back from a call.
type reply struct {
	status int
	body   string
}

// call asks e, with the method given and everything in the query string.
// Parameters are written as one query string without the key.
func call(t testing.TB, e *Emulator, method, params string) reply {
	t.Helper()
	req := httptest.NewRequest(method, "/api.php?key="+testKey+"&"+params, nil)
	return serve(e, req)
}

func get(t testing.TB, e *Emulator, params string) reply {
	t.Helper()
	return call(t, e, http.MethodGet, params)
}

// post sends the parameters as a form, the key in the query string.
func post(t testing.TB, e *Emulator, params string) reply {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/api.php?key="+testKey, strings.NewReader(params))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return serve(e, req)
}

func serve(h http.Handler, req *http.Request) reply {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return reply{rec.Code, rec.Body.String()}
}

// decode reads an answer as a tree, with its numbers as json.Number.
func decode(t testing.TB, body string) any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(body))
	dec.UseNumber()
	var v any
	require.NoError(t, dec.Decode(&v), "body: %.300s", body)
	_, err := dec.Token()
	require.ErrorIs(t, err, io.EOF, "text after the JSON: %.300s", body)
	return v
}

// at walks down a decoded answer by keys and indices.
func at(t testing.TB, v any, path ...any) any {
	t.Helper()
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			require.True(t, ok, "%v: not an object: %v", p, v)
			v, ok = m[p]
			require.True(t, ok, "no key %q in %v", p, m)
		case int:
			l, ok := v.([]any)
			require.True(t, ok, "%v: not a list: %v", p, v)
			require.Greater(t, len(l), p)
			v = l[p]
		}
	}
	return v
}

// mac and ip are for literals in tests.
func mac(t testing.TB, s string) MAC {
	t.Helper()
	m, err := ParseMAC(s)
	require.NoError(t, err)
	return m
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// small builds the network that most tests look at, by hand:
//
//	1001 active, one address with MAC, switch 6001 port 5
//	1002 paused, two addresses, one without MAC, port 6
//	1003 stopped, no port, no MAC
//	1004 active, a MAC-only entry and a subnet, behind cross 301 at port 7
//	1005 former, no address
func small(t testing.TB, o Options) *Emulator {
	t.Helper()
	e := open(t, o)
	_, err := e.AddDevice(Device{ID: 6001, Name: "sw1", Model: "Test 4", MAC: mac(t, "00:00:5e:00:53:f0"), IP: ip("10.0.0.2"), VLAN: 100,
		Ports: []Port{{5, 10005, "Gi0/5"}, {6, 10006, "Gi0/6"}, {7, 10007, "Gi0/7"}, {25, 10025, "Gi0/25"}}, Uplinks: []uint32{25},
		Community: "secret-community", Login: "root", Password: "secret-password"})
	require.NoError(t, err)
	_, err = e.AddDevice(Device{ID: 6003, Name: "sw2"})
	require.NoError(t, err)
	require.NoError(t, e.AddVLAN(VLAN{ID: 100, Name: "v100", Subnet: netip.MustParsePrefix("100.64.0.0/24")}))
	for _, c := range []Customer{
		{ID: 1001, Login: "u1001", FullName: `Test "A" & Co`, State: StateActive, BalanceCents: 1250, AccountNumber: "10001", BillingUID: "501",
			AgreementNumber: "A-1", Group: 2, Phones: []string{"380000000001"}, Emails: []string{"u1001@example.net"}, House: 55, Tariff: "12",
			Comment: "line 1\nline 2", Addresses: []Address{{IP: ip("100.64.0.10"), MAC: mac(t, "00:00:5e:00:53:01")}}, Links: []Link{{Device: 6001, Port: 5}}},
		{ID: 1002, Login: "u1002", FullName: "Абонент 2", State: StatePause, BalanceCents: -50, AccountNumber: "10002", BillingUID: "502", Phones: []string{"380000000001"},
			Manager: 3, Apartment: "7a", Connected: time.Date(2025, 1, 15, 0, 0, 0, 0, time.UTC),
			Addresses: []Address{{IP: ip("100.64.0.20"), MAC: mac(t, "00:00:5e:00:53:02")}, {IP: ip("100.64.0.21")}}, Links: []Link{{Device: 6001, Port: 6}}},
		{ID: 1003, Login: "u1003", State: StateStop, Corporate: true, Marks: []int64{7}, Addresses: []Address{{IP: ip("100.64.0.30")}}},
		{ID: 1004, Login: "u1004", State: StateActive, Addresses: []Address{{MAC: mac(t, "00:00:5e:00:53:04")}, {Net: netip.MustParsePrefix("192.0.2.0/29")}},
			Links: []Link{{Device: 6001, Port: 7, Cross: 301}}},
		{ID: 1005, Login: "u1005", State: StateStop, Former: true, Phones: []string{"380000000001"}},
	} {
		_, err := e.AddCustomer(c)
		require.NoError(t, err)
	}
	return e
}

func TestOpenRefuses(t *testing.T) {
	key := []Key{{Key: "k"}}
	tests := map[string]struct {
		o    Options
		want string
	}{
		"no key":           {Options{}, "emulator: no API key given"},
		"empty key":        {Options{Keys: []Key{{Key: "k"}, {}}}, "emulator: key 2: empty key"},
		"bad key address":  {Options{Keys: []Key{{Key: "k", IP: "10.0.0"}}}, `emulator: key 1: ip "10.0.0": want * or an address`},
		"bad profile":      {Options{Keys: key, Profile: 9}, "emulator: unknown profile(9)"},
		"bad shape":        {Options{Keys: key, Shape: 'G'}, `emulator: shape "G": want a letter from A to F`},
		"negative number":  {Options{Keys: key, Customers: -1}, "emulator: -1 customers: want 0 to 1000000"},
		"bad quirk":        {Options{Keys: key, Quirks: Quirks{HTMLPage: 7}}, "emulator: quirks: html_page 7: want 0 or an HTTP status"},
		"bad action name":  {Options{Keys: key, Quirks: Quirks{MissingActions: []string{"get_data"}}}, `emulator: quirks: missing_actions "get_data": want category.action`},
		"missing data dir": {Options{Keys: key, Path: "/nonexistent/erp.db"}, "emulator: open data file: open /nonexistent/erp.db: no such file or directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Open(tt.o)
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestParsers(t *testing.T) {
	for _, p := range Profiles() {
		got, err := ParseProfile(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	_, err := ParseProfile("3.21")
	require.EqualError(t, err, `profile "3.21": want v316, legacy, modern or v321`)
	for s, want := range map[string]Shape{"A": ShapeA, "b": ShapeB, "F": ShapeF} {
		got, err := ParseShape(s)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, bad := range []string{"", "G", "AB", "1"} {
		_, err := ParseShape(bad)
		require.ErrorContains(t, err, "want a letter from A to F")
	}
	_, err = ParseState("3")
	require.EqualError(t, err, `state "3": want stop (0), pause (1) or active (2)`)
	for _, bad := range []string{"", "00-00-5e-00-53-01", "00005e005301", "00:00:5e:00:53:0g", "00:00:5e:00:53:01:02"} {
		_, err := ParseMAC(bad)
		require.ErrorContains(t, err, "want the form 00:11:22:33:44:55", bad)
	}
	require.NotContains(t, Key{Key: "hidden", IP: "10.0.0.1"}.String(), "hidden")
}

func TestProfiles(t *testing.T) {
	const readCustomer = "cat=customer&action=get_data&customer_id="
	type want struct {
		status int
		body   string
	}
	tests := map[string]struct {
		method, params         string
		legacy, modern, newest want
	}{
		"write by GET": {"GET", "cat=customer&action=state_change&customer_id=1001&state_id=1",
			want{200, `{"Result":"OK"}`}, want{200, `{"result":"OK"}`},
			want{405, `{"result":"ERROR","error":"requests that change data must be sent by POST"}`}},
		"write by POST, all in the query": {"POST", "cat=customer&action=state_change&customer_id=1001&state_id=1",
			want{200, `{"Result":"OK"}`}, want{200, `{"result":"OK"}`}, want{200, `{"result":"OK"}`}},
		"read by POST": {"POST", "cat=customer&action=get_customers_id&limit=2",
			want{200, `{"Result":"OK","data":["1001","1002"]}`}, want{200, `{"result":"OK","data":[1001,1002]}`}, want{200, `{"result":"OK","data":[1001,1002]}`}},
		"unknown customer": {"GET", readCustomer + "77",
			want{200, `{"Result":"ERROR","ErrorText":"customer not found"}`},
			want{404, `{"result":"ERROR","error":"customer not found"}`}, want{404, `{"result":"ERROR","error":"customer not found"}`}},
		"missing parameter": {"GET", "cat=customer&action=get_mac_history",
			want{200, `{"Result":"ERROR","ErrorText":"parameter customer_id is missing"}`},
			want{400, `{"result":"ERROR","error":"parameter customer_id is missing"}`}, want{400, `{"result":"ERROR","error":"parameter customer_id is missing"}`}},
		"unknown action": {"GET", "cat=customer&action=list_tarif_available",
			want{200, `{"Result":"ERROR","ErrorText":"unknown action"}`},
			want{400, `{"result":"ERROR","error":"unknown action"}`}, want{400, `{"result":"ERROR","error":"unknown action"}`}},
		"unknown category": {"GET", "cat=nothing&action=get_data",
			want{200, `{"Result":"ERROR","ErrorText":"unknown action"}`},
			want{400, `{"result":"ERROR","error":"unknown action"}`}, want{400, `{"result":"ERROR","error":"unknown action"}`}},
		"old names": {"GET", "cat=abon&subcat=get_mac_history&usercode=1001",
			want{200, `{"Result":"OK","data":[]}`},
			want{400, `{"result":"ERROR","error":"parameter customer_id is missing"}`}, want{400, `{"result":"ERROR","error":"parameter customer_id is missing"}`}},
		"subcat and abon": {"GET", "cat=abon&subcat=get_mac_history&customer_id=1001",
			want{200, `{"Result":"OK","data":[]}`}, want{200, `{"result":"OK","data":[]}`}, want{200, `{"result":"OK","data":[]}`}},
		"nothing found": {"GET", "cat=customer&action=get_customers_id&name=nobody",
			want{200, `{"Result":"OK"}`}, want{200, `{"result":"OK","data":[]}`}, want{200, `{"result":"OK","data":[]}`}},
		"module has no envelope": {"GET", "cat=module&request=get_user_state_list",
			want{200, `{"0":{"id":"0","name":"\u0421\u0442\u043e\u043f","functional":"disable"},"1":{"id":"1","name":"\u041f\u0430\u0443\u0437\u0430","functional":"pause"},"2":{"id":"2","name":"\u0410\u043a\u0442\u0438\u0432\u0435\u043d","functional":"work"}}`},
			want{200, `{"0":{"id":0,"name":"Стоп","functional":"disable"},"1":{"id":1,"name":"Пауза","functional":"pause"},"2":{"id":2,"name":"Активен","functional":"work"}}`},
			want{200, `{"0":{"id":0,"name":"Стоп","functional":"disable"},"1":{"id":1,"name":"Пауза","functional":"pause"},"2":{"id":2,"name":"Активен","functional":"work"}}`}},
		"system info": {"GET", "cat=system&action=get_system_info",
			want{200, `{"Result":"OK","data":{"erp_version":"3.16.30","date_time_unix":"1770091506","date_time_string":"2026-02-03 04:05:06","os":"Linux","php_version":"7.2.34"}}`},
			want{200, `{"result":"OK","data":{"erp_version":"3.19.5","date_time_unix":1770091506,"date_time_string":"2026-02-03 04:05:06","os":"Linux","php_version":"8.1.27"}}`},
			want{200, `{"result":"OK","data":{"erp_version":"3.21.2","date_time_unix":1770091506,"date_time_string":"2026-02-03 04:05:06","os":"Linux","php_version":"8.3.6"}}`}},
		"empty keyed object": {"GET", "cat=commutation&action=get_data&object_type=switch&object_id=9",
			want{200, `{"Result":"OK","data":[]}`}, want{200, `{"result":"OK","data":{}}`}, want{200, `{"result":"OK","data":{}}`}},
		"device id": {"GET", "cat=device&action=get_device_id&object_type=switch&data_typer=ip&data_value=10.0.0.2",
			want{200, `{"Result":"OK","Id":"6001"}`}, want{200, `{"result":"OK","id":6001}`}, want{200, `{"result":"OK","id":6001}`}},
	}
	for name, tt := range tests {
		for p, want := range map[Profile]want{ProfileLegacy: tt.legacy, ProfileModern: tt.modern, ProfileV321: tt.newest} {
			t.Run(name+" "+p.String(), func(t *testing.T) {
				got := call(t, small(t, Options{Profile: p}), tt.method, tt.params)
				require.Equal(t, want.status, got.status)
				require.Equal(t, want.body, got.body)
			})
		}
	}
}

// The write that v321 refuses must not have happened.
func TestRefusedWriteChangesNothing(t *testing.T) {
	e := small(t, Options{Profile: ProfileV321})
	require.Equal(t, 405, get(t, e, "cat=customer&action=state_change&customer_id=1001&state_id=0").status)
	c, ok := e.Customer(1001)
	require.True(t, ok)
	require.Equal(t, StateActive, c.State)
}

func TestKeys(t *testing.T) {
	e := small(t, Options{Keys: []Key{
		{Key: "far", IP: "198.51.100.1"},
		{Key: "near", IP: "192.0.2.1"},
		{Key: "part", Sections: []string{"device"}},
		{Key: "part", IP: "192.0.2.1", Sections: []string{"system"}},
		{Key: "old", Sections: []string{"abon"}},
	}})
	tests := map[string]struct {
		key, from, params string
		want              int
		text              string
	}{
		"no key":              {"", "192.0.2.1:1", "cat=system&action=get_system_info", 403, "unknown key"},
		"unknown key":         {"nope", "192.0.2.1:1", "cat=system&action=get_system_info", 403, "unknown key"},
		"wrong address":       {"far", "192.0.2.1:1", "cat=system&action=get_system_info", 403, "may not be used from your address"},
		"right address":       {"near", "192.0.2.1:1", "cat=system&action=get_system_info", 200, "OK"},
		"mapped address":      {"near", "[::ffff:192.0.2.1]:1", "cat=system&action=get_system_info", 200, "OK"},
		"section":             {"part", "192.0.2.9:1", "cat=device&action=get_data&object_type=all", 200, "OK"},
		"section closed":      {"part", "192.0.2.9:1", "cat=customer&action=get_customers_id&limit=1", 403, "may not use the section"},
		"second entry":        {"part", "192.0.2.1:1", "cat=system&action=get_system_info", 200, "OK"},
		"second entry, other": {"part", "192.0.2.9:1", "cat=system&action=get_system_info", 403, "may not use the section"},
		"abon is customer":    {"old", "192.0.2.1:1", "cat=customer&action=get_customers_id&limit=1", 200, "OK"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequest("GET", "/api.php?key="+url.QueryEscape(tt.key)+"&"+tt.params, nil)
			req.RemoteAddr = tt.from
			got := serve(e, req)
			require.Equal(t, tt.want, got.status, got.body)
			require.Contains(t, got.body, tt.text)
			if tt.key != "" {
				require.NotContains(t, got.body, tt.key+`"`)
			}
		})
	}
	require.Equal(t, 5, e.Calls()["refused"])
}

// Query and form are merged, the form wins, and the last of several values counts.
func TestParametersMerge(t *testing.T) {
	e := small(t, Options{})
	form := func(query, kind, body string) reply {
		req := httptest.NewRequest("POST", "/api.php?key="+testKey+"&cat=customer&"+query, strings.NewReader(body))
		req.Header.Set("Content-Type", kind)
		return serve(e, req)
	}
	const urlencoded = "application/x-www-form-urlencoded"
	require.Equal(t, `{"result":"OK","data":[1003]}`, form("action=get_customers_id&state_id=2", urlencoded, "state_id=0&is_ex=0").body)
	require.Equal(t, `{"result":"OK","data":[1002]}`, get(t, e, "cat=customer&action=get_customers_id&state_id=2&state_id=1").body)
	multi := "--b\r\nContent-Disposition: form-data; name=\"state_id\"\r\n\r\n1\r\n--b--\r\n"
	require.Equal(t, `{"result":"OK","data":[1002]}`, form("action=get_customers_id", "multipart/form-data; boundary=b", multi).body)
	// A JSON body is not read, as on the real server.
	require.Equal(t, 400, form("action=get_customers_id", "application/json", `{"state_id":1}`).status)
	require.Equal(t, 413, form("action=get_customers_id", urlencoded, "state_id="+strings.Repeat("1", maxBody)).status)
	// What cannot be decoded is left out, the rest is used.
	require.Equal(t, `{"result":"OK","data":[1002]}`, get(t, e, "cat=customer&action=get_customers_id&x=%zz&state_id=1").body)
}

func TestOtherPathsAndMethods(t *testing.T) {
	e := small(t, Options{})
	require.Equal(t, 404, serve(e, httptest.NewRequest("GET", "/?key="+testKey, nil)).status)
	require.Equal(t, 405, serve(e, httptest.NewRequest("PUT", "/api.php?key="+testKey, nil)).status)
}

func TestCloseEndsAnswers(t *testing.T) {
	e, err := Open(Options{Keys: []Key{{Key: testKey}}})
	require.NoError(t, err)
	feed := e.Changes(t.Context())
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	require.Equal(t, 503, get(t, e, "cat=system&action=get_system_info").status)
	_, err = e.AddCustomer(Customer{})
	require.ErrorIs(t, err, ErrClosed)
	_, more := <-feed
	require.False(t, more)
	_, more = <-e.Changes(t.Context())
	require.False(t, more)
}

// A call is logged with what was asked and without the key.
func TestLogHidesSecrets(t *testing.T) {
	var log bytes.Buffer
	e := small(t, Options{Log: debugLog(&log)})
	get(t, e, "cat=customer&action=get_data&customer_id=1001&pass_new=hunter2")
	require.Contains(t, log.String(), "customer_id=1001")
	require.NotContains(t, log.String(), testKey)
	require.NotContains(t, log.String(), "hunter2")
}

func TestCallsAreCounted(t *testing.T) {
	e := small(t, Options{})
	get(t, e, "cat=abon&subcat=get_mac_history&customer_id=1001")
	get(t, e, "cat=customer&action=get_mac_history")
	get(t, e, "cat=x&action=y")
	require.Equal(t, map[string]int{"customer.get_mac_history": 2, "unknown": 1}, e.Calls())
}

func debugLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Over a real connection: the answer is streamed, and a client that leaves in
// the middle is no harm to the next.
func TestOverHTTP(t *testing.T) {
	e := open(t, Options{Customers: 5_000})
	srv := httptest.NewServer(e)
	defer srv.Close()
	address := srv.URL + "/api.php?key=" + testKey + "&cat=customer&action=get_ip_port_device_commutation"

	resp, err := srv.Client().Get(address)
	require.NoError(t, err)
	first := make([]byte, 100)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "application/json; charset=utf-8", resp.Header.Get("Content-Type"))
	require.Empty(t, resp.Header.Get("Content-Length"), "streamed")

	resp, err = srv.Client().Get(address)
	require.NoError(t, err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	rows := 0
	for _, c := range e.Customers() {
		rows += len(c.Addresses)
	}
	require.Len(t, at(t, decode(t, string(all)), "data"), rows)
}
