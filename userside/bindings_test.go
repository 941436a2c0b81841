package userside

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(s string) MAC {
	m, err := ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// The row that every shape must give. 1681915914 is 100.64.0.10... written by inet_aton.
var wantRow = BindingRow{Customer: 1001, IP: ip("100.64.0.10"), MAC: mac("00:00:5e:00:53:01"), Device: 6918, Port: 5}

const (
	inet      = "1681915914" // 100.64.0.10
	inetNext  = "1681915915"
	secondMAC = "00:00:5e:00:53:02"
)

func TestCustomerBindingsShapes(t *testing.T) {
	withIP := func(r BindingRow) BindingRow { r.DeviceIP = ip("192.0.2.2"); return r }
	second := BindingRow{Customer: 1002, IP: ip("100.64.0.11"), MAC: mac(secondMAC), Device: 6918, Port: 6}
	tests := map[string]struct {
		data string // of {"result":"OK","data":...}
		doc  string // or the whole document
		want []BindingRow
	}{
		"A: list of flat rows": {
			data: `[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6918,"device_ip":"192.0.2.2","port":5}]`,
			want: []BindingRow{withIP(wantRow)}},
		"A: sequential list turned into an object": {
			data: `{"1":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5},
			        "3":{"customer_id":1002,"ip":1681915915,"mac":"00005E005302","device_id":"6918","port":"6"}}`,
			want: []BindingRow{wantRow, second}},
		"A: list turned into an object, without devices": {
			data: `{"0":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":null,"port":null},
			        "1":{"customer_id":1002,"ip":"1681915915","mac":"00005e005302"}}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC}, {Customer: 1002, IP: second.IP, MAC: second.MAC}}},
		"A: list that lost its first members, some without device": {
			data: `{"7":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5},
			        "9":{"customer_id":1002,"ip":"1681915915","mac":"00005e005302","device_id":null}}`,
			want: []BindingRow{wantRow, {Customer: 1002, IP: second.IP, MAC: second.MAC}}},
		"A: list that lost its first members, all without device": {
			data: `{"7":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"},"9":{"customer_id":1002,"ip":"1681915915","mac":"00005e005302"}}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC}, {Customer: 1002, IP: second.IP, MAC: second.MAC}}},
		"A: unlinked customer": {
			data: `[{"customer_id":1001,"ip":"100.64.0.10","mac":"","device_id":null,"port":0}]`,
			want: []BindingRow{{Customer: 1001, IP: ip("100.64.0.10")}}},
		"A: only a MAC": {
			data: `[{"customer_id":1001,"ip":"0","mac":"00005e005301"}]`,
			want: []BindingRow{{Customer: 1001, MAC: mac("00005e005301")}}},
		"A: nested customer and device": {
			data: `[{"customer":{"id":"1001"},"ip":1681915914,"mac":"0000.5e00.5301",
			        "device":{"id":6918,"host":"192.0.2.2","mac":"00005E00530A","name":"sw &quot;1&quot;"},"interface":5,"extra":{"a":[1]}}]`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 6918, DeviceIP: ip("192.0.2.2"),
				DeviceMAC: mac("00005e00530a"), DeviceName: `sw "1"`, Port: 5}}},
		"A: port is a name": {
			data: `[{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":"Gi0\/5","vlan":"120"}]`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 6918, PortName: "Gi0/5", VLAN: 120}}},
		"A: object_id counts with object_type switch only": {
			data: `[{"customer_id":1001,"ip":1681915914,"object_type":"switch","object_id":6918,"interface":5,"mac":"00005e005301"},
			        {"customer_id":1002,"ip":1681915915,"object_type":"fiber","object_id":6918,"mac":"00005e005302"}]`,
			want: []BindingRow{wantRow, {Customer: 1002, IP: ip("100.64.0.11"), MAC: mac(secondMAC)}}},
		"A: the payload is one row": {
			data: `{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":5}`,
			want: []BindingRow{wantRow}},
		"B: keyed by address": {
			data: `{"1681915914":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5}}`,
			want: []BindingRow{wantRow}},
		"B: address in the key only": {
			data: `{"1681915914":{"customer_id":1001,"mac":"00005e005301","device_id":6918,"port":5},
			        "100.64.0.11":{"customer_id":1002,"mac":"","device_id":6918,"port":6}}`,
			want: []BindingRow{wantRow, {Customer: 1002, IP: ip("100.64.0.11"), Device: 6918, Port: 6}}},
		"B: signed key of old PHP": {
			data: `{"-1062731510":{"customer_id":1001,"mac":"00005e005301"}}`,
			want: []BindingRow{{Customer: 1001, IP: ip("192.168.1.10"), MAC: wantRow.MAC}}},
		"C: keyed by customer, one row": {
			data: `{"1001":{"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5}}`,
			want: []BindingRow{wantRow}},
		"C: list of rows": {
			data: `{"1001":[{"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5}],
			        "1002":[{"ip":"1681915915","mac":"00005e005302","device_id":6918,"port":6}]}`,
			want: []BindingRow{wantRow, second}},
		"C: lists turned into objects": {
			data: `{"1001":{"0":{"ip":"1681915914","mac":"00005e005301","device_id":6918,"port":5},"1":{"ip":"1681915915","mac":"00005e005302"}}}`,
			want: []BindingRow{wantRow, {Customer: 1001, IP: second.IP, MAC: second.MAC}}},
		"C: ip_mac and commutation, counted": {
			data: `{"0":{"customer_id":1001,"ip_mac":[{"ip":"1681915914","mac":"00005e005301"}],"commutation":[]},
			        "1":{"customer_id":1002,"ip_mac":[{"ip":"1681915915","mac":"00005e005302"}],"commutation":[]}}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC}, {Customer: 1002, IP: second.IP, MAC: second.MAC}}},
		"C: rows that repeat the customer and have no device": {
			data: `{"1001":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"}],
			        "1002":[{"customer_id":1002,"ip":"1681915915","mac":"00005e005302"}]}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC}, {Customer: 1002, IP: second.IP, MAC: second.MAC}}},
		"C: ip_mac and commutation": {
			data: `{"1001":{"ip_mac":{"1681915914":{"ip":"1681915914","mac":"00005e005301"}},
			                "commutation":[{"object_type":"fiber","object_id":3},{"object_type":"switch","object_id":6918,"interface":5}]},
			        "1002":{"ip_mac":[],"commutation":[]}}`,
			want: []BindingRow{wantRow}},
		"C: two addresses on two ports": {
			data: `{"1001":{"ip_mac":[{"ip":"1681915914","mac":"00005e005301"},{"ip":"1681915915","mac":""}],
			                "commutation":{"0":{"object_type":"switch","object_id":6918,"interface":5},"2":{"object_type":"switch","object_id":7,"interface":1}}}}`,
			want: []BindingRow{wantRow, {Customer: 1001, IP: second.IP, Device: 6918, Port: 5},
				{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 7, Port: 1}, {Customer: 1001, IP: second.IP, Device: 7, Port: 1}}},
		"D: device, then port, then row": {
			data: `{"6918":{"5":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"}}}`,
			want: []BindingRow{wantRow}},
		"D: device, then port, then list": {
			data: `{"6918":{"5":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"}],
			                "6":[{"customer_id":1002,"ip":"1681915915","mac":"00005e005302"}]}}`,
			want: []BindingRow{wantRow, second}},
		"D: device with facts and ports": {
			data: `{"6918":{"ip":"192.0.2.2","mac":"00005e00530a","ports":{"5":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"}]}}}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 6918, Port: 5,
				DeviceIP: ip("192.0.2.2"), DeviceMAC: mac("00005e00530a")}}},
		"D: device, then list of rows with port": {
			data: `{"6918":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","port":5},
			                {"customer_id":6918,"ip":"1681915915","mac":"00005e005302","port":6}]}`,
			want: []BindingRow{wantRow, {Customer: 6918, IP: second.IP, MAC: second.MAC, Device: 6918, Port: 6}}},
		"D: device, then list of rows turned into an object": {
			data: `{"6918":{"0":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","port":5},
			                "1":{"customer_id":1002,"ip":"1681915915","mac":"00005e005302","port":6}}}`,
			want: []BindingRow{wantRow, second}},
		"D: device, then list, or a row where there is one": {
			data: `{"6918":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","port":5},
			                {"customer_id":1002,"ip":"1681915915","mac":"00005e005302","port":6}],
			        "7":{"customer_id":1003,"ip":"1681915916","port":1}}`,
			want: []BindingRow{wantRow, second, {Customer: 1003, IP: ip("100.64.0.12"), Device: 7, Port: 1}}},
		"D: port is a name": {
			data: `{"6918":{"Gi0/5":{"customer_id":1001,"ip":"1681915914","mac":"00005e005301"}}}`,
			want: []BindingRow{{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 6918, PortName: "Gi0/5"}}},
		"E: legacy names under Data": {
			doc:  `{"Result":"OK","Data":[{"usercode":"1001","userip":"1681915914","mac":"00005E005301","devcode":"6918","devip":"192.0.2.2","port":"5"}],"ErrorText":""}`,
			want: []BindingRow{withIP(wantRow)}},
		"E: legacy names under list": {
			doc:  `{"Result":"OK","list":[{"usercode":"1001","userip":"1681915914","mac":"00005E005301","device":"6918","host":"192.0.2.2","port":"5"}]}`,
			want: []BindingRow{withIP(wantRow)}},
		"E: upper-case columns beside the real ones": {
			doc:  `{"Result":"OK","data":[{"USERCODE":"1","USERIP":"0","MAC":"","usercode":"1001","userip":"1681915914","mac":"00005E005301","DEVCODE":"9","devcode":"6918","port":"5","PORT":"99"}]}`,
			want: []BindingRow{wantRow}},
		"E: only upper-case columns": {
			doc:  `{"Result":"OK","data":[{"USERCODE":"1001","USERIP":"1681915914","MAC":"00005E005301","DEVCODE":"6918","IFNUMBER":"5"}]}`,
			want: []BindingRow{wantRow}},
		"own key in place of data": {
			doc:  `{"result":"OK","customers":[{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":5}]}`,
			want: []BindingRow{wantRow}},
		"rows inside data": {
			doc:  `{"result":"OK","data":{"total":1,"rows":[{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":5}]}}`,
			want: []BindingRow{wantRow}},
		"result after data": {
			doc:  `{"Data":[{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":5}],"ErrorText":"","Result":"OK"}`,
			want: []BindingRow{wantRow}},
		"F: empty list":             {data: `[]`},
		"F: empty object":           {data: `{}`},
		"F: null":                   {data: `null`},
		"F: false":                  {data: `false`},
		"F: empty text":             {data: `""`},
		"F: no data":                {doc: `{"result":"OK"}`},
		"F: customers without rows": {data: `{"1001":[],"1002":{},"1003":null}`},
		"F: devices without ports":  {data: `{"6918":{"5":[]},"6919":[]}`},
		"rows without any address":  {data: `[{"customer_id":1001,"ip":"0","mac":"","device_id":6918}]`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			doc := tt.doc
			if doc == "" {
				doc = `{"result":"OK","data":` + tt.data + `}`
			}
			got, err := clientOf(t, doc).CustomerBindings(ctx)
			require.NoError(t, err)
			if diff := cmp.Diff(tt.want, got.Rows, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			require.Empty(t, got.Defects.First)
		})
	}
}

// Every alias of API page section 3.4.
func TestCustomerBindingsAliases(t *testing.T) {
	full := BindingRow{Customer: 1001, IP: wantRow.IP, MAC: wantRow.MAC, Device: 6918, DeviceIP: ip("192.0.2.2"),
		DeviceMAC: mac("00005e00530a"), Port: 5, PortName: "ge-0/0/5", VLAN: 120}
	base := map[string]any{"customer_id": 1001, "ip": inet, "mac": "00005e005301", "device_id": 6918, "device_ip": "192.0.2.2",
		"device_mac": "00005e00530a", "port": 5, "port_name": "ge-0/0/5", "vlan": 120}
	aliases := map[string][]string{
		"customer_id": {"usercode", "user_id", "userid", "abon_id", "codeabon", "customer"},
		"ip":          {"userip", "ip_address", "customer_ip", "user_ip"},
		"mac":         {"usermac", "customer_mac", "mac_address"},
		"device_id":   {"object_id", "switch_id", "commutator_id", "devcode", "dev_id", "device"},
		"device_ip":   {"host", "devip", "switch_ip", "dev_ip", "device_host"},
		"device_mac":  {"devmac", "switch_mac"},
		"port":        {"interface", "iface", "port_number", "ifNumber", "device_port"},
		"port_name":   {"ifName", "iface_name"},
		"vlan":        {"vlan_id", "vid"},
	}
	for canonical, others := range aliases {
		for _, alias := range append(others, canonical) {
			t.Run(alias, func(t *testing.T) {
				row := map[string]any{}
				for k, v := range base {
					row[k] = v
				}
				delete(row, canonical)
				row[alias] = base[canonical]
				if alias == "object_id" {
					row["object_type"] = "switch"
				}
				doc, err := json.Marshal(map[string]any{"result": "OK", "data": []any{row}})
				require.NoError(t, err)
				got, err := clientOf(t, string(doc)).CustomerBindings(ctx)
				require.NoError(t, err)
				require.Equal(t, []BindingRow{full}, got.Rows)
			})
		}
	}
}

func TestCustomerBindingsBadRows(t *testing.T) {
	const good = `{"customer_id":1001,"ip":1681915914,"mac":"00005e005301","device_id":6918,"port":5}`
	tests := map[string]struct {
		row   string
		where string
		what  string
		rows  int // that come out of the bad row
	}{
		"address wider than 32 bits":   {row: `{"customer_id":7,"ip":"4294967296"}`, where: "data[1].ip", what: "32-bit"},
		"address is a word":            {row: `{"customer_id":7,"ip":"n/a","mac":"00005e005302"}`, where: "data[1].ip", what: `"n/a"`},
		"address is IPv6":              {row: `{"customer_id":7,"ip":"2001:db8::1"}`, where: "data[1].ip", what: "IPv4"},
		"MAC too short, address stays": {row: `{"customer_id":7,"ip":1681915915,"mac":"00005e"}`, where: "data[1].mac", what: "6 hex digits", rows: 1},
		"MAC not hexadecimal":          {row: `{"customer_id":7,"ip":1681915915,"mac":"00005e00530g"}`, where: "data[1].mac", what: "hexadecimal", rows: 1},
		"no customer":                  {row: `{"ip":1681915915}`, where: "data[1]", what: "no customer"},
		"customer 0":                   {row: `{"customer_id":0,"ip":1681915915}`, where: "data[1]", what: "no customer"},
		"customer is a word":           {row: `{"customer_id":"x","ip":1681915915}`, where: "data[1].customer", what: "whole number"},
		"device is a word, row stays":  {row: `{"customer_id":7,"ip":1681915915,"device_id":"x"}`, where: "data[1].device", what: "whole number", rows: 1},
		"vlan out of range":            {row: `{"customer_id":7,"ip":1681915915,"vlan":5000}`, where: "data[1].vlan", what: "in range", rows: 1},
		"nothing recognisable":         {row: `{"foo":1}`, where: "data[1]", what: "neither"},
		"a number":                     {row: `5`, where: "data[1]", what: "number where a row is wanted"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":[`+good+`,`+tt.row+`]}`).CustomerBindings(ctx)
			require.NoError(t, err)
			require.Len(t, got.Rows, 1+tt.rows)
			require.Equal(t, wantRow, got.Rows[0])
			require.NotEmpty(t, got.Defects.First)
			require.Equal(t, tt.where, got.Defects.First[0].Where)
			require.Contains(t, got.Defects.First[0].What, tt.what)
		})
	}
}

// A switch's port list without customers must not become customers.
func TestCustomerBindingsGuessesNoCustomer(t *testing.T) {
	for name, data := range map[string]string{
		"device, port, row without customer": `{"6918":{"5":{"ip":"1681915914","mac":"00005e005301"}}}`,
		"device, rows with port":             `{"6918":[{"ip":"1681915914","mac":"00005e005301","port":5}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":`+data+`}`).CustomerBindings(ctx)
			require.NoError(t, err)
			require.Empty(t, got.Rows)
			require.Equal(t, 1, got.Defects.Count)
		})
	}
}

// Keys that count rows are no customers either.
func TestCustomerBindingsOfCountedRows(t *testing.T) {
	for name, data := range map[string]string{
		"rows":      `{"0":{"ip":"1681915914","mac":"00005e005301"},"1":{"ip":"1681915915","mac":"00005e005302","device_id":6918,"port":6}}`,
		"composite": `{"0":{"ip_mac":[{"ip":"1681915914"}],"commutation":[]},"1":{"ip_mac":[{"ip":"1681915915"}],"commutation":[]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":`+data+`}`).CustomerBindings(ctx)
			require.NoError(t, err)
			require.Empty(t, got.Rows)
			require.Equal(t, 2, got.Defects.Count)
		})
	}
}

func TestCustomerBindingsUnknownShape(t *testing.T) {
	for name, tt := range map[string]struct{ doc, print string }{
		"foreign rows":  {`{"result":"OK","data":[{"alpha":1,"beta":"ivanov@example.org"}]}`, "data[].alpha:number data[].beta:string"},
		"keyed":         {`{"result":"OK","data":{"1001":{"alpha":null}}}`, "data.#.alpha:null"},
		"list of texts": {`{"result":"OK","data":["a"]}`, "data[]:string"},
		"single value":  {`{"result":"OK","data":{"alpha":5}}`, "data.alpha:number"},
		"named keys":    {`{"result":"OK","data":{"ivanov77":{"alpha":true}}}`, "data.*.alpha:bool"},
		"no marker":     {`{"data":[{"customer_id":1,"ip":"10.0.0.1"}]}`, "data[].customer_id:number data[].ip:string"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := clientOf(t, tt.doc).CustomerBindings(ctx)
			e := errorOf(t, err, ErrUnknownShape)
			require.Equal(t, tt.print, e.Fingerprint)
			require.Contains(t, err.Error(), tt.print)
			require.NotContains(t, err.Error(), "ivanov")
		})
	}
}

// Rows of an answer that turns out to be an error are not given out.
func TestCustomerBindingsErrorAfterData(t *testing.T) {
	for _, doc := range []string{
		`{"data":[{"customer_id":1,"ip":"100.64.0.1"}],"Result":"ERROR","ErrorText":"too many"}`,
		`{"result":"OK","data":[{"customer_id":1,"ip":"100.64.0.1"}],"error":"too many"}`,
	} {
		got, err := clientOf(t, doc).CustomerBindings(ctx)
		require.Nil(t, got)
		require.Contains(t, errorOf(t, err, ErrRefused).Text, "too many")
	}
}

// However the stream is cut into reads, the rows are the same.
func TestCustomerBindingsAnyReads(t *testing.T) {
	doc := manyRows(300)
	for name, r := range map[string]io.Reader{
		"one byte":              iotest.OneByteReader(bytes.NewReader(doc)),
		"half":                  iotest.HalfReader(bytes.NewReader(doc)),
		"data and end together": iotest.DataErrReader(bytes.NewReader(doc)),
	} {
		t.Run(name, func(t *testing.T) {
			var d bindingDecoder
			a, err := readAnswer(newScanner(r), sink{member: d.member, descend: true})
			require.NoError(t, err)
			require.True(t, a.ok)
			d.finish()
			rows := d.out.bindings().Rows
			require.Len(t, rows, 300)
			require.True(t, slices.IsSortedFunc(rows, func(a, b BindingRow) int { return int(a.Customer - b.Customer) }))
		})
	}
}

func FuzzCustomerBindings(f *testing.F) {
	f.Add([]byte(`[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6918,"device_ip":"192.0.2.2","port":5}]`))
	f.Add([]byte(`{"6918":{"5":[{"customer_id":1001,"ip":"1681915914"}]}}`))
	f.Add([]byte(`{"1001":{"ip_mac":{"1":{"ip":"1","mac":""}},"commutation":[{"object_type":"switch","object_id":1,"interface":"a"}]}}`))
	f.Add([]byte(`{"-1":{"usercode":"1","userip":-1}}`))
	f.Add([]byte(`{"customer_id":1,"ip":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc := slices.Concat([]byte(`{"result":"OK","data":`), data, []byte(`}`))
		var d bindingDecoder
		_, err := readAnswer(newScanner(bytes.NewReader(doc)), sink{member: d.member, descend: true})
		d.finish()
		for r := range d.out.All() {
			if r.Customer <= 0 || r.Device < 0 || !r.IP.IsValid() && r.MAC == (MAC{}) || r.IP.IsValid() && !r.IP.Is4() {
				t.Fatalf("row %+v", r)
			}
		}
		if err == nil && !json.Valid(doc) {
			t.Fatal("accepted what is no JSON")
		}
	})
}
