package userside

// neighbours are the look-ups of API page section 5 that an agent or an
// engineer needs beside the customer section.
func neighbours() []Action {
	bare := func(name, method, summary, notes string, params ...Param) Action {
		return Action{Category: "module", Name: name, Idempotent: true, Bulk: true, Answer: AnswerBare, Confidence: "M", Section: "5.3",
			Method: method, Summary: summary, Notes: notes, Params: params}
	}
	objectID := Param{Name: "object_id", Kind: KindID, Help: "id of the object"}
	return []Action{
		{
			Category: "commutation", Name: "get_data", Idempotent: true, Agent: true, Bulk: true, Answer: AnswerMap, Confidence: "H", Section: "5.1", Method: "CommutationOf",
			Summary: "show what is connected to customers, switches and cables",
			Notes:   "Without object_id the answer has all objects of the type. With is_finish_data=1 the far end of the chain is told, behind splices and splitters.",
			Params: []Param{
				{Name: "object_type", Kind: KindEnum, Required: true, Enum: []string{"customer", "switch", "radio", "cross", "fiber", "splitter"}, Help: "what the object is"},
				objectID,
				{Name: "is_finish_data", Kind: KindFlag, Help: "tell the far end"},
			},
		},
		{
			Category: "device", Name: "get_data", Idempotent: true, Agent: true, Bulk: true, Answer: AnswerMap, Confidence: "H", Section: "5.2", Method: "Devices",
			Summary: "show switches, OLTs, ONUs and radios with their ports",
			Notes:   "is_hide_access_data=1 is sent unless given, for the answer has the devices' passwords otherwise.",
			Params: []Param{
				{Name: "object_type", Kind: KindEnum, Required: true, Enum: []string{"switch", "onu", "olt", "radio", "all"}, Help: "what the device is"},
				objectID,
				{Name: "customer_id", Kind: KindID, Help: "devices of this customer"},
				{Name: "node_id", Kind: KindID, Help: "devices at this node"},
				{Name: "is_online", Kind: KindEnum, Enum: []string{"1", "-1"}, Help: "1: online only; -1: offline only"},
				{Name: "is_hide_ifaces_data", Kind: KindFlag, Help: "leave the ports out"},
				{Name: "is_hide_access_data", Kind: KindFlag, Default: "1", Help: "leave passwords out"},
				{Name: "is_with_ip", Kind: KindFlag, Help: "only those with an address"},
				{Name: "dataset", Kind: KindText, Help: "fields to answer, with commas between"},
			},
		},
		{
			Category: "device", Name: "get_device_id", Idempotent: true, Answer: AnswerIDs, Confidence: "H", Section: "5.2", Method: "FindDevice",
			Summary: "find a device by address, MAC or number",
			Params: []Param{
				{Name: "object_type", Kind: KindEnum, Required: true, Enum: []string{"switch", "onu", "olt", "radio", "all"}, Help: "what the device is"},
				{Name: "data_typer", Kind: KindEnum, Required: true, Enum: []string{"ip", "mac", "inventory_number", "serial_number", "additional_field_N"}, Help: "what to look for"},
				{Name: "data_value", Kind: KindText, Required: true, Help: "the value"},
			},
		},
		{
			Category: "device", Name: "get_mac_list", Idempotent: true, Answer: AnswerRows, Confidence: "H", Section: "5.2", Method: "DeviceMACs",
			Summary: "list the MACs that were seen on ports of a device",
			Params: []Param{
				{Name: "object_id", Kind: KindID, Required: true, Help: "id of the device"},
				{Name: "interface_list", Kind: KindText, Help: "ports, with commas between"},
			},
		},
		{
			Category: "device", Name: "find_mac", Idempotent: true, Answer: AnswerRows, Confidence: "H", Section: "5.2", Method: "FindMAC",
			Summary: "list the device ports that a MAC was seen on",
			Params:  []Param{{Name: "mac", Kind: KindMAC, Required: true, Help: "hardware address"}},
		},
		{
			Category: "device", Name: "get_ont_data", Idempotent: true, Answer: AnswerRecord, Confidence: "M", Section: "5.2", Method: "ONT",
			Summary: "show an optical terminal with its levels",
			Params:  []Param{{Name: "id", Kind: KindText, Required: true, Help: "serial number or MAC"}},
		},
		bare("get_user_list", "UserList", "show every customer that is not deleted",
			"is_load_password is left out on purpose.",
			Param{Name: "customer_id", Kind: KindID, Help: "this customer only"},
			Param{Name: "billing_id", Kind: KindID, Help: "customers of this billing"},
			Param{Name: "is_id_billing_user_id", Kind: KindFlag, Help: "key the answer by the billing's ids"},
			Param{Name: "is_with_potential", Kind: KindFlag, Help: "with those who are not yet customers"},
			Param{Name: "is_parent_id", Kind: KindFlag, Help: "with the customer that each belongs to"},
			Param{Name: "is_load_commutation", Kind: KindFlag, Help: "with commutation, in a form that is published nowhere"},
			Param{Name: "timestamp_ready", Kind: KindInt, Help: "passed on as it is"},
		),
		bare("get_user_state_list", "UserStates", "list the states that a customer can have", ""),
		bare("get_connect_list", "Connections", "list all connections between objects", "",
			Param{Name: "object_type", Kind: KindEnum, Enum: []string{"customer", "switch", "other"}, Help: "what the object is"}, objectID),
		bare("get_device_list", "ModuleDevices", "list devices as the universal interface tells them",
			"The answer holds SNMP communities; the Go method drops them.",
			Param{Name: "device_type", Kind: KindEnum, Enum: []string{"switch", "radio", "other"}, Help: "what the device is"}),
		bare("get_tariff_list", "ModuleTariffs", "list tariffs as the universal interface tells them", ""),
		bare("get_system_information", "SystemInformation", "show version and clock of the server, as modules tell them", ""),
		bare("get_api_information", "APIInformation", "show the version of the universal interface", ""),
		bare("get_supported_method_list", "SupportedMethods", "list the requests that the universal interface answers", ""),
		{
			Category: "tariff", Name: "get", Idempotent: true, Answer: AnswerMap, Confidence: "M", Section: "5.5", Method: "Tariffs",
			Summary: "list tariffs",
		},
		{
			Category: "system", Name: "get_system_info", Idempotent: true, Agent: true, Answer: AnswerRecord, Confidence: "M", Section: "5.5", Method: "SystemInfo",
			Summary: "show version and clock of the server",
		},
	}
}
