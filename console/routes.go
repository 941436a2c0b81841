package console

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/provision/neighbour"
	"github.com/usher-agent/usher/provision/route"
)

// routeMetrics are those of routes to single leases.
type routeMetrics struct {
	routes   map[string]prometheus.Gauge
	changes  map[string]prometheus.Counter
	drift    map[string]prometheus.Counter
	delay    prometheus.Histogram
	findings map[route.Finding]prometheus.Gauge

	neighbours map[neighbour.Outcome]prometheus.Counter
}

// A route takes some 20 us, and waits for a batch at most.
func routeBuckets() []float64 {
	return []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 1, 10}
}

func (m *Metrics) registerRoutes(f factory) {
	r := &m.routing
	r.routes = each(f.gauges("usher_routes", "Routes to leases, by what they are at.", "state").WithLabelValues, "installed", "waiting")
	r.changes = each(f.counters("usher_route_changes_total", "Changes of routes in the kernel, by what became of them.", "result").WithLabelValues, "added", "removed", resultFailed)
	r.drift = each(f.counters("usher_route_drift_total", "Routes of ours found in the kernel (extra) or gone from it (missing) that nobody of us changed.", "kind").WithLabelValues, "extra", "missing")
	r.delay = f.histogram("usher_route_delay_seconds", "Time from a changed lease, before its ACK leaves, to having its route in the kernel.", routeBuckets())
	r.findings = each(f.gauges("usher_route_interface_findings", "Interfaces with routes whose settings do not go with them, by finding.", "finding").WithLabelValues, route.Findings()...)
	r.neighbours = each(f.counters("usher_neighbours_total", "Confirmed neighbours on interfaces that are watched, by what became of them.", "outcome").WithLabelValues, neighbour.Outcomes()...)
}

// Neighbour counts what became of a confirmed neighbour.
func (m *Metrics) Neighbour(o neighbour.Outcome) { m.routing.neighbours[o].Inc() }

// Routes implements route.Observer.
func (m *Metrics) Routes(rep route.Report) {
	r := &m.routing
	r.routes["installed"].Set(float64(rep.Installed))
	r.routes["waiting"].Set(float64(rep.Waiting))
	r.changes["added"].Add(float64(rep.Added))
	r.changes["removed"].Add(float64(rep.Removed))
	r.changes[resultFailed].Add(float64(rep.Failed))
	r.drift["extra"].Add(float64(rep.Extra))
	r.drift["missing"].Add(float64(rep.Missing))
	for _, d := range rep.Delays {
		r.delay.Observe(d.Seconds())
	}
}

// RouteSettings implements route.Observer.
func (m *Metrics) RouteSettings(findings map[route.Finding]int) {
	for f, g := range m.routing.findings {
		g.Set(float64(findings[f]))
	}
}

// RoutesView is what "usher routes show" tells.
type RoutesView struct {
	Agent    bool                `json:"agent"`              // false: the kernel alone was asked
	Enabled  bool                `json:"enabled"`            // the agent keeps routes
	Protocol uint8               `json:"protocol,omitempty"` // marks the routes that are shown
	Status   *route.Status       `json:"status,omitempty"`
	Counts   map[route.State]int `json:"counts"`
	Routes   []route.Row         `json:"routes"` // sorted by address
}

// Count fills Counts.
func (v *RoutesView) Count() {
	v.Counts = map[route.State]int{}
	for _, r := range v.Routes {
		v.Counts[r.State]++
	}
}

// Equal tells whether the kernel is as wanted: what waits for its interface or is
// kept without a record is in order.
func (v *RoutesView) Equal() bool {
	return v.Counts[route.Missing]+v.Counts[route.Extra] == 0
}

func (c *control) routes(w http.ResponseWriter, r *http.Request) {
	v := RoutesView{Agent: true, Routes: []route.Row{}}
	if c.d.Routes != nil {
		rows, err := c.d.Routes.Rows(r.Context(), c.d.now())
		if err != nil {
			writeError(w, http.StatusInternalServerError, err)
			return
		}
		st := c.d.Routes.Status()
		v.Enabled, v.Protocol, v.Status, v.Routes = true, c.d.RouteProtocol, &st, rows
	}
	v.Count()
	writeJSON(w, http.StatusOK, v)
}
