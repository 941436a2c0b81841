// Package vlanname reads VLAN ids from the names of interfaces.
package vlanname

import (
	"errors"
	"fmt"
	"strings"
)

// maxVLAN is the highest VLAN id that a frame can carry (IEEE 802.1Q).
const maxVLAN = 4094

// Template is a compiled pattern for the names of VLAN interfaces, such as
//
//	eth1.{svlan}.{vlan}
//
// Text stands for itself. {vlan} and {svlan} are decimal numbers from 1 to 4094,
// taken with all their digits; {vlan} is the one that tells who is there.
type Template []part

// part is text, or the number of the inner or outer VLAN.
type part struct {
	text  string
	field string
}

const (
	vlanField  = "vlan"
	svlanField = "svlan"
)

// Compile checks a pattern.
func Compile(s string) (Template, error) {
	var t Template
	seen := map[string]bool{}
	for rest := s; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if strings.ContainsAny(text, "}/ \t\n:") {
			return nil, errors.New("want the name of an interface with {vlan} in it")
		}
		if text != "" {
			if n := len(t); n > 0 && text[0] >= '0' && text[0] <= '9' {
				return nil, errors.New("a digit follows a number: nobody could say where it ends")
			}
			t = append(t, part{text: text})
		}
		if !found {
			break
		}
		name, next, closed := strings.Cut(after, "}")
		switch {
		case !closed || name != vlanField && name != svlanField:
			return nil, errors.New("want {vlan} or {svlan} in braces")
		case seen[name]:
			return nil, fmt.Errorf("{%s} twice", name)
		case text == "" && len(t) > 0:
			return nil, errors.New("two numbers side by side: nobody could say where the first one ends")
		}
		seen[name] = true
		t = append(t, part{field: name})
		rest = next
	}
	if !seen[vlanField] {
		return nil, errors.New("no {vlan} in it")
	}
	if len(t) == 1 {
		return nil, errors.New("want some text beside {vlan}")
	}
	return t, nil
}

// Match reads {vlan} from a name that fits. It allocates nothing.
func (t Template) Match(name string) (vlan uint16, ok bool) {
	for _, p := range t {
		if p.field == "" {
			if name, ok = strings.CutPrefix(name, p.text); !ok {
				return 0, false
			}
			continue
		}
		n, digits := 0, 0
		for digits < len(name) && name[digits] >= '0' && name[digits] <= '9' && digits < 5 {
			n = n*10 + int(name[digits]-'0')
			digits++
		}
		if n < 1 || n > maxVLAN {
			return 0, false
		}
		if p.field == vlanField {
			vlan = uint16(n)
		}
		name = name[digits:]
	}
	return vlan, name == ""
}
