package userside

import (
	"encoding/json"
	"fmt"
	"html"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const redacted = "[redacted]"

// Key is the API key (API page section 1.1). No way of printing or encoding it
// shows it.
type Key string

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
	spellings []string // of the key, longest first
	longest   int
	parameter *regexp.Regexp
}

func newRedactor(key Key) redactor {
	k := string(key)
	quoted, _ := json.Marshal(k) // with \u0026 and the like
	all := []string{k, url.QueryEscape(k), url.PathEscape(k), html.EscapeString(k), strings.Trim(string(quoted), `"`),
		strings.ReplaceAll(strings.Trim(string(quoted), `"`), "/", `\/`)}
	for _, s := range all[1:3] {
		all = append(all, lowerEscapes(s))
	}
	slices.SortFunc(all, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	all = slices.Compact(all)
	// Whatever follows key= in something like a URL goes too, however it is spelled.
	return redactor{spellings: all, longest: len(all[0]), parameter: regexp.MustCompile(`(?i)\b(key=)[^&\s"'<>]+`)}
}

// lowerEscapes turns %2F into %2f, the other legal spelling.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
		}
	}
	return string(b)
}

func (r redactor) redact(s string) string {
	for _, k := range r.spellings {
		s = strings.ReplaceAll(s, k, redacted)
	}
	return r.parameter.ReplaceAllString(s, "${1}"+redacted)
}

// text makes a foreign text fit for an error: redacted, printable, one line, bounded.
func (r redactor) text(s string) string {
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
const excerptWindow = 2048

// excerpt is text for the head of a body. When the head was cut off, its end
// may be the beginning of a key; the longest spelling is dropped there.
func (r redactor) excerpt(head []byte, cut bool) string {
	s := string(head)
	for _, k := range r.spellings {
		s = strings.ReplaceAll(s, k, redacted)
	}
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
