package emulator

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommutation(t *testing.T) {
	const (
		link5 = `{"object_type":"switch","object_id":6001,"object_uuid":"00000006-0000-4000-8000-000000001771","direction":0,"interface":5,"comment":"","connect_id":10010}`
		link6 = `{"object_type":"switch","object_id":6001,"object_uuid":"00000006-0000-4000-8000-000000001771","direction":0,"interface":6,"comment":"","connect_id":10020}`
		link7 = `{"object_type":"switch","object_id":6001,"object_uuid":"00000006-0000-4000-8000-000000001771","direction":0,"interface":7,"comment":"","connect_id":10040}`
		cross = `{"object_type":"cross","object_id":301,"object_uuid":"00000005-0000-4000-8000-00000000012d","direction":0,"interface":1,"comment":"","connect_id":10040}`
		at5   = `{"object_type":"customer","object_id":1001,"object_uuid":"00000008-0000-4000-8000-0000000003e9","direction":0,"interface":1,"comment":"","connect_id":10010}`
		at6   = `{"object_type":"customer","object_id":1002,"object_uuid":"00000008-0000-4000-8000-0000000003ea","direction":0,"interface":1,"comment":"","connect_id":10020}`
		at7   = `{"object_type":"customer","object_id":1004,"object_uuid":"00000008-0000-4000-8000-0000000003ec","direction":0,"interface":1,"comment":"","connect_id":10040}`
	)
	e := small(t, Options{})
	for params, want := range map[string]string{
		"object_type=customer":                                 `{"1001":[` + link5 + `],"1002":[` + link6 + `],"1004":[` + cross + `]}`,
		"object_type=customer&object_id=1001":                  `[` + link5 + `]`,
		"object_type=customer&object_id=1003":                  `[]`,
		"object_type=customer&object_id=1003&is_finish_data=1": `{}`,
		"object_type=customer&object_id=1001&is_finish_data=1": `{"0":` + link5 + `,"finish":` + link5 + `}`,
		"object_type=customer&object_id=1004&is_finish_data=1": `{"0":` + cross + `,"finish":` + link7 + `}`,
		"object_type=switch&object_id=6001":                    `{"5":[` + at5 + `],"6":[` + at6 + `],"7":[` + cross + `]}`,
		"object_type=switch&object_id=6001&is_finish_data=1":   `{"5":{"finish":` + at5 + `},"6":{"finish":` + at6 + `},"7":{"finish":` + at7 + `}}`,
		"object_type=switch":                                   `{"6001":{"5":[` + at5 + `],"6":[` + at6 + `],"7":[` + cross + `]}}`,
		"object_type=switch&object_id=6003":                    `{}`,
		"object_type=fiber":                                    `[]`,
	} {
		require.Equal(t, `{"result":"OK","data":`+want+`}`, get(t, e, "cat=commutation&action=get_data&"+params).body, params)
	}
	require.Equal(t, 400, get(t, e, "cat=commutation&action=get_data&object_type=shoe").status)
	require.Equal(t, 400, get(t, e, "cat=commutation&action=get_data").status)

	old := small(t, Options{Profile: ProfileLegacy})
	require.NotContains(t, get(t, old, "cat=commutation&action=get_data&object_type=customer").body, "object_uuid")
}

func TestDeviceData(t *testing.T) {
	e := small(t, Options{})
	const params = "cat=device&action=get_data&object_type="
	require.Equal(t, `{"result":"OK","data":{"6001":{"id":6001,"name":"sw1","ip":"167772162","host":"10.0.0.2","mac":"00005E0053F0","interfaces":4,`+
		`"ifaces":{"5":{"ifIndex":10005,"ifType":6,"ifName":"Gi0/5","ifNumber":5},"6":{"ifIndex":10006,"ifType":6,"ifName":"Gi0/6","ifNumber":6},`+
		`"7":{"ifIndex":10007,"ifType":6,"ifName":"Gi0/7","ifNumber":7},"25":{"ifIndex":10025,"ifType":6,"ifName":"Gi0/25","ifNumber":25}},`+
		`"uplink_iface":"25","uplink_iface_array":[25],"dnlink_iface":"","activity_time":"2026-02-03 04:05:06","is_online":1,"node_id":0,"entrance":0,"inventory_id":0,`+
		`"model":"Test 4","location":"","snmp_version":2,"snmp_port":161,"snmp_read_community":"secret-community","telnet_login":"root","telnet_pass":"secret-password"},`+
		`"6003":{"id":6003,"name":"sw2","ip":null,"host":null,"mac":"","interfaces":0,"ifaces":{},"uplink_iface":"","uplink_iface_array":[],"dnlink_iface":"",`+
		`"activity_time":"2026-02-03 04:05:06","is_online":1,"node_id":0,"entrance":0,"inventory_id":0,"model":"","location":"","snmp_version":2,"snmp_port":161,`+
		`"snmp_read_community":"","telnet_login":"","telnet_pass":""}}}`, get(t, e, params+"all").body)

	hidden := get(t, e, params+"switch&is_hide_access_data=1").body
	require.NotContains(t, hidden, "secret")
	require.Contains(t, hidden, "Gi0/5")
	require.NotContains(t, get(t, e, params+"switch&is_hide_ifaces_data=1").body, "Gi0/5")
	require.Equal(t, `{"result":"OK","data":{"6001":{"id":6001,"host":"10.0.0.2"}}}`, get(t, e, params+"switch&dataset=id,host&is_with_ip=1").body)
	for filter, want := range map[string][]string{
		"all": {"6001", "6003"}, "switch&object_id=6003": {"6003"}, "switch&object_id=6001,6003": {"6001", "6003"}, "switch&object_id=1": {},
		"olt": {}, "onu": {}, "all&customer_id=1002": {"6001"}, "all&customer_id=1003": {}, "all&customer_id=1002&object_id=6003": {},
		"all&is_online=-1": {}, "all&is_online=1": {"6001", "6003"}, "all&node_id=3": {},
	} {
		got := at(t, decode(t, get(t, e, params+filter).body), "data").(map[string]any)
		keys := []string{}
		for k, v := range got {
			keys = append(keys, k)
			require.Equal(t, k, at(t, v, "id").(interface{ String() string }).String())
		}
		require.ElementsMatch(t, want, keys, filter)
	}
	require.Equal(t, 400, get(t, e, params+"shoe").status)
	require.Equal(t, 400, get(t, e, params+"all&object_id=x").status)
	require.Equal(t, 400, get(t, e, params+"all&customer_id=x").status)

	// Old PHP escapes slashes in JSON.
	old := small(t, Options{Profile: ProfileLegacy})
	require.Contains(t, get(t, old, params+"switch").body, `"5":{"ifIndex":"10005","ifType":"6","ifName":"Gi0\/5","ifNumber":"5"}`)
}

func TestDeviceID(t *testing.T) {
	e := small(t, Options{})
	for params, want := range map[string]string{
		"switch&data_typer=ip&data_value=10.0.0.2":          `{"result":"OK","id":6001}`,
		"all&data_typer=mac&data_value=00:00:5e:00:53:f0":   `{"result":"OK","id":6001}`,
		"all&data_typer=mac&data_value=00005E0053F0":        `{"result":"OK","id":6001}`,
		"olt&data_typer=ip&data_value=10.0.0.2":             `{"result":"ERROR","error":"device not found"}`,
		"switch&data_typer=mac&data_value=":                 `{"result":"ERROR","error":"parameter data_value is missing"}`,
		"switch&data_typer=mac&data_value=000000000000":     `{"result":"ERROR","error":"device not found"}`,
		"switch&data_typer=serial_number&data_value=1":      `{"result":"ERROR","error":"device not found"}`,
		"switch&data_typer=additional_field_7&data_value=1": `{"result":"ERROR","error":"device not found"}`,
		"switch&data_typer=shoe&data_value=1":               `{"result":"ERROR","error":"parameter data_typer: unknown type"}`,
	} {
		require.Equal(t, want, get(t, e, "cat=device&action=get_device_id&object_type="+params).body, params)
	}
}

func TestSightings(t *testing.T) {
	e := small(t, Options{})
	const (
		on5 = `"mac":"00005E005301","port":"Gi0/5","vlan_id":100,"date_first":"2026-02-03 04:05:06","date_last":"1970-01-01 00:00:00"}`
		on7 = `"mac":"00005E005304","port":"Gi0/7","vlan_id":100,"date_first":"2026-02-03 04:05:06","date_last":"1970-01-01 00:00:00"}`
	)
	require.Equal(t, `{"result":"OK","data":[{"object_id":6001,`+on5+`,{"object_id":6001,`+on7+`]}`,
		get(t, e, "cat=device&action=get_mac_list&object_id=6001&interface_list=5,7").body)
	require.Len(t, at(t, decode(t, get(t, e, "cat=device&action=get_mac_list&object_id=6001").body), "data"), 3)
	require.Equal(t, `{"result":"OK","data":[]}`, get(t, e, "cat=device&action=get_mac_list&object_id=6003").body)
	require.Equal(t, `{"result":"OK","data":[{"device_id":6001,`+on5+`]}`, get(t, e, "cat=device&action=find_mac&mac=0000.5e00.5301").body)
	require.Equal(t, 400, get(t, e, "cat=device&action=find_mac&mac=zz").status)
}

func TestUserList(t *testing.T) {
	e := small(t, Options{})
	_, err := e.AddCustomer(Customer{ID: 1006, Potential: true, BillingUID: "506"})
	require.NoError(t, err)
	keys := func(params string) (out []string) {
		for k := range decode(t, get(t, e, "cat=module&request=get_user_list"+params).body).(map[string]any) {
			out = append(out, k)
		}
		return out
	}
	require.ElementsMatch(t, []string{"1001", "1002", "1003", "1004"}, keys(""))
	require.ElementsMatch(t, []string{"1001", "1002", "1003", "1004", "1006"}, keys("&is_with_potential=1"))
	require.ElementsMatch(t, []string{"502"}, keys("&customer_id=1002&is_id_billing_user_id=1"))
	require.Empty(t, keys("&billing_id=2"))
	// A member is what get_data gives.
	require.Equal(t, at(t, decode(t, get(t, e, "cat=customer&action=get_data&customer_id=1002").body), "data"),
		at(t, decode(t, get(t, e, "cat=module&request=get_user_list").body), "1002"))
	// cat=module takes request, not action.
	require.Equal(t, 400, get(t, e, "cat=module&action=get_user_list").status)
}

func TestModuleLists(t *testing.T) {
	e := small(t, Options{})
	module := func(params string) string { return get(t, e, "cat=module&request="+params).body }
	const (
		sw6   = `"6":[{"type":"customer","id":1002,"direction":0,"interface":1}]`
		c1002 = `"1002":{"0":{"1":[{"type":"switch","id":6001,"direction":0,"interface":6}]}}`
		cross = `"301":{"0":{"1":[{"type":"customer","id":1004,"direction":0,"interface":1}]},"1":{"1":[{"type":"switch","id":6001,"direction":0,"interface":7}]}}`
	)
	require.Equal(t, `{"customer":{`+c1002+`}}`, module("get_connect_list&object_type=customer&object_id=1002"))
	require.Equal(t, `{"cross":{`+cross+`}}`, module("get_connect_list&object_type=other"))
	require.Equal(t, `{"switch":{"6001":{"0":{"5":[{"type":"customer","id":1001,"direction":0,"interface":1}],`+sw6+
		`,"7":[{"type":"cross","id":301,"direction":1,"interface":1}]}}}}`, module("get_connect_list&object_type=switch"))
	all := module("get_connect_list")
	require.Contains(t, all, c1002)
	require.Contains(t, all, cross)
	require.Contains(t, all, sw6)
	require.Equal(t, `{}`, module("get_connect_list&object_id=9"))
	require.Contains(t, module("get_connect_list&object_type=shoe"), "parameter object_type: unknown type")

	require.Equal(t, `{"6001":{"id":6001,"type_id":1,"model_id":0,"ip":"10.0.0.2","mac":"00005e0053f0","house_id":0,"node_id":0,"entrance":0,"location":"",`+
		`"comment":"sw1","geo":"","date_activity":"2026-02-03 04:05:06","date_create":"1970-01-01 00:00:00","telnet_port":23,"snmp_version":2,"snmp_port":161,`+
		`"snmp_read_community":"secret-community","software_version":""},"6003":{"id":6003,"type_id":1,"model_id":0,"ip":"","mac":"","house_id":0,"node_id":0,"entrance":0,`+
		`"location":"","comment":"sw2","geo":"","date_activity":"2026-02-03 04:05:06","date_create":"1970-01-01 00:00:00","telnet_port":23,"snmp_version":2,`+
		`"snmp_port":161,"snmp_read_community":"","software_version":""}}`, module("get_device_list&device_type=switch"))
	require.Equal(t, `{}`, module("get_device_list&device_type=other"))
	require.Contains(t, module("get_device_list&device_type=shoe"), "parameter device_type: unknown type")

	require.Contains(t, module("get_tariff_list"), `"14":{"id":"14","name":"Офіс &amp; бізнес","payment":"900.00","payment_interval":30,"speed":{"up":204800,"down":204800},"traffic":-1,"service_type":"internet"}`)
	require.Contains(t, get(t, e, "cat=tariff&action=get").body, `"10":{"id":10,"name":"Домашній 50","amount":"150.00","billing_id":1,"billing_uuid":"10","tariff_group_id":1,"service_type":"internet"}`)
	require.Equal(t, `{"date":"2026-02-03 04:05:06","os":"Linux","billing":{"name":"usher emulator","version":"3.19.5"}}`, module("get_system_information"))
	require.Equal(t, `{"version":"1.1","date":"2015-10-19"}`, module("get_api_information"))
	require.NoError(t, e.SetQuirks(Quirks{MissingActions: []string{"module.get_user_list"}}))
	methods := module("get_supported_method_list")
	require.Contains(t, methods, `"get_tariff_list":{"comment":"get tariff list"}`)
	require.NotContains(t, methods, "get_user_list")

	require.Equal(t, reply{501, `{"result":"ERROR","error":"live polls of devices are not emulated"}`}, get(t, e, "cat=device&action=get_iface_info&object_id=6001"))
	require.Equal(t, `{"result":"OK","data":[]}`, get(t, e, "cat=device&action=get_ont_data&id=TEST0001").body)

	old := small(t, Options{Profile: ProfileLegacy})
	require.Contains(t, get(t, old, "cat=tariff&action=get").body, `"billing_ext_id":"10"`)
}
