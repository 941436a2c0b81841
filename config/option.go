package config

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// serverOwns says why an option code cannot be set by hand; empty: it can.
// Codes as in RFC 2132 and the IANA list of BOOTP extensions.
func serverOwns(code int) string {
	switch code {
	case 0, 255:
		return framing(code)
	case 1:
		return "the mask is that of prefix"
	case 3:
		return "set gateway instead"
	case 6:
		return "set dns instead"
	case 12:
		return "one host name for all clients of a subnet would be wrong"
	case 15:
		return "set domain instead"
	case 42:
		return "set ntp instead"
	case 50, 55, 57, 61, 118:
		return "only clients send it"
	case 51:
		return "set lease_time instead"
	case 52:
		return "the server decides on overload itself"
	case 53:
		return "it is the type of the message"
	case 54:
		return "set dhcp.server_id instead"
	case 56:
		return "the server writes its own message into a NAK"
	case 58:
		return "set renew_time instead"
	case 59:
		return "set rebind_time instead"
	case 80:
		return "set dhcp.rapid_commit instead"
	case 82:
		return "it is the relay's, echoed as it came (RFC 3046)"
	case 90:
		return "authentication is not served"
	default:
		return ""
	}
}

// framing says why a code is none in any list of options; empty: it is one.
func framing(code int) string {
	if code == 0 || code == 255 {
		return "it is framing (pad, end), no option"
	}
	return ""
}

// maxOptionLen bounds options longer than 255 bytes, which are sent in parts (RFC 3396).
const maxOptionLen = 1024

// option reads and encodes one extra option; used holds the lines of codes
// that the subnet already has.
func (d *decoder) option(v value, used map[uint8]int) (Option, bool) {
	m := v.mapping("code", "type", "value", "always")
	always := m.get("always").boolean(false)
	code, b, ok := d.encoded(m, used, maxOptionLen, serverOwns)
	return Option{code, b, always}, ok
}

// encoded reads code, type and value of an option of at most most bytes; refuse
// says why a code is none here.
func (d *decoder) encoded(m mapping, used map[uint8]int, most int, refuse func(int) string) (uint8, []byte, bool) {
	before := len(d.problems)
	code, kind, val := m.get("code"), m.get("type"), m.get("value")
	if m.hush {
		return 0, nil, false
	}
	if !code.present() {
		code.problem("missing; want the number of the option, 1 to 254")
	}
	n := code.integer(0, 0, 255)
	if code.present() && len(d.problems) == before {
		line, twice := used[uint8(n)]
		if why := refuse(n); why != "" {
			code.problem("option %d cannot be set here: %s", n, why)
		} else if twice {
			code.problem("option %d is set twice, first in line %d", n, line)
		}
		used[uint8(n)] = code.at.line
	}
	if !kind.present() {
		kind.problem("missing; want one of ip, ips, string, hex, uint8, uint16, uint32, bool")
	}
	if !val.present() {
		val.problem("missing")
	}
	word := kind.oneOf("", "ip", "ips", "string", "hex", "uint8", "uint16", "uint32", "bool")
	if word == "" || !val.present() {
		return 0, nil, false
	}
	b := val.encode(word)
	if len(d.problems) > before {
		return 0, nil, false
	}
	if len(b) == 0 || len(b) > most {
		val.problem("%d bytes; an option holds 1 to %d", len(b), most)
		return 0, nil, false
	}
	return uint8(n), b, true
}

// encode gives the bytes of v as an option of the type kind.
func (v value) encode(kind string) []byte {
	switch kind {
	case "ip":
		a, _ := v.ipv4()
		return appendAddr(nil, a)
	case "ips":
		var b []byte
		v.list(func(e value) {
			a, _ := e.ipv4()
			b = appendAddr(b, a)
		})
		return b
	case "string":
		return []byte(v.text(""))
	case "hex":
		return v.hexBytes()
	case "uint8":
		return []byte{byte(v.unsigned(8))}
	case "uint16":
		return binary.BigEndian.AppendUint16(nil, uint16(v.unsigned(16)))
	case "uint32":
		return binary.BigEndian.AppendUint32(nil, uint32(v.unsigned(32)))
	default: // bool
		if v.boolean(false) {
			return []byte{1}
		}
		return []byte{0}
	}
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if !a.Is4() {
		return b
	}
	four := a.As4()
	return append(b, four[:]...)
}

func (v value) hexBytes() []byte {
	s, ok := v.raw("hexadecimal bytes such as 0a0b or 0a:0b")
	if !ok {
		return nil
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", " ", "").Replace(strings.TrimPrefix(s, "0x")))
	if err != nil {
		v.problem("want hexadecimal bytes such as 0a0b or 0a:0b, got %q", excerpt(s))
	}
	return b
}

func (v value) unsigned(bits int) uint64 {
	s, ok := v.raw("a whole number")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		v.problem("want a whole number from 0 to %d, got %q", uint64(1)<<bits-1, excerpt(s))
	}
	return n
}
