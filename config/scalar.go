package config

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Readers of scalars. Each takes a default for an absent value; after a
// mistake, which is recorded, it gives the default and ok is false.

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

func (v value) text(def string) string {
	s, ok := v.raw("text")
	if !ok {
		return def
	}
	return s
}

func (v value) boolean(def bool) bool {
	switch n := v.node.(type) {
	case nil:
		return def
	case *ast.BoolNode:
		return n.Value
	default:
		v.problem("want true or false, got %s", kindOf(v.node))
		return def
	}
}

func (v value) integer(def, low, high int) int {
	s, ok := v.raw("a whole number")
	if !ok {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		v.problem("want a whole number from %d to %d, got %q", low, high, excerpt(s))
		return def
	}
	if n < low || n > high {
		v.problem("%d is outside %d to %d", n, low, high)
		return def
	}
	return n
}

func (v value) number(def, low, high float64) float64 {
	s, ok := v.raw("a number")
	if !ok {
		return def
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) {
		v.problem("want a number from %g to %g, got %q", low, high, excerpt(s))
		return def
	}
	if f < low || f > high {
		v.problem("%g is outside %g to %g", f, low, high)
		return def
	}
	return f
}

// share reads a percentage and gives it as 0..1. A bare number is refused: one
// operator's 10 is another's 0.1.
func (v value) share(def, high float64) float64 {
	s, ok := v.raw("a percentage such as 10%")
	if !ok {
		return def
	}
	digits, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || !percent || math.IsNaN(f) {
		v.problem("want a percentage such as 10%%, got %q", excerpt(s))
		return def
	}
	if f < 0 || f > high*100 {
		v.problem("%s is outside 0%% to %g%%", excerpt(s), high*100)
		return def
	}
	return f / 100
}

func (v value) duration(def, low, high time.Duration) time.Duration {
	s, ok := v.raw("a duration such as 30s")
	if !ok {
		return def
	}
	dur, err := time.ParseDuration(s)
	if _, bare := strconv.ParseFloat(s, 64); err == nil && bare == nil && s != "0" || s == "0" && low > 0 {
		err = strconv.ErrSyntax
	}
	if err != nil {
		v.problem("want a duration with a unit, such as 30s, 5m or 12h, got %q", excerpt(s))
		return def
	}
	if dur < low || dur > high {
		v.problem("%s is outside %s to %s", s, brief(low), brief(high))
		return def
	}
	return dur
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

func (v value) oneOf(def string, words ...string) string {
	s, ok := v.raw("one of " + strings.Join(words, ", "))
	if !ok {
		return def
	}
	if !slices.Contains(words, s) {
		hint := ""
		if n := nearest(s, words); n != "" {
			hint = ", did you mean " + n + "?"
		}
		v.problem("%q is not one of %s%s", excerpt(s), strings.Join(words, ", "), hint)
		return def
	}
	return s
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

// listen reads host:port with an IP as the host; "off" gives the invalid value.
func (v value) listen(def netip.AddrPort, offWord bool) netip.AddrPort {
	s, ok := v.raw("an address with a port")
	if !ok {
		return def
	}
	if offWord && s == "off" {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		v.problem("want an IP address with a port such as %s, got %q", def, excerpt(s))
		return def
	}
	return ap
}

// excerpt bounds what an error repeats of the file.
func excerpt(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
