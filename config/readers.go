package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// reader is one way to read a value. A read that fails reports why and leaves
// the field alone.
type reader struct {
	read     func(d *decoder, v value, k key, into reflect.Value) bool
	schema   func(k key, t reflect.Type) shape // what it takes
	sections bool                              // an absent mapping is read too, for its keys have defaults
	whole    bool                              // it reads the list itself, not an element
	verbatim bool                              // an element that stands in a list twice is named as it is written
}

// scalar is the reader of what f reads, and of a shape that is the same for all keys.
func scalar[T any](takes shape, f func(v value, k key) (T, bool)) reader {
	return reader{schema: takes.fixed, read: func(_ *decoder, v value, k key, into reflect.Value) bool {
		x, ok := f(v, k)
		if ok {
			into.Set(reflect.ValueOf(x).Convert(into.Type()))
		}
		return ok
	}}
}

// list is the reader of a list of what elem reads.
func list(elem reader) reader {
	return reader{schema: func(k key, t reflect.Type) shape { return listShape(k, elem.schema(k, t.Elem())) }, read: func(d *decoder, v value, k key, into reflect.Value) bool {
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
	return reader{sections: true, schema: func(_ key, t reflect.Type) shape { return sectionShape(t) }, read: func(d *decoder, v value, _ key, into reflect.Value) bool {
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
	if name := k.tag("read"); name != "" {
		r := named(name)
		if t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]() && !r.whole {
			return list(r)
		}
		return r
	}
	if words, ok := wordsOf(t); ok {
		return words
	}
	switch {
	case t == reflect.TypeFor[netip.Addr]():
		return scalar(matching(`^`+ipv4Pattern+`$`), func(v value, _ key) (netip.Addr, bool) { return v.ipv4() })
	case t == reflect.TypeFor[netip.Prefix]():
		return scalar(matching(`^`+ipv4Pattern+`/[0-9]{1,2}$`), func(v value, _ key) (netip.Prefix, bool) { return v.prefix() })
	case k.has("oneof"):
		return scalar(wordShape(k.words()), func(v value, k key) (string, bool) { return v.word(k.words()) })
	case t == reflect.TypeFor[time.Duration]():
		return scalar(spanShape(k), func(v value, k key) (time.Duration, bool) { return v.span(k.span("min"), k.span("max")) })
	}
	switch t.Kind() {
	case reflect.Bool:
		return scalar(shape{"type": "boolean"}, func(v value, _ key) (bool, bool) { return v.truth() })
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return scalar(wholeShape(k), func(v value, k key) (int, bool) { return v.whole(k.whole("min"), k.whole("max")) })
	case reflect.Float64:
		return scalar(realShape(k), func(v value, k key) (float64, bool) { return v.real(k.real("min"), k.real("max")) })
	case reflect.String:
		return scalar(textShape(), func(v value, _ key) (string, bool) { return v.raw("text") })
	case reflect.Struct:
		return sectionReader()
	case reflect.Slice:
		return list(readerOf(k, t.Elem()))
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

// named is the closed table of readers that declarations name.
func named(name string) reader {
	switch name {
	case "path":
		return scalar(matching(`^/`), func(v value, _ key) (string, bool) { return v.dir() })
	case "erp_url":
		return scalar(matching(`^https?://[^/?#@]+(/[^?#]*)?/api\.php$`), func(v value, _ key) (string, bool) { return v.apiURL() })
	case "erp_version":
		return scalar(shape{"type": []string{"string", "number"}, "pattern": `^(auto|[0-9]+\.[0-9]+.*)$`}, func(v value, _ key) (userside.Version, bool) { return v.erpVersion() })
	case "ca_file":
		return scalar(matching(`^(/.*)?$`), func(v value, _ key) (string, bool) { return v.caFile() })
	case "share":
		return scalar(matching(`^\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*%\s*$`), func(v value, k key) (float64, bool) { return v.share(k.tag("max")) })
	case "access":
		r := scalar(nil, func(v value, k key) (provision.State, bool) { return v.access(k.words()) })
		r.schema = func(k key, _ reflect.Type) shape { return wordShape(k.words()) }
		return r
	case "states":
		return reader{schema: statesShape().fixed, read: func(_ *decoder, v value, _ key, into reflect.Value) bool { return v.states(into) }}
	case "listen_or_off":
		return scalar(matching(`^(off|.+:[0-9]{1,5})$`), func(v value, k key) (netip.AddrPort, bool) { return v.listenOrOff(k.likeThis()) })
	case "portal_listen":
		return scalar(matching(`^(off|.+:[0-9]{1,5})$`), func(v value, _ key) (netip.AddrPort, bool) { return v.portalListen() })
	case "network":
		return scalar(matching(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`), func(v value, _ key) (netip.Prefix, bool) { return v.network() })
	case "ipv4_network":
		return scalar(matching(`^`+ipv4Pattern+`(/[0-9]{1,2})?$`), func(v value, _ key) (netip.Prefix, bool) { return v.relay() })
	case "ipv4_listen":
		return scalar(matching(`^`+ipv4Pattern+`:[0-9]{1,5}$`), func(v value, k key) (netip.AddrPort, bool) { return v.ipv4Listen(k.likeThis()) })
	case "match":
		return reader{whole: true, schema: func(k key, _ reflect.Type) shape { return listShape(k, matchShape()) },
			read: func(_ *decoder, v value, k key, into reflect.Value) bool { return v.matchOrder(k, into) }}
	case "vlan_interface":
		return scalar(matching(`\{vlan\}`), func(v value, _ key) (string, bool) { return v.vlanInterface() })
	case "hex":
		return scalar(shape{"type": []string{"string", "integer"}, "pattern": hexPattern}, func(v value, _ key) ([]byte, bool) { return v.hexBytes() })
	case "mac_prefix":
		return scalar(shape{"type": []string{"string", "integer"}, "pattern": hexPattern}, func(v value, _ key) ([]byte, bool) { return v.macPrefix() })
	case "pattern":
		return scalar(textShape(), func(v value, _ key) (string, bool) { return v.pattern() })
	case "name":
		return scalar(matching(plainKey.String()), func(v value, _ key) (string, bool) { return v.profileName() })
	case "ready_profile":
		return later(shape{"enum": option82.Names()})
	case "default_profiles":
		return reader{whole: true, schema: func(k key, _ reflect.Type) shape { return listShape(k, textShape()) },
			read: func(d *decoder, v value, k key, into reflect.Value) bool {
				return d.defaultProfiles(v, k, into)
			}}
	case "domain":
		return scalar(textShape(), func(v value, _ key) (string, bool) { return v.domain() })
	case "search":
		return scalar(textShape(), func(v value, _ key) (string, bool) { return v.searchDomain() })
	case "field":
		r := scalar(nil, func(v value, k key) (string, bool) { return v.field(k.whole("max")) })
		r.schema = func(k key, _ reflect.Type) shape {
			return shape{"type": []string{"string", "number", "boolean"}, "maxLength": k.whole("max")}
		}
		return r
	case "link":
		return scalar(matching(`^(https?://.+)?$`), func(v value, k key) (string, bool) { return v.link(k.whole("max")) })
	case "seconds":
		r := scalar(nil, func(v value, k key) (time.Duration, bool) {
			x, ok := v.span(k.span("min"), k.span("max"))
			return x.Truncate(time.Second), ok
		})
		r.schema = func(k key, _ reflect.Type) shape { return spanShape(k) }
		return r
	case "via":
		return scalar(matching(`^`+ipv4Pattern+`$`), func(v value, _ key) (netip.Addr, bool) { return v.via() })
	case "enterprise":
		return scalar(shape{"type": []string{"integer", "string"}, "minimum": 0, "maximum": 1<<32 - 1, "pattern": wholePattern}, func(v value, _ key) (uint64, bool) { return v.unsigned(32) })
	case "options":
		return optionsReader(true, maxOptionLen, serverOwns)
	case "sub_options":
		return optionsReader(false, 255, framing)
	case "option_value":
		return later(shape{})
	case "pool_name":
		return scalar(matching(poolName.String()), func(v value, _ key) (string, bool) { return v.poolName() })
	case "range":
		return scalar(matching(`^`+ipv4Pattern+`(/[0-9]{1,2}|\s*-\s*`+ipv4Pattern+`)$`), func(v value, _ key) (dhcpd.Range, bool) { return v.addrRange() })
	case "interface":
		return scalar(matching(`^[^/:\s]+$`), func(v value, _ key) (string, bool) { return v.interfaceName() })
	case "customer":
		return scalar(shape{"type": []string{"integer", "string"}, "minimum": 1, "pattern": wholePattern}, func(v value, _ key) (int64, bool) { return v.customer() })
	case "name_server":
		r := scalar(matching(`^[0-9A-Fa-f:.\[\]]+$`), func(v value, _ key) (netip.AddrPort, bool) { return v.nameServer() })
		r.verbatim = true
		return r
	case "garden":
		return reader{schema: shape{"type": "array", "items": shape{"type": "string"}}.fixed,
			read: func(d *decoder, v value, _ key, into reflect.Value) bool { return d.garden(v, into) }}
	case "language":
		return scalar(matching(`^[a-z]{2,3}$`), func(v value, _ key) (string, bool) { return v.language() })
	case "short":
		return scalar(textShape(), func(v value, k key) (string, bool) { return v.shortText(k.whole("max")) })
	case "pay_url":
		return scalar(matching(`^(https?://.*)?$`), func(v value, _ key) (string, bool) { return v.payURL() })
	case "secret":
		return later(textShape())
	case "certificate", "template":
		return later(matching(`^(/.*)?$`))
	case "portal_url":
		return later(matching(`^https://[^/?#@]+/?$`))
	}
	panic("no reader " + name)
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
