package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/parser"

	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// A key of the file has one home: a field, with the tag cfg, of the options of
// the part that uses it. Its comment is the sentence of the reference file and
// of the JSON Schema, which are made from the declarations; what follows the
// field in its line is for readers of the code alone.
//
//	cfg       the key; ",inline": the keys of the field's struct stand beside the others
//	after     the key that it follows, with the fields behind it, if not the one before
//	read      how it is read, where the type does not say it; see readerOf
//	default   what stands for an absent key, written as in the file
//	required  what is wanted, if there is nothing that could stand for it
//	min, max  bounds of a number, a share or a duration; max also of the bytes of text
//	oneof     the words that it may be
//	most      how many elements a list may have
//	unique    no element of a list may stand there twice
//	empty     why a list may not be empty, to which "leave it out for" the default is added
//	restart   a running agent cannot take another value
//	example   what the reference shows in place of the default
//	layout    of the reference: see the test that makes it

// key is the declaration of one key.
type key struct {
	name  string
	after string       // the key that it follows in the reference; empty: as the fields stand
	owner reflect.Type // the struct that declares it
	field reflect.StructField
}

func (k key) tag(name string) string { return k.field.Tag.Get(name) }

func (k key) has(tag string) bool {
	_, ok := k.field.Tag.Lookup(tag)
	return ok
}

// words are those that the key may be.
func (k key) words() []string { return strings.Fields(k.tag("oneof")) }

// keysOf lists the keys that the fields of a struct declare, in the order of the
// reference: that of the fields, but that a key with the tag after, and those
// behind it, stand where that says.
func keysOf(t reflect.Type) []key {
	var out []key
	var moved [][]key
	for _, k := range flatKeys(t) {
		switch {
		case k.after != "":
			moved = append(moved, []key{k})
		case len(moved) > 0:
			moved[len(moved)-1] = append(moved[len(moved)-1], k)
		default:
			out = append(out, k)
		}
	}
	for range len(moved) * len(moved) {
		run := moved[0]
		moved = moved[1:]
		at := slices.IndexFunc(out, func(k key) bool { return k.name == run[0].after })
		if at >= 0 {
			out = slices.Insert(out, at+1, run...)
		} else { // it is in a run that is not placed yet
			moved = append(moved, run)
		}
		if len(moved) == 0 {
			break
		}
	}
	return slices.Concat(append([][]key{out}, moved...)...)
}

// flatKeys lists the keys in the order of the fields.
func flatKeys(t reflect.Type) []key {
	var out []key
	for i := range t.NumField() {
		f := t.Field(i)
		after := f.Tag.Get("after")
		switch name, inline := cfgTag(f); {
		case inline:
			group := flatKeys(f.Type)
			if after != "" {
				group[0].after = after
			}
			out = append(out, group...)
		case name != "":
			out = append(out, key{name, after, t, f})
		}
	}
	return out
}

func cfgTag(f reflect.StructField) (name string, inline bool) {
	name, option, _ := strings.Cut(f.Tag.Get("cfg"), ",")
	return name, option == "inline"
}

// section reads v as the mapping that the struct into declares.
func (d *decoder) section(v value, into reflect.Value) {
	keys := keysOf(into.Type())
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	m := v.mapping(names...)
	d.sections[v.path] = m
	d.fill(m, into)
}

// fill reads the keys of one struct, then looks at them together.
func (d *decoder) fill(m mapping, into reflect.Value) {
	t := into.Type()
	if p, ok := profileIn(into); ok {
		d.beginProfile(m, p)
	}
	for i := range t.NumField() {
		switch name, inline := cfgTag(t.Field(i)); {
		case inline:
			d.fill(m, into.Field(i))
		case name != "":
			d.read(m.get(name), key{name, "", t, t.Field(i)}, into.Field(i))
		}
	}
	if into.CanInterface() {
		d.together(m, into.Addr().Interface())
	}
}

// read puts v into a field: its default first, which stays there after a mistake.
func (d *decoder) read(v value, k key, into reflect.Value) {
	r := readerOf(k, into.Type())
	if k.has("default") {
		r.read(d, v.standing(k.tag("default")), k, into)
	}
	switch {
	case v.present():
		r.read(d, v, k, into)
	case k.has("required"):
		v.problem("%s", strings.TrimSuffix("missing; want "+k.tag("required"), "; want "))
	case r.sections:
		r.read(d, v, k, into)
	}
}

// standing makes the value of a default in place of v. A test reads them all.
func (v value) standing(text string) value {
	v.node, v.hush = nil, true
	if file, err := parser.ParseBytes([]byte(text), 0); err == nil && len(file.Docs) == 1 {
		v.node = file.Docs[0].Body
	}
	return v
}

// together looks at keys of one mapping that are right by themselves. What
// protects a part from anybody is the part's own; what needs the rest of the
// file, the host, or is no more than a warning, stands here in config.
func (d *decoder) together(m mapping, section any) {
	switch s := section.(type) {
	case *ERP:
		d.erpTogether(m, s)
	case *DHCP:
		d.dhcpTogether(m, s)
	case *dhcpd.Limit:
		m.report(s.Check())
	case *v4.ClientID:
		clientIDTogether(m, s)
	case *line.Option82:
		option82Together(m, s)
	case *line.Option82Profile:
		profileTogether(m, s)
	case *line.Option82Exact:
		exactTogether(m, s)
	case *v4.OptionSet:
		optionSetTogether(m, s)
	case *v4.ClassMatch:
		m.report(s.Check())
	case *v4.OptionMatch:
		if m.get("text").present() && m.get("hex").present() {
			m.get("hex").problem("given beside text; want one of them")
		}
	case *v4.Subnet:
		subnetTogether(m, s)
	case *v4.Pool:
		d.poolTogether(m, s)
	case *provision.Policy:
		if active := s.States[2]; active != provision.StateActive {
			m.get("states").warn("state 2 is the ERP's \"active\", and %s is what these customers get", accessWord(active))
		}
	case *Hooks:
		d.hooksTogether(m, s)
	case *syncer.GuardLimits:
		m.report(s.Check())
	case *ACLExempt:
		s.together(m)
	case *ACLSourceGuard:
		s.together(m)
	case *Routes:
		s.together(m)
	case *Neighbours:
		m.someInterfaces(s.Enabled)
	case *portal.HTTPS:
		d.portalHTTPS(m, s)
	case *portal.Options:
		d.portalTogether(m, s)
	case *Control:
		d.controlTogether(m, s)
	case *Console:
		if s.Listen.IsValid() && !s.Listen.Addr().IsLoopback() {
			m.get("listen").warn("not a loopback address: everybody who reaches it can read subscribers' addresses; let a firewall or a proxy decide who may")
		}
	}
}

// elements are the mappings of the list of a key, each as it was read.
func (m mapping) elements(key string) []mapping {
	v := m.get(key)
	n, _ := v.seqLen()
	var out []mapping
	for i := range n {
		if e, ok := m.d.sections[elementPath(v.path, i)]; ok {
			out = append(out, e)
		}
	}
	return out
}

// wrong reports whether anything was wrong with one of the keys.
func (m mapping) wrong(keys ...string) bool {
	return slices.ContainsFunc(m.d.problems, func(p Problem) bool {
		return slices.ContainsFunc(keys, func(k string) bool { return p.Key == m.child(k) })
	})
}

// report says what a part finds wrong with its options: lines of key: reason, or
// of a reason alone. What is wrong with a key by itself has been said.
func (m mapping) report(err error) {
	if err == nil {
		return
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		key, reason, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			m.problem("%s", line)
		case !m.wrong(key):
			m.get(key).problem("%s", reason)
		}
	}
}

// Restart lists the changed keys that a running agent cannot take.
func Restart(old, changed *Config) []string {
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
