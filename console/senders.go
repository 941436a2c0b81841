package console

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/v4"
)

// WatchSenders makes a scrape count relays and switches by calling look.
func (m *Metrics) WatchSenders(look func() senders.Status) { m.senders.Store(&look) }

// senderCollector counts at the scrape, so that the packet path counts each packet once.
type senderCollector struct {
	m                                                       *Metrics
	relays, relayPackets, interfaces, switchPackets, missed *prometheus.Desc
	relayInfos, mixed                                       *prometheus.Desc
}

func newSenderCollector(m *Metrics) *senderCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &senderCollector{
		m:             m,
		relays:        desc("usher_dhcp_relays", "Relays that were seen, by what is thought of them now.", "state"),
		relayPackets:  desc("usher_dhcp_relay_packets_total", "Packets with a relay's address, by what was thought of the relay.", "state"),
		interfaces:    desc("usher_dhcp_switch_interfaces", "Interfaces on which option 82 came without a relay's address, by what is thought of it now.", "state"),
		switchPackets: desc("usher_dhcp_switch_packets_total", "Packets with option 82 and without a relay's address, by what was thought of it.", "state"),
		relayInfos:    desc("usher_dhcp_relayed_packets_total", "Packets of believed relays, by what was thought of their option 82; none: they had none.", "option82"),
		mixed:         desc("usher_dhcp_relays_mixed", "Believed relays of whose packets some had option 82 and others had none."),
		missed:        desc("usher_dhcp_senders_missed_total", "Packets of relays and interfaces that are counted and not remembered: there were too many."),
	}
}

func (c *senderCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.relays, c.relayPackets, c.interfaces, c.switchPackets, c.relayInfos, c.mixed, c.missed} {
		ch <- d
	}
}

func (c *senderCollector) Collect(ch chan<- prometheus.Metric) {
	counts := map[senders.State]senders.Count{}
	infos := map[v4.RelayedInfo]uint64{}
	missed, mixed := uint64(0), 0
	if look := c.m.senders.Load(); look != nil {
		st := (*look)()
		for _, n := range st.Counts {
			counts[n.State] = n
			missed += n.Missed
		}
		for _, n := range st.Option82 {
			infos[n.Option82] = n.Packets
		}
		mixed = st.Mixed
	}
	for _, s := range senders.States() {
		kept, packets := c.relays, c.relayPackets
		if s.Switch() {
			kept, packets = c.interfaces, c.switchPackets
		}
		n := counts[s]
		ch <- prometheus.MustNewConstMetric(kept, prometheus.GaugeValue, float64(n.Senders), s.String())
		ch <- prometheus.MustNewConstMetric(packets, prometheus.CounterValue, float64(n.Packets), s.String())
	}
	for _, i := range v4.RelayedInfos() {
		ch <- prometheus.MustNewConstMetric(c.relayInfos, prometheus.CounterValue, float64(infos[i]), i.String())
	}
	ch <- prometheus.MustNewConstMetric(c.mixed, prometheus.GaugeValue, float64(mixed))
	ch <- prometheus.MustNewConstMetric(c.missed, prometheus.CounterValue, float64(missed))
}
