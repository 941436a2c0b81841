package portal

import (
	"slices"
	"strconv"
	"strings"
)

// maxLanguages is how many items of Accept-Language are looked at.
const maxLanguages = 16

// chooseLanguage returns the one of offered that an Accept-Language header (RFC
// 9110 section 12.5.4) wants most, by its primary subtag; the first of offered,
// which must not be empty, for a header that wants none or cannot be read.
func chooseLanguage(header string, offered []string) string {
	best, bestQ := offered[0], 0.0
	for range maxLanguages {
		item, rest, more := strings.Cut(header, ",")
		tag, params, _ := strings.Cut(item, ";")
		tag = strings.ToLower(strings.TrimSpace(tag))
		primary, _, _ := strings.Cut(tag, "-")
		if q := quality(params); q > bestQ {
			if primary == "*" {
				best, bestQ = offered[0], q
			} else if slices.Contains(offered, primary) {
				best, bestQ = primary, q
			}
		}
		if !more {
			break
		}
		header = rest
	}
	return best
}

// quality reads "q=0.5"; 1 where there is none, 0 where it is nonsense.
func quality(params string) float64 {
	text, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(params, " ", "")), "q=")
	if !ok {
		return 1
	}
	q, err := strconv.ParseFloat(text, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
