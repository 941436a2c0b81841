package access

import (
	"net/netip"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/usher-agent/usher/provision/provisiontest"
)

var cmpAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

// pass lets time go by and everything settle that became due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// keys returns the keys of addresses.
func keys(s ...string) Keys { return Addrs(provisiontest.Addrs(s...)...) }

// addrIn is an address as an element of a set.
func addrIn(s Set, a netip.Addr) Element { return Element{s, string(Addrs(a))} }

// listOf returns the elements of a set as something else.
func listOf[T any](a ACL, s Set, of func(Fields) T) []T {
	var out []T
	for e := range a.Elements(s) {
		out = append(out, of(e.Fields()))
	}
	return out
}

func prefixOf(f Fields) netip.Prefix { return f.Prefix }
func interfaceOf(f Fields) string    { return f.Interface }

// addrsIn returns the addresses of prefixes, in their order.
func addrsIn(prefixes []netip.Prefix) (out []netip.Addr) {
	for _, p := range prefixes {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			out = append(out, a)
		}
	}
	return out
}

// addrsOf returns the addresses of which k has the keys.
func addrsOf(k Keys) (out []netip.Addr) {
	for e := range (ACL{SetStopped: k}).Elements(SetStopped) {
		out = append(out, addr4(e.Key))
	}
	return out
}
