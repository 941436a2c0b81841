package record

import (
	"encoding/hex"
	"fmt"
	"html"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// form is how a unit spells its character.
type form uint8

const (
	formPlain  form = iota
	formFixed       // stands as it is: markup, a broken escape
	formEscape      // \u0410
	formPair        // \ud801\udc28
	formEntity      // &#1040; or &#x410;
	formByte        // a byte that is no UTF-8: text in a code page
)

// unit is one character of a text as it was written.
type unit struct {
	raw  string
	r    rune
	form form

	pre, post string // of an entity: what stands around its digits
	hex       bool
}

// units takes a text apart. escapes says that it stands in a JSON string.
func units(raw string, escapes bool) []unit {
	out := make([]unit, 0, len(raw))
	for i := 0; i < len(raw); {
		u := nextUnit(raw[i:], escapes)
		i += len(u.raw)
		out = append(out, u)
	}
	return joinMarkup(out)
}

func nextUnit(s string, escapes bool) unit {
	if s[0] == '\\' && escapes {
		return escapeUnit(s)
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return unit{raw: s[:1], r: rune(s[0]), form: formByte}
	}
	return unit{raw: s[:n], r: r}
}

func escapeUnit(s string) unit {
	if len(s) < 2 {
		return unit{raw: s, r: '\\', form: formFixed}
	}
	if i := strings.IndexByte(`"\/bfnrt`, s[1]); i >= 0 {
		return unit{raw: s[:2], r: rune("\"\\/\b\f\n\r\t"[i]), form: formFixed}
	}
	if s[1] != 'u' {
		// No escape of JSON: what follows is text, the backslash stays what it is.
		_, n := utf8.DecodeRuneInString(s[1:])
		return unit{raw: `\z` + strings.Repeat("z", n-1), r: 'z', form: formFixed}
	}
	r, ok := hex4(s)
	if !ok {
		if rest := s[2:]; len(rest) < 4 && isHex(rest) {
			return unit{raw: s, r: unicode.ReplacementChar, form: formFixed} // cut off here
		}
		return unit{raw: `\z`, r: 'z', form: formFixed}
	}
	if utf16.IsSurrogate(r) && len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if low, ok := hex4(s[6:]); ok {
			if whole := utf16.DecodeRune(r, low); whole != unicode.ReplacementChar {
				return unit{raw: s[:12], r: whole, form: formPair}
			}
		}
	}
	return unit{raw: s[:6], r: r, form: formEscape}
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (s[i] < '0' || s[i] > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// hex4 reads \uXXXX.
func hex4(s string) (rune, bool) {
	if len(s) < 6 || !isHex(s[2:6]) {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil
}

var (
	numericEntity = regexp.MustCompile(`^&#(?:[xX][0-9a-fA-F]{1,6}|[0-9]{1,7});`)
	namedEntity   = regexp.MustCompile(`^&[a-zA-Z]{2,8}[0-9]{0,2};`)
	markup        = regexp.MustCompile(`^</?(?:br|p|b|i|u|strong|em|div|span) ?/?>`)
)

// longestForm is more than an address, an entity or a tag has, with the byte behind it.
const longestForm = 64

// head is what of a text a pattern looks at that begins with it: what looking costs grows
// with the length of what there is to look at.
func head(s string) string { return s[:min(len(s), longestForm)] }

// joinMarkup makes one unit of each entity and each plain tag, which may
// themselves be written with escapes.
func joinMarkup(in []unit) []unit {
	var text strings.Builder
	worth := false
	for _, u := range in {
		c := byte('?')
		if u.r < 0x80 && u.form != formByte {
			c = byte(u.r)
		}
		worth = worth || c == '&' || c == '<'
		text.WriteByte(c)
	}
	if !worth {
		return in
	}
	s := text.String()
	out := in[:0:0]
	for i := 0; i < len(in); {
		n, u := 1, in[i]
		switch s[i] {
		case '&':
			n, u = entityUnit(head(s[i:]), in[i:])
		case '<':
			if tag := markup.FindString(head(s[i:])); tag != "" {
				n, u = len(tag), unit{raw: join(in[i : i+len(tag)]), r: ' ', form: formFixed}
			}
		}
		out = append(out, u)
		i += n
	}
	return out
}

func entityUnit(s string, in []unit) (int, unit) {
	if e := numericEntity.FindString(s); e != "" {
		r, _ := utf8.DecodeRuneInString(html.UnescapeString(e))
		mark := 2
		if e[2]|0x20 == 'x' {
			mark = 3
		}
		return len(e), unit{raw: join(in[:len(e)]), r: r, form: formEntity, pre: join(in[:mark]), post: in[len(e)-1].raw, hex: mark == 3}
	}
	if e := namedEntity.FindString(s); e != "" {
		if r, n := utf8.DecodeRuneInString(html.UnescapeString(e)); n < len(html.UnescapeString(e)) || unicode.IsLetter(r) {
			return 1, in[0] // no entity, or one that is a letter: masked as text
		}
		return len(e), unit{raw: join(in[:len(e)]), r: ' ', form: formFixed}
	}
	return 1, in[0]
}

func join(in []unit) string {
	var b strings.Builder
	for _, u := range in {
		b.WriteString(u.raw)
	}
	return b.String()
}

// write spells r the way u spells its character.
func (u unit) write(b *strings.Builder, r rune) {
	if r == u.r {
		b.WriteString(u.raw)
		return
	}
	digits := "%04x"
	if strings.ToUpper(u.raw) == strings.ReplaceAll(u.raw, `\u`, `\U`) && strings.ToLower(u.raw) != u.raw {
		digits = "%04X"
	}
	switch u.form {
	case formEscape:
		fmt.Fprintf(b, `\u`+digits, r)
	case formPair:
		r1, r2 := utf16.EncodeRune(r)
		fmt.Fprintf(b, `\u`+digits+`\u`+digits, r1, r2)
	case formEntity:
		if u.hex {
			fmt.Fprintf(b, "%s%x%s", u.pre, r, u.post)
			return
		}
		fmt.Fprintf(b, "%s%d%s", u.pre, r, u.post)
	case formByte:
		b.WriteByte(byte(r))
	default:
		b.WriteRune(r)
	}
}

// isWord reports whether the unit belongs to a word.
func (u unit) isWord() bool {
	switch u.form {
	case formFixed:
		return false
	case formByte:
		return u.r >= 0xc0 || strings.IndexByte("\xa1\xa2\xa3\xa5\xa8\xaa\xaf\xb2\xb3\xb4\xb8\xba\xbc\xbd\xbe\xbf", byte(u.r)) >= 0
	}
	return unicode.IsLetter(u.r) || unicode.IsDigit(u.r) || unicode.IsMark(u.r)
}

// text masks a text: the addresses in it as addresses, the rest word by word.
// With known, words of the vocabulary and numbers of three digits stay.
func (m *masker) text(us []unit, known bool) string {
	var b strings.Builder
	plain := make([]byte, len(us)) // ASCII, with a blank for everything else
	for i, u := range us {
		plain[i] = ' '
		if u.r < 0x80 && u.form != formByte && (u.form != formFixed || u.r == '/') {
			plain[i] = byte(u.r)
		}
	}
	s := string(plain)
	var people []bool
	if known {
		people = personal(s, m.key)
	}
	for i := 0; i < len(us); {
		if n, masked := m.address(s, i); n > 0 {
			writeOver(&b, us[i:i+n], masked)
			i += n
			if p := prefixLen.FindStringSubmatch(head(s[i:])); p != nil && strings.Contains(masked, ".") {
				n = 1 + len(p[1])
				b.WriteString(join(us[i : i+n]))
				i += n
			}
			continue
		}
		n := i
		for n < len(us) && us[n].isWord() {
			n++
		}
		if n == i {
			b.WriteString(us[i].raw)
			i++
			continue
		}
		m.writeWord(&b, us[i:n], known && !people[i])
		i = n
	}
	return b.String()
}

// personal marks the parts of a message in which nothing is known: numbers
// written in groups, such as 067 123-45-67 or 2001:db8::1, of which each group is
// short and all of them are somebody; and the key.
func personal(s, key string) []bool {
	marks := make([]bool, len(s))
	mark := func(from, to int) {
		for i := from; i < to; i++ {
			marks[i] = true
		}
	}
	for _, p := range numberGroups.FindAllStringIndex(s, -1) {
		digits := 0
		for _, c := range []byte(s[p[0]:p[1]]) {
			if digit(c) {
				digits++
			}
		}
		if digits >= 5 {
			mark(p[0], p[1])
		}
	}
	for _, p := range inet6.FindAllStringIndex(s, -1) {
		mark(p[0], p[1])
	}
	for i := 0; len(key) >= 4; { // a shorter one may be part of every word
		at := strings.Index(s[i:], key)
		if at < 0 {
			break
		}
		mark(i+at, i+at+len(key))
		i += at + len(key)
	}
	return marks
}

// writeOver writes a masked address in place of us.
func writeOver(b *strings.Builder, us []unit, masked string) {
	if len(masked) == len(us) {
		for i, u := range us {
			u.write(b, rune(masked[i]))
		}
		return
	}
	b.WriteString(masked)
}

func (m *masker) writeWord(b *strings.Builder, us []unit, known bool) {
	if us[0].form == formByte {
		m.writeBytes(b, us)
		return
	}
	var w strings.Builder
	end := 0
	for end < len(us) && us[end].form != formByte {
		w.WriteRune(us[end].r)
		end++
	}
	word := w.String()
	if known && m.known(word) {
		b.WriteString(join(us[:end]))
	} else {
		masked := []rune(m.word(word))
		for i, u := range us[:end] {
			u.write(b, masked[i])
		}
	}
	if end < len(us) {
		m.writeWord(b, us[end:], known)
	}
}

// writeBytes masks letters of a one-byte code page: the capitals stand at 0xC0 to
// 0xDF, as in windows-1251.
func (m *masker) writeBytes(b *strings.Builder, us []unit) {
	end := 0
	for end < len(us) && us[end].form == formByte {
		end++
	}
	seed := m.prf("bytes " + join(us[:end]))
	for i, u := range us[:end] {
		if i%32 == 31 {
			seed = m.prf("more bytes " + string(seed[:]))
		}
		from := rune(0xe0)
		if u.r >= 0xc0 && u.r < 0xe0 {
			from = 0xc0
		}
		to := from + rune(seed[i%32]&31)
		if to == u.r {
			to ^= 1
		}
		b.WriteByte(byte(to))
	}
	if end < len(us) {
		m.writeWord(b, us[end:], false)
	}
}

// known reports a word of the API, or a number that is too short to mean anybody.
func (m *masker) known(word string) bool {
	if _, err := strconv.ParseUint(word, 10, 64); err == nil {
		return len(word) <= 3
	}
	return m.vocabulary[strings.ToLower(word)]
}

var (
	dotted    = regexp.MustCompile(`^(?:[0-9]{1,3}\.){3}[0-9]{1,3}`)
	prefixLen = regexp.MustCompile(`^/([0-9]{1,2})(?:[^0-9]|$)`)
	separated = regexp.MustCompile(`^(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}|^(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}|^(?:[0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}`)
	// numberGroups are groups of up to three digits with little between them.
	numberGroups = regexp.MustCompile(`\b[0-9]{1,3}(?:[ ().-]{1,2}[0-9]{1,4})+\b`)
	inet6        = regexp.MustCompile(`(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}`)
	bareMAC      = regexp.MustCompile(`^[0-9a-fA-F]{12}`)
	uuid         = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	alnum        = func(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }
	digit        = func(c byte) bool { return c >= '0' && c <= '9' }
	endsWithout  = func(s string, i int, not func(byte) bool) bool { return i >= len(s) || !not(s[i]) }
)

// address finds an address at s[i:] and gives its length and its mask; 0 when
// there is none.
func (m *masker) address(s string, i int) (int, string) {
	if !alnum(s[i]) {
		return 0, ""
	}
	if digit(s[i]) && (i == 0 || !digit(s[i-1]) && s[i-1] != '.') {
		if a := dotted.FindString(head(s[i:])); a != "" && endsWithout(s, i+len(a), digit) {
			if ip, err := netip.ParseAddr(a); err == nil {
				return m.network(head(s[i:]), a, ip)
			}
		}
	}
	if i > 0 && alnum(s[i-1]) {
		return 0, ""
	}
	if a := uuid.FindString(head(s[i:])); a != "" && endsWithout(s, i+len(a), alnum) {
		return len(a), m.hexDigits(a)
	}
	if a := separated.FindString(head(s[i:])); a != "" && endsWithout(s, i+len(a), alnum) {
		return len(a), m.macText(a)
	}
	if a := bareMAC.FindString(head(s[i:])); a != "" && endsWithout(s, i+len(a), alnum) && (a[0] == '0' || strings.ContainsAny(a, "abcdefABCDEF") || m.seenMAC(a)) {
		return len(a), m.macText(a)
	}
	return 0, ""
}

// network masks a dotted address. The host bits of a network, which a prefix
// length follows, stay zero.
func (m *masker) network(s, a string, ip netip.Addr) (int, string) {
	n := ipNumber(ip)
	out := m.ips.mask(n)
	if p := prefixLen.FindStringSubmatch(s[len(a):]); p != nil {
		if length, err := strconv.Atoi(p[1]); err == nil && length < 32 {
			if host := uint32(0xffffffff) >> length; n&host == 0 {
				out &^= host
			}
		}
	}
	return len(a), ipText(out)
}

func ipNumber(ip netip.Addr) uint32 {
	b := ip.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func ipText(n uint32) string {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

func macBytes(s string) (mac [6]byte) {
	_, _ = hex.Decode(mac[:], []byte(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))) // the pattern has checked it
	return mac
}

func (m *masker) seenMAC(s string) bool { _, ok := m.macs[macBytes(s)]; return ok }

// macText masks a MAC in its own spelling.
func (m *masker) macText(s string) string {
	return respell(s, hex.EncodeToString(hexOf(m.hardware(macBytes(s)))))
}

func hexOf(mac [6]byte) []byte { return mac[:] }

// hexDigits masks a UUID: hexadecimal digits for hexadecimal digits.
func (m *masker) hexDigits(s string) string {
	r := m.prf("uuid " + strings.ToLower(s))
	return respell(s, hex.EncodeToString(r[:]))
}

// respell puts hexadecimal digits into the places and the case of those in s.
func respell(s, digits string) string {
	b := []byte(s)
	upper := strings.ToLower(s) != s
	if upper {
		digits = strings.ToUpper(digits)
	}
	k := 0
	for i, c := range b {
		if alnum(c) {
			b[i] = digits[k]
			k++
		}
	}
	return string(b)
}
