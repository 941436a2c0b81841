package console

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/console/door"
)

// DoorNames lists the doors: a closed set, for it is a metric label.
func DoorNames() []string { return []string{"console", "control", "hooks", "portal"} }

// WatchDoors makes a scrape look at the doors by calling look.
func (m *Metrics) WatchDoors(look func() []door.Status) { m.doors.Store(&look) }

// doorCollector looks at the scrape. Doors that are not there have zeros.
type doorCollector struct {
	m                                            *Metrics
	inside, limit, refused, endedIdle, endedBusy *prometheus.Desc
}

func newDoorCollector(m *Metrics) *doorCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &doorCollector{
		m:         m,
		inside:    desc("usher_door_connections", "Connections to the agent's own listeners.", "door"),
		limit:     desc("usher_door_connections_limit", "How many there may be at once; 0: the listener is off.", "door"),
		refused:   desc("usher_door_refused_total", "Connections closed before anything was read from them, and requests for names that are not in hosts.", "door", "reason"),
		endedIdle: desc("usher_door_ended_idle_total", "Idle connections closed to make room for another.", "door"),
		endedBusy: desc("usher_door_ended_busy_total", "Busy connections closed to make room for another's.", "door"),
	}
}

// Describe implements prometheus.Collector.
func (c *doorCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.inside, c.limit, c.refused, c.endedIdle, c.endedBusy} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *doorCollector) Collect(ch chan<- prometheus.Metric) {
	seen := map[string]door.Status{}
	if look := c.m.doors.Load(); look != nil {
		for _, st := range (*look)() {
			seen[st.Name] = st
		}
	}
	for _, name := range DoorNames() {
		st := seen[name]
		ch <- prometheus.MustNewConstMetric(c.inside, prometheus.GaugeValue, float64(st.Inside), name)
		ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(st.Total), name)
		ch <- prometheus.MustNewConstMetric(c.endedIdle, prometheus.CounterValue, float64(st.EndedIdle), name)
		ch <- prometheus.MustNewConstMetric(c.endedBusy, prometheus.CounterValue, float64(st.EndedBusy), name)
		for _, why := range door.Refusals() {
			ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(st.Refused[why]), name, string(why))
		}
	}
}
