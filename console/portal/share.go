package portal

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Wire is where a source is linked directly.
type Wire struct {
	Ifindex int
	MAC     provision.MAC
}

// Share is whose part of the portal a source uses. Of all sources with equal ones the
// connections are counted together. The zero Share is that of the sources of which
// nobody knows anything: theirs is one, and small.
type Share struct {
	Subscriber provision.SubscriberID
	Addr       netip.Addr // of a guest
	Wire       Wire       // of who may have typed any address
	// Vouched says that the source has its address by right, as far as can be known: its
	// MAC is the bound one, or a router is between that looks at sources. It gets a page
	// whatever the others do.
	Vouched bool
}

// Share returns whose part an address uses.
func (d Directory) Share(addr netip.Addr) Share {
	var macs [2]provision.MAC
	var known bool
	s := Share{Vouched: true}
	if b := d.Snapshot().ByIP(addr); b != nil {
		known, s.Subscriber, macs[0] = true, b.Subscriber, b.MAC
	}
	if rec, ok := d.Leases.Get(addr); ok && rec.Live(time.Now()) {
		macs[1] = rec.MAC
		if !known {
			known, s.Subscriber = true, rec.Subscriber
		}
	}
	if !known { // of a subnet
		s.Subscriber = d.Snapshot().Owner(addr)
		known = s.Subscriber != 0
	}
	if !known {
		return Share{}
	}
	if s.Subscriber == 0 {
		s.Addr = addr
	}
	if d.Wire == nil {
		return s
	}
	ifindex, mac, ok := d.Wire(addr)
	if !ok || mac == macs[0] || mac == macs[1] {
		return s
	}
	return Share{Wire: Wire{ifindex, mac}}
}
