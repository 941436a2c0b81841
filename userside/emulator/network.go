package emulator

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// endpoint is the far end of a link.
type endpoint struct {
	kind    string // switch, customer or cross
	id      int64
	port    uint32
	connect int64 // connect_id
}

// patch gives what a customer's link number i is plugged into, and where the
// chain ends.
func patch(c *Customer, i int) (near, finish endpoint) {
	l := c.Links[i]
	connect := c.ID*10 + int64(i)
	finish = endpoint{"switch", l.Device, l.Port, connect}
	if l.Cross != 0 {
		return endpoint{"cross", l.Cross, 1, connect}, finish
	}
	return finish, finish
}

// getCommutation answers commutation get_data for customers and switches; of
// other objects it knows none (API page, section 5.1).
func getCommutation(e *Emulator, r *request) (answer, error) {
	id := int64(0)
	if r.has("object_id") {
		var err error
		if id, err = r.int("object_id"); err != nil {
			return answer{}, err
		}
	}
	finish := r.flag("is_finish_data")
	switch r.param("object_type") {
	case "customer":
		if id == 0 {
			return commutationOfAll(e, r, finish), nil
		}
		c := e.customer(id)
		if c == nil {
			c = &Customer{} // nothing plugged in: nothing more is known of this case
		}
		return data(func(enc *encoder) { enc.customerLinks(r, c, finish) }), nil
	case "switch":
		return commutationOfSwitches(e, r, id, finish), nil
	case "radio", "cross", "fiber", "splitter":
		return data(func(enc *encoder) { enc.list(func() {}) }), nil
	default:
		return answer{}, badRequest("parameter object_type: unknown type")
	}
}

func commutationOfAll(e *Emulator, r *request, finish bool) answer {
	all := e.bulk(r)
	return data(func(enc *encoder) {
		enc.keyed(false, func() {
			for _, c := range all {
				if len(c.Links) > 0 {
					enc.id(c.ID)
					enc.customerLinks(r, c, finish)
				}
			}
		})
	})
}

// customerLinks writes the links of a customer: a list, or with finish an
// object with numeric keys and the key finish.
func (e *encoder) customerLinks(r *request, c *Customer, finish bool) {
	if !finish {
		e.list(func() {
			for i := range c.Links {
				near, _ := patch(c, i)
				e.link(r, near)
			}
		})
		return
	}
	e.keyed(false, func() {
		for i := range c.Links {
			near, _ := patch(c, i)
			e.id(int64(i))
			e.link(r, near)
		}
		if len(c.Links) > 0 {
			_, end := patch(c, 0)
			e.key("finish")
			e.link(r, end)
		}
	})
}

func (e *encoder) link(r *request, p endpoint) {
	e.object(func() {
		e.strField("object_type", p.kind)
		e.intField("object_id", p.id)
		if r.profile != ProfileLegacy && e.optional() {
			e.strField("object_uuid", fmt.Sprintf("%08x-0000-4000-8000-%012x", len(p.kind), p.id))
		}
		e.intField("direction", 0)
		e.intField("interface", int64(p.port))
		e.strField("comment", "")
		e.intField("connect_id", p.connect)
	})
}

// commutationOfSwitches answers for one switch, or for all keyed by their ids.
func commutationOfSwitches(e *Emulator, r *request, id int64, finish bool) answer {
	type plug struct {
		customer *Customer
		index    int
	}
	ports := map[int64]map[uint32][]plug{}
	for _, c := range e.bulk(r) {
		for i, l := range c.Links {
			if id != 0 && l.Device != id {
				continue
			}
			if ports[l.Device] == nil {
				ports[l.Device] = map[uint32][]plug{}
			}
			ports[l.Device][l.Port] = append(ports[l.Device][l.Port], plug{c, i})
		}
	}
	// The end of the chain from the switch is the customer.
	end := func(p plug) endpoint {
		near, _ := patch(p.customer, p.index)
		return endpoint{"customer", p.customer.ID, 1, near.connect}
	}
	write := func(enc *encoder, of map[uint32][]plug) {
		enc.keyed(false, func() {
			for _, port := range sortedKeys(of) {
				enc.id(int64(port))
				if finish {
					enc.object(func() { enc.key("finish"); enc.link(r, end(of[port][0])) })
					continue
				}
				enc.list(func() {
					for _, p := range of[port] {
						near, _ := patch(p.customer, p.index)
						if near.kind != "cross" {
							near = end(p)
						}
						enc.link(r, near)
					}
				})
			}
		})
	}
	return data(func(enc *encoder) {
		if id != 0 {
			write(enc, ports[id])
			return
		}
		enc.keyed(false, func() {
			for _, dev := range sortedKeys(ports) {
				enc.id(dev)
				write(enc, ports[dev])
			}
		})
	})
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// getDeviceData answers device get_data, keyed by device id (API page, section 5.2).
func getDeviceData(e *Emulator, r *request) (answer, error) {
	match, err := deviceFilter(e, r)
	if err != nil {
		return answer{}, err
	}
	fields := deviceFields(r)
	all := e.deviceList()
	return data(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, d := range all {
				if match(d) {
					enc.id(d.ID)
					enc.device(r, d, fields)
				}
			}
		})
	}), nil
}

// deviceFilter reads which devices are asked for.
func deviceFilter(e *Emulator, r *request) (func(*Device) bool, error) {
	kind := r.param("object_type")
	if !slices.Contains([]string{"switch", "onu", "olt", "radio", "all"}, kind) {
		return nil, badRequest("parameter object_type: unknown type")
	}
	var ids map[int64]bool // nil: all
	if r.has("object_id") {
		list, err := r.ids("object_id")
		if err != nil {
			return nil, err
		}
		ids = map[int64]bool{}
		for _, id := range list {
			ids[id] = true
		}
	}
	if r.has("customer_id") {
		id, err := r.int("customer_id")
		if err != nil {
			return nil, err
		}
		of := map[int64]bool{}
		if c := e.customer(id); c != nil {
			for _, l := range c.Links {
				of[l.Device] = ids == nil || ids[l.Device]
			}
		}
		ids = of
	}
	return func(d *Device) bool {
		switch {
		case kind != "all" && d.Type != kind,
			ids != nil && !ids[d.ID],
			r.has("node_id") && r.param("node_id") != strconv.FormatInt(d.Node, 10),
			r.param("is_online") == "1" && d.Offline,
			r.param("is_online") == "-1" && !d.Offline,
			r.flag("is_with_ip") && !d.IP.IsValid():
			return false
		}
		return true
	}, nil
}

// deviceFields gives the test for the parameters that leave fields out.
func deviceFields(r *request) func(string) bool {
	var only []string
	if r.has("dataset") {
		only = strings.Split(r.param("dataset"), ",")
	}
	return func(name string) bool {
		switch name {
		case "ifaces", "interfaces":
			if r.flag("is_hide_ifaces_data") {
				return false
			}
		case "snmp_read_community", "telnet_login", "telnet_pass":
			if r.flag("is_hide_access_data") {
				return false
			}
		}
		return only == nil || slices.Contains(only, name)
	}
}

// device writes a device row.
func (e *encoder) device(r *request, d *Device, shown func(string) bool) {
	str := func(k, s string) {
		if shown(k) {
			e.textField(k, s)
		}
	}
	num := func(k string, n int64) {
		if shown(k) {
			e.intField(k, n)
		}
	}
	e.object(func() {
		num("id", d.ID)
		str("name", d.Name)
		e.deviceAddress(d, shown)
		str("mac", d.MAC.upperHex())
		num("interfaces", int64(len(d.Ports)))
		if shown("ifaces") {
			e.ifaces(d)
		}
		str("uplink_iface", joined(d.Uplinks))
		if shown("uplink_iface_array") {
			e.key("uplink_iface_array")
			e.list(func() {
				for _, p := range d.Uplinks {
					e.int(int64(p))
				}
			})
		}
		str("dnlink_iface", "")
		active := r.now
		if d.Offline {
			active = r.now.Add(-26 * time.Hour)
		}
		str("activity_time", r.date(active))
		if shown("is_online") {
			e.flagField("is_online", !d.Offline)
		}
		num("node_id", d.Node)
		num("entrance", int64(d.Entrance))
		num("inventory_id", 0)
		str("model", d.Model)
		str("location", d.Location)
		num("snmp_version", 2)
		num("snmp_port", 161)
		str("snmp_read_community", d.Community)
		str("telnet_login", d.Login)
		str("telnet_pass", d.Password)
		if e.upperCase {
			e.rawColumns(d)
		}
	})
}

func (e *encoder) deviceAddress(d *Device, shown func(string) bool) {
	if shown("ip") {
		e.key("ip")
		if d.IP.IsValid() {
			e.decimal(int64(ipNumber(d.IP)))
		} else {
			e.null()
		}
	}
	if shown("host") {
		e.key("host")
		if d.IP.IsValid() {
			e.str(d.IP.String())
		} else {
			e.null()
		}
	}
}

// ifaces writes the ports, keyed by the ERP's port number.
func (e *encoder) ifaces(d *Device) {
	e.key("ifaces")
	e.keyed(true, func() {
		for _, p := range d.Ports {
			e.id(int64(p.Number))
			e.object(func() {
				e.intField("ifIndex", int64(p.Index))
				e.intField("ifType", 6) // ethernetCsmacd
				e.key("ifName")
				e.name(p.Name)
				e.intField("ifNumber", int64(p.Number))
			})
		}
	})
}

// rawColumns writes columns of the table as old servers add them: a reader that
// matches names without regard to case gets values that are wrong.
func (e *encoder) rawColumns(d *Device) {
	e.decimalField("ID", d.ID)
	e.strField("NAME", "")
	e.strField("IP", "0")
	e.strField("HOST", "")
	e.strField("MAC", "")
	e.strField("INTERFACES", "0")
	e.strField("IFACES", "")
	e.strField("SNMP_PORT", "0")
	e.strField("NAZV", d.Name)
}

func joined(ports []uint32) string {
	out := make([]string, len(ports))
	for i, p := range ports {
		out[i] = strconv.FormatUint(uint64(p), 10)
	}
	return strings.Join(out, ",")
}

// getDeviceID answers get_device_id, by address or MAC; inventory and serial
// numbers are not kept and match nothing.
func getDeviceID(e *Emulator, r *request) (answer, error) {
	typer, value := r.param("data_typer"), r.param("data_value")
	var match func(*Device) bool
	switch {
	case typer == "ip":
		ip, err := netip.ParseAddr(value)
		match = func(d *Device) bool { return err == nil && d.IP == ip }
	case typer == "mac":
		mac, ok := looseMAC(value)
		match = func(d *Device) bool { return ok && d.MAC == mac }
	case typer == "inventory_number", typer == "serial_number", strings.HasPrefix(typer, "additional_field_"):
		match = func(*Device) bool { return false }
	default:
		return answer{}, badRequest("parameter data_typer: unknown type")
	}
	kind := r.param("object_type")
	for _, d := range e.deviceList() {
		if (kind == "all" || kind == d.Type) && match(d) {
			key := "id"
			if r.profile == ProfileLegacy {
				key = "Id"
			}
			return answer{body: func(enc *encoder) { enc.intField(key, d.ID) }}, nil
		}
	}
	return answer{}, notFound("device not found")
}

// looseMAC reads 12 hex digits with any separators; ok is false for anything
// else and for zero.
func looseMAC(s string) (MAC, bool) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if err != nil || len(b) != len(MAC{}) {
		return MAC{}, false
	}
	m := MAC(b)
	return m, !m.IsZero()
}

// sighting is a line of the ERP's polling history of forwarding tables. The
// emulated switches see the MACs of the customers that are plugged into them.
type sighting struct {
	device      *Device
	port        uint32
	mac         MAC
	first, last time.Time
}

// sightings gives all of them.
func (e *Emulator) sightings() iter.Seq[sighting] {
	all := e.customerList()
	return func(yield func(sighting) bool) {
		for _, c := range all {
			for _, l := range c.Links {
				d := e.device(l.Device)
				if d == nil {
					continue
				}
				for _, a := range c.Addresses {
					if !a.MAC.IsZero() && !yield(sighting{d, l.Port, a.MAC, c.Created, c.Active}) {
						return
					}
				}
			}
		}
	}
}

// sighted answers with the sightings that match, the device under the given key.
func sighted(e *Emulator, r *request, key string, match func(sighting) bool) answer {
	return data(func(enc *encoder) {
		enc.list(func() {
			for s := range e.sightings() {
				if !match(s) {
					continue
				}
				enc.object(func() {
					enc.intField(key, s.device.ID)
					enc.strField("mac", s.mac.upperHex())
					enc.key("port")
					enc.name(s.device.portName(s.port))
					enc.intField("vlan_id", int64(s.device.VLAN))
					enc.strField("date_first", r.date(s.first))
					enc.strField("date_last", r.date(s.last))
				})
			}
		})
	})
}

// getMACList answers get_mac_list: what a switch saw, on all ports or on those
// of interface_list.
func getMACList(e *Emulator, r *request) (answer, error) {
	id, err := r.int("object_id")
	if err != nil {
		return answer{}, err
	}
	var ports []int64
	if r.has("interface_list") {
		if ports, err = r.ids("interface_list"); err != nil {
			return answer{}, err
		}
	}
	return sighted(e, r, "object_id", func(s sighting) bool {
		return s.device.ID == id && (ports == nil || slices.Contains(ports, int64(s.port)))
	}), nil
}

// findMAC answers find_mac: where a MAC was seen.
func findMAC(e *Emulator, r *request) (answer, error) {
	mac, ok := looseMAC(r.param("mac"))
	if !ok {
		return answer{}, badRequest("parameter mac: not a MAC address")
	}
	return sighted(e, r, "device_id", func(s sighting) bool { return s.mac == mac }), nil
}
