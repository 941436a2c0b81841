// Package access says what everybody may do: snapshot, leases and configuration
// become sets of a kernel, and an enforcer keeps the kernel equal to them.
package access

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"strings"

	"github.com/usher-agent/usher/provision"
)

// Set names one of the sets of an ACL. Its zero value is invalid.
type Set uint8

// The sets, a closed list. Where an address is in several, the first one counts.
const (
	SetStopped Set = iota + 1
	SetPaused
	SetGuests // who has an address but is nobody's customer
	SetGarden
	SetGuestGarden
	SetResolvers
	SetGuardedDirect // interfaces to which subscribers are linked directly
	SetGuardedVLAN   // interfaces with one subscriber, or few, each
	SetBoundDirect
	SetBoundVLAN
	SetExempt
	SetDHCPServers  // beyond this router
	SetAloneStopped // interfaces of SetGuardedVLAN with stopped subscribers behind them and nobody else
	SetAlonePaused  // the same with paused ones too

	// IPv6 of subscribers, of whom only MAC and interface are known.
	SetIPv6Direct       // interfaces where it is looked at by MAC
	SetStoppedMAC       // of the blocked alone
	SetPausedMAC        // of the blocked alone, guests too
	SetStoppedInterface // behind which only blocked ones are
	SetPausedInterface

	firstNet                                  // the sets of customers' subnets: see Set.Subnets
	setEnd   = firstNet + netKinds*netLengths // one past the last set
)

// descriptor is all that is known of a set. A new set is a line in the table of
// them: plans, counts, names, the declaration in the kernel, its reading and the
// text for people follow from it.
type descriptor struct {
	name   string // in the kernel, in metrics and in JSON
	about  string // what it is for, in its comment in the kernel
	key    []Part // in the kernel's order
	effect effect
}

// effect is what it means to be in a set, and so when elements come and go: what
// lets through is added first and removed last.
type effect uint8

const (
	blocks       effect = iota // an address has no free way any more
	guards                     // what comes in by an interface is looked at
	opens                      // something passes that would not otherwise
	blocksSubnet               // the addresses of a subnet have no free way any more
	cuts                       // what has no address of a subscriber in it is blocked, by its MAC or interface
)

var descriptors = withSubnets([setEnd]descriptor{
	0:                {name: "invalid"},
	SetStopped:       {"stopped", "stopped subscribers", []Part{PartAddr}, blocks},
	SetPaused:        {"paused", "paused subscribers", []Part{PartAddr}, blocks},
	SetGuests:        {"guests", "addresses of nobody's customers", []Part{PartAddr}, blocks},
	SetGarden:        {"garden", "where the paused may go", []Part{PartPrefix}, opens},
	SetGuestGarden:   {"guest_garden", "where guests may go", []Part{PartPrefix}, opens},
	SetResolvers:     {"resolvers", "where both may ask DNS", []Part{PartPrefix}, opens},
	SetGuardedDirect: {"guarded_direct", "guarded interfaces", []Part{PartInterface}, guards},
	SetGuardedVLAN:   {"guarded_vlan", "guarded interfaces", []Part{PartInterface}, guards},
	SetBoundDirect:   {"bound_direct", "sources they let in", []Part{PartAddr, PartMAC}, opens},
	SetBoundVLAN:     {"bound_vlan", "sources they let in", []Part{PartInterface, PartAddr}, opens},
	SetExempt:        {"exempt", "sources they let in always", []Part{PartPrefix}, opens},
	SetDHCPServers:   {"dhcp_servers", "DHCP servers beyond this router", []Part{PartPrefix}, opens},
	SetAloneStopped:  {"alone_stopped", "interfaces of stopped subscribers alone", []Part{PartInterface}, guards},
	SetAlonePaused:   {"alone_paused", "interfaces of paused subscribers alone", []Part{PartInterface}, guards},

	SetIPv6Direct:       {"ipv6_direct", "where IPv6 is blocked by MAC", []Part{PartInterface}, guards},
	SetStoppedMAC:       {"stopped_mac", "of the stopped, for IPv6", []Part{PartEther}, cuts},
	SetPausedMAC:        {"paused_mac", "of the paused and of guests, for IPv6", []Part{PartEther}, cuts},
	SetStoppedInterface: {"stopped_ifname", "only stopped ones behind it, for IPv6", []Part{PartInterface}, cuts},
	SetPausedInterface:  {"paused_ifname", "only blocked ones behind it, for IPv6", []Part{PartInterface}, cuts},
})

// Sets returns the sets in their order.
func Sets() iter.Seq[Set] {
	return func(yield func(Set) bool) {
		for s := SetStopped; s < setEnd; s++ {
			if !yield(s) {
				return
			}
		}
	}
}

func (s Set) descriptor() *descriptor {
	if s >= setEnd {
		s = 0
	}
	return &descriptors[s]
}

// String returns the set's name, which it has in the kernel too.
func (s Set) String() string { return s.descriptor().name }

// About says what the set is for.
func (s Set) About() string { return s.descriptor().about }

// Key returns the parts of the set's keys in the kernel's order. It must not be
// written to.
func (s Set) Key() []Part { return s.descriptor().key }

// Of reports whether the set's keys are that part and nothing else.
func (s Set) Of(p Part) bool { return len(s.Key()) == 1 && s.Key()[0] == p }

// Blocks reports whether what is in the set is blocked: an address, a subnet, a MAC or an interface. Who goes from one
// such set to another has to be in one of them all the time.
func (s Set) Blocks() bool {
	switch s.descriptor().effect {
	case blocks, blocksSubnet, cuts:
		return s != 0 && s < setEnd
	default:
		return false
	}
}

// Width is the size of the set's keys in bytes.
func (s Set) Width() int {
	n := 0
	for _, p := range s.Key() {
		n += p.Width()
	}
	return n
}

// lead is where the address stands in a key: elements are in its order.
func (s Set) lead() int {
	n := 0
	for _, p := range s.Key() {
		if _, net := p.Bits(); net || p == PartAddr || p == PartPrefix {
			return n
		}
		n += p.Width()
	}
	return 0
}

// Part is what a part of a key is. A set has no other properties of its
// elements: IPv6 is one more Part, of 16 bytes. Prefixes of one length, which need no
// intervals but a mask, are a Part each: see PartSubnet.
type Part uint8

// The parts, a closed list.
const (
	PartAddr      Part = iota + 1 // an IPv4 address
	PartPrefix                    // an IPv4 prefix: its address and its length in bits. The kernel keeps it as an interval
	PartMAC                       // filled up to a multiple of four bytes, as each part of a concatenation
	PartInterface                 // a name, filled up with zeros
	PartEther                     // a MAC that is a key of its own
)

// nameLen is the size of an interface's name in a key (IFNAMSIZ), with its end mark.
const nameLen = 16

// Width is the size of the part in bytes.
func (p Part) Width() int {
	switch p {
	case PartPrefix:
		return 4 + 1
	case PartMAC:
		return 6 + 2
	case PartInterface:
		return nameLen
	case PartEther:
		return 6
	default:
		return 4
	}
}

// Fields are what an element consists of, for people. Which of them it has
// follows from the key of its set.
type Fields struct {
	Addr      netip.Addr
	Prefix    netip.Prefix
	MAC       provision.MAC
	Interface string
}

// append appends the part as the kernel has it, or returns an error for what no
// key can hold.
func (p Part) append(dst []byte, f Fields) ([]byte, error) {
	if bits, net := p.Bits(); net {
		return appendSubnet(dst, f, bits)
	}
	switch p {
	case PartPrefix:
		if !f.Prefix.IsValid() || !f.Prefix.Addr().Is4() || f.Prefix.Masked() != f.Prefix {
			return dst, fmt.Errorf("%s: not an IPv4 prefix", f.Prefix)
		}
		four := f.Prefix.Addr().As4()
		return append(append(dst, four[:]...), byte(f.Prefix.Bits())), nil
	case PartMAC:
		return append(append(dst, f.MAC[:]...), 0, 0), nil
	case PartEther:
		return append(dst, f.MAC[:]...), nil
	case PartInterface:
		if f.Interface == "" || len(f.Interface) >= nameLen {
			return dst, fmt.Errorf("interface %q: want a name of 1 to %d bytes", f.Interface, nameLen-1)
		}
		var name [nameLen]byte
		copy(name[:], f.Interface)
		return append(dst, name[:]...), nil
	default:
		addr := f.Addr.Unmap()
		if !addr.Is4() {
			return dst, fmt.Errorf("%s: not an IPv4 address", addr)
		}
		four := addr.As4()
		return append(dst, four[:]...), nil
	}
}

// read is the reverse of append: it reads the part at the beginning of key.
func (p Part) read(key string, f *Fields) {
	if bits, net := p.Bits(); net {
		f.Prefix = netip.PrefixFrom(addr4(key), bits)
		return
	}
	switch p {
	case PartPrefix:
		f.Prefix = netip.PrefixFrom(addr4(key), int(key[4]))
	case PartMAC, PartEther:
		copy(f.MAC[:], key)
	case PartInterface:
		f.Interface = strings.TrimRight(key[:nameLen], "\x00")
	default:
		f.Addr = addr4(key)
	}
}

func addr4(key string) netip.Addr {
	return netip.AddrFrom4([4]byte{key[0], key[1], key[2], key[3]})
}

// Text returns what the part is in the fields of an element.
func (p Part) Text(f Fields) string {
	if _, net := p.Bits(); net {
		return f.Prefix.String()
	}
	switch p {
	case PartPrefix:
		return f.Prefix.String()
	case PartMAC, PartEther:
		return f.MAC.String()
	case PartInterface:
		return f.Interface
	default:
		return f.Addr.String()
	}
}

// Element is one element of a set.
type Element struct {
	Set Set
	Key string // the parts as the kernel has them, behind each other
}

// Element returns the element of the set that consists of the fields, or an
// error for what no such set can hold.
func (s Set) Element(f Fields) (Element, error) {
	key, err := s.appendKey(nil, f)
	return Element{s, string(key)}, err
}

func (s Set) appendKey(dst []byte, f Fields) ([]byte, error) {
	out, err := dst, error(nil)
	for _, p := range s.Key() {
		if out, err = p.append(out, f); err != nil {
			return dst, err
		}
	}
	return out, nil
}

// Fields returns what the element consists of.
func (e Element) Fields() Fields {
	var f Fields
	at := 0
	for _, p := range e.Set.Key() {
		p.read(e.Key[at:], &f)
		at += p.Width()
	}
	return f
}

// String returns the parts of the element, in the order of its key in the kernel.
func (e Element) String() string {
	var b strings.Builder
	f := e.Fields()
	for i, p := range e.Set.Key() {
		if i > 0 {
			b.WriteString(" . ")
		}
		b.WriteString(p.Text(f))
	}
	return b.String()
}

// number is an IPv4 address as a number, and addrOf the reverse.
func number(a netip.Addr) uint32 {
	four := a.As4()
	return binary.BigEndian.Uint32(four[:])
}

func addrOf(n uint32) netip.Addr {
	var four [4]byte
	binary.BigEndian.PutUint32(four[:], n)
	return netip.AddrFrom4(four)
}
