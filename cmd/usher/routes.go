package main

import (
	"context"
	"fmt"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
)

func routeOptions(c *config.Config, k *link.Routes) route.Options {
	o := route.Options{
		Serves: provision.Patterns(c.Routes.Interfaces).Match, Table: c.Routes.Table, Metric: c.Routes.Metric,
		VerifyInterval: c.Routes.VerifyInterval, DryRun: c.Routes.DryRun,
		Settings: k.Settings, KeepUnknown: time.Hour,
	}
	for _, s := range c.DHCP.Subnets {
		o.KeepUnknown = max(o.KeepUnknown, s.LeaseTime)
	}
	return o
}

// openRoutes makes the keeper of routes, if the configuration wants one.
func (a *agent) openRoutes(cfg *config.Config) error {
	if !cfg.Routes.Enabled {
		return nil
	}
	k, err := link.OpenRoutes(link.RouteOptions{Protocol: cfg.Routes.Protocol})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	a.onClose(k.Close)
	a.routeTable = k
	a.routes = route.New(routeOptions(cfg, k), k, a.leases, a.metrics, a.log)
	a.deps.Routes = a.routes
	return nil
}

// reloadRoutes takes over what a running keeper can.
func (a *agent) reloadRoutes(cfg *config.Config) {
	if a.routes != nil {
		a.routes.Reconfigure(routeOptions(cfg, a.routeTable))
	}
}

func (a *agent) keepRoutes(ctx context.Context) error { return a.routes.Run(ctx) }

// routeRows are the lines of "usher status" about routes.
func routeRows(p paint, r *route.Status, now time.Time) [][]string {
	text := fmt.Sprintf("%d of %d leases have their route", r.Installed, r.Want)
	if r.DryRun {
		text = fmt.Sprintf("dry run: %d leases would have a route", r.Want)
	}
	if r.Waiting > 0 {
		text += fmt.Sprintf(", %d wait for their interface", r.Waiting)
	}
	if r.Unknown > 0 {
		text += fmt.Sprintf(", %d kept without a lease record", r.Unknown)
	}
	rows := [][]string{{"routes", text}}
	for i, f := range r.Findings {
		if i == 3 {
			rows = append(rows, []string{"", fmt.Sprintf("and %d more findings", len(r.Findings)-i)})
			break
		}
		rows = append(rows, []string{"", p.red(f.Interface + ": " + f.Text)})
	}
	if r.LastError != "" {
		rows = append(rows, []string{"", p.red("error " + ago(r.LastErrorAt, now) + ": " + r.LastError)})
	}
	return rows
}
