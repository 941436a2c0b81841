package userside

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Device is one switch, OLT, ONU or radio (API page section 5.2), without its
// passwords, which are never asked for.
type Device struct {
	ID     int64
	Name   String
	Model  string     // empty: not told
	IP     netip.Addr // from host, else ip; invalid: none
	Host   String     // as the server has it: dotted, or a name
	MAC    MAC
	Online Bool
	Active time.Time
	Ifaces []Iface // sorted by Number
}

// Iface is one port of a Device.
type Iface struct {
	Number uint32 // the ERP's port number, as in commutation
	Name   string // ifName, such as ge-0/0/5
	Index  int64  // SNMP ifIndex
	Type   int64
}

// DeviceFilter says which devices to read.
type DeviceFilter struct {
	ObjectType string // switch, onu, olt, radio or all; empty: all
	ObjectID   int64  // 0: every one
	HideIfaces bool   // leave Ifaces out
}

// Devices is the answer of Devices.
type Devices struct {
	Devices []Device
	Defects Defects
}

// Devices calls device get_data, always with is_hide_access_data=1. Members are
// read by their exact keys: old servers repeat every column in upper case, with
// other values. API page section 5.2.
func (c *Client) Devices(ctx context.Context, filter DeviceFilter) (*Devices, error) {
	args := url.Values{"object_type": {"all"}, "is_hide_access_data": {"1"}}
	if filter.ObjectType != "" {
		args.Set("object_type", filter.ObjectType)
	}
	if filter.ObjectID != 0 {
		args.Set("object_id", strconv.FormatInt(filter.ObjectID, 10))
	}
	if filter.HideIfaces {
		args.Set("is_hide_ifaces_data", "1")
	}
	out := &Devices{}
	names := make(map[string]string)
	var byKey keyedRows
	member := func(key []byte, index int, v value) {
		at := &place{key: key, index: index}
		if v.kind() != kindObject {
			if !v.empty() {
				out.Defects.add(at.String(), v.kind().String()+" where a device is wanted")
			}
			return
		}
		r := recordReader{v: v, at: at, defects: &out.Defects, loc: c.opts.Location}
		d := r.device(names)
		d.ID = byKey.id(d.ID, key, len(out.Devices))
		if d.ID <= 0 {
			out.Defects.add(at.String(), "device without id")
			return
		}
		out.Devices = append(out.Devices, d)
	}
	to := sink{reset: func() { *out, byKey = Devices{}, keyedRows{} }, member: member}
	if filter.ObjectID != 0 {
		to.member = nil
		to.whole = func(v value) {
			if v.get("id").kind() != kindAbsent {
				member(nil, 0, v)
				return
			}
			i := 0
			for m := range v.all {
				member(m.key(), i, m)
				i++
			}
		}
	}
	a, err := c.call(ctx, actDeviceGetData, args, to)
	if err != nil {
		return nil, err
	}
	for _, i := range slices.Backward(byKey.counted()) {
		out.Devices = slices.Delete(out.Devices, i, i+1)
		out.Defects.add("data", "device without id, below a key that only counts")
	}
	if len(out.Devices) == 0 && out.Defects.Count > 0 {
		return nil, c.unknownShape(actDeviceGetData, a, "no device can be recognised")
	}
	return out, nil
}

func (r recordReader) device(names map[string]string) Device {
	d := Device{
		ID: r.id("id"), Name: r.string("name", "nazv"), Model: r.model(names), Host: r.string("host"), MAC: r.mac("mac"),
		Online: r.bool("is_online"), Active: r.time("activity_time"),
	}
	if ip, err := ParseIP(string(d.Host)); err == nil {
		d.IP = ip // otherwise the host is a name
	}
	if !d.IP.IsValid() {
		d.IP = field1(r, value.ip, "ip")
	}
	list := r.v.get("ifaces")
	i := 0
	for m := range list.all {
		in := r.in(m, "ifaces", i)
		i++
		if m.kind() != kindObject {
			continue
		}
		number := in.int("ifNumber")
		if !number.Set && list.kind() == kindObject {
			number.Value, _ = parseInt(m.key())
		}
		if number.Value <= 0 || number.Value > 1<<31 {
			continue // loopback and management interfaces have no port number
		}
		name := m.get("ifName")
		if name.empty() {
			name = m.get("ifDescr")
		}
		d.Ifaces = append(d.Ifaces, Iface{
			Number: uint32(number.Value), Name: intern(names, name), Index: in.int("ifIndex").Value, Type: in.int("ifType").Value,
		})
	}
	slices.SortStableFunc(d.Ifaces, func(a, b Iface) int { return int(int64(a.Number) - int64(b.Number)) })
	return d
}

// model returns the name of a device's model: text, or an object with a name. A
// number is that of a list of models which the API does not have.
func (r recordReader) model(names map[string]string) string {
	for _, key := range []string{"model", "model_name"} {
		v := r.v.get(key)
		if v.kind() == kindObject {
			v = v.get("name")
		}
		if v.kind() == kindString && !v.empty() {
			return intern(names, v)
		}
	}
	return ""
}

// intern keeps one copy of a name that thousands of ports share.
func intern(names map[string]string, v value) string {
	if v.composite() {
		return ""
	}
	b := v.bytes()
	if s, ok := names[string(b)]; ok {
		return s
	}
	s := String(v.text()).Text()
	names[string(b)] = s
	return s
}
