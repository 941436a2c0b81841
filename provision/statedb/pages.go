package statedb

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"syscall"
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
	// leafShare bounds how often a byte of the file is looked at, on the average, as of pages that more than one leaf claims; and one of a leaf.
	leafShare = 4
	// seekData is lseek's: where the next byte is that is not in a hole.
	seekData = 3
)

// Pages calls each with what looks like an entry in any page of the file, in use or
// not: also older ones of a key, and those of any bucket. Whoever calls it must be able to tell
// entries from rubbish, and newer from older. It takes no longer than to read the file a few times, whatever is in it, and holes take none;
// progress is told now and then, at least each MiB, how much of size was looked at. The error is that of the file, or of ctx.
func Pages(ctx context.Context, path string, each func(key, value []byte), progress func(done, size int64)) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	p := pager{file: f, each: each, block: make([]byte, longestLeaf), leaf: make([]byte, longestLeaf)}
	for at := int64(0); ; at += longestLeaf {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if data, err := f.Seek(at, seekData); err == nil {
			at = data / pageSize * pageSize
		} else if errors.Is(err, syscall.ENXIO) {
			return nil // nothing but a hole is left
		} // else it knows no holes
		progress(at, info.Size())
		if more, err := p.look(at); err != nil || !more {
			return err
		}
	}
}

// pager looks through the pages of a file.
type pager struct {
	file        io.ReaderAt
	each        func(key, value []byte)
	block, leaf []byte
	spare       int64 // how much of leaves may still be looked at beyond their first page, by what was read
}

// look looks at the pages from at on, as many as a block has, and reports whether there may be more.
func (p *pager) look(at int64) (more bool, err error) {
	n, err := p.file.ReadAt(p.block, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	p.spare += leafShare * int64(n)
	for page := range slices.Chunk(p.block[:n], pageSize) {
		p.page(page, at)
		at += pageSize
	}
	return n == len(p.block), nil
}

// page looks at one page, and at those that it goes on in. Leaves that are in use share no page, and few of others do.
func (p *pager) page(page []byte, at int64) {
	if len(page) < pageHead || binary.NativeEndian.Uint16(page[8:])&leafFlag == 0 {
		return
	}
	over := int64(binary.NativeEndian.Uint32(page[12:]))
	if want := min(over*pageSize, longestLeaf-pageSize); over > 0 && len(page) == pageSize && want <= p.spare {
		p.spare -= want
		n := copy(p.leaf, page)
		more, _ := p.file.ReadAt(p.leaf[n:n+int(want)], at+pageSize) // as far as it goes
		page = p.leaf[:n+max(more, 0)]
	}
	leaf(page, p.each, true)
}

// leaf calls each with the entries of a page that lie within it. Those of a whole one share no byte, so that they have no more than it;
// a bucket within a value has none itself.
func leaf(page []byte, each func(key, value []byte), buckets bool) {
	count, left := int(binary.NativeEndian.Uint16(page[10:])), leafShare*len(page)
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
		if left -= k + v; left < 0 {
			return
		}
		value := page[start+k : start+k+v]
		if page[e]&bucketFlag == 0 {
			each(page[start:start+k], value)
		} else if buckets && v > inlineHead+pageHead && binary.NativeEndian.Uint64(value) == 0 {
			leaf(value[inlineHead:], each, false)
		}
	}
}
