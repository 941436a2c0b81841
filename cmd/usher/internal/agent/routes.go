package agent

import (
	"fmt"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
)

func routeOptions(c *config.Config, k *link.Routes) route.Options {
	o := c.Routes.Options
	o.Serves, o.Settings, o.KeepUnknown = provision.Patterns(c.Routes.Interfaces).Match, k.Settings, time.Hour
	for _, s := range c.DHCP.Subnets {
		o.KeepUnknown = max(o.KeepUnknown, s.LeaseTime)
	}
	return o
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
	a.routes = route.New(routeOptions(cfg, k), k, a.leases, a.metrics, a.log)
	return nil
}

// reloadRoutes takes over what a running keeper can.
func (a *Agent) reloadRoutes(cfg *config.Config) {
	if a.routes != nil {
		a.routes.Reconfigure(routeOptions(cfg, a.routeTable))
	}
}
