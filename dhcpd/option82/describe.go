package option82

import (
	"fmt"
	"strings"
)

// Describe says what was read, for people: first the switch, then the port.
// It is what the vectors of the catalogue are compared with.
func (o *Decoded) Describe() string {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	s = append(s, o.Switch.String())
	if o.HasNumber {
		add("port %d", o.Port)
		if o.Port != o.Sent {
			add("sent as %d", o.Sent)
		}
		add("unit %d", o.Unit)
		if o.Slot != 0 {
			add("slot %d", o.Slot)
		}
	} else if len(o.PortName) > 0 {
		add("port %q", o.PortName)
		if len(o.PortAlias) > 0 {
			s[len(s)-1] += fmt.Sprintf(" or %q", o.PortAlias)
		}
	}
	if o.VLAN != 0 {
		add("vlan %d", o.VLAN)
	}
	if o.CVLAN != 0 {
		add("inner vlan %d", o.CVLAN)
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{"host", o.Host}, {"serial", o.Serial}, {"onu", o.ONU}} {
		if len(f.text) > 0 {
			add("%s %q", f.name, f.text)
		}
	}
	if o.HasONUMAC {
		add("onu %s", appendMAC(nil, o.ONUMAC))
	}
	return strings.Join(s, ", ")
}

// String says by what the switch is named.
func (s Switch) String() string {
	switch s.Kind {
	case ByRelay:
		return "switch by relay address"
	case ByMAC:
		mac := "switch " + string(appendMAC(nil, s.MAC))
		if s.Unsure {
			return fmt.Sprintf("%s or %q", mac, s.Name)
		}
		return mac
	case ByIP:
		return "switch " + s.IP.String()
	case ByName:
		return fmt.Sprintf("switch %q", s.Name)
	}
	return "no switch"
}
