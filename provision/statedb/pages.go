package statedb

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// The form of a page of the database, numbers in the byte order of the machine that wrote it:
//
//	id(8) flags(2) count(2) overflow(4), then count elements, each flags(4) position(4) length of key(4) of value(4)
//
// The position counts from its element.
//
// A bucket that is small stands within the value of its name in the root, behind 16 bytes of which the first 8 are zeros.
const (
	pageHead, elementLen = 16, 16
	inlineHead           = 16
	leafFlag             = 2
	bucketFlag           = 1
	pageSize             = 4096
	longestLeaf          = 1 << 20
)

// Pages calls each with what looks like an entry in any page of the file, in use or
// not: also older ones of a key, and those of any bucket. Whoever calls it must be able to tell
// entries from rubbish, and newer from older. It takes no longer than to read the file, whatever is in it.
func Pages(path string, each func(key, value []byte)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, longestLeaf)
	for at := int64(0); ; at += pageSize {
		n, err := f.ReadAt(buf[:pageSize], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < pageHead {
			return nil
		}
		if binary.NativeEndian.Uint16(buf[8:])&leafFlag == 0 {
			continue
		}
		if over := int(binary.NativeEndian.Uint32(buf[12:])); over > 0 && n == pageSize {
			more, _ := f.ReadAt(buf[pageSize:min((over+1)*pageSize, longestLeaf)], at+pageSize) // as far as it goes
			n += max(more, 0)
		}
		leaf(buf[:n], each)
	}
}

// leaf calls each with the entries of a page that lie within it.
func leaf(page []byte, each func(key, value []byte)) {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	for i := range count {
		e := pageHead + i*elementLen
		if e+elementLen > len(page) {
			return
		}
		pos, k, v := int(binary.NativeEndian.Uint32(page[e+4:])), int(binary.NativeEndian.Uint32(page[e+8:])), int(binary.NativeEndian.Uint32(page[e+12:]))
		start := e + pos
		if pos > len(page) || k > maxKey || v > maxValue || start+k+v > len(page) {
			continue
		}
		value := page[start+k : start+k+v]
		if page[e]&bucketFlag == 0 {
			each(page[start:start+k], value)
		} else if v > inlineHead+pageHead && binary.NativeEndian.Uint64(value) == 0 {
			leaf(value[inlineHead:], each)
		}
	}
}
