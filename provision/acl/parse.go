package acl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
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

// appendElements appends the IPv4 keys of a NFT_MSG_NEWSETELEM message. strange
// counts the elements that are no single address.
func appendElements(keys []uint32, msg []byte) (out []uint32, strange int, err error) {
	err = eachAttr(payload(msg), func(typ uint16, list []byte) error {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return eachAttr(list, func(_ uint16, elem []byte) error {
			key, ok, err := parseElement(elem)
			if err != nil {
				return err
			}
			if !ok {
				strange++
				return nil
			}
			keys = append(keys, key)
			return nil
		})
	})
	return keys, strange, err
}

// parseElement reads one element; ok is false if it is no single IPv4 address.
func parseElement(elem []byte) (key uint32, ok bool, err error) {
	flagged := false
	err = eachAttr(elem, func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_FLAGS:
			flagged = true // the end of an interval or the catch-all element
		case unix.NFTA_SET_ELEM_KEY:
			return eachAttr(v, func(typ uint16, v []byte) error {
				if typ == unix.NFTA_DATA_VALUE && len(v) == 4 {
					key, ok = binary.BigEndian.Uint32(v), true
				}
				return nil
			})
		}
		return nil
	})
	return key, ok && !flagged, err
}
