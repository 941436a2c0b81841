package line

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

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
	Result     Result                 `json:"result"`
	Addresses  []netip.Addr           `json:"addresses,omitempty"` // that the ERP binds to the port
	Subscriber provision.SubscriberID `json:"subscriber,omitempty"`
}

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
	ask := wire.Query{Type: wire.Discover, MAC: provision.MAC{0x02}, GIAddr: giaddr, Option82: payload}
	asked := &Packet{}
	if asked.Read(ask.Append(nil)); asked.RelayErr != nil {
		return nil, fmt.Errorf("option 82: %w", asked.RelayErr)
	}
	out := []Reading{}
	for _, p := range profiles {
		dec, err := option82.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", p.Name, err)
		}
		loc, _ := readPort(dec, asked, asked.client(), snap)
		if loc.Fault != option82.FaultNone {
			continue
		}
		v := Reading{
			Profile: p.Name, Vendor: p.Vendor, Confidence: string(p.Confidence), Text: asked.decoded.Describe(),
			Device: loc.Device, Port: loc.Port, Result: loc.Result,
		}
		if asked.decoded.HasNumber {
			v.Port = asked.decoded.Port
		} else {
			v.PortName = string(asked.decoded.PortName)
		}
		if dev := snap.Device(loc.Device); dev != nil {
			v.DeviceName = dev.Name
		}
		for l := range loc.Lines.All() {
			for ip := range l.Hosts4() {
				v.Addresses = append(v.Addresses, ip)
			}
		}
		slices.SortFunc(v.Addresses, netip.Addr.Compare)
		if n := len(v.Addresses); n > 0 {
			v.Subscriber = snap.ByIP(v.Addresses[n-1]).Subscriber
		}
		out = append(out, v)
	}
	return out, nil
}

// SubOption is a sub-option of option 82 as sent.
type SubOption struct {
	Code  uint8  `json:"code"`
	Name  string `json:"name,omitempty"`  // as the RFCs call it; empty: not known here
	Value string `json:"value"`           // hexadecimal
	Text  string `json:"text,omitempty"`  // what it says
	Fault string `json:"fault,omitempty"` // why it is left out of account
}

// SubOptions returns every sub-option of a payload, in their order.
func SubOptions(payload []byte) ([]SubOption, error) {
	list, err := wire.SubOptions(payload)
	if err != nil {
		return nil, fmt.Errorf("option 82: %w", err)
	}
	out := []SubOption{}
	counted := map[uint8]string{} // of the sub-options with a value of which one was used
	for _, s := range list {
		v := SubOption{Code: s.Code, Name: s.Name(), Value: hex.EncodeToString(s.Value)}
		v.Text, v.Fault = s.Describe()
		if v.Fault == "" && s.FirstCounts() {
			switch first, again := counted[s.Code]; {
			case !again:
				counted[s.Code] = v.Value
			case first != v.Value && s.Finds():
				v.Fault = "repeated with another value: such a packet is refused"
			default:
				v.Fault = "repeated: the first counts"
			}
		}
		out = append(out, v)
	}
	return out, nil
}
