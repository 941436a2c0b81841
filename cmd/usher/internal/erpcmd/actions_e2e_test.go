package erpcmd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

const (
	fresh    = "100.64.99.17" // nobody has it
	freshMAC = "00:00:5e:00:53:01"
)

// customerScenarios drive each action of the customer section and read back
// what it did.
func customerScenarios() map[string]func(*erpWorld) {
	return map[string]func(*erpWorld){
		"get_data": func(w *erpWorld) {
			c, _ := w.erp.Customer(1001)
			require.Equal(w, c.FullName, w.at(w.card(1001), "full_name"))
			both := w.must("customer", "get-data", "--customer-id", "1001", "--customer-id", "1002")
			require.Contains(w, both, c.FullName)
			require.Contains(w, both, "\n1002 ")
			require.Contains(w, w.must("customer", "get-data", "--account-number", c.AccountNumber, "--billing-id", "1"), c.Login)
		},
		"get_abon_id": func(w *erpWorld) {
			require.Equal(w, "1002", w.holder(w.firstIP(1002).String()))
		},
		"get_customer_id": func(w *erpWorld) {
			c, _ := w.erp.Customer(1002)
			require.Equal(w, "1002\n", w.must("customer", "get-customer-id", "--data-typer", "agreement_number", "--data-value", c.AgreementNumber))
		},
		"get_customers_id": func(w *erpWorld) {
			require.NoError(w, w.erp.SetState(1003, emulator.StatePause))
			require.True(w, w.lists(1003, "--state-id", "pause"))
			require.False(w, w.lists(1003, "--state-id", "2"))
		},
		"get_ip_port_device_commutation": func(w *erpWorld) {
			require.Contains(w, w.must("customer", "get-ip-port-device-commutation"), w.firstIP(1001).String())
		},
		"get_customer_group": func(w *erpWorld) {
			require.Equal(w, []string{"id", "name"}, strings.Fields(w.must("customer", "get-customer-group"))[:2])
		},
		"get_activity_counter": func(w *erpWorld) {
			require.Regexp(w, `^[0-9]+\n$`, w.must("customer", "get-activity-counter", "--type", "net"))
		},
		"get_last_ip": func(w *erpWorld) {
			require.NoError(w, w.erp.AddIP(1001, netip.MustParseAddr(fresh), emulator.MAC{}))
			require.Equal(w, fresh+"\n", w.must("customer", "get-last-ip"))
		},
		"get_max_agreement_number": func(w *erpWorld) {
			require.Regexp(w, `[0-9]+\n$`, w.must("customer", "get-max-agreement-number"))
		},
		"get_mac_history": func(w *erpWorld) {
			w.must("customer", "set-mac-by-ip", "--ip", w.firstIP(1001).String(), "--mac", freshMAC)
			out := w.must("customer", "get-mac-history", "--customer-id", "1001")
			require.Contains(w, out, freshMAC)
			require.Contains(w, out, w.firstIP(1001).String())
		},
		"abon_hist": func(w *erpWorld) {
			require.NoError(w, w.erp.ChangeBalance(1001, 777, "paid at the desk"))
			out := w.must("customer", "abon-hist", "--customer-id", "1001")
			require.Contains(w, out, "paid at the desk")
			require.Contains(w, out, "7.77")
		},
		"msg": func(w *erpWorld) {
			w.must("customer", "msg-add", "--customer-id", "1001", "--text", "no light on the router")
			require.Contains(w, w.must("customer", "msg", "--customer-id", "1001"), "no light on the router")
		},
		"add": func(w *erpWorld) {
			id := strings.TrimSpace(w.must("customer", "add", "--fio", `A "B" & <C>/d`, "--is-potential"))
			v, ok := w.decoded("customer", "get-data", "--customer-id", id).(map[string]any)
			require.True(w, ok)
			require.Equal(w, `A "B" & <C>/d`, w.at(v, "full_name"))
		},
		"edit": func(w *erpWorld) {
			w.must("customer", "edit", "--id", "1001", "--phone0", "380000000001", "--name", "Other & Co", "--comment", "two\nlines", "--is-potential=0")
			v := w.card(1001)
			require.Equal(w, "Other & Co", w.at(v, "full_name"))
			require.Contains(w, w.text(v), "380000000001")
			require.Contains(w, w.must("customer", "get-data", "--customer-id", "1001"), "two lines")
		},
		"delete": func(w *erpWorld) {
			w.must("customer", "delete", "--id", "1001", "--yes")
			code, _, errs := w.run("customer", "get-data", "--customer-id", "1001")
			require.Equal(w, cli.ExitFailure, code)
			require.Contains(w, errs, "not found")
		},
		"merge": func(w *erpWorld) {
			ip := w.firstIP(1002).String()
			w.must("customer", "merge", "--dst-id", "1001", "--src-id", "1002", "-y")
			require.Equal(w, "1001", w.holder(ip))
		},
		"change_balance": func(w *erpWorld) {
			before, _ := w.erp.Customer(1001)
			w.must("customer", "change-balance", "--customer-id", "1001", "--amount", "-3.50", "--comment", "wrong payment")
			after, _ := w.erp.Customer(1001)
			require.Equal(w, before.BalanceCents-350, after.BalanceCents)
			require.Contains(w, w.must("customer", "abon-hist", "--customer-id", "1001"), "wrong payment")
		},
		"change_billing": func(w *erpWorld) {
			w.must("customer", "change-billing", "--customer-id", "1001", "--billing-id", "2")
			require.True(w, w.lists(1001, "--billing-id", "2"))
		},
		"change_date_connect": func(w *erpWorld) {
			w.must("customer", "change-date-connect", "--customer-id", "1001", "--value", "2020-02-29")
			require.Equal(w, "2020-02-29", w.at(w.card(1001), "date_connect"))
		},
		"ip_add": func(w *erpWorld) {
			w.must("customer", "ip-add", "--customer-id", "1001", "--value", fresh)
			require.Equal(w, "1001", w.holder(fresh))
			code, _, errs := w.run("customer", "ip-add", "--customer-id", "1002", "--value", fresh)
			require.Equal(w, cli.ExitFailure, code)
			require.Contains(w, errs, "said no")
		},
		"ip_delete": func(w *erpWorld) {
			ip := w.firstIP(1001).String()
			w.must("customer", "ip-delete", "--customer-id", "1001", "--value", ip)
			require.Empty(w, w.holder(ip))
			id, err := w.erp.AddCustomer(emulator.Customer{Addresses: []emulator.Address{
				{MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}}, {IP: netip.MustParseAddr(fresh)}}})
			require.NoError(w, err)
			who := []string{"--customer-id", intText(id)}
			w.must(append([]string{"customer", "ip-delete", "--value", "-1"}, who...)...)
			c, _ := w.erp.Customer(id)
			require.Len(w, c.Addresses, 1)
			code, _, errs := w.run(append([]string{"customer", "ip-delete", "--value", "all"}, who...)...)
			c, _ = w.erp.Customer(id)
			if w.erp.Profile().Version().Before(version319()) {
				require.Equal(w, cli.ExitFailure, code)
				require.Contains(w, errs, "not supported by")
				require.Len(w, c.Addresses, 1)
			} else {
				require.Zero(w, code, errs)
				require.Empty(w, c.Addresses)
			}
		},
		"ip_subnet_add": func(w *erpWorld) {
			w.must("customer", "ip-subnet-add", "--customer-id", "1001", "--ip", "198.51.100.8", "--subnet", "/29")
			require.Contains(w, w.text(w.card(1001)), "198.51.100.8/29")
		},
		"ip_subnet_delete": func(w *erpWorld) {
			w.must("customer", "ip-subnet-add", "--customer-id", "1001", "--ip", "198.51.100.8", "--subnet", "29")
			w.must("customer", "ip-subnet-delete", "--customer-id", "1001", "--ip", "198.51.100.8")
			require.NotContains(w, w.text(w.card(1001)), "198.51.100.8")
		},
		"set_mac_by_ip": func(w *erpWorld) {
			w.must("customer", "set-mac-by-ip", "--ip", w.firstIP(1002).String(), "--mac", "0000.5E00.5301")
			require.Equal(w, "1002\n", w.must("customer", "get-abon-id", "--data-typer", "mac", "--data-value", freshMAC))
			code, _, errs := w.run("customer", "set-mac-by-ip", "--ip", "192.0.2.99", "--mac", freshMAC)
			require.Equal(w, cli.ExitFailure, code)
			require.Contains(w, errs, "next: ")
		},
		"mark_add": func(w *erpWorld) {
			w.must("customer", "mark-add", "--customer-id", "1001", "--mark-id", "7")
			require.True(w, w.lists(1001, "--mark-id", "7"))
		},
		"mark_delete": func(w *erpWorld) {
			w.must("customer", "mark-add", "--customer-id", "1001", "--mark-id", "7")
			w.must("customer", "mark-delete", "--customer-id", "1001", "--mark-id", "7")
			require.False(w, w.lists(1001, "--mark-id", "7"))
		},
		"msg_add": func(w *erpWorld) {
			out := w.must("customer", "msg-add", "--customer-id", "1001", "--text", "call me <back>")
			require.Regexp(w, `^[0-9]+\n$`, out)
			require.Contains(w, w.must("customer", "msg", "--customer-id", "1001"), "call me <back>")
		},
		"msg_add_to_customer": func(w *erpWorld) {
			w.must("customer", "msg-add-to-customer", "--employee-id", "7", "--customer-id", "1001", "--text", "work tonight")
			require.Contains(w, w.must("customer", "msg", "--employee-id", "7"), "work tonight")
		},
		"pass_change": func(w *erpWorld) {
			w.stdin = "corre&ct ho/rse\n"
			out := w.must("customer", "pass-change", "--customer-id", "1001", "--pass-new-file", "-")
			requireSecret(w.T, "corre&ct ho/rse", out)
			require.True(w, w.erp.PasswordIs(1001, "corre&ct ho/rse"))
			code, out, errs := w.run("customer", "pass-change", "--customer-id", "1001", "--pass-old", "gue$$", "--pass-new", "n&ew one")
			require.Equal(w, cli.ExitFailure, code)
			requireSecret(w.T, "gue$$", out+errs)
			requireSecret(w.T, "n&ew one", out+errs)
			w.must("customer", "pass-change", "--customer-id", "1001", "--pass-old-file", keyFile(w.T, "corre&ct ho/rse"), "--pass-new", "n&ew one")
			require.True(w, w.erp.PasswordIs(1001, "n&ew one"))
		},
		"service_add": func(w *erpWorld) {
			w.must("customer", "service-add", "--customer-id", "1001", "--service-id", "2", "--price", "12.34", "--comment", "second set")
			text := w.text(w.card(1001))
			require.Contains(w, text, "12.34")
			require.Contains(w, text, "second set")
		},
		"service_remove": func(w *erpWorld) {
			w.must("customer", "service-add", "--customer-id", "1001", "--service-id", "2", "--comment", "second set")
			w.must("customer", "service-remove", "--customer-id", "1001", "--service-id", "2")
			require.NotContains(w, w.text(w.card(1001)), "second set")
		},
		"state_change": func(w *erpWorld) {
			for number, word := range states {
				w.must("customer", "state-change", "--customer-id", "1001", "--state-id", word)
				require.Equal(w, intText(int64(number)), w.at(w.card(1001), "state_id"))
				w.must("customer", "state_change", "--customer-id", "1001", "--state-id", intText(int64(number))) // by the ERP's name
				require.Contains(w, w.must("customer", "get-data", "--customer-id", "1001"), word)
			}
		},
		"tarif_change": func(w *erpWorld) {
			w.must("customer", "tarif-change", "--customer-id", "1001", "--tarif", "14")
			require.Equal(w, "14", w.at(w.card(1001), "tariff", "current", "0", "id"))
		},
		"to_ex": func(w *erpWorld) {
			w.must("customer", "to-ex", "--customer-id", "1001")
			require.True(w, w.lists(1001, "--is-ex"))
		},
		"to_normal": func(w *erpWorld) {
			w.must("customer", "to-ex", "--customer-id", "1001")
			w.must("customer", "to-normal", "--customer-id", "1001")
			require.False(w, w.lists(1001, "--is-ex"))
		},
	}
}

// neighbourScenarios do the same for the other sections.
func neighbourScenarios() map[string]func(*erpWorld) {
	device := func(w *erpWorld) emulator.Device {
		w.Helper()
		return w.erp.Devices()[0]
	}
	shows := func(words ...string) func(*erpWorld) {
		return func(w *erpWorld) {
			out := w.must(words[:2]...)
			for _, want := range words[2:] {
				require.Contains(w, out, want)
			}
		}
	}
	return map[string]func(*erpWorld){
		"commutation.get_data": func(w *erpWorld) {
			c, _ := w.erp.Customer(1001)
			out := w.must("commutation", "get-data", "--object-type", "customer", "--object-id", "1001")
			require.Contains(w, out, intText(c.Links[0].Device))
			require.Contains(w, w.must("commutation", "get-data", "--object-type", "customer"), "1001")
			require.Contains(w, w.must("commutation", "get-data", "--object-type", "customer", "--object-id", "1001", "--is-finish-data"), intText(c.Links[0].Device))
		},
		"device.get_data": func(w *erpWorld) {
			out := w.must("device", "get-data", "--object-type", "all")
			require.Contains(w, out, device(w).IP.String())
			hidden := w.text(w.decoded("device", "get-data", "--object-type", "all"))
			require.NotContains(w, hidden, "public", "the devices' passwords are asked for")
		},
		"device.get_device_id": func(w *erpWorld) {
			d := device(w)
			require.Equal(w, intText(d.ID)+"\n", w.must("device", "get-device-id", "--object-type", "switch", "--data-typer", "ip", "--data-value", d.IP.String()))
			code, _, errs := w.run("device", "get-device-id", "--object-type", "switch", "--data-typer", "additional_field_12", "--data-value", "x")
			require.Equal(w, cli.ExitFailure, code, errs)
		},
		"device.get_mac_list": func(w *erpWorld) {
			c, _ := w.erp.Customer(1001)
			require.NoError(w, w.erp.SetIPMAC(c.Addresses[0].IP, emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}))
			out := w.must("device", "get-mac-list", "--object-id", intText(c.Links[0].Device))
			require.Contains(w, out, freshMAC)
		},
		"device.find_mac": func(w *erpWorld) {
			c, _ := w.erp.Customer(1001)
			require.NoError(w, w.erp.SetIPMAC(c.Addresses[0].IP, emulator.MAC{0, 0, 0x5e, 0, 0x53, 1}))
			out := w.must("device", "find-mac", "--mac", "00005e005301")
			require.Contains(w, out, intText(c.Links[0].Device))
		},
		"device.get_ont_data": func(w *erpWorld) {
			code, _, errs := w.run("device", "get-ont-data", "--id", "48575443AABBCCDD")
			require.Equal(w, cli.ExitFailure, code)
			require.Contains(w, errs, "not found")
		},
		"module.get_user_list": func(w *erpWorld) {
			out := w.must("module", "get-user-list", "--customer-id", "1001")
			require.Contains(w, out, "1001")
			require.Contains(w, out, w.firstIP(1001).String())
		},
		"module.get_user_state_list":       shows("module", "get-user-state-list", "functional", "work", "pause"),
		"module.get_connect_list":          shows("module", "get-connect-list", "1001"),
		"module.get_device_list":           shows("module", "get-device-list", "10.0.0.10"),
		"module.get_tariff_list":           shows("module", "get-tariff-list", "name", "payment"),
		"module.get_system_information":    func(w *erpWorld) { require.NotEmpty(w, w.must("module", "get-system-information")) },
		"module.get_api_information":       func(w *erpWorld) { require.NotEmpty(w, w.must("module", "get-api-information")) },
		"module.get_supported_method_list": shows("module", "get-supported-method-list", "get_user_list"),
		"tariff.get":                       shows("tariff", "get", "Офіс & бізнес"),
		"system.get_system_info": func(w *erpWorld) {
			require.Contains(w, w.must("system", "get-system-info"), w.erp.Profile().Version().String())
		},
	}
}

// Every action of the table through the command line, on a server of every
// generation. What a version lacks is a typed error, and nothing of it is sent.
func TestEveryActionOnEveryGeneration(t *testing.T) {
	scenarios := neighbourScenarios()
	for name, run := range customerScenarios() {
		scenarios["customer."+name] = run
	}
	for _, p := range emulator.Profiles() {
		for _, a := range userside.Actions() {
			t.Run(p.String()+" "+a.Label(), func(t *testing.T) {
				t.Parallel()
				w := newERPWorld(t, p)
				if w.has(a.Category, a.Name) {
					require.Contains(t, scenarios, a.Label())
					scenarios[a.Label()](w)
					require.Positive(t, w.erp.Calls()[a.Label()])
					require.Zero(t, w.erp.Calls()["unknown"])
					return
				}
				line := append([]string{a.Category, dashes(a.Name)}, exampleFlags(a)...)
				if a.Danger {
					line = append(line, "--yes")
				}
				code, out, errs := w.run(line...)
				require.Equal(t, cli.ExitFailure, code)
				require.Empty(t, out)
				require.Contains(t, errs, "not supported by")
				require.Contains(t, errs, "next: ")
				require.Zero(t, w.erp.Calls()[a.Label()], "a call that the version lacks was sent")
				require.Zero(t, w.erp.Calls()["unknown"])
			})
		}
	}
	for name := range scenarios {
		category, action, _ := strings.Cut(name, ".")
		_, ok := userside.FindAction(category, action)
		require.True(t, ok, "%s is in no table", name)
	}
}

// The same calls by the generic command give the same answers.
func TestGenericCall(t *testing.T) {
	for _, p := range emulator.Profiles() {
		w := newERPWorld(t, p)
		require.Equal(t, w.must("customer", "get-data", "--customer-id", "1001"), w.must("erp", "call", "customer", "get_data", "customer_id=1001"))
		w.must("erp", "call", "customer", "state-change", "usercode=1001", "state_id=0") // by its former name
		require.Equal(t, "0", w.at(w.card(1001), "state_id"))
		w.stdin = "from a pipe"
		w.must("erp", "call", "customer", "pass_change", "customer_id=1001", "pass_new_file=-")
		require.True(t, w.erp.PasswordIs(1001, "from a pipe"))
		code, _, errs := w.run("erp", "call", "customer", "delete", "id=1001")
		require.Equal(t, cli.ExitUsage, code)
		require.Contains(t, errs, "--yes")
		w.must("erp", "call", "customer", "delete", "id=1001", "--yes")
	}
}

func TestRawPrintsTheAnswerAsItCame(t *testing.T) {
	w := newERPWorld(t, emulator.ProfileLegacy)
	out := w.must("customer", "get-data", "--customer-id", "1001", "--raw")
	require.True(t, strings.HasPrefix(out, `{"Result":"OK"`), out)
	w = newERPWorld(t, emulator.ProfileModern)
	require.Equal(t, `{"result":"OK"}`, strings.TrimSpace(w.must("customer", "to-ex", "--customer-id", "1001", "--raw")))
	require.JSONEq(t, `{"ok":true}`, w.must("customer", "to-normal", "--customer-id", "1001", "-o", "json"))
}
