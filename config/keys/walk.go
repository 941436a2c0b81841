package keys

import (
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/parser"
)

// Key is the declaration of one key.
type Key struct {
	Name  string
	After string       // the key that it follows in the reference; empty: as the fields stand
	Owner reflect.Type // the struct that declares it
	Field reflect.StructField
}

// Tag returns a tag of the declaration.
func (k Key) Tag(name string) string { return k.Field.Tag.Get(name) }

// Has reports whether the declaration has a tag.
func (k Key) Has(tag string) bool {
	_, ok := k.Field.Tag.Lookup(tag)
	return ok
}

// Words are those that the key may be.
func (k Key) Words() []string { return strings.Fields(k.Tag("oneof")) }

// Of lists the keys that the fields of a struct declare, in the order of the
// reference: that of the fields, but that a key with the tag after, and those
// behind it in its struct, stand where that says.
func Of(t reflect.Type) []Key {
	out, moved := runs(t)
	for range len(moved) * len(moved) {
		run := moved[0]
		moved = moved[1:]
		at := slices.IndexFunc(out, func(k Key) bool { return k.Name == run[0].After })
		if at >= 0 {
			out = slices.Insert(out, at+1, run...)
		} else { // it is in a run that is not placed yet
			moved = append(moved, run)
		}
		if len(moved) == 0 {
			break
		}
	}
	return slices.Concat(append([][]Key{out}, moved...)...)
}

// runs lists the keys that stand in the order of the fields, and those that are to
// stand elsewhere, each run with After in its first key.
func runs(t reflect.Type) (base []Key, moved [][]Key) {
	run := -1 // the one that the next field belongs to; none: base
	add := func(keys ...Key) {
		if run < 0 {
			base = append(base, keys...)
		} else {
			moved[run] = append(moved[run], keys...)
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		after := f.Tag.Get("after")
		switch name, inline := cfgTag(f); {
		case inline:
			group, elsewhere := runs(f.Type)
			if after == "" {
				add(group...)
			} else {
				group[0].After = after
				elsewhere = append(elsewhere, group)
			}
			moved = append(moved, elsewhere...)
		case name != "" && after != "":
			moved = append(moved, []Key{{name, after, t, f}})
			run = len(moved) - 1
		case name != "":
			add(Key{name, "", t, f})
		}
	}
	return base, moved
}

func cfgTag(f reflect.StructField) (name string, inline bool) {
	name, option, _ := strings.Cut(f.Tag.Get("cfg"), ",")
	return name, option == "inline"
}

// section reads v as the mapping that the struct into declares.
func (d *decoder) section(v Value, into reflect.Value) {
	keys := Of(into.Type())
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
	}
	m := v.mapping(names...)
	d.sections[v.path] = m
	d.fill(m, into)
}

// fill reads the keys of one struct, then looks at them together.
func (d *decoder) fill(m Mapping, into reflect.Value) {
	t := into.Type()
	if into.CanInterface() {
		d.rules.Begin(m, into.Addr().Interface())
	}
	for i := range t.NumField() {
		switch name, inline := cfgTag(t.Field(i)); {
		case inline:
			d.fill(m, into.Field(i))
		case name != "":
			d.read(m.Get(name), Key{name, "", t, t.Field(i)}, into.Field(i))
		}
	}
	if into.CanInterface() {
		d.rules.Together(m, into.Addr().Interface())
	}
}

// read puts v into a field: its default first, which stays there after a mistake.
func (d *decoder) read(v Value, k Key, into reflect.Value) {
	r := d.readerOf(k, into.Type())
	if k.Has("default") {
		r.Read(v.standing(k.Tag("default")), k, into)
	}
	switch {
	case v.Present():
		r.Read(v, k, into)
	case k.Has("required"):
		v.Problem("%s", strings.TrimSuffix("missing; want "+k.Tag("required"), "; want "))
	case r.sections:
		r.Read(v, k, into)
	}
}

// standing makes the value of a default in place of v. A test reads them all.
func (v Value) standing(text string) Value {
	v.node, v.hush = nil, true
	if file, err := parser.ParseBytes([]byte(text), 0); err == nil && len(file.Docs) == 1 {
		v.node = file.Docs[0].Body
	}
	return v
}

// Elements are the mappings of the list of a key, each as it was read.
func (m Mapping) Elements(key string) []Mapping {
	v := m.Get(key)
	n, _ := v.Len()
	var out []Mapping
	for i := range n {
		if e, ok := m.d.sections[elementPath(v.path, i)]; ok {
			out = append(out, e)
		}
	}
	return out
}

// Wrong reports whether anything was wrong with one of the keys.
func (m Mapping) Wrong(keys ...string) bool {
	return slices.ContainsFunc(m.d.problems, func(p Problem) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return p.Key == m.child(k) })
	})
}

// Report says what a part finds wrong with its options: lines of key: reason, or
// of a reason alone. What is wrong with a key by itself has been said.
func (m Mapping) Report(err error) {
	if err == nil {
		return
	}
	said := map[string]bool{}
	lines := strings.Split(err.Error(), "\n")
	for _, line := range lines {
		key, _, _ := strings.Cut(line, ": ")
		said[key] = m.Wrong(key)
	}
	for _, line := range lines {
		key, reason, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			m.Problem("%s", line)
		case !said[key]:
			m.Get(key).Problem("%s", reason)
		}
	}
}

// Restart lists the keys marked with restart that differ between two structs of one type.
func Restart(old, changed any) []string {
	return restart("", reflect.ValueOf(old).Elem(), reflect.ValueOf(changed).Elem())
}

func restart(path string, old, changed reflect.Value) []string {
	var out []string
	t := old.Type()
	for i := range t.NumField() {
		f, a, b := t.Field(i), old.Field(i), changed.Field(i)
		name, inline := cfgTag(f)
		switch at := strings.TrimPrefix(path+"."+name, "."); {
		case inline:
			out = append(out, restart(path, a, b)...)
		case name == "":
		case f.Tag.Get("restart") != "":
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				out = append(out, at)
			}
		case f.Type.Kind() == reflect.Struct:
			out = append(out, restart(at, a, b)...)
		}
	}
	return out
}

// HushBut says nothing more of keys but those named.
func (m Mapping) HushBut(keys ...string) {
	for name, v := range m.entries {
		if !slices.Contains(keys, name) {
			v.hush = true
			m.entries[name] = v
		}
	}
}
