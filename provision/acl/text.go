package acl

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// ErrNotAsWritten says that the table in the kernel is not the one that this
// package makes.
var ErrNotAsWritten = errors.New("the table is not as it was written")

// AsNFT reads the table and gives it as "nft list table inet usher" (of version
// 1.0.6) prints it, with what the rules have counted. A table that is not as it
// should be is ErrNotAsWritten; the next Observe puts it right.
func (t *Table) AsNFT(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last error
	for attempt := range attempts {
		if attempt > 0 {
			if err := pause(ctx, attempt); err != nil {
				return "", fmt.Errorf("acl: list: %w", errors.Join(err, last))
			}
		}
		l, err := t.listingLocked(ctx)
		if err == nil {
			return l.text(), nil
		}
		if last = err; !mayPass(err) && !errors.Is(err, errInconsistent) && !errors.Is(err, errGenerationMoved) {
			break
		}
	}
	return "", fmt.Errorf("acl: list: %w", last)
}

// AsNFT gives the table that a policy and an ACL lead to, as nft prints it: for
// what a dry run would write.
func AsNFT(p Policy, a access.ACL) (string, error) {
	l := listing{policy: p}
	b, err := newBatch(access.Plan(a, access.ACL{}))
	if err != nil {
		return "", fmt.Errorf("acl: %w", err)
	}
	l.have = b.adds
	return l.text(), nil
}

// listing is all that nft prints of the table.
type listing struct {
	policy  Policy
	have    contents
	open    []element
	refused []element
	counts  map[string][]Counter // of the rules of each chain, in order
}

// listingLocked reads the table once.
func (t *Table) listingLocked(ctx context.Context) (listing, error) {
	l := listing{policy: t.policy, counts: map[string][]Counter{}}
	gen, err := t.generationLocked(ctx)
	if err != nil {
		return l, err
	}
	found, err := t.inspectLocked(ctx)
	if err != nil {
		return l, errors.Join(err, t.hangUpLocked())
	}
	if found.defect != "" {
		return l, fmt.Errorf("%w: %s", ErrNotAsWritten, found.defect)
	}
	for set := range eachSet() {
		info, err := t.setLocked(ctx, set.String())
		if err != nil {
			return l, err
		}
		keys, _, strange, err := t.dumpLocked(ctx, set, info.count)
		if err != nil {
			return l, err
		}
		if strange > 0 {
			return l, fmt.Errorf("%w: set %s has %d elements that no set of ours has", ErrNotAsWritten, set, strange)
		}
		l.have[set] = keys
	}
	for _, s := range []struct {
		name string
		into *[]element
	}{{setOpen, &l.open}, {setRefused, &l.refused}} {
		if _, err := t.elementsLocked(ctx, s.name, func(e element) error {
			e.key = slices.Clone(e.key)
			*s.into = append(*s.into, e)
			return nil
		}); err != nil {
			return l, err
		}
		// The rules add to the set while it is read, so some may come twice.
		slices.SortFunc(*s.into, func(a, b element) int { return bytes.Compare(a.key, b.key) })
		*s.into = slices.CompactFunc(*s.into, func(a, b element) bool { return bytes.Equal(a.key, b.key) })
	}
	for _, c := range wantChains(t.policy) {
		rules, err := t.write.GetRules(wantTable(), c)
		if err != nil {
			return l, errors.Join(fmt.Errorf("read rules of chain %s: %w", c.Name, err), t.hangUpLocked())
		}
		for _, r := range rules {
			var n Counter
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					n = Counter{c.Packets, c.Bytes}
				}
			}
			l.counts[c.Name] = append(l.counts[c.Name], n)
		}
	}
	after, err := t.generationLocked(ctx)
	if err == nil && after != gen {
		err = errGenerationMoved
	}
	return l, err
}

// text prints the table.
func (l listing) text() string {
	var b strings.Builder
	b.WriteString("table inet usher {\n")
	for set := range eachSet() {
		var elements []string
		for _, k := range inOrder(set, l.have[set]) {
			elements = append(elements, elementText(set, k))
		}
		perLine := 1
		if k := kindOf(set); k == kindAddr || k == kindPrefix {
			perLine = 2
		}
		printSet(&b, wantSet(set), perLine, elements)
	}
	printSet(&b, openSet(), 5, openText(l.open))
	printSet(&b, refusedSet(), 2, refusedText(l.refused))
	rules := wantRules(l.policy)
	for i, c := range wantChains(l.policy) {
		if i > 0 {
			b.WriteString("\n")
		}
		l.printChain(&b, c, rules)
	}
	b.WriteString("}\n")
	return b.String()
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

func (l listing) printChain(b *strings.Builder, c *nftables.Chain, rules []rule) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	switch c.Name {
	case chainForward:
		b.WriteString("\t\ttype filter hook forward priority filter - 10; policy accept;\n")
	case chainPortal:
		b.WriteString("\t\ttype nat hook prerouting priority dstnat - 10; policy accept;\n")
	case chainSource:
		b.WriteString("\t\ttype filter hook prerouting priority raw; policy accept;\n")
	}
	n := 0
	for _, r := range rules {
		if r.chain != c.Name {
			continue
		}
		var count Counter
		if n < len(l.counts[c.Name]) {
			count = l.counts[c.Name][n]
		}
		n++
		text := r.text
		if before, after, ok := strings.Cut(text, "counter "); ok {
			text = fmt.Sprintf("%s%s %s", before, counterText(count), after)
		}
		b.WriteString("\t\t" + text)
		if r.comment != "" {
			fmt.Fprintf(b, " comment %q", r.comment)
		}
		b.WriteString("\n")
	}
	b.WriteString("\t}\n")
}

// inOrder gives the keys in nft's order: addresses by number, all else as one
// number in the machine's order, so by its last byte first.
func inOrder(set access.Set, keys []key) []key {
	switch kindOf(set) {
	case kindAddr, kindPrefix:
		return keys
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b key) int {
		for i := len(a) - 1; i >= 0; i-- {
			if a[i] != b[i] {
				return cmp.Compare(a[i], b[i])
			}
		}
		return 0
	})
	return keys
}

// elementText gives an element as nft prints it.
func elementText(set access.Set, k key) string {
	e := k.element(set)
	switch kindOf(set) {
	case kindPrefix:
		if e.Prefix.IsSingleIP() {
			return e.Prefix.Addr().String()
		}
		return e.Prefix.String()
	case kindName:
		return `"` + e.Interface + `"`
	case kindAddrMAC:
		return e.Addr.String() + " . " + e.MAC.String()
	case kindNameAddr:
		return `"` + e.Interface + `" . ` + e.Addr.String()
	default:
		return e.Addr.String()
	}
}

func openText(elements []element) []string {
	var out []string
	for _, e := range elements {
		if len(e.key) != 1 || e.key[0] != unix.NFPROTO_IPV4 {
			continue
		}
		text := "ipv4"
		if e.timeout != 0 {
			text += " timeout " + spell(e.timeout) + " expires " + spell(e.expires)
		}
		out = append(out, text)
	}
	return out
}

func refusedText(elements []element) []string {
	var out []string
	for _, e := range elements {
		if len(e.key) != 4 {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s expires %s", netip.AddrFrom4([4]byte(e.key)), counterText(e.counter), spell(e.expires)))
	}
	return out
}

func counterText(c Counter) string {
	return fmt.Sprintf("counter packets %d bytes %d", c.Packets, c.Bytes)
}

// spell gives a duration as nft does: 1d2h3m4s5ms, without what is zero.
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
