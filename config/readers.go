package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/userside"
)

// reader is one way to read a value. A read that fails reports why and leaves
// the field alone.
type reader struct {
	read     func(d *decoder, v value, k key, into reflect.Value) bool
	sections bool // an absent mapping is read too, for its keys have defaults
	verbatim bool // an element that stands in a list twice is named as it is written
}

// scalar is the reader of what f reads.
func scalar[T any](f func(v value, k key) (T, bool)) reader {
	return reader{read: func(_ *decoder, v value, k key, into reflect.Value) bool {
		x, ok := f(v, k)
		if ok {
			into.Set(reflect.ValueOf(x).Convert(into.Type()))
		}
		return ok
	}}
}

// list is the reader of a list of what elem reads.
func list(elem reader) reader {
	return reader{read: func(d *decoder, v value, k key, into reflect.Value) bool {
		n, ok := v.seqLen()
		out := reflect.Zero(into.Type())
		v.list(func(e value) {
			x := reflect.New(into.Type().Elem()).Elem()
			switch {
			case !elem.read(d, e, k, x):
			case k.has("unique") && holds(out, x):
				name := fmt.Sprint(x)
				if elem.verbatim {
					name, _ = e.raw("")
				}
				e.problem("%s is in the list twice", name)
			default:
				out = reflect.Append(out, x)
			}
		})
		switch most := k.whole("most"); {
		case ok && n == 0 && k.has("empty"):
			v.problem("%s", k.tag("empty"))
		case k.has("most") && out.Len() > most:
			v.problem("%d of them; want at most %d", out.Len(), most)
		}
		if ok {
			into.Set(out)
		}
		return ok
	}}
}

func holds(list, x reflect.Value) bool {
	for i := range list.Len() {
		if reflect.DeepEqual(list.Index(i).Interface(), x.Interface()) {
			return true
		}
	}
	return false
}

// sectionReader reads a mapping whose keys a struct declares.
func sectionReader() reader {
	return reader{sections: true, read: func(d *decoder, v value, _ key, into reflect.Value) bool {
		before := len(d.problems)
		d.section(v, into)
		return len(d.problems) == before
	}}
}

// later is the reader of what cannot be read by itself: the function that looks
// at its section as a whole does it.
func later() reader {
	return reader{read: func(*decoder, value, key, reflect.Value) bool { return true }}
}

// readerOf is the reader of a key: the one that its declaration names, else that of its type.
func readerOf(k key, t reflect.Type) reader {
	name := k.tag("read")
	switch {
	case name != "" && t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]():
		return list(named(name))
	case name != "":
		return named(name)
	case k.has("oneof"):
		return scalar(func(v value, k key) (string, bool) { return v.word(k.words()) })
	case t == reflect.TypeFor[time.Duration]():
		return scalar(func(v value, k key) (time.Duration, bool) { return v.span(k.span("min"), k.span("max")) })
	}
	switch t.Kind() {
	case reflect.Bool:
		return scalar(func(v value, _ key) (bool, bool) { return v.truth() })
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return scalar(func(v value, k key) (int, bool) { return v.whole(k.whole("min"), k.whole("max")) })
	case reflect.Float64:
		return scalar(func(v value, k key) (float64, bool) { return v.real(k.real("min"), k.real("max")) })
	case reflect.String:
		return scalar(func(v value, _ key) (string, bool) { return v.raw("text") })
	case reflect.Struct:
		return sectionReader()
	case reflect.Slice:
		return list(readerOf(k, t.Elem()))
	}
	panic(fmt.Sprintf("key %s: nothing reads a %s", k.name, t))
}

// named is the closed table of readers that declarations name.
func named(name string) reader {
	switch name {
	case "path":
		return scalar(func(v value, _ key) (string, bool) { return v.dir() })
	case "erp_url":
		return scalar(func(v value, _ key) (string, bool) { return v.apiURL() })
	case "erp_version":
		return scalar(func(v value, _ key) (userside.Version, bool) { return v.erpVersion() })
	case "ca_file":
		return scalar(func(v value, _ key) (string, bool) { return v.caFile() })
	case "share":
		return scalar(func(v value, k key) (float64, bool) { return v.share(k.tag("max")) })
	case "access":
		return scalar(func(v value, k key) (provision.State, bool) { return v.access(k.words()) })
	case "states":
		return reader{read: func(_ *decoder, v value, _ key, into reflect.Value) bool { return v.states(into) }}
	case "listen_or_off":
		return scalar(func(v value, k key) (netip.AddrPort, bool) { return v.listenOrOff(k.likeThis()) })
	case "portal_listen":
		return scalar(func(v value, _ key) (netip.AddrPort, bool) { return v.portalListen() })
	case "network":
		return scalar(func(v value, _ key) (netip.Prefix, bool) { return v.network() })
	case "ipv4_network":
		return scalar(func(v value, _ key) (netip.Prefix, bool) { return v.relay() })
	case "interface":
		return scalar(func(v value, _ key) (string, bool) { return v.interfaceName() })
	case "customer":
		return scalar(func(v value, _ key) (int64, bool) { return v.customer() })
	case "name_server":
		r := scalar(func(v value, _ key) (netip.AddrPort, bool) { return v.nameServer() })
		r.verbatim = true
		return r
	case "garden":
		return reader{read: func(d *decoder, v value, _ key, into reflect.Value) bool { return d.garden(v, into) }}
	case "language":
		return scalar(func(v value, _ key) (string, bool) { return v.language() })
	case "short":
		return scalar(func(v value, k key) (string, bool) { return v.shortText(k.whole("max")) })
	case "pay_url":
		return scalar(func(v value, _ key) (string, bool) { return v.payURL() })
	case "dhcp":
		return reader{sections: true, read: func(d *decoder, v value, _ key, into reflect.Value) bool {
			d.dhcp(v, into.Addr().Interface().(*DHCP))
			return true
		}}
	case "secret", "certificate", "portal_url", "template":
		return later()
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
