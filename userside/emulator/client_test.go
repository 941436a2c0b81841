package emulator_test

import (
	"errors"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// arguments returns good arguments of every action, for the generated customers
// 1001 to 1010. %s stands for an address of 1001, which has it.
func arguments(ip string) map[string]string {
	return map[string]string{
		"customer.get_data": "customer_id=1001,1002", "customer.get_abon_id": "data_typer=login&data_value=u1001",
		"customer.get_customer_id": "data_typer=agreement_number&data_value=A-1001", "customer.get_customers_id": "state_id=2&balance_from=-1000",
		"customer.get_ip_port_device_commutation": "", "customer.get_customer_group": "", "customer.get_activity_counter": "type=net",
		"customer.get_last_ip": "", "customer.get_max_agreement_number": "billing_id=1", "customer.get_mac_history": "customer_id=1001",
		"customer.abon_hist": "customer_id=1001", "customer.msg": "customer_id=1001", "customer.list_tarif_available": "customer_id=1001",

		"customer.add": "fio=New&billing_id=1&billing_customer_id=77", "customer.edit": "id=1002&name=Other&house_id=3",
		"customer.delete": "id=1003", "customer.merge": "dst_id=1004&src_id=1005",
		"customer.change_balance": "customer_id=1001&amount=10.50&comment=pay&employee_id=2", "customer.change_billing": "customer_id=1001&billing_id=2",
		"customer.change_date_connect": "customer_id=1001&value=2025-01-02", "customer.ip_add": "customer_id=1001&value=100.127.0.9",
		"customer.ip_delete": "customer_id=1001&value=" + ip, "customer.ip_subnet_add": "customer_id=1001&ip=198.51.100.0&subnet=28",
		"customer.ip_subnet_delete": "customer_id=1001&ip=198.51.100.0", "customer.set_mac_by_ip": "ip=" + ip + "&mac=00:00:5e:00:53:55",
		"customer.mark_add": "customer_id=1001&mark_id=9", "customer.mark_delete": "customer_id=1001&mark_id=9",
		"customer.msg_add": "customer_id=1001&text=hello", "customer.msg_add_to_customer": "employee_id=1&customer_id=1001&text=hello",
		"customer.pass_change": "customer_id=1001&pass_new=secret", "customer.service_add": "customer_id=1001&service_id=2",
		"customer.service_remove": "customer_id=1001&service_id=2", "customer.state_change": "customer_id=1001&state_id=1",
		"customer.tarif_change": "customer_id=1001&tarif=11", "customer.to_ex": "customer_id=1001", "customer.to_normal": "customer_id=1001",

		"commutation.get_data": "object_type=customer", "device.get_data": "object_type=all",
		"device.get_device_id": "object_type=switch&data_typer=ip&data_value=10.0.0.10", "device.get_mac_list": "object_id=6001",
		"device.find_mac": "mac=00:00:5e:00:53:55", "device.get_ont_data": "id=TEST0001",
		"module.get_user_list": "", "module.get_user_state_list": "", "module.get_connect_list": "", "module.get_device_list": "",
		"module.get_tariff_list": "", "module.get_system_information": "", "module.get_api_information": "",
		"module.get_supported_method_list": "", "tariff.get": "", "system.get_system_info": "",
	}
}

// The client calls every action of its table in every profile, having found out
// the version by itself: what it thinks the server has, the server has.
func TestClientCallsEverything(t *testing.T) {
	for _, profile := range emulator.Profiles() {
		t.Run(profile.String(), func(t *testing.T) {
			e, c := connect(t, emulator.Options{Profile: profile, Customers: 30, Seed: 3})
			first := e.Customers()[0]
			require.NotEmpty(t, first.Addresses)
			args := arguments(first.Addresses[0].IP.String())
			// Deletions come after what they delete.
			for _, pass := range []bool{false, true} {
				for _, a := range userside.Actions() {
					last := map[string]bool{"customer.ip_delete": true, "customer.mark_delete": true, "customer.service_remove": true, "customer.ip_subnet_delete": true}[a.Label()]
					if last != pass {
						continue
					}
					require.Contains(t, args, a.Label(), "no sample")
					values, err := url.ParseQuery(args[a.Label()])
					require.NoError(t, err)
					if v := profile.Version(); v.Before(a.Since) || !a.Until.IsZero() && !v.Before(a.Until) {
						_, err := c.Call(t.Context(), a.Category, a.Name, values)
						assert.ErrorIs(t, err, userside.ErrUnsupported, a.Label())
						continue
					}
					// add wants the pair of 3.21 that older servers do not know.
					if a.Name == "add" && profile != emulator.ProfileV321 {
						values.Del("billing_customer_id")
					}
					got, err := c.Call(t.Context(), a.Category, a.Name, values)
					if a.Name == "get_ont_data" {
						assert.True(t, err == nil || errors.Is(err, userside.ErrNotFound), "%v", err)
						continue
					}
					if assert.NoError(t, err, a.Label()) {
						assert.NotEmpty(t, got.Raw(), a.Label())
					}
				}
			}
			assert.Zero(t, e.Calls()["unknown"], "nothing was asked for that no server has")
		})
	}
}

// What typed methods read back is what was written, in every generation and with
// the looseness of real servers.
func TestClientReadsBack(t *testing.T) {
	quirks := map[string]emulator.Quirks{
		"plain": {},
		"awkward": {NumericStrings: true, EmptyMapAsList: true, ListForMap: true, HTMLEscaped: true,
			GzipNoHeader: true, UpperCaseColumns: true, IDAsList: true, BOM: true},
	}
	for _, profile := range emulator.Profiles() {
		for name, q := range quirks {
			t.Run(profile.String()+" "+name, func(t *testing.T) {
				e, c := connect(t, emulator.Options{Profile: profile, Quirks: q, Customers: 30, Seed: 3})
				ctx := t.Context()
				old := profile == emulator.ProfileLegacy || profile == emulator.Profile316

				n := userside.NewCustomer{FullName: "Тест & Co", Billing: 1, Corporate: true}
				if profile == emulator.ProfileV321 {
					n.BillingCustomer = "901"
				}
				id, err := c.AddCustomer(ctx, n)
				require.NoError(t, err)
				login := "new/login"
				require.NoError(t, c.EditCustomer(ctx, id, userside.CustomerEdit{Login: &login, Connected: time.Date(2025, 4, 5, 0, 0, 0, 0, time.UTC)}))
				require.NoError(t, c.AddIP(ctx, userside.IPAddition{Customer: id, IP: netip.MustParseAddr("100.127.0.1")}))
				require.NoError(t, c.AddSubnet(ctx, id, netip.MustParsePrefix("198.51.100.0/28")))
				require.NoError(t, c.AddMark(ctx, id, 4))
				require.NoError(t, c.ChangeBalance(ctx, userside.BalanceChange{Customer: id, Amount: 12.5, Comment: "a & b", Employee: 3}))
				require.NoError(t, c.ChangeTariff(ctx, id, "12"))
				got, err := c.Customer(ctx, id)
				require.NoError(t, err)
				require.Equal(t, "Тест & Co", got.FullName.Text())
				require.Equal(t, login, got.Login.Text())
				require.Equal(t, "2025-04-05", got.Connected.Format(time.DateOnly))
				require.True(t, got.Corporate.Value)
				require.InDelta(t, 12.5, got.Balance.Value, 0.001)
				require.Equal(t, userside.IDs{4}, got.Marks)
				require.Len(t, got.Addresses, 2)
				require.Equal(t, "12", string(got.Tariffs[0].ID))

				moves, err := c.CustomerHistory(ctx, id)
				require.NoError(t, err)
				require.Empty(t, moves.Defects.First)
				require.Len(t, moves.Rows, 1)
				require.InDelta(t, 12.5, moves.Rows[0].Amount.Value, 0.001)
				require.Equal(t, int64(3), moves.Rows[0].Employee.Value)
				require.Equal(t, "a & b", moves.Rows[0].Comment.Text())

				msg, err := c.AddMessage(ctx, userside.NewMessage{Customer: id, Text: "немає <зв'язку>"})
				require.NoError(t, err)
				list, err := c.Messages(ctx, userside.MessageFilter{Customer: id})
				require.NoError(t, err)
				require.Len(t, list.Rows, 1)
				require.Equal(t, msg, list.Rows[0].ID)
				require.Equal(t, "немає <зв'язку>", list.Rows[0].Text.Text())

				require.NoError(t, c.ChangePassword(ctx, userside.PasswordChange{Customer: id, New: "new secret"}))
				require.True(t, e.PasswordIs(id, "new secret"))
				require.ErrorIs(t, c.ChangePassword(ctx, userside.PasswordChange{Customer: id, New: "x", Old: "wrong"}), userside.ErrRefused)

				last, err := c.LastIP(ctx)
				require.NoError(t, err)
				require.Equal(t, "100.127.0.1", last.String())
				most, err := c.MaxAgreementNumber(ctx, 0)
				require.NoError(t, err)
				require.Contains(t, e.Customers()[29].AgreementNumber, string(most))
				active, err := c.ActivityCounter(ctx, userside.ActiveOnNetwork)
				require.NoError(t, err)
				require.Positive(t, active)

				tariffs, err := c.Tariffs(ctx)
				require.NoError(t, err)
				require.Len(t, tariffs.Rows, 5)
				require.Equal(t, "Офіс & бізнес", tariffs.Rows[4].Name.Text())
				require.Equal(t, "14", string(tariffs.Rows[4].BillingUUID))
				ofModule, err := c.ModuleTariffs(ctx)
				require.NoError(t, err)
				require.Len(t, ofModule.Rows, 5)
				devices, err := c.ModuleDevices(ctx, "")
				require.NoError(t, err)
				require.Len(t, devices.Rows, len(e.Devices()))
				require.Equal(t, e.Devices()[0].IP, devices.Rows[0].IP)
				plugs, err := c.Connections(ctx, userside.ConnectionFilter{ObjectType: "customer"})
				require.NoError(t, err)
				linked := 0
				for _, m := range e.Customers() {
					linked += len(m.Links)
				}
				require.Len(t, plugs.Rows, linked)
				methods, err := c.SupportedMethods(ctx)
				require.NoError(t, err)
				require.Contains(t, methods, "get_user_list")

				if !old {
					require.NoError(t, c.MergeCustomers(ctx, userside.Merge{Into: 1002, From: id}))
					_, err = c.Customer(ctx, id)
					require.ErrorIs(t, err, userside.ErrNotFound)
				}
				require.NoError(t, c.MakeFormer(ctx, 1001))
				require.NoError(t, c.DeleteCustomer(ctx, 1001))
				_, ok := e.Customer(1001)
				require.False(t, ok)
			})
		}
	}
}
