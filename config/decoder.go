package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder walks the syntax tree and collects every mistake with its place.
type decoder struct {
	file     string
	env      Env
	anchors  map[string]ast.Node
	problems []Problem
	warnings []Problem
	cfg      *Config            // what is read
	sections map[string]mapping // those that were read, by path
}

func newDecoder(file string, env Env) *decoder {
	return &decoder{file: file, env: env, cfg: &Config{}, sections: map[string]mapping{}}
}

// place is a position in the file.
type place struct{ line, column int }

// value is a node of the file, or the absence of one, with its dotted path.
type value struct {
	d    *decoder
	path string
	node ast.Node // nil: not in the file
	at   place    // of the value; of the nearest enclosing key when absent
	key  place    // of the key
	hush bool     // what is wrong with it was already said
}

// mapping is a value that is known to be a mapping (possibly an empty one).
type mapping struct {
	value
	entries map[string]value
}

// plainKey is a key that may be repeated in an error: something else could be
// a secret in the wrong place.
var plainKey = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,39}$`)

// parse gives the root of the only document.
func (d *decoder) parse(data []byte) (value, bool) {
	start := place{1, 1}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, reason := start, "cannot be read as YAML"
		var ye yaml.Error
		if errors.As(err, &ye) {
			reason = strings.ReplaceAll(ye.GetMessage(), "\t", `\t`)
			if tk := ye.GetToken(); tk != nil && tk.Position != nil {
				at = place{max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
			}
		}
		d.problems = append(d.problems, Problem{d.file, at.line, at.column, "", "syntax: " + reason})
		return value{}, false
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			at := placeOf(doc.Body, start)
			d.problems = append(d.problems, Problem{d.file, at.line, at.column, "", "syntax: a second document; want one"})
			return value{}, false
		}
		body = doc.Body
	}
	d.anchors = map[string]ast.Node{}
	if body != nil {
		ast.Walk(anchorFinder{d.anchors}, body)
	}
	return d.value("", body, start, start), true
}

type anchorFinder struct{ found map[string]ast.Node }

func (f anchorFinder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		f.found[a.Name.GetToken().Value] = a.Value
	}
	return f
}

// value wraps node; null is the same as absent, as everywhere in YAML.
func (d *decoder) value(path string, node ast.Node, key, fallback place) value {
	v := value{d: d, path: path, key: key, at: fallback}
	if node == nil {
		return v
	}
	v.at = placeOf(node, fallback)
	for hops := 0; ; hops++ {
		switch n := node.(type) {
		case *ast.AnchorNode:
			node = n.Value
		case *ast.AliasNode:
			target, ok := d.anchors[n.Value.GetToken().Value]
			if !ok || hops > 8 {
				v.problem("an alias of nothing: no such anchor in the file")
				v.hush = true
				return v
			}
			node = target
		case *ast.NullNode, nil:
			return v
		default:
			v.node = node
			return v
		}
	}
}

func placeOf(n ast.Node, fallback place) place {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	tk := n.GetToken()
	if tk == nil || tk.Position == nil {
		return fallback
	}
	return place{max(tk.Position.Line, 1), max(tk.Position.Column, 1)}
}

func (v value) present() bool { return v.node != nil }

// problem records a mistake at the value.
func (v value) problem(format string, args ...any) {
	if v.hush {
		return
	}
	v.d.problems = append(v.d.problems, Problem{v.d.file, v.at.line, v.at.column, v.path, fmt.Sprintf(format, args...)})
}

// warn records something that works but should be known.
func (v value) warn(format string, args ...any) {
	v.d.warnings = append(v.d.warnings, Problem{v.d.file, v.at.line, v.at.column, v.path, fmt.Sprintf(format, args...)})
}

func (v value) child(key string) string {
	if v.path == "" {
		return key
	}
	return v.path + "." + key
}

// mapping reads v as a mapping with no other keys than known. Absent is empty.
func (v value) mapping(known ...string) mapping {
	m := mapping{value: v, entries: map[string]value{}}
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case nil:
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.problem("want a mapping (key: value), got %s", kindOf(v.node))
		m.hush = true
	}
	for _, p := range pairs {
		m.add(p, known)
	}
	return m
}

func (m mapping) add(p *ast.MappingValueNode, known []string) {
	at := placeOf(p.Key, m.at)
	here := value{d: m.d, path: m.path, at: at}
	if _, merge := p.Key.(*ast.MergeKeyNode); merge {
		here.problem("merge keys (<<) are not supported; write the keys out")
		return
	}
	name := ""
	if tk := p.Key.GetToken(); tk != nil {
		name = tk.Value
	}
	if !plainKey.MatchString(name) {
		here.problem("a key that is no name; want one of the documented keys")
		return
	}
	here.path = m.child(name)
	if !slices.Contains(known, name) {
		if hint := nearest(name, known); hint != "" {
			here.problem("unknown key, did you mean %s?", hint)
		} else {
			here.problem("unknown key")
		}
		return
	}
	if first, twice := m.entries[name]; twice {
		here.problem("given twice, first in line %d", first.key.line)
		return
	}
	v := m.d.value(here.path, p.Value, at, at)
	v.hush = v.hush || m.hush
	m.entries[name] = v
}

// get gives the value of key; an absent one carries the place of the mapping.
func (m mapping) get(key string) value {
	if v, ok := m.entries[key]; ok {
		return v
	}
	at := m.key
	if at == (place{}) {
		at = m.at
	}
	return value{d: m.d, path: m.child(key), at: at, key: at, hush: m.hush}
}

func elementPath(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// list reads v as a sequence and calls each with its elements in order.
func (v value) list(each func(value)) {
	switch n := v.node.(type) {
	case nil:
	case *ast.SequenceNode:
		for i, e := range n.Values {
			el := v.d.value(elementPath(v.path, i), e, place{}, v.at)
			el.key, el.hush = el.at, el.hush || v.hush
			if !el.present() {
				el.problem("an empty element")
				continue
			}
			each(el)
		}
	default:
		v.problem("want a list, got %s", kindOf(v.node))
	}
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	default:
		return "something else"
	}
}
