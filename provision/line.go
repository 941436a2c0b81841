package provision

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
)

// Line says where a subscriber is attached and what addresses it has there: none,
// one or several. What is not known is zero. A line without a host address is vacant:
// a pool may give it one.
type Line struct {
	Subscriber SubscriberID
	Device     DeviceID // zero: not linked to a switch
	PortName   string   // interface name on Device, such as "ge-0/0/5"; may be empty
	Port       uint32   // the ERP's port number on Device, from 1; zero: none
	VLAN       uint16   // zero: not told
	MAC        MAC      // zero: the ERP does not know it yet; on a vacant line: whoever is there
	Owner      Owner    // in a Snapshot, of a vacant line that a pool may give an address: what pools know it by
	Addresses  []Address
}

// Address is what a line has: one address of a host or a whole subnet, by its kind.
type Address struct {
	Kind   AddressKind
	Prefix netip.Prefix // of a host as long as its address is
}

// AddressKind says how an address belongs to its line. Its zero value is invalid.
type AddressKind uint8

// The kinds of addresses, in the order in which a line of a Snapshot has them.
const (
	Host4   AddressKind = iota + 1 // an IPv4 address that DHCP gives to a client
	Routed4                        // an IPv4 subnet that is routed to the line
)

// String returns host4, routed4 or invalid.
func (k AddressKind) String() string {
	switch k {
	case Host4:
		return "host4"
	case Routed4:
		return "routed4"
	}
	return "invalid"
}

// Hosts4 returns addresses as a line has them. Invalid ones are left out.
func Hosts4(ips ...netip.Addr) []Address {
	var out []Address
	for _, ip := range ips {
		if ip.IsValid() {
			out = append(out, Address{Host4, netip.PrefixFrom(ip, ip.BitLen())})
		}
	}
	return out
}

// Hosts4 returns the IPv4 addresses that clients on the line get, ascending.
func (l *Line) Hosts4() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for i := range l.Addresses {
			if a := &l.Addresses[i]; a.Kind == Host4 && !yield(a.Prefix.Addr()) {
				return
			}
		}
	}
}

// Vacant reports whether no client on the line has an address by the ERP.
func (l *Line) Vacant() bool { return len(l.Addresses) == 0 || l.Addresses[0].Kind != Host4 }

// first returns the lowest host address of a line that is not vacant.
func (l *Line) first() netip.Addr { return l.Addresses[0].Prefix.Addr() }

// HasPort reports whether the line names an access port, by number or name.
func (l *Line) HasPort() bool { return l.Device != 0 && (l.Port != 0 || l.PortName != "") }

// SamePort reports whether two lines name the same access port; a number or name
// that one of them lacks is no difference, for sources differ in what they tell.
func (l *Line) SamePort(o *Line) bool {
	if l.Device != o.Device {
		return false
	}
	if l.Port != 0 && o.Port != 0 {
		return l.Port == o.Port
	}
	if l.PortName != "" && o.PortName != "" {
		return l.PortName == o.PortName
	}
	return o.HasPort()
}

// KeepsPort reports whether whoever is found by the access port of another line is found by that of l: on the same switch, with each of
// number and name that the other has.
func (l *Line) KeepsPort(other *Line) bool {
	return l.Device == other.Device && (other.Port == 0 || l.Port == other.Port) && (other.PortName == "" || l.PortName == other.PortName)
}

// compareLines is a total order of lines, whatever addresses they have.
func compareLines(a, b *Line) int {
	return cmp.Or(comparePorts(a, b), compareMAC(a.MAC, b.MAC), cmp.Compare(a.VLAN, b.VLAN))
}

// compareVacant is that of vacant ones: on one port those with a MAC come first.
func compareVacant(a, b *Line) int {
	return cmp.Or(comparePorts(a, b), compareMAC(b.MAC, a.MAC), cmp.Compare(a.VLAN, b.VLAN))
}

func comparePorts(a, b *Line) int {
	return cmp.Or(cmp.Compare(a.Subscriber, b.Subscriber), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Port, b.Port), cmp.Compare(a.PortName, b.PortName))
}

// sameGroup reports whether two lines stand together in a Snapshot: on one port by
// number or, without one, by name.
func sameGroup(a, b *Line) bool {
	return a.Device == b.Device && a.Port == b.Port && (a.Port != 0 || a.PortName == b.PortName)
}

func sameExactPort(a, b *Line) bool {
	return a.Device == b.Device && a.Port == b.Port && a.PortName == b.PortName
}

// Lines are lines of a Snapshot, in the order of the look-up that found them: those that
// are not vacant by their lowest address, then the vacant ones by subscriber, port and MAC.
// They belong to the Snapshot and must not be written to.
type Lines struct {
	of   []Line
	refs []uint32 // places in of; nil: all of it
}

// Len returns the number of lines.
func (x Lines) Len() int {
	if x.refs != nil {
		return len(x.refs)
	}
	return len(x.of)
}

// At returns a line, counted from 0.
func (x Lines) At(i int) *Line {
	if x.refs != nil {
		return &x.of[x.refs[i]]
	}
	return &x.of[i]
}

// Slice returns the lines from lo to before hi.
func (x Lines) Slice(lo, hi int) Lines {
	if x.refs != nil {
		return Lines{x.of, x.refs[lo:hi]}
	}
	return Lines{of: x.of[lo:hi]}
}

// All returns every line.
func (x Lines) All() iter.Seq[*Line] {
	return func(yield func(*Line) bool) {
		for i := range x.Len() {
			if !yield(x.At(i)) {
				return
			}
		}
	}
}

// ownerLen is the most bytes that an Owner has: with its length it then takes the room
// that a MAC and its padding took in a Line and in a pool's slot.
const ownerLen = 11

// Owner is whom a pool keeps an address for: bytes that are compared and mean nothing. Today
// they are a client's MAC or the key of a vacant line, both of six bytes, or a MAC with a hash of its line; what is longer, such as
// DUID and IAID, goes in as a hash, for which 88 bits are enough: who finds two of his
// own that agree has won nothing. A value of fixed size and not a text, so that a table of a million needs no
// further memory and the packet path none at all. The zero value is nobody.
type Owner struct {
	n uint8
	b [ownerLen]byte
}

// Owner returns whom a pool knows a client with this MAC as; nobody for the zero MAC.
func (m MAC) Owner() Owner {
	var o Owner
	if !m.IsZero() {
		o.n = uint8(copy(o.b[:], m[:]))
	}
	return o
}

// OwnerOn returns whom a pool knows a client with this MAC as on one line, which is told by a number.
func (m MAC) OwnerOn(line uint64) Owner {
	o := m.Owner()
	if o.n > 0 {
		for ; o.n < ownerLen; o.n++ {
			o.b[o.n] = byte(line)
			line >>= 8
		}
	}
	return o
}

// IsZero reports whether it is nobody.
func (o Owner) IsZero() bool { return o == Owner{} }

// AppendTo appends the bytes, none for nobody.
func (o Owner) AppendTo(b []byte) []byte { return append(b, o.b[:o.n]...) }

// UnmarshalBinary reads what AppendTo wrote.
func (o *Owner) UnmarshalBinary(b []byte) error {
	if len(b) > ownerLen {
		return fmt.Errorf("owner of %d bytes, want at most %d", len(b), ownerLen)
	}
	*o = Owner{}
	o.n = uint8(copy(o.b[:], b))
	return nil
}

// String returns the form of a MAC for six bytes, hexadecimal digits for others.
func (o Owner) String() string {
	if o.n == 6 {
		return MAC(o.b[:6]).String()
	}
	return hex.EncodeToString(o.b[:o.n])
}

// MarshalText implements encoding.TextMarshaler; nobody is empty text.
func (o Owner) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Owner) UnmarshalText(b []byte) error {
	if m, err := ParseMAC(string(b)); err == nil {
		*o = m.Owner()
		return nil
	}
	raw, err := hex.DecodeString(string(b))
	if err != nil {
		return fmt.Errorf("owner %q: not hexadecimal", b)
	}
	return o.UnmarshalBinary(raw)
}
