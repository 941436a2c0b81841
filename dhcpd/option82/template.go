package option82

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// Template is a compiled pattern for text, such as
//
//	Vlan{vlan}+Ethernet{unit}/0/{port}
//
// Outside of braces characters stand for themselves; {{ and }} are the braces.
// {port} {unit} {slot} {vlan} {cvlan} {num} are decimal numbers, taken with all
// their digits, of VLANs at most 4094; {host} {iface} {any} are text, as short as the rest of the pattern
// allows ({any} may be empty); {serial} and {onu} are letters and digits, {onu}
// with : - . too; {mac} is a MAC in any spelling, {ip} a dotted IPv4 address.
// {name:N} is exactly N characters. The whole text must match.
//
// Matching takes time linear in the length of the text for every field, whatever
// a client sends, and allocates nothing.
type Template struct {
	text  string
	parts []part
}

// field is what a part of a Template captures.
type field uint8

const (
	fieldLiteral field = iota
	fieldPort
	fieldUnit
	fieldSlot
	fieldVLAN
	fieldCVLAN
	fieldNum
	fieldHost
	fieldIface
	fieldSerial
	fieldONU
	fieldMAC
	fieldIP
	fieldAny
)

func fieldByName(name string) (field, bool) {
	switch name {
	case "port":
		return fieldPort, true
	case "unit":
		return fieldUnit, true
	case "slot":
		return fieldSlot, true
	case "vlan":
		return fieldVLAN, true
	case "cvlan":
		return fieldCVLAN, true
	case "num":
		return fieldNum, true
	case "host":
		return fieldHost, true
	case "iface":
		return fieldIface, true
	case "serial":
		return fieldSerial, true
	case "onu":
		return fieldONU, true
	case "mac":
		return fieldMAC, true
	case "ip":
		return fieldIP, true
	case "any":
		return fieldAny, true
	}
	return 0, false
}

const fieldNames = "port, unit, slot, vlan, cvlan, num, host, iface, serial, onu, mac, ip, any"

func (f field) number() bool { return f >= fieldPort && f <= fieldNum }

// open reports whether nothing but the rest of the pattern ends the field.
func (f field) open() bool { return f == fieldHost || f == fieldIface || f == fieldAny }

// takes reports whether c may stand in a field of text.
func (f field) takes(c byte) bool {
	switch f {
	case fieldSerial:
		return alnum(c)
	case fieldONU:
		return alnum(c) || c == ':' || c == '-' || c == '.'
	}
	return true
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// part is a literal or a field of a Template or format.
type part struct {
	field field
	lit   string
	width int // exact number of characters; 0: as it comes
}

// Limits of templates. Longer texts do not fit into a sub-option.
const (
	maxTemplate = 255
	maxParts    = 32
	maxText     = 255
)

// split takes a pattern apart into literals and fields.
func split(s string) ([]part, error) {
	if s == "" {
		return nil, errors.New("empty")
	}
	if len(s) > maxTemplate {
		return nil, fmt.Errorf("%d characters; want at most %d", len(s), maxTemplate)
	}
	var parts []part
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			parts = append(parts, part{lit: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case (c == '{' || c == '}') && i+1 < len(s) && s[i+1] == c:
			lit.WriteByte(c)
			i++
		case c == '}':
			return nil, fmt.Errorf("character %d: a } without its {; a brace itself is written twice", i+1)
		case c == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("character %d: a { without its }; a brace itself is written twice", i+1)
			}
			name, width, hasWidth := strings.Cut(s[i+1:i+end], ":")
			f, ok := fieldByName(name)
			if !ok {
				return nil, fmt.Errorf("character %d: no field {%s}; want one of %s", i+1, name, fieldNames)
			}
			p := part{field: f}
			if hasWidth {
				n, err := strconv.Atoi(width)
				if err != nil || n < 1 || n > maxText {
					return nil, fmt.Errorf("character %d: {%s:%s}: want a width from 1 to %d", i+1, name, width, maxText)
				}
				p.width = n
			}
			flush()
			parts = append(parts, p)
			i += end
		case c < 0x20 || c > 0x7e:
			return nil, fmt.Errorf("character %d: not printable ASCII", i+1)
		default:
			lit.WriteByte(c)
		}
	}
	flush()
	if len(parts) > maxParts {
		return nil, fmt.Errorf("%d parts; want at most %d", len(parts), maxParts)
	}
	return parts, nil
}

// CompileTemplate checks a pattern.
func CompileTemplate(s string) (*Template, error) {
	parts, err := split(s)
	if err != nil {
		return nil, fmt.Errorf("template %q: %w", s, err)
	}
	seen := map[field]bool{}
	for i, p := range parts {
		if p.field == fieldLiteral {
			continue
		}
		if seen[p.field] && p.field != fieldAny && p.field != fieldNum {
			return nil, fmt.Errorf("template %q: the same field twice; {any} and {num} may be repeated", s)
		}
		seen[p.field] = true
		if i > 0 && p.field.open() && p.width == 0 && parts[i-1].field.open() && parts[i-1].width == 0 {
			return nil, fmt.Errorf("template %q: two fields of text side by side: nobody can say where the first one ends", s)
		}
	}
	return &Template{text: s, parts: parts}, nil
}

// String returns the pattern.
func (t *Template) String() string { return t.text }

// has reports whether the template captures f.
func (t *Template) has(f field) bool {
	for i := range t.parts {
		if t.parts[i].field == f {
			return true
		}
	}
	return false
}

// span is what a field captured, as offsets; end 0 and start 0: empty.
type span struct{ start, end uint8 }

// matching is the state of one match. Where a part was tried at a place once
// without success it is not tried again: so the work is bounded.
type matching struct {
	parts []part
	text  []byte
	tried [maxParts + 1][4]uint64
	spans [maxParts]span
}

// match fills out with what the fields of t captured from text.
func (t *Template) match(text []byte, out *Decoded) bool {
	if len(text) > maxText {
		return false
	}
	m := matching{parts: t.parts, text: text}
	if !m.from(0, 0) {
		return false
	}
	// A number that is too large must not leave half of a result.
	for i := range t.parts {
		if t.parts[i].field.number() {
			if _, ok := number(m.at(i), t.parts[i].field); !ok {
				return false
			}
		}
	}
	for i := range t.parts {
		out.capture(t.parts[i].field, m.at(i))
	}
	return true
}

func (m *matching) at(i int) []byte { return m.text[m.spans[i].start:m.spans[i].end] }

// from matches parts[i:] with text[pos:].
func (m *matching) from(i, pos int) bool {
	bit := uint64(1) << (pos % 64)
	if m.tried[i][pos/64]&bit != 0 {
		return false
	}
	m.tried[i][pos/64] |= bit
	if i == len(m.parts) {
		return pos == len(m.text)
	}
	p := &m.parts[i]
	rest := m.text[pos:]
	switch {
	case p.field == fieldLiteral:
		return len(rest) >= len(p.lit) && string(rest[:len(p.lit)]) == p.lit && m.from(i+1, pos+len(p.lit))
	case p.width > 0:
		return len(rest) >= p.width && p.fits(rest[:p.width]) && m.take(i, pos, p.width)
	case p.field.number():
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		return n > 0 && m.take(i, pos, n)
	case p.field == fieldMAC:
		for n := min(len(rest), 17); n >= 11; n-- {
			if _, ok := wire.ParseTextMAC(rest[:n]); ok && m.take(i, pos, n) {
				return true
			}
		}
		return false
	case p.field == fieldIP:
		for n := min(len(rest), 15); n >= 7; n-- {
			if _, ok := wire.ParseTextIPv4(rest[:n]); ok && m.take(i, pos, n) {
				return true
			}
		}
		return false
	}
	n := 1
	if p.field == fieldAny {
		n = 0
	}
	for ; n <= len(rest); n++ {
		if n > 0 && !p.field.takes(rest[n-1]) {
			return false
		}
		end := pos + n
		if m.tried[i+1][end/64]&(1<<(end%64)) != 0 {
			return false // an earlier try went from here to the end already
		}
		if m.take(i, pos, n) {
			return true
		}
	}
	return false
}

// fits reports whether b, whose length is the width, is a value of the field.
func (p *part) fits(b []byte) bool {
	switch p.field {
	case fieldMAC:
		_, ok := wire.ParseTextMAC(b)
		return ok
	case fieldIP:
		_, ok := wire.ParseTextIPv4(b)
		return ok
	}
	for _, c := range b {
		if p.field.number() && (c < '0' || c > '9') || !p.field.takes(c) {
			return false
		}
	}
	return true
}

func (m *matching) take(i, pos, n int) bool {
	m.spans[i] = span{uint8(pos), uint8(pos + n)}
	return m.from(i+1, pos+n)
}

// number reads a decimal number that the field can hold.
func number(b []byte, f field) (uint32, bool) {
	limit := uint64(1<<32 - 1)
	if f == fieldVLAN || f == fieldCVLAN {
		limit = wire.MaxVLAN
	}
	if f == fieldNum {
		return 0, true // not looked at
	}
	var n uint64
	for _, c := range b {
		if n = n*10 + uint64(c-'0'); n > limit {
			return 0, false
		}
	}
	return uint32(n), true
}
