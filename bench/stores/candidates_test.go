package stores

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	tidwall "github.com/tidwall/wal"
	"go.etcd.io/bbolt"
	etcdwal "go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// bbolt, with the options of provision/lease.

type boltStore struct{ db *bbolt.DB }

func bucketOf(kind byte) []byte { return []byte{'k', kind} }

func openBolt(dir string, each func(record)) (store, error) {
	db, err := bbolt.Open(filepath.Join(dir, "state.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	for _, kind := range []byte{kindLease, kindReport} {
		err = errors.Join(err, db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketOf(kind))
			if b == nil {
				return nil
			}
			return b.ForEach(func(k, v []byte) error {
				each(record{kind, k, v})
				return nil
			})
		}))
	}
	return boltStore{db}, err
}

func (s boltStore) Commit(batch []record) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, r := range batch {
			b, err := tx.CreateBucketIfNotExists(bucketOf(r.Kind))
			if err == nil {
				err = b.Put(r.Key, r.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s boltStore) Close() error { return s.db.Close() }

// The log of etcd: Save syncs where there are entries. A torn end is repaired as etcd does it at its start.

type etcdStore struct {
	log  *etcdwal.WAL
	next uint64
}

func openEtcd(dir string, each func(record)) (store, error) {
	dir = filepath.Join(dir, "wal")
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		log, err := etcdwal.Create(zap.NewNop(), dir, nil)
		return &etcdStore{log, 1}, err
	}
	for repaired := false; ; repaired = true {
		log, err := etcdwal.Open(zap.NewNop(), dir, &walpb.Snapshot{Index: new(uint64), Term: new(uint64)})
		if err != nil {
			return nil, err
		}
		_, _, entries, err := log.ReadAll()
		if err != nil {
			_ = log.Close()
			if !repaired && errors.Is(err, io.ErrUnexpectedEOF) && etcdwal.Repair(zap.NewNop(), dir) {
				continue
			}
			return nil, err
		}
		s := &etcdStore{log, 1}
		for _, e := range entries {
			each(unpack(e.Data))
			s.next = e.GetIndex() + 1
		}
		return s, nil
	}
}

func (s *etcdStore) Commit(batch []record) error {
	entries := make([]*raftpb.Entry, len(batch))
	term := uint64(1)
	for i, r := range batch {
		index := s.next
		entries[i] = &raftpb.Entry{Term: &term, Index: &index, Data: r.pack()}
		s.next++
	}
	return s.log.Save(&raftpb.HardState{}, entries)
}

func (s *etcdStore) Close() error { return s.log.Close() }

// The log of hashicorp's raft; its list of segments is a bbolt database.

type raftStore struct {
	log  *raftwal.WAL
	meta *metadb.BoltMetaDB // closed by nobody else: without that the next Open in the process waits for its lock for ever
	next uint64
}

func openRaft(dir string, each func(record)) (store, error) {
	meta := &metadb.BoltMetaDB{}
	log, err := raftwal.Open(dir, raftwal.WithMetaStore(meta), raftwal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		_ = meta.Close()
		return nil, err
	}
	first, err := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	var entry raft.Log
	for i := max(first, 1); i <= last; i++ {
		if log.GetLog(i, &entry) == nil {
			each(unpack(entry.Data))
		}
	}
	return &raftStore{log, meta, last + 1}, nil
}

func (s *raftStore) Commit(batch []record) error {
	entries := make([]*raft.Log, len(batch))
	for i, r := range batch {
		entries[i] = &raft.Log{Index: s.next, Term: 1, Data: r.pack()}
		s.next++
	}
	return s.log.StoreLogs(entries)
}

func (s *raftStore) Close() error { return errors.Join(s.log.Close(), s.meta.Close()) }

// Pebble.

type pebbleStore struct{ db *pebble.DB }

// quiet drops what a store logs; what it calls fatal ends the process, as its own logger does.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Warningf(string, ...any)           {}
func (quiet) Debugf(string, ...any)             {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic("fatal: " + fmt.Sprintf(format, args...)) }

func openPebble(dir string, each func(record)) (store, error) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		return nil, err
	}
	it, err := db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	for it.First(); it.Valid(); it.Next() {
		if k := it.Key(); len(k) > 0 {
			each(record{k[0], k[1:], it.Value()})
		}
	}
	_ = it.Close() // says what could not be read
	return pebbleStore{db}, nil
}

func (s pebbleStore) Commit(batch []record) error {
	b := s.db.NewBatch()
	for _, r := range batch {
		if err := b.Set(slices.Concat([]byte{r.Kind}, r.Key), r.Value, nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (s pebbleStore) Close() error { return s.db.Close() }

// Badger. Its files are smaller than by default, which are sparse ones of 2 GB.

type badgerStore struct{ db *badger.DB }

func openBadger(dir string, each func(record)) (store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(quiet{}).
		WithValueLogFileSize(64 << 20).WithMemTableSize(16 << 20).WithBlockCacheSize(8 << 20))
	if err != nil {
		return nil, err
	}
	err = db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			k := it.Item().Key()
			_ = it.Item().Value(func(v []byte) error {
				if len(k) > 0 {
					each(record{k[0], k[1:], v})
				}
				return nil
			})
		}
		return nil
	})
	return badgerStore{db}, err
}

func (s badgerStore) Commit(batch []record) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for _, r := range batch {
			if err := tx.Set(slices.Concat([]byte{r.Kind}, r.Key), r.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s badgerStore) Close() error { return s.db.Close() }

// The log of tidwall, which syncs each batch by default and has no checksums.

type tidwallStore struct {
	log  *tidwall.Log
	next uint64
}

func openTidwall(dir string, each func(record)) (store, error) {
	log, err := tidwall.Open(filepath.Join(dir, "log"), nil)
	if err != nil {
		return nil, err
	}
	first, err := log.FirstIndex()
	last, err2 := log.LastIndex()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	for i := max(first, 1); i <= last; i++ {
		if b, err := log.Read(i); err == nil {
			each(unpack(b))
		}
	}
	return &tidwallStore{log, last + 1}, nil
}

func (s *tidwallStore) Commit(batch []record) error {
	var b tidwall.Batch
	for _, r := range batch {
		b.Write(s.next, r.pack())
		s.next++
	}
	return s.log.WriteBatch(&b)
}

func (s *tidwallStore) Close() error { return s.log.Close() }
