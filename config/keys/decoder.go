package keys

import (
	"errors"
	"fmt"
	"reflect"
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
	rules    Rules
	anchors  map[string]ast.Node
	problems []Problem
	warnings []Problem
	sections map[string]Mapping // those that were read, by path
}

func newDecoder(file string, rules Rules) *decoder {
	return &decoder{file: file, rules: rules, sections: map[string]Mapping{}}
}

// Rules are what a program adds to the declarations.
type Rules interface {
	// Reader returns the reader that declarations call by a name.
	Reader(name string, k Key) (Reader, bool)
	// Begin is called with each struct before its keys are read, Together after
	// that: to look at them together.
	Begin(m Mapping, section any)
	Together(m Mapping, section any)
}

// Read puts the file data into the struct that into points to. name stands for the
// file in errors. The error, if any, is an *Errors.
func Read(name string, data []byte, into any, rules Rules) (warnings []Problem, err error) {
	d := newDecoder(name, rules)
	if root, ok := d.parse(data); ok {
		d.section(root, reflect.ValueOf(into).Elem())
	}
	if len(d.problems) > 0 {
		sortProblems(d.problems)
		return nil, &Errors{Problems: d.problems}
	}
	sortProblems(d.warnings)
	return d.warnings, nil
}

// place is a position in the file.
type place struct{ line, column int }

// Value is a node of the file, or the absence of one, with its dotted path.
type Value struct {
	d    *decoder
	path string
	node ast.Node // nil: not in the file
	at   place    // of the value; of the nearest enclosing key when absent
	key  place    // of the key
	hush bool     // what is wrong with it was already said
}

// Mapping is a value that is known to be a mapping (possibly an empty one).
type Mapping struct {
	Value
	entries map[string]Value
}

// PlainName is the form of a key that may be repeated in an error: something else could be
// a secret in the wrong place.
var PlainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,39}$`)

// parse returns the root of the only document.
func (d *decoder) parse(data []byte) (Value, bool) {
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
		d.problems = append(d.problems, Problem{File: d.file, Line: at.line, Column: at.column, Reason: "syntax: " + reason})
		return Value{}, false
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			at := placeOf(doc.Body, start)
			d.problems = append(d.problems, Problem{File: d.file, Line: at.line, Column: at.column, Reason: "syntax: a second document; want one"})
			return Value{}, false
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
func (d *decoder) value(path string, node ast.Node, key, fallback place) Value {
	v := Value{d: d, path: path, key: key, at: fallback}
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
				v.Problem("an alias of nothing: no such anchor in the file")
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

// Present reports whether the value is in the file.
func (v Value) Present() bool { return v.node != nil }

// Problem records a mistake at the value.
func (v Value) Problem(format string, args ...any) {
	if v.hush {
		return
	}
	v.d.problems = append(v.d.problems, v.Says(format, args...))
}

// Warn records something that works but should be known.
func (v Value) Warn(format string, args ...any) { v.Tell(v.Says(format, args...)) }

// Tell records a warning that Says made.
func (v Value) Tell(p Problem) { v.d.warnings = append(v.d.warnings, p) }

// Says returns something about the value, with its place, and records nothing.
func (v Value) Says(format string, args ...any) Problem {
	return Problem{File: v.d.file, Line: v.at.line, Column: v.at.column, Key: v.path, Reason: fmt.Sprintf(format, args...)}
}

func (v Value) child(key string) string {
	if v.path == "" {
		return key
	}
	return v.path + "." + key
}

// mapping reads v as a mapping with no other keys than known. Absent is empty.
func (v Value) mapping(known ...string) Mapping {
	m := Mapping{Value: v, entries: map[string]Value{}}
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case nil:
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.Problem("want a mapping (key: value), got %s", kindOf(v.node))
		m.hush = true
	}
	for _, p := range pairs {
		m.add(p, known)
	}
	return m
}

func (m Mapping) add(p *ast.MappingValueNode, known []string) {
	at := placeOf(p.Key, m.at)
	here := Value{d: m.d, path: m.path, at: at}
	if _, merge := p.Key.(*ast.MergeKeyNode); merge {
		here.Problem("merge keys (<<) are not supported; write the keys out")
		return
	}
	name := ""
	if tk := p.Key.GetToken(); tk != nil {
		name = tk.Value
	}
	if !PlainName.MatchString(name) {
		here.Problem("a key that is no name; want one of the documented keys")
		return
	}
	here.path = m.child(name)
	if !slices.Contains(known, name) {
		if hint := nearest(name, known); hint != "" {
			here.Problem("unknown key, did you mean %s?", hint)
		} else {
			here.Problem("unknown key")
		}
		return
	}
	if first, twice := m.entries[name]; twice {
		here.Problem("given twice, first in line %d", first.key.line)
		return
	}
	v := m.d.value(here.path, p.Value, at, at)
	v.hush = v.hush || m.hush
	m.entries[name] = v
}

// Get returns the value of key; an absent one carries the place of the mapping.
func (m Mapping) Get(key string) Value {
	if v, ok := m.entries[key]; ok {
		return v
	}
	at := m.key
	if at == (place{}) {
		at = m.at
	}
	return Value{d: m.d, path: m.child(key), at: at, key: at, hush: m.hush}
}

func elementPath(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// Len returns how many elements a list has; ok is false if it is none.
func (v Value) Len() (n int, ok bool) {
	list, ok := v.node.(*ast.SequenceNode)
	if !ok {
		return 0, false
	}
	return len(list.Values), true
}

// List reads v as a sequence and calls each with its elements in order.
func (v Value) List(each func(Value)) {
	switch n := v.node.(type) {
	case nil:
	case *ast.SequenceNode:
		for i, e := range n.Values {
			el := v.d.value(elementPath(v.path, i), e, place{}, v.at)
			el.key, el.hush = el.at, el.hush || v.hush
			if !el.Present() {
				el.Problem("an empty element")
				continue
			}
			each(el)
		}
	default:
		v.Problem("want a list, got %s", kindOf(v.node))
	}
}

// isText reports whether v is a text, such as a single word.
func (v Value) isText() bool { return v.node != nil && kindOf(v.node) == "text" }

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

// Table reads a mapping whose keys are not declared: each is called with the name,
// the place of the key, and the value.
func (v Value) Table(want string, each func(name string, at, el Value)) bool {
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case nil:
		return false
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.Problem("want %s, got %s", want, kindOf(v.node))
		return false
	}
	for _, pair := range pairs {
		at := placeOf(pair.Key, v.at)
		name := ""
		if tk := pair.Key.GetToken(); tk != nil {
			name = tk.Value
		}
		el := v.d.value(v.child(name), pair.Value, at, at)
		el.hush = el.hush || v.hush
		each(name, Value{d: v.d, path: v.path, at: at, hush: v.hush}, el)
	}
	return true
}

// Line returns the line of the value, from 1; of the nearest enclosing key when it is absent.
func (v Value) Line() int { return v.at.line }

// Section reads v into the struct that into points to.
func (v Value) Section(into any) Mapping {
	v.d.section(v, reflect.ValueOf(into).Elem())
	return v.d.sections[v.path]
}

// Section returns the mapping of a key, as it was read.
func (m Mapping) Section(key string) Mapping { return m.d.sections[m.child(key)] }

// Found returns how many mistakes were found in the file so far.
func (v Value) Found() int { return len(v.d.problems) }
