package ruleset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// Listing is all that nft prints of the table.
type Listing struct {
	Policy  Policy
	Have    access.ACL   // sorted
	Nets    []access.Set // the sets of subnets in the order in which they were made, where that is known
	Open    []Dynamic    // elements of SetOpen
	Portal  []Dynamic    // elements of SetPortalUp
	Refused []Dynamic    // elements of SetRefused, sorted

	EgressOpen []Dynamic // elements of SetOpen in the table netdev

	Counts map[string][]access.Counter // of the rules of each chain, in order; nothing counted where they are missing
}

// Dynamic is an element that comes and goes in the kernel.
type Dynamic struct {
	Key     []byte
	Timeout time.Duration
	Expires time.Duration // until then
	Counter access.Counter
}

// String returns the table as "nft list table inet usher" (of version 1.0.6)
// prints it.
func (l Listing) String() string {
	var b strings.Builder
	b.WriteString("table inet usher {\n")
	l.Policy.Nets |= l.Have.NetSets()
	one := func(set access.Set) {
		var elements []string
		for _, e := range inOrder(set, l.Have) {
			elements = append(elements, elementText(e))
		}
		perLine := 1
		if isNumber(set) {
			perLine = 2
		}
		printSet(&b, Set(set), perLine, elements)
	}
	for set := range access.Sets() {
		if !set.Optional() {
			one(set)
		}
	}
	printSet(&b, Open(), 5, switchText(l.Open))
	printSet(&b, PortalUp(), 5, switchText(l.Portal))
	printSet(&b, Refused(), 2, refusedText(l.Refused))
	for _, set := range l.Nets {
		one(set)
	}
	for set := range l.Policy.Sets() {
		if set.Optional() && !slices.Contains(l.Nets, set) {
			one(set)
		}
	}
	rules := Rules(l.Policy)
	for i, c := range Chains(l.Policy) {
		if i > 0 {
			b.WriteString("\n")
		}
		l.printChain(&b, c, rules)
	}
	b.WriteString("}\n")
	if l.Policy.Egress != "" {
		l.printEgress(&b)
	}
	return b.String()
}

// printEgress prints the table with the egress chains.
func (l Listing) printEgress(b *strings.Builder) {
	b.WriteString("table netdev usher {\n")
	for _, set := range EgressSets() {
		var elements []string
		for _, e := range inOrder(set, l.Have) {
			elements = append(elements, elementText(e))
		}
		printSet(b, EgressSet(set), 1, elements)
	}
	printSet(b, EgressOpen(), 5, switchText(l.EgressOpen))
	rules := EgressRules(l.Policy)
	for i, c := range EgressChains(l.Policy) {
		if i > 0 {
			b.WriteString("\n")
		}
		l.printChain(b, c, rules)
	}
	b.WriteString("}\n")
}

func printSet(b *strings.Builder, s *nftables.Set, perLine int, elements []string) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", s.Name, s.KeyType.Name)
	if s.Size != 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	switch {
	case s.Interval:
		b.WriteString("\t\tflags interval\n")
	case s.Dynamic:
		b.WriteString("\t\tflags dynamic,timeout\n")
	case s.HasTimeout:
		b.WriteString("\t\tflags timeout\n")
	}
	if s.Counter {
		b.WriteString("\t\tcounter\n")
	}
	if s.Timeout != 0 {
		fmt.Fprintf(b, "\t\ttimeout %s\n", spell(s.Timeout))
	}
	fmt.Fprintf(b, "\t\tcomment %q\n", s.Comment)
	for i, e := range elements {
		switch {
		case i == 0:
			b.WriteString("\t\telements = { ")
		case i%perLine == 0:
			b.WriteString(",\n\t\t\t     ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(e)
	}
	if len(elements) > 0 {
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n\n")
}

func (l Listing) printChain(b *strings.Builder, c *nftables.Chain, rules []Rule) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Device != "" {
		fmt.Fprintf(b, "\t\ttype filter hook egress device %q priority filter; policy accept;\n", c.Device)
	}
	switch c.Name {
	case chainForward:
		b.WriteString("\t\ttype filter hook forward priority filter - 10; policy accept;\n")
	case chainPortal:
		b.WriteString("\t\ttype nat hook prerouting priority dstnat - 10; policy accept;\n")
	case chainSource:
		b.WriteString("\t\ttype filter hook prerouting priority raw; policy accept;\n")
	}
	counts := l.Counts[c.Name]
	for _, r := range rules {
		if r.Chain != c.Name {
			continue
		}
		var n access.Counter
		if len(counts) > 0 {
			n, counts = counts[0], counts[1:]
		}
		fmt.Fprintf(b, "\t\t%s\n", r.text(n))
	}
	b.WriteString("\t}\n")
}

// text returns the rule with what it has counted.
func (r Rule) text(n access.Counter) string {
	var words []string
	for _, t := range r.terms {
		if t.text == wordCounter {
			t.text = counterText(n)
		}
		words = append(words, t.text)
	}
	if r.comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(words, " ")
}

// isNumber reports whether nft takes the keys of a set for numbers.
func isNumber(set access.Set) bool {
	kind, _, net := set.Subnet()
	if net {
		set = kind
	}
	return set.Of(access.PartAddr) || set.Of(access.PartPrefix)
}

// inOrder returns the elements in nft's order: addresses and MACs by number, all else as one
// number in the machine's order, so by its last byte first.
func inOrder(set access.Set, have access.ACL) []access.Element {
	out := slices.Collect(have.Elements(set))
	if isNumber(set) || set.Of(access.PartEther) {
		return out
	}
	slices.SortFunc(out, func(a, b access.Element) int {
		for i := len(a.Key) - 1; i >= 0; i-- {
			if a.Key[i] != b.Key[i] {
				return cmp.Compare(a.Key[i], b.Key[i])
			}
		}
		return 0
	})
	return out
}

// elementText returns an element as nft prints it.
func elementText(e access.Element) string {
	var parts []string
	f := e.Fields()
	for _, p := range e.Set.Key() {
		text := p.Text(f)
		switch _, net := p.Bits(); {
		case net:
			text = f.Prefix.Addr().String()
		case p == access.PartInterface:
			text = `"` + text + `"`
		case p == access.PartPrefix && f.Prefix.IsSingleIP():
			text = f.Prefix.Addr().String()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " . ")
}

func switchText(elements []Dynamic) []string {
	var out []string
	for _, e := range elements {
		text := openWord(e.Key)
		if text == "" {
			continue
		}
		if e.Timeout != 0 {
			text += " timeout " + spell(e.Timeout) + " expires " + spell(e.Expires)
		}
		out = append(out, text)
	}
	return out
}

// openWord is nft's word for an element of SetOpen; empty: no rule asks for it.
func openWord(key []byte) string {
	switch string(key) {
	case string([]byte{unix.NFPROTO_IPV4}):
		return "ipv4"
	case string([]byte{unix.NFPROTO_IPV6}):
		return "ipv6"
	case string(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6)):
		return "ip6"
	default:
		return ""
	}
}

func refusedText(elements []Dynamic) []string {
	var out []string
	for _, e := range elements {
		if len(e.Key) != 4 {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s expires %s", netip.AddrFrom4([4]byte(e.Key)), counterText(e.Counter), spell(e.Expires)))
	}
	return out
}

func counterText(c access.Counter) string {
	return fmt.Sprintf("counter packets %d bytes %d", c.Packets, c.Bytes)
}

// spell returns a duration as nft prints it: 1d2h3m4s5ms, without what is zero.
func spell(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / unit.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d %= unit.size
		}
	}
	return b.String()
}
