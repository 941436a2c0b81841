package userside

// customerParam is the customer's id of actions where servers before 3.17 call it usercode.
func customerParam() Param {
	return Param{Name: "customer_id", Kind: KindID, Required: true, Was: "usercode", WasUntil: since("3.17"), Help: "id of the customer in the ERP"}
}

// newCustomerParam is the customer's id of actions for which no former name is documented.
func newCustomerParam() Param {
	return Param{Name: "customer_id", Kind: KindID, Required: true, Help: "id of the customer in the ERP"}
}

func findParams(typers []string, typerSince map[string]Version) []Param {
	return []Param{
		{Name: "data_typer", Kind: KindEnum, Required: true, Enum: typers, EnumSince: typerSince, Help: "what to look for"},
		{Name: "data_value", Kind: KindText, Required: true, Help: "the value; an IP dotted, a MAC with colons"},
		{Name: "is_skip_old", Kind: KindFlag, Help: "leave out former customers"},
	}
}

// customerLookups are the rows of API page sections 3.1, 3.3 and 3.4.
func customerLookups() []Action {
	typers := []string{"account", "billing_uid", "codeti", "dognumber", "ip", "login", "mac", "mail", "phone"}
	accountSince := map[string]Version{"account": since("3.14.34")}
	return []Action{
		{
			Category: "customer", Name: "get_data", Idempotent: true, Agent: true, Answer: AnswerRecord, Confidence: "H", Section: "3.3", Method: "Customers",
			Summary: "show customers with addresses, state, balance and contacts",
			Notes:   "One id answers the customer, several an object keyed by id. Instead of ids, account_number with billing_id names one customer.",
			Params: []Param{
				{Name: "customer_id", Kind: KindIDs, OneOf: "customer", Help: "ids of the customers, with commas between"},
				{Name: "id", Kind: KindIDs, OneOf: "customer", Since: since("3.19"), Help: "the same as customer_id, on newer servers"},
				{Name: "account_number", Kind: KindText, OneOf: "customer", Needs: "billing_id", Help: "personal account"},
				{Name: "billing_id", Kind: KindInt, Needs: "account_number", Help: "billing that the account belongs to"},
			},
		},
		{
			Category: "customer", Name: "get_abon_id", Idempotent: true, Agent: true, Answer: AnswerIDs, Confidence: "H", Section: "3.1", Method: "FindCustomers",
			Summary: "find customers by address, phone, login or agreement",
			Notes:   "Several customers may share a phone or an address. The format of an address is not documented: on \"not found\" the Go method and the command try the other spelling once: decimal, or bare.",
			Params:  findParams(typers, accountSince),
		},
		{
			Category: "customer", Name: "get_customer_id", Since: since("3.19"), Idempotent: true, Answer: AnswerIDs, Confidence: "H", Section: "3.1", Method: "LookUpCustomers",
			Summary: "find customers; the newer name of get-abon-id",
			Notes:   "Not in the documentation of 3.19; used by clients from 2025 on. The first version that has it is not known.",
			Params:  findParams(append(append([]string{}, typers...), "agreement_number"), nil),
		},
		{
			Category: "customer", Name: "get_customers_id", Since: since("3.12.8"), Idempotent: true, Agent: true, Answer: AnswerIDs, Confidence: "H", Section: "3.1", Method: "CustomerIDs",
			Summary: "list the ids of customers that meet all conditions",
			Notes:   "At least one condition is obligatory; limit and is_like are none. Whether state_id=0 alone counts as a condition is not known.",
			Params: []Param{
				{Name: "address_unit_id", Kind: KindID, OneOf: "condition", Since: since("3.14.5"), Help: "unit of the address directory"},
				{Name: "appartment", Kind: KindText, OneOf: "condition", Help: "number of the apartment; the ERP's spelling"},
				{Name: "balance_from", Kind: KindMoney, OneOf: "condition", Help: "lowest balance"},
				{Name: "balance_to", Kind: KindMoney, OneOf: "condition", Help: "highest balance"},
				{Name: "state_id", Kind: KindInt, OneOf: "condition", Since: since("3.14.58"), Help: "0 stop, 1 pause, 2 active"},
				{Name: "billing_id", Kind: KindID, OneOf: "condition", Help: "billing"},
				{Name: "date_connect_from", Kind: KindDate, OneOf: "condition", Since: since("3.14.41"), Help: "first day of connection"},
				{Name: "date_connect_to", Kind: KindDate, OneOf: "condition", Since: since("3.14.41"), Help: "last day of connection"},
				{Name: "dependence_device_id", Kind: KindID, OneOf: "condition", Since: since("3.14.71"), Help: "device that the customer depends on"},
				{Name: "house_id", Kind: KindID, OneOf: "condition", Help: "house"},
				{Name: "is_corporate", Kind: KindFlag, OneOf: "condition", Since: since("3.18.10"), Help: "legal entities"},
				{Name: "is_ex", Kind: KindFlag, OneOf: "condition", Since: since("3.15.26"), Help: "former customers"},
				{Name: "mark_id", Kind: KindID, OneOf: "condition", Since: since("3.13.35"), Help: "mark"},
				{Name: "name", Kind: KindText, OneOf: "condition", Help: "full name, or a part with is_like"},
				{Name: "tariff_id", Kind: KindID, OneOf: "condition", Since: since("3.13.48"), Help: "tariff"},
				{Name: "account_number", Kind: KindText, OneOf: "condition", Since: since("3.19"), Help: "personal account"},
				{Name: "billing_uuid", Kind: KindText, OneOf: "condition", Since: since("3.19"), Help: "id of the customer in the billing"},
				{Name: "manager_id", Kind: KindInt, OneOf: "condition", Since: since("3.19"), Help: "manager; 0: without one"},
				{Name: "is_like", Kind: KindFlag, Since: since("3.16dev3"), Help: "name is a part"},
				{Name: "limit", Kind: KindID, Help: "most ids to answer; there is no paging"},
			},
		},
		{
			Category: "customer", Name: "get_ip_port_device_commutation", Since: since("3.12beta35"), Idempotent: true, Agent: true, Bulk: true, Answer: AnswerRows, Confidence: "L", Section: "3.4", Method: "CustomerBindings",
			Summary: "list addresses and MACs of all customers with their switch ports, for DHCP",
			Notes:   "The form of the answer is published nowhere; shapes A to F are understood.",
		},
		{
			Category: "customer", Name: "get_customer_group", Since: since("3.19beta1"), Idempotent: true, Answer: AnswerMap, Confidence: "H", Section: "3.1", Method: "CustomerGroups",
			Summary: "list the groups of customers",
		},
		{
			Category: "customer", Name: "get_activity_counter", Since: since("3.12.81"), Idempotent: true, Answer: AnswerScalar, Confidence: "L", Section: "3.1", Method: "ActivityCounter",
			Summary: "count the customers that are active now",
			Params: []Param{
				{Name: "type", Kind: KindEnum, Required: true, Enum: []string{"net", "internet", "personal_area"}, Help: "active where"},
			},
		},
		{
			Category: "customer", Name: "get_last_ip", Idempotent: true, Answer: AnswerScalar, Confidence: "L", Section: "3.1", Method: "LastIP",
			Summary: "show the last address that was given to a customer",
			Notes:   "Probably the highest address in use, as a hint for giving out the next one; not an address of one customer.",
		},
		{
			Category: "customer", Name: "get_max_agreement_number", Since: since("3.12.3"), Idempotent: true, Answer: AnswerScalar, Confidence: "L", Section: "3.1", Method: "MaxAgreementNumber",
			Summary: "show the highest number of an agreement",
			Params:  []Param{{Name: "billing_id", Kind: KindID, Help: "of this billing only"}},
		},
		{
			Category: "customer", Name: "get_mac_history", Since: since("3.16dev8"), Idempotent: true, Answer: AnswerRows, Confidence: "L", Section: "3.1", Method: "MACHistory",
			Summary: "list the MACs that a customer used before",
			Notes:   "The rows are published nowhere; each is kept as it came beside what could be recognised.",
			Params:  []Param{newCustomerParam()},
		},
		{
			Category: "customer", Name: "abon_hist", Idempotent: true, Answer: AnswerRows, Confidence: "M", Section: "3.1", Method: "CustomerHistory",
			Summary: "list what happened to a customer's account",
			Params:  []Param{customerParam()},
		},
		{
			Category: "customer", Name: "msg", Idempotent: true, Answer: AnswerRows, Confidence: "M", Section: "3.1", Method: "Messages",
			Summary: "list messages of customers",
			Notes:   "At least one condition is obligatory; before 3.16dev3 the customer is.",
			Params: []Param{
				{Name: "customer_id", Kind: KindID, OneOf: "condition", RequiredUntil: since("3.16dev3"), Was: "usercode", WasUntil: since("3.17"), Help: "id of the customer in the ERP"},
				{Name: "date_add_from", Kind: KindDateTime, OneOf: "condition", Since: since("3.14.53"), Help: "first day"},
				{Name: "date_add_to", Kind: KindDateTime, OneOf: "condition", Since: since("3.14.53"), Help: "last day"},
				{Name: "employee_id", Kind: KindID, OneOf: "condition", Was: "operator_id", WasUntil: since("3.16dev2"), Help: "employee"},
			},
		},
		{
			Category: "customer", Name: "list_tarif_available", Until: since("3.13"), Idempotent: true, Answer: AnswerRows, Confidence: "H", Section: "3.1", Method: "AvailableTariffs",
			Summary: "list the tariffs that a customer may choose; gone since 3.13",
			Params:  []Param{customerParam()},
		},
	}
}
