package console

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Words of labels that no other package owns.
const (
	resultOK     = "ok"
	resultFailed = "failed"
	labelOther   = "other"
)

// messageTypes is one more than the highest message type with a name of its
// own; all above share the last column.
const messageTypes = int(wire.Inform) + 2

// Metrics are the agent's metrics. It is every package's observer: dhcpd,
// provision, outbox and userside. docs/metrics.md describes each of them. All
// label values come from closed sets and exist from the start.
type Metrics struct {
	started time.Time

	// The packet path does one array look-up and two atomic additions.
	packets        [messageTypes][]prometheus.Counter
	packetDuration prometheus.Histogram
	strays         []prometheus.Counter // by v4.Stray; none for StrayNone
	otherNetworks  prometheus.Counter
	commits        map[string]prometheus.Counter
	commitRecords  prometheus.Counter
	commitDuration prometheus.Histogram
	leases         atomic.Pointer[leaseSource]
	pools          atomic.Pointer[poolSource]
	state          atomic.Pointer[stateSource]
	sockets        atomic.Pointer[func() SocketCounts]
	senders        atomic.Pointer[func() senders.Status]
	doors          atomic.Pointer[func() []door.Status]
	erpSources     atomic.Pointer[func() []syncer.SourceStatus]

	fetchedAt     atomic.Int64 // of the snapshot in use, Unix nanoseconds; 0: none
	sources       map[provision.Source]prometheus.Gauge
	bindings      prometheus.Gauge
	withoutMAC    prometheus.Gauge
	withoutPort   prometheus.Gauge
	contested     prometheus.Gauge
	seats         prometheus.Gauge
	bound         prometheus.Gauge
	devices       prometheus.Gauge
	subscribers   map[provision.State]prometheus.Gauge
	publications  prometheus.Counter
	problems      map[provision.ProblemKind]prometheus.Gauge
	statesAt      atomic.Int64 // of the states in use, Unix nanoseconds; 0: none
	statesKept    atomic.Bool  // the newest whole fetch did not read them
	fetches       map[syncer.FetchKind]map[syncer.FetchOutcome]prometheus.Counter
	fetchDuration map[syncer.FetchKind]map[syncer.FetchOutcome]prometheus.Observer
	hints         map[HookOutcome]prometheus.Counter
	hintDuration  prometheus.Histogram
	held          prometheus.Gauge
	heldHarm      map[syncer.ChangeKind]prometheus.Gauge
	unconfirmed   prometheus.Counter
	stores        map[string]prometheus.Counter
	storeDuration prometheus.Histogram

	elements       map[access.Set]prometheus.Gauge
	subnetElements *prometheus.GaugeVec
	batches        map[string]prometheus.Counter
	changes        prometheus.Counter
	batchDuration  prometheus.Histogram
	readBacks      prometheus.Counter
	drift          map[string]prometheus.Counter
	tableRepairs   prometheus.Counter
	maintenance    prometheus.Gauge
	withheld       map[access.Spared]prometheus.Gauge
	refused        prometheus.Gauge
	flows          prometheus.Counter
	cleanups       map[string]prometheus.Counter
	openUntil      atomic.Pointer[func() time.Time] // of the maintenance
	passed         atomic.Pointer[passedSource]
	unheard        atomic.Pointer[func() int]

	routing routeMetrics

	overruled     prometheus.Gauge
	outboxDepth   prometheus.Gauge
	outboxResults map[outbox.Result]prometheus.Counter

	auditRecords map[audit.Outcome]prometheus.Counter
	auditFailed  prometheus.Counter

	limitedMetrics

	budget       atomic.Pointer[func() userside.Budget]
	pending      atomic.Pointer[func() []userside.Pending]
	calls        map[string]map[userside.Outcome]prometheus.Counter
	callDuration map[string]prometheus.Observer

	reloads    map[string]prometheus.Counter
	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge
	configHash prometheus.Gauge
	buildInfo  *prometheus.GaugeVec
}

// The observers that Metrics is.
var (
	_ dhcpd.Observer    = (*Metrics)(nil)
	_ syncer.Observer   = (*Metrics)(nil)
	_ access.Observer   = (*Metrics)(nil)
	_ outbox.Observer   = (*Metrics)(nil)
	_ audit.Observer    = (*Metrics)(nil)
	_ route.Observer    = (*Metrics)(nil)
	_ userside.Observer = (*Metrics)(nil)
)

// NewRegistry makes a registry with the collectors of the Go runtime and of the
// process, ready for NewMetrics.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// Buckets in seconds. A decision takes microseconds, a commit to disk up to the
// bound of 100 ms, a batch of 100,000 elements some 200 ms, a whole fetch minutes.
func packetBuckets() []float64 {
	return []float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 1}
}

func commitBuckets() []float64 {
	return []float64{100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1}
}

func batchBuckets() []float64 {
	return []float64{100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 100e-3, 250e-3, 1, 5}
}

func fetchBuckets() []float64 {
	return []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
}

func hintBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

func callBuckets() []float64 {
	return []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

// factory makes and registers metrics.
type factory struct{ reg prometheus.Registerer }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.reg.MustRegister(c)
	return c
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.reg.MustRegister(v)
	return v
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	f.reg.MustRegister(g)
	return g
}

func (f factory) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	f.reg.MustRegister(v)
	return v
}

func (f factory) computed(name, help string, get func() float64) {
	f.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get))
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	f.reg.MustRegister(h)
	return h
}

func (f factory) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	f.reg.MustRegister(v)
	return v
}

// each makes the series of a closed set of label values.
func each[K ~string, M any](with func(...string) M, values ...K) map[K]M {
	m := make(map[K]M, len(values))
	for _, v := range values {
		m[v] = with(string(v))
	}
	return m
}

// problemKinds, sources and fetchOutcomes are the closed sets of provision.
func problemKinds() []provision.ProblemKind {
	return []provision.ProblemKind{
		provision.ProblemBadRow, provision.ProblemNoAddress, provision.ProblemDuplicateIP, provision.ProblemDuplicateMAC,
		provision.ProblemPortConflict, provision.ProblemOutsideSubnets, provision.ProblemReservedAddress,
		provision.ProblemUnknownDevice, provision.ProblemDuplicateDevice, provision.ProblemUnknownSubscriber,
		provision.ProblemUnknownState, provision.ProblemBadSubnet, provision.ProblemSubnetConflict,
	}
}

func sources() []provision.Source {
	return []provision.Source{provision.SourceDirect, provision.SourceComposed, provision.SourceStored}
}

func fetchOutcomes() []syncer.FetchOutcome {
	return []syncer.FetchOutcome{syncer.FetchPublished, syncer.FetchHeld, syncer.FetchFailed}
}

func fetchKinds() []syncer.FetchKind {
	return []syncer.FetchKind{syncer.FetchFull, syncer.FetchStates, syncer.FetchCustomers}
}

func states() []provision.State {
	return []provision.State{provision.StateUnknown, provision.StateStop, provision.StatePause, provision.StateActive}
}

// NewMetrics makes all metrics and registers them with reg, which must not have
// them yet.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{started: time.Now()}
	f := factory{reg}
	m.registerDHCP(f)
	m.registerSync(f)
	m.registerEnforce(f)
	m.registerLimited(f)
	m.registerRoutes(f)
	m.registerRest(f)
	return m
}

func (m *Metrics) registerDHCP(f factory) {
	packets := f.counters("usher_dhcp_packets_total", "DHCP packets received, by message type and by what became of them.", "type", "outcome")
	for t := range m.packets {
		label := labelOther
		if t < messageTypes-1 {
			label = wire.MessageType(t).Label()
		}
		outcomes := outcome.All()
		m.packets[t] = make([]prometheus.Counter, len(outcomes)+1)
		for _, o := range outcomes {
			m.packets[t][o] = packets.WithLabelValues(label, o.String())
		}
	}
	strays := f.counters("usher_dhcp_mac_fallback_total", "ACKs of an address that was found by MAC, client identifier or lease alone, by why that may be the wrong place.", "line")
	m.strays = make([]prometheus.Counter, v4.Strays())
	for s := v4.StrayNone + 1; s < v4.Strays(); s++ {
		m.strays[s] = strays.WithLabelValues(s.String())
	}
	m.otherNetworks = f.counter("usher_dhcp_other_network_total", "ACKs, to clients on their lines, of an address of another network than that of their relay or interface.")
	m.packetDuration = f.histogram("usher_dhcp_packet_duration_seconds", "Time from reading a packet to having decided on it and sent its answer.", packetBuckets())
	m.commits = each(f.counters("usher_dhcp_commits_total", "Group commits of changed leases and MAC reports to disk.", "result").WithLabelValues, resultOK, resultFailed)
	m.commitRecords = f.counter("usher_dhcp_commit_records_total", "Records in group commits that succeeded.")
	m.commitDuration = f.histogram("usher_dhcp_commit_duration_seconds", "Duration of group commits.", commitBuckets())
	f.reg.MustRegister(&leaseCollector{m: m, desc: prometheus.NewDesc("usher_dhcp_leases", "Lease records, by what they are at.", []string{"state"}, nil)})
	m.overruled = f.gauge("usher_dhcp_leases_overruled", "Live leases for whose addresses somebody wrote another MAC into the ERP since, by the last whole fetch.")
	f.reg.MustRegister(newPoolCollector(m))
	f.reg.MustRegister(newSocketCollector(m))
	f.reg.MustRegister(newDoorCollector(m))
	f.reg.MustRegister(newSenderCollector(m))
}

func (m *Metrics) registerSync(f factory) {
	f.computed("usher_snapshot_age_seconds", "Age of the snapshot in use; before the first one, time since the start.", m.snapshotAge)
	f.computed("usher_snapshot_fetched_timestamp_seconds", "When the fetch of the snapshot in use began; 0 before the first one.", m.snapshotTime)
	m.sources = each(f.gauges("usher_snapshot_source", "1 for the source of the snapshot in use, 0 for the others.", "source").WithLabelValues, sources()...)
	m.bindings = f.gauge("usher_snapshot_bindings", "Bindings in use.")
	m.withoutMAC = f.gauge("usher_snapshot_bindings_without_mac", "Bindings whose MAC the ERP does not know.")
	m.withoutPort = f.gauge("usher_snapshot_bindings_without_port", "Bindings that name no switch port.")
	m.contested = f.gauge("usher_snapshot_contested_rows", "Rows left out because another subscriber has the address.")
	m.seats = f.gauge("usher_snapshot_seats", "Rows of customers without an address whom pools for subscribers may give one; 0 if there are no such pools.")
	m.bound = f.gauge("usher_snapshot_bound_subscribers", "Subscribers that have a binding.")
	m.devices = f.gauge("usher_snapshot_devices", "Switches and OLTs known.")
	subscribers := f.gauges("usher_subscribers", "Subscribers that the ERP lists, by state.", "state")
	m.subscribers = map[provision.State]prometheus.Gauge{}
	for _, st := range states() {
		m.subscribers[st] = subscribers.WithLabelValues(st.String())
	}
	m.publications = f.counter("usher_snapshot_publications_total", "Snapshots that came into use: fetched, stored, accepted or changed by an override.")
	m.problems = each(f.gauges("usher_problems", "Defects of the ERP's data in the newest snapshot that was fetched, by kind.", "kind").WithLabelValues, problemKinds()...)
	fetches := f.counters("usher_fetches_total", "Fetches from the ERP, by how much they read and by what became of them.", "kind", "outcome")
	durations := f.histograms("usher_fetch_duration_seconds", "Duration of fetches from the ERP.", fetchBuckets(), "kind", "outcome")
	m.fetches = map[syncer.FetchKind]map[syncer.FetchOutcome]prometheus.Counter{}
	m.fetchDuration = map[syncer.FetchKind]map[syncer.FetchOutcome]prometheus.Observer{}
	for _, kind := range fetchKinds() {
		m.fetches[kind] = each(func(v ...string) prometheus.Counter { return fetches.WithLabelValues(string(kind), v[0]) }, fetchOutcomes()...)
		m.fetchDuration[kind] = each(func(v ...string) prometheus.Observer { return durations.WithLabelValues(string(kind), v[0]) }, fetchOutcomes()...)
	}
	f.reg.MustRegister(newSourceCollector(m))
	f.computed("usher_states_age_seconds", "Age of the states in use; before the first ones, time since the start.", m.statesAge)
	m.hints = each(f.counters("usher_hints_total", "Requests at the hint endpoint, by what became of them.", "outcome").WithLabelValues, HookOutcomes()...)
	m.hintDuration = f.histogram("usher_hint_duration_seconds", "Time from a hint to having its customer's state in the snapshot.", hintBuckets())
	m.held = f.gauge("usher_guard_held", "1 while the guard holds changes of a fetch.")
	m.heldHarm = each(f.gauges("usher_guard_held_subscribers", "Subscribers whose change the guard holds, by what it is.", "harm").WithLabelValues, syncer.ChangeKinds()...)
	m.unconfirmed = f.counter("usher_guard_unconfirmed_openings_total", "Customers who were let in above the limit though none of their cards could be read.")
	m.stores = each(f.counters("usher_snapshot_stores_total", "Attempts to store the snapshot on disk.", "result").WithLabelValues, resultOK, resultFailed)
	m.storeDuration = f.histogram("usher_snapshot_store_duration_seconds", "Duration of storing the snapshot on disk.", fetchBuckets())
}

func (m *Metrics) registerEnforce(f factory) {
	elements := f.gauges("usher_acl_elements", "Elements of the kernel's sets.", "set")
	m.elements = map[access.Set]prometheus.Gauge{}
	m.subnetElements = elements
	for set := range access.Sets() {
		if set.Optional() {
			continue // while it has elements
		}
		m.elements[set] = elements.WithLabelValues(set.String())
	}
	m.batches = each(f.counters("usher_acl_batches_total", "Commits to the kernel.", "result").WithLabelValues, resultOK, resultFailed)
	m.changes = f.counter("usher_acl_changes_total", "Element changes in commits that succeeded.")
	m.batchDuration = f.histogram("usher_acl_batch_duration_seconds", "Duration of commits to the kernel.", batchBuckets())
	m.readBacks = f.counter("usher_acl_read_backs_total", "Comparisons of the kernel's sets with what was written.")
	m.drift = each(f.counters("usher_acl_drift_elements_total", "Elements found in the kernel (extra) or gone from it (missing) that nobody of us changed.", "kind").WithLabelValues, "extra", "missing")
	m.tableRepairs = f.counter("usher_acl_table_repairs_total", "Replacements of the kernel's table, because its rules or sets were not as written.")
	m.maintenance = f.gauge("usher_acl_maintenance", "1 while everybody is let through for a time; known to the nearest few seconds.")
	withheld := f.gauges("usher_acl_withheld_addresses", "Addresses that are not blocked though their customers are, by the reason.", "why")
	m.withheld = map[access.Spared]prometheus.Gauge{}
	for _, why := range access.AllSpared() {
		m.withheld[why] = withheld.WithLabelValues(string(why))
	}
	m.refused = f.gauge("usher_acl_refused_elements", "Elements that the kernel refuses to take or to let go; all others hold.")
	f.computed("usher_acl_open_seconds", "What is left of the maintenance in which everybody passes; 0: there is none.", m.openSeconds)
	f.computed("usher_acl_unheard_leases", "Leases of the blocked whose IPv6 passes, for no ARP came from their MACs yet.", m.unheardLeases)
	f.reg.MustRegister(newPassedCollector(m))
	m.flows = f.counter("usher_acl_flows_forgotten_total", "Connection tracking entries deleted for newly blocked addresses.")
	m.cleanups = each(f.counters("usher_acl_flow_cleanups_total", "Passes over the connection tracking table.", "result").WithLabelValues, resultOK, resultFailed)
}

func (m *Metrics) registerRest(f factory) {
	f.reg.MustRegister(newStateCollector(m))
	m.outboxDepth = f.gauge("usher_outbox_depth", "MAC reports that wait for the ERP.")
	m.outboxResults = each(f.counters("usher_outbox_results_total", "What became of attempts to deliver MAC reports.", "result").WithLabelValues,
		outbox.ResultSent, outbox.ResultRefused, outbox.ResultFailed, outbox.ResultSettled, outbox.ResultDamped, outbox.ResultOverruled, outbox.ResultForeign)
	m.auditRecords = each(f.counters("usher_audit_records_total", "Audit records, by what became of them.", "result").WithLabelValues, audit.Outcomes()...)
	m.auditFailed = f.counter("usher_audit_write_failures_total", "Attempts to write audit records that failed; the records wait and are tried again.")

	calls := f.counters("usher_erp_calls_total", "Requests to the ERP, retries included, by how they ended.", "action", "outcome")
	duration := f.histograms("usher_erp_call_duration_seconds", "Duration of requests to the ERP with their answers.", callBuckets(), "action")
	m.calls = map[string]map[userside.Outcome]prometheus.Counter{}
	m.callDuration = map[string]prometheus.Observer{}
	labels := []string{labelOther}
	for _, a := range userside.Actions() {
		if a.Agent {
			labels = append(labels, a.Label())
		}
	}
	for _, label := range labels {
		m.calls[label] = each(func(v ...string) prometheus.Counter { return calls.WithLabelValues(label, v[0]) }, userside.Outcomes()...)
		m.callDuration[label] = duration.WithLabelValues(label)
	}

	f.computed("usher_erp_budget_requests_per_minute", "Limit of requests to the ERP; 0: none.", func() float64 { return float64(m.erpBudget().PerMinute) })
	f.computed("usher_erp_requests_last_minute", "Requests to the ERP within the last 60 seconds, retries included.", func() float64 { return float64(m.erpBudget().LastMinute) })
	f.computed("usher_erp_budget_waited_seconds", "Time that requests have waited for the limit, since the configuration was loaded.", func() float64 { return m.erpBudget().Waited.Seconds() })
	f.computed("usher_erp_oldest_call_seconds", "Time since the oldest call was made that the ERP has not answered yet, its retries included; 0: there is none.", m.oldestCall)

	m.reloads = each(f.counters("usher_config_loads_total", "Loads of the configuration: the start and each reload.", "result").WithLabelValues, resultOK, resultFailed)
	m.reloadOK = f.gauge("usher_config_last_load_successful", "1 if the newest load of the configuration succeeded.")
	m.reloadTime = f.gauge("usher_config_last_load_success_timestamp_seconds", "When the configuration in use was loaded.")
	m.configHash = f.gauge("usher_config_hash", "Hash of the configuration in use, to compare hosts; its number means nothing.")
	m.buildInfo = f.gauges("usher_build_info", "1, with what runs as labels.", "version", "revision", "goversion")
}

// WatchBudget makes a scrape look at the budget of requests by calling look.
func (m *Metrics) WatchBudget(look func() userside.Budget) { m.budget.Store(&look) }

func (m *Metrics) erpBudget() userside.Budget {
	if look := m.budget.Load(); look != nil {
		return (*look)()
	}
	return userside.Budget{}
}

// WatchPending makes a scrape look at the calls that the ERP has not answered yet, the oldest first.
func (m *Metrics) WatchPending(look func() []userside.Pending) { m.pending.Store(&look) }

func (m *Metrics) oldestCall() float64 {
	if look := m.pending.Load(); look != nil {
		if calls := (*look)(); len(calls) > 0 {
			return time.Since(calls[0].Since).Seconds()
		}
	}
	return 0
}

// leaseSource is how leases are counted at a scrape.
type leaseSource struct{ counts func() lease.Counts }

// WatchLeases makes a scrape count leases by calling counts.
func (m *Metrics) WatchLeases(counts func() lease.Counts) { m.leases.Store(&leaseSource{counts}) }

// leaseCollector counts at the scrape: leases expire without an event.
type leaseCollector struct {
	m    *Metrics
	desc *prometheus.Desc
}

func (c *leaseCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *leaseCollector) Collect(ch chan<- prometheus.Metric) {
	var n lease.Counts
	if src := c.m.leases.Load(); src != nil {
		n = src.counts()
	}
	for state, v := range map[string]int{"bound": n.Bound, "kept": n.Kept, "expired": n.Expired, "released": n.Released, "declined": n.Declined, "quarantined": n.Quarantined} {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(v), state)
	}
}

// WatchOpen makes a scrape ask for the end of the maintenance; zero: there is none.
func (m *Metrics) WatchOpen(until func() time.Time) { m.openUntil.Store(&until) }

// WatchUnheard makes a scrape ask for the number of leases of the blocked whose MACs were not heard.
func (m *Metrics) WatchUnheard(count func() int) { m.unheard.Store(&count) }

func (m *Metrics) unheardLeases() float64 {
	if count := m.unheard.Load(); count != nil {
		return float64((*count)())
	}
	return 0
}

func (m *Metrics) openSeconds() float64 {
	until := m.openUntil.Load()
	if until == nil {
		return 0
	}
	end := (*until)()
	if end.IsZero() {
		return 0
	}
	return max(time.Until(end).Seconds(), 0)
}
