package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/provision"
)

// reader is one way to read a value. A read that fails reports why and leaves
// the field alone.
type reader struct {
	read     func(d *decoder, v value, k key, into reflect.Value) bool
	schema   func(k key, t reflect.Type) shape // what it takes
	sections bool                              // an absent mapping is read too, for its keys have defaults
	ofList   bool                              // it reads the list itself, not an element
	verbatim bool                              // an element that stands in a list twice is named as it is written
}

// scalar is the reader of what f reads.
func scalar[T any](takes shape, f func(value) (T, bool)) reader {
	return reader{schema: takes.fixed, read: func(_ *decoder, v value, _ key, into reflect.Value) bool {
		x, ok := f(v)
		if ok {
			into.Set(reflect.ValueOf(x).Convert(into.Type()))
		}
		return ok
	}}
}

// list is the reader of a list of what elem reads.
func list(elem reader) reader {
	takes := func(k key, t reflect.Type) shape { return listShape(k, elem.schema(k, t.Elem())) }
	return reader{schema: takes, read: func(d *decoder, v value, k key, into reflect.Value) bool {
		n, ok := v.seqLen()
		out := reflect.Zero(into.Type())
		seen := map[any]bool{} // of keys that are unique
		v.list(func(e value) {
			x := reflect.New(into.Type().Elem()).Elem()
			switch {
			case !elem.read(d, e, k, x) && !elem.sections: // those keep their places: they are compared later
			case k.has("unique") && seen[x.Interface()]:
				name := fmt.Sprint(x)
				if elem.verbatim {
					name, _ = e.raw("")
				}
				e.problem("%s is in the list twice", name)
			default:
				if out = reflect.Append(out, x); k.has("unique") {
					seen[x.Interface()] = true
				}
			}
		})
		switch most := k.whole("most"); {
		case ok && n == 0 && k.has("empty"):
			v.emptyList(k)
		case k.has("most") && out.Len() > most:
			v.problem("%d of them; want at most %d", out.Len(), most)
		}
		if ok {
			into.Set(out)
		}
		return ok
	}}
}

// emptyList says why the list of a key may not be empty.
func (v value) emptyList(k key) {
	v.problem("%s leave it out for %s", k.tag("empty"), strings.Trim(k.tag("default"), "[]"))
}

// sectionReader reads a mapping whose keys a struct declares.
func sectionReader() reader {
	takes := func(_ key, t reflect.Type) shape { return sectionShape(t) }
	return reader{sections: true, schema: takes, read: func(d *decoder, v value, _ key, into reflect.Value) bool {
		before := len(d.problems)
		d.section(v, into)
		return len(d.problems) == before
	}}
}

// later is the reader of what cannot be read by itself: the function that looks
// at its section as a whole does it.
func later(takes shape) reader {
	return reader{schema: takes.fixed, read: func(*decoder, value, key, reflect.Value) bool { return true }}
}

// readerOf is the reader of a key: the one that its declaration names, else that of its type.
func readerOf(k key, t reflect.Type) reader {
	name := k.tag("read")
	if name == "" {
		return typed(k, t)
	}
	for _, table := range []func(string, key) (reader, bool){readers, erpReaders, dhcpReaders, portalReaders} {
		if r, ok := table(name, k); ok {
			if t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]() && !r.ofList {
				return list(r)
			}
			return r
		}
	}
	panic(fmt.Sprintf("key %s: no reader %s", k.name, name))
}

// typed is the reader of a type.
func typed(k key, t reflect.Type) reader {
	if words, ok := wordsOf(t); ok {
		return words
	}
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return scalar(matching(`^`+ipv4Pattern+`$`), value.ipv4)
	case reflect.TypeFor[netip.Prefix]():
		return scalar(matching(`^`+ipv4Pattern+`/[0-9]{1,2}$`), value.prefix)
	case reflect.TypeFor[time.Duration]():
		return scalar(spanShape(k), func(v value) (time.Duration, bool) { return v.span(k.span("min"), k.span("max")) })
	}
	switch t.Kind() {
	case reflect.Bool:
		return scalar(shape{"type": "boolean"}, value.truth)
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return scalar(wholeShape(k), func(v value) (int, bool) { return v.whole(k.whole("min"), k.whole("max")) })
	case reflect.Float64:
		return scalar(realShape(k), func(v value) (float64, bool) { return v.real(k.real("min"), k.real("max")) })
	case reflect.String:
		if k.has("oneof") {
			return scalar(wordShape(k.words()), func(v value) (string, bool) { return v.word(k.words()) })
		}
		return scalar(textShape(), value.text)
	case reflect.Struct:
		return sectionReader()
	case reflect.Slice:
		return list(typed(k, t.Elem()))
	}
	panic(fmt.Sprintf("key %s: nothing reads a %s", k.name, t))
}

// wordsOf is the reader of a closed set that has its words by itself: those of
// text in any order, those of numbers by value.
func wordsOf(t reflect.Type) (reader, bool) {
	set, ok := reflect.Zero(t).Interface().(interface{ Words() []string })
	if !ok {
		return reader{}, false
	}
	all := set.Words()
	known := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return w == "" })
	return reader{schema: wordShape(known).fixed, read: func(_ *decoder, v value, _ key, into reflect.Value) bool {
		word, ok := v.word(known)
		switch {
		case !ok:
		case t.Kind() == reflect.String:
			into.SetString(word)
		default:
			into.SetUint(uint64(slices.Index(all, word)))
		}
		return ok
	}}, true
}

// The closed table of readers that declarations name: those of everybody, then by part.

func readers(name string, k key) (reader, bool) {
	switch name {
	case "path":
		return scalar(matching(`^/`), value.dir), true
	case "share":
		return scalar(matching(`^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*%\s*$`), func(v value) (float64, bool) { return v.share(k.tag("max")) }), true
	case "seconds":
		return scalar(spanShape(k), func(v value) (time.Duration, bool) {
			x, ok := v.span(k.span("min"), k.span("max"))
			return x.Truncate(time.Second), ok
		}), true
	case "listen_or_off":
		return scalar(matching(listenPattern), func(v value) (netip.AddrPort, bool) { return v.listenOrOff(k.likeThis()) }), true
	case "network":
		return scalar(matching(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`), value.network), true
	case "ipv4_network":
		return scalar(matching(`^`+ipv4Pattern+`(/[0-9]{1,2})?$`), value.relay), true
	case "interface":
		return scalar(matching(`^[^/: \t\n]+$`), value.interfaceName), true
	case "customer":
		return scalar(shape{"type": []string{"integer", "string"}, "minimum": 1, "pattern": wholePattern}, value.customer), true
	case "name_server":
		r := scalar(matching(`^[0-9A-Fa-f:.\[\]]+$`), value.nameServer)
		r.verbatim = true
		return r, true
	case "garden":
		return reader{schema: shape{"type": "array", "items": shape{"type": "string"}}.fixed, read: (*decoder).garden}, true
	case "secret":
		return later(textShape()), true
	}
	return reader{}, false
}

func erpReaders(name string, k key) (reader, bool) {
	switch name {
	case "erp_url":
		return scalar(matching(`^`+httpPattern+`[^/?#@]+(/[^?#]*)?/api\.php$`), value.apiURL), true
	case "erp_version":
		return scalar(shape{"type": []string{"string", "number"}, "pattern": `^(auto|[0-9]+\.[0-9]+.*)$`}, value.erpVersion), true
	case "ca_file":
		return scalar(matching(`^(/.*)?$`), value.caFile), true
	case "access":
		return scalar(wordShape(k.words()), func(v value) (provision.State, bool) { return v.access(k.words()) }), true
	case "states":
		return reader{schema: statesShape().fixed, read: (*decoder).states}, true
	}
	return reader{}, false
}

func dhcpReaders(name string, k key) (reader, bool) {
	switch name {
	case "ipv4_listen":
		return scalar(matching(`^`+ipv4Pattern+`:[0-9]{1,5}$`), func(v value) (netip.AddrPort, bool) { return v.ipv4Listen(k.likeThis()) }), true
	case "match":
		return reader{ofList: true, schema: listShape(k, matchShape()).fixed, read: (*decoder).matchOrder}, true
	case "vlan_interface":
		return scalar(matching(`\{vlan\}`), value.vlanInterface), true
	case "hex":
		return scalar(hexShape(), value.hexBytes), true
	case "mac_prefix":
		return scalar(hexShape(), value.macPrefix), true
	case "pattern":
		return scalar(textShape(), value.pattern), true
	case "name":
		return scalar(matching(plainKey.String()), value.profileName), true
	case "ready_profile":
		return later(wordShape(option82.Names())), true
	case "default_profiles":
		return reader{ofList: true, schema: listShape(k, textShape()).fixed, read: (*decoder).defaultProfiles}, true
	case "domain":
		return scalar(textShape(), value.domain), true
	case "search":
		return scalar(textShape(), value.searchDomain), true
	case "field":
		return scalar(fieldShape(k), func(v value) (string, bool) { return v.field(k.whole("max")) }), true
	case "link":
		return scalar(matching(`^(`+httpPattern+`.+)?$`), func(v value) (string, bool) { return v.link(k.whole("max")) }), true
	case "via":
		return scalar(matching(`^`+ipv4Pattern+`$`), value.via), true
	case "enterprise":
		return scalar(shape{"type": []string{"integer", "string"}, "minimum": 0, "maximum": 1<<32 - 1, "pattern": wholePattern}, value.enterprise), true
	case "options":
		return optionsReader(true, maxOptionLen, serverOwns), true
	case "sub_options":
		return optionsReader(false, 255, framing), true
	case "option_value":
		return later(shape{}), true
	case "pool_name":
		return scalar(matching(poolName.String()), value.poolName), true
	case "range":
		return scalar(matching(`^`+ipv4Pattern+`(/[0-9]{1,2}|\s*-\s*`+ipv4Pattern+`)$`), value.addrRange), true
	}
	return reader{}, false
}

func portalReaders(name string, k key) (reader, bool) {
	switch name {
	case "portal_listen":
		return scalar(matching(listenPattern), value.portalListen), true
	case "language":
		return scalar(matching(`^[a-z]{2,3}$`), value.language), true
	case "short":
		return scalar(textShape(), func(v value) (string, bool) { return v.shortText(k.whole("max")) }), true
	case "pay_url":
		return scalar(matching(`^(`+httpPattern+`.*)?$`), value.payURL), true
	case "certificate", "template":
		return later(matching(`^(/.*)?$`)), true
	case "portal_url":
		return later(matching(`^[Hh][Tt][Tt][Pp][Ss]://[^/?#@]+/?$`)), true
	}
	return reader{}, false
}

// The bounds of a key, as the declaration writes them; a test reads them all.

func (k key) whole(tag string) int {
	n, _ := strconv.Atoi(k.tag(tag))
	return n
}

func (k key) real(tag string) float64 {
	f, _ := strconv.ParseFloat(k.tag(tag), 64)
	return f
}

func (k key) span(tag string) time.Duration {
	d, _ := time.ParseDuration(k.tag(tag))
	return d
}

// likeThis is an address with a port that an error shows as an example.
func (k key) likeThis() string {
	if k.has("like") {
		return k.tag("like")
	}
	return k.tag("default")
}
