package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
)

// The stored form of a record, version 4, numbers big-endian:
//
//	version(1) state(1) mac(6) subscriber(8) device(8) port(4) giaddr(4) ifindex(4)
//	start(8) renewed(8) expires(8)    milliseconds since 1970
//	interface, client id, option 82, pool, key, the ERP's MACs   each length(2) and bytes
//	crc32c(4)                         of the key and all of the above
//
// Prior is not stored. The key is the address, 4 bytes. Version 1 has no pool, version 2 no key
// of a vacant line, version 3 nothing of the ERP; all are still read.
const (
	encodingVersion = 4
	versionPoolless = 1
	versionKeyless  = 2
	versionERPless  = 3
	fixedLen        = 2 + 6 + 8 + 8 + 4 + 4 + 4 + 3*8
	crcLen          = 4
)

// errRecord is wrapped by every error of decode.
var errRecord = errors.New("bad stored lease")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the standard library

// encode appends the stored form of r to dst. Texts too long for the wire are cut.
func encode(dst []byte, r *Record) []byte {
	base := len(dst)
	dst = append(dst, encodingVersion, byte(r.State))
	dst = append(dst, r.MAC[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Subscriber))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Device))
	dst = binary.BigEndian.AppendUint32(dst, r.Port)
	dst = binary.BigEndian.AppendUint32(dst, ipKey(r.GIAddr))
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Ifindex))
	for _, t := range [...]time.Time{r.Start, r.Renewed, r.Expires} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.UnixMilli()))
	}
	dst = appendBytes(dst, r.Interface)
	dst = appendBytes(dst, r.ClientID)
	dst = appendBytes(dst, r.Option82)
	dst = appendBytes(dst, r.Pool)
	var room [64]byte
	dst = appendBytes(dst, r.Key.AppendTo(room[:0]))
	dst = appendBytes(dst, r.ERP.appendTo(room[:0]))
	return binary.BigEndian.AppendUint32(dst, checksum(ipKey(r.IP), dst[base:]))
}

func appendBytes[T ~string | ~[]byte](dst []byte, b T) []byte {
	b = b[:min(len(b), math.MaxUint16)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(b)))
	return append(dst, b...)
}

func checksum(ip uint32, body []byte) uint32 {
	var key [4]byte
	binary.BigEndian.PutUint32(key[:], ip)
	return crc32.Update(crc32.Checksum(key[:], castagnoli()), castagnoli(), body)
}

// decode reads what encode wrote; it copies everything out of v.
func decode(key, v []byte) (Record, error) {
	var r Record
	err := (&decoder{texts: make([]byte, min(len(v), textRoom/8))}).decode(&r, key, v) // room for one
	return r, err
}

// decoder reads many records, of which a few hundred names of interfaces and pools serve all.
type decoder struct {
	names map[string]string
	last  [2]string // mostly those of the record before
	texts []byte    // room for those of the next records, which need not be asked for one by one
	table *crc32.Table
}

// textRoom is how much room for texts is made at once; it is free again when none of its records is there any more.
const textRoom = 8 << 10

// name returns a name that is the same for all records.
func (d *decoder) name(which int, b []byte) string {
	if d.last[which] == string(b) {
		return d.last[which]
	}
	s, ok := d.names[string(b)]
	if !ok {
		s = string(b)
		if d.names == nil {
			d.names = map[string]string{}
		}
		d.names[s] = s
	}
	d.last[which] = s
	return s
}

func (d *decoder) decode(r *Record, key, v []byte) error {
	*r = Record{}
	if len(key) != 4 {
		return fmt.Errorf("%w: key of %d bytes, want 4", errRecord, len(key))
	}
	r.IP = netip.AddrFrom4([4]byte(key))
	switch {
	case len(v) < 1:
		return fmt.Errorf("%w %s: empty", errRecord, r.IP)
	case v[0] < versionPoolless || v[0] > encodingVersion:
		return fmt.Errorf("%w %s: version %d, want up to %d", errRecord, r.IP, v[0], encodingVersion)
	case len(v) < fixedLen+3*2+crcLen:
		return fmt.Errorf("%w %s: %d bytes", errRecord, r.IP, len(v))
	}
	body := v[:len(v)-crcLen]
	if d.table == nil {
		d.table = castagnoli()
	}
	if crc32.Update(crc32.Update(0, d.table, key), d.table, body) != binary.BigEndian.Uint32(v[len(body):]) {
		return fmt.Errorf("%w %s: checksum does not match", errRecord, r.IP)
	}
	r.State = State(body[1])
	if r.State < StateBound || r.State > StateQuarantined {
		return fmt.Errorf("%w %s: state %d", errRecord, r.IP, body[1])
	}
	r.MAC = provision.MAC(body[2:8])
	r.Subscriber = provision.SubscriberID(binary.BigEndian.Uint64(body[8:]))
	r.Device = provision.DeviceID(binary.BigEndian.Uint64(body[16:]))
	r.Port = binary.BigEndian.Uint32(body[24:])
	if gi := [4]byte(body[28:32]); gi != [4]byte{} {
		r.GIAddr = netip.AddrFrom4(gi)
	}
	r.Ifindex = int(binary.BigEndian.Uint32(body[32:]))
	for i, t := range [...]*time.Time{&r.Start, &r.Renewed, &r.Expires} {
		*t = time.UnixMilli(int64(binary.BigEndian.Uint64(body[36+8*i:]))).UTC()
	}
	rest := body[fixedLen:]
	var parts [6][]byte
	texts := len(parts)
	switch v[0] {
	case versionPoolless:
		texts -= 3
	case versionKeyless:
		texts -= 2
	case versionERPless:
		texts--
	}
	for i := range texts {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return fmt.Errorf("%w %s: text %d runs past the end", errRecord, r.IP, i)
		}
		n := int(binary.BigEndian.Uint16(rest))
		parts[i], rest = rest[2:2+n], rest[2+n:]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w %s: %d bytes left over", errRecord, r.IP, len(rest))
	}
	r.Interface, r.Pool = d.name(0, parts[0]), d.name(1, parts[3])
	r.ClientID, r.Option82 = d.text(parts[1]), d.text(parts[2])
	if err := r.Key.UnmarshalBinary(parts[4]); err != nil {
		return fmt.Errorf("%w %s: %w", errRecord, r.IP, err)
	}
	if err := r.ERP.unmarshal(parts[5]); err != nil {
		return fmt.Errorf("%w %s: %w", errRecord, r.IP, err)
	}
	return nil
}

// text copies one; nil is that of an empty one.
func (d *decoder) text(b []byte) []byte {
	n := len(b)
	switch {
	case n == 0:
		return nil
	case n > textRoom/8:
		return bytes.Clone(b)
	case n > len(d.texts):
		d.texts = make([]byte, textRoom)
	}
	own := d.texts[:n:n]
	d.texts = d.texts[n:]
	copy(own, b)
	return own
}

// ipKey is an IPv4 address as a number; 0 for an invalid one.
func ipKey(ip netip.Addr) uint32 {
	if !ip.Is4() {
		return 0
	}
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

// addrOf is the address of a key.
func addrOf(key uint32) netip.Addr { return netip.AddrFrom4([4]byte(keyBytes(key))) }
