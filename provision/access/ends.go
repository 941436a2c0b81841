package access

import (
	"net/netip"
	"time"
)

// endsApart is how far apart leases are looked at that run out one after the other.
const endsApart = 100 * time.Millisecond

// ends is when leases run out that an ACL has elements of. It keeps the earliest
// of each /24: a few entries for many leases, and no work for a renewal, which is
// seen when the time comes. Its zero value is empty.
type ends struct {
	first map[uint32]time.Time // by the number of a /24
	next  time.Time            // the earliest of them; zero: there is none
}

// covers reports whether the address is looked at no later than at.
func (e *ends) covers(ip netip.Addr, at time.Time) bool {
	first, ok := e.first[number(ip)>>8]
	return at.IsZero() || ok && !at.Before(first)
}

// add has the address looked at no later than at.
func (e *ends) add(ip netip.Addr, at time.Time) {
	if e.covers(ip, at) {
		return
	}
	if e.first == nil {
		e.first = map[uint32]time.Time{}
	}
	e.first[number(ip)>>8] = at
	if e.next.IsZero() || at.Before(e.next) {
		e.next = at
	}
}

// due takes out the networks whose time has come. Who looks at their addresses adds
// those again that go on.
func (e *ends) due(now time.Time) (networks []uint32) {
	if e.next.IsZero() || now.Before(e.next) {
		return nil
	}
	e.next = time.Time{}
	for n, at := range e.first {
		switch {
		case !now.Before(at):
			networks = append(networks, n)
			delete(e.first, n)
		case e.next.IsZero() || at.Before(e.next):
			e.next = at
		}
	}
	return networks
}
