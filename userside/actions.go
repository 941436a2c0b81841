package userside

import "strings"

// action is the label of a row of the table.
type action string

// The actions that typed methods call.
const (
	actCustomerBindings    action = "customer.get_ip_port_device_commutation"
	actCustomerSetMAC      action = "customer.set_mac_by_ip"
	actCustomerIDs         action = "customer.get_customers_id"
	actCustomerGetData     action = "customer.get_data"
	actCustomerFind        action = "customer.get_abon_id"
	actCustomerStateChange action = "customer.state_change"
	actDeviceGetData       action = "device.get_data"
	actCommutationGetData  action = "commutation.get_data"
	actSystemInfo          action = "system.get_system_info"
)

// row finds the action in the table. A test reads all of the constants.
func (a action) row() *Action {
	category, name, _ := strings.Cut(string(a), ".")
	return row(category, name)
}
