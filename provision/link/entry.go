package link

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// match picks the entries of the connection table that have an address of some
// prefixes at either end: the source of the original tuple is who opened the
// connection, the source of the reply tuple who answers, both without what address
// translation puts in their place. These are also the addresses that a rule in the
// forward hook sees.
type match struct {
	masks []uint32 // of the lengths in use: an address is looked up once for each
	of    map[prefix]struct{}
}

// prefix is an IPv4 prefix.
type prefix struct{ addr, mask uint32 }

func newMatch(of []netip.Prefix) match {
	m := match{of: make(map[prefix]struct{}, len(of))}
	for _, p := range of {
		if !p.Addr().Is4() {
			continue
		}
		four, mask := p.Addr().As4(), access.Mask(p.Bits())
		m.of[prefix{binary.BigEndian.Uint32(four[:]) & mask, mask}] = struct{}{}
		if !slices.Contains(m.masks, mask) {
			m.masks = append(m.masks, mask)
		}
	}
	return m
}

// single returns the addresses if they are no more than most, and no subnet among them.
func (m match) single(most int) (addrs [][4]byte, ok bool) {
	if len(m.of) > most {
		return nil, false
	}
	for p := range m.of {
		if p.mask != access.Mask(32) {
			return nil, false
		}
		addrs = append(addrs, [4]byte(binary.BigEndian.AppendUint32(nil, p.addr)))
	}
	return addrs, true
}

// entry is what names one entry to the kernel: the attributes original tuple,
// zone and id as they came. With the id a new entry of the same tuple is spared.
type entry []byte

// find looks at one message of the dump; ok tells whether the entry is wanted.
// The layout is that of linux/netfilter/nfnetlink_conntrack.h.
func (m match) find(msg []byte) (e entry, ok bool) {
	const familyHeader = 4 // struct nfgenmsg
	if len(msg) < familyHeader {
		return nil, false
	}
	msg = msg[familyHeader:]
	for b := msg; ; {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			break
		}
		if (typ == nl.CTA_TUPLE_ORIG || typ == nl.CTA_TUPLE_REPLY) && m.inTuple(value) {
			ok = true
		}
		b = rest
	}
	if !ok {
		return nil, false
	}
	for b := msg; ; {
		typ, _, whole, rest, more := nextAttr(b)
		if !more {
			return e, true
		}
		if typ == nl.CTA_TUPLE_ORIG || typ == nl.CTA_ZONE || typ == nl.CTA_ID {
			e = append(e, whole...)
		}
		b = rest
	}
}

// inTuple tells whether the source of a tuple is wanted.
func (m match) inTuple(tuple []byte) bool {
	for {
		typ, value, _, rest, more := nextAttr(tuple)
		if !more {
			return false
		}
		if typ == nl.CTA_TUPLE_IP && m.inAddresses(value) {
			return true
		}
		tuple = rest
	}
}

func (m match) inAddresses(b []byte) bool {
	for {
		typ, value, _, rest, more := nextAttr(b)
		if !more {
			return false
		}
		if typ == nl.CTA_IP_V4_SRC && len(value) == 4 {
			addr := binary.BigEndian.Uint32(value)
			for _, mask := range m.masks {
				if _, ok := m.of[prefix{addr & mask, mask}]; ok {
					return true
				}
			}
		}
		b = rest
	}
}

// nextAttr takes the first attribute off b: its type, its value, all of it with
// its padding, and what follows. ok is false at the end and where b is damaged.
func nextAttr(b []byte) (typ uint16, value, whole, rest []byte, ok bool) {
	const header = 4
	const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	if len(b) < header {
		return 0, nil, nil, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < header || n > len(b) {
		return 0, nil, nil, nil, false
	}
	end := min(len(b), (n+3)&^3)
	return binary.NativeEndian.Uint16(b[2:]) & typeMask, b[header:n], b[:end], b[end:], true
}
