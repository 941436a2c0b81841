package config

import "time"

func (v value) boolean(def bool) bool {
	if b, ok := v.truth(); ok {
		return b
	}
	return def
}

func (v value) integer(def, low, high int) int {
	if n, ok := v.whole(low, high); ok {
		return n
	}
	return def
}

func (v value) number(def, low, high float64) float64 {
	if f, ok := v.real(low, high); ok {
		return f
	}
	return def
}

func (v value) duration(def, low, high time.Duration) time.Duration {
	if x, ok := v.span(low, high); ok {
		return x
	}
	return def
}

func (v value) oneOf(def string, words ...string) string {
	if s, ok := v.word(words); ok {
		return s
	}
	return def
}

func (v value) text(def string) string {
	if s, ok := v.raw("text"); ok {
		return s
	}
	return def
}

func (v value) interfaces() []string {
	var out []string
	v.list(func(e value) {
		if s, ok := e.interfaceName(); ok {
			for _, o := range out {
				if o == s {
					e.problem("%s is in the list twice", s)
					return
				}
			}
			out = append(out, s)
		}
	})
	return out
}
