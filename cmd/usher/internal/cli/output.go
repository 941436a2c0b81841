package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// PrintJSON writes v for programs.
func PrintJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	return WriteJSON(w, b.Bytes())
}

// IsTerminal reports whether w is a terminal that may have colour.
func IsTerminal(w io.Writer) bool {
	_, ok := Terminal(w)
	return ok
}

// Paint colours text for people on a terminal, unless NO_COLOR is set.
type Paint bool

// NewPaint returns the colours of w.
func NewPaint(w io.Writer) Paint {
	return Paint(IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (p Paint) code(c, s string) string {
	if !p {
		return s
	}
	return colour(c) + s + colour(plainCode)
}

// Bold is for what matters most.
func (p Paint) Bold(s string) string { return p.code(boldCode, s) }

// Faint is for what may be overlooked.
func (p Paint) Faint(s string) string { return p.code(faintCode, s) }

// Red is for what is not as it should be.
func (p Paint) Red(s string) string { return p.code(redCode, s) }

// Green is for what is as it should be.
func (p Paint) Green(s string) string { return p.code(greenCode, s) }

// Table writes rows of cells in columns. A cell is one line, whatever is in it.
func Table(w io.Writer, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i := range r {
			cells[i] = cell(r[i])
		}
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// Ago says how long ago t was, or how far ahead it is, for people.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	if d := t.Sub(now).Round(time.Second); d > 0 {
		return "in " + d.String()
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}

// Counts returns what there is of each kind, sorted, on one line: "2 of this, 3 of that".
func Counts[K ~string](m map[K]int) string {
	kinds := make([]string, 0, len(m))
	for k, n := range m {
		if n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, k))
		}
	}
	slices.Sort(kinds)
	return strings.Join(kinds, ", ")
}
