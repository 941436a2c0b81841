package neighbour

import (
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A MAC that was there before somebody wrote another one into the ERP is no news: it must not undo what was written. So it is
// remembered for each bound address who was confirmed there and what the ERP had then, as a lease does for its client
// (lease.Record.Overruled). It is kept in memory: after a restart whoever is there counts as seen first.

// maxMet bounds how many are remembered of an address: its owner's routers, and whoever claims it.
const maxMet = 4

// meet notes that mac was confirmed at an address.
func (h *neighbourhood) meet(ip netip.Addr, mac provision.MAC, now time.Time) {
	s := h.snapshot()
	l := s.ByIP(ip)
	if l == nil {
		delete(h.met, ip)
		return
	}
	met := h.met[ip]
	if len(met) > 0 && met[0].Subscriber != l.Subscriber {
		met = nil // it was another's
	}
	if l.MAC == mac { // what the ERP has appeared there: whoever comes after it is news
		met = slices.DeleteFunc(met, func(r lease.Record) bool { return r.MAC != mac })
	}
	i := slices.IndexFunc(met, func(r lease.Record) bool { return r.MAC == mac })
	switch {
	case i < 0 && len(met) == maxMet:
		met = met[:maxMet-1]
		fallthrough
	case i < 0:
		r := lease.Record{IP: ip, MAC: mac, Subscriber: l.Subscriber, State: lease.StateBound, Start: now}
		r.ERP = lease.Granted(s, l, &lease.Record{}, now)
		met = slices.Insert(met, 0, r)
	case i > 0:
		r := met[i]
		met = slices.Insert(slices.Delete(met, i, i+1), 0, r)
	}
	h.met[ip] = met
}

// adopt takes what a whole fetch that was accepted since says of those who were met.
func (h *neighbourhood) adopt(now time.Time) {
	s := h.snapshot()
	if s.AcceptedAt().Equal(h.adopted) {
		return
	}
	h.adopted = s.AcceptedAt()
	for ip, met := range h.met {
		row, ok := s.AcceptedRow(ip)
		if !ok {
			continue
		}
		for i := range met {
			met[i].Learn(row, now)
		}
	}
}

// overruled reports whether the ERP got its MAC for an address after mac was seen there first, and no client came by DHCP since.
func (h *neighbourhood) overruled(s *provision.Snapshot, ip netip.Addr, mac provision.MAC) bool {
	for i := range h.met[ip] {
		if r := &h.met[ip][i]; r.MAC == mac {
			client, ok := h.leases.Get(ip)
			_, yes := r.Overruled(s)
			return yes && !(ok && client.Start.After(r.Start))
		}
	}
	return false
}

// reportedBy forgets who was at an address before mac, of which the ERP is told: if another comes back that is news.
func (h *neighbourhood) reportedBy(ip netip.Addr, mac provision.MAC) {
	h.met[ip] = slices.DeleteFunc(h.met[ip], func(r lease.Record) bool { return r.MAC != mac })
}
