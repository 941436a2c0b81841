package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"
)

// The colours, and there are no other escape sequences.
const (
	plainCode = "0"
	boldCode  = "1"
	faintCode = "2"
	redCode   = "31"
	greenCode = "32"
)

func colour(code string) string { return "\x1b[" + code + "m" }

var colours = []string{colour(plainCode), colour(boldCode), colour(faintCode), colour(redCode), colour(greenCode)}

// colourAt returns the colour that s begins with, or "".
func colourAt(s string) string {
	for _, c := range colours {
		if strings.HasPrefix(s, c) {
			return c
		}
	}
	return ""
}

// screen is the last thing before the terminal: whatever a command prints for
// people passes here, so that no command has to think of it. It lets through what
// prints, line breaks, tabs and, where w has colour, our own colours. It cannot know
// whose line break it sees: texts of others lose theirs before, in Harmless and Table.
type screen struct {
	w      io.Writer
	colour bool

	mu   sync.Mutex
	rest []byte // of the last write: the beginning of a rune or of a colour
}

// newScreen wraps w, once.
func newScreen(w io.Writer) *screen {
	if s, ok := w.(*screen); ok {
		return s
	}
	return &screen{w: w, colour: bool(NewPaint(w))}
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := append(s.rest, p...)
	var out bytes.Buffer
	n := s.pass(&out, all)
	s.rest = bytes.Clone(all[n:])
	if _, err := s.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// pass writes what is whole and returns how much of p that was.
func (s *screen) pass(out *bytes.Buffer, p []byte) int {
	n := 0
	for n < len(p) {
		rest := p[n:]
		end := bytes.IndexByte(rest, '\x1b')
		switch {
		case end > 0:
			rest = rest[:end] // a rune that a colour cuts short stays so
		case end == 0 && s.colour:
			if c := colourAt(string(rest[:min(len(rest), 8)])); c != "" {
				out.WriteString(c)
				n += len(c)
				continue
			}
			if begins(rest) {
				return n
			}
			rest = rest[:1]
		case end == 0:
			rest = rest[:1]
		default:
			rest = rest[:whole(rest)]
		}
		if len(rest) == 0 {
			return n
		}
		out.WriteString(visible(string(rest), "\n\t"))
		n += len(rest)
	}
	return n
}

// begins reports whether p may become a colour.
func begins(p []byte) bool {
	for _, c := range colours {
		if strings.HasPrefix(c, string(p)) {
			return true
		}
	}
	return false
}

// whole returns the length of p without a rune at its end that is not all there.
func whole(p []byte) int {
	for i := len(p) - 1; i >= 0 && i > len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return i
			}
			break
		}
	}
	return len(p)
}

// flush writes what never became whole.
func (s *screen) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.w, visible(string(s.rest), "\n\t"))
	s.rest = nil
}

// Beneath returns what the writer of a command ends in. It is for what programs
// read and for those who ask what w is; people are written to through w.
func Beneath(w io.Writer) io.Writer {
	if s, ok := w.(*screen); ok {
		return s.w
	}
	return w
}

// Terminal returns the terminal that w ends in.
func Terminal(w io.Writer) (*os.File, bool) {
	f, ok := Beneath(w).(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// WriteJSON writes JSON as it is. On a terminal, what does not print is written as
// JSON's own escapes: no program sees a difference.
func WriteJSON(w io.Writer, text []byte) error {
	if IsTerminal(w) {
		text = []byte(asciiEscapes(string(text)))
	}
	_, err := Beneath(w).Write(text)
	return err
}

// asciiEscapes writes what does not print as JSON escapes. In JSON it can only
// stand inside of strings.
func asciiEscapes(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsGraphic(r) && r != utf8.RuneError, r == '\n':
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// Progress overwrites one line on a terminal with s; an empty one takes it away.
func Progress(w io.Writer, s string) { fmt.Fprint(Beneath(w), "\r\x1b[K"+Line(s)) }
