package userside

// customerChanges are the rows of API page section 3.2.
func customerChanges() []Action {
	employee := Param{Name: "employee_id", Kind: KindID, Was: "operator_id", WasUntil: since("3.16dev2"), Help: "employee who did it"}
	id := Param{Name: "id", Kind: KindID, Required: true, Help: "id of the customer in the ERP"}
	text := func(name, help string) Param { return Param{Name: name, Kind: KindText, Help: help} }
	required := func(p Param) Param { p.Required = true; return p }
	from := func(version string, p Param) Param { p.Since = since(version); return p }

	balanceEmployee := from("3.13.22", employee)
	return []Action{
		{
			Category: "customer", Name: "add", Write: true, Answer: AnswerID, Confidence: "H", Section: "3.2", Method: "AddCustomer",
			Summary: "create a customer",
			Notes:   "Servers of 2026 want billing_id and billing_customer_id unless is_potential is set.",
			Params: []Param{
				text("fio", "full name"),
				text("codeti", "id of the customer in the billing"),
				{Name: "is_potential", Kind: KindFlag, Help: "not yet a customer"},
				{Name: "is_corporate", Kind: KindFlag, Since: since("3.13.25"), Help: "legal entity"},
				{Name: "billing_id", Kind: KindID, Help: "billing"},
				from("3.21", text("billing_customer_id", "id of the customer in that billing")),
			},
		},
		{
			Category: "customer", Name: "edit", Since: since("3.12rc2"), Write: true, Idempotent: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "EditCustomer",
			Summary: "change what is written about a customer",
			Notes:   "The customer's parameter is id. Of a customer that comes from a billing, the next import overwrites what was written.",
			Params: []Param{
				id,
				text("account_number", "personal account"),
				{Name: "agreement_date", Kind: KindDate, Help: "date of the agreement"},
				text("agreement_number", "number of the agreement"),
				text("apartment_number", "number of the apartment"),
				text("comment", "comment"),
				{Name: "date_activity", Kind: KindDateTime, Help: "last seen on the network"},
				{Name: "date_activity_inet", Kind: KindDateTime, Help: "last seen on the internet"},
				{Name: "date_connect", Kind: KindDate, Help: "date of connection"},
				text("email", "mail address"),
				text("entrance", "entrance of the house"),
				{Name: "flag_corporate", Kind: KindFlag, Help: "legal entity"},
				text("floor", "floor"),
				{Name: "group_id", Kind: KindInt, Since: since("3.16dev3"), Help: "group; 0: none"},
				{Name: "house_id", Kind: KindInt, Help: "house; 0: none"},
				{Name: "is_potential", Kind: KindFlag, Help: "not yet a customer"},
				text("login", "login"),
				{Name: "manager_id", Kind: KindInt, Since: since("3.13.56"), Help: "manager; 0: none"},
				text("name", "full name"),
				{Name: "parent_id", Kind: KindInt, Help: "customer that this one belongs to; 0: none"},
				text("phone0", "mobile phone"),
				text("phone1", "phone at home"),
				from("3.19", text("phone2", "another phone")),
				from("3.19", text("phone3", "another phone")),
				from("3.19", text("phone4", "another phone")),
				from("3.19", text("coordinates", "latitude and longitude with a comma between")),
			},
		},
		{
			Category: "customer", Name: "delete", Since: since("3.14.21"), Write: true, Danger: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "DeleteCustomer",
			Summary: "delete a customer",
			Notes:   "The customer's parameter is id.",
			Params:  []Param{id},
		},
		{
			Category: "customer", Name: "merge", Since: since("3.19"), Write: true, Danger: true, Answer: AnswerOK, Confidence: "L", Section: "3.2", Method: "MergeCustomers",
			Summary: "move the data of one customer to another",
			Notes:   "Not in the documentation of 3.19; the first version that has it and its answer are not known.",
			Params: []Param{
				{Name: "dst_id", Kind: KindID, Required: true, Help: "customer who receives the data"},
				{Name: "src_id", Kind: KindID, Required: true, Differs: "dst_id", Help: "customer whose data is moved away"},
			},
		},
		{
			Category: "customer", Name: "change_balance", Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "ChangeBalance",
			Summary: "add to or take from a customer's balance",
			Params: []Param{
				newCustomerParam(),
				{Name: "amount", Kind: KindMoney, Required: true, Help: "what to add; negative: what to take"},
				required(text("comment", "why")),
				balanceEmployee,
			},
		},
		{
			Category: "customer", Name: "change_billing", Since: since("3.12.48"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "ChangeBilling",
			Summary: "assign a customer to another billing",
			Params: []Param{
				newCustomerParam(),
				{Name: "billing_id", Kind: KindID, Required: true, Help: "billing"},
				from("3.16.23", text("billing_user_id", "id of the customer in that billing")),
			},
		},
		{
			Category: "customer", Name: "change_date_connect", Since: since("3.12.80"), Write: true, Idempotent: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "ChangeConnectDate",
			Summary: "set the date of connection",
			Params:  []Param{newCustomerParam(), {Name: "value", Kind: KindDate, Required: true, Help: "date of connection"}},
		},
		{
			Category: "customer", Name: "ip_add", Since: since("3.12.83"), Write: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "AddIP",
			Summary: "give an address to a customer",
			Params: []Param{
				newCustomerParam(),
				{Name: "value", Kind: KindIP, Required: true, Help: "IPv4 address"},
				{Name: "mac", Kind: KindMAC, Since: since("3.17.36"), Help: "hardware address that uses it"},
			},
		},
		{
			Category: "customer", Name: "ip_delete", Since: since("3.12.83"), Write: true, Idempotent: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "DeleteIP",
			Summary: "take addresses from a customer",
			Params: []Param{
				newCustomerParam(),
				{Name: "value", Kind: KindIP, Required: true, Enum: []string{"-1", "all"}, EnumSince: map[string]Version{"all": since("3.19beta1")},
					Help: "IPv4 address; -1: the entries that have only a MAC; all: every address"},
			},
		},
		{
			Category: "customer", Name: "ip_subnet_add", Since: since("3.14.71"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "AddSubnet",
			Summary: "give a subnet to a customer",
			Params: []Param{
				newCustomerParam(),
				{Name: "ip", Kind: KindIP, Required: true, Help: "first address"},
				{Name: "subnet", Kind: KindPrefixLen, Required: true, Help: "prefix length"},
			},
		},
		{
			Category: "customer", Name: "ip_subnet_delete", Since: since("3.14.71"), Write: true, Idempotent: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "DeleteSubnet",
			Summary: "take a subnet from a customer",
			Params:  []Param{newCustomerParam(), {Name: "ip", Kind: KindIP, Required: true, Help: "first address"}},
		},
		{
			Category: "customer", Name: "set_mac_by_ip", Since: since("3.12beta35"), Write: true, Idempotent: true, Agent: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "SetMACByIP",
			Summary: "say which MAC uses an address of a customer",
			Notes:   "The address must belong to a customer. Meant for a DHCP server that writes a learned MAC back.",
			Params: []Param{
				{Name: "ip", Kind: KindIP, Required: true, Help: "IPv4 address"},
				{Name: "mac", Kind: KindMAC, Required: true, Help: "hardware address"},
			},
		},
		{
			Category: "customer", Name: "mark_add", Since: since("3.12.82"), Write: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "AddMark",
			Summary: "put a mark on a customer",
			Notes:   "A hook inside the ERP may answer in its own words.",
			Params:  []Param{newCustomerParam(), {Name: "mark_id", Kind: KindID, Required: true, Help: "mark"}},
		},
		{
			Category: "customer", Name: "mark_delete", Since: since("3.12.82"), Write: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "DeleteMark",
			Summary: "take a mark from a customer",
			Params:  []Param{newCustomerParam(), {Name: "mark_id", Kind: KindID, Required: true, Help: "mark"}},
		},
		{
			Category: "customer", Name: "msg_add", Since: since("3.13.25"), Write: true, Answer: AnswerID, Confidence: "M", Section: "3.2", Method: "AddMessage",
			Summary: "record a message from a customer",
			Params: []Param{
				newCustomerParam(), required(text("text", "message")),
				{Name: "is_arc", Kind: KindFlag, Since: since("3.19"), Help: "put it into the archive at once"},
			},
		},
		{
			Category: "customer", Name: "msg_add_to_customer", Since: since("3.19"), Write: true, Answer: AnswerID, Confidence: "L", Section: "3.2", Method: "SendMessage",
			Summary: "send a message to a customer",
			Notes:   "Not in the documentation of 3.19; the first version that has it and its answer are not known.",
			Params: []Param{
				{Name: "employee_id", Kind: KindID, Required: true, Help: "employee who writes"},
				newCustomerParam(), required(text("text", "message")),
				{Name: "is_arc", Kind: KindFlag, Help: "put it into the archive at once"},
			},
		},
		{
			Category: "customer", Name: "pass_change", Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "ChangePassword",
			Summary: "set the password of a customer's personal area",
			Params: []Param{
				customerParam(), required(text("pass_new", "new password")),
				{Name: "pass_old", Kind: KindText, RequiredUntil: since("3.15.23"), Help: "old password"},
			},
		},
		{
			Category: "customer", Name: "service_add", Since: since("3.18beta1"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "AddService",
			Summary: "give a service to a customer",
			Params: []Param{
				newCustomerParam(), {Name: "service_id", Kind: KindID, Required: true, Help: "service"},
				{Name: "price", Kind: KindMoney, Help: "price, if not the usual one"}, text("comment", "comment"),
			},
		},
		{
			Category: "customer", Name: "service_remove", Since: since("3.18beta1"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "RemoveService",
			Summary: "take a service from a customer",
			Params:  []Param{newCustomerParam(), {Name: "service_id", Kind: KindID, Required: true, Help: "service"}},
		},
		{
			Category: "customer", Name: "state_change", Since: since("3.12.8"), Write: true, Idempotent: true, Agent: true, Answer: AnswerOK, Confidence: "H", Section: "3.2", Method: "ChangeState",
			Summary: "stop, pause or activate a customer",
			Params:  []Param{customerParam(), {Name: "state_id", Kind: KindInt, Required: true, Help: "0 stop, 1 pause, 2 active"}},
		},
		{
			Category: "customer", Name: "tarif_change", Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "ChangeTariff",
			Summary: "change a customer's tariff",
			Params:  []Param{customerParam(), {Name: "tarif", Kind: KindText, Required: true, Help: "id of the tariff; the ERP's spelling"}},
		},
		{
			Category: "customer", Name: "to_ex", Since: since("3.12.69"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "MakeFormer",
			Summary: "move a customer to the former ones",
			Params:  []Param{customerParam()},
		},
		{
			Category: "customer", Name: "to_normal", Since: since("3.12.90"), Write: true, Answer: AnswerOK, Confidence: "M", Section: "3.2", Method: "MakeNormal",
			Summary: "take a former customer back",
			Params:  []Param{customerParam()},
		},
	}
}
