package lease

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/provision/statedir"
)

// format is a form of the whole state: what an usher that knows it can read, and
// one that does not cannot. state.db carries its number as a mark. A new one is
// needed when an older usher would lose something that it does not understand:
// another version of lease records or MAC reports, or leases kept elsewhere (the
// mark stays in state.db then, so that the older usher is refused by it).
type format struct {
	number int
	record byte // the newest version of lease records in it
	encode func(dst []byte, r *Record) []byte
}

// unmarked is the format of a file without a mark: it was written before there were
// marks, and everything in it can be read by whoever knows this format. Marking
// it is therefore no change of the format.
const unmarked = 1

// formats are those that this program can write, the newest last. An older one
// stays here for as long as there are files of it: what cannot be copied aside
// goes on in it.
func formats() []format {
	return []format{
		{number: unmarked, record: versionERPless, encode: encodeERPless},
		{number: 2, record: encodingVersion, encode: encode}, // records say what the ERP had
	}
}

// The mark is under markKey in a bucket of its own, which versions before marks
// do not look at: the number and a CRC-32C of it, hexadecimal.
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

// content is what a walk over a database finds.
type content struct {
	fresh  bool // nothing at all
	mark   int  // 0: none
	record byte // the newest version of whole lease records
}

// walk reads all of a database. If that is damaged, c has what came before.
func (c *content) walk(tx *bbolt.Tx) error {
	c.fresh = true
	if b := tx.Bucket([]byte(markBucket)); b != nil {
		c.mark = decodeMark(b.Get([]byte(markKey)))
	}
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		c.fresh = false
		leases := string(name) == leaseBucket
		return b.ForEach(func(k, v []byte) error {
			if leases && len(v) > 0 && v[0] > c.record && whole(k, v) {
				c.record = v[0]
			}
			return nil
		})
	})
}

// whole reports whether the checksum of a record of any version holds: what is
// of a newer one is told from what is damaged by that.
func whole(k, v []byte) bool {
	n := len(v) - crcLen
	return n > 0 && crc32.Update(crc32.Checksum(k, castagnoli()), castagnoli(), v[:n]) == binary.BigEndian.Uint32(v[n:])
}

// newer returns an error if a newer usher wrote what is in path.
func (c *content) newer(path string, known format) error {
	e := &statedir.NewerError{Path: path, Lost: "what clients were given: addresses of pools that are in use may be given to others"}
	switch {
	case c.mark > known.number:
		e.Has, e.Knows = fmt.Sprintf("state format %d", c.mark), strconv.Itoa(known.number)
	case c.record > known.record:
		e.Has, e.Knows = fmt.Sprintf("lease records of version %d", c.record), strconv.Itoa(int(known.record))
	default:
		return nil
	}
	return e
}

// chooseFormat decides on the format that s writes, the newest of all. A file of an older one is
// copied aside first, for the way back. Without the copy, such as on a full disk,
// the older format is written on: clients are served, and the next start tries again.
func (s *bolt) chooseFormat(c *content, all []format, log *slog.Logger) error {
	newest := all[len(all)-1]
	if c.mark == newest.number {
		s.format = newest
		return nil
	}
	has := c.mark
	if has == 0 {
		has = unmarked
	}
	path := s.db.Path()
	if !c.fresh && has < newest.number {
		name, err := statedir.CopyAside(path, has)
		if err != nil {
			return s.keepFormat(has, all, log, err)
		}
		log.Info("state file is brought to a new format; an older usher needs the copy, which is never removed",
			"path", path, "format", newest.number, "copy", name, "copy_format", has)
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(markBucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(markKey), encodeMark(newest.number))
	})
	if err != nil {
		return s.keepFormat(has, all, log, err)
	}
	s.format = newest
	return nil
}

// keepFormat goes on in the format that the file has.
func (s *bolt) keepFormat(has int, all []format, log *slog.Logger, why error) error {
	for _, f := range all {
		if f.number == has {
			s.format = f
			log.Error("state file stays in the format that it has; the next start tries again to mark it or to bring it to the new one",
				"path", s.db.Path(), "format", has, "error", why)
			return nil
		}
	}
	return fmt.Errorf("%s: format %d cannot be written any longer, and not be left: %w", s.db.Path(), has, why)
}
