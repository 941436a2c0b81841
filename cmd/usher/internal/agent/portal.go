package agent

import (
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/link"
)

// gardenOptions returns those of the gardens; current is the snapshot in use, nil if there is none yet.
func gardenOptions(c *config.Config, current func() *provision.Snapshot) garden.Options {
	o := c.ACL.Garden
	o.Bound = func() func(netip.Addr) bool {
		snap := current()
		if snap == nil {
			return nil
		}
		return snap.Taken
	}
	o.Paused, o.Guests, o.Refuse = c.ACL.Pause.Garden, c.ACL.Guest.Garden, slices.Concat(c.Prefixes(), c.ACL.Networks)
	return o
}

// openGarden makes the gardens, which are there from the start: with what is
// configured and with what an earlier run has looked up.
func (a *Agent) openGarden(cfg *config.Config) (err error) {
	a.garden, err = garden.New(gardenOptions(cfg, a.syncer.Current), garden.ServerLookup(cfg.ACL.Resolvers), ownAddresses,
		filepath.Join(cfg.StateDir, "garden.json"), a.metrics, a.log)
	return err
}

// openPortal makes the portal, if the configuration has one.
func (a *Agent) openPortal(cfg *config.Config) (err error) {
	if a.dryRun {
		return nil
	}
	if cfg.Portal.Listen.IsValid() || cfg.Portal.HTTPS.Listen.IsValid() {
		who := portal.Directory{Snapshot: a.syncer.Current, Leases: a.leases, Standing: a.enforcer.Standing}
		if wires, err := link.OpenWires(0); err != nil {
			a.log.Warn("MACs of the portal's visitors cannot be looked up; its bounds are kept by address", "error", err)
		} else {
			a.teardown.push("wires", wires.Close)
			who.Wire = wires.Wire
		}
		if a.portal, err = portal.New(cfg.Portal, who.Visitor, a.metrics, a.log); err != nil {
			return err
		}
		a.portal.Shared(who.Share)
		if a.table != nil && cfg.Portal.Listen.IsValid() {
			a.portal.Led(a.table)
		}
	}
	return nil
}

// preparePortal does what can fail of a reload; the portal changes with the call
// of use.
func (a *Agent) preparePortal(cfg *config.Config) (use func(), err error) {
	if a.portal == nil {
		return func() {}, nil
	}
	return a.portal.Prepare(cfg.Portal)
}
