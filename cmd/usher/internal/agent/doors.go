package agent

import (
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/console/portal"
)

// How many connections each door wants: in total, and of one address. The ERP is one
// address, and an import of its billing many hints at once.
const (
	consoleTotal, consolePerAddress = 128, 32
	hooksTotal, hooksPerAddress     = 256, 128
	controlTotal                    = 64
)

// doors are the bounds of the agent's own listeners.
type doors struct{ console, hooks, portal, control *door.Door }

// openDoors gives each listener that is on its share of the descriptors, so that all
// together leave enough for the ERP, the disk and DHCP. It is called when the parts are made.
func (a *Agent) openDoors(descriptors uint64) {
	where := a.cfg.Load().Console.Listen
	n := door.Shares(descriptors, wanted(where.IsValid(), consoleTotal), wanted(a.hooks != nil, hooksTotal), wanted(a.portal != nil, portal.Connections), controlTotal)
	var shown []*door.Door
	if where.IsValid() {
		a.doors.console = door.New(door.Options{
			Name: "console", Total: n[0], PerAddress: min(n[0], consolePerAddress), Networks: true, Users: true, Hosts: a.hosts("console.hosts", func(c *config.Config) []string { return c.Console.Hosts }),
			Allow: func(from netip.Addr) bool {
				list := a.cfg.Load().Console.Allow
				return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(from) })
			},
		})
		shown = append(shown, a.doors.console)
	}
	a.doors.control = door.New(door.Options{Name: "control", Total: n[3], Timeouts: console.ControlTimeouts})
	shown = append(shown, a.doors.control)
	if a.hooks != nil {
		a.doors.hooks = door.New(door.Options{
			Name: "hooks", Total: n[1], PerAddress: min(n[1], hooksPerAddress), Networks: true, Users: true, Hosts: a.hosts("hooks.hosts", func(c *config.Config) []string { return c.Hooks.Hosts }),
			Allow: a.hooks.Allows, Refused: a.hooks.Refused, Timeouts: console.HookTimeouts,
		})
		shown = append(shown, a.doors.hooks)
	}
	if a.portal != nil {
		a.doors.portal = door.New(door.Options{Name: "portal", Total: n[2]})
		a.portal.Through(a.doors.portal)
		shown = append(shown, a.doors.portal)
	}
	a.lookAtDoors = func() []door.Status {
		out := make([]door.Status, len(shown))
		for i, d := range shown {
			out[i] = d.Status()
		}
		return out
	}
	a.metrics.WatchDoors(a.lookAtDoors)
}

// wanted returns how many connections a listener wants: none if it is off.
func wanted(on bool, n int) int {
	if on {
		return n
	}
	return 0
}

// hosts returns the names of a listener, as configured now.
func (a *Agent) hosts(key string, of func(*config.Config) []string) func() door.Hosts {
	return func() door.Hosts { return door.Hosts{Key: key, Names: of(a.cfg.Load())} }
}
