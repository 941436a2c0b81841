package userside

// Action is one row of the table that drives every call.
type Action struct {
	Category   string // cat=
	Name       string // action=
	Write      bool   // changes data: sent by POST, never retried unless Idempotent and so configured
	Idempotent bool   // doing it twice is the same as doing it once
}

// Label gives category and name with a dot between, as in metrics and errors.
func (a Action) Label() string { return a.Category + "." + a.Name }

// action is an index of the table.
type action uint8

const (
	actCustomerBindings action = iota
	actCustomerSetMAC
	actCustomerIDs
	actCustomerGetData
	actCustomerFind
	actCustomerStateChange
	actDeviceGetData
	actCommutationGetData
	actSystemInfo
	actionCount
)

// actions is the table; it is only read. API page sections 3 and 5.
var actions = [actionCount]Action{
	actCustomerBindings:    {Category: "customer", Name: "get_ip_port_device_commutation", Idempotent: true},
	actCustomerSetMAC:      {Category: "customer", Name: "set_mac_by_ip", Write: true, Idempotent: true},
	actCustomerIDs:         {Category: "customer", Name: "get_customers_id", Idempotent: true},
	actCustomerGetData:     {Category: "customer", Name: "get_data", Idempotent: true},
	actCustomerFind:        {Category: "customer", Name: "get_abon_id", Idempotent: true},
	actCustomerStateChange: {Category: "customer", Name: "state_change", Write: true, Idempotent: true},
	actDeviceGetData:       {Category: "device", Name: "get_data", Idempotent: true},
	actCommutationGetData:  {Category: "commutation", Name: "get_data", Idempotent: true},
	actSystemInfo:          {Category: "system", Name: "get_system_info", Idempotent: true},
}

// Actions lists every action that this client can call.
func Actions() []Action {
	all := actions
	return all[:]
}
