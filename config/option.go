package config

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/options"
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

// subOptionForm is how a sub-option is written; what becomes of it is a options.Option.
type subOptionForm struct {
	Code  int    `cfg:"code" min:"0" max:"255" required:"the number of the option, 1 to 254"`
	Type  string `cfg:"type" oneof:"ip ips string hex uint8 uint16 uint32 bool" required:"one of ip, ips, string, hex, uint8, uint16, uint32, bool"`
	Value []byte `cfg:"value" read:"option_value" required:""` // as Type says
}

// optionForm is how an option is written.
type optionForm struct {
	subOptionForm `cfg:",inline"`
	Always        bool `cfg:"always" default:"false"`
}

// optionsReader reads a list of options, or of sub-options, each of at most most
// bytes; refuse says why a code is none here.
func (l *loader) optionsReader(whole bool, most int, refuse func(int) string) keys.Reader {
	form := func(o *optionForm) reflect.Value {
		if whole {
			return reflect.ValueOf(o).Elem()
		}
		return reflect.ValueOf(&o.subOptionForm).Elem()
	}
	return keys.Reader{
		OfList: true,
		Schema: func(k keys.Key, _ reflect.Type) keys.Shape {
			return keys.ListShape(k, keys.SchemaOf(form(&optionForm{}).Type(), l))
		},
		Read: func(v keys.Value, _ keys.Key, into reflect.Value) bool {
			var out []options.Option
			used := map[int]int{} // the lines of codes
			before := v.Found()
			v.List(func(e keys.Value) {
				var o optionForm
				m := e.Section(form(&o).Addr().Interface())
				if b, ok := encoded(m, o.subOptionForm, used, most, refuse); ok {
					out = append(out, options.Option{Code: uint8(o.Code), Value: b, Always: o.Always})
				}
			})
			into.Set(reflect.ValueOf(out))
			return v.Found() == before
		},
	}
}

// encoded makes the bytes of an option.
func encoded(m keys.Mapping, o subOptionForm, used map[int]int, most int, refuse func(int) string) ([]byte, bool) {
	code, val := m.Get("code"), m.Get("value")
	if code.Present() && !m.Wrong("code") {
		line, twice := used[o.Code]
		if why := refuse(o.Code); why != "" {
			code.Problem("option %d cannot be set here: %s", o.Code, why)
		} else if twice {
			code.Problem("option %d is set twice, first in line %d", o.Code, line)
		}
		used[o.Code] = code.Line()
	}
	if o.Type == "" || !val.Present() {
		return nil, false
	}
	b := encode(val, o.Type)
	if m.Wrong("code", "type", "value", "always") {
		return nil, false
	}
	if len(b) == 0 || len(b) > most {
		val.Problem("%d bytes; an option holds 1 to %d", len(b), most)
		return nil, false
	}
	return b, true
}

// encode returns the bytes of v as an option of the type kind.
func encode(v keys.Value, kind string) []byte {
	switch kind {
	case "ip":
		a, _ := v.IPv4()
		return appendAddr(nil, a)
	case "ips":
		var b []byte
		v.List(func(e keys.Value) {
			a, _ := e.IPv4()
			b = appendAddr(b, a)
		})
		return b
	case "string":
		s, _ := v.Text()
		return []byte(s)
	case "hex":
		b, _ := hexBytes(v)
		return b
	case "uint8":
		return []byte{byte(number(v, 8))}
	case "uint16":
		return binary.BigEndian.AppendUint16(nil, uint16(number(v, 16)))
	case "uint32":
		return binary.BigEndian.AppendUint32(nil, uint32(number(v, 32)))
	default: // bool
		if b, _ := v.Truth(); b {
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

func hexBytes(v keys.Value) ([]byte, bool) {
	s, ok := v.Raw("hexadecimal bytes such as 0a0b or 0a:0b")
	if !ok {
		return nil, false
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", " ", "").Replace(strings.TrimPrefix(s, "0x")))
	if err != nil {
		v.Problem("want hexadecimal bytes such as 0a0b or 0a:0b, got %q", keys.Excerpt(s))
	}
	return b, err == nil
}

func unsigned(v keys.Value, bits int) (uint64, bool) {
	s, ok := v.Raw("a whole number")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		v.Problem("want a whole number from 0 to %d, got %q", uint64(1)<<bits-1, keys.Excerpt(s))
	}
	return n, err == nil
}

// enterprise reads a number of IANA's list of private enterprises.
func enterprise(v keys.Value) (uint64, bool) { return unsigned(v, 32) }

func number(v keys.Value, bits int) uint64 {
	n, _ := unsigned(v, bits)
	return n
}
