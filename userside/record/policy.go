package record

import (
	"regexp"
	"strings"
	"unicode"
)

// class says how the value of a key is masked.
type class uint8

const (
	byForm  class = iota // by what it looks like; the default
	plain                // text whatever it looks like: names, phones, passwords
	figure               // numbers and dates stay
	keyword              // words of the API stay
	iface                // names of interfaces stay
	release              // version numbers stay
	message              // words of the vocabulary stay
)

// classOf knows the keys of the API (API page sections 2 to 5), in lower case.
// ok is false for keys it does not know.
func classOf(key string) (c class, ok bool) {
	switch key {
	case "data", "list", "id", "ids", "customer_id", "usercode", "user_id", "userid", "abon_id", "codeabon", "customer",
		"ip", "userip", "ip_address", "customer_ip", "user_ip", "mac", "usermac", "customer_mac", "mac_address",
		"device_id", "object_id", "switch_id", "commutator_id", "devcode", "dev_id", "device", "device_ip", "host", "devip",
		"switch_ip", "dev_ip", "device_host", "device_mac", "devmac", "switch_mac", "code", "switch", "commutator",
		"ip_mac", "ip_net", "commutation", "finish", "ifaces", "ports", "interfaces", "customers", "rows", "items",
		"house_id", "node_id", "group", "group_id", "tariff", "tariff_id", "current", "new", "service", "service_id", "mark", "mark_id",
		"tag", "connect_id", "inventory_id", "parent_id", "manager_id", "employee_id", "empoyee_id", "operid", "operator_id",
		"object_uuid", "additional_data", "additional_customer_data", "mask", "netmask", "gateway",
		"crc_billing", "relation", "dependence_device_id", "address_unit_id", "uplink", "dnlink", "location_id", "src_id", "dst_id":
		return byForm, true

	case "full_name", "fio", "name", "nazv", "login", "password", "pass", "pass_new", "pass_old", "key", "api", "token", "secret",
		"community", "snmp_read_community", "snmp_write_community", "snmp_community", "telnet_login", "telnet_pass", "telnet_password",
		"web_login", "web_password", "enable_password", "phone", "phone0", "phone1", "phone2", "phone3", "phone4", "number",
		"email", "mail", "agreement", "agreement_number", "dognumber", "account_number", "account", "codeti", "billing_uid",
		"billing_id", "billing_uuid", "billing_user_id", "billing_customer_id", "billing", "uuid", "apartment", "apartment_number",
		"appartment", "block", "comment", "comment2", "text", "address", "location", "street", "house", "city", "geo", "coordinates",
		"lat", "lon", "lng", "gps", "serial_number", "inventory_number", "sn", "serial", "data_value", "value", "msgtext",
		"ifalias", "ifdescr", "description", "billingdopdata", "pko", "birthday", "date_birth", "passport", "inn", "label",
		"device_name", "switch_name", "sysname", "syslocation", "syscontact", "contact":
		return plain, true

	case "state_id", "state", "balance", "credit", "discount", "amount", "balansbefore", "cost", "price", "payment", "payment_interval",
		"traffic", "month", "up", "down", "entrance", "floor", "port", "interface", "iface", "port_number", "ifnumber", "ifindex", "iftype",
		"device_port", "vlan", "vlan_id", "vid", "direction", "snmp_port", "telnet_port", "snmp_version", "type_id", "model_id",
		"length_by_cable", "length_by_fiber", "uplink_iface", "uplink_iface_array", "dnlink_iface", "dnlink_iface_array", "limit",
		"count", "total", "speed", "level_onu_rx", "level_onu_tx", "subnet", "balance_from", "balance_to", "timestamp_ready":
		return figure, true

	case "result", "object_type", "type", "typer", "msgtyper", "functional", "service_type", "data_typer", "device_type", "dataset",
		"cat", "action", "subcat", "request":
		return keyword, true

	case "ifname", "port_name", "iface_name", "interface_list":
		return iface, true

	case "erp_version", "php_version", "software_version", "version", "os", "api_version", "model":
		return release, true

	case "error", "errortext", "error_text", "msg", "message", "errors", "errorcode", "error_code":
		return message, true
	}
	switch {
	case strings.Contains(key, "birth") || strings.Contains(key, "pass") || strings.Contains(key, "secret") || strings.Contains(key, "communit"):
		return plain, false
	case strings.HasPrefix(key, "is_") || strings.HasPrefix(key, "flag_"):
		return figure, isName(key)
	case strings.HasPrefix(key, "date") || strings.HasSuffix(key, "_date") || strings.HasSuffix(key, "_time") || strings.Contains(key, "timestamp"):
		return figure, isName(key)
	}
	return byForm, false
}

var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z_]{0,39}[0-9]?$`)

// isName reports whether s could be the name of a field.
func isName(s string) bool { return fieldName.MatchString(s) }

// isVocabulary reports a name made of words that the package knows, such as
// customerVlanNumber or device_serial.
func (m *masker) isVocabulary(name string) bool {
	word := ""
	known := true
	flush := func() {
		if word != "" && !m.vocabulary[strings.ToLower(word)] {
			known = false
		}
		word = ""
	}
	prev := ' '
	for _, c := range name {
		switch {
		case c == '_' || unicode.IsDigit(c):
			flush()
		case unicode.IsUpper(c) && !unicode.IsUpper(prev):
			flush()
			word = string(c)
		default:
			word += string(c)
		}
		prev = c
	}
	flush()
	return known
}

// isKeyword are values that mean something to a client.
func isKeyword(s string) bool {
	switch strings.ToLower(s) {
	case "ok", "error", "true", "false", "yes", "no", "success", "fail", "failed", "done", "none", "null",
		"switch", "customer", "cross", "fiber", "splitter", "radio", "olt", "onu", "cwdm", "node", "all", "other", "connect", "house",
		"work", "nomoney", "pause", "disable", "new", "active", "stop", "net", "internet", "personal_area",
		"account", "billing_uid", "codeti", "dognumber", "ip", "login", "mac", "mail", "phone", "agreement_number":
		return true
	}
	return false
}

// vocabulary are the words that may stand in messages and names of fields.
func vocabulary() map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(`
abon access action actions activity add address agreement all allowed alias an and any api args argument array as at auth authorization
bad balance be billing body br but by byte bytes cannot cat category center charset chain class client code codes comment commutation commutator
condition connect connection content count counter create created credit current customer customers data database date dead
delete denied desc description dev device devices direction disabled does doctype done down download edit element email empty
end entity entrance error errors exceeded exception exhausted expected expired failed false fatal fetch fiber field fields file filter finish
first flag floor for forbidden form found from full function gateway get given gpon group h head header hidden host hr href html http https id
if iface ifaces ifindex ifname ifnumber in index inet info information input int integer interface interfaces internal interval invalid ip is
item items json key keys last length limit line link links linux list location log login mac mail main map mask max maximum memory message meta
method min missing mod model module month msg must mysql name net netmask network new nginx no node none not notice null number object of offset offline
ok old olt on online only onu operator or other out page param parameter parameters parse part pass password path permission permitted
phone php pon port ports post postgresql query read record refused registered remote request required response result results row rows
rx scheme script section select sent serial server service set shape sip size slot snmp source speed sql start state status stack stop string style
subcat subnet such switch system table tag tariff temporarily text th that the this time timeout title to token too total trace tx type types typer
unauthorized unavailable undefined unexpected uncaught unit unknown unsupported up upload uplink url use used user usercode usermac userip users utf uuid
value values var variable version view vid vlan vlans warning was web which with www you your
bind binds binding bindings bras cable cross cvlan dhcp fdb gpon lease option outer inner pool port qinq relay reserved ring route router routers svlan
apache centos debian ubuntu windows method post`) {
		out[w] = true
	}
	return out
}
