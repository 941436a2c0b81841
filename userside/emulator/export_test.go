package emulator

import "github.com/usher-agent/usher/userside"

// ActionRow is what the tests of the contract see of a row of the table.
type ActionRow struct {
	Name         string
	Write        bool
	Since, Until userside.Version
	Need         []string
}

// ActionRows returns the table.
func ActionRows() []ActionRow {
	table := actionTable()
	var out []ActionRow
	for _, name := range sortedKeys(table) {
		a := table[name]
		out = append(out, ActionRow{a.name(), a.write, a.since, a.until, a.need})
	}
	return out
}
