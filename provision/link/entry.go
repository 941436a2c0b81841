package link

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// match picks the entries of the connection table that have one of the
// addresses at either end: the source of the original tuple is who opened the
// connection, the source of the reply tuple who answers, both without what address
// translation puts in their place. These are also the addresses that a rule in the
// forward hook sees.
type match map[[4]byte]struct{}

func newMatch(addrs []netip.Addr) match {
	m := make(match, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			m[a.As4()] = struct{}{}
		}
	}
	return m
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
			if _, ok := m[[4]byte(value)]; ok {
				return true
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
