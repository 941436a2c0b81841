package record

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"regexp"
	"strings"
)

// frame is an open array or object.
type frame struct {
	object bool
	name   string // key that it stands under, lower case; of the array around it in an array
	class  class  // for members without a class of their own
	path   uint64 // where it is; the same for all rows of a list
	key    bool   // a key comes next
	last   string // newest key, lower case
	lastOK class
	lastAt uint64
}

// longText is the longest text, in bytes, that is masked word by word, for which each
// character takes some hundred. Of a longer one nothing but the length stays.
const longText = 256 << 10

// body masks one answer. What is no JSON, or only half of it, is masked too: the
// text is taken apart into strings, brackets and what stands between them,
// whatever their order.
func (m *masker) body(b []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]byte, 0, len(b)+len(b)/8)
	rest := b
	if bytes.HasPrefix(rest, []byte("\xef\xbb\xbf")) {
		out, rest = append(out, rest[:3]...), rest[3:]
	}
	start := jsonStart(rest)
	switch {
	case start > longText:
		out = appendFill(out, 'x', start)
	case start > 0:
		out = append(out, m.text(units(string(rest[:start]), false), true)...)
	}
	p := parser{masker: m, names: map[nameAt]int{}, objects: map[uint64]int{}, seed: maphash.MakeSeed()}
	p.walk(rest[start:])
	p.out = out
	p.write = true
	p.walk(rest[start:])
	return p.out
}

var documentStart = regexp.MustCompile(`\{\s*["}]|\[\s*[\[{"\]0-9]`)

// jsonStart finds where the JSON begins behind a warning; 0 when the text begins
// with it, its length when there is none.
func jsonStart(b []byte) int {
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	if len(trimmed) == 0 || bytes.IndexByte([]byte(`{["`), trimmed[0]) >= 0 {
		return 0
	}
	if at := documentStart.FindIndex(b); at != nil {
		return at[0]
	}
	if json.Valid(b) {
		return 0 // a bare number or word
	}
	return len(b)
}

// nameAt is a member name at a place.
type nameAt struct {
	path uint64
	name string
}

// parser walks an answer twice: to learn which names are names of fields, and
// to write it masked.
type parser struct {
	*masker
	names   map[nameAt]int
	objects map[uint64]int
	seed    maphash.Seed

	write bool
	out   []byte
	stack []frame
}

func (p *parser) walk(b []byte) {
	p.stack = p.stack[:0]
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '{', '[':
			p.open(c == '{')
			p.raw(b[i : i+1])
			i++
		case '}', ']':
			if n := len(p.stack); n > 0 {
				p.stack = p.stack[:n-1]
			}
			p.raw(b[i : i+1])
			i++
		case ',', ':':
			if n := len(p.stack); n > 0 && p.stack[n-1].object {
				p.stack[n-1].key = c == ','
			}
			p.raw(b[i : i+1])
			i++
		case ' ', '\t', '\n', '\r':
			p.raw(b[i : i+1])
			i++
		case '"':
			n := stringEnd(b[i:])
			if n > longText {
				p.long(b[i : i+n])
			} else {
				p.str(string(b[i : i+n]))
			}
			i += n
		default:
			n := bytes.IndexAny(b[i:], "{}[],:\" \t\n\r")
			if n < 0 {
				n = len(b) - i
			}
			if n > longText {
				p.longBare(b[i : i+n])
			} else {
				p.bare(string(b[i : i+n]))
			}
			i += n
		}
	}
}

// stringEnd returns the length of the string with its quotes, or what is there of it.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

func appendFill(out []byte, c byte, n int) []byte {
	for range n {
		out = append(out, c)
	}
	return out
}

// long masks a string, with its quotes, that is longer than longText. As a key it is the
// name of no field.
func (p *parser) long(b []byte) {
	if n := len(p.stack); n > 0 && p.stack[n-1].key {
		f := &p.stack[n-1]
		f.last, f.lastOK, f.lastAt = "", plain, p.hash(f.path, "*")
	}
	if !p.write {
		return
	}
	p.out = append(p.out, '"')
	if b[len(b)-1] == '"' && !cutEscape(b) {
		p.out = append(appendFill(p.out, 'x', len(b)-2), '"')
	} else {
		p.out = appendFill(p.out, 'x', len(b)-1)
	}
}

// longBare masks what stands outside of strings and is longer than longText. A number stays one.
func (p *parser) longBare(b []byte) {
	if !p.write {
		return
	}
	fill := byte('x')
	if json.Valid(b) {
		fill = '1'
	}
	p.out = appendFill(p.out, fill, len(b))
}

func (p *parser) raw(b []byte) {
	if p.write {
		p.out = append(p.out, b...)
	}
}

func (p *parser) hash(path uint64, label string) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	var b [8]byte
	for i := range b {
		b[i] = byte(path >> (8 * i))
	}
	_, _ = h.Write(b[:])
	_, _ = h.WriteString(label) // a hash does not fail
	return h.Sum64()
}

func (p *parser) open(object bool) {
	f := frame{object: object, key: object}
	if n := len(p.stack); n > 0 {
		up := &p.stack[n-1]
		f.class = p.classHere()
		f.name, f.path = up.last, up.lastAt
		if !up.object {
			f.name, f.path = up.name, p.hash(up.path, "[]")
		}
	}
	if object && !p.write {
		p.objects[f.path]++
	}
	if !object {
		f.last, f.lastOK, f.lastAt = f.name, f.class, f.path
	}
	p.stack = append(p.stack, f)
}

// classHere is the class of the value that comes next. A class by form is
// overruled by a text around it: what is in "phone" is a phone.
func (p *parser) classHere() class {
	n := len(p.stack)
	if n == 0 {
		return message
	}
	f := &p.stack[n-1]
	if f.lastOK == byForm && f.class == plain && f.last != "id" && !strings.HasSuffix(f.last, "_id") {
		return plain
	}
	return f.lastOK
}

// str masks a string with its quotes.
func (p *parser) str(s string) {
	inner := s[1:]
	closed := len(s) > 1 && strings.HasSuffix(s, `"`) && !cutEscape(s)
	if closed {
		inner = inner[:len(inner)-1]
	}
	n := len(p.stack)
	if n > 0 && p.stack[n-1].key {
		p.key(inner, closed)
		return
	}
	if !p.write {
		return
	}
	p.out = append(p.out, '"')
	p.out = append(p.out, p.value(inner, p.classHere(), true)...)
	if closed {
		p.out = append(p.out, '"')
	}
}

// cutEscape reports a text whose last quote belongs to an escape.
func cutEscape[T string | []byte](s T) bool {
	back := 0
	for i := len(s) - 2; i > 0 && s[i] == '\\'; i-- {
		back++
	}
	return back%2 == 1
}

func (p *parser) key(raw string, closed bool) {
	f := &p.stack[len(p.stack)-1]
	us := units(raw, true)
	name := textOf(us)
	low := strings.ToLower(name)
	c, known := classOf(low)
	field := known && isName(name) || isName(name) && p.isVocabulary(name)
	label := "*"
	switch {
	case field:
		label = low
	case isDecimal(strings.TrimPrefix(name, "-")):
		label = "#"
	}
	at := nameAt{f.path, name}
	if !p.write {
		if label == "*" && isName(name) {
			p.names[at]++
		}
	} else if !field && label == "*" && isName(name) {
		// A name that most rows have is a field; one that few have is data.
		n := p.names[at]
		field = n >= 2 && 5*n >= p.objects[f.path]
	}
	f.last, f.lastOK, f.lastAt = low, c, p.hash(f.path, label)
	if !p.write {
		return
	}
	p.out = append(p.out, '"')
	switch {
	case field || name == "" || p.portKey(f, name):
		p.out = append(p.out, raw...)
	case f.class == plain && label != "#":
		p.out = append(p.out, p.value(raw, plain, true)...)
	default:
		p.out = append(p.out, p.value(raw, byForm, true)...)
	}
	if closed {
		p.out = append(p.out, '"')
	}
}

// portKey reports a key that is the number of a port, as in ifaces.
func (p *parser) portKey(f *frame, name string) bool {
	switch f.name {
	case "ifaces", "interfaces", "ports", "uplink_iface_array", "dnlink_iface_array":
		return isDecimal(name)
	}
	return false
}

// bare masks what stands outside of strings: a number, a word of JSON, or
// something that is no JSON.
func (p *parser) bare(s string) {
	if !p.write {
		return
	}
	switch {
	case s == "true" || s == "false" || s == "null":
		p.out = append(p.out, s...)
		return
	case number.MatchString(s):
		masked := p.value(s, p.classHere(), false)
		if !json.Valid([]byte(masked)) {
			masked = "0"
		}
		p.out = append(p.out, masked...)
		return
	}
	masked := p.text(units(s, false), len(p.stack) == 0)
	if json.Valid([]byte(masked)) && !json.Valid([]byte(s)) {
		masked = "?" + masked[1:]
	}
	p.out = append(p.out, masked...)
}

func textOf(us []unit) string {
	var b strings.Builder
	for _, u := range us {
		b.WriteRune(u.r)
	}
	return b.String()
}

func isDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

var (
	number     = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$`)
	integer    = regexp.MustCompile(`^-?[0-9]{1,20}$`)
	integers   = regexp.MustCompile(`^-?[0-9]{1,20}(?:, ?-?[0-9]{1,20})+$`)
	fraction   = regexp.MustCompile(`^-?[0-9]{1,20}[.,][0-9]+$`)
	figures    = regexp.MustCompile(`^-?[0-9.,]{1,24}$`)
	isDate     = regexp.MustCompile(`^(?:[0-9]{4}[-.][0-9]{2}[-.][0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?|[0-9]{2}\.[0-9]{2}\.[0-9]{4}(?: [0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?)$`)
	isIface    = regexp.MustCompile(`^([A-Za-z]{0,20})[ -]?[0-9]{1,5}(?:(?:\\?/|&#0?47;|[.:-])[0-9]{1,5}){0,5}$`)
	isRelease  = regexp.MustCompile(`^[vV]?[0-9]{1,4}(?:\.[0-9]{1,5}){0,3}(?:[-+~._]?(?:dev|alpha|beta|rc|p|ubuntu|deb)?[0-9.]{0,10})?$`)
	cents      = regexp.MustCompile(`^-?[0-9]+(?:[.,][0-9]{1,2})?$`)
	longDigits = regexp.MustCompile(`[0-9]{7,}`)
	quad       = regexp.MustCompile(`^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$`)
)

// longFigure are the digits of the longest figure that stays, a Unix time; a
// phone with its country has more.
const longFigure = 10

// isFigure reports a figure or a date. An address or a phone is none, whatever
// key it stands under.
func isFigure(s string) bool {
	switch {
	case isDate.MatchString(s):
		return true
	case quad.MatchString(s):
		return false
	case figures.MatchString(s) || number.MatchString(s):
		whole, _, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
		return len(whole) <= longFigure && !(len(whole) > 1 && len(whole) >= longFigure && whole[0] == '0')
	}
	return false
}

// isInterface reports the name of an interface as devices give it. "Franka 12/5"
// looks like one and is where somebody lives.
func isInterface(s string) bool {
	m := isIface.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	switch strings.ToLower(m[1]) {
	case "", "e", "g", "p", "s", "t", "x", "ge", "xe", "et", "fe", "fa", "gi", "te", "tw", "twe", "hu", "fo", "xlge", "ten",
		"gei", "fei", "xgei", "eth", "en", "eno", "ens", "enp", "lan", "wan", "swp", "sfp", "sfpplus", "ether", "combo",
		"ethernet", "fastethernet", "gigabitethernet", "gigaethernet", "gigabit", "tengigabitethernet", "tengige", "tgigaethernet",
		"xgigabitethernet", "twentyfivegige", "fortygige", "hundredgige", "port", "po", "portchannel", "lag", "ae", "trunk", "bond",
		"bridge", "br", "vlan", "vl", "vlanif", "irb", "bvi", "lo", "loopback", "mgmt", "me", "meth", "null", "tunnel", "uplink",
		"slot", "unit", "radio", "wlan", "ath", "dsl", "adsl", "vdsl", "pon", "gpon", "epon", "xgpon", "onu", "olt":
		return true
	}
	return false
}

// value masks a scalar. escapes says that raw is the inside of a string.
func (m *masker) value(raw string, c class, escapes bool) string {
	us := units(raw, escapes)
	text := textOf(us)
	switch {
	case strings.TrimSpace(text) == "":
		return raw
	case c == keyword && isKeyword(text),
		c == iface && (isInterface(raw) || isDecimal(text) && len(text) <= longFigure),
		c == release && isRelease.MatchString(raw) && !longDigits.MatchString(text),
		c == figure && isFigure(text):
		return raw
	case c == message || c == release:
		return m.text(us, true)
	}
	lead := len(text) - len(strings.TrimLeft(text, " "))
	core := strings.Trim(text, " ")
	whole := lead+len(core) <= len(raw) && strings.Contains(raw, core) // written without escapes
	if c == plain || !whole {
		if !escapes && c == plain {
			return m.digits(core)
		}
		return m.text(us, false)
	}
	var masked string
	switch {
	case isDate.MatchString(core):
		return raw
	case integer.MatchString(core):
		masked = m.integer(core)
	case integers.MatchString(core):
		parts := strings.Split(core, ",")
		for i, p := range parts {
			n := strings.TrimPrefix(p, " ")
			parts[i] = p[:len(p)-len(n)] + m.integer(n)
		}
		masked = strings.Join(parts, ",")
	case fraction.MatchString(core) || number.MatchString(core):
		if len(core) <= 7 && cents.MatchString(core) {
			return raw // an amount; with more places it could be a coordinate
		}
		masked = m.digits(core)
	default:
		return m.text(us, false)
	}
	return strings.Replace(raw, core, masked, 1)
}

// integer masks a whole number by its size. One with a leading zero is a text,
// unless it is the digits of a MAC.
func (m *masker) integer(s string) string {
	n := strings.TrimPrefix(s, "-")
	if len(n) == 12 && s == n && (n[0] == '0' || m.seenMAC(n)) {
		return m.macText(n)
	}
	if len(n) > 1 && n[0] == '0' {
		return s[:len(s)-len(n)] + m.word(n)
	}
	return m.number(n, len(n) < len(s))
}

// digits masks each run of digits and leaves the rest of a number.
func (m *masker) digits(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		n := i
		for n < len(s) && digit(s[n]) {
			n++
		}
		if n == i {
			b.WriteByte(s[i])
			i++
			continue
		}
		b.WriteString(m.word(s[i:n]))
		i = n
	}
	return b.String()
}
