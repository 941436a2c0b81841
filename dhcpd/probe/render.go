package probe

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// RawOption is one instance of an option as it stands on the wire.
type RawOption struct {
	Code uint8
	Data []byte
}

// Options lists the options in the order of the wire. What the walk cannot
// read, or finds after the end, is the rest; zeros there are only padding.
func Options(message []byte) (list []RawOption, rest []byte) {
	if len(message) < headerLen {
		return nil, message
	}
	b := message[headerLen:]
	for len(b) > 0 && b[0] != 255 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return list, b
		}
		list = append(list, RawOption{b[0], b[2 : 2+int(b[1])]})
		b = b[2+int(b[1]):]
	}
	if len(b) > 0 {
		b = b[1:] // End
	}
	if strings.Trim(string(b), "\x00") == "" {
		return list, nil
	}
	return list, b
}

// Text renders the option: its name and its value.
func (o RawOption) Text() string {
	s := strings.TrimSpace(dhcpv4.Options{o.Code: o.Data}.Summary(nil))
	s = strings.TrimPrefix(s, "Option ")
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// Type returns the name of the message type: DISCOVER, OFFER, ...
func (p *Packet) Type() string {
	list, _ := Options(p.Payload)
	for _, o := range list {
		if o.Code == 53 && len(o.Data) == 1 {
			return dhcpv4.MessageType(o.Data[0]).String()
		}
	}
	return "not DHCP"
}

// Text renders the whole message, one field or option a line, indented.
// Fields of the header that are zero are left out.
func (p *Packet) Text(indent string) string {
	if len(p.Payload) < headerLen {
		return indent + hex.EncodeToString(p.Payload) + "\n"
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, indent+format+"\n", args...) }
	m := p.Payload
	line("op %d, htype %d, hops %d, xid 0x%x, secs %d, flags 0x%02x%02x%s", m[0], m[1], m[3], m[4:8],
		int(m[8])<<8|int(m[9]), m[10], m[11], map[bool]string{true: " (broadcast)"}[m[10]&0x80 != 0])
	for i, name := range []string{"ciaddr", "yiaddr", "siaddr", "giaddr"} {
		if ip := net.IP(m[12+4*i : 16+4*i]); !ip.IsUnspecified() {
			line("%s %s", name, ip)
		}
	}
	line("chaddr %s", net.HardwareAddr(m[28:28+min(int(m[2]), 16)]))
	for _, f := range []struct {
		name string
		b    []byte
	}{{"sname", m[44:108]}, {"file", m[108:236]}} {
		if s := strings.TrimRight(string(f.b), "\x00"); s != "" {
			line("%s %q", f.name, s)
		}
	}
	list, rest := Options(m)
	for _, o := range list {
		line("option %3d  %s", o.Code, strings.ReplaceAll(o.Text(), "\n", "\n"+indent+"            "))
	}
	if len(rest) > 0 {
		line("unreadable %s", hex.EncodeToString(rest))
	}
	return b.String()
}
