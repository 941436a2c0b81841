package lease

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// The state has a format: what an usher that knows it can read, and one that does
// not cannot. A new one is needed when an older usher would lose something that
// it does not understand. Formats 1 and 2 were databases, state.db; format 3 is the
// log, whose files carry the number as their content.
const (
	unmarked           = 1 // of a database without a mark: it was written before there were marks
	lastDatabaseFormat = 2
	contentVersion     = 3
)

// The mark of a database was under markKey in a bucket of its own: the number and a CRC-32C of it, hexadecimal.
const (
	markBucket = "format"
	markKey    = "state"
)

func encodeMark(number int) []byte {
	text := strconv.Itoa(number)
	return fmt.Appendf(nil, "%s %08x", text, crc32.Checksum([]byte(text), castagnoli()))
}

// decodeMark returns 0 for what is no mark: the records tell what it would have told.
func decodeMark(v []byte) int {
	text, _, _ := strings.Cut(string(v), " ")
	number, err := strconv.Atoi(text)
	if err != nil || string(encodeMark(number)) != string(v) {
		return 0
	}
	return number
}

// newerRecord returns the version of a lease record that a newer usher wrote: its checksum holds,
// which tells it from one that is damaged.
func newerRecord(k, v []byte) (version byte, ok bool) {
	n := len(v) - crcLen
	ok = n > 0 && v[0] > encodingVersion &&
		crc32.Update(crc32.Checksum(k, castagnoli()), castagnoli(), v[:n]) == binary.BigEndian.Uint32(v[n:])
	if !ok {
		return 0, false
	}
	return v[0], true
}
