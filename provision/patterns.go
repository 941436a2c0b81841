package provision

import (
	"path"
	"slices"
	"strings"
)

// Patterns mean interfaces by their names: plain ones, or with the wildcards of
// path.Match. The configuration has checked them.
type Patterns []string

// Match reports whether one of the patterns means an interface.
func (p Patterns) Match(name string) bool {
	for _, pattern := range p {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// Among returns the interfaces that the patterns mean, sorted. A plain name is
// among them whether it exists or not.
func (p Patterns) Among(exist []string) []string {
	var out []string
	for _, pattern := range p {
		if !strings.ContainsAny(pattern, `*?[\`) {
			out = append(out, pattern)
			continue
		}
		for _, name := range exist {
			if ok, _ := path.Match(pattern, name); ok {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
