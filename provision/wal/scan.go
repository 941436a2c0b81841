package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// window is how much of a file is looked at in one piece, if frames are not larger.
const window = 1 << 20

// scanner reads the frames of one file in order, over whatever is damaged between them.
type scanner struct {
	name name
	seal seal
	src  source
	size int64

	buf  []byte // what was read and not yet passed
	off  int64  // of buf in the file
	over bool   // nothing more to read

	header header
	known  bool // header was whole
	ended  bool // the last frame of a snapshot was there

	blind      int   // blocks that the disk does not give
	read       bool  // a block that it does
	unreadable int64 // the end of the last of them
}

const (
	// block is how much a bad place of a disk costs.
	block = 4 << 10
	// mostBlind bounds the blocks of a file that are taken for bad places: with more, or with more than half of them, the disk is not to be
	// had, and what is on it not lost.
	mostBlind = 16
)

// Damage is a stretch of a file that could not be read.
type Damage struct {
	File     string `json:"file"`
	From, To int64  // bytes
	// What says in words what is wrong, and of which record it seems to be.
	What string `json:"what"`
	// Tail says that nothing came after it: the writer may just not have got further, by a loss of power.
	Tail bool `json:"tail"`
	// Kind and Key are those of the record that was there, as far as its first bytes are still right; zero: nobody knows.
	Kind uint8  `json:"-"`
	Key  []byte `json:"-"`
}

// scanFile calls each with every frame of a file that holds, and with its place, and bad with every
// stretch that does not. Frame and Damage are valid during the call only. Its
// error is that of each, of the context, of the disk, or a *NewerError.
func scanFile(ctx context.Context, d disk, n name, content uint16, each func(frame []byte, at int64) error, bad func(Damage)) (s *scanner, err error) {
	s = &scanner{name: n, seal: sealOf(n.salt)}
	if s.src, err = d.Open(n.String()); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, s.src.Close()) }()
	if s.size, err = s.src.Size(); err != nil {
		return s, err
	}
	if err := s.fill(headerLen); err != nil {
		return s, err
	}
	h, herr := readHeader(s.buf)
	switch {
	case herr == nil && (h.layout > layout || h.content > content):
		return s, &NewerError{File: n.String(), Layout: h.layout, Content: h.content}
	case herr == nil:
		s.header, s.known = h, true
	case len(s.buf) == 0:
		bad(Damage{File: n.String(), What: "it is empty", Tail: true})
		return s, nil
	default:
		bad(Damage{File: n.String(), To: min(headerLen, s.size), What: herr.Error()})
	}
	s.pass(min(headerLen, len(s.buf)))
	err = s.walk(ctx, each, bad)
	if err == nil {
		s.judgeEnd(bad)
	}
	return s, err
}

// judgeEnd tells of a file that is shorter than it was made.
func (s *scanner) judgeEnd(bad func(Damage)) {
	switch {
	case s.name.snapshot && !s.ended:
		bad(Damage{File: s.name.String(), From: s.off, To: s.off, What: "its end is missing"})
	case !s.name.snapshot && s.known && s.size < s.header.capacity:
		bad(Damage{File: s.name.String(), From: s.size, To: s.header.capacity, What: "it was cut"})
	}
}

func (s *scanner) pass(n int) {
	s.buf = s.buf[n:]
	s.off += int64(n)
}

// fill reads on until buf has n bytes, or all that there are.
func (s *scanner) fill(n int) error {
	if len(s.buf) >= n || s.over {
		return nil
	}
	fresh := make([]byte, max(n, window))
	have := copy(fresh, s.buf)
	m, err := io.ReadFull(s.src, fresh[have:])
	if badPlace(err) {
		m, err = s.aroundBadPlaces(fresh[have:], s.off+int64(have))
	}
	s.read = s.read || m > 0
	s.buf = fresh[:have+m]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.over, err = true, nil
	}
	return err
}

// badPlace reports whether an error may be that of some sectors only.
func badPlace(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EILSEQ)
}

// aroundBadPlaces fills b from a place on block by block, with something that is no record where the disk gives nothing, and goes on
// behind it. Its error is io.EOF, or that of a disk that gives too little.
func (s *scanner) aroundBadPlaces(b []byte, from int64) (n int, err error) {
	src, ok := s.src.(io.ReadSeeker)
	at, ok2 := s.src.(io.ReaderAt)
	if !ok || !ok2 {
		return 0, errors.ErrUnsupported
	}
	for n < len(b) && from+int64(n) < s.size {
		here := from + int64(n)
		part := b[n:min(int64(len(b)), int64(n)+block-here%block, int64(n)+s.size-here)]
		switch m, err := at.ReadAt(part, here); {
		case m == len(part):
			s.read = true
		case !badPlace(err):
			return n + m, err
		default:
			if s.blind++; int64(s.blind) > min(mostBlind, (s.size/block+2)/2) {
				return n, err
			}
			for i := range part {
				part[i] = ^s.seal.marker[0]
			}
			s.unreadable = here + int64(len(part))
		}
		n += len(part)
	}
	if !s.read {
		return n, syscall.EIO
	}
	if n < len(b) {
		return n, io.EOF
	}
	_, err = src.Seek(from+int64(n), io.SeekStart)
	return n, err
}

// next returns the frame that buf begins with; nil: there is none that holds.
func (s *scanner) next() ([]byte, error) {
	if err := s.fill(frameLen); err != nil {
		return nil, err
	}
	n := s.seal.length(s.buf)
	if n == 0 {
		return nil, nil
	}
	if err := s.fill(n); err != nil {
		return nil, err
	}
	if n > len(s.buf) || !s.seal.holds(s.buf[:n]) {
		return nil, nil
	}
	return s.buf[:n], nil
}

func (s *scanner) walk(ctx context.Context, each func([]byte, int64) error, bad func(Damage)) error {
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		frame, err := s.next()
		if err != nil {
			return err
		}
		if frame == nil {
			if more, err := s.skip(ctx, bad); err != nil || !more {
				return err
			}
			continue
		}
		if frame[12] == endKind {
			s.ended = true
		} else if err := each(frame, s.off); err != nil {
			return err
		}
		s.pass(len(frame))
	}
}

// skip goes on to the next frame that holds and tells of what lies between. more is false at the end of the file.
func (s *scanner) skip(ctx context.Context, bad func(Damage)) (more bool, err error) {
	begin := s.off
	d := Damage{File: s.name.String(), From: begin}
	s.guess(&d)
	zeros := true // so far: room that was never written
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err := s.fill(frameLen); err != nil {
			return false, err
		}
		if len(s.buf) == 0 {
			break
		}
		if s.off > begin { // where it began there is none
			frame, err := s.next()
			if err != nil {
				return false, err
			}
			if frame != nil {
				more = true
				break
			}
		}
		zeros = s.toMarker(zeros)
	}
	if !more && zeros {
		return false, nil
	}
	d.To, d.Tail = s.off, !more
	switch {
	case s.unreadable > begin && s.unreadable-block < s.off:
		d.What = "the disk does not give it"
	case zeros:
		d.What = "there are zeros in place of records"
	case d.Tail:
		d.What = "the last record is not whole"
	default:
		d.What = "a checksum does not hold"
	}
	bad(d)
	return more, nil
}

// toMarker passes at least one byte, and then all up to the next that may begin a frame. It returns whether all of them, and those before, were zeros.
func (s *scanner) toMarker(zeros bool) bool {
	i := bytes.Index(s.buf[1:], s.seal.marker[:]) + 1
	switch {
	case i > 0:
	case s.over:
		i = len(s.buf)
	default:
		i = max(1, len(s.buf)-len(s.seal.marker)+1) // a marker may begin in the last bytes
	}
	zeros = zeros && allZero(s.buf[:i])
	s.pass(i)
	return zeros
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// guess notes whose record a damaged frame seems to be.
func (s *scanner) guess(d *Damage) {
	if s.fill(frameLen+maxKey) != nil || len(s.buf) < frameLen || [4]byte(s.buf) != s.seal.marker {
		return
	}
	if n := int(s.buf[14]); n > 0 && frameLen+n <= len(s.buf) {
		d.Kind, d.Key = s.buf[12], bytes.Clone(s.buf[frameLen:frameLen+n])
	}
}

// NewerError says that a newer usher wrote a file.
type NewerError struct {
	File            string
	Layout, Content uint16 // that the file has
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("%s has layout %d and content %d, which a newer version wrote", e.File, e.Layout, e.Content)
}
