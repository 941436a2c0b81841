package config

import (
	_ "embed" // the schema is made from the declarations and their comments
	"encoding/json"
	"strings"

	"github.com/usher-agent/usher/config/keys"
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

const httpPattern = `[Hh][Tt][Tt][Pp][Ss]?://`

func matchShape() keys.Shape {
	way := "(" + strings.Join(matchWords(), "|") + ")"
	return keys.Matching("^" + way + `(\+` + way + ")*$")
}

func hexShape() keys.Shape {
	return keys.Shape{"type": []string{"string", "integer"}, "pattern": `^(0x)?[0-9A-Fa-f:. -]*$`}
}

func fieldShape(k keys.Key) keys.Shape {
	s := keys.TextShape()
	s["maxLength"] = k.Whole("max")
	return s
}

func statesShape() keys.Shape {
	return keys.Shape{"type": "object", "additionalProperties": false, "patternProperties": keys.Shape{`^\+?[0-9]+$`: keys.WordShape(stateWords())}}
}
