package show

import (
	"fmt"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
)

// mostInterfaces is how many names that no interface has are shown; the JSON has all.
const mostInterfaces = 5

// interfaceRows tell of names in the configuration that no interface has now.
func interfaceRows(p cli.Paint, c *console.ConfigStatus) [][]string {
	if c == nil {
		return nil
	}
	var rows [][]string
	for i, w := range c.MissingInterfaces {
		name := "interfaces"
		if i > 0 {
			name = ""
		}
		if i == mostInterfaces {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more names that no interface has", len(c.MissingInterfaces)-i)})
			break
		}
		rows = append(rows, []string{name, p.Red(w)})
	}
	if len(c.Unguarded) > 0 {
		for i, part := range wrap(fmt.Sprintf("no source guard on %s, where subscribers are: a blocked one is online as soon as it takes a free address (acl.source_guard)", listOf(c.Unguarded)), textWidth) {
			rows = append(rows, []string{[...]string{"unguarded", ""}[min(i, 1)], p.Red(part)})
		}
	}
	return rows
}
