package emulator

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestShapes(t *testing.T) {
	tests := map[string]struct {
		shape   Shape
		profile Profile
		quirks  Quirks
		want    string
	}{
		"A": {ShapeA, ProfileModern, Quirks{}, `"data":[` +
			`{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":5},` +
			`{"customer_id":1002,"ip":"1681915924","mac":"00005e005302","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`{"customer_id":1002,"ip":"1681915925","mac":"","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`{"customer_id":1003,"ip":"1681915934","mac":"","device_id":null,"device_ip":null,"port":null},` +
			`{"customer_id":1004,"ip":"0","mac":"00005e005304","device_id":6001,"device_ip":"10.0.0.2","port":7}]`},
		"A without empty fields": {ShapeA, ProfileModern, Quirks{OmitOptional: true}, `"data":[` +
			`{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":5},` +
			`{"customer_id":1002,"ip":"1681915924","mac":"00005e005302","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`{"customer_id":1002,"ip":"1681915925","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`{"customer_id":1003,"ip":"1681915934"},` +
			`{"customer_id":1004,"mac":"00005e005304","device_id":6001,"device_ip":"10.0.0.2","port":7}]`},
		"B": {ShapeB, ProfileModern, Quirks{}, `"data":{` +
			`"1681915914":{"customer_id":1001,"mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":5},` +
			`"1681915924":{"customer_id":1002,"mac":"00005e005302","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`"1681915925":{"customer_id":1002,"mac":"","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`"1681915934":{"customer_id":1003,"mac":"","device_id":null,"device_ip":null,"port":null},` +
			`"0":{"customer_id":1004,"mac":"00005e005304","device_id":6001,"device_ip":"10.0.0.2","port":7}}`},
		"C": {ShapeC, ProfileModern, Quirks{}, `"data":{` +
			`"1001":{"ip":"1681915914","mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":5},` +
			`"1002":[{"ip":"1681915924","mac":"00005e005302","device_id":6001,"device_ip":"10.0.0.2","port":6},` +
			`{"ip":"1681915925","mac":"","device_id":6001,"device_ip":"10.0.0.2","port":6}],` +
			`"1003":{"ip":"1681915934","mac":"","device_id":null,"device_ip":null,"port":null},` +
			`"1004":{"ip":"0","mac":"00005e005304","device_id":6001,"device_ip":"10.0.0.2","port":7}}`},
		"C composite": {ShapeC, ProfileModern, Quirks{CompositeRows: true}, `"data":{` +
			`"1001":{"ip_mac":{"1681915914":{"ip":"1681915914","mac":"00005e005301"}},"commutation":[{"object_type":"switch","object_id":6001,"interface":5}]},` +
			`"1002":{"ip_mac":{"1681915924":{"ip":"1681915924","mac":"00005e005302"},"1681915925":{"ip":"1681915925","mac":""}},"commutation":[{"object_type":"switch","object_id":6001,"interface":6}]},` +
			`"1003":{"ip_mac":{"1681915934":{"ip":"1681915934","mac":""}},"commutation":[]},` +
			`"1004":{"ip_mac":{"0":{"ip":"0","mac":"00005e005304"},"1":{"ip":"3221225984","mac":"","ip_net":"192.0.2.0/29"}},"commutation":[{"object_type":"switch","object_id":6001,"interface":7}]}}`},
		"D": {ShapeD, ProfileModern, Quirks{}, `"data":{` +
			`"0":{"0":{"customer_id":1003,"ip":"1681915934","mac":"","device_ip":null}},` +
			`"6001":{"5":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_ip":"10.0.0.2"},` +
			`"6":[{"customer_id":1002,"ip":"1681915924","mac":"00005e005302","device_ip":"10.0.0.2"},{"customer_id":1002,"ip":"1681915925","mac":"","device_ip":"10.0.0.2"}],` +
			`"7":{"customer_id":1004,"ip":"0","mac":"00005e005304","device_ip":"10.0.0.2"}}}`},
		"E": {ShapeE, ProfileLegacy, Quirks{}, `"Data":[` +
			`{"usercode":"1001","userip":"1681915914","mac":"00005e005301","devcode":"6001","devip":"10.0.0.2","port":"5"},` +
			`{"usercode":"1002","userip":"1681915924","mac":"00005e005302","devcode":"6001","devip":"10.0.0.2","port":"6"},` +
			`{"usercode":"1002","userip":"1681915925","mac":"","devcode":"6001","devip":"10.0.0.2","port":"6"},` +
			`{"usercode":"1003","userip":"1681915934","mac":"","devcode":"0","devip":"","port":"0"},` +
			`{"usercode":"1004","userip":"0","mac":"00005e005304","devcode":"6001","devip":"10.0.0.2","port":"7"}]`},
		"F":                   {ShapeF, ProfileModern, Quirks{}, `"data":[]`},
		"F without data":      {ShapeF, ProfileModern, Quirks{OmitOptional: true}, ``},
		"empty list":          {ShapeA, ProfileModern, Quirks{EmptyBindings: true}, `"data":[]`},
		"empty object":        {ShapeB, ProfileModern, Quirks{EmptyBindings: true}, `"data":{}`},
		"empty object of PHP": {ShapeD, ProfileModern, Quirks{EmptyBindings: true, EmptyMapAsList: true}, `"data":[]`},
		"half gone": {ShapeA, ProfileModern, Quirks{HalfGone: true}, `"data":[` +
			`{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":5},` +
			`{"customer_id":1003,"ip":"1681915934","mac":"","device_id":null,"device_ip":null,"port":null}]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := small(t, Options{Shape: tt.shape, Profile: tt.profile, Quirks: tt.quirks})
			want := `{"result":"OK"`
			if tt.profile == ProfileLegacy {
				want = `{"Result":"OK"`
			}
			if tt.want != "" {
				want += "," + tt.want
			}
			require.Equal(t, want+"}", get(t, e, "cat=customer&action=get_ip_port_device_commutation").body)
		})
	}
}

// Two customers with one address: the map of shape B keeps the last, at the
// place of the first, as a PHP array does. Shape A has both.
func TestDuplicateAddress(t *testing.T) {
	e := small(t, Options{Shape: ShapeB})
	_, err := e.AddCustomer(Customer{ID: 1010, Addresses: []Address{{IP: ip("100.64.0.10")}}})
	require.NoError(t, err)
	body := get(t, e, "cat=customer&action=get_ip_port_device_commutation").body
	require.Contains(t, body, `"data":{"1681915914":{"customer_id":1010,`)
	require.NotContains(t, body, "1001")
	require.NoError(t, e.SetShape(ShapeA))
	body = get(t, e, "cat=customer&action=get_ip_port_device_commutation").body
	require.Equal(t, 2, strings.Count(body, `"1681915914"`))
}

func TestGetCustomersID(t *testing.T) {
	tests := map[string]struct {
		params string
		quirks Quirks
		want   string
		status int
	}{
		"no condition":             {"", Quirks{}, `{"result":"ERROR","error":"no condition given"}`, 400},
		"is_like alone is none":    {"is_like=1", Quirks{}, `{"result":"ERROR","error":"no condition given"}`, 400},
		"active":                   {"state_id=2", Quirks{}, `[1001,1004]`, 200},
		"stopped":                  {"state_id=0", Quirks{}, `[1003,1005]`, 200},
		"stopped, zero is empty":   {"state_id=0", Quirks{StateZeroIgnored: true}, `{"result":"ERROR","error":"no condition given"}`, 400},
		"zero is empty, other one": {"state_id=0&is_ex=0", Quirks{StateZeroIgnored: true}, `[1001,1002,1003,1004]`, 200},
		"not a number":             {"state_id=two", Quirks{}, `{"result":"ERROR","error":"parameter state_id: not a number"}`, 400},
		"state and balance":        {"state_id=2&balance_to=5.5", Quirks{}, `[1004]`, 200},
		"balance":                  {"balance_from=-0.5&balance_to=-0.5", Quirks{}, `[1002]`, 200},
		"name":                     {"name=" + url.QueryEscape(`Test "A" & Co`), Quirks{}, `[1001]`, 200},
		"name with entities":       {"name=" + url.QueryEscape(`Test &quot;A&quot; &amp; Co`), Quirks{}, `[1001]`, 200},
		"name is whole":            {"name=Test", Quirks{}, `[]`, 200},
		"part of name":             {"name=" + url.QueryEscape("абонент") + "&is_like=1", Quirks{}, `[1002]`, 200},
		"former":                   {"is_ex=1", Quirks{}, `[1005]`, 200},
		"limit":                    {"limit=3", Quirks{}, `[1001,1002,1003]`, 200},
		"limit on a filter":        {"is_ex=0&limit=1", Quirks{}, `[1001]`, 200},
		"corporate":                {"is_corporate=1", Quirks{}, `[1003]`, 200},
		"house":                    {"house_id=55", Quirks{}, `[1001]`, 200},
		"mark":                     {"mark_id=7", Quirks{}, `[1003]`, 200},
		"tariff":                   {"tariff_id=12", Quirks{}, `[1001]`, 200},
		"billing":                  {"billing_id=1&account_number=10002", Quirks{}, `[1002]`, 200},
		"billing uuid":             {"billing_uuid=501", Quirks{}, `[1001]`, 200},
		"connected":                {"date_connect_from=2025-01-01&date_connect_to=2025-01-31", Quirks{}, `[1002]`, 200},
		"connected later":          {"date_connect_from=2025-01-16", Quirks{}, `[]`, 200},
		"apartment":                {"appartment=7a", Quirks{}, `[1002]`, 200},
		"manager":                  {"manager_id=3", Quirks{}, `[1002]`, 200},
		"bad balance":              {"balance_to=much", Quirks{}, `{"result":"ERROR","error":"parameter balance_to: not a number"}`, 400},
		"bad limit":                {"limit=few", Quirks{}, `{"result":"ERROR","error":"parameter limit: not a number"}`, 400},
		"device":                   {"dependence_device_id=6001", Quirks{}, `[1001,1002,1004]`, 200},
		"half gone":                {"is_ex=0", Quirks{HalfGone: true}, `[1001,1003]`, 200},
		"numbers as text":          {"state_id=2", Quirks{NumericStrings: true}, `["1001","1004"]`, 200},
		"address unit":             {"address_unit_id=6", Quirks{}, `[1001]`, 200}, // houses 51 to 60
		"address unit of nobody":   {"address_unit_id=5", Quirks{}, `[]`, 200},
		"bad address unit":         {"address_unit_id=x", Quirks{}, `{"result":"ERROR","error":"parameter address_unit_id: not a number"}`, 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := get(t, small(t, Options{Quirks: tt.quirks}), "cat=customer&action=get_customers_id&"+tt.params)
			want := tt.want
			if strings.HasPrefix(want, "[") {
				want = `{"result":"OK","data":` + want + `}`
			}
			require.Equal(t, want, got.body)
			require.Equal(t, tt.status, got.status)
		})
	}
}

func TestGetCustomerID(t *testing.T) {
	tests := map[string]struct {
		typer, value, more string
		want               string
	}{
		"login":              {"login", "u1002", "", `{"result":"OK","Id":1002}`},
		"account":            {"account", "10001", "", `{"result":"OK","Id":1001}`},
		"id in billing":      {"billing_uid", "502", "", `{"result":"OK","Id":1002}`},
		"codeti":             {"codeti", "502", "", `{"result":"OK","Id":1002}`},
		"agreement":          {"dognumber", "A-1", "", `{"result":"OK","Id":1001}`},
		"agreement, new":     {"agreement_number", "A-1", "", `{"result":"OK","Id":1001}`},
		"mail":               {"mail", "u1001@example.net", "", `{"result":"OK","Id":1001}`},
		"ip":                 {"ip", "100.64.0.21", "", `{"result":"OK","Id":1002}`},
		"ip as a number":     {"ip", "1681915925", "", `{"result":"ERROR","error":"customer not found"}`},
		"mac":                {"mac", "00:00:5E:00:53:04", "", `{"result":"OK","Id":1004}`},
		"mac without colons": {"mac", "00005e005304", "", `{"result":"ERROR","error":"customer not found"}`},
		"several":            {"phone", "380000000001", "", `{"result":"OK","Id":[1001,1002,1005]}`},
		"without former":     {"phone", "380000000001", "&is_skip_old=1", `{"result":"OK","Id":[1001,1002]}`},
		"nobody":             {"login", "x", "", `{"result":"ERROR","error":"customer not found"}`},
		"unknown type":       {"shoe", "42", "", `{"result":"ERROR","error":"parameter data_typer: unknown type"}`},
	}
	for name, tt := range tests {
		for _, action := range []string{"get_abon_id", "get_customer_id"} {
			t.Run(name+" "+action, func(t *testing.T) {
				got := get(t, small(t, Options{}), "cat=customer&action="+action+"&data_typer="+tt.typer+"&data_value="+url.QueryEscape(tt.value)+tt.more)
				require.Equal(t, tt.want, got.body)
			})
		}
	}
	e := small(t, Options{Quirks: Quirks{IDAsList: true}})
	require.Equal(t, `{"result":"OK","Id":[1002]}`, get(t, e, "cat=customer&action=get_abon_id&data_typer=login&data_value=u1002").body)
}

// The whole customer object is pinned once; the forms it takes are looked at one by one.
func TestGetCustomerData(t *testing.T) {
	e := small(t, Options{})
	const params = "cat=customer&action=get_data&"
	got := get(t, e, params+"customer_id=1001").body
	require.Equal(t, `{"result":"OK","data":{"id":1001,"login":"u1001","full_name":"Test &quot;A&quot; &amp; Co","flag_corporate":0,"is_potential":0,`+
		`"balance":"12.50","state_id":2,"agreement":[{"number":"A-1","date":"1970-01-01 00:00:00"}],"traffic":{"month":{"up":0,"down":0}},`+
		`"date_create":"2026-02-03 04:05:06","date_connect":"1970-01-01","date_activity":"1970-01-01 00:00:00","date_activity_inet":"1970-01-01 00:00:00",`+
		`"date_positive_balance":"1970-01-01","is_disable":0,"address":[{"type":"connect","house_id":55,"entrance":0,"floor":"0"}],`+
		`"is_in_billing":1,"billing_id":"501","billing":{"id":1,"uuid":"501"},"tariff":{"current":[{"id":"12"}]},"account_number":"10001","manager_id":0,`+
		`"group":{"2":{"id":2}},"ip_mac":{"1681915914":{"ip":"1681915914","mac":"00005e005301"}},`+
		`"phone":[{"number":"380000000001","flag_main":1},{"number":""}],"email":[{"address":"u1001@example.net","flag_main":1}],`+
		`"comment":"line 1<br>line 2","comment2":""}}`, got)

	for _, same := range []string{"id=1001", "account_number=10001&billing_id=1"} {
		require.Equal(t, got, get(t, e, params+same).body, same)
	}
	require.Equal(t, got, post(t, e, params+"customer_id=1001").body)

	many := at(t, decode(t, post(t, e, params+"customer_id=1001,1002").body), "data").(map[string]any)
	require.Len(t, many, 2)
	require.Equal(t, "-0.50", at(t, many, "1002", "balance"))
	require.Equal(t, "Абонент 2", at(t, many, "1002", "full_name"))

	missing := at(t, decode(t, get(t, e, params+"id=1003,77").body), "data").(map[string]any)
	require.Len(t, missing, 2)
	require.Contains(t, missing, "error")
	require.NotContains(t, at(t, missing, "1003"), "group")

	require.NotContains(t, get(t, e, params+"customer_id=1005").body, "ip_mac")
	require.Contains(t, get(t, e, params+"customer_id=1004").body,
		`"ip_mac":{"0":{"ip":"0","mac":"00005e005304"},"1":{"ip":"3221225984","mac":"","ip_net":"192.0.2.0/29"}}`)
	for params, want := range map[string]string{
		"":                              "customer_id, or account_number with billing_id, is missing",
		"account_number=10001":          "customer_id, or account_number with billing_id, is missing",
		"account_number=9&billing_id=1": "customer not found",
		"account_number=9&billing_id=x": "parameter billing_id: not a number",
		"customer_id=1001,":             "parameter customer_id: not a list of numbers",
		"customer_id=7,8":               "customer not found",
	} {
		require.Equal(t, `{"result":"ERROR","error":"`+want+`"}`, get(t, e, "cat=customer&action=get_data&"+params).body)
	}
}

func TestSetMACByIP(t *testing.T) {
	e := small(t, Options{})
	const params = "cat=customer&action=set_mac_by_ip&"
	require.Equal(t, `{"result":"OK"}`, post(t, e, params+"ip=100.64.0.21&mac=00:00:5E:00:53:99").body)

	// Everything that tells of the MAC tells the new one.
	require.Contains(t, get(t, e, "cat=customer&action=get_ip_port_device_commutation").body, `"ip":"1681915925","mac":"00005e005399"`)
	require.Contains(t, get(t, e, "cat=customer&action=get_data&customer_id=1002").body, `"1681915925":{"ip":"1681915925","mac":"00005e005399"}`)
	require.Equal(t, `{"result":"OK","Id":1002}`, get(t, e, "cat=customer&action=get_abon_id&data_typer=mac&data_value=00:00:5e:00:53:99").body)
	require.Equal(t, `{"result":"OK","data":[{"date":"2026-02-03 04:05:06","ip":"1681915925","mac":"00005e005399"}]}`,
		get(t, e, "cat=customer&action=get_mac_history&customer_id=1002").body)
	require.Contains(t, get(t, e, "cat=device&action=find_mac&mac=00005e005399").body, `"mac":"00005E005399"`)

	// The same again is no news.
	require.Equal(t, `{"result":"OK"}`, post(t, e, params+"ip=100.64.0.21&mac=00:00:5e:00:53:99").body)
	require.Len(t, e.MACHistory(1002), 1)

	// Newest first.
	require.NoError(t, e.SetIPMAC(ip("100.64.0.21"), mac(t, "00:00:5e:00:53:9a")))
	rows := at(t, decode(t, get(t, e, "cat=customer&action=get_mac_history&customer_id=1002").body), "data")
	require.Equal(t, "00005e00539a", at(t, rows, 0, "mac"))

	before := e.Customers()
	for params, want := range map[string]string{
		"ip=100.64.0.99&mac=00:00:5e:00:53:99": "address 100.64.0.99: not found",
		"ip=1681915925&mac=00:00:5e:00:53:99":  "parameter ip: not a dotted IPv4 address",
		"ip=2001:db8::1&mac=00:00:5e:00:53:99": "parameter ip: not a dotted IPv4 address",
		"ip=100.64.0.21&mac=00005e005399":      "parameter mac: want the form 00:11:22:33:44:55",
		"ip=100.64.0.21&mac=00:00:00:00:00:00": "parameter mac: want the form 00:11:22:33:44:55",
		"ip=100.64.0.21":                       "parameter mac is missing",
		"mac=00:00:5e:00:53:99&ip=":            "parameter ip is missing",
	} {
		require.Equal(t, `{"result":"ERROR","error":"`+want+`"}`, post(t, e, "cat=customer&action=set_mac_by_ip&"+params).body)
	}
	require.Equal(t, before, e.Customers())
}

// An address that two customers have gets its MAC at both, each with a history.
func TestSetMACOfDuplicateAddress(t *testing.T) {
	e := small(t, Options{})
	_, err := e.AddCustomer(Customer{ID: 1010, Addresses: []Address{{IP: ip("100.64.0.10")}}})
	require.NoError(t, err)
	post(t, e, "cat=customer&action=set_mac_by_ip&ip=100.64.0.10&mac=00:00:5e:00:53:99")
	for _, id := range []int64{1001, 1010} {
		c, _ := e.Customer(id)
		assert.Equal(t, mac(t, "00:00:5e:00:53:99"), c.Addresses[0].MAC)
		assert.Len(t, e.MACHistory(id), 1)
	}
	require.Equal(t, `{"result":"OK","Id":[1001,1010]}`, get(t, e, "cat=customer&action=get_abon_id&data_typer=ip&data_value=100.64.0.10").body)
}

func TestStateChange(t *testing.T) {
	e := small(t, Options{})
	const params = "cat=customer&action=state_change&"
	require.Equal(t, `{"result":"OK"}`, post(t, e, params+"customer_id=1001&state_id=0").body)
	require.Equal(t, `{"result":"OK","data":[1001,1003,1005]}`, get(t, e, "cat=customer&action=get_customers_id&state_id=0").body)
	require.Contains(t, get(t, e, "cat=customer&action=get_data&id=1001").body, `"state_id":0`)
	require.Contains(t, get(t, e, "cat=module&request=get_user_list&customer_id=1001").body, `"state_id":0`)
	for params, want := range map[string]string{
		"customer_id=1001&state_id=3":  "parameter state_id: want 0, 1 or 2",
		"customer_id=1001&state_id=-1": "parameter state_id: want 0, 1 or 2",
		"customer_id=1001&state_id=x":  "parameter state_id: not a number",
		"customer_id=1001":             "parameter state_id is missing",
		"state_id=1":                   "parameter customer_id is missing",
		"customer_id=77&state_id=1":    "customer not found",
		"customer_id=x&state_id=1":     "parameter customer_id: not a number",
	} {
		require.Equal(t, `{"result":"ERROR","error":"`+want+`"}`, post(t, e, "cat=customer&action=state_change&"+params).body)
	}
}

func TestAddresses(t *testing.T) {
	e := small(t, Options{})
	has := func(id int64) (out []string) {
		c, ok := e.Customer(id)
		require.True(t, ok)
		for _, a := range c.Addresses {
			out = append(out, a.IP.String()+" "+a.MAC.hex())
		}
		return out
	}
	do := func(params string) string { return post(t, e, "cat=customer&action="+params).body }
	const ok = `{"result":"OK"}`
	require.Equal(t, ok, do("ip_add&customer_id=1003&value=100.64.0.31&mac=00:00:5e:00:53:31"))
	require.Equal(t, ok, do("ip_add&customer_id=1003&value=100.64.0.32"))
	require.Equal(t, []string{"100.64.0.30 ", "100.64.0.31 00005e005331", "100.64.0.32 "}, has(1003))
	require.Len(t, e.MACHistory(1003), 1)
	require.Contains(t, do("ip_add&customer_id=1001&value=100.64.0.31"), "address 100.64.0.31: in use")
	require.Contains(t, do("ip_add&customer_id=77&value=100.64.0.40"), "customer not found")
	require.Contains(t, do("ip_add&customer_id=1003&value=100.64.0.41&mac=x"), "parameter mac")

	require.Equal(t, ok, do("ip_delete&customer_id=1003&value=100.64.0.31"))
	require.Equal(t, []string{"100.64.0.30 ", "100.64.0.32 "}, has(1003))
	require.Contains(t, do("ip_delete&customer_id=1003&value=100.64.0.31"), "not found")
	require.Contains(t, do("ip_delete&customer_id=1001&value=100.64.0.30"), "not found", "of another customer")
	require.Equal(t, ok, do("ip_delete&customer_id=1003&value=all"))
	require.Empty(t, has(1003))
	require.Equal(t, ok, do("ip_delete&customer_id=1003&value=all"))
	// What is free may go to another customer.
	require.Equal(t, ok, do("ip_add&customer_id=1001&value=100.64.0.31"))

	// -1 takes the entry with only a MAC and leaves the subnet.
	require.Equal(t, ok, do("ip_delete&customer_id=1004&value=-1"))
	require.Equal(t, []string{"invalid IP "}, has(1004))
	require.Equal(t, ok, do("ip_delete&customer_id=1001&value=-1"))
	require.Len(t, has(1001), 2)
}

func TestMACHistoryOfLegacy(t *testing.T) {
	e := small(t, Options{Profile: ProfileLegacy})
	require.NoError(t, e.SetIPMAC(ip("100.64.0.30"), mac(t, "00:00:5e:00:53:30")))
	require.Equal(t, `{"Result":"OK","data":[{"datestop":"2026-02-03 04:05:06","userip":"1681915934","mac":"00005e005330"}]}`,
		get(t, e, "cat=customer&action=get_mac_history&usercode=1003").body)
}

func TestGetCustomerGroup(t *testing.T) {
	require.Equal(t, `{"result":"OK","data":{"1":{"id":1,"name":"Group 1"},"2":{"id":2,"name":"Group 2"},"3":{"id":3,"name":"Group 3"}}}`,
		get(t, small(t, Options{}), "cat=customer&action=get_customer_group").body)
}

func TestServerTimeZone(t *testing.T) {
	kyiv := time.FixedZone("EET", 2*3600)
	e := small(t, Options{Now: func() time.Time { return testNow.In(kyiv) }})
	require.NoError(t, e.SetIPMAC(ip("100.64.0.30"), mac(t, "00:00:5e:00:53:30")))
	require.Contains(t, get(t, e, "cat=customer&action=get_mac_history&customer_id=1003").body, `"date":"2026-02-03 06:05:06"`)
}

func TestGoMethods(t *testing.T) {
	e := small(t, Options{})
	require.ErrorIs(t, e.SetState(77, StateActive), ErrNotFound)
	require.ErrorIs(t, e.SetIPMAC(ip("192.0.2.1"), MAC{1}), ErrNotFound)
	require.ErrorIs(t, e.RemoveIP(1001, ip("192.0.2.1")), ErrNotFound)
	require.ErrorIs(t, e.Link(1001, 77, 1), ErrNotFound)
	_, err := e.AddCustomer(Customer{ID: 1001})
	require.EqualError(t, err, "customer 1001: exists already")
	_, err = e.AddDevice(Device{ID: 6001})
	require.EqualError(t, err, "device 6001: exists already")
	_, err = e.AddCustomer(Customer{Addresses: []Address{{IP: ip("2001:db8::1")}}})
	require.ErrorContains(t, err, "the ERP knows IPv4 only")
	_, err = e.AddCustomer(Customer{Addresses: []Address{{}}})
	require.ErrorContains(t, err, "neither address, MAC nor subnet")

	id, err := e.AddCustomer(Customer{Login: "next"})
	require.NoError(t, err)
	require.Equal(t, int64(1006), id)
	id, err = e.AddDevice(Device{Name: "next"})
	require.NoError(t, err)
	require.Equal(t, int64(6004), id)

	require.NoError(t, e.Link(1001, 6004, 3))
	require.NoError(t, e.AddIP(1001, ip("100.64.0.99"), MAC{}))
	require.NoError(t, e.RemoveIP(1001, ip("100.64.0.10")))
	require.NoError(t, e.SetFlags(1001, true, false, false))
	c, ok := e.Customer(1001)
	require.True(t, ok)
	require.Equal(t, []Link{{Device: 6004, Port: 3}}, c.Links)
	require.Equal(t, []Address{{IP: ip("100.64.0.99")}}, c.Addresses)
	require.True(t, c.Disabled)
	require.NoError(t, e.Link(1001, 0, 0))
	c, _ = e.Customer(1001)
	require.Empty(t, c.Links)

	// What was handed out is the caller's.
	all := e.Customers()
	all[1].Addresses[0].IP = ip("192.0.2.99")
	c, _ = e.Customer(1002)
	require.Equal(t, ip("100.64.0.20"), c.Addresses[0].IP)
	require.Equal(t, "100.64.0.0/24", e.Subnets()[0].String())
}

func TestChanges(t *testing.T) {
	e := small(t, Options{})
	feed := e.Changes(t.Context())
	do := func(params string) {
		require.Equal(t, `{"result":"OK"}`, post(t, e, "cat=customer&action="+params).body)
	}
	do("state_change&customer_id=1001&state_id=1")
	do("state_change&customer_id=1001&state_id=2&skip_internal_api=1") // not told
	do("state_change&customer_id=1001&state_id=2")                     // nothing changes
	do("set_mac_by_ip&ip=100.64.0.21&mac=00:00:5e:00:53:99")
	do("set_mac_by_ip&ip=100.64.0.21&mac=00:00:5e:00:53:9a&skip_internal_api=1") // not told
	do("ip_add&customer_id=1003&value=100.64.0.31")
	do("ip_delete&customer_id=1003&value=100.64.0.31")
	require.NoError(t, e.Link(1003, 6001, 8))
	want := []Change{
		{Kind: ChangeState, Customer: 1001, State: StatePause},
		{Kind: ChangeMAC, Customer: 1002, State: StatePause, IP: ip("100.64.0.21"), MAC: mac(t, "00:00:5e:00:53:99")},
		{Kind: ChangeIPAdd, Customer: 1003, State: StateStop, IP: ip("100.64.0.31")},
		{Kind: ChangeIPDelete, Customer: 1003, State: StateStop, IP: ip("100.64.0.31")},
		{Kind: ChangeLink, Customer: 1003, State: StateStop, Device: 6001, Port: 8},
	}
	for _, w := range want {
		w.At = testNow
		require.Equal(t, w, <-feed)
	}
	require.Empty(t, feed)
}
