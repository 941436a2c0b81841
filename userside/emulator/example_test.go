package emulator_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/usher-agent/usher/userside/emulator"
)

// A network of one switch and one customer, made by hand and asked over HTTP.
func Example() {
	erp, err := emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: "demo"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer erp.Close()
	sw, _ := erp.AddDevice(emulator.Device{Name: "sw1", IP: netip.MustParseAddr("10.0.0.2"),
		MAC: emulator.MAC{0x00, 0x00, 0x5e, 0x00, 0x53, 0xf0}, Ports: []emulator.Port{{Number: 1, Index: 1, Name: "1/1"}}})
	id, _ := erp.AddCustomer(emulator.Customer{Login: "flat7", State: emulator.StateActive,
		Addresses: []emulator.Address{{IP: netip.MustParseAddr("100.64.0.10")}},
		Links:     []emulator.Link{{Device: sw, Port: 1}}})

	api := httptest.NewServer(erp)
	defer api.Close()
	call := func(params string) {
		resp, err := http.PostForm(api.URL+"/api.php?key=demo&cat=customer&action="+params, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		fmt.Println(string(b))
	}
	call("set_mac_by_ip&ip=100.64.0.10&mac=00:00:5e:00:53:01")
	call("get_ip_port_device_commutation")
	call(fmt.Sprintf("state_change&customer_id=%d&state_id=7", id))
	// Output:
	// {"result":"OK"}
	// {"result":"OK","data":[{"customer_id":1001,"ip":"1681915914","mac":"00005e005301","device_id":6001,"device_ip":"10.0.0.2","port":1}]}
	// {"result":"ERROR","error":"parameter state_id: want 0, 1 or 2"}
}
