package access

import "net/netip"

// Standing returns the set that blocks an address since the newest change that
// succeeded; zero: none does. With a dry run it is what would hold. known is
// false before the first round that did. It neither waits nor allocates.
func (e *Enforcer) Standing(a netip.Addr) (set Set, known bool) {
	p := e.shown.Load()
	if p == nil {
		return 0, false
	}
	return p.standing(a), true
}
