package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A file is looked at in one piece, if it is no larger than those of changes are: so its frames can be gone through backwards. Of a larger one,
// such as a snapshot, it is a window, if frames are not larger: what the cache of a processor holds.
var wholeFile int64 = 2 * maxCapacity // smaller in tests alone

const window = 256 << 10

// scanner reads the frames of one file in order, over whatever is damaged between them.
type scanner struct {
	name name
	seal seal
	src  source
	size int64

	window int
	room   []byte // of buf
	fills  int    // how often it was filled
	buf    []byte // what was read and not yet passed
	off    int64  // of buf in the file
	over   bool   // nothing more to read
	broken int    // blocks that the disk does not give
	failed error  // too many of them
	bad    func(Damage)

	header header
	known  bool // header was whole
	ended  bool // the last frame of a snapshot was there

	acked int64 // where the commits end that somebody was told of, by whom knows that from elsewhere; 0: nobody knows
	end   int64 // of the last frame that holds
	begun int64 // where a commit of several records began of which the end did not come yet; 0: none has
	since int   // frames of it so far
	lost  int64 // up to where the disk does not give something
	cut   int64 // where a commit begins that a kill has cut, after which there is nothing; 0: none
	told  int64 // up to where something is damaged
	vain  int64 // bytes of what looked like frames and was none
}

// Damage is a stretch of a file that could not be read.
type Damage struct {
	File     string `json:"file"`
	From, To int64  // bytes
	// What says in words what is wrong, and of which record it seems to be.
	What string `json:"what"`
	// Tail says that nothing came after it: the writer may just not have got further, by a loss of power.
	Tail bool `json:"tail"`
	// killed says that it is what a kill leaves of a commit that nobody was told of.
	killed bool
	// Kind and Key are those of the record that was there, as far as its first bytes are still right; zero: nobody knows.
	Kind uint8  `json:"-"`
	Key  []byte `json:"-"`
}

// kept reports whether what each was called with is still there.
func (s *scanner) kept() bool { return s.fills <= 1 }

// scanFile calls each with every frame of a file that holds, and with its place, and bad with every
// stretch that does not. Frame and Damage are valid during the call only. Its
// error is that of each, of the context, that of a disk that gives next to nothing of it, or a *NewerError; bad is called for none of them.
//
// It reads into room, which it makes larger if it has to. acked is that of scanner.
func scanFile(ctx context.Context, d disk, n name, content uint16, acked int64, room *[]byte, each func(frame []byte, at int64) error, bad func(Damage)) (s *scanner, err error) {
	s = &scanner{name: n, seal: sealOf(n.salt), room: *room, acked: acked, end: headerLen}
	if s.src, err = d.Open(n.String()); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, s.src.Close()) }()
	if s.size, err = s.src.Size(); err != nil {
		return s, err
	}
	if s.window = window; s.size < wholeFile {
		s.window = int(s.size) + 1 // one more, so that its end is seen
	}
	defer func() { *room = s.room }()
	var found []Damage
	s.bad = func(d Damage) {
		found = append(found, d)
		s.told = max(s.told, d.To)
	}
	defer func() {
		if err = errors.Join(s.failed, err); err == nil {
			for _, d := range found {
				bad(d)
			}
		}
	}()
	s.fill(headerLen)
	h, herr := readHeader(s.buf)
	switch {
	case herr == nil && (h.layout > layout || h.content > content):
		return s, &NewerError{File: n.String(), Layout: h.layout, Content: h.content}
	case herr == nil:
		s.header, s.known = h, true
	case len(s.buf) == 0:
		s.bad(Damage{File: n.String(), What: "it is empty", Tail: true})
		return s, nil
	default:
		s.bad(Damage{File: n.String(), To: min(headerLen, s.size), What: herr.Error()})
	}
	s.pass(min(headerLen, len(s.buf)))
	err = s.walk(ctx, each)
	if err == nil {
		s.judgeEnd(s.bad)
	}
	return s, err
}

// judgeEnd tells of a file that is shorter than it was made, or that has less than it had.
func (s *scanner) judgeEnd(bad func(Damage)) {
	switch from := max(s.end, s.told); {
	case !s.name.snapshot && s.cut == 0 && from < min(s.acked, s.size):
		bad(Damage{File: s.name.String(), From: from, To: s.acked, What: "there are zeros in place of its last records"})
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

// fill reads on until buf has n bytes, or all that there are. A block that the disk does not give is zeros, and told.
func (s *scanner) fill(n int) {
	if len(s.buf) >= n || s.over {
		return
	}
	s.fills++
	rest := s.buf
	if n = max(n, s.window); cap(s.room) < n {
		s.room = make([]byte, n)
	}
	s.room = s.room[:n]
	have := copy(s.room, rest)
	for have < len(s.room) && !s.over {
		at := s.off + int64(have)
		m, err := s.src.ReadAt(s.room[have:], at)
		have += m
		switch {
		case errors.Is(err, io.EOF):
			s.over = true
		case err != nil:
			n := s.leaveOut(s.room[have:], at+int64(m), err)
			clear(s.room[have : have+n])
			have += n
		}
	}
	s.buf = s.room[:have]
}

// leaveOut passes a block that the disk does not give, a bad place. A file of which many cannot be read is not damaged: the disk is not to be had,
// which may pass, and what is there is lost for nobody. It may take seconds for each, too.
func (s *scanner) leaveOut(room []byte, at int64, why error) (n int) {
	to := min((at/blockSize+1)*blockSize, s.size)
	if s.over = to <= at; s.over {
		return 0
	}
	if s.broken++; int64(s.broken) > min(maxBroken, (s.size/blockSize+2)/2) {
		s.failed, s.over = why, true
		return 0
	}
	s.lost = to
	s.bad(Damage{File: s.name.String(), From: at, To: to, What: "the disk does not give it: " + why.Error()})
	return min(len(room), int(to-at))
}

const (
	blockSize = 4096
	maxBroken = 16 // of a file, and half of it at most
)

// next returns the frame that buf begins with; nil: there is none that holds.
func (s *scanner) next() []byte {
	s.fill(frameLen)
	n := s.seal.length(s.buf)
	if n == 0 {
		return nil
	}
	s.fill(n)
	if n > len(s.buf) || !s.seal.holds(s.buf[:n]) {
		s.vain += int64(min(n, len(s.buf)))
		return nil
	}
	return s.buf[:n]
}

// tired reports whether so much looked like frames and was none that nobody but who meant to can have written it: to go on would take
// many times as long as to read the file.
func (s *scanner) tired() bool { return s.vain > 16*s.size+16*maxValue }

func (s *scanner) walk(ctx context.Context, each func([]byte, int64) error) error {
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		frame := s.next()
		if frame == nil {
			if more, err := s.skip(ctx); err != nil || !more {
				return err
			}
			continue
		}
		s.follow(frame)
		s.end = s.off + int64(len(frame))
		switch frame[kindAt] {
		case endKind:
			if s.ended = true; s.name.snapshot {
				return nil // whatever is behind it
			}
		case commitKind:
		default:
			if err := each(frame, s.off); err != nil {
				return err
			}
		}
		s.pass(len(frame))
	}
}

// follow notes where the commit began that a frame is of.
func (s *scanner) follow(frame []byte) {
	part := frame[flagsAt] & (flagFirst | flagMore)
	switch {
	case part == 0 || frame[kindAt] == commitKind:
		s.begun = 0
		return
	case part&flagFirst != 0, s.begun == 0: // or its first frame is damaged
		s.begun, s.since = s.off, 0
	}
	s.since++
}

// wasCut reports whether a file ends within a commit because who wrote it was killed, and not because a part of it was taken away, or
// got damaged: somebody was told of the commit then.
func (s *scanner) wasCut(h halt) bool {
	return s.begun > 0 && !s.name.snapshot && s.lost <= s.begun && s.acked <= s.begun && (!s.known || s.size >= s.header.capacity) && s.byKill(h)
}

// pageSize is in what pieces the kernel takes what is written, and where it stops when the writer is killed.
const pageSize = 4096

// halt is a place with no frame that holds, after which there is none to the end of the file.
type halt struct {
	at   int64  // of it
	head []byte // what is there, a frame's first bytes at most
	last int64  // where the last byte ends that is not zero
}

// byKill reports whether what is at h is what a kill leaves: all up to a page's end as it was to be, and nothing after it. Where a disk has lost
// the last page of a commit whole, it looks the same.
func (s *scanner) byKill(h halt) bool {
	page := (max(h.at, h.last) + pageSize - 1) / pageSize * pageSize
	there := page - h.at
	if there == 0 {
		return true // between two frames
	}
	if h.last <= h.at || !bytes.HasPrefix(h.head, s.seal.marker[:min(there, int64(len(s.seal.marker)))]) {
		return false
	}
	return there < frameLen || int64(s.seal.length(h.head)) > there
}

// skip goes on to the next frame that holds and tells of what lies between. more is false at the end of the file.
func (s *scanner) skip(ctx context.Context) (more bool, err error) {
	begin := s.off
	d := Damage{File: s.name.String(), From: begin}
	s.guess(&d)
	h := halt{at: begin, head: bytes.Clone(s.buf[:min(frameLen, len(s.buf))]), last: begin}
	ended := s.seal.likeEnd(s.buf)
	zeros := true // so far: room that was never written
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		s.fill(frameLen)
		if len(s.buf) == 0 {
			break
		}
		if s.off > begin && s.next() != nil { // where it began there is none
			more = true
			break
		}
		if s.tired() {
			d.To, d.What = s.size, "so much in it looks like records and is none that the rest was not read"
			s.bad(d)
			return false, nil
		}
		zeros = s.toMarker(zeros, &h.last)
	}
	d.To, d.Tail = s.off, !more
	switch {
	case !more && !ended && s.wasCut(h):
		s.cut = s.begun
		d = Damage{File: d.File, From: s.begun, To: d.To, What: fmt.Sprintf("the last commit is not whole: what there is of it, %d records, is left out", s.since), Tail: true, killed: true}
		if zeros {
			d.To = begin
		}
	case !more && zeros && s.begun > 0 && !s.name.snapshot && d.To > d.From:
		d.What = "there are zeros in place of the end of the last commit"
	case !more && zeros:
		return false, nil
	case zeros:
		d.What = "there are zeros in place of records"
	case d.Tail:
		d.What = "the last record is not whole"
		d.killed = !ended && !s.name.snapshot && s.acked <= begin && s.byKill(h)
	default:
		d.What = "a checksum does not hold"
	}
	s.bad(d)
	return more, nil
}

// toMarker passes at least one byte, and then all up to the next that may begin a frame. It returns whether all of them, and those before, were
// zeros, and sets last to where the last one that is none ends, if there is one.
func (s *scanner) toMarker(zeros bool, last *int64) bool {
	i := bytes.Index(s.buf[1:], s.seal.marker[:]) + 1
	switch {
	case i > 0:
	case s.over:
		i = len(s.buf)
	default:
		i = max(1, len(s.buf)-len(s.seal.marker)+1) // a marker may begin in the last bytes
	}
	if !allZero(s.buf[:i]) {
		zeros = false
		*last = s.off + int64(lastByte(s.buf[:i]))
		s.pass(i)
		return zeros
	}
	s.pass(i)
	if !s.over && len(s.buf) < len(s.seal.marker) && allZero(s.buf) {
		s.jump()
	}
	return zeros
}

// lastByte returns where the last byte of b ends that is not zero.
func lastByte(b []byte) int {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return n
}

// jump passes the hole behind what was read: a file may be as long as anything where there is nothing in it.
func (s *scanner) jump() {
	src, ok := s.src.(interface{ Data(at int64) int64 })
	if !ok {
		return
	}
	read := s.off + int64(len(s.buf))
	to := min(src.Data(read), s.size) - int64(len(s.seal.marker)) + 1 // a marker may begin with zeros
	if to > read {
		s.off, s.buf = to, nil
	}
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
	s.fill(frameLen + maxKey)
	if len(s.buf) < frameLen || [4]byte(s.buf) != s.seal.marker {
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
