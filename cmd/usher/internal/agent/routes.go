package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
)

func (a *Agent) routeOptions(c *config.Config, k *link.Routes) route.Options {
	o := c.Routes.Options
	o.Serves, o.Settings, o.KeepUnknown = provision.Patterns(c.Routes.Interfaces).Match, k.Settings, time.Hour
	for _, s := range c.DHCP.Subnets {
		o.KeepUnknown = max(o.KeepUnknown, s.LeaseTime)
	}
	o.SubnetsOf = func(rec lease.Record) ([]provision.Subnet, bool) {
		snap := a.syncer.Current()
		id := rec.Subscriber
		if l := snap.ByIP(rec.IP); l != nil {
			id = l.Subscriber
		} else if rec.Pool == "" {
			return nil, snap != nil // of a binding that is no more
		}
		return behind(snap, snap.SubnetsOf(id)), snap != nil
	}
	return o
}

// behind returns the subnets that lie behind their customer's router. Those on the wire of a gateway have a route there.
func behind(snap *provision.Snapshot, list []provision.Subnet) []provision.Subnet {
	if !slices.ContainsFunc(list, snap.OnLink) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), snap.OnLink)
}

// followSubnets has the routes of customers' subnets looked at when a new snapshot has others, or has their customers' addresses elsewhere.
func (a *Agent) followSubnets(ctx context.Context) error {
	updates := a.syncer.Updates()
	var last *provision.Snapshot
	for {
		now := a.syncer.Current()
		some := len(now.CustomerSubnets())+len(last.CustomerSubnets()) > 0
		if some && (last == nil || !now.SameLines(last) || !now.SameSubnets(last)) {
			a.routes.Recheck()
		}
		last = now
		select {
		case <-ctx.Done():
			return nil
		case <-updates:
		}
	}
}

// openRoutes makes the keeper of routes, if the configuration wants one.
func (a *Agent) openRoutes(cfg *config.Config) error {
	if !cfg.Routes.Enabled {
		return nil
	}
	k, err := link.OpenRoutes(link.RouteOptions{Protocol: cfg.Routes.Protocol})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	a.teardown.push("routes", k.Close)
	a.routeTable = k
	a.routes = route.New(a.routeOptions(cfg, k), k, a.leases, a.metrics, a.log)
	return nil
}

// reloadRoutes takes over what a running keeper can.
func (a *Agent) reloadRoutes(cfg *config.Config) {
	if a.routes != nil {
		a.routes.Reconfigure(a.routeOptions(cfg, a.routeTable))
	}
}
