package console

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/provision/garden"
)

// Garden is the part of garden.Resolver that is shown.
type Garden interface{ Status() garden.Status }

// limitedMetrics are about those who may reach little: the portal and the gardens.
type limitedMetrics struct {
	portalRequests map[portal.State]map[int]prometheus.Counter
	portalRefused  map[portal.Refusal]prometheus.Counter
	portalExpires  prometheus.Gauge

	gardenNames     prometheus.Gauge
	gardenFailing   prometheus.Gauge
	gardenAddresses prometheus.Gauge
	gardenLookups   map[garden.Result]prometheus.Counter
	gardenRefused   map[garden.Refusal]prometheus.Counter
	gardenGood      atomic.Int64 // Unix nanoseconds; 0: never
}

// The observers that Metrics is, too.
var (
	_ portal.Observer = (*Metrics)(nil)
	_ garden.Observer = (*Metrics)(nil)
)

func (m *limitedMetrics) registerLimited(f factory) {
	requests := f.counters("usher_portal_requests_total", "Requests at the portal, by the state of who asked and by the status of the answer.", "state", "code")
	m.portalRequests = map[portal.State]map[int]prometheus.Counter{}
	for _, st := range portal.States() {
		m.portalRequests[st] = map[int]prometheus.Counter{}
		for _, code := range portal.Codes() {
			m.portalRequests[st][code] = requests.WithLabelValues(string(st), strconv.Itoa(code))
		}
	}
	m.portalRefused = each(f.counters("usher_portal_connections_refused_total", "Connections to the portal closed unread or before a request was answered, by the bound that they exceeded.", "bound").WithLabelValues, portal.Refusals()...)
	m.portalExpires = f.gauge("usher_portal_certificate_expiry_timestamp_seconds", "When the portal's certificate expires; 0 without one.")

	m.gardenNames = f.gauge("usher_garden_names", "Names in the gardens.")
	m.gardenFailing = f.gauge("usher_garden_names_failing", "Names in the gardens whose newest look-up gave nothing to use.")
	m.gardenAddresses = f.gauge("usher_garden_addresses", "Addresses behind the names in the gardens.")
	m.gardenLookups = each(f.counters("usher_garden_lookups_total", "Look-ups of names in the gardens.", "result").WithLabelValues, garden.Results()...)
	m.gardenRefused = each(f.counters("usher_garden_refused_addresses_total", "Addresses in answers for names in the gardens that are not used.", "reason").WithLabelValues, garden.Refusals()...)
	f.computed("usher_garden_last_success_timestamp_seconds", "When a name in the gardens was last looked up with success; 0: never.", func() float64 {
		if ns := m.gardenGood.Load(); ns != 0 {
			return unixSeconds(time.Unix(0, ns))
		}
		return 0
	})
}

// PortalRequest implements portal.Observer.
func (m *limitedMetrics) PortalRequest(s portal.State, code int) {
	if c, ok := m.portalRequests[s][code]; ok {
		c.Inc()
	}
}

// PortalRefused implements portal.Observer.
func (m *limitedMetrics) PortalRefused(r portal.Refusal) {
	if c, ok := m.portalRefused[r]; ok {
		c.Inc()
	}
}

// PortalCertificate implements portal.Observer.
func (m *limitedMetrics) PortalCertificate(expires time.Time) {
	m.portalExpires.Set(unixSeconds(expires))
}

// GardenLookup implements garden.Observer.
func (m *limitedMetrics) GardenLookup(r garden.Result) {
	if c, ok := m.gardenLookups[r]; ok {
		c.Inc()
	}
	if r == garden.ResultOK {
		m.gardenGood.Store(time.Now().UnixNano())
	}
}

// GardenRefused implements garden.Observer.
func (m *limitedMetrics) GardenRefused(r garden.Refusal) {
	if c, ok := m.gardenRefused[r]; ok {
		c.Inc()
	}
}

// GardenSize implements garden.Observer.
func (m *limitedMetrics) GardenSize(names, failing, addresses int) {
	m.gardenNames.Set(float64(names))
	m.gardenFailing.Set(float64(failing))
	m.gardenAddresses.Set(float64(addresses))
}
