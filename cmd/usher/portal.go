package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/garden"
)

func gardenOptions(c *config.Config) garden.Options {
	o := c.ACL.Garden
	o.Paused, o.Guests, o.Refuse = c.ACL.Pause.Garden, c.ACL.Guest.Garden, c.Prefixes()
	return o
}

// openGarden makes the gardens, which are there from the start: with what is
// configured and with what an earlier run has looked up.
func (a *agent) openGarden(cfg *config.Config) (err error) {
	a.garden, err = garden.New(gardenOptions(cfg), garden.ServerLookup(cfg.ACL.Resolvers), ownAddresses,
		filepath.Join(cfg.StateDir, "garden.json"), a.metrics, a.log)
	a.sources.garden = a.garden
	return err
}

// openPortal makes the portal, if the configuration has one.
func (a *agent) openPortal(cfg *config.Config) (err error) {
	if a.dryRun {
		return nil
	}
	if cfg.Portal.Listen.IsValid() || cfg.Portal.HTTPS.Listen.IsValid() {
		a.portal, err = portal.New(cfg.Portal, a.visitor, a.metrics, a.log)
	}
	return err
}

// ownAddresses gives the addresses of this host; what cannot be read is none.
func ownAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// visitor says who has an address, by its binding or its lease from a pool, and
// what the kernel does with it: whoever is told that access is back has it.
func (a *agent) visitor(addr netip.Addr) portal.Visitor {
	snap := a.syncer.Current()
	v := portal.Visitor{State: portal.StateUnknown}
	if b := snap.ByIP(addr); b != nil {
		v.Subscriber = b.Subscriber
	} else if rec, ok := a.leases.Get(addr); ok && rec.Live(time.Now()) {
		v.Subscriber = rec.Subscriber
	}
	set, known := a.enforcer.Standing(addr)
	if !known { // the first round is under way
		switch snap.State(v.Subscriber) {
		case provision.StatePause:
			set = access.SetPaused
		case provision.StateStop:
			set = access.SetStopped
		}
	}
	switch {
	case set == access.SetPaused:
		v.State = portal.StatePaused
	case set == access.SetStopped:
		v.State = portal.StateStopped
	case set == access.SetGuests:
		v.State = portal.StateGuest
	case v.Subscriber != 0: // also with a state that nobody knows: it blocks nothing
		v.State = portal.StateActive
	}
	return v
}

// preparePortal does what can fail of a reload; the portal changes with the call
// of use.
func (a *agent) preparePortal(cfg *config.Config) (use func(), err error) {
	if a.portal == nil {
		return func() {}, nil
	}
	return a.portal.Prepare(cfg.Portal)
}

// runPortal may fail without taking DHCP with it: it tries again by itself.
func (a *agent) runPortal(ctx context.Context) error { return a.portal.Run(ctx) }

// gardenRows are the lines of "usher status" about the gardens.
func gardenRows(p paint, st *console.Status) [][]string {
	g := st.Garden
	if g == nil || len(g.Paused)+len(g.Guests)+len(g.Names) == 0 {
		return nil
	}
	addresses, failing := 0, []string{}
	for _, n := range g.Names {
		addresses += len(n.Addresses)
		if n.Error != "" {
			failing = append(failing, n.Name)
		}
	}
	rows := [][]string{{"garden", fmt.Sprintf("%d prefixes for paused, %d for guests; %d names with %d addresses",
		len(g.Paused), len(g.Guests), len(g.Names), addresses)}}
	if len(failing) > 0 {
		rows = append(rows, []string{"", p.red("cannot be looked up: " + strings.Join(failing, ", "))})
	}
	return rows
}
