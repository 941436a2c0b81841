package lease

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
)

// The stored form of a MAC report, under its address of 4 or 16 bytes:
//
//	version 1 | MAC, 6 bytes | subscriber, 8 bytes | time, nanoseconds since 1970, 8 bytes
//
// numbers in network order.
const (
	reportVersion = 1
	reportLen     = 1 + 6 + 8 + 8
)

// The stored form of how ARP showed the MAC of a report, under the same key in a bucket of its own:
//
//	version 1 | time of the report, 8 bytes | silent MAC, 6 bytes | how often asked, 1 byte | name of the interface
//
// It belongs to the report of that time, so an older usher, which neither looks at it nor
// takes it out, leaves nothing behind that counts.
const (
	sightingVersion = 1
	sightingLen     = 1 + 8 + 6 + 1 // without the name
)

func encodeSighting(r provision.MACReport) []byte {
	v := make([]byte, 0, sightingLen+len(r.ARP.Interface))
	v = append(v, sightingVersion)
	v = binary.BigEndian.AppendUint64(v, uint64(r.At.UnixNano()))
	v = append(v, r.ARP.Silent[:]...)
	v = append(v, r.ARP.Asked)
	return append(v, r.ARP.Interface...)
}

// decodeSighting returns how r was seen by what is kept beside it; zero if that is of
// another report or cannot be read.
func decodeSighting(r provision.MACReport, v []byte) (a provision.ARPSighting) {
	if len(v) < sightingLen || v[0] != sightingVersion || int64(binary.BigEndian.Uint64(v[1:])) != r.At.UnixNano() {
		return a
	}
	return provision.ARPSighting{Silent: provision.MAC(v[9:15]), Asked: v[15], Interface: string(v[sightingLen:])}
}

// The stored form of the packet of a report, under the same key in a bucket of its own, which goes by
// the time as that of a sighting does:
//
//	version 1 | time of the report, 8 bytes | JSON of provision.Packet
const (
	packetVersion = 1
	packetLen     = 1 + 8 // without the JSON
)

func encodePacket(r provision.MACReport) ([]byte, error) {
	v := binary.BigEndian.AppendUint64([]byte{packetVersion}, uint64(r.At.UnixNano()))
	text, err := json.Marshal(r.Packet)
	return append(v, text...), err
}

// decodePacket returns the packet of r by what is kept beside it; zero if that is of another report or cannot be read.
func decodePacket(r provision.MACReport, v []byte) provision.Packet {
	var p provision.Packet
	if len(v) < packetLen || v[0] != packetVersion || int64(binary.BigEndian.Uint64(v[1:])) != r.At.UnixNano() ||
		json.Unmarshal(v[packetLen:], &p) != nil {
		return provision.Packet{}
	}
	return p
}

// The stored form of what a report replaces, under the same key in a bucket of its own, which goes by the
// time, too:
//
//	version 1 | time of the report, 8 bytes | MAC, 6 bytes
const (
	replacedVersion = 1
	replacedLen     = 1 + 8 + 6
)

func encodeReplaced(r provision.MACReport) []byte {
	v := binary.BigEndian.AppendUint64([]byte{replacedVersion}, uint64(r.At.UnixNano()))
	return append(v, r.Replaces.MAC[:]...)
}

// decodeReplaced returns what r replaces by what is kept beside it; not known if that is of another report or cannot be read.
func decodeReplaced(r provision.MACReport, v []byte) provision.Replaced {
	if len(v) != replacedLen || v[0] != replacedVersion || int64(binary.BigEndian.Uint64(v[1:])) != r.At.UnixNano() {
		return provision.Replaced{}
	}
	return provision.Replaced{MAC: provision.MAC(v[9:]), Known: true}
}

func encodeReport(r provision.MACReport) (key, value []byte) {
	value = make([]byte, 0, reportLen)
	value = append(value, reportVersion)
	value = append(value, r.MAC[:]...)
	value = binary.BigEndian.AppendUint64(value, uint64(r.Subscriber))
	value = binary.BigEndian.AppendUint64(value, uint64(r.At.UnixNano()))
	return r.IP.AsSlice(), value
}

func decodeReport(key, value []byte) (provision.MACReport, error) {
	ip, ok := netip.AddrFromSlice(key)
	switch {
	case !ok || ip != ip.Unmap():
		return provision.MACReport{}, fmt.Errorf("key of %d bytes is not an address", len(key))
	case len(value) == 0:
		return provision.MACReport{}, errors.New("value is empty")
	case value[0] != reportVersion:
		return provision.MACReport{}, fmt.Errorf("version %d is not known", value[0])
	case len(value) != reportLen:
		return provision.MACReport{}, fmt.Errorf("value has %d bytes, want %d", len(value), reportLen)
	}
	r := provision.MACReport{
		IP:         ip,
		MAC:        provision.MAC(value[1:7]),
		Subscriber: provision.SubscriberID(binary.BigEndian.Uint64(value[7:15])),
		At:         time.Unix(0, int64(binary.BigEndian.Uint64(value[15:23]))),
	}
	if r.MAC.IsZero() {
		return provision.MACReport{}, errors.New("no MAC")
	}
	return r, nil
}

// The stored form of a whole report in the log, under its address:
//
//	version 1, then report, sighting, packet and what is replaced, each length(2) and bytes in the forms above, empty where there is none
const wholeVersion = 1

func encodeWhole(r provision.MACReport) []byte {
	_, report := encodeReport(r)
	v := appendBytes([]byte{wholeVersion}, report)
	var sighting, packet, replaced []byte
	if r.ARP != (provision.ARPSighting{}) {
		sighting = encodeSighting(r)
	}
	if r.Packet != (provision.Packet{}) {
		packet, _ = encodePacket(r) // without it the report is still one
	}
	if r.Replaces.Known {
		replaced = encodeReplaced(r)
	}
	for _, part := range [...][]byte{sighting, packet, replaced} {
		v = appendBytes(v, part)
	}
	return v
}

func decodeWhole(key, v []byte) (provision.MACReport, error) {
	if len(v) == 0 || v[0] != wholeVersion {
		return provision.MACReport{}, errors.New("version is not known")
	}
	var parts [4][]byte
	rest := v[1:]
	for i := range parts {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return provision.MACReport{}, fmt.Errorf("part %d runs past the end", i)
		}
		n := int(binary.BigEndian.Uint16(rest))
		parts[i], rest = rest[2:2+n], rest[2+n:]
	}
	if len(rest) > 0 {
		return provision.MACReport{}, fmt.Errorf("%d bytes left over", len(rest))
	}
	r, err := decodeReport(key, parts[0])
	if err != nil {
		return r, err
	}
	r.ARP, r.Packet, r.Replaces = decodeSighting(r, parts[1]), decodePacket(r, parts[2]), decodeReplaced(r, parts[3])
	return r, nil
}
