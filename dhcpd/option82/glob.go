package option82

import (
	"fmt"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// Glob is a pattern for names: * is any text, also none, ? one character. Case
// does not matter. The whole name must match.
type Glob struct{ text string }

// CompileGlob checks a pattern.
func CompileGlob(s string) (Glob, error) {
	if s == "" || len(s) > maxTemplate {
		return Glob{}, fmt.Errorf("pattern %q: want 1 to %d characters", s, maxTemplate)
	}
	for i := range len(s) {
		if s[i] < 0x20 {
			return Glob{}, fmt.Errorf("pattern %q: a control character", s)
		}
	}
	return Glob{lower(s)}, nil
}

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// String returns the pattern.
func (g Glob) String() string { return g.text }

// IsZero reports whether g is no pattern.
func (g Glob) IsZero() bool { return g.text == "" }

// Match reports whether g matches name. It allocates nothing; the work is at
// most the product of both lengths.
func (g Glob) Match(name []byte) bool { return globMatch(g.text, name) }

// MatchString is Match for a string.
func (g Glob) MatchString(name string) bool { return globMatch(g.text, name) }

func globMatch[T []byte | string](pattern string, name T) bool {
	p, n := 0, 0
	star, mark := -1, 0 // last * and how far it reaches
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == lowerByte(name[n])):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// MatchRemote reports whether g matches a remote-id as people write it: a MAC as
// aa:bb:cc:dd:ee:ff, whatever form it came in; text as it is; six bytes that may be
// either in both ways; other bytes as hexadecimal digits.
func (g Glob) MatchRemote(v []byte) bool {
	remote := wire.DecodeRemote(v)
	var buf [2 * 255]byte
	switch remote.Kind {
	case wire.RemoteNone:
		return false
	case wire.RemoteMAC:
		return g.Match(appendMAC(buf[:0], remote.MAC)) || remote.Unsure && g.Match(remote.Text)
	case wire.RemoteIP, wire.RemoteText:
		return g.Match(remote.Text)
	}
	b := buf[:0]
	for _, c := range v[:min(len(v), 255)] {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return g.Match(b)
}
