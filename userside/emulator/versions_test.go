package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProfileVersions(t *testing.T) {
	for p, want := range map[Profile]string{Profile316: "3.16dev1", ProfileLegacy: "3.16.30", ProfileModern: "3.19.5", ProfileV321: "3.21.2"} {
		require.Equal(t, want, p.Version().String())
		require.Contains(t, get(t, open(t, Options{Profile: p}), "cat=system&action=get_system_info").body, `"erp_version":"`+want+`"`)
		require.Contains(t, get(t, open(t, Options{Profile: p}), "cat=module&request=get_system_information").body, `"version":"`+want+`"`)
	}
	require.True(t, Profile(9).Version().IsZero())
	require.Panics(t, func() { level("three") })
	// All versions that are written in the package can be read.
	for _, since := range filterSince() {
		level(since)
	}
}

// An action is unknown to servers older than it, and to those that it is gone from.
func TestActionsByVersion(t *testing.T) {
	newer := map[Profile][]string{
		Profile316: {"get_customer_id", "get_customer_group", "get_mac_history", "list_tarif_available", "merge", "msg_add_to_customer",
			"service_add", "service_remove"},
		ProfileLegacy: {"get_customer_id", "get_customer_group", "list_tarif_available", "merge", "msg_add_to_customer", "service_add", "service_remove"},
		ProfileModern: {"list_tarif_available"},
		ProfileV321:   {"list_tarif_available"},
	}
	for _, p := range Profiles() {
		e := small(t, Options{Profile: p})
		var unknown []string
		for _, name := range sortedKeys(actionTable()) {
			if action, ok := strings.CutPrefix(name, "customer."); ok {
				if strings.Contains(post(t, e, "cat=customer&subcat="+action).body, "unknown action") {
					unknown = append(unknown, action)
				}
			}
		}
		require.ElementsMatch(t, newer[p], unknown, p)
	}
}

// Filters that came later are overlooked, as PHP does with what it does not know.
func TestFiltersByVersion(t *testing.T) {
	for params, want := range map[string]map[Profile]string{
		"is_corporate=1":            {Profile316: "none", ProfileLegacy: "none", ProfileModern: "[1003]"},
		"limit=9&is_corporate=1":    {ProfileLegacy: `["1001","1002","1003","1004","1005"]`, ProfileModern: "[1003]"},
		"manager_id=3":              {Profile316: "none", ProfileModern: "[1002]"},
		"name=Test&is_like=1":       {Profile316: "empty", ProfileLegacy: `["1001"]`, ProfileModern: "[1001]"},
		"is_ex=1":                   {Profile316: `["1005"]`, ProfileModern: "[1005]"},
		"address_unit_id=6&limit=1": {Profile316: `["1001"]`, ProfileModern: "[1001]"},
	} {
		for p, want := range want {
			got := post(t, small(t, Options{Profile: p}), "cat=customer&subcat=get_customers_id&"+params).body
			switch want {
			case "none":
				require.Equal(t, bad(p, "no condition given"), got, params)
			case "empty":
				require.Equal(t, good(p), got, params)
			default:
				require.Equal(t, strings.TrimSuffix(good(p), "}")+`,"data":`+want+"}", got, params)
			}
		}
	}
	// ip_add mac came with 3.17.36, ip_delete all with 3.19beta1.
	old := small(t, Options{Profile: ProfileLegacy})
	require.Equal(t, good(ProfileLegacy), do(t, old, "ip_add", "customer_id=1003&value=100.64.0.31&mac=00:00:5e:00:53:31"))
	require.True(t, customer(t, old, 1003).Addresses[1].MAC.IsZero())
	require.Equal(t, bad(ProfileLegacy, "parameter value: not a dotted IPv4 address"), do(t, old, "ip_delete", "customer_id=1003&value=all"))
}

// v316 knows the old names alone, where they are documented.
func TestOldNames(t *testing.T) {
	const missing = `{"Result":"ERROR","ErrorText":"parameter usercode is missing"}`
	const unknown = `{"Result":"ERROR","ErrorText":"unknown action"}`
	e := small(t, Options{Profile: Profile316})
	for params, want := range map[string]string{
		"cat=customer&subcat=state_change&usercode=1001&state_id=1":                               `{"Result":"OK"}`,
		"cat=abon&subcat=state_change&usercode=1001&state_id=2":                                   `{"Result":"OK"}`,
		"cat=customer&subcat=state_change&customer_id=1001&state_id=1":                            missing,
		"cat=customer&subcat=msg&customer_id=1001":                                                missing,
		"cat=customer&subcat=abon_hist&usercode=x":                                                `{"Result":"ERROR","ErrorText":"parameter usercode: not a number"}`,
		"cat=customer&action=state_change&usercode=1001&state_id=1":                               unknown,
		"cat=customer&action=x&subcat=to_ex&usercode=1005":                                        `{"Result":"OK"}`,
		"cat=customer&subcat=change_balance&customer_id=1001&amount=1&comment=c":                  `{"Result":"OK"}`,
		"cat=customer&subcat=change_balance&usercode=1001&amount=1&comment=c":                     `{"Result":"OK"}`,
		"cat=customer&subcat=change_balance&usercode=1001&amount=1&comment=c&operator_id=-1":      `{"Result":"ERROR","ErrorText":"parameter operator_id: want a number above 0"}`,
		"cat=customer&subcat=change_balance&usercode=1001&amount=1&comment=c&employee_id=ignored": `{"Result":"OK"}`,
		"cat=device&action=find_mac&mac=00005e00530f":                                             `{"Result":"OK","data":[]}`,
		"cat=device&subcat=find_mac&mac=00005e00530f":                                             `{"Result":"OK","data":[]}`,
	} {
		require.Equal(t, want, post(t, e, params).body, params)
	}
	// A 3.16 of the end is lenient.
	late := small(t, Options{Profile: ProfileLegacy})
	for _, params := range []string{"cat=customer&subcat=to_ex&usercode=1001", "cat=customer&action=to_ex&customer_id=1001"} {
		require.Equal(t, `{"Result":"OK"}`, post(t, late, params).body)
	}
}

func TestFigures(t *testing.T) {
	for _, p := range Profiles() {
		e := small(t, Options{Profile: p})
		for id, ago := range map[int64]time.Duration{1001: 0, 1002: 23 * time.Hour, 1003: 24 * time.Hour} {
			require.NoError(t, e.changeCustomer(id, false, func(c *Customer, now time.Time) (Change, []MACRecord, error) {
				c.Active, c.ActiveInternet = now.Add(-ago), now.Add(-2*ago)
				return Change{Kind: ChangeEdit}, nil, nil
			}))
		}
		do(t, e, "msg_add", "customer_id=1004&text=x")
		do(t, e, "edit", "id=1002&agreement_number=A/2024-17")
		do(t, e, "edit", "id=1003&agreement_number=99999999999999999999")
		do(t, e, "change_billing", "customer_id=1002&billing_id=2")
		want := map[string]string{
			"get_activity_counter type=net":           `"data":2`,
			"get_activity_counter type=internet":      `"data":1`,
			"get_activity_counter type=personal_area": `"data":1`,
			"get_last_ip ":                          `"data":"100.64.0.30"`,
			"get_max_agreement_number ":             `"data":17`,
			"get_max_agreement_number billing_id=1": `"data":1`,
			"get_max_agreement_number billing_id=9": `"data":0`,
		}
		if p.old() {
			want = map[string]string{
				"get_activity_counter type=net":         `"Amount":"2"`,
				"get_last_ip ":                          `"ip":"1681915934"`,
				"get_max_agreement_number billing_id=1": `"Number":"1"`,
			}
		}
		for call, want := range want {
			action, params, _ := strings.Cut(call, " ")
			require.Equal(t, strings.TrimSuffix(good(p), "}")+","+want+"}", do(t, e, action, params), call)
		}
		require.Equal(t, bad(p, "parameter type: want net, internet or personal_area"), do(t, e, "get_activity_counter", "type=shoe"))
		require.Equal(t, bad(p, "parameter type is missing"), do(t, e, "get_activity_counter", ""))
		require.Equal(t, bad(p, "parameter billing_id: not a number"), do(t, e, "get_max_agreement_number", "billing_id=x"))
		require.Regexp(t, `:"0?"}$`, do(t, open(t, Options{Profile: p}), "get_last_ip", ""))
	}
}

// sample returns good parameters of every action that changes data.
func sample() map[string]string {
	return map[string]string{
		"add": "fio=x&billing_id=1&billing_customer_id=9", "edit": "id=1001&name=x", "delete": "id=1005", "merge": "dst_id=1001&src_id=1003",
		"change_balance": "customer_id=1001&amount=1&comment=c", "change_billing": "customer_id=1001&billing_id=2",
		"change_date_connect": "customer_id=1001&value=2025-01-01", "ip_add": "customer_id=1001&value=100.64.0.99",
		"ip_delete": "customer_id=1001&value=100.64.0.10", "ip_subnet_add": "customer_id=1001&ip=198.51.100.0&subnet=24",
		"ip_subnet_delete": "customer_id=1004&ip=192.0.2.0", "set_mac_by_ip": "ip=100.64.0.20&mac=00:00:5e:00:53:77",
		"mark_add": "customer_id=1001&mark_id=1", "mark_delete": "customer_id=1003&mark_id=7", "msg_add": "customer_id=1001&text=x",
		"msg_add_to_customer": "customer_id=1001&employee_id=1&text=x", "pass_change": "customer_id=1001&pass_new=x",
		"service_add": "customer_id=1001&service_id=1", "service_remove": "customer_id=1002&service_id=3",
		"state_change": "customer_id=1001&state_id=0", "tarif_change": "customer_id=1001&tarif=11",
		"to_ex": "customer_id=1001", "to_normal": "customer_id=1005",
	}
}

// Every action that changes data tells the feed once (merge: of both), is silent
// with skip_internal_api, survives a restart, and on v321 wants POST.
func TestEveryChange(t *testing.T) {
	params := sample()
	for _, act := range actionTable() {
		if !act.write {
			continue
		}
		require.Contains(t, params, act.action, "no sample")
		t.Run(act.action, func(t *testing.T) {
			path := t.TempDir() + "/erp.db"
			e, err := Open(Options{Keys: []Key{{Key: testKey}}, Path: path, Profile: ProfileV321, Now: func() time.Time { return testNow }})
			require.NoError(t, err)
			for _, c := range small(t, Options{}).Customers() {
				if c.ID == 1002 {
					c.Services = []Service{{ID: 3}}
				}
				_, err := e.AddCustomer(c)
				require.NoError(t, err)
			}
			call := "cat=customer&action=" + act.action + "&" + params[act.action]
			before := e.Customers()
			require.Equal(t, 405, get(t, e, call).status)
			require.Equal(t, before, e.Customers())

			feed := e.Changes(t.Context())
			quiet := strings.ReplaceAll(call, "1001", "1002")
			quiet = strings.ReplaceAll(quiet, "100.64.0.10", "100.64.0.20")
			if !strings.Contains(quiet, "1003") && !strings.Contains(quiet, "1004") && !strings.Contains(quiet, "1005") && act.action != "set_mac_by_ip" && act.action != "service_remove" {
				quiet = strings.ReplaceAll(quiet, "100.64.0.99", "100.64.0.98")
				quiet = strings.ReplaceAll(quiet, "198.51.100.0", "203.0.113.0")
				require.Contains(t, post(t, e, quiet+"&skip_internal_api=1").body, `"result":"OK"`)
				require.Empty(t, feed)
				require.NotEqual(t, before, e.Customers())
			}
			require.Contains(t, post(t, e, call).body, `"result":"OK"`)
			want := 1
			if act.action == "merge" {
				want = 2
			}
			require.Len(t, feed, want)
			require.NotZero(t, (<-feed).Customer)
			kept := e.Customers()
			require.NotEqual(t, before, kept)
			require.NoError(t, e.Close())
			again := open(t, Options{Path: path})
			sameData(t, e, again)
		})
	}
}

// hints collects what a hook sends.
type hints struct {
	got    chan string
	status int
	seen   map[string]bool // nonces; hints come one at a time
}

func (h *hints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte("hook-secret"))
	mac.Write([]byte(r.Header.Get("X-Usher-Timestamp") + "." + string(body)))
	signed := "bad signature"
	if r.Header.Get("X-Usher-Signature") == "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		signed = "signed"
	}
	w.WriteHeader(h.status)
	plain, nonce, _ := strings.Cut(string(body), `,"nonce":"`)
	if len(nonce) < 20 || h.seen[nonce] {
		signed += ", no new nonce"
	}
	if h.seen == nil {
		h.seen = map[string]bool{}
	}
	h.seen[nonce] = true
	h.got <- strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("X-Usher-Timestamp"), plain + "}", signed}, " ")
}

func TestHook(t *testing.T) {
	h := &hints{got: make(chan string, 16), status: 202}
	srv := httptest.NewServer(h)
	defer srv.Close()
	e := small(t, Options{HookURL: srv.URL + "/hooks/customer", HookSecret: "hook-secret"})
	for range 5 {
		<-h.got // the customers that were added
	}
	do(t, e, "to_ex", "customer_id=1001&skip_internal_api=1")
	do(t, e, "state_change", "customer_id=1002&state_id=0")
	require.Equal(t, `POST /hooks/customer application/json 1770091506 {"customer_id":1002} signed`, <-h.got)
	do(t, e, "delete", "id=1003")
	require.Equal(t, `POST /hooks/customer application/json 1770091506 {"customer_id":1003} signed`, <-h.got)
	require.NoError(t, e.Close())
	st, ok := e.Hook()
	require.True(t, ok)
	require.Equal(t, 0, st.Failed)
	require.Empty(t, h.got)
}

func TestHookFails(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		h := &hints{got: make(chan string, 16), status: 401}
		srv := httptest.NewServer(h)
		defer srv.Close()
		e := open(t, Options{HookURL: srv.URL, HookSecret: "hook-secret"})
		_, err := e.AddCustomer(Customer{})
		require.NoError(t, err)
		<-h.got
		require.Eventually(t, func() bool { st, _ := e.Hook(); return st.Failed == 1 }, 10*time.Second, time.Millisecond)
		body := admin(t, e.AdminHandler(), "GET", "/admin/status", "", "").body
		require.Contains(t, body, "401 Unauthorized")
		require.NotContains(t, body, "hook-secret")
		require.Contains(t, admin(t, e.AdminHandler(), "GET", "/admin/", "", "").body, "0 sent, 1 failed")
	})
	// An agent that does not answer keeps neither the answer of the API nor Close waiting.
	t.Run("hangs", func(t *testing.T) {
		stuck := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
		defer srv.Close()
		defer close(stuck)
		e := small(t, Options{HookURL: srv.URL, HookSecret: "hook-secret"})
		began := time.Now()
		for range 300 {
			do(t, e, "mark_add", "customer_id=1001&mark_id=1")
			do(t, e, "mark_delete", "customer_id=1001&mark_id=1")
		}
		require.NoError(t, e.Close())
		require.Less(t, time.Since(began), 10*time.Second, "600 changes; each would be waited for 500 ms")
	})
	t.Run("options", func(t *testing.T) {
		for _, o := range []Options{
			{HookURL: "http://127.0.0.1:1/"}, {HookURL: "ftp://127.0.0.1/", HookSecret: "hook-secret"}, {HookURL: "/hooks", HookSecret: "hook-secret"},
			{HookURL: "http://u:p@127.0.0.1/", HookSecret: "hook-secret"}, {HookURL: "http://%zz", HookSecret: "hook-secret"},
		} {
			o.Keys = []Key{{Key: testKey}}
			_, err := Open(o)
			require.ErrorContains(t, err, "emulator: hook url: ")
			assert.NotContains(t, err.Error(), "hook-secret")
		}
	})
	require.NotContains(t, Secret("hook-secret").String()+Secret("hook-secret").GoString(), "hook-secret")
}
