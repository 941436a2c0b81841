package agent

import (
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/garden"
)

func gardenOptions(c *config.Config) garden.Options {
	list := func(g config.Garden) garden.List { return garden.List{Prefixes: g.Prefixes, Names: g.Names} }
	return garden.Options{
		Paused: list(c.ACL.Pause.Garden), Guests: list(c.ACL.Guest.Garden), Refuse: c.Prefixes(),
		Interval: c.ACL.ResolveInterval, Keep: c.ACL.ResolveKeep,
	}
}

func portalOptions(c config.Portal) portal.Options {
	return portal.Options{
		Listen:   c.Listen,
		HTTPS:    portal.HTTPS{Listen: c.HTTPS.Listen, URL: c.HTTPS.URL, CertFile: c.HTTPS.CertFile, KeyFile: c.HTTPS.KeyFile},
		Template: c.Template, Languages: c.Languages, Provider: c.Provider, PayURL: c.PayURL, Contact: c.Contact,
	}
}

// openGarden makes the gardens, which are there from the start: with what is
// configured and with what an earlier run has looked up.
func (a *Agent) openGarden(cfg *config.Config) {
	a.garden = garden.New(gardenOptions(cfg), garden.ServerLookup(cfg.ACL.Resolvers), ownAddresses,
		filepath.Join(cfg.StateDir, "garden.json"), a.metrics, a.log)
}

// openPortal makes the portal, if the configuration has one.
func (a *Agent) openPortal(cfg *config.Config) (err error) {
	if a.dryRun {
		return nil
	}
	if cfg.Portal.Listen.IsValid() || cfg.Portal.HTTPS.Listen.IsValid() {
		a.portal, err = portal.New(portalOptions(cfg.Portal), a.visitor, a.metrics, a.log)
	}
	return err
}

// interfaceNames gives the names of this host's interfaces: of the view that is
// kept up to date, or asked of the kernel; what cannot be read is none.
func (a *Agent) interfaceNames() []string {
	if a.links != nil {
		return a.links.View().Names()
	}
	list, err := net.Interfaces()
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, f := range list {
		out = append(out, f.Name)
	}
	return out
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
func (a *Agent) visitor(addr netip.Addr) portal.Visitor {
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
func (a *Agent) preparePortal(cfg *config.Config) (use func(), err error) {
	if a.portal == nil {
		return func() {}, nil
	}
	return a.portal.Prepare(portalOptions(cfg.Portal))
}
