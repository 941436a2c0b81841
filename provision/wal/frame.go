package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
)

// A file is named by its place in the order, what it is, and a number of its own
// that nobody outside knows:
//
//	00000000000000000007-1f2e3d4c5b6a7988.log    changes, in the order in which they were committed
//	00000000000000000006-8899aabbccddeeff.snap   what the files up to that place came to
//
// The number (the salt) begins every frame and goes into its checksum: bytes that a
// subscriber wrote into a value, or that an older file left in a block of the
// disk, are no frame, wherever a reader looks for the next one after damage. It
// stands in the name too, so that no damage within the file takes it away.
type name struct {
	seq      uint64
	salt     uint64
	snapshot bool
}

const (
	logSuffix      = ".log"
	snapshotSuffix = ".snap"
	tmpSuffix      = ".tmp"
)

func (n name) String() string {
	suffix := logSuffix
	if n.snapshot {
		suffix = snapshotSuffix
	}
	return fmt.Sprintf("%020d-%016x%s", n.seq, n.salt, suffix)
}

// maxSeq is more than any number of a file: one from there on is none of ours, and the next ones would have no numbers.
const maxSeq = 1 << 62

// parseName reads what String wrote; false for another file.
func parseName(s string) (n name, ok bool) {
	base, isLog := strings.CutSuffix(s, logSuffix)
	if !isLog {
		if base, n.snapshot = strings.CutSuffix(s, snapshotSuffix); !n.snapshot {
			return name{}, false
		}
	}
	seq, salt, _ := strings.Cut(base, "-")
	var err1, err2 error
	n.seq, err1 = strconv.ParseUint(seq, 10, 64)
	n.salt, err2 = strconv.ParseUint(salt, 16, 64)
	if err1 != nil || err2 != nil || n.String() != s || n.seq >= maxSeq {
		return name{}, false
	}
	return n, true
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the standard library

// The header of a file, numbers big-endian:
//
//	magic(8) layout(2) content(2) seq(8) salt(8) capacity(8) created(8) before(8) zero(8) crc32c(4)
//
// layout is the form of header and frames, content the one of the values, by the word
// of whoever opens the log. seq and salt are those of the name, which may be damaged as well. capacity is how long the file was made, 0 for a
// snapshot, which has a last frame instead. before is where the commits of the file with the number before this one end, all of which
// somebody was told of; 0: nobody knows, as in files of versions that did not write it.
const (
	headerLen = 64
	layout    = 1
)

var magic = [8]byte{'u', 's', 'h', 'e', 'r', 'l', 'o', 'g'}

type header struct {
	layout, content  uint16
	seq, salt        uint64
	capacity, before int64
}

func appendHeader(dst []byte, n name, content uint16, capacity, before int64, created time.Time) []byte {
	base := len(dst)
	dst = append(dst, magic[:]...)
	dst = binary.BigEndian.AppendUint16(dst, layout)
	dst = binary.BigEndian.AppendUint16(dst, content)
	dst = binary.BigEndian.AppendUint64(dst, n.seq)
	dst = binary.BigEndian.AppendUint64(dst, n.salt)
	dst = binary.BigEndian.AppendUint64(dst, uint64(capacity))
	dst = binary.BigEndian.AppendUint64(dst, uint64(created.UnixMilli()))
	dst = binary.BigEndian.AppendUint64(dst, uint64(before))
	dst = append(dst, make([]byte, headerLen-crcLen-(len(dst)-base))...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[base:], castagnoli()))
}

const crcLen = 4

var errHeader = errors.New("its header is damaged")

// readHeader reads what appendHeader wrote. A damaged one costs nothing: the name has what matters.
func readHeader(b []byte) (header, error) {
	if len(b) < headerLen || crc32.Checksum(b[:headerLen-crcLen], castagnoli()) != binary.BigEndian.Uint32(b[headerLen-crcLen:]) ||
		[8]byte(b[:8]) != magic {
		return header{}, errHeader
	}
	return header{
		layout: binary.BigEndian.Uint16(b[8:]), content: binary.BigEndian.Uint16(b[10:]),
		seq: binary.BigEndian.Uint64(b[12:]), salt: binary.BigEndian.Uint64(b[20:]),
		capacity: int64(binary.BigEndian.Uint64(b[28:])), before: int64(binary.BigEndian.Uint64(b[44:])),
	}, nil
}

// A frame is one record:
//
//	marker(4) crc32c(4) length of the value(4) kind(1) flags(1) length of the key(1) zero(1) key value
//
// The marker is of the file's salt; the checksum is of the salt and of all behind itself.
//
// A commit of several records counts whole or not at all: its first frame says that it is one, those after it that they go on with it, and behind
// the last one stands a frame without key and value that ends it. Where a file of changes ends before that, the process was killed in the
// middle of its write, nobody was told of the commit, and it is left out. A frame without either flag is a commit by itself, as all are in the
// files of versions that knew no other; those read these flags as nothing, and the last frame as a record of a kind that nobody asks for.
const (
	frameLen   = 16 // without key and value
	flagDelete = 1
	flagFirst  = 2 // the first record of a commit of several
	flagMore   = 4 // a further one
	flagEnd    = 8 // of the frame that ends it
	// maxValue bounds a value: a length beyond it is damage, and no reason to read on.
	maxValue = 1 << 20
	maxKey   = math.MaxUint8
	kindAt   = 12
	flagsAt  = 13
)

// endKind is the kind of a snapshot's last frame, whose value says nothing.
const endKind = 0xff

// commitKind is the kind of the frame that ends a commit of several records.
const commitKind = 0xfe

// seal is what the frames of one file have in common.
type seal struct {
	marker [4]byte
	seed   uint32
	table  *crc32.Table
}

func sealOf(salt uint64) seal {
	b := binary.BigEndian.AppendUint64(nil, salt)
	return seal{marker: [4]byte(b[:4]), seed: crc32.Checksum(b, castagnoli()), table: castagnoli()}
}

// append adds the frame of r to dst. part says what it is of a commit of several records, 0: it is one by itself.
func (s *seal) append(dst []byte, r Record, part byte) []byte {
	base := len(dst)
	dst = append(dst, s.marker[:]...)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Value)))
	flags := part
	if r.Delete {
		flags |= flagDelete
	}
	dst = append(dst, r.Kind, flags, byte(len(r.Key)), 0)
	dst = append(dst, r.Key...)
	dst = append(dst, r.Value...)
	s.sum(dst[base:])
	return dst
}

// sum fills in the checksum of a frame.
func (s *seal) sum(frame []byte) {
	binary.BigEndian.PutUint32(frame[4:], crc32.Update(s.seed, s.table, frame[8:]))
}

// reseal turns a frame of another file into one of s.
func (s *seal) reseal(frame []byte) {
	copy(frame, s.marker[:])
	s.sum(frame)
}

// length returns how long the frame is that b begins with, by its own word; 0: that cannot be.
func (s *seal) length(b []byte) int {
	if len(b) < frameLen || [4]byte(b) != s.marker {
		return 0
	}
	value := binary.BigEndian.Uint32(b[8:])
	if value > maxValue || b[15] != 0 {
		return 0
	}
	return frameLen + int(b[14]) + int(value)
}

// end adds the frame that ends a commit of several records.
func (s *seal) end(dst []byte) []byte { return s.append(dst, Record{Kind: commitKind}, flagEnd) }

// likeEnd reports whether b begins with what was the end of a commit before it was damaged: that has no more than a quarter of its bytes wrong,
// and of another frame the checksum and more differ. What a kill left of one counts as well, for all before it is there.
func (s *seal) likeEnd(b []byte) bool {
	var room [frameLen]byte
	same := 0
	for i, c := range s.end(room[:0]) {
		if i < len(b) && b[i] == c {
			same++
		}
	}
	return same >= frameLen*3/4
}

// holds reports whether the checksum of a whole frame does.
func (s *seal) holds(frame []byte) bool {
	return crc32.Update(s.seed, s.table, frame[8:]) == binary.BigEndian.Uint32(frame[4:])
}

// record returns what a frame says. It shares the frame's bytes.
func record(frame []byte) Record {
	key := frameLen + int(frame[14])
	return Record{Kind: frame[kindAt], Delete: frame[flagsAt]&flagDelete != 0, Key: frame[frameLen:key:key], Value: frame[key:]}
}
