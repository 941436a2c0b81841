package userside

import (
	"context"
	"strings"
	"time"
)

// DeviceLookup names what FindDevice searches by. additional_field_12 is
// additional field 12.
type DeviceLookup string

// The lookups of API page section 5.2.
const (
	DeviceByIP        DeviceLookup = "ip"
	DeviceByMAC       DeviceLookup = "mac"
	DeviceByInventory DeviceLookup = "inventory_number"
	DeviceBySerial    DeviceLookup = "serial_number"
)

// FindDevice calls device get_device_id. objectType is switch, onu, olt, radio or
// all. No hit is ErrNotFound.
func (c *Client) FindDevice(ctx context.Context, objectType string, by DeviceLookup, what string) (IDs, error) {
	args := arguments{}.text("object_type", objectType).text("data_typer", string(by)).text("data_value", what)
	a, err := c.call(ctx, actDeviceFind, args.values(), sink{missing: missingFor(actDeviceFind.row())})
	if err != nil {
		return nil, err
	}
	ids := a.ids
	if len(ids) == 0 {
		ids, _ = listIDs(string(a.own()))
	}
	if len(ids) == 0 {
		return nil, c.notFound(actDeviceFind)
	}
	return ids, nil
}

// SeenMAC is a MAC that the ERP's polling saw on a port.
type SeenMAC struct {
	Device      int64
	MAC         MAC
	Port        String // interface name
	VLAN        Int
	First, Last time.Time
}

// DeviceMACs calls device get_mac_list: the MACs seen on the ports of a device;
// without ports on all of them. API page section 5.2.
func (c *Client) DeviceMACs(ctx context.Context, device int64, ports ...string) (*List[SeenMAC], error) {
	return readList(ctx, c, actDeviceMACs, arguments{}.id("object_id", device).text("interface_list", strings.Join(ports, ",")), seenMAC)
}

// FindMAC calls device find_mac: where a MAC was seen. API page section 5.2.
func (c *Client) FindMAC(ctx context.Context, mac MAC) (*List[SeenMAC], error) {
	return readList(ctx, c, actFindMAC, arguments{}.mac("mac", mac), seenMAC)
}

func seenMAC(r recordReader) (SeenMAC, bool) {
	s := SeenMAC{Device: r.id("device_id", "object_id"), MAC: r.mac("mac"), Port: r.string("port"), VLAN: r.int("vlan_id"),
		First: r.time("date_first"), Last: r.time("date_last")}
	return s, s.Device > 0 || s.MAC != (MAC{})
}

// ONT is an optical terminal. Raw has the levels and all else as it came.
type ONT struct {
	Device int64 // the OLT
	MAC    MAC
	Serial String
	Iface  String
	Level  Float // level_onu_rx, in dBm
	Raw    Map[any]
}

// ONT calls device get_ont_data: an optical terminal by its serial number or
// MAC. An unknown one is ErrNotFound. API page section 5.2.
func (c *Client) ONT(ctx context.Context, serialOrMAC string) (*ONT, error) {
	list, err := readList(ctx, c, actONT, arguments{}.text("id", serialOrMAC), func(r recordReader) (ONT, bool) {
		o := ONT{Device: r.id("device_id"), MAC: r.mac("mac"), Serial: r.string("sn"), Iface: r.string("iface_name"),
			Level: r.float("level_onu_rx"), Raw: objectOf(r.v)}
		return o, o.Device > 0 || o.Serial != "" || o.MAC != (MAC{})
	})
	switch {
	case err != nil:
		return nil, err
	case len(list.Rows) == 0:
		return nil, c.notFound(actONT)
	}
	return &list.Rows[0], nil
}
