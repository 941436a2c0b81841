package console

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd"
)

// SocketCounts is what a scrape tells of interfaces and sockets.
type SocketCounts struct {
	Sockets dhcpd.SocketStatus
	Changes uint64 // of interfaces and addresses, since the start
	Resyncs uint64 // whole lists after lost events
}

// WatchSockets makes a scrape look at interfaces and sockets by calling look.
func (m *Metrics) WatchSockets(look func() SocketCounts) { m.sockets.Store(&look) }

// socketCollector looks at the scrape, so that the packet path counts nothing.
type socketCollector struct {
	m                                            *Metrics
	interfaces, changes, resyncs, drops, standby *prometheus.Desc
}

func newSocketCollector(m *Metrics) *socketCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &socketCollector{
		m:          m,
		interfaces: desc("usher_dhcp_interfaces", "Network interfaces of this host: served ones and others.", "state"),
		changes:    desc("usher_dhcp_interface_changes_total", "Interfaces that appeared, changed (name, state, address) or went."),
		resyncs:    desc("usher_dhcp_interface_resyncs_total", "Times that all interfaces were read again because events were lost."),
		drops:      desc("usher_dhcp_receive_drops_total", "Packets that the kernel dropped because the receive queue was full or a checksum wrong."),
		standby:    desc("usher_dhcp_standby", "1 while this host does not have the address of dhcp.answer_while_holding."),
	}
}

func (c *socketCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.interfaces, c.changes, c.resyncs, c.drops, c.standby} {
		ch <- d
	}
}

func (c *socketCollector) Collect(ch chan<- prometheus.Metric) {
	var n SocketCounts
	if look := c.m.sockets.Load(); look != nil {
		n = (*look)()
	}
	s := n.Sockets
	ch <- prometheus.MustNewConstMetric(c.interfaces, prometheus.GaugeValue, float64(s.Served), "served")
	ch <- prometheus.MustNewConstMetric(c.interfaces, prometheus.GaugeValue, float64(s.Interfaces-s.Served), "other")
	ch <- prometheus.MustNewConstMetric(c.changes, prometheus.CounterValue, float64(n.Changes))
	ch <- prometheus.MustNewConstMetric(c.resyncs, prometheus.CounterValue, float64(n.Resyncs))
	ch <- prometheus.MustNewConstMetric(c.drops, prometheus.CounterValue, float64(s.ReceiveDrops))
	ch <- prometheus.MustNewConstMetric(c.standby, prometheus.GaugeValue, boolean(s.Standby))
}
