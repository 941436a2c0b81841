package acl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/access"
)

// countUnknown stands for the number of elements where the kernel does not tell.
const countUnknown = -1

// attrSetCount is NFTA_SET_COUNT of linux/netfilter/nf_tables.h, which is newer
// than the constants of the unix package: the number of elements, 32 bits.
const attrSetCount = 20

// attrHeader is the size of an attribute's header (struct nlattr).
const attrHeader = 4

var errShort = errors.New("attribute reaches past the end of its message")

// payload is what follows the family's header (struct nfgenmsg, 4 bytes).
func payload(msg []byte) []byte {
	if len(msg) < 4 {
		return nil
	}
	return msg[4:]
}

// eachAttr calls f with the type and the value of every attribute in b, which
// is as struct nlattr of linux/netlink.h says: length and type, 16 bits each in
// the machine's order, value, padding to four bytes.
func eachAttr(b []byte, f func(typ uint16, value []byte) error) error {
	const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	for len(b) >= attrHeader {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeader || n > len(b) {
			return errShort
		}
		if err := f(binary.NativeEndian.Uint16(b[2:])&typeMask, b[attrHeader:n]); err != nil {
			return err
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	if len(b) > 0 {
		return errShort
	}
	return nil
}

// setInfo is a set's declaration as the kernel gives it (NFT_MSG_NEWSET).
type setInfo struct {
	flags   uint32
	keyType uint32 // nft's number of the type, 7 is ipv4_addr
	keyLen  uint32 // bytes
	timeout time.Duration
	comment string
	count   int // elements, or countUnknown
}

// parseSet reads a NFT_MSG_NEWSET message.
func parseSet(msg []byte) (setInfo, error) {
	info := setInfo{count: countUnknown}
	err := eachAttr(payload(msg), func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_SET_FLAGS, unix.NFTA_SET_KEY_TYPE, unix.NFTA_SET_KEY_LEN, attrSetCount:
			if len(v) != 4 {
				return fmt.Errorf("set attribute %d: %d bytes, want 4", typ, len(v))
			}
		}
		switch typ {
		case unix.NFTA_SET_FLAGS:
			info.flags = binary.BigEndian.Uint32(v)
		case unix.NFTA_SET_KEY_TYPE:
			info.keyType = binary.BigEndian.Uint32(v)
		case unix.NFTA_SET_KEY_LEN:
			info.keyLen = binary.BigEndian.Uint32(v)
		case unix.NFTA_SET_TIMEOUT:
			info.timeout = milliseconds(v)
		case unix.NFTA_SET_USERDATA:
			info.comment = parseComment(v)
		case attrSetCount:
			info.count = int(binary.BigEndian.Uint32(v))
		}
		return nil
	})
	return info, err
}

// parseComment finds a set's comment in its user data, which nft keeps there as
// type, length, value with one byte each for the first two. The kernel does not
// look into it, so any bytes may be there; what is malformed has no comment.
func parseComment(b []byte) string {
	for len(b) >= 2 {
		typ, n := userdata.Type(b[0]), int(b[1])
		if 2+n > len(b) {
			return ""
		}
		if v := b[2 : 2+n]; typ == userdata.NFTNL_UDATA_SET_COMMENT {
			if n > 0 && v[n-1] == 0 {
				v = v[:n-1]
			}
			return string(v)
		}
		b = b[2+n:]
	}
	return ""
}

// element is one set element as the kernel gives it.
type element struct {
	key     []byte // nil: none, such as the catch-all element
	verdict []byte // of a map of verdicts: its attributes
	flags   uint32 // NFT_SET_ELEM_...
	timeout time.Duration
	expires time.Duration // until then; zero: never
	counter access.Counter
}

// eachElement calls f with each element of a NFT_MSG_NEWSETELEM message.
func eachElement(msg []byte, f func(element) error) error {
	return eachAttr(payload(msg), func(typ uint16, list []byte) error {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return eachAttr(list, func(_ uint16, b []byte) error {
			e, err := parseElement(b)
			if err != nil {
				return err
			}
			return f(e)
		})
	})
}

// attrExpressions is NFTA_SET_ELEM_EXPRESSIONS of linux/netfilter/nf_tables.h:
// a list where NFTA_SET_ELEM_EXPR holds one.
const attrExpressions = 11

// parseElement reads one element.
func parseElement(b []byte) (element, error) {
	var e element
	err := eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_FLAGS:
			if len(v) == 4 {
				e.flags = binary.BigEndian.Uint32(v)
			}
		case unix.NFTA_SET_ELEM_KEY:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.NFTA_DATA_VALUE {
					e.key = v
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_DATA:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.NFTA_DATA_VERDICT {
					e.verdict = v
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.timeout = milliseconds(v)
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.expires = milliseconds(v)
		case unix.NFTA_SET_ELEM_EXPR:
			return parseCounter(v, &e.counter)
		case attrExpressions:
			return eachAttr(v, func(_ uint16, v []byte) error { return parseCounter(v, &e.counter) })
		}
		return nil
	})
	return e, err
}

func milliseconds(v []byte) time.Duration {
	if len(v) != 8 {
		return 0
	}
	return time.Duration(min(binary.BigEndian.Uint64(v), uint64(math.MaxInt64/time.Millisecond))) * time.Millisecond
}

// parseCounter reads an expression if it is a counter.
func parseCounter(b []byte, c *access.Counter) error {
	name, data := "", []byte(nil)
	err := eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = strings.TrimRight(string(v), "\x00")
		case unix.NFTA_EXPR_DATA:
			data = v
		}
		return nil
	})
	if err != nil || name != "counter" {
		return err
	}
	return eachAttr(data, func(typ uint16, v []byte) error {
		switch {
		case len(v) != 8:
		case typ == unix.NFTA_COUNTER_BYTES:
			c.Bytes = binary.BigEndian.Uint64(v)
		case typ == unix.NFTA_COUNTER_PACKETS:
			c.Packets = binary.BigEndian.Uint64(v)
		}
		return nil
	})
}

// parseChain reads a NFT_MSG_NEWCHAIN message as far as the library does not.
func parseChain(msg []byte) (table, name string, devices []string, err error) {
	const deviceName, hookDevices = 1, 4 // NFTA_DEVICE_NAME, NFTA_HOOK_DEVS of linux/netfilter/nf_tables.h
	word := func(v []byte) string { return strings.TrimRight(string(v), "\x00") }
	err = eachAttr(payload(msg), func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = word(v)
		case unix.NFTA_CHAIN_NAME:
			name = word(v)
		case unix.NFTA_CHAIN_HOOK:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ != hookDevices {
					return nil
				}
				return eachAttr(v, func(typ uint16, v []byte) error {
					if typ == deviceName {
						devices = append(devices, word(v))
					}
					return nil
				})
			})
		}
		return nil
	})
	return table, name, devices, err
}

// reading gathers the elements of a set as the kernel gives them.
type reading struct {
	set     access.Set
	keys    []byte
	ends    []end // of intervals
	n       int   // elements, of the kernel's counting
	strange int   // of them those that no set of ours has, such as the catch-all element
}

// end is the beginning of an interval, or the address behind its last.
type end struct {
	at    uint32
	start bool
}

func (r *reading) add(e element) {
	r.n++
	switch {
	case isInterval(r.set) && e.flags&^unix.NFT_SET_ELEM_INTERVAL_END == 0 && len(e.key) == 4:
		r.ends = append(r.ends, end{binary.BigEndian.Uint32(e.key), e.flags == 0})
	case !isInterval(r.set) && e.flags == 0 && len(e.key) == r.set.Width():
		r.keys = append(r.keys, e.key...)
	default:
		r.strange++
	}
}

// done returns the keys of what was read, sorted. repeats are those that came twice.
func (r *reading) done() (keys access.Keys, repeats int) {
	if isInterval(r.set) {
		return r.prefixes()
	}
	keys = r.set.Sorted(access.Keys(r.keys))
	return keys, (len(r.keys) - len(keys)) / r.set.Width()
}

// prefixes joins the ends of intervals. nft puts an end before the first
// interval of a set, which says nothing.
func (r *reading) prefixes() (_ access.Keys, repeats int) {
	ends := r.ends
	slices.SortFunc(ends, func(a, b end) int {
		if a.at != b.at {
			return cmp.Compare(a.at, b.at)
		}
		switch {
		case a.start == b.start:
			return 0
		case b.start: // an interval ends before the next begins
			return -1
		default:
			return 1
		}
	})
	all := len(ends)
	ends = slices.Compact(ends)
	var keys []byte
	for i, e := range ends {
		if !e.start {
			continue
		}
		size := uint64(1)<<32 - uint64(e.at)
		if i+1 < len(ends) {
			size = uint64(ends[i+1].at) - uint64(e.at)
		}
		if size == 0 || size&(size-1) != 0 || uint64(e.at)&(size-1) != 0 {
			r.strange++ // a range that is no prefix
			continue
		}
		keys = append(binary.BigEndian.AppendUint32(keys, e.at), byte(32-bits.TrailingZeros64(size)))
	}
	return access.Keys(keys), all - len(ends)
}
