package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// The sub-options of option 82 that are read here.
const (
	SubCircuitID       = 1   // RFC 3046
	SubRemoteID        = 2   // RFC 3046
	SubLinkSelection   = 5   // RFC 3527
	SubSubscriberID    = 6   // RFC 3993
	SubVendor          = 9   // RFC 4243, only for people
	SubFlags           = 10  // RFC 5010
	SubServerOverride  = 11  // RFC 5107
	SubRelayID         = 12  // RFC 6925
	SubRelaySourcePort = 19  // RFC 8357
	SubVSS             = 151 // RFC 6607
	SubVSSControl      = 152 // RFC 6607
)

// RelayInfo is option 82 taken apart. Codes 0 and 255 are ordinary sub-options
// in it (RFC 3046 knows no pad and no end there). Of a repeated sub-option the first counts, but see Twice.
type RelayInfo struct {
	Raw        []byte
	CircuitID  []byte // value of sub-option 1; nil if absent, empty if of length 0
	RemoteID   []byte // value of sub-option 2
	Link       netip.Addr
	Override   netip.Addr // server identifier that replies must carry
	SourcePort bool       // the relay wants replies at the port it sent from

	// Twice is that a sub-option by which somebody is found is there twice, with two values: a relay that adds its own to what a client
	// wrote makes one option of both, in either order, and nobody can tell whose is whose.
	Twice bool

	RelaySubscriberID []byte // value of sub-option 6, text that the relay was told (RFC 3993)
	RelayID           []byte // value of sub-option 12: the relay's DUID or the like (RFC 6925)
	Cast              Cast   // how the client's message came to the relay (RFC 5010)

	// VSS is the value of sub-option 151: whose address space the client is in (RFC
	// 6607). It is not served here, so it goes back together with VSSControl,
	// by which the relay knows.
	VSS        []byte
	VSSControl bool
}

// Cast is how a relay received a message, as it says in sub-option 10.
type Cast uint8

// The ways; CastNone: the relay does not say.
const (
	CastNone Cast = iota
	CastBroadcast
	CastUnicast
)

func castOf(flags byte) Cast {
	if flags&0x80 != 0 {
		return CastUnicast
	}
	return CastBroadcast
}

// String returns broadcast, unicast or, if the relay does not say, nothing.
func (c Cast) String() string {
	switch c {
	case CastBroadcast:
		return "broadcast"
	case CastUnicast:
		return "unicast"
	}
	return ""
}

// VSSInfo is a virtual subnet selection as read (RFC 6607 section 3.4).
type VSSInfo struct {
	Global bool    // type 255: the global address space
	Name   []byte  // type 0: an ASCII name
	ID     [7]byte // type 1: an identifier of RFC 2685
	HasID  bool
}

// DecodeVSS reads the value of sub-option 151; ok is false if it has none of the known forms.
func DecodeVSS(v []byte) (i VSSInfo, ok bool) {
	switch {
	case len(v) > 1 && v[0] == 0:
		return VSSInfo{Name: v[1:]}, true
	case len(v) == 8 && v[0] == 1:
		return VSSInfo{ID: [7]byte(v[1:]), HasID: true}, true
	case len(v) == 1 && v[0] == 255:
		return VSSInfo{Global: true}, true
	}
	return VSSInfo{}, false
}

// ParseRelayInfo walks the payload of option 82. ErrSubOption says that the
// sub-options do not fill it exactly. An empty payload has no sub-options.
func ParseRelayInfo(b []byte) (RelayInfo, error) {
	r := RelayInfo{Raw: b}
	for rest := b; len(rest) > 0; {
		var code uint8
		var v []byte
		var ok bool
		if code, v, rest, ok = nextSubOption(rest); !ok {
			return RelayInfo{Raw: b}, ErrSubOption
		}
		n := len(v)
		switch {
		case code == SubCircuitID:
			r.once(&r.CircuitID, v)
		case code == SubRemoteID:
			r.once(&r.RemoteID, v)
		case code == SubLinkSelection && n == 4:
			r.onceAddr(&r.Link, v)
		case code == SubSubscriberID:
			r.once(&r.RelaySubscriberID, v)
		case code == SubServerOverride && n == 4:
			r.onceAddr(&r.Override, v)
		case code == SubFlags && n == 1 && r.Cast == CastNone:
			r.Cast = castOf(v[0])
		case code == SubRelayID && r.RelayID == nil:
			r.RelayID = v
		case code == SubRelaySourcePort:
			r.SourcePort = true
		case code == SubVSS:
			r.once(&r.VSS, v)
		case code == SubVSSControl:
			r.VSSControl = true
		}
	}
	return r, nil
}

// once takes the first value of a sub-option, and notes another one.
func (r *RelayInfo) once(have *[]byte, v []byte) {
	if *have == nil {
		*have = v
	} else if !bytes.Equal(*have, v) {
		r.Twice = true
	}
}

// onceAddr is once for an address; 0.0.0.0 is none.
func (r *RelayInfo) onceAddr(have *netip.Addr, v []byte) {
	a := nonZero(v)
	if !have.IsValid() {
		*have = a
	} else if a.IsValid() && a != *have {
		r.Twice = true
	}
}

// nextSubOption takes the first sub-option off b; ok is false if b is too short for it.
func nextSubOption(b []byte) (code uint8, v, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(b[1]) {
		return 0, nil, nil, false
	}
	end := 2 + int(b[1])
	return b[0], b[2:end:end], b[end:], true
}

func nonZero(v []byte) netip.Addr {
	if binary.BigEndian.Uint32(v) == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(v))
}

// CircuitKind says how a circuit-id was read.
type CircuitKind uint8

// The readings of a circuit-id. CircuitPort is family A of the known layouts
// (wrapped type 0, four bytes). Everything that is neither that nor text is opaque.
const (
	CircuitNone CircuitKind = iota
	CircuitPort
	CircuitText
	CircuitOpaque
)

// String returns none, port, text or opaque.
func (k CircuitKind) String() string {
	switch k {
	case CircuitNone:
		return "none"
	case CircuitPort:
		return "port"
	case CircuitText:
		return "text"
	}
	return "opaque"
}

// Circuit is a circuit-id as read.
type Circuit struct {
	Kind CircuitKind
	VLAN uint16 // of CircuitPort
	Unit uint8  // of CircuitPort: stack member or module
	Port uint8  // of CircuitPort: the byte as sent, before any port offset
	Text []byte // of CircuitText, without wrapping and trailing NULs
}

// MaxVLAN is the highest number of a VLAN (IEEE 802.1Q). Bytes that say a higher
// one say no VLAN at all.
const MaxVLAN = 4094

// DecodeCircuit reads the value of sub-option 1.
func DecodeCircuit(v []byte) Circuit {
	if len(v) == 0 {
		return Circuit{Kind: CircuitNone}
	}
	if len(v) == 6 && v[0] == 0 && v[1] == 4 {
		c := Circuit{
			Kind: CircuitPort,
			VLAN: binary.BigEndian.Uint16(v[2:]),
			Unit: v[4],
			Port: v[5],
		}
		if c.VLAN > MaxVLAN {
			return Circuit{Kind: CircuitOpaque}
		}
		return c
	}
	if text, ok := DecodeText(v); ok {
		return Circuit{Kind: CircuitText, Text: text}
	}
	return Circuit{Kind: CircuitOpaque}
}

// DecodeText reads bare text or text wrapped with type 1. Text may be padded with NULs.
func DecodeText(v []byte) ([]byte, bool) {
	if len(v) > 2 && v[0] == 1 && int(v[1]) == len(v)-2 {
		v = v[2:]
	}
	v = bytes.TrimRight(v, "\x00")
	if len(v) == 0 {
		return nil, false
	}
	for _, c := range v {
		if c < 0x20 || c > 0x7e {
			return nil, false
		}
	}
	return v, true
}

// RemoteKind says how a remote-id was read.
type RemoteKind uint8

// The readings of a remote-id.
const (
	RemoteNone RemoteKind = iota
	RemoteMAC
	RemoteIP
	RemoteText
	RemoteOpaque
)

// String returns none, mac, ip, text or opaque.
func (k RemoteKind) String() string {
	switch k {
	case RemoteNone:
		return "none"
	case RemoteMAC:
		return "mac"
	case RemoteIP:
		return "ip"
	case RemoteText:
		return "text"
	}
	return "opaque"
}

// Remote is a remote-id as read.
type Remote struct {
	Kind RemoteKind
	MAC  [6]byte    // of RemoteMAC
	IP   netip.Addr // of RemoteIP, which is text on the wire
	Text []byte     // of all that may be text
	// Unsure: six bytes that are a MAC and text just as well. "core-1" is the MAC
	// 63:6f:72:65:2d:31: only who knows the switches can tell.
	Unsure bool
}

// RemoteIsClient reports whether the remote-id is the MAC of the client, in any form of DecodeRemote, as some relays
// write it. Then it names no switch.
func (r *RelayInfo) RemoteIsClient(client [6]byte) bool {
	switch v := r.RemoteID; {
	case len(v) < 6:
		return false
	case len(v) == 6:
		return [6]byte(v) == client
	default:
		remote := DecodeRemote(v)
		return remote.Kind == RemoteMAC && remote.MAC == client
	}
}

// DecodeRemote reads the value of sub-option 2: a MAC wrapped with 00 06, bare
// or as text in any spelling, an IPv4 address as text, other text. A MAC need
// not be a unicast one: some OLTs make theirs up from a serial number.
func DecodeRemote(v []byte) Remote {
	switch {
	case len(v) == 0:
		return Remote{Kind: RemoteNone}
	case len(v) == 8 && v[0] == 0 && v[1] == 6:
		return Remote{Kind: RemoteMAC, MAC: [6]byte(v[2:8])}
	case len(v) == 6:
		text, unsure := DecodeText(v)
		return Remote{Kind: RemoteMAC, MAC: [6]byte(v), Text: text, Unsure: unsure}
	}
	text, ok := DecodeText(v)
	if !ok {
		return Remote{Kind: RemoteOpaque}
	}
	if mac, ok := ParseTextMAC(text); ok {
		return Remote{Kind: RemoteMAC, MAC: mac, Text: text}
	}
	if ip, ok := ParseTextIPv4(text); ok {
		return Remote{Kind: RemoteIP, IP: ip, Text: text}
	}
	return Remote{Kind: RemoteText, Text: text}
}

// ParseTextMAC reads a MAC from text: aa:bb:cc:dd:ee:ff, the same with dashes or
// dots and with octets that lack their leading zero, aabb.ccdd.eeff (with dots,
// dashes or colons), aabbccddeeff; in any case.
func ParseTextMAC(b []byte) (mac [6]byte, ok bool) {
	var sep byte
	groups := 1
	for _, c := range b {
		if c != ':' && c != '-' && c != '.' {
			continue
		}
		if sep != 0 && c != sep {
			return mac, false
		}
		sep = c
		groups++
	}
	var width int // bytes a group
	switch groups {
	case 1:
		width = 6
	case 3:
		width = 2
	case 6:
		width = 1
	default:
		return mac, false
	}
	for g := range groups {
		part := b
		if i := bytes.IndexByte(b, sep); g < groups-1 && i >= 0 {
			part, b = b[:i], b[i+1:]
		}
		if width == 1 && len(part) == 1 {
			v, ok := hexDigit(part[0])
			if !ok {
				return mac, false
			}
			mac[g] = v
			continue
		}
		if len(part) != 2*width {
			return mac, false
		}
		for i := range width {
			hi, ok1 := hexDigit(part[2*i])
			lo, ok2 := hexDigit(part[2*i+1])
			if !ok1 || !ok2 {
				return mac, false
			}
			mac[g*width+i] = hi<<4 | lo
		}
	}
	return mac, true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// ParseTextIPv4 reads dotted-quad text without allocating.
func ParseTextIPv4(b []byte) (netip.Addr, bool) {
	var ip [4]byte
	field, digits, value := 0, 0, 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i == len(b) || b[i] == '.':
			if digits == 0 || field > 3 {
				return netip.Addr{}, false
			}
			ip[field] = byte(value)
			field, digits, value = field+1, 0, 0
		case b[i] >= '0' && b[i] <= '9':
			value = value*10 + int(b[i]-'0')
			if digits++; digits > 3 || value > 255 {
				return netip.Addr{}, false
			}
		default:
			return netip.Addr{}, false
		}
	}
	return netip.AddrFrom4(ip), field == 4
}
