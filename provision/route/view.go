package route

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// State says how a route of the kernel and a lease go together. A closed set.
type State string

// The states.
const (
	Installed State = "installed" // wanted and there
	Missing   State = "missing"   // wanted and not there
	Waiting   State = "waiting"   // wanted, but its interface is down or gone
	Extra     State = "extra"     // there, but no live lease wants it
	Unknown   State = "unknown"   // there, without any lease record: kept for the longest lease time
)

// Row is one route, wanted or in the kernel.
type Row struct {
	Addr      netip.Addr `json:"addr"`
	Bits      int        `json:"bits,omitempty"` // of a customer's subnet
	Via       netip.Addr `json:"via,omitzero"`   // its customer's leased address
	Interface string     `json:"interface"`      // its name; # and the index when the kernel has none
	Table     uint32     `json:"table"`
	Metric    uint32     `json:"metric,omitempty"`
	State     State      `json:"state"`
	Expires   time.Time  `json:"expires,omitzero"` // of the lease that wants it
}

// Rows compares all leases with the kernel at this moment and changes nothing. It
// may be called beside Run, and reads both by itself: what Run believes is not asked.
func (k *Keeper) Rows(ctx context.Context, now time.Time) ([]Row, error) {
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

// Rows returns what the kernel has, for want of leases to compare it with.
func Rows(links []Link, routes []Route) []Row {
	names := linkNames(links)
	rows := make([]Row, 0, len(routes))
	for _, r := range sortedRoutes(routes) {
		rows = append(rows, rowOf(r, names, Installed))
	}
	return rows
}

func routeRows(opts Options, leases Leases, links []Link, routes []Route, now time.Time) []Row {
	names, index := linkNames(links), map[string]Link{}
	for _, l := range links {
		index[l.Name] = l
	}
	have := make(map[Route]bool, len(routes))
	for _, r := range routes {
		have[r] = true
	}
	rows := make([]Row, 0, len(routes))
	for rec := range leases.All() {
		d := destinationOf(&rec)
		if !opts.wants(d, now) {
			continue
		}
		link := index[d.iface]
		for _, r := range opts.appendRoutes(nil, &rec, link.Index, nil) {
			row := Row{Addr: r.Addr, Bits: r.Bits, Via: r.Via, Interface: d.iface, Table: opts.Table, Metric: opts.Metric, State: Missing, Expires: d.expires}
			switch {
			case have[r]:
				row.State = Installed
				delete(have, r)
			case !link.Up:
				row.State = Waiting
			}
			rows = append(rows, row)
		}
	}
	for r := range have {
		state := Extra
		if _, recorded := leases.Get(r.of()); !recorded {
			state = Unknown
		}
		rows = append(rows, rowOf(r, names, state))
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Bits, b.Bits), a.Via.Compare(b.Via), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Interface, b.Interface))
	})
	return rows
}

func rowOf(r Route, names map[int]string, state State) Row {
	return Row{Addr: r.Addr, Bits: r.Bits, Via: r.Via, Interface: cmp.Or(names[r.Ifindex], fmt.Sprintf("#%d", r.Ifindex)), Table: r.Table, Metric: r.Metric, State: state}
}

func linkNames(links []Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Index] = l.Name
	}
	return names
}
