package userside

import (
	"bytes"
	"slices"
	"strings"
)

// maxPaths bounds a fingerprint.
const maxPaths = 64

// fingerprint collects the key paths and types of a payload, without any value.
// Keys that are data themselves are masked: # for numbers, * for the rest.
type fingerprint struct {
	paths map[string]struct{}
	seen  int
}

func (f *fingerprint) add(prefix string, v value) {
	if f.seen > 1000 || len(f.paths) >= maxPaths {
		return
	}
	f.seen++
	switch v.kind() {
	case kindArray:
		if v.len() == 0 {
			f.put(prefix + "[]")
		}
		for m := range v.all {
			f.add(prefix+"[]", m)
		}
	case kindObject:
		if v.len() == 0 {
			f.put(prefix + "{}")
		}
		for m := range v.all {
			f.add(prefix+"."+maskKey(m.key()), m)
		}
	default:
		f.put(prefix + ":" + v.kind().String())
	}
}

func (f *fingerprint) put(path string) {
	if f.paths == nil {
		f.paths = make(map[string]struct{})
	}
	f.paths[path] = struct{}{}
}

func (f *fingerprint) String() string {
	all := make([]string, 0, len(f.paths))
	for p := range f.paths {
		all = append(all, p)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// maskKey keeps a key that looks like a field name: letters and underscores
// with at most one digit, at most 30 bytes.
func maskKey(key []byte) string {
	if isDecimal(bytes.TrimPrefix(key, []byte("-"))) {
		return "#"
	}
	digits := 0
	for _, c := range key {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c != '_' && (c|0x20 < 'a' || c|0x20 > 'z'):
			return "*"
		}
	}
	if len(key) == 0 || len(key) > 30 || digits > 1 {
		return "*"
	}
	return string(key)
}
