package emulator

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// do sends a call of cat=customer by POST under the names that the profile has.
func do(t testing.TB, e *Emulator, action, params string) string {
	t.Helper()
	if e.Profile() == Profile316 {
		if actionTable()["customer."+action].usercode() {
			params = strings.ReplaceAll(params, "customer_id=", "usercode=")
		}
		params = strings.ReplaceAll(params, "employee_id=", "operator_id=")
	}
	return post(t, e, "cat=customer&subcat="+action+"&"+params).body
}

// good is the bare answer of success, bad a refusal.
func good(p Profile) string {
	if p.old() {
		return `{"Result":"OK"}`
	}
	return `{"result":"OK"}`
}

func bad(p Profile, text string) string {
	if p.old() {
		return `{"Result":"ERROR","ErrorText":"` + text + `"}`
	}
	return `{"result":"ERROR","error":"` + text + `"}`
}

// each runs a test in every profile.
func each(t *testing.T, fn func(t *testing.T, e *Emulator, p Profile)) {
	t.Helper()
	for _, p := range Profiles() {
		t.Run(p.String(), func(t *testing.T) { fn(t, small(t, Options{Profile: p}), p) })
	}
}

func customer(t testing.TB, e *Emulator, id int64) Customer {
	t.Helper()
	c, ok := e.Customer(id)
	require.True(t, ok)
	return c
}

func TestAdd(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		id := `"Id":1006}`
		if p.old() {
			id = `"Id":"1006"}`
		}
		got := do(t, e, "add", "fio="+url.QueryEscape("Тест &quot;B&quot;")+"&codeti=900&is_corporate=1&billing_id=2&billing_customer_id=901")
		require.True(t, strings.HasSuffix(got, id), got)
		c := customer(t, e, 1006)
		require.Equal(t, `Тест "B"`, c.FullName)
		require.True(t, c.Corporate)
		require.Equal(t, int64(2), c.Billing)
		require.Equal(t, testNow, c.Created)
		want := "900"
		if p == ProfileV321 {
			want = "901"
		}
		require.Equal(t, want, c.BillingUID)
		require.Contains(t, do(t, e, "get_data", "customer_id=1006"), `"billing_id":"`+want+`"`)

		got = do(t, e, "add", "fio=x&codeti=7")
		if p == ProfileV321 {
			require.Equal(t, bad(p, "parameter billing_id is missing"), got)
			require.Equal(t, bad(p, "parameter billing_customer_id is missing"), do(t, e, "add", "billing_id=1"))
		} else {
			require.Contains(t, got, "OK")
		}
		require.Contains(t, do(t, e, "add", "is_potential=1"), `"Id":`)
		require.Equal(t, bad(p, "parameter billing_id: want a number above 0"), do(t, e, "add", "is_potential=1&billing_id=0"))
		require.Equal(t, bad(p, "parameter billing_id: not a number"), do(t, e, "add", "is_potential=1&billing_id=x"))
	})
}

func TestEdit(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		require.Equal(t, good(p), do(t, e, "edit", "id=1001&account_number=77&agreement_date=2024-02-01&agreement_number=B-9&apartment_number=12&"+
			"comment=a%3Cbr%3Eb&date_activity=2025-03-01+08:00:00&date_activity_inet=2025.03.02+09:10:11&date_connect=2024-02-02&email=new@example.net&"+
			"entrance=2&flag_corporate=1&floor=-1&group_id=3&house_id=56&is_potential=1&login=u9&manager_id=4&name=New+%26+name&parent_id=1002&"+
			"phone0=111&phone1=222&phone4=444&coordinates=50.4501,30.5234"))
		want := customer(t, small(t, Options{}), 1001)
		want.AccountNumber, want.AgreementNumber, want.AgreementDate = "77", "B-9", time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)
		want.Apartment, want.Comment, want.Emails = "12", "a\nb", []string{"new@example.net"}
		want.Active, want.ActiveInternet = time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC), time.Date(2025, 3, 2, 9, 10, 11, 0, time.UTC)
		want.Connected, want.Entrance, want.Floor, want.House = time.Date(2024, 2, 2, 0, 0, 0, 0, time.UTC), 2, -1, 56
		want.Corporate, want.Potential, want.Login, want.Manager = true, true, "u9", 4
		want.FullName, want.Parent = "New & name", 1002
		want.Phones = []string{"111", "222"}
		if p != Profile316 {
			want.Group = 3 // since 3.16dev3
		}
		if !p.old() { // newer than 3.16
			want.Phones = []string{"111", "222", "", "", "444"}
			want.Coordinates = "50.4501,30.5234"
		}
		require.Equal(t, want, customer(t, e, 1001))
		body := do(t, e, "get_data", "customer_id=1001")
		for _, s := range []string{`"login":"u9"`, `New &amp; name`, `"number":"B-9","date":"2024-02-01 00:00:00"`, `"date_connect":"2024-02-02"`,
			`"date_activity_inet":"2025-03-02 09:10:11"`, `"account_number":"77"`, `a<br>b`, `"floor":"-1"`, `"number":"222"`} {
			require.Contains(t, strings.ReplaceAll(body, `\/`, "/"), s)
		}
		require.Regexp(t, `"parent_id":"?1002`, body)
		require.Contains(t, do(t, e, "get_customers_id", "house_id=56"), "1001")

		// What is given empty is emptied; what is not given stays.
		require.Equal(t, good(p), do(t, e, "edit", "id=1001&email=&date_connect=&house_id=&comment=&phone0=&phone1=&phone4="))
		c := customer(t, e, 1001)
		require.Empty(t, c.Emails)
		require.Empty(t, c.Phones)
		require.True(t, c.Connected.IsZero())
		require.Zero(t, c.House)
		require.Equal(t, "u9", c.Login)

		// A parameter that cannot be read refuses them all.
		for params, text := range map[string]string{
			"id=1001&login=z&house_id=x":              "parameter house_id: not a number",
			"id=1001&login=z&house_id=-1":             "parameter house_id: below its range",
			"id=1001&login=z&date_connect=31.12.2024": "parameter date_connect: want a date like 2006-01-02 or 2006-01-02 15:04:05",
			"id=1001&login=z&is_potential=yes":        "parameter is_potential: want 1 or 0",
			"customer_id=1001&login=z":                "parameter id is missing",
			"id=77&login=z":                           "customer not found",
		} {
			require.Equal(t, bad(p, text), do(t, e, "edit", params))
		}
		require.Equal(t, c, customer(t, e, 1001))
		if !p.old() {
			require.Contains(t, do(t, e, "edit", "id=1001&coordinates=91,0"), "parameter coordinates")
			require.Contains(t, do(t, e, "edit", "id=1001&coordinates=NaN,0"), "parameter coordinates")
		}
	})
}

func TestDelete(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		require.NoError(t, e.SetIPMAC(ip("100.64.0.10"), mac(t, "00:00:5e:00:53:99")))
		require.Equal(t, good(p), do(t, e, "delete", "id=1001"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "get_data", "customer_id=1001"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "get_abon_id", "data_typer=ip&data_value=100.64.0.10"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "delete", "id=1001"))
		require.Empty(t, e.MACHistory(1001))
		require.NotContains(t, get(t, e, "cat=module&request=get_user_list").body, `"1001"`)
		require.NotContains(t, get(t, e, "cat=commutation&action=get_data&object_type=customer").body, `"1001"`)
		require.Equal(t, good(p), do(t, e, "ip_add", "customer_id=1002&value=100.64.0.10"), "the address is free")
		// The id of a deleted customer is not given to another.
		require.NoError(t, e.DeleteCustomer(1005))
		id, err := e.AddCustomer(Customer{})
		require.NoError(t, err)
		require.Equal(t, int64(1006), id)
		require.ErrorIs(t, e.DeleteCustomer(77), ErrNotFound)
	})
}

func TestMerge(t *testing.T) {
	for _, p := range []Profile{ProfileModern, ProfileV321} {
		e := small(t, Options{Profile: p})
		require.NoError(t, e.SetIPMAC(ip("100.64.0.20"), mac(t, "00:00:5e:00:53:98")))
		require.NoError(t, e.ChangeBalance(1002, 300, "pay"))
		require.NoError(t, e.ChangeBalance(1001, 200, "pay"))
		do(t, e, "msg_add", "customer_id=1002&text=hello")
		do(t, e, "service_add", "customer_id=1002&service_id=1")
		do(t, e, "mark_add", "customer_id=1002&mark_id=9")
		require.Equal(t, good(p), do(t, e, "merge", "dst_id=1001&src_id=1002"))
		c := customer(t, e, 1001)
		require.Equal(t, int64(1250+200-50+300), c.BalanceCents)
		require.Equal(t, []string{"380000000001"}, c.Phones, "the same number stays one")
		require.Equal(t, []int64{9}, c.Marks)
		require.Equal(t, []Link{{Device: 6001, Port: 5}, {Device: 6001, Port: 6}}, c.Links)
		require.Len(t, c.Addresses, 3)
		require.Len(t, c.Services, 1)
		require.Len(t, c.Messages, 1)
		require.Len(t, c.Movements, 2)
		require.Equal(t, StateActive, c.State)
		require.Len(t, e.MACHistory(1001), 1)
		require.Equal(t, bad(p, "customer not found"), do(t, e, "get_data", "customer_id=1002"))
		require.Equal(t, `{"result":"OK","Id":1001}`, do(t, e, "get_abon_id", "data_typer=ip&data_value=100.64.0.21"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "merge", "dst_id=1001&src_id=1002"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "merge", "dst_id=77&src_id=1001"))
		require.Equal(t, bad(p, "parameters dst_id and src_id are the same"), do(t, e, "merge", "dst_id=1001&src_id=1001"))
	}
}

func TestBalance(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		require.Equal(t, good(p), do(t, e, "change_balance", "customer_id=1001&amount=-2.5&comment=fee&employee_id=3"))
		require.NoError(t, e.ChangeBalance(1001, 1000, "terminal"))
		require.Contains(t, do(t, e, "get_data", "customer_id=1001"), `"balance":"20.00"`)
		require.Contains(t, do(t, e, "get_customers_id", "balance_from=20&balance_to=20"), "1001")
		want := `[{"Typer":"pay","DateDo":"2026-02-03 04:05:06","empoyee_id":null,"Amount":"10.00","Comment":"terminal"},` +
			`{"Typer":"change","DateDo":"2026-02-03 04:05:06","empoyee_id":3,"Amount":"-2.50","Comment":"fee"}]`
		if p.old() {
			want = `[{"Id":"2","type":"pay","DateDo":"2026-02-03 04:05:06","OperID":"0","BalansBefore":"10.00","Amount":"10.00","PKO":"","Comment":"terminal","BillingDopData":""},` +
				`{"Id":"1","type":"change","DateDo":"2026-02-03 04:05:06","OperID":"3","BalansBefore":"12.50","Amount":"-2.50","PKO":"","Comment":"fee","BillingDopData":""}]`
		}
		require.Equal(t, strings.TrimSuffix(good(p), "}")+`,"data":`+want+"}", do(t, e, "abon_hist", "customer_id=1001"))
		for _, amount := range []string{"", "x", "1.234", "1,5", "NaN", "1e3", "--1", ".5", "1.", "10000000000000"} {
			require.Contains(t, do(t, e, "change_balance", "customer_id=1001&comment=c&amount="+amount), "parameter amount")
		}
		require.Contains(t, do(t, e, "change_balance", "customer_id=1001&comment=c&amount=900000000000"), "OK")
		require.Equal(t, bad(p, "the balance would leave its range"), do(t, e, "change_balance", "customer_id=1001&comment=c&amount=900000000000"))
		require.Equal(t, bad(p, "parameter comment is missing"), do(t, e, "change_balance", "customer_id=1001&amount=1"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "change_balance", "customer_id=77&amount=1&comment=c"))
	})
}

func TestAccountIsBounded(t *testing.T) {
	e := small(t, Options{})
	for range maxHistory + 5 {
		require.NoError(t, e.ChangeBalance(1001, 1, "c"))
	}
	c := customer(t, e, 1001)
	require.Len(t, c.Movements, maxHistory)
	require.Equal(t, int64(6), c.Movements[0].ID)
}

func TestContract(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		require.Equal(t, good(p), do(t, e, "change_billing", "customer_id=1001&billing_id=3&billing_user_id=801"))
		c := customer(t, e, 1001)
		require.Equal(t, int64(3), c.Billing)
		if p == Profile316 {
			require.Equal(t, "501", c.BillingUID, "billing_user_id came with 3.16.23")
		} else {
			require.Equal(t, "801", c.BillingUID)
		}
		require.Contains(t, do(t, e, "get_customers_id", "billing_id=3"), "1001")
		require.Equal(t, bad(p, "parameter billing_id: want a number above 0"), do(t, e, "change_billing", "customer_id=1001&billing_id=0"))

		require.Equal(t, good(p), do(t, e, "change_date_connect", "customer_id=1001&value=2025-05-06"))
		require.Contains(t, do(t, e, "get_data", "customer_id=1001"), `"date_connect":"2025-05-06"`)
		require.Contains(t, do(t, e, "get_customers_id", "date_connect_from=2025-05-06&date_connect_to=2025-05-06"), "1001")
		require.Contains(t, do(t, e, "change_date_connect", "customer_id=1001&value=soon"), "parameter value: want a date")
		require.Contains(t, do(t, e, "get_customers_id", "date_connect_from=soon"), "parameter date_connect_from: want a date")

		require.Equal(t, good(p), do(t, e, "tarif_change", "customer_id=1001&tarif=14"))
		require.Contains(t, do(t, e, "get_data", "customer_id=1001"), `"tariff":{"current":[{"id":"14"}]}`)
		require.Equal(t, bad(p, "tariff not found"), do(t, e, "tarif_change", "customer_id=1001&tarif=99"))

		require.Equal(t, good(p), do(t, e, "to_ex", "customer_id=1001"))
		require.True(t, customer(t, e, 1001).Former)
		require.Contains(t, do(t, e, "get_customers_id", "is_ex=1"), "1001")
		require.NotContains(t, get(t, e, "cat=module&request=get_user_list").body, "u1001")
		require.Equal(t, good(p), do(t, e, "to_normal", "customer_id=1001"))
		require.Contains(t, do(t, e, "get_customers_id", "is_ex=0"), "1001")

		require.Equal(t, good(p), do(t, e, "mark_add", "customer_id=1001&mark_id=5"))
		require.Equal(t, good(p), do(t, e, "mark_add", "customer_id=1001&mark_id=5"))
		require.Equal(t, []int64{5}, customer(t, e, 1001).Marks)
		require.Contains(t, do(t, e, "get_data", "customer_id=1001"), `"mark":{"5":`)
		require.Contains(t, do(t, e, "get_customers_id", "mark_id=5"), "1001")
		require.Equal(t, good(p), do(t, e, "mark_delete", "customer_id=1001&mark_id=5"))
		require.Equal(t, bad(p, "mark not found"), do(t, e, "mark_delete", "customer_id=1001&mark_id=5"))
		require.Contains(t, do(t, e, "mark_add", "customer_id=1001&mark_id=-5"), "parameter mark_id")

		got := do(t, e, "service_add", "customer_id=1001&service_id=1&price=12.30&comment=a+%26+b")
		if p.old() {
			require.Equal(t, bad(p, "unknown action"), got)
			return
		}
		require.Equal(t, good(p), got)
		require.Equal(t, good(p), do(t, e, "service_add", "customer_id=1001&service_id=2"))
		require.Equal(t, good(p), do(t, e, "service_add", "customer_id=1001&service_id=1"))
		require.Contains(t, do(t, e, "get_data", "customer_id=1001"), `"service":{"1":[{"cost":"12.30","comment":"a &amp; b","date_add":"2026-02-03 04:05:06"},`+
			`{"cost":"50.00","comment":"","date_add":"2026-02-03 04:05:06"}],"2":[{"cost":"100.00","comment":"","date_add":"2026-02-03 04:05:06"}]}`)
		require.Equal(t, good(p), do(t, e, "service_remove", "customer_id=1001&service_id=1"))
		require.Len(t, customer(t, e, 1001).Services, 1)
		require.Equal(t, bad(p, "service not found"), do(t, e, "service_remove", "customer_id=1001&service_id=1"))
		require.Equal(t, bad(p, "service not found"), do(t, e, "service_add", "customer_id=1001&service_id=99"))
		require.Contains(t, do(t, e, "service_add", "customer_id=1001&service_id=1&price=x"), "parameter price")
	})
}

func TestSubnets(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		require.Equal(t, good(p), do(t, e, "ip_subnet_add", "customer_id=1001&ip=198.51.100.0&subnet=28"))
		require.Equal(t, good(p), do(t, e, "ip_subnet_add", "customer_id=1001&ip=198.51.100.16&subnet=255.255.255.240"))
		require.Contains(t, strings.ReplaceAll(do(t, e, "get_data", "customer_id=1001"), `\/`, "/"), `"ip_net":"198.51.100.16/28"`)
		require.NotContains(t, do(t, e, "get_ip_port_device_commutation", ""), "3325256704", "subnets are no bindings")
		for params, text := range map[string]string{
			"customer_id=1002&ip=198.51.100.8&subnet=29":         "subnet 198.51.100.8/29: in use",
			"customer_id=1002&ip=100.64.0.0&subnet=24":           "subnet 100.64.0.0/24: in use",
			"customer_id=1002&ip=203.0.113.1&subnet=24":          "parameter ip: not the first address of the subnet",
			"customer_id=1002&ip=203.0.113.0&subnet=33":          "parameter subnet: want the length of a prefix, 0 to 32, or a mask",
			"customer_id=1002&ip=203.0.113.0&subnet=255.0.255.0": "parameter subnet: want the length of a prefix, 0 to 32, or a mask",
			"customer_id=1002&ip=203.0.113.0&subnet=2001:db8::":  "parameter subnet: want the length of a prefix, 0 to 32, or a mask",
			"customer_id=1002&ip=203.0.113&subnet=24":            "parameter ip: not a dotted IPv4 address",
			"customer_id=1002&ip=203.0.113.0":                    "parameter subnet is missing",
			"customer_id=77&ip=203.0.113.0&subnet=24":            "customer not found",
		} {
			require.Equal(t, bad(p, strings.ReplaceAll(text, "/", slash(p))), do(t, e, "ip_subnet_add", params))
		}
		require.Equal(t, good(p), do(t, e, "ip_subnet_delete", "customer_id=1001&ip=198.51.100.0"))
		require.Equal(t, bad(p, "subnet not found"), do(t, e, "ip_subnet_delete", "customer_id=1001&ip=198.51.100.0"))
		require.Equal(t, bad(p, "subnet not found"), do(t, e, "ip_subnet_delete", "customer_id=1001&ip=100.64.0.10"), "an address is no subnet")
		require.Len(t, customer(t, e, 1001).Addresses, 2)
	})
}

// slash is how the profile prints one in JSON.
func slash(p Profile) string {
	if p.old() {
		return `\/`
	}
	return "/"
}

func TestMessages(t *testing.T) {
	each(t, func(t *testing.T, e *Emulator, p Profile) {
		got := do(t, e, "msg_add", "customer_id=1001&text=no+%3Clink%3E&is_arc=1")
		require.Regexp(t, `"Id":"?1"?}$`, got)
		require.Equal(t, !p.old(), customer(t, e, 1001).Messages[0].Archived)
		rows := []string{`{"Id":1,"DateMsg":"2026-02-03 04:05:06","employee_id":0,"MsgTyper":"from_customer","Text":"no &lt;link&gt;"}`}
		got = do(t, e, "msg_add_to_customer", "employee_id=4&customer_id=1002&text=soon")
		if p.old() {
			require.Equal(t, bad(p, "unknown action"), got)
			rows[0] = strings.NewReplacer(`"Id":1`, `"Id":"1"`, `:0,`, `:"0",`).Replace(rows[0])
			if p == Profile316 {
				rows[0] = strings.ReplaceAll(rows[0], "employee_id", "operator_id")
			}
		} else {
			require.Equal(t, `{"result":"OK","Id":2}`, got)
			rows = append(rows, `{"Id":2,"DateMsg":"2026-02-03 04:05:06","employee_id":4,"MsgTyper":"to_customer","Text":"soon"}`)
		}
		list := func(rows ...string) string {
			return strings.TrimSuffix(good(p), "}") + `,"data":[` + strings.Join(rows, ",") + "]}"
		}
		require.Equal(t, list(rows[0]), do(t, e, "msg", "customer_id=1001"))
		require.Equal(t, list(rows[0]), do(t, e, "msg", "customer_id=1001&date_add_from=2026-02-03&date_add_to=2026-02-03"))
		require.Equal(t, list(rows[0]), do(t, e, "msg", "customer_id=1001&date_add_to=2026-02-03+04:05:06"))
		require.Equal(t, list(), do(t, e, "msg", "customer_id=1001&date_add_from=2026-02-03+04:05:07"))
		require.Equal(t, list(), do(t, e, "msg", "customer_id=1003"))
		require.Equal(t, bad(p, "customer not found"), do(t, e, "msg", "customer_id=77"))
		require.Contains(t, do(t, e, "msg", "customer_id=1001&date_add_to=x"), "parameter date_add_to: want a date")
		require.Contains(t, do(t, e, "msg_add", "customer_id=1001"), "parameter text is missing")
		if p == Profile316 {
			require.Equal(t, bad(p, "parameter usercode is missing"), do(t, e, "msg", "date_add_from=2026-01-01"))
			return
		}
		require.Equal(t, list(rows...), do(t, e, "msg", "date_add_from=2026-01-01"))
		require.Equal(t, list(rows[1:]...), do(t, e, "msg", "employee_id=4"))
		require.Equal(t, bad(p, "no condition given"), do(t, e, "msg", ""))
	})
}

// A password is compared, and is nowhere to be seen: not in answers, pages, the
// log or the file.
func TestPassword(t *testing.T) {
	each(t, func(t *testing.T, _ *Emulator, p Profile) {
		var log bytes.Buffer
		path := filepath.Join(t.TempDir(), "erp.db")
		e := small(t, Options{Profile: p, Path: path, Log: debugLog(&log)})
		require.NoError(t, e.SetPassword(1001, "first-secret"))
		require.Equal(t, good(p), do(t, e, "pass_change", "customer_id=1001&pass_new=second-secret&pass_old=first-secret"))
		require.True(t, e.PasswordIs(1001, "second-secret"))
		require.False(t, e.PasswordIs(1001, "first-secret"))
		require.Equal(t, bad(p, "the old password is wrong"), do(t, e, "pass_change", "customer_id=1001&pass_new=third-secret&pass_old=first-secret"))
		require.True(t, e.PasswordIs(1001, "second-secret"))
		require.Equal(t, good(p), do(t, e, "pass_change", "customer_id=1001&pass_new=fourth-secret"), "since 3.15.23 without the old one")
		require.True(t, e.PasswordIs(1001, "fourth-secret"))
		require.Equal(t, bad(p, "the old password is wrong"), do(t, e, "pass_change", "customer_id=1002&pass_new=third-secret&pass_old=guess-secret"), "nothing set yet")
		require.Equal(t, bad(p, "parameter pass_new is missing"), do(t, e, "pass_change", "customer_id=1001"))
		require.Contains(t, do(t, e, "pass_change", "customer_id=1001&pass_new="+strings.Repeat("x", maxPassword+1)), "parameter pass_new: longer")

		page := admin(t, e.AdminHandler(), "GET", "/admin/customers", "", "").body
		require.Contains(t, page, `"password_set": true`)
		file, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, s := range []string{log.String(), page, string(file), do(t, e, "get_data", "customer_id=1001"), get(t, e, "cat=module&request=get_user_list").body} {
			assert.NotContains(t, s, "-secret")
		}
		require.NoError(t, e.SetPassword(1001, ""))
		require.False(t, e.PasswordIs(1001, ""))
		require.ErrorIs(t, e.SetPassword(77, "x"), ErrNotFound)
	})
}
