package userside

import (
	"errors"
	"fmt"
	"html"
	"log/slog"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// Key is the API key (API page section 1.1). No way of printing or encoding it
// shows it.
type Key string

// maxKey bounds a key; those of the ERP have 32 characters or so.
const maxKey = 256

func (k Key) validate() error {
	switch {
	case k == "":
		return errors.New("is empty")
	case len(k) > maxKey:
		return fmt.Errorf("is longer than %d bytes", maxKey)
	case !utf8.ValidString(string(k)) || strings.ContainsFunc(string(k), unicode.IsControl):
		return errors.New("holds a line break or another character that is no text")
	}
	return nil
}

// String hides the value.
func (Key) String() string { return redacted }

// Format hides the value from every verb of package fmt.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the value from every encoder.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the value from slog.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// maxText bounds what a server can put into an Error or a log line, in bytes.
const maxText = 300

// redactor takes the key out of texts that others wrote.
type redactor struct {
	key       *regexp.Regexp // the key with each character in any spelling
	parameter *regexp.Regexp // key=... in something like a URL, whatever it says
	longest   int            // bytes of the longest spelling of the key
}

// newRedactor knows each character of the key raw, percent-encoded, as HTML
// entity, as \u escape, and behind backslashes, in any mixture: a server may
// echo the key in a URL inside HTML inside JSON.
func newRedactor(key Key) redactor {
	var b strings.Builder
	longest := 0
	for _, c := range string(key) {
		var percent strings.Builder
		for _, octet := range []byte(string(c)) {
			fmt.Fprintf(&percent, "%%(?:25)?%02x", octet)
		}
		spellings := []string{
			regexp.QuoteMeta(string(c)), "(?i:" + percent.String() + ")", fmt.Sprintf("(?i:u%04x)", c), fmt.Sprintf("(?i:&#x0{0,4}%x;)", c),
			fmt.Sprintf("&#0{0,4}%d;", c), regexp.QuoteMeta(html.EscapeString(string(c))),
		}
		if c == '"' {
			spellings = append(spellings, "&quot;")
		}
		if c == '\'' {
			spellings = append(spellings, "&apos;")
		}
		if c == ' ' {
			spellings = append(spellings, `\+`)
		}
		b.WriteString(`\\{0,4}(?:` + strings.Join(spellings, "|") + ")")
		longest += 4 + 5*utf8.UTFMax
	}
	return redactor{
		key:       regexp.MustCompile(b.String()),
		parameter: regexp.MustCompile(`(?i)\b(key=)[^&\s"'<>]+`),
		longest:   longest,
	}
}

func (r redactor) redact(s string) string {
	return r.parameter.ReplaceAllString(r.key.ReplaceAllString(s, redacted), "${1}"+redacted)
}

// text makes a foreign text fit for an error: redacted, printable, one line, bounded.
func (r redactor) text(s string) string {
	if len(s) > excerptWindow {
		// No more than maxText of it is shown, and looking for the key in a megabyte takes a
		// second. At the end there may be the beginning of a key.
		s = r.redact(s[:excerptWindow])
		s = s[:max(0, len(s)-r.longest)]
	}
	s = r.redact(s)
	s = printable(s)
	s = r.redact(s) // cleaning may have joined what was apart
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for len(s) > 0 && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// excerptWindow is how much of a body's beginning is kept for an excerpt.
const excerptWindow = 8 << 10

// excerpt is text for the head of a body. When the head was cut off, its end
// may be the beginning of a key; the longest spelling is dropped there.
func (r redactor) excerpt(head []byte, cut bool) string {
	s := r.key.ReplaceAllString(string(head), redacted)
	if cut {
		s = s[:max(0, len(s)-r.longest)]
	}
	return r.text(s)
}

// printable replaces what a terminal or a log should not see and folds white space.
func printable(s string) string {
	var b strings.Builder
	space := false
	for _, c := range s {
		switch {
		case unicode.IsSpace(c):
			space = b.Len() > 0
			continue
		case c == utf8.RuneError || !unicode.IsPrint(c):
			c = '.'
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(c)
	}
	return b.String()
}
