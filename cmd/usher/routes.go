package main

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"path"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/route"
)

// routeLeases shows the lease table as routes need it.
type routeLeases struct{ table *lease.Table }

// Lease implements route.Leases.
func (r routeLeases) Lease(a netip.Addr) (route.Lease, bool) {
	rec, ok := r.table.Get(a)
	return routeLeaseOf(&rec), ok
}

// Leases implements route.Leases.
func (r routeLeases) Leases() iter.Seq[route.Lease] {
	return func(yield func(route.Lease) bool) {
		for rec := range r.table.All() {
			if !yield(routeLeaseOf(&rec)) {
				return
			}
		}
	}
}

// routeLeaseOf has no interface for a client behind a relay: that one routes to it.
func routeLeaseOf(rec *lease.Record) route.Lease {
	l := route.Lease{Addr: rec.IP}
	if !rec.GIAddr.IsValid() {
		l.Interface = rec.Interface
	}
	if rec.State == lease.StateBound {
		l.Expires = rec.Expires
	}
	return l
}

// routeEvents tells the keeper of routes whose lease a packet has changed.
type routeEvents struct{ keeper *route.Keeper }

// Packet implements dhcpd.Observer. Looking at a lease once too often costs
// less than to know which outcomes change one.
func (r routeEvents) Packet(e *dhcpd.Event) {
	if e.YourIP.IsValid() && e.Outcome != v4.OutcomeOffer {
		r.keeper.Touch(e.YourIP, time.Now())
	}
}

// Commit implements dhcpd.Observer.
func (routeEvents) Commit(int, time.Duration, error) {}

func routeOptions(c *config.Config, k *link.Routes) route.Options {
	o := c.Routes.Options
	o.Serves, o.Settings, o.KeepUnknown = matcher(c.Routes.Interfaces), k.Settings, time.Hour
	for _, s := range c.DHCP.Subnets {
		o.KeepUnknown = max(o.KeepUnknown, s.LeaseTime)
	}
	return o
}

// matcher tells names of interfaces by patterns that the configuration has checked.
func matcher(patterns []string) func(string) bool {
	return func(name string) bool {
		for _, p := range patterns {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
		return false
	}
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
	a.routes = route.New(routeOptions(cfg, k), k, routeLeases{a.leases}, a.metrics, a.log)
	a.deps.Routes = a.routes
	return nil
}

// packetObservers are those who see every packet.
func (a *agent) packetObservers(events *dhcpd.EventLog) dhcpd.Observers {
	o := dhcpd.Observers{a.metrics, events, a.sources}
	if a.routes != nil {
		o = append(o, routeEvents{a.routes})
	}
	return o
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
