package userside

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// compareAddr lets cmp look at addresses.
var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// The example of API page section 3.3 and the variants of its table.
func TestCustomer(t *testing.T) {
	const doc = `{"result":"OK","data":{"id":1001,"login":"u1001","full_name":"Test &quot;A&quot;","flag_corporate":0,
	 "balance":"12.50","credit":null,"discount":5,"state_id":2,"agreement":[{"number":"A-1","date":"2024-02-01 10:00:00"},{"number":null,"date":"01.02.2024"}],
	 "traffic":{"month":{"up":"7","down":0}},"date_create":"2024-02-01 10:00:05","date_connect":"1970-01-01",
	 "date_activity":"2025-03-01 08:00:00","date_activity_inet":"","date_positive_balance":null,"is_disable":0,
	 "address":[{"type":"connect","house_id":55,"apartment":{"number":"7"},"entrance":2,"floor":"3"}],
	 "is_in_billing":1,"billing_id":"501","billing":{"id":3,"uuid":"501"},"group":{"4":{"id":4}},"mark":[],"tag":{"9":{"date_add":"2024-01-01"}},
	 "tariff":{"current":{"0":{"id":"12","date_finish":"2025-01-01"}}},"account_number":"10000501",
	 "ip_mac":{"1681915914":{"ip":"1681915914","mac":"00005e005301"},"100.64.0.11":{"ip":1681915915,"mac":""},"2":{"ip":"0","mac":"00-00-5E-00-53-03"},"3":{"ip_net":"100.64.8.0\/24"},"1681915917":{"mac":null}},
	 "phone":[{"number":"380000000000","flag_main":1},{"number":""}],"email":{"0":{"address":"a@example.org"}},"comment":"a<br>b","comment2":"","manager_id":5,
	 "additional_customer_data":{"12":{"id":12,"name":"x","value":"v&amp;w"},"3":{"value":5}},"ID":"9","STATE_ID":"0"}}`
	want := Customer{
		ID: 1001, Login: "u1001", FullName: "Test &quot;A&quot;", State: Int{2, true}, Corporate: Bool{false, true},
		Disabled: Bool{false, true}, InBilling: Bool{true, true}, Balance: Float{12.5, true}, Discount: Float{5, true},
		Account: "10000501", BillingID: "501", BillingUUID: "501", Billing: Int{3, true}, ManagerID: 5, Comment: "a<br>b",
		Created: time.Date(2024, 2, 1, 10, 0, 5, 0, time.UTC), Active: time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC),
		TrafficUp: Int{7, true}, TrafficDown: Int{0, true},
		Addresses: []CustomerAddress{
			{IP: ip("100.64.0.10"), MAC: mac("00005e005301")}, {IP: ip("100.64.0.11")}, {MAC: mac("00005e005303")},
			{Net: "100.64.8.0/24"}, {IP: ip("100.64.0.13")},
		},
		Houses:     []House{{Type: "connect", HouseID: 55, Apartment: "7", Entrance: "2", Floor: "3"}},
		Agreements: []Agreement{{"A-1", time.Date(2024, 2, 1, 10, 0, 0, 0, time.UTC)}, {"", time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)}},
		Phones:     []Contact{{"380000000000", true}, {"", false}}, Emails: []Contact{{"a@example.org", false}},
		Tariffs: []Tariff{{"12", time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}}, Groups: IDs{4}, Tags: IDs{9},
		Additional: Map[String]{{"3", "5"}, {"12", "v&amp;w"}},
	}
	got, err := clientOf(t, doc).Customer(ctx, 1001)
	require.NoError(t, err)
	if diff := cmp.Diff(want, *got, compareAddr); diff != "" {
		t.Errorf("customer (-want +got):\n%s", diff)
	}
	require.Equal(t, `Test "A"`, got.FullName.Text())
}

func TestCustomerWithoutAddresses(t *testing.T) {
	for _, addresses := range []string{`[]`, `{}`, `null`, `""`, `false`, `{"1":null}`} {
		got, err := clientOf(t, `{"result":"OK","data":{"id":7,"state_id":0,"ip_mac":`+addresses+`}}`).Customer(ctx, 7)
		require.NoError(t, err)
		require.Empty(t, got.Addresses, addresses)
	}
}

func TestCustomersBadFields(t *testing.T) {
	for name, tt := range map[string]struct{ field, where, what string }{
		"state":         {`"state_id":"on"`, "data.state_id", "whole number"},
		"date":          {`"date_create":"soon"`, "data.date_create", "not a date"},
		"address":       {`"ip_mac":{"1":{"ip":"300.1.1.1"}}`, "data.ip_mac[0].ip", "IPv4"},
		"mac":           {`"ip_mac":[{"ip":"1","mac":"zz"}]`, "data.ip_mac[0].mac", "2 hex digits"},
		"address list":  {`"ip_mac":"100.64.0.1"`, "data.ip_mac", "string where a list"},
		"address entry": {`"ip_mac":["100.64.0.1"]`, "data.ip_mac[0]", "string where an object"},
		"name":          {`"full_name":{"a":1}`, "data.full_name", "object where a text"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":{"id":7,"login":"u7",`+tt.field+`}}`).Customers(ctx, []int64{7})
			require.NoError(t, err)
			require.Len(t, got.Customers, 1)
			require.Equal(t, String("u7"), got.Customers[0].Login)
			require.Len(t, got.Defects.First, 1)
			require.Equal(t, tt.where, got.Defects.First[0].Where)
			require.Contains(t, got.Defects.First[0].What, tt.what)
		})
	}
}

func TestCustomersNothingRecognised(t *testing.T) {
	_, err := clientOf(t, `{"result":"OK","data":{"a":"b","c":{"d":1}}}`).Customers(ctx, []int64{7, 8})
	require.Equal(t, "data.a:string data.c.d:number", errorOf(t, err, ErrUnknownShape).Fingerprint)
}

func TestCustomersOfNobody(t *testing.T) {
	got, err := clientOf(t, `x`).Customers(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, got.Customers)
}

func TestDefectsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"result":"OK","data":[{"customer_id":1,"ip":5}`)
	for range 3000 {
		b.WriteString(`,{"customer_id":1,"ip":"x"}`)
	}
	got, err := clientOf(t, b.String()+`]}`).CustomerBindings(ctx)
	require.NoError(t, err)
	require.Equal(t, 3000, got.Defects.Count)
	require.Len(t, got.Defects.First, maxRowErrors)
	require.Equal(t, `data[1].ip: "x" is not an IPv4 address`, got.Defects.First[0].Error())
}

// "dotted and colon form first; on not found try decimal and bare hex once"
func TestFindCustomersTriesTheOtherSpelling(t *testing.T) {
	for _, tt := range []struct {
		by          Lookup
		what        string
		first, then string
	}{
		{LookupIP, "100.64.0.10", "100.64.0.10", "1681915914"},
		{LookupIP, "1681915914", "100.64.0.10", "1681915914"},
		{LookupMAC, "00005E-005301", "00:00:5e:00:53:01", "00005e005301"},
	} {
		s := newTestServer(t, answerWith(200, `{"result":"ERROR"}`), answerWith(200, `{"result":"OK","Id":7}`))
		got, err := newTestClient(t, s).FindCustomers(ctx, tt.by, tt.what, false)
		require.NoError(t, err)
		require.Equal(t, IDs{7}, got)
		require.Equal(t, tt.first, s.seen()[0].arg("data_value"))
		require.Equal(t, tt.then, s.seen()[1].arg("data_value"))
		require.False(t, s.seen()[0].query.Has("is_skip_old"))
	}
	s := newTestServer(t, answerWith(500, ``))
	_, err := newTestClient(t, s).FindCustomers(ctx, LookupIP, "100.64.0.10", false)
	requireKind(t, err, ErrUnavailable)
	require.Len(t, s.seen(), 1, "only not found leads to the other spelling")
}

func TestCustomerFilter(t *testing.T) {
	day := time.Date(2024, 3, 1, 23, 0, 0, 0, time.UTC)
	got := CustomerFilter{
		State: new(0), BalanceFrom: new(-1e12), BalanceTo: new(10.5), BillingID: 2, BillingUUID: "u", AccountNumber: "a", HouseID: 3, AddressUnitID: 4,
		Apartment: "7", ConnectedFrom: day, ConnectedTo: day, DependsOnDevice: 5, MarkID: 6, TariffID: 7, ManagerID: new(int64(0)),
		Corporate: new(true), Former: new(false), Name: "n", NameLike: true,
	}.values(time.FixedZone("server", 2*3600))
	require.Equal(t, "account_number=a&address_unit_id=4&appartment=7&balance_from=-1000000000000&balance_to=10.5&billing_id=2&billing_uuid=u&"+
		"date_connect_from=2024-03-02&date_connect_to=2024-03-02&dependence_device_id=5&house_id=3&is_corporate=1&is_ex=0&is_like=1&manager_id=0&"+
		"mark_id=6&name=n&state_id=0&tariff_id=7", got.Encode())
}

func TestCustomerCommutation(t *testing.T) {
	port := func(n uint32) Link {
		return Link{ObjectType: "switch", ObjectID: 6918, Port: n, Direction: 1, ConnectID: 77, Comment: "c"}
	}
	for name, tt := range map[string]struct {
		data string
		want []CustomerLinks
	}{
		"keyed by customer": {
			`{"1001":[{"object_type":"switch","object_id":6918,"direction":1,"interface":5,"comment":"c","connect_id":77}],"1002":[]}`,
			[]CustomerLinks{{1001, []Link{port(5)}}}},
		"numeric texts, keyed links": {
			`{"1001":{"0":{"object_type":"switch","object_id":"6918","direction":"1","interface":"5","comment":"c","connect_id":"77"}}}`,
			[]CustomerLinks{{1001, []Link{port(5)}}}},
		"list in place of keys 0..n": {
			`[[],[{"object_type":"switch","object_id":6918,"direction":1,"interface":5,"comment":"c","connect_id":77}]]`,
			[]CustomerLinks{{1, []Link{port(5)}}}},
		"one link without a list": {
			`{"1001":{"object_type":"fiber","object_id":3,"object_uuid":"x-1","interface":"A1","length_by_cable":100}}`,
			[]CustomerLinks{{1001, []Link{{ObjectType: "fiber", ObjectID: 3, ObjectUUID: "x-1", PortName: "A1"}}}}},
		"nobody": {`[]`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK","data":`+tt.data+`}`))
			got, err := newTestClient(t, s).CustomerCommutation(ctx)
			require.NoError(t, err)
			require.Equal(t, tt.want, got.Customers)
			require.Zero(t, got.Defects.Count, got.Defects.First)
			require.Equal(t, "customer", s.seen()[0].arg("object_type"))
			require.Empty(t, s.seen()[0].arg("object_id"))
		})
	}
	got, err := clientOf(t, `{"result":"OK","data":{"1001":[{"object_type":"switch","object_id":"x"},{"interface":3},{"object_type":"switch","object_id":1,"interface":-4}]}}`).CustomerCommutation(ctx)
	require.NoError(t, err)
	require.Equal(t, []CustomerLinks{{1001, []Link{{ObjectType: "switch", ObjectID: 1}}}}, got.Customers)
	require.Equal(t, []RowError{
		{"data.1001[0].object_id", `"x" is not a whole number`}, {"data.1001[1]", "link without object_id"},
		{"data.1001[2].interface", `"-4" is not a port number`},
	}, got.Defects.First)
	_, err = clientOf(t, `{"result":"OK","data":{"alpha":[{"beta":1}]}}`).CustomerCommutation(ctx)
	require.Equal(t, "data.alpha[].beta:number", errorOf(t, err, ErrUnknownShape).Fingerprint)
}

func TestCustomerChain(t *testing.T) {
	end := Link{ObjectType: "switch", ObjectID: 6918, Port: 5}
	fibre := []Link{{ObjectType: "fiber", ObjectID: 3}}
	for name, tt := range map[string]struct {
		data   string
		links  []Link
		finish *Link
	}{
		"finish beside numeric keys": {`{"0":{"object_type":"fiber","object_id":3},"finish":{"object_type":"switch","object_id":6918,"interface":5}}`, fibre, &end},
		"finish is a list":           {`{"0":{"object_type":"fiber","object_id":3},"finish":[{"object_type":"switch","object_id":6918,"interface":5}]}`, fibre, &end},
		"by port":                    {`{"1":{"finish":{"object_type":"switch","object_id":6918,"interface":5}}}`, nil, &end},
		"ends nowhere":               {`{"0":{"object_type":"fiber","object_id":3}}`, fibre, nil},
		"plain list":                 {`[{"object_type":"fiber","object_id":3}]`, fibre, nil},
		"nothing":                    {`[]`, nil, nil},
		"null":                       {`null`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"result":"OK","data":`+tt.data+`}`))
			got, err := newTestClient(t, s).CustomerChain(ctx, 1001)
			require.NoError(t, err)
			require.Equal(t, &Chain{Links: tt.links, Finish: tt.finish}, got)
			require.Equal(t, "1001", s.seen()[0].arg("object_id"))
			require.Equal(t, "1", s.seen()[0].arg("is_finish_data"))
		})
	}
}

// A captured row of an old server repeats columns in upper case with other values.
func TestLoosenessDevicesExactKeys(t *testing.T) {
	const row = `{"ID":"1","MAC":"","HOST":"192.0.2.99","SNMP_PORT":0,"id":6918,"name":"sw &amp; co","ip":"3221225986","host":"192.0.2.2","mac":"00005E00530A",
	 "snmp_port":161,"is_online":1,"activity_time":"2025-03-01 08:00:00",
	 "ifaces":{"2":{"ifIndex":"1002","ifType":6,"ifName":"ge-0\/0\/2","ifNumber":"2"},"1":{"ifIndex":1001,"ifName":"ge-0\/0\/1","ifNumber":1},"x":{"ifName":"lo0"},"y":null},"Id":"3","IP":"0"}`
	want := Device{ID: 6918, Name: "sw &amp; co", IP: ip("192.0.2.2"), Host: "192.0.2.2", MAC: mac("00005e00530a"), Online: Bool{true, true},
		Active: time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC),
		Ifaces: []Iface{{1, "ge-0/0/1", 1001, 0}, {2, "ge-0/0/2", 1002, 6}}}
	for name, tt := range map[string]struct {
		data   string
		filter DeviceFilter
		args   string
	}{
		"keyed":                {`{"6918":` + row + `}`, DeviceFilter{}, "all"},
		"list":                 {`[` + row + `]`, DeviceFilter{ObjectType: "switch", HideIfaces: true}, "switch"},
		"one, keyed":           {`{"6918":` + row + `}`, DeviceFilter{ObjectID: 6918}, "all"},
		"one, without its key": {row, DeviceFilter{ObjectID: 6918}, "all"},
		"id in the key only":   {`{"6918":` + strings.Replace(row, `"id":6918,`, ``, 1) + `}`, DeviceFilter{}, "all"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, answerWith(200, `{"Result":"OK","data":`+tt.data+`}`))
			got, err := newTestClient(t, s).Devices(ctx, tt.filter)
			require.NoError(t, err)
			if diff := cmp.Diff([]Device{want}, got.Devices, compareAddr); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			seen := s.seen()[0]
			require.Equal(t, "1", seen.arg("is_hide_access_data"), "passwords are never asked for")
			require.Equal(t, tt.args, seen.arg("object_type"))
			require.Equal(t, tt.filter.HideIfaces, seen.arg("is_hide_ifaces_data") == "1")
		})
	}
}

func TestDevicesVariants(t *testing.T) {
	for name, tt := range map[string]struct {
		row  string
		want Device
	}{
		"host is a name":    {`{"id":1,"host":"sw1.example","ip":"3221225986"}`, Device{ID: 1, Host: "sw1.example", IP: ip("192.0.2.2")}},
		"ip null":           {`{"id":1,"host":"","ip":null,"mac":null}`, Device{ID: 1}},
		"signed ip":         {`{"id":"1","ip":"-1073741310"}`, Device{ID: 1, IP: ip("192.0.2.2")}},
		"old name":          {`{"id":1,"nazv":"old"}`, Device{ID: 1, Name: "old"}},
		"model":             {`{"id":1,"model":"D-Link &quot;DES-3200&quot;"}`, Device{ID: 1, Model: `D-Link "DES-3200"`}},
		"model as object":   {`{"id":1,"model":{"id":4,"name":"DES-3200"}}`, Device{ID: 1, Model: "DES-3200"}},
		"model by its name": {`{"id":1,"model":"","model_name":"DES-3200"}`, Device{ID: 1, Model: "DES-3200"}},
		"model by number":   {`{"id":1,"model":4,"model_id":4}`, Device{ID: 1}},
		"model of no shape": {`{"id":1,"model":["DES-3200"]}`, Device{ID: 1}},
		"list of ifaces":    {`{"id":1,"ifaces":[{"ifNumber":3,"ifName":"3"}]}`, Device{ID: 1, Ifaces: []Iface{{Number: 3, Name: "3"}}}},
		"number in the key": {`{"id":1,"ifaces":{"7":{"ifName":"p7"}}}`, Device{ID: 1, Ifaces: []Iface{{Number: 7, Name: "p7"}}}},
		"no ifaces":         {`{"id":1,"ifaces":[]}`, Device{ID: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, `{"result":"OK","data":{"1":`+tt.row+`}}`).Devices(ctx, DeviceFilter{})
			require.NoError(t, err)
			require.Empty(t, cmp.Diff([]Device{tt.want}, got.Devices, compareAddr))
		})
	}
	got, err := clientOf(t, `{"result":"OK","data":{"1":{"id":1,"mac":"zz"},"2":5,"x":{"name":"no id"},"3":[]}}`).Devices(ctx, DeviceFilter{})
	require.NoError(t, err)
	require.Len(t, got.Devices, 1)
	require.Equal(t, []RowError{{"data.1.mac", `"zz" is not a MAC: 2 hex digits, not 12`}, {"data.2", "number where a device is wanted"}, {"data.x", "device without id"}}, got.Defects.First)
	got, err = clientOf(t, `{"result":"OK","data":[]}`).Devices(ctx, DeviceFilter{})
	require.NoError(t, err)
	require.Empty(t, got.Devices)
	_, err = clientOf(t, `{"result":"OK","data":{"alpha":{"beta":1}}}`).Devices(ctx, DeviceFilter{})
	requireKind(t, err, ErrUnknownShape)
}

func TestSystemInfo(t *testing.T) {
	want := SystemInfo{Version: "3.21", Time: time.Date(2025, 3, 1, 8, 0, 0, 0, time.UTC), DateTime: "2025-03-01 08:00:00", OS: "Linux", PHPVersion: "8.2"}
	const members = `"erp_version":"3.21","date_time_unix":"1740816000","date_time_string":"2025-03-01 08:00:00","os":"Linux","php_version":"8.2"`
	for name, doc := range map[string]string{
		"in data": `{"result":"OK","data":{` + members + `}}`, "beside the marker": `{"Result":"OK",` + members + `}`, "own key": `{"result":"OK","info":{` + members + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clientOf(t, doc).SystemInfo(ctx)
			require.NoError(t, err)
			require.Equal(t, want, *got)
		})
	}
	_, err := clientOf(t, `{"result":"OK","data":{"x":1}}`).SystemInfo(ctx)
	requireKind(t, err, ErrUnknownShape)
}

func TestWritesSucceed(t *testing.T) {
	for _, doc := range []string{`{"result":"OK"}`, `{"Result":"OK","ErrorText":""}`, `{"result":true,"data":[]}`, `{"result":"OK","data":{"x":1},"error":null}`} {
		c := clientOf(t, doc)
		require.NoError(t, c.SetMACByIP(ctx, ip("100.64.0.10"), mac("00005e005301")), doc)
		require.NoError(t, c.ChangeState(ctx, 1001, 2), doc)
	}
}

func FuzzDevicesAndLinks(f *testing.F) {
	f.Add([]byte(`{"1":{"id":1,"ifaces":{"1":{"ifNumber":1,"ifName":"a"}}}}`))
	f.Add([]byte(`{"1":[{"object_type":"switch","object_id":1,"interface":"x"}],"finish":{"object_type":"switch","object_id":2}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, ok := tryParse(doc)
		if !ok {
			return
		}
		var d Defects
		for _, l := range readLinks(v, nil, &d) {
			if l.Port > 1<<31 {
				t.Fatalf("link %+v", l)
			}
		}
		r := recordReader{v: v, defects: &d, loc: time.UTC}
		for i, iface := range r.device(map[string]string{}).Ifaces {
			if iface.Number == 0 {
				t.Fatal(fmt.Sprint("interface without number at ", i))
			}
		}
		_ = r.customer()
		for _, e := range d.First {
			if len(e.What) > 400 {
				t.Fatalf("unbounded: %q", e.What)
			}
		}
	})
}
