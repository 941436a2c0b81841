package lease

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision/statedb"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/wal"
)

// Before there was the log, state.db had leases and reports, in a database. It is read once, moved aside, and
// what takes its place says nothing but that a newer usher runs here: an older one, which would
// begin with no leases at all, is refused by it.
const oldName = "state.db"

// The buckets of state.db.
const (
	leaseBucket    = "leases"
	reportBucket   = "mac_reports"
	sightingBucket = "mac_reports_arp"  // reports that were seen by ARP
	packetBucket   = "mac_reports_dhcp" // reports that name their packet
	replacedBucket = "mac_reports_erp"  // reports that say what they replace
)

//go:embed testdata/successor.db.gz
var successor []byte

// successorFile is a database with the mark of format 3 and nothing else.
func successorFile() []byte {
	z, err := gzip.NewReader(bytes.NewReader(successor))
	if err == nil {
		var b []byte
		if b, err = io.ReadAll(z); err == nil {
			return b
		}
	}
	panic(err) // it is part of the program
}

// oldState is what state.db had and the log has not yet.
type oldState struct {
	path    string
	format  int  // 0: not known
	damaged bool // not all of it could be read
	written bool // all is in the log; what is left is to move the file

	mu      sync.Mutex // guards records once commits may come beside
	records map[recordKey]wal.Record
}

type recordKey struct {
	kind uint8
	ip   netip.Addr
}

func keyOf(kind uint8, key []byte) recordKey {
	ip, _ := netip.AddrFromSlice(key)
	return recordKey{kind, ip}
}

func (o *oldState) has(kind uint8, key []byte) bool {
	if o == nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.records[keyOf(kind, key)]
	return ok
}

// all returns the records that are still to be written.
func (o *oldState) all() map[recordKey]wal.Record {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.records)
}

// overtake leaves out what a commit has newer, which has its turn now, and returns it.
func (o *oldState) overtake(kind uint8, ip netip.Addr) (r wal.Record, had bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := recordKey{kind, ip}
	if r, had = o.records[k]; had {
		delete(o.records, k)
	}
	return r, had
}

// putBack is the reverse of overtake: the commit failed.
func (o *oldState) putBack(r wal.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.records[keyOf(r.Kind, r.Key)] = r
}

// openOld opens state.db; in tests alone another one does.
var openOld = func(path string) (io.ReadCloser, error) { return statedb.Open(path) }

// readOld reads state.db, if it is still of an older usher.
func (s *logStore) readOld(ctx context.Context, l *wal.Log) error {
	path := filepath.Join(s.dir, oldName)
	content, err := openOld(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.setOld(&oldState{path: path, written: true}) // and yet an older one is to be refused
		return nil
	}
	if err != nil {
		return err
	}
	want := successorFile()
	have := make([]byte, len(want)+1)
	n, err := io.ReadFull(content, have)
	bad := ignoreEnd(err) // a place that the disk does not give: it is damaged, for those who get over that
	if err := content.Close(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if bad == nil && bytes.Equal(have[:n], want) {
		if l.Status().Files == 0 && !s.loaded.Load() {
			s.cannotRead(fmt.Errorf("%s has no file, though %s says that there was a log: all leases and MAC reports of before are lost", s.path, path))
		}
		return nil
	}
	o := &oldState{path: path, records: map[recordKey]wal.Record{}}
	if err := o.read(ctx, s); err != nil {
		return err
	}
	if bad != nil {
		s.log.Warn("the disk does not give all of the state of an older usher, or of what stands in its place; it is moved aside", "path", path, "error", bad)
	}
	if err := o.dropOlder(ctx, l); err != nil {
		return s.newer(err)
	}
	s.setOld(o)
	return nil
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func (s *logStore) setOld(o *oldState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old = o
}

// read takes what a child process finds in the database, and, if it does not get through, what the pages have of leases.
func (o *oldState) read(ctx context.Context, s *logStore) error {
	began := time.Now()
	parts := map[string]map[string][]byte{}
	newer := byte(0)
	err := statedb.Read(ctx, o.path, func(i statedb.Item) {
		switch i.Bucket {
		case leaseBucket:
			if v, yes := newerRecord(i.Key, i.Value); yes {
				newer = v
			}
			if err := o.lease(i.Key, i.Value); err != nil {
				s.cannotRead(err)
			}
		case markBucket:
			o.format = max(o.format, decodeMark(i.Value))
		default:
			if parts[i.Bucket] == nil {
				parts[i.Bucket] = map[string][]byte{}
			}
			parts[i.Bucket][string(i.Key)] = i.Value
		}
	})
	switch {
	case errors.Is(err, statedb.ErrInUse):
		return fmt.Errorf("%s: %w", o.path, ErrInUse)
	case errors.Is(err, statedb.ErrNoChild):
		return fmt.Errorf("%s: %w", o.path, err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case o.format > lastDatabaseFormat && len(o.records) == 0: // ours, and damaged: what it has to say is still legible
		o.damaged = o.format == contentVersion
	}
	switch {
	case o.format > contentVersion:
		return newerError(o.path, fmt.Sprintf("state format %d", o.format), contentVersion)
	case newer > 0:
		return newerError(o.path, fmt.Sprintf("lease records of version %d", newer), encodingVersion)
	}
	o.reports(parts, s)
	read := len(o.records)
	if err != nil {
		o.damaged = true
		serr := statedb.Pages(ctx, o.path, o.page, s.progress(o.path))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(serr, statedb.ErrDisk) { // nothing of it is lost yet: it is tried again
			return fmt.Errorf("%s: %w", o.path, serr)
		}
		err = errors.Join(err, serr)
		if o.format > contentVersion {
			return newerError(o.path, fmt.Sprintf("state format %d", o.format), contentVersion)
		}
		s.cannotRead(fmt.Errorf("%s is damaged: %w; %d records were read in order, %d leases more found in its pages", o.path, err, read, len(o.records)-read))
	}
	s.log.Info("state of an older usher read", "path", o.path, "records", len(o.records), "damaged", o.damaged, "took", time.Since(began))
	return nil
}

// progressEvery is how often the log says how far a long start is.
const progressEvery = 5 * time.Second

// progress has the log say now and then how much of a damaged file was looked at.
func (s *logStore) progress(path string) func(done, size int64) {
	said := time.Now()
	return func(done, size int64) {
		if time.Since(said) >= progressEvery {
			said = time.Now()
			s.log.Info("state of an older usher is damaged, so all of it is looked through for leases", "path", path, "bytes", done, "of", size)
		}
	}
}

// page takes what is found in a page: a lease, or the mark.
func (o *oldState) page(key, value []byte) {
	if string(key) == markKey {
		o.format = max(o.format, decodeMark(value))
		return
	}
	_ = o.lease(key, value) // what is none is none
}

// lease keeps a record, unless a newer one of its address was found.
func (o *oldState) lease(key, value []byte) error {
	rec, err := decode(key, value)
	if err != nil {
		return err
	}
	k := keyOf(kindLease, key)
	if kept, ok := o.records[k]; ok {
		if was, err := decode(kept.Key, kept.Value); err == nil && was.Renewed.After(rec.Renewed) {
			return nil
		}
	}
	o.records[k] = wal.Record{Kind: kindLease, Key: bytes.Clone(key), Value: bytes.Clone(value)}
	return nil
}

// reports puts what the buckets have of each report together.
func (o *oldState) reports(parts map[string]map[string][]byte, s *logStore) {
	for key, value := range parts[reportBucket] {
		r, err := decodeReport([]byte(key), value)
		if err != nil {
			s.cannotRead(fmt.Errorf("mac report, key %x, value %x: %w", key, value, err))
			continue
		}
		r.ARP = decodeSighting(r, parts[sightingBucket][key])
		r.Packet = decodePacket(r, parts[packetBucket][key])
		r.Replaces = decodeReplaced(r, parts[replacedBucket][key])
		o.records[keyOf(kindReport, []byte(key))] = wal.Record{Kind: kindReport, Key: []byte(key), Value: encodeWhole(r)}
	}
}

// dropOlder leaves out what the log has newer: an older usher ran in between, on a copy from before.
func (o *oldState) dropOlder(ctx context.Context, l *wal.Log) error {
	return l.Load(ctx, func(r wal.Record) error {
		mine, ok := o.records[keyOf(r.Kind, r.Key)]
		if ok && newerThan(r, mine) {
			delete(o.records, keyOf(r.Kind, r.Key))
		}
		return nil
	})
}

func newerThan(a, b wal.Record) bool {
	if a.Kind == kindLease {
		x, err := decode(a.Key, a.Value)
		y, err2 := decode(b.Key, b.Value)
		return err == nil && err2 == nil && x.Renewed.After(y.Renewed)
	}
	x, err := decodeWhole(a.Key, a.Value)
	y, err2 := decodeWhole(b.Key, b.Value)
	return err == nil && err2 == nil && x.Outranks(y, y.At)
}

// oldChunk bounds one commit of what is moved.
const oldChunk = 2000

// moveOld writes what state.db had to the log, and then puts the file aside. What does not succeed is tried again.
func (s *logStore) moveOld(l *wal.Log) {
	o := s.pending()
	if o == nil {
		return
	}
	if !o.written {
		if err := o.write(func(fill func(*wal.Frames) error) error { return s.commit(l, fill) }); err != nil {
			return // the log's health tells
		}
		o.written = true
	}
	kept, err := o.moveAside()
	if err != nil {
		s.fails(fmt.Errorf("put %s aside: %w", o.path, err))
		return
	}
	s.health.Store(&Health{})
	s.setOld(nil)
	if kept != "" {
		s.log.Info("leases and MAC reports are kept in a log from now on; an older usher needs the copy, which is never removed",
			"log", s.path, "copy", kept, "records", len(o.all()))
	}
}

// write brings the records to the log, but for those that a commit has overtaken when their turn comes.
func (o *oldState) write(commit func(func(*wal.Frames) error) error) error {
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(o.all())), oldChunk) {
		err := commit(func(f *wal.Frames) error {
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, k := range chunk {
				if r, ok := o.records[k]; ok {
					f.Put(r)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// moveAside keeps the file under another name and puts its successor in its place.
func (o *oldState) moveAside() (kept string, err error) {
	if o.records != nil {
		suffix := fmt.Sprintf("format%d", max(o.format, unmarked))
		if o.damaged {
			suffix = "damaged"
		}
		if kept, err = statedir.KeepAside(o.path, suffix); err != nil {
			return "", err
		}
	}
	return kept, statedir.Replace(o.path, 0o600, func(w io.Writer) error {
		_, err := w.Write(successorFile())
		return err
	})
}

const lostWithLeases = "what clients were given: addresses of pools that are in use may be given to others"

func newerError(path, has string, knows int) error {
	return &statedir.NewerError{Path: path, Has: has, Knows: fmt.Sprint(knows), Lost: lostWithLeases}
}
