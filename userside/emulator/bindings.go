package emulator

import (
	"cmp"
	"iter"
	"slices"
)

// row is one line of get_ip_port_device_commutation: an address entry of a
// customer with the port that the customer is plugged into.
type row struct {
	customer *Customer
	addr     Address
	link     Link // zero: not plugged in
	device   *Device
	host     string // management address of device, dotted
}

// bindingKeys are the names of the fields of a row. An empty one is left out:
// where the map around the row has the value as its key.
type bindingKeys struct{ customer, ip, mac, device, host, port string }

func flatKeys() bindingKeys {
	return bindingKeys{"customer_id", "ip", "mac", "device_id", "device_ip", "port"}
}

// getBindings answers get_ip_port_device_commutation. Its form is published
// nowhere; the Shape decides (API page, section 3.4). The rows of all customers
// are in it, whatever their state.
func getBindings(e *Emulator, r *request) (answer, error) {
	shape := e.Shape()
	if shape == ShapeF {
		if r.style.omitOptional {
			return answer{}, nil
		}
		return data(func(enc *encoder) { enc.list(func() {}) }), nil
	}
	rows := e.rows(r)
	if r.quirks.EmptyBindings {
		rows = func(func(*row) bool) {}
	}
	switch shape {
	case ShapeB:
		return data(func(enc *encoder) { enc.rowsByIP(rows) }), nil
	case ShapeC:
		return data(func(enc *encoder) { enc.rowsByCustomer(rows) }), nil
	case ShapeD:
		return data(func(enc *encoder) { enc.rowsByPort(rows) }), nil
	case ShapeE:
		// The siblings of that age have Data or data.
		key := "data"
		if r.profile.old() {
			key = "Data"
		}
		names := bindingKeys{"usercode", "userip", "mac", "devcode", "devip", "port"}
		return answer{body: func(enc *encoder) { enc.key(key); enc.rowList(rows, names) }}, nil
	default:
		return data(func(enc *encoder) { enc.rowList(rows, flatKeys()) }), nil
	}
}

// rows returns all rows in the order of the customers. The row that is handed out
// is the same one each time.
func (e *Emulator) rows(r *request) iter.Seq[*row] {
	type host struct {
		device *Device
		text   string
	}
	hosts := map[int64]host{}
	for _, d := range e.deviceList() {
		h := host{device: d}
		if d.IP.IsValid() {
			h.text = d.IP.String()
		}
		hosts[d.ID] = h
	}
	customers := e.bulk(r)
	return func(yield func(*row) bool) {
		var out row
		for _, c := range customers {
			links := c.Links
			if len(links) == 0 {
				links = []Link{{}}
			}
			for _, a := range c.Addresses {
				if a.Net.IsValid() {
					continue
				}
				for _, l := range links {
					h := hosts[l.Device]
					out = row{customer: c, addr: a, link: l, device: h.device, host: h.text}
					if !yield(&out) {
						return
					}
				}
			}
		}
	}
}

// bulk returns the customers of a bulk answer: all, or with the quirk HalfGone
// every second one.
func (e *Emulator) bulk(r *request) []*Customer {
	all := e.customerList()
	if !r.style.halfGone {
		return all
	}
	half := all[:0]
	for i := 0; i < len(all); i += 2 {
		half = append(half, all[i])
	}
	return half
}

func (e *encoder) rowList(rows iter.Seq[*row], names bindingKeys) {
	e.list(func() {
		for r := range rows {
			e.row(r, names)
		}
	})
}

// rowsByIP writes Shape B. As in a PHP array the last of several rows of an
// address stays, at the place of the first; entries without address share the key 0.
func (e *encoder) rowsByIP(rows iter.Seq[*row]) {
	names := flatKeys()
	names.ip = ""
	at := map[uint32]int{}
	var kept []row
	for r := range rows {
		ip := ipNumber(r.addr.IP)
		if i, ok := at[ip]; ok {
			kept[i] = *r
			continue
		}
		at[ip] = len(kept)
		kept = append(kept, *r)
	}
	e.keyed(false, func() {
		for i := range kept {
			e.id(int64(ipNumber(kept[i].addr.IP)))
			e.row(&kept[i], names)
		}
	})
}

// rowsByCustomer writes Shape C.
func (e *encoder) rowsByCustomer(rows iter.Seq[*row]) {
	names := flatKeys()
	names.customer = ""
	var group []row
	flush := func() {
		if len(group) == 0 {
			return
		}
		e.id(group[0].customer.ID)
		if e.composite {
			e.compositeRow(group)
		} else {
			e.oneOrMany(group, names)
		}
		group = group[:0]
	}
	e.keyed(false, func() {
		for r := range rows {
			if len(group) > 0 && group[0].customer != r.customer {
				flush()
			}
			group = append(group, *r)
		}
		flush()
	})
}

// compositeRow writes the member of Shape C that carries the two halves apart.
func (e *encoder) compositeRow(group []row) {
	c := group[0].customer
	e.object(func() {
		e.key("ip_mac")
		e.ipMAC(c)
		e.key("commutation")
		e.list(func() {
			for _, l := range c.Links {
				e.object(func() {
					e.strField("object_type", "switch")
					e.intField("object_id", l.Device)
					e.intField("interface", int64(l.Port))
				})
			}
		})
	})
}

// rowsByPort writes Shape D. Customers without a port are under 0, 0.
func (e *encoder) rowsByPort(rows iter.Seq[*row]) {
	names := flatKeys()
	names.device, names.port = "", ""
	var all []row
	for r := range rows {
		all = append(all, *r)
	}
	slices.SortStableFunc(all, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.link.Device, b.link.Device), cmp.Compare(a.link.Port, b.link.Port))
	})
	e.keyed(false, func() {
		for len(all) > 0 {
			dev := all[0].link.Device
			n := leading(all, func(r *row) bool { return r.link.Device == dev })
			ofDevice := all[:n]
			all = all[n:]
			e.id(dev)
			e.keyed(false, func() {
				for len(ofDevice) > 0 {
					port := ofDevice[0].link.Port
					n := leading(ofDevice, func(r *row) bool { return r.link.Port == port })
					e.id(int64(port))
					e.oneOrMany(ofDevice[:n], names)
					ofDevice = ofDevice[n:]
				}
			})
		}
	})
}

// leading counts the rows at the beginning for which ok holds.
func leading(rows []row, ok func(*row) bool) int {
	for i := range rows {
		if !ok(&rows[i]) {
			return i
		}
	}
	return len(rows)
}

// oneOrMany writes a row, or a list when there are several: what a careless
// grouping in PHP makes.
func (e *encoder) oneOrMany(rows []row, names bindingKeys) {
	if len(rows) == 1 {
		e.row(&rows[0], names)
		return
	}
	e.list(func() {
		for i := range rows {
			e.row(&rows[i], names)
		}
	})
}

// row writes one row. Without a device its three fields are null, in the legacy
// profile "0" and "".
func (e *encoder) row(r *row, names bindingKeys) {
	e.object(func() {
		if names.customer != "" {
			e.intField(names.customer, r.customer.ID)
		}
		if names.ip != "" && (r.addr.IP.IsValid() || e.optional()) {
			e.decimalField(names.ip, int64(ipNumber(r.addr.IP)))
		}
		if !r.addr.MAC.IsZero() || e.optional() {
			e.strField(names.mac, r.addr.MAC.hex())
		}
		if r.link.Device == 0 {
			e.noDevice(names)
			return
		}
		if names.device != "" {
			e.intField(names.device, r.link.Device)
		}
		switch {
		case r.host != "":
			e.strField(names.host, r.host)
		case e.optional():
			e.key(names.host)
			e.null()
		}
		if names.port != "" {
			e.intField(names.port, int64(r.link.Port))
		}
	})
}

func (e *encoder) noDevice(names bindingKeys) {
	if !e.optional() {
		return
	}
	for _, k := range []string{names.device, names.host, names.port} {
		switch {
		case k == "":
		case !e.legacy:
			e.key(k)
			e.null()
		case k == names.host:
			e.strField(k, "")
		default:
			e.intField(k, 0)
		}
	}
}
