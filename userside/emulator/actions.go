package emulator

// action is one row of the API: what a call with this cat and action does.
type action struct {
	cat, action string
	// write marks actions that change data: the profile v321 takes them by POST only.
	write bool
	// need are the obligatory parameters; a call without one is refused before run.
	need []string
	// run answers. The answer is written after run has returned, so that
	// everything that can be refused must be refused in run.
	run func(*Emulator, *request) (answer, error)
}

// name is how the action is counted and named in Quirks.MissingActions.
func (a *action) name() string { return a.cat + "." + a.action }

const (
	read  = false
	write = true
)

// actionTable gives all actions by name. To add one is to add a row and a function.
func actionTable() map[string]*action {
	rows := []action{
		{"customer", "get_ip_port_device_commutation", read, nil, getBindings},
		{"customer", "set_mac_by_ip", write, []string{"ip", "mac"}, setMACByIP},
		{"customer", "get_customers_id", read, nil, getCustomersID},
		{"customer", "get_data", read, nil, getCustomerData},
		{"customer", "get_abon_id", read, []string{"data_typer", "data_value"}, getCustomerID},
		{"customer", "get_customer_id", read, []string{"data_typer", "data_value"}, getCustomerID},
		{"customer", "state_change", write, []string{"customer_id", "state_id"}, stateChange},
		{"customer", "ip_add", write, []string{"customer_id", "value"}, ipAdd},
		{"customer", "ip_delete", write, []string{"customer_id", "value"}, ipDelete},
		{"customer", "get_mac_history", read, []string{"customer_id"}, getMACHistory},
		{"customer", "get_customer_group", read, nil, getCustomerGroup},

		{"commutation", "get_data", read, []string{"object_type"}, getCommutation},

		{"device", "get_data", read, []string{"object_type"}, getDeviceData},
		{"device", "get_device_id", read, []string{"object_type", "data_typer", "data_value"}, getDeviceID},
		{"device", "get_mac_list", read, []string{"object_id"}, getMACList},
		{"device", "find_mac", read, []string{"mac"}, findMAC},

		{"module", "get_user_list", read, nil, getUserList},
		{"module", "get_user_state_list", read, nil, getUserStateList},

		{"system", "get_system_info", read, nil, getSystemInfo},
	}
	out := make(map[string]*action, len(rows))
	for i := range rows {
		out[rows[i].name()] = &rows[i]
	}
	return out
}
