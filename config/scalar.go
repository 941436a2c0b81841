package config

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

// raw gives the text of a scalar as it stands in the file, so that an
// unquoted 10 or 1e3 stays what the operator wrote.
func (v value) raw(want string) (string, bool) {
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
		v.problem("want %s, got %s", want, kindOf(v.node))
		return "", false
	}
}

func (v value) text() (string, bool) { return v.raw("text") }

func (v value) truth() (b, ok bool) {
	switch n := v.node.(type) {
	case nil:
	case *ast.BoolNode:
		return n.Value, true
	default:
		v.problem("want true or false, got %s", kindOf(v.node))
	}
	return false, false
}

func (v value) whole(low, high int) (int, bool) {
	s, ok := v.raw("a whole number")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		v.problem("want a whole number from %d to %d, got %q", low, high, excerpt(s))
	case n < low || n > high:
		v.problem("%d is outside %d to %d", n, low, high)
	default:
		return n, true
	}
	return 0, false
}

func (v value) real(low, high float64) (float64, bool) {
	s, ok := v.raw("a number")
	if !ok {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || math.IsNaN(f):
		v.problem("want a number from %g to %g, got %q", low, high, excerpt(s))
	case f < low || f > high:
		v.problem("%g is outside %g to %g", f, low, high)
	default:
		return f, true
	}
	return 0, false
}

// share reads a percentage up to most and returns it as 0..1. A bare number is
// refused: one operator's 10 is another's 0.1.
func (v value) share(most string) (float64, bool) {
	s, ok := v.raw("a percentage such as 10%")
	if !ok {
		return 0, false
	}
	f, ok := percent(s)
	high, _ := percent(most)
	switch {
	case !ok:
		v.problem("want a percentage such as 10%%, got %q", excerpt(s))
	case f < 0 || f > high:
		v.problem("%s is outside 0%% to %s", excerpt(s), most)
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

func (v value) span(low, high time.Duration) (time.Duration, bool) {
	s, ok := v.raw("a duration such as 30s")
	if !ok {
		return 0, false
	}
	dur, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); err == nil && bare == nil && s != "0" || s == "0" && low > 0 {
		err = strconv.ErrSyntax
	}
	switch {
	case err != nil:
		v.problem("want a duration with a unit, such as 30s, 5m or 12h, got %q", excerpt(s))
	case dur < low || dur > high:
		v.problem("%s is outside %s to %s", s, brief(low), brief(high))
	default:
		return dur, true
	}
	return 0, false
}

// brief writes 1h instead of 1h0m0s.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (v value) word(words []string) (string, bool) {
	s, ok := v.raw("one of " + strings.Join(words, ", "))
	if !ok {
		return "", false
	}
	if !slices.Contains(words, s) {
		v.problem("%q is not one of %s%s", excerpt(s), strings.Join(words, ", "), didYouMean(s, words))
		return "", false
	}
	return s, true
}

// ipv4 reads an IPv4 address that a host can have.
func (v value) ipv4() (netip.Addr, bool) {
	s, ok := v.raw("an IPv4 address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		v.problem("want an IPv4 address such as 192.0.2.1, got %q", excerpt(s))
	case !a.Is4():
		v.problem("%s is not an IPv4 address", a)
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		v.problem("%s is not the address of a host", a)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

func (v value) ipv4s() []netip.Addr {
	var out []netip.Addr
	v.list(func(e value) {
		a, ok := e.ipv4()
		if !ok {
			return
		}
		if slices.Contains(out, a) {
			e.problem("%s is in the list twice", a)
			return
		}
		out = append(out, a)
	})
	return out
}

// prefix reads an IPv4 prefix and insists that its host bits are zero: an
// operator who wrote 192.0.2.1/24 may have meant something else.
func (v value) prefix() (netip.Prefix, bool) {
	s, ok := v.raw("an IPv4 prefix")
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		v.problem("want an IPv4 prefix such as 192.0.2.0/24, got %q", excerpt(s))
	case !p.Addr().Is4():
		v.problem("%s is not an IPv4 prefix", p)
	case p != p.Masked():
		v.problem("%s has host bits set, did you mean %s?", p, p.Masked())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// listen reads an IP address with a port; like is an example of one.
func (v value) listen(like string) (netip.AddrPort, bool) {
	s, ok := v.raw("an address with a port")
	if !ok {
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		v.problem("want an IP address with a port such as %s, got %q", like, excerpt(s))
	}
	return ap, err == nil
}

// listenOrOff is listen; "off" is the invalid address.
func (v value) listenOrOff(like string) (netip.AddrPort, bool) {
	if n, ok := v.node.(*ast.StringNode); ok && n.Value == "off" {
		return netip.AddrPort{}, true
	}
	return v.listen(like)
}

// dir reads an absolute path.
func (v value) dir() (string, bool) {
	s, ok := v.raw("text")
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(s) {
		v.problem("want an absolute path, got %q", excerpt(s))
		return "", false
	}
	return filepath.Clean(s), true
}

// relay reads an IPv4 prefix, or one address.
func (v value) relay() (netip.Prefix, bool) {
	if s, ok := v.raw("an IPv4 prefix or address"); ok && !strings.Contains(s, "/") {
		a, ok := v.ipv4()
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, 32), true
	} else if !ok {
		return netip.Prefix{}, false
	}
	return v.prefix()
}

// interfaceName reads the name of an interface or a pattern of path.Match.
func (v value) interfaceName() (string, bool) {
	name, ok := v.raw("the name of an interface")
	if !ok {
		return "", false
	}
	pattern := strings.ContainsAny(name, `*?[\`)
	_, err := path.Match(name, "")
	switch {
	case name == "" || !pattern && len(name) > 15 || strings.ContainsAny(name, "/ \t\n:") || name == "." || name == "..":
		v.problem("%q is no name of an interface: 1 to 15 characters, none of / : or blank", excerpt(name))
	case err != nil:
		v.problem("%q is no pattern: a [ without its ], or a \\ at the end", excerpt(name))
	default:
		return name, true
	}
	return "", false
}

// excerpt bounds what an error repeats of the file.
func excerpt(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
