package v4

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Foreign says whose the MAC of a report is, if the ERP is not to be told of it: zero is a guest, and ip, if any, the address that it has.
// A second row with the MAC would make it ambiguous for whoever is found by it alone: another subscriber whose row has neither a port nor a VLAN, or
// the VLAN of the other one with several customers in it; or a client with a live lease, of a pool or by its MAC, elsewhere than where the one of the report has its own. Who is found by a line loses nothing by it.
func (c *Config) Foreign(r *provision.MACReport, now time.Time, snap *provision.Snapshot, leases LeaseView) (owner provision.SubscriberID, ip netip.Addr, foreign bool) {
	if !c.byMAC(MatchOption82) {
		return 0, netip.Addr{}, false
	}
	subscriber, row := r.Subscriber, snap.ByIP(r.IP)
	if row != nil && subscriber == 0 { // a report of an older usher
		subscriber = row.Subscriber
	}
	known := false
	for l := range snap.ByMAC(r.MAC).All() {
		if l.Subscriber == subscriber {
			known = true
			continue
		}
		if !c.foundByMAC(l, row, snap) {
			continue
		}
		if !l.Vacant() {
			ip = l.Addresses[0].Prefix.Addr()
		}
		return l.Subscriber, ip, true
	}
	m := matcher{now: now, r: c.reported(r, leases), mac: r.MAC, snap: snap, leases: leases, cfg: c}
	for _, rec := range leases.ByMAC(r.MAC) {
		own := rec.IP == r.IP || rec.Subscriber == subscriber || rec.Subscriber == 0 && known // whom the ERP knows is no guest
		if !own && rec.Live(now) && !m.byLineNow(&rec) && m.comesFrom(&rec) != placeSame {
			return rec.Subscriber, rec.IP, true
		}
	}
	return 0, netip.Addr{}, false
}

// byMAC reports whether any way of dhcp.match asks a MAC, or an identifier that may have one, and none of some others.
func (c *Config) byMAC(without MatchKind) bool {
	return slices.ContainsFunc(c.match, func(k MatchKind) bool { return k&(MatchMAC|MatchClientID) != 0 && k&without == 0 })
}

// foundByMAC reports whether it is the MAC that tells the client of a line from that of a row, if both have it.
func (c *Config) foundByMAC(l, row *provision.Line, snap *provision.Snapshot) bool {
	switch {
	case c.anywhere(l):
		return c.byMAC(MatchOption82 | MatchVLAN)
	case c.matches&MatchOption82 != 0 && hasPort(l), row == nil, row.VLAN != l.VLAN:
		return false
	}
	_, shared := snap.ByVLAN(l.VLAN)
	return shared
}

// reported returns a packet from where the client of a report has its lease, or else was heard.
func (c *Config) reported(r *provision.MACReport, leases LeaseView) *Request {
	q := wire.Query{Type: wire.Request, MAC: r.MAC, GIAddr: r.Packet.Relay}
	q.Option82, _ = hex.DecodeString(r.Packet.Option82) // usher wrote it
	name := r.Packet.Interface
	if rec, ok := leases.Get(r.IP); ok && rec.MAC == r.MAC {
		q.GIAddr, q.Option82, name = rec.GIAddr, rec.Option82, rec.Interface
	}
	var req Request
	req.P.Ingress = c.line.Ingress(name)
	req.P.Read(q.Append(nil))
	return &req
}

// byLineNow reports whether a lease was given on the line that the ERP has for it, so that its client is found there whoever else has its MAC.
func (m *matcher) byLineNow(rec *lease.Record) bool {
	l := m.snap.ByIP(rec.IP)
	if l == nil {
		l = m.snap.ByOwner(rec.Subscriber, rec.Key)
	}
	return l != nil && m.wasThere(rec, Binding{l, rec.IP})
}
