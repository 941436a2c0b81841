package console

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Packet implements dhcpd.Observer without allocating.
func (m *Metrics) Packet(e *dhcpd.Event) {
	row := m.packets[min(int(e.Type), messageTypes-1)]
	if e.Outcome == 0 || int(e.Outcome) >= len(row) {
		return // no outcome: the server never does this
	}
	row[e.Outcome].Inc()
	if e.Stray != v4.StrayNone && e.Stray < v4.Strays() && acknowledged(e.Outcome) {
		m.strays[e.Stray].Inc()
	}
	if !e.Networks.IsZero() && acknowledged(e.Outcome) {
		m.otherNetworks.Inc()
	}
	m.packetDuration.Observe(e.Latency.Seconds())
}

// Commit implements dhcpd.Observer.
func (m *Metrics) Commit(n int, d time.Duration, err error) {
	m.commits[resultOf(err)].Inc()
	m.commitDuration.Observe(d.Seconds())
	if err == nil {
		m.commitRecords.Add(float64(n))
	}
}

// Fetched implements syncer.Observer.
func (m *Metrics) Fetched(r syncer.FetchReport) {
	c, ok := m.fetches[r.Kind][r.Outcome]
	if !ok {
		return
	}
	c.Inc()
	m.fetchDuration[r.Kind][r.Outcome].Observe(r.Took.Seconds())
	if r.Kind == syncer.FetchFull && r.Outcome != syncer.FetchFailed {
		m.statesKept.Store(r.StatesKept)
	}
	switch {
	case r.Outcome != syncer.FetchPublished || r.StatesKept:
	case r.Kind == syncer.FetchCustomers:
		m.hintDuration.Observe(r.Waited.Seconds())
	default:
		m.statesAt.Store(time.Now().Add(-r.Took).UnixNano())
	}
}

// Hint counts a request at the hint endpoint.
func (m *Metrics) Hint(o HookOutcome) {
	if c, ok := m.hints[o]; ok {
		c.Inc()
	}
}

// Published implements syncer.Observer.
func (m *Metrics) Published(s *provision.Snapshot, problems map[provision.ProblemKind]int) {
	m.publications.Inc()
	if at := s.FetchedAt(); !at.IsZero() {
		m.fetchedAt.Store(at.UnixNano())
	}
	for src, g := range m.sources {
		g.Set(boolean(src == s.Source()))
	}
	c := s.Counts()
	m.bindings.Set(float64(c.Bindings))
	m.withoutMAC.Set(float64(c.WithoutMAC))
	m.withoutPort.Set(float64(c.WithoutPort))
	m.contested.Set(float64(c.Contested))
	m.seats.Set(float64(c.Seats))
	m.bound.Set(float64(c.Subscribers))
	m.devices.Set(float64(c.Devices))
	m.subscribers[provision.StateActive].Set(float64(c.Active))
	m.subscribers[provision.StatePause].Set(float64(c.Paused))
	m.subscribers[provision.StateStop].Set(float64(c.Stopped))
	m.subscribers[provision.StateUnknown].Set(float64(c.Unknown))
	if problems != nil { // nil: read from disk, where problems are not kept
		for kind, g := range m.problems {
			g.Set(float64(problems[kind]))
		}
	}
}

// Held implements syncer.Observer.
func (m *Metrics) Held(h *syncer.HeldStatus) {
	m.held.Set(boolean(h != nil))
	for kind, g := range m.heldHarm {
		g.Set(0)
		if h == nil {
			continue
		}
		c := h.Decision.Of(kind)
		n := c.Rejected
		if c.Over || h.Decision.NoRows {
			n += c.Count - c.Hour
		}
		g.Set(float64(n))
	}
}

// OpenedUnconfirmed implements syncer.Observer.
func (m *Metrics) OpenedUnconfirmed(n int) { m.unconfirmed.Add(float64(n)) }

// Stored implements syncer.Observer.
func (m *Metrics) Stored(took time.Duration, err error) {
	m.stores[resultOf(err)].Inc()
	m.storeDuration.Observe(took.Seconds())
}

// Batch implements access.Observer.
func (m *Metrics) Batch(changes int, took time.Duration, err error) {
	m.batches[resultOf(err)].Inc()
	m.batchDuration.Observe(took.Seconds())
	if err == nil {
		m.changes.Add(float64(changes))
	}
}

// Drift implements access.Observer.
func (m *Metrics) Drift(extra, missing, rebuilt int) {
	m.readBacks.Inc()
	m.tableRepairs.Add(float64(rebuilt))
	m.drift["extra"].Add(float64(extra))
	m.drift["missing"].Add(float64(missing))
}

// Elements implements access.Observer.
func (m *Metrics) Elements(n access.SetCounts) {
	for set := range access.Sets() {
		switch {
		case !set.Optional():
			m.elements[set].Set(float64(n[set]))
		case n[set] > 0:
			m.subnetElements.WithLabelValues(set.String()).Set(float64(n[set]))
		default:
			m.subnetElements.DeleteLabelValues(set.String())
		}
	}
}

// Maintenance implements access.Observer.
func (m *Metrics) Maintenance(open bool) {
	m.maintenance.Set(0)
	if open {
		m.maintenance.Set(1)
	}
}

// Withheld implements access.Observer.
func (m *Metrics) Withheld(n map[access.Spared]int) {
	for why, g := range m.withheld {
		g.Set(float64(n[why]))
	}
}

// Refused implements access.Observer.
func (m *Metrics) Refused(n int) { m.refused.Set(float64(n)) }

// Flows implements access.Observer.
func (m *Metrics) Flows(deleted int, err error) {
	m.cleanups[resultOf(err)].Inc()
	m.flows.Add(float64(deleted))
}

// Delivered implements outbox.Observer.
func (m *Metrics) Delivered(r outbox.Result) {
	if c, ok := m.outboxResults[r]; ok {
		c.Inc()
	}
}

// Overruled tells how many live leases there are for which the ERP has a newer MAC.
func (m *Metrics) Overruled(n int) { m.overruled.Set(float64(n)) }

// Depth implements outbox.Observer.
func (m *Metrics) Depth(n int) { m.outboxDepth.Set(float64(n)) }

// AuditRecords implements audit.Observer.
func (m *Metrics) AuditRecords(o audit.Outcome, n int) {
	if c, ok := m.auditRecords[o]; ok {
		c.Add(float64(n))
	}
}

// AuditFailed implements audit.Observer.
func (m *Metrics) AuditFailed() { m.auditFailed.Inc() }

// Call implements userside.Observer.
func (m *Metrics) Call(action string, took time.Duration, outcome userside.Outcome) {
	if _, ok := m.calls[action]; !ok {
		action = labelOther
	}
	if c, ok := m.calls[action][outcome]; ok {
		c.Inc()
	}
	m.callDuration[action].Observe(took.Seconds())
}

// ConfigLoaded counts a load of the configuration. hash stands for its content;
// it is looked at only when err is nil.
func (m *Metrics) ConfigLoaded(at time.Time, hash uint64, err error) {
	m.reloads[resultOf(err)].Inc()
	m.reloadOK.Set(boolean(err == nil))
	if err == nil {
		m.reloadTime.Set(unixSeconds(at))
		m.configHash.Set(float64(hash >> 16)) // 48 bits are exact in a float64
	}
}

// SetBuild tells what runs.
func (m *Metrics) SetBuild(b Build) {
	m.buildInfo.Reset()
	m.buildInfo.WithLabelValues(b.Version, b.Revision, b.GoVersion).Set(1)
}

func (m *Metrics) statesAge() float64 {
	at := m.started
	ns := m.statesAt.Load()
	if !m.statesKept.Load() {
		ns = max(ns, m.fetchedAt.Load())
	}
	if ns != 0 {
		at = time.Unix(0, ns)
	}
	return max(time.Since(at).Seconds(), 0)
}

func (m *Metrics) snapshotAge() float64 {
	at := m.started
	if ns := m.fetchedAt.Load(); ns != 0 {
		at = time.Unix(0, ns)
	}
	return max(time.Since(at).Seconds(), 0)
}

func (m *Metrics) snapshotTime() float64 {
	ns := m.fetchedAt.Load()
	if ns == 0 {
		return 0
	}
	return unixSeconds(time.Unix(0, ns))
}

// OutcomeCount is how many packets of one type ended in one outcome.
type OutcomeCount struct {
	Type    string `json:"type"`
	Outcome string `json:"outcome"`
	Count   uint64 `json:"count"`
	Text    string `json:"text"` // Outcome.Explain
}

// Outcomes returns the counts that are not zero, the largest first.
func (m *Metrics) Outcomes() []OutcomeCount {
	out := []OutcomeCount{}
	for t, row := range m.packets {
		label := labelOther
		if t < messageTypes-1 {
			label = wire.MessageType(t).Label()
		}
		for _, o := range outcome.All() {
			if n := valueOf(row[o]); n > 0 {
				out = append(out, OutcomeCount{label, o.String(), n, o.Explain()})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b OutcomeCount) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

func valueOf(c prometheus.Counter) uint64 {
	var d dto.Metric
	if err := c.Write(&d); err != nil {
		return 0
	}
	return uint64(d.GetCounter().GetValue())
}

func resultOf(err error) string {
	if err != nil {
		return resultFailed
	}
	return resultOK
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
