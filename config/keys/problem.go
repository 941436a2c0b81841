package keys

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake of the file, or one thing an operator should know.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`          // from 1
	Column int    `json:"column"`        // from 1
	Key    string `json:"key,omitempty"` // dotted path such as dhcp.subnets[1].gateway; empty for syntax errors
	Reason string `json:"reason"`        // what is wrong and what would be right; never a secret

	// Paste are lines of YAML that would be right in the section of Key.
	Paste []string `json:"paste,omitempty"`

	// Unanswered marks a warning about what only the operator can answer: a file without the answer is
	// taken as it always was, and a new one should have it.
	Unanswered bool `json:"unanswered,omitempty"`
}

// String returns file:line:column: key: reason.
func (p Problem) String() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Reason)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Key, p.Reason)
}

// Errors is everything that is wrong with a file, sorted by place.
type Errors struct {
	Problems []Problem
}

// Error returns one problem per line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func sortProblems(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// nearest returns the word of known that a slip of the fingers turns into got;
// empty when none is near.
func nearest(got string, known []string) string {
	best, bestDistance := "", 3
	for _, k := range known {
		if d := editDistance(got, k); d < bestDistance && d < len(k) {
			best, bestDistance = k, d
		}
	}
	if best != "" {
		return best
	}
	// A forgotten or invented qualifier: "group_name" for "group", "interval"
	// for "poll_interval".
	for _, k := range known {
		if len(got) >= 4 && len(k) >= 4 && (strings.Contains(k, got) || strings.Contains(got, k)) {
			return k
		}
	}
	return ""
}

// editDistance is Levenshtein's distance with a swap of neighbours as one step.
func editDistance(a, b string) int {
	var prev2 []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, row
	}
	return prev[len(b)]
}
