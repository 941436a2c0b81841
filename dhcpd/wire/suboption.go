package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// SubOption is a sub-option of option 82 as sent. ParseRelayInfo is for the
// packet path; this is for people, who want to see all of them.
type SubOption struct {
	Code  uint8
	Value []byte
}

// SubOptions returns the sub-options of a payload of option 82 in their order, or ErrSubOption.
func SubOptions(payload []byte) ([]SubOption, error) {
	var out []SubOption
	for rest := payload; len(rest) > 0; {
		var s SubOption
		var ok bool
		if s.Code, s.Value, rest, ok = nextSubOption(rest); !ok {
			return nil, ErrSubOption
		}
		out = append(out, s)
	}
	return out, nil
}

// Name returns what the RFCs call it, empty for what is not known here.
func (s SubOption) Name() string {
	switch s.Code {
	case SubCircuitID:
		return "circuit-id"
	case SubRemoteID:
		return "remote-id"
	case SubLinkSelection:
		return "link-selection"
	case SubSubscriberID:
		return "subscriber-id"
	case SubVendor:
		return "vendor-specific"
	case SubFlags:
		return "flags"
	case SubServerOverride:
		return "server-id-override"
	case SubRelayID:
		return "relay-id"
	case SubRelaySourcePort:
		return "source-port"
	case SubVSS:
		return "vss"
	case SubVSSControl:
		return "vss-control"
	}
	return ""
}

// FirstCounts reports whether a second one like it is left out of account.
func (s SubOption) FirstCounts() bool {
	switch s.Code {
	case SubCircuitID, SubRemoteID, SubLinkSelection, SubSubscriberID, SubFlags, SubServerOverride, SubRelayID, SubVSS:
		return true
	}
	return false
}

// Finds reports whether somebody is found by a sub-option like it, so that two with two values are refused; see RelayInfo.Twice.
func (s SubOption) Finds() bool {
	return s.FirstCounts() && s.Code != SubFlags && s.Code != SubRelayID
}

// Describe says in words for people what the value says; fault, why nothing is made of it.
func (s SubOption) Describe() (text, fault string) {
	v := s.Value
	switch s.Code {
	case SubCircuitID:
		return DecodeCircuit(v).Describe(), ""
	case SubRemoteID:
		return DecodeRemote(v).Describe(), ""
	case SubLinkSelection, SubServerOverride:
		if len(v) != 4 {
			return "", "want the 4 bytes of an address"
		}
		if ip := nonZero(v); ip.IsValid() {
			return "address " + ip.String(), ""
		}
		return "", "0.0.0.0 is no address"
	case SubVendor:
		return describeVendor(v)
	case SubFlags:
		if len(v) != 1 {
			return "", "want 1 byte"
		}
		return "received by " + castOf(v[0]).String(), ""
	case SubRelaySourcePort:
		return "replies to its source port", ""
	case SubVSS:
		return describeVSS(v), ""
	case SubVSSControl:
		return "asks whether vss was looked at", ""
	}
	return textOrHex(v), ""
}

// describeVendor reads enterprise numbers with their data (RFC 4243).
func describeVendor(v []byte) (text, fault string) {
	var list []string
	for len(v) > 0 {
		if len(v) < 5 || len(v)-5 < int(v[4]) {
			return "", "want enterprise numbers, each with a length and its data"
		}
		end := 5 + int(v[4])
		list = append(list, fmt.Sprintf("enterprise %d %s", binary.BigEndian.Uint32(v), textOrHex(v[5:end])))
		v = v[end:]
	}
	return strings.Join(list, ", "), ""
}

// Describe lists the sub-options beside circuit-id and remote-id that are made use of.
func (r *RelayInfo) Describe() string {
	var list []string
	add := func(there bool, format string, args ...any) {
		if there {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(r.Link.IsValid(), "link %s", r.Link)
	add(r.Override.IsValid(), "server identifier %s", r.Override)
	add(r.RelaySubscriberID != nil, "subscriber-id %s", textOrHex(r.RelaySubscriberID))
	add(r.RelayID != nil, "relay-id %s", textOrHex(r.RelayID))
	add(r.Cast != CastNone, "received by %s", r.Cast)
	add(r.SourcePort, "replies to its source port")
	if r.VSS != nil {
		list = append(list, describeVSS(r.VSS))
	}
	return strings.Join(list, ", ")
}

func describeVSS(v []byte) string {
	vss, ok := DecodeVSS(v)
	switch {
	case !ok:
		return fmt.Sprintf("VPN 0x%x", v)
	case vss.Global:
		return "global address space"
	case vss.HasID:
		return fmt.Sprintf("VPN %x", vss.ID)
	}
	return fmt.Sprintf("VPN %+q", vss.Name) // not always ASCII, as it should be
}

func textOrHex(v []byte) string {
	if text, ok := DecodeText(v); ok && len(text) == len(v) {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("0x%x", v)
}

// Describe says how the circuit-id was read.
func (c Circuit) Describe() string {
	switch c.Kind {
	case CircuitPort:
		return fmt.Sprintf("vlan %d unit %d port %d", c.VLAN, c.Unit, c.Port)
	case CircuitText:
		return fmt.Sprintf("text %q", c.Text)
	}
	return c.Kind.String()
}

// Describe says how the remote-id was read.
func (r Remote) Describe() string {
	switch r.Kind {
	case RemoteMAC:
		mac := "mac " + macText(r.MAC[:])
		if r.Unsure {
			return fmt.Sprintf("%s or text %q", mac, r.Text)
		}
		return mac
	case RemoteIP:
		return "address " + r.IP.String()
	case RemoteText:
		return fmt.Sprintf("text %q", r.Text)
	}
	return r.Kind.String()
}
