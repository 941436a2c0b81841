package console

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Pools is the part of dhcpd.Server that tells of pools.
type Pools interface {
	Pools() []dhcpd.PoolStatus
	PoolAddress(ip netip.Addr) (dhcpd.PoolAddress, bool)
	PoolAddresses(name string) []dhcpd.PoolAddress
}

// PoolsView is every pool, or one pool with its addresses.
type PoolsView struct {
	Pools     []dhcpd.PoolStatus  `json:"pools"`
	Addresses []dhcpd.PoolAddress `json:"addresses,omitempty"` // of a pool that was asked for by name
}

// pools serves GET /v1/pools.
func (c *control) pools(w http.ResponseWriter, r *http.Request) {
	v := PoolsView{Pools: []dhcpd.PoolStatus{}}
	if c.d.Pools != nil {
		v.Pools = c.d.Pools.Pools()
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		writeJSON(w, http.StatusOK, v)
		return
	}
	var names []string
	for _, p := range v.Pools {
		if p.Name == name {
			v.Pools, v.Addresses = []dhcpd.PoolStatus{p}, c.d.Pools.PoolAddresses(name)
			writeJSON(w, http.StatusOK, v)
			return
		}
		names = append(names, p.Name)
	}
	have := "there is none (dhcp.pools)"
	if len(names) > 0 {
		have = "there is " + strings.Join(names, ", ")
	}
	writeError(w, http.StatusNotFound, fmt.Errorf("no pool %.60q: %s", name, have))
}

// Pools asks how full the pools are; with a name also for that pool's addresses.
func (c *Client) Pools(ctx context.Context, name string) (*PoolsView, error) {
	path := "/v1/pools"
	if name != "" {
		path += "?name=" + url.QueryEscape(name)
	}
	return call[PoolsView](ctx, c, http.MethodGet, path, nil)
}

// pool looks whether the address asked about is one of a pool.
func (x *explainer) pool() {
	if x.d.Pools == nil || x.sub.kind != "ip" {
		return
	}
	if p, ok := x.d.Pools.PoolAddress(x.sub.ip); ok {
		x.x.Pool = &p
	}
}

// poolSentences tell of an address of a pool, or of a lease from one.
func (x *explainer) poolSentences() []string {
	var s []string
	if p := x.x.Pool; p != nil {
		text := fmt.Sprintf("It is within pool %s, for %s", p.Pool, p.For)
		switch {
		case p.Bound && x.snap.ByIP(p.IP) == nil && x.snap.Taken(p.IP):
			text += ", but within a customer's subnet, so no client of the pool gets it"
		case p.Bound:
			text += ", but bound by the ERP, so no client of the pool gets it"
		case p.State == "free" && !p.Holder.IsZero():
			text += fmt.Sprintf(", and free; %s had it last", holderOf(p))
		case p.State == "leased", p.State == "offered":
			text += fmt.Sprintf(", and %s to %s until %s", p.State, holderOf(p), stamp(p.Until))
		case p.State == "quarantined":
			text += fmt.Sprintf(", and in quarantine until %s, because somebody uses it to whom it was not given", stamp(p.Until))
		case p.State == "reserved":
			text += ", but it is the network's, the broadcast's or the gateway's and goes to nobody"
		default:
			text += ", and free"
		}
		return append(s, text+".")
	}
	if x.sub.kind == "customer" {
		for l := range x.snap.BySubscriber(x.sub.id).All() {
			if !l.Owner.IsZero() {
				s = append(s, fmt.Sprintf("The ERP gives it no address %s: a pool for subscribers may.", placeOf(l)))
			}
		}
	}
	for _, l := range x.x.Leases {
		if l.Pool != "" && l.Live(x.now) {
			s = append(s, fmt.Sprintf("It has %s of pool %s until %s.", l.IP, l.Pool, stamp(l.Expires)))
		} else if l.Pool != "" && l.State == lease.StateQuarantined && x.now.Before(l.Expires) {
			s = append(s, fmt.Sprintf("It declined %s of pool %s, which is in quarantine until %s.", l.IP, l.Pool, stamp(l.Expires)))
		}
	}
	return s
}

// holderOf says who has an address of a pool.
func holderOf(p *dhcpd.PoolAddress) string {
	switch {
	case p.Subscriber != 0 && !p.Holder.IsZero():
		return fmt.Sprintf("%s of customer %d", p.Holder, p.Subscriber)
	case p.Holder.IsZero():
		return "a customer's client"
	}
	return p.Holder.String()
}

// placeOf says where a customer without an address is looked for.
func placeOf(l *provision.Line) string {
	var list []string
	switch {
	case l.Device != 0 && l.PortName != "":
		list = append(list, fmt.Sprintf("at device %d port %s", l.Device, l.PortName))
	case l.Device != 0 && l.Port != 0:
		list = append(list, fmt.Sprintf("at device %d port %d", l.Device, l.Port))
	}
	if !l.MAC.IsZero() {
		list = append(list, "for MAC "+l.MAC.String())
	}
	if l.VLAN != 0 {
		list = append(list, fmt.Sprintf("in VLAN %d", l.VLAN))
	}
	return strings.Join(list, " ")
}

// poolSource is how pools are looked at during a scrape.
type poolSource struct{ pools func() []dhcpd.PoolStatus }

// WatchPools makes a scrape look at the pools by calling pools.
func (m *Metrics) WatchPools(pools func() []dhcpd.PoolStatus) { m.pools.Store(&poolSource{pools}) }

// poolCollector looks at the scrape: leases expire without an event. The names of
// pools are the configuration's, so the label is a closed set.
type poolCollector struct {
	m                                      *Metrics
	addresses, used, full                  *prometheus.Desc
	exhausted, probes, conflicts, declines *prometheus.Desc
}

func newPoolCollector(m *Metrics) *poolCollector {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("usher_dhcp_pool_"+name, help, append([]string{"pool"}, more...), nil)
	}
	return &poolCollector{
		m:         m,
		addresses: desc("addresses", "Addresses of a pool, by what they are.", "state"),
		used:      desc("used_ratio", "Share of a pool that no new client can have."),
		full:      desc("full", "1 while a pool is used beyond its warn_at."),
		exhausted: desc("exhausted_total", "Clients that found no free address in a pool."),
		probes:    desc("probes_total", "Addresses asked for by ARP before they were offered."),
		conflicts: desc("conflicts_total", "Of these, addresses that somebody else uses."),
		declines:  desc("declines_total", "Addresses that a client found in use after it got them."),
	}
}

func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.addresses, c.used, c.full, c.exhausted, c.probes, c.conflicts, c.declines} {
		ch <- d
	}
}

func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	src := c.m.pools.Load()
	if src == nil {
		return
	}
	for _, p := range src.pools() {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{p.Name}, labels...)...)
		}
		counter := func(d *prometheus.Desc, v uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), p.Name)
		}
		for state, n := range map[string]int{"free": p.Free, "offered": p.Offered, "leased": p.Leased, "quarantined": p.Quarantined, "bound": p.Bound} {
			gauge(c.addresses, float64(n), state)
		}
		gauge(c.used, p.Used)
		gauge(c.full, boolean(p.Full))
		counter(c.exhausted, p.Exhausted)
		counter(c.probes, p.Probes)
		counter(c.conflicts, p.Conflicts)
		counter(c.declines, p.Declines)
	}
}
