package line

import (
	"fmt"
	"slices"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/provision"
)

// Location is where the client of a packet is attached, as far as the packet and
// its interface tell, and whom the ERP has there.
type Location struct {
	Device provision.DeviceID // that option 82 names; zero: not known
	Port   uint32             // number as the ERP counts, or as it has it for a name; zero: not known
	VLAN   uint16             // that the interface is named after; zero: not told

	Lines provision.Lines // that the ERP has on the port; one with an address unless Result is less than Bound

	Result  Result         // how far option 82 led
	Profile string         // what read it, or the first that could not; empty: no option 82
	Fault   option82.Fault // why it could not
}

// Result is how far option 82 led.
type Result uint8

// The results. Each needs what those before it found out.
const (
	NoOption82    Result = iota // there is none
	Unread                      // no profile could read it
	DevicesUnread               // nobody is found, and the ERP's list of switches was never read: it may have switch and port
	UnknownDevice               // the ERP does not have the switch
	UnknownPort                 // the ERP binds no address to the port
	Bound                       // the ERP binds an address to the port
)

// String returns no_option82, option82_unread, devices_unread, unknown_device, unknown_port or bound.
func (r Result) String() string { return resultWords()[r] }

func resultWords() []string {
	return []string{"no_option82", "option82_unread", "devices_unread", "unknown_device", "unknown_port", "bound"}
}

// MarshalText implements encoding.TextMarshaler by String.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Result) UnmarshalText(b []byte) error {
	i := slices.Index(resultWords(), string(b))
	if i < 0 {
		return fmt.Errorf("result %q: no such result", b)
	}
	*r = Result(i)
	return nil
}

// find looks up whom the ERP has on the port, by number or, without one, by name.
func (l *Location) find(snap *provision.Snapshot, name []byte) {
	if len(name) == 0 {
		l.Lines = snap.ByPort(l.Device, l.Port)
	} else if l.Lines = snap.ByPortName(l.Device, name); l.Lines.Len() > 0 {
		l.Port = l.Lines.At(0).Port
	}
	if l.Lines.Len() > 0 && !l.Lines.At(0).Vacant() { // the vacant ones come last
		l.Result = Bound
	}
}
