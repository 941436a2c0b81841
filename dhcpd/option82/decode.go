package option82

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// Fault says why a profile could not read an option 82. The zero value: it could.
type Fault uint8

// The faults.
const (
	FaultNone        Fault = iota
	FaultLayout            // the bytes have another layout
	FaultSwitch            // the remote-id does not name a switch in the form of the profile
	FaultUnit              // a unit beyond the first: its ports have no numbers without unit_ports
	FaultSlot              // a slot or module beyond the first, whose ports would be taken for others
	FaultNumber            // no port of the unit has this number
	FaultVLAN              // where the layout has a VLAN there is a number that no VLAN has
	FaultTwoSwitches       // the remote-id is the MAC of one switch and the name of another
	FaultClient            // the remote-id is a switch's, and the client's own MAC
)

// String says it in a sentence's part.
func (f Fault) String() string {
	switch f {
	case FaultNone:
		return "read"
	case FaultLayout:
		return "the bytes have another layout"
	case FaultSwitch:
		return "the remote-id does not name a switch in this form"
	case FaultUnit:
		return "ports beyond the first unit have no number without unit_ports or port_name"
	case FaultSlot:
		return "ports beyond the first slot have no number without port_name"
	case FaultVLAN:
		return "the bytes have another layout: they would say a VLAN above 4094"
	case FaultTwoSwitches:
		return "the remote-id is the MAC of one switch and the name of another"
	case FaultClient:
		return "the remote-id is the client's own MAC, and the ERP has a switch by it"
	}
	return "no port of the unit can have this number"
}

// SwitchKind says by what a switch is named.
type SwitchKind uint8

// The kinds.
const (
	ByNothing SwitchKind = iota // not read
	ByRelay                     // not named: the relay's address does
	ByMAC
	ByIP
	ByName
)

// Switch is the name of a switch.
type Switch struct {
	Kind SwitchKind
	MAC  [6]byte
	IP   netip.Addr
	Name []byte // beside a MAC or an address: what to look for if nothing has those
	// Unsure: the name is six bytes that are MAC, too. Which of them it is only the
	// switches can tell that there are.
	Unsure bool
}

// Decoded is what option 82 says. Its slices point into the packet or into the
// value itself, which must therefore not be copied while PortName is in use.
type Decoded struct {
	Switch    Switch
	HasNumber bool   // Port is a number: the port is found by it, else by PortName
	Port      uint32 // as the ERP counts: with offset and units
	PortName  []byte // interface name
	PortAlias []byte // the same six bytes read as text, or as a MAC; nil: there is no doubt
	Sent      uint32 // port as sent
	Unit      uint32 // stack member, chassis slot or PON port, as sent
	Slot      uint32 // module in the unit, as sent
	VLAN      uint16
	CVLAN     uint16 // inner VLAN
	Host      []byte // name of the switch
	Serial    []byte
	ONU       []byte // text
	MAC       [6]byte
	HasMAC    bool
	ONUMAC    [6]byte // remote-id where it does not name the switch
	HasONUMAC bool

	ip     netip.Addr
	buffer [255]byte // of PortName
}

// capture takes over what a field of a template matched.
func (o *Decoded) capture(f field, b []byte) {
	n, _ := number(b, f)
	switch f {
	case fieldPort:
		o.Sent, o.HasNumber = n, true
	case fieldUnit:
		o.Unit = n
	case fieldSlot:
		o.Slot = n
	case fieldVLAN:
		o.VLAN = uint16(n)
	case fieldCVLAN:
		o.CVLAN = uint16(n)
	case fieldHost:
		o.Host = b
	case fieldIface:
		o.PortName = b
	case fieldSerial:
		o.Serial = b
	case fieldONU:
		o.ONU = b
	case fieldMAC:
		o.MAC, o.HasMAC = wire.ParseTextMAC(b)
	case fieldIP:
		o.ip, _ = wire.ParseTextIPv4(b)
	}
}

// Decode reads r by the profile into out, without allocating. With a fault the
// Switch of out is still what the remote-id names, unless the profile does not find it there.
func (d *Decoder) Decode(r *wire.RelayInfo, out *Decoded) Fault {
	*out = Decoded{}
	named := d.switchOf(r.RemoteID, out)
	if !named && d.p.Switch != SwitchPort || out.Switch.Kind == ByRelay && !d.RelayMayName() {
		return FaultSwitch
	}
	value := r.CircuitID
	switch d.p.PortIn {
	case InRemoteID:
		value = r.RemoteID
	case InSubscriberID:
		value = r.RelaySubscriberID
	}
	if f := d.read(d, value, out); f != FaultNone {
		return f
	}
	if out.VLAN > wire.MaxVLAN {
		return FaultVLAN
	}
	if d.p.Switch == SwitchPort && !out.nameSwitch() {
		return FaultSwitch
	}
	return d.number(out)
}

// RelayMayName reports whether the relay's address may name the switch where the
// remote-id does not. A profile that does not read the port must not fall back so:
// its port on the relay is another customer's.
func (d *Decoder) RelayMayName() bool { return d.p.Layout != LayoutIgnore || d.p.Switch == SwitchRelay }

// ReadsRemote reports whether the switch is looked for in the remote-id.
func (d *Decoder) ReadsRemote() bool { return d.p.Switch != SwitchPort && d.p.Switch != SwitchRelay }

// nameSwitch takes the switch from what was captured.
func (o *Decoded) nameSwitch() bool {
	switch {
	case o.HasMAC:
		o.Switch = Switch{Kind: ByMAC, MAC: o.MAC}
	case o.ip.IsValid():
		o.Switch = Switch{Kind: ByIP, IP: o.ip}
	case len(o.Host) > 0:
		o.Switch = Switch{Kind: ByName, Name: o.Host}
	default:
		return false
	}
	return true
}

// switchOf reads the remote-id by the form of the profile.
func (d *Decoder) switchOf(v []byte, out *Decoded) bool {
	form := d.p.Switch
	if form == SwitchPort {
		return false
	}
	if len(v) == 0 {
		out.Switch.Kind = ByRelay
		return true
	}
	switch form {
	case SwitchEnterprise:
		if len(v) < 9 || len(v) > 12 || v[0] != 0 {
			return false
		}
		out.Switch = Switch{Kind: ByMAC, MAC: [6]byte(v[len(v)-6:])}
		return true
	case SwitchTemplate:
		text, ok := wire.DecodeText(v)
		if !ok || !matchAny(d.remote, text, out) {
			return false
		}
		return out.nameSwitch()
	}
	remote := wire.DecodeRemote(v)
	if form == SwitchRelay {
		out.Switch.Kind = ByRelay
		out.ONUMAC, out.HasONUMAC = remote.MAC, remote.Kind == wire.RemoteMAC
		return true
	}
	switch {
	case form == SwitchPrefix && remote.Kind == wire.RemoteOpaque && len(v) > 6:
		out.Switch = Switch{Kind: ByMAC, MAC: [6]byte(v)}
	case remote.Kind == wire.RemoteMAC && form != SwitchName:
		out.Switch = Switch{Kind: ByMAC, MAC: remote.MAC}
		if form == SwitchAny {
			out.Switch.Name, out.Switch.Unsure = remote.Text, remote.Unsure
		}
	case form == SwitchPrefix:
		return false
	case remote.Kind == wire.RemoteIP && form != SwitchName:
		out.Switch = Switch{Kind: ByIP, IP: remote.IP}
		if form == SwitchAny {
			out.Switch.Name = remote.Text
		}
	case len(remote.Text) > 0 && form != SwitchID:
		out.Switch = Switch{Kind: ByName, Name: remote.Text, MAC: remote.MAC, Unsure: remote.Unsure}
	default:
		return false
	}
	return true
}

func matchAny(list []*Template, text []byte, out *Decoded) bool {
	for _, t := range list {
		if t.match(text, out) {
			return true
		}
	}
	return false
}

// number turns unit and port as sent into what the ERP has.
func (d *Decoder) number(out *Decoded) Fault {
	unit := int64(out.Unit) + int64(d.p.UnitOffset)
	port := int64(out.Sent) + int64(d.p.PortOffset)
	if d.name != nil {
		out.HasNumber = false
		return d.format(out, unit, port)
	}
	if !out.HasNumber {
		if len(out.PortName) == 0 {
			return FaultLayout
		}
		return FaultNone
	}
	if out.Slot != 0 {
		return FaultSlot
	}
	if d.p.UnitPorts == 0 {
		if unit < 0 || unit > 1 {
			return FaultUnit
		}
	} else {
		if unit < 0 || port > int64(d.p.UnitPorts) {
			return FaultNumber
		}
		if port > 0 { // else no port: not the last one of the unit before
			port += (max(unit, 1) - 1) * int64(d.p.UnitPorts)
		}
	}
	if port < 0 || port > 1<<32-1 {
		return FaultNumber
	}
	out.Port = uint32(port) // zero is sent by boxes that do not know: no port has it
	return FaultNone
}

// slotIsUnit reports whether the layout has one place beside the port and calls it slot.
func (d *Decoder) slotIsUnit() bool {
	return d.p.Layout == LayoutDLinkVendor1 || d.p.Layout == LayoutZyxel
}

// room is what one number or MAC of a name needs at most.
const room = 20

// format writes the interface's name.
func (d *Decoder) format(out *Decoded, unit, port int64) Fault {
	b, iface := out.buffer[:0], out.PortName
	for i := range d.name {
		p := &d.name[i]
		text := out.text(p.field, iface)
		if len(b)+len(p.lit)+len(text)+room > len(out.buffer) {
			return FaultNumber
		}
		switch {
		case p.field == fieldLiteral:
			b = append(b, p.lit...)
		case p.field.number():
			n := out.value(p.field, unit, port)
			if p.field == fieldSlot && d.slotIsUnit() {
				n = unit
			}
			if n < 0 {
				return FaultNumber
			}
			b = appendPadded(b, n, p.width)
		case len(text) > 0:
			b = append(b, text...)
		case p.field == fieldONU && out.HasONUMAC:
			b = appendMAC(b, out.ONUMAC)
		case p.field == fieldMAC && out.HasMAC:
			b = appendMAC(b, out.MAC)
		default:
			return FaultLayout
		}
	}
	out.PortName = b
	return FaultNone
}

// text returns a captured field of text, empty for others.
func (o *Decoded) text(f field, iface []byte) []byte {
	switch f {
	case fieldHost:
		return o.Host
	case fieldIface:
		return iface
	case fieldSerial:
		return o.Serial
	case fieldONU:
		return o.ONU
	}
	return nil
}

// value returns a number; unit and port are those with the offsets.
func (o *Decoded) value(f field, unit, port int64) int64 {
	switch f {
	case fieldPort:
		return port
	case fieldUnit:
		return unit
	case fieldSlot:
		return int64(o.Slot)
	case fieldVLAN:
		return int64(o.VLAN)
	}
	return int64(o.CVLAN)
}

func appendPadded(b []byte, n int64, width int) []byte {
	digits := 1
	for x := n; x >= 10; x /= 10 {
		digits++
	}
	for ; digits < width; digits++ {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, n, 10)
}

const hexDigits = "0123456789abcdef"

func appendMAC(b []byte, mac [6]byte) []byte {
	for i, c := range mac {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}

// reader returns the function that reads a layout, nil if there is no such layout.
func reader(l Layout) func(*Decoder, []byte, *Decoded) Fault {
	switch l {
	case LayoutWrappedUnitPort:
		return fixed(6, 0, 4, func(v []byte, o *Decoded) { o.vlan(v[2:]).unitPort(v[4], uint32(v[5])) })
	case LayoutWrappedPort:
		return fixed(6, 0, 4, func(v []byte, o *Decoded) { o.vlan(v[2:]).unitPort(0, be16(v[4:])) })
	case LayoutWrappedSlotPort:
		return fixed(6, 0, 4, func(v []byte, o *Decoded) {
			o.vlan(v[2:]).unitPort(v[4]>>3, uint32(v[5]))
			o.Slot = uint32(v[4] & 7)
		})
	case LayoutWrappedModulePort:
		return fixed(8, 0, 6, func(v []byte, o *Decoded) {
			o.vlan(v[2:]).unitPort(v[4], be16(v[6:]))
			o.Slot = uint32(v[5])
		})
	case LayoutUnitPort:
		return fixed(4, -1, -1, func(v []byte, o *Decoded) { o.vlan(v).unitPort(v[2], uint32(v[3])) })
	case LayoutVLANPort:
		return fixed(4, -1, -1, func(v []byte, o *Decoded) { o.vlan(v).unitPort(0, be16(v[2:])) })
	case LayoutMoxa:
		return fixed(4, 1, -1, func(v []byte, o *Decoded) { o.vlan(v[1:]).unitPort(0, uint32(v[3])) })
	case LayoutEPON:
		return fixed(5, -1, -1, func(v []byte, o *Decoded) {
			o.vlan(v).unitPort(v[3], uint32(v[4]))
			o.Slot = uint32(v[2])
		})
	case LayoutPort:
		return fixed(2, -1, -1, func(v []byte, o *Decoded) { o.unitPort(0, be16(v)) })
	case LayoutIndex:
		return fixed(4, -1, -1, func(v []byte, o *Decoded) { o.unitPort(0, binary.BigEndian.Uint32(v)) })
	case LayoutMAC:
		return fixed(6, -1, -1, func(v []byte, o *Decoded) {
			o.MAC, o.HasMAC = [6]byte(v), true
			o.PortAlias, _ = wire.DecodeText(v)
		})
	case LayoutIOS:
		return fixed(10, 0, 0, func(v []byte, o *Decoded) {
			o.ip = netip.AddrFrom4([4]byte(v[2:]))
			o.vlan(v[8:]).unitPort(0, uint32(v[6]))
			o.Slot = uint32(v[7])
		})
	case LayoutZyxel:
		return readZyxel
	case LayoutDLinkVendor1:
		return readVendor1
	case LayoutDLinkVendor2:
		return readVendor2
	case LayoutText:
		return readText
	case LayoutIgnore:
		return func(_ *Decoder, _ []byte, o *Decoded) Fault { o.unitPort(0, 0); return FaultNone }
	}
	return nil
}

// fixed reads a value of a fixed length; its first bytes must be b0 and b1 unless they are negative.
func fixed(length, b0, b1 int, read func([]byte, *Decoded)) func(*Decoder, []byte, *Decoded) Fault {
	return func(_ *Decoder, v []byte, o *Decoded) Fault {
		if len(v) != length || b0 >= 0 && int(v[0]) != b0 || b1 >= 0 && int(v[1]) != b1 {
			return FaultLayout
		}
		read(v, o)
		return FaultNone
	}
}

func be16(v []byte) uint32 { return uint32(binary.BigEndian.Uint16(v)) }

func (o *Decoded) vlan(v []byte) *Decoded {
	o.VLAN = binary.BigEndian.Uint16(v)
	return o
}

func (o *Decoded) unitPort(unit byte, port uint32) {
	o.Unit, o.Sent, o.HasNumber = uint32(unit), port, true
}

func readZyxel(_ *Decoder, v []byte, o *Decoded) Fault {
	if len(v) < 4 || len(v) > 28 {
		return FaultLayout
	}
	if len(v) > 4 {
		text, ok := wire.DecodeText(v[4:])
		if !ok {
			return FaultLayout
		}
		o.Host = text
	}
	o.vlan(v[2:]).unitPort(v[0], uint32(v[1]))
	return FaultNone
}

func readVendor1(_ *Decoder, v []byte, o *Decoded) Fault {
	if len(v) != 16 || v[0] != 0 || v[1] != 6 || v[8] != 1 || v[9] != 6 {
		return FaultLayout
	}
	o.vlan(v[2:])
	o.Unit, o.Sent, o.HasNumber = be16(v[4:]), be16(v[6:]), true
	o.MAC, o.HasMAC = [6]byte(v[10:]), true
	return FaultNone
}

// vendor2Ports is how many ports of its count D-Link's vendor2 gives every unit of a stack.
const vendor2Ports = 64

func readVendor2(_ *Decoder, v []byte, o *Decoded) Fault {
	text, ok := wire.DecodeText(v)
	if !ok || len(text) < 3 || len(text) > 6 || text[0] != 'p' {
		return FaultLayout
	}
	n := uint32(0)
	for _, c := range text[1:] {
		if c < '0' || c > '9' {
			return FaultLayout
		}
		n = n*10 + uint32(c-'0')
	}
	if n == 0 {
		return FaultNumber
	}
	o.Unit, o.Sent, o.HasNumber = (n-1)/vendor2Ports+1, (n-1)%vendor2Ports+1, true
	return FaultNone
}

func readText(d *Decoder, v []byte, o *Decoded) Fault {
	text, ok := wire.DecodeText(v)
	if !ok {
		return FaultLayout
	}
	if len(d.templates) == 0 {
		o.PortName = text
		if len(v) == 6 && d.name == nil {
			o.PortAlias = appendMAC(o.buffer[:0], [6]byte(v))
		}
		return FaultNone
	}
	if !matchAny(d.templates, text, o) {
		return FaultLayout
	}
	return FaultNone
}
