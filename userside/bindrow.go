package userside

import (
	"bytes"
)

// field is one thing that a row of bindings may say.
type field uint8

const (
	fieldNone field = iota
	fieldCustomer
	fieldIP
	fieldMAC
	fieldDevice
	fieldDeviceIP
	fieldDeviceMAC
	fieldDeviceName
	fieldPort
	fieldPortName
	fieldVLAN
	fieldObjectType
	fieldCount
)

func (f field) String() string {
	return [...]string{"", "customer", "ip", "mac", "device", "device_ip", "device_mac", "device_name", "port",
		"port_name", "vlan", "object_type"}[f]
}

// fieldOf knows the aliases of API page section 3.4. rank orders them: of two
// members for one field, the lower rank with a value counts.
func fieldOf(key []byte) (f field, rank uint8) {
	switch string(key) {
	case "customer_id":
		return fieldCustomer, 1
	case "usercode":
		return fieldCustomer, 2
	case "user_id":
		return fieldCustomer, 3
	case "userid":
		return fieldCustomer, 4
	case "abon_id":
		return fieldCustomer, 5
	case "codeabon":
		return fieldCustomer, 6
	case "customer":
		return fieldCustomer, 7

	case "ip":
		return fieldIP, 1
	case "userip":
		return fieldIP, 2
	case "ip_address":
		return fieldIP, 3
	case "customer_ip":
		return fieldIP, 4
	case "user_ip":
		return fieldIP, 5

	case "mac":
		return fieldMAC, 1
	case "usermac":
		return fieldMAC, 2
	case "customer_mac":
		return fieldMAC, 3
	case "mac_address":
		return fieldMAC, 4

	case "device_id":
		return fieldDevice, 1
	case "object_id":
		return fieldDevice, rankObjectID
	case "switch_id":
		return fieldDevice, 3
	case "commutator_id":
		return fieldDevice, 4
	case "devcode":
		return fieldDevice, 5
	case "dev_id":
		return fieldDevice, 6
	case "device":
		return fieldDevice, 7

	case "device_ip":
		return fieldDeviceIP, 1
	case "host":
		return fieldDeviceIP, rankHost
	case "devip":
		return fieldDeviceIP, 3
	case "switch_ip":
		return fieldDeviceIP, 4
	case "dev_ip":
		return fieldDeviceIP, 5
	case "device_host":
		return fieldDeviceIP, rankDeviceHost

	case "device_mac":
		return fieldDeviceMAC, 1
	case "devmac":
		return fieldDeviceMAC, 2
	case "switch_mac":
		return fieldDeviceMAC, 3

	case "device_name":
		return fieldDeviceName, 1
	case "switch_name":
		return fieldDeviceName, 2

	case "port":
		return fieldPort, 1
	case "interface":
		return fieldPort, 2
	case "iface":
		return fieldPort, 3
	case "port_number":
		return fieldPort, 4
	case "ifNumber":
		return fieldPort, 5
	case "device_port":
		return fieldPort, 6

	case "port_name":
		return fieldPortName, 1
	case "ifName":
		return fieldPortName, 2
	case "iface_name":
		return fieldPortName, 3

	case "vlan":
		return fieldVLAN, 1
	case "vlan_id":
		return fieldVLAN, 2
	case "vid":
		return fieldVLAN, 3

	case "object_type":
		return fieldObjectType, 1
	}
	return fieldNone, 0
}

const (
	rankObjectID   = 2
	rankHost       = 2
	rankDeviceHost = 6
	// rankFolded is added for a key that only matches without case: old servers
	// repeat every column in upper case, with values of their own.
	rankFolded = 100
)

// rowFields are the members of one row by field.
type rowFields struct {
	v     [fieldCount]value
	rank  [fieldCount]uint8
	there fieldSet // present, even if it says "none"
	says  fieldSet // present and no "none"

	objectType     string
	deviceByObject bool // the device came from object_id
	deviceIsHost   bool // the device's address came from a member that may be a name
}

// fieldSet has a bit for each field.
type fieldSet uint16

func (s fieldSet) has(f field) bool { return s>>f&1 != 0 }

func (s *fieldSet) put(f field, on bool) {
	*s &^= 1 << f
	if on {
		*s |= 1 << f
	}
}

// take sorts one scalar member in.
func (f *rowFields) take(key []byte, v value) {
	field, rank := fieldOf(key)
	if field == fieldNone && bytes.ContainsAny(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		low := bytes.ToLower(key)
		switch string(low) {
		case "ifnumber":
			low = []byte("ifNumber")
		case "ifname":
			low = []byte("ifName")
		}
		field, rank = fieldOf(low)
		rank += rankFolded
	}
	if field != fieldNone {
		f.set(field, rank, v)
	}
}

func (f *rowFields) set(field field, rank uint8, v value) {
	says := !nothing(v)
	if f.says.has(field) && (!says || f.rank[field] <= rank) {
		return
	}
	f.v[field], f.rank[field] = v, rank
	f.there.put(field, v.kind() != kindAbsent)
	f.says.put(field, says)
	switch field {
	case fieldObjectType:
		f.objectType = v.text()
	case fieldDevice:
		f.deviceByObject = rank%rankFolded == rankObjectID
	case fieldDeviceIP:
		f.deviceIsHost = rank%rankFolded == rankHost || rank%rankFolded == rankDeviceHost
	}
}

// takeNested reads {"customer":{"id":1}} and {"device":{"id":1,"host":"...","mac":"..."}}.
func (f *rowFields) takeNested(v value) {
	if string(v.key()) == "customer" {
		f.set(fieldCustomer, 7, v.first("id", "customer_id"))
		return
	}
	f.set(fieldDevice, 7, v.first("id", "device_id"))
	if ip := v.first("ip", "device_ip"); !ip.empty() {
		f.set(fieldDeviceIP, 7, ip)
	}
	if host := v.first("host"); !host.empty() {
		f.set(fieldDeviceIP, rankDeviceHost, host)
	}
	f.set(fieldDeviceMAC, 7, v.first("mac", "device_mac"))
	f.set(fieldDeviceName, 7, v.first("name", "nazv"))
}

// isPartOfRow knows objects inside a row that stand for one of its fields.
func isPartOfRow(key []byte) bool {
	switch string(key) {
	case "device", "switch", "commutator", "customer":
		return true
	}
	return false
}

// nothing reports whether a field says "none": empty, or zero.
func nothing(v value) bool {
	switch v.kind() {
	case kindBool, kindNumber, kindString:
		b := trimSpace(v.bytes())
		return len(b) == 0 || len(b) == 1 && (b[0] == '0' || b[0] == '-')
	}
	return v.empty()
}

// has reports whether the field is there and says something.
func (f *rowFields) has(field field) bool { return f.says.has(field) }

// present reports whether the field is there, even if it says "none".
func (f *rowFields) present(field field) bool { return f.there.has(field) }

// any reports whether the row says anything.
func (f *rowFields) any() bool { return f.says != 0 }

func (f *rowFields) move(from, to field) {
	if !f.has(to) {
		f.v[to], f.rank[to] = f.v[from], f.rank[from]
		f.there.put(to, f.present(from))
		f.says.put(to, f.has(from))
	}
	f.v[from] = value{}
	f.there.put(from, false)
	f.says.put(from, false)
}

// fill closes the gaps of f from base: what an object around the row said.
func (f *rowFields) fill(base *rowFields) {
	gaps := base.says &^ f.says
	if gaps == 0 {
		return
	}
	for i := fieldNone; i < fieldCount; i++ {
		if !gaps.has(i) {
			continue
		}
		f.v[i], f.rank[i] = base.v[i], base.rank[i]
		switch i {
		case fieldObjectType:
			f.objectType = base.objectType
		case fieldDevice:
			f.deviceByObject = base.deviceByObject
		case fieldDeviceIP:
			f.deviceIsHost = base.deviceIsHost
		}
	}
	f.there |= gaps
	f.says |= gaps
}
