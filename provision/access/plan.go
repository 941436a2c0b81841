package access

import (
	"cmp"
	"encoding/json"
	"github.com/usher-agent/usher/provision"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// ACL is the kernel state that follows from the subscribers' states and from
// the configuration: the elements of each set, sorted. In a wanted ACL no
// address is in two of Stopped, Paused and Guests; in an observed one it may be.
// Addresses and prefixes are IPv4; in a wanted ACL no prefix lies in another of
// its list.
type ACL struct {
	Stopped []netip.Addr
	Paused  []netip.Addr
	Guests  []netip.Addr // who has an address but is nobody's customer

	Garden      []netip.Prefix // where the paused may go
	GuestGarden []netip.Prefix // where guests may go
	Resolvers   []netip.Prefix // where both may ask DNS

	Guard SourceGuard
}

// SourceGuard is what may be a source on the interfaces that are guarded. All
// lists are sorted.
type SourceGuard struct {
	Direct      []string        // interfaces to which subscribers are linked directly
	VLAN        []string        // interfaces with one subscriber, or few, each
	BoundDirect []DirectBinding // what may come in by Direct
	BoundVLAN   []VLANBinding   // what may come in by VLAN
	Exempt      []netip.Prefix  // what may come in by any of them
}

// DirectBinding is an address with the only MAC that may use it.
type DirectBinding struct {
	IP  netip.Addr
	MAC provision.MAC
}

// VLANBinding is an address with the only interface that it may come from.
type VLANBinding struct {
	Interface string
	IP        netip.Addr
}

// Len gives the number of elements in all sets.
func (a ACL) Len() int {
	n := 0
	for _, c := range a.Counts() {
		n += c
	}
	return n
}

// SetCounts holds a number for each set, indexed by the set; index 0 is unused.
type SetCounts [setEnd]int

// MarshalJSON gives an object with the sets' names.
func (c SetCounts) MarshalJSON() ([]byte, error) {
	m := make(map[string]int, len(c))
	for s := range Sets() {
		m[s.String()] = c[s]
	}
	return json.Marshal(m)
}

// UnmarshalJSON is the reverse. Names of a later version's sets are passed over.
func (c *SetCounts) UnmarshalJSON(b []byte) error {
	var m map[string]int
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for s := range Sets() {
		c[s] = m[s.String()]
	}
	return nil
}

// Counts gives the number of elements in each set.
func (a ACL) Counts() SetCounts {
	return SetCounts{
		SetStopped: len(a.Stopped), SetPaused: len(a.Paused), SetGuests: len(a.Guests),
		SetGarden: len(a.Garden), SetGuestGarden: len(a.GuestGarden), SetResolvers: len(a.Resolvers),
		SetGuardedDirect: len(a.Guard.Direct), SetGuardedVLAN: len(a.Guard.VLAN),
		SetBoundDirect: len(a.Guard.BoundDirect), SetBoundVLAN: len(a.Guard.BoundVLAN),
		SetExempt: len(a.Guard.Exempt),
	}
}

// Set names one of the sets of an ACL. Its zero value is invalid.
type Set uint8

// The sets, a closed list: their names are metric labels and names in the kernel.
const (
	SetStopped Set = iota + 1
	SetPaused
	SetGuests
	SetGarden
	SetGuestGarden
	SetResolvers
	SetGuardedDirect
	SetGuardedVLAN
	SetBoundDirect
	SetBoundVLAN
	SetExempt

	setEnd // one past the last set
)

// Sets gives the sets in their order.
func Sets() iter.Seq[Set] {
	return func(yield func(Set) bool) {
		for s := SetStopped; s < setEnd; s++ {
			if !yield(s) {
				return
			}
		}
	}
}

// String gives the set's name, which it has in the kernel too.
func (s Set) String() string {
	switch s {
	case SetStopped:
		return "stopped"
	case SetPaused:
		return "paused"
	case SetGuests:
		return "guests"
	case SetGarden:
		return "garden"
	case SetGuestGarden:
		return "guest_garden"
	case SetResolvers:
		return "resolvers"
	case SetGuardedDirect:
		return "guarded_direct"
	case SetGuardedVLAN:
		return "guarded_vlan"
	case SetBoundDirect:
		return "bound_direct"
	case SetBoundVLAN:
		return "bound_vlan"
	case SetExempt:
		return "exempt"
	default:
		return "invalid"
	}
}

// Element is one element of a set. Which fields it has follows from the set.
type Element struct {
	Addr      netip.Addr    // in SetStopped, SetPaused, SetGuests, SetBoundDirect and SetBoundVLAN
	Prefix    netip.Prefix  // in SetGarden, SetGuestGarden, SetResolvers and SetExempt
	MAC       provision.MAC // in SetBoundDirect
	Interface string        // in SetGuardedDirect, SetGuardedVLAN and SetBoundVLAN
}

// String gives what the element has, in the order of its key in the kernel.
func (e Element) String() string {
	var parts []string
	if e.Interface != "" {
		parts = append(parts, e.Interface)
	}
	if e.Prefix.IsValid() {
		parts = append(parts, e.Prefix.String())
	}
	if e.Addr.IsValid() {
		parts = append(parts, e.Addr.String())
	}
	if e.MAC != (provision.MAC{}) {
		parts = append(parts, e.MAC.String())
	}
	return strings.Join(parts, " . ")
}

// Change is one step from an ACL to another.
type Change struct {
	Op  provision.Op
	Set Set
	Element
}

// Plan gives the changes that turn have into want: none if they are equal. All
// additions stand before all removals, so that an address which goes from one
// set to the other is at no time in neither, whatever the batch is cut into.
// For the same reason what lets through is added first and removed last. The
// inputs need not be sorted and are not changed.
func Plan(want, have ACL) []Change {
	want, have = want.Sorted(), have.Sorted()
	return appendMissing(appendMissing(nil, provision.OpAdd, want, have), provision.OpRemove, have, want)
}

// appendMissing appends a change for every element of a that b lacks. Both are sorted.
func appendMissing(out []Change, op provision.Op, a, b ACL) []Change {
	open := func() {
		out = missing(out, op, SetGarden, a.Garden, b.Garden, comparePrefixes, prefixElement)
		out = missing(out, op, SetGuestGarden, a.GuestGarden, b.GuestGarden, comparePrefixes, prefixElement)
		out = missing(out, op, SetResolvers, a.Resolvers, b.Resolvers, comparePrefixes, prefixElement)
		out = missing(out, op, SetBoundDirect, a.Guard.BoundDirect, b.Guard.BoundDirect, compareDirect, directElement)
		out = missing(out, op, SetBoundVLAN, a.Guard.BoundVLAN, b.Guard.BoundVLAN, compareVLAN, vlanElement)
		out = missing(out, op, SetExempt, a.Guard.Exempt, b.Guard.Exempt, comparePrefixes, prefixElement)
	}
	if op == provision.OpAdd {
		open()
	}
	out = missing(out, op, SetStopped, a.Stopped, b.Stopped, netip.Addr.Compare, addrElement)
	out = missing(out, op, SetPaused, a.Paused, b.Paused, netip.Addr.Compare, addrElement)
	out = missing(out, op, SetGuests, a.Guests, b.Guests, netip.Addr.Compare, addrElement)
	out = missing(out, op, SetGuardedDirect, a.Guard.Direct, b.Guard.Direct, cmp.Compare[string], interfaceElement)
	out = missing(out, op, SetGuardedVLAN, a.Guard.VLAN, b.Guard.VLAN, cmp.Compare[string], interfaceElement)
	if op == provision.OpRemove {
		open()
	}
	return out
}

func missing[T any](out []Change, op provision.Op, set Set, a, b []T, compare func(T, T) int, element func(T) Element) []Change {
	j := 0
	for _, x := range a {
		found := false
		for ; j < len(b); j++ {
			if c := compare(b[j], x); c >= 0 {
				found = c == 0
				break
			}
		}
		if !found {
			out = append(out, Change{op, set, element(x)})
		}
	}
	return out
}

func addrElement(a netip.Addr) Element      { return Element{Addr: a} }
func prefixElement(p netip.Prefix) Element  { return Element{Prefix: p} }
func directElement(b DirectBinding) Element { return Element{Addr: b.IP, MAC: b.MAC} }
func vlanElement(b VLANBinding) Element     { return Element{Addr: b.IP, Interface: b.Interface} }
func interfaceElement(name string) Element  { return Element{Interface: name} }
func elementAddr(e Element) netip.Addr      { return e.Addr }
func elementPrefix(e Element) netip.Prefix  { return e.Prefix }
func elementDirect(e Element) DirectBinding { return DirectBinding{e.Addr, e.MAC} }
func elementVLAN(e Element) VLANBinding     { return VLANBinding{e.Interface, e.Addr} }
func elementInterface(e Element) string     { return e.Interface }
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
}
func compareDirect(a, b DirectBinding) int {
	return cmp.Or(a.IP.Compare(b.IP), slices.Compare(a.MAC[:], b.MAC[:]))
}
func compareVLAN(a, b VLANBinding) int {
	return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Interface, b.Interface))
}

// Apply gives the ACL after the changes; a itself is left as it is. Adding what
// is there and removing what is not there change nothing.
func (a ACL) Apply(changes []Change) ACL {
	a = a.Sorted()
	bySet := map[Set]map[Element]bool{}
	for _, c := range changes {
		if bySet[c.Set] == nil {
			bySet[c.Set] = map[Element]bool{}
		}
		bySet[c.Set][c.Element] = c.Op == provision.OpAdd
	}
	addrs := func(list *[]netip.Addr, set Set) {
		*list = applied(*list, bySet[set], netip.Addr.Compare, addrElement, elementAddr)
	}
	prefixes := func(list *[]netip.Prefix, set Set) {
		*list = applied(*list, bySet[set], comparePrefixes, prefixElement, elementPrefix)
	}
	names := func(list *[]string, set Set) {
		*list = applied(*list, bySet[set], cmp.Compare[string], interfaceElement, elementInterface)
	}
	addrs(&a.Stopped, SetStopped)
	addrs(&a.Paused, SetPaused)
	addrs(&a.Guests, SetGuests)
	prefixes(&a.Garden, SetGarden)
	prefixes(&a.GuestGarden, SetGuestGarden)
	prefixes(&a.Resolvers, SetResolvers)
	prefixes(&a.Guard.Exempt, SetExempt)
	names(&a.Guard.Direct, SetGuardedDirect)
	names(&a.Guard.VLAN, SetGuardedVLAN)
	a.Guard.BoundDirect = applied(a.Guard.BoundDirect, bySet[SetBoundDirect], compareDirect, directElement, elementDirect)
	a.Guard.BoundVLAN = applied(a.Guard.BoundVLAN, bySet[SetBoundVLAN], compareVLAN, vlanElement, elementVLAN)
	return a
}

func applied[T any](list []T, in map[Element]bool, compare func(T, T) int, to func(T) Element, from func(Element) T) []T {
	if len(in) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(in))
	for _, x := range list {
		if _, changed := in[to(x)]; !changed {
			out = append(out, x)
		}
	}
	for e, present := range in {
		if present {
			out = append(out, from(e))
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// Sorted gives the ACL with every list in order and without repeats. Lists that
// are so already are shared with a, which is left as it is.
func (a ACL) Sorted() ACL {
	return ACL{
		Stopped: sorted(a.Stopped), Paused: sorted(a.Paused), Guests: sorted(a.Guests),
		Garden:      sortedBy(a.Garden, comparePrefixes),
		GuestGarden: sortedBy(a.GuestGarden, comparePrefixes),
		Resolvers:   sortedBy(a.Resolvers, comparePrefixes),
		Guard: SourceGuard{
			Direct: sortedBy(a.Guard.Direct, cmp.Compare[string]), VLAN: sortedBy(a.Guard.VLAN, cmp.Compare[string]),
			BoundDirect: sortedBy(a.Guard.BoundDirect, compareDirect), BoundVLAN: sortedBy(a.Guard.BoundVLAN, compareVLAN),
			Exempt: sortedBy(a.Guard.Exempt, comparePrefixes),
		},
	}
}

// sorted gives addrs in order and without repeats, itself if it is so already.
func sorted(addrs []netip.Addr) []netip.Addr { return sortedBy(addrs, netip.Addr.Compare) }

func sortedBy[T comparable](list []T, compare func(T, T) int) []T {
	for i := 1; i < len(list); i++ {
		if compare(list[i-1], list[i]) >= 0 {
			list = slices.Clone(list)
			slices.SortFunc(list, compare)
			return slices.Compact(list)
		}
	}
	return list
}

// newlyBlocked gives the addresses that may do less by want than by have,
// sorted: those newly stopped, and those newly paused or guests that were in no
// set. Who is paused instead of stopped had no flows to lose.
func newlyBlocked(want, have ACL) []netip.Addr {
	stopped, paused, guests := sorted(have.Stopped), sorted(have.Paused), sorted(have.Guests)
	var out []netip.Addr
	for _, a := range want.Stopped {
		if !contains(stopped, a) {
			out = append(out, a)
		}
	}
	for _, addrs := range [][]netip.Addr{want.Paused, want.Guests} {
		for _, a := range addrs {
			if !contains(stopped, a) && !contains(paused, a) && !contains(guests, a) {
				out = append(out, a)
			}
		}
	}
	return sorted(out)
}

// freed gives the addresses that are in a set by have and in none by want, sorted.
func freed(want, have ACL) []netip.Addr {
	stopped, paused, guests := sorted(want.Stopped), sorted(want.Paused), sorted(want.Guests)
	var out []netip.Addr
	for _, addrs := range [][]netip.Addr{have.Stopped, have.Paused, have.Guests} {
		for _, a := range addrs {
			if !contains(stopped, a) && !contains(paused, a) && !contains(guests, a) {
				out = append(out, a)
			}
		}
	}
	return sorted(out)
}

func contains(addrs []netip.Addr, a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(addrs, a, netip.Addr.Compare)
	return ok
}
