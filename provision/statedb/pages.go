package statedb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	// mostBad bounds the bad places of a file that are passed, as does half of it: each may take seconds, and of more the disk is the one that fails.
	mostBad = 16
	// seekData is lseek's: where the next byte is that is not in a hole.
	seekData = 3
)

// Pages calls each with what looks like an entry in any page of the file, in use or
// not: also older ones of a key, and those of any bucket. Whoever calls it must be able to tell
// entries from rubbish, and newer from older. It takes no longer than to read the file a few times, whatever is in it, and holes take none;
// progress is told now and then, at least each MiB, how much of size was looked at. A page that the disk does not give is passed, and the error tells
// of it at the end. The error is else that of the file, or of ctx; ErrDisk: next to nothing of it can be read.
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
	p := pager{file: f, each: each, block: make([]byte, longestLeaf), leaf: make([]byte, longestLeaf),
		most: int(min(mostBad, (info.Size()/pageSize+2)/2))}
	for at := int64(0); ; at += longestLeaf {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if data, err := f.Seek(at, seekData); err == nil {
			at = data / pageSize * pageSize
		} else if errors.Is(err, syscall.ENXIO) {
			return p.passed() // nothing but a hole is left
		} // else it knows no holes
		progress(at, info.Size())
		if more, err := p.look(at); err != nil {
			return err
		} else if !more {
			return p.passed()
		}
	}
}

// pager looks through the pages of a file.
type pager struct {
	file        io.ReaderAt
	each        func(key, value []byte)
	block, leaf []byte
	most        int   // bad places that may be passed
	bad         int   // that were
	why         error // of the last one
	spare       int64 // how much of leaves may still be looked at beyond their first page, by what was read
}

// look looks at the pages from at on, as many as a block has, and reports whether there may be more.
func (p *pager) look(at int64) (more bool, err error) {
	n := 0
	for n < len(p.block) {
		m, err := p.file.ReadAt(p.block[n:], at+int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if p.bad, p.why = p.bad+1, err; p.bad > p.most {
				return false, fmt.Errorf("%w: %w", ErrDisk, err)
			}
			to := min((n/pageSize+1)*pageSize, len(p.block))
			clear(p.block[n:to])
			n = to
		}
	}
	p.spare += leafShare * int64(n)
	for page := range slices.Chunk(p.block[:n], pageSize) {
		p.page(page, at)
		at += pageSize
	}
	return n == len(p.block), nil
}

// passed tells of pages that could not be read.
func (p *pager) passed() error {
	if p.bad == 0 {
		return nil
	}
	return fmt.Errorf("the disk does not give %d pages of it: %w", p.bad, p.why)
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
