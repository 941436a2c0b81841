package config

import (
	_ "embed" // the schema is made from the declarations and their comments
	"encoding/json"
	"maps"
	"reflect"
	"strings"
)

// schemaText is made by "go generate"; a test compares it with the declarations.
//
//go:generate go test -run TestGenerated -update .
//go:embed usher.schema.json
var schemaText []byte

// Schema is the JSON Schema (draft 2020-12) of the configuration, for editors and
// other programs. It takes what Parse takes, and refuses what can be seen in one
// value alone: a wrong type, an unknown key, a number out of bounds, a wrong word.
func Schema() json.RawMessage { return schemaText }

// shape is a part of the schema: what a value may look like.
type shape map[string]any

// fixed is s for every key.
func (s shape) fixed(key, reflect.Type) shape { return s }

const (
	ipv4Pattern   = `[0-9]{1,3}(\.[0-9]{1,3}){3}`
	wholePattern  = `^[+-]?[0-9]+$`
	httpPattern   = `[Hh][Tt][Tt][Pp][Ss]?://`
	listenPattern = `^(off|.+:[0-9]{1,5})$`
	spanPattern   = `[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+`
)

// Numbers may be quoted, and text need not be: the reader takes what stands in the file.

func textShape() shape { return shape{"type": []string{"string", "number", "boolean"}} }

func matching(pattern string) shape { return shape{"type": "string", "pattern": pattern} }

func wordShape(words []string) shape { return shape{"enum": words} }

func wholeShape(k key) shape {
	return shape{"type": []string{"integer", "string"}, "minimum": k.whole("min"), "maximum": k.whole("max"), "pattern": wholePattern}
}

func realShape(k key) shape {
	return shape{"type": []string{"number", "string"}, "minimum": k.real("min"), "maximum": k.real("max"), "pattern": `^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$`}
}

func spanShape(k key) shape {
	if k.span("min") > 0 {
		return matching(`^` + spanPattern + `$`)
	}
	return shape{"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0, "pattern": `^(` + spanPattern + `|0)$`} // 0 alone needs no unit
}

func matchShape() shape {
	way := "(" + strings.Join(matchWords(), "|") + ")"
	return matching("^" + way + `(\+` + way + ")*$")
}

func hexShape() shape {
	return shape{"type": []string{"string", "integer"}, "pattern": `^(0x)?[0-9A-Fa-f:. -]*$`}
}

func fieldShape(k key) shape {
	s := textShape()
	s["maxLength"] = k.whole("max")
	return s
}

func statesShape() shape {
	return shape{"type": "object", "additionalProperties": false, "patternProperties": shape{`^\+?[0-9]+$`: wordShape(stateWords())}}
}

func listShape(k key, items shape) shape {
	s := shape{"type": "array", "items": items}
	if k.has("most") {
		s["maxItems"] = k.whole("most")
	}
	if k.has("empty") {
		s["minItems"] = 1
	}
	if k.has("unique") {
		s["uniqueItems"] = true
	}
	return s
}

// sectionShape is the shape of the mapping that a struct declares.
func sectionShape(t reflect.Type) shape {
	properties, required := shape{}, []string{}
	for _, k := range keysOf(t) {
		s := maps.Clone(readerOf(k, k.field.Type).schema(k, k.field.Type))
		switch _, nested := s["required"]; {
		case k.has("required") || nested && k.field.Type.Kind() == reflect.Struct:
			required = append(required, k.name)
		default:
			s.orNull()
		}
		properties[k.name] = s
	}
	s := shape{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// orNull lets the value be null, which is the same as to leave the key out.
func (s shape) orNull() {
	switch types := s["type"].(type) {
	case string:
		s["type"] = []string{types, "null"}
	case []string:
		s["type"] = append(types[:len(types):len(types)], "null")
	}
	if words, ok := s["enum"].([]string); ok {
		all := make([]any, 0, len(words)+1)
		for _, w := range words {
			all = append(all, w)
		}
		s["enum"] = append(all, nil)
	}
}
