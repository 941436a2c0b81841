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

	actCustomerLookUp    action = "customer.get_customer_id"
	actGroups            action = "customer.get_customer_group"
	actActivity          action = "customer.get_activity_counter"
	actLastIP            action = "customer.get_last_ip"
	actMaxAgreement      action = "customer.get_max_agreement_number"
	actMACHistory        action = "customer.get_mac_history"
	actHistory           action = "customer.abon_hist"
	actMessages          action = "customer.msg"
	actTariffList        action = "customer.list_tarif_available"
	actAdd               action = "customer.add"
	actEdit              action = "customer.edit"
	actDelete            action = "customer.delete"
	actMerge             action = "customer.merge"
	actBalance           action = "customer.change_balance"
	actBilling           action = "customer.change_billing"
	actConnectDate       action = "customer.change_date_connect"
	actIPAdd             action = "customer.ip_add"
	actIPDelete          action = "customer.ip_delete"
	actSubnetAdd         action = "customer.ip_subnet_add"
	actSubnetDelete      action = "customer.ip_subnet_delete"
	actMarkAdd           action = "customer.mark_add"
	actMarkDelete        action = "customer.mark_delete"
	actMessageAdd        action = "customer.msg_add"
	actMessageSend       action = "customer.msg_add_to_customer"
	actPassword          action = "customer.pass_change"
	actServiceAdd        action = "customer.service_add"
	actServiceRemove     action = "customer.service_remove"
	actTariff            action = "customer.tarif_change"
	actToFormer          action = "customer.to_ex"
	actToNormal          action = "customer.to_normal"
	actDeviceFind        action = "device.get_device_id"
	actDeviceMACs        action = "device.get_mac_list"
	actFindMAC           action = "device.find_mac"
	actONT               action = "device.get_ont_data"
	actUserList          action = "module.get_user_list"
	actUserStates        action = "module.get_user_state_list"
	actConnections       action = "module.get_connect_list"
	actModuleDevices     action = "module.get_device_list"
	actModuleTariffs     action = "module.get_tariff_list"
	actSystemInformation action = "module.get_system_information"
	actAPIInformation    action = "module.get_api_information"
	actSupportedMethods  action = "module.get_supported_method_list"
	actTariffs           action = "tariff.get"
)

// row finds the action in the table. A test reads all of the constants.
func (a action) row() *Action {
	category, name, _ := strings.Cut(string(a), ".")
	return row(category, name)
}
