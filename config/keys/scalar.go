package keys

import (
	"math"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Readers of scalars. After a mistake, which is recorded, ok is false.

// Raw returns the text of a scalar as it stands in the file, so that an
// unquoted 10 or 1e3 stays what the operator wrote.
func (v Value) Raw(want string) (string, bool) {
	switch n := v.node.(type) {
	case nil:
		return "", false
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		v.Problem("want %s, got %s", want, kindOf(v.node))
		return "", false
	}
}

// Text reads any text.
func (v Value) Text() (string, bool) { return v.Raw("text") }

// Truth reads true or false.
func (v Value) Truth() (b, ok bool) {
	switch n := v.node.(type) {
	case nil:
	case *ast.BoolNode:
		return n.Value, true
	default:
		v.Problem("want true or false, got %s", kindOf(v.node))
	}
	return false, false
}

// Whole reads a whole number.
func (v Value) Whole(low, high int) (int, bool) {
	s, ok := v.Raw("a whole number")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		v.Problem("want a whole number from %d to %d, got %q", low, high, Excerpt(s))
	case n < low || n > high:
		v.Problem("%d is outside %d to %d", n, low, high)
	default:
		return n, true
	}
	return 0, false
}

func (v Value) real(low, high float64) (float64, bool) {
	s, ok := v.Raw("a number")
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || math.IsNaN(f):
		v.Problem("want a number from %g to %g, got %q", low, high, Excerpt(s))
	case f < low || f > high:
		v.Problem("%g is outside %g to %g", f, low, high)
	default:
		return f, true
	}
	return 0, false
}

// share reads a percentage up to most and returns it as 0..1. A bare number is
// refused: one operator's 10 is another's 0.1.
func (v Value) share(most string) (float64, bool) {
	s, ok := v.Raw("a percentage such as 10%")
	if !ok {
		return 0, false
	}
	f, ok := percent(s)
	high, _ := percent(most)
	switch {
	case !ok:
		v.Problem("want a percentage such as 10%%, got %q", Excerpt(s))
	case f < 0 || f > high:
		v.Problem("%s is outside 0%% to %s", Excerpt(s), most)
	default:
		return f / 100, true
	}
	return 0, false
}

func percent(s string) (float64, bool) {
	digits, ok := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	return f, ok && err == nil && !math.IsNaN(f)
}

// Span reads a duration.
func (v Value) Span(low, high time.Duration) (time.Duration, bool) {
	s, ok := v.Raw("a duration such as 30s")
	if !ok {
		return 0, false
	}
	dur, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); err == nil && bare == nil && s != "0" || s == "0" && low > 0 {
		err = strconv.ErrSyntax
	}
	switch {
	case err != nil:
		v.Problem("want a duration with a unit, such as 30s, 5m or 12h, got %q", Excerpt(s))
	case dur < low || dur > high:
		v.Problem("%s is outside %s to %s", s, Brief(low), Brief(high))
	default:
		return dur, true
	}
	return 0, false
}

// Brief writes 1h instead of 1h0m0s.
func Brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Word reads one of some words.
func (v Value) Word(words []string) (string, bool) {
	s, ok := v.Raw("one of " + strings.Join(words, ", "))
	if !ok {
		return "", false
	}
	if !slices.Contains(words, s) {
		v.Problem("%q is not one of %s%s", Excerpt(s), strings.Join(words, ", "), DidYouMean(s, words))
		return "", false
	}
	return s, true
}

// IPv4 reads an IPv4 address that a host can have.
func (v Value) IPv4() (netip.Addr, bool) {
	s, ok := v.Raw("an IPv4 address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		v.Problem("want an IPv4 address such as 192.0.2.1, got %q", Excerpt(s))
	case !a.Is4():
		v.Problem("%s is not an IPv4 address", a)
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		v.Problem("%s is not the address of a host", a)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// Prefix reads an IPv4 prefix and insists that its host bits are zero: an
// operator who wrote 192.0.2.1/24 may have meant something else.
func (v Value) Prefix() (netip.Prefix, bool) {
	s, ok := v.Raw("an IPv4 prefix")
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		v.Problem("want an IPv4 prefix such as 192.0.2.0/24, got %q", Excerpt(s))
	case !p.Addr().Is4():
		v.Problem("%s is not an IPv4 prefix", p)
	case p != p.Masked():
		v.Problem("%s has host bits set, did you mean %s?", p, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// Listen reads an IP address with a port; like is an example of one.
func (v Value) Listen(like string) (netip.AddrPort, bool) {
	s, ok := v.Raw("an address with a port")
	if !ok {
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		v.Problem("want an IP address with a port such as %s, got %q", like, Excerpt(s))
	}
	return ap, err == nil
}

// listenOrOff is Listen; "off" is the invalid address.
func (v Value) listenOrOff(like string) (netip.AddrPort, bool) {
	if n, ok := v.node.(*ast.StringNode); ok && n.Value == "off" {
		return netip.AddrPort{}, true
	}
	return v.Listen(like)
}

// dir reads an absolute path.
func (v Value) dir() (string, bool) {
	s, ok := v.Raw("text")
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(s) {
		v.Problem("want an absolute path, got %q", Excerpt(s))
		return "", false
	}
	return filepath.Clean(s), true
}

// Network reads an IPv4 prefix, or one address.
func (v Value) Network() (netip.Prefix, bool) {
	if s, ok := v.Raw("an IPv4 prefix or address"); ok && !strings.Contains(s, "/") {
		a, ok := v.IPv4()
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, 32), true
	} else if !ok {
		return netip.Prefix{}, false
	}
	return v.Prefix()
}

// InterfaceName reads the name of an interface or a pattern of path.Match.
func (v Value) InterfaceName() (string, bool) {
	name, ok := v.Raw("the name of an interface")
	if !ok {
		return "", false
	}
	pattern := strings.ContainsAny(name, `*?[\`)
	_, err := path.Match(name, "")
	switch {
	case name == "" || !pattern && len(name) > 15 || strings.ContainsAny(name, "/ \t\n:") || name == "." || name == "..":
		v.Problem("%q is no name of an interface: 1 to 15 characters, none of / : or blank", Excerpt(name))
	case err != nil:
		v.Problem("%q is no pattern: a [ without its ], or a \\ at the end", Excerpt(name))
	default:
		return name, true
	}
	return "", false
}

// Excerpt bounds what an error repeats of the file.
func Excerpt(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// DidYouMean ends an error with the known word that is near, if one is.
func DidYouMean(got string, known []string) string {
	if n := nearest(got, known); n != "" {
		return ", did you mean " + n + "?"
	}
	return ""
}
