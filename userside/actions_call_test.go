package userside

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What each change sends, with everything set: the names are those of API page
// section 3.2, written out here once more on purpose.
func TestChangesSend(t *testing.T) {
	day := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	v := func(pairs ...string) url.Values {
		out := url.Values{}
		for i := 0; i < len(pairs); i += 2 {
			out.Set(pairs[i], pairs[i+1])
		}
		return out
	}
	for name, tt := range map[string]struct {
		call func(c *Client) error
		want url.Values
	}{
		"add": {func(c *Client) error {
			_, err := c.AddCustomer(ctx, NewCustomer{FullName: "A B", Code: "c7", Potential: true, Corporate: true, Billing: 3, BillingCustomer: "u9"})
			return err
		}, v("fio", "A B", "codeti", "c7", "is_potential", "1", "is_corporate", "1", "billing_id", "3", "billing_customer_id", "u9")},
		"edit": {func(c *Client) error {
			return c.EditCustomer(ctx, 7, CustomerEdit{
				FullName: new("A"), Login: new("l"), Account: new("10"), AgreementNumber: new("A-1"), AgreementDate: day, Comment: new(""), Email: new("a@example.org"),
				Mobile: new("0"), HomePhone: new("1"), Phone2: new("2"), Phone3: new("3"), Phone4: new("4"), HouseID: new(int64(55)), Entrance: new("2"), Floor: new("3"),
				Apartment: new("7a"), Coordinates: new("50.45,30.52"), Connected: day, Active: day, ActiveInternet: day, Corporate: new(true), Potential: new(false),
				GroupID: new(int64(0)), ManagerID: new(int64(5)), ParentID: new(int64(6)),
			})
		}, v("id", "7", "name", "A", "login", "l", "account_number", "10", "agreement_number", "A-1", "agreement_date", "2026-02-03", "comment", "", "email", "a@example.org",
			"phone0", "0", "phone1", "1", "phone2", "2", "phone3", "3", "phone4", "4", "house_id", "55", "entrance", "2", "floor", "3", "apartment_number", "7a",
			"coordinates", "50.45,30.52", "date_connect", "2026-02-03", "date_activity", "2026-02-03 04:05:06", "date_activity_inet", "2026-02-03 04:05:06",
			"flag_corporate", "1", "is_potential", "0", "group_id", "0", "manager_id", "5", "parent_id", "6")},
		"delete": {func(c *Client) error { return c.DeleteCustomer(ctx, 7) }, v("id", "7")},
		"merge":  {func(c *Client) error { return c.MergeCustomers(ctx, Merge{Into: 7, From: 8}) }, v("dst_id", "7", "src_id", "8")},
		"change_balance": {func(c *Client) error {
			return c.ChangeBalance(ctx, BalanceChange{Customer: 7, Amount: -12.5, Comment: "why", Employee: 3})
		}, v("customer_id", "7", "amount", "-12.5", "comment", "why", "employee_id", "3")},
		"change_billing": {func(c *Client) error {
			return c.ChangeBilling(ctx, BillingChange{Customer: 7, Billing: 3, BillingUser: "u9"})
		}, v("customer_id", "7", "billing_id", "3", "billing_user_id", "u9")},
		"change_date_connect": {func(c *Client) error { return c.ChangeConnectDate(ctx, 7, day) }, v("customer_id", "7", "value", "2026-02-03")},
		"ip_add": {func(c *Client) error {
			return c.AddIP(ctx, IPAddition{Customer: 7, IP: ip("192.0.2.7"), MAC: mac("00005e005301")})
		}, v("customer_id", "7", "value", "192.0.2.7", "mac", "00:00:5e:00:53:01")},
		"ip_delete": {func(c *Client) error { return c.DeleteIP(ctx, 7, OneIP(ip("192.0.2.7"))) }, v("customer_id", "7", "value", "192.0.2.7")},
		"ip_subnet_add": {func(c *Client) error { return c.AddSubnet(ctx, 7, netip.MustParsePrefix("192.0.2.0/29")) },
			v("customer_id", "7", "ip", "192.0.2.0", "subnet", "29")},
		"ip_subnet_delete": {func(c *Client) error { return c.DeleteSubnet(ctx, 7, ip("192.0.2.0")) }, v("customer_id", "7", "ip", "192.0.2.0")},
		"mark_add":         {func(c *Client) error { return c.AddMark(ctx, 7, 8) }, v("customer_id", "7", "mark_id", "8")},
		"mark_delete":      {func(c *Client) error { return c.DeleteMark(ctx, 7, 8) }, v("customer_id", "7", "mark_id", "8")},
		"msg_add": {func(c *Client) error {
			_, err := c.AddMessage(ctx, NewMessage{Customer: 7, Text: "a\nb", Archived: true})
			return err
		}, v("customer_id", "7", "text", "a\nb", "is_arc", "1")},
		"msg_add_to_customer": {func(c *Client) error {
			_, err := c.SendMessage(ctx, 3, NewMessage{Customer: 7, Text: "t", Archived: true})
			return err
		}, v("employee_id", "3", "customer_id", "7", "text", "t", "is_arc", "1")},
		"pass_change": {func(c *Client) error { return c.ChangePassword(ctx, PasswordChange{Customer: 7, New: "n", Old: "o"}) },
			v("customer_id", "7", "pass_new", "n", "pass_old", "o")},
		"service_add": {func(c *Client) error {
			return c.AddService(ctx, ServiceAddition{Customer: 7, Service: 2, Price: new(0.0), Comment: "c"})
		}, v("customer_id", "7", "service_id", "2", "price", "0", "comment", "c")},
		"service_remove": {func(c *Client) error { return c.RemoveService(ctx, 7, 2) }, v("customer_id", "7", "service_id", "2")},
		"set_mac_by_ip":  {func(c *Client) error { return c.SetMACByIP(ctx, ip("192.0.2.7"), mac("00005e005301")) }, v("ip", "192.0.2.7", "mac", "00:00:5e:00:53:01")},
		"state_change":   {func(c *Client) error { return c.ChangeState(ctx, 7, 0) }, v("customer_id", "7", "state_id", "0")},
		"tarif_change":   {func(c *Client) error { return c.ChangeTariff(ctx, 7, "t-12") }, v("customer_id", "7", "tarif", "t-12")},
		"to_ex":          {func(c *Client) error { return c.MakeFormer(ctx, 7) }, v("customer_id", "7")},
		"to_normal":      {func(c *Client) error { return c.MakeNormal(ctx, 7) }, v("customer_id", "7")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK","Id":5}`))
			require.NoError(t, tt.call(newTestClient(t, s)))
			require.Equal(t, "customer "+name, s.seen()[0].query.Get("cat")+" "+s.seen()[0].query.Get("action"))
			require.Equal(t, tt.want, s.seen()[0].form)
			a, ok := FindAction("customer", name)
			require.True(t, ok)
			require.ElementsMatch(t, slices.Collect(maps.Keys(allArgs(a, version(t, "3.21")))), slices.Collect(maps.Keys(tt.want)), "every parameter can be set")

			s = newTestServer(t, answerWith(200, `{"Result":"ERROR","ErrorText":"no"}`))
			e := errorOf(t, tt.call(newTestClient(t, s, func(o *Options) { o.Retries = 3 })), ErrRefused)
			require.Equal(t, "no", e.Text)
			require.Len(t, s.seen(), 1)
		})
	}
}

// What is obligatory cannot be forgotten: nothing is sent.
func TestForgottenArguments(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
	c := newTestClient(t, s)
	for name, err := range map[string]error{
		"edit nothing":       c.EditCustomer(ctx, 7, CustomerEdit{}),
		"edit nobody":        c.EditCustomer(ctx, 0, CustomerEdit{Login: new("x")}),
		"delete nobody":      c.DeleteCustomer(ctx, -1),
		"merge with oneself": c.MergeCustomers(ctx, Merge{Into: 7, From: 7}),
		"merge from nobody":  c.MergeCustomers(ctx, Merge{Into: 7}),
		"no amount":          c.ChangeBalance(ctx, BalanceChange{Customer: 7, Comment: "c"}),
		"no comment":         c.ChangeBalance(ctx, BalanceChange{Customer: 7, Amount: 1}),
		"no billing":         c.ChangeBilling(ctx, BillingChange{Customer: 7}),
		"no date":            c.ChangeConnectDate(ctx, 7, time.Time{}),
		"no address":         c.AddIP(ctx, IPAddition{Customer: 7}),
		"IPv6":               c.AddIP(ctx, IPAddition{Customer: 7, IP: ip("2001:db8::1")}),
		"delete nothing":     c.DeleteIP(ctx, 7, IPSelection{}),
		"delete no address":  c.DeleteIP(ctx, 7, OneIP(netip.Addr{})),
		"no subnet":          c.AddSubnet(ctx, 7, netip.Prefix{}),
		"not its first":      c.AddSubnet(ctx, 7, netip.MustParsePrefix("192.0.2.1/29")),
		"IPv6 subnet":        c.AddSubnet(ctx, 7, netip.MustParsePrefix("2001:db8::/64")),
		"no mark":            c.AddMark(ctx, 7, 0),
		"no password":        c.ChangePassword(ctx, PasswordChange{Customer: 7}),
		"no tariff":          c.ChangeTariff(ctx, 7, ""),
		"no service":         c.RemoveService(ctx, 7, 0),
		"former nobody":      c.MakeFormer(ctx, 0),
		"no text":            func() error { _, err := c.AddMessage(ctx, NewMessage{Customer: 7}); return err }(),
		"from nobody":        func() error { _, err := c.SendMessage(ctx, 0, NewMessage{Customer: 7, Text: "x"}); return err }(),
		"no condition":       func() error { _, err := c.Messages(ctx, MessageFilter{}); return err }(),
		"no kind":            func() error { _, err := c.ActivityCounter(ctx, "shoes"); return err }(),
		"account alone":      func() error { _, err := c.CustomerByAccount(ctx, "10", 0); return err }(),
		"old lookup":         func() error { _, err := c.FindCustomers(ctx, LookupAgreementNumber, "A-1", false); return err }(),
		"object type":        func() error { _, err := c.CommutationOf(ctx, CommutationFilter{ObjectType: "shoe"}); return err }(),
		"no MAC":             func() error { _, err := c.FindMAC(ctx, MAC{}); return err }(),
		"no terminal":        func() error { _, err := c.ONT(ctx, ""); return err }(),
	} {
		t.Run(name, func(t *testing.T) { requireKind(t, err, ErrArgument) })
	}
	require.Empty(t, s.seen())
}

func TestCallChecksArguments(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
	c := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, "3.16.30") })
	for name, tt := range map[string]struct {
		label, args string
		kind        error
		param, text string
	}{
		"unknown action":    {"customer.get_shoes", "", ErrUnknownAction, "", "no such action"},
		"unknown parameter": {"customer.get_mac_history", "customer_id=1&shoe=2", ErrUnknown, "shoe", "not among customer_id"},
		"no parameters":     {"customer.get_last_ip", "x=1", ErrUnknown, "x", "has no parameters"},
		"missing":           {"customer.ip_add", "customer_id=1", ErrMissing, "value", "obligatory"},
		"empty":             {"customer.ip_add", "customer_id=&value=192.0.2.7", ErrFormat, "customer_id", "is empty"},
		"empty text":        {"customer.change_balance", "customer_id=1&amount=1&comment=", ErrMissing, "comment", "obligatory"},
		"two values":        {"customer.ip_add", "customer_id=1&customer_id=2&value=192.0.2.7", ErrFormat, "customer_id", "2 values"},
		"both names":        {"customer.state_change", "customer_id=1&usercode=2&state_id=0", ErrFormat, "customer_id", "too"},
		"no condition":      {"customer.get_customers_id", "limit=5&is_like=1", ErrMissing, "condition", "balance_from"},
		"no customer":       {"customer.get_data", "", ErrMissing, "customer", "one of"},
		"account alone":     {"customer.get_data", "account_number=5", ErrMissing, "billing_id", "beside account_number"},
		"id":                {"customer.to_ex", "customer_id=0", ErrFormat, "customer_id", `"0" is not a whole number above 0`},
		"number":            {"customer.state_change", "customer_id=1&state_id=-1", ErrFormat, "state_id", "0 or more"},
		"flag":              {"customer.get_customers_id", "is_ex=maybe", ErrFormat, "is_ex", "flag"},
		"address":           {"customer.ip_add", "customer_id=1&value=192.0.2.256", ErrFormat, "value", "IPv4"},
		"address or word":   {"customer.ip_delete", "customer_id=1&value=some", ErrFormat, "value", "an IPv4 address or one of -1, all"},
		"mac":               {"customer.set_mac_by_ip", "ip=192.0.2.7&mac=ff:ff:ff:ff:ff:ff", ErrFormat, "mac", "a MAC"},
		"date":              {"customer.change_date_connect", "customer_id=1&value=3.2.2026", ErrFormat, "value", "a date"},
		"date and time":     {"customer.msg", "date_add_from=soon", ErrFormat, "date_add_from", "a time"},
		"money":             {"customer.change_balance", "customer_id=1&amount=1e9&comment=c", ErrFormat, "amount", "an amount"},
		"ids":               {"customer.get_data", "customer_id=1,,2", ErrFormat, "customer_id", "a list of ids"},
		"enum":              {"customer.get_activity_counter", "type=shoe", ErrFormat, "type", `"shoe" is not one of net, internet`},
		"prefix length":     {"customer.ip_subnet_add", "customer_id=1&ip=192.0.2.0&subnet=33", ErrFormat, "subnet", "0 to 32"},
		"control character": {"customer.tarif_change", "customer_id=1&tarif=%00", ErrFormat, "tarif", "control"},
		"too long":          {"customer.tarif_change", "customer_id=1&tarif=" + strings.Repeat("x", maxArgument+1), ErrFormat, "tarif", "longer"},
		"newer parameter":   {"customer.ip_add", "customer_id=1&value=192.0.2.7&mac=00005e005301", ErrUnsupported, "mac", "since 3.17.36; the server is 3.16.30"},
		"newer action":      {"customer.service_add", "customer_id=1&service_id=2", ErrUnsupported, "", "since 3.18beta1"},
		"additional field":  {"device.get_device_id", "object_type=all&data_typer=additional_field_x&data_value=1", ErrFormat, "data_typer", "additional_field_N"},
	} {
		t.Run(name, func(t *testing.T) {
			args, err := url.ParseQuery(tt.args)
			require.NoError(t, err)
			category, action, _ := strings.Cut(tt.label, ".")
			_, err = c.Call(ctx, category, action, args)
			require.ErrorIs(t, err, tt.kind)
			if !errors.Is(tt.kind, ErrUnsupported) {
				require.ErrorIs(t, err, ErrArgument)
			}
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, tt.param, e.Param)
			require.Contains(t, e.Text, tt.text)
			_, err = c.Prepare(category, action, args)
			require.ErrorIs(t, err, tt.kind)
		})
	}
	require.Empty(t, s.seen())
}

// Nobody knows what a server makes of a customer that is merged with itself; it
// may well delete it.
func TestCallRefusesToMergeACustomerWithItself(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
	c := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, "3.19") })
	for _, src := range []string{"7", "007", " 7"} {
		_, err := c.Call(ctx, "customer", "merge", url.Values{"dst_id": {"7"}, "src_id": {src}})
		require.ErrorIs(t, err, ErrArgument)
		require.ErrorContains(t, err, "same as dst_id")
	}
	require.Empty(t, s.seen())
	_, err := c.Call(ctx, "customer", "merge", url.Values{"dst_id": {"7"}, "src_id": {"8"}})
	require.NoError(t, err)
}

func TestCallNormalises(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK","data":[]}`))
	c := newTestClient(t, s)
	for _, tt := range []struct{ label, args, want string }{
		{"customer.set_mac_by_ip", "ip= 192.0.2.7 &mac=00005E-005301", "ip=192.0.2.7&mac=00%3A00%3A5e%3A00%3A53%3A01"},
		{"customer.state_change", "usercode=007&state_id=2", "customer_id=7&state_id=2"},
		{"customer.ip_delete", "customer_id=7&value=-1", "customer_id=7&value=-1"},
		{"customer.ip_subnet_add", "customer_id=7&ip=192.0.2.0&subnet=/29", "customer_id=7&ip=192.0.2.0&subnet=29"},
		{"customer.edit", "id=7&is_potential=no&date_activity=2026-02-03T04:05:06&comment=", "comment=&date_activity=2026-02-03+04%3A05%3A06&id=7&is_potential=0"},
		{"customer.change_balance", "customer_id=7&amount=-0.50&comment=c", "amount=-0.50&comment=c&customer_id=7"},
	} {
		args, err := url.ParseQuery(tt.args)
		require.NoError(t, err)
		category, action, _ := strings.Cut(tt.label, ".")
		_, err = c.Call(ctx, category, action, args)
		require.NoError(t, err)
		require.Equal(t, tt.want, s.seen()[len(s.seen())-1].form.Encode())
	}
	_, err := c.Call(ctx, "customer", "get_data", url.Values{"customer_id": {"1, 2,03"}})
	require.NoError(t, err)
	require.Equal(t, "1,2,3", s.seen()[len(s.seen())-1].query.Get("customer_id"))
	_, err = c.Call(ctx, "device", "get_data", url.Values{"object_type": {"all"}})
	require.NoError(t, err)
	require.Equal(t, "1", s.seen()[len(s.seen())-1].query.Get("is_hide_access_data"), "passwords are not asked for")
	_, err = c.Call(ctx, "device", "get_data", url.Values{"object_type": {"all"}, "is_hide_access_data": {"0"}})
	require.NoError(t, err)
	require.Equal(t, "0", s.seen()[len(s.seen())-1].query.Get("is_hide_access_data"))
	_, err = c.Call(ctx, "device", "get_device_id", url.Values{"object_type": {"all"}, "data_typer": {"additional_field_12"}, "data_value": {"x"}})
	require.NoError(t, err)
}

// Any action can be called on every version that has it.
func TestCallEveryActionOnEveryVersion(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK","Id":1,"data":{"erp_version":"3.19"}}`))
	for _, server := range []string{"3.12.90", "3.16.30", "3.17.36", "3.19.5", "3.21.2"} {
		v := version(t, server)
		c := newTestClient(t, s, func(o *Options) { o.ERPVersion = v })
		for _, a := range Actions() {
			before := len(s.seen())
			args := allArgs(a, v)
			_, err := c.Call(ctx, a.Category, a.Name, args)
			if !v.Has(a.Since, a.Until) {
				require.ErrorIs(t, err, ErrUnsupported, "%s on %s", a.Label(), server)
				require.Len(t, s.seen(), before)
				continue
			}
			require.NoError(t, err, "%s on %s", a.Label(), server)
			seen := s.seen()[before]
			for _, p := range a.Params {
				assert.Equal(t, args.Has(p.Name), seen.query.Has(p.WireName(v)) || seen.form.Has(p.WireName(v)), "%s %s on %s", a.Label(), p.Name, server)
			}
		}
	}
}

func TestCallAnswers(t *testing.T) {
	for name, tt := range map[string]struct{ label, body, data string }{
		"rows":            {"customer.msg", `{"result":"OK","data":[{"b":1,"a":"x"}]}`, `[{"b":1,"a":"x"}]`},
		"own key":         {"customer.msg", `{"Result":"OK","rows":{"7":null,"1":true}}`, `{"7":null,"1":true}`},
		"scalar":          {"customer.get_last_ip", `{"result":"OK","last_ip":"1"}`, `"1"`},
		"several scalars": {"customer.get_last_ip", `{"result":"OK","z":"1","a":2.50}`, `{"z":"1","a":2.50}`},
		"id":              {"customer.add", `{"result":"OK","Id":5}`, `5`},
		"marker only":     {"customer.to_ex", `{"result":"OK","error":""}`, `null`},
		"empty":           {"customer.msg", `{"result":"OK","data":[]}`, `[]`},
		"repeated key":    {"customer.msg", `{"result":"OK","data":{"a":1,"b":2,"a":3}}`, `{"a":3,"b":2}`},
		"bare object":     {"module.get_system_information", `{"os":"Linux","id":4}`, `{"os":"Linux","id":4}`},
		"bare list":       {"module.get_user_list", `[{"id":4}]`, `[{"id":4}]`},
		"bare enveloped":  {"module.get_user_list", `{"result":"OK","data":{"4":{}}}`, `{"4":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			category, action, _ := strings.Cut(tt.label, ".")
			a, _ := FindAction(category, action)
			var raw Raw
			got, err := clientOf(t, tt.body).Call(WithRaw(ctx, &raw), category, action, sampleArgs(a))
			require.NoError(t, err)
			text, err := json.Marshal(got.Data())
			require.NoError(t, err)
			require.Equal(t, tt.data, string(text))
			require.Equal(t, tt.body, string(got.Raw()))
			require.Equal(t, tt.body, string(raw.Text))
			require.Equal(t, 200, raw.Status)
			require.False(t, got.RawTruncated())
		})
	}
	t.Run("ids", func(t *testing.T) {
		got, err := clientOf(t, `{"result":"OK","Id":[5,"6"]}`).Call(ctx, "customer", "get_abon_id", url.Values{"data_typer": {"phone"}, "data_value": {"1"}})
		require.NoError(t, err)
		require.Equal(t, IDs{5, 6}, got.IDs())
	})
	t.Run("not found", func(t *testing.T) {
		_, err := clientOf(t, `{"Result":"ERROR","ErrorText":"x"}`).Call(ctx, "customer", "get_abon_id", url.Values{"data_typer": {"phone"}, "data_value": {"1"}})
		requireKind(t, err, ErrNotFound)
		_, err = clientOf(t, `{"Result":"ERROR","ErrorText":"x"}`).Call(ctx, "customer", "delete", url.Values{"id": {"1"}})
		requireKind(t, err, ErrRefused)
	})
	t.Run("echoed key", func(t *testing.T) {
		key, err := json.Marshal(testKey)
		require.NoError(t, err)
		got, err := clientOf(t, `{"result":"OK","data":{"url":`+string(key)+`}}`).Call(ctx, "customer", "msg", url.Values{"customer_id": {"1"}})
		require.NoError(t, err)
		requireNoKey(t, string(got.Raw()))
		text, err := json.Marshal(got.Data())
		require.NoError(t, err)
		require.Equal(t, `{"url":"[redacted]"}`, string(text))
	})
}

func TestRawIsBoundedAndOfTheLastAttempt(t *testing.T) {
	var r Raw
	r.add(make([]byte, maxRaw-1))
	r.add([]byte("ab"))
	require.Len(t, r.Text, maxRaw)
	require.True(t, r.Truncated)
	r.add([]byte("c"))
	require.Len(t, r.Text, maxRaw)

	s := newTestServer(t, answerWith(503, `{"error":"busy"}`), answerWith(200, `{"result":"OK","data":[]}`))
	var raw Raw
	_, err := newTestClient(t, s, func(o *Options) { o.Retries = 1 }).CustomerBindings(WithRaw(ctx, &raw))
	require.NoError(t, err)
	require.Equal(t, Raw{Status: 200, Text: []byte(`{"result":"OK","data":[]}`)}, raw)
}

func TestPrepareSendsNothingAndHidesTheKey(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK"}`))
	c := newTestClient(t, s, func(o *Options) { o.ERPVersion = version(t, "3.16.30"); o.SkipInternalAPI = true })
	p, err := c.Prepare("customer", "state_change", url.Values{"customer_id": {"1001"}, "state_id": {"0"}})
	require.NoError(t, err)
	require.Equal(t, &Prepared{
		Method: http.MethodPost, URL: s.URL + "/api.php?cat=customer&key=[redacted]&subcat=state_change",
		Form:  url.Values{"usercode": {"1001"}, "state_id": {"0"}, "skip_internal_api": {"1"}},
		Level: Level{Version: version(t, "3.16.30"), Source: LevelSet, Text: "3.16.30"},
	}, p)
	p, err = newTestClient(t, s, func(o *Options) { o.ERPVersion = Version{} }).Prepare("device", "find_mac", url.Values{"mac": {"00005e005301"}})
	require.NoError(t, err)
	require.Equal(t, http.MethodGet, p.Method)
	require.Equal(t, s.URL+"/api.php?action=find_mac&cat=device&key=[redacted]&mac=00%3A00%3A5e%3A00%3A53%3A01", p.URL)
	require.Equal(t, LevelAssumed, p.Level.Source)
	require.Nil(t, p.Form)
	requireNoKey(t, p.URL)
	require.Empty(t, s.seen())
}

func TestLookupsSend(t *testing.T) {
	s := newTestServer(t, answerWith(200, `{"result":"OK","Id":1,"data":[]}`))
	c := newTestClient(t, s)
	day := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, tt := range []struct {
		call func() error
		want string
	}{
		{func() error {
			_, err := c.Messages(ctx, MessageFilter{Customer: 7, From: day, To: day, Employee: 3})
			return err
		},
			"action=msg&cat=customer&customer_id=7&date_add_from=2026-02-03 04:05:06&date_add_to=2026-02-03 04:05:06&employee_id=3"},
		{func() error { _, err := c.CommutationOf(ctx, CommutationFilter{"switch", 5, true}); return err },
			"action=get_data&cat=commutation&is_finish_data=1&object_id=5&object_type=switch"},
		{func() error { _, err := c.DeviceMACs(ctx, 5, "Gi0/1", "Gi0/2"); return err }, "action=get_mac_list&cat=device&interface_list=Gi0/1,Gi0/2&object_id=5"},
		{func() error { _, err := c.Connections(ctx, ConnectionFilter{"switch", 5}); return err }, "cat=module&object_id=5&object_type=switch&request=get_connect_list"},
		{func() error { _, err := c.UserList(ctx, UserListFilter{7, 3, true, true, true, true, 9}); return err },
			"billing_id=3&cat=module&customer_id=7&is_id_billing_user_id=1&is_load_commutation=1&is_parent_id=1&is_with_potential=1&request=get_user_list&timestamp_ready=9"},
		{func() error { _, err := c.CustomerByAccount(ctx, "10", 3); return notFoundIsFine(err) }, "account_number=10&action=get_data&billing_id=3&cat=customer"},
		{func() error { _, err := c.LookUpCustomers(ctx, LookupMAC, "00005e005301", true); return err },
			"action=get_customer_id&cat=customer&data_typer=mac&data_value=00:00:5e:00:53:01&is_skip_old=1"},
	} {
		before := len(s.seen())
		err := tt.call()
		if err != nil {
			require.ErrorIs(t, err, ErrUnknownShape)
		}
		q := s.seen()[before].query
		q.Del("key")
		got, err := url.QueryUnescape(q.Encode())
		require.NoError(t, err)
		require.Equal(t, tt.want, got)
	}
}

func notFoundIsFine(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
