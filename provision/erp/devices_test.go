package erp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

const (
	deviceList = "device.get_data?is_hide_access_data=1&object_type=all"
	oneDevice  = "device.get_data?is_hide_access_data=1&object_id=%d"
)

// tenSwitches is an ERP of ten switches with ten customers each.
func tenSwitches() map[string]string { return manyCustomers(100) }

// manyCustomers is an ERP of n customers, ten on each switch, of which there are ten.
func manyCustomers(n int) map[string]string {
	var rows, active []string
	for i := range n {
		rows = append(rows, fmt.Sprintf(`{"customer_id":%d,"ip":%d,"device_id":%d,"port":%d}`, i+1, 1681915905+i, 10+i/10, 1+i%10))
		active = append(active, fmt.Sprint(i+1))
	}
	rules := with(good(), "customer.get_ip_port_device_commutation", `200 {"result":"OK","data":[`+strings.Join(rows, ",")+`]}`,
		list2, `200 {"result":"OK","data":[`+strings.Join(active, ",")+`]}`, list1, ids(), list0, ids(), deviceList, switches(10, nil))
	for i := range 10 {
		rules[fmt.Sprintf(oneDevice, 10+i)] = switches(10, func(n int) bool { return n == i })
	}
	return rules
}

// switches is a list of those of n switches that are wanted, all where wanted is nil.
func switches(n int, wanted func(int) bool) string {
	var list []string
	for i := range n {
		if wanted == nil || wanted(i) {
			list = append(list, fmt.Sprintf(`"%d":{"id":%d,"name":"sw-%d","host":"192.0.2.%d","mac":"00005E0053%02X","ifaces":{"1":{"ifNumber":1,"ifName":"ge1"}}}`, 10+i, 10+i, 10+i, 10+i, 10+i))
		}
	}
	return `200 {"result":"OK","data":{` + strings.Join(list, ",") + `}}`
}

func TestDevicesAreRemembered(t *testing.T) {
	all := func() []provision.Device {
		_, c := newFakeERP(t, tenSwitches())
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		return fetch(t, f, nil).Devices
	}()
	require.Len(t, all, 10)
	less := func(n int) func(int) bool { return func(i int) bool { return i >= n } }
	one := func(i int) string { return fmt.Sprintf(oneDevice, 10+i) }
	nobody := `200 {"result":"OK","data":[]}`
	other := strings.NewReplacer(`"mac":"00005E0053`, `"mac":"02005E0053`).Replace
	tests := map[string]struct {
		change    []string                 // rules after the first fetch
		judgement []syncer.SourceJudgement // of the fetches after it
		want      []provision.Device       // after them
		says      string
	}{
		"refused":                              {[]string{deviceList, refused}, []syncer.SourceJudgement{syncer.JudgedFailed, syncer.JudgedFailed}, all, "Unknown Action"},
		"down":                                 {[]string{deviceList, "500 x"}, []syncer.SourceJudgement{syncer.JudgedFailed}, all, "unavailable"},
		"empty":                                {[]string{deviceList, nobody, "device.get_data", nobody}, []syncer.SourceJudgement{syncer.JudgedHeld, syncer.JudgedHeld, syncer.JudgedHeld}, all, "the list is empty"},
		"half of them":                         {[]string{deviceList, switches(10, less(5)), "device.get_data", nobody}, []syncer.SourceJudgement{syncer.JudgedHeld, syncer.JudgedHeld, syncer.JudgedHeld}, all, "lacks 5 devices that bindings name, with 50 of 100 rows"},
		"one lacks that the ERP has":           {[]string{deviceList, switches(10, less(1))}, []syncer.SourceJudgement{syncer.JudgedPartial, syncer.JudgedPartial, syncer.JudgedPartial}, all, "lacks 1 of 10"},
		"one lacks and cannot be asked for":    {[]string{deviceList, switches(10, less(1)), one(0), "500 x"}, []syncer.SourceJudgement{syncer.JudgedPartial, syncer.JudgedPartial, syncer.JudgedPartial}, all, "asked for by themselves"},
		"one is gone, said once":               {[]string{deviceList, switches(10, less(1)), one(0), nobody}, []syncer.SourceJudgement{syncer.JudgedPartial}, all, "lacks 1 of 10"},
		"one is gone, said twice":              {[]string{deviceList, switches(10, less(1)), one(0), nobody}, []syncer.SourceJudgement{syncer.JudgedPartial, syncer.JudgedGood}, all[1:], ""},
		"all without MACs":                     {[]string{deviceList, strings.ReplaceAll(switches(10, nil), "mac", "nomac"), "device.get_data", strings.ReplaceAll(switches(10, nil), "mac", "nomac")}, []syncer.SourceJudgement{syncer.JudgedHeld, syncer.JudgedHeld}, all, "10 devices with 100 of 100 rows would lose"},
		"other MACs that look-ups do not tell": {[]string{deviceList, other(switches(10, nil))}, []syncer.SourceJudgement{syncer.JudgedHeld, syncer.JudgedHeld}, all, "would get another MAC"},
		"an eleventh one":                      {[]string{deviceList, switches(11, nil)}, []syncer.SourceJudgement{syncer.JudgedGood}, append(all[:10:10], provision.Device{ID: 20, Name: "sw-20", MAC: provision.MAC{0, 0, 0x5e, 0, 0x53, 20}, IP: all[0].IP.Next().Next().Next().Next().Next().Next().Next().Next().Next().Next()}), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, c := newFakeERP(t, tenSwitches())
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			first := fetch(t, f, nil)
			prev, _ := provision.Build(first)
			for i := 0; i < len(tt.change); i += 2 {
				if tt.change[i] == "device.get_data" {
					for n := range 10 {
						e.set(one(n), tt.change[i+1])
					}
					continue
				}
				e.set(tt.change[i], tt.change[i+1])
			}
			var in provision.Input
			for i, want := range tt.judgement {
				in = fetch(t, f, prev)
				st := statusOf(t, f, syncer.SourceDevices)
				require.Equal(t, want, st.Judgement, "fetch %d: %s", i, st.Error)
				require.Contains(t, st.Error, tt.says[:len(tt.says)*min(1, len(st.Error))])
			}
			require.Equal(t, tt.want, in.Devices)
			if len(tt.want) >= len(all) {
				require.Equal(t, first.Lines, in.Lines, "with the names of their ports")
			}
		})
	}
	t.Run("all with other MACs, as look-ups tell too", func(t *testing.T) {
		e, c := newFakeERP(t, tenSwitches())
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		prev, _ := provision.Build(fetch(t, f, nil))
		e.set(deviceList, other(switches(10, nil)))
		for n := range 10 {
			e.set(one(n), other(switches(10, func(i int) bool { return i == n })))
		}
		require.Equal(t, provision.MAC{2, 0, 0x5e, 0, 0x53, 10}, fetch(t, f, prev).Devices[0].MAC)
		require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceDevices).Judgement)
	})
	t.Run("a stored snapshot of a version that kept no list", func(t *testing.T) {
		e, c := newFakeERP(t, tenSwitches())
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		first := fetch(t, f, nil)
		prev, _ := provision.Build(first)
		e.set(deviceList, "502 x")
		again, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		in := fetch(t, again, prev)
		require.Equal(t, all, in.Devices)
		require.Equal(t, first.Lines, in.Lines)
	})
	t.Run("nobody's switch is forgotten", func(t *testing.T) {
		rules := tenSwitches()
		e, c := newFakeERP(t, with(rules, deviceList, switches(12, nil)))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		prev, _ := provision.Build(fetch(t, f, nil))
		require.Len(t, prev.Devices(), 12)
		e.set(deviceList, switches(10, nil))
		require.Equal(t, all, fetch(t, f, prev).Devices)
		require.Equal(t, syncer.JudgedGood, statusOf(t, f, syncer.SourceDevices).Judgement)
	})
}

// Limits of nothing are limits, and not the usual ones.
func TestLimitsOfZero(t *testing.T) {
	_, c := newFakeERP(t, good())
	for _, tt := range []struct {
		moved   *float64
		changed *int
		n, all  int
		want    bool
	}{
		{nil, nil, 21, 100, true}, {nil, nil, 20, 100, false}, {nil, nil, 21, 1000, false},
		{new(0.0), nil, 21, 1000, true}, {new(0.0), nil, 20, 1000, false},
		{nil, new(0), 11, 100, true}, {nil, new(0), 1, 5, true}, {nil, new(0), 1, 100, false},
		{new(0.0), new(0), 1, 1000, true}, {new(0.0), new(0), 0, 1000, false},
	} {
		f, _ := newFetcher(t, c, Options{MaxMoved: tt.moved, MinChanged: tt.changed})
		require.Equal(t, tt.want, f.tooMany(tt.n, tt.all), "%+v", tt)
	}
	_, err := New(c, Options{MinChanged: new(-1)})
	require.ErrorContains(t, err, "negative")
}

// Numbers of ports whose names a list does not tell any more, or tells otherwise, are what clients are found by: half of the ports
// of each switch is half of the customers.
func TestPortsOfSwitches(t *testing.T) {
	list := func(n int, want func(int) bool, name func(port int) int) string {
		var all []string
		for d := range n {
			if want != nil && !want(d) {
				continue
			}
			var ports []string
			for p := 1; p <= 10; p++ {
				if as := name(p); as > 0 {
					ports = append(ports, fmt.Sprintf(`"%d":{"ifNumber":%d,"ifName":"ge-0/0/%d"}`, p, p, as))
				}
			}
			all = append(all, fmt.Sprintf(`"%d":{"id":%d,"name":"sw-%d","host":"192.0.2.%d","mac":"00005E0053%02X","ifaces":{%s}}`, 10+d, 10+d, 10+d, 10+d, 10+d, strings.Join(ports, ",")))
		}
		return `200 {"result":"OK","data":{` + strings.Join(all, ",") + `}}`
	}
	same := func(p int) int { return p }
	half := func(p int) int { return max(p-5, 0) / max(p-5, 1) * p }
	shifted := func(p int) int { return p%10 + 1 }
	few := func(p int) int { return map[bool]int{true: 0, false: p}[p == 10] }
	found := func(in provision.Input) int {
		s, _ := provision.Build(in)
		n := 0
		for d := range 10 {
			for p := 1; p <= 10; p++ {
				lines := s.ByPortName(provision.DeviceID(10+d), fmt.Appendf(nil, "ge-0/0/%d", p))
				for l := range lines.All() {
					if l.Port == uint32(p) {
						n++
					}
				}
			}
		}
		return n
	}
	for name, tt := range map[string]struct {
		ports     func(int) int
		confirmed bool // by single look-ups
		want      int
		judgement syncer.SourceJudgement
	}{
		"the same":                       {same, true, 100, syncer.JudgedGood},
		"half of them":                   {half, false, 100, syncer.JudgedHeld},
		"half of them, look-ups too":     {half, true, 100, syncer.JudgedHeld},
		"one of each":                    {few, true, 90, syncer.JudgedGood},
		"other names":                    {shifted, false, 100, syncer.JudgedHeld},
		"other names, and look-ups, too": {shifted, true, 0, syncer.JudgedGood},
	} {
		t.Run(name, func(t *testing.T) {
			rules := with(tenSwitches(), deviceList, list(10, nil, same))
			e, c := newFakeERP(t, rules)
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			in := fetch(t, f, nil)
			require.Equal(t, 100, found(in))
			prev, _ := provision.Build(in)
			e.set(deviceList, list(10, nil, tt.ports))
			for d := range 10 {
				told := same
				if tt.confirmed {
					told = tt.ports
				}
				e.set(fmt.Sprintf(oneDevice, 10+d), list(10, func(i int) bool { return i == d }, told))
			}
			for range 2 {
				require.Equal(t, tt.want, found(fetch(t, f, prev)))
				st := statusOf(t, f, syncer.SourceDevices)
				require.Equal(t, tt.judgement, st.Judgement, st.Error)
			}
		})
	}
}

// Two switches that carry all customers lose nothing, and get no other MAC, by a list that single look-ups contradict.
func TestListOfTwoSwitches(t *testing.T) {
	rules := func() map[string]string {
		var rows, active []string
		for i := range 100 {
			rows = append(rows, fmt.Sprintf(`{"customer_id":%d,"ip":%d,"device_id":%d,"port":1}`, i+1, 1681915905+i, 10+i%2))
			active = append(active, fmt.Sprint(i+1))
		}
		return with(good(), "customer.get_ip_port_device_commutation", `200 {"result":"OK","data":[`+strings.Join(rows, ",")+`]}`,
			list2, `200 {"result":"OK","data":[`+strings.Join(active, ",")+`]}`, list1, ids(), list0, ids(), deviceList, switches(2, nil))
	}
	for name, spoil := range map[string]*strings.Replacer{
		"without MACs":    strings.NewReplacer(`"mac":`, `"nomac":`),
		"without ports":   strings.NewReplacer(`"ifaces":`, `"noifaces":`),
		"with other MACs": strings.NewReplacer(`"mac":"00005E0053`, `"mac":"02005E0053`),
	} {
		for _, confirmed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, confirmed %t", name, confirmed), func(t *testing.T) {
				e, c := newFakeERP(t, rules())
				f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
				first := fetch(t, f, nil)
				prev, _ := provision.Build(first)
				e.set(deviceList, spoil.Replace(switches(2, nil)))
				for n := range 2 {
					one := switches(2, func(i int) bool { return i == n })
					if confirmed {
						one = spoil.Replace(one)
					}
					e.set(fmt.Sprintf(oneDevice, 10+n), one)
				}
				in := fetch(t, f, prev)
				st := statusOf(t, f, syncer.SourceDevices)
				if confirmed {
					require.Equal(t, syncer.JudgedGood, st.Judgement, st.Error)
					return
				}
				require.Equal(t, syncer.JudgedHeld, st.Judgement)
				require.Contains(t, st.Error, "2 devices with 100 of 100 rows would")
				require.Equal(t, first.Devices, in.Devices)
				require.Equal(t, first.Lines, in.Lines, "with the names of their ports")
			})
		}
	}
}
