// Package ifname says which interfaces of a host are meant by the names and patterns of a configuration.
package ifname

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/vlanname"
)

// Name is a name or pattern of interfaces in the file.
type Name struct {
	At      keys.Problem // its place; without a reason
	Pattern string       // a name, a pattern of path.Match, or a template of package vlanname
	VLAN    bool         // a template
	None    bool         // the word for no interface
}

// List returns the key of the list that the name is in, such as dhcp.interfaces.
func (n Name) List() string {
	key, _, _ := strings.Cut(n.At.Key, "[")
	return key
}

// Fits returns those of names that the pattern means.
func (n Name) Fits(names []string) []string {
	if n.None {
		return nil
	}
	fits := func(name string) bool {
		ok, _ := path.Match(n.Pattern, name)
		return ok || name == n.Pattern
	}
	if n.VLAN {
		t, err := vlanname.Compile(n.Pattern)
		if err != nil {
			return nil
		}
		fits = func(name string) bool { _, ok := t.Match(name); return ok }
	}
	var out []string
	for _, name := range names {
		if fits(name) {
			out = append(out, name)
		}
	}
	return out
}

// besides returns the alternative names that the pattern fits, of interfaces that it does not mean.
func (n Name) besides(fit []string, other map[string]string) []string {
	return slices.DeleteFunc(n.Fits(slices.Sorted(maps.Keys(other))), func(alias string) bool { return slices.Contains(fit, other[alias]) })
}

// Warnings says which of list fit none of the interfaces of a host, and where the word for none
// is the name of one. It is no mistake: interfaces come and go. Without any it says
// nothing, for they could not be read. A name that only fits what an interface is called besides
// (other, by alternative name) wants another answer: packets come in under the one name.
func Warnings(list []Name, have []string, other map[string]string) []keys.Problem {
	if len(have) == 0 {
		return nil
	}
	var out []keys.Problem
	for _, n := range list {
		p := n.At
		fit := n.Fits(have)
		called := n.besides(fit, other)
		switch {
		case n.None && slices.Contains(have, n.Pattern):
			p.Reason = fmt.Sprintf("%s is the word for no interface. This host has one of that name: '%s' is the pattern that means it", n.Pattern, literal(n.Pattern))
			p.Paste = []string{fmt.Sprintf("trusted_interfaces: ['%s']", literal(n.Pattern))}
		case n.None, len(fit) > 0 && len(called) == 0:
			continue
		case len(called) > 0:
			alias, name := called[0], other[called[0]]
			p.Reason = fmt.Sprintf("%s is another name (altname) of %s, and interfaces are known here by their one name: write %s", alias, name, name)
			if alias != n.Pattern {
				p.Reason = fmt.Sprintf("%q does not mean %s, whose other name (altname) %s fits: interfaces are known here by their one name. Write %s, too, if it is meant",
					keys.Excerpt(n.Pattern), name, alias, name)
			}
			if n.VLAN {
				p.Reason = fmt.Sprintf("%q does not mean %s, whose other name (altname) %s fits: interfaces are known here by their one name. Rename it if it is meant", keys.Excerpt(n.Pattern), name, alias)
			}
			p.Unanswered = len(fit) == 0
		default:
			p.Reason = fmt.Sprintf("no interface of this host fits %q%s", keys.Excerpt(n.Pattern), instead(n.Pattern, have))
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b keys.Problem) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return out
}

// literal is the pattern that fits a word and is another.
func literal(word string) string { return "[" + word[:1] + "]" + word[1:] }

// instead says what somebody may have meant who wrote a pattern that fits none of names.
func instead(pattern string, names []string) string {
	slips := 3
	if strings.ContainsAny(pattern, "*?[{") {
		slips = 2 // it fits much already
	}
	best, least := "", min(slips, distance(pattern, "")) // not all of what it says
	for _, name := range names {
		if d := distance(pattern, name); d < least && d < len(name) {
			best, least = name, d
		}
	}
	if best != "" {
		return ", did you mean " + best + "?"
	}
	const most = 8
	if len(names) > most {
		return fmt.Sprintf("; it has %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "; it has " + strings.Join(names, ", ")
}

// distance returns how many characters of a name have to be put in, left out or exchanged until a
// pattern fits it: a * or a {vlan} stands for anything, ? for any character.
func distance(pattern, name string) int {
	for _, field := range []string{"{svlan}", "{vlan}"} {
		pattern = strings.ReplaceAll(pattern, field, "*")
	}
	row := make([]int, len(name)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(pattern) {
		diagonal := row[0]
		if pattern[i] != '*' {
			row[0]++
		}
		for j := range len(name) {
			above, left := row[j+1], row[j]
			switch pattern[i] {
			case '*':
				row[j+1] = min(above, left)
			case '?', name[j]:
				row[j+1] = min(diagonal, above+1, left+1)
			default:
				row[j+1] = min(diagonal, above, left) + 1
			}
			diagonal = above
		}
	}
	return row[len(name)]
}
