package v4

import (
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Request is a packet and what the socket and the interfaces say about it.
type Request struct {
	P       line.Packet
	Ifindex int
	On      *provision.Interface // that it came in on; nil: not known
	Served  bool                 // the interface is one that we answer on
	Standby bool                 // another host holds the address that answering depends on
	Limited outcome.Outcome      // outcome.Limited...: too much of the like came lately, or outcome.Stale; 0: not
	Local   netip.Addr           // address of this host that the packet came to; invalid: it was a broadcast
	OwnID   bool                 // option 54 is an address of this host
	OwnFrom bool                 // the sender's address is one of this host
	Trust   Trust                // as Judge found it

	HostRoutes bool     // leases on the interface get routes of their own: clients of any network may be on it
	Networks   Networks // as Config.NetworksOf has those of the interface

	was givenBy // room for located
}

// givenBy is a packet with the option 82 that a lease was given by.
type givenBy struct {
	p   line.Packet
	raw []byte
}

// reaches reports whether a is on the interface, with no router between: in a network of its own, or by a host route.
func (r *Request) reaches(a netip.Addr) bool { return r.HostRoutes || r.inNetwork(a) }

// inNetwork reports whether a is in a network of the interface's own.
func (r *Request) inNetwork(a netip.Addr) bool {
	if r.On == nil {
		return false
	}
	for _, n := range r.On.Addrs {
		if n.Bits() < 32 && n.Contains(a) {
			return true
		}
	}
	return false
}

// LeaseView is what a decision may ask the lease table.
type LeaseView interface {
	Get(ip netip.Addr) (lease.Record, bool) // without one the record is zero
	ByMAC(mac provision.MAC) []lease.Record
	ByClientID(id []byte) []lease.Record
}
