package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config/keys"
)

// compiled is the schema as another program reads it.
func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("usher.schema.json", doc))
	s, err := c.Compile("usher.schema.json")
	require.NoError(t, err)
	return s
}

// refused lists the keys that the schema refuses in a file: those of the values, and
// of unknown keys. ok is false if the text is no single mapping for a YAML decoder
// that knows nothing of us.
func refused(s *jsonschema.Schema, data []byte) (keys map[string]bool, ok bool) {
	var doc any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, false
	}
	if doc == nil {
		doc = map[string]any{} // an empty file
	}
	keys = map[string]bool{}
	var wrong *jsonschema.ValidationError
	if errors.As(s.Validate(doc), &wrong) {
		collectRefused(wrong, keys)
	}
	return keys, true
}

func collectRefused(e *jsonschema.ValidationError, into map[string]bool) {
	path := ""
	for _, part := range e.InstanceLocation {
		switch {
		case regexp.MustCompile(`^\d+$`).MatchString(part):
			path += "[" + part + "]"
		default:
			path = strings.TrimPrefix(path+"."+part, ".")
		}
	}
	for _, c := range e.Causes {
		collectRefused(c, into)
	}
	var below []string
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		below = k.Properties
	case *kind.Required:
		below = k.Missing
	default:
		if len(e.Causes) > 0 {
			return
		}
	}
	into[path] = true
	for _, key := range below {
		into[strings.TrimPrefix(path+"."+key, ".")] = true
	}
}

func TestSchemaTakesWhatIsRight(t *testing.T) {
	s := compiled(t)
	for _, name := range []string{"usher.reference.yaml", "usher.example.yaml"} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		keys, ok := refused(s, data)
		require.True(t, ok)
		assert.Empty(t, keys, name)
	}
}

// plainMistake is what can be seen in one value alone, without the rest of the file
// and without the host.
var plainMistake = regexp.MustCompile(`^unknown key|^missing; want (an IPv4 prefix such|a name for|a short name|the number of the option|a destination)` +
	`|, got (text|a list|a mapping|a number|true or false)$|^want (true or false|a whole number|a number|a percentage|a duration|hexadecimal bytes)` +
	`| is not one of |^-?[0-9.]+ is outside [0-9.-]+ to [0-9.e+-]+$|no such ready profile|^an empty list would match`)

// optionValue is a key whose type another key names.
var optionValue = regexp.MustCompile(`(options|vendor_specific)\[\d+\]\.value$`)

// TestSchemaRefusesPlainMistakes compares with the bad files: where Parse reports a
// plain mistake, the schema refuses that key.
func TestSchemaRefusesPlainMistakes(t *testing.T) {
	s := compiled(t)
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	compared := 0
	for _, in := range inputs {
		data, err := os.ReadFile(in)
		require.NoError(t, err)
		found, ok := refused(s, data)
		if !ok {
			continue
		}
		_, perr := Parse("x.yaml", data, testEnv())
		var list *keys.Errors
		require.True(t, errors.As(perr, &list))
		for _, p := range list.Problems {
			if !plainMistake.MatchString(p.Reason) || p.Key == "" || optionValue.MatchString(p.Key) {
				continue
			}
			compared++
			assert.True(t, found[p.Key], "%s: %s: %s\nrefused: %v", in, p.Key, p.Reason, found)
		}
	}
	assert.Greater(t, compared, 70)
	found, _ := refused(s, nil)
	assert.True(t, found["userside"], "it has keys that are required")
}
