package emulator

import (
	"net/http"

	"encoding/hex"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

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

// deviceFields returns the test for the parameters that leave fields out.
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
		str("activity_time", r.date(d.active(r.now)))
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
			if r.profile.old() {
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

// sightings returns all of them.
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

// livePoll answers what would ask a device over SNMP: there is none.
func livePoll(*Emulator, *request) (answer, error) {
	return answer{}, &apiError{http.StatusNotImplemented, "live polls of devices are not emulated"}
}

// getONTData answers get_ont_data: no optical terminals are emulated, and an
// unknown one is an empty list.
func getONTData(*Emulator, *request) (answer, error) {
	return data(func(enc *encoder) { enc.list(func() {}) }), nil
}

// getDeviceList answers module get_device_list, with dotted addresses as billings
// have them. Switches are type 1, OLTs 2 and "other".
func getDeviceList(e *Emulator, r *request) (answer, error) {
	kind := r.param("device_type")
	if !slices.Contains([]string{"", "switch", "radio", "other"}, kind) {
		return answer{}, badRequest("parameter device_type: unknown type")
	}
	all := e.deviceList()
	return bare(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, d := range all {
				of, typeID := "switch", int64(1)
				if d.Type != "switch" {
					of, typeID = "other", 2
				}
				if kind == "" || kind == of {
					enc.id(d.ID)
					enc.moduleDevice(r, d, typeID)
				}
			}
		})
	}), nil
}

func (e *encoder) moduleDevice(r *request, d *Device, typeID int64) {
	host := ""
	if d.IP.IsValid() {
		host = d.IP.String()
	}
	e.object(func() {
		e.intField("id", d.ID)
		e.intField("type_id", typeID)
		e.intField("model_id", 0)
		e.strField("ip", host)
		e.strField("mac", d.MAC.hex())
		e.intField("house_id", d.Node)
		e.intField("node_id", d.Node)
		e.intField("entrance", int64(d.Entrance))
		e.textField("location", d.Location)
		e.textField("comment", d.Name)
		e.strField("geo", "")
		e.strField("date_activity", r.date(d.active(r.now)))
		e.strField("date_create", r.date(time.Time{}))
		e.intField("telnet_port", 23)
		e.intField("snmp_version", 2)
		e.intField("snmp_port", 161)
		e.textField("snmp_read_community", d.Community)
		e.strField("software_version", "")
	})
}

// active returns when the ERP last reached the device.
func (d *Device) active(now time.Time) time.Time {
	if d.Offline {
		return now.Add(-26 * time.Hour)
	}
	return now
}
