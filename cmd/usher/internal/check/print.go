package check

import (
	"fmt"
	"io"
	"strings"
)

// The table is at most 100 characters wide.
const (
	whoWidth   = 19
	whichWidth = 51
	noteWidth  = 100 - whoWidth
)

// mostNow is how many names of interfaces the table shows; the JSON has all.
const mostNow = 4

func printBelieved(w io.Writer, sources []Source, notes []string) error {
	var b strings.Builder
	row := func(who, which string, says ...Say) {
		line := fmt.Sprintf("%-*s%-*s", whoWidth, who, whichWidth, which)
		for _, s := range says {
			line += fmt.Sprintf(" %-6s", s)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	b.WriteString("\nWhat is believed from whom. line: it tells the port or the VLAN; wire: it tells the network;\n" +
		"lease: it takes over an address that another client has leased; ERP: the MAC is written there.\n\n")
	row("", "", "line", "wire", "lease", "ERP")
	for _, s := range sources {
		which := s.Which
		if len(s.Now) > 0 {
			which = append(append([]string{}, which...), "now "+some(s.Now))
		}
		lines := wrap(strings.Join(which, ", "), whichWidth-1)
		if len(lines) == 0 {
			lines = []string{"-"}
		}
		row(s.Who, lines[0], s.TellsLine, s.TellsWire, s.TakesLease, s.WritesERP)
		for _, l := range lines[1:] {
			row("", l)
		}
		for _, l := range wrap(s.Note, noteWidth-2) {
			b.WriteString(strings.Repeat(" ", whoWidth+2) + l + "\n")
		}
	}
	for i, n := range notes {
		if i == 0 {
			b.WriteString("\n")
		}
		b.WriteString(n + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// some names the first of them.
func some(names []string) string {
	text := strings.Join(names[:min(mostNow, len(names))], " ")
	if n := len(names) - mostNow; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// wrap breaks a text at blanks into lines of at most width characters; a longer word has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	for _, word := range strings.Fields(text) {
		if n := len(lines); n > 0 && len(lines[n-1])+1+len(word) <= width {
			lines[n-1] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}
