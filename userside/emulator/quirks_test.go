package emulator

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuirks(t *testing.T) {
	const (
		groups   = "cat=customer&action=get_customer_group"
		bindings = "cat=customer&action=get_ip_port_device_commutation"
		customer = "cat=customer&action=get_data&customer_id=1001"
		devices  = "cat=device&action=get_data&object_type=all&is_hide_access_data=1&object_id=6001&dataset=id,name,ip,host,mac,snmp_port"
		none     = "cat=commutation&action=get_data&object_type=switch&object_id=9"
	)
	tests := map[string]struct {
		q      Quirks
		params string
		status int
		want   []string
		absent []string
	}{
		"none": {Quirks{}, groups, 200, []string{`{"1":{"id":1,"name":"Group 1"}`}, nil},
		"numeric_strings": {Quirks{NumericStrings: true}, groups, 200,
			[]string{`{"1":{"id":"1","name":"Group 1"}`}, nil},
		"empty_map_as_list": {Quirks{EmptyMapAsList: true}, none, 200, []string{`"data":[]`}, nil},
		"list_for_map": {Quirks{ListForMap: true}, groups, 200,
			[]string{`"data":[{"id":1,"name":"Group 1"},{"id":2,"name":"Group 2"},{"id":3,"name":"Group 3"}]`}, nil},
		"list_for_map in a customer": {Quirks{ListForMap: true}, customer, 200,
			[]string{`"group":[{"id":2}]`, `"ip_mac":[{"ip":"1681915914","mac":"00005e005301"}]`}, nil},
		"list_for_map when empty": {Quirks{ListForMap: true}, devices + "&node_id=9", 200, []string{`"data":[]`}, nil},
		"list_for_map keeps keys that are data": {Quirks{ListForMap: true}, "cat=commutation&action=get_data&object_type=customer", 200,
			[]string{`"data":{"1001":[{`}, nil},
		"omit_optional": {Quirks{OmitOptional: true}, customer, 200, []string{`"ip_mac"`, `"state_id":2`, `"is_disable":0`},
			[]string{"is_potential", "account_number", `"billing"`, "email", `"comment"`, "manager_id"}},
		"html_escaped": {Quirks{HTMLEscaped: true}, "cat=device&action=get_data&object_type=switch", 200,
			[]string{`"ifName":"Gi0&#047;5"`}, []string{"Gi0/5"}},
		"html_escaped letters": {Quirks{HTMLEscaped: true}, "cat=customer&action=get_data&customer_id=1002", 200,
			[]string{`"full_name":"&#1040;&#1073;&#1086;`}, nil},
		"upper_case_columns": {Quirks{UpperCaseColumns: true}, devices, 200,
			[]string{`"id":6001,`, `"mac":"00005E0053F0"`, `"snmp_port":161`, `"ID":"6001"`, `"MAC":""`, `"HOST":""`, `"IP":"0"`, `"SNMP_PORT":"0"`, `"NAZV":"sw1"`}, nil},
		"id_as_list":           {Quirks{IDAsList: true}, "cat=customer&action=get_abon_id&data_typer=login&data_value=u1001", 200, []string{`"Id":[1001]`}, nil},
		"bare_lookups":         {Quirks{BareLookups: true}, "cat=customer&action=get_abon_id&data_typer=ip&data_value=1681915914", 200, []string{`"Id":1001`}, nil},
		"bare_lookups, dotted": {Quirks{BareLookups: true}, "cat=customer&action=get_abon_id&data_typer=ip&data_value=100.64.0.10", 404, []string{"not found"}, nil},
		"bare_lookups, mac":    {Quirks{BareLookups: true}, "cat=customer&action=get_abon_id&data_typer=mac&data_value=00005e005301", 200, []string{`"Id":1001`}, nil},
		"bare_lookups, colons": {Quirks{BareLookups: true}, "cat=customer&action=get_abon_id&data_typer=mac&data_value=00:00:5e:00:53:01", 404, []string{"not found"}, nil},
		"html_page 200":        {Quirks{HTMLPage: 200}, bindings, 200, []string{"<!DOCTYPE html>", "password"}, []string{"result"}},
		"html_page 502":        {Quirks{HTMLPage: 502}, bindings, 502, []string{"502 Bad Gateway"}, []string{"result"}},
		"forbidden":            {Quirks{Forbidden: true}, bindings, 403, []string{`{"result":"ERROR","error":"access denied"}`}, nil},
		"bom":                  {Quirks{BOM: true}, groups, 200, []string{"\ufeff{\"result\":\"OK\""}, nil},
		"php_warning":          {Quirks{PHPWarning: true}, groups, 200, []string{"<br />\n<b>Warning</b>:", "<br />\n{\"result\":\"OK\""}, nil},
		"missing_actions":      {Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}, bindings, 400, []string{`{"result":"ERROR","error":"unknown action"}`}, nil},
		"missing, another":     {Quirks{MissingActions: []string{"customer.get_ip_port_device_commutation"}}, groups, 200, []string{`"result":"OK"`}, nil},
		"half_gone users":      {Quirks{HalfGone: true}, "cat=module&request=get_user_list", 200, []string{`"1001":{`, `"1003":{`}, []string{`"1002":{`, `"1004":{`}},
		"half_gone links":      {Quirks{HalfGone: true}, "cat=commutation&action=get_data&object_type=customer", 200, []string{`"1001":[`}, []string{`"1002":`, `"1004":`}},
		// One customer asked for by its id is there all the same.
		"half_gone single":       {Quirks{HalfGone: true}, "cat=customer&action=get_data&customer_id=1002", 200, []string{`"id":1002`}, nil},
		"state_zero_all":         {Quirks{StateZeroAll: true}, "cat=customer&action=get_customers_id&state_id=0", 200, []string{`"data":[1001,1002,1003,1004,1005]`}, nil},
		"cards_of_all":           {Quirks{CardsOfAll: true}, "cat=customer&action=get_data&customer_id=1002", 200, []string{`"1001":{"id":1001,`, `"1002":{"id":1002,`}, nil},
		"cards_without_state":    {Quirks{CardsWithoutState: true}, "cat=customer&action=get_data&customer_id=1002", 200, []string{`"id":1002,`, `"is_disable":0`}, []string{"state_id"}},
		"skip_old_ignored":       {Quirks{SkipOldIgnored: true}, "cat=customer&action=get_abon_id&data_typer=login&data_value=u1005&is_skip_old=1", 200, []string{`"Id":1005`}, nil},
		"skip_old":               {Quirks{}, "cat=customer&action=get_abon_id&data_typer=login&data_value=u1005&is_skip_old=1", 404, []string{"not found"}, nil},
		"object_for_list":        {Quirks{ObjectForList: true}, "cat=customer&action=get_customers_id&state_id=1", 200, []string{`"data":{"0":1002}`}, nil},
		"object_for_list, empty": {Quirks{ObjectForList: true}, "cat=customer&action=get_customers_id&state_id=9", 200, []string{`"data":[]`}, nil},
		"lost_answers of a read": {Quirks{LostAnswers: true}, groups, 200, []string{`{"result":"OK"`}, nil},
		"fault forbidden":        {Quirks{Faults: map[string]Fault{"customer.get_customer_group": FaultForbidden}}, groups, 403, []string{`{"result":"ERROR","error":"this key may not use the section"}`}, nil},
		"fault error":            {Quirks{Faults: map[string]Fault{"customer.get_customer_group": FaultError}}, groups, 500, []string{"500 Internal Server Error"}, []string{"result"}},
		"fault empty":            {Quirks{Faults: map[string]Fault{"customer.get_customer_group": FaultEmpty}}, groups, 200, []string{`{"result":"OK","data":[]}`}, nil},
		"fault garbage":          {Quirks{Faults: map[string]Fault{"customer.get_customer_group": FaultGarbage}}, groups, 200, []string{`"alpha":"beta"`}, []string{"Group"}},
		"fault half, keyed":      {Quirks{Faults: map[string]Fault{"customer.get_customer_group": FaultHalf}}, groups, 200, []string{`"1":{`, `"3":{`}, []string{`"2":{`}},
		"fault half, a list":     {Quirks{Faults: map[string]Fault{"customer.get_customers_id": FaultHalf}}, "cat=customer&action=get_customers_id&limit=3", 200, []string{`"data":[1001,1003]`}, nil},
		"fault half, bare":       {Quirks{Faults: map[string]Fault{"module.get_user_list": FaultHalf}}, "cat=module&request=get_user_list", 200, []string{`"1001":{`}, []string{`"1002":{`}},
		"fault half, one":        {Quirks{Faults: map[string]Fault{"customer.get_data": FaultHalf}}, customer, 200, []string{`"id":1001`, `"state_id":2`}, nil},
		"fault half, unknown":    {Quirks{Faults: map[string]Fault{"customer.get_data": FaultHalf}}, "cat=customer&action=get_data&customer_id=77", 404, []string{`"error":"customer not found"`}, nil},
		"fault of a parameter": {Quirks{Faults: map[string]Fault{"customer.get_customers_id?is_ex=1": FaultForbidden, "customer.get_customers_id": FaultEmpty}},
			"cat=customer&action=get_customers_id&is_ex=1", 403, nil, nil},
		"fault of another parameter": {Quirks{Faults: map[string]Fault{"customer.get_customers_id?is_ex=1": FaultForbidden}},
			"cat=customer&action=get_customers_id&limit=1", 200, []string{"[1001]"}, nil},
		"hook_answer of a read": {Quirks{HookAnswer: true}, groups, 200,
			[]string{`{"result":"OK"`}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := small(t, Options{})
			require.NoError(t, e.SetQuirks(tt.q))
			got := get(t, e, tt.params)
			require.Equal(t, tt.status, got.status)
			for _, s := range tt.want {
				require.Contains(t, got.body, s)
			}
			for _, s := range tt.absent {
				require.NotContains(t, got.body, s)
			}
		})
	}
}

func TestLegacyForbiddenIsNoStatus(t *testing.T) {
	e := small(t, Options{Profile: ProfileLegacy, Quirks: Quirks{Forbidden: true}})
	require.Equal(t, reply{200, `{"Result":"ERROR","ErrorText":"access denied"}`}, get(t, e, "cat=system&action=get_system_info"))
}

func TestQuirkTruncated(t *testing.T) {
	e := small(t, Options{})
	whole := get(t, e, "cat=customer&action=get_ip_port_device_commutation").body
	require.NoError(t, e.SetQuirks(Quirks{Truncated: true}))
	require.Equal(t, whole[:len(whole)/2], get(t, e, "cat=customer&action=get_ip_port_device_commutation").body)
}

func TestQuirkGzip(t *testing.T) {
	e := small(t, Options{})
	const params = "cat=customer&action=get_ip_port_device_commutation"
	whole := get(t, e, params).body
	require.NoError(t, e.SetQuirks(Quirks{GzipNoHeader: true}))
	rec := httptest.NewRecorder()
	e.ServeHTTP(rec, httptest.NewRequest("GET", "/api.php?key="+testKey+"&"+params, nil))
	require.Empty(t, rec.Header().Get("Content-Encoding"))
	z, err := gzip.NewReader(rec.Body)
	require.NoError(t, err)
	plain, err := io.ReadAll(z)
	require.NoError(t, err)
	require.Equal(t, whole, string(plain))
	require.Equal(t, whole, get(t, e, params+"&gz=disable").body)
}

// The hook answers in place of the ERP, but what was asked for is done.
func TestQuirkHookAnswer(t *testing.T) {
	e := small(t, Options{Quirks: Quirks{HookAnswer: true}})
	got := post(t, e, "cat=customer&action=state_change&customer_id=1001&state_id=0")
	require.Equal(t, reply{200, `{"result":"0","msg":"done by hook"}`}, got)
	c, _ := e.Customer(1001)
	require.Equal(t, StateStop, c.State)
	// What the ERP refuses before any hook is refused.
	require.Equal(t, 404, post(t, e, "cat=customer&action=state_change&customer_id=77&state_id=0").status)
}

// The answer is lost, but what was asked for is done.
func TestQuirkLostAnswers(t *testing.T) {
	e := small(t, Options{Quirks: Quirks{LostAnswers: true}})
	api := httptest.NewServer(e)
	defer api.Close()
	_, err := http.PostForm(api.URL+"/api.php?key="+testKey+"&cat=customer&action=state_change&customer_id=1001&state_id=0", nil) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, io.EOF)
	c, _ := e.Customer(1001)
	require.Equal(t, StateStop, c.State)
}

func TestQuirkDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := Open(Options{Keys: []Key{{Key: testKey}}, Quirks: Quirks{Delay: 30 * time.Second}})
		require.NoError(t, err)
		began := time.Now()
		require.Equal(t, 200, get(t, e, "cat=system&action=get_system_info").status)
		require.Equal(t, 30*time.Second, time.Since(began))

		// A client that goes away is not waited for.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began = time.Now()
		req := httptest.NewRequest("GET", "/api.php?key="+testKey+"&cat=system&action=get_system_info", nil)
		serve(e, req.WithContext(ctx))
		require.Equal(t, 5*time.Second, time.Since(began))

		// Nor does closing wait.
		done := make(chan reply)
		go func() { done <- get(t, e, "cat=system&action=get_system_info") }()
		synctest.Wait()
		began = time.Now()
		require.NoError(t, e.Close())
		require.Equal(t, 503, (<-done).status)
		require.Zero(t, time.Since(began))
	})
}

// A client that gives up is not waited for, nor does closing wait.
func TestFaultHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := Open(Options{Keys: []Key{{Key: testKey}}, Quirks: Quirks{Faults: map[string]Fault{"device.get_data": FaultHang}}})
		require.NoError(t, err)
		require.Equal(t, 200, get(t, e, "cat=system&action=get_system_info").status)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		serve(e, httptest.NewRequest("GET", "/api.php?key="+testKey+"&cat=device&action=get_data&object_type=all", nil).WithContext(ctx))
		require.Equal(t, time.Hour, time.Since(began))
		done := make(chan reply)
		go func() { done <- get(t, e, "cat=device&action=get_data&object_type=all") }()
		synctest.Wait()
		require.NoError(t, e.Close())
		require.Equal(t, 504, (<-done).status)
	})
}

// A proxy gives up on the server with a page of its own, after a minute unless it is told otherwise.
func TestFaultGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const call = "cat=device&action=get_data&object_type=all"
		q := Quirks{Faults: map[string]Fault{"device.get_data": FaultGateway}}
		e, err := Open(Options{Keys: []Key{{Key: testKey}}, Quirks: q})
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close()) }()
		for seconds, want := range map[float64]time.Duration{0: time.Minute, 2.5: 2500 * time.Millisecond} {
			q.GatewaySeconds = seconds
			require.NoError(t, e.SetQuirks(q))
			began := time.Now()
			got := get(t, e, call)
			require.Equal(t, want, time.Since(began))
			require.Equal(t, 504, got.status)
			require.Contains(t, got.body, "504 Gateway Timeout")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		serve(e, httptest.NewRequest("GET", "/api.php?key="+testKey+"&"+call, nil).WithContext(ctx))
		require.Equal(t, time.Second, time.Since(began), "a client that gives up is not waited for")
	})
}

func TestQuirksJSON(t *testing.T) {
	q := Quirks{BOM: true, Delay: 1500 * time.Millisecond, MissingActions: []string{"a.b"}}
	b, err := json.Marshal(q)
	require.NoError(t, err)
	require.Contains(t, string(b), `"delay_seconds":1.5`)
	var back Quirks
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, q, back)

	// What is not named stays.
	require.NoError(t, json.Unmarshal([]byte(`{"bom":false,"html_page":502}`), &back))
	require.Equal(t, Quirks{HTMLPage: 502, Delay: 1500 * time.Millisecond, MissingActions: []string{"a.b"}}, back)
	faults := map[string]Fault{"device.get_data": FaultHalf}
	require.NoError(t, json.Unmarshal([]byte(`{"faults":{"device.get_data":"half"}}`), &back))
	require.Equal(t, faults, back.Faults)
	require.NoError(t, json.Unmarshal([]byte(`{"bom":false}`), &back))
	require.Equal(t, faults, back.Faults, "what is not named stays")
	require.NoError(t, json.Unmarshal([]byte(`{"faults":{}}`), &back))
	require.Empty(t, back.Faults)
	for in, want := range map[string]string{
		`{"faults":{"x":"half"}}`:     `faults "x": want category.action`,
		`{"faults":{"a.b?c":"half"}}`: `faults "a.b?c": want category.action`,
		`{"faults":{"a.b":"third"}}`:  `"third" is none of`,
		`{"bomb":true}`:               `unknown field "bomb"`,
		`{"bom":1}`:                   "cannot unmarshal number",
		`{"delay_seconds":-1}`:        "delay_seconds -1: want 0 to 3600",
		`{"delay_seconds":1e300}`:     "want 0 to 3600",
		`{"gateway_seconds":-1}`:      "gateway_seconds -1: want 0 to 3600",
		`{"html_page":20}`:            "html_page 20: want 0 or an HTTP status",
		`{"missing_actions":["x"]}`:   `missing_actions "x": want category.action`,
		`[]`:                          "cannot unmarshal array",
	} {
		was := back
		require.ErrorContains(t, json.Unmarshal([]byte(in), &back), want, in)
		require.Equal(t, was, back, in)
	}
}

// Every combination of style quirks gives JSON that can be read.
func TestStylesAreJSON(t *testing.T) {
	for bits := range 1 << 8 {
		bit := func(i int) bool { return bits&(1<<i) != 0 }
		q := Quirks{NumericStrings: bit(0), EmptyMapAsList: bit(1), ListForMap: bit(2), OmitOptional: bit(3),
			HTMLEscaped: bit(4), UpperCaseColumns: bit(5), CompositeRows: bit(6), HalfGone: bit(7)}
		e := small(t, Options{Quirks: q, Profile: Profile(1 + bits%3), Shape: ShapeA + Shape(bits%6)})
		for _, params := range []string{
			"cat=customer&action=get_ip_port_device_commutation", "cat=customer&action=get_data&id=1001,1002,1004,9", "cat=module&request=get_user_list",
			"cat=device&action=get_data&object_type=all", "cat=commutation&action=get_data&object_type=customer&is_finish_data=1",
			"cat=commutation&action=get_data&object_type=switch", "cat=customer&action=get_customer_group",
		} {
			decode(t, get(t, e, params).body)
		}
	}
}

func admin(t *testing.T, h http.Handler, method, path, kind, body string) reply {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	return serve(h, req)
}

func TestAdmin(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	e := small(t, Options{Keys: []Key{{Key: testKey}, {Key: "other-key", IP: "192.0.2.77"}}})
	h := e.AdminHandler()
	feed := e.Changes(t.Context())

	got := admin(t, h, "POST", "/admin/quirks", "application/json", `{"bom":true,"delay_seconds":0}`)
	require.Equal(t, 200, got.status, got.body)
	require.True(t, e.Quirks().BOM)
	require.Equal(t, true, at(t, decode(t, admin(t, h, "GET", "/admin/quirks", "", "").body), "bom"))
	require.Equal(t, 400, admin(t, h, "POST", "/admin/quirks", "", `{"bomb":true}`).status)
	require.Equal(t, 400, admin(t, h, "POST", "/admin/quirks", "", ``).status)
	require.Equal(t, 303, admin(t, h, "POST", "/admin/quirks", form, "quirk=bom&value=false").status)
	require.False(t, e.Quirks().BOM)
	require.Equal(t, 303, admin(t, h, "POST", "/admin/quirks", form, `quirk=missing_actions&value=["customer.get_data"]`).status)
	require.Equal(t, []string{"customer.get_data"}, e.Quirks().MissingActions)
	require.Equal(t, 400, admin(t, h, "POST", "/admin/quirks", form, "quirk=bom&value=perhaps").status)
	// curl -d '{...}' without a header.
	require.Equal(t, 200, admin(t, h, "POST", "/admin/quirks", form, `{"missing_actions":[]}`).status)
	require.Empty(t, e.Quirks().MissingActions)

	list := decode(t, admin(t, h, "GET", "/admin/customers?state=pause", "", "").body)
	require.Equal(t, json.Number("1"), at(t, list, "total"))
	require.Equal(t, map[string]any{"id": json.Number("1002"), "login": "u1002", "name": "Абонент 2", "state": "pause",
		"addresses": []any{map[string]any{"ip": "100.64.0.20", "mac": "00:00:5e:00:53:02"}, map[string]any{"ip": "100.64.0.21"}},
		"device":    json.Number("6001"), "port": json.Number("6"), "port_name": "Gi0/6",
		"balance": "-0.50", "messages": json.Number("0"), "password_set": false}, at(t, list, "customers", 0))
	list = decode(t, admin(t, h, "GET", "/admin/customers?limit=2&offset=3", "", "").body)
	require.Equal(t, json.Number("5"), at(t, list, "total"))
	require.Equal(t, json.Number("1004"), at(t, list, "customers", 0, "id"))
	require.Len(t, at(t, list, "customers"), 2)
	require.Equal(t, json.Number("1002"), at(t, decode(t, admin(t, h, "GET", "/admin/customers?q=100.64.0.21", "", "").body), "customers", 0, "id"))
	require.Equal(t, 400, admin(t, h, "GET", "/admin/customers?state=shoe", "", "").status)
	require.Equal(t, 400, admin(t, h, "GET", "/admin/customers?limit=-1", "", "").status)

	require.Equal(t, "pause", at(t, decode(t, admin(t, h, "POST", "/admin/customers/1001/state", "", `{"state":"pause"}`).body), "state"))
	require.Equal(t, Change{At: testNow, Kind: ChangeState, Customer: 1001, State: StatePause}, <-feed)
	require.Equal(t, 303, admin(t, h, "POST", "/admin/customers/1001/state", form, "state=active").status)
	c, _ := e.Customer(1001)
	require.Equal(t, StateActive, c.State)
	require.Equal(t, 404, admin(t, h, "POST", "/admin/customers/77/state", "", `{"state":"pause"}`).status)
	require.Equal(t, 400, admin(t, h, "POST", "/admin/customers/x/state", "", `{"state":"pause"}`).status)
	require.Equal(t, 400, admin(t, h, "POST", "/admin/customers/1001/state", "", `{"state":"asleep"}`).status)
	require.Equal(t, 400, admin(t, h, "POST", "/admin/customers/1001/state", "", `pause`).status)

	status := decode(t, admin(t, h, "GET", "/admin/status", "", "").body)
	require.Equal(t, "modern", at(t, status, "profile"))
	require.Equal(t, "A", at(t, status, "shape"))
	require.Equal(t, map[string]any{"stop": json.Number("2"), "pause": json.Number("1"), "active": json.Number("2")}, at(t, status, "customers_by_state"))

	get(t, e, "cat=customer&action=get_customers_id&limit=1")
	page := admin(t, h, "GET", "/admin/?q=u1001", "", "")
	require.Equal(t, 200, page.status)
	for _, s := range []string{"5 customers", "2 switches", "html_page", "delay_seconds", "missing_actions", "customer.get_customers_id", "100.64.0.10", "modern"} {
		require.Contains(t, page.body, s)
	}
	require.Contains(t, admin(t, h, "GET", "/admin/?q=%3Cscript%3E", "", "").body, "&lt;script&gt;")
	for _, path := range []string{"/admin/", "/admin/status", "/admin/quirks", "/admin/customers"} {
		body := admin(t, h, "GET", path, "", "").body
		require.NotContains(t, body, testKey)
		require.NotContains(t, body, "other-key")
		require.NotContains(t, body, "192.0.2.77")
	}
	// The two listeners do not mix.
	require.Equal(t, 404, admin(t, h, "GET", "/api.php?key="+testKey+"&cat=system&action=get_system_info", "", "").status)
	require.Equal(t, 404, serve(e, httptest.NewRequest("GET", "/admin/", nil)).status)
}

func TestAdminSwitches(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	e := small(t, Options{})
	h := e.AdminHandler()
	do := func(path, kind, body string) reply { return admin(t, h, "POST", path, kind, body) }

	got := do("/admin/profile", "application/json", `{"profile":"v316"}`)
	require.Equal(t, 200, got.status, got.body)
	require.Equal(t, "v316", at(t, decode(t, got.body), "profile"))
	require.Equal(t, "3.16dev1", at(t, decode(t, got.body), "version"))
	require.Contains(t, get(t, e, "cat=customer&subcat=get_data&usercode=1001").body, `{"Result":"OK"`)
	require.Equal(t, 303, do("/admin/profile", form, "profile=v321").status)
	require.Equal(t, ProfileV321, e.Profile())
	require.Equal(t, 405, get(t, e, "cat=customer&action=to_ex&customer_id=1001").status)

	require.Equal(t, "D", at(t, decode(t, do("/admin/shape", "", `{"shape":"d"}`).body), "shape"))
	require.Equal(t, 303, do("/admin/shape", form, "shape=B").status)
	require.Equal(t, ShapeB, e.Shape())
	for path, body := range map[string]string{"/admin/profile": `{"profile":"v9"}`, "/admin/shape": `{"shape":"G"}`} {
		require.Equal(t, 400, do(path, "", body).status)
		require.Equal(t, 400, do(path, "", `{}`).status)
		require.Equal(t, 400, do(path, "", `x`).status)
	}
	require.Equal(t, ProfileV321, e.Profile())
	require.Equal(t, ShapeB, e.Shape())
	require.Error(t, e.SetProfile(9))
	page := admin(t, h, "GET", "/admin/", "", "").body
	require.Contains(t, page, `value="v321" class="on"`)
	require.Contains(t, page, `value="B" class="on"`)
}

// A web page of somebody else must not be able to switch customers off.
func TestAdminRefusesForeignPages(t *testing.T) {
	e := small(t, Options{})
	req := httptest.NewRequest("POST", "/admin/customers/1001/state", strings.NewReader("state=stop"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, 403, serve(e.AdminHandler(), req).status)
	c, _ := e.Customer(1001)
	require.Equal(t, StateActive, c.State)
}

// FuzzEncoder compares our printing of text with a JSON reader, in both styles.
func FuzzEncoder(f *testing.F) {
	for _, s := range []string{"", "plain", `"A" \ /`, "a\nb\t\x00\x1f", "Абонент 😀", "\xff\xfe", "&amp;<b>'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, legacy := range []bool{false, true} {
			var b bytes.Buffer
			e := newEncoder(&b, style{legacy: legacy})
			e.object(func() { e.strField(s, s) })
			require.NoError(t, e.flush())
			var got map[string]string
			require.NoError(t, json.Unmarshal(b.Bytes(), &got), "%q", b.String())
			want := strings.ToValidUTF8(s, "")
			for k, v := range got {
				require.Equal(t, k, v)
				require.Equal(t, want, strings.ReplaceAll(strings.ToValidUTF8(v, ""), "\ufffd", ""), "unless the replacement was in it")
			}
			if legacy {
				for _, c := range b.Bytes() {
					require.Less(t, c, byte(0x80))
				}
			}
		}
	})
}

// FuzzRequest sends anything: every answer must be JSON and nothing may panic.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"cat=customer&action=get_data&customer_id=1001", "cat=customer&action=set_mac_by_ip&ip=1.2.3.4&mac=x", "cat=module&request=get_user_list&billing_id=%zz",
		"cat=device&action=get_data&object_type=all&dataset=,", "cat=customer&action=get_customers_id&balance_from=NaN&name=%ff", "key=&cat=", "a=b&&&=;",
		"cat=customer&action=edit&id=1001&phone4=1&floor=-9&coordinates=1,2&date_connect=", "cat=customer&action=change_balance&customer_id=1001&amount=-1.5&comment=x",
		"cat=customer&action=merge&dst_id=1001&src_id=1002", "cat=customer&action=ip_subnet_add&customer_id=1001&ip=198.51.100.0&subnet=255.255.255.0",
		"cat=customer&action=msg&date_add_from=2025-01-01T00:00:00&date_add_to=2025.01.01", "cat=module&request=get_connect_list&object_type=other",
		"cat=customer&action=pass_change&customer_id=1001&pass_new=%00", "cat=customer&action=service_add&customer_id=1001&service_id=1&price=9999999999999",
	} {
		f.Add(s)
	}
	e, err := Open(Options{Keys: []Key{{Key: testKey}}, Customers: 50})
	require.NoError(f, err)
	f.Cleanup(func() { _ = e.Close() })
	f.Fuzz(func(t *testing.T, params string) {
		req := httptest.NewRequest("POST", "/api.php?key="+testKey, strings.NewReader(params))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, req)
		require.True(t, json.Valid(rec.Body.Bytes()), "%s", rec.Body.Bytes())
	})
}
