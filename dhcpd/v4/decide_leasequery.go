package v4

import (
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision/lease"
)

// leaseQuery answers an access node that lost its tables and asks who has an
// address (RFC 4388). It tells where customers are, so Judge lets only configured ones
// through. They are answered at giaddr, which is theirs whatever the sender's address.
func (c *decider) leaseQuery() {
	p := &c.r.P
	var found []lease.Record
	ip := p.CIAddr()
	mac, hasMAC := p.MAC()
	switch { // RFC 4388 section 6.4.1: by address, by client identifier, by MAC
	case ip.IsValid():
		if rec, known := c.leases.Get(ip); known {
			found = []lease.Record{rec}
		}
	case len(p.ClientID()) > 0:
		found = c.leases.ByClientID(p.ClientID())
	case hasMAC:
		found = c.leases.ByMAC(mac)
	default:
		c.end(outcome.RequestIncomplete)
		return
	}
	var best *lease.Record // the one heard last
	a := &wire.LeaseReply{Type: wire.LeaseUnknown, IP: ip}
	for i := range found {
		r := &found[i]
		if !r.Live(c.now) {
			continue
		}
		if best == nil || r.Renewed.After(best.Renewed) {
			best = r
		}
	}
	n := c.cfg.subnetOf(ip)
	c.d.Outcome = outcome.LeaseUnknown
	switch {
	case best != nil:
		n = c.cfg.subnetOf(best.IP)
		c.leaseActive(a, best, found, n)
	case ip.IsValid() && n != nil:
		a.Type, c.d.Outcome = wire.LeaseUnassigned, outcome.LeaseUnassigned
	}
	if a.ServerID = c.serverID(n); !a.ServerID.IsValid() {
		c.end(outcome.NoServerID)
		return
	}
	c.d.YourIP, c.d.Lease = a.IP, a
	c.d.Reply.Type, c.d.Reply.ServerID = a.Type, a.ServerID
	c.route()
}

func (c *decider) leaseActive(a *wire.LeaseReply, best *lease.Record, found []lease.Record, n *subnet) {
	a.Type, c.d.Outcome = wire.LeaseActive, outcome.LeaseActive
	a.IP, a.MAC, a.ClientID, a.RelayInfo = best.IP, best.MAC, best.ClientID, best.Option82
	a.LeaseTime = seconds(best.Expires.Sub(c.now))
	a.LastTransaction = seconds(c.now.Sub(best.Renewed))
	if i := c.cfg.PoolOf(best.IP); i >= 0 && best.Pool != "" {
		n = &c.cfg.pools[i].subnet
	}
	if n != nil {
		a.RenewTime = seconds(best.Renewed.Add(time.Duration(n.t1) * time.Second).Sub(c.now))
		a.RebindTime = seconds(best.Renewed.Add(time.Duration(n.t2) * time.Second).Sub(c.now))
		a.Options = n.options[0]
	}
	for i := range found {
		if r := &found[i]; r.IP != best.IP && r.Live(c.now) {
			a.Associated = append(a.Associated, r.IP)
		}
	}
	c.d.Binding = c.bound(best.IP)
}

// seconds counts whole ones; what is past is none.
func seconds(d time.Duration) uint32 { return uint32(max(0, d) / time.Second) }

// queriesAlone reports whether leasequery.from has an address as one address.
func (c *Config) queriesAlone(a netip.Addr) bool {
	return slices.ContainsFunc(c.leaseQuery, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Contains(a) })
}

// MayQuery reports whether leasequery.from has an access node: it may ask who has which address.
func (c *Config) MayQuery(node netip.Addr) bool {
	for _, p := range c.leaseQuery {
		if p.Contains(node) {
			return true
		}
	}
	return false
}
