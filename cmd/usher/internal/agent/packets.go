package agent

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// packetObservers are those who see every packet. What follows leases hears of them by itself.
func (a *Agent) packetObservers(events *dhcpd.EventLog) dhcpd.Observers {
	return dhcpd.Observers{a.metrics, events}
}

// dropper ends leases for an operator.
type dropper struct{ agent *Agent }

// DropLease implements console.LeaseDropper: memory, pool and kernel first, for a disk may be slow.
func (d dropper) DropLease(ip netip.Addr, mac provision.MAC) (bool, error) {
	a, now := d.agent, time.Now()
	drop := func() bool { return a.leases.Drop(ip, mac, now) }
	if a.dhcp != nil {
		drop = func() bool { return a.dhcp.Drop(ip, mac) }
	}
	if !drop() {
		return false, nil
	}
	a.log.Info("lease ended by hand", "ip", ip, "mac", mac)
	return true, a.leases.Write(ip)
}

// admitting is a journal whose clients the kernel lets in, and has the routes to, meanwhile.
type admitting struct {
	dhcpd.Journal
	agent *Agent
}

// Commit implements dhcpd.Journal.
func (j admitting) Commit(recs []lease.Commit) error {
	addrs := make([]netip.Addr, 0, len(recs))
	for _, r := range recs {
		if r.Lease.IP.IsValid() {
			addrs = append(addrs, r.Lease.IP)
		}
	}
	now := time.Now()
	defer j.agent.follower.Admit(addrs)()
	if j.agent.routes != nil {
		defer j.agent.routes.Admit(addrs, now)()
	}
	return j.Journal.Commit(recs)
}
