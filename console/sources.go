package console

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision/syncer"
)

// degraded says of which of the ERP's sources an earlier answer is in use.
func degraded(list []syncer.SourceStatus) []string {
	var all []string
	for _, st := range list {
		if st.Bad() {
			all = append(all, string(st.Source)+" of the ERP: "+st.Text())
		}
	}
	return all
}

// sourceSentences tell of the sources that the subject depends on and that are not as the ERP has them now.
func (x *explainer) sourceSentences() []string {
	var s []string
	for _, st := range x.sources {
		if st.Bad() && x.dependsOn(st.Source) {
			s = append(s, fmt.Sprintf("Attention: %s may be old (%s): %s.", sourceWords(st.Source), st.Source, strings.TrimSuffix(st.Text(), ".")))
		}
	}
	return s
}

func (x *explainer) dependsOn(name syncer.SourceName) bool {
	switch name {
	case syncer.SourceBindings:
		return true
	case syncer.SourceDevices:
		return x.switchUnknown() || slices.ContainsFunc(x.x.Bindings, func(b BindingView) bool { return b.Device != 0 })
	case syncer.SourceSubnets:
		return len(x.x.Subnets) > 0
	default:
		return len(x.x.Subscribers) > 0
	}
}

// switchUnknown reports whether the newest packet ended as it did because of what is known of its switch.
func (x *explainer) switchUnknown() bool {
	return len(x.x.Events) > 0 && ofSwitch(x.x.Events[0].Outcome) || x.x.Would != nil && ofSwitch(x.x.Would.Outcome)
}

func ofSwitch(label string) bool {
	return label == outcome.DevicesUnread.String() || label == outcome.UnknownDevice.String() || label == outcome.UnknownPort.String()
}

// spareERP takes back the advice to edit switches and ports in the ERP where an earlier list of them is in use.
func (x *explainer) spareERP() {
	i := slices.IndexFunc(x.sources, func(st syncer.SourceStatus) bool { return st.Source == syncer.SourceDevices && st.Bad() })
	if i < 0 {
		return
	}
	const wait = "Nothing in the ERP: its list of switches is not the newest one here."
	for j := range x.x.Events {
		if ofSwitch(x.x.Events[j].Outcome) {
			x.x.Events[j].Advice = wait
		}
	}
	if x.x.Would != nil && ofSwitch(x.x.Would.Outcome) {
		x.x.Would.Advice = wait
	}
}

// sourceWords says what a source tells.
func sourceWords(name syncer.SourceName) string {
	switch name {
	case syncer.SourceBindings:
		return "what the ERP binds"
	case syncer.SourceStates:
		return "what the ERP says of the state"
	case syncer.SourceFlags:
		return "what the ERP says of being disabled, potential or in the billing"
	case syncer.SourceDevices:
		return "the ERP's list of switches"
	case syncer.SourceSubnets:
		return "what the ERP says of subnets"
	default:
		return "the ERP's list of former customers"
	}
}

// WatchSources makes a scrape ask how the ERP's sources stand by calling look.
func (m *Metrics) WatchSources(look func() []syncer.SourceStatus) { m.erpSources.Store(&look) }

// sourceCollector looks at the scrape. Sources that nobody reads have zeros.
type sourceCollector struct {
	m                       *Metrics
	judgement, good, unread *prometheus.Desc
}

func newSourceCollector(m *Metrics) *sourceCollector {
	return &sourceCollector{
		m:         m,
		judgement: prometheus.NewDesc("usher_erp_source_judgement", "1 for what is thought of a source of the ERP, 0 for the others.", []string{"source", "judgement"}, nil),
		good:      prometheus.NewDesc("usher_erp_source_good_timestamp_seconds", "When the source was last read and believed; of cards the oldest of them; 0: never.", []string{"source"}, nil),
		unread:    prometheus.NewDesc("usher_erp_source_unread", "Customers whose card was never read.", []string{"source"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *sourceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.judgement, c.good, c.unread} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *sourceCollector) Collect(ch chan<- prometheus.Metric) {
	seen := map[syncer.SourceName]syncer.SourceStatus{}
	if look := c.m.erpSources.Load(); look != nil {
		for _, st := range (*look)() {
			seen[st.Source] = st
		}
	}
	for _, name := range syncer.SourceNames() {
		st := seen[name]
		for _, j := range syncer.SourceJudgements() {
			ch <- prometheus.MustNewConstMetric(c.judgement, prometheus.GaugeValue, boolean(st.Judgement == j), string(name), string(j))
		}
		at := 0.0
		if !st.GoodAt.IsZero() {
			at = unixSeconds(st.GoodAt)
		}
		ch <- prometheus.MustNewConstMetric(c.good, prometheus.GaugeValue, at, string(name))
		ch <- prometheus.MustNewConstMetric(c.unread, prometheus.GaugeValue, float64(st.Unread), string(name))
	}
}
