package outbox

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Leases tells who holds an address by now. A lease.Table is one.
type Leases interface {
	Get(ip netip.Addr) (lease.Record, bool)
}

// Settled returns what says that a report need not be sent, for Options: a
// snapshot, fetched after it was made, has what it would tell (an earlier one may
// show what another report has changed since), or another client holds the address
// by now, whose own MAC the ERP has or will be told. What only ARP told says nothing
// against a live lease, and nothing against a MAC that the ERP was given meanwhile.
func Settled(snapshot func() *provision.Snapshot, leases Leases) func(provision.MACReport) bool {
	return func(r provision.MACReport) bool {
		s := snapshot()
		b := s.ByIP(r.IP)
		if b != nil && b.MAC == r.MAC && s.FetchedAt().After(r.At) {
			return true
		}
		rec, ok := leases.Get(r.IP)
		if ok && rec.MAC != r.MAC && rec.Start.After(r.At) {
			return true
		}
		if r.ARP == (provision.ARPSighting{}) {
			return false
		}
		return ok && rec.Live(time.Now()) || b != nil && b.MAC != r.MAC && b.MAC != r.ARP.Silent
	}
}

// Changes returns what says that the ERP has another MAC than a report tells, for Options.
func Changes(snapshot func() *provision.Snapshot) func(provision.MACReport) bool {
	return func(r provision.MACReport) bool {
		l := snapshot().ByIP(r.IP)
		return l != nil && !l.MAC.IsZero() && l.MAC != r.MAC
	}
}

// Overtaken returns what says that another client than that of a report has the address by
// now, for Options.
func Overtaken(leases Leases) func(provision.MACReport) bool {
	return func(r provision.MACReport) bool {
		rec, ok := leases.Get(r.IP)
		return ok && rec.MAC != r.MAC && rec.Live(time.Now())
	}
}
