package access

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// Customers' subnets are in sets of their own, one for each length in use and kind: an interval set of them would
// cost milliseconds a change. A rule looks an address up with the bits behind the length cut off. Such a
// set is made when it gets its first element; see Optional.

const (
	netKinds   = 4 // stopped, paused, bound_direct, bound_vlan
	netLengths = 32 - provision.MinSubnetBits + 1
)

// partSubnet is the Part of prefixes of no bits, which there is not; those of other lengths follow.
const partSubnet Part = 64

// PartSubnet is the part of an IPv4 prefix of a length: its first address.
func PartSubnet(bits int) Part { return partSubnet + Part(bits) }

// Bits returns the length of the prefixes of a PartSubnet; ok is false for other parts.
func (p Part) Bits() (bits int, ok bool) { return int(p) - int(partSubnet), p > partSubnet }

// Mask returns what is left of an address in a key, as a number.
func Mask(bits int) uint32 { return uint32(^uint64(0) << (32 - bits)) }

// kinds are the sets of addresses that have sets of subnets.
var kinds = [netKinds]Set{SetStopped, SetPaused, SetBoundDirect, SetBoundVLAN}

// Subnets returns the set of subnets of a length that is to a set of addresses what it is for whole
// subnets; zero if there is none.
func (s Set) Subnets(bits int) Set {
	for i, kind := range kinds {
		if kind == s && bits >= provision.MinSubnetBits && bits <= 32 {
			return firstNet + Set(i*netLengths+32-bits)
		}
	}
	return 0
}

// Subnet returns the set of addresses and the length of a set of subnets; ok is false for others.
func (s Set) Subnet() (kind Set, bits int, ok bool) {
	if !s.Optional() {
		return 0, 0, false
	}
	n := int(s - firstNet)
	return kinds[n/netLengths], 32 - n%netLengths, true
}

// Lengths returns the lengths of subnets that have sets, the longest first.
func Lengths() iter.Seq[int] {
	return func(yield func(int) bool) {
		for bits := 32; bits >= provision.MinSubnetBits; bits-- {
			if !yield(bits) {
				return
			}
		}
	}
}

// Optional reports whether the set is in the kernel only while it is in use.
func (s Set) Optional() bool { return s >= firstNet && s < setEnd }

func withSubnets(d [setEnd]descriptor) [setEnd]descriptor {
	for i, kind := range kinds {
		for bits := range Lengths() {
			of := d[kind]
			s := descriptor{name: fmt.Sprintf("%s_%d", of.name, bits), about: fmt.Sprintf("%s, their /%d", of.about, bits), effect: of.effect}
			if of.effect == blocks {
				s.effect = blocksSubnet
			}
			for _, p := range of.key {
				if p == PartAddr {
					p = PartSubnet(bits)
				}
				s.key = append(s.key, p)
			}
			d[int(firstNet)+i*netLengths+32-bits] = s
		}
	}
	return d
}

// appendSubnet appends the first address of a prefix.
func appendSubnet(dst []byte, f Fields, bits int) ([]byte, error) {
	if !f.Prefix.IsValid() || !f.Prefix.Addr().Is4() || f.Prefix.Masked() != f.Prefix || f.Prefix.Bits() != bits {
		return dst, fmt.Errorf("%s: not an IPv4 prefix of length %d", f.Prefix, bits)
	}
	four := f.Prefix.Addr().As4()
	return append(dst, four[:]...), nil
}

// NetSets are some of the sets of subnets. They are comparable.
type NetSets uint64

// Has reports whether a set is one of them.
func (n NetSets) Has(s Set) bool { return s.Optional() && n>>(s-firstNet)&1 != 0 }

// With returns them and one more.
func (n NetSets) With(s Set) NetSets {
	if s.Optional() {
		n |= 1 << (s - firstNet)
	}
	return n
}

// NetSets returns the sets of subnets that have an element.
func (a *ACL) NetSets() (n NetSets) {
	for s := firstNet; s < setEnd; s++ {
		if len(a[s]) > 0 {
			n = n.With(s)
		}
	}
	return n
}

// netStanding is Standing for what blocks an address with its subnet.
func (a *ACL) netStanding(addr netip.Addr) Set {
	if !addr.Is4() {
		return 0
	}
	n := number(addr)
	for s := firstNet; s < setEnd; s++ {
		if len(a[s]) == 0 || descriptors[s].effect != blocksSubnet {
			continue
		}
		kind, bits, _ := s.Subnet()
		four := addrOf(n & Mask(bits)).As4()
		if s.has(a[s], string(four[:])) {
			return kind
		}
	}
	return 0
}

// netBlocks returns the keys of one length that block, of both kinds, in no order.
func (a *ACL) netBlocks(bits int) Keys {
	s := SetStopped.Subnets(bits)
	return s.Sorted(a[s] + a[SetPaused.Subnets(bits)])
}

// newlyBlockedNets is newlyBlocked for subnets. One that is only cut otherwise than before counts too: it costs
// a look for flows that are not there.
func newlyBlockedNets(want, have *ACL) (out []Element) {
	for bits := range Lengths() {
		stop := SetStopped.Subnets(bits)
		k := stop.minus(want[stop], have[stop])
		if pause := want[SetPaused.Subnets(bits)]; len(pause) > 0 {
			k += stop.minus(pause, have.netBlocks(bits))
		}
		out = appendElements(out, stop, k)
	}
	return out
}

// freedNets is freed for subnets.
func freedNets(want, have *ACL) (out []Element) {
	for bits := range Lengths() {
		s := SetStopped.Subnets(bits)
		if had := have.netBlocks(bits); len(had) > 0 {
			out = appendElements(out, s, s.minus(had, want.netBlocks(bits)))
		}
	}
	return out
}

func appendElements(out []Element, s Set, k Keys) []Element {
	for w := s.Width(); len(k) >= w; k = k[w:] {
		out = append(out, Element{s, string(k[:w])})
	}
	return out
}

// withNets returns addresses, of which k has the keys, and subnets, sorted. A subnet stays
// whole: the ERP may give as many as it likes, of 4096 addresses each.
func withNets(k Keys, nets []Element) []netip.Prefix {
	var out []netip.Prefix
	for e := range (ACL{SetStopped: k}).Elements(SetStopped) {
		out = append(out, netip.PrefixFrom(addr4(e.Key), 32))
	}
	for _, e := range nets {
		out = append(out, e.Fields().Prefix)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// inSubnet reports whether an address lies in a customer's subnet.
func inSubnet(s *provision.Snapshot, ip netip.Addr) bool {
	_, in := s.SubnetOf(ip)
	return in
}
