package cli

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes a text that others wrote fit for one line of a terminal: what does
// not print (control characters, escape sequences, line breaks, marks that turn
// the direction of writing, bytes that are no text) is shown as a Go string has it.
func Line(s string) string { return visible(s, "") }

// visible is Line with a few runes that may stay.
func visible(s, stay string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) && !strings.ContainsRune(stay, r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(0x100|uint64(s[i]), 16)[1:])
		case unicode.IsPrint(r), strings.ContainsRune(stay, r):
			b.WriteRune(r)
		case unicode.Is(unicode.Zs, r): // names out of a word processor are full of them
			b.WriteByte(' ')
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += n
	}
	return b.String()
}

// lines is Line for the fields of answers that have several lines by their nature;
// their tag is `terminal:"lines"`. Tabs set them in: such a text may be a file that a
// program reads. Whoever writes one quotes what others wrote.
func lines(s string) string { return visible(s, "\n\t") }

// cell is Line for a cell of a table, which may be coloured by now.
func cell(s string) string {
	if !strings.Contains(s, "\x1b") {
		return Line(s)
	}
	var b strings.Builder
	for s != "" {
		if c := colourAt(s); c != "" {
			b.WriteString(c)
			s = s[len(c):]
			continue
		}
		end := len(s)
		if i := strings.IndexByte(s[1:], '\x1b'); i >= 0 {
			end = i + 1
		}
		b.WriteString(Line(s[:end]))
		s = s[end:]
	}
	return b.String()
}

// Harmless makes every text in v, which is a pointer, fit for a terminal, and
// returns v. It is for what is about to be printed for people; programs get texts as they are.
func Harmless[T any](v *T) *T {
	harmless(reflect.ValueOf(v), false)
	return v
}

func harmless(v reflect.Value, multi bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			harmless(v.Elem(), multi)
		}
	case reflect.Interface:
		if !v.IsNil() && v.CanSet() {
			v.Set(harmlessCopy(v.Elem(), multi))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			harmless(v.Index(i), multi)
		}
	case reflect.Map:
		harmlessMap(v, multi)
	case reflect.Struct:
		harmlessStruct(v, multi)
	case reflect.String:
		if was, is := v.String(), Line(v.String()); was != is && v.CanSet() {
			if multi {
				is = lines(was)
			}
			v.SetString(is)
		}
	}
}

func harmlessCopy(v reflect.Value, multi bool) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	harmless(c, multi)
	return c
}

func harmlessMap(v reflect.Value, multi bool) {
	if v.IsNil() || !v.CanInterface() {
		return
	}
	for it := v.MapRange(); it.Next(); {
		key, value := harmlessCopy(it.Key(), false), harmlessCopy(it.Value(), multi)
		if !key.Equal(it.Key()) {
			v.SetMapIndex(it.Key(), reflect.Value{})
		}
		v.SetMapIndex(key, value)
	}
}

func harmlessStruct(v reflect.Value, multi bool) {
	if !v.CanSet() {
		return
	}
	switch a := v.Addr().Interface().(type) {
	case *netip.Addr: // a zone is any text
		*a = a.WithZone(Line(a.Zone()))
		return
	case *netip.AddrPort:
		*a = netip.AddrPortFrom(a.Addr().WithZone(Line(a.Addr().Zone())), a.Port())
		return
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() {
			harmless(v.Field(i), multi || f.Tag.Get("terminal") == "lines")
		}
	}
}
