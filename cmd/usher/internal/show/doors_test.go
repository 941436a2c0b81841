package show

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/console/door"
)

// A status tells of doors that somebody tries too much, and of no others.
func TestDoorRows(t *testing.T) {
	assert.Empty(t, doorRows(false, []door.Status{{Name: "console", Inside: 3, Total: 128}}))
	assert.Equal(t, [][]string{
		{"door", "hooks: 256 of 256 connections, 1844 idle ones closed to make room, 7 refused while it was full, 2 refused beyond those of one address"},
		{"door", "console: 0 of 128 connections, 1 refused from addresses that are not allowed, 4 refused for names that are not in console.hosts"},
		{"door", "portal: 900 of 1000 connections"},
		{"door", "portal: 1 of 1000 connections, 3 busy ones closed to make room"},
	}, doorRows(false, []door.Status{
		{Name: "hooks", Inside: 256, Total: 256, EndedIdle: 1844, Refused: map[door.Refusal]uint64{door.Full: 7, door.PerAddress: 2}},
		{Name: "console", Total: 128, Refused: map[door.Refusal]uint64{door.NotAllowed: 1, door.OtherName: 4}},
		{Name: "portal", Inside: 900, Total: 1000},
		{Name: "portal", Inside: 1, Total: 1000, EndedBusy: 3},
	}))
}
