package keys

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Reader is one way to read a value. A read that fails reports why and leaves
// the field alone.
type Reader struct {
	Read     func(v Value, k Key, into reflect.Value) bool
	Schema   func(k Key, t reflect.Type) Shape // what it takes
	sections bool                              // an absent mapping is read too, for its keys have defaults
	OfList   bool                              // it reads the list itself, not an element
	Verbatim bool                              // an element that stands in a list twice is named as it is written
}

// Scalar is the reader of what f reads.
func Scalar[T any](takes Shape, f func(Value) (T, bool)) Reader {
	return Reader{Schema: takes.Fixed, Read: func(v Value, _ Key, into reflect.Value) bool {
		x, ok := f(v)
		if ok {
			into.Set(reflect.ValueOf(x).Convert(into.Type()))
		}
		return ok
	}}
}

// list is the reader of a list of what elem reads. A key with the tag alone may also be one of those words, by
// itself or as the only element.
func list(elem Reader) Reader {
	takes := func(k Key, t reflect.Type) Shape {
		if s := ListShape(k, elem.Schema(k, t.Elem())); k.Has("alone") {
			return Shape{"anyOf": []Shape{WordShape(k.alone()), s}}
		} else {
			return s
		}
	}
	return Reader{Schema: takes, Read: func(v Value, k Key, into reflect.Value) bool {
		if k.Has("alone") && v.isText() {
			word, ok := v.Word(k.alone())
			if ok {
				into.Set(reflect.ValueOf([]string{word}))
			}
			return ok
		}
		n, ok := v.Len()
		out := reflect.Zero(into.Type())
		seen := map[any]bool{} // of keys that are unique
		v.List(func(e Value) {
			x := reflect.New(into.Type().Elem()).Elem()
			switch {
			case !elem.Read(e, k, x) && !elem.sections: // those keep their places: they are compared later
			case k.Has("unique") && seen[x.Interface()]:
				name := fmt.Sprint(x)
				if elem.Verbatim {
					name, _ = e.Raw("")
				}
				e.Problem("%s is in the list twice", name)
			default:
				if out = reflect.Append(out, x); k.Has("unique") {
					seen[x.Interface()] = true
				}
			}
		})
		word := slices.IndexFunc(k.alone(), func(w string) bool { return seen[w] })
		switch most := k.Whole("most"); {
		case out.Len() > 1 && word >= 0:
			v.Problem("%s stands beside others; it has to stand alone", k.alone()[word])
		case ok && n == 0 && k.Has("empty"):
			v.EmptyList(k)
		case k.Has("most") && out.Len() > most:
			v.Problem("%d of them; want at most %d", out.Len(), most)
		}
		if ok {
			into.Set(out)
		}
		return ok
	}}
}

// alone are the words that may stand in place of a list.
func (k Key) alone() []string { return strings.Fields(k.Tag("alone")) }

// EmptyList says why the list of a key may not be empty.
func (v Value) EmptyList(k Key) {
	v.Problem("%s leave it out for %s", k.Tag("empty"), strings.Trim(k.Tag("default"), "[]"))
}

// sectionReader reads a mapping whose keys a struct declares.
func (d *decoder) sectionReader() Reader {
	takes := func(_ Key, t reflect.Type) Shape { return d.sectionShape(t) }
	return Reader{sections: true, Schema: takes, Read: func(v Value, _ Key, into reflect.Value) bool {
		before := len(v.d.problems)
		v.d.section(v, into)
		return len(v.d.problems) == before
	}}
}

// Later is the reader of what cannot be read by itself: the function that looks
// at its section as a whole does it.
func Later(takes Shape) Reader {
	return Reader{Schema: takes.Fixed, Read: func(Value, Key, reflect.Value) bool { return true }}
}

// readerOf is the reader of a key: the one that its declaration names, else that of its type.
func (d *decoder) readerOf(k Key, t reflect.Type) Reader {
	name := k.Tag("read")
	if name == "" {
		return d.typed(k, t)
	}
	r, ok := usual(name, k)
	if !ok {
		r, ok = d.rules.Reader(name, k)
	}
	switch {
	case !ok:
		panic(fmt.Sprintf("key %s: no reader %s", k.Name, name))
	case t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]() && !r.OfList:
		return list(r)
	}
	return r
}

// usual are the readers that every part may name.
func usual(name string, k Key) (Reader, bool) {
	switch name {
	case "path":
		return Scalar(Matching(`^/`), Value.dir), true
	case "share":
		return Scalar(Matching(`^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*%\s*$`), func(v Value) (float64, bool) { return v.share(k.Tag("max")) }), true
	case "seconds":
		return Scalar(SpanShape(k), func(v Value) (time.Duration, bool) {
			x, ok := v.Span(k.Span("min"), k.Span("max"))
			return x.Truncate(time.Second), ok
		}), true
	case "listen_or_off":
		return Scalar(Matching(ListenPattern), func(v Value) (netip.AddrPort, bool) { return v.listenOrOff(k.Like()) }), true
	case "ipv4_network":
		return Scalar(Matching(`^`+IPv4Pattern+`(/[0-9]{1,2})?$`), Value.Network), true
	}
	return Reader{}, false
}

// typed is the reader of a type.
func (d *decoder) typed(k Key, t reflect.Type) Reader {
	if words, ok := wordsOf(t); ok {
		return words
	}
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return Scalar(Matching(`^`+IPv4Pattern+`$`), Value.IPv4)
	case reflect.TypeFor[netip.Prefix]():
		return Scalar(Matching(`^`+IPv4Pattern+`/[0-9]{1,2}$`), Value.Prefix)
	case reflect.TypeFor[time.Duration]():
		return Scalar(SpanShape(k), func(v Value) (time.Duration, bool) { return v.Span(k.Span("min"), k.Span("max")) })
	}
	switch t.Kind() {
	case reflect.Bool:
		return Scalar(Shape{"type": "boolean"}, Value.Truth)
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return Scalar(wholeShape(k), func(v Value) (int, bool) { return v.Whole(k.Whole("min"), k.Whole("max")) })
	case reflect.Float64:
		return Scalar(realShape(k), func(v Value) (float64, bool) { return v.real(k.real("min"), k.real("max")) })
	case reflect.String:
		if k.Has("oneof") {
			return Scalar(WordShape(k.Words()), func(v Value) (string, bool) { return v.Word(k.Words()) })
		}
		return Scalar(TextShape(), Value.Text)
	case reflect.Struct:
		return d.sectionReader()
	case reflect.Slice:
		return list(d.typed(k, t.Elem()))
	}
	panic(fmt.Sprintf("key %s: nothing reads a %s", k.Name, t))
}

// wordsOf is the reader of a closed set that has its words by itself: those of
// text in any order, those of numbers by value.
func wordsOf(t reflect.Type) (Reader, bool) {
	set, ok := reflect.Zero(t).Interface().(interface{ Words() []string })
	if !ok {
		return Reader{}, false
	}
	all := set.Words()
	known := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return w == "" })
	return Reader{Schema: WordShape(known).Fixed, Read: func(v Value, _ Key, into reflect.Value) bool {
		word, ok := v.Word(known)
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

// Whole returns a tag that is a whole number. A test of the declarations reads them all.
func (k Key) Whole(tag string) int {
	n, _ := strconv.Atoi(k.Tag(tag))
	return n
}

func (k Key) real(tag string) float64 {
	f, _ := strconv.ParseFloat(k.Tag(tag), 64)
	return f
}

// Span returns a tag that is a duration.
func (k Key) Span(tag string) time.Duration {
	d, _ := time.ParseDuration(k.Tag(tag))
	return d
}

// Like is an address with a port that an error shows as an example.
func (k Key) Like() string {
	if k.Has("like") {
		return k.Tag("like")
	}
	return k.Tag("default")
}
