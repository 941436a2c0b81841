package dhcpd

import (
	"fmt"
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Reading is what one profile makes of an option 82, and what the ERP has there.
type Reading struct {
	Profile    string                 `json:"profile"`
	Vendor     string                 `json:"vendor"`
	Confidence string                 `json:"confidence"` // see option82.Confidence
	Text       string                 `json:"text"`       // what was read
	Device     provision.DeviceID     `json:"device,omitempty"`
	DeviceName string                 `json:"device_name,omitempty"`
	Port       uint32                 `json:"port,omitempty"`      // as the ERP counts
	PortName   string                 `json:"port_name,omitempty"` // where ports are found by name
	Result     string                 `json:"result"`              // bound, unknown_port, unknown_device or option82_unread
	Addresses  []netip.Addr           `json:"addresses,omitempty"` // that the ERP binds to the port
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
}

// Option82Profiles gives the profiles of the configuration that are not ready
// ones, in its order.
func (s *Server) Option82Profiles() []option82.Profile {
	set := s.settings.Load()
	var out []option82.Profile
	seen := map[string]bool{}
	add := func(d *option82.Decoder) {
		if _, ready := option82.Find(d.Name()); !ready && !seen[d.Name()] {
			seen[d.Name()] = true
			out = append(out, d.Profile())
		}
	}
	for i := range set.option82.rules {
		add(set.option82.rules[i].dec)
	}
	for _, d := range set.option82.defaults {
		add(d)
	}
	return out
}

// ResultBound is the Result of a Reading whose port has an address.
const ResultBound = "bound"

// ReadOption82 reads a payload by every one of profiles that can, in their
// order, and says what snap, which may be nil, has for each. giaddr may be
// invalid. An error says that the sub-options do not fill the payload.
func ReadOption82(payload []byte, giaddr netip.Addr, snap *provision.Snapshot, profiles []option82.Profile) ([]Reading, error) {
	if len(payload) == 0 || len(payload) > 255 {
		return nil, fmt.Errorf("option 82 of %d bytes; want 1 to 255", len(payload))
	}
	if giaddr.IsValid() && !giaddr.Is4() {
		return nil, fmt.Errorf("relay address %v: want IPv4", giaddr)
	}
	ask := wire.Query{Type: wire.Discover, XID: explainXID, MAC: provision.MAC{0x02}, GIAddr: giaddr, Option82: payload}
	r := &request{}
	if r.parse(ask.Append(nil)); r.relayErr != nil {
		return nil, fmt.Errorf("option 82: %w", r.relayErr)
	}
	out := []Reading{}
	for _, p := range profiles {
		dec, err := option82.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", p.Name, err)
		}
		loc, _ := readPort(dec, r, provision.MAC{0x02}, snap)
		if loc.fault != option82.FaultNone {
			continue
		}
		v := Reading{
			Profile: p.Name, Vendor: p.Vendor, Confidence: string(p.Confidence), Text: r.decoded.Describe(),
			Device: loc.device, Port: loc.port, Result: loc.failed.String(),
		}
		if r.decoded.HasNumber {
			v.Port = r.decoded.Port
		} else {
			v.PortName = string(r.decoded.PortName)
		}
		if dev := snap.Device(loc.device); dev != nil {
			v.DeviceName = dev.Name
		}
		for _, b := range loc.rows {
			v.Result, v.Subscriber = ResultBound, b.Subscriber
			v.Addresses = append(v.Addresses, b.IP)
		}
		out = append(out, v)
	}
	return out, nil
}
