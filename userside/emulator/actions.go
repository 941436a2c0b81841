package emulator

import (
	"slices"

	"github.com/usher-agent/usher/userside"
)

// action is one row of the API: what a call with this cat and action does.
type action struct {
	cat, action string
	// write marks actions that change data: the profile v321 takes them by POST only.
	write bool
	// since and until bound the versions that know the action: from since on, no
	// more from until on. The zero version is no bound.
	since, until userside.Version
	// need are the obligatory parameters; a call without one is refused before run.
	need []string
	// run answers. The answer is written after run has returned, so that
	// everything that can be refused must be refused in run.
	run func(*Emulator, *request) (answer, error)
}

// name is how the action is counted and named in Quirks.MissingActions.
func (a *action) name() string { return a.cat + "." + a.action }

// usercode reports whether the action is documented to have said usercode for
// customer_id before 3.17. Of the others nothing is known.
func (a *action) usercode() bool {
	said := []string{"abon_hist", "msg", "list_tarif_available", "pass_change", "state_change", "tarif_change", "to_ex", "to_normal"}
	return a.cat == "customer" && slices.Contains(said, a.action)
}

const (
	read  = false
	write = true
)

// afterSeed is the version from which on the emulator knows what the API page
// found in use but not in the documentation of 3.19beta1. The true versions are
// not published.
const afterSeed = "3.19"

// actionTable returns all actions by name. To add one is to add a row and a function.
func actionTable() map[string]*action {
	always := userside.Version{}
	need := func(names ...string) []string { return names }
	rows := []action{
		{"customer", "get_ip_port_device_commutation", read, level("3.12beta35"), always, nil, getBindings},
		{"customer", "get_customers_id", read, level("3.12.8"), always, nil, getCustomersID},
		{"customer", "get_data", read, always, always, nil, getCustomerData},
		{"customer", "get_abon_id", read, always, always, need("data_typer", "data_value"), getCustomerID},
		{"customer", "get_customer_id", read, level(afterSeed), always, need("data_typer", "data_value"), getCustomerID},
		{"customer", "get_customer_group", read, level("3.19beta1"), always, nil, getCustomerGroup},
		{"customer", "get_activity_counter", read, level("3.12.81"), always, need("type"), getActivityCounter},
		{"customer", "get_last_ip", read, always, always, nil, getLastIP},
		{"customer", "get_max_agreement_number", read, level("3.12.3"), always, nil, getMaxAgreementNumber},
		{"customer", "get_mac_history", read, level("3.16dev8"), always, need("customer_id"), getMACHistory},
		{"customer", "abon_hist", read, always, always, need("customer_id"), getMovements},
		{"customer", "msg", read, always, always, nil, getMessages},
		// Gone before the oldest profile, hence an unknown action in all of them.
		{"customer", "list_tarif_available", read, always, level("3.13"), need("customer_id"), gone},

		{"customer", "add", write, always, always, nil, addCustomer},
		{"customer", "edit", write, level("3.12rc2"), always, need("id"), editCustomer},
		{"customer", "delete", write, level("3.14.21"), always, need("id"), deleteCustomer},
		{"customer", "merge", write, level(afterSeed), always, need("dst_id", "src_id"), mergeCustomers},
		{"customer", "change_balance", write, always, always, need("customer_id", "amount", "comment"), changeBalance},
		{"customer", "change_billing", write, level("3.12.48"), always, need("customer_id", "billing_id"), changeBilling},
		{"customer", "change_date_connect", write, level("3.12.80"), always, need("customer_id", "value"), changeDateConnect},
		{"customer", "ip_add", write, level("3.12.83"), always, need("customer_id", "value"), ipAdd},
		{"customer", "ip_delete", write, level("3.12.83"), always, need("customer_id", "value"), ipDelete},
		{"customer", "ip_subnet_add", write, level("3.14.71"), always, need("customer_id", "ip", "subnet"), ipSubnetAdd},
		{"customer", "ip_subnet_delete", write, level("3.14.71"), always, need("customer_id", "ip"), ipSubnetDelete},
		{"customer", "set_mac_by_ip", write, level("3.12beta35"), always, need("ip", "mac"), setMACByIP},
		{"customer", "mark_add", write, level("3.12.82"), always, need("customer_id", "mark_id"), markAdd},
		{"customer", "mark_delete", write, level("3.12.82"), always, need("customer_id", "mark_id"), markDelete},
		{"customer", "msg_add", write, level("3.13.25"), always, need("customer_id", "text"), messageFrom},
		{"customer", "msg_add_to_customer", write, level(afterSeed), always, need("employee_id", "customer_id", "text"), messageTo},
		{"customer", "pass_change", write, always, always, need("customer_id", "pass_new"), passwordChange},
		{"customer", "service_add", write, level("3.18beta1"), always, need("customer_id", "service_id"), serviceAdd},
		{"customer", "service_remove", write, level("3.18beta1"), always, need("customer_id", "service_id"), serviceRemove},
		{"customer", "state_change", write, level("3.12.8"), always, need("customer_id", "state_id"), stateChange},
		{"customer", "tarif_change", write, always, always, need("customer_id", "tarif"), tariffChange},
		{"customer", "to_ex", write, level("3.12.69"), always, need("customer_id"), toFormer},
		{"customer", "to_normal", write, level("3.12.90"), always, need("customer_id"), toNormal},

		{"commutation", "get_data", read, always, always, need("object_type"), getCommutation},

		{"device", "get_data", read, always, always, need("object_type"), getDeviceData},
		{"device", "get_device_id", read, always, always, need("object_type", "data_typer", "data_value"), getDeviceID},
		{"device", "get_mac_list", read, always, always, need("object_id"), getMACList},
		{"device", "find_mac", read, always, always, need("mac"), findMAC},
		{"device", "get_ont_data", read, always, always, need("id"), getONTData},
		{"device", "get_iface_info", read, always, always, nil, livePoll},
		{"device", "read_fdb", read, always, always, nil, livePoll},

		{"module", "get_user_list", read, always, always, nil, getUserList},
		{"module", "get_user_state_list", read, always, always, nil, getUserStateList},
		{"module", "get_connect_list", read, always, always, nil, getConnectList},
		{"module", "get_device_list", read, always, always, nil, getDeviceList},
		{"module", "get_tariff_list", read, always, always, nil, getTariffList},
		{"module", "get_system_information", read, always, always, nil, getSystemInformation},
		{"module", "get_api_information", read, always, always, nil, getAPIInformation},
		{"module", "get_supported_method_list", read, always, always, nil, getSupportedMethods},

		{"tariff", "get", read, always, always, nil, getTariffs},

		{"system", "get_system_info", read, always, always, nil, getSystemInfo},
	}
	out := make(map[string]*action, len(rows))
	for i := range rows {
		out[rows[i].name()] = &rows[i]
	}
	return out
}

// gone is for actions that no profile has any more.
func gone(*Emulator, *request) (answer, error) { return answer{}, badRequest("unknown action") }
