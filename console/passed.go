package console

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/provision/acl"
)

// passedPatience bounds how long a scrape waits for the kernel's counters.
const passedPatience = time.Second

// passedSource reads what rules let past a block.
type passedSource struct {
	read func(context.Context) ([]acl.Passed, error)
}

// WatchPassed makes a scrape read what rules let past a block.
func (m *Metrics) WatchPassed(read func(context.Context) ([]acl.Passed, error)) {
	m.passed.Store(&passedSource{read})
}

// passedCollector reads the kernel's counters at the scrape.
type passedCollector struct {
	m              *Metrics
	packets, bytes *prometheus.Desc
}

func newPassedCollector(m *Metrics) *passedCollector {
	labels := []string{"chain", "what"}
	return &passedCollector{m,
		prometheus.NewDesc("usher_acl_passed_packets_total", "Packets that rules let past a block, by the chain, which says who is blocked, and by what they are.", labels, nil),
		prometheus.NewDesc("usher_acl_passed_bytes_total", "Bytes of the packets that rules let past a block.", labels, nil)}
}

func (c *passedCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.packets
	ch <- c.bytes
}

func (c *passedCollector) Collect(ch chan<- prometheus.Metric) {
	list := acl.Ways()
	if src := c.m.passed.Load(); src != nil {
		ctx, cancel := context.WithTimeout(context.Background(), passedPatience)
		defer cancel()
		read, err := src.read(ctx)
		if err != nil {
			return // no number is better than a wrong one: the next scrape has it
		}
		list = read
	}
	for _, x := range list {
		ch <- prometheus.MustNewConstMetric(c.packets, prometheus.CounterValue, float64(x.Packets), x.Chain, x.What)
		ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(x.Bytes), x.Chain, x.What)
	}
}
