package agent

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	v4 "github.com/usher-agent/usher/dhcpd/v4"
)

// packetObservers are those who see every packet. What follows leases is told
// their addresses: looking at a lease once too often costs less than to know
// which outcomes change one.
func (a *Agent) packetObservers(events *dhcpd.EventLog) dhcpd.Observers {
	o := dhcpd.Observers{a.metrics, events, touch(func(e *dhcpd.Event) { a.follower.Touch(e.YourIP, e.Time) })}
	if a.routes != nil {
		o = append(o, touch(func(e *dhcpd.Event) {
			if e.Outcome != v4.OutcomeOffer {
				a.routes.Touch(e.YourIP, time.Now())
			}
		}))
	}
	return o
}

// touch is called for packets with an address. It implements dhcpd.Observer.
type touch func(*dhcpd.Event)

// Packet implements dhcpd.Observer.
func (t touch) Packet(e *dhcpd.Event) {
	if e.YourIP.IsValid() {
		t(e)
	}
}

// Commit implements dhcpd.Observer.
func (touch) Commit(int, time.Duration, error) {}

// admit has clients let in while their leases are written.
func (a *Agent) admit(recs []dhcpd.Commit, now time.Time) (wait func()) {
	addrs := make([]netip.Addr, 0, len(recs))
	for _, r := range recs {
		if r.Lease.IP.IsValid() {
			addrs = append(addrs, r.Lease.IP)
		}
	}
	return a.follower.Admit(addrs, now)
}
