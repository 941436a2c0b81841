package userside

import (
	"bytes"
	"context"
	"net/netip"
	"strconv"
)

// BindingRow is one address (or one MAC without address) of one customer and
// the switch port it is used on.
type BindingRow struct {
	Customer   int64      // always > 0
	IP         netip.Addr // IPv4; invalid: the row has only a MAC
	MAC        MAC        // zero: not known
	Device     int64      // 0: not told
	DeviceIP   netip.Addr // invalid: not told
	DeviceMAC  MAC        // zero: not told
	DeviceName string     // usually not told
	Port       uint32     // the ERP's port number; 0: not told
	PortName   string     // interface name; usually not told
	VLAN       uint16     // 0: not told
}

// Bindings is the answer of CustomerBindings.
type Bindings struct {
	Rows    []BindingRow
	Empty   int // rows that were understood and have neither address nor MAC
	Defects Defects
}

// CustomerBindings calls customer get_ip_port_device_commutation, the bulk read
// for DHCP servers. What it answers is published nowhere, so the decoder takes
// every shape of API page section 3.4 (A to F) with all its aliases:
//
//   - a list of flat rows, or one keyed by address, by customer, or by device and then port;
//   - rows with the names of version 3.12 (usercode, userip, devip);
//   - customers with ip_mac and commutation inside;
//   - nothing at all, which is a valid answer without rows.
//
// The customer's state is not in it. An answer in which no row can be
// recognised is ErrUnknownShape; rows are given out only once the whole answer
// has been OK.
func (c *Client) CustomerBindings(ctx context.Context) (*Bindings, error) {
	list, err := c.CustomerBindingList(ctx)
	if err != nil {
		return nil, err
	}
	return list.bindings(), nil
}

// CustomerBindingList is CustomerBindings with the rows at a quarter of the memory.
func (c *Client) CustomerBindingList(ctx context.Context) (*BindingList, error) {
	d := &bindingDecoder{}
	a, err := c.call(ctx, actCustomerBindings, nil, sink{member: d.member, reset: d.reset, descend: true})
	if err != nil {
		return nil, err
	}
	d.finish()
	if d.recognised == 0 && (d.out.Defects.Count > 0 || d.foreign > 0) {
		return nil, c.unknownShape(actCustomerBindings, a, "no row can be recognised")
	}
	return &d.out, nil
}

// bindingDecoder turns the members of the payload into rows.
type bindingDecoder struct {
	out        BindingList
	recognised int // objects that had a field for an address or a MAC, filled or not
	open       []openKey
	differ     int // open rows whose outer key is not their customer
	foreign    int // scalars beside rows, or in place of them

	// PHP prints a list that lost a member as an object, whose keys count from 0. Nothing in the ERP has the id 0.
	indexed      bool   // the outer keys count the rows
	countedUnder string // outer key below which the keys do
	devices      bool   // an outer key is the device of a row by other evidence
	noDevices    bool   // a row below one key alone has another device
	self         rowFields
	names        map[string]string // interned port and device names
	at           place             // of the member that is read
}

// openKey is a row with a customer but no device, below an outer key. Whether
// that key is the customer once more (shape C) or the device (shape D) is known
// only when all rows were seen.
type openKey struct {
	row      int
	alone    bool // the only row below the key, which may as well count the rows
	key      int64
	port     uint32
	portName string
}

func (d *bindingDecoder) reset() { *d = bindingDecoder{} }

// place is where the decoder is, for keys that carry meaning and for defects.
type place struct {
	up    *place
	key   []byte // nil in a list
	index int
}

func (p *place) String() string {
	if p == nil {
		return "data"
	}
	if p.key == nil {
		return p.up.String() + "[" + strconv.Itoa(p.index) + "]"
	}
	k := p.key
	if len(k) > maxQuote {
		k = k[:maxQuote]
	}
	return p.up.String() + "." + string(bytes.ToValidUTF8(k, []byte("\uFFFD")))
}

func (d *bindingDecoder) member(key []byte, index int, v value) {
	if v.empty() {
		return
	}
	if key != nil && !v.composite() {
		// The payload itself may be the only row.
		d.scalarRow(key, v)
		return
	}
	d.at = place{key: key, index: index}
	d.walk(v, &d.at, &rowFields{}, keys{}.with(key))
}

// keys are the meaningful keys around a value, outermost first.
type keys struct {
	ip     netip.Addr
	ipText bool
	ids    [2][]byte
	n      int
}

// firstInet is 1.0.0.0: a decimal key from here on is an address, below it an id.
const firstInet = 1 << 24

func (k keys) with(key []byte) keys {
	if key == nil || !meaningful(key) {
		return k
	}
	if bytes.Count(key, []byte(".")) == 3 || key[0] == '-' || isInet(key) {
		if ip, err := parseIP(key); err == nil && ip.IsValid() {
			k.ip, k.ipText = ip, true
			return k
		}
	}
	if k.n == len(k.ids) {
		return k
	}
	k.ids[k.n] = key
	k.n++
	return k
}

func isInet(key []byte) bool {
	n, ok := parseInt(key)
	return ok && n >= firstInet
}

// meaningful tells keys that are data (numbers, addresses, interface names)
// from field names.
func meaningful(key []byte) bool {
	if isWrapper(key) || len(key) == 0 {
		return false
	}
	for _, c := range key {
		if c >= '0' && c <= '9' {
			return true
		}
	}
	return false
}

// walk finds the rows in v. base holds what objects around v said, ks the keys
// around it.
func (d *bindingDecoder) walk(v value, at *place, base *rowFields, ks keys) {
	switch v.kind() {
	case kindArray:
		i := 0
		for m := range v.all {
			d.walk(m, &place{up: at, index: i}, base, ks)
			i++
		}
	case kindObject:
		d.object(v, at, base, ks)
	default:
		if !v.empty() {
			d.out.Defects.add(at.String(), v.kind().String()+" where a row is wanted")
		}
	}
}

func (d *bindingDecoder) object(v value, at *place, base *rowFields, ks keys) {
	var f rowFields
	nested, scalars, holdsPorts, composite, subnet := false, false, false, false, false
	nodes := v.t.nodes
	for i := v.i + 1; i < nodes[v.i].next; i = nodes[i].next { // as v.all, for every member of every row
		m := value{v.t, i}
		switch string(m.key()) {
		case "ip_mac", "commutation":
			composite = true
		}
		if m.composite() {
			if m.kind() == kindObject && isPartOfRow(m.key()) {
				f.takeNested(m)
				continue
			}
			switch string(m.key()) {
			case "ports", "ifaces", "interfaces", "customers":
				holdsPorts = true
			}
			nested = nested || m.len() > 0
			continue
		}
		scalars = true
		subnet = subnet || string(m.key()) == "ip_net" && !m.empty()
		f.take(m.key(), m)
	}
	if composite {
		f.fill(base)
		d.composite(v, at, f, ks)
		return
	}
	hasIP, hasMAC := f.has(fieldIP), f.has(fieldMAC)
	if holdsPorts {
		// What looks like an address of a customer is the device's own.
		f.move(fieldIP, fieldDeviceIP)
		f.move(fieldMAC, fieldDeviceMAC)
		hasIP, hasMAC = false, false
	}
	switch {
	case subnet && !nested: // its address is no client's
		d.recognised++
		d.out.Empty++
	case hasIP || hasMAC, ks.ipText && f.any():
		f.fill(base)
		d.leaf(&f, at, ks)
	case nested:
		f.fill(base)
		for m := range v.all {
			if m.composite() && !isPartOfRow(m.key()) {
				d.walk(m, &place{up: at, key: m.key()}, &f, ks.with(m.key()))
			}
		}
	case f.present(fieldIP) || f.present(fieldMAC):
		d.recognised++
		d.out.Empty++
	case scalars:
		d.out.Defects.add(at.String(), "row has neither address nor MAC")
	}
}

// composite reads shape C's {ip_mac:{...}, commutation:[...]}: every address on
// every switch port of the customer.
func (d *bindingDecoder) composite(v value, at *place, f rowFields, ks keys) {
	if !f.has(fieldCustomer) {
		if id := v.get("id"); !id.empty() {
			f.set(fieldCustomer, 0, id)
		}
	}
	if f.has(fieldCustomer) {
		ks.n = 0 // they are the customer once more, or count the customers
	}
	d.indexed = d.indexed || ks.n == 1 && string(ks.ids[0]) == "0"
	d.recognised++
	var switches []Link
	for _, l := range readLinks(v.get("commutation"), at, &d.out.Defects) {
		if l.ObjectType == "switch" || l.ObjectType == "" {
			switches = append(switches, l)
		}
	}
	from := d.out.Len()
	for m := range v.get("ip_mac").all {
		where := &place{up: &place{up: at, key: []byte("ip_mac")}, key: m.key()}
		if m.kind() != kindObject {
			d.out.Defects.add(where.String(), m.kind().String()+" where an address is wanted")
			continue
		}
		row := f
		for e := range m.all {
			if !e.composite() {
				row.take(e.key(), e)
			}
		}
		if !m.get("ip_net").empty() { // a subnet, whose first address is no client's
			d.out.Empty++
			continue
		}
		if !row.has(fieldIP) && !row.has(fieldMAC) {
			if row.present(fieldIP) || row.present(fieldMAC) {
				d.out.Empty++
				continue
			}
			d.out.Defects.add(where.String(), "row has neither address nor MAC")
			continue
		}
		d.leaf(&row, where, ks)
	}
	if d.out.Len() == from {
		d.out.Empty++
		return
	}
	if len(switches) == 0 {
		return
	}
	to := d.out.Len()
	for i, l := range switches {
		for j := from; j < to; j++ {
			r := d.out.at(j)
			r.setLink(l)
			if i == 0 {
				d.out.set(j, &r)
			} else {
				d.out.add(&r)
			}
		}
	}
}

func (r *BindingRow) setLink(l Link) {
	r.Device, r.Port, r.PortName = l.ObjectID, l.Port, l.PortName
}

// leaf turns the fields of one row, and the keys around it, into a BindingRow.
func (d *bindingDecoder) leaf(f *rowFields, at *place, ks keys) {
	d.recognised++
	alone := at != nil && at.key != nil && !ks.ipText
	if alone && ks.n == 2 && d.counted(ks) {
		ks.n, alone = 1, false
	}
	alone = alone && ks.n == 1
	d.indexed = d.indexed || alone && string(ks.ids[0]) == "0"
	row, ok := d.row(f, at, ks)
	if !ok {
		return
	}
	if row.Customer == 0 && ks.n > 0 && !d.indexed && !row.portOnly() && (ks.n == 1 || row.Device > 0 || ks.ipText) {
		// Shape C: the outer key is the customer.
		row.Customer, _ = parseInt(ks.ids[0])
	}
	if row.Customer <= 0 {
		d.out.Defects.add(at.String(), "row has no customer")
		return
	}
	if ks.n > 0 && f.has(fieldCustomer) {
		d.outerKeys(&row, ks, alone)
	}
	d.out.add(&row)
}

// counted reports whether the inner one of two keys around a row only counts the
// rows below the outer one.
func (d *bindingDecoder) counted(ks keys) bool {
	if string(ks.ids[1]) == "0" && string(ks.ids[0]) != "0" {
		d.countedUnder = string(ks.ids[0])
	}
	return d.countedUnder != "" && d.countedUnder == string(ks.ids[0])
}

// portOnly reports a port without any device: its device must be an outer key.
func (r *BindingRow) portOnly() bool {
	return (r.Port != 0 || r.PortName != "") && r.Device == 0 && !r.DeviceIP.IsValid() && r.DeviceMAC == (MAC{})
}

// outerKeys uses the keys around a row that names its customer: shape D has
// the device and the port there. alone says that there is one key and no other row below it.
func (d *bindingDecoder) outerKeys(row *BindingRow, ks keys, alone bool) {
	id, ok := parseInt(ks.ids[0])
	if !ok || id <= 0 {
		return
	}
	port := BindingRow{Port: row.Port, PortName: row.PortName}
	if ks.n == 2 && port.Port == 0 && port.PortName == "" {
		port.setPort(ks.ids[1], d)
	}
	switch row.Device {
	case id:
		row.Port, row.PortName = port.Port, port.PortName
		d.devices = true
	case 0:
		d.open = append(d.open, openKey{row: d.out.Len(), key: id, alone: alone, port: port.Port, portName: port.PortName})
		if id != row.Customer {
			d.differ++
		}
		d.devices = d.devices || !alone
	default:
		d.noDevices = d.noDevices || alone
	}
}

// row converts the fields. ok is false when the address cannot be used; a bad
// field beside it is a defect and left out.
func (d *bindingDecoder) row(f *rowFields, at *place, ks keys) (row BindingRow, ok bool) {
	defect := func(field field, err error) {
		d.out.Defects.add(at.String()+"."+field.String(), err.Error())
	}
	var err error
	if row.IP, err = f.v[fieldIP].ip(); err != nil {
		defect(fieldIP, err)
		return row, false
	}
	if !row.IP.IsValid() && !f.has(fieldIP) && ks.ipText {
		row.IP = ks.ip
	}
	if row.MAC, err = f.v[fieldMAC].mac(); err != nil {
		defect(fieldMAC, err)
	}
	if !row.IP.IsValid() && row.MAC == (MAC{}) {
		if err == nil {
			d.out.Empty++
		}
		return row, false
	}
	number := func(field field, limit int64) int64 {
		if !f.present(field) {
			return 0
		}
		n, err := f.v[field].int()
		if err == nil && (n.Value < 0 || n.Value > limit) {
			err = f.v[field].mismatch("in range")
		}
		if err != nil {
			defect(field, err)
			return 0
		}
		return n.Value
	}
	row.Customer = number(fieldCustomer, 1<<53)
	if f.objectType == "" || f.objectType == "switch" || !f.deviceByObject {
		row.Device = number(fieldDevice, 1<<53)
	}
	row.VLAN = uint16(number(fieldVLAN, 4095))
	if row.DeviceIP, err = f.v[fieldDeviceIP].ip(); err != nil && !f.deviceIsHost {
		defect(fieldDeviceIP, err) // a host may be a name
	}
	if row.DeviceMAC, err = f.v[fieldDeviceMAC].mac(); err != nil {
		defect(fieldDeviceMAC, err)
	}
	if f.present(fieldDeviceName) {
		row.DeviceName = d.intern(f.v[fieldDeviceName].bytes())
	}
	if f.has(fieldPort) {
		row.setPort(f.v[fieldPort].bytes(), d)
	}
	if f.has(fieldPortName) {
		row.PortName = d.intern(f.v[fieldPortName].bytes())
	}
	return row, true
}

// setPort takes a port number, or a name such as Gi0/5.
func (r *BindingRow) setPort(b []byte, d *bindingDecoder) {
	b = trimSpace(b)
	if n, ok := parseInt(b); ok {
		if n > 0 && n <= 1<<31 {
			r.Port = uint32(n)
		}
		return
	}
	r.PortName = d.intern(b)
}

func (d *bindingDecoder) intern(b []byte) string {
	b = trimSpace(b)
	if len(b) == 0 || len(b) > 128 {
		return ""
	}
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if d.names == nil {
		d.names = make(map[string]string)
	}
	s := String(bytes.ToValidUTF8(b, []byte("\uFFFD"))).Text()
	d.names[string(b)] = s
	return s
}

// scalarRow keeps the scalar members of a payload that is one single row.
func (d *bindingDecoder) scalarRow(key []byte, v value) {
	d.foreign++
	d.self.take(bytes.Clone(key), v.clone())
}

// finish resolves what only the whole answer could tell.
func (d *bindingDecoder) finish() {
	if d.differ > 0 {
		byDevice := d.devices && !d.indexed && !d.noDevices
		for _, o := range d.open {
			if o.alone && !byDevice {
				continue
			}
			r := d.out.at(o.row)
			r.Device, r.Port, r.PortName = o.key, o.port, o.portName
			d.out.set(o.row, &r)
		}
	}
	if d.self.has(fieldIP) || d.self.has(fieldMAC) {
		d.leaf(&d.self, nil, keys{})
	}
}
