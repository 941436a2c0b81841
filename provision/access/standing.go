package access

import (
	"net/netip"
	"sync/atomic"
)

// standing is the ACL of the newest round that succeeded.
type standing struct{ acl atomic.Pointer[ACL] }

// Standing returns the set that blocks an address since the newest round that
// succeeded; zero: none does. With a dry run it is what would hold. known is
// false before the first such round. It neither waits nor allocates.
func (e *Enforcer) Standing(a netip.Addr) (set Set, known bool) {
	acl := e.standing.acl.Load()
	if acl == nil {
		return 0, false
	}
	return acl.Standing(a), true
}
