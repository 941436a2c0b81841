package access

import (
	"net/netip"
	"sync/atomic"
)

// standing is the ACL of the newest round that succeeded.
type standing struct{ acl atomic.Pointer[ACL] }

// Standing tells which of SetStopped, SetPaused and SetGuests an address is in
// since the newest round that succeeded; zero: in none. With a dry run it is what
// would hold. known is false before the first such round. It neither waits nor allocates.
func (e *Enforcer) Standing(a netip.Addr) (set Set, known bool) {
	acl := e.standing.acl.Load()
	switch {
	case acl == nil:
		return 0, false
	case contains(acl.Stopped, a):
		return SetStopped, true
	case contains(acl.Paused, a):
		return SetPaused, true
	case contains(acl.Guests, a):
		return SetGuests, true
	default:
		return 0, true
	}
}
