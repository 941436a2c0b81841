package keys

import (
	"maps"
	"reflect"
)

// Shape is a part of the JSON Schema: what a value may look like.
type Shape map[string]any

// Fixed is s for every key.
func (s Shape) Fixed(Key, reflect.Type) Shape { return s }

// Patterns that more than one reader needs.
const (
	IPv4Pattern   = `[0-9]{1,3}(\.[0-9]{1,3}){3}`
	WholePattern  = `^[+-]?[0-9]+$`
	ListenPattern = `^(off|.+:[0-9]{1,5})$`
	spanPattern   = `[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+`
)

// Numbers may be quoted, and text need not be: a reader takes what stands in the file.

// TextShape is any text.
func TextShape() Shape { return Shape{"type": []string{"string", "number", "boolean"}} }

// Matching is text of a pattern.
func Matching(pattern string) Shape { return Shape{"type": "string", "pattern": pattern} }

// WordShape is one of some words.
func WordShape(words []string) Shape { return Shape{"enum": words} }

func wholeShape(k Key) Shape {
	return Shape{"type": []string{"integer", "string"}, "minimum": k.Whole("min"), "maximum": k.Whole("max"), "pattern": WholePattern}
}

func realShape(k Key) Shape {
	return Shape{"type": []string{"number", "string"}, "minimum": k.real("min"), "maximum": k.real("max"), "pattern": `^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$`}
}

// SpanShape is a duration.
func SpanShape(k Key) Shape {
	if k.Span("min") > 0 {
		return Matching(`^` + spanPattern + `$`)
	}
	return Shape{"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0, "pattern": `^(` + spanPattern + `|0)$`} // 0 alone needs no unit
}

// ListShape is a list, as its declaration bounds it.
func ListShape(k Key, items Shape) Shape {
	s := Shape{"type": "array", "items": items}
	if k.Has("most") {
		s["maxItems"] = k.Whole("most")
	}
	if k.Has("empty") {
		s["minItems"] = 1
	}
	if k.Has("unique") {
		s["uniqueItems"] = true
	}
	return s
}

// sectionShape is the shape of the mapping that a struct declares.
func (d *decoder) sectionShape(t reflect.Type) Shape {
	properties, required := Shape{}, []string{}
	for _, k := range Of(t) {
		s := maps.Clone(d.readerOf(k, k.Field.Type).Schema(k, k.Field.Type))
		switch _, nested := s["required"]; {
		case k.Has("required") || nested && k.Field.Type.Kind() == reflect.Struct:
			required = append(required, k.Name)
		default:
			s.orNull()
		}
		properties[k.Name] = s
	}
	s := Shape{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// orNull lets the value be null, which is the same as to leave the key out.
func (s Shape) orNull() {
	switch types := s["type"].(type) {
	case string:
		s["type"] = []string{types, "null"}
	case []string:
		s["type"] = append(types[:len(types):len(types)], "null")
	}
	if either, ok := s["anyOf"].([]Shape); ok {
		s["anyOf"] = append(either[:len(either):len(either)], Shape{"type": "null"})
	}
	if words, ok := s["enum"].([]string); ok {
		all := make([]any, 0, len(words)+1)
		for _, w := range words {
			all = append(all, w)
		}
		s["enum"] = append(all, nil)
	}
}

// SchemaOf returns the JSON Schema of the file that is read into a struct of type t.
func SchemaOf(t reflect.Type, rules Rules) Shape {
	return newDecoder("", rules).sectionShape(t)
}
