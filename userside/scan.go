package userside

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds nesting. The deepest known answer has six levels.
const maxDepth = 200

// syntaxError is JSON that is not JSON, with the byte where that was seen.
type syntaxError struct {
	offset int64
	what   string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.offset) }

// errTruncated is a document that ends too early.
var errTruncated = errors.New("truncated")

// scanner pulls JSON values out of a stream. It holds one buffer of the stream
// and nothing else; where texts go is the caller's business.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int
	base     int64 // offset of buf[0] in the stream
	err      error // sticky, of r
	depth    int
	maxText  int      // bytes of one text; 0: any
	maxTree  int      // bytes of one value with all that is in it; 0: any
	keys     [][]byte // one buffer for the key at each depth
}

func newScanner(r io.Reader) *scanner { return &scanner{r: r, buf: make([]byte, 64<<10)} }

func (s *scanner) offset() int64 { return s.base + int64(s.pos) }

func (s *scanner) bad(what string) error { return &syntaxError{offset: s.offset(), what: what} }

// fill refills an exhausted buffer. It reports errTruncated at the end of the
// stream, or the error of the reader.
func (s *scanner) fill() error {
	s.base += int64(s.end)
	s.pos, s.end = 0, 0
	for range 100 {
		if s.err != nil {
			if errors.Is(s.err, io.EOF) {
				return errTruncated
			}
			return s.err
		}
		s.end, s.err = s.r.Read(s.buf)
		if s.end > 0 {
			return nil
		}
	}
	s.err = io.ErrNoProgress
	return s.err
}

// peek returns the first byte of the next token without consuming it.
func (s *scanner) peek() (byte, error) {
	if s.pos < s.end && s.buf[s.pos] > ' ' {
		return s.buf[s.pos], nil
	}
	return s.skipSpace()
}

func (s *scanner) skipSpace() (byte, error) {
	for {
		for ; s.pos < s.end; s.pos++ {
			switch c := s.buf[s.pos]; c {
			case ' ', '\t', '\n', '\r':
			default:
				return c, nil
			}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// next returns the next byte, white space or not, and consumes it.
func (s *scanner) next() (byte, error) {
	if s.pos == s.end {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	c := s.buf[s.pos]
	s.pos++
	return c, nil
}

// finish makes sure that nothing but white space follows.
func (s *scanner) finish() error {
	_, err := s.peek()
	switch {
	case errors.Is(err, errTruncated):
		return nil
	case err != nil:
		return err
	}
	return s.bad("text after the document")
}

// enter consumes the bracket of the array or object that comes next.
func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return s.bad("nested too deep")
	}
	s.pos++
	return nil
}

// more comes to member i of the array or object that closing ends, or consumes
// closing and reports false.
func (s *scanner) more(closing byte, i int) (bool, error) {
	c, err := s.peek()
	switch {
	case err != nil:
		return false, err
	case c == closing:
		s.pos++
		s.depth--
		return false, nil
	case i == 0:
		return true, nil
	case c != ',':
		return false, s.bad("no comma between members")
	}
	s.pos++
	return true, nil
}

// appendKey consumes the key that comes next, and its colon, and appends its text.
func (s *scanner) appendKey(dst []byte) ([]byte, error) {
	c, err := s.peek()
	if err != nil {
		return dst, err
	}
	if c != '"' {
		return dst, s.bad("no key")
	}
	if dst, err = s.appendString(dst); err != nil {
		return dst, err
	}
	if c, err = s.peek(); err != nil {
		return dst, err
	}
	if c != ':' {
		return dst, s.bad("no colon after a key")
	}
	s.pos++
	return dst, nil
}

// members walks the array or object that comes next. fn must consume exactly
// one value for each member; key is nil in an array and good until fn consumes it.
func (s *scanner) members(fn func(key []byte, index int) error) error {
	open, err := s.peek()
	if err != nil {
		return err
	}
	if open != '{' && open != '[' {
		return s.bad("no array or object")
	}
	if err := s.enter(); err != nil {
		return err
	}
	for len(s.keys) <= s.depth {
		s.keys = append(s.keys, []byte{})
	}
	var key []byte // nil in a list
	for i := 0; ; i++ {
		if ok, err := s.more(open+2, i); err != nil || !ok { // ] and } are two behind [ and {
			return err
		}
		if open == '{' {
			if key, err = s.appendKey(s.keys[s.depth][:0]); err != nil {
				return err
			}
			s.keys[s.depth] = key
		}
		if err := fn(key, i); err != nil {
			return within(err, key, i)
		}
	}
}

// room refuses a text that has become too long.
func (s *scanner) room(have int) error {
	if s.maxText > 0 && have > s.maxText {
		return &limitError{offset: s.offset(), what: "a text is longer than", limit: int64(s.maxText), key: "max_text_kib"}
	}
	return nil
}

// limitError is a value beyond a limit, with its place.
type limitError struct {
	offset int64
	path   string
	what   string
	limit  int64
	key    string // of the configuration
}

func (e *limitError) Error() string {
	where := ""
	if e.path != "" {
		where = strings.TrimPrefix(e.path, ".") + ": "
	}
	return fmt.Sprintf("%s%s %d bytes (at byte %d; the limit is userside.%s)", where, e.what, e.limit, e.offset, e.key)
}

// within adds to the place of a value beyond a limit the member that it is in.
func within(err error, key []byte, index int) error {
	if e, ok := err.(*limitError); ok { //nolint:errorlint // nobody wraps it on its way
		step := fmt.Sprintf("[%d]", index)
		if key != nil {
			step = "." + strings.ToValidUTF8(string(key[:min(len(key), maxQuote)]), "\uFFFD")
		}
		e.path = step + e.path
	}
	return err
}

// plainBytes marks the bytes that stand for themselves in a string.
var plainBytes = func() (t [256]bool) {
	for c := ' '; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString consumes the string that comes next and appends its text.
// Invalid UTF-8 is kept as it is.
func (s *scanner) appendString(dst []byte) ([]byte, error) {
	s.pos++ // the quote
	start := len(dst)
	for {
		chunk := s.buf[s.pos:s.end]
		i := 0
		for i < len(chunk) && plainBytes[chunk[i]] {
			i++
		}
		dst = append(dst, chunk[:i]...)
		s.pos += i
		if err := s.room(len(dst) - start); err != nil {
			return dst, err
		}
		if i == len(chunk) {
			if err := s.fill(); err != nil {
				return dst, err
			}
			continue
		}
		switch chunk[i] {
		case '"':
			s.pos++
			return dst, nil
		case '\\':
			var err error
			if dst, err = s.appendEscape(dst); err != nil {
				return dst, err
			}
		default:
			return dst, s.bad("control character in a string")
		}
	}
}

func (s *scanner) appendEscape(dst []byte) ([]byte, error) {
	s.pos++ // the backslash
	c, err := s.next()
	if err != nil {
		return dst, err
	}
	switch c {
	case '"', '\\', '/':
		return append(dst, c), nil
	case 'b':
		return append(dst, '\b'), nil
	case 'f':
		return append(dst, '\f'), nil
	case 'n':
		return append(dst, '\n'), nil
	case 'r':
		return append(dst, '\r'), nil
	case 't':
		return append(dst, '\t'), nil
	case 'u':
		r, err := s.hex4()
		if err != nil {
			return dst, err
		}
		for utf16.IsSurrogate(r) {
			// The other half must follow at once; otherwise this one stands for nothing.
			low, ok, err := s.escapedUnit()
			if err != nil {
				return dst, err
			}
			if !ok {
				r = utf8.RuneError
				break
			}
			if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
				r = full
				break
			}
			dst = utf8.AppendRune(dst, utf8.RuneError)
			r = low
		}
		return utf8.AppendRune(dst, r), nil
	}
	return dst, s.bad("unknown escape in a string")
}

// escapedUnit consumes a further \uXXXX if one follows.
func (s *scanner) escapedUnit() (rune, bool, error) {
	if s.end-s.pos < 2 {
		// Keep what is left at the front of the buffer and read on behind it.
		n := copy(s.buf, s.buf[s.pos:s.end])
		s.base += int64(s.pos)
		s.pos, s.end = 0, n
		for s.end < 2 && s.err == nil {
			var k int
			k, s.err = s.r.Read(s.buf[s.end:])
			s.end += k
		}
	}
	if s.end-s.pos < 2 || s.buf[s.pos] != '\\' || s.buf[s.pos+1] != 'u' {
		return 0, false, nil
	}
	s.pos += 2
	r, err := s.hex4()
	return r, true, err
}

func (s *scanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		c, err := s.next()
		if err != nil {
			return 0, err
		}
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.bad("no hex digit in an escape")
		}
		r = r<<4 | rune(c)
	}
	return r, nil
}

// appendNumber consumes the number that comes next and appends its text.
func (s *scanner) appendNumber(dst []byte) ([]byte, error) {
	start := len(dst)
	for {
		i := s.pos
		for i < s.end && isNumberByte(s.buf[i]) {
			i++
		}
		dst = append(dst, s.buf[s.pos:i]...)
		s.pos = i
		if err := s.room(len(dst) - start); err != nil {
			return dst, err
		}
		if i < s.end {
			break
		}
		if err := s.fill(); errors.Is(err, errTruncated) {
			break
		} else if err != nil {
			return dst, err
		}
	}
	if !isNumber(dst[start:]) {
		return dst, s.bad("no number")
	}
	return dst, nil
}

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}

// isNumber checks the grammar of RFC 8259 section 6.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 0 && b[0] == '0' {
		b = b[1:]
	} else if !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		if !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

// literal consumes true, false or null.
func (s *scanner) literal(word string) error {
	for i := range len(word) {
		c, err := s.next()
		if err != nil {
			return err
		}
		if c != word[i] {
			return s.bad("unknown word")
		}
	}
	return nil
}
