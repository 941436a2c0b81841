package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd/option82"
)

// What is made from the declarations: the reference file and the JSON Schema.
// "go generate ./config" writes them.

const referenceHead = `# Every key of usher's configuration, with its default value unless the comment
# says that it is an example. Unknown keys are errors. Durations carry a unit
# (30s, 5m, 12h), shares a percent sign. ` + "`usher check --config FILE`" + ` says
# everything that is wrong with a file; ` + "`systemctl reload usher`" + ` applies it.
`

func TestGeneratedReference(t *testing.T) {
	r := reference{sentences: newSentences(t)}
	r.text.WriteString(referenceHead)
	r.section(reflect.TypeFor[Config](), "", "", nil)
	compareGenerated(t, "usher.reference.yaml", r.text.Bytes())
}

func TestGeneratedSchema(t *testing.T) {
	root := schemaOf(reflect.TypeFor[Config]())
	describe(t, newSentences(t), root, reflect.TypeFor[Config]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of usher"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(root))
	compareGenerated(t, "usher.schema.json", b.Bytes())
}

func compareGenerated(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what the declarations say; run go generate ./config (-file +declarations):\n%s", path, diff)
	}
}

// sentences are the comments above fields.
type sentences struct{ t *testing.T }

// packages are structs by package and name, kept for all tests: with the race detector it takes seconds to read them.
var packages = map[string]map[string]*ast.StructType{}

func newSentences(t *testing.T) *sentences { return &sentences{t} }

// of is what stands above a field, line by line.
func (s *sentences) of(owner reflect.Type, field string) []string {
	const module = "github.com/usher-agent/usher/"
	structs, ok := packages[owner.PkgPath()]
	if !ok {
		structs = s.parse(filepath.Join("..", filepath.FromSlash(strings.TrimPrefix(owner.PkgPath(), module))))
		packages[owner.PkgPath()] = structs
	}
	decl := structs[owner.Name()]
	require.NotNil(s.t, decl, "struct %s", owner)
	for _, f := range decl.Fields.List {
		if fieldName(f) == field {
			return strings.FieldsFunc(f.Doc.Text(), func(c rune) bool { return c == '\n' })
		}
	}
	s.t.Fatalf("no field %s in %s", field, owner)
	return nil
}

func fieldName(f *ast.Field) string {
	if len(f.Names) > 0 {
		return f.Names[0].Name
	}
	if sel, ok := f.Type.(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return f.Type.(*ast.Ident).Name
}

func (s *sentences) parse(dir string) map[string]*ast.StructType {
	out := map[string]*ast.StructType{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(s.t, err)
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(s.t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if st, ok := spec.Type.(*ast.StructType); ok {
					out[spec.Name.Name] = st
				}
			}
			return true
		})
	}
	return out
}

// reference writes the reference file. The tag layout says what the rules do not:
//
//	close  no blank line before the sentence
//	plain  of an inline struct: its sentences stand elsewhere; defaults are shown,
//	       but for what the tag example says of single keys
type reference struct {
	*sentences
	text bytes.Buffer
}

// section writes the keys of a struct. first is what stands before the first one:
// the dash of a list's element.
// shown is what stands in place of the defaults of keys that are shown without sentences.
func (r *reference) section(t reflect.Type, indent, first string, shown map[string]string) {
	if shown == nil {
		shown = plainKeys(t)
	}
	for i, k := range keys.Of(t) {
		doc := r.of(k.Owner, k.Field.Name)
		plain, isPlain := shown[k.Name]
		if isPlain {
			doc = nil
		}
		if group := groupOf(t, k); group != "" {
			if above := r.of(t, group); isPlain {
				doc = above
			} else if len(above) > 0 {
				r.blank(i, true)
				r.comment(indent, above)
				r.text.WriteString("\n")
				r.comment(indent, doc)
				r.value(k, indent, indent, plain, isPlain)
				continue
			}
		}
		if k.Tag("layout") != "close" {
			r.blank(i, len(doc) > 0 || indent == "")
		}
		before, lead := indent, indent
		if i == 0 && first != "" {
			before, lead = first[:len(first)-2], first
		}
		r.comment(before, doc)
		r.value(k, lead, indent, plain, isPlain)
	}
}

// plainKeys are the keys of inline structs that are shown without sentences, and
// what stands in place of their default.
func plainKeys(t reflect.Type) map[string]string {
	out := map[string]string{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("layout") != "plain" {
			continue
		}
		for _, k := range keys.Of(f.Type) {
			out[k.Name] = shownDefault(k)
		}
		for line := range strings.Lines(f.Tag.Get("example")) {
			name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
			out[name] = text
		}
	}
	return out
}

// groupOf is the inline struct whose first key is k; empty: none.
func groupOf(t reflect.Type, k keys.Key) string {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("cfg") == ",inline" && keys.Of(f.Type)[0].Name == k.Name && k.Owner == f.Type {
			return f.Name
		}
	}
	return ""
}

func (r *reference) blank(i int, wanted bool) {
	if wanted && (i > 0 || r.text.Len() == len(referenceHead)) {
		r.text.WriteString("\n")
	}
}

func (r *reference) comment(indent string, lines []string) {
	for _, l := range lines {
		r.text.WriteString(indent + "# " + l + "\n")
	}
}

func (r *reference) value(k keys.Key, lead, indent, plain string, isPlain bool) {
	r.text.WriteString(lead + k.Name + ":")
	example, typ := k.Tag("example"), k.Field.Type
	switch {
	case isPlain:
		r.text.WriteString(plain + "\n")
	case strings.Contains(example, "\n"):
		r.text.WriteString("\n")
		for line := range strings.Lines(example) {
			r.text.WriteString(indent + "  " + line)
		}
		r.text.WriteString("\n")
	case example != "":
		r.text.WriteString(" " + example + "\n")
	case k.Tag("read") == "" && typ.Kind() == reflect.Struct && len(keys.Of(typ)) > 0:
		r.text.WriteString("\n")
		r.section(typ, indent+"  ", "", r.shownIn(k))
	case k.Tag("read") == "" && typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct && len(keys.Of(typ.Elem())) > 0:
		r.text.WriteString("\n")
		r.section(typ.Elem(), indent+"    ", indent+"  - ", nil)
	default:
		r.text.WriteString(shownDefault(k) + "\n")
	}
}

// shownIn is what is shown of the keys of a section: all plain, or what the
// section's own default says of them.
func (r *reference) shownIn(k keys.Key) map[string]string {
	out := map[string]string{}
	switch {
	case k.Tag("layout") == "plain":
		for _, x := range keys.Of(k.Field.Type) {
			out[x.Name] = shownDefault(x)
		}
	case k.Has("default"):
		var def yaml.MapSlice
		require.NoError(r.t, yaml.Unmarshal([]byte(k.Tag("default")), &def))
		for _, x := range def {
			out[x.Key.(string)] = fmt.Sprintf(" %v", x.Value)
		}
	default:
		return nil
	}
	return out
}

// shownDefault is what stands behind the colon.
func shownDefault(k keys.Key) string {
	switch text, ok := k.Field.Tag.Lookup("default"); {
	case ok && text == "":
		return ` ""`
	case ok:
		return " " + text
	case isList(k):
		return " []"
	}
	return ""
}

// only is a struct with one key.
func only(k keys.Key) reflect.Type {
	return reflect.StructOf([]reflect.StructField{{Name: k.Field.Name, Type: k.Field.Type, Tag: k.Field.Tag}})
}

func isList(k keys.Key) bool {
	properties := keys.SchemaOf(only(k), &loader{})["properties"].(keys.Shape)
	return strings.Contains(fmt.Sprint(properties[k.Name].(keys.Shape)["type"]), "array")
}

// describe puts the sentences and defaults of a struct's keys into its shape. A key
// without a sentence belongs to the one before it.
func describe(t *testing.T, s *sentences, section keys.Shape, typ reflect.Type) {
	properties := section["properties"].(keys.Shape)
	sentence := ""
	for _, k := range keys.Of(typ) {
		p := properties[k.Name].(keys.Shape)
		if doc := s.of(k.Owner, k.Field.Name); len(doc) > 0 {
			sentence = strings.Join(doc, " ")
		}
		if sentence != "" {
			p["description"] = sentence
		}
		if text := k.Tag("default"); text != "" {
			var def any
			require.NoError(t, yaml.Unmarshal([]byte(text), &def))
			p["default"] = def
		}
		switch {
		case p["properties"] != nil:
			describe(t, s, p, k.Field.Type)
		case k.Field.Type.Kind() == reflect.Slice:
			if items, ok := p["items"].(keys.Shape); ok && items["properties"] != nil {
				describe(t, s, items, k.Field.Type.Elem())
			}
		}
	}
}

// everyKey calls do with each key that is declared, and its path.
func everyKey(typ reflect.Type, path string, do func(path string, k keys.Key)) {
	for _, k := range keys.Of(typ) {
		at, t := strings.TrimPrefix(path+"."+k.Name, "."), k.Field.Type
		do(at, k)
		if t.Kind() == reflect.Slice {
			at, t = at+"[]", t.Elem()
		}
		if t.Kind() == reflect.Struct {
			everyKey(t, at, do)
		}
	}
}

// TestDeclarations: what the tags say can be read, is possible, and is what the sentences say.
func TestDeclarations(t *testing.T) {
	sentences := newSentences(t)
	count := 0
	everyKey(reflect.TypeFor[Config](), "", func(path string, k keys.Key) {
		count++
		alone, rules := only(k), &loader{env: testEnv(), cfg: &Config{}}
		assert.NotNil(t, keys.SchemaOf(alone, rules)["properties"], path)
		if k.Has("default") {
			_, err := keys.Read(path, []byte(k.Name+": "+shownDefault(k)), reflect.New(alone).Interface(), rules)
			assert.NoError(t, err)
		}
		for _, bound := range []string{"min", "max", "most"} {
			if k.Has(bound) {
				assert.NoError(t, possible(k, bound), "%s %s", path, bound)
			}
		}
		sentence := strings.Join(sentences.of(k.Owner, k.Field.Name), " ")
		if said := bounds.FindStringSubmatch(sentence); said != nil && k.Has("max") {
			assert.Equal(t, k.Tag("max"), strings.Replace(said[2], "30 days", "720h", 1), "%s: %s", path, sentence)
			if k.Has("min") && !strings.Contains(sentence, " 0: ") { // which has a meaning of its own
				assert.Equal(t, k.Tag("min"), said[1], "%s: %s", path, sentence)
			}
		}
	})
	assert.Greater(t, count, 100)
}

// bounds are what a sentence says of them.
var bounds = regexp.MustCompile(`\b([0-9]+(?:ms|s|m|h|%)?) to ([0-9]+ days|[0-9]+(?:s|m|h|%)?)(?:[.,]|$)`)

// possible says what is wrong with a bound.
func possible(k keys.Key, bound string) error {
	text := k.Tag(bound)
	var err error
	switch kind := k.Field.Type.Kind(); {
	case bound == "most":
		_, err = strconv.Atoi(text)
	case k.Tag("read") == "share":
		_, err = strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	case k.Field.Type == reflect.TypeFor[time.Duration]():
		_, err = time.ParseDuration(text)
	case kind == reflect.Float64:
		_, err = strconv.ParseFloat(text, 64)
	default:
		_, err = strconv.Atoi(text)
	}
	return err
}

// Some defaults are known to the parts as well, which serve without a configuration too.
func TestDefaultsThatPartsKnow(t *testing.T) {
	cfg, err := parseFile(t, "usher.example.yaml")
	require.NoError(t, err)
	assert.Equal(t, portal.Languages(), cfg.Portal.Languages)
	var names []string
	for _, p := range cfg.DHCP.Option82.Default {
		names = append(names, p.Name)
	}
	assert.Equal(t, option82.Defaults(), names)
}

func schemaOf(t reflect.Type) keys.Shape { return keys.SchemaOf(t, &loader{}) }
