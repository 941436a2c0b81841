package portal

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/lease"
)

// Directory knows who has an address.
type Directory struct {
	Snapshot func() *provision.Snapshot
	Leases   interface {
		Get(ip netip.Addr) (lease.Record, bool)
	}
	// Standing returns what the kernel was last brought to for an address; known is
	// false before that.
	Standing func(addr netip.Addr) (set access.Set, known bool)
	// Wire returns the interface and MAC of an address that is linked directly; false
	// for all others. It may be nil.
	Wire func(addr netip.Addr) (ifindex int, mac provision.MAC, ok bool)
}

// Visitor returns who has an address, by its binding, its lease from a pool or its subnet, and
// what the kernel does with it: whoever is told that access is back has it.
func (d Directory) Visitor(addr netip.Addr) Visitor {
	snap := d.Snapshot()
	v := Visitor{State: StateUnknown}
	if b := snap.ByIP(addr); b != nil {
		v.Subscriber = b.Subscriber
	} else if rec, ok := d.Leases.Get(addr); ok && rec.Live(time.Now()) {
		v.Subscriber = rec.Subscriber
	} else {
		v.Subscriber = snap.Owner(addr) // of a subnet
	}
	set, known := d.Standing(addr)
	if !known { // the first round is under way
		switch snap.State(v.Subscriber) {
		case provision.StatePause:
			set = access.SetPaused
		case provision.StateStop:
			set = access.SetStopped
		}
	}
	switch {
	case set == access.SetPaused:
		v.State = StatePaused
	case set == access.SetStopped:
		v.State = StateStopped
	case set == access.SetGuests:
		v.State = StateGuest
	case v.Subscriber != 0: // also with a state that nobody knows: it blocks nothing
		v.State = StateActive
	}
	return v
}
