package emulator

import (
	"fmt"
	"html"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// flushAt is how much of an answer is gathered before it goes to the client.
const flushAt = 64 << 10

// style is how JSON is printed: what the profile and the quirks make of it.
type style struct {
	legacy          bool // old json_encode: "\/", letters outside ASCII as \uXXXX
	numericStrings  bool
	emptyAsList     bool
	listForMap      bool
	objectForList   bool
	omitOptional    bool
	escapeAll       bool
	upperCase       bool
	idAsList        bool
	composite       bool
	halfGone        bool
	noState         bool
	stateZeroIgnore bool
	stateZeroAll    bool
}

func styleOf(p Profile, q *Quirks) style {
	legacy := p.old()
	return style{
		legacy:          legacy,
		numericStrings:  legacy || q.NumericStrings,
		emptyAsList:     legacy || q.EmptyMapAsList,
		listForMap:      q.ListForMap,
		objectForList:   q.ObjectForList,
		omitOptional:    q.OmitOptional,
		escapeAll:       q.HTMLEscaped,
		upperCase:       q.UpperCaseColumns,
		idAsList:        q.IDAsList,
		composite:       q.CompositeRows,
		halfGone:        q.HalfGone,
		noState:         q.CardsWithoutState,
		stateZeroIgnore: q.StateZeroIgnored,
		stateZeroAll:    q.StateZeroAll,
	}
}

// encoder streams JSON: no tree is built. Its methods must be called in the
// order of the document; after a failed write all of them do nothing.
type encoder struct {
	style
	w     io.Writer
	buf   []byte
	err   error
	stack []frame
}

// frame is an object, list or keyed map that is being written.
type frame struct {
	kind byte // '{' object, '[' list, 'm' keyed map
	n    int  // members so far
	list bool // a keyed map that is printed as a list
}

func newEncoder(w io.Writer, st style) *encoder {
	return &encoder{style: st, w: w, buf: make([]byte, 0, flushAt+4<<10)}
}

// flush hands what was gathered to the client.
func (e *encoder) flush() error {
	if e.err == nil && len(e.buf) > 0 {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
	return e.err
}

// value makes room for a value: in lists it writes the comma, and the key where
// they are printed as objects.
func (e *encoder) value() {
	if len(e.buf) >= flushAt {
		_ = e.flush() // remembered in err
	}
	if len(e.stack) == 0 {
		return
	}
	if f := &e.stack[len(e.stack)-1]; f.kind == '[' {
		if f.n > 0 {
			e.buf = append(e.buf, ',')
		}
		if e.objectForList {
			e.buf = append(strconv.AppendInt(append(e.buf, '"'), int64(f.n), 10), '"', ':')
		}
		f.n++
	}
}

// object writes an object with the members that fn writes.
func (e *encoder) object(fn func()) {
	e.value()
	e.buf = append(e.buf, '{')
	e.nest(frame{kind: '{'}, fn)
	e.buf = append(e.buf, '}')
}

// list writes a list of the values that fn writes.
func (e *encoder) list(fn func()) {
	e.value()
	if !e.objectForList {
		e.buf = append(e.buf, '[')
		e.nest(frame{kind: '['}, fn)
		e.buf = append(e.buf, ']')
		return
	}
	e.buf = append(e.buf, '{')
	if f := e.nest(frame{kind: '['}, fn); f.n > 0 {
		e.buf = append(e.buf, '}')
		return
	}
	e.buf = append(e.buf[:len(e.buf)-1], "[]"...) // PHP knows no empty object
}

// keyed writes an object whose keys are data. An empty one may come out as [].
// With selfKeyed its members carry their key inside too, so that a quirk may
// print it as a list.
func (e *encoder) keyed(selfKeyed bool, fn func()) {
	e.value()
	f := e.nest(frame{kind: 'm', list: selfKeyed && e.listForMap}, fn)
	switch {
	case f.n == 0 && (f.list || e.emptyAsList):
		e.buf = append(e.buf, "[]"...)
	case f.n == 0:
		e.buf = append(e.buf, "{}"...)
	case f.list:
		e.buf = append(e.buf, ']')
	default:
		e.buf = append(e.buf, '}')
	}
}

func (e *encoder) nest(f frame, fn func()) frame {
	e.stack = append(e.stack, f)
	fn()
	f = e.stack[len(e.stack)-1]
	e.stack = e.stack[:len(e.stack)-1]
	return f
}

// key begins a member of an object or keyed map; its value must follow.
func (e *encoder) key(k string) {
	f := &e.stack[len(e.stack)-1]
	switch {
	case f.n > 0:
		e.buf = append(e.buf, ',')
	case f.kind == 'm' && f.list:
		e.buf = append(e.buf, '[')
	case f.kind == 'm':
		e.buf = append(e.buf, '{')
	}
	f.n++
	if f.list {
		return
	}
	e.quote(k)
	e.buf = append(e.buf, ':')
}

// id begins a member whose key is a number.
func (e *encoder) id(n int64) { e.key(strconv.FormatInt(n, 10)) }

// int writes a number.
func (e *encoder) int(n int64) {
	e.value()
	if e.numericStrings {
		e.buf = append(e.buf, '"')
	}
	e.buf = strconv.AppendInt(e.buf, n, 10)
	if e.numericStrings {
		e.buf = append(e.buf, '"')
	}
}

// decimal writes a number that is text in every profile: addresses, money.
func (e *encoder) decimal(n int64) {
	e.value()
	e.buf = append(e.buf, '"')
	e.buf = strconv.AppendInt(e.buf, n, 10)
	e.buf = append(e.buf, '"')
}

// str writes text as it is: names of the protocol, dates, MACs.
func (e *encoder) str(s string) {
	e.value()
	e.quote(s)
}

// text writes what a person typed: HTML-escaped, as the ERP stores it.
func (e *encoder) text(s string) { e.str(escapeText(s, e.escapeAll)) }

// name writes an interface name, which comes from the switch and is escaped
// only by the quirk.
func (e *encoder) name(s string) {
	if e.escapeAll {
		s = escapeText(s, true)
	}
	e.str(s)
}

// null writes null.
func (e *encoder) null() {
	e.value()
	e.buf = append(e.buf, "null"...)
}

// Members of objects: a key and its value.

func (e *encoder) intField(k string, n int64)     { e.key(k); e.int(n) }
func (e *encoder) decimalField(k string, n int64) { e.key(k); e.decimal(n) }
func (e *encoder) strField(k, s string)           { e.key(k); e.str(s) }
func (e *encoder) textField(k, s string)          { e.key(k); e.text(s) }

func (e *encoder) flagField(k string, b bool) {
	if b {
		e.intField(k, 1)
	} else {
		e.intField(k, 0)
	}
}

// optional says whether a field that servers may leave out is written.
func (e *encoder) optional() bool { return !e.omitOptional }

// quote appends a JSON string. Old PHP escapes slashes and everything outside
// ASCII, new servers do not.
func (e *encoder) quote(s string) {
	const hexdigits = "0123456789abcdef"
	b := append(e.buf, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			if !e.legacy {
				b = utf8.AppendRune(b, r)
				continue
			}
			units := [2]uint16{uint16(r)}
			n := 1
			if r > 0xffff {
				hi, lo := utf16.EncodeRune(r)
				units, n = [2]uint16{uint16(hi), uint16(lo)}, 2
			}
			for _, u := range units[:n] {
				b = append(b, '\\', 'u', hexdigits[u>>12], hexdigits[u>>8&15], hexdigits[u>>4&15], hexdigits[u&15])
			}
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\' || c == '/' && e.legacy:
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexdigits[c>>4], hexdigits[c&15])
		default:
			b = append(b, c)
		}
	}
	e.buf = append(b, '"')
}

// escapeText returns the form in which the ERP stores text: the five characters of
// HTML as entities and line breaks as <br>; with all also both slashes and
// every letter outside ASCII (API page, section 2.3).
func escapeText(s string, all bool) string {
	plain := !strings.ContainsAny(s, "&\"'<>\n")
	if plain && !all {
		return s
	}
	s = strings.NewReplacer("&#34;", "&quot;", "&#39;", "&#039;", "\n", "<br>").Replace(html.EscapeString(s))
	if !all {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '/' || r == '\\':
			fmt.Fprintf(&b, "&#%03d;", r)
		case r >= utf8.RuneSelf:
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
