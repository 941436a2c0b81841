package show

import (
	"fmt"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console/door"
)

// doorRows tell of the agent's own listeners that somebody tries to use up, or may not use.
func doorRows(p cli.Paint, doors []door.Status) [][]string {
	var rows [][]string
	for _, d := range doors {
		text := fmt.Sprintf("%s: %d of %d connections", d.Name, d.Inside, d.Total)
		many := d.Total > 0 && d.Inside > d.Total*4/5
		if d.EndedIdle > 0 {
			text += fmt.Sprintf(", %d idle ones closed to make room", d.EndedIdle)
		}
		if d.EndedBusy > 0 {
			text += fmt.Sprintf(", %d busy ones closed to make room", d.EndedBusy)
		}
		for _, why := range []struct {
			refusal door.Refusal
			text    string
		}{{door.Full, "while it was full"}, {door.PerAddress, "beyond those of one address"}, {door.NotAllowed, "from addresses that are not allowed"}, {door.OtherName, "for names that are not in " + d.Name + ".hosts"}} {
			if n := d.Refused[why.refusal]; n > 0 {
				text += fmt.Sprintf(", %d refused %s", n, why.text)
			}
		}
		if many || d.Refused[door.Full] > 0 {
			text = p.Red(text)
		}
		if many || d.EndedIdle+d.EndedBusy > 0 || len(d.Refused) > 0 {
			rows = append(rows, []string{"door", text})
		}
	}
	return rows
}
