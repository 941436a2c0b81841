package provision

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// RouteState says how a route of the kernel and a lease go together. A closed set.
type RouteState string

// The states.
const (
	RouteInstalled RouteState = "installed" // wanted and there
	RouteMissing   RouteState = "missing"   // wanted and not there
	RouteWaiting   RouteState = "waiting"   // wanted, but its interface is down or gone
	RouteExtra     RouteState = "extra"     // there, but no live lease wants it
	RouteUnknown   RouteState = "unknown"   // there, without any lease record: kept for the longest lease time
)

// RouteRow is one route, wanted or in the kernel.
type RouteRow struct {
	Addr      netip.Addr `json:"addr"`
	Interface string     `json:"interface"` // its name; # and the index when the kernel has none
	Table     uint32     `json:"table"`
	Metric    uint32     `json:"metric,omitempty"`
	State     RouteState `json:"state"`
	Expires   time.Time  `json:"expires,omitzero"` // of the lease that wants it
}

// Rows compares all leases with the kernel at this moment and changes nothing. It
// may be called beside Run, and reads both by itself: what Run believes is not asked.
func (k *RouteKeeper) Rows(ctx context.Context, now time.Time) ([]RouteRow, error) {
	k.mu.Lock()
	opts := k.opts
	k.mu.Unlock()
	links, err := k.kernel.Links(ctx)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	routes, err := k.kernel.Routes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routeRows(opts, k.leases, links, routes, now), nil
}

// RouteRows gives what the kernel has, for want of leases to compare it with.
func RouteRows(links []Link, routes []Route) []RouteRow {
	names := linkNames(links)
	rows := make([]RouteRow, 0, len(routes))
	for _, r := range sortedRoutes(routes) {
		rows = append(rows, rowOf(r, names, RouteInstalled))
	}
	return rows
}

func routeRows(opts RouteOptions, leases RouteLeases, links []Link, routes []Route, now time.Time) []RouteRow {
	names, index := linkNames(links), map[string]Link{}
	for _, l := range links {
		index[l.Name] = l
	}
	have := make(map[Route]bool, len(routes))
	for _, r := range routes {
		have[r] = true
	}
	rows := make([]RouteRow, 0, len(routes))
	for l := range leases.Leases() {
		if !opts.wants(l, now) {
			continue
		}
		link := index[l.Interface]
		r := Route{Addr: l.Addr, Ifindex: link.Index, Table: opts.Table, Metric: opts.Metric}
		row := RouteRow{Addr: l.Addr, Interface: l.Interface, Table: opts.Table, Metric: opts.Metric, State: RouteMissing, Expires: l.Expires}
		switch {
		case have[r]:
			row.State = RouteInstalled
			delete(have, r)
		case !link.Up:
			row.State = RouteWaiting
		}
		rows = append(rows, row)
	}
	for r := range have {
		state := RouteExtra
		if _, recorded := leases.Lease(r.Addr); !recorded {
			state = RouteUnknown
		}
		rows = append(rows, rowOf(r, names, state))
	}
	slices.SortFunc(rows, func(a, b RouteRow) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Interface, b.Interface))
	})
	return rows
}

func rowOf(r Route, names map[int]string, state RouteState) RouteRow {
	return RouteRow{Addr: r.Addr, Interface: cmp.Or(names[r.Ifindex], fmt.Sprintf("#%d", r.Ifindex)), Table: r.Table, Metric: r.Metric, State: state}
}

func linkNames(links []Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
	}
	return names
}
