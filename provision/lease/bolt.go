package lease

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
)

// The buckets of the database.
const (
	leaseBucket  = "leases"
	reportBucket = "mac_reports"
	// sightingBucket is made with the first report that was seen by ARP.
	sightingBucket = "mac_reports_arp"
	// packetBucket is made with the first report that names its packet.
	packetBucket = "mac_reports_dhcp"
	// replacedBucket is made with the first report that says what it replaces.
	replacedBucket = "mac_reports_erp"
)

func buckets() [][]byte { return [][]byte{[]byte(leaseBucket), []byte(reportBucket)} }

// bolt is the Store in a bbolt database. What is in a turn of Commit is that
// database's writer, of which there is one.
type bolt struct {
	db     *bbolt.DB
	format format // that is written
	batch  Batch  // of the writer, used again
	room   []byte // of the writer: what its transaction writes
}

// memoryPath is what a database in memory says for its path.
const memoryPath = "memory"

// memoryFile stands for a file on disk.
func memoryFile(string, int, os.FileMode) (*os.File, error) {
	fd, err := unix.MemfdCreate("usher-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("state in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "memory"), nil
}

// openFile opens the file of a database; nil: one on disk.
type openFile = func(string, int, os.FileMode) (*os.File, error)

// openBolt opens path and walks all of it, since bbolt notices most damage only
// when it stumbles over it, by a panic; a file cut short is a fault of memory.
// The list of free pages is kept in the file: without it bbolt would look for
// them in a goroutine of its own, where its panic ends the process. What a newer
// usher wrote is left as it is, with a *statedir.NewerError.
func openBolt(path string, open openFile, all []format, log *slog.Logger) (s *bolt, err error) {
	var db *bbolt.DB
	var c content
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damage{fmt.Errorf("%v", r)}
			if newer := c.newer(path, all[len(all)-1]); newer != nil {
				err = newer // which is for a newer usher to deal with
			}
		}
		if err != nil && db != nil {
			_ = db.Close() // the first error counts
			s = nil
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		OpenFile: open, Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return nil, err
	}
	s = &bolt{db: db}
	if err = db.View(c.walk); err == nil {
		err = c.newer(path, all[len(all)-1])
	}
	if err == nil {
		err = s.makeBuckets()
	}
	if err == nil {
		err = s.chooseFormat(&c, all, log)
	}
	return s, err
}

// damage is a file that is not a whole database.
type damage struct{ error }

func isDamage(err error) bool {
	return errors.As(err, &damage{}) || errors.Is(err, bolterrors.ErrInvalid) ||
		errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch)
}

// makeBuckets writes nothing where there are all: a full disk is no reason to
// forget what is in the file.
func (s *bolt) makeBuckets() error {
	missing := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets() {
			missing = missing || tx.Bucket(name) == nil
		}
		return nil
	})
	if err != nil || !missing {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("make bucket %s: %w", name, err)
			}
		}
		return nil
	})
}

// Leases implements Store.
func (s *bolt) Leases(each func(Record, error)) error {
	return s.forEach(leaseBucket, func(k, v []byte) { each(decode(k, v)) })
}

// Reports implements Store.
func (s *bolt) Reports(each func(provision.MACReport, error)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		seen, packets, replaced := tx.Bucket([]byte(sightingBucket)), tx.Bucket([]byte(packetBucket)), tx.Bucket([]byte(replacedBucket))
		return tx.Bucket([]byte(reportBucket)).ForEach(func(k, v []byte) error {
			r, err := decodeReport(k, v)
			if err != nil {
				each(r, fmt.Errorf("key %x, value %x: %w", k, v, err))
				return nil
			}
			if seen != nil {
				r.ARP = decodeSighting(r, seen.Get(k))
			}
			if packets != nil {
				r.Packet = decodePacket(r, packets.Get(k))
			}
			if replaced != nil {
				r.Replaces = decodeReplaced(r, replaced.Get(k))
			}
			each(r, nil)
			return nil
		})
	})
}

func (s *bolt) forEach(bucket string, each func(k, v []byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			each(k, v)
			return nil
		})
	})
}

// Commit implements Store.
func (s *bolt) Commit(fill func(*Batch) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := &s.batch
		b.Leases, b.Forget, b.Reports, b.Done, b.after = b.Leases[:0], b.Forget[:0], b.Reports[:0], b.Done[:0], nil
		if err := fill(b); err != nil {
			return err
		}
		s.room = s.room[:0]
		if err := s.writeLeases(tx.Bucket([]byte(leaseBucket)), b); err != nil {
			return err
		}
		if err := writeReports(tx, b); err != nil {
			return err
		}
		for _, f := range b.after {
			tx.OnCommit(f)
		}
		return nil
	})
}

func (s *bolt) writeLeases(bucket *bbolt.Bucket, b *Batch) error {
	for i := range b.Leases {
		r, start := &b.Leases[i], len(s.room)
		s.room = s.format.encode(s.room, r) // what it was before, if it moves, stays valid for the transaction
		if err := bucket.Put(keyBytes(ipKey(r.IP)), s.room[start:]); err != nil {
			return fmt.Errorf("lease of %s: %w", r.IP, err)
		}
	}
	for _, ip := range b.Forget {
		if err := bucket.Delete(keyBytes(ipKey(ip))); err != nil {
			return fmt.Errorf("lease of %s: %w", ip, err)
		}
	}
	return nil
}

func writeReports(tx *bbolt.Tx, b *Batch) error {
	now, bucket := time.Now(), tx.Bucket([]byte(reportBucket))
	for _, r := range b.Reports {
		key, value := encodeReport(r)
		if old := bucket.Get(key); old != nil {
			if kept, err := decodeReport(key, old); err == nil && kept.Outranks(r, now) {
				continue
			}
		}
		err := bucket.Put(key, value)
		if err == nil {
			err = writeEvidence(tx, key, r)
		}
		if err != nil {
			return fmt.Errorf("mac report for %s: %w", r.IP, err)
		}
	}
	for _, r := range b.Done {
		key, value := encodeReport(r)
		if !bytes.Equal(bucket.Get(key), value) {
			continue
		}
		err := bucket.Delete(key)
		for _, name := range [...]string{sightingBucket, packetBucket, replacedBucket} {
			if beside := tx.Bucket([]byte(name)); err == nil && beside != nil {
				err = beside.Delete(key)
			}
		}
		if err != nil {
			return fmt.Errorf("mac report for %s: remove: %w", r.IP, err)
		}
	}
	return nil
}

// writeEvidence keeps how ARP showed the MAC of a report, or its packet, and what it replaces. Beside one of the other kind
// nothing is to be taken out: what an earlier report left there has another time.
func writeEvidence(tx *bbolt.Tx, key []byte, r provision.MACReport) error {
	put := func(name string, value []byte) error {
		beside, err := tx.CreateBucketIfNotExists([]byte(name))
		if err != nil {
			return err
		}
		return beside.Put(key, value)
	}
	if r.ARP != (provision.ARPSighting{}) {
		if err := put(sightingBucket, encodeSighting(r)); err != nil {
			return err
		}
	}
	if r.Replaces.Known {
		if err := put(replacedBucket, encodeReplaced(r)); err != nil {
			return err
		}
	}
	if r.Packet == (provision.Packet{}) {
		return nil
	}
	value, err := encodePacket(r)
	if err != nil {
		return err
	}
	return put(packetBucket, value)
}

// Volatile implements Store.
func (s *bolt) Volatile() bool { return s.db.Path() == memoryPath }

// Close implements Store.
func (s *bolt) Close() error { return s.db.Close() }

// addrOf is the address of a key.
func addrOf(key uint32) netip.Addr { return netip.AddrFrom4([4]byte(keyBytes(key))) }
