package acl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// perSet holds one value for each set, indexed by the set; index 0 is unused.
type perSet[T any] [len(access.SetCounts{})]T

// eachSet gives the sets in their order.
func eachSet() iter.Seq[access.Set] { return access.Sets() }

// kind is what the elements of a set are.
type kind uint8

const (
	kindAddr     kind = iota // ipv4_addr
	kindPrefix               // ipv4_addr in an interval set
	kindName                 // ifname
	kindAddrMAC              // ipv4_addr . ether_addr
	kindNameAddr             // ifname . ipv4_addr
)

func kindOf(set access.Set) kind {
	switch set {
	case access.SetGarden, access.SetGuestGarden, access.SetResolvers, access.SetExempt:
		return kindPrefix
	case access.SetGuardedDirect, access.SetGuardedVLAN:
		return kindName
	case access.SetBoundDirect:
		return kindAddrMAC
	case access.SetBoundVLAN:
		return kindNameAddr
	default:
		return kindAddr
	}
}

// nameLen is the size of an interface's name in a key (IFNAMSIZ), with its end mark.
const nameLen = 16

// size is the length of the kind's keys in bytes. Each part of a concatenation
// is padded to four.
func (k kind) size() int {
	switch k {
	case kindName:
		return nameLen
	case kindAddrMAC:
		return 4 + 8
	case kindNameAddr:
		return nameLen + 4
	default:
		return 4
	}
}

// key is an element as the kernel has it, filled up with zeros: the octets of
// an address, then those of a MAC, or a name and then an address. Of a prefix
// the kernel has the two ends; here its length in bits stands behind the address.
type key [nameLen + 4]byte

func (k key) addr(at int) netip.Addr { return netip.AddrFrom4([4]byte(k[at : at+4])) }

func compareKeys(a, b key) int { return bytes.Compare(a[:], b[:]) }

func addrKey(a netip.Addr) key {
	var k key
	b := a.As4()
	copy(k[:], b[:])
	return k
}

// keyOf gives the key of an element, or an error for what no such set can hold.
func keyOf(set access.Set, e access.Element) (key, error) {
	var k key
	what := kindOf(set)
	if what == kindPrefix {
		if p := e.Prefix; !p.IsValid() || !p.Addr().Is4() || p.Masked() != p {
			return k, fmt.Errorf("%s: not an IPv4 prefix", p)
		}
		e.Addr = e.Prefix.Addr()
	}
	if what != kindName {
		e.Addr = e.Addr.Unmap()
		if !e.Addr.Is4() {
			return k, fmt.Errorf("%s: not an IPv4 address", e.Addr)
		}
		k = addrKey(e.Addr)
	}
	switch what {
	case kindPrefix:
		k[4] = byte(e.Prefix.Bits())
	case kindAddrMAC:
		copy(k[4:], e.MAC[:])
	case kindName, kindNameAddr:
		if e.Interface == "" || len(e.Interface) >= nameLen {
			return k, fmt.Errorf("interface %q: want a name of 1 to %d bytes", e.Interface, nameLen-1)
		}
		if what == kindNameAddr {
			copy(k[nameLen:], k[:4])
			clear(k[:4])
		}
		copy(k[:nameLen], e.Interface)
	}
	return k, nil
}

// element is the reverse of keyOf.
func (k key) element(set access.Set) access.Element {
	name := func() string { return string(bytes.TrimRight(k[:nameLen], "\x00")) }
	switch kindOf(set) {
	case kindPrefix:
		return access.Element{Prefix: netip.PrefixFrom(k.addr(0), int(k[4]))}
	case kindName:
		return access.Element{Interface: name()}
	case kindAddrMAC:
		return access.Element{Addr: k.addr(0), MAC: provision.MAC(k[4:10])}
	case kindNameAddr:
		return access.Element{Addr: k.addr(nameLen), Interface: name()}
	default:
		return access.Element{Addr: k.addr(0)}
	}
}

// contents are the elements of the sets, each sorted and without repeats.
type contents perSet[[]key]

func (c contents) acl() access.ACL {
	addrs := func(set access.Set) []netip.Addr {
		out := make([]netip.Addr, len(c[set]))
		for i, k := range c[set] {
			out[i] = k.addr(0)
		}
		return out
	}
	prefixes := func(set access.Set) []netip.Prefix {
		var out []netip.Prefix
		for _, k := range c[set] {
			out = append(out, netip.PrefixFrom(k.addr(0), int(k[4])))
		}
		return out
	}
	names := func(set access.Set) []string {
		var out []string
		for _, k := range c[set] {
			out = append(out, k.element(set).Interface)
		}
		return out
	}
	a := access.ACL{
		Stopped: addrs(access.SetStopped), Paused: addrs(access.SetPaused), Guests: addrs(access.SetGuests),
		Garden: prefixes(access.SetGarden), GuestGarden: prefixes(access.SetGuestGarden), Resolvers: prefixes(access.SetResolvers),
		Guard: access.SourceGuard{
			Direct: names(access.SetGuardedDirect), VLAN: names(access.SetGuardedVLAN),
			Exempt: prefixes(access.SetExempt),
		},
	}
	for _, k := range c[access.SetBoundDirect] {
		e := k.element(access.SetBoundDirect)
		a.Guard.BoundDirect = append(a.Guard.BoundDirect, access.DirectBinding{IP: e.Addr, MAC: e.MAC})
	}
	for _, k := range c[access.SetBoundVLAN] {
		e := k.element(access.SetBoundVLAN)
		a.Guard.BoundVLAN = append(a.Guard.BoundVLAN, access.VLANBinding{Interface: e.Interface, IP: e.Addr})
	}
	return a
}

// batch is a set of changes, each list sorted and without repeats.
type batch struct {
	adds, removes contents
}

func newBatch(changes []access.Change) (batch, error) {
	var b batch
	for i, c := range changes {
		if c.Set == 0 || int(c.Set) >= len(b.adds) {
			return batch{}, fmt.Errorf("change %d: set %d does not exist", i, c.Set)
		}
		k, err := keyOf(c.Set, c.Element)
		if err != nil {
			return batch{}, fmt.Errorf("change %d: %s %w", i, c.Set, err)
		}
		switch c.Op {
		case provision.OpAdd:
			b.adds[c.Set] = append(b.adds[c.Set], k)
		case provision.OpRemove:
			b.removes[c.Set] = append(b.removes[c.Set], k)
		default:
			return batch{}, fmt.Errorf("change %d: operation %d does not exist", i, c.Op)
		}
	}
	for set := range eachSet() {
		b.adds[set], _ = tidy(b.adds[set])
		b.removes[set], _ = tidy(b.removes[set])
		for _, k := range b.removes[set] {
			if _, both := slices.BinarySearchFunc(b.adds[set], k, compareKeys); both {
				return batch{}, fmt.Errorf("%s %s: both added and removed", set, k.element(set))
			}
		}
	}
	return b, nil
}

// tidy sorts keys in place and removes repeats; it gives how many there were.
func tidy(keys []key) (out []key, repeats int) {
	if !slices.IsSortedFunc(keys, compareKeys) {
		slices.SortFunc(keys, compareKeys)
	}
	out = slices.Compact(keys)
	return out, len(keys) - len(out)
}

// len is the number of changes.
func (b batch) len() int {
	n := 0
	for set := range eachSet() {
		n += len(b.adds[set]) + len(b.removes[set])
	}
	return n
}

// each gives the sets that the batch touches.
func (b batch) each() iter.Seq[access.Set] {
	return func(yield func(access.Set) bool) {
		for set := range eachSet() {
			if len(b.adds[set])+len(b.removes[set]) > 0 && !yield(set) {
				return
			}
		}
	}
}

// missingFrom gives the part of the batch that does not hold yet.
func (b batch) missingFrom(have contents) batch {
	var out batch
	for set := range eachSet() {
		out.adds[set] = keep(b.adds[set], have[set], false)
		out.removes[set] = keep(b.removes[set], have[set], true)
	}
	return out
}

// keep gives the keys that are (or are not) in the sorted list.
func keep(keys, list []key, in bool) []key {
	var out []key
	for _, k := range keys {
		if _, found := slices.BinarySearchFunc(list, k, compareKeys); found == in {
			out = append(out, k)
		}
	}
	return out
}

// queue encodes the batch: additions before removals, but where elements may
// overlap the other way round, for the kernel refuses an interval that overlaps
// one which is still there. Within the batch the order is nobody's to see.
func (b batch) queue(c *nftables.Conn) error {
	for set := range eachSet() {
		if kindOf(set) == kindPrefix {
			if err := queueElements(c.SetDeleteElements, set, b.removes[set]); err != nil {
				return err
			}
		}
		if err := queueElements(c.SetAddElements, set, b.adds[set]); err != nil {
			return err
		}
	}
	for set := range eachSet() {
		if kindOf(set) != kindPrefix {
			if err := queueElements(c.SetDeleteElements, set, b.removes[set]); err != nil {
				return err
			}
		}
	}
	return nil
}

// queueElements puts elements into messages of a bounded size.
func queueElements(f func(*nftables.Set, []nftables.SetElement) error, set access.Set, keys []key) error {
	what, declared := kindOf(set), wantSet(set)
	elements := make([]nftables.SetElement, 0, min(2*len(keys), 2*chunk))
	for part := range slices.Chunk(keys, chunk) {
		elements = elements[:0]
		for _, k := range part {
			if what != kindPrefix {
				elements = append(elements, nftables.SetElement{Key: slices.Clone(k[:what.size()])})
				continue
			}
			first, end, open := interval(k)
			elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, first), IntervalOpen: open})
			if !open {
				elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, end), IntervalEnd: true})
			}
		}
		if err := f(declared, elements); err != nil {
			return err
		}
	}
	return nil
}

// interval gives the ends of a prefix as the kernel keeps them: its first
// address and the one behind its last. A prefix up to the last of all addresses
// has no such end.
func interval(k key) (first, end uint32, open bool) {
	first = binary.BigEndian.Uint32(k[:4])
	last := uint64(first) + 1<<(32-uint(k[4]))
	return first, uint32(last), last>>32 != 0
}

// raw is the number of elements that the kernel counts for the keys of a set.
func raw(set access.Set, keys []key) int {
	if kindOf(set) != kindPrefix {
		return len(keys)
	}
	n := 0
	for _, k := range keys {
		n += 2
		if _, _, open := interval(k); open {
			n--
		}
	}
	return n
}

// countFits tells whether the kernel's count of a set is that of n elements. Of
// intervals it counts pairs of ends, as some versions do, or the ends. An
// unknown count fits.
func countFits(set access.Set, count, n int) bool {
	return count == countUnknown || count == n || kindOf(set) == kindPrefix && count == n/2
}
