package record

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

type prf func(label string, n ...uint64) [32]byte

// ipMasker maps IPv4 addresses one to one. Each /16 gets one of the ranges
// that nobody owns; below it, addresses that share their first bits share as
// many of them afterwards. Addresses from 128.0.0.0 up stay up there as long as
// room lasts, for old PHP prints those as negative numbers.
type ipMasker struct {
	prf     prf
	low     []uint16 // free /16 for addresses below 128.0.0.0
	high    []uint16
	given   map[uint16]uint16
	third   map[uint16]*[256]byte
	fourth  map[uint32]*[256]byte
	crowded int // /16 that had to share a range: there were more than 4096
}

func newIPMasker(rng *rand.Rand, f prf) ipMasker {
	m := ipMasker{prf: f, given: map[uint16]uint16{}, third: map[uint16]*[256]byte{}, fourth: map[uint32]*[256]byte{}}
	add := func(to *[]uint16, from, to16 uint16) {
		var r []uint16
		for n := int(from); n <= int(to16); n++ {
			r = append(r, uint16(n))
		}
		rng.Shuffle(len(r), func(i, j int) { r[i], r[j] = r[j], r[i] })
		*to = append(*to, r...)
	}
	add(&m.low, 100<<8|64, 100<<8|127) // 100.64.0.0/10, of carriers (RFC 6598)
	add(&m.low, 10<<8, 10<<8|255)      // 10.0.0.0/8 (RFC 1918)
	add(&m.high, 198<<8|18, 198<<8|19) // 198.18.0.0/15, of benchmarks (RFC 2544)
	add(&m.high, 172<<8|16, 172<<8|31) // 172.16.0.0/12
	add(&m.high, 240<<8, 254<<8|255)   // 240.0.0.0/4, reserved
	return m
}

// keptIP are addresses that name nobody: none, masks, loopback, multicast.
func keptIP(ip uint32) bool {
	return ip < firstInet || ip == 127<<24|1 || ip>>28 == 14 ||
		ip>>24 == 255 && bits.LeadingZeros32(^ip)+bits.TrailingZeros32(ip) == 32 || ip == 0xffffffff
}

func (m *ipMasker) mask(ip uint32) uint32 {
	if keptIP(ip) {
		return ip
	}
	net16 := uint16(ip >> 16)
	to, ok := m.given[net16]
	if !ok {
		to = m.take(net16)
		m.given[net16] = to
		m.third[net16] = permutation(m.prf("third octet", uint64(net16)), false)
	}
	net24 := ip >> 8
	fourth, ok := m.fourth[net24]
	if !ok {
		fourth = permutation(m.prf("fourth octet", uint64(net24)), true)
		m.fourth[net24] = fourth
	}
	return uint32(to)<<16 | uint32(m.third[net16][byte(ip>>8)])<<8 | uint32(fourth[byte(ip)])
}

// take draws a /16.
func (m *ipMasker) take(net16 uint16) uint16 {
	pools := [...]*[]uint16{&m.low, &m.high}
	if net16 >= 1<<15 {
		pools[0], pools[1] = pools[1], pools[0]
	}
	for _, p := range pools {
		for i, to := range *p {
			if to != net16 {
				*p = append((*p)[:i:i], (*p)[i+1:]...)
				return to
			}
		}
	}
	m.crowded++
	r := m.prf("crowded", uint64(net16))
	return 240<<8 | binary.BigEndian.Uint16(r[:])&0x0eff
}

// permutation returns a permutation of the octets in which two that share their
// first n bits share n bits afterwards. With ends, 0, 1, 254 and 255 stay: they
// are what networks, gateways and broadcasts end in.
func permutation(flips [32]byte, ends bool) *[256]byte {
	var out [256]byte
	for v := range 256 {
		node, masked := 1, 0
		for bit := 7; bit >= 0; bit-- {
			b := v >> bit & 1
			flip := int(flips[node>>3]>>(node&7)) & 1
			if edge := node&(node-1) == 0 || node&(node+1) == 0; ends && edge {
				flip = 0
			}
			masked = masked<<1 | b ^ flip
			node = node<<1 | b
		}
		out[v] = byte(masked)
	}
	return &out
}

// Ids from firstID to lastID are mapped in order into a range four times as
// wide; the few between lastID and 1.0.0.0 get what is free above that range.
const (
	firstID = 1000
	lastID  = 1 << 22
	topID   = firstInet - 1<<20
)

// idMasker renumbers ids. It keeps their order, for lists of ids are asked for
// in order and answers come in order; it keeps them below 2^24, where the client
// begins to see addresses.
type idMasker struct {
	prf    prf
	offset uint64
	known  map[uint64]uint64
	top    uint64
}

func newIDMasker(f prf) idMasker {
	r := f("offset of ids")
	return idMasker{prf: f, offset: binary.BigEndian.Uint64(r[:]) % (1 << 20), known: map[uint64]uint64{}}
}

func (m *idMasker) mask(id uint64) uint64 {
	if out, ok := m.known[id]; ok {
		return out
	}
	out := m.draw(id)
	m.known[id] = out
	return out
}

func (m *idMasker) draw(id uint64) uint64 {
	if id >= lastID {
		m.top++
		return topID + m.top%(firstInet-topID)
	}
	// A keyed path down a binary tree: each half of the ids gets a part of the
	// range that is at least as wide.
	lo, hi := uint64(firstID), uint64(lastID)
	from, to := firstID+m.offset, uint64(topID)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		// The spare room is shared about evenly, else most ids would have none.
		r := m.prf("ids", lo, hi)
		spare := to - from - (hi - lo)
		least, play := spare*3/8, spare/4
		if spare < 8 {
			least, play = 0, spare
		}
		split := from + (mid - lo) + least + binary.BigEndian.Uint64(r[:])%(play+1)
		if id < mid {
			hi, to = mid, split
		} else {
			lo, from = mid, split
		}
	}
	r := m.prf("id", id)
	return from + binary.BigEndian.Uint64(r[:])%(to-from)
}
